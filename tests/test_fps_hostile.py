"""Broken, foreign and hostile FPS files end in an error that says so, and in nothing else."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import shutil
import struct
from pathlib import Path

import pytest
from foreign_fps import FIELDS, HEADER_BYTES, PARAMETER_BYTES, VALUE_AT, ForeignFPS
from hypothesis import given, settings
from hypothesis import strategies as st

from vampires.fps import (
    FPS,
    FPSError,
    FPSInvalid,
    FPSKeyError,
    FPSNotFound,
    FPSRefused,
    NewParameter,
    layout,
    list_fps,
)
from vampires.fps.layout import ParameterType, Status
from vampires.fps_control import ActionFailed, FPSControl
from vampires.logger_parameters import make_logger_fps

WHOLE = 885048
GOLDEN = Path(__file__).parent / "data" / "fps" / "streamFITSlog-vcam1.fps.shm"


def use_all(name: str, directory: Path | None = None) -> None:
    """Does with an FPS all that can be done. Raises FPSError."""
    with FPS.open(name, directory) as fps:
        use_all_of(fps)


def use_all_of(fps: FPS) -> None:
    fps.header()
    fps.modules()
    fps.messages()
    fps.conf_running()
    fps.run_running()
    fps.items()
    for parameter in fps.parameters():
        fps.parse(parameter.key, str(parameter.value))
        fps.writable(parameter.key)
        fps[parameter.key] = parameter.value


@pytest.fixture
def path(shm_dir: Path) -> Path:
    """A golden file under the name "victim"; to be damaged."""
    return Path(shutil.copyfile(GOLDEN, shm_dir / "victim.fps.shm"))


def refusal(name: str = "victim") -> str:
    """The message with which the FPS is refused."""
    with pytest.raises(FPSInvalid) as refused:
        FPS.open(name)
    message = str(refused.value)
    assert f"{name}.fps.shm" in message
    assert message.isprintable()
    return message


# -- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    (
        *(0, 1, 99, 100, 11823, 11824, 11831, 11832, 62632, HEADER_BYTES - 1, HEADER_BYTES),
        *(HEADER_BYTES + 1, HEADER_BYTES + 16, HEADER_BYTES + PARAMETER_BYTES),
        *(HEADER_BYTES + 31 * PARAMETER_BYTES, WHOLE - PARAMETER_BYTES, WHOLE - 1, WHOLE + 1),
        *(WHOLE + PARAMETER_BYTES, 4096, 2**40),
    ),
)
def test_a_file_of_a_wrong_size_is_refused_with_what_was_expected(path, size):
    os.truncate(path, size)
    message = refusal()
    assert f"{size} bytes" in message
    if size < HEADER_BYTES:
        assert "at least 62648" in message
    else:
        assert f"expected {WHOLE}" in message


def test_the_file_of_another_version_of_milk_is_refused(shm_dir):
    """Earlier ones have headers and parameters of other sizes."""
    raw = bytearray(20000 + 200 * 3000)
    raw[:6] = b"victim"
    (shm_dir / "victim.fps.shm").write_bytes(raw)
    assert "expected 62648 for its 0 parameters" in refusal()


@pytest.mark.parametrize("slots", (-1, -(2**63), 2**63 - 1, 10_001, 2**31, 2**40))
def test_an_impossible_number_of_parameters_is_refused(path, slots):
    with ForeignFPS(path) as mapped:
        mapped.set("NBparamMAX", slots)
    assert "another layout" in refusal()


@pytest.mark.parametrize("slots", (0, 1, 199, 201, 10_000))
def test_a_number_of_parameters_that_the_size_denies_is_refused(path, slots):
    with ForeignFPS(path) as mapped:
        mapped.set("NBparamMAX", slots)
    assert f"expected {62648 + 4112 * slots} for its {slots} parameters" in refusal()


def test_a_size_overflowing_number_of_parameters_is_refused(path):
    """Times 4112, in 64 bits, this is the size of the file."""
    slots = 200 + 2**60
    assert (slots * PARAMETER_BYTES) % 2**64 == WHOLE - HEADER_BYTES
    with ForeignFPS(path) as mapped:
        mapped.set("NBparamMAX", slots)
    assert "another layout" in refusal()


def test_an_fps_without_room_for_parameters_has_none(shm_dir):
    raw = bytearray(HEADER_BYTES)
    raw[:5] = b"empty"
    (shm_dir / "empty.fps.shm").write_bytes(raw)
    with FPS.open("empty") as fps:
        assert len(fps) == 0
        with pytest.raises(FPSKeyError):
            fps["saveON"]


# -- truncated while in use -------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", (0, 100, 4096, 62000, HEADER_BYTES, HEADER_BYTES + 17 * PARAMETER_BYTES + 2000)
)
def test_a_file_truncated_while_it_is_open_is_an_error_at_each_use(path, size):
    with FPS.open("victim") as fps:
        os.truncate(path, size)
        for use in (
            fps.parameters,
            lambda: fps["writerRTprio"],
            lambda: fps.set("writerRTprio", 5),
            lambda: fps.set("writerRTprio", 5, force=True),
            lambda: fps.publish("dirname", "/data/other"),
            lambda: fps.set_flags("writerRTprio", set=1),
            lambda: use_all_of(fps),
        ):
            with pytest.raises(FPSInvalid, match="truncated while it was in use"):
                use()
        if size < 1000:
            for use in (fps.header, fps.status, fps.signal, fps.conf_running, fps.messages):
                with pytest.raises(FPSInvalid, match="truncated while it was in use"):
                    use()
            for use in (fps.record_run_process, lambda: fps.change_status(set=Status.RUN)):
                with pytest.raises(FPSInvalid, match="truncated while it was in use"):
                    use()
        assert path.stat().st_size == size  # nothing was written behind its end


_USER = """
import sys
from vampires.fps import FPS, FPSInvalid
fps = FPS.open("victim")
print("ready", flush=True)
try:
    while True:
        fps["dirname"], fps.header(), fps.parameters()
        fps.set("cubesize", 3, force=True)
        fps.change_signal(set=4)
        fps.change_signal(clear=4)
