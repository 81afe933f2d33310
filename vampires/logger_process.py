"""The run process of a logger: a Logger that does what the parameters of its FPS say.

The logger runs in a thread of its own. The main thread looks at the parameters 200 times a
second and gives the orders, and puts what the logger does into the outputs 20 times a second;
it never waits for the disk.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from vampires import _core
from vampires import logger_parameters as names
from vampires.compression import Compressor
from vampires.cpu_placement import cpus_here, join_cpu_set
from vampires.disk_room import time_to_full_s
from vampires.fps import FPS, FPSError, layout
from vampires.fps.layout import Signal, Status
from vampires.log_volumes import fault_of_room, writable_bytes
from vampires.logger import Logger, LoggerConfig
from vampires.long_directories import full_form, short_file_form, short_form
from vampires.partial_cubes import left_behind, recovery_hint
from vampires.room_watch import RoomWatch

ORDERS_S = 0.005
OUTPUTS_S = 0.05
DISK_S = 1.0
RATE_WINDOW_S = 2.0
# Over less time a rate says little of when the next frames come: what the times of two frames
# scatter is multiplied by how far ahead one looks.
RATE_SPAN_S = 0.1
# An instant further in the past is left over from somebody who did not finish.
STALE_NS = 10_000_000_000
SWITCHES = ("saveON", "lastcubeON", "nextcube")
_FAULT_WORDS = (
    "cannot",
    "not logging",
    "lost",
    "memory is full",
    "removed",
    "replaced",
    "disk alarm",
    "has no room",
)
_NO_FAULT = "saving of "  # its summary counts what is lost, and that was told before


class AlreadyRunning(Exception):
    """Another process runs this logger."""


class Stop(Protocol):
    """An event, such as threading.Event."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def set(self) -> None: ...


@contextlib.contextmanager
def sole_runner(fps: FPS) -> Iterator[None]:
    """Holds the place of the one run process of this FPS. Raises AlreadyRunning."""
    header = fps.header()
    folder = Path(header.workdir) / header.datadir
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunning(
                f"{fps.name} runs already (pid {header.runpid}); stop it first"
            ) from None
        yield


