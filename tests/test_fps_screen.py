"""The screen of milk-fpsCTRL: what its keys do, what it shows, and in a real terminal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from fps_makers import copy_golden, make_fps, make_logger, seem_dead, seem_running
from fps_terminal import SCREEN, Terminal, colour_of, terminal
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from vampires.fps import FPS, Message, NewParameter
from vampires.fps.layout import (
    HEADER_BYTES,
    PARAMETER_BYTES,
    VALUE_AT,
    MessageCode,
    ParameterType,
    Signal,
    Status,
)
from vampires.fps_control import ActionFailed
from vampires.fpsctrl import browser as fps_browser
from vampires.fpsctrl import screen as fps_screen
from vampires.fpsctrl.browser import ACTIONS, FPSBrowser
from vampires.fpsctrl.editor import LineEditor
from vampires.fpsctrl.filter import FPSFilter
from vampires.fpsctrl.lines import compact, fit, help_lines
from vampires.fpsctrl.screen import FPSScreen
from vampires.fpsctrl.selection import Selection
from vampires.fpsctrl.text import typed
from vampires.fpsctrl.watch import FPSWatch
from vampires.logger_parameters import make_logger_fps
from vampires.terminal_text import Line, Tone

RUN_KEYS = ["R", "ctrl+r", "O", "ctrl+o", "T", "ctrl+t"]


class Browsed:
    """A browser without a screen. Background work waits until the test lets it happen."""

    def __init__(self, shm_dir: Path, fps_filter: FPSFilter | None = None) -> None:
        self.begun: list[tuple[str, Callable[[], None], Callable[[str | None], None]]] = []
        self.left = False
        self.watch = FPSWatch(shm_dir, fps_filter or FPSFilter())
        self.browser = FPSBrowser(self.watch, self._in_background, self._leave)

    def _in_background(self, what: str, work: Any, done: Any) -> None:
        self.begun.append((what, work, done))

    def _leave(self) -> None:
        self.left = True

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.press(key)

    def type(self, text: str) -> None:
        self.press(*("space" if c == " " else c for c in text))

    def select(self, text: str) -> None:
        """Goes down to the line that begins with a text."""
        self.press("home")
        for _ in range(200):
            if self.selected().startswith(text):
                return
            self.press("down")
        raise AssertionError(f"{text!r} is not on the screen: {self.text()}")

    def lines(self, width: int = 80, height: int = 24) -> list[Line]:
        self.browser.look()
        return self.browser.lines(width, height)

    def text(self, width: int = 80, height: int = 24) -> list[str]:
        return ["".join(text for text, _ in line) for line in self.lines(width, height)]

    def line(self, text: str) -> str:
        """The line that has the text in it."""
        return next(line for line in self.text() if text in line)

    def selected(self) -> str:
        """What is selected: the name of an FPS or of a parameter."""
        for line in self.lines():
            for text, tone in line:
                if tone is Tone.SELECTED:
                    return text
        return ""

    def message(self) -> str:
        return " ".join(line.strip() for line in self.text()[-4:-1]).strip()

    def tone(self, text: str, within: str = "") -> Tone:
        """The tone of the piece that is the text, in the line that has `within` in it."""
        for line in self.lines():
            if within in "".join(piece for piece, _ in line):
                for piece, tone in line:
                    if piece.strip() == text:
                        return tone
        raise AssertionError(f"{text!r} is not on the screen: {self.text()}")


@pytest.fixture
def browse(shm_dir: Path) -> Iterator[Callable[..., Browsed]]:
    opened: list[Browsed] = []

    def start(fps_filter: FPSFilter | None = None) -> Browsed:
        opened.append(Browsed(shm_dir, fps_filter))
        return opened[-1]

    yield start
    for browsed in opened:
        browsed.watch.close()


# -- the list --------------------------------------------------------------------------------


def test_each_fps_has_a_line_with_numbers_name_and_description(
    browse: Any, shm_dir: Path
) -> None:
    seem_running(make_fps(shm_dir, "alive"))
    make_fps(shm_dir, "idle").close()
    dead = seem_dead(make_fps(shm_dir, "dead"))
    browsed = browse()
    pid = str(os.getpid())
    assert browsed.line("test of alive").split()[:5] == [">", "0", pid, pid, "alive"]
    assert browsed.line("test of idle").split()[:4] == ["0", "0", "0", "idle"]
    assert browsed.tone(pid, "alive") is Tone.GOOD
    assert browsed.tone("0", "idle") is Tone.FAINT
    assert browsed.tone(f"!{dead}", "dead") is Tone.BAD
    browsed.select("dead")
    assert browsed.message() == f"run {dead} died; SHIFT+R starts it"


def test_an_observer_sees_whether_a_logger_saves_and_loses(browse: Any, shm_dir: Path) -> None:
    fps = make_logger(shm_dir, "vcam1")
    seem_running(fps)
    browsed = browse()
    fps.publish("state", "idle")
    assert browsed.tone("off", "vcam1") is Tone.FAINT
    for key, value in {"saveON": True, "framecnt": 123, "state": "logging"}.items():
        fps.set(key, value, force=True)
    assert browsed.tone("ON", "vcam1") is Tone.GOOD
    assert browsed.tone("123", "vcam1") is Tone.PLAIN
    assert "lost" not in browsed.text()[0]
    fps.publish("lost", 4)
    assert browsed.tone("4", "vcam1") is Tone.BAD
    assert "1 saving  4 lost" in browsed.text()[0]
    fps.set("lastcubeON", True, force=True)
    assert browsed.tone("LAST", "vcam1") is Tone.GOOD
    fps.publish("state", "no stream")
    assert browsed.tone("NO STREAM", "vcam1") is Tone.BAD
    fps.publish("lasterror", "10:11:12 the disk is full")
    assert browsed.message() == "last error: 10:11:12 the disk is full"


def test_saving_without_a_run_process_is_an_alarm(browse: Any, shm_dir: Path) -> None:
    path = copy_golden(shm_dir)
    with FPS.open("streamFITSlog-vcam1", shm_dir) as fps:
        fps["saveON"] = True
    browsed = browse()
    assert browsed.tone("NO RUN", "vcam1") is Tone.BAD
    assert "the logger does not run" in browsed.message()
    assert path.exists()


def test_a_logger_of_milk_that_saves_is_shown_as_such(browse: Any, shm_dir: Path) -> None:
    copy_golden(shm_dir)
    with FPS.open("streamFITSlog-vcam1", shm_dir) as fps:
        seem_running(fps)
        fps.set("saveON", True, force=True)
    browsed = browse()
    assert browsed.tone("ON", "vcam1") is Tone.GOOD
    assert browsed.tone("-", "vcam1") is Tone.FAINT  # it does not count lost frames


def test_values_of_other_types_than_a_loggers_harm_nothing(browse: Any, shm_dir: Path) -> None:
    keys = ["saveON", "lastcubeON", "framecnt", "lost", "state", "rate", "ringfill", "pending"]
    keys += ["timetofull", "lasterror"]
    text = [NewParameter(key, ParameterType.STRING, "odd", "") for key in keys]
    real = [NewParameter(key, ParameterType.FLOAT64, 0.0, "") for key in keys]
    for name, parameters in (("text", text), ("real", real)):
        fps = FPS.create(
            name, parameters, callfuncname="f", workdir=shm_dir / "work", shm_dir=shm_dir
        )
        seem_running(fps)
        with fps.path.open("r+b") as file:  # not a number
            for at in range(HEADER_BYTES + VALUE_AT, fps.path.stat().st_size, PARAMETER_BYTES):
                if name == "real":
                    os.pwrite(file.fileno(), struct.pack("d", float("nan")), at)
    browsed = browse()
    for _ in range(2):
        browsed.text()
        browsed.press("right")
        browsed.text()
        browsed.press("left", "down")


def test_only_what_passes_the_filter_is_listed(browse: Any, shm_dir: Path) -> None:
    for name in ("streamFITSlog-vcam1", "streamFITSlog-vcam2", "other"):
        make_fps(shm_dir, name, callfuncname=name[:5]).close()
    listed = [name for name in browse(FPSFilter(name="streamFITSlog-vcam")).watch.names()]
    assert listed == ["streamFITSlog-vcam1", "streamFITSlog-vcam2"]
    assert browse(FPSFilter(callfunc="other")).watch.names() == ["other"]
    nothing = browse(FPSFilter(name="vpup"))
    assert nothing.watch.names() == []
    assert "FPS_FILTSTRING_NAME=vpup" in nothing.line("There are no FPS")
    nothing.press("down", "right", "R", "ctrl+e", "space", "enter", "u", "left")
    assert nothing.begun == []


def test_a_process_that_ends_while_it_is_shown_is_red(
    browse: Any, shm_dir: Path, start_python: Any
) -> None:
    fps = make_fps(shm_dir, "a")
    fps.change_status(set=Status.CMDRUN)
    source = (
        "import sys; from vampires.fps import FPS\n"
        "FPS.open('a').record_run_process()\n"
        "print('recorded', flush=True); sys.stdin.read()"
    )
    runs = start_python(source, stdin=subprocess.PIPE)
    assert runs.stdout.readline() == "recorded\n"
    browsed = browse()
    assert browsed.tone(str(runs.pid), "test of a") is Tone.GOOD
    runs.kill()
    runs.wait()
    assert browsed.tone(f"!{runs.pid}", "test of a") is Tone.BAD
    browsed.browser.rescan()
    assert browsed.tone(f"!{runs.pid}", "test of a") is Tone.BAD
    fps.record_run_process()
    assert browsed.tone(str(os.getpid()), "test of a") is Tone.GOOD


def test_fps_appear_and_disappear_by_themselves(browse: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "b").close()
    browsed = browse()
    open_before = len(os.listdir("/proc/self/fd"))
    make_fps(shm_dir, "a").close()
    browsed.browser.rescan()
    assert browsed.watch.names() == ["a", "b"]
    assert browsed.selected().strip() == "b"  # the selection stays with its FPS
    (shm_dir / "b.fps.shm").unlink()
    browsed.browser.rescan()
    assert browsed.watch.names() == ["a"]
    assert browsed.selected().strip() == "a"
    assert len(os.listdir("/proc/self/fd")) == open_before
    make_fps(shm_dir, "c").close()
    browsed.press("s")
    assert browsed.watch.names() == ["a", "c"]


def test_an_fps_made_anew_under_its_name_is_the_one_shown(browse: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "a").close()
    browsed = browse()
    browsed.press("right")
    (shm_dir / "a.fps.shm").unlink()
    with make_fps(shm_dir, "a") as fps:
        browsed.select("saveON")
        browsed.press("space")
        assert fps["saveON"] is True


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(b"", "0 bytes"), (b"x" * 1000, "truncated"), (b"\xff" * 885048, "another")],
)
def test_a_broken_file_is_listed_in_red_with_the_reason(
    raw: bytes, reason: str, browse: Any, shm_dir: Path
) -> None:
    (shm_dir / "broken.fps.shm").write_bytes(raw)
    make_fps(shm_dir, "good").close()
    browsed = browse()
    assert browsed.watch.names() == ["broken", "good"]
    line = next(line for line in browsed.lines() if "broken" in "".join(t for t, _ in line))
    assert line[-1][1] is Tone.BAD
    assert reason in browsed.message()
    for key in (*RUN_KEYS, "u", "right", "space", "enter", "down"):
        browsed.press(key)
        browsed.text()
    assert reason in " ".join(browsed.text())


def test_what_is_no_file_or_not_ours_to_read_is_listed(browse: Any, shm_dir: Path) -> None:
    (shm_dir / "folder.fps.shm").mkdir()
    os.mkfifo(shm_dir / "fifo.fps.shm")
    (shm_dir / "loop.fps.shm").symlink_to("loop.fps.shm")
    browsed = browse()
    assert browsed.watch.names() == ["fifo", "folder", "loop"]
    assert "3 unreadable" in browsed.text()[0]


def test_a_file_truncated_while_it_is_shown_is_reported(browse: Any, shm_dir: Path) -> None:
    path = copy_golden(shm_dir)
    browsed = browse()
    browsed.press("right")
    assert browsed.line("saveON")
    for size in (70_000, 0):
        os.truncate(path, size)
        browsed.browser.rescan()
        assert "truncated" in " ".join(browsed.text())
    browsed.press("left")
    assert "unreadable" in browsed.text()[0]


def test_an_fps_removed_while_it_is_shown_leads_back_to_the_list(
    browse: Any, shm_dir: Path
) -> None:
    make_fps(shm_dir, "a").close()
    make_fps(shm_dir, "b").close()
    browsed = browse()
    browsed.press("down", "right", "down", "enter")
    (shm_dir / "b.fps.shm").unlink()
    browsed.text()
    browsed.browser.rescan()
    assert browsed.message() == "b was removed"
    assert browsed.selected().strip() == "a"


def test_names_with_odd_characters_harm_nothing(browse: Any, shm_dir: Path) -> None:
    good = ["a b", "a.b-c", "ä€漢字", "n" * 92, "'; rm -rf \"", "-x", "[bold]x"]
    for name in good:
        make_fps(shm_dir, name).close()
    for name in ("\x1b[2J", "new\nline", "tab\t"):
        shutil.copy(shm_dir / "a b.fps.shm", shm_dir / f"{name}.fps.shm")
    (shm_dir / os.fsdecode(b"\xff.fps.shm")).write_bytes(b"")
    browsed = browse()
    assert len(browsed.watch.names()) == len(good) + 4
    for _ in browsed.watch.names():
        for width in (20, 80, 200):
            assert all(line.isprintable() for line in browsed.text(width))
        browsed.press("right")
        assert all(line.isprintable() for line in browsed.text())
        browsed.press("left", "down")


def test_a_hundred_fps_scroll(browse: Any, shm_dir: Path) -> None:
    for k in range(100):
        make_fps(shm_dir, f"fps-{k:03d}").close()
    browsed = browse()
    for k in range(100):
        assert browsed.selected().strip() == f"fps-{k:03d}"
        browsed.press("down")
    browsed.press("home", "pagedown")
    assert browsed.selected().strip() == "fps-019"
    browsed.press("end", "up")
    assert browsed.selected().strip() == "fps-098"
    assert " 100 FPS" in browsed.text()[0]


@given(st.integers(0, 40), st.lists(st.sampled_from(["up", "down", "pageup", "end", "home"])))
def test_the_selected_item_is_always_on_the_screen(count: int, keys: list[str]) -> None:
    selection = Selection()
    selection.set_items([str(k) for k in range(count)])
    for rows, key in enumerate(keys, 1):
        selection.move(key, rows)
        visible = selection.visible(rows)
        assert len(visible) == min(rows, count)
        assert not count or selection.index in visible


# -- an FPS ----------------------------------------------------------------------------------


def test_the_parameters_of_an_fps_are_shown(browse: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "a").close()
    browsed = browse()
    browsed.press("right")
    gain = browsed.line("gain ")
    assert gain.split() == [">gain", "0.5", "0..1", "a", "number"]
    assert browsed.line("single").split()[:2] == ["single", "0.1"]
    assert browsed.line("saveON").split()[:2] == ["saveON", "OFF"]
    keys = [line.split()[0].strip(">") for line in browsed.text()[2:11]]
    assert keys[-1] == "group.inner"  # after those of the FPS itself
    assert browsed.tone("42", "result") is Tone.FAINT
    browsed.press("left")
    assert "1 FPS" in browsed.text()[0]


def test_space_switches_and_switches_back(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        seem_running(fps)
        browsed = browse()
        browsed.press("right")
        browsed.select("saveON")
        browsed.press("space")
        assert fps.raw_onoff("saveON") == (True, True)
        assert fps.signal() & Signal.UPDATE
        assert browsed.message() == "saveON = ON (was OFF)"
        assert browsed.tone("ON", "saveON  ") is Tone.GOOD
        browsed.press("enter")
        assert fps.raw_onoff("saveON") == (False, False)
        browsed.press("up", "space")
        assert "not ON or OFF" in browsed.message()


def test_two_people_who_switch_the_same_at_once_agree(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        one, other = browse(), browse()
        for browsed in (one, other):
            browsed.press("right")
            browsed.select("saveON")
        one.press("space")
        other.press("space")
        assert fps["saveON"] is True
        assert other.message().startswith("saveON = ON")


def test_switching_on_what_does_not_run_warns(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        browsed = browse()
        browsed.press("right")
        browsed.select("saveON")
        browsed.press("space")
        assert fps["saveON"] is True
        assert "does not run: SHIFT+R" in browsed.message()


def test_a_value_is_edited_in_place(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        browsed = browse()
        browsed.press("right")
        browsed.select("gain")
        browsed.press("enter")
        assert browsed.text()[-1].rstrip() == " gain (FLOAT64 0..1) = 0.5"
        browsed.press("backspace")
        browsed.type("25")
        browsed.press("enter")
        assert fps["gain"] == 0.25
        assert browsed.message() == "gain = 0.25 (was 0.5)"
        browsed.select("label")
        browsed.press("enter", "ctrl+u")
        browsed.type("q x R")
        browsed.press("enter")
        assert fps["label"] == "q x R"
        assert not browsed.left
        assert browsed.begun == []


def test_a_directory_of_any_length_can_be_typed(browse: Any, shm_dir: Path) -> None:
    long = "/data/" + "x" * 100
    with make_logger_fps("a", shm_dir) as fps:
        browsed = browse()
        browsed.press("right")
        browsed.select("dirname")
        browsed.press("enter", "ctrl+u")
        browsed.type(long)
        browsed.press("enter")
        assert os.readlink(str(fps["dirname"])) == long


def test_a_value_that_is_refused_stays_in_the_editor_with_the_reason(
    browse: Any, shm_dir: Path
) -> None:
    with make_fps(shm_dir, "a") as fps:
        browsed = browse()
        browsed.press("right")
        browsed.select("gain")
        browsed.press("enter")
        browsed.type("7")
        browsed.press("home")
        browsed.type("9")
        browsed.press("enter")
        assert "at most 1" in browsed.message()
        assert browsed.tone(browsed.message()) is Tone.BAD
        assert browsed.text()[-1].rstrip() == " gain (FLOAT64 0..1) = 90.57"
        browsed.press("escape")
        assert browsed.message() == "nothing changed"
        assert fps["gain"] == 0.5


def test_outputs_and_what_may_not_be_set_now_are_not_edited(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        browsed = browse()
        browsed.press("right")
        browsed.select("result")
        browsed.press("enter")
        assert "is an output" in browsed.message()
        browsed.select("fixed")
        browsed.press("enter", "escape")
        assert browsed.message() == "nothing changed"
        seem_running(fps)
        browsed.text()
        browsed.press("enter")
        assert "cannot be set now" in browsed.message()


def test_pasted_text_goes_into_the_edited_value_only(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        browsed = browse()
        browsed.browser.paste("q")
        browsed.press("right")
        browsed.select("label")
        browsed.press("enter", "ctrl+u")
        browsed.browser.paste("/mnt/fuuu/\x1b[31m\nR\n")
        browsed.press("enter")
        assert fps["label"] == "/mnt/fuuu/[31m"
        assert not browsed.left


@given(
    st.text(max_size=30), st.lists(st.sampled_from(["left", "right", "home", "x", "delete"]))
)
def test_the_edited_line_always_fits(text: str, keys: list[str]) -> None:
    editor = LineEditor(" key = ", "")
    editor.insert(text)
    for width in (10, 12, 80):
        for key in keys:
            editor.press(key)
            before, under, after = editor.view(width)
            assert cell_len(before + under + after) <= max(width, 7 + 3)


# -- actions ---------------------------------------------------------------------------------


class Controlled:
    """Stands for FPSControl: notes what is asked, fails with `failure`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.failure: str | None = None

    def __call__(self, name: str, shm_dir: Path) -> Any:
        controlled = self

        class Control:
            def __getattr__(self, method: str) -> Callable[[], None]:
                return lambda: controlled.act(method, name)

        return Control()

    def act(self, method: str, name: str) -> None:
        self.asked.append((method, name))
        if self.failure is not None:
            raise ActionFailed(self.failure)


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Controlled:
    controlled = Controlled()
    monkeypatch.setattr(fps_browser, "FPSControl", controlled)
    return controlled


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("key", RUN_KEYS)
def test_a_key_acts_on_the_fps_in_both_views(
    key: str, entered: bool, browse: Any, shm_dir: Path, control: Controlled
) -> None:
    make_fps(shm_dir, "a").close()
    make_fps(shm_dir, "b").close()
    browsed = browse()
    browsed.press("down", *(["right", "down"] if entered else []), key)
    (what, work, done), doing = browsed.begun[0], ACTIONS[key].doing
    assert what == f"b: {doing}"
    assert browsed.message() == f"b: {doing} ..."
    browsed.press(key)
    assert "still" in browsed.message()
    assert len(browsed.begun) == 1
    work()
    assert control.asked == [(ACTIONS[key].method, "b")]
    done(None)
    assert browsed.message() == f"b: {ACTIONS[key].done}"
    browsed.press(key)
    browsed.begun[1][2]("the reason")
    assert browsed.message() == "b: the reason"
    assert browsed.tone("b: the reason") is Tone.BAD


