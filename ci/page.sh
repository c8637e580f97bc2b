#!/usr/bin/env bash
# Takes the page's tour in a headless browser, against a service of its own, and looks at what it shows.
# usage: ci/page.sh [path of the service's binary; built if left out]
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-}
if [[ -z $binary ]]; then
    cargo build --release
    binary=${CARGO_TARGET_DIR:-target}/release/bequest
fi

for name in chromium chromium-browser google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    browser=$(command -v "$name") && break
done
[[ -n $browser ]] || { echo "no Chromium found: ci/setup.sh installs it" >&2; exit 1; }

scratch=$(mktemp -d)
: >"$scratch/printed"
service=
cleanup() {
    if [[ -n $service ]]; then kill "$service" 2>/dev/null && wait "$service" || true; fi
    rm -rf "$scratch/data" "$scratch/profile"
}
trap cleanup EXIT

"$binary" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data "$scratch/data" >"$scratch/printed" 2>"$scratch/log" &
service=$!
until grep -q /debug/contexts "$scratch/printed"; do
    kill -0 "$service" 2>/dev/null || { cat "$scratch/log" >&2; exit 1; }
    sleep 0.05
done
public=$(sed -n 's|^ *\(http://[^/ ]*\)/  .*|\1|p' "$scratch/printed")
admin=$(sed -n 's|^ *\(http://[^/ ]*\)/debug/contexts .*|\1|p' "$scratch/printed")

node ci/page.mjs "$browser" "$scratch" "$public" "$admin"
