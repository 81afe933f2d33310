"""The header of a cube: what its readers demand, whatever the stream puts in."""

import dataclasses
import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from vampires.aux_header import AuxHeader, parse_aux_header, read_aux_header
from vampires.cube_header import CubeFacts, KeywordChange, cube_header, reserve_bytes
from vampires.fits_cards import FILLER_NOTE, keyword_dictionary, value_field
from vampires.fits_sum import data_sum
from vampires.frame_table import FRAME_DTYPE, frames_hdu
from vampires.keywords import encode_keyword

GOLDEN = Path(__file__).parent / "data" / "fits" / "aux"
FIRST_NS = 1_795_337_623_324_757_099  # 2026-11-22T08:53:43.324757099 UTC
LAST_NS = FIRST_NS + 250_000_000
NO_AUX = AuxHeader()


def facts(**changed) -> CubeFacts:
    common = CubeFacts(
        stream="vcam1",
        dtype="uint16",
        shape=(8, 12),
        n_frames=5,
        t_first_ns=FIRST_NS,
        t_last_ns=LAST_NS,
        time_source="acquisition",
        cnt0_begin=184,
        cnt0_end=188,
        date_ns=LAST_NS + 10**9,
        end_reason="cube size reached",
    )
    return dataclasses.replace(common, **changed)


def raw_keywords(*keywords: tuple) -> bytes:
    return b"".join(encode_keyword(*keyword) for keyword in keywords) + bytes(3 * 128)


def aux_of(*cards: str) -> AuxHeader:
    text = "".join(f"{card:<80}" for card in ("SIMPLE  =                    T", *cards, "END"))
    return parse_aux_header(text.encode("ascii"), "a")


def header_of(cube: CubeFacts, aux: AuxHeader = NO_AUX) -> fits.Header:
    text = cube_header(cube, aux, reserve_bytes(cube, aux)).decode("ascii")
    header = fits.Header.fromstring(text)
    for card in header.cards:
        card.verify("exception")
    return header


def card_of(cube: CubeFacts, name: str, aux: AuxHeader = NO_AUX) -> str:
    return str(header_of(cube, aux).cards[name])


def history_of(cube: CubeFacts, aux: AuxHeader = NO_AUX) -> str:
    return "\n".join(header_of(cube, aux)["HISTORY"])


def stored_bytes(pixels: np.ndarray) -> bytes:
    """The data unit of an image of an unsigned or plain type, padded."""
    kind = pixels.dtype.kind
    big = pixels.dtype.newbyteorder(">")
    if kind == "u" and pixels.itemsize > 1:
        signed = pixels.dtype.str.replace("u", "i")
        top = np.array(1 << (8 * pixels.itemsize - 1), pixels.dtype)
        data = (pixels ^ top).view(signed).astype(np.dtype(signed).newbyteorder(">")).tobytes()
    elif pixels.dtype == np.int8:
        data = (pixels.view(np.uint8) ^ 0x80).tobytes()
    else:
        data = pixels.astype(big).tobytes()
    return data + bytes(-len(data) % 2880)


def whole_file(cube: CubeFacts, pixels: np.ndarray, aux: AuxHeader = NO_AUX) -> bytes:
    data = stored_bytes(pixels)
    cube = dataclasses.replace(cube, data_sum=data_sum(data))
    rows = np.zeros(cube.n_frames, FRAME_DTYPE)
    return cube_header(cube, aux, reserve_bytes(cube, aux)) + data + frames_hdu(rows)


def random_pixels(cube: CubeFacts) -> np.ndarray:
    generator = np.random.default_rng(1)
    pixel_bytes = np.dtype(cube.dtype).itemsize
    shape = (cube.n_frames, *cube.shape)
    if cube.dtype.startswith("float"):
        return generator.normal(size=shape).astype(cube.dtype)
    count = int(np.prod(shape)) * pixel_bytes
    return generator.integers(0, 256, count, dtype=np.uint8).view(cube.dtype).reshape(shape)


