"""A real sshd on the loopback, with keys of its own, for as long as a test needs it.

Who logs in has an empty home directory there: what the login files of the tests' user do or say
is no part of a test.

with ssh_server(tmp_path) as server:
    host = HostConfig(**server.host_table())
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1"
ATTEMPTS = 5  # a port that was free may be taken before sshd has it
PRIVILEGE_SEPARATION_DIR = Path("/run/sshd")  # sshd of root does not start without it

SSHD_CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
MaxSessions 100
SetEnv {environment}
"""


@dataclass(frozen=True)
class SshServer:
    """What a client needs to log in as the user of the tests."""

    port: int
    folder: Path
    """Holds host_key(.pub), user_key(.pub), stranger_key(.pub) and known_hosts."""
    process: subprocess.Popen[str]

    @property
    def identity_file(self) -> Path:
        """The private key that is let in."""
        return self.folder / "user_key"

    @property
    def stranger_key(self) -> Path:
        """A private key that is not let in."""
        return self.folder / "stranger_key"

    @property
    def known_hosts(self) -> Path:
        """The file that holds the key of this server."""
        return self.folder / "known_hosts"

    def ssh_options(self, known_hosts: Path | None = None) -> list[str]:
        """Options of a client that looks at no other file of its user (-F apart)."""
        return [
            f"UserKnownHostsFile={known_hosts or self.known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "IdentityAgent=none",
        ]

    def host_table(self, **others: Any) -> dict[str, Any]:
        """The table [hosts.NAME] of this server; others replace or add lines."""
        table = {
            "address": ADDRESS,
            "port": self.port,
            "identity_file": str(self.identity_file),
            "ssh_options": self.ssh_options(),
        }
        return table | others

    def log(self) -> str:
        """What sshd has said so far."""
        return (self.folder / "sshd.log").read_text()


@contextlib.contextmanager
def ssh_server(tmp_path: Path) -> Iterator[SshServer]:
    """An sshd that answers; all its files lie below tmp_path. It has ended afterwards."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    (folder / "home").mkdir()
    for name in ("host_key", "user_key", "stranger_key"):
        make_key(folder / name)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    server = _started(folder)
    key = (folder / "host_key.pub").read_text()
    server.known_hosts.write_text(f"[{ADDRESS}]:{server.port} {key}")
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def free_port() -> int:
    """A port of the loopback at which nothing listens now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def make_key(file: Path) -> str:
    """Makes a private key, and FILE.pub beside it; the public one."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", file.name, "-f", file],
        check=True,
    )
    return file.with_name(f"{file.name}.pub").read_text().strip()


def sshd_command(
    folder: Path, address: str, port: int, environment: Mapping[str, str]
) -> list[str]:
    """A command line of sshd, whose logins have these variables. It stays in the foreground,
    logs to standard error, and writes sshd.pid into the folder once it listens; there
    host_key and authorized_keys must be."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("sshd: apt install openssh-server")
    if os.geteuid() == 0:
        # It stays, as where the package's own service runs: it is every sshd's.
        PRIVILEGE_SEPARATION_DIR.mkdir(mode=0o755, exist_ok=True)
    variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
    config = folder / "sshd_config"
    config.write_text(
        SSHD_CONFIG.format(port=port, address=address, folder=folder, environment=variables)
    )
    return [program, "-D", "-e", "-f", str(config)]


def _started(folder: Path) -> SshServer:
    for _ in range(ATTEMPTS):
        port = free_port()
        command = sshd_command(folder, ADDRESS, port, {"HOME": f"{folder}/home"})
        with open(folder / "sshd.log", "w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
            )
        if _answers(port, process):
            return SshServer(port, folder, process)
    raise RuntimeError(f"sshd does not start: {(folder / 'sshd.log').read_text()}")


def _answers(port: int, process: subprocess.Popen[str]) -> bool:
    """Waits until a server greets at the port, or the process has ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port)) as client:
            return client.recv(4) == b"SSH-"
    return False
