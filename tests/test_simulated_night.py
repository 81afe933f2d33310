"""A small simulated night, recorded with the commands that observers type, is one that the
archive tools and the reduction can take: with losses, a killed logger, other crops, another
exposure time, and darks.

The night is recorded once; the tests look at its files alone (reduction_checks,
reduction_truth).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flow_room import FlowRoom, flow_room
from reduction_checks import (
    RawCube,
    account_faults,
    calibration_faults,
    crop_of,
    cube_faults,
    read_cubes,
    sidecar_of,
)
from reduction_truth import (
    frames_of,
    pairing_faults,
    pairs,
    schedule_faults,
    star_faults,
    state_faults,
)
from stream_folder import stream_folder

from vampires.logger_parameters import open_logger_fps
from vampires.stream import Stream

pytestmark = pytest.mark.timeout(900)

CAMERAS = ("vcam1", "vcam2")
PARTS = ("evening", "slow", "multiband", "earlier")
CUBE_FRAMES = 200
MULTIBAND_FRAMES = 4
RING_FRAMES = 64  # of the streams, by default
FRAMES_LOST = 3  # exit status
EARLIER_DAY = "2024-06-01"

CONFIG = """\
[hosts.here]
address = "local"

[cameras.vcam1]
number = 1
host = "here"
mode = "ONEARC"
fps = 100.0
{sim}

[cameras.vcam2]
number = 2
host = "here"
mode = "ONEARC"
fps = 100.0
{sim}

[header]
constants = "{constants}"
period_s = 0.2

