"""The receiver of the slow link: the newest frames of a stream on another computer, as a stream
here, with the sender's counters, times and keywords.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vampires import _core
from vampires.closing import Closing
from vampires.keywords import encode_keyword
from vampires.link_message import FrameMessage, MessageInvalid, read_message, topic
from vampires.stop_request import Stop
from vampires.subscription import Gaps, is_repeated
from vampires.zmq_inbox import Inbox, Received
from vampires.zmq_report import LimitedLines, RecentRate
from vampires.zmq_socket import Endpoint, Keys, check_known

if TYPE_CHECKING:
    import numpy as np

_SLICE_S = 0.1  # between looks at the stop
_MAX_AXES = 2  # one frame; a cube of frames is no picture for a viewer
_NS_PER_MS = 1e6
_KEPT_MESSAGES = 2  # while one is being written


@dataclass(frozen=True)
class ReceiverConfig:
    """What is received from where."""

    endpoint: Endpoint
    stream: str
    """Name of the stream at the sender."""
    name: str = ""
    """Name of the stream here; the same when empty."""
    keys: Keys | None = None
    """The key pair of this end, where the sender uses keys (CURVE),"""
    server_key: bytes | None = None
    """and the public key of the sender."""
    directory: str | None = None
    """The stream folder; None: that of this computer."""


class ZmqReceiver(Closing):
    """Receives a stream; a context manager. It connects at once, and writes in run().

    Whatever comes, or does not come, is told through `say` (one line each, not too often) and
    counted, and never ends the receiving.
    """

    def __init__(self, config: ReceiverConfig, *, say: Callable[[str], None] = print) -> None:
        """Raises ValueError: a name that no stream can have, a host that is not known;
        StreamInvalid: the name here."""
        topic(config.stream)
        self.config = config
        self.name = config.name or config.stream
        self._copy = _LocalStream(config.directory or _core.stream_directory(), self.name)
        self._lines = LimitedLines(say)
        self._rate = RecentRate()
        self._gaps = Gaps()
        self._before: FrameMessage | None = None
        self._said_state = ""
        self._told_unfit = 0
        self._age_ms = 0.0
        self._counts = dict.fromkeys(
            ("frames", "dropped_by_network", "throttled", "resent", "bad_messages"), 0
        )
        self._counts |= dict.fromkeys(("errors", "bytes"), 0)
        self._inbox = Inbox(
            config.endpoint,
            config.stream,
            depth=_KEPT_MESSAGES,
            ipv6=check_known(config.endpoint),
            keys=config.keys,
            server_key=config.server_key,
        )

    def run(self, stop: Stop, look: Callable[[], None] = lambda: None) -> None:
        """Receives until stop is set. look is called every tenth of a second, or more often."""
        while not stop.is_set():
            look()
            self._tell_state()
            self._tell_unfit()
            received = self._inbox.take(_SLICE_S)
            if received is not None:
                self._receive(received)

    def _receive(self, received: Received) -> None:
        try:
            message = read_message(received.data)
            self._check(message)
        except MessageInvalid as error:
            self._counts["bad_messages"] += 1
            self._lines.trouble("message", f"a bad message was left out: {error}")
            return
        self._counts["bytes"] += len(received.data)
        self._rate.add(time.monotonic_ns(), len(received.data))
        throttled, dropped = self._gaps.since_last(message)
        self._counts["throttled"] += throttled
        self._counts["dropped_by_network"] += dropped
        if is_repeated(message, self._before) and self._copy.is_current:
            self._counts["resent"] += 1
            return
        self._write(message)

    def _check(self, message: FrameMessage) -> None:
        if message.frame.ndim > _MAX_AXES:
            raise MessageInvalid(
                f"a frame of shape {message.frame.shape}: a stream here is made of frames "
                "of one or two axes"
            )

    def _write(self, message: FrameMessage) -> None:
        try:
            taken_up = self._copy.write(message)
        except (_core.StreamError, OSError, MemoryError) as error:
            self._counts["errors"] += 1
            self._lines.trouble("stream", f"a frame could not be written: {error}")
            return
        if taken_up is not None:
            how = "goes on in" if taken_up else "made"
            shape = " x ".join(map(str, message.frame.shape))
            self._lines.news(f"{how} stream {self.name}, {shape} {message.frame.dtype}")
        self._before = message
        self._counts["frames"] += 1
        if message.sent_ns:
            self._age_ms = (time.time_ns() - message.sent_ns) / _NS_PER_MS

    def _tell_state(self) -> None:
        state = self._inbox.state
        if state == self._said_state:
            return
        if state == "connected":
            self._lines.news(f"connected to {self.config.endpoint}")
        elif state == "refused":
            self._lines.trouble(
                "refused",
                f"{self.config.endpoint} refuses the connection: does it allow this computer "
                "(--allow), do the keys fit, is it a sender at all?",
            )
        elif self._said_state == "connected":
            self._lines.news(f"lost {self.config.endpoint}; connecting again")
        else:
            self._lines.news(f"connecting to {self.config.endpoint}")
        self._said_state = state

    def _tell_unfit(self) -> None:
        if self._inbox.unfit != self._told_unfit:
            self._told_unfit = self._inbox.unfit
            self._lines.trouble("parts", "a message of several parts was left out: no frame")

    def status(self) -> dict[str, Any]:
        """The counters, which only grow, and what is now.

        state (connecting, refused, connected), stream (its name here), address, connections
        (how often it connected), frames (written), dropped_by_network (messages sent that did
        not come), throttled (frames that the sender left out on purpose), resent (frames that
        came once more), bad_messages (left out), refused (connections), errors (frames that
        could not be written), bytes, cnt0 (of the frame written last), age_ms (from the
        sending of the last frame, by the sender's clock, until it was written), fps and
        mbit_per_s (of the last two seconds), last_error.
        """
        fps, mbit_per_s = self._rate.now(time.monotonic_ns())
        bad = self._counts["bad_messages"] + self._inbox.unfit
        return {
            "state": self._inbox.state,
            "stream": self.name,
            "address": str(self.config.endpoint),
            "connections": self._inbox.connections,
            **self._counts,
            "bad_messages": bad,
            "refused": self._inbox.refusals,
            "cnt0": self._copy.cnt0,
            "age_ms": round(self._age_ms, 3),
            "fps": fps,
            "mbit_per_s": mbit_per_s,
            "last_error": self._lines.last,
        }

    def close(self) -> None:
        """Closes the connection. The stream stays, for its readers and the next receiver."""
        self._inbox.close()
        self._copy.close()


class _LocalStream:
    """The stream here: made when the first frame tells its shape, and again when that changes,
    or when somebody removed it."""

    def __init__(self, directory: str, name: str) -> None:
        """Raises StreamInvalid for a name that no stream can have."""
        self._copy = _core.StreamCopy(directory, name)
        self._layout: tuple[tuple[int, ...], np.dtype] | None = None
        self._room = 0
        self.cnt0 = 0

    @property
    def is_current(self) -> bool:
        """The stream is there, and this one's."""
        return self._layout is not None and self._copy.current

    def write(self, message: FrameMessage) -> bool | None:
        """Writes a frame. True when the stream was taken up for it, False when it was made,
        None when nothing of that kind was needed. Raises StreamError, OSError."""
        adopted = self._adopt(message)
        cnt0 = message.cnt0 if message.cnt0 >= 0 else self._copy.cnt0 + 1
        keywords = [encode_keyword(k.name, k.value, k.comment) for k in message.keywords]
        self._copy.write(message.frame, cnt0, message.acquired_ns, b"".join(keywords))
        self.cnt0 = cnt0
        return adopted

    def _adopt(self, message: FrameMessage) -> bool | None:
        frame, count = message.frame, len(message.keywords)
        if (
            self._layout == (frame.shape, frame.dtype)
            and count <= self._room
            and self._copy.current
        ):
            return None
        self._layout = None
        # Room to grow: a stream that is made anew is a disturbance for its readers.
        room = 2 * count + 8
        sizes = list(reversed(frame.shape))
        # A new stream counts from there, so that its readers miss nothing of what was before.
        before = max(message.cnt0, 1) - 1
        taken_up = self._copy.adopt(sizes, frame.dtype, _core.MATH_DATA, room, before)
        self._layout, self._room = (frame.shape, frame.dtype), room
        return taken_up

    def close(self) -> None:
        self._layout = None
        self._copy.close()
