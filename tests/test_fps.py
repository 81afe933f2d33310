"""Parameters of an FPS are read and set as Python values, within their limits."""

from __future__ import annotations

import math
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from foreign_fps import VALUE_AT, ForeignFPS
from hypothesis import given
from hypothesis import strategies as st

import vampires
from vampires.fps import (
    FPS,
    FPSError,
    FPSKeyError,
    FPSNotFound,
    FPSRefused,
    Message,
    NewParameter,
    fps_directory,
    layout,
    list_fps,
)
from vampires.fps.layout import MessageCode, ParameterFlag, ParameterType, Signal, Status

SETTING = layout.DEFAULT_INPUT | ParameterFlag.WRITERUN
LIMITED = SETTING | ParameterFlag.MINLIMIT | ParameterFlag.MAXLIMIT
T = ParameterType
TEXT_TYPES = tuple(layout.NULL_TEXTS)
INTEGERS = {
    T.INT32: (-(2**31), 2**31 - 1),
    T.UINT32: (0, 2**32 - 1),
    T.INT64: (-(2**63), 2**63 - 1),
    T.UINT64: (0, 2**64 - 1),
    T.PID: (-(2**31), 2**31 - 1),
}


def initial(kind: ParameterType):
    if kind in TEXT_TYPES:
        return "text"
    return False if kind is T.ONOFF else 0


def one_of_each() -> list[NewParameter]:
    kinds = [kind for kind in T if kind is not T.UNDEF]
    return [NewParameter(k.name, k, initial(k), f"of type {k.name}", SETTING) for k in kinds]


def create(name: str, parameters: list[NewParameter], directory: Path, **options) -> FPS:
    options = {"callfuncname": "function", "workdir": directory / "work"} | options
    return FPS.create(name, parameters, shm_dir=directory, **options)


@pytest.fixture
def fps(shm_dir: Path):
    """An FPS "types" with a parameter of each type, named for it."""
    with create("types", one_of_each(), shm_dir) as made:
        yield made


@pytest.fixture(scope="module")
def shared_fps(tmp_path_factory: pytest.TempPathFactory):
    """The same for properties, which are tried with many values."""
    directory = tmp_path_factory.mktemp("shm")
    with create("types", one_of_each(), directory) as made:
        yield made


# -- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INTEGERS, ids=lambda kind: kind.name)
def test_the_whole_range_of_an_integer_is_kept_and_nothing_beyond(fps, kind):
    low, high = INTEGERS[kind]
    for value in (low, high, 1, 0):
        fps[kind.name] = value
        assert fps[kind.name] == value
        assert type(fps[kind.name]) is int
    fps[kind.name] = 7
    for value in (low - 1, high + 1, 10**400, -(10**400)):
        with pytest.raises(FPSRefused, match=kind.name):
            fps[kind.name] = value
    assert fps[kind.name] == 7


@pytest.mark.parametrize("kind", (T.FLOAT32, T.FLOAT64, T.TIMESPEC), ids=lambda kind: kind.name)
def test_a_number_that_is_none_or_does_not_fit_is_refused(fps, kind):
    fps[kind.name] = 2.5
    for value in (math.nan, math.inf, -math.inf, "2.5", None, b"2", [1], 1j, 10**400):
        with pytest.raises(FPSRefused, match=kind.name):
            fps[kind.name] = value
    assert fps[kind.name] == 2.5
    assert type(fps[kind.name]) is float


@pytest.mark.parametrize("value", (1e39, -1e39))
def test_a_number_beyond_32_bits_is_refused(fps, value):
    with pytest.raises(FPSRefused, match="FLOAT32"):
        fps["FLOAT32"] = value


@pytest.mark.parametrize("value", ("7", 1.5, math.nan, math.inf, None, b"7", [7], 1j, {}))
def test_what_is_no_whole_number_is_refused(fps, value):
    for kind in INTEGERS:
        with pytest.raises(FPSRefused, match=kind.name):
            fps[kind.name] = value
        assert fps[kind.name] == 0


