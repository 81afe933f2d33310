"""Recorded cubes as a camera: every frame, in order, at its time; faults in one line."""

from __future__ import annotations

import os
import subprocess
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from pixel_cubes import FIRST_NS, pixel_cube, some_pixels

from vampires.camera.settings import plain_camera, science_camera
from vampires.camera.source import SourceError
from vampires.camera.sources.replay import ReplayOptions, ReplaySource
from vampires.fits_cards import keyword_dictionary
from vampires.frame_table import FRAME_DTYPE, frames_hdu
from vampires.instrument.file import instrument_on
from vampires.keywords import encode_keyword
from vampires.stream import Stream
from vampires.times import SECOND_NS

NOW_NS = 1_795_337_618_000_000_000
INTERVAL_NS = 20_000_000  # of pixel_cube: 50 Hz
DELAY_NS = 5_000_000


class Clock:
    """A clock that moves when someone sleeps or waits. It is also what tells to stop."""

    def __init__(self) -> None:
        self.ns = NOW_NS
        self.stopped = False

    def now_ns(self) -> int:
        return self.ns

    def sleep_until_ns(self, time_ns: int) -> None:
        self.ns = max(self.ns, time_ns)

    def is_set(self) -> bool:
        return self.stopped

    def wait(self, timeout: float | None = None) -> bool:
        self.ns += round((timeout or 0) * SECOND_NS)
        return self.stopped


class Sink:
    """Stands for a stream: keeps what is published, and says stop after so many frames."""

    def __init__(self, source: ReplaySource, clock: Clock, frames: int | None = None) -> None:
        settings = source.configure(
            source.limits.first_settings(next(iter(source.limits.modes)))
        )
        self._slot = np.zeros(settings.shape, source.dtype)
        self._clock = clock
        self._stop_after = frames
        self.frames: list[np.ndarray] = []
        self.acquired_ns: list[int] = []
        self.keywords: list[dict] = []

    @property
    def cnt0(self) -> int:
        return len(self.acquired_ns)

    def next_slot(self) -> np.ndarray:
        return self._slot

    def publish(self, acquired_ns=None, keywords=None) -> int:
        assert acquired_ns <= self._clock.ns
        self.keep(self._slot.copy())
        self.acquired_ns.append(acquired_ns)
        self.keywords.append(keywords)
        self._clock.stopped = self.cnt0 == self._stop_after
        return self.cnt0

    def keep(self, frame: np.ndarray) -> None:
        self.frames.append(frame)

    @property
    def intervals_ns(self) -> list[int]:
        return np.diff(self.acquired_ns).tolist()

    @property
    def recorded_us(self) -> list[int]:
        return [keywords["_REPLAYT"][0] for keywords in self.keywords]


def replay(path: Path, clock: Clock | None = None, **options) -> ReplaySource:
    clock = clock or Clock()
    return ReplaySource(
        ReplayOptions(path, **options),
        now_ns=clock.now_ns,
        sleep_until_ns=clock.sleep_until_ns,
    )


def replayed(path: Path, frames: int | None = None, **options) -> Sink:
    """What is published of a path: so many frames, or all of them once."""
    clock = Clock()
    with replay(path, clock, loop=frames is not None, **options) as source:
        sink = Sink(source, clock, frames)
        source.acquire(sink, clock)
    return sink


def plain_cube(path: Path, pixels: np.ndarray, **keywords) -> Path:
    """A cube of no logger: no table."""
    hdu = fits.PrimaryHDU(pixels)
    for name, value in keywords.items():
        hdu.header[name.replace("__", "-")] = value
    hdu.writeto(path)
    return path


def set_keyword(path: Path, name: str, value: object) -> None:
    fits.setval(path, name, value=value)


# Frames and times


