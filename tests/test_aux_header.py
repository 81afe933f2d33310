"""The auxiliary header: good cards come through untouched, nothing in the file does harm."""

import os
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from vampires.aux_header import MAX_BYTES, parse_aux_header, read_aux_header

GOLDEN = Path(__file__).parent / "data" / "fits" / "aux"


def header_bytes(*cards: str, end: bool = True) -> bytes:
    images = ["SIMPLE  =                    T", *cards, *(["END"] if end else [])]
    text = "".join(f"{card:<80}" for card in images).encode("latin-1")
    return text + b" " * (-len(text) % 2880)


def parsed(*cards: str) -> dict[str, str]:
    return {card.name: card.text for card in parse_aux_header(header_bytes(*cards), "a").cards}


def test_the_file_of_the_real_logger_gives_its_own_cards_and_not_those_of_its_layout():
    aux = read_aux_header(GOLDEN, "vgold")
    assert aux.note == ""
    assert [card.text.rstrip() for card in aux.cards] == [
        "AUXKEY  =                    5 / from aux",
        "EXPTIME =                 99.0 / aux exptime",
        "HIERARCH LONG AUX KEY = 'yes     '",
        "COMMENT aux comment",
    ]


def test_card_text_stays_as_it_is():
    cards = [
        "D_IMRANG=   12.340 / [deg]  odd  spacing",
        "Q       = 'it''s / here' / quote",
        "Z1      = (1.0, -2.E3)",
        "E1      = 1.5D-3",
        "HISTORY  made by  hand",
    ]
    aux = parse_aux_header(header_bytes(*cards), "a")
    assert [card.text for card in aux.cards] == [card.ljust(80) for card in cards]
    assert aux.note == ""


def test_a_long_string_keeps_its_continue_cards():
    header = fits.Header()
    header["SIMPLE"] = True
    header["LONG"] = "x" * 150
    aux = parse_aux_header(header.tostring().encode("ascii"), "a")
    assert [(card.name, len(card.text)) for card in aux.cards] == [("LONG", 240)]


def test_a_continue_card_behind_a_card_left_out_goes_with_it():
    aux = parse_aux_header(
        header_bytes("A       = 1", "CHECKSUM= 'abc&'", "CONTINUE  'def'"), "a"
    )
    assert [card.text.rstrip() for card in aux.cards] == ["A       = 1"]


def test_a_continue_card_behind_a_bad_card_is_not_joined_to_an_older_string():
    aux = parse_aux_header(
        header_bytes("A       = 'abc&'", "BAD KEY = 1", "CONTINUE  'def'"), "a"
    )
    assert [card.text.rstrip() for card in aux.cards] == ["A       = 'abc&'"]


@pytest.mark.parametrize(
    "name",
    ["BITPIX", "NAXIS", "NAXIS1", "NAXIS17", "EXTEND", "BZERO", "BSCALE", "BLANK", "CHECKSUM",
     "DATASUM", "PCOUNT", "GCOUNT", "GROUPS", "XTENSION", "TFIELDS", "TFORM1", "ZIMAGE"],
)  # fmt: skip
def test_cards_on_the_layout_are_never_taken(name):
    assert parsed(f"{name:<8}= 1", "KEEP    = 1") == {"KEEP": "KEEP    = 1".ljust(80)}


@pytest.mark.parametrize(
    "card",
    ["lower   = 1", "BAD KEY = 1", "NOVALUE   1", "X       =1", "Q       = 'open",
     "N       = 1.2.3", "L       = Tx", "U       = \xe9", "C       = 1 no slash",
     "EQUINOX = 'FK5'", "DATE-X  = 'now'", "CRPIX4  = 1.0", "HIERARCH = 1",
     "HIERARCH A.B = 1", "CONTINUE  'of nothing'"],
)  # fmt: skip
def test_a_card_against_the_standard_is_left_out_and_counted(card):
    aux = parse_aux_header(header_bytes("A       = 1", card, "B       = 2"), "v.aux.fits")
    assert [c.name for c in aux.cards] == ["A", "B"]
    assert aux.note == "v.aux.fits: 1 cards left out; 2 keywords taken"


def test_the_first_card_of_a_name_is_kept():
    assert parsed("A       = 1", "A       = 2", "HIERARCH a = 3") == {
        "A": "A       = 1".ljust(80)
    }


def test_a_missing_file_is_told(tmp_path):
    aux = read_aux_header(tmp_path, "vcam1")
    assert aux.cards == ()
    assert aux.note == "no auxiliary cards: vcam1.aux.fits does not exist"


@pytest.mark.parametrize("content", [b"", b"not FITS at all", b"\0" * 5000])
def test_a_file_that_is_not_fits_is_told(tmp_path, content):
    (tmp_path / "v.aux.fits").write_bytes(content)
    aux = read_aux_header(tmp_path, "v")
    assert aux.cards == ()
    assert aux.note == "v.aux.fits is not a FITS file: no auxiliary cards"


def test_a_pipe_or_folder_in_place_of_the_file_does_not_stop_a_recording(tmp_path):
    os.mkfifo(tmp_path / "pipe.aux.fits")
    (tmp_path / "folder.aux.fits").mkdir()
    for stream in ("pipe", "folder"):
        aux = read_aux_header(tmp_path, stream)
        assert aux.cards == ()
        assert "not a regular file" in aux.note


def test_a_truncated_file_gives_its_whole_cards(tmp_path):
    whole = header_bytes("A       = 1", "B       = 2", "C       = 3")
    (tmp_path / "v.aux.fits").write_bytes(whole[: 3 * 80 + 40])
    aux = read_aux_header(tmp_path, "v")
    assert [card.name for card in aux.cards] == ["A", "B"]
    assert aux.note == "v.aux.fits: no END card; 2 keywords taken"


def test_a_huge_file_is_read_up_to_the_limit(tmp_path):
    cards = [f"K{number:<7}= {number}" for number in range(MAX_BYTES // 80 + 100)]
    (tmp_path / "v.aux.fits").write_bytes(header_bytes(*cards))
    aux = read_aux_header(tmp_path, "v")
    assert len(aux.cards) == MAX_BYTES // 80 - 1
    assert "no END card" in aux.note and f"over {MAX_BYTES} bytes" in aux.note


@given(st.lists(st.binary(min_size=80, max_size=80)), st.binary(max_size=79))
def test_no_bytes_make_reading_fail(images, torn_image):
    content = b"".join([b"SIMPLE  =".ljust(80), *images, torn_image])
    for card in parse_aux_header(content, "a").cards:
        assert len(card.text) % 80 == 0 and card.text.isascii() and card.text.isprintable()
