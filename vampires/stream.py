"""Shared-memory camera streams for scripts: create, write, read.

The file format is ImageStreamIO 2.00 (``<dir>/<name>.im.shm``); streams made here are read by
milk and pyMilk and the other way round. The folder is ``$MILK_SHM_DIR``, else ``/milk/shm``,
else ``/tmp``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vampires import _core
from vampires.closing import Closing
from vampires.keywords import decode_keywords, encode_keyword

FrameInfo = _core.FrameInfo
StreamError = _core.StreamError
StreamNotFound = _core.StreamNotFound
StreamInvalid = _core.StreamInvalid
StreamGone = _core.StreamGone
StreamUnsupported = _core.StreamUnsupported

KeywordValue = bool | int | float | str
# A keyword is given as its value, or as (value, comment).
KeywordGiven = KeywordValue | tuple[KeywordValue, str]

MAX_SIZE = 2**32 - 1  # of an axis, or a ring

MAX_KEYWORDS = 2**16 - 1
# Room for keywords in a new stream beyond those it is created with.
SPARE_KEYWORDS = 32


class Keywords(MutableMapping[str, KeywordValue]):
    """The keywords of a stream as they are now; setting one writes it to shared memory.

    Set ``keywords["NAME"] = value`` (keeps the comment) or ``= (value, "comment")``.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def _decoded(self) -> dict[str, Any]:
        return {k.name: k for k in decode_keywords(self._stream._file.keywords_raw())}

    def __getitem__(self, name: str) -> KeywordValue:
        return self._decoded()[name].value

    def comment(self, name: str) -> str:
        """The comment of a keyword; KeyError when there is no such keyword."""
        return self._decoded()[name].comment

    def __setitem__(self, name: str, given: KeywordGiven) -> None:
        if not isinstance(given, tuple):
            known = self._decoded().get(name)
            given = (given, known.comment if known else "")
        self._stream._writable().set_keyword(_encoded({name: given}))

    def __delitem__(self, name: str) -> None:
        kept = self._decoded()
        del kept[name]
        entries = {k.name: (k.value, k.comment) for k in kept.values()}
        self._stream._writable().set_keywords(_encoded(entries))

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return repr({k.name: k.value for k in self._decoded().values()})


def _encoded(keywords: Mapping[str, KeywordGiven] | None) -> bytes:
    entries = []
    for name, given in (keywords or {}).items():
        value, comment = given if isinstance(given, tuple) else (given, "")
        entries.append(encode_keyword(name, value, comment))
    return b"".join(entries)


