"""The cameras' modes, crops and detectors."""

from __future__ import annotations

import pytest

from vampires import cameras


@pytest.mark.parametrize(
    ("mode", "camera", "shape"),
    [
        ("FULL", 1, (2304, 4096)),
        ("STANDARD", 2, (536, 536)),
        ("MBI", 1, (1096, 2236)),
        ("MBI", 2, (1096, 2240)),
        ("MBI_REDUCED", 1, (540, 2232)),
        ("MBI_REDUCED", 2, (552, 2228)),
        ("PUPIL", 1, (892, 888)),
        ("PUPIL", 2, (760, 760)),
        ("NPBS", 1, (536, 536)),
    ],
)
def test_a_crop_has_the_documented_shape(mode, camera, shape):
    assert cameras.crop(mode, camera).shape == shape


def test_crops_lie_on_the_sensor():
    ny, nx = cameras.SENSOR_SHAPE
    for mode in cameras.MODES.values():
        for crop in mode.crops.values():
            assert 0 <= crop.x0 <= crop.x1 < nx
            assert 0 <= crop.y0 <= crop.y1 < ny


def test_only_the_full_mode_is_the_whole_sensor():
    assert [name for name in cameras.MODES if cameras.crop(name).is_full] == ["FULL"]


def test_npbs_differs_from_standard_on_camera_2_alone():
    assert cameras.crop("NPBS", 1) == cameras.crop("STANDARD", 1)
    assert cameras.crop("NPBS", 2) != cameras.crop("STANDARD", 2)


@pytest.mark.parametrize("name", ["MBI_REDUCED", "mbi_reduced", "Mbi_Reduced"])
def test_mode_names_are_understood_in_any_case(name):
    assert cameras.find_mode(name).name == "MBI_REDUCED"


def test_an_unknown_mode_is_an_error_that_lists_the_modes():
    with pytest.raises(ValueError, match=r"'MBIR'.*FULL.*MBI_REDUCED.*NPBS"):
        cameras.crop("MBIR")


@pytest.mark.parametrize("camera", [0, 3])
def test_an_unknown_camera_is_an_error(camera):
    with pytest.raises(ValueError, match=f"no camera {camera}: expected 1"):
        cameras.crop("MBI", camera)


@pytest.mark.parametrize(
    ("readout", "camera", "gain", "read_noise"),
    [("FAST", 1, 0.103, 0.403), ("fast", 2, 0.103, 0.399), ("SLOW", 2, 0.105, 0.220)],
)
def test_the_detector_depends_on_camera_and_readout(readout, camera, gain, read_noise):
    found = cameras.detector(camera, readout)
    assert (found.gain_e_per_adu, found.read_noise_e) == (gain, read_noise)


def test_an_unknown_readout_mode_is_an_error():
    with pytest.raises(ValueError, match="'MEDIUM': expected FAST or SLOW"):
        cameras.detector(1, "MEDIUM")


@pytest.mark.parametrize(
    ("stream", "camera"),
    [("vcam1", 1), ("vcam2", 2), ("VCAM2", 2), ("vcam2sim", 2), ("vcam21", 1), ("test2", 1)],
)
def test_the_camera_number_comes_from_the_stream_name(stream, camera):
    assert cameras.camera_number(stream) == camera
