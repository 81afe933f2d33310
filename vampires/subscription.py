"""Frames of a stream on another computer, for scripts: subscribe.

(This module is not called subscribe, or `from vampires import subscribe` would give now the
function and now the module.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy.typing as npt

from vampires.closing import Closing
from vampires.keywords import KeywordValue
from vampires.link_message import FrameMessage, MessageInvalid, read_message, topic
from vampires.zmq_inbox import Inbox, Received
from vampires.zmq_socket import Endpoint, Keys, check_known, parse_endpoint


@dataclass(frozen=True)
class SubscribedFrame:
    """What is known of a frame that came over the slow link.

    Times are ns since 1970 UTC; 0 where the sender (pyMilk's) does not tell them.
    """

    stream: str
    cnt0: int
    """Counter of the frame in its stream; -1 where the sender does not tell it."""
    acquired_ns: int
    """When the frame was taken."""
    sent_ns: int
    """When it was sent, by the sender's clock."""
    received_ns: int
    """When it came here, by the clock of this computer."""
    throttled: int
    """Frames that the sender left out on purpose since the frame before this one."""
    dropped: int
    """Messages sent since the frame before that did not come here, or came while this program
    was busy and were replaced by newer ones."""
    keywords: dict[str, KeywordValue] = field(default_factory=dict)
    """Keywords of the stream at this frame."""
    comments: dict[str, str] = field(default_factory=dict)
    """Their comments."""


class Gaps:
    """What is missing between one message and the next of the same sender."""

    def __init__(self) -> None:
        self._before: FrameMessage | None = None

    def since_last(self, message: FrameMessage) -> tuple[int, int]:
        """(frames throttled, messages dropped) since the message before; (0, 0) for the first
        of a sender, and where a sender does not number its messages."""
        before, self._before = self._before, message
        if before is None or before.sender != message.sender or not message.sender:
            return 0, 0
        throttled = message.throttled - before.throttled
        return max(0, throttled), max(0, message.sequence - before.sequence - 1)


def is_repeated(message: FrameMessage, before: FrameMessage | None) -> bool:
    """Whether this is the frame before once more, as senders with --resend send it."""
    return (
        before is not None
        and message.cnt0 >= 0
        and (message.sender, message.cnt0, message.acquired_ns)
        == (before.sender, before.cnt0, before.acquired_ns)
    )


class Subscription(Closing):
    """The frames of a stream as they come, always the newest: an iterator of (frame, info).

    frame is an array [y, x] of its own; info a SubscribedFrame. A frame is given once. The
    connection is made at once, made again whenever it is lost, and closed with close(), at the
    end of a `with`, or when the object is dropped. For one thread.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stream: str,
        *,
        timeout: float | None = None,
        ipv6: bool = False,
        keys: Keys | None = None,
        server_key: bytes | None = None,
    ) -> None:
        self.address = str(endpoint)
        self.stream = stream
        self.timeout = timeout
        self.bad_messages = 0
        """Messages that could not be read, and were left out."""
        self._last_error = ""
        self._before: FrameMessage | None = None
        self._gaps = Gaps()
        self._throttled = self._dropped = 0  # since the frame that was given last
        self._closed = False
        self._inbox = Inbox(endpoint, stream, ipv6=ipv6, keys=keys, server_key=server_key)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[Any], SubscribedFrame]]:
        return self

    def __next__(self) -> tuple[npt.NDArray[Any], SubscribedFrame]:
        """The newest frame that was not given yet; waits for one, `timeout` seconds at most.

        Raises TimeoutError, which says what is wrong; one may go on all the same.
        """
        deadline_s = None if self.timeout is None else time.monotonic() + self.timeout
        while not self._closed:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            received = self._inbox.take(left_s)
            if received is None:
                break
            message = self._read(received)
            if message is not None:
                return message.frame, self._info(message, received.received_ns)
        if self._closed:
            raise StopIteration
        raise TimeoutError(self._why_nothing())

    def close(self) -> None:
        """Closes the connection; the iteration then ends."""
        self._closed = True
        self._inbox.close()

    def __repr__(self) -> str:
        return f"<Subscription {self.stream} of {self.address}, {self._inbox.state}>"

    def _read(self, received: Received) -> FrameMessage | None:
        """The message, unless it is none, or one that was given already."""
        try:
            message = read_message(received.data)
        except MessageInvalid as error:
            self.bad_messages += 1
            self._last_error = str(error)
            return None
        throttled, dropped = self._gaps.since_last(message)
        self._throttled += throttled
        self._dropped += dropped
        if is_repeated(message, self._before):
            return None
        self._before = message
        return message

    def _info(self, message: FrameMessage, received_ns: int) -> SubscribedFrame:
        throttled, self._throttled = self._throttled, 0
        dropped, self._dropped = self._dropped, 0
        return SubscribedFrame(
            stream=message.stream,
            cnt0=message.cnt0,
            acquired_ns=message.acquired_ns,
            sent_ns=message.sent_ns,
            received_ns=received_ns,
            throttled=throttled,
            dropped=dropped,
            keywords={keyword.name: keyword.value for keyword in message.keywords},
            comments={keyword.name: keyword.comment for keyword in message.keywords},
        )

    def _why_nothing(self) -> str:
        return (
            f"no new frame of stream '{self.stream}' from {self.address} within "
            f"{self.timeout:g} s: {self._diagnosis()}"
        )

    def _diagnosis(self) -> str:
        if self._inbox.state == "refused":
            return (
                "the connection was refused; does the sender allow this computer (--allow), "
                "do the keys fit, is it a sender at all?"
            )
        if self._inbox.state == "connecting":
            return "nothing answers there; does vampires-zmq-send run, is a firewall between?"
        if self.bad_messages:
            return f"what comes cannot be read; the last error was: {self._last_error}"
        return (
            "the connection is there, but no frames come; is the camera running, does the "
            "sender send a stream of this name?"
        )


def subscribe(
    address: str,
    stream: str,
    *,
    timeout: float | None = None,
    keys: str | PathLike[str] | None = None,
    server_key: str | PathLike[str] | None = None,
) -> Subscription:
    """The frames of a camera on another computer, as vampires-zmq-send sends them.

    >>> from vampires import subscribe
    >>> for frame, info in subscribe("tcp://scexao5:5560", "vcam1", timeout=5):
    ...     print(info.cnt0, frame.shape, frame.max(), info.keywords["EXPTIME"])

    Each turn of the loop gets the newest frame, however long the turn before took: frames that
    came meanwhile are left out, and counted in info.dropped. A frame is given once.

    Parameters
    ----------
    address : tcp://HOST:PORT of the sender; it need not run yet, and may be restarted.
    stream : name of the stream there.
    timeout : seconds to wait for each new frame; None waits for ever.
    keys : file with the secret key of this computer, made by vampires-zmq-keys, where the
        sender uses keys.
    server_key : file with the public key of the sender; goes with keys.

    Yields
    ------
    (frame, info) : frame an array [y, x] in the pixel type of the camera, the caller's own;
        info a SubscribedFrame: cnt0, acquired_ns, sent_ns, received_ns, throttled, dropped,
        keywords and comments.

    Raises
    ------
    ValueError : the address or the stream's name is not right, or the host is not known.
    KeyFileError : a key file is not right.
    TimeoutError : no new frame within the timeout. The text says what is wrong; the
        subscription goes on if it is asked for the next frame again.
    """
    endpoint = parse_endpoint(address)
    topic(stream)
    own, server = load_keys(keys, server_key)
    ipv6 = check_known(endpoint)
    return Subscription(
        endpoint, stream, timeout=timeout, ipv6=ipv6, keys=own, server_key=server
    )


def load_keys(
    keys: str | PathLike[str] | None, server_key: str | PathLike[str] | None
) -> tuple[Keys | None, bytes | None]:
    """The key pair of this end and the public key of the sender, from their files; both or
    none. ValueError or KeyFileError, in one line."""
    if keys is None and server_key is None:
        return None, None
    if keys is None or server_key is None:
        raise ValueError(
            "the key of this computer and that of the sender go together: "
            f"{'the sender' if server_key is None else 'this computer'}'s is missing"
        )
    from vampires.link_keys import load_public, load_secret

    return load_secret(Path(keys)), load_public(Path(server_key))
