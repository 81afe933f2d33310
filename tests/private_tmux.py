"""A tmux server of a test's own, and what runs in it; all of it has ended afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TIMEOUT_S = 20.0


def tmux(*arguments: str) -> str:
    """Runs tmux, on the server that the environment names; what it printed."""
    done = subprocess.run(
        ["tmux", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.stdout


@contextlib.contextmanager
def private_tmux(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """tmux started in it uses a server of its own, and no files of the user's. Yields the home
    directory, empty, of its shells."""
    folder = Path(tempfile.mkdtemp(prefix="vtmux-", dir="/tmp"))  # sockets have short paths
    home = folder / "home"
    home.mkdir()
    monkeypatch.setenv("TMUX_TMPDIR", str(folder))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("TMUX", raising=False)
    path = os.environ["PATH"]
    try:
        yield home
    finally:
        monkeypatch.setenv("PATH", path)
        monkeypatch.setenv("TMUX_TMPDIR", str(folder))
        _end_server()
        shutil.rmtree(folder)


def _end_server() -> None:
    """Ends the server and all that was started in its windows."""
    panes = tmux("list-panes", "-a", "-F", "#{pane_pid}").split()
    server = tmux("display-message", "-p", "#{pid}").split()
    with contextlib.ExitStack() as stack:
        pidfds = {}
        for pid in {int(p) for p in server} | _with_children({int(p) for p in panes}):
            with contextlib.suppress(ProcessLookupError):
                pidfds[pid] = os.pidfd_open(pid)
                stack.callback(os.close, pidfds[pid])
        tmux("kill-server")
        for pidfd in pidfds.values():
            if not select.select([pidfd], [], [], TIMEOUT_S)[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                raise AssertionError("a process in a window of tmux did not end on SIGHUP")


def _with_children(pids: set[int]) -> set[int]:
    found = set(pids)
    for pid in pids:
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found |= _with_children({int(child) for child in listing.read_text().split()})
    return found
