"""Any legal FITS 4.0 header is taken whole as auxiliary header of a cube."""

from __future__ import annotations

import string
import subprocess

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_aux_header import header_bytes
from test_cube_header import facts, raw_keywords

from vampires.aux_header import AuxHeader, parse_aux_header
from vampires.cube_header import cube_header, reserve_bytes
from vampires.fits_cards import is_structural, keyword_dictionary, reserved_kind
from vampires.fits_sum import data_sum
from vampires.frame_table import FRAME_DTYPE, frames_hdu

NAME_CHARACTERS = string.ascii_uppercase + string.digits + "-_"
PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))
NOT_VALUES = ("COMMENT", "HISTORY", "CONTINUE", "HIERARCH", "END")
LAYOUT = ("BITPIX  = 8", "NAXIS   = 0", "EXTEND  = T", "CHECKSUM= 'abcdabcdabcdabcd'",
          "DATASUM = '0'", "BLOCKED = T", "LONGSTRN= 'OGIP 1.0'", "BSCALE  = 1.0",
          "GROUPS  = F", "DATASUM = 'goes on&'", "PCOUNT  = 0")  # fmt: skip
OF_LOGGER = {card[:8].rstrip() for card in map(str, fits.Header.fromstring(
    cube_header(facts(data_sum=0), AuxHeader(), 2 * 2880)).cards)}  # fmt: skip

names = st.text(NAME_CHARACTERS, min_size=1, max_size=8).filter(
    lambda name: (
        not is_structural(name)
        and reserved_kind(name) is None
        and name not in NOT_VALUES
        and name not in OF_LOGGER
    )
)
digits = st.text(string.digits, min_size=1, max_size=15)
signs = st.sampled_from(["", "+", "-"])
exponents = st.builds("{}{}{}".format, st.sampled_from("ED"), signs, st.sampled_from("0259"))
integers = st.builds("{}{}".format, signs, st.text(string.digits, min_size=1, max_size=50))
decimals = st.one_of(
    st.builds("{}{}.{}".format, signs, digits, st.text(string.digits, max_size=15)),
    st.builds("{}.{}".format, signs, digits),
)
floats = st.one_of(decimals, st.builds("{}{}".format, decimals, exponents))
numbers = st.one_of(st.integers(-999, 999).map(str), floats)
complexes = st.builds(
    lambda one, two, gap: f"({gap}{one[:20]}{gap},{gap}{two[:20]})",
    st.integers().map(str) | decimals, decimals, st.sampled_from(["", " "]),
)  # fmt: skip
texts = st.text(PRINTABLE, max_size=40)
strings = texts.map(lambda text: "'" + text.replace("'", "''")[:66].rstrip("'&") + "'")
records = st.builds("'{}: {}'".format, st.sampled_from(["a.b", "NAXIS", "AXIS.1"]), numbers)
values = st.one_of(integers, floats, complexes, st.sampled_from(["T", "F"]), strings, records)
years = st.integers(0, 9999).map("{:04d}".format)
long_years = st.builds("{}{:05d}".format, st.sampled_from("+-"), st.integers(0, 99999))
times = st.builds("T{:02d}:{:02d}:{:02d}{}".format, st.integers(0, 23), st.integers(0, 59),
                  st.integers(0, 59), st.just("") | digits.map(".{}".format))  # fmt: skip


