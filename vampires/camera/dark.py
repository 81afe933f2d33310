"""Darks: the mean of frames that were taken without light, as a stream of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from vampires.camera.client import CameraError
from vampires.stream import Stream, StreamError

SUFFIX = "_dark"
MAX_FRAMES = 100_000
PATIENCE_S = 3.0  # for a frame, beyond its exposure


def take_dark(
    name: str, frames: int, shm_dir: Path, settings: Mapping[str, Any] | None
) -> np.ndarray:
    """Averages the next frames of a camera, publishes the mean as NAME_dark and returns it,
    [ny, nx] float32. Frames that were overwritten before they could be read are skipped: the
    mean is of as many as asked for. Raises CameraError."""
    if not isinstance(frames, Integral) or not 1 <= frames <= MAX_FRAMES:
        raise CameraError(
            f"a dark of {frames} frames: expected a whole number, 1 to {MAX_FRAMES}"
        )
    frames = int(frames)
    period_s = 1 / settings["fps"] if settings else 0.0
    try:
        with Stream.open(name, directory=shm_dir) as stream:
            mean = mean_frame(stream, frames, period_s + PATIENCE_S)
            keywords = {
                key: (value, stream.keywords.comment(key))
                for key, value in stream.keywords.items()
                if not key.startswith("_")
            }
        _publish(name + SUFFIX, mean, keywords | _dark_keywords(frames), shm_dir)
    except TimeoutError:
        raise CameraError(f"no frames come from {name}; see camstatus") from None
    except (StreamError, OSError) as error:
        raise CameraError(f"no dark: {error}") from None
    return mean


def mean_frame(stream: Stream, frames: int, timeout_s: float) -> np.ndarray:
    """The mean of the next frames of a stream, [ny, nx] float32. timeout_s: for each frame.
    Raises TimeoutError, StreamError."""
    total = np.zeros(stream.shape, np.float64)
    for _ in range(frames):
        frame, _info = stream.read(timeout_s)
        total += frame
    return (total / frames).astype(np.float32)


def _dark_keywords(frames: int) -> dict[str, Any]:
    return {
        "DATA-TYP": ("DARK", "type of the data"),
        "_NDARK": (frames, "frames of which this is the mean"),
        "_MAQTIME": (time.time_ns() // 1000, "[us] when the mean was made, Unix time"),
    }


def _publish(name: str, mean: np.ndarray, keywords: Mapping[str, Any], shm_dir: Path) -> None:
    """In the stream that is there, where it has the shape and the room; else in a new one."""
    with contextlib.suppress(StreamError), Stream.open(name, directory=shm_dir) as stream:
        room = int(stream.metadata["NBkw"])
        fits = (stream.shape, stream.dtype) == (mean.shape, mean.dtype)
        if fits and len(keywords) <= room:
            stream.keywords = keywords
            stream.write(mean, time.time_ns())
            return
    with Stream.create(
        name, mean.shape, np.float32, ring=4, keywords=keywords, directory=shm_dir
    ) as stream:
        stream.write(mean, time.time_ns())
