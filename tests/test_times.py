"""Times as text: exact, truncated, never ``:60``."""

from datetime import datetime, timedelta, timezone
from fractions import Fraction

import pytest
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from vampires import times

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
HAWAII = timezone(timedelta(hours=-10))
any_time_ns = st.integers(-(2**63), 2**63 - 1)
digit_counts = st.integers(0, 9)


def at(time_ns: int) -> datetime:
    """The datetime at the microsecond before ``time_ns``."""
    return EPOCH + timedelta(microseconds=time_ns // 1000)


@given(any_time_ns)
def test_utc_text_is_that_of_datetime_at_the_microsecond(time_ns):
    moment = at(time_ns)
    assert times.utc_time_of_day(time_ns, 6) == moment.strftime("%H:%M:%S.%f")
    assert times.iso_utc(time_ns, 6) == moment.replace(tzinfo=None).isoformat(
        "T", "microseconds"
    )
    assert times.utc_date(time_ns) == moment.date().isoformat()
    assert times.day_folder(time_ns) == times.utc_date(time_ns).replace("-", "")


@given(any_time_ns)
def test_hawaii_is_ten_hours_behind_utc_all_year(time_ns):
    expected = at(time_ns).astimezone(HAWAII).strftime("%H:%M:%S.%f")
    assert times.hst_time_of_day(time_ns, 6) == expected


@given(any_time_ns, digit_counts)
def test_fewer_digits_are_the_start_of_more_digits(time_ns, digits):
    full = times.iso_utc(time_ns, 9)
    cut = times.iso_utc(time_ns, digits)
    assert full.startswith(cut)
    assert len(cut) == 19 + (digits + 1 if digits else 0)


@given(any_time_ns)
def test_the_nanosecond_is_kept_in_the_name_of_the_file(time_ns):
    stamp = times.file_stamp(time_ns)
    hours, minutes, seconds = stamp.split(":")
    whole, nanoseconds = seconds.split(".")
    assert int(whole) < 60 and len(nanoseconds) == 9
    of_day = (int(hours) * 60 + int(minutes)) * 60 + int(whole)
    assert of_day * 10**9 + int(nanoseconds) == time_ns % (86400 * 10**9)


@given(any_time_ns, st.integers(0, 14))
def test_mjd_is_exact_to_its_last_decimal_and_never_late(time_ns, decimals):
    exact = 40587 + Fraction(time_ns, 86400 * 10**9)
    late = exact - Fraction(times.mjd_text(time_ns, decimals))
    assert 0 <= late < Fraction(1, 10**decimals)


@given(st.integers(1_500_000_000 * 10**9, 1_790_000_000 * 10**9))
def test_mjd_is_that_of_astropy(time_ns):
    moment = Time(times.iso_utc(time_ns, 9), format="isot", scale="utc")
    assert float(times.mjd_text(time_ns, 11)) == pytest.approx(moment.mjd, abs=2e-11)


@pytest.mark.parametrize("digits", range(10))
def test_the_last_nanosecond_of_a_day_is_not_rounded_up(digits):
    time_ns = 1_795_392_000 * 10**9 - 1
    fraction = "." + "9" * digits if digits else ""
    assert times.utc_time_of_day(time_ns, digits) == f"23:59:59{fraction}"
    assert times.utc_date(time_ns) == "2026-11-22"
    assert times.utc_date(time_ns + 1) == "2026-11-23"


def test_digits_beyond_the_nanosecond_are_refused():
    with pytest.raises(ValueError, match="10 decimals"):
        times.utc_time_of_day(0, 10)
