"""The screen of fitswatcher: what its keys do, and in a real terminal; and its plain output."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitswatch_cubes import Take, make_cube
from fitswatch_page import golden, looked, page_folders, texts, troubled
from fps_terminal import Terminal, colour_of, terminal

from vampires.fitswatch.browser import PanelBrowser
from vampires.fitswatch.detail import read_page, timing_lines
from vampires.fitswatch.snapshot import FileView, Snapshot
from vampires.fitswatch.timing import NoTimes, read_timing, summary
from vampires.terminal_text import Line, Tone
from vampires.times import SECOND_NS

COMMAND = "vampires.commands.fits_watcher"
FIRST_NS = 1_718_236_803_628_172_287


def watcher_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", COMMAND, *map(str, arguments)]


class Browsed:
    """A browser without a screen; pages are read at once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.left = False
        self.browser = PanelBrowser(self._read, self._leave)
        self.browser.snapshot = snapshot

    def _read(self, view: FileView, done: Callable[[list[Line]], None]) -> None:
        done(read_page(view))

    def _leave(self) -> None:
        self.left = True

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.press(key)

    def text(self, width: int = 80, height: int = 40) -> list[str]:
        return texts(self.browser.lines(width, height))

    def chosen(self) -> str:
        lines = self.browser.lines(80, 40)
        marked = [t for line in lines for t, tone in line if tone is Tone.SELECTED]
        return "".join(marked).strip().partition(" - ")[0]


# -- keys -------------------------------------------------------------------------------------


def test_arrows_choose_a_file_over_all_folders() -> None:
    browsed = Browsed(troubled())
    assert browsed.chosen() == ""
    names = []
    for _ in range(7):
        browsed.press("down")
        names.append(browsed.chosen())
    assert names[0].startswith("vcam1_09:00:08") and names[4].startswith("?[2J evil")
    assert names[5] == names[6] == "copied.fits"  # the last
    browsed.press("home")
    assert browsed.chosen() == names[0]
    browsed.press("up", "end", "up")
    assert browsed.chosen() == names[4]
    browsed.press("escape")
    assert browsed.chosen() == ""


def test_before_the_first_look_it_says_what_it_does() -> None:
    browsed = Browsed(troubled())
    browsed.browser.snapshot = None
    browsed.press("down", "enter", "up")
    assert any("looking at the folders" in line for line in browsed.text())
    assert len(browsed.text(5, 2)) <= 2


def test_the_choice_stays_with_its_file_when_newer_ones_come(tmp_path: Path) -> None:
    cubes = [make_cube(tmp_path, "vcam1", Take(FIRST_NS + k * SECOND_NS)) for k in range(3)]
    browsed = Browsed(looked(tmp_path))
    browsed.press("down", "down")
    assert browsed.chosen() == cubes[1].name
    for k in (3, 4, 5):
        cubes.append(make_cube(tmp_path, "vcam1", Take(FIRST_NS + k * SECOND_NS)))
        browsed.browser.snapshot = looked(tmp_path)
        assert browsed.chosen() in (cubes[1].name, cubes[k - 2].name)
    browsed.browser.snapshot = Snapshot(())
    browsed.press("down", "enter")
    assert browsed.chosen() == ""


def test_enter_shows_header_and_times_and_escape_goes_back(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS, 500, lost={100: 3}, torn=1))
    browsed = Browsed(looked(tmp_path))
    browsed.press("down", "enter")
    page = "\n".join(browsed.text(100, 300))
    assert page.startswith(f"╭─ {cube.name} ")
    assert "lost      3 frames, 1 of them torn" in page
    assert "rate      49.701 Hz, 500 frames in 10.040000 s" in page
    assert "gaps      before frame 100: 80.000 ms, 3 lost" in page
    assert "DATA-TYP= 'DARK" in page and "TTYPE4  = 'TACQ" in page
    browsed.press("enter")
    assert "FITS Watcher" in browsed.text()[0]
    browsed.press("enter", "escape")
    assert "FITS Watcher" in browsed.text()[0]


def test_a_page_scrolls_and_says_what_is_not_shown(tmp_path: Path) -> None:
    make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    browsed = Browsed(looked(tmp_path))
    browsed.press("enter")
    first = browsed.text(80, 24)
    assert "more below" in first[-2] and len(first) == 24
    browsed.press("down")
    assert browsed.text(80, 24)[1] == first[2]
    browsed.press("end", "pagedown", "down")
    assert "more above" in browsed.text(80, 24)[-2] and "below" not in browsed.text(80, 24)[-2]
    browsed.press("home", "pageup", "up")
    assert browsed.text(80, 24) == first
    for width, height in ((20, 5), (5, 2), (1, 1)):
        assert len(browsed.text(width, height)) <= height


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_q_leaves_from_anywhere(key: str) -> None:
    for before in ((), ("down",), ("enter",)):
        browsed = Browsed(troubled())
        browsed.press(*before, key)
        assert browsed.left


