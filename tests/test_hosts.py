"""Commands on other machines: through a real sshd; nothing lost, changed or left running."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pty
import select
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ssh_server import ADDRESS, SshServer, free_port, ssh_server

from vampires import ssh_command
from vampires.commands.common import UserError, setup_signals
from vampires.config import parse_config
from vampires.config_models import CameraConfig, Config, HostConfig
from vampires.hosts import HostUnreachable, capture_there, on_camera_hosts, run_there

PATIENCE_S = 30.0  # for what must happen at once, on a machine that is busy
NASTY = [
    "",
    " ",
    "a b",
    "-c",
    "--",
    "'",
    '"',
    "\\",
    "\\n",
    "$HOME",
    "$(echo x >&2)",
    "`echo x`",
    "a;b",
    "a&b|c>d<e",
    "*",
    "~",
    "!!",
    "#x",
    "a\nb",
    "{a,b}",
    "K=V",
    "déjà vu",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A folder for commands, named as command_dir."""
    folder = tmp_path / "commands of ours"
    folder.mkdir()
    return folder


@pytest.fixture
def host(server: SshServer, bin_dir: Path) -> HostConfig:
    """The other machine: this one, over ssh."""
    return HostConfig(**server.host_table(command_dir=str(bin_dir)))


def install(bin_dir: Path, name: str, script: str) -> None:
    """Makes a command, out of a shell script."""
    file = bin_dir / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def explanation_of(host: HostConfig, command: str = "true") -> str:
    """What a failing command says, in both ways of running it."""
    said = set()
    for run in (run_there, capture_there):
        with pytest.raises(HostUnreachable) as caught:
            run(host, command)
        assert isinstance(caught.value, UserError)
        said.add(str(caught.value))
    (text,) = said
    assert text.isprintable()
    assert text.startswith(f"host {host.name}")
    return text


# The command and its output ---------------------------------------------------------------


