"""The hosts of the end-to-end tests are three: names, network, shells, files, and an end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from link_peers import wait_until
from missing_rights import cannot_run
from namespace_holder import end_processes, namespaces_of, processes_in
from three_hosts import SSH_PORT, CannotMakeHosts, Host, Hosts, three_hosts

from vampires.logger_control import look
from vampires.stream import Stream

PATIENCE_S = 30.0
CAMERAS = """
[cameras.vcam1]
number = 1
host = "scexao5"

[cameras.vcam2]
number = 2
host = "scexao5"

[cameras.vpupcam]
host = "sonne"
logged = false

[logging]
directory = "~/data"
archive_directory = "~/archive"
ring_memory = "16MiB"
"""
CONNECTS = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.3)
except OSError:
    sys.exit("no connection")
"""
IGNORES_SIGTERM = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
HOLDS_HOSTS = """
import json, sys
from pathlib import Path
from three_hosts import three_hosts
with three_hosts(Path(sys.argv[1])) as hosts:
    hosts["sonne"].tmux("new-session", "-d", "-s", "left")
    holders = [host.namespaces.holder.pid for host in hosts.values()]
    holders.append(hosts["sonne"].switch.holder.pid)
    folders = [str(f) for host in hosts.values() for f in (host.shm_dir, host.tmux_dir)]
    print(json.dumps({"holders": holders, "folders": folders}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(three_hosts(tmp_path))
        except CannotMakeHosts as error:
            cannot_run(f"no namespaces here: {error}")
        yield made


def connects(host: Host, to: Host) -> bool:
    """Whether a host reaches the sshd of another, at once."""
    return host.python(CONNECTS, to.address, SSH_PORT, check=False).returncode == 0


def test_each_host_has_a_name_and_shells_of_its_own_for_the_others(hosts: Hosts) -> None:
    for host in hosts.values():
        assert host.run("hostname").stdout == f"{host.name}\n"
        assert host.python("import socket; print(socket.gethostname())").stdout.split() == [
            host.name
        ]
        assert Path(host.run("sh", "-c", "cd; pwd").stdout.strip()) == host.home
    asked = "echo $(hostname) $HOME $MILK_SHM_DIR $VAMPIRES_CONFIG $(command -v vampires)"
    for host in hosts.values():
        for other in hosts.values():
            answer = host.run("ssh", "-o", "BatchMode=yes", other.name, asked).stdout.split()
            own = [other.name, *map(str, (other.home, other.shm_dir, other.config))]
            assert answer == [*own, str(Path(sys.executable).with_name("vampires"))]
    assert len({host.shm_dir for host in hosts.values()}) == 3


def test_a_window_of_tmux_is_a_shell_of_its_host(hosts: Hosts) -> None:
    host = hosts["scexao6"]
    host.tmux("new-session", "-d", "-s", "window")
    line = f"echo $(hostname) $MILK_SHM_DIR $(command -v vampires) > {host.home}/said"
    host.tmux("send-keys", "-t", "window", f"{line}; tmux wait-for -S said", "Enter")
    host.tmux("wait-for", "said")
    vampires = Path(sys.executable).with_name("vampires")
    said = (host.home / "said").read_text().split()
    assert said == ["scexao6", str(host.shm_dir), str(vampires)]
    assert hosts["sonne"].tmux("list-sessions") == ""
    pane = int(host.tmux("list-panes", "-a", "-F", "#{pane_pid}"))
    assert pane in host.pids() - hosts["sonne"].pids()


def test_a_night_with_the_cameras_on_one_host_and_the_observer_on_another(
    hosts: Hosts,
) -> None:
    hosts.write_config(hosts.config_tables() + CAMERAS)
    for host in hosts.values():
        assert (
            "vcam2 on scexao5, vpupcam on sonne"
            in host.run("vampires", "config", "check").stdout
        )
    scexao5, sonne = hosts["scexao5"], hosts["sonne"]
    camera = scexao5.start("vampires-framesim", "vcam1", "--shape", 64, 96, "--fps", 50)
    wait_until(lambda: Stream.list(scexao5.shm_dir), "the stream of the camera")
    only = ("-c", "1")
    said = sonne.run("vampires_preplog", "--yes", *only, "-n", 10).stdout
    assert "vcam1: the logger is ready" in said
    assert "streamFITSlog-vcam1" in scexao5.tmux("list-sessions")
    sonne.run("vampires_startlog", *only)
    wait_until(lambda: look("vcam1", scexao5.shm_dir).frames >= 15, "15 frames in cubes")
    ended = json.loads(sonne.run("vampires_pauselog", "--json", *only).stdout)
    sonne.run("vampires_stoplog", "--kill", *only)
    files = ended["cameras"][0]["files"]
    assert len(files) >= 2
    assert all(Path(file).is_relative_to(scexao5.home / "data") for file in files)
    scexao5.run("vampires-verify", *files)
    assert not (sonne.home / "data").exists()
    camera.terminate()
    assert camera.wait(PATIENCE_S) == 0


def test_a_cable_is_cut_and_mended(hosts: Hosts) -> None:
    scexao5, scexao6, sonne = (hosts[name] for name in ("scexao5", "scexao6", "sonne"))
    echo = sonne.start("ssh", "scexao5", "cat", stdin=subprocess.PIPE)
    assert said_back(echo, "before") == "before"
    assert connects(scexao6, scexao5)
    scexao5.cut()
    assert "NO-CARRIER" in scexao5.run("ip", "link", "show", scexao5.device).stdout
    assert not connects(scexao6, scexao5)
    assert not connects(scexao5, scexao6)
    assert connects(scexao6, sonne)
    scexao5.mend()
    scexao6.wait_until_reaches(scexao5.address)
    assert connects(scexao6, scexao5)
    assert said_back(echo, "after") == "after"


def said_back(echo: subprocess.Popen[str], word: str) -> str:
    """What a process with pipes answers to a line."""
    assert echo.stdin is not None and echo.stdout is not None
    echo.stdin.write(f"{word}\n")
    echo.stdin.flush()
    return echo.stdout.readline().strip()


def test_a_cable_is_slow_both_ways(hosts: Hosts) -> None:
    sonne = hosts["sonne"]

    def limits() -> list[bool]:
        shown = ["tc", "qdisc", "show", "dev"]
        far = subprocess.run(
            sonne.switch.command(Path("/"), *shown, sonne.name),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return ["rate 500Mbit" in text for text in (sonne.run(*shown, "eth0").stdout, far)]

    hosts.shape("sonne", mbit=500)
    assert limits() == [True, True]
    hosts.shape("sonne", mbit=None)
    assert limits() == [False, False]


def test_a_process_that_ignores_sigterm_is_killed(hosts: Hosts) -> None:
    host = hosts["scexao6"]
    process = host.start(sys.executable, "-c", IGNORES_SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert process.pid in host.pids()
    holder = host.namespaces.holder.pid
    end_processes(namespaces_of(holder), but=holder, grace_s=0.1)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert host.pids() == set()
    assert connects(hosts["sonne"], hosts["scexao5"])


def test_nothing_is_left_after_a_failure(tmp_path: Path, hosts: Hosts) -> None:
    # The fixture says whether there may be hosts; these are others beside them.
    devices = socket.if_nameindex()
    namespaces: set[str] = set()
    folders: list[Path] = []
    with pytest.raises(ZeroDivisionError), three_hosts(tmp_path / "others") as others:
        for host in others.values():
            namespaces |= namespaces_of(host.namespaces.holder.pid)
            namespaces |= namespaces_of(host.switch.holder.pid)
            folders += [host.shm_dir, host.tmux_dir]
            host.tmux("new-session", "-d", "-s", "left")
            host.start("setsid", "--fork", "sleep", "1000", stdout=None, stderr=None).wait()
            os.kill(host.start("sleep", "1000").pid, signal.SIGSTOP)
            assert len(host.pids()) >= 5  # with sshd, tmux and its shell
        assert len(namespaces) == 8
        raise ZeroDivisionError
    assert_gone(namespaces, folders, tmp_path / "others")
    assert socket.if_nameindex() == devices
    assert connects(hosts["sonne"], hosts["scexao5"])


def test_nothing_is_left_of_a_test_that_is_killed(tmp_path: Path, hosts: Hosts) -> None:
    test = subprocess.Popen(
        [sys.executable, "-c", HOLDS_HOSTS, tmp_path / "others"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with test:
        assert test.stdout is not None
        told = json.loads(test.stdout.readline())
        namespaces = set().union(*map(namespaces_of, told["holders"]))
        assert len(namespaces) == 8
        pidfds = [os.pidfd_open(pid) for pid in told["holders"]]
        test.kill()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], "a holder lives"
        os.close(pidfd)
    assert_gone(namespaces, map(Path, told["folders"]), tmp_path / "others")


def assert_gone(namespaces: set[str], folders: Iterable[Path], homes: Path) -> None:
    """Nothing runs in these namespaces, and neither folders nor mounts are left."""
    assert processes_in(namespaces, but=0) == []
    assert [folder for folder in folders if folder.exists()] == []
    assert str(homes) not in Path("/proc/self/mountinfo").read_text()
