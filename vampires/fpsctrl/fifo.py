"""The FIFO through which scripts send command lines to milk-fpsCTRL."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
from pathlib import Path
from typing import Protocol

from vampires.fpsctrl.command_lines import FPSCommands, LineSplitter

READ_BYTES = 65536
MODE = 0o600  # whoever writes there controls our processes


class FifoError(Exception):
    """The FIFO cannot be used; the text says why and what to do."""


class Stop(Protocol):
    """Set when reading is to end; its descriptor is readable then."""

    def is_set(self) -> bool: ...

    def fileno(self) -> int: ...


class Fifo:
    """A FIFO open for reading; made if it is not there, and then removed at the end.

    Held open for writing as well: so writers never wait for a reader, and the end of one of
    them is no end of file. One reader at a time; raises FifoError. A context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = self._make()
        try:
            self._fd = self._open()
        except BaseException:
            if self._made:
                path.unlink(missing_ok=True)
            raise

    def _make(self) -> bool:
        try:
            os.mkfifo(self.path, MODE)
            return True
        except FileExistsError:
            return False
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise FifoError(f"cannot make the FIFO {self.path}: {why}") from None

    def _open(self) -> int:
        try:
            if not stat.S_ISFIFO(os.stat(self.path).st_mode):
                raise FifoError(f"{self.path} is no FIFO; remove it or name another")
            fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise FifoError(f"cannot open the FIFO {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise FifoError(
                f"another milk-fpsCTRL reads {self.path}; end it or name another FIFO"
            ) from None
        return fd

    def fileno(self) -> int:
        """The descriptor; readable when there are bytes."""
        return self._fd

    def read(self) -> bytes:
        """Bytes that are there; none when there are none."""
        try:
            return os.read(self._fd, READ_BYTES)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise FifoError(f"cannot read {self.path}: {error.strerror}") from None
            return b""

    def close(self) -> None:
        """Closes it, and removes it if it was made here and is still that one."""
        if self._made:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self.path), os.fstat(self._fd)):
                    os.unlink(self.path)
        os.close(self._fd)

    def __enter__(self) -> Fifo:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(fifo: Fifo, commands: FPSCommands, stop: Stop) -> None:
    """Runs the command lines that come, until stop is set or one says exit.

    While one is under way the next wait in the FIFO; that has room for 64 KiB.
    """
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    poll.register(stop.fileno(), select.POLLIN)
    splitter = LineSplitter()
    while not stop.is_set() and not commands.ended:
        poll.poll()
        for line in splitter.feed(fifo.read()):
            if stop.is_set() or commands.ended:
                return
            commands.run(line)
