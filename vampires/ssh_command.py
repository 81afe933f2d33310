"""One command of ours on another machine, through the OpenSSH client of this one.

A command that runs elsewhere ends with whoever asked for it. On a terminal ssh hands on
Ctrl-C, and the far end hangs up the command when the connection breaks. Without a terminal the
standard input of ssh is a leash: nothing is ever written into it. When it is closed - on
Ctrl-C, on a time-out, or because the process here died or the connection broke - a watcher at
the far end sends the command SIGINT, as Ctrl-C would have done. The command's own standard
input is /dev/null then.

The login shell there may be any that has sh's single quotes and "$PATH"; Linux and sh there
are required.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vampires.closing import Closing
from vampires.commands.common import UserError
from vampires.toml_text import dotted

if TYPE_CHECKING:
    from vampires.config_models import HostConfig

CONNECT_TIMEOUT_S = 5
ALIVE_INTERVAL_S = 5  # a connection that is silent for three times so long is given up
GRACE_S = 3.0  # for a command that was told to end
NOT_FOUND_EXIT = 127
SSH_FAILED_EXIT = 255
INTERRUPTED_EXIT = 128 + signal.SIGINT

# $1 is the command. $$ stays its process id after exec. The watcher is a child of that process;
# once it has another parent the command has ended, and its id may be that of something else.
_FIND = 'command -v "$1" >/dev/null 2>&1 || exit 127; '
_UNLEASHED = _FIND + 'exec "$@"'
_LEASHED = (
    _FIND + "exec 3<&0; { cat <&3; read -r pid name state parent rest </proc/self/stat; "
    '[ "$parent" = "$$" ] && kill -INT "$$"; } >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'
)


class HostUnreachable(UserError):
    """A command could not be run on another machine. The text is one line: which machine,
    what happened, and what to do."""


class SshCommand(Closing):
    """An ssh client that runs a command. A context manager: at its end the client has ended.

    interactive: with the standard input of this process. captured: output into the pipes of
    `process`, as text; otherwise it comes out where that of this process does. Raises
    HostUnreachable where ssh cannot even be started.
    """

    process: subprocess.Popen[str]

    def __init__(
        self,
        host: HostConfig,
        command: str,
        args: Sequence[str] = (),
        *,
        interactive: bool = False,
        captured: bool = False,
    ) -> None:
        self._host = host
        self._command = command
        self._interactive = interactive
        self._told_to_end = False
        self._leash = -1
        self._check_key()
        tty = interactive and os.isatty(0) and os.isatty(1)
        line = remote_line(host, command, args, leashed=not interactive)
        # In memory, so that nothing of it is left behind, whatever ends this process.
        self._log = open(os.memfd_create("ssh-log"), encoding="utf-8", errors="replace")  # noqa: SIM115
        log_file = f"/proc/{os.getpid()}/fd/{self._log.fileno()}"
        try:
            self._start([*ssh_arguments(host, tty=tty, log_file=log_file), line], captured)
        except BaseException:
            self._release()
            self._log.close()
            raise

    def _check_key(self) -> None:
        """ssh would go on without its key, and say something else."""
        file = self._host.identity_file
        if file is not None and not os.access(file, os.R_OK):
            raise self._failure(
                f"there is no private key {file}, or it is not readable; correct "
                f"{dotted(('hosts', self._host.name))}.identity_file in the configuration"
            )

    def _start(self, arguments: list[str], captured: bool) -> None:
        far_end = None
        if not self._interactive:
            far_end, self._leash = os.pipe()
        pipe = subprocess.PIPE if captured else None
        try:
            self.process = subprocess.Popen(
                arguments,
                stdin=far_end,
                stdout=pipe,
                stderr=pipe,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C reaches it by the leash, so that the last words of the command arrive.
                start_new_session=not self._interactive,
            )
        except FileNotFoundError:
            raise self._failure(
                "ssh is not installed on this machine; install it (apt install openssh-client)"
            ) from None
        except OSError as error:
            raise self._failure(f"cannot start ssh: {error.strerror}") from None
        finally:
            if far_end is not None:
                os.close(far_end)

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the command and gives its exit status. Raises HostUnreachable."""
        if not self.ends_within(timeout_s):
            raise self.timed_out(timeout_s)
        return self.exit_status()

    def timed_out(self, timeout_s: float | None) -> HostUnreachable:
        """Ends the command, which was not ready in time; returns the error that says so."""
        self.end()
        return self._failure(
            f"{self._command} did not end within {timeout_s:g} s and was told to; see what it "
            "has done with vampires_logstatus"
        )

    def exit_status(self, stderr: str = "") -> int:
        """The exit status of the command, which has ended. Raises HostUnreachable.

        130 if it did not survive being told to end. stderr: what was captured of it; there
        ssh complains about its own command line.
        """
        status = self.process.wait()
        if status == NOT_FOUND_EXIT:
            raise self._failure(self._not_found())
        if status == SSH_FAILED_EXIT or status < 0:
            if self._told_to_end:
                return INTERRUPTED_EXIT
            self._log.seek(0)
            words = self._log.read().strip() or own_complaint(stderr)
            raise self._failure(explained(self._host, words))
        return status

    def _not_found(self) -> str:
        folder = self._host.command_dir
        places = "its PATH" if folder is None else f"{folder} or its PATH"
        return (
            f"there is no command {self._command} in {places}; install it there, or correct "
            f"{dotted(('hosts', self._host.name))}.command_dir in the configuration"
        )

    def _failure(self, what: str) -> HostUnreachable:
        name, address = self._host.name, self._host.address
        return HostUnreachable(
            f"host {name}: {what}" if name == address else f"host {name} ({address}): {what}"
        )

    def tell_to_end(self) -> None:
        """Lets the command know that it is to end. From any thread or signal handler."""
        self._told_to_end = True
        self._release()

    def _release(self) -> None:
        leash, self._leash = self._leash, -1
        if leash >= 0:
            os.close(leash)

    def end(self) -> None:
        """Tells the command to end, and waits for it, but not for ever."""
        self.tell_to_end()
        if not self.ends_within(GRACE_S):
            self.process.kill()
        self.process.wait()

    def ends_within(self, timeout_s: float | None) -> bool:
        """Waits for the command, at most so long, and returns whether it has ended."""
        if self.process.poll() is not None:
            return True
        process_fd = os.pidfd_open(self.process.pid)
        try:
            poll = select.poll()
            poll.register(process_fd, select.POLLIN)
            return bool(poll.poll(None if timeout_s is None else max(0.0, timeout_s * 1e3)))
        finally:
            os.close(process_fd)

    def close(self) -> None:
        """Ends the command if it still runs, and gives everything back."""
        try:
            self.end()
        finally:  # also when Ctrl-C comes a second time
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
            self._log.close()


