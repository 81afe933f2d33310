"""Where the frames of a camera come from: the interface of the frame sources.

A source is used by one thread, that of the camera's process: configure(), then acquire() until
something is to change, then configure() again, and close() at the end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from vampires.camera.settings import CameraLimits, CameraSettings
from vampires.closing import Closing
from vampires.instrument.facts import Instrument
from vampires.instrument.file import instrument_on
from vampires.stop_request import Stop

KeywordValue = bool | int | float | str
Keywords = dict[str, tuple[KeywordValue, str]]
"""Stream keywords: name -> (value, comment)."""


class SourceError(Exception):
    """A source cannot give frames (any more). One line: which, what happened, what to do."""


class FrameSink(Protocol):
    """The stream, as a source sees it: vampires.stream.Stream has these."""

    @property
    def cnt0(self) -> int:
        """Counter of the newest frame."""
        ...

    def next_slot(self) -> np.ndarray:
        """The memory [ny, nx] of the next frame, to be filled in place."""
        ...

    def publish(
        self,
        acquired_ns: int | None = None,
        keywords: Mapping[str, tuple[KeywordValue, str]] = ...,
    ) -> int:
        """Publishes what is in next_slot(); returns its cnt0. acquired_ns: ns since 1970 UTC;
        `_MAQTIME` among the keywords is the same in microseconds."""
        ...


class FrameSource(Closing):
    """A source of frames. Raises SourceError from any of its methods when it cannot go on; it
    is then closed, and another one made later."""

    @property
    @abstractmethod
    def limits(self) -> CameraLimits:
        """What this camera can do; known once the source is made."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Of the frames that configure() has prepared."""

    @property
    def instrument(self) -> Instrument:
        """The facts of the instrument that its frames are taken with: those of today."""
        return instrument_on()

    @abstractmethod
    def configure(self, wanted: CameraSettings) -> CameraSettings:
        """Makes ready to take frames so; returns what is really set (a camera rounds, and one
        that cannot be set at all keeps what it has). The shape of frames is that of the
        crop returned. SettingRefused: it is as it was before."""

    @abstractmethod
    def keywords(self) -> Keywords:
        """Of this source, beyond those that follow from the settings: set on the stream before
        the first frame."""

    @abstractmethod
    def acquire(self, sink: FrameSink, stop: Stop) -> None:
        """Publishes frames until stop is set, or the source has no more."""
