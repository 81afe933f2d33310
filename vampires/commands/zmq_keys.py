"""vampires-zmq-keys: makes the keys with which the ends of the slow link know each other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vampires.commands.common import CommandParser, UserError, user_errors

PROG = "vampires-zmq-keys"

DESCRIPTION = """\
Makes CURVE keys for vampires-zmq-send and vampires-zmq-recv: for each NAME the files NAME.key,
to be copied to the other computer, and NAME.key_secret, which stays where it is and which none
but its owner may read. With keys, frames travel encrypted, and only between ends that know
each other's public keys.

exit status: 0 made; 2 wrong usage, or the files are there or cannot be written."""

EXAMPLE = f"""\
  {PROG} scexao5                     on scexao5; then copy scexao5.key to sonne
  {PROG} sonne                       on sonne; then copy sonne.key to scexao5
  {PROG} --dir /tmp/keys camera viewer"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("names", metavar="NAME", nargs="+", help="of an end, such as its computer")
    add(
        "--dir",
        type=Path,
        metavar="DIR",
        help="folder of the files, made where it is missing"
        " (default: keys, beside your config.toml)",
    )
    add("--force", action="store_true", help="replace files that are there")
    add(
        "--json",
        action="store_true",
        help="a list of objects: name, public, secret, public_key",
    )
    return parser


def _folder(given: Path | None) -> Path:
    if given is not None:
        return given
    from vampires.config import user_config

    beside = user_config()
    if beside is None:
        raise UserError("no home folder to keep keys in; name one with --dir")
    return beside.parent / "keys"


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code: 0, or 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)
    from vampires import link_keys

    folder, names = _folder(arguments.dir), arguments.names
    if len(set(names)) != len(names):
        raise UserError(f"a name is given twice: {' '.join(names)}")
    # All are looked at before the first is made.
    for name in names:
        files = link_keys.key_files(folder, name)
        if not arguments.force:
            link_keys.check_absent(files)
    made = []
    for name in names:
        files, public = link_keys.make_keys(folder, name, force=arguments.force)
        made.append(
            {
                "name": name,
                "public": str(files.public),
                "secret": str(files.secret),
                "public_key": public.decode(),
            }
        )
    if arguments.json:
        print(json.dumps(made, indent=2))
        return 0
    for one in made:
        print(f"{one['name']}: {one['public']} to be copied to the peers, {one['secret']} not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
