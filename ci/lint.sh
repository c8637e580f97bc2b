#!/usr/bin/env bash
# Formatting, lints and documentation, with every warning an error.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --all-features -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

# Licences, duplicate and banned crates. Advisories are left to a machine that reaches their database.
if cargo deny --version >/dev/null 2>&1; then
    cargo deny check bans licenses sources
else
    echo "left out: cargo-deny is not installed (cargo install cargo-deny), so deny.toml was not checked"
fi
