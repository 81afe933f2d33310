"""Questions to a person at a terminal. Enter takes what stands in brackets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """The person ended the questions, with Ctrl-C or Ctrl-D."""


class Questions:
    """Asks, or with silent=True takes every default. out: where the questions go."""

    def __init__(self, *, silent: bool, out: TextIO) -> None:
        self._silent = silent
        self._out = out

    def ask(self, question: str, default: str, parse: Callable[[str], T]) -> T:
        """The answer to a question, by parse; what that refuses with a ValueError is explained
        and asked for again. Raises NoAnswer; silent: the ValueError of the default."""
        if self._silent:
            return parse(default)
        while True:
            try:
                return parse(self._line(f"{question} [{default}]: ") or default)
            except ValueError as error:
                self.say(f"  {error}")

    def agreed(self, question: str) -> bool:
        """Whether the person says yes; no is the default."""
        return self.ask(f"{question} (y or n)", "n", _yes_or_no)

    def say(self, line: str) -> None:
        """A line between the questions."""
        print(line, file=self._out, flush=True)

    def _line(self, prompt: str) -> str:
        print(prompt, end="", file=self._out, flush=True)
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            self.say("")
            raise NoAnswer
        return line.strip()


def _yes_or_no(text: str) -> bool:
    answers = {"y": True, "yes": True, "n": False, "no": False}
    if text.lower() not in answers:
        raise ValueError(f"found {text!r}, expected y or n")
    return answers[text.lower()]
