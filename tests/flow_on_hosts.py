"""Cameras on one host, the observer on another, the real-time computer a third: for one test.

with flow_on_hosts(tmp_path, CONFIG) as flow:
    flow.sonne.run("camstart", "vcam1")
    flow.next_frames(flow.scexao6, "vcam1", 10)

Where no namespaces can be made, the three are one and the same machine, without links: `far` is
False then, and what goes between machines is not there to be tested.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_room import COMMAND_DIR, FlowRoom, flow_room
from missing_rights import must_run_all
from private_tmux import tmux
from three_hosts import CannotMakeHosts, Host, three_hosts

from vampires.fps import FPSError
from vampires.fps_control import Light
from vampires.logger_control import LoggerState, look
from vampires.run_folder import RunFolder
from vampires.stream import FrameInfo, Stream, StreamError

PATIENCE_S = 60.0
POLL_S = 0.02
READ_S = 3.0  # for a frame, before the stream is looked for again


@dataclass
class OneHost:
    """This machine, with the same face as a host of three."""

    room: FlowRoom
    name: str = "here"
    address: str = "127.0.0.1"
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def shm_dir(self) -> Path:
        return self.room.shm_dir

    @property
    def home(self) -> Path:
        return self.room.home

    def write_config(self, text: str) -> None:
        self.room.config.write_text(text)

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        options = {"stdin": null, "stdout": pipe, "stderr": pipe, **options}
        path = {"PATH": f"{COMMAND_DIR}:{os.environ['PATH']}"}
        process = subprocess.Popen(
            list(map(str, arguments)),
            cwd=self.home,
            env=os.environ | path,
            text=True,
            **options,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not check or done.returncode == 0, done
        return done

    def tmux(self, *arguments: object) -> str:
        return tmux(*map(str, arguments))

    def pids(self) -> set[int]:
        return set(self.room.processes())

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


AnyHost = Host | OneHost


class Flow:
    """What flow_on_hosts() gives."""

    def __init__(self, hosts: Mapping[str, AnyHost], *, far: bool) -> None:
        self.hosts = hosts
        self.far = far
        self._before = {host.name: host.pids() for host in hosts.values()}

    @property
    def scexao5(self) -> Any:
        """The camera computer."""
        return self.hosts["scexao5"]

    @property
    def scexao6(self) -> Any:
        """The real-time computer."""
        return self.hosts["scexao6"]

    @property
    def sonne(self) -> Any:
        """The observer's computer."""
        return self.hosts["sonne"]

    def machines(self) -> list[Any]:
        """Each once."""
        return list({host.name: host for host in self.hosts.values()}.values())

    # -- parts --------------------------------------------------------------------------------

    def parts(self, host: AnyHost) -> dict[str, dict[str, Any]]:
        """What the supervisor of a host says of its parts, by session."""
        state = RunFolder(host.shm_dir).read("supervisor") or {}
        return {part["session"]: part for part in state.get("parts", [])}

    def runs(self, host: AnyHost, session: str, *, in_place_of: int = 0) -> bool:
        """Whether a part runs, and is not the process it was."""
        part = self.parts(host).get(session, {})
        runs = part.get("state") in ("running", "unsteady")
        return runs and part["pid"] not in (0, in_place_of)

    def status(self, host: AnyHost, name: str) -> dict[str, Any]:
        """What a process says of itself in the run folder; of a part, by its session."""
        return RunFolder(host.shm_dir).read(name) or {}

    def logger(self, name: str = "vcam1") -> LoggerState:
        return look(name, self.scexao5.shm_dir)

    def logger_runs(self, name: str = "vcam1", *, saving: bool) -> bool:
        """Whether both processes of a logger run, and frames are saved, or not."""
        state = self.logger(name)
        _, conf, run = state.lights  # the first is of tmux, which is another here
        return {conf, run} == {Light.ALIVE.value} and state.saving == saving

    def wait_logged(self, frames: int, name: str = "vcam1") -> None:
        """Until so many more frames are saved."""
        goal = self.logger(name).frames + frames
        self.wait(lambda: self.logger(name).frames >= goal, f"{name}: {frames} frames saved")

    def cubes(self, name: str) -> list[Path]:
        """The files of a camera, the first first."""
        return sorted((self.scexao5.home / "data").rglob(f"{name}_*.fits"))

    # -- streams ------------------------------------------------------------------------------

    def next_frames(
        self, host: AnyHost, name: str, frames: int, shape: tuple[int, int] | None = None
    ) -> list[tuple[np.ndarray, FrameInfo]]:
        """Frames that come from now on, one after the other, all of one making of the stream.
        shape: of the stream that is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, f"no {frames} frames of {name}\n{self.logs()}"
            with (
                contextlib.suppress(StreamError, TimeoutError),
                Stream.open(name, directory=str(host.shm_dir)) as stream,
            ):
                if shape in (None, stream.shape):
                    return [stream.read(timeout=READ_S) for _ in range(frames)]
            time.sleep(POLL_S)

    def newest(self, host: AnyHost, name: str) -> np.ndarray:
        """The newest frame of a stream that may still be made."""
        found: list[np.ndarray] = []

        def there() -> bool:
            with (
                contextlib.suppress(StreamError, TimeoutError),
                Stream.open(name, directory=str(host.shm_dir)) as stream,
            ):
                found[:] = [stream.latest()[0]] if stream.cnt0 else []
            return bool(found)

        self.wait(there, f"a frame of {name} on {host.name}")
        return found[0]

    # -- waiting ------------------------------------------------------------------------------

    def wait(self, happened: Callable[[], object], what: str) -> None:
        """Until it has happened, in files, where nothing wakes who waits."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, f"it did not happen: {what}\n{self.logs()}"
            time.sleep(POLL_S)

    def logs(self) -> str:
        """What the supervisors have written."""
        texts = []
        for host in self.machines():
            file = RunFolder(host.shm_dir).path / "supervisor.log"
            texts.append(f"{host.name}:\n{file.read_text() if file.exists() else ''}")
        with contextlib.suppress(FPSError):
            texts.append(str(self.logger()))
        return "\n".join(texts)

    def stop(self) -> None:
        """camstop all, after which nothing of it runs on any host."""
        self.sonne.run("camstop", "all")
        for host in self.machines():
            assert host.tmux("list-sessions") == ""
            before = self._before[host.name] | {process.pid for process in host.processes}
            self.wait(
                lambda host=host, before=before: host.pids() <= before,
                f"all has ended on {host.name}",
            )


@contextlib.contextmanager
def flow_on_hosts(tmp_path: Path, say: Callable[[str], None]) -> Iterator[Flow]:
    """Three hosts, or one and a word why. say: is told that."""
    with contextlib.ExitStack() as stack:
        try:
            three = stack.enter_context(three_hosts(tmp_path))
        except CannotMakeHosts as error:
            must_run_all(f"no namespaces here: {error}")
            say(f"no namespaces here ({error}): the one-host form runs, without links")
            yield stack.enter_context(_flow_on_one_host())
        else:
            yield Flow(three, far=True)


@contextlib.contextmanager
def _flow_on_one_host() -> Iterator[Flow]:
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="vampires-test-", dir=parent)
        shm_dir = Path(stack.enter_context(folder))
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        monkeypatch.setenv("MILK_SHM_DIR", str(shm_dir))
        one = OneHost(stack.enter_context(flow_room(shm_dir, monkeypatch)))
        stack.callback(one.end)
        yield Flow(dict.fromkeys(("scexao5", "scexao6", "sonne"), one), far=False)
