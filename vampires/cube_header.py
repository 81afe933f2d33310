"""The header of a cube, from what the logger knows of it.

Three sources give keywords, the later the stronger: the auxiliary file of the stream, the
keywords of the stream at the first frame, and the logger itself (layout, times, counts).
Whatever a keyword loses on the way (a name made legal, a value FITS forbids, a second value)
is told in HISTORY.
"""

from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from vampires import times
from vampires.aux_header import AuxCard, AuxHeader
from vampires.fits_cards import (
    CARD_CHARS,
    END_CARD,
    filler_cards,
    generic_field,
    history_cards,
    is_structural,
    keyword_dictionary,
    legal_name,
    literal_card,
    reserved_value,
    string_field,
    value_card,
)
from vampires.fits_sum import CHECKSUM_CHARS, stamp_checksum
from vampires.instrument.file import InstrumentError, instrument_on
from vampires.instrument.observing_mode import NOT_SORTED, UNKNOWN
from vampires.keywords import Keyword, KeywordValue, decode_keywords, unreadable_keywords
from vampires.version import DISTRIBUTION, package_version

BLOCK_BYTES = 2880
BLOCK_CARDS = BLOCK_BYTES // CARD_CHARS
WCS_SUFFIXES = ("", "B", "C", "D")  # of the sets of coordinates that the readers know
SPARE_HISTORY_CARDS = 12  # for what may still happen to an open cube
MJD_DECIMALS = 11  # of a day: 0.9 us
SCIENCE_KEYWORD = "U_CAMERA"  # the stream of a science camera has it

# numpy name -> BITPIX, BZERO (None: the type needs no offset); FITS 4.0 section 5.2.5
_PIXEL_TYPES: dict[str, tuple[int, int | None]] = {
    "uint8": (8, None),
    "int8": (8, -128),
    "int16": (16, None),
    "uint16": (16, 32768),
    "int32": (32, None),
    "uint32": (32, 2147483648),
    "int64": (64, None),
    "uint64": (64, 9223372036854775808),
    "float32": (-32, None),
    "float64": (-64, None),
}


@dataclass(frozen=True)
class KeywordChange:
    """A keyword of the stream that did not keep its value through the cube.

    ``frame`` is the index in the cube of the first frame with another value, ``value`` that
    value, and ``count`` the number of changes up to the end of the cube.
    """

    frame: int
    name: str
    value: KeywordValue
    count: int = 1


@dataclass(frozen=True)
class CubeFacts:
    """What the logger knows of one cube. Times are int64 ns since 1970-01-01 UTC.

    ``dtype`` is the numpy name of the pixel type and ``shape`` the (ny, nx) of one frame.
    ``t_first_ns`` and ``t_last_ns`` are the times of the first and last frame: of acquisition
    or, where the stream has none, of the logger's copy, as ``time_source`` says.
    ``n_lost`` is the sum of the column LOST of the frame table, ``lost_at_end`` the frames
    lost after the last row; ``n_torn`` of them were caught half overwritten.
    ``keywords_raw`` is ``IMAGE_KEYWORD[NBkw]`` as it stood at the first frame.
    ``data_sum`` is the DATASUM of the image with its padding; None in a provisional header.
    """

    stream: str
    dtype: str
    shape: tuple[int, int]
    n_frames: int
    t_first_ns: int
    t_last_ns: int
    time_source: str  # "acquisition" or "logger"
    cnt0_begin: int
    cnt0_end: int
    date_ns: int  # of the creation of the file
    n_lost: int = 0
    n_torn: int = 0
    lost_at_end: int = 0
    keywords_raw: bytes = b""
    changes: Sequence[KeywordChange] = ()
    data_sum: int | None = None
    end_reason: str = ""
    notes: Sequence[str] = ()


