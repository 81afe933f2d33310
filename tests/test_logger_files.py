"""The files of the logger: where they are, what they hold, and that readers can trust them."""

from __future__ import annotations

import shutil
import signal
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from cube_checks import PIXELS, SECOND_NS, Cube, hidden_files, iso
from foreign_stream import ForeignStream, run
from logger_process import RING_FRAMES, Camera, LoggerThread

from vampires import frame_stamp
from vampires.frame_table import FrameFlag

FIRST_NS = 1_770_091_506_789_012_345  # 2026-02-03T04:05:06.789012345 UTC
MAQTIME = {"_MAQTIME": 0}


def send_timed(camera: Camera, frames: int, first_ns: int = FIRST_NS) -> None:
    for frame in range(frames):
        camera.send(acquired_ns=first_ns + frame * 1_234_567)


def frames_of(cubes: list[Cube]) -> list[int]:
    return [len(cube.rows) for cube in cubes]


# Names and folders


def test_files_are_named_after_the_acquisition_of_their_first_frame(start_logger, tmp_path):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1", "--cube-size", 3).attached()
    send_timed(camera, 6)
    logger.wait_frames(6)
    cubes = logger.stop().cubes(camera.pool)
    folder = tmp_path / "data" / "20260203" / "cam1"
    assert [cube.path for cube in cubes] == [
        folder / "cam1_04:05:06.789012345.fits",
        folder / "cam1_04:05:06.792716046.fits",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        "cam1_04:05:06.789012345.fits",
        "cam1_04:05:06.789012345.txt",
        "cam1_04:05:06.792716046.fits",
        "cam1_04:05:06.792716046.txt",
    ]


def test_exact_dir_takes_the_files_themselves(start_logger, tmp_path):
    camera = Camera(keywords=MAQTIME)
    exact = tmp_path / "exact"
    logger = start_logger("cam1", "--exact-dir", exact, "--frames", 2).attached()
    send_timed(camera, 2)
    (cube,) = logger.end().cubes(camera.pool)
    assert cube.path == exact / "cam1_04:05:06.789012345.fits"
    assert sorted(path.suffix for path in exact.iterdir()) == [".fits", ".txt"]


def test_a_stream_without_times_is_named_after_the_clock_of_the_logger(start_logger, shm_dir):
    with ForeignStream.create(shm_dir, "bare", size=(9, 8)) as stream:
        logger = start_logger("bare", "--frames", 4, "--cube-size", 4).attached()
        for number in range(1, 5):
            frame = np.zeros((8, 9), np.uint16)
            frame_stamp.stamp(frame, number)
            run(stream.pymilk(frame))
            logger.wait_frames(number) if number < 4 else None
        (cube,) = logger.end().cubes(None)
    assert (cube.rows["TACQ"] == 0).all() and (cube.rows["TSTREAM"] == 0).all()
    assert cube.first_ns == cube.rows["TLOG"][0]
    header = fits.getheader(cube.path)
    assert "logger clock" in header.comments["UT-STR"]
    now = datetime.now(timezone.utc)
    assert abs(now.timestamp() - cube.first_ns / SECOND_NS) < 600


# Pixels


@pytest.mark.parametrize("dtype", PIXELS)
def test_every_pixel_of_every_type_is_read_back(shm_dir, tmp_path, dtype):
    camera = Camera(dtype=dtype, shape=(7, 11))
    logger = LoggerThread("cam1", tmp_path / "data", shm_dir, frames=13, cube_size=5).attached()
    camera.send(20)
    assert frames_of(logger.end().cubes(camera.pool)) == [5, 5, 3]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((5, 7), "uint8"),  # an odd number of bytes
        ((1, 17), "int8"),
        ((3, 3), "uint16"),
        ((36, 40), "uint16"),  # one FITS block exactly
        ((1, 2), "float64"),
        ((64, 33), "uint32"),
        ((257, 255), "uint8"),  # near the size of a chunk of memory
        ((100, 1001), "uint16"),  # over one
    ],
)
def test_frames_of_any_size_are_read_back(shm_dir, tmp_path, shape, dtype):
    camera = Camera(dtype=dtype, shape=shape, ring=64)
    logger = LoggerThread("cam1", tmp_path / "data", shm_dir, cube_size=4, frames=13).attached()
    camera.send(13)
    assert frames_of(logger.end().cubes(camera.pool)) == [4, 4, 4, 1]


def test_a_one_dimensional_stream_is_logged_as_rows(shm_dir, tmp_path):
    camera = Camera("row", shape=(40,), ring=0)
    logger = LoggerThread("row", tmp_path / "data", shm_dir, frames=2).attached()
    for number in (1, 2):
        camera.send()
        logger.wait_status(frames=number)
    result = logger.end().result
    pixels = fits.getdata(result["files"][0])
    expected = [frame_stamp.expected_frame(camera.pool, number) for number in (1, 2)]
    np.testing.assert_array_equal(pixels, np.stack(expected)[:, None, :])


