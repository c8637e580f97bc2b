#!/usr/bin/env bash
# The stores against real servers: installs what is missing, leaves nothing out, and runs the tests of each store, of the kit
# that starts the servers, and of the scenes that attack them all. The servers are private ones, on free loopback ports; started by root, they run under
# accounts of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=ci/steps.sh
source ci/steps.sh

have_postgres() {
    command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null
}

missing=()
have_postgres || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
[[ -x /usr/sbin/pgbouncer ]] || command -v pgbouncer >/dev/null || missing+=(pgbouncer)

if ((${#missing[@]} > 0)); then
    command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 1; }
    echo "installing with apt-get: ${missing[*]}"
    as_root=()
    [[ $(id -u) == 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

export BEQUEST_REQUIRE_SERVERS=1
step "servers, proxy and the suite itself" cargo test -p bequest-test --features servers,proxy,conformance --no-fail-fast
step "Postgres" cargo test -p bequest-postgres --all-features --no-fail-fast
step "Redis" cargo test -p bequest-redis --all-features --no-fail-fast
step "SQLite" cargo test -p bequest-sqlite --all-features --no-fail-fast
step "the scenes of bequest torture stores" cargo test -p bequest-service --test stores --no-fail-fast
summary
