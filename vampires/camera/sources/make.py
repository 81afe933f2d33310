"""The frame source that a camera of the configuration has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vampires.camera.source import FrameSource, SourceError

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig

Say = Callable[[str], None]


def make_source(camera: CameraConfig, say: Say) -> FrameSource:
    """Raises SourceError. say: told what goes on in it, a line at a time."""
    if camera.source == "replay":
        return _replay(camera)
    if camera.source == "genicam":
        return _genicam(camera)
    return _sim(camera, say)


def _sim(camera: CameraConfig, say: Say) -> FrameSource:
    from vampires.camera.sources.sim import SimOptions, SimSource

    given = camera.sim.model_dump(exclude={"ring"}) if camera.sim else {}
    known = {key: value for key, value in given.items() if value is not None}
    return SimSource(SimOptions(camera.name, camera.number, **known), say)


def _replay(camera: CameraConfig) -> FrameSource:
    from vampires.camera.sources.replay import ReplayOptions, ReplaySource

    if camera.replay is None:
        raise SourceError(f"camera {camera.name}: the configuration says not what to replay")
    return ReplaySource(ReplayOptions(**camera.replay.model_dump()))


def _genicam(camera: CameraConfig) -> FrameSource:
    from vampires.camera.sources.genicam import GenicamOptions, GenicamSource

    given = camera.genicam.model_dump() if camera.genicam else {}
    return GenicamSource(GenicamOptions(**given))
