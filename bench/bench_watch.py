"""fitswatcher: from a file's name to its line on the screen, its start, and what it costs.

As an observer has it: the command in a terminal of 80x24 (tmux), two folders of cubes whose
pixels are holes. The baselines: `ls` of the same folders, and Python starting to do nothing.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fitswatch_cubes import Take, make_cube
from fps_terminal import Terminal, terminal

from vampires.fits_hdus import read_primary
from vampires.times import SECOND_NS, file_stamp

Record = Callable[[str, str, str, bool], None]

CUBES = int(os.environ.get("VAMPIRES_BENCH_CUBES", "10000"))
SCREEN = [sys.executable, "-m", "vampires.commands.fits_watcher"]
STEADY_S = 20.0
ARRIVALS = 20


@pytest.fixture(scope="module")
def many_cubes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders vcam1 and vcam2 with CUBES cubes between them, each with header, table of frames
    and sidecar, one every 10 s and camera."""
    root = tmp_path_factory.mktemp("many")
    try:
        for stream in ("vcam1", "vcam2"):
            _fill(root / stream, stream, CUBES // 2)
        yield root
    finally:
        shutil.rmtree(root)


def _fill(folder: Path, stream: str, number: int) -> None:
    """Copies of one cube under the names of others."""
    length_ns = 10 * SECOND_NS
    begin_ns = time.time_ns() - (number + 10) * length_ns
    cube = make_cube(folder, stream, Take(begin_ns, 250, (1104, 2228), 25.0))
    sidecar = cube.with_suffix(".txt")
    for k in range(1, number):
        first_ns = begin_ns + k * length_ns
        copy = folder / f"{stream}_{file_stamp(first_ns)}.fits"
        _copy_sparse(cube, copy)
        os.utime(copy, ns=(first_ns + length_ns, first_ns + length_ns))
        os.link(sidecar, copy.with_suffix(".txt"))


def _copy_sparse(source: Path, target: Path) -> None:
    """The header and the table of a cube; the pixels stay a hole."""
    image = read_primary(source)
    with source.open("rb") as read, target.open("wb") as write:
        write.write(read.read(image.header_bytes))
        read.seek(image.end_offset)
        write.seek(image.end_offset)
        write.write(read.read())


@contextmanager
def _watching(*globs: object) -> Iterator[Terminal]:
    with terminal() as window:
        window.start([*SCREEN, *map(str, globs)])
        yield window


def _pid(window: Terminal) -> int:
    children = Path(f"/proc/{window.pid()}/task/{window.pid()}/children").read_text().split()
    return int(children[0])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_start_with_many_cubes(many_cubes: Path, record: Record) -> None:
    """From typing to the newest files on the screen; `--once` as well, which reads all."""
    begun = time.perf_counter()
    subprocess.run(["ls", "-l", *many_cubes.iterdir()], check=True, capture_output=True)
    listed_s = time.perf_counter() - begun
    newest = [sorted(folder.glob("*.fits"), key=os.path.getmtime)[-1].name for folder in
              sorted(many_cubes.iterdir())]  # fmt: skip
    waits = []
    for _ in range(3):
        begun = time.perf_counter()
        with _watching(many_cubes / "vcam*") as window:
            window.wait_for(*newest, f"{CUBES // 2} FITS files")
            waits.append(time.perf_counter() - begun)
    record(
        f"fitswatcher on {CUBES} cubes, typed to panel, median of 3 (ls -l: {listed_s:.2f} s)",
        "at most 2 s",
        f"{statistics.median(waits):.2f} s",
        statistics.median(waits) <= 2,
    )


def test_steady_cpu(many_cubes: Path, record: Record) -> None:
    """CPU with all headers read and nothing new, over 20 s."""
    with _watching(many_cubes / "vcam*") as window:
        window.wait_for(f"{CUBES // 2} FITS files")
        window.wait_until(lambda lines: "still to be read" not in "\n".join(lines))
        time.sleep(2)
        pid = _pid(window)
        begun, used = time.perf_counter(), _cpu_s(pid)
        time.sleep(STEADY_S)
        share = (_cpu_s(pid) - used) / (time.perf_counter() - begun)
    record(
        f"fitswatcher on {CUBES} cubes, steady CPU",
        "at most 3 % of a core",
        f"{100 * share:.1f} %",
        share <= 0.03,
    )


def test_rename_to_panel(many_cubes: Path, record: Record) -> None:
    """From the rename of a cube to its line on the screen, as tmux shows it, among many."""
    folder = many_cubes / "vcam1"
    waits = []
    made: list[Path] = []
    with _watching(many_cubes / "vcam*") as window:
        window.wait_for(f"{CUBES // 2} FITS files")
        for _ in range(ARRIVALS):
            first_ns = time.time_ns()
            cube = make_cube(folder, "vcam1", Take(first_ns, 10, (64, 64), 1000.0))
            made.append(cube)
            named = time.perf_counter()
            window.wait_for(cube.name)
            waits.append(time.perf_counter() - named)
            time.sleep(0.3)
    for cube in made:
        cube.unlink()
        cube.with_suffix(".txt").unlink()
    record(
        f"a cube renamed to its line on the screen, worst of {ARRIVALS}, among {CUBES}",
        "at most 0.5 s",
        f"{max(waits):.3f} s (median {statistics.median(waits):.3f} s)",
        max(waits) <= 0.5,
    )
