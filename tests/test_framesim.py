"""The simulated camera: exact times, every frame in its turn, clean ends, one-line errors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vampires import frame_stamp, simulated_sky
from vampires.commands import common
from vampires.commands import framesim as command
from vampires.framesim import (
    CameraOptions,
    FrameSchedule,
    SimulatedCamera,
    camera_keywords,
    exposure_time_s,
)

START_NS = 1_700_000_000_123_456_789
rates = st.fractions(Fraction(1, 10), Fraction(100_000), max_denominator=1000)


class RecordedStream:
    """Stands for a stream: keeps what the camera publishes."""

    def __init__(self, options: CameraOptions, cnt0: int = 0) -> None:
        self.cnt0 = cnt0
        self.frames: list[np.ndarray] = []
        self.acquired_ns: list[int] = []
        self.keywords: list[dict] = []
        self._slot = np.zeros(options.shape, options.dtype)

    def next_slot(self) -> np.ndarray:
        return self._slot

    def publish(self, acquired_ns: int, keywords: dict) -> int:
        self.frames.append(self._slot.copy())
        self.acquired_ns.append(acquired_ns)
        self.keywords.append(keywords)
        self.cnt0 += 1
        return self.cnt0


class Clock:
    """A clock that moves when someone sleeps, and by step_ns whenever it is read."""

    def __init__(self, step_ns: int = 0) -> None:
        self.ns = START_NS
        self.step_ns = step_ns

    def now_ns(self) -> int:
        self.ns += self.step_ns
        return self.ns

    def sleep_until_ns(self, time_ns: int) -> None:
        self.ns = max(self.ns, time_ns)


def run_camera(options: CameraOptions, clock: Clock, cnt0: int = 0, **limits):
    camera = SimulatedCamera(options, now_ns=clock.now_ns, sleep_until_ns=clock.sleep_until_ns)
    stream = RecordedStream(options, cnt0)
    summary = camera.run(stream, threading.Event(), **limits)
    return camera, stream, summary


def small_camera(**changes) -> CameraOptions:
    return CameraOptions(
        **{"stream": "vcam1", "mode_or_shape": (4, 6), "pattern": "counter", **changes}
    )


# The schedule


@given(fps=rates, frame=st.integers(0, 10**9))
def test_the_rate_has_no_drift(fps, frame):
    exact = START_NS + frame * 1_000_000_000 / fps
    assert 0 <= exact - FrameSchedule(START_NS, fps).due_ns(frame) < 1


@given(fps=rates, flc_jitter_us=st.integers(0, 2000), frame=st.integers(0, 10**6))
def test_the_liquid_crystal_lengthens_every_other_interval(fps, flc_jitter_us, frame):
    plain = FrameSchedule(START_NS, fps)
    longer = FrameSchedule(START_NS, fps, flc_jitter_us=flc_jitter_us)
    added_ns = [
        (longer.due_ns(k + 1) - longer.due_ns(k)) - (plain.due_ns(k + 1) - plain.due_ns(k))
        for k in (frame, frame + 1)
    ]
    assert sorted(added_ns) == [0, 2 * flc_jitter_us * 1000]
    assert added_ns[frame % 2] == 0


@given(fps=rates, seed=st.integers(0, 2**32))
def test_jittered_frames_keep_their_order_and_their_seed(fps, seed):
    def times() -> list[int]:
        schedule = FrameSchedule(START_NS, fps, jitter_us=1e5, seed=seed)
        return [schedule.due_ns(k) for k in range(1020, 1030)]

    assert times() == times() == sorted(times())


def test_jitter_moves_each_frame_alone_with_the_given_deviation():
    schedule = FrameSchedule(START_NS, Fraction(57), jitter_us=7.2)
    moved_ns = [schedule.due_ns(k) - schedule.nominal_ns(k) for k in range(5000)]
    assert np.std(moved_ns) == pytest.approx(7200, rel=0.05)
    assert abs(np.mean(moved_ns[-1000:])) < 1000


def test_triggered_frames_are_late_by_the_jitter_of_the_readout_at_most():
    schedule = FrameSchedule(START_NS, Fraction(57), late_us=172.8, seed=1)
    late_ns = [schedule.due_ns(k) - schedule.nominal_ns(k) for k in range(5000)]
    assert min(late_ns) >= 0 and max(late_ns) <= 172_800
    assert np.mean(late_ns) == pytest.approx(86_400, rel=0.05)
    other = FrameSchedule(START_NS, Fraction(57), late_us=172.8, seed=2)
    assert [other.due_ns(k) for k in range(9)] != [schedule.due_ns(k) for k in range(9)]


def test_a_schedule_without_a_rate_is_an_error():
    with pytest.raises(ValueError, match="expected a rate above 0"):
        FrameSchedule(START_NS, Fraction(0))


# The camera


@pytest.mark.parametrize("dtype", [str(dtype) for dtype in simulated_sky.STREAM_DTYPES])
def test_each_frame_is_that_of_the_pool_with_its_number(dtype):
    camera, stream, summary = run_camera(
        small_camera(dtype=dtype, pattern="sky"), Clock(), cnt0=5, frames=10
    )
    assert summary.frames == 10
    for number, frame in enumerate(stream.frames, start=6):
        assert np.array_equal(frame, frame_stamp.expected_frame(camera.pool, number))


def test_acquisition_times_are_the_due_times_in_stream_and_keyword():
    options = small_camera(fps=Fraction(57), flc_jitter_us=500, jitter_us=7.2, seed=3)
    _, stream, _ = run_camera(options, Clock(), frames=9)
    first_ns = stream.acquired_ns[0]
    schedule = FrameSchedule(0, options.fps, 500, 7.2, seed=3)
    due_ns = [schedule.due_ns(k) for k in range(9)]
    assert [time - first_ns for time in stream.acquired_ns] == [t - due_ns[0] for t in due_ns]
    assert [keywords["_MAQTIME"][0] for keywords in stream.keywords] == [
        time // 1000 for time in stream.acquired_ns
    ]


def test_a_late_camera_leaves_out_no_frame():
    clock = Clock(step_ns=30_000_000)
    _, stream, summary = run_camera(small_camera(fps=Fraction(1000)), clock, frames=20)
    assert [int(frame_stamp.read_stamps(f)[0]) for f in stream.frames] == list(range(1, 21))
    assert np.diff(stream.acquired_ns).tolist() == [1_000_000] * 19
    assert summary.max_late_us > 1000


def test_no_frame_is_published_before_it_is_due():
    clock = Clock(step_ns=1000)
    published_ns = []

    class TimedStream(RecordedStream):
        def publish(self, **arguments) -> int:
            published_ns.append(clock.ns)
            return super().publish(**arguments)

    options = small_camera(fps=Fraction(2))
    camera = SimulatedCamera(options, now_ns=clock.now_ns, sleep_until_ns=clock.sleep_until_ns)

    class ClockStop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            clock.ns += round(timeout * 1e9)
            return self.is_set()

    stream = TimedStream(options)
    camera.run(stream, ClockStop(), frames=5)
    assert all(at >= due for at, due in zip(published_ns, stream.acquired_ns, strict=True))


def test_a_sleep_that_a_signal_cut_short_is_slept_to_its_end():
    clock = Clock()

    def half_sleep(time_ns: int) -> None:
        clock.ns += (time_ns - clock.ns + 1) // 2

    options = small_camera(fps=Fraction(100))
    camera = SimulatedCamera(options, now_ns=clock.now_ns, sleep_until_ns=half_sleep)
    stream = RecordedStream(options)
    camera.run(stream, threading.Event(), frames=3)
    assert clock.ns >= stream.acquired_ns[-1]


@pytest.mark.parametrize(
    ("fps", "seconds", "frames"), [("57", 1, 57), ("57", 0.5, 29), ("1/3", 1, 1)]
)
def test_seconds_end_the_camera_after_the_frames_due_in_them(fps, seconds, frames):
    _, _, summary = run_camera(small_camera(fps=Fraction(fps)), Clock(), seconds=seconds)
    assert summary.frames == frames


def test_without_a_rate_frames_are_acquired_when_they_are_copied():
    _, stream, summary = run_camera(
        small_camera(fps=Fraction(0)), Clock(step_ns=1000), seconds=1e-4
    )
    assert summary.frames == len(stream.frames) > 10
    assert stream.acquired_ns == sorted(set(stream.acquired_ns))
    assert summary.max_late_us == 0


def test_a_camera_that_is_told_to_stop_stops_before_the_next_frame():
    options = small_camera(fps=Fraction(1, 10**6))
    clock = Clock()
    camera = SimulatedCamera(options, now_ns=clock.now_ns, sleep_until_ns=clock.sleep_until_ns)
    stop = threading.Event()

    class StoppingStream(RecordedStream):
        def publish(self, **arguments) -> int:
            stop.set()
            return super().publish(**arguments)

    assert camera.run(StoppingStream(options), stop).frames == 1


# The external trigger


def triggered_times_ns(options: CameraOptions, start_ns: int, frames: int) -> list[int]:
    clock = Clock()
    clock.ns = start_ns
    camera = SimulatedCamera(options, now_ns=clock.now_ns, sleep_until_ns=clock.sleep_until_ns)
    stream = RecordedStream(options)
    camera.run(stream, threading.Event(), frames=frames, triggered=True)
    assert stream.acquired_ns[0] >= start_ns
    return stream.acquired_ns


@given(
    st.fractions(Fraction(50), Fraction(10_000), max_denominator=1000),
    st.sampled_from([0.0, 500.0, 0.1234]),
    st.integers(0, 10**8),
)
@example(Fraction(57), 500.0, 98_765_432)
def test_triggered_cameras_have_their_instants_in_common(fps, flc_us, later_ns):
    options = small_camera(fps=fps, flc_jitter_us=flc_us)
    interval_ns = 10**9 / fps + 2 * Fraction(flc_us) * 1000
    frames = later_ns // int(interval_ns) + 30
    one = triggered_times_ns(options, START_NS, frames)
    other = triggered_times_ns(options, START_NS + later_ns, 20)
    first, last = other[0], one[-1]
    assert [t for t in one if t >= first][:20] == [t for t in other if t <= last]
    steps_ns = np.diff(other)
    assert steps_ns[0::2] == pytest.approx(float(10**9 / fps), abs=2)
    assert steps_ns[1::2] == pytest.approx(float(interval_ns), abs=2)


def test_a_triggered_camera_ends_as_any_other():
    options = small_camera(fps=Fraction(100))
    clock = Clock()
    camera = SimulatedCamera(options, now_ns=clock.now_ns, sleep_until_ns=clock.sleep_until_ns)
    stream = RecordedStream(options)
    summary = camera.run(stream, threading.Event(), seconds=0.1, triggered=True)
    assert summary.frames == len(stream.frames) == 10
    assert camera.run(stream, threading.Event(), frames=0, triggered=True).frames == 0


# The keywords


def test_keywords_fit_the_stream_and_have_the_names_of_the_dictionary():
    dictionary = Path(simulated_sky.__file__).parent / "data" / "vampires_keywords.csv"
    known = {line.split(",")[0] for line in dictionary.read_text().splitlines()}
    known.add("DETBIAS")  # a name that the control code has, the dictionary not yet
    for mode in ("FULL", "MBI_REDUCED", (7, 9)):
        for name, (value, comment) in camera_keywords(
            small_camera(mode_or_shape=mode, flc_jitter_us=500)
        ).items():
            assert name in known or name.startswith("_")
            assert len(name) <= 15
            assert len(comment) <= 79
            assert not isinstance(value, str) or len(value) <= 15


@pytest.mark.parametrize(
    ("stream", "mode", "flc", "expected"),
    [
        ("vcam2", "MBI_REDUCED", 500, "IMAG_MBIR"),
        ("vcam1", "MBI", 0, "IMAG_MBI"),
        ("vcam1", "PUPIL", 0, "IMAG"),
        ("vcam1", "STANDARD", 500, "IMAG"),
        ("test", (10, 10), 0, "IMAG"),
    ],
)
def test_the_observing_mode_says_what_the_pipeline_reads_from_it(stream, mode, flc, expected):
    options = CameraOptions(stream, mode, flc_jitter_us=flc)
    assert camera_keywords(options)["OBS-MOD"][0] == expected


def test_crop_and_camera_keywords_are_those_of_the_camera():
    values = {
        name: value
        for name, (value, _) in camera_keywords(CameraOptions("vcam2", "MBI")).items()
    }
    assert values["DETECTOR"] == "VCAM2 - OrcaQ"
    assert values["U_CAMERA"] == 2
    assert [values[f"PRD-{key}"] for key in ("MIN1", "RNG1", "MIN2", "RNG2")] == [
        916, 2240, 692, 1096,
    ]  # fmt: skip
    assert values["CROPPED"] == "#TRUE#"
    assert camera_keywords(CameraOptions("vcam2", "FULL"))["CROPPED"][0] == "#FALSE#"


def test_the_rate_keyword_counts_the_longer_intervals():
    options = small_camera(fps=Fraction(100), flc_jitter_us=1000)
    assert camera_keywords(options)["FRATE"][0] == pytest.approx(1 / 0.011)
    assert exposure_time_s(options) == 0.01
    assert exposure_time_s(small_camera(exptime_s=0.5)) == 0.5


# What the commands share


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GiB", 4 * 2**30), ("1.5 GB", 1_500_000_000), ("500mb", 500_000_000), ("4096", 4096)],
)
def test_sizes_are_read_with_their_units(text, expected):
    assert common.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "4G", "-1GB", "GiB", "1e9", "4 XB"])
def test_a_size_that_is_none_is_an_error_with_an_example(text):
    with pytest.raises(common.argparse.ArgumentTypeError, match="as in 4GiB"):
        common.parse_bytes(text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sets_the_stop_event_and_the_old_handler_comes_back(number):
    before = signal.getsignal(number)
    with common.setup_signals() as stop:
        assert not stop.is_set()
        assert not stop.wait(0)
        threading.Thread(target=os.kill, args=(os.getpid(), number)).start()
        assert stop.wait(60)
        assert stop.is_set()
    assert signal.getsignal(number) == before


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with common.setup_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# The command


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: STREAM"),
        (["vcam1", "--mode", "WIDE"], "no camera mode 'WIDE': expected one of FULL"),
        (["vcam1", "--fps", "-1"], "found '-1', expected frames/s: 0 or more"),
        (["vcam1", "--fps", "fast"], "found 'fast', expected frames/s"),
        (["vcam1", "--shape", "0", "5"], "found '0', expected a whole number of 1 or more"),
        (["vcam1", "--shape", "5", "5", "--mode", "MBI"], "not allowed with"),
        (["vcam1", "--shape", "1", "7"], "expected 16 or more, take a larger frame"),
        (["vcam1", "--dtype", "bool"], "invalid choice: 'bool'"),
        (["vcam1", "--ring", "-3"], "found '-3', expected a whole number of 0 or more"),
        (["vcam1", "--frames", "1.5"], "found '1.5', expected a whole number of 1 or more"),
        (["vcam1", "--seconds", "0"], "found '0', expected a number above 0"),
        (["vcam1", "--seconds", "nan"], "found 'nan', expected a number above 0"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_2(arguments, text, capsys):
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("vampires-framesim: ")
    assert text in err


def test_the_help_shows_defaults_and_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "(default: 57)" in text
    assert "example:" in text


@pytest.fixture
def start_command(tmp_path):
    """Starts the command with its streams in tmp_path; what still runs at the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "vampires.commands.framesim", *arguments],
                env={**os.environ, "MILK_SHM_DIR": str(tmp_path)},
                cwd=tmp_path,  # not where the source tree could be taken for the package
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def read_ring(file: Path, shape: tuple[int, int, int], dtype: str) -> tuple[int, np.ndarray]:
    """cnt0 and the slots [ring, ny, nx] of a stream file, by the offsets of ImageStreamIO."""
    raw = file.read_bytes()
    (cnt0,) = struct.unpack_from("<Q", raw, 264)
    count = int(np.prod(shape))
    return cnt0, np.frombuffer(raw, dtype, count, offset=384).reshape(shape)


