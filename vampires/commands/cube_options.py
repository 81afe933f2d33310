"""The options -z and -n, for which vampires_preplog also asks."""

from __future__ import annotations

import argparse
from functools import partial

MAX_CUBE_FRAMES = 2**31 - 1  # the column FRAME has 32 bits
MAX_CUBES = 1_000_000  # what milk takes for no limit
ARCHIVE = "archive"
"""The place of files that is not a directory's name, but the archive's of the configuration."""


def add_cube_options(parser: argparse.ArgumentParser) -> None:
    """-z and -n, as args.frames and args.cubes."""
    parser.add_argument(
        "-z",
        "--frames",
        type=partial(whole_number, least=1, most=MAX_CUBE_FRAMES),
        metavar="N",
        help="frames per cube",
    )
    parser.add_argument(
        "-n",
        "--cubes",
        type=partial(whole_number, least=0, most=MAX_CUBES),
        metavar="CUBES",
        help="end after so many cubes; 0: no limit",
    )


def whole_number(text: str, *, least: int, most: int) -> int:
    """A type= for argparse: a whole number within limits."""
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number, {least} to {most}"
        )
    return int(text)
