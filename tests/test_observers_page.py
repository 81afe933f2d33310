"""The session of the observer's page, typed as printed into a real terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_room import ControlRoom, control_room
from fps_terminal import Terminal, terminal

from vampires.fps import FPS
from vampires.logger_parameters import fps_name

PROMPT = "scexao5 $ "
SCREEN = 'FPS_FILTSTRING_NAME="streamFITSlog-vcam" milk-fpsCTRL'
GREEN = ("32", "92")
GRAY = ("37", "90", "")
BOTH = ("vcam1", "vcam2")


@pytest.fixture
def room(
    shm_dir: Path, start_command: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ControlRoom]:
    with control_room(shm_dir, start_command, monkeypatch) as room:
        room.add_cameras()
        room.trigger()
        yield room


@pytest.fixture
def shell(room: ControlRoom) -> Iterator[Shell]:
    """A terminal of 80 x 24 on the camera computer, where these commands are in the PATH."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sockets = os.environ["TMUX_TMPDIR"]
    setup = room.folder / "bashrc"
    setup.write_text(f"PS1='{PROMPT}'\n")
    with terminal(PATH=programs, TMUX_TMPDIR=sockets) as window:
        window.start(["bash", "--rcfile", str(setup), "-i"])
        yield Shell(window)


class Shell:
    """Types commands and waits for the next prompt."""

    def __init__(self, window: Terminal) -> None:
        self.window = window
        self.window.wait_until(lambda lines: lines[0].startswith(PROMPT.strip()), "a prompt")

    def types(self, line: str) -> str:
        """Types a command that succeeds; what it printed."""
        self.enters(line)
        return self.finishes()

    def enters(self, line: str) -> None:
        """Types a command on a clear screen."""
        self.window.type("clear")
        self.window.press("Enter")
        self.window.wait_until(lambda lines: "clear" not in "".join(lines), "a clear screen")
        self.window.type(line)
        self.window.press("Enter")

    def finishes(self) -> str:
        """Waits until the command has ended, well."""
        prompt = PROMPT.strip()
        self.window.wait_until(lambda lines: _last(lines).strip() == prompt, "the next prompt")
        self.window.type("echo status=$?")
        self.window.press("Enter")
        lines = self.window.wait_until(
            lambda lines: any(line.startswith("status=") for line in lines), "its end"
        )
        assert "status=0" in lines, lines
        return "\n".join(lines)

    def answers(self, question: str, answer: str) -> None:
        self.window.wait_until(
            lambda lines: _last(lines).startswith(question), f"the question {question!r}"
        )
        self.window.type(answer)
        self.window.press("Enter")


def _last(lines: list[str]) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(lines) if line.strip()), "")


def lights(line: str) -> list[str]:
    """Colours of the three numbers before a logger, in its line with escape sequences."""
    colour, colours = "", []
    for sequence, number in re.findall(r"\x1b\[([0-9;]*)m|(\d+)", line):
        if number:
            colours.append(colour)
        for code in sequence.split(";"):
            if code in ("0", "39") or code[:1] in ("3", "9"):
                colour = "" if code in ("0", "39") else code
    return colours[:3]


def wait_lights(window: Terminal, camera: str, *wanted: tuple[str, ...]) -> None:
    def shown(_: list[str]) -> bool:
        coloured = window.lines(colours=True)
        colours = [lights(line) for line in coloured if fps_name(camera) in line]
        return (
            bool(colours)
            and len(colours[0]) == 3
            and all(
                colour in allowed for colour, allowed in zip(colours[0], wanted, strict=True)
            )
        )

    window.wait_until(shown, f"the colours of {camera}")


def test_the_session_of_the_page(room: ControlRoom, shell: Shell) -> None:
    _prepares(shell)
    _looks_at_the_screen(shell)
    _logs_with_scripts(room, shell)
    _logs_with_the_screen(room, shell)
    _stops(room, shell)


