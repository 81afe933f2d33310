"""The folder in which running processes say how they are: ``<shm dir>/vampires-run``.

It lies with the streams, so it is gone after a restart of the machine, as they are; nothing in
it outlives what it tells of. Files are JSON and appear whole. One user owns it and alone writes
there; what is read is checked for its types at its use all the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vampires.fps import fps_directory

FOLDER = "vampires-run"
MAX_FILE_BYTES = 1 << 20


class RunFolder:
    """The folder below a stream folder; default: that of this environment."""

    def __init__(self, shm_dir: Path | str | None = None) -> None:
        self.shm_dir = fps_directory() if shm_dir is None else Path(shm_dir)
        self.path = self.shm_dir / FOLDER

    def make(self) -> RunFolder:
        """Makes the folder, if need be. Others may look and not write: what is in it is
        obeyed. Raises OSError, also for one that another user owns or may write."""
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        state = self.path.stat()
        if state.st_uid != os.geteuid() or state.st_mode & 0o022:
            raise PermissionError(
                errno.EPERM, "another user owns it or may write to it; remove it", self.path
            )
        return self

    def file(self, name: str) -> Path:
        """The file NAME.json."""
        return self.path / f"{name}.json"

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Replaces NAME.json in one step. Raises OSError."""
        write_json(self.file(name), values)

    def read(self, name: str) -> dict[str, Any] | None:
        """What NAME.json holds; None where there is none, or something else."""
        return read_json(self.file(name))

    def remove(self, name: str) -> None:
        """Removes NAME.json, if it is there."""
        with contextlib.suppress(OSError):
            self.file(name).unlink()

    def names(self, prefix: str = "") -> list[str]:
        """Names of the files that begin with a prefix, sorted."""
        with contextlib.suppress(OSError):
            found = [entry.name for entry in os.scandir(self.path)]
            return sorted(
                name.removesuffix(".json")
                for name in found
                if name.startswith(prefix) and name.endswith(".json")
            )
        return []

    @contextlib.contextmanager
    def locked(self, name: str, timeout_s: float | None = None) -> Iterator[None]:
        """Holds the lock NAME, which ends with this process at the latest. timeout_s None: as
        long as it takes. Raises TimeoutError, OSError."""
        fd = self.lock(name, timeout_s)
        try:
            yield
        finally:
            os.close(fd)

    def is_held(self, name: str) -> bool:
        """Whether somebody holds the lock NAME. Two who ask at once do not see each other; who
        takes the lock meanwhile needs a time-out that is not 0. Raises OSError."""
        fd = self._open_lock(name)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def _open_lock(self, name: str) -> int:
        return os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)

    def lock(self, name: str, timeout_s: float | None = None) -> int:
        """A descriptor that holds the lock NAME until it is closed. As locked()."""
        fd = self._open_lock(name)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while True:
                try:
                    wait = 0 if deadline is None else fcntl.LOCK_NB
                    fcntl.flock(fd, fcntl.LOCK_EX | wait)
                    return fd
                except BlockingIOError:
                    if deadline is not None and time.monotonic() >= deadline:
                        raise TimeoutError(f"{name} is held by another process") from None
                    time.sleep(0.01)
        except BaseException:
            os.close(fd)
            raise


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replaces a file of JSON in one step. Raises OSError."""
    hidden = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        hidden.write_text(json.dumps(values))
        hidden.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise


def read_json(file: Path) -> dict[str, Any] | None:
    """The object that a file of JSON holds; None where there is none, or something else."""
    try:
        with open(file, "rb", opener=_without_waiting) as stream:
            values = json.loads(stream.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _without_waiting(path: str, flags: int) -> int:
    """A pipe of that name has no writer to wait for."""
    return os.open(path, flags | os.O_NONBLOCK)


# -- sockets, whose names have room for 107 bytes ---------------------------------------------


def bind_socket(path: Path) -> socket.socket:
    """A listening socket in the file system, for this user alone; one left behind is replaced.
    However long the path. Raises OSError."""
    with _opened_folder(path.parent) as folder_fd:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder_fd)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o177)
            try:
                server.bind(f"/proc/self/fd/{folder_fd}/{path.name}")
            finally:
                os.umask(before)
            server.listen(64)
        except OSError:
            server.close()
            raise
    return server


def connect_socket(path: Path, timeout_s: float) -> socket.socket:
    """Connects to such a socket. Raises OSError."""
    deadline = time.monotonic() + timeout_s
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        with _opened_folder(path.parent) as folder_fd:
            while True:
                try:
                    client.connect(f"/proc/self/fd/{folder_fd}/{path.name}")
                    break
                except BlockingIOError:  # as many as may be wait already to be let in
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.01)
    except OSError:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
