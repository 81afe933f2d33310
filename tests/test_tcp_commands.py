"""shmimTCPtransmit and shmimTCPreceive as typed: what they say, and how they end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cube_checks import make_pool
from link_peers import LOOPBACK, MilkReceiver, free_port, wait_until
from logger_process import Camera
from tcp_ends import Witness, newest

SHAPE = (12, 15)
FIELDS = {"time", "rate_hz", "mb_per_s", "state", "stream", "peer", "frames", "lost", "void"}
FIELDS |= {"bytes", "connections", "reconnects", "cnt0", "last_error"}


@pytest.fixture
def far(shm_dir: Path) -> Path:
    """The stream folder of the other host."""
    folder = shm_dir / "far"
    folder.mkdir()
    return folder


@pytest.fixture
def receive(start_command: Any, far: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """receive(argument, ...) -> (process of shmimTCPreceive on the far host, its port)."""

    def start(*arguments: object) -> tuple[subprocess.Popen[str], int]:
        monkeypatch.setenv("MILK_SHM_DIR", str(far))
        process = start_command("tcp-receive", *arguments)
        monkeypatch.setenv("MILK_SHM_DIR", str(far.parent))
        first = process.stderr.readline()
        found = re.fullmatch(r"shmimTCPreceive: listening on \S+ port (\d+)\n", first)
        assert found, first
        return process, int(found.group(1))

    return start


@pytest.fixture
def camera(shm_dir: Path) -> Iterator[Camera]:
    cam = Camera("cam1", SHAPE, ring=1024)
    yield cam
    cam.stream.remove()


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    """Ends a command as its user would; its output and its lines from now on."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out, err


def test_a_stream_goes_from_one_host_to_the_other(
    receive: Any, start_command: Any, camera: Camera, far: Path
) -> None:
    rx, port = receive(0, "--json")
    tx = start_command("tcp-transmit", "cam1", LOOPBACK, port, "--json")
    with Witness(far, "cam1", {SHAPE: make_pool(SHAPE, "uint16")}) as seen:
        camera.send()
        seen.wait_for(1)
        camera.send(299)
        counts = seen.wait_for(300)
    assert counts == list(range(1, 301))
    for process, number in ((tx, signal.SIGINT), (rx, signal.SIGTERM)):
        out, err = end(process, number)
        last = json.loads(out.splitlines()[-1])
        assert last.keys() >= FIELDS
        assert (last["frames"], last["lost"], last["stream"]) == (300, 0, "cam1")
        assert "300 frames, 0 lost" in err.splitlines()[-1]
    assert newest(far, "cam1")[1].cnt0 == 300  # the stream stays


def test_json_comes_every_second_and_lines_stay_off_standard_output(
    receive: Any, start_command: Any, camera: Camera
) -> None:
    camera.send()
    rx, port = receive(0)
    tx = start_command("tcp-transmit", "cam1", LOOPBACK, port, "--json")
    objects = [json.loads(tx.stdout.readline()) for _ in range(2)]
    assert objects[0]["state"] == "connected"
    assert objects[0]["time"] < objects[1]["time"]
    end(tx)
    out, err = end(rx)
    assert out == ""
    assert all(line.startswith("shmimTCPreceive: ") for line in err.splitlines())
    assert "connected from" in err


def test_the_copy_may_have_another_name(
    receive: Any, start_command: Any, camera: Camera, far: Path
) -> None:
    rx, port = receive(0, "--as", "copy")
    camera.send(2)
    tx = start_command("tcp-transmit", "cam1", LOOPBACK, port)
    wait_until((far / "copy.im.shm").exists, "the copy")
    end(tx)
    end(rx)
    assert not (far / "cam1.im.shm").exists()


def test_the_sender_waits_for_its_stream_and_says_so(start_command: Any, shm_dir: Path) -> None:
    with MilkReceiver() as milk:
        tx = start_command("tcp-transmit", "cam1", LOOPBACK, milk.port)
        assert f"sending cam1 to {LOOPBACK} port {milk.port}" in tx.stderr.readline()
        line = tx.stderr.readline()
        assert "cam1" in line and "waiting" in line
        camera = Camera("cam1", SHAPE)
        camera.send()
        assert milk.wait_for(1)[0].cnt0 == 1
        end(tx)


