"""The logger as an FPS: what its parameters do, as any client of milk's may set them."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from cube_checks import check_cubes, hidden_files
from logger_process import PATIENCE_S, Camera

from vampires import logger_control as loggers
from vampires import logger_parameters as names
from vampires.fps import FPS, layout
from vampires.fps.layout import Status
from vampires.logger_process import LoggerProcess

PAUSE_S = 0.002


def wait_until(happened: Callable[[], object], what: str = "") -> None:
    """Until it has happened, in shared memory, where nothing wakes who waits."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(PAUSE_S)


class RunProcess:
    """The run process of a logger, as fpsrunstart starts it, and its FPS."""

    def __init__(self, start_command: Callable[..., Any], stream: str, folder: Path) -> None:
        self.stream = stream
        self.folder = folder
        self._start_command = start_command
        self.fps = names.make_logger_fps(stream)
        names.set_values(self.fps, {"dirname": str(folder)})
        self.fps["ringmemory"] = 16
        self.fps["procinfo.RTprio"] = 0
        self.fps["writerRTprio"] = 0
        self.fps["procinfo.taskset"] = "0-127"
        self.process: Any = None

    def start(self) -> RunProcess:
        line = f"streamFITSlog _RUNSTART_ {self.stream}"
        self.process = self._start_command("fps-exec", "-n", self.fps.name, line)
        wait_until(lambda: self.fps["state"] == "idle" or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()
        return self

    def save(self) -> int:
        """Switches saving on; returns when the next frame is the first. The session."""
        session = int(self.fps["session"])
        self.fps["saveON"] = True
        wait_until(lambda: self.fps["session"] == session + 1, "saving")
        return session + 1

    def wait_frames(self, frames: int) -> None:
        wait_until(lambda: self.fps["framecnt"] >= frames, f"{frames} frames saved")

    def wait_idle(self) -> None:
        wait_until(lambda: self.fps["state"] == "idle" and not self.fps["saveON"], "idle")

    def pause(self) -> None:
        self.fps["saveON"] = False
        self.wait_idle()

    def stop(self, number: int = signal.SIGINT) -> str:
        """Ends the process; what it printed."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> str:
        output, errors = self.process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in errors, errors
        return str(output + errors)

    def files(self) -> list[str]:
        return sorted(str(file) for file in self.folder.rglob("*.fits"))

    def cubes(self, camera: Camera, *, periods: bool = False) -> list[Any]:
        """Its files, after every check there is. periods: frames between them were not meant
        to be saved."""
        assert hidden_files(self.folder) == []
        return (
            checked(self.files(), camera) if periods else check_cubes(self.files(), camera.pool)
        )


def checked(files: list[str], camera: Camera) -> list[Any]:
    """The cubes of files that are of one saving period each."""
    return [cube for file in files for cube in check_cubes([file], camera.pool)]


@pytest.fixture
def camera(shm_dir: Path) -> Iterator[Camera]:
    camera = Camera("cam1", keywords={"_MAQTIME": (0, "us")})
    yield camera
    camera.stream.close()


@pytest.fixture
def run_process(start_command: Any, camera: Camera, tmp_path: Path) -> Iterator[RunProcess]:
    process = RunProcess(start_command, "cam1", tmp_path / "data")
    yield process
    process.fps.close()


@pytest.fixture
def running(run_process: RunProcess) -> RunProcess:
    return run_process.start()


def lengths(cubes: list[Any]) -> list[int]:
    return [len(cube.rows) for cube in cubes]


# -- saveON, lastcubeON, nextcube -------------------------------------------------------------


def test_frames_are_saved_while_saveon_is_on_and_none_else(
    running: RunProcess, camera: Camera
) -> None:
    camera.send(5)
    running.save()
    first = camera.send(7) - 6
    running.wait_frames(7)
    running.pause()
    camera.send(4)
    assert running.fps["firstcnt0"] == first
    assert running.fps["endcnt0"] == first + 6
    assert running.fps["lost"] == 0
    (cube,) = running.cubes(camera)
    assert list(cube.rows["CNT0"]) == list(range(first, first + 7))


@pytest.mark.parametrize("what", ["value", "flag"])
def test_a_client_that_sets_only_the_value_or_only_the_flag_is_understood(
    running: RunProcess, camera: Camera, what: str
) -> None:
    fps = running.fps
    at = layout.HEADER_BYTES + fps.parameter("saveON").index * layout.PARAMETER_BYTES
    with fps.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:

        def write(on: bool) -> None:
            if what == "value":
                struct.pack_into("<q", memory, at + layout.VALUE_AT, on)
            else:
                (flags,) = struct.unpack_from("<Q", memory, at)
                flags = flags | 0x4000 if on else flags & ~0x4000
                struct.pack_into("<Q", memory, at, flags)

        write(True)
        wait_until(lambda: fps["session"] == 1)
        assert fps.raw_onoff("saveON") == (True, True)
        camera.send(3)
        running.wait_frames(3)
        write(False)
        wait_until(lambda: fps.raw_onoff("saveON") == (False, False))
        running.wait_idle()
    assert lengths(running.cubes(camera)) == [3]


def test_lastcubeon_fills_the_cube_and_switches_both_off(
    running: RunProcess, camera: Camera
) -> None:
    running.fps["cubesize"] = 10
    running.save()
    camera.send(13)
    running.wait_frames(13)
    running.fps["lastcubeON"] = True
    wait_until(lambda: running.fps["state"] == "ending")
    assert running.fps["saveON"]
    camera.send(20)
    running.wait_idle()
    assert running.fps["lastcubeON"] is False
    assert lengths(running.cubes(camera)) == [10, 10]


def test_lastcubeon_goes_off_by_itself_when_nothing_is_saved(running: RunProcess) -> None:
    running.fps["lastcubeON"] = True
    wait_until(lambda: running.fps["lastcubeON"] is False)
    assert running.fps["state"] == "idle"


def test_nextcube_begins_another_and_goes_off(running: RunProcess, camera: Camera) -> None:
    running.save()
    camera.send(4)
    running.wait_frames(4)
    running.fps["nextcube"] = True
    wait_until(lambda: running.fps["nextcube"] is False)
    wait_until(running.files)
    camera.send(3)
    running.wait_frames(7)
    running.pause()
    assert lengths(running.cubes(camera)) == [4, 3]


def test_saving_ends_after_maxfilecnt_files_and_says_so(
    running: RunProcess, camera: Camera
) -> None:
    fps = running.fps
    fps["cubesize"] = 5
    fps["maxfilecnt"] = 2
    running.save()
    camera.send(17)
    running.wait_idle()
    assert (fps["filecnt"], fps["framecnt"]) == (2, 10)
    # The next period counts anew.
    running.save()
    camera.send(17)
    running.wait_idle()
    assert fps["filecnt"] == 2
    assert lengths(running.cubes(camera, periods=True)) == [5, 5, 5, 5]


def test_an_idle_stream_does_not_use_up_maxfilecnt(running: RunProcess, camera: Camera) -> None:
    running.fps["maxfilecnt"] = 2
    running.fps["procinfo.triggertimeout"] = 0.05
    running.save()
    camera.send(3)
    wait_until(lambda: len(running.files()) == 1)  # ended by the time-out
    camera.send(2)
    running.wait_idle()
    assert lengths(running.cubes(camera)) == [3, 2]


# -- settings ---------------------------------------------------------------------------------


def test_cubesize_and_dirname_take_effect_at_the_next_cube(
    running: RunProcess, camera: Camera, tmp_path: Path
) -> None:
    fps = running.fps
    fps["cubesize"] = 6
    running.save()
    camera.send(2)
    running.wait_frames(2)
    fps["cubesize"] = 3
    names.set_values(fps, {"dirname": str(tmp_path / "data" / "other")})
    wait_until(lambda: running_settings(fps), "the settings are taken")
    camera.send(10)
    running.wait_frames(12)
    running.pause()
    cubes = running.cubes(camera)
    assert sorted(lengths(cubes)) == [3, 3, 6]
    in_other = [Path(f).parent.name for f in running.files() if "/other/" in f]
    assert len(in_other) == 2


@pytest.mark.parametrize(
    ("keywords", "expected"), [("default", [2, 3]), ("FOCUS,STEP", [3, 2]), ("none", [5])]
)
def test_a_cube_ends_with_a_change_of_the_keywords_that_the_fps_names(
    run_process: RunProcess, camera: Camera, keywords: str, expected: list[int]
) -> None:
    run_process.fps["newcubekeys"] = keywords
    running = run_process.start()
    camera.stream.keywords["EXPTIME"] = 1.0
    camera.stream.keywords["STEP"] = 1
    running.save()
    for k in range(1, 6):
        camera.send(EXPTIME=1.0 if k < 3 else 2.0, STEP=1 if k < 4 else 2)
        running.wait_frames(k)
    running.pause()
    assert lengths(running.cubes(camera)) == expected


def running_settings(fps: FPS) -> bool:
    """Settings are looked at whenever outputs are published; two of those later they hold."""
    for _ in range(2):
        before = fps.parameter("newestns").cnt0, time.monotonic()
        wait_until(lambda b=before: time.monotonic() - b[1] > 0.06)
    return True


def test_a_stream_of_another_crop_is_picked_up_without_a_restart(
    running: RunProcess, camera: Camera
) -> None:
    running.save()
    camera.send(4)
    running.wait_frames(4)
    camera.stream.close()
    camera.stream.remove()
    other = Camera("cam1", (20, 30), keywords={"_MAQTIME": (0, "us")})
    other.send(1)
    wait_until(lambda: running.fps["framecnt"] >= 5)
    other.send(5)
    running.wait_frames(10)
    running.pause()
    shapes = [fits.getdata(file).shape for file in running.files()]
    assert shapes == [(4, 8, 9), (6, 20, 30)]
    other.stream.close()


def test_dailydir_puts_files_where_the_archive_looks(
    running: RunProcess, camera: Camera
) -> None:
    running.fps["dailydir"] = True
    running.save()
    camera.send(2)
    running.wait_frames(2)
    running.pause()
    (file,) = running.files()
    day, stream = Path(file).relative_to(running.folder).parts[:2]
    assert (len(day), stream) == (8, "cam1")


def test_a_directory_of_any_length_works_and_is_told_in_full(
    running: RunProcess, camera: Camera, tmp_path: Path, shm_dir: Path
) -> None:
    long = running.folder / ("x" * 100) / ("y" * 100)
    names.set_values(running.fps, {"dirname": str(long)})
    assert loggers.look("cam1").directory == str(long)
    running.save()
    camera.send(2)
    running.wait_frames(2)
    running.pause()
    (file,) = running.files()
    assert Path(file).parent == long
    assert Path(str(running.fps["outfname"])).name == Path(file).name


def test_outfname_is_the_file_finished_last(running: RunProcess, camera: Camera) -> None:
    running.fps["cubesize"] = 2
    running.save()
    camera.send(6)
    running.wait_frames(6)
    running.pause()
    told = str(running.fps["outfname"])
    assert Path(told).name == Path(running.files()[-1]).name


def test_compressed_files_hold_the_same_frames(running: RunProcess, camera: Camera) -> None:
    fps = running.fps
    running.stop()
    fps["compress"] = True
    fps["cubesize"] = 4
    running.start()
    running.save()
    first = camera.send(4) - 3
    running.wait_frames(4)
    wait_until(lambda: running.files() and _compressed(running.files()[0]))
    running.pause()
    with fits.open(running.files()[0]) as hdus:
        from vampires import frame_stamp

        for k, frame in enumerate(hdus[1].data):
            expected = frame_stamp.expected_frame(camera.pool, first + k)
            assert np.array_equal(frame, expected)
        assert len(hdus["FRAMES"].data) == 4
    running.stop()
    assert hidden_files(running.folder) == []


def _compressed(file: str) -> bool:
    with fits.open(file) as hdus:
        return "COMPRESSED_IMAGE" in hdus


# -- instants ---------------------------------------------------------------------------------


def test_starttime_and_stoptime_choose_frames_by_their_acquisition(
    running: RunProcess, camera: Camera
) -> None:
    now_ns = time.time_ns()
    instants = [now_ns + k * 10_000_000 for k in range(20)]  # 10 ms apart, made up
    fps = running.fps
    fps["starttime"] = instants[5]
    running.save()
    assert fps["starttime"] == 0  # used up
    for k in range(8):
        camera.send(1, acquired_ns=instants[k])
    running.wait_frames(3)
    fps["stoptime"] = instants[12]
    fps["saveON"] = False
    wait_until(lambda: fps["stoptime"] == 0)
    for k in range(8, 20):
        camera.send(1, acquired_ns=instants[k])
    running.wait_idle()
    (cube,) = running.cubes(camera)
    assert list(cube.rows["CNT0"]) == list(range(6, 13))


def test_an_instant_left_behind_by_somebody_does_not_count(
    running: RunProcess, camera: Camera
) -> None:
    running.fps["starttime"] = time.time_ns() - 3_600_000_000_000
    running.save()
    camera.send(3)
    running.wait_frames(3)
    running.pause()
    assert lengths(running.cubes(camera)) == [3]


def test_pretrigger_saves_frames_from_before_out_of_the_ring(
    running: RunProcess, camera: Camera
) -> None:
    now_ns = time.time_ns()
    for k in range(10):  # of the last 10 s, one a second
        camera.send(1, acquired_ns=now_ns - (10 - k) * 1_000_000_000)
    running.fps["pretrigger"] = 4.5
    running.save()
    camera.send(1, acquired_ns=time.time_ns())
    running.wait_frames(5)
    running.pause()
    (cube,) = running.cubes(camera)
    assert list(cube.rows["CNT0"]) == [7, 8, 9, 10, 11]
    assert running.fps["lost"] == 0


# -- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_in_mid_cube_loses_nothing(
    running: RunProcess, camera: Camera, number: int
) -> None:
    running.save()
    camera.send(60)
    running.stop(number)
    assert lengths(running.cubes(camera)) == [60]
    fps = running.fps
    assert fps["state"] == "stopped"
    assert fps["saveON"] is False
    assert not fps.status() & Status.RUN
    # A terminal that went away told nobody to end: shown as dead, it may be started again.
    should_run = bool(fps.status() & Status.CMDRUN)
    assert should_run == (number == signal.SIGHUP)


def test_a_killed_logger_can_be_started_again_and_its_files_stay(
    running: RunProcess, camera: Camera
) -> None:
    fps = running.fps
    fps["cubesize"] = 5
    running.save()
    camera.send(12)
    wait_until(lambda: len(running.files()) == 2)
    running.process.kill()
    running.process.wait()
    assert loggers.look("cam1").state == "dead"
    running.start()
    assert fps["saveON"] is False
    camera.send(3)
    running.save()
    camera.send(4)
    running.wait_frames(4)
    running.pause()
    assert lengths(checked(running.files(), camera)) == [5, 5, 4]
    assert hidden_files(running.folder)  # two frames that can be recovered


def test_who_sees_a_new_run_process_sees_nothing_of_the_one_before(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an order is given too early, is forgotten, and seems to have been carried out."""
    seen: dict[str, Any] = {}

    class Recorded(Exception):
        pass

    def look(fps: FPS) -> None:
        seen.update({key: fps[key] for key in ("state", "session", "firstcnt0", "saveON")})
        raise Recorded

    with names.make_logger_fps("cam1") as fps:
        for key, value in (("state", "logging"), ("session", 1), ("firstcnt0", 17)):
            fps.set(key, value, force=True)
        fps["saveON"] = True
        monkeypatch.setattr(FPS, "record_run_process", look)
        with pytest.raises(Recorded):
            LoggerProcess(fps).run(threading.Event())
    assert seen == {"state": "starting", "session": 0, "firstcnt0": 0, "saveON": False}


def test_a_second_run_process_is_refused(running: RunProcess) -> None:
    second = running._start_command(
        "fps-exec", "-n", running.fps.name, "streamFITSlog _RUNSTART_ cam1"
    )
    errors = second.communicate(timeout=PATIENCE_S)[1]
    assert second.returncode == 2
    assert "runs already" in errors
    assert running.fps.run_running()


@pytest.mark.parametrize("how", ["removed", "truncated", "replaced"])
def test_losing_its_fps_ends_the_logger_with_all_frames_on_disk(
    running: RunProcess, camera: Camera, how: str
) -> None:
    running.save()
    camera.send(9)
    running.wait_frames(9)
    path = running.fps.path
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, 70_000)
    else:
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
    output = running.end()
    assert "logging ends" in output
    assert lengths(running.cubes(camera)) == [9]


def test_a_missing_stream_is_one_line(
    start_command: Any, tmp_path: Path, shm_dir: Path
) -> None:
    process = RunProcess(start_command, "absent", tmp_path)
    line = "streamFITSlog _RUNSTART_ absent"
    command = start_command("fps-exec", "-n", process.fps.name, line)
    errors = command.communicate(timeout=PATIENCE_S)[1]
    assert command.returncode == 2
    assert errors.count("\n") == 1
    assert "absent" in errors
    process.fps.close()


def test_the_rate_of_the_stream_is_measured_while_nothing_is_saved(
    running: RunProcess, camera: Camera
) -> None:
    now_ns = time.time_ns()
    for k in range(40):
        camera.send(1, acquired_ns=now_ns + k * 20_000_000)
        wait_until(lambda n=k: running.fps["newestcnt0"] >= n)
    wait_until(lambda: running.fps["newestcnt0"] == 40)
    assert running.fps["rate"] == pytest.approx(50.0, rel=1e-3)
    assert running.fps["framebytes"] == 8 * 9 * 2
