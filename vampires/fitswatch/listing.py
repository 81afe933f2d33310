"""The names in one folder: FITS files and the cubes that grow, without opening any of them."""

from __future__ import annotations

import heapq
import os
import re
import stat
from dataclasses import dataclass

from vampires.times import DAY_NS, SECOND_NS

SUFFIXES = (".fits", ".fits.fz")
GROWING_SUFFIX = ".cube"  # of cube_names.hidden_names
# The time of a folder moves with every change of a name in it, by ticks of the kernel's clock.
TICK_NS = 2 * SECOND_NS
SORTED_AT_ONCE = 16  # newest files that are known without sorting again

_STAMP = re.compile(
    r"(?P<stream>[A-Za-z0-9]+)_([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.(\d{9})\.fits(?:\.fz)?",
    re.ASCII,
)


@dataclass(frozen=True)
class FileStamp:
    """What tells a file from an earlier one of its name. ``dangling``: a link to nowhere."""

    size: int
    mtime_ns: int
    inode: int
    dangling: bool = False


def stream_of(name: str) -> str:
    """The stream that the name of a cube tells; empty for another file."""
    found = _STAMP.fullmatch(name)
    return found["stream"] if found else ""


def order_ns(name: str, mtime_ns: int) -> int:
    """When a file began, for the order of files; ns UTC.

    The name of a cube tells the time of the day of its first frame, the last write the day: a
    cube that was compressed or copied later keeps its place. Of other files the last write.
    """
    found = _STAMP.fullmatch(name)
    if found is None:
        return mtime_ns
    hour, minute, second, ns = map(int, found.groups()[1:])
    of_day_ns = ((hour * 60 + minute) * 60 + second) * SECOND_NS + ns
    return mtime_ns - (mtime_ns - of_day_ns) % DAY_NS


class FolderListing:
    """The files of a folder, kept up to date name by name or by listing it again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, FileStamp] = {}
        self.growing: set[str] = set()
        self.total_bytes = 0
        self.fault = ""  # why it cannot be listed; then the files are those of before
        self._order: dict[str, int] = {}
        self._newest: list[str] | None = None
        self._folder_stamp: tuple[int, int] = (-1, -1)
        self._listed_ns = 0

    def newest(self, count: int) -> list[str]:
        """The names of the newest files, the newest first."""
        if self._newest is None or len(self._newest) < min(count, len(self.files)):
            wanted = max(count, SORTED_AT_ONCE)
            self._newest = heapq.nlargest(wanted, self.files, key=self._sort_key)
        return self._newest[:count]

    def _sort_key(self, name: str) -> tuple[int, str]:
        return self._order[name], name

    def order_of(self, name: str) -> int:
        """When a listed file began, ns UTC; see order_ns."""
        return self._order[name]

    def newest_mtime_ns(self) -> int:
        """When the newest file was written last; 0 without files."""
        newest = self.newest(1)
        return self.files[newest[0]].mtime_ns if newest else 0

    def relist_if_changed(self, now_ns: int) -> bool:
        """Lists the folder when its time says that a name in it has changed; whether it did."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            self.fault = error.strerror or str(error)
            return False
        # A change in the same tick as the last listing leaves the time as it was.
        quiet = self._listed_ns - found.st_mtime_ns > TICK_NS
        if quiet and self._folder_stamp == (found.st_mtime_ns, found.st_ino):
            return False
        self._folder_stamp = (found.st_mtime_ns, found.st_ino)
        self._listed_ns = now_ns
        return self.relist()

    def relist(self) -> bool:
        """Lists the folder; whether anything is new, gone or other than before."""
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if _is_watched(entry.name)]
        except OSError as error:
            self.fault = error.strerror or str(error)
            return False
        self.fault = ""
        changed = False
        for name in (self.files.keys() | self.growing) - set(names):
            changed |= self._drop(name)
        for name in names:
            changed |= self.look_at(name)
        return changed

    def look_at(self, name: str) -> bool:
        """Looks at one name; whether it is new, gone or other than before."""
        if not _is_watched(name):
            return False
        stamp = self._stamp(name)
        if stamp is None:
            return self._drop(name)
        if name.startswith("."):
            new = name not in self.growing
            self.growing.add(name)
            return new
        if self.files.get(name) == stamp:
            return False
        self._drop(name)
        self._newest = None
        self.files[name] = stamp
        self._order[name] = order_ns(name, stamp.mtime_ns)
        self.total_bytes += stamp.size
        return True

    def _drop(self, name: str) -> bool:
        """Forgets a name; whether it was there."""
        if name in self.growing:
            self.growing.discard(name)
            return True
        before = self.files.pop(name, None)
        self._order.pop(name, None)
        if before is not None:
            self._newest = None
            self.total_bytes -= before.size
        return before is not None

    def _stamp(self, name: str) -> FileStamp | None:
        """None: no file of that name, or something that is none (a folder, a pipe)."""
        path = os.path.join(self.path, name)
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            try:
                link = os.lstat(path)
            except (OSError, ValueError):
                return None
            if not stat.S_ISLNK(link.st_mode):
                return None
            return FileStamp(0, link.st_mtime_ns, link.st_ino, dangling=True)
        if not stat.S_ISREG(found.st_mode):
            return None
        return FileStamp(found.st_size, found.st_mtime_ns, found.st_ino)


def _is_watched(name: str) -> bool:
    if name.startswith("."):
        return name.endswith(GROWING_SUFFIX)
    return name.endswith(SUFFIXES)
