"""The slow link against peers that talk nonsense, too much, or nothing at all."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import zmq
from zmq_ends import (
    LOOPBACK,
    Camera,
    connected,
    free_port,
    receiving,
    sending,
    subscription_settles,
    wait_until,
)

from vampires import zmq_inbox
from vampires.link_message import Codec, FrameMessage, encode
from vampires.stream import Stream
from vampires.zmq_socket import MAX_REQUEST_BYTES, Endpoint

pytestmark = pytest.mark.usefixtures("shm_dir")

# The bytes of ZMTP 3.0 (rfc.zeromq.org/spec/23), security NULL.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE, LONG, COMMAND = 1, 2, 4
# Below the heartbeats' ten seconds, after which any peer is given up that says nothing.
AT_ONCE_S = 5


def ready(kind: bytes) -> bytes:
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    return bytes([COMMAND, len(body)]) + body


def zmtp_frame(body: bytes, flags: int = 0) -> bytes:
    return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body


GARBAGE = {
    "random bytes": np.random.default_rng(2).bytes(3000),
    "zeros": bytes(3000),
    "a web browser": b"GET / HTTP/1.1\r\nHost: vampires\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(range(256)) * 4,
    "the first version of ZMTP": b"\x01\x00" + b"\x07\x01vcam1 " * 300,
    "half a greeting": GREETING[:30],
    "a greeting of the second version": b"\xff" + bytes(8) + b"\x7f\x01\x01\x00\x00",
    "unknown security": GREETING.replace(b"NULL", b"EVIL"),
    "a message before the handshake": GREETING + zmtp_frame(b"\x01vcam1 "),
    "a huge request": GREETING + ready(b"SUB") + b"\x02" + struct.pack(">Q", 2**62),
    "a request of several parts": GREETING
    + ready(b"SUB")
    + zmtp_frame(b"\x01vcam1 ", MORE) * 50
    + zmtp_frame(b"\x00") * 5,
    "a socket of the wrong kind": GREETING + ready(b"REQ"),
}


def rss_mib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def connect(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((endpoint.host, endpoint.port), timeout=20)


def receive_exactly(peer: socket.socket, size_bytes: int) -> bytes:
    received = b""
    while len(received) < size_bytes:
        more = peer.recv(size_bytes - len(received))
        if not more:
            raise EOFError(received)
        received += more
    return received


def subscribe(peer: socket.socket, topic: bytes) -> None:
    """Shakes hands with a sender, and subscribes."""
    peer.sendall(GREETING)
    receive_exactly(peer, len(GREETING))
    peer.sendall(ready(b"SUB"))
    flags, size = receive_exactly(peer, 2)
    assert flags == COMMAND
    assert receive_exactly(peer, size).startswith(b"\x05READY")
    peer.sendall(zmtp_frame(b"\x01" + topic))


# To the sender


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_does_not_disturb_a_sender(garbage):
    camera = Camera()
    with sending() as sender, connected(sender) as receiver:
        for _ in range(3):
            with connect(sender.end.endpoint) as peer:
                with contextlib.suppress(OSError):  # turned away in the middle of it
                    peer.sendall(garbage)
                    peer.shutdown(socket.SHUT_WR)
                wait_until(lambda peer=peer: not is_open(peer), "it is turned away")
            number = camera.write()
            receiver.reaches(cnt0=number)
        assert receiver["dropped_by_network"] == 0


def is_open(peer: socket.socket) -> bool:
    """Reads what comes, until the end of it."""
    try:
        return bool(peer.recv(1 << 16))
    except OSError:
        return False


def test_peers_that_say_nothing_keep_nobody_out():
    camera = Camera()
    with sending() as sender:
        silent = [connect(sender.end.endpoint) for _ in range(50)]
        try:
            with connected(sender) as receiver:
                camera.write()
                receiver.reaches(cnt0=1)
            for peer in silent:
                wait_until(lambda peer=peer: not is_open(peer), "it is turned away")
        finally:
            for peer in silent:
                peer.close()
        sender.reaches(connections=0)


def test_a_peer_that_trickles_its_greeting_is_turned_away():
    with sending() as sender, connect(sender.end.endpoint) as peer:
        ended = threading.Event()

        def trickle() -> None:
            for byte in GREETING:
                try:
                    peer.sendall(bytes([byte]))
                except OSError:
                    return
                if ended.wait(0.1):
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            wait_until(lambda: not is_open(peer), "it is turned away")
        finally:
            ended.set()
            thread.join()


def test_a_peer_that_subscribes_to_everything_takes_little_memory():
    camera = Camera()
    with sending() as sender, connected(sender) as receiver:
        camera.write()
        receiver.reaches(cnt0=1)
        before = rss_mib()
        with connect(sender.end.endpoint) as peer:
            subscribe(peer, b"vcam1 ")
            for number in range(20_000):
                topic = b"\x01" + struct.pack(">Q", number)
                peer.sendall(zmtp_frame(topic.ljust(MAX_REQUEST_BYTES - 1, b"x")))
            receiver.reaches(cnt0=camera.write())
            assert rss_mib() < before + 20


def test_a_request_that_claims_much_is_broken_off():
    with sending() as sender, connect(sender.end.endpoint) as peer:
        subscribe(peer, b"vcam1 ")
        peer.sendall(b"\x02" + struct.pack(">Q", 2**30) + b"\x01vcam1 ")
        wait_until(lambda: not is_open(peer), "it is broken off", AT_ONCE_S)


def test_a_subscriber_that_stops_reading_takes_little_memory():
    camera = Camera(shape=(500, 500), ring=0)
    camera.write()
    with (
        sending(codec=Codec.NONE) as sender,
        connected(sender) as receiver,
        connect(sender.end.endpoint) as peer,
    ):
        subscribe(peer, b"vcam1 ")
        subscription_settles()
        before = most = rss_mib()
        for _ in range(200):  # 100 MB
            number = camera.write()
            sender.reaches(cnt0=number)
            most = max(most, rss_mib())
        receiver.reaches(cnt0=number)
        assert most < before + 20
        assert peer.recv(100)[:2] == b"\x02\x00"  # it would have got a frame


# To the receiver


class Publisher:
    """Speaks ZMTP as bytes to whoever connects first."""

    def __init__(self, port: int = 0) -> None:
        self.server = socket.create_server((LOOPBACK, port))
        self.endpoint = Endpoint(LOOPBACK, self.server.getsockname()[1])
        self.peer = self.server

    def accept(self) -> None:
        if self.peer is not self.server:
            self.peer.close()
        self.server.settimeout(20)
        self.peer, _ = self.server.accept()
        self.peer.settimeout(20)

    def greet(self) -> None:
        self.accept()
        self.peer.sendall(GREETING)
        receive_exactly(self.peer, len(GREETING))
        self.peer.sendall(ready(b"PUB"))

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.peer.close()
        self.server.close()


@contextmanager
def publisher() -> Iterator[tuple[zmq.Socket, Endpoint]]:
    """A PUB socket of ZeroMQ."""
    context = zmq.Context()
    try:
        pub = context.socket(zmq.PUB)
        port = pub.bind_to_random_port(f"tcp://{LOOPBACK}")
        yield pub, Endpoint(LOOPBACK, port)
    finally:
        context.destroy(linger=0)


def good(number: int = 1, stream: str = "vcam1", **values) -> bytes:
    frame = np.full((4, 5), number, np.uint16)
    return bytes(encode(FrameMessage(stream, frame, cnt0=number, **values), Codec.NONE))


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/vampires-was-here",)


def changed_header(**values) -> bytes:
    """A message whose header says something else than its frame is."""
    import msgpack

    message = good()
    start = message.index(b"VDL1") + 4
    (size,) = struct.unpack_from("<I", message, start)
    header = msgpack.unpackb(message[start + 4 : start + 4 + size])
    packed = msgpack.packb({**header, **values})
    return (
        message[:start] + struct.pack("<I", len(packed)) + packed + message[start + 4 + size :]
    )


BAD_MESSAGES = {
    "nothing behind the name": b"vcam1 ",
    "random bytes": b"vcam1 " + np.random.default_rng(3).bytes(1000),
    "the head alone": good()[:40],
    "a frame cut short": good()[:-1],
    "a header that never ends": b"vcam1 VDL1" + struct.pack("<I", 2**32 - 1) + bytes(100),
    "a frame of 100 GB": changed_header(shape=[10**6, 10**5]),
    "a negative size": changed_header(shape=[-4, 5]),
    "a frame of no size": changed_header(shape=[0, 5]),
    "objects for pixels": changed_header(dtype="object"),
    "a pickle that runs a command": b"vcam1 " + pickle.dumps(({}, Evil())),
    "a pickle that runs a command for a keyword": b"vcam1 "
    + pickle.dumps(({"A": Evil()}, np.zeros((2, 2)))),
    "a pickle of something else": b"vcam1 " + pickle.dumps("hello"),
    "a cube of frames": encode(FrameMessage("vcam1", np.zeros((2, 3, 4)), cnt0=1)),
}


@pytest.mark.parametrize("bad", BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_a_bad_message_is_one_line_and_the_next_is_written(bad):
    with publisher() as (pub, endpoint), receiving(endpoint) as receiver:
        receiver.reaches(state="connected")
        subscription_settles()
        for _ in range(3):
            counted = receiver["bad_messages"]
            pub.send(bad)
            wait_until(
                lambda counted=counted: receiver["bad_messages"] > counted, "it is counted"
            )
        pub.send(good())
        receiver.reaches(cnt0=1, frames=1, bad_messages=3)
        assert len([line for line in receiver.lines if "bad message" in line]) == 1
        assert not os.path.exists("/tmp/vampires-was-here")


def test_messages_of_several_parts_are_left_out():
    with publisher() as (pub, endpoint), receiving(endpoint) as receiver:
        receiver.reaches(state="connected")
        subscription_settles()
        pub.send_multipart([b"vcam1 ", good()])
        pub.send_multipart([good(), good()])
        pub.send(good())
        receiver.reaches(cnt0=1, frames=1, bad_messages=2)
        receiver.said("a message of several parts")


def test_frames_of_other_streams_are_not_ours():
    with publisher() as (pub, endpoint), receiving(endpoint) as receiver:
        receiver.reaches(state="connected")
        subscription_settles()
        pub.send(good(7, stream="vcam10"))
        pub.send(good(8, stream="vcam2"))
        pub.send(good(9))
        receiver.reaches(cnt0=9, frames=1, bad_messages=0)


def test_a_message_that_says_another_stream_than_its_topic_goes_nowhere_else(shm_dir):
    with publisher() as (pub, endpoint), receiving(endpoint) as receiver:
        receiver.reaches(state="connected")
        subscription_settles()
        pub.send(b"vcam1 " + good(stream="other"))
        receiver.reaches(bad_messages=1)
        pub.send(good())
        receiver.reaches(cnt0=1)
    assert Stream.list(shm_dir) == ["copy"]


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_a_sender_that_dies_within_a_message_leaves_nothing_of_it(cut):
    with Publisher() as dying, receiving(dying.endpoint) as receiver:
        dying.greet()
        receiver.reaches(state="connected")
        message = zmtp_frame(good(5))
        dying.peer.sendall(message[:cut])
        dying.peer.close()
        dying.greet()
        dying.peer.sendall(zmtp_frame(good(6)))
        receiver.reaches(cnt0=6, frames=1)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_receiver_survives_a_port_where_something_else_listens(garbage):
    port = free_port()
    camera = Camera()
    with receiving(Endpoint(LOOPBACK, port)) as receiver:
        with Publisher(port) as wrong:
            for _ in range(2):
                wrong.accept()
                wrong.peer.sendall(garbage)
                wrong.peer.close()
        with sending(endpoint=Endpoint(LOOPBACK, port), resend_s=0.05):
            camera.write()
            receiver.reaches(cnt0=1, frames=1)


def test_a_message_without_end_is_broken_off(monkeypatch):
    monkeypatch.setattr(zmq_inbox, "MAX_MESSAGE_BYTES", 4 << 20)
    part = zmtp_frame(b"vcam1 " + bytes(1 << 16), MORE)
    with Publisher() as endless, receiving(endless.endpoint) as receiver:
        endless.greet()
        receiver.reaches(state="connected")
        with pytest.raises(OSError, match=r"reset|Broken|closed"):
            while receiver["bad_messages"] < 100:
                endless.peer.sendall(part)
        assert receiver["bad_messages"] == 1
        endless.greet()
        endless.peer.sendall(zmtp_frame(good()))
        receiver.reaches(cnt0=1)


def test_a_message_that_claims_too_much_is_broken_off():
    with Publisher() as huge, receiving(huge.endpoint) as receiver:
        huge.greet()
        receiver.reaches(state="connected")
        before = rss_mib()
        huge.peer.sendall(b"\x02" + struct.pack(">Q", 2**30) + b"vcam1 ")
        wait_until(lambda: not is_open(huge.peer), "it is broken off", AT_ONCE_S)
        assert rss_mib() < before + 20
        huge.greet()
        huge.peer.sendall(zmtp_frame(good()))
        receiver.reaches(cnt0=1)


# From the streams' side


def test_a_copy_that_others_shorten_is_made_again():
    camera = Camera()
    with sending() as sender, connected(sender) as receiver:
        receiver_copy = None
        camera.write()
        receiver.reaches(cnt0=1)
        with Stream.open("copy") as copy:
            receiver_copy = copy.path
        os.truncate(receiver_copy, 100)
        wait_until(lambda: camera.write() and receiver["frames"] > 2, "frames again")
        with Stream.open("copy") as copy:
            assert copy.cnt0 > 1


def test_a_stream_that_others_shorten_is_waited_for():
    camera = Camera()
    with sending() as sender, connected(sender) as receiver:
        camera.write()
        receiver.reaches(cnt0=1)
        os.truncate(camera.stream.path, 500)
        sender.reaches(state="waiting")
        Camera().write(2)
        receiver.reaches(cnt0=2)


def test_what_stands_in_the_keywords_of_a_stream_never_ends_the_sender():
    camera = Camera(keyword_room=50)
    with sending() as sender, connected(sender) as receiver:
        layout = camera.stream._file.layout
        with open(camera.stream.path, "r+b") as file:
            file.seek(layout["keywords"] if "keywords" in layout else layout["kw"])
            file.write(np.random.default_rng(4).bytes(128 * 50))
        camera.write()
        wait_until(lambda: sender["frames"] + sender["errors"] > 0, "the frame")
        camera = Camera()
        camera.write()
        receiver.reaches(cnt0=1)
