"""The newest messages of a sender, for programs that take their time.

A thread of its own takes every message from the socket as it comes and forgets all but the
newest, so no old frames queue behind a slow program: not here, and not at the sender either.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from vampires.zmq_socket import (
    MAX_MESSAGE_BYTES,
    REFUSED_EVENTS,
    Endpoint,
    Keys,
    Monitor,
    new_subscriber,
)

_POLL_S = 0.1
# ZeroMQ gives up on a peer that refused it, or that spoke nonsense; we do not.
_RENEW_S = 0.5
# After a pause of the whole process (Ctrl-Z, a laptop's lid) there are old messages in the
# pipes; within the second time, new ones are there.
_PAUSE_S = 0.5
_SETTLE_S = 0.3
# Where the count of bytes stands in struct tcp_info of linux/tcp.h (tcpi_bytes_received).
_TCP_INFO_BYTES, _BYTES_RECEIVED = 192, struct.Struct("<128xQ")


@dataclass(frozen=True)
class Received:
    """A message as it came, and when (Unix time)."""

    data: memoryview
    received_ns: int


class Inbox:
    """Connects to a sender and keeps its newest messages of a stream. For one consumer.

    depth: messages kept. One is for those who want nothing but the newest; with two, a program
    that is fast enough loses none of two that come close together.

    The thread runs until close(), or until nobody holds the inbox any more. Whatever the other
    side does is told by `state` and `refusals`, and never raised.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stream: str,
        *,
        depth: int = 1,
        ipv6: bool = False,
        keys: Keys | None = None,
        server_key: bytes | None = None,
    ) -> None:
        # Now, and not while the first messages wait: the import takes half a second.
        import blosc2  # noqa: F401

        def new_socket(context: zmq.Context) -> zmq.Socket:
            return new_subscriber(context, stream, ipv6=ipv6, keys=keys, server_key=server_key)

        self._worker = _Worker(str(endpoint), depth, new_socket)
        thread = threading.Thread(target=self._worker.run, name=f"inbox {stream}", daemon=True)
        # Also at the end of Python, before the thread would be cut off in mid-air.
        self._end = weakref.finalize(self, _end, self._worker, thread)
        thread.start()

    def take(self, timeout_s: float | None = None) -> Received | None:
        """The oldest message that is kept; None when none comes within the time."""
        return self._worker.take(timeout_s)

    @property
    def state(self) -> str:
        """connecting, refused (by the sender, or what answers there is none) or connected."""
        return self._worker.state

    @property
    def connections(self) -> int:
        """How often the sender was connected to."""
        return self._worker.connections

    @property
    def refusals(self) -> int:
        """How often a connection failed although somebody listened."""
        return self._worker.refusals

    @property
    def unfit(self) -> int:
        """Messages of several parts, or without end, which no sender of streams makes."""
        return self._worker.unfit

    def close(self) -> None:
        """Closes the connection; take() then finds nothing."""
        self._end()


def _end(worker: _Worker, thread: threading.Thread) -> None:
    worker.stop()
    if thread is not threading.current_thread():  # where the collector may run as well
        thread.join()


