"""The conf process of a logger: checks the parameters, and says which may be set now."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vampires.compression import compression_fault
from vampires.fps import FPS, FPSError, Message, Parameter
from vampires.fps.layout import MessageCode, ParameterFlag, Signal, Status
from vampires.logger_parameters import new_cube_keywords, next_directories
from vampires.long_directories import full_form

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

# How often signals, and the processes, are looked at.
SIGNAL_S = 0.01
PROCESS_S = 0.05

_TEXTS_OF_ZERO = {
    "cubesize": "cubesize is 0, at least 1 frame a cube is needed",
    "maxfilecnt": "maxfilecnt is 0, at least 1 file is needed; 1000000 is no limit",
    "maxframecnt": "maxframecnt is 0, at least 1 frame is needed; 100000000 is no limit",
}


class Waiting(Protocol):
    """Anything with wait(), such as threading.Event."""

    def wait(self, timeout: float) -> bool: ...


def run_conf(fps: FPS, stop: Waiting) -> None:
    """Runs until told to stop by the FPS, or by `stop`; or the FPS is gone, or another's."""
    fps.record_conf_process()
    fps.change_signal(set=Signal.UPDATE | Signal.CONFRUN)
    known: tuple[bool, bool] | None = None
    looks = 0
    try:
        while fps.signal() & Signal.CONFRUN and fps.is_current():
            looks += 1
            if looks % round(PROCESS_S / SIGNAL_S) == 1:
                if fps.header().confpid != os.getpid():
                    return
                alive = (True, fps.run_running())
                fps.change_status(
                    set=Status.CONF | (Status.RUN if alive[1] else 0),
                    clear=0 if alive[1] else Status.RUN,
                )
                if alive != known:
                    fps.change_signal(set=Signal.UPDATE)
                known = alive
            if fps.signal() & Signal.UPDATE:
                fps.change_signal(clear=Signal.UPDATE)
                check_parameters(fps)
                fps.end_check()
            if stop.wait(SIGNAL_S):
                break
    finally:
        if fps.is_current() and fps.header().confpid == os.getpid():
            # Whose terminal went away was not told to end: it should still run.
            hung_up = getattr(stop, "signal_number", 0) == signal.SIGHUP
            fps.change_status(clear=Status.CONF | (Status(0) if hung_up else Status.CMDCONF))


def check_parameters(fps: FPS) -> list[Message]:
    """Checks all values; leaves messages, flags and the verdict in the FPS."""
    running = fps.run_running()
    messages = []
    for parameter in fps.parameters():
        message = _fault(fps, parameter)
        if message is not None:
            messages.append(message)
        faulty = message is not None and not message.code & MessageCode.INFO
        writable = parameter.writable(conf_running=True, run_running=running)
        flags_on = (ParameterFlag.ERROR if faulty else 0) | (
            ParameterFlag.WRITESTATUS if writable else 0
        )
        flags_off = (ParameterFlag.ERROR | ParameterFlag.WRITESTATUS) & ~flags_on
        if parameter.flags & flags_on != flags_on or parameter.flags & flags_off:
            fps.set_flags(parameter.key, set=flags_on, clear=flags_off)
    fps.set_messages(messages)
    good = not any(not m.code & MessageCode.INFO for m in messages)
    fps.change_status(set=Status.CHECKOK if good else 0, clear=0 if good else Status.CHECKOK)
    return messages


def _fault(fps: FPS, parameter: Parameter) -> Message | None:
    if parameter.minimum is not None and _less(parameter.value, parameter.minimum):
        text = f"{parameter.key} is {parameter.value}, at least {parameter.minimum} is allowed"
        return Message(parameter.index, MessageCode.BELOWMIN | MessageCode.ERROR, text)
    if parameter.maximum is not None and _less(parameter.maximum, parameter.value):
        text = f"{parameter.key} is {parameter.value}, at most {parameter.maximum} is allowed"
        return Message(parameter.index, MessageCode.ABOVEMAX | MessageCode.ERROR, text)
    text = _text_of_fault(fps, parameter)
    return Message(parameter.index, MessageCode.ERROR, text) if text else None


def _less(a: object, b: object) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return numbers and a < b  # type: ignore[operator]


def _text_of_fault(fps: FPS, parameter: Parameter) -> str:
    """What is wrong with a value that its limits do not tell; empty: nothing."""
    key, value = parameter.key, parameter.value
    if key in _TEXTS_OF_ZERO and value == 0:
        return _TEXTS_OF_ZERO[key]
    if key == "compress" and value:
        return compression_fault()
    look = _LOOKS.get(key)
    return look(fps) if look else ""


def _directory_fault(fps: FPS) -> str:
    return directory_fault(full_form(str(fps["dirname"]), fps.path.parent))


def _next_directories_fault(fps: FPS) -> str:
    faults = (directory_fault(place, "nextdirs") for place in next_directories(fps))
    return next(filter(None, faults), "")


def _new_cube_fault(fps: FPS) -> str:
    try:
        new_cube_keywords(fps)
    except ValueError as error:
        return f"newcubekeys: {error}"
    return ""


def _stream_fault(fps: FPS) -> str:
    return stream_fault(str(fps["sname"]), fps.path.parent)


_LOOKS: dict[str, Callable[[FPS], str]] = {
    "dirname": _directory_fault,
    "nextdirs": _next_directories_fault,
    "newcubekeys": _new_cube_fault,
    "sname": _stream_fault,
}


def directory_fault(directory: Path, key: str = "dirname") -> str:
    """Why files cannot be written there; empty: they can. Makes nothing."""
    if not directory.is_absolute():
        return f"{key} is {str(directory)!r}, expected a path that begins with '/'"
    place = directory
    try:
        while not place.exists():
            if place.is_symlink():
                return f"{place} is a link to nowhere; is its disk mounted?"
            place = place.parent
    except (OSError, ValueError) as error:  # no permission to look, or no name of a file
        return f"cannot write to {directory}: {error}; choose another {key}"
    if not place.is_dir():
        return f"{place} is no directory; choose another {key}"
    if not _takes_files(place):
        return f"cannot write to {place}; choose another {key}"
    return ""


def _takes_files(place: Path) -> bool:
    """Whether files can be made there; tried with one that has no name."""
    try:
        os.close(os.open(place, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _NO_ROOM:  # it may come
            return True
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return False
        return _takes_named_files(place)  # files without a name are not known there
    return True


def _takes_named_files(place: Path) -> bool:
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".vampires-probe-"):
            return True
    except OSError as error:
        return error.errno in _NO_ROOM


def stream_fault(stream: str, shm_dir: Path) -> str:
    """Why the stream cannot be logged; empty: it can."""
    from vampires import _core

    try:
        file = _core.StreamFile.open(os.fspath(shm_dir), stream)
    except _core.StreamNotFound:
        return f"no stream {stream!r} in {shm_dir}; start the camera"
    except (_core.StreamError, OSError) as error:
        return str(error)
    if file.dtype.kind == "c":
        return f"stream {stream!r} is complex: FITS images have no complex pixels"
    if len(file.shape) == 3 and not file.temporal_ring:
        return f"stream {stream!r} is 3D and no temporal ring; a cube holds 2D frames"
    return ""


def fault_lines(fps: FPS) -> list[str]:
    """What the last check found wrong."""
    try:
        return [m.text for m in fps.messages() if not m.code & MessageCode.INFO]
    except FPSError as error:
        return [str(error)]
