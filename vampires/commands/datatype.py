"""vampires_datatype: what the frames are from now on (OBJECT, DARK, FLAT, ...)."""

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
from vampires.commands.stream_keyword import DATA_TYPE, keyword_job

PROG = "vampires_datatype"

DESCRIPTION = """\
Sets the keyword DATA-TYP of the cameras' streams, which the files that begin from now on have
in their headers; without TYPE shows it. A cube under way ends before the next frame (unless
[logging] new_cube_keywords is without DATA-TYP). The rest of the keywords stays as the camera
writes it.

exit status: 0 set or shown; 1 not for a camera, standard error says why; 2 wrong usage or
configuration."""

EXAMPLE = f"""\
  {PROG} DARK
  {PROG} -c 1 flat
  {PROG}                     shows what it is"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "type",
        metavar="TYPE",
        nargs="?",
        help="in any case; a wrong one lists them all (default: show what it is)",
    )
    return parser


@observer_command(PROG, "see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    data_type = args.type
    try:
        if data_type is not None:
            data_type = checked_type(data_type, config.logging.data_types)
    except ValueError as error:
        raise UserError(str(error)) from None
    job = keyword_job(PROG, DATA_TYPE, data_type)
    return run_on_machines(job, args, config, chosen_cameras(config, args.camera))


def checked_type(text: str, known: Sequence[str]) -> str:
    """The data type that was meant. ValueError lists those there are."""
    data_type = text.strip().upper()
    if data_type not in known:
        raise ValueError(f"no data type {text!r}, expected one of {' '.join(known)}")
    return data_type


if __name__ == "__main__":
    sys.exit(main())
