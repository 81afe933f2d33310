"""Sockets of the slow link: where they connect, the options that keep old frames out of every
queue, and what their monitors tell.

The sender's socket keeps one message for each subscriber, the newest (ZMQ_CONFLATE). The
subscriber's cannot do the same: ZeroMQ ends the process when a message of several parts meets
that option, and anybody can send one. It takes a few messages, and a thread of its own keeps
the newest (vampires.zmq_inbox).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from vampires.link_message import MAX_FRAME_BYTES, topic

SCHEME = "tcp://"
MAX_PORT = 2**16 - 1

# A peer that is back is found within a second: 0.4 s of an attempt and 0.3 s of pause.
RECONNECT_MS, RECONNECT_MAX_MS = 100, 300
CONNECT_TIMEOUT_MS = 400
HANDSHAKE_TIMEOUT_MS = 2000
# A cut cable: bytes sent, such as a heartbeat, that nobody acknowledged for so long. This
# counts bytes. The heartbeat's own timeout counts whole messages, of which one can take
# seconds on a thin line; it is for peers that hang.
UNACKNOWLEDGED_MS = 1000
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 300, 10_000
# What waits in the kernel is old. This much does 500 Mbit/s to a computer 4 ms away.
BUFFER_BYTES = 256 << 10
# Frames for the inbox, should another thread of its process not let it run for a moment.
RECEIVED_MESSAGES = 8
MAX_MESSAGE_BYTES = MAX_FRAME_BYTES + (4 << 20)  # a frame and its keywords
MAX_REQUEST_BYTES = 1024  # of a subscriber: topics, heartbeats, handshakes

# With a domain, access is asked for (vampires.zmq_access), and peers that speak the first
# versions of the protocol, in which any bytes have a meaning, are turned away.
ACCESS_DOMAIN = b"vampires"


class Keys(Protocol):
    """A CURVE key pair, as ZeroMQ writes keys: 40 characters of Z85 each."""

    @property
    def public(self) -> bytes: ...
    @property
    def secret(self) -> bytes: ...


@dataclass(frozen=True)
class Endpoint:
    """A host and a TCP port; tcp://HOST:PORT, with brackets around an IPv6 address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{SCHEME}[{self.host}]:{self.port}" if ":" in self.host else self._plain()

    def _plain(self) -> str:
        return f"{SCHEME}{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint of tcp://HOST:PORT; the tcp:// may lack. ValueError, in one line."""
    host, colon, port = text.strip().removeprefix(SCHEME).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdigit() and int(port) <= MAX_PORT
    if not (host and colon and is_port) or "/" in host:
        raise ValueError(
            f"found {text!r}, expected an address and a port, as in tcp://10.20.0.5:5560"
        )
    return Endpoint(host, int(port))


def check_known(endpoint: Endpoint) -> bool:
    """Whether the host has IPv6 addresses alone. ValueError, in one line, when it has none."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no legal name"
        raise ValueError(
            f"host {endpoint.host!r} is not known ({reason}): "
            "check the name, or give its address"
        ) from None
    return all(entry[0] == socket.AF_INET6 for entry in found)


# -- the two sockets --------------------------------------------------------------------------


def new_publisher(context: zmq.Context, *, ipv6: bool, keys: Keys | None = None) -> zmq.Socket:
    """A socket that gives the newest message to whoever connects; to be bound.

    keys: only subscribers that know their public half can read it.
    """
    publisher = context.socket(zmq.PUB)
    _set_common(publisher, ipv6=ipv6)
    publisher.setsockopt(zmq.CONFLATE, 1)
    publisher.setsockopt(zmq.SNDHWM, 1)
    publisher.setsockopt(zmq.SNDBUF, BUFFER_BYTES)
    publisher.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
    if keys is not None:
        publisher.setsockopt(zmq.CURVE_SERVER, 1)
        publisher.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    return publisher


def new_subscriber(
    context: zmq.Context,
    stream: str,
    *,
    ipv6: bool,
    keys: Keys | None = None,
    server_key: bytes | None = None,
) -> zmq.Socket:
    """A socket for the messages of a stream, to be connected."""
    subscriber = context.socket(zmq.SUB)
    _set_common(subscriber, ipv6=ipv6)
    subscriber.setsockopt(zmq.RCVHWM, RECEIVED_MESSAGES)
    subscriber.setsockopt(zmq.RCVBUF, BUFFER_BYTES)
    subscriber.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    subscriber.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    subscriber.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    subscriber.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    if keys is not None and server_key is not None:
        subscriber.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        subscriber.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        subscriber.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    subscriber.setsockopt(zmq.SUBSCRIBE, topic(stream))
    return subscriber


def _set_common(either: zmq.Socket, *, ipv6: bool) -> None:
    either.setsockopt(zmq.LINGER, 0)
    either.setsockopt(zmq.IPV6, int(ipv6))
    either.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS)
    either.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    either.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    either.setsockopt(zmq.TCP_MAXRT, UNACKNOWLEDGED_MS)
    either.setsockopt(zmq.ZAP_DOMAIN, ACCESS_DOMAIN)


# -- monitors ---------------------------------------------------------------------------------

REFUSED_EVENTS = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
}
_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class Monitor:
    """What ZeroMQ tells of the connections of a socket; to be made before it connects or binds,
    read often, and closed before the socket."""

    def __init__(self, watched: zmq.Socket) -> None:
        self._watched = watched
        self.socket = watched.get_monitor_socket(_EVENTS)

    def events(self) -> list[tuple[int, int]]:
        """(event, value) of all that happened since the last call. The value of ACCEPTED,
        CONNECTED and DISCONNECTED is the number of the connection's descriptor."""
        found = []
        while self.socket.poll(0):
            message = recv_monitor_message(self.socket)
            found.append((int(message["event"]), int(message["value"])))
        return found

    def close(self) -> None:
        """Ends the telling."""
        self._watched.disable_monitor()
        self.socket.close(linger=0)
