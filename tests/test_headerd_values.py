"""What may stand in an aux header: by the dictionary's formats, by the standard, in a card."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires.aux_header import parse_aux_header
from vampires.fits_cards import keyword_dictionary
from vampires.headerd.aux_file import CURRENT, AuxFacts, aux_file, lasting_cards, passing_cards
from vampires.headerd.constants import Constant, ConstantsError, ConstantsFile, read_constants
from vampires.headerd.keyword_values import redis_keywords, value_of_text
from vampires.headerd.options import HeaderOptions
from vampires.headerd.redis_client import Answer
from vampires.headerd.redis_watch import sorted_out

NOW_NS = 1_800_000_000_123_456_789


def cards_of(facts: AuxFacts) -> dict[str, str]:
    """The cards that a logger takes from a file of these facts; it must leave none out."""
    aux = parse_aux_header(aux_file(passing_cards(facts, NOW_NS), lasting_cards(facts)), "aux")
    assert aux.note == ""
    return {card.name: card.text for card in aux.cards}


@pytest.mark.parametrize(
    ("name", "text", "card"),
    [
        ("AIRMASS", b"1.23456", "AIRMASS =                1.235"),
        ("D_IMRANG", b" -12.5 ", "D_IMRANG=              -12.500 / [deg]"),
        ("D_IMRANG", b"1e-9", "D_IMRANG=              1.0E-09 / [deg]"),
        ("X_GRDMOD", b"2000", "X_GRDMOD=                 2000 / [Hz]"),
        ("X_GRDMOD", b"2000.0", "X_GRDMOD=                 2000 / [Hz]"),
        ("OBJECT", b"HD 1's  ", "OBJECT  = 'HD 1''s                        '"),
        ("U_FLCEN", b"True", "U_FLCEN =                    T"),
        ("U_FLCEN", b"#FALSE#", "U_FLCEN =                    F"),
        ("U_TRIGEN", b"1", "U_TRIGEN=                    T"),
        ("U_TRIGEN", b"0", "U_TRIGEN=                    F"),
        ("CRVAL1", b"1.5", "CRVAL1  =           1.50000000"),
    ],
)
def test_text_of_redis_becomes_a_card_in_the_format_of_the_dictionary(name, text, card):
    facts = AuxFacts(CURRENT, values={name: value_of_text(name, text)})
    assert cards_of(facts)[name].rstrip() == card


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("AIRMASS", b"nan", 'found "nan", expected a number (format %20.3f)'),
        ("AIRMASS", b"inf", "expected a number"),
        ("AIRMASS", b"1e999", "finite"),
        ("AIRMASS", b"1_0", "expected a number"),
        ("AIRMASS", b"", 'found "", expected a number'),
        ("X_GRDMOD", b"2.5", 'found "2.5", expected a whole number'),
        ("X_GRDMOD", b"9" * 20, "64 bits"),
        ("X_GRDMOD", "\u0663".encode(), "printable ASCII"),
        ("U_FLCEN", b"yes", 'found "yes", expected true or false'),
        ("OBJECT", b"\xff", "printable ASCII"),
        ("OBJECT", b"a\nb", "printable ASCII"),
        ("OBJECT", b"a\x00", "printable ASCII"),
        ("OBJECT", b"x" * 69, "too long for a FITS card"),
        ("OBJECT", b"'" * 40, "too long for a FITS card"),
        ("OBJECT", b"x" * 100_000, "found 100000 characters, too long"),
        ("RADESYS", b"J2000", "FITS wants one of ICRS"),
        ("DATE-OBS", b"27/11/26", "FITS wants a date"),
        ("AIRMASS", 12, "found int, expected text"),
        ("AIRMASS", [b"1"], "found list, expected text"),
    ],
)
def test_a_value_that_no_header_can_have_is_refused_with_the_reason(name, text, why):
    with pytest.raises(ValueError) as refused:
        value_of_text(name, text)
    assert why in str(refused.value)
    assert str(refused.value).isprintable()


@given(
    st.dictionaries(
        st.sampled_from(redis_keywords()),
        st.binary(max_size=90) | st.from_regex(rb"[-+0-9.eE' ]{1,25}", fullmatch=True),
        max_size=20,
    )
)
def test_whatever_redis_holds_the_logger_takes_the_whole_file(texts):
    values, refused = sorted_out(Answer(texts, {}))
    assert values.keys() | refused.keys() == texts.keys()
    facts = AuxFacts(CURRENT, values=values, refused=refused, answered_ns=NOW_NS, age_s=1.0)
    assert values.keys() <= cards_of(facts).keys()


def test_redis_is_asked_for_no_keyword_that_the_stream_or_the_logger_gives():
    dictionary = keyword_dictionary()
    asked = redis_keywords()
    classes = {dictionary[name].source_class for name in asked}
    assert classes == {"AO188", "G2PULL", "SCEXAO", "SHM_FEED_IN", "SUBARU", "VAMPIRES", "WPU"}
    others = {dictionary[name].source_class for name in dictionary.keys() - set(asked)}
    assert others == {"SHM_CAMSTACK", "LOGSHIM", "APOSTERIORI"}


def test_redis_is_stronger_than_the_constants():
    constants = {"OBJECT": Constant("constant", "mine"), "TELESCOP": Constant("Subaru")}
    cards = cards_of(AuxFacts(CURRENT, constants, {"OBJECT": "HD 1"}))
    assert cards["OBJECT"].startswith("OBJECT  = 'HD 1 ")
    assert "mine" not in cards["OBJECT"]
    assert cards["TELESCOP"].startswith("TELESCOP= 'Subaru ")


# -- constants --------------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    file = folder / "constants.toml"
    file.write_text(text)
    return file


def test_constants_take_the_format_of_the_dictionary_or_a_comment_of_their_own(tmp_path):
    file = write(
        tmp_path,
        'TELESCOP = "Subaru"\nD_IMRANG = 3\nU_FLCEN = true\n'
        'MYKEY = { value = 1.5, comment = "[mm] as measured" }\n',
    )
    cards = cards_of(AuxFacts(CURRENT, read_constants(file)))
    assert cards["TELESCOP"].rstrip() == "TELESCOP= 'Subaru          '"
    assert cards["D_IMRANG"].rstrip() == "D_IMRANG=                3.000 / [deg]"
    assert cards["U_FLCEN"].rstrip() == "U_FLCEN =                    T"
    assert cards["MYKEY"].rstrip() == "MYKEY   =                  1.5 / [mm] as measured"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("object = 'x'", "object: found a name that no FITS keyword has"),
        ("LONGER_NAME = 1", "LONGER_NAME: found a name that no FITS keyword has"),
        ("BITPIX = 8", "BITPIX: the keyword describes the layout of a file"),
        ("COMMENT = 'x'", "COMMENT: the keyword describes the layout of a file"),
        ("U_AUXUT = 'x'", "U_AUXUT: keywords U_AUX... are the service's own"),
        ("OBJECT = 5", 'OBJECT: found "5", expected text (format %-30s)'),
        ("X_GRDMOD = 1.5", 'X_GRDMOD: found "1.5", expected a whole number'),
        ("AIRMASS = true", 'AIRMASS: found "True", expected a number'),
        ("AIRMASS = nan", "AIRMASS: found nan, expected a number that is finite"),
        ("MYKEY = inf", "MYKEY: found inf, expected a number that is finite"),
        ("U_FLCEN = 1", 'U_FLCEN: found "1", expected true or false'),
        ("MYKEY = 99999999999999999999", "expected a number of 64 bits"),
        (f"AIRMASS = 1{'0' * 400}", "expected a number"),
        ("OBJECT = 'caf\u00e9'", 'OBJECT: found "caf?", expected printable ASCII'),
        (f"MYKEY = '{'x' * 80}'", "too long for a FITS card"),
        ("RADESYS = 'J2000'", 'RADESYS: found "J2000": FITS wants one of ICRS'),
        ("MYKEY = [1]", "MYKEY: found a list, expected a text in quotes"),
        ("MYKEY = 2026-01-01", "MYKEY: found a date, expected a text in quotes"),
        ("MYKEY = { comment = 'x' }", "MYKEY: found no value, expected { value"),
        ("MYKEY = { value = 1, unit = 'x' }", "MYKEY: found unit, expected { value"),
        ("MYKEY = { value = 1, comment = 5 }", "MYKEY: found a comment that is no"),
        ("MYKEY", "expected lines such as  TELESCOP"),
    ],
)
def test_a_wrong_constant_is_told_with_its_file_and_key(tmp_path, line, fault):
    file = write(tmp_path, f'TELESCOP = "Subaru"\n{line}\n')
    with pytest.raises(ConstantsError) as wrong:
        read_constants(file)
    (told,) = wrong.value.faults
    assert told.startswith(f"{file}: ")
    assert fault in told
    assert "\n" not in told


def test_all_wrong_constants_are_told_at_once(tmp_path):
    with pytest.raises(ConstantsError) as wrong:
        read_constants(write(tmp_path, "OBJECT = 5\nRA = 5\n"))
    assert [fault.split(": ")[1] for fault in wrong.value.faults] == ["OBJECT", "RA"]


def test_a_constants_file_that_is_none_is_told(tmp_path):
    with pytest.raises(ConstantsError, match="No such file or directory, expected a readable"):
        read_constants(tmp_path / "nowhere.toml")
    with pytest.raises(ConstantsError, match="Is a directory"):
        read_constants(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConstantsError, match="UTF-8"):
        read_constants(tmp_path / "binary")
    many = "".join(f"K{number} = 1\n" for number in range(1001))
    with pytest.raises(ConstantsError, match="found 1001 keywords, expected at most 1000"):
        read_constants(write(tmp_path, many))


def test_constants_that_go_wrong_later_stay_as_they_were(tmp_path):
    constants = ConstantsFile(write(tmp_path, "MYKEY = 1\n"))
    assert not constants.look()
    write(tmp_path, "MYKEY = [1, 2]\n")
    with pytest.raises(ConstantsError):
        constants.look()
    assert constants.constants == {"MYKEY": Constant(1)}
    assert not constants.look()  # told once
    write(tmp_path, "MYKEY = 23456\n")
    assert constants.look()
    assert constants.constants == {"MYKEY": Constant(23456)}


def test_values_can_not_be_stale_before_they_are_asked_for_again():
    with pytest.raises(ValueError, match="stale after 5 s and asked for every 10 s"):
        HeaderOptions(period_s=10.0, stale_s=5.0)
