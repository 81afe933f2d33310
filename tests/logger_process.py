"""A logger in a process of its own, and a camera in this one, for the tests of the logger."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cube_checks import Cube, check_cubes, check_result, hidden_files, make_pool

from vampires import frame_stamp
from vampires.logger import Logger, LoggerConfig
from vampires.stream import Stream

PATIENCE_S = 30.0  # for what must happen at once, on a machine that is busy
RING_FRAMES = 1024


class Camera:
    """Publishes stamped frames. The ring holds more frames than a test sends, so that a logger
    which is held up by the machine loses none; ring=0 has one slot."""

    def __init__(
        self,
        name: str = "cam1",
        shape: tuple[int, int] = (8, 9),
        dtype: str = "uint16",
        ring: int = RING_FRAMES,
        **options: Any,
    ) -> None:
        self.pool = make_pool(shape, dtype)
        self.stream = Stream.create(name, shape, dtype, ring=ring, **options)
        self.keyword_times = "_MAQTIME" in (options.get("keywords") or {})

    @property
    def name(self) -> str:
        return self.stream.name

    def send(self, frames: int = 1, *, acquired_ns: int | None = None, **keywords: Any) -> int:
        """Publishes frames; returns the cnt0 of the last. keywords: set with each of them."""
        for _ in range(frames):
            frame = frame_stamp.expected_frame(self.pool, self.stream.cnt0 + 1)
            given = dict(keywords)
            if self.keyword_times and acquired_ns is not None:
                given["_MAQTIME"] = acquired_ns // 1000
            cnt0 = self.stream.write(frame, acquired_ns, given)
        return cnt0


@dataclass(frozen=True)
class Ended:
    """How a logger ended: exit status, its JSON object (None: it printed none), its stderr."""

    status: int
    result: dict[str, Any] | None
    lines: list[str]
    root: Path

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def error(self) -> str:
        """The one line of a logger that did not start."""
        lines = [line.removeprefix("vampires-logger: ") for line in self.lines]
        (line,) = [line for line in lines if not line.startswith("taking")]
        assert self.result is None
        return line

    def cubes(
        self, pool: np.ndarray | None, *, status: int = 0, untold: int = 0, hidden: int = 0
    ) -> list[Cube]:
        """The files, after every check there is."""
        assert self.status == status, self.text
        assert self.result is not None
        cubes = check_cubes(self.result["files"], pool)
        check_result(self.result, cubes, untold=untold)
        assert len(hidden_files(self.root)) == hidden
        return cubes


class LoggerProcess:
    """vampires-logger STREAM --json with a small memory, progress lines 20 times a second."""

    def __init__(self, process: subprocess.Popen[str], stream: str, root: Path) -> None:
        self.process = process
        self.stream = stream
        self.root = root
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.lines.append("")  # the end
            self._news.notify_all()

    def wait_until(self, found: Callable[[str], object], after: int = 0) -> str:
        """The first line on stderr, of those from number `after`, that is found."""
        deadline = time.monotonic() + PATIENCE_S
        looked_at = after
        with self._news:
            while True:
                for line in self.lines[looked_at:]:
                    if found(line):
                        return line
                looked_at = max(after, len(self.lines))
                assert self.lines[-1:] != [""], f"ended: {self.lines[-20:]}"
                assert time.monotonic() < deadline, f"not said: {self.lines[-20:]}"
                self._news.wait(1.0)

    def wait_for(self, text: str, after: int = 0) -> str:
        return self.wait_until(lambda line: text in line, after)

    def wait_frames(self, frames: int, *, or_lost: bool = False) -> None:
        """Until so many frames were copied from the stream (or lost, at the latest with one
        that was copied)."""

        def shows(line: str) -> bool:
            found = re.search(r"\| (\d+) frames, (\d+) lost", line)
            return bool(found) and int(found[1]) + or_lost * int(found[2]) >= frames

        self.wait_until(shows, after=max(0, len(self.lines) - 3))

    def attached(self) -> LoggerProcess:
        """This logger, once the next frame to be published will be its first."""
        self.wait_for(f"logging {self.stream} to ")
        return self

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Not one of its threads runs meanwhile."""
        self.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.send_signal(signal.SIGCONT)

    def stop(self, number: int = signal.SIGINT) -> Ended:
        self.send_signal(number)
        return self.end()

    def end(self) -> Ended:
        """Waits for its end."""
        printed = self.process.stdout.read()
        status = self.process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)
        lines = [line for line in self.lines if line]
        assert "Traceback" not in "\n".join(lines), "\n".join(lines)
        return Ended(status, json.loads(printed) if printed else None, lines, self.root)

    def close(self) -> None:
        self.process.kill()
        self._thread.join(PATIENCE_S)


class LoggerThread:
    """A logger in this process, for what takes many of them, or a call from a script."""

    def __init__(self, stream: str, root: Path, shm_dir: Path, **config: Any) -> None:
        self.root = root
        self.lines: list[str] = []
        small: dict[str, Any] = {"ring_memory_bytes": 4 << 20}
        given = LoggerConfig(stream, root, shm_dir, **(small | config))
        self.logger = Logger(given, self._report)
        self._stop = threading.Event()
        self._attached = threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _report(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("logging "):
            self._attached.set()

    def _run(self) -> None:
        try:
            self.logger.run(self._stop)
        except BaseException as error:  # for the thread that asks
            self._errors.append(error)

    def attached(self) -> LoggerThread:
        assert self._attached.wait(PATIENCE_S)
        return self

    def wait_status(self, **least: int) -> None:
        """Until these counters of the engine are as high."""
        pause = threading.Event()
        while any(self.logger.status()[name] < value for name, value in least.items()):
            assert self._thread.is_alive()
            pause.wait(0.001)

    def stop(self) -> Ended:
        self._stop.set()
        return self.end()

    def end(self) -> Ended:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        for error in self._errors:
            raise error
        result = self.logger.result
        return Ended(3 if result.lost else 0, asdict(result), self.lines, self.root)


@contextmanager
def loggers(start_command: Callable[..., Any], root: Path) -> Iterator[Callable[..., Any]]:
    """start(stream, argument, ...) -> LoggerProcess that logs below root."""
    started: list[LoggerProcess] = []

    def start(stream: str, *arguments: object, **options: Any) -> LoggerProcess:
        place = () if {"--dir", "--exact-dir"} & set(arguments) else ("--dir", root)
        small = () if "--ring-memory" in arguments else ("--ring-memory", "16MiB")
        fixed = (*place, *small, "--progress", 0.05, "--json")
        process = start_command("logger", stream, *fixed, *arguments, **options)
        started.append(LoggerProcess(process, stream, root))
        return started[-1]

    try:
        yield start
    finally:
        for logger in started:
            logger.close()