# ---- what the readers demand ----


def test_the_layout_is_three_axes_even_for_one_frame():
    header = header_of(facts(n_frames=1))
    assert [header[f"NAXIS{n}"] for n in (1, 2, 3)] == [12, 8, 1]
    assert list(header)[:9] == [
        "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "BZERO", "BSCALE"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "bitpix", "bzero"),
    [
        ("uint8", "8", None),
        ("int8", "8", "-128"),
        ("int16", "16", None),
        ("uint16", "16", "32768"),
        ("int32", "32", None),
        ("uint32", "32", "2147483648"),
        ("int64", "64", None),
        ("uint64", "64", "9223372036854775808"),
        ("float32", "-32", None),
        ("float64", "-64", None),
    ],
)
def test_pixels_of_every_type_come_back_and_bzero_is_an_integer(dtype, bitpix, bzero):
    cube = facts(dtype=dtype)
    pixels = random_pixels(cube)
    with fits.open(io.BytesIO(whole_file(cube, pixels)), checksum=True) as hdus:
        hdus.verify("exception")
        assert str(hdus[0].header.cards["BITPIX"])[10:30].strip() == bitpix
        scaling = [str(hdus[0].header.cards[n])[10:30].strip() for n in ("BZERO", "BSCALE")
                   if n in hdus[0].header]  # fmt: skip
    assert scaling == ([] if bzero is None else [bzero, "1"])
    with fits.open(io.BytesIO(whole_file(cube, pixels)), uint=True) as hdus:
        np.testing.assert_array_equal(hdus[0].data, pixels)


def test_times_are_of_the_frames_in_the_forms_the_readers_split():
    header = header_of(facts())
    assert header["DATE"] == "2026-11-22T08:53:44"
    assert header["DATE-OBS"] == "2026-11-22"
    assert header["UT-STR"] == "08:53:43.324757"
    assert header["UT"] == "08:53:43.449757"
    assert header["UT-END"] == "08:53:43.574757"
    assert header["HST-STR"] == "22:53:43.324757"
    assert header["HST"] == "22:53:43.449757"
    assert header["HST-END"] == "22:53:43.574757"
    assert header["DATE-BEG"] == "2026-11-22T08:53:43.324757099"
    assert header["DATE-AVG"] == "2026-11-22T08:53:43.449757099"
    assert header["DATE-END"] == "2026-11-22T08:53:43.574757099"
    assert header["TIMESYS"] == "UTC"


def test_mjd_is_a_number_with_eight_decimals_or_more():
    header = header_of(facts())
    for name in ("MJD", "MJD-STR", "MJD-END", "MJD-BEG", "MJD-AVG"):
        text = str(header.cards[name])[10:30].strip()
        assert len(text.partition(".")[2]) >= 8
        assert isinstance(header[name], float)
    assert header["MJD-STR"] == header["MJD-BEG"]
    assert header["MJD-STR"] < header["MJD"] == header["MJD-AVG"] < header["MJD-END"]


@pytest.mark.parametrize(
    ("source", "clock"), [("acquisition", "acquisition time"), ("logger", "logger clock")]
)
def test_every_time_says_its_instant_and_its_clock(source, clock):
    header = header_of(facts(time_source=source))
    for stem in ("UT", "HST", "MJD"):
        assert header.comments[stem].endswith(f"cube midpoint, {clock}")
        assert header.comments[f"{stem}-STR"].endswith(f"of first frame, {clock}")
        assert header.comments[f"{stem}-END"].endswith(f"of last frame, {clock}")
    assert header.comments["DATE-BEG"] == f"UTC of first frame, {clock}"
    assert header.comments["HST"].startswith("HST")


