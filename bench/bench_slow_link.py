"""The slow link: its pace, its load, and how fresh its frames are.

A simulated camera, vampires-zmq-send and a subscriber, each a process of its own.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from missing_rights import cannot_run
from network_namespaces import CannotMakeHosts, NamespaceHost, two_hosts
from processes import camera

from vampires import frame_stamp, simulated_sky, subscribe
from vampires.subscription import SubscribedFrame

Record = Callable[[str, str, str, bool], None]
Frames = list[tuple[np.ndarray, SubscribedFrame]]
PERIOD_S = 0.05
PORT = 45211
_TICKS = os.sysconf("SC_CLK_TCK")


class Link:
    """One end of the link as a process with --json, and its newest status."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.put(json.loads(line))

    def status(self) -> dict[str, Any]:
        """The newest; waits for one that is told from now on."""
        while not self.told.empty():
            self.told.get()
        return self.told.get(timeout=10)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS

    def resident_mb(self) -> float:
        """Resident memory, without the camera's ring: the most within a second, since a frame
        takes some while it is compressed."""
        return max(self._resident_mb(pause_s) for pause_s in [0.02] * 50)

    def _resident_mb(self, pause_s: float) -> float:
        time.sleep(pause_s)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["RssAnon"].split()[0]) / 1024


