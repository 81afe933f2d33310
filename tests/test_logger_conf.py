"""The conf process of a logger checks what was set, says what is wrong, and what may be set."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from foreign_fps import CHECKED, CHECKOK, CONFRUN, STATUS_CONF, STATUS_RUN, UPDATE, ForeignFPS
from foreign_stream import TEMPORAL_RING, ForeignStream

from vampires import logger_conf
from vampires.fps import FPS, FPSError
from vampires.fps.layout import MessageCode, ParameterFlag, Signal, Status
from vampires.logger_conf import check_parameters, directory_fault, fault_lines, run_conf
from vampires.logger_parameters import make_logger_fps
from vampires.long_directories import short_form

TIMEOUT_S = 20.0


@pytest.fixture
def stream(shm_dir: Path):
    """The stream "cam1"."""
    with ForeignStream.create(shm_dir, "cam1") as made:
        yield made


@pytest.fixture
def fps(shm_dir: Path, stream, tmp_path: Path):
    """The FPS of its logger, which is good: it writes to a directory that is there."""
    with make_logger_fps("cam1") as made:
        made["dirname"] = short_form(tmp_path, shm_dir)
        yield made


@pytest.fixture
def mapped(fps):
    """The same, as another program sees it."""
    with ForeignFPS(fps.path) as made:
        yield made


def await_true(condition: Callable[[], bool]) -> None:
    """What a client of milk's does: looks again until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


@contextlib.contextmanager
def conf_process(fps: FPS) -> Iterator[threading.Thread]:
    """The loop of the conf process, as one of this process."""
    stop = threading.Event()
    thread = threading.Thread(target=run_conf, args=(fps, stop))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


# -- what is checked --------------------------------------------------------------------------


def test_a_logger_as_prepared_is_good(fps):
    assert check_parameters(fps) == []
    assert fps.status() & Status.CHECKOK
    assert fps.header().conferrcnt == 0
    assert fps.messages() == []
    assert fault_lines(fps) == []
    assert not any(p.flags & ParameterFlag.ERROR for p in fps.parameters())


@pytest.mark.parametrize(
    ("key", "bad", "good", "text"),
    (
        ("cubesize", 0, 1, "cubesize is 0, at least 1 frame"),
        ("maxfilecnt", 0, 1, "maxfilecnt is 0, at least 1 file"),
        ("maxframecnt", 0, 1, "maxframecnt is 0, at least 1 frame"),
        ("dirname", "relative", "/tmp", "expected a path that begins with '/'"),
        ("dirname", "", "/tmp", "expected a path that begins with '/'"),
        ("dirname", "/dev/null/x", "/tmp", "/dev/null is no directory"),
        ("sname", "cam2", "cam1", "no stream 'cam2'"),
        ("sname", "../cam1", "cam1", "cam1"),
        ("sname", "", "cam1", "stream"),
        ("procinfo.RTprio", -2, -1, "at least -1 is allowed"),
        ("procinfo.RTprio", 50, 49, "at most 49 is allowed"),
        ("procinfo.NBthread", 51, 50, "at most 50 is allowed"),
        ("procinfo.triggertimeout", -1.0, 0.0, "at least 0.0 is allowed"),
        ("pretrigger", -0.5, 0.5, "at least 0.0 is allowed"),
        ("pretrigger", 3601.0, 0.0, "at most 3600.0 is allowed"),
        ("ringmemory", 15, 16, "at least 16 is allowed"),
    ),
)
def test_a_bad_value_is_told_and_a_good_one_forgotten(fps, key, bad, good, text):
    """A client that checks nothing set it."""
    fps.set(key, bad, force=True)
    (message,) = check_parameters(fps)
    assert message.index == fps.parameter(key).index
    code = MessageCode.BELOWMIN if "at least" in text and "allowed" in text else MessageCode(0)
    code |= MessageCode.ABOVEMAX if "at most" in text else MessageCode(0)
    assert message.code == code | MessageCode.ERROR
    assert text in message.text
    assert message.text.isprintable()
    assert fps.messages() == [message]
    assert fault_lines(fps) == [message.text]
    assert fps.header().conferrcnt == 1
    assert not fps.status() & Status.CHECKOK
    assert [p.key for p in fps.parameters() if p.flags & ParameterFlag.ERROR] == [key]

    fps.set(key, good, force=True)
    assert check_parameters(fps) == []
    assert fps.status() & Status.CHECKOK
    assert fps.header().conferrcnt == 0
    assert not any(p.flags & ParameterFlag.ERROR for p in fps.parameters())


def test_all_that_is_wrong_is_told(fps, mapped):
    fps.set("cubesize", 0, force=True)
    fps.set("dirname", "nowhere", force=True)
    fps.set("procinfo.RTprio", 99, force=True)
    check_parameters(fps)
    assert [index for index, _, _ in mapped.messages()] == [5, 20, 21]
    assert [text for _, _, text in mapped.messages()] == fault_lines(fps)
    assert mapped.get("conferrcnt") == 3


