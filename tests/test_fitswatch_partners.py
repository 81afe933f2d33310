"""Which cubes have no partner from the other camera, and when that can be told."""

from __future__ import annotations

import pytest

from vampires.fitswatch.partners import (
    PATIENCE_NS,
    Recorded,
    Span,
    lacks_partner,
    partner_stream,
)
from vampires.times import SECOND_NS


def span(begin_s: float, end_s: float) -> Span:
    return Span(round(begin_s * SECOND_NS) + 10**18, round(end_s * SECOND_NS) + 10**18)


def lacks(mine: Span, *theirs: Span, now_s: float = 0, growing: bool = False) -> bool:
    return lacks_partner(mine, Recorded(theirs), span(now_s, 0).begin_ns, growing=growing)


def test_the_two_cameras_are_partners() -> None:
    assert [partner_stream(s) for s in ("vcam1", "vcam2", "vpupcam", "cam3", "1", "")] == [
        "vcam2", "vcam1", "", "", "", ""
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "missing"),
    [
        ([(0, 5)], False),
        ([(0.0004, 5.0004)], False),
        ([(-2, 2), (2.1, 7)], False),  # cubes of another length
        ([(-10, 20)], False),
        ([(-5, 0), (5, 10)], True),  # the ones before and after, and it is not between them
        ([(4.5, 10)], True),
        ([(100, 105)], True),
    ],
)
def test_half_of_a_cube_has_to_be_covered(
    theirs: list[tuple[float, float]], missing: bool
) -> None:
    assert lacks(span(0, 5), *[span(*one) for one in theirs], now_s=200) is missing


def test_a_cube_of_one_frame_wants_one_close_by() -> None:
    assert not lacks(span(5, 5), span(5.05, 9), now_s=200)
    assert lacks(span(5, 5), span(6, 9), now_s=200)


def test_it_is_told_only_when_the_partner_should_have_come() -> None:
    mine = span(0, 5)
    soon, late = 5 + 1, 5 + PATIENCE_NS / SECOND_NS + 2 * 5 + 1
    assert not lacks(mine, now_s=soon)
    assert lacks(mine, now_s=late)
    assert not lacks(mine, now_s=late, growing=True)
    assert lacks(mine, span(5.5, 9), now_s=soon)  # a later one is there already


def test_a_cube_that_tells_no_time_is_not_judged() -> None:
    assert not lacks(Span(0, 0), span(1, 2), now_s=10**6)
