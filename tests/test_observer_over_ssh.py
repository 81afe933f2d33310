"""The observer's commands over a real sshd: typed here, done where the cameras are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_room import COMMAND_DIR, ControlRoom, control_room, tmux_sessions
from fps_terminal import terminal
from logger_process import PATIENCE_S
from ssh_server import SshServer, free_port, ssh_server

from vampires.toml_text import toml_text

BOTH = ("vcam1", "vcam2")
COMMANDS = ("preplog", "startlog", "pauselog", "stoplog", "datatype", "object", "logstatus")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("server")) as server:
        yield server


def far_host(server: SshServer, room: ControlRoom, **others: Any) -> dict[str, Any]:
    """The table of the machine of the cameras: this one, over ssh."""
    variables = ("TMUX_TMPDIR", "VAMPIRES_CONFIG", "HOME", "PYTHONPATH")
    return server.host_table(
        command_dir=str(COMMAND_DIR),
        shm_dir=str(room.shm_dir),
        environment={name: os.environ[name] for name in variables if name in os.environ},
        **others,
    )


def use_hosts(room: ControlRoom, hosts: dict[str, Any], **cameras: str) -> None:
    """Writes the hosts into the configuration, and on which the cameras are."""
    text = room.config.read_text()
    for name, host in cameras.items():
        head, _, tail = text.partition(f"[cameras.{name}]")
        text = head + f"[cameras.{name}]" + tail.replace('"here"', f'"{host}"', 1)
    room.config.write_text(toml_text({"hosts": hosts}) + text)


@pytest.fixture
def room(
    shm_dir: Path, start_command: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ControlRoom]:
    with control_room(shm_dir, start_command, monkeypatch) as room:
        yield room


@pytest.fixture
def far(room: ControlRoom, server: SshServer) -> ControlRoom:
    """Both cameras are on another machine."""
    use_hosts(room, {"far": far_host(server, room)}, vcam1="far", vcam2="far")
    room.add_cameras()
    return room


@pytest.fixture
def apart(room: ControlRoom, server: SshServer) -> ControlRoom:
    """vcam1 is here, vcam2 on another machine."""
    use_hosts(room, {"far": far_host(server, room)}, vcam2="far")
    room.add_cameras()
    return room


def test_a_night_on_another_machine(far: ControlRoom) -> None:
    far.trigger()
    said = far.ok("preplog", "--yes", "--dir", far.folder / "a dir", "-n", 50)
    assert 'FPS_FILTSTRING_NAME="streamFITSlog-vcam" milk-fpsCTRL' in said
    assert "DATA-TYP TEST -> DARK" in far.ok("datatype", "dark")
    began = far.answers("startlog", "--pre", "0.1")
    assert began["vcam1"]["first_cnt0"] == began["vcam2"]["first_cnt0"] > 0
    far.wait_frames(60)
    assert far.ok("logstatus").count("logging") == 2
    assert far.run("startlog").stderr.count("is being logged already") == 2
    ended = far.answers("pauselog", "--wait")
    assert ended["vcam1"]["files"] == far.files("vcam1") != []
    assert ended["vcam1"]["end_cnt0"] == ended["vcam2"]["end_cnt0"]
    assert far.answers("logstatus")["vcam2"]["state"] == "idle"
    far.ok("stoplog")
    assert far.run("logstatus").returncode == 1
    assert far.ok("stoplog", "--kill").count("the logger is removed") == 2
    assert tmux_sessions() == set()


def test_the_questions_are_asked_here(far: ControlRoom) -> None:
    with terminal(width=110) as window:
        window.start([sys.executable, "-m", "vampires.commands.preplog", "--archive"])
        window.wait_for("cameras [1,2]:")
        window.type("2")
        window.press("Enter")
        window.wait_for("vcam2: 9 x 8 uint16", "frames per cube [")
        window.type("77")
        window.press("Enter")
        window.wait_for("number of cubes")
        window.press("Enter")
        window.wait_for("data type [TEST]:")
        window.press("Enter")
        window.wait_for("vcam2: the logger is ready", "EXIT 0")
        assert far.look("vcam2").cube_size == 77
        assert not far.look("vcam1").prepared
        window.tmux("kill-session", "-t", "test")
        window.start([sys.executable, "-m", "vampires.commands.preplog", "-c", "1"])
        window.wait_for("frames per cube [")
        window.press("C-c")
        window.wait_for("nothing was changed", "EXIT 130")
        assert not far.look("vcam1").prepared


def test_watching_another_machine_ends_with_ctrl_c(far: ControlRoom) -> None:
    far.ok("preplog", "--yes")
    with terminal() as window:
        window.start([sys.executable, "-m", "vampires.commands.logstatus", "--watch"])
        window.wait_for("vcam1", "vcam2", "idle")
        far.trigger()
        far.ok("startlog")
        window.wait_for("logging")
        far.ok("pauselog")
        window.wait_for("idle")
        assert _processes("--watch") != []
        window.press("C-c")
        window.wait_for("EXIT 0")
        far.wait(lambda: not _processes("--watch"), "the end of the command there")


def _processes(word: str) -> list[str]:
    """Processes of logstatus --local with this argument."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if word in words and "--local" in words and any("logstatus" in w for w in words):
            found.append(" ".join(words))
    return found


