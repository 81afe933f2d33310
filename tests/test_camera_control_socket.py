"""What comes over the control socket of a camera, whatever it is, gets an answer or the door;
frames go on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camera_process import (
    PATIENCE_S,
    CameraProcesses,
    camera_processes,
    frames_come,
    wait_until,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vampires.camera import Camera, control_socket
from vampires.camera.control_socket import (
    MAX_CLIENTS,
    MAX_LINE_BYTES,
    ControlServer,
    NoCameraProcess,
    RequestRefused,
    request,
    socket_path,
)
from vampires.run_folder import RunFolder, bind_socket, connect_socket

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just("9" * 500)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "do": st.sampled_from(["set", "status", "keyword", "release", "acquire"]) | values,
        "what": st.sampled_from(["mode", "crop", "tint", "fps", "readout", "trigger"]) | values,
        "value": st.floats(1e-3, 10) | st.lists(st.integers(-5, 90), max_size=4) | values,
        "name": st.sampled_from(["OBJECT", "EXPTIME"]) | values,
        "comment": values,
    },
)


@pytest.fixture
def cameras(
    shm_dir: Path, start_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CameraProcesses]:
    with camera_processes(start_command, tmp_path, monkeypatch) as cameras:
        yield cameras


@pytest.fixture
def cam(cameras: CameraProcesses) -> Iterator[Camera]:
    """A camera, which runs, and has said nothing of an error, also afterwards."""
    cam = cameras.start()
    yield cam
    frames_come()
    assert cam.status()["state"] == "running"
    cameras.end()
    out, err = cameras.processes[0].communicate()
    assert err == ""
    assert cameras.processes[0].returncode == 0, out


def connected() -> socket.socket:
    return connect_socket(socket_path("small", RunFolder()), PATIENCE_S)


def answer_of(client: socket.socket) -> Any:
    """The answer; None for a connection that was closed without one."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            received += part
    return json.loads(received) if received else None


def answer_to(line: bytes) -> Any:
    with connected() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
        return answer_of(client)


def test_garbage_gets_a_refusal(cam: Camera) -> None:
    for line, said in (
        (b"", "found 0 bytes, expected a line of JSON"),
        (b"\n", "found no JSON"),
        (b"hello\n", "found no JSON"),
        (b"\xff\xfe\x00\n", "found no JSON"),
        (b"[1, 2]\n", "found JSON that is no object"),
        (b"null\n", "found JSON that is no object"),
        (b'"set"\n', "found JSON that is no object"),
        (b"9" * 10_000 + b"\n", "found no JSON"),
        (b"[" * 60_000 + b"\n", "found no JSON"),
        (b'{"do": "status"}', "found 16 bytes, expected a line of JSON"),
        (b'{"do": "status"}\n{"do": "status"}\n', "found no JSON"),
        (b"x" * (MAX_LINE_BYTES + 9000), "expected a line of JSON"),
    ):
        answer = answer_to(line)
        assert answer["ok"] is False, line[:50]
        assert said in answer["error"]


def test_a_line_without_end_is_not_read_for_ever(cam: Camera) -> None:
    with connected() as client, pytest.raises(OSError, match=r"Broken pipe|reset"):
        while True:
            client.sendall(b"x" * 65536)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "found the request ''"),
        ({"do": "fly"}, "found the request 'fly', which no camera knows"),
        ({"do": ["set"]}, "which no camera knows"),
        ({"do": None}, "which no camera knows"),
        ({"do": "x" * 60_000}, "..., which no camera knows"),
        ({"do": "a\nb\x1b"}, r"found the request 'a\nb\x1b'"),
        ({"do": "set"}, "found '', expected one of mode, crop, tint, fps, readout, trigger"),
        ({"do": "set", "what": 5, "value": 1}, "found '5', expected one of"),
        ({"do": "set", "what": "tint"}, "found None, expected a number"),
        ({"do": "set", "what": "tint", "value": {}}, "found {}, expected a number"),
        ({"do": "set", "what": "mode", "value": "X" * 60_000}, "..., expected a name"),
        ({"do": "set", "what": "crop", "value": [1, 2, 3]}, "expected x0, x1, y0, y1"),
        ({"do": "set", "what": "crop", "value": ["1", 2, 3, 4]}, "expected x0, x1, y0, y1"),
        ({"do": "set", "what": "crop", "value": [10**50, 0, 0, 0]}, "pixels of the sensor"),
        ({"do": "set", "what": "trigger", "value": 2}, "found 2, expected true or false"),
        ({"do": "set", "what": "trigger", "value": None}, "found None, expected true or"),
        ({"do": "keyword"}, "expected a name, and a number, a text or true or false"),
        ({"do": "keyword", "name": "", "value": 1}, "1 to 15 fit a stream"),
        ({"do": "keyword", "name": "X", "value": None}, "expected a name"),
        ({"do": "keyword", "name": "X", "value": "x" * 60_000}, "keyword X: the string"),
    ],
)  # fmt: skip
def test_what_no_camera_can_do_is_refused_in_a_line(asked: Any, said: str, cam: Camera) -> None:
    answer = answer_to(json.dumps(asked).encode() + b"\n")
    assert answer["ok"] is False
    assert said in answer["error"]
    assert answer["error"].isprintable()
    assert len(answer["error"]) < 300


