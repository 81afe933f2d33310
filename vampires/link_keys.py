"""CURVE keys of the slow link: files that pyzmq and czmq read, too.

A pair of keys is two files: ``NAME.key`` with the public key, to be given to the peers, and
``NAME.key_secret`` with both, for its owner alone. Keys are 40 characters (Z85 of 32 bytes).
"""

from __future__ import annotations

import datetime
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vampires.commands.common import UserError

PUBLIC_SUFFIX = ".key"
SECRET_SUFFIX = ".key_secret"
PUBLIC_MODE = 0o644
SECRET_MODE = 0o600
FOLDER_MODE = 0o700
KEY_BYTES = 32
MAX_FILE_BYTES = 64 << 10

_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]{0,78}")
_KEY_LINE = re.compile(r"\s*(public|secret)-key\s*=\s*[\"']?([!-~]*?)[\"']?\s*")

_PUBLIC_BANNER = "The public key {name}, made {date}. To be given to its peers."
_SECRET_BANNER = "The secret key {name}, made {date}. Nobody else may read this file."


class KeyFileError(UserError):
    """A key file that cannot be used, or not be made. The text is one line."""


@dataclass(frozen=True)
class KeyPair:
    """The keys of one end, as pyzmq takes them. The secret one is never shown."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


@dataclass(frozen=True)
class KeyFiles:
    """Where a pair of keys is kept."""

    public: Path
    secret: Path


def key_files(folder: Path, name: str) -> KeyFiles:
    """The files of a pair. KeyFileError for a name that could lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise KeyFileError(
            f"{name!r} cannot be the name of a key: expected 1 to 79 letters, digits, _ - + . "
            "and no dot at the start"
        )
    return KeyFiles(folder / f"{name}{PUBLIC_SUFFIX}", folder / f"{name}{SECRET_SUFFIX}")


def check_absent(files: KeyFiles) -> None:
    """KeyFileError when one of the files is there."""
    for path in (files.public, files.secret):
        if os.path.lexists(path):
            raise KeyFileError(
                f"{path} is there; choose another name, or --force to replace it"
            )


def make_keys(folder: Path, name: str, *, force: bool = False) -> tuple[KeyFiles, bytes]:
    """Makes a pair of keys and both files; returns where they are, and the public key.

    The folder is made where it is missing, for its owner alone.

    force: replaces files of the name. Whoever has them loaded or open keeps the old keys.

    Raises:
        KeyFileError: not a name for a key, files that are there already, a folder that cannot
            be written, a libzmq without CURVE.
    """
    import zmq

    files = key_files(folder, name)
    if not force:
        check_absent(files)
    if not zmq.has("curve"):
        raise KeyFileError(
            "this libzmq was built without CURVE: it can neither make nor use keys"
        )
    public, secret = zmq.curve_keypair()
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(" ", "seconds")
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        text = _certificate(_SECRET_BANNER.format(name=name, date=date), public, secret)
        _write(files.secret, text, SECRET_MODE, force)
        text = _certificate(_PUBLIC_BANNER.format(name=name, date=date), public)
        _write(files.public, text, PUBLIC_MODE, force)
    except OSError as error:
        raise KeyFileError(f"cannot make the key {name}: {error}") from error
    return files, public


def load_public(path: Path) -> bytes:
    """The public key in a NAME.key. KeyFileError: not such a file, or one with a secret key,
    which should not have left its owner."""
    found = _read_keys(path)
    if "secret" in found:
        raise KeyFileError(
            f"{path} holds a secret key; expected a public one, such as NAME{PUBLIC_SUFFIX}"
        )
    return _key(path, found, "public")


def load_public_keys(place: Path) -> frozenset[bytes]:
    """The public keys of a folder (its files NAME.key) or of one file. KeyFileError: as
    load_public, or there is none."""
    if not place.is_dir():
        return frozenset([load_public(place)])
    try:
        paths = sorted(p for p in place.iterdir() if p.name.endswith(PUBLIC_SUFFIX))
    except OSError as error:
        raise KeyFileError(f"cannot read the keys in {place}: {error.strerror}") from error
    if not paths:
        raise KeyFileError(
            f"no file NAME{PUBLIC_SUFFIX} in {place}; copy the public keys of the peers there"
        )
    return frozenset(load_public(path) for path in paths)


def load_secret(path: Path) -> KeyPair:
    """The pair in a NAME.key_secret.

    KeyFileError: not such a file, one that others may read, keys that are no pair.
    """
    import zmq

    found = _read_keys(path, secret=True)
    if "secret" not in found:
        raise KeyFileError(
            f"{path} holds no secret key; expected a file such as NAME{SECRET_SUFFIX}"
        )
    pair = KeyPair(_key(path, found, "public"), _key(path, found, "secret"))
    if zmq.curve_public(pair.secret) != pair.public:
        raise KeyFileError(f"{path}: the two keys are no pair; make new ones")
    return pair


def _certificate(banner: str, public: bytes, secret: bytes = b"") -> str:
    lines = [f"#   {banner}", "metadata", "curve", f'    public-key = "{public.decode()}"']
    if secret:
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str, mode: int, force: bool) -> None:
    """Makes the file, with this mode from its first byte on. OSError; FileExistsError without
    force. With it the file of that name is replaced by a new one, since others may have it
    open."""
    target = path.with_name(f".{path.name}.{os.getpid()}") if force else path
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(target, flags, SECRET_MODE), "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    if force:
        os.replace(target, path)


def _key(path: Path, found: dict[str, str], kind: str) -> bytes:
    key = found.get(kind, "").encode("ascii")
    if not _is_z85_key(key):
        expected = f'a line {kind}-key = "..." with 40 characters of Z85'
        raise KeyFileError(f"{path} is not a key file: expected {expected}")
    return key


def _is_z85_key(key: bytes) -> bool:
    from zmq.utils import z85

    try:
        return len(z85.decode(key)) == KEY_BYTES
    except (KeyError, ValueError, struct.error):  # not of the alphabet, its length, its range
        return False


def _read_keys(path: Path, *, secret: bool = False) -> dict[str, str]:
    """The keys of a file by their kind, unchecked. secret: no others may read the file."""
    with _opened(path) as fd:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a key file: expected a regular file")
        if secret and status.st_mode & 0o077:
            mode = f"{stat.S_IMODE(status.st_mode):03o}"
            raise KeyFileError(
                f"others may use {path} (mode {mode}); make it yours with: chmod 600 {path}"
            )
        text = os.read(fd, MAX_FILE_BYTES).decode("utf-8", "replace")
    matches = map(_KEY_LINE.fullmatch, text.splitlines())
    return {match[1]: match[2] for match in matches if match}


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, opened for reading; what goes wrong with it becomes a KeyFileError."""
    try:
        # Without waiting for the other end, should it be a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from error
