"""subscribe: always the newest frame, what is known of it, and clean ends."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import numpy as np
import pytest
import zmq
from zmq_ends import LOOPBACK, Camera, free_port, sending, subscription_settles, wait_until

from vampires.allowed_peers import parse_allowed
from vampires.link_keys import key_files, make_keys
from vampires.link_message import FrameMessage
from vampires.subscription import Gaps, is_repeated, subscribe
from vampires.zmq_socket import Endpoint

pytestmark = pytest.mark.usefixtures("shm_dir")


@pytest.fixture
def camera(shm_dir):
    return Camera(keywords={"EXPTIME": (0.5, "[s] exposure time")})


@pytest.fixture
def sender(camera):
    with sending() as running:
        yield running


@pytest.fixture
def subscribed(sender):
    """A subscription that is connected."""
    with subscribe(str(sender.end.endpoint), "vcam1", timeout=20) as subscription:
        wait_until(lambda: sender["connections"] == 1, "the connection")
        wait_until(lambda: "connected" in repr(subscription), "the connection")
        subscription_settles()
        yield subscription


def inboxes() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("inbox")]


# What comes


def test_a_frame_comes_with_all_that_is_known_of_it(camera, subscribed):
    before_ns = time.time_ns()
    camera.write(acquired_ns=before_ns)
    frame, info = next(subscribed)
    np.testing.assert_array_equal(frame, np.ones((6, 8), np.uint16))
    assert (info.stream, info.cnt0, info.acquired_ns) == ("vcam1", 1, before_ns)
    assert before_ns <= info.sent_ns <= info.received_ns <= time.time_ns()
    assert (info.throttled, info.dropped) == (0, 0)
    assert info.keywords == {"EXPTIME": 0.5}
    assert info.comments == {"EXPTIME": "[s] exposure time"}


def test_a_frame_is_the_scripts_own(camera, subscribed):
    camera.write()
    frame, _ = next(subscribed)
    frame -= frame.min()
    assert frame.sum() == 0


def test_a_busy_script_gets_the_newest_frame_and_knows_what_it_missed(
    camera, sender, subscribed
):
    camera.write()
    assert next(subscribed)[1].cnt0 == 1
    for number in range(2, 42):
        camera.write()
        sender.reaches(cnt0=number)
    frame, info = next(subscribed)
    missed = 0
    if info.cnt0 < 41:  # the last ones were on their way
        assert info.cnt0 >= 39
        missed = info.dropped
        frame, info = next(subscribed)
    assert frame[0, 0] == info.cnt0
    assert missed + info.dropped >= 37


def test_what_the_sender_leaves_out_is_told(camera):
    with (
        sending(skip=3) as sender,
        subscribe(str(sender.end.endpoint), "vcam1", timeout=20) as subscription,
    ):
        wait_until(lambda: "connected" in repr(subscription), "the connection")
        subscription_settles()
        for number in range(1, 10):
            camera.write()
            if number % 4 == 1:
                sender.reaches(cnt0=number)
                info = next(subscription)[1]
                assert (info.cnt0, info.dropped) == (number, 0)
                assert info.throttled == (3 if number > 1 else 0)


def test_a_frame_sent_again_is_given_once(camera):
    with (
        sending(resend_s=0.02) as sender,
        subscribe(str(sender.end.endpoint), "vcam1", timeout=20) as subscription,
    ):
        camera.write()
        wait_until(lambda: sender["resent"] > 1, "repetitions")
        assert next(subscription)[1].cnt0 == 1
        repeated = sender["resent"]
        wait_until(lambda: sender["resent"] > repeated + 3, "repetitions")
        subscription.timeout = 0.1
        with pytest.raises(TimeoutError):
            next(subscription)
        camera.write()
        subscription.timeout = 20
        _, info = next(subscription)
        assert (info.cnt0, info.dropped) == (2, 0)


def message(**values):
    return FrameMessage("vcam1", np.zeros((1, 1)), **values)


def test_gaps_are_counted_between_messages_of_one_start_of_a_sender():
    gaps = Gaps()
    assert gaps.since_last(message(sender=7, sequence=100, throttled=50)) == (0, 0)
    assert gaps.since_last(message(sender=7, sequence=101, throttled=52)) == (2, 0)
    assert gaps.since_last(message(sender=7, sequence=105, throttled=52)) == (0, 3)
    assert gaps.since_last(message(sender=8, sequence=9, throttled=9)) == (0, 0)
    assert gaps.since_last(message(sender=8, sequence=3, throttled=2)) == (0, 0)


def test_messages_without_numbers_are_never_taken_for_repetitions():
    assert not is_repeated(message(), message())
    assert not is_repeated(message(cnt0=3, sender=1), None)
    assert is_repeated(message(cnt0=3, sender=1), message(cnt0=3, sender=1, sequence=4))
    assert not is_repeated(message(cnt0=3, sender=1), message(cnt0=3, sender=2))


# A program that stood still

STEPWISE = """
import sys
from vampires.subscription import subscribe
frames = subscribe(sys.argv[1], "vcam1", timeout=20)
for line in sys.stdin:
    print(next(frames)[1].cnt0, flush=True)
