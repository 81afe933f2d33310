"""The sender of the slow link: the newest frame of a stream, at most so often, to whoever may
have it.

Nothing queues. A frame is taken from the stream when it is due, and then the newest; each
subscriber has one message waiting for it, which a newer one replaces.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import zmq

from vampires import _core
from vampires.allowed_peers import Network, check_listen
from vampires.closing import Closing
from vampires.keywords import Keyword, decode_keywords
from vampires.link_message import (
    DEFAULT_CODEC,
    Codec,
    FrameMessage,
    MessageInvalid,
    encode,
    topic,
)
from vampires.stop_request import Stop
from vampires.throttle import Throttle
from vampires.zmq_access import AccessControl
from vampires.zmq_report import LimitedLines, RecentRate
from vampires.zmq_socket import (
    REFUSED_EVENTS,
    Endpoint,
    Keys,
    Monitor,
    new_publisher,
)

if TYPE_CHECKING:
    import numpy as np

# Between looks at the stop, at peers who ask to be let in, and at a stream that is not there.
_SLICE_S = 0.1
_NEWEST_S = 1.0  # for a whole copy of the newest frame
_ACQUISITION_KEYWORD = "_MAQTIME"  # [us]
_NS_PER_S = 1_000_000_000
_ANYBODY = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True)
class SenderConfig:
    """What is sent to whom."""

    stream: str
    endpoint: Endpoint
    """Where to listen; port 0 takes any that is free."""
    fps: float = 20.0
    """Frames/s at most. A slower stream is sent frame by frame."""
    max_mbps: float = 500.0
    """10**6 bits/s at most, rather than which the rate falls; 0: no limit."""
    skip: int = 0
    """Frames to leave out after each one sent."""
    resend_s: float | None = None
    """The newest frame once more when none came for so long: for subscribers that come late."""
    pymilk: bool = False
    """The messages of pyMilk's zmq_send.py, uncompressed pickles, instead of our own."""
    codec: Codec = DEFAULT_CODEC
    allowed: tuple[Network, ...] = ()
    """Networks of the peers; to listen beyond this computer, they or peer_keys are needed."""
    keys: Keys | None = None
    """Encrypts (CURVE): subscribers need the public half."""
    peer_keys: frozenset[bytes] | None = None
    """Public keys of the subscribers; None: any."""
    directory: str | None = None
    """The stream folder; None: that of this computer."""


