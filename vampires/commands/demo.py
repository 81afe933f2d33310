"""vampires-demo: the main job on simulated cameras, with proof."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from vampires.commands.common import CommandParser, UserError, number_in, user_errors
from vampires.demo import CAMERAS, CUBE_SIZE, Demo, DemoError, shown, table
from vampires.instrument.file import instrument_on

PROG = "vampires-demo"
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

DESCRIPTION = f"""\
Starts two simulated cameras ({", ".join(CAMERAS)}), logs both in cubes of {CUBE_SIZE} frames,
re-reads every file, and compares every pixel and time with what the cameras sent.

exit status: 0 all frames are in the files; 1 something is missing or wrong; 2 wrong use."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --mode STANDARD --fps 500 --seconds 5 --dir /tmp/demo"""


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("--seconds", type=number_in(float, 0, above=True), default=10.0, help="time of logging")
    modes = sorted(instrument_on().modes)
    add("--mode", type=str.upper, choices=modes, default="MBI", help="crop")
    add("--fps", type=number_in(float, 0, above=True), default=57, help="frames/s a camera")
    add("--dir", default="./data", metavar="ROOT", help="files go to ROOT/YYYYMMDD/vcamN")
    args = parser.parse_args(argv)
    root = Path(args.dir)
    demo = Demo(root, args.seconds, args.mode, Fraction(str(args.fps)), _say)
    try:
        reports = demo.run()
    except DemoError as error:
        raise UserError(str(error)) from None
    except KeyboardInterrupt:
        _say("interrupted; cameras and loggers have ended")
        return EXIT_INTERRUPTED
    _say("")
    for line in table(reports):
        _say(line)
    for report in reports:
        for line in report.errors[:10]:
            _say(f"{report.stream}: {line}")
    files = [name for report in reports for name in report.result["files"]]
    if files:
        _say(f"\nlook at a cube:  ds9 '{shown(files[0])}'")
    return 0 if all(report.good for report in reports) else EXIT_FAILED


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
