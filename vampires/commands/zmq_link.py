"""What vampires-zmq-send and vampires-zmq-recv share: options, endpoints, mistakes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.common import CommandParser, UserError
from vampires.commands.tcp_link import add_placement, add_status_file

if TYPE_CHECKING:
    from vampires.zmq_socket import Endpoint


def add_common_options(parser: CommandParser) -> None:
    """Those of both ends."""
    add = parser.add_argument
    add(
        "--keys",
        type=Path,
        metavar="FILE",
        help="NAME.key_secret of this computer, made by vampires-zmq-keys: encrypts",
    )
    add(
        "--json",
        action="store_true",
        help="one JSON object a second on standard output, with all counters",
    )
    add_placement(parser)
    add_status_file(parser)


def placed(arguments: argparse.Namespace) -> list[str]:
    """Gives this process its priority and CPUs, before it starts its threads; a note for each
    that it may not have."""
    from vampires.cpu_placement import place_process

    given = vars(arguments)
    priority, cpus = given.get("rt_priority") or 0, given.get("cpus") or ""
    return place_process(int(priority), cpus, given.get("cset") or "")


@contextmanager
def mistakes_at_the_start() -> Iterator[None]:
    """What cannot be as it was asked for, before anything runs, becomes a UserError."""
    from vampires import _core

    try:
        yield
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    except (_core.StreamError, ValueError) as error:
        raise UserError(str(error)) from None


def parsed_endpoint(text: str) -> Endpoint:
    """The endpoint of tcp://HOST:PORT or HOST:PORT. UserError."""
    from vampires.zmq_socket import parse_endpoint

    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise UserError(str(error)) from None
