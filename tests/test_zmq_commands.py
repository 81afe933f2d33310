"""vampires-zmq-send, vampires-zmq-recv and the names that pyMilk's start scripts type."""

from __future__ import annotations

import json
import signal
import socket
import subprocess

import pytest
from zmq_ends import LOOPBACK, Camera, free_port, receiving, sending, wait_until

from vampires.link_keys import make_keys
from vampires.stream import Stream, StreamError

pytestmark = pytest.mark.usefixtures("shm_dir")

ALIAS = """
import sys
from vampires.commands.{module} import main_pymilk
sys.exit(main_pymilk())
"""


def listening(process: subprocess.Popen) -> str:
    """The address a sender says it listens on."""
    return process.stderr.readline().split("listening on ")[1].strip()


def ended(process: subprocess.Popen, number: int = signal.SIGINT) -> tuple[str, str]:
    """Ends the command; its output. It must end well."""
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return out, errors


def copy_cnt0(name: str = "copy") -> int:
    try:
        with Stream.open(name) as copy:
            return copy.cnt0
    except StreamError:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stream_crosses_and_both_ends_end_well(start_command, number):
    camera = Camera(keywords={"EXPTIME": (0.5, "[s]")})
    sender = start_command("zmq_send", "vcam1", "--bind", f"tcp://{LOOPBACK}:0")
    receiver = start_command("zmq_recv", listening(sender), "vcam1", "--as", "copy")
    assert sender.stderr.readline().endswith("sending vcam1, 6 x 8 uint16\n")
    with camera.filming():
        wait_until(lambda: copy_cnt0() > 5, "frames")
    with Stream.open("copy") as copy:
        frame, info = copy.latest()
        assert frame[0, 0] == info.cnt0
        assert copy.keywords["EXPTIME"] == 0.5
    _, errors = ended(receiver, number)
    assert "made stream copy, 6 x 8 uint16" in errors
    assert "frames, " in errors.splitlines()[-1]
    _, errors = ended(sender, number)
    assert "throttled" in errors.splitlines()[-1]


def test_json_tells_the_counters_once_a_second(start_command):
    camera = Camera()
    sender = start_command("zmq_send", "vcam1", "--bind", f"tcp://{LOOPBACK}:0", "--json")
    receiver = start_command("zmq_recv", listening(sender), "vcam1", "--as", "copy", "--json")
    with camera.filming():
        received = [json.loads(receiver.stdout.readline()) for _ in range(2)]
        sent = json.loads(sender.stdout.readline())
    assert sent["stream"] == "vcam1"
    assert {"frames", "throttled", "skipped", "bytes", "mbit_per_s", "fps"} <= sent.keys()
    assert received[0]["frames"] < received[1]["frames"]
    assert received[1]["stream"] == "copy"
    assert {"dropped_by_network", "throttled", "bad_messages", "age_ms"} <= received[1].keys()
    for process in (sender, receiver):
        out, _ = ended(process)
        last = json.loads(out.splitlines()[-1])
        assert last["frames"] > 0
        assert last["time"].endswith("Z")


def test_the_names_and_arguments_of_pymilk(start_python):
    camera = Camera()
    port = free_port()
    place = f"{LOOPBACK}:{port}"
    receiver = start_python(ALIAS.format(module="zmq_recv"), place, "vcam1", "-s", "copy")
    sender = start_python(
        ALIAS.format(module="zmq_send"), place, "vcam1", "-f", 200, "-s", 2, "-t", 0.5
    )
    with camera.filming(0.01):
        wait_until(lambda: copy_cnt0() > 3, "frames")
    ended(receiver)
    ended(sender)


def test_the_sender_of_pymilks_name_sends_what_pymilk_sends(start_python):
    import zmq

    from vampires.pymilk_message import decode_pymilk

    camera = Camera(keywords={"EXPTIME": 0.5})
    sender = start_python(
        ALIAS.format(module="zmq_send"), f"{LOOPBACK}:0", "vcam1", "-f", 20, "-t", 0.05
    )
    camera.write()
    context = zmq.Context()
    try:
        # As pyMilk's zmq_recv.py: the bare name.
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"vcam1")
        subscriber.connect(listening(sender))
        assert subscriber.poll(20_000)
        stream, frame, keywords = decode_pymilk(subscriber.recv())
    finally:
        context.destroy(linger=0)
    assert (stream, keywords) == ("vcam1", {"EXPTIME": 0.5})
    assert (frame == 1).all()
    ended(sender)


def test_keys_are_used_by_both_commands(start_command, tmp_path):
    camera = Camera()
    server, _ = make_keys(tmp_path, "server")
    client, _ = make_keys(tmp_path / "peers", "client")
    sender = start_command(
        *("zmq_send", "vcam1", "--bind", f"tcp://{LOOPBACK}:0", "--resend", 0.1),
        *("--keys", server.secret, "--peer-keys", tmp_path / "peers"),
    )
    receiver = start_command(
        *("zmq_recv", listening(sender), "vcam1", "--as", "copy"),
        *("--keys", client.secret, "--server-key", server.public),
    )
    camera.write()
    wait_until(lambda: copy_cnt0() == 1, "the frame")
    ended(receiver)
    ended(sender)


