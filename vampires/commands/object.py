"""vampires_object: the name of the target from now on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vampires.commands.cameras import (
    chosen_cameras,
    observer_command,
    observer_parser,
    run_on_machines,
)
from vampires.commands.common import UserError
from vampires.commands.stream_keyword import OBJECT, keyword_job

PROG = "vampires_object"

DESCRIPTION = """\
Sets the keyword OBJECT of the cameras' streams, the name of the target, which the files that
begin from now on have in their headers; without NAME shows it. The rest of the keywords stays
as the camera writes it.

exit status: 0 set or shown; 1 not for a camera, standard error says why; 2 wrong usage or
configuration."""

EXAMPLE = f"""\
  {PROG} HD 12345
  {PROG} -c 1 "AB Aur"
  {PROG}                     shows what it is"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="*",
        help="ASCII, at most 15 characters; several words are one name (default: show what it "
        "is)",
    )
    return parser


@observer_command(PROG, "see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    name = checked_name(args.name) if args.name else None
    from vampires.config import load_config

    config = load_config()
    job = keyword_job(PROG, OBJECT, name)
    return run_on_machines(job, args, config, chosen_cameras(config, args.camera))


def checked_name(words: Sequence[str]) -> str:
    """The name of a target as a stream can hold it. UserError says what cannot be."""
    from vampires.keywords import STRING_CHARS

    name = " ".join(" ".join(words).split())
    if not name or name.startswith("-"):
        raise UserError(f"found {name!r}, expected the name of a target, such as 'HD 12345'")
    if not (name.isascii() and name.isprintable()):
        raise UserError(
            f"found {name!r}, expected printable ASCII; type the name without accents, Greek "
            "letters and other signs"
        )
    if len(name) > STRING_CHARS:
        raise UserError(
            f"{name!r} has {len(name)} characters, and a stream holds {STRING_CHARS}; type a "
            "shorter name of the target, perhaps without spaces"
        )
    return name


if __name__ == "__main__":
    sys.exit(main())