def test_a_whole_number_may_be_given_as_a_float_or_of_numpy(fps):
    fps["UINT32"] = 12.0
    assert fps["UINT32"] == 12
    fps["INT64"] = np.int32(-5)
    assert fps["INT64"] == -5
    fps["FLOAT64"] = np.float32(0.5)
    assert fps["FLOAT64"] == 0.5


def test_a_switch_is_set_by_value_and_flag_together(fps):
    for value, state in ((True, True), (0, False), ("ON", True), ("off", False), (1, True)):
        fps["ONOFF"] = value
        assert fps["ONOFF"] is state
        assert fps.raw_onoff("ONOFF") == (state, state)
        assert bool(fps.parameter("ONOFF").flags & ParameterFlag.ONOFF) is state


@pytest.mark.parametrize("value", (2, -1, "yes", "", None, 0.5, math.nan, [True]))
def test_what_is_no_state_of_a_switch_is_refused(fps, value):
    with pytest.raises(FPSRefused, match="ONOFF"):
        fps["ONOFF"] = value
    assert fps.raw_onoff("ONOFF") == (False, False)


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=lambda kind: kind.name)
def test_a_text_has_up_to_63_bytes(fps, kind):
    name = kind.name
    for text in ("x" * 63, "", "é" * 31 + "e", "/data/with space/ö"):
        fps[name] = text
        assert fps[name] == text
    for text in ("x" * 64, "é" * 32, "a\0b", "\ud800", 7, None, b"bytes", True):
        with pytest.raises(FPSRefused, match=name):
            fps[name] = text
    assert fps[name] == "/data/with space/ö"
    assert fps.parameter(name).current == layout.NULL_TEXTS[kind]


@pytest.mark.parametrize("text", ("two\nlines", "\x1b[2J", "\x03; reboot", "tab\t", "\x7f"))
def test_a_client_cannot_set_control_characters_but_the_owner_may(fps, text):
    with pytest.raises(FPSRefused, match="control characters"):
        fps["STRING"] = text
    with pytest.raises(FPSRefused, match="control characters"):
        fps.parse("STRING", text)
    fps.set("STRING", text, force=True)
    assert fps["STRING"] == text


def test_a_shorter_text_leaves_nothing_of_a_longer_one(fps):
    fps["STRING"] = "a long text of many words"
    fps["STRING"] = "short"
    with ForeignFPS(fps.path) as mapped:
        assert mapped.value_bytes(mapped.exact("STRING"))[:64] == b"short".ljust(64, b"\0")


def test_times_are_seconds_with_nanoseconds(fps):
    for seconds, parts in {
        0.0: (0, 0),
        2.0: (2, 0),
        0.25: (0, 250_000_000),
        1.000000001: (1, 1),
        -0.25: (-1, 750_000_000),
        0.9999999999: (0, 999_999_999),
    }.items():
        fps["TIMESPEC"] = seconds
        with ForeignFPS(fps.path) as mapped:
            assert mapped.elements(mapped.exact("TIMESPEC")) == [list(parts), [0, 0]]
        assert fps["TIMESPEC"] == pytest.approx(seconds, abs=1e-9)
    with pytest.raises(FPSRefused):
        fps["TIMESPEC"] = 1e19


def test_32_bit_values_keep_zeros_in_the_upper_half(fps):
    with ForeignFPS(fps.path) as mapped:
        for key, value in (("UINT32", 2**32 - 1), ("INT32", -1), ("INT32", 5)):
            index = mapped.exact(key)
            at = mapped.at(index) + VALUE_AT
            mapped.raw[at + 4 : at + 8] = b"\xff\x7f\x00\x00"  # as milk leaves it
            fps[key] = value
            assert mapped.value_bytes(index)[4:8] == bytes(4)
            assert mapped.get_like_pymilk(key) == value % 2**32


