"""vampires-logger: every frame of a stream into FITS cubes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from vampires import _core
from vampires.commands.common import (
    CommandParser,
    StopEvent,
    UserError,
    number_in,
    parse_bytes,
    setup_signals,
    user_errors,
)
from vampires.cpu_placement import parse_cpus
from vampires.disk_room import disk_room
from vampires.free_memory import available_bytes
from vampires.log_volumes import room_fault
from vampires.logger import Logger, LoggerConfig, LoggerResult
from vampires.new_cube_keywords import DEFAULT_KEYWORDS, parse_keywords
from vampires.partial_cubes import CubeInUse, PartialCube, left_behind, recovery_hint
from vampires.room_watch import RoomWatch
from vampires.stream_facts import stream_facts

PROG = "vampires-logger"
EXIT_LOST = 3
MAX_CUBE_FRAMES = 2**31 - 1  # the column FRAME has 32 bits
MAX_FRAMES = 2**63 - 1
MAX_PRIORITY = 99  # of SCHED_FIFO
DEFAULT_RING_MEMORY = "4GiB"

DESCRIPTION = """\
Logs every frame of a shared-memory stream into FITS cubes, and proves that it did: each file
has a table FRAMES with a row for every frame and the number of frames lost before it.

Files appear complete, as ROOT/YYYYMMDD/STREAM/STREAM_HH:MM:SS.nnnnnnnnn.fits with a .txt of
frame times beside it. Ctrl-C or SIGTERM ends logging after all frames are on disk; SIGUSR1
ends the current cube and begins another.

exit status: 0 no frame lost; 3 frames lost (the files say which); 2 could not start."""

EXAMPLE = f"""\
  {PROG} vcam1 --dir /mnt/fuuu/ARCHIVED_DATA --cube-size 250
  {PROG} vcam2 --dir ./data --cube-size 100 --cubes 3 --json"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("stream", metavar="STREAM", help="name of the stream, such as vcam1")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--dir", metavar="ROOT", help="files go to ROOT/YYYYMMDD/STREAM")
    place.add_argument("--exact-dir", metavar="DIR", help="files go to DIR itself")
    add(
        "--next-dir",
        action="append",
        default=[],
        metavar="ROOT",
        help="where files go when there is no room left, as --dir or --exact-dir; may be "
        "given several times",
    )
    add("--cube-size", type=number_in(int, 1), default=1000, metavar="N", help="frames a cube")
    add("--cubes", type=number_in(int, 1), metavar="N", help="end after N cubes")
    add("--frames", type=number_in(int, 1), metavar="N", help="end after N frames")
    add(
        "--ring-memory",
        type=parse_bytes,
        metavar="SIZE",
        help=f"frames wait here for the disk (default: {DEFAULT_RING_MEMORY}, "
        "less where the machine has not twice that free)",
    )
    add(
        "--timeout",
        type=number_in(float, 0),
        default=10.0,
        metavar="S",
        help="a cube ends when no frame came for S seconds; 0: never",
    )
    add(
        "--new-cube-on",
        type=_keywords,
        default=",".join(DEFAULT_KEYWORDS),
        metavar="KEYWORD[,KEYWORD]",
        help="a cube ends before the first frame with another value of one of these; 'none': "
        "it does not",
    )
    add("--rolling", action="store_true", help="a 3D stream whose cnt1 is its newest slice")
    add("--rt-priority", type=number_in(int, 0), default=0, metavar="P", help="SCHED_FIFO 1-99")
    add("--cpus", type=_cpu_list, default=(), metavar="LIST", help="CPUs to run on, as 2,4-6")
    add(
        "--progress",
        type=number_in(float, 0),
        metavar="S",
        help="seconds between lines of progress, 0: none (default: 0.5 on a terminal, else 10)",
    )
    add("--recover", action="store_true", help="first recover what an earlier logger left")
    add("--json", action="store_true", help="at the end one JSON object on standard output")
    return parser


