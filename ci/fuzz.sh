#!/usr/bin/env bash
# Each fuzz target for BEQUEST_FUZZ_SECONDS (10), from its seeds and what former runs have found; or the ones that are named. Any toolchain
# does: the compiler's own instrumentation, and libFuzzer from its crate. A finding is kept beside the corpus, and fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=ci/steps.sh
source ci/steps.sh

seconds=${BEQUEST_FUZZ_SECONDS:-10}
host=$(rustc -vV | sed -n 's/^host: //p')
built=${FUZZ_TARGET_DIR:-fuzz/target}
case $host in
*-linux-* | *-apple-*) ;;
*)
    echo "left out: libFuzzer does not run on $host"
    exit 0
    ;;
esac

build() {
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1" \
        cargo build --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$built"
}

fuzz() { # target
    local corpus=("$built/corpus/$1")
    mkdir -p "${corpus[0]}"
    [[ ! -d fuzz/seeds/$1 ]] || corpus+=("fuzz/seeds/$1")
    # Longer than the longest list that is looked at.
    "$built/$host/release/$1" "${corpus[@]}" -max_len=12000 -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$built/corpus/$1-"
}

step "build the fuzz targets" build
if (($# == 0)); then
    mapfile -t targets < <(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml)
    set -- "${targets[@]}"
fi
for target in "$@"; do
    step "$target, $seconds s" fuzz "$target"
done
summary
