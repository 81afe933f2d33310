"""The cubes that grow now: how far they are, how fast, and how long the disk lasts."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from vampires.disk_room import DiskRoom, RoomLevel, disk_room, room_level
from vampires.fits_hdus import FitsInvalid, read_primary
from vampires.partial_cubes import ROW_BYTES, PartialCube, partial_cubes
from vampires.times import SECOND_NS

WINDOW_S = 5.0  # over which rates are taken
STALE_S = 3.0  # after so long without a new frame the logger is asked for


@dataclass(frozen=True)
class GrowingCube:
    """A cube without its final name.

    frames: on disk; planned: of the full cube, 0 unknown; rate_hz: frames a second, -1 unknown.
    is_left: its logger has died.
    """

    folder: str
    stream: str
    first_ns: int
    frames: int
    planned: int
    rate_hz: float
    bytes_per_s: float
    is_left: bool


@dataclass(frozen=True)
class DiskState:
    """The disk of some watched folders, and what is written to it now, bytes a second."""

    folder: str
    room: DiskRoom
    bytes_per_s: float

    @property
    def level(self) -> RoomLevel:
        """How urgent it is."""
        return room_level(self.room.free_bytes, self.bytes_per_s)


class _Growth:
    """One hidden cube. samples: when its journal was written (s since 1970), and the frames."""

    def __init__(self, partial: PartialCube) -> None:
        self.partial = partial
        self.planned, self.frame_bytes = _plan(partial.cube)
        self.samples: deque[tuple[float, int]] = deque()
        self.moved_at = time.monotonic()

    def sample(self, now: float) -> None:
        """Takes the number of frames from the size of the journal, at its last write."""
        if self.partial.frames is None:
            return
        try:
            found = os.stat(self.partial.frames)
        except OSError:  # finished just now
            return
        frames, written_s = found.st_size // ROW_BYTES, found.st_mtime_ns / SECOND_NS
        if not self.samples or frames != self.samples[-1][1]:
            self.moved_at = now
            self.samples.append((written_s, frames))
        while len(self.samples) > 2 and self.samples[1][0] <= written_s - WINDOW_S:
            self.samples.popleft()
        if not self.frame_bytes:
            self.planned, self.frame_bytes = _plan(self.partial.cube)

    def frames(self) -> int:
        """The frames on disk."""
        return self.samples[-1][1] if self.samples else self.partial.frames_on_disk

    def rate_hz(self) -> float:
        """Over the window; at first since the beginning of the cube. -1 unknown."""
        if not self.samples:
            return -1.0
        (begin, before), (end, now) = self.samples[0], self.samples[-1]
        if time.monotonic() - self.moved_at > STALE_S + (end - begin) / len(self.samples):
            return 0.0
        if end - begin >= 1.0:
            return (now - before) / (end - begin)
        age_s = end - self.partial.first_ns / SECOND_NS
        return now / age_s if 0 < age_s < 86_400 else -1.0


def _plan(cube: Path | None) -> tuple[int, int]:
    """Planned frames and bytes a frame, by the provisional header; 0, 0 unknown."""
    try:
        header = read_primary(cube) if cube is not None else None
    except (FitsInvalid, OSError):
        return 0, 0
    if header is None or len(header.shape) != 3 or not header.shape[0]:
        return 0, 0
    return header.shape[0], header.data_bytes // header.shape[0]


class GrowingCubes:
    """The growing cubes of the watched folders. Call look() about once a second."""

    def __init__(self) -> None:
        self._growths: dict[str, dict[str, _Growth]] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._asked_at: dict[str, float] = {}

    def look(self, folder: str, names: set[str]) -> None:
        """names: of the hidden cubes in the folder."""
        now = time.monotonic()
        known = self._growths.setdefault(folder, {})
        stale = any(now - growth.moved_at > STALE_S for growth in known.values())
        stale = stale and now - self._asked_at.get(folder, 0.0) > STALE_S
        if names != self._names.get(folder) or stale:
            self._names[folder] = frozenset(names)
            self._ask(folder, known, now)
        for growth in known.values():
            growth.sample(now)

    def _ask(self, folder: str, known: dict[str, _Growth], now: float) -> None:
        """Which cubes there are, and whether their loggers live."""
        self._asked_at[folder] = now
        try:
            partials = partial_cubes(folder) if self._names[folder] or known else []
        except OSError:
            return
        found = {p.cube.name: p for p in partials if p.cube is not None}
        for name in known.keys() - found.keys():
            del known[name]
        for name, partial in found.items():
            if name in known:
                known[name].partial = partial
            else:
                known[name] = _Growth(partial)

    def forget(self, folder: str) -> None:
        """The folder is gone."""
        self._growths.pop(folder, None)
        self._names.pop(folder, None)

    def in_folder(self, folder: str) -> list[GrowingCube]:
        """The growing cubes, the oldest first."""
        now = time.monotonic()
        growing = []
        for growth in self._growths.get(folder, {}).values():
            partial = growth.partial
            is_left = partial.state == "left" and now - growth.moved_at > STALE_S / 2
            rate_hz = 0.0 if is_left else growth.rate_hz()
            growing.append(
                GrowingCube(
                    folder,
                    partial.stream,
                    partial.first_ns,
                    growth.frames(),
                    growth.planned,
                    rate_hz,
                    max(0.0, rate_hz) * growth.frame_bytes,
                    is_left,
                )
            )
        return sorted(growing, key=lambda cube: cube.first_ns)


def disk_states(speeds: dict[str, float]) -> list[DiskState]:
    """The disks of folders, each once; speeds: what is written in a folder, bytes a second."""
    disks: dict[int, tuple[str, float]] = {}
    for folder, speed in speeds.items():
        try:
            device = os.stat(folder).st_dev
        except OSError:
            continue
        first, before = disks.get(device, (folder, 0.0))
        disks[device] = (first, before + speed)
    states = []
    for folder, speed in disks.values():
        try:
            states.append(DiskState(folder, disk_room(folder), speed))
        except OSError:
            continue
    return states
