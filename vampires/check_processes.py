"""Many files checked at once, each by one of several processes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Protocol

from vampires.cube_check import CubeReport, check_cube

Progress = Callable[[int], None]
How = dict[str, bool]
"""The arguments ``strict`` and ``pixels`` of check_cube."""
LOOK_S = 0.2


class Stop(Protocol):
    """A StopEvent (vampires.commands.common)."""

    def is_set(self) -> bool: ...
    def fileno(self) -> int: ...


def check_files(
    paths: Sequence[Path],
    *,
    jobs: int,
    strict: bool,
    pixels: bool,
    stop: Stop,
    progress: Progress,
) -> Iterator[CubeReport]:
    """The report of every file, as they come (``check_cube``).

    progress: called with bytes read, and with 0 now and then. Once stop is set no more reports
    come: what is under way is given up. A check that takes its process down with it is a fault
    of the file.
    """
    how = {"strict": strict, "pixels": pixels}
    if min(jobs, len(paths)) > 1:
        yield from _by_processes(paths, jobs, how, stop, progress)
    else:
        yield from _one_by_one(paths, how, stop, progress)


class _Stopped(Exception):
    pass


def _one_by_one(
    paths: Sequence[Path], how: How, stop: Stop, progress: Progress
) -> Iterator[CubeReport]:
    def told(n_bytes: int) -> None:
        progress(n_bytes)
        if stop.is_set():
            raise _Stopped

    for path in paths:
        try:
            told(0)
            yield check_cube(path, **how, progress=told)
        except _Stopped:
            return


# -- in processes -----------------------------------------------------------------------------


@dataclass(eq=False)
class _Worker:
    """A process that checks one file at a time; path: the one it has."""

    process: SpawnProcess
    pipe: Connection
    path: Path | None = None

    def fileno(self) -> int:
        return self.pipe.fileno()


def _by_processes(
    paths: Sequence[Path], jobs: int, how: How, stop: Stop, progress: Progress
) -> Iterator[CubeReport]:
    waiting = list(reversed(paths))
    workers: list[_Worker] = []
    try:
        while True:
            for worker in workers:
                if worker.path is None and waiting:
                    _give(worker, waiting.pop())
            while waiting and len(workers) < jobs:
                workers.append(_start(how))
                _give(workers[-1], waiting.pop())
            busy = [worker for worker in workers if worker.path is not None]
            if not busy:
                return
            ready = wait([*busy, stop], LOOK_S)  # type: ignore[list-item]
            progress(0)
            if stop.is_set():
                return
            for worker in busy:
                if worker not in ready:
                    continue
                report = _answer(worker, progress)
                if report is not None:
                    yield report
            workers = [worker for worker in workers if not worker.pipe.closed]
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()
            worker.process.join()


def _start(how: How) -> _Worker:
    # Spawned, not forked: a copy of this process would hold the pipes of the others open, and
    # outlive it.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, how), daemon=True)
    # Ctrl-C is for us alone. Blocked from its birth: it would end one that is still importing.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, path: Path) -> None:
    worker.path = path
    with contextlib.suppress(OSError):  # it died; the end of its pipe will tell
        worker.pipe.send(path)


def _answer(worker: _Worker, progress: Progress) -> CubeReport | None:
    """What a worker sent: bytes read, its report, or the end of its pipe."""
    try:
        told = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        worker.pipe.close()
        assert worker.path is not None
        why = f"the process that checked it died ({_cause(worker.process.exitcode)})"
        return CubeReport(worker.path, faults=[why])
    if isinstance(told, int):
        progress(told)
        return None
    worker.path = None
    report: CubeReport = told
    return report


def _cause(status: int | None) -> str:
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"status {status}"


def _work(pipe: Connection, how: How) -> None:
    """The process: a path comes, numbers of bytes and a report go, until the pipe ends."""
    try:
        while True:
            path = pipe.recv()
            pipe.send(check_cube(path, **how, progress=pipe.send))
    except (EOFError, OSError):
        pass
