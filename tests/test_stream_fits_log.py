"""milk-streamFITSlog: an action has happened when the command returns, or it says why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_room import ControlRoom, control_room, path_without, tmux_sessions

from vampires import process_id
from vampires.fps import FPS, list_fps
from vampires.logger_parameters import fps_name, make_logger_fps


class Room(ControlRoom):
    """Types milk-streamFITSlog."""

    def log(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("stream_fits_log", *words, **options)

    def logs(self, *words: object) -> str:
        """Types it, and it succeeds."""
        done = self.log(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refused(self, *words: object, status: int = 1, **options: Any) -> str:
        """Types it, and it does not: the line that says why, after those on progress."""
        done = self.log(*words, **options)
        assert done.returncode == status, done
        *progress, line = done.stderr.splitlines()
        assert all(line.startswith("vcam1: ending") for line in progress), done
        return line.removeprefix("milk-streamFITSlog: ")

    def pstart(self, *options: object) -> str:
        small = ("-rtp", 0, "-wrtp", 0)
        return self.logs(*small, "-D", self.data, *options, "vcam1", "pstart")


@pytest.fixture
def room(shm_dir: Path, start_command: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(shm_dir, start_command, monkeypatch) as made:
        made.__class__ = Room
        made.add_camera("vcam1")
        for stream in ("vcam1", "vcam2"):  # what pstart finds, but with little memory
            with make_logger_fps(stream) as fps:
                fps["ringmemory"] = 16
        yield made


@pytest.fixture
def ready(room: Room) -> Room:
    room.pstart("-z", 20)
    return room


def parameter(key: str) -> Any:
    with FPS.open(fps_name("vcam1")) as fps:
        return fps[key]


def test_pstart_leaves_a_logger_that_waits(room: Room) -> None:
    said = room.pstart("-z", 20, "-c", 7, "-n", 900, "-t", 3)
    assert "ready, 20 frames a cube" in said
    state = room.look()
    assert state.lights == ("alive", "alive", "alive")
    assert (state.state, state.saving) == ("idle", False)
    assert [parameter(k) for k in ("cubesize", "maxfilecnt", "maxframecnt")] == [20, 7, 900]
    assert parameter("procinfo.triggertimeout") == 3.0
    assert tmux_sessions() == {"streamFITSlog-vcam1"}


def test_a_second_pstart_applies_its_options(ready: Room) -> None:
    before = parameter("session"), ready.look().lights
    ready.pstart("-z", 30)
    assert parameter("cubesize") == 30
    assert (parameter("session"), ready.look().lights) == before
    # Of these the run process knows only at its start.
    first = _run_pid()
    ready.logs("-rtp", 0, "-wrtp", 0, "-cset", "other", "vcam1", "pstart")
    assert parameter("procinfo.cset") == "other"
    assert _run_pid() != first


def _run_pid() -> int:
    with FPS.open(fps_name("vcam1")) as fps:
        return fps.header().runpid


def test_a_pstart_that_would_disturb_saving_is_refused(ready: Room) -> None:
    ready.logs("vcam1", "on")
    assert "pause it first" in ready.refused("-cset", "other", "vcam1", "pstart")
    assert ready.look().saving


def test_pstart_r_begins_anew(ready: Room) -> None:
    ready.logs("vcam1", "rstop")
    ready.logs("vcam1", "set", "conf.label", "old")
    ready.pstart("-r")
    assert parameter("conf.label") == ""


def test_on_and_off_save_what_comes_between(ready: Room) -> None:
    camera = ready.cameras["vcam1"]
    camera.send(3)
    assert "begins with the next frame" in ready.logs("vcam1", "on")
    camera.send(25)
    ready.wait_frames(25)
    assert "being saved already" in ready.logs("vcam1", "on")
    assert "25 frames in 2 files, 0 lost" in ready.logs("vcam1", "off")
    assert [len(cube.rows) for cube in ready.cubes()] == [20, 5]
    assert "was not being saved" in ready.logs("vcam1", "off")


def test_on_takes_cube_length_and_number_of_cubes(ready: Room) -> None:
    ready.logs("-z", 4, "-c", 2, "vcam1", "on")
    ready.cameras["vcam1"].send(11)
    ready.wait(lambda: not ready.look().saving and not ready.look().pending)
    assert [len(cube.rows) for cube in ready.cubes()] == [4, 4]


def test_offc_returns_when_the_cube_is_full(ready: Room) -> None:
    camera = ready.cameras["vcam1"]
    ready.logs("vcam1", "on")
    camera.send(25)
    ready.wait_frames(25)
    command = ready.start("stream_fits_log", "vcam1", "offc")
    ready.wait(lambda: ready.look().state == "ending")
    camera.send(20)
    output, errors = command.communicate(timeout=60)
    assert "40 frames in 2 files" in output, errors
    assert [len(cube.rows) for cube in ready.cubes()] == [20, 20]


def test_offc_without_frames_fails_with_the_reason(ready: Room) -> None:
    ready.logs("vcam1", "on")
    ready.cameras["vcam1"].send(5)
    ready.wait_frames(5)
    assert "nothing moved for 5 s" in ready.refused("vcam1", "offc")


def test_rstop_in_mid_cube_loses_nothing_and_rstart_waits(ready: Room) -> None:
    camera = ready.cameras["vcam1"]
    ready.logs("vcam1", "on")
    camera.send(30)
    ready.logs("vcam1", "rstop")
    assert [len(cube.rows) for cube in ready.cubes()] == [20, 10]
    assert ready.look().lights == ("alive", "alive", "idle")
    ready.logs("-z", 6, "vcam1", "rstart")
    assert (ready.look().state, parameter("cubesize")) == ("idle", 6)


def test_kill_leaves_nothing(ready: Room) -> None:
    ready.logs("vcam1", "on")
    ready.cameras["vcam1"].send(30)
    ready.logs("vcam1", "kill")
    assert [len(cube.rows) for cube in ready.cubes()] == [20, 10]
    assert tmux_sessions() == set()
    assert list_fps() == [fps_name("vcam2")]
    assert "has no logger" in ready.logs("vcam1", "kill")


def test_set_and_get(ready: Room) -> None:
    ready.logs("vcam1", "set", "cubesize", 77, "dailydir", "on")
    assert ready.logs("vcam1", "get", "cubesize") == "77\n"
    assert ready.logs("vcam1", "get", "dailydir") == "ON\n"
    ready.logs("-z", 78, "vcam1", "set")
    assert json.loads(ready.logs("vcam1", "get", "--json"))["cubesize"] == 78
    assert "saveON                       OFF" in ready.logs("vcam1", "get")
    long = "/tmp/" + "x" * 200
    ready.logs("vcam1", "set", "dirname", long)
    assert ready.look().directory == long


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("set", "cubesize", "many"), "expected a whole number"),
        (("set", "cubesize"), "expected KEY VALUE"),
        (("set", "cubesize", "-4"), "-4"),
        (("set", "rate", "4"), "it is an output"),
        (("set", "ringmemory", "64"), "stop it first"),
        (("set",), "nothing to set"),
        (("get", "cubesise"), "no parameter 'cubesise'"),
        (("onn",), "expected one of pstart"),
        (("on", "now"), "expected nothing"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    ready: Room, words: tuple[str, ...], why: str
) -> None:
    before = ready.logs("vcam1", "get", "cubesize", "ringmemory")
    done = ready.log("vcam1", *words)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert why in done.stderr
    assert ready.logs("vcam1", "get", "cubesize", "ringmemory") == before


def test_status_tells_what_a_script_needs(ready: Room) -> None:
    ready.logs("vcam1", "on")
    ready.cameras["vcam1"].send(25)
    ready.wait_frames(25)
    ready.wait(lambda: ready.look().last_file)
    status = json.loads(ready.logs("vcam1", "status", "--json"))
    assert status["state"] == "logging"
    assert (status["frames"], status["lost"], status["cube_frames"]) == (25, 0, 5)
    assert Path(status["last_file"]).name == Path(ready.files()[0]).name
    assert "logging" in ready.logs("vcam1", "status")
    assert "not prepared" in ready.logs("other", "status")


# -- faults -----------------------------------------------------------------------------------


def test_a_logger_that_is_not_prepared_is_told(room: Room) -> None:
    for action in ("on", "off", "offc", "rstart", "rstop"):
        assert "not prepared" in room.refused("vcam3", action), action


def test_a_stream_that_is_absent_is_told_and_pstart_works_once_it_is_there(room: Room) -> None:
    options = ("-D", room.data, "vcam2", "pstart")
    assert "no stream 'vcam2'" in room.refused(*options)
    assert room.look("vcam2").lights == ("alive", "alive", "idle")
    room.add_camera("vcam2")
    room.logs(*options)
    assert room.look("vcam2").running


def test_a_directory_that_cannot_be_written_is_told(room: Room) -> None:
    why = room.refused("-D", "/proc/nowhere", "vcam1", "pstart")
    assert "cannot write to /proc" in why
    (room.folder / "file").touch()
    why = room.refused("-D", room.folder / "file" / "x", "vcam1", "pstart")
    assert "is no directory" in why


def test_tmux_missing_is_told(room: Room) -> None:
    path = path_without("tmux", room.folder / "bin")
    why = room.refused("-D", room.data, "vcam1", "pstart", env={**os.environ, "PATH": path})
    assert "tmux is not installed" in why


def test_a_killed_logger_is_dead_and_pstart_recovers(ready: Room) -> None:
    ready.logs("vcam1", "on")
    ready.cameras["vcam1"].send(30)
    ready.wait(lambda: len(ready.files()) == 1)
    with FPS.open(fps_name("vcam1")) as fps:
        header = fps.header()
        process_id.send_signal(header.runpid, header.run_start_ns, signal.SIGKILL)
        assert process_id.wait_for_end(header.runpid, header.run_start_ns, 10)
    assert ready.look().state == "dead"
    assert "dead" in ready.logs("vcam1", "status")
    assert "does not run" in ready.refused("vcam1", "on")
    ready.pstart()
    ready.logs("vcam1", "on")
    ready.cameras["vcam1"].send(20)
    ready.wait_frames(20)
    ready.logs("vcam1", "off")
    assert len(ready.files()) == 2


def test_two_people_typing_pstart_at_once_get_one_logger(room: Room) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(
            target=lambda: done.append(room.log("-D", room.data, "vcam1", "pstart"))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [d.returncode for d in done] == [0, 0, 0], [d.stderr for d in done]
    assert tmux_sessions() == {"streamFITSlog-vcam1"}
    assert room.look().state == "idle"
