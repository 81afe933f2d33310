"""Says once when the room on a disk becomes short, and not again until it was better."""

from __future__ import annotations

from vampires.disk_room import RoomLevel, room_level, room_text

_URGENCY = list(RoomLevel)
_WORDS = {
    RoomLevel.LOW: "the disk fills",
    RoomLevel.ALARM: "disk alarm",
    RoomLevel.FULL: "disk alarm",
}
# So much more room, and it counts as better: rates are measured, and scatter.
_BETTER = 1.2


class RoomWatch:
    """The level of one disk, and which was told last."""

    def __init__(self) -> None:
        self.level = RoomLevel.OK
        self._told = RoomLevel.OK

    def line(self, place: str, free: float, bytes_per_s: float, cube_bytes: float) -> str:
        """Takes a measurement; one line when a level is crossed to the worse, else empty."""
        self.level = room_level(free, bytes_per_s, cube_bytes)
        surely = room_level(free / _BETTER, bytes_per_s, cube_bytes)
        if _URGENCY.index(surely) < _URGENCY.index(self._told):
            self._told = surely
        if _URGENCY.index(self.level) <= _URGENCY.index(self._told):
            return ""
        self._told = self.level
        return f"{_WORDS[self.level]}: {place} has {room_text(free, bytes_per_s, cube_bytes)}"
