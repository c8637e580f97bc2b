#!/usr/bin/env bash
# Model-checks the cancellation tree: every interleaving of a few small programs, up to a bound on preemptions.
#
# It builds into a folder of its own, since `--cfg loom` changes every crate. LOOM_MAX_PREEMPTIONS may be raised.
set -euo pipefail
cd "$(dirname "$0")/.."

export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"
export RUSTFLAGS="${RUSTFLAGS:-} --cfg loom"
export CARGO_TARGET_DIR="${LOOM_TARGET_DIR:-target-loom}"
exec cargo test --release -p bequest --test loom "$@"