# -- when the frames came ---------------------------------------------------------------------


def test_times_come_from_the_table_or_the_sidecar(tmp_path: Path) -> None:
    take = Take(FIRST_NS, 400, rate_hz=1000.0, lost={10: 1, 20: 2})
    cube = make_cube(tmp_path, "vcam1", take)
    table = read_timing(str(cube))
    content = cube.read_bytes()
    cube.write_bytes(content[: content.index(b"XTENSION= 'BINTABLE'")])
    sidecar = read_timing(str(cube))
    assert (table.source, sidecar.source) == ("table FRAMES", "sidecar")
    for timing in (table, sidecar):
        assert timing.frames == 400
        assert timing.rate_hz == pytest.approx(399 / 0.402, rel=1e-4)
        assert [(gap.frame, gap.lost) for gap in timing.gaps] == [(10, 1), (20, 2)]
        assert timing.median_ns == pytest.approx(1e6, abs=1000)
        assert timing.jitter_ns < 1000
        assert sum(number for _, _, number in timing.bins) == 397


def test_a_gap_is_a_long_interval_or_a_step_of_the_counter() -> None:
    times = np.arange(100) * 1_000_000
    times[50:] += 5_000_000
    cnt0 = np.arange(100)
    cnt0[70:] += 3
    timing = summary(times, cnt0, source="", clock="")
    assert [(gap.frame, gap.interval_ns, gap.lost) for gap in timing.gaps] == [
        (50, 6_000_000, 0), (70, 1_000_000, 3)
    ]  # fmt: skip
    assert timing.jitter_ns == 0 and timing.most_ns == 6_000_000


@pytest.mark.parametrize("text", ["", "# only\n", "1 2 3\n", "x" * 100, "0 0 0 1e400 1 1 1\n"])
def test_a_cube_without_times_says_so(tmp_path: Path, text: str) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS, 1))
    content = cube.read_bytes()
    cube.write_bytes(content[: content.index(b"XTENSION= 'BINTABLE'")])
    cube.with_suffix(".txt").write_text(text)
    with pytest.raises(NoTimes):
        read_timing(str(cube))
    assert Browsed(looked(tmp_path))


def test_a_histogram_has_a_bar_for_every_bin(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS, 300, rate_hz=30.0))
    lines = texts(timing_lines(read_timing(str(cube))))
    assert any("histogram" in line and "█" in line for line in lines)


# -- plain output -----------------------------------------------------------------------------


def test_once_prints_the_panel_and_ends(run_command: Any, tmp_path: Path) -> None:
    page_folders(tmp_path)
    anywhere = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    globs = f"{tmp_path}/*/vcam*"
    done = run_command("fits_watcher", "-n", 3, "--once", globs, env=anywhere)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.replace(f"{tmp_path}/", "/mnt/fuuu/").splitlines()
    page = golden("page.txt")
    assert lines[0].startswith("╭─ FITS Watcher - 20") and lines[-1].startswith("╰──")
    wanted = [line.strip("│ ") for line in page[1:-1]]
    assert [line.strip("│ ") for line in lines[1:-1]] == wanted
    narrow = anywhere | {"COLUMNS": "50"}
    done = run_command("fits_watcher", "--once", globs, env=narrow)
    assert {len(line) for line in done.stdout.splitlines()} == {50}


def test_json_tells_scripts_everything(run_command: Any, tmp_path: Path) -> None:
    take = Take(FIRST_NS, lost={1: 2}, keywords={"DATA-TYP": "DARKS"})
    cube = make_cube(tmp_path / "vcam1", "vcam1", take)
    done = run_command("fits_watcher", "--json", tmp_path / "vcam1")
    assert done.returncode == 1  # frames are lost
    (folder,) = json.loads(done.stdout)["folders"]
    (file,) = folder["newest"]
    assert (file["name"], file["lost"], file["shape"]) == (cube.name, 2, [10, 16, 24])
    assert file["header_faults"][0]["keyword"] == "DATA-TYP"
    assert folder["files"] == 1 and file["failures"] == [] and file["complete"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--once", "{}/none*"], "no folder matches {}/none*"),
        (["--once", "{}/file"], "is a file, expected folders; give {}"),
        (["-n", "0", "{}"], "expected a whole number of 1 or more"),
        (["--poll", "0", "{}"], "expected a number of 0.1 or more"),
        ([], "the following arguments are required: GLOB"),
        (["{}"], "the screen needs a terminal; without one use --once or --json"),
    ],
)
def test_a_mistake_is_one_line(
    run_command: Any, tmp_path: Path, arguments: list[str], error: str
) -> None:
    (tmp_path / "file").touch()
    given = [argument.format(tmp_path) for argument in arguments]
    done = run_command("fits_watcher", *given)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and error.format(tmp_path) in done.stderr


