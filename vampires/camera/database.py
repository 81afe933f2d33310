"""What the instrument's database says, as a camera on this machine learns it: from the
auxiliary header of its stream, which headerd keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vampires.aux_header import aux_header_path, read_aux_header
from vampires.keywords import KeywordValue


class DatabaseValues:
    """The values in the auxiliary header of a stream; none while there is no such file. For one
    thread at a time."""

    def __init__(self, shm_dir: Path, stream: str) -> None:
        self._shm_dir, self._stream = shm_dir, stream
        self._seen: object = None
        self.values: Mapping[str, KeywordValue] = {}
        """By keyword; those of the last look()."""

    def look(self) -> bool:
        """Reads the file where it has changed; returns whether the values have."""
        seen = self._state()
        if seen == self._seen:
            return False
        self._seen, before = seen, self.values
        self.values = self._read()
        return self.values != before

    def _state(self) -> object:
        """Another one after each change of the file."""
        try:
            found = os.stat(aux_header_path(self._shm_dir, self._stream))
        except OSError as error:
            return error.errno
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> dict[str, KeywordValue]:
        values = read_aux_header(self._shm_dir, self._stream).values
        return {name: value for name, value in values.items() if value is not None}
