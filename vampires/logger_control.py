"""Loggers of this machine: prepare, start, pause and stop them, several at the same frame.

All goes through the FPS of the loggers, so that any of them may have been prepared by somebody
else, or be one of milk's (which starts and pauses at once, knowing no common instant).

>>> from vampires import logger_control as loggers
>>> outcomes = loggers.start(["vcam1", "vcam2"])
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vampires import logger_parameters as names
from vampires.disk_room import disk_room
from vampires.fps import FPS, FPSError, FPSNotFound, Value, fps_directory
from vampires.fps_control import ActionFailed, FPSControl, Light
from vampires.long_directories import full_form
from vampires.new_cube_keywords import keywords_text

TIMEOUT_S = 5.0
POLL_S = 0.002
# How far ahead the common instant of a start or a pause lies.
LEAD_S = 0.1
# From an order to the moment at which the logger has taken it, at most.
ORDER_S = 0.1
# A logger that sees frames knows their rate within that time.
RATE_S = 0.4
# The same while no camera gives frames: time to see whether they begin meanwhile, up to SEEN_S
# before the instant. Until another is chosen it is HOLD_S ahead.
SILENT_LEAD_S = 0.3
SEEN_S = 0.1
HOLD_S = 5.0
# Rates that differ by less belong to cameras triggered together.
SAME_RATE = 1e-3

Say = Callable[[str], None]


@dataclass(frozen=True)
class LoggerOptions:
    """How to prepare a logger; None: as it is.

    directory: files go there, or to directory/YYYYMMDD/stream with daily; then in the same way
    to those of next_directories, in this order. cubes, frames: saving
    ends after so many (0: no limit). ring_memory_bytes, new_cube_keywords (with whose change a
    cube ends): of a logger that does not run.
    """

    directory: Path | None = None
    daily: bool | None = None
    cube_size: int | None = None
    cubes: int | None = None
    frames: int | None = None
    timeout_s: float | None = None
    rt_priority: int | None = None
    writer_rt_priority: int | None = None
    cpu_set: str | None = None
    cpus: str | None = None
    ring_memory_bytes: int | None = None
    next_directories: Sequence[Path] | None = None
    new_cube_keywords: Sequence[str] | None = None

    def values(self) -> dict[str, Value]:
        """As values of parameters."""
        values: dict[str, Value | None] = {
            "dailydir": self.daily,
            "cubesize": self.cube_size,
            "maxfilecnt": names.NO_LIMIT_FILES if self.cubes == 0 else self.cubes,
            "maxframecnt": names.NO_LIMIT_FRAMES if self.frames == 0 else self.frames,
            "procinfo.triggertimeout": self.timeout_s,
            "procinfo.RTprio": self.rt_priority,
            "writerRTprio": self.writer_rt_priority,
            "procinfo.cset": self.cpu_set,
            "procinfo.taskset": self.cpus,
        }
        if self.ring_memory_bytes is not None:
            values["ringmemory"] = max(16, self.ring_memory_bytes >> 20)
        if self.new_cube_keywords is not None:
            values["newcubekeys"] = keywords_text(self.new_cube_keywords)
        if self.directory is not None:
            values["dirname"] = str(self.directory.absolute())
        if self.next_directories is not None:
            places = [str(place.absolute()) for place in self.next_directories]
            values["nextdirs"] = names.LIST_SEPARATOR.join(places)
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class LoggerState:
    """A logger, as it was when looked at.

    lights: of tmux, conf and run, each "alive", "idle" or "dead". rate_hz: of the stream,
    measured; 0 when no frames come. frames, lost, torn: of the present or last saving. cubes:
    saving ends after so many; 0: no limit.
    time_to_full_s: None when unknown; room_level: "ok", "low", "alarm" or "full"; both of the
    disk of directory_in_use, at the rate of this camera alone. ours: False for one of milk's,
    whose numbers are few.
    """

    stream: str
    prepared: bool = False
    ours: bool = False
    lights: tuple[str, str, str] = ("idle", "idle", "idle")
    state: str = "not prepared"
    saving: bool = False
    session: int = 0
    rate_hz: float = 0.0
    frames: int = 0
    lost: int = 0
    torn: int = 0
    cube_frames: int = 0
    cube_size: int = 0
    files: int = 0
    pending: int = 0
    first_cnt0: int = 0
    end_cnt0: int = 0
    first_ns: int = 0
    newest_cnt0: int = 0
    newest_ns: int = 0
    ring_fill_percent: float = 0.0
    frame_bytes: int = 0
    directory: str = ""
    last_file: str = ""
    disk_free_bytes: float = 0.0
    time_to_full_s: float | None = None
    last_error: str = ""
    directory_in_use: str = ""
    next_directories: tuple[str, ...] = ()
    room_level: str = "ok"
    cubes: int = 0

    @property
    def running(self) -> bool:
        return self.lights[2] == Light.ALIVE.value

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What became of one logger. error: empty when it did as asked."""

    stream: str
    state: LoggerState
    error: str = ""


