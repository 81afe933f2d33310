"""The process of a camera: takes frames from a source, publishes them, and does as it is told.

Threads, and who owns what:

* the main thread owns the source and the stream; it alone configures, acquires and creates;
* the control threads read the settings (immutable, replaced as a whole) and hand changes over
  in a queue, which the main thread is woken for; each waits for the answer to its own;
* the status thread reads counters, writes the status file, and hands keywords of the
  instrument's database that have changed to the next frame;
* the database's values belong to whichever thread holds the lock of the stream's renewal.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vampires.camera.control_socket import ANSWER_S, Answer, ControlServer, socket_path
from vampires.camera.database import DatabaseValues
from vampires.camera.keywords import CameraIdentity, camera_keywords, following_keywords
from vampires.camera.settings import CameraLimits, CameraSettings, SettingRefused
from vampires.camera.source import FrameSource, Keywords, KeywordValue, SourceError
from vampires.closing import Closing
from vampires.commands.common import StopEvent
from vampires.instrument.cameras import Crop
from vampires.keywords import encode_keyword
from vampires.run_folder import RunFolder
from vampires.stream import Stream, StreamError

STATUS_S = 0.2
NOW_AND_THEN_S = 3.0
RATE_S = 2.0
RING_BYTES = 1 << 30  # of a stream at most, but for MIN_RING frames
MIN_RING = 8
# Set by the observer, not by the camera: kept when the stream is made anew.
OBSERVERS_KEYWORDS = ("DATA-TYP", "OBJECT")
RATE_KEYWORD = "MFRATE"
MAX_SHOWN = 80  # characters of what was found
MAX_PIXEL = 1 << 20  # of any sensor

Make = Callable[[CameraLimits, CameraSettings], CameraSettings]


def settings_name(camera: str) -> str:
    """The file of the run folder that holds what was set."""
    return f"{camera}_settings"


def status_name(camera: str) -> str:
    """The file of the run folder that tells how the process is."""
    return f"{camera}_fgrab"


@dataclass(frozen=True)
class ServerOptions:
    """name: of the camera and its stream. ring: frames the stream keeps. generation: of the
    start it belongs to; settings kept from the same one are taken up again."""

    name: str
    number: int | None = None
    mode: str = "FULL"
    fps: float | None = None
    ring: int = 64
    generation: str = ""
    notes: tuple[str, ...] = ()


class Interrupt(Closing):
    """Tells the source to return: a change waits, or the process is to end. A Stop."""

    def __init__(self, stop: StopEvent) -> None:
        self._stop = stop
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._changed = False

    def set(self) -> None:
        self._changed = True
        os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        self._changed = False

    def is_set(self) -> bool:
        return self._changed or self._stop.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._stop.fileno(), select.POLLIN)
        poll.poll(None if timeout is None else max(0.0, timeout * 1e3))
        return self.is_set()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass
class _Change:
    """What a control thread wants done by the main thread, and what became of it."""

    act: Callable[[], None]
    done: threading.Event
    error: str = ""


class _Sink:
    """The stream as the source sees it; adds keywords that others set to the next frame."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.frames = 0
        self._pending: Keywords = {}
        self._lock = threading.Lock()  # of _pending

    @property
    def cnt0(self) -> int:
        assert self.stream is not None
        return self.stream.cnt0

    def next_slot(self) -> Any:
        assert self.stream is not None
        return self.stream.next_slot()

    def publish(
        self,
        acquired_ns: int | None = None,
        keywords: Mapping[str, tuple[KeywordValue, str]] | None = None,
    ) -> int:
        assert self.stream is not None
        if self._pending:
            keywords = {**(keywords or {}), **self.take_pending(self.stream)}
        cnt0 = self.stream.publish(acquired_ns, keywords)
        self.frames += 1
        return cnt0

    def add_pending(self, keywords: Keywords) -> None:
        with self._lock:
            self._pending |= keywords

    def pending(self) -> set[str]:
        """Names of the keywords that wait for the next frame."""
        with self._lock:
            return set(self._pending)

    def take_pending(self, stream: Stream | None = None) -> Keywords:
        """Those that wait; no more than the stream has room for."""
        with self._lock:
            pending, self._pending = self._pending, {}
        if stream is None:
            return pending
        there = set(stream.keywords)
        room = keyword_room(stream) - len(there)
        new = [name for name in pending if name not in there]
        return {name: given for name, given in pending.items() if name not in new[room:]}