def ssh_arguments(host: HostConfig, *, tty: bool, log_file: str) -> list[str]:
    """The command line of ssh, up to the address. Its own words go into log_file, apart from
    what the command says on stderr. ValueError for a host that has no address for ssh."""
    if host.address is None or host.address.startswith("-"):
        raise ValueError(f"host {host.name}: {host.address!r} is no address for ssh")
    arguments = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    arguments += ["-o", "LogLevel=ERROR", "-E", log_file]
    if host.port is not None:
        arguments += ["-p", str(host.port)]
    if host.identity_file is not None:
        arguments += ["-i", str(host.identity_file)]
    if host.user is not None:
        arguments += ["-l", host.user]
    for option in host.ssh_options:
        arguments += ["-o", option]
    if host.identity_file is not None:
        arguments += ["-o", "IdentitiesOnly=yes"]
    arguments += ["-o", f"ServerAliveInterval={ALIVE_INTERVAL_S}"]
    return [*arguments, "-t" if tty else "-T", "--", host.address]


def remote_line(host: HostConfig, command: str, args: Sequence[str], *, leashed: bool) -> str:
    """The line for the login shell there: all of it quoted but "$PATH", before which
    command_dir is put. ValueError where `command` is not the plain name of a command."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", command) is None:
        raise ValueError(f"{command!r} is not the name of a command")
    variables = dict(host.environment)
    if host.shm_dir is not None:
        variables["MILK_SHM_DIR"] = host.shm_dir
    words = [shlex.quote(f"{name}={value}") for name, value in variables.items()]
    if host.command_dir is not None:
        words.append(shlex.quote(f"PATH={host.command_dir}:") + '"$PATH"')
    script = _LEASHED if leashed else _UNLEASHED
    words += ["sh", "-c", shlex.quote(script), "sh", command, *map(shlex.quote, args)]
    return "exec env " + " ".join(words)


# What ssh says, and what happened and what to do about it. The first that fits counts.
_OWN_COMMAND_LINE = "command-line"  # how ssh calls it: "command-line line 0: Bad ..."

_EXPLANATIONS = (
    (
        "Could not resolve hostname",
        "no machine of that name is known; correct {key}.address in the configuration, or look "
        "at the name service and /etc/hosts",
    ),
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known. If it was installed anew: ssh-keygen -R "
        "{known_as}, then log in once by hand: {by_hand}. If not, go no further: it may be "
        "another machine",
    ),
    (
        "Host key verification failed",
        "its host key is not known here; log in once by hand and accept it: {by_hand}",
    ),
    (
        "UNPROTECTED PRIVATE KEY FILE",
        "others may read the private key, so ssh does not use it: chmod 600 {identity}",
    ),
    (
        "Permission denied|Too many authentication failures",
        "it does not accept the key ({last}); see {key}.user and {key}.identity_file in the "
        "configuration, or have the key accepted: ssh-copy-id{port_option} {target}",
    ),
    (
        "Connection refused",
        "nothing takes ssh connections at port {port} there; start sshd there, or correct "
        "{key}.port in the configuration",
    ),
    (
        "timed out|not responding",
        f"no answer within {CONNECT_TIMEOUT_S} s; is it switched on and on the network? "
        "Correct {key}.address in the configuration if it is wrong",
    ),
    (
        "No route to host|unreachable|Host is down",
        "no way to it on the network; is it switched on? Correct {key}.address in the "
        "configuration if it is wrong",
    ),
    (_OWN_COMMAND_LINE, "{last}; correct {key}.ssh_options in the configuration"),
    (".", "ssh failed: {last}; try it by hand: {by_hand}"),
    (
        "",
        "the connection broke, or the command was killed there (or ssh stumbled over "
        "{key}.ssh_options and said so above); see what was done with vampires_logstatus",
    ),
)


def own_complaint(stderr: str) -> str:
    """The lines that ssh wrote about its own command line. The rest was said at the far end,
    by the command or by login files of its shell, and explains nothing of the connection."""
    return "\n".join(line for line in stderr.splitlines() if _OWN_COMMAND_LINE in line)


def explained(host: HostConfig, words: str) -> str:
    """One line on why ssh failed and what to do, from its own words (may be none)."""
    port_option = f" -p {host.port}" if host.port is not None else ""
    target = shlex.quote(f"{host.user}@{host.address}" if host.user else f"{host.address}")
    last = words.splitlines()[-1].strip() if words else ""
    fields = {
        "key": dotted(("hosts", host.name)),
        "port": host.port or 22,
        "port_option": port_option,
        "target": target,
        "by_hand": f"ssh{port_option} {target}",
        "known_as": shlex.quote(f"[{host.address}]:{host.port}" if host.port else target),
        "identity": host.identity_file or "the file that ssh -v names",
        "last": "".join(c if c.isprintable() else "?" for c in last),
    }
    text = next(text for pattern, text in _EXPLANATIONS if re.search(pattern, words))
    return text.format_map(fields)