def _cpu_list(text: str) -> tuple[int, ...]:
    try:
        return parse_cpus(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _keywords(text: str) -> tuple[str, ...]:
    try:
        return parse_keywords(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ring_memory(asked: int | None) -> int:
    available = available_bytes()
    if asked is None:
        return min(parse_bytes(DEFAULT_RING_MEMORY), available // 2)
    if asked > available:
        raise UserError(
            f"--ring-memory is {asked / 2**30:.2f} GiB, the machine has "
            f"{available / 2**30:.2f} GiB free; give less, or close other programs"
        )
    return asked


def _prepared_root(text: str) -> Path:
    """The directory, made if its parent is there, and proven to take files."""
    if not text:
        raise UserError("the directory has an empty name; give one, such as --dir ./data")
    root = Path(text)
    if not root.parent.is_dir():
        raise UserError(
            f"no directory {root.parent}; is its disk mounted? "
            f"If it is right, make it with: mkdir -p {root}"
        )
    try:
        root.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".vampires-probe-"):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {root}: {error.strerror}; choose another directory"
        ) from None
    return root


def _checked_stream(name: str, shm_dir: str, *, rolling: bool) -> None:
    try:
        file = _core.StreamFile.open(shm_dir, name)
    except _core.StreamNotFound:
        there = ", ".join(_core.list_streams(shm_dir)) or "none"
        raise UserError(
            f"no stream {name!r} in {shm_dir}; streams there: {there}. "
            "Start the camera, or set MILK_SHM_DIR"
        ) from None
    except _core.StreamError as error:
        raise UserError(str(error)) from None
    if file.dtype.kind == "c":
        raise UserError(
            f"stream {name!r} is {file.dtype}: FITS images have no complex pixels; log its "
            "real and imaginary parts as streams of their own"
        )
    if rolling and len(file.shape) != 3 and not file.temporal_ring:
        raise UserError(f"stream {name!r} has shape {file.shape}: --rolling needs a 3D stream")
    if not rolling and len(file.shape) == 3:
        raise UserError(
            f"stream {name!r} is 3D, {file.shape} [z, y, x], and no temporal ring; a cube "
            "holds 2D frames. If cnt1 is its newest slice, log it with --rolling"
        )


def _check_limits(args: argparse.Namespace) -> None:
    limits = {
        "cube_size": MAX_CUBE_FRAMES,
        "cubes": MAX_FRAMES,
        "frames": MAX_FRAMES,
        "rt_priority": MAX_PRIORITY,
    }
    for name, limit in limits.items():
        found = getattr(args, name)
        if found is not None and found > limit:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is {found}, at most {limit} is possible; give less")


def _check_room(args: argparse.Namespace, roots: Sequence[Path], shm_dir: str) -> None:
    try:
        frame_bytes = stream_facts(args.stream, shm_dir).frame_bytes
    except (_core.StreamError, OSError):
        return  # the logger says what is wrong with it
    frames = min(args.cube_size, args.frames or args.cube_size)
    fault = room_fault(roots, frame_bytes, frames)
    if fault:
        raise UserError(fault)


def _config(args: argparse.Namespace) -> LoggerConfig:
    _check_limits(args)
    shm_dir = _core.stream_directory()
    _checked_stream(args.stream, shm_dir, rolling=args.rolling)
    if not args.stream.isalnum():
        _say(
            f"the name {args.stream!r} is not letters and digits only; the archive and the "
            "reduction pipeline split file names on other characters"
        )
    roots = [_prepared_root(args.exact_dir if args.dir is None else args.dir)]
    roots += [_prepared_root(text) for text in args.next_dir]
    _check_room(args, roots, shm_dir)
    return LoggerConfig(
        stream=args.stream,
        root=roots[0],
        next_roots=tuple(roots[1:]),
        shm_dir=Path(shm_dir),
        exact_dir=args.exact_dir is not None,
        cube_size=args.cube_size,
        cubes=args.cubes,
        frames=args.frames,
        ring_memory_bytes=_ring_memory(args.ring_memory),
        timeout_s=args.timeout,
        rt_priority=args.rt_priority,
        cpus=args.cpus,
        rolling=args.rolling,
        new_cube_keywords=args.new_cube_on,
    )


def _mind_partial_cubes(config: LoggerConfig, stop: StopEvent, *, recover_now: bool) -> None:
    """Tells of cubes that an earlier logger did not finish, or makes them cubes at once."""
    for root in (config.root, *config.next_roots):
        left = left_behind(root, config.stream, exact=config.exact_dir)
        hint = recovery_hint(left, root)
        if recover_now:
            _recover(left, stop)
        elif hint:
            _say(f"{hint}; or start with --recover")


def _recover(left: Sequence[PartialCube], stop: StopEvent) -> None:
    from vampires.recovery import recover

    def end_when_stopped(done: int, total: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    for partial in left:
        try:
            _say(f"recovered {recover(partial, progress=end_when_stopped)}")
        except (CubeInUse, OSError, ValueError) as error:
            _say(f"not recovered: {partial.files[0]}: {error}")


def _print_error(text: str, end: str = "\n") -> None:
    """Text on stderr. That nobody can read it any more must not end the logging."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _silence(sys.stderr)
    except OSError:  # a full disk may take the next line
        pass


def _print_result(result: LoggerResult) -> None:
    text = json.dumps(asdict(result))
    try:
        print(text, flush=True)
    except OSError as error:
        _silence(sys.stdout)
        _say(f"cannot print the result, {error.strerror}: {text}")


def _silence(file: TextIO) -> None:
    """From now on what is written there goes nowhere, without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def _say(text: str) -> None:
    _print_error(f"{PROG}: {text}")


class _Progress:
    """One line that is written over on a terminal, a line now and then elsewhere."""

    LOSS_S = 1.0  # at most one line on losses in so long
    WAITING_S = 2.0  # without the stream before saying so
    ROOM_S = 5.0  # between two looks at the disk

    def __init__(self, logger: Logger, interval_s: float | None) -> None:
        self._logger = logger
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        usual_s = 0.5 if self._terminal else 10.0
        self._interval_s = usual_s if interval_s is None else interval_s
        self._shown_at = self._losses_at = self._attached_at = time.monotonic()
        self._before = logger.status()
        self._lost_told = 0
        self._room = RoomWatch()
        self._room_at, self._room_bytes = self._shown_at, self._before["bytes"]

    def __call__(self) -> None:
        now = time.monotonic()
        status = self._logger.status()
        self._tell_losses(status, now)
        self._tell_waiting(status, now)
        if now - self._room_at >= self.ROOM_S:
            self._tell_room(status, now)
        if self._interval_s and now - self._shown_at >= self._interval_s:
            self._show(status, now - self._shown_at)
            self._before, self._shown_at = status, now

    def _tell_losses(self, status: dict[str, Any], now: float) -> None:
        lost = status["lost"]
        if lost == self._lost_told or now - self._losses_at < self.LOSS_S:
            return
        self.clear()
        _say(f"{lost - self._lost_told} frames lost ({lost} in all)")
        self._lost_told, self._losses_at = lost, now

    def _tell_waiting(self, status: dict[str, Any], now: float) -> None:
        if status["attached"]:
            self._attached_at = now
        elif self.WAITING_S < now - self._attached_at < float("inf"):
            self.clear()
            _say(f"waiting for the stream {self._logger.config.stream}")
            self._attached_at = float("-inf")  # said once, until it is there again

    def _tell_room(self, status: dict[str, Any], now: float) -> None:
        """How long the disk lasts at the present rate, when that becomes short."""
        speed = (status["bytes"] - self._room_bytes) / (now - self._room_at)
        self._room_at, self._room_bytes = now, status["bytes"]
        try:
            free = disk_room(status["root"]).free_bytes
        except OSError:
            return  # the logger says what is wrong with it
        line = self._room.line(str(status["root"]), free, speed, 0)
        if line:
            self.clear()
            _say(line)

    def _show(self, status: dict[str, Any], seconds: float) -> None:
        rate = (status["frames"] - self._before["frames"]) / seconds
        speed = (status["bytes"] - self._before["bytes"]) / seconds / 1e6
        stream = self._logger.config.stream
        line = (
            f"{stream} {rate:8.1f} Hz {speed:7.1f} MB/s | {status['frames']} frames, "
            f"{status['lost']} lost, {status['torn']} torn | "
            f"cube {status['cubes']}: {status['cube_frames']}/{status['cube_planned']} | "
            f"memory {100 * status['chunks_in_use'] / status['chunks']:.0f}%"
        )
        end = "" if self._terminal else "\n"
        _print_error(("\r\x1b[K" if self._terminal else "") + line, end)

    def clear(self) -> None:
        if self._terminal:
            _print_error("\r\x1b[K", end="")


def _summary(result: LoggerResult) -> str:
    speed = result.bytes / result.seconds / 1e6 if result.seconds else 0.0
    return (
        f"{result.stream}: {result.frames_seen} frames seen, {result.frames_logged} logged, "
        f"{result.lost} lost ({result.torn} of them torn), {len(result.files)} files, "
        f"{speed:.1f} MB/s over {result.seconds:.1f} s"
    )


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    with setup_signals() as stop:
        try:
            config = _config(args)
            _mind_partial_cubes(config, stop, recover_now=args.recover)
            _say(f"taking {config.ring_memory_bytes / 2**30:.2f} GiB of ring memory")
            logger = Logger(config, _say)
        except (OSError, ValueError, _core.StreamError) as error:
            raise UserError(str(error)) from None
        signal.signal(signal.SIGUSR1, lambda number, frame: logger.next_cube())
        progress = _Progress(logger, args.progress)
        try:
            result = logger.run(stop, progress)
        except _core.StreamError as error:
            raise UserError(str(error)) from None
        finally:
            progress.clear()
    if args.json:
        _print_result(result)
    _say(_summary(result))
    return EXIT_LOST if result.lost else 0


if __name__ == "__main__":
    sys.exit(main())