def test_a_limit_of_a_32_bit_value_that_another_program_set_stays(fps):
    with ForeignFPS(fps.path) as mapped:
        index = mapped.exact("INT32")
        mapped.set_parameter(index, "fpflag", int(LIMITED))
        struct.pack_into("<4i", mapped.raw, mapped.at(index) + VALUE_AT, 5, 3, 9, 5)
        fps["INT32"] = 8
        assert mapped.elements(index) == [8, 3, 9, 5]
        with pytest.raises(FPSRefused, match="at least 3"):
            fps["INT32"] = 2


def test_each_setting_is_counted_and_asks_for_a_check(fps):
    assert fps.parameter("INT64").cnt0 == 1
    assert not fps.signal() & Signal.UPDATE
    fps["INT64"] = 5
    assert fps.parameter("INT64").cnt0 == 2
    assert fps.signal() & Signal.UPDATE


def test_the_owner_sets_outputs_beyond_limits_without_asking_for_a_check(shm_dir):
    output = NewParameter("out", T.INT64, 0, "output", layout.DEFAULT_OUTPUT)
    limited = NewParameter("limited", T.INT64, 5, "limited", LIMITED, 0, 9)
    with create("owned", [output, limited], shm_dir) as fps:
        fps.set("out", 3, force=True)
        fps.set("limited", 12, force=True)
        assert (fps["out"], fps["limited"]) == (3, 12)
        assert not fps.signal() & Signal.UPDATE


def test_an_output_is_published_when_it_changed(shm_dir):
    output = NewParameter("out", T.INT64, 0, "output", layout.DEFAULT_OUTPUT)
    with create("owned", [output], shm_dir) as fps:
        counts = []
        for value in (1, 1, 2, 2, 2):
            fps.publish("out", value)
            counts.append(fps.parameter("out").cnt0)
        assert counts == [2, 2, 3, 3, 3]
        assert fps["out"] == 2


# -- any value --------------------------------------------------------------------------------

_any_value = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=80),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=64),
    st.binary(max_size=8),
    st.none(),
    st.fractions(),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=2),
)


def _as_kept(kind: ParameterType, value):
    if kind is T.ONOFF:
        return value.upper() == "ON" if isinstance(value, str) else bool(value)
    if kind is T.FLOAT32:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


@given(kind=st.sampled_from([k for k in T if k is not T.UNDEF]), value=_any_value)
def test_any_value_comes_back_as_it_was_or_is_refused(shared_fps, kind, value):
    before = shared_fps.items()
    try:
        shared_fps[kind.name] = value
    except FPSRefused as error:
        assert kind.name in str(error)
        assert str(error).isprintable()
        assert shared_fps.items() == before
        return
    found = shared_fps[kind.name]
    if kind is T.TIMESPEC:
        assert found == pytest.approx(float(value), rel=1e-15, abs=1e-9)
    elif kind is T.FLOAT64:
        assert found == float(value)
    else:
        assert found == _as_kept(kind, value)
    others = {key: value for key, value in before if key != kind.name}
    assert others.items() <= dict(shared_fps.items()).items()


@given(kind=st.sampled_from([k for k in T if k is not T.UNDEF]), text=st.text(max_size=70))
def test_any_typed_text_is_a_value_that_can_be_set_or_is_refused(shared_fps, kind, text):
    try:
        value = shared_fps.parse(kind.name, text)
    except FPSRefused as error:
        assert str(error).isprintable()
        return
    shared_fps[kind.name] = value