def test_counts_of_frames_are_told():
    header = header_of(facts(n_lost=7, n_torn=2, lost_at_end=3))
    assert (header["NLOST"], header["NLOSTEND"], header["NTORN"]) == (10, 3, 2)
    assert (header["CNT0-BEG"], header["CNT0-END"]) == (184, 188)
    assert header["LOGGER"].startswith("vampires-daq ")
    history = history_of(facts(lost_at_end=3, notes=["stream was re-created"]))
    assert "end of the cube: cube size reached" in history
    assert "3 frames lost after the last frame" in history
    assert "stream was re-created" in history


# ---- values ----


def plausible_value(printf: str) -> tuple[object, str]:
    """A value the printf format holds, and its text in the header."""
    if printf == "BOOLEAN":
        return True, "T"
    if printf.endswith("s"):
        return "VALUE", f"'{printf % 'VALUE':<8}'"
    value = 7 if printf.endswith("d") else 1.5
    return value, printf % value


def test_every_keyword_of_the_dictionary_has_its_printf_format():
    own = {"DATE-OBS", "TIMESYS", "UT", "UT-STR", "UT-END", "HST", "HST-STR", "HST-END", "MJD",
           "MJD-STR", "MJD-END", "BZERO", "BSCALE"}  # fmt: skip
    special = {"RADESYS"}
    entries = {n: e for n, e in keyword_dictionary().items() if n not in own | special}
    assert len(entries) > 370
    values = {name: plausible_value(entry.printf) for name, entry in entries.items()}
    raw = raw_keywords(*((name, value) for name, (value, _) in values.items()))
    header = header_of(facts(keywords_raw=raw))
    for name, (_, text) in values.items():
        field = str(header.cards[name])[10:]
        assert field.startswith((text, text.rjust(20))), name


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("GAIN", 0.103, "               0.103"),
        ("GAIN", 1, "               1.000"),
        ("GAIN", 1e30, "             1.0E+30"),
        ("GAIN", 1e-5, "             1.0E-05"),
        ("GAIN", "unknown", "'unknown '"),
        ("GAIN", True, "                   T"),
        ("U_TRIGJT", 500.0, "                 500"),
        ("U_TRIGJT", 500.5, "               500.5"),
        ("CRPIX1", 2**53 + 1, "    9007199254740993"),
        ("U_FLCEN", True, "                   T"),
        ("U_FLCEN", 0, "                   F"),
        ("U_FLCEN", "off", "'off     '"),
        ("X_STR", "fifteen letters", "'fifteen letters '"),
        ("FILTER01", 5, "                   5"),
        ("D_ADFG", 1.5, "               1.500"),
        ("PI", 3.14159265358979, "    3.14159265358979"),
        ("TINY", 1e-300, "            1.0E-300"),
        ("BIG", -(2**63), "-9223372036854775808"),
        ("HUGE", 1.7976931348623157e308, "1.7976931348623157E+308"),
        ("QUOTED", "it's", "'it''s   '"),
        ("SPACES", "  x", "'  x     '"),
    ],
)
def test_values_take_their_format_or_are_written_in_full(name, value, text):
    card = card_of(facts(keywords_raw=raw_keywords((name, value))), name)
    assert card[10:].startswith(text)


