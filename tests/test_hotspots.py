"""Hotspots measured in frames, and written to the facts of the instrument."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from vampires import simulated_sky
from vampires.commands import config as command
from vampires.instrument import file as instrument_file
from vampires.instrument.cameras import CAMERAS, Crop
from vampires.instrument.file import instrument_of, instrument_on
from vampires.instrument.hotspots import HotspotsNotFound, measured_hotspots


@pytest.fixture(scope="module")
def mean_frames() -> dict[int, np.ndarray]:
    """The mean frame of each camera in MBI."""
    return {n: simulated_sky.sky_pool("MBI", n, "float32").mean(0) for n in CAMERAS}


@pytest.fixture
def facts(tmp_path, monkeypatch) -> Path:
    """The instrument scientist's file, which is not there yet."""
    file = tmp_path / "facts" / "instrument.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("VAMPIRES_INSTRUMENT", raising=False)
    instrument_file._instruments.cache_clear()
    yield file
    instrument_file._instruments.cache_clear()


@pytest.mark.parametrize("camera", CAMERAS)
def test_all_four_stars_are_measured_to_a_tenth_of_a_pixel(camera, mean_frames):
    instrument = instrument_on()
    crop = instrument.crop("MBI", camera)
    found = measured_hotspots(mean_frames[camera], crop, camera, instrument)
    expected = instrument.geometry[camera].hotspots
    assert {spot.field for spot in found} == set(expected)
    for spot in found:
        assert (spot.x, spot.y) == pytest.approx(expected[spot.field], abs=0.1)
        assert spot.moved < 0.15 and spot.signal > 100


@pytest.mark.parametrize(("dx", "dy"), [(37, -52), (-150, 90), (0, 0)])
def test_fields_that_have_moved_are_found(dx, dy, mean_frames):
    """The crop says other pixels of the sensor than the frame was taken with."""
    instrument = instrument_on()
    crop = instrument.crop("MBI", 1)
    moved = Crop(crop.x0 + dx, crop.x1 + dx, crop.y0 + dy, crop.y1 + dy)
    for spot in measured_hotspots(mean_frames[1], moved, 1, instrument):
        x, y = instrument.geometry[1].hotspots[spot.field]
        assert (spot.x, spot.y) == pytest.approx((x + dx, y + dy), abs=0.1)
        assert spot.moved == pytest.approx(np.hypot(dx, dy), abs=0.2)


def test_hot_pixels_are_no_stars(mean_frames):
    instrument, frame = instrument_on(), mean_frames[1].copy()
    rows, columns = np.random.default_rng(1).integers(0, 1000, (2, 60))
    frame[rows, columns] = 60_000
    for spot in measured_hotspots(frame, instrument.crop("MBI", 1), 1, instrument):
        place = instrument.geometry[1].hotspots[spot.field]
        assert (spot.x, spot.y) == pytest.approx(place, abs=0.2)


@pytest.mark.parametrize(
    ("light", "crop"), [("dark", "MBI"), ("flat", "MBI"), ("sky", "FULL"), ("sky", "STANDARD")]
)
def test_what_shows_no_stars_is_refused(light, crop):
    """A shut camera, a lamp, stars elsewhere, a mode that has no fields."""
    instrument = instrument_on()
    frame = simulated_sky.sky_pool(crop, 1, "float32", frames=1, light=light)[0]
    with pytest.raises(HotspotsNotFound, match="expected"):
        measured_hotspots(frame, instrument.crop(crop, 1), 1, instrument)


# The command


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = command.main(["config", *map(str, arguments)])
    return status, *capsys.readouterr()


def cube(folder: Path, frame: np.ndarray, **keywords: object) -> Path:
    """A cube of two frames; keywords with _ for -."""
    hdu = fits.PrimaryHDU(np.array([frame, frame]).astype(np.uint16))
    for name, value in keywords.items():
        hdu.header[name.replace("PRD_", "PRD-").replace("DATE_", "DATE-")] = value
    file = folder / "cube.fits"
    hdu.writeto(file)
    return file


def test_hotspots_of_a_cube_hold_from_its_day_on(facts, tmp_path, mean_frames, capsys):
    crop = instrument_on().crop("MBI", 2)
    file = cube(
        tmp_path, mean_frames[2], U_CAMERA=2, PRD_MIN1=crop.x0 + 5, PRD_MIN2=crop.y0,
        DATE_OBS="2026-02-03",
    )  # fmt: skip
    before = instrument_of("2026-02-02").geometry[2].hotspots
    status, out, err = run(capsys, "fit", file, "--output", facts, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["camera"], told["from"], told["file"]) == (2, "2026-02-03", str(facts))
    states = instrument_file.read_instruments(facts)
    day_before, of_day = states[-2], states[-1]
    assert of_day.since.isoformat() == "2026-02-03"
    for field, (x, y) in of_day.geometry[2].hotspots.items():
        assert (x, y) == pytest.approx((before[field][0] + 5, before[field][1]), abs=0.1)
    assert day_before.geometry[2].hotspots == before
    assert of_day.geometry[1] == day_before.geometry[1]


