"""Cubes that no logger finished: the hidden files of ``cube_names.hidden_names``.

A logger holds a lock (flock) on its ``.cube`` from the making of the file until it has its
final name, and the kernel takes the lock away when the logger dies, however it dies. So the
lock tells a living logger from a program that was given the process id of a dead one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from vampires.fits_hdus import FitsInvalid, read_primary
from vampires.process_id import is_running
from vampires.times import DAY_NS, SECOND_NS

ROW_BYTES = 56  # of the journal
_KINDS = ("cube", "frames", "sidecar")
_NAME = re.compile(
    r"\.(?P<stream>.+)_(?P<stamp>(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)"
    r":(?P<second>[0-5]\d)\.(?P<ns>\d{9}))\.(?P<pid>\d{1,10})\.(?P<kind>cube|frames|sidecar)",
    re.ASCII,
)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
NEWEST_DAYS = 7
LOCK_TRIES = 20
LOCK_PAUSE_S = 0.005
_DAY_FOLDER = re.compile(r"\d{8}", re.ASCII)

OnError = Callable[[OSError], None]


class CubeInUse(Exception):
    """Another process holds the lock: it writes the cube, or recovers it."""


@dataclass(frozen=True)
class PartialCube:
    """The hidden files of one cube; None: that file is not there.

    ``first_ns`` is the time of the first frame, ns UTC; ``pid`` that of its logger;
    ``frames_on_disk`` the whole rows of the journal. ``state``: "writing" while its logger
    lives (or somebody recovers it), "left" when nobody will finish it.
    """

    folder: Path
    stream: str
    first_ns: int
    pid: int
    cube: Path | None
    frames: Path | None
    sidecar: Path | None
    frames_on_disk: int
    state: Literal["writing", "left"]

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are there."""
        return tuple(path for path in (self.cube, self.frames, self.sidecar) if path)


def partial_cubes(
    folder: str | os.PathLike[str], *, recursive: bool = False, on_error: OnError | None = None
) -> list[PartialCube]:
    """The partial cubes of a folder, of all folders below it with recursive, in their order.

    Only regular files count. on_error is called for a folder below that cannot be read; the
    folder itself raises OSError.
    """
    found: list[PartialCube] = []
    os.stat(folder)  # os.walk says nothing of a folder that is not there

    def failed(error: OSError) -> None:
        if error.filename == os.fspath(folder):
            raise error
        if on_error is not None:
            on_error(error)

    for place, below, _ in os.walk(folder, onerror=failed):
        below.sort()
        try:
            found += _in_folder(Path(place))
        except OSError as error:
            failed(error)
        if not recursive:
            break
    return found


def left_behind(root: Path, stream: str, *, exact: bool) -> list[PartialCube]:
    """What earlier loggers left where a logger of this stream writes (as ``cube_folder``), of
    the newest days only. Empty where nothing can be read."""
    folders = [root]
    if not exact:
        days: list[str] = []
        with contextlib.suppress(OSError):
            days = [name for name in os.listdir(root) if _DAY_FOLDER.fullmatch(name)]
        folders = [root / day / stream for day in sorted(days)[-NEWEST_DAYS:]]
    found: list[PartialCube] = []
    for folder in folders:
        with contextlib.suppress(OSError):
            found += [cube for cube in partial_cubes(folder) if cube.state == "left"]
    return found


def recovery_hint(left: Sequence[PartialCube], root: Path) -> str:
    """One line for the observer; empty when there is nothing to say."""
    if not left:
        return ""
    frames = sum(partial.frames_on_disk for partial in left)
    cubes = "a cube" if len(left) == 1 else f"{len(left)} cubes"
    return (
        f"{cubes} below {root} were not finished by an earlier logger ({frames} frames); "
        f"to recover them, type: vampires-recover --apply {shlex.quote(os.fspath(root))}"
    )


