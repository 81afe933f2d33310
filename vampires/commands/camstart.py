"""camstart: starts cameras, with their links and loggers; without arguments, shows them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vampires.commands.cameras import EXIT_FAILED, observer_command, side_by_side
from vampires.commands.common import CommandParser, UserError

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config, HostConfig

PROG = "camstart"
TIMEOUT_S = 120.0

DESCRIPTION = """\
Starts a camera of the configuration: its frames, its prompt, its links to other machines (both
ends) and its logger, which is made ready and does not save yet. Each process is in a tmux
session of its own (CAMERA_ctrl, CAMERA_fgrab, the links' names, streamFITSlog-CAMERA), is
watched, and is started again when it dies. A camera that runs is started anew; if it is being
logged, that is ended first and nothing is lost.

Without CAMERA it shows what runs, as camstatus does.

exit status: 0 all runs; 1 something does not, with the reason; 2 wrong usage or
configuration."""

EXAMPLE = f"""\
  {PROG} vcam1
  {PROG} vcam1 vcam2 -m STANDARD
  {PROG} vpupcam --no-links
  tmux attach -t vcam1_ctrl      the camera's prompt; leave it with Ctrl-B D"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("cameras", metavar="CAMERA", nargs="*", help="name or number; several are possible")
    add("-m", "--mode", help="the camera mode, as MBI; that of the configuration if not given")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--local", action="store_true", help="only what belongs on this machine")
    place.add_argument(
        "--ssh", action="store_true", help="also what belongs on others, by ssh; as without it"
    )
    add("--no-links", action="store_true", help="no links to other machines")
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


@observer_command(PROG, "what was started goes on; see camstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    if not args.cameras:
        from vampires.commands.camstatus import main as status

        given = [*(["--json"] if args.json else []), *(["--local"] if args.local else [])]
        return status(given)
    from vampires.commands.cameras import chosen_cameras
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.cameras)
    if args.mode is not None:
        _check_modes(cameras, args.mode)
    answers = _start_all(config, cameras, args)
    if args.json:
        print(
            json.dumps(answers[0] if args.local and len(answers) == 1 else {"cameras": answers})
        )
    else:
        for answer in answers:
            _tell(answer)
    return EXIT_FAILED if any(_errors(answer) for answer in answers) else 0


def _check_modes(cameras: Sequence[CameraConfig], mode: str) -> None:
    from vampires.flow.here import StartFailed, check_mode

    try:
        for camera in cameras:
            check_mode(camera, mode)
    except StartFailed as error:
        raise UserError(str(error)) from None


def _start_all(
    config: Config, cameras: Sequence[CameraConfig], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Starts them side by side."""
    answers: dict[str, dict[str, Any]] = {}

    def start(name: str) -> None:
        answers[name] = _start(config, config.cameras[name], args)

    errors = side_by_side(start, [camera.name for camera in cameras])
    return [
        answers.get(name, {"camera": name, "error": error}) for name, error in errors.items()
    ]


def _start(config: Config, camera: CameraConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Starts one camera; what became of it on each machine."""
    from vampires.flow.everywhere import on_machines
    from vampires.flow.here import StartFailed, start_here
    from vampires.flow.parts import machines_of

    mode = args.mode.upper() if args.mode else None

    def here() -> dict[str, Any]:
        try:
            return start_here(config, camera, mode, links=not args.no_links, say=_say)
        except StartFailed as error:
            return {"camera": camera.name, "error": str(error)}

    if args.local:
        return here()
    hosts = machines_of(config, camera.name, links=not args.no_links)
    arguments = [camera.name, *(["-m", mode] if mode else [])]
    arguments += ["--no-links"] if args.no_links else []
    if not args.json:
        _say(f"{camera.name}: starting on {', '.join(host.name for host in hosts)}")
    told = on_machines(hosts, PROG, arguments, here, timeout_s=TIMEOUT_S)
    return _together(camera, hosts, told)


def _together(
    camera: CameraConfig, hosts: Sequence[HostConfig], told: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    own = told[hosts[0].name]
    return {**own, "camera": camera.name, "error": own.get("error", ""), "hosts": told}


def _errors(answer: dict[str, Any]) -> list[str]:
    told = answer.get("hosts", {"": answer})
    return [str(one["error"]) for one in told.values() if one.get("error")]


def _tell(answer: dict[str, Any]) -> None:
    camera = answer["camera"]
    for error in dict.fromkeys(_errors(answer)):
        where = "" if camera in error else f"{camera}: "
        print(f"{PROG}: {where}{error}", file=sys.stderr)
    if not answer.get("error"):
        shape = answer.get("shape")
        size = f", {shape[0]} x {shape[1]}" if shape else ""
        mode = f" in {answer['mode']}" if answer.get("mode") else ""
        parts = answer.get("parts", [])
        print(f"{camera} runs{mode}{size}; tmux sessions here: {', '.join(parts) or 'none'}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
