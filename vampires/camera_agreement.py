"""Whether cameras that are logged together are set alike: data type, crop, external trigger.

What a stream does not say is unknown, and differs from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vampires.stream_facts import (
    DATA_TYPE_KEYWORD,
    TRIGGER_KEYWORD,
    mode_names,
    stream_keywords,
)

CROP = "CROP"
"""Names the crop where the others have the name of their keyword."""

# Crops are measured again now and then, for each camera by itself: windows of the same kind
# differ by a few pixels, those of different modes by a third and more.
SIDE_TOLERANCE = 0.03


@dataclass(frozen=True)
class CameraSetup:
    """What of a camera should be as in the others; empty or None where it is unknown. shape:
    [ny, nx]; modes: the camera modes that have such a crop on this camera."""

    camera: str
    data_type: str = ""
    shape: tuple[int, int] | None = None
    modes: tuple[str, ...] = ()
    external_trigger: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the camera."""
        return {
            "data_type": self.data_type,
            "shape": None if self.shape is None else list(self.shape),
            "modes": list(self.modes),
            "external_trigger": self.external_trigger,
        }


@dataclass(frozen=True)
class Difference:
    """key: the keyword that differs, or CROP. found: the value of each camera, for people.
    remedy: a command that makes them alike."""

    key: str
    found: Mapping[str, str]
    remedy: str


def camera_setup(
    stream: str, number: int | None, shm_dir: Path | str | None = None
) -> CameraSetup:
    """What the stream of a camera says; number: that of the camera."""
    from vampires import _core

    try:
        shape, keywords = stream_keywords(stream, shm_dir)
    except (_core.StreamError, OSError):
        return CameraSetup(stream)
    trigger = keywords.get(TRIGGER_KEYWORD)
    return CameraSetup(
        stream,
        data_type=str(keywords.get(DATA_TYPE_KEYWORD, "")).strip(),
        shape=shape,
        modes=tuple(mode_names(shape, [] if number is None else [number])),
        external_trigger=bool(trigger) if isinstance(trigger, int) else None,
    )


def setup_in(answer: Mapping[str, Any]) -> CameraSetup:
    """The setup in an answer with "camera" and as_dict(), perhaps of another machine; one that
    could not be asked has none."""
    shape = answer.get("shape")
    return CameraSetup(
        answer["camera"],
        data_type=answer.get("data_type", ""),
        shape=(shape[0], shape[1]) if shape else None,
        modes=tuple(answer.get("modes", ())),
        external_trigger=answer.get("external_trigger"),
    )


def differences(setups: Sequence[CameraSetup]) -> list[Difference]:
    """In what the cameras differ."""
    found = (_data_types(setups), _crops(setups), _triggers(setups))
    return [difference for difference in found if difference is not None]


def _data_types(setups: Sequence[CameraSetup]) -> Difference | None:
    known = [setup for setup in setups if setup.data_type]
    if len({setup.data_type for setup in known}) < 2:
        return None
    remedy = f"vampires_datatype {known[0].data_type}"
    return _difference(DATA_TYPE_KEYWORD, known, lambda setup: setup.data_type, remedy)


def _triggers(setups: Sequence[CameraSetup]) -> Difference | None:
    known = [setup for setup in setups if setup.external_trigger is not None]
    if len({setup.external_trigger for setup in known}) < 2:
        return None

    def text(setup: CameraSetup) -> str:
        return "on" if setup.external_trigger else "off"

    return _difference(TRIGGER_KEYWORD, known, text, "set_trigger enable")


def _crops(setups: Sequence[CameraSetup]) -> Difference | None:
    known = [setup for setup in setups if setup.shape is not None]
    if all(_same_crop(one, other) for one, other in combinations(known, 2)):
        return None
    modes = [mode for setup in known for mode in setup.modes[:1]]
    remedy = f"set_crop {modes[0] if modes else 'STANDARD'}"
    return _difference(CROP, known, _crop_text, remedy)


def _same_crop(one: CameraSetup, other: CameraSetup) -> bool:
    if set(one.modes) & set(other.modes):
        return True
    assert one.shape is not None and other.shape is not None
    return all(
        abs(a - b) <= SIDE_TOLERANCE * max(a, b)
        for a, b in zip(one.shape, other.shape, strict=True)
    )


def _crop_text(setup: CameraSetup) -> str:
    assert setup.shape is not None
    rows, columns = setup.shape
    return f"{setup.modes[0] if setup.modes else 'own window'} ({rows} x {columns})"


def _difference(
    key: str, known: Sequence[CameraSetup], text: Callable[[CameraSetup], str], remedy: str
) -> Difference:
    return Difference(key, {setup.camera: text(setup) for setup in known}, remedy)
