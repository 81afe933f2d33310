"""vampires-peek --follow: the newest frame of a stream, again and again, shown or saved."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vampires.commands.common import StopEvent, UserError, setup_signals
from vampires.commands.peek import PROG, frame_facts, json_ready, save, screen

if TYPE_CHECKING:
    from vampires.stream import FrameInfo, Stream

RESIZE_S = 0.2  # a terminal of another size is noticed so soon
SILENCE_S = 2.0  # without a new frame, and it is told


def follow(args: argparse.Namespace) -> int:
    """Follows the stream until Ctrl-C or --count; returns the exit status, 0."""
    with setup_signals() as stop, _display(args) as display:
        try:
            _Follower(args, display).run(stop)
        except BrokenPipeError:  # nobody reads here any more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    return 0


class _Follower:
    """Finds the newest frame, through every re-creation of the stream."""

    def __init__(self, args: argparse.Namespace, display: _Lines) -> None:
        self._args = args
        self._display = display
        self._stream: Stream | None = _opened(args.follow)
        self._inode = os.stat(self._stream.path).st_ino
        self._cnt0 = -1
        self._shown = 0
        self._news_s = time.monotonic()
        self._force = args.force

    def run(self, stop: StopEvent) -> None:
        """Until stop is set, or enough frames were shown."""
        while not stop.is_set() and self._shown != self._args.count:
            next_s = time.monotonic() + self._args.interval
            self._look()
            if self._shown == self._args.count:
                return
            while (left_s := next_s - time.monotonic()) > 0:
                if stop.wait(min(left_s, RESIZE_S)):
                    return
                self._display.refresh()

    def _look(self) -> None:
        from vampires.stream import StreamError

        try:
            frame, info = self._newest()
        except (StreamError, TimeoutError, OSError) as error:
            self._display.note(str(error))
            return
        if frame is None or info is None:
            return
        if frame.ndim != 2 or frame.dtype.kind not in "iuf":
            raise UserError(
                f"stream '{self._args.follow}': frames of shape {frame.shape}, {frame.dtype}; "
                "expected [y, x] of real numbers"
            )
        self._show(frame, info)

    def _newest(self) -> tuple[Any, FrameInfo | None]:
        """The newest frame, None when it was shown before. Raises StreamError, TimeoutError."""
        from vampires.stream import Stream

        if self._stream is None or not self._is_current():
            self._close()
            self._stream = Stream.open(self._args.follow)
            self._inode = os.stat(self._stream.path).st_ino
            self._cnt0 = -1
        cnt0 = self._stream.cnt0
        if cnt0 in (self._cnt0, 0):
            silent_s = time.monotonic() - self._news_s
            if cnt0 == 0:
                self._display.note(f"stream '{self._args.follow}' has no frame yet")
            elif silent_s > max(SILENCE_S, 2 * self._args.interval):
                self._display.note(f"no new frame for {silent_s:.0f} s")
            return None, None
        frame, info = self._stream.latest()
        self._cnt0 = info.cnt0
        self._news_s = time.monotonic()
        return frame, info

    def _is_current(self) -> bool:
        assert self._stream is not None
        try:
            return os.stat(self._stream.path).st_ino == self._inode
        except OSError:
            return False

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _show(self, frame: Any, info: FrameInfo) -> None:
        from vampires.times import iso_utc

        told: dict[str, Any] = {"stream": self._args.follow, "cnt0": info.cnt0}
        told |= {"cnt1": info.cnt1, "lost": None, "flags": info.flags}
        told["time"] = iso_utc(info.acquired_ns) if info.acquired_ns else None
        told |= frame_facts(frame)
        if self._args.output is not None:
            save(self._args.output, frame, told, None, None, force=self._force)
            self._force = True  # from now on it is ours
        self._shown += 1
        self._display.show(told, frame)


def _opened(name: str) -> Stream:
    from vampires.stream import Stream, StreamError

    try:
        return Stream.open(name)
    except (StreamError, ValueError, OSError) as error:
        raise UserError(str(error)) from None


# -- where it goes ----------------------------------------------------------------------------


@contextmanager
def _display(args: argparse.Namespace) -> Iterator[_Lines]:
    if args.json:
        yield _Objects()
    elif args.output is None and sys.stdout.isatty():
        terminal = _Terminal()
        try:
            yield terminal
        finally:
            terminal.leave()
    else:
        yield _Lines()


class _Lines:
    """A line for each frame; what else there is to say on stderr, once."""

    def __init__(self) -> None:
        self._noted = ""

    def show(self, told: dict[str, Any], frame: Any) -> None:
        self._noted = ""
        print("; ".join(screen(told, frame, picture=False)), flush=True)

    def note(self, text: str) -> None:
        kind = text.rstrip("0123456789 s")  # the same text with another number of seconds
        if kind != self._noted:
            self._noted = kind
            print(f"{PROG}: {text}", file=sys.stderr, flush=True)

    def refresh(self) -> None:
        """Called now and then, when there is nothing new."""


class _Objects(_Lines):
    """An object a line."""

    def show(self, told: dict[str, Any], frame: Any) -> None:
        self._noted = ""
        print(json.dumps(json_ready(told)), flush=True)


class _Terminal(_Lines):
    """The picture on a screen of its own, which goes away at the end; the numbers stay."""

    ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J", "\x1b[?7h\x1b[?25h\x1b[?1049l"
    HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, Any] | None = None
        self._frame: Any = None
        self._size = shutil.get_terminal_size()
        self._entered = False

    def show(self, told: dict[str, Any], frame: Any) -> None:
        self._told, self._frame, self._noted = told, frame, ""
        self._draw()

    def note(self, text: str) -> None:
        self._noted = text
        self._draw()

    def refresh(self) -> None:
        if shutil.get_terminal_size() != self._size:
            self._draw()

    def leave(self) -> None:
        """The terminal is as it was, with the last numbers below."""
        if not self._entered:
            return
        self._write(self.LEAVE)
        if self._told is not None:
            print("\n".join(screen(self._told, self._frame, picture=False)))

    def _draw(self) -> None:
        from vampires.terminal_text import safe_text

        size = shutil.get_terminal_size()
        clear = "\x1b[2J" if size != self._size else ""
        self._size = size
        lines = [] if self._told is None else screen(self._told, self._frame, picture=True)
        lines = lines[-max(1, size.lines - 1) :]
        lines.append(safe_text(self._noted or "Ctrl-C ends", size.columns))
        enter = "" if self._entered else self.ENTER
        self._entered = True
        text = "\r\n".join(line + self.CLEAR_LINE for line in lines)
        self._write(enter + clear + self.HOME + text + self.CLEAR_BELOW)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