@given(value=st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_printed_number_can_be_typed_again(shared_fps, value):
    for key in ("FLOAT32", "FLOAT64"):
        shared_fps[key] = value
        assert shared_fps.parse(key, str(shared_fps[key])) == shared_fps[key]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    (
        ("ONOFF", " on ", True),
        ("ONOFF", "OFF", False),
        ("ONOFF", "1", True),
        ("ONOFF", "no", False),
        ("UINT32", " 12 ", 12),
        ("INT64", "-3", -3),
        ("FLOAT64", "1e3", 1000.0),
        ("TIMESPEC", "2.5", 2.5),
        ("STRING", " kept as it is ", " kept as it is "),
        ("DIRNAME", "", ""),
    ),
)
def test_what_a_person_types_is_understood(fps, key, text, value):
    found = fps.parse(key, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text"),
    (
        *(("ONOFF", "maybe"), ("ONOFF", ""), ("UINT32", "-1"), ("UINT32", "1.5")),
        *(("UINT32", ""), ("INT64", "1e30"), ("INT64", "9" * 5000), ("FLOAT64", "two")),
        *(("FLOAT64", "nan"), ("TIMESPEC", "inf"), ("STRING", "x" * 64)),
    ),
)
def test_what_cannot_be_meant_is_refused_with_what_was_expected(fps, key, text):
    with pytest.raises(FPSRefused) as refused:
        fps.parse(key, text)
    message = str(refused.value)
    assert f"types.{key}" in message
    assert message.isprintable()
    assert len(message) <= 600


# -- limits and permissions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "limits", "outside"),
    (
        (T.INT64, (-1, 49), (-2, 50)),
        (T.UINT64, (1, 2**40), (0, 2**40 + 1)),
        (T.FLOAT64, (0.0, 3600.0), (-1e-9, 3600.1)),
        (T.FLOAT32, (0.5, 1.5), (0.25, 2.0)),
        (T.UINT32, (0, 100), (None, 101)),
    ),
)
def test_limits_are_kept(shm_dir, kind, limits, outside):
    (low, high), (below, above) = limits, outside
    new = NewParameter("x", kind, high, "limited", LIMITED, low, high)
    with create("limits", [new], shm_dir) as fps:
        parameter = fps.parameter("x")
        assert (parameter.minimum, parameter.maximum) == (low, high)
        for value in (low, high):
            fps["x"] = value
        for value, expected in ((below, f"at least {low}"), (above, f"at most {high}")):
            if value is None:
                continue
            for refused in (lambda v=value: fps.check("x", v), lambda v=value: fps.set("x", v)):
                with pytest.raises(FPSRefused, match=expected):
                    refused()
            with pytest.raises(FPSRefused, match=expected):
                fps.parse("x", str(value))
        assert fps["x"] == high


def test_numbers_without_the_flag_have_no_limits(fps):
    for kind in (*INTEGERS, T.FLOAT32, T.FLOAT64, T.TIMESPEC):
        assert fps.parameter(kind.name).minimum is None
        assert fps.parameter(kind.name).maximum is None


def test_a_time_has_a_lower_limit_only(shm_dir):
    """It has two elements; there is no room for a third."""
    new = NewParameter("wait", T.TIMESPEC, 10.0, "a time", LIMITED, 0.5, 20.0)
    with create("times", [new], shm_dir) as fps:
        assert fps.parameter("wait").minimum == 0.5
        assert fps.parameter("wait").maximum is None
        fps["wait"] = 1000.0
        with pytest.raises(FPSRefused, match=r"at least 0\.5"):
            fps["wait"] = 0.25


def test_texts_and_process_ids_have_no_limits(shm_dir):
    new = [
        NewParameter("name", T.STRING, "x", "text", LIMITED),
        NewParameter("process", T.PID, 5, "process id", LIMITED),
    ]
    with create("unlimited", new, shm_dir) as fps:
        for key in fps:
            assert (fps.parameter(key).minimum, fps.parameter(key).maximum) == (None, None)
        fps["process"] = 4711
        fps["name"] = "y"