def lock_cube(path: Path) -> int:
    """A descriptor to read and write a ``.cube`` under its lock, which ends with its closing.
    Where the file system has no locks it is one without.

    Raises CubeInUse when somebody else has the lock, and OSError when the file cannot be
    opened or has got another name meanwhile.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _lock(fd, path)
        if not os.path.samestat(os.fstat(fd), os.lstat(path)):
            raise FileNotFoundError(errno.ENOENT, "it has got another name", os.fspath(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: Path) -> None:
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not tries_left:
                raise CubeInUse(f"{path.name} is in use by another process") from None
            time.sleep(LOCK_PAUSE_S)  # who only looks is gone by then
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return


def _is_locked(path: Path) -> bool:
    """Whether its logger, or a recovery, has it locked; those who look disturb no other."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _in_folder(folder: Path) -> list[PartialCube]:
    parts: dict[tuple[str, str, str], dict[str, Path]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name) if entry.name.startswith(".") else None
            if found and entry.is_file(follow_symlinks=False):
                files = parts.setdefault((found["stamp"], found["stream"], found["pid"]), {})
                files[found["kind"]] = folder / entry.name
    cubes = []
    for (stamp, stream, pid), files in sorted(parts.items()):
        with contextlib.suppress(FileNotFoundError):  # it was finished while we looked
            cubes.append(_partial_cube(folder, stream, stamp, int(pid), files))
    return cubes


def _partial_cube(
    folder: Path, stream: str, stamp: str, pid: int, files: dict[str, Path]
) -> PartialCube:
    cube, frames, sidecar = (files.get(kind) for kind in _KINDS)
    first_ns = _first_ns(folder, stamp, files)
    rows = os.stat(frames).st_size // ROW_BYTES if frames else 0
    state: Literal["writing", "left"] = "left"
    if _is_written(cube or frames or sidecar, pid, first_ns):
        state = "writing"
    return PartialCube(folder, stream, first_ns, pid, cube, frames, sidecar, rows, state)


def _is_written(file: Path | None, pid: int, first_ns: int) -> bool:
    """The lock tells. Only a file without a byte is asked for its process alone: its logger may
    just be about to lock it, and must not find it locked by us."""
    assert file is not None
    status = os.stat(file)
    running = is_running(pid, max(first_ns, status.st_mtime_ns))
    if running and (status.st_size == 0 or file.suffix != ".cube"):
        return True
    try:
        return _is_locked(file)
    except FileNotFoundError:
        raise
    except OSError:  # it cannot be read, or its file system has no locks
        return running


def _first_ns(folder: Path, stamp: str, files: dict[str, Path]) -> int:
    """The hidden name has the time of the day; the day is in the header, in the name of the
    folder, or that of the last write (no cube goes on past midnight)."""
    found = _NAME.fullmatch(next(iter(files.values())).name)
    assert found is not None
    seconds = (int(found["hour"]) * 60 + int(found["minute"])) * 60 + int(found["second"])
    since_midnight_ns = seconds * SECOND_NS + int(found["ns"])
    for day in _days(folder, stamp, files):
        with contextlib.suppress(ValueError):
            days = date.fromisoformat(day) - date(1970, 1, 1)
            return days.days * DAY_NS + since_midnight_ns
    newest_ns = max(os.stat(path).st_mtime_ns for path in files.values())
    midnight_ns = newest_ns // DAY_NS * DAY_NS
    earlier = midnight_ns + since_midnight_ns > newest_ns + SECOND_NS
    return midnight_ns + since_midnight_ns - (DAY_NS if earlier else 0)


def _days(folder: Path, stamp: str, files: dict[str, Path]) -> Iterator[str]:
    """Candidates, the best first, as YYYY-MM-DD."""
    if "cube" in files:
        with contextlib.suppress(OSError, FitsInvalid, KeyError):
            begin = read_primary(files["cube"]).cards["DATE-BEG"]
            if isinstance(begin, str) and begin[11:] == stamp:
                yield begin[:10]
    for name in (folder.parent.name, folder.name):
        if _DAY_FOLDER.fullmatch(name):
            yield f"{name[:4]}-{name[4:6]}-{name[6:]}"
