"""The auxiliary header: good cards come through untouched, nothing in the file does harm."""

import os
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from vampires.aux_header import MAX_BYTES, AuxHeader, parse_aux_header, read_aux_header

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "fits" / "aux"
CASES = DATA / "cases"


def header_bytes(*cards: str | bytes, end: bool = True) -> bytes:
    """Of cards in Latin-1, or of their bytes."""
    images = ["SIMPLE  =                    T", *cards, *(["END"] if end else [])]
    raw = (card if isinstance(card, bytes) else card.encode("latin-1") for card in images)
    text = b"".join(card.ljust(80) for card in raw)
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


@pytest.mark.parametrize("between", ["BAD     = 1.2.3", "B       = 1", "COMMENT c"])
def test_a_continue_card_behind_another_card_is_not_joined_to_an_older_string(between):
    aux = parse_aux_header(header_bytes("A       = 'abc&'", between, "CONTINUE  'def'"), "a")
    assert aux.cards[0].text.rstrip() == "A       = 'abc&'"
    assert not any("def" in card.text for card in aux.cards if not card.is_commentary)


def test_a_string_goes_on_only_behind_an_ampersand_at_its_end():
    aux = parse_aux_header(
        header_bytes("A       = 'abc' / it's '&'", "CONTINUE  'def'", "B       = 'x&' / c",
                     "CONTINUE  'y&'", "CONTINUE  'z'", "CONTINUE  'nothing'"), "a"
    )  # fmt: skip
    assert [(card.name, len(card.text)) for card in aux.cards] == [
        ("A", 80), ("COMMENT", 80), ("B", 240), ("COMMENT", 80)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["BITPIX", "NAXIS", "NAXIS1", "NAXIS17", "EXTEND", "BZERO", "BSCALE", "BLANK", "CHECKSUM",
     "DATASUM", "PCOUNT", "GCOUNT", "GROUPS", "XTENSION", "TFIELDS", "TFORM1", "ZIMAGE"],
)  # fmt: skip
def test_cards_on_the_layout_are_never_taken(name):
    assert parsed(f"{name:<8}= 1", "KEEP    = 1") == {"KEEP": "KEEP    = 1".ljust(80)}


@pytest.mark.parametrize(
    "card",
    ["N       = 1.2.3", "N       = Tx", "N       = \xe9", "N       = 1 no slash",
     "N       = M31 / galaxy", "N       = 'open / or not", "N       = 12:34:56",
     "EQUINOX = 'FK5'", "EQUINOX = (1.0, 2.0)", "DATE-X  = 'now'", "DATE-X  = 5",
     "DATE-X  = '2026-02-30'", "CRPIX4  = 1.0", "RADESYS = 'none'",
     "HIERARCH LONG N = 1.2.3"],
)  # fmt: skip
def test_a_card_whose_meaning_is_not_certain_is_left_out_and_named(card):
    aux = parse_aux_header(header_bytes("A       = 1", card, "B       = 2"), "v.aux.fits")
    name = "LONG N" if "LONG" in card else card[:8].rstrip()
    assert [c.name for c in aux.cards] == ["A", "B"]
    assert aux.note == f"v.aux.fits: left out: {name}; 2 keywords taken"
    assert [(note.keyword, note.action) for note in aux.notes] == [(name, "left out")]


@pytest.mark.parametrize(
    ("card", "mended"),
    [
        ("lower   = 1", "LOWER   = 1"),
        ("BAD KEY = 1", "BAD_KEY = 1"),
        (" LATE   = 1", "LATE    = 1"),
        ("X       =1", "X       = 1"),
        ("X = 1 / c", "X       =  1 / c"),
        ("X='text'", "X       = 'text'"),
        ("E       = 1.5e-3 / per mille", "E       = 1.5E-3 / per mille"),
        ("E       = 2d5", "E       = 2D5"),
        ("E       = (1e1, 2)", "E       = (1E1, 2)"),
        ("L       =                    t / c", "L       =                    T / c"),
        ("N       = nan / c", "N       =  'NaN     '          / c"),
        ("Q       = 'open", "Q       = 'open'"),
        ("EQUINOX = '2000.0'", "EQUINOX =               2000.0"),
        ("EPOCH   = 1950.0", "EQUINOX = 1950.0"),
        ("OBJECT  = 5 / c", "OBJECT  = '5       '           / c"),
        ("DATE-X  = '2016-12-31T23:59:60'", "DATE-X  = '2017-01-01T00:00:00'"),
        ("DATE-X  = '2024-02-28T23:59:60.5'", "DATE-X  = '2024-02-29T00:00:00.5'"),
        ("DATE-X  = '2016-12-31 23:59:58Z'", "DATE-X  = '2016-12-31T23:59:58'"),
        ("DATE-X  = '21/12/96'", "DATE-X  = '1996-12-21'"),
        ("C       = 3.5 / [\xb0C]", "C       = 3.5 / [degC]"),
        ("C       = 'M\xfcller'", "C       = 'Muller'"),
        ("C       = 1 / a\tb\x07", "C       = 1 / a b?"),
        ("C       = '" + 60 * "\xb0" + "'", "C       = '" + 60 * "?" + "'"),
        ("C       = 1 / " + 60 * "\xb0", "C       = 1 / " + 22 * "deg"),
        ("HIERARCH LONG N = 1e3", "HIERARCH LONG N = 1E3"),
    ],
)
def test_a_card_that_can_mean_only_one_thing_is_mended_and_named(card, mended):
    aux = parse_aux_header(header_bytes(card, "B       = 2"), "v.aux.fits")
    assert [c.text for c in aux.cards] == [mended.ljust(80)[:80], "B       = 2".ljust(80)]
    name = aux.cards[0].name
    assert aux.note == f"v.aux.fits: mended: {name}; 2 keywords taken"
    assert [(note.keyword, note.action) for note in aux.notes] == [(name, "mended")]
    assert fits.Card.fromstring(aux.cards[0].text).verify("exception") is None


