"""What the observer's commands share: which cameras, on which machines, and how it is told.

A command does its work for the cameras of one machine and gives an answer for each. For cameras
of other machines the same command runs there, with --local.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vampires.commands.common import CommandParser, Main, UserError, user_errors

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config, HostConfig
    from vampires.ssh_command import SshCommand

EXIT_FAILED = 1
EXIT_LOST = 3
EXIT_INTERRUPTED = 130

Answer = dict[str, Any]
"""Of one camera, for JSON: "camera", "error" (empty: it did as asked), and facts."""


@dataclass(frozen=True)
class Job:
    """What a command does. act: with the cameras of this machine. tell: prints the answers of
    all. arguments: for the command on another machine, beyond the cameras. compares: tell has
    to see the answers of all machines together."""

    prog: str
    arguments: Sequence[str]
    act: Callable[[Config, Sequence[CameraConfig]], list[Answer]]
    tell: Callable[[Sequence[Answer]], None]
    status: Callable[[Sequence[Answer]], int]
    compares: bool = False


def exit_status(answers: Iterable[Answer]) -> int:
    """0, or 1 when a camera did not do as asked."""
    return EXIT_FAILED if any(answer["error"] for answer in answers) else 0


def observer_command(prog: str, interrupted: str) -> Callable[[Main], Main]:
    """Decorates a main(argv): mistakes of the user are one line and exit status 2, Ctrl-C says
    what that left behind and is 130."""

    def decorate(body: Main) -> Main:
        @functools.wraps(body)
        def main(argv: Sequence[str] | None = None) -> int:
            try:
                return body(argv)
            except KeyboardInterrupt:
                print(f"{prog}: interrupted; {interrupted}", file=sys.stderr)
                return EXIT_INTERRUPTED

        return user_errors(prog)(main)

    return decorate


def observer_parser(prog: str, description: str, example: str) -> CommandParser:
    """A parser with the options of all of these commands."""
    parser = CommandParser(prog, description, example)
    parser.add_argument(
        "-c",
        "--camera",
        action="append",
        metavar="CAMERA",
        help="number or name, such as 1 or 1,2 or vcam1 (default: all that are logged)",
    )
    parser.add_argument(
        "--local",
        action="store_true",
        help="act on this machine, wherever the cameras are by the configuration",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output"
    )
    return parser


def chosen_cameras(config: Config, given: Sequence[str] | None) -> list[CameraConfig]:
    """The cameras that -c names, each once, or all that are logged. UserError for others."""
    if not given:
        return config.logged_cameras()
    words = [word.strip() for text in given for word in text.split(",")]
    known = {camera.name: camera for camera in config.cameras.values()}
    known |= {str(c.number): c for c in config.cameras.values() if c.number is not None}
    for word in words:
        if word not in known:
            there = ", ".join(
                f"{c.number} ({c.name})" if c.number is not None else c.name
                for c in config.cameras.values()
            )
            raise UserError(f"no camera {word!r}; cameras there: {there}")
    return list({known[word].name: known[word] for word in words}.values())


def run_on_machines(
    job: Job,
    args: argparse.Namespace,
    config: Config,
    cameras: Sequence[CameraConfig],
    *,
    interactive: bool = False,
) -> int:
    """Does the job for these cameras."""

    def here(cameras: Sequence[CameraConfig]) -> int:
        return report(job, args, job.act(config, cameras))

    if args.local:
        return here(cameras)
    if len(machines(config, cameras)) > 1 and (args.json or job.compares):
        return report(job, args, gather(job, config, cameras))
    from vampires.hosts import on_camera_hosts

    arguments = [*job.arguments, *(["--json"] if args.json else [])]
    return on_camera_hosts(config, cameras, job.prog, arguments, here, interactive=interactive)


def report(job: Job, args: argparse.Namespace, answers: list[Answer]) -> int:
    """Prints the answers, as JSON or for people; returns the exit status."""
    if args.json:
        print(json.dumps({"cameras": answers}), flush=True)
    else:
        job.tell(answers)
    return job.status(answers)


def tell_error(prog: str, answer: Answer) -> None:
    """One line on stderr: the camera, and why it did not do as asked."""
    text = str(answer["error"])
    camera = str(answer["camera"])
    where = "" if camera in text else f"{camera}: "
    print(f"{prog}: {where}{text}", file=sys.stderr, flush=True)


# -- several machines -------------------------------------------------------------------------


def machines(
    config: Config, cameras: Iterable[CameraConfig]
) -> list[tuple[HostConfig | None, list[CameraConfig]]]:
    """The cameras of each machine; None is this one."""
    found: dict[str | None, list[CameraConfig]] = {}
    for camera in cameras:
        local = config.host_of(camera).is_local()
        found.setdefault(None if local else camera.host, []).append(camera)
    return [
        (None if name is None else config.hosts[name], theirs) for name, theirs in found.items()
    ]


def remote_arguments(job: Job, cameras: Iterable[CameraConfig]) -> list[str]:
    """Those of a command on another machine whose output is JSON."""
    chosen = [word for camera in cameras for word in ("-c", camera.name)]
    return ["--local", "--json", *chosen, *job.arguments]


def gather(job: Job, config: Config, cameras: Sequence[CameraConfig]) -> list[Answer]:
    """Does the job on several machines at once; returns the answers of all, in the order of
    the cameras. A machine that cannot be reached is an error of its cameras."""
    from vampires.ssh_command import HostUnreachable, SshCommand

    answers: list[Answer] = []
    local: list[CameraConfig] = []
    with ExitStack() as stack:
        remote = []
        for host, theirs in machines(config, cameras):
            if host is None:
                local = theirs
                continue
            try:
                ssh = SshCommand(host, job.prog, remote_arguments(job, theirs), captured=True)
            except HostUnreachable as error:
                answers += failures(theirs, str(error))
            else:
                remote.append((host, stack.enter_context(ssh), theirs))
        if local:
            answers += job.act(config, local)
        for host, ssh, theirs in remote:
            answers += _answers_from(host, ssh, theirs)
    order = [camera.name for camera in cameras]
    return sorted(answers, key=lambda answer: order.index(answer["camera"]))


def failures(cameras: Iterable[CameraConfig], why: str) -> list[Answer]:
    """The answers of cameras that could not be asked."""
    return [{"camera": camera.name, "error": why} for camera in cameras]


def _answers_from(
    host: HostConfig, ssh: SshCommand, cameras: Sequence[CameraConfig]
) -> list[Answer]:
    from vampires.ssh_command import HostUnreachable

    out, err = ssh.process.communicate()
    try:
        ssh.exit_status(err)
    except HostUnreachable as error:
        return failures(cameras, str(error))
    answers = parsed_answers(out)
    lines = [line for line in err.splitlines() if line.strip()]
    if [answer["camera"] for answer in answers] != [camera.name for camera in cameras]:
        return failures(cameras, f"host {host.name}: {lines[-1] if lines else 'no answer'}")
    for line in lines:
        print(f"{host.name}: {line}", file=sys.stderr)
    return answers


def parsed_answers(text: str) -> list[Answer]:
    """The answers in the JSON of a command; none where it is something else."""
    try:
        answers = json.loads(text)["cameras"]
        return [answer for answer in answers if {"camera", "error"} <= answer.keys()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


# -- several cameras --------------------------------------------------------------------------


def side_by_side(action: Callable[[str], object], streams: Sequence[str]) -> dict[str, str]:
    """Does the action with each stream at the same time; returns why it failed, or "".

    ActionFailed, FPSError and OSError are failures of a stream; Ctrl-C does not wait for the
    others.
    """
    from threading import Thread

    from vampires.fps import FPSError
    from vampires.fps_control import ActionFailed

    reasons: dict[str, str] = dict.fromkeys(streams, "interrupted")

    def act(stream: str) -> None:
        try:
            action(stream)
            reasons[stream] = ""
        except (ActionFailed, FPSError, OSError) as error:
            reasons[stream] = str(error)

    threads = [Thread(target=act, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reasons
