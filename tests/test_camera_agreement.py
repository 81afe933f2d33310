"""Cameras that are logged together: do data type, kind of crop and trigger agree?"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from vampires.camera_agreement import CameraSetup, camera_setup, differences, setup_in
from vampires.instrument.file import instrument_on
from vampires.stream import KeywordGiven, Stream


def keys(*setups: CameraSetup) -> list[str]:
    return [difference.key for difference in differences(setups)]


def of_mode(mode: str, number: int) -> CameraSetup:
    """Of a camera whose stream has the crop of a mode and no keywords."""
    with Stream.create(
        f"vcam{number}", instrument_on().modes[mode].crops[number].shape, ring=2
    ):
        return camera_setup(f"vcam{number}", number)


@pytest.mark.parametrize("mode", list(instrument_on().modes))
def test_cameras_of_one_mode_agree(shm_dir: Path, mode: str) -> None:
    one, two = of_mode(mode, 1), of_mode(mode, 2)
    assert mode in one.modes
    assert mode in two.modes
    assert keys(one, two) == []


@pytest.mark.parametrize(
    ("mode", "other"),
    list(combinations(["STANDARD", "MBI", "MBI_REDUCED", "PUPIL", "FULL"], 2)),
)
def test_cameras_of_two_modes_differ(shm_dir: Path, mode: str, other: str) -> None:
    (difference,) = differences([of_mode(mode, 1), of_mode(other, 2)])
    assert difference.key == "CROP"
    assert mode in difference.found["vcam1"]
    assert other in difference.found["vcam2"]
    assert difference.remedy == f"set_crop {mode}"


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ((16, 32), (16, 32), []),
        ((16, 32), (16, 64), ["CROP"]),
        ((16, 32), (32, 16), ["CROP"]),
        ((1104, 2228), (1104, 2232), []),  # of a night, for MBI
        ((1104, 2228), None, []),
    ],
)
def test_own_windows_are_compared_by_their_shapes(
    one: tuple[int, int], two: tuple[int, int] | None, expected: list[str]
) -> None:
    assert keys(CameraSetup("vcam1", shape=one), CameraSetup("vcam2", shape=two)) == expected


def test_a_window_measured_again_belongs_to_its_mode(shm_dir: Path) -> None:
    measured = CameraSetup("vcam2", shape=(1104, 2232))
    assert keys(of_mode("MBI", 1), measured) == []
    assert keys(of_mode("STANDARD", 1), measured) == ["CROP"]


def test_what_a_stream_does_not_say_differs_from_nothing(shm_dir: Path) -> None:
    unknown = camera_setup("vcam9", 1)
    assert unknown == CameraSetup("vcam9")
    keywords: dict[str, KeywordGiven] = {"DATA-TYP": "DARK", "EXTTRIG": True}
    with Stream.create("vcam1", (8, 9), keywords=keywords):
        known = camera_setup("vcam1", 1)
    assert (known.data_type, known.shape, known.external_trigger) == ("DARK", (8, 9), True)
    assert keys(known, unknown) == keys(unknown, known) == keys(known) == keys() == []
    other = CameraSetup("vcam2", "FLAT", (80, 90), (), False)
    assert keys(known, unknown, other) == ["DATA-TYP", "CROP", "EXTTRIG"]
    for difference in differences([known, unknown, other]):
        assert list(difference.found) == ["vcam1", "vcam2"]


def test_a_setup_goes_through_json_as_it_is(shm_dir: Path) -> None:
    for setup in (of_mode("MBI", 1), CameraSetup("vcam1", "DARK", (8, 9), (), False)):
        assert setup_in({"camera": "vcam1", "error": "", **setup.as_dict()}) == setup
    assert setup_in({"camera": "vcam1", "error": "no route"}) == CameraSetup("vcam1")
