"""What the lines of the fpsCTRL screen say: texts and tones, no terminal.

All own text is ASCII, so that it is right in any terminal and locale.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from vampires.disk_room import ALARM_S, WARNING_S, RoomLevel, duration
from vampires.fps import FPS, Parameter
from vampires.fps.layout import ParameterFlag, ParameterType
from vampires.fps_control import Light
from vampires.fpsctrl.text import clean, typed
from vampires.fpsctrl.watch import LOST_KEY, Logging, Process, Snapshot
from vampires.terminal_text import Line, Span, Tone

MIN_PID_WIDTH = 5
SAVE_WIDTH, FRAMES_WIDTH, LOST_WIDTH = 9, 8, 6
MAX_NAME_WIDTH = 28
MIN_DESCRIPTION_WIDTH = 5
MAX_KEY_WIDTH = 26
VALUE_WIDTH, LIMITS_WIDTH = 17, 13
CUT = "~"  # stands where a text was cut


_LIGHT_TONES = {Light.ALIVE: Tone.GOOD, Light.IDLE: Tone.FAINT, Light.DEAD: Tone.BAD}


def fit(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly so many cells; cut if it must be."""
    if width <= 0:
        return ""
    cells = cell_len(text)
    if cells > width:
        return set_cell_size(text, width - 1) + CUT
    padding = " " * (width - cells)
    return padding + text if right else text + padding


def compact(number: int, width: int) -> str:
    """A count in at most so many characters: 12345, 123456k, 123M."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        text = f"{number}{unit}"
        if len(text) <= width:
            return text
        number //= 1000
    return "#" * width


def wrapped(text: str, tone: Tone, width: int) -> list[Line]:
    """A text in lines of that width, at least one."""
    lines = textwrap.wrap(clean(text), max(10, width - 2)) or [""]
    return [((" " + line, tone),) for line in lines]


@dataclass(frozen=True)
class ListColumns:
    """Widths of the columns of the list; 0: not there."""

    pid: int
    name: int
    logging: bool
    description: int

    @classmethod
    def for_list(cls, snapshots: Sequence[Snapshot], width: int, least_pid: int) -> ListColumns:
        """Columns that hold these FPS in a screen of that width."""
        pids = [p.pid for s in snapshots for p in (s.tmux, s.conf, s.run)]
        pid = max([least_pid, *(len(str(number)) for number in pids)])
        logging = any(s.logging for s in snapshots)
        fixed = 1 + 3 * (pid + 1) + 2 + MIN_DESCRIPTION_WIDTH
        if logging:
            fixed += SAVE_WIDTH + FRAMES_WIDTH + LOST_WIDTH + 4
        longest = max([len("name"), *(cell_len(clean(s.name)) for s in snapshots)])
        limit = max(MAX_NAME_WIDTH, width - fixed - 40)  # a wide screen shows long names whole
        name = max(4, min(longest, limit, width - fixed))
        description = max(0, width - (fixed - MIN_DESCRIPTION_WIDTH) - name)
        return cls(pid, name, logging, description)


def list_heading(columns: ListColumns) -> Line:
    """The names of the columns of the list."""
    numbers = "".join(
        fit(text, columns.pid + 1, right=True) for text in ("tmux", "conf", "run")
    )
    text = " " + numbers + " " + fit("name", columns.name) + " "
    if columns.logging:
        text += fit("saving", SAVE_WIDTH) + " " + fit("frames", FRAMES_WIDTH, right=True)
        text += " " + fit("lost", LOST_WIDTH, right=True) + "  "
    return ((text + fit("description", columns.description).rstrip(CUT), Tone.FAINT),)


def list_line(snapshot: Snapshot, columns: ListColumns, *, selected: bool) -> Line:
    """An FPS: three numbers, name, what its logger does, description."""
    processes = (snapshot.tmux, snapshot.conf, snapshot.run)
    spans = [_marker(selected), *(_number(process, columns.pid + 1) for process in processes)]
    name = fit(clean(snapshot.name), columns.name)
    spans += [(" ", Tone.PLAIN), (name, Tone.SELECTED if selected else Tone.STRONG)]
    if snapshot.problem is not None:
        return (*spans, (" " + clean(snapshot.problem), Tone.BAD))
    spans.append((" ", Tone.PLAIN))
    if columns.logging:
        spans += _logging(snapshot)
    spans.append(_description(snapshot, columns.description))
    return tuple(spans)


def _marker(selected: bool) -> Span:
    return (">", Tone.STRONG) if selected else (" ", Tone.PLAIN)


def _number(process: Process, width: int) -> Span:
    """A process id; 0 when it does not run, with ! before it when it should."""
    number = "0" if process.light is Light.IDLE else str(process.pid)
    mark = "!" if process.light is Light.DEAD else ""
    return (mark + number).rjust(width), _LIGHT_TONES[process.light]


def _logging(snapshot: Snapshot) -> list[Span]:
    logging = snapshot.logging
    if logging is None:
        return [(" " * (SAVE_WIDTH + FRAMES_WIDTH + LOST_WIDTH + 4), Tone.PLAIN)]
    frames = fit(compact(logging.frames, FRAMES_WIDTH), FRAMES_WIDTH, right=True)
    return [
        _saving(snapshot, logging),
        (" " + frames + " ", Tone.PLAIN),
        _lost(logging),
        ("  ", Tone.PLAIN),
    ]


def _saving(snapshot: Snapshot, logging: Logging) -> Span:
    text, tone = saving_word(snapshot, logging)
    return fit(text, SAVE_WIDTH), tone


def saving_word(snapshot: Snapshot, logging: Logging) -> Span:
    """Whether frames are being saved, in capitals when they are or should be."""
    if snapshot.run.light is not Light.ALIVE:
        return ("NO RUN", Tone.BAD) if logging.save_on else ("off", Tone.FAINT)
    if snapshot.saving:
        return ("LAST" if logging.last_cube else "ON"), Tone.GOOD
    state = clean(logging.state or "")
    if logging.save_on and state == "no stream":
        return "NO STREAM", Tone.BAD
    if state in ("", "idle") and not logging.save_on:
        return "off", Tone.FAINT
    return state or "off", Tone.WARNING


def _lost(logging: Logging) -> Span:
    if logging.lost is None:
        return fit("-", LOST_WIDTH, right=True), Tone.FAINT
    text = fit(compact(logging.lost, LOST_WIDTH), LOST_WIDTH, right=True)
    return text, Tone.BAD if logging.lost else Tone.PLAIN


def _description(snapshot: Snapshot, width: int) -> Span:
    if snapshot.errors:
        return fit(counted(snapshot.errors, "error"), width), Tone.BAD
    return fit(clean(snapshot.description), width), Tone.PLAIN


def counted(number: int, noun: str) -> str:
    """As in 1 frame, 2 frames."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def list_title(snapshots: Sequence[Snapshot], where: str, filtered: str, width: int) -> Line:
    """How many there are, and whether any saves or loses."""
    saving = sum(s.saving for s in snapshots)
    lost = sum(s.logging.lost or 0 for s in snapshots if s.logging)
    broken = sum(s.problem is not None for s in snapshots)
    spans: list[Span] = [(f" {len(snapshots)} FPS", Tone.TITLE)]
    if saving:
        spans.append((f"  {saving} saving", Tone.GOOD))
    if lost:
        spans.append((f"  {compact(lost, 9)} lost", Tone.BAD))
    if broken:
        spans.append((f"  {broken} unreadable", Tone.BAD))
    room = width - sum(len(text) for text, _ in spans)
    around = clean(f"  {where}  {filtered}" if filtered else f"  {where}")
    return (*spans, (fit(around, room), Tone.FAINT))


