"""Cards that other programs add to the cubes of a stream: ``<shm dir>/<stream>.aux.fits``.

The observatory's daemons keep that file: a FITS file without data, whose header holds the
pointing, the optics, the weather. A missing or damaged file never stops a recording: every
legal card is taken, what is nearly legal is mended, and ``AuxHeader.note`` says in one line
what was not as it should be.
"""

import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vampires.aux_cards import (
    COMMENTARY,
    CONTINUE,
    CardRefused,
    OneCard,
    read_card,
)
from vampires.fits_cards import CARD_CHARS
from vampires.header_cards import Cards, FitsInvalid, Value

MAX_BYTES = 100 * 2880
MOST_NAMED = 8  # keywords in a note

Action = Literal["mended", "left out"]


@dataclass(frozen=True)
class AuxCard:
    """One keyword: its name (``COMMENT``, ``HISTORY`` for commentary) and its card text.

    ``text`` is 80 characters, or a multiple where CONTINUE cards follow a long string.
    """

    name: str
    text: str

    @property
    def is_commentary(self) -> bool:
        return self.name in COMMENTARY


@dataclass(frozen=True)
class AuxNote:
    """A keyword that did not go into the cube as it came."""

    keyword: str
    action: Action
    why: str

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.keyword} {self.action}: {self.why}"


@dataclass(frozen=True)
class AuxHeader:
    """The cards of an auxiliary file.

    ``note`` is one line on what is missing or had to be mended, with the first eight keywords
    of each; '' where nothing was. ``notes`` are all of those keywords.
    """

    cards: tuple[AuxCard, ...] = ()
    note: str = ""
    notes: tuple[AuxNote, ...] = ()

    @property
    def values(self) -> dict[str, Value]:
        """The keywords and their values; None for an undefined one, text for a complex one. One
        that no number here can hold is not among them."""
        cards = Cards("".join(card.text for card in self.cards).encode("ascii"))
        found: dict[str, Value] = {}
        for name in cards:
            with suppress(FitsInvalid):
                found[name] = cards[name]
        return found


def aux_header_path(shm_dir: str | Path, stream: str) -> Path:
    """Where the auxiliary header of a stream is, if there is one."""
    return Path(shm_dir) / f"{stream}.aux.fits"


def read_aux_header(shm_dir: str | Path, stream: str) -> AuxHeader:
    """The cards of ``<shm_dir>/<stream>.aux.fits`` that a cube can take, in their order.

    ``read_card`` says what becomes of one. Cards on the layout of the file are passed over; of
    two values of a keyword the first counts. At most 288000 bytes are read. Never raises for
    what the file is or holds.
    """
    path = aux_header_path(shm_dir, stream)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return AuxHeader(note=f"{path.name} is not a regular file: no auxiliary cards")
        with path.open("rb") as file:
            header = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return AuxHeader(note=f"no auxiliary cards: {path.name} does not exist")
    except OSError as error:
        return AuxHeader(note=f"no auxiliary cards: {path.name}: {error.strerror}")
    return parse_aux_header(header, path.name)


def parse_aux_header(header: bytes, file_name: str) -> AuxHeader:
    """As ``read_aux_header``, from the first bytes of the file ``file_name``."""
    if not header.startswith(b"SIMPLE  ="):
        return AuxHeader(note=f"{file_name} is not a FITS file: no auxiliary cards")
    images, ended = _card_images(header)
    taken = _Taken()
    for image in images:
        taken.add(image)
    faults = []
    if not ended:
        faults.append("no END card")
    if len(header) > MAX_BYTES:
        faults.append(f"over {MAX_BYTES} bytes")
    faults += [*_named("left out", taken.notes), *_named("mended", taken.notes)]
    keywords = sum(not card.is_commentary for card in taken.cards)
    note = f"{file_name}: {'; '.join(faults)}; {keywords} keywords taken" if faults else ""
    return AuxHeader(tuple(taken.cards), note, tuple(taken.notes))


def _card_images(header: bytes) -> tuple[list[bytes], bool]:
    """The whole cards before END, and whether END was there."""
    images: list[bytes] = []
    for offset in range(0, len(header) - CARD_CHARS + 1, CARD_CHARS):
        image = header[offset : offset + CARD_CHARS]
        if image[:8] == b"END     ":
            return images, True
        images.append(image)
    return images, False


def _named(action: Action, notes: Iterable[AuxNote]) -> list[str]:
    names = list(dict.fromkeys(note.keyword for note in notes if note.action == action))
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return [f"{action}: {', '.join(names[:MOST_NAMED])}{more}"]


class _Taken:
    """The cards taken so far, and what was not as it should be."""

    def __init__(self) -> None:
        self.cards: list[AuxCard] = []
        self.notes: list[AuxNote] = []
        self._first: dict[str, OneCard] = {}  # of each keyword
        # The keyword whose string the next card may continue, and whether it was taken.
        self._open = ("", False)

    def add(self, image: bytes) -> None:
        (keyword, taken), self._open = self._open, ("", False)
        try:
            card = read_card(image, behind_string=bool(keyword))
        except CardRefused as error:
            self._note(error.keyword, "left out", str(error))
            self._open = (error.keyword, False)
            return
        if card.name == CONTINUE:
            self._continue(card, keyword, taken)
        else:
            self._add(card)

    def _continue(self, card: OneCard, keyword: str, taken: bool) -> None:
        if taken:
            self.cards[-1] = AuxCard(keyword, self.cards[-1].text + card.text)
            self._note(keyword, "mended", card.mended)
        if card.goes_on:
            self._open = (keyword, taken)

    def _add(self, card: OneCard) -> None:
        taken = bool(card.text)
        if taken and card.name not in COMMENTARY:
            first = self._first.setdefault(card.name, card)
            taken = first is card
            if first.text != card.text:
                self._note(card.name, "left out", "given twice, the first value is kept")
        if taken:
            self._note(card.name, "mended", card.mended)
            for at in range(0, len(card.text), CARD_CHARS):
                self.cards.append(AuxCard(card.name, card.text[at : at + CARD_CHARS]))
        if card.goes_on:
            self._open = (card.name, taken)

    def _note(self, keyword: str, action: Action, why: str) -> None:
        if why:
            self.notes.append(AuxNote(keyword, action, why))
