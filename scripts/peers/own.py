"""Processes that are started for the measurement, and how each of them ends."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

RUNNING = []
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
STOP_WITHIN_S = 10


class Trouble(Exception):
    """A job cannot be done; the others may."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_ports(count):
    """Ports that nobody listens on. All are held until all are found, so that they differ."""
    held = []
    for _ in range(count):
        held.append(socket.socket())
        held[-1].bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def environment():
    """Nothing of the caller's own environment configures a server."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}


class Process:
    """A child in a session of its own: Ctrl-C reaches us alone, and we stop it in good order."""

    def __init__(self, command, cwd, output, errors, at_our_death=signal.SIGKILL):
        def with_us():
            LIBC.prctl(PR_SET_PDEATHSIG, at_our_death)

        self.child = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=with_us,
        )
        RUNNING.append(self)

    def signal(self, what):
        if self.child.poll() is None:
            self.child.send_signal(what)

    def ended(self):
        """Waits for a child that has been killed."""
        self.child.wait(STOP_WITHIN_S)
        if self in RUNNING:
            RUNNING.remove(self)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.ended()

    def stop(self):
        """SIGTERM, then SIGKILL to what is left of its session."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.child.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.ended()


def run(command, cwd, within_s):
    """What a command prints. Its exit code is the caller's to judge."""
    process = Process(command, cwd, subprocess.PIPE, subprocess.PIPE, signal.SIGTERM)
    try:
        out, errors = process.child.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        raise Trouble(f"{command[0]} took longer than {within_s:.0f} s") from None
    finally:
        process.stop()
    return process.child.returncode, out.decode(errors="replace"), errors.decode(errors="replace")


def version_of(command):
    _, out, _ = run(command, "/", 10)
    return out.splitlines()[0] if out else "?"


def stop_all():
    """Whatever happened: nothing that was started here stays. A second Ctrl-C does not interrupt that."""
    for interrupting in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(interrupting, signal.SIG_IGN)
    for process in list(RUNNING):
        try:
            process.stop()
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"process {process.child.pid} does not end: {error}")


def now():
    return time.monotonic()
