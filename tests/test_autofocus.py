"""The example examples/autofocus.py finds the focus of a simulated camera over the slow link.

Simulated camera, vampires-zmq-send and the example are processes of their own on loopback.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vampires.fps import FPS

AUTOFOCUS = Path(__file__).parents[1] / "examples" / "autofocus.py"
DEADLINE_S = 90
START_MM = -0.4


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """Cameras are killed at the end of a test; what they leave then is left there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def start_autofocus(start_process):
    """start_autofocus(argument, ...) -> Popen of the example."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return start_process([sys.executable, str(AUTOFOCUS), *map(str, arguments)])

    return start


@pytest.fixture
def camera_and_sender(start_command):
    """camera_and_sender(best focus, mm) -> address of the sender of stream vcam1."""

    def start(best_mm: float) -> str:
        camera = start_command(
            "framesim", "vcam1", "--shape", 128, 128, "--fps", 101,
            "--focus", START_MM, "--focus-best", best_mm,
        )  # fmt: skip
        assert camera.stdout.readline().startswith("vcam1: "), camera.stderr.read()
        sender = start_command("zmq-send", "vcam1", "--bind", "tcp://127.0.0.1:0")
        line = sender.stderr.readline()
        found = re.search(r"tcp://127\.0\.0\.1:\d+", line)
        assert found, line
        return found.group()

    return start


def run(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def focus_mm() -> float:
    with FPS.open("framesim-vcam1") as fps:
        return fps["focus"]


@pytest.mark.parametrize("best_mm", [0.7, -1.23])
def test_the_focus_found_is_the_best_one_and_is_set(
    camera_and_sender, start_autofocus, best_mm
):
    address = camera_and_sender(best_mm)
    code, out, err = run(start_autofocus(address, "vcam1", "--frames", 2))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 10
    found = float(re.match(r"best focus (-?[\d.]+) mm, ", lines[-1]).group(1))
    assert found == pytest.approx(best_mm, abs=0.15)
    assert focus_mm() == found


def test_a_scan_beside_the_focus_is_an_error_and_leaves_the_focus_as_it_was(
    camera_and_sender, start_autofocus
):
    address = camera_and_sender(2.5)
    code, _, err = run(start_autofocus(address, "vcam1", "--frames", 2, "--points", 3))
    assert code == 1
    assert err.startswith("autofocus: stars are sharpest at 1.60 mm, the end of the scan")
    assert err.count("\n") == 1
    assert focus_mm() == START_MM


def test_ctrl_c_leaves_the_focus_as_it_was(camera_and_sender, start_autofocus):
    scan = start_autofocus(camera_and_sender(0.7), "vcam1", "--points", 100)
    assert "sharpness" in scan.stdout.readline()
    scan.send_signal(signal.SIGINT)
    code, _, err = run(scan)
    assert (code, err) == (130, "")
    assert focus_mm() == START_MM


def test_a_focus_that_does_not_move_is_an_error(camera_and_sender, start_autofocus, tmp_path):
    address = camera_and_sender(0.7)
    # A parameter that no camera looks at.
    with FPS.open("framesim-vcam1") as fps:
        image = fps.path.read_bytes().replace(b"framesim-vcam1", b"framesim-other")
    fps.path.with_name("framesim-other.fps.shm").write_bytes(image)
    options = ("--timeout", 1, "--fps-name", "framesim-other")
    code, _, err = run(start_autofocus(address, "vcam1", *options))
    assert code == 1
    assert "only 0 frames at -2.40 mm within 1 s; the last was taken at -0.40 mm" in err


def test_a_camera_without_focus_in_its_frames_is_an_error(
    start_command, start_autofocus, camera_and_sender
):
    camera_and_sender(0.7)
    other = start_command("framesim", "vcam2", "--shape", 32, 32)
    assert other.stdout.readline()
    sender = start_command("zmq-send", "vcam2", "--bind", "tcp://127.0.0.1:0")
    address = re.search(r"tcp://127\.0\.0\.1:\d+", sender.stderr.readline()).group()
    code, _, err = run(start_autofocus(address, "vcam2", "--fps-name", "framesim-vcam1"))
    assert (code, err) == (1, "autofocus: frames of vcam2 have no keyword U_FCSF\n")


def test_no_camera_and_no_sender_are_one_line_each(start_autofocus, start_command):
    code, _, err = run(start_autofocus("tcp://127.0.0.1:9", "vcam1"))
    assert code == 1
    assert err.startswith("autofocus: no FPS 'framesim-vcam1' in ")
    camera = start_command("framesim", "vcam1", "--shape", 32, 32, "--focus")
    assert camera.stdout.readline()
    code, _, err = run(start_autofocus("tcp://127.0.0.1:9", "vcam1", "--timeout", 1))
    assert code == 1
    assert err.startswith("autofocus: no new frame of stream 'vcam1' from tcp://127.0.0.1:9")
    code, _, err = run(start_autofocus("127.0.0.1", "vcam1"))
    assert code == 1
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "vampires-framesim vcam1 --focus"),
        ([], 2, "required: address, stream"),
        (["a", "b", "--points", "2"], 2, "--points of 3 or more"),
        (["a", "b", "--range", "0"], 2, "a --range above 0"),
    ],
)
def test_the_example_says_how_it_is_called(start_autofocus, arguments, code, text):
    found, out, err = run(start_autofocus(*arguments))
    assert found == code
    assert text in out + err
    assert "Traceback" not in err
