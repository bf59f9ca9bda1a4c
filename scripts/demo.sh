#!/usr/bin/env bash
# Registers, beats, kill -9, restart: still ACTIVE with its last heartbeat; stops beating: SUSPENDED.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet
bin=$PWD/target/release/mepulse
work=$(mktemp -d)
pid=
cleanup() { [ -n "$pid" ] && kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; rm -rf "$work"; return 0; }
trap cleanup EXIT

start() {
    : >"$work/out"
    "$bin" serve --listen 127.0.0.1:0 --data-dir "$work/data" >"$work/out" 2>>"$work/log" &
    pid=$!
    for _ in $(seq 100); do [ -s "$work/out" ] && break; sleep 0.1; done
    cat "$work/out"
    url=$(sed 's/.* //' "$work/out")
}
state() { curl -s "$url$liveness"; echo; }

echo "== start and register"
start
info=$(curl -s "$url/mec_service_mgmt/v1/applications/demo/services" -d '{"serName":"cam","version":"1.0","state":"ACTIVE","serializer":"JSON","livenessInterval":5,"transportInfo":{"id":"t","name":"REST","type":"REST_HTTP","protocol":"HTTP","version":"2.0","endpoint":{"uris":["http://10.0.0.1/cam"]},"security":{}}}')
liveness=$(sed 's/.*"liveness":{"href":"\([^"]*\)".*/\1/' <<<"$info")
echo "== beat: $(curl -s -o /dev/null -w '%{http_code}' -X PATCH "$url$liveness" -d '{"state":"ACTIVE"}')"
state
echo "== kill -9 and restart"
kill -9 "$pid"; wait "$pid" 2>/dev/null || true
start
state
"$bin" admin services --data-dir "$work/data"
echo "== no more beats"
for _ in $(seq 20); do state | grep -q SUSPENDED && break; sleep 1; done
state
state | grep -q SUSPENDED
"$bin" admin services --data-dir "$work/data"