def test_a_link_whose_lines_nobody_reads_goes_on(
    receive: Any, start_command: Any, camera: Camera, far: Path
) -> None:
    rx, port = receive(0, "--json")
    tx = start_command("tcp-transmit", "cam1", LOOPBACK, port, "--json")
    tx.stdout.readline()
    for process in (rx, tx):
        process.stdout.close()
        process.stderr.close()
    camera.send(10)
    wait_until(lambda: _count(far) == 10, "the frames")
    for process in (tx, rx):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def _count(folder: Path) -> int:
    from tcp_ends import counter_of

    return counter_of(folder, "cam1")


def test_wishes_that_cannot_be_granted_are_told(receive: Any) -> None:
    rx, _ = receive(0, "-c", "vampires-no-such-set", "--cpus", "4000", "--rt-priority", "3")
    lines = [rx.stderr.readline() for _ in range(2)]
    assert "no CPU set 'vampires-no-such-set'" in lines[0]
    assert "none of the CPUs 4000" in lines[1]
    end(rx)


def test_the_links_thread_runs_where_it_is_told(receive: Any) -> None:
    import os

    cpu = max(os.sched_getaffinity(0))
    rx, _ = receive(0, "--cpus", cpu)

    def placed() -> bool:
        for task in Path(f"/proc/{rx.pid}/task").iterdir():
            if (task / "comm").read_text().startswith("tcp-receive"):
                return os.sched_getaffinity(int(task.name)) == {cpu}
        return False

    wait_until(placed, "the thread on its CPU")
    end(rx)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("tcp-transmit", ["cam1", "no-such-host.invalid", "9"], "no-such-host.invalid"),
        ("tcp-transmit", ["cam1", "localhost", "0"], "port from 1"),
        ("tcp-transmit", ["cam1", "localhost", "70000"], "port from 1"),
        ("tcp-transmit", ["cam1", "localhost"], "PORT"),
        ("tcp-transmit", ["../cam1", "localhost", "9"], "../cam1"),
        ("tcp-transmit", ["", "localhost", "9"], "name"),
        ("tcp-receive", ["x"], "port from 0"),
        ("tcp-receive", ["-1"], "-1"),
        ("tcp-receive", ["0", "--as", "a/b"], "a/b"),
        ("tcp-receive", ["0", "--listen", "0.0.0.0"], "--allow"),
        ("tcp-receive", ["0", "--listen", "203.0.113.9", "--allow", "10.0.0.1"], "203.0.113.9"),
        ("tcp-receive", ["0", "--allow", "10.0.0.1"], "--listen"),
        ("tcp-receive", ["0", "--allow", "10.0.0.1/40"], "10.0.0.1/40"),
        ("tcp-receive", ["0", "--max-bytes", "many"], "many"),
        ("tcp-receive", ["0", "--rt-priority", "100"], "at most 99"),
        ("tcp-receive", ["0", "--cpus", "a"], "CPUs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    run_command: Any, command: str, arguments: list[str], message: str
) -> None:
    done = run_command(command, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(receive: Any, run_command: Any) -> None:
    rx, port = receive(0)
    done = run_command("tcp-receive", port)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr and "in use" in done.stderr
    end(rx)


@pytest.mark.parametrize("command", ["tcp-transmit", "tcp-receive"])
def test_help_names_the_programs_as_they_are_typed(run_command: Any, command: str) -> None:
    done = run_command(command, "--help")
    assert done.returncode == 0
    prog = {"tcp-transmit": "shmimTCPtransmit", "tcp-receive": "shmimTCPreceive"}[command]
    assert done.stdout.startswith(f"usage: {prog} ")
    assert "example:" in done.stdout


def test_one_array_arrives_as_one_array(
    receive: Any, start_command: Any, shm_dir: Path, far: Path
) -> None:
    camera = Camera("cam1", SHAPE, ring=0)
    camera.send(3)
    rx, port = receive(port_free := free_port())
    assert port == port_free
    tx = start_command("tcp-transmit", "cam1", "localhost", port)
    wait_until(lambda: _count(far) == 3, "the frame")
    pixels, _, _ = newest(far, "cam1")
    np.testing.assert_array_equal(pixels, camera.stream.view())
    end(tx)
    end(rx)
