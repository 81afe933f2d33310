"""The archive of a tree of cubes: what is done, what is to do, and doing it.

The manifest of a folder is the memory: what it lists was checked and is not done again. A file
that has its name but is in no manifest (the run was killed between the two) is checked anew.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vampires.archive_manifest import (
    Entry,
    ManifestInvalid,
    name_fault,
    read_manifest,
    write_manifest,
)
from vampires.archive_pack import PROGRAM_ENDS, PURPOSE, Job, Outcome, pack, remove
from vampires.archive_workers import Workers

LOCK = ".vampires-archive.lock"
_LEFTOVER = re.compile(
    rf"\.{PURPOSE}-[A-Za-z0-9_-]+-[0-9]+-[0-9]+\.part({'|'.join(PROGRAM_ENDS)})?"
)
_WAIT_S = 0.2
_FLUSH_S = 0.5  # a manifest is written this often, and not more than a twentieth of the time


class FolderBusy(Exception):
    """Another archive works on the folder. One line."""


@dataclass
class Folder:
    """A folder of cubes, the folder of its archive, and what the manifest there says."""

    source: Path
    target: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    todo: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)  # archived before, the original still there
    missing: list[str] = field(default_factory=list)  # in the manifest, and no longer there
    unwritten: list[Job] = field(default_factory=list)  # packed, not yet in the manifest

    def job(self, name: str) -> Job:
        return Job(self.source / name, self.target, self.entries.get(name))


@dataclass
class ArchiveResult:
    """What became of the cubes. left: those not archived (or not removed), and why."""

    packed: list[Entry] = field(default_factory=list)
    already: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    left: list[tuple[Path, str]] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def bytes_in(self) -> int:
        return sum(entry.original_bytes for entry in self.packed)

    @property
    def bytes_out(self) -> int:
        return sum(entry.bytes for entry in self.packed)


def find_folders(source: Path, to: Path | None) -> tuple[list[Folder], list[tuple[Path, str]]]:
    """The folders below source that hold cubes or held them, with all that is to do in them,
    and what cannot be looked at with the reason. Reads manifests, writes nothing."""
    folders: list[Folder] = []
    faults: list[tuple[Path, str]] = []

    def unreadable(error: OSError) -> None:
        faults.append((Path(error.filename), error.strerror or str(error)))

    for place, inner, files in os.walk(source, onerror=unreadable):
        inner.sort()
        here = Path(place)
        target = here if to is None else to / here.relative_to(source)
        folder = Folder(here, target)
        try:
            folder.entries = read_manifest(target)
        except (ManifestInvalid, OSError) as error:
            faults.append((here, str(error)))
            continue
        names = sorted(n for n in files if n.endswith(".fits") and not n.startswith("."))
        for name in names:
            _sort_in(folder, name, faults)
        folder.missing = [
            entry.name
            for entry in folder.entries.values()
            if entry.original not in names and not (target / entry.name).exists()
        ]
        if names or folder.entries:
            folders.append(folder)
    return folders, faults


def _sort_in(folder: Folder, name: str, faults: list[tuple[Path, str]]) -> None:
    job = folder.job(name)
    fault = name_fault(name)
    if fault:
        faults.append((job.original, fault))
    elif job.entry is not None and _untouched(job, job.entry):
        folder.done.append(job)
    else:
        folder.todo.append(job)


def _untouched(job: Job, entry: Entry) -> bool:
    """Whether both files have still the size and time of the manifest."""
    try:
        ours, theirs = job.original.lstat(), job.packed.lstat()
    except OSError:
        return False
    return stat.S_ISREG(ours.st_mode) and (
        (ours.st_size, ours.st_mtime_ns, theirs.st_size, theirs.st_mtime_ns)
        == (entry.original_bytes, entry.original_mtime_ns, entry.bytes, entry.mtime_ns)
    )


class Archive:
    """Archives folders. on_outcome: called with each outcome, and now and then with None."""

    def __init__(
        self,
        folders: list[Folder],
        workers: Workers,
        *,
        delete: bool,
        on_outcome: Callable[[Outcome | None], None],
    ) -> None:
        self.result = ArchiveResult()
        self._folders = folders
        self._workers = workers
        self._delete = delete
        self._tell = on_outcome
        self._at_work: dict[Future[Outcome], tuple[Folder, Job]] = {}
        self._removals: list[tuple[Folder, Job]] = []
        self._next_flush_s = 0.0
        self._full: Path | None = None

    def run(self, stopped: Callable[[], bool]) -> ArchiveResult:
        """Does all there is to do, or ends soon after stopped() is true."""
        start_s = time.monotonic()
        with ExitStack() as stack:
            jobs = self._begin(stack)
            try:
                self._work(jobs, stopped)
            finally:
                self._flush()
        self.result.seconds = time.monotonic() - start_s
        return self.result

    def _begin(self, stack: ExitStack) -> Iterator[tuple[Folder, Job]]:
        """Locks the folders; the jobs of those that are ours."""
        ours = []
        for folder in self._folders:
            self.result.already += [job.original for job in folder.done]
            idle = not folder.todo and not (self._delete and folder.done)
            try:
                if idle and not leftovers(folder.target):
                    continue
                folder.target.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder.target))
                remove_leftovers(folder.target)
                folder.entries = read_manifest(folder.target)
            except (FolderBusy, ManifestInvalid, OSError) as error:
                for job in folder.todo + (folder.done if self._delete else []):
                    self._leave(job.original, str(error))
                continue
            ours.append(folder)
            if self._delete:
                self._removals += [(folder, job) for job in folder.done]
        return iter([(f, f.job(job.original.name)) for f in ours for job in f.todo])

    def _work(self, jobs: Iterator[tuple[Folder, Job]], stopped: Callable[[], bool]) -> None:
        more = True
        while more or self._removals or self._at_work:
            if stopped():
                self.result.interrupted = True
                self._workers.stop()
                more = False
                self._removals.clear()
            while len(self._at_work) < 2 * self._workers.at_once:
                if self._removals:
                    self._submit(remove, *self._removals.pop(0))
                    continue
                following = next(jobs, None) if more else None
                if following is None:
                    more = False
                    break
                if self._full is not None:
                    self._leave(following[1].original, f"no room in {self._full}")
                    continue
                self._submit(pack, *following)
            self._collect()

    def _submit(self, act: Callable[..., Outcome], folder: Folder, job: Job) -> None:
        try:
            self._at_work[self._workers.submit(act, job)] = (folder, job)
        except Exception as error:  # the pool broke, the scheduler went away
            text = " ".join(str(error).split()) or type(error).__name__
            self._leave(job.original, f"no worker takes it: {text}")

    def _collect(self) -> None:
        finished, _ = wait(self._at_work, _WAIT_S, FIRST_COMPLETED)
        for future in finished:
            folder, job = self._at_work.pop(future)
            try:
                outcome = future.result()
            except Exception as error:  # of the worker's machine, whatever it was
                text = " ".join(str(error).split()) or type(error).__name__
                outcome = Outcome(job.original, "left", fault=f"its worker failed: {text}")
            self._take(folder, outcome)
        if not finished:
            self._tell(None)
        if not self._at_work or time.monotonic() >= self._next_flush_s:
            begin_s = time.monotonic()
            self._flush()
            end_s = time.monotonic()
            self._next_flush_s = end_s + max(_FLUSH_S, 20 * (end_s - begin_s))

    def _take(self, folder: Folder, outcome: Outcome) -> None:
        if outcome.kind == "stopped":
            return
        if outcome.kind in ("left", "full"):
            if outcome.kind == "full":
                self._full = folder.target
            self._leave(outcome.original, outcome.fault)
            return
        assert outcome.entry is not None
        if outcome.kind == "removed":
            self.result.removed.append(outcome.original)
        else:
            folder.entries[outcome.entry.original] = outcome.entry
            folder.unwritten.append(Job(outcome.original, folder.target, outcome.entry))
            if outcome.kind == "packed":
                self.result.packed.append(outcome.entry)
            else:
                self.result.already.append(outcome.original)
        self._tell(outcome)

    def _flush(self) -> None:
        """Writes the manifests; what is in them may be removed."""
        for folder in self._folders:
            if not folder.unwritten:
                continue
            written, folder.unwritten = folder.unwritten, []
            try:
                write_manifest(folder.target, folder.entries, PURPOSE)
            except OSError as error:
                for job in written:
                    self._leave(job.original, f"its manifest cannot be written: {error}")
                continue
            if self._delete and not self.result.interrupted:
                self._removals += [(folder, job) for job in written]

    def _leave(self, original: Path, fault: str) -> None:
        self.result.left.append((original, fault))
        self._tell(Outcome(original, "left", fault=fault))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder is ours alone among archives. Raises FolderBusy, OSError.

    The lock ends with the process that holds it; its file is removed by whoever held it.
    """
    file = folder / LOCK
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, fd):
                break
        except BlockingIOError:
            os.close(fd)
            raise FolderBusy(f"another vampires-archive works in {folder}") from None
        except OSError:
            os.close(fd)
            raise
        os.close(fd)  # its last holder removed it just now
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(fd)


def _is_at(file: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file))
    except FileNotFoundError:
        return False


def remove_leftovers(folder: Path) -> None:
    """Removes the hidden files of an archive that was killed, in a folder that we locked."""
    for path in leftovers(folder):
        if path.name != LOCK:
            path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Hidden files of an archive in a folder, its lock among them: of one that works there,
    or of one that was killed."""
    with os.scandir(folder) as found:
        return [
            folder / one.name
            for one in found
            if (one.name == LOCK or _LEFTOVER.fullmatch(one.name))
            and one.is_file(follow_symlinks=False)
        ]
