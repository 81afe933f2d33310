"""Partial cubes as a logger leaves them that is killed: made of stamped frames, without one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cube_checks import Cube, check_cubes, hidden_files, make_pool

from vampires import _core, frame_stamp
from vampires.aux_header import AuxHeader
from vampires.cube_header import (
    CubeFacts,
    cube_header,
    header_cards_needed,
    provisional_header,
    reserve_bytes,
)
from vampires.cube_names import HiddenNames
from vampires.frame_table import FRAME_DTYPE, Rows
from vampires.partial_cubes import PartialCube, partial_cubes
from vampires.recovery import recover
from vampires.times import file_stamp

PLANNED = 20
SHAPE = (8, 9)
FIRST_NS = 1_795_348_800_123_456_789
FRAME_NS = 17_543_859
FINAL = "cam1_12:00:00.123456789.fits"
DEAD_PID = 2**22 + 1  # above the largest there is


class Leftover:
    """A cube of 20 frames planned, uint16 8 x 9, of which so many have pixels and rows."""

    def __init__(
        self, folder: Path, frames: int = 7, rows: int | None = None, *,
        shape: tuple[int, int] = SHAPE, planned: int = PLANNED, pid: int = DEAD_PID,
        acquired: bool = True, first_cnt0: int = 11,
    ) -> None:  # fmt: skip
        self.pool = make_pool(shape, "uint16")
        self.rows = journal_rows(planned, first_cnt0, acquired=acquired)
        self.folder = folder
        stem = f".cam1_{file_stamp(FIRST_NS)}.{pid}"
        self.names = HiddenNames(
            *(folder / f"{stem}.{kind}" for kind in ("cube", "frames", "sidecar"))
        )
        self.facts = CubeFacts(
            stream="cam1", dtype="uint16", shape=shape, n_frames=planned, t_first_ns=FIRST_NS,
            t_last_ns=FIRST_NS, time_source="acquisition" if acquired else "logger",
            cnt0_begin=first_cnt0, cnt0_end=first_cnt0, date_ns=FIRST_NS,
        )  # fmt: skip
        room = reserve_bytes(self.facts, AuxHeader())
        self.end_card = header_cards_needed(self.facts, AuxHeader()) - 1
        self.header = provisional_header(self.facts, AuxHeader(), room, self.end_card)
        self.frame_bytes = 2 * shape[0] * shape[1]
        folder.mkdir(parents=True, exist_ok=True)
        self.names.cube.write_bytes(self.header + self.pixels(frames))
        self.write_rows(frames if rows is None else rows)

    def pixels(self, frames: int) -> bytes:
        """The first frames as they stand in the file."""
        parts = []
        for row in self.rows[:frames]:
            frame = frame_stamp.expected_frame(self.pool, int(row["CNT0"]))
            out = bytearray(frame.nbytes)
            _core.convert_to_fits(frame, out)
            parts.append(bytes(out))
        return b"".join(parts)

    def write_rows(self, rows: int) -> None:
        self.names.frames.write_bytes(self.rows[:rows].tobytes())

    def write_final_header(self, frames: int, **known: Any) -> None:
        """As the logger does when it ends the cube."""
        facts = replace(self.facts, n_frames=frames, data_sum=1, **known)
        with self.names.cube.open("r+b") as file:
            file.write(cube_header(facts, AuxHeader(), len(self.header), self.end_card))

    def append(self, content: bytes) -> None:
        with self.names.cube.open("ab") as file:
            file.write(content)

    def cut(self, size: int) -> None:
        os.truncate(self.names.cube, size)

    @property
    def partial(self) -> PartialCube:
        (partial,) = partial_cubes(self.folder)
        return partial


def journal_rows(rows: int, first_cnt0: int, *, acquired: bool) -> Rows:
    """Of frames one after the other, without a loss."""
    table = np.zeros(rows, FRAME_DTYPE)
    numbers = np.arange(rows)
    times = FIRST_NS + FRAME_NS * numbers
    table["FRAME"] = numbers
    table["CNT0"] = first_cnt0 + numbers
    table["CNT1"] = numbers % 8
    table["TACQ"] = times if acquired else 0
    table["TLOG"] = times + 50_000 * acquired
    table["TSTREAM"] = table["TLOG"]
    return table


class Killed(BaseException):
    """Ends the recovery where it is."""


def recovered(leftover: Leftover, frames: int, **options: bool) -> Cube:
    """The cube, after every check there is."""
    file = recover(leftover.partial, **options)
    (cube,) = check_cubes([file], leftover.pool)
    assert len(cube.rows) == frames
    assert cube.rows.tobytes() == leftover.rows[:frames].tobytes()
    assert "RECOVERD" in cube.cards and f"recovered: {frames} frames" in cube.history
    assert not hidden_files(leftover.folder)
    return cube
