"""The panel of fitswatcher: the page's for the page's files, at any size, and what it adds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fitswatch_page import (
    NOW,
    file_view,
    golden,
    looked,
    page_folders,
    placed,
    shown,
    texts,
    tone_of,
    troubled,
)
from hypothesis import given
from hypothesis import strategies as st

from vampires.fitswatch.lines import megabytes, panel, panel_rows, total_text
from vampires.fitswatch.snapshot import FolderView, Snapshot
from vampires.header_rules import HeaderFault
from vampires.terminal_text import Tone, cells


@pytest.mark.parametrize("width", [80, 120, 200])
def test_for_the_files_of_the_page_it_is_the_panel_of_the_page(
    tmp_path: Path, width: int
) -> None:
    snapshot = placed(looked(*page_folders(tmp_path)))
    assert shown(snapshot, width) == golden("page.txt")


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_what_is_wrong_is_told_in_the_room_there_is(width: int) -> None:
    assert shown(troubled(), width) == golden(f"troubled_{width}.txt")


def test_a_terminal_of_20_by_5_shows_the_most_pressing() -> None:
    assert shown(troubled(), 20, 5) == golden("troubled_20x5.txt")


@pytest.mark.parametrize(
    ("text", "tone"),
    [
        ("3 frames lost", Tone.BAD),
        ("sidecar has 249 lines", Tone.BAD),
        ("12 frames lost in all", Tone.BAD),
        ("cannot be listed", Tone.BAD),
        ("DATA-TYP is 'DARKS'", Tone.WARNING),
        ("no vcam2 cube", Tone.WARNING),
        ("no new file for", Tone.WARNING),
        ("its logger died", Tone.WARNING),
        ("being written: 117 of 250", Tone.GOOD),
        ("full in 8 min", Tone.WARNING),
        ("full in 1 min", Tone.BAD),
    ],
)
def test_losses_are_red_and_doubts_are_yellow(text: str, tone: Tone) -> None:
    assert tone_of(troubled(), text) is tone


@given(st.integers(1, 250), st.integers(1, 60), st.integers(0, 8), st.integers(0, 40))
def test_no_line_is_wider_and_no_panel_higher_than_the_screen(
    width: int, height: int, chosen: int, top: int
) -> None:
    snapshot = troubled()
    keys = [view.key for folder in snapshot.folders for view in folder.files]
    key = keys[chosen] if chosen < len(keys) else None
    lines, _ = panel(snapshot, NOW, width, height, chosen=key, top=top)
    assert 1 <= len(lines) <= height
    assert all(cells(text) <= width and text.isprintable() for text in texts(lines))


@given(st.integers(12, 200), st.integers(3, 30), st.integers(0, 5))
def test_the_chosen_file_is_in_sight(width: int, height: int, chosen: int) -> None:
    snapshot = troubled()
    views = [view for folder in snapshot.folders for view in folder.files]
    top = 0
    for view in [*views[: chosen + 1], *views[chosen::-1]]:
        lines, top = panel(snapshot, NOW, width, height, chosen=view.key, top=top)
        assert any(tone is Tone.SELECTED for line in lines for _, tone in line)


def test_names_cannot_reach_the_terminal() -> None:
    name, hostile = "\x1b]0;x\x07\x9b2J\u202e.fits", "\x1b[31m\r\n"
    view = file_view(name, data_type=hostile, object=hostile, failures=(hostile,))
    folder = FolderView(f"/{hostile}", 1, 1, (view,), fault=hostile)
    lines = shown(Snapshot((folder,), missing=(hostile,)))
    assert all(line.isprintable() for line in lines)
    assert "?]0;x??2J?.fits" in "\n".join(lines)


def test_a_note_belongs_to_its_file_also_below_it() -> None:
    rows = panel_rows(troubled(), 76)
    at = next(k for k, row in enumerate(rows) if "no vcam2 cube" in texts([row.line])[0])
    assert not rows[at].is_file
    assert rows[at].key == rows[at - 1].key and rows[at - 1].is_file


def test_what_is_wrong_with_all_headers_is_told_once() -> None:
    all_have = HeaderFault("GAIN", "GAIN is missing", "warning")
    one_has = HeaderFault("EXPTIME", "EXPTIME is -1; expected seconds, 0 or more", "error")
    faults = [(all_have,), (one_has, all_have), (all_have,)]
    files = [file_view(f"{k}.fits", faults=theirs) for k, theirs in enumerate(faults)]
    lines = shown(Snapshot((FolderView("/data", 3, 3, tuple(files)),)), 120)
    assert sum("GAIN" in line for line in lines) == 1 and "all headers: GAIN" in lines[1]
    assert [k for k, line in enumerate(lines) if "header: EXPTIME is -1" in line] == [3]


def test_no_folder_is_said() -> None:
    lines = shown(Snapshot((), missing=("/data/*/vcam*",)))
    assert any("no folder matches /data/*/vcam* yet" in line for line in lines)


def test_a_read_only_disk_matters_while_something_should_be_written() -> None:
    disk = troubled().disks[0]
    room = dataclasses.replace(disk.room, free_bytes=10**13, read_only=True)
    quiet = dataclasses.replace(disk, room=room, bytes_per_s=0.0)
    assert Snapshot((), (quiet,)).pressing_disks == ()
    loud = dataclasses.replace(disk, room=room)
    assert any("read-only" in line for line in shown(Snapshot((), (loud,))))


def test_sizes_read_as_on_the_page() -> None:
    assert [megabytes(n) for n in (0, 1, 574_592, 9_940_000, 9_960_000, 4_919_424_000)] == [
        "0 MB", "0.1 MB", "0.6 MB", "9.9 MB", "10 MB", "4919 MB"
    ]  # fmt: skip
    assert [total_text(n) for n in (0, 5 * 10**8, 1_200_000_000, 29_400_000_000, 2e13)] == [
        "0 MB", "500 MB", "1.2 GB", "29 GB", "20 TB"
    ]  # fmt: skip
