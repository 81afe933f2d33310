"""What camstart wants to run on a machine: a file of the run folder for each camera.

The supervisor of the machine makes it so, and publishes how it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vampires.flow.parts import Part
from vampires.run_folder import RunFolder

PREFIX = "wish_"
STATE = "supervisor"
FRESH_S = 5.0  # a state not renewed for so long is of a supervisor that does not run


@dataclass(frozen=True)
class Wish:
    """A camera that is to run here. generation: of this start; another one starts all anew.
    environment: variables for its parts. logged: its logger is watched as well."""

    camera: str
    generation: str
    parts: tuple[Part, ...]
    environment: Mapping[str, str]
    logged: bool = False

    def write(self, run: RunFolder) -> None:
        """Raises OSError."""
        values: dict[str, Any] = {
            "camera": self.camera,
            "generation": self.generation,
            "parts": [part.as_dict() for part in self.parts],
            "environment": dict(self.environment),
            "logged": self.logged,
        }
        run.write(PREFIX + self.camera, values)

    @classmethod
    def read(cls, run: RunFolder, camera: str) -> Wish | None:
        """The wish for a camera; None where there is none, or none that can be understood."""
        values = run.read(PREFIX + camera)
        if values is None:
            return None
        try:
            return cls(
                camera=camera,
                generation=str(values["generation"]),
                parts=tuple(Part.from_dict(part) for part in values["parts"]),
                environment={str(k): str(v) for k, v in values["environment"].items()},
                logged=bool(values["logged"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            return None


def wished_cameras(run: RunFolder) -> list[str]:
    """Cameras that are to run here."""
    return [name.removeprefix(PREFIX) for name in run.names(PREFIX)]


def wish_files(run: RunFolder) -> set[tuple[str, int, int]]:
    """Something that changes when any of the wishes does."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(run.path):
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    state = entry.stat()
                    found.add((entry.name, state.st_ino, state.st_mtime_ns))
    return found


def withdraw(run: RunFolder, camera: str) -> None:
    """The camera is to run here no longer."""
    run.remove(PREFIX + camera)


def supervisor_state(run: RunFolder) -> dict[str, Any]:
    """What the supervisor said last: "time_ns", "pid", "parts" (a list), "loggers"; empty lists
    where none runs or what is there is something else."""
    state = run.read(STATE) or {}
    parts, loggers = state.get("parts"), state.get("loggers")
    return {
        "time_ns": state.get("time_ns") if isinstance(state.get("time_ns"), int) else 0,
        "pid": state.get("pid") if isinstance(state.get("pid"), int) else 0,
        "generations": state.get("generations") or {},
        "parts": [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else [],
        "loggers": loggers if isinstance(loggers, dict) else {},
    }


def is_fresh(state: Mapping[str, Any]) -> bool:
    """Whether the supervisor that said so still runs."""
    return bool(time.time_ns() - int(state["time_ns"]) < FRESH_S * 1e9)
