"""Every frame of a stream arrives at the other end, whole, once, in order, or counts as lost.

Two folders stand for two hosts; both ends run in this process, and a Witness compares every
pixel at the far side with what the camera sent.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cube_checks import make_pool
from foreign_stream import ForeignStream, run
from link_peers import (
    LOOPBACK,
    MilkReceiver,
    MilkSender,
    Proxy,
    frame_bytes,
    free_port,
    handshake,
    wait_until,
)
from logger_process import Camera
from tcp_ends import (
    Witness,
    counter_of,
    gaps,
    newest,
    receiver,
    sender,
    told,
    wait_for_status,
)

from vampires import _core
from vampires.keywords import decode_keywords

SHAPE = (12, 15)
LARGE = (200, 256)  # 100 kB: a few dozen fill the buffers of a connection
# Together more than the kernel keeps of a connection.
STALL_FRAMES = 400
RING = 1024


@dataclass(frozen=True)
class Hosts:
    """Two stream folders."""

    near: Path
    far: Path


@pytest.fixture
def hosts(shm_dir: Path) -> Iterator[Hosts]:
    """Fails the test that leaves a hidden file in either folder."""
    pair = Hosts(shm_dir / "near", shm_dir / "far")
    pair.near.mkdir()
    pair.far.mkdir()
    yield pair
    hidden = [path.name for path in shm_dir.rglob(".*")]
    assert not hidden, f"hidden files were left: {hidden}"


def camera(
    hosts: Hosts, shape: tuple[int, int] = SHAPE, ring: int = RING, **options: Any
) -> Camera:
    return Camera("cam1", shape, ring=ring, directory=hosts.near, **options)


def pools(*shapes: tuple[int, int]) -> dict[tuple[int, int], np.ndarray]:
    """What a Camera sends, by the shape of its frames."""
    return {shape: make_pool(shape, "uint16") for shape in shapes}


@pytest.fixture
def cam(hosts: Hosts) -> Camera:
    return camera(hosts)


@pytest.fixture
def witness(hosts: Hosts) -> Iterator[Witness]:
    with Witness(hosts.far, "cam1", pools(SHAPE, LARGE, (10, 8), (30, 32))) as watching:
        yield watching


# -- frames ----------------------------------------------------------------------------------


def test_every_frame_of_a_ring_arrives_once_in_its_slice(
    hosts: Hosts, cam: Camera, witness: Witness
) -> None:
    with receiver(hosts.far) as link, sender(hosts.near, "cam1", link.port) as tx:
        wait_for_status(tx, state="connected")
        for _ in range(50):
            cam.send(20)
            witness.wait_for(cam.stream.cnt0)
        counts = witness.wait_for(1000)
        assert counts == list(range(1, 1001))
        assert [frame.cnt1 for frame in witness.frames] == [k % RING for k in range(1000)]
        wait_for_status(link, frames=1000, lost=0, duplicates=0, refused=0, reconnects=0)
        sent = wait_for_status(tx, frames=1000, lost=0, torn=0, void=0, resent=0, cnt0=1000)
        frame_size = 2 * SHAPE[0] * SHAPE[1] + 16
        keywords = _core.StreamFile.open(str(hosts.near), "cam1").metadata["NBkw"]
        assert sent["bytes"] == 384 + 1000 * (frame_size + 128 * keywords)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64", "float16", "int64"])
def test_any_pixel_type_arrives(hosts: Hosts, dtype: str) -> None:
    from vampires.stream import Stream

    stream = Stream.create("any", (4, 6), dtype, ring=8, directory=hosts.near)
    frame = (np.arange(24).reshape(4, 6) - 11).astype(dtype)
    stream.write(frame)
    with receiver(hosts.far) as link, sender(hosts.near, "any", link.port):
        wait_for_status(link, frames=1)
    found, _, _ = newest(hosts.far, "any")
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, frame)


def test_frames_of_one_array_arrive_one_by_one(hosts: Hosts) -> None:
    cam = camera(hosts, ring=0)
    with receiver(hosts.far) as link, sender(hosts.near, "cam1", link.port) as tx:
        wait_for_status(tx, state="connected")
        for cnt0 in range(1, 60):
            cam.send()
            wait_for_status(link, cnt0=cnt0, frames=cnt0)
            with Witness(hosts.far, "cam1", pools(SHAPE)) as seen:
                seen.wait_for(cnt0)
        wait_for_status(link, lost=0, duplicates=0)


def test_one_array_that_is_too_fast_loses_frames_and_counts_them(hosts: Hosts) -> None:
    """What arrives is right all the same: no frame is a mixture of two."""
    cam = camera(hosts, LARGE, ring=0)
    with (
        Witness(hosts.far, "cam1", pools(LARGE)) as seen,
        receiver(hosts.far) as link,
        sender(hosts.near, "cam1", link.port) as tx,
    ):
        wait_for_status(tx, state="connected")
        cam.send(3000)
        wait_until(lambda: counter_of(hosts.far, "cam1") >= 2990, "the newest frames")
        wait_until(lambda: tx.status()["cnt0"] == 3000, "the newest frame sent")
        wait_for_status(link, cnt0=3000)
        sent, got = tx.status(), link.status()
        assert sent["frames"] + sent["lost"] == 3000
        assert got["frames"] == sent["frames"]
        # The receiver cannot know of frames before the first that it got.
        assert got["lost"] <= sent["lost"]
        seen.check()


@pytest.mark.parametrize("ring", [0, RING])
def test_a_stream_that_rests_is_seen_at_the_far_end(hosts: Hosts, ring: int) -> None:
    cam = camera(hosts, ring=ring)
    cam.send(5)
    with receiver(hosts.far) as link, sender(hosts.near, "cam1", link.port):
        wait_for_status(link, frames=1, lost=0)
    with Witness(hosts.far, "cam1", pools(SHAPE)) as seen:
        assert seen.wait_for(5) == [5]


def test_slices_of_a_cube_arrive_where_they_belong(hosts: Hosts) -> None:
    """A 3D stream that is no temporal ring: a frame is the slice that cnt1 names."""
    rng = np.random.default_rng(4)
    order = [0, 3, 1, 1, 2, 3, 0]
    with (
        ForeignStream.create(hosts.near, "cube", size=(5, 3, 4), dtype="uint16") as stream,
        receiver(hosts.far) as link,
        sender(hosts.near, "cube", link.port) as tx,
    ):
        wait_for_status(tx, state="connected")
        for cnt0, slice_ in enumerate(order, 1):
            pixels = rng.integers(0, 65535, (3, 5), np.uint16)
            run(stream.library(pixels, cnt1=slice_))
            wait_for_status(link, cnt0=cnt0)
            far = _core.StreamFile.open(str(hosts.far), "cube")
            assert far.metadata["cnt1"] == slice_
            np.testing.assert_array_equal(far.view()[slice_], pixels)
        np.testing.assert_array_equal(far.view(), stream.array)


def test_large_frames_of_one_array_arrive_however_the_kernel_wakes_us(hosts: Hosts) -> None:
    """Larger than what a new connection has memory for."""
    pixels = make_pool((1000, 3000), "uint16", frames=1)[0]
    with receiver(hosts.far) as link:
        for k in range(1, 61):
            with MilkSender(link.port) as peer:
                hello = handshake("far", (3000, 1000), cnt0=k)
                peer.send(hello, frame_bytes(pixels, k))
                wait_for_status(link, frames=k, lost=0)
        np.testing.assert_array_equal(newest(hosts.far, "far")[0], pixels)


def test_a_void_frame_is_never_taken_for_another(hosts: Hosts) -> None:
    """Overwritten at its source while it was sent: its pixels are those of no frame."""
    pixels = make_pool((3, 5), "uint16", frames=3)
    junk = np.full((3, 5), 7, np.uint16)
    with receiver(hosts.far) as link, MilkSender(link.port) as peer:
        peer.send(handshake("far", (5, 3)), frame_bytes(pixels[0], 1))
        wait_for_status(link, frames=1)
        peer.send(frame_bytes(junk, -1))
        wait_for_status(link, void=1)
        with contextlib.suppress(TimeoutError):  # no whole frame is there to be read
            np.testing.assert_array_equal(newest(hosts.far, "far")[0], pixels[0])
        peer.send(frame_bytes(pixels[2], 3))
        wait_for_status(link, frames=2, lost=1)
        np.testing.assert_array_equal(newest(hosts.far, "far")[0], pixels[2])


def test_a_frame_that_comes_again_changes_nothing(hosts: Hosts) -> None:
    """As after a connection that broke: older than what is published."""
    pixels = make_pool((3, 5), "uint16", frames=4)
    with receiver(hosts.far) as link:
        with MilkSender(link.port) as peer:
            peer.send(handshake("far", (5, 3), inode=9))
            peer.send(*[frame_bytes(pixels[k], k) for k in (1, 2, 3)])
            wait_for_status(link, frames=3)
        wait_for_status(link, state="listening")
        with MilkSender(link.port) as peer:
            peer.send(handshake("far", (5, 3), inode=9, cnt0=3))
            peer.send(*[frame_bytes(pixels[k], k) for k in (1, 2)])
            wait_for_status(link, duplicates=2, frames=3)
            with contextlib.suppress(TimeoutError):
                found, info, _ = newest(hosts.far, "far")
                assert info.cnt0 == 3
                np.testing.assert_array_equal(found, pixels[3])


# -- keywords and times ------------------------------------------------------------------------


def test_keywords_arrive_with_their_comments(hosts: Hosts) -> None:
    given = {"EXPTIME": (0.5, "sec"), "GAIN": (7, "e-/adu"), "OBJ": ("HD1", "name")}
    given |= {"COOLED": (True, "logical"), "_MAQTIME": (0, "us")}
    cam = camera(hosts, keywords=given)
    with receiver(hosts.far) as link, sender(hosts.near, "cam1", link.port):
        cam.send(acquired_ns=1_700_000_000_123_456_000, GAIN=(8, "e-/adu"))
        wait_for_status(link, frames=1)
        _, info, keywords = newest(hosts.far, "cam1")
        assert keywords == {
            **given,
            "GAIN": (8, "e-/adu"),
            "_MAQTIME": (1_700_000_000_123_456, ""),
        }
        assert info.acquired_ns == 1_700_000_000_123_456_000


def test_keywords_belong_to_their_frame_also_after_a_stall(hosts: Hosts) -> None:
    """Those of frames that waited in the ring while newer frames had newer ones."""
    cam = camera(hosts, LARGE, ring=64, keywords={"KNUM": 0, "_MAQTIME": 0})
    base_ns = 1_700_000_000_000_000_000
    with MilkReceiver() as milk, sender(hosts.near, "cam1", milk.port) as tx:
        wait_for_status(tx, state="connected")
        cam.send(acquired_ns=base_ns + 1000, KNUM=1)
        milk.wait_for(1)
        milk.pause()
        while tx.status()["frames"] == cam.stream.cnt0:  # until the network takes no more
            cnt0 = cam.stream.cnt0 + 1
            cam.send(acquired_ns=base_ns + 1000 * cnt0, KNUM=cnt0)
            with contextlib.suppress(AssertionError):
                _wait_briefly(lambda: tx.status()["frames"] == cam.stream.cnt0)
        stalled = cam.stream.cnt0
        for cnt0 in range(stalled + 1, stalled + 41):
            cam.send(acquired_ns=base_ns + 1000 * cnt0, KNUM=cnt0)
            _wait_briefly(lambda: False)
        milk.resume()
        frames = milk.wait_for(stalled + 40)
        wait_for_status(tx, lost=0)
    assert [frame.cnt0 for frame in frames] == list(range(1, stalled + 41))
    for frame in frames:
        values = {entry.name: entry.value for entry in decode_keywords(frame.keywords)}
        assert values["_MAQTIME"] == (base_ns + 1000 * frame.cnt0) // 1000
        assert values["KNUM"] == frame.cnt0


def _wait_briefly(condition: Any) -> None:
    """Until the condition or 20 ms later: time for a sender that looks every millisecond."""
    import time

    end = time.monotonic() + 0.02
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


# -- a network that misbehaves -----------------------------------------------------------------


def test_a_stall_that_the_ring_bridges_loses_nothing(hosts: Hosts, witness: Witness) -> None:
    cam = camera(hosts, LARGE)
    with (
        receiver(hosts.far) as link,
        Proxy(link.port) as network,
        sender(hosts.near, "cam1", network.port) as tx,
    ):
        cam.send(5)
        witness.wait_for(5)
        network.stalled = True
        cam.send(STALL_FRAMES)
        assert tx.status()["frames"] < STALL_FRAMES  # the network is full
        network.stalled = False
        counts = witness.wait_for(STALL_FRAMES + 5)
        assert counts[-STALL_FRAMES:] == list(range(6, STALL_FRAMES + 6))
        wait_for_status(tx, lost=0, reconnects=0, resent=0)
        wait_for_status(link, lost=0, duplicates=0)


def test_a_stall_longer_than_the_ring_loses_what_is_counted(
    hosts: Hosts, witness: Witness
) -> None:
    cam = camera(hosts, LARGE, ring=32)
    with (
        receiver(hosts.far) as link,
        Proxy(link.port) as network,
        sender(hosts.near, "cam1", network.port) as tx,
    ):
        wait_for_status(tx, state="connected")
        cam.send()
        witness.wait_for(1)
        network.stalled = True
        cam.send(STALL_FRAMES)
        network.stalled = False
        counts = witness.wait_for(STALL_FRAMES + 1)
        lost = tx.status()["lost"]
        assert lost > 0
        wait_for_status(tx, lost=lost, frames=STALL_FRAMES + 1 - lost)
        wait_for_status(link, lost=lost, frames=STALL_FRAMES + 1 - lost)
        assert gaps(counts) >= lost  # the witness too may be late for a ring so small
        wait_until(lambda: any("lost" in text for text in told(tx, "lost")), "a line")


@pytest.mark.parametrize("cuts", [1, 5])
def test_a_connection_that_is_cut_loses_nothing_and_repeats_nothing(
    hosts: Hosts, witness: Witness, cuts: int
) -> None:
    cam = camera(hosts, LARGE)
    with (
        receiver(hosts.far) as link,
        Proxy(link.port, delay_s=0.005) as network,
        sender(hosts.near, "cam1", network.port) as tx,
    ):
        cam.send(20)
        witness.wait_for(20)
        for cut in range(1, cuts + 1):
            cam.send(40)
            network.cut()
            cam.send(40)
            witness.wait_for(20 + 80 * cut)
        counts = witness.wait_for(20 + 80 * cuts)
        assert gaps(counts) == 0
        assert tx.status()["reconnects"] >= cuts
        assert link.status()["lost"] == tx.status()["lost"] == 0
        assert len(told(tx, "disconnected")) == tx.status()["reconnects"]


def test_a_slow_and_a_late_network_change_nothing(hosts: Hosts, witness: Witness) -> None:
    cam = camera(hosts)
    with (
        receiver(hosts.far) as link,
        Proxy(link.port, delay_s=0.1) as network,
        sender(hosts.near, "cam1", network.port) as tx,
    ):
        network.bytes_per_s = 200_000
        wait_for_status(tx, state="connected")
        cam.send(100)
        counts = witness.wait_for(100)
        assert gaps(counts) == 0
        wait_for_status(link, lost=0, duplicates=0, reconnects=0)


def test_a_cut_in_mid_frame_publishes_nothing_torn(hosts: Hosts) -> None:
    """Where the copy is one array, in which every part of a frame would show."""
    cam = camera(hosts, LARGE, ring=0)
    with (
        Witness(hosts.far, "cam1", pools(LARGE)) as seen,
        receiver(hosts.far) as link,
        Proxy(link.port) as network,
        sender(hosts.near, "cam1", network.port) as tx,
    ):
        for cnt0 in range(1, 11):
            network.bytes_per_s = 2_000_000
            wait_for_status(tx, state="connected")
            passed = network.passed_bytes
            cam.send()
            wait_until(lambda at=passed: network.passed_bytes > at + 1000, "part of a frame")
            network.cut()
            network.bytes_per_s = float("inf")
            seen.wait_for(cnt0)
        wait_for_status(link, lost=0)


# -- ends that come and go ---------------------------------------------------------------------


@pytest.mark.parametrize("first", ["receiver", "sender", "camera"])
def test_the_ends_and_the_camera_may_be_started_in_any_order(
    hosts: Hosts, witness: Witness, first: str
) -> None:
    port = free_port()
    order = {
        "receiver": ["receiver", "camera", "sender"],
        "sender": ["sender", "receiver", "camera"],
        "camera": ["camera", "sender", "receiver"],
    }[first]
    with contextlib.ExitStack() as stack:
        for what in order:
            if what == "camera":
                cam = camera(hosts)
            elif what == "sender":
                tx = stack.enter_context(sender(hosts.near, "cam1", port))
                wait_until(lambda: tx.events(0.0), "a word on what is missing")  # noqa: B023
            else:
                rx = stack.enter_context(receiver(hosts.far, port))
        wait_for_status(tx, state="connected")
        cam.send(10)
        assert gaps(witness.wait_for(10)) == 0
        wait_for_status(rx, frames=10, lost=0)


@pytest.mark.parametrize("ring", [RING, 0])
def test_a_receiver_that_starts_again_takes_the_stream_up(hosts: Hosts, ring: int) -> None:
    """Its readers stay on it, and the counter goes on."""
    cam = camera(hosts, ring=ring)
    port = free_port()
    with (
        Witness(hosts.far, "cam1", pools(SHAPE)) as seen,
        sender(hosts.near, "cam1", port) as tx,
    ):
        for cnt0 in range(1, 5):
            with receiver(hosts.far, port) as link:
                wait_for_status(tx, state="connected")
                cam.send()
                seen.wait_for(cnt0)
                wait_for_status(link, cnt0=cnt0, lost=0)
        assert gaps(seen.counts) == 0
        assert len({frame.file for frame in seen.frames}) == 1
        wait_for_status(tx, lost=0)


def test_frames_of_the_time_without_a_receiver_arrive_later(
    hosts: Hosts, cam: Camera, witness: Witness
) -> None:
    port = free_port()
    with sender(hosts.near, "cam1", port) as tx:
        with receiver(hosts.far, port):
            cam.send(10)
            witness.wait_for(10)
        wait_for_status(tx, state="connecting")
        cam.send(500)
        with receiver(hosts.far, port) as link:
            counts = witness.wait_for(510)
            assert gaps(counts) == 0
            wait_for_status(link, lost=0)
        wait_for_status(tx, lost=0)


def test_a_sender_that_starts_again_shows_as_a_gap(
    hosts: Hosts, cam: Camera, witness: Witness
) -> None:
    with receiver(hosts.far) as link:
        with sender(hosts.near, "cam1", link.port):
            cam.send(10)
            witness.wait_for(10)
        wait_for_status(link, state="listening")
        cam.send(7)
        with sender(hosts.near, "cam1", link.port) as tx:
            wait_for_status(tx, state="connected")
            cam.send(10)
            counts = witness.wait_for(27)
        missing = gaps(counts)
        assert missing <= 7
        wait_for_status(link, lost=missing, connections=2, reconnects=1)


@pytest.mark.parametrize("shape", [(10, 8), (30, 32), SHAPE])
@pytest.mark.parametrize("ring", [RING, 0])
def test_a_camera_that_begins_anew_is_followed(
    hosts: Hosts, shape: tuple[int, int], ring: int
) -> None:
    """Smaller, larger, and of the same size."""
    with (
        Witness(hosts.far, "cam1", pools(SHAPE, shape)) as seen,
        receiver(hosts.far) as link,
        sender(hosts.near, "cam1", link.port) as tx,
    ):
        old = camera(hosts, ring=ring)
        for cnt0 in range(1, 6):
            old.send()
            wait_for_status(link, frames=cnt0)
            seen.wait_for(cnt0)
        old.stream.remove()
        new = camera(hosts, shape, ring=ring)
        for cnt0 in range(1, 4):
            new.send()
            wait_for_status(link, cnt0=cnt0)
        same = shape == SHAPE
        if same:  # the copy is taken up, its counter goes back
            wait_until(lambda: seen.counts[-1] == 3, "the new frames")
        else:
            seen.wait_for(3, streams=2)
        wait_for_status(link, lost=0, refused=0, state="receiving")
        wait_for_status(tx, lost=0)
        assert any("stream" in text for text in told(link, "stream"))


def test_frames_that_went_with_their_stream_are_counted(hosts: Hosts) -> None:
    """Of a camera that began anew while nobody could be reached."""
    port = free_port()
    old = camera(hosts)
    with sender(hosts.near, "cam1", port) as tx:
        with receiver(hosts.far, port):
            old.send(10)
            wait_for_status(tx, cnt0=10)
            wait_until(lambda: counter_of(hosts.far, "cam1") == 10, "the frames")
        wait_until(lambda: "refused" in tx.status()["last_error"], "nobody there")
        old.send(7)
        old.stream.remove()
        new = camera(hosts, (10, 8))
        new.send(3)
        with receiver(hosts.far, port) as link:
            wait_until(lambda: link.status()["cnt0"] == 3, "the new camera")
            arrived = link.status()["frames"] - 3
            assert arrived + link.status()["lost"] + tx.status()["lost"] == 7


def test_a_second_receiver_does_not_fill_the_same_stream(
    hosts: Hosts, cam: Camera, witness: Witness
) -> None:
    with (
        receiver(hosts.far) as link,
        receiver(hosts.far) as second,
        sender(hosts.near, "cam1", link.port) as tx,
    ):
        cam.send(5)
        witness.wait_for(5)
        with sender(hosts.near, "cam1", second.port):
            wait_until(lambda: second.status()["refused"] > 0, "the refusal")
            cam.send(5)
            assert gaps(witness.wait_for(10)) == 0
            assert "another receiver" in second.status()["last_error"]
            assert second.status()["frames"] == 0
        wait_for_status(tx, state="connected", reconnects=0)


def test_a_receiver_in_the_folder_of_its_own_source_is_refused(
    hosts: Hosts, start_process: Any
) -> None:
    """Else the camera's frames would come round again. (The camera is another program.)"""
    cam = camera(hosts)
    cam.send(3)
    other = start_process(["sleep", "1000"])
    with ForeignStream(hosts.near / "cam1.im.shm") as file:
        file.set("creatorPID", other.pid)
    with receiver(hosts.near) as link, sender(hosts.near, "cam1", link.port):
        wait_until(lambda: link.status()["refused"] > 0, "the refusal")
        cam.send(5)
        assert str(other.pid) in link.status()["last_error"]
        wait_for_status(link, frames=0)
        assert cam.stream.cnt0 == 8


