#!/usr/bin/env bash
# What mepulse costs as it grows: CPU per beat, capacity, memory, disk, starts and verdicts with more and more
# services in the store. Writes JSON (its "method" says how each figure comes about), prints a table.
#   --binary FILE  what is measured (target/release/mepulse)
#   --dir DIR      where the stores are made: on the filesystem that is to be measured (target)
#   --sizes N,…    numbers of services (1000,10000,100000,1000000)
#   --rounds N     how often each is measured (3)
#   --out FILE     the JSON (scripts/figures/growth.json)
#   --no-loop      no loop device for the bytes written per beat: all that is written to the real one counts
# A million services take some ten minutes and 3 GB in DIR. Measure on a machine that does nothing else.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
binary=$root/target/release/mepulse
dir=$root/target
sizes=1000,10000,100000,1000000
rounds=3
out=$root/scripts/figures/growth.json
more=()
while [ $# -gt 0 ]; do
    case "$1" in
    --no-loop) more+=(--no-loop) && shift && continue ;;
    --binary | --dir | --sizes | --rounds | --out) [ $# -ge 2 ] || { echo "$1 needs a value" >&2 && exit 2; } ;;
    *) echo "unknown: $1 (the head of $0 says what there is)" >&2 && exit 2 ;;
    esac
    declare "${1#--}=$2"
    shift 2
done
[[ $sizes =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ && $rounds =~ ^[1-9][0-9]*$ ]] || { echo "--sizes N,… --rounds N" >&2 && exit 2; }
command -v python3 >/dev/null || { echo "python3 is needed" >&2 && exit 2; }
[ -x "$binary" ] || { echo "there is no $binary: cargo build --release --locked, or --binary FILE" >&2 && exit 2; }
binary=$(realpath "$binary")
mkdir -p "$dir" "$(dirname "$out")"
dir=$(realpath "$dir")
work=$(mktemp -d -p "$dir" mepulse-growth.XXXXXX)
# shellcheck source=scripts/measuring/tidy.sh
. "$root/scripts/measuring/tidy.sh"

export PYTHONDONTWRITEBYTECODE=1
python3 "$root/scripts/measuring/growth.py" --binary "$binary" --work "$work" --dir "$dir" --out "$work/growth.json" \
    --sizes "$sizes" --rounds "$rounds" "${more[@]}" &
child=$!
status=0
wait "$child" || status=$?
child=
# After trouble with a larger number the smaller ones are there, and "complete" is false.
if [ -s "$work/growth.json" ]; then
    mv "$work/growth.json" "$out"
    python3 "$root/scripts/growth_plot.py" "$out" --table
fi
exit "$status"
