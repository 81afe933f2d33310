"""Text from file names and headers: a terminal shows it and never obeys it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from vampires.terminal_text import ELLIPSIS, cells, clipped, safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vcam1_00:00:03.628172287.fits", "vcam1_00:00:03.628172287.fits"),
        ("\x1b[2J\x1b]0;title\x07.fits", "?[2J?]0;title?.fits"),
        ("a\nb\tc\rd\x7f\x9b31m", "a?b?c?d??31m"),
        ("abc\u202egnp.exe\u2066\u200f", "abc?gnp.exe??"),
        (os.fsdecode(b"\xff\xfe.fits"), "??.fits"),
        ("e\u0301te\u0301", "été"),
        ("z\u0335\u0336\u0337", "z???"),
        ("\u200b\ufeff\u00ad", "???"),
        ("すばる", "すばる"),
    ],
)
def test_what_would_control_a_terminal_is_shown_as_a_question_mark(
    text: str, shown: str
) -> None:
    assert safe_text(text) == shown


def test_a_cut_text_ends_with_an_ellipsis_and_fits() -> None:
    assert safe_text("abcdef", 6) == "abcdef"
    assert safe_text("abcdef", 4) == "abc" + ELLIPSIS
    assert safe_text("すばる", 6) == "すばる"
    assert safe_text("すばる", 5) == "すば" + ELLIPSIS
    assert safe_text("すばる", 4) == "す" + ELLIPSIS
    assert [safe_text("abc", width) for width in (1, 0, -3)] == [ELLIPSIS, "", ""]


@given(st.text(), st.integers(-2, 30))
def test_no_text_takes_more_cells_than_it_may(text: str, width: int) -> None:
    shown = safe_text(text, width)
    assert cells(shown) <= max(0, width)
    assert shown.isprintable()
    assert cells(clipped(safe_text(text), width)) <= max(0, width)


@given(st.text())
def test_cells_are_counted_as_the_screen_counts_them(text: str) -> None:
    shown = safe_text(text)
    assert cells(shown) == cell_len(shown)
