"""camstatus: every camera and link, on all machines."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vampires.commands.cameras import EXIT_FAILED, EXIT_LOST, observer_command
from vampires.commands.common import CommandParser

if TYPE_CHECKING:
    from vampires.config_models import Config

PROG = "camstatus"
TIMEOUT_S = 20.0
WATCH_S = 1.0

DESCRIPTION = """\
Shows the processes of every camera and link, on all machines of the configuration: machine,
tmux session, state, frame rate, frames lost, for how long it has been so, and how often it was
started again.

exit status: 0 all that was started runs; 1 something does not, or a machine does not answer;
2 wrong usage or configuration; 3 frames were lost."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --watch             until Ctrl-C
  {PROG} --json"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("--watch", action="store_true", help="go on until Ctrl-C; with --json an object a line")
    add("--local", action="store_true", help="only what runs on this machine")
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


@observer_command(PROG, "the cameras go on")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    if args.watch:
        return _watch(config, args)
    told = look(config, local=args.local)
    if args.json:
        print(json.dumps(_for_json(told, args.local)))
    else:
        for line in _lines(told, colour=sys.stdout.isatty()):
            print(line)
    return status_of(told)


def look(config: Config, *, local: bool) -> dict[str, dict[str, Any]]:
    """What each machine says of itself, by its name; "error" where it says nothing."""
    from vampires.flow.everywhere import on_machines
    from vampires.flow.here import status_here

    if local:
        own = next((h for h in config.hosts.values() if h.is_local()), None)
        return {own.name if own else "local": status_here(config)}
    names = [camera.host for camera in config.cameras.values()]
    for link in config.links.values():
        names += [link.sender, link.receiver]
    hosts = [config.hosts[name] for name in dict.fromkeys(names)]
    return on_machines(hosts, PROG, [], lambda: status_here(config), timeout_s=TIMEOUT_S)


def status_of(told: dict[str, dict[str, Any]]) -> int:
    """The exit status: the worst that is seen."""
    from vampires.commands.flow_table import is_alarming

    parts = [part for one in told.values() for part in one.get("parts", [])]
    broken = any(one.get("error") or one.get("supervisor") == "dead" for one in told.values())
    if broken or any(is_alarming(part) for part in parts):
        return EXIT_FAILED
    return EXIT_LOST if any(part.get("lost") for part in parts) else 0


def _for_json(told: dict[str, dict[str, Any]], local: bool) -> dict[str, Any]:
    return next(iter(told.values())) if local else {"hosts": told}


def _lines(told: dict[str, dict[str, Any]], *, colour: bool) -> list[str]:
    from vampires.commands.flow_table import table

    return table(told, time.time_ns(), colour=colour)


def _watch(config: Config, args: argparse.Namespace) -> int:
    from vampires.commands.common import setup_signals
    from vampires.commands.watch_status import display_lines

    with setup_signals() as stop, display_lines(sys.stdout.isatty()) as show:
        while True:
            told = look(config, local=args.local)
            try:
                if args.json:
                    print(json.dumps(_for_json(told, args.local)), flush=True)
                else:
                    show(_lines(told, colour=sys.stdout.isatty()))
            except BrokenPipeError:
                return status_of(told)
            if stop.wait(WATCH_S):
                return status_of(told)


if __name__ == "__main__":
    sys.exit(main())