def test_a_string_longer_than_its_format_is_not_cut():
    assert value_field("X_STR", "seventeen letters") == "'seventeen letters' ".ljust(20)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_a_number_outside_the_dictionary_reads_back_the_same(value):
    header = header_of(facts(keywords_raw=raw_keywords(("VALUE", value))))
    assert header["VALUE"] == value
    assert type(header["VALUE"]) is type(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_fits_has_not_is_a_string_that_float_reads(value):
    header = header_of(facts(keywords_raw=raw_keywords(("DET-TMP", value, "cold"))))
    np.testing.assert_equal(float(header["DET-TMP"]), value)
    assert header.comments["DET-TMP"] == "(no such number in FITS) cold"


def test_logicals_of_the_stream_are_logicals_of_fits():
    header = header_of(facts(keywords_raw=raw_keywords(("EXTTRIG", True), ("NEW", False))))
    assert header["EXTTRIG"] is True
    assert header["NEW"] is False


def test_a_unit_of_the_dictionary_stands_in_for_a_missing_comment():
    raw = raw_keywords(("EXPTIME", 1.0), ("FRATE", 2.0, "rate"), ("OBJECT", "M1"))
    comments = header_of(facts(keywords_raw=raw)).comments
    assert [comments[name] for name in ("EXPTIME", "FRATE", "OBJECT")] == ["[s]", "rate", ""]


def test_a_long_comment_is_cut_at_the_card():
    card = card_of(facts(keywords_raw=raw_keywords(("A", 1, "c" * 79))), "A")
    assert card == "A       =                    1 / " + "c" * 47


# ---- names ----


def test_names_become_legal_and_history_says_so():
    raw = raw_keywords(("lower", 1), ("a.b c", 2), ("LONGNAMEKEYW", 3), ("_MAQTIME", 4))
    header = header_of(facts(keywords_raw=raw))
    assert [header[name] for name in ("LOWER", "A_B_C", "LONGNAMEKEYW")] == [1, 2, 3]
    assert str(header.cards["LONGNAMEKEYW"]).startswith("HIERARCH LONGNAMEKEYW = 3")
    assert "_MAQTIME" not in header
    history = history_of(facts(keywords_raw=raw))
    assert "'a.b c' written as A_B_C" in history
    assert "LOWER" not in history and "MAQTIME" not in history


def test_of_two_values_the_later_counts_and_history_keeps_the_other():
    raw = raw_keywords(("EXPTIME", 0.5), ("exptime", 0.25))
    assert header_of(facts(keywords_raw=raw))["EXPTIME"] == 0.25
    assert "EXPTIME given twice; not written: 0.5" in history_of(facts(keywords_raw=raw))


@pytest.mark.parametrize(
    "name",
    ["NAXIS", "NAXIS3", "BITPIX", "BZERO", "END", "COMMENT", "CHECKSUM", "TFORM1", "EPOCH"],
)
def test_no_stream_can_touch_the_layout(name):
    cube = facts(keywords_raw=raw_keywords((name, 77)))
    assert 77 not in [card.value for card in header_of(cube).cards]
    assert f"{name!r} not written" in history_of(cube)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EQUINOX", float("nan")), ("CRVAL1", "east"), ("CDELT1", 0.0), ("CRPIX4", 1.0),
        ("CD1_9", 1.0), ("DATE-X", "yesterday"), ("DATE-X", "2026-13-01"), ("RADESYS", "none"),
        ("EXTVER", 1.5), ("MJD-OBS", True),
    ],
)  # fmt: skip
def test_a_value_the_standard_forbids_is_kept_in_history(name, value):
    cube = facts(keywords_raw=raw_keywords((name, value)))
    assert name not in header_of(cube)
    assert f"stream keyword {name} = " in history_of(cube)


def test_a_reserved_keyword_takes_the_type_of_the_standard():
    raw = raw_keywords(("OBJECT", 12), ("EQUINOX", "2000.0"), ("RADESYS", "FK5"))
    header = header_of(facts(keywords_raw=raw))
    assert (header["OBJECT"], header["EQUINOX"], header["RADESYS"]) == ("12", 2000.0, "FK5")


def test_an_entry_of_unknown_type_is_told():
    raw = bytearray(raw_keywords(("BROKEN", 1)))
    raw[16:17] = b"Z"
    assert "BROKEN not written: unknown type 'Z'" in history_of(facts(keywords_raw=bytes(raw)))


# ---- who wins ----


