#!/usr/bin/env bash
# Holds a server against its own /openapi.json: schemathesis makes requests from the document, valid and
# invalid ones, and checks every answer. Optional argument: the binary.
#   MEPULSE_SEED      repeats a run (its seed is printed at the end)
#   MEPULSE_EXAMPLES  requests per operation and phase, at most
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.32.5
target=${CARGO_TARGET_DIR:-target}
bin=$(realpath "${1:-$target/debug/mepulse}")
mkdir -p "$target"
venv=$(realpath "$target")/schemathesis-venv
scripts=$PWD/scripts
work=$(mktemp -d)
pid=
tester=
cleanup() {
    for child in $tester $pid; do
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

skip() {
    echo "SKIP: $1"
    [ ! -s "$work/why" ] || tail -n 3 "$work/why"
    exit 0
}
installed() { [ "$("$venv/bin/schemathesis" --version 2>/dev/null)" = "schemathesis, version $version" ]; }
if ! installed; then
    command -v python3 >/dev/null || skip "there is no python3"
    python3 -m venv --clear "$venv" >"$work/why" 2>&1 || skip "python3 cannot make a venv"
    "$venv/bin/pip" install --quiet "schemathesis==$version" >"$work/why" 2>&1 ||
        skip "schemathesis $version cannot be installed"
    installed || skip "the installed schemathesis does not start"
fi

# Nothing of the caller's own environment configures the server, nor does a config.toml.
: >"$work/out"
(cd "$work" && exec env -i PATH="$PATH" "$bin" serve --listen 127.0.0.1:0 --data-dir "$work/data") \
    >"$work/out" 2>"$work/log" &
pid=$!
for _ in $(seq 300); do
    [ ! -s "$work/out" ] || break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
done
url=$(sed -n 's/^mepulse listening on //p' "$work/out")
if [ -z "$url" ]; then
    echo "the server does not start:"
    cat "$work/log"
    exit 1
fi

# A stream has no end that could be waited for: tests of its own read it.
arguments=(
    --exclude-path /mec_service_mgmt/v1/services/events
    --phases examples,coverage,fuzzing,stateful
    --max-examples "${MEPULSE_EXAMPLES:-50}"
    --generation-database none
    --continue-on-failure
    --warnings off
)
[ -z "${MEPULSE_SEED:-}" ] || arguments+=(--seed "$MEPULSE_SEED")
(cd "$work" && PYTHONPATH=$scripts PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=schemathesis_hooks \
    exec "$venv/bin/schemathesis" --config-file "$scripts/schemathesis.toml" run "$url/openapi.json" "${arguments[@]}") &
tester=$!
status=0
wait "$tester" || status=$?
if ! kill -0 "$pid" 2>/dev/null; then
    echo "the server ended meanwhile:"
    status=1
fi
[ "$status" -eq 0 ] || tail -n 20 "$work/log"
exit "$status"