def test_compression_needs_its_program(fps, monkeypatch):
    fps.set("compress", True, force=True)
    monkeypatch.setenv("PATH", "")
    assert "compress is ON" in check_parameters(fps)[0].text
    fps.set("compress", False, force=True)
    assert check_parameters(fps) == []


@pytest.mark.parametrize(
    ("options", "text"),
    (
        ({"dtype": "complex64"}, "complex"),
        ({"size": (4, 3, 2)}, "no temporal ring"),
        ({"version": b"1.00"}, ""),
    ),
)
def test_a_stream_that_cannot_be_logged_is_told(fps, shm_dir, options, text):
    with ForeignStream.create(shm_dir, "cam1", **options):
        (message,) = check_parameters(fps)
    assert text in message.text
    assert fps.parameter("sname").flags & ParameterFlag.ERROR


def test_a_ring_can_be_logged(fps, shm_dir):
    with ForeignStream.create(shm_dir, "cam1", size=(4, 3, 2), imagetype=TEMPORAL_RING):
        assert check_parameters(fps) == []


def test_a_truncated_stream_is_told(fps, shm_dir):
    os.truncate(shm_dir / "cam1.im.shm", 1000)
    (message,) = check_parameters(fps)
    assert message.index == fps.parameter("sname").index


# -- directories ------------------------------------------------------------------------------


def test_a_directory_that_can_still_be_made_is_good_and_is_not_made(tmp_path):
    assert directory_fault(tmp_path / "tonight" / "vcam1") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_disk_that_is_not_mounted_is_told(tmp_path):
    (tmp_path / "disk").symlink_to(tmp_path / "absent")
    assert "is a link to nowhere; is its disk mounted?" in directory_fault(
        tmp_path / "disk" / "x"
    )


@pytest.fixture
def files_fail(monkeypatch):
    """files_fail(number, ...): making a file without a name fails with that errno, one with a
    name with the next. Root may write everywhere, and tests are run by root too."""
    real = os.open

    def fail(without_name: int, with_name: int = 0) -> None:
        def opened(path, flags, *arguments, **options):
            nameless = flags & os.O_TMPFILE == os.O_TMPFILE
            number = without_name if nameless else with_name if flags & os.O_CREAT else 0
            if number:
                raise OSError(number, os.strerror(number))
            return real(path, flags, *arguments, **options)

        monkeypatch.setattr("os.open", opened)

    return fail


@pytest.mark.parametrize("number", (errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO))
def test_a_directory_that_takes_no_files_is_told(tmp_path, files_fail, number):
    files_fail(number)
    assert f"cannot write to {tmp_path}; choose" in directory_fault(tmp_path / "x")


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EDQUOT))
def test_a_full_directory_is_good_since_room_may_come(tmp_path, files_fail, number):
    files_fail(number)
    assert directory_fault(tmp_path / "x") == ""


