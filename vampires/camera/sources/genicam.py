"""The frame source `genicam`: cameras on USB3 Vision or GigE Vision, through Aravis.

The pupil camera is one. What of the settings a camera does not have stays as it is; sizes are
rounded to what it can do, and what it says it has taken is what counts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vampires.camera.settings import DEFAULT_FPS, CameraLimits, CameraSettings, SettingRefused
from vampires.camera.source import FrameSink, FrameSource, Keywords, SourceError
from vampires.camera.sources import aravis
from vampires.instrument.cameras import Crop
from vampires.stop_request import Stop

# Whole bytes for each pixel; packed ones (Mono12Packed, Mono12p) would have to be taken apart.
PIXEL_TYPES: dict[str, np.dtype] = {
    "Mono8": np.dtype(np.uint8),
    "Mono10": np.dtype(np.uint16),
    "Mono12": np.dtype(np.uint16),
    "Mono14": np.dtype(np.uint16),
    "Mono16": np.dtype(np.uint16),
}
FULL = "FULL"
_POLL_S = 0.1  # a stop is seen after it
_LEAST_SILENCE_S = 2.0
_SILENT_FRAMES = 5
_TEMPERATURE_S = 10.0  # between two looks at the temperature
_TEMPERATURE = "DeviceTemperature"
_ZERO_CELSIUS_K = 273.15
_TEXT_LENGTH = 15  # of a stream keyword
_MAQTIME_COMMENT = "[us] acquisition time of the frame, Unix time"
_NS_PER_S = 1_000_000_000
_CLOCK_WINDOW_NS = 2 * _NS_PER_S
_CLOCK_STEP_NS = _NS_PER_S // 2
_LAST_SHORT_NUMBER = 0xFFFF  # GigE Vision 1 counts from 1 to this and begins again
_ROUNDING = 1e-6  # of a time or rate that went through the camera's units and back


@dataclass(frozen=True)
class GenicamOptions:
    """Which camera, and how it is read.

    camera_id: name, serial number or network address; "" the first one found. pixel_format:
    one of PIXEL_TYPES, "" as the camera has it. packet_size: bytes of a network packet, None
    finds it out. packet_socket: packets are taken past the network stack. buffers: frames that
    may wait. trigger_source: input of the external trigger, "" the first. fake: the camera
    Fake_1, which Aravis simulates.
    """

    camera_id: str = ""
    pixel_format: str = ""
    packet_size: int | None = None
    packet_socket: bool = True
    buffers: int = 16
    trigger_source: str = ""
    fake: bool = False


class CameraClock:
    """From the time stamps of a camera to UTC.

    A camera counts ns from a moment of its own, evenly; the host's clock knows UTC, but a
    frame comes to it late by a delay that scatters. The difference of both times is least for
    the frames that were delayed least: the least one of the last 2 to 4 s is what is added to
    the camera's time. So times have the evenness of the camera, and are late by the shortest
    way from its time stamp to the arrival of the first data (for most cameras exposure or
    readout, and the transfer of a packet). A camera without a clock has the times of arrival.
    """

    def __init__(self) -> None:
        self._forget()
        self._camera_ns = 0

    def _forget(self) -> None:
        self._window_end_ns = 0
        self._least_now: float = math.inf
        self._least_before: float = math.inf
        self._last_ns = 0

    def utc_ns(self, camera_ns: int, arrived_ns: int) -> int:
        """Time of a frame, ns since 1970 UTC: later than that of the frame before, unless
        one of the clocks was set meanwhile. camera_ns 0: the camera has none."""
        difference = arrived_ns - camera_ns
        stands = camera_ns <= self._camera_ns
        known = min(self._least_now, self._least_before)
        if stands or abs(difference - known) > _CLOCK_STEP_NS:
            self._forget()
        self._camera_ns = camera_ns
        if stands and camera_ns == 0:
            return arrived_ns
        if arrived_ns >= self._window_end_ns:
            self._least_before, self._least_now = self._least_now, math.inf
            self._window_end_ns = arrived_ns + _CLOCK_WINDOW_NS
        self._least_now = min(self._least_now, difference)
        offset_ns = int(min(self._least_now, self._least_before))
        self._last_ns = max(camera_ns + offset_ns, self._last_ns + 1)
        return self._last_ns


def frames_missing(before: int | None, number: int) -> int:
    """How many frames a camera has counted between two that came. before: None, none came."""
    if before is None or number == before:
        return 0
    if number > before:
        return number - before - 1
    begins_again = before <= _LAST_SHORT_NUMBER and number >= 1
    if begins_again and before - number > _LAST_SHORT_NUMBER // 2:
        return _LAST_SHORT_NUMBER - before + number - 1
    return 0  # the camera counts from another number on


def rounded_span(
    first: int, last: int, sensor: int, now_first: int, steps: aravis.Steps
) -> tuple[int, int]:
    """First pixel and size that a camera can have: of the pixels first to last all, and as few
    others as possible, within the sensor. now_first: where it begins if it cannot be moved."""
    if steps.offset:
        highest = max(min(first, sensor - steps.least), 0)
        start = highest // steps.offset * steps.offset
    else:
        start = now_first
    wanted = max(last + 1 - start, 1)
    largest = steps.least + (sensor - start - steps.least) // steps.size * steps.size
    count = -(-(wanted - steps.least) // steps.size)
    return start, min(steps.least + max(count, 0) * steps.size, largest)


class GenicamSource(FrameSource):
    """A camera that Aravis has opened; no other program can control it meanwhile.

    lost: frames that the camera has counted and that never came; torn: frames that came with
    parts missing. Neither is published; both count from the making of the source.
    """

    def __init__(self, options: GenicamOptions) -> None:
        """Raises SourceError: no library, no such camera, no such pixel format."""
        self._options = options
        self._settings: CameraSettings | None = None
        self._name = f"camera {options.camera_id!r}" if options.camera_id else "the camera"
        self.lost = 0
        self.torn = 0
        self._camera = _opened(options)
        try:
            with self._source_errors("opened"):
                self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._camera.close()

    @property
    def limits(self) -> CameraLimits:
        return self._limits

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    @contextlib.contextmanager
    def _source_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except aravis.AravisError as error:
            raise SourceError(
                f"{self._name} cannot be {doing}: {error}; is it plugged in and powered, and "
                "no other program using it?"
            ) from None

    # -- opening ------------------------------------------------------------------------------

    def _prepare(self) -> None:
        camera, options = self._camera, self._options
        with contextlib.suppress(aravis.AravisError):  # not all can be stopped when they stand
            camera.stop()  # one left running by a program that was killed
        self._model = camera.model()
        self._name = f"{camera.vendor()} {self._model} {camera.serial()}".strip()
        camera.set_network(options.packet_size, options.packet_socket)
        camera.end_automatics()
        self._choose_pixel_format()
        self._trigger_source = self._chosen_trigger()
        self._has_temperature = camera.has(_TEMPERATURE)
        self._limits = self._read_limits()

    def _choose_pixel_format(self) -> None:
        offered = self._camera.pixel_formats()
        wanted = self._options.pixel_format or self._camera.pixel_format()
        if wanted not in PIXEL_TYPES or wanted not in offered:
            possible = ", ".join(name for name in PIXEL_TYPES if name in offered) or "none"
            raise SourceError(
                f"no pixel format {wanted!r} of {self._name}: expected one that the camera has "
                f"and that is not packed ({possible}) as pixel_format"
            )
        if wanted != self._camera.pixel_format():
            self._camera.set_pixel_format(wanted)
        self._dtype = PIXEL_TYPES[wanted]
        self._pixel_code = self._camera.pixel_format_code()

    def _chosen_trigger(self) -> str:
        """Input of the external trigger; "" when the camera has none."""
        sources = [name for name in self._camera.trigger_sources() if name != "Software"]
        wanted = self._options.trigger_source
        if wanted and wanted not in sources:
            raise SourceError(
                f"no trigger input {wanted!r} of {self._name}: expected one of "
                f"{', '.join(sources) or '(it has none)'} as trigger_source"
            )
        return wanted or (sources[0] if sources else "")

    def _read_limits(self) -> CameraLimits:
        camera = self._camera
        width, height = camera.sensor_size()
        fps = camera.frame_rate() if camera.has_frame_rate() else DEFAULT_FPS
        least = camera.exposure_time_bounds_s()[0] if camera.has_exposure_time() else None
        return CameraLimits(
            sensor_shape=(height, width),
            modes={FULL: Crop(0, width - 1, 0, height - 1)},
            mode_fps={FULL: fps},
            min_tint_s=None if least is None else {"FAST": least},
        )

    # -- settings -----------------------------------------------------------------------------

    def configure(self, wanted: CameraSettings) -> CameraSettings:
        """See FrameSource. What is asked for is refused when the camera has no such thing;
        what only follows from it (a rate that a longer exposure does not allow) is fitted."""
        self._limits.with_crop(wanted, wanted.crop)
        with self._source_errors("set"):
            try:
                self._settings = self._set(wanted)
            except SettingRefused:
                if self._settings is not None:
                    self._set(self._settings)
                raise
        return self._settings

    def _set(self, wanted: CameraSettings) -> CameraSettings:
        camera = self._camera
        if self._trigger_source:
            camera.clear_triggers()
        crop = self._set_window(wanted.crop)
        # The longest exposure time follows from the rate, and the highest rate from it.
        if camera.has_frame_rate():
            camera.set_frame_rate(camera.frame_rate_bounds()[0])
        tint_s = self._set_tint(wanted)
        fps = self._set_fps(wanted)
        external = wanted.external_trigger and bool(self._trigger_source)
        if external:
            camera.set_trigger(self._trigger_source)
        named = [name for name, window in self._limits.modes.items() if window == crop]
        return CameraSettings(
            mode=named[0] if named else "",
            crop=crop,
            tint_s=tint_s,
            fps=fps,
            external_trigger=external,
        )

    def _set_window(self, wanted: Crop) -> Crop:
        camera = self._camera
        ny, nx = self._limits.sensor_shape
        now = camera.region()
        x, width = rounded_span(wanted.x0, wanted.x1, nx, now.x, camera.x_steps())
        y, height = rounded_span(wanted.y0, wanted.y1, ny, now.y, camera.y_steps())
        camera.set_region(aravis.Region(x, y, width, height))
        taken = camera.region()
        return Crop(taken.x, taken.x + taken.width - 1, taken.y, taken.y + taken.height - 1)

    def _set_tint(self, wanted: CameraSettings) -> float:
        if not self._camera.has_exposure_time():
            return self._settings.tint_s if self._settings else wanted.tint_s
        bounds = self._camera.exposure_time_bounds_s()
        asked = _is_tint_asked(self._settings, wanted)
        tint_s = _within(wanted.tint_s, bounds, asked, "exposure time", "s")
        self._camera.set_exposure_time_s(tint_s)
        return self._camera.exposure_time_s()

    def _set_fps(self, wanted: CameraSettings) -> float:
        if not self._camera.has_frame_rate():
            return self._settings.fps if self._settings else wanted.fps
        bounds = self._camera.frame_rate_bounds()
        asked = _is_fps_asked(self._settings, wanted)
        fps = _within(wanted.fps, bounds, asked, "rate", "frames/s")
        self._camera.set_frame_rate(fps)
        return self._camera.frame_rate()

    def keywords(self) -> Keywords:
        """DETECTOR, and DET-TMP of a camera that measures its temperature."""
        with self._source_errors("read"):
            model = self._model[:_TEXT_LENGTH]
            return {"DETECTOR": (model, "Name of the detector"), **self._temperature()}

    def _temperature(self) -> Keywords:
        if not self._has_temperature:
            return {}
        kelvin = self._camera.get_float(_TEMPERATURE) + _ZERO_CELSIUS_K
        return {"DET-TMP": (round(kelvin, 2), "[K] Detector temperature")}

    # -- frames -------------------------------------------------------------------------------

    def acquire(self, sink: FrameSink, stop: Stop) -> None:
        """See FrameSource. Times are those of CameraClock. A camera that has vanished, or
        sends nothing whole for the longer of 2 s and five frames, is a SourceError; one with
        external trigger may be silent as long as it answers."""
        with self._source_errors("read"):
            stream = self._camera.open_stream(self._options.buffers)
            with stream, self._running():
                self._publish_all(stream, sink, stop)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        self._camera.start()
        try:
            yield
        except (aravis.AravisError, _Vanished):
            raise  # a stop would wait for a camera that does not answer
        except BaseException:
            with contextlib.suppress(aravis.AravisError):  # the first error is the one told
                self._camera.stop()
            raise
        self._camera.stop()

    def _publish_all(self, stream: aravis.ImageStream, sink: FrameSink, stop: Stop) -> None:
        assert self._settings is not None
        shape, clock = self._settings.shape, CameraClock()
        number: int | None = None
        torn_before = self.torn
        silence = _Silence(self._settings, self.torn)
        temperature_due_s = time.monotonic() + _TEMPERATURE_S
        while not stop.is_set():
            with stream.next_image(_POLL_S) as image:
                if image is None:
                    self._check_silence(silence)
                    continue
                pixels = self._whole(image, shape)
                if pixels is None:
                    self.torn += 1
                    self._check_silence(silence, image)
                    continue
                missing = frames_missing(number, image.number)
                self.lost += max(missing - (self.torn - torn_before), 0)
                number, torn_before = image.number, self.torn
                np.copyto(sink.next_slot(), pixels)
                acquired_ns = clock.utc_ns(image.camera_ns, image.arrived_ns)
            keywords: Keywords = {"_MAQTIME": (acquired_ns // 1000, _MAQTIME_COMMENT)}
            if self._has_temperature and time.monotonic() >= temperature_due_s:
                temperature_due_s = time.monotonic() + _TEMPERATURE_S
                keywords |= self._temperature()
            sink.publish(acquired_ns, keywords)
            silence.ended(self.torn)

    def _whole(self, image: aravis.Image, shape: tuple[int, int]) -> np.ndarray | None:
        if image.status != aravis.STATUS_SUCCESS or image.pixel_format != self._pixel_code:
            return None
        pixels = image.pixels(self._dtype)
        return pixels if pixels is not None and pixels.shape == shape else None

    def _check_silence(self, silence: _Silence, torn: aravis.Image | None = None) -> None:
        if self._camera.control_lost:
            raise _Vanished(
                f"{self._name} has vanished: it does not answer any more; check its cable and "
                "its power"
            )
        if not silence.too_long():
            return
        if torn is not None or self.torn > silence.torn_before:
            text = aravis.STATUS_TEXTS.get(torn.status, "other size") if torn else "see `torn`"
            raise SourceError(
                f"{self._name} sent {self.torn - silence.torn_before} frames in "
                f"{silence.limit_s:g} s and none was whole ({text}): on a network, lower "
                "packet_size (1400) or set packet_socket = false; on USB, lower the rate"
            )
        if silence.external_trigger:
            self._camera.region()  # it answers
            silence.ended(self.torn)
            return
        raise _Vanished(
            f"{self._name} sent no frame for {silence.limit_s:g} s: it has vanished or stands "
            "still; check its cable and its power"
        )


class _Vanished(SourceError):
    """The camera does not answer any more."""


class _Silence:
    """How long there was no whole frame."""

    def __init__(self, settings: CameraSettings, torn: int) -> None:
        frame_s = settings.tint_s + 1 / settings.fps
        self.limit_s = max(_LEAST_SILENCE_S, _SILENT_FRAMES * frame_s)
        self.external_trigger = settings.external_trigger
        self.ended(torn)

    def ended(self, torn: int) -> None:
        """It begins again. torn: how many torn frames there were until now."""
        self.torn_before = torn
        self._since_s = time.monotonic()

    def too_long(self) -> bool:
        return time.monotonic() - self._since_s > self.limit_s


def _is_tint_asked(before: CameraSettings | None, wanted: CameraSettings) -> bool:
    """Whether somebody wants this exposure time, which is not what a window or a higher rate
    has brought with it."""
    if before is None or before.crop != wanted.crop or before.tint_s == wanted.tint_s:
        return False
    return not (wanted.fps > before.fps and wanted.tint_s == 1 / wanted.fps)


def _is_fps_asked(before: CameraSettings | None, wanted: CameraSettings) -> bool:
    """Whether somebody wants this rate, which is not what a window or a longer exposure has
    brought with it."""
    if before is None or before.crop != wanted.crop or before.fps == wanted.fps:
        return False
    return wanted.tint_s <= before.tint_s


def _within(
    value: float, bounds: tuple[float, float], asked: bool, what: str, unit: str
) -> float:
    """The value, moved to what is possible; asked: SettingRefused if it is not possible."""
    least, most = bounds
    if asked and not least * (1 - _ROUNDING) <= value <= most * (1 + _ROUNDING):
        raise SettingRefused(
            f"no {what} of {value:g} {unit}: expected {least:g} to {most:g} {unit} of this "
            "camera as it is set"
        )
    return min(max(value, least), most)


def _opened(options: GenicamOptions) -> aravis.Camera:
    try:
        if options.fake:
            aravis.enable_fake_camera()
        return aravis.Camera(options.camera_id)
    except aravis.AravisMissing as error:
        raise SourceError(str(error)) from None
    except aravis.AravisError as error:
        there = ", ".join(map(str, aravis.find_cameras()))
        which = f"camera {options.camera_id!r}" if options.camera_id else "a camera"
        raise SourceError(
            f"cannot open {which}: {error}; cameras that answer: {there or 'none'}; expected "
            "one of them, not in use by another program, as camera_id"
        ) from None
