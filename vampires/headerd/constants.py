"""Keywords that do not change: a TOML file of lines ``KEYWORD = value``.

A comment of one's own, instead of the unit of the dictionary, is given as
``KEYWORD = { value = 1.5, comment = "[mm] as measured" }``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vampires.commands.common import UserError
from vampires.fits_cards import is_structural
from vampires.headerd.keyword_values import OWN_PREFIX, checked_value
from vampires.keywords import KeywordValue
from vampires.toml_text import dotted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CONSTANTS = 1000
MAX_FILE_BYTES = 1 << 20

_NAME = re.compile(r"[A-Z0-9_-]{1,8}")
_LINES = 'lines such as  TELESCOP = "Subaru"'


@dataclass(frozen=True)
class Constant:
    """A value and its comment; an empty comment: the unit of the dictionary."""

    value: KeywordValue
    comment: str = ""


Constants = Mapping[str, Constant]


class ConstantsError(UserError):
    """The file cannot be used: a line for each fault, with file, key, what was found and what
    is expected. `faults` are those lines."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class ConstantsFile:
    """The constants in a file, read anew when it changes. file None: there are none.

    Raises ConstantsError where the file is wrong at first.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen = _state_of(file)
        self.constants: Constants = {} if file is None else read_constants(file)

    def look(self) -> bool:
        """Reads the file if it has changed; returns whether it has.

        Raises ConstantsError for one that is wrong now, once; the constants stay as they were.
        """
        seen = _state_of(self._file)
        if self._file is None or seen == self._seen:
            return False
        self._seen = seen
        self.constants = read_constants(self._file)
        return True


def read_constants(file: Path) -> dict[str, Constant]:
    """The constants in a file, in its order, as the header will have them.

    Raises ConstantsError.
    """
    tables = _read_tables(file)
    if len(tables) > MAX_CONSTANTS:
        fault = f"{file}: found {len(tables)} keywords, expected at most {MAX_CONSTANTS}"
        raise ConstantsError([fault])
    constants: dict[str, Constant] = {}
    faults: list[str] = []
    for name, given in tables.items():
        try:
            constants[name] = _constant(name, given)
        except ValueError as error:
            faults.append(f"{file}: {dotted([name])}: {error}")
    if faults:
        raise ConstantsError(faults)
    return constants


def _constant(name: str, given: Any) -> Constant:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            "found a name that no FITS keyword has, expected 1 to 8 capital letters, digits, "
            "'_' and '-'"
        )
    if is_structural(name):
        raise ValueError("the keyword describes the layout of a file; leave it out")
    if name.startswith(OWN_PREFIX):
        raise ValueError(f"keywords {OWN_PREFIX}... are the service's own; leave it out")
    comment = ""
    if isinstance(given, dict):
        given, comment = _value_and_comment(given)
    if not isinstance(given, (bool, int, float, str)):
        kind = "list" if isinstance(given, list) else type(given).__name__
        raise ValueError(f"found a {kind}, expected a text in quotes, a number, true or false")
    return Constant(checked_value(name, given), comment)


def _value_and_comment(table: dict[str, Any]) -> tuple[Any, str]:
    unknown = [key for key in table if key not in ("value", "comment")]
    if unknown or "value" not in table:
        found = dotted(unknown[:1]) if unknown else "no value"
        raise ValueError(f'found {found}, expected {{ value = ..., comment = "..." }}')
    comment = table.get("comment", "")
    if not (isinstance(comment, str) and comment.isascii() and comment.isprintable()):
        raise ValueError("found a comment that is no printable ASCII text in quotes")
    return table["value"], comment


def _read_tables(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            fault = f"found more than {MAX_FILE_BYTES} bytes, expected {_LINES}"
        else:
            return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        fault = f"{error.strerror}, expected a readable TOML file"
    except UnicodeDecodeError:
        fault = "found something else than UTF-8 text; save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        fault = f"found {error}, expected {_LINES}"
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        fault = f"found a number or a list beyond all reason, expected {_LINES}"
    raise ConstantsError([f"{file}: {fault}"])


def _state_of(file: Path | None) -> object:
    """What changes when a file does."""
    if file is None:
        return None
    try:
        found = os.stat(file)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns
