"""What a look at the folders has found: values, for the panel and for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vampires.disk_room import RoomLevel
from vampires.fitswatch.facts import FileFacts
from vampires.fitswatch.room import DiskState, GrowingCube
from vampires.times import iso_utc


@dataclass(frozen=True)
class FileView:
    """A file to be shown. arrives: it is still being written, so nothing is judged yet;
    partner: the camera that has no cube of its time, else empty."""

    folder: str
    facts: FileFacts
    arrives: bool = False
    partner: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What it is chosen by."""
        return self.folder, self.facts.name

    @property
    def is_bad(self) -> bool:
        """Frames are lost, or the file is."""
        return bool(self.facts.lost or (self.facts.failures and not self.arrives))

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        facts = self.facts
        return {
            "name": facts.name,
            "bytes": facts.stamp.size,
            "shape": list(facts.shape) if facts.shape else None,
            "data_type": facts.data_type,
            "object": facts.object,
            "begin": iso_utc(facts.begin_ns) if facts.begin_ns else None,
            "end": iso_utc(facts.end_ns) if facts.begin_ns else None,
            "complete": not self.arrives,
            "lost": facts.lost,
            "torn": facts.torn,
            "failures": [] if self.arrives else list(facts.failures or ()),
            "header_faults": [
                {"keyword": f.keyword, "text": f.text, "level": f.level} for f in facts.faults
            ],
            "no_partner_of": self.partner or None,
        }


@dataclass(frozen=True)
class FolderView:
    """A folder. bad_files, lost: over all its files that were read so far; files: the newest,
    and after them the last ones that are bad; age_s: of the newest when one is overdue, else 0;
    usual_s: the usual time between two; fault: why the folder cannot be listed."""

    path: str
    count: int
    total_bytes: int
    files: tuple[FileView, ...] = ()
    growing: tuple[GrowingCube, ...] = ()
    bad_files: int = 0
    lost: int = 0
    age_s: float = 0.0
    usual_s: float = 0.0
    fault: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "folder": self.path,
            "files": self.count,
            "bytes": self.total_bytes,
            "bad_files": self.bad_files,
            "lost": self.lost,
            "overdue_s": round(self.age_s, 1) or None,
            "fault": self.fault,
            "newest": [view.as_dict() for view in self.files],
            "growing": [
                {
                    "stream": cube.stream,
                    "begin": iso_utc(cube.first_ns),
                    "frames": cube.frames,
                    "planned_frames": cube.planned or None,
                    "rate_hz": round(cube.rate_hz, 3) if cube.rate_hz >= 0 else None,
                    "state": "left" if cube.is_left else "writing",
                }
                for cube in self.growing
            ],
        }


@dataclass(frozen=True)
class Snapshot:
    """Everything that was seen in one look. unread: files whose headers were not read yet;
    new_losses: bad files that came since the last look."""

    folders: tuple[FolderView, ...]
    disks: tuple[DiskState, ...] = ()
    missing: tuple[str, ...] = ()  # patterns, when no folder matches any
    unread: int = 0
    new_losses: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "folders": [folder.as_dict() for folder in self.folders],
            "disks": [
                {
                    "folder": disk.folder,
                    "free_bytes": disk.room.free_bytes,
                    "read_only": disk.room.read_only,
                    "bytes_per_s": round(disk.bytes_per_s),
                    "level": disk.level.value,
                }
                for disk in self.disks
            ],
        }

    @property
    def pressing_disks(self) -> tuple[DiskState, ...]:
        """The disks that matter now."""
        return tuple(
            disk
            for disk in self.disks
            if disk.level is not RoomLevel.OK or (disk.room.read_only and disk.bytes_per_s > 0)
        )
