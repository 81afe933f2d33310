"""OBS-MOD, filters and angles, as they follow from the instrument's database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires.instrument.file import instrument_on
from vampires.instrument.observing_mode import (
    database_keywords,
    image_rotation_deg,
    observing_mode,
)

PBS = {"U_BS": "PBS"}


def mode_of(mode: str = "STANDARD", **database) -> str:
    return observing_mode(instrument_on(), mode, database)


@pytest.mark.parametrize(
    "database",
    [
        {"P_STGPS2": 56.0}, {"P_STGPS2": 55.001}, {"P_STGPS2": 56.999},
        {"P_STGPS1": 55.2}, {"P_STGPS1": 54.21}, {"P_STGPS1": 90}, {"P_STGPS1": 90.99},
        {"X_POLAR": "IN"}, {"X_POLAR": " in "},
    ],
)  # fmt: skip
def test_it_is_polarimetry_with_the_beamsplitter_and_something_in_the_beam(database):
    assert mode_of(**PBS, **database) == "IPOL"
    assert mode_of(U_BS=" pbs ", **database) == "IPOL"
    for other in ({}, {"U_BS": "NPBS"}, {"U_BS": "Open"}, {"U_BS": 1}):
        assert mode_of(**other, **database) == "IMAG"


@pytest.mark.parametrize(
    "database",
    [
        {}, {"P_STGPS2": 55.0}, {"P_STGPS2": 57.0}, {"P_STGPS2": 90.0}, {"P_STGPS1": 56.3},
        {"P_STGPS1": 89.0}, {"P_STGPS1": True}, {"P_STGPS1": "90"}, {"X_POLAR": "OUT"},
        {"X_POLAR": ""},
    ],
)  # fmt: skip
def test_it_is_imaging_else(database):
    assert mode_of(**PBS, **database) == "IMAG"


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("MBI", "_MBI"), ("MBI_JEWEL", "_MBI"), ("MBI_REDUCED", "_MBIR"),
        ("MBI_ONEHALF", "_MBIR"), ("mbi", "_MBI"), ("STANDARD", ""), ("PUPIL", ""), ("", ""),
        ("NOMODE", ""),
    ],
)  # fmt: skip
def test_the_camera_mode_gives_the_ending(mode, ending):
    assert mode_of(mode) == f"IMAG{ending}"
    pupil = ending or "_PUP"
    assert mode_of(mode, U_PUPST="in ") == f"IMAG{pupil}"
    assert mode_of(mode, U_PUPST="OUT") == f"IMAG{ending}"
    sdi = {"U_DIFFL1": "Halpha", "U_DIFFL2": "Ha-Cont", "U_PUPST": "IN"}
    assert mode_of(mode, **sdi) == "IMAG_SDI"


@pytest.mark.parametrize("blocked", ["Open", "BLOCK", "unknown", "", None])
@pytest.mark.parametrize("wheel", ["U_DIFFL1", "U_DIFFL2"])
def test_a_wheel_that_is_open_blocked_or_unknown_is_no_differential_imaging(wheel, blocked):
    wheels = {"U_DIFFL1": "SII", "U_DIFFL2": "SII-Cont"}
    assert mode_of(**wheels) == "IMAG_SDI"
    assert mode_of(**{**wheels, wheel: blocked}) == "IMAG"


ANGLES = (
    "X_POLARP", "D_IMRANG", "D_IMRPAD", "U_QWP1", "U_QWP1TH", "U_QWP2", "U_QWP2TH", "RET-ANG1",
    "RET-ANG2", "RET-POS1", "RET-POS2",
)  # fmt: skip


def test_each_keyword_is_there_when_the_database_is_silent():
    found = database_keywords(instrument_on(), "MBI", 1, {})
    values = {name: value for name, (value, _) in found.items()}
    expected = {
        "OBS-MOD": "IMAG_MBI", "FILTER01": "Unknown", "FILTER02": "Unknown", "D_IMRPAD": 0.0,
        **dict.fromkeys(set(ANGLES) - {"D_IMRPAD"}, -1.0),
    }  # fmt: skip
    assert values == expected
    assert all(
        comment.endswith("not known") for n, (_, comment) in found.items() if n in ANGLES
    )
    assert image_rotation_deg({}) == 0.0


@pytest.mark.parametrize(("camera", "wheel"), [(1, "U_DIFFL1"), (2, "U_DIFFL2")])
def test_values_are_those_of_the_database(camera, wheel):
    database = {name: 10.5 + n for n, name in enumerate(ANGLES)}
    database |= {"U_FILTER": "750-50 ", wheel: "Halpha", "FILTER01": "of others"}
    found = database_keywords(instrument_on(), "STANDARD", camera, database)
    assert {name: found[name][0] for name in ANGLES} == {n: database[n] for n in ANGLES}
    assert (found["FILTER01"][0], found["FILTER02"][0]) == ("750-50", "Halpha")
    assert image_rotation_deg(database) == database["D_IMRPAD"]


def test_a_filter_that_somebody_else_gives_is_kept():
    given = {"FILTER01": "625-50", "FILTER02": "Open"}
    found = database_keywords(instrument_on(), "STANDARD", 1, given)
    assert {name: found[name][0] for name in given} == given


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)


keywords = st.sampled_from(
    (*ANGLES, "U_BS", "X_POLAR", "U_FILTER", "U_DIFFL1", "U_DIFFL2", "U_PUPST", "P_STGPS1")
)


@given(st.dictionaries(keywords, anything))
def test_whatever_the_database_holds_the_keywords_fit_a_stream(database):
    for value, _ in database_keywords(instrument_on(), "MBI", 1, database).values():
        assert isinstance(value, float) or (isinstance(value, str) and 0 < len(value) <= 15)
