"""A whole terminal screen of lines, with Textual.

One widget is the whole screen. It draws the lines that somebody else makes, and of them only
those that changed: nothing flickers, and a screen where nothing happens costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Protocol

from vampires.terminal_text import Line, Tone

_NO_KITTY_KEYS = "TEXTUAL_DISABLE_KITTY_KEY"
# Terminals that do not know the newer keyboard protocol may print what switches it on, and no
# key of ours needs it. Textual asks while it is loaded.
_given = os.environ.get(_NO_KITTY_KEYS)
os.environ[_NO_KITTY_KEYS] = "1"
try:
    from rich.segment import Segment
    from rich.style import Style
    from textual import events
    from textual.app import App, ComposeResult
    from textual.geometry import Region
    from textual.strip import Strip
    from textual.widget import Widget
finally:
    if _given is None:
        del os.environ[_NO_KITTY_KEYS]
    else:
        os.environ[_NO_KITTY_KEYS] = _given

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


class Browser(Protocol):
    """What is on a screen, and what the keys do with it."""

    def lines(self, width: int, height: int) -> list[Line]:
        """The lines that fill a screen of that size."""

    def press(self, key: str) -> None:
        """A key: a printable character as such, of another its name in Textual."""

    def paste(self, text: str) -> None:
        """A text that was pasted."""


class LinesWidget(Widget, can_focus=True):
    """Lines of text that fill the screen; a key goes to the browser."""

    DEFAULT_CSS = "LinesWidget { width: 100%; height: 100%; background: ansi_default; }"

    def __init__(self, browser: Browser) -> None:
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
        self._browser.press(key_name(event))
        self.update()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._browser.paste(event.text)
        self.update()


class LinesScreen(App[None], inherit_bindings=False):
    """An application of one LinesWidget, which signals end as a key would. To be derived
    from."""

    ENABLE_COMMAND_PALETTE = False
    ESCAPE_TO_MINIMIZE = False
    CSS = "Screen { background: ansi_default; overflow: hidden; }"

    def __init__(self, browser: Browser) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self.widget = LinesWidget(browser)
        self._event_loop: asyncio.AbstractEventLoop | None = None

    def compose(self) -> ComposeResult:
        yield self.widget

    def on_mount(self) -> None:
        self.widget.focus()
        loop = self._event_loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Not in the main thread, as in a test: then the signals are not ours.
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, self.exit)

    def later(self, change: Callable[[], None]) -> None:
        """Calls it in the screen's thread, then draws; from any thread. Nothing when the screen
        was left."""

        def in_loop() -> None:
            if self.widget.is_attached:
                change()
                self.widget.update()

        with contextlib.suppress(RuntimeError):  # the loop was closed
            if self._event_loop is not None:
                self._event_loop.call_soon_threadsafe(in_loop)


def key_name(event: events.Key) -> str:
    """A printable character as such (R, not upper_r); of other keys the name."""
    character = event.character
    if character is not None and character.isprintable() and character != " ":
        return character
    return event.key
