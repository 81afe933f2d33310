"""Which cubes of one camera have none of the other from the same time.

The two cameras record the same moments; the readers of the files pair their frames.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vampires.times import SECOND_NS

# The other camera's cubes must cover half of a cube, each of them taken a little longer than
# it was: by an eighth of the cube, no less and no more than this.
LEAST_SLACK_NS, MOST_SLACK_NS = SECOND_NS // 10, SECOND_NS
SLACK_SHARE = 8
# A partner is expected this long after the end of a cube, and twice the length of the cube.
PATIENCE_NS = 10 * SECOND_NS

_OTHER = {"1": "2", "2": "1"}


def partner_stream(stream: str) -> str:
    """vcam2 for vcam1 and the reverse; empty for a stream without a partner."""
    base, number = stream[:-1], stream[-1:]
    return base + _OTHER[number] if base and number in _OTHER else ""


@dataclass(frozen=True)
class Span:
    """First and last frame of a cube, ns UTC."""

    begin_ns: int
    end_ns: int


class Recorded:
    """When a camera has recorded: the spans of its cubes, complete and growing."""

    def __init__(self, complete: Iterable[Span], growing: Iterable[Span] = ()) -> None:
        self._spans = sorted(
            [*complete, *growing], key=lambda span: (span.begin_ns, span.end_ns)
        )
        self._begins = [span.begin_ns for span in self._spans]
        lengths = [span.end_ns - span.begin_ns for span in self._spans]
        self._longest_ns = max(lengths, default=0)
        self.latest_ns = max((span.end_ns for span in self._spans), default=0)

    def covers(self, span: Span) -> bool:
        """Whether enough of a span was recorded."""
        length = span.end_ns - span.begin_ns
        slack = min(max(length // SLACK_SHARE, LEAST_SLACK_NS), MOST_SLACK_NS)
        near = self._near(span.begin_ns - slack, span.end_ns + slack)
        if not length:
            return bool(near)
        covered, reached = 0, span.begin_ns
        for other in near:
            begin = max(reached, other.begin_ns - slack)
            end = min(span.end_ns, other.end_ns + slack)
            covered += max(0, end - begin)
            reached = max(reached, end)
        return 2 * covered >= length

    def _near(self, begin_ns: int, end_ns: int) -> Sequence[Span]:
        """The spans that touch this one."""
        first = bisect.bisect_left(self._begins, begin_ns - self._longest_ns)
        last = bisect.bisect_right(self._begins, end_ns)
        return [span for span in self._spans[first:last] if span.end_ns >= begin_ns]


def lacks_partner(span: Span, other: Recorded, now_ns: int, *, growing: bool = False) -> bool:
    """Whether the other camera has no cube for a span, now that it should have one.

    growing: it writes a cube now, which may come. False while that cannot be told yet.
    """
    if not span.begin_ns or other.covers(span):
        return False
    if other.latest_ns > span.end_ns:
        return True
    length = span.end_ns - span.begin_ns
    return not growing and now_ns > span.end_ns + PATIENCE_NS + 2 * length