def test_two_fps_are_started_at_once(browse: Any, shm_dir: Path, control: Controlled) -> None:
    make_fps(shm_dir, "a").close()
    make_fps(shm_dir, "b").close()
    browsed = browse()
    browsed.press("R", "down", "R")
    assert [what for what, _, _ in browsed.begun] == ["a: starting run", "b: starting run"]


def test_removal_needs_a_yes(browse: Any, shm_dir: Path, control: Controlled) -> None:
    make_fps(shm_dir, "a").close()
    browsed = browse()
    for key in ("n", "enter", "escape", "q", "R"):
        browsed.press("ctrl+e")
        assert browsed.message().startswith("remove a ")
        browsed.press(key)
        assert browsed.message() == "a stays"
    assert browsed.begun == []
    assert not browsed.left
    browsed.press("ctrl+e", "y")
    browsed.begun[0][1]()
    assert control.asked == [("remove", "a")]


def test_u_requests_a_check(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        fps.change_signal(clear=Signal.UPDATE)
        browsed = browse()
        browsed.press("u")
        assert fps.signal() & Signal.UPDATE
        assert "conf does not run" in browsed.message()
        seem_running(fps)
        browsed.text()
        browsed.press("right", "u")
        assert browsed.message() == "a: asked conf to check the parameters"


def test_bad_parameters_are_named(browse: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        fps.set_messages([Message(0, MessageCode.ABOVEMAX, "gain is above its limit")])
        browsed = browse()
        assert browsed.tone("1 error", "a") is Tone.BAD
        assert browsed.message() == "gain is above its limit"


@pytest.mark.parametrize("key", ["q", "x", "ctrl+c"])
def test_keys_that_leave(key: str, browse: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "a").close()
    for before in ([], ["right"], ["h"], ["right", "enter"], ["ctrl+e"]):
        browsed = browse()
        browsed.press(*before, key)
        assert browsed.left == (key == "ctrl+c" or before in ([], ["right"]))


def test_help_explains_the_keys_and_fits(browse: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "a").close()
    browsed = browse()
    browsed.press("h")
    shown = "\n".join(browsed.text())
    for word in ("SHIFT+R", "CTRL+R", "CTRL+E", "saveON", "green", "gray", "red", "space"):
        assert word in shown
    assert len(help_lines()) <= 21
    small = browsed.text(80, 12)
    browsed.press(*["down"] * 30)
    assert browsed.text(80, 12) != small
    assert browsed.text(80, 12)[9].startswith(" under way ends short")
    browsed.press("h")
    assert "1 FPS" in browsed.text()[0]


def test_lines_fill_any_size_and_fit_80_columns(browse: Any, shm_dir: Path) -> None:
    seem_running(make_logger(shm_dir, "vcam1"))
    make_fps(shm_dir, "a").close()
    (shm_dir / "broken.fps.shm").write_bytes(b"")
    browsed = browse()
    views: list[list[str]] = [[], ["down"], ["down", "right"], ["h"], ["x"]]
    for keys in views:
        browsed.press(*keys)
        for width, height in [(1, 1), (3, 2), (10, 5), (40, 10), (80, 24), (300, 100)]:
            assert len(browsed.lines(width, height)) == height
        rows = browsed.text()
        assert all(cell_len(row) <= 80 for row in rows if "broken" not in row), rows


def test_counts_are_short() -> None:
    assert [compact(n, 6) for n in (0, 999999, 1234567, 10**12)] == [
        "0",
        "999999",
        "1234k",
        "1000G",
    ]
    assert fit("漢字漢字", 5) == "漢字~"
    assert [fit("ab", 4, right=True), fit("abc", 2), fit("x", 0)] == ["  ab", "a~", ""]


@given(st.floats(width=32, allow_nan=False))
def test_numbers_are_shown_as_they_read_back(value: float) -> None:
    shown = typed(value, ParameterType.FLOAT32)
    assert struct.pack("f", float(shown)) == struct.pack("f", value)
    assert float(typed(value / 3, ParameterType.FLOAT64)) == value / 3


# -- the application -------------------------------------------------------------------------


def run_screen(
    shm_dir: Path,
    script: Callable[[FPSScreen, Any], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (80, 24),
) -> FPSScreen:
    """Runs the application with a script that presses its keys."""

    async def body() -> FPSScreen:
        screen = FPSScreen(shm_dir, FPSFilter())
        async with screen.run_test(size=size) as pilot:
            await script(screen, pilot)
        return screen

    return asyncio.run(body())


async def shows(screen: FPSScreen, pilot: Any, text: str) -> list[str]:
    """Waits until the screen shows a text."""
    for _ in range(500):
        lines = [strip.text for strip in screen.screen._compositor.render_strips()]
        if text in "\n".join(lines):
            return lines
        await pilot.pause(0.02)
    raise AssertionError(f"{text!r} does not appear:\n" + "\n".join(lines))


@pytest.mark.parametrize("key", ["q", "x", "ctrl+c"])
def test_the_application_leaves_at_once(key: str, shm_dir: Path) -> None:
    async def script(screen: FPSScreen, pilot: Any) -> None:
        await shows(screen, pilot, "0 FPS")
        await pilot.press(key)
        await pilot.pause()
        assert not screen.is_running or screen._exit

    run_screen(shm_dir, script)


def test_keys_of_the_toolkit_do_nothing(shm_dir: Path) -> None:
    make_fps(shm_dir, "a").close()

    async def script(screen: FPSScreen, pilot: Any) -> None:
        before = await shows(screen, pilot, "1 FPS")
        for key in ("ctrl+q", "ctrl+p", "tab", "shift+tab", "f1", "ctrl+z", "ctrl+s"):
            await pilot.press(key)
        await pilot.pause()
        assert screen.is_running
        assert await shows(screen, pilot, "1 FPS") == before

    run_screen(shm_dir, script)


def test_the_screen_lives_while_an_action_is_under_way(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fps(shm_dir, "a").close()
    make_fps(shm_dir, "b").close()
    go_on = threading.Event()
    controlled = Controlled()
    controlled.act = lambda method, name: go_on.wait(30)  # type: ignore[method-assign]
    monkeypatch.setattr(fps_browser, "FPSControl", controlled)

    async def script(screen: FPSScreen, pilot: Any) -> None:
        await pilot.press("R")
        await shows(screen, pilot, "a: starting run ...")
        await pilot.press("down", "right")
        await shows(screen, pilot, ">gain")
        go_on.set()
        await shows(screen, pilot, "a: run is on")

    run_screen(shm_dir, script)


def test_an_action_that_fails_or_breaks_is_said(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fps(shm_dir, "a").close()
    controlled = Controlled()
    monkeypatch.setattr(fps_browser, "FPSControl", controlled)

    async def script(screen: FPSScreen, pilot: Any) -> None:
        controlled.failure = "no tmux session"
        await pilot.press("R")
        await shows(screen, pilot, "a: no tmux session")
        controlled.act = lambda method, name: 1 / 0  # type: ignore[method-assign]
        await pilot.press("ctrl+r")
        await shows(screen, pilot, "unexpected ZeroDivisionError")

    run_screen(shm_dir, script)


def test_what_was_begun_is_known_after_the_screen_was_left(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fps(shm_dir, "a").close()
    go_on = threading.Event()
    controlled = Controlled()

    def act(method: str, name: str) -> None:
        go_on.wait(30)
        raise ActionFailed("too late")

    controlled.act = act  # type: ignore[method-assign]
    monkeypatch.setattr(fps_browser, "FPSControl", controlled)

    async def script(screen: FPSScreen, pilot: Any) -> None:
        await pilot.press("T", "q")

    screen = run_screen(shm_dir, script)
    (work,) = screen.under_way()
    go_on.set()
    work.thread.join()
    assert (work.what, work.failure) == ("a: starting tmux", "too late")


def test_only_lines_that_changed_are_drawn(shm_dir: Path) -> None:
    loggers = [make_logger(shm_dir, f"vcam{k}") for k in range(5)]
    for fps in loggers:
        seem_running(fps)

    async def script(screen: FPSScreen, pilot: Any) -> None:
        await shows(screen, pilot, "5 FPS")
        widget = screen.query_one("LinesWidget")
        drawn: list[int] = []
        refresh = widget.refresh
        widget.refresh = lambda *regions, **options: (  # type: ignore[method-assign]
            drawn.extend(region.y for region in regions),
            refresh(*regions, **options),
        )[1]
        screen._look()
        assert drawn == []
        loggers[2].publish("framecnt", 77)
        screen._look()
        assert drawn == [4]
        await shows(screen, pilot, "77")

    run_screen(shm_dir, script)


def test_values_that_change_appear_five_times_a_second(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fps_screen.LOOK_S <= 0.2
    monkeypatch.setattr(fps_screen, "RESCAN_S", 3600)
    monkeypatch.setattr(fps_screen, "TMUX_S", 3600)
    fps = make_fps(shm_dir, "a")

    async def script(screen: FPSScreen, pilot: Any) -> None:
        await pilot.press("right")
        await shows(screen, pilot, "result")
        for value in (4711, 4712, 4713):
            fps.set("result", value, force=True)
            await shows(screen, pilot, str(value))

    run_screen(shm_dir, script)


def test_new_fps_appear_on_the_screen_by_themselves(shm_dir: Path) -> None:

    async def script(screen: FPSScreen, pilot: Any) -> None:
        await shows(screen, pilot, "0 FPS")
        make_fps(shm_dir, "b").close()
        await shows(screen, pilot, "test of b")
        (shm_dir / "b.fps.shm").unlink()
        await shows(screen, pilot, "0 FPS")

    run_screen(shm_dir, script)


def test_the_outcome_of_a_command_line_is_shown(shm_dir: Path) -> None:
    from vampires.fpsctrl.command_lines import Outcome

    async def script(screen: FPSScreen, pilot: Any) -> None:
        await asyncio.to_thread(screen.say_outcome, Outcome("rescan", True, "0 FPS"))
        await shows(screen, pilot, "FIFO: rescan -> 0 FPS")
        await asyncio.to_thread(screen.leave)
        for _ in range(500):
            if screen._exit:
                return
            await pilot.pause(0.02)

    run_screen(shm_dir, script)


# -- a real terminal -------------------------------------------------------------------------


@pytest.fixture
def logger(shm_dir: Path) -> FPS:
    """A logger that seems to run, and others that do not."""
    fps = make_logger(shm_dir, "vcam1")
    seem_running(fps)
    fps.publish("state", "idle")
    return fps


@pytest.fixture
def window(shm_dir: Path) -> Iterator[Terminal]:
    with terminal(MILK_SHM_DIR=str(shm_dir)) as opened:
        yield opened


def test_the_three_numbers_are_green_gray_and_red(window: Terminal, shm_dir: Path) -> None:
    fps = make_logger(shm_dir, "vcam1")
    fps.record_conf_process()
    fps.change_status(set=Status.CMDCONF)
    dead = seem_dead(fps)
    window.start(SCREEN)
    window.wait_for("streamFITSlog-vcam1")
    (line,) = [line for line in window.lines(colours=True) if "streamFITSlog-vcam1" in line]
    assert colour_of(line, " 0") == "90"
    assert colour_of(line, f"{os.getpid()}") == "32"
    assert colour_of(line, f"!{dead}") == "31"


def test_the_page_can_be_typed(window: Terminal, logger: FPS) -> None:
    window.start(SCREEN)
    window.wait_for("1 FPS")
    window.press("Right")
    window.wait_for("saveON")
    window.press("Down")
    window.wait_for(">saveON")
    window.press("Space")
    window.wait_for("saveON = ON (was OFF)")
    assert logger["saveON"] is True
    window.press("Down", "Space")
    window.wait_for("lastcubeON = ON")
    assert logger["lastcubeON"] is True
    window.press("Left")
    window.wait_for("1 FPS")
    window.press("q")
    window.wait_for("EXIT 0")


def test_lost_frames_are_red(window: Terminal, logger: FPS) -> None:
    window.start(SCREEN)
    window.wait_for("1 FPS")
    logger.publish("lost", 31415)
    window.wait_for("31415")
    for line in window.lines(colours=True):
        if "31415" in line:
            assert colour_of(line, "31415") == "31"


def test_a_value_is_typed_in_a_terminal(window: Terminal, logger: FPS) -> None:
    window.start(SCREEN)
    window.wait_for("1 FPS")
    window.press("Right", "Down", "Down", "Down", "Down")
    window.wait_for(">cubesize")
    window.press("Enter", "C-u")
    window.type("25x")
    window.press("Enter")
    window.wait_for("25x", "expected")
    window.press("BSpace")
    window.type("0")
    window.press("Enter")
    window.wait_for("cubesize = 250 (was 1000)")
    assert logger["cubesize"] == 250


def test_actions_say_why_they_failed(window: Terminal, shm_dir: Path) -> None:
    make_fps(shm_dir, "a").close()
    window.start(SCREEN)
    window.wait_for("1 FPS")
    window.press("R")
    window.wait_for("conf process of a does not run")
    window.press("C-e", "y")
    window.wait_for("0 FPS")
    assert not (shm_dir / "a.fps.shm").exists()


@pytest.mark.parametrize("name", ["vt100", "xterm", "screen", "tmux-256color", "linux", "dumb"])
def test_it_works_in_terminals_of_many_sorts(name: str, shm_dir: Path, logger: FPS) -> None:
    with terminal(MILK_SHM_DIR=str(shm_dir), LC_ALL="C") as window:
        window.start(["env", f"TERM={name}", *SCREEN])
        window.wait_for("1 FPS", "streamFITSlog-vcam1")
        window.press("Right")
        window.wait_for(">sname")
        window.press("q")
        window.wait_for("EXIT 0")


def test_no_color_is_honoured_and_nothing_is_lost(shm_dir: Path, logger: FPS) -> None:
    dead = seem_dead(logger)
    with terminal(MILK_SHM_DIR=str(shm_dir)) as window:
        window.start(["env", "NO_COLOR=1", *SCREEN])
        window.wait_for(f"!{dead}")
        assert all(
            colour_of(line, line[-1]) == ""
            for line in window.lines(colours=True)
            if f"!{dead}" in line
        )


def test_it_follows_the_size_of_the_terminal(window: Terminal, shm_dir: Path) -> None:
    for k in range(40):
        make_fps(shm_dir, f"fps-{k:02d}").close()
    window.start(SCREEN)
    window.wait_for("40 FPS", "fps-19")
    window.resize(120, 50)
    window.wait_for("fps-39")
    window.press("End")
    window.wait_until(
        lambda lines: any(line.startswith(">") and "fps-39" in line for line in lines)
    )
    window.resize(30, 6)
    window.wait_until(lambda lines: any(line.startswith(">") for line in lines))
    window.press("q")
    window.wait_for("EXIT 0")


def test_two_screens_show_the_same(shm_dir: Path, logger: FPS) -> None:
    environment = {"MILK_SHM_DIR": str(shm_dir)}
    with terminal(**environment) as one, terminal(**environment) as other:
        for window in (one, other):
            window.start(SCREEN)
            window.wait_for("1 FPS")
            window.press("Right", "Down")
            window.wait_for(">saveON")
        one.press("Space")
        for window in (one, other):
            window.wait_until(
                lambda lines: any(
                    line.startswith(">saveON") and " ON " in line for line in lines
                )
            )
        assert logger["saveON"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_gives_the_terminal_back(
    number: signal.Signals, window: Terminal, shm_dir: Path
) -> None:
    window.start(SCREEN)
    window.wait_for("0 FPS")
    children = Path(f"/proc/{window.pid()}/task/{window.pid()}/children").read_text().split()
    os.kill(int(children[0]), number)
    lines = window.wait_for("EXIT 0")
    assert not any("FPS" in line for line in lines)


def test_the_screen_takes_command_lines_too(window: Terminal, shm_dir: Path) -> None:
    with make_fps(shm_dir, "a") as fps:
        fifo = shm_dir / "fifo"
        window.start([*SCREEN, "-f", str(fifo)])
        window.wait_for("1 FPS")
        subprocess.run(["tee", fifo], input=b"setval a.count 8\n", stdout=-3, check=True)
        window.wait_for("FIFO: setval a.count 8 -> 8 (was 7)")
        assert fps["count"] == 8
        subprocess.run(["tee", fifo], input=b"exit\n", stdout=-3, check=True)
        window.wait_for("EXIT 0")
        assert not fifo.exists()