def test_frames_do_not_go_round_for_ever(hosts: Hosts, cam: Camera) -> None:
    """A receiver into its own source, where the camera has gone and left its stream."""
    cam.send(3)
    with ForeignStream(hosts.near / "cam1.im.shm") as file:
        file.set("creatorPID", 2**22 + 1)  # above any process
    before = cam.stream.view().copy()
    with receiver(hosts.near) as link, sender(hosts.near, "cam1", link.port) as tx:
        wait_until(lambda: tx.status()["bytes"] > 0, "what is there already")
        wait_until(lambda: link.status()["bytes"] > 0 or link.status()["refused"], "it")
        frames = tx.status()["frames"]
        with contextlib.suppress(AssertionError):
            _wait_briefly(lambda: False)
        assert tx.status()["frames"] - frames <= 1
        assert counter_of(hosts.near, "cam1") == 3
    np.testing.assert_array_equal(cam.stream.view(), before)


def test_a_port_that_is_taken_is_told(hosts: Hosts) -> None:
    with receiver(hosts.far) as link, pytest.raises(OSError, match=str(link.port)):
        _core.TcpReceiver(str(hosts.far), LOOPBACK, link.port, [])


def test_a_host_that_is_unknown_is_told_while_the_sender_goes_on(
    hosts: Hosts, cam: Camera
) -> None:
    with sender(hosts.near, "cam1", 9, host="no-such-host.invalid") as tx:
        wait_until(lambda: "no-such-host" in tx.status()["last_error"], "the reason")
        wait_for_status(tx, state="connecting")