@pytest.mark.parametrize("conf", (False, True), ids=("conf off", "conf on"))
@pytest.mark.parametrize("run", (False, True), ids=("run off", "run on"))
@pytest.mark.parametrize(
    "flags", (0, 0x10, 0x10 | 0x20, 0x10 | 0x40, 0x10 | 0x20 | 0x40, 0x20 | 0x40), ids=hex
)
def test_what_may_be_set_depends_on_the_processes_that_run(shm_dir, flags, run, conf):
    new = NewParameter("x", T.INT64, 0, "", ParameterFlag(0x7 | flags))
    with create("permissions", [new], shm_dir) as fps:
        if conf:
            fps.record_conf_process()
        if run:
            fps.record_run_process()
        allowed = flags & 0x10 and (flags & 0x20 or not conf) and (flags & 0x40 or not run)
        assert fps.writable("x") is bool(allowed)
        if allowed:
            fps["x"] = 1
            assert fps["x"] == 1
        else:
            with pytest.raises(FPSRefused, match="cannot be set"):
                fps["x"] = 1
            with pytest.raises(FPSRefused, match="cannot be set"):
                fps.check("x", 1)
            assert fps["x"] == 0
            assert not fps.signal() & Signal.UPDATE


def test_an_output_is_said_to_be_one(shm_dir):
    new = NewParameter("x", T.INT64, 0, "", layout.DEFAULT_OUTPUT)
    with create("outputs", [new], shm_dir) as fps, pytest.raises(FPSRefused, match="an output"):
        fps["x"] = 1


# -- keys -------------------------------------------------------------------------------------


def test_a_key_may_be_short_dotted_or_whole(shm_dir):
    new = [
        NewParameter("cubesize", T.UINT32, 5, "", SETTING),
        NewParameter("procinfo.RTprio", T.INT64, 20, "", SETTING),
    ]
    with create("streamFITSlog-vcam1", new, shm_dir) as fps:
        for key in ("cubesize", ".cubesize", "streamFITSlog-vcam1.cubesize"):
            assert fps[key] == 5
            assert key in fps
            fps[key] = 6
            fps[key] = 5
        assert fps["streamFITSlog-vcam1.procinfo.RTprio"] == fps["procinfo.RTprio"] == 20
        assert list(fps) == fps.keys() == ["cubesize", "procinfo.RTprio"]
        assert len(fps) == 2
        assert fps.items() == [("cubesize", 5), ("procinfo.RTprio", 20)]
        assert [p.key for p in fps.parameters()] == fps.keys()
        assert fps.parameter("cubesize").full_key == "streamFITSlog-vcam1.cubesize"


def test_a_key_that_begins_as_the_fps_is_named_is_found(shm_dir):
    new = [NewParameter(key, T.INT64, k, "") for k, key in enumerate(("conf.conf", "conf"))]
    with create("conf", new, shm_dir) as fps:
        assert [fps[key] for key in fps] == [0, 1]
        assert [fps[f"conf.{key}"] for key in fps] == [0, 0]  # a short key comes first


@pytest.mark.parametrize("key", ("cube", "sizes", "", ".", "other.cubesize", "CUBESIZE"))
def test_a_key_that_is_not_there_is_told_with_some_that_are(fps, key):
    assert key not in fps
    with pytest.raises(KeyError) as missing:
        fps[key]
    assert isinstance(missing.value, FPSKeyError)
    assert "INT32" in str(missing.value)
    with pytest.raises(FPSKeyError):
        fps[key] = 1


def test_what_is_no_text_is_no_key(fps):
    assert 7 not in fps
    assert None not in fps


def test_a_parameter_that_its_program_adds_later_is_found(fps):
    with ForeignFPS(fps.path) as mapped:
        count = mapped.count()
        begin, end = mapped.at(count - 1), mapped.at(count)
        raw = bytearray(mapped.raw[begin:end])
        raw[16 : 16 + 10] = b"types.new\0"
        mapped.raw[end : end + len(raw)] = raw
    assert fps["new"] == "text"
    assert len(fps.parameters()) == count + 1


# -- header and messages ----------------------------------------------------------------------


def test_bits_of_status_and_signal_change_alone(fps):
    fps.change_status(set=Status.CMDRUN | Status.TMUXCTRL)
    fps.change_status(set=Status.CHECKOK, clear=Status.CMDRUN)
    assert fps.status() == Status.TMUXCTRL | Status.CHECKOK == fps.header().status
    fps.change_signal(set=Signal.UPDATE)
    assert fps.change_signal(clear=Signal.CONFRUN) == Signal.UPDATE == fps.header().signal


