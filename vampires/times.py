"""Times as text, from int64 nanoseconds since 1970-01-01 UTC, by integer arithmetic alone.

Every function truncates towards the past and never rounds, so no second reads 60 and no time
lies after the instant it stands for. ``digits`` is the number of decimals of the second, 0 to
9. HST, the time of the observatory, is UTC - 10 h all year.
"""

from datetime import date

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
HST_OFFSET_NS = -10 * 3600 * SECOND_NS
UNIX_EPOCH_MJD = 40_587  # 1970-01-01T00:00:00 UTC
_UNIX_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def utc_time_of_day(time_ns: int, digits: int = 6) -> str:
    """``HH:MM:SS`` and ``digits`` decimals, UTC."""
    _check_digits(digits)
    seconds, fraction_ns = divmod(time_ns % DAY_NS, SECOND_NS)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    fraction = f".{fraction_ns // 10 ** (9 - digits):0{digits}d}" if digits else ""
    return f"{hour:02d}:{minute:02d}:{second:02d}{fraction}"


def hst_time_of_day(time_ns: int, digits: int = 6) -> str:
    """``HH:MM:SS`` and ``digits`` decimals, Hawaii standard time."""
    return utc_time_of_day(time_ns + HST_OFFSET_NS, digits)


def utc_date(time_ns: int) -> str:
    """``YYYY-MM-DD``, UTC."""
    return date.fromordinal(_UNIX_EPOCH_ORDINAL + time_ns // DAY_NS).isoformat()


def iso_utc(time_ns: int, digits: int = 9) -> str:
    """``YYYY-MM-DDTHH:MM:SS`` and ``digits`` decimals, UTC, without a zone letter (FITS)."""
    return f"{utc_date(time_ns)}T{utc_time_of_day(time_ns, digits)}"


def mjd_text(time_ns: int, decimals: int = 11) -> str:
    """Modified Julian Date (UTC) with ``decimals`` decimals; 11 decimals are 0.9 us."""
    scale = 10**decimals
    scaled = UNIX_EPOCH_MJD * scale + time_ns * scale // DAY_NS
    days, fraction = divmod(abs(scaled), scale)
    sign = "-" if scaled < 0 else ""
    return f"{sign}{days}.{fraction:0{decimals}d}" if decimals else f"{sign}{days}"


def file_stamp(time_ns: int) -> str:
    """``HH:MM:SS.nnnnnnnnn`` UTC: the part of a cube's name behind ``<stream>_``."""
    return utc_time_of_day(time_ns, 9)


def day_folder(time_ns: int) -> str:
    """``YYYYMMDD``: the folder of the UTC day."""
    return utc_date(time_ns).replace("-", "")


def _check_digits(digits: int) -> None:
    if not 0 <= digits <= 9:
        raise ValueError(f"{digits} decimals of a second asked for; 0 to 9 can be given")
