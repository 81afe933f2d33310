"""The sidecar: byte for byte the lines of the real logger, exact to the nanosecond."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires.frame_table import FRAME_DTYPE, FrameFlag
from vampires.sidecar import sidecar_text

GOLDEN = sorted((Path(__file__).parent / "data" / "fits" / "aux").glob("*.txt"))
times_ns = st.integers(0, 4 * 10**18)
counters = st.integers(0, 2**63 - 1)


def rows_of(**columns) -> np.ndarray:
    rows = np.zeros(len(next(iter(columns.values()))), FRAME_DTYPE)
    rows["FRAME"] = np.arange(len(rows))
    for name, values in columns.items():
        rows[name] = values
    return rows


def lines_of(text: bytes) -> list[str]:
    return [line for line in text.decode("ascii").splitlines() if not line.startswith("#")]


def digits_ns(text: str) -> int:
    """The nanoseconds that a decimal number of seconds spells out."""
    whole, fraction = text.split(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_lines_of_the_real_logger_come_out_byte_for_byte(path):
    real = lines_of(path.read_bytes())
    fields = [line.split() for line in real]
    rows = rows_of(
        CNT0=[int(f[5]) for f in fields],
        CNT1=[int(f[6]) for f in fields],
        TLOG=[digits_ns(f[3]) for f in fields],
        TACQ=[digits_ns(f[4]) for f in fields],
    )
    ours = lines_of(sidecar_text("vgold", rows))
    assert len(ours) == len(real) > 0
    since_start = slice(24, 39)  # the real one subtracts doubles: exact to 0.24 us only
    for mine, theirs in zip(ours, real, strict=True):
        assert mine[:24] + mine[39:] == theirs[:24] + theirs[39:]
        difference_ns = digits_ns(mine[since_start]) - digits_ns(theirs[since_start])
        assert abs(difference_ns) <= 240


def test_the_heading_is_comment_lines_as_many_as_the_real_logger_writes():
    heading = [line for line in sidecar_text("vcam1", rows_of(TLOG=[1])).splitlines()][:-1]
    assert len(heading) == 11
    assert all(line.startswith(b"#") for line in heading)


@given(st.lists(st.tuples(times_ns, times_ns, counters, counters), min_size=1, max_size=20))
def test_every_frame_has_one_line_that_gives_back_its_integers(frames):
    log_ns, acquired_ns, cnt0, cnt1 = zip(*frames, strict=True)
    rows = rows_of(TLOG=log_ns, TACQ=acquired_ns, CNT0=cnt0, CNT1=cnt1)
    lines = lines_of(sidecar_text("vcam1", rows))
    assert len(lines) == len(rows)
    for index, line in enumerate(lines):
        fields = line.split()
        assert len(fields) == 7
        assert int(fields[0]) == index
        assert int(fields[1]) == int(fields[5]) == cnt0[index]
        sign = -1 if fields[2].startswith("-") else 1
        assert sign * digits_ns(fields[2].lstrip("-")) == log_ns[index] - log_ns[0]
        assert digits_ns(fields[3]) == log_ns[index]
        assert digits_ns(fields[4]) == acquired_ns[index] // 1000 * 1000
        assert int(fields[6]) == cnt1[index]


@given(st.lists(st.tuples(st.integers(0, 2**31), counters, counters), min_size=1, max_size=9))
def test_columns_have_the_widths_of_the_c_formats(frames):
    seconds, cnt0, cnt1 = zip(*frames, strict=True)
    log_ns = [second * 10**9 for second in seconds]
    lines = lines_of(sidecar_text("v", rows_of(TLOG=log_ns, TACQ=log_ns, CNT0=cnt0, CNT1=cnt1)))
    for index, line in enumerate(lines):
        since_start = float(seconds[index] - seconds[0])
        assert line == (
            f"{index:10d}  {cnt0[index]:10d}  {since_start:15.9f}   {seconds[index]:20.9f}  "
            f"{seconds[index]:17.6f}   {cnt0[index]:10d}   {cnt1[index]:10d}"
        )


def test_column_5_is_the_acquisition_time_wherever_it_came_from_and_zero_without_one():
    rows = rows_of(TLOG=[10**18, 10**18], TACQ=[0, 5 * 10**17 + 1999])
    rows["FLAGS"] = [0, FrameFlag.TACQ_FROM_ATIME | FrameFlag.CAUGHT_UP]
    column_5 = [line.split()[4] for line in lines_of(sidecar_text("v", rows))]
    assert column_5 == ["0.000000", "500000000.000001"]


def test_no_frames_give_a_heading_alone():
    assert lines_of(sidecar_text("v", np.zeros(0, FRAME_DTYPE))) == []


def test_rows_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="1-D of"):
        sidecar_text("v", np.zeros(3))
