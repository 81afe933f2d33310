"""CPUs and CPU sets: best effort, and told when it was not enough."""

from __future__ import annotations

import os

import pytest

from vampires.cpu_placement import cpus_here, join_cpu_set, parse_cpus


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
