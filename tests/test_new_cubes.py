"""One cube, one truth: a cube ends where a keyword changes that says what its frames are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from cube_checks import Cube, check_cubes
from logger_process import PATIENCE_S, Camera, LoggerThread

from vampires import logger_parameters as names
from vampires.aux_header import read_aux_header
from vampires.aux_watch import AuxWatch
from vampires.config_models import LoggingConfig
from vampires.fps import FPSRefused
from vampires.logger_conf import check_parameters, fault_lines
from vampires.logger_control import LoggerOptions
from vampires.new_cube_keywords import DEFAULT_KEYWORDS, keywords_text, parse_keywords

# Two values of each keyword, as cameras give them.
VALUES: dict[str, tuple[Any, Any]] = {
    "EXPTIME": (0.5, 0.25),
    "DATA-TYP": ("OBJECT", "DARK"),
    "OBJECT": ("HD 12345", "HD 12346"),
    "FILTER01": ("Open", "750-50"),
    "FILTER02": ("Open", "H-alpha"),
    "OBS-MOD": ("IPOL_MBI", "IMAG_MBI"),
    "U_DETMOD": ("FAST", "SLOW"),
    "EXTTRIG": (False, True),
}


def wait_for(happened: Callable[[], object]) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        pause.wait(0.001)


@pytest.fixture
def start(shm_dir: Path, tmp_path: Path) -> Iterator[Callable[..., LoggerThread]]:
    """start(**config) -> a logger of cam1 that waits for its next frame."""
    started: list[LoggerThread] = []

    def begin(**config: Any) -> LoggerThread:
        logger = LoggerThread("cam1", tmp_path / "data", shm_dir, **config)
        started.append(logger)
        wait_for(lambda: logger.logger.status()["attached"])
        return logger

    yield begin
    for logger in started:
        logger.stop()


def send(logger: LoggerThread, camera: Camera, **keywords: Any) -> None:
    """One frame, and waits until it was looked at."""
    cnt0 = camera.send(**keywords)
    wait_for(lambda: logger.logger.status()["newest_cnt0"] >= cnt0)


def spans(cubes: list[Cube]) -> list[tuple[int, int]]:
    return [(int(cube.rows["CNT0"][0]), int(cube.rows["CNT0"][-1])) for cube in cubes]


def test_the_default_list_is_that_of_these_tests():
    assert tuple(VALUES) == DEFAULT_KEYWORDS


# The stream's keywords


@pytest.mark.parametrize("name", VALUES)
def test_a_cube_ends_before_the_frame_with_the_new_value(start, name):
    before, after = VALUES[name]
    camera = Camera(keywords={"RET-ANG1": 0.0, name: before})
    logger = start()
    values = [before, before, after, after, after, before]
    for k, value in enumerate(values):
        send(logger, camera, **{name: value, "RET-ANG1": float(k)})
    cubes = logger.stop().cubes(camera.pool)
    assert spans(cubes) == [(1, 2), (3, 5), (6, 6)]
    assert [fits.getheader(cube.path)[name] for cube in cubes] == [before, after, before]
    assert [name in cube.reason for cube in cubes] == [True, True, False]
    assert not any(f"{name} changed to" in cube.history for cube in cubes)
    assert "RET-ANG1 changed to 1.0 at frame 1" in cubes[0].history


def test_a_keyword_that_comes_or_goes_ends_a_cube(start):
    camera = Camera(keywords={"GAIN": 1.0})
    logger = start()
    send(logger, camera)
    send(logger, camera, OBJECT="HD 1")
    send(logger, camera)
    del camera.stream.keywords["OBJECT"]
    send(logger, camera)
    cubes = logger.stop().cubes(camera.pool)
    assert spans(cubes) == [(1, 1), (2, 3), (4, 4)]


def test_without_keywords_no_cube_is_cut_and_the_change_is_told(start_logger):
    camera = Camera(keywords={"EXPTIME": 0.5})
    logger = start_logger("cam1", "--new-cube-on", "none").attached()
    for k, value in enumerate((0.5, 0.25), 1):
        camera.send(EXPTIME=value)
        logger.wait_frames(k)
    (cube,) = logger.stop().cubes(camera.pool)
    assert "EXPTIME changed to 0.25 at frame 1" in cube.history


def test_keywords_of_ones_own_end_cubes(start_logger):
    camera = Camera(keywords={"EXPTIME": 0.5, "RET-ANG1": 0.0})
    logger = start_logger("cam1", "--new-cube-on", "RET-ANG1,STEP").attached()
    for k in range(1, 4):
        camera.send(EXPTIME=k / 8, **{"RET-ANG1": k / 2})
        logger.wait_frames(k)
    cubes = logger.stop().cubes(camera.pool)
    assert spans(cubes) == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("text", ["exptime", "_MAQTIME", "NINELONGS", "A,,B", ""])
def test_what_is_no_keyword_is_refused_at_once(run_command, text, tmp_path):
    refused = run_command("logger", "cam1", "--dir", tmp_path, "--new-cube-on", text)
    assert refused.returncode == 2
    assert "--new-cube-on" in refused.stderr


# Sessions


def test_a_change_ends_a_session_whose_last_cube_it_ends(start):
    camera = Camera(keywords={"EXPTIME": 0.5})
    logger = start(saving=False)
    engine = logger.logger
    send(logger, camera)
    assert engine.begin_saving(max_cubes=2)
    for value in (0.5, 0.5, 0.25, 0.25, 0.125):
        send(logger, camera, EXPTIME=value)
    wait_for(lambda: engine.status()["saving"] == "off")
    send(logger, camera, EXPTIME=0.125)
    result = logger.stop().result
    cubes = check_cubes(result["files"], camera.pool)
    assert spans(cubes) == [(2, 3), (4, 5)]
    assert result["lost"] == 0


def test_a_cube_that_is_to_be_filled_ends_with_the_change_and_none_is_begun(start):
    camera = Camera(keywords={"EXPTIME": 0.5})
    logger = start(saving=False, cube_size=100)
    engine = logger.logger
    assert engine.begin_saving()
    send(logger, camera)
    assert engine.end_saving(whole_cube=True)
    send(logger, camera)
    send(logger, camera, EXPTIME=0.25)
    wait_for(lambda: engine.status()["saving"] == "off")
    send(logger, camera)
    result = logger.stop().result
    assert spans(check_cubes(result["files"], camera.pool)) == [(1, 2)]
    assert result["lost"] == 0


def test_a_change_while_not_saving_begins_nothing(start):
    camera = Camera(keywords={"EXPTIME": 0.5})
    logger = start(saving=False)
    engine = logger.logger
    for value in (0.5, 0.25):
        assert engine.begin_saving()
        send(logger, camera, EXPTIME=value)
        send(logger, camera)
        assert engine.end_saving()
        wait_for(lambda: engine.status()["saving"] == "off")
        send(logger, camera, EXPTIME=1.0)
    cubes = [check_cubes([file], camera.pool)[0] for file in logger.stop().result["files"]]
    assert spans(cubes) == [(1, 2), (4, 5)]
    assert [fits.getheader(cube.path)["EXPTIME"] for cube in cubes] == [0.5, 0.25]


# The auxiliary header


def write_aux(shm_dir: Path, **cards: object) -> None:
    """As headerd does: the file is whole, or not there."""
    hidden = shm_dir / ".aux"
    hidden.unlink(missing_ok=True)
    fits.PrimaryHDU(header=fits.Header(cards)).writeto(hidden)
    hidden.rename(shm_dir / "cam1.aux.fits")


def send_first(logger: LoggerThread, camera: Camera) -> None:
    """A frame that begins a cube, and waits until that has its header."""
    send(logger, camera)
    wait_for(lambda: list(logger.root.rglob(".*.cube")))


@pytest.mark.parametrize("saving", [True, False])
def test_another_object_in_the_auxiliary_header_begins_a_cube(start, shm_dir, saving):
    write_aux(shm_dir, OBJECT="HD 1", AIRMASS=1.0)
    camera = Camera()
    logger = start(saving=saving)
    if not saving:
        assert logger.logger.begin_saving()
    send_first(logger, camera)
    write_aux(shm_dir, OBJECT="HD 1", AIRMASS=1.1)  # moves all the time
    send(logger, camera)
    write_aux(shm_dir, OBJECT="HD 2", AIRMASS=1.2)
    wait_for(lambda: logger.logger.status()["cubes_pending"] == 0)
    send(logger, camera)
    send(logger, camera)
    cubes = logger.stop().cubes(camera.pool)
    assert spans(cubes) == [(1, 2), (3, 4)]
    assert [cube.string("OBJECT") for cube in cubes] == ["HD 1", "HD 2"]
    assert "OBJECT" in cubes[0].reason


def test_an_auxiliary_header_that_comes_or_goes_begins_a_cube(start, shm_dir):
    camera = Camera()
    logger = start()
    send_first(logger, camera)
    write_aux(shm_dir, OBJECT="HD 1")
    wait_for(lambda: logger.logger.status()["cubes_pending"] == 0)
    send_first(logger, camera)
    (shm_dir / "cam1.aux.fits").unlink()
    wait_for(lambda: logger.logger.status()["cubes_pending"] == 0)
    send(logger, camera)
    cubes = logger.stop().cubes(camera.pool)
    assert ["OBJECT" in cube.cards for cube in cubes] == [False, True, False]


def test_what_the_stream_gives_itself_the_auxiliary_header_does_not_change(start, shm_dir):
    write_aux(shm_dir, OBJECT="HD 1", FILTER01="Open")
    camera = Camera(keywords={"OBJECT": "HD 9"})
    logger = start()
    send_first(logger, camera)
    write_aux(shm_dir, OBJECT="HD 2", FILTER01="Open")
    send(logger, camera)
    write_aux(shm_dir, OBJECT="HD 2", FILTER01="750-50")  # this one it does
    wait_for(lambda: logger.logger.status()["cubes_pending"] == 0)
    send(logger, camera)
    cubes = logger.stop().cubes(camera.pool)
    assert spans(cubes) == [(1, 2), (3, 3)]
    assert "FILTER01" in cubes[0].reason
    assert {cube.string("OBJECT") for cube in cubes} == {"HD 9"}


def test_a_change_is_believed_when_two_looks_found_it(shm_dir):
    write_aux(shm_dir, OBJECT="HD 1")
    watch = AuxWatch(shm_dir, "cam1", DEFAULT_KEYWORDS)
    begun_with = watch.values_of(read_aux_header(shm_dir, "cam1"))
    watch.look()
    watch.look()
    assert watch.changed(begun_with, ()) == ""
    whole = (shm_dir / "cam1.aux.fits").read_bytes()
    (shm_dir / "cam1.aux.fits").write_bytes(whole[:400])  # half written, in place
    watch.look()
    assert watch.changed(begun_with, ()) == ""
    write_aux(shm_dir, OBJECT="HD 2")
    watch.look()
    assert watch.changed(begun_with, ()) == ""
    watch.look()
    assert watch.changed(begun_with, ()) == "OBJECT"
    assert watch.changed(begun_with, {"OBJECT"}) == ""


# Where the list comes from


@pytest.mark.parametrize(
    "keywords",
    [DEFAULT_KEYWORDS, (), ("EXPTIME",), (*DEFAULT_KEYWORDS, "U_CAMERA", "RET-ANG1")],
)
def test_the_list_travels_as_a_parameter_of_the_logger(shm_dir, keywords):
    assert parse_keywords(keywords_text(keywords)) == keywords
    with Camera().stream, names.make_logger_fps("cam1") as fps:
        assert names.new_cube_keywords(fps) == DEFAULT_KEYWORDS
        names.set_values(fps, LoggerOptions(new_cube_keywords=keywords).values())
        assert names.new_cube_keywords(fps) == keywords


def test_a_list_that_makes_no_sense_is_a_fault_of_its_parameter(shm_dir):
    with Camera().stream, names.make_logger_fps("cam1") as fps:
        fps["newcubekeys"] = "EXPTIME,_TIME"
        keys = [fps.parameters()[message.index].key for message in check_parameters(fps)]
        assert "newcubekeys" in keys
        assert any("_TIME" in line for line in fault_lines(fps))


def test_the_list_of_a_logger_that_runs_stays_as_it_is(shm_dir):
    with Camera().stream, names.make_logger_fps("cam1") as fps:
        fps.record_run_process()
        with pytest.raises(FPSRefused):
            names.set_values(fps, {"newcubekeys": "none"})


def test_the_configuration_gives_the_list():
    assert LoggingConfig().new_cube_keywords == DEFAULT_KEYWORDS
    given = {"new_cube_keywords": ["EXPTIME", "X_POLARP"]}
    assert LoggingConfig.model_validate(given).new_cube_keywords == ("EXPTIME", "X_POLARP")
    none = {"new_cube_keywords": []}
    assert LoggingConfig.model_validate(none).new_cube_keywords == ()
    for wrong in (["exptime"], ["_MAQTIME"], ["NINELONGS"], [""], "EXPTIME", [1]):
        with pytest.raises(ValueError, match="new_cube_keywords"):
            LoggingConfig.model_validate({"new_cube_keywords": wrong})
