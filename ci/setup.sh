#!/usr/bin/env bash
# Installs what the tests need besides Rust, by the system's package manager, and says so first.
set -euo pipefail

command -v cargo >/dev/null || { echo "a Rust toolchain is needed: https://rustup.rs" >&2; exit 1; }
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || { echo "installing $component"; rustup component add "$component"; }
done

missing=()
need() { # command, package
    command -v "$1" >/dev/null || missing+=("$2")
}

case "$(uname -s)" in
Linux)
    need cc build-essential
    need curl curl
    need node nodejs
    need jq jq
    need redis-server redis-server
    [[ -x /usr/sbin/pgbouncer ]] || need pgbouncer pgbouncer
    need valgrind valgrind
    # Cables that tests pull.
    need ip iproute2
    need unshare util-linux
    command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
    if ((${#missing[@]} == 0)); then echo "nothing is missing"; exit 0; fi
    command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 1; }
    echo "installing with apt-get: ${missing[*]}"
    as_root=()
    [[ $(id -u) == 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
    ;;
Darwin)
    need cc "(xcode-select --install)"
    need curl curl
    need node node
    need jq jq
    need redis-server redis
    need initdb postgresql
    need pgbouncer pgbouncer
    [[ -d "/Applications/Google Chrome.app" ]] || command -v chromium >/dev/null || missing+=("--cask chromium")
    if ((${#missing[@]} == 0)); then echo "nothing is missing"; exit 0; fi
    echo "please install with Homebrew: ${missing[*]}" >&2
    exit 1
    ;;
*)
    echo "this script knows Linux and macOS" >&2
    exit 1
    ;;
esac
