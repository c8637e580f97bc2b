#!/usr/bin/env bash
# Instructions per operation by callgrind, for w1, w3, w9 and w10, as a ratio to a peer counted in the same run.
#
# Counts repeat where times do not, so they guard against regressions: with CI set, a ratio below its bar fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

command -v valgrind >/dev/null || { echo "left out: valgrind is not installed" >&2; exit 1; }
here=benches/peers/core
target=${CARGO_TARGET_DIR:-$here/target}
cargo build --release --quiet --manifest-path "$here/Cargo.toml"
exec "$target/release/peers-core" counts "$@"
