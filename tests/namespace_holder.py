"""Keeps the namespaces of one host alive, and at the end ends all that runs in them.

unshare --net --uts --mount python -I -S namespace_holder.py FOLDER ...

Says "ready", then waits for a line or the end of its standard input, so that the host goes also
when whoever asked for it was killed. Then every other process in these namespaces is ended, and
the folders are removed. The standard library alone, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

GRACE_S = 5.0
"""For processes that were asked to end by SIGTERM; then comes SIGKILL."""

_KINDS = ("net", "uts")
_LOOK_AGAIN_S = 0.1


def namespaces_of(pid: int | str) -> frozenset[str]:
    """The ids of the network and the host-name namespace of a process; none of a zombie."""
    found = set()
    for kind in _KINDS:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return frozenset(found)


def processes_in(namespaces: Collection[str], but: int) -> list[int]:
    """All processes in any of these namespaces, apart from one; in no order."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if pid != but and not namespaces_of(pid).isdisjoint(namespaces)]


def end_processes(namespaces: Collection[str], but: int, grace_s: float = GRACE_S) -> None:
    """Ends all processes in these namespaces, and those that they start meanwhile."""
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while pids := processes_in(namespaces, but):
        patient = time.monotonic() < deadline
        with _pidfds(pids, namespaces) as pidfds:
            for pid, pidfd in pidfds.items():
                if not patient:
                    _signal(pidfd, signal.SIGKILL)
                elif pid not in asked:
                    _signal(pidfd, signal.SIGTERM)
                    _signal(pidfd, signal.SIGCONT)  # one that was stopped has to hear of it
            asked |= pidfds.keys()
            _wait(pidfds.values(), _LOOK_AGAIN_S)


@contextlib.contextmanager
def _pidfds(pids: list[int], namespaces: Collection[str]) -> Iterator[dict[int, int]]:
    """Descriptors of those still in these namespaces: an id may be another's by now."""
    with contextlib.ExitStack() as stack:
        pidfds = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                stack.callback(os.close, pidfd)
                if not namespaces_of(pid).isdisjoint(namespaces):
                    pidfds[pid] = pidfd
        yield pidfds


def _signal(pidfd: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _wait(pidfds: Iterable[int], timeout_s: float) -> None:
    """Until all of these have ended, or the time is over."""
    deadline = time.monotonic() + timeout_s
    for pidfd in pidfds:
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))


def main(folders: list[str]) -> None:
    own = namespaces_of("self")
    print("ready", flush=True)
    sys.stdin.readline()
    end_processes(own, but=os.getpid())
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
