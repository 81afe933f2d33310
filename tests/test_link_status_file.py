"""--status-file: what a link does, each second, in a file for whoever watches it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camera_process import wait_until
from link_peers import LOOPBACK, free_port
from logger_process import Camera

from vampires import link_report, zmq_report
from vampires.run_folder import read_json
from vampires.stream import Stream, StreamError

SHAPE = (6, 8)
COMMANDS = ("tcp-transmit", "tcp-receive", "zmq-send", "zmq-recv")


@pytest.fixture
def camera(shm_dir: Path) -> Iterator[Camera]:
    camera = Camera("vcam1", SHAPE)
    camera.send()
    yield camera
    camera.stream.remove()


@pytest.fixture
def start(
    shm_dir: Path, start_command: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.Popen[str]]:
    """start("zmq-send", argument, ...): an end of a link, receivers with streams elsewhere."""
    far = shm_dir / "far"
    far.mkdir()
    port = free_port()

    def started(command: str, *arguments: object) -> subprocess.Popen[str]:
        words: dict[str, tuple[object, ...]] = {
            "tcp-transmit": ("vcam1", LOOPBACK, port),
            "tcp-receive": (port,),
            "zmq-send": ("vcam1", "--bind", f"tcp://{LOOPBACK}:{port}"),
            "zmq-recv": (f"tcp://{LOOPBACK}:{port}", "vcam1"),
        }
        receives = command.endswith(("receive", "recv"))
        monkeypatch.setenv("MILK_SHM_DIR", str(far if receives else shm_dir))
        process: subprocess.Popen[str] = start_command(command, *words[command], *arguments)
        monkeypatch.setenv("MILK_SHM_DIR", str(shm_dir))
        return process

    return started


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out, err


def newest(folder: Path) -> int:
    try:
        with Stream.open("vcam1", directory=folder) as stream:
            return stream.cnt0
    except StreamError:
        return 0


@pytest.mark.parametrize(("sender", "receiver"), [COMMANDS[:2], COMMANDS[2:]])
def test_both_ends_of_a_link_tell_how_it_is(
    camera: Camera, start: Any, tmp_path: Path, sender: str, receiver: str
) -> None:
    files = [tmp_path / f"{command}.json" for command in (sender, receiver)]
    receiving = start(receiver, "--status-file", files[1])
    sending = start(sender, "--status-file", files[0])

    def crossed() -> bool:
        camera.send()
        return newest(Path(os.environ["MILK_SHM_DIR"], "far")) > 0

    wait_until(crossed, "frames")
    wait_until(lambda: all(_frames(file) > 0 for file in files), "frames at both ends")
    for process, file in ((sending, files[0]), (receiving, files[1])):
        out, _ = ended(process)
        assert out == ""  # that is for --json
        last = read_json(file)
        assert last is not None
        assert last["stream"] == "vcam1"
        assert {"time", "state", "frames", "last_error"} <= last.keys()
        assert last["frames"] >= 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        file.name for file in files
    )


def _frames(file: Path) -> int:
    return int((read_json(file) or {}).get("frames", 0))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_file_and_json_tell_the_same(
    camera: Camera, start: Any, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "status.json"
    process = start(command, "--json", "--status-file", file)
    first = json.loads(process.stdout.readline())
    wait_until(lambda: (read_json(file) or {}).get("time", "") >= first["time"], "the file")
    out, _ = ended(process)
    last = read_json(file)
    assert last is not None
    assert last.items() >= json.loads(out.splitlines()[-1]).items()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_whose_status_cannot_be_written_goes_on(
    camera: Camera, start: Any, tmp_path: Path, command: str
) -> None:
    process = start(command, "--json", "--status-file", tmp_path / "no/such.json")
    for _ in range(2):
        assert json.loads(process.stdout.readline())["stream"] in ("vcam1", "")
    out, _ = ended(process)
    assert out
    assert list(tmp_path.iterdir()) == []


# The reports alone ------------------------------------------------------------------------

STATUS = {
    "state": "connected",
    "stream": "vcam1",
    "peer": "",
    "frames": 5,
    "bytes": 960,
    "lost": 0,
    "connections": 1,
    "last_error": "",
}


def test_an_object_is_put_there_each_second_and_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    report = link_report.LinkReport("test", STATUS, 100.0, as_json=False, status_file=file)
    report.look(STATUS, 100.9)
    assert not file.exists()
    report.look({**STATUS, "frames": 7, "lost": 0}, 101.0)
    first = read_json(file)
    assert first is not None
    assert first["frames"] == 7
    assert first["rate_hz"] == pytest.approx(2.0)
    report.look({**STATUS, "frames": 8}, 101.5)
    assert read_json(file) == first
    report.end({**STATUS, "frames": 9}, 101.6)
    last = read_json(file)
    assert last is not None
    assert last["frames"] == 9
    assert os.listdir(tmp_path) == ["status.json"]


def test_without_a_file_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    report = link_report.LinkReport("test", STATUS, 100.0, as_json=False)
    report.look(STATUS, 105.0)
    report.end(STATUS, 106.0)
    other = zmq_report.Report("test", lambda status: "a line", as_json=False)
    other.end(STATUS)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().out == ""


def test_the_slow_link_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(zmq_report.time, "monotonic", lambda: now[0])
    file = tmp_path / "status.json"
    report = zmq_report.Report("test", lambda s: "a line", as_json=False, status_file=file)
    report.look(lambda: {"frames": 1, "fps": 0.0})
    assert not file.exists()
    now[0] += 1
    report.look(lambda: {"frames": 2, "fps": 0.0})
    assert _frames(file) == 2
    report.look(lambda: {"frames": 3, "fps": 0.0})
    assert _frames(file) == 2
    report.end({"frames": 4, "fps": 0.0})
    assert _frames(file) == 4
    assert capfd.readouterr().out == ""
