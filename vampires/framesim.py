"""The simulated camera: publishes numbered frames on a stream at an exact rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from vampires import frame_stamp, simulated_sky
from vampires.camera import keywords
from vampires.camera.keywords import MAQTIME, MAQTIME_COMMENT, CameraIdentity
from vampires.camera.settings import CameraSettings
from vampires.framesim_focus import FocusOptions, Scene, focus_keywords, quantised
from vampires.instrument.cameras import Crop, camera_number
from vampires.instrument.file import instrument_of
from vampires.sky_renderer import SkyOptions
from vampires.stop_request import Stop

_NS_PER_S = 1_000_000_000
_START_DELAY_NS = 5_000_000  # from run() to the first frame
_FINE_SLEEP_NS = 50_000_000  # the precise sleep is used for the last of a wait
_JITTER_BLOCK_FRAMES = 1024
_JITTER_LIMIT = 0.4  # of a frame interval, so that frames keep their order
_DETECTOR_TEMPERATURE_K = 253.15

KeywordValue = int | float | str
Keywords = dict[str, tuple[KeywordValue, str]]
"""Stream keywords: name -> (value, comment)."""


class StreamWriter(Protocol):
    """What the camera needs of vampires.stream.Stream."""

    @property
    def cnt0(self) -> int: ...

    def next_slot(self) -> np.ndarray: ...

    def publish(
        self, acquired_ns: int, keywords: Mapping[str, tuple[KeywordValue, str]]
    ) -> int: ...


@dataclass(frozen=True)
class CameraOptions:
    """A simulated camera.

    mode_or_shape: a camera mode or (ny, nx). fps 0: no pause at all. flc_jitter_us: half-width
    of the liquid crystal's switching (U_TRIGJT); every other interval is longer by twice that.
    jitter_us: of free-running frames, the standard deviation of a Gaussian; trigger_jitter_us:
    of triggered ones, by how much they may be late. focus None: it has none to set, and the
    stars are sharp. day: YYYY-MM-DD, whose facts of the instrument are played; None: today.
    """

    stream: str
    mode_or_shape: str | tuple[int, int] = "MBI"
    dtype: str = "uint16"
    fps: Fraction = Fraction(57)
    pattern: str = "sky"
    flc_jitter_us: float = 0.0
    jitter_us: float = 0.0
    trigger_jitter_us: float = 0.0
    exptime_s: float | None = None
    seed: int = 0
    focus: FocusOptions | None = None
    readout: str = "FAST"
    number: int | None = None
    day: str | None = None

    @property
    def camera(self) -> int:
        """Camera number; where none is given, that of the stream's name."""
        return self.number or camera_number(self.stream)

    @property
    def shape(self) -> tuple[int, int]:
        """[ny, nx] of the frames."""
        return simulated_sky.frame_shape(self.mode_or_shape, self.camera, self.day)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def sky(self) -> SkyOptions:
        """What the frames of all focuses have in common."""
        return SkyOptions(self.mode_or_shape, self.camera, self.dtype, self.seed, self.day)

    @property
    def mean_fps(self) -> float:
        """Mean rate in Hz, the liquid crystal's longer intervals included; 0 without pause."""
        if self.fps == 0:
            return 0.0
        return 1.0 / (float(1 / self.fps) + self.flc_jitter_us * 1e-6)


class FrameSchedule:
    """When each frame is due; frames are counted from 0.

    Frame k is due at start + k / fps, computed with integers, so the rate has no drift. With
    the liquid crystal on, the trigger waits for its half-width flc_jitter_us before and after
    it switches, and it switches back without a wait: every other interval (that before frame
    2, 4, 6, ...) is longer by twice the half-width, and the mean rate is
    1 / (1/fps + flc_jitter). jitter_us is the standard deviation of a Gaussian that moves each
    frame alone, by 0.4 of an interval at most; late_us is by how much at most each frame is
    late, all delays being as likely. Both are the same for the same seed.
    """

    def __init__(
        self,
        start_ns: int,
        fps: Fraction,
        flc_jitter_us: float = 0.0,
        jitter_us: float = 0.0,
        *,
        late_us: float = 0.0,
        seed: int = 0,
    ) -> None:
        if fps <= 0:
            raise ValueError(f"no schedule for {fps} frames/s: expected a rate above 0")
        self._start_ns = start_ns
        self._interval_ns = _NS_PER_S / fps
        self._flc_ns = 2 * round(flc_jitter_us * 1000)
        self._jitter_ns = jitter_us * 1000
        self._late_ns = late_us * 1000
        self._seed = seed
        self._block = -1
        self._block_jitter_ns = np.zeros(0, np.int64)

    def nominal_ns(self, frame: int) -> int:
        """Time of a frame in ns UTC, without the Gaussian jitter."""
        interval = self._interval_ns
        paced_ns = frame * interval.numerator // interval.denominator
        return self._start_ns + paced_ns + frame // 2 * self._flc_ns

    def due_ns(self, frame: int) -> int:
        """Time at which the camera acquires a frame, in ns UTC."""
        if self._jitter_ns == 0 == self._late_ns:
            return self.nominal_ns(frame)
        block, index = divmod(frame, _JITTER_BLOCK_FRAMES)
        if block != self._block:
            self._block, self._block_jitter_ns = block, self._draw(block)
        return self.nominal_ns(frame) + int(self._block_jitter_ns[index])

    def _draw(self, block: int) -> np.ndarray:
        random = np.random.default_rng([self._seed, block])
        jitter_ns = random.standard_normal(_JITTER_BLOCK_FRAMES) * self._jitter_ns
        jitter_ns += random.random(_JITTER_BLOCK_FRAMES) * self._late_ns
        limit_ns = float(self._interval_ns) * _JITTER_LIMIT
        return np.rint(np.clip(jitter_ns, -limit_ns, limit_ns)).astype(np.int64)


