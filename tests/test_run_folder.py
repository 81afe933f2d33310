"""The run folder: files that appear whole, what is no such file is none, locks end with their
process, sockets however deep the folder lies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vampires.run_folder import RunFolder, bind_socket, connect_socket, read_json, write_json

HOLD = """
import sys
from vampires.run_folder import RunFolder
fd = RunFolder().lock("one")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(shm_dir: Path) -> RunFolder:
    return RunFolder().make()


def test_it_lies_with_the_streams_and_is_made_when_needed(shm_dir: Path) -> None:
    run = RunFolder()
    assert run.path == shm_dir / "vampires-run"
    assert not run.path.exists()
    assert run.names() == []
    assert run.read("a") is None
    run.remove("a")
    assert run.make() is run.make() is run
    assert run.path.is_dir()
    assert RunFolder(shm_dir / "other").path == shm_dir / "other" / "vampires-run"


def test_what_is_written_is_read(run: RunFolder) -> None:
    run.write("vcam1_fgrab", {"state": "running", "n": [1, 2.5, None, "é"]})
    assert run.read("vcam1_fgrab") == {"state": "running", "n": [1, 2.5, None, "é"]}
    run.write("vcam1_fgrab", {})
    assert run.read("vcam1_fgrab") == {}
    run.remove("vcam1_fgrab")
    assert run.read("vcam1_fgrab") is None


def test_names_are_those_of_whole_files(run: RunFolder) -> None:
    for name in ("vcam2_a", "vcam1_b", "vcam1_a"):
        run.write(name, {})
    (run.path / ".vcam1_c.json.1.part").touch()
    (run.path / "vcam1.lock").touch()
    assert run.names() == ["vcam1_a", "vcam1_b", "vcam2_a"]
    assert run.names("vcam1") == ["vcam1_a", "vcam1_b"]


def test_a_reader_sees_one_file_or_the_next_and_never_a_part(run: RunFolder) -> None:
    contents = [{"all": [k] * 2000} for k in range(2)]
    run.write("x", contents[0])
    done = threading.Event()
    seen: list[Any] = []

    def read() -> None:
        while not done.is_set():
            seen.append(run.read("x"))

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(300):
        run.write("x", contents[k % 2])
    done.set()
    reader.join()
    assert seen
    assert all(found in contents for found in seen)


def test_a_file_that_cannot_be_written_leaves_none_behind(run: RunFolder) -> None:
    (run.path / "x.json").mkdir()
    with pytest.raises(OSError, match=r"x\.json"):
        run.write("x", {"a": 1})
    assert [entry.name for entry in run.path.iterdir()] == ["x.json"]
    with pytest.raises(OSError, match="No such file"):
        write_json(run.path / "no/such.json", {})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"3", b"null", b"\xff", b"[" * 100_000, b'{"a": "' + b"x" * (1 << 20)],
    ids=["empty", "cut", "list", "number", "null", "bytes", "deep", "long"],
)
def test_what_is_no_object_is_none(run: RunFolder, content: bytes) -> None:
    run.file("x").write_bytes(content)
    assert run.read("x") is None


def test_what_is_no_file_is_none_and_is_not_waited_for(run: RunFolder) -> None:
    run.file("folder").mkdir()
    os.mkfifo(run.file("pipe"))
    run.file("link").symlink_to("nowhere")
    assert [run.read(name) for name in ("folder", "pipe", "link")] == [None] * 3
    assert read_json(Path("/proc/self/mem")) is None


def test_a_lock_is_held_once_and_until_it_is_let_go(run: RunFolder) -> None:
    with run.locked("one"):
        with pytest.raises(TimeoutError, match="one is held by another process"):
            run.lock("one", 0.0)
        with pytest.raises(TimeoutError), run.locked("one", 0.05):
            pass
        with run.locked("two", 0.0):
            pass
    with run.locked("one", 0.0):
        pass


def test_a_lock_that_cannot_be_had_leaves_no_descriptor(run: RunFolder) -> None:
    with run.locked("one"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(TimeoutError):
                run.lock("one", 0.0)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_lock_ends_with_its_process_however_that_ends(
    run: RunFolder, start_python: Any
) -> None:
    holder = start_python(HOLD, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(TimeoutError):
        run.lock("one", 0.0)
    holder.kill()
    os.close(run.lock("one"))


def test_programs_that_are_started_do_not_inherit_a_lock(run: RunFolder) -> None:
    fd = run.lock("one")
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)


def talk(path: Path) -> bytes:
    """What a client says reaches the server at that path."""
    with bind_socket(path) as server, connect_socket(path, 10.0) as client:
        peer, _ = server.accept()
        with peer:
            client.sendall(b"hello")
            return peer.recv(10)


def test_a_socket_is_reached_however_long_its_path(run: RunFolder) -> None:
    folder = run.path
    for _ in range(10):
        folder = folder / ("x" * 60)
    folder.mkdir(parents=True)
    assert len(str(folder)) > 600
    assert talk(folder / "cam.sock") == b"hello"


def test_a_socket_left_behind_is_replaced_and_is_its_users_alone(run: RunFolder) -> None:
    path = run.path / "cam.sock"
    bind_socket(path).close()
    with pytest.raises(ConnectionRefusedError):
        connect_socket(path, 1.0)
    before = os.umask(0o022)
    os.umask(before)
    assert talk(path) == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.umask(before) == before


def test_a_socket_that_is_not_there_is_told(run: RunFolder) -> None:
    with pytest.raises(FileNotFoundError):
        connect_socket(run.path / "cam.sock", 1.0)
    with pytest.raises(FileNotFoundError):
        connect_socket(run.path / "no/cam.sock", 1.0)
    with pytest.raises(OSError, match=r"File name too long|path too long"):
        bind_socket(run.path / ("x" * 200))


def test_who_finds_the_door_crowded_waits_for_room(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run.path / "cam.sock"
    with bind_socket(path) as server, contextlib.ExitStack() as stack:
        crowd = []
        with pytest.raises(BlockingIOError):
            while True:
                crowd.append(stack.enter_context(connect_socket(path, 0.0)))
        waited: list[float] = []

        def one_is_let_in(seconds: float) -> None:
            waited.append(seconds)
            server.accept()[0].close()

        monkeypatch.setattr(time, "sleep", one_is_let_in)
        connect_socket(path, 10.0).close()
        assert len(waited) == 1


def test_json_is_plain(run: RunFolder) -> None:
    run.write("x", {"a": True})
    assert json.loads(run.file("x").read_bytes()) == {"a": True}


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).make()
    assert run.path.stat().st_mode & 0o022 == 0
    run.path.chmod(0o775)
    with pytest.raises(PermissionError, match="another user owns it or may write to it"):
        run.make()
