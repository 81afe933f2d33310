"""Control: how long it takes from a command, or a parameter, until the loggers act.

Everything as an observer has it: real commands, loggers in a tmux server of the bench's own,
two simulated cameras. The baseline of a command is Python itself: starting it, doing nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from processes import camera

from vampires import logger_control as loggers
from vampires.fps import FPS
from vampires.logger_parameters import FUNCTION, fps_name, logger_parameters

Record = Callable[[str, str, str, bool], None]
STREAMS = ("vcam1", "vcam2")
PROGRAMS = Path(sys.executable).parent
CONFIG = """
[hosts.here]
address = "local"
[cameras.vcam1]
number = 1
host = "here"
source = "sim"
[cameras.vcam2]
number = 2
host = "here"
source = "sim"
[logging]
directory = "{directory}"
archive_directory = "{directory}"
ring_memory = "512MiB"
"""


class Observer:
    """Types commands. Each returns its duration in seconds."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder

    def types(self, command: str, *arguments: object) -> float:
        begun = time.perf_counter()
        subprocess.run(
            [PROGRAMS / command, *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=120,
        )
        return time.perf_counter() - begun


@pytest.fixture
def observer(shm_dir: Path, memory_dir: Path, disk_dir: Path) -> Iterator[Observer]:
    """An observer whose tmux server ends with the bench."""
    sockets = memory_dir / "tmux"
    sockets.mkdir()
    config = memory_dir / "config.toml"
    config.write_text(CONFIG.format(directory=disk_dir))
    environment = os.environ | {
        "TMUX_TMPDIR": str(sockets),
        "VAMPIRES_CONFIG": str(config),
        "MILK_SHM_DIR": str(shm_dir),
    }
    environment.pop("TMUX", None)
    try:
        yield Observer(environment, memory_dir)
    finally:
        subprocess.run(
            [PROGRAMS / "vampires_stoplog", "--kill"],
            env=environment,
            cwd=memory_dir,
            capture_output=True,
            timeout=60,
            check=False,
        )
        subprocess.run(
            ["tmux", "kill-server"], env=environment, capture_output=True, check=False
        )


@pytest.fixture
def two_cameras(shm_dir: Path) -> Iterator[Callable[..., None]]:
    """two_cameras(option, ...): both cameras publish until the end of the bench."""
    with ExitStack() as stack:

        def start(*options: object) -> None:
            for stream in STREAMS:
                stack.enter_context(camera(shm_dir, stream, *options))

        yield start


def _remove(folder: Path) -> None:
    for file in folder.rglob("*.*"):
        if file.is_file():
            file.unlink()


def test_command_start_up(observer: Observer, record: Record) -> None:
    """--help, the median of ten, beside a Python that does nothing."""

    def python() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True, cwd=observer.folder)
        return time.perf_counter() - begun

    nothing_s = statistics.median(python() for _ in range(10))
    for command in ("vampires_startlog", "vampires_preplog", "milk-fpsCTRL"):
        help_s = statistics.median(observer.types(command, "--help") for _ in range(10))
        record(
            f"{command} --help, from typing to its end (Python alone: {nothing_s:.3f} s)",
            "at most 0.25 s",
            f"{help_s:.3f} s",
            help_s <= 0.25,
        )


def test_startlog_to_first_frame(
    observer: Observer, two_cameras: Callable[..., None], record: Record, disk_dir: Path
) -> None:
    """From typing startlog to the acquisition of the first frame, both cameras, ten times."""
    two_cameras("--mode", "STANDARD", "--fps", 200)
    observer.types("vampires_preplog", "--yes", "-n", 100)
    waits = []
    for _ in range(10):
        typed_ns = time.time_ns()
        observer.types("vampires_startlog")
        waits.append(max((loggers.look(s).first_ns - typed_ns) / 1e9 for s in STREAMS))
        observer.types("vampires_pauselog")
        _remove(disk_dir)
    record(
        "vampires_startlog typed to the first frame, both cameras, worst of 10",
        "at most 0.5 s",
        f"{max(waits):.3f} s (median {statistics.median(waits):.3f} s)",
        max(waits) <= 0.5,
    )