def parameter_title(snapshot: Snapshot) -> Line:
    """The FPS that was entered: its name and what runs."""
    spans: list[Span] = [(f" {clean(snapshot.name)} ", Tone.TITLE)]
    named = (("tmux", snapshot.tmux), ("conf", snapshot.conf), ("run", snapshot.run))
    for what, process in named:
        spans += [(f"  {what} ", Tone.FAINT), _number(process, 0)]
    if snapshot.logging is not None:
        logging = snapshot.logging
        spans += [("  saving ", Tone.FAINT), saving_word(snapshot, logging)]
        if logging.lost is not None:
            text, tone = _lost(logging)
            spans += [("  lost ", Tone.FAINT), (text.lstrip(), tone)]
    return tuple(spans)


# What our logger says of itself besides.
FIGURES = ("rate", "ringfill", "pending", "timetofull", "lasterror")


def logger_figures(fps: FPS) -> Span | None:
    """How a logger fares: rate, ring, disk, last error. None for one that does not say."""
    if not all(key in fps for key in FIGURES):
        return None
    error = fps[FIGURES[-1]]
    if error:
        return f"last error: {error}", Tone.BAD
    rate, fill, pending, full_s = (_number_of(fps[key]) for key in FIGURES[:-1])
    parts = [f"{rate:.1f} Hz" if rate else "no frames come", f"ring {fill:.1f} %"]
    if pending:
        parts.append(f"{counted(int(pending), 'cube')} to be written")
    if full_s >= 0:
        parts.append(f"disk full in {duration(full_s)}")
    if "roomlevel" in fps and fps["roomlevel"] == RoomLevel.FULL.value:
        parts.append("no room for another cube")
        return " | ".join(parts), Tone.BAD
    if 0 <= full_s < ALARM_S:
        return " | ".join(parts), Tone.BAD
    warns = not rate or 0 <= full_s < WARNING_S
    return " | ".join(parts), Tone.WARNING if warns else Tone.PLAIN


