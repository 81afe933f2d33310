"""vampires_startlog: both cameras begin to save with the same frame."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from vampires.camera_agreement import (
    CameraSetup,
    Difference,
    camera_setup,
    differences,
    setup_in,
)
from vampires.commands.cameras import (
    Answer,
    Job,
    chosen_cameras,
    exit_status,
    gather,
    machines,
    observer_command,
    observer_parser,
    report,
    run_on_machines,
    tell_error,
)
from vampires.commands.common import number_in
from vampires.commands.common_instant import add_at_option, at_arguments, decide_instant
from vampires.commands.cube_options import add_cube_options, cube_plan
from vampires.commands.logstatus import status_job

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

PROG = "vampires_startlog"
EXIT_APART = 4
EXIT_DIFFER = 5

DESCRIPTION = """\
Starts saving the frames of the cameras, both with the same frame: the first one that is taken
at or after a common instant, a tenth of a second ahead. The loggers must be prepared
(vampires_preplog). Nothing is started when data type, kind of crop or external trigger of
vcam1 and vcam2 differ.

exit status: 0 saving, or waiting for frames; 1 a camera did not start, standard error says why
(the others run); 2 wrong usage or configuration; 4 the cameras run at the same rate, but did
not begin with the same frame; 5 data type, crop or trigger differ, nothing was started."""

EXAMPLE = f"""\
  {PROG}                     both cameras, as prepared
  {PROG} -n 500 -z 10        10 cubes of 500 frames each
  {PROG} -c 1 --pre 0.5      vcam1, with the half second before, out of the ring
  {PROG} --force             both, though their crops differ"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    add_cube_options(parser, "as prepared")
    add = parser.add_argument
    add(
        "--pre",
        type=number_in(float, 0),
        default=0.0,
        metavar="SECONDS",
        help="save also the frames of so long before, as far as the ring of the stream reaches",
    )
    add(
        "--force",
        action="store_true",
        help="start cameras whose data type, crop or trigger differ",
    )
    add_at_option(parser)
    return parser


@observer_command(PROG, "loggers may have started; see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    typed_ns = time.time_ns()
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.camera)
    statuses = None
    if not args.local and not args.force and len(machines(config, cameras)) > 1:
        statuses = gather(status_job(), config, cameras)
        refused = _refusal(cameras, [setup_in(status) for status in statuses])
        if refused:
            return report(_job(args, typed_ns), args, refused)
        args.force = True  # no machine can compare more than this one did
    decide_instant(args, config, cameras, round(args.pre * 1e9), statuses)
    return run_on_machines(_job(args, typed_ns), args, config, cameras)


def _job(args: argparse.Namespace, typed_ns: int) -> Job:
    return Job(
        PROG,
        _handed_on(args),
        act=lambda config, cameras: _start(config, cameras, args, typed_ns),
        tell=lambda answers: _tell(answers, args),
        status=_status,
        compares=True,
    )


def _handed_on(args: argparse.Namespace) -> list[str]:
    arguments = at_arguments(args)
    given = (("--frames", args.frames), ("--cubes", args.cubes), ("--pre", args.pre or None))
    for option, value in given:
        if value is not None:
            arguments += [option, str(value)]
    return [*arguments, *(["--force"] if args.force else [])]


def _refusal(cameras: Sequence[CameraConfig], setups: Sequence[CameraSetup]) -> list[Answer]:
    """The answers of cameras that are not started, since those with a number differ; none
    where they do not. "differs" names in what."""
    numbered = {camera.name for camera in cameras if camera.number is not None}
    compared = [setup for setup in setups if setup.camera in numbered]
    found = differences(compared)
    if not found:
        return []
    error = f"not started: the cameras differ in {', '.join(each.key for each in found)}"
    answers: dict[str, Answer] = {
        camera.name: {"camera": camera.name, "error": error, "differs": []}
        for camera in cameras
    }
    for setup in compared:
        differs = [each.key for each in found if setup.camera in each.found]
        answers[setup.camera] |= {**setup.as_dict(), "differs": differs}
    return list(answers.values())


