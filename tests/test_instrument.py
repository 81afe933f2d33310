"""The facts of the instrument: what holds on which day, and what a file may change."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from vampires.instrument import cameras
from vampires.instrument import file as instrument_file
from vampires.instrument.facts import Instrument
from vampires.instrument.file import (
    InstrumentError,
    instrument_of,
    instrument_on,
    own_file,
    read_instruments,
)

BEFORE, AFTER = "2024-06-01", "2026-06-01"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes the instrument scientist's file, which is in use from then on."""

    def write(text: str) -> Path:
        file = tmp_path / "instrument.toml"
        file.write_text(text)
        monkeypatch.setenv("VAMPIRES_INSTRUMENT", str(file))
        return file

    instrument_file._instruments.cache_clear()
    yield write
    instrument_file._instruments.cache_clear()


def faults_of(file: Path) -> list[str]:
    with pytest.raises(InstrumentError) as caught:
        read_instruments(file)
    assert all(line.startswith(f"{file}: ") for line in caught.value.faults)
    return [line.removeprefix(f"{file}: ") for line in caught.value.faults]


# The packaged facts


@pytest.mark.parametrize(
    ("mode", "camera", "shape"),
    [
        ("FULL", 1, (2304, 4096)),
        ("STANDARD", 2, (536, 536)),
        ("MBI", 1, (1096, 2236)),
        ("MBI", 2, (1096, 2240)),
        ("MBI_REDUCED", 1, (540, 2232)),
        ("MBI_REDUCED", 2, (552, 2228)),
        ("MBI_ONEHALF", 1, (220, 1888)),
        ("MBI_ONEHALF", 2, (236, 1888)),
        ("MBI_JEWEL", 1, (1096, 2236)),
        ("PUPIL", 1, (892, 888)),
        ("PUPIL", 2, (760, 760)),
        ("NPBS", 1, (536, 536)),
    ],
)
def test_a_crop_has_the_documented_shape(mode, camera, shape):
    assert instrument_on().crop(mode, camera).shape == shape


def test_only_the_full_mode_is_the_whole_sensor():
    facts = instrument_on()
    whole = [name for name in facts.modes if facts.crop(name).shape == facts.sensor_shape]
    assert whole == ["FULL"]


def test_npbs_differs_from_standard_on_camera_2_alone():
    facts = instrument_on()
    assert facts.crop("NPBS", 1) == facts.crop("STANDARD", 1)
    assert facts.crop("NPBS", 2) != facts.crop("STANDARD", 2)


@pytest.mark.parametrize("name", ["MBI_REDUCED", "mbi_reduced", "Mbi_Reduced"])
def test_mode_names_are_understood_in_any_case(name):
    assert instrument_on().mode(name).name == "MBI_REDUCED"


def test_an_unknown_mode_is_an_error_that_lists_the_modes():
    with pytest.raises(ValueError, match=r"'MBIR'.*FULL.*MBI_REDUCED.*NPBS"):
        instrument_on().crop("MBIR")


@pytest.mark.parametrize("camera", [0, 3])
def test_an_unknown_camera_is_an_error(camera):
    with pytest.raises(ValueError, match=f"no camera {camera}: expected 1"):
        instrument_on().crop("MBI", camera)


@pytest.mark.parametrize(
    ("readout", "camera", "gain", "read_noise"),
    [("FAST", 1, 0.103, 0.403), ("fast", 2, 0.103, 0.399), ("SLOW", 2, 0.105, 0.220)],
)
def test_the_detector_depends_on_camera_and_readout(readout, camera, gain, read_noise):
    found = instrument_on().detector(camera, readout)
    assert (found.gain_e_per_adu, found.read_noise_e) == (gain, read_noise)


def test_an_unknown_readout_mode_is_an_error():
    with pytest.raises(ValueError, match="'MEDIUM': expected FAST or SLOW"):
        instrument_on().detector(1, "MEDIUM")