def test_output_and_exit_status_pass_through(
    host: HostConfig, bin_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install(bin_dir, "vampires_x", "echo out; echo err >&2; exit 7")
    assert run_there(host, "vampires_x") == 7
    assert capfd.readouterr() == ("out\n", "err\n")
    done = capture_there(host, "vampires_x", ["-c", "1"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert done.args == ["vampires_x", "-c", "1"]
    assert capfd.readouterr() == ("", "")


def test_output_comes_as_it_is_made(
    server: SshServer, bin_dir: Path, start_python: Any
) -> None:
    os.mkfifo(bin_dir / "fifo")
    install(bin_dir, "vampires_x", f"echo begun; cat {shlex.quote(str(bin_dir))}/fifo; exit 5")
    process = start_there(start_python, server, bin_dir)
    assert process.stdout.readline() == "begun\n"
    (bin_dir / "fifo").write_text("more\n")
    assert process.communicate(timeout=PATIENCE_S) == ("more\n", "")
    assert process.returncode == 5


def test_arguments_arrive_as_they_are(host: HostConfig, bin_dir: Path) -> None:
    install(bin_dir, "vampires_x", "printf '%s\\0' \"$@\"")
    done = capture_there(host, "vampires_x", NASTY)
    assert done.stdout.split("\0")[:-1] == NASTY
    assert done.stderr == ""


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
variables = st.text(st.characters(exclude_categories=["C"]), max_size=20)


@settings(max_examples=40)
@given(
    st.lists(text, max_size=4),
    st.dictionaries(st.from_regex("[A-Z_]{2,6}_X", fullmatch=True), variables, max_size=3),
)
def test_no_value_means_anything_to_the_shell(
    args: list[str], environment: dict[str, str]
) -> None:
    host = HostConfig(address="there", environment=environment, command_dir="/a b'$x\"")
    script = "import os, sys; print(ascii([sys.argv[1:], dict(os.environ)]))"
    line = ssh_command.remote_line(host, "python3", ["-c", script, *args], leashed=True)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    far_end, leash = os.pipe()
    with os.fdopen(far_end) as stdin, os.fdopen(leash, "w"):
        done = subprocess.run(
            ["sh", "-c", line],
            stdin=stdin,
            capture_output=True,
            env={"PATH": path},
            check=True,
        )
    arguments, found = ast.literal_eval(done.stdout.decode())
    assert arguments == args
    assert {name: found[name] for name in environment} == environment
    assert found["PATH"] == f"{host.command_dir}:{path}"


def test_the_environment_is_that_of_the_configuration(server: SshServer, bin_dir: Path) -> None:
    host = HostConfig(
        **server.host_table(
            shm_dir="/some where", environment={"A": "$B 'c'", "MILK_SHM_DIR": ""}
        )
    )
    assert capture_there(host, "printenv", ["A", "MILK_SHM_DIR"]).stdout == (
        "$B 'c'\n/some where\n"
    )


def test_a_command_is_a_plain_name(host: HostConfig) -> None:
    for command in ("", "-x", "a b", "a;b", "A=b", "/bin/true", "a\n"):
        with pytest.raises(ValueError, match="not the name"):
            run_there(host, command)


def test_without_interaction_a_command_has_no_input(host: HostConfig) -> None:
    assert capture_there(host, "cat").stdout == ""


def test_an_interactive_command_reads_what_is_typed(
    server: SshServer, bin_dir: Path, start_python: Any
) -> None:
    install(bin_dir, "vampires_x", "read line; echo got $line")
    process = start_there(
        start_python, server, bin_dir, interactive=True, stdin=subprocess.PIPE
    )
    assert process.communicate("an answer\n", timeout=PATIENCE_S) == ("got an answer\n", "")


def test_the_connection_is_made_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    host = HostConfig(
        address="there", port=2222, user="me", identity_file="/k", ssh_options=["A=b"]
    )
    line = " ".join(ssh_command.ssh_arguments(host, tty=False, log_file="/log"))
    assert line.startswith("ssh -o BatchMode=yes -o ConnectTimeout=5 -o LogLevel=ERROR")
    assert " -p 2222 -i /k -l me -o A=b " in line
    assert line.endswith(" -T -- there")
    assert ssh_command.ssh_arguments(host, tty=True, log_file="/log")[-3:] == [
        "-t",
        "--",
        "there",
    ]


@pytest.mark.parametrize("address", ["-oProxyCommand=touch x", None])
def test_what_is_no_address_never_reaches_ssh(address: str | None) -> None:
    host = HostConfig.model_construct(address=address, ssh_options=(), environment={})
    with pytest.raises(ValueError, match="no address"):
        run_there(host, "true")


# What can go wrong ------------------------------------------------------------------------


def test_nothing_listens(server: SshServer) -> None:
    port = free_port()
    text = explanation_of(HostConfig(**server.host_table(port=port)))
    assert f"nothing takes ssh connections at port {port}" in text
    assert f'hosts."{ADDRESS}".port' in text


def test_a_machine_that_never_answers_is_given_up(server: SshServer) -> None:
    with socket.socket() as silent:
        silent.bind((ADDRESS, 0))
        silent.listen()
        host = HostConfig(**server.host_table(port=silent.getsockname()[1]))
        with pytest.raises(HostUnreachable, match="no answer within 5 s; is it switched on"):
            run_there(host, "true")


def test_unknown_name(server: SshServer) -> None:
    text = explanation_of(HostConfig(**server.host_table(address="x" * 64)))
    assert "no machine of that name is known" in text
    assert ".address" in text


def test_wrong_key(server: SshServer) -> None:
    text = explanation_of(HostConfig(**server.host_table(identity_file=server.stranger_key)))
    assert "does not accept the key" in text
    assert "Permission denied (publickey)" in text
    assert f"ssh-copy-id -p {server.port} {ADDRESS}" in text


def test_wrong_user(server: SshServer) -> None:
    text = explanation_of(HostConfig(**server.host_table(user="nobody-of-all")))
    assert "does not accept the key (nobody-of-all@" in text
    assert f"ssh-copy-id -p {server.port} nobody-of-all@{ADDRESS}" in text


def test_missing_key(server: SshServer, tmp_path: Path) -> None:
    file = tmp_path / "none"
    text = explanation_of(HostConfig(**server.host_table(identity_file=file)))
    assert f"there is no private key {file}" in text


def test_a_key_that_others_may_read(server: SshServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(server.identity_file.read_bytes())
    key.chmod(0o644)
    text = explanation_of(HostConfig(**server.host_table(identity_file=key)))
    assert f"chmod 600 {key}" in text


def test_unknown_host_key(server: SshServer, tmp_path: Path) -> None:
    options = server.ssh_options(known_hosts=tmp_path / "empty")
    text = explanation_of(HostConfig(**server.host_table(ssh_options=options)))
    assert "its host key is not known here" in text
    assert f"accept it: ssh -p {server.port} {ADDRESS}" in text


def test_changed_host_key(server: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    other_key = server.stranger_key.with_suffix(".pub").read_text()
    known.write_text(f"[{ADDRESS}]:{server.port} {other_key}")
    text = explanation_of(
        HostConfig(**server.host_table(ssh_options=server.ssh_options(known_hosts=known)))
    )
    assert "its host key is not the one that is known" in text
    assert f"ssh-keygen -R '[{ADDRESS}]:{server.port}'" in text


def test_an_option_that_ssh_does_not_know(server: SshServer) -> None:
    with pytest.raises(
        HostUnreachable, match=r"Bad configuration option: nosuch; .*ssh_options"
    ):
        capture_there(HostConfig(**server.host_table(ssh_options=["Nosuch=1"])), "true")
    with pytest.raises(HostUnreachable, match=r"ssh_options"):
        run_there(HostConfig(**server.host_table(ssh_options=["Nosuch=1"])), "true")


def test_a_command_that_is_not_there(
    host: HostConfig, server: SshServer, bin_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = explanation_of(host, "vampires_none")
    assert f"there is no command vampires_none in {bin_dir} or its PATH" in text
    assert ".command_dir" in text
    text = explanation_of(HostConfig(**server.host_table()), "vampires_none")
    assert "no command vampires_none in its PATH" in text
    assert capfd.readouterr() == ("", "")


def test_no_ssh_on_this_machine(
    host: HostConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ssh is not installed on this machine" in explanation_of(host)


def test_a_command_that_is_killed_there(host: HostConfig, bin_dir: Path) -> None:
    install(bin_dir, "vampires_x", "kill -9 $$")
    assert "the command was killed there" in explanation_of(host, "vampires_x")


def test_what_the_far_end_says_does_not_explain_the_connection(
    host: HostConfig, bin_dir: Path
) -> None:
    install(bin_dir, "vampires_x", "echo Permission denied >&2; kill -9 $$")
    assert "the command was killed there" in explanation_of(host, "vampires_x")


# Its end ----------------------------------------------------------------------------------

# Says when it has begun, and in the fifo how it ended.
WAITING = """\
fifo={fifo}
trap 'echo interrupted >$fifo; echo last words; exit 3' INT
trap 'echo hung up >$fifo; exit 4' HUP
echo begun
exec 2>/dev/null  # where sh tells of the call that the signal interrupted
while :; do read line <{never}; done"""


@pytest.fixture
def ended(bin_dir: Path) -> Iterator[Callable[[], str]]:
    """Installs vampires_x, which waits for ever; ended() waits until it ends and says how."""
    never, fifo = bin_dir / "never", bin_dir / "fifo"
    os.mkfifo(never)
    os.mkfifo(fifo)
    script = WAITING.format(fifo=shlex.quote(str(fifo)), never=shlex.quote(str(never)))
    install(bin_dir, "vampires_x", script)
    said = os.open(fifo, os.O_RDWR)

    def read() -> str:
        ready, _, _ = select.select([said], [], [], PATIENCE_S)
        return os.read(said, 100).decode().strip() if ready else "did not end"

    yield read
    os.close(said)


CALL = """\
import json, sys
from vampires.config_models import HostConfig
from vampires.hosts import run_there
from vampires.commands.common import user_errors
@user_errors("test")
def main(argv=None):
    host = HostConfig(**json.loads(sys.argv[1]))
    return run_there(host, "vampires_x", interactive={interactive}, timeout_s={timeout_s})
sys.exit(main())
"""


def start_there(
    start: Any,
    server: SshServer,
    bin_dir: Path,
    *,
    interactive: bool = False,
    timeout_s: float | None = None,
    **options: Any,
) -> Any:
    """Starts a Python that runs vampires_x on the other machine."""
    table = server.host_table(command_dir=str(bin_dir))
    source = CALL.format(interactive=interactive, timeout_s=timeout_s)
    return start(source, json.dumps(table), **options)


def test_ctrl_c_ends_the_command_there(
    server: SshServer, bin_dir: Path, ended: Callable[[], str], start_python: Any
) -> None:
    process = start_there(start_python, server, bin_dir, start_new_session=True)
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert ended() == "interrupted"
    assert process.communicate(timeout=PATIENCE_S) == ("last words\n", "")
    assert process.returncode == 130


def test_a_command_ends_with_the_process_that_asked_for_it(
    server: SshServer, bin_dir: Path, ended: Callable[[], str], start_python: Any
) -> None:
    process = start_there(start_python, server, bin_dir)
    assert process.stdout.readline() == "begun\n"
    process.kill()
    assert ended() == "interrupted"


def test_a_command_ends_when_its_time_is_over(
    host: HostConfig, bin_dir: Path, ended: Callable[[], str]
) -> None:
    for run in (run_there, capture_there):
        with pytest.raises(HostUnreachable, match=r"vampires_x did not end within 0.5 s"):
            run(host, "vampires_x", timeout_s=0.5)


def test_ctrl_c_goes_through_a_terminal(
    server: SshServer, bin_dir: Path, ended: Callable[[], str], start_python: Any
) -> None:
    terminal, far_side = pty.openpty()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), far_side)
    process = start_there(
        start_python, server, bin_dir, interactive=True, start_new_session=True, **pipes
    )
    os.close(far_side)
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        shown = b""
        while b"begun" not in shown:
            ready, _, _ = select.select([screen], [], [], PATIENCE_S)
            assert ready, f"only {shown!r}"
            shown += screen.read(100)
        screen.write(b"\x03")
        assert ended() == "interrupted"
        assert process.wait(PATIENCE_S) == 3


def test_a_broken_connection_ends_the_command_and_is_told(
    server: SshServer, bin_dir: Path, ended: Callable[[], str], start_python: Any
) -> None:
    process = start_there(start_python, server, bin_dir)
    assert process.stdout.readline() == "begun\n"
    (ssh,) = children_of(process.pid)
    os.kill(ssh, signal.SIGKILL)
    assert ended() == "interrupted"
    assert "the connection broke" in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 2


def test_nothing_runs_on_after_a_command_has_ended(host: HostConfig, bin_dir: Path) -> None:
    install(bin_dir, "vampires_x", "cat /proc/$$/task/$$/children")
    processes = capture_there(host, "vampires_x").stdout.split()
    assert len(processes) == 2  # the watcher, and cat itself
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            process_fd = os.pidfd_open(int(pid))
            ready, _, _ = select.select([process_fd], [], [], PATIENCE_S)
            os.close(process_fd)
            assert ready


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# The same on several machines --------------------------------------------------------------


def config_of(server: SshServer, cameras: dict[str, Any], **hosts: Any) -> Config:
    """Cameras by name -> host or (host, number); hosts by name -> their table or None."""
    tables: dict[str, Any] = {"hosts": {}, "cameras": {}}
    for name, table in hosts.items():
        tables["hosts"][name] = table or {}
    for number, (name, host) in enumerate(cameras.items(), 1):
        tables["cameras"][name] = {"host": host}
        if number <= 2:
            tables["cameras"][name]["number"] = number
    return parse_config(tables, Path("test.toml"))


def never(cameras: list[CameraConfig]) -> int:
    raise AssertionError("nothing of this is here")


def test_cameras_of_this_machine_need_no_ssh(
    server: SshServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    config = config_of(server, {"vcam1": "here", "vcam2": "here"}, here=None)

    def run_here(cameras: list[CameraConfig]) -> int:
        print([camera.name for camera in cameras])
        return 4

    assert on_camera_hosts(config, config.logged_cameras(), "vampires_x", [], run_here) == 4
    assert capfd.readouterr() == ("['vcam1', 'vcam2']\n", "")


def test_cameras_of_one_other_machine_are_one_command(
    server: SshServer, bin_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install(bin_dir, "vampires_x", 'echo "$@"; exit 5')
    cameras = {"vcam1": "there", "vcam2": "there", "vpupcam": "there"}
    config = config_of(server, cameras, there=server.host_table(command_dir=str(bin_dir)))
    status = on_camera_hosts(
        config, config.logged_cameras(), "vampires_x", ["-z", "5 0"], never
    )
    assert status == 5
    assert capfd.readouterr() == ("--local -c 1 -c 2 -c vpupcam -z 5 0\n", "")


def test_lines_of_several_machines_bear_their_names(
    server: SshServer, bin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(bin_dir, "vampires_x", 'echo "$@"; echo wrong >&2; printf unfinished; exit 5')
    table = server.host_table(command_dir=str(bin_dir))
    cameras = {"vcam1": "here", "vcam2": "there", "vpupcam": "yonder"}
    config = config_of(server, cameras, here=None, there=table, yonder=table)

    def run_here(cameras: list[CameraConfig]) -> int:
        print("one\ntw", end="")
        print("oops", file=sys.stderr)
        return 1

    assert on_camera_hosts(config, config.logged_cameras(), "vampires_x", [], run_here) == 5
    shown = capsys.readouterr()
    assert sorted(shown.out.splitlines()) == [
        "here: one",
        "here: tw",
        "there: --local -c 2",
        "there: unfinished",
        "yonder: --local -c vpupcam",
        "yonder: unfinished",
    ]
    assert sorted(shown.err.splitlines()) == ["here: oops", "there: wrong", "yonder: wrong"]


def test_machines_work_at_the_same_time(server: SshServer, bin_dir: Path) -> None:
    os.mkfifo(bin_dir / "fifo")
    fifo = shlex.quote(str(bin_dir / "fifo"))
    # Opening a fifo waits for the other side: each of the two ends only with the other.
    install(bin_dir, "vampires_x", f'case "$*" in *1*) : <{fifo};; *) : >{fifo};; esac')
    table = server.host_table(command_dir=str(bin_dir))
    config = config_of(server, {"vcam1": "a", "vcam2": "b"}, a=table, b=table)
    status = on_camera_hosts(
        config, config.logged_cameras(), "vampires_x", [], never, timeout_s=PATIENCE_S
    )
    assert status == 0


@pytest.mark.parametrize("broken", ["there", "yonder", "here"])
@pytest.mark.parametrize("fault", [{"port": 1}, {"identity_file": "/none"}])
def test_a_machine_that_fails_does_not_keep_the_others_from_running(
    fault: dict[str, Any],
    broken: str,
    server: SshServer,
    bin_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(bin_dir, "vampires_x", "echo good")
    good = server.host_table(command_dir=str(bin_dir))
    bad = server.host_table(**fault)
    cameras = {"vcam1": "here", "vcam2": "there", "vpupcam": "yonder"}
    tables = {name: bad if name == broken else good for name in ("there", "yonder")}
    config = config_of(server, cameras, here=None, **tables)

    def run_here(cameras: list[CameraConfig]) -> int:
        if broken == "here":
            raise UserError("no such thing")
        print("good")
        return 0

    assert on_camera_hosts(config, config.logged_cameras(), "vampires_x", [], run_here) == 2
    shown = capsys.readouterr()
    working = {"here", "there", "yonder"} - {broken}
    assert set(shown.out.splitlines()) == {f"{name}: good" for name in working}
    (line,) = shown.err.splitlines()
    assert line.startswith(f"{broken}: vampires_x: ")


def test_a_machine_that_takes_too_long_is_told_with_the_others(
    server: SshServer, bin_dir: Path, ended: Callable[[], str], capsys: Any
) -> None:
    table = server.host_table(command_dir=str(bin_dir))
    config = config_of(server, {"vcam1": "here", "vcam2": "there"}, here=None, there=table)
    status = on_camera_hosts(
        config, config.logged_cameras(), "vampires_x", [], lambda _: 0, timeout_s=1.0
    )
    assert status == 2
    assert "vampires_x did not end within 1 s" in capsys.readouterr().err


@pytest.mark.parametrize("handled", [False, True])
def test_ctrl_c_ends_the_commands_on_all_machines(
    handled: bool, server: SshServer, bin_dir: Path, ended: Callable[[], str]
) -> None:
    table = server.host_table(command_dir=str(bin_dir))
    config = config_of(server, {"vcam1": "here", "vcam2": "there"}, here=None, there=table)
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd) as shown, os.fdopen(write_fd, "w") as out:

        def run_here(cameras: list[CameraConfig]) -> int:
            assert shown.readline() == "there: begun\n"
            os.kill(os.getpid(), signal.SIGINT)
            return 0

        with setup_signals() if handled else contextlib.nullcontext() as stop:
            before = signal.getsignal(signal.SIGINT)
            with contextlib.redirect_stdout(out):
                status = on_camera_hosts(
                    config, config.logged_cameras(), "vampires_x", [], run_here
                )
            assert signal.getsignal(signal.SIGINT) == before
            assert stop is None or stop.is_set()
        assert ended() == "interrupted"
        assert status == (3 if handled else 130)
        assert shown.readline() == "there: last words\n"


def test_a_command_that_is_ended_by_ctrl_c_is_no_fault(
    server: SshServer, bin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(bin_dir / "fifo")
    install(
        bin_dir, "vampires_x", f"echo begun >{shlex.quote(str(bin_dir))}/fifo; exec sleep 99"
    )
    table = server.host_table(command_dir=str(bin_dir))
    config = config_of(server, {"vcam1": "here", "vcam2": "there"}, here=None, there=table)

    def run_here(cameras: list[CameraConfig]) -> int:
        assert (bin_dir / "fifo").read_text() == "begun\n"
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    with setup_signals():
        status = on_camera_hosts(config, config.logged_cameras(), "vampires_x", [], run_here)
    assert status == 130
    assert capsys.readouterr().err == ""
