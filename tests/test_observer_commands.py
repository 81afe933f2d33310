"""The observer's commands: what is typed happens, in both cameras, or the reason is told."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from control_room import RATE_HZ, ControlRoom, control_room, path_without, tmux_sessions
from fps_makers import copy_golden, seem_running
from fps_terminal import Terminal, colour_of, terminal
from logger_process import PATIENCE_S
from small_disks import memory_disks

from vampires import logger_control as loggers
from vampires import tmux
from vampires.commands.pauselog import Progress
from vampires.commands.status_table import bytes_text, duration, table
from vampires.cube_length import proposed_length
from vampires.disk_room import mount_of
from vampires.fps import FPS
from vampires.fps_control import FPSControl
from vampires.instrument.file import instrument_on
from vampires.log_directory import DirectoryRefused, check_directory, parse_directory
from vampires.stream import Stream

COMMANDS = ("preplog", "startlog", "pauselog", "stoplog", "datatype", "object", "logstatus")
BOTH = ("vcam1", "vcam2")
HEAVY = ("numpy", "astropy", "pydantic", "textual", "vampires._core")


@pytest.fixture
def room(
    shm_dir: Path, start_command: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ControlRoom]:
    with control_room(shm_dir, start_command, monkeypatch) as room:
        yield room


@pytest.fixture
def ready(room: ControlRoom) -> ControlRoom:
    """Both cameras take frames together, and their loggers are ready."""
    room.add_cameras()
    room.trigger()
    room.ok("preplog", "--yes", "-n", 50)
    return room


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line]


def call(command: str, *arguments: str) -> int:
    """Runs a command in this process; its exit status."""
    module = importlib.import_module(f"vampires.commands.{command}")
    status: int = module.main(arguments)
    return status


# A night ----------------------------------------------------------------------------------


def test_a_night_from_preplog_to_kill(room: ControlRoom) -> None:
    room.add_cameras()
    room.trigger()
    assert room.run("logstatus").returncode == 1
    said = room.ok("preplog", "--yes", "-n", 50)
    assert 'FPS_FILTSTRING_NAME="streamFITSlog-vcam" milk-fpsCTRL' in said
    assert room.ok("logstatus").count("idle") == 2

    room.ok("startlog")
    room.wait_frames(60)
    assert room.ok("logstatus").count("logging") == 2
    said = room.ok("pauselog")
    assert all(file in said for name in BOTH for file in room.files(name))
    cut = len(room.files())

    room.ok("startlog", "-n", 20)
    room.wait_frames(25)
    room.ok("pauselog", "--wait")
    whole = len(room.files())
    room.ok("startlog")
    room.wait_frames(1)
    room.ok("stoplog")
    assert not room.look().running
    assert {state.lights[1] for state in map(room.look, BOTH)} == {"alive"}
    room.ok("stoplog", "--kill")
    assert not room.look().prepared
    assert tmux_sessions() == set()

    one, two = room.cubes("vcam1"), room.cubes("vcam2")
    assert [c.rows["CNT0"].tolist() for c in one] == [c.rows["CNT0"].tolist() for c in two]
    sizes = [len(cube.rows) for cube in one]
    assert set(sizes[: cut - 1]) == {50}
    assert set(sizes[cut:whole]) == {20}
    assert len(sizes) > whole > cut + 1
    assert all(file.split("/")[-4:-2:2] == ["data"] for file in room.files())


def test_what_was_saved_is_told(ready: ControlRoom) -> None:
    began = ready.answers("startlog")
    ready.wait_frames(120)
    ended = ready.answers("pauselog")
    for name in BOTH:
        cubes = ready.cubes(name)
        numbers = [int(n) for cube in cubes for n in cube.rows["CNT0"]]
        assert ended[name]["files"] == ready.files(name)
        assert ended[name]["n_files"] == len(cubes)
        assert ended[name]["frames"] == len(numbers)
        assert ended[name]["lost"] == ended[name]["torn"] == 0
        assert (began[name]["first_cnt0"], ended[name]["end_cnt0"]) == (numbers[0], numbers[-1])
        assert abs(began[name]["first_ns"] - cubes[0].first_ns) < 1000
    assert began["vcam1"]["first_cnt0"] == began["vcam2"]["first_cnt0"]


def test_a_number_of_cubes_ends_saving_by_itself(ready: ControlRoom) -> None:
    said = ready.ok("startlog", "-n", 10, "-z", 3)
    assert said.splitlines()[-1] == "10 frames a cube, 3 cubes"
    ready.wait(lambda: not any(ready.look(name).saving for name in BOTH), "the end")
    said = ready.ok("pauselog")
    assert said.count("was not being saved; before: 30 frames") == 2
    assert [len(cube.rows) for cube in ready.cubes()] == [10, 10, 10]


def test_one_camera_alone(ready: ControlRoom) -> None:
    for given in ("2", "vcam2"):
        ready.ok("startlog", "-c", given)
        assert [ready.look(name).saving for name in BOTH] == [False, True]
        ready.ok("pauselog", "-c", given)
    assert ready.files("vcam1") == []


# Pre-trigger ------------------------------------------------------------------------------


def test_frames_from_before_the_command_are_in_the_file(ready: ControlRoom) -> None:
    ready.wait(lambda: ready.look().newest_cnt0 > 250, "frames")
    answer = ready.answers("startlog", "--pre", 0.5)
    assert answer["vcam1"]["first_cnt0"] == answer["vcam2"]["first_cnt0"]
    for name in BOTH:
        assert answer[name]["before_s"] == pytest.approx(0.5, abs=3 / 200)
    ready.wait_frames(100)
    ended = ready.answers("pauselog")
    assert ready.cubes()[0].rows["CNT0"][0] == answer["vcam1"]["first_cnt0"]
    # What is saved is not saved again.
    assert "the frames before are in the last file" in ready.ok("startlog", "--pre", 4)
    assert ready.look().first_cnt0 == ended["vcam1"]["end_cnt0"] + 1


def test_what_the_ring_does_not_reach_is_told(room: ControlRoom) -> None:
    for name in BOTH:
        room.add_camera(name, ring=64)
    room.trigger()
    room.ok("preplog", "--yes", "-n", 50)
    room.wait(lambda: room.look().newest_cnt0 > 100, "frames")
    done = room.run("startlog", "--pre", 30)
    assert done.returncode == 0
    assert done.stdout.count("(not 30 s: the ring of the stream reaches no further)") == 2
    assert room.look("vcam1").first_cnt0 == room.look("vcam2").first_cnt0
    # Both were told the same, shorter time: else each would take what its own ring holds.
    before = [FPS.open(f"streamFITSlog-{name}")["pretrigger"] for name in BOTH]
    assert before[0] == before[1] < 64 / RATE_HZ


def test_without_frames_the_loggers_wait_for_them(room: ControlRoom) -> None:
    room.add_cameras()
    room.ok("preplog", "--yes", "-n", 5)
    said = room.ok("startlog")
    assert said.count("armed, waiting for frames") == 2
    for camera in room.cameras.values():
        camera.send(7)
    room.wait_frames(7)
    room.ok("pauselog")
    assert [len(cube.rows) for cube in room.cubes()] == [5, 2]


def test_cameras_that_do_not_begin_together_are_told() -> None:
    from vampires.commands import startlog

    def answer(camera: str, cnt0: int, time_ns: int) -> dict[str, Any]:
        facts = {"first_cnt0": cnt0, "first_ns": time_ns, "rate_hz": 500.0, "error": ""}
        return {"camera": camera, **facts}

    one = answer("vcam1", 7, 10**18)
    assert startlog._status([one, answer("vcam2", 7, 10**18 + 300_000)]) == 0
    assert startlog._status([one, answer("vcam2", 8, 10**18 + 2_000_000)]) == 4
    (line,) = startlog._apart([one, answer("vcam2", 8, 10**18 + 2_000_000)])
    assert "2.000 ms apart" in line
    (line,) = startlog._numbered_differently([one, answer("vcam2", 10, 10**18 + 300_000)])
    assert "differ by 3" in line


# Cameras that differ ----------------------------------------------------------------------

DIFFERENT = {
    "DATA-TYP": {"DATA-TYP": ("DARK", "")},
    "EXTTRIG": {"EXTTRIG": (True, "")},
}


def ready_to_differ(room: ControlRoom, *keys: str) -> None:
    """Cameras that differ in these, with loggers that are ready."""
    alike = {"FRATE": (RATE_HZ, ""), "DATA-TYP": ("FLAT", ""), "EXTTRIG": (False, "")}
    other = alike | {
        name: given for key in keys for name, given in DIFFERENT.get(key, {}).items()
    }
    room.add_camera("vcam1", keywords={**alike, "_MAQTIME": (0, "")})
    shape = (20, 30) if "CROP" in keys else (8, 9)
    room.add_camera("vcam2", keywords={**other, "_MAQTIME": (0, "")}, shape=shape)
    room.trigger()
    room.ok("preplog", "--yes", "-n", 50)


@pytest.mark.parametrize("keys", [["DATA-TYP"], ["CROP"], ["EXTTRIG"], ["DATA-TYP", "EXTTRIG"]])
def test_cameras_that_differ_are_not_started(room: ControlRoom, keys: list[str]) -> None:
    ready_to_differ(room, *keys)
    sessions = [room.look(name).session for name in BOTH]
    answers = room.answers("startlog", status=5)
    for name in BOTH:
        assert answers[name]["differs"] == keys
        assert answers[name]["error"]
    assert answers["vcam1"]["data_type"] == "FLAT"
    done = room.run("startlog")
    assert (done.returncode, done.stdout) == (5, "")
    assert len(lines_of(done)) == len(keys)
    for key, line in zip(keys, lines_of(done), strict=True):
        assert all(word in line for word in (key, *BOTH, "--force"))
    assert [room.look(name).session for name in BOTH] == sessions
    assert not any(room.look(name).saving for name in BOTH)
    # Each by itself, and both when that is asked for.
    room.ok("startlog", "-c", 2)
    room.ok("pauselog")
    answers = room.answers("startlog", "--force")
    assert [answers[name]["differs"] for name in BOTH] == [[], []]
    assert all(room.look(name).saving for name in BOTH)


def test_what_the_refusal_says_to_type_makes_them_start(room: ControlRoom) -> None:
    ready_to_differ(room, "DATA-TYP")
    (line,) = lines_of(room.run("startlog"))
    assert "vampires_datatype FLAT" in line
    room.ok("datatype", "FLAT")
    room.ok("startlog")


def test_cameras_that_do_not_say_what_they_are_start(room: ControlRoom) -> None:
    room.add_camera("vcam1", keywords={"EXTTRIG": (True, ""), "DATA-TYP": ("DARK", "")})
    room.add_camera("vcam2", keywords={})
    room.trigger()
    room.ok("preplog", "--yes", "-n", 50)
    room.ok("startlog")


def test_a_camera_without_number_is_not_compared(room: ControlRoom) -> None:
    ready_to_differ(room)
    room.add_camera("vpupcam", keywords={"DATA-TYP": ("TEST", "")}, shape=(40, 50))
    room.ok("preplog", "--yes", "-c", "vpupcam")
    room.trigger("vpupcam")
    assert [a["error"] for a in room.answers("startlog", "-c", "1,2,vpupcam").values()] == [
        ""
    ] * 3
    room.ok("pauselog", "-c", "1,2,vpupcam")
    room.ok("datatype", "dark", "-c", 1)
    answers = room.answers("startlog", "-c", "1,2,vpupcam", status=5)
    assert [a["differs"] for a in answers.values()] == [["DATA-TYP"], ["DATA-TYP"], []]
    assert all(a["error"] for a in answers.values())
    assert not room.look("vpupcam").saving


# What is not as it should be --------------------------------------------------------------


def test_nothing_prepared(room: ControlRoom) -> None:
    room.add_cameras()
    for command in ("startlog", "pauselog"):
        done = room.run(command)
        assert done.returncode == 1
        assert len(lines_of(done)) == 2
        assert all("is not prepared; type vampires_preplog" in line for line in lines_of(done))
    assert room.ok("stoplog").count("no logger was there") == 2
    assert room.ok("stoplog", "--kill").count("no logger was there") == 2
    done = room.run("logstatus")
    assert done.returncode == 1
    assert done.stdout.count("not prepared") == 2


def test_started_already(ready: ControlRoom) -> None:
    ready.ok("startlog")
    first = ready.look().first_cnt0
    done = ready.run("startlog", "--pre", 0.1)
    assert done.returncode == 1
    assert [line.split(": ")[1] for line in lines_of(done)] == [
        f"{name} is being logged already" for name in BOTH
    ]
    assert ready.look().first_cnt0 == first
    ready.ok("pauselog")
    assert "was not being saved" in ready.ok("pauselog")


def test_prepared_already(ready: ControlRoom) -> None:
    pid = FPS.open("streamFITSlog-vcam1").header().runpid
    ready.ok("startlog")
    other = ready.folder / "other"
    done = ready.run("preplog", "--yes", "-n", 30, "--dir", other)
    assert done.returncode == 0
    assert "vcam1 is being saved: new values count from its next cube on" in done.stdout
    ready.wait(lambda: list(other.rglob("vcam1_*.fits")), "a cube in the other directory")
    ready.ok("pauselog")
    sizes = [len(cube.rows) for cube in ready.cubes()]
    assert 30 in sizes
    assert FPS.open("streamFITSlog-vcam1").header().runpid == pid
    # What is not given is as it was.
    said = ready.ok("preplog", "--yes")
    assert "a cube of 30 frames" in said
    assert str(other) in said


@pytest.mark.parametrize("command", COMMANDS)
def test_no_such_camera(
    command: str, room: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ("3", "", "vcam1;reboot", "../vcam1", "vcam 1", "1,,2", "cam\N{SNOWMAN}"):
        assert call(command, "-c", given, *(["dark"] if command == "datatype" else [])) == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert f"vampires_{command}: no camera " in line
        assert "1 (vcam1), 2 (vcam2), vpupcam" in line


def test_a_stream_that_is_not_there_does_not_keep_the_other_from_being_prepared(
    room: ControlRoom,
) -> None:
    room.add_camera("vcam1")
    done = room.run("preplog", "--yes")
    assert done.returncode == 1
    assert "no stream 'vcam2'" in done.stderr
    assert "vcam1: the logger is ready" in done.stdout
    assert room.look("vcam1").running
    assert not room.look("vcam2").prepared
    done = room.run("startlog")
    assert done.returncode == 1
    assert "vcam2 is not prepared" in done.stderr
    assert room.look("vcam1").saving


def test_the_camera_that_works_is_saved_when_the_other_does_not(ready: ControlRoom) -> None:
    ready.ok("stoplog", "-c", 2)
    for command in ("startlog", "pauselog"):
        done = ready.run(command)
        assert done.returncode == 1
        (line,) = lines_of(done)
        assert "vcam2 does not run" in line
        assert "vcam1: " in done.stdout
    assert ready.files("vcam1")
    assert ready.run("logstatus").returncode == 1


def test_without_tmux(room: ControlRoom, tmp_path: Path) -> None:
    room.add_cameras()
    environment = {**os.environ, "PATH": path_without("tmux", tmp_path / "bin")}
    done = room.run("preplog", "--yes", env=environment)
    assert done.returncode == 1
    assert len(lines_of(done)) == 2
    assert all("tmux is not installed" in line for line in lines_of(done))
    room.ok("preplog", "--yes")
    # What needs no tmux goes on without it.
    room.trigger()
    room.ok("startlog", env=environment)
    room.wait_frames(5)
    room.ok("logstatus", env=environment)
    room.ok("pauselog", env=environment)
    assert len(room.files()) == 1


def test_a_tmux_session_that_is_killed_loses_no_frame(ready: ControlRoom) -> None:
    ready.ok("startlog")
    ready.wait_frames(70)
    subprocess.run(["tmux", "kill-session", "-t", "=streamFITSlog-vcam1"], check=True)
    ready.wait(lambda: not ready.look().running, "the end of the run process")
    done = ready.run("logstatus")
    assert done.returncode == 1
    assert "stopped (tmux" in done.stdout or "dead (tmux" in done.stdout
    numbers = [int(n) for cube in ready.cubes() for n in cube.rows["CNT0"]]
    assert len(numbers) >= 70
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    ready.ok("pauselog", "-c", 2)
    ready.ok("preplog", "--yes")
    ready.ok("startlog")
    ready.ok("pauselog")


def test_a_logger_killed_shows_dead_and_is_prepared_again(ready: ControlRoom) -> None:
    ready.ok("startlog")
    ready.wait_frames(120)
    with FPS.open("streamFITSlog-vcam1") as fps:
        pid = fps.header().runpid
    os.kill(pid, signal.SIGKILL)
    ready.wait(lambda: not ready.look().running, "its end")
    assert ready.look().state == "dead"
    done = ready.run("logstatus")
    assert done.returncode == 1
    assert "dead" in done.stdout
    done = ready.run("startlog")
    assert "the logger of vcam1 does not run; type vampires_preplog" in done.stderr
    done = ready.run("stoplog")
    assert done.returncode == 0
    assert "(it was dead)" in done.stdout
    # What was recorded: whole cubes, and of the last one a journal of whole frames.
    hidden = [p for p in ready.folder.rglob(".vcam1_*") if p.name.endswith(".frames")]
    assert sum(1 for _ in ready.folder.rglob("vcam1_*.fits")) >= 2
    assert all(p.stat().st_size % 56 == 0 for p in hidden)
    ready.ok("preplog", "--yes")
    ready.ok("startlog")
    ready.wait_frames(3)
    ready.ok("pauselog")
    assert ready.look().state == "idle"


# Places and names -------------------------------------------------------------------------


@pytest.fixture
def small_disk(room: ControlRoom) -> Iterator[Callable[[str], Path]]:
    """small_disk(options) -> a file system in memory, mounted for the test; for root only."""
    with memory_disks(room.folder / "disk") as mount:
        yield mount


def test_a_disk_without_room_is_refused(
    room: ControlRoom, small_disk: Callable[[str], Path]
) -> None:
    room.add_cameras()
    disk = small_disk("size=1m")
    with open(disk / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    done = room.run("preplog", "--yes", "--dir", disk)
    assert done.returncode == 2
    (line,) = lines_of(done)
    assert line == (
        f"vampires_preplog: cannot write to {disk}: No space left on device; choose another "
        "directory"
    )
    assert sorted(os.listdir(disk)) == ["ballast"]
    assert not room.look().prepared


def test_a_read_only_disk_is_refused(
    room: ControlRoom, small_disk: Callable[[str], Path]
) -> None:
    room.add_cameras()
    disk = small_disk("ro")
    done = room.run("preplog", "--yes", "--dir", disk)
    assert done.returncode == 2
    (line,) = lines_of(done)
    assert f"cannot write to {disk}" in line


def test_a_directory_that_does_not_go_is_refused(room: ControlRoom) -> None:
    room.add_cameras()
    file = room.folder / "file"
    file.write_text("")
    missing = room.folder / "not mounted" / "data"
    for given, reason in (
        ("data", "expected a directory that begins with / or ~"),
        ("", "expected a directory that begins with / or ~"),
        ("/a\nb", "expected a directory that begins with / or ~"),
        (str(file), f"{file} is no directory"),
        (str(file / "data"), f"{file} is no directory"),
        (str(missing), f"no directory {missing.parent}; is its disk mounted?"),
    ):
        done = room.run("preplog", "--yes", "--dir", given)
        assert done.returncode == 2
        (line,) = lines_of(done)
        assert reason in line
    assert not room.look().prepared


def test_a_directory_is_made_if_its_parent_is_there_or_it_is_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    check_directory(tmp_path / "new")
    check_directory(parse_directory("~/a/b/c"))
    with pytest.raises(DirectoryRefused, match="mounted"):
        check_directory(tmp_path / "a" / "b")
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


def test_directories_with_odd_names(ready: ControlRoom) -> None:
    for name in ("a b", "$HOME 'x' \"y\"", "dé;j*à{}", "l" * 90, "-rf"):
        place = ready.folder / name
        ready.ok("preplog", "--yes", "--dir", place)
        ready.ok("startlog")
        ready.wait_frames(3)
        ended = ready.answers("pauselog")
        for camera in BOTH:
            files = ended[camera]["files"]
            assert files == sorted(str(file) for file in place.rglob(f"{camera}_*.fits"))
            assert files
    assert str(place) in ready.ok("preplog", "--yes")


# Two people -------------------------------------------------------------------------------


def together(room: ControlRoom, *command: str) -> list[subprocess.CompletedProcess[str]]:
    """Two who type the same at the same time."""
    started = [room.start(*command) for _ in range(2)]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err, err
        ended.append(subprocess.CompletedProcess(command, process.returncode, out, err))
    return sorted(ended, key=lambda done: done.returncode)


def test_two_people_prepare_at_once(room: ControlRoom) -> None:
    room.add_cameras()
    room.trigger()
    one, two = together(room, "preplog", "--yes", "-n", "50")
    assert (one.returncode, two.returncode) == (0, 0), (one, two)
    assert len(tmux_sessions()) == 2
    # What is stopped stays so: the start was not typed twice.
    room.ok("startlog")
    room.ok("stoplog")
    room.ok("preplog", "--yes")
    room.ok("stoplog")
    for name in BOTH:
        tmux.type_line(f"streamFITSlog-{name}", "run", "echo seen it")
        room.wait(partial(_has_seen, f"streamFITSlog-{name}"), "a prompt")
        assert not room.look(name).running


def _has_seen(session: str) -> bool:
    return "seen it" in tmux.capture(session, "run")


def test_two_people_start_and_pause_at_once(ready: ControlRoom) -> None:
    # Both type before the instant of the first has come, however busy the machine is.
    ready.config.write_text(ready.config.read_text().replace("lead_s = 0.05", "lead_s = 1.0"))
    for _ in range(3):
        one, two = together(ready, "startlog")
        assert (one.returncode, two.returncode) == (0, 1), (one, two)
        assert two.stderr.count("is being logged already") == 2
        assert ready.look("vcam1").first_cnt0 == ready.look("vcam2").first_cnt0
        ready.wait_frames(5)
        one, two = together(ready, "pauselog")
        assert (one.returncode, two.returncode) == (0, 0), (one, two)
        assert ready.look("vcam1").end_cnt0 == ready.look("vcam2").end_cnt0
    assert len(ready.cubes()) >= 3


def test_two_people_kill_and_prepare_at_once(ready: ControlRoom) -> None:
    killing = ready.start("stoplog", "--kill")
    preparing = ready.start("preplog", "--yes")
    for process in (killing, preparing):
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (0, 1)
        assert "Traceback" not in err, err
    ready.ok("preplog", "--yes")
    ready.ok("startlog")
    ready.ok("pauselog")


def test_who_acts_on_a_logger_keeps_others_waiting(
    ready: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    with FPSControl("streamFITSlog-vcam1").alone():
        waiting = [ready.start("startlog", "-c", "1"), ready.start("preplog", "--yes")]
        for process in waiting:
            _, err = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 1
            (line,) = err.splitlines()
            assert "somebody else is acting on streamFITSlog-vcam1; try again" in line
    ready.ok("startlog")
    ready.ok("pauselog")


def test_a_process_is_started_once_however_many_ask(
    room: ControlRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.add_camera("vcam1")
    started = []

    def slowly(name: str, window: str, line: str) -> None:
        threading.Event().wait(0.2)  # whoever is not kept out comes in here
        started.append(window)
        type_line(name, window, line)

    type_line = tmux.type_line
    monkeypatch.setattr(tmux, "type_line", slowly)
    options = loggers.LoggerOptions(directory=room.data, rt_priority=0, ring_memory_bytes=2**24)
    prepare = partial(loggers.prepare, "vcam1", options)
    people = [threading.Thread(target=prepare) for _ in range(3)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert sorted(started) == ["conf", "run"]
    assert room.look().running


# Loggers of others, and broken ones -------------------------------------------------------


def test_a_logger_of_milks_starts_and_pauses(
    room: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_golden(room.shm_dir)
    with FPS.open("streamFITSlog-vcam1") as fps:
        seem_running(fps)
        assert call("startlog", "-c", "1") == 0
        assert fps["saveON"] is True
        assert "vcam1: saving, by a logger of another program" in capsys.readouterr().out
        assert call("logstatus", "-c", "1") == 0
        assert "logging" in capsys.readouterr().out
        assert call("pauselog", "-c", "1") == 0
        assert fps["saveON"] is False
        assert "vcam1: 0 frames, 0 lost, 0 files" in capsys.readouterr().out


@pytest.mark.parametrize("size", [0, 1000])
def test_a_broken_fps_is_told_by_every_command(
    room: ControlRoom, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    room.add_cameras()
    file = copy_golden(room.shm_dir)
    os.truncate(file, size)
    for command, *arguments in (
        ("startlog",), ("pauselog",), ("stoplog",), ("preplog", "--yes"), ("logstatus",),
    ):  # fmt: skip
        assert call(command, "-c", "1", *arguments) == 1
        out, err = capsys.readouterr()
        assert f"{file} has {size} bytes" in out + err
        assert len(err.splitlines()) <= 1
    assert file.stat().st_size == size


# The data type ----------------------------------------------------------------------------


def test_the_data_type_is_set_while_the_camera_writes_other_keywords(
    room: ControlRoom,
) -> None:
    room.add_cameras()
    room.trigger(rate_hz=1000)
    before = dict(Stream.open("vcam1").keywords)
    for given, expected in (("dark", "DARK"), (" Flat ", "FLAT"), ("OBJECT", "OBJECT")) * 3:
        said = room.ok("datatype", given)
        assert f"-> {expected}" in said
        with Stream.open("vcam1") as stream:
            now = dict(stream.keywords)
            assert stream.keywords.comment("FRATE") == "[Hz]"
        assert now.pop("DATA-TYP") == expected
        assert list(now) == [name for name in before if name != "DATA-TYP"]
        assert now["FRATE"] == before["FRATE"]
    assert "vcam1: DATA-TYP OBJECT -> TEST" in room.ok("datatype", "test")
    assert "vcam1: DATA-TYP is TEST already" in room.ok("datatype", "test")
    with Stream.open("vcam1") as stream:
        newest = stream.keywords["_MAQTIME"]
        room.wait(lambda: stream.keywords["_MAQTIME"] > newest, "frames")  # type: ignore[operator]


def test_a_wrong_data_type_lists_the_right_ones(
    room: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ("DARKS", "", "sky flat"):
        assert call("datatype", given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"no data type {given!r}, expected one of ACQUISITION BIAS" in line


def test_the_data_type_is_shown(room: ControlRoom, capsys: pytest.CaptureFixture[str]) -> None:
    room.add_camera("vcam1")
    room.add_camera("vcam2", keywords={"A": (1, "")})
    assert call("datatype") == 0
    assert capsys.readouterr().out == "vcam1: DATA-TYP TEST\nvcam2: DATA-TYP (none)\n"
    answers = room.answers("datatype")
    assert answers["vcam1"] == {"camera": "vcam1", "error": "", "now": "TEST"}
    assert answers["vcam2"] == {"camera": "vcam2", "error": "", "now": ""}
    assert room.answers("datatype", "dark", "-c", 1)["vcam1"]["before"] == "TEST"
    assert room.answers("datatype")["vcam1"]["now"] == "DARK"


def test_the_target_is_set_and_shown(room: ControlRoom) -> None:
    room.add_camera("vcam1")
    room.add_camera("vcam2", keywords={"OBJECT": ("scexao", "as the camera says")})
    room.trigger(rate_hz=1000)
    assert room.answers("object")["vcam1"]["now"] == ""
    assert room.answers("object")["vcam2"]["now"] == "scexao"
    for typed, name in ((("HD", "12345"), "HD 12345"), (("  AB   Aur ",), "AB Aur")):
        for answer in room.answers("object", *typed).values():
            assert (answer["error"], answer["now"]) == ("", name)
        for camera in BOTH:
            with Stream.open(camera) as stream:
                assert stream.keywords["OBJECT"] == name
    assert room.ok("object", "a" * 15) == "".join(
        f"{camera}: OBJECT AB Aur -> {'a' * 15}\n" for camera in BOTH
    )
    comments = [Stream.open(camera).keywords.comment("OBJECT") for camera in BOTH]
    assert comments == ["name of the target", "as the camera says"]
    room.ok("object", "-c", 2, "vega")
    assert [a["now"] for a in room.answers("object").values()] == ["a" * 15, "vega"]


@pytest.mark.parametrize("name", ["a" * 16, "\N{GREEK SMALL LETTER ALPHA} Cen", " ", "a\nb\0"])
def test_a_name_that_no_stream_holds_is_refused(
    room: ControlRoom, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    room.add_cameras()
    assert call("object", name) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert repr(" ".join(name.split())) in line
    assert "OBJECT" not in room.cameras["vcam1"].stream.keywords


def test_the_target_is_in_the_cubes_that_begin_from_then_on(ready: ControlRoom) -> None:
    for name in ("HD 1", "HD 2"):
        ready.ok("object", name)
        ready.ok("startlog")
        ready.wait_frames(3)
        ready.ok("pauselog")
    names = [fits.getheader(cube.path)["OBJECT"] for cube in ready.cubes()]
    assert names == sorted(names)
    assert set(names) == {"HD 1", "HD 2"}


def test_a_stream_without_room_for_the_data_type_is_told(
    room: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    room.add_camera("vcam1", keywords={"A": (1, "")}, keyword_room=1)
    room.add_camera("vcam2", keywords={"A": (1, "")}, keyword_room=2)
    assert call("datatype", "dark") == 1
    out, err = capsys.readouterr()
    assert out == "vcam2: DATA-TYP (none) -> DARK\n"
    assert "vcam1 has no keyword DATA-TYP and no room" in err
    assert dict(room.cameras["vcam1"].stream.keywords) == {"A": 1}
    assert dict(room.cameras["vcam2"].stream.keywords) == {"A": 1, "DATA-TYP": "DARK"}


def test_the_data_type_of_a_stream_that_is_not_there(
    room: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    room.add_camera("vcam2")
    assert call("datatype", "dark") == 1
    out, err = capsys.readouterr()
    assert "vcam2: DATA-TYP TEST -> DARK" in out
    assert "vcam1" in err


# Questions --------------------------------------------------------------------------------


@pytest.fixture
def window() -> Iterator[Terminal]:
    with terminal(width=100) as opened:
        yield opened


def typed(command: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"vampires.commands.{command}", *arguments]


def test_enter_takes_what_stands_in_brackets(room: ControlRoom, window: Terminal) -> None:
    room.add_cameras()
    window.start(typed("preplog"))
    window.wait_for("cameras [1,2]:")
    window.press("Enter")
    window.wait_for("vcam1: 9 x 8 uint16, 200.00 Hz (keyword FRATE)", "frames per cube [")
    window.type("hundred")
    window.press("Enter")
    window.wait_for("found 'hundred', expected a whole number, 1 to 2147483647")
    window.type("100")
    window.press("Enter")
    window.wait_for("vcam2: a cube of 100 frames has 14.4 kB, 0.5 s", "0 for no limit [0]:")
    window.press("Enter")
    window.wait_for(f"archive ({room.folder}/archive) or a directory [{room.data}]:")
    window.type("data")
    window.press("Enter")
    window.wait_for("expected a directory that begins with / or ~")
    window.type("archive")
    window.press("Enter")
    window.wait_for("data type [TEST]:")
    window.type("drak")
    window.press("Enter")
    window.wait_for("no data type 'drak', expected one of")
    window.type("dark")
    window.press("Enter")
    window.wait_for("free, enough for", "vcam1: the logger is ready", "EXIT 0")
    assert room.cameras["vcam2"].stream.keywords["DATA-TYP"] == "DARK"
    with FPS.open("streamFITSlog-vcam2") as fps:
        assert (fps["cubesize"], fps["maxfilecnt"]) == (100, 1_000_000)
        assert (fps["dirname"], fps["dailydir"]) == (f"{room.folder}/archive", True)


@pytest.mark.parametrize("key", ["C-c", "C-d"])
def test_questions_that_are_ended_change_nothing(
    room: ControlRoom, window: Terminal, key: str
) -> None:
    room.add_cameras()
    window.start(typed("preplog", "-c", "1", "--dir", str(room.folder / "new")))
    window.wait_for("frames per cube [")
    window.press("Enter")
    window.wait_for("number of cubes")
    window.press(key)
    window.wait_for("vampires_preplog: ended; nothing was changed", "EXIT 130")
    assert not room.look().prepared
    assert not (room.folder / "new").exists()
    assert tmux_sessions() == set()


def test_cubes_above_two_gigabytes_are_warned_of(room: ControlRoom, window: Terminal) -> None:
    for name, shape in (("vcam1", (1096, 2236)), ("vcam2", (1096, 2240))):
        room.add_camera(name, shape=shape, ring=2, keywords={"FRATE": (57.0, "")})
    window.start(typed("preplog", "-z", "0", "--archive", "--type", "dark", "-c", "1,2"))
    window.wait_for("vcam1: 2236 x 1096 uint16 (MBI), 57.00 Hz", "frames per cube [250]:")
    window.type("2000")
    window.press("Enter")
    window.wait_for(
        "warning: 2000 frames make files of 9.82 GB, slow to load (above 2 GB); 250 are",
        "2000 all the same? (y or n) [n]:",
    )
    window.press("Enter")
    asked = "frames per cube [250]:"
    window.wait_until(lambda lines: sum(asked in line for line in lines) == 2)
    window.press("Enter")
    window.wait_for("vcam1: a cube of 250 frames has 1.23 GB, 4.39 s", "EXIT 0")
    done = room.run("preplog", "--yes", "-n", 1000)
    assert done.returncode == 0
    assert "warning: 1000 frames" in done.stdout
    # What is too large is not proposed again.
    assert room.answers("preplog", "--yes")["vcam1"]["frames"] == 250


def test_without_a_terminal_what_is_missing_is_named(
    room: ControlRoom,
) -> None:
    done = room.run("preplog", "-n", 7, "--type", "dark")
    assert done.returncode == 2
    (line,) = lines_of(done)
    assert "no terminal; give -z CUBES, -a or --dir DIR, or --yes" in line
    room.add_cameras()
    arguments = ("-n", 7, "-t", "dark", "-z", 2, "-a")
    answer = room.answers("preplog", *arguments)["vcam1"]
    assert (answer["frames"], answer["cubes"], answer["data_type"]) == (7, 2, "DARK")
    assert answer["directory"] == f"{room.folder}/archive"
    assert answer["cube_bytes"] == 7 * 8 * 9 * 2


def test_the_letters_are_those_of_the_instruments_other_tools(
    room: ControlRoom, window: Terminal
) -> None:
    room.add_cameras()
    # All is given: nothing is asked, at a terminal as well.
    window.start(typed("preplog", "-n", "40", "-z", "-1", "-a", "-t", "dark"))
    window.wait_for("plan: 40 frames a cube, no limit of cubes", "EXIT 0")
    with FPS.open("streamFITSlog-vcam2") as fps:
        assert (fps["cubesize"], fps["maxfilecnt"]) == (40, 1_000_000)
        assert fps["dirname"] == f"{room.folder}/archive"
    assert room.cameras["vcam2"].stream.keywords["DATA-TYP"] == "DARK"
    for given, cubes in (("3", 3), ("0", 0), ("-1", 0)):
        answer = room.answers("preplog", "--yes", "-z", given)["vcam1"]
        assert (answer["frames"], answer["cubes"]) == (40, cubes)
        assert room.look().cubes == cubes
        started = room.answers("startlog", "-n", 30 + cubes, "-z", given)["vcam1"]
        assert (started["frames"], started["cubes"]) == (30 + cubes, cubes)
        room.ok("pauselog")
        room.ok("preplog", "--yes", "-n", 40)


@pytest.mark.parametrize(
    ("letter", "number"), [("-n", "0"), ("-n", "-1"), ("-z", "-2"), ("-z", "1e3"), ("-z", "")]
)
def test_numbers_that_are_none_are_refused(
    room: ControlRoom, capsys: pytest.CaptureFixture[str], letter: str, number: str
) -> None:
    for command in ("preplog", "startlog"):
        assert call(command, letter, number) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"found {number!r}" in line


@pytest.mark.parametrize(
    ("mode", "frames"), [("STANDARD", 2000), ("MBI", 250), ("MBI_REDUCED", 500)]
)
def test_the_lengths_of_cubes_that_are_proposed(mode: str, frames: int) -> None:
    for crop in instrument_on().modes[mode].crops.values():
        ny, nx = crop.shape
        # Crops drift by a few pixels between nights.
        for size in (ny * nx, (ny + 8) * (nx - 8)):
            assert proposed_length(size * 2, 1_200_000_000) == frames
    assert proposed_length(10**6, 10**9, [mode], {mode: 7}) == 7
    assert proposed_length(10**12, 10**9) == 1


def test_a_rate_without_keyword_is_measured(room: ControlRoom) -> None:
    for name in BOTH:
        room.add_camera(name, keywords={})
    assert "no frames come, rate unknown" in room.ok("preplog", "--yes")
    room.trigger(rate_hz=100)
    answer = room.answers("preplog", "--yes")["vcam1"]
    assert answer["rate_source"] == "measured"
    assert 50 < answer["rate_hz"] < 150


# The table --------------------------------------------------------------------------------


def answer(camera: str = "vcam1", **facts: Any) -> dict[str, Any]:
    usual = {
        "error": "", "prepared": True, "lights": ["alive"] * 3, "state": "logging",
        "saving": True, "running": True, "rate_hz": 506.123, "nominal_hz": 506.0,
        "frames": 123456789, "lost": 0, "torn": 0, "cube_frames": 1999, "cube_size": 2000,
        "files": 61728, "pending": 3, "ring_fill_percent": 99.4,
        "last_file": f"/mnt/fuuu/{camera}_08:53:38.973204322.fits",
        "directory": "/mnt/fuuu/a directory with a name that is rather long for a table/data",
        "disk_free_bytes": 999.6e9, "full_in_s": 100000.0, "last_error": "",
    }  # fmt: skip
    return {"camera": camera, **usual, **facts}


def test_the_table_fits_80_columns() -> None:
    answers = [
        answer(),
        answer("vcam2", state="dead", lights=["dead"] * 3, lost=10**9, torn=10**9),
        answer("vpupcam", prepared=False, state="not prepared", running=False),
        {"camera": "other", "error": "host far: no answer"},
    ]
    lines = table(answers, colour=False)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for shown in ("vcam1_08:53:38.973204322.fits", "dead (tmux, conf, run dead)", "1 TB free"):
        assert shown in text
    assert "other: host far: no answer" in lines


def test_losses_are_red() -> None:
    def colour_of_loss(lost: int) -> str:
        lines = table([answer(lost=lost)], colour=True)
        (line,) = [line for line in lines if line.startswith("lost")]
        return colour_of(line, f" {lost}, torn")

    assert colour_of_loss(0) == ""
    assert colour_of_loss(1) == "31"
    assert "\x1b" not in "".join(table([answer(lost=1)], colour=False))


def test_sizes_and_times_are_short() -> None:
    sizes = [bytes_text(n) for n in (0, 14400, 1.234e9, 999.9e9, 1e12, 1.5e15)]
    assert sizes == ["0 kB", "14.4 kB", "1.23 GB", "1 TB", "1 TB", "1500 TB"]
    times = [duration(s) for s in (0.5, 59, 61, 3600, 7260, 10**6)]
    assert times == ["0.5 s", "59 s", "1 min", "60 min", "2 h 01 min", "12 d"]


def test_the_mount_of_a_directory_is_told_by_its_name() -> None:
    mounts = ["/", "/mnt/fuuu", "/mnt/f", "/mnt/fuuu/inner"]
    assert mount_of("/mnt/fuuu/x", mounts) == "/mnt/fuuu"
    assert mount_of("/mnt/fuuu", mounts) == "/mnt/fuuu"
    assert mount_of("/mnt/fuuux", mounts) == "/"
    assert mount_of("/mnt/fuuu/inner/deep", mounts) == "/mnt/fuuu/inner"


def test_both_cameras_fill_the_disk(ready: ControlRoom) -> None:
    ready.ok("startlog")
    ready.wait(lambda: ready.look("vcam2").rate_hz and ready.look("vcam1").rate_hz, "rates")
    answers = ready.answers("logstatus")
    one, two = answers["vcam1"], answers["vcam2"]
    speed = sum(a["rate_hz"] * a["frame_bytes"] for a in (one, two))
    assert one["full_in_s"] == pytest.approx(one["disk_free_bytes"] / speed, rel=1e-3)
    assert one["nominal_hz"] == 200.0
    ready.ok("pauselog")


def test_losses_are_an_exit_status(room: ControlRoom) -> None:
    camera = room.add_camera("vcam1", ring=0)
    room.ok("preplog", "--yes", "-c", 1)
    room.ok("startlog", "-c", 1)
    with FPS.open("streamFITSlog-vcam1") as fps:
        pid = fps.header().runpid
    camera.send(1)
    room.wait_frames(1)
    os.kill(pid, signal.SIGSTOP)  # frames are overwritten before it can look
    room.wait(lambda: _has_stopped(pid), "its stop")
    camera.send(5)
    os.kill(pid, signal.SIGCONT)
    camera.send(1)
    room.wait(lambda: room.look().lost, "a loss")
    assert room.run("logstatus", "-c", 1).returncode == 3
    done = room.run("pauselog", "-c", 1)
    assert done.returncode == 3
    assert f"{room.look().lost} lost" in done.stdout


def _has_stopped(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def test_progress_is_told_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter((100.0, 101.0, 101.9, 102.1, 102.5, 103.2))
    monkeypatch.setattr("vampires.commands.pauselog.time.monotonic", lambda: next(clock))
    progress = Progress()
    state = loggers.LoggerState(
        "vcam1", state="ending", saving=True, cube_frames=7, cube_size=9, pending=2
    )
    for _ in range(5):
        progress([state])
    progress.clear()
    line = "vcam1 ending 7/9, 2 cubes to write"
    assert capsys.readouterr().err.splitlines() == [line, line]


# Watching ---------------------------------------------------------------------------------


def test_watching_draws_in_place_until_ctrl_c(ready: ControlRoom, window: Terminal) -> None:
    window.start(typed("logstatus", "--watch"))
    window.wait_for("vcam1", "idle", "Ctrl-C ends")
    ready.ok("startlog")
    window.wait_for("logging")
    ready.wait_frames(100)
    lines = window.wait_until(lambda lines: any("logged" in line for line in lines))
    assert sum("vcam1 " in line for line in lines) == 1
    ready.ok("pauselog")
    lines = window.wait_until(lambda lines: sum("idle" in line for line in lines) == 1)
    assert sum("state" in line for line in lines) == 1
    window.press("C-c")
    window.wait_for("EXIT 0")


def test_watching_fits_a_small_window(ready: ControlRoom) -> None:
    with terminal(width=50, height=6) as small:
        small.start(typed("logstatus", "--watch"))
        small.wait_for("idle")
        first = small.lines()[0]
        small.wait_until(lambda lines: lines[0] != first and "idle" in "".join(lines))
        assert sum("state" in line for line in small.lines()) == 1
        small.press("C-c")
        small.wait_for("EXIT 0")


def test_watching_for_programs_is_an_object_a_line(ready: ControlRoom) -> None:
    process = ready.start("logstatus", "--watch", "--json", "-c", "2")
    assert process.stdout is not None
    for _ in range(3):
        (found,) = json.loads(process.stdout.readline())["cameras"]
        assert (found["camera"], found["state"]) == ("vcam2", "idle")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_watching_ends_when_nobody_reads(ready: ControlRoom) -> None:
    process = ready.start("logstatus", "--watch")
    assert process.stdout is not None
    assert "vcam1" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


# Help and haste ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str, start_python: Any) -> None:
    source = f"""
