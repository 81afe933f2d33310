"""Headers against what the readers of the cubes want, keyword by keyword."""

from __future__ import annotations

import pytest
from fitswatch_cubes import Take, make_cube

from vampires.fits_cards import keyword_dictionary, value_field
from vampires.fits_hdus import Cards, read_primary
from vampires.header_rules import DATA_TYPES, HeaderFault, header_faults

FIRST_NS = 1_795_337_618_973_218_918  # 2026-11-22T08:53:38


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The cards of a header without a fault."""
    folder = tmp_path_factory.mktemp("cube")
    return read_primary(make_cube(folder, "vcam1", Take(FIRST_NS))).cards.raw


def changed(raw: bytes, **fields: str | None) -> Cards:
    """The header with other value fields; _ stands for -, None takes the card away."""
    cards = [raw[at : at + 80] for at in range(0, len(raw), 80)]
    for name, field in fields.items():
        start = f"{name.replace('__', '_') if '__' in name else name.replace('_', '-'):<8}= "
        cards = [card for card in cards if not card.startswith(start.encode())]
        if field is not None:
            cards.append(f"{start}{field}".encode().ljust(80))
    return Cards(b"".join(cards))


def told(cards: Cards, **options: bool) -> dict[str, HeaderFault]:
    faults = header_faults(cards, **options)
    assert all("\n" not in fault.text for fault in faults)
    return {fault.keyword: fault for fault in faults}


def test_a_cube_with_every_keyword_has_no_fault(raw):
    assert header_faults(Cards(raw)) == []


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("NAXIS", "2", "expected 3, even for one frame"),
        ("BZERO", "T", "expected 32768"),
        ("BZERO", "0.5", "expected 32768"),
        ("BSCALE", "2", "expected 1"),
        ("DATE", "'2026-11-22T08:53:38.5'", "no fraction"),
        ("DATE", "'2026-11-22'", "YYYY-MM-DDTHH:MM:SS"),
        ("DATE_OBS", "'2026-11-22T08:53:38'", "a date only"),
        ("DATE_OBS", "'2026-02-30'", "a date only"),
        ("TIMESYS", "'TAI'", "'UTC'"),
        ("UT_STR", "'08:53:38.97'", "HH:MM:SS.ffffff"),
        ("UT_END", "'08:53:60.000000'", "seconds below 60"),
        ("HST", "8.5", "HH:MM:SS.ffffff"),
        ("UT_END", "'00:00:01.000000'", "no earlier than UT-STR"),
        ("UT", "'09:00:00.000000'", "between UT-STR and UT-END"),
        ("HST_STR", "'08:53:38.973218'", "10 h less than UT-STR"),
        ("MJD", "61366.37", "8 decimals or more"),
        ("MJD_STR", "'61366.37058997'", "8 decimals or more"),
        ("MJD_END", "61367.37059280", "from DATE-OBS and UT-END"),
        ("DATA_TYP", "'SCIENCE'", "one of 'ACQUISITION', 'BIAS'"),
        ("U__CAMERA", "3", "one of 1, 2"),
        ("U__DETMOD", "'Fast'", "one of 'FAST', 'SLOW'"),
        ("DETECTOR", "'VCAM1'", "one of 'VCAM1 - OrcaQ'"),
        ("DETECTOR", "'VCAM2 - OrcaQ'", "as U_CAMERA is 1"),
        ("EXTTRIG", "'#TRUE#'", "the logical T or F"),
        ("CROPPED", "1", "the logical T or F"),
        ("PRD_MIN1", "3.5", "a whole number"),
        ("EXPTIME", "'fast'", "a number"),
        ("EXPTIME", "-1.0", "0 or more"),
        ("OBJECT", "5", "a string"),
        ("OBS_MOD", "'MBI'", "IPOL or IMAG"),
        ("FILTER01", "'open", "is no FITS value"),
        ("U__FLC", "'OUT'", "one of 'NA', 'A', 'B', 'D'"),
        ("F_RATIO", "'21'", "a number"),
        ("U__QWP1TH", "T", "a number"),
    ],
)
def test_a_broken_rule_is_an_error_that_names_the_keyword(raw, name, field, expected):
    keyword = name.replace("__", "_") if "__" in name else name.replace("_", "-")
    fault = told(changed(raw, **{name: field}))[keyword]
    assert fault.level == "error"
    assert fault.text.startswith(keyword) and expected in fault.text


@pytest.mark.parametrize("card", [b"", b"         / WEATHER", b"        = 1"])
def test_a_card_without_a_keyword_is_an_error_that_says_where(raw, card):
    (fault,) = header_faults(Cards(raw + card.ljust(80) * 2))
    assert (fault.keyword, fault.level) == ("", "error")
    assert f"first card {len(raw) // 80 + 1}" in fault.text


@pytest.mark.parametrize("kind", DATA_TYPES)
def test_every_data_type_of_the_archive_is_good(raw, kind):
    assert told(changed(raw, DATA_TYP=f"'{kind}'")) == {}


@pytest.mark.parametrize("strict", [False, True])
def test_the_numbers_of_the_archives_header_program_are_good(raw, strict):
    """It writes them as the dictionary has them, %20.8f."""
    cards = changed(raw, BZERO="      32768.00000000", BSCALE="1.00000000")
    levels = {fault.level for fault in header_faults(cards, strict=strict)}
    assert levels <= {"warning"} and not {"BZERO", "BSCALE"} & told(cards, strict=strict).keys()


@pytest.mark.parametrize(
    "mode", ["IPOL", "IMAG", "IPOL_MBI", "IMAG_MBIR", "IPOL_SDI", "IMAG_PUP"]
)
def test_every_observing_mode_is_good(raw, mode):
    assert told(changed(raw, OBS_MOD=f"'{mode}'")) == {}


def test_an_ending_of_obs_mod_that_nobody_knows_is_worth_a_warning(raw):
    assert told(changed(raw, OBS_MOD="'IMAG_XYZ'"))["OBS-MOD"].level == "warning"


def test_what_the_logger_writes_must_be_there_and_the_rest_should(raw):
    for name in ("DATE", "DATE-OBS", "UT", "HST-END", "MJD-STR"):
        fault = told(changed(raw, **{name.replace("-", "_"): None}))[name]
        assert (fault.level, fault.text) == ("error", f"{name} is missing")
    for name in ("DATA-TYP", "OBJECT", "F-RATIO", "PRD-MIN1", "CTYPE1D"):
        cards = changed(raw, **{name.replace("-", "_"): None})
        assert told(cards)[name].level == "warning"
        assert told(cards, strict=True)[name].level == "strict"
    assert told(changed(raw, OBJECT=""))["OBJECT"].text == "OBJECT has no value"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["FILTER01", "FILTER02", "U_FLC", "RET-ANG1", "D_IMRANG"])
def test_a_cube_of_a_science_camera_has_what_its_readers_stop_without(raw, name, strict):
    without = changed(raw, **{name.replace("_", "__").replace("-", "_"): None})
    assert (told(without, strict=strict)[name].level) == "error"
    of_another = Cards(b"".join(
        raw[at : at + 80] for at in range(0, len(raw), 80)
        if not raw.startswith((b"U_CAMERA=", f"{name:<8}=".encode()), at)
    ))  # fmt: skip
    assert all(fault.level != "error" for fault in told(of_another, strict=strict).values())


@pytest.mark.parametrize(
    "name", ["F-RATIO", "DETBIAS", "X_POLARP", "D_IMRPAD", "U_QWP1", "U_QWP2TH", "RET-POS2"]
)
def test_what_is_missing_of_a_science_camera_is_worth_a_warning(raw, name):
    fields = {name.replace("_", "__").replace("-", "_"): None}
    assert told(changed(raw, **fields))[name].level == "warning"
    assert told(changed(raw, **fields), strict=True)[name].level == "strict"
    assert told(changed(raw, **fields, U__CAMERA=None)).keys() == {"U_CAMERA"}


def test_a_number_that_fits_has_none_for_is_worth_a_warning(raw):
    assert told(changed(raw, DET_TMP="'NaN     '"))["DET-TMP"].level == "warning"


def test_hawaii_is_a_day_behind_after_midnight_there(tmp_path):
    for hour in (0, 9, 10, 23):
        first_ns = (
            FIRST_NS // 86_400_000_000_000 * 86_400_000_000_000 + hour * 3_600_000_000_000
        )
        path = make_cube(tmp_path, "vcam1", Take(first_ns))
        assert header_faults(read_primary(path).cards) == []


def test_pixels_of_every_type_are_good(tmp_path):
    for dtype in ("uint8", "int8", "int16", "uint16", "int32", "uint32", "uint64", "float32"):
        path = make_cube(tmp_path / dtype, "vcam1", Take(FIRST_NS, dtype=dtype))
        assert header_faults(read_primary(path).cards) == [], dtype


# -- the dictionary ---------------------------------------------------------------------------


def test_the_dictionary_has_392_keywords():
    assert len(keyword_dictionary()) == 392


def test_a_cube_of_the_logger_has_the_formats_of_the_dictionary(raw):
    faults = header_faults(Cards(raw), strict=True)
    assert {fault.level for fault in faults} == {"warning"}
    assert all(fault.text == f"{fault.keyword} is missing" for fault in faults)


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("AIRMASS", "1.0", "AIRMASS is 1.0; expected 1.000 (format %20.3f)"),
        ("AIRMASS", "1.0000E0", "expected 1.000"),
        ("U__BS", "'x'", "expected 'x                   ' (format %-20s)"),
        ("U__BS", "5", "expected the format %-20s"),
        ("X__GRDMOD", "5.0", "expected the format %16d"),
        ("U__TRIGEN", "1", "expected the format BOOLEAN"),
        ("U__BS", "", "has no value"),
    ],
)
def test_strict_holds_each_value_against_its_format(raw, name, field, expected):
    keyword = name.replace("__", "_")
    cards = changed(raw, **{name: field})
    assert keyword not in told(cards)
    fault = told(cards, strict=True)[keyword]
    assert fault.level == "strict" and expected in fault.text


def test_a_value_its_format_cannot_hold_is_good_in_full(raw):
    for value in (1e-9, 1.5e17):
        cards = changed(raw, BIAS=value_field("BIAS", value))
        assert cards["BIAS"] == value and "BIAS" not in told(cards, strict=True)


def test_strict_never_raises_for_what_a_header_holds(raw):
    fault = told(changed(raw, U__BS="'open"), strict=True)["U_BS"]
    assert fault.level == "error" and "no FITS value" in fault.text
