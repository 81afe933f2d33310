"""The options -n and -z, for which vampires_preplog also asks."""

from __future__ import annotations

import argparse
from functools import partial

MAX_CUBE_FRAMES = 2**31 - 1  # the column FRAME has 32 bits
MAX_CUBES = 1_000_000  # what milk takes for no limit
NO_LIMIT = "-1"  # of the number of cubes, as other tools of the instrument have it
ARCHIVE = "archive"
"""The place of files that is not a directory's name, but the archive's of the configuration."""


def add_cube_options(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """-n and -z, as args.frames and args.cubes. otherwise: what counts where they are not
    given."""
    parser.add_argument(
        "-n",
        "--frames",
        type=partial(whole_number, least=1, most=MAX_CUBE_FRAMES),
        metavar="FRAMES",
        help=f"frames in a cube (default: {otherwise})",
    )
    parser.add_argument(
        "-z",
        "--cubes",
        type=number_of_cubes,
        metavar="CUBES",
        help=f"end after so many cubes; -1 or 0: no limit (default: {otherwise})",
    )


def cube_plan(frames: int, cubes: int) -> str:
    """What -n and -z come to, in words."""
    limit = f"{cubes} cube{'' if cubes == 1 else 's'}" if cubes else "no limit of cubes"
    return f"{frames} frame{'' if frames == 1 else 's'} a cube, {limit}"


def number_of_cubes(text: str) -> int:
    """A type= for argparse: a number of cubes; 0, which may be typed -1, is no limit."""
    return 0 if text == NO_LIMIT else whole_number(text, least=0, most=MAX_CUBES)


def whole_number(text: str, *, least: int, most: int) -> int:
    """A type= for argparse: a whole number within limits."""
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number, {least} to {most}"
        )
    return int(text)
