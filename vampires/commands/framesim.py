"""vampires-framesim: a simulated camera on a shared-memory stream."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from vampires import framesim
from vampires.commands.common import (
    CommandParser,
    UserError,
    number_in,
    setup_signals,
    user_errors,
)
from vampires.fps import FPSError
from vampires.framesim_focus import (
    KEYWORD,
    LIMIT_MM,
    PARAMETER,
    PREFIX,
    FocusOptions,
    FocusStage,
    fps_name,
)
from vampires.instrument.file import InstrumentError, instrument_of, instrument_on
from vampires.simulated_sky import PATTERNS, STREAM_DTYPES

PROG = "vampires-framesim"

DESCRIPTION = """\
Publishes simulated camera frames on a shared-memory stream, at an exact rate.

Every frame carries its number cnt0 in its first and last 8 bytes, so a reader can prove which
frames it got. Ctrl-C or SIGTERM ends the camera and removes the stream."""

EXAMPLE = f"""\
  {PROG} vcam1                                   multiband imaging at 57 Hz until Ctrl-C
  {PROG} vcam2 --mode STANDARD --fps 500 --seconds 10 --json
  {PROG} test1 --shape 100 120 --dtype float32 --fps 0 --frames 1000 --pattern counter
  {PROG} vcam1 --focus 1.2 --focus-best -0.4     out of focus, until somebody sets it"""


def _rate(text: str) -> Fraction:
    """Frames per second as an exact number."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(-1)
    if rate < 0:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected frames/s: 0 or more, such as 57, 506.25 or 1/3"
        )
    return rate


