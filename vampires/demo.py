"""The main job, shown and proven: two simulated cameras, started with camstart and triggered
together, logged by the observer's commands; every pixel and every time re-read.

All is real but the cameras and the sky, and none of it touches a running instrument.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vampires import logger_control as loggers
from vampires.flow.playground import Playground, PlaygroundError, playground
from vampires.frame_stamp import expected_frame
from vampires.instrument.cameras import camera_number
from vampires.instrument.file import instrument_on
from vampires.simulated_sky import frame_pool

CAMERAS = ("vcam1", "vcam2")
CUBE_SIZE = 100
PROGRESS_S = 1.0
POLL_S = 0.05
PATIENCE_S = 30.0

CONFIG = """\
[hosts.here]
address = "local"

[cameras.vcam1]
number = 1
host = "here"
mode = "{mode}"
fps = {fps}

[cameras.vcam2]
number = 2
host = "here"
mode = "{mode}"
fps = {fps}

[logging]
directory = "{root}"
ring_memory = "1GiB"
"""


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
    """What to run. say: called with each line for the observer. triggered: the cameras take
    their frames together, as the liquid crystal has them; for check() alone also False: each
    at its own pace."""

    root: Path
    seconds: float
    mode: str
    fps: Fraction
    say: Callable[[str], None]
    triggered: bool = True

    def run(self) -> list[CameraReport]:
        """Runs cameras and loggers, then checks the files.

        Leaves no process and no stream behind, also when it fails or is interrupted. Raises
        DemoError.
        """
        root = self.root.absolute()
        config = CONFIG.format(mode=self.mode, fps=float(self.fps), root=root)
        before = set(root.glob("*/*/*.fits"))
        try:
            with playground(config, "vampires-demo-") as place:
                results = self._record(place)
        except PlaygroundError as error:
            raise DemoError(str(error)) from None
        new = sorted(set(root.glob("*/*/*.fits")) - before)
        for stream, result in results.items():
            result["files"] = [str(file) for file in new if file.parent.name == stream]
        return [self.check(stream, result) for stream, result in results.items()]

    def _record(self, place: Playground) -> dict[str, dict[str, Any]]:
        for command, *arguments in (
            ("camstart", *CAMERAS),
            ("camera_settings", "set_trigger", "on"),
            ("preplog", "--yes", "-n", CUBE_SIZE),
            ("startlog",),
        ):
            self.say("$ " + _typed(command, arguments))
            for line in place.run(command, *arguments).splitlines():
                self.say(f"  {line}")
        self._wait(place)
        self.say("$ vampires_pauselog")
        place.run("pauselog")
        states = {stream: loggers.look(stream, place.shm_dir) for stream in CAMERAS}
        self.say("$ camstop all")
        place.run("camstop", "all")
        return {stream: _result(state) for stream, state in states.items()}

    def _wait(self, place: Playground) -> None:
        """Until frames of so many seconds were saved by both."""
        frames = max(1, round(self._mean_hz * self.seconds))
        deadline = time.monotonic() + self.seconds + PATIENCE_S
        told = time.monotonic()
        while True:
            states = [loggers.look(stream, place.shm_dir) for stream in CAMERAS]
            if all(state.frames >= frames for state in states):
                return
            now = time.monotonic()
            if now - told > PROGRESS_S:
                told = now
                counts = (f"{s.stream} {s.frames} frames, {s.lost} lost" for s in states)
                self.say(f"  logging: {'; '.join(counts)}")
            if now > deadline:
                raise DemoError(f"{frames} frames did not come; the loggers say {states}")
            time.sleep(POLL_S)

    @property
    def _mean_hz(self) -> float:
        return 1 / (1 / float(self.fps) + instrument_on().half_width_us * 1e-6)

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
        """Every pixel and time of a file; origin, known from the first file on: the frame
        number that the triggers count from, and by how much all times are later, in ns."""
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
            times_ns = rows["TACQ"].astype(np.int64)
            first = origin or self._origin(int(counters[0]), int(times_ns[0]))
            late_ns = times_ns - self._due_ns(counters - first[0]) - first[1]
            if late_ns.min() < -1000 or late_ns.max() > self._late_ns + 1000:
                wrong(f"{path.name}: acquisition times are not those of the camera")
        sidecar = np.loadtxt(path.with_suffix(".txt"), ndmin=2)
        if not np.array_equal(sidecar[:, 1].astype(np.int64), counters):
            wrong(f"{path.name}: the sidecar does not list the frames of the cube")
        elif np.abs(sidecar[:, 4] - rows["TACQ"] * 1e-9).max() > 2e-6:
            wrong(f"{path.name}: the times of the sidecar are not those of the cube")
        report.frames_checked += len(counters)
        return first

    @property
    def _pair_ns(self) -> Fraction:
        """Two frame intervals, of which the liquid crystal lengthens one."""
        flc_us = instrument_on().half_width_us if self.triggered else 0.0
        return 2_000_000_000 / self.fps + 2 * Fraction(flc_us) * 1000

    @property
    def _late_ns(self) -> float:
        """By how much a frame may be later than its trigger."""
        jitter_us = instrument_on().readout("FAST").frame_jitter_us
        return jitter_us * 1000 if self.triggered else 0.0

    def _due_ns(self, trigger: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """When a trigger comes, counted from 1970."""
        period_ns = 1_000_000_000 / self.fps
        due = [(k // 2) * self._pair_ns + (k % 2) * period_ns for k in trigger.tolist()]
        return np.array([int(time_ns) for time_ns in due])

    def _origin(self, cnt0: int, time_ns: int) -> tuple[int, int]:
        """The origin, from a frame."""
        pairs = time_ns // self._pair_ns
        near = np.arange(2 * pairs - 1, 2 * pairs + 4)
        late_ns = time_ns - self._due_ns(near)
        nearest = int(np.abs(late_ns).argmin())
        return cnt0 - int(near[nearest]), 0 if self.triggered else int(late_ns[nearest])


def shown(name: str) -> str:
    """A path as short as the observer needs it."""
    path = Path(name)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _typed(command: str, arguments: Sequence[object]) -> str:
    """The line that an observer types."""
    words = list(map(str, arguments))
    if command == "camera_settings":
        return " ".join(words)
    return " ".join([command if command.startswith("cam") else f"vampires_{command}", *words])


def _result(state: loggers.LoggerState) -> dict[str, Any]:
    """What the check and the table need of a logger that was paused."""
    seconds = (state.newest_ns - state.first_ns) / 1e9 if state.first_ns else 0.0
    return {
        "frames_seen": state.end_cnt0 - state.first_cnt0 + 1 if state.frames else 0,
        "frames_logged": state.frames,
        "lost": state.lost,
        "torn": state.torn,
        "bytes": state.frames * state.frame_bytes,
        "seconds": seconds,
    }


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
