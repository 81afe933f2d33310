"""Compresses finished cubes in place: lossless, one after the other, out of everybody's way.

fpack of the CFITSIO library makes HDU 1 a tile-compressed image, as milk's logger does; the
name stays. At any moment the file under that name is whole: the compressed one takes the place
of the other in one step, and only after it was read back and found the same.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

FPACK = "fpack"
FUNPACK = "funpack"
NICE = ("nice", "-n", "19")
# Cubes that wait; beyond, they stay as they are: the camera is faster than a core can compress.
MAX_WAITING = 64


def compression_fault() -> str:
    """Why cubes cannot be compressed on this machine; empty: they can."""
    missing = [program for program in (FPACK, FUNPACK) if shutil.which(program) is None]
    if not missing:
        return ""
    return f"compress is ON, and {' and '.join(missing)} is missing; install libcfitsio-bin"


class Compressor:
    """A thread that compresses the files it is given. report: called with lines for people."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._waiting: queue.Queue[Path | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False

    def add(self, file: Path) -> None:
        """Has a published cube compressed; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="compress", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(file)
        except queue.Full:
            self._report(f"{file.name} stays uncompressed: {MAX_WAITING} files wait already")

    def close(self) -> None:
        """Ends at once; files not compressed yet stay as they are, which is whole."""
        self._closing = True
        if self._thread is None:
            return
        left = self._waiting.qsize()
        if left:
            self._report(f"{left} files stay uncompressed")
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._waiting.get_nowait()
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)
                break
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing:
            file = self._waiting.get()
            if file is None:
                return
            hidden = file.with_name(f".{file.name}.{os.getpid()}.fz")
            try:
                self._compress(file, hidden)
            except (OSError, RuntimeError) as error:
                if not self._closing:
                    self._report(f"cannot compress {file.name}, it stays as it is: {error}")
            finally:
                hidden.unlink(missing_ok=True)

    def _compress(self, file: Path, hidden: Path) -> None:
        # Whole numbers by Rice; floating point, where Rice would round, by gzip.
        bitpix = _bitpix(file)
        method = ["-r"] if bitpix > 0 else ["-g", "-q", "0"]
        self._run([*NICE, FPACK, *method, "-O", str(hidden), str(file)])
        self._check(file, hidden)
        with hidden.open("rb") as written:
            os.fsync(written.fileno())
        hidden.replace(file)

    def _run(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, errors = self._process.communicate()
        if self._process.returncode != 0:
            raise RuntimeError(errors.decode(errors="replace").strip() or command[len(NICE)])

    def _check(self, file: Path, hidden: Path) -> None:
        """Unpacks to a pipe and compares the image, byte for byte."""
        self._process = subprocess.Popen(
            [*NICE, FUNPACK, "-S", str(hidden)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        with self._process, file.open("rb") as original:
            begin, size = _data_of(original.read(_HEADER_AT_MOST))
            _skip_header(self._process.stdout)
            original.seek(begin)
            left = size
            while left:
                piece = min(left, 1 << 20)
                ours, theirs = original.read(piece), self._process.stdout.read(piece)
                if ours != theirs or not ours:
                    raise RuntimeError("what was unpacked again differs")
                left -= len(ours)
            self._process.stdout.read()


_BLOCK = 2880
_CARD = 80
_HEADER_AT_MOST = 16 << 20


def _cards(header: bytes) -> list[bytes]:
    return [header[k : k + _CARD] for k in range(0, len(header), _CARD)]


def _bitpix(file: Path) -> int:
    with file.open("rb") as opened:
        return _integer(_cards(opened.read(_BLOCK)), b"BITPIX")


def _integer(cards: list[bytes], name: bytes) -> int:
    for card in cards:
        if card[:8].rstrip() == name:
            return int(card[10:].partition(b"/")[0])
    raise RuntimeError(f"its header has no {name.decode()}")


def _data_of(content: bytes) -> tuple[int, int]:
    """Where the primary image begins, and its size in bytes."""
    cards = _cards(content)
    end = next((k for k, card in enumerate(cards) if card.rstrip() == b"END"), None)
    if end is None:
        raise RuntimeError("its header has no end")
    begin = -(-(end + 1) * _CARD // _BLOCK) * _BLOCK
    size = abs(_integer(cards[:end], b"BITPIX")) // 8
    for axis in range(1, _integer(cards[:end], b"NAXIS") + 1):
        size *= _integer(cards[:end], b"NAXIS%d" % axis)
    return begin, size


def _skip_header(pipe: object) -> None:
    read = pipe.read  # type: ignore[attr-defined]
    while True:
        block = read(_BLOCK)
        if len(block) < _BLOCK:
            raise RuntimeError("it cannot be unpacked again")
        if any(card.rstrip() == b"END" for card in _cards(block)):
            return
