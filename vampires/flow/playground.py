"""Cameras of one's own, on this machine: for demonstrations and measurements.

Streams, tmux server, configuration and home directory are its own, so nothing of a running
instrument is touched. All of it ends with the process that made it, whatever ends that: a
guardian waits for that end, at the other side of a pipe, and does the clearing up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMORY = Path("/dev/shm")
_STOP_S = 60.0


class PlaygroundError(Exception):
    """A command did not do as asked; its reason, one line."""


@dataclass(frozen=True)
class Playground:
    """What `playground` gives. environment: of commands in it."""

    shm_dir: Path
    folder: Path
    environment: dict[str, str]

    def run(self, module: str, *arguments: object) -> str:
        """Runs a command of ours, by its module; what it printed. Raises PlaygroundError."""
        done = subprocess.run(
            [sys.executable, "-m", f"vampires.commands.{module}", *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise PlaygroundError(lines[-1] if lines else f"{module} failed")
        return done.stdout


@contextlib.contextmanager
def playground(config: str, prefix: str) -> Iterator[Playground]:
    """Makes one with a configuration (TOML), and clears it away at the end, all processes in it
    included. prefix: of the names of its folders."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    shm_dir = Path(tempfile.mkdtemp(prefix=prefix, dir=memory))
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    (folder / "tmux").mkdir(mode=0o700)
    (folder / "config.toml").write_text(config)
    environment = os.environ | {
        "MILK_SHM_DIR": str(shm_dir),
        "VAMPIRES_CONFIG": str(folder / "config.toml"),
        "TMUX_TMPDIR": str(folder / "tmux"),
        "HOME": str(folder),
        "SHELL": "/bin/sh",
    }
    for name in ("TMUX", "XDG_CONFIG_HOME", "MILK_PROC_DIR"):
        environment.pop(name, None)
    guardian = subprocess.Popen(
        [sys.executable, "-m", "vampires.flow.playground", str(shm_dir), str(folder)],
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for who made it
    )
    try:
        yield Playground(shm_dir, folder, environment)
    finally:
        assert guardian.stdin is not None
        guardian.stdin.close()
        guardian.wait()


def _guard(shm_dir: Path, folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    command = [sys.executable, "-m", "vampires.commands.camstop", "all"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=folder, timeout=_STOP_S, check=False, **quiet)  # type: ignore[call-overload]
    subprocess.run(["tmux", "kill-server"], check=False, **quiet)  # type: ignore[call-overload]
    for _ in range(3):  # one of those may just have started another
        for pid in processes_of(shm_dir):
            _end(pid)
    for place in (shm_dir, folder):
        shutil.rmtree(place, ignore_errors=True)


def processes_of(shm_dir: Path) -> list[int]:
    """Processes of this user that were started with this stream folder, but this one: known by
    their environment, not by their names."""
    mark = f"MILK_SHM_DIR={shm_dir}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            pid = int(environment.parent.name)
            if pid != os.getpid() and mark in environment.read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _end(pid: int) -> None:
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), Path(sys.argv[2]))