def _prepares(shell: Shell) -> None:
    """ "this will launch an interactive process to set up logging" """
    shell.enters("vampires_preplog")
    shell.answers("cameras", "")
    shell.answers("frames per cube", "40")
    shell.answers("number of cubes", "")
    shell.answers("archive", "")
    shell.answers("data type", "")
    assert "milk-fpsCTRL" in shell.finishes()


def _looks_at_the_screen(shell: Shell) -> None:
    """ "The left three numbers should all be green", and how to restart the process."""
    window = shell.window
    shell.enters(SCREEN)
    for camera in BOTH:
        wait_lights(window, camera, GREEN, GREEN, GREEN)
    window.press("C-r")
    wait_lights(window, "vcam1", GREEN, GREEN, GRAY)
    wait_lights(window, "vcam2", GREEN, GREEN, GREEN)
    window.press("R")
    wait_lights(window, "vcam1", GREEN, GREEN, GREEN)
    window.press("x")
    shell.finishes()


def _logs_with_scripts(room: ControlRoom, shell: Shell) -> None:
    """Option 1."""
    shell.types("vampires_startlog")
    room.wait_frames(50)
    shell.types("vampires_pauselog")
    before = len(room.files("vcam1"))
    shell.types("vampires_startlog")
    room.wait_frames(50)
    shell.types("vampires_pauselog --wait")
    cubes = {camera: room.cubes(camera) for camera in BOTH}
    lengths = [len(cube.rows) for cube in cubes["vcam1"]]
    assert sum(lengths[:before]) >= 50
    assert set(lengths[before:]) == {40}
    counters = [[cube.rows["CNT0"].tolist() for cube in cubes[camera]] for camera in BOTH]
    assert counters[0] == counters[1]


def _logs_with_the_screen(room: ControlRoom, shell: Shell) -> None:
    """Option 2: "press the right arrow ... arrow down to the saveON option. The space bar"."""
    window = shell.window
    shell.enters(SCREEN)
    wait_lights(window, "vcam2", GREEN, GREEN, GREEN)
    window.press("Down", "Right")
    window.wait_for("saveON", "cubesize")
    with FPS.open(fps_name("vcam2")) as fps:
        _goes_to(window, "saveON")
        window.press("Space")
        room.wait(lambda: fps["saveON"], "saveON is on")
        room.wait_frames(10, "vcam2")
        assert not room.look("vcam1").saving
        window.press("Space")
        room.wait(lambda: not fps["saveON"] and fps["state"] == "idle", "saveON is off")
        window.press("Space")
        room.wait(lambda: fps["saveON"] and 0 < fps["framecnt"] < 100, "saveON is on again")
        _goes_to(window, "lastcubeON")
        window.press("Space")
        room.wait(lambda: not fps["saveON"] and fps["state"] == "idle", "the last cube is full")
        assert fps["framecnt"] % 40 == 0
        _goes_to(window, "cubesize")
        window.press("Enter", *["BSpace"] * 12)
        window.type("25")
        window.press("Enter")
        room.wait(lambda: fps["cubesize"] == 25, "cubesize is 25")
    window.press("q")
    shell.finishes()


def _goes_to(window: Terminal, parameter: str) -> None:
    """Arrows down to a parameter."""

    def chosen(lines: list[str]) -> str:
        return next((line[1:].split()[0] for line in lines if line.startswith(">")), "")

    while (now := chosen(window.lines())) != parameter:
        window.press("Down")
        window.wait_until(lambda lines, before=now: chosen(lines) not in ("", before), "a move")


def _stops(room: ControlRoom, shell: Shell) -> None:
    shell.types("vampires_startlog")
    room.wait_frames(10)
    shell.types("vampires_stoplog")
    assert not room.look("vcam1").running
    shell.types("vampires_stoplog --kill")
    assert not room.look("vcam1").prepared
    assert not room.look("vcam2").prepared
    assert len(room.cubes("vcam1")) < len(room.cubes("vcam2"))
