"""What a stream says of its camera: crop, frame rate, data type."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vampires import _core
    from vampires.keywords import KeywordValue

DATA_TYPE_KEYWORD = "DATA-TYP"
DATA_TYPE_COMMENT = "type of the data"
OBJECT_KEYWORD = "OBJECT"
OBJECT_COMMENT = "name of the target"
TRIGGER_KEYWORD = "EXTTRIG"
# The rate that was set; the one the camera measured, for cameras that have only that.
RATE_KEYWORDS = ("FRATE", "MFRATE")
MEASURING_S = 0.4
POLL_S = 0.001


@dataclass(frozen=True)
class StreamFacts:
    """A stream as it is now. shape: [ny, nx] of a frame; frame_bytes: of one in a FITS file;
    nominal_hz: of the keyword rate_keyword, 0 where there is none; data_type: of the keyword
    DATA-TYP, empty where there is none."""

    name: str
    shape: tuple[int, int]
    dtype: str
    frame_bytes: int
    nominal_hz: float
    rate_keyword: str
    data_type: str


def stream_facts(name: str, shm_dir: Path | str | None = None) -> StreamFacts:
    """Looks at a stream. Raises StreamError."""
    file = _opened(name, shm_dir)
    keywords = _keywords(file)
    rates = [(key, _rate(keywords.get(key))) for key in RATE_KEYWORDS]
    rate_keyword, nominal_hz = next((pair for pair in rates if pair[1] > 0), ("", 0.0))
    ny, nx = _frame_shape(file)
    pixel_bytes = 4 if file.dtype == "float16" else file.dtype.itemsize
    return StreamFacts(
        name=name,
        shape=(ny, nx),
        dtype=str(file.dtype),
        frame_bytes=ny * nx * pixel_bytes,
        nominal_hz=nominal_hz,
        rate_keyword=rate_keyword,
        data_type=str(keywords.get(DATA_TYPE_KEYWORD, "")).strip(),
    )


def stream_keywords(
    name: str, shm_dir: Path | str | None = None
) -> tuple[tuple[int, int], dict[str, KeywordValue]]:
    """The shape [ny, nx] of a frame and the keywords of a stream, without loading NumPy.
    Raises StreamError."""
    file = _opened(name, shm_dir)
    return _frame_shape(file), _keywords(file)


def nominal_rate(name: str, shm_dir: Path | str | None = None) -> float:
    """The frame rate by the keywords in Hz; 0 where there is none, or no stream."""
    from vampires import _core

    try:
        return stream_facts(name, shm_dir).nominal_hz
    except (_core.StreamError, OSError):
        return 0.0


def measured_rates(
    names: Sequence[str], shm_dir: Path | str | None = None, seconds: float = MEASURING_S
) -> dict[str, float]:
    """The rates in Hz at which frames come on these streams, counted for a moment; 0 where
    not two came. Raises StreamError."""
    files = {name: _opened(name, shm_dir) for name in names}
    seen: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    before = {name: _counter(file) for name, file in files.items()}
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end and files:
        for name, file in files.items():
            count = _counter(file)
            if count != before[name]:
                before[name] = count
                seen[name].append((now, count))
        time.sleep(POLL_S)
    return {name: _slope(changes) for name, changes in seen.items()}


def _slope(changes: Sequence[tuple[float, int]]) -> float:
    if len(changes) < 2:
        return 0.0
    (began, first), (ended, last) = changes[0], changes[-1]
    return max(0.0, (last - first) / (ended - began))


def _counter(file: _core.StreamFile) -> int:
    return int(file.metadata["cnt0"])


def _opened(name: str, shm_dir: Path | str | None) -> _core.StreamFile:
    from vampires import _core

    directory = _core.stream_directory() if shm_dir is None else str(shm_dir)
    return _core.StreamFile.open(directory, name)


def _frame_shape(file: _core.StreamFile) -> tuple[int, int]:
    ny, nx = (1, *file.shape)[-2:]
    return ny, nx


def _keywords(file: _core.StreamFile) -> dict[str, KeywordValue]:
    from vampires.keywords import decode_keywords

    return {keyword.name: keyword.value for keyword in decode_keywords(file.keywords_raw())}


def _rate(value: object) -> float:
    number = float(value) if isinstance(value, (int, float)) else 0.0
    return number if 0 < number < float("inf") else 0.0


def mode_names(shape: tuple[int, int], cameras: Iterable[int]) -> list[str]:
    """Names of the camera modes whose crop has this shape [ny, nx] on one of the cameras."""
    from vampires.instrument.file import instrument_on

    return [
        mode.name
        for mode in instrument_on().modes.values()
        if any(mode.crops[camera].shape == shape for camera in cameras)
    ]
