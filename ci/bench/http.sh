#!/usr/bin/env bash
# The server beside bare hyper with the same handler: CPU, allocations and instructions a request, requests/s and p99.
#
# ci/bench.sh http [ROUNDS]
# Builds benches/peers/http (a workspace of its own). Needs wrk and h2load (Debian: wrk, nghttp2-client), and valgrind for the
# instructions; where one of them is missing, says so and leaves its part out.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=benches/peers/http
target=${CARGO_TARGET_DIR:-$here/target}
cargo build --release --quiet --manifest-path "$here/Cargo.toml"

instructions() { # mode, protocol: what a run of 5 000 requests takes more than one of 1 000, for each
    local few many
    few=$(counted "$1" "$2" 1000)
    many=$(counted "$1" "$2" 5000)
    echo $(((many - few) / 4000))
}

counted() { # mode, protocol, requests
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$target/release/peers-http-counts" "$1" "$2" "$3" 2>&1 |
        sed -n 's/.*Collected : //p'
}

echo "| server | protocol | allocations a request | bytes a request | instructions a request, the client's included |"
echo "|---|---|---|---|---|"
for protocol in http1 http2; do
    for mode in hyper by-hand off on; do
        read -r calls bytes < <("$target/release/peers-http-counts" "$mode" "$protocol" 5000)
        steps="–"
        if command -v valgrind >/dev/null; then steps=$(instructions "$mode" "$protocol"); fi
        echo "| $mode | $protocol | $calls | $bytes | $steps |"
    done
done

for tool in wrk h2load; do
    if ! command -v "$tool" >/dev/null; then
        echo "left out: CPU and throughput, as $tool is not installed" >&2
        exit 0
    fi
done
exec "$target/release/peers-http" "$@"
