"""milk-streamFITSlog: prepare, start, pause and stop the logger of one stream."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.common import CommandParser, UserError, number_in, user_errors

if TYPE_CHECKING:
    from vampires.logger_control import LoggerOptions, LoggerState, Outcome

PROG = "milk-streamFITSlog"
PROGRESS_S = 2.0

DESCRIPTION = """\
Controls the logger of a shared-memory stream: the FPS streamFITSlog-STREAM and the tmux session
of that name. Returns when the thing has happened, or fails with the reason.

actions:
  pstart   prepare and start the logger; one that runs takes the options given
  on, off  save frames; stop saving (the cube is cut short)
  offc     stop saving when the present cube is full
  rstop    end the run process; nothing captured is lost
  rstart   start it again
  kill     end everything and remove the FPS
  set      set parameters: by the options above, or as KEY VALUE ...
  get      show parameters: all, or those named
  status   show what the logger does

exit status: 0 done; 1 it did not happen, standard error says why; 2 wrong usage."""

EXAMPLE = f"""\
  {PROG} -z 250 -D /mnt/fuuu/20261122/vcam1 vcam1 pstart
  {PROG} -c 10 vcam1 on
  {PROG} vcam1 set cubesize 500
  {PROG} vcam1 status --json"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    place = parser.add_mutually_exclusive_group()
    place.add_argument("-d", dest="root", metavar="ROOT", help="to ROOT/YYYYMMDD/STREAM (UTC)")
    place.add_argument("-D", dest="exact", metavar="DIR", help="to DIR itself")
    parser.add_argument(
        "--next-dir",
        action="append",
        metavar="DIR",
        help="where files go when there is no room left; may be given several times",
    )
    add("-z", dest="cube_size", type=number_in(int, 1), metavar="N", help="frames a cube")
    add("-n", dest="frames", type=number_in(int, 0), metavar="N", help="end after N; 0: never")
    add("-c", dest="cubes", type=number_in(int, 0), metavar="N", help="end after N; 0: never")
    add("-t", dest="timeout", type=number_in(float, 0), metavar="S", help="a cube ends when no "
        "frame came for S seconds; 0: never")  # fmt: skip
    add("-r", dest="anew", action="store_true", help="pstart: remove what is there, begin anew")
    add("-rtp", dest="rt", type=number_in(int, -1), metavar="P", help="real-time priority")
    add("-wrtp", dest="writer_rt", type=number_in(int, 0), metavar="P", help="of the writer")
    add("-cset", dest="cpu_set", metavar="SET", help="CPU set of the kernel to run in")
    add("--json", action="store_true", help="get, status: one JSON object")
    add("stream", metavar="STREAM", help="name of the stream, such as vcam1")
    add("action", metavar="ACTION", help="see above")
    add("words", nargs="*", metavar="KEY VALUE", help="for set and get")
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    args = parser.parse_intermixed_args(argv)
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "pstart": _pstart,
        "on": _on,
        "off": _off,
        "offc": _offc,
        "rstop": _rstop,
        "rstart": _rstart,
        "kill": _kill,
        "set": _set,
        "get": _get,
        "status": _status,
    }
    if args.action not in actions:
        raise UserError(
            f"found action {args.action!r}, expected one of {', '.join(actions)} "
            f"(see {PROG} --help)"
        )
    if args.words and args.action not in ("set", "get"):
        raise UserError(f"found {' '.join(args.words)!r} after {args.action}, expected nothing")
    from vampires.fps import FPSError, FPSNotFound
    from vampires.fps_control import ActionFailed

    try:
        return actions[args.action](args)
    except FPSNotFound:
        why = f"the logger of {args.stream} is not prepared; type {PROG} {args.stream} pstart"
        print(f"{PROG}: {why}", file=sys.stderr)
        return 1
    except (ActionFailed, FPSError) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted; the logger goes on", file=sys.stderr)
        return 1


