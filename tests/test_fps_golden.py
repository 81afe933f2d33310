"""FPS files that milk wrote are read as milk reads them, and ours are like them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest
from foreign_fps import FIELDS, HEADER_BYTES, PARAMETER_BYTES, TYPES, VALUE_AT, ForeignFPS

from vampires.fps import FPS, layout, list_fps
from vampires.fps_control import FPSControl
from vampires.logger_parameters import logger_parameters, make_logger_fps, set_values

FOLDER = Path(__file__).parent / "data" / "fps"
NAMES = ("streamFITSlog-bare", "streamFITSlog-vcam1", "streamFITSlog-vgold.running")
GOLDEN = "streamFITSlog-vcam1"


# Blanked in the file since, but not in its JSON.
BLANKED = {"/data/fitsgold": "/data/"}


@pytest.fixture
def golden(shm_dir: Path):
    """golden(name) -> (path of a copy that can be opened, what milk reads from it)."""

    def copied(name: str = GOLDEN) -> tuple[Path, dict]:
        path = shm_dir / f"{name}.fps.shm"
        shutil.copyfile(FOLDER / path.name, path)
        expected = json.loads((FOLDER / f"{name}.json").read_text())
        for parameter in expected["params"]:
            first = parameter["val"][0]
            parameter["val"][0] = BLANKED.get(first, first) if type(first) is str else first
        return path, expected

    return copied


# -- milk's files read here -------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_own_reader_agrees_with_milk(golden, name):
    path, expected = golden(name)
    with ForeignFPS(path) as fps:
        header = expected["md"]
        for field in FIELDS:
            found = fps.get(field)
            found = list(found) if isinstance(found, tuple) else found
            if field in ("signal", "status"):
                found = hex(found)
            assert found == header[field], field
        assert fps.name_indices() == header["nameindexW"]
        assert fps.modules() == header["modulename"]
        assert fps.messages() == header["message"]
        assert fps.count() == len(expected["params"])
        for index, parameter in enumerate(expected["params"]):
            assert hex(fps.parameter(index, "fpflag")) == parameter["fpflag"]
            assert fps.parameter(index, "userflag") == parameter["userflag"]
            assert fps.parameter(index, "keywordfrom") == parameter["keywordfrom"]
            assert fps.keywords(index) == parameter["keyword"]
            assert fps.elements(index) == parameter["val"]


@pytest.mark.parametrize("name", NAMES)
def test_the_header_of_a_golden_file_reads_as_its_json_says(golden, name):
    path, expected = golden(name)
    header = expected["md"]
    with FPS.open(name) as fps:
        found = fps.header()
        for field in (
            *("name", "description", "keywordarray", "workdir", "datadir", "confdir"),
            *("callprogname", "callfuncname", "confpid", "runpid", "confwaitus", "conferrcnt"),
        ):
            assert getattr(found, field) == header[field], field
        seconds, nanoseconds = header["confpidstarttime"]
        assert found.conf_start_ns == seconds * 10**9 + nanoseconds
        seconds, nanoseconds = header["runpidstarttime"]
        assert found.run_start_ns == seconds * 10**9 + nanoseconds
        assert hex(found.signal) == header["signal"]
        assert hex(found.status) == header["status"]
        assert fps.modules() == header["modulename"]
        assert fps.messages() == header["message"]
        assert fps.name == header["name"]
    assert path.stat().st_size == layout.file_bytes(header["NBparamMAX"])


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_of_a_golden_file_read_as_its_json_says(golden, name):
    _, expected = golden(name)
    prefix = expected["md"]["name"] + "."
    with FPS.open(name) as fps:
        found = fps.parameters()
        assert len(found) == len(fps) == len(expected["params"])
        for parameter, golden_parameter in zip(found, expected["params"], strict=True):
            elements = golden_parameter["val"]
            kind = golden_parameter["type"]
            assert parameter.index == golden_parameter["pindex"]
            assert parameter.full_key == golden_parameter["keywordfull"]
            assert parameter.key == golden_parameter["keywordfull"].removeprefix(prefix)
            assert parameter.type.name == kind
            assert hex(parameter.type) == golden_parameter["type_code"]
            assert hex(parameter.flags) == golden_parameter["fpflag"]
            assert parameter.flags == sum(
                layout.ParameterFlag[flag] for flag in golden_parameter["flags"]
            )
            assert parameter.description == golden_parameter["description"]
            assert parameter.cnt0 == golden_parameter["cnt0"]
            if kind == "TIMESPEC":
                assert parameter.value == elements[0][0] + elements[0][1] / 1e9
            elif kind == "ONOFF":
                on = bool(elements[0]) or "ONOFF" in golden_parameter["flags"]
                assert parameter.value is on
            else:
                assert parameter.value == elements[0]
                assert type(parameter.value) is type(elements[0])
            limited = kind not in ("ONOFF", "TIMESPEC") and not isinstance(elements[0], str)
            if limited:
                flags = golden_parameter["flags"]
                assert parameter.minimum == (elements[1] if "MINLIMIT" in flags else None)
                assert parameter.maximum == (elements[2] if "MAXLIMIT" in flags else None)
                assert parameter.current == elements[3]
            assert fps[parameter.key] == parameter.value


def test_the_switch_that_milk_shows_by_its_flag_alone_is_on(golden):
    golden()
    with FPS.open(GOLDEN) as fps:
        assert fps.raw_onoff("procinfo.enabled") == (False, True)
        assert fps["procinfo.enabled"] is True


def test_processes_recorded_long_ago_do_not_run(golden):
    golden("streamFITSlog-vgold.running")
    with FPS.open("streamFITSlog-vgold.running") as fps:
        assert not fps.conf_running()
        assert not fps.run_running()


@pytest.mark.parametrize("name", NAMES)
def test_reading_a_golden_file_changes_no_byte_of_it(golden, name):
    path, _ = golden(name)
    with FPS.open(name) as fps:
        fps.header(), fps.parameters(), fps.items(), fps.messages(), fps.conf_running()
        fps.raw_onoff("saveON"), fps.parse("cubesize", "12"), fps.writable("dirname")
    assert path.read_bytes() == (FOLDER / path.name).read_bytes()


def test_setting_a_value_of_milks_changes_value_count_and_signal_alone(golden):
    path, _ = golden()
    before = path.read_bytes()
    with FPS.open(GOLDEN) as fps:
        fps["procinfo.RTprio"] = 30
        at = HEADER_BYTES + fps.parameter("procinfo.RTprio").index * PARAMETER_BYTES
    expected = bytearray(before)
    struct.pack_into("<q", expected, at + VALUE_AT, 30)
    struct.pack_into("<q", expected, at + 4104, 2)
    struct.pack_into("<Q", expected, FIELDS["signal"][0], 0x5)
    assert path.read_bytes() == bytes(expected)


# -- our file beside milk's -------------------------------------------------------------------


@pytest.fixture
def ours(shm_dir: Path):
    """The FPS of a logger of ours for the stream vcam1, mapped by another program; with the
    values of the golden one."""
    values = {"dirname": "/mnt/streamlog", "outfname": "0", "cubesize": 1000}
    values |= {"sname": "vgold", "procinfo.triggersname": "vgold"}
    with make_logger_fps("vcam1") as fps:
        for key, value in values.items():
            fps.set(key, value, force=True)
    with ForeignFPS(shm_dir / "streamFITSlog-vcam1.fps.shm") as mapped:
        yield mapped


@pytest.fixture
def milks(tmp_path: Path):
    path = tmp_path / f"{GOLDEN}.fps.shm"
    shutil.copyfile(FOLDER / path.name, path)
    with ForeignFPS(path) as mapped:
        yield mapped


def test_ours_begins_with_the_parameters_of_milks_in_their_order(ours, milks):
    for index in range(milks.count()):
        for field in ("keywordfull", "type", "keywordlevel", "keywordfrom", "description"):
            assert ours.parameter(index, field) == milks.parameter(index, field), index
        assert ours.keywords(index) == milks.keywords(index)


def test_ours_lets_more_be_set_while_it_runs_and_is_else_flagged_as_milks(ours, milks):
    more = {"cubesize", "dirname"}  # from the next cube on
    for index in range(milks.count()):
        key = ours.parameter(index, "keywordfull").removeprefix(GOLDEN + ".")
        expected = milks.parameter(index, "fpflag") | (0x40 if key in more else 0)
        assert hex(ours.parameter(index, "fpflag")) == hex(expected), key


def test_the_bytes_of_ours_are_those_of_milks_wherever_they_mean_the_same(ours, milks):
    with FPS.open(GOLDEN) as fps:
        fps.set("procinfo.triggertimeout", 10.0, force=True)
    for index in range(milks.count()):
        begin, end = milks.at(index), milks.at(index) + PARAMETER_BYTES
        ours_bytes, milks_bytes = (
            bytearray(ours.raw[begin:end]),
            bytearray(milks.raw[begin:end]),
        )
        for raw in (ours_bytes, milks_bytes):
            kind = TYPES[struct.unpack_from("<I", raw, 3924)[0]][0]
            struct.pack_into("<Q", raw, 0, 0)  # flags: another test
            struct.pack_into("<q", raw, 4104, 0)  # how often it was set
            raw[4056:4104] = bytes(48)  # milk's own notes of a stream
            for at in range(16, 16 + 1280):  # behind a text's NUL
                if at > raw.index(b"\0", 16):
                    raw[at] = 0
            if kind in ("UINT32", "UINT64", "FLOAT32"):  # no limits here: milk leaves rubbish
                size = 8 if kind == "UINT64" else 4
                raw[VALUE_AT + size : VALUE_AT + 128] = bytes(128 - size)
            if kind == "INT64":  # what its process uses
                raw[VALUE_AT + 24 : VALUE_AT + 128] = bytes(104)
            if kind == "ONOFF":  # procinfo.enabled of milk's is on by its flag alone
                raw[VALUE_AT : VALUE_AT + 128] = bytes(128)
            if kind in ("STRING", "DIRNAME", "STREAMNAME"):
                for at in (VALUE_AT, VALUE_AT + 64):
                    length = len(raw[at : at + 64].partition(b"\0")[0])
                    raw[at + length : at + 64] = bytes(64 - length)
        if ours.keywords(index)[1:] == ["procinfo", "loopcntMax"]:
            milks_bytes[VALUE_AT + 16 : VALUE_AT + 24] = ours_bytes[VALUE_AT + 16 :][:8]
        assert ours_bytes == milks_bytes, ours.keywords(index)


def test_the_header_of_ours_is_laid_out_as_milks(ours, milks):
    for field in (
        *("name", "description", "keywordarray", "datadir", "confdir", "pname"),
        *("callfuncname", "NBnameindex", "signal", "confwaitus", "NBparamMAX", "status"),
    ):
        assert ours.get(field) == milks.get(field), field
    assert ours.name_indices() == milks.name_indices()
    assert len(ours.raw) == len(milks.raw)


# -- what milk's tools need of an FPS, point by point -----------------------------------------


def test_the_name_while_it_is_written_does_not_hold_the_suffix(shm_dir, monkeypatch):
    seen = []
    link = os.link

    def watched(source, target, **options):
        seen.append((sorted(os.listdir(shm_dir)), os.path.getsize(source)))
        return link(source, target, **options)

    monkeypatch.setattr("os.link", watched)
    make_logger_fps("vcam1").close()
    ((names, size),) = seen
    written = [name for name in names if name != "FITSlogger"]
    assert len(written) == 1
    assert ".fps.shm" not in written[0]
    assert size == 885048
    assert sorted(os.listdir(shm_dir)) == ["FITSlogger", "streamFITSlog-vcam1.fps.shm"]


def test_only_its_user_may_use_the_file(ours, shm_dir):
    mode = (shm_dir / "streamFITSlog-vcam1.fps.shm").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_it_names_itself_its_program_and_its_function(ours):
    assert ours.get("name") == "streamFITSlog-vcam1"
    assert ours.get("pname") == "streamFITSlog"
    assert ours.get("NBnameindex") == 1
    assert ours.name_indices() == ["vcam1"] + [""] * 15
    assert ours.get("callprogname") == "vampires"
    assert ours.get("callfuncname") == "streamFITSlog"


def test_the_directory_where_milk_fpsctrl_leaves_notes_is_there(ours):
    notes = Path(ours.get("workdir")) / ours.get("datadir") / "fps"
    assert notes.is_dir()
    (notes / "streamFITSlog-vcam1.saveON.setval.txt").write_text("ON")


def test_a_new_fps_lets_the_conf_process_run_and_counts_its_room(ours):
    assert ours.get("signal") == 1
    assert ours.get("confwaitus") == 1000
    assert ours.get("NBparamMAX") == 200 >= ours.count()
    assert len(ours.raw) == 62648 + 4112 * 200


def test_parameters_are_contiguous_active_and_name_their_parts(ours):
    count = len(logger_parameters("vcam1"))
    for index in range(200):
        full = ours.parameter(index, "keywordfull")
        assert bool(full) == (index < count)
        if full:
            assert ours.parameter(index, "fpflag") & 1
            parts = [
                "streamFITSlog-vcam1",
                *full.removeprefix("streamFITSlog-vcam1.").split("."),
            ]
            assert ours.keywords(index) == parts
            assert ours.parameter(index, "keywordlevel") == len(parts)


def test_elements_of_a_value_that_mean_nothing_are_zero(ours):
    for index in range(ours.count()):
        name, form = TYPES[ours.parameter(index, "type")]
        raw = ours.value_bytes(index)
        used = 8 if name == "ONOFF" else struct.calcsize(form)
        assert not any(raw[used:]), name
        if form == "64s64s":
            for element in (raw[:64], raw[64:]):
                assert not any(element.partition(b"\0")[2])
        if name in ("UINT32", "INT32"):
            assert raw[4:8] == bytes(4)


def test_no_name_is_part_of_a_name_before_it(ours):
    """milk takes the first parameter whose full name contains the one asked for."""
    for stream in ("vcam1", "vcam2", "vpupcam"):
        with make_logger_fps(stream) as fps:
            for key in fps:
                found = next(other for other in fps.parameters() if f".{key}" in other.full_key)
                assert found.key == key


def test_our_own_names_are_found_without_their_dot(ours):
    """milk's own have faults there (sname), which stay as they are."""
    milks = 31
    for index in range(milks, ours.count()):
        key = ours.parameter(index, "keywordfull").removeprefix("streamFITSlog-vcam1.")
        assert ours.find(key) == index


