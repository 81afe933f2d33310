"""The far end of a fast link as a process: receives a stream and looks at every frame.

python link_witness.py FOLDER STREAM LAST_CNT0

Prints {"port": N} first, and at the frame LAST_CNT0, or after PATIENCE_S without a frame, what
it saw. Every frame carries its counter in the first pixel of each piece of STRIDE pixels, so
that a piece that is older or newer than the rest of its frame shows.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from vampires import _core
from vampires.stream import Stream, StreamError, StreamGone

STRIDE = 16384
PATIENCE_S = 5.0
LOOPBACK = (bytes(10) + b"\xff\xff\x7f\x00\x00\x01", 128)


def mark(frame: np.ndarray, cnt0: int) -> None:
    """Makes a frame that of this counter, in place."""
    frame.reshape(-1)[::STRIDE] = cnt0 & 0xFFFF


def is_marked(frame: np.ndarray, cnt0: int) -> bool:
    """Whether all pieces of a frame belong to this counter."""
    return bool((frame.reshape(-1)[::STRIDE] == cnt0 & 0xFFFF).all())


def content(slot: int, shape: tuple[int, int]) -> np.ndarray:
    """What else a frame in this slot of the ring holds: uint16 [y, x], noise around 200."""
    return np.random.default_rng(slot).poisson(200, shape).astype(np.uint16)


def opened(stream: str, folder: str) -> Stream:
    """The copy, as soon as it is there."""
    while True:
        try:
            return Stream.open(stream, directory=folder)
        except StreamError:
            time.sleep(0.001)


def look_at_ring(copy: Stream) -> int:
    """Slots that do not hold, pixel by pixel, what was sent."""
    wrong = 0
    for slot, frame in enumerate(copy.view()):
        expected = content(slot, frame.shape)
        expected.reshape(-1)[::STRIDE] = frame.flat[0]
        wrong += not np.array_equal(frame, expected)
    return wrong


def main(folder: str, stream: str, last: int) -> None:
    """Receives, looks, and prints."""
    link = _core.TcpReceiver(folder, "127.0.0.1", 0, [LOOPBACK])
    link.start()
    print(json.dumps({"port": link.port}), flush=True)
    seen = {"frames": 0, "lost": 0, "wrong": 0}
    first_ns = last_ns = 0
    delays_us = []
    copy = opened(stream, folder)
    try:
        while True:
            frame, info = copy.read(PATIENCE_S, copy=False)
            last_ns = time.monotonic_ns()
            first_ns = first_ns or last_ns
            seen["wrong"] += not is_marked(frame, info.cnt0)
            seen["frames"] += 1
            seen["lost"] += info.lost
            delays_us.append((info.written_ns - info.acquired_ns) / 1e3)
            if info.cnt0 >= last:
                break
    except (TimeoutError, StreamGone):
        pass
    link.stop()
    ring_wrong = look_at_ring(copy)
    skipped = len(delays_us) // 20  # while both ends warm up
    p50, p99 = np.percentile(delays_us[skipped:] or [0], [50, 99])
    told = link.status()
    seconds = (last_ns - first_ns) / 1e9
    print(
        json.dumps(
            {
                **seen,
                "ring_wrong": ring_wrong,
                "seconds": seconds,
                "delay_p50_us": p50,
                "delay_p99_us": p99,
                "link": told,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
