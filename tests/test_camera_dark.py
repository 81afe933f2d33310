"""Darks: the mean of just the frames asked for, as an array and as a stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_process import camera_processes

from vampires.camera import CameraError, dark
from vampires.camera.dark import MAX_FRAMES, take_dark
from vampires.stream import Stream, StreamError

SHAPE = (6, 8)
KEYWORDS = {
    "EXPTIME": (0.5, "[s] exposure time"),
    "DATA-TYP": ("OBJECT", "type of the data"),
    "_MAQTIME": (0, "us"),
}


@contextmanager
def filming(stream: Stream, first: int = 100) -> Iterator[None]:
    """Meanwhile frames come: of pixels first, first + 1, ... until told to stop."""
    stop = threading.Event()

    def film() -> None:
        value = first
        while not stop.wait(0.001):
            stream.write(np.full(stream.shape, value, stream.dtype))
            value += 1

    thread = threading.Thread(target=film)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def camera(shm_dir: Path) -> Iterator[Stream]:
    with Stream.create("cam", SHAPE, np.uint16, ring=512, keywords=KEYWORDS) as stream:
        yield stream


def test_the_mean_is_of_as_many_frames_as_were_asked_for(camera: Stream, shm_dir: Path) -> None:
    with filming(camera):
        mean = take_dark("cam", 21, shm_dir, {"fps": 1000.0})
    assert (mean.shape, mean.dtype) == (SHAPE, np.float32)
    assert np.ptp(mean) == 0
    assert mean[0, 0] == round(mean[0, 0])  # the mean of 21 numbers one after the other


def test_large_pixels_of_many_frames_are_summed_without_loss(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stream.create("cam", SHAPE, np.uint16, ring=512) as camera:
        stop = threading.Event()

        def film() -> None:
            while not stop.wait(0.0005):
                camera.write(np.full(SHAPE, 65535, np.uint16))

        thread = threading.Thread(target=film)
        thread.start()
        try:
            mean = take_dark("cam", 300, shm_dir, None)
        finally:
            stop.set()
            thread.join()
    assert (mean == 65535).all()


def test_it_is_a_stream_with_the_cameras_keywords(camera: Stream, shm_dir: Path) -> None:
    with filming(camera):
        mean = take_dark("cam", 5, shm_dir, None)
    with Stream.open("cam_dark") as stream:
        frame, info = stream.latest()
        assert np.array_equal(frame, mean)
        assert frame.dtype == np.float32
        keywords = dict(stream.keywords)
        assert stream.keywords.comment("EXPTIME") == "[s] exposure time"
    assert keywords["EXPTIME"] == 0.5
    assert keywords["DATA-TYP"] == "DARK"
    assert keywords["_NDARK"] == 5
    assert keywords["_MAQTIME"] == pytest.approx(info.acquired_ns // 1000, abs=10**7)


def test_the_next_dark_is_the_next_frame_of_that_stream(camera: Stream, shm_dir: Path) -> None:
    with filming(camera):
        take_dark("cam", 2, shm_dir, None)
        with Stream.open("cam_dark") as reader:
            assert reader.cnt0 == 1
            camera.keywords["EXPTIME"] = 0.25
            mean = take_dark("cam", 3, shm_dir, None)
            assert np.array_equal(reader.latest()[0], mean)
            assert (reader.cnt0, reader.is_current()) == (2, True)
            assert (reader.keywords["EXPTIME"], reader.keywords["_NDARK"]) == (0.25, 3)


@pytest.mark.parametrize(
    "there",
    [
        {"shape": (3, 4), "dtype": np.float32},
        {"shape": SHAPE, "dtype": np.uint16},
        {"shape": SHAPE, "dtype": np.float32, "keyword_room": 2},
    ],
    ids=["shape", "type", "room"],
)
def test_a_dark_stream_that_does_not_fit_is_replaced(
    camera: Stream, shm_dir: Path, there: dict[str, Any]
) -> None:
    with Stream.create("cam_dark", **there) as before, filming(camera):
        mean = take_dark("cam", 2, shm_dir, None)
        assert not before.is_current()
    with Stream.open("cam_dark") as stream:
        assert np.array_equal(stream.latest()[0], mean)
        assert stream.keywords["EXPTIME"] == 0.5


def test_what_lies_there_and_is_no_stream_is_replaced(camera: Stream, shm_dir: Path) -> None:
    (shm_dir / "cam_dark.im.shm").write_bytes(b"no stream")
    with filming(camera):
        mean = take_dark("cam", 2, shm_dir, None)
    with Stream.open("cam_dark") as stream:
        assert np.array_equal(stream.latest()[0], mean)


def test_without_frames_there_is_no_dark(
    camera: Stream, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dark, "PATIENCE_S", 0.1)
    with pytest.raises(CameraError, match="no frames come from cam; see camstatus"):
        take_dark("cam", 2, shm_dir, {"fps": 100.0})
    with pytest.raises(StreamError):
        Stream.open("cam_dark")


def test_without_the_stream_there_is_no_dark(shm_dir: Path) -> None:
    with pytest.raises(CameraError, match=r"no dark: .*cam"):
        take_dark("cam", 2, shm_dir, None)


def test_a_camera_that_is_changed_meanwhile_gives_no_dark(
    camera: Stream, shm_dir: Path
) -> None:
    def change() -> None:
        with Stream.open("cam") as reader:
            for _ in range(20):
                reader.read(10.0)
        Stream.create("cam", (3, 4), ring=4).close()

    thread = threading.Thread(target=change)
    with filming(camera):
        thread.start()
        with pytest.raises(CameraError, match="no dark: "):
            take_dark("cam", MAX_FRAMES, shm_dir, None)
        thread.join()


@pytest.mark.parametrize("frames", [0, -1, MAX_FRAMES + 1, 2.5, "3", None])
def test_a_number_of_frames_that_cannot_be_is_one_line(shm_dir: Path, frames: Any) -> None:
    with pytest.raises(CameraError, match=f"expected a whole number, 1 to {MAX_FRAMES}"):
        take_dark("cam", frames, shm_dir, None)


def test_a_camera_that_runs_takes_a_dark(
    shm_dir: Path, start_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with camera_processes(start_command, tmp_path, monkeypatch) as cameras:
        cam = cameras.start()
        assert cam.take_dark().shape == (64, 96)
        cam.set_crop(0, 31, 0, 15)
        mean = cam.take_dark(np.int64(10))
    with Stream.open("small_dark") as stream:
        assert np.array_equal(stream.latest()[0], mean)
        assert stream.keywords["PRD-RNG1"] == 32
        assert stream.keywords["_NDARK"] == 10
