"""The aux header service: keeps the auxiliary files of the streams of this machine current.

Redis is asked in a thread (``RedisWatch``); here its news, the constants and the clock become
cards, and each change of state a line. Nothing here waits for Redis.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vampires.closing import Closing
from vampires.headerd.aux_file import (
    CONSTANTS_ONLY,
    CURRENT,
    NO_REDIS,
    STALE,
    AuxFacts,
    AuxFiles,
)
from vampires.headerd.constants import ConstantsError, ConstantsFile
from vampires.headerd.logging_state import LoggingState
from vampires.headerd.options import HeaderOptions
from vampires.headerd.redis_watch import RedisNews, RedisWatch
from vampires.headerd.report import HeaderReport
from vampires.stop_request import Stop

FIRST_ANSWER_S = 4.0  # the first files wait so long for it

_LOOK_S = 1.0  # at the longest, from one look at everything to the next
_POLL_S = 0.02
_MOST_NAMED = 10


class HeaderService(Closing):
    """numbers: camera numbers by streams, for the cameras that have one.

    Raises ConstantsError.
    """

    def __init__(
        self,
        streams: Sequence[str],
        shm_dir: Path,
        options: HeaderOptions,
        report: HeaderReport,
        *,
        numbers: Mapping[str, int],
    ) -> None:
        self._streams = list(streams)
        self._options = options
        self._report = report
        self._constants = ConstantsFile(options.constants)
        self._files = AuxFiles(streams, shm_dir)
        self._watch = RedisWatch(options, LoggingState(numbers, shm_dir))
        self._said: object = None
        self._not_told = ""
        self._refused: Mapping[str, str] = {}
        self._constants_fault = ""
        self._file_fault = ""
        self._facts = AuxFacts(CONSTANTS_ONLY)

    def run(self, stop: Stop) -> None:
        """Keeps the files current until stop is set."""
        self._await_first_answer(stop)
        while not stop.is_set():
            self.turn()
            self._report.look(self.status)
            stop.wait(min(self._options.period_s, _LOOK_S))

    def once(self, stop: Stop) -> bool:
        """Writes the files once; returns whether all went well."""
        self._await_first_answer(stop)
        self.turn()
        status = self.status()
        self._report.give(status)
        return not status["error"] and status["state"] in (CURRENT, CONSTANTS_ONLY)

    def turn(self) -> None:
        """Looks at everything once, writes what is due, says what has changed."""
        self._look_at_constants()
        now_s = time.monotonic()
        news = self._watch.news()
        self._facts = AuxFacts(
            state=self._state(news, now_s),
            constants=self._constants.constants,
            values=news.values,
            refused=news.refused,
            redis_name=self._options.redis_name,
            answered_ns=news.answered_ns,
            age_s=news.age_s(now_s),
        )
        self._write(now_s)
        self._say_changes(news)

    def status(self) -> dict[str, Any]:
        """For programs: the state, and what is counted."""
        news, facts = self._watch.news(), self._facts
        age_s = news.age_s(time.monotonic())
        faults = (self._file_fault, self._constants_fault, news.error, news.not_told)
        return {
            "state": facts.state,
            "streams": self._streams,
            "keywords": len(facts.keywords),
            "refused": len(facts.refused),
            "refused_keywords": list(facts.refused)[:_MOST_NAMED],
            "redis": self._options.redis_name or None,
            "redis_age_s": None if age_s is None else round(age_s, 3),
            "logging": dict(news.told),
            "error": next(filter(None, faults), ""),
        }

    def close(self) -> None:
        """Asks Redis no more."""
        self._watch.close()

    def _await_first_answer(self, stop: Stop) -> None:
        if self._options.redis_host is None:
            return
        give_up_s = time.monotonic() + FIRST_ANSWER_S
        while not self._watch.news().attempts and time.monotonic() < give_up_s:
            if stop.wait(_POLL_S):
                return

    def _state(self, news: RedisNews, now_s: float) -> str:
        if self._options.redis_host is None:
            return CONSTANTS_ONLY
        age_s = news.age_s(now_s)
        if age_s is None:
            return NO_REDIS
        return STALE if age_s > self._options.stale_s else CURRENT

    def _look_at_constants(self) -> None:
        try:
            changed = self._constants.look()
        except ConstantsError as error:
            self._constants_fault = error.faults[0]
            more = f" (and {len(error.faults) - 1} more)" if len(error.faults) > 1 else ""
            line = f"{self._constants_fault}{more}; the constants stay as they were"
            self._report.news(line)
            return
        if changed:
            self._constants_fault = ""
            number = len(self._constants.constants)
            self._report.news(f"{self._options.constants}: read again, {number} keywords")

    def _write(self, now_s: float) -> None:
        failures = self._files.write_due(self._facts, time.time_ns(), now_s)
        faults = [f"{path}: {error.strerror}" for path, error in failures.items()]
        fault = "; ".join(faults)
        if fault != self._file_fault:
            self._report.news(f"not written: {fault}" if fault else "files are written again")
            self._file_fault = fault

    def _say_changes(self, news: RedisNews) -> None:
        state = self._facts.state
        said = (state, bool(news.error))
        if said != self._said and state != CONSTANTS_ONLY:
            self._report.news(self._state_line(news))
        self._said = said
        if news.not_told and news.not_told != self._not_told:
            self._report.trouble("not told", news.not_told)
        self._not_told = news.not_told
        fresh = [name for name in news.refused if name not in self._refused]
        if fresh:
            more = f"; so were {len(fresh) - 1} more" if len(fresh) > 1 else ""
            line = f"{fresh[0]} of Redis left out: {news.refused[fresh[0]]}{more}"
            self._report.trouble("refused", line)
        self._refused = news.refused

    def _state_line(self, news: RedisNews) -> str:
        redis = f"Redis at {self._options.redis_name}"
        why = news.error or "no answer yet"
        if self._facts.state == NO_REDIS:
            return f"{redis}: {why}; the aux headers have only the constants"
        if self._facts.state == STALE:
            limit_s = self._options.stale_s
            return f"{redis}: {why}; its values are stale (older than {limit_s:g} s)"
        if news.error:
            return f"{redis}: {why}; its last values stay"
        return f"{redis} answers: {len(news.values)} keywords"
