"""vampires-headerd: keeps the auxiliary headers of the camera streams current."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires.commands.common import (
    CommandParser,
    UserError,
    number_in,
    setup_signals,
    user_errors,
)

if TYPE_CHECKING:
    from vampires.config_models import Config
    from vampires.headerd.options import HeaderOptions

PROG = "vampires-headerd"
EXIT_NOT_CURRENT = 1

DESCRIPTION = """\
Keeps <stream folder>/STREAM.aux.fits current: keywords of the telescope and the instrument that
no camera gives, from a file of constants and from the instrument's Redis database. The loggers
take them into each cube. Without STREAM: for the logged cameras that the configuration has on
this machine; its table [header] says the rest, and the options are stronger.

Redis may be down, slow, or hold nonsense: the last good values stay, and the header says how
old they are. U_VLOG1 and U_VLOG2 of Redis say which camera is being logged. Ctrl-C or SIGTERM
ends it."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --constants /etc/vampires/header.toml --redis scexao-rtc:6379
  {PROG} vcam1 --redis 127.0.0.1 --once --json"""


def _address(text: str) -> tuple[str, int | None]:
    """HOST or HOST:PORT; [ADDRESS]:PORT for IPv6."""
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9_.-]+))(?::(\d{1,5}))?", text
    ) or re.fullmatch(r"([0-9A-Fa-f:]+:[0-9A-Fa-f:.]*)()()", text)
    port = int(found[3]) if found and found[3] else None
    if found is None or port == 0 or (port or 0) > 65535:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected HOST or HOST:PORT, such as scexao-rtc:6379"
        )
    return found[1] or found[2], port


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("streams", nargs="*", metavar="STREAM", help="name of a stream")
    add("--constants", type=Path, metavar="FILE", help="TOML file of lines KEYWORD = value")
    add("--redis", type=_address, metavar="HOST[:PORT]", help="the database to ask")
    add("--db", type=number_in(int, 0), metavar="N", help="its number there")
    add(
        "--period",
        type=number_in(float, 0, above=True),
        metavar="S",
        help="seconds from one question to the next",
    )
    add(
        "--stale",
        type=number_in(float, 0, above=True),
        metavar="S",
        help="values that are older, in seconds, are called stale",
    )
    add(
        "--once",
        action="store_true",
        help="write the files once and end; exit status 1 where Redis did not answer",
    )
    add(
        "--json",
        action="store_true",
        help="one JSON object a second on standard output: state, keywords, age, error",
    )
    add("--status-file", type=Path, metavar="FILE", help="keep such an object in a file")
    return parser


def _options(arguments: argparse.Namespace, config: Config) -> HeaderOptions:
    from vampires.headerd.options import header_options

    host, port = arguments.redis or (None, None)
    given: dict[str, Any] = {
        "constants": arguments.constants,
        "redis_host": host,
        "redis_port": port,
        "redis_db": arguments.db,
        "period_s": arguments.period,
        "stale_s": arguments.stale,
    }
    try:
        options = header_options(config.header)
        return replace(options, **{k: v for k, v in given.items() if v is not None})
    except ValueError as error:
        raise UserError(str(error)) from None


def _streams(given: Sequence[str], config: Config) -> list[str]:
    if not given:
        cameras = config.logged_cameras()
        here = [c.name for c in cameras if config.host_of(c).is_local()]
        if not here:
            there = ", ".join(camera.name for camera in cameras)
            raise UserError(
                f"{config.file}: no logged camera is on this machine ({there} are elsewhere); "
                "name the streams"
            )
        return here
    for name in given:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,78}", name):
            raise UserError(f"found {name!r}, expected the name of a stream, such as vcam1")
    return list(dict.fromkeys(given))


def _checked_places(shm_dir: Path, status_file: Path | None) -> None:
    """The folders must be there, since files are made in them for as long as this runs."""
    for folder in [shm_dir, *([status_file.absolute().parent] if status_file else [])]:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: no such folder; make it, or name another")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: no file can be made there: permission denied")


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs vampires-headerd. Returns the exit code: 0, 1 with --once where not all went well,
    or 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)

    from vampires.config import load_config
    from vampires.fps import fps_directory
    from vampires.headerd.report import HeaderReport
    from vampires.headerd.service import HeaderService

    config = load_config()
    streams = _streams(arguments.streams, config)
    options = _options(arguments, config)
    shm_dir = fps_directory()
    _checked_places(shm_dir, arguments.status_file)
    cameras = [config.cameras[name] for name in streams if name in config.cameras]
    numbers = {c.name: c.number for c in cameras if c.number is not None}
    with setup_signals() as stop:
        report = HeaderReport(PROG, as_json=arguments.json, status_file=arguments.status_file)
        with HeaderService(streams, shm_dir, options, report, numbers=numbers) as service:
            if arguments.once:
                return 0 if service.once(stop) else EXIT_NOT_CURRENT
            asked = (
                f"asking Redis at {options.redis_name}" if options.redis_name else "no Redis"
            )
            report.news(
                f"keeping the aux headers of {', '.join(streams)} in {shm_dir}; {asked}"
            )
            service.run(stop)
            report.give(service.status())
    return 0


if __name__ == "__main__":
    sys.exit(main())