def _number_of(value: object) -> float:
    """A finite number; 0 for what is none. Others write these files."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return 0.0


@dataclass(frozen=True)
class ParameterColumns:
    """Widths of the columns of the parameters."""

    key: int
    value: int
    limits: int
    description: int

    @classmethod
    def for_parameters(cls, parameters: Sequence[Parameter], width: int) -> ParameterColumns:
        """Columns that hold these parameters in a screen of that width."""
        longest = max([len("parameter"), *(cell_len(clean(p.key)) for p in parameters)])
        spare = max(0, width - 80)
        key = min(longest, MAX_KEY_WIDTH + spare // 4)
        value = VALUE_WIDTH + min(46, spare // 2)
        limits = max([len("limits"), *(len(limits_text(p)) for p in parameters)])
        limits = min(limits, LIMITS_WIDTH + min(8, spare // 8))
        return cls(key, value, limits, max(0, width - key - value - limits - 4))


def parameter_heading(columns: ParameterColumns) -> Line:
    """The names of the columns of the parameters."""
    text = " " + fit("parameter", columns.key) + " " + fit("value", columns.value)
    return ((text + " " + fit("limits", columns.limits) + " description", Tone.FAINT),)


def parameter_line(
    parameter: Parameter, columns: ParameterColumns, *, selected: bool, writable: bool
) -> Line:
    """A parameter: name, value, limits, description."""
    key = fit(clean(parameter.key), columns.key)
    tone = Tone.PLAIN if writable else Tone.FAINT
    return (
        _marker(selected),
        (key, Tone.SELECTED if selected else tone),
        (" ", Tone.PLAIN),
        (fit(value_text(parameter), columns.value), _value_tone(parameter, tone)),
        (" " + fit(limits_text(parameter), columns.limits) + " ", Tone.FAINT),
        (fit(clean(parameter.description), columns.description), tone),
    )


def _value_tone(parameter: Parameter, otherwise: Tone) -> Tone:
    if parameter.flags & ParameterFlag.ERROR or (
        parameter.key == LOST_KEY and parameter.value != 0
    ):
        return Tone.BAD
    if parameter.type is ParameterType.ONOFF and parameter.value:
        return Tone.GOOD
    return otherwise


def value_text(parameter: Parameter) -> str:
    """The value as it is shown."""
    return clean(typed(parameter.value, parameter.type))


def limits_text(parameter: Parameter) -> str:
    """The limits of a number. (The current value that milk keeps beside them is what was in
    its memory before, unless the program that owns it says otherwise; so it is not shown.)"""
    low, high = (
        None if limit is None else typed(limit, parameter.type)
        for limit in (parameter.minimum, parameter.maximum)
    )
    if low is not None and high is not None:
        return f"{low}..{high}"
    if low is not None:
        return f">= {low}"
    return "" if high is None else f"<= {high}"


def parameter_detail(parameter: Parameter, *, writable: bool) -> str:
    """A parameter in one line, in full; its name and description stand above."""
    parts = [f"{clean(parameter.key)} = {value_text(parameter)}", clean(parameter.description)]
    parts.append(parameter.type.name)
    if not writable:
        output = not parameter.flags & ParameterFlag.WRITE
        parts.append("an output" if output else "fixed while it runs")
    return " | ".join(parts)


HELP = """\
The three leading numbers: processes of its tmux session, of conf (checks the
parameters) and of run (does the work).
+  12345  green  it runs
-      0  gray   it does not run, and need not
! !12345  red    it should run, and died
saving  ON: frames are being saved. LAST: until the cube under way is full.
        armed: waits for its start time. ending, writing: finishes its files.
        NO RUN, NO STREAM: switched on, but the logger or stream is not there
lost    frames lost since saving was switched on; - if the logger does not say

up down, page up down, home end   move   right  enter the FPS   left  back
space    ON or OFF                Enter  edit a value; Escape cancels
SHIFT+R  start run                CTRL+R stop run (all its frames are saved)
O        start conf               CTRL+O stop conf
T        start tmux               CTRL+T stop tmux, and all that runs in it
u        check parameters again   CTRL+E remove the FPS (asks first)
h        this help                x, q   leave; everything goes on running
s        look for new FPS at once (it is done every second)

To record: enter the logger, go to saveON, press space. Off again: the cube
under way ends short; lastcubeON fills it first. Gray values are fixed."""


def help_lines() -> list[Line]:
    """The help, line by line."""
    tones = {"+": Tone.GOOD, "-": Tone.FAINT, "!": Tone.BAD}
    lines: list[Line] = []
    for text in HELP.splitlines():
        tone = tones.get(text[:1])
        lines.append(((" " + (text if tone is None else " " + text[1:]), tone or Tone.PLAIN),))
    return lines


def empty_list(where: str, filtered: str) -> list[Line]:
    """What a list without FPS says instead."""
    which = f" that pass {filtered}" if filtered else ""
    return [
        ((f"  There are no FPS in {clean(where)}{clean(which)}.", Tone.PLAIN),),
        (("  For loggers of the cameras run vampires_preplog; they appear here.", Tone.FAINT),),
    ]
