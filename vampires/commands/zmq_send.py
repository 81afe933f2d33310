"""vampires-zmq-send: the newest frames of a stream, at most so many a second, over ZeroMQ.

Also zmq_send.py, with the arguments and the messages of pyMilk's program of that name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.common import (
    CommandParser,
    UserError,
    number_in,
    setup_signals,
    user_errors,
)
from vampires.commands.zmq_link import (
    add_common_options,
    mistakes_at_the_start,
    parsed_endpoint,
    placed,
)

if TYPE_CHECKING:
    from vampires.link_message import Codec
    from vampires.zmq_sender import SenderConfig

PROG = "vampires-zmq-send"
PYMILK_PROG = "zmq_send.py"
MAX_MBPS = 500.0
# More than any stream has: without -f, pyMilk's program does not limit the rate.
UNLIMITED_FPS = 1e5

FORMATS = ("native", "pymilk")
CODECS = {"zstd": "BLOSC2_ZSTD", "lz4": "BLOSC2_LZ4", "none": "NONE"}

DESCRIPTION = """\
Sends the frames of a stream to all who connect (vampires-zmq-recv, scripts with subscribe()):
always the newest frame, at most --fps of them a second and never more than --max-mbps. A slow
receiver gets fewer frames, not older ones. A stream slower than --fps is sent frame by frame.

It waits for a stream that is not there, and follows one that is made anew. Only this computer
can connect, unless --bind and --allow (or --peer-keys) say otherwise. Ctrl-C or SIGTERM ends
it."""

EXAMPLE = f"""\
  {PROG} vcam1 --bind tcp://10.20.0.5:5560 --allow sonne
  {PROG} vcam1 --bind tcp://10.20.0.5:5560 --keys scexao5.key_secret --peer-keys peers/
  {PROG} vcam1 --bind tcp://127.0.0.1:5560 --fps 5 --json"""

PYMILK_DESCRIPTION = f"""\
Sends the frames of a stream as pyMilk's {PYMILK_PROG} does: the same arguments, the same
messages, for receivers of pyMilk and of this package. {PROG} does more, and
compresses. To send beyond this computer, name the receivers with --allow."""

