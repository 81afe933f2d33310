"""Other ends of a TCP link, without vampires._core, and a network that misbehaves.

MilkSender and MilkReceiver do what milk's imnetwtransmit and imnetwreceive do, byte by byte:
384 bytes of metadata, then for each frame the pixels of one slice, cnt0, cnt1 and all keyword
slots. Nothing flows back. A Proxy between two ends delays, stalls and cuts.
"""

from __future__ import annotations

import collections
import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from foreign_stream import DTYPES, METADATA_BYTES, get_field, set_field, stream_bytes

LOOPBACK = "127.0.0.1"
KEYWORD_BYTES = 128
PATIENCE_S = 30.0  # for what must happen at once, on a machine that is busy
LOOK_S = 0.01
_READ_BYTES = 1 << 18
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the connection ends with a reset

# Fields that say which file, process and moment the bytes are from, not what they mean.
IDENTITY_FIELDS = ("inode", "creatorPID", "ownerPID")
IDENTITY_FIELDS += ("creationtime", "lastaccesstime", "atime", "writetime")


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Waits for a condition. AssertionError, which names it, when it takes too long."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:g} s for {what}"
        time.sleep(LOOK_S)


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


# -- the bytes ------------------------------------------------------------------------


class WireFrame(NamedTuple):
    """One frame as it was sent."""

    cnt0: int
    cnt1: int
    pixels: bytes
    keywords: bytes


def handshake(
    stream: str, shape: tuple[int, ...], /, keywords: int = 0, **options: object
) -> bytearray:
    """The 384 bytes that announce a stream; its shape is x, y, z.

    dtype, imagetype, version: of the stream. All other options are fields of the metadata, set
    afterwards to whatever the test wants a hostile peer to claim.
    """
    made = {
        key: options.pop(key) for key in ("dtype", "imagetype", "version") if key in options
    }
    raw = stream_bytes(stream, shape, keywords=keywords, **made)[:METADATA_BYTES]
    for field, value in options.items():
        set_field(raw, field, *(value if isinstance(value, tuple) else (value,)))
    return raw


def frame_bytes(
    pixels: npt.NDArray | bytes, cnt0: int, cnt1: int = 0, keywords: bytes = b""
) -> bytes:
    """One frame: pixels of one slice, the counters, all keyword slots."""
    raw = pixels if isinstance(pixels, bytes) else np.ascontiguousarray(pixels).tobytes()
    return raw + struct.pack("<2q", cnt0, cnt1) + keywords


def frames_of(capture: bytes) -> list[WireFrame]:
    """The whole frames of all that a sender sent on one connection."""
    size_x, size_y, _ = get_field(capture, "size")
    naxis, datatype = get_field(capture, "naxis")[0], get_field(capture, "datatype")[0]
    pixels = size_x * (size_y if naxis > 1 else 1)
    pixels *= np.dtype(DTYPES[datatype - 1]).itemsize
    keywords = KEYWORD_BYTES * get_field(capture, "NBkw")[0]
    whole = pixels + 16 + keywords
    frames = []
    for at in range(METADATA_BYTES, len(capture) - whole + 1, whole):
        cnt0, cnt1 = struct.unpack_from("<2q", capture, at + pixels)
        raw = bytes(capture[at : at + whole])
        frames.append(WireFrame(cnt0, cnt1, raw[:pixels], raw[pixels + 16 :]))
    return frames


def without_identity(metadata: bytes) -> bytes:
    """A handshake with the fields zeroed that name a file, a process or a moment."""
    raw = bytearray(metadata)
    for field in IDENTITY_FIELDS:
        set_field(raw, field, *[0] * len(get_field(raw, field)))
    return bytes(raw)


# -- the ends ------------------------------------------------------------------------