def test_what_was_in_the_file_stays_and_the_later_measurement_holds(
    facts, tmp_path, mean_frames, capsys
):
    facts.parent.mkdir()
    first = (
        "# by hand\nversion = 1\n[[state]]\nfrom = 2026-01-01\n[state.optics]\nfocal_ratio=22\n"
    )
    facts.write_text(first)
    crop = instrument_on().crop("MBI", 1)
    place = {"U_CAMERA": 1, "PRD_MIN1": crop.x0, "PRD_MIN2": crop.y0, "DATE_OBS": "2026-02-03"}
    file = cube(tmp_path, mean_frames[1], **place)
    for _ in range(2):
        assert run(capsys, "fit", file, "--output", facts)[0] == 0
        fits.setval(file, "PRD-MIN1", value=crop.x0 + 3)
    assert facts.read_text().startswith(first)
    latest = instrument_file.read_instruments(facts)[-1]
    assert latest.geometry[1].hotspots["F610"][0] == pytest.approx(1188.90 + 3, abs=0.1)
    assert latest.focal_ratio == 22


def test_a_dry_run_writes_nothing(facts, tmp_path, mean_frames, capsys):
    crop = instrument_on().crop("MBI", 1)
    file = cube(
        tmp_path, mean_frames[1], U_CAMERA=1, PRD_MIN1=crop.x0, PRD_MIN2=crop.y0,
        DATE_OBS="2026-02-03",
    )  # fmt: skip
    status, out, _ = run(capsys, "fit", file, "--dry-run", "--output", facts)
    assert status == 0 and "F760" in out
    assert not facts.parent.exists()


def test_a_live_stream_is_measured(facts, start_command, capsys):
    camera = start_command("framesim", "vcam2", "--mode", "MBI_REDUCED", "--fps", 20)
    assert camera.stdout.readline()  # its stream is there
    status, out, err = run(capsys, "fit", "vcam2", "--frames", 4, "--json")
    camera.terminate()
    camera.communicate()
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert [spot["field"] for spot in told["hotspots"]] == ["F670", "F720", "F760"]
    assert told["file"] == str(facts.parent.parent / "vampires" / "instrument.toml")
    assert instrument_file.own_file() == Path(told["file"])


@pytest.mark.parametrize(
    ("keywords", "found"),
    [
        ({}, "no DATE-OBS"),
        ({"DATE_OBS": "2026-02-03"}, "U_CAMERA nothing"),
        ({"DATE_OBS": "2026-02-03", "U_CAMERA": 3, "PRD_MIN1": 1, "PRD_MIN2": 1}, "U_CAMERA 3"),
        ({"DATE_OBS": "2020-01-01", "U_CAMERA": 1, "PRD_MIN1": 1, "PRD_MIN2": 1}, "2020-01-01"),
    ],
)
def test_a_cube_of_no_science_camera_is_refused(facts, tmp_path, capsys, keywords, found):
    file = cube(tmp_path, np.zeros((20, 30)), **keywords)
    status, _, err = run(capsys, "fit", file, "--output", facts)
    assert status == 2 and found in err and "expected" in err
    assert not facts.exists()


def test_a_file_that_is_wrong_already_stays_as_it_is(facts, tmp_path, mean_frames, capsys):
    facts.parent.mkdir()
    facts.write_text("version = 1\n[[state]]\n")
    crop = instrument_on().crop("MBI", 1)
    file = cube(
        tmp_path, mean_frames[1], U_CAMERA=1, PRD_MIN1=crop.x0, PRD_MIN2=crop.y0,
        DATE_OBS="2026-02-03",
    )  # fmt: skip
    status, _, err = run(capsys, "fit", file, "--output", facts)
    assert status == 2 and f"{facts}: state 1: from" in err
    assert facts.read_text() == "version = 1\n[[state]]\n"
    assert [path.name for path in facts.parent.iterdir()] == [facts.name]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("show", "instrument", "--date", "yesterday"), "'yesterday'"),
        (("show", "instrument", "--date", "1999-01-01"), "1999-01-01"),
        (("show", "--date", "2026-01-01"), "--date"),
        (("check", "instrument", "a", "b"), "2 files"),
        (("check", "instrument", "nowhere.toml"), "nowhere.toml"),
        (("fit", "nothing.fits"), "nothing.fits"),
        (("fit", "vcam9"), "vcam9"),
    ],
)
def test_a_mistake_is_one_line(facts, capsys, arguments, found):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert len(err.splitlines()) == 1 and found in err


def test_what_is_shown_is_what_holds_on_the_day(facts, capsys):
    told = json.loads(run(capsys, "show", "instrument", "--json", "--date", "2024-06-01")[1])
    assert told["state"]["cameras"]["vcam1"]["scale_mas"] == [-5.908, -5.908]
    assert told["files"]["own"] is None
    text = run(capsys, "show", "instrument")[1]
    assert "scale_mas = [-5.952, 5.938]" in text and "from = " in text
    assert run(capsys, "check", "instrument")[0] == 0
