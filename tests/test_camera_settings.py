"""What may be set of a camera: whatever is asked for, the settings stay possible."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires.camera.settings import (
    MAX_TINT_S,
    CameraLimits,
    CameraSettings,
    SettingRefused,
    plain_camera,
    science_camera,
)
from vampires.instrument.cameras import CAMERAS, Crop
from vampires.instrument.file import instrument_on

LIMITS = (
    science_camera(1),
    science_camera(2),
    plain_camera((1024, 1280)),
    plain_camera((4, 4)),
)
ROUNDING = 1 + 1e-8

pixels = st.integers(-10, 4200) | st.sampled_from((0, 1, 15, 16, 2303, 2304, 4095, 4096))
crops = st.builds(Crop, pixels, pixels, pixels, pixels)
windows = st.sampled_from(
    [w for mode in instrument_on().modes.values() for w in mode.crops.values()]
)
numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(1e-7, 1e6)
modes = st.sampled_from((*instrument_on().modes, "mbi", "Standard", "", "SLOW"))
changes = st.one_of(
    st.tuples(st.just("with_mode"), modes),
    st.tuples(st.just("with_crop"), crops | windows),
    st.tuples(st.just("with_tint"), numbers),
    st.tuples(st.just("with_fps"), numbers),
    st.tuples(st.just("with_readout"), st.sampled_from(("FAST", "slow", "SLOW", "MEDIUM"))),
    st.tuples(st.just("with_trigger"), st.booleans()),
)


def check_possible(limits: CameraLimits, now: CameraSettings) -> None:
    ny, nx = limits.sensor_shape
    assert 0 <= now.crop.x0 <= now.crop.x1 < nx and 0 <= now.crop.y0 <= now.crop.y1 < ny
    assert now.shape[0] * now.shape[1] >= 16
    assert now.mode == "" or limits.modes[now.mode] == now.crop
    assert now.mode or now.crop not in limits.modes.values()
    assert now.readout in limits.readouts
    assert 0 < now.fps <= limits.max_fps(now.shape[0], now.readout) * ROUNDING
    least_s = limits.min_tint_s[now.readout] if limits.min_tint_s else 0
    assert least_s <= now.tint_s * ROUNDING and 0 < now.tint_s <= MAX_TINT_S
    assert now.tint_s <= 1 / now.fps * ROUNDING


def first_settings(limits: CameraLimits) -> CameraSettings:
    return limits.first_settings(next(iter(limits.modes)))


@given(limits=st.sampled_from(LIMITS), asked=st.lists(changes, max_size=12))
def test_whatever_is_asked_for_the_settings_stay_possible(limits, asked):
    now = first_settings(limits)
    check_possible(limits, now)
    for change, value in asked:
        try:
            now = getattr(limits, change)(now, value)
        except SettingRefused as error:
            assert "\n" not in str(error) and "expected" in str(error)
        check_possible(limits, now)


@given(limits=st.sampled_from(LIMITS), asked=st.lists(changes, max_size=6))
def test_settings_come_back_from_json_as_they_were(limits, asked):
    now = first_settings(limits)
    for change, value in asked:
        try:
            now = getattr(limits, change)(now, value)
        except SettingRefused:
            continue
    assert CameraSettings.from_dict(json.loads(json.dumps(now.as_dict()))) == now


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(
    name=st.sampled_from(("mode", "crop", "tint_s", "fps", "readout", "external_trigger")),
    value=json_values,
)
def test_other_values_are_refused_in_one_line_or_are_of_the_right_kind(name, value):
    given = first_settings(LIMITS[0]).as_dict() | {name: value}
    try:
        found = CameraSettings.from_dict(given)
    except SettingRefused as error:
        assert "\n" not in str(error)
    else:
        kinds = {"tint_s": float, "fps": float}
        assert found.as_dict() == given | {name: kinds.get(name, lambda same: same)(value)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tint_s": math.nan}, {"fps": math.inf}, {"fps": 0}, {"tint_s": "0.1"},
        {"fps": 10**400}, {"external_trigger": "false"}, {"mode": 5}, {"crop": [0, 1, 2, 3]},
        {"crop": {"x0": 0, "x1": 9.0, "y0": 0, "y1": 9}}, {"crop": {"x0": 0}},
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(wrong):
    with pytest.raises(SettingRefused, match="no settings of a camera"):
        CameraSettings.from_dict(first_settings(LIMITS[0]).as_dict() | wrong)


@pytest.mark.parametrize("missing", ["mode", "crop", "tint_s", "external_trigger"])
def test_a_missing_value_is_refused_by_its_name(missing):
    given = first_settings(LIMITS[0]).as_dict()
    del given[missing]
    with pytest.raises(SettingRefused, match=missing):
        CameraSettings.from_dict(given)


@pytest.mark.parametrize("number", CAMERAS)
@pytest.mark.parametrize("mode", instrument_on().modes)
def test_a_mode_has_its_window_its_usual_rate_and_the_longest_exposure(number, mode):
    limits = science_camera(number)
    found = limits.first_settings(mode.lower())
    assert (found.mode, found.crop) == (mode, instrument_on().crop(mode, number))
    usual = instrument_on().modes[mode].rate_hz or 30.0
    assert found.fps == pytest.approx(min(usual, limits.max_fps(found.shape[0])))
    assert found.tint_s == pytest.approx(1 / found.fps)


def test_the_first_settings_may_have_another_rate():
    limits = science_camera(1)
    found = limits.first_settings("STANDARD", 20.0)
    assert (found.fps, found.tint_s) == (20.0, 0.05)
    for rate in (0.0, -1.0, 507.0, math.nan, math.inf):
        with pytest.raises(SettingRefused, match="no rate of"):
            limits.first_settings("STANDARD", rate)


@pytest.mark.parametrize("readout", ["FAST", "SLOW"])
def test_the_highest_rate_of_a_single_row_leaves_room_for_the_shortest_exposure(readout):
    limits = science_camera(1)
    row = limits.with_crop(limits.first_settings("FULL"), Crop(0, 99, 7, 7))
    now = limits.with_readout(row, readout)
    now = limits.with_fps(now, limits.max_fps(1, readout))
    check_possible(limits, now)


def test_no_exposure_is_longer_than_the_longest_however_low_the_rate():
    limits = science_camera(1)
    slow = limits.with_fps(limits.first_settings("ONEARC"), 1e-5)
    assert limits.with_mode(slow, "TWOARC").tint_s == MAX_TINT_S
    assert limits.first_settings("ONEARC", 1e-5).tint_s == MAX_TINT_S


def test_documented_rates_are_possible():
    limits = science_camera(1)
    assert limits.max_fps(536) == pytest.approx(506)
    assert limits.with_fps(limits.first_settings("MBI"), 57.0).fps == 57.0
    assert limits.with_fps(limits.first_settings("MBI_REDUCED"), 500.0).fps == 500.0


def test_a_longer_exposure_lowers_the_rate_and_a_higher_rate_shortens_the_exposure():
    limits = science_camera(1)
    slow = limits.with_tint(limits.first_settings("MBI"), 0.5)
    assert (slow.tint_s, slow.fps) == (0.5, 2.0)
    fast = limits.with_fps(slow, 50.0)
    assert (fast.tint_s, fast.fps) == (0.02, 50.0)
    assert limits.with_tint(fast, 0.001).fps == 50.0


def test_the_slow_readout_lowers_the_rate_and_fast_does_not_raise_it_again():
    limits = science_camera(1)
    slow = limits.with_readout(limits.first_settings("STANDARD"), "slow")
    assert slow.readout == "SLOW"
    assert slow.fps == pytest.approx(506 * 7.2 / 172.8)
    assert limits.with_readout(slow, "FAST").fps == slow.fps


def test_a_window_that_is_that_of_a_mode_has_its_name():
    limits = science_camera(2)
    start = limits.first_settings("FULL")
    assert limits.with_crop(start, instrument_on().crop("MBI", 2)).mode == "MBI"
    assert limits.with_crop(start, Crop(0, 99, 0, 49)).mode == ""


@pytest.mark.parametrize(
    "crop",
    [Crop(0, 4096, 0, 9), Crop(-1, 9, 0, 9), Crop(9, 0, 0, 9), Crop(0, 9, 0, 2304),
     Crop(0, 2, 0, 4)],
)  # fmt: skip
def test_a_window_off_the_sensor_or_of_a_few_pixels_is_refused(crop):
    limits = science_camera(1)
    with pytest.raises(SettingRefused, match="expected"):
        limits.with_crop(limits.first_settings("FULL"), crop)


def test_an_unknown_mode_or_readout_is_refused_with_those_there_are():
    limits = science_camera(1)
    with pytest.raises(SettingRefused, match=r"'MBIR'.*FULL.*NPBS"):
        limits.first_settings("MBIR")
    with pytest.raises(SettingRefused, match="'MEDIUM': expected FAST or SLOW"):
        limits.with_readout(limits.first_settings("FULL"), "MEDIUM")
    plain = plain_camera((10, 12))
    with pytest.raises(SettingRefused, match="'SLOW': expected FAST"):
        plain.with_readout(plain.first_settings("FULL"), "SLOW")


def test_the_shortest_exposure_depends_on_the_readout():
    limits = science_camera(1)
    now = limits.first_settings("ONEARC")
    assert limits.with_tint(now, 7.2e-6).tint_s == 7.2e-6
    with pytest.raises(SettingRefused, match="SLOW"):
        limits.with_tint(limits.with_readout(now, "SLOW"), 7.2e-6)
    with pytest.raises(SettingRefused, match="1800"):
        limits.with_tint(now, 1801.0)
