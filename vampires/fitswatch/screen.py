"""The terminal screen of fitswatcher: the panel of the newest snapshot."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vampires.fitswatch.browser import PanelBrowser
from vampires.fitswatch.detail import read_page
from vampires.fitswatch.snapshot import FileView, Snapshot
from vampires.fitswatch.watch import FitsWatch
from vampires.fitswatch.watcher import Watcher
from vampires.terminal_screen import LinesScreen
from vampires.terminal_text import Line, Tone, safe_text


class FitsScreen(LinesScreen):
    """The application. failure: what ended it, a fault of ours; None otherwise."""

    def __init__(self, watch: FitsWatch, poll_s: float | None = None) -> None:
        self._browser = PanelBrowser(self._read, self.exit)
        super().__init__(self._browser)
        self._watcher = Watcher(watch, self._changed, poll_s)
        self.failure: BaseException | None = None

    def on_mount(self) -> None:
        super().on_mount()
        self._watcher.start()

    def on_unmount(self) -> None:
        self._watcher.close()

    def _changed(self, snapshot: Snapshot) -> None:
        """A new snapshot, once a second and when something has happened; from the watcher."""

        def show() -> None:
            self._browser.snapshot = snapshot
            if snapshot.new_losses:
                self.bell()
            if self._watcher.failure is not None:
                self.failure = self._watcher.failure
                self.exit()

        self.later(show)

    def _read(self, view: FileView, done: Callable[[list[Line]], None]) -> None:
        """Reads the page of a file in a thread of its own: a disk may be slow."""

        def body() -> None:
            try:
                lines = read_page(view)
            except Exception as error:  # a fault of ours: said on the page, not across it
                lines = [((safe_text(f"unexpected {error!r}"), Tone.BAD),)]
            self.later(lambda: done(lines))

        threading.Thread(target=body, name="page", daemon=True).start()