class CameraServer:
    """say: told a line of what happens. now_and_then: called every few seconds, in a thread.
    Frames come between run() and its end."""

    def __init__(
        self,
        options: ServerOptions,
        make_source: Callable[[], FrameSource],
        run_folder: RunFolder,
        say: Callable[[str], None],
        now_and_then: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._make_source = make_source
        self._run = run_folder
        self._say = say
        self._now_and_then = now_and_then
        self._identity = CameraIdentity(options.name, options.number)
        self._source: FrameSource | None = None
        self._limits: CameraLimits | None = None
        self._settings: CameraSettings | None = None
        self._state = "starting"
        self._error = ""
        self._sink = _Sink()
        self._renewal = threading.Lock()  # held while the stream's file and ours may differ
        # With that lock: what the database says, what of it the stream was given last, and the
        # keywords that the source gives itself.
        self._database = DatabaseValues(run_folder.shm_dir, options.name)
        self._followed: Keywords = {}
        self._own_names: set[str] = set()
        self._changes: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        # Of the status thread, but that any other may put an empty one in its place.
        self._counts: collections.deque[tuple[float, int]] = collections.deque()
        self._started_ns = time.time_ns()

    # -- the main thread ----------------------------------------------------------------------

    def run(self, stop: StopEvent) -> None:
        """Takes frames until stop is set. Raises SourceError, StreamError, OSError."""
        ended = threading.Event()
        with Interrupt(stop) as interrupt, contextlib.ExitStack() as stack:
            self._interrupt = interrupt
            status = threading.Thread(target=self._tell_status, args=(ended,))
            status.start()
            stack.callback(status.join)
            stack.callback(ended.set)
            try:
                self._open(self._first_settings)
                path = socket_path(self._options.name, self._run)
                stack.enter_context(ControlServer(path, self._handle))
                self._take_frames(stop, interrupt)
                self._state = "ended"
                if self._sink.stream is not None:
                    self._sink.stream.remove()
            except Exception as error:
                self._state, self._error = "failed", str(error) or type(error).__name__
                if isinstance(error, SettingRefused):
                    raise SourceError(str(error)) from None
                raise
            finally:
                self._close_source()
                self._answer_the_rest()

    def _take_frames(self, stop: StopEvent, interrupt: Interrupt) -> None:
        while not stop.is_set():
            if self._source is None:
                self._state = "released"
                interrupt.wait()
            else:
                self._state = "running"
                self._source.acquire(self._sink, interrupt)
                if not interrupt.is_set():
                    self._say("there are no more frames")
                    self._release()
            interrupt.clear()
            self._make_changes()

    def _open(self, first: Callable[[CameraLimits], CameraSettings]) -> None:
        self._source = self._make_source()
        self._limits = self._source.limits
        self._configure(first(self._limits))

    def _first_settings(self, limits: CameraLimits) -> CameraSettings:
        """Those from before, when this process takes the place of one that failed."""
        kept = self._run.read(settings_name(self._options.name))
        if kept and self._options.generation and kept.get("of") == self._options.generation:
            with contextlib.suppress(SettingRefused):
                return _possible(limits, CameraSettings.from_dict(kept.get("settings") or {}))
        return limits.first_settings(self._options.mode, self._options.fps)

    def _configure(self, wanted: CameraSettings) -> None:
        assert self._source is not None
        self._settings = self._source.configure(wanted)
        with self._renewal:
            self._renew_stream(self._settings)
        kept = {"of": self._options.generation, "settings": self._settings.as_dict()}
        with contextlib.suppress(OSError):
            self._run.write(settings_name(self._options.name), kept)
        self._counts = collections.deque()

    def _renew_stream(self, settings: CameraSettings) -> None:
        """The stream as the settings want it: the same where its frames stay the same."""
        assert self._source is not None
        own = self._source.keywords()
        self._database.look()
        described = camera_keywords(
            settings,
            self._identity,
            instrument=self._source.instrument,
            database=self._database.values,
        )
        given: Keywords = {**described, **own}
        self._own_names, self._followed = set(own), self._following(settings)
        given["_MAQTIME"] = (0, "[us] acquisition time of the frame, Unix time")
        before = self._keywords_there()
        for name in before:
            of_others = name in OBSERVERS_KEYWORDS or name not in given
            if of_others and not name.startswith("_"):
                given[name] = before[name]
        given |= self._sink.take_pending()
        stream, dtype = self._sink.stream, self._source.dtype
        fits = stream is not None and len(given) <= keyword_room(stream)
        if stream is not None and fits and _serves(stream, settings, dtype):
            given["_MAQTIME"] = before.get("_MAQTIME", given["_MAQTIME"])
            stream.keywords = given
            return
        ny, nx = settings.shape
        fitting = RING_BYTES // (ny * nx * dtype.itemsize)
        ring = min(self._options.ring, max(MIN_RING, fitting))
        name, folder = self._options.name, self._run.shm_dir
        renewed = Stream.create(
            name, (ny, nx), dtype, ring=ring, keywords=given, directory=folder
        )
        if stream is not None:
            stream.close()
        self._sink.stream = renewed
        self._say(f"{name}: {ny} x {nx} {dtype}, {settings.fps:.6g} Hz, ring of {ring} frames")

    def _following(self, settings: CameraSettings) -> Keywords:
        """The keywords that change when the database does."""
        number, source = self._options.number, self._source
        if number is None or source is None:
            return {}
        values = self._database.values
        found = following_keywords(settings, number, source.instrument, values)
        return {name: given for name, given in found.items() if name not in self._own_names}

    def _follow_database(self) -> None:
        """Keywords that follow from the database have its new values from the next frame on."""
        with self._renewal:
            settings = self._settings
            if not self._database.look() or settings is None or self._sink.stream is None:
                return
            following = self._following(settings)
            before, self._followed = self._followed, following
            changed = {n: given for n, given in following.items() if before.get(n) != given}
            if changed:
                self._sink.add_pending(changed)

    def _keywords_there(self) -> Keywords:
        """Of the stream that is there, ours or left by one that failed."""
        name, folder = self._options.name, self._run.shm_dir
        try:
            with Stream.open(name, directory=folder) as stream:
                keywords = stream.keywords
                return {k: (value, keywords.comment(k)) for k, value in keywords.items()}
        except (StreamError, ValueError, OSError, KeyError):
            return {}

    def _make_changes(self) -> None:
        while not self._changes.empty():
            change = self._changes.get()
            try:
                change.act()
            except SettingRefused as error:
                change.error = str(error)
            except Exception as error:
                change.error = str(error) or type(error).__name__
                raise
            finally:
                change.done.set()

    def _answer_the_rest(self) -> None:
        while not self._changes.empty():
            change = self._changes.get()
            change.error = self._error or "the camera has ended"
            change.done.set()

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    # -- the control threads ------------------------------------------------------------------

    def _handle(self, asked: dict[str, Any]) -> Answer:
        try:
            return self._do(str(asked.get("do", "")), asked)
        except SettingRefused as error:
            return {"ok": False, "error": str(error)}

    def _do(self, do: str, asked: Mapping[str, Any]) -> Answer:
        if do == "set":
            make = _making(str(asked.get("what", "")), asked.get("value"))
            assert self._limits is not None and self._settings is not None
            make(self._limits, self._settings)  # refused before frames are held up for it
            self._have_done(lambda: self._set(make))
        elif do == "release":
            self._have_done(self._release)
        elif do == "acquire":
            self._have_done(self._acquire_again)
        elif do == "keyword":
            self._set_keyword(asked)
        elif do != "status":
            raise SettingRefused(f"found the request {_shown(do)}, which no camera knows")
        return {"ok": True, **self.status()}

    def _have_done(self, act: Callable[[], None]) -> None:
        change = _Change(act, threading.Event())
        self._changes.put(change)
        self._interrupt.set()
        if not change.done.wait(ANSWER_S):
            raise SettingRefused(f"the camera did not answer within {ANSWER_S:.0f} s")
        if change.error:
            raise SettingRefused(change.error)

    def _set(self, make: Make) -> None:
        assert self._settings is not None and self._limits is not None
        wanted = make(self._limits, self._settings)
        if self._source is not None:
            self._configure(wanted)
            return
        try:
            self._open(lambda limits: wanted)
        except SettingRefused:
            self._close_source()
            raise

    def _release(self) -> None:
        self._close_source()
        self._state = "released"

    def _acquire_again(self) -> None:
        if self._source is None:
            self._set(lambda limits, now: now)

    def _set_keyword(self, asked: Mapping[str, Any]) -> None:
        name, value, comment = asked.get("name"), asked.get("value"), asked.get("comment", "")
        if not isinstance(name, str) or not isinstance(value, (bool, int, float, str)):
            raise SettingRefused("expected a name, and a number, a text or true or false")
        if isinstance(value, bool):
            value = "#TRUE#" if value else "#FALSE#"
        try:
            encode_keyword(name, value, str(comment))
        except ValueError as error:
            raise SettingRefused(_shortened(str(error))) from None
        there = self._keywords_there()
        names = {*there, *self._sink.pending(), name}
        room = keyword_room(self._sink.stream)
        if len(names) > room:
            raise SettingRefused(
                f"no room for {name}: the stream has all of its {room} keywords"
            )
        if not comment:
            comment = there.get(name, (value, ""))[1]
        self._sink.add_pending({name: (value, str(comment))})
        if self._state != "running":
            self._have_done(self._put_keywords)

    def _put_keywords(self) -> None:
        """Those that wait for a frame, where none may come."""
        stream = self._sink.stream
        assert stream is not None
        for name, given in self._sink.take_pending(stream).items():
            stream.keywords[name] = given

    # -- the status thread --------------------------------------------------------------------

    def _tell_status(self, ended: threading.Event) -> None:
        said, said_s = (self._counts, 0.0), 0.0  # a change sets the keyword to 0
        called_s = time.monotonic()
        while True:
            last = ended.wait(STATUS_S)
            now_s, counts = time.monotonic(), self._counts
            counts.append((now_s, self._sink.frames))
            while len(counts) > 2 and now_s - counts[0][0] > RATE_S:
                counts.popleft()
            rate_hz = self.rate_hz()
            before_hz = said[1] if said[0] is counts else 0.0
            if self._state == "running" and now_s - said_s > 1.0 and rate_hz != before_hz:
                said_s, said = now_s, (counts, rate_hz)
                self._sink.add_pending({RATE_KEYWORD: (rate_hz, "[Hz] measured frame rate")})
            self._mind_stream()
            self._follow_database()
            if now_s - called_s > NOW_AND_THEN_S and not last:
                called_s = now_s
                self._now_and_then()
            with contextlib.suppress(OSError):
                self._run.write(status_name(self._options.name), self.status())
            if last:
                return

    def _mind_stream(self) -> None:
        """A stream whose file somebody took away is made anew."""
        stream = self._sink.stream
        if self._state == "running" and stream is not None and self._changes.empty():
            with contextlib.suppress(StreamError, ValueError, OSError), self._renewal:
                if self._sink.stream is stream and not stream.is_current():
                    self._say(f"{self._options.name}: its file was removed or replaced")
                    self._changes.put(_Change(self._renew_while_open, threading.Event()))
                    self._interrupt.set()

    def _renew_while_open(self) -> None:
        if self._source is not None and self._settings is not None:
            self._configure(self._settings)

    def rate_hz(self) -> float:
        """Frames/s published, over the last two seconds."""
        counts = list(self._counts)
        if len(counts) < 2 or counts[-1][0] - counts[0][0] < STATUS_S:
            return 0.0
        (first_s, first), (last_s, last) = counts[0], counts[-1]
        return round((last - first) / (last_s - first_s), 2)

    def status(self) -> Answer:
        """How the process is, for JSON."""
        settings, stream, source = self._settings, self._sink.stream, self._source
        cnt0 = 0
        with contextlib.suppress(StreamError, ValueError, OSError):
            cnt0 = stream.cnt0 if stream is not None else 0
        return {
            "camera": self._options.name,
            "pid": os.getpid(),
            "started_ns": self._started_ns,
            "time_ns": time.time_ns(),
            "generation": self._options.generation,
            "state": self._state,
            "error": self._error,
            "settings": settings.as_dict() if settings else None,
            "shape": list(settings.shape) if settings else None,
            "modes": list(self._limits.modes) if self._limits else [],
            "cnt0": cnt0,
            "frames": self._sink.frames,
            "rate_hz": self.rate_hz(),
            "lost": int(getattr(source, "lost", 0)),
            "torn": int(getattr(source, "torn", 0)),
            "notes": list(self._options.notes),
        }


def _serves(stream: Stream, settings: CameraSettings, dtype: Any) -> bool:
    """Whether frames of these settings fit into the stream, and readers find it."""
    fits = (stream.shape, stream.dtype) == (settings.shape, dtype)
    return fits and stream.is_current()


def keyword_room(stream: Stream | None) -> int:
    """How many keywords a stream can hold."""
    return int(stream.metadata["NBkw"]) if stream is not None else 0


# -- what may be set --------------------------------------------------------------------------


def _possible(limits: CameraLimits, kept: CameraSettings) -> CameraSettings:
    """Settings from a file, as this camera can have them. SettingRefused."""
    now = limits.with_crop(limits.with_readout(kept, kept.readout), kept.crop)
    named = limits.modes.get(kept.mode) == kept.crop  # two modes may have the same window
    return now.with_values(mode=kept.mode) if named else now


def _shown(value: Any) -> str:
    """What was found, short enough for a line."""
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _making(what: str, value: Any) -> Make:
    """What a request to set something does to the settings. SettingRefused."""
    makers: dict[str, Callable[[], Make]] = {
        "mode": lambda: _with_mode(_text(value)),
        "crop": lambda: _with_crop(_window(value)),
        "tint": lambda: _with(CameraLimits.with_tint, _number(value)),
        "fps": lambda: _with(CameraLimits.with_fps, _number(value)),
        "readout": lambda: _with(CameraLimits.with_readout, _text(value)),
        "trigger": lambda: _with(CameraLimits.with_trigger, _switch(value)),
    }
    if what not in makers:
        raise SettingRefused(f"found {_shown(what)}, expected one of {', '.join(makers)}")
    return makers[what]()


def _with(change: Callable[..., CameraSettings], value: Any) -> Make:
    return lambda limits, now: change(limits, now, value)


def _with_mode(mode: str) -> Make:
    return _with(CameraLimits.with_mode, mode)


def _with_crop(crop: Crop) -> Make:
    return _with(CameraLimits.with_crop, crop)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_SHOWN:
        raise SettingRefused(f"found {_shown(value)}, expected a name")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingRefused(f"found {_shown(value)}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise SettingRefused("found a number beyond all reason") from None


def _switch(value: Any) -> bool:
    if value not in (True, False):  # or 1 and 0
        raise SettingRefused(f"found {_shown(value)}, expected true or false")
    return bool(value)


def _window(value: Any) -> Crop:
    whole = isinstance(value, list) and len(value) == 4 and all(type(v) is int for v in value)
    if not whole:
        raise SettingRefused(f"found {_shown(value)}, expected x0, x1, y0, y1: whole numbers")
    if any(abs(v) > MAX_PIXEL for v in value):
        raise SettingRefused(f"found {_shown(value)}, expected pixels of the sensor")
    return Crop(*value)
