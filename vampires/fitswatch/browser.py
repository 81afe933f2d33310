"""What the keys of the screen do, and which lines it shows. No terminal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from vampires.fitswatch.lines import KEYS_HINT, Key, cut, framed, line_cells, panel, titles
from vampires.fitswatch.snapshot import FileView, Snapshot
from vampires.terminal_text import Line, Tone, safe_text

PAGE_HINT = "arrows scroll   Escape back   q leaves"

Read = Callable[[FileView, Callable[[list[Line]], None]], None]


class PanelBrowser:
    """The panel of the newest snapshot, or the page of a file.

    read: begins to read the page of a file, and calls back with its lines, in the thread of the
    browser. leave: ends the screen.
    """

    def __init__(self, read: Read, leave: Callable[[], None]) -> None:
        self.snapshot: Snapshot | None = None  # nothing was seen yet
        self._read = read
        self._leave = leave
        self._chosen: Key | None = None
        self._top = 0
        self._page: FileView | None = None
        self._page_lines: list[Line] = []
        self._page_top = 0
        self._height = 1

    def lines(self, width: int, height: int) -> list[Line]:
        """What the screen shows now."""
        self._height = height
        if self._page is not None:
            return self._page_view(self._page, width, height)
        now = datetime.now()
        if self.snapshot is None:
            return framed(titles(now), [(("looking at the folders", Tone.FAINT),)], width)[
                :height
            ]
        lines, self._top = panel(
            self.snapshot, now, width, height, chosen=self._present_choice(), top=self._top
        )
        return _with_hint(lines, KEYS_HINT, width, height)

    def press(self, key: str) -> None:
        """Does what a key is for; others do nothing."""
        if key in ("q", "x", "ctrl+c"):
            self._leave()
        elif self._page is not None:
            self._press_on_page(key)
        elif key in ("up", "down", "home", "end"):
            self._choose(key)
        elif key in ("escape", "left"):
            self._chosen = None
        elif key in ("enter", "right"):
            self._open()

    def paste(self, text: str) -> None:
        """A pasted text means nothing here."""

    # -- the panel ----------------------------------------------------------------------------

    def _views(self) -> list[FileView]:
        folders = self.snapshot.folders if self.snapshot is not None else ()
        return [view for folder in folders for view in folder.files]

    def _present_choice(self) -> Key | None:
        """The chosen file while it is shown; else the first of its folder."""
        views = self._views()
        if self._chosen is None or any(view.key == self._chosen for view in views):
            return self._chosen
        near = [view for view in views if view.key[0] == self._chosen[0]] or views
        self._chosen = near[-1].key if near else None
        return self._chosen

    def _choose(self, key: str) -> None:
        keys = [view.key for view in self._views()]
        chosen = self._present_choice()
        if not keys:
            return
        if chosen is None:
            at = len(keys) - 1 if key in ("up", "end") else 0
        else:
            steps = {"up": -1, "down": 1, "home": -len(keys), "end": len(keys)}
            at = keys.index(chosen) + steps[key]
        self._chosen = keys[max(0, min(at, len(keys) - 1))]

    # -- the page of a file -------------------------------------------------------------------

    def _open(self) -> None:
        views = self._views()
        if not views:
            return
        chosen = self._present_choice() or views[0].key
        view = next(view for view in views if view.key == chosen)
        self._chosen, self._page, self._page_top = chosen, view, 0
        self._page_lines = [(("reading ...", Tone.FAINT),)]

        def show(lines: list[Line]) -> None:
            if self._page is view:  # not left meanwhile
                self._page_lines = lines

        self._read(view, show)

    def _press_on_page(self, key: str) -> None:
        shown = max(1, self._height - 3)
        steps = {"up": -1, "down": 1, "pageup": -shown, "pagedown": shown, "space": shown}
        steps |= {"home": -len(self._page_lines), "end": len(self._page_lines)}
        if key in ("escape", "enter", "left"):
            self._page = None
        elif key in steps:
            self._page_top += steps[key]

    def _page_view(self, view: FileView, width: int, height: int) -> list[Line]:
        name = safe_text(view.facts.name)
        needed = max(map(line_cells, self._page_lines), default=0)
        shown = max(1, height - 3)
        total = len(self._page_lines)
        self._page_top = max(0, min(self._page_top, total - shown))
        rows = self._page_lines[self._page_top : self._page_top + shown]
        if height < 3:
            return [cut(row, width) for row in rows][:height]
        below = max(0, total - self._page_top - shown)
        lines = framed((name,), rows, width, above=self._page_top, below=below, needed=needed)
        return _with_hint(lines, PAGE_HINT, width, height)


def _with_hint(lines: list[Line], hint: str, width: int, height: int) -> list[Line]:
    """The lines, and on the last of the screen, where it is free, what the keys are for."""
    if len(lines) >= height:
        return lines[:height]
    empty: list[Line] = [()] * (height - len(lines) - 1)
    return [*lines, *empty, ((" " + safe_text(hint, width - 2), Tone.FAINT),)]
