#!/usr/bin/env bash
# Measures a release build of the service and prints the figures of docs/figures.md as a table.
set -euo pipefail
cd "$(dirname "$0")/.."

# One figure keeps as many connections as it is allowed, up to 9 900.
ulimit -n "$(ulimit -Hn)"
cargo build --release --bin bequest
cargo run --release --quiet -p bequest-service --example figures -- "${CARGO_TARGET_DIR:-target}/release/bequest"
