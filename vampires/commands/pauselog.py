"""vampires_pauselog: both cameras end with the same frame, and the files are complete."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vampires.commands.cameras import (
    EXIT_LOST,
    Answer,
    Job,
    chosen_cameras,
    exit_status,
    observer_command,
    observer_parser,
    run_on_machines,
    tell_error,
)
from vampires.commands.common_instant import add_at_option, at_arguments, decide_instant

if TYPE_CHECKING:
    from vampires.config_models import Config
    from vampires.logger_control import LoggerState

PROG = "vampires_pauselog"
QUIET_S = 2.0  # without progress
PROGRESS_S = 1.0
LISTED_FILES = 10

DESCRIPTION = """\
Ends saving, in all cameras with the last frame before a common instant, and returns when the
files have their final names. The cubes under way are cut short, or with --wait filled first.
The loggers go on running; vampires_startlog saves again.

exit status: 0 saving has ended, also where there was none; 1 it has not for a camera, standard
error says why; 2 wrong usage or configuration; 3 frames were lost in what was saved."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --wait
  {PROG} -c 2 --json"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument("--wait", action="store_true", help="fill the cubes under way first")
    add_at_option(parser)
    return parser


@observer_command(PROG, "the loggers end their cubes all the same; see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.camera)
    decide_instant(args, config, cameras)
    job = Job(
        PROG,
        [*at_arguments(args), *(["--wait"] if args.wait else [])],
        act=lambda config, cameras: pause_all(
            config, [camera.name for camera in cameras], args.at, whole_cube=args.wait
        ),
        tell=_tell,
        status=loss_status,
    )
    return run_on_machines(job, args, config, cameras)


def pause_all(
    config: Config, streams: Sequence[str], at_ns: int | None, *, whole_cube: bool
) -> list[Answer]:
    """Pauses those that are saving; the others are left as they are."""
    from vampires import logger_control as loggers
    from vampires.fps import FPSError

    answers: dict[str, Answer] = {}
    for stream in streams:
        try:
            state = loggers.look(stream)
        except FPSError as error:
            answers[stream] = {"camera": stream, "error": str(error)}
            continue
        if state.running and not state.saving and not state.pending:
            answers[stream] = ended_answer(state) | {"was_saving": False}
    asked = [stream for stream in streams if stream not in answers]
    progress = Progress()
    outcomes = loggers.pause(
        asked,
        whole_cube=whole_cube,
        at_ns=at_ns,
        lead_s=config.logging.start_lead_s,
        progress=progress,
    )
    progress.clear()
    for outcome in outcomes:
        answer = ended_answer(outcome.state) | {"was_saving": True}
        answers[outcome.stream] = answer | {"error": outcome.error}
    return [answers[stream] for stream in streams]


def ended_answer(state: LoggerState) -> Answer:
    """What a logger saved last."""
    return {
        "camera": state.stream,
        "error": "",
        "state": state.state,
        "frames": state.frames,
        "lost": state.lost,
        "torn": state.torn,
        "first_cnt0": state.first_cnt0,
        "end_cnt0": state.end_cnt0,
        "n_files": state.files,
        "files": session_files(state),
    }


def session_files(state: LoggerState) -> list[str]:
    """The files of the present or last saving, in order of their making.

    Those in the folder of the last one; a saving that went on over midnight, or was given
    another directory on its way, has more (state.files tells how many).
    """
    if not state.files or not state.last_file:
        return []
    last = _with_folder(state)
    try:
        found = [
            (entry.stat().st_mtime_ns, entry.name)
            for entry in last.parent.glob(f"{state.stream}_*.fits")
        ]
    except OSError:
        return [state.last_file]
    names = [name for _, name in sorted(found)]
    if last.name in names:
        names = names[: names.index(last.name) + 1]
    return [str(last.parent / name) for name in names[-state.files :]]


def _with_folder(state: LoggerState) -> Path:
    """The last file; its folder was too long for the FPS, where it has none."""
    from vampires.times import day_folder

    last = Path(state.last_file)
    folders = [Path(state.directory)]
    for time_ns in (state.newest_ns, state.first_ns):
        folders.append(folders[0] / day_folder(time_ns) / state.stream)
    found = (folder / last for folder in folders if (folder / last).exists())
    return next(found, last)


class Progress:
    """Says on stderr how far the loggers are, once it takes long; a line that is written over
    on a terminal."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._dirty = False

    def __call__(self, states: Sequence[LoggerState]) -> None:
        now = time.monotonic()
        if now - self._began < QUIET_S or now - self._shown < PROGRESS_S:
            return
        self._shown = now
        line = "; ".join(_how_far(state) for state in states)
        self._dirty = self._terminal
        end, begin = ("", "\r\x1b[K") if self._terminal else ("\n", "")
        print(begin + line, end=end, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipes the line away."""
        if self._dirty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _how_far(state: LoggerState) -> str:
    text = f"{state.stream} {state.state}"
    if state.saving and state.cube_frames:
        text += f" {state.cube_frames}/{state.cube_size}"
    if state.pending:
        text += f", {state.pending} cubes to write"
    return text


def loss_status(answers: Sequence[Answer]) -> int:
    """As exit_status, and 3 when frames were lost."""
    lost = any(answer.get("lost") and answer.get("was_saving") for answer in answers)
    return exit_status(answers) or (EXIT_LOST if lost else 0)


# -- what is said -----------------------------------------------------------------------------


def _tell(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer["error"]:
            tell_error(PROG, answer)
        elif not answer["was_saving"]:
            print(f"{answer['camera']}: was not being saved{_saved_before(answer)}")
        else:
            tell_saved(answer)


def _saved_before(answer: Answer) -> str:
    return f"; before: {_summary(answer)}" if answer["n_files"] else ""


def _summary(answer: Answer) -> str:
    frames, lost, torn = answer["frames"], answer["lost"], answer["torn"]
    text = _count(frames, "frame")
    if frames and answer["end_cnt0"]:
        text += f" ({answer['first_cnt0']} to {answer['end_cnt0']})"
    text += f", {lost} lost"
    if torn:
        text += f" ({torn} of them torn)"
    return f"{text}, {_count(answer['n_files'], 'file')}"


def tell_saved(answer: Answer) -> None:
    """The frames that were saved, and the files they are in."""
    print(f"{answer['camera']}: {_summary(answer)}")
    files = answer["files"]
    if len(files) > LISTED_FILES:
        files = [*files[:2], f"... {len(files) - 4} more", *files[-2:]]
    for file in files:
        print(f"  {file}", flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
