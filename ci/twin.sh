#!/usr/bin/env bash
# The plain tree, which the fast one is held against, under the same tests: behaviours, promises, hazards, random programs
# beside the model, and the soak. It builds into a folder of its own, since the switch changes the crate.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="${RUSTFLAGS:-} --cfg bequest_plain"
export CARGO_TARGET_DIR="${TWIN_TARGET_DIR:-target-twin}"
exec cargo test -p bequest --test go --test promises --test hazards --test model --test flat --test soak
