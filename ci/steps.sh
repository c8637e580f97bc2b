# Sourced by the scripts beside it: runs named steps and remembers what each took.

STEPS=()

step() { # name, command…
    local name=$1 began=$SECONDS
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    if "$@"; then
        STEPS+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
    else
        local code=$?
        summary
        printf '        FAILED  %s (%s), exit code %d\n' "$name" "$*" "$code" >&2
        exit "$code"
    fi
}

summary() {
    printf '\n=== steps\n'
    ((${#STEPS[@]} == 0)) || printf '%s\n' "${STEPS[@]}"
}
