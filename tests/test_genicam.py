"""Cameras through Aravis: frames in order with the camera's times, settings as they are taken,
and a camera that is missing, wrong, dead or torn says so in one line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_genicam import ADDRESS, NAME, SENSOR_SHAPE, FakeCamera, fake_camera, own_network
from hypothesis import assume, given
from hypothesis import strategies as st

from vampires.camera.settings import CameraSettings, SettingRefused
from vampires.camera.source import SourceError
from vampires.camera.sources import aravis, genicam
from vampires.camera.sources.genicam import CameraClock, GenicamOptions, GenicamSource
from vampires.instrument.cameras import Crop
from vampires.stream import FrameInfo, Stream

SMALL = Crop(10, 265, 20, 147)
FAST_FPS = 200.0
S = 1_000_000_000


@pytest.fixture
def camera() -> Iterator[FakeCamera]:
    with fake_camera() as running:
        yield running


@pytest.fixture
def source(camera: FakeCamera) -> Iterator[GenicamSource]:
    with GenicamSource(camera.options()) as opened:
        yield opened


class ReadStream:
    """A stream that is read after each frame; stop is set after the last one, and at one of
    them something happens."""

    def __init__(
        self,
        source: GenicamSource,
        settings: CameraSettings,
        last: int,
        at: int = 0,
        happens: Callable[[], object] = int,
    ) -> None:
        self._stream = Stream.create("vpupcam", settings.shape, source.dtype)
        self._reader = Stream.open("vpupcam")
        with contextlib.suppress(TimeoutError):
            self._reader.read(0)  # reads from the next frame on
        self._last, self._at, self._happens = last, at, happens
        self.stop = threading.Event()
        self.frames: list[np.ndarray] = []
        self.infos: list[FrameInfo] = []
        self.acquired_ns: list[int | None] = []
        self.keywords: list[Mapping[str, Any]] = []

    @property
    def cnt0(self) -> int:
        return self._stream.cnt0

    def next_slot(self) -> np.ndarray:
        return self._stream.next_slot()

    def publish(
        self, acquired_ns: int | None = None, keywords: Mapping[str, Any] | None = None
    ) -> int:
        cnt0 = self._stream.publish(acquired_ns, keywords)
        frame, info = self._reader.read(5)
        self.frames.append(frame)
        self.infos.append(info)
        self.acquired_ns.append(acquired_ns)
        self.keywords.append(dict(keywords or {}))
        if cnt0 == self._at:
            self._happens()
        if cnt0 >= self._last:
            self.stop.set()
        return cnt0


class StopAfter:
    """A stop that is set once it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        self._left = looks

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0

    def wait(self, timeout: float | None = None) -> bool:
        raise NotImplementedError


def configured(source: GenicamSource, **values: Any) -> CameraSettings:
    """Small and fast."""
    first = source.configure(source.limits.first_settings("FULL"))
    small = source.configure(source.limits.with_crop(first, SMALL))
    fast = source.limits.with_fps(small, FAST_FPS)
    return source.configure(fast.with_values(**values))


def is_whole(frame: np.ndarray) -> bool:
    """Whether it is what the simulator shows: a ramp along the diagonal."""
    return np.array_equal(frame[:-1, 1:], frame[1:, :-1]) and len(np.unique(frame)) > 100


def description(folder: Path, *changes: tuple[str, str]) -> Path:
    """The simulator's own GenICam file with texts replaced."""
    library = ctypes.CDLL(aravis.LIBRARY)
    library.arv_fake_camera_new.restype = ctypes.c_void_p
    library.arv_fake_camera_get_genicam_xml.restype = ctypes.c_void_p
    fake, size = ctypes.c_void_p(library.arv_fake_camera_new(b"V1")), ctypes.c_size_t()
    address = library.arv_fake_camera_get_genicam_xml(fake, ctypes.byref(size))
    text = ctypes.string_at(address, size.value).decode()
    library.g_object_unref(fake)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "camera.xml"
    file.write_text(text)
    return file


# -- frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("pixel_format", "dtype"), [("Mono8", "u1"), ("Mono16", "u2")])
def test_frames_arrive_in_order_with_increasing_times_and_no_gaps(
    camera: FakeCamera, shm_dir: Path, pixel_format: str, dtype: str
) -> None:
    with GenicamSource(camera.options(pixel_format=pixel_format)) as source:
        settings = configured(source)
        assert source.dtype == np.dtype(dtype)
        stream = ReadStream(source, settings, last=100)
        began_ns = time.time_ns()
        source.acquire(stream, stream.stop)
    assert [info.cnt0 for info in stream.infos] == list(range(1, 101))
    assert [info.lost for info in stream.infos] == [0] * 100
    times = [info.acquired_ns for info in stream.infos]
    assert times == sorted(set(times))
    # The simulator's clock is that of this machine.
    assert began_ns < times[0]
    assert all(info.acquired_ns <= info.written_ns for info in stream.infos)