[logging]
directory = "{{home}}/data"
archive_directory = "{{home}}/archive"
ring_memory = "64MiB"
"""

CONSTANTS = Path(__file__).parent / "data" / "night_header.toml"


@dataclass
class Change:
    """A keyword that was changed while frames were saved. typed_us, done_us: when the command
    began and ended."""

    keyword: str
    value: object
    typed_us: int
    done_us: int


@dataclass
class Night:
    """The recorded night; its parts are folders below root.

    evening: readout mode FAST, two crops, one saving in which all happens that may; slow:
    readout mode SLOW; multiband: MBI and MBI_REDUCED; earlier: MBI as on an earlier day;
    packed: the evening of vcam1, compressed. changes: those of the evening.
    """

    root: Path
    changes: list[Change] = field(default_factory=list)

    def cubes(self, part: str, stream: str, ending: str = ".fits") -> list[RawCube]:
        """In the order of their frames."""
        return read_cubes(self.root / part, stream, ending)

    def all_cubes(self, part: str) -> list[RawCube]:
        """Of both cameras."""
        return [cube for stream in CAMERAS for cube in self.cubes(part, stream)]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    night = Night(tmp_path_factory.mktemp("night"))
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        stream_folder(monkeypatch, night.root) as shm_dir,
        flow_room(shm_dir, monkeypatch, configuration()) as room,
    ):
        record(room, night)
    yield night
    shutil.rmtree(night.root)


def configuration(sim: str = "") -> str:
    """With {home} still to be filled in."""
    return CONFIG.format(sim=sim, constants=CONSTANTS)


# -- recording --------------------------------------------------------------------------------


def record(room: FlowRoom, night: Night) -> None:
    start_cameras(room)
    record_evening(room, night)
    record_slow(room, night)
    record_multiband(room, night.root / "multiband", ("MBI", "MBI_REDUCED"))
    sim = f'sim = {{{{ day = "{EARLIER_DAY}" }}}}'
    room.config.write_text(configuration(sim).format(home=room.home))
    start_cameras(room)
    record_multiband(room, night.root / "earlier", ("MBI",))
    room.ok("camstop", "all")
    room.ok("vampires-recover", "--apply", night.root / "evening")
    for folder in night.root.glob("evening/*/vcam1"):
        place = night.root / "packed" / folder.relative_to(night.root / "evening")
        place.parent.mkdir(parents=True)
        room.ok("vampires-archive", folder, "--to", place)


def start_cameras(room: FlowRoom) -> None:
    room.ok("camstart", *CAMERAS)
    room.ok("set_trigger", "enable")
    room.ok("vampires_object", "AB Aur")
    room.wait(lambda: all(follows_database(name) for name in CAMERAS), "the database's values")


def follows_database(name: str) -> bool:
    with Stream.open(name) as stream:
        return str(stream.keywords["OBS-MOD"]).startswith("IPOL")


def record_evening(room: FlowRoom, night: Night) -> None:
    """One saving of both cameras, with all that happens in a night."""
    folder = night.root / "evening"
    room.ok("vampires_preplog", "-n", CUBE_FRAMES, "-z", -1, "--dir", folder, "-t", "OBJECT")
    room.ok("vampires_startlog")
    wait_saved(room, 2 * CUBE_FRAMES)
    lose_frames(room, "vcam2")
    kill_logger(room, "vcam1")
    change(room, night, ("EXPTIME", 0.004), "set_tint", 0.004)
    wait_saved(room, 60)
    change(room, night, ("PRD-RNG1", 268), "set_crop", "HALFARC")
    wait_saved(room, 60)
    change(room, night, ("DATA-TYP", "DARK"), "vampires_datatype", "DARK")
    wait_saved(room, 60)
    change(room, night, ("PRD-RNG1", 184), "set_crop", "ONEARC")
    wait_saved(room, 60)
    assert room.run("vampires_pauselog").returncode == FRAMES_LOST


def record_slow(room: FlowRoom, night: Night) -> None:
    room.ok("set_readout", "slow")
    room.ok("set_fps", 50)
    save_cubes(room, night.root / "slow", 80, "OBJECT", cubes=2)


def record_multiband(room: FlowRoom, folder: Path, modes: tuple[str, ...]) -> None:
    for mode in modes:
        room.ok("set_crop", mode)
        room.ok("set_fps", 5)
        save_cubes(room, folder, MULTIBAND_FRAMES, "OBJECT")


def save_cubes(room: FlowRoom, folder: Path, frames: int, kind: str, cubes: int = 1) -> None:
    """Saves so many cubes of both cameras."""
    room.ok("vampires_preplog", "-n", frames, "-z", cubes, "--dir", folder, "-t", kind)
    room.ok("vampires_startlog")
    room.wait(lambda: all(room.logger(n).files == cubes for n in CAMERAS), "the cubes")
    room.wait(lambda: all(room.logger(n).state == "idle" for n in CAMERAS), "the end")


def wait_saved(room: FlowRoom, more: int) -> None:
    """Until both loggers have saved so many frames more."""
    before = {name: room.logger(name).newest_cnt0 for name in CAMERAS}

    def saved(name: str) -> bool:
        state = room.logger(name)
        there = state.newest_cnt0 - (before[name] if state.newest_cnt0 >= before[name] else 0)
        return state.state == "logging" and there >= more

    room.wait(lambda: all(map(saved, CAMERAS)), f"{more} frames saved")


def change(room: FlowRoom, night: Night, made: tuple[str, object], *command: object) -> None:
    """Types a command that changes a keyword of both streams."""
    typed_us = time.time_ns() // 1000
    room.ok(str(command[0]), *command[1:])
    night.changes.append(Change(*made, typed_us, time.time_ns() // 1000))


def lose_frames(room: FlowRoom, name: str) -> None:
    """Halts a logger until the stream's ring has come round."""
    lost, at = room.logger(name).lost, room.camera(name)["frames"]
    pid = run_process(room, name)
    os.kill(pid, signal.SIGSTOP)
    try:
        room.wait(lambda: room.camera(name)["frames"] > at + 2 * RING_FRAMES, "frames pass")
    finally:
        os.kill(pid, signal.SIGCONT)
    room.wait(lambda: room.logger(name).lost > lost, "frames are lost")


def kill_logger(room: FlowRoom, name: str) -> None:
    """Kills a logger in the middle of a cube; the supervisor starts it again."""
    room.wait(lambda: 60 <= room.logger(name).cube_frames <= 120, "half a cube")
    os.kill(run_process(room, name), signal.SIGKILL)
    room.wait(lambda: "saving again" in room.log(), "it saves again")
    room.wait(lambda: room.logger(name).state == "logging", "its frames")


