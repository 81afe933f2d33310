"""vampires-peek --follow: always the newest frame of a stream, whatever becomes of that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from cube_checks import verify
from fps_terminal import Terminal, terminal
from PIL import Image

from vampires.stream import Stream

PATIENCE_S = 20.0
FOLLOW = [sys.executable, "-m", "vampires.commands.peek", "--follow", "cam1"]


def bright(shape: tuple[int, int], y: int, x: int) -> np.ndarray:
    frame = np.random.default_rng(1).integers(90, 110, shape, dtype=np.uint16)
    frame[y, x] = 60_000
    return frame


def next_object(process: subprocess.Popen[str]) -> dict:
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return json.loads(line)


def end(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    return errors


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stream_made_anew_with_another_crop_is_followed(start_command):
    stream = Stream.create("cam1", (12, 20), ring=4)
    stream.write(bright((12, 20), 1, 2))
    process = start_command("peek", "--follow", "cam1", "--interval", 0.02, "--json")
    first = next_object(process)
    assert (first["cnt0"], first["shape"], first["max"]) == (1, [12, 20], 60_000)
    stream.write(bright((12, 20), 3, 4))
    assert next_object(process)["cnt0"] == 2
    again = Stream.create("cam1", (8, 9), np.float32, ring=4)
    again.write(np.full((8, 9), 3.5, np.float32))
    third = next_object(process)
    assert (third["cnt0"], third["shape"], third["dtype"]) == (1, [8, 9], "float32")
    assert third["mean"] == 3.5 and third["time"].startswith("20")
    end(process)


def test_a_stream_that_goes_away_is_waited_for_and_told_once(start_command):
    stream = Stream.create("cam1", (12, 20), ring=4)
    stream.write(bright((12, 20), 1, 2))
    process = start_command("peek", "--follow", "cam1", "--interval", 0.02)
    assert "cnt0 1" in process.stdout.readline()
    stream.remove()
    assert "no stream 'cam1'" in process.stderr.readline()
    Stream.create("cam1", (12, 20), ring=4).write(bright((12, 20), 3, 4))
    assert "cnt0 1" in process.stdout.readline()
    assert end(process, signal.SIGTERM) == ""


def test_the_newest_frame_is_saved_again_and_again(start_command, tmp_path):
    stream = Stream.create("cam1", (12, 20), ring=4)
    stream.write(bright((12, 20), 1, 2))
    out = tmp_path / "live.png"
    process = start_command("peek", "--follow", "cam1", "--interval", 0.02, "-o", out)
    wait_until(out.exists)
    with Image.open(out) as picture:  # there is never half of one
        assert picture.getpixel((2, 10)) == 255
    stream.write(bright((12, 20), 11, 19))

    def shows_the_second() -> bool:
        with Image.open(out) as picture:
            return picture.getpixel((19, 0)) == 255

    wait_until(shows_the_second)
    end(process)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_was_there_before_is_kept(run_command, tmp_path):
    Stream.create("cam1", (12, 20), ring=4).write(bright((12, 20), 1, 2))
    out = tmp_path / "live.png"
    out.write_text("mine")
    ran = run_command("peek", "--follow", "cam1", "-o", out, "--count", 1)
    assert ran.returncode == 2 and "--force" in ran.stderr and out.read_text() == "mine"
    ran = run_command("peek", "--follow", "cam1", "-o", out, "--count", 1, "--force")
    assert ran.returncode == 0
    with Image.open(out) as picture:
        assert picture.size == (20, 12)


def test_a_saved_frame_of_a_stream_is_fits(run_command, tmp_path):
    frame = bright((12, 20), 1, 2)
    Stream.create("cam1", (12, 20), ring=4).write(frame)
    out = tmp_path / "live.fits"
    assert run_command("peek", "--follow", "cam1", "-o", out, "--count", 1).returncode == 0
    verify([out])
    np.testing.assert_array_equal(fits.getdata(out)[0], frame)


def test_frames_that_are_no_pictures_are_told_in_one_line(run_command):
    Stream.create("cam1", (12, 20), np.complex64, ring=4).write(
        np.zeros((12, 20), np.complex64)
    )
    ran = run_command("peek", "--follow", "cam1")
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1
    assert "complex64" in ran.stderr


def test_a_reader_that_goes_away_ends_it(shm_dir):
    Stream.create("cam1", (12, 20), ring=4).write(bright((12, 20), 1, 2))
    shell = " ".join([*FOLLOW, "--interval 0.02 --json | head -n 1"])
    stream = Stream.open("cam1")
    process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline()
        while process.poll() is None:
            stream.write(bright((12, 20), 1, 2))
            time.sleep(0.01)
        assert (process.returncode, process.stderr.read()) == (0, b"")


# In a terminal


def state(screen: Terminal) -> str:
    return screen.tmux("display-message", "-p", "-t", "test", "#{alternate_on} #{cursor_flag}")


def test_the_screen_shows_the_newest_frame_and_leaves_the_terminal_as_it_was(shm_dir: Path):
    stream = Stream.create("cam1", (110, 222), ring=4)
    with terminal(80, 24) as screen:
        screen.start([*FOLLOW, "--interval", "0.05"])
        screen.wait_for("has no frame yet")
        stream.write(bright((110, 222), 1, 2))
        # The terminal takes what is drawn in pieces; the last line is its end.
        lines = screen.wait_for("cnt0 1", "Ctrl-C ends")
        assert len(lines) == 24 and lines[-1] == "Ctrl-C ends"
        assert sum(line.startswith("▀") for line in lines) == 20
        assert state(screen).split() == ["1", "0"]
        screen.resize(40, 12)
        lines = screen.wait_until(lambda lines: len(lines) == 12 and "Ctrl-C" in lines[-1])
        assert max(map(len, lines)) <= 40
        stream.remove()
        screen.wait_for("no stream 'cam1'")
        screen.press("C-c")
        lines = screen.wait_for("EXIT 0", "cam1: 222 x 110 uint16")
        assert state(screen).split() == ["0", "1"]


def test_a_signal_leaves_the_terminal_as_it_was(shm_dir: Path):
    Stream.create("cam1", (110, 222), ring=4).write(bright((110, 222), 1, 2))
    with terminal(80, 24) as screen:
        screen.start([*FOLLOW, "--interval", "0.05"])
        screen.wait_for("cnt0 1")
        (child,) = (
            Path(f"/proc/{screen.pid()}/task/{screen.pid()}/children").read_text().split()
        )
        os.kill(int(child), signal.SIGTERM)
        screen.wait_for("EXIT 0")
        assert state(screen).split() == ["0", "1"]
