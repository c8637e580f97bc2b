#!/usr/bin/env bash
# Measures beside the peers: `ci/bench.sh NAME [ARGUMENT…]` runs ci/bench/NAME.sh; without a name, says which there are.
#
# Nothing here is run by ci/test.sh: figures depend on the machine, and the peers' dependencies stay out of the workspace.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-}
script="ci/bench/$name.sh"
if [[ -z $name || ! -x $script ]]; then
    [[ -z $name ]] || echo "there is no benchmark '$name'" >&2
    echo "usage: ci/bench.sh NAME [ARGUMENT…], where NAME is one of:"
    for each in ci/bench/*.sh; do
        printf '  %-8s %s\n' "$(basename "$each" .sh)" "$(sed -n '2s/^# //p' "$each")"
    done
    [[ -z $name ]] && exit 0 || exit 2
fi
shift
exec "$script" "$@"
