"""The manifest of an archive folder: what lies in it, and what it was made from.

One text file, ``MANIFEST.sha256``, for two readers: ``sha256sum -c`` reads the lines of sums
and skips those that begin with ``#``; of these each that holds a JSON object tells one cube.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vampires.whole_file import write_whole

NAME = "MANIFEST.sha256"
_HEADING = "# vampires-archive manifest 1; to check the files: sha256sum -c MANIFEST.sha256\n"


class ManifestInvalid(Exception):
    """The file that has the manifest's name is none. One line."""


@dataclass(frozen=True)
class Entry:
    """One cube: the compressed file, its original, its sidecar ("" where there is none).

    Names are without folder, sizes in bytes, times those of the last change in ns UTC. method
    is "packed" (fpack), or "copied": the original was compressed already.
    """

    name: str
    bytes: int
    sha256: str
    mtime_ns: int
    original: str
    original_bytes: int
    original_sha256: str
    original_mtime_ns: int
    frames: int
    method: str
    sidecar: str = ""
    sidecar_bytes: int = 0
    sidecar_sha256: str = ""


def name_fault(name: str) -> str:
    """Why a name cannot stand in a manifest; "" when it can."""
    if name.isprintable() and "\\" not in name:
        return ""
    return "its name holds characters that have no place in a manifest"


def read_manifest(folder: Path) -> dict[str, Entry]:
    """The entries of a folder by the name of the original; none where there is no manifest.

    Raises ManifestInvalid, OSError.
    """
    file = folder / NAME
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ManifestInvalid(f"{file} is not a manifest of vampires-archive") from None
    if not lines or not lines[0].startswith("# vampires-archive manifest 1"):
        raise ManifestInvalid(f"{file} is not a manifest of vampires-archive")
    entries = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("# {"):
            try:
                entry = _entry(json.loads(line[2:]))
            except (ValueError, TypeError, KeyError):
                raise ManifestInvalid(f"{file}: line {number} cannot be read") from None
            entries[entry.original] = entry
    return entries


def write_manifest(folder: Path, entries: dict[str, Entry], purpose: str) -> None:
    """Replaces the manifest of a folder in one step, durably. Raises OSError."""
    parts = [_HEADING]
    for _, entry in sorted(entries.items()):
        parts.append(f"# {json.dumps(asdict(entry), ensure_ascii=False)}\n")
        parts.append(f"{entry.sha256}  {entry.name}\n")
        if entry.sidecar:
            parts.append(f"{entry.sidecar_sha256}  {entry.sidecar}\n")
    content = "".join(parts).encode("utf-8")
    write_whole(folder / NAME, content, replace=True, purpose=purpose)


def _entry(found: dict[str, Any]) -> Entry:
    kinds = {"str": str, "int": int}
    for field in fields(Entry):
        if not isinstance(found[field.name], kinds[str(field.type)]):
            raise TypeError(field.name)
    names = {field.name for field in fields(Entry)}
    entry = Entry(**{name: value for name, value in found.items() if name in names})
    for name in (entry.name, entry.original, entry.sidecar):
        if "/" in name or name in (".", ".."):  # names lead nowhere else
            raise ValueError(name)
    return entry