def test_a_folder_of_broken_things_is_shown(run_command: Any, tmp_path: Path) -> None:
    folder = tmp_path / "\x1b[2J\n"
    cube = make_cube(folder, "vcam1", Take(FIRST_NS))
    (folder / "\x1b]0;x\x07.fits").write_bytes(cube.read_bytes()[:5000])
    os.symlink("nowhere", folder / "link.fits")
    (folder / "zero.fits").touch()
    (folder / os.fsdecode(b"\xff.fits")).write_bytes(cube.read_bytes())
    (folder / "folder.fits").mkdir()
    plain = os.environ | {"LC_ALL": "C"}
    done = run_command("fits_watcher", "--once", "-n", 9, folder, env=plain)
    assert "Traceback" not in done.stderr and done.returncode in (0, 1)
    assert done.stdout.replace("\n", "").isprintable()
    assert "5 FITS files" in done.stdout


# -- in a terminal ----------------------------------------------------------------------------


@pytest.fixture
def window() -> Iterator[Terminal]:
    with terminal(80, 24) as opened:
        yield opened


def test_the_page_can_be_typed(window: Terminal, tmp_path: Path) -> None:
    page_folders(tmp_path)
    window.start(watcher_command("-n", 3, f"{tmp_path}/*/vcam*"))
    window.wait_for("vcam2_23:59:35.200653725.fits - (581, 1104, 2232) 2863 MB | DARK", "╰──")
    window.press("Down", "Down")
    window.press("Enter")
    window.wait_for("rate      25.000 Hz, 249 frames", "Escape back")
    window.press("Escape")
    window.wait_for("FITS Watcher - 20", "q leaves")
    window.press("q")
    window.wait_for("EXIT 0")


def test_a_new_cube_and_a_new_folder_appear_by_themselves(
    window: Terminal, tmp_path: Path
) -> None:
    window.start(watcher_command(f"{tmp_path}/*/vcam*"))
    window.wait_for("no folder matches")
    cube = make_cube(tmp_path / "day" / "vcam1", "vcam1", Take(time.time_ns() - SECOND_NS))
    window.wait_for(cube.name, "1 FITS file ")
    again = make_cube(tmp_path / "day" / "vcam1", "vcam1", Take(time.time_ns() - 1000))
    window.wait_for(again.name, "2 FITS files")
    other = make_cube(tmp_path / "day" / "vcam2", "vcam2", Take(time.time_ns() - 1000))
    window.wait_for(other.name, again.name)


def test_a_new_loss_is_red_and_rings_the_bell_once(window: Terminal, tmp_path: Path) -> None:
    make_cube(tmp_path, "vcam1", Take(time.time_ns() - 50 * SECOND_NS, lost={1: 1}))
    log = tmp_path / "terminal.log"
    window.start(watcher_command(tmp_path))
    window.wait_for("1 frame lost")
    window.tmux("pipe-pane", "-t", "test", f"exec cat > {log}")
    lossy = make_cube(tmp_path, "vcam1", Take(time.time_ns() - SECOND_NS, lost={3: 7}, torn=2))
    window.wait_for(lossy.name, "7 frames lost, 2 of them torn")
    (line,) = [line for line in window.lines(colours=True) if "7 frames lost" in line]
    assert colour_of(line, "7 frames lost") == "31"
    good = make_cube(tmp_path, "vcam1", Take(time.time_ns() - 1000))
    window.wait_for(good.name)
    assert log.read_bytes().count(b"\a") == 1


def test_it_follows_the_size_of_the_terminal_down_to_20_by_5(
    window: Terminal, tmp_path: Path
) -> None:
    page_folders(tmp_path)
    window.start(watcher_command("-n", 3, f"{tmp_path}/*/vcam*"))
    window.wait_for("vcam2_23:59:35", "╰──")
    window.resize(20, 5)
    window.wait_until(lambda lines: any("more below" in line for line in lines))
    window.press("Down", "Down", "Down", "Down")
    window.wait_until(lambda lines: any("more above" in line for line in lines))
    window.press("Enter")
    window.wait_for("vcam2_")
    for width, height in ((3, 2), (1, 1), (300, 60)):
        window.resize(width, height)
    window.wait_for("rate      50.000 Hz, 1000 frames")
    window.press("q")
    window.wait_for("EXIT 0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_gives_the_terminal_back(
    number: signal.Signals, window: Terminal, tmp_path: Path
) -> None:
    make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    window.start(watcher_command(tmp_path))
    window.wait_for("FITS Watcher", "vcam1_00:00:03")
    children = Path(f"/proc/{window.pid()}/task/{window.pid()}/children").read_text().split()
    os.kill(int(children[0]), number)
    lines = window.wait_for("EXIT ")
    assert not any("FITS Watcher" in line for line in lines)
    state = window.tmux("display-message", "-p", "-t", "test", "#{alternate_on}#{cursor_flag}")
    assert state.strip() == "01"
