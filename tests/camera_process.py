"""Processes of cameras (vampires-fgrab) for one test, with a configuration of their own.

with camera_processes(start_command, tmp_path, monkeypatch) as cameras:
    cam = cameras.start("small")
    cam.set_tint(0.01)

All of them have ended afterwards.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from vampires.camera import Camera
from vampires.camera.server import status_name
from vampires.flow.supervisor import LOCK as SUPERVISOR_LOCK
from vampires.run_folder import RunFolder
from vampires.stream import Stream, StreamError
from vampires.toml_text import toml_text

PATIENCE_S = 30.0  # for what must happen at once, on a machine that is busy
SMALL = (64, 96)
"""[ny, nx] of the camera "small"."""

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str) -> T:
    """The first true value of the condition; nothing wakes who waits in shared memory."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def packaged_tables() -> dict[str, Any]:
    """A configuration: vcam1, vcam2, and the camera "small", which has no number."""
    return {
        "hosts": {"here": {"address": "local"}},
        "cameras": {
            "vcam1": {"number": 1, "host": "here", "mode": "ONEARC", "fps": 100.0},
            "vcam2": {"number": 2, "host": "here", "mode": "ONEARC", "fps": 100.0},
            "small": {
                "host": "here",
                "logged": False,
                "fps": 100.0,
                "sim": {"sensor": list(SMALL), "ring": 256},
            },
        },
    }


class CameraProcesses:
    """What `camera_processes` gives."""

    def __init__(self, start_command: Callable[..., Any], config: Path) -> None:
        self.config = config
        self.tables = packaged_tables()
        self.processes: list[subprocess.Popen[str]] = []
        self._start_command = start_command
        self.write_config()

    @property
    def run_folder(self) -> RunFolder:
        return RunFolder()

    def write_config(self, **small: Any) -> None:
        """Writes the configuration; small: lines of the camera of that name."""
        self.tables["cameras"]["small"] |= small
        self.config.write_text(toml_text(self.tables))

    def begin(self, name: str, *arguments: object) -> subprocess.Popen[str]:
        """Starts the process, and waits for nothing."""
        process: subprocess.Popen[str] = self._start_command("fgrab", name, *arguments)
        self.processes.append(process)
        return process

    def start(self, name: str = "small", *arguments: object) -> Camera:
        """A camera that gives frames."""
        process = self.begin(name, *arguments)

        def runs() -> bool:
            assert process.poll() is None, process.communicate()
            status = self.status(name)
            ours = status.get("pid") == process.pid
            return ours and status["state"] == "running" and status["frames"] > 0

        wait_until(runs, f"frames of {name}")
        return Camera(name)

    def status(self, name: str = "small") -> dict[str, Any]:
        """The status file of a camera."""
        return self.run_folder.read(status_name(name)) or {}

    def wait_state(self, state: str, name: str = "small") -> dict[str, Any]:
        """Waits until the status file says so; what it says."""
        return wait_until(
            lambda: status if (status := self.status(name)).get("state") == state else {},
            f"{name} to be {state}",
        )

    def end(self) -> None:
        """Ends all, as camstop does."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)


@contextlib.contextmanager
def camera_processes(
    start_command: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CameraProcesses]:
    """In whose environment this process and those it starts are."""
    cameras = CameraProcesses(start_command, folder / "config.toml")
    monkeypatch.setenv("VAMPIRES_CONFIG", str(cameras.config))
    # Cameras of a generation start a supervisor where there is none; here is one.
    with cameras.run_folder.make().locked(SUPERVISOR_LOCK):
        try:
            yield cameras
        finally:
            cameras.end()


def keywords_of(name: str = "small") -> dict[str, Any]:
    """The keywords of a stream; none while it is made anew."""
    with contextlib.suppress(StreamError), Stream.open(name) as stream:
        return dict(stream.keywords)
    return {}


def wait_keyword(key: str, value: object, name: str = "small") -> None:
    """Waits until a stream has the keyword with that value."""
    wait_until(lambda: keywords_of(name).get(key) == value, f"{key} of {name} to be {value!r}")


def frames_come(name: str = "small", frames: int = 3) -> None:
    """Reads frames that are published after now."""
    with Stream.open(name) as stream:
        for _ in range(frames):
            stream.read(PATIENCE_S)
