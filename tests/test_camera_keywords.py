"""What a camera's stream says of it: keywords for the readers of the cubes, and coordinates."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from logger_process import Camera

from vampires import simulated_sky
from vampires.aux_header import AuxHeader
from vampires.camera.keywords import CameraIdentity, camera_keywords
from vampires.camera.settings import READOUT_MODES, CameraSettings, plain_camera, science_camera
from vampires.camera.source import Keywords
from vampires.cube_header import CubeFacts, cube_header, reserve_bytes
from vampires.fits_cards import keyword_dictionary
from vampires.fits_hdus import read_primary
from vampires.header_cards import Cards
from vampires.header_rules import DATA_TYPES, header_faults
from vampires.instrument.cameras import CAMERAS, Crop
from vampires.instrument.coordinates import SUFFIXES
from vampires.instrument.file import instrument_of, instrument_on
from vampires.instrument.observing_mode import database_keywords
from vampires.keywords import COMMENT_CHARS, NAME_CHARS, STRING_CHARS, encode_keyword

FIRST_NS = 1_795_337_618_973_218_918
EVERY_CAMERA = [
    (number, mode, readout)
    for number in CAMERAS
    for mode in instrument_on().modes
    for readout in READOUT_MODES
]


def settings_of(number: int, mode: str, readout: str = "FAST") -> CameraSettings:
    limits = science_camera(number)
    return limits.with_readout(limits.first_settings(mode), readout)


def science_keywords(number: int, mode: str, readout: str = "FAST") -> Keywords:
    identity = CameraIdentity(f"vcam{number}", number, object_name="HD 1")
    return camera_keywords(settings_of(number, mode, readout), identity)


def values(keywords: Keywords) -> dict:
    return {name: value for name, (value, _) in keywords.items()}


def raw_header(keywords: Keywords, shape: tuple[int, int] = (10, 12)) -> bytes:
    """The header of a cube of a stream with these keywords and nothing else."""
    facts = CubeFacts(
        "vcam1", "uint16", shape, 5, FIRST_NS, FIRST_NS + 80_000_000, "acquisition",
        1, 5, date_ns=FIRST_NS + 10**9, data_sum=0,
        keywords_raw=b"".join(encode_keyword(k, v, c) for k, (v, c) in keywords.items()),
    )  # fmt: skip
    return cube_header(facts, AuxHeader(), reserve_bytes(facts, AuxHeader()))


def as_cards(raw: bytes) -> Cards:
    end = next(at for at in range(0, len(raw), 80) if raw[at : at + 80].rstrip() == b"END")
    return Cards(raw[:end])


# What the readers want


@pytest.mark.parametrize(("number", "mode", "readout"), EVERY_CAMERA)
def test_no_reader_stumbles_over_what_a_camera_gives(number, mode, readout):
    keywords = science_keywords(number, mode, readout)
    faults = header_faults(as_cards(raw_header(keywords)), strict=True)
    assert [fault for fault in faults if fault.level == "error"] == []
    assert [fault for fault in faults if fault.keyword in keywords] == []


def test_a_camera_gives_every_keyword_of_its_class_but_the_measured_temperature():
    entries = keyword_dictionary().items()
    of_cameras = {name for name, entry in entries if entry.source_class == "SHM_CAMSTACK"}
    assert of_cameras - science_keywords(1, "MBI").keys() == {"DET-TMP"}


def test_a_camera_gives_what_readers_need_of_a_raw_cube():
    found = values(science_keywords(2, "STANDARD"))
    expected = {"F-RATIO": 21.3, "U_FLC": "NA", "DETBIAS": 200.0, "FILTER01": "Unknown"}
    assert {name: found[name] for name in expected} == expected


def test_where_the_telescope_points_stays_that_of_the_auxiliary_header():
    names = science_keywords(1, "MBI").keys()
    assert not names & {"CRVAL1", "CRVAL2D", "RA", "DEC"}
    unnamed = camera_keywords(settings_of(1, "MBI"), CameraIdentity("vcam1", 1))
    assert "OBJECT" not in unnamed


def test_keywords_fit_a_stream():
    long = CameraIdentity("vcam2", 2, object_name="a target with a very long name")
    keywords = camera_keywords(settings_of(2, "MBI_REDUCED", "SLOW"), long)
    for name, (value, comment) in keywords.items():
        assert len(name) <= NAME_CHARS and len(comment) <= COMMENT_CHARS
        assert not isinstance(value, str) or len(value) <= STRING_CHARS
    assert keywords["OBJECT"][0] == "a target with a"


@pytest.mark.parametrize("kind", DATA_TYPES)
def test_every_data_type_fits(kind):
    identity = CameraIdentity("vcam1", 1, data_type=kind)
    keywords = camera_keywords(settings_of(1, "STANDARD"), identity)
    assert keywords["DATA-TYP"][0] == kind


def test_values_are_those_of_the_settings_and_of_the_detector():
    settings = CameraSettings(
        "", Crop(100, 199, 50, 89), 0.25, 3.5, "SLOW", external_trigger=True
    )
    found = values(camera_keywords(settings, CameraIdentity("vcam2", 2), 3.4))
    expected = {
        "EXPTIME": 0.25, "FRATE": 3.5, "MFRATE": 3.4, "U_DETMOD": "SLOW", "EXTTRIG": "#TRUE#",
        "PRD-MIN1": 100, "PRD-MIN2": 50, "PRD-RNG1": 100, "PRD-RNG2": 40, "CROPPED": "#TRUE#",
        "BIN-FCT1": 1, "BIN-FCT2": 1, "U_CAMERA": 2, "DETECTOR": "VCAM2 - OrcaQ",
        "GAIN": 0.105, "BIAS": 200.0, "INST-PA": 129.99, "DETPXSZ1": 0.0046,
        "DETPXSZ2": 0.0046, "OBS-MOD": "IMAG", "BUNIT": "adu", "DATA-TYP": "TEST",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_the_observing_mode_follows_from_camera_mode_and_database():
    database = {"U_BS": "PBS", "X_POLAR": "IN", "U_FILTER": "Open"}
    identity = CameraIdentity("vcam1", 1)
    found = camera_keywords(settings_of(1, "MBI"), identity, database=database)
    assert (found["OBS-MOD"][0], found["FILTER01"][0]) == ("IPOL_MBI", "Open")
    window = settings_of(1, "STANDARD").with_values(mode="")
    assert camera_keywords(window, identity)["OBS-MOD"][0] == "IMAG"


def test_coordinates_may_be_left_out():
    identity = CameraIdentity("vcam1", 1)
    settings = settings_of(1, "MBI")
    without = camera_keywords(settings, identity, coordinates=False)
    left_out = camera_keywords(settings, identity).keys() - without.keys()
    assert len(left_out) == 4 * 13
    assert all(name.startswith(("C", "WCSNAME")) for name in left_out)


def test_only_the_whole_sensor_is_not_cropped():
    cropped = {mode: science_keywords(2, mode)["CROPPED"][0] for mode in instrument_on().modes}
    assert {mode for mode, value in cropped.items() if value == "#FALSE#"} == {"FULL"}
    unnamed = settings_of(1, "FULL").with_values(mode="")
    assert camera_keywords(unnamed, CameraIdentity("vcam1", 1))["CROPPED"][0] == "#FALSE#"


def test_any_other_camera_tells_what_makes_sense_for_it():
    limits = plain_camera((1024, 1280))
    settings = limits.first_settings("full")
    found = camera_keywords(settings, CameraIdentity("vpupcam", None))
    assert set(found) == {
        "EXPTIME", "FRATE", "MFRATE", "PRD-MIN1", "PRD-MIN2", "PRD-RNG1", "PRD-RNG2",
        "CROPPED", "BIN-FCT1", "BIN-FCT2", "EXTTRIG", "DATA-TYP", "BUNIT",
    }  # fmt: skip
    assert found["CROPPED"][0] == "#FALSE#"
    part = limits.with_crop(settings, Crop(0, 63, 0, 63))
    identity = CameraIdentity("vpupcam", None, object_name="HD 1")
    found = camera_keywords(part, identity)
    assert found["CROPPED"][0] == "#TRUE#" and found["OBJECT"][0] == "HD 1"


def test_a_logged_cube_has_the_keywords_of_the_camera(start_logger):
    keywords = science_keywords(2, "MBI")
    for suffix in SUFFIXES:  # elsewhere of the auxiliary header
        keywords |= {f"CRVAL{axis}{suffix}": (12.5, "[deg]") for axis in (1, 2)}
    camera = Camera("vcam2", keywords=keywords)
    logger = start_logger("vcam2", "--frames", 3).attached()
    camera.send(3)
    (cube,) = logger.end().cubes(camera.pool)
    cards = read_primary(cube.path).cards
    faults = header_faults(cards, strict=True)
    assert [fault for fault in faults if fault.level == "error"] == []
    assert [fault for fault in faults if fault.keyword in keywords] == []
    assert keywords.keys() <= set(cards)


# Coordinates

BEFORE, AFTER = "2024-06-01", "2026-06-01"
BOTH_STATES = pytest.mark.parametrize("day", [BEFORE, AFTER])
BOTH_CAMERAS = pytest.mark.parametrize("number", CAMERAS)
# By suffix, for vcam1: hotspots of the sensor in the order of the sets.
NAMES = {
    "MBI": ("F760", "F720", "F670", "F610"),
    "MBI_JEWEL": ("F760", "F720", "F670", "F610"),
    "MBI_REDUCED": ("F760", "F720", "F670", "NA"),
    "MBI_ONEHALF": ("F760", "F720", "F670", "NA"),
}
HOTSPOTS = {
    1: ((2884.07, 1420.57), (1762.03, 1420.27), (1195.40, 1420.87), (1188.90, 867.83)),
    2: ((2887.60, 975.37), (1766.67, 966.07), (1199.77, 963.70), (1186.30, 1519.70)),
}
# x scale, y scale (mas), INST-PA (deg)
GEOMETRY = {
    (BEFORE, 1): (-5.908, -5.908, -38.90),
    (BEFORE, 2): (-5.895, 5.895, -38.58),
    (AFTER, 1): (-5.952, 5.938, 129.44),
    (AFTER, 2): (-5.938, -5.938, 129.99),
}


def keywords_on(day: str, number: int, mode: str, **database) -> Keywords:
    instrument = instrument_of(day)
    limits = science_camera(number, instrument)
    identity = CameraIdentity(f"vcam{number}", number)
    return camera_keywords(
        limits.first_settings(mode), identity, instrument=instrument, database=database
    )


@BOTH_STATES
@BOTH_CAMERAS
@pytest.mark.parametrize("mode", instrument_on().modes)
def test_each_set_has_the_name_and_place_of_its_field(day, number, mode):
    found = values(keywords_on(day, number, mode))
    crop = instrument_of(day).crop(mode, number)
    names = [found[f"WCSNAME{suffix}"] for suffix in SUFFIXES]
    places = [(found[f"CRPIX1{suffix}"], found[f"CRPIX2{suffix}"]) for suffix in SUFFIXES]
    if mode in NAMES:
        assert tuple(names) == NAMES[mode]
        expected = [(x - crop.x0 + 1, y - crop.y0 + 1) for x, y in HOTSPOTS[number]]
        assert np.allclose(places, expected, atol=1e-9)
    else:
        assert names == ["PRIMARY", "NA", "NA", "NA"]
        ny, nx = crop.shape
        assert places == [((nx + 1) / 2, (ny + 1) / 2)] * 4


def test_the_fields_of_vcam1_lie_where_the_viewers_show_them_and_vcam2_is_upside_down():
    """760 nm at upper right, 720 nm upper middle, 670 nm upper left, 610 nm lower left."""
    for number, upper in ((1, True), (2, False)):
        found = values(keywords_on(AFTER, number, "MBI"))
        ny, nx = instrument_on().crop("MBI", number).shape
        places = {
            found[f"WCSNAME{s}"]: (found[f"CRPIX1{s}"] / nx, found[f"CRPIX2{s}"] / ny > 0.5)
            for s in SUFFIXES
        }
        x = {name: place[0] for name, place in places.items()}
        assert x["F670"] < 0.25 and x["F610"] < 0.25 < x["F720"] < 0.5 and x["F760"] > 0.75
        assert {name: place[1] for name, place in places.items()} == {
            "F760": upper, "F720": upper, "F670": upper, "F610": not upper,
        }  # fmt: skip


@BOTH_STATES
@BOTH_CAMERAS
@pytest.mark.parametrize("rotation_deg", [None, 0.0, 12.5, -170.0])
@pytest.mark.parametrize("mode", ["STANDARD", "MBI", "MBI_REDUCED"])
def test_the_matrix_is_that_of_scale_parity_and_angle(day, number, rotation_deg, mode):
    database = {} if rotation_deg is None else {"D_IMRPAD": rotation_deg}
    found = values(keywords_on(day, number, mode, **database))
    x_mas, y_mas, angle_deg = GEOMETRY[day, number]
    assert found["INST-PA"] == angle_deg
    assert found["D_IMRPAD"] == (rotation_deg or 0.0)
    angle = math.radians(angle_deg + (rotation_deg or 0.0))
    dx, dy = x_mas / 3.6e6, y_mas / 3.6e6
    expected = {
        "CDELT1": dx, "CDELT2": dy, "CD1_1": dx * math.cos(angle),
        "CD1_2": -dy * math.sin(angle), "CD2_1": dx * math.sin(angle),
        "CD2_2": dy * math.cos(angle), "CUNIT1": "deg", "CUNIT2": "deg",
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
    }  # fmt: skip
    for suffix in SUFFIXES:
        for name, value in expected.items():
            given = found[f"{name}{suffix}"]
            assert given == (value if isinstance(value, str) else pytest.approx(value))


@BOTH_STATES
@BOTH_CAMERAS
@pytest.mark.parametrize("mode", instrument_on().modes)
def test_astropy_reads_each_set_of_a_cube_as_the_camera_has_it(day, number, mode):
    """In the header as in the stream: to a tenth of a pixel, which its format leaves."""
    crop = instrument_of(day).crop(mode, number)
    keywords = keywords_on(day, number, mode, D_IMRPAD=7.25)
    header = fits.Header.fromstring(raw_header(keywords, crop.shape).decode())
    found = values(keywords)
    for suffix in SUFFIXES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wcs = WCS(header, key=suffix or " ", naxis=2)
        place = [found[f"CRPIX1{suffix}"], found[f"CRPIX2{suffix}"]]
        assert np.allclose(wcs.wcs.crpix, place, atol=0.051)
        matrix = [[found[f"CD{i}_{j}{suffix}"] for j in (1, 2)] for i in (1, 2)]
        assert np.allclose(wcs.pixel_scale_matrix, matrix, rtol=1e-9, atol=0)


@BOTH_STATES
def test_a_companion_on_the_sky_is_found_in_both_cameras_by_their_headers(day):
    """Frames and headers together: the companion is 0.4 arcsec away at 60 degrees."""
    for number in CAMERAS:
        crop = instrument_of(day).crop("MBI", number)
        raw = raw_header(keywords_on(day, number, "MBI"), crop.shape)
        header = fits.Header.fromstring(raw.decode())
        stars = simulated_sky.star_fields("MBI", number, day)
        dx, dy = simulated_sky.companion_offset(number, day)
        for suffix, star in zip(SUFFIXES, stars, strict=True):
            wcs = WCS(header, key=suffix or " ", naxis=2)
            east, north = offsets_mas(wcs, star.x + dx, star.y + dy)
            assert math.hypot(east, north) == pytest.approx(400, abs=2)
            assert math.degrees(math.atan2(east, north)) == pytest.approx(60, abs=0.3)


def offsets_mas(wcs: WCS, x: float, y: float) -> np.ndarray:
    """East and north of the reference point, of a pixel counted from 0. CRVAL is 0, 0."""
    degrees = np.array(wcs.wcs_pix2world([[x, y]], 0)[0])
    degrees[degrees > 180] -= 360
    return degrees * 3600e3


# The manual


def test_the_manual_names_every_keyword_of_a_cube_and_what_it_is_when_nothing_gives_it():
    """docs/header.md: tables of keywords, sources, and values without a source."""
    manual = (Path(__file__).parents[1] / "docs" / "header.md").read_text()
    start = manual.index("## Each keyword")
    section = manual[start : manual.index("\n## ", start + 1)]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| ")]
    named = {word.strip(",") for keywords, *_ in rows for word in keywords.split()}
    keywords = science_keywords(1, "MBI") | {"DET-TMP": (0.0, "")}
    cards = as_cards(raw_header(keywords))
    in_cubes = {re.sub(r"^(C.*\d|WCSNAME)[BCD]$", r"\1", name) for name in cards}
    assert in_cubes <= named
    silent = {name for names, _, silent in rows if silent.strip() for name in names.split()}
    assert set(database_keywords(instrument_on(), "MBI", 1, {})) <= silent
