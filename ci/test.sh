#!/usr/bin/env bash
# Everything there is to check, on a machine that has a Rust toolchain: sets up what is missing, says so first, runs all
# of it, and prints what each step took. Stops at the first step that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=ci/steps.sh
source ci/steps.sh

step "set up what is missing" ci/setup.sh
step "formatting, lints, documentation" ci/lint.sh
# Nothing is left out: a server that cannot be started is a failure, as is a cable that cannot be laid. They are private ones, on free
# loopback ports and in namespaces of their own; started by root, servers run under accounts of their own.
step "unit, integration, store and documentation tests" \
    env BEQUEST_REQUIRE_SERVERS=1 cargo test --workspace --all-features --no-fail-fast
step "the core without features" cargo test -p bequest --no-default-features --lib --tests
step "the service as a newcomer builds it" cargo build --release -p bequest-service
step "model checking" ci/loom.sh
step "random schedules of larger programs" ci/shuttle.sh
step "the plain tree under the same tests" ci/twin.sh
step "memory: sanitizers, miri, memcheck, where they are" ci/sanitize.sh
step "fuzz targets, each for a while" ci/fuzz.sh
step "a minute of random work on eight threads" ci/soak.sh
step "the page in a browser" ci/page.sh "${CARGO_TARGET_DIR:-target}/release/bequest"
summary
