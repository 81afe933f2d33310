"""The file of an FPS: its bytes, read and changed so that nothing a peer does ends the process.

It is read and written with pread and pwrite rather than through a mapping: the kernel keeps
both the same, and a file that somebody truncates is an error here instead of a SIGBUS.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vampires.fps import layout
from vampires.fps.errors import FPSError, FPSInvalid

# How long to wait for another process that changes the same; then on without the lock.
LOCK_PATIENCE_S = 0.1


def write_new(image: bytes | bytearray, path: Path, *, replace: bool) -> None:
    """The file appears complete under its name, or not at all. The name while it is written
    does not hold the suffix: milk-fpsCTRL ends over a file whose name does.

    Raises FileExistsError when there is one and it is not to be replaced; OSError.
    """
    fd, name = tempfile.mkstemp(prefix="fps-new-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(image)
        if replace:
            os.replace(name, path)
        else:
            os.link(name, path)
            os.unlink(name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class FPSFile:
    """An open file of the size that its own header calls for. May be used from threads."""

    def __init__(self, path: Path) -> None:
        """Opens it. Raises FileNotFoundError, FPSInvalid, FPSError."""
        self.path = path
        self._lock = threading.Lock()
        try:
            # What is under that name may be no file; opening it must not hang.
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            self._fd = os.open(path, flags)
        except FileNotFoundError:
            raise
        except PermissionError:
            raise FPSError(f"cannot open {path}: it belongs to {_owner(path)}") from None
        except OSError as error:
            raise FPSError(f"cannot open {path}: {error.strerror}") from None
        try:
            self.slots = self._checked_slots()
        except BaseException:
            self.close()
            raise

    def _checked_slots(self) -> int:
        """How many parameters there is room for, when the size of the file agrees."""
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            raise FPSInvalid(f"{self.path} is no regular file; remove it")
        if found.st_size < layout.HEADER_BYTES:
            raise FPSInvalid(
                f"{self.path} has {found.st_size} bytes, an FPS has at least "
                f"{layout.HEADER_BYTES}; it is truncated or no FPS: remove it"
            )
        (slots,) = self.get(*layout.NBPARAM_MAX)
        expected = layout.file_bytes(slots) if 0 <= slots <= layout.MAX_PARAMETERS else None
        if found.st_size != expected:
            what = f"{expected} for its {slots} parameters" if expected else "another layout"
            raise FPSInvalid(
                f"{self.path} has {found.st_size} bytes, expected {what}; it is truncated or "
                "was written by another version of milk: stop that program and remove the file"
            )
        return int(slots)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def is_current(self) -> bool:
        """Whether the file under its name is still this one."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def owner_uid(self) -> int:
        """The user id of the file's owner."""
        self._check_open()
        return os.fstat(self._fd).st_uid

    def _check_open(self) -> None:
        if self._fd < 0:
            raise FPSError(f"the FPS {self.path.name} is closed; open it again")

    # -- bytes --------------------------------------------------------------------------------

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the file. Raises FPSInvalid when they are not there any more."""
        self._check_open()
        try:
            raw = os.pread(self._fd, size, at)
        except OSError as error:
            raise FPSError(f"cannot read {self.path}: {error.strerror}") from None
        if len(raw) != size:
            raise FPSInvalid(f"{self.path} was truncated while it was in use; remove it")
        return raw

    def write(self, at: int, raw: bytes) -> None:
        """Changes bytes of the file. Raises FPSInvalid when they are not there any more."""
        self._check_open()
        # A write must never make a truncated file look whole again.
        if os.fstat(self._fd).st_size < at + len(raw):
            raise FPSInvalid(f"{self.path} was truncated while it was in use; remove it")
        try:
            os.pwrite(self._fd, raw, at)
        except OSError as error:
            raise FPSError(f"cannot write {self.path}: {error.strerror}") from None

    def get(self, at: int, code: str) -> tuple[Any, ...]:
        """Numbers, by their struct code."""
        return struct.unpack(code, self.read(at, struct.calcsize(code)))

    def put(self, at: int, code: str, *values: int) -> None:
        """Writes numbers, by their struct code."""
        self.write(at, struct.pack(code, *values))

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """One of our processes at a time; one that never lets go is not awaited. milk's
        programs know no lock."""
        with self._lock:
            self._check_open()
            locked = self._try_lock()
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _try_lock(self) -> bool:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
            time.sleep(0.001)

    def change_bits(self, at: int, size: int, on: int, off: int, unless: int = 0) -> int:
        """Changes bits of a number, unless one of `unless` is set; returns what it is then."""
        with self.changing():
            return self.change_bits_locked(at, size, on, off, unless)

    def change_bits_locked(self, at: int, size: int, on: int, off: int, unless: int = 0) -> int:
        """Inside changing(). Byte by byte, and only the bytes concerned: the others have
        writers that take no lock."""
        raw = bytearray(self.read(at, size))
        if int.from_bytes(raw, "little") & unless:
            return int.from_bytes(raw, "little")
        on_bytes, off_bytes = on.to_bytes(size, "little"), off.to_bytes(size, "little")
        for k in range(size):
            changed = (raw[k] | on_bytes[k]) & ~off_bytes[k]
            if changed != raw[k]:
                raw[k] = changed
                self.write(at + k, bytes([changed]))
        return int.from_bytes(raw, "little")


def _owner(path: Path) -> str:
    try:
        uid = path.stat().st_uid
    except OSError:
        return "somebody else"
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}, only they can use it"
    except KeyError:
        return f"user {uid}, only they can use it"