class _Worker:
    """The thread's part, which must not refer to the inbox: nobody could drop it then."""

    def __init__(
        self,
        address: str,
        depth: int,
        new_socket: Callable[[zmq.Context], zmq.Socket],
    ) -> None:
        self.state = "connecting"
        self.connections = 0
        self.refusals = 0
        self.unfit = 0
        self._address = address
        self._new_socket = new_socket
        self._changed = threading.Condition(threading.RLock())
        self._kept: deque[Received] = deque(maxlen=depth)
        self._alive_s = time.monotonic()
        self._settled_s = 0.0
        self._lost_s: float | None = None
        self._connection = -1  # a descriptor,
        self._bytes_before: int | None = None  # and what had come over it at the last message
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context = zmq.Context()
        self._connect()

    # -- for the consumer ---------------------------------------------------------------------

    def take(self, timeout_s: float | None) -> Received | None:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                now_s = time.monotonic()
                self._note_pause(now_s)
                settling_s = max(0.0, self._settled_s - now_s)
                if self._kept and settling_s == 0.0:
                    return self._kept.popleft()
                if self._stopping or (deadline_s is not None and now_s >= deadline_s):
                    return None
                waits = [_POLL_S] if settling_s == 0.0 else [settling_s]
                if deadline_s is not None:
                    waits.append(deadline_s - now_s)
                self._changed.wait(min(waits))

    def stop(self) -> None:
        self._stopping = True
        with self._changed:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # -- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self._stopping:
                self._look()
        finally:  # also when it fails: who waits for a message then is told
            self._stopping = True
            with self._changed:
                os.close(self._wake)
                self._wake = -1
                self._changed.notify_all()
            self._disconnect()
            self._context.term()

    def _look(self) -> None:
        poller = zmq.Poller()
        for item in (self._socket, self._monitor.socket, self._wake):
            poller.register(item, zmq.POLLIN)
        ready = dict(poller.poll(round(_POLL_S * 1e3)))
        with self._changed:
            self._note_pause(time.monotonic())
        if self._monitor.socket in ready:
            for event, value in self._monitor.events():
                self._follow(event, value)
        if self._socket in ready:
            self._receive()
        else:
            self._check_size()
        if self._lost_s is not None and time.monotonic() >= self._lost_s + _RENEW_S:
            self._renew()

    def _receive(self) -> None:
        self._bytes_before = None
        parts = self._socket.recv_multipart(copy=False)
        if len(parts) != 1:
            self.unfit += 1
            return
        received = Received(parts[0].buffer, time.time_ns())
        with self._changed:
            self._kept.append(received)
            self._changed.notify_all()

    def _check_size(self) -> None:
        """Breaks off a message of ever more parts, of which ZeroMQ would keep all."""
        received = _bytes_received(self._connection)
        if received is None or self._bytes_before is None:
            self._bytes_before = received
        elif received - self._bytes_before > MAX_MESSAGE_BYTES:
            self.unfit += 1
            self.state = "refused"
            self._renew()

    def _note_pause(self, now_s: float) -> None:
        """Called often, by both sides; when it was not, the whole process stood still."""
        if now_s - self._alive_s > _PAUSE_S:
            self._settled_s = now_s + _SETTLE_S
        self._alive_s = now_s

    def _follow(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self._connection, self._bytes_before = value, None
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.state = "connected"
            self.connections += 1
        elif event in REFUSED_EVENTS:
            self.state = "refused"
            self.refusals += 1
        elif event == zmq.EVENT_DISCONNECTED:
            if self.state == "connected":
                self.state = "connecting"
            self._lost_s = time.monotonic()
        elif event == zmq.EVENT_CLOSED:  # nobody listens, now
            self.state = "connecting"
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._lost_s = None

    def _connect(self) -> None:
        with contextlib.ExitStack() as failed:
            fresh = self._new_socket(self._context)
            failed.callback(fresh.close)
            monitor = Monitor(fresh)
            failed.callback(monitor.close)
            fresh.connect(self._address)
            failed.pop_all()
        self._socket, self._monitor = fresh, monitor
        self._lost_s = None
        self._connection = -1
        self._bytes_before = None

    def _renew(self) -> None:
        """Another connection in place of this one, which is given up when that one is made."""
        before = self._monitor, self._socket
        try:
            self._connect()
        except zmq.ZMQError:  # no descriptors are left: later
            self._lost_s = time.monotonic()
            return
        for part in before:
            part.close()

    def _disconnect(self) -> None:
        self._monitor.close()
        self._socket.close()


def _bytes_received(connection: int) -> int | None:
    """Bytes that came over a TCP connection, by its descriptor; None where it is none any more:
    ZeroMQ may have closed it by now."""
    try:
        with socket.socket(fileno=os.dup(connection)) as duplicate:
            info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(_BYTES_RECEIVED.unpack_from(info)[0])
    except (OSError, struct.error):
        return None