# -- looking ----------------------------------------------------------------------------------


def logger_streams(shm_dir: Path | None = None) -> list[str]:
    """Streams that have a logger's FPS here."""
    from vampires.fps import list_fps

    prefix = names.PREFIX
    return [n.removeprefix(prefix) for n in list_fps(shm_dir) if n.startswith(prefix)]


def look(stream: str, shm_dir: Path | None = None) -> LoggerState:
    """The state of a stream's logger. Raises FPSInvalid or FPSError for a broken FPS."""
    try:
        fps = names.open_logger_fps(stream, shm_dir)
    except FPSNotFound:
        return LoggerState(stream)
    with fps:
        return _look(fps, stream)


def _look(fps: FPS, stream: str) -> LoggerState:
    control = FPSControl(fps.name, fps.path.parent)
    tmux, conf, run = (light.value for light in control.lights(fps))
    cubes = int(fps["maxfilecnt"])
    known: dict[str, Any] = {
        "prepared": True,
        "lights": (tmux, conf, run),
        "saving": run == Light.ALIVE.value and bool(fps["saveON"]),
        "cube_size": fps["cubesize"],
        "cubes": 0 if cubes >= names.NO_LIMIT_FILES else cubes,
        "cube_frames": fps["frameindex"],
        "frames": fps["framecnt"],
        "files": fps["filecnt"],
        "directory": str(full_form(str(fps["dirname"]), fps.path.parent)),
    }
    if not names.is_ours(fps):
        state = ("logging" if known["saving"] else "idle") if run == "alive" else "stopped"
        return LoggerState(stream, **known, state=state)
    time_to_full_s = float(fps["timetofull"])
    state = str(fps["state"])
    if run != "alive":
        state = "dead" if run == "dead" else "stopped"
    return LoggerState(
        stream,
        **known,
        ours=True,
        state=state,
        session=int(fps["session"]),
        rate_hz=float(fps["rate"]) if run == "alive" else 0.0,
        lost=int(fps["lost"]),
        torn=int(fps["torn"]),
        pending=int(fps["pending"]),
        first_cnt0=int(fps["firstcnt0"]),
        end_cnt0=int(fps["endcnt0"]),
        first_ns=int(fps["firstns"]),
        newest_cnt0=int(fps["newestcnt0"]),
        newest_ns=int(fps["newestns"]),
        ring_fill_percent=float(fps["ringfill"]),
        frame_bytes=int(fps["framebytes"]),
        last_file=_full_file(str(fps["outfname"]), fps.path.parent),
        disk_free_bytes=float(fps["diskfree"]) * 1e9,
        time_to_full_s=None if time_to_full_s < 0 else time_to_full_s,
        last_error=str(fps["lasterror"]),
        directory_in_use=str(full_form(str(fps["usedir"]), fps.path.parent))
        if run == "alive" and fps["usedir"]
        else known["directory"],
        next_directories=tuple(map(str, names.next_directories(fps))),
        room_level=str(fps["roomlevel"]),
    )


def _full_file(text: str, shm_dir: Path) -> str:
    if not os.path.isabs(text):
        return text
    folder, name = os.path.split(text)
    return os.path.join(full_form(folder, shm_dir), name)


# -- one logger -------------------------------------------------------------------------------