def test_the_end_of_a_check_is_said_only_when_no_other_was_asked_for(fps):
    fps.change_signal(set=Signal.UPDATE | Signal.CHECKED)
    fps.end_check()
    assert fps.signal() & Signal.CHECKED
    fps.change_signal(clear=Signal.UPDATE)
    fps.end_check()
    assert not fps.signal() & Signal.CHECKED


def test_messages_are_kept_in_order_and_errors_counted(fps):
    messages = [
        Message(3, MessageCode.ERROR, "wrong"),
        Message(4, MessageCode.INFO, "to know"),
        Message(5, MessageCode.BELOWMIN | MessageCode.ERROR, "too small"),
    ]
    fps.set_messages(messages)
    assert fps.messages() == messages
    assert fps.header().conferrcnt == 2
    fps.set_messages([])
    assert fps.messages() == []
    assert fps.header().conferrcnt == 0


def test_messages_that_are_too_many_or_too_long_are_cut(fps):
    fps.set_messages([Message(k, MessageCode.ERROR, "é" * 400) for k in range(120)])
    found = fps.messages()
    assert len(found) == 100
    assert fps.header().conferrcnt == 120
    assert all(message.text.startswith("é" * 249) for message in found)
    with ForeignFPS(fps.path) as mapped:
        assert mapped.raw[62232 + 400 : 62632 + 8] == struct.pack("<q", 100)
        assert mapped.get("conferrcnt") == 120


# -- files ------------------------------------------------------------------------------------


def test_the_package_offers_the_class():
    assert vampires.FPS is FPS


def test_one_that_is_not_there_is_told_with_those_that_are(fps, shm_dir):
    with pytest.raises(FPSNotFound, match=r"no FPS 'other' in .*; FPS there: types"):
        FPS.open("other")
    for k in range(20):
        create(f"many{k:02}", [], shm_dir).close()
    with pytest.raises(FPSNotFound, match="and 13 more"):
        FPS.open("other")
    with pytest.raises(FPSNotFound, match="FPS there: none"):
        FPS.open("types", shm_dir / "elsewhere")


def test_the_directory_is_that_of_milk(monkeypatch, tmp_path):
    monkeypatch.setenv("MILK_SHM_DIR", str(tmp_path))
    assert fps_directory() == tmp_path
    monkeypatch.setenv("MILK_SHM_DIR", "")
    monkeypatch.setattr("os.path.isdir", lambda path: path == "/milk/shm")
    assert fps_directory() == Path("/milk/shm")
    monkeypatch.delenv("MILK_SHM_DIR")
    monkeypatch.setattr("os.path.isdir", lambda path: False)
    assert fps_directory() == Path("/tmp")


def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced(fps, shm_dir):
    fps["INT64"] = 5
    with pytest.raises(FPSRefused, match="there is an FPS 'types'"):
        create("types", [], shm_dir)
    assert fps.is_current()
    with create("types", one_of_each(), shm_dir, replace=True) as other:
        assert other["INT64"] == 0
        assert other.is_current()
        assert not fps.is_current()
        assert fps["INT64"] == 5  # of the old one
    assert list_fps() == ["types"]


def test_a_file_that_was_removed_is_not_current(fps):
    assert fps.is_current()
    fps.path.unlink()
    assert not fps.is_current()


@pytest.mark.parametrize(
    "name",
    (
        *("", ".", "..", ".hidden", "a/b", "../a", "a\nb", "a\x1b[0m", "a\0b", "x" * 100),
        *("é" * 50, "a.fps.shm", "\udcff", "a\tb"),
    ),
)
def test_a_name_that_no_fps_can_have_is_refused(shm_dir, name):
    for use in (lambda: FPS.open(name), lambda: create(name, [], shm_dir)):
        with pytest.raises(FPSRefused) as refused:
            use()
        assert str(refused.value).isprintable()
    assert list(shm_dir.iterdir()) == []


