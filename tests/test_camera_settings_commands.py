"""set_tint and its like, as typed: what is set of running cameras, here and over ssh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from camera_process import CameraProcesses, camera_processes, keywords_of
from ssh_server import ssh_server

from vampires.commands.camera_settings import COMMANDS
from vampires.toml_text import toml_text

COMMAND_DIR = Path(sys.executable).parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cameras(
    shm_dir: Path, start_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CameraProcesses]:
    with camera_processes(start_command, tmp_path, monkeypatch) as cameras:
        yield cameras


@pytest.fixture
def type_in(run_command: Run) -> Run:
    """type_in("set_tint", "0.005") -> CompletedProcess."""

    def typed(*words: object) -> subprocess.CompletedProcess[str]:
        done = run_command("camera-settings", *words)
        assert "Traceback" not in done.stderr
        return done

    return typed


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that succeeded printed."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return str(done.stdout)


def refused(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one line of a command that did not."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.count("\n") == 1
    return str(done.stderr)


def test_each_value_is_set_and_shown(cameras: CameraProcesses, type_in: Run) -> None:
    cam = cameras.start("vcam1")
    here = ("-c", "1")
    assert ok(type_in("set_tint", *here, "0.005")) == "vcam1: 0.005 s, 100 Hz\n"
    assert ok(type_in("get_tint", *here)) == "vcam1: 0.005 s, 100 Hz\n"
    assert cam.get_tint() == keywords_of("vcam1")["EXPTIME"] == 0.005
    assert ok(type_in("set_fps", *here, "50")) == "vcam1: 50 Hz, 0.005 s\n"
    assert ok(type_in("get_fps", "-c", "vcam1")) == "vcam1: 50 Hz, 0.005 s\n"
    assert ok(type_in("set_crop", *here, "twoarc")).startswith(
        "vcam1: TWOARC: x 1868 to 2227, y 972 to 1331, 360 x 360, "
    )
    assert ok(type_in("set_crop", *here, "100", "131", "200", "215")) == ok(
        type_in("get_crop", *here)
    )
    assert ok(type_in("get_crop", *here)).startswith(
        "vcam1: own window: x 100 to 131, y 200 to 215, 16 x 32, "
    )
    assert cam.get_crop() == (100, 131, 200, 215)
    assert ok(type_in("get_readout_mode", *here)).startswith("vcam1: FAST, ")
    assert ok(type_in("set_readout_mode", *here, "slow")).startswith("vcam1: SLOW, ")
    assert cam.get_readout_mode() == "SLOW"
    assert ok(type_in("get_trigger", *here)) == "vcam1: off\n"
    assert ok(type_in("set_trigger", *here, "on")) == "vcam1: on\n"
    assert cam.get_external_trigger() is True
    assert ok(type_in("set_trigger", "OFF", *here)) == "vcam1: off\n"
    assert cam.get_external_trigger() is False


def test_observers_type_the_words_they_know(cameras: CameraProcesses, type_in: Run) -> None:
    cam = cameras.start("vcam1")
    here = ("-c", "1")
    for mode in ("standard", "Mbi_Reduced", "mbi"):
        ok(type_in("set_crop", *here, mode))
        assert cam.get_camera_mode() == mode.upper()
    for readout in ("slow", "Fast", "SLOW"):
        said = ok(type_in("set_readout", *here, readout))
        assert cam.get_readout_mode() == readout.upper()
        assert ok(type_in("get_readout", *here)) == said
    for on, off in (("enable", "disable"), ("true", "false"), ("External", "INTERNAL")):
        for word, expected in ((on, True), (off, False)):
            ok(type_in("set_trigger", *here, word))
            assert cam.get_external_trigger() is expected


def test_the_commands_are_installed_under_each_name() -> None:
    installed = entry_points(group="console_scripts")
    assert {installed[name].load() for name in COMMANDS} == set(COMMANDS.values())


def test_json_has_all_that_is_set(cameras: CameraProcesses, type_in: Run) -> None:
    cam = cameras.start("vcam1")
    for words in (("set_tint", "0.002"), ("get_tint",), ("get_crop",)):
        (answer,) = json.loads(ok(type_in(*words, "-c", "1", "--json")))["cameras"]
        assert answer == {"camera": "vcam1", "error": "", "settings": cam.status()["settings"]}
    assert answer["settings"]["tint_s"] == 0.002


def test_without_c_all_cameras_that_are_logged_are_told(
    cameras: CameraProcesses, type_in: Run
) -> None:
    cams = [cameras.start(name) for name in ("vcam1", "vcam2", "small")]
    assert ok(type_in("set_fps", "40")) == "vcam1: 40 Hz, 0.01 s\nvcam2: 40 Hz, 0.01 s\n"
    assert [cam.get_fps() for cam in cams] == [40, 40, 100]
    assert ok(type_in("set_fps", "-c", "small,2", "60")).count("60 Hz") == 2
    assert [cam.get_fps() for cam in cams] == [40, 60, 60]


def test_one_that_refuses_does_not_keep_the_others(
    cameras: CameraProcesses, type_in: Run
) -> None:
    cams = [cameras.start(name) for name in ("vcam1", "small")]
    done = type_in("set_crop", "-c", "1,small", "TWOARC")
    assert done.returncode == 1
    assert done.stdout.startswith("vcam1: TWOARC")
    assert done.stderr == ("set_crop: small: no camera mode 'TWOARC': expected one of FULL\n")
    assert [cam.get_camera_mode() for cam in cams] == ["TWOARC", "FULL"]
    done = type_in("set_crop", "-c", "1,small", "TWOARC", "--json")
    assert done.returncode == 1
    answers = json.loads(done.stdout)["cameras"]
    assert [bool(answer["error"]) for answer in answers] == [False, True]


def test_a_camera_that_does_not_run_is_told(cameras: CameraProcesses, type_in: Run) -> None:
    why = "camera vcam1 does not run here; start it: camstart vcam1"
    assert refused(type_in("set_tint", "-c", "1", "1")) == f"set_tint: {why}\n"
    assert refused(type_in("get_crop", "-c", "1")) == f"get_crop: {why}\n"
    done = type_in("get_fps", "-c", "1", "--json")
    assert json.loads(done.stdout) == {"cameras": [{"camera": "vcam1", "error": why}]}
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set_tint", "long"), "set_tint: found 'long', expected one number"),
        (("set_tint", "1", "2"), "set_tint: found '1 2', expected one number"),
        (("set_fps",), "set_fps: the following arguments are required: VALUE"),
        (("set_readout_mode", "medium"), "found 'medium', expected FAST or SLOW"),
        (("set_trigger", "maybe"), "found 'maybe', expected enable or disable"),
        (("set_crop", "1", "2", "3"), "expected a camera mode such as MBI, or four whole"),
        (("set_crop", "1", "2", "3", "x"), "found '1 2 3 x'"),
        (("set_crop", "7"), "found '7', expected a camera mode"),
        (("get_tint", "5"), "get_tint: unrecognized arguments: 5"),
        (("set_tint", "-c", "9", "1"), "no camera '9'; cameras there: 1 (vcam1), 2 (vcam2), "),
        (("set_gain", "1"), "expected one of set_crop, get_crop, set_tint"),
        ((), "expected one of set_crop"),
    ],
)
def test_mistakes_are_one_line(
    cameras: CameraProcesses, type_in: Run, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(type_in(*words), 2)


def test_what_the_camera_refuses_is_its_line(cameras: CameraProcesses, type_in: Run) -> None:
    cameras.start("vcam1")
    for words, said in (
        (("set_tint", "-1"), "no exposure time of -1 s: expected 7.2e-06 to 1800 s"),
        (("set_tint", "nan"), "no exposure time of nan s"),
        (("set_fps", "1e9"), "no rate of 1e+09 frames/s"),
        (("set_crop", "mbx"), "no camera mode 'MBX': expected one of FULL, STANDARD"),
        (("set_crop", "-5", "10", "0", "9"), "no window x -5 to 10"),
    ):
        line = refused(type_in(*words, "-c", "1"))
        assert line.startswith(f"{words[0]}: vcam1: ")
        assert said in line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_says_what_is_set(type_in: Run, command: str) -> None:
    said = ok(type_in(command, "--help"))
    assert f"example:\n  {command}" in said
    assert "exit status: 0 done" in said


def test_cameras_of_another_machine_are_told_over_ssh(
    cameras: CameraProcesses, type_in: Run, tmp_path: Path, shm_dir: Path
) -> None:
    cams = [cameras.start(name) for name in ("vcam1", "vcam2")]
    far_config = tmp_path / "far.toml"
    far_config.write_text(cameras.config.read_text())
    with ssh_server(tmp_path) as server:
        environment = {"VAMPIRES_CONFIG": str(far_config)}
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
        cameras.tables["hosts"]["far"] = server.host_table(
            command_dir=str(COMMAND_DIR), shm_dir=str(shm_dir), environment=environment
        )
        cameras.tables["cameras"]["vcam2"]["host"] = "far"
        cameras.config.write_text(toml_text(cameras.tables))
        assert ok(type_in("set_tint", "-c", "2", "0.003")) == "vcam2: 0.003 s, 100 Hz\n"
        assert [cam.get_tint() for cam in cams] == [0.01, 0.003]
        said = ok(type_in("set_tint", "0.004")).splitlines()
        assert sorted(said) == ["far: vcam2: 0.004 s, 100 Hz", "here: vcam1: 0.004 s, 100 Hz"]
        answers = json.loads(ok(type_in("get_tint", "--json")))["cameras"]
        assert [answer["settings"]["tint_s"] for answer in answers] == [0.004] * 2
        line = refused(type_in("set_tint", "-c", "2", "1e9"))
        assert line.startswith("set_tint: vcam2: no exposure time of 1e+09 s")
        ok(type_in("set_crop", "-c", "2", "100", "131", "200", "215"))
        assert cams[1].get_crop() == (100, 131, 200, 215)
        assert refused(type_in("set_tint", "-c", "2", "x"), 2)
