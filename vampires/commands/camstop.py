"""camstop: ends cameras, with their links and loggers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vampires.commands.cameras import EXIT_FAILED, observer_command, side_by_side
from vampires.commands.common import CommandParser

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

PROG = "camstop"
TIMEOUT_S = 120.0
ALL = "all"

DESCRIPTION = """\
Ends a camera on all machines: what was captured goes to its files, then its logger, its links,
its frames and its prompt end.

exit status: 0 all has ended; 1 something has not, with the reason; 2 wrong usage or
configuration."""

EXAMPLE = f"""\
  {PROG} vcam1
  {PROG} {ALL}"""


@observer_command(PROG, "what was told to end does so; see camstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("cameras", metavar="CAMERA", nargs="+", help=f"name or number, or {ALL}")
    add("--local", action="store_true", help="only what runs on this machine")
    add("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args(argv)
    from vampires.commands.cameras import chosen_cameras
    from vampires.config import load_config

    config = load_config()
    if args.cameras == [ALL]:
        cameras = list(config.cameras.values())
    else:
        cameras = chosen_cameras(config, args.cameras)
    told: dict[str, dict[str, dict[str, Any]]] = {}

    def stop(name: str) -> None:
        told[name] = _stop(config, config.cameras[name], args.local)

    failed = side_by_side(stop, [camera.name for camera in cameras])
    told |= {name: {"": {"error": why}} for name, why in failed.items() if name not in told}
    told = {camera.name: told[camera.name] for camera in cameras}
    errors = {
        name: [str(one["error"]) for one in answers.values() if one.get("error")]
        for name, answers in told.items()
    }
    if args.json:
        answers = [
            {"camera": name, "error": "; ".join(errors[name]), "hosts": told[name]}
            for name in told
        ]
        print(json.dumps(answers[0] if len(answers) == 1 else {"cameras": answers}))
    else:
        _tell(told, errors)
    return EXIT_FAILED if any(errors.values()) else 0


def _stop(config: Config, camera: CameraConfig, local: bool) -> dict[str, dict[str, Any]]:
    from vampires.flow.everywhere import on_machines
    from vampires.flow.here import StartFailed, stop_here
    from vampires.flow.parts import machines_of

    def here() -> dict[str, Any]:
        try:
            return stop_here(camera.name, _say)
        except StartFailed as error:
            return {"camera": camera.name, "error": str(error)}

    if local:
        return {"": here()}
    hosts = machines_of(config, camera.name)
    return on_machines(hosts, PROG, [camera.name], here, timeout_s=TIMEOUT_S)


def _tell(told: dict[str, dict[str, dict[str, Any]]], errors: dict[str, list[str]]) -> None:
    for name, answers in told.items():
        for error in dict.fromkeys(errors[name]):
            where = "" if name in error else f"{name}: "
            print(f"{PROG}: {where}{error}", file=sys.stderr)
        if not errors[name]:
            ran = any(_ran(answer) for answer in answers.values())
            print(f"{name} has ended" if ran else f"{name} did not run")


def _ran(answer: dict[str, Any]) -> bool:
    inner = answer.get("hosts")
    if isinstance(inner, dict):
        return any(_ran(one) for one in inner.values() if isinstance(one, dict))
    return bool(answer.get("ran"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