def run_process(room: FlowRoom, name: str) -> int:
    with open_logger_fps(name, room.shm_dir) as fps:
        return int(fps.header().runpid)


# -- what is in the files ---------------------------------------------------------------------


@pytest.mark.parametrize("part", [*PARTS, "packed"])
def test_every_cube_is_as_its_readers_need_it(night: Night, part: str) -> None:
    ending = ".fits.fz" if part == "packed" else ".fits"
    for stream in CAMERAS if part != "packed" else ("vcam1",):
        cubes = night.cubes(part, stream, ending)
        assert [fault for cube in cubes for fault in cube_faults(cube)] == []
        assert cubes


def test_every_cube_of_a_camera_is_packed(night: Night) -> None:
    def stems(part: str, ending: str) -> list[Path]:
        root = night.root / part
        found = root.rglob(f"vcam1/*{ending}")
        return sorted(sidecar_of(path).relative_to(root) for path in found)

    assert stems("packed", ".fits.fz") == stems("evening", ".fits")


def test_frames_in_no_file_are_declared(night: Night) -> None:
    for stream in CAMERAS:
        for part in ("evening", "slow"):
            assert list(account_faults(night.cubes(part, stream))) == []
    assert sum(cube.header["NLOST"] for cube in night.cubes("evening", "vcam2")) > 0


def test_a_killed_logger_left_a_cube(night: Night) -> None:
    recovered = [cube for cube in night.all_cubes("evening") if "RECOVERD" in cube.header]
    assert [cube.path.parent.name for cube in recovered] == ["vcam1"]
    assert recovered[0].frames > 30


@pytest.mark.parametrize("part", ["evening", "slow"])
def test_frames_of_a_common_trigger_are_paired(night: Night, part: str) -> None:
    one, two = (frames_of(night.cubes(part, stream)) for stream in CAMERAS)
    for frames in (one, two):
        assert list(schedule_faults(frames)) == []
    assert list(pairing_faults(one, two)) == []
    assert len(pairs(one.acquired_us, two.acquired_us)) > 150


@pytest.mark.parametrize("part", ["evening", "slow"])
@pytest.mark.parametrize("stream", CAMERAS)
def test_times_tell_the_state_of_the_crystal(night: Night, part: str, stream: str) -> None:
    frames = frames_of(night.cubes(part, stream))
    assert list(state_faults(frames)) == []
    assert len(frames.triggers) > 150


def test_the_darks_fit_the_crops(night: Night) -> None:
    cubes = night.all_cubes("evening")
    assert list(calibration_faults(cubes)) == []
    assert len({crop_of(cube) for cube in cubes}) == 4  # two crops of two cameras
    assert {cube.header["DATA-TYP"] for cube in cubes} == {"OBJECT", "DARK"}


def test_headers_say_what_is_true_of_each_frame(night: Night) -> None:
    """A frame that was taken after a change is in a cube that says so; of one that was read
    late, after newer frames had come, the logger cannot know."""
    ends_us = [change.typed_us for change in night.changes[1:]]
    for change, until_us in zip(night.changes, [*ends_us, time.time_ns() // 1000], strict=True):
        told = [
            cube.header[change.keyword]
            for cube in night.all_cubes("evening")
            for taken_us, late in zip(cube.acquired_us, cube.late, strict=True)
            if change.done_us < taken_us < until_us and not late
        ]
        assert len(told) > 2
        assert set(told) == {change.value}, change


def test_the_observing_mode_follows_camera_and_database(night: Night) -> None:
    found = {part: {cube.header["OBS-MOD"] for cube in night.all_cubes(part)} for part in PARTS}
    assert found == {
        "evening": {"IPOL"},
        "slow": {"IPOL"},
        "multiband": {"IPOL_MBI", "IPOL_MBIR"},
        "earlier": {"IPOL_MBI"},
    }


@pytest.mark.parametrize("part", ["multiband", "earlier"])
def test_stars_are_where_the_reduction_looks_for_them(night: Night, part: str) -> None:
    cubes = night.all_cubes(part)
    assert [fault for cube in cubes for fault in star_faults(cube)] == []
    assert len(cubes) == 2 * (2 if part == "multiband" else 1)