def test_saveon_to_logging(
    observer: Observer, shm_dir: Path, record: Record, disk_dir: Path
) -> None:
    """From setting saveON to the acquisition of the first frame saved, a camera at 1000 Hz."""
    waits = []
    with camera(shm_dir, "vcam1", "--shape", 64, 64, "--fps", 1000, "--pattern", "counter"):
        observer.types(
            "milk-streamFITSlog", "-D", disk_dir / "vcam1", "-z", 1000, "vcam1", "pstart"
        )
        with FPS.open(fps_name("vcam1")) as fps:
            for _ in range(30):
                session = fps["session"]
                set_ns = time.time_ns()
                fps["saveON"] = True
                _until(lambda s=session: fps["session"] != s and fps["firstns"])
                waits.append((int(fps["firstns"]) - set_ns) / 1e6)
                fps["saveON"] = False
                _until(lambda: fps["state"] == "idle")
        observer.types("milk-streamFITSlog", "vcam1", "kill")
    record(
        "saveON set to the first frame saved, 1000 Hz, worst of 30",
        "at most 20 ms",
        f"{max(waits):.1f} ms (median {statistics.median(waits):.1f} ms)",
        max(waits) <= 20,
    )


def _until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_pauselog_to_names(
    observer: Observer, two_cameras: Callable[..., None], record: Record, disk_dir: Path
) -> None:
    """From typing pauselog to its end, when the truncated cubes have their names."""
    two_cameras("--mode", "MBI", "--fps", 57)
    observer.types("vampires_preplog", "--yes", "-n", 250)
    waits = []
    for _ in range(5):
        observer.types("vampires_startlog")
        _until(lambda: all(loggers.look(s).frames >= 100 for s in STREAMS))
        waits.append(observer.types("vampires_pauselog"))
        states = [loggers.look(stream) for stream in STREAMS]
        assert all(state.pending == 0 and state.lost == 0 for state in states)
        assert len(list(disk_dir.rglob("vcam?_*.fits"))) == 2
        _remove(disk_dir)
    record(
        "vampires_pauselog typed to the truncated cubes' names, 280 MB/s each, worst of 5",
        "at most 1 s",
        f"{max(waits):.3f} s (median {statistics.median(waits):.3f} s)",
        max(waits) <= 1.0,
    )


def test_screen(observer: Observer, shm_dir: Path, record: Record) -> None:
    """CPU of milk-fpsCTRL in a tmux window of 80x24 with 20 loggers that save, over 20 s."""
    loggers_shown = [_logger_shown(shm_dir, f"cam{k:02d}") for k in range(20)]
    done = threading.Event()
    counting = threading.Thread(target=_count_frames, args=(loggers_shown, done))
    counting.start()
    tmux = ["tmux", "new-session", "-d", "-s", "screen", "-x", "80", "-y", "24"]
    subprocess.run(
        [*tmux, "-P", "-F", "#{pane_pid}", f"exec {PROGRAMS / 'milk-fpsCTRL'}"],
        env=observer.environment,
        cwd=observer.folder,
        check=True,
        capture_output=True,
    )
    listed = subprocess.run(
        ["tmux", "list-panes", "-t", "screen", "-F", "#{pane_pid}"],
        env=observer.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    pid = int(listed.stdout)

    def shown() -> str:
        return subprocess.run(
            ["tmux", "capture-pane", "-p", "-t", "screen"],
            env=observer.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    _until(lambda: "cam13" in shown())
    time.sleep(2)
    begun, used = time.perf_counter(), _cpu_s(pid)
    time.sleep(20)
    cores = (_cpu_s(pid) - used) / (time.perf_counter() - begun)
    subprocess.run(
        ["tmux", "kill-session", "-t", "screen"], env=observer.environment, check=True
    )
    done.set()
    counting.join()
    what = "screen of 20 loggers, all counting frames"
    record(what, "at most 0.05 core", f"{cores:.3f} core", cores <= 0.05)


def _logger_shown(shm_dir: Path, stream: str) -> FPS:
    """The FPS of a logger that saves, as far as a screen can tell; this process runs it."""
    fps = FPS.create(
        fps_name(stream),
        logger_parameters(stream),
        callfuncname=FUNCTION,
        workdir=shm_dir / "work",
    )
    fps.record_run_process()
    fps.set("saveON", True, force=True)
    fps.set("state", "logging", force=True)
    return fps


def _count_frames(shown: list[FPS], done: threading.Event) -> None:
    """Every tenth of a second each logger has saved more frames."""
    frames = 0
    while not done.wait(0.1):
        frames += 50
        for fps in shown:
            fps.publish("framecnt", frames)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
