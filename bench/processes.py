"""Cameras and loggers as processes, with their CPU time and memory."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHUTDOWN_S = 20.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP_S = 2.0


def _end_with_parent() -> None:
    """In a child before it runs: when its parent dies of whatever, it gets SIGTERM."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def running(
    module: str, arguments: list[str], shm_dir: Path, **streams: Any
) -> Iterator[subprocess.Popen[str]]:
    """A command of this package in a process of its own, ended at the latest on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"MILK_SHM_DIR": str(shm_dir)},
        cwd=shm_dir,  # not where a source tree could be taken for the installed package
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C goes to the bench, which ends them in order
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - no thread runs yet
        **streams,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=SHUTDOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def camera(shm_dir: Path, stream: str, *arguments: object) -> Any:
    """A simulated camera that has begun to publish; yields its process."""
    listed = [stream, *map(str, arguments)]
    with running("vampires.commands.framesim", listed, shm_dir) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the camera did not start"
        yield process


@dataclass
class LoggerRun:
    """A logger process: what it said at the end, and what it used.

    cpu_cores: mean over the run without the first two seconds, which allocate the memory.
    rss: the largest seen of each kind of resident memory, in bytes (VmRSS, RssAnon, ...).
    """

    process: subprocess.Popen[str]
    result: dict[str, Any] = field(default_factory=dict)
    cpu_cores: float = 0.0
    rss: dict[str, int] = field(default_factory=dict)
    errors: str = ""

    def wait(self) -> LoggerRun:
        """Until the logger ends by itself; samples it meanwhile."""
        printed: list[str] = []
        reader = threading.Thread(target=lambda: printed.extend(self.process.communicate()))
        reader.start()
        begun: tuple[float, float] | None = None
        start = time.monotonic()
        while reader.is_alive():
            reader.join(0.2)
            used = self._sample()
            now = time.monotonic()
            if used is None or now - start < WARM_UP_S:
                continue
            begun = begun or (now, used)
            if now > begun[0]:
                self.cpu_cores = (used - begun[1]) / (now - begun[0])
        self.errors = printed[1] or ""
        self.result = json.loads(printed[0]) if printed[0] else {}
        return self

    def _sample(self) -> float | None:
        """CPU seconds so far; None when the process has ended."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        if stat[0] == "Z":
            return None
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon", "RssFile", "RssShmem"):
                self.rss[name] = max(self.rss.get(name, 0), int(value.split()[0]) * 1024)
        return (int(stat[11]) + int(stat[12])) / _TICKS


@contextmanager
def logger(shm_dir: Path, stream: str, *arguments: object) -> Any:
    """A logger process with --json; yields its LoggerRun."""
    listed = [stream, "--json", "--progress", "0", *map(str, arguments)]
    module = "vampires.commands.logger"
    with running(module, listed, shm_dir, stderr=subprocess.PIPE) as process:
        yield LoggerRun(process)
