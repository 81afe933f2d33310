"""The panel of fitswatcher as lines of text with tones: no terminal, no clock, no files.

Where nothing is wrong it is the panel that observers know: a line a folder, under it a line for
each of its newest files, in a frame as wide as they need. What is wrong stands behind a file
where there is room on its line, else below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from vampires.disk_room import RoomLevel, duration, room_text, time_to_full_s
from vampires.fitswatch.room import DiskState, GrowingCube
from vampires.fitswatch.snapshot import FileView, FolderView, Snapshot
from vampires.header_rules import HeaderFault
from vampires.terminal_text import Line, Span, Tone, cells, clipped, safe_text
from vampires.times import utc_time_of_day

TITLE = "FITS Watcher"
FRAME_CELLS = 4  # the frame and a blank at either side
LEAST_WIDTH, LEAST_HEIGHT = 8, 3  # below these there is no frame
INDENT, NOTE_INDENT = "  ", "    "
LEAST_OBJECT_CELLS = 4
LEAST_PATH_CELLS = 8
LEAST_NOTE_CELLS = 24  # of a note that stands behind a file and is cut
KEYS_HINT = "arrows choose a file   Enter its header and times   q leaves"

Key = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """A line within the frame; key: of the file it belongs to. is_file: the file's own line."""

    line: Line
    key: Key | None = None
    is_file: bool = False


# -- the frame --------------------------------------------------------------------------------


def framed(
    titles: Sequence[str],
    rows: Sequence[Line],
    width: int,
    *,
    above: int = 0,
    below: int = 0,
    needed: int = 0,
) -> list[Line]:
    """Lines in a rounded frame, as wide as they need and at most width.

    titles: the same from long to short; the longest that fits is taken. above, below: rows that
    are not shown, told in the frame. needed: cells that they would need.
    """
    if width < LEAST_WIDTH:
        return [cut(row, width) for row in rows]
    needed = max([needed, cells(titles[0]) + 2, *map(line_cells, rows)])
    width = min(width, needed + FRAME_CELLS)
    title = next((t for t in titles if cells(t) <= width - 6), safe_text(titles[-1], width - 6))
    lines = [_border("╭", title, "╮", width, Tone.TITLE)]
    lines += [_side(cut(row, width - FRAME_CELLS), width) for row in rows]
    hidden = [f"{n} more {where}" for n, where in ((above, "above"), (below, "below")) if n]
    lines.append(_border("╰", safe_text(", ".join(hidden), width - 6), "╯", width, Tone.FAINT))
    return lines


def _border(left: str, text: str, right: str, width: int, tone: Tone) -> Line:
    if not text:
        return ((left + "─" * (width - 2) + right, Tone.PLAIN),)
    rest = "─" * (width - cells(text) - 5)
    return ((f"{left}─ ", Tone.PLAIN), (text, tone), (f" {rest}{right}", Tone.PLAIN))


def _side(row: Line, width: int) -> Line:
    padding = " " * (width - FRAME_CELLS - line_cells(row))
    return (("│ ", Tone.PLAIN), *row, (f"{padding} │", Tone.PLAIN))


def line_cells(line: Line) -> int:
    """The cells a line takes."""
    return sum(cells(text) for text, _ in line)


def cut(line: Line, width: int) -> Line:
    """The line in at most so many cells, marked where it was cut."""
    if line_cells(line) <= width:
        return line
    kept: list[Span] = []
    left = width
    for text, tone in line:
        if cells(text) > left or (cells(text) == left and (text, tone) is not line[-1]):
            kept.append((safe_text(clipped(text, left) + " ", left), tone))
            break
        kept.append((text, tone))
        left -= cells(text)
    return tuple(kept)


def titles(now: datetime) -> tuple[str, ...]:
    """The title with the local time, from long to short."""
    iso = now.isoformat(timespec="microseconds")
    return f"{TITLE} - {iso}", f"{TITLE} - {iso[:19]}", f"{TITLE} - {iso[11:19]}", iso[11:19]


def panel(
    snapshot: Snapshot,
    now: datetime,
    width: int,
    height: int | None = None,
    *,
    chosen: Key | None = None,
    top: int = 0,
) -> tuple[list[Line], int]:
    """The panel in at most width cells and height lines, and the first row it shows.

    chosen: the file that is marked and stays in sight. top: the first row shown before.
    """
    rows = panel_rows(snapshot, width - FRAME_CELLS if width >= LEAST_WIDTH else width)
    if chosen is not None:
        rows = [_marked(row, chosen) for row in rows]
    if height is None or len(rows) + 2 <= height:
        return framed(titles(now), [row.line for row in rows], width), 0
    if height < LEAST_HEIGHT:
        shown = max(1, height)
        top = _top(rows, chosen, top, shown)
        return [cut(row.line, width) for row in rows[top : top + shown]][:height], top
    shown = height - 2
    top = _top(rows, chosen, top, shown)
    lines = [row.line for row in rows[top : top + shown]]
    return framed(titles(now), lines, width, above=top, below=len(rows) - top - shown), top


