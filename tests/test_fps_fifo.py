"""milk-fpsCTRL without a screen: command lines through a FIFO."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fps_makers import copy_golden, make_fps, seem_running
from hypothesis import given
from hypothesis import strategies as st

from vampires.commands.common import StopEvent
from vampires.fps import FPS
from vampires.fps.layout import Signal
from vampires.fps_control import ActionFailed
from vampires.fpsctrl import command_lines as fps_commands
from vampires.fpsctrl.command_lines import FPSCommands, LineRefused, LineSplitter, Outcome
from vampires.fpsctrl.fifo import Fifo
from vampires.fpsctrl.filter import FPSFilter

FPS_COMMANDS = {
    "confstart": "conf_start",
    "confstop": "conf_stop",
    "runstart": "run_start",
    "runstop": "run_stop",
    "tmuxstart": "tmux_start",
    "tmuxstop": "tmux_stop",
    "fpsrm": "remove",
}


class Headless:
    """A milk-fpsCTRL -s, and its FIFO."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path
        assert "reads command lines" in self.said()

    def said(self) -> str:
        """The next line it prints, without the time."""
        line = self.process.stdout.readline()
        assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d ", line), line + self.process.stderr.read()
        return line[13:].rstrip("\n")

    def send(self, raw: bytes | str) -> None:
        """Writes to the FIFO from a process of its own, as a script does."""
        data = raw.encode() if isinstance(raw, str) else raw
        subprocess.run(["tee", self.path], input=data, stdout=subprocess.DEVNULL, check=True)

    def outcome(self, line: str) -> str:
        """Sends a line; what became of it."""
        self.send(line + "\n")
        command, _, text = self.said().partition(" -> ")
        assert command == " ".join(line.split("\t")).strip()[: len(command)]
        return text


@pytest.fixture
def headless(start_command: Any, shm_dir: Path) -> Callable[..., Headless]:
    def start(*arguments: str, path: Path | None = None, **environment: str) -> Headless:
        fifo = shm_dir / "test.fifo" if path is None else path
        process = start_command(
            "fps-ctrl", "-s", "-f", fifo, *arguments, env={**os.environ, **environment}
        )
        return Headless(process, fifo)

    return start


class Said(list[Outcome]):
    """Commands that run in this process, and what became of them."""

    def __init__(self, shm_dir: Path, stop: StopEvent, fps_filter: FPSFilter) -> None:
        super().__init__()
        self.commands = FPSCommands(shm_dir, fps_filter, stop, self.append)

    def of(self, line: str | LineRefused) -> str:
        """Runs a line; its outcome."""
        self.commands.run(line)
        outcome = self[-1]
        return outcome.text if outcome.ok else f"failed: {outcome.text}"


@pytest.fixture
def commands(shm_dir: Path) -> Iterator[Said]:
    with StopEvent() as stop:
        said = Said(shm_dir, stop, FPSFilter())
        said.stop = stop
        yield said


# -- values ----------------------------------------------------------------------------------


def test_a_value_sent_by_another_process_is_set_and_said(headless: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "cam-1") as fps:
        server = headless()
        assert server.outcome("setval cam-1.gain 0.25") == "0.25 (was 0.5)"
        assert fps["gain"] == 0.25
        assert server.outcome("setval cam-1.saveON ON") == "ON (was OFF)"
        assert fps["saveON"] is True
        assert fps.signal() & Signal.UPDATE
        assert server.outcome("getval cam-1.saveON") == "ON"


def test_values_of_each_type_are_read_and_written(commands: Said, shm_dir: Path) -> None:
    with make_fps(shm_dir, "x") as fps:
        typed = {
            "count": ("4000000000", 4000000000),
            "single": ("0.3", pytest.approx(0.3)),
            "wait": ("0.25", 0.25),
            "label": ("two words", "two words"),
            "saveON": ("ON", True),
            "group.inner": ("-5", -5),
        }
        for key, (text, value) in typed.items():
            assert commands.of(f"setval x.{key} {text}").startswith(f"{text} (was ")
            assert fps[key] == value
            assert commands.of(f"getval x.{key}") == text


