"""The disk guard: cubes end before a disk is full, logging goes on on the next one or when room
returns, a start without room is refused, and what no disk took is counted."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cube_checks import check_cubes, hidden_files
from logger_process import PATIENCE_S, Camera
from small_disks import memory_disks
from space_campaign import KINDS, SYSTEMS, Case, disk, play

from vampires import logger_control as loggers
from vampires import logger_parameters as names
from vampires.disk_room import (
    ALARM_S,
    WARNING_S,
    RoomLevel,
    disk_room,
    room_level,
    room_text,
    time_to_full_s,
)
from vampires.log_volumes import Choice, LogVolumes, chosen, fault_of_room, frames_that_fit
from vampires.room_watch import RoomWatch

FRAME = 2 * 100 * 100


@pytest.fixture
def two_disks(tmp_path: Path) -> Iterator[Callable[[str, str], tuple[Path, Path]]]:
    """two_disks(options, options) -> two file systems in memory."""
    with memory_disks(tmp_path / "one") as first, memory_disks(tmp_path / "two") as second:
        yield lambda a, b: (first(a), second(b))


def start_on(start_logger, first: Path, second: Path | None, *arguments: object):
    further = () if second is None else ("--next-dir", second / "data")
    logger = start_logger("cam1", "--dir", first / "data", *further, *arguments).attached()
    logger.root = first
    return logger


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def growing(disk: Path) -> list[str]:
    return [name for name in hidden_files(disk) if name.endswith(".cube")]


def fits_in(disk: Path) -> list[Path]:
    return sorted(disk.rglob("*.fits"))


# How long it lasts


def test_the_level_follows_the_time_that_is_left():
    rate = 280e6
    assert room_level(rate * (WARNING_S + 1), rate) is RoomLevel.OK
    assert room_level(rate * (WARNING_S - 1), rate) is RoomLevel.LOW
    assert room_level(rate * (ALARM_S - 1), rate) is RoomLevel.ALARM
    assert room_level(1e9, rate, cube_bytes=1e9) is RoomLevel.FULL
    assert room_level(1, 0) is RoomLevel.OK and room_level(0, 0) is RoomLevel.FULL
    assert time_to_full_s(1e9, 0) == -1 and time_to_full_s(-5, 1) == 0
    assert room_text(1.2e12, 1e8) == "1.2 TB free, full in 3 h 20 min"
    assert room_text(1e6, 0, 2e6) == "1 MB free, no room for another cube"


def test_a_level_is_told_once_when_it_is_crossed_and_again_after_it_was_better():
    watch = RoomWatch()
    free = [2000, 1799, 1801, 1790, 299, 305, 290, 4000, 1700]
    said = [watch.line("/data", seconds * 1e6, 1e6, 0) for seconds in free]
    assert [bool(line) for line in said] == [s in (1799, 299, 1700) for s in free]
    assert said[1].startswith("the disk fills: /data has 1.8 GB free, full in 30 min")
    assert said[4].startswith("disk alarm: /data has 299 MB free, full in 5 min")


def test_room_is_told_of_a_directory_that_is_not_there_yet(tmp_path):
    room = disk_room(tmp_path / "not" / "there")
    assert 0 < room.free_bytes < room.total_bytes and not room.read_only


# Which disk


def test_a_cube_goes_to_the_first_disk_that_takes_all_of_it():
    one, two = Path("/one"), Path("/two")
    assert chosen([Choice(one, 100), Choice(two, 500)], 100, 0) == Choice(one, 100)
    assert chosen([Choice(one, 99), Choice(two, 500)], 100, 0) == Choice(two, 100)
    assert chosen([Choice(one, 30), Choice(two, 60)], 100, 0) == Choice(two, 60)
    assert chosen([Choice(one, 9)], 100, 0) is None  # not worth a file
    assert chosen([Choice(one, 30)], 100, 30) is None  # it has grown larger than that
    assert chosen([], 100, 0) is None


def test_the_frames_that_fit_have_room_with_all_their_tables():
    from vampires import _core

    for free in (10**6, 10**7, 10**9):
        frames = frames_that_fit(free, 5760, FRAME)
        assert _core.cube_room_bytes(5760, FRAME, frames) <= free
        assert _core.cube_room_bytes(5760, FRAME, frames + 1) > free
    assert frames_that_fit(1000, 5760, FRAME) == 0


def test_a_disk_that_failed_comes_last_for_a_while():
    one, two, three = (Path(name) for name in ("/one", "/two", "/three"))
    volumes = LogVolumes([one, two, three, one])
    volumes.use(two)
    assert volumes.in_order() == [two, three, one]
    volumes.avoid(two)
    assert volumes.in_order() == [three, one, two]


def test_what_keeps_a_cube_from_being_begun_is_said_of_each_disk():
    found: dict[Path, int | str] = {Path("/a"): 10**6, Path("/b"): "Read-only file system"}
    fault = fault_of_room(found, FRAME, 1000)
    assert "no room for a cube of 1000 frames (20.6 MB)" in fault
    assert "/a has 1 MB free, /b: Read-only file system" in fault
    assert fault_of_room(found | {Path("/c"): 10**9}, FRAME, 1000) == ""


# A logger


def test_a_full_disk_ends_its_cubes_whole_and_the_next_disk_takes_the_others(
    start_logger, two_disks
):
    one, two = two_disks("size=4m", "size=16m")
    camera = Camera(shape=(100, 100))
    logger = start_on(start_logger, one, two, "--cube-size", 60)
    for sent in range(50, 401, 50):
        camera.send(50)
        logger.wait_frames(sent)
    logger.wait_for(f"logging goes on in {two / 'data'}")
    cubes = logger.stop().cubes(camera.pool)
    assert sum(len(cube.rows) for cube in cubes) == 400
    assert fits_in(one) and fits_in(two) and hidden_files(two) == []
    before = [cube for cube in cubes if one in cube.path.parents]
    assert before == cubes[: len(before)]


def test_it_does_not_go_back_to_the_first_disk_when_that_has_room_again(
    start_logger, two_disks
):
    one, two = two_disks("size=4m", "size=32m")
    camera = Camera(shape=(100, 100))
    logger = start_on(start_logger, one, two, "--cube-size", 30)
    ballast = one / "ballast"
    ballast.write_bytes(bytes(3_800_000))
    camera.send(60)
    logger.wait_frames(60)
    ballast.unlink()
    camera.send(300)
    logger.wait_frames(360)
    assert logger.stop().status == 0
    assert fits_in(one) == [] and len(fits_in(two)) == 12


def test_a_start_without_room_for_one_cube_is_refused_with_the_reason(start_logger, two_disks):
    one, two = two_disks("size=2m", "size=3m")
    Camera(shape=(100, 100))
    arguments = ("--dir", one / "data", "--next-dir", two / "data", "--cube-size", 500)
    ended = start_logger("cam1", *arguments).end()
    assert ended.status == 2
    assert "no room for a cube of 500 frames" in ended.error
    assert f"{one / 'data'} has" in ended.error and f"{two / 'data'} has" in ended.error
    assert start_logger("cam1", *arguments, "--frames", 20).attached().stop().status == 0


def test_a_disk_that_turns_read_only_is_left_for_the_next(start_logger, two_disks):
    one, two = two_disks("size=16m", "size=16m")
    camera = Camera(shape=(100, 100))
    logger = start_on(start_logger, one, two, "--cube-size", 30)
    camera.send(30)
    wait_until(lambda: fits_in(one))
    subprocess.run(["mount", "-o", "remount,ro", str(one)], check=True)
    camera.send(90)
    logger.wait_frames(120)
    logger.wait_for(f"logging goes on in {two / 'data'}")
    ended = logger.stop()
    assert ended.result["frames_seen"] == 120 and ended.result["lost"] == 0
    cubes = check_cubes(ended.result["files"], camera.pool)
    assert [len(cube.rows) for cube in cubes] == [30] * 4
    assert len(fits_in(one)) == 1 and len(fits_in(two)) == 3


def test_a_disk_that_is_unmounted_leaves_nothing_below_its_mount_point(start_logger, two_disks):
    one, two = two_disks("size=16m", "size=16m")
    camera = Camera(shape=(100, 100))
    logger = start_on(start_logger, one, two, "--cube-size", 30)
    camera.send(40)
    logger.wait_frames(40)
    wait_until(lambda: fits_in(one) and growing(one))
    subprocess.run(["umount", "-l", str(one)], check=True)
    try:
        camera.send(50)
        logger.wait_frames(90)
        logger.wait_for(f"logging goes on in {two / 'data'}")
        ended = logger.stop()
    finally:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(one)], check=True)
    assert ended.result["frames_seen"] == 90 and ended.result["lost"] == 0, ended.text
    there = [file for file in ended.result["files"] if str(two) in file]
    cubes = check_cubes(there, camera.pool)
    # The first cube was whole on the disk that went; the second, cut off there, came over.
    assert [len(cube.rows) for cube in cubes] == [30, 30]
    assert fits_in(one) == [] and hidden_files(two) == []


def test_a_cube_that_no_file_may_hold_is_not_begun_as_with_a_quota(
    start_logger,
):
    """The limit of file sizes stands for a quota: writes fail while the disk has room."""
    camera = Camera(shape=(100, 100))
    limit = 50 * FRAME
    logger = start_logger(
        "cam1",
        *("--cube-size", 60),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ).attached()
    camera.send(100)
    logger.wait_for("File too large; trying again, frames wait in memory")
    logger.wait_frames(100)
    ended = logger.stop()
    assert ended.status == 3
    cubes = check_cubes(ended.result["files"], camera.pool)
    assert ended.result["frames_seen"] == 100
    assert ended.result["lost"] == 100 - sum(len(cube.rows) for cube in cubes)
    assert cubes and all(cube.path.stat().st_size <= limit for cube in cubes)


def test_a_kill_leaves_no_file_longer_than_what_was_written(start_logger, tmp_path):
    camera = Camera(shape=(100, 100))
    logger = start_logger("cam1", "--cube-size", 5000).attached()
    camera.send(100)
    logger.wait_frames(100)
    folder = tmp_path / "data"
    wait_until(lambda: any(f.stat().st_size == 5600 for f in folder.rglob(".*.frames")))
    logger.send_signal(signal.SIGKILL)
    logger.process.wait()
    (cube,) = folder.rglob(".*.cube")
    (journal,) = folder.rglob(".*.frames")
    assert cube.stat().st_size < 102 * FRAME + (64 << 10)
    assert journal.stat().st_size == 100 * 56
    kept = cube.stat().st_blocks * 512
    if kept < 5000 * FRAME:
        return  # this file system keeps no space; there is nothing that could have been zeros
    os.truncate(cube, cube.stat().st_size)  # as who recovers it does: the space is given back
    assert cube.stat().st_blocks * 512 < 200 * FRAME


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", KINDS)
def test_when_space_runs_out_every_frame_is_published_or_counted(
    tmp_path, shm_dir, system, kind
):
    with memory_disks(tmp_path / "probe") as mount:  # or says why it cannot
        mount("size=1m")
    folder = tmp_path / "case"
    folder.mkdir()
    outcome = play(Case(0, 5000, system, kind, 40), folder, shm_dir)
    assert outcome.seen == outcome.logged + outcome.lost
    assert outcome.cubes >= 4


def test_a_cube_that_ended_for_want_of_room_says_so(tmp_path, start_logger):
    camera = Camera(shape=(100, 100))
    with memory_disks(tmp_path / "probe") as mount:
        mount("size=1m")
    with disk(tmp_path, "small", "ext4", 8 << 10) as small:
        spare = disk_room(small).free_bytes - 90 * FRAME - (700 << 10)
        (small / "ballast").write_bytes(bytes(spare))
        logger = start_on(start_logger, small, None, "--cube-size", 60)
        camera.send(60)
        wait_until(lambda: len(fits_in(small)) == 1)
        camera.send(1)
        wait_until(lambda: growing(small))
        camera.send(79)
        logger.wait_for("cannot open a cube")
        wait_until(lambda: len(hidden_files(small)) == 0)
        cubes = check_cubes(fits_in(small), camera.pool)
        logger.stop()
    assert [cube.reason for cube in cubes] == ["cube size reached", "disk full"]
    assert len(cubes[0].rows) == 60 and 20 < len(cubes[1].rows) < 60


# What observers see


def answer(**known: object) -> dict[str, object]:
    return {"running": True, "disk_free_bytes": 90e9, "full_in_s": 1000.0} | known


def test_the_table_says_how_urgent_it_is():
    from vampires.commands.status_table import _disk

    assert _disk(answer(full_in_s=1e4)) == ("90 GB free, full in 2 h 47 min", False)
    assert _disk(answer(room_level="low")) == ("90 GB free, full in 17 min, LOW", False)
    assert _disk(answer(room_level="alarm", full_in_s=240.0)) == (
        "90 GB free, full in 4 min, ALARM",
        True,
    )
    assert _disk(answer(room_level="full", full_in_s=None)) == ("90 GB free, FULL", True)


def test_a_saveon_without_room_is_refused_and_told(start_command, two_disks, shm_dir):
    one, two = two_disks("size=2m", "size=3m")
    Camera(shape=(100, 100)).send(1)
    with names.make_logger_fps("cam1") as fps:
        names.set_values(fps, {"dirname": str(one), "nextdirs": f"{two}:{one / 'more'}"})
        names.set_values(fps, {"ringmemory": 16, "procinfo.RTprio": 0, "cubesize": 500})
        assert names.next_directories(fps) == [two, one / "more"]
        process = start_command("fps-exec", "-n", fps.name, "streamFITSlog _RUNSTART_ cam1")
        wait_until(lambda: fps["state"] == "idle" and fps["framebytes"] and fps["diskfree"])
        # By the command, and by another client of the FPS.
        (outcome,) = loggers.start(["cam1"])
        assert "no room for a cube of 500 frames" in outcome.error
        assert f"{one} has" in outcome.error and f"{two} has" in outcome.error
        wait_until(lambda: fps["roomlevel"] == "full")
        fps["saveON"] = True
        wait_until(lambda: not fps["saveON"] and "cannot start saving" in fps["lasterror"])
        assert fps["session"] == 0
        state = loggers.look("cam1")
        assert state.room_level == "full" and state.directory_in_use == str(one)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_the_configured_list_of_directories_is_checked():
    from pydantic import ValidationError

    from vampires.config_models import LoggingConfig

    given = LoggingConfig.model_validate({"next_directories": ["/a", "~/b"]})
    assert given.next_directories == (Path("/a"), Path.home() / "b")
    for wrong in (["a"], ["/a:b"], ["/a\n"], "/a"):
        with pytest.raises(ValidationError):
            LoggingConfig.model_validate({"next_directories": wrong})