def _top(rows: Sequence[Row], chosen: Key | None, top: int, shown: int) -> int:
    """The first row to show, so that all rows of the chosen file are in sight."""
    top = max(0, min(top, len(rows) - shown))
    theirs = [at for at, row in enumerate(rows) if row.key == chosen and chosen is not None]
    if not theirs:
        return top
    first, last = theirs[0], theirs[-1]
    if first <= 2 and last < shown:  # with the line of its folder
        return 0
    return min(first, max(top, last - shown + 1))


def _marked(row: Row, chosen: Key) -> Row:
    if row.key != chosen or not row.is_file:
        return row
    return Row(tuple((text, Tone.SELECTED) for text, _ in row.line), row.key, True)


# -- what is in it ----------------------------------------------------------------------------


def panel_rows(snapshot: Snapshot, width: int) -> list[Row]:
    """The rows of the panel, as they fit so many cells."""
    rows = [Row(_disk_line(disk, width)) for disk in snapshot.pressing_disks]
    for folder in snapshot.folders:
        if rows:
            rows.append(Row(()))
        rows += _folder_rows(folder, width)
    for pattern in snapshot.missing:
        rows.append(Row((_cut_span(f"no folder matches {safe_text(pattern)} yet", width),)))
    if snapshot.unread > 100:
        text = f"{snapshot.unread} headers still to be read"
        rows.append(Row((_cut_span(text, width, Tone.FAINT),)))
    return rows


def _folder_rows(folder: FolderView, width: int) -> list[Row]:
    common = _common_faults(folder)
    rows = [Row(line) for line in _heading(folder, width, common)]
    rows += [Row(_growing_line(cube, width)) for cube in folder.growing]
    for view in folder.files:
        rows += _file_rows(view, width, common)
    return rows


def _common_faults(folder: FolderView) -> tuple[HeaderFault, ...]:
    """What is wrong with the headers of all files shown: told once, with their folder."""
    judged = [view.facts.faults for view in folder.files if not view.arrives]
    if len(judged) < 2:
        return ()
    others = [set(faults) for faults in judged[1:]]
    return tuple(fault for fault in judged[0] if all(fault in other for other in others))


def _heading(folder: FolderView, width: int, common: Sequence[HeaderFault]) -> list[Line]:
    """The line of a folder: its path shortened at the left, where it must be."""
    noun = "FITS file" if folder.count == 1 else "FITS files"
    full = f" - {folder.count} {noun} ({total_text(folder.total_bytes)})"
    path = safe_text(folder.path.rstrip("/") + "/")
    candidates = (full, f" - {folder.count} files", f" {folder.count}")
    least = min(LEAST_PATH_CELLS, cells(path))
    facts = next((text for text in candidates if cells(text) + least <= width), "")
    path = _end_of(path, width - cells(facts))
    heading = ((path, Tone.STRONG), (facts, Tone.PLAIN))
    notes = [*_folder_notes(folder), *_header_notes(common, "all headers")]
    return _with_notes(heading, notes, width, INDENT)


def _folder_notes(folder: FolderView) -> list[Span]:
    notes: list[Span] = []
    if folder.fault:
        notes.append((f"cannot be listed: {safe_text(folder.fault)}", Tone.BAD))
    unseen = folder.bad_files - sum(view.is_bad for view in folder.files)
    if unseen > 0:
        lost = f", {folder.lost} frames lost in all" if folder.lost else ""
        notes.append((f"{_counted(folder.bad_files, 'bad file')}{lost}", Tone.BAD))
    if folder.age_s:
        usual = duration(folder.usual_s)
        age = duration(folder.age_s)
        notes.append((f"no new file for {age}, usually one every {usual}", Tone.WARNING))
    return notes


def _growing_line(cube: GrowingCube, width: int) -> Line:
    """A cube being written: how far, how fast."""
    name = f"{INDENT}{safe_text(cube.stream)}_{utc_time_of_day(cube.first_ns, 9)}"
    short = f"{INDENT}{utc_time_of_day(cube.first_ns, 0)}"
    of = f" of {cube.planned}" if cube.planned else ""
    if cube.is_left:
        ends: tuple[str, ...] = (
            f" - {cube.frames} frames, its logger died: vampires-recover",
            f" - {cube.frames} frames, to be recovered",
            f" {cube.frames}, recover",
        )
        tone = Tone.WARNING
    else:
        rate = f", {cube.rate_hz:.1f} Hz" if cube.rate_hz >= 0 else ""
        if cube.frames and not cube.rate_hz:
            rate = ", no frames come"
        share = f" ({100 * cube.frames // cube.planned}%)" if cube.planned else ""
        ends = (
            f" - being written: {cube.frames}{of} frames{share}{rate}",
            f" - {cube.frames}{of}{rate}",
            f" {cube.frames}{of}",
        )
        tone = Tone.GOOD
    candidates = [start + end for start, end in ((name, ends[0]), (name, ends[1]))]
    candidates += [short + ends[1], short + ends[2]]
    text = next((t for t in candidates if cells(t) <= width), candidates[-1])
    return (_cut_span(text, width, tone),)


