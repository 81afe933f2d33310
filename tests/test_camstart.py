"""camstart, camstop and camstatus on one machine, with real tmux: what runs, and what becomes
of it when something dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import path_without
from cube_checks import check_cubes
from flow_room import CONFIG, FlowRoom, flow_room
from private_tmux import tmux

from vampires.run_folder import RunFolder
from vampires.simulated_sky import frame_pool

SESSIONS = {"vcam1_fgrab", "vcam1_ctrl", "streamFITSlog-vcam1"}
RECORDED = Path(__file__).parent / "data" / "fits" / "aux"
NEAR = "127.0.0.2"  # another address of this machine: as a host, not this one


@pytest.fixture
def room(shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowRoom]:
    with flow_room(shm_dir, monkeypatch) as room:
        yield room


def sessions() -> set[str]:
    return set(tmux("list-sessions", "-F", "#{session_name}").split())


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


# -- start, look, stop ------------------------------------------------------------------------


def test_a_camera_runs_with_prompt_and_logger_until_it_is_stopped(room: FlowRoom) -> None:
    assert "vcam1 runs in ONEARC, 184 x 184" in room.ok("camstart", "vcam1")
    assert sessions() == SESSIONS
    room.wait_frames()
    state = room.logger()
    assert (state.state, state.saving) == ("idle", False)
    parts = room.parts()
    assert set(parts) == SESSIONS
    assert {part["state"] for part in parts.values()} == {"running"}
    assert {part["restarts"] for part in parts.values()} == {0}
    assert "vcam1_fgrab" in room.ok("camstart")  # without a camera: what runs
    room.ok("camstatus")
    assert room.ok("camstop", "vcam1") == "vcam1 has ended\n"
    assert sessions() == set()
    assert not (room.shm_dir / "vcam1.im.shm").exists()
    room.wait(lambda: not room.processes(), "all has ended")
    assert room.ok("camstop", "all").count("did not run") == 3


def test_the_pages_logging_session_works_after_camstart(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1", "vcam2")
    room.ok("vampires_preplog", "--yes", "-n", "20")
    room.ok("vampires_startlog")
    room.wait(lambda: room.logger().frames > 30, "frames saved")
    room.ok("vampires_pauselog", "--wait")
    room.ok("vampires_stoplog")
    room.ok("vampires_stoplog", "--kill")
    for number in (1, 2):
        files = sorted(map(str, room.data.rglob(f"vcam{number}_*.fits")))
        cubes = check_cubes(files, frame_pool("sky", "ONEARC", number))
        assert sum(cube.number("NAXIS3") for cube in cubes) >= 40
    room.ok("camstop", "all")


def test_a_camera_without_number_is_not_logged(room: FlowRoom) -> None:
    room.ok("camstart", "vpupcam")
    assert sessions() == {"vpupcam_fgrab", "vpupcam_ctrl"}
    assert room.camera("vpupcam")["shape"] == [64, 96]
    room.ok("camstop", "all")


def test_a_second_start_is_a_clean_one_and_flushes_the_log_first(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.ok("vampires_startlog", "-c", "1")
    room.wait(lambda: room.logger().frames > 10, "frames saved")
    before = room.process_of("vcam1_fgrab")
    room.ok("camstart", "vcam1", "-m", "TWOARC")
    assert room.process_of("vcam1_fgrab") != before
    assert room.camera()["shape"] == [360, 360]
    assert not room.logger().saving
    files = sorted(map(str, room.data.rglob("vcam1_*.fits")))
    (cube,) = check_cubes(files, frame_pool("sky", "ONEARC", 1))
    assert cube.number("NAXIS3") > 10
    assert room.parts()["vcam1_fgrab"]["restarts"] == 0
    room.ok("camstop", "all")


def test_a_mode_change_in_mid_log_loses_no_frame(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.ok("vampires_startlog", "-c", "1")
    room.wait(lambda: room.logger().frames > 10, "frames saved")
    room.ok("set_crop", "-c", "1", "TWOARC")
    room.wait(lambda: room.logger().files >= 1, "the cube of before")
    room.wait(lambda: room.logger().cube_frames > 10, "frames of the new crop")
    room.ok("vampires_pauselog", "-c", "1")
    first, *others = sorted(map(str, room.data.rglob("vcam1_*.fits")))
    check_cubes([first], frame_pool("sky", "ONEARC", 1))
    check_cubes(others, frame_pool("sky", "TWOARC", 1))
    assert room.logger().lost == 0
    room.ok("camstop", "all")


# -- deaths -----------------------------------------------------------------------------------


def test_whatever_is_killed_runs_again_and_that_is_told(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    for part in ("vcam1_fgrab", "vcam1_ctrl"):
        killed = room.process_of(part)
        kill(killed)
        room.wait(
            lambda part=part, killed=killed: room.process_of(part) != killed, f"{part} again"
        )
        # tmux does not always know how a process ended.
        assert re.search(f"{part}: (killed by SIGKILL|ended).*; again in", room.log())
    room.wait_frames()
    parts = room.parts()
    assert (parts["vcam1_fgrab"]["restarts"], parts["vcam1_ctrl"]["restarts"]) == (1, 1)
    room.ok("camstop", "all")


def test_what_was_set_is_still_so_after_the_camera_died(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.ok("set_crop", "-c", "1", "TWOARC")
    room.ok("set_fps", "-c", "1", "80")
    killed = room.process_of("vcam1_fgrab")
    kill(killed)
    room.wait(lambda: room.process_of("vcam1_fgrab") != killed, "the camera again")
    room.wait(lambda: room.camera().get("pid") != killed, "its status")
    room.wait_frames()
    assert room.camera()["shape"] == [360, 360]
    assert room.camera()["settings"]["fps"] == 80.0
    room.ok("camstop", "all")


def test_a_logger_that_is_killed_saves_again(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.ok("vampires_startlog", "-c", "1")
    room.wait(lambda: room.logger().frames > 5, "frames saved")
    # Seen saving by the supervisor, which looks four times a second.
    room.wait(lambda: room.logger().frames > 40, "more frames saved")
    kill(_run_process(room))
    room.wait(lambda: room.logger().state == "logging", "saving again")
    room.wait(lambda: "saving again" in room.log(), "it is told")
    room.ok("vampires_pauselog", "-c", "1")
    assert room.parts()["streamFITSlog-vcam1"]["restarts"] == 1
    room.ok("camstop", "all")


def test_a_logger_that_was_stopped_stays_so(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.ok("vampires_stoplog", "-c", "1")
    room.wait_frames(more=30)
    assert room.logger().state == "stopped"
    assert "died" not in room.log()
    room.ok("camstop", "all")


def _run_process(room: FlowRoom) -> int:
    from vampires.logger_parameters import open_logger_fps

    with open_logger_fps("vcam1", room.shm_dir) as fps:
        return fps.header().runpid


def test_all_is_back_after_the_tmux_server_died(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.ok("vampires_startlog", "-c", "1")
    room.wait(lambda: room.logger().frames > 40, "frames saved")
    camera = room.process_of("vcam1_fgrab")
    tmux("kill-server")
    room.wait(lambda: room.process_of("vcam1_fgrab") != camera, "the camera again")
    room.wait_logger(saving=True)
    assert sessions() == SESSIONS
    room.ok("vampires_pauselog", "-c", "1")
    room.ok("camstop", "all")


def _supervisors(room: FlowRoom) -> dict[bool, int]:
    """Process ids: the one that works (False), the one that waits (True)."""
    state = room.run_folder.read("supervisor") or {}
    works = int(state.get("pid", 0))
    others = [
        pid
        for pid in room.processes()
        if b"vampires.commands.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return {False: works, True: next((pid for pid in others if pid != works), 0)}


@pytest.mark.parametrize("standby", [False, True])
def test_a_supervisor_that_is_killed_is_replaced(room: FlowRoom, standby: bool) -> None:
    room.ok("camstart", "vcam1")
    room.wait(lambda: all(_supervisors(room).values()), "two supervisors")
    camera = room.process_of("vcam1_fgrab")
    killed = _supervisors(room)[standby]
    kill(killed)
    room.wait(
        lambda: all(_supervisors(room).values()) and killed not in _supervisors(room).values(),
        "two supervisors again",
    )
    assert room.process_of("vcam1_fgrab") == camera  # which went on meanwhile
    room.ok("camstop", "all")
    room.wait(lambda: not room.processes(), "all has ended")


def test_a_camera_looks_after_its_supervisors(room: FlowRoom) -> None:
    room.ok("camstart", "vcam1")
    room.wait(lambda: all(_supervisors(room).values()), "two supervisors")
    killed = _supervisors(room).values()
    camera = room.process_of("vcam1_fgrab")
    for pid in (_supervisors(room)[True], _supervisors(room)[False]):
        kill(pid)
    room.wait(
        lambda: (
            all(_supervisors(room).values())
            and not set(killed) & set(_supervisors(room).values())
        ),
        "two supervisors again",
    )
    assert room.process_of("vcam1_fgrab") == camera
    room.ok("camstop", "all")


def test_a_source_that_fails_says_why_and_comes_when_it_can(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = 'source = "replay"\nreplay = {{ path = "{home}/cubes", fps = 50.0 }}'
    config = CONFIG.replace("sim = {{ sensor = [64, 96] }}", replayed)
    with flow_room(shm_dir, monkeypatch, config) as room:
        why = room.refused("camstart", "vpupcam", status=1)
        assert str(room.home / "cubes") in why
        part = room.parts()["vpupcam_fgrab"]
        assert str(room.home / "cubes") in part["error"]
        assert room.run("camstatus").returncode == 1
        (room.home / "cubes").mkdir()
        for file in RECORDED.glob("vgold_*"):
            shutil.copy(file, room.home / "cubes")
        room.wait_frames("vpupcam")
        room.ok("camstop", "all")


# -- mistakes ---------------------------------------------------------------------------------


def test_mistakes_are_one_line(room: FlowRoom, tmp_path: Path) -> None:
    assert "cameras there: 1 (vcam1), 2 (vcam2), vpupcam" in room.refused("camstart", "vcam3")
    assert "expected one of FULL, STANDARD" in room.refused("camstart", "vcam1", "-m", "MBJ")
    assert "expected one of FULL" in room.refused("camstart", "vpupcam", "-m", "MBI")
    path = path_without("tmux", tmp_path / "bin")
    without_tmux = room.refused("camstart", "vcam1", status=1, PATH=path)
    assert "tmux is not installed" in without_tmux
    room.config.write_text("[hosts.here]\naddres = 3\n")
    assert "addres" in room.run("camstart", "vcam1").stderr
    assert not room.processes()


def test_a_session_of_somebody_else_is_left_alone(room: FlowRoom) -> None:
    tmux("new-session", "-d", "-s", "vcam1_ctrl", "sleep 1000")
    why = room.refused("camstart", "vcam1", status=1)
    assert "tmux kill-session -t vcam1_ctrl" in why
    shown = tmux("list-panes", "-t", "=vcam1_ctrl", "-F", "#{pane_start_command}")
    assert "sleep 1000" in shown
    room.ok("camstop", "all")
    assert sessions() == {"vcam1_ctrl"}


def test_of_two_who_start_a_camera_at_once_one_does(room: FlowRoom) -> None:
    both = [room.start("camstart", "vcam1") for _ in range(2)]
    ended: list[tuple[int, str]] = []
    for process in both:
        with process:
            _, err = process.communicate()
            ended.append((process.returncode, err))
    (first, _), (second, why) = sorted(ended)
    assert first == 0
    assert second == 0 or "somebody else is starting or stopping vcam1" in why
    assert set(room.parts()) == SESSIONS
    room.ok("camstop", "all")


def test_what_a_process_may_not_have_is_told(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace("sim = {{ sensor", 'cpus = "4000"\nsim = {{ sensor')
    with flow_room(shm_dir, monkeypatch, config) as room:
        room.ok("camstart", "vpupcam")
        assert "none of the CPUs 4000 is there" in room.ok("camstatus")
        room.ok("camstop", "all")


# -- links ------------------------------------------------------------------------------------


LINKED = (
    CONFIG
    + f"""