def test_the_stream_beats_the_auxiliary_file_and_the_logger_beats_both():
    aux = aux_of(
        "EXPTIME = 99.0", "UT      = 'aux'", "AZIMUTH =  12.30000 / aux", "COMMENT kept"
    )
    cube = facts(keywords_raw=raw_keywords(("EXPTIME", 0.5), ("UT-STR", "stream")))
    header = header_of(cube, aux)
    assert header["EXPTIME"] == 0.5
    assert header["UT"] == "08:53:43.449757"
    assert header["UT-STR"] == "08:53:43.324757"
    assert str(header.cards["AZIMUTH"]).rstrip() == "AZIMUTH =  12.30000 / aux"
    assert list(header["COMMENT"]) == ["kept"]
    assert "'UT-STR' not written: the logger writes it" in history_of(cube, aux)


def test_bunit_is_the_loggers_only_where_nobody_else_gives_it():
    given_by_stream = facts(keywords_raw=raw_keywords(("BUNIT", "electron")))
    assert header_of(facts())["BUNIT"] == "adu"
    header = header_of(given_by_stream)
    assert [card.value for card in header.cards if card.keyword == "BUNIT"] == ["electron"]
    assert "BUNIT" not in header_of(facts(dtype="float32"))


def test_a_science_camera_has_what_its_readers_need_and_nobody_gave():
    stream = raw_keywords(("U_CAMERA", 1), ("FILTER01", "750-50"))
    header = header_of(facts(keywords_raw=stream), aux_of("U_FLC   = 'A'"))
    needed = {name: header[name] for name in ("FILTER01", "FILTER02", "F-RATIO", "U_FLC")}
    assert needed == {
        "FILTER01": "750-50",
        "FILTER02": "Unknown",
        "F-RATIO": 21.3,
        "U_FLC": "A",
    }
    assert header.comments["FILTER02"] == header.comments["F-RATIO"] == "nobody gave it"
    others = header_of(facts(keywords_raw=raw_keywords(("GAIN", 1.0))))
    assert not set(others) & set(needed)


def test_a_header_of_the_real_logger_has_no_keyword_that_ours_lacks():
    (real_path, *_) = sorted(GOLDEN.glob("vgold_*.fits"))
    real = fits.getheader(real_path)
    stream_names = [
        "FRATE",
        "OBJECT",
        "DET-NSMP",
        "DETFLAG",
        "DETFLG2",
        "LONGNAMEKEYW",
        "LOWERCAS",
        "FRAMENO",
        "QUOTED",
        "SPACES",
        "NEGINT",
        "BIGINT",
        "TINY",
        "PI",
    ]
    raw = raw_keywords(*((name, real[name], real.comments[name]) for name in stream_names))
    header = header_of(facts(keywords_raw=raw), read_aux_header(GOLDEN, "vgold"))
    assert set(real) - set(header) == set()
    for name in stream_names:
        assert header[name] == real[name]


# ---- changes and room ----


def test_changes_inside_the_cube_are_readable_history():
    changes = [
        KeywordChange(37, "EXPTIME", 0.5, 3),
        KeywordChange(2, "FILTER01", "Open", 1),
        KeywordChange(1, "EXTTRIG", False, 2),
        KeywordChange(1, "_MAQTIME", 5, 4),
    ]
    history = history_of(facts(changes=changes)).splitlines()
    assert history[1:] == [
        "EXPTIME changed to 0.5 at frame 37 (3 changes)",
        "FILTER01 changed to Open at frame 2 (1 change)",
        "EXTTRIG changed to F at frame 1 (2 changes)",
    ]


def test_the_reserve_has_room_for_what_happens_to_an_open_cube():
    opened = facts(end_reason="")
    reserved = reserve_bytes(opened, NO_AUX)
    changes = [KeywordChange(n, f"KEY{n}", n) for n in range(11)]
    closed = facts(changes=changes, data_sum=5)
    header = cube_header(closed, NO_AUX, reserved)
    assert len(header) == reserved and reserved % 2880 == 0
    assert header.count(b" changed to ") == 11


def numbered_aux(keywords: int, comments: int) -> AuxHeader:
    cards = [f"AUX{n:<5}= {n}" for n in range(keywords)]
    return aux_of(*cards, *(f"COMMENT c{n}" for n in range(comments)))


