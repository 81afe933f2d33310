"""What the commands share: one-line errors, signals that stop cleanly, sizes such as 4GiB."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from types import FrameType
from typing import NoReturn, Protocol

from vampires.closing import Closing

USER_ERROR_EXIT = 2
INTERRUPTED_EXIT = 130  # as shells report a command that Ctrl-C ended
BROKEN_PIPE_EXIT = 141  # as shells report a command that SIGPIPE ended


class Main(Protocol):
    """main(argv) of a command; argv None means that of the process. Returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class UserError(Exception):
    """A mistake of the user. The text is one line: what was found, expected, and what to do."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors: one line, without the usage.

    Help shows the defaults and keeps the line breaks of description and epilog.
    """

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n{example}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


class _HelpFormatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """Shows the defaults, where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def user_errors(prog: str) -> Callable[[Main], Main]:
    """Decorates a main(argv): a UserError becomes one line on stderr and exit code 2, Ctrl-C
    exit code 130 without a word, a pipe that nobody reads any more 141."""

    def decorate(body: Main) -> Main:
        @functools.wraps(body)
        def main(argv: Sequence[str] | None = None) -> int:
            try:
                try:
                    return body(argv)
                finally:
                    _flush_output()
            except UserError as error:
                print(f"{prog}: {error}", file=sys.stderr)
                return USER_ERROR_EXIT
            except KeyboardInterrupt:
                return INTERRUPTED_EXIT
            except BrokenPipeError:  # whoever read this (head, less) has seen enough
                _drop_output()
                return BROKEN_PIPE_EXIT

        return main

    return decorate


def _flush_output() -> None:
    """What was printed goes out now, where it can still be told that it does not. Raises
    BrokenPipeError, UserError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise UserError(f"the output could not be written: {error.strerror}") from None


def _drop_output() -> None:
    """Python would try once more at its end, and say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class StopEvent(Closing):
    """A threading.Event that a signal handler may set while the same thread waits for it.

    (threading.Event holds a lock in wait() that set() would need in the handler.) Also a file
    descriptor, readable once set, for select and poll. A context manager; close() ends its use.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_set = False
        self.signal_number = 0
        """Of the signal that set it, 0 for none."""

    def set(self) -> None:
        """Sets the event for good and wakes whoever waits."""
        self._is_set = True
        os.eventfd_write(self._fd, 1)

    def is_set(self) -> bool:
        """Whether the event was set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the event is set, at most timeout seconds; returns is_set()."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll(None if timeout is None else max(0.0, timeout * 1e3))
        return self._is_set

    def fileno(self) -> int:
        """A descriptor that is readable once the event is set."""
        return self._fd

    def close(self) -> None:
        """Closes the descriptor; the event must not be used afterwards."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def setup_signals() -> Iterator[StopEvent]:
    """Ctrl-C (SIGINT), SIGTERM and a closed terminal (SIGHUP) set the StopEvent it yields.

    For the main thread. A SIGHUP that the parent had ignored (nohup) stays ignored. The
    handlers from before are back at the end.
    """
    stop_signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        stop_signals.append(signal.SIGHUP)
    with StopEvent() as stop:

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.signal_number = stop.signal_number or number
            stop.set()

        before = {number: signal.signal(number, on_signal) for number in stop_signals}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_BYTE_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Bytes of a size such as 4GiB, 1.5GB, 500 MB or 4096, for argparse's type=.

    Units of 1000 (kB, MB, GB, TB) and of 1024 (KiB, MiB, GiB, TiB), in any case; fractions of
    a byte are cut. ArgumentTypeError for anything else.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    unit = _BYTE_UNITS.get(found.group(2).upper()) if found else None
    if found is None or unit is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: expected a number and a unit, as in 4GiB, 500MB or 4096"
        )
    return int(Fraction(found.group(1)) * unit)


def number_in(
    kind: Callable[[str], float], least: float, *, above: bool = False
) -> Callable[[str], float]:
    """A type= for argparse: a finite number of a kind (int, float), at least `least`.

    above: `least` itself is too small as well.
    """
    noun = "whole number" if kind is int else "number"
    bound = f"above {least}" if above else f"of {least} or more"

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = float("nan")
        if not (least < number < float("inf") or (number == least and not above)):
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a {noun} {bound}")
        return number

    return parse