@pytest.mark.parametrize(
    "name", ("a", "x" * 99, "a b", "a.b:c", "$HOME", "é", "a'b\"c`d", "-x")
)
def test_an_odd_name_works(shm_dir, name):
    with create(name, one_of_each(), shm_dir) as made:
        made["INT64"] = 3
    with FPS.open(name) as fps:
        assert fps.name == name == fps.header().name
        assert fps["INT64"] == fps[f"{name}.INT64"] == 3
    assert list_fps() == [name]


def test_more_parameters_than_usual_find_room(shm_dir):
    new = [NewParameter(f"p{k}", T.INT64, k, "") for k in range(300)]
    with create("large", new, shm_dir) as fps:
        assert fps.path.stat().st_size == 62648 + 4112 * 300
        assert [fps[key] for key in fps] == list(range(300))


@pytest.mark.parametrize(
    "new",
    (
        NewParameter("x", T.INT32, 5, "", LIMITED, -1, 9),  # pyMilk would read 2**64 - ...
        NewParameter("x", T.UINT32, -1, ""),
        NewParameter("x", T.INT64, "text", ""),
        NewParameter("x", T.FLOAT64, 1.0, "", LIMITED, None, 2.0),
        NewParameter("x", T.STRING, "x" * 64, ""),
        NewParameter("x", T.INT64, 1, "d" * 64),
        NewParameter("", T.INT64, 1, ""),
        NewParameter("a..b", T.INT64, 1, ""),
        NewParameter(".".join("abcdefghijklmnopqrst"), T.INT64, 1, ""),
        NewParameter("k" * 1300, T.INT64, 1, ""),
    ),
    ids=repr,
)
def test_a_parameter_that_does_not_fit_makes_no_file(shm_dir, new):
    with pytest.raises(FPSRefused):
        create("misfit", [new], shm_dir)
    assert list_fps() == []


