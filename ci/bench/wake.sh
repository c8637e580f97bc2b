#!/usr/bin/env bash
# From cancel to wake under load, beside tokio-util: quantiles, and the picture docs/cancel-to-wake.svg.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=benches/peers/core
target=${CARGO_TARGET_DIR:-$here/target}
cargo build --release --quiet --manifest-path "$here/Cargo.toml"
exec "$target/release/peers-core" histogram "${1:-docs/cancel-to-wake.svg}"