def test_frames_come_in_order_at_their_recorded_times(tmp_path):
    pixels = [some_pixels(5, seed=1), some_pixels(5, seed=2)]
    second_ns = FIRST_NS + 4 * INTERVAL_NS + 30_000_000
    pixel_cube(tmp_path, pixels[1], first_ns=second_ns)
    pixel_cube(tmp_path, pixels[0])
    sink = replayed(tmp_path)
    np.testing.assert_array_equal(sink.frames, np.concatenate(pixels))
    assert sink.acquired_ns[0] == NOW_NS + DELAY_NS
    expected_ns = [INTERVAL_NS] * 4 + [30_000_000] + [INTERVAL_NS] * 4
    assert sink.intervals_ns == expected_ns
    recorded_ns = [first + k * INTERVAL_NS for first in (FIRST_NS, second_ns) for k in range(5)]
    assert sink.recorded_us == [time_ns // 1000 for time_ns in recorded_ns]
    assert [given["_MAQTIME"][0] for given in sink.keywords] == [
        time_ns // 1000 for time_ns in sink.acquired_ns
    ]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "float32", "int32", "float64"])
def test_pixels_keep_their_type(tmp_path, dtype):
    pixels = some_pixels(2, dtype=dtype)
    sink = replayed(pixel_cube(tmp_path, pixels))
    assert sink.frames[0].dtype == dtype
    np.testing.assert_array_equal(sink.frames, pixels)


def test_a_given_rate_replaces_the_recorded_times(tmp_path):
    pixel_cube(tmp_path, some_pixels(3))
    pixel_cube(tmp_path, some_pixels(3), first_ns=FIRST_NS + 3600 * SECOND_NS)
    sink = replayed(tmp_path, fps=400.0)
    assert sink.intervals_ns == [2_500_000] * 5