def test_texts_of_the_header_that_do_not_fit_make_no_file(shm_dir):
    with pytest.raises(FPSRefused, match="workdir"):
        create("misfit", [], shm_dir, workdir="/" + 200 * "x")
    with pytest.raises(FPSRefused, match="description"):
        create("misfit", [], shm_dir, description=200 * "x")
    assert list(shm_dir.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told(shm_dir, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(FPSError, match=r"cannot make the FPS 'x': .*file"):
        create("x", [], shm_dir, workdir=in_the_way / "work")
    with pytest.raises(FPSError, match="cannot make the FPS 'x'"):
        create("x", [], shm_dir / "absent", workdir=shm_dir / "work")
    assert list_fps() == []


def test_a_file_that_cannot_be_linked_leaves_nothing(shm_dir, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    with pytest.raises(FPSError, match="No space left"):
        create("x", [], shm_dir)
    assert [path.name for path in shm_dir.iterdir()] == ["work"]


def test_one_that_was_closed_says_so(shm_dir):
    fps = create("closed", one_of_each(), shm_dir)
    fps.close()
    fps.close()
    for use in (fps.header, fps.parameters, fps.status, lambda: fps["INT64"]):
        with pytest.raises(FPSError, match="closed; open it again"):
            use()
    with pytest.raises(FPSError, match="closed"):
        fps.change_status(set=Status.CMDRUN)
    assert not fps.is_current()


def test_no_file_descriptor_is_left(fps, shm_dir):
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        FPS.open("types").close()
        with pytest.raises(FPSNotFound):
            FPS.open("absent")
        with pytest.raises(FPSRefused):
            create("types", [], shm_dir)
    assert len(os.listdir("/proc/self/fd")) == len(before)


# -- several at once --------------------------------------------------------------------------

_SETTER = """
import sys
from vampires.fps import FPS
from vampires.fps.layout import ParameterFlag, Status
key, bit, flag, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with FPS.open("types") as fps:
    print("ready", flush=True)
    sys.stdin.readline()
    for k in range(times):
        fps[key] = k
        fps["STRING"] = key
        fps.change_status(set=bit)
        assert fps.status() & bit, "the status of this process was lost"
        fps.set_flags("INT32", set=ParameterFlag(flag))
        assert fps.parameter("INT32").flags & flag, "the flag of this process was lost"
        if k < times - 1:
            fps.change_status(clear=bit)
            fps.set_flags("INT32", clear=ParameterFlag(flag))
"""


def test_processes_that_set_at_the_same_time_lose_nothing(fps, start_python):
    times = 150
    bits = {"INT64": 1 << 4, "UINT64": 1 << 5, "FLOAT64": 1 << 6}
    flags = {"INT64": 1 << 60, "UINT64": 1 << 61, "FLOAT64": 1 << 62}
    before = fps.parameter("INT32").flags
    setters = [
        start_python(_SETTER, key, bit, flags[key], times, stdin=-1)
        for key, bit in bits.items()
    ]
    for setter in setters:
        assert setter.stdout.readline() == "ready\n"
    for setter in setters:
        setter.stdin.write("\n")
        setter.stdin.flush()
    for setter in setters:
        _, errors = setter.communicate(timeout=60)
        assert setter.returncode == 0, errors
    for key in bits:
        assert fps[key] == times - 1
        assert fps.parameter(key).cnt0 == 1 + times
    assert fps.parameter("STRING").cnt0 == 1 + times * len(bits)
    assert fps["STRING"] in bits
    assert fps.status() == sum(bits.values())
    assert fps.parameter("INT32").flags == before | sum(flags.values())
    assert fps.signal() == Signal.CONFRUN | Signal.UPDATE


def test_threads_that_use_one_object_lose_nothing(fps):
    def work(bit: int) -> None:
        for _ in range(100):
            fps.change_status(set=bit)
            fps.change_status(clear=bit)
            fps["INT64"] = bit
            fps.parameters()
        fps.change_status(set=bit)

    bits = [1 << k for k in range(4)]
    threads = [threading.Thread(target=work, args=(bit,)) for bit in bits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fps.status() == sum(bits)
    assert fps.parameter("INT64").cnt0 == 1 + 400


def test_a_program_that_keeps_the_lock_is_not_awaited_for_ever(fps):
    import fcntl

    with fps.path.open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        fps["INT64"] = 9
        fps.change_status(set=Status.CHECKOK)
    assert fps["INT64"] == 9
    assert fps.status() & Status.CHECKOK


_WATCHER = """
import os, sys
directory = sys.argv[1]
print("ready", flush=True)
seen = set()
while True:
    for entry in os.scandir(directory):
        if ".fps.shm" not in entry.name:
            continue
        try:
            with open(entry.path, "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            continue
        whole = len(raw) == 885048 and raw[11824] == 200
        whole = whole and raw[:5] == raw[62648 + 16:][:5] == b"many-"
        if not whole or not entry.name.endswith(".fps.shm"):
            sys.exit(f"{entry.name} was seen with {len(raw)} bytes, {raw[:20]!r}")
        seen.add(entry.name)
    if os.path.exists(os.path.join(directory, "end")):
        break
print(len(seen))
"""


def test_a_file_appears_complete_or_not_at_all(shm_dir, start_python):
    watcher = start_python(_WATCHER, shm_dir)
    assert watcher.stdout.readline() == "ready\n"
    for k in range(120):
        create(f"many-{k % 20}", one_of_each(), shm_dir, replace=True).close()
    (shm_dir / "end").touch()
    out, errors = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, errors
    assert int(out) == 20
    names = [path.name for path in shm_dir.iterdir() if not path.name.endswith(".fps.shm")]
    assert sorted(names) == ["end", "work"]


def test_one_of_several_creators_of_a_name_wins(shm_dir):
    barrier = threading.Barrier(4)
    made: list[FPS] = []
    refused: list[str] = []

    def make(k: int) -> None:
        barrier.wait()
        try:
            made.append(create("same", [NewParameter("who", T.INT64, k, "")], shm_dir))
        except FPSRefused as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(refused) == 3
    assert made[0].is_current()
    made[0].close()
