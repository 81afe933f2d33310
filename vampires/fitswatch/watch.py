"""The watched folders: what is in them, kept up to date by small steps.

For one thread. `refresh` looks for changes, `read` reads headers for so long as it is given,
`snapshot` says what is known.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence

from vampires.fitswatch.facts import FileFacts, read_facts
from vampires.fitswatch.globs import FolderGlobs
from vampires.fitswatch.listing import FileStamp, FolderListing, stream_of
from vampires.fitswatch.partners import Recorded, Span, lacks_partner, partner_stream
from vampires.fitswatch.room import WINDOW_S, GrowingCubes, disk_states
from vampires.fitswatch.snapshot import FileView, FolderView, Snapshot
from vampires.times import SECOND_NS

# So long after the last write a file is taken as complete, unless it looks complete before.
SETTLE_NS = 2 * SECOND_NS
BAD_SHOWN = 2  # bad files shown besides the newest
USUAL_OF = 8  # files whose distances tell the usual one
OVERDUE_FACTOR, OVERDUE_SLACK_S = 1.5, 3.0


class WatchedFolder:
    """A folder, and the facts of its files that were read."""

    def __init__(self, path: str) -> None:
        self.listing = FolderListing(path)
        self.facts: dict[str, FileFacts] = {}
        self.unread: deque[str] = deque()
        self.arriving: dict[str, tuple[FileStamp, float]] = {}  # since when it has that stamp
        self.bad: set[str] = set()
        self.spans: dict[str, Span] = {}
        self.version = 0  # of facts

    def relisted(self) -> None:
        """Takes over a new listing."""
        self._forget(self.facts.keys() - self.listing.files.keys())
        new = [n for n, s in self.listing.files.items() if not self._is_known(n, s)]
        new.sort(key=self.listing.order_of, reverse=True)
        self.unread = deque(new)

    def looked_at(self, names: Iterable[str]) -> None:
        """Takes over what the listing says of some names."""
        files = self.listing.files
        for name in names:
            if name not in files:
                self._forget([name])
            elif not self._is_known(name, files[name]) and name not in self.unread:
                self.unread.appendleft(name)

    def read(self, name: str, *, check: bool) -> bool:
        """Reads a file if it has to be; whether it has newly shown a loss or a failure."""
        stamp = self.listing.files.get(name)
        known = self.facts.get(name)
        if stamp is None:
            return False
        if known is not None and known.stamp == stamp and (known.is_checked or not check):
            return False
        was_bad = name in self.bad
        facts = read_facts(self.listing.path, name, stamp, check=check)
        self._keep(facts)
        return name in self.bad and not was_bad

    def settle(self, now_ns: int) -> list[str]:
        """Looks again at files that were not complete; those that are to be read again."""
        due = []
        for name, (stamp, since) in list(self.arriving.items()):
            self.listing.look_at(name)
            current = self.listing.files.get(name)
            if current is None:
                self._forget([name])
            elif current != stamp:
                self.arriving[name] = (current, time.monotonic())
                due.append(name)
            elif self._is_settled(current, since, now_ns):
                del self.arriving[name]
                due.append(name)
        for name in due:  # read anew, with what came since
            self.facts.pop(name, None)
        return due

    def _keep(self, facts: FileFacts) -> None:
        name = facts.name
        self.facts[name] = facts
        self.version += 1
        self.spans.pop(name, None)
        if facts.begin_ns:
            self.spans[name] = Span(facts.begin_ns, facts.end_ns)
        failed = bool(facts.failures or facts.structure)
        now = time.monotonic()
        _, since = self.arriving.get(name, (facts.stamp, now))
        if failed and not self._is_settled(facts.stamp, since, time.time_ns()):
            self.arriving.setdefault(name, (facts.stamp, now))
            failed = False
        else:
            self.arriving.pop(name, None)
        (self.bad.add if facts.lost or failed else self.bad.discard)(name)

    def _is_settled(self, stamp: FileStamp, since: float, now_ns: int) -> bool:
        waited = (time.monotonic() - since) * SECOND_NS >= SETTLE_NS
        return waited or abs(now_ns - stamp.mtime_ns) >= SETTLE_NS

    def _is_known(self, name: str, stamp: FileStamp) -> bool:
        known = self.facts.get(name)
        return known is not None and known.stamp == stamp

    def _forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            self.facts.pop(name, None)
            self.arriving.pop(name, None)
            self.spans.pop(name, None)
            self.bad.discard(name)
        self.version += 1


class FitsWatch:
    """All folders that match the patterns; newest: how many files of each are shown."""

    def __init__(self, patterns: Sequence[str], newest: int = 2) -> None:
        self.globs = FolderGlobs(patterns)
        self.newest = newest
        self.folders: dict[str, WatchedFolder] = {}
        self._growing = GrowingCubes()
        self._speeds: deque[tuple[float, dict[str, float]]] = deque()
        self._new_losses = 0
        self._recorded: dict[str, tuple[object, Recorded]] = {}
        self._at_start = True

    # -- looking for changes ------------------------------------------------------------------

    def rescan(self) -> tuple[list[str], list[str]]:
        """Looks for folders; those that are new, and those that are gone."""
        found = self.globs.folders()
        gone = [path for path in self.folders if path not in found]
        new = [path for path in found if path not in self.folders]
        for path in gone:
            self._growing.forget(path)
        self.folders = {p: self.folders.get(p) or WatchedFolder(p) for p in found}
        for path in new:
            self.relist(path)
        return new, gone

    def relist(self, path: str, *, if_changed: bool = False) -> bool:
        """Lists a folder (if_changed: when its time has changed); whether anything is other."""
        folder = self.folders[path]
        now_ns = time.time_ns()
        changed = (
            folder.listing.relist_if_changed(now_ns) if if_changed else folder.listing.relist()
        )
        if changed:
            folder.relisted()
        return changed

    def look_at(self, path: str, names: Iterable[str]) -> bool:
        """Looks at some names in a folder; whether anything is other."""
        folder = self.folders[path]
        changed = [name for name in names if folder.listing.look_at(name)]
        folder.looked_at([name for name in changed if not name.startswith(".")])
        return bool(changed)

    def look_at_growing(self) -> None:
        """The growing cubes and the disks' rates; about once a second."""
        speeds = {}
        for path, folder in self.folders.items():
            self._growing.look(path, folder.listing.growing)
            speeds[path] = sum(cube.bytes_per_s for cube in self._growing.in_folder(path))
        now = time.monotonic()
        self._speeds.append((now, speeds))
        while self._speeds[0][0] < now - WINDOW_S:
            self._speeds.popleft()

    # -- reading ------------------------------------------------------------------------------

    def read(self, budget_s: float) -> int:
        """Reads headers, first of the files shown, for about so long; how many are left."""
        end = time.monotonic() + budget_s
        for folder in self.folders.values():
            again = folder.settle(time.time_ns())
            for name in [*again, *folder.listing.newest(self.newest), *self._bad_shown(folder)]:
                self._read(folder, name, check=True)
        for folder in self.folders.values():
            while folder.unread and time.monotonic() < end:
                self._read(folder, folder.unread.popleft(), check=False)
        left = sum(len(folder.unread) for folder in self.folders.values())
        self._at_start = self._at_start and left > 0
        return left

    def _read(self, folder: WatchedFolder, name: str, *, check: bool) -> None:
        if folder.read(name, check=check) and not self._at_start:
            self._new_losses += 1

    def _bad_shown(self, folder: WatchedFolder) -> list[str]:
        """Bad files to be shown besides the newest, the newest first."""
        newest = set(folder.listing.newest(self.newest))
        older = [n for n in folder.bad if n not in newest and n in folder.listing.files]
        return heapq.nlargest(BAD_SHOWN, older, key=folder.listing.order_of)

    # -- what is known ------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What is known now. The losses in it are new once."""
        now_ns = time.time_ns()
        losses, self._new_losses = self._new_losses, 0
        views = tuple(self._folder_view(path, now_ns) for path in self.folders)
        return Snapshot(
            views,
            tuple(disk_states(self._present_speeds())),
            () if self.folders else tuple(self.globs.patterns),
            sum(len(folder.unread) for folder in self.folders.values()),
            losses,
        )

    def _present_speeds(self) -> dict[str, float]:
        """The highest of the last seconds: between two cubes nothing grows."""
        speeds = dict.fromkeys(self.folders, 0.0)
        for _, seen in self._speeds:
            for path, speed in seen.items():
                if path in speeds:
                    speeds[path] = max(speeds[path], speed)
        return speeds

    def _folder_view(self, path: str, now_ns: int) -> FolderView:
        folder = self.folders[path]
        listing = folder.listing
        names = [*listing.newest(self.newest), *self._bad_shown(folder)]
        known = [folder.facts[name] for name in names if name in folder.facts]
        usual_s = self._usual_s(listing)
        growing = tuple(self._growing.in_folder(path))
        writing_since = [cube.first_ns for cube in growing if not cube.is_left]
        age_s = 0.0
        if writing_since and usual_s:
            since_ns = max(listing.newest_mtime_ns(), min(writing_since))
            waited_s = (now_ns - since_ns) / SECOND_NS
            if waited_s > OVERDUE_FACTOR * usual_s + OVERDUE_SLACK_S:
                age_s = (now_ns - listing.newest_mtime_ns()) / SECOND_NS
        return FolderView(
            path,
            len(listing.files),
            listing.total_bytes,
            tuple(self._file_view(folder, facts, now_ns) for facts in known),
            growing,
            len(folder.bad),
            sum(folder.facts[name].lost for name in folder.bad if name in folder.facts),
            age_s,
            usual_s,
            listing.fault,
        )

    def _usual_s(self, listing: FolderListing) -> float:
        """The usual time between two files; 0 with too few of them."""
        times = [listing.order_of(name) for name in listing.newest(USUAL_OF)]
        steps = sorted(a - b for a, b in itertools.pairwise(times))
        return steps[len(steps) // 2] / SECOND_NS if len(steps) >= 2 else 0.0

    def _file_view(self, folder: WatchedFolder, facts: FileFacts, now_ns: int) -> FileView:
        arrives = facts.name in folder.arriving
        partner = "" if arrives else self._missing_partner(facts, now_ns)
        return FileView(folder.listing.path, facts, arrives, partner)

    def _missing_partner(self, facts: FileFacts, now_ns: int) -> str:
        """The camera that should have a cube of the same time and has none; else empty."""
        stream = stream_of(facts.name)
        other = partner_stream(stream)
        if not other or not facts.begin_ns:
            return ""
        theirs = [folder for folder in self.folders.values() if self._holds(folder, other)]
        if not theirs or any(folder.unread for folder in theirs):
            return ""
        growing = [
            Span(cube.first_ns, now_ns)
            for folder in theirs
            for cube in self._growing.in_folder(folder.listing.path)
            if cube.stream == other and not cube.is_left
        ]
        span = Span(facts.begin_ns, facts.end_ns)
        begun = [cube for cube in growing if cube.begin_ns <= span.end_ns]
        recorded = self._recorded_by(other, theirs)
        if begun and Recorded([], begun).covers(span):
            return ""
        lacks = lacks_partner(span, recorded, now_ns, growing=bool(begun))
        return other if lacks else ""

    @staticmethod
    def _holds(folder: WatchedFolder, stream: str) -> bool:
        path = folder.listing.path
        return path.rpartition("/")[2] == stream or any(
            stream_of(name) == stream for name in folder.listing.newest(USUAL_OF)
        )

    def _recorded_by(self, stream: str, folders: Sequence[WatchedFolder]) -> Recorded:
        version = tuple((folder.listing.path, folder.version) for folder in folders)
        before = self._recorded.get(stream)
        if before is not None and before[0] == version:
            return before[1]
        spans = (
            span
            for folder in folders
            for name, span in folder.spans.items()
            if stream_of(name) == stream
        )
        recorded = Recorded(spans)
        self._recorded[stream] = (version, recorded)
        return recorded
