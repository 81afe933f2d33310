"""The simulated camera as a frame source: ORCA-Quest for vcam1 and vcam2, else any sensor.

Frames are those of vampires.framesim, each stamped with its number. With the external trigger
they come at instants that all simulated cameras of the same rate have in common, and the
liquid crystal lengthens every other interval by twice its half-width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from vampires.camera.settings import CameraLimits, CameraSettings, plain_camera, science_camera
from vampires.camera.source import FrameSink, FrameSource, Keywords, SourceError
from vampires.fps.errors import FPSError
from vampires.framesim import CameraOptions, SimulatedCamera
from vampires.framesim_focus import FocusOptions, FocusStage
from vampires.instrument.facts import Instrument
from vampires.instrument.file import instrument_of
from vampires.stop_request import Stop

DETECTOR_TEMPERATURE_K = 253.15
_MAX_FPS_DENOMINATOR = 1_000_000


@dataclass(frozen=True)
class SimOptions:
    """A simulated camera. number: 1 or 2 (ORCA-Quest), None: a sensor of its own, [ny, nx].
    flc_jitter_us: half-width of the liquid crystal's switching, with the external trigger;
    None: that of the instrument, 0: the crystal is off. day: YYYY-MM-DD, whose facts of the
    instrument are played; None: today. light: "sky", "flat" or "dark"."""

    name: str
    number: int | None = None
    sensor: tuple[int, int] = (1024, 1280)
    flc_jitter_us: float | None = None
    seed: int = 0
    focus: bool = False
    day: str | None = None
    light: str = "sky"


class SimSource(FrameSource):
    """Gives frames that it makes. say: told one line when the focus can be set no longer."""

    def __init__(
        self, options: SimOptions, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._options = options
        self._say = say
        self._instrument = instrument_of(options.day)
        self._limits = (
            science_camera(options.number, self._instrument)
            if options.number
            else plain_camera(options.sensor)
        )
        self._camera: SimulatedCamera | None = None
        self._stage: FocusStage | None = None
        self._last_focus_mm = FocusOptions().start_mm
        self._triggered = False

    @property
    def limits(self) -> CameraLimits:
        return self._limits

    @property
    def instrument(self) -> Instrument:
        return self._instrument

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16)

    def configure(self, wanted: CameraSettings) -> CameraSettings:
        """Makes the frames, in a second for the largest; those that stay are kept, and so is
        the focus."""
        options = self._camera_options(wanted)
        kept = self._camera
        if kept is not None and _same_frames(kept.options, options):
            kept.options = replace(options, focus=kept.options.focus)
        else:
            self._camera = None  # the memory, before the next is taken
            self._make(options)
        self._triggered = wanted.external_trigger
        return wanted

    def _make(self, options: CameraOptions) -> None:
        """The frames, and what sets their focus, where they have one."""
        focus_mm = self._focus_mm()
        if options.focus is not None:
            options = replace(options, focus=FocusOptions(start_mm=focus_mm))
        self._end_stage()
        self._camera = camera = SimulatedCamera(options)
        if options.focus is None:
            return
        name = self._options.name
        try:
            stage = FocusStage(name, options.sky, options.focus, camera.show, self._say)
        except (FPSError, OSError) as error:
            raise SourceError(f"the focus cannot be set: {error}") from None
        self._stage = stage.__enter__()

    def _focus_mm(self) -> float:
        if self._stage is not None:
            with contextlib.suppress(FPSError, OSError):
                self._last_focus_mm = self._stage.focus_mm
        return self._last_focus_mm

    def _end_stage(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.__exit__(None, None, None)

    def keywords(self) -> Keywords:
        if self._options.number is None:
            name = "Simulated"
            return {"DETECTOR": (name, "name of the detector")}
        flc_us = self._half_width_us if self._triggered else 0.0
        return {
            "DET-TMP": (DETECTOR_TEMPERATURE_K, "[K] temperature of the detector"),
            "U_FLCEN": ("#TRUE#" if flc_us > 0 else "#FALSE#", "liquid crystal (FLC) enabled"),
            "U_TRIGJT": (round(flc_us), "[us] half-width of the trigger's jitter"),
        }

    def acquire(self, sink: FrameSink, stop: Stop) -> None:
        if self._camera is None:
            raise SourceError("the simulated camera was not configured")
        self._camera.run(sink, stop, triggered=self._triggered)  # type: ignore[arg-type]

    def close(self) -> None:
        self._end_stage()
        self._camera = None

    def _camera_options(self, wanted: CameraSettings) -> CameraOptions:
        named = wanted.mode in self._instrument.modes and self._options.number is not None
        number = self._options.number
        fps = Fraction(wanted.fps).limit_denominator(_MAX_FPS_DENOMINATOR)
        jitter_us = 0.0
        if number:
            jitter_us = self._instrument.readout(wanted.readout).frame_jitter_us
        options = self._options
        starry = options.focus and options.light == "sky" and wanted.mode != "PUPIL"
        triggered = wanted.external_trigger
        return CameraOptions(
            stream=self._options.name,
            mode_or_shape=wanted.mode if named else wanted.shape,
            fps=fps,
            pattern=self._options.light,
            flc_jitter_us=self._half_width_us if triggered else 0.0,
            jitter_us=0.0 if triggered else jitter_us,
            trigger_jitter_us=jitter_us if triggered else 0.0,
            exptime_s=wanted.tint_s,
            seed=self._options.seed,
            focus=FocusOptions() if starry else None,
            readout=wanted.readout,
            number=number or 1,
            day=self._options.day,
        )

    @property
    def _half_width_us(self) -> float:
        given = self._options.flc_jitter_us
        return self._instrument.half_width_us if given is None else given


def _same_frames(one: CameraOptions, other: CameraOptions) -> bool:
    def frames(options: CameraOptions) -> CameraOptions:
        return replace(
            options,
            fps=Fraction(1),
            flc_jitter_us=0.0,
            jitter_us=0.0,
            trigger_jitter_us=0.0,
            exptime_s=None,
            focus=options.focus and FocusOptions(),
        )

    return frames(one) == frames(other)