import sys
from vampires.commands.{command} import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {{"numpy", "astropy", "pydantic", "textual", "vampires._core"}}
print(sorted(heavy & set(sys.modules)))
"""
    out, err = start_python(source).communicate(timeout=PATIENCE_S)
    assert err == ""
    assert out.splitlines()[-1] == "[]"
    assert "exit status:" in out
    assert "example:" in out


def test_a_start_loads_no_arrays(ready: ControlRoom, start_python: Any) -> None:
    source = """
import sys
from vampires.commands.startlog import main
assert main([]) == 0
print(sorted({"numpy", "astropy", "textual"} & set(sys.modules)))
"""
    out, err = start_python(source).communicate(timeout=PATIENCE_S)
    assert err == ""
    assert out.splitlines()[-1] == "[]"
    ready.ok("pauselog")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_configuration_with_a_fault_is_told(
    command: str, room: ControlRoom, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(os.environ["VAMPIRES_CONFIG"])
    arguments = ["dark"] if command == "datatype" else []
    config.write_text(config.read_text().replace("number = 1", "numbr = 1"))
    assert call(command, *arguments) == 2
    assert "numbr" in capsys.readouterr().err
    config.unlink()
    assert call(command, *arguments) == 2
    assert f"vampires_{command}: {config}: No such file" in capsys.readouterr().err
