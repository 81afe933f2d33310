"""Checking cubes that are in the page cache, beside cat of the same files."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from vampires.aux_header import AuxHeader
from vampires.cube_header import CubeFacts, cube_header, reserve_bytes
from vampires.fits_sum import data_sum
from vampires.frame_table import FRAME_DTYPE, frames_hdu
from vampires.sidecar import sidecar_text
from vampires.times import file_stamp

MBI = (1096, 2236)
MBI_HZ = 57
FRAMES = 245  # 1.2 GB
CUBES = 6  # names of the same bytes: what is read is cached either way
ROUNDS = 3
ASKED = 0.8
CAP_BYTES_PER_S = 4e9
FIRST_NS = 1_795_337_618_973_218_918


def make_cubes(folder: Path) -> list[Path]:
    """A cube of noise, and more names of it, each with a sidecar."""
    rows = np.zeros(FRAMES, FRAME_DTYPE)
    rows["FRAME"] = np.arange(FRAMES)
    rows["CNT0"] = 1000 + rows["FRAME"]
    rows["TACQ"] = FIRST_NS + rows["FRAME"].astype(np.int64) * (10**9 // MBI_HZ)
    rows["TLOG"] = rows["TACQ"] + 1_000_000
    noise = np.random.default_rng(1).integers(0, 2**16, (FRAMES, *MBI), dtype=np.uint16)
    pixels = noise.tobytes()
    pixels += bytes(-len(pixels) % 2880)
    facts = CubeFacts(
        "vcam1", "uint16", MBI, FRAMES, FIRST_NS, int(rows["TACQ"][-1]), "acquisition",
        1000, 999 + FRAMES, FIRST_NS, data_sum=data_sum(pixels),
    )  # fmt: skip
    header = cube_header(facts, AuxHeader(), reserve_bytes(facts, AuxHeader()))
    paths = [folder / f"vcam1_{file_stamp(FIRST_NS + k)}.fits" for k in range(CUBES)]
    paths[0].write_bytes(header + pixels + frames_hdu(rows))
    for path in paths:
        path.with_suffix(".txt").write_bytes(sidecar_text("vcam1", rows))
        if path != paths[0]:
            os.link(paths[0], path)
    return paths


def seconds(command: list[str]) -> float:
    """How long a command takes on one core, from its start to its end."""
    core = min(os.sched_getaffinity(0))
    begun = time.perf_counter()
    ran = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert ran.returncode == 0
    return time.perf_counter() - begun


def test_verify_of_cached_files(disk_dir, record):
    paths = make_cubes(disk_dir)
    total = sum(path.stat().st_size for path in paths)
    verify = [sys.executable, "-m", "vampires.commands.verify", "--jobs", "1", str(disk_dir)]
    cat = ["cat", *map(str, paths)]
    seconds(cat)
    took = [(seconds(cat), seconds(verify)) for _ in range(ROUNDS)]
    baseline = total / statistics.median(seconds for seconds, _ in took)
    rate = total / statistics.median(seconds for _, seconds in took)
    wanted = min(ASKED * baseline, CAP_BYTES_PER_S)
    record(
        "verify, cached files, one core",
        f">= {wanted / 1e9:.2f} GB/s (0.8 x cat, at most 4)",
        f"{rate / 1e9:.2f} GB/s; cat {baseline / 1e9:.2f} GB/s",
        rate >= wanted,
    )

    with paths[0].open("r+b") as file:  # and it is not quick because it looks away
        file.seek(total // CUBES // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    ran = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and ran.stdout.count("the data of HDU 0 are damaged") == CUBES
