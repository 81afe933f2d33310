"""Cubes with pixels, tables, sums and sidecars as the logger leaves them, made without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fitswatch_cubes import KEYWORDS, Take

from vampires import _core
from vampires.aux_header import AuxHeader
from vampires.cube_header import CubeFacts, cube_header, reserve_bytes
from vampires.frame_table import frames_hdu
from vampires.keywords import encode_keyword
from vampires.sidecar import sidecar_text
from vampires.times import SECOND_NS, file_stamp

FIRST_NS = 1_718_236_800 * SECOND_NS + 628_172_287  # 2024-06-13T00:00:00.628172287


def some_pixels(
    frames: int = 5, shape: tuple[int, int] = (12, 20), dtype: str = "uint16", seed: int = 3
) -> np.ndarray:
    """[frames, ny, nx]: noise, over the whole range of a type in a few pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 10, (frames, *shape)).astype(dtype)
    if pixels.dtype.kind in "iu":
        info = np.iinfo(pixels.dtype)
        pixels[:, 0, 0], pixels[:, -1, -1] = info.min, info.max
    return pixels


def pixel_cube(
    folder: Path, pixels: np.ndarray, *, stream: str = "vcam1", first_ns: int = FIRST_NS
) -> Path:
    """A cube of these pixels and its sidecar in a folder, which is made; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    take = Take(first_ns, len(pixels), pixels.shape[1:], dtype=str(pixels.dtype))
    stored = np.empty(pixels.nbytes, np.uint8)
    data_sum = _core.convert_to_fits(np.ascontiguousarray(pixels), stored)
    facts = CubeFacts(
        stream, take.dtype, take.shape, take.frames, first_ns, take.last_ns, "acquisition",
        int(take.rows["CNT0"][0]), int(take.rows["CNT0"][-1]), date_ns=take.last_ns,
        keywords_raw=b"".join(encode_keyword(name, value) for name, value in KEYWORDS.items()),
        data_sum=data_sum,
    )  # fmt: skip
    header = cube_header(facts, AuxHeader(), reserve_bytes(facts, AuxHeader()))
    path = folder / f"{stream}_{file_stamp(first_ns)}.fits"
    padding = bytes(-pixels.nbytes % 2880)
    path.write_bytes(header + stored.tobytes() + padding + frames_hdu(take.rows))
    path.with_suffix(".txt").write_bytes(sidecar_text(stream, take.rows))
    return path