[hosts.there]
address = "{NEAR}"

[links.vcam1_tcp]
stream = "vcam1"
kind = "tcp"
sender = "here"
receiver = "there"
sender_address = "127.0.0.1"
port = 30999
"""
)


def test_the_whole_sensor_has_no_fast_link(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flow_room(shm_dir, monkeypatch, LINKED) as room:
        room.ok("camstart", "vcam1", "--local")
        assert "vcam1_tcp" in sessions()
        room.ok("set_crop", "-c", "1", "FULL")
        room.wait(lambda: room.parts()["vcam1_tcp"]["state"] == "held", "no fast link")
        assert "vcam1_tcp" not in sessions()
        room.ok("set_crop", "-c", "1", "ONEARC")
        room.wait(lambda: room.parts()["vcam1_tcp"]["state"] == "running", "the link again")
        room.ok("camstop", "vcam1", "--local")
        assert sessions() == set()


def test_links_can_be_left_out(shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with flow_room(shm_dir, monkeypatch, LINKED) as room:
        room.ok("camstart", "vcam1", "--local", "--no-links")
        assert sessions() == SESSIONS
        room.ok("camstop", "vcam1", "--local")


def test_a_host_that_does_not_answer_does_not_stop_the_rest(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LINKED.replace(f'address = "{NEAR}"', f'address = "{NEAR}"\nport = 1')
    with flow_room(shm_dir, monkeypatch, config) as room:
        done = room.run("camstart", "vcam1")
        assert done.returncode == 1
        assert "host there" in done.stderr
        room.wait_frames()
        assert room.parts()["vcam1_fgrab"]["state"] == "running"
        status = room.run("camstatus")
        assert status.returncode == 1
        assert "host there" in status.stdout
        assert room.run("camstop", "all").returncode == 1
        assert sessions() == set()


def test_the_lock_of_a_run_folder_ends_with_its_holder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).make()
    with run.locked("x", 0.0), pytest.raises(TimeoutError):
        run.lock("x", 0.0)
    with run.locked("x", 0.0):
        pass
