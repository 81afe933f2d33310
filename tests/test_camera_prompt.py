"""The prompt of a camera, in a real terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from camera_process import CameraProcesses, camera_processes, wait_keyword
from fps_terminal import Terminal, terminal

PROMPT = [sys.executable, "-m", "vampires.commands.camera_prompt"]
PROMPTED = "leaves tmux\nsmall>"


@pytest.fixture
def cameras(
    shm_dir: Path, start_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CameraProcesses]:
    with camera_processes(start_command, tmp_path, monkeypatch) as cameras:
        yield cameras


@pytest.fixture
def window(shm_dir: Path, tmp_path: Path) -> Iterator[Terminal]:
    environment = {"HOME": str(tmp_path), "PAGER": "cat", "PYTHONSTARTUP": ""}
    with terminal(110, 50, **environment) as window:
        yield window


def enter(window: Terminal, line: str) -> None:
    window.type(line)
    window.press("Enter")


def test_a_camera_is_set_at_its_prompt(cameras: CameraProcesses, window: Terminal) -> None:
    cam = cameras.start()
    window.start([*PROMPT, "small"])
    shown = "\n".join(window.wait_for(PROMPTED))
    assert "<Camera small: running, FULL (64 x 96), 100 Hz, tint 0.01 s, FAST>" in shown
    assert "help(cam)" in shown
    enter(window, "cam.set_tint(0.004)")
    window.wait_for("small> cam.set_tint(0.004)", "0.004\nsmall>")
    assert cam.get_tint() == 0.004
    enter(window, "cam.set_keyword('OBJECT', 'HD 5')")
    wait_keyword("OBJECT", "HD 5")
    enter(window, "for k in range(2): print('loop', k)")
    window.press("Enter")
    window.wait_for("loop 0", "loop 1")
    enter(window, "cam.take_dark(3).shape")
    window.wait_for("(64, 96)\nsmall>")


def test_a_refusal_is_one_line_and_other_mistakes_are_pythons(
    cameras: CameraProcesses, window: Terminal
) -> None:
    cameras.start()
    window.start([*PROMPT, "small"])
    window.wait_for(PROMPTED)
    enter(window, "cam.set_tint(-5)")
    window.wait_for("small> cam.set_tint(-5)\nno exposure time of -5 s: expected", "\nsmall>")
    assert "Traceback" not in "\n".join(window.lines())
    enter(window, "nosuch")
    window.wait_for("Traceback", "NameError: name 'nosuch' is not defined")
    enter(window, "try: cam.set_fps(0)")
    enter(window, "except CameraError: print('caught ' 'it')")
    window.press("Enter")
    window.wait_for("caught it\n")


def test_tab_completes_and_help_tells(cameras: CameraProcesses, window: Terminal) -> None:
    cameras.start()
    window.start([*PROMPT, "small"])
    window.wait_for(PROMPTED)
    window.type("cam.set_t")
    window.press("Tab")
    window.wait_for("small> cam.set_tint(")
    enter(window, "0.002)")
    window.wait_for("0.002\nsmall>")
    window.type("cam.get_")
    window.press("Tab", "Tab")
    shown = "\n".join(window.wait_for("cam.get_camera_mode(", "cam.get_external_trigger("))
    assert "_ask" not in shown
    window.press("C-u")
    enter(window, "help(cam)")
    window.wait_for("take_dark(self, frames")
    window.press("C-c")
    enter(window, "print('still ' 'here')")
    window.wait_for("still here")


def test_ctrl_d_ends_it_and_the_camera_goes_on(
    cameras: CameraProcesses, window: Terminal
) -> None:
    cam = cameras.start()
    window.start([*PROMPT, "small"])
    window.wait_for(PROMPTED)
    window.press("C-c")
    window.wait_for("KeyboardInterrupt\nsmall>")
    window.press("C-d")
    window.wait_for("EXIT 0")
    assert cam.status()["state"] == "running"


def test_it_waits_for_its_camera_says_so_and_outlives_it(
    cameras: CameraProcesses, window: Terminal
) -> None:
    window.start([*PROMPT, "small"])
    window.wait_for("vampires-camera: waiting for camera small")
    cameras.start()
    window.wait_for(PROMPTED)
    cameras.end()
    enter(window, "cam.get_tint()")
    window.wait_for("camera small does not run here; start it: camstart small", "\nsmall>")
    enter(window, "cam")
    window.wait_for("<Camera small: camera small does not run here")
    cameras.start()
    enter(window, "cam.set_fps(50)")
    window.wait_for("50.0\nsmall>")


def test_ctrl_c_ends_the_waiting(window: Terminal, cameras: CameraProcesses) -> None:
    window.start([*PROMPT, "small"])
    window.wait_for("waiting for camera small")
    window.press("C-c")
    window.wait_for("EXIT 130")
    assert "Traceback" not in "\n".join(window.lines())


def test_help_has_an_example(run_command: Any) -> None:
    done = run_command("camera-prompt", "--help")
    assert done.returncode == 0
    assert "example:\n  vampires-camera vcam1" in done.stdout
    done = run_command("camera-prompt")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