@pytest.mark.parametrize(
    ("keywords", "comments", "changes"),
    [(5, 5, 50), (5, 60, 0), (5, 60, 50), (60, 5, 50), (60, 0, 0), (60, 60, 60), (0, 0, 60)],
)
def test_what_has_no_room_gives_way_in_order_and_is_counted(keywords, comments, changes):
    cube = facts(changes=[KeywordChange(n, f"KEY{n}", n) for n in range(changes)], data_sum=1)
    text = cube_header(cube, numbered_aux(keywords, comments), 2 * 2880)
    assert FILLER_NOTE.encode() not in text, "more was left out than had to be"
    header = fits.Header.fromstring(text)
    history = "\n".join(header.get("HISTORY", []))
    left = {
        "changes": changes - history.count("changed to"),
        "comments": comments - len(header.get("COMMENT", [])),
        "keywords": keywords - len([name for name in header if name.startswith("AUX")]),
    }
    assert any(left.values())
    assert not left["keywords"] or left["comments"] == comments
    assert not left["comments"] + left["keywords"] or left["changes"] == changes
    if left["changes"]:
        assert f"{left['changes']} changes of keywords left out" in history
    if left["comments"] + left["keywords"]:
        count = left["comments"] + left["keywords"]
        assert f"{count} auxiliary cards left out" in history
    assert [name for name in header if name.startswith("AUX")] == [
        f"AUX{n}" for n in range(keywords - left["keywords"])
    ]
    assert header["UT-STR"] == "08:53:43.324757"


def test_many_notes_do_not_stop_a_cube_from_being_closed():
    cube = facts(notes=[f"note {n}" for n in range(200)])
    header = fits.Header.fromstring(cube_header(cube, NO_AUX, 2 * 2880))
    assert "lines of HISTORY left out" in header["HISTORY"][-1]


def test_too_little_room_for_the_layout_and_the_stream_is_an_error_with_numbers():
    raw = raw_keywords(*((f"KEY{n}", n) for n in range(30)))
    with pytest.raises(ValueError, match=r"more than the 36 reserved"):
        cube_header(facts(keywords_raw=raw), NO_AUX, 2880)
    with pytest.raises(ValueError, match="multiple of 2880"):
        cube_header(facts(), NO_AUX, 2881)


def test_pixels_without_a_fits_type_are_refused():
    with pytest.raises(ValueError, match="no pixels of type complex64"):
        cube_header(facts(dtype="complex64"), NO_AUX, 2880)


def test_a_provisional_header_has_no_sums():
    header = header_of(facts(end_reason=""))
    assert "CHECKSUM" not in header and "DATASUM" not in header
    assert "HISTORY" not in header


# ---- what other programs say of whole files ----


def verify(paths: list[Path]) -> str:
    """What fitsverify finds in ``paths``; empty where it finds nothing at all."""
    run = subprocess.run(["fitsverify", *paths], capture_output=True, text=True, check=False)
    return run.stdout if run.returncode else ""


def real_cube() -> tuple[CubeFacts, AuxHeader]:
    raw = raw_keywords(
        ("EXPTIME", 0.5, "exposure"), ("U_FLCEN", True), ("EXTTRIG", False),
        ("OBJECT", "o'Neil"), ("DETECTOR", "VCAM1 - OrcaQ"), ("DET-TMP", float("nan")),
        ("LONGNAMEKEYW", 1.5),
        ("HUGE", 1.7976931348623157e308), ("EMPTY", ""), ("CRPIX1", 1.0), ("CRPIX2", 2.0),
        ("CRVAL1", 1.0), ("CRVAL2", 2.0), ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"),
        ("WCSAXES", 2),
    )  # fmt: skip
    changes = [KeywordChange(2, "EXPTIME", 0.25, 1)]
    return facts(keywords_raw=raw, changes=changes), read_aux_header(GOLDEN, "vgold")


