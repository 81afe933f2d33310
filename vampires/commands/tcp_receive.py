"""shmimTCPreceive: the stream of another computer, frame by frame, as a stream here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from vampires.allowed_peers import LOOPBACK, Network, check_listen, parse_allowed, to_core
from vampires.commands.common import CommandParser, UserError, parse_bytes, user_errors
from vampires.commands.tcp_link import Placement, add_common_options, port_from, run_end

if TYPE_CHECKING:
    from vampires import _core

PROG = "shmimTCPreceive"
LISTEN = "127.0.0.1"
MAX_BYTES = "4GiB"

DESCRIPTION = """\
Receives the frames that shmimTCPtransmit (of this package or of milk) sends over TCP, into a
stream of the same name on this computer, with the sender's counters and keywords: a frame that
was lost anywhere shows as a gap.

It waits for a sender again when one goes away, as long as it runs, and makes the stream anew
when the crop changes. Only this computer itself can connect, unless --listen and --allow say
otherwise. Ctrl-C or SIGTERM ends it; the stream stays."""

EXAMPLE = f"""\
  {PROG} --listen 10.20.0.5 --allow 10.20.0.6 30107
  {PROG} --listen 0.0.0.0 --allow scexao5 --allow 10.20.0.0/24 30107 -c v_tcp
  {PROG} 30107 --as vcam1copy --json"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("port", metavar="PORT", type=port_from(0), help="TCP port; 0: any, and it is told")
    add("--listen", default=LISTEN, metavar="ADDR", help="own address; 0.0.0.0: all of them")
    add(
        "--allow",
        action="append",
        metavar="PEER",
        help="address, network (10.20.0.0/24) or name of computers that may connect; may be"
        " repeated (default: this computer)",
    )
    add("--as", dest="name", metavar="NAME", help="name of the stream here")
    add(
        "--max-bytes",
        type=parse_bytes,
        default=MAX_BYTES,
        metavar="SIZE",
        help="largest stream that a sender can have made here",
    )
    add_common_options(parser)
    return parser


def _addresses(arguments: argparse.Namespace) -> tuple[str, list[Network]]:
    """The address to listen on and the peers that may connect. UserError."""
    try:
        named = parse_allowed(arguments.allow or [])
        listen = check_listen(arguments.listen, named)
    except ValueError as error:
        raise UserError(str(error)) from None
    if named and ip_address(listen).is_loopback and not any(n.is_loopback for n in named):
        raise UserError(
            f"nobody of --allow can connect to {listen}, which is this computer alone: "
            "give --listen as well, such as --listen 0.0.0.0"
        )
    return listen, named or list(LOOPBACK)


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code: 0, or 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)
    listen, allowed = _addresses(arguments)

    def receiver(placement: Placement) -> _core.TcpReceiver:
        from vampires import _core

        return _core.TcpReceiver(
            _core.stream_directory(),
            listen,
            arguments.port,
            to_core(allowed),
            name=arguments.name or "",
            max_bytes=arguments.max_bytes,
            priority=placement.priority,
            cpus=placement.cpus,
        )

    def describe(link: _core.TcpReceiver) -> str:
        return f"listening on {listen} port {link.port}"

    return run_end(PROG, arguments, receiver, describe)


if __name__ == "__main__":
    sys.exit(main())
