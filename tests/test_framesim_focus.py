"""The simulated camera's focus: set from outside, true to the keyword, and gone at the end."""

from __future__ import annotations

import json
import math
import os
import struct
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires import Stream, frame_stamp, framesim_focus, simulated_sky
from vampires.commands import framesim as command
from vampires.fps import FPS, FPSError, FPSRefused, layout
from vampires.framesim import CameraOptions, SimulatedCamera, camera_keywords
from vampires.framesim_focus import (
    LIMIT_MM,
    NM_PER_MM,
    FocusOptions,
    FocusStage,
    PoolCache,
    Scene,
    quantised,
)
from vampires.sky_renderer import RendererGone, SkyOptions, SkyRenderer

SHAPE = (48, 40)
SKY = SkyOptions(SHAPE, 1, "uint16", 3)
DEADLINE_S = 60


def sky(focus_mm: float, best_mm: float = 0.0) -> np.ndarray:
    """What the camera shows with a focus."""
    return simulated_sky.sky_pool(
        SHAPE, 1, "uint16", 3, defocus_nm=(focus_mm - best_mm) * NM_PER_MM
    )


def wait_for(condition) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """A camera that has to be killed leaves there what it leaves."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


# Steps


@given(st.floats(allow_nan=False))
def test_a_focus_is_the_nearest_step_within_the_limits(focus_mm):
    found = quantised(focus_mm)
    assert found == round(found, 2)
    assert quantised(found) == found
    assert abs(found - max(-LIMIT_MM, min(LIMIT_MM, focus_mm))) <= 0.0051
    assert str(found) != "-0.0"


# The renderer


@pytest.mark.parametrize("where", [(24, 30), "HALFARC"])
def test_the_renderer_renders_what_the_camera_would(where):
    options = SkyOptions(where, 2, "float32", 5)
    with SkyRenderer(options) as renderer:
        pools = [renderer.new_pool(), renderer.new_pool()]
        for pool, nm in zip(pools, (0.0, 120.0), strict=True):
            renderer.render(pool, nm)
    for pool, nm in zip(pools, (0.0, 120.0), strict=True):
        assert np.array_equal(
            pool, simulated_sky.sky_pool(where, 2, "float32", 5, defocus_nm=nm)
        )


def test_a_renderer_that_cannot_render_says_why():
    with SkyRenderer(SkyOptions(SHAPE, 7, "uint16", 0)) as renderer:
        pool = renderer.new_pool()
        with pytest.raises(RendererGone, match="camera"):
            renderer.render(pool, 0.0)


def test_who_waits_for_a_renderer_that_ends_is_told():
    with SkyRenderer(SkyOptions("FULL", 1, "uint16", 0)) as renderer:
        pool = renderer.new_pool()
        told = []

        def render() -> None:
            try:
                renderer.render(pool, 50.0)
            except RendererGone as error:
                told.append(str(error))

        waiting = threading.Thread(target=render)
        waiting.start()
        renderer.stop()
        waiting.join(DEADLINE_S)
    assert told == ["the process that renders the sky: it ended"]


# The pools


class CountingRenderer:
    """Stands for a SkyRenderer: a pool is filled with its defocus."""

    def __init__(self, options: SkyOptions = SKY) -> None:
        self.options = options
        self.pools: list[np.ndarray] = []
        self.rendered_nm: list[float] = []

    def new_pool(self) -> np.ndarray:
        self.pools.append(np.zeros(1))
        return self.pools[-1]

    def render(self, pool: np.ndarray, defocus_nm: float) -> None:
        pool[:] = defocus_nm
        self.rendered_nm.append(defocus_nm)


def test_a_focus_that_was_seen_is_not_rendered_again():
    renderer = CountingRenderer()
    cache = PoolCache(renderer)
    for focus_mm in (1.0, 2.0, 1.0, 1.5, 2.0):
        assert cache.pool(focus_mm, 0.5)[0] == (focus_mm - 0.5) * NM_PER_MM
    assert renderer.rendered_nm == [50.0, 150.0, 100.0]


@given(st.lists(st.integers(0, 200), max_size=400))
def test_pools_are_bounded_and_those_in_use_stay_as_they_are(asked):
    renderer = CountingRenderer(SkyOptions("FULL", 1, "uint16", 0))
    cache = PoolCache(renderer)
    given_away: list[tuple[np.ndarray, float]] = []
    for focus_mm in map(float, asked):
        pool = cache.pool(focus_mm, 0.0)
        if not given_away or given_away[-1][0] is not pool:
            given_away.append((pool, focus_mm * NM_PER_MM))
        for earlier, expected in given_away[-3:]:
            assert earlier[0] == expected
    assert len(renderer.pools) * renderer.options.pool_bytes <= max(
        256 * 2**20, 4 * renderer.options.pool_bytes
    )


# The camera


class RecordedStream:
    """Stands for a stream: keeps what the camera publishes; calls after() each frame."""

    def __init__(self, after) -> None:
        self.cnt0 = 0
        self.seen: list[tuple[np.ndarray, dict]] = []
        self._slot = np.zeros(SHAPE, "uint16")
        self._after = after

    def next_slot(self) -> np.ndarray:
        return self._slot

    def publish(self, acquired_ns: int, keywords: dict) -> int:
        self.seen.append((self._slot.copy(), keywords))
        self.cnt0 += 1
        self._after(self.cnt0)
        return self.cnt0


def camera_options(**changes) -> CameraOptions:
    return CameraOptions(**{"stream": "vcam1", "mode_or_shape": SHAPE, "seed": 3, **changes})


def test_pixels_and_keyword_of_a_frame_are_of_the_same_focus():
    camera = SimulatedCamera(camera_options(fps=Fraction(0), focus=FocusOptions(0.504, 0.2)))
    pools = {focus_mm: sky(focus_mm, 0.2) for focus_mm in (0.5, -1.0, 2.0)}

    def move(cnt0: int) -> None:
        focus_mm = (0.5, -1.0, 2.0)[cnt0 // 3 % 3]
        camera.show(Scene(pools[focus_mm], framesim_focus.focus_keywords(focus_mm)))

    stream = RecordedStream(move)
    camera.run(stream, threading.Event(), frames=20)
    focuses = [keywords["U_FCSF"][0] for _, keywords in stream.seen]
    assert set(focuses) == set(pools)
    for cnt0, ((frame, _), focus_mm) in enumerate(zip(stream.seen, focuses, strict=True), 1):
        assert np.array_equal(frame, frame_stamp.expected_frame(pools[focus_mm], cnt0))


def test_a_camera_without_a_focus_has_no_such_keyword_and_sharp_stars():
    options = camera_options()
    assert "U_FCSF" not in camera_keywords(options)
    assert np.array_equal(SimulatedCamera(options).pool, sky(0.0))
    assert camera_keywords(camera_options(focus=FocusOptions(1.237)))["U_FCSF"][0] == 1.24


# The stage


@pytest.fixture
def scenes():
    return []


@pytest.fixture
def said():
    return []


@pytest.fixture
def stage(shm_dir, scenes, said):
    with FocusStage("vcam1", SKY, FocusOptions(1.0, -0.5), scenes.append, said.append) as stage:
        yield stage


def shown_mm(scenes: list[Scene]) -> float:
    return scenes[-1].keywords["U_FCSF"][0]


def test_the_stage_follows_the_parameter(stage, scenes):
    with FPS.open("framesim-vcam1") as fps:
        assert fps["focus"] == 1.0
        assert fps.writable("focus")
        assert fps.run_running()
        for focus_mm in (0.25, -0.5, 0.25):
            fps["focus"] = focus_mm
            wait_for(lambda f=focus_mm: scenes and shown_mm(scenes) == f)
            assert np.array_equal(scenes[-1].pool, sky(focus_mm, -0.5))


def test_the_parameter_refuses_what_is_beyond_the_limits(stage):
    with FPS.open("framesim-vcam1") as fps:
        for focus_mm in (LIMIT_MM + 0.01, -LIMIT_MM - 0.01):
            with pytest.raises(FPSRefused):
                fps["focus"] = focus_mm


def test_what_other_programs_write_into_the_parameter_does_no_harm(
    stage, scenes, said, monkeypatch
):
    read = []
    value_of = FPS.__getitem__

    def noted(fps: FPS, key: str) -> object:
        read.append(value_of(fps, key))
        return read[-1]

    monkeypatch.setattr(FPS, "__getitem__", noted)
    with FPS.open("framesim-vcam1") as fps, fps.path.open("r+b", buffering=0) as file:

        def write(focus_mm: float) -> None:
            file.seek(layout.HEADER_BYTES + layout.VALUE_AT)
            file.write(struct.pack("<d", focus_mm))

        write(math.inf)
        wait_for(lambda: scenes and shown_mm(scenes) == LIMIT_MM)
        write(math.nan)
        wait_for(lambda: sum(map(math.isnan, read)) > 1)
        write(0.111)
        wait_for(lambda: shown_mm(scenes) == 0.11)
    assert said == []


def test_a_stage_whose_fps_is_gone_says_so_and_leaves_another_alone(shm_dir, scenes, said):
    with FocusStage("vcam1", SKY, FocusOptions(), scenes.append, said.append):
        with FocusStage("vcam1", SKY, FocusOptions(2.0), scenes.append, lambda line: None):
            wait_for(lambda: said)
            assert "was removed or replaced; the focus stays as it is" in said[0]
        assert os.listdir(shm_dir) == []
        with FPS.create(
            "framesim-vcam1", [], callfuncname="x", workdir=shm_dir / "work"
        ) as other:
            pass
    assert other.path.exists()


def test_a_stage_leaves_nothing(shm_dir, tmp_path, monkeypatch, scenes, said):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with FocusStage("vcam1", SKY, FocusOptions(), scenes.append, said.append):
        assert os.listdir(shm_dir) == ["framesim-vcam1.fps.shm"]
        with FPS.open("framesim-vcam1") as fps:
            fps["focus"] = 3.0
    assert os.listdir(shm_dir) == os.listdir(tmp_path) == []


def test_a_stage_that_cannot_begin_leaves_nothing(shm_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    with pytest.raises(OSError, match="none"):
        FocusStage("vcam1", SKY, FocusOptions(), print, print)
    assert os.listdir(shm_dir) == os.listdir(tmp_path) == []


def test_a_stream_folder_that_is_missing_is_an_error(shm_dir, monkeypatch):
    monkeypatch.setenv("MILK_SHM_DIR", str(shm_dir / "none"))
    with pytest.raises(FPSError):
        FocusStage("vcam1", SKY, FocusOptions(), print, print)


# The command


def start_camera(start_command, *arguments):
    process = start_command(
        "framesim", "vcam1", "--shape", *SHAPE, "--fps", 200, "--seed", 3, *arguments
    )
    line = process.stdout.readline()
    assert line.startswith("vcam1: "), process.stderr.read()
    return process, line


def test_the_focus_of_a_running_camera_can_be_set(start_command, shm_dir):
    camera, line = start_camera(start_command, "--focus", "-1.5", "--focus-best", "0.7")
    assert "focus in the FPS framesim-vcam1" in line
    with Stream.open("vcam1") as stream, FPS.open("framesim-vcam1") as fps:
        assert stream.keywords["U_FCSF"] == fps["focus"] == -1.5
        for focus_mm in (-1.5, 0.7, 2.2):
            fps["focus"] = focus_mm
            wait_for(lambda f=focus_mm: stream.keywords["U_FCSF"] == f)
            before = stream.cnt0
            wait_for(lambda b=before: stream.cnt0 > b + 1)
            frame, info = stream.latest()
            expected = frame_stamp.expected_frame(sky(focus_mm, 0.7), info.cnt0)
            assert np.array_equal(frame, expected)
    camera.terminate()
    _, err = camera.communicate(timeout=DEADLINE_S)
    assert (camera.returncode, err) == (0, "")
    assert os.listdir(shm_dir) == []


def test_a_camera_ends_at_once_while_a_focus_is_being_rendered(start_command, shm_dir):
    camera = start_command("framesim", "vcam1", "--mode", "MBI", "--focus")
    assert camera.stdout.readline()
    with FPS.open("framesim-vcam1") as fps:
        fps["focus"] = 5.0
    camera.terminate()
    _, err = camera.communicate(timeout=DEADLINE_S)
    assert (camera.returncode, err) == (0, "")
    assert os.listdir(shm_dir) == []


def test_a_camera_goes_on_when_its_fps_is_removed(start_command, shm_dir):
    camera, _ = start_camera(start_command, "--focus")
    (shm_dir / "framesim-vcam1.fps.shm").unlink()
    assert "the focus stays as it is" in camera.stderr.readline()
    with Stream.open("vcam1") as stream:
        stream.read(timeout=DEADLINE_S)
    camera.terminate()
    camera.communicate(timeout=DEADLINE_S)
    assert camera.returncode == 0


def test_without_the_option_there_is_no_fps(start_command, shm_dir):
    camera, line = start_camera(start_command)
    assert "focus" not in line
    assert os.listdir(shm_dir) == ["vcam1.im.shm"]
    with Stream.open("vcam1") as stream:
        assert "U_FCSF" not in stream.keywords
    camera.terminate()
    camera.communicate(timeout=DEADLINE_S)


def test_the_report_is_alone_on_stdout_with_a_focus_too(run_command):
    done = run_command(
        "framesim", "vcam1", "--shape", *SHAPE, "--fps", 0, "--frames", 5, "--json", "--focus"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--focus", "near"], "found 'near', expected mm, a number from -10 to 10"),
        (["--focus", "11"], "found '11', expected mm"),
        (["--focus", "nan"], "found 'nan', expected mm"),
        (["--focus-best", "1"], "give --focus as well"),
        (["--focus", "--focus-best", "-11"], "found '-11', expected mm"),
        (["--focus", "--pattern", "counter"], "take it with --pattern sky"),
        (["--focus", "--mode", "PUPIL"], "a mode other than PUPIL"),
    ],
)
def test_a_focus_that_cannot_be_is_one_line_and_exit_2(arguments, text, capsys):
    assert command.main(["vcam1", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert text in err