@contextmanager
def link_process(command: list[str], folder: Path, **options: Any) -> Iterator[Link]:
    """A command of the link that has said something already."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, **options
    )
    try:
        link = Link(process)
        link.status()
        yield link
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=20)


def end_of_link(name: str, *arguments: object) -> list[str]:
    """The command line of zmq_send or zmq_recv."""
    module = f"vampires.commands.{name}"
    return [sys.executable, "-m", module, *map(str, arguments), "--json"]


@contextmanager
def sending(shm_dir: Path, *options: object) -> Iterator[Link]:
    """A simulated camera and vampires-zmq-send."""
    with ExitStack() as stack:
        stack.enter_context(camera(shm_dir, "vcam1", *options))
        words = end_of_link("zmq_send", "vcam1", "--bind", f"tcp://127.0.0.1:{PORT}")
        yield stack.enter_context(link_process(words, shm_dir))


def received(seconds: float, pause_s: float = 0.0) -> Frames:
    """What subscribe() gives; pause_s: what the script does with each frame takes so long."""
    frames: Frames = []
    with subscribe(f"tcp://127.0.0.1:{PORT}", "vcam1", timeout=10) as frames_there:
        next(frames_there)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frames.append(next(frames_there))
            time.sleep(pause_s)
    return frames


@pytest.mark.parametrize("source_hz", [25, 57, 500, 2000])
def test_twenty_frames_a_second(shm_dir: Path, record: Record, source_hz: int) -> None:
    """Whatever the camera does."""
    size = ("--shape", 128, 128, "--pattern", "counter", "--fps", source_hz)
    with sending(shm_dir, *size):
        sent_s = np.array([info.sent_ns for _, info in received(20.5)]) / 1e9
    sent_s = sent_s[sent_s <= sent_s[0] + 20.0 + PERIOD_S / 2]
    intervals_s = np.diff(sent_s)
    fps = len(intervals_s) / (sent_s[-1] - sent_s[0])
    worst = float(np.abs(intervals_s / PERIOD_S - 1).max())
    even = float((np.abs(intervals_s / PERIOD_S - 1) <= 0.1).mean())
    record(
        f"ZMQ link, camera at {source_hz} Hz",
        "20.0 +- 0.1 FPS, intervals within 10 %",
        f"{fps:.2f} FPS, worst interval off by {100 * worst:.1f} % "
        f"({100 * even:.1f} % of them within 10 %)",
        abs(fps - 20.0) <= 0.1 and worst <= 0.1,
    )


def test_multiband_frames(shm_dir: Path, record: Record) -> None:
    """MBI at 57 Hz: bits and CPU, and every pixel of what came."""
    with sending(shm_dir, "--mode", "MBI", "--fps", 57) as link:
        received(3)
        begun, used, bits = time.monotonic(), link.cpu_s(), link.status()["bytes"] * 8
        frames = received(15)[::10]
        spent_s = time.monotonic() - begun
        cores = (link.cpu_s() - used) / spent_s
        mbit_per_s = (link.status()["bytes"] * 8 - bits) / spent_s / 1e6
    pool = simulated_sky.frame_pool("sky", "MBI", 1, "uint16", 0)
    for frame, info in frames:
        assert np.array_equal(frame, frame_stamp.expected_frame(pool, info.cnt0))
    record(
        "ZMQ link, MBI frames at 20 FPS",
        "under 500 Mbit/s, at most 0.35 core",
        f"{mbit_per_s:.0f} Mbit/s, {cores:.2f} core, {len(frames)} frames compared",
        mbit_per_s < 500 and cores <= 0.35,
    )


def test_a_slow_script_gets_fresh_frames(shm_dir: Path, record: Record) -> None:
    """200 ms a frame."""
    behind = []
    with (
        sending(shm_dir, "--mode", "MBI", "--fps", 57),
        subscribe(f"tcp://127.0.0.1:{PORT}", "vcam1", timeout=10) as frames,
    ):
        for _, info in frames:
            behind.append((time.time_ns() - info.sent_ns) / 1e9 / PERIOD_S)
            if len(behind) == 75:
                break
            time.sleep(0.2)
    worst = max(behind[5:])
    record(
        "ZMQ link, a receiver that takes 200 ms a frame",
        "at most two frames behind",
        f"worst {worst:.2f} frames, median {np.median(behind[5:]):.2f}",
        worst <= 2.0,
    )


def test_memory_of_a_sender_whose_subscriber_stopped(shm_dir: Path, record: Record) -> None:
    """A receiver that is held up for a minute."""
    copy = shm_dir / "copy"
    copy.mkdir()
    words = end_of_link("zmq_recv", f"tcp://127.0.0.1:{PORT}", "vcam1")
    environment = os.environ | {"MILK_SHM_DIR": str(copy)}
    with (
        sending(shm_dir, "--mode", "MBI", "--fps", 57) as sender,
        link_process(words, copy, env=environment) as receiver,
    ):
        while receiver.status()["frames"] < 40:
            pass
        receiver.process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        before = sender.resident_mb()
        time.sleep(60)
        after = sender.resident_mb()
        receiver.process.send_signal(signal.SIGCONT)
        while receiver.status()["age_ms"] > 1000 * PERIOD_S * 2:
            pass
    record(
        "ZMQ link, sender's memory while a subscriber is stopped for 60 s",
        "flat",
        f"{before:.1f} MB, then {after:.1f} MB",
        after - before < 1.0,
    )


def _far_status(near: NamespaceHost, far: NamespaceHost, stack: ExitStack) -> dict[str, Any]:
    environment = near.environment()
    options = ("vcam1", "--mode", "MBI", "--fps", 57)
    stack.enter_context(camera(near.folder, *options))
    address = f"tcp://{near.address}:{PORT}"
    sender = end_of_link("zmq_send", "vcam1", "--bind", address, "--allow", far.address)
    receiver = end_of_link("zmq_recv", address, "vcam1")
    stack.enter_context(link_process(near.command(*sender), near.folder, env=environment))
    link = stack.enter_context(
        link_process(far.command(*receiver), far.folder, env=far.environment())
    )
    while link.status()["frames"] < 40:
        pass
    first, begun = link.status(), time.monotonic()
    ages = []
    while time.monotonic() - begun < 20:
        ages.append(link.status()["age_ms"])
    last, seconds = link.status(), time.monotonic() - begun
    return {
        "fps": (last["frames"] - first["frames"]) / seconds,
        "dropped": last["dropped_by_network"] - first["dropped_by_network"],
        "age_ms": max(ages),
        "mbit_per_s": (last["bytes"] - first["bytes"]) * 8e-6 / seconds,
    }


def test_a_link_of_five_hundred_megabits(record: Record) -> None:
    """Two network namespaces, and a token bucket between them."""
    try:
        with two_hosts() as (near, far), ExitStack() as stack:
            near.limit_mbit_per_s(500)
            seen = _far_status(near, far, stack)
    except CannotMakeHosts as error:
        cannot_run(f"no two hosts: {error}")
    record(
        "ZMQ link, MBI over a cable of 500 Mbit/s",
        "20.0 FPS, no queue",
        f"{seen['fps']:.2f} FPS, {seen['mbit_per_s']:.0f} Mbit/s, {seen['dropped']} dropped, "
        f"oldest frame {seen['age_ms']:.0f} ms",
        abs(seen["fps"] - 20.0) <= 0.1 and seen["age_ms"] < 100,
    )
