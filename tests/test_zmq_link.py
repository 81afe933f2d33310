"""The slow link: what is taken, sent and written, and that it comes back after anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from zmq_ends import (
    Camera,
    connected,
    free_port,
    receiving,
    sending,
    subscription_settles,
    wait_until,
)

from vampires.allowed_peers import parse_allowed
from vampires.keywords import decode_keywords
from vampires.link_keys import load_public_keys, load_secret, make_keys
from vampires.link_message import Codec
from vampires.stream import Stream
from vampires.zmq_report import LimitedLines, RecentRate
from vampires.zmq_socket import Endpoint, parse_endpoint

pytestmark = pytest.mark.usefixtures("shm_dir")


# What arrives


def test_a_frame_arrives_with_its_counter_time_and_keywords():
    keywords = {"EXPTIME": (0.5, "[s] exposure time"), "EXTTRIG": True, "OBJECT": ("Vega", "")}
    camera = Camera(keywords={**keywords, "_MAQTIME": (0, "[us] time")})
    with sending() as sender, connected(sender) as receiver:
        for _ in range(3):
            acquired_ns = time.time_ns() - 5_000_000
            micros = (acquired_ns // 1000, "[us] time")
            camera.write(acquired_ns=acquired_ns, keywords={"_MAQTIME": micros})
            receiver.reaches(cnt0=camera.stream.cnt0)
        with Stream.open("copy") as copy:
            frame, info = copy.latest()
            found = decode_keywords(copy._file.keywords_raw())
    np.testing.assert_array_equal(frame, np.full((6, 8), 3, np.uint16))
    assert (info.cnt0, frame.dtype) == (3, np.uint16)
    assert info.acquired_ns // 1000 == acquired_ns // 1000
    assert [(k.name, k.value, k.comment) for k in found] == [
        ("EXPTIME", 0.5, "[s] exposure time"),
        ("EXTTRIG", True, ""),
        ("OBJECT", "Vega", ""),
        ("_MAQTIME", acquired_ns // 1000, "[us] time"),
    ]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("codec", list(Codec))
def test_pixels_of_every_kind_arrive_as_they_were(dtype, codec):
    random = np.random.default_rng(1)
    pixels = random.normal(100, 5, (64, 48)).astype(dtype)
    camera = Camera(shape=pixels.shape, dtype=dtype, ring=0)
    with sending(codec=codec) as sender, connected(sender) as receiver:
        camera.stream.write(pixels)
        receiver.reaches(cnt0=1)
        with Stream.open("copy") as copy:
            frame, _ = copy.latest()
    assert frame.dtype == dtype
    np.testing.assert_array_equal(frame, pixels)


def test_a_stream_of_one_axis_arrives():
    camera = Camera(shape=(9,), ring=0)
    with sending() as sender, connected(sender) as receiver:
        camera.write()
        receiver.reaches(cnt0=1)
        with Stream.open("copy") as copy:
            assert copy.shape == (9,)


def test_a_stream_slower_than_the_rate_passes_frame_by_frame():
    camera = Camera()
    with sending() as sender, connected(sender) as receiver:
        for number in range(1, 31):
            camera.write()
            receiver.reaches(cnt0=number)
        assert (sender["frames"], receiver["frames"]) == (30, 30)
        assert (sender["throttled"], receiver["dropped_by_network"]) == (0, 0)


def test_what_a_fast_stream_leaves_out_is_counted():
    camera = Camera()
    camera.write()
    with sending(fps=50.0) as sender, connected(sender) as receiver:
        camera.write()
        wait_until(lambda: receiver["frames"], "the first frame")
        first = receiver["cnt0"]
        end_s = time.monotonic() + 0.5
        while time.monotonic() < end_s:
            camera.write()
        last = camera.stream.cnt0
        receiver.reaches(cnt0=last)
        status = receiver.end.status()
        assert status["frames"] < last - first
        seen = status["frames"] + status["dropped_by_network"] + status["throttled"]
        assert seen == last - first + 1, (first, status, sender.end.status(), sender.lines)
        wait_until(lambda: sender["cnt0"] == last, "the sender counted it as well")
        assert sender["frames"] + sender["throttled"] == last


def test_skip_leaves_out_so_many_after_each_frame_sent():
    camera = Camera()
    with sending(skip=2) as sender, connected(sender) as receiver:
        seen = []
        for _ in range(9):
            number = camera.write()
            if number % 3 == 1:
                receiver.reaches(cnt0=number)
            seen.append(receiver["cnt0"])
        assert seen == [1, 1, 1, 4, 4, 4, 7, 7, 7]
        assert (sender["skipped"], sender["throttled"], receiver["throttled"]) == (4, 0, 4)


def test_no_more_bits_are_sent_than_allowed():
    camera = Camera(shape=(50, 50), dtype="float64", ring=0)
    start_s = time.monotonic()
    with sending(max_mbps=1.0, codec=Codec.NONE) as sender, connected(sender):
        while sender["frames"] < 5:
            camera.write()
        seconds = time.monotonic() - start_s
        message_bytes = sender["bytes"] / sender["frames"]
        assert 8 * (sender["bytes"] - message_bytes) <= 1e6 * seconds


def test_the_newest_frame_is_sent_again_for_those_who_come_late():
    camera = Camera()
    with sending(resend_s=0.05) as sender:
        camera.write(3)
        wait_until(lambda: sender["resent"] > 2, "repetitions")
        with connected(sender) as receiver:
            receiver.reaches(cnt0=3)
            wait_until(lambda: receiver["resent"] > 1, "repetitions")
            assert receiver["frames"] == 1
            assert receiver["dropped_by_network"] == 0


def test_a_repeated_frame_makes_a_removed_copy_again():
    camera = Camera()
    with sending(resend_s=0.05) as sender, connected(sender) as receiver:
        camera.write()
        receiver.reaches(cnt0=1)
        path = Path(Stream.open("copy").path)
        path.unlink()
        wait_until(path.exists, "the stream is there again")


def test_pymilks_messages_are_sent_and_received():
    camera = Camera(keywords={"EXPTIME": (0.5, "gone on the way")})
    with sending(pymilk=True) as sender, connected(sender) as receiver:
        for number in (1, 2):
            camera.write()
            receiver.reaches(frames=number)
        with Stream.open("copy") as copy:
            frame, info = copy.latest()
            assert copy.keywords["EXPTIME"] == 0.5
    assert (info.cnt0, frame[0, 0]) == (2, 2)


# What changes


def test_a_stream_that_is_not_there_is_waited_for():
    with sending() as sender, connected(sender) as receiver:
        assert "no stream 'vcam1'" in sender.said("waiting for stream vcam1")
        assert sender["state"] == "waiting"
        camera = Camera()
        sender.said("sending vcam1, 6 x 8 uint16")
        camera.write()
        receiver.reaches(cnt0=1)


@pytest.mark.parametrize("shape", [(3, 4), (20, 30)])
def test_a_stream_made_anew_is_followed_at_both_ends(shape):
    camera = Camera()
    with sending() as sender, connected(sender) as receiver:
        camera.write()
        receiver.reaches(cnt0=1)
        with Stream.open("copy") as before:
            camera = Camera(shape=shape, dtype="float32")
            camera.write()
            receiver.said("x".join(f" {size} " for size in shape).strip() + " float32")
            receiver.reaches(cnt0=1)
            assert before._file.fate != "same"
        with Stream.open("copy") as copy:
            assert (copy.shape, copy.dtype) == (shape, np.float32)


def test_more_keywords_than_the_copy_has_room_for_make_it_anew():
    camera = Camera(keyword_room=200)
    with sending() as sender, connected(sender) as receiver:
        camera.write()
        receiver.reaches(cnt0=1)
        camera.write(keywords={f"KEY{n}": n for n in range(100)})
        receiver.reaches(cnt0=2)
        with Stream.open("copy") as copy:
            assert copy.keywords["KEY99"] == 99


def test_a_sender_that_starts_again_is_found_again():
    camera = Camera()
    endpoint = Endpoint("127.0.0.1", free_port())
    with receiving(endpoint) as receiver:
        for number in (1, 2, 3):
            with sending(endpoint=endpoint):
                receiver.reaches(state="connected")
                subscription_settles()
                camera.write()
                receiver.reaches(cnt0=number)
            receiver.reaches(state="connecting")
        assert (receiver["frames"], receiver["connections"]) == (3, 3)
        assert receiver["dropped_by_network"] == 0


def test_a_receiver_that_starts_again_goes_on_in_the_same_stream():
    camera = Camera()
    with sending() as sender:
        for number in (1, 2):
            with connected(sender) as receiver:
                camera.write()
                receiver.reaches(cnt0=number)
                inode = os.stat(Stream.open("copy").path).st_ino
                receiver.said("goes on in stream copy" if number == 2 else "made stream copy")
                if number == 1:
                    first_inode = inode
            sender.reaches(connections=0)
        assert inode == first_inode


def test_one_receiver_at_a_time_fills_a_stream_and_the_next_takes_over():
    camera = Camera()
    with sending() as sender:
        first = connected(sender)
        camera.write()
        first.reaches(frames=1)
        with connected(sender) as second:
            sender.reaches(connections=2)
            camera.write()
            first.reaches(cnt0=2)
            assert "filled by another receiver" in second.said("could not be written")
            assert (second["frames"], second["errors"]) == (0, 1)
            first.close()
            camera.write()
            second.reaches(cnt0=3)


def test_the_stream_that_is_sent_is_never_written_by_the_receiver(start_command):
    simulation = start_command("framesim", "vcam1", "--shape", 20, 30, "--fps", 50)
    with sending() as sender, connected(sender, name="vcam1") as receiver:
        assert "which is running" in receiver.said("could not be written")
        assert receiver["frames"] == 0
        assert simulation.poll() is None


# Who may connect


def test_peers_that_are_not_allowed_are_refused_with_a_line_at_both_ends():
    allowed = tuple(parse_allowed(["10.99.0.0/16"]))
    with sending(allowed=allowed) as sender, receiving(sender.end.endpoint) as receiver:
        assert "127.0.0.1 was refused" in sender.said("not allowed to connect")
        assert "--allow" in receiver.said("refuses the connection")
        wait_until(lambda: receiver["refused"] > 1, "it tries again")
        assert sender["refused"] >= 1


@pytest.fixture
def keys(tmp_path):
    """keys(name) -> (secret pair, public key); all public keys are in tmp_path / 'peers'."""

    def make(name: str):
        folder = tmp_path / "peers"
        files, public = make_keys(folder, name)
        return load_secret(files.secret), public

    return make


def test_with_keys_those_who_are_known_receive(keys, tmp_path):
    camera = Camera()
    (client, _), (server, server_public) = keys("client"), keys("server")
    known = load_public_keys(tmp_path / "peers")
    with (
        sending(keys=server, peer_keys=known) as sender,
        connected(sender, keys=client, server_key=server_public) as receiver,
    ):
        camera.write()
        receiver.reaches(cnt0=1)


@pytest.mark.parametrize("wrong", ["no keys", "server key", "unknown client"])
def test_wrong_keys_are_refused_with_a_line_at_both_ends(keys, wrong):
    camera = Camera()
    (client, client_public), (server, server_public) = keys("client"), keys("server")
    stranger, stranger_public = keys("stranger")
    right = {"keys": client, "server_key": server_public}
    given = {
        "no keys": {},
        "server key": {"keys": client, "server_key": stranger_public},
        "unknown client": {"keys": stranger, "server_key": server_public},
    }[wrong]
    with (
        sending(keys=server, peer_keys=frozenset([client_public])) as sender,
        receiving(sender.end.endpoint, name="none", **given) as receiver,
    ):
        receiver.said("refuses the connection")
        sender.said("was refused")
        wait_until(lambda: receiver["refused"] > 1, "it tries again")
        with connected(sender, **right) as known:
            camera.write()
            known.reaches(cnt0=1)
        assert receiver["frames"] == 0


def test_beyond_this_computer_peers_have_to_be_named(keys):
    _, public = keys("client")
    server, _ = keys("server")
    everywhere = Endpoint("0.0.0.0", 0)
    with pytest.raises(ValueError, match="--allow"):
        sending(endpoint=everywhere)
    with pytest.raises(ValueError, match="--allow"):
        sending(endpoint=everywhere, keys=server)
    with sending(endpoint=everywhere, keys=server, peer_keys=frozenset([public])):
        pass
    with sending(endpoint=everywhere, allowed=tuple(parse_allowed(["10.0.0.1"]))):
        pass


# Small things


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://10.20.0.5:5560", "10.20.0.5", 5560),
        ("scexao5:5560", "scexao5", 5560),
        ("tcp://[fd00::5]:5560", "fd00::5", 5560),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text, host, port):
    endpoint = parse_endpoint(text)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert str(endpoint).removeprefix("tcp://") == text.removeprefix("tcp://")


@pytest.mark.parametrize(
    "text", ["", "scexao5", "tcp://:5560", "a:b", "a:-1", "a:65536", "ipc://x/y:1", "a:٣"]
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(ValueError, match="expected an address and a port"):
        parse_endpoint(text)


def test_lines_of_trouble_are_not_repeated_but_counted():
    said, now = [], [0.0]
    lines = LimitedLines(said.append, clock_s=lambda: now[0])
    for now[0] in (0.0, 1.0, 9.0):
        lines.trouble("a", "first")
    lines.trouble("b", "other")
    lines.news("news")
    now[0] = 10.0
    lines.trouble("a", "again")
    assert said == ["first", "other", "news", "again (2 times more since the last line)"]
    assert lines.last == "again"


def test_rates_are_those_of_the_last_two_seconds():
    rate = RecentRate()
    assert rate.now(0) == (0.0, 0.0)
    for number in range(100):
        rate.add(number * 50_000_000, 1_000_000)
    assert rate.now(99 * 50_000_000) == (20.0, 160.0)
    assert rate.now(200 * 50_000_000) == (0.0, 0.0)


def test_a_port_that_is_taken_is_an_error_at_the_start():
    with sending() as sender, pytest.raises(OSError, match="cannot listen on tcp:"):
        sending(endpoint=sender.end.endpoint)
