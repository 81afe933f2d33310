"""Which FPS a screen lists: those whose texts contain what the environment names.

The variables are those of milk-fpsCTRL, plain substrings, not patterns:

    FPS_FILTSTRING_NAME       in the name of the FPS
    FPS_FILTSTRING_KEYWORD    in its keyword array
    FPS_FILTSTRING_CALLFUNC   in the name of the function it was made for
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vampires.fps import Header, list_fps

MATCH_LIST = Path("fpscmd/fpslist.txt")
MATCH_LIST_BYTES = 1_000_000  # a longer one is some other file
_VARIABLES = {
    "name": "FPS_FILTSTRING_NAME",
    "keyword": "FPS_FILTSTRING_KEYWORD",
    "callfunc": "FPS_FILTSTRING_CALLFUNC",
}


@dataclass(frozen=True)
class FPSFilter:
    """Texts that must occur; empty ones let all pass. patterns: one of them must match."""

    name: str = ""
    keyword: str = ""
    callfunc: str = ""
    patterns: tuple[re.Pattern[str], ...] | None = None

    @classmethod
    def from_environment(
        cls,
        patterns: tuple[re.Pattern[str], ...] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> FPSFilter:
        """The filter that the variables name."""
        found = os.environ if environment is None else environment
        texts = {key: found.get(variable, "") for key, variable in _VARIABLES.items()}
        return cls(**texts, patterns=patterns)

    def names(self, shm_dir: Path | str | None) -> list[str]:
        """Names of the FPS there that pass by name, sorted."""
        return [name for name in list_fps(shm_dir) if self.passes_name(name)]

    def passes_name(self, name: str) -> bool:
        """Whether an FPS of that name may be listed."""
        if self.name not in name:
            return False
        return self.patterns is None or any(p.search(name) for p in self.patterns)

    def passes_header(self, header: Header) -> bool:
        """Whether an FPS with that header may be listed, if its name passes."""
        return self.keyword in header.keywordarray and self.callfunc in header.callfuncname

    def __str__(self) -> str:
        """The filter as typed before the command; empty when all pass."""
        texts = [
            f"{variable}={getattr(self, key)}"
            for key, variable in _VARIABLES.items()
            if getattr(self, key)
        ]
        if self.patterns is not None:
            texts.append(f"-m ({MATCH_LIST})")
        return " ".join(texts)


def read_match_list(path: Path = MATCH_LIST) -> tuple[re.Pattern[str], ...]:
    """The patterns of a match list: the first word of each line; # begins a comment.

    Raises OSError when it cannot be read, ValueError for a line that is no pattern.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        return _patterns(file.read(MATCH_LIST_BYTES).splitlines(), path)


def _patterns(lines: Iterable[str], path: Path) -> tuple[re.Pattern[str], ...]:
    patterns = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            patterns.append(re.compile(words[0]))
        except re.error as error:
            raise ValueError(
                f"{path}:{number}: {words[0]!r} is no pattern ({error}); correct that line"
            ) from None
    return tuple(patterns)