class MilkSender:
    """A connection that sends what it is told. Close it, or use ``with``."""

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def was_turned_away(self, patience_s: float = PATIENCE_S) -> bool:
        """Waits until the other end closes or resets the connection; False when it does not."""
        self.socket.settimeout(patience_s)
        try:
            return self.socket.recv(1) == b""
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            return True

    def reset(self) -> None:
        """Ends at once, as a process that is killed with bytes unread, or a router."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> MilkSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MilkReceiver:
    """Listens, answers nothing and records what comes, connection after connection.

    captures: what came on each connection, in order, the last one growing. Close it, or use
    ``with``.
    """

    def __init__(self, port: int = 0, *, receive_buffer_bytes: int = 0) -> None:
        self.captures: list[bytearray] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer_bytes:  # goes over to the connections
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._listener.bind((LOOPBACK, port))
        self._listener.listen()
        self._listener.settimeout(LOOK_S)
        self.port = self._listener.getsockname()[1]
        self._reading = threading.Event()
        self._reading.set()
        self._cut = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def frames(self) -> list[WireFrame]:
        """The whole frames of the newest connection."""
        capture = bytes(self.captures[-1]) if self.captures else b""
        return frames_of(capture) if len(capture) >= METADATA_BYTES else []

    def wait_for(self, cnt0: int) -> list[WireFrame]:
        """Waits until frame cnt0 is there; returns the frames of its connection."""
        wait_until(lambda: cnt0 in [frame.cnt0 for frame in self.frames], f"frame {cnt0}")
        return self.frames

    def pause(self) -> None:
        """Reads no more, until resume(): the buffers of the network fill up."""
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    def cut(self) -> None:
        """Resets the present connection; the next one is accepted."""
        self._cut.set()
        wait_until(lambda: not self._cut.is_set(), "the end of the connection")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._cut.clear()
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection:
                self._record(connection)

    def _record(self, connection: socket.socket) -> None:
        capture = bytearray()
        self.captures.append(capture)
        connection.settimeout(LOOK_S)
        while not (self._ended.is_set() or self._cut.is_set()):
            if not self._reading.wait(LOOK_S):
                continue
            try:
                data = connection.recv(_READ_BYTES)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            capture += data
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def __enter__(self) -> MilkReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- the network ------------------------------------------------------------------------


class _Pipe:
    """One direction of a connection through the proxy: what waits, and since when."""

    LIMIT_BYTES = 1 << 20

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        self.waiting_bytes = 0
        self.ended = False

    @property
    def takes_more(self) -> bool:
        return not self.ended and self.waiting_bytes < self.LIMIT_BYTES

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self.source.recv(_READ_BYTES)
            self.ended = not data
            self.waiting.append((time.monotonic(), data))
            self.waiting_bytes += len(data)

    def write(self, delay_s: float, most_bytes: int) -> int:
        """Passes on what has waited for delay_s; returns how many bytes."""
        passed = 0
        while self.waiting and passed < most_bytes:
            since, data = self.waiting[0]
            if time.monotonic() < since + delay_s:
                break
            if not data:
                self.target.shutdown(socket.SHUT_WR)
                self.waiting.popleft()
                break
            try:
                sent = self.target.send(data[: most_bytes - passed])
            except BlockingIOError:
                break
            passed += sent
            self.waiting_bytes -= sent
            self.waiting.popleft()
            if sent < len(data):
                self.waiting.appendleft((since, data[sent:]))
        return passed


class Proxy:
    """Listens on a port of its own and passes everything on to another one, both ways, as
    delay_s, bytes_per_s and stalled say at the moment. Close it, or use ``with``."""

    def __init__(self, target_port: int, *, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.bytes_per_s = float("inf")
        self.stalled = False
        self.passed_bytes = 0
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._pipes: list[_Pipe] = []
        self._cut = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """Resets both sides of all connections; new ones are accepted."""
        self._cut.set()
        wait_until(lambda: not self._cut.is_set(), "the end of the connections")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        allowance, looked_at = 0.0, time.monotonic()
        while not self._ended.is_set():
            self._wait()
            now = time.monotonic()
            most = min(_Pipe.LIMIT_BYTES, max(1.0, self.bytes_per_s * LOOK_S))
            allowance = min(most, allowance + (now - looked_at) * self.bytes_per_s)
            looked_at = now
            if self._cut.is_set():
                self._reset_all()
                self._cut.clear()
            self._accept()
            if not self.stalled:
                allowance -= self._pass_on(int(allowance))
        self._reset_all()

    def _wait(self) -> None:
        """Until something can be read, but not long: time passes for what is delayed."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            for pipe in self._pipes:
                if pipe.takes_more and not self.stalled:
                    selector.register(pipe.source, selectors.EVENT_READ)
            busy = any(pipe.waiting for pipe in self._pipes) and not self.stalled
            selector.select(0.001 if busy else LOOK_S)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection((LOOPBACK, self._target_port), PATIENCE_S)
            except OSError:  # nobody is there: the connection ends as it began
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                near.close()
                return
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pipes += [_Pipe(near, far), _Pipe(far, near)]

    def _pass_on(self, most_bytes: int) -> int:
        passed = 0
        for pipe in list(self._pipes):
            try:
                if pipe.takes_more:
                    pipe.read()
                passed += pipe.write(self.delay_s, most_bytes - passed)
            except OSError:  # reset by one side: so is the other
                self._drop(pipe)
        self.passed_bytes += passed
        return passed

    def _drop(self, pipe: _Pipe) -> None:
        ends = {pipe.source, pipe.target}
        self._pipes = [other for other in self._pipes if other.source not in ends]
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    def _reset_all(self) -> None:
        while self._pipes:
            self._drop(self._pipes[0])

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