def test_a_loop_begins_again_without_a_pause(tmp_path):
    pixels = some_pixels(3)
    sink = replayed(pixel_cube(tmp_path, pixels), frames=8)
    np.testing.assert_array_equal(sink.frames, pixels[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert sink.intervals_ns == [INTERVAL_NS] * 7


@pytest.mark.parametrize(
    ("gap_ns", "expected_ns"),
    [
        (5 * SECOND_NS, 5 * SECOND_NS),
        (5 * SECOND_NS + 1, SECOND_NS),
        (3600 * SECOND_NS, SECOND_NS),
    ],
)
def test_a_long_gap_between_files_is_shortened(tmp_path, gap_ns, expected_ns):
    pixel_cube(tmp_path, some_pixels(2))
    pixel_cube(tmp_path, some_pixels(2), first_ns=FIRST_NS + INTERVAL_NS + gap_ns)
    assert replayed(tmp_path).intervals_ns == [INTERVAL_NS, expected_ns, INTERVAL_NS]


def test_a_file_older_than_the_one_before_follows_after_a_second(tmp_path):
    pixel_cube(tmp_path, some_pixels(2)).rename(tmp_path / "vcam1_b.fits")
    pixel_cube(tmp_path, some_pixels(2), first_ns=FIRST_NS + SECOND_NS).rename(
        tmp_path / "vcam1_a.fits"
    )
    assert replayed(tmp_path).intervals_ns == [INTERVAL_NS, SECOND_NS, INTERVAL_NS]


def test_times_within_a_file_that_cannot_be_do_not_stop_it(tmp_path):
    rows = np.zeros(4, FRAME_DTYPE)
    rows["TACQ"] = FIRST_NS + np.array([0, 10, 3, 13]) * 1_000_000
    rows["TACQ"][3] = np.iinfo(np.int64).max
    path = plain_cube(tmp_path / "a.fits", some_pixels(4), FRATE=100.0)
    path.write_bytes(path.read_bytes() + frames_hdu(rows))
    assert replayed(path).intervals_ns == [10_000_000] * 3


def test_without_a_table_the_times_are_those_of_the_sidecar(tmp_path):
    pixels = some_pixels(4)
    sidecar = pixel_cube(tmp_path / "logged", pixels).with_suffix(".txt")
    path = plain_cube(tmp_path / "a.fits", pixels, FRATE=7.0)
    path.with_suffix(".txt").write_bytes(sidecar.read_bytes())
    sink = replayed(path)
    assert sink.intervals_ns == [INTERVAL_NS] * 3
    assert sink.recorded_us == [(FIRST_NS + k * INTERVAL_NS) // 1000 for k in range(4)]


@pytest.mark.parametrize(
    "sidecar",
    [None, b"", b"# col1\n0 1\n", b"0 1 0.0 1.0 5.5 1 1\n", b"\xff\xfe", b"0 1 0 1 x 1 1\n" * 3,
     b"0 1 0 1 0.000000 1 1\n" * 3, b"0 1 0 1 -5.000000 1 1\n" * 3],
)  # fmt: skip
def test_without_times_the_header_tells_the_rate(tmp_path, sidecar):
    path = plain_cube(tmp_path / "a.fits", some_pixels(3), FRATE=250.0)
    if sidecar is not None:
        path.with_suffix(".txt").write_bytes(sidecar)
    sink = replayed(path)
    assert sink.intervals_ns == [4_000_000] * 2
    assert sink.recorded_us == [0, 0, 0]


def test_the_measured_rate_is_better_than_the_one_asked_for(tmp_path):
    path = plain_cube(tmp_path / "a.fits", some_pixels(3), FRATE=250.0, MFRATE=200.0)
    assert replayed(path).intervals_ns == [5_000_000] * 2


def test_compressed_cubes_are_replayed_with_their_times(tmp_path):
    pixels = some_pixels(4, shape=(32, 40))
    path = pixel_cube(tmp_path / "archive", pixels)
    subprocess.run(["fpack", "-D", "-Y", str(path)], check=True)
    assert [entry.suffix for entry in sorted(path.parent.iterdir())] == [".fz", ".txt"]
    for where in (path.parent, path.with_name(path.name + ".fz")):
        sink = replayed(where)
        np.testing.assert_array_equal(sink.frames, pixels)
        assert sink.frames[0].dtype == np.uint16
        assert sink.intervals_ns == [INTERVAL_NS] * 3


def test_a_cube_beside_its_archive_is_replayed_once(tmp_path):
    path = pixel_cube(tmp_path, some_pixels(3, shape=(32, 40)))
    subprocess.run(["fpack", str(path)], check=True)
    (tmp_path / ".vcam1_hidden.fits").write_bytes(b"being written")
    assert len(replayed(tmp_path).frames) == 3


def test_a_late_replay_catches_up_but_not_more_than_a_second(tmp_path):
    path = pixel_cube(tmp_path, some_pixels(6))
    late_ns = {2: 3 * INTERVAL_NS // 2, 4: 10 * SECOND_NS}
    clock = Clock()
    with replay(path, clock, loop=False) as source:
        sink = Sink(source, clock)
        sink.keep = lambda frame: setattr(  # a stream that holds the camera up
            clock, "ns", clock.ns + late_ns.get(sink.cnt0, 0)
        )
        source.acquire(sink, clock)
    assert sink.intervals_ns[:4] == [INTERVAL_NS] * 4
    assert sink.intervals_ns[4] > 10 * SECOND_NS
    assert clock.ns - sink.acquired_ns[-1] < SECOND_NS


def test_after_a_pause_it_goes_on_with_the_next_frame(tmp_path):
    pixels = some_pixels(5)
    path = pixel_cube(tmp_path, pixels)
    clock = Clock()
    with replay(path, clock, loop=False) as source:
        first = Sink(source, clock, frames=2)
        source.acquire(first, clock)
        clock.stopped = False
        clock.ns += 60 * SECOND_NS
        second = Sink(source, clock)
        source.acquire(second, clock)
        source.acquire(second, clock)  # no frames are left
    np.testing.assert_array_equal(first.frames + second.frames, pixels)
    assert second.acquired_ns[0] == first.acquired_ns[-1] + 60 * SECOND_NS + DELAY_NS


def test_a_stop_while_waiting_loses_no_frame(tmp_path):
    pixels = some_pixels(3)
    clock = Clock()
    with replay(pixel_cube(tmp_path, pixels), clock, fps=1.0, loop=False) as source:
        sink = Sink(source, clock)
        wait = clock.wait
        clock.wait = lambda timeout=None: setattr(clock, "stopped", True) or wait(timeout)
        source.acquire(sink, clock)
        assert len(sink.frames) == 1
        clock.wait, clock.stopped = wait, False
        source.acquire(sink, clock)
    np.testing.assert_array_equal(sink.frames, pixels)


def test_memory_is_that_of_a_few_frames(tmp_path):
    pixels = some_pixels(60, shape=(128, 256))
    path, frame_bytes = pixel_cube(tmp_path, pixels), pixels[0].nbytes
    del pixels
    clock = Clock()
    with replay(path, clock, loop=False) as source:
        sink = Sink(source, clock)
        sink.keep = lambda frame: None
        tracemalloc.start()
        try:
            source.acquire(sink, clock)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert sink.cnt0 == 60
    assert peak_bytes < 8 * frame_bytes


def test_one_file_is_open_at_a_time_and_none_after_closing(tmp_path):
    for number in range(4):
        pixel_cube(tmp_path, some_pixels(2), first_ns=FIRST_NS + number * SECOND_NS)
    before = len(os.listdir("/proc/self/fd"))
    clock = Clock()
    with replay(tmp_path, clock) as source:
        assert len(os.listdir("/proc/self/fd")) == before
        source.acquire(Sink(source, clock, frames=5), clock)
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before
    source.close()


# Settings and keywords


@pytest.mark.parametrize(("number", "mode"), [(1, "MBI"), (2, "PUPIL"), (2, "ONEARC")])
def test_a_crop_that_is_that_of_a_mode_has_its_name(tmp_path, number, mode):
    crop = instrument_on().crop(mode, number)
    path = plain_cube(
        tmp_path / "a.fits", np.zeros((1, *crop.shape), np.uint16), U_CAMERA=number,
        PRD__MIN1=crop.x0, PRD__MIN2=crop.y0, U_DETMOD="SLOW", EXTTRIG=True, EXPTIME=0.25,
        FRATE=3.0,
    )  # fmt: skip
    with replay(path) as source:
        found = source.configure(science_camera(number).first_settings("FULL"))
        assert source.limits.sensor_shape == instrument_on().sensor_shape
    assert (found.mode, found.crop) == (mode, crop)
    assert (found.readout, found.external_trigger) == ("SLOW", True)
    assert (found.tint_s, found.fps) == (0.25, 3.0)


@pytest.mark.parametrize(
    "keywords",
    [
        {"U_CAMERA": 1, "PRD__MIN1": 921, "PRD__MIN2": 596},
        {"U_CAMERA": 1, "PRD__MIN1": 4090, "PRD__MIN2": 0},
        {"U_CAMERA": 1, "PRD__MIN1": -5, "PRD__MIN2": 0},
        {"U_CAMERA": 5, "PRD__MIN1": 8, "PRD__MIN2": 4},
        {"U_CAMERA": "one", "PRD__MIN1": -1.5, "EXPTIME": -1.0, "U_DETMOD": 3},
        {},
    ],
)
def test_whatever_the_header_says_the_shape_is_that_of_the_frames(tmp_path, keywords):
    path = plain_cube(tmp_path / "a.fits", np.zeros((1, 12, 20), np.uint16), **keywords)
    with replay(path) as source:
        found = source.configure(plain_camera((50, 60)).first_settings("FULL"))
        assert found == source.configure(found)
        ny, nx = source.limits.sensor_shape
    assert found.shape == (12, 20)
    assert 0 <= found.crop.x0 <= found.crop.x1 < nx
    assert 0 <= found.crop.y0 <= found.crop.y1 < ny
    assert found.tint_s > 0 and found.fps > 0


@pytest.mark.parametrize("number", [None, 1, 2, 7])
def test_what_a_configuration_asks_for_at_the_start_is_no_reason_to_refuse(tmp_path, number):
    given = {} if number is None else {"U_CAMERA": number}
    path = plain_cube(tmp_path / "a.fits", np.zeros((1, 12, 20), np.uint16), **given)
    with replay(path) as source:
        for mode in instrument_on().modes:
            wanted = source.limits.first_settings(mode, 5000.0)
            assert source.configure(wanted).shape == (12, 20)


def test_the_rate_of_the_settings_is_the_given_one(tmp_path):
    path = pixel_cube(tmp_path, some_pixels(2))
    for fps, expected in ((None, 50.0), (9.0, 9.0)):
        with replay(path, fps=fps) as source:
            assert source.configure(source.limits.first_settings("FULL")).fps == expected


def test_keywords_are_those_that_a_camera_s_stream_carries(tmp_path):
    path = pixel_cube(tmp_path, some_pixels(2))
    set_keyword(path, "FILTER01", "a name that is longer than a stream holds")
    set_keyword(path, "DET-TMP", "NaN")
    with replay(path) as source:
        found = source.keywords()
    assert found["DATA-TYP"][0] == "DARK"
    assert (found["U_CAMERA"][0], found["EXTTRIG"][0]) == (1, "#FALSE#")
    assert found["FILTER02"][0] == "Open"
    assert np.isnan(found["DET-TMP"][0])
    assert "FILTER01" not in found
    assert not found.keys() & {"FRATE", "MFRATE", "RA", "CRVAL1", "MJD", "BZERO", "CHECKSUM"}
    for name, (value, comment) in found.items():
        encode_keyword(name, value, comment)
        if not name.startswith("_"):
            kind = keyword_dictionary()[name].source_class
            assert kind in ("SHM_CAMSTACK", "SHM_FEED_IN")


def test_a_stream_gets_frames_times_and_keywords(tmp_path, shm_dir):
    pixels = some_pixels(4)
    path = pixel_cube(tmp_path, pixels)
    with (
        ReplaySource(ReplayOptions(path, fps=1000.0, loop=False)) as source,
        Stream.create(
            "vcam1", pixels.shape[1:], source.dtype, keywords=source.keywords()
        ) as stream,
        Stream.open("vcam1") as reader,
    ):
        with pytest.raises(TimeoutError):
            reader.read(0)  # from here on
        source.acquire(stream, threading.Event())
        for frame in pixels:
            found, info = reader.read(5)
            np.testing.assert_array_equal(found, frame)
        assert info.acquired_ns // 1000 == reader.keywords["_MAQTIME"]
        assert reader.keywords["_REPLAYT"] == (FIRST_NS + 3 * INTERVAL_NS) // 1000
        stream.remove()


# Faults


def refused(path: Path, **options) -> str:
    with pytest.raises(SourceError) as caught:
        replay(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_path_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nothing.fits"
    assert refused(path) == f"cannot replay {path}: No such file or directory"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (b"not a cube", "not FITS"),
        (b"SIMPLE  =                    T".ljust(80), "no END card"),
        (bytes(5760), "not FITS"),
    ],
)
def test_a_file_that_is_not_fits_is_named(tmp_path, content, expected):
    path = tmp_path / "vcam1_a.fits"
    path.write_bytes(content)
    text = refused(path)
    assert text.startswith(f"cannot replay {path}: ") and expected in text
    assert refused(tmp_path) == text


def test_a_pipe_or_a_table_is_no_cube(tmp_path):
    os.mkfifo(tmp_path / "a.fits")
    assert "a pipe" in refused(tmp_path / "a.fits")
    path = tmp_path / "b.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    path.write_bytes(path.read_bytes() + frames_hdu(np.zeros(2, FRAME_DTYPE)))
    assert "holds no image" in refused(path)


def test_a_truncated_cube_is_refused_with_its_whole_frames(tmp_path):
    pixel_cube(tmp_path, some_pixels(3), first_ns=FIRST_NS - SECOND_NS)
    path = pixel_cube(tmp_path, some_pixels(3, shape=(64, 64)))
    os.truncate(path, path.stat().st_size - 20_000)
    text = refused(path)
    assert "truncated" in text and "of 3 frames" in text and str(path) in text
    assert str(path) in refused(tmp_path)


def test_a_folder_without_cubes_is_named(tmp_path):
    (tmp_path / "vcam1_a.txt").write_text("# a sidecar")
    (tmp_path / ".vcam1_a.fits").write_text("hidden")
    assert refused(tmp_path) == (
        f"cannot replay {tmp_path}: the folder holds no cubes (.fits, .fits.fz)"
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"shape": (12, 21)}, r"frames of (12, 21), the first file (12, 20)"),
        ({"dtype": "float32"}, "pixels of BITPIX -32, the first file BITPIX 16, BZERO 32768"),
        ({"dtype": "int16"}, "pixels of BITPIX 16, the first file BITPIX 16, BZERO 32768"),
    ],
)
def test_a_file_unlike_the_first_is_refused(tmp_path, other, expected):
    pixel_cube(tmp_path, some_pixels(2))
    path = pixel_cube(tmp_path, some_pixels(2, **other), first_ns=FIRST_NS + SECOND_NS)
    text = refused(tmp_path)
    assert text.startswith(f"cannot replay {path}: it has {expected}")