def test_the_pixels_are_those_of_the_camera(source: GenicamSource, shm_dir: Path) -> None:
    settings = configured(source)
    stream = ReadStream(source, settings, last=5)
    source.acquire(stream, stream.stop)
    for frame in stream.frames:
        assert frame.shape == SMALL.shape == settings.shape
        assert is_whole(frame)
    # It moves.
    assert len({int(frame[0, 0]) for frame in stream.frames}) > 1


def test_frames_have_the_camera_s_time_in_utc_also_as_a_keyword(
    source: GenicamSource, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_of, past = aravis.ImageStream._image, 0

    def timed(stream: aravis.ImageStream, buffer: int) -> aravis.Image:
        nonlocal past
        past += 1
        camera_ns = past * S // 100
        delay_ns = (past - 1) % 5 * 1_000_000  # up to a good part of a period
        arrived_ns = 1_800_000_000 * S + camera_ns + delay_ns
        return replace(image_of(stream, buffer), camera_ns=camera_ns, arrived_ns=arrived_ns)

    monkeypatch.setattr(aravis.ImageStream, "_image", timed)
    stream = ReadStream(source, configured(source), last=12)
    source.acquire(stream, stream.stop)
    due_ns = [1_800_000_000 * S + n * S // 100 for n in range(1, 13)]
    assert stream.acquired_ns == due_ns
    assert [info.acquired_ns for info in stream.infos] == due_ns
    assert [k["_MAQTIME"][0] for k in stream.keywords] == [ns // 1000 for ns in due_ns]


def test_a_slow_camera_is_not_taken_for_one_that_has_vanished(
    source: GenicamSource, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genicam, "_LEAST_SILENCE_S", 0.0)
    settings = configured(source, fps=2.0)
    stream = ReadStream(source, settings, last=3)
    source.acquire(stream, stream.stop)
    assert stream.cnt0 == 3


def test_a_source_takes_frames_again_after_other_settings(
    source: GenicamSource, shm_dir: Path
) -> None:
    settings = configured(source)
    for crop in (SMALL, Crop(0, 63, 0, 31), SMALL):
        settings = source.configure(source.limits.with_crop(settings, crop))
        stream = ReadStream(source, settings, last=5)
        source.acquire(stream, stream.stop)
        assert stream.frames[-1].shape == crop.shape


def test_a_stop_ends_a_camera_that_waits_for_its_trigger(source: GenicamSource) -> None:
    settings = configured(source, external_trigger=True)
    assert settings.external_trigger
    source.acquire(_no_frames(), StopAfter(3))
    assert not source.configure(settings.with_values(external_trigger=False)).external_trigger


def test_a_camera_may_wait_for_its_trigger_as_long_as_it_answers(
    source: GenicamSource, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genicam, "_LEAST_SILENCE_S", 0.3)
    configured(source, external_trigger=True)
    source.acquire(_no_frames(), StopAfter(15))
    camera.process.kill()
    with pytest.raises(SourceError):
        source.acquire(_no_frames(), threading.Event())


def _no_frames() -> Any:
    class NoFrames:
        """Nothing may be published."""

    return NoFrames()


def test_closing_gives_everything_back(camera: FakeCamera, shm_dir: Path) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    counts = []
    for _ in range(6):
        with GenicamSource(camera.options()) as source:
            stream = ReadStream(source, configured(source), last=3)
            source.acquire(stream, stream.stop)
        source.close()
        del stream
        counts.append(held())
    assert counts[1:] == counts[1:2] * 5  # the first has loaded the library


def test_a_simulated_camera_needs_no_network(start_python: Callable[..., Any]) -> None:
    text = """
import threading
import numpy as np
from vampires.camera.sources.genicam import GenicamOptions, GenicamSource
class Sink:
    cnt0 = 0
    def next_slot(self): return np.zeros((2048, 2048), np.uint8)
    def publish(self, acquired_ns, keywords): self.cnt0 += 1; stop.set()
sink, stop = Sink(), threading.Event()
with GenicamSource(GenicamOptions(camera_id="Fake_1", fake=True)) as source:
    source.configure(source.limits.first_settings("FULL"))
    source.acquire(sink, stop)
print(sink.cnt0)
"""
    with own_network():
        out, err = start_python(text).communicate(timeout=60)
    assert out == "1\n", err


# -- settings ---------------------------------------------------------------------------------


def test_the_limits_are_those_of_the_camera(source: GenicamSource) -> None:
    limits = source.limits
    assert limits.sensor_shape == SENSOR_SHAPE
    assert limits.modes == {"FULL": Crop(0, 2047, 0, 2047)}
    assert limits.mode_fps == {"FULL": 25.0}
    first = source.configure(limits.first_settings("FULL"))
    assert (first.mode, first.fps, first.tint_s) == ("FULL", 25.0, 0.04)
    assert source.keywords() == {"DETECTOR": ("Fake", "Name of the detector")}


def test_what_is_returned_is_what_the_camera_has(source: GenicamSource) -> None:
    settings = configured(source)
    assert settings == CameraSettings("", SMALL, 0.005, FAST_FPS)
    # The simulator's rate is a period in whole microseconds.
    odd = source.configure(source.limits.with_fps(settings, 70.0))
    assert odd.fps == pytest.approx(1e6 / 14285)
    full = source.configure(source.limits.with_mode(settings, "full"))
    assert (full.mode, full.shape) == ("FULL", SENSOR_SHAPE)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tint_s": 100.0, "fps": 0.01}, "expected 1e-05 to 10 s"),
        ({"tint_s": 1e-7}, "expected 1e-05 to 10 s"),
        ({"fps": 1e4, "tint_s": 1e-4}, "expected 0.1 to 1000 frames/s"),
        ({"crop": Crop(0, 2048, 0, 99)}, "within x 0 to 2047"),
        ({"crop": Crop(-1, 99, 0, 99)}, "within x 0 to 2047"),
        ({"crop": Crop(0, 99, 90, 80)}, "within x 0 to 2047"),
    ],
)
def test_what_the_camera_cannot_do_is_refused_and_nothing_changes(
    source: GenicamSource, shm_dir: Path, values: dict[str, Any], told: str
) -> None:
    settings = configured(source)
    with pytest.raises(SettingRefused, match=told):
        source.configure(settings.with_values(**values))
    stream = ReadStream(source, settings, last=2)
    source.acquire(stream, stream.stop)
    assert source.configure(settings) == settings


def test_windows_are_rounded_to_what_the_camera_can_have(tmp_path: Path) -> None:
    width = "<Min>1</Min>\n\t\t<pMax>SensorWidth</pMax>\n\t\t<Inc>1</Inc>"
    coarse = (width, width.replace(">1<", ">16<"))
    with (
        fake_camera(description=description(tmp_path, coarse)) as camera,
        GenicamSource(camera.options()) as source,
    ):
        first = source.configure(source.limits.first_settings("FULL"))
        wanted = source.limits.with_crop(first, Crop(10, 110, 0, 99))
        assert source.configure(wanted).crop == Crop(10, 121, 0, 99)


def test_features_that_a_camera_lacks_stay_as_they_are(tmp_path: Path) -> None:
    absent = [
        (f'Name="{feature}"', f'Name="No{feature}"')
        for feature in ("AcquisitionFrameRate", "ExposureTimeAbs", "TriggerMode")
    ]
    with (
        fake_camera(description=description(tmp_path, *absent)) as camera,
        GenicamSource(camera.options()) as source,
    ):
        first = source.configure(source.limits.first_settings("FULL"))
        other = first.with_values(fps=5.0, tint_s=0.1, external_trigger=True)
        assert source.configure(other) == first


def test_a_camera_that_measures_its_temperature_tells_it(
    tmp_path: Path, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genicam, "_TEMPERATURE_S", 0.0)
    feature = '<Float Name="DeviceTemperature"><Value>41.5</Value></Float>\n'
    before = '\t<Integer Name="SensorWidth"'
    with (
        fake_camera(description=description(tmp_path, (before, feature + before))) as camera,
        GenicamSource(camera.options()) as source,
    ):
        assert source.keywords()["DET-TMP"] == (314.65, "[K] Detector temperature")
        stream = ReadStream(source, configured(source), last=2)
        source.acquire(stream, stream.stop)
    assert stream.keywords[-1]["DET-TMP"][0] == 314.65


def test_a_long_name_of_a_camera_fits_into_its_keyword(
    camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aravis.Camera, "model", lambda _: "Flea3 FL3-U3-13Y3M")
    with GenicamSource(camera.options()) as source:
        assert source.keywords()["DETECTOR"][0] == "Flea3 FL3-U3-13"


# -- faults -----------------------------------------------------------------------------------


def test_importing_loads_no_library(start_python: Callable[..., Any]) -> None:
    text = (
        "import vampires.camera.sources.genicam\n"
        "print('aravis' in open('/proc/self/maps').read())"
    )
    assert start_python(text).communicate(timeout=60)[0] == "False\n"


def test_a_missing_library_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aravis, "LIBRARY", "libaravis-of-no-computer.so.0")
    aravis._library.cache_clear()
    try:
        with pytest.raises(SourceError, match=r"Debian package libaravis-0.8-0"):
            GenicamSource(GenicamOptions())
    finally:
        aravis._library.cache_clear()


