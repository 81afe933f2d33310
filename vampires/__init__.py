"""Data acquisition for SCExAO/VAMPIRES: every frame in the file, or the file says that not.

>>> from vampires import Stream
>>> with Stream.open("vcam1") as stream:
...     frame, info = stream.read(timeout=1.0)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vampires.fps import FPS
    from vampires.stream import Stream
    from vampires.subscription import subscribe

__all__ = ["FPS", "Stream", "subscribe"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loads a module when something of it is first asked for."""
        if name == "FPS":
            from vampires.fps import FPS

            return FPS
        if name == "Stream":
            from vampires.stream import Stream

            return Stream
        if name == "subscribe":
            from vampires.subscription import subscribe

            return subscribe
        raise AttributeError(f"module 'vampires' has no attribute {name!r}")