def test_a_recorded_process_is_found_by_its_id_and_start(ours):
    with FPS.open("streamFITSlog-vcam1") as fps:
        fps.record_conf_process()
        fps.record_run_process()
        assert fps.conf_running()
        assert fps.run_running()
        for kind in ("conf", "run"):
            assert ours.get(f"{kind}pid") == os.getpid()
            seconds, nanoseconds = ours.get(f"{kind}pidstarttime")
            assert getattr(fps.header(), f"{kind}_start_ns") == seconds * 10**9 + nanoseconds
            assert 0 <= nanoseconds < 10**9


def test_what_pymilk_and_milk_set_is_read_here(ours):
    with FPS.open("streamFITSlog-vcam1") as fps:
        ours.set_like_pymilk("cubesize", 123)
        assert fps["cubesize"] == 123
        assert not ours.get("signal") & 0x4
        ours.set_like_milk("dirname", "/data/tonight")
        assert fps["dirname"] == "/data/tonight"
        assert ours.get("signal") & 0x4
        ours.set_like_milk("maxframecnt", 7)
        assert fps["maxframecnt"] == 7
        for on in (True, False):
            ours.set_like_pymilk("saveON", on)
            assert fps["saveON"] is on
            assert fps.raw_onoff("saveON") == (on, on)


