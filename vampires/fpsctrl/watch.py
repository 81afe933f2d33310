"""The FPS of a folder, looked at again and again, cheaply.

A screen with twenty of them asks five times a second. So files stay open, a process that was
found running is watched through its pidfd instead of being looked up, and tmux is asked once
for all of them, by whoever calls `FPSWatch.set_panes`.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vampires import process_id, tmux
from vampires.fps import FPS, FPSError, Header
from vampires.fps.layout import SUFFIX, Status
from vampires.fps_control import Light
from vampires.fpsctrl.filter import FPSFilter

# A logger has these parameters.
LOGGER_KEYS = ("saveON", "lastcubeON", "framecnt")
# Only ours have these: milk's loggers do not count lost frames, nor say what they do.
LOST_KEY = "lost"
STATE_KEY = "state"


@dataclass(frozen=True)
class Process:
    """One of the three leading numbers: a process id, 0 when there never was one."""

    light: Light
    pid: int


@dataclass(frozen=True)
class Logging:
    """What a logger does. lost, state: None when it does not say."""

    save_on: bool
    last_cube: bool
    frames: int
    lost: int | None
    state: str | None


@dataclass(frozen=True)
class Snapshot:
    """An FPS as it was when looked at; problem: why it cannot be read, else None."""

    name: str
    problem: str | None = None
    description: str = ""
    tmux: Process = Process(Light.IDLE, 0)
    conf: Process = Process(Light.IDLE, 0)
    run: Process = Process(Light.IDLE, 0)
    errors: int = 0
    logging: Logging | None = None

    @property
    def saving(self) -> bool:
        """Whether a logger that runs saves."""
        logging = self.logging
        if logging is None or self.run.light is not Light.ALIVE:
            return False
        return logging.save_on if logging.state is None else logging.state == "logging"


class WatchedFPS:
    """An FPS by name, kept open; opened again after its file was replaced. Never raises."""

    def __init__(self, name: str, shm_dir: Path) -> None:
        self.name = name
        self._shm_dir = shm_dir
        self._fps: FPS | None = None
        self._header: Header | None = None
        self._is_logger = False
        self._is_ours = False
        self._conf = _RecordedProcess()
        self._run = _RecordedProcess()
        self.snapshot = Snapshot(name)

    def fps(self) -> FPS:
        """The FPS, open. Raises FPSError when it cannot be opened."""
        if self._fps is not None and not self._fps.is_current():
            self.close()
        if self._fps is None:
            fps = FPS.open(self.name, self._shm_dir)
            self._is_logger = all(key in fps for key in LOGGER_KEYS)
            self._is_ours = LOST_KEY in fps and STATE_KEY in fps
            self._fps = fps
        return self._fps

    def header(self) -> Header | None:
        """The header as it was when looked at; None when it could not be read."""
        return self._header

    def reopen(self) -> None:
        """Opens the file again if it is another one now, or could not be opened before."""
        self._conf.look_again()
        self._run.look_again()
        try:
            self.fps()
        except FPSError as error:
            self._fail(error)

    def look(self, panes: dict[str, int]) -> Snapshot:
        """What is there now. panes: process id by name of the tmux session."""
        if self._fps is not None:
            try:
                self.snapshot = self._look(self._fps, panes)
            except FPSError as error:
                self._fail(error)
        return self.snapshot

    def _look(self, fps: FPS, panes: dict[str, int]) -> Snapshot:
        header = self._header = fps.header()
        status = header.status
        pane = panes.get(tmux.session_name(self.name), 0)
        conf = self._conf.runs(header.confpid, header.conf_start_ns, header.name)
        run = self._run.runs(header.runpid, header.run_start_ns, header.name)
        return Snapshot(
            self.name,
            None,
            header.description,
            _process(pane, pane != 0, bool(status & Status.TMUXCTRL)),
            _process(header.confpid, conf, bool(status & Status.CMDCONF)),
            _process(header.runpid, run, bool(status & Status.CMDRUN)),
            header.conferrcnt,
            self._logging(fps) if self._is_logger else None,
        )

    def _logging(self, fps: FPS) -> Logging:
        save_on, last_cube, frames = (fps[key] for key in LOGGER_KEYS)
        return Logging(
            bool(save_on),
            bool(last_cube),
            whole(frames),
            whole(fps[LOST_KEY]) if self._is_ours else None,
            str(fps[STATE_KEY]) if self._is_ours else None,
        )

    def _fail(self, error: FPSError) -> None:
        """Says why; the name of the file is on the screen already."""
        self.close()
        path = str(self._shm_dir / (self.name + SUFFIX))
        self.snapshot = Snapshot(self.name, problem=str(error).replace(path, "the file"))

    def close(self) -> None:
        """Lets go of the file and the processes; it may be looked at again."""
        if self._fps is not None:
            self._fps.close()
        self._fps = self._header = None
        self._conf.forget()
        self._run.forget()


class FPSWatch:
    """All FPS of a folder that pass a filter, by name."""

    def __init__(self, shm_dir: Path, fps_filter: FPSFilter) -> None:
        self.shm_dir = shm_dir
        self.filter = fps_filter
        self._known: dict[str, WatchedFPS] = {}
        self._listed: dict[str, WatchedFPS] = {}
        self._panes: dict[str, int] = {}

    def names(self) -> list[str]:
        """Names of those listed, sorted."""
        return list(self._listed)

    def __contains__(self, name: str) -> bool:
        return name in self._listed

    def __getitem__(self, name: str) -> WatchedFPS:
        return self._listed[name]

    def snapshot(self, name: str) -> Snapshot:
        """What was seen when it was last looked at."""
        return self._listed[name].snapshot

    def snapshots(self) -> list[Snapshot]:
        """What was last seen of all of them, sorted by name."""
        return [watched.snapshot for watched in self._listed.values()]

    def set_panes(self, panes: Iterable[tmux.Pane]) -> None:
        """What tmux said; the first pane of a session stands for it."""
        found: dict[str, int] = {}
        for pane in panes:
            found.setdefault(pane.session, pane.pid)
        self._panes = found

    def rescan(self) -> None:
        """Finds new and removed files, and looks at all."""
        known: dict[str, WatchedFPS] = {}
        for name in self.filter.names(self.shm_dir):
            fps = known[name] = self._known.get(name) or WatchedFPS(name, self.shm_dir)
            fps.reopen()
            fps.look(self._panes)
        for removed in self._known.keys() - known.keys():
            self._known[removed].close()
        self._known = known
        self._listed = {name: fps for name, fps in known.items() if self._passes(fps)}

    def _passes(self, fps: WatchedFPS) -> bool:
        """A header that cannot be read passes: its problem is to be seen."""
        header = fps.header()
        return header is None or self.filter.passes_header(header)

    def look(self, names: Sequence[str]) -> None:
        """Looks again at those named."""
        for name in names:
            if name in self._listed:
                self._listed[name].look(self._panes)

    def close(self) -> None:
        """Lets go of all."""
        for watched in self._known.values():
            watched.close()
        self._known, self._listed = {}, {}


class _RecordedProcess:
    """Whether the process that an FPS records runs."""

    def __init__(self) -> None:
        self._recorded: tuple[int, int] | None = None
        self._over = False
        self._pidfd = -1
        self._ended: select.poll | None = None

    def runs(self, pid: int, recorded_ns: int, named: str) -> bool:
        """Whether that process runs."""
        if self._recorded != (pid, recorded_ns):
            self.forget()
            self._recorded = (pid, recorded_ns)
        if self._ended is not None and self._ended.poll(0):
            self.forget()
            self._recorded, self._over = (pid, recorded_ns), True
        if self._ended is not None or self._over:
            return not self._over
        if not process_id.is_running(pid, recorded_ns, named):
            self._over = True
            return False
        return self._watch(pid, recorded_ns, named)

    def _watch(self, pid: int, recorded_ns: int, named: str) -> bool:
        """Watches a process that was seen running; False when it just ended."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except OSError:  # no descriptors left: it is looked up each time
            return True
        self._ended = select.poll()
        self._ended.register(self._pidfd, select.POLLIN)
        if process_id.is_running(pid, recorded_ns, named):
            return True
        self.forget()  # its id passed to another just before it was opened
        return False

    def look_again(self) -> None:
        """Does not believe any longer that it has ended."""
        self._over = False

    def forget(self) -> None:
        """Knows nothing of it any longer."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd, self._ended, self._over, self._recorded = -1, None, False, None


def whole(value: object) -> int:
    """A count; 0 for what is none. Others write these files."""
    return value if isinstance(value, int) else 0


def _process(pid: int, alive: bool, wanted: bool) -> Process:
    if alive:
        return Process(Light.ALIVE, pid)
    return Process(Light.DEAD if wanted else Light.IDLE, pid)
