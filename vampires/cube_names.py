"""Where a cube goes: folders, final names, hidden names while it is written.

``<root>/YYYYMMDD/<stream>/<stream>_HH:MM:SS.nnnnnnnnn.fits`` and ``.txt``, after the UTC time
of the first frame; the names the reduction and archiving tools split on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vampires.times import day_folder, file_stamp


class HiddenNames(NamedTuple):
    """Names of the growing files; none ends in ``.fits``, all are hidden.

    ``cube`` is the FITS file, ``frames`` its journal (packed rows of FRAME_DTYPE), ``sidecar``
    the text file before it gets its name.
    """

    cube: Path
    frames: Path
    sidecar: Path


@dataclass(frozen=True)
class FinalNames:
    fits: Path
    sidecar: Path


def cube_folder(root: Path, stream: str, first_ns: int, *, exact: bool) -> Path:
    """The folder of a cube whose first frame was taken at first_ns (ns UTC)."""
    return root if exact else root / day_folder(first_ns) / stream


def hidden_names(folder: Path, stream: str, first_ns: int) -> HiddenNames:
    """Names that no other logger uses: they hold the process id."""
    stem = f".{stream}_{file_stamp(first_ns)}.{os.getpid()}"
    return HiddenNames(*(folder / (stem + end) for end in (".cube", ".frames", ".sidecar")))


def final_names(folder: Path, stream: str, first_ns: int) -> Iterator[FinalNames]:
    """The name of the cube, and after it the names a nanosecond later each.

    A second logger of the same stream, or a clock that stepped back, may have taken the first.
    """
    time_ns = first_ns
    while True:
        stem = f"{stream}_{file_stamp(time_ns)}"
        yield FinalNames(folder / f"{stem}.fits", folder / f"{stem}.txt")
        time_ns += 1
