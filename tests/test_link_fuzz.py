"""A short run of each fuzz target of Python, the same each time; see tests/fuzz/fuzzing.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.parametrize("target", sorted(path.name for path in FUZZ.glob("fuzz_*.py")))
def test_mutated_messages_are_read_rightly_or_refused(target, start_process):
    process = start_process([sys.executable, str(FUZZ / target), "--plain", "--runs", "5000"])
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert out == "5000 runs, no finding\n"


def test_there_is_a_target_for_each_kind_of_message():
    assert {path.name for path in FUZZ.glob("fuzz_*.py")} == {
        "fuzz_link_message.py",
        "fuzz_pymilk_message.py",
    }
