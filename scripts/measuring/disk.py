"""What a directory takes on its disk, what is written to the device, and a disk of our own."""

import os
import pathlib
import shutil
import subprocess
import time

# A device is quiet if no more than this is written in so many seconds. The counters of the process itself
# (/proc/PID/io) are of no use: they count a whole folio of the page cache, up to megabytes, for a few bytes in it.
QUIET_S, QUIET_BYTES = 5.0, 256 * 1024


def sizes(directory):
    """Of all files below: their lengths, and what they take on the disk."""
    apparent = taken = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue
            apparent += found.st_size
            taken += found.st_blocks * 512
    return {"apparent_bytes": apparent, "taken_bytes": taken}


class Device:
    """The block device below a directory; all that is written to it, whoever does."""

    def __init__(self, directory, own=False):
        number = os.stat(directory).st_dev
        entry = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        self.directory, self.own = directory, own
        self.known = (entry / "stat").exists()
        self.name = entry.resolve().name if self.known else None
        self.stat = entry / "stat"

    def written_bytes(self):
        """Since the machine started; None where the filesystem has no block device of its own."""
        if not self.known:
            return None
        # Sectors written, of 512 bytes whatever the device's own are. Source: Documentation/block/stat.rst.
        return int(self.stat.read_text().split()[6]) * 512

    def settle(self, patience_s=60):
        """Waits until hardly anything is written; whether that came about."""
        if not self.known:
            return False
        # What was written without a sync would come half a minute later, into somebody's window.
        subprocess.run(["sync", "-f", str(self.directory)], check=True, timeout=600)
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            before = self.written_bytes()
            time.sleep(QUIET_S)
            if self.written_bytes() - before <= QUIET_BYTES:
                return True
        return False

    def about(self):
        return {"name": self.name, "only_ours": self.own}


class LoopDisk:
    """An ext4 of our own in a file: what is written to it is ours alone. The caller's trap unmounts it
    if this process cannot."""

    def __init__(self, work, gib):
        self.image = pathlib.Path(work) / "disk.img"
        self.path = pathlib.Path(work) / "disk"
        self.gib = gib

    def attach(self):
        """None, or why it cannot be."""
        if os.geteuid() != 0:
            return "it needs root, to mount"
        for tool in ("mkfs.ext4", "mount", "umount"):
            if not shutil.which(tool):
                return f"there is no {tool} command"
        with open(self.image, "wb") as image:
            image.truncate(self.gib << 30)
        self.path.mkdir()
        # All of the filesystem now, nothing of it later in the background.
        make = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-N", "1024", "-J", "size=64", "-m", "0", "-E"]
        make += ["lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(self.image)]
        for command in (make, ["mount", "-t", "ext4", "-o", "loop", str(self.image), str(self.path)]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                self.image.unlink()
                self.path.rmdir()
                return f"{command[0]}: {done.stderr.strip()}"
        return None

    def detach(self):
        subprocess.run(["umount", str(self.path)], check=True, timeout=120)
        self.path.rmdir()
        self.image.unlink()