def test_a_rolling_stream_is_logged_slice_by_slice(start_logger, shm_dir):
    with ForeignStream.create(shm_dir, "roll", size=(9, 8, 4)) as stream:
        logger = start_logger("roll", "--rolling", "--frames", 6).attached()
        for number in range(1, 7):
            frame = np.zeros((8, 9), np.uint16)
            frame_stamp.stamp(frame, number)
            run(stream.library(frame, cnt1=number % 4))
            logger.wait_frames(number) if number < 6 else None
        (cube,) = logger.end().cubes(None)
    assert cube.rows["CNT1"].tolist() == [1, 2, 3, 0, 1, 2]
    assert cube.rows["LOST"].sum() == 0


# How many


def test_cubes_of_the_size_asked_for_and_no_more_of_them(start_logger):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 4, "--cubes", 3).attached()
    camera.send(20)
    ended = logger.end()
    assert frames_of(ended.cubes(camera.pool)) == [4, 4, 4]
    assert ended.result["frames_seen"] == 12 and ended.result["stream"] == "cam1"


def test_frames_asked_for_and_no_more(start_logger):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 4, "--frames", 10).attached()
    camera.send(20)
    cubes = logger.end().cubes(camera.pool)
    assert frames_of(cubes) == [4, 4, 2]
    assert [cube.reason for cube in cubes] == [
        "cube size reached", "cube size reached", "number of frames reached"
    ]  # fmt: skip


def test_cubes_of_one_frame(start_logger):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 1, "--cubes", 40).attached()
    camera.send(40)
    assert frames_of(logger.end().cubes(camera.pool)) == [1] * 40


def test_thousands_of_tiny_frames_lose_nothing(start_logger):
    camera = Camera(shape=(3, 3), ring=8192)
    logger = start_logger("cam1", "--cube-size", 1000, "--frames", 5000).attached()
    camera.send(5000)
    assert frames_of(logger.end().cubes(camera.pool)) == [1000] * 5


def test_a_simulated_camera_in_its_own_process(start_command, start_logger):
    camera = start_command("framesim", "sim1", "--shape", 30, 41, "--fps", 500, "--ring", 2048)
    camera.stdout.readline()
    logger = start_logger("sim1", "--cube-size", 50, "--cubes", 4)
    cubes = logger.end().cubes(None)
    camera.send_signal(signal.SIGINT)
    camera.wait()
    assert frames_of(cubes) == [50] * 4
    assert (np.diff(cubes[0].rows["TACQ"]) == 2_000_000).all()


# Other readers


def test_fpack_packs_and_unpacks_the_cube(start_logger):
    camera = Camera(shape=(30, 31))
    logger = start_logger("cam1", "--frames", 9).attached()
    camera.send(9)
    (cube,) = logger.end().cubes(camera.pool)
    path = str(cube.path)
    subprocess.run(["fpack", "-r", path], check=True)
    with fits.open(path + ".fz", checksum=True) as packed:
        np.testing.assert_array_equal(packed[1].data, fits.getdata(path))
        assert packed["FRAMES"].data["CNT0"].tolist() == list(range(1, 10))
    unpacked = str(cube.path.with_name("unpacked.fits"))
    subprocess.run(["funpack", "-O", unpacked, path + ".fz"], check=True)
    with fits.open(unpacked, checksum=True) as again, fits.open(path) as before:
        np.testing.assert_array_equal(again[0].data, before[0].data)
        changed = {"CHECKSUM", "DATASUM"}
        assert set(again[0].header) - changed == set(before[0].header) - changed


# Headers


def auxiliary(shm_dir: Path, stream: str, **cards: object) -> None:
    fits.PrimaryHDU(header=fits.Header(cards)).writeto(shm_dir / f"{stream}.aux.fits")


def test_stream_keywords_beat_auxiliary_cards_and_the_logger_beats_both(start_logger, shm_dir):
    auxiliary(shm_dir, "cam1", AIRMASS=1.25, GAIN=9.0, **{"CNT0-BEG": -5, "NLOST": 77})
    keywords = {"GAIN": 0.103, "UT": "yesterday", "NAXIS3": 5, "DETECTOR": "VCAM1 - OrcaQ"}
    camera = Camera(keywords=keywords | MAQTIME)
    logger = start_logger("cam1", "--frames", 3).attached()
    send_timed(camera, 3)
    (cube,) = logger.end().cubes(camera.pool)
    assert float(cube.cards["AIRMASS"]) == 1.25
    assert float(cube.cards["GAIN"]) == 0.103
    assert cube.string("DETECTOR") == "VCAM1 - OrcaQ"
    assert (cube.number("CNT0-BEG"), cube.number("NLOST"), cube.number("NAXIS3")) == (1, 0, 3)
    assert cube.string("UT") == "04:05:06.790246"
    assert "_MAQTIME" not in cube.cards
    assert "'UT' not written" in cube.history and "'NAXIS3' not written" in cube.history


