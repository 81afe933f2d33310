"""vampires_preplog: asks what is needed, and makes the loggers ready."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from functools import partial
from os.path import commonprefix
from typing import TYPE_CHECKING

from vampires.commands.cameras import (
    EXIT_INTERRUPTED,
    Answer,
    Job,
    chosen_cameras,
    exit_status,
    machines,
    observer_command,
    observer_parser,
    run_on_machines,
    tell_error,
)
from vampires.commands.common import UserError
from vampires.commands.cube_options import ARCHIVE, add_cube_options
from vampires.commands.questions import NoAnswer, Questions

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

PROG = "vampires_preplog"

DESCRIPTION = """\
Makes the loggers of the cameras ready: asks what is not given (frames per cube, number of
cubes, directory, data type), shows what that means for the present crops and rates, and starts
the loggers in tmux. Enter takes what stands in brackets; Ctrl-C changes nothing. Loggers that
are ready already take the new values, from their next cube on.

Files go to DIR/YYYYMMDD/CAMERA, by the UTC day of their first frame.

exit status: 0 all ready; 1 a logger is not, standard error says why (the others are); 2 wrong
usage or configuration."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --yes -a -n 250                  250 frames in a cube, to the archive
  {PROG} -n 500 -z -1 -a -t OBJECT        all is given: nothing is asked
  {PROG} -c 1 -n 1000 -z 10 --dir /mnt/fuuu/tests -t TEST"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    add_cube_options(parser, "asked, or as proposed")
    add = parser.add_argument
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "-a",
        "--archive",
        dest="place",
        action="store_const",
        const=ARCHIVE,
        help="to the archive's directory (archive_directory of the configuration)",
    )
    place.add_argument("--dir", dest="place", metavar="DIR", help="to this directory")
    add("-t", "--type", metavar="TYPE", help="data type, the keyword DATA-TYP, in any case")
    add("--yes", action="store_true", help="take what is proposed, without asking")
    return parser


@observer_command(PROG, "some loggers may be ready; see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.camera)
    _check_type(config, args)
    asking = _is_asking(args)
    job = Job(
        PROG,
        _handed_on(args),
        act=partial(_prepare, args=args, asking=asking),
        tell=partial(_tell, local=args.local),
        status=exit_status,
    )
    try:
        if asking and args.camera is None and not args.local:
            cameras = _ask_cameras(config, cameras, args)
        if not asking or args.local:
            return run_on_machines(job, args, config, cameras)
        return _ask_each_machine(job, args, config, cameras)
    except NoAnswer:
        print(f"{PROG}: ended; nothing was changed", file=sys.stderr)
        return EXIT_INTERRUPTED


def _check_type(config: Config, args: argparse.Namespace) -> None:
    from vampires.commands.datatype import checked_type

    try:
        if args.type is not None:
            args.type = checked_type(args.type, config.logging.data_types)
    except ValueError as error:
        raise UserError(str(error)) from None


def _is_asking(args: argparse.Namespace) -> bool:
    """Whether there are questions. UserError where nobody can answer them."""
    options = {
        "-n FRAMES": args.frames,
        "-z CUBES": args.cubes,
        "-a or --dir DIR": args.place,
        "-t TYPE": args.type,
    }
    missing = [option for option, value in options.items() if value is None]
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if args.yes or not missing:
        return False
    if not terminal:
        raise UserError(
            f"cannot ask, standard input is no terminal; give {', '.join(missing)}, or --yes "
            "to take what is proposed"
        )
    return True


def _handed_on(args: argparse.Namespace) -> list[str]:
    arguments = []
    given = (("--frames", args.frames), ("--cubes", args.cubes), ("--type", args.type))
    for option, value in given:
        if value is not None:
            arguments += [option, str(value)]
    if args.place == ARCHIVE:
        arguments.append("--archive")
    elif args.place is not None:
        arguments += ["--dir", args.place]
    return [*arguments, *(["--yes"] if args.yes else [])]


def _ask_cameras(
    config: Config, cameras: Sequence[CameraConfig], args: argparse.Namespace
) -> list[CameraConfig]:
    if len(cameras) < 2:
        return list(cameras)

    def parse(text: str) -> list[CameraConfig]:
        try:
            return chosen_cameras(config, [text])
        except UserError as error:
            raise ValueError(str(error)) from None

    shown = ",".join(str(camera.number or camera.name) for camera in cameras)
    questions = Questions(silent=False, out=sys.stderr if args.json else sys.stdout)
    return questions.ask("cameras", shown, parse)


def _ask_each_machine(
    job: Job, args: argparse.Namespace, config: Config, cameras: Sequence[CameraConfig]
) -> int:
    """One machine after the other, since each asks."""
    places = machines(config, cameras)
    statuses = []
    for host, theirs in places:
        if len(places) > 1:
            name = "this machine" if host is None else host.name
            print(f"{', '.join(camera.name for camera in theirs)} on {name}:", file=sys.stderr)
        statuses.append(run_on_machines(job, args, config, theirs, interactive=True))
    return max(statuses)


def _prepare(
    config: Config, cameras: Sequence[CameraConfig], *, args: argparse.Namespace, asking: bool
) -> list[Answer]:
    from vampires.commands.preparation import Wishes, prepare_cameras

    out = sys.stderr if args.json else sys.stdout
    wishes = Wishes(args.frames, args.cubes, args.place, args.type)
    return prepare_cameras(config, cameras, wishes, Questions(silent=not asking, out=out))


def _tell(answers: Sequence[Answer], *, local: bool) -> None:
    good = [answer["camera"] for answer in answers if not answer["error"]]
    for answer in answers:
        if answer["error"]:
            tell_error(PROG, answer)
        else:
            print(f"{answer['camera']}: the logger is ready")
    if good:
        name = "streamFITSlog-" + commonprefix(good)  # noqa: RUF071 - of names, not of paths
        where = f" (on {socket.gethostname()})" if local else ""
        print(f'look at them{where}: FPS_FILTSTRING_NAME="{name}" milk-fpsCTRL', flush=True)


if __name__ == "__main__":
    sys.exit(main())
