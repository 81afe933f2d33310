"""vampires_logstatus: what the loggers do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vampires.commands.cameras import (
    EXIT_FAILED,
    EXIT_LOST,
    Answer,
    Job,
    chosen_cameras,
    observer_command,
    observer_parser,
    run_on_machines,
)

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig

PROG = "vampires_logstatus"
READY = ("idle", "armed", "logging", "ending", "writing", "no stream", "starting")

DESCRIPTION = """\
Shows for each camera: state, frame rate measured and nominal (keyword FRATE), frames logged,
lost and torn since saving began, progress of the cube, memory in use, the newest file, room on
the disk and when it is full at the present rates of all cameras that write to it.

exit status: 0 all loggers run, no frames lost; 1 one is not prepared, stopped or dead; 2 wrong
usage or configuration; 3 frames were lost."""

EXAMPLE = f"""\
  {PROG}
  {PROG} --watch             until Ctrl-C
  {PROG} -c 1 --json"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="go on until Ctrl-C; with --json an object a line",
    )
    return parser


@observer_command(PROG, "the loggers go on")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.camera)
    if args.watch:
        from vampires.commands.watch_status import watch

        return watch(config, cameras, args)
    return run_on_machines(status_job(), args, config, cameras)


def status_job() -> Job:
    """Looks at the loggers, on whichever machines."""
    return Job(
        PROG,
        [],
        act=lambda config, cameras: look_at(cameras),
        tell=_tell,
        status=status_of,
        compares=True,
    )


def _tell(answers: Sequence[Answer]) -> None:
    from vampires.commands.status_table import table

    for line in table(answers, colour=sys.stdout.isatty()):
        print(line)


def status_of(answers: Sequence[Answer]) -> int:
    """The exit status: the worst that is seen."""
    if any(answer["error"] or answer["state"] not in READY for answer in answers):
        return EXIT_FAILED
    return EXIT_LOST if any(answer["lost"] for answer in answers) else 0


# -- looking ----------------------------------------------------------------------------------


def look_at(cameras: Sequence[CameraConfig]) -> list[Answer]:
    """The loggers of cameras of this machine, as they are now."""
    from vampires import logger_control as loggers
    from vampires.camera_agreement import camera_setup
    from vampires.fps import FPSError
    from vampires.stream_facts import nominal_rate

    answers: list[Answer] = []
    for camera in cameras:
        try:
            state = loggers.look(camera.name)
        except FPSError as error:
            answers.append({"camera": camera.name, "error": str(error)})
            continue
        answer: Answer = {"camera": camera.name, "error": ""} | state.as_dict()
        answer |= {"running": state.running, "nominal_hz": nominal_rate(camera.name)}
        answer |= camera_setup(camera.name, camera.number).as_dict()
        answers.append(answer)
    _share_disks(answers)
    return answers


def _share_disks(answers: Sequence[Answer]) -> None:
    """Adds "full_in_s" and "room_level": when a disk is full at the rates of all cameras that
    write to it, and how urgent that is."""
    from vampires.disk_room import RoomLevel, mount_of, mount_points, room_level

    mounts = mount_points()
    speeds: dict[str, float] = {}
    for answer in answers:
        if answer.get("running"):
            answer["mount"] = mount_of(answer["directory_in_use"], mounts)
            speed = answer["rate_hz"] * answer["frame_bytes"]
            speeds[answer["mount"]] = speeds.get(answer["mount"], 0.0) + speed
    for answer in answers:
        speed = speeds.get(answer.get("mount", ""), 0.0)
        free = answer.get("disk_free_bytes", 0.0)
        answer["full_in_s"] = round(free / speed, 1) if speed > 0 and free > 0 else None
        if free > 0 and answer.get("room_level") != RoomLevel.FULL.value:
            answer["room_level"] = room_level(free, speed).value


if __name__ == "__main__":
    sys.exit(main())
