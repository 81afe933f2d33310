"""What a camera's stream says of it: keywords for the readers of the cubes, and coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from logger_process import Camera

from vampires import cameras, simulated_sky
from vampires.aux_header import AuxHeader
from vampires.camera.keywords import CameraIdentity, camera_keywords
from vampires.camera.settings import READOUT_MODES, CameraSettings, plain_camera, science_camera
from vampires.camera.source import Keywords
from vampires.camera.wcs import FIELDS, SUFFIXES
from vampires.cube_header import CubeFacts, cube_header, reserve_bytes
from vampires.fits_cards import keyword_dictionary
from vampires.fits_hdus import read_primary
from vampires.header_cards import Cards
from vampires.header_rules import DATA_TYPES, header_faults
from vampires.keywords import COMMENT_CHARS, NAME_CHARS, STRING_CHARS, encode_keyword

FIRST_NS = 1_795_337_618_973_218_918
EVERY_CAMERA = [
    (number, mode, readout)
    for number in cameras.CAMERAS
    for mode in cameras.MODES
    for readout in READOUT_MODES
]
MULTIBAND = ("MBI", "MBI_REDUCED")


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


def test_a_camera_gives_every_keyword_of_its_class_but_those_it_does_not_know():
    entries = keyword_dictionary().items()
    of_cameras = {name for name, entry in entries if entry.source_class == "SHM_CAMSTACK"}
    missing = of_cameras - science_keywords(1, "MBI").keys()
    assert missing == {"DET-TMP", "F-RATIO", "FILTER01", "FILTER02"}


def test_a_keyword_the_camera_does_not_know_stays_that_of_the_auxiliary_header():
    names = science_keywords(1, "MBI").keys()
    assert not names & {"FILTER01", "FILTER02", "F-RATIO", "CRVAL1", "CRVAL2D", "RA"}
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
        "", cameras.Crop(100, 199, 50, 89), 0.25, 3.5, "SLOW", external_trigger=True
    )
    found = values(camera_keywords(settings, CameraIdentity("vcam2", 2), 3.4))
    expected = {
        "EXPTIME": 0.25, "FRATE": 3.5, "MFRATE": 3.4, "U_DETMOD": "SLOW", "EXTTRIG": "#TRUE#",
        "PRD-MIN1": 100, "PRD-MIN2": 50, "PRD-RNG1": 100, "PRD-RNG2": 40, "CROPPED": "#TRUE#",
        "BIN-FCT1": 1, "BIN-FCT2": 1, "U_CAMERA": 2, "DETECTOR": "VCAM2 - OrcaQ",
        "GAIN": 0.105, "BIAS": 200.0, "INST-PA": -38.58, "DETPXSZ1": 0.0046,
        "DETPXSZ2": 0.0046, "OBS-MOD": "IMAG", "BUNIT": "adu", "DATA-TYP": "TEST",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("mode", "polarimetry", "expected"),
    [
        ("MBI", True, "IPOL_MBI"),
        ("MBI_REDUCED", False, "IMAG_MBIR"),
        ("PUPIL", False, "IMAG_PUP"),
        ("STANDARD", True, "IPOL"),
        ("", False, "IMAG"),
    ],
)
def test_the_observing_mode_tells_polarimetry_and_camera_mode(mode, polarimetry, expected):
    settings = settings_of(1, mode or "STANDARD").with_values(mode=mode)
    identity = CameraIdentity("vcam1", 1, polarimetry=polarimetry)
    assert camera_keywords(settings, identity)["OBS-MOD"][0] == expected


def test_coordinates_may_be_left_out():
    identity = CameraIdentity("vcam1", 1)
    settings = settings_of(1, "MBI")
    without = camera_keywords(settings, identity, coordinates=False)
    left_out = camera_keywords(settings, identity).keys() - without.keys()
    assert len(left_out) == 4 * 13
    assert all(name.startswith(("C", "WCSNAME")) for name in left_out)


def test_only_the_whole_sensor_is_not_cropped():
    cropped = {mode: science_keywords(2, mode)["CROPPED"][0] for mode in cameras.MODES}
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
    part = limits.with_crop(settings, cameras.Crop(0, 63, 0, 63))
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


def coordinates(number: int, mode: str) -> list[tuple[str, WCS]]:
    """Name and coordinates of each set, as astropy reads them from the header of a cube."""
    crop = cameras.crop(mode, number)
    text = raw_header(science_keywords(number, mode), crop.shape).decode()
    header = fits.Header.fromstring(text)
    found = []
    for suffix in SUFFIXES:
        wcs = WCS(header, key=suffix or " ", naxis=2)
        found.append((header[f"WCSNAME{suffix}"], wcs))
    return found


def offsets_mas(wcs: WCS, x: float, y: float) -> np.ndarray:
    """East and north of the reference point, of a pixel counted from 0. CRVAL is 0, 0."""
    degrees = np.array(wcs.wcs_pix2world([[x, y]], 0)[0])
    degrees[degrees > 180] -= 360
    return degrees * 3600e3


@pytest.mark.parametrize("number", cameras.CAMERAS)
@pytest.mark.parametrize("mode", cameras.MODES)
def test_each_set_has_its_field_where_the_star_is(number, mode):
    stars = {star.wavelength_nm: star for star in simulated_sky.star_fields(mode, number)}
    sets = coordinates(number, mode)
    assert len(sets) == 4
    for index, (name, wcs) in enumerate(sets):
        if mode in MULTIBAND:
            assert name == f"F{FIELDS[index]}"
            star = stars.pop(cameras.WAVELENGTHS_NM[FIELDS[index]], None)
        else:
            (star,) = stars.values()
        if star is not None:
            tenth = 0.051 * cameras.PLATE_SCALE_MAS[number] * math.sqrt(2)
            assert np.hypot(*offsets_mas(wcs, star.x, star.y)) < tenth
    assert not (mode in MULTIBAND and stars)


@pytest.mark.parametrize("number", cameras.CAMERAS)
def test_the_field_of_610_nm_lies_outside_of_the_reduced_crop_where_it_is_in_mbi(number):
    whole, part = cameras.crop("MBI", number), cameras.crop("MBI_REDUCED", number)
    found = {mode: values(science_keywords(number, mode)) for mode in MULTIBAND}
    for suffix in SUFFIXES:
        for axis, shift in (("1", whole.x0 - part.x0), ("2", whole.y0 - part.y0)):
            name = f"CRPIX{axis}{suffix}"
            assert found["MBI_REDUCED"][name] == pytest.approx(found["MBI"][name] + shift)
    assert not 1 <= found["MBI_REDUCED"]["CRPIX2"] <= part.shape[0]
    assert all(1 <= found["MBI"][f"CRPIX2{suffix}"] <= whole.shape[0] for suffix in SUFFIXES)


@pytest.mark.parametrize("number", cameras.CAMERAS)
@pytest.mark.parametrize("mode", ["STANDARD", "MBI"])
def test_scale_and_angle_are_those_of_the_camera(number, mode):
    """In a header, to the eight decimals that the dictionary's format leaves."""
    scale, angle = cameras.PLATE_SCALE_MAS[number], cameras.INSTRUMENT_ANGLE_DEG[number]
    for _, wcs in coordinates(number, mode):
        x, y = wcs.wcs.crpix - 1
        east_x, north_x = offsets_mas(wcs, x + 100, y) / 100
        east_y, north_y = offsets_mas(wcs, x, y + 100) / 100
        assert np.hypot(east_x, north_x) == pytest.approx(scale, rel=6e-3)
        assert np.hypot(east_y, north_y) == pytest.approx(scale, rel=6e-3)
        assert math.degrees(math.atan2(east_y, north_y)) == pytest.approx(angle, abs=0.4)
        assert east_x * north_y - east_y * north_x < 0  # east is left when north is up
        assert east_x * east_y + north_x * north_y == pytest.approx(0, abs=0.01 * scale**2)


@pytest.mark.parametrize("number", cameras.CAMERAS)
def test_the_stream_itself_has_scale_and_angle_exactly(number):
    found = values(science_keywords(number, "MBI"))
    scale = cameras.PLATE_SCALE_MAS[number] / 3600e3
    for suffix in SUFFIXES:
        matrix = [[found[f"CD{i}_{j}{suffix}"] for j in (1, 2)] for i in (1, 2)]
        assert np.linalg.det(matrix) == pytest.approx(-(scale**2))
        angle = math.degrees(math.atan2(matrix[0][1], matrix[1][1]))
        assert angle == pytest.approx(found["INST-PA"])
        assert (found[f"CDELT1{suffix}"], found[f"CDELT2{suffix}"]) == (-scale, scale)
        assert found[f"CUNIT1{suffix}"] == found[f"CUNIT2{suffix}"] == "deg"
        assert found[f"CTYPE1{suffix}"] == "RA---TAN"
        assert found[f"CTYPE2{suffix}"] == "DEC--TAN"
