"""The header of a recovered cube: the one its logger began, completed in its place.

Every card stays where it stands, new ones take the places of the fillers before END (of blank
cards in cubes of earlier versions). So a header that is half written, since the recovery itself
was killed, still has every keyword once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vampires.aux_header import AuxHeader
from vampires.cube_header import CubeFacts, cube_header, ended_cards
from vampires.fits_cards import (
    CARD_CHARS,
    generic_field,
    history_cards,
    is_filler,
    literal_card,
    value_card,
)
from vampires.fits_hdus import Hdu
from vampires.fits_sum import CHECKSUM_CHARS, stamp_checksum
from vampires.frame_table import FrameFlag, Rows
from vampires.partial_cubes import PartialCube
from vampires.times import iso_utc

KEYWORD = "RECOVERD"

# Of a fresh header, the keywords that tell of the frames; the rest stands in the old one.
_OF_FRAMES = (
    *("DATE-OBS", "UT", "UT-STR", "UT-END", "HST", "HST-STR", "HST-END"),
    *("MJD", "MJD-STR", "MJD-END", "DATE-AVG", "DATE-BEG", "DATE-END"),
    *("MJD-AVG", "MJD-BEG", "MJD-END"),
    *("NLOST", "NLOSTEND", "NTORN", "CNT0-BEG", "CNT0-END"),
)
_COMMENTARY = ("HISTORY", "COMMENT", "")
_FRESH_BYTES = 4 * 2880


@dataclass(frozen=True)
class Gaps:
    """What the files of a dead logger did not agree in, in frames.

    ``rows_left_out``: rows of the journal without a whole frame in the cube. ``cut``: whole
    frames left out, since they have no row. ``untimed``: such frames that were kept.
    """

    rows_left_out: int = 0
    cut: int = 0
    untimed: int = 0


def recovered_header(
    hdu: Hdu, partial: PartialCube, rows: Rows, gaps: Gaps, *, data_sum: int, now_ns: int
) -> bytes:
    """The header for these rows (one or more), as long as that of ``hdu``, with both sums.

    ``data_sum`` is the DATASUM of the frames; ``now_ns`` the time of the recovery, ns UTC.

    Raises:
        ValueError: there is no room in the header, or the image is not a cube's.
    """
    finished = "CHECKSUM" in hdu.cards and hdu.cards.get("NAXIS3") == len(rows)
    fresh = _fresh_cards(hdu, partial, rows, gaps, finished=finished)
    fresh["NAXIS3"] = literal_card("NAXIS3", generic_field(len(rows)), "frames")
    recovered = value_card(KEYWORD, iso_utc(now_ns, 0), "UTC: vampires-recover finished it")
    added = {
        KEYWORD: _old_card(hdu, KEYWORD) or recovered,
        "CHECKSUM": value_card("CHECKSUM", "0" * CHECKSUM_CHARS, "sum of header and image"),
        "DATASUM": value_card("DATASUM", "0", "sum of the image"),
    }
    cards = _replaced(hdu.cards.raw.decode("ascii", errors="replace"), fresh | added)
    known = set(cards)
    for text in _history(partial, len(rows), gaps, finished=finished):
        cards += [card for card in history_cards(text) if card not in known]
    room = hdu.header_bytes // CARD_CHARS
    _make_room(cards, room - 1)
    header = "".join(ended_cards(cards, room)).ljust(hdu.header_bytes)
    return stamp_checksum(header.encode("ascii", "replace"), data_sum)


def _fresh_cards(
    hdu: Hdu, partial: PartialCube, rows: Rows, gaps: Gaps, *, finished: bool
) -> dict[str, str]:
    """The cards of times and counts, as the logger writes them."""
    acquired = bool(rows["TACQ"][0])
    source = rows["TACQ" if acquired else "TLOG"]
    known = source[source != 0]
    lost_at_end = gaps.rows_left_out + gaps.cut
    torn = int(np.count_nonzero(rows["FLAGS"] & FrameFlag.TORN_BEFORE))
    if finished:  # by its logger, which knew, or by an earlier try
        lost_at_end = _number(hdu, "NLOSTEND", lost_at_end)
        torn = _number(hdu, "NTORN", torn)
    facts = CubeFacts(
        stream=partial.stream,
        dtype="uint16",
        shape=(1, 1),
        n_frames=len(rows),
        t_first_ns=int(known[0]) if len(known) else partial.first_ns,
        t_last_ns=int(known[-1]) if len(known) else partial.first_ns,
        time_source="acquisition" if acquired else "logger",
        cnt0_begin=int(rows["CNT0"][0]),
        cnt0_end=int(rows["CNT0"][-1]),
        date_ns=partial.first_ns,
        n_lost=int(rows["LOST"].sum()),
        n_torn=torn,
        lost_at_end=lost_at_end,
    )
    header = cube_header(facts, AuxHeader(), _FRESH_BYTES).decode("ascii")
    cards = [header[at : at + CARD_CHARS] for at in range(0, len(header), CARD_CHARS)]
    return {name: card for card in cards if (name := card[:8].rstrip()) in _OF_FRAMES}


def _replaced(raw: str, new: dict[str, str]) -> list[str]:
    """The cards of the old header but its fillers, with the new ones in their places, or at the
    end; of two of one keyword the first. A card without a keyword becomes a comment."""
    cards: list[str] = []
    taken: set[str] = set()
    for at in range(0, len(raw), CARD_CHARS):
        card = raw[at : at + CARD_CHARS]
        name = card[:8].rstrip()
        if not name:
            card = f"COMMENT {card[8:]}"
        elif card[8:10] == "= ":
            if name in taken:
                continue
            taken.add(name)
            card = new.get(name, card)
        cards.append(card)
    while cards and is_filler(cards[-1]):
        cards.pop()
    return cards + [card for name, card in new.items() if name not in taken]


def _history(partial: PartialCube, frames: int, gaps: Gaps, *, finished: bool) -> list[str]:
    lines = [f"recovered: {frames} frames that process {partial.pid} left in a partial cube"]
    if not finished:
        lines.insert(0, "end of the cube: its logger ended without finishing it")
    for number, text in (
        (gaps.rows_left_out, "rows of the journal had no whole frame and were left out"),
        (gaps.cut, "whole frames had no row in the journal and were left out"),
        (gaps.untimed, "frames had no row in the journal: CNT0 counted on, times unknown"),
    ):
        if number:
            lines.append(f"{number} {text}")
    return lines


def _make_room(cards: list[str], capacity: int) -> None:
    """Where there are more cards than the capacity, earlier commentary gives way."""
    for at in range(len(cards) - 1, -1, -1):
        if len(cards) <= capacity:
            break
        if cards[at][:8].rstrip() in _COMMENTARY and "recover" not in cards[at]:
            del cards[at]
    if len(cards) > capacity:
        raise ValueError(f"its header has room for {capacity} cards, {len(cards)} are needed")


def _old_card(hdu: Hdu, keyword: str) -> str:
    return hdu.cards.card(keyword) if keyword in hdu.cards else ""


def _number(hdu: Hdu, keyword: str, otherwise: int) -> int:
    """A count of the header. FitsInvalid (a ValueError) where it is no FITS card."""
    value = hdu.cards.get(keyword)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if whole and value >= 0 else otherwise  # type: ignore[arg-type,operator]
