"""What the kernel tells of changes in folders: inotify(7), through the C library.

It tells of changes made on this machine; those that another machine makes on a network disk
are not told.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x2000, 0x4000, 0x8000, 0x1000000

NAMES_CHANGE = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
FOLDER_GONE = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, bytes of the name that follows
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class FolderEvent:
    """A change: the number of the watch, bits of the mask, and the name in the folder."""

    watch: int
    mask: int
    name: str


class Inotify:
    """Watched folders. A descriptor, readable when something has changed."""

    def __init__(self) -> None:
        """Raises OSError: this user has too many already, or the kernel has none."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._fd

    def watch(self, folder: str) -> int:
        """Watches a folder; the number of the watch. Raises OSError."""
        mask = NAMES_CHANGE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
        return self._checked(
            self._libc.inotify_add_watch(self._fd, os.fsencode(folder), ctypes.c_uint32(mask))
        )

    def forget(self, watch: int) -> None:
        """Ends a watch; nothing when it has ended by itself."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def events(self) -> list[FolderEvent]:
        """What has changed since the last call; does not wait."""
        found: list[FolderEvent] = []
        while True:
            try:
                raw = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return found
            at = 0
            while at < len(raw):
                watch, mask, _, name_bytes = _EVENT.unpack_from(raw, at)
                at += _EVENT.size
                name = os.fsdecode(raw[at : at + name_bytes].rstrip(b"\0"))
                found.append(FolderEvent(watch, mask, name))
                at += name_bytes

    def close(self) -> None:
        """Ends all watches."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
