"""A program in a real terminal: a window of a tmux server of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT_S = 20.0
SCREEN = [sys.executable, "-m", "vampires.commands.fps_ctrl"]
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """One window; started by `terminal`."""

    def __init__(self, environment: dict[str, str], width: int, height: int) -> None:
        self._environment = environment
        self._size = ["-x", str(width), "-y", str(height)]

    def tmux(self, *arguments: str) -> str:
        """Runs tmux; what it printed."""
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return done.stdout

    def start(self, command: list[str]) -> None:
        """Runs a command; its exit status stands on the screen afterwards."""
        line = f"{shlex.join(command)}; echo EXIT $?; exec sleep 1000"
        # Not where the source tree could be taken for the installed package.
        place = ["-c", self._environment["TMUX_TMPDIR"]]
        self.tmux("new-session", "-d", *self._size, *place, "-s", "test", line)

    def press(self, *keys: str) -> None:
        """Presses keys, by the names tmux has for them."""
        self.tmux("send-keys", "-t", "test", *keys)

    def type(self, text: str) -> None:
        """Types a text."""
        self.tmux("send-keys", "-t", "test", "-l", text)

    def lines(self, *, colours: bool = False) -> list[str]:
        """What the screen shows."""
        options = ["-e"] if colours else []
        return self.tmux("capture-pane", "-p", *options, "-t", "test").splitlines()

    def wait_for(self, *texts: str) -> list[str]:
        """Waits until all texts are on the screen; its lines."""
        shown = self.wait_until(lambda lines: all(t in "\n".join(lines) for t in texts), texts)
        return shown

    def wait_until(
        self, condition: Callable[[list[str]], bool], what: object = "a condition"
    ) -> list[str]:
        """Waits until the lines of the screen meet a condition; the lines."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(lines := self.lines()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited for {what}; the screen:\n" + "\n".join(lines))
            time.sleep(0.02)
        return lines

    def pid(self) -> int:
        """Process id of what runs in the window (its shell)."""
        return int(self.tmux("list-panes", "-t", "test", "-F", "#{pane_pid}"))

    def resize(self, width: int, height: int) -> None:
        """Gives the window another size."""
        self.tmux("resize-window", "-t", "test", "-x", str(width), "-y", str(height))


def colour_of(line: str, text: str) -> str:
    """The last colour set before a text in a line with its escape sequences; "" for none."""
    before, found, _ = line.partition(text)
    if not found:
        raise AssertionError(f"{text!r} is not in {line!r}")
    colour = ""
    for sequence in _ESCAPES.findall(before):
        for code in sequence[2:-1].split(";"):
            if code in ("", "0", "39"):
                colour = ""
            elif 30 <= int(code) <= 37 or 90 <= int(code) <= 97:
                colour = code
    return colour


@contextlib.contextmanager
def terminal(width: int = 80, height: int = 24, **environment: str) -> Iterator[Terminal]:
    """A terminal whose tmux server ends with it, and that no other tmux sees."""
    folder = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # socket paths are short
    settings = {**os.environ, "TMUX_TMPDIR": str(folder), "LANG": "C.UTF-8", **environment}
    settings.pop("TMUX", None)
    opened = Terminal(settings, width, height)
    try:
        yield opened
    finally:
        opened.tmux("kill-server")
        shutil.rmtree(folder, ignore_errors=True)