except FPSInvalid as error:
    print(error, flush=True)
"""


def test_a_process_whose_file_is_truncated_under_it_lives_on(path, start_python):
    users = [start_python(_USER) for _ in range(3)]
    for user in users:
        assert user.stdout.readline() == "ready\n"
    os.truncate(path, 0)
    for user in users:
        out, errors = user.communicate(timeout=30)
        assert user.returncode == 0, errors
        assert "victim.fps.shm was truncated while it was in use" in out


def test_a_file_that_was_replaced_is_not_changed_through_the_old_one(path, shm_dir):
    with FPS.open("victim") as fps:
        other = shutil.copyfile(GOLDEN, shm_dir / "other")
        os.replace(other, path)
        fps["cubesize"] = 7
        assert not fps.is_current()
    assert path.read_bytes() == GOLDEN.read_bytes()


# -- contents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", (0, 3, 0x40000, 0x80000000, 0xFFFFFFFF))
def test_a_parameter_of_an_unknown_type_is_refused(path, code):
    with ForeignFPS(path) as mapped:
        mapped.set_parameter(5, "type", code)
    message = refusal()
    assert f"unknown type {code:#x}" in message
    assert "RTprio" in message


def test_an_fps_without_a_name_is_refused(path):
    with ForeignFPS(path) as mapped:
        mapped.set("name", bytes(100))
    assert "no name in it" in refusal()


def test_texts_without_their_nul_end_with_their_room(path):
    with ForeignFPS(path) as mapped:
        for field, (_, form) in FIELDS.items():
            if form.endswith("s"):
                mapped.set(field, b"A" * int(form[:-1]))
        for index in range(mapped.count()):
            at = mapped.at(index)
            mapped.raw[at + 16 : at + 2576] = b"K" * 2560  # full name and its parts
            mapped.raw[at + 3860 : at + 3924] = b"D" * 64
            mapped.raw[at + VALUE_AT : at + VALUE_AT + 128] = b"V" * 128
    with FPS.open("victim") as fps:
        header = fps.header()
        assert fps.name == header.name == "A" * 100
        assert header.workdir == header.description == "A" * 200
        assert header.callprogname == "A" * 80
        parameter = fps.parameters()[0]
        assert parameter.full_key == "K" * 1280
        assert parameter.description == "D" * 64
        assert parameter.value == parameter.current == "V" * 64


def test_all_bytes_set_are_an_error(shm_dir):
    (shm_dir / "victim.fps.shm").write_bytes(b"\xff" * WHOLE)
    refusal()


@pytest.mark.parametrize("field", ("modules", "messages"))
@pytest.mark.parametrize("count", (-1, -(2**31), 2**31 - 1, 101))
def test_impossible_counts_of_modules_and_messages_are_bounded(path, field, count):
    with ForeignFPS(path) as mapped:
        mapped.set("NBmodule" if field == "modules" else "msgcnt", count)
    with FPS.open("victim") as fps:
        assert len(getattr(fps, field)()) <= 100


def test_impossible_recorded_processes_do_not_run(path):
    with ForeignFPS(path) as mapped, FPS.open("victim") as fps:
        for pid in (0, -1, -(2**31), 2**31 - 1):
            for start in ((0, 0), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (-1, 5)):
                mapped.set("runpid", pid)
                mapped.set("runpidstarttime", *start)
                assert not fps.run_running()
                fps.header()


def test_two_parameters_of_one_name_are_both_listed_and_the_first_is_set(path):
    with ForeignFPS(path) as mapped:
        begin, end = mapped.at(17), mapped.at(18)
        mapped.raw[mapped.at(18) : mapped.at(19)] = mapped.raw[begin:end]
        with FPS.open("victim") as fps:
            fps["saveON"] = True
        assert (mapped.elements(17)[0], mapped.elements(18)[0]) == (1, 0)


def test_control_characters_of_a_file_do_not_reach_the_terminal(path):
    with ForeignFPS(path) as mapped:
        mapped.set("name", b"evil\n\x1b[2J")
        for index in range(mapped.count()):
            full = f"evil\n\x1b[2J.key{index}\r\n\x07".encode()
            at = mapped.at(index) + 16
            mapped.raw[at : at + len(full) + 1] = full + b"\0"
    with FPS.open("victim") as fps:
        key = fps.keys()[20]
        for use in (
            lambda: fps["absent"],
            lambda: fps.set(key, "text"),
            lambda: fps.parse(key, "x\ny"),
        ):
            with pytest.raises(FPSError) as error:
                use()
            assert str(error.value).isprintable()


def test_messages_about_long_keys_stay_short(path):
    with ForeignFPS(path) as mapped:
        for index in range(mapped.count()):
            at = mapped.at(index) + 16
            mapped.raw[at : at + 1280] = bytes([65 + index]) * 1279 + b"\0"
    with FPS.open("victim") as fps, pytest.raises(FPSKeyError) as error:
        fps["absent"]
    assert len(str(error.value)) <= 600


_damage = st.lists(
    st.tuples(st.integers(0, HEADER_BYTES + 4 * PARAMETER_BYTES), st.binary(max_size=64)),
    max_size=12,
)


@pytest.fixture(scope="module")
def hostile_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shm")


@pytest.fixture(scope="module")
def small_fps(hostile_dir: Path) -> bytes:
    """An FPS with a parameter of each type, as bytes."""
    kinds = [kind for kind in ParameterType if kind is not ParameterType.UNDEF]
    new = [
        NewParameter(k.name, k, "x" if k in layout.NULL_TEXTS else 0, "", layout.DEFAULT_INPUT)
        for k in kinds
    ]
    with FPS.create(
        "small", new, callfuncname="f", workdir=hostile_dir / "work", shm_dir=hostile_dir
    ) as fps:
        return fps.path.read_bytes()


@given(damage=_damage)
@settings(max_examples=60)
def test_random_damage_ends_in_an_fps_error_or_in_nothing(small_fps, hostile_dir, damage):
    raw = bytearray(small_fps)
    for at, bytes_ in damage:
        raw[at : at + len(bytes_)] = bytes_
    (hostile_dir / "damaged.fps.shm").write_bytes(raw)
    with contextlib.suppress(FPSError):
        use_all("damaged", hostile_dir)


_random_parameter = st.tuples(
    st.binary(min_size=200, max_size=400),  # from its full name on
    st.sampled_from(list(ParameterType)),
    st.binary(min_size=128, max_size=128),
    st.integers(0, 2**64 - 1),
)


@given(
    head=st.binary(min_size=100, max_size=2000),
    parameters=st.lists(_random_parameter, max_size=4),
)
@settings(max_examples=60)
def test_random_bytes_of_the_right_size_end_in_an_fps_error_or_in_nothing(
    hostile_dir, head, parameters
):
    """Sizes and types are right, so that all that stands behind them is read."""
    raw = bytearray(layout.file_bytes(4))
    raw[: len(head)] = head
    struct.pack_into("<q", raw, FIELDS["NBparamMAX"][0], 4)
    for k, (names, kind, value, flags) in enumerate(parameters):
        at = HEADER_BYTES + k * PARAMETER_BYTES
        raw[at + 16 : at + 16 + len(names)] = names
        raw[at + VALUE_AT : at + VALUE_AT + 128] = value
        struct.pack_into("<Q", raw, at, flags)
        struct.pack_into("<I", raw, at + 3924, kind)
    (hostile_dir / "random.fps.shm").write_bytes(raw)
    with contextlib.suppress(FPSError):
        use_all("random", hostile_dir)


def test_a_damaged_file_takes_no_more_memory_than_it_has(shm_dir):
    """The size it claims is not believed before the file has it."""
    with (shm_dir / "victim.fps.shm").open("wb") as file:
        file.truncate(HEADER_BYTES + PARAMETER_BYTES * 10_000)  # sparse
        file.seek(0)
        file.write(b"victim\0")
        file.seek(FIELDS["NBparamMAX"][0])
        file.write(struct.pack("<q", 10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use_all("victim")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


# -- what is no file of ours ------------------------------------------------------------------


def test_a_directory_under_that_name_is_an_error(shm_dir):
    (shm_dir / "victim.fps.shm").mkdir()
    with pytest.raises(FPSError, match="Is a directory"):
        FPS.open("victim")


def test_a_fifo_under_that_name_is_refused_and_not_waited_for(shm_dir):
    os.mkfifo(shm_dir / "victim.fps.shm")
    assert "no regular file" in refusal()


def test_a_link_to_itself_is_an_error(shm_dir):
    (shm_dir / "victim.fps.shm").symlink_to("victim.fps.shm")
    with pytest.raises(FPSError, match="symbolic links"):
        FPS.open("victim")


def test_a_link_to_nowhere_is_not_there(shm_dir):
    (shm_dir / "victim.fps.shm").symlink_to("gone")
    with pytest.raises(FPSNotFound):
        FPS.open("victim")


def test_a_link_to_an_fps_is_that_fps(path, shm_dir):
    (shm_dir / "alias.fps.shm").symlink_to(path)
    with FPS.open("alias") as fps:
        assert fps.name == "streamFITSlog-vcam1"
        assert fps.is_current()


def test_what_is_there_is_not_replaced_when_a_logger_is_made(shm_dir):
    broken = shm_dir / "streamFITSlog-vcam1.fps.shm"
    broken.write_bytes(b"not an FPS")
    with pytest.raises(FPSInvalid, match="remove it"):
        make_logger_fps("vcam1")
    assert broken.read_bytes() == b"not an FPS"


_OTHER_USER = """
import os, sys
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
from vampires.fps import FPS, FPSError, list_fps
print(list_fps())
try:
    FPS.open("victim")