class Stream(Closing):
    """A camera stream in shared memory.

    A ring of 2D frames (a temporal circular stream) is a sequence of frames [y, x]; any other
    3D stream reads whole as [z, y, x], unless opened with ``rolling=True``.

    One process writes a stream; any number read it. A Stream object is for one thread.
    """

    def __init__(self, file: _core.StreamFile, *, rolling: bool = False) -> None:
        self._file = file
        self._rolling = rolling
        self._reader: _core.StreamReader | None = None
        self._writer: _core.StreamWriter | None = None
        self._closed = False

    # -- making one -------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        name: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike = np.uint16,
        *,
        ring: int = 64,
        keywords: Mapping[str, KeywordGiven] | None = None,
        keyword_room: int | None = None,
        cbsize: int = 0,
        directory: str | os.PathLike[str] | None = None,
    ) -> Stream:
        """Creates a stream, replacing one of the same name (its readers notice and follow).

        Parameters
        ----------
        name : letters, digits, ``_ - + .``; at most 79. Loggers want letters and digits only.
        shape : (ny, nx) of a frame; (nx,) or (nz, ny, nx) with ``ring=0``.
        dtype : one of the 13 types of a stream: (u)int8..64, float16..64, complex64/128.
        ring : frames kept in a temporal ring, so that a late reader loses none; 0: one slot.
        keywords : name -> value or (value, comment). Names and texts of at most 15 characters.
        keyword_room : keyword slots in the file; default: those given and 32 more.
        cbsize : copies kept by a milk ``CBsize`` ring (with ``ring=0``).
        directory : stream folder; default ``$MILK_SHM_DIR``, ``/milk/shm`` or ``/tmp``.

        Raises
        ------
        StreamInvalid, ValueError, OSError
        """
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise ValueError(f"shape {shape}: expected one to three sizes of at least 1")
        if max(*shape, ring, cbsize) > MAX_SIZE:
            raise ValueError(
                f"shape {shape}, ring {ring}, cbsize {cbsize}: a stream has 32-bit sizes"
            )
        if ring < 0 or cbsize < 0:
            raise ValueError(f"ring {ring}, cbsize {cbsize}: expected 0 or more")
        if ring and len(shape) != 2:
            raise ValueError(f"shape {shape}: a ring holds 2D frames; use ring=0")
        sizes = [*reversed(shape), *([ring] if ring else [])]
        kind = _core.CIRCULAR_BUFFER | _core.ZAXIS_TEMPORAL if ring else _core.MATH_DATA
        encoded = _encoded(keywords)
        room = len(keywords or {}) + SPARE_KEYWORDS if keyword_room is None else keyword_room
        if not 0 <= room <= MAX_KEYWORDS:
            raise ValueError(f"keyword_room {room}: expected 0 to {MAX_KEYWORDS}")
        writer = _core.create_stream(
            os.fspath(directory or _core.stream_directory()),
            name,
            sizes,
            np.dtype(dtype),
            kind,
            room,
            cbsize,
        )
        stream = cls(writer.file)
        stream._writer = writer
        try:
            writer.set_keywords(encoded)
        except ValueError:
            stream.remove()
            raise
        return stream

    @classmethod
    def open(
        cls,
        name: str,
        *,
        directory: str | os.PathLike[str] | None = None,
        rolling: bool = False,
    ) -> Stream:
        """Opens an existing stream.

        rolling: read a 3D stream that is no ring slice by slice, cnt1 being its newest.

        Raises StreamNotFound, StreamInvalid (not a stream, or not finished being created).
        """
        folder = os.fspath(directory or _core.stream_directory())
        return cls(_core.StreamFile.open(folder, name), rolling=rolling)

    @staticmethod
    def list(directory: str | os.PathLike[str] | None = None) -> list[str]:
        """Names of the streams in the folder, sorted."""
        return _core.list_streams(os.fspath(directory or _core.stream_directory()))

    # -- what it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame as read: (ny, nx) for rings and 2D streams."""
        return self._file.shape[-2:] if self._rolling else self._file.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._file.dtype

    @property
    def cnt0(self) -> int:
        """Counter of the newest published frame; 0 before the first."""
        return self._file.metadata["cnt0"]

    @property
    def metadata(self) -> dict[str, Any]:
        """The raw metadata fields, for tools."""
        return self._file.metadata

    @property
    def keywords(self) -> Keywords:
        return Keywords(self)

    @keywords.setter
    def keywords(self, given: Mapping[str, KeywordGiven]) -> None:
        self._writable().set_keywords(_encoded(given))

    def __repr__(self) -> str:
        return f"<Stream {self.name} {self.shape} {self.dtype} cnt0={self.cnt0}>"

    # -- reading ------------------------------------------------------------------------------

    def _reading(self) -> _core.StreamReader:
        self._check_open()
        if self._reader is None:
            self._reader = _core.StreamReader(self._file, rolling=self._rolling)
        return self._reader

    def read(
        self, timeout: float | None = None, *, copy: bool = True
    ) -> tuple[npt.NDArray[Any], FrameInfo]:
        """The next whole frame and its info, in order; from a ring also frames already past.

        The first call begins with the first frame published after it. timeout in seconds;
        None waits for ever. copy=False returns a view of shared memory, which the camera
        overwrites in its time.

        Raises TimeoutError, StreamGone (removed, re-created or truncated).
        """
        result = self._reading().read(-1.0 if timeout is None else max(timeout, 0.0), copy)
        if result is None:
            raise TimeoutError(f"no frame from stream '{self.name}' within {timeout} s")
        return result

    def latest(self, *, copy: bool = True) -> tuple[npt.NDArray[Any], FrameInfo]:
        """The newest frame, whole, at once; frames read with read() are not skipped by it."""
        result = self._reading().newest(1.0, copy)
        if result is None:
            raise TimeoutError(
                f"stream '{self.name}' showed no whole frame for 1 s: "
                "it is overwritten faster than it can be copied, or its writer died writing"
            )
        return result

    def frames(
        self, timeout: float | None = None
    ) -> Iterator[tuple[npt.NDArray[Any], FrameInfo]]:
        """Frames and infos, one after the other, without end."""
        while True:
            yield self.read(timeout)

    def view(self) -> npt.NDArray[Any]:
        """The whole pixel array in shared memory, read-only, [z, y, x] for a ring."""
        self._check_open()
        return self._file.view()

    # -- writing ------------------------------------------------------------------------------

    def _writable(self) -> _core.StreamWriter:
        self._check_open()
        if self._writer is None:
            self._writer = _core.StreamWriter(self._file)
        return self._writer

    def write(
        self,
        frame: npt.NDArray[Any],
        acquired_ns: int | None = None,
        keywords: Mapping[str, KeywordGiven] | None = None,
    ) -> int:
        """Publishes a frame of this stream's shape and dtype; returns its cnt0.

        acquired_ns: acquisition time, ns since 1970 UTC; default now. The keywords given are
        set with the frame. Raises ValueError when shape, dtype or keywords do not fit.
        """
        return self._writable().write(frame, acquired_ns or 0, _encoded(keywords))

    def next_slot(self) -> npt.NDArray[Any]:
        """The memory of the next frame, to be filled in place and then published."""
        return self._writable().next_slot()

    def publish(
        self,
        acquired_ns: int | None = None,
        keywords: Mapping[str, KeywordGiven] | None = None,
    ) -> int:
        """Publishes what was put into next_slot(); returns its cnt0."""
        return self._writable().publish(acquired_ns or 0, _encoded(keywords))

    # -- ending -------------------------------------------------------------------------------

    def is_current(self) -> bool:
        """Whether the file of that name is still this stream."""
        return self._file.fate == "same"

    def remove(self) -> None:
        """Closes the stream and removes its file, if that is still this stream."""
        if self.is_current():
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Gives the semaphore back. Views handed out stay valid."""
        self._reader = None
        self._writer = None
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"stream '{self.name}' is closed")
