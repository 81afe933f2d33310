"""The walk over the HDUs of a file: whatever the file is, it is told what it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from astropy.io import fits
from fitswatch_cubes import Take, make_cube
from hypothesis import given
from hypothesis import strategies as st

from vampires.fits_hdus import Cards, FitsInvalid, Hdu, read_hdus, read_primary

FIRST_NS = 1_795_337_618_973_218_918
BLOCK = 2880


def card(text: str) -> bytes:
    return text.encode("latin-1").ljust(80)


def header(*cards: str) -> bytes:
    raw = b"".join(map(card, [*cards, "END"]))
    return raw + b" " * (-len(raw) % BLOCK)


def primary(*cards: str) -> bytes:
    return header("SIMPLE  =                    T", *cards)


def image(*axes: int, bitpix: int = 16) -> list[str]:
    lengths = [f"NAXIS{axis:<3}= {length:>20}" for axis, length in enumerate(axes, 1)]
    return [f"BITPIX  = {bitpix:>20}", f"NAXIS   = {len(axes):>20}", *lengths]


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_cube(tmp_path_factory.mktemp("cube"), "vcam1", Take(FIRST_NS)).read_bytes()


@pytest.fixture
def file(tmp_path: Path):
    def write(content: bytes) -> Path:
        path = tmp_path / "x.fits"
        path.write_bytes(content)
        return path

    return write


def values(*cards: str) -> Cards:
    return Cards(b"".join(map(card, cards)))


# -- files ------------------------------------------------------------------------------------


def test_the_walk_finds_what_astropy_finds(file, cube):
    path = file(cube)
    hdus, fault = read_hdus(path)
    assert fault == ""
    with fits.open(path, disable_image_compression=True) as expected:
        assert len(hdus) == len(expected)
        for hdu, known in zip(hdus, expected, strict=True):
            place = known.fileinfo()
            assert (hdu.header_offset, hdu.data_offset) == (place["hdrLoc"], place["datLoc"])
            assert hdu.padded_bytes == place["datSpan"]
            assert hdu.shape == tuple(known.header[f"NAXIS{k}"] for k in range(
                known.header["NAXIS"], 0, -1))  # fmt: skip
            for name in set(known.header) - {"COMMENT", "HISTORY", ""}:
                assert hdu.cards[name] == known.header[name], name
                assert hdu.cards.comment(name) == known.header.comments[name], name


def test_the_primary_header_is_read_through_a_path_or_a_descriptor(file, cube):
    path = file(cube)
    assert read_primary(path).shape == (10, 16, 24)
    with path.open("rb") as opened:
        opened.seek(7)
        assert read_primary(opened.fileno()).cards["OBJECT"] == "scexao"
        assert opened.tell() == 7


def test_a_cube_cut_at_any_block_is_told_except_between_two_hdus(file, cube):
    hdus, _ = read_hdus(file(cube))
    whole = {hdu.end_offset for hdu in hdus}
    for size in range(0, len(cube), BLOCK):
        found, fault = read_hdus(file(cube[:size]))
        assert (fault == "") == (size in whole), size
        assert "\n" not in fault
        assert len(found) <= len(hdus)


@given(st.data())
def test_any_truncation_of_a_valid_file_is_told(cube, tmp_path_factory, data):
    size = data.draw(st.integers(0, len(cube) - 1))
    path = tmp_path_factory.getbasetemp() / "truncated.fits"
    path.write_bytes(cube[:size])
    found, fault = read_hdus(path)
    if any(hdu.end_offset == size for hdu in found):
        assert fault == "" and len(found) == 1  # between the image and the table
    else:
        assert str(size) in fault or size == 0


@given(
    st.lists(
        st.one_of(
            st.binary(min_size=80, max_size=80),
            st.builds(
                lambda name, value: f"{name:<8}= {value}".encode()[:80].ljust(80),
                st.sampled_from(
                    ["BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "GROUPS", "END"]
                ),
                st.one_of(st.integers(), st.floats().map(str), st.text("'&/ 1T", max_size=9)),
            ),
        ),
        max_size=12,
    ),
    st.binary(max_size=200),
)
def test_nothing_but_fits_invalid_is_raised_for_any_bytes(tmp_path_factory, cards, rest):
    path = tmp_path_factory.getbasetemp() / "any.fits"
    begin = card("SIMPLE  =                    T")
    path.write_bytes(begin + b"".join(cards) + card("END") + b" " * 2800 + rest)
    hdus, fault = read_hdus(path)
    assert hdus or fault
    for hdu in hdus:
        assert hdu.data_bytes >= 0 and hdu.shape is not None
        look_at_everything(hdu.cards)
    try:
        assert isinstance(read_primary(path), Hdu)
    except FitsInvalid as error:
        assert str(error) == fault


@given(st.binary(max_size=400).map(lambda raw: raw[: len(raw) // 80 * 80]))
def test_any_cards_have_values_or_are_fits_invalid(raw):
    look_at_everything(Cards(raw))


def look_at_everything(cards: Cards) -> None:
    for name in cards:
        assert len(cards.card(name)) == 80
        for ask in (cards.__getitem__, cards.comment):
            try:
                assert isinstance(ask(name), (bool, int, float, str, type(None)))
            except FitsInvalid as error:
                assert "\n" not in str(error)
    cards.commentary("HISTORY")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file: 0 bytes"),
        (b"SIMPLE", "truncated: the file ends at byte 6, within its first card"),
        (b"\x89PNG\r\n\x1a\n" * 500, "not FITS: it begins with '\\x89PNG\\r\\n\\x1a\\n'"),
        (primary(*image(5))[:300], "no END card, the file ends at byte 300"),
        (primary(*image(5))[:2000], "header of HDU 0 should end at byte 2880, the file ends"),
        (primary("BITPIX  =                   17", "NAXIS   = 0"), "BITPIX is 17; expected"),
        (primary("NAXIS   =                    0"), "there is no BITPIX"),
        (primary(*image(-1)), "NAXIS1 is -1; expected 0 or more"),
        (primary("BITPIX  =                   16", "NAXIS   = 'x'"), "NAXIS is 'x'; expected"),
        (primary("BITPIX  =                   16", "NAXIS   = 3.0"), "NAXIS is 3.0; expected"),
        (primary(*image(100)), "the data of HDU 0 should end at byte 5760, the file ends at"),
        (primary(*image(100)) + b"\0" * 300, "the padding of HDU 0 should end at byte 5760"),
        (primary(*image()) + b"\0" * 2880, "from byte 2880 on, after HDU 0, are no extension"),
        (card("SIMPLE  =                    T") + b"\xff" * 2800, "byte 80, which is 0xff"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(file, content, told):
    _, fault = read_hdus(file(content))
    assert told in fault and "\n" not in fault


def test_a_header_without_end_is_not_read_for_ever(file):
    path = file(card("SIMPLE  =                    T") + card("COMMENT x") * 9000)
    with pytest.raises(FitsInvalid, match="no END card in its first 28800 bytes"):
        read_primary(path, max_header_bytes=28800)


def test_a_huge_header_is_read_whole(file):
    many = [f"HIERARCH VERY LONG NAME {k} = {k}" for k in range(9000)]
    hdu = read_primary(file(primary(*image(), *many)))
    assert hdu.cards["VERY LONG NAME 8999"] == 8999
    assert hdu.header_bytes == -(-(9004 * 80) // BLOCK) * BLOCK


def test_more_hdus_than_anybody_has_are_not_walked_to_the_end(file):
    extension = header("XTENSION= 'IMAGE   '", *image(), "PCOUNT  = 0", "GCOUNT  = 1")
    hdus, fault = read_hdus(file(primary(*image()) + extension * 10_010))
    assert len(hdus) == 10_000 and "more than 10000 HDUs" in fault


def test_random_groups_and_heaps_count(file):
    groups = ["GROUPS  =                    T", "PCOUNT  = 3", "GCOUNT  = 4"]
    assert read_primary(file(primary(*image(0, 5, 7), *groups))).data_bytes == 2 * 4 * (3 + 35)
    table = header(
        "XTENSION= 'BINTABLE'", *image(8, 9, bitpix=8), "PCOUNT  = 11", "GCOUNT  = 1"
    )
    hdus, _ = read_hdus(file(primary(*image()) + table))
    assert hdus[1].data_bytes == 8 * 9 + 11


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    (tmp_path / "folder.fits").mkdir()
    for path, kind in (
        (tmp_path / "pipe.fits", "a pipe"),
        (tmp_path / "folder.fits", "a folder"),
        ("/dev/zero", "a device"),
    ):
        for read in (read_primary, read_hdus):
            with pytest.raises(FitsInvalid, match=f"not a file but {kind}"):
                read(path)
    with pytest.raises(FileNotFoundError):
        read_hdus(tmp_path / "nothing.fits")
    with pytest.raises(FitsInvalid, match="no such file name"):
        read_hdus("a\0b.fits")


# -- cards ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "comment"),
    [
        ("                   T / yes", True, "yes"),
        ("                   F", False, ""),
        ("                  -7 /", -7, ""),
        ("               32768 / offset / of 16 bits", 32768, "offset / of 16 bits"),
        ("1.5D3", 1500.0, ""),
        (" +.5E-1/x", 0.05, "x"),
        ("'it''s / one   '   / text", "it's / one", "text"),
        ("''", "", ""),
        ("'  x'", "  x", ""),
        ("                    / nothing", None, "nothing"),
        ("(1.0, -2)", "(1.0, -2)", ""),
    ],
)
def test_values_are_those_of_the_standard(field, value, comment):
    cards = values(f"KEY     = {field}")
    assert cards["KEY"] == value and type(cards["KEY"]) is type(value)
    assert cards.comment("KEY") == comment


@pytest.mark.parametrize("field", ["t", "0x10", "1.2.3", "'open", "'a' 'b'", "1E999", "nan"])
def test_a_value_that_is_not_fits_is_told_when_it_is_asked_for(field):
    cards = values(f"KEY     = {field}", "OTHER   = 1")
    assert "KEY" in cards and cards["OTHER"] == 1
    with pytest.raises(FitsInvalid, match=r"KEY: .* is no FITS value"):
        cards["KEY"]


def test_the_first_of_two_counts_and_commentary_has_no_value():
    cards = values(
        "A       = 1", "A       = 2", "HISTORY = 5", "HISTORY one", "COMMENT c", "HISTORY two",
        "NOVALUE  'x'", "HIERARCH ESO long name = 'v' / c",
    )  # fmt: skip
    assert list(cards) == ["A", "HISTORY", "ESO long name"] and len(cards) == 3
    assert cards["A"] == 1 and cards["ESO long name"] == "v"
    assert cards.commentary("HISTORY") == ["one", "two"]
    assert "NOVALUE" not in cards and cards.get("NOVALUE", 9) == 9
    with pytest.raises(KeyError):
        cards.comment("NOVALUE")


def test_a_long_string_is_whole():
    cards = values(
        "LONG    = 'one &'  / a", "CONTINUE  'two &' / b", "CONTINUE  'three'",
        "PLAIN   = 'x&'", "OTHER   = 1",
    )  # fmt: skip
    assert cards["LONG"] == "one two three" and cards.comment("LONG") == "ab"
    assert cards["PLAIN"] == "x&"
    with pytest.raises(FitsInvalid, match="holds no string"):
        values("LONG    = 'one&'", "CONTINUE  5")["LONG"]


def test_a_byte_that_is_no_text_is_told_with_its_card():
    cards = values("A       = 1", "B       = 'caf\xe9'")
    assert cards["A"] == 1 and "caf\xe9" in cards.card("B")
    with pytest.raises(FitsInvalid, match=r"card 2 .* holds the byte 0xe9"):
        cards["B"]
