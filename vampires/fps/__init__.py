"""Function parameter structures: parameters in shared memory that screens and scripts set.

>>> from vampires import FPS
>>> with FPS.open("streamFITSlog-vcam1") as fps:
...     fps["saveON"] = True

The file is shared with milk's tools, byte for byte (`fps.layout`).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vampires import process_id
from vampires.fps import layout
from vampires.fps.errors import FPSError, FPSInvalid, FPSKeyError, FPSNotFound, FPSRefused
from vampires.fps.file import FPSFile, write_new
from vampires.fps.image import data_directory, new_image
from vampires.fps.layout import HeaderText, ParameterFlag, ParameterType, Signal, Status
from vampires.fps.values import (
    NewParameter,
    Parameter,
    Value,
    check_limits,
    checked_value,
    decoded_text,
    packed,
    parse_value,
    unpacked,
    unpacked_parameter,
)

__all__ = [
    "FPS",
    "FPSError",
    "FPSInvalid",
    "FPSKeyError",
    "FPSNotFound",
    "FPSRefused",
    "Header",
    "Message",
    "NewParameter",
    "Parameter",
    "Value",
    "check_name",
    "fps_directory",
    "list_fps",
]

MAX_SHOWN = 8
MAX_NAME_BYTES = layout.HEADER_TEXT_BYTES[HeaderText.NAME] - 1


@dataclass(frozen=True)
class Message:
    """What the conf process says of a parameter (its index)."""

    index: int
    code: layout.MessageCode
    text: str


@dataclass(frozen=True)
class Header:
    """The header as it was when read. Start times in ns UTC; 0: unknown."""

    name: str
    description: str
    keywordarray: str
    workdir: str
    datadir: str
    confdir: str
    callprogname: str
    callfuncname: str
    confpid: int
    conf_start_ns: int
    runpid: int
    run_start_ns: int
    signal: Signal
    status: Status
    confwaitus: int
    conferrcnt: int


def fps_directory() -> Path:
    """Where FPS files are: $MILK_SHM_DIR, else /milk/shm, else /tmp."""
    named = os.environ.get("MILK_SHM_DIR")
    if named:
        return Path(named)
    return Path("/milk/shm") if os.path.isdir("/milk/shm") else Path("/tmp")


def list_fps(shm_dir: Path | str | None = None) -> list[str]:
    """Names of the FPS there, sorted; those of files that end in .fps.shm."""
    directory = fps_directory() if shm_dir is None else Path(shm_dir)
    try:
        entries = os.listdir(directory)
    except OSError:
        return []
    suffix = layout.SUFFIX
    return sorted(entry[: -len(suffix)] for entry in entries if entry.endswith(suffix))


def check_name(name: str) -> None:
    """FPSRefused for a name that no FPS can have."""
    size = len(name.encode(errors="surrogateescape"))
    legal = 0 < size <= MAX_NAME_BYTES and name.isprintable() and name[0] != "."
    if not legal or "/" in name or layout.SUFFIX in name:
        raise FPSRefused(
            f"{name!r} is no name of an FPS: expected 1 to {MAX_NAME_BYTES} printable "
            f"characters without '/' and {layout.SUFFIX!r}, not beginning with '.'"
        )


class FPS:
    """A function parameter structure that exists. A context manager.

    A key is a parameter's name with or without leading dot ("cubesize", "procinfo.RTprio"), or
    with the name of the FPS before it. Values are Python's: ONOFF bool, TIMESPEC float seconds.
    May be used from several threads.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file. open() is what others call."""
        self.path = path
        self._file = FPSFile(path)
        self._indices: dict[str, int] = {}
        self._types: list[ParameterType] = []
        self._published: dict[str, Value] = {}
        try:
            self.name = self._header_text(HeaderText.NAME)
            if not self.name:
                raise FPSInvalid(f"{path} has no name in it; its program may still be starting")
            self._scan()
        except BaseException:
            self._file.close()
            raise

    # -- open and create ----------------------------------------------------------------------

    @classmethod
    def open(cls, name: str, shm_dir: Path | str | None = None) -> FPS:
        """Opens an FPS. Raises FPSNotFound, FPSInvalid, or FPSError when it cannot be read."""
        check_name(name)
        directory = fps_directory() if shm_dir is None else Path(shm_dir)
        try:
            return cls(directory / (name + layout.SUFFIX))
        except FileNotFoundError:
            there = _some(list_fps(directory)) or "none"
            raise FPSNotFound(f"no FPS {name!r} in {directory}; FPS there: {there}") from None

    @classmethod
    def create(
        cls,
        name: str,
        parameters: Sequence[NewParameter],
        *,
        description: str = "",
        callprogname: str = "vampires",
        callfuncname: str,
        workdir: Path | str,
        keywordarray: str = ":",
        shm_dir: Path | str | None = None,
        replace: bool = False,
    ) -> FPS:
        """Makes an FPS; the file appears complete. Raises FPSRefused when the name is taken.

        workdir: made, with the FPS's data directory in it, where milk's tools leave notes.
        replace: takes the place of an FPS that is there.
        """
        check_name(name)
        directory = fps_directory() if shm_dir is None else Path(shm_dir)
        image = new_image(
            name,
            parameters,
            description=description,
            callprogname=callprogname,
            callfuncname=callfuncname,
            workdir=workdir,
            keywordarray=keywordarray,
        )
        try:
            # milk-fpsCTRL writes a note of each value there, and does not check that it can.
            (Path(workdir) / data_directory(name) / "fps").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FPSError(f"cannot make the FPS {name!r}: {error}") from None
        try:
            write_new(image, directory / (name + layout.SUFFIX), replace=replace)
        except FileExistsError:
            raise FPSRefused(f"there is an FPS {name!r} in {directory} already") from None
        except OSError as error:
            raise FPSError(f"cannot make the FPS {name!r}: {error}") from None
        return cls.open(name, directory)

    def close(self) -> None:
        """Ends the use of this object; the FPS itself stays."""
        self._file.close()

    def __enter__(self) -> FPS:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def is_current(self) -> bool:
        """Whether the file under its name is still this one."""
        return self._file.is_current()

    def owner_uid(self) -> int:
        """The user id of the file's owner."""
        return self._file.owner_uid()

    def _header_text(self, at: HeaderText) -> str:
        return decoded_text(self._file.read(at, layout.HEADER_TEXT_BYTES[at]))

    def _parameter_at(self, index: int) -> int:
        return layout.HEADER_BYTES + index * layout.PARAMETER_BYTES

    # -- header -------------------------------------------------------------------------------

    def header(self) -> Header:
        """The header as it is now."""
        raw = self._file.read(0, layout.MODULES_AT)
        tail = self._file.read(layout.SIGNAL[0], layout.MESSAGES_AT - layout.SIGNAL[0])

        def text(at: HeaderText) -> str:
            return decoded_text(raw[at : at + layout.HEADER_TEXT_BYTES[at]])

        def number(field: tuple[int, str], base: int = 0, source: bytes = raw) -> int:
            return int(struct.unpack_from(field[1], source, field[0] - base)[0])

        def time_ns(field: tuple[int, str]) -> int:
            seconds, nanoseconds = struct.unpack_from(field[1], raw, field[0])
            return int(seconds * 1_000_000_000 + nanoseconds)

        base = layout.SIGNAL[0]
        return Header(
            name=text(HeaderText.NAME),
            description=text(HeaderText.DESCRIPTION),
            keywordarray=text(HeaderText.KEYWORDARRAY),
            workdir=text(HeaderText.WORKDIR),
            datadir=text(HeaderText.DATADIR),
            confdir=text(HeaderText.CONFDIR),
            callprogname=text(HeaderText.CALLPROGNAME),
            callfuncname=text(HeaderText.CALLFUNCNAME),
            confpid=number(layout.CONFPID),
            conf_start_ns=time_ns(layout.CONFPID_START),
            runpid=number(layout.RUNPID),
            run_start_ns=time_ns(layout.RUNPID_START),
            signal=Signal(number(layout.SIGNAL, base, tail)),
            status=Status(number(layout.STATUS, base, tail)),
            confwaitus=number(layout.CONFWAITUS, base, tail),
            conferrcnt=int(self._file.get(*layout.CONF_ERRORS)[0]),
        )

    def modules(self) -> list[str]:
        """Names of the modules that its program loads."""
        (count,) = self._file.get(*layout.NBMODULE)
        count = max(0, min(count, layout.MODULE_SLOTS))
        size = layout.MODULE_BYTES
        raw = self._file.read(layout.MODULES_AT, count * size)
        return [decoded_text(raw[k * size : (k + 1) * size]) for k in range(count)]

    def messages(self) -> list[Message]:
        """What the conf process found wrong at its last check."""
        (count,) = self._file.get(*layout.MESSAGE_COUNT)
        count = max(0, min(count, layout.MESSAGE_SLOTS))
        indices = self._file.get(*layout.MESSAGE_INDICES)
        codes = self._file.get(*layout.MESSAGE_CODES)
        size = layout.MESSAGE_BYTES
        raw = self._file.read(layout.MESSAGES_AT, count * size)
        return [
            Message(
                indices[k],
                layout.MessageCode(codes[k]),
                decoded_text(raw[k * size : (k + 1) * size]),
            )
            for k in range(count)
        ]

    def set_messages(self, messages: Sequence[Message]) -> None:
        """Replaces the messages; conferrcnt becomes the number of those that are errors."""
        kept = messages[: layout.MESSAGE_SLOTS]
        errors = [m for m in messages if not m.code & layout.MessageCode.INFO]
        self._file.put(*layout.MESSAGE_COUNT, 0)  # nobody reads half a list
        for k, message in enumerate(kept):
            raw = message.text.encode(errors="replace")[: layout.MESSAGE_BYTES - 1]
            at = layout.MESSAGES_AT + k * layout.MESSAGE_BYTES
            self._file.write(at, raw.ljust(layout.MESSAGE_BYTES, b"\0"))
            self._file.put(layout.MESSAGE_INDICES[0] + 4 * k, "<i", message.index)
            self._file.put(layout.MESSAGE_CODES[0] + 4 * k, "<I", message.code)
        self._file.put(*layout.MESSAGE_COUNT, len(kept))
        self._file.put(*layout.CONF_ERRORS, len(errors))

    def conf_running(self) -> bool:
        """Whether the recorded conf process runs."""
        return self._recorded_runs(layout.CONFPID[0], layout.CONF_RECORD)

    def run_running(self) -> bool:
        """Whether the recorded run process runs."""
        return self._recorded_runs(layout.RUNPID[0], layout.RUN_RECORD)

    def _recorded_runs(self, at: int, code: str) -> bool:
        pid, seconds, nanoseconds = self._file.get(at, code)
        return process_id.is_running(pid, seconds * 1_000_000_000 + nanoseconds, self.name)

    def record_conf_process(self) -> None:
        """Records this process as the conf process."""
        self._record_process(layout.CONFPID[0], layout.CONF_RECORD)

    def record_run_process(self) -> None:
        """Records this process as the run process."""
        self._record_process(layout.RUNPID[0], layout.RUN_RECORD)

    def _record_process(self, at: int, code: str) -> None:
        # Id and time in one write: nobody takes the one for the other's.
        self._file.put(at, code, os.getpid(), *divmod(time.time_ns(), 1_000_000_000))

    def status(self) -> Status:
        return Status(self._file.get(*layout.STATUS)[0])

    def signal(self) -> Signal:
        return Signal(self._file.get(*layout.SIGNAL)[0])

    def change_status(self, set: Status | int = 0, clear: Status | int = 0) -> Status:
        """Sets and clears bits of the status; returns what it is then."""
        return Status(self._file.change_bits(layout.STATUS[0], 4, int(set), int(clear)))

    def change_signal(self, set: Signal | int = 0, clear: Signal | int = 0) -> Signal:
        """Sets and clears bits of the signal; returns what it is then."""
        return Signal(self._file.change_bits(layout.SIGNAL[0], 8, int(set), int(clear)))

    def end_check(self) -> None:
        """Says that the parameters are checked, unless a check was asked for meanwhile."""
        self._file.change_bits(
            layout.SIGNAL[0], 8, 0, int(Signal.CHECKED), unless=int(Signal.UPDATE)
        )

    # -- parameters ---------------------------------------------------------------------------

    def _scan(self) -> None:
        """Learns the names: contiguous from the first parameter to the first without one."""
        indices: dict[str, int] = {}
        types: list[ParameterType] = []
        prefix = self.name + "."
        for index in range(self._file.slots):
            at = self._parameter_at(index)
            raw_key = self._file.read(at + layout.KEYWORDFULL_AT, layout.KEYWORDFULL_BYTES)
            full_key = decoded_text(raw_key)
            if not full_key:
                break
            (code,) = self._file.get(at + layout.TYPE_AT, "<I")
            try:
                kind = ParameterType(code)
            except ValueError:
                raise FPSInvalid(
                    f"{self.path}: parameter {full_key!r} has the unknown type {code:#x}; "
                    "it is broken or of another version of milk; remove the file"
                ) from None
            types.append(kind)
            indices.setdefault(full_key.removeprefix(prefix), index)
        self._types = types  # first: other threads look up an index, then its type
        self._indices = indices

    def _found(self, key: str) -> int | None:
        short = key.removeprefix(".")
        if short not in self._indices:
            short = key.removeprefix(self.name + ".")
        return self._indices.get(short)

    def _index(self, key: str) -> int:
        index = self._found(key)
        if index is None:
            self._scan()  # its program may just have added it
            index = self._found(key)
        if index is None:
            raise FPSKeyError(
                f"the FPS {self.name!r} has no parameter {key!r}; it has: {_some(self.keys())}"
            )
        return index

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._indices))

    def __len__(self) -> int:
        return len(self._indices)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._found(key) is not None

    def keys(self) -> list[str]:
        return list(self._indices)

    def items(self) -> list[tuple[str, Value]]:
        return [(key, self[key]) for key in self]

    def __getitem__(self, key: str) -> Value:
        index = self._index(key)
        at = self._parameter_at(index)
        kind = self._types[index]
        flags = 0
        if kind is ParameterType.ONOFF:
            (flags,) = self._file.get(at + layout.FLAGS_AT, "<Q")
        raw = self._file.read(at + layout.VALUE_AT, layout.VALUE_BYTES)
        return unpacked(kind, raw, flags)

    def parameter(self, key: str) -> Parameter:
        """All of a parameter, as it is now."""
        return self._parameter(self._index(key))

    def parameters(self) -> list[Parameter]:
        """All parameters, in order, as they are now."""
        self._scan()
        return [self._parameter(index) for index in sorted(self._indices.values())]

    def _parameter(self, index: int) -> Parameter:
        raw = self._file.read(self._parameter_at(index), layout.PARAMETER_BYTES)
        return unpacked_parameter(index, self.name + ".", self._types[index], raw)

    def writable(self, key: str) -> bool:
        """Whether a client may set the parameter now."""
        parameter = self.parameter(key)
        return parameter.writable(
            conf_running=self.conf_running(), run_running=self.run_running()
        )

    def __setitem__(self, key: str, value: Value) -> None:
        """Sets a parameter and asks its conf process to check it. Raises FPSRefused."""
        self.set(key, value)

    def check(self, key: str, value: Value) -> None:
        """Raises FPSRefused when a client could not set the parameter to this value now."""
        parameter = self.parameter(key)
        check_limits(parameter, checked_value(parameter, value))
        self._check_permission(parameter)

    def set(self, key: str, value: Value, *, force: bool = False) -> None:
        """Sets a parameter. force: for the process whose parameter it is; permissions and
        limits are not asked, and no check is requested. Raises FPSRefused."""
        parameter = self.parameter(key)
        checked = checked_value(parameter, value)
        if force:  # it has one owner, who waits for nobody
            self._store(parameter, checked)
            return
        self._check_permission(parameter)
        check_limits(parameter, checked)
        with self._file.changing():
            self._store(parameter, checked, locked=True)
        self.change_signal(set=Signal.UPDATE)

    def _check_permission(self, parameter: Parameter) -> None:
        run_running = self.run_running()
        if parameter.writable(conf_running=self.conf_running(), run_running=run_running):
            return
        if not parameter.flags & ParameterFlag.WRITE:
            why = "it is an output"
        elif run_running:
            why = "not while its process runs; stop it first"
        else:
            why = "not while its conf process runs; stop that first"
        raise FPSRefused(f"{parameter.full_key} cannot be set: {why}")

    def _store(self, parameter: Parameter, value: Value, *, locked: bool = False) -> None:
        at = self._parameter_at(parameter.index)
        kind = parameter.type
        raw = packed(kind, value, parameter.full_key)
        if kind in layout.HALF_TYPES and not parameter.minimum:
            raw += bytes(4)  # pyMilk reads 64 bits of these
        self._file.write(at + layout.VALUE_AT, raw)
        if kind is ParameterType.ONOFF:
            bit = int(ParameterFlag.ONOFF)
            change = self._file.change_bits_locked if locked else self._file.change_bits
            change(at + layout.FLAGS_AT, 8, bit if value else 0, 0 if value else bit)
        (cnt0,) = self._file.get(at + layout.CNT0_AT, "<q")
        self._file.put(at + layout.CNT0_AT, "<q", (cnt0 + 1) & (2**63 - 1))

    def publish(self, key: str, value: Value) -> None:
        """Sets an output of this process, as set() with force; cheap when it is the same."""
        if self._published.get(key) == value:
            return
        self.set(key, value, force=True)
        self._published[key] = value

    def set_flags(
        self, key: str, *, set: ParameterFlag | int = 0, clear: ParameterFlag | int = 0
    ) -> None:
        """Changes bits of a parameter's flags; for the process whose parameter it is."""
        at = self._parameter_at(self._index(key))
        self._file.change_bits(at + layout.FLAGS_AT, 8, int(set), int(clear))

    def raw_onoff(self, key: str) -> tuple[bool, bool]:
        """Value and flag of an ONOFF parameter: writers exist that set only one of them."""
        at = self._parameter_at(self._index(key))
        (flags,) = self._file.get(at + layout.FLAGS_AT, "<Q")
        return self._file.read(at + layout.VALUE_AT, 8) != bytes(8), bool(
            flags & ParameterFlag.ONOFF
        )

    def parse(self, key: str, text: str) -> Value:
        """What a person typed, as a value of the parameter's type. Raises FPSRefused."""
        return parse_value(self.parameter(key), text)


def _some(names: Sequence[str]) -> str:
    """A few of them, for a message."""
    shown = ", ".join(names[:MAX_SHOWN])
    return shown + (f", and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")
