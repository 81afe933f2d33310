"""The files of the aux header service: whole at every moment, written when they have to be."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from astropy.io import fits

from vampires.aux_header import read_aux_header
from vampires.headerd.aux_file import (
    CONSTANTS_ONLY,
    CURRENT,
    NO_REDIS,
    REWRITE_S,
    STALE,
    AuxFacts,
    AuxFiles,
)
from vampires.headerd.constants import Constant
from vampires.headerd.report import HeaderReport
from vampires.times import iso_utc

NOW_NS = 1_800_000_000_123_456_789
SECOND_NS = 1_000_000_000


def header(shm_dir: Path, stream: str = "vcam1") -> fits.Header:
    with fits.open(shm_dir / f"{stream}.aux.fits") as hdus:
        hdus.verify("exception")
        assert hdus[0].data is None
        return hdus[0].header.copy()


def written(shm_dir: Path, facts: AuxFacts) -> fits.Header:
    assert AuxFiles(["vcam1"], shm_dir).write_due(facts, NOW_NS, 0.0) == {}
    assert (shm_dir / "vcam1.aux.fits").stat().st_size % 2880 == 0
    return header(shm_dir)


def test_the_file_is_fits_without_data_and_says_when_it_was_written(shm_dir):
    found = written(shm_dir, AuxFacts(CONSTANTS_ONLY, {"TELESCOP": Constant("Subaru")}))
    assert (found["SIMPLE"], found["BITPIX"], found["NAXIS"]) == (True, 8, 0)
    assert found["U_AUXUT"] == iso_utc(NOW_NS, 3)
    assert found["U_AUXST"] == "constants"
    assert found["TELESCOP"] == "Subaru"
    assert not {"U_AUXRUT", "U_AUXAGE", "U_AUXREF", "HISTORY"} & set(found)


def test_current_values_come_with_the_time_of_their_answer_and_no_age(shm_dir):
    answered_ns = NOW_NS - SECOND_NS
    facts = AuxFacts(CURRENT, {}, {"AIRMASS": 1.5}, {}, "r:1", answered_ns, 1.0)
    found = written(shm_dir, facts)
    assert found["U_AUXRUT"] == iso_utc(answered_ns, 3)
    assert found["U_AUXST"] == "current"
    assert "U_AUXAGE" not in found
    assert "HISTORY" not in found


def test_stale_values_stay_and_the_header_says_how_old_they_are(shm_dir):
    answered_ns = NOW_NS - 90 * SECOND_NS
    facts = AuxFacts(STALE, {}, {"AIRMASS": 1.5}, {}, "r:1", answered_ns, 90.04)
    found = written(shm_dir, facts)
    assert found["AIRMASS"] == 1.5
    assert found["U_AUXST"] == "stale"
    assert found["U_AUXAGE"] == 90.0
    assert found["U_AUXRUT"] == iso_utc(answered_ns, 3)
    history = "".join(found["HISTORY"])
    assert f"Redis at r:1 is silent since {iso_utc(answered_ns, 0)}" in history


def test_a_redis_that_never_answered_is_told(shm_dir):
    found = written(shm_dir, AuxFacts(NO_REDIS, {"OBJECT": Constant("x")}, redis_name="r:1"))
    assert found["U_AUXST"] == "no redis"
    assert "Redis at r:1 never answered" in "".join(found["HISTORY"])
    assert "U_AUXRUT" not in found


def test_values_left_out_are_counted_and_the_first_are_named(shm_dir):
    refused = {f"D_K{number}": f'found "{number}"' for number in range(11)}
    found = written(shm_dir, AuxFacts(CURRENT, refused=refused))
    assert found["U_AUXREF"] == 11
    history = list(found["HISTORY"])
    assert history[0] == 'aux header: D_K0 of Redis left out: found "0"'
    assert history[8] == "aux header: 3 more values of Redis left out"
    assert len(history) == 9


def test_a_file_is_written_again_when_its_content_changed_or_after_ten_seconds(shm_dir):
    files = AuxFiles(["vcam1", "vcam2"], shm_dir)
    steps = [
        (0.0, "a", True),
        (1.0, "a", False),
        (2.0, "b", True),
        (2.0 + REWRITE_S - 0.1, "b", False),
        (2.0 + REWRITE_S, "b", True),
    ]
    for number, (now_s, value, is_due) in enumerate(steps):
        facts = AuxFacts(CURRENT, {}, {"OBJECT": value}, {}, "r:1", NOW_NS + number, now_s)
        now_ns = NOW_NS + number * SECOND_NS
        files.write_due(facts, now_ns, now_s)
        for stream in ("vcam1", "vcam2"):
            assert (header(shm_dir, stream)["U_AUXUT"] == iso_utc(now_ns, 3)) == is_due, number


def test_a_reader_finds_a_whole_file_at_every_moment(shm_dir):
    files = AuxFiles(["vcam1"], shm_dir)
    names = [f"K{number}" for number in range(200)]
    done = threading.Event()

    def rewrite() -> None:
        number = 0
        while not done.is_set():
            number += 1
            facts = AuxFacts(CURRENT, {name: Constant(number) for name in names})
            files.write_due(facts, NOW_NS, 0.0)

    files.write_due(AuxFacts(CURRENT, {name: Constant(0) for name in names}), NOW_NS, 0.0)
    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = set()
        while len(seen) < 50:
            aux = read_aux_header(shm_dir, "vcam1")
            assert aux.note == ""
            values = {card.text[10:30] for card in aux.cards if card.name in names}
            assert len(values) == 1
            assert len(aux.cards) == 2 + len(names)
            seen |= values
    finally:
        done.set()
        writer.join()


def test_a_file_that_can_not_be_written_is_told_and_tried_again_and_the_others_are(shm_dir):
    files = AuxFiles(["vcam1", "vcam2"], shm_dir)
    obstacle = shm_dir / "vcam1.aux.fits"
    obstacle.mkdir()
    facts = AuxFacts(CONSTANTS_ONLY)
    failures = files.write_due(facts, NOW_NS, 0.0)
    assert list(failures) == [obstacle]
    assert header(shm_dir, "vcam2")["U_AUXST"] == "constants"
    obstacle.rmdir()
    assert files.write_due(facts, NOW_NS, 1.0) == {}
    assert header(shm_dir)["U_AUXST"] == "constants"


def test_hidden_files_of_a_service_that_was_killed_are_removed_and_no_others(
    shm_dir, start_process
):
    ended = start_process(["true"])
    ended.wait()
    host = socket.gethostname().partition(".")[0] or "host"
    dead = shm_dir / f".aux-header-{host}-{ended.pid}-7.part"
    others = [
        shm_dir / f".aux-header-{host}-{os.getpid()}-7.part",
        shm_dir / f".aux-header-elsewhere-{ended.pid}-7.part",
        shm_dir / f".new-{host}-{ended.pid}-7.part",
    ]
    for file in (dead, *others):
        file.touch()
    AuxFiles(["vcam1"], shm_dir)
    assert sorted(shm_dir.iterdir()) == sorted(others)
    for file in others:
        file.unlink()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_status_file_that_can_not_be_written_is_told_once(tmp_path, capfd, as_json):
    report = HeaderReport("prog", as_json=as_json, status_file=tmp_path / "gone" / "status")
    report.give({"state": "current"})
    report.give({"state": "current"})
    out, err = capfd.readouterr()
    assert err == f"prog: {tmp_path}/gone/status: No such file or directory\n"
    assert out.count('"state": "current"') == (2 if as_json else 0)