def test_where_every_file_has_a_name_one_is_tried_and_gone(tmp_path, files_fail):
    files_fail(errno.EOPNOTSUPP)
    assert directory_fault(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    files_fail(errno.EOPNOTSUPP, errno.EACCES)
    assert "cannot write to" in directory_fault(tmp_path)
    files_fail(errno.EOPNOTSUPP, errno.ENOSPC)
    assert directory_fault(tmp_path) == ""


def test_a_directory_that_may_not_be_looked_into_is_told(tmp_path, monkeypatch):
    def denied(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    fault = directory_fault(tmp_path)
    assert "cannot write to" in fault
    assert "Permission denied" in fault


def test_a_name_too_long_for_the_disk_is_told(fps, shm_dir, tmp_path):
    fps["dirname"] = short_form(tmp_path / ("x" * 300), shm_dir)
    (message,) = check_parameters(fps)
    assert "File name too long" in message.text


def test_the_directory_behind_a_short_name_is_what_is_checked(fps, shm_dir, tmp_path):
    long = tmp_path / ("a-long-name-" * 8)
    fps["dirname"] = short_form(long, shm_dir)
    assert check_parameters(fps) == []
    long.write_text("a file")
    (message,) = check_parameters(fps)
    assert f"{long} is no directory" in message.text


# -- what may be set --------------------------------------------------------------------------


def may_be_set(fps: FPS) -> set[str]:
    return {p.key for p in fps.parameters() if p.flags & ParameterFlag.WRITESTATUS}


def test_while_it_runs_what_needs_a_new_start_cannot_be_set(fps):
    fps.set_flags("saveON", clear=ParameterFlag.WRITESTATUS)
    check_parameters(fps)
    before = may_be_set(fps)
    assert {"saveON", "cubesize", "dirname", "procinfo.RTprio", "ringmemory"} <= before
    assert not {"state", "lost", "lasterror"} & before

    fps.record_run_process()
    check_parameters(fps)
    running = may_be_set(fps)
    assert {"saveON", "lastcubeON", "nextcube", "cubesize", "dirname"} <= running
    assert {"maxfilecnt", "maxframecnt", "starttime", "stoptime", "pretrigger"} <= running
    assert not {"procinfo.RTprio", "procinfo.cset", "ringmemory", "sname"} & running
    for parameter in fps.parameters():
        assert (parameter.key in running) == fps.writable(parameter.key)
        expected = (
            parameter.flags & ParameterFlag.WRITE and parameter.flags & ParameterFlag.WRITERUN
        )
        assert (parameter.key in running) == bool(expected)


# -- the protocol -----------------------------------------------------------------------------


def test_it_records_itself_and_checks_at_its_start(fps, mapped):
    mapped.set("signal", 0)
    with conf_process(fps):
        await_true(lambda: bool(mapped.get("status") & CHECKOK))
        assert mapped.get("confpid") == os.getpid()
        assert mapped.get("confpidstarttime")[0] > 0
        assert mapped.get("signal") & CONFRUN
        assert mapped.get("status") & STATUS_CONF
        assert not mapped.get("status") & STATUS_RUN


def test_it_ends_when_confrun_is_taken_back(fps, mapped):
    with conf_process(fps) as thread:
        await_true(lambda: bool(mapped.get("status") & STATUS_CONF))
        fps.change_status(set=Status.CMDCONF)
        mapped.set("signal", mapped.get("signal") & ~CONFRUN)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        assert not fps.status() & (Status.CONF | Status.CMDCONF)


def test_a_value_that_a_client_set_is_checked_when_it_asks(fps, mapped):
    with conf_process(fps):
        await_true(lambda: bool(mapped.get("status") & CHECKOK))
        mapped.set_like_milk("cubesize", 0)
        await_true(lambda: mapped.get("conferrcnt") == 1)
        assert "cubesize is 0" in mapped.messages()[0][2]
        assert not mapped.get("status") & CHECKOK
        mapped.set_like_milk("cubesize", 100)
        await_true(lambda: bool(mapped.get("status") & CHECKOK))
        assert not mapped.get("signal") & UPDATE
        assert mapped.messages() == []


def test_a_client_waits_for_the_end_of_the_check_by_checked(fps, mapped):
    """confwupdate: sets both, and waits until CHECKED is cleared."""
    with conf_process(fps):
        await_true(lambda: bool(mapped.get("status") & CHECKOK))
        for size in (0, 5, 0, 7, 0):
            mapped.set_like_pymilk("cubesize", size)  # which asks for nothing
            mapped.set("signal", mapped.get("signal") | UPDATE | CHECKED)
            await_true(lambda: not mapped.get("signal") & CHECKED)
            assert bool(mapped.get("status") & CHECKOK) == (size != 0)


def test_a_check_that_was_asked_for_during_a_check_is_not_said_to_be_done(fps, monkeypatch):
    """The value that was set meanwhile may have been looked at before."""
    real = logger_conf.check_parameters
    asked = threading.Event()
    seen: list[bool] = []

    def checks_slowly(of: FPS):
        found = real(of)
        if not asked.is_set():
            of.set("cubesize", 0, force=True)
            of.change_signal(set=Signal.UPDATE | Signal.CHECKED)
            asked.set()
        else:
            seen.append(bool(of.signal() & Signal.CHECKED))
        return found

    monkeypatch.setattr(logger_conf, "check_parameters", checks_slowly)
    with conf_process(fps):
        assert asked.wait(TIMEOUT_S)
        await_true(lambda: not fps.signal() & Signal.CHECKED)
        assert seen[0]  # it was still set when the second check was under way
        assert not fps.status() & Status.CHECKOK


def test_the_start_and_the_end_of_the_run_process_are_noticed(fps, mapped):
    with conf_process(fps):
        await_true(lambda: bool(mapped.get("status") & CHECKOK))
        mapped.record_run()
        await_true(lambda: "ringmemory" not in may_be_set(fps))
        assert mapped.get("status") & STATUS_RUN
        mapped.set("runpid", 0)
        await_true(lambda: "ringmemory" in may_be_set(fps))
        await_true(lambda: not mapped.get("status") & STATUS_RUN)


def test_the_state_of_a_switch_survives_the_checks(fps, mapped):
    """It is a bit of the same number as what the checks set."""
    with conf_process(fps):
        for on in (True, False, True, False):
            fps["saveON"] = on
            mapped.set("signal", mapped.get("signal") | UPDATE | CHECKED)
            await_true(lambda: not mapped.get("signal") & CHECKED)
            assert fps.raw_onoff("saveON") == (on, on)


def test_it_ends_when_the_fps_is_removed_or_replaced(fps):
    with conf_process(fps) as thread:
        await_true(lambda: bool(fps.status() & Status.CHECKOK))
        fps.path.unlink()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_it_ends_when_the_fps_is_truncated(fps):
    ended: list[str] = []

    def run() -> None:
        try:
            run_conf(fps, threading.Event())
        except FPSError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    await_true(lambda: bool(fps.status() & Status.CHECKOK))
    os.truncate(fps.path, 5000)
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert "was truncated while it was in use" in ended[0]


def test_it_makes_room_for_another_conf_process(fps, mapped):
    """Two were started at once: the later one stays, and is shown."""
    with conf_process(fps) as thread:
        await_true(lambda: bool(fps.status() & Status.CHECKOK))
        fps.change_status(set=Status.CMDCONF)
        mapped.set("confpid", 1)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        assert fps.status() & Status.CMDCONF
