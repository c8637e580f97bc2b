#!/usr/bin/env bash
# The core's tests under tools that watch memory: the address and leak sanitizers and miri where a nightly toolchain has
# them, valgrind's memcheck where it is installed. It says what it could not run.
#
# The tree's lists of freed nodes are left out (`--cfg bequest_no_pool`), so that each node is made and freed for these
# tools to see. BEQUEST_NIGHTLY names the toolchain (default: nightly). Builds go to a folder of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=ci/steps.sh
source ci/steps.sh

nightly=${BEQUEST_NIGHTLY:-nightly}
host=$(rustc -vV | sed -n 's/^host: //p')
target=${SANITIZE_TARGET_DIR:-target-sanitize}
export BEQUEST_SOAK_SECONDS="${BEQUEST_SANITIZED_SOAK_SECONDS:-5}"
# What measures stacks, counts bytes, or reads the process's threads is not what these tools can run.
suites=(--lib --test promises --test hazards --test go --test model --test values --test soak)

left_out=()

present() { # the suites among the wanted ones that this tree has
    local name found=()
    set -- "${suites[@]}"
    while (($# > 0)); do
        if [[ $1 == --lib ]]; then
            found+=(--lib)
            shift
        else
            name=$2
            [[ ! -e crates/bequest/tests/$name.rs && ! -d crates/bequest/tests/$name ]] || found+=(--test "$name")
            shift 2
        fi
    done
    printf '%s\n' "${found[@]}"
}

sanitized() { # sanitizer, then arguments of cargo test
    local sanitizer=$1
    shift
    RUSTFLAGS="-Zsanitizer=$sanitizer --cfg bequest_no_pool" CARGO_TARGET_DIR="$target/$sanitizer" \
        ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1" LSAN_OPTIONS="suppressions=$PWD/ci/lsan.supp:print_suppressions=0" \
        cargo "+$nightly" test --target "$host" -p bequest "$@"
}

memcheck() {
    local built binary
    built=$(RUSTFLAGS="--cfg bequest_no_pool" CARGO_TARGET_DIR="$target/memcheck" cargo test -p bequest --test promises --no-run --message-format=json 2>/dev/null)
    binary=$(sed -n 's/.*"executable":"\([^"]*promises-[^"]*\)".*/\1/p' <<<"$built" | tail -n 1)
    [[ -n $binary ]] || { echo "the test binary was not built" >&2; return 1; }
    # Depth and width are the business of other suites: they take minutes here.
    valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        "$binary" --test-threads=1 foreign:: leaks:: futures:: why:: --skip million --skip recursive
}

mapfile -t here < <(present)
if cargo "+$nightly" --version >/dev/null 2>&1; then
    step "address and leak sanitizer" sanitized address "${here[@]}"
    if cargo "+$nightly" miri --version >/dev/null 2>&1; then
        step "miri, stacked borrows" env MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" \
            CARGO_TARGET_DIR="$target/miri" cargo "+$nightly" miri test -p bequest --lib
        step "miri, tree borrows" env MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows" \
            CARGO_TARGET_DIR="$target/miri" cargo "+$nightly" miri test -p bequest --lib
    else
        left_out+=("miri: the toolchain '$nightly' has no such component (rustup component add --toolchain $nightly miri)")
    fi
else
    left_out+=("address and leak sanitizer, miri: there is no toolchain '$nightly' (rustup toolchain install $nightly)")
fi
if command -v valgrind >/dev/null; then
    step "valgrind memcheck" memcheck
else
    left_out+=("valgrind memcheck: valgrind is not installed (ci/setup.sh does that on Debian)")
fi

summary
for each in "${left_out[@]}"; do
    echo "left out: $each"
done
