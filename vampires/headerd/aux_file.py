"""The auxiliary header as a file: its cards, and when it is written.

Cards that say how old it is stand first, so that a cube that is short of room keeps them;
then the keywords in the order of the dictionary, then those that are not in it, then HISTORY.

    U_AUXUT    UTC time at which the file was written
    U_AUXST    current, stale, no redis or constants
    U_AUXRUT   UTC time of the last good answer of Redis, where there was one
    U_AUXAGE   seconds from that to U_AUXUT, where the state is stale
    U_AUXREF   values of Redis that were left out, where there are any
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vampires.fits_cards import (
    END_CARD,
    generic_field,
    history_cards,
    keyword_dictionary,
    literal_card,
    value_card,
)
from vampires.headerd.constants import Constant, Constants
from vampires.keywords import KeywordValue
from vampires.times import iso_utc
from vampires.whole_file import write_whole

BLOCK_BYTES = 2880
REWRITE_S = 10.0

CURRENT, STALE, NO_REDIS, CONSTANTS_ONLY = "current", "stale", "no redis", "constants"

_MOST_REFUSED_TOLD = 8
_PURPOSE = "aux-header"  # in the names of hidden files
_STATE_COMMENTS = {
    CURRENT: "Redis answers",
    STALE: "Redis is silent: its values are old",
    NO_REDIS: "Redis never answered: constants only",
    CONSTANTS_ONLY: "no Redis is asked: constants only",
}


@dataclass(frozen=True)
class AuxFacts:
    """What the file tells. values and refused (keyword: why) are of Redis, which redis_name
    names; answered_ns: the time of its last good answer, ns since 1970 UTC; age_s: seconds
    since then, None where there was none. state: one of the four above."""

    state: str
    constants: Constants = field(default_factory=dict)
    values: Mapping[str, KeywordValue] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    redis_name: str = ""
    answered_ns: int | None = None
    age_s: float | None = None

    @property
    def keywords(self) -> dict[str, Constant]:
        """All keywords, as the file has them: Redis is stronger than the constants."""
        given = {**self.constants, **{name: Constant(v) for name, v in self.values.items()}}
        known = [name for name in keyword_dictionary() if name in given]
        return {name: given[name] for name in [*known, *given]}


def lasting_cards(facts: AuxFacts) -> list[str]:
    """The cards of a file that are the same as long as nothing happens."""
    cards = [value_card("U_AUXST", facts.state, _STATE_COMMENTS[facts.state])]
    if facts.refused:
        cards.append(value_card("U_AUXREF", len(facts.refused), "values of Redis left out"))
    keywords = facts.keywords.items()
    cards += [value_card(name, given.value, given.comment) for name, given in keywords]
    return cards + [card for text in _history(facts) for card in history_cards(text)]


def passing_cards(facts: AuxFacts, now_ns: int) -> list[str]:
    """The cards of a file that say when."""
    cards = [_time_card("U_AUXUT", now_ns, "UTC when this aux header was written")]
    if facts.answered_ns is not None:
        cards.append(_time_card("U_AUXRUT", facts.answered_ns, "UTC of Redis' last answer"))
    if facts.state == STALE and facts.age_s is not None:
        age_s = round(facts.age_s, 1)
        cards.append(value_card("U_AUXAGE", age_s, "[s] age of the values of Redis"))
    return cards


def aux_file(passing: Sequence[str], lasting: Sequence[str]) -> bytes:
    """The bytes of the file: a FITS file without data."""
    layout = [
        literal_card("SIMPLE", generic_field(True), "FITS standard 4.0"),
        literal_card("BITPIX", generic_field(8), "no data"),
        literal_card("NAXIS", generic_field(0), "no data"),
    ]
    text = "".join([*layout, *passing, *lasting, END_CARD])
    return text.ljust(-(-len(text) // BLOCK_BYTES) * BLOCK_BYTES).encode("ascii")


def _time_card(name: str, time_ns: int, comment: str) -> str:
    return value_card(name, iso_utc(time_ns, 3), comment)


def _history(facts: AuxFacts) -> Iterator[str]:
    redis = f"Redis at {facts.redis_name}"
    if facts.state == NO_REDIS:
        yield f"aux header: {redis} never answered: constants only"
    if facts.state == STALE and facts.answered_ns is not None:
        since = iso_utc(facts.answered_ns, 0)
        yield f"aux header: {redis} is silent since {since} UTC: its values are old"
    for name, why in list(facts.refused.items())[:_MOST_REFUSED_TOLD]:
        yield f"aux header: {name} of Redis left out: {why}"
    more = len(facts.refused) - _MOST_REFUSED_TOLD
    if more > 0:
        yield f"aux header: {more} more values of Redis left out"


class AuxFiles:
    """The auxiliary files of some streams, all with the same cards."""

    def __init__(self, streams: Sequence[str], shm_dir: Path) -> None:
        self._paths = [shm_dir / f"{stream}.aux.fits" for stream in streams]
        self._written: dict[Path, tuple[list[str], float]] = {}
        _remove_leftovers(shm_dir)

    def write_due(self, facts: AuxFacts, now_ns: int, now_s: float) -> dict[Path, OSError]:
        """Writes the files whose lasting cards have changed, or that are ten seconds old.

        Returns those that could not be written, and why.
        """
        failures: dict[Path, OSError] = {}
        lasting = lasting_cards(facts)
        due = [path for path in self._paths if self._is_due(path, lasting, now_s)]
        content = aux_file(passing_cards(facts, now_ns), lasting) if due else b""
        for path in due:
            try:
                write_whole(path, content, replace=True, purpose=_PURPOSE)
            except OSError as error:
                failures[path] = error
            else:
                self._written[path] = lasting, now_s
        return failures

    def _is_due(self, path: Path, lasting: list[str], now_s: float) -> bool:
        if path not in self._written:
            return True
        cards, written_s = self._written[path]
        return cards != lasting or now_s >= written_s + REWRITE_S


def _remove_leftovers(folder: Path) -> None:
    """Removes what a service that was killed while it wrote has left of its hidden files."""
    host = re.escape(socket.gethostname().partition(".")[0] or "host")
    hidden = re.compile(rf"\.{_PURPOSE}-{host}-(\d+)-\d+\.part")
    with suppress(OSError):
        for name in os.listdir(folder):
            found = hidden.fullmatch(name)
            if found and not os.path.exists(f"/proc/{found[1]}"):
                (folder / name).unlink(missing_ok=True)
