"""The data flow: how soon a camera gives frames, follows a mode, is back after a death, and
what all of it together takes of two cores.

All is real but the cameras: commands as typed, tmux, ssh, and three hosts in namespaces of this
machine, joined by a bridge. The baseline of a start is Python itself, starting and ending.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from missing_rights import cannot_run
from three_hosts import CannotMakeHosts, Host, Hosts, three_hosts

from vampires.flow.playground import playground
from vampires.logger_control import look
from vampires.run_folder import RunFolder
from vampires.stream import Stream, StreamError

Record = Callable[[str, str, str, bool], None]
ROUNDS = 5
FLOW_SECONDS = float(os.environ.get("VAMPIRES_FLOW_SECONDS", "300"))
POLL_S = 0.005
PATIENCE_S = 60.0
COMMAND_DIR = Path(sys.executable).parent

ONE_HOST = """\
[hosts.here]
address = "local"
[cameras.vcam1]
number = 1
host = "here"
[logging]
directory = "{directory}"
ring_memory = "512MiB"
"""

FLOW = """
[cameras.vcam1]
number = 1
host = "scexao5"
[cameras.vcam2]
number = 2
host = "scexao5"
[cameras.vpupcam]
host = "sonne"
logged = false
sim = { sensor = [1024, 1280] }
fps = 30.0

[links.vcam1_tcp]
stream = "vcam1"
kind = "tcp"
sender = "scexao5"
receiver = "scexao6"
port = 30107
[links.vcam2_tcp]
stream = "vcam2"
kind = "tcp"
sender = "scexao5"
receiver = "scexao6"
port = 30108
[links.vcam1_zmq]
stream = "vcam1"
kind = "zmq"
sender = "scexao5"
receiver = "sonne"
port = 5560
max_mbps = 250.0
[links.vcam2_zmq]
stream = "vcam2"
kind = "zmq"
sender = "scexao5"
receiver = "sonne"
port = 5561
max_mbps = 250.0
[links.vpupcam_zmq]
stream = "vpupcam"
kind = "zmq"
sender = "sonne"
receiver = "scexao6"
port = 5562

[logging]
directory = "{directory}"
ring_memory = "512MiB"
"""


def counter(name: str, shm_dir: Path, shape: tuple[int, int] | None = None) -> int:
    """cnt0 of a stream, of that shape; 0 while there is none."""
    try:
        with Stream.open(name, directory=shm_dir) as stream:
            return stream.cnt0 if shape in (None, stream.shape) else 0
    except (StreamError, OSError, ValueError):
        return 0


def seconds_until(happened: Callable[[], object], begun: float) -> float:
    while not happened():
        assert time.perf_counter() - begun < PATIENCE_S, "it did not happen"
        time.sleep(POLL_S)
    return time.perf_counter() - begun


def test_camstart_to_first_frame(record: Record, disk_dir: Path) -> None:
    """Typed on one host; MBI, simulated."""
    started, python = [], []
    with playground(ONE_HOST.format(directory=disk_dir), "vampires-bench-") as place:
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", ""], check=True)
            python.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            command = subprocess.Popen(
                [COMMAND_DIR / "camstart", "vcam1"],
                env=place.environment,
                cwd=place.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.append(seconds_until(lambda: counter("vcam1", place.shm_dir), begun))
            assert command.wait(PATIENCE_S) == 0
            place.run("camstop", "all")
    record(
        f"camstart vcam1 typed to first frame, worst of {ROUNDS}",
        "3 s",
        f"{max(started):.2f} s, median {statistics.median(started):.2f} s "
        f"(Python by itself {statistics.median(python):.3f} s)",
        max(started) <= 3.0,
    )


# -- three hosts ------------------------------------------------------------------------------


@pytest.fixture
def hosts(tmp_path: Path, disk_dir: Path) -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(three_hosts(tmp_path))
        except CannotMakeHosts as error:
            cannot_run(f"no namespaces here: {error}")
        made.write_config(made.config_tables() + FLOW.replace("{directory}", str(disk_dir)))
        yield made


def pid_of(host: Host, session: str) -> int:
    """The process of a part, 0 while it does not run."""
    state = RunFolder(host.shm_dir).read("supervisor") or {}
    parts = {part["session"]: part for part in state.get("parts", [])}
    return int(parts.get(session, {}).get("pid", 0))


def test_mode_change_reaches_the_far_stream(record: Record, hosts: Hosts) -> None:
    camera, far = hosts["scexao5"], hosts["scexao6"]
    hosts["sonne"].run("camstart", "vcam1", timeout=PATIENCE_S)
    shapes = {"MBI_REDUCED": (540, 2232), "MBI": (1096, 2236)}
    near_s, far_s = [], []
    for k in range(ROUNDS):
        mode, shape = list(shapes.items())[k % 2]
        begun = time.perf_counter()
        command = camera.start("set_crop", "-c", "1", mode)
        near_s.append(seconds_until(lambda s=shape: counter("vcam1", camera.shm_dir, s), begun))
        far_s.append(seconds_until(lambda s=shape: counter("vcam1", far.shm_dir, s), begun))
        command.communicate(timeout=PATIENCE_S)
    hosts["sonne"].run("camstop", "all", timeout=PATIENCE_S)
    for what, asked, measured in (
        ("mode change typed to its first frame", 2.0, near_s),
        ("the same, to the far stream's", 3.0, far_s),
    ):
        record(
            f"{what}, worst of {ROUNDS}",
            f"{asked:g} s",
            f"{max(measured):.2f} s, median {statistics.median(measured):.2f} s",
            max(measured) <= asked,
        )


def test_what_is_killed_is_back(record: Record, hosts: Hosts) -> None:
    """kill -9 until frames come again through what was killed."""
    camera, far, near = hosts["scexao5"], hosts["scexao6"], hosts["sonne"]
    near.run("camstart", "vcam1", "-m", "STANDARD", timeout=PATIENCE_S)
    ends = [
        ("source", camera, "vcam1_fgrab", camera),
        ("TCP sender", camera, "vcam1_tcp", far),
        ("TCP receiver", far, "vcam1_tcp", far),
        ("ZMQ sender", camera, "vcam1_zmq", near),
        ("ZMQ receiver", near, "vcam1_zmq", near),
    ]
    took = {}
    for what, host, session, at in ends:
        seconds_until(lambda at=at: counter("vcam1", at.shm_dir), time.perf_counter())
        seconds_until(lambda h=host, s=session: pid_of(h, s), time.perf_counter())
        killed = pid_of(host, session)
        os.kill(killed, signal.SIGKILL)
        begun = time.perf_counter()
        again = lambda h=host, s=session, k=killed: pid_of(h, s) not in (0, k)  # noqa: E731
        seconds_until(again, begun)
        before = counter("vcam1", at.shm_dir)
        moved = lambda at=at, b=before: counter("vcam1", at.shm_dir) not in (0, b)  # noqa: E731
        took[what] = seconds_until(moved, begun)
    near.run("camstop", "all", timeout=PATIENCE_S)
    worst = max(took, key=lambda what: took[what])
    record(
        "a killed source or link gives frames again",
        "2 s",
        f"worst {took[worst]:.2f} s ({worst}); "
        + ", ".join(f"{what} {seconds:.2f}" for what, seconds in took.items()),
        took[worst] <= 2.0,
    )


class Disk(threading.Thread):
    """Removes cubes that are complete, so that minutes of two cameras fit on a small disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(1.0):
            for camera in (1, 2):
                for file in sorted(self._folder.rglob(f"vcam{camera}_*.fits"))[:-4]:
                    file.unlink()

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def busy_seconds() -> tuple[float, float]:
    """CPU time of this machine so far: all that was not idle, and in all. s."""
    words = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    ticks = [int(word) for word in words]
    per_s = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / per_s, sum(ticks) / per_s


