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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vampires import _core
from vampires.aux_header import AuxHeader, read_aux_header
from vampires.aux_watch import AuxWatch, Values
from vampires.cube_header import (
    CubeFacts,
    KeywordChange,
    cube_header,
    header_cards_needed,
    provisional_header,
)
from vampires.cube_names import HiddenNames, cube_folder, final_names, hidden_names
from vampires.fits_cards import legal_name
from vampires.frame_table import FRAME_DTYPE, Rows, frames_hdu
from vampires.keywords import decode_keywords
from vampires.log_volumes import NO_ROOM, Choice, LogVolumes, chosen, frames_that_fit
from vampires.new_cube_keywords import DEFAULT_KEYWORDS
from vampires.open_folder import OpenFolder
from vampires.sidecar import sidecar_text
from vampires.stop_request import Stop
from vampires.whole_file import write_durably

KEYWORD_BYTES = 128
CARD_BYTES = 80
BLOCK_BYTES = 2880
# Keywords that may come between two looks at the stream have room in the next header.
SPARE_KEYWORDS = 24
HEADER_ROOM_S = 1.0  # between two looks
MOST_AUX_REPORTS = 1000  # keywords; a file that invents new ones must not fill the log
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


@dataclass(frozen=True)
class LoggerConfig:
    """What to log, and where.

    root: files go to root/YYYYMMDD/stream, or into root itself with exact_dir. timeout_s: a
    cube ends when no frame came for so long; 0: never. cubes, frames: stop after so many.
    disk_priority: of the thread that writes; None: one less than rt_priority.

    next_roots: where files go when root has no room or fails, in this order; as root, with
    folders by day and stream unless exact_dir.

    new_cube_keywords: a cube ends before the first frame with another value of one of them, in
    the stream or, where the stream has none, in the auxiliary header.

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
    next_roots: tuple[Path, ...] = ()
    new_cube_keywords: tuple[str, ...] = DEFAULT_KEYWORDS


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
    volumes: LogVolumes
    exact: bool


@dataclass
class _OpenCube:
    """A cube between its first frame and its final name."""

    index: int
    start: dict[str, Any]
    place: _Place
    root: Path  # of those of the place
    reserved: bool = False  # the disk keeps room for all of it
    frames_kept: int = 0  # it has room for so many
    folder: OpenFolder | None = None  # None: it cannot be made, so far
    names: HiddenNames | None = None  # in that folder
    aux: AuxHeader = field(default_factory=AuxHeader)
    end_card: int = 0  # place of END in its provisional header
    aux_values: Values = field(default_factory=dict)  # of the keywords that end a cube
    given: frozenset[str] = frozenset()  # names of the stream's keywords
    told_to_end: bool = False  # since a value of the auxiliary header changed
    is_open: bool = False
    written: bool = False
    retry_at: float = 0.0
    first_failure_at: float | None = None
    date_ns: int = 0

    def folder_in(self, root: Path) -> Path:
        stream, time_ns = self.start["stream"], self.start["time_ns"]
        return cube_folder(root, stream, time_ns, exact=self.place.exact)

    @property
    def wanted_folder(self) -> Path:
        return self.folder_in(self.root)

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
        self._aux_reported: set[tuple[str, str]] = set()
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
            new_cube_keywords=list(config.new_cube_keywords),
        )
        if self._engine.lock_note:
            report(self._engine.lock_note)
        self.result = LoggerResult(config.stream)
        # Taken from the left by the thread in run(), added to by any; each step is atomic.
        volumes = LogVolumes([config.root, *config.next_roots])
        self._places = deque([_Place(1, volumes, config.exact_dir)])
        self._current_root = config.root
        self._aux = AuxWatch(config.shm_dir, config.stream, config.new_cube_keywords)
        self._cubes: dict[int, _OpenCube] = {}
        self._files: list[tuple[int, str]] = []  # (number of the cube, path), in order
        self._finished = False
        self._attached = False  # at any time
        self._header_room_at = time.monotonic()
        self._stopped_at: float | None = None
        self._notes: list[str] = []  # for the next header: losses that no row tells
        self._lost_on_disk = 0  # captured, but in no file
        self._given_up: dict[int, int] = {}  # number of a cube without a file: its frames
        self._failure = ""
        self._refusing: tuple[int, float] | None = None  # cube whose disk refuses, since when
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
                self._mind_the_aux_header()
                self._places[-1].volumes.meet()
                self._retry()
                self._leave_failing_disk()
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
        if self._engine.status()["saving"] != "on":  # a new session begins with the first disk
            latest = self._places[-1]
            self._set_places(latest.volumes.roots, latest.exact)
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

    def set_root(self, root: Path, exact: bool, next_roots: Sequence[Path] = ()) -> None:
        """Where files go, as LoggerConfig.root, exact_dir and next_roots; from the next cube
        on."""
        self._set_places([root, *next_roots], exact)

    def _set_places(self, roots: Sequence[Path], exact: bool) -> None:
        first_cube = self._engine.status()["cubes"] + 1
        self._places.append(_Place(first_cube, LogVolumes(roots), exact))

    def set_timeout(self, seconds: float) -> None:
        """As LoggerConfig.timeout_s; holds at once."""
        self._engine.set_timeout(seconds)

    def status(self) -> dict[str, Any]:
        """What the logger is doing, as it is now.

        Since the start: frames, lost, torn, bytes (of pixels), cubes (begun), bytes_written.
        Of the cube: cube_frames, cube_planned. Of the newest frame saved: last_cnt0,
        last_frame_ns (when it was copied). attached, memory_full, chunks_in_use of chunks,
        disk_errno (0: all is well). keywords_unsettled: looks at the stream's keywords that
        never found them at rest; what was seen before them was kept.

        saving ("off", "armed", "on", "ending") and session, the number of sessions begun, armed
        ones included. Of the session, or the last: session_frames, session_cubes,
        session_lost, session_torn, first_cnt0, first_ns (0 before its first frame), end_cnt0
        (its last frame so far). newest_cnt0 and newest_ns are of one frame, the newest looked
        at, saved or not. These belong together, at one moment.

        cubes_pending: begun and not yet under their final names; lost_on_disk: frames saved
        that are in no file, since the start; last_file; last_save_s, from the last frame of its
        cube to its final name; root, of LoggerConfig.root and next_roots the one that cubes go
        to now. Times are ns UTC.
        """
        # First: a cube that ends meanwhile counts as pending, never one too few.
        done = self._cubes_done
        status = self._engine.status()
        status["cubes_pending"] = status["cubes"] - done
        status["lost_on_disk"] = self._lost_on_disk
        status["last_file"] = self._last_file
        status["last_save_s"] = self._last_save_s
        status["root"] = self._current_root
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
        aux = self._read_aux_header()
        cards = header_cards_needed(self._facts(keywords_raw=raw), aux) + more
        return -(-cards * CARD_BYTES // BLOCK_BYTES) * BLOCK_BYTES

    def _read_aux_header(self) -> AuxHeader:
        """The auxiliary header; a keyword that is not taken as it is, is reported once."""
        aux = read_aux_header(self.config.shm_dir, self.config.stream)
        for note in aux.notes:
            known = (note.keyword, note.action)
            if known not in self._aux_reported and len(self._aux_reported) < MOST_AUX_REPORTS:
                self._aux_reported.add(known)
                self._report(f"auxiliary header of {self.config.stream}: {note.text}")
        return aux

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
        start["stream"] = config.stream
        cube = _OpenCube(index, start, place, place.volumes.current, date_ns=time.time_ns())
        cube.aux = self._read_aux_header()
        cube.aux_values = self._aux.values_of(cube.aux)
        given = decode_keywords(start["keywords"])
        cube.given = frozenset(legal_name(keyword.name) for keyword in given)
        self._cubes[index] = cube
        self._open(cube)
        self._refresh_header_room()

    def _mind_the_aux_header(self) -> None:
        """A cube that was begun with another value than the auxiliary header has now ends; the
        next one is begun with that."""
        self._aux.look()
        for cube in self._cubes.values():
            keyword = "" if cube.told_to_end else self._aux.changed(cube.aux_values, cube.given)
            if keyword:
                cube.told_to_end = self._engine.end_cube(cube.start["number"], keyword)

    def _open(self, cube: _OpenCube) -> None:
        if self._waits_for_another(cube):
            cube.retry_at = now = time.monotonic()
            cube.first_failure_at = cube.first_failure_at or now
            return
        try:
            self._open_somewhere(cube)
        except OSError as error:
            roots = ", ".join(str(cube.folder_in(root)) for root in cube.place.volumes.roots)
            self._failed(cube, f"cannot open a cube in {roots}", error)
            if self._out_of_patience(cube):
                self._engine.abandon_cube(cube.index)
                cube.is_open = True
            return
        cube.is_open = True
        cube.first_failure_at = None
        self._current_root = cube.root

    def _waits_for_another(self, cube: _OpenCube) -> bool:
        """Cubes are written in order: the room that is left belongs to the first."""
        number = cube.start["number"]
        return any(
            not other.is_open and other.start["number"] < number
            for other in self._cubes.values()
        )

    def _open_somewhere(self, cube: _OpenCube) -> None:
        """On the disk in use while it has room for the cube, else on the next that has; where
        none has, for as many frames as fit. Raises OSError: later."""
        volumes = cube.place.volumes
        choices, failure = self._choices(cube)
        captured, growing = self._engine.cube_progress(cube.index)
        expected = cube.start["expected_frames"] if growing else captured
        choice = chosen(choices, expected, captured if growing else expected)
        if choice is None and self._out_of_patience(cube) and choices:
            # The end: what finds no room is lost, the rest is not.
            choice = max(choices, key=lambda choice: choice.fits)
            self._open_in(cube, choice, required=False)
        while choice is not None and not cube.frames_kept:
            try:
                self._open_in(cube, choice)
            except OSError as error:
                failure = error
                root = choice.root
                if error.errno not in NO_ROOM:
                    volumes.avoid(root)
                choices = [other for other in choices if other.root != root]
                choice = chosen(choices, expected, captured if growing else expected)
        if not cube.frames_kept:
            raise failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if cube.root != volumes.current:
            self._report(
                f"{volumes.current} has no room for a cube, or fails: logging goes on in "
                f"{cube.root}"
            )
            volumes.use(cube.root)

    def _choices(self, cube: _OpenCube) -> tuple[list[Choice], OSError | None]:
        """The directories that take files now, in order; and why one does not."""
        volumes, failure = cube.place.volumes, None
        choices = []
        for root in volumes.in_order():
            try:
                free = volumes.free_bytes(root) - self._promised_bytes(root)
            except OSError as error:
                failure = error
                continue
            start = cube.start
            fits = frames_that_fit(free, start["header_bytes"], start["frame_bytes"])
            choices.append(Choice(root, fits))
        return choices, failure

    def _promised_bytes(self, root: Path) -> int:
        """What cubes under way will take there, where the disk cannot keep room for them."""
        promised = 0
        for cube in self._cubes.values():
            if cube.names is None or cube.reserved or cube.root != root or not cube.is_open:
                continue
            frames, _ = self._engine.cube_progress(cube.index)
            start = cube.start
            all_of_it = _core.cube_room_bytes(
                start["header_bytes"], start["frame_bytes"], frames
            )
            with contextlib.suppress(OSError):
                promised += max(0, all_of_it - cube.names.cube.stat().st_blocks * 512)
        return promised

    def _open_in(self, cube: _OpenCube, choice: Choice, *, required: bool = True) -> None:
        """Opens the cube's files in one directory; required: only with room for them."""
        self._engine.limit_cube(cube.index, choice.fits)
        # Since then it may have got more frames, but it gets no others.
        captured, _ = self._engine.cube_progress(cube.index)
        frames = max(choice.fits, captured)
        facts = self._start_facts(cube, n_frames=frames)
        cube.root = choice.root
        cube.end_card = header_cards_needed(facts, cube.aux) - 1
        try:
            _, names = self._enter_folder(cube)
            cube.reserved = self._engine.open_cube(
                cube.index,
                os.fspath(names.cube),
                os.fspath(names.frames),
                self._fitted_header(facts, cube, provisional_header),
                frames,
                required,
            )
        except OSError:
            cube.close()
            self._engine.limit_cube(cube.index, cube.start["expected_frames"])
            raise
        cube.frames_kept = max(frames, 1)

    def _enter_folder(self, cube: _OpenCube) -> tuple[OpenFolder, HiddenNames]:
        """The folder of the cube, made where it is missing, and the names in it. Raises
        OSError, also when its disk is gone."""
        cube.place.volumes.check_mounted(cube.root)
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

    def _fitted_header(
        self, facts: CubeFacts, cube: _OpenCube, make: Callable[..., bytes]
    ) -> bytes:
        """The header in the room that was kept; keywords that came since may not fit."""
        room = cube.start["header_bytes"]
        raw = facts.keywords_raw
        while True:
            try:
                return make(facts, cube.aux, room, cube.end_card)
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
            if error.errno == errno.ENODEV and self._finish_elsewhere(cube, end):
                return
            if error.errno in NO_ROOM and self._out_of_patience(cube) and end["frames"] > 1:
                self._make_room(cube, end)
            elif self._out_of_patience(cube):
                self._leave_behind(cube, end)

    def _finish_file(self, cube: _OpenCube, end: dict[str, Any]) -> None:
        rows = np.frombuffer(self._engine.cube_rows(cube.index), FRAME_DTYPE)
        missing = end["captured"] - end["frames"]
        # Frames that are missed, and those that their rows would have told of.
        untold = missing + end["lost"] - int(rows["LOST"].sum())
        rows, cubes_before = self._with_lost_before(cube, rows)
        facts = self._end_facts(cube, end, rows, missing, untold)
        folder, names = self._enter_folder(cube)
        header = self._fitted_header(facts, cube, cube_header)
        # First, since it gives back disk space that was kept for more frames.
        self._engine.finish_cube(cube.index, header, frames_hdu(rows))
        write_durably(names.sidecar, sidecar_text(self.config.stream, rows))
        fits = folder.location / self._publish(folder, names, cube.start["time_ns"])
        self._last_file = os.fspath(fits)
        self._last_save_s = (time.time_ns() - int(rows["TLOG"][-1])) / 1e9
        self._engine.release_cube(cube.index)
        self._tidy(cube)
        self._forget(cube)
        self._notes.clear()
        for number in cubes_before:
            del self._given_up[number]
        self._lost_on_disk += missing
        # A cube that had to wait for the disk may be finished after a later one.
        bisect.insort(self._files, (cube.start["number"], os.fspath(fits)))
        self.result.files = [name for _, name in self._files]
        self.result.frames_logged += len(rows)
        self.result.bytes += len(rows) * cube.start["frame_bytes"]
        self._published(fits)

    def _with_lost_before(self, cube: _OpenCube, rows: Rows) -> tuple[Rows, list[int]]:
        """The rows, the first of which counts as lost what the cubes just before had, of which
        there is no file; and the numbers of these."""
        cubes: list[int] = []
        while cube.start["number"] - len(cubes) - 1 in self._given_up:
            cubes.append(cube.start["number"] - len(cubes) - 1)
        if cubes:
            rows = rows.copy()
            rows["LOST"][0] += sum(self._given_up[number] for number in cubes)
        return rows, cubes

    def _end_facts(
        self, cube: _OpenCube, end: dict[str, Any], rows: Rows, missing: int, untold: int
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
            lost_at_end=end["lost_at_end"] + untold,
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

    def _finish_elsewhere(self, cube: _OpenCube, end: dict[str, Any]) -> bool:
        """A cube whose disk is no longer mounted is still open, and can be read: it goes to
        another one, if there is room."""
        for choice in self._choices(cube)[0]:
            if choice.root == cube.root or choice.fits < end["frames"] or cube.folder is None:
                continue
            with contextlib.suppress(OSError):
                cube.folder.move(cube.folder_in(choice.root))
                cube.root = choice.root
                self._report(f"{end['frames']} frames of it go to {cube.location}")
                cube.retry_at = time.monotonic()
                return True
        return False

    def _leave_failing_disk(self) -> None:
        """A disk that refuses what was promised, or anything, is left for the next one: the
        frames that wait for it are lost, those after them are not."""
        status = self._engine.status()
        cube = self._cubes.get(status["disk_cube"])
        if not status["disk_errno"] or cube is None or cube.written:
            self._refusing = None
            return
        number, now = cube.start["number"], time.monotonic()
        if self._refusing is None or self._refusing[0] != number:
            self._refusing = (number, now)
        if now - self._refusing[1] < PATIENCE_S:
            return
        self._refusing = (number, now)
        others = [c for c in self._choices(cube)[0] if c.root != cube.root and c.fits > 0]
        if others:
            cube.place.volumes.avoid(cube.root)
            self._engine.give_up_cube(cube.index)
            self._report(
                f"{cube.root} takes no more data ({os.strerror(status['disk_errno'])}): "
                "frames that wait for it are lost, logging goes on elsewhere"
            )

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
        gone = end["captured"] + end["lost"] + end["lost_at_end"]
        self._given_up[cube.start["number"]] = gone
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
