"""The configuration: one TOML file, where it is found, and what is wrong with it.

>>> from vampires.config import load_config
>>> config = load_config()
>>> config.host_of("vcam1").is_local()
True
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires.commands.common import UserError

if TYPE_CHECKING:
    from vampires.config_models import Config

FILE_VARIABLE = "VAMPIRES_CONFIG"
INSTRUMENT_VARIABLE = "VAMPIRES_INSTRUMENT"
FILE_NAME = "config.toml"
SYSTEM_FOLDER = Path("/etc/vampires")
SYSTEM_CONFIG = SYSTEM_FOLDER / FILE_NAME
PACKAGED_CONFIG = Path(__file__).parent / "data" / FILE_NAME
MAX_FILE_BYTES = 1 << 20


class ConfigError(UserError):
    """The configuration cannot be used. The text is a line for each fault: file, key, what
    was found there and what is allowed. `faults` are those lines."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def user_config(name: str = FILE_NAME) -> Path | None:
    """Where this user's file of that name is looked for; None for a user without a home."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # the XDG specification: relative ones are ignored
        folder = os.path.expanduser("~/.config")
    return Path(folder, "vampires", name) if os.path.isabs(folder) else None


def find_config() -> Path:
    """The file in use: as find_file() with $VAMPIRES_CONFIG, else the packaged one."""
    return find_file(FILE_VARIABLE, FILE_NAME) or PACKAGED_CONFIG


def find_file(variable: str, name: str) -> Path | None:
    """The file that the variable names, else the user's of that name, else the system's.

    One that is there but cannot be read is in use too: what is wrong with it must be told.
    """
    named = os.environ.get(variable)
    if named:
        return Path(named)
    for place in (user_config(name), SYSTEM_FOLDER / name):
        if place is not None and _is_there(place):
            return place
    return None


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def load_config(path: Path | str | None = None) -> Config:
    """The configuration in a file (default: find_config()), checked, with defaults filled in.

    Raises ConfigError.
    """
    file = find_config() if path is None else Path(path)
    return parse_config(read_tables(file, ConfigError), file)


def parse_config(tables: Mapping[str, Any], file: Path) -> Config:
    """The configuration from what a TOML file holds; `file` is its name in messages.

    Raises ConfigError.
    """
    from vampires.config_faults import check

    config, faults = check(tables)
    if config is None:
        raise ConfigError([f"{file}: {fault}" for fault in faults])
    config.set_file(file)
    return config


def read_tables(file: Path, refused: type[ConfigError]) -> dict[str, Any]:
    """What a TOML file holds. Raises the error of the type given."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(_read_text(file))
    except tomllib.TOMLDecodeError as error:
        fault = f"found {error}, expected TOML: lines such as  port = 22  below [hosts.NAME]"
    except _Unreadable as error:
        fault = str(error)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        fault = "found a number or a list beyond all reason, expected a TOML file"
    raise refused([f"{file}: {fault}"])


class _Unreadable(Exception):
    """Why a file is no text."""


def _read_text(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            fault = f"longer than {MAX_FILE_BYTES} bytes, expected a TOML file"
        else:
            return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fault = f"line {line} is not UTF-8 text; save the file as UTF-8"
    except OSError as error:
        fault = f"{error.strerror}, expected a readable TOML file{_how_it_was_named(file)}"
    except ValueError:
        fault = "no file can have such a name"
    raise _Unreadable(fault)


def _how_it_was_named(file: Path) -> str:
    for variable in (FILE_VARIABLE, INSTRUMENT_VARIABLE):
        if os.environ.get(variable) == str(file):
            return f"; ${variable} names it: correct that, or unset it"
    return "; make one with: vampires config init" if file.name == FILE_NAME else ""
