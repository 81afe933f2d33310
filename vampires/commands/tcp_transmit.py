"""shmimTCPtransmit: every frame of a stream to another computer."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vampires.commands.common import CommandParser, UserError, user_errors
from vampires.commands.tcp_link import Placement, add_common_options, port_from, run_end

if TYPE_CHECKING:
    from vampires import _core

PROG = "shmimTCPtransmit"

DESCRIPTION = """\
Sends every frame of a shared-memory stream over TCP, in order, each once, with its counter and
its keywords, to shmimTCPreceive (of this package or of milk) on another computer.

It waits for the stream, follows it when the camera makes it anew, and connects again by itself
as long as it runs. Frames that wait for the network wait in the ring of the stream; those that
the camera overwrites first are counted as lost. Ctrl-C or SIGTERM ends it."""

EXAMPLE = f"""\
  {PROG} vcam1 10.20.0.5 30107
  {PROG} vcam1 scexao6 30107 -c v_tcp --rt-priority 49
  {PROG} vcam1 localhost 30107 --json"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument("stream", metavar="STREAM", help="name of the stream, such as vcam1")
    parser.add_argument("host", metavar="HOST", help="name or address of the receiver")
    parser.add_argument("port", metavar="PORT", type=port_from(1), help="port of the receiver")
    add_common_options(parser)
    return parser


def _check_host(host: str, port: int) -> None:
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no legal name"
        raise UserError(
            f"host {host!r} is not known ({reason}): check the name, or give its address"
        ) from None


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code: 0, or 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)
    _check_host(arguments.host, arguments.port)

    def sender(placement: Placement) -> _core.TcpSender:
        from vampires import _core

        return _core.TcpSender(
            _core.stream_directory(),
            arguments.stream,
            arguments.host,
            arguments.port,
            priority=placement.priority,
            cpus=placement.cpus,
        )

    def describe(link: _core.TcpSender) -> str:
        return f"sending {arguments.stream} to {arguments.host} port {arguments.port}"

    return run_end(PROG, arguments, sender, describe)


if __name__ == "__main__":
    sys.exit(main())
