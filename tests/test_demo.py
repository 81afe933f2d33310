"""The demo: the main job for a newcomer, and the proof of it."""

from __future__ import annotations

import os
import select
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from vampires.demo import CameraReport, Demo, table
from vampires.flow.playground import processes_of

SMALL = ("--mode", "HALFARC", "--fps", "100", "--seconds", "1.5")


def demo_folders() -> set[Path]:
    return {
        folder
        for place in ("/dev/shm", tempfile.gettempdir())
        for folder in Path(place).glob("vampires-demo-*")
    }


def test_demo_logs_and_verifies_every_frame(run_command, tmp_path):
    before = demo_folders()
    done = run_command("demo", *SMALL, "--dir", tmp_path / "data", timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith("yes")]
    files = sorted((tmp_path / "data").glob("*/vcam?/*.fits"))
    lengths = [fits.getval(f, "NAXIS3") for f in files]
    for number, row in enumerate(rows, 1):
        mine = [n for n, f in zip(lengths, files, strict=True) if f.parent.name == row[0]]
        assert row[:5] == [f"vcam{number}", f"{sum(mine)}", f"{sum(mine)}", "0", "0"]
        assert sum(mine) >= 140
        assert mine[0] == 100
    assert len(rows) == 2
    for line in ("camstart vcam1 vcam2", "vampires_startlog", "camstop all"):
        assert f"$ {line}" in done.stdout
    assert demo_folders() == before


def logging_demo(start_command, root: Path):
    """A demo whose loggers have begun."""
    demo = start_command("demo", "--mode", "HALFARC", "--dir", root, "--seconds", "60")
    for line in demo.stdout:
        if "logging: vcam1" in line:
            return demo
    raise AssertionError("the demo ended before its loggers began")


def test_demo_that_is_interrupted_leaves_nothing_running(start_command, tmp_path):
    before = demo_folders()
    demo = logging_demo(start_command, tmp_path)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in errors
    assert demo_folders() == before


def test_cameras_and_loggers_of_a_demo_that_was_killed_end(start_command, tmp_path):
    before = demo_folders()
    demo = logging_demo(start_command, tmp_path)
    (shm_dir,) = (f for f in demo_folders() - before if f.parent == Path("/dev/shm"))
    watched = [os.pidfd_open(pid) for pid in processes_of(shm_dir)]
    assert len(watched) >= 9  # cameras, prompts, loggers with conf, supervisors, guardian
    demo.kill()
    for watch in watched:
        assert select.select([watch], [], [], 60)[0], "a part of the demo lives on"
        os.close(watch)
    assert demo_folders() == before


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A demo's files and its report, once for the checks below."""
    import contextlib
    from fractions import Fraction

    root = tmp_path_factory.mktemp("recorded")
    demo = Demo(root, 0.4, "HALFARC", Fraction(100), lambda line: None)
    with contextlib.chdir(root) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        reports = demo.run()
    return demo, reports[0]


def damaged(path: Path, tmp_path: Path) -> Path:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    copy.with_suffix(".txt").write_bytes(path.with_suffix(".txt").read_bytes())
    return copy


def check(recorded, path: Path) -> CameraReport:
    demo, report = recorded
    rows = fits.getdata(path, "FRAMES")
    only = {"files": [str(path)], "frames_logged": len(rows)}
    return demo.check(report.stream, report.result | only)


def test_a_whole_file_passes_the_check(recorded, tmp_path):
    _, report = recorded
    assert not check(recorded, damaged(Path(report.result["files"][0]), tmp_path)).errors


def test_one_wrong_pixel_is_found(recorded, tmp_path):
    path = damaged(Path(recorded[1].result["files"][0]), tmp_path)
    with fits.open(path, mode="update", checksum=True) as hdus:
        hdus[0].data[3, 100, 100] += 1
    assert any("pixels" in error for error in check(recorded, path).errors)


def test_one_wrong_time_is_found(recorded, tmp_path):
    path = damaged(Path(recorded[1].result["files"][0]), tmp_path)
    with fits.open(path, mode="update", checksum=True) as hdus:
        hdus["FRAMES"].data["TACQ"][5] += 50_000
    assert any("times" in error for error in check(recorded, path).errors)


def test_a_missing_sidecar_line_is_found(recorded, tmp_path):
    path = damaged(Path(recorded[1].result["files"][0]), tmp_path)
    sidecar = path.with_suffix(".txt")
    sidecar.write_text("".join(sidecar.read_text().splitlines(keepends=True)[:-1]))
    assert any("sidecar" in error for error in check(recorded, path).errors)


def test_a_damaged_byte_of_the_file_is_found_by_its_checksum(recorded, tmp_path):
    path = damaged(Path(recorded[1].result["files"][0]), tmp_path)
    content = np.fromfile(path, np.uint8)
    content[-2880] ^= 1  # in the table, behind the pixels
    content[2880 * 40] ^= 1
    content.tofile(path)
    assert check(recorded, path).errors


def test_the_table_says_no_where_a_check_failed():
    result = {
        "frames_seen": 5, "frames_logged": 4, "lost": 1, "torn": 0,
        "bytes": 10, "seconds": 1.0, "files": [],
    }  # fmt: skip
    good, bad = table([CameraReport("a", result), CameraReport("b", result, ["wrong"])])[1:]
    assert good.endswith("yes") and bad.endswith("NO")
    assert not CameraReport("a", result).good