def test_rows_take_as_long_as_the_documented_rate_leaves():
    readouts = instrument_on().readouts
    assert 1 / readouts["FAST"].row_s / 536 == pytest.approx(506.0)
    ratio = readouts["SLOW"].row_s / readouts["FAST"].row_s
    assert ratio == pytest.approx(172.8 / 7.2)


@pytest.mark.parametrize(
    ("stream", "camera"),
    [("vcam1", 1), ("vcam2", 2), ("VCAM2", 2), ("vcam2sim", 2), ("vcam21", 1), ("test2", 1)],
)
def test_the_camera_number_comes_from_the_stream_name(stream, camera):
    assert cameras.camera_number(stream) == camera


# Days


@pytest.mark.parametrize(
    ("day", "camera", "scale_mas", "pa_deg"),
    [
        (BEFORE, 1, (-5.908, -5.908), -38.90),
        (BEFORE, 2, (-5.895, 5.895), -38.58),
        (AFTER, 1, (-5.952, 5.938), 129.44),
        (AFTER, 2, (-5.938, -5.938), 129.99),
    ],
)
def test_scale_parity_and_angle_are_those_of_the_day(day, camera, scale_mas, pa_deg):
    found = instrument_of(day).geometry[camera]
    assert (found.scale_mas, found.pa_deg) == (scale_mas, pa_deg)


def test_the_state_changes_where_the_reduction_does():
    """MJD 60949 is the first day of the new beamsplitter for the pipeline."""
    change = datetime.date(1858, 11, 17) + datetime.timedelta(days=60949)
    before = instrument_on(change - datetime.timedelta(days=1))
    assert before.name == "first beamsplitter"
    assert instrument_on(change).name == "new beamsplitter"
    assert instrument_on() == instrument_of(AFTER)


def test_a_day_before_the_first_facts_is_an_error():
    with pytest.raises(InstrumentError, match="expected 2023-06-01 or later"):
        instrument_of("2020-01-01")


# The instrument scientist's file


def measured(facts: Instrument) -> tuple[float, float]:
    return facts.geometry[1].hotspots["F610"]


def test_a_state_of_ones_own_changes_what_it_names_from_its_day_on(own):
    own(
        "version = 1\n[[state]]\nfrom = 2026-03-01\n"
        "[state.cameras.vcam1.hotspots]\nF610 = [1190.5, 868.25]\n"
        "[state.modes.MBI_JEWEL]\nvcam1 = [920, 3155, 600, 1695]\n"
    )
    before, after = instrument_of("2026-02-28"), instrument_of("2026-03-01")
    assert measured(before) == (1188.90, 867.83) and measured(after) == (1190.5, 868.25)
    assert after.geometry[1].hotspots["F760"] == before.geometry[1].hotspots["F760"]
    assert after.geometry[1].scale_mas == before.geometry[1].scale_mas
    assert after.crop("MBI_JEWEL", 1).y0 == 600 and after.crop("MBI_JEWEL", 2).y0 == 692
    assert instrument_of(BEFORE) == read_instruments(None)[0]


def test_a_correction_of_the_past_holds_until_a_later_state_says_otherwise(own):
    own(
        "version = 1\n[[state]]\nfrom = 2023-06-01\n[state.optics]\nfocal_ratio = 22.0\n"
        "[[state]]\nfrom = 2025-10-01\n[state.cameras.vcam2]\npa_deg = 130.5\n"
    )
    assert instrument_of(BEFORE).focal_ratio == instrument_of(AFTER).focal_ratio == 22.0
    assert instrument_of(AFTER).geometry[2].pa_deg == 130.5
    assert instrument_of(AFTER).geometry[2].scale_mas == (-5.938, -5.938)


def test_a_mode_of_ones_own_is_a_mode(own):
    own(
        "version = 1\n[[state]]\nfrom = 2026-01-01\n[state.modes.TINY]\n"
        "vcam1 = [2000, 2063, 1000, 1063]\nvcam2 = [2000, 2063, 1000, 1063]\n"
    )
    assert instrument_of(AFTER).mode("tiny").crops[2].shape == (64, 64)
    assert "TINY" not in instrument_of(BEFORE).modes


