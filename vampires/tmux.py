"""tmux sessions, through the tmux program of this user (and $TMUX_TMPDIR)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 5.0
_MARK = "@vampires"
_NOBODY = ("no server running", "error connecting", "no such file", "can't find")


class TmuxError(Exception):
    """tmux is missing, or refused; the text is one line."""


@dataclass(frozen=True)
class Pane:
    """A window's first pane: names, and the id of the process in it."""

    session: str
    window: str
    pid: int


def session_name(name: str) -> str:
    """The name as tmux keeps it, which has '.' and ':' for its own use; and with nothing in it
    that means something else in a target ('$0' is a session by number) or is shown changed."""
    return re.sub(r"[^A-Za-z0-9_+-]", "_", name)


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["tmux", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise TmuxError("tmux is not installed; install it (apt install tmux)") from None
    except subprocess.TimeoutExpired:
        raise TmuxError(f"tmux did not answer for {TIMEOUT_S:.0f} s") from None


def _must(arguments: Sequence[str]) -> str:
    done = _run(arguments)
    if done.returncode != 0:
        why = done.stderr.strip() or f"exit status {done.returncode}"
        raise TmuxError(f"tmux {arguments[0]}: {why}")
    return done.stdout


def panes() -> list[Pane]:
    """All panes of all sessions; none when no server runs. Raises TmuxError."""
    found = []
    for line in listed_panes("#{pane_pid} #{session_name}\t#{window_name}"):
        pid, _, names = line.partition(" ")
        session, _, window = names.partition("\t")
        found.append(Pane(session, window, int(pid)))
    return found


def listed_panes(form: str) -> list[str]:
    """A line for each pane of all sessions, in a format of tmux. Raises TmuxError."""
    shown = _run(["list-panes", "-a", "-F", form])
    if shown.returncode != 0:
        if any(text in shown.stderr.lower() for text in _NOBODY):
            return []
        raise TmuxError(f"tmux list-panes: {shown.stderr.strip()}")
    return shown.stdout.splitlines()


def new_kept_session(
    name: str, words: Sequence[str], directory: Path, options: Mapping[str, str]
) -> None:
    """Starts a session in the background, which remains when its command (no shell) has ended.
    options: such as {"@mark": TEXT}, kept with the session. Raises TmuxError."""
    session = session_name(name)
    target = ["-t", f"={session}:"]
    size = ["-x", "200", "-y", "50", "-c", str(directory)]
    calls = [["new-session", "-d", "-s", session, *size, *words]]
    # One call: nobody finds the session without its options, nor does the command end before.
    calls.append(["set-option", "-w", *target, "remain-on-exit", "on"])
    calls += [["set-option", *target, key, value] for key, value in options.items()]
    _must([word for call in calls for word in (*map(_as_argument, call), ";")][:-1])


def respawn(name: str, words: Sequence[str], directory: Path) -> None:
    """Runs a command in the first window of a session, in place of what ran there."""
    target = ["-t", f"={session_name(name)}:"]
    _must(["respawn-pane", "-k", *target, "-c", str(directory), *map(_as_argument, words)])


def capture_session(name: str) -> list[str]:
    """The lines that the first window of a session shows, and the last that it showed before:
    those that a command has ended with are there. Raises TmuxError."""
    shown = _must(["capture-pane", "-p", "-S", "-20", "-t", f"={session_name(name)}:"])
    return [line.rstrip() for line in shown.rstrip("\n").splitlines()]


def has_session(name: str) -> bool:
    """Whether there is a session of exactly this name."""
    return _run(["has-session", "-t", f"={session_name(name)}"]).returncode == 0


def new_session(
    name: str, windows: Sequence[str], directory: Path, command: str, mark: str
) -> None:
    """Starts a session in the background; command runs in each of its windows. mark: any text,
    kept with the session."""
    session = session_name(name)
    place = ["-c", str(directory)]
    first = ["-x", "200", "-y", "50", *place, command]
    # One call: nobody finds a session that lacks windows.
    calls = [["new-session", "-d", "-s", session, "-n", windows[0], *first]]
    for window in windows[1:]:
        calls.append(["new-window", "-d", "-t", f"={session}:", "-n", window, *place, command])
    calls.append(["set-option", "-t", f"={session}:", _MARK, mark])
    _must([word for call in calls for word in (*map(_as_argument, call), ";")][:-1])


def add_window(name: str, window: str, directory: Path, command: str) -> None:
    """Adds a window to a session."""
    target = f"={session_name(name)}:"
    place = ["-c", str(directory)]
    _must(
        ["new-window", "-d", "-t", target, "-n", window, *map(_as_argument, [*place, command])]
    )


def mark_of(name: str) -> str:
    """The text that new_session() kept with the session; empty when others started it."""
    return _run(["show-options", "-qv", "-t", f"={session_name(name)}:", _MARK]).stdout.strip()


def kill_session(name: str) -> None:
    """Ends a session; no error when there is none."""
    done = _run(["kill-session", "-t", f"={session_name(name)}"])
    if done.returncode != 0 and not any(text in done.stderr.lower() for text in _NOBODY):
        raise TmuxError(f"tmux kill-session: {done.stderr.strip()}")


def type_line(name: str, window: str, line: str) -> None:
    """Types a line into a window, and Enter. Raises TmuxError, also for a line with control
    characters: the shell would obey them, quotes or not."""
    if not all(c.isprintable() or c == " " for c in line):
        raise TmuxError(f"cannot type {line!r}: there are control characters in it")
    target = f"={session_name(name)}:{window}"
    # Somebody may have scrolled back in it: what is typed then goes elsewhere.
    _must(["copy-mode", "-q", "-t", target])
    _must(["send-keys", "-t", target, "-l", "--", _as_argument(line)])
    _must(["send-keys", "-t", target, "Enter"])


def _as_argument(word: str) -> str:
    """tmux takes a semicolon at the end of an argument for the end of the command."""
    return word[:-1] + "\\;" if word.endswith(";") else word


def capture(name: str, window: str) -> list[str]:
    """The lines that a window shows, without trailing blanks."""
    shown = _must(["capture-pane", "-p", "-t", f"={session_name(name)}:{window}"])
    return [line.rstrip() for line in shown.rstrip("\n").splitlines()]