def test_utf8_is_read_as_such_also_where_the_card_ends_within_a_character():
    cut = b"D       = 1 / ".ljust(79, b"x") + "\xe9".encode()[:1]
    aux = parse_aux_header(header_bytes("C       = 1 / \xb0C \xb5m \u20ac".encode(), cut), "a")
    assert [card.text.rstrip() for card in aux.cards] == [
        "C       = 1 / degC um ?", "D       = 1 / ".ljust(79, "x")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("card", "comments"),
    [
        ("", []),
        ("         / WEATHER", ["/ WEATHER"]),
        ("        = 5", ["= 5"]),
        ("NOVALUE   some text", ["NOVALUE   some text"]),
        ("HIERARCH = 1", ["HIERARCH = 1"]),
        ("HIERARCH some text", ["HIERARCH some text"]),
        ("CONTINUE  'of nothing'", ["CONTINUE  'of nothing'"]),
        ("CONTINUE of nothing", ["CONTINUE of nothing"]),
        ("X" * 8 + " " + "word " * 14, ["X" * 8 + " " + ("word " * 12).strip(), "word word"]),
        ("AIRMASS =         / not known", ["AIRMASS =         / not known"]),
        ("EQUINOX =", ["EQUINOX ="]),
    ],
)
def test_commentary_of_any_keyword_becomes_a_comment_without_complaint(card, comments):
    aux = parse_aux_header(header_bytes("A       = 1", card, "B       = 2"), "v.aux.fits")
    assert (aux.note, aux.notes) == ("", ())
    assert [c.name for c in aux.cards] == ["A", *["COMMENT"] * len(comments), "B"]
    assert [c.text[8:].strip() for c in aux.cards[1:-1]] == comments


def test_text_that_is_no_card_becomes_a_comment_and_is_named():
    aux = parse_aux_header(header_bytes("Written by hand"), "v.aux.fits")
    assert [c.text.rstrip() for c in aux.cards] == ["COMMENT  Written by hand"]
    assert [note.action for note in aux.notes] == ["mended"]


def test_the_note_has_eight_names_of_each_kind_and_the_notes_have_all():
    bad = [f"BAD{n:<5}= x" for n in range(10)]
    odd = [f"odd{n:<5}= 1" for n in range(9)]
    aux = parse_aux_header(header_bytes(*bad, *odd), "v.aux.fits")
    first = ", ".join(f"BAD{n}" for n in range(8))
    assert f"left out: {first} and 2 more; mended: ODD0, " in aux.note
    assert "ODD8" not in aux.note and "\n" not in aux.note
    assert len(aux.notes) == 19
    assert all(note.keyword in note.text and "\n" not in note.text for note in aux.notes)


# -- cases ------------------------------------------------------------------------------------


def case(name: str) -> AuxHeader:
    return parse_aux_header((CASES / f"{name}.fits").read_bytes(), "vcam1.aux.fits")


def test_a_degree_sign_in_a_comment_costs_no_value():
    aux = case("aux_degree")
    (card,) = aux.cards
    assert card.text.rstrip() == "TEMP_OUT=                  3.5 / [degC] outside"
    assert "TEMP_OUT" in aux.note


def test_a_heading_without_a_keyword_is_taken_as_a_comment():
    aux = case("aux_blank_keyword")
    assert [card.name for card in aux.cards] == ["COMMENT", "TEMP_OUT"]
    assert aux.note == ""


def test_two_more_cards_are_taken():
    aux = case("aux_two_cards_make_standard_unpackable")
    assert [card.name for card in aux.cards] == ["MYKEY", "MYKEY2"]


def test_the_first_card_of_a_name_is_kept():
    assert parsed("A       = 1", "A       = 2", "HIERARCH a = 3") == {
        "A": "A       = 1".ljust(80)
    }
    aux = parse_aux_header(header_bytes("A       = 1", "A       = 2", "B = 1", "B = 1"), "a")
    assert ("A", "left out") in [(note.keyword, note.action) for note in aux.notes]
    assert ("B", "left out") not in [(note.keyword, note.action) for note in aux.notes]


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