def test_the_file_is_found_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.delenv("VAMPIRES_INSTRUMENT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "vampires" / "instrument.toml"
    assert own_file() != place
    place.parent.mkdir()
    place.write_text("version = 1\n")
    assert own_file() == place


@pytest.mark.parametrize(
    ("state", "key", "found"),
    [
        ("[state.sensor]\ncolums = 4096", "state.sensor.colums", "unknown key"),
        ("[state.cameras.vcam3]", "state.cameras.vcam3", "unknown key"),
        ("[state.cameras.vcam1]\nscale_mas = [-5.9]", "state.cameras.vcam1.scale_mas[1]", ""),
        ("[state.cameras.vcam1]\nscale_mas = [-5.9, 0]", "state.cameras.vcam1.scale_mas", "0"),
        ('[state.cameras.vcam1]\npa_deg = "39"', "state.cameras.vcam1.pa_deg", '"39"'),
        ("[state.cameras.vcam1]\npa_deg = nan", "state.cameras.vcam1.pa_deg", "nan"),
        (
            "[state.cameras.vcam2.hotspots]\nF610 = [5000, 10]",
            "state.cameras.vcam2.hotspots.F610",
            "[5000, 10]",
        ),
        ("[state.bands_nm]\nF800 = 800", "state.cameras.vcam1.hotspots.F800", "nothing"),
        ("[state.modes.MBI]\nvcam1 = [920, 4096, 0, 9]", "state.modes.MBI.vcam1", "[920, 4"),
        ("[state.modes.MBI]\nvcam1 = [30, 20, 0, 9]", "state.modes.MBI.vcam1", "[30, 20"),
        ("[state.modes.MBI]\nobs_mod = '_MBY'", "state.modes.MBI.obs_mod", '"_MBY"'),
        (
            "[state.modes.MBI]\nfields = ['F760', 'F720', 'F670', 'F611']",
            "state.modes.MBI.fields",
            '"F611"',
        ),
        (
            "[state.modes.MBI]\nfields = ['F760', 'F760', 'F670', 'F610']",
            "state.modes.MBI.fields",
            "F760, F760",
        ),
        ("[state.modes.mbi]", "state.modes.mbi", "not allowed"),
        ("[state.modes.NEW]\nvcam1 = [0, 9, 0, 9]", "state.modes.NEW.vcam2", "nothing"),
        ("[state.readout.FAST]\nmax_rate_hz = 0", "state.readout.FAST.max_rate_hz", "0"),
    ],
)
def test_a_fault_names_file_state_key_and_what_was_found(own, state, key, found):
    file = own(f"version = 1\n[[state]]\nfrom = 2026-03-01\n{state}\n")
    lines = [line for line in faults_of(file) if f"{key}: found" in line]
    assert len(lines) == 1
    place, _, said = lines[0].partition(f"{key}: found ")
    assert place == "state 1 (from 2026-03-01): "
    assert found in said and ", expected " in said


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("version = 2\n", "version"),
        ("", "version"),
        ("version = true\n", "version"),
        ("version = 1\nstates = 3\n", "states"),
        ("version = 1\nstate = 3\n", "state"),
        ("version = 1\n[[state]]\n", "state 1: from"),
        ("version = 1\n[[state]]\nfrom = '2026-01-01'\n", "state 1: from"),
        ("version = 1\n[[state]]\nfrom = 2026-01-01T00:00:00\n", "state 1: from"),
        ("version = 1\n[state\n", "line 2"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(own, text, key):
    (line,) = faults_of(own(text))
    assert key in line


def test_a_file_that_is_missing_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("VAMPIRES_INSTRUMENT", str(tmp_path / "nowhere.toml"))
    (line,) = faults_of(own_file())
    assert "No such file" in line and "$VAMPIRES_INSTRUMENT" in line