def test_what_is_set_here_is_read_by_pymilk(ours):
    values = {
        "cubesize": 250,
        "saveON": True,
        "dirname": "/data/x",
        "maxfilecnt": 2**40,
        "pretrigger": 1.5,
        "writerRTprio": 2**32 - 1,
    }
    with FPS.open("streamFITSlog-vcam1") as fps:
        set_values(fps, values)
    for key, value in values.items():
        assert ours.get_like_pymilk(key) == value
    assert ours.elements(ours.exact("saveON"))[0] == 1


def test_pymilks_reading_of_a_32_bit_value_disturbs_nothing(ours):
    """It leaves 64 bits in the element for the value in use."""
    with FPS.open("streamFITSlog-vcam1") as fps:
        before = {key: value for key, value in fps.items() if key != "cubesize"}
        assert ours.get_like_pymilk("cubesize") == 1000
        assert fps["cubesize"] == 1000
        fps["cubesize"] = 2000
        assert ours.get_like_pymilk("cubesize") == 2000
        assert {key: value for key, value in fps.items() if key != "cubesize"} == before


def test_a_client_that_sets_only_the_value_of_a_switch_is_noticed(ours):
    """Value and flag differ then, and the logger takes that for a change."""
    with FPS.open("streamFITSlog-vcam1") as fps:
        ours.set_value_only("saveON", 1)
        assert fps.raw_onoff("saveON") == (True, False)
        assert fps["saveON"] is True
        fps.set("saveON", True, force=True)
        assert fps.raw_onoff("saveON") == (True, True)
        ours.set_value_only("saveON", 0)
        assert fps.raw_onoff("saveON") == (False, True)


def test_connecting_as_milk_does_disturbs_nothing(ours):
    with FPS.open("streamFITSlog-vcam1") as fps:
        header, values = fps.header(), fps.items()
        ours.connect()
        assert fps.header() == header
        assert fps.items() == values
    assert ours.name_indices()[0] == "vcam1"


def test_long_parts_of_a_name_that_milk_writes_over_each_other_do_no_harm(shm_dir):
    stream = "averylongstreamname-withparts-thatoverlap"
    with make_logger_fps(stream) as fps, ForeignFPS(fps.path) as mapped:
        mapped.connect()
        assert fps.header().name == f"streamFITSlog-{stream}"
        assert mapped.get("NBnameindex") == 3
        assert FPSControl(fps.name).numbers(panes=[]) == (0, 0, 0)
        assert [p.index for p in fps.parameters()] == list(range(len(fps)))


def test_an_fps_is_listed_by_its_name(ours):
    assert list_fps() == ["streamFITSlog-vcam1"]