def _start(
    config: Config, cameras: Sequence[CameraConfig], args: argparse.Namespace, typed_ns: int
) -> list[Answer]:
    from vampires import logger_control as loggers

    if not args.force and len(cameras) > 1:
        setups = [camera_setup(camera.name, camera.number) for camera in cameras]
        refused = _refusal(cameras, setups)
        if refused:
            return refused
    ends = {camera.name: _last_saved(camera.name) for camera in cameras} if args.pre else {}
    outcomes = loggers.start(
        [camera.name for camera in cameras],
        at_ns=args.at,
        before_s=args.pre,
        asked_ns=typed_ns,
        cube_size=args.frames,
        cubes=args.cubes,
        lead_s=config.logging.start_lead_s,
    )
    answers = []
    for outcome in outcomes:
        state = outcome.state
        answer: Answer = {"camera": outcome.stream, "error": outcome.error, "differs": []}
        answer |= {"state": state.state, "ours": state.ours, "rate_hz": state.rate_hz}
        answer |= {"first_cnt0": state.first_cnt0, "first_ns": state.first_ns}
        answer |= {"frames": state.cube_size, "cubes": state.cubes}
        if args.pre:
            answer["asked_before_s"] = args.pre
            answer["before_s"] = max(0.0, (typed_ns - state.first_ns) / 1e9)
            answer["follows_last_file"] = state.first_cnt0 == ends[outcome.stream] + 1
        answers.append(answer)
    return answers


def _last_saved(stream: str) -> int:
    """Number of the last frame that is in a file; -1 where there is none."""
    from vampires import logger_control as loggers
    from vampires.fps import FPSError

    try:
        state = loggers.look(stream)
    except FPSError:
        return -1
    return state.end_cnt0 if state.files else -1


def _status(answers: Sequence[Answer]) -> int:
    if any(answer.get("differs") for answer in answers):
        return EXIT_DIFFER
    return exit_status(answers) or (EXIT_APART if _apart(answers) else 0)


# -- what is said -----------------------------------------------------------------------------


def _tell(answers: Sequence[Answer], args: argparse.Namespace) -> None:
    compared = [setup_in(answer) for answer in answers if answer.get("differs")]
    if compared:
        for difference in differences(compared):
            print(f"{PROG}: {_difference_line(difference)}", file=sys.stderr)
        return
    started = [answer for answer in answers if not answer["error"]]
    for answer in answers:
        if answer["error"]:
            tell_error(PROG, answer)
        else:
            print(f"{answer['camera']}: {_beginning(answer)}", flush=True)
    if args.frames is not None or args.cubes is not None:
        for plan in dict.fromkeys(cube_plan(a["frames"], a["cubes"]) for a in started):
            print(plan, flush=True)
    for line in [*_apart(answers), *_numbered_differently(answers)]:
        print(f"{PROG}: {line}", file=sys.stderr)


def _difference_line(difference: Difference) -> str:
    found = ", ".join(f"{camera} {value}" for camera, value in difference.found.items())
    return (
        f"not started, {difference.key} differs: {found}; type {difference.remedy}, or "
        f"{PROG} --force"
    )


def _beginning(answer: Answer) -> str:
    from vampires.times import iso_utc

    if not answer["ours"]:
        return "saving, by a logger of another program"
    if not answer["first_cnt0"]:
        return "armed, waiting for frames"
    when = iso_utc(answer["first_ns"]).replace("T", " ")
    return f"saving since frame {answer['first_cnt0']}, {when} UTC{_before(answer)}"


def _before(answer: Answer) -> str:
    if "before_s" not in answer:
        return ""
    asked, found = answer["asked_before_s"], answer["before_s"]
    text = f", {found:.3f} s before the command"
    if found < asked - 1.5 / max(answer["rate_hz"], 1.0):
        why = "the ring of the stream reaches no further"
        if answer["follows_last_file"]:
            why = "the frames before are in the last file"
        text += f" (not {asked:g} s: {why})"
    return text


def _together(answers: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Pairs of cameras that began and have the same rate: triggered together, it seems."""
    from vampires.logger_control import SAME_RATE

    began = [a for a in answers if not a["error"] and a["first_cnt0"] and a["rate_hz"] > 0]
    return [
        (a, b)
        for a, b in combinations(began, 2)
        if abs(a["rate_hz"] / b["rate_hz"] - 1) < SAME_RATE
    ]


def _apart(answers: Sequence[Answer]) -> list[str]:
    """Cameras that began with frames of different times."""
    found = []
    for a, b in _together(answers):
        apart_s = abs(a["first_ns"] - b["first_ns"]) / 1e9
        if apart_s > 0.5 / a["rate_hz"]:
            found.append(
                f"{a['camera']} and {b['camera']} did not begin with the same frame: their "
                f"first frames are {apart_s * 1e3:.3f} ms apart; pause and start again"
            )
    return found


def _numbered_differently(answers: Sequence[Answer]) -> list[str]:
    """Cameras whose frames of the same time have different numbers."""
    return [
        f"{a['camera']} and {b['camera']} began at the same time, with frame numbers that "
        f"differ by {abs(a['first_cnt0'] - b['first_cnt0'])}; pair their frames by time"
        for a, b in _together(answers)
        if a["first_cnt0"] != b["first_cnt0"] and not _apart([a, b])
    ]


if __name__ == "__main__":
    sys.exit(main())
