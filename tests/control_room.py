"""An observatory for one test: cameras, a configuration, tmux, and the observer's commands.

with control_room(shm_dir, start_command) as room:
    room.add_camera("vcam1")
    room.ok("preplog", "--yes")

Its tmux server, home directory and data are its own; all of it has ended afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cube_checks import Cube, check_cubes, hidden_files
from logger_process import PATIENCE_S, RING_FRAMES, Camera

from vampires import process_id, tmux
from vampires.fps import FPS, list_fps
from vampires.logger_control import LoggerState, look

RATE_HZ = 200.0
COMMAND_DIR = Path(sys.executable).parent

CONFIG = """\
[hosts.here]
address = "local"

[cameras.vcam1]
number = 1
host = "here"

[cameras.vcam2]
number = 2
host = "here"

[cameras.vpupcam]
host = "here"
logged = false

[logging]
directory = "{folder}/data"
archive_directory = "{folder}/archive"
ring_memory = "16MiB"
start_lead_s = 0.05
"""


class Trigger(threading.Thread):
    """Has all cameras take a frame at the same time, again and again, until told to stop."""

    def __init__(self, cameras: Sequence[Camera], rate_hz: float) -> None:
        super().__init__(daemon=True)
        self._cameras = cameras
        self._period_ns = round(1e9 / rate_hz)
        self._stop_asked = threading.Event()

    def run(self) -> None:
        due_ns = time.time_ns() + self._period_ns
        while not self._stop_asked.wait(max(0, due_ns - time.time_ns()) / 1e9):
            for camera in self._cameras:
                camera.send(1, acquired_ns=due_ns)
            due_ns += self._period_ns

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


class ControlRoom:
    """What `control_room` gives. Commands run in processes of their own, as typed."""

    def __init__(self, shm_dir: Path, folder: Path, start_command: Callable[..., Any]) -> None:
        self.shm_dir = shm_dir
        self.folder = folder
        self.cameras: dict[str, Camera] = {}
        self._start_command = start_command
        self._triggers: list[Trigger] = []

    @property
    def config(self) -> Path:
        """The file of the configuration."""
        return self.folder / "config.toml"

    @property
    def data(self) -> Path:
        """Where the files go by default."""
        return self.folder / "data"

    # -- cameras ------------------------------------------------------------------------------

    def add_camera(self, name: str, ring: int = RING_FRAMES, **options: Any) -> Camera:
        """A camera that takes frames when told to, or triggered."""
        keywords = {"FRATE": (RATE_HZ, "[Hz]"), "DATA-TYP": ("TEST", ""), "_MAQTIME": (0, "us")}
        self.cameras[name] = Camera(name, ring=ring, **{"keywords": keywords, **options})
        return self.cameras[name]

    def add_cameras(self) -> list[Camera]:
        """vcam1 and vcam2."""
        return [self.add_camera(name) for name in ("vcam1", "vcam2")]

    def trigger(self, *names: str, rate_hz: float = RATE_HZ) -> Trigger:
        """From now on these cameras (all) take frames together."""
        cameras = [self.cameras[name] for name in names or self.cameras]
        trigger = Trigger(cameras, rate_hz)
        trigger.start()
        self._triggers.append(trigger)
        return trigger

    # -- commands -----------------------------------------------------------------------------

    def start(self, command: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Starts vampires_COMMAND."""
        process: subprocess.Popen[str] = self._start_command(command, *arguments, **options)
        return process

    def run(
        self, command: str, *arguments: object, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs vampires_COMMAND."""
        process = self.start(command, *arguments, **options)
        out, err = process.communicate(timeout=2 * PATIENCE_S)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(self, command: str, *arguments: object, **options: Any) -> str:
        """Runs a command that succeeds; what it printed."""
        done = self.run(command, *arguments, **options)
        assert done.returncode == 0, done
        return str(done.stdout)

    def answers(self, command: str, *arguments: object, status: int = 0) -> dict[str, Any]:
        """Runs a command with --json; the answer of each camera."""
        done = self.run(command, "--json", *arguments)
        assert done.returncode == status, done
        return {answer["camera"]: answer for answer in json.loads(done.stdout)["cameras"]}

    # -- loggers ------------------------------------------------------------------------------

    def look(self, name: str = "vcam1") -> LoggerState:
        """The state of a logger."""
        return look(name, self.shm_dir)

    def wait(self, happened: Callable[[], object], what: str = "") -> None:
        """Until it has happened, in shared memory, where nothing wakes who waits."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, f"it did not happen: {what}"
            time.sleep(0.005)

    def wait_frames(self, frames: int, name: str = "vcam1") -> None:
        """Until so many frames of the present saving were taken."""
        self.wait(lambda: self.look(name).frames >= frames, f"{frames} frames of {name}")

    def files(self, name: str = "vcam1") -> list[str]:
        """The files of a camera, oldest first."""
        return sorted(str(file) for file in self.folder.rglob(f"{name}_*.fits"))

    def cubes(self, name: str = "vcam1") -> list[Cube]:
        """The cubes of a camera, after every check of each there is."""
        assert not [file for file in hidden_files(self.data) if f"/.{name}_" in file]
        pool = self.cameras[name].pool
        return [cube for file in self.files(name) for cube in check_cubes([file], pool)]

    # -- end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends everything, and waits for that."""
        for trigger in self._triggers:
            trigger.stop()
        processes = _recorded_processes(self.shm_dir)
        with contextlib.suppress(OSError):
            subprocess.run(["tmux", "kill-server"], capture_output=True, check=False)
        for pid, started_ns in processes:
            if not process_id.wait_for_end(pid, started_ns, PATIENCE_S):
                process_id.send_signal(pid, started_ns, 9)
        for camera in self.cameras.values():
            camera.stream.close()


def _recorded_processes(shm_dir: Path) -> list[tuple[int, int]]:
    found = []
    for name in list_fps(shm_dir):
        with contextlib.suppress(Exception), FPS.open(name, shm_dir) as fps:
            header = fps.header()
            found += [
                (header.confpid, header.conf_start_ns),
                (header.runpid, header.run_start_ns),
            ]
    return [(pid, start) for pid, start in found if pid not in (0, os.getpid())]


@contextlib.contextmanager
def control_room(
    shm_dir: Path,
    start_command: Callable[..., Any],
    monkeypatch: Any,
) -> Iterator[ControlRoom]:
    """A control room, in whose environment this process and those it starts are."""
    # Sockets and directories of parameters have short names.
    folder = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    for name in ("tmux", "home"):
        (folder / name).mkdir(mode=0o700)
    room = ControlRoom(shm_dir, folder, start_command)
    room.config.write_text(CONFIG.format(folder=folder))
    monkeypatch.setenv("TMUX_TMPDIR", str(folder / "tmux"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("VAMPIRES_CONFIG", str(room.config))
    for name in ("TMUX", "XDG_CONFIG_HOME", "MILK_PROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield room
    finally:
        room.close()
        shutil.rmtree(folder)


def tmux_sessions() -> set[str]:
    """Names of the sessions of the control room."""
    return {pane.session for pane in tmux.panes()}


def path_without(program: str, folder: Path) -> str:
    """A PATH where everything is that is on the present one, but not this program."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for file in Path(place).glob("*"):
            if file.name != program and not (folder / file.name).is_symlink():
                (folder / file.name).symlink_to(file)
    return str(folder)