def test_no_camera_at_all_is_told() -> None:
    with own_network(), pytest.raises(SourceError, match="cameras that answer: none"):
        GenicamSource(GenicamOptions())


def test_a_wrong_name_is_told_with_the_cameras_there_are(camera: FakeCamera) -> None:
    with pytest.raises(SourceError, match=f"'nobody' not found; .*{NAME} .*serial V1") as told:
        GenicamSource(camera.options(camera_id="nobody"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["", NAME, ADDRESS])
def test_a_camera_is_found_by_its_name_its_address_or_as_the_first(
    camera: FakeCamera, name: str
) -> None:
    aravis.find_cameras()  # what was known of another network is forgotten
    with GenicamSource(camera.options(camera_id=name)) as source:
        assert source.limits.sensor_shape == SENSOR_SHAPE


def test_a_camera_that_another_program_controls_is_told(
    camera: FakeCamera, source: GenicamSource
) -> None:
    with pytest.raises(SourceError, match="another program controls it"):
        GenicamSource(camera.options())


@pytest.mark.parametrize("pixel_format", ["Mono12Packed", "Mono12", "RGB8", "nonsense"])
def test_a_pixel_format_that_cannot_be_read_is_refused_with_those_that_can(
    camera: FakeCamera, pixel_format: str
) -> None:
    with pytest.raises(SourceError, match=rf"{pixel_format}.*\(Mono8, Mono16\)"):
        GenicamSource(camera.options(pixel_format=pixel_format))


def test_a_trigger_input_that_is_not_there_is_refused(camera: FakeCamera) -> None:
    with pytest.raises(SourceError, match=r"'Line7' .* expected one of Line0"):
        GenicamSource(camera.options(trigger_source="Line7"))


def test_an_error_of_the_library_is_raised_with_its_words(camera: FakeCamera) -> None:
    opened = aravis.Camera(ADDRESS)
    with opened, pytest.raises(aravis.AravisError, match=r"NoSuchFeature.* Not found"):
        opened.get_float("NoSuchFeature")
    with pytest.raises(aravis.AravisError, match="closed"):
        opened.model()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_camera_that_dies_or_stands_still_ends_the_acquisition(
    camera: FakeCamera, shm_dir: Path, number: signal.Signals
) -> None:
    with GenicamSource(camera.options()) as source:
        fault = lambda: camera.process.send_signal(number)  # noqa: E731
        stream = ReadStream(source, configured(source), last=10**6, at=20, happens=fault)
        with pytest.raises(SourceError, match="vanished"):
            source.acquire(stream, stream.stop)
    assert stream.cnt0 >= 20


def test_a_camera_that_dies_before_it_is_set_is_told(camera: FakeCamera) -> None:
    with GenicamSource(camera.options()) as source:
        settings = configured(source)
        camera.process.kill()
        with pytest.raises(SourceError, match=r"cannot be set: .*; is it plugged in"):
            source.configure(settings)


def test_torn_frames_are_counted_and_not_published(shm_dir: Path) -> None:
    with (
        fake_camera(lost_per_thousand=5) as camera,
        GenicamSource(camera.options()) as source,
    ):
        stream = ReadStream(source, configured(source), last=100)
        source.acquire(stream, stream.stop)
    assert source.torn > 0
    assert [info.cnt0 for info in stream.infos] == list(range(1, 101))
    assert all(is_whole(frame) for frame in stream.frames)


def test_frames_that_never_came_are_counted_as_lost(
    source: GenicamSource, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_of, past = aravis.ImageStream._image, 0

    def numbered(stream: aravis.ImageStream, buffer: int) -> aravis.Image:
        nonlocal past
        past += 1
        jump = 3 if past > 10 else 0
        image = image_of(stream, buffer)
        # As if the camera counted from 1.
        return replace(image, number=past + jump)

    monkeypatch.setattr(aravis.ImageStream, "_image", numbered)
    stream = ReadStream(source, configured(source), last=20)
    source.acquire(stream, stream.stop)
    assert source.lost == 3


def test_a_frame_of_another_size_is_torn(
    source: GenicamSource, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = iter([{"width": 255}, {"height": 129}, {"bytes": 32767}, {"pixel_format": 1}])
    image_of = aravis.ImageStream._image
    monkeypatch.setattr(
        aravis.ImageStream,
        "_image",
        lambda stream, buffer: replace(image_of(stream, buffer), **next(wrong, {})),
    )
    stream = ReadStream(source, configured(source), last=5)
    source.acquire(stream, stream.stop)
    assert source.torn >= 4
    assert all(is_whole(frame) for frame in stream.frames)


def test_a_camera_of_which_no_frame_is_whole_says_what_to_do(shm_dir: Path) -> None:
    with (
        fake_camera(lost_per_thousand=500) as camera,
        GenicamSource(camera.options()) as source,
    ):
        stream = ReadStream(source, configured(source), last=1)
        with pytest.raises(SourceError, match=r"none was whole .*packet_size"):
            source.acquire(stream, stream.stop)
    assert source.torn > 0


def test_a_camera_that_came_back_can_be_opened_again(shm_dir: Path) -> None:
    with fake_camera() as camera, GenicamSource(camera.options()):
        camera.process.kill()
    with fake_camera() as camera, GenicamSource(camera.options()) as source:
        stream = ReadStream(source, configured(source), last=3)
        source.acquire(stream, stream.stop)
    assert stream.cnt0 == 3


# -- what needs no camera ---------------------------------------------------------------------


@given(
    sensor=st.integers(64, 5000),
    first=st.integers(0, 4999),
    size=st.integers(1, 5000),
    steps=st.builds(
        aravis.Steps,
        offset=st.sampled_from([0, 1, 2, 4, 8]),
        least=st.sampled_from([1, 4, 32, 64]),
        size=st.sampled_from([1, 2, 4, 16]),
    ),
)
def test_a_rounded_window_lies_on_the_sensor_and_covers_what_it_can(
    sensor: int, first: int, size: int, steps: aravis.Steps
) -> None:
    last = first + size - 1
    assume(last < sensor)
    start, rounded = genicam.rounded_span(first, last, sensor, 0, steps)
    assert 0 <= start <= first
    assert steps.least <= rounded <= sensor - start
    assert (rounded - steps.least) % steps.size == 0
    assert start % steps.offset == 0 if steps.offset else start == 0
    assert start + rounded > last or start + rounded + steps.size > sensor
    assert rounded == steps.least or start + rounded - steps.size <= last


@pytest.mark.parametrize(
    ("before", "number", "missing"),
    [
        (None, 7, 0),
        (7, 8, 0),
        (7, 10, 2),
        (7, 7, 0),
        (65535, 1, 0),
        (65534, 3, 3),
        (1000, 998, 0),
        (10**9, 1, 0),
    ],
)
def test_missing_frames_are_counted_over_the_end_of_short_numbers(
    before: int | None, number: int, missing: int
) -> None:
    assert genicam.frames_missing(before, number) == missing


@given(
    delays_us=st.lists(st.integers(0, 3000), min_size=50, max_size=50),
    ppm=st.integers(-50, 50),
)
def test_times_have_the_evenness_of_the_camera_whatever_the_delays(
    delays_us: list[int], ppm: int
) -> None:
    clock, period_ns, start_ns = CameraClock(), S // 100, 1_800_000_000 * S
    before_ns = 0
    for frame in range(1000):
        camera_ns = 5 * S + frame * period_ns * (1_000_000 + ppm) // 1_000_000
        true_ns = start_ns + frame * period_ns
        delay_ns = delays_us[frame % 50] * 1000
        time_ns = clock.utc_ns(camera_ns, true_ns + delay_ns)
        assert time_ns > before_ns
        before_ns = time_ns
        if frame >= 50:
            assert abs(time_ns - true_ns - min(delays_us) * 1000) < 300_000


def test_a_camera_without_a_clock_has_the_times_of_arrival() -> None:
    clock = CameraClock()
    assert [clock.utc_ns(0, ns) for ns in (10, 30, 20)] == [10, 30, 20]


@pytest.mark.parametrize(
    ("camera_s", "arrived_s"),
    [(1, 100), (20, 90), (20, 500)],
    ids=["camera restarted", "clock of the host set back", "clock of the host set forward"],
)
def test_a_clock_that_was_set_is_followed_at_once(camera_s: int, arrived_s: int) -> None:
    clock = CameraClock()
    assert clock.utc_ns(10 * S, 99 * S) == 99 * S
    assert clock.utc_ns(11 * S, 100 * S) == 100 * S
    assert clock.utc_ns(camera_s * S, arrived_s * S) == arrived_s * S
