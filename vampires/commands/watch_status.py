"""vampires_logstatus --watch: the table again and again, in place."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from vampires.commands.cameras import (
    Answer,
    failures,
    machines,
    parsed_answers,
    remote_arguments,
)
from vampires.commands.common import setup_signals
from vampires.commands.logstatus import look_at, status_job, status_of
from vampires.commands.status_table import table

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config, HostConfig

INTERVAL_S = 0.25

Show = Callable[[Sequence[Answer]], None]
Source = Callable[[], list[Answer]]


def watch(config: Config, cameras: Sequence[CameraConfig], args: argparse.Namespace) -> int:
    """Shows the cameras until Ctrl-C; returns the exit status of the last look."""
    order = [camera.name for camera in cameras]
    places = [(None, list(cameras))] if args.local else machines(config, cameras)
    with setup_signals() as stop, ExitStack() as stack:
        sources = [stack.enter_context(_source(host, theirs)) for host, theirs in places]
        show = stack.enter_context(_display(as_json=args.json))
        while True:
            answers = [answer for source in sources for answer in source()]
            answers.sort(key=lambda answer: order.index(answer["camera"]))
            if not _shown(show, answers) or stop.wait(INTERVAL_S):
                return status_of(answers)


def _shown(show: Show, answers: Sequence[Answer]) -> bool:
    """Shows them; False when nobody reads here any more."""
    try:
        show(answers)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return False
    return True


# -- where the answers come from --------------------------------------------------------------


@contextmanager
def _source(host: HostConfig | None, cameras: Sequence[CameraConfig]) -> Iterator[Source]:
    if host is None:
        yield lambda: look_at(cameras)
        return
    from vampires.ssh_command import HostUnreachable, SshCommand

    newest = failures(cameras, f"host {host.name}: no answer yet")
    job = status_job()

    def read() -> None:
        nonlocal newest
        assert ssh.process.stdout is not None
        for line in ssh.process.stdout:
            newest = parsed_answers(line) or newest
        try:
            ssh.exit_status()
            newest = failures(cameras, f"host {host.name}: {job.prog} has ended there")
        except HostUnreachable as error:
            newest = failures(cameras, str(error))

    try:
        ssh = SshCommand(
            host, job.prog, [*remote_arguments(job, cameras), "--watch"], captured=True
        )
    except HostUnreachable as error:
        newest = failures(cameras, str(error))
        yield lambda: newest
        return
    with ssh:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield lambda: newest
        finally:
            ssh.end()
            reader.join()


# -- where they go ----------------------------------------------------------------------------


@contextmanager
def _display(*, as_json: bool) -> Iterator[Show]:
    if as_json:
        yield lambda answers: print(json.dumps({"cameras": answers}), flush=True)
        return
    colour = sys.stdout.isatty()
    with display_lines(colour) as show:
        yield lambda answers: show(table(answers, colour=colour))


@contextmanager
def display_lines(on_terminal: bool) -> Iterator[Callable[[Sequence[str]], None]]:
    """Shows lines of a table: on a terminal in place of those before, else below them."""
    if not on_terminal:
        yield lambda lines: print("\n".join([*lines, ""]), flush=True)
        return
    terminal = _Terminal()
    try:
        yield terminal.show
    finally:
        terminal.leave()


class _Terminal:
    """Draws over what it drew before, each time with one write: nothing flickers."""

    HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
    NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
    CLEAR_LINE, CLEAR_BELOW, CLEAR_ALL = "\x1b[K", "\x1b[J", "\x1b[H\x1b[2J"

    def __init__(self) -> None:
        self._size = shutil.get_terminal_size()
        self._lines = 0

    def show(self, table_lines: Sequence[str]) -> None:
        """The table of now, in place of the one before."""
        size = shutil.get_terminal_size()
        begin = f"\x1b[{self._lines}A" if self._lines else ""
        if size != self._size:
            begin, self._size = self.CLEAR_ALL, size
        now = time.strftime("%H:%M:%S", time.gmtime())
        lines = [f"{now} UTC, Ctrl-C ends", *table_lines]
        lines = lines[: max(1, size.lines - 1)]
        self._lines = len(lines)
        text = "".join(f"{line}{self.CLEAR_LINE}\n" for line in lines)
        self._write(f"{self.HIDE_CURSOR}{self.NO_WRAP}{begin}\r{text}{self.CLEAR_BELOW}")

    def leave(self) -> None:
        """The terminal is as it was; the last table stays."""
        self._write(self.WRAP + self.SHOW_CURSOR)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
