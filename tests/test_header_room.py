"""The room of a header: filled with comments, never with blank cards, and always ended."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from cube_checks import check_cubes
from hypothesis import given, settings
from hypothesis import strategies as st
from partial_cube_files import Leftover, recovered
from test_cube_header import NO_AUX, aux_of, facts, hostile_keywords, raw_keywords

from vampires.aux_header import AuxHeader
from vampires.cube_header import (
    BLOCK_BYTES,
    CubeFacts,
    KeywordChange,
    cube_header,
    header_cards_needed,
    provisional_header,
    reserve_bytes,
)
from vampires.fits_cards import END_CARD, FILLER_NOTE
from vampires.fits_sum import data_sum
from vampires.frame_table import FRAME_DTYPE, frames_hdu
from vampires.recovery import recover

END = END_CARD.encode("ascii")


def cards_of(header: bytes) -> list[bytes]:
    return [header[at : at + 80] for at in range(0, len(header), 80)]


def fillers(header: bytes) -> int:
    cards = cards_of(header)
    note = f"COMMENT {FILLER_NOTE}".encode().ljust(80)
    return cards.count(note) + cards.count(b"COMMENT".ljust(80))


def with_changes(count: int) -> CubeFacts:
    return facts(changes=[KeywordChange(n, f"KEY{n}", n) for n in range(count)], data_sum=5)


def test_fillers_reach_the_last_block_and_no_further():
    for keywords in range(80):
        cube = facts(keywords_raw=raw_keywords(*((f"KEY{n}", n) for n in range(keywords))))
        room = reserve_bytes(cube, NO_AUX) + BLOCK_BYTES
        header = cube_header(cube, NO_AUX, room)
        end = cards_of(header).index(END)
        assert end >= room // 80 - 36
        assert fillers(header) == 0 or end == room // 80 - 36
        assert header[(end + 1) * 80 :].strip() == b""


def test_the_fillers_say_what_they_are():
    room = reserve_bytes(facts(), NO_AUX) + BLOCK_BYTES
    cards = cards_of(cube_header(facts(), NO_AUX, room))
    first = cards.index(f"COMMENT {FILLER_NOTE}".encode().ljust(80))
    assert set(cards[first + 1 : cards.index(END)]) == {b"COMMENT".ljust(80)}


@pytest.mark.parametrize("changes", [0, 5, 11])
def test_the_end_of_a_header_stays_where_it_was_when_the_cube_was_opened(changes):
    opened = facts(end_reason="")
    end = header_cards_needed(opened, NO_AUX) - 1
    room = reserve_bytes(opened, NO_AUX)
    provisional = provisional_header(opened, NO_AUX, room, end)
    header = cube_header(with_changes(changes), NO_AUX, room, end)
    place = cards_of(header).index(END)
    assert place == cards_of(provisional).index(END) == max(end, room // 80 - 36)


@pytest.mark.parametrize("changes", [0, 11, 13, 20, 100])
def test_a_final_header_that_is_half_written_has_an_end_in_the_last_block(changes):
    """At every card, over the provisional header it replaces."""
    opened = facts(end_reason="")
    end = header_cards_needed(opened, NO_AUX) - 1
    room = reserve_bytes(opened, NO_AUX)
    before = provisional_header(opened, NO_AUX, room, end)
    after = cube_header(with_changes(changes), NO_AUX, room, end)
    for torn_at in range(0, room + 80, 80):
        torn = after[:torn_at] + before[torn_at:]
        assert cards_of(torn).index(END) >= room // 80 - 36, torn_at


aux_cards = st.lists(
    st.one_of(
        st.integers(0, 40).map(lambda n: f"KEY{n:<5}= {n}"),
        st.sampled_from(["COMMENT", "COMMENT  text", "HISTORY", ""]),
    ),
    max_size=40,
).map(lambda cards: aux_of(*cards))
cubes = st.builds(
    lambda raw, changes, notes, lost: facts(
        keywords_raw=raw,
        changes=[KeywordChange(n, f"KEY{n}", n) for n in range(changes)],
        notes=notes,
        lost_at_end=lost,
    ),
    hostile_keywords,
    st.integers(0, 60),
    st.lists(st.text(max_size=100), max_size=5),
    st.integers(0, 3),
)


def whole(cube: CubeFacts, aux: AuxHeader, spare_blocks: int, end_card: int) -> bytes:
    """A cube of five frames of zeros."""
    data = bytes(-(-2 * 5 * 8 * 12 // BLOCK_BYTES) * BLOCK_BYTES)
    room = reserve_bytes(cube, aux) + spare_blocks * BLOCK_BYTES
    summed = facts(**{**vars(cube), "data_sum": data_sum(data)})
    header = cube_header(summed, aux, room, end_card)
    assert len(header) == room
    rows = np.zeros(5, FRAME_DTYPE)
    return header + data + frames_hdu(rows)


@settings(max_examples=60, deadline=None)
@given(cubes, aux_cards, st.integers(0, 2), st.integers(0, 200))
def test_no_header_has_a_blank_card_and_each_has_one_end(
    tmp_path_factory, cube, aux, spare_blocks, end_card
):
    path = tmp_path_factory.getbasetemp() / "room.fits"
    content = whole(cube, aux, spare_blocks, end_card)
    path.write_bytes(content)
    cards = cards_of(content)
    primary = cards[: cards.index(END)]
    assert all(card[:8].strip() for card in primary)
    ran = subprocess.run(
        ["fitsverify", "-q", path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "warning" not in ran.stdout


# -- recovered cubes --------------------------------------------------------------------------


def blank_cards(header: bytes) -> bytes:
    """As earlier versions left it: blank cards for fillers, END at the very end."""
    cards = cards_of(header)
    kept = [card for card in cards[: cards.index(END)] if not card.startswith(b"COMMENT")]
    return b"".join(kept).ljust(len(header) - 80) + END


def test_a_partial_cube_with_blank_cards_is_recovered_without_any(tmp_path):
    leftover = Leftover(tmp_path)
    with leftover.names.cube.open("r+b") as file:
        file.write(blank_cards(leftover.header))
    recovered(leftover, 7)


def test_an_unfinished_longer_header_is_recovered(tmp_path):
    """The logger was killed while END moved back: what follows are the blanks behind it."""
    leftover = Leftover(tmp_path)
    changes = [KeywordChange(n, f"KEY{n}", n) for n in range(30)]
    leftover.write_final_header(7, changes=changes)
    final = leftover.names.cube.read_bytes()[: len(leftover.header)]
    ends = [cards_of(header).index(END) for header in (leftover.header, final)]
    assert ends[0] < ends[1]
    for number, torn_at in enumerate(range(ends[0] - 2, ends[1] + 2)):
        one = Leftover(tmp_path / str(number))
        with one.names.cube.open("r+b") as file:
            file.write(final[: torn_at * 80])
        check_cubes([recover(one.partial)], one.pool)
