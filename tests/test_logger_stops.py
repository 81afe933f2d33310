"""Ends of cubes and of logging: nothing published is left out, whatever the end; what a kill
leaves on disk is enough to rebuild the cube."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from cube_checks import DAY_NS, SECOND_NS, hidden_files, raw_header
from logger_process import Camera, LoggerThread

from vampires import frame_stamp
from vampires.frame_table import FRAME_DTYPE, FrameFlag

MIDNIGHT_NS = 20_500 * DAY_NS  # 2026-02-16T00:00:00 UTC
MAQTIME = {"_MAQTIME": 0}


def reasons(cubes):
    return [cube.reason for cube in cubes]


def lengths(cubes):
    return [len(cube.rows) for cube in cubes]


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_keeps_every_frame_published_before_it(start_logger, number):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 300).attached()
    camera.send(1000)
    ended = logger.stop(number)
    cubes = ended.cubes(camera.pool)
    assert lengths(cubes) == [300, 300, 300, 100]
    assert cubes[-1].reason == "logging stopped"


def test_a_stop_while_the_camera_runs_keeps_all_up_to_it(start_command, start_logger, shm_dir):
    camera = start_command("framesim", "sim1", "--shape", 20, 30, "--fps", 800, "--ring", 2048)
    camera.stdout.readline()
    logger = start_logger("sim1", "--cube-size", 100)
    logger.wait_frames(250)
    cubes = logger.stop().cubes(None)
    camera.send_signal(signal.SIGINT)
    camera.wait()
    assert sum(lengths(cubes)) >= 250
    assert not any(cube.number("NLOST") for cube in cubes)


def test_a_second_signal_does_not_hurt(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(500)
    logger.send_signal(signal.SIGINT)
    logger.send_signal(signal.SIGTERM)
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 500


def test_a_camera_that_stopped_does_not_delay_the_stop(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(5)
    logger.wait_frames(5)
    camera.stream.remove()
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 5


def test_no_frame_no_file(start_logger, tmp_path):
    Camera()
    ended = start_logger("cam1").attached().stop()
    assert ended.status == 0
    assert (ended.result["frames_seen"], ended.result["files"]) == (0, [])
    assert list((tmp_path / "data").iterdir()) == []


def test_sigusr1_begins_the_next_cube(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(5)
    logger.wait_frames(5)
    logger.send_signal(signal.SIGUSR1)
    logger.wait_for("cube 1: 0/")
    camera.send(7)
    logger.wait_frames(12)
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [5, 7]
    assert reasons(cubes) == ["next cube asked for", "logging stopped"]


def test_sigusr1_without_a_cube_changes_nothing(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    logger.send_signal(signal.SIGUSR1)
    logger.wait_for("cube 0: 0/")
    logger.send_signal(signal.SIGUSR1)
    camera.send(4)
    logger.wait_frames(4)
    ended = logger.stop()
    assert sum(lengths(ended.cubes(camera.pool))) == 4


# Ends that nobody asked for


def test_a_timeout_closes_the_cube_and_logging_goes_on(start_logger, tmp_path):
    camera = Camera()
    logger = start_logger("cam1", "--timeout", 0.3).attached()
    camera.send(3)
    logger.wait_for("cube 1: 3/")
    logger.wait_for("cube 1: 0/", after=len(logger.lines))
    camera.send(4)
    logger.wait_frames(7)
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [3, 4]
    assert cubes[0].reason == "no frame within the time-out"
    assert not any(cube.number("NLOST") for cube in cubes)


def test_no_cube_straddles_midnight(start_logger, tmp_path):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1").attached()
    for frame in range(-4, 3):
        camera.send(acquired_ns=MIDNIGHT_NS + frame * 1000)
    logger.wait_frames(7)
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [4, 3]
    assert cubes[0].reason == "UTC midnight"
    assert [str(cube.path.relative_to(tmp_path / "data")) for cube in cubes] == [
        "20260215/cam1/cam1_23:59:59.999996000.fits",
        "20260216/cam1/cam1_00:00:00.000000000.fits",
    ]
    assert cubes[0].string("UT-END") == "23:59:59.999999"
    assert cubes[1].string("UT-STR") == "00:00:00.000000"


def test_a_clock_that_steps_back_begins_a_cube(start_logger):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1").attached()
    times = [100, 101, 102, 50, 51, 49, 52]
    for second in times:
        camera.send(acquired_ns=MIDNIGHT_NS + second * SECOND_NS)
    logger.wait_frames(len(times))
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [3, 2, 2]
    assert reasons(cubes)[:2] == ["clock stepped back"] * 2
    steps = [bool(cube.rows["FLAGS"][0] & FrameFlag.CLOCK_STEP) for cube in cubes]
    assert steps == [False, True, True]
    assert all(cube.first_ns <= cube.last_ns for cube in cubes)


@pytest.mark.parametrize("seconds", [[-1, 0, 1], [100, 101, 50]], ids=["midnight", "step"])
def test_a_number_of_cubes_holds_also_when_a_cube_is_cut_short(start_logger, seconds):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1", "--cubes", 1, "--cube-size", 10).attached()
    for second in seconds:
        camera.send(acquired_ns=MIDNIGHT_NS + second * SECOND_NS)
    assert len(logger.end().cubes(camera.pool)) == 1


def test_two_frames_of_one_instant_get_two_files(start_logger):
    """Cubes that begin at the same time, as after a clock that stepped back."""
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1", "--cube-size", 1, "--cubes", 3).attached()
    for number, second in enumerate([5, 4, 5], 1):
        camera.send(acquired_ns=MIDNIGHT_NS + second * SECOND_NS)
        logger.wait_frames(number) if number < 3 else None
    names = [cube.path.name for cube in logger.end().cubes(camera.pool)]
    assert names == [
        "cam1_00:00:05.000000000.fits",
        "cam1_00:00:04.000000000.fits",
        "cam1_00:00:05.000000001.fits",
    ]


def test_a_new_cube_size_holds_from_the_next_cube(shm_dir, tmp_path):
    camera = Camera()
    logger = LoggerThread("cam1", tmp_path / "data", shm_dir, cube_size=6).attached()
    camera.send(2)
    logger.wait_status(frames=2)
    logger.logger.set_cube_size(3)
    camera.send(14)
    logger.wait_status(frames=16)
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [6, 3, 3, 3, 1]


def test_next_cube_can_be_asked_for_from_a_script(shm_dir, tmp_path):
    camera = Camera()
    logger = LoggerThread("cam1", tmp_path / "data", shm_dir).attached()
    camera.send(2)
    logger.wait_status(frames=2)
    logger.logger.next_cube()
    pause = threading.Event()
    while logger.logger.status()["cube_frames"]:
        pause.wait(0.001)
    camera.send(2)
    logger.wait_status(frames=4)
    assert lengths(logger.stop().cubes(camera.pool)) == [2, 2]


# What is visible when


def test_a_cube_is_visible_only_when_it_is_complete(start_logger, tmp_path):
    camera = Camera(shape=(50, 60))
    logger = start_logger("cam1", "--cube-size", 20, "--cubes", 10).attached()
    seen: set[Path] = set()

    def look() -> None:
        for path in sorted((tmp_path / "data").rglob("*.fits")):
            assert path.name[0] != "."
            if path not in seen:
                header, _ = raw_header(path.read_bytes())
                assert header["NAXIS3"] == "20" and "DATASUM" in header
                lines = path.with_suffix(".txt").read_text().splitlines()
                assert sum(line[0] != "#" for line in lines) == 20
                seen.add(path)

    for _ in range(200):
        camera.send()
        look()
    while logger.process.poll() is None:
        look()
    look()
    assert len(logger.end().cubes(camera.pool)) == len(seen) == 10


def test_hidden_names_match_no_pattern_of_a_reader(start_logger, tmp_path):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(3)
    logger.wait_frames(3)
    folder = next((tmp_path / "data").glob("*/cam1"))
    pause = threading.Event()
    while not (names := [path.name for path in folder.iterdir()]):
        pause.wait(0.001)
    assert all(name[0] == "." and not name.endswith((".fits", ".txt")) for name in names)
    logger.stop().cubes(camera.pool)


# Kill


def rebuild(cube: Path) -> tuple[dict[str, str], np.ndarray, np.ndarray]:
    """Header, rows and frames (uint16) of an unfinished cube; as many as both files hold."""
    content = cube.read_bytes()
    header, _ = raw_header(content)
    header_bytes = content.index(b"END".ljust(80)) // 2880 * 2880 + 2880
    journal = cube.with_suffix(".frames").read_bytes()
    rows = np.frombuffer(journal, FRAME_DTYPE, len(journal) // FRAME_DTYPE.itemsize)
    shape = int(header["NAXIS2"]), int(header["NAXIS1"])
    pixels = np.frombuffer(content[header_bytes:], ">i2", len(rows) * shape[0] * shape[1])
    frames = (pixels.astype(np.int32) + int(header["BZERO"])).astype(np.uint16)
    return header, rows, frames.reshape(len(rows), *shape)


def journal_rows(root: Path) -> int:
    sizes = [path.stat().st_size for path in root.rglob(".*.frames")]
    return sum(sizes) // FRAME_DTYPE.itemsize


def check_rebuilt(root: Path, camera: Camera) -> np.ndarray:
    (path,) = [Path(name) for name in hidden_files(root) if name.endswith(".cube")]
    header, rows, frames = rebuild(path)
    for row, frame in zip(rows, frames, strict=True):
        expected = frame_stamp.expected_frame(camera.pool, int(row["CNT0"]))
        np.testing.assert_array_equal(frame, expected)
    assert (np.diff(rows["CNT0"].astype(int)) == rows["LOST"][1:] + 1).all()
    assert header["CNT0-BEG"] == str(rows["CNT0"][0])
    assert header["DETECTOR"].strip("'").rstrip() == "VCAM1 - OrcaQ"
    return rows


@pytest.mark.parametrize("interval_s", [0.002, 0.25])
def test_a_kill_leaves_all_but_the_last_moment(start_logger, tmp_path, interval_s):
    """Also where frames come so slowly that no chunk of memory ever fills."""
    camera = Camera(keywords={"DETECTOR": "VCAM1 - OrcaQ"} | MAQTIME)
    logger = start_logger("cam1").attached()
    pause = threading.Event()
    first_ns = MIDNIGHT_NS
    sent = 0

    def send() -> None:
        nonlocal sent
        camera.send(acquired_ns=first_ns + sent * 1000)
        sent += 1
        pause.wait(interval_s)

    for _ in range(max(4, int(0.5 / interval_s))):
        send()
    due = sent  # these reach the disk while the camera goes on
    while journal_rows(tmp_path) < due:
        send()
    logger.send_signal(signal.SIGKILL)
    assert logger.end().status == -signal.SIGKILL
    rows = check_rebuilt(tmp_path, camera)
    assert len(rows) >= due
    # At most what half a second (and the kill itself) brings is not there.
    assert sent - len(rows) <= max(2, 1.0 / interval_s)
    times = [first_ns + (cnt0 - 1) * 1000 for cnt0 in rows["CNT0"].tolist()]
    assert rows["TACQ"].tolist() == times
    assert list(tmp_path.rglob("*.fits")) == []


def test_what_a_kill_left_does_not_disturb_the_next_logger(start_logger, tmp_path):
    camera = Camera(keywords={"DETECTOR": "VCAM1 - OrcaQ"})
    killed = start_logger("cam1").attached()
    camera.send(9)
    pause = threading.Event()
    while journal_rows(tmp_path) < 9:
        pause.wait(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.end()
    left = hidden_files(tmp_path)
    logger = start_logger("cam1").attached()
    camera.send(5)
    logger.wait_frames(5)
    (cube,) = logger.stop().cubes(camera.pool, hidden=len(left))
    assert cube.rows["CNT0"].tolist() == [10, 11, 12, 13, 14]
    assert hidden_files(tmp_path) == left
    assert len(check_rebuilt(tmp_path, camera)) == 9
