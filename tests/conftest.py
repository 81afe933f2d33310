"""Fixtures of all tests: a stream folder of one's own, and processes that end with their test.

Functions of a test take them by name: ``def test_x(shm_dir, start_command)``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from stream_folder import stream_folder

# No deadline: no test asserts a time. No database: a run leaves nothing behind.
settings.register_profile("vampires", deadline=None, database=None)
settings.load_profile("vampires")

# Whoever started the tests in the background or with nohup had these ignored, and what is
# ignored stays so in every process started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)

# Helpers of the standard library that serve the whole run, not one test.
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests run in an empty folder, not where `python -m` could take the source tree for the
    installed package."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(here)


@pytest.fixture
def shm_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty stream folder, which ``$MILK_SHM_DIR`` names; gone after the test."""
    with stream_folder(monkeypatch, tmp_path) as folder:
        yield folder


@pytest.fixture
def start_process(shm_dir: Path) -> Iterator[Start]:
    """start_process([program, argument, ...], **popen_options) -> Popen with text pipes.

    What still runs at the end of the test is killed. The stream folder is ``shm_dir``.
    """
    started: list[subprocess.Popen[str]] = []

    def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        pipes |= {"stderr": subprocess.PIPE}
        # Not where the source tree could be taken for the installed package.
        options.setdefault("cwd", shm_dir)
        process = subprocess.Popen(arguments, text=True, **{**pipes, **options})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # does nothing to one that has ended
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def start_command(start_process: Start) -> Start:
    """start_command("framesim", "--frames", "9") -> Popen of that vampires command."""

    def start(command: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        module = f"vampires.commands.{command.replace('-', '_')}"
        return start_process([sys.executable, "-m", module, *map(str, arguments)], **options)

    return start


@pytest.fixture
def run_command(start_command: Start) -> Run:
    """run_command("framesim", ..., timeout=30) -> CompletedProcess, or TimeoutExpired."""

    def run(
        command: str, *arguments: object, timeout: float = 30, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        process = start_command(command, *arguments, **options)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def start_logger(start_command: Start, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """start_logger(stream, argument, ...) -> LoggerProcess; files below tmp_path / "data"."""
    from logger_process import loggers

    with loggers(start_command, tmp_path / "data") as start:
        yield start


@pytest.fixture
def start_python(start_process: Start) -> Start:
    """start_python(source, argument, ...) -> Popen of a Python that runs the source text."""

    def start(source: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        return start_process([sys.executable, "-c", source, *map(str, arguments)], **options)

    return start


@pytest.fixture(autouse=True)
def no_child_process_survives() -> Iterator[None]:
    """Fails the test that leaves a process of its own running, and ends that process."""
    before = _living_children()
    yield
    survivors = _living_children() - before
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)
    if survivors:
        pytest.fail(f"child processes survived the test: {sorted(survivors)}")


def _living_children() -> set[int]:
    """Children of this process that are neither dead nor helpers; empty where /proc lacks."""
    children = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listing.read_text().split()
        except OSError:  # that thread has just ended
            continue
        children |= {int(pid) for pid in pids if _is_living(int(pid))}
    return children


def _is_living(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return state not in "ZX" and not any(helper in command_line for helper in _HELPERS)
