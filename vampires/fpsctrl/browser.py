"""What the keys of the fpsCTRL screen do, and what its lines are then; no terminal.

Two views: the list of FPS, and the parameters of the one that was entered. A key that acts on
an FPS means the same in both. Actions that take time run in the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vampires.fps import FPS, FPSError, Parameter
from vampires.fps.layout import ParameterFlag, ParameterType, Signal
from vampires.fps_control import FPSControl
from vampires.fpsctrl import lines as fps_lines
from vampires.fpsctrl.editor import LineEditor
from vampires.fpsctrl.selection import Selection
from vampires.fpsctrl.text import clean, typed
from vampires.fpsctrl.watch import FPSWatch, Light, Logging, Snapshot
from vampires.logger_parameters import parse
from vampires.terminal_text import Line, Tone

FRAME_LINES = 3  # title and heading above the rows, keys below; and the message
MAX_MESSAGE_LINES = 4
SAVE_KEYS = ("saveON", "lastcubeON")

LIST_KEYS = "right: enter  R ^R: run on/off  O ^O: conf  T ^T: tmux  h: help  q: leave"
PARAMETER_KEYS = "left: back  space: on/off  Enter: edit  R ^R: run  h: help  q: leave"
HELP_KEYS = "any other key: back"


class Background(Protocol):
    """Calls work() in another thread, then done(None) or done(reason why it failed)."""

    def __call__(
        self, what: str, work: Callable[[], None], done: Callable[[str | None], None]
    ) -> None: ...


@dataclass(frozen=True)
class Action:
    """What a key does with an FPS; doing and done as said of it."""

    method: str
    doing: str
    done: str


ACTIONS = {
    "R": Action("run_start", "starting run", "run is on"),
    "ctrl+r": Action("run_stop", "stopping run", "run is off"),
    "O": Action("conf_start", "starting conf", "conf is on"),
    "ctrl+o": Action("conf_stop", "stopping conf", "conf is off"),
    "T": Action("tmux_start", "starting tmux", "tmux is on"),
    "ctrl+t": Action("tmux_stop", "stopping tmux", "tmux is off"),
}
REMOVE = Action("remove", "removing it", "removed")


class FPSBrowser:
    """The state of the screen. All but `background` work happens in one thread."""

    def __init__(
        self, watch: FPSWatch, background: Background, leave: Callable[[], None]
    ) -> None:
        self._watch = watch
        self._background = background
        self._leave = leave
        self._list = Selection()
        self._entered: str | None = None
        self._parameters: dict[str, Parameter] = {}
        self._keys = Selection()
        self._help: Selection | None = None
        self._editor: LineEditor | None = None
        self._removing: str | None = None  # waits for yes
        self._message: tuple[str, Tone] | None = None
        self._busy: dict[str, str] = {}
        self._least_pid = fps_lines.MIN_PID_WIDTH
        self._rows = 20
        self.rescan()

    # -- what is -----------------------------------------------------------------------------

    def rescan(self) -> None:
        """Finds new and removed FPS; looks at all."""
        self._watch.rescan()
        self._list.set_items(self._watch.names())
        if self._entered is not None and self._entered not in self._watch:
            self.say(f"{self._entered} was removed", Tone.BAD)
            self._enter(None)
        self._read_parameters()

    def look(self) -> None:
        """Looks again at what is on the screen."""
        if self._entered is None:
            self._watch.look([self._list.items[k] for k in self._list.visible(self._rows)])
        else:
            self._watch.look([self._entered])
            self._read_parameters()

    def say(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        """Shows a message until the next key."""
        self._message = (text, tone)

    def _current(self) -> str | None:
        """The FPS that keys act on."""
        return self._list.item if self._entered is None else self._entered

    def _enter(self, name: str | None) -> None:
        self._entered = name
        self._editor = None
        self._keys = Selection()
        self._parameters = {}
        self._read_parameters()

    def _read_parameters(self) -> None:
        if self._entered is None:
            return
        try:
            found = self._watch[self._entered].fps().parameters()
        except FPSError:  # its line says why
            found = []
        # Those of the FPS itself come before those of a group, as procinfo.RTprio.
        found.sort(key=lambda p: "." in p.key)
        self._parameters = {p.key: p for p in found if p.visible}
        self._keys.set_items(list(self._parameters))

    # -- keys --------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """A key: a printable character ("R"), or a name ("ctrl+r", "up", "enter", "space")."""
        if key == "ctrl+c":
            self._leave()
        elif self._editor is not None:
            self._edit(self._editor, key)
        elif self._removing is not None:
            self._answer(self._removing, key)
        elif self._help is not None:
            if not self._help.move(key, 1):
                self._help = None
        else:
            self._message = None
            self._command(key)

    def paste(self, text: str) -> None:
        """Text pasted by the terminal; goes into the line that is being edited."""
        if self._editor is not None:
            self._editor.insert(text)

    def _command(self, key: str) -> None:
        if key in ("q", "x"):
            self._leave()
        elif key in ("h", "?"):
            self._help = Selection()
        elif key == "s":
            self.rescan()
            self.say(f"looked again: {len(self._list.items)} FPS")
        elif key in ACTIONS:
            self._start(ACTIONS[key])
        elif key == "ctrl+e":
            self._ask_removal()
        elif key == "u":
            self._request_check()
        elif self._entered is None:
            self._list_key(key)
        else:
            self._parameter_key(key)

    def _list_key(self, key: str) -> None:
        if self._list.move(key, self._rows):
            self.look()
        elif key in ("right", "enter") and self._list.item is not None:
            self._enter(self._list.item)

    def _parameter_key(self, key: str) -> None:
        if self._keys.move(key, self._rows):
            return
        if key in ("left", "escape"):
            self._enter(None)
            self.look()
            return
        parameter = self._parameters.get(self._keys.item or "")
        if parameter is None:
            return
        if key == "space" or (key == "enter" and parameter.type is ParameterType.ONOFF):
            self._toggle(parameter)
        elif key == "enter":
            self._begin_edit(parameter)

    def _toggle(self, parameter: Parameter) -> None:
        """To the opposite of what is shown: another person may just have done the same."""
        if parameter.type is not ParameterType.ONOFF:
            self.say(f"{parameter.key} is not ON or OFF; Enter edits it", Tone.BAD)
            return
        self._set(parameter, lambda fps: not parameter.value)

    def _begin_edit(self, parameter: Parameter) -> None:
        if not self._writable(parameter):
            self.say(f"{parameter.key} cannot be set now (SHIFT+R, CTRL+R: run)", Tone.BAD)
            if not parameter.flags & ParameterFlag.WRITE:
                self.say(f"{parameter.key} is an output; it cannot be set", Tone.BAD)
            return
        limits = fps_lines.limits_text(parameter)
        prompt = f" {clean(parameter.key)} ({parameter.type.name} {limits}".rstrip()
        self._editor = LineEditor(prompt + ") = ", typed(parameter.value, parameter.type))

    def _edit(self, editor: LineEditor, key: str) -> None:
        parameter = self._parameters.get(self._keys.item or "")
        if key == "escape" or parameter is None:
            self._editor = None
            self.say("nothing changed")
        elif key == "enter":
            if self._set(parameter, lambda fps: parse(fps, parameter.key, editor.text)):
                self._editor = None
        elif key == "space" or len(key) == 1:
            editor.insert(" " if key == "space" else key)
        else:
            editor.press(key)

    def _set(
        self, parameter: Parameter, chosen: Callable[[FPS], bool | int | float | str]
    ) -> bool:
        """Sets what was chosen and says so, or why not."""
        key = parameter.key
        if self._entered is None:
            return False
        try:
            fps = self._watch[self._entered].fps()
            value = chosen(fps)
            fps[key] = value
        except FPSError as error:
            self.say(str(error), Tone.BAD)
            return False
        self.look()
        before, now = fps_lines.value_text(parameter), clean(typed(value, parameter.type))
        self.say(f"{key} = {now} (was {before})")
        runs = self._watch.snapshot(self._entered).run.light is Light.ALIVE
        if key in SAVE_KEYS and value and not runs:
            self.say(f"{key} = ON, but the logger does not run: SHIFT+R starts it", Tone.BAD)
        return True

    def _request_check(self) -> None:
        name = self._current()
        if name is None:
            return
        try:
            self._watch[name].fps().change_signal(set=Signal.UPDATE)
        except FPSError as error:
            self.say(str(error), Tone.BAD)
            return
        if self._watch.snapshot(name).conf.light is Light.ALIVE:
            self.say(f"{name}: asked conf to check the parameters")
        else:
            self.say(f"{name}: conf does not run, nobody checks; O starts it", Tone.BAD)

    # -- actions -----------------------------------------------------------------------------

    def _ask_removal(self) -> None:
        name = self._current()
        if name is not None:
            self._removing = name
            self.say(f"remove {name} and stop all that runs of it? y: yes, else no", Tone.BAD)

    def _answer(self, name: str, key: str) -> None:
        self._removing = None
        if key in ("y", "Y"):
            self._start(REMOVE, name)
        else:
            self.say(f"{name} stays")

    def _start(self, action: Action, name: str | None = None) -> None:
        name = self._current() if name is None else name
        if name is None:
            return
        if name in self._busy:
            self.say(f"{name}: still {self._busy[name]}; wait for it", Tone.BAD)
            return
        control = FPSControl(name, self._watch.shm_dir)
        self._busy[name] = action.doing
        what = f"{name}: {action.doing}"
        self.say(f"{what} ...")

        def done(failure: str | None) -> None:
            self._busy.pop(name, None)
            if failure is None:
                self.say(f"{name}: {action.done}")
            else:
                named = failure if failure.startswith(name) else f"{name}: {failure}"
                self.say(named, Tone.BAD)

        self._background(what, getattr(control, action.method), done)

    # -- lines -------------------------------------------------------------------------------

    def lines(self, width: int, height: int) -> list[Line]:
        """All lines of a screen of that size."""
        message = self._message_lines(width)
        self._rows = max(1, height - FRAME_LINES - len(message))
        if self._help is not None:
            top = self._help_lines(self._help, self._rows)
        elif self._entered is None:
            top = self._list_lines(width, self._rows)
        else:
            top = self._parameter_lines(self._entered, width, self._rows)
        top += [()] * (self._rows + 2 - len(top))
        return [*top, *message, self._bottom_line(width)][:height]

    def _help_lines(self, position: Selection, rows: int) -> list[Line]:
        lines = fps_lines.help_lines()
        position.set_items([str(k) for k in range(max(1, len(lines) - rows))])
        title = ((" Keys and colours of milk-fpsCTRL", Tone.TITLE),)
        return [title, *lines[position.index :][: rows + 1]]

    def _list_lines(self, width: int, rows: int) -> list[Line]:
        snapshots = self._watch.snapshots()
        where, filtered = str(self._watch.shm_dir), str(self._watch.filter)
        title = fps_lines.list_title(snapshots, where, filtered, width)
        if not snapshots:
            return [title, (), *fps_lines.empty_list(where, filtered)]
        columns = fps_lines.ListColumns.for_list(snapshots, width, self._least_pid)
        self._least_pid = columns.pid  # columns do not jump back
        shown = [
            fps_lines.list_line(snapshots[k], columns, selected=k == self._list.index)
            for k in self._list.visible(rows)
        ]
        return [title, fps_lines.list_heading(columns), *shown]

    def _parameter_lines(self, name: str, width: int, rows: int) -> list[Line]:
        parameters = list(self._parameters.values())
        columns = fps_lines.ParameterColumns.for_parameters(parameters, width)
        shown = [
            fps_lines.parameter_line(
                parameters[k],
                columns,
                selected=k == self._keys.index,
                writable=self._writable(parameters[k]),
            )
            for k in self._keys.visible(rows)
        ]
        seen = self._watch.snapshot(name)
        title = fps_lines.parameter_title(seen)
        if seen.problem is not None:
            return [title, (), *fps_lines.wrapped(seen.problem, Tone.BAD, width)[:rows]]
        return [title, fps_lines.parameter_heading(columns), *shown]

    def _writable(self, parameter: Parameter) -> bool:
        if self._entered is None:
            return False
        snapshot = self._watch.snapshot(self._entered)
        return parameter.writable(
            conf_running=snapshot.conf.light is Light.ALIVE,
            run_running=snapshot.run.light is Light.ALIVE,
        )

    def _message_lines(self, width: int) -> list[Line]:
        text, tone = self._message or self._detail()
        return fps_lines.wrapped(text, tone, width)[:MAX_MESSAGE_LINES]

    def _detail(self) -> tuple[str, Tone]:
        """Of the selected line, what has no room in it."""
        if self._help is not None:
            return "", Tone.PLAIN
        if self._entered is not None:
            parameter = self._parameters.get(self._keys.item or "")
            if parameter is None:
                return "", Tone.PLAIN
            writable = self._writable(parameter)
            return fps_lines.parameter_detail(parameter, writable=writable), Tone.PLAIN
        name = self._list.item
        return ("", Tone.PLAIN) if name is None else self._verdict(self._watch.snapshot(name))

    def _verdict(self, seen: Snapshot) -> tuple[str, Tone]:
        """The most important thing to know of an FPS, and what to do."""
        if seen.problem is not None:
            return seen.problem, Tone.BAD
        dead = [
            f"{what} {process.pid} died; {key} starts it"
            for what, process, key in (
                ("tmux", seen.tmux, "T"),
                ("conf", seen.conf, "O"),
                ("run", seen.run, "SHIFT+R"),
            )
            if process.light is Light.DEAD
        ]
        if dead:
            return "; ".join(dead), Tone.BAD
        if seen.errors:
            return self._first_error(seen), Tone.BAD
        if seen.logging is not None:
            return self._logger_verdict(seen, seen.logging)
        return seen.description, Tone.FAINT

    def _logger_verdict(self, seen: Snapshot, logging: Logging) -> tuple[str, Tone]:
        runs = seen.run.light is Light.ALIVE
        if logging.save_on and not runs:
            return "saving is on, but the logger does not run: SHIFT+R starts it", Tone.BAD
        try:
            figures = fps_lines.logger_figures(self._watch[seen.name].fps())
        except FPSError as error:
            return str(error), Tone.BAD
        if figures is None or not runs:
            return seen.description, Tone.FAINT
        return figures

    def _first_error(self, seen: Snapshot) -> str:
        try:
            messages = self._watch[seen.name].fps().messages()
        except FPSError as error:
            return str(error)
        return messages[0].text if messages else fps_lines.counted(seen.errors, "error")

    def _bottom_line(self, width: int) -> Line:
        if self._editor is not None:
            before, under, after = self._editor.view(width - 1)
            return ((before, Tone.PLAIN), (under, Tone.SELECTED), (after, Tone.PLAIN))
        if self._help is not None:
            keys = HELP_KEYS
        elif self._entered is not None:
            keys = PARAMETER_KEYS
        else:
            keys = LIST_KEYS
        return ((" " + keys, Tone.FAINT),)
