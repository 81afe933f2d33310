"""A recorded process id is believed only as long as it is the process that was recorded."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from vampires import process_id

DAY_NS = 86_400 * 10**9
_WAITING = "import signal, sys; print('ready', flush=True); signal.pause()"


@pytest.fixture
def sleeper(start_python):
    """sleeper() -> (a process that waits for signals, a time after its start in ns UTC)."""

    def start() -> tuple[subprocess.Popen[str], int]:
        process = start_python(_WAITING)
        assert process.stdout.readline() == "ready\n"
        return process, time.time_ns()

    return start


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """The id of a process that has ended, and that nobody has asked about."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        yield pid
    finally:
        os.waitpid(pid, 0)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_process_runs_that_started_before_it_was_recorded(sleeper):
    process, recorded_ns = sleeper()
    assert process_id.is_running(process.pid, recorded_ns)
    assert process_id.is_running(process.pid, recorded_ns + 37 * 10**9)  # on the TAI clock
    assert process_id.is_running(process.pid, recorded_ns + DAY_NS)


def test_the_start_of_a_process_is_known_to_two_seconds(sleeper):
    before_ns = time.time_ns()
    process, after_ns = sleeper()
    started_ns = process_id.start_time_ns(process.pid)
    slack_ns = process_id.START_SLACK_NS
    assert before_ns - slack_ns <= started_ns <= after_ns + slack_ns


def test_without_a_recorded_time_any_process_counts():
    for unknown in (0, -1):
        assert process_id.is_running(os.getpid(), unknown)


def test_a_process_that_ended_does_not_run():
    pid = dead_pid()
    assert process_id.start_time_ns(pid) is None
    assert not process_id.is_running(pid, time.time_ns())
    assert not process_id.is_running(pid, 0)


def test_a_zombie_does_not_run():
    with zombie() as pid:
        assert os.path.exists(f"/proc/{pid}")
        assert process_id.start_time_ns(pid) is None
        assert not process_id.is_running(pid, time.time_ns())
        assert process_id.wait_for_end(pid, time.time_ns(), 0.0)


def test_an_id_that_another_process_got_since_does_not_run(sleeper):
    process, now_ns = sleeper()
    assert not process_id.is_running(process.pid, now_ns - 3600 * 10**9)
    assert not process_id.is_running(process.pid, 1)


@pytest.mark.parametrize("pid", (0, -1, -(2**31), 2**31 - 1, 2**22 + 1))
def test_what_is_no_id_does_not_run(pid):
    assert not process_id.is_running(pid, time.time_ns())
    assert not process_id.send_signal(pid, 0, signal.SIGINT)
    assert process_id.wait_for_end(pid, 0, 0.0)


def test_the_process_of_another_user_is_seen():
    """Process 1 is there on every machine."""
    assert process_id.is_running(1, time.time_ns())


def test_a_name_with_brackets_and_blanks_is_no_obstacle(start_process, tmp_path):
    program = tmp_path / "a) Z 1 (b"
    os.symlink(sys.executable, program)
    process = start_process([str(program), "-c", _WAITING])
    assert process.stdout.readline() == "ready\n"
    assert process_id.is_running(process.pid, time.time_ns())


def test_a_signal_reaches_the_recorded_process_alone(sleeper):
    (one, recorded_ns), (other, _) = sleeper(), sleeper()
    assert process_id.send_signal(one.pid, recorded_ns, signal.SIGTERM)
    assert one.wait(timeout=20) == -signal.SIGTERM
    assert other.poll() is None


def test_a_process_that_has_the_id_now_gets_no_signal(sleeper):
    process, now_ns = sleeper()
    assert not process_id.send_signal(process.pid, now_ns - DAY_NS, signal.SIGKILL)
    assert process.poll() is None
    assert process_id.is_running(process.pid, now_ns)


def test_a_process_that_takes_the_id_at_the_last_moment_gets_no_signal(sleeper, monkeypatch):
    """The recorded one ends after it was found running: its id is another's from then on."""
    (recorded, recorded_ns), (bystander, _) = sleeper(), sleeper()
    real = process_id.is_running

    def ends_now(pid: int, at_ns: int, named: str) -> bool:
        running = real(pid, at_ns, named)
        recorded.kill()
        recorded.wait()
        return running

    monkeypatch.setattr(process_id, "is_running", ends_now)
    assert not process_id.send_signal(recorded.pid, recorded_ns, signal.SIGTERM)
    assert bystander.poll() is None


