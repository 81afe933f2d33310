"""A logger that is killed (SIGKILL) at random moments, and what vampires-recover makes of it.

    python tests/kill_campaign.py --count 200 --seed 1 --rate 280 --dir /data/campaign

Each time a real vampires-logger writes the frames of a simulated camera, dies at a random
moment, and its partial cube is recovered; of some, the recovery is killed too and done again.
The proof is read from the files (cube_checks): every row and every frame that was whole on disk
is in a valid cube or was said to be left out, and of what the camera had sent nothing older
than half a second is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cube_checks import Cube, check_cubes, hidden_files

from vampires.fits_hdus import FitsInvalid, read_primary
from vampires.partial_cubes import ROW_BYTES, PartialCube, partial_cubes
from vampires.stream import Stream

STREAM = "killcam"
LOST_S = 0.5  # at most, of the end
PATIENCE_S = 60.0
EVERY_KILLED_RECOVERY = 3


@dataclass(frozen=True)
class Moment:
    """A kill and what became of the frames. ``lost_s``: of the newest frames, not in any file.
    ``cut``: frames without a row that the recovery left out and counted."""

    number: int
    after_s: float
    cubes: int
    recovered: int
    cut: int
    lost_s: float
    recovery_killed: bool


@dataclass(frozen=True)
class Campaign:
    """What is done at each moment. fps: of the camera; longest_s: from the first frame that is
    logged to the latest kill; cube_frames: a cube; most_lost_s: of the newest frames."""

    shm_dir: Path
    folder: Path
    fps: float
    longest_s: float
    cube_frames: int
    ring_memory: str
    most_lost_s: float = LOST_S

    def moment(self, number: int, dice: random.Random) -> Moment:
        """Logs, kills, recovers, checks. Removes the files it has proven."""
        folder = self.folder / f"moment{number}"
        folder.mkdir()
        after_s = dice.uniform(0, self.longest_s)
        with Stream.open(STREAM, directory=self.shm_dir) as stream:
            before, newest = self._log_and_kill(folder, stream, after_s)
        partials = partial_cubes(folder)
        assert all(partial.state == "left" for partial in partials), partials
        whole = [on_disk(partial) for partial in partials]
        with_row, without_row = (sum(count[k] for count in whole) for k in (0, 1))
        killed = number % EVERY_KILLED_RECOVERY == 0
        if killed:
            self._recover(folder, kill_after_s=dice.uniform(0, 0.6))
        cut = self._recover(folder)
        cubes = check_cubes(sorted(folder.glob("*.fits")))
        recovered = [cube for cube in cubes if "RECOVERD" in cube.cards]
        assert sum(len(cube.rows) for cube in recovered) == with_row
        assert killed or cut == without_row
        assert not hidden_files(folder)
        last = int(cubes[-1].rows["CNT0"][-1]) if cubes else before
        lost_s = (newest - last) / self.fps
        assert lost_s <= self.most_lost_s, f"moment {number}: {lost_s:.3f} s are missing"
        tidy(folder, cubes)
        return Moment(number, after_s, len(cubes), with_row, without_row, lost_s, killed)

    def _log_and_kill(self, folder: Path, stream: Stream, after_s: float) -> tuple[int, int]:
        """The camera's counter when logging began, and when the logger was dead."""
        arguments = ["--exact-dir", folder, "--cube-size", self.cube_frames]
        arguments += ["--ring-memory", self.ring_memory, "--progress", 0]
        with self._command("logger", STREAM, *arguments) as logger:
            assert logger.stderr is not None
            said = []
            for line in logger.stderr:
                said.append(line)
                if f"logging {STREAM} to " in line:
                    break
            assert logger.poll() is None, "".join(said)
            before = stream.cnt0
            time.sleep(after_s)
            newest = stream.cnt0
            logger.kill()
            logger.wait()
        return before, newest

    def _recover(self, folder: Path, kill_after_s: float | None = None) -> int:
        """Runs vampires-recover; returns the frames it said it left out."""
        arguments = ["--apply", "--remove-empty", "--json", folder]
        with self._command("recover", *arguments) as process:
            if kill_after_s is not None:
                with_end_s = time.monotonic() + kill_after_s
                while process.poll() is None and time.monotonic() < with_end_s:
                    time.sleep(0.005)
                process.kill()
                process.wait()
                return 0
            printed, errors = process.communicate(timeout=PATIENCE_S)
        assert not errors, errors
        answers = json.loads(printed)["partial_cubes"]
        for answer in answers:
            untimed = answer["action"] == "untimed"  # killed before the first row was written
            assert answer["done"] or untimed, answer
        return self._untimed(folder) + sum(answer["cut"] for answer in answers)

    def _untimed(self, folder: Path) -> int:
        """Frames of a cube without any row: accounted for, recovered on demand only."""
        left = partial_cubes(folder)
        if not left:
            return 0
        with self._command(
            "recover", "--apply", "--without-times", "--json", folder
        ) as process:
            printed, _ = process.communicate(timeout=PATIENCE_S)
        answers = json.loads(printed)["partial_cubes"]
        assert all(answer["done"] for answer in answers), answers
        for answer in answers:
            Path(answer["file"]).unlink()
            Path(answer["file"]).with_suffix(".txt").unlink()
        return sum(answer["frames"] for answer in answers)

    @contextmanager
    def _command(self, name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", f"vampires.commands.{name}", *map(str, arguments)]
        with started(command, self.shm_dir) as process:
            yield process


@contextmanager
def started(command: Sequence[str], shm_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is dead at the end of the block."""
    process = subprocess.Popen(
        command,
        env=os.environ | {"MILK_SHM_DIR": os.fspath(shm_dir)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def on_disk(partial: PartialCube) -> tuple[int, int]:
    """Frames that are whole in the file, with a row and without one, counted without the code
    under test. Frames are larger than a page here, so the end of one is never taken for one."""
    if partial.cube is None:
        return 0, 0
    try:
        hdu = read_primary(partial.cube)
    except FitsInvalid:
        return 0, 0
    behind_header = max(0, partial.cube.stat().st_size - hdu.header_bytes)
    frames = min(behind_header // math.prod((*hdu.shape[1:], 2)), hdu.shape[0])
    rows = partial.frames.stat().st_size // ROW_BYTES if partial.frames else 0
    return min(frames, rows), max(0, frames - rows)


def tidy(folder: Path, cubes: Sequence[Cube]) -> None:
    """Removes the cubes that were proven, and the folder, which is empty then."""
    for cube in cubes:
        cube.path.unlink()
        cube.path.with_suffix(".txt").unlink()
    folder.rmdir()


def run(
    campaign: Campaign, shape: tuple[int, int], moments: int, seed: int,
    told: Callable[[Moment], None] = lambda moment: None,
) -> list[Moment]:  # fmt: skip
    """So many moments, of one camera that runs all the time."""
    camera = [sys.executable, "-m", "vampires.commands.framesim", STREAM]
    camera += ["--shape", *map(str, shape), "--fps", f"{campaign.fps:g}"]
    camera += ["--ring", "64", "--pattern", "counter"]
    dice = random.Random(seed)
    found = []
    with started(camera, campaign.shm_dir) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the camera did not start"
        for number in range(moments):
            found.append(campaign.moment(number, dice))
            told(found[-1])
    return found


def main() -> int:
    """The campaign of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--count", type=int, default=200, help="moments (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    add("--rate", type=float, default=280, help="MB/s of pixels (default: %(default)s)")
    add("--shape", type=int, nargs=2, default=(1096, 2236), metavar=("NY", "NX"))
    add("--cube-frames", type=int, default=40, help="a cube (default: %(default)s)")
    add(
        "--longest", type=float, default=2.0, help="s to the latest kill (default: %(default)s)"
    )
    add("--dir", type=Path, default=Path(), help="where the cubes go (default: here)")
    args = parser.parse_args()
    fps = args.rate * 1e6 / (2 * math.prod(args.shape))

    def told(moment: Moment) -> None:
        again = ", its recovery killed too" if moment.recovery_killed else ""
        print(
            f"{moment.number + 1}/{args.count}: killed after {moment.after_s:.3f} s{again}: "
            f"{moment.cubes} cubes, {moment.recovered} frames recovered, "
            f"{moment.cut} left out, {1e3 * moment.lost_s:.0f} ms lost",
            flush=True,
        )

    with (
        tempfile.TemporaryDirectory(prefix="vampires-kill-", dir="/dev/shm") as shm_dir,
        tempfile.TemporaryDirectory(prefix="kill-campaign-", dir=args.dir) as folder,
    ):
        campaign = Campaign(
            Path(shm_dir), Path(folder).absolute(), fps, args.longest, args.cube_frames, "1GiB"
        )
        moments = run(campaign, tuple(args.shape), args.count, args.seed, told)
    recovered = sum(moment.recovered for moment in moments)
    worst = max(moment.lost_s for moment in moments)
    print(
        f"{len(moments)} moments (seed {args.seed}, {fps:.1f} frames/s, {args.rate:g} MB/s): "
        f"{recovered} frames recovered, {sum(moment.cut for moment in moments)} left out "
        f"without a row, all files valid; at most {1e3 * worst:.0f} ms lost"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