@dataclass
class _Parts:
    """The cards of a header by their origin, so that the dispensable ones can give way."""

    layout: list[str]
    aux: list[AuxCard]
    keywords: list[str]
    sums: list[str]
    notes: list[str]
    changes: list[str]
    left_out: list[str]

    def cards(self) -> list[str]:
        aux = [text for card in self.aux for text in _split(card.text)]
        middle = sorted(aux + self.keywords, key=_wcs_axes_first)
        history = self.notes + self.changes + self.left_out
        return self.layout + middle + self.sums + history

    def card_count(self) -> int:
        lists = (self.layout, self.keywords, self.sums, self.notes, self.changes, self.left_out)
        return sum(map(len, lists)) + sum(len(card.text) // CARD_CHARS for card in self.aux)


def header_cards_needed(facts: CubeFacts, aux: AuxHeader) -> int:
    """Cards of the header with END, its checksums and room for 12 more HISTORY cards."""
    closed = replace(facts, data_sum=0)  # with the cards of its sums
    return _parts(closed, aux).card_count() + 1 + SPARE_HISTORY_CARDS


def reserve_bytes(facts: CubeFacts, aux: AuxHeader) -> int:
    """Bytes to keep free for the header when a cube is opened; a multiple of 2880."""
    return -(-header_cards_needed(facts, aux) * CARD_CHARS // BLOCK_BYTES) * BLOCK_BYTES


def provisional_header(
    facts: CubeFacts, aux: AuxHeader, reserve_bytes: int, end_card: int
) -> bytes:
    """The header of a cube that is still open, as ``cube_header``; its last card is an END too.

    So whenever writing a longer header over this one is cut short, there is an END, and it lies
    in the last block.
    """
    header = cube_header(facts, aux, reserve_bytes, end_card)
    return header[:-CARD_CHARS] + END_CARD.encode("ascii")


def cube_header(
    facts: CubeFacts, aux: AuxHeader, reserve_bytes: int, end_card: int = 0
) -> bytes:
    """The header, exactly ``reserve_bytes`` long, without a blank card before END.

    END is card number ``end_card``, from 0, or a later one: it lies in the last block, since
    the pixels follow, and behind all cards. Comments fill the cards that are left before it.

    Where the room is short, first HISTORY of changed keywords gives way, then commentary of
    ``aux``, then its cards from the last one, then other HISTORY; a HISTORY card counts each.

    Raises:
        ValueError: ``reserve_bytes`` is no multiple of 2880 or too small for the cards that
            must be there; or a pixel type that FITS has not.
    """
    if reserve_bytes <= 0 or reserve_bytes % BLOCK_BYTES:
        raise ValueError(
            f"{reserve_bytes} bytes reserved for a header; "
            f"a positive multiple of {BLOCK_BYTES} is needed"
        )
    last_card = reserve_bytes // CARD_CHARS - 1
    parts = _parts(facts, aux)
    _make_room(parts, last_card)
    cards = ended_cards(parts.cards(), last_card + 1, end_card)
    header = "".join(cards).ljust(reserve_bytes).encode("ascii")
    return header if facts.data_sum is None else stamp_checksum(header, facts.data_sum)


def ended_cards(cards: list[str], room: int, end_card: int = 0) -> list[str]:
    """``cards``, fillers and END, the last of which lies in the last block of ``room`` cards,
    at card ``end_card`` or behind it."""
    end = max(min(end_card, room - 1), room - BLOCK_CARDS, len(cards))
    return [*cards, *filler_cards(end - len(cards)), END_CARD]


def _parts(facts: CubeFacts, aux: AuxHeader) -> _Parts:
    layout = _layout_cards(facts)
    own = _time_cards(facts) | _count_cards(facts)
    stream, notes = _stream_cards(facts.keywords_raw, own)
    taken = own.keys() | stream.keys()
    aux_cards = [card for card in aux.cards if card.is_commentary or card.name not in taken]
    known = taken | {card.name for card in aux_cards}
    unit = _unit_card(facts, known)
    places = _reference_cards(known)
    needed = needed_cards(known) if SCIENCE_KEYWORD in stream else []
    keywords = [
        *_long_string_card(aux_cards),
        *stream.values(),
        *needed,
        *unit,
        *places,
        *own.values(),
    ]
    return _Parts(
        layout=layout,
        aux=aux_cards,
        keywords=keywords,
        sums=[] if facts.data_sum is None else _sum_cards(),
        notes=_history([*_end_notes(facts), aux.note, *facts.notes, *notes]),
        changes=_history(_change_notes(facts.changes)),
        left_out=[],
    )


def _layout_cards(facts: CubeFacts) -> list[str]:
    if facts.dtype not in _PIXEL_TYPES:
        raise ValueError(
            f"stream {facts.stream}: FITS has no pixels of type {facts.dtype}; "
            f"it has {', '.join(_PIXEL_TYPES)}"
        )
    bitpix, bzero = _PIXEL_TYPES[facts.dtype]
    height, width = facts.shape
    cards = [
        literal_card("SIMPLE", generic_field(True), "FITS standard 4.0"),
        literal_card("BITPIX", generic_field(bitpix), "bits a pixel"),
        literal_card("NAXIS", generic_field(3), "x, y, frame"),
        literal_card("NAXIS1", generic_field(width), "pixels in x"),
        literal_card("NAXIS2", generic_field(height), "pixels in y"),
        literal_card("NAXIS3", generic_field(facts.n_frames), "frames"),
        literal_card("EXTEND", generic_field(True), "extension FRAMES: the table of frames"),
    ]
    if bzero is not None:
        cards += [
            literal_card("BZERO", generic_field(bzero), f"offset of {facts.dtype} data"),
            literal_card("BSCALE", generic_field(1), "no scaling"),
        ]
    return cards


def _time_cards(facts: CubeFacts) -> dict[str, str]:
    """Every time of the cube; each comment says which instant it marks, and by which clock."""
    clock = "acquisition time" if facts.time_source == "acquisition" else "logger clock"
    first_ns, last_ns = facts.t_first_ns, facts.t_last_ns
    middle_ns = first_ns + (last_ns - first_ns) // 2
    instants = (
        ("", "AVG", middle_ns, "cube midpoint"),
        ("-STR", "BEG", first_ns, "of first frame"),
        ("-END", "END", last_ns, "of last frame"),
    )
    cards = {
        "DATE": value_card(
            "DATE", times.iso_utc(facts.date_ns, 0), "creation of the file, UTC, logger clock"
        ),
        "DATE-OBS": value_card(
            "DATE-OBS", times.utc_date(first_ns), f"UTC of first frame, {clock}"
        ),
        "TIMESYS": value_card("TIMESYS", "UTC", "time scale of this header"),
    }
    for suffix, fits_suffix, time_ns, instant in instants:
        comment = f"{instant}, {clock}"
        mjd = times.mjd_text(time_ns, MJD_DECIMALS).rjust(20)
        fields = {
            f"UT{suffix}": string_field(times.utc_time_of_day(time_ns, 6)),
            f"HST{suffix}": string_field(times.hst_time_of_day(time_ns, 6)),
            f"MJD{suffix}": mjd,
            f"DATE-{fits_suffix}": string_field(times.iso_utc(time_ns, 9)),
            f"MJD-{fits_suffix}": mjd,
        }
        for name, field in fields.items():
            scale = "HST" if name.startswith("HST") else "UTC"
            cards[name] = literal_card(name, field, f"{scale} {comment}")
    return cards


def _count_cards(facts: CubeFacts) -> dict[str, str]:
    values: tuple[tuple[str, KeywordValue, str], ...] = (
        ("NLOST", facts.n_lost + facts.lost_at_end, "frames lost, all of this cube"),
        ("NLOSTEND", facts.lost_at_end, "frames lost after the last frame, in NLOST"),
        ("NTORN", facts.n_torn, "frames lost as half overwritten, in NLOST"),
        ("CNT0-BEG", facts.cnt0_begin, "counter of the stream at the first frame"),
        ("CNT0-END", facts.cnt0_end, "counter of the stream at the last frame"),
        ("LOGGER", f"{DISTRIBUTION} {package_version()}", "program that wrote this file"),
    )
    return {name: value_card(name, value, comment) for name, value, comment in values}


def _unit_card(facts: CubeFacts, taken: Iterable[str]) -> list[str]:
    """BUNIT, where the dictionary leaves it to the logger and the pixels are counts."""
    entry = keyword_dictionary().get("BUNIT")
    by_logger = entry is not None and entry.source_class == "LOGSHIM"
    if not by_logger or "BUNIT" in taken or "int" not in facts.dtype:
        return []
    return [value_card("BUNIT", "adu", "counts of the detector")]


def needed_cards(known: Container[str]) -> list[str]:
    """Of the keywords that the readers of a science camera's cube need, those not known; each
    says that nobody gave it."""
    needed: dict[str, KeywordValue] = dict.fromkeys(("FILTER01", "FILTER02"), UNKNOWN)
    needed["U_FLC"] = NOT_SORTED
    with suppress(InstrumentError):  # a cube is written whatever that file holds
        needed["F-RATIO"] = instrument_on().focal_ratio
    return [
        value_card(name, value, "nobody gave it")
        for name, value in needed.items()
        if name not in known
    ]


def _reference_cards(known: Container[str]) -> list[str]:
    """The value at the reference pixel of coordinates for which nobody gave one, as when there
    is no auxiliary file: 0, the default of the standard (section 8.2)."""
    axes = (f"{axis}{suffix}" for suffix in WCS_SUFFIXES for axis in (1, 2))
    return [
        value_card(f"CRVAL{axis}", 0.0, "[deg] not known: the standard's default")
        for axis in axes
        if f"CRPIX{axis}" in known and f"CRVAL{axis}" not in known
    ]


def _long_string_card(aux_cards: Iterable[AuxCard]) -> list[str]:
    """LONGSTRN, which verifiers want to see where a string goes on in CONTINUE cards."""
    if all(len(card.text) == CARD_CHARS for card in aux_cards):
        return []
    return [value_card("LONGSTRN", "OGIP 1.0", "strings may go on in CONTINUE cards")]


def _sum_cards() -> list[str]:
    """The room of the two sums; ``stamp_checksum`` fills them."""
    return [
        value_card("CHECKSUM", "0" * CHECKSUM_CHARS, "sum of header and image"),
        value_card("DATASUM", "0", "sum of the image"),
    ]


def _stream_cards(raw: bytes, own: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Cards of the stream's keywords by name, and what was not written as it came."""
    cards: dict[str, str] = {}
    values: dict[str, KeywordValue] = {}
    notes = [
        f"stream keyword {name} not written: unknown type {kind!r}"
        for name, kind in unreadable_keywords(raw)
    ]
    for keyword in decode_keywords(raw):
        if keyword.name.startswith("_"):  # technical: not for FITS
            continue
        name = legal_name(keyword.name)
        if is_structural(name) or name in own:
            reason = "the logger writes it" if name in own else "FITS reserves the name"
            notes.append(f"stream keyword {keyword.name!r} not written: {reason}")
            continue
        if name in values:
            earlier = generic_field(values[name]).strip()
            notes.append(f"stream keyword {name} given twice; not written: {earlier}")
        try:
            value = reserved_value(name, keyword.value)
        except ValueError as error:
            notes.append(f"stream keyword {_assignment(keyword)} not written: {error}")
            continue
        if name != keyword.name.upper():
            notes.append(f"stream keyword {keyword.name!r} written as {name}")
        values[name] = value
        cards[name] = value_card(name, value, keyword.comment)
    return cards, notes


def _end_notes(facts: CubeFacts) -> Iterable[str]:
    if facts.end_reason:
        yield f"end of the cube: {facts.end_reason}"
    if facts.lost_at_end:
        yield f"{facts.lost_at_end} frames lost after the last frame of this cube"


def _change_notes(changes: Sequence[KeywordChange]) -> Iterable[str]:
    for change in changes:
        if change.name.startswith("_"):
            continue
        value = generic_field(change.value).strip(" '")
        times_text = "1 change" if change.count == 1 else f"{change.count} changes"
        yield f"{change.name} changed to {value} at frame {change.frame} ({times_text})"


def _history(texts: Iterable[str]) -> list[str]:
    return [card for text in texts if text for card in history_cards(text)]


def _make_room(parts: _Parts, capacity: int) -> None:
    """Drop the dispensable cards, the least needed first, until ``capacity`` holds the rest."""
    parts.changes = _shortened(parts, capacity, parts.changes, "changes of keywords")
    if parts.card_count() > capacity:
        _drop_aux(parts, capacity)
    parts.notes = _shortened(parts, capacity, parts.notes, "lines of HISTORY")
    missing = parts.card_count() - capacity
    if missing > 0:
        raise ValueError(
            f"the header needs {parts.card_count() + 1} cards, {missing} more than the "
            f"{capacity + 1} reserved; reserve more bytes when the cube is opened"
        )


def _shortened(parts: _Parts, capacity: int, lines: list[str], what: str) -> list[str]:
    """``lines`` without as many of the last as must go, and a card that counts them."""
    excess = parts.card_count() - capacity
    if excess <= 0 or len(lines) < 2:
        return lines
    dropped = min(len(lines), excess + 1)
    return lines[:-dropped] + history_cards(f"{dropped} {what} left out: no room in the header")


def _drop_aux(parts: _Parts, capacity: int) -> None:
    """Drop commentary of the auxiliary file, then its keywords, each from the last one."""
    excess = parts.card_count() + 1 - capacity  # + 1: the card that counts them
    order = sorted(range(len(parts.aux)), key=lambda i: (not parts.aux[i].is_commentary, -i))
    dropped: set[int] = set()
    for index in order:
        if excess <= 0:
            break
        dropped.add(index)
        excess -= len(parts.aux[index].text) // CARD_CHARS
    if dropped:
        parts.aux = [card for index, card in enumerate(parts.aux) if index not in dropped]
        parts.left_out = history_cards(
            f"{len(dropped)} auxiliary cards left out: no room in the header"
        )


def _split(text: str) -> list[str]:
    return [text[offset : offset + CARD_CHARS] for offset in range(0, len(text), CARD_CHARS)]


def _wcs_axes_first(card: str) -> bool:
    """Sort key: WCSAXES comes before the other keywords of its coordinate system."""
    return not card.startswith("WCSAXES")


def _assignment(keyword: Keyword) -> str:
    return f"{keyword.name} = {generic_field(keyword.value).strip()}"
