"""An instant at which cameras of several machines begin or end together."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vampires.commands.cameras import Answer, gather, machines

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

# How far ahead it lies: ssh takes its time.
LEAD_S = 2.0


def add_at_option(parser: argparse.ArgumentParser) -> None:
    """--at, by which one machine tells the others the instant."""
    parser.add_argument("--at", type=int, metavar="NS", help=argparse.SUPPRESS)


def decide_instant(
    args: argparse.Namespace,
    config: Config,
    cameras: Sequence[CameraConfig],
    before_ns: int = 0,
    statuses: Sequence[Answer] | None = None,
) -> None:
    """Sets args.at (ns UTC) where the cameras are on several machines.

    What lies before_ns before it is between frames of the cameras, as far as that is known.
    statuses: the answers of vampires_logstatus, where they are there already.
    """
    if args.local or args.at is not None or len(machines(config, cameras)) < 2:
        return
    from vampires.commands.logstatus import status_job
    from vampires.logger_control import between_frames

    if statuses is None:
        statuses = gather(status_job(), config, cameras)
    soonest_ns = time.time_ns() - before_ns
    if not before_ns:
        soonest_ns += round(LEAD_S * 1e9)
    running = [a for a in statuses if a.get("rate_hz", 0) > 0 and a.get("newest_ns", 0) > 0]
    frames = [(1e9 / a["rate_hz"], a["newest_ns"]) for a in running]
    args.at = between_frames(soonest_ns, frames) + before_ns


def at_arguments(args: argparse.Namespace) -> list[str]:
    """What hands the instant on."""
    return [] if args.at is None else ["--at", str(args.at)]