def dates(of_years: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("'{}-{:02d}-{:02d}{}'".format, of_years, st.integers(1, 12),
                     st.integers(1, 28), st.just("") | times)  # fmt: skip


reserved = [
    st.tuples(st.just("EQUINOX"), numbers),
    st.tuples(st.just("MJD-OBS"), floats),
    st.tuples(st.just("DATAMAX"), numbers),
    st.tuples(st.just("RADESYS"), st.sampled_from(["'FK5'", "'ICRS    '"])),
    st.tuples(st.sampled_from(["OBJECT", "TELESCOP", "AUTHOR"]), strings),
    st.tuples(st.just("EXTVER"), st.integers(1, 9).map(str)),
    st.tuples(st.sampled_from(["DATE-X", "DATEREF", "DATE-LOC"]), dates(years)),
]
comments = st.one_of(st.just(""), texts.map("/{}".format), texts.map(" / {}".format))
gaps = st.integers(0, 20).map(lambda count: " " * count)


def card_text(name: str, gap: str, value: str, comment: str) -> str:
    """In free format, or fixed where the gap is that long; a comment is cut."""
    return f"{name:<8}= {gap if len(value) + len(gap) <= 70 else ''}{value}{comment}"[:80]


def unique(cards: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(keyword, card text) without a second card of a keyword."""
    return list(dict(reversed(cards)).items())


def cards_of(*kinds: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy:
    """[(keyword, card text)]."""
    card = st.one_of(st.tuples(names, values), *kinds)
    with_comment = st.tuples(card, gaps, comments).map(
        lambda drawn: (drawn[0][0], card_text(drawn[0][0], drawn[1], drawn[0][1], drawn[2]))
    )
    return st.lists(with_comment, max_size=25).map(unique)


legal_cards = cards_of(*reserved)
legal_but_strange = cards_of(
    *reserved,
    st.tuples(names.filter(lambda name: name not in keyword_dictionary()), st.just("")),
    st.tuples(st.just("DATE-X"), dates(long_years)),
)


def parsed(*cards: str) -> AuxHeader:
    """Read without a complaint."""
    aux = parse_aux_header(header_bytes(*cards), "a")
    assert (aux.note, aux.notes) == ("", ())
    return aux


def in_a_cube(aux: AuxHeader) -> bytes:
    """A cube of five frames of zeros with these auxiliary cards."""
    data = bytes(2880)
    cube = facts(keywords_raw=raw_keywords(("GAIN", 0.1)), data_sum=data_sum(data))
    header = cube_header(cube, aux, reserve_bytes(cube, aux))
    return header + data + frames_hdu(np.zeros(5, FRAME_DTYPE))


@given(legal_but_strange, st.lists(st.sampled_from(LAYOUT), max_size=5))
def test_every_legal_value_stays_byte_for_byte(cards, layout):
    texts = [text for _, text in cards]
    aux = parsed(*layout, *texts)
    assert [card.text for card in aux.cards] == [text.ljust(80) for text in texts]
    assert [card.name for card in aux.cards] == [name for name, _ in cards]
    cube = in_a_cube(aux)
    for text in texts:
        assert cube.count(text.ljust(80).encode("ascii")) == 1


@settings(max_examples=50)
@given(legal_cards)
def test_the_cube_is_good_for_fitsverify(tmp_path_factory, cards):
    path = tmp_path_factory.getbasetemp() / "legal.fits"
    path.write_bytes(in_a_cube(parsed(*(text for _, text in cards))))
    ran = subprocess.run(["fitsverify", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "***" not in ran.stdout.replace("****", ""), ran.stdout


@given(st.lists(st.one_of(
    st.tuples(st.sampled_from(["        ", "COMMENT ", "HISTORY "]), texts),
    st.tuples(names.map("{:<8}".format), texts.map("  {}".format)),
    st.tuples(st.just("CONTINUE"), texts.map("  {}".format)),
), max_size=20))  # fmt: skip
def test_every_legal_commentary_is_kept(cards):
    aux = parsed("A       = 1", *(name + text for name, text in cards))
    assert aux.cards[0].name == "A"
    assert {card.name for card in aux.cards[1:]} <= {"COMMENT", "HISTORY"}
    kept = "".join(card.text[8:] for card in aux.cards[1:])
    sent = "".join(
        text if name[:7] in ("COMMENT", "HISTORY") else name + text for name, text in cards
    )
    assert kept.replace(" ", "") == sent.replace(" ", "")
    assert all(card.text[:8].strip() for card in aux.cards)


long_names = st.lists(
    st.text(NAME_CHARACTERS + ".", min_size=1, max_size=8), min_size=2, max_size=4
).map(" ".join)


@given(long_names, values, comments)
def test_hierarch_keywords_are_kept(name, value, comment):
    text = f"HIERARCH {name} = {value}{comment}"
    if len(f"HIERARCH {name} = {value}") > 80:
        return
    aux = parsed(text[:80])
    assert [card.text for card in aux.cards] == [text[:80].ljust(80)]
    assert aux.cards[0].name == name


# Without what astropy does not read back itself: an ampersand at the end of a card, a string
# cut between the two quotes that stand for one.
long_texts = st.text(PRINTABLE.replace("'", "").replace("&", ""), min_size=69, max_size=400)


@given(long_texts, texts, st.text(NAME_CHARACTERS, max_size=6))
def test_long_strings_that_astropy_writes_are_kept(text, comment, name):
    header = fits.Header([("SIMPLE", True), (f"Q{name}", text, comment), ("AFTER", 1)])
    aux = parse_aux_header(header.tostring().encode("ascii"), "a")
    assert aux.note == ""
    found = fits.Header.fromstring(in_a_cube(aux))
    assert found[f"Q{name}"] == header[f"Q{name}"] and found["AFTER"] == 1


@given(st.dictionaries(
    names.filter(lambda name: name not in keyword_dictionary()),
    st.one_of(
        st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), texts,
        st.complex_numbers(allow_nan=False, max_magnitude=1e99), st.none(),
    ),
    max_size=20,
))  # fmt: skip
def test_every_header_that_astropy_writes_is_kept(given_values):
    header = fits.Header([("SIMPLE", True), *given_values.items()])
    aux = parse_aux_header(header.tostring().encode("ascii"), "a")
    assert (aux.note, aux.notes) == ("", ())
    found = fits.Header.fromstring(in_a_cube(aux))
    for name in given_values:
        assert str(found.cards[name]) == str(header.cards[name])


@pytest.mark.parametrize("name", ["EQUINOX", "OBJECT", "DATE-X", "AIRMASS", "U_FLCST"])
def test_a_keyword_of_the_readers_without_a_value_is_a_comment(name):
    """fitsverify and the readers want a value there, or no card."""
    aux = parsed(f"{name:<8}=                      / not known")
    (card,) = aux.cards
    assert card.name == "COMMENT" and name in card.text and "not known" in card.text
