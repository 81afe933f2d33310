"""Pairs of frames, states of the liquid crystal and stars in the multiband fields: as a reader
finds them in the files, against what the simulator is known to have done.

The simulator's schedule: both cameras take frame k of a common count that began in 1970, at
k intervals of 1/FRATE, and twice the half-width U_TRIGJT later for each pair of frames before
it; late by the jitter of the readout mode at most. The crystal switches with each frame, so
the parity of k is its state. None of it is computed with the package's own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from reduction_checks import SETS, Fault, RawCube

PAIR_US = 400  # frames of both cameras that are closer belong together
JITTER_US = {"FAST": 7.2, "SLOW": 172.8}
WINDOW = 536  # side of the window that the reduction cuts for a field
STAR_PIXELS = 2.0  # so far the brightest pixel may be from the coordinates' reference
# Middle of each field's window, as fractions of half the frame in x and y.
WINDOWS = {"F610": (0.25, 1.5), "F670": (0.25, 0.5), "F720": (0.75, 0.5), "F760": (1.75, 0.5)}

AFTER_LONG, BEFORE_LONG = "A", "B"  # states, by the longer interval beside the frame
_TRUNCATED_NS = 1000  # the sidecar's times are cut to a microsecond


@dataclass(frozen=True)
class Frames:
    """Frames of one camera in the order of their times. triggers: the number k of each, None
    for one that does not fit the schedule; names: of their cubes."""

    acquired_us: np.ndarray
    triggers: list[int | None]
    names: list[str]


def frames_of(cubes: Sequence[RawCube]) -> Frames:
    """All frames of some cubes of a camera."""
    found = [
        (acquired_us, trigger_number(cube, acquired_us), cube.name)
        for cube in cubes
        for acquired_us in cube.acquired_us
    ]
    found.sort(key=lambda frame: frame[0])
    times_us, triggers, names = zip(*found, strict=True) if found else ((), (), ())
    return Frames(np.array(times_us, np.int64), list(triggers), list(names))


def trigger_number(cube: RawCube, acquired_us: int) -> int | None:
    """The number of the trigger at which a frame was taken; None where there was none."""
    header = cube.header
    interval_ns = 10**9 / Fraction(header["FRATE"]).limit_denominator(1000)
    pair_ns = 2 * interval_ns + 2 * round(header["U_TRIGJT"] * 1000)
    pair, into_ns = divmod(acquired_us * 1000 + _TRUNCATED_NS, pair_ns)
    late_ns = JITTER_US[header["U_DETMOD"]] * 1000 + 2 * _TRUNCATED_NS
    for second in (1, 0):
        if 0 <= into_ns - second * interval_ns <= late_ns:
            return 2 * int(pair) + second
    return None


def schedule_faults(frames: Frames) -> Iterator[Fault]:
    """Each frame was triggered, and none is in the files twice."""
    for name, trigger in zip(frames.names, frames.triggers, strict=True):
        if trigger is None:
            yield Fault("not triggered", name)
    if len(set(frames.triggers)) != len(frames.triggers):
        yield Fault("twice", frames.names[0])


# -- pairs ------------------------------------------------------------------------------------


def pairs(one: np.ndarray, two: np.ndarray) -> list[tuple[int, int]]:
    """Indices of the frames of both cameras that are nearest to each other and near enough."""
    if not len(one) or not len(two):
        return []
    there, back = _nearest(one, two), _nearest(two, one)
    return [
        (k, int(there[k]))
        for k in range(len(one))
        if back[there[k]] == k and abs(one[k] - two[there[k]]) <= PAIR_US
    ]


def _nearest(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """For each of these times the index of the nearest of those."""
    after = np.searchsorted(those, these).clip(1, max(1, len(those) - 1))
    after = np.minimum(after, len(those) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(these - those[before]) <= np.abs(those[after] - these)
    return np.where(nearer, before, after)


def pairing_faults(one: Frames, two: Frames) -> Iterator[Fault]:
    """By their times, exactly the frames of common triggers are paired."""
    paired = pairs(one.acquired_us, two.acquired_us)
    for first, second in paired:
        if one.triggers[first] != two.triggers[second]:
            yield Fault("paired wrongly", one.names[first], (first, second))
    left_out = set(one.triggers) & set(two.triggers) - {one.triggers[k] for k, _ in paired}
    for trigger in left_out:
        yield Fault("not paired", one.names[one.triggers.index(trigger)], trigger)


# -- states -----------------------------------------------------------------------------------


def states(acquired_us: np.ndarray) -> list[str]:
    """State of each frame by the length of the intervals beside it; "" where neither of them is
    without a gap. The threshold is in the middle between the shortest and the longest
    interval, half of the asymmetry away from both."""
    steps = np.diff(acquired_us)
    if not len(steps) or steps.min() <= 0:
        return [""] * len(acquired_us)
    whole = steps < 1.5 * steps.min()
    threshold = (steps[whole].min() + steps[whole].max()) / 2
    found = []
    for k in range(len(acquired_us)):
        if k > 0 and whole[k - 1]:
            found.append(AFTER_LONG if steps[k - 1] > threshold else BEFORE_LONG)
        elif k < len(steps) and whole[k]:
            found.append(BEFORE_LONG if steps[k] > threshold else AFTER_LONG)
        else:
            found.append("")
    return found


def state_faults(frames: Frames) -> Iterator[Fault]:
    """The state of each frame is right, where one of its neighbours is in the files too."""
    there = set(frames.triggers)
    for name, trigger, state in zip(
        frames.names, frames.triggers, states(frames.acquired_us), strict=True
    ):
        if trigger is None:
            continue
        truth = BEFORE_LONG if trigger % 2 else AFTER_LONG
        alone = trigger - 1 not in there and trigger + 1 not in there
        if state != ("" if alone else truth):
            yield Fault("state", name, (trigger, state))


# -- stars ------------------------------------------------------------------------------------


def star_faults(cube: RawCube) -> Iterator[Fault]:
    """In the window of each field that the mode has, the brightest star is that field's by the
    coordinates of its name."""
    header = cube.header
    picture = cube.pixels().mean(axis=0)
    sets = {header[f"WCSNAME{end}"]: end for end in SETS}
    reduced = header["OBS-MOD"].endswith("_MBIR")
    expected = set(WINDOWS) - ({"F610"} if reduced else set())
    if set(sets) - {"NA"} != expected:
        yield Fault("fields", cube.name, sorted(sets))
        return
    for field in sorted(expected):
        x, y = _brightest(picture, *_window(field, picture.shape, header["U_CAMERA"], reduced))
        end = sets[field]
        away = np.hypot(x - (header[f"CRPIX1{end}"] - 1), y - (header[f"CRPIX2{end}"] - 1))
        if not away <= STAR_PIXELS:
            yield Fault("star", cube.name, (field, x, y))


def _window(
    field: str, shape: tuple[int, int], camera: int, reduced: bool
) -> tuple[slice, slice]:
    """Rows and columns of a field's window in a raw frame."""
    ny, nx = shape
    in_x, in_y = WINDOWS[field]
    x, y = in_x * (nx - 1) / 2, in_y * (ny - 1) / 2
    if reduced:
        y *= 2
    if camera == 1:
        y = ny - y
    rows, columns = (
        slice(max(0, round(middle) - WINDOW // 2), round(middle) + WINDOW // 2)
        for middle in (y, x)
    )
    return rows, columns


def _brightest(picture: np.ndarray, rows: slice, columns: slice) -> tuple[int, int]:
    """x, y of the brightest pixel within a window."""
    cut = picture[rows, columns]
    y, x = np.unravel_index(int(cut.argmax()), cut.shape)
    return columns.start + int(x), rows.start + int(y)
