"""Both ends of the slow link in threads of the test, a camera, and waiting for what they do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vampires.stream import Stream
from vampires.zmq_receiver import ReceiverConfig, ZmqReceiver
from vampires.zmq_sender import SenderConfig, ZmqSender
from vampires.zmq_socket import Endpoint

LOOPBACK = "127.0.0.1"
ANY_PORT = Endpoint(LOOPBACK, 0)
FAST = 1000.0  # frames/s: the rate is not what the test is about


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], timeout_s: float = 20.0
) -> Any:
    """The first true value of the condition; AssertionError when there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"waited in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.005)


def subscription_settles() -> None:
    """A sender hears of a subscription just after the connection, and nothing tells when."""
    time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


class Camera:
    """A stream whose frame n is full of n."""

    def __init__(
        self,
        name: str = "vcam1",
        shape: tuple[int, ...] = (6, 8),
        ring: int = 8,
        **options: Any,
    ) -> None:
        self.stream = Stream.create(
            name, shape, options.pop("dtype", np.uint16), ring=ring, **options
        )

    def write(self, frames: int = 1, **options: Any) -> int:
        """Publishes frames; returns the counter of the last."""
        for _ in range(frames):
            number = self.stream.cnt0 + 1
            frame = np.full(self.stream.shape, number).astype(self.stream.dtype)
            self.stream.write(frame, **options)
        return self.stream.cnt0

    @contextmanager
    def filming(self, interval_s: float = 0.02) -> Iterator[None]:
        """Publishes frames all the while, from a thread."""
        done = threading.Event()

        def film() -> None:
            while not done.wait(interval_s):
                self.write()

        thread = threading.Thread(target=film)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class End:
    """A sender or receiver that runs in a thread."""

    def __init__(self, end: Any, lines: list[str]) -> None:
        self.end = end
        self.lines = lines
        self._stop = threading.Event()
        self._thread = threading.Thread(target=end.run, args=(self._stop,))
        self._thread.start()

    def __getitem__(self, name: str) -> Any:
        return self.end.status()[name]

    def said(self, text: str) -> str:
        """Waits for a line with this text."""
        return wait_until(
            lambda: next((line for line in self.lines if text in line), ""),
            lambda: f"{text!r} in {self.lines}",
        )

    def reaches(self, **values: Any) -> None:
        """Waits until the status has these values."""
        wait_until(
            lambda: values.items() <= self.end.status().items(),
            lambda: f"{values} in {self.end.status()}, said {self.lines}",
        )

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.end.close()

    def __enter__(self) -> End:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def sending(stream: str = "vcam1", **options: Any) -> End:
    """A running sender of a stream."""
    lines: list[str] = []
    options = {"endpoint": ANY_PORT, "fps": FAST, **options}
    return End(ZmqSender(SenderConfig(stream, **options), say=lines.append), lines)


def receiving(
    endpoint: Endpoint, stream: str = "vcam1", name: str = "copy", **options: Any
) -> End:
    """A running receiver, into the stream `copy` if not named otherwise."""
    lines: list[str] = []
    config = ReceiverConfig(endpoint, stream, name, **options)
    return End(ZmqReceiver(config, say=lines.append), lines)


def connected(sender: End, **options: Any) -> End:
    """A running receiver that is connected to the sender."""
    receiver = receiving(sender.end.endpoint, **options)
    receiver.reaches(state="connected")
    wait_until(lambda: sender["connections"] >= 1, "the sender knows of it")
    subscription_settles()
    return receiver
