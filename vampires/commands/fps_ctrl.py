"""milk-fpsCTRL: a screen that shows and controls FPS; command lines from a FIFO."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.common import (
    CommandParser,
    StopEvent,
    UserError,
    setup_signals,
    user_errors,
)
from vampires.fps import fps_directory
from vampires.fpsctrl.filter import MATCH_LIST, FPSFilter, read_match_list

if TYPE_CHECKING:
    from vampires.fpsctrl.command_lines import Outcome
    from vampires.fpsctrl.fifo import Fifo
    from vampires.fpsctrl.screen import FPSScreen

PROG = "milk-fpsCTRL"
DEFAULT_FIFO = "milkCLIfifo.fpsCTRL"

DESCRIPTION = """\
Shows the function parameter structures (FPS) of this machine, and controls their processes.

Each line has three numbers, the processes tmux, conf and run: green when they run, gray when
not, red when they should and do not. Arrows move, the right arrow enters an FPS, space
switches saveON, SHIFT+R starts run, CTRL+R stops it, h explains the rest, q leaves.

Only those are shown whose name contains $FPS_FILTSTRING_NAME; also $FPS_FILTSTRING_KEYWORD
(in the keyword array), $FPS_FILTSTRING_CALLFUNC (in the name of the function).

With -f, command lines are taken from a FIFO, one a line, in order: setval K V, getval K,
fwrval K FILE (K: fps.parameter), confstart, confstop, confupdate, confwupdate, runstart,
runstop, runwait, tmuxstart, tmuxstop, fpsrm (each with an FPS), exec FILE, rescan, exit."""

EXAMPLE = f"""\
  FPS_FILTSTRING_NAME="streamFITSlog-vcam" {PROG}
  {PROG} -s -f /tmp/fps.fifo &
  echo "setval streamFITSlog-vcam1.saveON ON" > /tmp/fps.fifo"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("-s", dest="screen", action="store_false", help="no screen, needs -f")
    add(
        "-m",
        dest="match",
        action="store_true",
        help=f"show only FPS that match a first word (a pattern) in ./{MATCH_LIST}",
    )
    add(
        "-f",
        dest="fifo",
        metavar="FIFO",
        nargs="?",
        const="",
        help="take command lines from this FIFO, made if missing; "
        f"without a name <stream folder>/{DEFAULT_FIFO}.<terminal>",
    )
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    shm_dir = fps_directory()
    if not shm_dir.is_dir():
        raise UserError(f"there is no folder {shm_dir}; set MILK_SHM_DIR to the streams' one")
    fps_filter = _filter(args.match)
    path = None if args.fifo is None else _fifo_path(args.fifo, shm_dir)
    if args.screen:
        return _with_screen(shm_dir, fps_filter, path)
    if path is None:
        raise UserError("-s shows no screen, so it needs -f FIFO to take commands from")
    return _headless(shm_dir, fps_filter, path)


def _filter(match: bool) -> FPSFilter:
    if not match:
        return FPSFilter.from_environment()
    try:
        return FPSFilter.from_environment(read_match_list())
    except OSError as error:
        raise UserError(f"-m: cannot read {MATCH_LIST}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"-m: {error}") from None


def _fifo_path(given: str, shm_dir: Path) -> Path:
    """The one given, else one of this terminal."""
    if given:
        return Path(given)
    try:
        terminal = os.ttyname(sys.stdin.fileno()).removeprefix("/dev/").replace("/", "")
    except (OSError, ValueError):
        terminal = "notty"
    return shm_dir / f"{DEFAULT_FIFO}.{terminal}"


def _opened_fifo(path: Path) -> Fifo:
    from vampires.fpsctrl.fifo import Fifo, FifoError

    try:
        return Fifo(path)
    except FifoError as error:
        raise UserError(str(error)) from None


def _serve(
    fifo: Fifo,
    shm_dir: Path,
    fps_filter: FPSFilter,
    stop: StopEvent,
    say: Callable[[Outcome], None],
) -> None:
    from vampires.fpsctrl.command_lines import FPSCommands
    from vampires.fpsctrl.fifo import serve

    serve(fifo, FPSCommands(shm_dir, fps_filter, stop, say), stop)


def _headless(shm_dir: Path, fps_filter: FPSFilter, path: Path) -> int:
    with setup_signals() as stop, _opened_fifo(path) as fifo:
        _print(f"reads command lines from {path}")
        _serve(fifo, shm_dir, fps_filter, stop, lambda outcome: _print(str(outcome)))
        _print("ended")
    return 0


def _print(text: str) -> None:
    """A line with the time. That nobody can read it any more does not end the control."""
    now = time.time()
    stamp = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}"
    try:
        print(stamp, text.encode("utf-8", "replace").decode(), flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _with_screen(shm_dir: Path, fps_filter: FPSFilter, path: Path | None) -> int:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError("the screen needs a terminal; without one use -s -f FIFO")
    from vampires.fpsctrl.screen import FPSScreen  # loading it takes a while

    screen = FPSScreen(shm_dir, fps_filter)
    if path is None:
        screen.run(mouse=False)
    else:
        with _opened_fifo(path) as fifo, StopEvent() as stop:

            def body() -> None:
                _serve(fifo, shm_dir, fps_filter, stop, screen.say_outcome)
                screen.leave()

            thread = threading.Thread(target=body, name="fifo")
            thread.start()
            try:
                screen.run(mouse=False)
            finally:
                stop.set()
                thread.join()
    _await_rest(screen)
    return screen.return_code or 0


def _await_rest(screen: FPSScreen) -> None:
    """What was begun on the screen is not left half done."""
    for work in screen.under_way():
        print(f"{PROG}: waiting for {work.what}", file=sys.stderr, flush=True)
        try:
            work.thread.join()
        except KeyboardInterrupt:
            return
        result = "done" if work.failure is None else f"failed: {work.failure}"
        print(f"{PROG}: {work.what}: {result}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
