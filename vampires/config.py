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
SYSTEM_CONFIG = Path("/etc/vampires/config.toml")
PACKAGED_CONFIG = Path(__file__).parent / "data" / "config.toml"
MAX_FILE_BYTES = 1 << 20


class ConfigError(UserError):
    """The configuration cannot be used. The text is a line for each fault: file, key, what
    was found there and what is allowed. `faults` are those lines."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def user_config() -> Path | None:
    """Where this user's file is looked for; None for a user without a home."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # the XDG specification: relative ones are ignored
        folder = os.path.expanduser("~/.config")
    return Path(folder, "vampires", "config.toml") if os.path.isabs(folder) else None


def find_config() -> Path:
    """The file in use: $VAMPIRES_CONFIG, else the user's, else the system's, else the packaged.

    One that is there but cannot be read is in use too: what is wrong with it must be told.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    for place in (user_config(), SYSTEM_CONFIG):
        if place is not None and _is_there(place):
            return place
    return PACKAGED_CONFIG


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
    return parse_config(_read_tables(file), file)


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


def _read_tables(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    text = _read_text(file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fault = f"found {error}, expected TOML: lines such as  port = 22  below [hosts.NAME]"
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        fault = "found a number or a list beyond all reason, expected a TOML file"
    raise ConfigError([f"{file}: {fault}"])


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
    raise ConfigError([f"{file}: {fault}"])


def _how_it_was_named(file: Path) -> str:
    if os.environ.get(FILE_VARIABLE) == str(file):
        return f"; ${FILE_VARIABLE} names it: correct that, or unset it"
    return "; make one with: vampires config init"
