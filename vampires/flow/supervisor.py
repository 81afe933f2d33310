"""The supervisor of a machine: makes what is wished so, and keeps it so.

There are two of it. One holds the lock "supervisor" and works; the other waits for that lock,
which the kernel gives it the moment the first is gone, whatever ended that. Whoever works sees
to it that another waits. The processes themselves are in tmux and go on meanwhile.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from vampires import tmux
from vampires.flow import pane
from vampires.flow.logger_watch import LoggerWatch
from vampires.flow.part_runner import TELLING_S, PartRunner
from vampires.flow.parts import HEADER_SESSION, Part
from vampires.flow.wishes import STATE, Wish, wish_files, wished_cameras
from vampires.run_folder import RunFolder
from vampires.stop_request import Stop

LOCK = "supervisor"
STANDBY_LOCK = "supervisor_standby"
LOCK_S = 0.2  # for both: who only asks whether one is held has it for a moment
LOG_FILE = "supervisor.log"
LOG_BYTES, LOG_FILES = 1 << 20, 5
LOOK_S = 0.25  # at the latest, while something is not as it should be
WISHES_S = 0.1
PUBLISH_S = 1.0


class Supervisor:
    """Runs the parts of all cameras wished for in a run folder."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._runners: dict[str, PartRunner] = {}
        self._wishes: dict[str, Wish] = {}
        self._wish_files: set[tuple[str, int, int]] = set()
        self._loggers: dict[str, LoggerWatch] = {}
        self._trouble = ""
        self._published: tuple[float, Any] = (0.0, None)
        self._log = rotating_log(run.path / LOG_FILE)
        # Sessions of another run folder (another set of streams) are none of ours.
        self._owner = sha256(os.fspath(run.path.resolve()).encode()).hexdigest()[:12]

    def run(self, stop: Stop) -> None:
        """Until nothing is wished and nothing runs any more, or stop is set."""
        self._say(f"supervisor {os.getpid()} begins")
        look_at = 0.0
        while not stop.is_set():
            changed = self._read_wishes()
            if changed or time.monotonic() >= look_at or self._some_ended():
                look_at = time.monotonic() + self._look()
                if self._wishes or self._runners:
                    self._stand_by()
            for watch in self._loggers.values():
                watch.look()
            self._publish()
            if not self._wishes and not self._runners:
                self._run.remove(STATE)
                break
            self._sleep(look_at - time.monotonic())
        for watch in self._loggers.values():
            watch.close()
        self._say(f"supervisor {os.getpid()} ends")

    def _say(self, line: str) -> None:
        self._log.info("%s", line)

    # -- wishes -------------------------------------------------------------------------------

    def _read_wishes(self) -> bool:
        """Whether they are others than before."""
        files = wish_files(self._run)
        if files == self._wish_files:
            return False
        self._wish_files = files
        wishes = {}
        for camera in wished_cameras(self._run):
            wish = Wish.read(self._run, camera)
            if wish is not None:
                wishes[camera] = wish
        if wishes == self._wishes:
            return False
        self._wishes = wishes
        parts = {part.session: (part, wish) for wish in wishes.values() for part in wish.parts}
        for session, runner in self._runners.items():
            part, wish = parts.get(session, (None, None))
            if part is None or wish is None or self._mark(wish, session) != runner.mark:
                runner.stop()
        for session, (_, wish) in parts.items():
            if session not in self._runners:
                self._add(session, wish)
        self._watch_loggers()
        return True

    def _add(self, session: str, wish: Wish) -> None:
        part = next(part for part in wish.parts if part.session == session)
        mark = self._mark(wish, session)
        self._runners[session] = PartRunner(
            part, wish.environment, self._run.path, mark, self._say
        )

    def _mark(self, wish: Wish, session: str) -> str:
        # The header's process serves all cameras and does not begin anew with one of them.
        generation = "all" if session == HEADER_SESSION else wish.generation
        return f"{self._owner} {generation}"

    def _watch_loggers(self) -> None:
        wanted = {name: wish for name, wish in self._wishes.items() if wish.logged}
        for name in set(self._loggers) - set(wanted):
            self._loggers.pop(name).close()
        for name in set(wanted) - set(self._loggers):
            self._loggers[name] = LoggerWatch(name, self._run.shm_dir, self._say)

    # -- parts --------------------------------------------------------------------------------

    def _look(self) -> float:
        """Does what is due with each; returns in how many seconds to look again."""
        try:
            shown = pane.panes()
            self._hold_fast_links()
            waits = [self._step(runner, shown) for runner in self._in_order()]
            self._remove_strangers(shown)
            self._trouble = ""
        except tmux.TmuxError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._say(self._trouble)
            return LOOK_S
        for session, runner in list(self._runners.items()):
            if runner.gone:
                del self._runners[session]
                for wish in self._wishes.values():
                    if any(part.session == session for part in wish.parts):
                        self._add(session, wish)
        return min(waits, default=LOOK_S)

    def _in_order(self) -> Sequence[PartRunner]:
        """Those that end, the last first; then those that run, the first first."""
        ending = [runner for runner in self._runners.values() if not runner.wanted]
        running = [runner for runner in self._runners.values() if runner.wanted]
        ending.sort(key=lambda runner: -runner.part.order)
        return [*ending, *sorted(running, key=lambda runner: runner.part.order)]

    def _step(self, runner: PartRunner, shown: dict[str, pane.PaneState]) -> float:
        """What ends does so one after the other, by their order."""
        if not runner.wanted and any(
            not other.wanted
            and not other.gone
            and other.part.camera == runner.part.camera
            and other.part.order > runner.part.order
            for other in self._runners.values()
        ):
            return LOOK_S
        return runner.look(shown.get(tmux.session_name(runner.part.session)))

    def _hold_fast_links(self) -> None:
        """The whole sensor at full rate is more than the network takes."""
        for runner in self._runners.values():
            if runner.part.fast:
                status = self._run.read(f"{runner.part.camera}_fgrab") or {}
                settings = status.get("settings")
                full = isinstance(settings, dict) and settings.get("mode") == "FULL"
                runner.held = full and status.get("state") in ("running", "released")

    def _remove_strangers(self, shown: dict[str, pane.PaneState]) -> None:
        """Sessions of ours that nobody wishes: left by a supervisor that was killed."""
        ours = {tmux.session_name(runner.part.session) for runner in self._runners.values()}
        for name, state in shown.items():
            if name not in ours and state.mark.startswith(f"{self._owner} "):
                self._say(f"{name}: left behind, stopped")
                runner = PartRunner(_stray(name), {}, self._run.path, state.mark, self._say)
                runner.stop()
                self._runners[name] = runner

    # -- others -------------------------------------------------------------------------------

    def _publish(self) -> None:
        values = {
            "pid": os.getpid(),
            "generations": {name: wish.generation for name, wish in self._wishes.items()},
            "parts": [runner.as_dict() for runner in self._runners.values()],
            "loggers": {name: watch.as_dict() for name, watch in self._loggers.items()},
            "trouble": self._trouble,
        }
        now = time.monotonic()
        if values == self._published[1] and now - self._published[0] < PUBLISH_S:
            return
        self._published = (now, values)
        try:
            self._run.write(STATE, {**values, "time_ns": time.time_ns()})
        except OSError as error:
            self._log.error("%s", error)

    def _stand_by(self) -> None:
        """Sees to it that another one waits."""
        try:
            if not self._run.is_held(STANDBY_LOCK):
                start_supervisor(self._run, standby=True)
        except OSError as error:
            self._log.error("%s", error)

    def _some_ended(self) -> bool:
        return bool(self._poll().poll(0))

    def _sleep(self, seconds: float) -> None:
        """Until then, or until a process ends; not for longer than wishes may wait."""
        self._poll().poll(max(TELLING_S, min(seconds, WISHES_S)) * 1e3)

    def _poll(self) -> select.poll:
        """Of all processes that run."""
        poll = select.poll()
        for runner in self._runners.values():
            if runner.process is not None and not runner.ending:
                poll.register(runner.process.fileno(), select.POLLIN)
        return poll


def _stray(session: str) -> Part:
    """What is known of a session whose wish is gone."""
    return Part(session, "", "left behind", (), 0)


def rotating_log(file: Path) -> logging.Logger:
    """The log file of the supervisor, with those before it: .1, .2, ..."""
    log = logging.getLogger(f"vampires.supervisor.{file}")
    if not log.handlers:
        handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True
        )
        formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


def is_supervised(run: RunFolder) -> bool:
    """Whether a supervisor works in a run folder."""
    try:
        return run.is_held(LOCK)
    except OSError:
        return False


def start_supervisor(run: RunFolder, *, standby: bool = False) -> None:
    """Starts one in the background, of no terminal. One too many ends at once."""
    words = [sys.executable, "-m", "vampires.commands.supervisor"]
    words += ["--standby"] if standby else []
    environment = os.environ | {"MILK_SHM_DIR": os.fspath(run.shm_dir)}
    environment.pop("TMUX", None)
    with open(os.devnull, "r+b") as nowhere:
        process = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" & exit 0', "sh", *words],
            stdin=nowhere,
            stdout=nowhere,
            stderr=nowhere,
            cwd=run.path,
            env=environment,
            start_new_session=True,
        )
    process.wait()  # the shell; what it started is nobody's child
