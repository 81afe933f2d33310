"""The directories that cubes may go to, in order, and which of them has room.

Cubes go to one directory until it has no room for another, or fails; then to the next of the
list, and after the last to the first again. So nothing goes back to an earlier disk as soon as
somebody deletes a file there: only a new session, or another list, begins with the first.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vampires import _core
from vampires.disk_room import bytes_text, disk_room, mount_of, mount_points

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How long a disk that failed is left alone while another one takes the cubes.
AVOIDED_S = 60.0
# A file of less than this part of a cube is not worth beginning while frames can wait.
SMALLEST_PART = 10
# What the header of a cube needs, before it is known.
USUAL_HEADER_BYTES = 64 << 10


@dataclass(frozen=True)
class Choice:
    """A directory and the number of frames of a cube that its disk has room for."""

    root: Path
    fits: int


class LogVolumes:
    """A list of directories, used in order. One thread uses it."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(dict.fromkeys(roots))
        self._current = 0
        self._avoided: dict[Path, float] = {}
        self._mounts: dict[Path, str] = {}

    @property
    def current(self) -> Path:
        return self.roots[self._current]

    def use(self, root: Path) -> None:
        """Cubes go there from now on."""
        self._current = self.roots.index(root)

    def avoid(self, root: Path) -> None:
        """It failed: the others are tried first for a while."""
        self._avoided[root] = time.monotonic() + AVOIDED_S

    def in_order(self) -> list[Path]:
        """From the one in use on; those that failed lately last."""
        now = time.monotonic()
        roots = [*self.roots[self._current :], *self.roots[: self._current]]
        return sorted(roots, key=lambda root: self._avoided.get(root, 0.0) > now)

    def meet(self) -> None:
        """Notes which disks the directories are on, so that one that goes is missed."""
        mounts = mount_points()
        for root in self.roots:
            self._mounts.setdefault(root, mount_of(os.path.realpath(root), mounts))

    def check_mounted(self, root: Path) -> None:
        """Raises OSError when the disk is no longer mounted: the directory below its mount
        point is on another disk, where nobody expects files."""
        mount = self._mounts.get(root)
        if mount is not None and mount not in mount_points():
            raise OSError(errno.ENODEV, f"the disk at {mount} is not mounted any more")

    def free_bytes(self, root: Path) -> int:
        """Room on the disk of a directory. Raises OSError when it takes no files."""
        self.check_mounted(root)
        return writable_bytes(root)


def writable_bytes(root: Path) -> int:
    """Room on the disk of a directory for this user. Raises OSError where that is read-only."""
    room = disk_room(root)
    if room.read_only:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return room.free_bytes


def frames_that_fit(free_bytes: int, header_bytes: int, frame_bytes: int) -> int:
    """Frames of one cube that find room, with its tables."""
    fixed = _core.cube_room_bytes(header_bytes, frame_bytes, 0)
    each = _core.cube_room_bytes(header_bytes, frame_bytes, 1) - fixed
    return max(0, (free_bytes - fixed) // each)


def chosen(choices: Sequence[Choice], expected: int, captured: int) -> Choice | None:
    """Where a cube goes: to the first that has room for all of it; else, shorter, to the one
    with the most, if that is a fair part of a cube and what was captured of it fits."""
    for choice in choices:
        if choice.fits >= expected:
            return Choice(choice.root, expected)
    most = max(choices, key=lambda choice: choice.fits, default=None)
    least = max(captured + 1, -(-expected // SMALLEST_PART))
    return most if most is not None and most.fits >= least else None


def room_fault(roots: Sequence[Path], frame_bytes: int, frames: int) -> str:
    """Why no directory can take one cube of so many frames; empty: one can.

    It asks every disk until one has room, and may wait for one that hangs.
    """
    found: dict[Path, int | str] = {}
    for root in roots:
        try:
            found[root] = writable_bytes(root)
        except OSError as error:
            found[root] = error.strerror or str(error)
        if not fault_of_room(found, frame_bytes, frames):
            return ""
    return fault_of_room(found, frame_bytes, frames)


def fault_of_room(found: dict[Path, int | str], frame_bytes: int, frames: int) -> str:
    """As room_fault, for what was found: bytes free, or why the directory takes no files."""
    needed = _core.cube_room_bytes(USUAL_HEADER_BYTES, frame_bytes, frames)
    if not frame_bytes or not found:
        return ""
    if any(isinstance(free, int) and free >= needed for free in found.values()):
        return ""
    told = [
        f"{root} has {bytes_text(free)} free" if isinstance(free, int) else f"{root}: {free}"
        for root, free in found.items()
    ]
    return (
        f"no room for a cube of {frames} frames ({bytes_text(needed)}): {', '.join(told)}; "
        "delete or move files, choose another directory, or make smaller cubes"
    )
