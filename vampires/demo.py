"""The main job, shown and proven: two simulated cameras, two loggers, every pixel re-read.

Cameras and loggers are the real commands in processes of their own; the streams live in a
folder of their own, so that nothing of a running instrument is touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vampires.cameras import camera_number
from vampires.frame_stamp import expected_frame
from vampires.simulated_sky import frame_pool

CAMERAS = ("vcam1", "vcam2")
CUBE_SIZE = 100
RING_MEMORY = "1GiB"
SHUTDOWN_S = 20.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class DemoError(Exception):
    """A part of the demo did not do its job; the text says which and what it printed."""


@dataclass
class CameraReport:
    """What became of one camera's frames. errors: what the check of the files found wrong."""

    stream: str
    result: dict[str, Any]
    errors: list[str] = field(default_factory=list)
    frames_checked: int = 0

    @property
    def mb_per_s(self) -> float:
        seconds = self.result["seconds"]
        return self.result["bytes"] / seconds / 1e6 if seconds else 0.0

    @property
    def good(self) -> bool:
        return not self.errors and self.result["lost"] == 0 == self.result["torn"]


@dataclass(frozen=True)
class Demo:
    """What to run. say: called with each line for the observer."""

    root: Path
    seconds: float
    mode: str
    fps: Fraction
    say: Callable[[str], None]

    def run(self) -> list[CameraReport]:
        """Runs cameras and loggers, then checks the files.

        Leaves no process and no stream behind, also when it fails or is interrupted. Raises
        DemoError.
        """
        with stream_folder() as shm_dir:
            results = self._record(shm_dir)
        return [self.check(stream, result) for stream, result in results.items()]

    def _record(self, shm_dir: Path) -> dict[str, dict[str, Any]]:
        with ExitStack() as stack:
            for stream in CAMERAS:
                camera = stack.enter_context(self._camera(stream, shm_dir))
                assert camera.stdout is not None
                line = camera.stdout.readline().strip()
                if not line:
                    raise DemoError(f"the camera {stream} did not start")
                self.say(f"camera  {line}")
            loggers = {s: stack.enter_context(self._logger(s, shm_dir)) for s in CAMERAS}
            relays = {
                s: stack.enter_context(_Relay(logger, self.say))
                for s, logger in loggers.items()
            }
            return {s: self._result(s, loggers[s], relay) for s, relay in relays.items()}

    def _camera(self, stream: str, shm_dir: Path) -> Any:
        arguments = [stream, "--mode", self.mode, "--fps", str(self.fps)]
        return running("vampires.commands.framesim", arguments, shm_dir)

    def _logger(self, stream: str, shm_dir: Path) -> Any:
        frames = max(1, round(self.fps * Fraction(self.seconds)))
        arguments = [stream, "--dir", str(self.root.absolute()), "--cube-size", str(CUBE_SIZE)]
        arguments += ["--frames", str(frames), "--ring-memory", RING_MEMORY]
        arguments += ["--progress", "1", "--json"]
        return running("vampires.commands.logger", arguments, shm_dir, stderr=subprocess.PIPE)

    def _result(
        self, stream: str, logger: subprocess.Popen[str], relay: _Relay
    ) -> dict[str, Any]:
        assert logger.stdout is not None
        printed = logger.stdout.read()
        relay.join()
        if logger.wait() not in (0, 3) or not printed:
            raise DemoError(f"the logger of {stream} failed: {relay.last_line}")
        result: dict[str, Any] = json.loads(printed)
        return result

    # -- the proof ---------------------------------------------------------------------

    def check(self, stream: str, result: dict[str, Any]) -> CameraReport:
        """Re-reads the files of a logger and compares them with the camera's frames."""
        report = CameraReport(stream, result)
        pool = frame_pool("sky", self.mode, camera_number(stream), "uint16", 0)
        origin: tuple[int, int] | None = None
        for name in result["files"]:
            self.say(f"checking {shown(name)}")
            origin = self._check_file(Path(name), pool, origin, report)
        if report.frames_checked != result["frames_logged"]:
            report.errors.append(
                f"{report.frames_checked} frames in the files, the logger says "
                f"{result['frames_logged']}"
            )
        return report

    def _check_file(
        self,
        path: Path,
        pool: npt.NDArray[Any],
        origin: tuple[int, int] | None,
        report: CameraReport,
    ) -> tuple[int, int]:
        """Every pixel and time of a file; origin: (cnt0, TACQ) of the camera's first frame."""
        from astropy.io import fits

        wrong = report.errors.append
        with fits.open(path) as hdus:
            if not hdus[0].verify_checksum() or not hdus[0].verify_datasum():
                wrong(f"{path.name}: CHECKSUM or DATASUM does not fit")
            rows, pixels = hdus["FRAMES"].data, hdus[0].data
            counters = rows["CNT0"].astype(np.int64)
            for frame, cnt0 in zip(pixels, counters.tolist(), strict=True):
                if not np.array_equal(frame, expected_frame(pool, cnt0)):
                    wrong(f"{path.name}: frame {cnt0} has not the camera's pixels")
            first = origin or (int(counters[0]), int(rows["TACQ"][0]))
            due_ns = (counters - first[0]) * (1e9 / float(self.fps)) + first[1]
            if np.abs(rows["TACQ"].astype(np.int64) - due_ns).max() > 1000:
                wrong(f"{path.name}: acquisition times are not those of the camera")
        sidecar = np.loadtxt(path.with_suffix(".txt"), ndmin=2)
        if not np.array_equal(sidecar[:, 1].astype(np.int64), counters):
            wrong(f"{path.name}: the sidecar does not list the frames of the cube")
        elif np.abs(sidecar[:, 4] - rows["TACQ"] * 1e-9).max() > 2e-6:
            wrong(f"{path.name}: the times of the sidecar are not those of the cube")
        report.frames_checked += len(counters)
        return first


def shown(name: str) -> str:
    """A path as short as the observer needs it."""
    path = Path(name)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


class _Relay(threading.Thread):
    """Passes on the lines a logger prints, as they come. On leaving, the logger is ended."""

    def __init__(self, logger: subprocess.Popen[str], say: Callable[[str], None]) -> None:
        super().__init__()
        self._logger = logger
        self._say = say
        self.last_line = ""

    def __enter__(self) -> _Relay:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.terminate()
        self.join()

    def run(self) -> None:
        assert self._logger.stderr is not None
        for line in self._logger.stderr:
            self.last_line = line.rstrip().removeprefix("vampires-logger: ")
            self._say(self.last_line)


@contextmanager
def stream_folder() -> Iterator[Path]:
    """A folder of its own for shared memory, gone at the end."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp("", "vampires-demo-", memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        start_new_session=True,  # Ctrl-C goes to the demo, which ends them in order
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


def table(reports: list[CameraReport]) -> list[str]:
    """Lines of the closing table."""
    lines = [
        f"{'camera':8}{'seen':>8}{'logged':>8}{'lost':>6}{'torn':>6}{'MB/s':>8}{'files':>7}"
        f"{'verified':>10}"
    ]
    for report in reports:
        result = report.result
        lines.append(
            f"{report.stream:8}{result['frames_seen']:8}{result['frames_logged']:8}"
            f"{result['lost']:6}{result['torn']:6}{report.mb_per_s:8.1f}"
            f"{len(result['files']):7}{'NO' if report.errors else 'yes':>10}"
        )
    return lines
