"""The facts of the instrument from their files: which hold on a day, and what is wrong.

>>> from vampires.instrument.file import instrument_on
>>> instrument_on().crop("STANDARD").shape
(536, 536)

A file is a list of states, each from its date on. Those of the packaged file and of the
instrument scientist's are put in order of their dates (the scientist's after the packaged one
of the same day), and each adds to what held before it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires.config import (
    INSTRUMENT_VARIABLE,
    PACKAGED_CONFIG,
    ConfigError,
    find_file,
    read_tables,
)
from vampires.instrument.cameras import CAMERAS, Crop
from vampires.instrument.facts import (
    Detector,
    Geometry,
    Instrument,
    Mode,
    Polarimetry,
    Readout,
)

if TYPE_CHECKING:
    from vampires.instrument.tables import ModeTable, ReadoutTable, StateTable

FILE_NAME = "instrument.toml"
PACKAGED_FILE = PACKAGED_CONFIG.with_name(FILE_NAME)
VERSION = 1

_KEYS = ("version", "state")


class InstrumentError(ConfigError):
    """The facts cannot be used: a line for each fault, with file, state and key."""


@dataclass(frozen=True)
class DatedState:
    """A state as its file has it: the values that change on a day (UTC)."""

    since: datetime.date
    values: Mapping[str, Any]
    place: str  # file and state, for messages


def own_file() -> Path | None:
    """The instrument scientist's file in use; None where there is none."""
    return find_file(INSTRUMENT_VARIABLE, FILE_NAME)


def instrument_on(day: datetime.date | None = None) -> Instrument:
    """The facts that hold on a day, UTC; by default today's. Files are read once a process.

    Raises
    ------
    InstrumentError
        A file is wrong, or the day is before the first state.
    """
    day = _today() if day is None else day
    found = [instrument for instrument in _instruments() if instrument.since <= day]
    if not found:
        first = _instruments()[0].since
        raise InstrumentError([f"found the day {day}, expected {first} or later"])
    return found[-1]


def instrument_of(day: str | None) -> Instrument:
    """The facts of a day in text, YYYY-MM-DD UTC; of today where it is None. ValueError for
    text that is no day; else as instrument_on."""
    return instrument_on(datetime.date.fromisoformat(day) if day else None)


def read_instruments(file: Path | None) -> list[Instrument]:
    """The states of the instrument in order of time, with those of a file besides the
    packaged ones. Raises InstrumentError."""
    states = read_states(PACKAGED_FILE) + (read_states(file) if file else [])
    states.sort(key=lambda state: state.since)  # of one day: the packaged first
    instruments: dict[datetime.date, Instrument] = {}
    values: dict[str, Any] = {}
    for state in states:
        values = _merged(values, state.values)
        instruments[state.since] = _instrument(values, state)
    return list(instruments.values())


def read_states(file: Path) -> list[DatedState]:
    """The states in a file, unmerged, in its order. Raises InstrumentError."""
    tables = read_tables(file, InstrumentError)
    unknown = [key for key in tables if key not in _KEYS]
    if unknown:
        expected = "version and tables [[state]]"
        raise InstrumentError([f"{file}: found {unknown[0]}, expected {expected}"])
    if tables.get("version") != VERSION or isinstance(tables["version"], bool):
        found = tables.get("version", "nothing")
        raise InstrumentError([f"{file}: version: found {found}, expected {VERSION}"])
    states = tables.get("state", [])
    if not isinstance(states, list) or not all(isinstance(state, dict) for state in states):
        raise InstrumentError([f"{file}: state: found a value, expected tables [[state]]"])
    return [_dated(state, f"{file}: state {n}") for n, state in enumerate(states, 1)]


def _dated(state: dict[str, Any], place: str) -> DatedState:
    since = state.get("from")
    if type(since) is not datetime.date:
        found = "nothing" if since is None else since
        raise InstrumentError([f"{place}: from: found {found}, expected a date: 2026-12-31"])
    values = {key: value for key, value in state.items() if key != "from"}
    return DatedState(since, values, f"{place} (from {since})")


def _merged(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, any other value takes the place of the one before."""
    merged = deepcopy(dict(before))
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else deepcopy(value)
    return merged


@cache
def _instruments() -> tuple[Instrument, ...]:
    return tuple(read_instruments(own_file()))


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()


# -- from tables to facts ---------------------------------------------------------------------


def _instrument(values: Mapping[str, Any], state: DatedState) -> Instrument:
    """The facts with this state. What is wrong is this state's doing: it was right before."""
    from vampires.instrument.faults import state_faults

    table, faults = state_faults(values)
    if table is None:
        raise InstrumentError([f"{state.place}: {fault}" for fault in faults])
    return Instrument(
        name=table.name,
        since=state.since,
        sensor_shape=(table.sensor.rows, table.sensor.columns),
        pixel_mm=table.sensor.pixel_mm,
        bias_adu=table.sensor.bias_adu,
        focal_ratio=table.optics.focal_ratio,
        field_arcsec=table.optics.field_arcsec,
        half_width_us=table.trigger.half_width_us,
        bands_nm=table.bands_nm,
        readouts={"FAST": _readout(table.readout.FAST), "SLOW": _readout(table.readout.SLOW)},
        geometry=_geometry(table),
        modes={name: _mode(name, mode) for name, mode in table.modes.items()},
        polarimetry=Polarimetry(
            table.polarimetry.beamsplitter,
            table.polarimetry.tolerance_mm,
            table.polarimetry.stages_mm,
        ),
        tables=values,
    )


def _readout(table: ReadoutTable) -> Readout:
    detectors = {
        camera: Detector(noise.gain_e_per_adu, noise.read_noise_e, noise.dark_e_per_s)
        for camera, noise in zip(CAMERAS, (table.vcam1, table.vcam2), strict=True)
    }
    row_s = 1 / table.max_rate_hz / table.max_rate_rows
    exposure_s = table.min_exposure_us * 1e-6
    return Readout(table.frame_jitter_us, exposure_s, row_s, detectors, table.line_time_us)


def _geometry(table: StateTable) -> dict[int, Geometry]:
    both = (table.cameras.vcam1, table.cameras.vcam2)
    return {
        number: Geometry(camera.scale_mas, camera.pa_deg, camera.hotspots)
        for number, camera in zip(CAMERAS, both, strict=True)
    }


def _mode(name: str, table: ModeTable) -> Mode:
    crops = {1: Crop(*table.vcam1), 2: Crop(*table.vcam2)}
    return Mode(name, crops, table.rate_hz, table.fields or (), table.obs_mod)
