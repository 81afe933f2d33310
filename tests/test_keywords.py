"""Stream keywords: every byte pattern decodes, and what is encoded decodes to itself."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vampires.keywords import (
    KEYWORD_BYTES,
    Keyword,
    decode_keywords,
    encode_keyword,
    unreadable_keywords,
)

SHM_GOLDEN = Path(__file__).parent / "data" / "shm"
PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
names = st.text(PRINTABLE, min_size=1, max_size=15)
strings = st.text(PRINTABLE, max_size=15).filter(lambda s: s not in ("#TRUE#", "#FALSE#"))
values = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | strings | st.booleans()
comments = st.text(PRINTABLE, max_size=79)


def entry(name: bytes, kind: bytes, value: bytes = b"", comment: bytes = b"") -> bytes:
    return struct.pack("<16sc7x16sQ80s", name, kind, value, 0, comment)


@given(st.lists(st.tuples(names, values, comments)))
def test_encoded_keywords_decode_to_themselves(keywords):
    raw = b"".join(encode_keyword(*keyword) for keyword in keywords)
    decoded = decode_keywords(raw + bytes(KEYWORD_BYTES))
    assert decoded == [Keyword(*keyword) for keyword in keywords]
    assert [type(k.value) for k in decoded] == [type(value) for _, value, _ in keywords]


@given(names, values, st.text(max_size=200))
@example("N" * 15, "v" * 15, "c" * 200)
def test_name_string_and_comment_stay_closed_for_readers_in_c(name, value, comment):
    raw = encode_keyword(name, value, comment)
    assert len(raw) == KEYWORD_BYTES
    assert raw[15] == 0 and raw[127] == 0
    assert raw[16:17] != b"S" or raw[39] == 0


@given(st.binary(max_size=20 * KEYWORD_BYTES))
def test_no_bytes_make_decoding_fail(raw):
    for keyword in decode_keywords(raw):
        assert (keyword.name + keyword.comment + str(keyword.value)).isprintable()
    unreadable_keywords(raw)


def test_stale_entries_behind_the_end_are_ignored():
    raw = encode_keyword("A", 1) + bytes(KEYWORD_BYTES) + encode_keyword("STALE", 2)
    assert decode_keywords(raw) == [Keyword("A", 1)]


def test_text_ends_at_the_first_nul_whatever_is_left_behind_it():
    raw = entry(b"SHORT\0LEFT", b"S", b"new\0older", b"now\0before")
    assert decode_keywords(raw) == [Keyword("SHORT", "new", "now")]


def test_full_fields_without_nul_are_read_whole():
    raw = entry(b"ABCDEFGHIJKLMNOP", b"S", b"0123456789abcdef", b"c" * 80)
    assert decode_keywords(raw) == [Keyword("ABCDEFGHIJKLMNOP", "0123456789abcdef", "c" * 80)]


def test_bytes_outside_ascii_become_question_marks():
    raw = entry(b"N\xe9", b"S", b"\xff\x07x", b"\xb5m")
    assert decode_keywords(raw) == [Keyword("N?", "??x", "?m")]


def test_entries_without_a_readable_type_are_named_and_the_rest_is_read():
    raw = entry(b"NONE", b"N") + entry(b"WHAT", b"Z") + encode_keyword("B", True)
    assert decode_keywords(raw) == [Keyword("B", True)]
    assert unreadable_keywords(raw) == [("NONE", "N"), ("WHAT", "Z")]


def test_nan_and_a_torn_last_entry_survive():
    keywords = decode_keywords(encode_keyword("X", math.nan) + encode_keyword("Y", 1)[:100])
    assert [k.name for k in keywords] == ["X"]
    assert math.isnan(keywords[0].value)


def test_numpy_values_are_encoded_by_their_kind():
    raw = b"".join(
        encode_keyword(name, value)
        for name, value in (("I", np.int32(7)), ("F", np.float32(0.5)), ("B", np.bool_(True)))
    )
    assert [k.value for k in decode_keywords(raw)] == [7, 0.5, True]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("SIXTEEN_LETTERS_", 1, ValueError, "16 characters; 1 to 15"),
        ("", 1, ValueError, "0 characters; 1 to 15"),
        ("BIG", 2**63, ValueError, "outside int64"),
        ("SMALL", -(2**63) - 1, ValueError, "outside int64"),
        ("TEXT", "x" * 16, ValueError, "16 characters; a stream holds 15"),
        ("LIST", [1], TypeError, "type list"),
    ],
)
def test_what_a_stream_cannot_hold_is_refused_with_its_measure(name, value, error, message):
    with pytest.raises(error, match=message):
        encode_keyword(name, value)


def as_decoded(value):
    if not isinstance(value, str):
        return value
    text = "".join(chr(byte) if byte < 128 else "?" for byte in value.encode("utf-8"))
    return {"#TRUE#": True, "#FALSE#": False}.get(text, text)


def test_keywords_of_a_real_stream_read_as_its_own_library_reads_them():
    described = json.loads((SHM_GOLDEN / "gold_vcam_u16.json").read_text())
    pixels = described["raw_data"]
    start = pixels["offset"] + pixels["nbytes"]
    keyword_bytes = described["md"]["NBkw"] * KEYWORD_BYTES
    raw = (SHM_GOLDEN / described["file"]).read_bytes()[start : start + keyword_bytes]
    assert decode_keywords(raw) == [
        Keyword(k["name"], as_decoded(k["value"]), k["comment"]) for k in described["keywords"]
    ]
