"""vampires-zmq-recv: the stream of another computer as a stream here, over ZeroMQ.

Also zmq_recv.py, with the arguments of pyMilk's program of that name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.common import CommandParser, setup_signals, user_errors
from vampires.commands.zmq_link import (
    add_common_options,
    mistakes_at_the_start,
    parsed_endpoint,
    placed,
)

if TYPE_CHECKING:
    from vampires.zmq_receiver import ReceiverConfig

PROG = "vampires-zmq-recv"
PYMILK_PROG = "zmq_recv.py"

DESCRIPTION = """\
Receives the frames that vampires-zmq-send (or pyMilk's zmq_send.py) sends, into a stream of the
same name on this computer, with the sender's counters, times and keywords: what the sender left
out, or the network dropped, shows as a gap.

It connects again when the sender goes away, as long as it runs, and makes the stream anew when
the crop changes. Ctrl-C or SIGTERM ends it; the stream stays."""

EXAMPLE = f"""\
  {PROG} tcp://scexao5:5560 vcam1
  {PROG} tcp://scexao5:5560 vcam1 --as vcam1slow --json
  {PROG} tcp://10.20.0.5:5560 vcam1 --keys sonne.key_secret --server-key scexao5.key"""

PYMILK_DESCRIPTION = f"""\
Receives the frames that {PROG.replace("recv", "send")} or pyMilk's zmq_send.py sends, into a
stream on this computer: the arguments of pyMilk's {PYMILK_PROG}. What comes as a pickle is
read without running it."""

PYMILK_EXAMPLE = f"""\
  {PYMILK_PROG} 10.20.0.5:5560 vcam1 -s vcam1slow"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("address", metavar="tcp://ADDR:PORT", help="of the sender")
    add("stream", metavar="STREAM", help="name of the stream there")
    add("--as", dest="name", metavar="NAME", help="name of the stream here")
    add(
        "--server-key",
        type=Path,
        metavar="FILE",
        help="NAME.key, the public key of the sender, where it uses keys; goes with --keys",
    )
    add_common_options(parser)
    return parser


def _pymilk_parser() -> CommandParser:
    parser = CommandParser(PYMILK_PROG, PYMILK_DESCRIPTION, PYMILK_EXAMPLE)
    add = parser.add_argument
    add("address", metavar="HOST:PORT", help="of the sender")
    add("stream", metavar="STREAM", help="name of the stream there")
    add("-s", dest="name", metavar="NAME", help="name of the stream here")
    add("--json", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(keys=None, server_key=None, status_file=None)
    return parser


def _config(arguments: argparse.Namespace) -> ReceiverConfig:
    from vampires.subscription import load_keys
    from vampires.zmq_receiver import ReceiverConfig

    keys, server_key = load_keys(arguments.keys, arguments.server_key)
    return ReceiverConfig(
        endpoint=parsed_endpoint(arguments.address),
        stream=arguments.stream,
        name=arguments.name or "",
        keys=keys,
        server_key=server_key,
    )


def _run(prog: str, arguments: argparse.Namespace) -> int:
    """Receives until told to stop; returns the exit status."""
    from vampires.zmq_receiver import ZmqReceiver
    from vampires.zmq_report import Report, receiver_line

    with setup_signals() as stop:
        notes = placed(arguments)
        report = Report(
            prog,
            receiver_line,
            as_json=arguments.json,
            status_file=arguments.status_file,
            notes=notes,
        )
        for note in notes:
            report.say(note)
        with mistakes_at_the_start():
            receiver = ZmqReceiver(_config(arguments), say=report.say)
        with receiver:
            receiver.run(stop, look=lambda: report.look(receiver.status))
            report.end(receiver.status())
    return 0


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs vampires-zmq-recv. Returns the exit code: 0, or 2 for a mistake of the user."""
    return _run(PROG, _parser().parse_args(argv))


@user_errors(PYMILK_PROG)
def main_pymilk(argv: Sequence[str] | None = None) -> int:
    """Runs zmq_recv.py. Returns the exit code: 0, or 2 for a mistake of the user."""
    return _run(PYMILK_PROG, _pymilk_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