"""


def test_a_program_that_was_stopped_gets_no_old_frame(camera, sender, start_python):
    program = start_python(STEPWISE, sender.end.endpoint, stdin=-1)

    def ask() -> int:
        program.stdin.write("\n")
        program.stdin.flush()
        return int(program.stdout.readline())

    with camera.filming():
        ask()
        program.send_signal(signal.SIGSTOP)
        stopped_at = camera.stream.cnt0
        wait_until(lambda: camera.stream.cnt0 > stopped_at + 45, "frames meanwhile")
        program.send_signal(signal.SIGCONT)
        newest = sender["cnt0"]
        assert ask() >= newest - 2


# Ends


def test_a_loop_that_is_left_closes_the_connection(camera, sender):
    with camera.filming():
        for _, info in subscribe(str(sender.end.endpoint), "vcam1", timeout=20):
            assert info.cnt0 > 0
            break
    gc.collect()
    assert inboxes() == []
    sender.reaches(connections=0)


def test_a_subscription_that_is_dropped_closes_the_connection(sender):
    subscription = subscribe(str(sender.end.endpoint), "vcam1")
    wait_until(lambda: sender["connections"] == 1, "the connection")
    del subscription
    gc.collect()
    assert inboxes() == []
    sender.reaches(connections=0)


def test_nothing_is_left_open_after_many_subscriptions(sender):
    subscribe(str(sender.end.endpoint), "vcam1").close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        subscription = subscribe(str(sender.end.endpoint), "vcam1")
        subscription.close()
        assert list(subscription) == []
    sender.reaches(connections=0)
    wait_until(
        lambda: len(os.listdir("/proc/self/fd")) <= before,
        lambda: f"{before} files, found {len(os.listdir('/proc/self/fd'))}",
    )


@pytest.mark.parametrize("moment", ["waiting", "at work"])
def test_ctrl_c_ends_a_script(camera, sender, start_python, moment):
    loop = "time.sleep(60)" if moment == "at work" else "pass"
    program = start_python(
        "import sys, time\n"
        "from vampires.subscription import subscribe\n"
        "for frame, info in subscribe(sys.argv[1], 'vcam1'):\n"
        "    print(info.cnt0, flush=True)\n"
        f"    {loop}\n",
        sender.end.endpoint,
    )
    with camera.filming():
        assert int(program.stdout.readline()) > 0
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=20)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


def test_a_script_that_ends_with_an_open_subscription_ends(sender, start_python):
    program = start_python(
        "import sys\n"
        "from vampires.subscription import subscribe\n"
        "subscription = subscribe(sys.argv[1], 'vcam1')\n",
        sender.end.endpoint,
    )
    assert program.communicate(timeout=20) == ("", "")
    assert program.returncode == 0


# What goes wrong


def test_a_timeout_says_that_nothing_answers():
    with (
        subscribe(f"tcp://{LOOPBACK}:{free_port()}", "vcam1", timeout=0.1) as subscription,
        pytest.raises(TimeoutError, match="nothing answers there; does vampires-zmq-send"),
    ):
        next(subscription)


def test_a_timeout_says_that_no_frames_come_and_one_may_go_on(camera, sender, subscribed):
    subscribed.timeout = 0.1
    with pytest.raises(TimeoutError, match=r"within 0\.1 s.*is the camera running"):
        next(subscribed)
    camera.write()
    subscribed.timeout = 20
    assert next(subscribed)[1].cnt0 == 1


def test_a_timeout_says_that_the_connection_is_refused():
    allowed = tuple(parse_allowed(["10.99.0.0/16"]))
    with (
        sending(allowed=allowed) as sender,
        subscribe(str(sender.end.endpoint), "vcam1") as subscription,
    ):
        wait_until(lambda: "refused" in repr(subscription), "the refusal")
        subscription.timeout = 0.01
        with pytest.raises(TimeoutError, match="does the sender allow this computer"):
            next(subscription)


def test_a_timeout_says_that_what_comes_cannot_be_read():
    context = zmq.Context()
    publisher = context.socket(zmq.PUB)
    port = publisher.bind_to_random_port(f"tcp://{LOOPBACK}")
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.01):
            publisher.send(b"vcam1 nonsense")
        publisher.close(linger=0)  # by the thread that uses it, before the context ends

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        with subscribe(f"tcp://{LOOPBACK}:{port}", "vcam1", timeout=0.5) as subscription:
            wait_until(lambda: "connected" in repr(subscription), "the connection")
            with pytest.raises(TimeoutError, match="cannot be read; the last error was"):
                next(subscription)
            assert subscription.bad_messages > 0
    finally:
        stop.set()
        publishing.join()
        context.term()


def test_a_sender_that_comes_later_is_found(camera):
    endpoint = Endpoint(LOOPBACK, free_port())
    with (
        subscribe(str(endpoint), "vcam1", timeout=20) as subscription,
        sending(endpoint=endpoint, resend_s=0.05),
    ):
        camera.write()
        assert next(subscription)[1].cnt0 == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("scexao5", "vcam1"), "expected an address and a port"),
        (("tcp://no-such-host.invalid:5560", "vcam1"), "is not known"),
        (("tcp://127.0.0.1:5560", "../vcam1"), "cannot be a stream's name"),
    ],
)
def test_mistakes_are_told_at_once(arguments, text):
    with pytest.raises(ValueError, match=text):
        subscribe(*arguments)


def test_keys_are_given_as_files(camera, tmp_path):
    server, _ = make_keys(tmp_path, "server")
    client, _ = make_keys(tmp_path, "client")
    from vampires.link_keys import load_secret

    with sending(keys=load_secret(server.secret), resend_s=0.05) as sender:
        camera.write()
        address = str(sender.end.endpoint)
        with subscribe(
            address,
            "vcam1",
            timeout=20,
            keys=str(client.secret),
            server_key=key_files(tmp_path, "server").public,
        ) as subscription:
            assert next(subscription)[1].cnt0 == 1
        with pytest.raises(ValueError, match="the sender's is missing"):
            subscribe(address, "vcam1", keys=client.secret)
