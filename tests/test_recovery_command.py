"""vampires-recover as it is typed, and what a logger says of the cubes it finds unfinished."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cube_checks import check_cubes, hidden_files
from logger_process import Camera
from missing_rights import cannot_run
from partial_cube_files import FINAL, Leftover
from test_logger_fps import RunProcess, wait_until

from vampires.partial_cubes import partial_cubes

DAY = "20261122"


def answers(done: subprocess.CompletedProcess[str]) -> list[dict]:
    return json.loads(done.stdout)["partial_cubes"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_without_apply_nothing_is_done(tmp_path, run_command):
    leftover = Leftover(tmp_path / DAY / "cam1")
    before = contents(tmp_path)
    done = run_command("recover", tmp_path)
    assert done.returncode == 1
    assert f"can be recovered: {leftover.names.cube}: 7 frames" in done.stdout
    assert "--apply" in done.stdout
    assert contents(tmp_path) == before


def test_apply_recovers_everything_below_the_folder(tmp_path, run_command):
    folders = [tmp_path / DAY / name for name in ("cam1", "cam2")]
    leftovers = [Leftover(folder) for folder in folders]
    done = run_command("recover", "--apply", tmp_path)
    assert done.returncode == 0, done.stderr
    for leftover in leftovers:
        assert f"recovered {leftover.folder / FINAL}: 7 frames" in done.stdout
        check_cubes([leftover.folder / FINAL], leftover.pool)
    assert not hidden_files(tmp_path)
    again = run_command("recover", "--apply", tmp_path)
    assert (again.returncode, again.stdout) == (0, f"no partial cubes in {tmp_path}\n")


def test_nobody_has_to_read_what_is_said(tmp_path, start_command):
    leftovers = [Leftover(tmp_path / name) for name in "abc"]
    process = start_command("recover", "--apply", tmp_path)
    process.stdout.close()
    assert process.wait(30) == 0 and process.stderr.read() == ""
    assert all((leftover.folder / FINAL).exists() for leftover in leftovers)


def test_a_folder_given_twice_is_looked_at_once(tmp_path, run_command):
    Leftover(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    done = run_command("recover", "--json", tmp_path, tmp_path / "a", tmp_path / "link")
    assert len(answers(done)) == 1


def test_an_empty_partial_cube_goes_with_the_word_of_the_user_only(tmp_path, run_command):
    Leftover(tmp_path, frames=0)
    kept = run_command("recover", "--apply", tmp_path)
    assert kept.returncode == 1 and "--remove-empty" in kept.stdout
    assert len(hidden_files(tmp_path)) == 2
    gone = run_command("recover", "--apply", "--remove-empty", tmp_path)
    assert gone.returncode == 0 and "it held no frame" in gone.stdout
    assert not hidden_files(tmp_path)


def test_remove_empty_never_removes_frames(tmp_path, run_command):
    leftover = Leftover(tmp_path / "untimed", rows=0)
    other = Leftover(tmp_path / "damaged")
    other.names.cube.write_bytes(b"\xff" * 9999)
    before = contents(tmp_path)
    done = run_command("recover", "--apply", "--remove-empty", tmp_path)
    assert done.returncode == 1
    assert f"{leftover.names.cube}: 7 frames" in done.stdout
    assert "--without-times" in done.stdout
    assert f"{other.names.cube}: its header" in done.stdout
    assert contents(tmp_path) == before


def test_frames_without_rows_are_recovered_when_told(tmp_path, run_command):
    Leftover(tmp_path, rows=0)
    done = run_command("recover", "--apply", "--without-times", tmp_path)
    assert done.returncode == 0
    assert "7 frames" in done.stdout and "7 without times" in done.stdout
    assert (tmp_path / FINAL).exists() and not hidden_files(tmp_path)


def test_the_last_frames_without_rows_are_left_out_unless_told(tmp_path, run_command):
    Leftover(tmp_path / "a", frames=7, rows=5)
    Leftover(tmp_path / "b", frames=7, rows=5)
    short = run_command("recover", "--apply", tmp_path / "a")
    assert "5 frames" in short.stdout and "2 left out for want of a row" in short.stdout
    whole = run_command("recover", "--apply", "--without-times", tmp_path / "b")
    assert "7 frames" in whole.stdout and "2 without times" in whole.stdout


@pytest.mark.parametrize("given", ["missing", "file"])
def test_a_folder_that_is_none_is_one_line(tmp_path, run_command, given):
    (tmp_path / "file").write_bytes(b"")
    done = run_command("recover", tmp_path / given)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / given) in line and "give a folder" in line


def test_names_cannot_break_the_terminal(tmp_path, run_command):
    folder = tmp_path / "a\x1b[31m\nb"
    leftover = Leftover(folder)
    leftover.names.cube.rename(
        folder / leftover.names.cube.name.replace("cam1", "c\x1b]0;x\x07")
    )
    for arguments in ([], ["--apply"]):
        done = run_command("recover", *arguments, tmp_path)
        assert "\x1b" not in done.stdout and "\x07" not in done.stdout
        assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, start_process):
    """A mount that is read-only, in a name space of its own."""
    if os.geteuid() != 0:
        cannot_run("needs root, for a read-only mount")
    leftover = Leftover(tmp_path / "disk")
    before = contents(tmp_path)
    folder = shlex.quote(str(leftover.folder))
    script = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec "
    script += f"{shlex.quote(sys.executable)} -m vampires.commands.recover --apply {folder}"
    process = start_process(["unshare", "-m", "sh", "-c", script])
    out, err = process.communicate(timeout=30)
    if "mount:" in err:
        cannot_run(f"needs the right to mount a file system: {err.strip()}")
    assert process.returncode == 1, err
    assert "Read-only file system" in out and "its frames are where they were" in out
    assert contents(tmp_path) == before


# A logger that is at work


def test_the_cube_of_a_living_logger_is_left_alone(start_logger, run_command):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 1000).attached()
    camera.send(50)
    logger.wait_frames(50)
    (partial,) = partial_cubes(logger.root, recursive=True)
    assert partial.state == "writing"
    done = run_command("recover", "--apply", "--remove-empty", "--without-times", logger.root)
    assert done.returncode == 0 and "its logger is writing it" in done.stdout
    camera.send(50)
    logger.wait_frames(100)
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 100


def test_a_killed_logger_is_told_from_a_living_one(start_logger, run_command):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 1000).attached()
    camera.send(500)
    logger.wait_frames(500)
    logger.send_signal(signal.SIGKILL)
    logger.process.wait()
    done = run_command("recover", "--apply", "--remove-empty", "--json", logger.root)
    assert done.returncode == 0, done.stdout
    for answer in answers(done):
        assert answer["action"] in ("recover", "empty")
    files = [answer["file"] for answer in answers(done) if answer["file"]]
    check_cubes(files, camera.pool)


def test_a_logger_says_what_an_earlier_one_left(start_logger, tmp_path):
    root = tmp_path / "data"
    leftover = Leftover(root / DAY / "cam1")
    Camera()
    ended = start_logger("cam1").attached().stop()
    (line,) = [line for line in ended.lines if "not finished" in line]
    assert "7 frames" in line and f"vampires-recover --apply {root}" in line
    assert "--recover" in line
    assert leftover.names.cube.exists()


@pytest.mark.parametrize("stream", ["cam1", "cam2"])
def test_a_logger_speaks_of_its_own_folders_only(start_logger, tmp_path, stream):
    Leftover(tmp_path / "data" / DAY / "cam1")
    Camera(stream)
    ended = start_logger(stream).attached().stop()
    assert ("not finished" in ended.text) == (stream == "cam1")


def test_a_logger_recovers_at_its_start_when_asked(start_logger, tmp_path):
    leftover = Leftover(tmp_path / "data", frames=7)
    camera = Camera()
    logger = start_logger("cam1", "--exact-dir", leftover.folder, "--recover").attached()
    camera.send(3)
    logger.wait_frames(3)
    ended = logger.stop()
    assert f"recovered {leftover.folder / FINAL}" in ended.text
    ended.cubes(camera.pool)
    check_cubes([leftover.folder / FINAL], leftover.pool)


def test_a_logger_starts_whatever_it_cannot_recover(start_logger, tmp_path):
    leftover = Leftover(tmp_path / "data", frames=7)
    leftover.names.cube.write_bytes(b"\xff" * 5000)
    Camera()
    logger = start_logger("cam1", "--exact-dir", leftover.folder, "--recover").attached()
    assert "not recovered" in logger.stop().text


def test_the_run_process_of_a_logger_says_what_an_earlier_one_left(start_command, tmp_path):
    camera = Camera()
    folder = tmp_path / DAY / "cam1"
    Leftover(folder)
    runner = RunProcess(start_command, "cam1", folder)
    runner.fps["dailydir"] = False
    runner.start()
    os.set_blocking(runner.process.stdout.fileno(), False)
    said = ""

    def is_told() -> bool:
        nonlocal said
        said += runner.process.stdout.read() or ""
        return "not finished" in said

    wait_until(is_told, "the line")
    runner.stop()
    assert "7 frames" in said and f"vampires-recover --apply {folder}" in said
    camera.stream.close()
