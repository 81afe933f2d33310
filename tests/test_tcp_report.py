"""What a TCP link says: objects for programs to count on, and lines only where they matter."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from vampires import link_report
from vampires.link_report import LinkReport, Rates, run_link, state_line, summary_line

QUIET = {
    **{"state": "connected", "stream": "vcam1", "peer": "far:30107", "last_error": ""},
    **dict.fromkeys(("frames", "lost", "torn", "void", "resent", "bytes", "cnt0"), 0),
    **dict.fromkeys(("connections", "reconnects"), 0),
}


def status(**changes: Any) -> dict[str, Any]:
    return {**QUIET, **changes}


def moving(seconds: float, **changes: Any) -> dict[str, Any]:
    """After so long at 100 frames and 57.5 MB a second."""
    return status(frames=int(100 * seconds), bytes=int(57.5e6 * seconds), **changes)


class Clock:
    """A Stop that lets a given number of looks pass, and a Link that has events for them."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.calls: list[str] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.looks -= 1
        return self.looks < 0

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def status(self) -> dict[str, Any]:
        return status()

    def events(self, timeout_s: float) -> list[tuple[str, str]]:
        kind = "disconnected" if "stop" in self.calls else "connected"
        return [(kind, f"{kind} far:30107")]


def test_rates_are_those_since_the_look_before() -> None:
    rates = Rates(moving(0), 10.0)
    assert rates.since_last(moving(2), 12.0) == (100.0, 57.5)
    assert rates.since_last(moving(2), 13.0) == (0.0, 0.0)
    assert rates.since_last(moving(3), 13.0) == (0.0, 0.0)  # no time has passed


def test_an_object_comes_once_a_second_with_every_counter(capfd) -> None:
    report = LinkReport("tx", moving(0), 100.0, as_json=True)
    for tenth in range(1, 35):
        report.look(moving(tenth / 10), 100.0 + tenth / 10)
    out, err = capfd.readouterr()
    objects = [json.loads(line) for line in out.splitlines()]
    assert [found["frames"] for found in objects] == [100, 200, 300]
    for found in objects:
        assert found["rate_hz"] == pytest.approx(100)
        assert found["mb_per_s"] == pytest.approx(57.5)
        assert found.keys() == {"time", "rate_hz", "mb_per_s", *QUIET}
        assert found["time"].endswith("Z")
    assert err == ""


def test_objects_stay_on_their_seconds_after_a_pause(capfd) -> None:
    report = LinkReport("tx", status(), 0.0, as_json=True)
    printed = []
    for now_s in (0.9, 1.05, 4.7, 4.9, 5.0, 5.9, 6.0):
        report.look(status(), now_s)
        printed.append(len(capfd.readouterr().out.splitlines()))
    assert printed == [0, 1, 1, 0, 1, 0, 1]


def test_a_link_that_runs_well_says_so_once(capfd) -> None:
    report = LinkReport("tx", moving(0), 0.0, as_json=False)
    for seconds in range(1, 100):
        report.look(moving(seconds), float(seconds))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ("tx: vcam1, connected far:30107: 100.0 Hz, 57.5 MB/s; 1000 frames, 0 lost\n")


@pytest.mark.parametrize(
    "change",
    [{"lost": 3}, {"void": 1}, {"reconnects": 1}, {"refused": 2}, {"state": "connecting"}],
)
def test_a_change_that_matters_is_worth_a_line(capfd, change: dict[str, Any]) -> None:
    report = LinkReport("tx", moving(0), 0.0, as_json=False)
    report.look(moving(10), 10.0)
    capfd.readouterr()
    for seconds in (20, 30, 40):
        report.look(moving(seconds, **change), float(seconds))
    (line,) = capfd.readouterr().err.splitlines()
    (name, value) = next(iter(change.items()))
    assert (f"{value} {name}" if name != "state" else "connecting") in line


def test_frames_that_stop_coming_are_worth_a_line(capfd) -> None:
    report = LinkReport("tx", moving(0), 0.0, as_json=False)
    for now_s, seconds in ((10.0, 10), (20.0, 10), (30.0, 10), (40.0, 20)):
        report.look(moving(seconds), now_s)
    lines = capfd.readouterr().err.splitlines()
    assert [": 0.0 Hz" in line for line in lines] == [False, True, False]


def test_lines_name_what_went_wrong_and_nothing_else() -> None:
    assert state_line(status(stream="", peer="", state="listening"), 0.0, 0.0) == (
        "no stream yet, listening: 0.0 Hz, 0.0 MB/s; 0 frames, 0 lost"
    )
    troubled = moving(1, lost=4, void=1, duplicates=2, reconnects=3)
    assert summary_line(troubled) == (
        "vcam1: 57.5 MB, 100 frames, 4 lost, 1 void, 2 duplicates, 3 reconnects"
    )


def test_events_are_told_until_the_link_has_stopped(capfd) -> None:
    clock = Clock(looks=2)
    run_link(clock, clock, LinkReport("tx", status(), 0.0, as_json=True))
    out, err = capfd.readouterr()
    assert clock.calls == ["start", "stop"]
    assert err.splitlines() == [
        "tx: connected far:30107",
        "tx: connected far:30107",
        "tx: disconnected far:30107",
        "tx: vcam1: 0.0 MB, 0 frames, 0 lost",
    ]
    assert json.loads(out.splitlines()[-1])["frames"] == 0


def test_a_link_stops_also_when_its_report_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(looks=1)
    report = LinkReport("tx", status(), 0.0, as_json=False)
    monkeypatch.setattr(report, "look", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_link(clock, clock, report)
    assert clock.calls == ["start", "stop"]


def test_a_reader_that_is_gone_or_reads_no_more_holds_nobody_up() -> None:
    """A full pipe, and one whose other end is closed."""
    reading, writing = os.pipe()
    with open(writing, "w") as file:
        line = "x" * 1000
        for _ in range(200):  # more than a pipe holds
            link_report.print_if_read(line, file)
        os.close(reading)
        link_report.print_if_read(line, file)
