"""CPUs for a process: lists such as 2,4-6, and CPU sets of the kernel; both best effort."""

from __future__ import annotations

import os
from pathlib import Path

MAX_CPUS = 4096
_CPUSET_ROOTS = ("/cpusets", "/dev/cpuset", "/sys/fs/cgroup/cpuset", "/sys/fs/cgroup")


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers of a list such as 2,4-6. ValueError for anything else."""
    cpus: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        legal = first.isdecimal() and (last.isdecimal() or not dash)
        if not legal or not int(first) <= int(last or first) < MAX_CPUS:
            raise ValueError(f"found {text!r}, expected CPUs such as 2,4-6")
        cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)


def cpus_here(text: str) -> tuple[tuple[int, ...], str]:
    """Those of the CPUs listed that this process may use, and a note when there is none. An
    empty list is no wish."""
    if not text.strip():
        return (), ""
    available = os.sched_getaffinity(0)
    try:
        wanted = parse_cpus(text)
    except ValueError as error:
        return (), f"CPUs: {error}; running on all"
    usable = tuple(sorted(available.intersection(wanted)))
    if usable:
        return usable, ""
    return (), f"none of the CPUs {text} is there; running on all"


def join_cpu_set(name: str) -> str:
    """Moves this process into a CPU set; returns a note when that was not possible."""
    if not name or name == "system":
        return ""
    if "/" in name or name.startswith("."):
        return f"{name!r} is no name of a CPU set; running in the one it was started in"
    for root in _CPUSET_ROOTS:
        for file in ("tasks", "cgroup.procs"):
            place = Path(root) / name / file
            try:
                if place.exists():
                    place.write_text(str(os.getpid()))
                    return ""
            except OSError as error:
                return f"cannot move to the CPU set {name!r}: {error.strerror}"
    return f"there is no CPU set {name!r}; running without"


def place_process(rt_priority: int, cpus: str, cpu_set: str) -> list[str]:
    """Gives this process a SCHED_FIFO priority (0: none), CPUs and a CPU set, as far as that is
    permitted; returns a note for each that it has not."""
    notes = [join_cpu_set(cpu_set)]
    usable, note = cpus_here(cpus)
    notes.append(note)
    if usable:
        os.sched_setaffinity(0, usable)
    if rt_priority > 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(rt_priority))
        except OSError as error:
            notes.append(
                f"cannot have the priority {rt_priority}: {error.strerror}; allow it with "
                "rtprio in /etc/security/limits.conf"
            )
    return [text for text in notes if text]
