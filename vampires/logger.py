"""The logger: drives the engine, makes headers and names, finishes the files.

The engine's threads move the pixels; this module runs once when a cube starts and once when it
ends. All of it happens in the one thread that calls Logger.run().
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vampires import _core
from vampires.aux_header import AuxHeader, read_aux_header
from vampires.cube_header import CubeFacts, KeywordChange, cube_header, header_cards_needed
from vampires.cube_names import HiddenNames, cube_folder, final_names, hidden_names
from vampires.frame_table import FRAME_DTYPE, Rows, frames_hdu
from vampires.keywords import decode_keywords
from vampires.open_folder import OpenFolder
from vampires.sidecar import sidecar_text

KEYWORD_BYTES = 128
CARD_BYTES = 80
BLOCK_BYTES = 2880
# Keywords that may come between two looks at the stream have room in the next header.
SPARE_KEYWORDS = 24
HEADER_ROOM_S = 1.0  # between two looks
# How often something that failed (a folder that cannot be written) is tried again.
RETRY_S = 0.25
# After a stop, how long a disk that refuses is waited for.
PATIENCE_S = 2.0
EVENT_WAIT_S = 0.05

_SAID = {
    "memory_full": "ring memory is full: the disk is too slow, frames may be lost now",
    "memory_freed": "ring memory has room again",
    "disk_recovered": "the disk takes data again",
}

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Stop(Protocol):
    """Anything with is_set(), such as threading.Event."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class LoggerConfig:
    """What to log, and where.

    root: files go to root/YYYYMMDD/stream, or into root itself with exact_dir. timeout_s: a
    cube ends when no frame came for so long; 0: never. cubes, frames: stop after so many.
    disk_priority: of the thread that writes; None: one less than rt_priority.

    saving False: frames are saved only from begin_saving() to end_saving(), in sessions; cubes
    and frames then are the limits of each session that is given none of its own.
    """

    stream: str
    root: Path
    shm_dir: Path
    exact_dir: bool = False
    cube_size: int = 1000
    cubes: int | None = None
    frames: int | None = None
    ring_memory_bytes: int = 4 << 30
    timeout_s: float = 10.0
    rt_priority: int = 0
    cpus: tuple[int, ...] = ()
    rolling: bool = False
    tai_offset_ns: int = -1
    saving: bool = True
    disk_priority: int | None = None


@dataclass
class LoggerResult:
    """What became of the frames; frames_seen == frames_logged + lost. bytes: of pixel data in
    the files. seconds: from start to the end of the last file. torn: of the lost, those
    caught half overwritten. files: in order."""

    stream: str
    frames_seen: int = 0
    frames_logged: int = 0
    lost: int = 0
    torn: int = 0
    bytes: int = 0
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """Where cubes go, from the one with this number on."""

    first_cube: int
    root: Path
    exact: bool


@dataclass
class _OpenCube:
    """A cube between its first frame and its final name."""

    index: int
    start: dict[str, Any]
    wanted_folder: Path
    folder: OpenFolder | None = None  # None: it cannot be made, so far
    names: HiddenNames | None = None  # in that folder
    aux: AuxHeader = field(default_factory=AuxHeader)
    is_open: bool = False
    written: bool = False
    retry_at: float = 0.0
    first_failure_at: float | None = None
    date_ns: int = 0

    @property
    def location(self) -> Path:
        """Its folder, for people to read."""
        return self.wanted_folder if self.folder is None else self.folder.location

    def close(self) -> None:
        if self.folder is not None:
            self.folder.close()
        self.folder = self.names = None


