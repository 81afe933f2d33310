"""What camstatus prints."""

from __future__ import annotations

from typing import Any

from vampires.commands.flow_table import is_alarming, table
from vampires.commands.status_table import PLAIN, RED

NOW_NS = 1_800_000_000_000_000_000


def part(session: str, kind: str = "source", **changes: Any) -> dict[str, Any]:
    return {
        "session": session, "camera": "vcam1", "kind": kind, "state": "running", "pid": 1,
        "since_ns": NOW_NS - 90_000_000_000, "restarts": 0, "error": "",
    } | changes  # fmt: skip


def shown(*parts: dict[str, Any], colour: bool = False, **one: Any) -> list[str]:
    return table({"scexao5": {"parts": list(parts), **one}}, NOW_NS, colour=colour)


def test_a_machine_is_shown_with_its_parts() -> None:
    lines = shown(
        part("vcam1_fgrab", rate_hz=57.02, lost=0, doing="running"),
        part("vcam1_ctrl", "prompt"),
        part("vcam1_tcp", "tcp sender", rate_hz=57.0, lost=12, doing="connected", restarts=2),
        part(
            "streamFITSlog-vcam1", "logger", rate_hz=57.0, lost=0, doing="idle", since_ns=None
        ),
    )
    assert lines == [
        "scexao5",
        "  what         session             state             rate    lost    since again",
        "  source       vcam1_fgrab         running        57.0 Hz       0    2 min     0",
        "  prompt       vcam1_ctrl          running              -       -    2 min     0",
        "  tcp sender   vcam1_tcp           connected      57.0 Hz      12    2 min     2",
        "  logger       streamFITSlog-vcam1 idle           57.0 Hz       0        -     0",
    ]


def test_no_line_of_the_table_is_wider_than_the_terminal() -> None:
    long = part("streamFITSlog-" + "x" * 60, "a kind of many words", rate_hz=1e9, lost=10**12)
    assert max(map(len, shown(long))) <= 80


def test_why_something_is_red_stands_below() -> None:
    lines = shown(part("vcam1_fgrab", state="waiting", error="no camera"), colour=True)
    assert lines[2].startswith(RED) and lines[2].endswith(PLAIN)
    assert lines[3] == "  vcam1_fgrab: no camera"


def test_what_was_not_permitted_stands_below() -> None:
    lines = shown(part("vcam1_fgrab", notes=["cannot have the priority 49"]))
    assert lines[-1] == "  vcam1_fgrab: cannot have the priority 49"


def test_a_machine_that_cannot_be_asked_says_why() -> None:
    lines = table({"sonne": {"error": "host sonne: no answer"}}, NOW_NS, colour=False)
    assert lines == ["sonne", "  host sonne: no answer"]


def test_a_dead_supervisor_is_told() -> None:
    (title, *_) = shown(part("vcam1_fgrab", state="unwatched"), supervisor="dead")
    assert "the supervisor does not run" in title


def test_where_nothing_runs_that_is_said() -> None:
    assert shown() == ["scexao5: nothing was started"]


def test_what_should_run_and_does_not_is_alarming() -> None:
    for state in ("waiting", "failed", "blocked", "unsteady", "dead", "unwatched"):
        assert is_alarming(part("x", state=state)), state
    for state in ("running", "held", "stopped", "stopping"):
        assert not is_alarming(part("x", state=state)), state
    assert is_alarming(part("x", doing="failed"))
