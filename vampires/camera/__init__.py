"""A running camera: the process that takes frames, what may be set, and the object for scripts.

>>> from vampires.camera import Camera
>>> cam = Camera("vcam1")
>>> cam.set_tint(0.005)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vampires.camera.client import Camera, CameraError

__all__ = ["Camera", "CameraError"]


def __getattr__(name: str) -> Any:
    """Imported when used: the process of the camera needs nothing of them."""
    if name in __all__:
        from vampires.camera import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
