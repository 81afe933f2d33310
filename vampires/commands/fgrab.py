"""vampires-fgrab: the process of a camera."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vampires.commands.common import (
    CommandParser,
    UserError,
    number_in,
    setup_signals,
    user_errors,
)

if TYPE_CHECKING:
    from vampires.run_folder import RunFolder

PROG = "vampires-fgrab"
EXIT_FAILED = 1

DESCRIPTION = """\
Takes the frames of a camera of the configuration (simulated, replayed or real) and publishes
them on its stream, until Ctrl-C. What is set of it meanwhile comes from the camera's prompt and
from set_tint, set_crop and the other commands. camstart runs it in tmux session CAMERA_fgrab.

exit status: 0 ended as told; 1 the camera failed, with the reason; 2 wrong usage or
configuration."""

EXAMPLE = f"""\
  {PROG} vcam1
  {PROG} vcam2 --mode STANDARD --fps 500"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("camera", metavar="CAMERA", help="one of the configuration")
    add(
        "-m",
        "--mode",
        type=str.upper,
        help="the camera mode at the start; that of the configuration if not given",
    )
    add(
        "--fps",
        type=number_in(float, 0, above=True),
        metavar="HZ",
        help="frames/s at the start",
    )
    add(
        "--generation",
        default="",
        metavar="TEXT",
        help="what was set is taken up again by a later process of the same one",
    )
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.camera.server import CameraServer, ServerOptions
    from vampires.camera.source import SourceError
    from vampires.camera.sources.make import make_source
    from vampires.config import load_config
    from vampires.cpu_placement import place_process
    from vampires.run_folder import RunFolder
    from vampires.stream import StreamError

    config = load_config()
    camera = config.camera(args.camera)
    options = ServerOptions(
        name=camera.name,
        number=camera.number,
        mode=args.mode or camera.first_mode,
        fps=args.fps or (camera.fps if args.mode in (None, camera.first_mode) else None),
        ring=camera.sim.ring if camera.sim else ServerOptions.ring,
        generation=args.generation,
        notes=tuple(place_process(camera.rt_priority, camera.cpus, camera.cpu_set)),
    )
    for note in options.notes:
        _say(note)
    with setup_signals() as stop:
        try:
            run = RunFolder().make()
            fd = run.lock(f"{camera.name}_fgrab", 0.0)
        except TimeoutError:
            raise UserError(
                f"camera {camera.name} is run by another process; end that one with "
                f"camstop {camera.name}"
            ) from None
        except OSError as error:
            raise UserError(f"{RunFolder().path}: {error.strerror}") from None
        del fd  # held until this process ends
        try:
            server = CameraServer(
                options,
                lambda: make_source(camera, _say),
                run,
                _say,
                lambda: _mind_supervisor(run) if args.generation else None,
            )
            server.run(stop)
        except (SourceError, StreamError, OSError, MemoryError) as error:
            print(f"{PROG}: {camera.name}: {error}", file=sys.stderr, flush=True)
            return EXIT_FAILED
    return 0


def _mind_supervisor(run: RunFolder) -> None:
    """Two of them look after each other; a camera of camstart looks after both."""
    from vampires.flow.supervisor import is_supervised, start_supervisor

    if not is_supervised(run):
        start_supervisor(run)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