except FPSError as error:
    print(error)
"""


def test_an_fps_of_another_user_is_told_as_such(path, shm_dir, start_python):
    """Without root nobody else can be played; then the file is closed to its owner too."""
    shm_dir.chmod(0o755)
    path.chmod(0o600 if os.geteuid() == 0 else 0)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    # The modules are loaded before it is another user, who may not be able to read them.
    source = "from vampires import fps, process_id\nimport pwd\n" + _OTHER_USER
    out, errors = start_python(source).communicate(timeout=30)
    assert "['victim']" in out, errors
    assert f"belongs to user {owner}, only they can use it" in out


def test_the_processes_of_another_users_fps_are_not_started(shm_dir, tmp_path, monkeypatch):
    """The file names the program, which would run as whoever started it."""
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    make_logger_fps("vcam1").close()
    uid = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    control = FPSControl("streamFITSlog-vcam1")
    for action in (control.tmux_start, control.conf_start, control.remove):
        with pytest.raises(ActionFailed, match=f"belongs to user {uid}"):
            action()
    assert list_fps() == ["streamFITSlog-vcam1"]
    with FPS.open("streamFITSlog-vcam1") as fps:
        assert not fps.status() & (Status.CMDCONF | Status.TMUXCTRL)


# -- many, and odd names ----------------------------------------------------------------------


def test_a_hundred_fps_are_listed_and_opened(shm_dir):
    names = [f"streamFITSlog-cam{k:03}" for k in range(100)]
    for name in names:
        raw = bytearray(HEADER_BYTES)
        raw[: len(name)] = name.encode()
        (shm_dir / f"{name}.fps.shm").write_bytes(raw)
    assert list_fps() == names
    for name in names:
        with FPS.open(name) as fps:
            assert fps.name == name
    with pytest.raises(FPSNotFound) as missing:
        FPS.open("absent")
    assert "and 92 more" in str(missing.value)


def test_only_files_that_end_in_the_suffix_are_listed(shm_dir):
    for name in ("a.fps.shm", "b.fps.shm.tmp", "c.im.shm", "fps-new-x", "d.fps.shm~"):
        (shm_dir / name).touch()
    assert list_fps() == ["a"]
    assert list_fps(shm_dir / "absent") == []
    assert list_fps(str(shm_dir)) == ["a"]


@pytest.mark.parametrize(
    "name", (b"two\nlines", b"\x1b[2J", b"tab\t", b"\xff\xfe", b"", b".hidden", b"a.fps.shm")
)
def test_a_name_of_a_file_that_no_fps_can_have_is_listed_and_refused(shm_dir, name):
    """It is somebody's file; a screen shows it with the reason."""
    file = os.fsencode(shm_dir) + b"/" + name + b".fps.shm"
    shutil.copyfile(GOLDEN, file)
    listed = list_fps()
    assert listed == [os.fsdecode(name)]
    with pytest.raises(FPSRefused) as refused:
        FPS.open(listed[0])
    assert str(refused.value).isprintable()
    with pytest.raises(FPSNotFound) as missing:  # which names those that are there
        FPS.open("absent")
    assert str(missing.value).isprintable()
    os.unlink(file)