def test_fitsverify_finds_nothing_in_a_whole_cube(tmp_path):
    cube, aux = real_cube()
    path = tmp_path / "cube.fits"
    path.write_bytes(whole_file(cube, random_pixels(cube), aux))
    assert verify([path]) == ""


def test_fitsverify_finds_nothing_in_a_cube_with_a_long_auxiliary_string(tmp_path):
    aux_source = fits.Header([("SIMPLE", True), ("LONG", "x" * 150), ("AFTER", 1)])
    aux = parse_aux_header(aux_source.tostring().encode("ascii"), "a")
    path = tmp_path / "cube.fits"
    path.write_bytes(whole_file(facts(), random_pixels(facts()), aux))
    assert verify([path]) == ""
    assert fits.getheader(path)["LONG"] == "x" * 150


def test_fpack_and_funpack_give_the_cube_back(tmp_path):
    cube, aux = real_cube()
    pixels = random_pixels(cube)
    path = tmp_path / "cube.fits"
    path.write_bytes(whole_file(cube, pixels, aux))
    subprocess.run(["fpack", "-r", path], check=True, capture_output=True)
    with fits.open(tmp_path / "cube.fits.fz") as hdus:
        np.testing.assert_array_equal(hdus[1].data, pixels)
        assert hdus[1].header["UT-STR"] == "08:53:43.324757"
    path.unlink()
    subprocess.run(["funpack", tmp_path / "cube.fits.fz"], check=True, capture_output=True)
    with fits.open(path, checksum=True) as hdus:
        np.testing.assert_array_equal(hdus[0].data, pixels)
        assert len(hdus["FRAMES"].data) == cube.n_frames


RESERVED = [
    "EQUINOX",
    "TELESCOP",
    "DATE-X",
    "BLANK",
    "NAXIS9",
    "EPOCH",
    "RADESYS",
    "TFORM1",
    "END",
    "COMMENT",
    "CONTINUE",
    "EXTVER",
    "MJD-OBS",
    "LONPOLE",
    "PV9_9",
    "CRPIX9",
    "CD7_1",
    "HIERARCH",
    "SIMPLE",
    "EXTNAME",
    "UT",
    "ut-str",
    "GAIN",
    "PSCAL1",
    "ZIMAGE",
    "INHERIT",
    "GROUPS",
    "BUNIT",
    "DATAMAX",
    "SPECSYSA",
]
hostile_names = st.binary(max_size=16) | st.sampled_from(RESERVED).map(str.encode)
hostile_entries = st.builds(
    lambda name, kind, value, comment: struct.pack(
        "<16sc23s8s80s", name, kind, value, b"", comment
    ),
    hostile_names,
    st.sampled_from([b"L", b"D", b"S", b"N", b"X"]),
    (st.binary(max_size=16) | st.sampled_from([b"nan", b"'", b"2000.0"])).map(
        lambda value: bytes(7) + value
    ),
    st.binary(max_size=80),
)
hostile_keywords = st.lists(hostile_entries, max_size=60).map(b"".join)


@given(hostile_keywords)
def test_no_keyword_bytes_make_a_header_that_astropy_refuses(raw):
    cube = facts(keywords_raw=raw)
    with fits.open(io.BytesIO(whole_file(cube, random_pixels(cube))), checksum=True) as hdus:
        hdus.verify("exception")
        for card in hdus[0].header.cards:
            assert isinstance(card.value, str | int | float | bool)
        assert hdus[0].header["NAXIS3"] == cube.n_frames
        assert hdus[0].header["UT-STR"] == "08:53:43.324757"


@settings(max_examples=40, deadline=None)
@given(raw=hostile_keywords)
def test_no_keyword_bytes_make_a_header_that_fitsverify_blames(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("hostile") / "cube.fits"
    cube = facts(keywords_raw=raw)
    path.write_bytes(whole_file(cube, random_pixels(cube)))
    assert verify([path]) == ""
