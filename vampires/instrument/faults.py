"""What is wrong with a state of the instrument. Imports pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError

from vampires.instrument.tables import NO_FIELD, StateTable
from vampires.table_faults import closest, fault_line, value_line
from vampires.table_model import Table


class _File(Table):
    """A state under the name it has in its file, so that messages name it."""

    state: StateTable = Field(description="a table [[state]]")


def state_faults(values: Mapping[str, Any]) -> tuple[StateTable | None, list[str]]:
    """All facts of a state, or None and what is wrong, a line for each fault."""
    try:
        table = _File.model_validate({"state": values}).state
    except ValidationError as error:
        return None, [fault_line(fault, _File) for fault in error.errors(include_url=False)]
    faults = [*_mode_faults(table), *_camera_faults(table)]
    return (None if faults else table), faults


def _mode_faults(state: StateTable) -> Iterator[str]:
    columns, rows = state.sensor.columns, state.sensor.rows
    for name, mode in state.modes.items():
        for camera in ("vcam1", "vcam2"):
            x0, x1, y0, y1 = window = getattr(mode, camera)
            if not (x0 <= x1 < columns and y0 <= y1 < rows):
                where = ("state", "modes", name, camera)
                text = ", ".join(map(str, window))
                allowed = f"first and last pixels of a sensor of {columns} x {rows}"
                yield value_line(where, f"[{text}]", allowed)
        named = [field for field in mode.fields or () if field != NO_FIELD]
        if len(set(named)) != len(named) or (mode.fields and len(state.bands_nm) < 4):
            where = ("state", "modes", name, "fields")
            yield value_line(where, ", ".join(named), "four fields, each once, or NA")
        for field in mode.fields or ():
            if field != NO_FIELD and field not in state.bands_nm:
                known = [*state.bands_nm, NO_FIELD]
                allowed = f"one of {', '.join(known)}{closest(field, known)}"
                yield value_line(("state", "modes", name, "fields"), field, allowed)


def _camera_faults(state: StateTable) -> Iterator[str]:
    for camera in ("vcam1", "vcam2"):
        facts = getattr(state.cameras, camera)
        where = ("state", "cameras", camera)
        if 0 in facts.scale_mas:
            yield value_line((*where, "scale_mas"), 0, "two numbers other than 0")
        for field in state.bands_nm:
            if field not in facts.hotspots:
                allowed = "x and y on the sensor"
                yield f"{'.'.join(where)}.hotspots.{field}: found nothing, expected {allowed}"
        for field, (x, y) in facts.hotspots.items():
            if field not in state.bands_nm:
                allowed = f"fields of [state.bands_nm]: {', '.join(state.bands_nm)}"
                yield value_line((*where, "hotspots"), field, allowed)
            if not (x < state.sensor.columns and y < state.sensor.rows):
                allowed = "a pixel of the sensor"
                yield value_line((*where, "hotspots", field), f"[{x:g}, {y:g}]", allowed)
