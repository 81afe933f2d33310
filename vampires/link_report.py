"""What the TCP commands say while a link runs: lines for people, JSON objects for programs.

A link is told by its counters (``status()``, which only grow) and by its events. Lines go to
standard error, objects to standard output; whoever reads neither slows nothing down.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from vampires.run_folder import write_json
from vampires.stop_request import Stop
from vampires.times import iso_utc

LOOK_S = 0.1  # between looks at the events
OBJECT_S = 1.0  # between JSON objects
STATE_S = 10.0  # between lines of state
MOVING_STATES = ("connected", "receiving")
# Named in a line where they are not 0; that one of them moved is worth a line of state.
TROUBLES = ("torn", "void", "resent", "duplicates", "reconnects", "refused")

Status = Mapping[str, Any]


class Link(Protocol):
    """One end of a link: _core.TcpSender or _core.TcpReceiver."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def status(self) -> dict[str, Any]: ...
    def events(self, timeout_s: float) -> list[tuple[str, str]]: ...


class Rates:
    """Frames and bytes a second, from one look at the counters to the next."""

    def __init__(self, status: Status, now_s: float) -> None:
        self._seen = (now_s, status["frames"], status["bytes"])

    def since_last(self, status: Status, now_s: float) -> tuple[float, float]:
        """(rate_hz, mb_per_s) since the look before; 1 MB = 10**6 bytes."""
        before_s, frames, size_bytes = self._seen
        self._seen = (now_s, status["frames"], status["bytes"])
        seconds = now_s - before_s
        if seconds <= 0:
            return 0.0, 0.0
        rate_hz = (status["frames"] - frames) / seconds
        return rate_hz, (status["bytes"] - size_bytes) / seconds / 1e6


def status_object(
    status: Status, rate_hz: float, mb_per_s: float, time_ns: int
) -> dict[str, Any]:
    """What --json prints: the time (UTC), all of the status, and the rates."""
    rates = {"rate_hz": round(rate_hz, 3), "mb_per_s": round(mb_per_s, 3)}
    return {"time": iso_utc(time_ns, 3) + "Z", **status, **rates}


def state_line(status: Status, rate_hz: float, mb_per_s: float) -> str:
    """One line for people: what the link does now, and all that ever went wrong on it."""
    name = status["stream"] or "no stream yet"
    place = f"{status['state']} {status['peer']}".rstrip()
    return f"{name}, {place}: {rate_hz:.1f} Hz, {mb_per_s:.1f} MB/s; {_totals(status)}"


def summary_line(status: Status) -> str:
    """One line at the end: all that was counted."""
    name = status["stream"] or "no stream"
    return f"{name}: {status['bytes'] / 1e6:.1f} MB, {_totals(status)}"


def _totals(status: Status) -> str:
    troubles = [f"{status[key]} {key}" for key in TROUBLES if status.get(key)]
    return ", ".join([f"{status['frames']} frames", f"{status['lost']} lost", *troubles])


class LinkReport:
    """Prints what a link does. prog: begins each line. as_json: objects as well as lines.
    status_file: the object of each second is put there, in place of the one before, with the
    notes of its start."""

    def __init__(
        self,
        prog: str,
        status: Status,
        now_s: float,
        *,
        as_json: bool,
        status_file: Path | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._prog = prog
        self._as_json = as_json
        self._status_file = status_file
        self._notes = list(notes)
        self._object_rates = Rates(status, now_s)
        self._line_rates = Rates(status, now_s)
        self._object_at = now_s + OBJECT_S
        self._line_at = now_s + STATE_S
        self._said: object = None

    def say(self, text: str) -> None:
        """A line on standard error."""
        print_if_read(f"{self._prog}: {text}", sys.stderr)

    def tell(self, events: list[tuple[str, str]]) -> None:
        """A line for each event."""
        for _, text in events:
            self.say(text)

    def look(self, status: Status, now_s: float) -> None:
        """Prints what is due now: the object of this second, a line of state on a change."""
        if (self._as_json or self._status_file) and now_s >= self._object_at:
            self._tell_object(status, now_s)
            self._object_at += OBJECT_S * (1 + (now_s - self._object_at) // OBJECT_S)
        if now_s >= self._line_at:
            self._say_state(status, now_s)
            self._line_at += STATE_S * (1 + (now_s - self._line_at) // STATE_S)

    def end(self, status: Status, now_s: float) -> None:
        """The last object, and the summary."""
        self._tell_object(status, now_s)
        self.say(summary_line(status))

    def _tell_object(self, status: Status, now_s: float) -> None:
        rates = self._object_rates.since_last(status, now_s)
        told = status_object(status, *rates, time.time_ns())
        if self._as_json:
            print_if_read(json.dumps(told), sys.stdout)
        put_status(self._status_file, {**told, "notes": self._notes})

    def _say_state(self, status: Status, now_s: float) -> None:
        rate_hz, mb_per_s = self._line_rates.since_last(status, now_s)
        moving = status["state"] in MOVING_STATES and rate_hz > 0
        counts = [status.get(key) for key in ("lost", *TROUBLES)]
        news = (status["state"], moving, *counts)
        if news != self._said and not self._as_json:
            self.say(state_line(status, rate_hz, mb_per_s))
        self._said = news


def run_link(link: Link, stop: Stop, report: LinkReport) -> None:
    """Runs the link until stop is set, and reports what it does."""
    link.start()
    try:
        while not stop.wait(LOOK_S):
            report.tell(link.events(0.0))
            report.look(link.status(), time.monotonic())
    finally:
        link.stop()
        report.tell(link.events(0.0))
        report.end(link.status(), time.monotonic())


def put_status(file: Path | None, told: Status) -> None:
    """Puts what is told into a file as well; a link does not end because that cannot be."""
    if file is not None:
        with contextlib.suppress(OSError):
            write_json(file, told)


def print_if_read(line: str, file: TextIO | None) -> None:
    """A line, unless whoever should read it is gone or lets the pipe fill up: a link does not
    wait for that, and does not end for it."""
    if file is None:
        return
    try:
        poll = select.poll()
        poll.register(file.fileno(), select.POLLOUT)
        if poll.poll(0):
            os.write(file.fileno(), f"{line}\n".encode(errors="backslashreplace"))
    except OSError:  # gone, or a disk that is full
        pass