def test_dead_processes_and_zombies_get_no_signal():
    assert not process_id.send_signal(dead_pid(), time.time_ns(), signal.SIGINT)
    with zombie() as pid:
        assert not process_id.send_signal(pid, time.time_ns(), signal.SIGINT)


_AS_NOBODY = """
import os, sys, signal
from vampires import process_id
process_id.is_running(1, 0)  # all modules are loaded: another user may not be able to read them
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
assert process_id.is_running(int(sys.argv[1]), int(sys.argv[2]))
try:
    process_id.send_signal(int(sys.argv[1]), int(sys.argv[2]), signal.SIGTERM)
except PermissionError:
    print("not permitted")
"""


def test_a_signal_to_a_process_of_another_user_is_an_error(sleeper, start_python):
    """As root, a process of ours signalled by nobody; as anybody else, the first process."""
    process, recorded_ns = sleeper()
    pid = process.pid if os.geteuid() == 0 else 1
    out, errors = start_python(_AS_NOBODY, pid, recorded_ns).communicate(timeout=30)
    assert out == "not permitted\n", errors
    assert process.poll() is None


def test_the_end_of_a_process_is_waited_for(sleeper):
    process, recorded_ns = sleeper()
    assert not process_id.wait_for_end(process.pid, recorded_ns, 0.0)
    assert not process_id.wait_for_end(process.pid, recorded_ns, 0.01)
    process.terminate()
    assert process_id.wait_for_end(process.pid, recorded_ns, 20.0)


def test_a_time_that_has_passed_is_not_waited_for_for_ever(sleeper):
    process, recorded_ns = sleeper()
    assert not process_id.wait_for_end(process.pid, recorded_ns, -1.0)


def test_the_end_of_a_process_that_only_has_the_id_is_not_waited_for(sleeper):
    process, now_ns = sleeper()
    assert process_id.wait_for_end(process.pid, now_ns - DAY_NS, 20.0)
    assert process.poll() is None


def test_no_descriptor_is_left(sleeper):
    process, recorded_ns = sleeper()
    before = os.listdir("/proc/self/fd")
    process_id.send_signal(process.pid, recorded_ns - DAY_NS, signal.SIGTERM)
    process_id.send_signal(process.pid, recorded_ns, signal.SIGCONT)
    process_id.wait_for_end(process.pid, recorded_ns, 0.0)
    process_id.wait_for_end(process.pid, recorded_ns - DAY_NS, 0.0)
    assert os.listdir("/proc/self/fd") == before


def test_the_end_is_noticed_at_once_and_not_by_asking_again(sleeper, monkeypatch):
    process, recorded_ns = sleeper()
    polled = []
    real = select.poll

    class Poll:
        def __init__(self) -> None:
            self._real = real()
            self.register = self._real.register

        def poll(self, timeout_ms: float):
            polled.append(timeout_ms)
            process.terminate()
            return self._real.poll(timeout_ms)

    monkeypatch.setattr(select, "poll", Poll)
    assert process_id.wait_for_end(process.pid, recorded_ns, 20.0)
    assert polled == [20_000.0]


def test_a_clock_set_forward_does_not_end_a_process_that_says_its_name(start_python):
    """Then its start, counted from boot, appears to be later than the record."""
    process = start_python(_WAITING, "-n", "streamFITSlog-vcam1")
    assert process.stdout.readline() == "ready\n"
    recorded_ns = time.time_ns() - DAY_NS
    assert not process_id.is_running(process.pid, recorded_ns)
    assert not process_id.is_running(process.pid, recorded_ns, "streamFITSlog-vcam2")
    assert process_id.is_running(process.pid, recorded_ns, "streamFITSlog-vcam1")
    assert process_id.send_signal(
        process.pid, recorded_ns, signal.SIGTERM, "streamFITSlog-vcam1"
    )
    assert process_id.wait_for_end(process.pid, recorded_ns, 20, "streamFITSlog-vcam1")