def test_values_that_do_not_fit_are_refused_with_the_reason(
    commands: Said, shm_dir: Path
) -> None:
    with make_fps(shm_dir, "x") as fps:
        seem_running(fps)
        for key, text, reason in [
            ("gain", "1.5", "at most 1"),
            ("gain", "much", "much"),
            ("count", "-1", "-1"),
            ("saveON", "MAYBE", "ON"),
            ("result", "1", "output"),
            ("fixed", "1", "while"),
            ("nothing", "1", "no parameter"),
            ("label", "x" * 64, "63"),
        ]:
            before = dict(fps.items())
            outcome = commands.of(f"setval x.{key} {text}")
            assert outcome.startswith("failed: ")
            assert reason in outcome
            assert dict(fps.items()) == before


def test_incomplete_lines_are_refused(commands: Said, shm_dir: Path) -> None:
    make_fps(shm_dir, "x").close()
    lines = [
        "setval",
        "setval x",
        "setval x.gain",
        "getval",
        "getval x.gain 1",
        "fwrval x.gain",
    ]
    lines += ["runstart", "confwupdate", "exec", "exit now", "rescan now", "cntinc"]
    for line in lines:
        assert commands.of(line).startswith("failed: "), line
    assert not commands.commands.ended


def test_the_longest_name_of_an_fps_that_fits_is_meant(commands: Said, shm_dir: Path) -> None:
    for name in ("a", "a.group", "a-b.c", "a b"):
        make_fps(shm_dir, name).close()
    commands.of("setval a.group.count 1")
    commands.of("setval a.group.group.inner 2")
    commands.of("setval a-b.c.count 3")
    commands.of("setval a b.count 4")
    assert [outcome.ok for outcome in commands] == [True] * 4
    values = {name: FPS.open(name, shm_dir) for name in ("a", "a.group", "a-b.c", "a b")}
    assert values["a"]["count"] == 7
    assert values["a.group"]["count"] == 1
    assert values["a.group"]["group.inner"] == 2
    assert values["a-b.c"]["count"] == 3
    assert values["a b"]["count"] == 4
    for fps in values.values():
        fps.close()


def test_an_fps_of_milk_is_set(commands: Said, shm_dir: Path) -> None:
    copy_golden(shm_dir)
    assert commands.of("setval streamFITSlog-vcam1.saveON ON") == "ON (was OFF)"
    assert commands.of("setval streamFITSlog-vcam1.cubesize 250").startswith("250 (was ")
    assert commands.of("getval streamFITSlog-vcam1.procinfo.RTprio") == "20"


def test_fwrval_appends_the_value_as_milk_does(
    commands: Said, shm_dir: Path, tmp_path: Path
) -> None:
    make_fps(shm_dir, "x").close()
    file = tmp_path / "values"
    for key in ("count", "wait", "saveON"):
        commands.of(f"fwrval x.{key} {file}")
    lines = file.read_text().splitlines()
    head = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \d+\.\d{9}  FWRVAL       "
    for line, text in zip(
        lines,
        ["x.count UINT32 7", "x.wait TIMESPEC 1.500000000", "x.saveON ONOFF OFF"],
        strict=True,
    ):
        assert re.fullmatch(head + re.escape(text), line), line


def test_fwrval_says_why_it_cannot_write(commands: Said, shm_dir: Path, tmp_path: Path) -> None:
    make_fps(shm_dir, "x").close()
    os.mkfifo(tmp_path / "nobody-reads")
    for target in (tmp_path, tmp_path / "none" / "file", tmp_path / "nobody-reads"):
        assert str(target) in commands.of(f"fwrval x.count {target}")
        assert not commands[-1].ok


# -- processes -------------------------------------------------------------------------------


class FakeControl:
    """Stands for FPSControl: notes what is asked of it."""

    asked: list[tuple[str, str]]
    failure: str | None = None

    def __init__(self, name: str, shm_dir: Path) -> None:
        self.name = name

    def __getattr__(self, method: str) -> Callable[[], None]:
        def act() -> None:
            self.asked.append((method, self.name))
            if self.failure is not None:
                raise ActionFailed(self.failure)

        return act


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> type[FakeControl]:
    FakeControl.asked, FakeControl.failure = [], None
    monkeypatch.setattr(fps_commands, "FPSControl", FakeControl)
    return FakeControl