def _options(args: argparse.Namespace) -> LoggerOptions:
    from vampires.logger_control import LoggerOptions

    directory = args.exact if args.root is None else args.root
    if directory == "":
        raise UserError("the directory has an empty name; give one, such as -D /data/vcam1")
    return LoggerOptions(
        directory=None if directory is None else Path(directory).absolute(),
        daily=None if directory is None else args.root is not None,
        next_directories=None if args.next_dir is None else list(map(Path, args.next_dir)),
        cube_size=args.cube_size,
        cubes=args.cubes,
        frames=args.frames,
        timeout_s=args.timeout,
        rt_priority=args.rt,
        writer_rt_priority=args.writer_rt,
        cpu_set=args.cpu_set,
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _pstart(args: argparse.Namespace) -> int:
    from vampires import logger_control as loggers

    options = _options(args)
    if args.anew and loggers.look(args.stream).prepared:
        loggers.kill(args.stream)
    state = loggers.prepare(args.stream, options)
    _say(
        f"{args.stream}: ready, {state.cube_size} frames a cube, to {state.directory}; "
        f"{PROG} {args.stream} on starts saving"
    )
    return 0


def _on(args: argparse.Namespace) -> int:
    from vampires import logger_control as loggers

    if loggers.look(args.stream).saving:
        _say(f"{args.stream}: is being saved already")
        return 0
    _apply(args)
    outcome = loggers.start([args.stream], at_ns=0)[0]
    return _told(outcome, _began(outcome.state))


def _began(state: LoggerState) -> str:
    if state.first_cnt0 == 0:
        return "saving begins with the next frame; none come now"
    return f"saving since frame {state.first_cnt0}"


def _off(args: argparse.Namespace) -> int:
    return _end(args, whole_cube=False)


def _offc(args: argparse.Namespace) -> int:
    return _end(args, whole_cube=True)


def _end(args: argparse.Namespace, *, whole_cube: bool) -> int:
    from vampires import logger_control as loggers

    state = loggers.look(args.stream)
    if state.prepared and not state.saving:
        _say(f"{args.stream}: was not being saved")
        return 0
    began = shown = time.monotonic()

    def progress(states: list[LoggerState]) -> None:
        nonlocal shown
        if time.monotonic() - began > PROGRESS_S and time.monotonic() - shown > 1.0:
            shown = time.monotonic()
            for now in states:
                print(
                    f"{now.stream}: {now.state}, {now.cube_frames} of {now.cube_size} frames",
                    file=sys.stderr,
                )

    outcome = loggers.pause([args.stream], at_ns=0, whole_cube=whole_cube, progress=progress)[0]
    done = outcome.state
    return _told(outcome, f"{done.frames} frames in {done.files} files, {done.lost} lost")


def _told(outcome: Outcome, text: str) -> int:
    if outcome.error:
        print(f"{PROG}: {outcome.error}", file=sys.stderr)
        return 1
    _say(f"{outcome.stream}: {text}")
    return 0


def _rstop(args: argparse.Namespace) -> int:
    from vampires import logger_control as loggers

    loggers.stop(args.stream)
    _say(f"{args.stream}: the run process has ended")
    return 0


def _rstart(args: argparse.Namespace) -> int:
    from vampires import logger_control as loggers

    _apply(args)
    loggers.run_start(args.stream)
    _say(f"{args.stream}: the run process runs")
    return 0


def _kill(args: argparse.Namespace) -> int:
    from vampires import logger_control as loggers

    if not loggers.look(args.stream).prepared:
        _say(f"{args.stream}: has no logger")
        return 0
    loggers.kill(args.stream)
    _say(f"{args.stream}: the logger is removed")
    return 0


def _apply(args: argparse.Namespace) -> int:
    """Sets what the options say; returns how many parameters that were."""
    from vampires import logger_parameters as names

    with names.open_logger_fps(args.stream) as fps:
        values = _options(args).values()
        names.set_values(fps, values)
    return len(values)


def _set(args: argparse.Namespace) -> int:
    from vampires import logger_parameters as names

    words = args.words
    if len(words) % 2:
        raise UserError(
            f"{words[-1]!r} has no value; expected KEY VALUE, as in: set cubesize 9"
        )
    if not _apply(args) and not words:
        raise UserError("nothing to set; expected options, or KEY VALUE as in: set cubesize 9")
    with names.open_logger_fps(args.stream) as fps:
        pairs = zip(words[::2], words[1::2], strict=True)
        names.set_values(fps, {key: names.parse(fps, key, text) for key, text in pairs})
    return 0


def _get(args: argparse.Namespace) -> int:
    from vampires import logger_parameters as names

    with names.open_logger_fps(args.stream) as fps:
        values = {key: fps[key] for key in args.words or fps}
    if args.json:
        _say(json.dumps(values))
    elif len(args.words) == 1:
        _say(_shown(values[args.words[0]]))
    else:
        for key, value in values.items():
            _say(f"{key:28s} {_shown(value)}")
    return 0


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    return str(value)


def _status(args: argparse.Namespace) -> int:
    from vampires import logger_control as loggers

    state = loggers.look(args.stream)
    if args.json:
        _say(json.dumps(state.as_dict()))
        return 0
    if not state.prepared:
        _say(f"{args.stream}: not prepared")
        return 0
    lights = dict(zip(("tmux", "conf", "run"), state.lights, strict=True))
    _say(f"{args.stream}: {state.state}, " + ", ".join(f"{k} {v}" for k, v in lights.items()))
    _say(
        f"  {state.frames} frames in {state.files} files, {state.lost} lost, "
        f"{state.torn} torn, cube {state.cube_frames} of {state.cube_size}, "
        f"{state.rate_hz:.1f} Hz"
    )
    _say(f"  {state.directory}, {state.disk_free_bytes / 1e9:.0f} GB free")
    if state.last_error:
        _say(f"  last error: {state.last_error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
