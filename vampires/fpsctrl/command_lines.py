"""Command lines as milk-fpsCTRL takes them from its FIFO, one at a time, in order.

    setval K V | getval K | fwrval K FILE         K is an FPS and its parameter: fps.param
    confstart|confstop|confupdate|confwupdate FPS
    runstart|runstop|runwait FPS
    tmuxstart|tmuxstop|fpsrm FPS
    exec FILE | rescan | cntinc N | exit

Unlike there, each command has happened when the next one begins, and one that failed says why.
So what tells milk's tool to wait, or sorts its queues, is accepted and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vampires.fps import FPS, FPSError, Parameter
from vampires.fps.layout import MessageCode, ParameterType, Signal
from vampires.fps_control import ActionFailed, FPSControl
from vampires.fpsctrl.filter import FPSFilter
from vampires.fpsctrl.text import clean, typed
from vampires.logger_parameters import parse
from vampires.stop_request import Stop

MAX_LINE_BYTES = 4096  # milk's tool takes 199
SHOWN_CHARACTERS = 120  # of a command line that is refused
MAX_EXEC_DEPTH = 8
CHECK_TIMEOUT_S = 5.0
POLL_S = 0.02


class CommandFailed(Exception):
    """A command did not happen; the text says why, in one line."""


class LineRefused(Exception):
    """What came is no command line; the text says why."""

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(why)
        self.shown = shown


@dataclass(frozen=True)
class Outcome:
    """What became of a command line."""

    line: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{self.line} -> {'' if self.ok else 'failed: '}{self.text}"


class LineSplitter:
    """Bytes into lines. Of one that is too long only its beginning is kept."""

    def __init__(self) -> None:
        self._begun = b""
        self._skipped_bytes = 0

    def feed(self, raw: bytes) -> Iterator[str | LineRefused]:
        """The lines that end in raw, or why they are refused."""
        *ended, rest = raw.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._finished()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._begun)
        self._begun += part[:room]
        self._skipped_bytes += len(part) - len(part[:room])

    def _finished(self) -> str | LineRefused:
        raw, skipped = self._begun, self._skipped_bytes
        self._begun, self._skipped_bytes = b"", 0
        shown = shown_line(raw.decode(errors="replace"))
        if skipped:
            size = len(raw) + skipped
            return LineRefused(shown, f"{size} bytes in the line, at most {MAX_LINE_BYTES} fit")
        try:
            text = raw.decode().replace("\t", " ").strip()
        except UnicodeDecodeError:
            return LineRefused(shown, "the line is no text (UTF-8)")
        if not text.isprintable():
            return LineRefused(shown, "the line has control characters in it")
        return text


def shown_line(text: str) -> str:
    """A command line as it can be printed."""
    short = clean(text[: SHOWN_CHARACTERS + 1])
    if len(short) > SHOWN_CHARACTERS:
        return short[: SHOWN_CHARACTERS - 3] + "..."
    return short


class FPSCommands:
    """Runs command lines on the FPS of a folder that pass a filter."""

    def __init__(
        self, shm_dir: Path, fps_filter: FPSFilter, stop: Stop, say: Callable[[Outcome], None]
    ) -> None:
        self._shm_dir = shm_dir
        self._filter = fps_filter
        self._stop = stop
        self._say = say
        self._counter = 0
        self._depth = 0
        self.ended = False  # by the command exit
        self._commands: dict[str, Callable[[str], str]] = {
            "setval": self._setval,
            "getval": self._getval,
            "fwrval": self._fwrval,
            "confupdate": self._confupdate,
            "confwupdate": self._confwupdate,
            "runwait": self._runwait,
            "exec": self._exec,
            "rescan": self._rescan,
            "cntinc": self._cntinc,
            "exit": self._exit,
        }
        for name, (method, done) in _ACTIONS.items():
            self._commands[name] = self._action(method, done)
        for name, (words, answer) in _WITHOUT_EFFECT.items():
            self._commands[name] = _accepted(words, answer)

    def run(self, line: str | LineRefused) -> None:
        """Runs a line and says its outcome; nothing for an empty one or a comment (#)."""
        if isinstance(line, LineRefused):
            self._say(Outcome(line.shown, False, str(line)))
            return
        line = line.strip()
        if not line or line.startswith("#"):
            return
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        try:
            if command is None:
                raise CommandFailed(_unknown(name, self._commands))
            outcome = Outcome(shown_line(line), True, command(rest.strip()))
        except (CommandFailed, ActionFailed, FPSError) as error:
            outcome = Outcome(shown_line(line), False, str(error))
        self._say(outcome)

    # -- values ------------------------------------------------------------------------------

    def _setval(self, rest: str) -> str:
        name, words = self._named_parameter(rest, "setval FPS.PARAMETER VALUE")
        key, _, text = words.partition(" ")
        text = text.strip()
        if not text:
            raise CommandFailed("there is no value; expected: setval FPS.PARAMETER VALUE")
        with self._open(name) as fps:
            before = fps.parameter(key)
            value = parse(fps, key, text)
            fps[key] = value
        now, was = (clean(typed(v, before.type)) for v in (value, before.value))
        return f"{now} (was {was})"

    def _getval(self, rest: str) -> str:
        name, key = self._named_parameter(rest, "getval FPS.PARAMETER")
        if " " in key:
            raise CommandFailed("too many words; expected: getval FPS.PARAMETER")
        with self._open(name) as fps:
            parameter = fps.parameter(key)
        return clean(typed(parameter.value, parameter.type))

    def _fwrval(self, rest: str) -> str:
        usage = "fwrval FPS.PARAMETER FILE"
        name, words = self._named_parameter(rest, usage)
        key, _, file = words.partition(" ")
        if not file.strip():
            raise CommandFailed(f"there is no file; expected: {usage}")
        with self._open(name) as fps:
            line = value_line(fps.parameter(key))
        _append(Path(file.strip()), line)
        return f"{line} to {file.strip()}"

    def _named_parameter(self, rest: str, usage: str) -> tuple[str, str]:
        """The FPS with the longest name that fits, and what stands behind its dot."""
        if not rest:
            raise CommandFailed(f"there is no parameter; expected: {usage}")
        fitting = [name for name in self._names() if rest.startswith(name + ".")]
        if not fitting:
            raise CommandFailed(self._no_fps(rest.split(maxsplit=1)[0]))
        name = max(fitting, key=len)
        return name, rest[len(name) + 1 :]

    def _names(self) -> list[str]:
        return self._filter.names(self._shm_dir)

    def _no_fps(self, found: str) -> str:
        names = self._names()
        there = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        which = f" that pass {self._filter}" if str(self._filter) else ""
        return f"no FPS for {shown_line(found)!r}; FPS there{which}: {there or 'none'}"

    def _open(self, name: str) -> FPS:
        fps = FPS.open(name, self._shm_dir)
        if not self._filter.passes_header(fps.header()):
            fps.close()
            raise CommandFailed(f"{name} does not pass {self._filter}")
        return fps

    def _named_fps(self, rest: str) -> str:
        if rest not in self._names():
            raise CommandFailed(self._no_fps(rest) if rest else "there is no name of an FPS")
        self._open(rest).close()
        return rest

    # -- processes ---------------------------------------------------------------------------

    def _action(self, method: str, done: str) -> Callable[[str], str]:
        def run(rest: str) -> str:
            control = FPSControl(self._named_fps(rest), self._shm_dir)
            getattr(control, method)()
            return done

        return run

    def _confupdate(self, rest: str) -> str:
        with self._open(self._named_fps(rest)) as fps:
            fps.change_signal(set=Signal.UPDATE | Signal.CHECKED)
        return "asked"

    def _confwupdate(self, rest: str) -> str:
        name = self._named_fps(rest)
        FPSControl(name, self._shm_dir).conf_update()
        with self._open(name) as fps:
            errors = fps.header().conferrcnt
            faults = [m.text for m in fps.messages() if not m.code & MessageCode.INFO]
        if errors:
            raise CommandFailed("; ".join(faults) or f"{errors} bad parameters")
        return "checked"

    def _runwait(self, rest: str) -> str:
        with self._open(self._named_fps(rest)) as fps:
            while fps.run_running():
                if self._stop.wait(POLL_S):
                    raise CommandFailed("interrupted; the run process still runs")
        return "run is off"

    # -- the tool itself ---------------------------------------------------------------------

    def _exec(self, rest: str) -> str:
        if not rest:
            raise CommandFailed("there is no file; expected: exec FILE")
        if self._depth >= MAX_EXEC_DEPTH:
            raise CommandFailed(f"files of commands nest at most {MAX_EXEC_DEPTH} deep")
        self._depth += 1
        try:
            count = self._run_file(Path(rest))
        finally:
            self._depth -= 1
        return f"{count} lines"

    def _run_file(self, path: Path) -> int:
        count = 0
        for line in _file_lines(path):
            if self._stop.is_set() or self.ended:
                break
            count += bool(line)
            self.run(line)
        return count

    def _rescan(self, rest: str) -> str:
        _no_words(rest, "rescan")
        return f"{len(self._names())} FPS"

    def _cntinc(self, rest: str) -> str:
        if len(rest.split()) != 1:
            raise CommandFailed("expected: cntinc N")
        self._counter += 1
        return f"counter = {self._counter}"

    def _exit(self, rest: str) -> str:
        _no_words(rest, "exit")
        self.ended = True
        return "bye"


# Command: method of FPSControl, what is said afterwards.
_ACTIONS = {
    "confstart": ("conf_start", "conf is on"),
    "confstop": ("conf_stop", "conf is off"),
    "runstart": ("run_start", "run is on"),
    "runstop": ("run_stop", "run is off"),
    "tmuxstart": ("tmux_start", "tmux is on"),
    "tmuxstop": ("tmux_stop", "tmux is off"),
    "fpsrm": ("remove", "removed"),
}
_WAITS = "accepted; every command here waits until it has happened"
_ONE_QUEUE = "accepted; there is one queue, in the order the lines come"
# Command: number of words after it, answer.
_WITHOUT_EFFECT = {
    "setqindex": (1, _ONE_QUEUE),
    "setqprio": (1, _ONE_QUEUE),
    "queueprio": (2, _ONE_QUEUE),
    "waitonrunON": (0, _WAITS),
    "waitonrunOFF": (0, _WAITS),
    "waitonconfON": (0, _WAITS),
    "waitonconfOFF": (0, _WAITS),
}
_NOT_OFFERED = {
    "logsymlink": "there is no log file to link to; what is printed is the log",
    "fpswfile": "parameters are not written to files",
}


def _accepted(words: int, answer: str) -> Callable[[str], str]:
    def run(rest: str) -> str:
        found = len(rest.split())
        if found != words:
            raise CommandFailed(f"found {found} words after it, expected {words}")
        return answer

    return run


def _unknown(name: str, commands: dict[str, Callable[[str], str]]) -> str:
    if name in _NOT_OFFERED:
        return f"{name} is not offered: {_NOT_OFFERED[name]}"
    return f"{shown_line(name)!r} is no command; commands: {', '.join(sorted(commands))}"


def _no_words(rest: str, name: str) -> None:
    if rest:
        raise CommandFailed(f"{name} stands alone, found {shown_line(rest)!r} after it")


def value_line(parameter: Parameter) -> str:
    """A parameter as milk writes it: full name, type, value."""
    value = clean(typed(parameter.value, parameter.type))
    if parameter.type is ParameterType.TIMESPEC:
        value = f"{parameter.value:.9f}"
    elif isinstance(parameter.value, float):
        value = f"{parameter.value:f}"
    return f"{parameter.full_key} {parameter.type.name} {value}"


def _append(path: Path, line: str) -> None:
    """Appends as milk does: time UTC, seconds since 1970, FWRVAL, the line."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    utc = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f"{nanoseconds:09d}"
    text = f"{utc}.{fraction} {seconds}.{fraction}  {'FWRVAL':<12} {line}\n"
    with _file_errors(f"cannot write {path}"), open(path, "ab", 0, opener=_opened) as file:
        file.write(text.encode(errors="surrogateescape"))


def _file_lines(path: Path) -> Iterator[str | LineRefused]:
    """The lines of a file of commands; the last one need not be ended."""
    splitter = LineSplitter()
    with _file_errors(f"cannot read {path}"), open(path, "rb", 0, opener=_opened) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CommandFailed(f"{path} is no file of commands")
        while raw := file.read(65536):
            yield from splitter.feed(raw)
        yield from splitter.feed(b"\n")


def _opened(path: str, flags: int) -> int:
    """Opens without waiting: a FIFO may have nobody at its other end."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o666)


@contextlib.contextmanager
def _file_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandFailed(f"{what}: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise CommandFailed(f"{what}: {error}") from None
