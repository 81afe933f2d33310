"""Processes of an FPS are started, seen and stopped through a real tmux."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from foreign_fps import ForeignFPS
from foreign_stream import ForeignStream
from private_tmux import private_tmux, tmux

from vampires import process_id
from vampires import tmux as tmux_module
from vampires.fps import FPS, NewParameter, list_fps
from vampires.fps.layout import ParameterType, Signal, Status
from vampires.fps_control import ActionFailed, FPSControl, Light
from vampires.logger_parameters import logger_parameters
from vampires.long_directories import short_form

ALIVE, IDLE, DEAD = Light.ALIVE, Light.IDLE, Light.DEAD
TIMEOUT_S = 20.0
NAME = "streamFITSlog-cam1"


@pytest.fixture
def home(shm_dir, monkeypatch) -> Iterator[Path]:
    """A tmux of one's own; the home directory of its shells."""
    with private_tmux(monkeypatch) as folder:
        yield folder


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A directory in PATH with standin-exec, stubborn-exec, failing-exec and silent-exec."""
    folder = tmp_path / "bin"
    folder.mkdir()
    source = Path(__file__).with_name("standin_exec.py").read_text()
    for name in ("standin", "stubborn", "failing", "silent"):
        program = folder / f"{name}-exec"
        program.write_text(f"#!{sys.executable} -SE\n{source}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def workdir(tmp_path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def make(home, programs, shm_dir, workdir):
    """make(name, program, function) -> (FPS, its control): parameters of a logger of a stream
    that is there; run by standin-exec."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(ForeignStream.create(shm_dir, "cam1"))

        def made(
            name: str = NAME, program: str = "standin", function: str = "streamFITSlog"
        ) -> tuple[FPS, FPSControl]:
            parameters = logger_parameters("cam1")
            fps = stack.enter_context(
                FPS.create(
                    name,
                    parameters,
                    callprogname=program,
                    callfuncname=function,
                    workdir=workdir,
                    shm_dir=shm_dir,
                )
            )
            fps["dirname"] = short_form(workdir, shm_dir)
            return fps, FPSControl(name)

        yield made


def standing_in(make, name: str = NAME, program: str = "standin") -> tuple[FPS, FPSControl]:
    """One whose conf process is the stand-in's too, which starts faster and takes any name."""
    return make(name, program, "standin")


