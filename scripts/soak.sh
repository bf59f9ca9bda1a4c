#!/usr/bin/env bash
# Whether anything grows under a steady load: paced beats, registrations and removals that come and go, and
# services that fall silent. Looks every 10 s at memory, disk, files, threads, what is written to the device,
# lag of verdicts and latency; prints a table with a verdict for each and what a week of it does to an SD card.
#   --binary FILE  what is measured (target/release/mepulse)
#   --dir DIR      where the store is made (target)
#   --minutes M    for how long (30)
#   --rate R       beats per second (1000)
#   --services N   that beat (10000)
#   --churn R      registrations, and as many removals, per second (2)
#   --json FILE    everything, with all samples
#   --no-loop      no loop device: the store is on the filesystem of DIR, and all writes to its device count
# As root the store is on a loop device in DIR, so that what is written is ours alone; its latencies are those of
# that. Exit code 1 if something grows by the stated rule or anything failed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
binary=$root/target/release/mepulse
dir=$root/target
minutes=30
rate=1000
services=10000
churn=2
json=
more=()
while [ $# -gt 0 ]; do
    case "$1" in
    --no-loop) more+=(--no-loop) && shift && continue ;;
    --binary | --dir | --minutes | --rate | --services | --churn | --json)
        [ $# -ge 2 ] || { echo "$1 needs a value" >&2 && exit 2; }
        ;;
    *) echo "unknown: $1 (the head of $0 says what there is)" >&2 && exit 2 ;;
    esac
    declare "${1#--}=$2"
    shift 2
done
for number in "$minutes" "$churn"; do
    [[ $number =~ ^[0-9]+(\.[0-9]+)?$ ]] || { echo "$number is no number" >&2 && exit 2; }
done
for number in "$rate" "$services"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || { echo "$number is no whole number above 0" >&2 && exit 2; }
done
[ -z "$json" ] || more+=(--json "$json")
command -v python3 >/dev/null || { echo "python3 is needed" >&2 && exit 2; }
[ -x "$binary" ] || { echo "there is no $binary: cargo build --release --locked, or --binary FILE" >&2 && exit 2; }
binary=$(realpath "$binary")
mkdir -p "$dir"
dir=$(realpath "$dir")
work=$(mktemp -d -p "$dir" mepulse-soak.XXXXXX)
# shellcheck source=scripts/measuring/tidy.sh
. "$root/scripts/measuring/tidy.sh"

export PYTHONDONTWRITEBYTECODE=1
python3 "$root/scripts/measuring/soak.py" --binary "$binary" --work "$work" --dir "$dir" --minutes "$minutes" \
    --rate "$rate" --services "$services" --churn "$churn" "${more[@]}" &
child=$!
status=0
wait "$child" || status=$?
child=
exit "$status"
