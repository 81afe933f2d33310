"""The terminal screen of milk-fpsCTRL, with Textual.

One widget is the whole screen. It draws lines that `FPSBrowser` makes, and of them only those
that changed: nothing flickers, and a screen where nothing happens costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from vampires import tmux
from vampires.fps_control import ActionFailed
from vampires.fpsctrl.browser import FPSBrowser
from vampires.fpsctrl.command_lines import Outcome
from vampires.fpsctrl.filter import FPSFilter
from vampires.fpsctrl.lines import Line, Tone
from vampires.fpsctrl.watch import FPSWatch

LOOK_S = 0.2  # what is on the screen
RESCAN_S = 1.0  # the folder
TMUX_S = 2.0  # its sessions: costs a process

# Colours by name, so that they are those of the terminal.
STYLES = {
    Tone.PLAIN: Style(),
    Tone.FAINT: Style(color="bright_black"),
    Tone.GOOD: Style(color="green"),
    Tone.WARNING: Style(color="yellow"),
    Tone.BAD: Style(color="red", bold=True),
    Tone.STRONG: Style(bold=True),
    Tone.SELECTED: Style(reverse=True),
    Tone.TITLE: Style(bold=True),
}


@dataclass
class Work:
    """An action in its thread; failure: why it failed, once the thread has ended."""

    what: str
    thread: threading.Thread
    failure: str | None = None


class LinesWidget(Widget, can_focus=True):
    """Lines of text that fill the screen; a key goes to the browser."""

    DEFAULT_CSS = "LinesWidget { width: 100%; height: 100%; background: ansi_default; }"

    def __init__(self, browser: FPSBrowser) -> None:
        super().__init__()
        self._browser = browser
        self._lines: list[Line] = []

    def update(self) -> None:
        """Draws the lines that are others than before."""
        width, height = self.size
        if not width or not height:
            return
        lines = self._browser.lines(width, height)
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [Region(0, y, width, 1) for y, line in enumerate(lines) if line != before[y]]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        """One line, as wide as the screen."""
        line = self._lines[y] if y < len(self._lines) else ()
        strip = Strip([Segment(text, STYLES[tone]) for text, tone in line])
        return strip.adjust_cell_length(self.size.width, STYLES[Tone.PLAIN])

    def on_resize(self, event: events.Resize) -> None:
        self.update()
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self._browser.press(_key_name(event))
        self.update()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._browser.paste(event.text)
        self.update()


class FPSScreen(App[None], inherit_bindings=False):
    """The application."""

    ENABLE_COMMAND_PALETTE = False
    ESCAPE_TO_MINIMIZE = False
    CSS = "Screen { background: ansi_default; overflow: hidden; }"

    def __init__(self, shm_dir: Path, fps_filter: FPSFilter) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self._watch = FPSWatch(shm_dir, fps_filter)
        self._browser = FPSBrowser(self._watch, self._in_background, self.exit)
        self._widget = LinesWidget(self._browser)
        self._begun: list[Work] = []
        self._tmux_wanted = asyncio.Event()
        self._tmux_task: asyncio.Task[None] | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None

    def compose(self) -> ComposeResult:
        yield self._widget

    def on_mount(self) -> None:
        self._widget.focus()
        self.set_interval(LOOK_S, self._look)
        self.set_interval(RESCAN_S, self._rescan)
        self._tmux_task = asyncio.create_task(self._watch_tmux())
        loop = self._event_loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Not in the main thread, as in a test: then the signals are not ours.
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, self.exit)

    def on_unmount(self) -> None:
        if self._tmux_task is not None:
            self._tmux_task.cancel()
        self._watch.close()

    def _look(self) -> None:
        self._browser.look()
        self._widget.update()

    def _rescan(self) -> None:
        self._browser.rescan()
        self._widget.update()

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
        self._later(lambda: self._browser.say(f"FIFO: {outcome}", tone))

    def leave(self) -> None:
        """Ends the screen; from any thread."""
        self._later(self.exit)

    def _later(self, change: Callable[[], None]) -> None:
        """Calls it in the screen's thread, then draws; nothing when the screen was left."""

        def in_loop() -> None:
            if self._widget.is_attached:
                change()
                self._widget.update()

        with contextlib.suppress(RuntimeError):  # the loop was closed
            if self._event_loop is not None:
                self._event_loop.call_soon_threadsafe(in_loop)

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
            self._later(finish)

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


def _key_name(event: events.Key) -> str:
    """A printable character as such (R, not upper_r); of other keys the name."""
    character = event.character
    if character is not None and character.isprintable() and character != " ":
        return character
    return event.key