class LoggerProcess:
    """Runs one logger by its FPS. say: called with each line for the observer."""

    def __init__(self, fps: FPS) -> None:
        self._fps = fps
        self._stream = str(fps["sname"])
        self._shm_dir = fps.path.parent
        self._logger: Logger | None = None
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._switches = dict.fromkeys(SWITCHES, False)
        self._session_wanted = 0  # the session that the last order begins
        self._limits: dict[str, int | None] = {}  # of that session
        self._changing = False  # an order is being carried out
        self._settings: tuple[Any, ...] = ()
        self._frames: collections.deque[tuple[float, int, int]] = collections.deque()
        self._rate_hz = 0.0
        self._disk_free_bytes = 0.0
        self._frame_bytes = 0
        self._free: dict[Path, int | str] = {}  # of each directory: room, or why it takes none
        self._room = RoomWatch()
        self._used = (Path(), "")  # the directory in use, in full and as a parameter holds it
        self._faults: collections.deque[str] = collections.deque(maxlen=1)
        self._losses_told = 0
        self._lost_before = 0  # on the disk, before the session
        self._compressor = Compressor(self._report)
        self._compress = False

    # -- life ---------------------------------------------------------------------------------

    def run(self, stop: Stop) -> int:
        """Logs until stop is set or the FPS is gone; all that was captured is in files then.

        Returns the exit status. Raises StreamError or OSError when it cannot start.
        """
        fps = self._fps
        # First, what a process before this one has left: orders are for whoever is recorded.
        fps.publish("state", "starting")
        for output, value in (("lasterror", ""), ("firstcnt0", 0), ("session", 0)):
            fps.publish(output, value)
        for switch in SWITCHES:
            fps.set(switch, False, force=True)
        fps.record_run_process()
        fps.change_status(set=Status.RUN | Status.CMDRUN)
        now = time.gmtime()
        fps.set("conf.timestring", time.strftime("%Y-%m-%dT%H:%M:%SZ", now), force=True)
        fps.change_signal(set=Signal.UPDATE)
        try:
            self._logger = Logger(self._config(), self._report, self._published)
            self._take_settings(self._logger)
            threading.Thread(target=self._watch_disk, daemon=True).start()
            worker = threading.Thread(target=self._work, args=(stop,))
            worker.start()
            try:
                self._serve(self._logger, stop)
            finally:
                stop.set()
                self._finish(worker)
                self._compressor.close()
        finally:
            # Whose terminal went away was not told to end: it should still run.
            hung_up = getattr(stop, "signal_number", 0) == signal.SIGHUP
            self._leave(Status(0) if hung_up else Status.CMDRUN)
        if self._failure is not None:
            raise self._failure
        return 0

    def _work(self, stop: Stop) -> None:
        assert self._logger is not None
        try:
            self._logger.run(stop)
        except BaseException as error:  # for the main thread
            self._failure = error
        finally:
            self._ended.set()

    def _serve(self, logger: Logger, stop: Stop) -> None:
        outputs_at = settings_at = 0.0
        while not stop.wait(ORDERS_S) and not self._ended.is_set():
            try:
                self._take_orders(logger)
                now = time.monotonic()
                if now - settings_at >= OUTPUTS_S:
                    settings_at = now
                    if not self._fps.is_current():
                        raise FPSError(f"{self._fps.path} was removed or replaced")
                    self._take_settings(logger)
                # Somebody waits while it begins or ends.
                if self._changing or now - outputs_at >= OUTPUTS_S:
                    outputs_at = now
                    self._publish(logger)
            except FPSError as error:
                self._say(f"{error}; logging ends")
                return

    def _finish(self, worker: threading.Thread) -> None:
        """Waits until all is on disk, and shows that until then."""
        assert self._logger is not None
        while not self._ended.wait(OUTPUTS_S):
            with contextlib.suppress(FPSError):
                self._publish(self._logger, "writing")
        worker.join()
        with contextlib.suppress(FPSError):
            self._publish(self._logger, "stopped")

    def _leave(self, told: Status) -> None:
        """What others see of a logger that stopped. told: the status that says it should run,
        where that is so no longer."""
        with contextlib.suppress(FPSError):
            for switch in SWITCHES:
                self._fps.set(switch, False, force=True)
            self._fps.publish("state", "stopped")
            self._fps.change_status(clear=Status.RUN | Status.RUNLOOP | told)
            self._fps.change_signal(set=Signal.UPDATE)

    def _published(self, file: Path) -> None:
        """A cube has its name; called in the logger's thread."""
        if self._compress:
            self._compressor.add(file)

    # -- settings -----------------------------------------------------------------------------

    def _number(self, key: str) -> int:
        return int(self._fps[key])

    def _config(self) -> LoggerConfig:
        fps = self._fps
        cpus, note = cpus_here(str(fps["procinfo.taskset"]))
        for text in (note, join_cpu_set(str(fps["procinfo.cset"]))):
            if text:
                self._say(text)
        return LoggerConfig(
            stream=self._stream,
            root=self._root(),
            shm_dir=self._shm_dir,
            exact_dir=not fps["dailydir"],
            cube_size=max(1, self._number("cubesize")),
            ring_memory_bytes=self._number("ringmemory") << 20,
            timeout_s=float(fps["procinfo.triggertimeout"]),
            rt_priority=max(0, self._number("procinfo.RTprio")),
            disk_priority=self._number("writerRTprio"),
            cpus=cpus,
            saving=False,
            next_roots=tuple(names.next_directories(fps)),
            new_cube_keywords=names.new_cube_keywords(fps),
        )

    def _root(self) -> Path:
        return full_form(str(self._fps["dirname"]), self._shm_dir)

    def _take_settings(self, logger: Logger) -> None:
        """What may change while running; it takes effect with the next cube."""
        fps = self._fps
        self._compress = bool(fps["compress"])
        size = min(max(1, self._number("cubesize")), names.MAX_CUBE_FRAMES)
        timeout_s = float(fps["procinfo.triggertimeout"])
        next_roots = names.next_directories(fps)
        daily = bool(fps["dailydir"])
        settings = (size, self._root(), daily, max(0.0, timeout_s), next_roots)
        if settings == self._settings:
            return
        self._settings = settings
        logger.set_cube_size(size)
        logger.set_root(settings[1], exact=not daily, next_roots=next_roots)
        logger.set_timeout(settings[3])

    # -- orders -------------------------------------------------------------------------------

    def _take_orders(self, logger: Logger) -> None:
        if self._toggled("saveON"):
            if not self._switches["saveON"]:
                self._begin(logger)
            elif logger.end_saving(stop_ns=self._instant("stoptime")):
                self._changing = True
                self._accept("saveON", False)
        if self._toggled("lastcubeON"):
            self._last_cube(logger)
        if self._toggled("nextcube"):
            logger.next_cube()
            self._accept("nextcube", False)
        if self._switches["saveON"]:
            self._move_start(logger)
            self._notice_end(logger)

    def _toggled(self, switch: str) -> bool:
        """Whether somebody wants the other state than the one accepted last.

        Some clients set only the value, some only the flag, and those that set both may be
        between the two: whatever differs is the order. It is looked at once, so that the
        second half of an order is never taken for another.
        """
        state = self._switches[switch]
        return self._fps.raw_onoff(switch) != (state, state)

    def _accept(self, switch: str, state: bool) -> None:
        """Value and flag agree from here on, whichever of them was set."""
        self._switches[switch] = state
        if self._fps.raw_onoff(switch) != (state, state):
            self._fps.set(switch, state, force=True)

    def _instant(self, key: str) -> int:
        """The instant of an order, which is then used up; 0: at once."""
        instant_ns = self._number(key)
        if instant_ns:
            self._fps.set(key, 0, force=True)
        return instant_ns if instant_ns > time.time_ns() - STALE_NS else 0

    def _begin(self, logger: Logger) -> None:
        before_ns = round(float(self._fps["pretrigger"]) * 1e9)
        start_ns = self._instant("starttime")
        if before_ns > 0:
            start_ns = (start_ns or time.time_ns()) - before_ns
        self._take_settings(logger)
        files, frames = self._number("maxfilecnt"), self._number("maxframecnt")
        fault = fault_of_room(self._free, self._frame_bytes, min(self._settings[0], frames))
        if fault:
            self._report(f"cannot start saving: {fault}")
            self._accept("saveON", False)
            return
        session = logger.status()["session"]
        self._limits = {
            "max_cubes": None if files >= names.NO_LIMIT_FILES else max(1, files),
            "max_frames": None if frames >= names.NO_LIMIT_FRAMES else max(1, frames),
        }
        if logger.begin_saving(start_ns, **self._limits):
            self._session_wanted = session + 1
            self._lost_before = logger.status()["lost_on_disk"]
            self._changing = True
            self._accept("saveON", True)

    def _move_start(self, logger: Logger) -> None:
        """Another starttime for a session that waits for its own. No effect once it began."""
        if self._number("starttime") and logger.status()["saving"] == "armed":
            logger.begin_saving(self._instant("starttime"), **self._limits)

    def _last_cube(self, logger: Logger) -> None:
        if self._switches["lastcubeON"] or not self._switches["saveON"]:
            self._accept("lastcubeON", False)
        elif logger.end_saving(stop_ns=self._instant("stoptime"), whole_cube=True):
            self._accept("lastcubeON", True)

    def _notice_end(self, logger: Logger) -> None:
        """Saving that ended by itself: the last cube is full, or a limit was reached."""
        status = logger.status()
        if status["session"] >= self._session_wanted and status["saving"] == "off":
            self._publish(logger)
            self._accept("lastcubeON", False)
            self._accept("saveON", False)

    # -- outputs ------------------------------------------------------------------------------

    def _publish(self, logger: Logger, state: str | None = None) -> None:
        status = logger.status()
        self._measure_rate(status)
        self._tell_losses(status)
        taken = status["session"] >= self._session_wanted
        settled = (status["saving"] == "on" and status["first_cnt0"]) or (
            status["saving"] == "off" and not status["cubes_pending"]
        )
        if taken and settled:
            self._changing = False
        outputs = {
            "frameindex": status["cube_frames"],
            "framecnt": status["session_frames"],
            "filecnt": status["session_cubes"] - (status["cube_frames"] > 0),
            "outfname": short_file_form(status["last_file"], self._shm_dir),
            "savetime": status["last_save_s"],
            "firstcnt0": status["first_cnt0"],
            "endcnt0": status["end_cnt0"],
            "firstns": status["first_ns"],
            "lost": self._lost(status),
            "torn": status["session_torn"],
            "ringfill": round(100 * status["chunks_in_use"] / status["chunks"], 1),
            "pending": status["cubes_pending"],
            "rate": round(self._rate_hz, 4),
            "framebytes": self._frame_bytes,
            "newestcnt0": status["newest_cnt0"],
            "newestns": status["newest_ns"],
            "usedir": self._short_root(status["root"]),
            "roomlevel": self._room.level.value,
            "diskfree": round(self._disk_free_bytes / 1e9, 3),
            "timetofull": self._time_to_full_s(),
            # Last: who sees a new state finds the numbers that belong to it, and who sees a new
            # session no longer finds the state from before.
            "state": state or _state(status),
            "session": status["session"],
        }
        if self._faults:
            raw = self._faults[0].encode(errors="replace")[: layout.STRING_BYTES - 1]
            outputs = {"lasterror": raw.decode(errors="ignore"), **outputs}
        for key, value in outputs.items():
            self._fps.publish(key, value)

    def _short_root(self, root: Path) -> str:
        if root != self._used[0]:
            try:
                self._used = (root, short_form(root, self._shm_dir))
            except (OSError, ValueError):
                self._used = (root, root.name)
        return self._used[1]

    def _lost(self, status: dict[str, Any]) -> int:
        """Of the session: missed, or captured and then not written."""
        return int(status["session_lost"] + status["lost_on_disk"] - self._lost_before)

    def _measure_rate(self, status: dict[str, Any]) -> None:
        """Frames per second of acquisition time over the last two seconds; 0: none come."""
        now = time.monotonic()
        frames = self._frames
        cnt0, time_ns = status["newest_cnt0"], status["newest_ns"]
        if frames and (cnt0 < frames[-1][1] or time_ns < frames[-1][2]):
            frames.clear()  # another stream, or another clock
            self._rate_hz = 0.0
        if time_ns and (not frames or cnt0 != frames[-1][1]):
            frames.append((now, cnt0, time_ns))
        if not frames:
            return
        while len(frames) > 2 and now - frames[0][0] > RATE_WINDOW_S:
            frames.popleft()
        count, span_ns = frames[-1][1] - frames[0][1], frames[-1][2] - frames[0][2]
        if now - frames[-1][0] > max(RATE_WINDOW_S, 3 * span_ns / max(count, 1) / 1e9):
            self._rate_hz = 0.0
        elif count and span_ns > RATE_SPAN_S * 1e9:
            self._rate_hz = count / span_ns * 1e9

    def _tell_losses(self, status: dict[str, Any]) -> None:
        lost = self._lost(status)
        if lost < self._losses_told:
            self._losses_told = 0
        if lost > self._losses_told:
            text = f"{lost - self._losses_told} frames lost ({lost} since saveON)"
            self._report(text)
        self._losses_told = lost

    def _time_to_full_s(self) -> float:
        speed = self._rate_hz * self._frame_bytes
        return round(time_to_full_s(self._disk_free_bytes, speed), 0)

    def _watch_disk(self) -> None:
        """A thread of its own: a disk that hangs must not hold up the orders."""
        self._tell_partial_cubes()
        while not self._ended.wait(DISK_S if self._disk_free_bytes else 0.0):
            self._look_at_stream()
            self._look_at_room()

    def _tell_partial_cubes(self) -> None:
        _, root, daily, _, next_roots = self._settings
        for place in (root, *next_roots):
            hint = recovery_hint(left_behind(place, self._stream, exact=not daily), place)
            if hint:
                self._say(hint)

    def _look_at_room(self) -> None:
        assert self._logger is not None
        size, first, *_, others = self._settings
        free: dict[Path, int | str] = {}
        for root in (first, *others):
            try:
                free[root] = writable_bytes(root)
            except OSError as error:
                free[root] = error.strerror or str(error)
        self._free = free
        used = self._logger.status()["root"]
        left = free.get(used, "")
        if isinstance(left, int):
            self._disk_free_bytes = max(1.0, float(left))
        cube_bytes = size * self._frame_bytes
        others_take_it = any(
            isinstance(room, int) and room > cube_bytes
            for root, room in free.items()
            if root != used
        )
        speed = self._rate_hz * self._frame_bytes
        if others_take_it:
            cube_bytes = 0
        line = self._room.line(str(used), self._disk_free_bytes, speed, cube_bytes)
        if line:
            self._report(line)

    def _look_at_stream(self) -> None:
        with contextlib.suppress(_core.StreamError, OSError):
            file = _core.StreamFile.open(os.fspath(self._shm_dir), self._stream)
            pixel_bytes = 4 if file.dtype == "float16" else file.dtype.itemsize
            self._frame_bytes = math.prod(file.shape[-2:]) * pixel_bytes

    # -- what is said -------------------------------------------------------------------------

    def _report(self, line: str) -> None:
        """May be called from the logger's thread."""
        faulty = any(word in line for word in _FAULT_WORDS)
        if faulty and not line.startswith(_NO_FAULT):
            self._faults.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}")
        self._say(line)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", flush=True)


def _state(status: dict[str, Any]) -> str:
    saving = status["saving"]
    if saving != "off":
        return {"armed": "armed", "on": "logging", "ending": "ending"}[saving]
    if status["cubes_pending"]:
        return "writing"
    return "idle" if status["attached"] else "no stream"