def test_the_command_publishes_every_frame_and_reports_it(tmp_path, start_command):
    process = start_command(
        "vcam2", "--shape", "20", "30", "--dtype", "float32", "--fps", "0",
        "--frames", "25", "--ring", "32", "--seed", "4", "--json", "--keep",
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err.startswith("vcam2: 20 x 30 float32, as fast as possible, ring of 32 frames, ")
    assert str(tmp_path / "vcam2.im.shm") in err
    report = json.loads(out)
    assert set(report) == {
        "stream", "frames", "seconds", "rate_hz", "mb_per_s", "max_late_us",
    }  # fmt: skip
    assert (report["stream"], report["frames"]) == ("vcam2", 25)
    cnt0, slots = read_ring(tmp_path / "vcam2.im.shm", (32, 20, 30), "float32")
    assert cnt0 == 25
    pool = simulated_sky.frame_pool("sky", (20, 30), 2, "float32", 4)
    by_number = {int(frame_stamp.read_stamps(slot)[0]): slot for slot in slots}
    for number in range(1, 26):
        assert np.array_equal(by_number[number], frame_stamp.expected_frame(pool, number))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("fps", ["200", "1/1000"])
def test_a_signal_ends_the_command_cleanly_and_removes_the_stream(
    tmp_path, start_command, number, fps
):
    process = start_command("vcam1", "--shape", "20", "30", "--fps", fps)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("vcam1: 20 x 30 uint16, ")
    assert (tmp_path / "vcam1.im.shm").exists()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("vcam1: ")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_without_a_ring_holds_the_newest_frame(tmp_path, start_command):
    process = start_command(
        "test1", "--shape", "8", "10", "--fps", "0", "--frames", "11", "--ring", "0",
        "--pattern", "counter", "--keep",
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    cnt0, slots = read_ring(tmp_path / "test1.im.shm", (1, 8, 10), "uint16")
    pool = simulated_sky.counter_pool((8, 10), "uint16")
    assert cnt0 == 11
    assert np.array_equal(slots[0], frame_stamp.expected_frame(pool, 11))


def test_a_bad_stream_name_is_one_line_and_exit_2(start_command):
    process = start_command("no/name", "--shape", "8", "10")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert "no/name" in err


def test_a_reader_finds_the_acquisition_time_and_the_keywords_with_their_comments(
    tmp_path, start_command
):
    process = start_command(
        "vcam2", "--shape", "8", "10", "--frames", "3", "--flc-jitter-us", "500",
        "--keep",
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    from vampires.stream import Stream

    with Stream.open("vcam2", directory=tmp_path) as stream:
        _, info = stream.latest()
        assert info.acquired_ns // 1000 == stream.keywords["_MAQTIME"]
        expected = camera_keywords(CameraOptions("vcam2", (8, 10), flc_jitter_us=500))
        assert set(stream.keywords) == set(expected)
        assert stream.keywords["U_TRIGJT"] == 500
        for name, (_, comment) in expected.items():
            assert stream.keywords.comment(name) == comment
