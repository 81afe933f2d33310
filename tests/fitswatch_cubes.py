"""Cubes as the logger leaves them, made at once: their pixels are a hole in the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vampires.aux_header import AuxHeader
from vampires.cube_header import CubeFacts, cube_header, reserve_bytes
from vampires.frame_table import FRAME_DTYPE, Rows, frames_hdu
from vampires.keywords import KeywordValue, encode_keyword
from vampires.sidecar import sidecar_text
from vampires.times import SECOND_NS, file_stamp

BLOCK_BYTES = 2880

# Every keyword that the readers of the cubes ask for.
KEYWORDS: dict[str, KeywordValue] = {
    "DATA-TYP": "DARK", "OBJECT": "scexao", "FILTER01": "Open", "FILTER02": "Open",
    "U_FLDSTP": "Fieldstop", "U_FLCST": "NA", "RADESYS": "FK5", "RET-MOD1": "NA",
    "U_MBI": "Dichroics", "BUNIT": "adu", "RA": "00:00:00.000", "DEC": "+00:00:00.00",
    "EXPTIME": 0.02, "U_TRIGJT": 0.0, "EQUINOX": 2000.0, "D_IMRPAP": 0.0, "D_IMRANG": 0.0,
    "ALTITUDE": 90.0, "AZIMUTH": 0.0, "AIRMASS": 1.0, "RET-ANG1": 0.0, "GAIN": 0.1,
    "DET-TMP": 268.0, "FRATE": 50.0, "MFRATE": 50.0, "INST-PA": 0.0,
    "PRD-MIN1": 0, "PRD-MIN2": 0, "PRD-RNG1": 2228, "PRD-RNG2": 1104, "BIN-FCT1": 1,
    "BIN-FCT2": 1, "EXTTRIG": False, "U_FLCEN": False, "CROPPED": False, "U_CAMERA": 1,
    "U_FLC": "NA", "F-RATIO": 21.3, "DETBIAS": 200.0, "X_POLARP": 0.0, "D_IMRPAD": 0.0,
    "U_QWP1": 0.0, "U_QWP1TH": 0.0, "U_QWP2": 0.0, "U_QWP2TH": 0.0, "RET-ANG2": 0.0,
    "RET-POS1": 0.0, "RET-POS2": 0.0, "U_DETMOD": "FAST",
    "DETECTOR": "VCAM1 - OrcaQ", "OBS-MOD": "IMAG_MBI",
}  # fmt: skip
for _ending in ("", "B", "C", "D"):
    for _axis, _kind in (("1", "RA---TAN"), ("2", "DEC--TAN")):
        KEYWORDS |= {f"CTYPE{_axis}{_ending}": _kind, f"CRPIX{_axis}{_ending}": 1.0}
        KEYWORDS |= {f"CRVAL{_axis}{_ending}": 0.0, f"CUNIT{_axis}{_ending}": "deg"}
        KEYWORDS |= {f"CDELT{_axis}{_ending}": 1e-6}


@dataclass(frozen=True)
class Take:
    """What a cube holds. keywords: besides those above; None takes one away. lost: frames
    missing before the frame of that index, by index."""

    first_ns: int
    frames: int = 10
    shape: tuple[int, int] = (16, 24)
    rate_hz: float = 50.0
    dtype: str = "uint16"
    lost: dict[int, int] | None = None
    torn: int = 0
    keywords: dict[str, KeywordValue | None] | None = None

    @property
    def last_ns(self) -> int:
        return int(self.rows["TACQ"][-1])

    @property
    def rows(self) -> Rows:
        rows = np.zeros(self.frames, FRAME_DTYPE)
        rows["FRAME"] = np.arange(self.frames)
        for frame, lost in (self.lost or {}).items():
            rows["LOST"][frame] = lost
        rows["CNT0"] = 1000 + rows["FRAME"] + np.cumsum(rows["LOST"])
        rows["TACQ"] = self.first_ns + (rows["CNT0"] - 1000) * int(SECOND_NS / self.rate_hz)
        rows["TSTREAM"] = rows["TLOG"] = rows["TACQ"] + 1_000_000
        return rows


def make_cube(folder: Path, stream: str, take: Take, *, sidecar: bool = True) -> Path:
    """A complete cube with its sidecar, named after its first frame; written last when its last
    frame came."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stream}_{file_stamp(take.first_ns)}.fits"
    hidden = folder / f".{path.name}.making"
    write_cube(hidden, stream, take)
    text = path.with_suffix(".txt")
    if sidecar:
        text.write_bytes(sidecar_text(stream, take.rows))
    for file in (hidden, text) if sidecar else (hidden,):
        os.utime(file, ns=(take.last_ns, take.last_ns))
    hidden.rename(path)
    return path


def write_cube(path: Path, stream: str, take: Take) -> None:
    """Header, a hole for the pixels, and the table of frames."""
    header, pixel_bytes = _header(stream, take)
    with path.open("wb") as file:
        file.write(header)
        file.seek(pixel_bytes + -pixel_bytes % BLOCK_BYTES, os.SEEK_CUR)
        file.write(frames_hdu(take.rows))


def make_growing(folder: Path, stream: str, take: Take, frames: int, pid: int) -> Path:
    """The hidden files of a cube with so many frames on disk; the path of its journal."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f".{stream}_{file_stamp(take.first_ns)}.{pid}"
    header, _ = _header(stream, take)
    (folder / f"{stem}.cube").write_bytes(header)
    journal = folder / f"{stem}.frames"
    journal.write_bytes(take.rows[:frames].tobytes())
    return journal


def _header(stream: str, take: Take) -> tuple[bytes, int]:
    """The header and the bytes of the pixels."""
    given = {**KEYWORDS, "U_CAMERA": int(stream[-1]) if stream[-1:].isdigit() else 1}
    given["DETECTOR"] = f"VCAM{given['U_CAMERA']} - OrcaQ"
    raw = b"".join(
        encode_keyword(name, value)
        for name, value in (given | (take.keywords or {})).items()
        if value is not None
    )
    rows = take.rows
    facts = CubeFacts(
        stream,
        take.dtype,
        take.shape,
        take.frames,
        take.first_ns,
        take.last_ns,
        "acquisition",
        int(rows["CNT0"][0]),
        int(rows["CNT0"][-1]),
        date_ns=take.last_ns,
        n_lost=int(rows["LOST"].sum()),
        n_torn=take.torn,
        keywords_raw=raw,
        data_sum=0,
    )
    header = cube_header(facts, AuxHeader(), reserve_bytes(facts, AuxHeader()))
    return header, np.dtype(take.dtype).itemsize * take.frames * int(np.prod(take.shape))
