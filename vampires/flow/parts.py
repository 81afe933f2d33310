"""The parts of a camera on a machine: processes, each in a tmux session of its own.

A part is all that the supervisor needs to know of one; nothing of the configuration is asked
again while it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vampires.config_models import Config, HostConfig, LinkConfig

# The order in which parts are started: who receives is there before anything is sent, so that
# nothing waits in a socket; they are stopped the other way round.
HEADER, RECEIVER, SOURCE, SENDER, PROMPT = range(5)
HEADER_SESSION = "headerd"


@dataclass(frozen=True)
class Part:
    """A process. session: of tmux. kind: "source", "prompt", "tcp sender" and so on. status:
    name of its file in the run folder, "" for none. fast: ends while the camera reads its whole
    sensor, which is too much for the network. quiet: how it is told to end ("INT" or "HUP").
    """

    session: str
    camera: str
    kind: str
    command: tuple[str, ...]
    order: int
    status: str = ""
    fast: bool = False
    quiet: str = "INT"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Part:
        """From as_dict(). ValueError for anything else."""
        try:
            part = cls(**{**values, "command": tuple(map(str, values["command"]))})
        except (TypeError, KeyError) as error:
            raise ValueError(f"found no part of a camera: {error}") from None
        texts = (part.session, part.camera, part.kind, part.status, part.quiet)
        if not all(isinstance(text, str) for text in texts) or type(part.order) is not int:
            raise ValueError("found a part of a camera with values of other types")
        return part


def module(name: str, *arguments: object) -> tuple[str, ...]:
    """The command line of one of our commands, whatever the PATH is there."""
    return (sys.executable, "-m", f"vampires.commands.{name}", *map(str, arguments))


def parts_here(
    config: Config, camera: str, mode: str, generation: str, *, links: bool = True
) -> list[Part]:
    """The parts of a camera on this machine, in the order of their start. mode: the camera's at
    its start. ValueError for an address of a link that is not known."""
    found = list(_parts(config, camera, mode, generation, links))
    return sorted(found, key=lambda part: part.order)


def machines_of(config: Config, camera: str, *, links: bool = True) -> list[HostConfig]:
    """The machines on which a camera has parts: its own first, then those of its links."""
    names = [config.camera(camera).host]
    if links:
        for link in config.links_of(camera):
            names += [link.receiver, link.sender]
    return [config.hosts[name] for name in dict.fromkeys(names)]


def _parts(
    config: Config, camera: str, mode: str, generation: str, links: bool
) -> Iterator[Part]:
    if config.host_of(camera).is_local():
        yield _source(camera, mode, generation)
        prompt = module("camera_prompt", camera)
        yield Part(f"{camera}_ctrl", camera, "prompt", prompt, PROMPT, quiet="HUP")
        if config.header is not None and config.camera(camera).logged:
            command = module("headerd", "--status-file", f"{HEADER_SESSION}.json")
            yield Part(HEADER_SESSION, "", "header", command, HEADER, status=HEADER_SESSION)
    for link in config.links_of(camera) if links else ():
        if config.hosts[link.receiver].is_local():
            yield _receiver(config, link)
        if config.hosts[link.sender].is_local():
            yield _sender(config, link)


def _source(camera: str, mode: str, generation: str) -> Part:
    name = f"{camera}_fgrab"
    options = ("--mode", mode, "--generation", generation)
    command = module("fgrab", camera, *options)
    return Part(name, camera, "source", command, SOURCE, status=name)


def _receiver(config: Config, link: LinkConfig) -> Part:
    ours, theirs = _addresses(config, link, link.receiver)
    file = f"{link.name}.json"
    if link.kind == "tcp":
        options = ("--listen", ours, "--allow", theirs, *_placement(link))
        command = module("tcp_receive", *options, "--status-file", file, link.port)
    else:
        address = f"tcp://{_in_url(theirs)}:{link.port}"
        options = (*_placement(link), "--status-file", file)
        command = module("zmq_recv", address, link.stream, *options)
    kind = f"{link.kind} receiver"
    return Part(link.name, link.camera, kind, command, RECEIVER, status=link.name)


def _sender(config: Config, link: LinkConfig) -> Part:
    ours, theirs = _addresses(config, link, link.sender)
    file = f"{link.name}.json"
    if link.kind == "tcp":
        options = (*_placement(link), "--status-file", file)
        command = module("tcp_transmit", link.stream, theirs, link.port, *options)
    else:
        place = f"tcp://{_in_url(ours)}:{link.port}"
        options = ("--allow", theirs, "--fps", f"{link.fps:g}", "--status-file", file)
        options = ("--bind", place, "--max-mbps", f"{link.max_mbps:g}", *options)
        again = ("--resend", "1") if link.stream != link.camera else ()
        command = module("zmq_send", link.stream, *options, *again, *_placement(link))
    return Part(
        link.name,
        link.camera,
        f"{link.kind} sender",
        command,
        SENDER,
        status=link.name,
        fast=link.kind == "tcp",
    )


def _placement(link: LinkConfig) -> tuple[str, ...]:
    words = ["-c", link.cpu_set] if link.cpu_set != "system" else []
    words += ["--cpus", link.cpus] if link.cpus else []
    words += ["--rt-priority", str(link.rt_priority)] if link.rt_priority else []
    return tuple(words)


def _addresses(config: Config, link: LinkConfig, host: str) -> tuple[str, str]:
    """The address of the end of a link on a host, and that of the other end."""
    ends = {
        link.sender: link.sender_address or config.hosts[link.sender].address,
        link.receiver: link.receiver_address or config.hosts[link.receiver].address,
    }
    other = link.receiver if host == link.sender else link.sender
    for name, address in ends.items():
        if address is None or address in ("local", "localhost"):
            end = "sender" if name == link.sender else "receiver"
            raise ValueError(
                f"links.{link.name}: the address of host {name} in the network is not known; "
                f'give {end}_address = "..." in the configuration'
            )
    return _numeric(str(ends[host])), str(ends[other])


def _numeric(name: str) -> str:
    """An address of this machine, which programs that listen want as numbers."""
    import socket

    try:
        return str(ip_address(name))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"host {name} is not known here: {error.strerror}") from None
    return str(found[0][4][0])


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