def await_true(condition: Callable[[], object]) -> None:
    """Until it is so, where nothing wakes who waits."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def windows(name: str = NAME) -> list[str]:
    return tmux("list-windows", "-t", f"={name}", "-F", "#{window_name}").split()


def calls(workdir: Path, action: str, program: str = "standin") -> dict:
    return json.loads((workdir / f"{program}.{action}.json").read_text())


def started(control: FPSControl) -> None:
    control.tmux_start()
    control.conf_start()
    control.run_start()


# -- the way of a logger ----------------------------------------------------------------------


def test_an_fps_is_started_seen_and_stopped(make, workdir):
    fps, control = make()
    assert control.lights() == (IDLE, IDLE, IDLE)
    assert control.numbers() == (0, 0, 0)

    control.tmux_start()
    assert windows() == ["ctrl", "conf", "run"]
    assert control.lights() == (ALIVE, IDLE, IDLE)
    assert fps.status() & (Status.TMUXCTRL | Status.TMUXCONF | Status.TMUXRUN)

    control.conf_start()
    assert control.lights() == (ALIVE, ALIVE, IDLE)
    assert fps.status() & Status.CONF
    assert fps.status() & Status.CMDCONF
    assert fps.status() & Status.CHECKOK, fps.messages()
    assert not fps.signal() & Signal.CHECKED

    control.run_start()
    assert control.lights() == (ALIVE, ALIVE, ALIVE)
    assert fps.status() & Status.CMDRUN
    session, conf, run = control.numbers()
    assert process_id.is_running(session, 0)
    assert (conf, run) == (fps.header().confpid, fps.header().runpid)

    control.run_stop()
    assert control.lights() == (ALIVE, ALIVE, IDLE)
    assert not process_id.is_running(run, 0)
    assert not fps.status() & (Status.CMDRUN | Status.RUN)

    control.conf_stop()
    assert control.lights() == (ALIVE, IDLE, IDLE)
    assert not process_id.is_running(conf, 0)
    assert not fps.status() & (Status.CMDCONF | Status.CONF)

    control.tmux_stop()
    assert control.lights() == (IDLE, IDLE, IDLE)
    assert windows() == []
    assert control.numbers() == (0, conf, run)  # as milk leaves them


def test_the_programs_are_called_as_milk_calls_them(make, workdir, shm_dir):
    fps, control = make()
    fps["procinfo.cset"] = "camera"
    fps["procinfo.taskset"] = "0-1"
    fps["procinfo.NBthread"] = 3
    started(control)
    conf = calls(workdir, "CONFSTART")
    assert conf["argv"] == ["-n", NAME, " streamFITSlog _CONFSTART_ cam1"]
    assert conf["environment"]["MILK_FPSPROCINFO"] == "1"
    run = calls(workdir, "RUNSTART")
    line = 'csetpmove camera; tsetpmove "0-1"; streamFITSlog _RUNSTART_ cam1'
    assert run["argv"] == ["-n", NAME, line]
    assert run["environment"] == {
        "MILK_FPSPROCINFO": "1",
        "OMP_NUM_THREADS": "3",
        "MILK_SHM_DIR": str(shm_dir),
    }
    assert run["cwd"] == conf["cwd"] == str(workdir)
    assert (workdir / fps.header().datadir).is_dir()


def test_all_actions_may_be_done_twice(make):
    fps, control = standing_in(make)
    for _ in range(2):
        control.tmux_start()
    for _ in range(2):
        control.conf_start()
    for _ in range(2):
        control.run_start()
    run = fps.header().runpid
    control.run_start()
    assert fps.header().runpid == run
    for _ in range(2):
        control.run_stop()
    for _ in range(2):
        control.conf_stop()
    for _ in range(2):
        control.tmux_stop()
    started(control)
    assert control.lights() == (ALIVE, ALIVE, ALIVE)


def test_stopping_the_session_stops_its_processes_first(make, workdir):
    fps, control = standing_in(make)
    started(control)
    _, conf, run = control.numbers()
    control.tmux_stop()
    assert not process_id.is_running(conf, 0)
    assert not process_id.is_running(run, 0)
    assert not fps.status() & (Status.RUN | Status.CMDRUN)  # it ended in order
    assert windows() == []


def test_several_fps_have_sessions_of_their_own(make):
    names = [f"standin-{k}" for k in range(3)]
    made = [standing_in(make, name) for name in names]
    for _, control in made:
        started(control)
    made[1][1].run_stop()
    runs = [control.lights()[2] for _, control in made]
    assert runs == [ALIVE, IDLE, ALIVE]
    made[0][1].tmux_stop()
    assert made[2][1].lights() == (ALIVE, ALIVE, ALIVE)


def test_the_conf_process_of_a_logger_keeps_it_from_running_when_its_values_are_bad(make):
    fps, control = make()
    control.tmux_start()
    control.conf_start()
    fps["cubesize"] = 0
    with pytest.raises(ActionFailed, match="cubesize is 0"):
        control.run_start()
    assert not fps.status() & Status.CMDRUN
    assert control.lights()[2] is IDLE
    fps["cubesize"] = 5
    control.run_start()
    assert control.lights()[2] is ALIVE


def test_values_are_checked_when_that_is_asked_for(make):
    fps, control = make()
    control.tmux_start()
    control.conf_start()
    for size in (0, 5, 0):
        with ForeignFPS(fps.path) as mapped:
            mapped.set_like_pymilk("cubesize", size)
        control.conf_update()
        assert bool(fps.status() & Status.CHECKOK) == (size != 0)


# -- what dies --------------------------------------------------------------------------------


def test_a_killed_run_process_is_red_and_starts_again(make):
    fps, control = standing_in(make)
    started(control)
    run = fps.header().runpid
    os.kill(run, signal.SIGKILL)
    assert process_id.wait_for_end(run, 0, TIMEOUT_S)
    assert control.lights() == (ALIVE, ALIVE, DEAD)
    control.run_start()
    assert control.lights() == (ALIVE, ALIVE, ALIVE)
    assert fps.header().runpid != run


def test_a_killed_run_process_that_is_stopped_is_gray(make):
    fps, control = standing_in(make)
    started(control)
    run = fps.header().runpid
    os.kill(run, signal.SIGKILL)
    assert process_id.wait_for_end(run, 0, TIMEOUT_S)
    control.run_stop()
    assert control.lights() == (ALIVE, ALIVE, IDLE)


def test_a_killed_conf_process_is_red_and_starts_again(make):
    fps, control = make()
    control.tmux_start()
    control.conf_start()
    conf = fps.header().confpid
    os.kill(conf, signal.SIGKILL)
    assert process_id.wait_for_end(conf, 0, TIMEOUT_S)
    assert control.lights() == (ALIVE, DEAD, IDLE)
    with pytest.raises(ActionFailed, match=r"conf process of .* does not run"):
        control.run_start()
    control.conf_start()
    assert control.lights() == (ALIVE, ALIVE, IDLE)


def test_a_process_id_that_another_process_has_now_is_red_and_never_signalled(
    make, start_python
):
    fps, control = standing_in(make)
    bystander = start_python("import signal; print('ready', flush=True); signal.pause()")
    assert bystander.stdout.readline() == "ready\n"
    with ForeignFPS(fps.path) as mapped:
        mapped.record_run(bystander.pid)
        mapped.set("runpidstarttime", 1_000_000_000, 0)
    fps.change_status(set=Status.CMDRUN)
    assert control.lights() == (IDLE, IDLE, DEAD)
    control.run_stop()
    assert bystander.poll() is None
    assert control.lights() == (IDLE, IDLE, IDLE)


def test_a_session_killed_by_hand_is_red_and_started_again(make):
    fps, control = standing_in(make)
    started(control)
    conf, run = fps.header().confpid, fps.header().runpid
    tmux("kill-session", "-t", f"={NAME}")
    for pid in (conf, run):
        assert process_id.wait_for_end(pid, 0, TIMEOUT_S)
    assert control.lights() == (DEAD, DEAD, DEAD)
    with pytest.raises(ActionFailed, match=r"there is no tmux session .*; start it first"):
        control.conf_start()
    started(control)
    assert control.lights() == (ALIVE, ALIVE, ALIVE)


def test_the_conf_process_of_a_logger_ends_in_order_with_its_session(make):
    fps, control = make()
    control.tmux_start()
    control.conf_start()
    conf = fps.header().confpid
    tmux("kill-session", "-t", f"={NAME}")
    assert process_id.wait_for_end(conf, 0, TIMEOUT_S)
    # Nobody told it to end: as its session, it should still be there.
    assert control.lights() == (DEAD, DEAD, IDLE)
    assert not fps.status() & Status.CONF


def test_a_server_killed_by_hand_is_no_obstacle(make):
    _, control = standing_in(make)
    started(control)
    tmux("kill-server")
    await_true(lambda: control.lights() == (DEAD, DEAD, DEAD))
    started(control)
    assert control.lights() == (ALIVE, ALIVE, ALIVE)


def test_a_window_closed_by_hand_is_opened_again(make):
    _, control = standing_in(make)
    control.tmux_start()
    tmux("kill-window", "-t", f"={NAME}:run")
    assert windows() == ["ctrl", "conf"]
    started(control)
    assert sorted(windows()) == ["conf", "ctrl", "run"]
    assert control.lights() == (ALIVE, ALIVE, ALIVE)


def test_a_window_that_somebody_scrolled_back_is_typed_into_all_the_same(make):
    _, control = standing_in(make)
    control.tmux_start()
    control.conf_start()
    tmux("copy-mode", "-t", f"={NAME}:run")
    assert tmux("display-message", "-p", "-t", f"={NAME}:run", "#{pane_in_mode}") == "1\n"
    control.run_start()
    assert control.lights()[2] is ALIVE


# -- what does not happen ---------------------------------------------------------------------


def actions(control: FPSControl) -> list[Callable[[], None]]:
    return [
        control.tmux_start,
        control.tmux_stop,
        control.conf_start,
        control.conf_stop,
        control.conf_update,
        control.run_start,
        control.run_stop,
        control.remove,
    ]


def test_without_the_fps_every_action_says_so(home):
    control = FPSControl("absent")
    for action in (*actions(control), control.lights, control.numbers):
        with pytest.raises(ActionFailed, match="no FPS 'absent'"):
            action()


def test_of_a_broken_fps_every_action_says_so(make):
    fps, control = standing_in(make)
    os.truncate(fps.path, 1000)
    for action in (*actions(control), control.lights, control.numbers):
        with pytest.raises(ActionFailed, match="has 1000 bytes"):
            action()
    with pytest.raises(ActionFailed, match="truncated while it was in use"):
        control.lights(fps)


def test_an_fps_truncated_while_it_is_waited_for_is_told(make):
    fps, control = standing_in(make)
    fps.record_conf_process()  # which checks nothing

    def truncate() -> None:
        await_true(lambda: fps.signal() & Signal.CHECKED)
        os.truncate(fps.path, 0)

    threading.Thread(target=truncate).start()
    with pytest.raises(ActionFailed, match="truncated while it was in use"):
        control.conf_update(TIMEOUT_S)


def test_without_tmux_what_needs_it_says_so(make, monkeypatch, tmp_path):
    fps, control = standing_in(make)
    monkeypatch.setenv("PATH", str(tmp_path))
    for action in (control.tmux_start, control.conf_start, control.tmux_stop):
        with pytest.raises(ActionFailed, match="tmux is not installed; install it"):
            action()
    assert control.lights() == (IDLE, IDLE, IDLE)
    assert not fps.status() & (Status.CMDCONF | Status.TMUXCTRL)


def test_without_a_session_nothing_is_started(make):
    fps, control = standing_in(make)
    with pytest.raises(ActionFailed, match="there is no tmux session"):
        control.conf_start()
    fps.record_conf_process()
    fps.change_status(set=Status.CHECKOK)
    fps.change_signal(clear=Signal.UPDATE | Signal.CHECKED)
    threading.Thread(target=_check_once, args=(fps,)).start()
    with pytest.raises(ActionFailed, match="there is no tmux session"):
        control.run_start()
    assert not fps.status() & (Status.CMDCONF | Status.CMDRUN)
    assert control.lights() == (IDLE, ALIVE, IDLE)


def _check_once(fps: FPS) -> None:
    await_true(lambda: fps.signal() & Signal.CHECKED)
    fps.change_signal(clear=Signal.UPDATE | Signal.CHECKED)


def test_without_a_conf_process_nothing_is_checked_nor_run(make):
    _, control = standing_in(make)
    control.tmux_start()
    for action in (control.run_start, control.conf_update):
        with pytest.raises(ActionFailed, match=f"the conf process of {NAME} does not run"):
            action()


def test_a_program_that_is_missing_is_told_from_its_window(make):
    _, control = standing_in(make, program="absent")
    control.tmux_start()
    with pytest.raises(ActionFailed, match=r"did not start; .* absent-exec: command not found"):
        control.conf_start(timeout_s=1.0)
    assert control.lights()[1] is DEAD


def test_a_program_that_cannot_run_is_told_from_its_window_at_once(make):
    _, control = standing_in(make, program="failing")
    control.tmux_start()
    control.conf_start()
    with pytest.raises(ActionFailed, match="the camera is on fire"):
        control.run_start(timeout_s=TIMEOUT_S)
    assert control.lights()[2] is IDLE


def test_a_program_that_ends_at_once_is_told(make):
    _, control = standing_in(make, program="silent")
    control.tmux_start()
    control.conf_start()
    with pytest.raises(ActionFailed, match="the run process did not start"):
        control.run_start(timeout_s=0.5)
    assert control.lights()[2] is DEAD


def test_a_run_process_that_does_not_stop_keeps_its_session(make):
    fps, control = standing_in(make, program="stubborn")
    started(control)
    run = fps.header().runpid
    for stop in (control.run_stop, control.tmux_stop, control.remove):
        with pytest.raises(
            ActionFailed, match=rf"pid {run}\) was asked to stop and still runs"
        ):
            stop(timeout_s=0.1)
        assert control.lights() == (ALIVE, ALIVE, ALIVE)
    assert list_fps() == [NAME]
    os.kill(run, signal.SIGKILL)


def test_a_time_that_has_passed_is_not_waited_for_for_ever(make):
    fps, control = standing_in(make, program="stubborn")
    started(control)
    with pytest.raises(ActionFailed):
        control.run_stop(timeout_s=-1.0)
    os.kill(fps.header().runpid, signal.SIGKILL)


def test_a_conf_process_that_does_not_answer_is_told(make):
    fps, control = standing_in(make)
    fps.record_conf_process()  # this process, which checks nothing
    with pytest.raises(ActionFailed, match="the parameters were not checked"):
        control.conf_update(timeout_s=0.1)
    with pytest.raises(ActionFailed, match=rf"pid {os.getpid()}\) did not end"):
        control.conf_stop(timeout_s=0.1)


def test_a_work_directory_that_cannot_be_used_is_told(make):
    fps, control = standing_in(make)
    with ForeignFPS(fps.path) as mapped:
        mapped.set("workdir", b"/dev/null/work")
        with pytest.raises(ActionFailed, match="cannot write to /dev/null/work"):
            control.tmux_start()
        for relative in (b"", b"work"):
            mapped.set("workdir", relative)
            with pytest.raises(ActionFailed, match="expected a path that begins with '/'"):
                control.tmux_start()
    assert windows() == []


# -- sessions of others -----------------------------------------------------------------------


def test_an_idle_session_that_somebody_else_made_is_replaced(make):
    """milk's functions would start milk's programs."""
    _, control = standing_in(make)
    tmux("new-session", "-d", "-s", NAME, "-n", "0")
    started(control)
    assert windows() == ["ctrl", "conf", "run"]
    assert control.lights() == (ALIVE, ALIVE, ALIVE)


def test_a_session_made_for_the_fps_that_had_the_name_before_is_replaced(make, workdir):
    fps, control = standing_in(make, program="silent")
    control.tmux_start()
    fps.path.unlink()
    fps, control = standing_in(make, program="standin")
    started(control)
    assert control.lights() == (ALIVE, ALIVE, ALIVE)
    assert calls(workdir, "RUNSTART")["argv"][1] == NAME


def test_a_session_of_others_in_which_its_processes_run_is_kept(make):
    fps, control = standing_in(make)
    tmux("new-session", "-d", "-s", NAME, "-n", "mine")
    (pane,) = tmux("list-panes", "-a", "-F", "#{pane_pid}").split()
    with ForeignFPS(fps.path) as mapped:
        mapped.record_run(int(pane))
    control.tmux_start()
    assert "mine" in windows()
    assert tmux("list-panes", "-t", f"={NAME}:mine", "-F", "#{pane_pid}").split() == [pane]


def test_a_session_that_only_begins_with_the_name_is_another(make):
    _, control = standing_in(make)
    tmux("new-session", "-d", "-s", f"{NAME}0", "-n", "other")
    assert control.lights() == (IDLE, IDLE, IDLE)
    control.tmux_start()
    control.tmux_stop()
    assert windows(f"{NAME}0") == ["other"]


def test_two_fps_that_tmux_cannot_tell_apart_do_not_share_a_session(make):
    _, one = standing_in(make, "standin-a.b")
    other_fps, other = standing_in(make, "standin-a_b")
    started(other)
    for action in (one.tmux_start, one.tmux_stop, one.conf_start):
        with pytest.raises(ActionFailed, match="is that of the FPS 'standin-a_b'"):
            action()
    assert other.lights() == (ALIVE, ALIVE, ALIVE)
    assert other_fps.header().runpid


# -- names and values -------------------------------------------------------------------------

_SHELL = "$(touch PWNED1)`touch PWNED2`;touch PWNED3;'touch PWNED4'\"!x"


@pytest.mark.parametrize(
    "name",
    (
        "standin-a.b:c",
        "standin-with blank",
        "$0",
        "@1",
        "%1",
        "=x",
        "-x",
        "{last}",
        "standin-é",
        "standin-a\\b",
        "standin-*",
        "standin-;",
        "standin-#{pid}#(touch PWNED5)",
        f"s-{_SHELL}",
    ),
)
def test_an_fps_of_any_name_is_started_and_stopped(make, workdir, home, shm_dir, name):
    tmux("new-session", "-d", "-s", "bystander")
    _, control = standing_in(make, name)
    started(control)
    assert control.lights() == (ALIVE, ALIVE, ALIVE)
    assert calls(workdir, "RUNSTART")["argv"][:2] == ["-n", name]
    indices = " ".join(name.split("-")[1:])
    assert calls(workdir, "RUNSTART")["argv"][2].endswith(f" standin _RUNSTART_ {indices}")
    control.run_stop()
    control.remove()
    assert list_fps() == []
    assert tmux("list-sessions", "-F", "#{session_name}").split() == ["bystander"]
    assert not [*home.rglob("PWNED*"), *workdir.rglob("PWNED*"), *shm_dir.rglob("PWNED*")]


def test_values_and_texts_of_an_fps_are_never_run_by_the_shell(make, workdir, home, shm_dir):
    fps, control = standing_in(make)
    value = _SHELL[:63]
    assert value == _SHELL
    fps["procinfo.cset"] = value
    fps["procinfo.taskset"] = value
    with ForeignFPS(fps.path) as mapped:
        mapped.set("callfuncname", _SHELL.encode())
        mapped.set("NBmodule", 1)
        mapped.raw[1796 : 1796 + len(_SHELL)] = _SHELL.encode()
    started(control)
    (_, _, line) = calls(workdir, "RUNSTART")["argv"]
    expected = (
        f'csetpmove {value}; tsetpmove "{value}";mload {_SHELL}; {_SHELL} _RUNSTART_ cam1'
    )
    assert line == expected
    assert not [*home.rglob("PWNED*"), *workdir.rglob("PWNED*"), *shm_dir.rglob("PWNED*")]


@pytest.mark.parametrize("character", ("\x03", "\n", "\x15", "\x1b", "\t"))
def test_control_characters_in_values_are_not_typed(make, home, workdir, character):
    """The shell obeys them, quoted or not."""
    fps, control = standing_in(make)
    control.tmux_start()
    control.conf_start()
    fps.set("procinfo.cset", f"x{character}touch PWNED{character}", force=True)
    with pytest.raises(ActionFailed, match="control characters"):
        control.run_start()
    assert not fps.status() & Status.CMDRUN
    assert not [*home.rglob("PWNED*"), *workdir.rglob("PWNED*")]
    fps.set("procinfo.cset", "system", force=True)
    control.run_start()
    assert control.lights()[2] is ALIVE


def test_a_work_directory_with_an_odd_name_works(make, tmp_path, home):
    fps, control = standing_in(make)
    odd = tmp_path / f"w {_SHELL.replace('/', '')}"
    with ForeignFPS(fps.path) as mapped:
        mapped.set("workdir", bytes(200))
        mapped.set("workdir", os.fsencode(odd))
    started(control)
    assert calls(odd, "RUNSTART")["cwd"] == str(odd)
    assert not [*home.rglob("PWNED*"), *tmp_path.rglob("PWNED*")]


def test_the_shells_read_the_settings_that_are_beside_the_fps(make, workdir, home):
    """As milk's do: ../fpstmuxenv, then fpstmuxenv; and the user's own .bashrc first."""
    _, control = standing_in(make)
    (home / ".bashrc").write_text("export OMP_NUM_THREADS=user SEEN=bashrc\n")
    workdir.mkdir(exist_ok=True)
    (workdir.parent / "fpstmuxenv").write_text("export SEEN=$SEEN-above\n")
    (workdir / "fpstmuxenv").write_text("export SEEN=$SEEN-here\n")
    control.tmux_start()
    tmux_module.type_line(NAME, "ctrl", "echo $SEEN > seen")
    await_true(lambda: (workdir / "seen").exists() and (workdir / "seen").read_text())
    assert (workdir / "seen").read_text() == "bashrc-above-here\n"


def test_an_fps_without_the_parameters_of_a_process_is_started_all_the_same(
    home, programs, workdir
):
    parameter = NewParameter("x", ParameterType.INT64, 1, "")
    with FPS.create(
        "bare", [parameter], callprogname="standin", callfuncname="f", workdir=workdir
    ):
        control = FPSControl("bare")
        started(control)
        assert calls(workdir, "RUNSTART")["argv"] == ["-n", "bare", " f _RUNSTART_ "]
        assert "OMP_NUM_THREADS" not in calls(workdir, "RUNSTART")["environment"]


# -- removal ----------------------------------------------------------------------------------


def test_removal_takes_all_of_the_fps_and_nothing_else(make, workdir, shm_dir):
    fps, control = standing_in(make)
    _, other = standing_in(make, "standin-other")
    started(control)
    started(other)
    header = fps.header()
    (workdir / header.confdir).mkdir()
    (workdir / header.datadir / "note.txt").write_text("")
    (workdir / "vcam1.fits").write_text("precious")
    control.remove()
    assert list_fps() == ["standin-other"]
    assert not (workdir / header.datadir).exists()
    assert not (workdir / header.confdir).exists()
    assert (workdir / "vcam1.fits").exists()
    assert windows() == []
    assert other.lights() == (ALIVE, ALIVE, ALIVE)
    with pytest.raises(ActionFailed, match="no FPS"):
        control.remove()


@pytest.mark.parametrize("folder", ("", "..", "precious", "../precious", f"../{NAME}"))
def test_removal_keeps_directories_that_are_not_named_for_the_fps(
    make, workdir, monkeypatch, folder
):
    """What is to be removed is written down here, not removed: code that is wrong must not
    reach beyond the test."""
    fps, control = standing_in(make)
    removed: list[Path] = []
    with ForeignFPS(fps.path) as mapped:
        for field in ("datadir", "confdir"):
            mapped.set(field, folder.encode())
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path, **_: removed.append(Path(path)))
        control.remove()
    assert removed == [workdir / f"fps.{NAME}.datadir", workdir / f"fps.{NAME}.confdir"]
    assert list_fps() == []


# -- two at once ------------------------------------------------------------------------------


def test_two_people_who_start_at_once_start_it_once(make):
    fps, _ = standing_in(make)
    failures: list[str] = []
    barrier = threading.Barrier(3)

    def start() -> None:
        control = FPSControl(NAME)
        barrier.wait()
        try:
            started(control)
        except ActionFailed as error:
            failures.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert windows() == ["ctrl", "conf", "run"]
    control = FPSControl(NAME)
    assert control.lights() == (ALIVE, ALIVE, ALIVE)
    control.run_stop()
    assert control.lights() == (ALIVE, ALIVE, IDLE)  # no second one follows
    assert fps.header().runpid