def _mode(text: str) -> str:
    try:
        return instrument_on().mode(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _day(text: str) -> str:
    try:
        instrument_of(text)
    except (ValueError, InstrumentError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _focus_mm(text: str) -> float:
    """A place of the focus stage."""
    try:
        focus_mm = float(text)
    except ValueError:
        focus_mm = float("nan")
    if not abs(focus_mm) <= LIMIT_MM:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected mm, a number from {-LIMIT_MM:g} to {LIMIT_MM:g}"
        )
    return focus_mm


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("stream", metavar="STREAM", help="name; vcam2... simulates camera 2, others camera 1")
    size = parser.add_mutually_exclusive_group()
    modes = ", ".join(instrument_on().modes)
    size.add_argument("--mode", type=_mode, default="MBI", help=f"one of {modes}")
    size.add_argument(
        "--shape",
        type=number_in(int, 1),
        nargs=2,
        metavar=("NY", "NX"),
        help="rows and columns, instead of a mode",
    )
    add("--dtype", default="uint16", choices=[str(d) for d in STREAM_DTYPES], help="pixels")
    add("--fps", type=_rate, default="57", help="frames/s; 0: as fast as possible")
    add("--ring", type=number_in(int, 0), default=64, help="frames in the ring; 0: no ring")
    add("--frames", type=number_in(int, 1), metavar="N", help="end after N frames")
    add(
        "--seconds",
        type=number_in(float, 0, above=True),
        metavar="S",
        help="end after the frames that are due within S seconds",
    )
    add("--pattern", choices=PATTERNS, default="sky", help="counter: cheap ramps")
    add(
        "--flc-jitter-us",
        type=number_in(float, 0),
        default=0.0,
        help="half-width of the liquid crystal's switching: every other frame interval is"
        " longer by twice that, and the mean rate falls to 1/(1/fps + jitter)",
    )
    add(
        "--jitter-us",
        type=number_in(float, 0),
        default=0.0,
        help="standard deviation of the acquisition times around the exact ones",
    )
    add(
        "--exptime",
        type=number_in(float, 0, above=True),
        metavar="S",
        help="the keyword EXPTIME, 1/fps if not given; the images stay the same",
    )
    add(
        "--focus",
        type=_focus_mm,
        nargs="?",
        const=0.0,
        metavar="START",
        help=f"gives the camera a focus: the parameter {PARAMETER!r} of the FPS"
        f" {PREFIX}STREAM, mm, which may be set while it runs; {KEYWORD} is that of each frame",
    )
    add(
        "--focus-best",
        type=_focus_mm,
        metavar="MM",
        help="where the stars are sharpest, with --focus; 0 if not given",
    )
    add(
        "--day",
        type=_day,
        metavar="YYYY-MM-DD",
        help="whose facts of the instrument are played, those of today if not given",
    )
    add("--seed", type=number_in(int, 0), default=0, help="of the noise and the jitter")
    add(
        "--json",
        action="store_true",
        help="one JSON object at the end, alone on stdout (frames, seconds, rate_hz, mb_per_s,"
        " max_late_us); the line at the start goes to stderr",
    )
    add("--keep", action="store_true", help="leave the stream behind at the end")
    add("--replace", action="store_true", help="take the place of a camera that is running")
    return parser


def _focus(arguments: argparse.Namespace) -> FocusOptions | None:
    """The focus asked for. UserError where it would have nothing to do."""
    if arguments.focus is None:
        if arguments.focus_best is not None:
            raise UserError("--focus-best is for a camera with a focus: give --focus as well")
        return None
    if arguments.pattern != "sky" or arguments.mode == "PUPIL":
        raise UserError(
            "--focus changes images of stars: take it with --pattern sky and a mode other "
            "than PUPIL"
        )
    return FocusOptions(arguments.focus, arguments.focus_best or 0.0)


def _options(arguments: argparse.Namespace) -> framesim.CameraOptions:
    return framesim.CameraOptions(
        stream=arguments.stream,
        mode_or_shape=tuple(arguments.shape) if arguments.shape else arguments.mode,
        dtype=arguments.dtype,
        fps=arguments.fps,
        pattern=arguments.pattern,
        flc_jitter_us=arguments.flc_jitter_us,
        day=arguments.day,
        jitter_us=arguments.jitter_us,
        exptime_s=arguments.exptime,
        seed=arguments.seed,
        focus=_focus(arguments),
    )


def _start_line(options: framesim.CameraOptions, ring: int, path: str) -> str:
    ny, nx = options.shape
    rate = "as fast as possible"
    if options.fps:
        mb_per_s = options.mean_fps * options.frame_bytes / 1e6
        rate = f"{options.mean_fps:g} Hz, {mb_per_s:.1f} MB/s"
    slots = f"ring of {ring} frames" if ring else "no ring"
    focus = f", focus in the FPS {fps_name(options.stream)}" if options.focus else ""
    return f"{options.stream}: {ny} x {nx} {options.dtype}, {rate}, {slots}{focus}, {path}"


def _end_line(summary: framesim.RunSummary) -> str:
    return (
        f"{summary.stream}: {summary.frames} frames in {summary.seconds:.3f} s, "
        f"{summary.rate_hz:.3f} Hz, {summary.mb_per_s:.1f} MB/s, "
        f"latest frame {summary.max_late_us:.0f} us late"
    )


def _refuse_running_camera(stream: str) -> None:
    """UserError when a living process writes a stream of this name: perhaps a real camera."""
    from vampires.stream import Stream, StreamError

    try:
        with Stream.open(stream) as running:
            pid = running.metadata["creator_pid"]
    except StreamError:
        return
    if pid != os.getpid() and os.path.exists(f"/proc/{pid}"):
        raise UserError(
            f"stream {stream} is there, made by process {pid}, which is running; "
            "choose another name, or give --replace to take its place"
        )


def _open(options: framesim.CameraOptions, ring: int) -> tuple[framesim.SimulatedCamera, Any]:
    """The camera and its stream. UserError where the options or the stream folder are wrong."""
    from vampires.stream import StreamError

    try:
        camera = framesim.SimulatedCamera(options)
        return camera, framesim.create_stream(options, ring)
    except (StreamError, ValueError, OSError, MemoryError) as error:
        raise UserError(str(error)) from error


def _follow_focus(
    camera: framesim.SimulatedCamera,
) -> contextlib.AbstractContextManager[Any]:
    """What moves the focus of the camera while it runs; nothing without one. UserError."""
    options = camera.options
    if options.focus is None:
        return contextlib.nullcontext()

    def say(line: str) -> None:
        print(f"{PROG}: {line}", file=sys.stderr, flush=True)

    try:
        return FocusStage(options.stream, options.sky, options.focus, camera.show, say)
    except (FPSError, OSError) as error:
        raise UserError(str(error)) from error


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code: 0, or 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)
    options = _options(arguments)
    if not arguments.replace:
        _refuse_running_camera(arguments.stream)
    with setup_signals() as stop:
        camera, stream = _open(options, arguments.ring)
        try:
            with _follow_focus(camera):
                line = _start_line(options, arguments.ring, stream.path)
                print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)
                summary = camera.run(
                    stream,
                    stop,
                    frames=arguments.frames,
                    seconds=arguments.seconds,
                )
        finally:
            if not arguments.keep:
                stream.remove()
            stream.close()
    print(json.dumps(asdict(summary)) if arguments.json else _end_line(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
