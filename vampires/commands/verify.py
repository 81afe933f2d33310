"""vampires-verify: are the cubes whole, and do they say the truth?"""

from __future__ import annotations

import glob
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
    from vampires.cube_check import CubeReport

PROG = "vampires-verify"
EXIT_FAULTS = 1
ENDINGS = (".fits", ".fits.fz")
UNFINISHED = ".cube"  # the ending of the hidden file of a growing cube

DESCRIPTION = """\
Checks FITS cubes, .fits and .fits.fz, and folders with all below them: the structure of the
file, CHECKSUM and DATASUM of every HDU, the table FRAMES against the header and the sidecar,
counters, times and gaps, and the header against what the reduction and the archive want. Cubes
of other loggers are called foreign: missing sums or keywords are no faults of theirs.

Faults are printed by file, warnings with -v. Nothing is ever changed.

exit status: 0 all are good; 1 there are faults; 2 wrong usage, or no FITS file found."""

EXAMPLE = f"""\
  {PROG} /mnt/fuuu/20261122
  {PROG} --strict -v /mnt/fuuu/20261122/vcam1/*.fits
  {PROG} --quick --json /mnt/fuuu/20261122/vcam?"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="a file or a folder")
    add("-j", "--jobs", type=number_in(int, 1), default=_cores(), metavar="N",
        help="files checked at a time")  # fmt: skip
    add("--strict", action="store_true",
        help="hold headers against the instrument's dictionary too; keywords that the readers "
        "want and that are missing are faults")  # fmt: skip
    add("--quick", action="store_true", help="do not read the pixels")
    add("-v", "--verbose", action="store_true", help="print warnings and good files too")
    add("--json", action="store_true", help="print one JSON object at the end")
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    found = find_files(args.paths)
    if not found.files and not found.faults:
        places = " ".join(map(_shown, args.paths))
        raise UserError(f"no file *.fits or *.fits.fz in {places}; expected at least one")
    from vampires.check_processes import check_files
    from vampires.commands.check_progress import CheckProgress

    tally = _Tally(found)
    progress = CheckProgress(found.files)
    printed = _Printer(args.verbose, args.json, progress)
    with setup_signals() as stop:
        for place, why in found.faults:
            printed.fault(place, why)
        reports = check_files(
            found.files,
            jobs=int(args.jobs),
            strict=args.strict,
            pixels=not args.quick,
            stop=stop,
            progress=progress.read,
        )
        for report in reports:
            tally.add(report)
            progress.finished(report)
            printed.report(report)
        interrupted = stop.is_set()
    progress.clear()
    if args.json:
        print(json.dumps(tally.as_dict(interrupted)), flush=True)
    else:
        print(tally.text(interrupted), flush=True)
    if interrupted:
        return INTERRUPTED_EXIT
    return 0 if tally.all_good else EXIT_FAULTS


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _shown(text: object) -> str:
    from vampires.terminal_text import safe_text

    return safe_text(os.fspath(text) if isinstance(text, os.PathLike) else str(text))


# -- which files ------------------------------------------------------------------------------


@dataclass
class Found:
    """The files to check, in order; what could not even be looked into, and why; the number of
    cubes that no logger has finished."""

    files: list[Path] = field(default_factory=list)
    faults: list[tuple[Path, str]] = field(default_factory=list)
    unfinished: int = 0


def find_files(given: Iterable[str]) -> Found:
    """The FITS files named, and those in the folders named with all below them.

    A pattern that the shell left as it is, since it matched nothing, is tried once more.
    Raises UserError for what is not there.
    """
    found = Found()
    for name in given:
        for path in _existing(name):
            if os.path.isdir(path):
                _walk(path, found)
            else:
                found.files.append(path)
    found.files = list(dict.fromkeys(found.files))
    return found


def _existing(name: str) -> list[Path]:
    if name and os.path.lexists(name):
        return [Path(name)]
    if glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise UserError(f"nothing matches {_shown(name)}; expected FITS files or folders")
        return [Path(match) for match in matches]
    raise UserError(f"there is no {_shown(name) or 'file of an empty name'}")


def _walk(root: Path, found: Found) -> None:
    def unreadable(error: OSError) -> None:
        place = Path(error.filename or root)
        found.faults.append((place, f"cannot be read: {error.strerror or error}"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        for name in folders:
            if name.endswith(ENDINGS):
                found.faults.append((Path(folder, name), "not a file but a folder"))
        shown = [name for name in sorted(names) if not name.startswith(".")]
        found.files += [Path(folder, name) for name in shown if name.endswith(ENDINGS)]
        found.unfinished += sum(n.startswith(".") and n.endswith(UNFINISHED) for n in names)


# -- what is told -----------------------------------------------------------------------------


class _Tally:
    """All reports together."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._reports: list[CubeReport] = []
        self._begun_at = time.monotonic()

    def add(self, report: CubeReport) -> None:
        self._reports.append(report)

    @property
    def all_good(self) -> bool:
        return not self._found.faults and all(report.ok for report in self._reports)

    def as_dict(self, interrupted: bool) -> dict[str, Any]:
        reports = sorted(self._reports, key=lambda report: report.path)
        return {
            "ok": self.all_good and not interrupted,
            "interrupted": interrupted,
            "found": len(self._found.files),
            "checked": len(reports),
            "faulty": sum(not report.ok for report in reports),
            "unfinished": self._found.unfinished,
            "frames": sum(report.frames for report in reports),
            "lost": sum(report.lost for report in reports),
            "torn": sum(report.torn for report in reports),
            "bytes": sum(report.bytes for report in reports),
            "seconds": round(time.monotonic() - self._begun_at, 3),
            "unreadable": [
                {"path": str(place), "fault": why} for place, why in self._found.faults
            ],
            "files": [report.as_dict() for report in reports],
        }

    def text(self, interrupted: bool) -> str:
        from vampires.commands.status_table import bytes_text, duration

        facts = self.as_dict(interrupted)
        kinds = [report.kind for report in self._reports if report.ok]
        told = [f"{_plural(facts['checked'], 'file')}, {bytes_text(facts['bytes'])}"]
        told.append(f"{_plural(facts['frames'], 'frame')}, {facts['lost']} declared lost")
        if kinds.count("foreign"):
            told.append(f"{kinds.count('foreign')} foreign")
        told.append(f"in {duration(facts['seconds'])}")
        lines = [", ".join(told) + ": " + self._verdict(facts)]
        if facts["unfinished"]:
            lines.append(
                f"{_plural(facts['unfinished'], 'cube')} not finished: being written, or left "
                "by a crash (see vampires-recover)"
            )
        return "\n".join(lines)

    def _verdict(self, facts: dict[str, Any]) -> str:
        bad = facts["faulty"] + len(self._found.faults)
        verdict = f"{bad} FAULTY" if bad else "all good"
        warned = sum(bool(report.warnings) for report in self._reports)
        verdict += f", {warned} with warnings" if warned else ""
        if facts["interrupted"]:
            left = facts["found"] - facts["checked"]
            verdict += f"; interrupted, {left} not checked"
        return verdict


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class _Printer:
    """Lines on standard output, as the reports come; none with --json."""

    def __init__(self, verbose: bool, silent: bool, progress: Any) -> None:
        self._verbose = verbose
        self._silent = silent
        self._progress = progress

    def fault(self, place: Path, why: str) -> None:
        if not self._silent:
            self._print([_shown(place), f"  FAULT    {_shown(why)}"])

    def report(self, report: CubeReport) -> None:
        if self._silent or (report.ok and not self._verbose):
            return
        kind = "" if report.kind == "cube" else f", {report.kind}"
        state = f"good: {_plural(report.frames, 'frame')}" if report.ok else "FAULTY"
        lines = [f"{_shown(report.path)}: {state}{kind}"]
        lines += [f"  FAULT    {_shown(text)}" for text in report.faults]
        if self._verbose:
            lines += [f"  warning  {_shown(text)}" for text in report.warnings]
        self._print(lines)

    def _print(self, lines: list[str]) -> None:
        self._progress.clear()
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
