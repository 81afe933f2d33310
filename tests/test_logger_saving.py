"""Saving on and off: a session holds exactly the frames asked for, none is in two, and what is
missing within one is counted there and nowhere else.

Cameras stamp their frames with times of their own choosing, far ahead, so nothing waits for a
clock.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from cube_checks import DAY_NS, SECOND_NS, Cube, check_cubes, check_result, hidden_files
from foreign_stream import ForeignStream, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logger_process import PATIENCE_S, Camera, LoggerThread

from vampires import frame_stamp
from vampires.frame_table import FrameFlag
from vampires.logger import Logger, LoggerConfig

MS_NS = 1_000_000
US_NS = 1_000
# Noon of a day that no clock has come to, whatever the time of the test: no midnight is near.
NOON_NS = (time.time_ns() // DAY_NS + 3) * DAY_NS + DAY_NS // 2
OF_THE_FRAME = FrameFlag.TACQ_FROM_ATIME | FrameFlag.CAUGHT_UP


class Saver(LoggerThread):
    """A logger that saves when told to."""

    def __init__(self, stream: str, root: Path, shm_dir: Path, **config: Any) -> None:
        super().__init__(stream, root, shm_dir, saving=False, **config)
        self.wait(lambda status: status["attached"])

    def status(self) -> dict[str, Any]:
        return self.logger.status()

    def wait(self, reached: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        pause = threading.Event()
        deadline = time.monotonic() + PATIENCE_S
        while not reached(status := self.status()):
            assert time.monotonic() < deadline, status
            pause.wait(0.0005)
        return status

    def wait_looked_at(self, cnt0: int) -> None:
        self.wait(lambda status: status["newest_cnt0"] >= cnt0)

    def wait_state(self, state: str, session: int) -> dict[str, Any]:
        return self.wait(
            lambda status: status["saving"] == state and status["session"] == session
        )

    def wait_saved(self, session: int) -> dict[str, Any]:
        """The session is over and its files have their names."""
        self.wait_state("off", session)
        return self.wait(lambda status: status["cubes_pending"] == 0)

    def begin(self, start_ns: int = 0, **limits: int) -> None:
        assert self.logger.begin_saving(start_ns, **limits)

    def finish(self, stop_ns: int = 0, *, whole_cube: bool = False) -> None:
        assert self.logger.end_saving(stop_ns, whole_cube)

    def cubes(self, camera: Camera, *, untold: int = 0) -> list[Cube]:
        """Ends the logger. Every cube, checked; but not the frames between them."""
        ended = self.stop()
        assert ended.result is not None
        cubes = [
            cube for file in ended.result["files"] for cube in check_cubes([file], camera.pool)
        ]
        check_result(ended.result, cubes, untold=untold)
        assert hidden_files(self.root) == []
        for earlier, later in itertools.pairwise(cubes):
            assert earlier.rows["CNT0"][-1] < later.rows["CNT0"][0]
        return cubes


@pytest.fixture
def saver(shm_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Saver]]:
    started: list[Saver] = []

    def start(stream: str = "cam1", **config: Any) -> Saver:
        started.append(Saver(stream, tmp_path / "data", shm_dir, **config))
        return started[-1]

    yield start
    for logger in started:
        logger.stop()


def at(frame: int) -> int:
    """Acquisition time of a frame: one each millisecond."""
    return NOON_NS + frame * MS_NS


def send(camera: Camera, frames: int = 1) -> int:
    for _ in range(frames):
        camera.send(acquired_ns=at(camera.stream.cnt0 + 1))
    return camera.stream.cnt0


def spans(cubes: list[Cube]) -> list[tuple[int, int]]:
    return [(int(cube.rows["CNT0"][0]), int(cube.rows["CNT0"][-1])) for cube in cubes]


def reasons(cubes: list[Cube]) -> list[str]:
    return [cube.reason for cube in cubes]


# By the call


def test_nothing_is_seen_lost_or_counted_while_saving_is_off(saver):
    camera = Camera(ring=4)
    logger = saver()
    for _ in range(50):
        logger.wait_looked_at(send(camera, 9))
    status = logger.status()
    assert (status["saving"], status["session"]) == ("off", 0)
    assert (status["frames"], status["lost"], status["chunks_in_use"]) == (0, 0, 0)
    assert (status["newest_cnt0"], status["newest_ns"]) == (450, at(450))
    assert logger.cubes(camera) == []
    assert logger.logger.result.frames_seen == 0


def test_a_session_has_what_was_published_between_the_two_calls(saver):
    camera = Camera()
    logger = saver(cube_size=10)
    for session in range(1, 4):
        send(camera, 7)
        logger.begin()
        send(camera, 25)
        logger.finish()
        send(camera, 3)
        status = logger.wait_saved(session)
        last = camera.stream.cnt0 - 3
        assert (status["first_cnt0"], status["end_cnt0"]) == (last - 24, last)
        assert (status["first_ns"], status["newest_ns"]) == (at(last - 24), at(last + 3))
        assert (status["session_frames"], status["session_cubes"]) == (25, 3)
        assert (status["session_lost"], status["session_torn"]) == (0, 0)
        assert status["last_file"] == str(logger.logger.result.files[-1])
        assert status["last_save_s"] > 0
    cubes = logger.cubes(camera)
    assert spans(cubes)[:4] == [(8, 17), (18, 27), (28, 32), (43, 52)]
    assert reasons(cubes) == ["cube size reached", "cube size reached", "saving paused"] * 3
    assert all(cube.rows["LOST"].sum() == 0 for cube in cubes)


def test_frames_that_passed_while_off_are_no_loss_and_leave_no_flag(saver):
    camera = Camera(ring=4)
    logger = saver()
    logger.begin()
    logger.wait_looked_at(send(camera, 2))
    logger.finish()
    logger.wait_saved(1)
    for _ in range(40):
        send(camera, 20)
    logger.begin()
    logger.wait_looked_at(send(camera, 2))
    first, second = logger.cubes(camera)
    assert spans([first, second]) == [(1, 2), (803, 804)]
    assert second.rows["LOST"].tolist() == [0, 0]
    assert not second.rows["FLAGS"][0] & ~OF_THE_FRAME


def test_a_clock_that_stepped_back_while_off_leaves_no_flag(saver):
    camera = Camera()
    logger = saver()
    camera.send(acquired_ns=at(100_000))
    logger.begin()
    send(camera, 3)
    (cube,) = logger.cubes(camera)
    assert cube.rows["CNT0"].tolist() == [2, 3, 4]
    assert not cube.rows["FLAGS"][0] & ~OF_THE_FRAME


def test_saving_ordered_before_the_logger_runs_begins_with_the_order(shm_dir, tmp_path):
    camera = Camera()
    send(camera, 10)
    config = LoggerConfig("cam1", tmp_path, shm_dir, saving=False, ring_memory_bytes=4 << 20)
    logger = Logger(config, lambda _: None)
    assert logger.begin_saving()
    send(camera, 10)
    assert logger.end_saving()
    send(camera, 10)
    stop = threading.Event()

    def stop_when_saved() -> None:
        if logger.status()["session"] and logger.status()["saving"] == "off":
            stop.set()

    logger.run(stop, stop_when_saved)
    cubes = check_cubes(logger.result.files, camera.pool)
    assert spans(cubes) == [(11, 20)]
    assert logger.result.lost == 0


def test_a_session_ordered_before_the_end_of_another_begins_where_that_one_ends(saver):
    camera = Camera()
    logger = saver()
    logger.begin()
    send(camera, 5)
    logger.finish(at(8))
    logger.begin()
    send(camera, 10)
    logger.finish()
    send(camera, 5)
    logger.wait_saved(2)
    cubes = logger.cubes(camera)
    assert spans(cubes) == [(1, 7), (8, 15)]
    assert cubes[1].rows["LOST"][0] == 0


def test_begin_while_saving_and_end_while_off_change_nothing(saver):
    camera = Camera()
    logger = saver()
    logger.finish()
    logger.finish(at(5), whole_cube=True)
    logger.begin()
    send(camera, 5)
    logger.begin()
    logger.begin(at(100), max_frames=1)
    send(camera, 5)
    logger.finish()
    logger.wait_saved(1)
    logger.finish()
    assert spans(logger.cubes(camera)) == [(1, 10)]


def test_a_stop_of_the_logger_ends_the_session_that_is_on(saver):
    camera = Camera()
    logger = saver()
    logger.begin()
    send(camera, 12)
    (cube,) = logger.cubes(camera)
    assert (len(cube.rows), cube.reason) == (12, "logging stopped")
    assert logger.status()["saving"] == "off"


def test_without_control_saving_cannot_be_switched(shm_dir, tmp_path):
    Camera()
    logger = LoggerThread("cam1", tmp_path / "data", shm_dir).attached()
    assert logger.logger.status()["saving"] == "on"
    for switch in (logger.logger.begin_saving, logger.logger.end_saving):
        with pytest.raises(RuntimeError, match="saves from its start to its end"):
            switch()
    logger.stop()
    assert logger.logger.status()["saving"] == "off"


def test_too_many_orders_at_once_are_refused_and_those_taken_are_kept(shm_dir, tmp_path):
    """Before run(), nobody reads them."""
    Camera()
    config = LoggerConfig("cam1", tmp_path, shm_dir, saving=False, ring_memory_bytes=4 << 20)
    logger = Logger(config, lambda _: None)
    sent = [logger.begin_saving() for _ in range(100)]
    assert sent[0] and not sent[-1]


@pytest.mark.parametrize("limits", [{"max_cubes": 0}, {"max_frames": -1}])
def test_a_limit_below_one_is_refused(saver, limits):
    Camera()
    with pytest.raises(ValueError, match="expected 1 or more"):
        saver().logger.begin_saving(**limits)


# By an instant


def test_a_session_begins_and_ends_with_the_instants(saver):
    camera = Camera()
    logger = saver()
    logger.begin(at(10))
    assert logger.wait_state("armed", 1)["session_frames"] == 0
    send(camera, 9)
    logger.wait_looked_at(9)
    assert logger.status()["saving"] == "armed"
    send(camera, 6)
    assert logger.wait(lambda status: status["first_cnt0"])["first_cnt0"] == 10
    assert logger.status()["saving"] == "on"
    logger.finish(at(20) - 1)
    logger.wait_state("ending", 1)
    send(camera, 15)
    assert logger.wait_saved(1)["end_cnt0"] == 19
    (cube,) = logger.cubes(camera)
    assert spans([cube]) == [(10, 19)]
    assert cube.reason == "saving paused"
    assert cube.number("NLOST") == 0


def test_a_session_can_be_ordered_from_its_first_to_its_last_instant(saver):
    camera = Camera()
    logger = saver()
    logger.begin(at(10))
    logger.finish(at(13))
    send(camera, 20)
    logger.wait_saved(1)
    assert spans(logger.cubes(camera)) == [(10, 12)]


@pytest.mark.parametrize("stop_ns", [0, 1, at(50)])
def test_armed_and_disarmed_saves_nothing(saver, stop_ns):
    camera = Camera()
    logger = saver()
    send(camera, 5)
    logger.begin(at(50))
    send(camera, 5)
    logger.wait_state("armed", 1)
    logger.finish(stop_ns)
    logger.wait_state("off", 1)
    send(camera, 60)
    logger.begin()
    send(camera, 1)
    cubes = logger.cubes(camera)
    assert spans(cubes) == [(71, 71)]
    assert cubes[0].rows["LOST"].tolist() == [0]


def test_armed_twice_the_later_instant_holds(saver):
    camera = Camera()
    logger = saver()
    logger.begin(at(10))
    logger.begin(at(15))
    send(camera, 12)
    logger.wait_looked_at(12)
    assert (logger.status()["saving"], logger.status()["session"]) == ("armed", 1)
    send(camera, 5)
    logger.finish()
    logger.wait_saved(1)
    assert spans(logger.cubes(camera)) == [(15, 17)]


def test_two_cameras_begin_and_end_with_the_same_frame_a_hundred_times(
    saver, shm_dir, tmp_path
):
    """Triggered together, stamped with 20 us of jitter, and ordered at different moments."""
    chance = random.Random(3)
    cameras = [Camera(name, shape=(4, 6)) for name in ("cam1", "cam2")]
    loggers = [saver(camera.name) for camera in cameras]
    period_ns = 2 * MS_NS

    def trigger(frames: int) -> None:
        for _ in range(frames):
            frame_ns = NOON_NS + (cameras[0].stream.cnt0 + 1) * period_ns
            for camera in cameras:
                camera.send(acquired_ns=frame_ns + chance.randint(-20, 20) * US_NS)

    def instant(ahead: int) -> tuple[int, int]:
        """Between two frames, and the number of the one after it."""
        frame = cameras[0].stream.cnt0 + ahead
        return NOON_NS + frame * period_ns - chance.randint(100, 1900) * US_NS, frame

    expected = []
    for session in range(1, 101):
        trigger(chance.randint(0, 3))
        start_ns, first = instant(chance.randint(2, 4))
        loggers[0].begin(start_ns)
        # The other one's order comes late at times: its frames are in the ring by then.
        trigger(chance.choice([0, 0, 8]))
        loggers[1].begin(start_ns)
        trigger(max(0, first + 2 - cameras[0].stream.cnt0))
        for logger in loggers:
            logger.wait(lambda status, s=session: status["session"] == s and status["end_cnt0"])
        stop_ns, end = instant(chance.randint(3, 5))
        loggers[0].finish(stop_ns)
        trigger(chance.randint(0, 2))
        loggers[1].finish(stop_ns)
        trigger(max(0, end + 1 - cameras[0].stream.cnt0))
        found = [logger.wait_saved(session) for logger in loggers]
        expected.append((first, end - 1))
        for status in found:
            assert (status["first_cnt0"], status["end_cnt0"]) == expected[-1], session
            assert status["session_lost"] == 0
    for logger, camera in zip(loggers, cameras, strict=True):
        assert spans(logger.cubes(camera)) == expected


def test_an_end_that_comes_late_ends_at_once(saver):
    camera = Camera()
    logger = saver()
    logger.begin()
    logger.wait_looked_at(send(camera, 20))
    logger.finish(at(10))
    logger.wait_saved(1)
    send(camera, 5)
    assert spans(logger.cubes(camera)) == [(1, 20)]


def test_an_end_takes_effect_also_when_no_frame_comes_any_more(saver):
    camera = Camera()
    logger = saver()
    logger.begin()
    now_ns = time.time_ns()
    for frame in range(5):
        camera.send(acquired_ns=now_ns - SECOND_NS + frame * MS_NS)
    logger.finish(now_ns)
    logger.wait_saved(1)
    cubes = logger.cubes(camera)  # two at midnight
    assert sum(len(cube.rows) for cube in cubes) == 5
    assert cubes[-1].reason == "saving paused"


@pytest.mark.parametrize("ring", [64, 0])
def test_a_camera_whose_clock_is_behind_is_obeyed_by_the_loggers_and_it_says_so(saver, ring):
    camera = Camera(ring=ring)
    logger = saver()
    slow_ns = time.time_ns() - 3599 * SECOND_NS - SECOND_NS // 2

    def next_frame() -> int:
        return camera.send(acquired_ns=slow_ns + camera.stream.cnt0 * MS_NS)

    for _ in range(3):
        logger.wait_looked_at(next_frame())
    logger.begin(time.time_ns() - 2 * SECOND_NS)
    logger.wait_state("armed", 1)
    for _ in range(4):
        cnt0 = next_frame()
        logger.wait(lambda status, cnt0=cnt0: status["end_cnt0"] == cnt0)
    assert logger.status()["first_cnt0"] == 4
    logger.finish(time.time_ns() + DAY_NS)
    logger.wait_state("ending", 1)
    logger.finish()
    logger.wait_saved(1)
    cubes = logger.cubes(camera)  # two at midnight
    assert [cnt0 for cube in cubes for cnt0 in cube.rows["CNT0"]] == [4, 5, 6, 7]
    (said,) = [line for line in logger.lines if "clock" in line]
    assert said.startswith("the clock of the camera is 3599.") and "behind" in said


def test_frames_without_times_of_their_own_go_by_the_clock_of_the_logger(saver, shm_dir):
    with ForeignStream.create(shm_dir, "cam1", size=(9, 8)) as stream:
        logger = saver()

        def publish(number: int) -> None:
            frame = np.zeros((8, 9), np.uint16)
            frame_stamp.stamp(frame, number)
            run(stream.library(frame, atime_ns=0))
            logger.wait_looked_at(number)

        publish(1)
        logger.begin(time.time_ns() + 3600 * SECOND_NS)
        logger.wait_state("armed", 1)
        publish(2)
        assert logger.status()["saving"] == "armed"
        start_ns = time.time_ns()
        logger.begin(start_ns)
        publish(3)
        assert logger.wait(lambda status: status["first_cnt0"])["first_cnt0"] == 3
        status = logger.status()
        assert start_ns <= status["first_ns"] <= time.time_ns()


def test_a_camera_that_is_behind_and_never_pauses_is_obeyed_too(saver):
    camera = Camera()
    logger = saver()
    slow_ns = time.time_ns() - 3599 * SECOND_NS - SECOND_NS // 2
    pause = threading.Event()

    def film(reached: Callable[[dict[str, Any]], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not reached(logger.status()):
            assert time.monotonic() < deadline
            camera.send(acquired_ns=slow_ns + camera.stream.cnt0 * MS_NS)
            pause.wait(0.001)

    film(lambda status: status["newest_cnt0"] > 3)
    logger.begin(time.time_ns() - 2 * SECOND_NS)
    film(lambda status: status["session_frames"] > 3)
    logger.finish(time.time_ns() - 2 * SECOND_NS)
    film(lambda status: status["saving"] == "off")
    assert logger.wait_saved(1)["session_lost"] == 0
    assert sum("behind" in line for line in logger.lines) == 2


# Losses around the instants


def test_between_the_two_calls_every_frame_is_saved_or_counted(saver):
    """One slot, faster than it can be read, also just before the calls and after them."""
    camera = Camera(ring=0)
    logger = saver()
    untold = 0
    for session in range(1, 41):
        send(camera, 30)
        before = camera.stream.cnt0
        logger.begin()
        send(camera, 30)
        logger.finish()
        send(camera, 30)
        status = logger.wait_saved(session)
        assert status["session_frames"] + status["session_lost"] == 30
        if status["session_frames"]:
            assert before < status["first_cnt0"] <= status["end_cnt0"] <= before + 30
        else:
            untold += 30
    for cube in logger.cubes(camera, untold=untold):
        assert cube.rows["CNT0"][0] - cube.rows["LOST"][0] in range(31, 31 + 40 * 90, 90)


def test_frames_missing_around_the_instant_are_counted_and_those_before_are_not(saver):
    """One slot: of frames that come faster than they are looked at, only some are seen."""
    camera = Camera(ring=0)
    logger = saver()
    for _ in range(20):
        send(camera, 10)
    logger.begin(at(1000))
    logger.wait_state("armed", 1)
    logger.wait_looked_at(send(camera))
    send(camera, 1300 - camera.stream.cnt0)
    logger.wait_looked_at(1300)
    logger.finish()
    status = logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    first = cube.rows[0]
    assert first["CNT0"] >= 1000 > first["CNT0"] - first["LOST"] - 1
    assert status["session_frames"] + status["session_lost"] == 1300 - (
        first["CNT0"] - first["LOST"] - 1
    )


def test_frames_missing_around_the_instant_of_the_end_are_counted_at_the_end(saver):
    camera = Camera(ring=0)
    logger = saver()
    logger.begin()
    logger.wait_looked_at(send(camera))
    logger.finish(at(1000))
    send(camera, 1300)
    status = logger.wait_saved(1)
    cube = logger.cubes(camera)[-1]
    last = int(cube.rows["CNT0"][-1])
    assert last < 1000 <= last + cube.number("NLOSTEND") + 1
    assert status["session_frames"] + status["session_lost"] == last + cube.number("NLOSTEND")


# Whole cubes and limits


def test_a_whole_cube_is_filled_after_the_end(saver):
    camera = Camera()
    logger = saver(cube_size=10)
    logger.begin()
    send(camera, 13)
    logger.finish(whole_cube=True)
    logger.wait_state("ending", 1)
    send(camera, 30)
    logger.wait_saved(1)
    cubes = logger.cubes(camera)
    assert spans(cubes) == [(1, 10), (11, 20)]
    assert reasons(cubes) == ["cube size reached"] * 2


@pytest.mark.parametrize(
    ("stop", "expected"),
    [(13, [(1, 10), (11, 20)]), (11, [(1, 10)]), (10, [(1, 10)]), (2, [(1, 10)])],
)
def test_a_whole_cube_at_an_instant_is_that_of_the_first_frame_after_it(saver, stop, expected):
    camera = Camera()
    logger = saver(cube_size=10)
    logger.begin()
    logger.wait_looked_at(send(camera, 1))
    logger.finish(at(stop), whole_cube=True)
    send(camera, 40)
    logger.wait_saved(1)
    assert spans(logger.cubes(camera)) == expected


def test_a_cube_that_cannot_be_filled_ends_with_the_time_out(saver):
    camera = Camera()
    logger = saver(cube_size=10)
    logger.begin()
    send(camera, 3)
    logger.finish(whole_cube=True)
    logger.wait_state("ending", 1)
    logger.logger.set_timeout(0.05)
    logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    assert (len(cube.rows), cube.reason) == (3, "no frame within the time-out")


def test_a_second_end_gives_up_the_whole_cube(saver):
    camera = Camera()
    logger = saver(cube_size=10)
    logger.begin()
    send(camera, 3)
    logger.finish(whole_cube=True)
    send(camera, 3)
    logger.finish()
    send(camera, 10)
    logger.wait_saved(1)
    assert spans(logger.cubes(camera)) == [(1, 6)]


def test_a_cube_filled_up_ends_at_midnight_and_no_other_is_begun(saver):
    camera = Camera()
    logger = saver(cube_size=10)
    midnight_ns = NOON_NS + DAY_NS // 2
    logger.begin()
    for frame in range(-4, 3):
        camera.send(acquired_ns=midnight_ns + frame * MS_NS)
        if frame == -3:
            logger.finish(whole_cube=True)
    logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    assert (spans([cube]), cube.reason) == ([(1, 4)], "UTC midnight")
    assert cube.number("NLOST") == 0


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_cubes": 2}, [(1, 10), (11, 20)]),
        ({"max_frames": 14}, [(1, 10), (11, 14)]),
        ({"max_frames": 20}, [(1, 10), (11, 20)]),
        ({"max_frames": 4, "max_cubes": 1}, [(1, 4)]),
    ],
)
def test_a_limit_ends_the_session_and_the_next_one_is_free_of_it(saver, limits, expected):
    camera = Camera()
    logger = saver(cube_size=10)
    logger.begin(**limits)
    send(camera, 50)
    logger.wait_saved(1)
    logger.begin()
    send(camera, 12)
    logger.finish()
    logger.wait_saved(2)
    cubes = logger.cubes(camera)
    assert spans(cubes) == [*expected, (51, 60), (61, 62)]
    assert cubes[len(expected)].rows["LOST"][0] == 0


def test_the_limits_of_the_configuration_hold_for_each_session(saver):
    camera = Camera()
    logger = saver(cube_size=10, frames=12)
    for session in (1, 2):
        logger.begin()
        send(camera, 20)
        logger.wait_saved(session)
    logger.begin(max_frames=3)
    send(camera, 20)
    logger.wait_saved(3)
    assert spans(logger.cubes(camera)) == [(1, 10), (11, 12), (21, 30), (31, 32), (41, 43)]


# Pre-trigger


def test_frames_from_before_the_order_come_out_of_the_ring(saver):
    camera = Camera()
    logger = saver()
    logger.wait_looked_at(send(camera, 100))
    logger.begin(at(61))
    send(camera, 5)
    logger.finish()
    logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    assert spans([cube]) == [(61, 105)]
    assert cube.rows["TACQ"].tolist() == [at(frame) for frame in range(61, 106)]
    assert cube.rows["LOST"].sum() == 0
    assert not cube.rows["FLAGS"][0] & ~OF_THE_FRAME


@pytest.mark.parametrize(("there", "first"), [(100, 61), (1, 1)])
def test_frames_that_were_there_before_the_logger_come_out_of_the_ring_too(saver, there, first):
    camera = Camera()
    send(camera, there)
    logger = saver()
    logger.begin(at(first))
    send(camera, 5)
    logger.finish()
    logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    assert spans([cube]) == [(first, there + 5)]
    assert cube.rows["TACQ"][0] == at(first)


def test_a_ring_that_does_not_go_back_far_enough_gives_what_it_has_and_counts_no_loss(saver):
    camera = Camera(ring=32)
    logger = saver()
    for _ in range(10):
        logger.wait_looked_at(send(camera, 10))
    logger.begin(at(1))
    logger.wait(lambda status: status["end_cnt0"] == 100)
    logger.finish()
    logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    assert 60 < cube.rows["CNT0"][0] <= 75
    assert cube.rows["CNT0"][-1] == 100
    assert cube.rows["LOST"].sum() == 0


def test_without_a_ring_a_start_in_the_past_begins_with_the_next_frame(saver):
    camera = Camera(ring=0)
    logger = saver()
    for _ in range(5):
        logger.wait_looked_at(send(camera))
    logger.begin(at(2))
    logger.wait_state("armed", 1)
    for _ in range(3):
        cnt0 = send(camera)
        logger.wait(lambda status, cnt0=cnt0: status["end_cnt0"] == cnt0)
    logger.finish()
    logger.wait_saved(1)
    (cube,) = logger.cubes(camera)
    assert spans([cube]) == [(6, 8)]
    assert cube.rows["LOST"].sum() == 0


def test_no_frame_is_in_two_sessions(saver):
    camera = Camera()
    logger = saver()
    logger.begin()
    send(camera, 20)
    logger.finish()
    send(camera, 5)
    logger.wait_saved(1)
    logger.wait_looked_at(25)
    logger.begin(at(3))
    send(camera, 5)
    logger.finish()
    logger.wait_saved(2)
    assert spans(logger.cubes(camera)) == [(1, 20), (21, 30)]


def test_keywords_of_a_session_are_not_those_of_the_one_before(saver):
    camera = Camera(keywords={"FILTER": "old"})
    logger = saver()
    logger.begin()
    send(camera, 3)
    logger.finish()
    logger.wait_saved(1)
    camera.stream.keywords["FILTER"] = "new"
    logger.wait_looked_at(send(camera, 10))
    logger.begin(at(8))
    send(camera, 3)
    logger.finish()
    logger.wait_saved(2)
    cubes = logger.cubes(camera)
    assert [cube.string("FILTER") for cube in cubes] == ["old", "new"]


# Streams that come and go


def recreated(camera: Camera, **options: Any) -> Camera:
    return Camera(camera.name, **options)


@pytest.mark.parametrize("shape", [(8, 9), (5, 7)])
def test_a_stream_recreated_while_off_costs_nothing(saver, shape):
    camera = Camera()
    logger = saver()
    logger.wait_looked_at(send(camera, 50))
    again = recreated(camera, shape=shape)
    send(again, 20)
    logger.begin()
    send(again, 5)
    logger.finish()
    logger.wait_saved(1)
    (cube,) = logger.cubes(again)
    assert spans([cube]) == [(21, 25)]
    assert cube.rows["LOST"].sum() == 0
    assert not cube.rows["FLAGS"][0] & ~OF_THE_FRAME


@pytest.mark.parametrize("shape", [(8, 9), (5, 7)])
def test_a_stream_recreated_while_armed_is_saved_from_the_instant_on(saver, shape):
    camera = Camera()
    logger = saver()
    logger.begin(at(30))
    logger.wait_looked_at(send(camera, 10))
    again = recreated(camera, shape=shape)
    send(again, 40)
    logger.finish()
    logger.wait_saved(1)
    (cube,) = logger.cubes(again)
    assert spans([cube]) == [(30, 40)]
    assert cube.rows["LOST"].sum() == 0
    assert not cube.rows["FLAGS"][0] & ~OF_THE_FRAME


def test_a_stream_recreated_while_on_goes_on_in_the_session(saver):
    camera = Camera()
    logger = saver()
    logger.begin()
    logger.wait_looked_at(send(camera, 10))
    again = recreated(camera, shape=(5, 7))
    send(again, 8)
    logger.finish()
    send(again, 3)
    logger.wait_saved(1)
    ended = logger.stop()
    first, second = ended.result["files"]
    (cube,) = check_cubes([first], camera.pool)
    assert (len(cube.rows), cube.reason) == (10, "stream re-created with another shape")
    (cube,) = check_cubes([second], again.pool)
    assert (spans([cube]), cube.reason) == ([(1, 8)], "saving paused")
    assert cube.rows["FLAGS"][0] & FrameFlag.STREAM_RECREATED


def test_a_stream_that_is_away_can_be_waited_for_and_given_up(saver):
    camera = Camera()
    logger = saver()
    logger.wait_looked_at(send(camera, 10))
    camera.stream.remove()
    logger.wait(lambda status: not status["attached"])
    logger.begin()
    logger.wait_state("on", 1)
    logger.finish()
    logger.wait_state("off", 1)
    logger.begin()
    logger.wait_state("on", 2)
    again = recreated(camera)
    send(again, 6)
    logger.finish()
    logger.wait_saved(2)
    (cube,) = logger.cubes(again)
    assert spans([cube]) == [(1, 6)]


# The next cube


def test_place_and_size_may_change_from_the_next_cube_on(saver, tmp_path):
    camera = Camera()
    logger = saver(cube_size=5, exact_dir=True)
    logger.begin()
    logger.wait_looked_at(send(camera, 7))
    logger.logger.set_root(tmp_path / "other", True)
    logger.logger.set_cube_size(3)
    logger.wait_looked_at(send(camera, 4))
    logger.logger.set_root(tmp_path / "data", False)
    logger.logger.next_cube()
    logger.wait(lambda status: status["cube_frames"] == 0)
    send(camera, 2)
    logger.finish()
    logger.wait_saved(1)
    cubes = logger.cubes(camera)
    assert spans(cubes) == [(1, 5), (6, 10), (11, 11), (12, 13)]
    folders = [cube.path.parent.relative_to(tmp_path).parts[0] for cube in cubes]
    assert folders == ["data", "data", "other", "data"]
    assert cubes[3].path.parent.name == "cam1"


# Any sequence of orders


class Model:
    """What a logger is to save, a frame or an order after the other. Instants are the numbers
    of the frames acquired then; 0 is the call."""

    def __init__(self, cube_size: int) -> None:
        self.cube_size = cube_size
        self.saved: dict[int, int] = {}  # frame -> session
        self.newest = self.session = self.in_cube = 0
        self.saving = self.filling = self.whole = False
        self.start = self.stop = 0
        self.next_start: int | None = None  # of a session that waits for an end

    @property
    def ending(self) -> bool:
        return self.filling or self.stop > 0

    @property
    def state(self) -> str:
        if self.start:
            return "armed"
        return ("ending" if self.ending else "on") if self.saving else "off"

    def frame(self) -> None:
        self.newest += 1
        self._judge(self.newest)

    def _judge(self, frame: int) -> None:
        if self.start and frame >= self.start:
            self.start, self.saving = 0, True
        if self.saving and self.stop and frame >= self.stop and self._over():
            self._judge(frame)  # perhaps the next session's
        elif self.saving:
            self.saved[frame] = self.session
            self.in_cube = (self.in_cube + 1) % self.cube_size
            if self.filling and not self.in_cube:
                self._over()

    def _over(self) -> bool:
        """Unless a cube is to be filled first."""
        self.stop = 0
        self.filling = self.whole and self.in_cube > 0
        if self.filling:
            return False
        self.saving, self.start, self.in_cube = False, 0, 0
        if self.next_start is not None:
            start, self.next_start = self.next_start, None
            self.begin(start)
        return True

    def begin(self, start: int) -> None:
        if self.ending:
            self.next_start = start
            return
        if self.saving:
            return
        self.session += not self.start
        self.start, self.saving = start, not start
        if start:
            for frame in range(max(self.saved, default=0) + 1, self.newest + 1):
                self._judge(frame)

    def end(self, stop: int, whole: bool) -> None:
        if self.state == "off":
            return
        self.next_start, self.whole = None, whole
        last = max((frame for frame, of in self.saved.items() if of == self.session), default=0)
        disarms = self.start and stop <= self.start
        if stop == 0 or disarms or last >= stop:
            self._over()
        else:
            self.stop = stop


ORDERS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.just("begin"), st.none() | st.integers(-20, 15)),
    st.tuples(st.just("end"), st.none() | st.integers(-5, 15), st.booleans()),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(orders=st.lists(ORDERS, max_size=25), cube_size=st.integers(1, 9))
def test_whatever_is_ordered_each_session_has_its_frames(shm_dir, tmp_path, orders, cube_size):
    camera = Camera()
    root = Path(mkdtemp(dir=tmp_path))  # of this example
    logger = Saver("cam1", root, shm_dir, cube_size=cube_size)
    model = Model(cube_size)
    try:
        follow(orders, camera, logger, model)
        settle(logger, model)
    finally:
        cubes = logger.cubes(camera)
    saved = [int(cnt0) for cube in cubes for cnt0 in cube.rows["CNT0"]]
    assert saved == list(model.saved)
    assert all(cube.rows["LOST"].sum() == 0 for cube in cubes)
    assert logger.logger.result.lost == 0
    of_session = [{model.saved[int(cnt0)] for cnt0 in cube.rows["CNT0"]} for cube in cubes]
    assert all(len(sessions) == 1 for sessions in of_session)


def follow(orders: list[Any], camera: Camera, logger: Saver, model: Model) -> None:
    for kind, value, *more in orders:
        instant = 0 if value is None else max(1, model.newest + value)
        if kind == "send":
            for _ in range(value):
                send(camera)
                model.frame()
        elif kind == "begin":
            logger.begin(at(instant) if instant else 0)
            model.begin(instant)
        else:
            if instant:  # one that comes late cannot undo what was saved
                settle(logger, model)
            logger.finish(at(instant) if instant else 0, whole_cube=more[0])
            model.end(instant, *more)


def settle(logger: Saver, model: Model) -> None:
    """The logger has done all that it was to do so far."""
    frames = list(model.saved.values()).count(model.session)
    expected = (model.state, model.session, frames, model.newest)
    names = ("saving", "session", "session_frames", "newest_cnt0")
    logger.wait(lambda status: tuple(status[name] for name in names) == expected)
