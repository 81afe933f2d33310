"""Cards that other programs add to the cubes of a stream: ``<shm dir>/<stream>.aux.fits``.

The observatory's daemons keep that file: a FITS file without data, whose header holds the
pointing, the optics, the weather. A missing or damaged file never stops a recording: what is
good is taken, and ``AuxHeader.note`` says in one line what was not.
"""

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from vampires.fits_cards import CARD_CHARS, is_structural, reserved_value
from vampires.keywords import KeywordValue

MAX_BYTES = 100 * 2880
COMMENTARY = ("COMMENT", "HISTORY")

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?"
_VALUE = re.compile(
    r" *(?P<value>'(?:[^']|'')*'|[TF](?= *(?:/|$))"
    rf"|{_NUMBER}|\( *{_NUMBER} *, *{_NUMBER} *\)|) *(?:/.*)?"
)
_NAME = re.compile(r"[A-Z0-9_-]{1,8}")
_LONG_NAME = re.compile(r"[A-Z0-9_-]+(?: +[A-Z0-9_-]+)*")


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
class AuxHeader:
    """The cards of an auxiliary file; ``note`` is one line on what is missing, else ''."""

    cards: tuple[AuxCard, ...] = ()
    note: str = ""


def aux_header_path(shm_dir: str | Path, stream: str) -> Path:
    """Where the auxiliary header of a stream is, if there is one."""
    return Path(shm_dir) / f"{stream}.aux.fits"


def read_aux_header(shm_dir: str | Path, stream: str) -> AuxHeader:
    """The cards of ``<shm_dir>/<stream>.aux.fits`` that a cube can take, in their order.

    Card text stays as it is; names after HIERARCH become upper case. Cards on the layout of
    the file, cards that break the standard and second cards of a name are left out. At most
    288000 bytes are read. Never raises for what the file is or holds.
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
    cards, rejected = _legal_cards(images)
    faults = []
    if not ended:
        faults.append("no END card")
    if len(header) > MAX_BYTES:
        faults.append(f"over {MAX_BYTES} bytes")
    if rejected:
        faults.append(f"{rejected} cards left out")
    note = f"{file_name}: {', '.join(faults)}; {len(cards)} keywords taken" if faults else ""
    return AuxHeader(tuple(cards), note)


def _card_images(header: bytes) -> tuple[list[bytes], bool]:
    """The whole cards before END, and whether END was there."""
    images: list[bytes] = []
    for offset in range(0, len(header) - CARD_CHARS + 1, CARD_CHARS):
        image = header[offset : offset + CARD_CHARS]
        if image[:8] == b"END     ":
            return images, True
        images.append(image)
    return images, False


def _legal_cards(images: list[bytes]) -> tuple[list[AuxCard], int]:
    """The cards a cube can take, and how many broke the standard or repeated a name."""
    cards: list[AuxCard] = []
    seen: set[str] = set()
    rejected = 0
    continues = False  # the card before was taken and its string may go on
    for image in images:
        text = image.decode("ascii", "replace")
        if text.isspace():
            continue
        if text.startswith("CONTINUE"):
            continues = continues and _is_continuation(text)
            if continues:
                cards[-1] = AuxCard(cards[-1].name, cards[-1].text + text)
            else:
                rejected += 1
            continue
        continues = False
        card = _legal_card(text)
        if card is None or card.name in seen:
            rejected += 1
        elif card.is_commentary:
            cards.append(card)
        elif not is_structural(card.name):
            cards.append(card)
            seen.add(card.name)
            continues = "&'" in text
    return cards, rejected


def _legal_card(text: str) -> AuxCard | None:
    if not (text.isascii() and text.isprintable()):
        return None
    name = text[:8].rstrip()
    if name in COMMENTARY:
        return AuxCard(name, text)
    if name == "HIERARCH":
        return _long_named_card(text)
    if _NAME.fullmatch(name) is None or text[8:10] != "= ":
        return None
    return AuxCard(name, text) if _is_legal_value(name, text[10:]) else None


def _long_named_card(text: str) -> AuxCard | None:
    head, equals, tail = text[8:].partition("=")
    name = " ".join(head.upper().split())
    legal = head[:1] == " " and equals and _LONG_NAME.fullmatch(name)
    if not legal or not _is_legal_value("", tail):
        return None
    return AuxCard(name, f"HIERARCH{head.upper()}={tail}")


def _is_legal_value(name: str, text: str) -> bool:
    """Whether ``text``, the card behind ``=``, is a value that ``name`` may have."""
    found = _VALUE.fullmatch(text)
    if found is None:
        return False
    value = _python_value(found["value"])
    try:
        return value is None or reserved_value(name, value) == value
    except ValueError:
        return False


def _python_value(text: str) -> KeywordValue | None:
    """The value of a legal value field; None for none and for a complex number."""
    if text.startswith("'"):
        return text[1:-1].replace("''", "'").rstrip()
    if text in ("T", "F"):
        return text == "T"
    if not text or text.startswith("("):
        return None
    return float(text.replace("D", "E")) if set(text) & set(".ED") else int(text)


def card_value(card: AuxCard) -> KeywordValue | None:
    """The value of a card that is not commentary; None for none and for a complex number. Of a
    string that goes on in other cards, all of their text."""
    found = _VALUE.fullmatch(card.text.partition("=")[2])
    return card.text if found is None else _python_value(found["value"])


def _is_continuation(text: str) -> bool:
    return text[8:10] == "  " and text.isascii() and text.isprintable() and "'" in text
