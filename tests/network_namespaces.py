"""Two hosts with a cable between them, on one machine: network namespaces and a veth pair.

with two_hosts() as (near, far):
    far.start("shmimTCPreceive", ...)  # a process of that host; streams in far.folder
    near.set_link(up=False)            # the cable is out
    near.limit_mbit_per_s(500)

Needs the right to make network namespaces; CannotMakeHosts says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IP_TIMEOUT_S = 30
_SHARED_MEMORY = Path("/dev/shm")
# Of a network for documentation: no machine has them.
_ADDRESSES = ("192.0.2.1", "192.0.2.2")
_PREFIX_BITS = 24
# Connects to a port on which nobody listens, until it is told so by the other kernel.
_PROBE = """
import socket, sys
while True:
    with socket.socket() as probe:
        probe.settimeout(0.05)
        try:
            probe.connect((sys.argv[1], 9))
        except ConnectionRefusedError:
            break
        except OSError:
            pass
"""


class CannotMakeHosts(Exception):
    """This machine or this user cannot make network namespaces; the text says why."""


@dataclass(frozen=True)
class NamespaceHost:
    """One of the two hosts."""

    name: str
    """Of the namespace, and of its end of the cable."""
    address: str
    folder: Path
    """Its stream folder, which $MILK_SHM_DIR names for processes started here."""

    @property
    def device(self) -> str:
        """The name of its end of the cable."""
        return self.name

    def command(self, *arguments: object) -> list[str]:
        """Arguments of a process that runs on this host."""
        return ["ip", "netns", "exec", self.name, *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "MILK_SHM_DIR": str(self.folder)}

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """A process on this host; the caller ends it. Its pid is that of the command."""
        options.setdefault("cwd", self.folder)
        return subprocess.Popen(
            self.command(*arguments), env=self.environment(), text=True, **options
        )

    def set_link(self, *, up: bool) -> None:
        """This end of the cable, in or out."""
        self.run_tool("ip", "link", "set", self.device, "up" if up else "down")

    def wait_until_reaches(self, address: str) -> None:
        """Until the kernels have found each other again: after a cable was plugged in they
        look at it, and ask for addresses, about once a second."""
        self.run_tool(sys.executable, "-c", _PROBE, address)

    def limit_mbit_per_s(self, rate: float) -> None:
        """The most that this host sends from now on, by a token bucket."""
        self.run_tool(*limit_command(self.device, rate))

    def remove_limit(self) -> None:
        self.run_tool("tc", "qdisc", "del", "dev", self.device, "root")

    def run_tool(self, *command: str) -> None:
        """Runs a program of the system on this host, which succeeds."""
        run_tool(*self.command(*command))


def limit_command(device: str, mbit_per_s: float) -> list[str]:
    """The command that limits what a device sends."""
    bucket = ["tbf", "rate", f"{mbit_per_s}mbit", "burst", "128kb", "latency", "50ms"]
    return ["tc", "qdisc", "replace", "dev", device, "root", *bucket]


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[NamespaceHost, NamespaceHost]]:
    """Two hosts that reach each other over a cable, each with an empty stream folder.

    All is gone at the end; processes started there have to end before. Raises
    CannotMakeHosts.
    """
    tag = secrets.token_hex(4)  # a name of an interface has at most 15 characters
    with contextlib.ExitStack() as stack:
        hosts = []
        for side, address in zip("ab", _ADDRESSES, strict=True):
            folder = Path(stack.enter_context(_shared_folder()))
            hosts.append(NamespaceHost(f"vt-{tag}-{side}", address, folder))
        near, far = hosts
        for host in hosts:
            make("ip", "netns", "add", host.name)
            # The end of a namespace takes its end of the cable with it, and that the other.
            stack.callback(run_tool, "ip", "netns", "del", host.name)
        far_end = ["peer", "name", far.name, "netns", far.name]
        cable = ["link", "add", near.name, "netns", near.name, "type", "veth", *far_end]
        make("ip", *cable)
        for host in hosts:
            address = f"{host.address}/{_PREFIX_BITS}"
            host.run_tool("ip", "address", "add", address, "dev", host.device)
            host.run_tool("ip", "link", "set", "lo", "up")
            host.set_link(up=True)
        yield near, far


def _shared_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vampires-host-", dir=shared_memory())


def shared_memory() -> Path | None:
    """Where stream folders are made; None on a machine without it."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None


def make(*command: str) -> None:
    """Runs a command that may be refused here. Raises CannotMakeHosts."""
    try:
        run_tool(*command)
    except FileNotFoundError as error:
        raise CannotMakeHosts(f"no program {error.filename}") from None
    except subprocess.CalledProcessError as error:
        raise CannotMakeHosts(f"{' '.join(command)}: {error.stderr.strip()}") from None


def run_tool(*command: str) -> None:
    """Runs a program of the system, which succeeds."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=IP_TIMEOUT_S)
