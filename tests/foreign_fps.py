"""An FPS as other programs read, set and connect to it: through a mapping, byte by byte.

Offsets stand here a second time, from the description of the format; nothing of vampires is
used. The clients do what pyMilk's FPS class, milk's command line and milk-fpsCTRL do, faults
included.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

HEADER_BYTES = 62648
PARAMETER_BYTES = 4112
# name -> (offset, struct format) in the header
FIELDS = {
    "name": (0, "100s"),
    "description": (100, "200s"),
    "keywordarray": (300, "200s"),
    "workdir": (500, "200s"),
    "datadir": (700, "200s"),
    "confdir": (900, "200s"),
    "sourcefname": (1100, "200s"),
    "sourceline": (1300, "i"),
    "pname": (1304, "100s"),
    "callprogname": (1404, "80s"),
    "callfuncname": (1484, "100s"),
    "NBnameindex": (1744, "i"),
    "confpid": (1748, "i"),
    "confpidstarttime": (1752, "2q"),
    "runpid": (1768, "i"),
    "runpidstarttime": (1776, "2q"),
    "NBmodule": (1792, "i"),
    "signal": (11800, "Q"),
    "confwaitus": (11808, "Q"),
    "status": (11816, "I"),
    "NBparamMAX": (11824, "q"),
    "msgcnt": (62632, "q"),
    "conferrcnt": (62640, "I"),
}
# name -> (offset, struct format) in a parameter
PARAMETER_FIELDS = {
    "fpflag": (0, "Q"),
    "userflag": (8, "Q"),
    "keywordfull": (16, "1280s"),
    "keywordlevel": (2576, "i"),
    "keywordfrom": (2580, "1280s"),
    "description": (3860, "64s"),
    "type": (3924, "I"),
    "cnt0": (4104, "q"),
}
VALUE_AT = 3928
# code -> (name, struct format of all elements)
TYPES = {
    0x2: ("INT32", "4i"),
    0x4: ("UINT32", "4I"),
    0x8: ("INT64", "4q"),
    0x10: ("UINT64", "4Q"),
    0x20: ("FLOAT32", "4f"),
    0x40: ("FLOAT64", "4d"),
    0x80: ("PID", "2i"),
    0x100: ("TIMESPEC", "4q"),
    0x200: ("FILENAME", "64s64s"),
    0x400: ("FITSFILENAME", "64s64s"),
    0x800: ("EXECFILENAME", "64s64s"),
    0x1000: ("DIRNAME", "64s64s"),
    0x2000: ("STREAMNAME", "64s64s"),
    0x4000: ("STRING", "64s64s"),
    0x8000: ("ONOFF", "4q"),
    0x10000: ("PROCESS", "64s64s"),
    0x20000: ("FPSNAME", "64s64s"),
}
ON = 0x4000  # in a parameter's flags
CONFRUN, UPDATE, CHECKED = 0x1, 0x4, 0x8  # in the signal
STATUS_CONF, STATUS_RUN, CMDCONF, CMDRUN, CHECKOK = 0x1, 0x2, 0x10, 0x20, 0x200


def text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode()


class ForeignFPS:
    """A mapping of the whole file. A context manager."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.raw = mmap.mmap(file.fileno(), 0)

    def close(self) -> None:
        self.raw.close()

    def __enter__(self) -> ForeignFPS:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- bytes --------------------------------------------------------------------------------

    def get(self, field: str):
        """A field of the header: a text, a number, or several."""
        at, form = FIELDS[field]
        return self._unpacked(at, form)

    def set(self, field: str, *values: object) -> None:
        at, form = FIELDS[field]
        struct.pack_into("<" + form, self.raw, at, *values)

    def _unpacked(self, at: int, form: str):
        found = struct.unpack_from("<" + form, self.raw, at)
        found = tuple(text(x) if isinstance(x, bytes) else x for x in found)
        return found[0] if len(found) == 1 else found

    def name_indices(self) -> list[str]:
        return [text(self.raw[at : at + 10]) for at in range(1584, 1744, 10)]

    def modules(self) -> list[str]:
        count = self.get("NBmodule")
        return [text(self.raw[at : at + 200]) for at in range(1796, 1796 + 200 * count, 200)]

    def messages(self) -> list[tuple[int, int, str]]:
        """(index of the parameter, code, text) of each."""
        count = self.get("msgcnt")
        indices = struct.unpack_from("<100i", self.raw, 61832)
        codes = struct.unpack_from("<100I", self.raw, 62232)
        texts = [text(self.raw[at : at + 500]) for at in range(11832, 11832 + 500 * count, 500)]
        return list(zip(indices[:count], codes[:count], texts, strict=True))

    def at(self, index: int) -> int:
        return HEADER_BYTES + PARAMETER_BYTES * index

    def parameter(self, index: int, field: str):
        at, form = PARAMETER_FIELDS[field]
        return self._unpacked(self.at(index) + at, form)

    def set_parameter(self, index: int, field: str, value: int) -> None:
        at, form = PARAMETER_FIELDS[field]
        struct.pack_into("<" + form, self.raw, self.at(index) + at, value)

    def keywords(self, index: int) -> list[str]:
        begin = self.at(index) + 1296
        level = self.parameter(index, "keywordlevel")
        return [text(self.raw[at : at + 64]) for at in range(begin, begin + 64 * level, 64)]

    def value_bytes(self, index: int) -> bytes:
        at = self.at(index) + VALUE_AT
        return self.raw[at : at + 128]

    def elements(self, index: int):
        """All elements of the value, as the golden files' JSON has them."""
        name, form = TYPES[self.parameter(index, "type")]
        found = self._unpacked(self.at(index) + VALUE_AT, form)
        if name == "TIMESPEC":
            return [list(found[:2]), list(found[2:])]
        return list(found)

    def count(self) -> int:
        """Parameters before the first that has no name."""
        slots = range(self.get("NBparamMAX"))
        return next((k for k in slots if not self.parameter(k, "keywordfull")), len(slots))

    # -- clients ------------------------------------------------------------------------------

    def find(self, key: str) -> int:
        """The first parameter whose name contains the key, as milk looks it up."""
        return next(k for k in range(self.count()) if key in self.parameter(k, "keywordfull"))

    def exact(self, key: str) -> int:
        name = f"{self.get('name')}.{key}"
        return next(k for k in range(self.count()) if self.parameter(k, "keywordfull") == name)

    def _count_up(self, index: int) -> None:
        self.set_parameter(index, "cnt0", self.parameter(index, "cnt0") + 1)

    def set_value_only(self, key: str, number: int) -> None:
        """A client that knows of nothing but the value."""
        struct.pack_into("<q", self.raw, self.at(self.exact(key)) + VALUE_AT, number)

    def set_like_pymilk(self, key: str, value: object) -> None:
        """Value and count; for an ONOFF its flag as well. No request to check."""
        index = self.exact(key)
        self._put(index, value)
        self._count_up(index)

    def set_like_milk(self, key: str, value: object) -> None:
        """setval of milk-fpsCTRL: value, flag, count; then it asks for a check."""
        index = self.exact(key)
        self._put(index, value)
        self._count_up(index)
        self.set("signal", self.get("signal") | UPDATE)

    def _put(self, index: int, value: object) -> None:
        at = self.at(index) + VALUE_AT
        name, form = TYPES[self.parameter(index, "type")]
        if name == "ONOFF":
            flags = self.parameter(index, "fpflag")
            self.set_parameter(index, "fpflag", flags | ON if value else flags & ~ON)
            struct.pack_into("<q", self.raw, at, int(bool(value)))
        elif isinstance(value, str):
            struct.pack_into("<64s", self.raw, at, value.encode()[:63])
        else:
            struct.pack_into("<" + form[-1], self.raw, at, value)

    def get_like_pymilk(self, key: str):
        """pyMilk's reading: 32-bit integers through 64 bits, an ONOFF by its flag; it leaves
        what it read in the element for the value in use."""
        index = self.exact(key)
        at = self.at(index) + VALUE_AT
        name, form = TYPES[self.parameter(index, "type")]
        if name == "ONOFF":
            return bool(self.parameter(index, "fpflag") & ON)
        if name in ("INT32", "UINT32"):
            form = "4q"
        if form == "64s64s":
            return text(self.raw[at : at + 64])
        (value,) = struct.unpack_from("<" + form[-1], self.raw, at)
        size = struct.calcsize(form[-1])
        struct.pack_into("<" + form[-1], self.raw, at + 3 * size, value)
        return value

    def connect(self) -> None:
        """What every program of milk writes when it connects: the parts of the name, each up
        to 15 characters and a NUL, ten bytes apart."""
        parts = self.get("name").split("-")
        struct.pack_into("<100s", self.raw, FIELDS["pname"][0], parts[0].encode())
        for k, part in enumerate(parts[1:]):
            raw = part.encode()[:15] + b"\0"
            self.raw[1584 + 10 * k : 1584 + 10 * k + len(raw)] = raw
        self.set("NBnameindex", len(parts) - 1)

    def record_run(self, pid: int | None = None) -> None:
        """Connects as run process: this one, or the one given."""
        now_ns = time.time_ns()
        self.set("runpid", os.getpid() if pid is None else pid)
        self.set("runpidstarttime", *divmod(now_ns, 1_000_000_000))
        self.set("status", self.get("status") | STATUS_RUN)
