"""OBS-MOD and the other keywords that follow from the instrument's database: pure functions.

The values come from the auxiliary header, where headerd puts what the database says; each of
them may be missing. The rules are those of the instrument's reduction and archive.
"""

from __future__ import annotations

from collections.abc import Mapping

from vampires.instrument.facts import Instrument
from vampires.keywords import STRING_CHARS, KeywordValue

UNKNOWN = "Unknown"
NOT_SORTED = "NA"
"""U_FLC before the frames are sorted by the state of the liquid crystal."""

NO_ANGLE = -1.0
"""An angle that the database does not give."""

_NO_FILTER = ("UNKNOWN", "OPEN", "BLOCK")  # of the differential wheels
_DIFFERENTIAL = {1: "U_DIFFL1", 2: "U_DIFFL2"}  # by camera
# Polled with each frame's keywords, since they tell its polarisation.
_ANGLES = {
    "X_POLARP": "[deg] angle of the polariser",
    "D_IMRANG": "[deg] angle of the image rotator",
    "D_IMRPAD": "[deg] image rotator, PA of dec. axis",
    "U_QWP1": "[deg] quarter-wave plate 1, polarisation",
    "U_QWP1TH": "[deg] quarter-wave plate 1, wheel",
    "U_QWP2": "[deg] quarter-wave plate 2, polarisation",
    "U_QWP2TH": "[deg] quarter-wave plate 2, wheel",
    "RET-ANG1": "[deg] polarisation angle, retarder 1",
    "RET-ANG2": "[deg] polarisation angle, retarder 2",
    "RET-POS1": "[deg] stage angle, retarder 1",
    "RET-POS2": "[deg] stage angle, retarder 2",
}
_IF_SILENT = {"D_IMRPAD": 0.0}  # the rotation that the coordinates then have

Database = Mapping[str, KeywordValue | None]
"""Keywords and values of the instrument's database, as far as it gave them."""


def image_rotation_deg(database: Database) -> float:
    """D_IMRPAD in degrees; 0 where it is not known."""
    return _number(database, "D_IMRPAD") or 0.0


def observing_mode(instrument: Instrument, mode: str, database: Database) -> str:
    """OBS-MOD. mode: name of the camera mode, "" for none."""
    base = "IPOL" if is_polarimetry(instrument, database) else "IMAG"
    return base + _ending(instrument, mode, database)


def is_polarimetry(instrument: Instrument, database: Database) -> bool:
    """Whether the beamsplitter polarises, and what makes use of that is in the beam."""
    rules = instrument.polarimetry
    if _text(database, "U_BS") != rules.beamsplitter.upper():
        return False
    if _text(database, "X_POLAR") == "IN":
        return True
    return any(
        abs(position - place) < rules.tolerance_mm
        for keyword, places in rules.stages_mm.items()
        if (position := _number(database, keyword)) is not None
        for place in places
    )


def _ending(instrument: Instrument, mode: str, database: Database) -> str:
    wheels = [_text(database, keyword) or _NO_FILTER[0] for keyword in _DIFFERENTIAL.values()]
    if not any(wheel in _NO_FILTER for wheel in wheels):
        return "_SDI"
    named = instrument.modes.get(mode.upper())
    if named is not None and named.obs_mod:
        return named.obs_mod
    return "_PUP" if _text(database, "U_PUPST") == "IN" else ""


def database_keywords(
    instrument: Instrument, mode: str, camera: int, database: Database
) -> dict[str, tuple[KeywordValue, str]]:
    """Keywords of a science camera that follow from the database, with comments; each is there,
    also where the database says nothing."""
    first = database.get("U_FILTER") or database.get("FILTER01")
    second = database.get(_DIFFERENTIAL[camera]) or database.get("FILTER02")
    found: dict[str, tuple[KeywordValue, str]] = {
        "OBS-MOD": (observing_mode(instrument, mode, database), "observing mode"),
        "FILTER01": (_filter(first), "first filter"),
        "FILTER02": (_filter(second), "second filter: differential wheel"),
    }
    for keyword, comment in _ANGLES.items():
        value = _number(database, keyword)
        if value is None:
            found[keyword] = (_IF_SILENT.get(keyword, NO_ANGLE), f"{comment}: not known")
        else:
            found[keyword] = (value, comment)
    return found


def _filter(value: KeywordValue | None) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return (text or UNKNOWN)[:STRING_CHARS]


def _text(database: Database, keyword: str) -> str:
    """In capitals; "" where it is missing."""
    value = database.get(keyword)
    return value.strip().upper() if isinstance(value, str) else ""


def _number(database: Database, keyword: str) -> float | None:
    value = database.get(keyword)
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if numeric else None  # type: ignore[arg-type]
