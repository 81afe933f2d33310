"""vampires-recover: what a crash left of a cube becomes a cube."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vampires.commands.common import (
    INTERRUPTED_EXIT,
    CommandParser,
    StopEvent,
    UserError,
    setup_signals,
    user_errors,
)

if TYPE_CHECKING:
    import argparse

    from vampires.partial_cubes import PartialCube
    from vampires.recovery import Plan

PROG = "vampires-recover"
EXIT_LEFT = 1
SHOWN_BYTES = 64 << 20  # between two lines of progress

DESCRIPTION = """\
Makes cubes of the hidden partial cubes that a crash, a kill or a power cut left in the folders
given and all folders below: with every frame that reached the disk, its times, its table, its
sidecar, and a header that says so (keyword RECOVERD, HISTORY).

Without --apply it only says what it would do. Nothing is overwritten: where the name of a cube
is taken, it gets the name a nanosecond later. Cubes that a logger is writing are left alone.
The command may be ended at any moment and run again.

exit status: 0 nothing is left to recover; 1 partial cubes are left (standard output says which
and why; without --apply: there are some); 2 wrong usage."""

EXAMPLE = f"""\
  {PROG} /mnt/fuuu/ARCHIVED_DATA             what would be done
  {PROG} --apply /mnt/fuuu/ARCHIVED_DATA     do it"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("folders", metavar="DIR", nargs="+", help="where to look, with all folders below")
    add("--apply", action="store_true", help="do it, rather than say what would be done")
    add(
        "--without-times",
        action="store_true",
        help="also frames whose rows did not reach the disk (the last few after a kill, more "
        "after a power cut): their times are unknown, their counters counted on",
    )
    add(
        "--remove-empty",
        action="store_true",
        help="with --apply, remove partial cubes that hold no frame",
    )
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    partials = _found(args.folders)
    with setup_signals() as stop:
        answers = []
        try:
            for partial in partials:
                answers.append(_treated(partial, args, stop))
                if not args.json:
                    _tell(_line(answers[-1]))
        except KeyboardInterrupt:
            return INTERRUPTED_EXIT
    if args.json:
        _tell(json.dumps({"partial_cubes": answers}))
    else:
        _print_summary(answers, args)
    return EXIT_LEFT if any(answer["left"] for answer in answers) else 0


def _found(folders: Sequence[str]) -> list[PartialCube]:
    from vampires.partial_cubes import partial_cubes

    found: dict[tuple[str, str], PartialCube] = {}
    for folder in folders:
        try:
            for partial in partial_cubes(folder, recursive=True, on_error=_cannot_look):
                found[os.path.realpath(partial.folder), partial.files[0].name] = partial
        except OSError as error:
            raise UserError(
                f"cannot look into {_shown(folder)}: {error.strerror}; give a folder of cubes"
            ) from None
    return list(found.values())


def _cannot_look(error: OSError) -> None:
    _say(f"cannot look into {_shown(error.filename)}: {error.strerror}")


# -- one partial cube -------------------------------------------------------------------------


def _treated(partial: PartialCube, args: argparse.Namespace, stop: StopEvent) -> dict[str, Any]:
    """What was done about it, or would be."""
    from vampires.recovery import plan_recovery

    plan = plan_recovery(partial, without_times=args.without_times)
    answer: dict[str, Any] = {
        "folder": os.fspath(partial.folder),
        "files": [path.name for path in partial.files],
        "stream": partial.stream,
        "first_ns": partial.first_ns,
        "pid": partial.pid,
        "action": plan.action,
        "frames": plan.frames,
        "bytes": plan.bytes,
        **asdict(plan.gaps),
        "reason": plan.reason,
        "done": False,
        "left": plan.action != "writing",
        "file": None,
    }
    if args.apply:
        _carry_out(plan, answer, args, stop)
    return answer


def _carry_out(
    plan: Plan, answer: dict[str, Any], args: argparse.Namespace, stop: StopEvent
) -> None:
    from vampires.partial_cubes import CubeInUse
    from vampires.recovery import recover, remove

    if stop.is_set():
        raise KeyboardInterrupt
    try:
        if plan.action == "recover":
            with _Progress(plan, stop) as progress:
                file = recover(
                    plan.partial, without_times=args.without_times, progress=progress
                )
            answer["file"] = os.fspath(file)
        elif plan.action == "leftover" or (plan.action == "empty" and args.remove_empty):
            remove(plan)
        else:
            return
        answer |= {"done": True, "left": False}
    except CubeInUse:
        answer |= {"action": "writing", "left": False}
    except OSError as error:
        reason = f"{error.strerror or error}; its frames are where they were"
        answer |= {"action": "failed", "reason": reason}
    except ValueError as error:
        answer |= {"action": "failed", "reason": str(error)}


class _Progress:
    """A line on a terminal while the pixels are summed; ends the work when told to stop."""

    def __init__(self, plan: Plan, stop: StopEvent) -> None:
        self._name = plan.partial.files[0].name
        self._stop = stop
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown_at = 0

    def __enter__(self) -> Callable[[int, int], None]:
        return self._show

    def _show(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        if self._terminal and done - self._shown_at >= SHOWN_BYTES:
            self._shown_at = done
            text = f"\r\x1b[K{_shown(self._name)} {100 * done // total} %"
            print(text, end="", file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        if self._shown_at:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# -- what is said -----------------------------------------------------------------------------


def _line(answer: dict[str, Any]) -> str:
    """One line for people."""
    name = _shown(os.path.join(answer["folder"], answer["files"][0]))
    frames = f"{answer['frames']} frames, {answer['bytes'] / 1e6:.1f} MB{_gaps(answer)}"
    if answer["done"]:
        if answer["file"]:
            return f"recovered {_shown(answer['file'])}: {frames}"
        return f"removed {name}: {_why_removed(answer)}"
    texts = {
        "recover": f"can be recovered: {name}: {frames}",
        "untimed": f"left alone: {name}: {frames}; to recover it, add --without-times",
        "empty": f"left alone: {name}: it holds no frame; to remove it, add --remove-empty",
        "leftover": f"can be removed: {name}: {_why_removed(answer)}",
        "writing": f"left alone: {name}: its logger is writing it",
        "failed": f"not recovered: {name}: {_shown(answer['reason'])}",
        "damaged": f"left alone: {name}: {_shown(answer['reason'])}",
    }
    return texts[answer["action"]]


def _gaps(answer: dict[str, Any]) -> str:
    texts = {
        "rows_left_out": "rows of frames that are not whole",
        "cut": "left out for want of a row (--without-times keeps them)",
        "untimed": "without times",
    }
    return "".join(f", {answer[key]} {text}" for key, text in texts.items() if answer[key])


def _why_removed(answer: dict[str, Any]) -> str:
    if answer["action"] == "empty":
        return "it held no frame"
    return f"its frames are in {_shown(os.path.basename(answer['reason']))}"


def _print_summary(answers: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    if not answers:
        _tell(f"no partial cubes in {', '.join(map(_shown, args.folders))}")
        return
    ready = [a for a in answers if a["left"] and a["action"] in ("recover", "leftover")]
    if ready and not args.apply:
        _tell("nothing was done; to do it, type the same with --apply")


def _shown(text: str) -> str:
    from vampires.terminal_text import safe_text

    return safe_text(text)


def _tell(text: str) -> None:
    """A line on standard output. That nobody reads it must not end the work."""
    try:
        print(text, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _say(text: str) -> None:
    print(f"{PROG}: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
