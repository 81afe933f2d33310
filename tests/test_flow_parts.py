"""The parts of a camera on each machine, and what is asked of a supervisor: from the
configuration, without running anything."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from vampires.config import parse_config
from vampires.config_models import Config
from vampires.flow.parts import Part, machines_of, parts_here
from vampires.flow.wishes import (
    Wish,
    is_fresh,
    supervisor_state,
    wished_cameras,
    withdraw,
)
from vampires.run_folder import RunFolder

LINK = {"stream": "vcam1", "kind": "tcp", "sender": "five", "receiver": "six", "port": 30107}
HOSTS = {
    "five": {"address": "10.9.0.5"},
    "six": {"address": "10.9.0.6"},
    "sonne": {"address": "10.9.0.7"},
}


def config_at(here: str, **changes: object) -> Config:
    """The flow of three machines, as that one of them reads it."""
    hosts = {name: dict(table) for name, table in HOSTS.items()}
    hosts[here]["address"] = "local"
    tables: dict[str, object] = {
        "hosts": hosts,
        "cameras": {
            "vcam1": {"number": 1, "host": "five"},
            "vpupcam": {"host": "sonne", "logged": False},
        },
        "links": {
            "vcam1_tcp": LINK | {"sender_address": "10.9.0.5", "receiver_address": "10.9.0.6"},
            "vcam1_zmq": {
                "stream": "vcam1", "kind": "zmq", "sender": "five", "receiver": "sonne",
                "port": 5560, "fps": 10.0, "max_mbps": 250.0,
                "sender_address": "10.9.0.5", "receiver_address": "10.9.0.7",
            },
            "vcam1_dark_zmq": {
                "stream": "vcam1_dark", "kind": "zmq", "sender": "five", "receiver": "sonne",
                "port": 5570, "sender_address": "10.9.0.5", "receiver_address": "10.9.0.7",
            },
        },
    }  # fmt: skip
    return parse_config(tables | changes, Path("test.toml"))


def told(parts: list[Part]) -> dict[str, str]:
    return {part.session: " ".join(part.command[2:]) for part in parts}


def test_the_cameras_machine_has_source_prompt_and_senders() -> None:
    parts = parts_here(config_at("five"), "vcam1", "MBI", "gen")
    assert told(parts) == {
        "vcam1_fgrab": "vampires.commands.fgrab vcam1 --mode MBI --generation gen",
        "vcam1_tcp": "vampires.commands.tcp_transmit vcam1 10.9.0.6 30107"
        " --status-file vcam1_tcp.json",
        "vcam1_zmq": "vampires.commands.zmq_send vcam1 --bind tcp://10.9.0.5:5560"
        " --max-mbps 250 --allow 10.9.0.7 --fps 10 --status-file vcam1_zmq.json",
        "vcam1_dark_zmq": "vampires.commands.zmq_send vcam1_dark --bind tcp://10.9.0.5:5570"
        " --max-mbps 500 --allow 10.9.0.7 --fps 20 --status-file vcam1_dark_zmq.json"
        " --resend 1",
        "vcam1_ctrl": "vampires.commands.camera_prompt vcam1",
    }
    assert [part.session for part in parts if part.fast] == ["vcam1_tcp"]


def test_the_others_have_receivers() -> None:
    assert told(parts_here(config_at("six"), "vcam1", "MBI", "gen")) == {
        "vcam1_tcp": "vampires.commands.tcp_receive --listen 10.9.0.6 --allow 10.9.0.5"
        " --status-file vcam1_tcp.json 30107"
    }
    assert told(parts_here(config_at("sonne"), "vcam1", "MBI", "gen")) == {
        "vcam1_zmq": "vampires.commands.zmq_recv tcp://10.9.0.5:5560 vcam1"
        " --status-file vcam1_zmq.json",
        "vcam1_dark_zmq": "vampires.commands.zmq_recv tcp://10.9.0.5:5570 vcam1_dark"
        " --status-file vcam1_dark_zmq.json",
    }
    assert parts_here(config_at("six"), "vpupcam", "FULL", "gen") == []


def test_who_receives_starts_before_whoever_sends() -> None:
    cameras = {"vcam1": {"number": 1, "host": "five"}}
    links = {"there": LINK, "back": LINK | {"sender": "six", "receiver": "five", "port": 30108}}
    addresses = {"sender_address": "10.9.0.5", "receiver_address": "10.9.0.5"}
    config = config_at(
        "five",
        cameras=cameras,
        links={name: link | addresses for name, link in links.items()},
    )
    kinds = [part.kind for part in parts_here(config, "vcam1", "MBI", "gen")]
    assert kinds == ["tcp receiver", "source", "tcp sender", "prompt"]


def test_links_can_be_left_out() -> None:
    config = config_at("five")
    sessions = told(parts_here(config, "vcam1", "MBI", "gen", links=False))
    assert set(sessions) == {"vcam1_fgrab", "vcam1_ctrl"}
    assert [h.name for h in machines_of(config, "vcam1")] == ["five", "six", "sonne"]
    assert [h.name for h in machines_of(config, "vcam1", links=False)] == ["five"]


def test_priorities_and_cpus_of_a_link_are_passed_on() -> None:
    placed = {"rt_priority": 49, "cpus": "2,4-6", "cpu_set": "v_tcp"}
    addresses = {"sender_address": "10.9.0.5", "receiver_address": "10.9.0.6"}
    config = config_at("five", links={"vcam1_tcp": LINK | placed | addresses})
    line = told(parts_here(config, "vcam1", "MBI", "gen"))["vcam1_tcp"]
    assert "-c v_tcp --cpus 2,4-6 --rt-priority 49" in line


def test_the_headers_service_runs_where_logged_cameras_are() -> None:
    header = {"constants": "/etc/header.toml"}
    sessions = told(parts_here(config_at("five", header=header), "vcam1", "MBI", "gen"))
    assert sessions["headerd"] == "vampires.commands.headerd --status-file headerd.json"
    config = config_at("sonne", header=header)
    assert "headerd" not in told(parts_here(config, "vpupcam", "FULL", "gen"))


def test_a_machine_that_listens_says_where() -> None:
    with pytest.raises(ValueError, match=r'sender_address = "\.\.\."'):
        parts_here(config_at("five", links={"vcam1_tcp": LINK}), "vcam1", "MBI", "gen")


def test_a_name_of_this_machine_becomes_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(name: str, *_: object, **__: object) -> list[object]:
        assert name == "six.example.org"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.9.0.6", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    link = LINK | {"sender_address": "10.9.0.5", "receiver_address": "six.example.org"}
    (part,) = parts_here(config_at("six", links={"l": link}), "vcam1", "MBI", "gen")
    assert "--listen 10.9.0.6" in " ".join(part.command)


# -- wishes -----------------------------------------------------------------------------------


def wish(camera: str = "vcam1") -> Wish:
    part = Part(f"{camera}_fgrab", camera, "source", ("a", "b"), 2, status="x")
    return Wish(camera, "gen", (part,), {"MILK_SHM_DIR": "/x"}, logged=True)


def test_a_wish_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).make()
    wish().write(run)
    assert Wish.read(run, "vcam1") == wish()
    assert wished_cameras(run) == ["vcam1"]
    withdraw(run, "vcam1")
    assert wished_cameras(run) == []
    assert Wish.read(run, "vcam1") is None


@pytest.mark.parametrize(
    "change",
    [
        {"parts": 3},
        {"parts": [3]},
        {"parts": [{"session": "x"}]},
        {"parts": [wish().parts[0].as_dict() | {"order": "1"}]},
        {"parts": [wish().parts[0].as_dict() | {"session": 1}]},
        {"parts": [wish().parts[0].as_dict() | {"unknown": 1}]},
        {"environment": []},
        {"generation": None, "parts": None},
    ],
)
def test_what_is_no_wish_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    run = RunFolder(tmp_path).make()
    wish().write(run)
    values = json.loads(run.file("wish_vcam1").read_text())
    run.file("wish_vcam1").write_text(json.dumps(values | change))
    assert Wish.read(run, "vcam1") is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"parts": 3, "loggers": 4, "time_ns": "x"}'])
def test_a_state_that_nobody_wrote_is_empty(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path).make()
    run.file("supervisor").write_text(text)
    state = supervisor_state(run)
    assert (state["parts"], state["loggers"], state["generations"]) == ([], {}, {})
    assert not is_fresh(state)
