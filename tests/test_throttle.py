"""The throttle: an exact rate from a fast source, every frame of a slow one, a cap that holds.

The senders here are simulated: a source publishes at known times, and a loop like that of the
links waits until a frame is due, takes the newest, and sends it.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires.throttle import Throttle

SECOND_NS = 1_000_000_000
START_NS = 86_400 * SECOND_NS
INTERVAL_NS = 50_000_000


def arrivals_of(rate_hz: float, seconds: float, jitter: float = 0.0, seed: int = 0):
    """When a source publishes, in ns; jitter is a part of its interval, to either side."""
    interval_ns = SECOND_NS / rate_hz
    shifts = random.Random(seed)
    return [
        START_NS + round((k + shifts.uniform(-jitter, jitter)) * interval_ns)
        for k in range(round(seconds * rate_hz))
    ]


def send_all(throttle, arrivals, *, size_bytes=3_000_000, busy_ns=lambda: 0):
    """The frames that a sender's loop sends: [(time ns, index of the arrival)].

    busy_ns() is how long the loop takes for each step beyond what it waits for.
    """
    sent = []
    now_ns = START_NS
    last = -1
    while True:
        while wait_ns := throttle.wait_ns(now_ns):
            now_ns += wait_ns + busy_ns()
        newest = bisect_right(arrivals, now_ns) - 1
        if newest <= last:
            if last + 1 == len(arrivals):
                return sent
            newest = last + 1
            now_ns = max(now_ns, arrivals[newest]) + busy_ns()
        if throttle.admits(newest):
            throttle.sent(now_ns, size_bytes)
            sent.append((now_ns, newest))
        last = newest


def intervals_of(sent):
    return [after - before for (before, _), (after, _) in itertools.pairwise(sent)]


@pytest.mark.parametrize("rate_hz", [25, 57, 500, 2000])
@pytest.mark.parametrize("late_ns", [0, 2_000_000])
def test_a_fast_source_is_thinned_out_to_twenty_even_frames_a_second(rate_hz, late_ns):
    lateness = random.Random(1)
    sent = send_all(
        Throttle(20.0),
        arrivals_of(rate_hz, 20),
        busy_ns=lambda: lateness.randint(0, late_ns),
    )
    intervals = intervals_of(sent)
    assert len(intervals) / sum(intervals) * SECOND_NS == pytest.approx(20.0, abs=0.1)
    assert min(intervals) >= 0.9 * INTERVAL_NS
    assert max(intervals) <= 1.1 * INTERVAL_NS


@pytest.mark.parametrize("rate_hz", [25, 57, 500, 2000])
def test_what_is_sent_is_the_newest_frame(rate_hz):
    arrivals = arrivals_of(rate_hz, 5, jitter=0.2)
    for now_ns, index in send_all(Throttle(20.0), arrivals)[1:-1]:
        assert arrivals[index] <= now_ns < arrivals[index + 1]


@pytest.mark.parametrize("rate_hz", [1, 10, 15, 19, 20])
@pytest.mark.parametrize("seed", range(5))
def test_a_source_slower_than_the_throttle_passes_every_frame(rate_hz, seed):
    arrivals = arrivals_of(rate_hz, 60, jitter=0.2, seed=seed)
    sent = send_all(Throttle(20.0), arrivals)
    assert [index for _, index in sent] == list(range(len(arrivals)))


@pytest.mark.parametrize("fps", [20.0, 57.0, 30000 / 1001, 506.25])
def test_due_times_do_not_drift_over_a_day(fps):
    throttle = Throttle(fps)
    now_ns = START_NS
    count = 100_000
    throttle.sent(now_ns, 1)
    for _ in range(count):
        # It is always late, and by less than one interval.
        now_ns += throttle.wait_ns(now_ns) + 100_000
        throttle.sent(now_ns, 1)
    assert now_ns - 100_000 - START_NS == pytest.approx(count * 1e9 / fps, abs=2)


@given(st.integers(1, 10**12))
def test_after_a_pause_of_any_length_at_most_two_frames_follow_closely(pause_ns):
    throttle = Throttle(20.0)
    throttle.sent(START_NS, 1)
    now_ns = START_NS + INTERVAL_NS + pause_ns
    waits = []
    for _ in range(4):
        waits.append(throttle.wait_ns(now_ns))
        now_ns += waits[-1]
        throttle.sent(now_ns, 1)
    assert waits[0] == 0
    assert waits[1] == max(INTERVAL_NS - pause_ns, 0)
    assert waits[2:] == [INTERVAL_NS, INTERVAL_NS]


@given(
    fps=st.floats(0.5, 500),
    cap=st.floats(1e3, 1e9),
    rate_hz=st.sampled_from([3, 25, 500]),
    sizes=st.lists(st.integers(0, 6_000_000), min_size=1, max_size=20),
)
def test_no_window_that_begins_with_a_message_holds_more_than_the_cap(fps, cap, rate_hz, sizes):
    throttle = Throttle(fps, max_bits_per_s=cap)
    now_ns = START_NS
    sent = []
    for k in range(60):
        now_ns += throttle.wait_ns(now_ns) + SECOND_NS // rate_hz
        size = sizes[k % len(sizes)]
        throttle.sent(now_ns, size)
        sent.append((now_ns, size))
    for first, (begin_ns, _) in enumerate(sent):
        bits = 0
        for k in range(first, len(sent)):
            assert bits <= cap * (sent[k][0] - begin_ns) / 1e9
            bits += 8 * sent[k][1]


def test_a_cap_lowers_the_rate_to_what_it_allows():
    throttle = Throttle(20.0, max_bits_per_s=300e6)
    sent = send_all(throttle, arrivals_of(2000, 10), size_bytes=2_500_000)
    assert intervals_of(sent) == [pytest.approx(20e6 / 300e6 * 1e9, abs=1)] * (len(sent) - 1)


def test_a_cap_that_is_not_reached_leaves_the_rate_alone():
    throttle = Throttle(20.0, max_bits_per_s=500e6)
    sent = send_all(throttle, arrivals_of(2000, 10), size_bytes=3_000_000)
    assert intervals_of(sent) == [INTERVAL_NS] * (len(sent) - 1)


def test_the_first_frame_may_go_at_once():
    assert Throttle(0.001).wait_ns(START_NS) == 0


@pytest.mark.parametrize("step_ns", [-1, -INTERVAL_NS, -(10**15), -(2**60)])
def test_a_clock_that_steps_back_costs_one_interval_at_most(step_ns):
    throttle = Throttle(20.0)
    throttle.sent(START_NS, 1)
    assert 0 < throttle.wait_ns(START_NS + step_ns) <= INTERVAL_NS
    sent = START_NS + step_ns + throttle.wait_ns(START_NS + step_ns)
    assert throttle.wait_ns(sent) == 0
    throttle.sent(sent, 1)
    assert throttle.wait_ns(sent) == INTERVAL_NS


@pytest.mark.parametrize("step_ns", [INTERVAL_NS, 10**15, 2**63 - 1 - START_NS])
def test_a_clock_that_steps_ahead_and_comes_back_is_followed(step_ns):
    throttle = Throttle(20.0)
    throttle.sent(START_NS, 1)
    now_ns = START_NS + step_ns
    assert throttle.wait_ns(now_ns) == 0
    throttle.sent(now_ns, 1)
    throttle.sent(now_ns, 1)
    assert throttle.wait_ns(now_ns) == INTERVAL_NS
    now_ns = START_NS + 1
    assert 0 < throttle.wait_ns(now_ns) <= INTERVAL_NS
    now_ns += throttle.wait_ns(now_ns)
    throttle.sent(now_ns, 1)
    assert throttle.wait_ns(now_ns) == INTERVAL_NS


times = st.integers(-(2**63), 2**63 - 1)


@given(
    fps=st.floats(0, 1e300, exclude_min=True),
    cap=st.one_of(st.just(0.0), st.floats(0, 1e300)),
    calls=st.lists(st.tuples(st.booleans(), times, st.integers(0, 2**63 - 1))),
)
def test_any_times_in_any_order_give_waits_within_bounds(fps, cap, calls):
    throttle = Throttle(fps, max_bits_per_s=cap)
    interval_ns = min(1e9 / fps, 2**61)
    span_ns = 0.0
    for is_sent, now_ns, size in calls:
        if is_sent:
            throttle.sent(now_ns, size)
            span_ns = min(8e9 * size / cap, 2**61) if cap else 0.0
        wait_ns = throttle.wait_ns(now_ns)
        assert 0 <= wait_ns <= max(interval_ns, span_ns) * (1 + 1e-9) + 1


def test_a_sender_that_does_not_wait_never_puts_frames_off():
    throttle = Throttle(20.0)
    for k in range(100):
        throttle.sent(START_NS + k, 1)
    assert throttle.wait_ns(START_NS + 99) == INTERVAL_NS


@given(skip=st.integers(0, 5), count=st.integers(1, 50), first=st.integers(0, 2**64 - 1))
def test_skip_leaves_out_that_many_frames_after_each_one_sent(skip, count, first):
    throttle = Throttle(skip=skip)
    passed = []
    for cnt0 in range(first, first + count):
        if throttle.admits(cnt0):
            assert throttle.admits(cnt0)  # asking changes nothing
            throttle.sent(START_NS, 1)
            passed.append(cnt0)
    assert passed == list(range(first, first + count, skip + 1))


@given(skip=st.integers(1, 5), jump=st.integers(1, 1000))
def test_skip_counts_the_frames_that_nobody_took_too(skip, jump):
    throttle = Throttle(skip=skip)
    assert throttle.admits(10)
    throttle.sent(START_NS, 1)
    assert throttle.admits(10 + jump) == (jump > skip)


def test_skip_begins_anew_with_a_counter_that_went_back():
    throttle = Throttle(skip=5)
    assert throttle.admits(1000)
    throttle.sent(START_NS, 1)
    assert throttle.admits(1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fps": 0.0}, "fps 0.0: expected frames/s above 0"),
        ({"fps": -1.0}, "fps -1.0"),
        ({"fps": math.nan}, "fps nan"),
        ({"fps": math.inf}, "fps inf"),
        ({"max_bits_per_s": -1.0}, "max_bits_per_s -1.0: expected 0"),
        ({"max_bits_per_s": math.nan}, "max_bits_per_s nan"),
        ({"skip": -1}, "skip -1: expected 0 or more"),
    ],
)
def test_a_throttle_that_cannot_be_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        Throttle(**options)


def test_a_message_of_negative_size_is_refused():
    with pytest.raises(ValueError, match="size_bytes -1"):
        Throttle().sent(START_NS, -1)
