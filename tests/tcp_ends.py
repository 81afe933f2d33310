"""Both ends of the fast link in this process, and a witness of every frame at the far side.

Two folders below the stream folder of the test stand for the two hosts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from link_peers import LOOPBACK, wait_until

from vampires import _core, frame_stamp
from vampires.allowed_peers import parse_allowed, to_core
from vampires.keywords import decode_keywords
from vampires.stream import Stream

THIS_COMPUTER = ("127.0.0.0/8", "::1")


@contextmanager
def running(link: Any) -> Iterator[Any]:
    """A TcpSender or TcpReceiver that runs until the end of the block."""
    link.start()
    try:
        yield link
    finally:
        link.stop()


def receiver(
    folder: Path, port: int = 0, allowed: Sequence[str] = THIS_COMPUTER, **options: Any
) -> Any:
    """with receiver(far) as link: ... link.port"""
    networks = to_core(parse_allowed(allowed))
    return running(_core.TcpReceiver(str(folder), LOOPBACK, port, networks, **options))


def sender(folder: Path, stream: str, port: int, host: str = LOOPBACK) -> Any:
    """with sender(near, "cam1", link.port) as link: ..."""
    return running(_core.TcpSender(str(folder), stream, host, port))


def wait_for_status(link: Any, **expected: Any) -> dict[str, Any]:
    """Waits until the status holds these values; returns it."""

    def is_there() -> bool:
        now = link.status()
        return all(now[key] == value for key, value in expected.items())

    try:
        wait_until(is_there, str(expected))
    except AssertionError as error:
        raise AssertionError(f"{error}; found {link.status()}") from None
    return link.status()


def told(link: Any, kind: str) -> list[str]:
    """Texts of the events of a kind that came since the last look; the others are dropped."""
    return [text for found, text in link.events(0.0) if found == kind]


class FarFrame(NamedTuple):
    """One frame that a reader got at the far side, after its pixels were found right."""

    file: int  # inode: another one is another stream
    cnt0: int
    cnt1: int
    shape: tuple[int, ...]


class Witness:
    """Reads every frame of a stream, follows it when it is made anew, and compares each pixel
    with what a camera sent.

    pools: what cameras send, by the shape of their frames; frame cnt0 is
    frame_stamp.expected_frame(pool, cnt0). Close it, or use ``with``: then it raises what it
    found wrong. was_late: frames may have passed unseen, because a ring was nearly full of
    them.
    """

    def __init__(self, folder: Path, name: str, pools: Mapping[tuple[int, ...], Any]) -> None:
        self.frames: list[FarFrame] = []
        self.faults: list[str] = []
        self.was_late = False
        self._folder = str(folder)
        self._name = name
        self._pools = pools
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def counts(self) -> list[int]:
        return [frame.cnt0 for frame in self.frames]

    def wait_for(self, cnt0: int, streams: int = 1) -> list[int]:
        """Waits for frame cnt0 of the n-th stream seen; returns the counts of that stream."""

        def counts() -> list[int]:
            files = list(dict.fromkeys(frame.file for frame in self.frames))
            wanted = files[streams - 1] if len(files) >= streams else None
            return [frame.cnt0 for frame in list(self.frames) if frame.file == wanted]

        try:
            wait_until(lambda: self.faults or cnt0 in counts(), f"frame {cnt0}")
        except AssertionError as error:
            raise AssertionError(f"{error}; found {counts()[-5:]}") from None
        self.check()
        return counts()

    def wait_until_read(self) -> None:
        """Waits until all that was published has been looked at."""
        wait_until(
            lambda: (
                not self.frames
                or counter_of(Path(self._folder), self._name) == self.frames[-1].cnt0
            ),
            "the witness",
        )

    def check(self) -> None:
        assert not self.faults, self.faults

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.002):
            try:
                file = _core.StreamFile.open(self._folder, self._name)
                self._follow(file, _core.StreamReader(file, from_oldest=True))
            except _core.StreamError:
                continue

    def _follow(self, file: Any, reader: Any) -> None:
        slots = file.metadata["size"][2] or 1
        while not self._ended.is_set():
            self.was_late |= slots > 1 and reader.unread > 0.9 * slots
            found = reader.read(0.02, True)
            if found is None:
                continue
            pixels, info = found
            pool = self._pools.get(pixels.shape)
            if pool is None:
                self.faults.append(f"frame {info.cnt0} has the shape {pixels.shape}")
            elif not np.array_equal(pixels, frame_stamp.expected_frame(pool, info.cnt0)):
                self.faults.append(f"frame {info.cnt0} is not what was sent")
            self.frames.append(FarFrame(file.inode, info.cnt0, info.cnt1, pixels.shape))

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self.check()


def gaps(counts: Sequence[int]) -> int:
    """Numbers missing between the first and the last of counts. AssertionError unless they
    rise, each once."""
    assert list(counts) == sorted(set(counts)), f"not each once, in order: {counts}"
    return counts[-1] - counts[0] + 1 - len(counts) if counts else 0


def newest(folder: Path, name: str) -> tuple[np.ndarray, Any, dict[str, Any]]:
    """The newest frame of a stream, its info and its keywords as name -> (value, comment)."""
    with Stream.open(name, directory=folder) as stream:
        frame, info = stream.latest()
        listed = decode_keywords(stream._file.keywords_raw())
    return frame, info, {entry.name: (entry.value, entry.comment) for entry in listed}


def counter_of(folder: Path, name: str) -> int:
    """cnt0 of a stream; -1 while there is none."""
    try:
        return int(_core.StreamFile.open(str(folder), name).metadata["cnt0"])
    except _core.StreamError:
        return -1


def files_below(folder: Path) -> set[str]:
    """Everything in a folder, as paths below it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
