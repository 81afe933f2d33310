"""Whether a recorded process id is still that process, and signals that cannot hit another.

A process id is used again after its process ended. A recorded one is believed when the process
that has it now started no later than the record was made; or, since a clock that was set
forward moves the one and not the other, when its command line still names what it runs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
from pathlib import Path

# Start times count kernel ticks since boot; boot time itself is known to the second.
START_SLACK_NS = 2_000_000_000


def start_time_ns(pid: int) -> int | None:
    """When a process started, ns UTC; None when there is none, or a zombie."""
    if pid <= 0:
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    ticks = int(fields[19])
    return _boot_time_ns() + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _boot_time_ns() -> int:
    """Now less the time since boot: follows a clock that was set, as recorded times do not."""
    with open("/proc/stat", encoding="ascii", errors="replace") as stat:
        for line in stat:
            if line.startswith("btime "):
                return int(line.split()[1]) * 1_000_000_000
    return 0


def is_running(pid: int, recorded_ns: int, named: str = "") -> bool:
    """Whether the process recorded as pid at recorded_ns (ns UTC; 0: unknown) still runs.

    named: what stands after -n in its command line, as with every program of an FPS.
    """
    started_ns = start_time_ns(pid)
    if started_ns is None:
        return False
    if recorded_ns <= 0 or started_ns <= recorded_ns + START_SLACK_NS:
        return True
    return bool(named) and ("-n", named) in itertools.pairwise(_arguments(pid))


def _arguments(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(raw).split("\0")


def _pidfd(pid: int) -> int | None:
    """A descriptor of whatever process has the id now; None when there is none."""
    if pid <= 0:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def send_signal(pid: int, recorded_ns: int, number: signal.Signals, named: str = "") -> bool:
    """Signals the recorded process; False when it no longer runs. Raises PermissionError."""
    pidfd = _pidfd(pid)
    if pidfd is None:
        return False
    try:
        if not is_running(pid, recorded_ns, named):  # of whoever pidfd is, and remains
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
            return True
        return False
    finally:
        os.close(pidfd)


def wait_for_end(pid: int, recorded_ns: int, timeout_s: float, named: str = "") -> bool:
    """Waits until the recorded process has ended; False when it still runs after timeout_s."""
    pidfd = _pidfd(pid)
    if pidfd is None:
        return True
    try:
        if not is_running(pid, recorded_ns, named):
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s * 1e3)))  # poll() takes -1 as for ever
    finally:
        os.close(pidfd)
