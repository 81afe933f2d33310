"""CPUs and CPU sets: best effort, and told when it was not enough."""

from __future__ import annotations

import os
from typing import Any

import pytest

from vampires.cpu_placement import cpus_here, join_cpu_set, parse_cpus, place_process


def test_lists_are_numbers_and_ranges() -> None:
    assert parse_cpus("2,4-6") == (2, 4, 5, 6)
    assert parse_cpus("0") == (0,)


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,", "1-", "0-99999", "1;2"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected CPUs such as 2,4-6"):
        parse_cpus(text)


def test_only_cpus_that_are_there_are_used() -> None:
    here = tuple(sorted(os.sched_getaffinity(0)))
    assert cpus_here("0-4095") == (here, "")
    assert cpus_here("") == ((), "")
    absent = max(here) + 1
    assert cpus_here(str(absent)) == (
        (),
        f"none of the CPUs {absent} is there; running on all",
    )
    assert cpus_here("x")[1].endswith("running on all")


def test_a_cpu_set_that_cannot_be_joined_is_told() -> None:
    assert join_cpu_set("") == join_cpu_set("system") == ""
    assert "no CPU set" in join_cpu_set("vampires-test-absent")
    assert "no name of a CPU set" in join_cpu_set("../x")


def test_a_process_goes_where_it_is_put_and_says_what_it_could_not_have(
    start_python: Any,
) -> None:
    cpu = min(os.sched_getaffinity(0))
    source = (
        "import os; from vampires.cpu_placement import place_process;"
        f"print(place_process(0, '{cpu},4095', 'system'), os.sched_getaffinity(0))"
    )
    out, err = start_python(source).communicate(timeout=30)
    assert (out, err) == (f"[] {{{cpu}}}\n", "")


def test_what_a_process_cannot_have_is_told_and_leaves_it_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = os.sched_getaffinity(0)
    notes = place_process(49, "4095", "vampires-test-absent")
    assert [note.split(":")[0].split(";")[0] for note in notes] == [
        "there is no CPU set 'vampires-test-absent'",
        "none of the CPUs 4095 is there",
        "cannot have the priority 49",
    ]
    assert "rtprio in /etc/security/limits.conf" in notes[2]
    assert os.sched_getaffinity(0) == before
    assert place_process(0, "", "") == []


def test_a_priority_is_of_the_real_time_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    def take(pid: int, policy: int, parameters: os.sched_param) -> None:
        asked.append((pid, policy, parameters.sched_priority))

    monkeypatch.setattr(os, "sched_setscheduler", take)
    assert place_process(49, "", "system") == []
    assert asked == [(0, os.SCHED_FIFO, 49)]
