"""The folders of the page in the observers' manual, and what fitswatcher shows of them."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

from fitswatch_cubes import Take, make_cube

from vampires.disk_room import DiskRoom
from vampires.fitswatch.facts import FileFacts
from vampires.fitswatch.lines import panel
from vampires.fitswatch.listing import FileStamp
from vampires.fitswatch.room import DiskState, GrowingCube
from vampires.fitswatch.snapshot import FileView, FolderView, Snapshot
from vampires.fitswatch.watch import FitsWatch
from vampires.header_rules import HeaderFault
from vampires.terminal_text import Line, Tone

GOLDEN = Path(__file__).parent / "data" / "fitswatch"
NOW = datetime(2024, 6, 13, 0, 11, 20, 347365)  # of the page
MIDNIGHT_NS = 1_718_236_800 * 10**9  # 2024-06-13T00:00:00 UTC
PLACE = "/mnt/fuuu/20240611"
SHAPES = {"vcam1": (1104, 2228), "vcam2": (1104, 2232)}
# Time of the first frame, ns since midnight, frames and rate; the rates are such that each cube
# has a partner and none goes on past midnight.
CUBES = {
    "vcam1": [(3_628172287, 1000, 50), (-10_705597042, 249, 25), (-25_471565079, 611, 50)],
    "vcam2": [(5_715949178, 1000, 50), (-3_278567551, 248, 100), (-24_799346275, 581, 32)],
}
EARLIER = {"vcam1": (5, 800), "vcam2": (4, 1010)}  # files and their frames


def page_folders(root: Path) -> list[Path]:
    """The two folders of the page below root, full size but for the pixels."""
    for stream, cubes in CUBES.items():
        number, frames = EARLIER[stream]
        earlier = [(-(60 + 30 * k) * 10**9, frames, 50) for k in range(number)]
        for since_ns, count, rate_hz in (*cubes, *earlier):
            take = Take(MIDNIGHT_NS + since_ns, count, SHAPES[stream], rate_hz)
            make_cube(root / "20240611" / stream, stream, take)
    return [root / "20240611" / stream for stream in CUBES]


def looked(*folders: Path, newest: int = 3) -> Snapshot:
    """What one look at the folders finds."""
    watch = FitsWatch([str(folder) for folder in folders], newest)
    watch.rescan()
    watch.look_at_growing()
    while watch.read(1.0):
        pass
    return watch.snapshot()


def placed(snapshot: Snapshot, place: str = PLACE) -> Snapshot:
    """The same with the paths of the page, and without the disk of this machine."""
    folders = [
        dataclasses.replace(view, path=f"{place}/{Path(view.path).name}")
        for view in snapshot.folders
    ]
    return dataclasses.replace(snapshot, folders=tuple(folders), disks=())


def texts(lines: list[Line]) -> list[str]:
    """The lines without their tones."""
    return ["".join(text for text, _ in line) for line in lines]


def shown(snapshot: Snapshot, width: int = 80, height: int | None = None) -> list[str]:
    """The panel as text."""
    return texts(panel(snapshot, NOW, width, height)[0])


def tone_of(snapshot: Snapshot, text: str, width: int = 120) -> Tone:
    """The tone of the piece of the panel that has a text in it."""
    for line in panel(snapshot, NOW, width)[0]:
        for piece, tone in line:
            if text in piece:
                return tone
    raise AssertionError(f"{text!r} is not shown:\n" + "\n".join(shown(snapshot, width)))


def golden(name: str) -> list[str]:
    """The lines of a golden screen."""
    return (GOLDEN / name).read_text(encoding="utf-8").splitlines()


# -- a bad night ------------------------------------------------------------------------------


def file_view(name: str, **changes: Any) -> FileView:
    """A file to be shown; changes: of its facts, or arrives and partner."""
    view = {key: changes.pop(key) for key in ("arrives", "partner") if key in changes}
    facts = {
        "shape": (250, 1104, 2228), "image_bytes": 1_229_856_000, "data_type": "OBJECT",
        "object": "HD 123456", "failures": (),
    }  # fmt: skip
    stamp = FileStamp(1_229_900_000, MIDNIGHT_NS, 1)
    return FileView("", FileFacts(name, stamp, **(facts | changes)), **view)


def troubled() -> Snapshot:
    """Everything that fitswatcher can have to say."""
    fault = HeaderFault(
        "DATA-TYP", "DATA-TYP is 'DARKS'; expected one of 'BIAS', 'DARK'", "error"
    )
    short = ("sidecar has 249 lines for 250 frames",)
    other = HeaderFault("GAIN", "GAIN is missing", "warning")
    first = FolderView(
        "/mnt/fuuu/ARCHIVED_DATA/20240613/vcam1",
        1204,
        1_480_746_000_000,
        (
            file_view("vcam1_09:00:08.123456789.fits", partner="vcam2"),
            file_view("vcam1_09:00:03.123456789.fits", lost=3, torn=1, faults=(fault, other)),
            file_view("vcam1_08:59:58.123456789.fits", faults=(other,)),
            file_view("vcam1_08:12:00.000000001.fits", failures=short),
        ),
        (GrowingCube("", "vcam1", MIDNIGHT_NS, 117, 250, 56.98, 2.8e8, is_left=False),),
        bad_files=4,
        lost=12,
        age_s=75.0,
        usual_s=4.4,
    )  # fmt: skip
    second = FolderView(
        "/mnt/fuuu/ARCHIVED_DATA/20240613/vcam2",
        1,
        12_000_000,
        (
            file_view("\x1b[2J evil \u202e名前.fits", image_bytes=12_000_000, shape=(512, 512)),
            file_view(
                "copied.fits", arrives=True, structure="truncated", failures=("truncated",)
            ),
        ),
        (GrowingCube("", "vcam2", MIDNIGHT_NS, 31, 250, 0.0, 0.0, is_left=True),),
    )
    third = FolderView("/mnt/gone/vcam1", 0, 0, fault="Input/output error")
    low = DiskState("/mnt/fuuu", DiskRoom(280 * 10**9, 10**13, read_only=False), 5.6e8)
    alarm = DiskState("/mnt/other", DiskRoom(20 * 10**9, 10**13, read_only=False), 2.8e8)
    return Snapshot((first, second, third), (low, alarm), unread=8000)
