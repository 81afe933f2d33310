"""What the slow link says: lines for people, JSON objects for programs."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vampires.link_report import print_if_read, put_status
from vampires.times import iso_utc

_REPEAT_S = 10.0  # between two lines about the same matter
_OBJECT_S = 1.0  # between JSON objects
_STATE_S = 10.0  # between lines of state
_RATE_NS = 2_000_000_000  # over which rates are taken
_NS_PER_S = 1_000_000_000
# One line of state more, when one of these has changed.
_NEWS = ("state", "connections", "refused", "errors", "bad_messages", "dropped_by_network")

Say = Callable[[str], None]
Status = Mapping[str, Any]


class LimitedLines:
    """Says what went wrong, but not the same kind of thing more often than every ten seconds;
    then it says how often that was. For one thread."""

    def __init__(self, say: Say, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.last = ""
        """The last thing that went wrong."""
        self._say = say
        self._clock_s = clock_s
        self._said: dict[str, tuple[float, int]] = {}

    def news(self, line: str) -> None:
        """Says a line in any case."""
        self._say(line)

    def trouble(self, kind: str, line: str) -> None:
        """Says a line about something wrong, unless one of its kind was just said."""
        self.last = line
        now_s = self._clock_s()
        said_s, unsaid = self._said.get(kind, (-_REPEAT_S, 0))
        if now_s < said_s + _REPEAT_S:
            self._said[kind] = (said_s, unsaid + 1)
            return
        self._said[kind] = (now_s, 0)
        self._say(f"{line} ({unsaid} times more since the last line)" if unsaid else line)


class RecentRate:
    """Messages and bits a second, over the last two seconds."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int]] = deque()

    def add(self, now_ns: int, size_bytes: int) -> None:
        """A message of that size, now (of a monotonic clock)."""
        self._recent.append((now_ns, size_bytes))
        self._forget(now_ns)

    def now(self, now_ns: int) -> tuple[float, float]:
        """(messages/s, 10**6 bits/s)."""
        self._forget(now_ns)
        if len(self._recent) < 2:
            return 0.0, 0.0
        first_ns, first_bytes = self._recent[0]
        seconds = (self._recent[-1][0] - first_ns) / _NS_PER_S
        size_bytes = sum(size for _, size in self._recent) - first_bytes
        if seconds <= 0:
            return 0.0, 0.0
        rates = (len(self._recent) - 1) / seconds, 8e-6 * size_bytes / seconds
        return round(rates[0], 3), round(rates[1], 3)

    def _forget(self, now_ns: int) -> None:
        while self._recent and self._recent[0][0] < now_ns - _RATE_NS:
            self._recent.popleft()


def sender_line(status: Status) -> str:
    """One line about a sender: what it does, and all it did."""
    troubles = _troubles(status, "skipped", "resent", "refused", "errors")
    return (
        f"{status['stream']}, {status['state']} on {status['address']} to "
        f"{status['connections']}: {_rates(status)}; "
        f"{status['frames']} frames, {status['throttled']} throttled{troubles}"
    )


def receiver_line(status: Status) -> str:
    """One line about a receiver: what it does, and all it did."""
    troubles = _troubles(status, "resent", "bad_messages", "refused", "errors")
    return (
        f"{status['stream']}, {status['state']} {status['address']}: {_rates(status)}, "
        f"age {status['age_ms']:.0f} ms; {status['frames']} frames, "
        f"{status['dropped_by_network']} dropped by the network, "
        f"{status['throttled']} throttled{troubles}"
    )


def _rates(status: Status) -> str:
    return f"{status['fps']:.1f} frames/s, {status['mbit_per_s']:.1f} Mbit/s"


def _troubles(status: Status, *names: str) -> str:
    return "".join(f", {status[name]} {name}" for name in names if status[name])


class Report:
    """Prints what a link does: lines on standard error, with as_json also one object a second
    on standard output. line: makes one of a status. prog: begins each. status_file: the object
    of each second is put there, in place of the one before, with the notes of its start."""

    def __init__(
        self,
        prog: str,
        line: Callable[[Status], str],
        *,
        as_json: bool,
        status_file: Path | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._prog = prog
        self._status_file = status_file
        self._notes = list(notes)
        self._line = line
        self._as_json = as_json
        now_s = time.monotonic()
        self._object_s, self._state_s = now_s + _OBJECT_S, now_s + _STATE_S
        self._said: object = None

    def say(self, line: str) -> None:
        """A line on standard error."""
        print_if_read(f"{self._prog}: {line}", sys.stderr)

    def look(self, status: Callable[[], Status]) -> None:
        """Prints what is due; to be called often."""
        now_s = time.monotonic()
        if (self._as_json or self._status_file) and now_s >= self._object_s:
            self._tell_object(status())
            self._object_s += _OBJECT_S * (1 + (now_s - self._object_s) // _OBJECT_S)
        if now_s >= self._state_s:
            self._say_state(status())
            self._state_s = now_s + _STATE_S

    def end(self, status: Status) -> None:
        """The last object and the last line."""
        self._tell_object(status)
        self.say(self._line(status))

    def _tell_object(self, status: Status) -> None:
        told = {"time": iso_utc(time.time_ns(), 3) + "Z", **status}
        if self._as_json:
            print_if_read(json.dumps(told), sys.stdout)
        put_status(self._status_file, {**told, "notes": self._notes})

    def _say_state(self, status: Status) -> None:
        news = (status["fps"] > 0, *(status.get(name) for name in _NEWS))
        if news != self._said and not self._as_json:
            self.say(self._line(status))
        self._said = news