def test_cameras_of_two_machines_act_together(apart: ControlRoom) -> None:
    apart.trigger()
    said = apart.ok("preplog", "--yes", "-n", 50)
    assert "here: vcam1: the logger is ready" in said
    assert "far: vcam2: the logger is ready" in said
    apart.wait(lambda: all(apart.look(name).rate_hz for name in BOTH), "rates")
    for _ in range(2):
        said = apart.ok("startlog")
        assert "vcam1: saving since frame" in said
        assert "vcam2: saving since frame" in said
        assert apart.ok("logstatus").count("logging") == 2
        ended = apart.answers("pauselog")
        assert ended["vcam1"]["first_cnt0"] == ended["vcam2"]["first_cnt0"]
        assert ended["vcam1"]["end_cnt0"] == ended["vcam2"]["end_cnt0"]
    began = apart.answers("startlog", "--pre", "0.2")
    assert began["vcam1"]["first_cnt0"] == began["vcam2"]["first_cnt0"]
    assert apart.ok("stoplog", "--kill").count("the logger is removed") == 2


@pytest.mark.parametrize("vcam1_is_here", [True, False])
def test_cameras_that_differ_are_not_started(
    room: ControlRoom, server: SshServer, vcam1_is_here: bool
) -> None:
    vcam1 = {} if vcam1_is_here else {"vcam1": "far"}
    use_hosts(room, {"far": far_host(server, room)}, vcam2="far", **vcam1)
    room.add_cameras()
    room.trigger()
    room.ok("preplog", "--yes", "-n", 50)
    room.ok("datatype", "dark", "-c", 2)
    sessions = [room.look(name).session for name in BOTH]
    answers = room.answers("startlog", status=5)
    assert [answers[name]["differs"] for name in BOTH] == [["DATA-TYP"]] * 2
    assert [answers[name]["data_type"] for name in BOTH] == ["TEST", "DARK"]
    done = room.run("startlog")
    assert (done.returncode, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in ("DATA-TYP", *BOTH, "TEST", "DARK", "--force"))
    assert [room.look(name).session for name in BOTH] == sessions
    answers = room.answers("startlog", "--force")
    assert answers["vcam1"]["first_cnt0"] == answers["vcam2"]["first_cnt0"] > 0
    room.ok("pauselog")
    room.ok("datatype", "test")
    room.ok("startlog")


def test_data_type_and_target_are_set_and_shown_wherever_the_cameras_are(
    apart: ControlRoom,
) -> None:
    for camera in BOTH:
        apart.ok("datatype", "dark", "-c", camera)
        apart.ok("object", "HD", "12345", "-c", camera)
    for command, value in (("datatype", "DARK"), ("object", "HD 12345")):
        answers = apart.answers(command)
        assert [answers[camera]["now"] for camera in BOTH] == [value] * 2
    assert apart.cameras["vcam2"].stream.keywords["OBJECT"] == "HD 12345"
    answers = apart.answers("object", "AB Aur")
    assert {(a["before"], a["now"]) for a in answers.values()} == {("HD 12345", "AB Aur")}
    said = apart.ok("object").splitlines()
    assert sorted(said) == ["far: vcam2: OBJECT AB Aur", "here: vcam1: OBJECT AB Aur"]


def test_a_machine_that_is_down_does_not_stop_the_others(
    room: ControlRoom, server: SshServer
) -> None:
    table = far_host(server, room, port=free_port())
    use_hosts(room, {"far": table}, vcam2="far")
    room.add_camera("vcam1")
    room.trigger()
    for command, expected in (
        ("preplog", "here: vcam1: the logger is ready"),
        ("startlog", "vcam1: saving since frame"),
        ("logstatus", "logging"),
        ("pauselog", "vcam1: "),
        ("stoplog", "the logger is stopped"),
    ):
        done = room.run(command, *(["--yes"] if command == "preplog" else []))
        assert done.returncode != 0
        assert expected in done.stdout
        assert (
            "host far (127.0.0.1): nothing takes ssh connections" in done.stdout + done.stderr
        )
    answers = room.answers("logstatus", status=1)
    assert answers["vcam1"]["error"] == ""
    assert "nothing takes ssh connections" in answers["vcam2"]["error"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_in_one_line_that_the_machine_is_down(
    command: str, room: ControlRoom, server: SshServer
) -> None:
    table = far_host(server, room, port=free_port())
    use_hosts(room, {"far": table}, vcam1="far", vcam2="far")
    arguments = {"preplog": ["--yes"], "datatype": ["dark"]}.get(command, [])
    done = room.run(command, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vampires_{command}: host far (127.0.0.1): nothing takes ssh")


def test_watching_shows_that_a_machine_went_down(room: ControlRoom, server: SshServer) -> None:
    use_hosts(room, {"far": far_host(server, room, port=free_port())}, vcam2="far")
    room.add_camera("vcam1")
    process = room.start("logstatus", "--watch", "--json")
    assert process.stdout is not None
    while True:
        one, two = json.loads(process.stdout.readline())["cameras"]
        assert (one["state"], one["error"]) == ("not prepared", "")
        if "nothing takes ssh connections" in two["error"]:
            break
        assert two["error"] == "host far: no answer yet"
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