def test_any_request_gets_an_answer(cam: Camera) -> None:
    # Requests of one run: the camera is the same, and is in whatever state they leave it.
    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    @given(requests)
    def ask(asked: dict[str, Any]) -> None:
        answer = answer_to(json.dumps(asked).encode() + b"\n")
        assert answer["ok"] in (True, False)
        assert answer["ok"] or answer["error"]

    ask()
    cam.set_crop(0, 95, 0, 63)
    cam.set_fps(100)


def test_a_client_that_does_not_listen_to_its_answer_holds_nobody_up(cam: Camera) -> None:
    for _ in range(50):
        with connected() as client:
            client.sendall(b'{"do": "status"}\n')
    assert cam.set_tint(0.002) == 0.002


def test_a_hundred_connections_that_say_nothing_go_away_by_themselves(cam: Camera) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected()) for _ in range(100)]
        frames_come()
        answers = [answer_of(client) for client in clients]
    refused = [answer for answer in answers if answer is not None]
    assert len(refused) == 100 - MAX_CLIENTS
    for answer in refused:
        assert answer == {"ok": False, "error": f"{MAX_CLIENTS} others ask it already"}
    assert cam.set_tint(0.002) == 0.002


def test_who_asks_meanwhile_is_told_why_not(cam: Camera) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CLIENTS):
            stack.enter_context(connected())
        with pytest.raises(RequestRefused, match=f"{MAX_CLIENTS} others ask it already"):
            for _ in range(1000):  # until the last of them was counted
                request("small", RunFolder(), "status")
    wait_until(_answers, "room")


def _answers() -> bool:
    with contextlib.suppress(RequestRefused, NoCameraProcess):
        return bool(request("small", RunFolder(), "status")["ok"])
    return False


def test_changes_asked_for_at_the_same_time_are_all_answered(cam: Camera) -> None:
    answers: list[Any] = []

    def ask(k: int) -> None:
        answers.append(request("small", RunFolder(), "set", what="fps", value=50 + k))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["ok"] for answer in answers] == [True] * 20
    assert 50 <= cam.get_fps() < 70


# The server alone -------------------------------------------------------------------------


@pytest.fixture
def run(shm_dir: Path) -> RunFolder:
    return RunFolder().make()


def serving(
    run: RunFolder, handle: Callable[[dict[str, Any]], dict[str, Any]]
) -> contextlib.AbstractContextManager[ControlServer]:
    return ControlServer(socket_path("small", run), handle)


def test_a_request_is_the_object_that_was_sent(run: RunFolder) -> None:
    with serving(run, lambda asked: {"ok": True, "asked": asked}):
        answer = request("small", run, "set", what="tint", value=0.5)
    assert answer == {"ok": True, "asked": {"do": "set", "what": "tint", "value": 0.5}}


def test_a_line_in_drops_has_its_time_and_no_more(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "REQUEST_S", 0.3)
    with serving(run, lambda asked: {"ok": True}), connected() as client:
        client.setblocking(False)
        pause = threading.Event()

        def dropped() -> bool:
            pause.wait(0.02)
            try:
                client.send(b" ")
            except OSError:
                return True
            return False

        wait_until(dropped, "the end of patience")


def test_a_server_that_is_closed_is_not_there(run: RunFolder) -> None:
    server = ControlServer(socket_path("small", run), lambda asked: {"ok": True})
    server.close()
    server.close()
    assert not socket_path("small", run).exists()
    with pytest.raises(NoCameraProcess, match="camera small does not run here; start it"):
        request("small", run, "status")


def test_a_socket_that_a_killed_camera_left_is_no_camera(run: RunFolder) -> None:
    bind_socket(socket_path("small", run)).close()
    with pytest.raises(NoCameraProcess, match="does not run here"):
        request("small", run, "status")


def test_a_camera_that_ends_while_it_is_asked_is_told(run: RunFolder) -> None:
    path = socket_path("small", run)
    with bind_socket(path) as listener:

        def hang_up() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(NoCameraProcess, match="camera small ended while it was asked"):
            request("small", run, "status")
        thread.join()


def test_a_camera_that_does_not_answer_is_told(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "ANSWER_S", 0.05)
    monkeypatch.setattr(control_socket, "REQUEST_S", 0.05)
    with (
        bind_socket(socket_path("small", run)),
        pytest.raises(NoCameraProcess, match=r"camera small does not answer \(timed out\)"),
    ):
        request("small", run, "status")


def test_an_answer_that_is_none_is_told(run: RunFolder) -> None:
    with (
        serving(run, lambda asked: {}),
        pytest.raises(RequestRefused, match="refused without a reason"),
    ):
        request("small", run, "status")
