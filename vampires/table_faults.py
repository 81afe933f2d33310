"""What is wrong with a table of a TOML file, a line a fault: key, found, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from pydantic_core import ErrorDetails

from vampires.table_model import Table
from vampires.toml_text import dotted, quoted

MAX_FOUND_CHARACTERS = 60
_MAX_SHOWN_NUMBER = 2**64

Location = tuple[str | int, ...]


def fault_line(fault: ErrorDetails, root: type[Table]) -> str:
    """The line for a fault that pydantic found; root: the model of the whole file."""
    where: Location = fault["loc"]
    if where and where[-1] == "[key]":
        where = where[:-1]
        expected = allowed_at(root, where[:-1])
        return f"{dotted(where)}: found a name that is not allowed, expected {expected}"
    if fault["type"] == "extra_forbidden":
        known = list(_walk(root, where)[0].model_fields)
        close = closest(str(where[-1]), known)
        return f"{dotted(where)}: found an unknown key, expected {', '.join(known)}{close}"
    if fault["type"] == "missing":
        return f"{dotted(where)}: found nothing, expected {allowed_at(root, where)}"
    return value_line(where, fault["input"], allowed_at(root, where))


def value_line(where: Sequence[str | int], found: object, allowed: str) -> str:
    """The line for a value that is not allowed."""
    return f"{dotted(where)}: found {shown(found)}, expected {allowed}"


def closest(name: str, known: Iterable[str]) -> str:
    """A question after the name that was meant, or ""."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def allowed_at(root: type[Table], where: Location) -> str:
    """What is allowed at a key, or at the list or table of values in which it lies."""
    return _walk(root, where)[1] or "something else"


def _walk(root: type[Table], where: Location) -> tuple[type[Table], str | None]:
    """The model of the innermost table on the way, and what is allowed where the way ends."""
    table, allowed = root, None
    keys = list(where)
    while keys:
        field = table.model_fields.get(str(keys.pop(0)))
        if field is None:
            break
        allowed = field.description
        inner = _table_in(field.annotation)
        if inner is None:
            break
        if keys and not _is_table(field.annotation):  # a table of tables: the name of one
            keys.pop(0)
            allowed = f"a table [{dotted(where[: len(where) - len(keys)])}]"
        if keys:
            table = inner
    return table, allowed


def _is_table(kind: object) -> bool:
    options = [kind, *get_args(kind)] if not isinstance(kind, type) else [kind]
    return not _is_mapping(kind) and any(_is_table_type(option) for option in options)


def _is_mapping(kind: object) -> bool:
    return getattr(kind, "__origin__", None) is Mapping


def _table_in(kind: object) -> type[Table] | None:
    """The model of a table, of an optional one, or of those in a table of tables."""
    for option in (kind, *get_args(kind)):
        if _is_table_type(option):
            return option  # type: ignore[return-value]
    return None


def _is_table_type(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def shown(found: object) -> str:
    """What was found, short, as it stands in the file."""
    if isinstance(found, Mapping):
        return "a table" if found else "an empty table"
    if isinstance(found, (list, tuple)):
        return "a list" if found else "an empty list"
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, int) and abs(found) > _MAX_SHOWN_NUMBER:
        return "a number of more than 64 bits"
    text = found if isinstance(found, str) else str(found)
    if len(text) > MAX_FOUND_CHARACTERS:
        text = text[:MAX_FOUND_CHARACTERS] + "..."
    return quoted(text) if isinstance(found, str) else text