@pytest.mark.parametrize("name", ["../cam1", "a/b", "", "x" * 80])
def test_a_name_that_no_stream_has_is_refused_at_once(hosts: Hosts, name: str) -> None:
    with pytest.raises(_core.StreamInvalid):
        _core.TcpSender(str(hosts.near), name, LOOPBACK, 9)
    if name:
        with pytest.raises(_core.StreamInvalid):
            _core.TcpReceiver(str(hosts.far), LOOPBACK, 0, [], name=name)


def test_ends_stop_at_once_whatever_they_wait_for(hosts: Hosts, cam: Camera) -> None:
    """A sender without stream, without peer, with a peer that reads nothing; a receiver with a
    visitor that says nothing, and in mid-frame. Stopping twice does no harm."""
    cam.send(3)
    with MilkReceiver() as deaf, receiver(hosts.far) as rx, contextlib.ExitStack() as stack:
        deaf.pause()
        ends = [
            stack.enter_context(sender(hosts.near, "nothing", free_port())),
            stack.enter_context(sender(hosts.near, "cam1", free_port())),
            stack.enter_context(sender(hosts.near, "cam1", deaf.port)),
        ]
        with socket.create_connection((LOOPBACK, rx.port)), MilkSender(rx.port) as half:
            half.send(handshake("far", (5, 3)), b"123")
            wait_for_status(rx, state="receiving")
            for end in [*ends, rx]:
                end.stop()
                end.stop()
                wait_for_status(end, state="stopped")