def test_cubes_of_two_cameras_are_refused(tmp_path):
    pixel_cube(tmp_path, some_pixels(2))
    path = pixel_cube(tmp_path, some_pixels(2), stream="vcam2")
    set_keyword(path, "U_CAMERA", 2)
    assert "it has camera 2, the first file camera 1" in refused(tmp_path)


@pytest.mark.parametrize("fps", [0.0, -5.0, 1e-300, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(tmp_path, fps):
    assert "frames/s" in refused(pixel_cube(tmp_path, some_pixels(2)), fps=fps)


def broken_off(folder: Path, clock: Clock, action) -> tuple[Sink, str]:
    """What was published of two cubes, and the error, with an action after two frames."""
    with replay(folder, clock) as source:
        sink = Sink(source, clock)
        kept = sink.keep

        def keep(frame: np.ndarray) -> None:
            kept(frame)
            if len(sink.frames) == 2:
                action()

        sink.keep = keep
        with pytest.raises(SourceError) as caught:
            source.acquire(sink, clock)
    assert "\n" not in str(caught.value)
    return sink, str(caught.value)


def test_a_file_that_vanishes_while_it_is_replayed_is_named(tmp_path):
    pixel_cube(tmp_path, some_pixels(3))
    second = pixel_cube(tmp_path, some_pixels(3), first_ns=FIRST_NS + SECOND_NS)
    sink, text = broken_off(tmp_path, Clock(), second.unlink)
    assert len(sink.frames) == 3
    assert text == f"cannot replay {second}: No such file or directory"


def test_a_file_that_is_cut_off_while_it_is_replayed_is_named(tmp_path):
    first = pixel_cube(tmp_path, some_pixels(5, shape=(64, 64)))
    sink, text = broken_off(tmp_path, Clock(), lambda: os.truncate(first, 5760))
    assert len(sink.frames) < 5
    assert str(first) in text and "truncated" in text


def test_a_file_that_was_replaced_by_another_shape_is_named(tmp_path):
    pixel_cube(tmp_path, some_pixels(3))
    later_ns = FIRST_NS + SECOND_NS
    second = pixel_cube(tmp_path, some_pixels(3), first_ns=later_ns)
    larger = some_pixels(3, shape=(16, 20))
    _, text = broken_off(
        tmp_path, Clock(), lambda: pixel_cube(tmp_path, larger, first_ns=later_ns)
    )
    assert text.startswith(f"cannot replay {second}: it has frames of (16, 20)")
