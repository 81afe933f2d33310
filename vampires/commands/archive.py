"""vampires-archive: packs finished cubes for the archive, checks them, lists their sums."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires.commands.common import (
    INTERRUPTED_EXIT,
    CommandParser,
    UserError,
    number_in,
    setup_signals,
    user_errors,
)

if TYPE_CHECKING:
    from vampires.archive import ArchiveResult, Folder
    from vampires.archive_pack import Outcome
    from vampires.archive_workers import Workers

PROG = "vampires-archive"
EXIT_LEFT = 1
PROGRESS_S = 0.5
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:[0-9]{1,5}")

DESCRIPTION = """\
For every complete cube below DIR that vampires-verify finds good: packs it without loss (fpack,
Rice) into NAME.fits.fz, unpacks that again, compares pixels, header and table with the cube,
and lists both in MANIFEST.sha256 of the folder (sha256sum -c reads it as well). Cubes that do
not verify are left alone and named.

It may be stopped or killed at any moment and started again: what is done and checked is not
done again, and there is never half a file under a name of its own. With --delete a cube is
removed once its archive was read back from the disk and found right.

exit status: 0 all cubes are archived; 1 some were left alone; 2 wrong usage; 130 stopped by
Ctrl-C."""

EXAMPLE = f"""\
  {PROG} /mnt/fuuu/ARCHIVED_DATA/20240613 --dry-run
  {PROG} /mnt/fuuu/ARCHIVED_DATA/20240613 --to /mnt/archive/20240613 --jobs 4
  {PROG} /mnt/fuuu/ARCHIVED_DATA/20240613 --delete
  {PROG} /mnt/fuuu/ARCHIVED_DATA/20240613 --scheduler tcp://scexao6:8786"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="with all folders below it")
    add(
        "--to",
        type=Path,
        metavar="DIR",
        help="put the archive there, in the same folders, with the sidecars; made where it is"
        " missing (default: beside the cubes)",
    )
    add(
        "--jobs",
        type=number_in(int, 1),
        metavar="N",
        help="cubes at a time, each on a core, at low priority (default: half of the cores)",
    )
    add("--delete", action="store_true", help="remove each cube once its archive is checked")
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="spread the work over the machines of a Dask scheduler that see the same folders",
    )
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add("--json", action="store_true", help="print the result as a JSON object")
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    _check(args)
    from vampires.archive import find_folders

    folders, faults = find_folders(args.folder, args.to)
    if args.dry_run:
        return _dry_run(args, folders, faults)
    if not folders and not faults:
        raise UserError(f"no cube (*.fits) below {_shown(args.folder)}")
    result = _archive(args, folders, faults)
    if args.json:
        print(json.dumps(_as_dict(result), indent=2))
    else:
        _tell(args, result, folders)
    if result.interrupted:
        return INTERRUPTED_EXIT
    return EXIT_LEFT if result.left else 0


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for what cannot work."""
    from vampires.compression import FPACK, FUNPACK

    if not args.folder.is_dir():
        raise UserError(f"{_shown(args.folder)} is not a folder; expected one that holds cubes")
    if args.to is not None and not args.to.is_dir():
        if args.to.exists():
            raise UserError(f"--to {_shown(args.to)} is not a folder")
        if not args.to.absolute().parent.is_dir():
            above = _shown(args.to.absolute().parent)
            raise UserError(
                f"--to {_shown(args.to)}: there is no {above}; is its disk mounted?"
            )
    if args.scheduler is not None and args.jobs is not None:
        raise UserError("--jobs is for this machine; the workers of --scheduler have their own")
    if args.scheduler is not None and not _ADDRESS.fullmatch(args.scheduler):
        raise UserError(
            f"--scheduler {_shown(args.scheduler)}: expected an address as tcp://scexao6:8786"
        )
    missing = [program for program in (FPACK, FUNPACK) if shutil.which(program) is None]
    if missing and args.scheduler is None:
        raise UserError(f"{' and '.join(missing)} is missing; install libcfitsio-bin")


def _shown(path: object) -> str:
    from vampires.terminal_text import safe_text

    return safe_text(str(path))


def _archive(
    args: argparse.Namespace, folders: Sequence[Folder], faults: list[tuple[Path, str]]
) -> ArchiveResult:
    from vampires.archive import Archive
    from vampires.archive_workers import WorkersMissing

    report = _Report(folders, args.folder, quiet=args.json)
    for path, fault in faults:
        report.left(path, fault)
    try:
        with setup_signals() as stop, _workers(args) as workers:
            archive = Archive(list(folders), workers, delete=args.delete, on_outcome=report.add)
            archive.result.left += faults
            result = archive.run(stop.is_set)
    except WorkersMissing as error:
        raise UserError(str(error)) from None
    finally:
        report.close()
    return result


def _workers(args: argparse.Namespace) -> AbstractContextManager[Workers]:
    from vampires.archive_workers import dask_workers, local_workers

    if args.scheduler is not None:
        return dask_workers(args.scheduler)
    return local_workers(args.jobs or max(1, len(os.sched_getaffinity(0)) // 2))


# -- what is told -----------------------------------------------------------------------------


class _Report:
    """A line for each cube, and on a terminal how far it is."""

    def __init__(self, folders: Sequence[Folder], root: Path, *, quiet: bool) -> None:
        self._root = root
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._sizes = _sizes(folders)
        self._all_bytes = sum(self._sizes.values())
        self._done_bytes = self._done = 0
        self._start_s = time.monotonic()
        self._shown_s = 0.0

    def add(self, outcome: Outcome | None) -> None:
        """What became of a cube; None: nothing new."""
        if outcome is not None:
            if outcome.kind == "left":
                self.left(outcome.original, outcome.fault)
            elif outcome.kind == "packed" and outcome.entry is not None:
                sizes = (outcome.entry.original_bytes, outcome.entry.bytes)
                self._line(f"packed {self._name(outcome)}: {_size(*sizes)}")
            elif outcome.kind == "removed":
                self._line(f"removed {self._name(outcome)}")
            if outcome.kind != "removed" and outcome.original in self._sizes:
                self._done += 1
                self._done_bytes += self._sizes.pop(outcome.original)
        self._progress()

    def left(self, original: Path, fault: str) -> None:
        """A cube that was left alone, and why."""
        self._clear()
        print(f"{PROG}: left alone {_shown(original)}: {_shown(fault)}", file=sys.stderr)

    def close(self) -> None:
        self._clear()

    def _name(self, outcome: Outcome) -> str:
        return _shown(outcome.original.relative_to(self._root))

    def _line(self, text: str) -> None:
        if not self._quiet:
            self._clear()
            print(text, flush=True)

    def _progress(self) -> None:
        now_s = time.monotonic()
        if not self._terminal or not self._all_bytes or now_s - self._shown_s < PROGRESS_S:
            return
        self._shown_s = now_s
        share = self._done_bytes / self._all_bytes
        left_s = (now_s - self._start_s) * (1 - share) / share if share else 0.0
        ahead = f", {left_s / 60:.0f} min left" if left_s >= 60 else ""
        cubes = f"{self._done} of {self._done + len(self._sizes)} cubes"
        text = f"{cubes}, {share:.0%} of {self._all_bytes / 1e9:.2f} GB{ahead}"
        print(
            f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="", file=sys.stderr
        )
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _sizes(folders: Sequence[Folder]) -> dict[Path, int]:
    sizes = {}
    for folder in folders:
        for job in folder.todo:
            try:
                sizes[job.original] = job.original.stat().st_size
            except OSError:
                sizes[job.original] = 0
    return sizes


def _size(before: int, after: int) -> str:
    share = f" ({after / before:.0%})" if before else ""
    return f"{before / 1e6:.1f} MB -> {after / 1e6:.1f} MB{share}"


def _tell(args: argparse.Namespace, result: ArchiveResult, folders: Sequence[Folder]) -> None:
    for folder in folders:
        if folder.missing:
            missing = f"{len(folder.missing)} files of its manifest are no longer there"
            print(f"{_shown(folder.target)}: {missing}")
    parts = [f"{len(result.packed)} packed"]
    if result.packed:
        parts[0] += f", {_size(result.bytes_in, result.bytes_out)}"
    for number, what in (
        (len(result.already), "archived before"),
        (len(result.removed), "removed"),
        (len(result.left), "left alone"),
    ):
        if number:
            parts.append(f"{number} {what}")
    if result.interrupted:
        parts.append("stopped; start it again to go on")
    print("; ".join(parts), flush=True)


def _as_dict(result: ArchiveResult) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "packed": [asdict(entry) for entry in result.packed],
        "already": [str(path) for path in result.already],
        "removed": [str(path) for path in result.removed],
        "left": [{"file": str(path), "fault": fault} for path, fault in result.left],
        "bytes_in": result.bytes_in,
        "bytes_out": result.bytes_out,
        "seconds": round(result.seconds, 3),
        "interrupted": result.interrupted,
    }


def _dry_run(
    args: argparse.Namespace, folders: Sequence[Folder], faults: list[tuple[Path, str]]
) -> int:
    sizes = _sizes(folders)
    done = [job.original for folder in folders for job in folder.done]
    if args.json:
        told = {
            "to_pack": [{"file": str(path), "bytes": size} for path, size in sizes.items()],
            "already": [str(path) for path in done],
            "to_remove": [str(path) for path in (*done, *sizes)] if args.delete else [],
            "left": [{"file": str(path), "fault": fault} for path, fault in faults],
        }
        print(json.dumps(told, indent=2))
        return EXIT_LEFT if faults else 0
    for path, fault in faults:
        print(f"{PROG}: would leave {_shown(path)}: {_shown(fault)}", file=sys.stderr)
    removed = " and remove" if args.delete else ""
    for path, size in sizes.items():
        print(f"would verify, pack{removed} {_shown(path)} ({size / 1e6:.1f} MB)")
    if args.delete:
        for path in done:
            print(f"would remove {_shown(path)}, archived before")
    total = sum(sizes.values()) / 1e9
    print(f"{len(sizes)} cubes to pack, {total:.2f} GB; {len(done)} archived before")
    return EXIT_LEFT if faults else 0


if __name__ == "__main__":
    sys.exit(main())
