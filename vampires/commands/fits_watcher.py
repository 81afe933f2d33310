"""fitswatcher: the newest FITS files of folders, and what is wrong with them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vampires.commands.common import CommandParser, UserError, number_in, user_errors

if TYPE_CHECKING:
    from vampires.fitswatch.snapshot import Snapshot
    from vampires.fitswatch.watch import FitsWatch
    from vampires.terminal_text import Line, Tone

PROG = "fitswatcher"
PIPE_WIDTH = 1000  # of the panel at most, where neither a terminal nor $COLUMNS tells one
BATCH_S = 0.25
PROGRESS_AFTER_S = 2.0

DESCRIPTION = """\
Watches folders for new FITS files. A line a folder: number of files and their size; under it
the newest files: name, shape, size, DATA-TYP and OBJECT. Files are judged when they are
complete, and only their headers are read, never pixels.

Beyond that it is quiet until something matters. Green: a cube being written now. Red: frames
lost or torn, and files that are damaged or do not fit their sidecar; the bell sounds for a
new one. Yellow: keywords that the readers of the files stumble over, a cube that the other
camera has no partner for, no new file for longer than usual, a disk that is soon full.

Quote a pattern, so that folders are found that do not exist yet. A folder of today
(YYYYMMDD, UTC) is followed past midnight by itself.

Keys: arrows choose a file, Enter shows its header and when its frames came, Escape goes back,
q leaves.

exit status of --once and --json: 0 all is well; 1 a file shown has lost frames or is damaged;
2 wrong usage, or no such folder."""

EXAMPLE = f"""\
  {PROG} -n 3 "/data/$(date -u +%Y%m%d)/vcam*"
  {PROG} --once /data/tests
  {PROG} --poll 5 "/network/disk/*/vcam*\""""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("globs", metavar="GLOB", nargs="+", help="folders, or patterns of them as for a shell")
    add(
        "-n",
        dest="newest",
        metavar="N",
        type=number_in(int, 1),
        default=2,
        help="files shown in each folder",
    )
    add("--once", action="store_true", help="print the panel and end")
    add("--json", action="store_true", help="print one JSON object and end")
    add(
        "--poll",
        metavar="SECONDS",
        type=number_in(float, 0.1),
        help="look at the folders that often; for network disks, where the kernel does not "
        "tell of files that another computer writes",
    )
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    _refuse_files(args.globs)
    from vampires.fitswatch.watch import FitsWatch

    watch = FitsWatch(args.globs, int(args.newest))
    if args.once or args.json:
        return _once(watch, as_json=args.json)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError("the screen needs a terminal; without one use --once or --json")
    from vampires.fitswatch.screen import FitsScreen

    screen = FitsScreen(watch, args.poll)
    screen.run(mouse=False)
    if screen.failure is not None:
        raise screen.failure
    return screen.return_code or 0


def _refuse_files(globs: Sequence[str]) -> None:
    """A shell's pattern may match files beside folders; files alone are a mistake."""
    if all(os.path.isfile(name) for name in globs):
        from vampires.terminal_text import safe_text

        folder = os.path.dirname(globs[0]) or "."
        raise UserError(
            f"{safe_text(globs[0])} is a file, expected folders; give {safe_text(folder)}"
        )


# -- one look ---------------------------------------------------------------------------------


def _once(watch: FitsWatch, *, as_json: bool) -> int:
    watch.rescan()
    if not watch.folders:
        from vampires.terminal_text import safe_text

        given = ", ".join(safe_text(pattern) for pattern in watch.globs.patterns)
        raise UserError(f"no folder matches {given}; give folders, or patterns of them")
    watch.look_at_growing()
    _read_all(watch)
    snapshot = watch.snapshot()
    if as_json:
        print(json.dumps(snapshot.as_dict()))
    else:
        _print_panel(snapshot)
    bad = any(view.is_bad for folder in snapshot.folders for view in folder.files)
    return 1 if bad or any(folder.fault for folder in snapshot.folders) else 0


def _read_all(watch: FitsWatch) -> None:
    """Reads all headers; tells how many are left when it takes long, on a terminal."""
    begun = time.monotonic()
    told = False
    while left := watch.read(BATCH_S):
        if sys.stderr.isatty() and time.monotonic() - begun > PROGRESS_AFTER_S:
            told = True
            print(f"\r{left} headers to be read ", end="", file=sys.stderr, flush=True)
    if told:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print_panel(snapshot: Snapshot) -> None:
    from datetime import datetime

    from vampires.fitswatch.lines import panel

    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    lines, _ = panel(snapshot, datetime.now(), width)
    text = "\n".join(_text(line, coloured=coloured) for line in lines) + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads here any more
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _text(line: Line, *, coloured: bool) -> str:
    if not coloured:
        return "".join(text for text, _ in line)
    return "".join(_sgr(tone) + text + "\x1b[0m" if _sgr(tone) else text for text, tone in line)


def _sgr(tone: Tone) -> str:
    """What gives a text the look of its tone."""
    codes = {"faint": "90", "good": "32", "warning": "33", "bad": "1;31", "strong": "1",
             "title": "1"}  # fmt: skip
    code = codes.get(tone.value)
    return f"\x1b[{code}m" if code else ""


if __name__ == "__main__":
    sys.exit(main())
