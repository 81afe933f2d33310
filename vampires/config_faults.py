"""What is wrong with a configuration: lines with key, what was found, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from vampires.config_models import Config
from vampires.instrument.facts import FULL
from vampires.instrument.file import instrument_on
from vampires.table_faults import closest, fault_line, value_line
from vampires.toml_text import dotted, quoted


def check(tables: Mapping[str, Any]) -> tuple[Config | None, list[str]]:
    """The configuration of what a TOML file holds, or None and all faults, a line each."""
    faults = list(_reference_faults(tables))
    config = None
    try:
        config = Config.model_validate({"logging": {}, **tables})
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = [fault_line(fault, Config) for fault in found] + faults
    return (None if faults else config), faults


def _reference_faults(tables: Mapping[str, Any]) -> Iterator[str]:
    """What no table shows alone: a host or mode that is not there, a number given twice."""
    logging = tables.get("logging")
    if isinstance(logging, Mapping):
        yield from _cube_size_faults(logging)
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
            yield value_line(("cameras", name, "host"), host, allowed + closest(host, hosts))
        if type(number) is int and seen.setdefault(number, name) != name:
            allowed = f"a number of its own; {seen[number]} has this one"
            yield value_line(("cameras", name, "number"), number, allowed)
        if camera.get("source") == "replay" and "replay" not in camera:
            allowed = 'replay = { path = "..." }, for source = "replay"'
            yield f"{dotted(('cameras', name))}: found no replay, expected {allowed}"
        yield from _mode_faults(name, camera)


def _mode_faults(name: str, camera: Mapping[str, Any]) -> Iterator[str]:
    mode, numbered = camera.get("mode"), "number" in camera
    modes = list(instrument_on().modes) if numbered else [FULL]
    if isinstance(mode, str) and mode not in modes:
        allowed = f"one of {', '.join(modes)}{closest(mode, modes)}"
        yield value_line(("cameras", name, "mode"), mode, allowed)


def _cube_size_faults(logging: Mapping[str, Any]) -> Iterator[str]:
    cube_sizes = logging.get("cube_sizes")
    known = instrument_on().modes
    for mode in cube_sizes if isinstance(cube_sizes, Mapping) else ():
        if mode not in known:
            where = dotted(("logging", "cube_sizes", mode))
            expected = f"one of {', '.join(known)}{closest(str(mode), known)}"
            yield f"{where}: found an unknown mode, expected {expected}"


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
            yield value_line(("links", name, "stream"), stream, allowed)
        for end in ("sender", "receiver"):
            host = link.get(end)
            if isinstance(host, str) and host not in hosts:
                allowed = f"one of {', '.join(map(quoted, hosts))}"
                yield value_line(("links", name, end), host, allowed + closest(host, hosts))
        if isinstance(sender, str) and sender == receiver:
            allowed = "another host than the sender's"
            yield value_line(("links", name, "receiver"), receiver, allowed)
        at, port = (receiver if link.get("kind") == "tcp" else sender), link.get("port")
        if (
            isinstance(at, str)
            and type(port) is int
            and ports.setdefault((at, port), name) != name
        ):
            allowed = f"another port at {at} than {ports[at, port]} has"
            yield value_line(("links", name, "port"), port, allowed)
