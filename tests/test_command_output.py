"""Output that nobody reads, or that has no room: a command ends without a traceback."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

WORDS = {
    "all": ("config", "config", "show"),
    "help": ("fgrab", "--help"),
    "json": ("config", "config", "show", "--json"),
}
ENDLESS = """
from vampires.commands.common import user_errors
@user_errors("test")
def main(argv=None):
    while True:
        print("y")
import sys
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output waits in the process, as it does by default."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def closed_pipe() -> int:
    """The end of a pipe at which one writes; nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("words", [WORDS["all"], WORDS["json"], WORDS["help"]])
def test_a_pipe_that_nobody_reads_ends_a_command_quietly(
    start_command: Any, words: tuple[str, ...]
) -> None:
    writing = closed_pipe()
    process = start_command(*words, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, "")


def test_a_reader_that_has_seen_enough_ends_a_command(start_python: Any) -> None:
    process = start_python(ENDLESS)
    assert process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 141


@pytest.mark.parametrize("words", [WORDS["all"], WORDS["help"]])
def test_a_disk_that_is_full_is_one_line(start_command: Any, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        process = start_command(*words, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert err.endswith("the output could not be written: No space left on device\n")


def test_without_standard_output_a_command_does_its_work(start_python: Any) -> None:
    source = (
        "import sys; sys.stdout = None; from vampires.commands.config import main;"
        "sys.exit(main(['config', 'check']))"
    )
    process = start_python(source, stdout=subprocess.DEVNULL)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
