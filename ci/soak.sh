#!/usr/bin/env bash
# The core under random work on eight threads: a minute, or BEQUEST_SOAK_SECONDS (600 for the long one). In release, since
# it finds more the faster it goes; then what takes too long for the ordinary tests.
#
# A failure names its seed; BEQUEST_TEST_SEED begins with one.
set -euo pipefail
cd "$(dirname "$0")/.."

export BEQUEST_SOAK_SECONDS="${BEQUEST_SOAK_SECONDS:-60}"
cargo test --release -p bequest --test soak
exec cargo test --release -p bequest --test hazards -- --ignored
