#!/usr/bin/env bash
# shellcheck disable=SC2154 # work and binary are the caller's.
# Sourced: whatever happens, $child and all processes in $work/pids end, the disk in $work is unmounted, and
# $work is gone.
child=
tidy() {
    trap '' INT TERM
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    # Usually they have ended by now. An id may be somebody else's since then: only our binary is meant.
    if [ -f "$work/pids" ]; then
        while read -r pid; do
            [[ $(readlink "/proc/$pid/exe" 2>/dev/null) != "$binary"* ]] || kill -9 "$pid" 2>/dev/null || true
        done <"$work/pids"
    fi
    if mountpoint -q "$work/disk" 2>/dev/null; then
        umount "$work/disk" || umount -l "$work/disk" || true
    fi
    if mountpoint -q "$work/disk" 2>/dev/null; then
        echo "$work/disk cannot be unmounted; remove $work by hand" >&2
    else
        rm -rf "$work"
    fi
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
