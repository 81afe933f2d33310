"""Cameras started with camstart, for one test: a configuration, tmux and streams of their own.

with flow_room(shm_dir, monkeypatch, config) as room:
    room.ok("camstart", "vcam1")

All that was started has ended afterwards, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from logger_process import PATIENCE_S
from private_tmux import private_tmux

from vampires.flow.playground import processes_of
from vampires.fps_control import Light
from vampires.logger_control import LoggerState, look
from vampires.run_folder import RunFolder

COMMAND_DIR = Path(sys.executable).parent
POLL_S = 0.02

CONFIG = """\
[hosts.here]
address = "local"

[cameras.vcam1]
number = 1
host = "here"
mode = "ONEARC"

[cameras.vcam2]
number = 2
host = "here"
mode = "ONEARC"

[cameras.vpupcam]
host = "here"
logged = false
sim = {{ sensor = [64, 96] }}

[logging]
directory = "{home}/data"
archive_directory = "{home}/archive"
ring_memory = "16MiB"
"""


class FlowRoom:
    """What `flow_room` gives. Commands run in processes of their own, as typed."""

    def __init__(self, shm_dir: Path, home: Path) -> None:
        self.shm_dir = shm_dir
        self.home = home
        self.run_folder = RunFolder(shm_dir)

    @property
    def config(self) -> Path:
        """The file of the configuration."""
        return self.home / "config.toml"

    @property
    def data(self) -> Path:
        """Where cubes go."""
        return self.home / "data"

    # -- commands -----------------------------------------------------------------------------

    def start(self, command: str, *arguments: object, **env: str) -> subprocess.Popen[str]:
        """Starts an installed command."""
        return subprocess.Popen(
            [str(COMMAND_DIR / command), *map(str, arguments)],
            cwd=self.home,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, command: str, *arguments: object, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs an installed command."""
        with self.start(command, *arguments, **env) as process:
            out, err = process.communicate(timeout=3 * PATIENCE_S)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(self, command: str, *arguments: object) -> str:
        """Runs a command that succeeds; what it printed."""
        done = self.run(command, *arguments)
        assert done.returncode == 0, done
        return str(done.stdout)

    def refused(self, command: str, *arguments: object, status: int = 2, **env: str) -> str:
        """Runs a command that does not do as asked; its one line of error."""
        done = self.run(command, *arguments, **env)
        assert done.returncode == status, done
        said = [line for line in done.stderr.splitlines() if line.startswith(f"{command}: ")]
        assert len(said) == 1, done
        return said[0].removeprefix(f"{command}: ")

    # -- what is ------------------------------------------------------------------------------

    def parts(self) -> dict[str, dict[str, Any]]:
        """The parts that camstatus shows, by session."""
        done = self.run("camstatus", "--local", "--json")
        return {part["session"]: part for part in json.loads(done.stdout)["parts"]}

    def process_of(self, part: str) -> int:
        """The process id of a part that runs."""
        found: list[int] = []

        def runs() -> bool:
            state = self.run_folder.read("supervisor") or {}
            told = {p["session"]: p for p in state.get("parts", [])}
            found[:] = [told.get(part, {}).get("pid", 0)]
            return found[0] > 0 and told[part]["state"] in ("running", "unsteady")

        self.wait(runs, f"{part} runs")
        return found[0]

    def camera(self, name: str = "vcam1") -> Mapping[str, Any]:
        """The status file of a camera's process."""
        return self.run_folder.read(f"{name}_fgrab") or {}

    def logger(self, name: str = "vcam1") -> LoggerState:
        """The state of a logger."""
        return look(name, self.shm_dir)

    def log(self) -> str:
        """What the supervisor has written."""
        file = self.run_folder.path / "supervisor.log"
        return file.read_text() if file.exists() else ""

    # -- waiting ------------------------------------------------------------------------------

    def wait(self, happened: Callable[[], object], what: str) -> None:
        """Until it has happened, in files, where nothing wakes who waits."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, f"it did not happen: {what}\n{self.log()}"
            time.sleep(POLL_S)

    def wait_frames(self, name: str = "vcam1", more: int = 5) -> None:
        """Until a camera that runs has given some more frames."""
        before = self.camera(name).get("time_ns", 0)

        def came() -> bool:
            now = self.camera(name)
            return now.get("time_ns", 0) > before and now.get("frames", 0) >= more

        self.wait(came, f"frames of {name}")

    def wait_logger(self, name: str = "vcam1", *, saving: bool = False) -> None:
        """Until a logger runs, and saves if asked."""

        def runs() -> bool:
            state = self.logger(name)
            return state.lights == (Light.ALIVE.value,) * 3 and state.saving == saving

        self.wait(runs, f"the logger of {name} runs")

    # -- end ----------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """All processes that were started with this stream folder, but this one."""
        return processes_of(self.shm_dir)

    def end(self) -> None:
        """Ends all that was started: the supervisors first, who would start it again."""
        for pid in sorted(self.processes(), key=lambda pid: not _supervises(pid)):
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], PATIENCE_S)
                except ProcessLookupError:
                    pass
                finally:
                    os.close(pidfd)


def _supervises(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"vampires.commands.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextlib.contextmanager
def flow_room(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch, config: str = CONFIG
) -> Iterator[FlowRoom]:
    """A room, in whose environment this process and those it starts are."""
    with private_tmux(monkeypatch) as home:
        room = FlowRoom(shm_dir, home)
        room.config.write_text(config.format(home=home))
        monkeypatch.setenv("VAMPIRES_CONFIG", str(room.config))
        for name in ("XDG_CONFIG_HOME", "MILK_PROC_DIR"):
            monkeypatch.delenv(name, raising=False)
        try:
            yield room
        finally:
            while room.processes():  # one may just have started another
                room.end()
