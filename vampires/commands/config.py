"""vampires: what is done now and then, so far with the configuration."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.common import CommandParser, UserError, number_in, user_errors
from vampires.config import (
    FILE_VARIABLE,
    PACKAGED_CONFIG,
    SYSTEM_CONFIG,
    find_config,
    load_config,
    user_config,
)

if TYPE_CHECKING:
    from vampires.config_models import Config

PROG = "vampires"

INSTRUMENT = "instrument"
SUBJECTS = ("config", INSTRUMENT)

DESCRIPTION = "Administration of the VAMPIRES data acquisition."

CONFIG_DESCRIPTION = f"""\
The configuration says which cameras there are, on which machines, and where data go.

It is one file: the one that ${FILE_VARIABLE} names, else ~/.config/vampires/config.toml, else
{SYSTEM_CONFIG}, else the one that comes with the package (simulated cameras,
everything on this machine)."""

SHOW_DESCRIPTION = """\
Shows which file is in use and all that it says, with the defaults of what it leaves out."""

CHECK_DESCRIPTION = """\
Tells whether a configuration is valid, else what is wrong with it: a line for each fault.

exit status: 0 valid; 2 not."""

INIT_DESCRIPTION = """\
Writes a configuration to start from, with explanations: the one that comes with the package."""

FIT_DESCRIPTION = """\
Measures where the stars of the multiband fields are, in the next frames of a stream or in a
cube, and writes that to the file of the instrument's facts: it holds from the day of the
frames on. What was there before stays in the file.

exit status: 0 measured, and written; 2 not."""

EXAMPLE = f"""\
  {PROG} config show
  {PROG} config show instrument --date 2024-06-01
  {PROG} config check ./config.toml
  {PROG} config fit vcam1
  {PROG} config init"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    subjects = parser.add_subparsers(
        title="subjects", metavar="SUBJECT", required=True, parser_class=CommandParser
    )
    config = subjects.add_parser(
        "config", help="the configuration", description=CONFIG_DESCRIPTION, example=EXAMPLE
    )
    actions = config.add_subparsers(
        title="actions", metavar="ACTION", required=True, parser_class=CommandParser
    )
    show = actions.add_parser(
        "show",
        help="all that is in use",
        description=SHOW_DESCRIPTION,
        example=f"  {PROG} config show --json",
    )
    show.add_argument(
        "what",
        nargs="?",
        choices=SUBJECTS,
        default=SUBJECTS[0],
        help="the configuration, or the facts of the instrument",
    )
    show.add_argument("--date", metavar="YYYY-MM-DD", help="of the instrument (default: today)")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.set_defaults(action=_show)
    check = actions.add_parser(
        "check",
        help="what is wrong",
        description=CHECK_DESCRIPTION,
        example=f"  {PROG} config check ./config.toml",
    )
    check.add_argument(
        "words",
        nargs="*",
        metavar="[instrument] [FILE]",
        help="a configuration or, after the word instrument, a file of the instrument's facts "
        "(default: the one in use)",
    )
    check.set_defaults(action=_check)
    fit = actions.add_parser(
        "fit",
        help="measure the multiband hotspots",
        description=FIT_DESCRIPTION,
        example=f"  {PROG} config fit vcam1\n  {PROG} config fit --dry-run CUBE.fits",
    )
    fit.add_argument("source", metavar="STREAM|FILE", help="vcam1 or vcam2, or a cube of one")
    fit.add_argument(
        "--frames", type=number_in(int, 1), default=50, help="frames whose mean is measured"
    )
    fit.add_argument(
        "--output", metavar="FILE", help="(default: the one in use, else the user's)"
    )
    fit.add_argument("--dry-run", action="store_true", help="write nothing")
    fit.add_argument("--json", action="store_true", help="as one JSON object")
    fit.set_defaults(action=_fit)
    init = actions.add_parser(
        "init",
        help="a file to start from",
        description=INIT_DESCRIPTION,
        example=f"  {PROG} config init\n  sudo {PROG} config init --system",
    )
    place = init.add_mutually_exclusive_group()
    place.add_argument("file", nargs="?", metavar="FILE", help="(default: the user's own)")
    place.add_argument("--system", action="store_true", help=f"write {SYSTEM_CONFIG}")
    init.add_argument("--force", action="store_true", help="replace a file that is there")
    init.set_defaults(action=_init)
    return parser


# show -------------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    if args.what == INSTRUMENT:
        from vampires.commands.config_instrument import show

        return show(args)
    if args.date is not None:
        raise UserError(f"--date goes with the instrument: {PROG} config show instrument")
    from vampires.toml_text import toml_text

    file = find_config()
    config = load_config(file)
    if args.json:
        values = config.model_dump(mode="json")
        print(json.dumps({"file": str(file), "config": values}, indent=2))
    else:
        print(f"# {file} ({_why(file)})\n\n{toml_text(config.model_dump())}", end="")
    return 0


def _why(file: Path) -> str:
    if os.environ.get(FILE_VARIABLE):
        return f"named by ${FILE_VARIABLE}"
    if file == PACKAGED_CONFIG:
        return "the one that comes with the package"
    return "the system's" if file == SYSTEM_CONFIG else "the user's"


# check ------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> int:
    words = list(args.words)
    of_instrument = words[:1] == [INSTRUMENT]
    named = [Path(word) for word in words[of_instrument:]]
    if len(named) > 1:
        raise UserError(f"found {len(named)} files, expected one (see {PROG} config --help)")
    if of_instrument:
        from vampires.commands.config_instrument import check

        return check(named[0] if named else None)
    file = named[0] if named else find_config()
    print(f"{file}: valid; {_contents(load_config(file))}")
    return 0


def _contents(config: Config) -> str:
    cameras = ", ".join(
        f"{name} on {camera.host}{'' if camera.logged else ' (not logged)'}"
        for name, camera in config.cameras.items()
    )
    return f"cameras: {cameras}"


# fit --------------------------------------------------------------------------------------


def _fit(args: argparse.Namespace) -> int:
    from vampires.commands.config_instrument import fit

    return fit(args)


# init -------------------------------------------------------------------------------------


def _init(args: argparse.Namespace) -> int:
    file = _place(args)
    try:
        if not args.file:
            file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, PACKAGED_CONFIG.read_bytes(), replace=args.force)
    except FileExistsError:
        raise UserError(
            f"{file} is there already and stays as it is; edit it, or replace it with --force"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    print(f"wrote {file}; edit it, then try: {PROG} config check {shlex.quote(str(file))}")
    in_use = find_config()
    if in_use.absolute() != file.absolute():
        print(f"the one in use is still {in_use} ({_why(in_use)})")
    return 0


def _place(args: argparse.Namespace) -> Path:
    if args.system:
        return SYSTEM_CONFIG
    place = Path(args.file) if args.file else user_config()
    if place is None:
        raise UserError(f"this user has no home; name a file: {PROG} config init FILE")
    return place


def _write(file: Path, content: bytes, *, replace: bool) -> None:
    """The whole file or none. FileExistsError if it is there and not to be replaced."""
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".config-")
    try:
        with open(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
        if replace:
            os.replace(draft, os.path.realpath(file))
        else:
            os.link(draft, file)
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    return int(args.action(args))


if __name__ == "__main__":
    sys.exit(main())
