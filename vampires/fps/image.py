"""The bytes of a new FPS, as milk's programs expect to find them."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from vampires.fps import layout
from vampires.fps.errors import FPSRefused
from vampires.fps.layout import HeaderText, ParameterFlag, ParameterType, Signal
from vampires.fps.values import NewParameter, packed, packed_text

CONF_WAIT_US = 1000


def new_image(
    name: str,
    parameters: Sequence[NewParameter],
    *,
    description: str,
    callprogname: str,
    callfuncname: str,
    workdir: Path | str,
    keywordarray: str,
) -> bytearray:
    """All bytes of an FPS. Raises FPSRefused for what does not fit."""
    image = bytearray(layout.file_bytes(max(layout.DEFAULT_PARAMETERS, len(parameters))))
    texts = {
        HeaderText.NAME: name,
        HeaderText.DESCRIPTION: description,
        HeaderText.KEYWORDARRAY: keywordarray,
        HeaderText.WORKDIR: os.fspath(workdir),
        HeaderText.DATADIR: data_directory(name),
        HeaderText.CONFDIR: conf_directory(name),
        HeaderText.SOURCEFNAME: "vampires",
        HeaderText.PNAME: name.split("-", maxsplit=1)[0],
        HeaderText.CALLPROGNAME: callprogname,
        HeaderText.CALLFUNCNAME: callfuncname,
    }
    for at, text in texts.items():
        _put_text(image, at, layout.HEADER_TEXT_BYTES[at], text, f"{at.name.lower()} {text!r}")
    _put_name_indices(image, name)
    slots = (len(image) - layout.HEADER_BYTES) // layout.PARAMETER_BYTES
    _put(image, layout.SIGNAL, Signal.CONFRUN)
    _put(image, layout.CONFWAITUS, CONF_WAIT_US)
    _put(image, layout.NBPARAM_MAX, slots)
    for index, parameter in enumerate(parameters):
        begin = layout.HEADER_BYTES + index * layout.PARAMETER_BYTES
        image[begin : begin + layout.PARAMETER_BYTES] = _parameter(name, parameter)
    return image


def data_directory(name: str) -> str:
    """The folder, in the work directory of an FPS, where milk's programs leave notes."""
    return f"fps.{name}.datadir"


def conf_directory(name: str) -> str:
    """The folder beside it, where milk's programs keep values."""
    return f"fps.{name}.confdir"


def _put_name_indices(image: bytearray, name: str) -> None:
    """The parts of the name after the first dash, as milk's programs look for them."""
    parts = name.split("-")[1 : 1 + layout.NAMEINDEX_SLOTS]
    _put(image, layout.NBNAMEINDEX, len(parts))
    size = layout.NAMEINDEX_BYTES
    for k, part in enumerate(parts):
        _put_cut_text(image, layout.NAMEINDEX_AT + k * size, size, part)


def _parameter(name: str, new: NewParameter) -> bytearray:
    raw = bytearray(layout.PARAMETER_BYTES)
    full_key = f"{name}.{new.key}"
    parts = [name, *new.key.split(".")]
    if not all(parts) or len(parts) > layout.KEYWORD_LEVELS:
        raise FPSRefused(
            f"parameter {full_key!r}: expected up to {layout.KEYWORD_LEVELS} words with dots "
            "between them"
        )
    on = new.type is ParameterType.ONOFF and new.value
    _put(raw, (layout.FLAGS_AT, "<Q"), new.flags | (ParameterFlag.ONOFF if on else 0))
    _put_text(raw, layout.KEYWORDFULL_AT, layout.KEYWORDFULL_BYTES, full_key, repr(full_key))
    for k, part in enumerate(parts):
        size = layout.KEYWORD_BYTES
        _put_cut_text(raw, layout.KEYWORDS_AT + k * size, size, part)
    _put(raw, (layout.KEYWORDLEVEL_AT, "<i"), len(parts))
    what = f"the description of {full_key}"
    _put_text(raw, layout.DESCRIPTION_AT, layout.DESCRIPTION_BYTES, new.description, what)
    _put(raw, (layout.TYPE_AT, "<I"), new.type)
    try:
        value = _value(new, full_key)
    except (struct.error, OverflowError, ValueError, TypeError):
        raise FPSRefused(
            f"{full_key}: found {new.value!r} in {new.minimum!r}..{new.maximum!r}, which does "
            f"not fit {new.type.name}"
        ) from None
    raw[layout.VALUE_AT : layout.VALUE_AT + layout.VALUE_BYTES] = value
    _put(raw, (layout.CNT0_AT, "<q"), 1)
    return raw


def _value(new: NewParameter, full_key: str) -> bytes:
    """The 128 bytes: the value, then what belongs to its type. What is not used is zero."""
    kind = new.type
    elements = [packed(kind, new.value, full_key)]
    if kind in layout.NULL_TEXTS:
        elements.append(packed_text(layout.NULL_TEXTS[kind], layout.STRING_BYTES, full_key))
    elif kind in layout.FOUR_SLOT_TYPES:
        if kind in layout.HALF_TYPES and new.minimum:
            # pyMilk reads 64 bits of the value: the minimum would be the upper half of them.
            raise FPSRefused(f"{full_key}: a 32-bit parameter has no lower limit but 0")
        elements += [packed(kind, x, full_key) for x in (new.minimum, new.maximum, new.value)]
    elif kind is ParameterType.TIMESPEC:
        elements.append(packed(kind, new.minimum, full_key))
    return b"".join(elements).ljust(layout.VALUE_BYTES, b"\0")


def _put(raw: bytearray, field: tuple[int, str], value: int) -> None:
    struct.pack_into(field[1], raw, field[0], value)


def _put_text(raw: bytearray, at: int, size: int, text: str, what: str) -> None:
    raw[at : at + size] = packed_text(text, size, what)


def _put_cut_text(raw: bytearray, at: int, size: int, text: str) -> None:
    """As milk does with names that are longer than their room."""
    whole = text.encode()[: size - 1].decode(errors="ignore")
    raw[at : at + size] = packed_text(whole, size, text)
