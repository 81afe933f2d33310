"""Recorded cubes as a camera: their frames once more, in order, at the pace they had.

A frame is published when it is due: after the one before it by the time that lay between the
two when they were recorded (of acquisition: the table FRAMES, else the sidecar, else the
header's frame rate), or by that of a given rate. Its acquisition time is the time it was due,
as loggers and links take that for the time of the frame; when it was recorded is told by the
keyword ``_REPLAYT``. Between two files no more than five seconds pass; longer gaps become one.

One frame is in memory at a time, however long the cubes are. A replay that cannot keep pace
catches up, unless it is more than a second late: then it goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vampires.camera.keywords import MAQTIME, MAQTIME_COMMENT
from vampires.camera.settings import CameraLimits, CameraSettings
from vampires.camera.source import FrameSink, FrameSource, Keywords, SourceError
from vampires.camera.sources.recorded import (
    MIN_HZ,
    Pace,
    cube_paths,
    header_value,
    opened,
    read_frame,
    recorded_camera,
    recorded_keywords,
    stored_type,
    unlike,
)
from vampires.cube_pixels import CubePixels
from vampires.stop_request import Stop

REPLAY_TIME = "_REPLAYT"
_REPLAY_TIME_COMMENT = "[us] when the frame was recorded, Unix time; 0: unknown"
_NS_PER_S = 1_000_000_000
_LONGEST_GAP_NS = 5 * _NS_PER_S  # between two files
_SHORTENED_GAP_NS = _NS_PER_S
_LONGEST_INTERVAL_NS = 3600 * _NS_PER_S  # within a file; a longer one is no time of a frame
_LATEST_NS = _NS_PER_S
_START_DELAY_NS = 5_000_000
_LONGEST_WAIT_NS = 60 * _NS_PER_S
_FINE_SLEEP_NS = 50_000_000  # the precise sleep is used for the last of a wait


@dataclass(frozen=True)
class ReplayOptions:
    """What to replay. path: a FITS cube (.fits, .fits.fz), or a folder of cubes of one camera,
    taken in the order of their names. fps: frames/s; None: at the recorded times. loop: begin
    again after the last frame."""

    path: Path
    fps: float | None = None
    loop: bool = True


class ReplaySource(FrameSource):
    """Frames of files. Cubes that come into the folder later are not seen.

    Nothing can be set: configure() returns what the files have. After a pause acquire() goes
    on with the next frame.
    """

    def __init__(
        self,
        options: ReplayOptions,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        sleep_until_ns: Callable[[int], None] | None = None,
    ) -> None:
        """Looks at the header of every file. SourceError names the file that cannot be used."""
        if options.fps is not None and not MIN_HZ <= options.fps < math.inf:
            raise SourceError(
                f"no replay at {options.fps:g} frames/s: expected {MIN_HZ:g} or more"
            )
        self._options = options
        self._now_ns = now_ns
        self._sleep_until_ns = sleep_until_ns or _core_sleep_until_ns
        self._paths = cube_paths(options.path)
        self._cube: CubePixels | None = None
        with opened(self._paths[0]) as first:
            self._shape = (first.shape[1], first.shape[2])
            self._stored = stored_type(first.cards)
            self._camera = header_value(first.cards, "U_CAMERA")
            self._dtype = read_frame(first, 0).dtype
            self._keywords = recorded_keywords(first.cards)
            pace = Pace(first)
            self._limits, self._settings = recorded_camera(
                first.cards, self._shape, options.fps, pace
            )
        for path in self._paths[1:]:
            with opened(path) as cube:
                self._check_like_first(cube)
        self._frames = self._endless() if options.loop else self._once()
        self._waiting: _Replayed | None = None

    @property
    def limits(self) -> CameraLimits:
        return self._limits

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    def configure(self, wanted: CameraSettings) -> CameraSettings:
        """What the files have, whatever is wanted."""
        return self._settings

    def keywords(self) -> Keywords:
        """Those of the first file's header that a camera's stream carries, but for the rates,
        which are those of the replay."""
        return {
            **self._keywords,
            MAQTIME: (0, MAQTIME_COMMENT),
            REPLAY_TIME: (0, _REPLAY_TIME_COMMENT),
        }

    def acquire(self, sink: FrameSink, stop: Stop) -> None:
        due_ns = self._now_ns() + _START_DELAY_NS
        first = True
        while not stop.is_set():
            frame = self._waiting = self._waiting or next(self._frames, None)
            if frame is None:
                return
            if not first:
                due_ns = self._in_time(due_ns, frame.interval_ns)
            if not self._wait_until(due_ns, stop):
                return
            np.copyto(sink.next_slot(), frame.pixels)
            recorded_us = (frame.recorded_ns // 1000, _REPLAY_TIME_COMMENT)
            sink.publish(
                acquired_ns=due_ns,
                keywords={
                    MAQTIME: (due_ns // 1000, MAQTIME_COMMENT),
                    REPLAY_TIME: recorded_us,
                },
            )
            self._waiting, first = None, False

    def close(self) -> None:
        self._frames = iter(())
        self._waiting = None
        self._close_cube()

    # -- the order of frames ------------------------------------------------------------------

    def _endless(self) -> Iterator[_Replayed]:
        while True:
            yield from self._once()

    def _once(self) -> Iterator[_Replayed]:
        """Every frame of every file; only the file that is read is open."""
        last_ns = 0
        for path in self._paths:
            self._close_cube()
            cube = self._cube = opened(path)
            self._check_like_first(cube)
            pace = Pace(cube)
            for index in range(cube.shape[0]):
                pixels = read_frame(cube, index)
                if pixels.dtype != self._dtype:
                    raise unlike(path, f"pixels of {pixels.dtype}", str(self._dtype))
                time_ns = pace.recorded_ns(index)
                interval_ns = self._interval_ns(pace, last_ns, time_ns, index == 0)
                yield _Replayed(pixels, time_ns, interval_ns)
                last_ns = time_ns

    def _interval_ns(self, pace: Pace, last_ns: int, time_ns: int, new_file: bool) -> int:
        """From the frame before to this one."""
        if self._options.fps is not None:
            return max(1, round(_NS_PER_S / self._options.fps))
        if not last_ns or not time_ns:
            return pace.interval_ns
        gap_ns = time_ns - last_ns
        if new_file and not 0 < gap_ns <= _LONGEST_GAP_NS:
            return _SHORTENED_GAP_NS
        believed = 0 < gap_ns <= _LONGEST_INTERVAL_NS  # a clock may have stepped back
        return gap_ns if believed else pace.interval_ns

    def _check_like_first(self, cube: CubePixels) -> None:
        shape, stored = cube.shape[1:], stored_type(cube.cards)
        if shape != self._shape:
            raise unlike(cube.path, f"frames of {shape}", f"{self._shape}")
        if stored != self._stored:
            raise unlike(cube.path, f"pixels of {stored}", self._stored)
        camera = header_value(cube.cards, "U_CAMERA")
        if camera != self._camera:
            raise unlike(cube.path, f"camera {camera}", f"camera {self._camera}")

    def _close_cube(self) -> None:
        if self._cube is not None:
            self._cube.close()
            self._cube = None

    # -- time ---------------------------------------------------------------------------------

    def _in_time(self, before_ns: int, interval_ns: int) -> int:
        """When the next frame is due. One that would be much too late, or that a step of the
        clock has put far off, is due an interval from now."""
        now_ns, due_ns = self._now_ns(), before_ns + interval_ns
        on_time = now_ns - _LATEST_NS <= due_ns <= now_ns + interval_ns + _LATEST_NS
        return due_ns if on_time else now_ns + interval_ns

    def _wait_until(self, due_ns: int, stop: Stop) -> bool:
        """Sleeps until the time; False when told to stop."""
        while not stop.is_set():
            remaining_ns = due_ns - self._now_ns()
            if remaining_ns <= 0:
                return True
            if remaining_ns > _FINE_SLEEP_NS:
                coarse_ns = min(remaining_ns - _FINE_SLEEP_NS, _LONGEST_WAIT_NS)
                stop.wait(coarse_ns / _NS_PER_S)
            else:
                self._sleep_until_ns(due_ns)
        return False


@dataclass(frozen=True, eq=False)
class _Replayed:
    """A frame, when it was recorded (0: unknown), and how long after the one before."""

    pixels: np.ndarray
    recorded_ns: int
    interval_ns: int


def _core_sleep_until_ns(time_ns: int) -> None:
    from vampires import _core

    _core.sleep_until_ns(time_ns)
