"""Nothing that a peer sends, or does not send, harms the receiver or the streams of this host.

After each misdeed an honest sender still gets its frames through.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_stream import METADATA_BYTES, TEMPORAL_RING, ForeignStream, keyword
from link_peers import (
    KEYWORD_BYTES,
    LOOPBACK,
    MilkSender,
    frame_bytes,
    handshake,
    wait_until,
)
from tcp_ends import counter_of, files_below, newest, receiver, told, wait_for_status

from vampires import _core
from vampires.keywords import decode_keywords
from vampires.stream import Stream

SIZE = (5, 3)
PIXELS = np.arange(15, dtype=np.uint16).reshape(3, 5)
MAX_UINT32 = 2**32 - 1
HANDSHAKE_PATIENCE_S = 5


@pytest.fixture
def link(shm_dir: Path):
    """A receiver that an honest sender still reaches at the end of the test."""
    with receiver(shm_dir) as running:
        yield running
        honest_frame_arrives(running, shm_dir)


def honest_frame_arrives(link: Any, folder: Path) -> None:
    """From another address of this computer, for another stream."""
    with socket.socket() as other:
        other.bind(("127.0.0.7", 0))
        other.connect((LOOPBACK, link.port))
        other.sendall(handshake("honest", SIZE) + frame_bytes(PIXELS, 1))
        wait_until(lambda: counter_of(folder, "honest") == 1, "the frame of an honest sender")


def assert_refused(link: Any, folder: Path, *parts: bytes, reason: str = "") -> None:
    """These bytes end the connection, and leave no stream and no file."""
    before = files_below(folder)
    with MilkSender(link.port) as peer:
        with contextlib.suppress(OSError):
            peer.send(*parts)
        assert peer.was_turned_away()
    wait_until(lambda: link.status()["refused"] == 1, "the refusal in the status")
    assert files_below(folder) == before
    assert link.status()["state"] == "listening"
    assert "\n" not in link.status()["last_error"]
    assert reason in link.status()["last_error"]


# -- handshakes ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_garbage_is_turned_away(link: Any, shm_dir: Path, seed: int) -> None:
    assert_refused(link, shm_dir, random.Random(seed).randbytes(10_000), reason="version")


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", bytes(383)])
def test_another_protocol_is_no_sender(link: Any, shm_dir: Path, request_: bytes) -> None:
    with MilkSender(link.port) as peer:
        peer.send(request_)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.was_turned_away()
    wait_until(lambda: link.status()["refused"] == 1, "the refusal in the status")
    assert files_below(shm_dir) == set()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"size": (MAX_UINT32,) * 3, "naxis": 3}, ""),
        ({"size": (MAX_UINT32, MAX_UINT32, 0)}, ""),
        ({"size": (2**31, 2**31, 2**31), "naxis": 3}, ""),
        ({"size": (100_000, 100_000, 0)}, "bytes"),
        ({"size": (0, 3, 0)}, ""),
        ({"size": (5, 3, 0), "naxis": 3}, ""),
        ({"naxis": 0}, "axes"),
        ({"naxis": 4}, "axes"),
        ({"naxis": 255}, "axes"),
        ({"datatype": 0}, "datatype"),
        ({"datatype": 14}, "datatype"),
        ({"datatype": 20}, "datatype"),
        ({"datatype": 255}, "datatype"),
        ({"version": b"2.0"}, "version"),
        ({"version": b"\xff" * 32}, "version"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(
    link: Any, shm_dir: Path, claims: dict[str, Any], reason: str
) -> None:
    assert_refused(link, shm_dir, handshake("far", SIZE, **claims), reason=reason)


@pytest.mark.parametrize(
    "name",
    [
        *("../far", "../../tmp/far", "/tmp/far", "a/b", "a\\b", ".", "..", "", ".far"),
        *("far\n", "far\x1b[31m", "fär", "a b", "a;b", "$HOME", "x" * 80),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(link: Any, shm_dir: Path, name: str) -> None:
    around = files_below(shm_dir.parent) if shm_dir.parent != Path("/dev/shm") else None
    assert_refused(link, shm_dir, handshake("far", SIZE, name=name.encode()[:80]))
    assert not Path("/tmp/far.im.shm").exists()
    if around is not None:
        assert files_below(shm_dir.parent) == around


def test_a_local_name_is_used_whatever_the_sender_calls_its_stream(shm_dir: Path) -> None:
    with receiver(shm_dir, name="here") as link:
        with MilkSender(link.port) as peer:
            peer.send(handshake("there", SIZE), frame_bytes(PIXELS, 1))
            wait_for_status(link, frames=1, stream="here")
        assert files_below(shm_dir) == {"here.im.shm"}


def test_the_largest_stream_is_the_one_allowed(shm_dir: Path) -> None:
    with receiver(shm_dir, max_bytes=100_000) as link:
        assert_refused(link, shm_dir, handshake("far", (200, 300)), reason="100000")
        with MilkSender(link.port) as peer:
            pixels = np.zeros((200, 200), np.uint16)
            peer.send(handshake("far", (200, 200)), frame_bytes(pixels, 1))
            wait_for_status(link, frames=1)


@pytest.mark.parametrize("keywords", [0, 1, 65535])
def test_any_number_of_keywords_that_a_stream_can_have_is_taken(
    link: Any, shm_dir: Path, keywords: int
) -> None:
    entries = keyword("LAST", b"L", 7, "of them") if keywords else b""
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE, keywords=keywords))
        peer.send(frame_bytes(PIXELS, 1, 0, entries.ljust(KEYWORD_BYTES * keywords, b"\0")))
        wait_for_status(link, frames=1)
    _, _, listed = newest(shm_dir, "far")
    assert listed == ({"LAST": (7, "of them")} if keywords else {})


# -- frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_", [-1, 5, 2**31, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("imagetype", [2, TEMPORAL_RING])
def test_a_slice_that_is_not_there_ends_the_connection(
    link: Any, shm_dir: Path, slice_: int, imagetype: int
) -> None:
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", (5, 3, 5), imagetype=imagetype), frame_bytes(PIXELS, 1, 4))
        wait_for_status(link, frames=1)
        peer.send(frame_bytes(PIXELS + 1, 2, slice_))
        assert peer.was_turned_away()
    wait_for_status(link, frames=1, refused=1, state="listening")
    stream = _core.StreamFile.open(str(shm_dir), "far")
    assert (stream.metadata["cnt0"], stream.metadata["cnt1"]) == (1, 4)
    np.testing.assert_array_equal(stream.view()[4], PIXELS)


@pytest.mark.parametrize("cnt0", [-2, -(2**63)])
def test_a_negative_counter_ends_the_connection(link: Any, shm_dir: Path, cnt0: int) -> None:
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE), frame_bytes(PIXELS, cnt0))
        assert peer.was_turned_away()
    wait_for_status(link, frames=0, refused=1)
    assert counter_of(shm_dir, "far") == 0


def test_a_counter_that_jumps_does_not_end_the_link(link: Any, shm_dir: Path) -> None:
    """Up by more than any camera can lose, and back again: what comes is published."""
    counts = [1, 2**62, 2**62 + 1, 5, 6]
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE))
        for arrived, cnt0 in enumerate(counts, 1):
            peer.send(frame_bytes(PIXELS + arrived, cnt0))
            wait_until(
                lambda arrived=arrived: (
                    sum(link.status()[key] for key in ("frames", "duplicates")) == arrived
                ),
                f"frame {arrived}",
            )
        assert peer.was_turned_away(0.0) is False


@pytest.mark.parametrize("cnt1", [-1, 7, 2**62])
def test_the_slice_of_a_stream_without_slices_means_nothing(
    link: Any, shm_dir: Path, cnt1: int
) -> None:
    """milk counts on in cnt1 there."""
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE), frame_bytes(PIXELS, 1, cnt1))
        wait_for_status(link, frames=1)
    np.testing.assert_array_equal(newest(shm_dir, "far")[0], PIXELS)


def test_keywords_without_an_end_are_ended(link: Any, shm_dir: Path) -> None:
    entry = b"N" * 16 + b"S" + b"x" * 7 + b"V" * 16 + b"y" * 8 + b"C" * 80
    unknown = keyword("ODD", b"L", 1)[:16] + b"?" + bytes(111)
    garbage = random.Random(3).randbytes(KEYWORD_BYTES)
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE, keywords=3))
        peer.send(frame_bytes(PIXELS, 1, 0, entry + unknown + garbage))
        wait_for_status(link, frames=1)
    raw = _core.StreamFile.open(str(shm_dir), "far").keywords_raw()
    (first, *_) = decode_keywords(raw)
    assert (first.name, first.value, first.comment) == ("N" * 15, "V" * 15, "C" * 79)
    for at in range(0, len(raw), KEYWORD_BYTES):
        assert raw[at + 15] == 0 and raw[at + 127] == 0
        assert raw[at + 16 : at + 17] in b"LDSN"


@pytest.mark.parametrize("shape", [SIZE, (5, 3, 4)])
@pytest.mark.parametrize("sent_bytes", [1, 29, 30, 31, 45])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_frame_cut_short_is_never_published(
    link: Any, shm_dir: Path, shape: tuple[int, ...], sent_bytes: int, end: str
) -> None:
    ring = {"imagetype": TEMPORAL_RING} if len(shape) == 3 else {}
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", shape, **ring), frame_bytes(PIXELS, 1))
        wait_for_status(link, frames=1)
        peer.send(frame_bytes(PIXELS + 1000, 2, 1)[:sent_bytes])
        getattr(peer, end)()
    wait_for_status(link, state="listening", frames=1, lost=0)
    pixels, info, _ = newest(shm_dir, "far")
    assert info.cnt0 == 1
    np.testing.assert_array_equal(pixels, PIXELS)
    metadata = _core.StreamFile.open(str(shm_dir), "far").metadata
    assert metadata["write"] == 0


def test_one_array_shows_no_part_of_a_frame_under_way(link: Any, shm_dir: Path) -> None:
    """Viewers look at it at any time."""
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE), frame_bytes(PIXELS, 1))
        wait_for_status(link, frames=1)
        peer.send(frame_bytes(PIXELS + 1000, 2)[:20])
        wait_until(lambda: link.status()["bytes"] >= 46, "the first frame in the count")
        stream = _core.StreamFile.open(str(shm_dir), "far")
        np.testing.assert_array_equal(stream.view(), PIXELS)
        assert stream.metadata["write"] == 0
        peer.send(frame_bytes(PIXELS + 1000, 2)[20:])
        wait_for_status(link, frames=2)
        np.testing.assert_array_equal(stream.view(), PIXELS + 1000)


# -- connections -----------------------------------------------------------------------------


def test_who_says_nothing_or_too_little_is_turned_away(link: Any, shm_dir: Path) -> None:
    """A silent connection, and one that trickles its handshake, a byte now and then."""
    with MilkSender(link.port) as silent, MilkSender(link.port) as slow:
        slow.socket.settimeout(0.2)
        announced = handshake("far", SIZE)
        for byte in announced[: 10 * HANDSHAKE_PATIENCE_S]:
            try:
                slow.send(bytes([byte]))
                if slow.socket.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("the slow one was never turned away")
        assert silent.was_turned_away()
    wait_for_status(link, refused=2)
    assert files_below(shm_dir) == set()


def test_a_frame_that_trickles_holds_nobody_up(link: Any, shm_dir: Path) -> None:
    """The sender of the stream comes back on another connection, while the old one lingers."""
    with MilkSender(link.port) as slow, MilkSender(link.port) as back:
        slow.send(handshake("far", SIZE), frame_bytes(PIXELS, 1)[:7])
        wait_for_status(link, state="receiving")
        back.send(handshake("far", SIZE), frame_bytes(PIXELS, 1))
        wait_for_status(link, frames=1, cnt0=1)
        assert slow.was_turned_away()


def test_fifty_connections_leave_room_for_a_sender(link: Any, shm_dir: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(MilkSender(link.port))
        honest_frame_arrives(link, shm_dir)
        wait_until(lambda: link.status()["refused"] >= 50 - 16, "the end of the oldest")
        assert len(told(link, "refused")) <= 5  # a line for many


def test_a_peer_that_is_not_allowed_is_turned_away(shm_dir: Path) -> None:
    with receiver(shm_dir, allowed=["127.0.0.7"]) as link:
        assert_refused(link, shm_dir, handshake("far", SIZE), reason=LOOPBACK)
        honest_frame_arrives(link, shm_dir)


def test_a_stranger_cannot_take_the_place_of_a_sender_at_work(link: Any, shm_dir: Path) -> None:
    with MilkSender(link.port) as peer, socket.socket() as stranger:
        peer.send(handshake("far", SIZE), frame_bytes(PIXELS, 1))
        wait_for_status(link, frames=1)
        stranger.bind(("127.0.0.8", 0))
        stranger.connect((LOOPBACK, link.port))
        stranger.sendall(handshake("far", SIZE) + frame_bytes(PIXELS + 5, 2))
        wait_for_status(link, refused=1)
        peer.send(frame_bytes(PIXELS + 1, 2))
        wait_for_status(link, frames=2)
    np.testing.assert_array_equal(newest(shm_dir, "far")[0], PIXELS + 1)


def test_a_stream_that_a_camera_writes_is_not_touched(
    link: Any, shm_dir: Path, start_process: Any
) -> None:
    """Nor one of the same shape, whose frames would mix with those of the camera."""
    with Stream.create("far", (3, 5), np.uint16, ring=0) as camera:
        camera.write(PIXELS)
        other = start_process(["sleep", "1000"])  # the camera is another program
        with ForeignStream(shm_dir / "far.im.shm") as file:
            file.set("creatorPID", other.pid)
        for size in (SIZE, (6, 3)):
            refused = link.status()["refused"]
            with MilkSender(link.port) as peer:
                peer.send(handshake("far", size), frame_bytes(bytes(2 * size[0] * 3), 9))
                assert peer.was_turned_away()
            wait_for_status(link, refused=refused + 1, frames=0)
            assert camera.cnt0 == 1
            np.testing.assert_array_equal(camera.view(), PIXELS)


@pytest.mark.parametrize("fault", ["removed", "truncated", "garbage"])
def test_a_far_stream_that_others_spoil_is_made_again(
    link: Any, shm_dir: Path, fault: str
) -> None:
    path = shm_dir / "far.im.shm"
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE), frame_bytes(PIXELS, 1))
        wait_for_status(link, frames=1)
    wait_for_status(link, state="listening")
    if fault == "removed":
        path.unlink()
    elif fault == "truncated":
        with path.open("r+b") as file:
            file.truncate(METADATA_BYTES)
    else:
        path.unlink()
        path.write_bytes(random.Random(1).randbytes(3000))
    with MilkSender(link.port) as peer:
        peer.send(handshake("far", SIZE), frame_bytes(PIXELS + 1, 2))
        wait_for_status(link, frames=2)
    pixels, info, _ = newest(shm_dir, "far")
    assert info.cnt0 == 2
    np.testing.assert_array_equal(pixels, PIXELS + 1)
