"""Commands of ours on the machines of the cameras, this one or others.

What becomes of a command elsewhere when the one here ends is told in vampires.ssh_command.
"""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import IO, TYPE_CHECKING, TextIO

from vampires.commands.common import USER_ERROR_EXIT, UserError
from vampires.ssh_command import INTERRUPTED_EXIT, HostUnreachable, SshCommand

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config, HostConfig

__all__ = ["HostUnreachable", "capture_there", "on_camera_hosts", "run_there"]

RunHere = Callable[[list["CameraConfig"]], int]


def run_there(
    host: HostConfig,
    command: str,
    args: Sequence[str] = (),
    *,
    interactive: bool = False,
    timeout_s: float | None = None,
) -> int:
    """Runs a command on another machine; returns its exit status, or 130 after Ctrl-C.

    Its output comes out here as it is made. interactive: it reads the standard input of this
    process, as on a terminal if this process is on one. Raises HostUnreachable, also when it
    does not end within timeout_s.
    """
    sys.stdout.flush()
    try:
        with SshCommand(host, command, args, interactive=interactive) as ssh:
            return ssh.wait(timeout_s)
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT


def capture_there(
    host: HostConfig, command: str, args: Sequence[str] = (), *, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command on another machine; returns its exit status and output.

    Raises HostUnreachable, also when it does not end within timeout_s. Ctrl-C ends the command
    and is raised as KeyboardInterrupt.
    """
    with SshCommand(host, command, args, captured=True) as ssh:
        try:
            out, err = ssh.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise ssh.timed_out(timeout_s) from None
        status = ssh.exit_status(err)
    return subprocess.CompletedProcess([command, *args], status, out, err)


def on_camera_hosts(
    config: Config,
    cameras: Sequence[CameraConfig],
    command: str,
    args: Sequence[str],
    run_here: RunHere,
    *,
    interactive: bool = False,
    timeout_s: float | None = None,
) -> int:
    """Does the same for all cameras, each on its machine; returns the worst exit status.

    For the cameras of this machine: run_here(cameras) -> exit status. On each other machine:
    `command --local -c NUMBER ... ARGS`, with a -c for each camera there (its name, where it
    has no number).

    More than one machine: all at once, and each line of output begins with the machine's name.
    One that fails is told on stderr, counts as exit status 2, and does not keep the others from
    running. None is interactive. One machine alone: errors are raised (HostUnreachable, or
    what run_here raises).

    run_here runs in the calling thread. A handler of Ctrl-C that the caller has (such as
    setup_signals) has to be there before; then Ctrl-C also ends the commands elsewhere.
    """
    here = [camera for camera in cameras if config.host_of(camera).is_local()]
    there: dict[str, list[CameraConfig]] = {}
    for camera in cameras:
        if not config.host_of(camera).is_local():
            there.setdefault(camera.host, []).append(camera)
    if not there:
        return run_here(here)
    calls = [
        (config.hosts[name], command, [*_camera_arguments(theirs), *args])
        for name, theirs in there.items()
    ]
    if len(calls) == 1 and not here:
        return run_there(*calls[0], interactive=interactive, timeout_s=timeout_s)
    statuses = []
    try:
        with _started_together(calls, timeout_s) as relays:
            if here:
                name = config.host_of(here[0]).name
                statuses.append(_run_prefixed(name, command, lambda: run_here(here)))
            statuses += [relay.status() for relay in relays]
    except KeyboardInterrupt:
        statuses.append(INTERRUPTED_EXIT)
    return max(statuses)


def _camera_arguments(cameras: Sequence[CameraConfig]) -> list[str]:
    arguments = ["--local"]
    for camera in cameras:
        arguments += ["-c", camera.name if camera.number is None else str(camera.number)]
    return arguments


class _Lines(io.TextIOBase):
    """A text file that puts a name in front of each line and hands whole lines on."""

    _one_line_at_a_time = threading.Lock()

    def __init__(self, name: str, file: TextIO) -> None:
        self._name = name
        self._file = file
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        with self._one_line_at_a_time:
            for line in lines:
                self._file.write(f"{self._name}: {line}\n")
            self._file.flush()
        return len(text)

    def finish(self) -> None:
        """Hands on a last line that has no end."""
        if self._begun:
            self.write("\n")


def _run_prefixed(name: str, command: str, action: Callable[[], int]) -> int:
    """The exit status of an action, whose output gets the name of this machine."""
    out, err = _Lines(name, sys.stdout), _Lines(name, sys.stderr)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                return action()
            except UserError as error:
                print(f"{command}: {error}", file=sys.stderr)
                return USER_ERROR_EXIT
    finally:
        out.finish()
        err.finish()


class _Relay:
    """A command elsewhere whose lines come out here, with the machine's name."""

    def __init__(
        self, host: HostConfig, command: str, args: Sequence[str], timeout_s: float | None
    ) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._started_s = time.monotonic()
        self._err = _Lines(host.name, sys.stderr)
        self._threads: list[threading.Thread] = []
        self._ssh: SshCommand | None = None
        try:
            self._ssh = SshCommand(host, command, args, captured=True)
        except HostUnreachable as error:
            self._tell(error)
            return
        process = self._ssh.process
        pipes = ((process.stdout, _Lines(host.name, sys.stdout)), (process.stderr, self._err))
        for pipe, lines in pipes:
            self._threads.append(threading.Thread(target=_relay_lines, args=(pipe, lines)))
            self._threads[-1].start()

    def tell_to_end(self) -> None:
        """Lets the command know that it is to end."""
        if self._ssh is not None:
            self._ssh.tell_to_end()

    def status(self) -> int:
        """Waits for the command and its output; 2 where it could not be run."""
        if self._ssh is None:
            return USER_ERROR_EXIT
        left_s = self._timeout_s
        if left_s is not None:
            left_s += self._started_s - time.monotonic()
        try:
            if not self._ssh.ends_within(left_s):
                raise self._ssh.timed_out(self._timeout_s)
            status = self._ssh.exit_status()
            self._join()
        except HostUnreachable as error:
            self._join()
            self._tell(error)
            status = USER_ERROR_EXIT
        return status

    def close(self) -> None:
        """Ends the command, if it still runs, and what belongs to it."""
        if self._ssh is not None:
            self._ssh.end()
            self._join()
            self._ssh.close()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _tell(self, error: HostUnreachable) -> None:
        self._err.write(f"{self._command}: {error}\n")


def _relay_lines(pipe: IO[str], lines: _Lines) -> None:
    try:
        for line in pipe:
            lines.write(line)
        lines.finish()
    except OSError:  # nobody reads here any more; the command there need not wait for that
        for _ in pipe:
            pass


@contextlib.contextmanager
def _started_together(
    calls: Sequence[tuple[HostConfig, str, list[str]]], timeout_s: float | None
) -> Iterator[list[_Relay]]:
    """Commands on several other machines. Ctrl-C tells them to end; none runs afterwards."""
    relays: list[_Relay] = []
    with contextlib.ExitStack() as stack, _ctrl_c_ends(relays):
        for host, command, args in calls:
            relays.append(_Relay(host, command, args, timeout_s))
            stack.callback(relays[-1].close)
        yield relays


@contextlib.contextmanager
def _ctrl_c_ends(relays: list[_Relay]) -> Iterator[None]:
    """Within it, Ctrl-C first tells the commands elsewhere, then does what it did before."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        for relay in relays:
            relay.tell_to_end()
        before(number, frame)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
