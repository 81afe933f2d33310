"""What is wrong with a configuration: lines with key, what was found, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vampires.cameras import MODES
from vampires.config_models import (
    CameraConfig,
    Config,
    HeaderConfig,
    HostConfig,
    LinkConfig,
    LoggingConfig,
    Table,
)
from vampires.toml_text import dotted, quoted

MAX_FOUND_CHARACTERS = 60
_MAX_SHOWN_NUMBER = 2**64

_NAMED_TABLES: dict[str, type[Table]] = {
    "hosts": HostConfig,
    "cameras": CameraConfig,
    "links": LinkConfig,
}
_TABLES: dict[str, type[Table]] = {"logging": LoggingConfig, "header": HeaderConfig}

Location = tuple[str | int, ...]


def check(tables: Mapping[str, Any]) -> tuple[Config | None, list[str]]:
    """The configuration of what a TOML file holds, or None and all faults, a line each."""
    faults = list(_reference_faults(tables))
    config = None
    try:
        config = Config.model_validate({"logging": {}, **tables})
    except ValidationError as error:
        faults = [_fault_line(fault) for fault in error.errors(include_url=False)] + faults
    return (None if faults else config), faults


def _reference_faults(tables: Mapping[str, Any]) -> Iterator[str]:
    """What no table shows alone: a host that is not there, a number given twice."""
    hosts, cameras = tables.get("hosts"), tables.get("cameras")
    if not isinstance(hosts, Mapping) or not isinstance(cameras, Mapping):
        return
    yield from _camera_faults(hosts, cameras)
    links = tables.get("links")
    if isinstance(links, Mapping):
        yield from _link_faults(hosts, cameras, links)


def _camera_faults(hosts: Mapping[str, Any], cameras: Mapping[str, Any]) -> Iterator[str]:
    seen: dict[int, str] = {}
    for name, camera in cameras.items():
        if not isinstance(camera, Mapping):
            continue
        host, number = camera.get("host"), camera.get("number")
        if isinstance(host, str) and host not in hosts:
            allowed = f"one of {', '.join(map(quoted, hosts))}"
            yield _line(("cameras", name, "host"), host, allowed + _closest(host, hosts))
        if type(number) is int and seen.setdefault(number, name) != name:
            allowed = f"a number of its own; {seen[number]} has this one"
            yield _line(("cameras", name, "number"), number, allowed)
        if camera.get("source") == "replay" and "replay" not in camera:
            allowed = 'replay = { path = "..." }, for source = "replay"'
            yield f"{dotted(('cameras', name))}: found no replay, expected {allowed}"
        yield from _mode_faults(name, camera)


def _mode_faults(name: str, camera: Mapping[str, Any]) -> Iterator[str]:
    mode, numbered = camera.get("mode"), "number" in camera
    modes = list(MODES) if numbered else ["FULL"]
    if isinstance(mode, str) and mode not in modes:
        allowed = f"one of {', '.join(modes)}{_closest(mode, modes)}"
        yield _line(("cameras", name, "mode"), mode, allowed)


def _link_faults(
    hosts: Mapping[str, Any], cameras: Mapping[str, Any], links: Mapping[str, Any]
) -> Iterator[str]:
    ports: dict[tuple[object, object], str] = {}
    for name, link in links.items():
        if not isinstance(link, Mapping):
            continue
        stream, sender, receiver = (link.get(key) for key in ("stream", "sender", "receiver"))
        if isinstance(stream, str) and stream.removesuffix("_dark") not in cameras:
            allowed = f"one of {', '.join(map(quoted, cameras))}, or with _dark behind it"
            yield _line(("links", name, "stream"), stream, allowed)
        for end in ("sender", "receiver"):
            host = link.get(end)
            if isinstance(host, str) and host not in hosts:
                allowed = f"one of {', '.join(map(quoted, hosts))}"
                yield _line(("links", name, end), host, allowed + _closest(host, hosts))
        if isinstance(sender, str) and sender == receiver:
            yield _line(("links", name, "receiver"), receiver, "another host than the sender's")
        at, port = (receiver if link.get("kind") == "tcp" else sender), link.get("port")
        if (
            isinstance(at, str)
            and type(port) is int
            and ports.setdefault((at, port), name) != name
        ):
            allowed = f"another port at {at} than {ports[at, port]} has"
            yield _line(("links", name, "port"), port, allowed)


def _fault_line(fault: ErrorDetails) -> str:
    where: Location = fault["loc"]
    if where and where[-1] == "[key]":
        where = where[:-1]
        kind = "a name that is not allowed"
        return f"{dotted(where)}: found {kind}, expected {_allowed(where[:-1])}"
    if fault["type"] == "extra_forbidden":
        known = _fields(where[:-1])
        close = _closest(str(where[-1]), known)
        return f"{dotted(where)}: found an unknown key, expected {', '.join(known)}{close}"
    if fault["type"] == "missing":
        return f"{dotted(where)}: found nothing, expected {_allowed(where)}"
    return _line(where, fault["input"], _allowed(where))


def _line(where: Location, found: object, allowed: str) -> str:
    return f"{dotted(where)}: found {_shown(found)}, expected {allowed}"


def _closest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _table_at(where: Location) -> type[Table]:
    """The model of the table in which the last key of `where` lies."""
    table, depth = _outer_table(where)
    for key in where[depth:-1]:
        inner = _inner_table(table, str(key))
        if inner is None:
            break
        table = inner
    return table


def _outer_table(where: Location) -> tuple[type[Table], int]:
    """The model of the table [NAME...] of the file in which `where` lies, and how many parts of
    `where` name that table."""
    if len(where) > 2 and where[0] in _NAMED_TABLES:
        return _NAMED_TABLES[str(where[0])], 2
    if len(where) > 1 and where[0] in _TABLES:
        return _TABLES[str(where[0])], 1
    return Config, 0


def _inner_table(table: type[Table], key: str) -> type[Table] | None:
    """The model of a table within a table."""
    field = table.model_fields.get(key)
    kinds = get_args(field.annotation) if field else ()
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Table)), None)


def _fields(table: Location) -> list[str]:
    return list(_table_at((*table, "")).model_fields)


def _allowed(where: Location) -> str:
    """What is allowed at a key, or at the list or table of values in which it lies."""
    if where[0] in _NAMED_TABLES and len(where) == 2:
        return f"a table [{dotted(where)}]"
    table, depth = _outer_table(where)
    field = table.model_fields[str(where[depth])]
    inner = _inner_table(table, str(where[depth]))
    if inner is not None and len(where) > depth + 1:
        field = inner.model_fields.get(str(where[depth + 1]), field)
    return field.description or "something else"


def _shown(found: object) -> str:
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
