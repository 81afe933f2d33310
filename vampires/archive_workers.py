"""Who does the work of an archive: processes on the cores here, or a Dask cluster."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event

from vampires.archive_pack import Job, Outcome

Act = Callable[..., Outcome]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICE = 19
_CONNECT_S = 10
_stop: Event | None = None  # of a worker process


class WorkersMissing(Exception):
    """There is nobody to do the work. One line."""


class Workers:
    """Does jobs; ``at_once`` of them at the same time. stop() ends those under way."""

    def __init__(self, executor: Executor, at_once: int, stop: Callable[[], None]) -> None:
        self._executor = executor
        self.at_once = at_once
        self.stop = stop

    def submit(self, act: Act, job: Job) -> Future[Outcome]:
        """Has act(job) done."""
        with _shielded():
            return self._executor.submit(_act, act, job)


@contextmanager
def local_workers(jobs: int) -> Iterator[Workers]:
    """So many processes of low priority, which end with this one however it ends."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(jobs, context, _begin, (stop, os.getpid()))
    try:
        yield Workers(executor, jobs, stop.set)
    except BaseException:
        stop.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """The workers of a Dask scheduler; they see the same folders under the same names.

    What they are at when this ends they finish, and nothing half is left. Raises
    WorkersMissing.
    """
    try:
        from distributed import Client
    except ImportError:
        raise WorkersMissing(
            "--scheduler needs dask.distributed: pip install 'vampires-daq[archive]'"
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        text = " ".join(str(error).split()) or "it does not answer"
        raise WorkersMissing(f"no Dask scheduler at {address}: {text}") from None
    with client:
        cores = sum(client.ncores().values())
        if not cores:
            raise WorkersMissing(f"the Dask scheduler at {address} has no workers")
        # A cube that took its worker down is not tried on the others.
        executor = client.get_executor(pure=False, retries=0)
        try:
            yield Workers(executor, cores, lambda: None)
        finally:
            executor.shutdown(wait=False)


def _act(act: Act, job: Job) -> Outcome:
    return act(job) if _stop is None else act(job, _stop.is_set)


def _begin(stop: Event, parent: int) -> None:
    global _stop  # noqa: PLW0603 - of this process, which has one task
    _stop = stop
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.nice(_NICE)


@contextmanager
def _shielded() -> Iterator[None]:
    """Processes begun meanwhile never see the Ctrl-C of the terminal: they are told to stop."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
