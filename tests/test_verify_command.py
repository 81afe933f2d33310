"""vampires-verify: files, folders, what it prints, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fitswatch_cubes import Take, make_cube

from vampires.check_processes import check_files
from vampires.commands.common import StopEvent
from vampires.commands.verify import main

FIRST_NS = 1_795_337_618_973_218_918
PATIENCE_S = 30.0


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A night of two cameras, three cubes each."""
    for camera in ("vcam1", "vcam2"):
        for number in range(3):
            take = Take(FIRST_NS + number * 10**9, lost={3: number})
            make_cube(tmp_path / "20261122" / camera, camera, take)
    return tmp_path / "20261122"


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-2800, os.SEEK_END)  # a row of the table
        file.write(b"\x77")


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """verify(argument, ...) -> exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_night_of_good_cubes_is_all_good(verify, night, jobs):
    status, out, err = verify("--jobs", jobs, night)
    assert (status, err) == (0, "")
    assert out.startswith("6 files, ") and out.endswith(": all good\n")
    assert "60 frames, 6 declared lost" in out


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_faulty_cube_is_named_with_its_fault(verify, night, jobs):
    bad = sorted(night.rglob("*.fits"))[2]
    damage(bad)
    status, out, err = verify("-j", jobs, night / "vcam1", night / "vcam2")
    assert (status, err) == (1, "")
    assert f"{bad}: FAULTY\n  FAULT    the data of HDU 1 are damaged" in out
    assert out.endswith(": 1 FAULTY\n")


def test_json_tells_all_of_it(verify, night):
    bad = sorted(night.rglob("*.fits"))[0]
    damage(bad)
    status, out, _ = verify("--json", "-j", 2, night)
    told = json.loads(out)
    assert status == 1
    assert (told["ok"], told["found"], told["checked"], told["faulty"]) == (False, 6, 6, 1)
    assert (told["frames"], told["lost"], told["interrupted"]) == (60, 6, False)
    assert [file["path"] for file in told["files"]] == sorted(map(str, night.rglob("*.fits")))
    assert [file["ok"] for file in told["files"]] == [False, *[True] * 5]


def test_warnings_and_good_files_are_told_when_asked_for(verify, night):
    (cube, *_) = sorted((night / "vcam1").glob("*.fits"))
    make_cube(cube.parent, "vcam1", Take(FIRST_NS, keywords={"OBJECT": None}))
    _, out, _ = verify(cube)
    assert out.count("\n") == 1 and out.endswith(": all good, 1 with warnings\n")
    _, out, _ = verify("-v", cube)
    assert f"{cube}: good: 10 frames\n  warning  keywords that are missing: OBJECT\n" in out
    status, out, _ = verify("--strict", cube)
    assert status == 1 and "FAULT    keywords that are missing: OBJECT" in out


def test_quick_leaves_the_pixels_unread(verify, night):
    (cube, *_) = sorted((night / "vcam1").glob("*.fits"))
    content = bytearray(cube.read_bytes())
    content[len(content) // 2 // 2880 * 2880 + 9] ^= 1
    cube.write_bytes(content)
    assert verify(cube)[0] == 1
    assert verify("--quick", cube)[0] == 0


def test_strange_entries_of_a_tree_are_faults_and_the_rest_is_checked(verify, night):
    (night / "vcam1" / "folder.fits").mkdir()
    (night / "vcam1" / "dangling.fits").symlink_to("nowhere")
    os.mkfifo(night / "vcam1" / "pipe.fits")
    (night / "vcam1" / ".hidden.fits").touch()
    (night / "vcam1" / ".vcam1_08:53:38.000000000.77.cube").touch()
    (night / "vcam1" / "notes.md").touch()
    status, out, _ = verify(night)
    assert status == 1
    assert "folder.fits\n  FAULT    not a file but a folder" in out
    assert "dangling.fits: FAULTY, foreign\n  FAULT    a dangling link, to nowhere" in out
    assert "pipe.fits: FAULTY, foreign\n  FAULT    not a file but a pipe" in out
    assert "hidden" not in out and "notes" not in out
    assert "8 files" in out and ": 3 FAULTY" in out
    assert "1 cube not finished: being written, or left by a crash" in out


def test_a_folder_that_may_not_be_read_is_a_fault(verify, night, monkeypatch):
    walk = os.walk

    def refused(top: object, onerror: Callable[[OSError], None]) -> object:  # root may all
        onerror(PermissionError(13, "Permission denied", f"{top}/private"))
        return walk(top)

    monkeypatch.setattr("vampires.commands.verify.os.walk", refused)
    status, out, _ = verify(night)
    assert status == 1
    assert f"{night}/private\n  FAULT    cannot be read: Permission denied" in out


def test_a_name_that_would_break_a_terminal_is_shown_harmless(verify, tmp_path):
    path = tmp_path / "\x1b[31mred\x07\n\u202e.fits"
    path.write_bytes(b"SIMPLE\x1b[2J")
    status, out, _ = verify(path)
    assert status == 1
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert "?[31mred???.fits: FAULTY" in out
    told = json.loads(verify("--json", path)[1])
    assert told["files"][0]["path"] == str(path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}/nothing"], "there is no {}/nothing"),
        (["{}/no*.fits"], "nothing matches {}/no*.fits; expected FITS files or folders"),
        (["{}/empty"], "no file *.fits or *.fits.fz in {}/empty; expected at least one"),
        ([""], "there is no file of an empty name"),
        ([], "the following arguments are required: PATH"),
        (["--jobs", "0", "{}"], "expected a whole number of 1 or more"),
        (["--fast", "{}"], "unrecognized arguments: --fast"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_status_2(verify, tmp_path, arguments, told):
    (tmp_path / "empty").mkdir()
    status, out, err = verify(*[argument.format(tmp_path) for argument in arguments])
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("vampires-verify: ") and told.format(tmp_path) in err


def test_a_pattern_that_no_shell_expanded_is_expanded(verify, night):
    assert verify(f"{night}/vcam?/*.fits")[1].startswith("6 files")
    assert verify(f"{night}/*1", f"{night}/vcam1")[1].startswith("3 files")


def test_help_is_quick_to_come(run_command, start_python):
    shown = run_command("verify", "--help")
    assert shown.returncode == 0 and "exit status: 0 all are good" in shown.stdout
    source = "import sys; from vampires.commands import verify; print(*sys.modules)"
    loaded = set(start_python(source).communicate(timeout=PATIENCE_S)[0].split())
    assert loaded and not loaded & {"numpy", "astropy", "vampires._core"}


# -- processes --------------------------------------------------------------------------------


def test_a_check_that_dies_is_a_fault_of_its_file_alone(night, monkeypatch, tmp_path):
    files = sorted(night.rglob("*.fits"))
    # What the processes import first of all kills the one that has the third file.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "import vampires.cube_check as module\n"
        "check = module.check_cube\n"
        "def deadly(path, **how):\n"
        f"    if str(path) == {str(files[2])!r}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return check(path, **how)\n"
        "module.check_cube = deadly\n"
    )
    source = Path(main.__code__.co_filename).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{source}")
    with StopEvent() as stop:
        reports = list(
            check_files(
                files, jobs=2, strict=False, pixels=True, stop=stop, progress=lambda n: None
            )
        )
    found = {report.path: report for report in reports}
    assert sorted(found) == files
    assert found[files[2]].faults == ["the process that checked it died (SIGKILL)"]
    assert all(report.ok for path, report in found.items() if path != files[2])


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_at_once_and_tells_what_was_checked(start_command, night, jobs, number):
    big = night / "vcam1" / "big.fits"
    _make_endless(big)
    process = start_command("verify", "-v", "-j", jobs, *sorted(night.glob("vcam2/*")), night)
    line = process.stdout.readline()
    assert "good" in line or "FAULTY" in line
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "")
    assert "interrupted, " in out.splitlines()[-1] and "not checked" in out


def _make_endless(path: Path) -> None:
    """A hole of 4 TB: hours to read."""
    cards = ["SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 1",
             f"NAXIS1  = {4 * 10**12}", "END"]  # fmt: skip
    path.write_bytes("".join(card.ljust(80) for card in cards).encode().ljust(2880))
    os.truncate(path, 2880 + -(-4 * 10**12 // 2880) * 2880)


def test_on_a_terminal_a_bar_shows_how_far_it_is(night, tmp_path):
    _make_endless(tmp_path / "big.fits")
    pid, terminal = pty.fork()
    if pid == 0:
        command = [sys.executable, "-m", "vampires.commands.verify"]
        os.execv(command[0], [*command, str(tmp_path / "big.fits"), str(night)])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        shown = _read_until(terminal, b"left")
        assert b"[....................]   0 %" in shown and b"of 7 files" in shown
        os.write(terminal, b"\x03")
        rest = _read_until(terminal, b"not checked")
        assert b"\r\x1b[K" in rest
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 130
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def _read_until(terminal: int, text: bytes) -> bytes:
    shown = b""
    deadline = time.monotonic() + PATIENCE_S
    while text not in shown:
        left = deadline - time.monotonic()
        assert left > 0, shown
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 4096)
    return shown
