"""What shmimTCPtransmit and shmimTCPreceive share: options, placement on CPUs, the run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from vampires.commands.common import CommandParser, UserError, number_in, setup_signals
from vampires.cpu_placement import cpus_here, join_cpu_set, parse_cpus

if TYPE_CHECKING:
    from vampires import _core

MAX_PORT = 2**16 - 1
MAX_PRIORITY = 99  # of SCHED_FIFO

LinkT = TypeVar("LinkT", bound="_core.TcpSender | _core.TcpReceiver")


def add_common_options(parser: CommandParser) -> None:
    """Those of both ends."""
    add_placement(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a second on standard output: all counters, rate_hz, mb_per_s",
    )
    add_status_file(parser)


def add_placement(parser: CommandParser) -> None:
    """Where a link runs, of all links."""
    add = parser.add_argument
    add("--rt-priority", type=number_in(int, 0), metavar="P", help="SCHED_FIFO 1-99; 0: none")
    add("--cpus", type=_cpu_list, metavar="LIST", help="CPUs to run on, as 2,4-6")
    add("-c", dest="cset", metavar="CSET", help="CPU set to run in")


def add_status_file(parser: CommandParser) -> None:
    """The option of all links."""
    parser.add_argument(
        "--status-file",
        type=Path,
        metavar="FILE",
        help="the JSON object of each second also in this file, for whoever watches the link",
    )


def _cpu_list(text: str) -> str:
    try:
        parse_cpus(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def port_from(least: int) -> Callable[[str], int]:
    """A type= for argparse: a TCP port of at least `least`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= MAX_PORT):
            raise argparse.ArgumentTypeError(
                f"found {text!r}, expected a port from {least} to {MAX_PORT}"
            )
        return int(text)

    return parse


class Placement(NamedTuple):
    """Where the link's own thread runs: SCHED_FIFO priority (0: none) and CPUs (none: all)."""

    priority: int
    cpus: list[int]


def run_end(
    prog: str,
    arguments: argparse.Namespace,
    make: Callable[[Placement], LinkT],
    describe: Callable[[LinkT], str],
) -> int:
    """Runs one end of a link until Ctrl-C or SIGTERM; returns the exit status.

    make: builds the end; what it raises is a mistake of the user. describe: the line at its
    start.
    """
    from vampires import _core
    from vampires.link_report import LinkReport, run_link

    with setup_signals() as stop:
        placement, notes = _place(arguments)
        try:
            link = make(placement)
        except (_core.StreamError, ValueError, OSError) as error:
            raise UserError(str(error)) from None
        report = LinkReport(
            prog,
            link.status(),
            time.monotonic(),
            as_json=arguments.json,
            status_file=arguments.status_file,
            notes=notes,
        )
        for line in (describe(link), *notes):
            report.say(line)
        run_link(link, stop, report)
    return 0


def _place(arguments: argparse.Namespace) -> tuple[Placement, list[str]]:
    """Moves this process to its CPU set, and finds its CPUs there; a note for each wish that
    could not be granted. UserError for a priority beyond what the kernel knows."""
    priority = arguments.rt_priority or 0
    if priority > MAX_PRIORITY:
        raise UserError(f"--rt-priority is {priority}, at most {MAX_PRIORITY} is possible")
    moved = join_cpu_set(arguments.cset or "")
    cpus, missing = cpus_here(arguments.cpus or "")
    return Placement(priority, list(cpus)), [note for note in (moved, missing) if note]
