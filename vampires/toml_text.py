"""Values as TOML text, for showing a configuration and for naming what was found in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quoted(text: str) -> str:
    """The text as a TOML basic string: on one line, nothing in it that a terminal acts on."""
    return '"' + "".join(_ESCAPES.get(c) or _visible(c) for c in text) + '"'


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def dotted(keys: Sequence[str | int]) -> str:
    """Keys as in a TOML file, hosts.scexao5.port; a number is a place in a list: types[2]."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + _key_text(key)
    return text


def _key_text(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else quoted(key)


def toml_text(table: Mapping[str, Any]) -> str:
    """A TOML document. Values: str, bool, int, float, paths, dates, lists, tables; None is
    left out."""
    lines: list[str] = []
    _add_table(lines, (), table)
    return "\n".join(lines).strip("\n") + "\n"


def _add_table(lines: list[str], name: tuple[str, ...], table: Mapping[str, Any]) -> None:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if name and (values or not tables):
        lines += ["", f"[{dotted(name)}]"]
    for key, value in values.items():
        if value is not None:
            lines.append(f"{_key_text(key)} = {_value_text(value)}")
    for key, value in tables.items():
        _add_table(lines, (*name, key), value)


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, PurePath)):
        return quoted(str(value))
    if isinstance(value, Mapping):
        pairs = (f"{_key_text(key)} = {_value_text(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value_text, value)) + "]"
    return str(value.isoformat())
