"""The auxiliary header of a stream while a cube is written: which values are others now."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from vampires.aux_header import AuxHeader, aux_header_path, read_aux_header
from vampires.keywords import KeywordValue

# Two changes within so short a time may leave a file with the same times.
SAME_TIME_NS = 20_000_000

Values = Mapping[str, KeywordValue | None]
_ABSENT = object()


class AuxWatch:
    """Watches some keywords of ``<shm dir>/<stream>.aux.fits``."""

    def __init__(self, shm_dir: Path, stream: str, keywords: Iterable[str]) -> None:
        self._shm_dir = shm_dir
        self._stream = stream
        self._keywords = tuple(keywords)
        self._file: tuple[int, ...] = ()  # which file was read last, and how old it was
        self._look_again = True
        self._values: Values = {}
        self.settled = False
        """Whether two looks found the same values: a file may be read while it is written."""

    def look(self) -> None:
        """Reads the file again if it is another one, or was changed; cheap otherwise."""
        if not self._keywords:
            return
        file = self._identity()
        if file == self._file and not self._look_again:
            return
        self._file = file
        values = self.values_of(read_aux_header(self._shm_dir, self._stream))
        self.settled = values == self._values
        self._values = values
        just_written = bool(file) and time.time_ns() - file[0] < SAME_TIME_NS
        self._look_again = not self.settled or just_written

    def _identity(self) -> tuple[int, ...]:
        """Before it is read: what changes later is another one. Time of change first."""
        try:
            stat = aux_header_path(self._shm_dir, self._stream).stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size

    def values_of(self, header: AuxHeader) -> Values:
        """The watched keywords that a header has."""
        values = header.values
        return {name: values[name] for name in self._keywords if name in values}

    def changed(self, before: Values, overridden: Container[str]) -> str:
        """The first watched keyword whose value is not that of before; '' when there is none,
        or the file did not settle yet. overridden: names that the stream gives itself."""
        if not self.settled:
            return ""
        for name in self._keywords:
            now, then = (values.get(name, _ABSENT) for values in (self._values, before))
            if name not in overridden and now != then:
                return name
        return ""
