"""The configuration: found where it should be, complete, and faults are told in clear lines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from vampires import config as configuration
from vampires import config_models
from vampires.commands import config as command
from vampires.config import PACKAGED_CONFIG, ConfigError, find_config, load_config, parse_config
from vampires.config_models import HostConfig, LoggingConfig
from vampires.instrument.file import instrument_on
from vampires.toml_text import toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path("/somewhere/config.toml")

TELESCOPE = """\
[hosts.scexao5]
address = "scexao5.example.org"
user = "observer"
port = 2222
identity_file = "~/.ssh/id_ed25519"
ssh_options = ["StrictHostKeyChecking=accept-new", "Compression no"]
command_dir = "/opt/vampires/bin"
shm_dir = "/milk/shm"
environment = { LANG = "C.UTF-8" }

[hosts.sonne]

[cameras.vcam1]
number = 1
host = "scexao5"

[cameras.vcam2]
number = 2
host = "scexao5"
logged = false

[cameras.vpupcam]
host = "sonne"

[links.vcam1_tcp]
stream = "vcam1"
kind = "tcp"
sender = "scexao5"
receiver = "sonne"
receiver_address = "10.20.0.6"
port = 30107
rt_priority = 40

[links.vcam1-dark]
stream = "vcam1_dark"
kind = "zmq"
sender = "scexao5"
receiver = "sonne"
port = 30107

[header]
constants = "~/header.toml"
redis_host = "scexao2"