@pytest.mark.parametrize("command", FPS_COMMANDS)
def test_a_command_does_its_action_or_says_why_not(
    command: str, commands: Said, control: type[FakeControl], shm_dir: Path
) -> None:
    make_fps(shm_dir, "x y").close()
    assert not commands.of(f"{command} x y").startswith("failed")
    assert control.asked == [(FPS_COMMANDS[command], "x y")]
    control.failure = "the reason"
    assert commands.of(f"{command} x y") == "failed: the reason"
    assert "no FPS for 'z'" in commands.of(f"{command} z")
    assert len(control.asked) == 2


def test_confwupdate_fails_when_a_parameter_is_bad(
    commands: Said, control: type[FakeControl], shm_dir: Path
) -> None:
    from vampires.fps import Message
    from vampires.fps.layout import MessageCode

    with make_fps(shm_dir, "x") as fps:
        assert commands.of("confwupdate x") == "checked"
        fps.set_messages([Message(0, MessageCode.ERROR, "gain is bad")])
        assert commands.of("confwupdate x") == "failed: gain is bad"


def test_confupdate_asks_and_does_not_wait(commands: Said, shm_dir: Path) -> None:
    with make_fps(shm_dir, "x") as fps:
        assert commands.of("confupdate x") == "asked"
        assert fps.signal() & (Signal.UPDATE | Signal.CHECKED) == Signal.UPDATE | Signal.CHECKED


def test_runwait_returns_when_the_run_process_has_ended(
    headless: Any, shm_dir: Path, start_python: Any
) -> None:
    with make_fps(shm_dir, "x") as fps:
        source = (
            "import sys; from vampires.fps import FPS\n"
            "FPS.open('x').record_run_process()\n"
            "print('recorded', flush=True); sys.stdin.read()"
        )
        runs = start_python(source, stdin=subprocess.PIPE)
        assert runs.stdout.readline() == "recorded\n"
        server = headless()
        server.send("runwait x\ngetval x.count\n")
        assert fps.run_running()
        runs.communicate(timeout=30)
        assert server.said() == "runwait x -> run is off"
        assert server.said() == "getval x.count -> 7"


def test_runwait_is_interrupted_by_sigterm(headless: Any, shm_dir: Path) -> None:
    with make_fps(shm_dir, "x") as fps:
        fps.record_run_process()
        server = headless()
        server.send("runwait x\ngetval x.count\n")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
        assert "getval" not in server.process.stdout.read()


# -- lines -----------------------------------------------------------------------------------


def test_long_lines_are_refused_and_the_next_one_is_run(headless: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "x").close()
    server = headless()
    longest = "getval x.count".ljust(4096)
    assert server.outcome(longest) == "7"
    server.send(longest + " \n")
    assert "failed: 4097 bytes in the line, at most 4096" in server.said()
    server.send(b"setval x.label " + b"a" * 20_000_000 + b"\ngetval x.label\n")
    assert "20000015 bytes" in server.said()
    assert server.said() == "getval x.label -> none"
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 19_000_000 // 1024 + resource.getpagesize()


def test_garbage_is_refused_in_one_printable_line_each(headless: Any, shm_dir: Path) -> None:
    make_fps(shm_dir, "x").close()
    server = headless()
    for raw in (bytes(range(1, 10)) + b"\x1b[2J", b"\x00setval", b"\xff\xfe\xfd", b"no such"):
        server.send(raw + b"\n")
        said = server.said()
        assert "failed: " in said
        assert said.isprintable()
    assert server.outcome("getval x.count") == "7"


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(raw: bytes, sizes: list[int]) -> None:
    raw += b"\n"
    pieces, rest = [], raw
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    splitter = LineSplitter()
    found = [line for piece in [*pieces, rest] for line in splitter.feed(piece)]
    whole = list(LineSplitter().feed(raw))
    assert [str(line) for line in found] == [str(line) for line in whole]
    assert len(found) == raw.count(b"\n")
    for line in found:
        assert isinstance(line, LineRefused) or line.isprintable()


def test_nothing_is_said_of_empty_lines_and_comments(commands: Said) -> None:
    for line in ("", "   ", "# getval x.count"):
        commands.commands.run(line)
    assert commands == []