class Logger:
    """Logs one stream into FITS cubes until told to stop.

    report: called with one line of text for everything an observer should read. published:
    called with each file that got its name. Both are called in the thread that is in run().
    """

    def __init__(
        self,
        config: LoggerConfig,
        report: Callable[[str], None],
        published: Callable[[Path], None] = lambda file: None,
    ) -> None:
        self.config = config
        self._report = report
        self._published = published
        file = _core.StreamFile.open(os.fspath(config.shm_dir), config.stream)
        header_bytes = self._header_room(file)
        self._engine = _core.LoggerEngine(
            directory=os.fspath(config.shm_dir),
            stream=config.stream,
            cube_size=config.cube_size,
            ring_memory_bytes=config.ring_memory_bytes,
            header_bytes=header_bytes,
            header_keywords=len(file.keywords_raw()) // KEYWORD_BYTES,
            rolling=config.rolling,
            timeout_s=config.timeout_s,
            max_frames=config.frames,
            max_cubes=config.cubes,
            priority=config.rt_priority,
            cpus=list(config.cpus),
            tai_offset_ns=config.tai_offset_ns,
            controlled=not config.saving,
            disk_priority=config.disk_priority,
        )
        if self._engine.lock_note:
            report(self._engine.lock_note)
        self.result = LoggerResult(config.stream)
        # Taken from the left by the thread in run(), added to by any; each step is atomic.
        self._places = deque([_Place(1, config.root, config.exact_dir)])
        self._cubes: dict[int, _OpenCube] = {}
        self._files: list[tuple[int, str]] = []  # (number of the cube, path), in order
        self._finished = False
        self._attached = False  # at any time
        self._header_room_at = time.monotonic()
        self._stopped_at: float | None = None
        self._notes: list[str] = []  # for the next header: losses that no row tells
        self._lost_on_disk = 0  # captured, but in no file
        self._failure = ""
        # Of the cubes that are no longer under way; the thread in run() writes, any reads.
        self._cubes_done = 0
        self._last_file = ""
        self._last_save_s = 0.0

    # -- for whoever runs it ------------------------------------------------------------------

    def run(self, stop: Stop, tick: Callable[[], None] = lambda: None) -> LoggerResult:
        """Logs until stop is set, or the number of cubes or frames is reached.

        tick is called about 20 times a second. All that was captured is in files at the end.
        Raises StreamUnsupported when the stream cannot be logged from the first. May be called
        in any thread, once.
        """
        begun = time.monotonic()
        self._engine.start()
        try:
            while not (self._finished and not self._cubes):
                event = self._engine.next_event(EVENT_WAIT_S)
                if event is not None:
                    self._handle(*event)
                if stop.is_set() and self._stopped_at is None:
                    self._stopped_at = time.monotonic()
                    self._engine.stop()
                if time.monotonic() - self._header_room_at > HEADER_ROOM_S:
                    self._refresh_header_room()
                self._retry()
                self._mind_the_disk()
                self._count()
                tick()
        finally:
            self._shut_down()
        self.result.seconds = time.monotonic() - begun
        self._count()
        return self.result

    def _shut_down(self) -> None:
        """Ends the engine's threads, also those that wait for a cube nobody will open."""
        self._engine.abort()
        self._engine.give_up_disk()
        for cube in list(self._cubes.values()):
            if not cube.is_open:
                self._engine.abandon_cube(cube.index)
            self._forget(cube)
        self._engine.close()

    # -- from any thread, while another is in run() -------------------------------------------

    def begin_saving(
        self, start_ns: int = 0, max_cubes: int | None = None, max_frames: int | None = None
    ) -> bool:
        """Begins a session, of a logger with saving=False.

        start_ns 0: with the first frame published after this call. Else, in ns UTC, with the
        first one acquired at or after it: in the future it is waited for ("armed"); of the
        past also those frames are saved that the stream's ring still holds. The session ends
        by itself after max_cubes cubes or max_frames frames.

        While a session is on this changes nothing; while one is armed the later order holds;
        while one is ending the next begins when it is over. Returns False when too many orders
        wait for the capture thread: try again.
        """
        if self.config.saving:
            raise RuntimeError(
                f"the logger of {self.config.stream} saves from its start to its end; make it "
                "with LoggerConfig(saving=False) to begin and end saving"
            )
        limits = (
            self.config.cubes if max_cubes is None else max_cubes,
            self.config.frames if max_frames is None else max_frames,
        )
        for name, limit in zip(("max_cubes", "max_frames"), limits, strict=True):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is {limit}, expected 1 or more, or None")
        return self._engine.begin_saving(start_ns, *limits)

    def end_saving(self, stop_ns: int = 0, whole_cube: bool = False) -> bool:
        """Ends the session that is on, of a logger with saving=False.

        stop_ns 0: frames published before this call are still saved. Else, in ns UTC, it ends
        with the last frame before the first one acquired at or after it. whole_cube: the cube
        that is under way then is filled first.

        While armed it disarms, unless stop_ns is after the instant it waits for; while off it
        does nothing. Returns False when too many orders wait for the capture thread.
        """
        if self.config.saving:
            raise RuntimeError(
                f"the logger of {self.config.stream} saves from its start to its end; set its "
                "stop event to end it"
            )
        return self._engine.end_saving(stop_ns, whole_cube)

    def next_cube(self) -> None:
        """Ends the current cube; the next frame begins another."""
        self._engine.next_cube()

    def set_cube_size(self, frames: int) -> None:
        """Takes effect with the next cube."""
        self._engine.set_cube_size(frames)

    def set_root(self, root: Path, exact: bool) -> None:
        """Where files go, as LoggerConfig.root and exact_dir; from the next cube on."""
        self._places.append(_Place(self._engine.status()["cubes"] + 1, root, exact))

    def set_timeout(self, seconds: float) -> None:
        """As LoggerConfig.timeout_s; holds at once."""
        self._engine.set_timeout(seconds)

    def status(self) -> dict[str, Any]:
        """What the logger is doing, as it is now.

        Since the start: frames, lost, torn, bytes (of pixels), cubes (begun), bytes_written.
        Of the cube: cube_frames, cube_planned. Of the newest frame saved: last_cnt0,
        last_frame_ns (when it was copied). attached, memory_full, chunks_in_use of chunks,
        disk_errno (0: all is well).

        saving ("off", "armed", "on", "ending") and session, the number of sessions begun, armed
        ones included. Of the session, or the last: session_frames, session_cubes,
        session_lost, session_torn, first_cnt0, first_ns (0 before its first frame), end_cnt0
        (its last frame so far). newest_cnt0 and newest_ns are of one frame, the newest looked
        at, saved or not. These belong together, at one moment.

        cubes_pending: begun and not yet under their final names; lost_on_disk: frames saved
        that are in no file, since the start; last_file; last_save_s, from the last frame of its
        cube to its final name. Times are ns UTC.
        """
        # First: a cube that ends meanwhile counts as pending, never one too few.
        done = self._cubes_done
        status = self._engine.status()
        status["cubes_pending"] = status["cubes"] - done
        status["lost_on_disk"] = self._lost_on_disk
        status["last_file"] = self._last_file
        status["last_save_s"] = self._last_save_s
        return status

    # -- events -------------------------------------------------------------------------------

    def _handle(self, kind: str, cube: int, value: int, text: str) -> None:
        stream = self.config.stream
        if kind == "cube_started":
            self._cube_started(cube)
        elif kind == "cube_written":
            self._cubes[cube].written = True
            self._finish(self._cubes[cube])
        elif kind == "attached":
            self._refresh_header_room()
            self._report(self._attached_line())
            self._attached = True
        elif kind == "refused" and not self._attached:
            raise _core.StreamUnsupported(text)
        elif kind == "refused":
            self._report(f"not logging: {text}")
        elif kind == "stream_gone" and text:
            self._report(f"stream {stream} {text}; logging goes on when it is there again")
        elif kind in _SAID:
            self._report(_SAID[kind])
        elif kind == "disk_error":
            self._report(f"cannot write: {text}; trying again, frames wait in memory")
        elif kind == "saving_ended":
            untold = f", {value} of them after the last cube" if value else ""
            self._report(f"saving of {stream} ended: {text}{untold}")
        elif kind == "note":
            self._report(text)
        elif kind == "finished":
            self._finished = True

    def _attached_line(self) -> str:
        """Said once every frame from now on is logged."""
        config = self.config
        if self._attached:
            return f"stream {config.stream} is there again, logging goes on"
        if not config.saving:
            return f"ready to log {config.stream}"
        where = config.root if config.exact_dir else config.root / "YYYYMMDD" / config.stream
        return f"logging {config.stream} to {where}, {config.cube_size} frames a cube"

    def _count(self) -> None:
        status = self._engine.status()
        self.result.torn = status["torn"]
        self.result.lost = status["lost"] + self._lost_on_disk
        self.result.frames_seen = status["lost"] + status["frames"]

    # -- header room --------------------------------------------------------------------------

    def _facts(self, **known: Any) -> CubeFacts:
        now_ns = time.time_ns()
        facts: dict[str, Any] = {
            "stream": self.config.stream,
            "dtype": "uint16",
            "shape": (1, 1),
            "n_frames": 0,
            "t_first_ns": now_ns,
            "t_last_ns": now_ns,
            "time_source": "logger",
            "cnt0_begin": 0,
            "cnt0_end": 0,
            "date_ns": now_ns,
        }
        return CubeFacts(**(facts | known))

    def _header_room(self, file: _core.StreamFile) -> int:
        """Bytes to keep for the header of a cube of this stream, as it is now."""
        raw = file.keywords_raw()
        slots = len(raw) // KEYWORD_BYTES
        used = len(decode_keywords(raw))
        more = min(slots - used, SPARE_KEYWORDS)
        aux = read_aux_header(self.config.shm_dir, self.config.stream)
        cards = header_cards_needed(self._facts(keywords_raw=raw), aux) + more
        return -(-cards * CARD_BYTES // BLOCK_BYTES) * BLOCK_BYTES

    def _refresh_header_room(self) -> None:
        """Keywords and the auxiliary header may have grown: the next cube has room for them."""
        self._header_room_at = time.monotonic()
        try:
            file = _core.StreamFile.open(os.fspath(self.config.shm_dir), self.config.stream)
        except (_core.StreamError, OSError):
            return  # gone again; its next coming brings another event
        slots = len(file.keywords_raw()) // KEYWORD_BYTES
        self._engine.set_header(self._header_room(file), slots)

    # -- a cube starts ------------------------------------------------------------------------

    def _cube_started(self, index: int) -> None:
        start = self._engine.cube_start(index)
        config = self.config
        while len(self._places) > 1 and self._places[1].first_cube <= start["number"]:
            self._places.popleft()
        place = self._places[0]
        folder = cube_folder(place.root, config.stream, start["time_ns"], exact=place.exact)
        cube = _OpenCube(index, start, folder, date_ns=time.time_ns())
        cube.aux = read_aux_header(config.shm_dir, config.stream)
        self._cubes[index] = cube
        self._open(cube)
        self._refresh_header_room()

    def _open(self, cube: _OpenCube) -> None:
        facts = self._start_facts(cube, n_frames=cube.start["planned_frames"])
        try:
            _, names = self._enter_folder(cube)
            self._engine.open_cube(
                cube.index,
                os.fspath(names.cube),
                os.fspath(names.frames),
                self._fitted_header(facts, cube),
            )
        except OSError as error:
            self._failed(cube, f"cannot open a cube in {cube.location}", error)
            if self._out_of_patience(cube):
                self._engine.abandon_cube(cube.index)
                cube.is_open = True
            return
        cube.is_open = True
        cube.first_failure_at = None

    def _enter_folder(self, cube: _OpenCube) -> tuple[OpenFolder, HiddenNames]:
        """The folder of the cube, made where it is missing, and the names in it."""
        if cube.folder is None or cube.names is None:
            folder = OpenFolder(cube.wanted_folder)
            time_ns = cube.start["time_ns"]
            cube.folder = folder
            cube.names = hidden_names(folder.path, self.config.stream, time_ns)
        cube.folder.restore()
        return cube.folder, cube.names

    def _forget(self, cube: _OpenCube) -> None:
        cube.close()
        del self._cubes[cube.index]
        self._cubes_done += 1

    def _start_facts(self, cube: _OpenCube, **known: Any) -> CubeFacts:
        start = cube.start
        dtype = "float32" if start["dtype"] == "float16" else start["dtype"]
        return self._facts(
            **{
                "dtype": dtype,
                "shape": start["shape"],
                "t_first_ns": start["time_ns"],
                "t_last_ns": start["time_ns"],
                "time_source": "acquisition" if start["acquisition_times"] else "logger",
                "cnt0_begin": start["cnt0"],
                "cnt0_end": start["cnt0"],
                "keywords_raw": start["keywords"],
                "date_ns": cube.date_ns,
            }
            | known
        )

    def _fitted_header(self, facts: CubeFacts, cube: _OpenCube) -> bytes:
        """The header in the room that was kept; keywords that came since may not fit."""
        room = cube.start["header_bytes"]
        raw = facts.keywords_raw
        while True:
            try:
                return cube_header(facts, cube.aux, room)
            except ValueError:
                if not raw:
                    raise
                raw = raw[: len(raw) // KEYWORD_BYTES * 3 // 4 * KEYWORD_BYTES]
                left_out = (len(facts.keywords_raw) - len(raw)) // KEYWORD_BYTES
                note = f"keywords of the stream left out for want of room: {left_out} or more"
                facts = replace(facts, keywords_raw=raw, notes=(note,))

    # -- a cube ends --------------------------------------------------------------------------

    def _finish(self, cube: _OpenCube) -> None:
        end = self._engine.cube_end(cube.index)
        if end["frames"] == 0:
            self._give_up(cube, end, f"could not be written to {cube.location}")
            return
        try:
            self._finish_file(cube, end)
        except OSError as error:
            self._failed(cube, f"cannot finish a cube in {cube.location}", error)
            if error.errno in _NO_ROOM and self._out_of_patience(cube) and end["frames"] > 1:
                self._make_room(cube, end)
            elif self._out_of_patience(cube):
                self._leave_behind(cube, end)

    def _finish_file(self, cube: _OpenCube, end: dict[str, Any]) -> None:
        rows = np.frombuffer(self._engine.cube_rows(cube.index), FRAME_DTYPE)
        missing = end["captured"] - end["frames"]
        facts = self._end_facts(cube, end, rows, missing)
        folder, names = self._enter_folder(cube)
        header = self._fitted_header(facts, cube)
        # First, since it gives back disk space that was kept for more frames.
        self._engine.finish_cube(cube.index, header, frames_hdu(rows))
        _write_durably(names.sidecar, sidecar_text(self.config.stream, rows))
        fits = folder.location / self._publish(folder, names, cube.start["time_ns"])
        self._last_file = os.fspath(fits)
        self._last_save_s = (time.time_ns() - int(rows["TLOG"][-1])) / 1e9
        self._engine.release_cube(cube.index)
        self._tidy(cube)
        self._forget(cube)
        self._notes.clear()
        self._lost_on_disk += missing
        # A cube that had to wait for the disk may be finished after a later one.
        bisect.insort(self._files, (cube.start["number"], os.fspath(fits)))
        self.result.files = [name for _, name in self._files]
        self.result.frames_logged += len(rows)
        self.result.bytes += len(rows) * cube.start["frame_bytes"]
        self._published(fits)

    def _end_facts(
        self, cube: _OpenCube, end: dict[str, Any], rows: Rows, missing: int
    ) -> CubeFacts:
        source = rows["TACQ" if cube.start["acquisition_times"] else "TLOG"]
        known_times = source[source != 0]
        notes = list(self._notes)
        if missing:
            notes.append(f"{missing} frames after the last one could not be written to disk")
        if end["n_changes"] > len(end["changes"]):
            notes.append(f"{end['n_changes']} changes of keywords in all, the first are listed")
        return self._start_facts(
            cube,
            n_frames=len(rows),
            t_last_ns=int(known_times[-1]),
            cnt0_end=int(rows["CNT0"][-1]),
            n_lost=int(rows["LOST"].sum()),
            n_torn=end["torn"],
            lost_at_end=end["lost_at_end"] + missing,
            changes=_changes(end["changes"]),
            data_sum=end["data_sum"],
            end_reason=end["reason"],
            notes=notes,
        )

    def _publish(self, folder: OpenFolder, hidden: HiddenNames, time_ns: int) -> str:
        """Gives sidecar and cube their names, the cube last; neither replaces anything.

        Returns the name of the cube.
        """
        for final in final_names(folder.path, self.config.stream, time_ns):
            if final.fits.exists():
                continue
            if not _core.rename_new(os.fspath(hidden.sidecar), os.fspath(final.sidecar)):
                continue
            try:
                renamed = _core.rename_new(os.fspath(hidden.cube), os.fspath(final.fits))
            except OSError:
                final.sidecar.rename(hidden.sidecar)
                raise
            if renamed:
                self._sync(folder)
                return final.fits.name
            final.sidecar.rename(hidden.sidecar)
        raise AssertionError("the names never end")

    def _sync(self, folder: OpenFolder) -> None:
        try:
            _core.sync_directory(os.fspath(folder.path))
        except OSError as error:  # the cube has its name; only a power cut could undo it
            self._report(f"cannot sync the folder {folder.location}: {error.strerror}")

    def _tidy(self, cube: _OpenCube) -> None:
        """Removes hidden files that are left: their contents are safe elsewhere, or lost."""
        for path in cube.names or ():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                left = cube.location / path.name
                self._report(f"cannot remove {left}: {error.strerror}; remove it by hand")

    # -- when the disk refuses ----------------------------------------------------------------

    def _retry(self) -> None:
        now = time.monotonic()
        for cube in list(self._cubes.values()):
            if cube.retry_at and now >= cube.retry_at:
                cube.retry_at = 0.0
                if cube.written:
                    self._finish(cube)
                elif not cube.is_open:
                    self._open(cube)

    def _failed(self, cube: _OpenCube, what: str, error: OSError) -> None:
        text = f"{what}: {error.strerror or error}; trying again, frames wait in memory"
        if text != self._failure:
            self._report(text)
        self._failure = text
        now = time.monotonic()
        cube.retry_at = now + RETRY_S
        if cube.first_failure_at is None:
            cube.first_failure_at = now

    def _stopping_since(self) -> float | None:
        if self._stopped_at is None and self._finished:
            self._stopped_at = time.monotonic()
        return self._stopped_at

    def _out_of_patience(self, cube: _OpenCube) -> bool:
        since = self._stopping_since()
        if since is None or cube.first_failure_at is None:
            return False
        return time.monotonic() - max(since, cube.first_failure_at) > PATIENCE_S

    def _mind_the_disk(self) -> None:
        """After a stop, a disk that refuses everything must not keep the logger for ever."""
        since = self._stopping_since()
        if since is None or time.monotonic() - since < PATIENCE_S:
            return
        unopened = any(not cube.is_open for cube in self._cubes.values())
        if self._engine.status()["disk_errno"] or unopened:
            self._engine.give_up_disk()
            self._engine.abort()

    def _make_room(self, cube: _OpenCube, end: dict[str, Any]) -> None:
        """Gives up the last frames of a cube so that its table and sidecar find room."""
        needed = 4 * BLOCK_BYTES + end["frames"] * 256 + len(cube.start["keywords"])
        dropped = min(-(-needed // cube.start["frame_bytes"]), end["frames"] - 1)
        try:
            self._engine.shrink_cube(cube.index, end["frames"] - dropped)
        except OSError as error:
            self._failed(cube, "cannot shorten the cube", error)
            self._leave_behind(cube, end)

    def _leave_behind(self, cube: _OpenCube, end: dict[str, Any]) -> None:
        names = [path.name for path in cube.names or ()]
        self._report(
            f"{end['frames']} frames stay in unfinished files of {cube.location}, "
            f"{' and '.join(names[:2])}; they can be recovered"
        )
        self._lost_on_disk += end["captured"]
        self._engine.release_cube(cube.index)
        self._forget(cube)

    def _give_up(self, cube: _OpenCube, end: dict[str, Any], why: str) -> None:
        text = f"{end['captured']} frames {why} and are lost"
        self._report(text)
        self._notes.append(f"before this cube: {text}")
        self._lost_on_disk += end["captured"]
        self._engine.discard_cube(cube.index)
        self._tidy(cube)
        self._forget(cube)


def _changes(raw: list[tuple[int, bytes]]) -> list[KeywordChange]:
    """One KeywordChange for each changed keyword and frame, with its number of changes."""
    decoded = [(frame, keyword) for frame, entry in raw for keyword in decode_keywords(entry)]
    counts: dict[str, int] = {}
    for _, keyword in decoded:
        counts[keyword.name] = counts.get(keyword.name, 0) + 1
    return [
        KeywordChange(frame, keyword.name, keyword.value, counts[keyword.name])
        for frame, keyword in decoded
    ]


def _write_durably(path: Path, content: bytes) -> None:
    """Writes a file whole; on a failure nothing of it stays to fill the disk."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
