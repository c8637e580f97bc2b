#!/usr/bin/env bash
# The cancellation tree under random schedules: larger programs than the model checker can exhaust, drawn anew each time.
#
# It builds into a folder of its own, since `--cfg shuttle` changes the crate. BEQUEST_SHUTTLE_RUNS may be raised.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="${RUSTFLAGS:-} --cfg shuttle"
export CARGO_TARGET_DIR="${SHUTTLE_TARGET_DIR:-target-shuttle}"
exec cargo test --release -p bequest --test shuttle "$@"