def test_commands_of_the_queue_are_accepted_and_others_refused_by_name(commands: Said) -> None:
    for line in ("setqindex 1", "setqprio 2", "queueprio 1 2", "waitonrunON", "waitonconfOFF"):
        assert commands.of(line).startswith("accepted"), line
    assert commands.of("cntinc 5") == "counter = 1"
    assert commands.of("cntinc 5") == "counter = 2"
    for line in ("logsymlink /tmp/x", "fpswfile x", "reboot"):
        outcome = commands.of(line)
        assert outcome.startswith("failed: ")
        assert line.split()[0] in outcome


def test_files_of_commands_are_run(commands: Said, shm_dir: Path, tmp_path: Path) -> None:
    with make_fps(shm_dir, "x") as fps:
        inner, outer = tmp_path / "inner", tmp_path / "outer"
        inner.write_text("# a comment\nsetval x.count 1")
        outer.write_text(f"setval x.label a\nexec {inner}\nnonsense\nsetval x.gain 1\n")
        assert commands.of(f"exec {outer}") == "4 lines"
        assert (fps["label"], fps["count"], fps["gain"]) == ("a", 1, 1.0)
        assert [outcome.ok for outcome in commands] == [True, True, True, False, True, True]


def test_files_that_cannot_be_run_are_refused(commands: Said, tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.write_text(f"exec {endless}\n")
    commands.of(f"exec {endless}")
    assert any("nest at most" in outcome.text for outcome in commands)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none"):
        assert str(path) in commands.of(f"exec {path}")
        assert not commands[-1].ok


# -- the FIFO --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit", signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_cleanly_and_removes_the_fifo_it_made(headless: Any, end: Any) -> None:
    server = headless()
    assert stat.S_ISFIFO(server.path.stat().st_mode)
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    if end == "exit":
        assert server.outcome("exit") == "bye"
    else:
        server.process.send_signal(end)
    assert server.process.wait(timeout=30) == 0
    assert server.process.stdout.read().endswith("ended\n")
    assert server.process.stderr.read() == ""
    assert not server.path.exists()


def test_a_fifo_that_was_there_stays(headless: Any, shm_dir: Path) -> None:
    os.mkfifo(shm_dir / "test.fifo")
    server = headless()
    assert server.outcome("exit") == "bye"
    server.process.wait(timeout=30)
    assert server.path.exists()


def test_writers_do_not_wait_for_a_reader(headless: Any) -> None:
    server = headless()
    fd = os.open(server.path, os.O_WRONLY | os.O_NONBLOCK)  # ENXIO without a reader
    os.write(fd, b"cntinc 1\n")
    os.close(fd)
    assert server.said() == "cntinc 1 -> counter = 1"
    assert server.outcome("cntinc 1") == "counter = 2"


def test_the_end_of_a_writer_is_no_end_of_file(tmp_path: Path) -> None:
    with Fifo(tmp_path / "fifo") as fifo:
        poll = select.poll()
        poll.register(fifo, select.POLLIN)
        os.close(os.open(fifo.path, os.O_WRONLY | os.O_NONBLOCK))
        assert poll.poll(0) == []


def test_a_second_reader_of_the_fifo_is_refused(headless: Any, run_command: Any) -> None:
    server = headless()
    second = run_command("fps-ctrl", "-s", "-f", server.path)
    assert second.returncode == 2
    assert "another milk-fpsCTRL reads" in second.stderr
    assert server.outcome("cntinc 1") == "counter = 1"


def test_what_is_no_fifo_is_refused_and_stays(run_command: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for path in (file, tmp_path, tmp_path / "none" / "fifo"):
        done = run_command("fps-ctrl", "-s", "-f", path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr
    assert file.read_text() == "precious"


def test_the_fifo_has_a_default_name(start_command: Any, shm_dir: Path) -> None:
    process = start_command("fps-ctrl", "-s", "-f")
    server = Headless(process, shm_dir / "milkCLIfifo.fpsCTRL.notty")
    assert server.outcome("exit") == "bye"


def test_two_writers_at_once_lose_nothing(headless: Any, shm_dir: Path) -> None:
    server = headless()
    lines = [[f"cntinc {who}{k:03d}" for k in range(100)] for who in (1, 2)]
    writers = [
        threading.Thread(target=server.send, args=["\n".join(part) + "\n"]) for part in lines
    ]
    for writer in writers:
        writer.start()
    said = [server.said().partition(" -> ")[0] for _ in range(200)]
    for writer in writers:
        writer.join()
    assert sorted(said) == sorted(lines[0] + lines[1])


# -- the command ----------------------------------------------------------------------------


def test_only_fps_that_pass_the_filter_are_touched(headless: Any, shm_dir: Path) -> None:
    for name in ("streamFITSlog-vcam1", "other"):
        make_fps(shm_dir, name).close()
    server = headless(FPS_FILTSTRING_NAME="streamFITSlog-vcam")
    assert server.outcome("rescan") == "1 FPS"
    assert server.outcome("getval streamFITSlog-vcam1.count") == "7"
    refused = server.outcome("getval other.count")
    assert "FPS_FILTSTRING_NAME=streamFITSlog-vcam" in refused


def test_filters_on_function_and_keywords_hold_too(shm_dir: Path) -> None:
    make_fps(shm_dir, "a", callfuncname="streamFITSlog", keywordarray=":cam:").close()
    make_fps(shm_dir, "b").close()
    for variable, text in (("CALLFUNC", "FITS"), ("KEYWORD", ":cam:")):
        found = FPSFilter.from_environment(environment={f"FPS_FILTSTRING_{variable}": text})
        with StopEvent() as stop:
            said = Said(shm_dir, stop, found)
            assert said.of("getval a.count") == "7"
            assert "does not pass" in said.of("getval b.count")


def test_the_match_list_limits_what_is_touched(
    headless: Any, shm_dir: Path, start_command: Any
) -> None:
    for name in ("cam-1", "other"):
        make_fps(shm_dir, name).close()
    (shm_dir / "fpscmd").mkdir()
    (shm_dir / "fpscmd/fpslist.txt").write_text("# loggers\n^cam-[0-9] streamFITSlog vcam1\n\n")
    server = headless("-m")
    assert server.outcome("rescan") == "1 FPS"
    assert server.outcome("getval cam-1.count") == "7"
    assert "failed" in server.outcome("getval other.count")


def test_mistakes_are_told_in_one_line(run_command: Any, shm_dir: Path) -> None:
    (shm_dir / "fpscmd").mkdir()
    (shm_dir / "fpscmd/fpslist.txt").write_text("ok\n[bad\n")
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        (["-s"], {}, "-f FIFO"),
        ([], {}, "terminal"),
        (["-x"], {}, "-x"),
        (["-s", "-f", "f", "-m"], {}, "fpslist.txt:2"),
        (["-s", "-f", "f", "-m"], {"cwd": "/"}, "fpslist.txt"),
        (["-s", "-f", "f"], {"env": {**os.environ, "MILK_SHM_DIR": "/none"}}, "/none"),
    ]
    for arguments, options, text in cases:
        done = run_command("fps-ctrl", *arguments, **options)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert text in done.stderr


def test_without_a_screen_the_libraries_of_the_screen_are_not_loaded(
    start_python: Any, shm_dir: Path
) -> None:
    source = """
import sys; from vampires.commands.fps_ctrl import main
main(["-s", "-f", "f"])
print([name for name in ("textual", "rich", "numpy", "pydantic") if name in sys.modules])
"""
    process = start_python(source)
    server = Headless(process, shm_dir / "f")
    assert server.outcome("exit") == "bye"
    assert process.stdout.read().splitlines()[-1] == "[]"


def test_that_nobody_reads_what_is_printed_ends_nothing(
    start_command: Any, shm_dir: Path
) -> None:
    with make_fps(shm_dir, "x") as fps:
        server = Headless(start_command("fps-ctrl", "-s", "-f", "f"), shm_dir / "f")
        server.process.stdout.close()
        server.send("setval x.count 1\nsetval x.count 2\nexit\n")
        assert server.process.wait(timeout=30) == 0
        assert fps["count"] == 2


def test_an_fps_that_ends_while_it_is_named_is_reported(commands: Said, shm_dir: Path) -> None:
    path = copy_golden(shm_dir)
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        file.truncate(70_000)
    assert "truncated" in commands.of("getval streamFITSlog-vcam1.saveON")
    path.write_bytes(b"")
    assert "0 bytes" in commands.of("setval streamFITSlog-vcam1.saveON ON")