[logging]
directory = "/mnt/fuuu"
archive_directory = "/mnt/fuuu/ARCHIVED_DATA"
proposed_cube_bytes = 1.5e9
cpus = "2,4-6"
ring_memory = "4GiB"
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where configurations are looked for, all below tmp_path; none is there yet."""
    monkeypatch.delenv("VAMPIRES_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    system = tmp_path / "etc/vampires/config.toml"
    monkeypatch.setattr(configuration, "SYSTEM_FOLDER", system.parent)
    monkeypatch.setattr(command, "SYSTEM_CONFIG", system)
    return {
        "home": tmp_path / "home/.config/vampires/config.toml",
        "xdg": tmp_path / "xdg/vampires/config.toml",
        "system": system,
        "named": tmp_path / "named.toml",
    }


def write(file: Path, text: str = TELESCOPE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def telescope(**changed: Any) -> dict[str, Any]:
    """The tables of TELESCOPE; host__port=3 is set in [hosts.scexao5], camera__ in
    [cameras.vcam1], pupil__ in [cameras.vpupcam], link__ in [links.vcam1_tcp], header__ in
    [header], logging__ in [logging], others at the top."""
    tables = tomllib.loads(TELESCOPE)
    places = {"host": tables["hosts"]["scexao5"], "camera": tables["cameras"]["vcam1"]}
    places |= {"pupil": tables["cameras"]["vpupcam"], "link": tables["links"]["vcam1_tcp"]}
    places |= {name: tables[name] for name in ("header", "logging")}
    for name, value in changed.items():
        place, _, key = name.rpartition("__")
        (places[place] if place else tables)[key] = value
    return tables


def faults_of(tables: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(tables, FILE)
    assert str(caught.value).splitlines() == list(caught.value.faults)
    return caught.value.faults


# What is in it ----------------------------------------------------------------------------


def test_the_packaged_configuration_is_simulated_cameras_on_this_machine() -> None:
    config = load_config()
    assert config.file == PACKAGED_CONFIG
    assert {camera.source for camera in config.cameras.values()} == {"sim"}
    assert all(config.host_of(name).is_local() for name in config.cameras)
    assert [camera.name for camera in config.logged_cameras()] == ["vcam1", "vcam2"]
    assert {mode: config.logging.cube_sizes[mode] for mode in config.logging.cube_sizes} == {
        "STANDARD": 2000,
        "MBI": 250,
        "MBI_REDUCED": 500,
    }


def test_what_the_packaged_file_says_of_logging_are_the_defaults() -> None:
    assert tomllib.loads(PACKAGED_CONFIG.read_text())["logging"].keys() == set(
        LoggingConfig.model_fields
    )
    assert load_config().logging == LoggingConfig()


def test_values_of_a_file_arrive() -> None:
    config = parse_config(telescope(), FILE)
    host = config.host_of("vcam1")
    assert (host.name, host.address, host.user, host.port) == (
        "scexao5",
        "scexao5.example.org",
        "observer",
        2222,
    )
    assert host.identity_file == Path(os.environ["HOME"], ".ssh/id_ed25519")
    assert host.ssh_options == ("StrictHostKeyChecking=accept-new", "Compression no")
    assert host.environment == {"LANG": "C.UTF-8"}
    assert config.logging.directory == Path("/mnt/fuuu")
    assert config.logging.proposed_cube_bytes == 1_500_000_000
    assert config.logging.ring_memory_bytes == 4 << 30


def test_links_and_header_of_a_file_arrive() -> None:
    config = parse_config(telescope(link__cpus="2,4-6", header__period_s=0.5), FILE)
    link, dark = config.links.values()
    assert (link.name, link.stream, link.kind, link.port) == (
        "vcam1_tcp",
        "vcam1",
        "tcp",
        30107,
    )
    assert (link.sender, link.receiver) == ("scexao5", "sonne")
    assert (link.sender_address, link.receiver_address) == (None, "10.20.0.6")
    assert (link.rt_priority, link.cpus, link.cpu_set) == (40, "2,4-6", "system")
    assert (dark.name, dark.camera, dark.fps, dark.max_mbps) == ("vcam1-dark", "vcam1", 20, 500)
    assert config.links_of("vcam1") == [link, dark]
    assert config.links_of("vcam2") == []
    assert config.header is not None
    assert config.header.constants == Path(os.environ["HOME"], "header.toml")
    assert (config.header.redis_host, config.header.redis_port) == ("scexao2", 6379)
    assert (config.header.period_s, config.header.stale_s) == (0.5, 60.0)
    assert load_config().links == {}
    assert load_config().header is None


def test_what_a_camera_is_arrives() -> None:
    config = parse_config(
        telescope(
            camera__sim={"flc_jitter_us": 0, "focus": True, "seed": 3, "ring": 128},
            camera__mode="TWOARC",
            camera__fps=99.5,
            camera__rt_priority=49,
            pupil__source="replay",
            pupil__replay={"path": "~/cubes", "fps": 10, "loop": False},
        ),
        FILE,
    )
    vcam1, pupil = config.camera("vcam1"), config.camera("vpupcam")
    assert vcam1.sim is not None
    assert (vcam1.sim.flc_jitter_us, vcam1.sim.focus, vcam1.sim.seed) == (0.0, True, 3)
    assert (vcam1.sim.ring, vcam1.sim.sensor) == (128, None)
    assert (vcam1.first_mode, vcam1.fps, vcam1.rt_priority) == ("TWOARC", 99.5, 49)
    assert pupil.replay is not None
    assert pupil.replay.path == Path(os.environ["HOME"], "cubes")
    assert (pupil.replay.fps, pupil.replay.loop) == (10.0, False)
    assert pupil.first_mode == "FULL"
    assert config.camera("vcam2").first_mode == "MBI"
    genicam = {"camera_id": "10.0.0.7", "pixel_format": "Mono16", "packet_size": 8000}
    real = parse_config(telescope(pupil__source="genicam", pupil__genicam=genicam), FILE)
    read = real.camera("vpupcam").genicam
    assert read is not None
    assert read.model_dump().items() >= (genicam | {"packet_socket": True}).items()
    sensor = load_config().camera("vpupcam").sim
    assert sensor is not None
    assert sensor.sensor == (1024, 1280)


def test_ports_are_free_on_the_machine_that_listens() -> None:
    """tcp links listen at the receiver, zmq links at the sender."""
    tables = telescope()
    assert tables["links"]["vcam1_tcp"]["port"] == tables["links"]["vcam1-dark"]["port"]
    parse_config(tables, FILE)
    tables["links"]["vcam1-dark"] |= {"sender": "sonne", "receiver": "scexao5"}
    (line,) = faults_of(tables)
    assert line.endswith(
        "links.vcam1-dark.port: found 30107, expected another port at sonne than vcam1_tcp has"
    )


def test_a_configuration_cannot_be_changed() -> None:
    config = parse_config(telescope(), FILE)
    with pytest.raises(ValidationError):
        config.logging.cpus = "1"


def test_the_data_types_are_those_of_the_archive() -> None:
    assert len(config_models.DATA_TYPES) == 11
    assert load_config().logging.data_types == config_models.DATA_TYPES


def test_cameras_are_chosen_by_name_and_number() -> None:
    config = parse_config(telescope(), FILE)
    assert [camera.name for camera in config.logged_cameras()] == ["vcam1", "vpupcam"]
    assert [camera.name for camera in config.logged_cameras([1, 1])] == ["vcam1"]
    assert config.camera("vpupcam").number is None
    with pytest.raises(ConfigError, match=r"config.toml: no camera 'vcam9'; .*vcam1, vcam2"):
        config.camera("vcam9")
    with pytest.raises(ConfigError, match=r"no camera 2 with logged = true; .*1 \(vcam1\)"):
        config.logged_cameras([1, 2])


@pytest.mark.parametrize(
    ("name", "address", "local"),
    [
        ("a", None, True),
        ("a", "local", True),
        ("a", "localhost", True),
        ("a", "127.0.0.1", False),
        ("a", "b", False),
        ("scexao5", "10.0.0.5", True),
        ("SCEXAO5", "10.0.0.5", True),
        ("a", "scexao5", True),
        ("a", "scexao5.example.org", True),
        ("a", "scexao5.elsewhere.org", False),
        ("scexao55", "scexao55.example.org", False),
    ],
)
@pytest.mark.parametrize("hostname", ["scexao5", "scexao5.example.org"])
def test_a_host_is_this_machine_by_its_name_or_address(
    hostname: str, name: str, address: str | None, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    monkeypatch.setattr(socket, "getfqdn", lambda name: "scexao5.example.org")
    tables = {"hosts": {name: {}}, "cameras": {"vcam1": {"host": name}}}
    if address is not None:
        tables["hosts"][name]["address"] = address
    assert parse_config(tables, FILE).host_of("vcam1").is_local() == local


# Where it is ------------------------------------------------------------------------------


def test_the_first_of_named_user_system_and_packaged_is_in_use(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_config() == PACKAGED_CONFIG
    assert find_config() == PACKAGED_CONFIG != write(places["system"])
    assert find_config() == places["system"]
    write(places["xdg"])
    assert find_config() == places["xdg"]
    monkeypatch.setenv("VAMPIRES_CONFIG", str(places["named"]))
    assert find_config() == places["named"]
    monkeypatch.setenv("VAMPIRES_CONFIG", "")
    assert find_config() == places["xdg"]


@pytest.mark.parametrize("folder", ["", "relative"])
def test_the_user_has_a_place_without_xdg(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", folder)
    write(places["home"])
    assert find_config() == places["home"]


def test_a_named_file_that_is_missing_is_not_passed_over(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(places["xdg"])
    monkeypatch.setenv("VAMPIRES_CONFIG", str(places["named"]))
    with pytest.raises(ConfigError) as caught:
        load_config()
    (line,) = caught.value.faults
    assert str(places["named"]) in line
    assert "No such file" in line
    assert "$VAMPIRES_CONFIG" in line


def test_a_file_that_cannot_be_read_is_not_passed_over(places: dict[str, Path]) -> None:
    write(places["system"])
    places["xdg"].parent.mkdir(parents=True)
    places["xdg"].symlink_to("nowhere.toml")
    assert find_config() == places["xdg"]
    with pytest.raises(ConfigError, match="No such file"):
        load_config()


# What is wrong with it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[hosts\n", "line 1"),
        (b"[hosts.here]\naddress = \n", "line 2"),
        (b"[hosts.here]\n[hosts.here]\n", "line 2"),
        (b"[hosts.here]\n\naddress = '\xff'\n", "line 3 is not UTF-8"),
        (b"x = " + b"[" * 100_000, "beyond all reason"),
        (b"x = " + b"9" * 10_000, "beyond all reason"),
        (b"#" * (2 << 20), "longer than"),
    ],
    ids=["table", "value", "twice", "encoding", "deep", "digits", "long"],
)
def test_a_malformed_file_is_one_line_with_its_place(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    (line,) = caught.value.faults
    assert line.startswith(f"{file}: ")
    assert said in line


@pytest.mark.parametrize(
    ("file", "said"),
    [("", "Is a directory"), ("no/such", "No such file"), ("a\0b", "such a name")],
)
def test_what_is_no_file_is_one_line(tmp_path: Path, file: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(f"{tmp_path}/{file}")


@pytest.mark.parametrize(
    ("changed", "key", "found", "allowed"),
    [
        ({"host__addres": "a"}, "hosts.scexao5.addres", "unknown key", "did you mean address?"),
        ({"camera__name": "a"}, "cameras.vcam1.name", "unknown key", "number, host, source"),
        ({"loging": {}}, "loging", "unknown key", "did you mean logging?"),
        ({"logging__cpu": "1"}, "logging.cpu", "unknown key", "did you mean cpu"),
        ({"camera__host": "scexao"}, "cameras.vcam1.host", '"scexao"', "did you mean scexao5?"),
        ({"camera__host": 5}, "cameras.vcam1.host", "5", "[hosts.NAME]"),
        ({"camera__number": "1"}, "cameras.vcam1.number", '"1"', "1, 2"),
        ({"camera__number": 3}, "cameras.vcam1.number", "3", "1, 2"),
        ({"camera__number": True}, "cameras.vcam1.number", "true", "1, 2"),
        ({"camera__number": 2}, "cameras.vcam2.number", "2", "vcam1 has this one"),
        ({"camera__source": "real"}, "cameras.vcam1.source", '"real"', '"sim"'),
        ({"camera__logged": "yes"}, "cameras.vcam1.logged", '"yes"', "true or false"),
        ({"host__address": "-oProxyCommand=x"}, "hosts.scexao5.address", '"-o', "beginning"),
        ({"host__address": "me@there"}, "hosts.scexao5.address", '"me@there"', "apart in user"),
        ({"host__address": ""}, "hosts.scexao5.address", '""', "name or address"),
        ({"host__port": 70_000}, "hosts.scexao5.port", "70000", "1 to 65535"),
        ({"host__port": "22"}, "hosts.scexao5.port", '"22"', "1 to 65535"),
        ({"host__user": "-lroot"}, "hosts.scexao5.user", '"-lroot"', "user's name"),
        ({"host__identity_file": "id"}, "hosts.scexao5.identity_file", '"id"', "~/.ssh"),
        ({"host__ssh_options": "A=b"}, "hosts.scexao5.ssh_options", '"A=b"', "a list"),
        ({"host__ssh_options": ["A"]}, "hosts.scexao5.ssh_options[0]", '"A"', "a list"),
        (
            {"host__ssh_options": ["A=b", "BATCHMODE no"]},
            "hosts.scexao5.ssh_options[1]",
            '"BATCHMODE no"',
            "BatchMode",
        ),
        ({"host__command_dir": "bin"}, "hosts.scexao5.command_dir", '"bin"', "absolute"),
        ({"host__command_dir": "/a:/b"}, "hosts.scexao5.command_dir", '"/a:/b"', "':'"),
        ({"host__shm_dir": "/a\nb"}, "hosts.scexao5.shm_dir", r'"/a\nb"', "/milk/shm"),
        ({"host__environment": {"1": "a"}}, 'environment.1', "not allowed", "LANG"),
        ({"host__environment": {"A": 1}}, "environment.A", "1", "LANG"),
        ({"hosts": {}}, "hosts", "an empty table", "at least one"),
        ({"hosts": 3}, "hosts", "3", "[hosts.NAME]"),
        ({"hosts": {"-x": {}}}, "hosts.-x", "not allowed", "not beginning with '-'"),
        ({"cameras": {"vcam1": 1}}, "cameras.vcam1", "1", "a table [cameras.vcam1]"),
        ({"cameras": {"v_1": {}}}, "cameras.v_1", "not allowed", "letters and digits only"),
        ({"cameras": {"vcam1": {}}}, "cameras.vcam1.host", "nothing", "[hosts.NAME]"),
        ({"camera__mode": "MBJ"}, "cameras.vcam1.mode", '"MBJ"', "did you mean MBI?"),
        ({"camera__mode": "mbi"}, "cameras.vcam1.mode", '"mbi"', "FULL, STANDARD, TWOARC"),
        ({"pupil__mode": "MBI"}, "cameras.vpupcam.mode", '"MBI"', "one of FULL"),
        ({"camera__fps": 0}, "cameras.vcam1.fps", "0", "frames/s"),
        ({"camera__rt_priority": 100}, "cameras.vcam1.rt_priority", "100", "0 (none) to 99"),
        ({"camera__cpus": "a"}, "cameras.vcam1.cpus", '"a"', "2,4-6"),
        ({"camera__cpu_set": "a/b"}, "cameras.vcam1.cpu_set", '"a/b"', "of a CPU set"),
        ({"camera__sim": True}, "cameras.vcam1.sim", "true", 'a table, for source = "sim"'),
        ({"camera__sim": {"ring": 1}}, "cameras.vcam1.sim.ring", "1", "2 to 65536"),
        ({"camera__sim": {"sed": 1}}, "cameras.vcam1.sim.sed", "unknown key", "mean seed?"),
        ({"camera__sim": {"seed": -1}}, "cameras.vcam1.sim.seed", "-1", "other noise"),
        ({"camera__sim": {"focus": 1}}, "cameras.vcam1.sim.focus", "1", "true or false"),
        (
            {"camera__sim": {"flc_jitter_us": -1.0}},
            "cameras.vcam1.sim.flc_jitter_us",
            "-1.0",
            "microseconds",
        ),
        ({"pupil__sim": {"sensor": 5}}, "cameras.vpupcam.sim.sensor", "5", "[rows, columns]"),
        (
            {"pupil__sim": {"sensor": [5, 4096]}},
            "cameras.vpupcam.sim.sensor[0]",
            "5",
            "[rows, columns]",
        ),
        ({"pupil__source": "replay"}, "cameras.vpupcam", "no replay", 'path = "..."'),
        ({"pupil__replay": {}}, "cameras.vpupcam.replay.path", "nothing", "a FITS cube"),
        (
            {"pupil__replay": {"path": "cubes"}},
            "cameras.vpupcam.replay.path",
            '"cubes"',
            "an absolute path",
        ),
        (
            {"pupil__replay": {"path": "/a", "loop": 1}},
            "cameras.vpupcam.replay.loop",
            "1",
            "again and again",
        ),
        (
            {"pupil__genicam": {"packet_size": 9}},
            "cameras.vpupcam.genicam.packet_size",
            "9",
            "220 to 65000",
        ),
        (
            {"pupil__genicam": {"pixel_format": "Mono 16"}},
            "cameras.vpupcam.genicam.pixel_format",
            '"Mono 16"',
            '"Mono16"',
        ),
        ({"link__kind": "udp"}, "links.vcam1_tcp.kind", '"udp"', '"tcp" (every frame)'),
        ({"link__stream": "vcam9"}, "links.vcam1_tcp.stream", '"vcam9"', '"vcam1", "vcam2"'),
        ({"link__stream": 9}, "links.vcam1_tcp.stream", "9", "CAMERA_dark"),
        ({"link__sender": "scexao"}, "links.vcam1_tcp.sender", '"scexao"', "mean scexao5?"),
        ({"link__receiver": "sone"}, "links.vcam1_tcp.receiver", '"sone"', "mean sonne?"),
        ({"link__receiver": "scexao5"}, "links.vcam1_tcp.receiver", '"scexao5"', "another h"),
        ({"link__receiver": []}, "links.vcam1_tcp.receiver", "an empty list", "another NAME"),
        ({"link__port": 0}, "links.vcam1_tcp.port", "0", "1 to 65535"),
        (
            {"link__sender_address": "-x"},
            "links.vcam1_tcp.sender_address",
            '"-x"',
            "in the network of this link",
        ),
        ({"link__fps": 0}, "links.vcam1_tcp.fps", "0", "frames/s at most"),
        ({"link__max_mbps": "1"}, "links.vcam1_tcp.max_mbps", '"1"', "Mbit/s at most"),
        ({"link__stram": "a"}, "links.vcam1_tcp.stram", "unknown key", "did you mean stream?"),
        ({"links": {"a": {}}}, "links.a.stream", "nothing", "the name of a camera"),
        ({"links": {"a": 1}}, "links.a", "1", "a table [links.a]"),
        ({"links": {"a b": {}}}, 'links."a b"', "not allowed", "letters, digits, '_' and '-'"),
        ({"links": 1}, "links", "1", "[links.NAME]"),
        ({"header": 1}, "header", "1", "a table [header]"),
        ({"header__constants": "x"}, "header.constants", '"x"', "a TOML file of keywords"),
        ({"header__redis_host": "-x"}, "header.redis_host", '"-x"', "Redis database"),
        ({"header__redis_port": 70_000}, "header.redis_port", "70000", "1 to 65535"),
        ({"header__redis_db": -1}, "header.redis_db", "-1", "0 or more"),
        ({"header__period_s": 0}, "header.period_s", "0", "seconds, 0.1 to 3600"),
        ({"header__stale_s": 0}, "header.stale_s", "0", "seconds, 1 to 1e6"),
        ({"header__redis": "x"}, "header.redis", "unknown key", "did you mean redis_"),
        ({"logging": []}, "logging", "an empty list", "[logging]"),
        ({"logging__directory": "data"}, "logging.directory", '"data"', "absolute"),
        ({"logging__directory": "~nobody-of-all/x"}, "logging.directory", '"~no', "absolute"),
        ({"logging__warn_cube_bytes": 0}, "logging.warn_cube_bytes", "0", "2e9"),
        ({"logging__warn_cube_bytes": 1.5}, "logging.warn_cube_bytes", "1.5", "whole number"),
        ({"logging__cube_sizes": {"MBX": 1}}, "logging.cube_sizes.MBX", "unknown mode", "MBI,"),
        ({"logging__cube_sizes": {"MBI": 0}}, "logging.cube_sizes.MBI", "0", "1 to 2147483647"),
        ({"logging__ring_memory": "4 gigs"}, "logging.ring_memory", '"4 gigs"', "4GiB"),
        ({"logging__ring_memory": "0"}, "logging.ring_memory", '"0"', "4GiB"),
        ({"logging__ring_memory": 4096}, "logging.ring_memory", "4096", "4GiB"),
        ({"logging__rt_priority": 50}, "logging.rt_priority", "50", "0 (none) to 49"),
        ({"logging__rt_priority": 1 << 99}, "logging.rt_priority", "64 bits", "0 (none) to 49"),
        ({"logging__cpus": "1-"}, "logging.cpus", '"1-"', "2,4-6"),
        ({"logging__cpu_set": "a b"}, "logging.cpu_set", '"a b"', "v_log"),
        ({"logging__timeout_s": -1}, "logging.timeout_s", "-1", "seconds"),
        ({"logging__timeout_s": float("nan")}, "logging.timeout_s", "nan", "seconds"),
        ({"logging__start_lead_s": 11}, "logging.start_lead_s", "11", "0 to 10"),
        ({"logging__data_types": []}, "logging.data_types", "an empty list", "OBJECT"),
        ({"logging__data_types": ["dark"]}, "logging.data_types[0]", '"dark"', "DARK"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_file_key_what_was_found_and_what_is_allowed(
    changed: dict[str, Any], key: str, found: str, allowed: str
) -> None:
    tables = telescope(**changed)
    lines = [line for line in faults_of(tables) if f"{key}: found" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{FILE}: ")
    told_found, _, told_allowed = lines[0].partition(", expected ")
    assert found in told_found
    assert allowed in told_allowed


def test_all_faults_are_told_at_once() -> None:
    tables = telescope(host__port=0, camera__host="x", logging__cpus="x", other=1)
    assert len(faults_of(tables)) == 4


def test_what_was_found_does_nothing_to_a_terminal() -> None:
    (line,) = faults_of(telescope(host__user="\x1b[2J\x9b\n" + "x" * 1000))
    assert line.isprintable()
    assert len(line) < 300


KEYS = sorted(
    {"hosts", "cameras", "logging", "scexao5", "vcam1", "MBI", "LANG", "links", "header"}
    | {"vcam1_tcp"}
    | set(config_models.LinkConfig.model_fields)
    | set(config_models.HeaderConfig.model_fields)
    | set(config_models.SimConfig.model_fields)
    | set(config_models.ReplayConfig.model_fields)
    | set(config_models.HostConfig.model_fields)
    | set(config_models.CameraConfig.model_fields)
    | set(config_models.LoggingConfig.model_fields)
)
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=8))
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["scexao5", "~", "~x/y", "/x", "local", "sim", "1e400GB", "4GiB", "A=b"]),
    st.dates(),
    st.times().map(lambda time: time.replace(fold=0)),
    st.datetimes().map(lambda time: time.replace(fold=0)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=20,
)
tables_of_anything = st.dictionaries(keys, values, max_size=4)


def load_or_fault(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(content)
        file.flush()
        try:
            load_config(file.name)
        except ConfigError as error:
            assert error.faults
            assert all(line.startswith(f"{file.name}: ") for line in error.faults)
            assert len(str(error).splitlines()) == len(error.faults)


@given(tables_of_anything)
@example({"hosts": {"a": {}}, "cameras": {"b": {"host": "a", "number": 1}, "": {}}})
def test_any_tables_give_a_configuration_or_lines_of_faults(tables: dict[str, Any]) -> None:
    load_or_fault(toml_text(tables).encode())


@given(
    st.sampled_from(["host", "camera", "logging", "link", "header", "pupil"]),
    st.sampled_from(KEYS),
    values,
)
@example("link", "receiver", [1])
@example("link", "stream", {})
@example("pupil", "sim", {"sensor": [[]]})
@example("camera", "replay", {"path": {}})
def test_any_value_gives_a_configuration_or_lines_of_faults(
    place: str, key: str, value: Any
) -> None:
    load_or_fault(toml_text(telescope(**{f"{place}__{key}": value})).encode())


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@example(b"a = 1979-05-27T07:32:00Z")
@example(b'a = """\n\\q"""')
def test_any_bytes_give_a_configuration_or_lines_of_faults(content: bytes) -> None:
    load_or_fault(content)


@given(tables_of_anything)
def test_tables_survive_being_written(tables: dict[str, Any]) -> None:
    assert repr(tomllib.loads(toml_text(tables))) == repr(_values_first(tables))


def _values_first(value: Any) -> Any:
    """The order in which TOML can have them: in a table, values before tables."""
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: isinstance(item[1], dict))
        return {key: _values_first(item) for key, item in ordered}
    return value


# Light ------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_before_a_configuration_is_loaded() -> None:
    source = (
        "import sys, vampires.config, vampires.hosts, vampires.commands.config;"
        "print({'pydantic', 'numpy', 'tomllib', 'tomli', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


# The command ------------------------------------------------------------------------------


def test_show_prints_all_that_is_in_use(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write(places["xdg"])
    assert command.main(["config", "show"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# {places['xdg']} (the user's)\n")
    assert parse_config(tomllib.loads(text), places["xdg"]) == load_config()
    assert command.main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["file"] == str(places["xdg"])
    assert shown["config"]["hosts"]["scexao5"]["port"] == 2222
    assert shown["config"]["logging"]["start_lead_s"] == 0.1


def test_check_says_valid_or_what_is_wrong(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write(places["named"]), write(places["xdg"], TELESCOPE + "cpu = 1\nx = 2\n")
    assert command.main(["config", "check", str(good)]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: valid; cameras: vcam1 on scexao5")
    assert command.main(["config", "check"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.partition(": found")[0] for line in told.err.splitlines()] == [
        f"vampires: {bad}: logging.cpu",
        f"{bad}: logging.x",
    ]


def test_init_writes_the_packaged_file_and_replaces_none(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, place in ((["--system"], "system"), ([], "xdg"), (["named.toml"], "named")):
        file = places[place]
        argv = ["config", "init", *(str(file) if "." in word else word for word in arguments)]
        assert command.main(argv) == 0
        assert file.read_bytes() == PACKAGED_CONFIG.read_bytes()
        assert [entry.name for entry in file.parent.glob(".*")] == []
        file.write_text("mine")
        assert command.main(argv) == 2
        assert file.read_text() == "mine"
        assert "--force" in capsys.readouterr().err
        assert command.main([*argv, "--force"]) == 0
        assert file.read_bytes() == PACKAGED_CONFIG.read_bytes()
    assert f"the one in use is still {places['xdg']}" in capsys.readouterr().out


def test_init_into_a_link_replaces_what_it_leads_to(places: dict[str, Path]) -> None:
    link = places["xdg"]
    write(places["named"])
    link.parent.mkdir(parents=True)
    link.symlink_to(places["named"])
    assert command.main(["config", "init", "--force"]) == 0
    assert link.is_symlink()
    assert places["named"].read_bytes() == PACKAGED_CONFIG.read_bytes()


def test_init_where_nothing_can_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["config", "init", str(tmp_path / "no/such/file.toml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["config"], ["config", "show"], ["config", "init"]])
def test_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main([*words, "--help"])
    assert left.value.code == 0
    assert "example:\n  vampires config" in capsys.readouterr().out


def test_modes_and_numbers_are_those_of_the_cameras() -> None:
    assert set(load_config().logging.cube_sizes) <= set(instrument_on().modes)
    assert HostConfig().name == "local"