PYMILK_EXAMPLE = f"""\
  {PYMILK_PROG} 10.20.0.5:5560 vcam1 -f 20 --allow sonne"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("stream", metavar="STREAM", help="name of the stream")
    add(
        "--bind",
        required=True,
        metavar="tcp://ADDR:PORT",
        help="own address and port to listen on; ADDR *: all addresses; PORT 0: any",
    )
    add("--fps", type=number_in(float, 0, above=True), default=20.0, help="frames/s at most")
    _add_limits(parser)
    add(
        "--skip",
        type=number_in(int, 0),
        default=0,
        metavar="N",
        help="frames to leave out after each one sent",
    )
    add(
        "--resend",
        type=number_in(float, 0, above=True),
        metavar="SECONDS",
        help="send the newest frame once more when none came for so long",
    )
    add("--format", choices=FORMATS, default="native", help="pymilk: for receivers of pyMilk")
    add("--codec", choices=list(CODECS), help="lossless compression (default: zstd)")
    add(
        "--peer-keys",
        type=Path,
        metavar="DIR",
        help="folder of the NAME.key of the receivers, or one such file; none else can connect",
    )
    add_common_options(parser)
    return parser


def _add_limits(parser: CommandParser) -> None:
    parser.add_argument(
        "--max-mbps",
        type=number_in(float, 0),
        default=MAX_MBPS,
        help="10**6 bits/s at most, for each receiver; the rate falls; 0: no limit",
    )
    parser.add_argument(
        "--allow",
        action="append",
        metavar="PEER",
        help="address, network (10.20.0.0/24) or name of computers that may connect; may be"
        " repeated",
    )


def _pymilk_parser() -> CommandParser:
    parser = CommandParser(PYMILK_PROG, PYMILK_DESCRIPTION, PYMILK_EXAMPLE)
    add = parser.add_argument
    add("bind", metavar="HOST:PORT", help="own address and port to listen on")
    add("stream", metavar="STREAM", help="name of the stream")
    add("-f", dest="fps", type=number_in(float, 0, above=True), help="frames/s at most")
    add(
        "-s",
        dest="every",
        type=number_in(int, 1),
        default=1,
        metavar="N",
        help="send every N-th frame",
    )
    add(
        "-t",
        dest="resend",
        type=float,
        default=-1.0,
        metavar="SECONDS",
        help="send the newest frame once more when none came for so long; -1: never",
    )
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    return parser


def _native_config(arguments: argparse.Namespace) -> SenderConfig:
    from vampires import link_keys
    from vampires.allowed_peers import parse_allowed
    from vampires.zmq_sender import SenderConfig

    if arguments.peer_keys is not None and arguments.keys is None:
        raise UserError("--peer-keys needs --keys, the secret key of this computer")
    return SenderConfig(
        stream=arguments.stream,
        endpoint=parsed_endpoint(arguments.bind),
        fps=arguments.fps,
        max_mbps=arguments.max_mbps,
        skip=arguments.skip,
        resend_s=arguments.resend,
        pymilk=arguments.format == "pymilk",
        codec=_codec(arguments),
        allowed=tuple(parse_allowed(arguments.allow or [])),
        keys=arguments.keys and link_keys.load_secret(arguments.keys),
        peer_keys=arguments.peer_keys and link_keys.load_public_keys(arguments.peer_keys),
    )


def _codec(arguments: argparse.Namespace) -> Codec:
    from vampires.link_message import DEFAULT_CODEC, Codec

    if arguments.codec is None:
        return DEFAULT_CODEC
    if arguments.format == "pymilk":
        raise UserError("--codec has no meaning with --format pymilk, which knows none")
    return Codec[CODECS[arguments.codec]]


def _pymilk_config(arguments: argparse.Namespace) -> SenderConfig:
    from vampires.allowed_peers import parse_allowed
    from vampires.zmq_sender import SenderConfig

    return SenderConfig(
        stream=arguments.stream,
        endpoint=parsed_endpoint(arguments.bind),
        fps=arguments.fps or UNLIMITED_FPS,
        max_mbps=arguments.max_mbps,
        skip=arguments.every - 1,
        resend_s=arguments.resend if arguments.resend > 0 else None,
        pymilk=True,
        allowed=tuple(parse_allowed(arguments.allow or [])),
    )


def _run(prog: str, config: SenderConfig, arguments: argparse.Namespace) -> int:
    """Sends until told to stop; returns the exit status."""
    from vampires.zmq_report import Report, sender_line
    from vampires.zmq_sender import ZmqSender

    with setup_signals() as stop:
        notes = placed(arguments)
        report = Report(
            prog,
            sender_line,
            as_json=arguments.json,
            status_file=getattr(arguments, "status_file", None),
            notes=notes,
        )
        for note in notes:
            report.say(note)
        with mistakes_at_the_start():
            sender = ZmqSender(config, say=report.say)
        with sender:
            report.say(f"listening on {sender.endpoint}")
            sender.run(stop, look=lambda: report.look(sender.status))
            report.end(sender.status())
    return 0


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs vampires-zmq-send. Returns the exit code: 0, or 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)
    with mistakes_at_the_start():
        config = _native_config(arguments)
    return _run(PROG, config, arguments)


@user_errors(PYMILK_PROG)
def main_pymilk(argv: Sequence[str] | None = None) -> int:
    """Runs zmq_send.py. Returns the exit code: 0, or 2 for a mistake of the user."""
    arguments = _pymilk_parser().parse_args(argv)
    with mistakes_at_the_start():
        config = _pymilk_config(arguments)
    return _run(PYMILK_PROG, config, arguments)


if __name__ == "__main__":
    sys.exit(main())
