"""vampires_stoplog: ends the loggers; nothing that was captured is lost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vampires.commands.cameras import (
    Answer,
    Job,
    chosen_cameras,
    observer_command,
    observer_parser,
    run_on_machines,
    side_by_side,
    tell_error,
)
from vampires.commands.common_instant import add_at_option, at_arguments, decide_instant
from vampires.commands.pauselog import loss_status, pause_all, tell_saved

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

PROG = "vampires_stoplog"

DESCRIPTION = """\
Ends saving, in all cameras with the same frame, completes the files, and ends the run processes
of the loggers. vampires_preplog starts them again. With --kill also their conf processes, tmux
sessions and FPS go.

exit status: 0 the loggers have ended, also where there were none; 1 one has not, standard error
says why; 2 wrong usage or configuration; 3 frames were lost in what was saved."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --kill"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "--kill", action="store_true", help="remove conf processes, tmux sessions and FPS too"
    )
    add_at_option(parser)
    return parser


@observer_command(PROG, "loggers may run on; see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.camera)
    decide_instant(args, config, cameras)
    job = Job(
        PROG,
        [*at_arguments(args), *(["--kill"] if args.kill else [])],
        act=lambda config, cameras: _stop(config, cameras, args),
        tell=_tell,
        status=loss_status,
    )
    return run_on_machines(job, args, config, cameras)


def _stop(
    config: Config, cameras: Sequence[CameraConfig], args: argparse.Namespace
) -> list[Answer]:
    from vampires import logger_control as loggers
    from vampires.fps import FPSError

    answers: dict[str, Answer] = {}
    running, there = [], []
    for camera in cameras:
        answer: Answer = {"camera": camera.name, "error": "", "was": "", "removed": args.kill}
        answers[camera.name] = answer
        try:
            state = loggers.look(camera.name)
        except FPSError as error:
            answer["error"] = str(error)
            continue
        answer["was"] = "running" if state.running else state.state
        running += [camera.name] if state.running else []
        there += [camera.name] if state.prepared else []
    for answer in pause_all(config, running, args.at, whole_cube=False):
        answers[answer["camera"]] |= answer
    end: Callable[[str], None] = loggers.kill if args.kill else loggers.stop
    for stream, why in side_by_side(end, there if args.kill else running).items():
        answers[stream]["error"] = why or answers[stream]["error"]
    return list(answers.values())


def _tell(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.get("was_saving"):
            tell_saved(answer)
        if answer["error"]:
            tell_error(PROG, answer)
        elif answer["was"] == "not prepared":
            print(f"{answer['camera']}: no logger was there")
        else:
            was = "" if answer["was"] == "running" else f" (it was {answer['was']})"
            what = "removed" if answer["removed"] else "stopped"
            print(f"{answer['camera']}: the logger is {what}{was}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