def test_whole_flow(record: Record, hosts: Hosts, disk_dir: Path) -> None:
    """Two cameras in MBI at 57 Hz, TCP and ZMQ links, the pupil camera, two loggers."""
    near = hosts["sonne"]
    for camera in ("vcam1", "vcam2", "vpupcam"):
        near.run("camstart", camera, timeout=PATIENCE_S)
    camera, far = hosts["scexao5"], hosts["scexao6"]
    near.run("vampires_startlog", timeout=PATIENCE_S)
    disk = Disk(disk_dir)
    disk.start()
    busy, whole = busy_seconds()
    before = {name: counter(name, far.shm_dir) for name in ("vcam1", "vcam2", "vpupcam")}
    slow = {name: _frames(near, f"{name}_zmq") for name in ("vcam1", "vcam2")}
    begun = time.perf_counter()
    threading.Event().wait(FLOW_SECONDS)
    seconds = time.perf_counter() - begun
    used = [now - then for now, then in zip(busy_seconds(), (busy, whole), strict=True)]
    share = used[0] / used[1]
    rates = {
        name: (counter(name, far.shm_dir) - count) / seconds for name, count in before.items()
    }
    slow_rates = {n: (_frames(near, f"{n}_zmq") - count) / seconds for n, count in slow.items()}
    states = [look(name, camera.shm_dir) for name in ("vcam1", "vcam2")]
    lost, frames = sum(s.lost for s in states), sum(s.frames for s in states)
    disk.stop()
    near.run("vampires_pauselog", timeout=PATIENCE_S)
    near.run("camstop", "all", timeout=PATIENCE_S)
    told = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    told_slow = ", ".join(f"{name} {rate:.1f}" for name, rate in slow_rates.items())
    record(
        f"whole flow for {seconds:.0f} s: frames lost in the logs",
        "0",
        f"{lost} of {frames}; at scexao6 {told} Hz, at sonne {told_slow} Hz",
        lost == 0 and frames > 0.98 * 2 * 57 * seconds,
    )
    record(
        "whole flow: share of both cores",
        "80 %",
        f"{100 * share:.0f} % of {os.cpu_count()} cores",
        share < 0.8,
    )


def _frames(host: Host, session: str) -> int:
    status: dict[str, Any] = RunFolder(host.shm_dir).read(session) or {}
    return int(status.get("frames", 0))