def test_a_mended_auxiliary_card_is_in_each_cube_and_reported_once(shm_dir, tmp_path):
    degree = Path(__file__).parent / "data" / "cases" / "aux_degree.fits"
    shutil.copy(degree, shm_dir / "cam1.aux.fits")
    camera = Camera()
    logger = LoggerThread(camera.name, tmp_path, shm_dir, cube_size=2).attached()
    camera.send(6)
    logger.wait_status(frames=6)
    ended = logger.stop()
    (line,) = [line for line in ended.lines if "TEMP_OUT" in line]
    assert camera.name in line
    for cube in ended.cubes(camera.pool):
        assert float(cube.cards["TEMP_OUT"]) == 3.5
        assert "TEMP_OUT" in cube.history


def test_keywords_are_those_of_the_first_frame_and_changes_are_told(start_logger):
    camera = Camera(keywords={"U_WHEEL": "Open", "STEP": 1, "SHUTTER": True})
    logger = start_logger("cam1", "--cube-size", 6, "--cubes", 2).attached()
    for number in range(1, 13):
        changed = {4: {"U_WHEEL": "H-alpha"}, 6: {"STEP": 2}, 9: {"STEP": 3}}.get(number, {})
        camera.send(**changed)
        logger.wait_frames(number) if number < 12 else None
    first, second = logger.end().cubes(camera.pool)
    assert (first.string("U_WHEEL"), first.cards["STEP"], first.cards["SHUTTER"]) == (
        "Open", "1", "T"
    )  # fmt: skip
    assert "U_WHEEL changed to H-alpha at frame 3 (1 change)" in first.history
    assert "STEP changed to 2 at frame 5 (1 change)" in first.history
    assert (second.string("U_WHEEL"), second.cards["STEP"]) == ("H-alpha", "2")
    assert "STEP changed to 3 at frame 2" in second.history
    assert "U_WHEEL" not in second.history


def test_a_cube_says_why_it_ended(start_logger):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 2).attached()
    camera.send(3)
    logger.wait_frames(3)
    cubes = logger.stop().cubes(camera.pool)
    assert [cube.reason for cube in cubes] == ["cube size reached", "logging stopped"]


# Times


def test_times_are_those_given_to_the_nanosecond(start_logger):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1", "--frames", 5).attached()
    send_timed(camera, 5)
    (cube,) = logger.end().cubes(camera.pool)
    assert cube.rows["TACQ"].tolist() == [FIRST_NS + k * 1_234_567 for k in range(5)]
    assert cube.string("DATE-BEG") == "2026-02-03T04:05:06.789012345" == iso(FIRST_NS)
    assert cube.string("DATE-OBS") == "2026-02-03"
    lines = cube.path.with_suffix(".txt").read_text().splitlines()
    columns = [line.split() for line in lines if line[0] != "#"]
    assert [column[4] for column in columns[:2]] == ["1770091506.789012", "1770091506.790246"]


def test_a_ring_read_late_gives_every_frame_its_own_time(start_logger):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1", "--frames", 50).attached()
    with logger.held_up():
        send_timed(camera, 50)
    (cube,) = logger.end().cubes(camera.pool)
    late = cube.rows["FLAGS"] & FrameFlag.CAUGHT_UP != 0
    assert late.tolist() == [True] * 49 + [False]
    assert cube.rows["TACQ"].tolist() == [FIRST_NS + k * 1_234_567 for k in range(50)]
    assert cube.rows["LOST"].sum() == 0


def test_frames_that_left_the_ring_before_they_were_read_are_counted(start_logger):
    camera = Camera(ring=16)
    logger = start_logger("cam1").attached()
    camera.send(3)
    logger.wait_frames(3)
    with logger.held_up():
        camera.send(100)
    logger.wait_frames(103, or_lost=True)
    ended = logger.stop()
    (cube,) = ended.cubes(camera.pool, status=3)
    assert cube.rows["CNT0"][-1] == 103
    assert ended.result["frames_seen"] == 103
    assert ended.result["lost"] == 103 - len(cube.rows) >= 103 - 3 - 16
    assert f"{ended.result['lost']} lost" in ended.text


def test_the_ring_is_large_enough_for_these_tests():
    assert RING_FRAMES >= 1000


def test_nothing_hidden_remains(start_logger, tmp_path):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 2, "--cubes", 2).attached()
    camera.send(4)
    logger.end().cubes(camera.pool)
    assert hidden_files(tmp_path) == []