def _disk_line(disk: DiskState, width: int) -> Line:
    text = room_text(disk.room.free_bytes, disk.bytes_per_s)
    left_s = time_to_full_s(disk.room.free_bytes, disk.bytes_per_s)
    short = f"full in {duration(left_s)}" if left_s > 0 else "full"
    if disk.room.read_only:
        text = short = "the disk is read-only"
    candidates = (f"disk of {safe_text(disk.folder)}: {text}", f"disk: {text}", f"disk {short}")
    fitting = next((c for c in candidates if cells(c) <= width), short)
    urgent = disk.level is not RoomLevel.LOW or disk.room.read_only
    return (_cut_span(fitting, width, Tone.BAD if urgent else Tone.WARNING),)


# -- a file -----------------------------------------------------------------------------------


def _file_rows(view: FileView, width: int, common: Sequence[HeaderFault]) -> list[Row]:
    line = ((file_text(view, width), Tone.PLAIN),)
    lines = _with_notes(line, _file_notes(view, common), width, NOTE_INDENT)
    return [Row(text, view.key, at == 0) for at, text in enumerate(lines)]


def file_text(view: FileView, width: int) -> str:
    """The line of a file, the fullest that fits: name, shape, size, DATA-TYP, OBJECT."""
    facts = view.facts
    name, size = safe_text(facts.name), megabytes(facts.image_bytes or facts.stamp.size)
    if view.arrives and facts.structure:
        size = megabytes(facts.stamp.size)
        return safe_text(f"{INDENT}{name} - {size}, being written", width)
    shape = f"({', '.join(map(str, facts.shape))}) " if facts.shape else ""
    start = f"{INDENT}{name} - {shape}{size}"
    kind, target = safe_text(facts.data_type), safe_text(facts.object)
    words = f" | {kind} {target}".rstrip() if kind or target else ""
    if cells(start + words) <= width:
        return start + words
    room = width - cells(f"{start} | {kind} ")
    if target and room >= LEAST_OBJECT_CELLS:
        return f"{start} | {kind} {safe_text(target, room)}"
    kind = f" | {kind}" if kind else ""
    short = f"{INDENT}{name} - {size}"
    for text in (start + kind, start, short + kind, short):
        if cells(text) <= width:
            return text
    return INDENT + _end_of(name, width - len(INDENT))


def _file_notes(view: FileView, common: Sequence[HeaderFault]) -> list[Span]:
    facts = view.facts
    notes: list[Span] = []
    if facts.lost:
        torn = f", {facts.torn} of them torn" if facts.torn else ""
        notes.append((f"{_counted(facts.lost, 'frame')} lost{torn}", Tone.BAD))
    if not view.arrives:
        notes += [(safe_text(failure), Tone.BAD) for failure in facts.failures or ()]
        notes += _header_notes([f for f in facts.faults if f not in common], "header")
    if view.partner:
        notes.append((f"no {safe_text(view.partner)} cube of this time", Tone.WARNING))
    return notes


def _header_notes(faults: Sequence[HeaderFault], whose: str) -> list[Span]:
    """The first fault in full, of the others the keywords."""
    if not faults:
        return []
    first, *others = faults
    more = f"; also {', '.join(fault.keyword for fault in others)}" if others else ""
    return [(safe_text(f"{whose}: {first.text}{more}"), Tone.WARNING)]


def _with_notes(line: Line, notes: Sequence[Span], width: int, indent: str) -> list[Line]:
    """The notes behind the line where they fit there, else each on a line below."""
    behind = tuple(span for text, tone in notes for span in (("  ", Tone.PLAIN), (text, tone)))
    room = width - line_cells(line)
    if not notes or line_cells(behind) <= room:
        return [(*line, *behind)]
    if len(notes) == 1 and room >= 2 * LEAST_NOTE_CELLS:
        return [(*line, ("  ", Tone.PLAIN), (safe_text(notes[0][0], room - 2), notes[0][1]))]
    below = [((indent + safe_text(text, width - len(indent)), tone),) for text, tone in notes]
    return [line, *below]


# -- numbers and cuts -------------------------------------------------------------------------


def megabytes(n_bytes: int) -> str:
    """Such as "4919 MB"; below 10 MB with a decimal."""
    mb = n_bytes / 1e6
    return f"{mb:.0f} MB" if mb >= 9.95 or not n_bytes else f"{max(mb, 0.1):.1f} MB"


def total_text(n_bytes: int) -> str:
    """Such as "29 GB"; small totals in MB, large ones in TB."""
    if n_bytes < 1e9:
        return megabytes(n_bytes)
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        size = n_bytes / scale
        if size >= 10:
            return f"{size:.0f} {unit}"
        if size >= 1 and unit == "GB":
            return f"{size:.1f} {unit}"
    return f"{n_bytes / 1e9:.0f} GB"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _cut_span(text: str, width: int, tone: Tone = Tone.PLAIN) -> Span:
    return safe_text(text, width), tone


def _end_of(text: str, width: int) -> str:
    """The end of a safe text in at most so many cells, with an ellipsis before it if cut."""
    if cells(text) <= width or width <= 1:
        return safe_text(text, width)
    kept = clipped(text[::-1], width - 1)[::-1]
    return "…" + kept