class ZmqSender(Closing):
    """Sends a stream; a context manager. It listens from the start on, and sends in run().

    What happens to the stream or at the other end is told through `say` (one line each, not
    too often) and counted, and never ends the sending.
    """

    def __init__(self, config: SenderConfig, *, say: Callable[[str], None] = print) -> None:
        """Raises ValueError: a stream's name, numbers or an address that cannot be, or an
        address beyond this computer without peers; OSError: the port is taken."""
        if not config.pymilk:  # now, and not with the first frame: it takes half a second
            import blosc2  # noqa: F401
        topic(config.stream)
        if config.peer_keys is not None and config.keys is None:
            raise ValueError("keys of peers are of no use without a key of this end")
        self.config = config
        self._throttle = Throttle(
            config.fps, max_bits_per_s=config.max_mbps * 1e6, skip=config.skip
        )
        self._lines = LimitedLines(say)
        self._directory = config.directory or _core.stream_directory()
        self._id = secrets.randbits(64)
        self._state = "waiting"
        self._counts = dict.fromkeys(
            ("frames", "throttled", "skipped", "resent", "refused", "errors", "bytes"), 0
        )
        self._connections: set[int] = set()
        self._rate = RecentRate()
        self._look: Callable[[], None] = lambda: None
        self._waiting = ""
        self._last_cnt0: int | None = None
        self._last_sent_ns = 0
        self._listen()

    def _listen(self) -> None:
        config = self.config
        anybody = _ANYBODY if config.peer_keys is not None else ()
        host = check_listen(config.endpoint.host, config.allowed or anybody)
        endpoint = replace(config.endpoint, host=host)
        self._context = zmq.Context()
        try:
            self._access = AccessControl(self._context, config.allowed, config.peer_keys)
            self._socket = new_publisher(self._context, ipv6=":" in host, keys=config.keys)
            self._monitor = Monitor(self._socket)
            self._socket.bind(str(endpoint))
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise OSError(error.errno, f"cannot listen on {endpoint}: {error}") from error
        bound = str(self._socket.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")
        self.endpoint = replace(endpoint, port=int(bound.rpartition(":")[2]))
        """Where it listens."""

    # -- running ------------------------------------------------------------------------------

    def run(self, stop: Stop, look: Callable[[], None] = lambda: None) -> None:
        """Sends until stop is set. Waits for a stream that is not there, and follows one that
        is made anew. look is called every tenth of a second, or more often."""
        self._look = look
        while not stop.is_set():
            self._serve()
            try:
                self._follow(stop)
            except _core.StreamGone:  # to be opened again
                self._state = "waiting"
            except (_core.StreamError, OSError, MemoryError) as error:
                self._note_waiting(str(error))
                stop.wait(_SLICE_S)

    def _note_waiting(self, why: str) -> None:
        self._state = "waiting"
        if why != self._waiting:
            self._lines.news(f"waiting for stream {self.config.stream}: {why}")
        self._waiting = why

    def _follow(self, stop: Stop) -> None:
        source = _Source(self._directory, self.config.stream)
        self._lines.news(f"sending {source}")
        self._waiting = ""
        self._last_cnt0 = None
        self._send_all(source, stop)

    def _send_all(self, source: _Source, stop: Stop) -> None:
        """Sends from one file until stop is set. StreamGone when the file is replaced."""
        self._state = "sending"
        while not stop.is_set():
            self._serve()
            now_ns = time.monotonic_ns()
            wait_ns = self._throttle.wait_ns(now_ns)
            if wait_ns > 0:
                stop.wait(min(wait_ns / _NS_PER_S, _SLICE_S))
            elif self._is_next(source.newest_cnt0) or self._resend_is_due(now_ns, source):
                self._send_newest(source, now_ns)
            else:
                source.wait(_SLICE_S)

    def _is_next(self, cnt0: int) -> bool:
        """Whether the frame is to be sent: any but the last one, unless it is to be skipped."""
        is_new = cnt0 > 0 and cnt0 != self._last_cnt0
        return is_new and self._throttle.admits(cnt0)

    def _resend_is_due(self, now_ns: int, source: _Source) -> bool:
        resend_s = self.config.resend_s
        if resend_s is None or source.newest_cnt0 == 0:
            return False
        return now_ns - self._last_sent_ns >= resend_s * _NS_PER_S

    def _send_newest(self, source: _Source, now_ns: int) -> None:
        found = source.newest()
        if found is None:
            self._lines.trouble(
                "torn",
                f"stream {self.config.stream} shows no whole frame: it is overwritten faster "
                "than it can be copied, or its writer died writing",
            )
            return
        frame, info, keywords = found
        is_new = info.cnt0 != self._last_cnt0
        self._throttle.admits(info.cnt0)  # which may be newer than the one looked at before
        left_out = self._left_out(info.cnt0)
        try:
            data = self._encoded(frame, info, keywords, is_new, sum(left_out))
        except MessageInvalid as error:
            self._counts["errors"] += 1
            self._lines.trouble("frame", f"frame {info.cnt0} cannot be sent: {error}")
            data = b""
        else:
            self._socket.send(data)
            self._counts["frames" if is_new else "resent"] += 1
            self._counts["bytes"] += len(data)
            self._rate.add(now_ns, len(data))
        self._counts["throttled"] += left_out[0]
        self._counts["skipped"] += left_out[1]
        self._throttle.sent(now_ns, len(data))
        self._last_cnt0 = info.cnt0
        self._last_sent_ns = now_ns

    def _left_out(self, cnt0: int) -> tuple[int, int]:
        """Frames between the last one and this that were left out for the rate, and those for
        `skip`. A counter that went back began anew."""
        if self._last_cnt0 is None or cnt0 <= self._last_cnt0:
            return 0, 0
        between = cnt0 - self._last_cnt0 - 1
        skipped = min(between, self.config.skip)
        return between - skipped, skipped

    def _encoded(
        self,
        frame: np.ndarray,
        info: _core.FrameInfo,
        keywords: list[Keyword],
        is_new: bool,
        left_out: int,
    ) -> bytes:
        if self.config.pymilk:
            from vampires.pymilk_message import encode_pymilk

            values = {keyword.name: keyword.value for keyword in keywords}
            return encode_pymilk(self.config.stream, frame, values)
        message = FrameMessage(
            stream=self.config.stream,
            frame=frame,
            cnt0=info.cnt0,
            acquired_ns=max(0, info.acquired_ns),
            sent_ns=time.time_ns(),
            # Of frames: nothing is missing where a repetition did not arrive.
            sequence=max(0, self._counts["frames"] - (not is_new)),
            sender=self._id,
            throttled=self._counts["throttled"] + self._counts["skipped"] + left_out,
            keywords=tuple(keywords),
        )
        return encode(message, self.config.codec)

    # -- peers --------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Lets peers in or refuses them, and notes who came and went."""
        self._look()
        for refusal in self._access.serve():
            self._counts["refused"] += 1
            self._lines.trouble("refused", refusal)
        for event, value in self._monitor.events():
            if event == zmq.EVENT_ACCEPTED:
                self._connections.add(value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._connections.discard(value)
            elif event in REFUSED_EVENTS and event != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._counts["refused"] += 1
                self._lines.trouble("refused", f"a peer was refused: {self._why_refused()}")

    def _why_refused(self) -> str:
        if self.config.keys is not None:
            return "it has no keys, or not the public key of this end"
        return "it is no subscriber of ours; perhaps it uses keys, which this end does not"

    # -- looking at it ------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The counters, which only grow, and what is now.

        state (waiting for the stream, sending), stream, address, connections (peers now),
        frames (sent), throttled and skipped (frames left out for the rate, and by
        `skip`), resent, refused (connections), errors (frames that cannot be sent), bytes,
        cnt0 (of the frame sent last), fps and mbit_per_s (of the last two seconds), last_error.
        """
        fps, mbit_per_s = self._rate.now(time.monotonic_ns())
        return {
            "state": self._state,
            "stream": self.config.stream,
            "address": str(self.endpoint),
            "connections": len(self._connections),
            **self._counts,
            "cnt0": self._last_cnt0 or 0,
            "fps": fps,
            "mbit_per_s": mbit_per_s,
            "last_error": self._lines.last,
        }

    def close(self) -> None:
        """Closes the port and all connections."""
        if self._context.closed:
            return
        self._monitor.close()
        self._socket.close()
        self._access.close()
        self._context.destroy(linger=0)


class _Source:
    """One file of a stream, read for its newest frame."""

    def __init__(self, directory: str, stream: str) -> None:
        """Raises StreamNotFound, StreamInvalid."""
        self._file = _core.StreamFile.open(directory, stream)
        self._reader = _core.StreamReader(self._file)

    def __str__(self) -> str:
        shape = " x ".join(map(str, self._file.shape))
        return f"{self._file.name}, {shape} {self._file.dtype}"

    @property
    def newest_cnt0(self) -> int:
        return self._reader.newest_cnt0

    def wait(self, timeout_s: float) -> None:
        """Until a frame comes. Raises StreamGone."""
        self._reader.read(timeout_s, False)

    def newest(self) -> tuple[np.ndarray, _core.FrameInfo, list[Keyword]] | None:
        """The newest frame, what is known of it, and its keywords; None: it is never whole.

        The keywords are those of now, which may be of a frame or two later; but the time of
        acquisition among them is that of the frame.
        """
        found = self._reader.newest(_NEWEST_S, True)
        if found is None:
            return None
        frame, info = found
        keywords = [_of_frame(k, info) for k in decode_keywords(self._file.keywords_raw())]
        return frame, info, keywords


def _of_frame(keyword: Keyword, info: _core.FrameInfo) -> Keyword:
    if keyword.name != _ACQUISITION_KEYWORD or info.acquired_ns <= 0:
        return keyword
    return replace(keyword, value=info.acquired_ns // 1000)
