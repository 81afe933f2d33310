"""Loggers of cameras that are triggered together: they begin and end with the same frame."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logger_process import Camera
from test_logger_fps import RunProcess, wait_until

from vampires import logger_control as loggers

RATE_HZ = 500
CYCLES = 100
STREAMS = ("vcam1", "vcam2")
JITTER_NS = 20_000
BETWEEN_FRAMES = loggers.between_frames


class TriggeredCameras(threading.Thread):
    """Two cameras that take each frame together, with some jitter, until told to stop.

    upon_ns: an instant at which they take one, the first jitter before it and the second after.
    """

    def __init__(self, cameras: list[Camera], upon_ns: int | None = None) -> None:
        super().__init__(daemon=True)
        self._cameras = cameras
        self._stop_asked = threading.Event()
        self._jitter = np.random.default_rng(3)
        self._upon_ns = upon_ns

    def run(self) -> None:
        period_ns = 1_000_000_000 // RATE_HZ
        due_ns = time.time_ns() + period_ns
        offsets_ns = None
        if self._upon_ns is not None:
            due_ns += (self._upon_ns - due_ns) % period_ns
            offsets_ns = (-JITTER_NS, JITTER_NS)
        while not self._stop_asked.is_set():
            time.sleep(max(0, due_ns - time.time_ns()) / 1e9)
            for k, camera in enumerate(self._cameras):
                jitter = offsets_ns[k] if offsets_ns else self._jitter.normal(0, JITTER_NS)
                acquired_ns = due_ns + round(jitter)
                camera.send(1, acquired_ns=acquired_ns)
            due_ns += period_ns

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


@pytest.fixture
def cameras(shm_dir: Path) -> Iterator[list[Camera]]:
    """Two cameras that give no frames yet."""
    cameras = [Camera(name, keywords={"_MAQTIME": (0, "us")}) for name in STREAMS]
    yield cameras
    for camera in cameras:
        camera.stream.close()


@pytest.fixture
def silent_crew(
    cameras: list[Camera], start_command: Any, tmp_path: Path
) -> Iterator[list[RunProcess]]:
    """The loggers of two cameras that give no frames yet."""
    processes = [RunProcess(start_command, name, tmp_path / name) for name in STREAMS]
    for process in processes:
        process.start()
    yield processes
    for process in processes:
        process.fps.close()


@pytest.fixture
def crew(silent_crew: list[RunProcess], cameras: list[Camera]) -> Iterator[list[RunProcess]]:
    """The loggers of two cameras that have just begun."""
    trigger = TriggeredCameras(cameras)
    trigger.start()
    yield silent_crew
    trigger.stop()


def span(outcome: loggers.Outcome) -> tuple[int, int]:
    assert outcome.error == ""
    assert outcome.state.lost == 0
    return outcome.state.first_cnt0, outcome.state.end_cnt0


@pytest.mark.timeout(300)
def test_first_and_last_frame_agree_in_every_one_of_many_cycles(
    crew: list[RunProcess],
) -> None:
    spans = []
    for _ in range(CYCLES):
        began = loggers.start(STREAMS)
        assert [outcome.error for outcome in began] == ["", ""]
        ended = loggers.pause(STREAMS)
        one, two = (span(outcome) for outcome in ended)
        assert one == two
        assert one[0] == began[0].state.first_cnt0 == began[1].state.first_cnt0
        assert one[1] > one[0]
        spans.append(one)
    # No frame is in two periods.
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert len(crew[0].files()) == len(crew[1].files()) == CYCLES


def test_whole_cubes_end_with_the_same_frame_too(crew: list[RunProcess]) -> None:
    for process in crew:
        process.fps["cubesize"] = 37
    for _ in range(5):
        loggers.start(STREAMS)
        one, two = (span(o) for o in loggers.pause(STREAMS, whole_cube=True))
        assert one == two
        assert (one[1] - one[0] + 1) % 37 == 0


def test_a_start_with_the_very_first_frames_waits_until_their_rate_is_known(
    crew: list[RunProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[list[tuple[float, int]]] = []

    def between_frames(soonest_ns: int, frames: list[tuple[float, int]]) -> int:
        chosen.append(list(frames))
        return BETWEEN_FRAMES(soonest_ns, frames)

    monkeypatch.setattr(loggers, "between_frames", between_frames)
    for process in crew:
        wait_until(lambda process=process: process.fps["newestns"] > 0, "a frame")
    loggers.start(STREAMS)
    one, two = (span(o) for o in loggers.pause(STREAMS))
    assert one == two
    for frames in chosen:
        assert [1e9 / period_ns for period_ns, _ in frames] == [
            pytest.approx(RATE_HZ, rel=0.01)
        ] * 2


def test_cameras_that_begin_while_a_start_waits_for_its_instant(
    silent_crew: list[RunProcess], cameras: list[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    triggers: list[TriggeredCameras] = []

    def between_frames(soonest_ns: int, frames: list[tuple[float, int]]) -> int:
        instant_ns = BETWEEN_FRAMES(soonest_ns, frames)
        if not triggers:  # the worst case: of the frame at that instant one is early, one late
            triggers.append(TriggeredCameras(cameras, upon_ns=instant_ns))
            triggers[0].start()
        return instant_ns

    monkeypatch.setattr(loggers, "between_frames", between_frames)
    began = loggers.start(STREAMS)
    try:
        assert [outcome.error for outcome in began] == ["", ""]
        one, two = (span(o) for o in loggers.pause(STREAMS))
    finally:
        triggers[0].stop()
    assert one == two


def test_another_starttime_moves_the_start_of_a_session_that_waits(
    silent_crew: list[RunProcess], cameras: list[Camera]
) -> None:
    process, camera = silent_crew[0], cameras[0]
    fps, far_ns = process.fps, time.time_ns() + 3_600_000_000_000
    fps["starttime"] = far_ns
    process.save()
    assert fps["state"] == "armed"
    fps["starttime"] = soon_ns = time.time_ns() + 1_000_000
    wait_until(lambda: fps["starttime"] == 0, "the order taken")
    camera.send(1, acquired_ns=soon_ns - 1_000_000)
    camera.send(3, acquired_ns=soon_ns + 1_000_000)
    process.wait_frames(3)
    fps["starttime"] = far_ns  # of a session that began: for the next one
    camera.send(1, acquired_ns=soon_ns + 2_000_000)
    process.wait_frames(4)
    process.pause()
    assert (fps["firstcnt0"], fps["endcnt0"], fps["lost"]) == (2, 5, 0)
    assert fps["starttime"] == far_ns


def test_a_rate_is_told_only_when_it_says_when_the_next_frames_come(
    start_command: Any, shm_dir: Path, tmp_path: Path
) -> None:
    camera = Camera("vcam1", keywords={"_MAQTIME": (0, "us")})
    process = RunProcess(start_command, "vcam1", tmp_path).start()
    fps, began_ns = process.fps, time.time_ns()
    for cnt0 in (1, 2):
        camera.send(1, acquired_ns=began_ns + cnt0 * 2_000_000)
        wait_until(lambda cnt0=cnt0: fps["newestcnt0"] == cnt0)
    assert fps["rate"] == 0.0
    camera.send(1, acquired_ns=began_ns + 202_000_000)
    wait_until(lambda: fps["rate"] > 0)
    assert fps["rate"] == pytest.approx(10, rel=0.01)  # the third frame, 0.2 s after the first
    fps.close()
    camera.stream.close()


def test_the_one_that_can_start_does_and_the_other_is_told(crew: list[RunProcess]) -> None:
    crew[1].stop()
    one, two = loggers.start(STREAMS)
    assert one.error == ""
    assert one.state.saving
    assert "does not run" in two.error
    (ended, _) = loggers.pause(STREAMS)
    assert ended.error == ""
    assert crew[0].files()


@given(
    st.integers(1, 3),
    st.floats(1e6, 1e9),
    st.integers(0, 10**12),
    st.integers(0, 10**9),
)
def test_the_instant_lies_in_the_middle_of_the_gap_between_frames(
    cameras: int, period_ns: float, frame_ns: int, soonest_offset_ns: int
) -> None:
    soonest_ns = frame_ns + soonest_offset_ns
    frames = [(period_ns, frame_ns + k) for k in range(cameras)]  # together, nearly
    instant_ns = loggers.between_frames(soonest_ns, frames)
    assert soonest_ns <= instant_ns <= soonest_ns + period_ns + 1
    for _, time_ns in frames:
        phase = ((instant_ns - time_ns) % period_ns) / period_ns
        assert 0.4 < phase < 0.6


def test_without_frames_the_instant_is_the_soonest() -> None:
    assert loggers.between_frames(1234, []) == 1234