@dataclass(frozen=True)
class RunSummary:
    """What a run published. seconds: from the first to the last frame; max_late_us: the longest
    delay between the time a frame was due and the moment its copy began."""

    stream: str
    frames: int
    seconds: float
    rate_hz: float
    mb_per_s: float
    max_late_us: float


def _core_sleep_until_ns(time_ns: int) -> None:
    from vampires import _core

    _core.sleep_until_ns(time_ns)


class SimulatedCamera:
    """Publishes the frames of a pool, stamped with their number, on a stream.

    The frame with counter cnt0 is frame_stamp.expected_frame(pool, cnt0), with the pool of its
    focus. Its acquisition time
    (the stream's atime and the keyword _MAQTIME, in microseconds, cut) is the time at which it
    was due, as a hardware trigger would give it. A camera that is late catches up: no frame is
    left out.
    """

    def __init__(
        self,
        options: CameraOptions,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        sleep_until_ns: Callable[[int], None] = _core_sleep_until_ns,
    ) -> None:
        """Makes the pool, in a second or two. ValueError for options that are wrong."""
        frame_stamp.check_stampable(options.shape, options.dtype)
        self.options = options
        self._scene = _first_scene(options)
        self._now_ns = now_ns
        self._sleep_until_ns = sleep_until_ns

    @property
    def pool(self) -> np.ndarray:
        """The pool [P, ny, nx] of the frames that it publishes now."""
        return self._scene.pool

    def show(self, scene: Scene) -> None:
        """Publishes the frames of another scene from the next frame on; from any thread."""
        self._scene = scene

    def run(
        self,
        writer: StreamWriter,
        stop: Stop,
        frames: int | None = None,
        seconds: float | None = None,
        *,
        triggered: bool = False,
    ) -> RunSummary:
        """Publishes until stop is set, the number of frames is reached, or the next frame would
        be due `seconds` after the first. Returns what was done.

        triggered: frames come at instants that all cameras of this rate and liquid crystal have
        in common, as if one pulse triggered them.
        """
        options = self.options
        start_ns = self._now_ns() + (_START_DELAY_NS if options.fps else 0)
        first = 0
        if triggered and options.fps:
            first, start_ns = _next_trigger(options, start_ns), 0
        schedule = _schedule(options, start_ns, triggered=triggered)
        if schedule:
            start_ns = schedule.nominal_ns(first)
        end_ns = None if seconds is None else start_ns + round(seconds * _NS_PER_S)
        published, max_late_ns, first_ns, last_ns = 0, 0, 0, 0
        cnt0 = writer.cnt0
        while frames is None or published < frames:
            index = first + published
            nominal_ns = schedule.nominal_ns(index) if schedule else self._now_ns()
            if end_ns is not None and nominal_ns >= end_ns:
                break
            due_ns = schedule.due_ns(index) if schedule else nominal_ns
            if not self._wait_until(due_ns, stop):
                break
            if schedule:
                max_late_ns = max(max_late_ns, self._now_ns() - due_ns)
            cnt0 = self._publish(writer, cnt0 + 1, due_ns)
            last_ns = time.monotonic_ns()
            first_ns = first_ns or last_ns
            published += 1
        return self._summary(published, last_ns - first_ns, max_late_ns)

    def _wait_until(self, due_ns: int, stop: Stop) -> bool:
        """Sleeps until the time; False when told to stop."""
        while not stop.is_set():
            remaining_ns = due_ns - self._now_ns()
            if remaining_ns <= 0:
                return True
            if remaining_ns > _FINE_SLEEP_NS:
                stop.wait((remaining_ns - _FINE_SLEEP_NS) / _NS_PER_S)
            else:
                self._sleep_until_ns(due_ns)
        return False

    def _publish(self, writer: StreamWriter, cnt0: int, acquired_ns: int) -> int:
        slot = writer.next_slot()
        scene = self._scene  # pixels and keywords of the same
        np.copyto(slot, scene.pool[cnt0 % len(scene.pool)])
        frame_stamp.stamp(slot, cnt0)
        return writer.publish(
            acquired_ns=acquired_ns,
            keywords={MAQTIME: (acquired_ns // 1000, MAQTIME_COMMENT), **scene.keywords},
        )

    def _summary(self, frames: int, elapsed_ns: int, max_late_ns: int) -> RunSummary:
        seconds = elapsed_ns / _NS_PER_S
        rate_hz = (frames - 1) / seconds if elapsed_ns > 0 else 0.0
        return RunSummary(
            stream=self.options.stream,
            frames=frames,
            seconds=seconds,
            rate_hz=rate_hz,
            mb_per_s=rate_hz * self.options.frame_bytes / 1e6,
            max_late_us=max_late_ns / 1e3,
        )


def _first_scene(options: CameraOptions) -> Scene:
    focus = options.focus
    pool = simulated_sky.frame_pool(
        options.pattern,
        options.mode_or_shape,
        options.camera,
        options.dtype,
        options.seed,
        readout=options.readout,
        defocus_nm=focus.start_defocus_nm if focus else 0.0,
        day=options.day,
    )
    return Scene(pool, focus_keywords(quantised(focus.start_mm)) if focus else {})


def _schedule(
    options: CameraOptions, start_ns: int, *, triggered: bool
) -> FrameSchedule | None:
    if options.fps == 0:
        return None
    return FrameSchedule(
        start_ns,
        options.fps,
        options.flc_jitter_us,
        options.jitter_us,
        late_us=options.trigger_jitter_us if triggered else 0.0,
        seed=2 * options.seed + options.camera if triggered else options.seed,
    )


def _next_trigger(options: CameraOptions, from_ns: int) -> int:
    """The first frame from then on with which a pair of intervals begins, of the schedule that
    began in 1970."""
    pair_ns = 2 * _NS_PER_S / options.fps + 2 * round(options.flc_jitter_us * 1000)
    return 2 * -(-from_ns * pair_ns.denominator // pair_ns.numerator)


def exposure_time_s(options: CameraOptions) -> float:
    """The exposure time of the options; by default the frame interval (1/57 s without one)."""
    if options.exptime_s is not None:
        return options.exptime_s
    return float(1 / options.fps) if options.fps else simulated_sky.EXPOSURE_S


def camera_keywords(options: CameraOptions) -> Keywords:
    """The keywords of a camera stream at its start, as the camera server would set them.

    DATA-TYP is TEST: simulated frames are never taken for science. Coordinates are left out:
    nothing tells CRVAL where there is no telescope, and without it they are not whole.
    """
    triggered = options.flc_jitter_us > 0
    identity = CameraIdentity(options.stream, options.camera, object_name="SIMULATION")
    instrument = instrument_of(options.day)
    return {
        **keywords.camera_keywords(
            _settings(options), identity, instrument=instrument, coordinates=False
        ),
        "DET-TMP": (_DETECTOR_TEMPERATURE_K, "[K] temperature of the detector"),
        "U_FLCEN": (keywords.logical(triggered), "liquid crystal (FLC) enabled"),
        "U_TRIGJT": (round(options.flc_jitter_us), "[us] half-width of the trigger's jitter"),
        MAQTIME: (0, MAQTIME_COMMENT),
        **(focus_keywords(quantised(options.focus.start_mm)) if options.focus else {}),
    }


def _settings(options: CameraOptions) -> CameraSettings:
    """The settings of a camera that would give such frames."""
    ny, nx = options.shape
    mode, window = "", Crop(0, nx - 1, 0, ny - 1)
    if isinstance(options.mode_or_shape, str):
        mode = options.mode_or_shape.upper()
        window = instrument_of(options.day).crop(mode, options.camera)
    return CameraSettings(
        mode=mode,
        crop=window,
        tint_s=exposure_time_s(options),
        fps=options.mean_fps,
        readout=options.readout,
        external_trigger=options.flc_jitter_us > 0,
    )


def create_stream(options: CameraOptions, ring: int) -> Any:
    """Creates the camera's stream (vampires.stream.Stream), a ring of `ring` frames or, with 0,
    a single frame. A stream of that name is replaced."""
    from vampires.stream import Stream

    return Stream.create(
        options.stream,
        shape=options.shape,
        dtype=options.dtype,
        ring=ring,
        keywords=camera_keywords(options),
        keyword_room=64,
    )