def test_a_sender_without_a_stream_and_a_receiver_without_a_sender_end_well(start_command):
    sender = start_command("zmq_send", "nothing", "--bind", f"tcp://{LOOPBACK}:0")
    receiver = start_command("zmq_recv", f"tcp://{LOOPBACK}:{free_port()}", "vcam1")
    assert "connecting to" in receiver.stderr.readline()
    listening(sender)
    assert "waiting for stream nothing" in sender.stderr.readline()
    ended(sender)
    ended(receiver)


def test_nobody_who_reads_the_output_is_waited_for(start_command):
    camera = Camera()
    sender = start_command("zmq_send", "vcam1", "--bind", f"tcp://{LOOPBACK}:0", "--json")
    address = listening(sender)
    sender.stdout.close()
    receiver = start_command("zmq_recv", address, "vcam1", "--as", "copy")
    with camera.filming():
        wait_until(lambda: copy_cnt0() > 100, "two seconds of frames")
    ended(receiver)
    sender.stdout = None
    sender.send_signal(signal.SIGINT)
    assert sender.wait(timeout=20) == 0


# Mistakes


SEND = ("zmq_send", "vcam1", "--bind")
RECV = ("zmq_recv",)
MISTAKES = {
    "no --bind": (("zmq_send", "vcam1"), "--bind"),
    "no address": ((*SEND, "5560"), "expected an address and a port"),
    "a bad port": ((*SEND, "tcp://127.0.0.1:99999"), "expected an address and a port"),
    "an address of another computer": (
        (*SEND, "tcp://127.0.0.1:0", "--allow", "1.2.3"),
        "1.2.3",
    ),
    "beyond this computer": ((*SEND, "tcp://0.0.0.0:0"), "name those that may"),
    "everywhere": ((*SEND, "tcp://*:0"), "name those that may"),
    "an address that is not here": (
        (*SEND, "tcp://192.0.2.1:0", "--allow", "10.0.0.1"),
        "cannot listen on tcp://192.0.2.1:0",
    ),
    "an unknown host to listen on": ((*SEND, "tcp://nowhere.invalid:5560"), "is not known"),
    "a bad name": (("zmq_send", "../x", "--bind", "tcp://127.0.0.1:0"), "cannot be a stream"),
    "no rate": ((*SEND, "tcp://127.0.0.1:0", "--fps", "0"), "--fps"),
    "a negative limit": ((*SEND, "tcp://127.0.0.1:0", "--max-mbps", "-1"), "--max-mbps"),
    "pyMilk knows no codec": (
        (*SEND, "tcp://127.0.0.1:0", "--format", "pymilk", "--codec", "lz4"),
        "--codec has no meaning",
    ),
    "peers without a key": (
        (*SEND, "tcp://127.0.0.1:0", "--peer-keys", "peers"),
        "--peer-keys needs --keys",
    ),
    "a key file that is not there": ((*SEND, "tcp://127.0.0.1:0", "--keys", "none"), "none"),
    "no address to receive from": (
        (*RECV, "scexao5", "vcam1"),
        "expected an address and a port",
    ),
    "an unknown host": ((*RECV, "tcp://nowhere.invalid:5560", "vcam1"), "is not known"),
    "a bad stream": ((*RECV, "tcp://127.0.0.1:5560", "a/b"), "cannot be a stream"),
    "a bad name here": ((*RECV, "tcp://127.0.0.1:5560", "vcam1", "--as", "../x"), "../x"),
    "half of the keys": (
        (*RECV, "tcp://127.0.0.1:5560", "vcam1", "--server-key", "none"),
        "go together",
    ),
}


@pytest.mark.parametrize(("arguments", "text"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_exit_status_2(run_command, arguments, text):
    result = run_command(*arguments)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert text in line
    assert line.startswith(f"vampires-{arguments[0].replace('_', '-')}: ")


def test_a_port_that_is_taken_is_a_mistake(run_command):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        result = run_command(*SEND, f"tcp://{LOOPBACK}:{port}")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert f"cannot listen on tcp://{LOOPBACK}:{port}: Address already in use" in line


def test_the_names_of_pymilk_tell_their_own_names_in_mistakes(start_python):
    for module, prog in (("zmq_send", "zmq_send.py"), ("zmq_recv", "zmq_recv.py")):
        process = start_python(ALIAS.format(module=module), "nowhere", "vcam1")
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 2
        assert errors.startswith(f"{prog}: found 'nowhere', expected an address and a port")


@pytest.mark.parametrize("command", ["zmq_send", "zmq_recv"])
def test_help_imports_nothing_heavy(start_python, command):
    process = start_python(
        "import sys\n"
        f"from vampires.commands.{command} import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print([name for name in ('numpy', 'zmq', 'blosc2') if name in sys.modules])\n"
    )
    out, _ = process.communicate(timeout=20)
    assert "example:" in out
    assert out.splitlines()[-1] == "[]"


def test_a_stream_busy_with_another_receiver_is_said_once(start_command):
    camera = Camera()
    with sending(resend_s=0.05) as sender, receiving(sender.end.endpoint) as first:
        camera.write()
        first.reaches(cnt0=1)
        second = start_command("zmq_recv", sender.end.endpoint, "vcam1", "--as", "copy")
        lines = [second.stderr.readline() for _ in range(3)]
        assert any("filled by another receiver" in line for line in lines)
        resent = sender["resent"]
        wait_until(lambda: sender["resent"] > resent + 5, "more frames for it")
        assert second.poll() is None
        _, errors = ended(second)
        assert "filled by another" not in errors
