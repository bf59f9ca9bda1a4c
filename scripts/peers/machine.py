"""What was measured on."""

import os
import platform
import time

SYNC_BYTES = 512


def fsync_latency(directory, seconds):
    """Small appends, each with fdatasync: microseconds at p50 and p99, and how many there were."""
    times = []
    path = directory / "fsync"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            os.write(handle, b"x" * SYNC_BYTES)
            os.fdatasync(handle)
            times.append((time.perf_counter() - began) * 1e6)
    finally:
        os.close(handle)
        path.unlink()
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], len(times)


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.machine()


def filesystem(directory):
    """The type of what is mounted nearest above it."""
    best, kind = "", "?"
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, this, *_ = line.split()
            if len(point) >= len(best) and os.path.commonpath([point, directory]) == point:
                best, kind = point, this
    return kind


def others():
    """Servers of these kinds that run already: they may take part of the machine."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
                name = comm.read().strip()
        except OSError:
            continue
        if name in ("etcd", "redis-server", "mepulse"):
            found.append(name)
    return found


def about(directory, seconds):
    """Lines for the report; to be asked before anything is started."""
    load = os.getloadavg()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    p50, p99, count = fsync_latency(directory, seconds)
    lines = [
        f"Machine: {os.cpu_count()} cores, {cpu_model()}, {memory:.0f} GiB; "
        f"{platform.system()} {platform.release()}; load average before: {load:.2f}",
        f"Disk: {filesystem(directory)}; {SYNC_BYTES} B + fdatasync: p50 {p50:.0f} µs, p99 {p99:.0f} µs "
        f"({count} of them)",
    ]
    if found := others():
        lines.append(f"Running beside it, not ours: {', '.join(found)}")
    if filesystem(directory) in ("tmpfs", "ramfs"):
        lines.append("**The directory is in memory: nothing here is durable; use `--dir`.**")
    return lines
