"""One question and its answer: all keywords of a Redis database, in one pipeline.

The database is that of the instrument: a hash for each keyword, named as the keyword is, with
a field ``value``. An answer that takes longer than ANSWER_S in all, or is larger than
ANSWER_BYTES, is none.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import ConnectionPool, Redis, exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from vampires.closing import Closing
from vampires.headerd.options import HeaderOptions
from vampires.keywords import printable

ANSWER_S = 1.0
ANSWER_BYTES = 4 << 20
FIELD = "value"

_MOST_ERROR_CHARS = 200


class RedisFailed(Exception):
    """There is no good answer. The text is one line that says why."""


@dataclass(frozen=True)
class Answer:
    """What Redis said. values: as it gave them, for the keywords that are there; a ValueError
    for one that is no hash. not_set: of the hashes that were to be set, those that were not,
    and why."""

    values: Mapping[str, object]
    not_set: Mapping[str, str]


class _AnswerSocket(socket.socket):
    """Bounds an answer, which begins with what is sent before it, in time and size."""

    _deadline_s = float("inf")
    _received = 0

    def sendall(self, *args: Any) -> None:
        self._deadline_s = time.monotonic() + ANSWER_S
        self._received = 0
        self.settimeout(ANSWER_S)
        super().sendall(*args)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags or self.gettimeout() == 0:  # a look whether the connection still stands
            return super().recv(size, flags)
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)
        content = super().recv(size)
        self._received += len(content)
        if self._received > ANSWER_BYTES:
            raise ConnectionError(f"an answer of more than {ANSWER_BYTES} bytes")
        return content


class _BoundedConnection(Connection):
    def _connect(self) -> socket.socket:
        plain = super()._connect()
        family, kind, protocol = plain.family, plain.type, plain.proto
        bounded = _AnswerSocket(family, kind, protocol, fileno=plain.detach())
        bounded.settimeout(ANSWER_S)
        return bounded


class RedisClient(Closing):
    """A connection to the database, made when it is needed, and made anew after a failure."""

    def __init__(self, options: HeaderOptions) -> None:
        self._pool = ConnectionPool(
            connection_class=_BoundedConnection,
            host=options.redis_host,
            port=options.redis_port,
            db=options.redis_db,
            protocol=2,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis(connection_pool=self._pool)

    def ask(self, keywords: Sequence[str], to_set: Mapping[str, str]) -> Answer:
        """The values of these keywords; and sets hashes to these values. Raises RedisFailed.

        Takes about two seconds at most, and longer only where the name service does.
        """
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for name in keywords:
                pipeline.hget(name, FIELD)
            for name, value in to_set.items():
                pipeline.hset(name, FIELD, value)
            replies = pipeline.execute(raise_on_error=False)
        except Exception as error:  # whatever a server says, the parser may stumble over it
            self._pool.disconnect()
            raise RedisFailed(_one_line(error)) from None
        return _answer(keywords, to_set, replies)

    def close(self) -> None:
        """Closes the connection."""
        self._pool.disconnect()


def _answer(keywords: Sequence[str], to_set: Mapping[str, str], replies: list[Any]) -> Answer:
    values: dict[str, object] = {}
    for name, reply in zip(keywords, replies, strict=False):
        if isinstance(reply, exceptions.ResponseError) and str(reply).startswith("WRONGTYPE"):
            values[name] = ValueError("found another kind of key, expected a hash")
        elif isinstance(reply, Exception):
            raise RedisFailed(_one_line(reply))
        elif reply is not None:
            values[name] = reply
    settings = zip(to_set, replies[len(keywords) :], strict=False)
    not_set = {name: _one_line(said) for name, said in settings if isinstance(said, Exception)}
    return Answer(values, not_set)


def _one_line(error: Exception) -> str:
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return f"no answer within {ANSWER_S:g} s"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:  # in the words of the system alone
        return cause.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text)[:_MOST_ERROR_CHARS].rstrip(".")