def prepare(
    stream: str,
    options: LoggerOptions,
    shm_dir: Path | None = None,
    *,
    run: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> LoggerState:
    """Makes the logger ready: FPS, tmux, conf, run. One that runs takes the options as well.

    Options that need another run process (priorities, CPUs, memory) have it started anew,
    unless it is saving. Raises ActionFailed.
    """
    directory = fps_directory() if shm_dir is None else Path(shm_dir)
    try:
        with contextlib.ExitStack() as stack:
            fps = stack.enter_context(names.make_logger_fps(stream, directory))
            control = FPSControl(fps.name, directory)
            stack.enter_context(control.alone(timeout_s))
            deadline = time.monotonic() + timeout_s
            values = options.values()
            fixed = [key for key, value in values.items() if not _settable(fps, key, value)]
            if fixed and fps.run_running():
                if fps["saveON"]:
                    raise ActionFailed(
                        f"{stream} is being logged: {', '.join(fixed)} cannot change; "
                        "pause it first"
                    )
                control.run_stop(deadline - time.monotonic())
            names.set_values(fps, values)
            control.tmux_start()
            control.conf_start(deadline - time.monotonic())
            if run:
                control.run_start(deadline - time.monotonic())
                _await_ready(fps, stream, timeout_s)
            return _look(fps, stream)
    except FPSError as error:
        raise ActionFailed(str(error)) from None


def _settable(fps: FPS, key: str, value: Value) -> bool:
    return fps[key] == value or fps.writable(key)


def _await_ready(fps: FPS, stream: str, timeout_s: float) -> None:
    """Until the run process has its memory; that takes long where memory is slow."""
    deadline = time.monotonic() + max(timeout_s, 60.0)
    while fps["state"] == "starting":
        if not fps.run_running() or time.monotonic() > deadline:
            raise ActionFailed(f"the logger of {stream} ended while it was starting")
        time.sleep(POLL_S)
    if not fps.run_running():
        raise ActionFailed(
            f"the logger of {stream} ended: {fps['lasterror'] or 'see its window'}"
        )


def run_start(stream: str, shm_dir: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Starts the run process of a logger that is prepared. Raises ActionFailed."""
    with _opened(stream, shm_dir) as fps:
        FPSControl(fps.name, fps.path.parent).run_start(timeout_s)
        if names.is_ours(fps):
            _await_ready(fps, stream, timeout_s)


def await_ready(stream: str, shm_dir: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Until a logger that was started has its memory. Raises ActionFailed when it ends."""
    with _opened(stream, shm_dir) as fps:
        if names.is_ours(fps):
            _await_ready(fps, stream, timeout_s)


def stop(stream: str, shm_dir: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Ends the run process; what was captured is on disk then. Raises ActionFailed."""
    with _opened(stream, shm_dir) as fps:
        FPSControl(fps.name, fps.path.parent).run_stop(timeout_s)


def kill(stream: str, shm_dir: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Stops all of a logger, and removes its FPS and its tmux session. Raises ActionFailed."""
    FPSControl(names.fps_name(stream), shm_dir).remove(timeout_s)


@contextlib.contextmanager
def _opened(stream: str, shm_dir: Path | None) -> Iterator[FPS]:
    try:
        with names.open_logger_fps(stream, shm_dir) as fps:
            yield fps
    except FPSNotFound:
        raise ActionFailed(
            f"the logger of {stream} is not prepared; type vampires_preplog first"
        ) from None
    except FPSError as error:
        raise ActionFailed(str(error)) from None


# -- several at the same frame ----------------------------------------------------------------


def start(
    streams: Sequence[str],
    shm_dir: Path | None = None,
    *,
    at_ns: int | None = None,
    before_s: float = 0.0,
    asked_ns: int | None = None,
    cube_size: int | None = None,
    cubes: int | None = None,
    lead_s: float = LEAD_S,
    timeout_s: float = TIMEOUT_S,
) -> list[Outcome]:
    """Starts saving, with the first frame acquired at or after one instant in all of them.

    at_ns: that instant (ns UTC); None: lead_s from now, between two frames; 0: at once, each
    for itself. before_s: seconds before it, or with at_ns None before asked_ns (now), that are
    saved too, as far as the rings of all the streams reach. Loggers that cannot start are told
    in their outcome, and do not keep the others from starting. An outcome without error and
    with first_cnt0 0 waits for frames.
    """
    crew = _Crew(streams, shm_dir)
    with crew:
        sessions: dict[str, Value] = {}
        silent = False
        with crew.alone():
            crew.check(_startable)
            crew.check(lambda fps: _room_fault(fps, cube_size))
            if at_ns is None:
                crew.await_rates()
            before_s = crew.within_rings(before_s, asked_ns)
            if at_ns is not None:
                instant_ns = at_ns
            elif before_s > 0:  # what lies between frames is the instant before_s earlier
                before_ns = round(before_s * 1e9)
                first_ns = (asked_ns or time.time_ns()) - before_ns
                instant_ns = crew.instant_ns(first_ns) + before_ns
            else:
                silent = not crew.phases()
                lead_s = max(lead_s, SILENT_LEAD_S) if silent else lead_s
                instant_ns = crew.instant_ns(_ahead_ns(lead_s))
            crew.do(lambda fps: _set_for_start(fps, before_s, cube_size, cubes))

            def note_session(fps: FPS) -> None:
                sessions[fps.name] = fps["session"] if names.is_ours(fps) else 0

            crew.do(note_session)
            seen = crew.newest()
            crew.do(lambda fps: _set_start(fps, instant_ns))
            crew.do(lambda fps: fps.set("saveON", True))
            if silent:
                instant_ns = _settled_ns(crew, instant_ns, seen)
        began_by_s = max(0.0, (instant_ns - time.time_ns()) / 1e9) + timeout_s
        crew.wait(
            lambda fps: _has_begun(fps, sessions[fps.name], instant_ns),
            began_by_s,
            stuck=lambda state, s: "" if state.state == "armed" else _stuck(state, s),
        )
        return crew.outcomes()


def _startable(fps: FPS) -> str:
    stream = names.stream_of(fps.name)
    if not fps.run_running():
        return f"the logger of {stream} does not run; type vampires_preplog, or SHIFT+R on it"
    if fps["saveON"]:
        return f"{stream} is being logged already"
    return ""


def _room_fault(fps: FPS, cube_size: int | None) -> str:
    """Why there is no room for one cube; empty: there is, or it cannot be told."""
    if not names.is_ours(fps):
        return ""
    first = full_form(str(fps["dirname"]), fps.path.parent)
    frames = min(
        int(fps["cubesize"]) if cube_size is None else cube_size, int(fps["maxframecnt"])
    )
    frame_bytes = int(fps["framebytes"])
    with contextlib.suppress(OSError):
        # Plenty, as usual: more than twice of all that belongs to a cube.
        room = disk_room(first)
        plenty = 2 * frames * (frame_bytes + 1024) + (16 << 20)
        if room.free_bytes > plenty and not room.read_only:
            return ""
    from vampires.log_volumes import room_fault

    fault = room_fault([first, *names.next_directories(fps)], frame_bytes, frames)
    return f"{names.stream_of(fps.name)}: {fault}" if fault else ""


def _set_for_start(fps: FPS, before_s: float, cube_size: int | None, cubes: int | None) -> None:
    values: dict[str, Value] = {}
    if names.is_ours(fps):
        values["pretrigger"] = before_s
    if cube_size is not None:
        values["cubesize"] = cube_size
    if cubes is not None:
        values["maxfilecnt"] = cubes or names.NO_LIMIT_FILES
    names.set_values(fps, values)


def _set_start(fps: FPS, instant_ns: int) -> None:
    if names.is_ours(fps):
        fps["starttime"] = instant_ns


def _settled_ns(crew: _Crew, instant_ns: int, seen: list[tuple[int, int]]) -> int:
    """The instant of loggers that are armed and saw no frames come. Where frames begin to
    come before it, it may fall upon one: then another, chosen when their rate is known."""
    while crew.newest() == seen:
        if time.time_ns() >= instant_ns - SEEN_S * 1e9:
            return instant_ns
        time.sleep(POLL_S)
    hold_ns = _ahead_ns(HOLD_S)
    crew.do(lambda fps: _set_start(fps, hold_ns))
    crew.await_rates()
    chosen_ns = crew.instant_ns(_ahead_ns(LEAD_S))
    crew.do(lambda fps: _set_start(fps, chosen_ns))
    return chosen_ns


def _has_begun(fps: FPS, session_before: Value, instant_ns: int) -> str | None:
    """None: not yet; "": it has; else why it will not."""
    stream = names.stream_of(fps.name)
    if not fps.run_running():
        return f"the logger of {stream} ended"
    if not names.is_ours(fps) or (fps["session"] != session_before and fps["firstcnt0"]):
        return ""
    if fps["session"] == session_before:
        return None
    still = fps["rate"] == 0.0 and not _rate_unknown(fps)
    waits = still and time.time_ns() > instant_ns
    return "" if waits or not fps["saveON"] else None  # off: somebody has ended it already


def pause(
    streams: Sequence[str],
    shm_dir: Path | None = None,
    *,
    whole_cube: bool = False,
    at_ns: int | None = None,
    lead_s: float = LEAD_S,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[list[LoggerState]], None] = lambda states: None,
) -> list[Outcome]:
    """Ends saving in all of them with the last frame before one instant, and waits for the
    files to have their names. whole_cube: the cubes under way then are filled first.

    at_ns, lead_s: as for start(). timeout_s: without any progress. progress: called a few
    times a second meanwhile.
    """
    crew = _Crew(streams, shm_dir)
    with crew:
        with crew.alone():
            crew.check(_pausable)
            if at_ns is None:
                crew.await_rates()
            instant_ns = crew.instant_ns(_ahead_ns(lead_s)) if at_ns is None else at_ns
            saving: set[str] = set()
            crew.do(lambda fps: saving.add(fps.name) if fps["saveON"] else None)

            def set_instant(fps: FPS) -> None:
                if fps.name in saving and names.is_ours(fps):
                    fps["stoptime"] = instant_ns

            def set_switch(fps: FPS) -> None:
                switch, state = ("lastcubeON", True) if whole_cube else ("saveON", False)
                if fps.name in saving:
                    fps[switch] = state

            crew.do(set_instant)
            crew.do(set_switch)
        crew.wait(_has_ended, timeout_s, progress)
        return crew.outcomes()


def _pausable(fps: FPS) -> str:
    stream = names.stream_of(fps.name)
    if not fps.run_running():
        return f"the logger of {stream} does not run"
    if not fps["saveON"] and not (names.is_ours(fps) and fps["pending"]):
        return f"{stream} is not being logged"
    return ""


def _has_ended(fps: FPS) -> str | None:
    if not fps.run_running():
        return f"the logger of {names.stream_of(fps.name)} ended"
    if fps["saveON"]:
        return None
    if not names.is_ours(fps) or fps["state"] in ("idle", "no stream"):
        return ""
    return None


class _Crew:
    """The loggers that act together. One that fails leaves, with the reason."""

    def __init__(self, streams: Sequence[str], shm_dir: Path | None) -> None:
        self._streams = list(streams)
        self._open: dict[str, FPS] = {}
        self._errors: dict[str, str] = {}
        self._states: dict[str, LoggerState] = {}
        for stream in self._streams:
            try:
                self._open[stream] = names.open_logger_fps(stream, shm_dir)
            except FPSNotFound:
                why = f"the logger of {stream} is not prepared; type vampires_preplog first"
                self._errors[stream] = why
            except FPSError as error:
                self._errors[stream] = str(error)

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        for fps in self._open.values():
            fps.close()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within it nobody else gives orders to them: all begin at the instant of one."""
        with contextlib.ExitStack() as stack:
            for stream in sorted(self._open):
                fps = self._open[stream]
                try:
                    stack.enter_context(FPSControl(fps.name, fps.path.parent).alone())
                except ActionFailed as error:
                    self._errors.setdefault(stream, str(error))
            yield

    def do(self, action: Callable[[FPS], object]) -> None:
        """Does it with each that is still in it."""
        for stream, fps in self._open.items():
            if stream not in self._errors:
                try:
                    action(fps)
                except FPSError as error:
                    self._errors[stream] = str(error)

    def check(self, fault: Callable[[FPS], str]) -> None:
        for stream, fps in self._open.items():
            try:
                why = fault(fps)
            except FPSError as error:
                why = str(error)
            if why:
                self._errors.setdefault(stream, why)

    def wait(
        self,
        done: Callable[[FPS], str | None],
        timeout_s: float,
        progress: Callable[[list[LoggerState]], None] = lambda states: None,
        stuck: Callable[[LoggerState, float], str] | None = None,
    ) -> None:
        """Until each is done (None: not yet; else its error) or nothing moves for timeout_s;
        stuck tells the error of one that does not move."""
        waiting = [s for s in self._open if s not in self._errors]
        last: list[tuple[Any, ...]] = []
        moved_at = looked_at = time.monotonic()
        while waiting:
            for stream in list(waiting):
                why = self._ask(stream, done)
                if why is not None:
                    waiting.remove(stream)
                    if why:
                        self._errors[stream] = why
            now = time.monotonic()
            if waiting and now - looked_at > 0.1:
                looked_at = now
                states = [_look(self._open[s], s) for s in waiting]
                progress(states)
                moved = [(s.frames, s.files, s.pending, s.state) for s in states]
                if moved != last:
                    last, moved_at = moved, now
                elif now - moved_at > timeout_s:
                    for state in states:
                        self._errors[state.stream] = (stuck or _stuck)(state, timeout_s)
                    return
            time.sleep(POLL_S)

    def _ask(self, stream: str, done: Callable[[FPS], str | None]) -> str | None:
        try:
            return done(self._open[stream])
        except FPSError as error:
            return str(error)

    def await_rates(self) -> None:
        """Until each that sees frames come knows how often: a camera that began a moment ago
        has no rate yet, and without it an instant could fall upon a frame."""
        give_up = time.monotonic() + RATE_S
        while self._any(_rate_unknown) and time.monotonic() < give_up:
            time.sleep(POLL_S)

    def _any(self, question: Callable[[FPS], bool]) -> bool:
        answers: list[bool] = []
        self.do(lambda fps: answers.append(question(fps)))
        return any(answers)

    def newest(self) -> list[tuple[int, int]]:
        """The newest frame that each has seen: its counter and time."""
        frames: list[tuple[int, int]] = []

        def add(fps: FPS) -> None:
            if names.is_ours(fps):
                frames.append((int(fps["newestcnt0"]), int(fps["newestns"])))

        self.do(add)
        return frames

    def phases(self) -> list[tuple[float, int]]:
        """The period and the time of a frame, in ns, of each whose rate is known."""
        phases: list[tuple[float, int]] = []

        def add(fps: FPS) -> None:
            if names.is_ours(fps) and float(fps["rate"]) > 0:
                phases.append((1e9 / float(fps["rate"]), int(fps["newestns"])))

        self.do(add)
        return phases

    def instant_ns(self, soonest_ns: int) -> int:
        """The next instant from there that is as far from any frame as can be."""
        return between_frames(soonest_ns, self.phases())

    def within_rings(self, before_s: float, asked_ns: int | None) -> float:
        """Seconds before asked_ns (now), but no more than the rings of all streams reach: else
        each would begin with another frame. The slot that is written next is taken, and frames
        come while an order is under way."""
        if before_s <= 0:
            return 0.0
        reaches: list[float] = []

        def add(fps: FPS) -> None:
            if names.is_ours(fps) and float(fps["rate"]) > 0:
                frames = _ring_frames(names.stream_of(fps.name), fps.path.parent)
                reaches.append((frames - 1) / float(fps["rate"]) - ORDER_S)

        self.do(add)
        now_ns = time.time_ns()
        since_asked_s = (now_ns - (asked_ns or now_ns)) / 1e9
        return max(0.0, min(before_s, min(reaches, default=0.0) - since_asked_s))

    def outcomes(self) -> list[Outcome]:
        found = []
        for stream in self._streams:
            state = LoggerState(stream)
            with contextlib.suppress(FPSError):
                if stream in self._open:
                    state = _look(self._open[stream], stream)
            found.append(Outcome(stream, state, self._errors.get(stream, "")))
        return found


def _rate_unknown(fps: FPS) -> bool:
    """Whether frames came a moment ago, and how often they come is not known yet."""
    if not names.is_ours(fps) or float(fps["rate"]) > 0 or not fps.run_running():
        return False
    return time.time_ns() - int(fps["newestns"]) < RATE_S * 1e9


def _ahead_ns(lead_s: float) -> int:
    return time.time_ns() + round(lead_s * 1e9)


def _ring_frames(stream: str, shm_dir: Path) -> int:
    """Frames that the stream keeps: the slices of its ring, or its copies."""
    from vampires import _core

    try:
        file = _core.StreamFile.open(os.fspath(shm_dir), stream)
    except (_core.StreamError, OSError):
        return 0
    slices = int(file.metadata["size"][2]) if file.temporal_ring else 1
    return max(slices, int(file.metadata["CBsize"]))


def _stuck(state: LoggerState, timeout_s: float) -> str:
    why = state.last_error or "frames may have stopped, or the disk hangs"
    return f"{state.stream}: nothing moved for {timeout_s:.0f} s, it is {state.state}: {why}"


def between_frames(soonest_ns: int, frames: Sequence[tuple[float, int]]) -> int:
    """The first instant from soonest_ns on that lies in the middle of the widest gap between
    frames; frames: of each camera the period and the time of one frame, in ns.

    Cameras of different rates have no common gap; then the first one counts.
    """
    if not frames:
        return soonest_ns
    period_ns = frames[0][0]
    together = [t for p, t in frames if abs(p / period_ns - 1) < SAME_RATE]
    phases = sorted((t - soonest_ns) % period_ns for t in together)
    gaps = [
        (later - phase, phase)
        for phase, later in zip(phases, [*phases[1:], phases[0] + period_ns], strict=True)
    ]
    width, begin = max(gaps)
    return soonest_ns + round((begin + width / 2) % period_ns)
