"""One part, kept running: started, watched, started again when it ends, and stopped.

Nothing here waits: look() is given what tmux shows, and does what is due. A part that is there
already, started by an earlier supervisor for the same start of its camera, is taken over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from vampires import process_id, tmux
from vampires.flow import pane
from vampires.flow.pane import PaneState, Process
from vampires.flow.parts import Part

# From an end to the next start, after so many ends in a row; the last for all that follow.
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
TRUSTED_S = 3.0  # who runs again so long is shown as running
STEADY_S = 30.0  # who ran so long begins anew with the first
MAX_FAILURES = 100  # in a row: about an hour
EXIT_TOLD_S = 0.2  # after a process has ended, for tmux to say how; now and then it never does
TELLING_S = 0.02  # until tmux is asked again for that
GRACE_S = 10.0  # to end by itself, before it is killed
_SIGNALS = {"INT": signal.SIGINT, "HUP": signal.SIGHUP}

Say = Callable[[str], None]


class State(Enum):
    """Of a part."""

    WAITING = "waiting"  # for its next start
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    HELD = "held"  # not wanted in this camera mode
    BLOCKED = "blocked"  # somebody else has its tmux session
    FAILED = "failed"  # given up


class PartRunner:
    """environment: variables for the command. mark: says for whom the session is, and which
    start. say: told a line of each start and end."""

    def __init__(
        self, part: Part, environment: Mapping[str, str], folder: Path, mark: str, say: Say
    ) -> None:
        self.part = part
        self.mark = mark
        self.state = State.WAITING
        self.restarts = 0
        self.error = ""
        self.since_ns = 0
        self.wanted = True
        self.held = False
        self._environment = environment
        self._folder = folder
        self._say = say
        self._process: Process | None = None
        self._failures = 0
        self._start_at = 0.0
        self._started_at = 0.0
        self._kill_at = 0.0
        self._ended_at = 0.0

    # -- what is --------------------------------------------------------------------------

    @property
    def process(self) -> Process | None:
        """Its process, while it runs."""
        return self._process

    @property
    def ending(self) -> bool:
        """Whether its process has ended, and tmux is still to say how."""
        return bool(self._ended_at)

    @property
    def gone(self) -> bool:
        """Whether it was stopped for good, and its session is away."""
        return not self.wanted and self.state is State.STOPPED

    @property
    def unsteady(self) -> bool:
        """Whether it runs again, and not long enough to be relied on."""
        runs_s = time.monotonic() - self._started_at
        return self.state is State.RUNNING and self._failures > 0 and runs_s < TRUSTED_S

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "session": self.part.session,
            "camera": self.part.camera,
            "kind": self.part.kind,
            "status": self.part.status,
            "state": "unsteady" if self.unsteady else self.state.value,
            "pid": self._process.pid if self._process else 0,
            "since_ns": self.since_ns,
            "restarts": self.restarts,
            "error": self.error,
        }

    # -- what is done ---------------------------------------------------------------------

    def stop(self) -> None:
        """From now on it is not wanted."""
        self.wanted = False

    def look(self, shown: PaneState | None) -> float:
        """Does what is due. shown: its session, as tmux shows it now. Returns after how many
        seconds to look again at the latest. Raises TmuxError."""
        try:
            return self._look(shown)
        except PermissionError as error:
            self.state, self.error = State.BLOCKED, f"not ours to end: {error}"
            return 1.0

    def _look(self, shown: PaneState | None) -> float:
        if shown is not None and not shown.mark.startswith(self._owner):
            return self._blocked()
        self._notice(shown)
        if not self.wanted or self.held:
            return self._end(shown)
        if self._ended_at:
            return TELLING_S
        if self._process is not None:
            if self.mark != (shown.mark if shown else self.mark):
                return self._end(shown)  # of an earlier start of the camera
            self.state = State.RUNNING
            return 1.0
        return self._begin(shown)

    @property
    def _owner(self) -> str:
        return self.mark.rpartition(" ")[0]

    def _blocked(self) -> float:
        if not self.wanted:
            self.state = State.STOPPED
            return 1.0
        name = self.part.session
        self.state = State.BLOCKED
        self.error = (
            f"there is a tmux session {name} that camstart did not make; end it: tmux "
            f"kill-session -t {name}"
        )
        return 1.0

    def _notice(self, shown: PaneState | None) -> None:
        """Who is there, who has ended."""
        if self._has_ended(shown):
            now = time.monotonic()
            self._ended_at = self._ended_at or now
            if shown is not None and not shown.told and now - self._ended_at < EXIT_TOLD_S:
                return  # tmux has not looked yet; it will say how it ended
            self._ended_at = 0.0
            if self._process is not None:
                self._process.close()
                self._process = None
            if self.state is State.RUNNING:
                self._note_end(shown)
        if self._process is None and shown is not None and not shown.dead and shown.pid:
            try:
                self._process = Process(shown)
            except (ProcessLookupError, OSError):
                return
            started_ns = process_id.start_time_ns(shown.pid)
            self.since_ns = started_ns or time.time_ns()
            self._started_at = time.monotonic() - (time.time_ns() - self.since_ns) / 1e9
            self.state = State.RUNNING

    def _has_ended(self, shown: PaneState | None) -> bool:
        """Whether the process that was last seen, or begun, is gone."""
        if self._process is not None:
            return self._process.ended()
        return self.state is State.RUNNING and (shown is None or shown.dead)

    def _note_end(self, shown: PaneState | None) -> None:
        now = time.monotonic()
        self._failures = 0 if now - self._started_at > STEADY_S else self._failures
        delay_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        self._failures += 1
        self._start_at = now + delay_s
        self.since_ns = time.time_ns()
        if shown is None:
            how, words = "its tmux session was ended", ""
        else:
            how = shown.how_it_ended if shown.dead else "ended"
            words = pane.last_words(self.part.session) if self.part.quiet == "INT" else ""
        why = f"{how}: {words}" if words else how
        self.error = f"{time.strftime('%H:%M:%S', time.gmtime())} {why}"
        if self._failures > MAX_FAILURES:
            self.state = State.FAILED
            self._say(f"{self.part.session}: {why}; given up after {MAX_FAILURES} times")
        else:
            self.state = State.WAITING
            self._say(f"{self.part.session}: {why}; again in {delay_s:g} s")

    def _begin(self, shown: PaneState | None) -> float:
        now = time.monotonic()
        if self.state is State.FAILED:
            return 1.0
        if now < self._start_at:
            self.state = State.WAITING
            return self._start_at - now
        again = self.since_ns != 0
        if shown is None:
            pane.start(
                self.part.session,
                self.part.command,
                self._environment,
                self._folder,
                self.mark,
            )
        elif shown.mark == self.mark:
            pane.restart(self.part.session, self.part.command, self._environment, self._folder)
        else:
            tmux.kill_session(self.part.session)
            return 0.0
        self.restarts += again
        self._started_at = now
        self.since_ns = time.time_ns()
        self.state = State.RUNNING
        self._say(f"{self.part.session}: started{' again' if again else ''}")
        return 0.0

    def _end(self, shown: PaneState | None) -> float:
        now = time.monotonic()
        if self._process is not None:
            if self.state is not State.STOPPING:
                self.state = State.STOPPING
                self._kill_at = now + GRACE_S
                self._process.send(_SIGNALS.get(self.part.quiet, signal.SIGINT))
            elif now > self._kill_at:
                self._say(f"{self.part.session}: did not end within {GRACE_S:.0f} s, killed")
                self._process.send(signal.SIGKILL)
                self._kill_at = now + GRACE_S
            return 0.2
        if shown is not None:
            tmux.kill_session(self.part.session)
        if self.state is State.STOPPING:
            self._say(f"{self.part.session}: stopped")
        self.since_ns = 0 if self.wanted else self.since_ns
        self.error = ""
        self._failures = 0
        self.state = State.STOPPED
        if self.wanted and self.held:
            self.state = State.HELD
        return 1.0
