"""Three computers on one network, on one machine: scexao5, scexao6 and sonne.

with three_hosts(tmp_path) as hosts:
    hosts.write_config(hosts.config_tables() + CAMERAS)
    camera = hosts["scexao5"].start("vampires-framesim", "vcam1")
    hosts["sonne"].run("vampires_preplog", "--yes")
    hosts["scexao5"].cut()

Each has namespaces of its own for its network, its name and its mounts, joined by a bridge in a
fourth, so nothing of it is to be seen outside, and runs side by side never meet. Each has its
own /etc/hosts, home directory, streams, tmux server, configuration and sshd, and may log in to
the others, in whose shells all is as in host.run(). Clock, process ids and files are common: a
test reads a host's streams and cubes through host.shm_dir and host.home, and may signal its
processes. At the end, also when the test failed or was killed, all that ran there has ended and
the namespaces are gone; the homes stay below tmp_path, as whatever else a test writes.

Needs the right to make namespaces; CannotMakeHosts says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from namespace_holder import GRACE_S, namespaces_of, processes_in
from network_namespaces import (
    CannotMakeHosts,
    NamespaceHost,
    limit_command,
    make,
    run_tool,
    shared_memory,
)
from ssh_server import make_key, sshd_command

from vampires.toml_text import toml_text

ADDRESSES = {"scexao5": "10.77.0.5", "scexao6": "10.77.0.6", "sonne": "10.77.0.7"}
PREFIX_BITS = 24
SSH_PORT = 22
COMMAND_DIR = Path(sys.executable).parent
PATIENCE_S = 60.0
_PATH = f"{COMMAND_DIR}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOLDER = Path(__file__).with_name("namespace_holder.py")
_BRIDGE = "bridge"
_DEVICE = "eth0"


@dataclass(frozen=True)
class Namespaces:
    """Those of a network, a name and mounts, for as long as their holder lives."""

    holder: subprocess.Popen[str]

    def command(self, folder: Path, *arguments: object) -> list[str]:
        """Arguments of a process that runs there, in that folder; its pid is that of the
        program."""
        enter = ["nsenter", f"--target={self.holder.pid}", "--net", "--uts", "--mount"]
        return [*enter, "env", "-C", str(folder), *map(str, arguments)]

    def wait_until_entered(self, process: subprocess.Popen[str]) -> None:
        """Until a process that was started with command() is there, or has ended: before, it
        is not found among those that are to be ended."""
        own = namespaces_of(self.holder.pid)
        while namespaces_of(process.pid) != own and process.poll() is None:
            time.sleep(0.0005)

    def tell_to_end(self) -> None:
        """Has the holder end what runs there; returns at once."""
        assert self.holder.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.holder.stdin.write("end\n")
            self.holder.stdin.flush()


@dataclass(frozen=True)
class Host(NamespaceHost):
    """One of the three. Its processes have the environment of an observer's shell there."""

    home: Path
    tmux_dir: Path
    namespaces: Namespaces
    switch: Namespaces
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    """Those of start(). They are ended, waited for, and their pipes closed, at the end."""

    @property
    def device(self) -> str:
        return _DEVICE

    @property
    def shm_dir(self) -> Path:
        """Its streams and function parameter structures."""
        return self.folder

    @property
    def config(self) -> Path:
        """The file of its configuration; there is none until one is written."""
        return self.home / ".config" / "vampires" / "config.toml"

    @property
    def system(self) -> Path:
        """Files of the computer itself: those of /etc, and the log of sshd."""
        return self.home.with_name("system")

    # -- programs -----------------------------------------------------------------------------

    def command(self, *arguments: object) -> list[str]:
        return self.namespaces.command(self.home, *arguments)

    def environment(self) -> dict[str, str]:
        return {
            "PATH": _PATH,
            "HOME": str(self.home),
            "USER": pwd.getpwuid(os.getuid()).pw_name,
            "SHELL": _shell(),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "MILK_SHM_DIR": str(self.shm_dir),
            "TMUX_TMPDIR": str(self.tmux_dir),
            "XDG_CONFIG_HOME": str(self.config.parent.parent),
            "VAMPIRES_CONFIG": str(self.config),
        }

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """A process on this host, with text pipes unless options say otherwise, in its home
        or in `cwd`. Whoever lets it write much reads it, or gives it files."""
        command = self.namespaces.command(options.pop("cwd", self.home), *arguments)
        for pipe in ("stdout", "stderr"):
            options.setdefault(pipe, subprocess.PIPE)
        options = {"stdin": subprocess.DEVNULL, "env": self.environment(), **options}
        process = subprocess.Popen(command, text=True, **options)
        self.processes.append(process)
        self.namespaces.wait_until_entered(process)
        return process

    def run(
        self,
        *arguments: object,
        timeout: float = PATIENCE_S,
        check: bool = True,
        input: str | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program and waits for it. check: it has to succeed, else AssertionError with
        what it said. input: what it is told on its standard input."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not check or done.returncode == 0, f"on {self.name}: {done}"
        return done

    def python(
        self, source: str, *arguments: object, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs the source text in the Python of these tests; options as of run()."""
        return self.run(sys.executable, "-c", source, *arguments, **options)

    def tmux(self, *arguments: object) -> str:
        """Runs tmux, on this host's server; what it printed."""
        return self.run("tmux", *arguments, check=False).stdout

    def pids(self) -> set[int]:
        """All processes of this host, whoever started them; also its sshd."""
        holder = self.namespaces.holder.pid
        return set(processes_in(namespaces_of(holder), but=holder))

    # -- network ------------------------------------------------------------------------------

    def set_link(self, *, up: bool) -> None:
        """Its cable, in or out of the switch: the device here stays, and has no carrier."""
        self.run_on_switch("ip", "link", "set", self.name, "up" if up else "down")

    def cut(self) -> None:
        """Pulls its cable. Connections do not end by that."""
        self.set_link(up=False)

    def mend(self) -> None:
        """Plugs it in again; see wait_until_reaches()."""
        self.set_link(up=True)

    def limit_mbit_per_s(self, rate: float) -> None:
        """The most that passes through its cable from now on, either way."""
        super().limit_mbit_per_s(rate)
        self.run_on_switch(*limit_command(self.name, rate))

    def remove_limit(self) -> None:
        super().remove_limit()
        self.run_on_switch("tc", "qdisc", "del", "dev", self.name, "root")

    def run_on_switch(self, *command: str) -> None:
        """Runs a tool where the other end of its cable is, a device of this host's name."""
        run_tool(*self.switch.command(Path("/"), *command))

    # -- configuration ------------------------------------------------------------------------

    def write_config(self, text: str) -> None:
        """Replaces its configuration."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text)

    def config_table(self) -> dict[str, Any]:
        """Its table [hosts.NAME], good on all three."""
        return {
            "address": self.name,
            "port": SSH_PORT,
            "identity_file": "~/.ssh/id_ed25519",
            "ssh_options": ["StrictHostKeyChecking=yes"],
            "command_dir": str(COMMAND_DIR),
            "shm_dir": str(self.shm_dir),
            "environment": {"VAMPIRES_CONFIG": str(self.config)},
        }


class Hosts(dict[str, Host]):
    """The three, by name."""

    def config_tables(self) -> str:
        """The tables [hosts.NAME] of a configuration."""
        return toml_text({"hosts": {host.name: host.config_table() for host in self.values()}})

    def write_config(self, text: str) -> None:
        """The same configuration for all three."""
        for host in self.values():
            host.write_config(text)

    def shape(self, name: str, *, mbit: float | None) -> None:
        """Limits what passes through the cable of a host, each way; None: no limit."""
        if mbit is None:
            self[name].remove_limit()
        else:
            self[name].limit_mbit_per_s(mbit)


@contextlib.contextmanager
def three_hosts(tmp_path: Path) -> Iterator[Hosts]:
    """The three hosts, which reach each other; their homes are tmp_path/NAME/home.

    Raises CannotMakeHosts.
    """
    hosts = Hosts()
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(_namespaces())
        make(*switch.command(Path("/"), "ip", "link", "add", _BRIDGE, "type", "bridge"))
        make(*switch.command(Path("/"), "ip", "link", "set", _BRIDGE, "up"))
        for name in ADDRESSES:
            hosts[name] = stack.enter_context(_host(name, switch, tmp_path / name))
        # Together: none waits for what another still has to end.
        stack.callback(_tell_all_to_end, hosts)
        _make_keys(hosts)
        servers = [_start_sshd(host) for host in hosts.values()]
        for host, server in zip(hosts.values(), servers, strict=True):
            _wait_until_listens(host, server)
        yield hosts


def _tell_all_to_end(hosts: Hosts) -> None:
    for host in hosts.values():
        host.namespaces.tell_to_end()


@contextlib.contextmanager
def _namespaces(*folders: Path) -> Iterator[Namespaces]:
    """New ones. At their end all that ran in them has ended, and the folders are removed."""
    program = [sys.executable, "-I", "-S", str(_HOLDER), *map(str, folders)]
    pipe = subprocess.PIPE
    try:
        holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", *program],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests; it goes when they have ended
        )
    except FileNotFoundError:
        raise CannotMakeHosts("no program unshare") from None
    with holder:
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline() != "ready\n":
            raise CannotMakeHosts(holder.stderr.read().strip())
        namespaces = Namespaces(holder)
        try:
            yield namespaces
        finally:
            namespaces.tell_to_end()  # a fork of this process may keep the pipe open
            _, said = holder.communicate(timeout=GRACE_S + PATIENCE_S)
    if holder.returncode != 0:
        raise RuntimeError(f"the namespaces were not ended: {said}")


@contextlib.contextmanager
def _host(name: str, switch: Namespaces, folder: Path) -> Iterator[Host]:
    """A host on the network, without its sshd. Its processes were waited for at the end."""
    tag = secrets.token_hex(4)
    shm_dir = (shared_memory() or Path("/tmp")) / f"vampires-host-{tag}-{name}"
    tmux_dir = Path("/tmp") / f"vh-{tag}-{name}"  # sockets have short paths
    with contextlib.ExitStack() as stack:
        home = folder / "home"
        namespaces = stack.enter_context(_namespaces(shm_dir, tmux_dir))
        host = Host(name, ADDRESSES[name], shm_dir, home, tmux_dir, namespaces, switch)
        for place in (shm_dir, tmux_dir, home, host.system):
            place.mkdir(mode=0o700, parents=True)
        _name_it(host)
        _plug_it_in(host)
        try:
            yield host
        finally:
            stack.close()
            for process in host.processes:
                process.kill()  # one that went into other namespaces; most have ended
                process.wait()
                for end in (process.stdin, process.stdout, process.stderr):
                    if end is not None:
                        end.close()


def _name_it(host: Host) -> None:
    """Its name, those of the others, and its observer's home and login files."""
    make(*host.command("hostname", host.name))
    names = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
    _replace(host, "hosts", f"127.0.0.1 localhost\n::1 localhost\n{names}")
    _replace(host, "passwd", _passwd(host.home))
    # System-wide login files set PATH anew.
    lines = "".join(f"export {name}='{text}'\n" for name, text in host.environment().items())
    for file in (".profile", ".bashrc"):
        (host.home / file).write_text(lines)


def _replace(host: Host, name: str, text: str) -> None:
    """A file of /etc, on this host."""
    file = host.system / name
    file.write_text(text)
    make(*host.command("mount", "--bind", file, f"/etc/{name}"))


def _passwd(home: Path) -> str:
    """The users, with another home for the one who runs the tests: ssh looks for keys there."""
    user = pwd.getpwuid(os.getuid())
    ids = f"{user.pw_uid}:{user.pw_gid}"
    lines = [f"{user.pw_name}:x:{ids}::{home}:{_shell()}"]
    for line in Path("/etc/passwd").read_text().splitlines():
        if line.split(":")[2:3] != [str(user.pw_uid)]:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _shell() -> str:
    return shutil.which("bash") or "/bin/sh"


def _plug_it_in(host: Host) -> None:
    cable = ["type", "veth", "peer", "name", _DEVICE, "netns", str(host.namespaces.holder.pid)]
    for command in (["add", host.name, *cable], ["set", host.name, "master", _BRIDGE, "up"]):
        make(*host.switch.command(Path("/"), "ip", "link", *command))
    host.run_tool("ip", "address", "add", f"{host.address}/{PREFIX_BITS}", "dev", _DEVICE)
    for device in ("lo", _DEVICE):
        host.run_tool("ip", "link", "set", device, "up")


# -- ssh --------------------------------------------------------------------------------------


def _make_keys(hosts: Mapping[str, Host]) -> None:
    """Each host knows the others, and lets their observer in."""
    known, authorized = "", ""
    for host in hosts.values():
        (host.home / ".ssh").mkdir(mode=0o700)
        known += f"{host.name},{host.address} {make_key(host.system / 'host_key')}\n"
        authorized += f"{make_key(host.home / '.ssh' / 'id_ed25519')}\n"
    for host in hosts.values():
        (host.home / ".ssh" / "known_hosts").write_text(known)
        (host.system / "authorized_keys").write_text(authorized)


def _start_sshd(host: Host) -> subprocess.Popen[str]:
    command = sshd_command(host.system, "0.0.0.0", SSH_PORT, host.environment())
    with open(host.system / "sshd.log", "w") as log:
        return host.start(*command, stdout=log, stderr=log)


def _wait_until_listens(host: Host, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (host.system / "sshd.pid").exists():
        if server.poll() is not None or time.monotonic() > deadline:
            said = (host.system / "sshd.log").read_text()
            raise RuntimeError(f"the sshd of {host.name} does not start: {said}")
        time.sleep(0.005)
