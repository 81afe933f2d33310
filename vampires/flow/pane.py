"""A process in a tmux session of its own, which outlives whoever started it.

The session remains when its process ends, with what that said last. Sessions are marked with
what they are for; one without such a mark is somebody else's and is never touched.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vampires import tmux

MARK = "@vampires_flow"


@dataclass(frozen=True)
class PaneState:
    """What tmux tells of a session. pid 0, dead: its process has ended, with that status or by
    that signal."""

    session: str
    mark: str
    pid: int
    dead: bool
    exit_status: str = ""
    exit_signal: str = ""

    @property
    def told(self) -> bool:
        """Whether tmux knows how it ended: it sees the terminal close a moment before."""
        return self.dead and bool(self.exit_status or self.exit_signal)

    @property
    def how_it_ended(self) -> str:
        """In words."""
        if self.exit_signal:
            try:
                return f"killed by {signal.Signals(int(self.exit_signal)).name}"
            except ValueError:
                return f"killed by {self.exit_signal}"
        return f"exit status {self.exit_status}" if self.exit_status else "ended"


def panes() -> dict[str, PaneState]:
    """All sessions of this user's server, by name; their first pane. Raises TmuxError."""
    fields = ("session_name", MARK, "pane_pid", "pane_dead", "pane_dead_status")
    form = "\t".join(f"#{{{field}}}" for field in (*fields, "pane_dead_signal"))
    found: dict[str, PaneState] = {}
    for line in tmux.listed_panes(form):
        words = line.split("\t")
        if len(words) == 6 and words[0] not in found:
            name, mark, pid, dead, status, number = words
            found[name] = PaneState(name, mark, int(pid or 0), dead == "1", status, number)
    return found


def start(
    session: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    mark: str,
) -> None:
    """Runs a command in a new session, in the folder. Raises TmuxError."""
    words = ["env", *(f"{key}={value}" for key, value in environment.items()), *command]
    tmux.new_kept_session(session, words, folder, {MARK: mark})


def restart(
    session: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> None:
    """Runs it again in the session that is there. Raises TmuxError."""
    words = ["env", *(f"{key}={value}" for key, value in environment.items()), *command]
    tmux.respawn(session, words, folder)


def last_words(session: str) -> str:
    """The last line that a session shows; "" where there is none."""
    try:
        lines = [line.strip() for line in tmux.capture_session(session)]
    except tmux.TmuxError:
        return ""
    said = [line for line in lines if line and not line.startswith("Pane is dead")]
    return said[-1] if said else ""


class Process:
    """The process of a pane, held by a descriptor: a signal can reach no other."""

    def __init__(self, state: PaneState) -> None:
        """Raises ProcessLookupError where it has ended."""
        self.pid = state.pid
        self._fd = os.pidfd_open(state.pid)
        # Whoever tmux still shows with that id, alive, is who was opened.
        try:
            now = panes().get(state.session)
        except tmux.TmuxError:
            now = None
        if now is None or now.dead or now.pid != state.pid:
            self.close()
            raise ProcessLookupError(state.pid)

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._fd

    def ended(self) -> bool:
        """Whether it has."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: signal.Signals) -> None:
        """Signals it; nothing when it has ended. Raises PermissionError."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        """Gives the descriptor back; the process goes on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
