"""The terminal screen of milk-fpsCTRL: lines that `FPSBrowser` makes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vampires import tmux
from vampires.fps_control import ActionFailed
from vampires.fpsctrl.browser import FPSBrowser
from vampires.fpsctrl.command_lines import Outcome
from vampires.fpsctrl.filter import FPSFilter
from vampires.fpsctrl.watch import FPSWatch
from vampires.terminal_screen import LinesScreen
from vampires.terminal_text import Tone

LOOK_S = 0.2  # what is on the screen
RESCAN_S = 1.0  # the folder
TMUX_S = 2.0  # its sessions: costs a process


@dataclass
class Work:
    """An action in its thread; failure: why it failed, once the thread has ended."""

    what: str
    thread: threading.Thread
    failure: str | None = None


class FPSScreen(LinesScreen):
    """The application."""

    def __init__(self, shm_dir: Path, fps_filter: FPSFilter) -> None:
        self._watch = FPSWatch(shm_dir, fps_filter)
        self._browser = FPSBrowser(self._watch, self._in_background, self.exit)
        super().__init__(self._browser)
        self._begun: list[Work] = []
        self._tmux_wanted = asyncio.Event()
        self._tmux_task: asyncio.Task[None] | None = None

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(LOOK_S, self._look)
        self.set_interval(RESCAN_S, self._rescan)
        self._tmux_task = asyncio.create_task(self._watch_tmux())

    def on_unmount(self) -> None:
        if self._tmux_task is not None:
            self._tmux_task.cancel()
        self._watch.close()

    def _look(self) -> None:
        self._browser.look()
        self.widget.update()

    def _rescan(self) -> None:
        self._browser.rescan()
        self.widget.update()

    async def _watch_tmux(self) -> None:
        """Asks tmux for its sessions now and then, and after each action."""
        while True:
            self._tmux_wanted.clear()
            try:
                self._watch.set_panes(await asyncio.to_thread(tmux.panes))
            except tmux.TmuxError:  # missing or stuck: no sessions; actions say why
                self._watch.set_panes([])
            self._look()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._tmux_wanted.wait(), TMUX_S)

    def say_outcome(self, outcome: Outcome) -> None:
        """Shows what became of a command line; from any thread."""
        tone = Tone.PLAIN if outcome.ok else Tone.BAD
        self.later(lambda: self._browser.say(f"FIFO: {outcome}", tone))

    def leave(self) -> None:
        """Ends the screen; from any thread."""
        self.later(self.exit)

    def _in_background(
        self, what: str, work: Callable[[], None], done: Callable[[str | None], None]
    ) -> None:
        def body() -> None:
            try:
                work()
            except ActionFailed as error:
                begun.failure = str(error)
            except Exception as error:  # a fault of ours: said on the screen, not across it
                begun.failure = f"unexpected {error!r}"
            self.later(finish)

        def finish() -> None:
            self._begun.remove(begun)
            self._tmux_wanted.set()
            self._browser.rescan()
            done(begun.failure)

        begun = Work(what, threading.Thread(target=body, name=what, daemon=True))
        self._begun.append(begun)
        begun.thread.start()

    def under_way(self) -> list[Work]:
        """What had not ended when the screen was left."""
        return list(self._begun)
