"""The process of a camera: frames as they are set, in one stream that others follow, through
changes, failures and new starts."""

from __future__ import annotations

import math
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_process import (
    PATIENCE_S,
    SMALL,
    CameraProcesses,
    camera_processes,
    frames_come,
    keywords_of,
    wait_keyword,
    wait_until,
)

from vampires.camera import Camera, CameraError
from vampires.camera.server import settings_name
from vampires.fits_cards import value_card
from vampires.fps import FPS, list_fps
from vampires.headerd.aux_file import aux_file
from vampires.instrument.file import instrument_on
from vampires.run_folder import RunFolder
from vampires.stream import Stream, StreamGone
from vampires.whole_file import write_whole

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture
def cameras(
    shm_dir: Path, start_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CameraProcesses]:
    with camera_processes(start_command, tmp_path, monkeypatch) as cameras:
        yield cameras


def ended(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    """Waits for the end of a process; what it said."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, (out, err)
    assert "Traceback" not in err
    return out, err


def kill(cameras: CameraProcesses) -> None:
    """As a crash ends it."""
    cameras.processes[-1].kill()
    cameras.processes[-1].wait()


def acquisition_times_us(name: str, frames: int) -> list[int]:
    """_MAQTIME of the next frames, ns as the ring has them."""
    with Stream.open(name) as stream:
        return [stream.read(PATIENCE_S)[1].acquired_ns // 1000 for _ in range(frames)]


# The camera object ------------------------------------------------------------------------


def test_a_camera_starts_as_its_configuration_says(cameras: CameraProcesses) -> None:
    cam = cameras.start("vcam1")
    assert cam.get_camera_mode() == "ONEARC"
    assert cam.get_fps() == 100.0
    assert cam.get_tint() == pytest.approx(0.01)
    assert cam.get_readout_mode() == "FAST"
    assert cam.get_external_trigger() is False
    crop = instrument_on().modes["ONEARC"].crops[1]
    assert cam.get_crop() == (crop.x0, crop.x1, crop.y0, crop.y1)
    assert cam.modes == list(instrument_on().modes)
    assert repr(cam).startswith("<Camera vcam1: running, ONEARC (184 x 184), 100 Hz, tint 0.01")
    keywords = keywords_of("vcam1")
    assert keywords["U_CAMERA"] == 1
    assert keywords["DETECTOR"] == "VCAM1 - OrcaQ"
    assert keywords["U_DETMOD"] == "FAST"
    assert keywords["DATA-TYP"] == "TEST"
    assert (keywords["EXPTIME"], keywords["FRATE"]) == (0.01, 100.0)


def test_the_command_line_says_how_it_starts(cameras: CameraProcesses) -> None:
    cam = cameras.start("vcam1", "--mode", "twoarc")
    assert cam.get_camera_mode() == "TWOARC"
    assert cam.get_fps() == 30.0  # the configuration's rate belongs to its mode
    cameras.end()
    cam = cameras.start("vcam1", "-m", "TWOARC", "--fps", 50)
    assert cam.get_fps() == 50.0
    cameras.end()
    assert cameras.start("vcam1", "-m", "onearc").get_fps() == 100.0


def test_a_mode_is_another_shape_of_frames(cameras: CameraProcesses) -> None:
    cam = cameras.start("vcam2")
    assert cam.set_camera_mode("twoarc") == cam.get_camera_mode() == "TWOARC"
    crop = instrument_on().modes["TWOARC"].crops[2]
    with Stream.open("vcam2") as stream:
        frame, _ = stream.read(PATIENCE_S)
        assert frame.shape == crop.shape
        assert stream.keywords["PRD-MIN1"] == crop.x0
        assert stream.keywords["PRD-RNG2"] == crop.shape[0]
        assert stream.keywords["CROPPED"] is True


def test_a_window_of_ones_own_is_taken_to_the_pixel(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    assert cam.set_crop(10, 41, 5, 20) == cam.get_crop() == (10, 41, 5, 20)
    assert cam.get_camera_mode() == ""
    with Stream.open("small") as stream:
        assert stream.read(PATIENCE_S)[0].shape == (16, 32)
        assert [stream.keywords[f"PRD-{key}"] for key in ("MIN1", "MIN2", "RNG1", "RNG2")] == [
            10,
            5,
            32,
            16,
        ]
    assert cam.set_camera_mode("FULL") == "FULL"
    with Stream.open("small") as stream:
        assert stream.shape == SMALL


def test_the_smallest_window_gives_frames_too(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    assert cam.set_crop(0, 3, 0, 3) == (0, 3, 0, 3)
    frames_come()


def test_exposure_time_and_rate_are_those_of_the_frames(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    assert cam.set_tint(0.002) == cam.get_tint() == 0.002
    assert cam.get_fps() == 100.0
    assert keywords_of()["EXPTIME"] == 0.002
    assert cam.set_fps(200) == cam.get_fps() == 200.0
    assert keywords_of()["FRATE"] == 200.0
    times_us = acquisition_times_us("small", 21)
    assert (times_us[-1] - times_us[0]) / 20 == pytest.approx(5000, abs=1)
    assert cam.set_tint(0.05) == 0.05
    assert cam.get_fps() == 20.0  # there is no room for more
    assert cam.set_fps(40) == 40.0
    assert cam.get_tint() == 0.025


def test_numbers_of_numpy_are_numbers(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    assert cam.set_tint(np.float32(0.5)) == 0.5
    assert cam.set_fps(np.int64(10)) == 10.0
    assert cam.set_crop(*np.array([0, 31, 0, 15])) == (0, 31, 0, 15)
    cam.set_keyword("X", np.uint8(7))
    wait_keyword("X", 7)
    assert cam.set_external_trigger(np.bool_(True)) is True


def test_a_change_that_keeps_the_shape_keeps_the_stream(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    with Stream.open("small") as stream:
        stream.read(PATIENCE_S)
        cam.set_tint(0.001)
        cam.set_fps(50)
        cam.set_external_trigger(True)
        last = stream.cnt0
        while stream.read(PATIENCE_S)[1].cnt0 <= last:
            pass
        assert stream.is_current()


def test_the_measured_rate_is_a_keyword_after_every_change(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    for hz in (50.0, 50.0, 25.0):
        cam.set_fps(hz)
        cam.set_tint(0.001)
        wait_until(
            lambda hz=hz: keywords_of().get("MFRATE", 0) == pytest.approx(hz, rel=0.3),
            f"MFRATE of {hz}",
        )
    assert cam.status()["rate_hz"] == pytest.approx(25, rel=0.3)


REFUSED = [
    (lambda cam: cam.set_camera_mode("MBX"), "no camera mode 'MBX': expected one of FULL"),
    (lambda cam: cam.set_camera_mode(5), "found 5, expected a name"),
    (lambda cam: cam.set_crop(0, 96, 0, 63), "expected first and last pixels within x 0 to 95"),
    (lambda cam: cam.set_crop(0, 1, 0, 1), "expected 16 pixels or more"),
    (lambda cam: cam.set_crop(0.5, 9, 0, 9), "whole numbers"),
    (lambda cam: cam.set_crop(0, 10**30, 0, 9), "expected pixels of the sensor"),
    (lambda cam: cam.set_tint("fast"), "found 'fast', expected a number"),
    (lambda cam: cam.set_tint(0), "no exposure time of 0 s"),
    (lambda cam: cam.set_tint(float("nan")), "no exposure time of nan s"),
    (lambda cam: cam.set_tint(10**400), "found a number beyond all reason"),
    (lambda cam: cam.set_tint(object()), "found object, expected a number"),
    (lambda cam: cam.set_fps(-1), "no rate of -1 frames/s"),
    (lambda cam: cam.set_fps(True), "found True, expected a number"),
    (lambda cam: cam.set_readout_mode("SLOW"), "no readout mode 'SLOW': expected FAST"),
    (lambda cam: cam.set_external_trigger("off"), "found 'off', expected true or false"),
    (lambda cam: cam.set_keyword("LONGER_THAN_THAT_", 1), "1 to 15 fit a stream"),
    (lambda cam: cam.set_keyword("X", "longer than that"), "a stream holds 15"),
    (lambda cam: cam.set_keyword("X", 2**70), "outside int64"),
    (lambda cam: cam.set_keyword("X", [1]), "expected a name, and a number, a text"),
    (lambda cam: cam.take_dark(0), "a dark of 0 frames: expected a whole number"),
    (lambda cam: cam.take_dark("many"), "a dark of many frames: expected a whole number"),
]


def test_what_cannot_be_is_one_line_and_all_is_as_it_was(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    before = cam.status()["settings"]
    for ask, said in REFUSED:
        with pytest.raises(CameraError) as caught:
            ask(cam)
        assert said in str(caught.value)
        assert str(caught.value).isprintable()
        assert cam.status()["settings"] == before
    frames_come()


def test_a_camera_that_does_not_run_is_told(shm_dir: Path) -> None:
    with pytest.raises(CameraError, match="camera vcam1 does not run here; start it: camstart"):
        Camera("vcam1")


# Keywords ---------------------------------------------------------------------------------


def test_a_keyword_arrives_with_a_next_frame_and_keeps_its_comment(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start()
    cam.set_keyword("OBJECT", "HD 12345", "name of the target")
    cam.set_keyword("MYFLAG", True)
    cam.set_keyword("MYVALUE", 1.5)
    wait_keyword("OBJECT", "HD 12345")
    wait_keyword("MYVALUE", 1.5)
    assert keywords_of()["MYFLAG"] is True
    cam.set_keyword("OBJECT", "HD 2")
    wait_keyword("OBJECT", "HD 2")
    with Stream.open("small") as stream:
        assert stream.keywords.comment("OBJECT") == "name of the target"


def test_keywords_of_others_survive_a_mode_and_the_cameras_own_follow_it(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start("vcam1")
    with Stream.open("vcam1") as stream:
        stream.keywords["DATA-TYP"] = "OBJECT"
        stream.keywords["OBJECT"] = ("HD 12345", "name of the target")
        stream.keywords["OTHER"] = (3, "of somebody else")
    cam.set_camera_mode("TWOARC")
    for _ in range(2):
        keywords = keywords_of("vcam1")
        assert keywords["DATA-TYP"] == "OBJECT"
        assert keywords["OBJECT"] == "HD 12345"
        assert keywords["OTHER"] == 3
        assert keywords["PRD-RNG1"] == 360
        cam.set_tint(0.004)  # in the same stream
    with Stream.open("vcam1") as stream:
        assert stream.keywords.comment("OTHER") == "of somebody else"


def test_more_keywords_than_a_stream_holds_are_refused_and_frames_go_on(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start()
    with pytest.raises(CameraError, match=r"no room for K\d+: the stream has all of its \d+"):
        for k in range(200):
            cam.set_keyword(f"K{k}", k)
    wait_keyword("K0", 0)
    cam.set_keyword("K0", 1)  # this one has its place
    wait_keyword("K0", 1)
    frames_come()
    cam.set_crop(0, 31, 0, 31)  # a new stream has room again
    cam.set_keyword("ONEMORE", 1)
    wait_keyword("ONEMORE", 1)


def test_a_stream_that_others_have_filled_takes_frames_and_changes(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start()
    with Stream.open("small") as stream, pytest.raises(ValueError, match="keywords"):
        for k in range(200):
            stream.keywords[f"K{k}"] = k
    frames_come()
    cam.set_tint(0.003)
    cam.set_external_trigger(True)
    wait_keyword("EXPTIME", 0.003)
    frames_come()


def test_a_keyword_that_is_set_without_frames_is_there_at_once(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start()
    cam.release()
    cam.set_keyword("OBJECT", "HD 1")
    assert keywords_of()["OBJECT"] == "HD 1"
    cam.acquire()
    frames_come()
    assert keywords_of()["OBJECT"] == "HD 1"


# Streams ----------------------------------------------------------------------------------


def test_a_reader_follows_the_stream_that_is_made_anew(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    with Stream.open("small") as before:
        before.read(PATIENCE_S)
        cam.set_crop(0, 47, 0, 31)
        with pytest.raises(StreamGone):
            while True:
                before.read(PATIENCE_S)
    with Stream.open("small") as after:
        assert after.read(PATIENCE_S)[0].shape == (32, 48)


def test_a_stream_file_that_somebody_removed_is_made_anew(
    cameras: CameraProcesses, shm_dir: Path
) -> None:
    cam = cameras.start()
    cam.set_tint(0.002)
    (shm_dir / "small.im.shm").unlink()
    wait_until((shm_dir / "small.im.shm").exists, "the stream")
    frames_come()
    assert keywords_of()["EXPTIME"] == 0.002
    assert cam.status()["state"] == "running"


def test_a_stream_that_somebody_replaced_is_the_cameras_again(cameras: CameraProcesses) -> None:
    cameras.start()
    with Stream.create("small", (3, 4), ring=2):
        wait_until(lambda: _shape("small") == SMALL, "the camera's stream")
    frames_come()


def _shape(name: str) -> tuple[int, ...]:
    with Stream.open(name) as stream:
        return stream.shape


# Given up, taken again --------------------------------------------------------------------


def test_a_released_camera_gives_no_frames_until_it_is_acquired(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start()
    cam.release()
    assert cam.status()["state"] == "released"
    with Stream.open("small") as stream, pytest.raises(TimeoutError):
        stream.read(0.3)
    cameras.wait_state("released")
    cam.release()
    cam.acquire()
    frames_come()
    cam.acquire()
    cameras.wait_state("running")
    assert cam.get_fps() == 100.0


def test_a_value_that_is_set_takes_a_released_camera_again(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    cam.release()
    with pytest.raises(CameraError, match="no camera mode"):
        cam.set_camera_mode("MBI")
    assert cam.status()["state"] == "released"
    cam.set_crop(0, 31, 0, 15)
    with Stream.open("small") as stream:
        assert stream.read(PATIENCE_S)[0].shape == (16, 32)


def test_cameras_are_closed_by_nobody_but_camstop(cameras: CameraProcesses) -> None:
    with cameras.start() as cam:
        cam.close()
    frames_come()


# A new process in place of one that failed ------------------------------------------------


def test_settings_and_keywords_are_taken_up_again_after_a_crash(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start("vcam1", "--generation", "g1")
    cam.set_camera_mode("TWOARC")
    cam.set_fps(80)
    cam.set_tint(0.004)
    cam.set_readout_mode("SLOW")
    cam.set_keyword("OBJECT", "HD 12345")
    wait_keyword("OBJECT", "HD 12345", "vcam1")
    before = cam.status()["settings"]
    kill(cameras)
    with pytest.raises(CameraError, match="does not run here"):
        cam.get_tint()
    cam = cameras.start("vcam1", "--generation", "g1")
    assert cam.status()["settings"] == before
    assert keywords_of("vcam1")["OBJECT"] == "HD 12345"
    assert keywords_of("vcam1")["EXPTIME"] == 0.004


@pytest.mark.parametrize("generation", [["--generation", "g2"], []])
def test_settings_of_another_start_are_not_taken_up(
    cameras: CameraProcesses, generation: list[str]
) -> None:
    cam = cameras.start("small", "--generation", "g1")
    cam.set_crop(0, 31, 0, 15)
    kill(cameras)
    cam = cameras.start("small", *generation)
    assert cam.get_camera_mode() == "FULL"
    assert _shape("small") == SMALL


def test_two_modes_of_the_same_window_stay_apart_over_a_crash(cameras: CameraProcesses) -> None:
    cam = cameras.start("vcam1", "--generation", "g1")
    cam.set_camera_mode("NPBS")
    assert cam.get_crop() == _window("STANDARD")
    kill(cameras)
    assert cameras.start("vcam1", "--generation", "g1").get_camera_mode() == "NPBS"


def _window(mode: str) -> tuple[int, int, int, int]:
    crop = instrument_on().modes[mode].crops[1]
    return crop.x0, crop.x1, crop.y0, crop.y1


@pytest.mark.parametrize(
    "changed",
    [
        {"crop": {"x0": 0, "x1": 10**9, "y0": 0, "y1": 10**9}},
        {"crop": {"x0": 5, "x1": 0, "y0": 0, "y1": 9}},
        {"readout": "SLOW"},
        {"fps": 1e9, "tint_s": 1e-12},
        {"mode": "ONEARC"},
        {"mode": 5},
        {"crop": [1, 2]},
    ],
)
def test_settings_that_cannot_be_do_not_stop_a_camera(
    cameras: CameraProcesses, changed: dict[str, Any]
) -> None:
    cam = cameras.start("small", "--generation", "g1")
    settings = cam.status()["settings"]
    kill(cameras)
    kept = {"of": "g1", "settings": settings | changed}
    cameras.run_folder.write(settings_name("small"), kept)
    cam = cameras.start("small", "--generation", "g1")
    assert cam.get_camera_mode() == "FULL"
    assert cam.get_fps() <= 1e5
    frames_come()
    kill(cameras)
    cameras.run_folder.write(settings_name("small"), {"of": "g1", "settings": [1]})
    assert cameras.start("small", "--generation", "g1").get_fps() == 100.0


# Trigger, readout, focus ------------------------------------------------------------------


def test_triggered_cameras_take_their_frames_at_the_same_instants(
    cameras: CameraProcesses,
) -> None:
    names = ("vcam1", "vcam2")
    cams = [cameras.start(name) for name in names]
    for cam in cams:
        assert cam.set_fps(57) == 57.0  # its interval is no whole number of nanoseconds
        assert cam.set_external_trigger(True) is True
    with Stream.open("vcam1") as one, Stream.open("vcam2") as two:
        times: list[list[int]] = [[], []]
        for _ in range(60):
            for stream, seen in zip((one, two), times, strict=True):
                seen.append(stream.read(PATIENCE_S)[1].acquired_ns)
        for stream in (one, two):
            assert stream.keywords["EXTTRIG"] is True
            assert stream.keywords["U_FLCEN"] is True
            assert stream.keywords["U_TRIGJT"] == 500
    first = max(seen[0] for seen in times)
    last = min(seen[-1] for seen in times)
    common = [[t for t in seen if first <= t <= last] for seen in times]
    assert abs(len(common[0]) - len(common[1])) <= 1 and len(common[0]) > 30
    jitter_us = instrument_on().readout("FAST").frame_jitter_us
    nearest = [min(common[1], key=lambda t, s=time: abs(t - s)) for time in common[0][1:-1]]
    apart_us = np.subtract(common[0][1:-1], nearest) / 1000
    assert 0 < np.abs(apart_us).max() <= jitter_us
    steps_us = np.diff(common[0]) / 1000
    longer, shorter = steps_us[0::2], steps_us[1::2]
    if longer[0] < shorter[0]:
        longer, shorter = shorter, longer
    assert longer == pytest.approx(1e6 / 57 + 1000, abs=jitter_us)
    assert shorter == pytest.approx(1e6 / 57, abs=jitter_us)


def test_a_camera_without_the_trigger_goes_at_its_own_pace(cameras: CameraProcesses) -> None:
    cam = cameras.start("vcam1")
    cam.set_external_trigger(True)
    assert cam.set_external_trigger(False) is False
    frames_come("vcam1")
    keywords = keywords_of("vcam1")
    assert (keywords["EXTTRIG"], keywords["U_FLCEN"], keywords["U_TRIGJT"]) == (False, False, 0)


# The instrument and its database ----------------------------------------------------------


def say(stream: str, **values: object) -> None:
    """What headerd does when the database says something: the stream's auxiliary header."""
    cards = [value_card(name.replace("_ANG", "-ANG"), value) for name, value in values.items()]
    write_whole(
        RunFolder().shm_dir / f"{stream}.aux.fits",
        aux_file([], cards),
        replace=True,
        purpose="test",
    )


def test_keywords_follow_the_database_while_frames_come(cameras: CameraProcesses) -> None:
    cam = cameras.start("vcam2")
    cam.set_camera_mode("MBI")
    before = keywords_of("vcam2")
    assert (before["OBS-MOD"], before["FILTER01"], before["FILTER02"]) == (
        "IMAG_MBI", "Unknown", "Unknown",
    )  # fmt: skip
    assert (before["X_POLARP"], before["D_IMRPAD"]) == (-1.0, 0.0)
    say("vcam2", U_BS="PBS", P_STGPS2=56.2, U_FILTER="Open", D_IMRPAD=30.0, RET_ANG1=22.5)
    wait_keyword("OBS-MOD", "IPOL_MBI", "vcam2")
    now = keywords_of("vcam2")
    assert (now["FILTER01"], now["D_IMRPAD"], now["RET-ANG1"]) == ("Open", 30.0, 22.5)
    angle = math.radians(now["INST-PA"] + 30)
    assert now["CD1_1B"] == pytest.approx(now["CDELT1"] * math.cos(angle))
    say("vcam2", U_BS="NPBS", U_DIFFL1="SII", U_DIFFL2="SII-Cont")
    wait_keyword("OBS-MOD", "IMAG_SDI", "vcam2")
    assert keywords_of("vcam2")["FILTER02"] == "SII-Cont"
    assert keywords_of("vcam2")["CD1_1B"] == before["CD1_1B"]


def test_what_the_database_says_holds_through_a_change_of_mode(
    cameras: CameraProcesses,
) -> None:
    say("vcam1", U_BS="PBS", X_POLAR="IN", U_FILTER="750-50", U_PUPST="IN")
    cam = cameras.start("vcam1")
    for mode, expected in (("PUPIL", "IPOL_PUP"), ("MBI_ONEHALF", "IPOL_MBIR")):
        cam.set_camera_mode(mode)
        keywords = keywords_of("vcam1")
        assert (keywords["OBS-MOD"], keywords["FILTER01"]) == (expected, "750-50")


def test_a_pupil_camera_has_no_keywords_of_the_science_cameras(
    cameras: CameraProcesses,
) -> None:
    say("small", U_BS="PBS", U_FILTER="Open")
    cameras.start("small")
    frames_come("small")
    assert not keywords_of("small").keys() & {"OBS-MOD", "FILTER01", "CRPIX1", "U_FLC"}


def test_the_simulator_plays_either_state_of_the_instrument(cameras: CameraProcesses) -> None:
    cameras.tables["cameras"]["vcam1"]["sim"] = {"day": "2024-06-01", "flc_jitter_us": 250.0}
    cameras.write_config()
    cam = cameras.start("vcam1")
    keywords = keywords_of("vcam1")
    assert keywords["INST-PA"] == -38.90
    assert keywords["CDELT2"] == pytest.approx(-5.908 / 3.6e6)
    cam.set_external_trigger(True)
    assert keywords_of("vcam1")["U_TRIGJT"] == 250
    today = cameras.start("vcam2")
    assert keywords_of("vcam2")["INST-PA"] == 129.99
    today.set_external_trigger(True)
    assert keywords_of("vcam2")["U_TRIGJT"] == 500


def test_slow_readout_is_quieter_has_its_own_gain_and_a_lower_rate(
    cameras: CameraProcesses,
) -> None:
    cam = cameras.start("vcam1")
    cam.set_fps(1000)
    fast = _deviation("vcam1")
    assert cam.set_readout_mode("slow") == "SLOW"
    assert cam.get_fps() < 100  # the rows take that long
    assert keywords_of("vcam1")["U_DETMOD"] == "SLOW"
    assert keywords_of("vcam1")["GAIN"] == instrument_on().detector(1, "SLOW").gain_e_per_adu
    assert keywords_of("vcam1")["FRATE"] == cam.get_fps()
    assert _deviation("vcam1") < fast - 0.3
    with pytest.raises(CameraError, match="readout mode SLOW"):
        cam.set_fps(1000)


def _deviation(name: str) -> float:
    """Of the pixels at an edge, from frame to frame."""
    with Stream.open(name) as stream:
        frames = [stream.read(PATIENCE_S)[0][1:41, 8:-8].astype(float) for _ in range(12)]
    return float(np.mean(np.std(frames, axis=0)))


def test_a_focus_is_an_fps_and_stays_as_it_is_with_other_settings(
    cameras: CameraProcesses,
) -> None:
    cameras.write_config(sim={"sensor": list(SMALL), "focus": True})
    cam = cameras.start()
    assert list_fps() == ["framesim-small"]
    with FPS.open("framesim-small") as fps:
        fps["focus"] = 1.5
        wait_keyword("U_FCSF", 1.5)
        cam.set_tint(0.002)
        cam.set_external_trigger(True)
        frames_come()
        assert fps.is_current()
        assert fps["focus"] == 1.5
    assert keywords_of()["U_FCSF"] == 1.5
    cam.set_crop(0, 63, 0, 63)
    frames_come()
    assert keywords_of()["U_FCSF"] == 1.5
    with FPS.open("framesim-small") as fps:
        assert fps["focus"] == 1.5
        fps["focus"] = -0.5
        wait_keyword("U_FCSF", -0.5)
    cam.release()
    assert list_fps() == []
    cam.acquire()
    frames_come()
    cameras.end()
    assert list_fps() == []


# Its status, its end ----------------------------------------------------------------------


def test_the_status_file_tells_how_it_is(cameras: CameraProcesses) -> None:
    cam = cameras.start("small", "--generation", "g1")
    status = cameras.status()
    assert status["camera"] == "small"
    assert status["pid"] == cameras.processes[0].pid
    assert status["generation"] == "g1"
    assert status["error"] == ""
    assert status["shape"] == list(SMALL)
    assert status["settings"]["mode"] == "FULL"
    assert status["started_ns"] < status["time_ns"]
    wait_until(lambda: cameras.status()["frames"] > status["frames"], "frames")
    wait_until(lambda: cameras.status()["rate_hz"] == pytest.approx(100, rel=0.3), "the rate")
    wait_until(lambda: cameras.status()["cnt0"] > status["cnt0"], "cnt0")
    assert cam.status().keys() == status.keys() | {"ok"}


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("released", [False, True], ids=["running", "released"])
def test_it_ends_on_a_signal_and_takes_its_stream_along(
    cameras: CameraProcesses, shm_dir: Path, number: int, released: bool
) -> None:
    cam = cameras.start()
    if released:
        cam.release()
    (process,) = cameras.processes
    process.send_signal(number)
    out, err = ended(process)
    assert err == ""
    assert "small: 64 x 96 uint16, 100 Hz, ring of 256 frames" in out
    assert cameras.status()["state"] == "ended"
    assert sorted(entry.name for entry in shm_dir.iterdir()) == ["vampires-run"]
    assert not list(cameras.run_folder.path.glob("*.sock"))
    with pytest.raises(CameraError, match="does not run here"):
        cam.get_tint()


def test_it_ends_at_once_between_two_slow_frames(cameras: CameraProcesses) -> None:
    cam = cameras.start()
    cam.set_tint(1000)
    (process,) = cameras.processes
    process.send_signal(signal.SIGTERM)
    ended(process)


def test_a_second_process_of_the_same_camera_is_refused(cameras: CameraProcesses) -> None:
    cameras.start()
    out, err = ended(cameras.begin("small"), 2)
    assert out == ""
    assert err == (
        "vampires-fgrab: camera small is run by another process; end that one with camstop "
        "small\n"
    )
    frames_come()


def test_other_cameras_run_beside_it(cameras: CameraProcesses) -> None:
    for name in ("small", "vcam1", "vcam2"):
        cameras.start(name)
    for name in ("small", "vcam1", "vcam2"):
        frames_come(name)


# Failures ---------------------------------------------------------------------------------


def test_a_source_that_fails_is_one_line_and_its_status(
    cameras: CameraProcesses, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    cameras.write_config(source="replay", replay={"path": str(missing)})
    out, err = ended(cameras.begin("small"), 1)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("vampires-fgrab: small: ")
    assert str(missing) in err
    status = cameras.status()
    assert status["state"] == "failed"
    assert str(missing) in status["error"]


def test_a_mode_that_is_not_there_is_one_line(cameras: CameraProcesses) -> None:
    _, err = ended(cameras.begin("vcam1", "--mode", "MBX"), 1)
    assert err.startswith("vampires-fgrab: vcam1: no camera mode 'MBX': expected one of FULL,")
    assert cameras.status("vcam1")["state"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no camera 'nosuch'; cameras there: vcam1, vcam2, small"),
        (["small", "--fps", "0"], "found '0', expected a number above 0"),
        (["small", "--fps", "nan"], "found 'nan', expected a number above 0"),
        ([], "required: CAMERA"),
    ],
)
def test_mistakes_are_one_line(
    cameras: CameraProcesses, run_command: Any, arguments: list[str], said: str
) -> None:
    done = run_command("fgrab", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_camera_that_lacks_its_cpus_and_cpu_set_runs_and_says_so(
    cameras: CameraProcesses,
) -> None:
    cameras.write_config(cpus="4095", cpu_set="absent")
    cam = cameras.start()
    notes = cam.status()["notes"]
    assert any("none of the CPUs 4095 is there" in note for note in notes)
    assert any("no CPU set 'absent'" in note for note in notes)


def test_a_replay_that_is_over_can_be_had_again(
    cameras: CameraProcesses, tmp_path: Path
) -> None:
    from astropy.io import fits

    cube = tmp_path / "small_00:00:00.000000000.fits"
    fits.writeto(cube, np.arange(5 * 16 * 20, dtype=np.uint16).reshape(5, 16, 20))
    cameras.write_config(source="replay", replay={"path": str(cube), "fps": 50, "loop": False})
    cameras.tables["cameras"]["small"].pop("sim")
    cameras.tables["cameras"]["small"].pop("fps")
    cameras.write_config()
    cameras.begin("small")
    status = cameras.wait_state("released")
    assert status["frames"] == 5
    cam = Camera("small")
    cam.acquire()
    wait_until(lambda: cameras.status()["frames"] == 10, "the frames once more")
    cameras.wait_state("released")
    cam.set_tint(0.001)  # a replay keeps what it has, and begins again
    wait_until(lambda: cameras.status()["frames"] == 15, "the frames once more")
    cameras.wait_state("released")
    assert cam.get_fps() == 50.0


def test_help_has_an_example(run_command: Any) -> None:
    done = run_command("fgrab", "--help")
    assert done.returncode == 0
    assert "example:\n  vampires-fgrab vcam1" in done.stdout
