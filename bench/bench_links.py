"""The fast link: from shared memory to shared memory over the loopback, beside iperf3.

The two ends are two processes, with a stream folder each. iperf3 moves bytes from a buffer to
a buffer; the link moves frames from a camera's ring to the ring of the copy, and a witness
looks at every one of them. Both cores of a small machine are busy with that alone, so the pace
of the frames is that of the link where its speed is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from link_witness import content, mark

from vampires import _core
from vampires.stream import Stream

Record = Callable[[str, str, str, bool], None]
Unreachable = Callable[[str, str, str], None]
MBI = (1096, 2236)
MBI_REDUCED = (540, 2232)
STANDARD = (536, 536)
RING = 8
WITNESS = Path(__file__).with_name("link_witness.py")
IPERF_PORT = 45201


def iperf3_gb_per_s(seconds: int) -> float:
    """One TCP stream over the loopback with writes of 1 MiB, in GB/s."""
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "--forceflush", "-B", "127.0.0.1", "-p", str(IPERF_PORT)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            assert server.poll() is None, "iperf3 does not start"
        words = ["iperf3", "-c", "127.0.0.1", "-p", str(IPERF_PORT), "-l", "1M", "--json"]
        words += ["-t", str(seconds), "-O", "1"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        return float(json.loads(told.stdout)["end"]["sum_received"]["bits_per_second"]) / 8e9
    finally:
        server.terminate()
        server.communicate()


class NearEnd:
    """A camera's stream and the sending end of its link, in this process."""

    def __init__(self, folder: Path, shape: tuple[int, int], ring: int) -> None:
        self.camera = Stream.create(
            "vcam1",
            shape,
            np.uint16,
            ring=ring,
            keywords={"EXPTIME": (0.01, "[s]"), "_MAQTIME": (0, "[us]")},
            directory=folder,
        )
        self.ring = ring
        for slot in range(ring):
            self.camera.next_slot()[:] = content(slot, shape)
            self.publish()

    def publish(self) -> int:
        """One frame more, whose pixels are there already but for its marks."""
        mark(self.camera.next_slot(), self.camera.cnt0 + 1)
        now_ns = time.time_ns()
        return self.camera.publish(now_ns, {"_MAQTIME": now_ns // 1000})

    def publish_as_sent(self, link: Any, last: int) -> None:
        """As fast as the link takes them, so that none is lost."""
        while self.camera.cnt0 < last:
            if self.camera.cnt0 - link.status()["cnt0"] < self.ring - 3:
                self.publish()
            else:
                time.sleep(400e-6)

    def publish_at(self, rate_hz: float, last: int) -> None:
        """At an exact rate, whatever the link does."""
        start_ns = time.time_ns()
        begun = self.camera.cnt0
        while self.camera.cnt0 < last:
            due_ns = start_ns + round((self.camera.cnt0 - begun) * 1e9 / rate_hz)
            _core.sleep_until_ns(due_ns)
            self.publish()


@contextmanager
def witness(folder: Path, last: int) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
    """The far end. Yields its port, and what tells what it saw once it has ended."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, str(WITNESS), str(folder), "vcam1", str(last)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ,
    )
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield port, lambda: json.loads(process.communicate(timeout=120)[0])
    finally:
        process.kill()
        process.communicate()


def over_the_link(
    memory_dir: Path,
    shape: tuple[int, int],
    frames: int,
    rate_hz: float | None = None,
    ring: int = RING,
) -> dict[str, Any]:
    """What the witness saw of so many frames; rate_hz None: at the pace of the link."""
    near = memory_dir / "near"
    near.mkdir(exist_ok=True)
    end = NearEnd(near, shape, ring)
    last = end.camera.cnt0 + frames
    with witness(memory_dir / "far", last) as (port, told):
        link = _core.TcpSender(str(near), "vcam1", "127.0.0.1", port)
        link.start()
        try:
            while link.status()["frames"] < 1:
                time.sleep(0.01)
            if rate_hz is None:
                end.publish_as_sent(link, last)
            else:
                end.publish_at(rate_hz, last)
            seen = told()
        finally:
            link.stop()
    end.camera.remove()
    Stream.open("vcam1", directory=memory_dir / "far").remove()
    return {**seen, "near": link.status()}


def assert_right(seen: dict[str, Any]) -> None:
    """Nothing mixed, nothing mislabelled, and losses told by both ends alike."""
    assert seen["wrong"] == 0, seen
    assert seen["ring_wrong"] == 0, seen
    assert seen["lost"] == seen["link"]["lost"], seen


def test_frames_as_fast_as_the_link(memory_dir: Path, record: Record) -> None:
    """MBI frames, none lost, every one looked at."""
    frame_gb = MBI[0] * MBI[1] * 2 / 1e9
    plain, linked = [iperf3_gb_per_s(4)], []
    for _ in range(3):
        seen = over_the_link(memory_dir, MBI, 3000)
        assert_right(seen)
        assert seen["lost"] == 0, seen
        linked.append((seen["frames"] - 1) * frame_gb / seen["seconds"])
        plain.append(iperf3_gb_per_s(4))
    ratio = statistics.median(linked) / statistics.median(plain)
    record(
        "TCP link, MBI frames, shm to shm, beside iperf3 -l 1M",
        "at least 0.9 x",
        f"{ratio:.2f} x ({statistics.median(linked):.2f} of "
        f"{statistics.median(plain):.2f} GB/s)",
        ratio >= 0.9,
    )


def test_twelve_hundred_megabytes_a_second(
    memory_dir: Path, record: Record, unreachable: Unreachable
) -> None:
    """MBI_REDUCED at 500 Hz for 30 s."""
    what, asked = "TCP link, 2232 x 540 at 500 Hz (1.2 GB/s) for 30 s", "0 lost"
    plain = iperf3_gb_per_s(4)
    if plain < 1.5 * 1.2:
        unreachable(what, asked, f"iperf3 shows {plain:.2f} GB/s, 1.8 are needed")
        return
    seen = over_the_link(memory_dir, MBI_REDUCED, 15000, 500.0, ring=64)
    assert_right(seen)
    record(what, asked, f"{seen['lost']} of {seen['frames']} lost", seen["lost"] == 0)


def test_added_latency(memory_dir: Path, record: Record) -> None:
    """Publish to publish, at 500 Hz."""
    seen = over_the_link(memory_dir, STANDARD, 5000, 500.0, ring=64)
    assert_right(seen)
    p50, p99 = seen["delay_p50_us"], seen["delay_p99_us"]
    record(
        "TCP link, added latency, 536 x 536 at 500 Hz",
        "p99 below 2000 us",
        f"p50 {p50:.0f} us, p99 {p99:.0f} us, {seen['lost']} lost",
        p99 < 2000,
    )
