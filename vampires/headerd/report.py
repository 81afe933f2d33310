"""What the aux header service says of itself: lines, objects for programs, a status file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vampires.link_report import print_if_read
from vampires.times import iso_utc
from vampires.whole_file import write_whole
from vampires.zmq_report import LimitedLines

OBJECT_S = 1.0

Status = Mapping[str, Any]


class HeaderReport(LimitedLines):
    """Lines on standard error; once a second an object, on standard output (as_json) and in
    the file `status_file`, which is replaced in one step."""

    def __init__(self, prog: str, *, as_json: bool, status_file: Path | None) -> None:
        super().__init__(lambda line: print_if_read(f"{prog}: {line}", sys.stderr))
        self._as_json = as_json
        self._status_file = status_file
        self._due_s = time.monotonic()

    def look(self, status: Callable[[], Status]) -> None:
        """Gives the object of this second, if it is due; to be called often."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s += OBJECT_S * (1 + (now_s - self._due_s) // OBJECT_S)
            self.give(status())

    def give(self, status: Status) -> None:
        """Gives an object now."""
        text = json.dumps({"time": iso_utc(time.time_ns(), 3) + "Z", **status})
        if self._as_json:
            print_if_read(text, sys.stdout)
        if self._status_file is not None:
            try:
                write_whole(
                    self._status_file, f"{text}\n".encode(), replace=True, purpose="status"
                )
            except OSError as error:
                self.trouble("status file", f"{self._status_file}: {error.strerror}")
