#!/usr/bin/env bash
# Measures mepulse beside what people would pick instead, Debian's etcd and Redis: the same jobs, on this
# machine, on loopback, on the same disk. Prints one Markdown table and how to read it; `--help` lists
# the options. Installs what is missing (needs root for that). Takes about a quarter of an hour; --quick, four minutes.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

for argument in "$@"; do
    case $argument in
    -h | --help) exec python3 -B "$scripts/bench_peers.py" --help ;;
    esac
done

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need python3 python3
need etcd etcd-server
need redis-server redis-server
need redis-benchmark redis-tools
need wrk wrk
if [ "${#missing[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "missing, and there is no apt-get to install them: ${missing[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "installing these needs root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "== installing ${missing[*]}" >&2
    apt-get update -qq >&2
    # What the packages start by themselves is left alone: the servers measured here are our own.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi
# -B: nothing is written into the tree.
exec python3 -B "$scripts/bench_peers.py" "$@"
