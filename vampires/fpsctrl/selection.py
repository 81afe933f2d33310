"""Which item of a list is selected, and which are on the screen."""

from __future__ import annotations

from collections.abc import Sequence


class Selection:
    """A selected item of a list that changes and may be longer than the screen."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.index = 0
        self._top = 0

    @property
    def item(self) -> str | None:
        """The selected item; None when there are none."""
        return self.items[self.index] if self.items else None

    def set_items(self, items: Sequence[str]) -> None:
        """Follows the selected item; when it is gone, stays at its place."""
        before = self.item
        self.items = list(items)
        if before in self.items:
            self.index = self.items.index(before)
        self._bound()

    def move(self, key: str, rows: int) -> bool:
        """Moves by a key; False when it is none that moves."""
        page = max(1, rows - 1)
        steps = {"up": -1, "down": 1, "pageup": -page, "pagedown": page}
        if key in steps:
            self.index += steps[key]
        elif key == "home":
            self.index = 0
        elif key == "end":
            self.index = len(self.items) - 1
        else:
            return False
        self._bound()
        return True

    def visible(self, rows: int) -> range:
        """Indices of the items on a screen of so many rows, the selected one among them."""
        rows = max(1, rows)
        self._top = min(self._top, self.index, max(0, len(self.items) - rows))
        self._top = max(self._top, self.index - rows + 1)
        return range(self._top, min(self._top + rows, len(self.items)))

    def _bound(self) -> None:
        self.index = max(0, min(self.index, len(self.items) - 1))
