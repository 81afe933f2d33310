"""Loggers that run out of disk space, on small file systems of many sizes; and the account.

    python tests/space_campaign.py --count 50 --seed 1 --dir /tmp

Each time a logger writes stamped frames into a file system that is too small for them: alone,
with a second volume, or with room that returns when its cubes are moved away. The proof is read
from the files: every frame that was seen is once in a published cube, or counted as lost; all
cubes are valid FITS with all their pixels and rows; nothing hidden is left. Needs root, to
mount.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cube_checks import Cube, check_cubes, hidden_files, verify
from logger_process import Camera, LoggerThread

SHAPE = (64, 80)
FRAME_BYTES = 2 * SHAPE[0] * SHAPE[1]
KINDS = ("alone", "second", "returns")
SYSTEMS = ("tmpfs", "ext4")
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Case:
    """size_kib: of the first disk; kind: what follows when it is full."""

    number: int
    size_kib: int
    system: str
    kind: str
    cube_size: int


@dataclass(frozen=True)
class Outcome:
    """What became of the frames of one case; seen == logged + lost."""

    number: int
    size_kib: int
    system: str
    kind: str
    cube_size: int
    seen: int
    logged: int
    lost: int
    cubes: int
    cut_short: int


def cases(count: int, seed: int) -> Iterator[Case]:
    """Sizes from 2 to 24 MiB, each kind and file system in turn."""
    chance = random.Random(seed)
    for number in range(count):
        yield Case(
            number,
            size_kib=chance.randrange(2 << 10, 24 << 10),
            system=SYSTEMS[number % 2],
            kind=KINDS[number // 2 % 3],
            cube_size=chance.randrange(20, 120),
        )


@contextlib.contextmanager
def disk(folder: Path, name: str, system: str, size_kib: int) -> Iterator[Path]:
    """A file system of that size, mounted at folder/name."""
    place, image = folder / name, folder / f"{name}.image"
    place.mkdir()
    if system == "ext4":
        with image.open("wb") as file:
            file.truncate(size_kib << 10)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(place))
    else:
        _run("mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(place))
    try:
        yield place
    finally:
        _run("umount", "-l", str(place))
        image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class _Session:
    """One logger that runs out of space."""

    def __init__(self, case: Case, folder: Path, shm_dir: Path) -> None:
        self._case = case
        self._kept = folder / "kept"
        self._kept.mkdir()
        self._shm_dir = shm_dir
        self._camera = Camera("spacecam", SHAPE, ring=4096)
        self._cubes: list[Cube] = []
        self._moved: set[str] = set()

    def run(self, first: Path, second: Path | None) -> Outcome:
        case = self._case
        further = () if second is None else (second / "data",)
        logger = LoggerThread(
            "spacecam",
            first / "data",
            self._shm_dir,
            cube_size=case.cube_size,
            exact_dir=True,
            next_roots=further,
        ).attached()
        frames = 2 * (case.size_kib << 10) // FRAME_BYTES
        if case.kind == "alone":
            frames = frames * 3 // 4
        for sent in range(0, frames, 10):
            self._camera.send(10)
            self._await(lambda sent=sent: self._taken(logger) >= sent - 200, logger)
            if case.kind == "returns":
                self._move_away(first, logger)
        self._settle(logger, first)
        ended = logger.stop()
        self._check(ended.result, (first, second), 10 * -(-frames // 10))
        result = ended.result
        return Outcome(
            **asdict(case),
            seen=result["frames_seen"],
            logged=result["frames_logged"],
            lost=result["lost"],
            cubes=len(self._cubes),
            cut_short=sum(len(cube.rows) < case.cube_size for cube in self._cubes),
        )

    @staticmethod
    def _taken(logger: LoggerThread) -> int:
        """Frames taken out of the ring, or all that can be while memory is full."""
        status = logger.logger.status()
        waiting = status["memory_full"] or status["disk_errno"] or status["cubes_pending"] > 1
        return 1 << 60 if waiting else int(status["frames"] + status["lost"])

    def _settle(self, logger: LoggerThread, first: Path) -> None:
        """With a way out all frames find their place before the end."""
        if self._case.kind == "alone":
            return

        def done() -> bool:
            if self._case.kind == "returns":
                self._move_away(first, logger)
            status = logger.logger.status()
            behind = self._camera.stream.cnt0 - status["frames"] - status["lost"]
            return not behind and status["cubes_pending"] <= 1 and not status["disk_errno"]

        self._await(done, logger)

    def _move_away(self, first: Path, logger: LoggerThread) -> None:
        """Checks and removes the cubes once the disk has no room for another."""
        room = os.statvfs(first)
        needed = 2 * self._case.cube_size * FRAME_BYTES
        if room.f_bavail * room.f_frsize > needed:
            return
        published = [f for f in sorted((first / "data").glob("*.fits"))]
        for file in published:
            kept = self._kept / file.name
            kept.write_bytes(file.read_bytes())
            sidecar = file.with_suffix(".txt")
            kept.with_suffix(".txt").write_bytes(sidecar.read_bytes())
            self._moved.add(str(file))
            sidecar.unlink()
            file.unlink()

    def _await(self, condition: Callable[[], object], logger: LoggerThread) -> None:
        pause = threading.Event()
        for _ in range(round(PATIENCE_S / 0.002)):
            if condition():
                return
            pause.wait(0.002)
        raise AssertionError(f"{self._case}: {logger.logger.status()}, {logger.lines}")

    def _check(self, result: dict, disks: Sequence[Path | None], sent: int) -> None:
        files = [
            self._kept / Path(name).name if name in self._moved else Path(name)
            for name in result["files"]
        ]
        self._cubes = check_cubes(files, self._camera.pool)
        if files:
            verify(files)
        numbers = [int(cnt0) for cube in self._cubes for cnt0 in cube.rows["CNT0"]]
        told = sum(int(c.rows["LOST"].sum()) + c.number("NLOSTEND") for c in self._cubes)
        assert len(set(numbers)) == len(numbers) == result["frames_logged"], self._case
        assert set(numbers) <= set(range(1, sent + 1)), self._case
        assert result["frames_seen"] == sent, (self._case, result)
        assert result["frames_seen"] == result["frames_logged"] + result["lost"], self._case
        assert told <= result["lost"], (self._case, told, result)
        published = {str(f) for d in disks if d for f in (d / "data").glob("*.fits")}
        assert published == set(result["files"]) - self._moved, self._case
        for place in filter(None, disks):
            assert hidden_files(place) == [], (self._case, hidden_files(place))
        if self._case.kind != "alone":
            assert result["lost"] == 0, (self._case, result)


def play(case: Case, folder: Path, shm_dir: Path) -> Outcome:
    """Plays one case below an empty folder; AssertionError when a frame is unaccounted for."""
    with contextlib.ExitStack() as disks:
        first = disks.enter_context(disk(folder, "first", case.system, case.size_kib))
        second = None
        if case.kind == "second":
            size_kib = 3 * case.size_kib + (16 << 10)
            second = disks.enter_context(disk(folder, "second", case.system, size_kib))
        return _Session(case, folder, shm_dir).run(first, second)


def main(argv: Sequence[str] | None = None) -> int:
    """Plays all cases; a line of JSON for each, and a summary."""
    parser = argparse.ArgumentParser(description="loggers that run out of disk space")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="below it, in a new directory")
    args = parser.parse_args(argv)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="vampires-space-", dir=args.dir) as name:
        shm_dir = Path(name) / "shm"
        shm_dir.mkdir()
        os.environ["MILK_SHM_DIR"] = str(shm_dir)
        for case in cases(args.count, args.seed):
            folder = Path(name) / f"case{case.number}"
            folder.mkdir()
            outcomes.append(play(case, folder, shm_dir))
            print(json.dumps(asdict(outcomes[-1])), flush=True)
    seen, lost = sum(o.seen for o in outcomes), sum(o.lost for o in outcomes)
    print(
        f"{len(outcomes)} sizes, {seen} frames seen, {lost} counted as lost, none unaccounted"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
