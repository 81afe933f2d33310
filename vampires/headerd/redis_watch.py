"""Asks Redis again and again, in a thread of its own: nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vampires.closing import Closing
from vampires.headerd.keyword_values import redis_keywords, value_of_text
from vampires.headerd.logging_state import LoggingState, database_text
from vampires.headerd.options import HeaderOptions
from vampires.headerd.redis_client import Answer, RedisClient, RedisFailed
from vampires.keywords import KeywordValue

_END_S = 0.5  # that the end of the program waits for an answer


@dataclass(frozen=True)
class RedisNews:
    """What is known from Redis.

    values: of the last good answer. refused: what of it no header can have, and why. times: of
    that answer, ns since 1970 UTC, and seconds of the monotonic clock; None: there was none.
    attempts: questions so far. error: why the last of them had no good answer; not_told: why
    the state of a logger was not told; each else empty. told: the last state that was.
    """

    values: Mapping[str, KeywordValue] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    answered_ns: int | None = None
    answered_s: float | None = None
    attempts: int = 0
    error: str = ""
    not_told: str = ""
    told: Mapping[str, bool] = field(default_factory=dict)

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the last good answer; None: there was none."""
        return None if self.answered_s is None else max(0.0, now_s - self.answered_s)


class RedisWatch(Closing):
    """Asks every options.period_s, until it is closed. Without Redis it does nothing."""

    def __init__(self, options: HeaderOptions, loggers: LoggingState) -> None:
        self._options = options
        self._loggers = loggers
        self._news = RedisNews()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis", daemon=True)
        if options.redis_host is not None:
            self._thread.start()

    def news(self) -> RedisNews:
        """What is known now."""
        with self._lock:
            return self._news

    def close(self) -> None:
        """Asks no more. A question under way ends by itself."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def _run(self) -> None:
        with RedisClient(self._options) as client:
            while not self._end.is_set():
                begun_s = time.monotonic()
                self._set_news(self._ask(client))
                left_s = begun_s + self._options.period_s - time.monotonic()
                self._end.wait(max(0.0, left_s))

    def _ask(self, client: RedisClient) -> RedisNews:
        known = self.news()
        known = replace(known, attempts=known.attempts + 1)
        try:
            return self._answered(known, client)
        except RedisFailed as failure:
            return replace(known, error=str(failure))
        except Exception as error:  # a thread that ends would leave old values and no word
            return replace(known, error=f"{type(error).__name__}: {error}")

    def _answered(self, known: RedisNews, client: RedisClient) -> RedisNews:
        due = self._loggers.due(time.monotonic())
        texts = {name: database_text(saving) for name, saving in due.items()}
        answer = client.ask(redis_keywords(), texts)
        now_s = time.monotonic()
        told = {name: saving for name, saving in due.items() if name not in answer.not_set}
        for keyword, saving in told.items():
            self._loggers.told(keyword, saving, now_s)
        not_told = [f"{name} not set: {why}" for name, why in answer.not_set.items()]
        values, refused = sorted_out(answer)
        return replace(
            known,
            values=values,
            refused=refused,
            answered_ns=time.time_ns(),
            answered_s=now_s,
            error="",
            not_told="; ".join(not_told) or self._loggers.error,
            told={**known.told, **told},
        )

    def _set_news(self, news: RedisNews) -> None:
        with self._lock:
            self._news = news


def sorted_out(answer: Answer) -> tuple[dict[str, KeywordValue], dict[str, str]]:
    """The values that a header can have, and why it cannot have the others."""
    values: dict[str, KeywordValue] = {}
    refused: dict[str, str] = {}
    for name, given in answer.values.items():
        try:
            if isinstance(given, ValueError):
                raise given
            values[name] = value_of_text(name, given)
        except ValueError as error:
            refused[name] = str(error)
    return values, refused
