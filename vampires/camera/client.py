"""The camera object: what is set of a running camera, at its prompt and in scripts.

It speaks with the process of the camera on this machine; for a camera elsewhere, use the
commands (set_tint and others), which find it by the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vampires.camera.control_socket import (
    Answer,
    NoCameraProcess,
    RequestRefused,
    request,
)
from vampires.closing import Closing
from vampires.run_folder import RunFolder

if TYPE_CHECKING:
    import os

    import numpy as np

    from vampires.stream import KeywordValue


class CameraError(Exception):
    """The camera does not run here, or did not take a value. One line."""


class Camera(Closing):
    """A running camera, by the name of its stream.

    Values that are set hold from a next frame on, at the latest when the call returns. What
    cannot be is refused with a CameraError that says what could; then all is as it was.

    >>> cam = Camera("vcam1")
    >>> cam.set_camera_mode("MBI")      # cam.modes lists them
    >>> cam.set_tint(0.01)              # seconds; returns what is set
    >>> cam.set_fps(57)
    >>> cam.set_readout_mode("SLOW")
    >>> cam.set_external_trigger(True)
    >>> cam.set_keyword("OBJECT", "HD 12345")
    >>> dark = cam.take_dark(100)
    """

    def __init__(self, name: str, shm_dir: str | os.PathLike[str] | None = None) -> None:
        """Raises CameraError when no process of that camera answers here."""
        self._name = name
        self._run = RunFolder(shm_dir)  # type: ignore[arg-type]
        self.status()

    def __repr__(self) -> str:
        try:
            status = self.status()
        except CameraError as error:
            return f"<Camera {self._name}: {error}>"
        now = status["settings"] or {}
        shape = " x ".join(map(str, status["shape"] or ()))
        return (
            f"<Camera {self._name}: {status['state']}, {now.get('mode') or 'own window'} "
            f"({shape}), {now.get('fps', 0):.6g} Hz, tint {now.get('tint_s', 0):.6g} s, "
            f"{now.get('readout', '')}>"
        )

    def _ask(self, do: str, **values: Any) -> Answer:
        try:
            return request(self._name, self._run, do, **values)
        except (NoCameraProcess, RequestRefused) as error:
            raise CameraError(str(error)) from None

    def _set(self, what: str, value: Any) -> dict[str, Any]:
        settings: dict[str, Any] = self._ask("set", what=what, value=value)["settings"]
        return settings

    @property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.status()["settings"]
        return settings

    # -- what it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Of the camera and its stream."""
        return self._name

    @property
    def modes(self) -> list[str]:
        """Names of the camera modes."""
        modes: list[str] = self.status()["modes"]
        return modes

    def status(self) -> dict[str, Any]:
        """How the camera is: state, settings, shape, cnt0, rate_hz, lost, notes and more."""
        return self._ask("status")

    # -- modes and windows --------------------------------------------------------------------

    def set_camera_mode(self, mode: str) -> str:
        """Another camera mode (see modes), in any case: its window and usual rate. The stream
        is made anew; loggers and links follow. Returns its name."""
        return str(self._set("mode", mode)["mode"])

    def get_camera_mode(self) -> str:
        """The name of the camera mode; "" with a window of one's own."""
        return str(self._settings["mode"])

    def set_crop(self, x0: int, x1: int, y0: int, y1: int) -> tuple[int, int, int, int]:
        """A window of the sensor: first and last column, first and last row, counted from 0.
        Returns what the camera took."""
        return _window(self._set("crop", [x0, x1, y0, y1]))

    def get_crop(self) -> tuple[int, int, int, int]:
        """The window: (x0, x1, y0, y1), first and last pixels."""
        return _window(self._settings)

    # -- times --------------------------------------------------------------------------------

    def set_tint(self, seconds: float) -> float:
        """The exposure time of a frame. Where the rate leaves no room for it, that is lowered.
        Returns what is set."""
        return float(self._set("tint", seconds)["tint_s"])

    def get_tint(self) -> float:
        """The exposure time of a frame, in seconds."""
        return float(self._settings["tint_s"])

    def set_fps(self, hz: float) -> float:
        """The frame rate. Exposures that are too long for it are shortened. Returns what is
        set."""
        return float(self._set("fps", hz)["fps"])

    def get_fps(self) -> float:
        """The frame rate that is set, in Hz; the measured one is in status()["rate_hz"]."""
        return float(self._settings["fps"])

    def set_readout_mode(self, mode: str) -> str:
        """ "FAST" or "SLOW"; a rate that SLOW cannot have is lowered. Returns what is set."""
        return str(self._set("readout", mode)["readout"])

    def get_readout_mode(self) -> str:
        """ "FAST" or "SLOW"."""
        return str(self._settings["readout"])

    def set_external_trigger(self, enabled: bool) -> bool:
        """Frames by the external trigger, or at the camera's own pace. Returns what is set."""
        return bool(self._set("trigger", enabled)["external_trigger"])

    def get_external_trigger(self) -> bool:
        """Whether frames come by the external trigger."""
        return bool(self._settings["external_trigger"])

    # -- keywords and darks -------------------------------------------------------------------

    def set_keyword(self, name: str, value: KeywordValue, comment: str = "") -> None:
        """A keyword of the stream, and so of the cubes, from the next frame on. Without a
        comment the keyword keeps its own."""
        self._ask("keyword", name=name, value=value, comment=comment)

    def take_dark(self, frames: int = 100) -> np.ndarray:
        """The mean of the next frames, [ny, nx] float32, also as the stream NAME_dark. Close
        the shutter first. Raises CameraError when frames are missing or stop."""
        from vampires.camera.dark import take_dark

        status = self.status()
        return take_dark(self._name, frames, self._run.shm_dir, status["settings"])

    # -- giving it up -------------------------------------------------------------------------

    def release(self) -> None:
        """Frames end and the camera is free for other programs, until acquire() or any
        set_..."""
        self._ask("release")

    def acquire(self) -> None:
        """Frames again, after release()."""
        self._ask("acquire")

    def close(self) -> None:
        """Nothing: the camera goes on without this object. (camstop NAME ends it.)"""

    def __dir__(self) -> Sequence[str]:
        return sorted(name for name in super().__dir__() if not name.startswith("_"))


def _window(settings: dict[str, Any]) -> tuple[int, int, int, int]:
    crop = settings["crop"]
    return (crop["x0"], crop["x1"], crop["y0"], crop["y1"])
