"""What the tests of vampires-archive share: nights of cubes, proofs, an fpack that waits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from cube_checks import verify
from pixel_cubes import FIRST_NS, pixel_cube, some_pixels

from vampires.archive_manifest import NAME, read_manifest
from vampires.times import SECOND_NS

PATIENCE_S = 30.0
SUMS = ("CHECKSUM", "DATASUM ")


def night(root: Path, cubes: int = 2, **pixels: object) -> list[Path]:
    """root/20240613/vcam1 and vcam2 with so many cubes each."""
    made = []
    for camera in ("vcam1", "vcam2"):
        for number in range(cubes):
            made.append(
                pixel_cube(
                    root / "20240613" / camera,
                    some_pixels(seed=number, **pixels),
                    stream=camera,
                    first_ns=FIRST_NS + number * SECOND_NS,
                )
            )
    return made


def content(root: Path) -> dict[str, bytes]:
    """Every file below root by its name."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def check_archived(original: bytes, archive: Path, sidecar: bytes | None) -> None:
    """The archive of a cube gives back every byte that means something, and is listed."""
    verify([archive])
    with fits.open(archive, disable_image_compression=True) as hdus:
        assert all(card.keyword for hdu in hdus for card in hdu.header.cards)
    unpacked = archive.with_name("proof.part")
    subprocess.run(["funpack", "-O", str(unpacked), str(archive)], check=True)
    try:
        reference = archive.with_name("reference.part")
        reference.write_bytes(original)
        try:
            _check_same(reference, unpacked)
        finally:
            reference.unlink()
    finally:
        unpacked.unlink()
    text = archive.with_name(archive.name.removesuffix(".fits.fz") + ".txt")
    if sidecar is not None:
        assert text.read_bytes() == sidecar
    entry = read_manifest(archive.parent)[archive.name.removesuffix(".fz")]
    assert (entry.name, entry.bytes) == (archive.name, archive.stat().st_size)
    assert entry.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert entry.original_sha256 == hashlib.sha256(original).hexdigest()
    assert entry.original_bytes == len(original)


def _check_same(reference: Path, unpacked: Path) -> None:
    with fits.open(reference) as ours, fits.open(unpacked, checksum=True) as theirs:
        assert [hdu.name for hdu in ours] == [hdu.name for hdu in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            cards = [[c.image for c in hdu.header.cards if c.image.strip()]
                     for hdu in (mine, other)]  # fmt: skip
            if mine.header.get("BITPIX", 0) < 0:  # a nan has many bit patterns
                cards = [[c for c in one if c[:8] not in SUMS] for one in cards]
            if _header_bytes(mine) != _header_bytes(other):  # CHECKSUM is of all blocks
                assert other.verify_checksum() == other.verify_datasum() == 1
                cards = [[c for c in one if c[:8] != SUMS[0]] for one in cards]
            assert cards[0] == cards[1]
        np.testing.assert_array_equal(ours[0].data, theirs[0].data)
        assert ours[1].data.tobytes() == theirs[1].data.tobytes()


def _header_bytes(hdu: fits.PrimaryHDU | fits.BinTableHDU) -> int:
    place = hdu.fileinfo()
    return place["datLoc"] - place["hdrLoc"]


def check_sums(folder: Path) -> int:
    """sha256sum -c agrees with the manifest of a folder; how many files it lists."""
    ran = subprocess.run(
        ["sha256sum", "--strict", "-c", NAME],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return len(ran.stdout.splitlines())


def half_files(root: Path) -> list[str]:
    """What a run has left that is neither cube nor archive nor sidecar nor manifest."""
    return sorted(
        path.name
        for path in root.rglob("*")
        if path.is_file()
        and not path.name.endswith((".fits", ".fits.fz", ".txt"))
        and path.name != NAME
    )


def stand_in(folder: Path, program: str, script: str) -> dict[str, str]:
    """An environment in which a program is this shell script, where $REAL is the program."""
    real = shutil.which(program)
    folder.mkdir(exist_ok=True)
    file = folder / program
    file.write_text(f"#!/bin/bash\nREAL={real}\n{script}\n")
    file.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def waiting_fpack(folder: Path) -> dict[str, str]:
    """An environment whose fpack packs, says so with a file "packed", and then waits until
    there is a file "go"."""
    script = (
        f'"$REAL" "$@" || exit $?\ntouch {folder}/packed\n'
        f"for _ in $(seq 1500); do [ -e {folder}/go ] && exit; sleep 0.02; done"
    )
    return stand_in(folder, "fpack", script)


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.005)


def result_of(ran: subprocess.CompletedProcess[str], status: int = 0) -> dict:
    """The JSON object of a run that ended with this status."""
    assert ran.returncode == status, ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
    return json.loads(ran.stdout)


ARCHIVE = [sys.executable, "-m", "vampires.commands.archive"]
