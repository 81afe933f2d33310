"""Files written by the real library read back as it reads them; ours are equal byte by byte.

The golden files were made by ImageStreamIO and pyMilk; the JSON beside each says what those
read from it. ``isio_regions.txt`` lists the region offsets that the library gave to streams of
many kinds.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_stream import DTYPES, FIELDS, TEMPORAL_RING, file_of, stream_bytes

from vampires import _core
from vampires.keywords import KEYWORD_BYTES
from vampires.stream import Stream

DATA = Path(__file__).parent / "data"
GOLDEN = sorted(path.name.split(".")[0] for path in (DATA / "shm").glob("*.im.shm"))


def facts_of(name: str) -> dict[str, Any]:
    return json.loads((DATA / "shm" / f"{name}.json").read_text())


def metadata_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The metadata fields of any of the three kinds of JSON."""
    fields = dict(facts.get("md", facts))
    fields["size"] = tuple(fields["size"]) + (0,) * (3 - len(fields["size"]))
    names = ("version", "name", "naxis", "size", "nelement", "datatype", "imagetype", "cnt0")
    names += ("cnt1", "cnt2", "write", "sem", "NBkw", "shared", "location", "CBsize", "CBindex")
    names += ("CBcycle", "imdatamemsize")
    return {name: fields[name] for name in names if name in fields}


def keyword_facts(facts: dict[str, Any]) -> list[dict[str, Any]] | None:
    return facts.get("keywords", facts.get("pymilk", {}).get("keywords"))


def ns(text: str) -> int:
    seconds, fraction = text.split(".")
    return int(seconds) * 10**9 + int(fraction)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def golden(shm_dir: Path):
    """golden(name) -> a stream on a copy of the file: a reader claims a semaphore in it."""

    def open_copy(name: str) -> Stream:
        shutil.copy(DATA / "shm" / f"{name}.im.shm", shm_dir)
        file_of(shm_dir, name).chmod(0o666)
        return Stream.open(name)

    return open_copy


def test_all_golden_files_are_there() -> None:
    assert len(GOLDEN) == 21


# Those whose keywords were looked at when the file was made.
LISTED = [name for name in GOLDEN if keyword_facts(facts_of(name)) is not None]


@pytest.mark.parametrize("name", LISTED)
def test_keywords_are_those_of_the_library(golden, name: str) -> None:
    expected = keyword_facts(facts_of(name))
    keywords = golden(name).keywords
    assert list(keywords) == [fact["name"] for fact in expected]
    for fact in expected:
        value = keywords[fact["name"]]
        if isinstance(value, bool):
            value = "#TRUE#" if value else "#FALSE#"
        wanted = fact["value"]
        if isinstance(wanted, str) and not wanted.isascii():
            wanted = wanted.encode().decode("ascii", "replace").replace("\ufffd", "?")
        assert (fact["name"], value) == (fact["name"], wanted)
        assert isinstance(value, {"L": int, "D": float, "S": str}[fact["type"]])
        assert keywords.comment(fact["name"]) == fact["comment"]


@pytest.mark.parametrize("name", GOLDEN)
class TestGoldenFile:
    def test_metadata_and_offsets_are_those_of_the_library(self, golden, name: str) -> None:
        facts, stream = facts_of(name), golden(name)
        expected = metadata_facts(facts)
        found = stream.metadata
        assert {field: found[field] for field in expected} == expected
        assert found["version"] == "2.00"
        offsets = stream._file.layout
        assert offsets["EOF"] == facts["file_size"]
        for region, offset in facts.get("offsets", {}).items():
            assert (region, offsets[region]) == (region, offset)
        assert offsets["array"] == facts["raw_data"]["offset"]
        for field in ("atime", "writetime"):
            if field in facts:
                assert found[f"{field}_ns"] == ns(facts[field])

    def test_pixels_are_those_of_the_library(self, golden, name: str) -> None:
        facts, stream = facts_of(name), golden(name)
        array = stream.view()
        size = metadata_facts(facts)["size"]
        assert array.dtype == np.dtype(DTYPES[metadata_facts(facts)["datatype"] - 1])
        assert array.shape == tuple(n for n in reversed(size) if n)
        raw = array.tobytes()
        assert len(raw) == facts["raw_data"]["nbytes"]
        assert sha256(raw) == facts["raw_data"]["sha256"]

    def test_numpy_order_is_that_of_pymilk(self, golden, name: str) -> None:
        seen_by_pymilk = facts_of(name)["pymilk"]
        array = golden(name).view()
        if array.ndim == 3:
            array = np.moveaxis(array, 0, -1)  # pyMilk puts the slices last
        if "cannot_read" in seen_by_pymilk:
            assert array.dtype in (np.float16, np.complex64)
            return
        assert array.shape == tuple(seen_by_pymilk["shape"])
        assert array.dtype == seen_by_pymilk["dtype"]
        assert sha256(array.tobytes()) == seen_by_pymilk["sha256_c_order"]
        first = seen_by_pymilk["first_elements_c_order"]
        np.testing.assert_array_equal(array.ravel()[: len(first)], first)

    def test_latest_frame_is_the_newest_update(self, golden, name: str) -> None:
        facts, stream = facts_of(name), golden(name)
        frame, info = stream.latest()
        assert info.cnt0 == metadata_facts(facts)["cnt0"] == stream.cnt0
        newest = stream.view()
        if facts.get("imagetype") == TEMPORAL_RING:
            newest = newest[facts["cnt1"]]
        assert frame.tobytes() == newest.tobytes()
        assert frame.shape == stream.shape

    def test_ours_is_byte_identical(self, golden, shm_dir: Path, name: str) -> None:
        theirs = bytearray((DATA / "shm" / f"{name}.im.shm").read_bytes())
        ours = bytearray(write_the_same(golden(name), shm_dir / "ours", name, facts_of(name)))
        offsets = golden(name)._file.layout
        assert len(ours) == len(theirs)
        blank_what_may_differ(ours, offsets)
        blank_what_may_differ(theirs, offsets)
        if "made_by" in facts_of(name) and "pyMilk" in facts_of(name)["made_by"]:
            # pyMilk counts cnt1, sets no times, and clears the entry behind its last keyword.
            end = offsets["kw"] + KEYWORD_BYTES * len(golden(name).keywords)
            for raw in (ours, theirs):
                blank(raw, FIELDS["cnt1"][0], 8)
                blank(raw, FIELDS["atime"][0], 16)
                if end < offsets["semfile"]:
                    assert raw[end] == 0
                    blank(raw, end + 16, 1)
        assert [at for at in range(len(ours)) if ours[at] != theirs[at]] == []


def write_the_same(golden: Stream, folder: Path, name: str, facts: dict[str, Any]) -> bytes:
    """The bytes of a stream made like the golden one, with as many frames, the last equal."""
    folder.mkdir()
    metadata, layout = golden.metadata, golden._file.layout
    cbsize, ring = metadata["CBsize"], metadata["imagetype"] == TEMPORAL_RING
    writer = _core.create_stream(
        str(folder),
        name,
        [n for n in metadata["size"] if n],
        golden.dtype,
        metadata["imagetype"],
        metadata["NBkw"],
        cbsize,
    )
    raw = golden._file.keywords_raw()
    used = [raw[at : at + KEYWORD_BYTES] for at in range(0, len(raw), KEYWORD_BYTES)]
    writer.set_keywords(b"".join(entry for entry in used if entry[0]))
    whole = golden.view()
    copies = np.frombuffer(
        file_of(folder.parent, name).read_bytes(),
        golden.dtype,
        whole.size * cbsize,
        layout["CBimdata"],
    ).reshape(cbsize, *whole.shape)
    atimes = [ns(text) for text in facts.get("atimearray", [])]
    for cnt0 in range(1, metadata["cnt0"] + 1):
        frame, atime_ns = whole, metadata["atime_ns"]
        if ring:
            frame, atime_ns = whole[(cnt0 - 1) % len(whole)], atimes[(cnt0 - 1) % len(whole)]
        elif cbsize:
            frame = copies[cnt0 % cbsize]
        writer.write(frame, atime_ns)
    return file_of(folder, name).read_bytes()


def blank(raw: bytearray, offset: int, size: int) -> None:
    raw[offset : offset + size] = bytes(size)


def blank_what_may_differ(raw: bytearray, at: dict[str, int]) -> None:
    """Process ids, inode, clocks, and what we add: the counters of a CBsize ring, and what
    keyword_table.hpp keeps in two holes of the metadata."""
    for hole in (244, 300):
        blank(raw, hole, 4)
    for field in ("creationtime", "lastaccesstime", "writetime"):
        blank(raw, FIELDS[field][0], 16)
    blank(raw, FIELDS["creatorPID"][0], 8)
    blank(raw, FIELDS["inode"][0], 8)
    blank(raw, at["semReadPID"], at["semctrl"] - at["semReadPID"])
    blank(raw, at["writetimearray"], at["cntarray"] - at["writetimearray"])
    blank(raw, at["CircBuff_md"], at["CBimdata"] - at["CircBuff_md"])


def test_ring_has_the_counter_and_times_of_each_slice(golden) -> None:
    facts, stream = facts_of("gold_circ_u16"), golden("gold_circ_u16")
    reader = _core.StreamReader(stream._file, from_oldest=True, tai_offset_ns=0)
    order = np.argsort(facts["cntarray"])
    assert reader.unread == len(order) - 1  # the oldest slot is the writer's next
    for slice_ in order[1:]:
        frame, info = reader.read(1.0)
        assert (info.cnt0, info.cnt1) == (facts["cntarray"][slice_], slice_)
        assert info.acquired_ns == ns(facts["atimearray"][slice_])
        assert info.written_ns == ns(facts["writetimearray"][slice_])
        assert (info.lost, info.torn) == (0, 0)
        assert frame[0, 0] == facts["pymilk"]["slice_k_first_pixels"][slice_]
        np.testing.assert_array_equal(frame, stream.view()[slice_])
    assert reader.read(0.0) is None


def test_ring_of_updates_is_where_the_library_puts_it(golden, shm_dir: Path) -> None:
    facts, stream = facts_of("gold_cb_u16"), golden("gold_cb_u16")
    at = stream._file.layout["CBimdata"]
    assert at == facts["CB_data"]["offset"]
    raw = file_of(shm_dir, "gold_cb_u16").read_bytes()[at:]
    assert sha256(raw) == facts["CB_data"]["sha256"]
    copies = np.frombuffer(raw, np.uint16).reshape(4, 3, 4)
    assert copies[:, 0, 0].tolist() == facts["CB_first_pixel_u16"]


def region_cases() -> list[Any]:
    """(parameters, offsets) of every stream of the table; offsets None: the library refuses."""
    cases = []
    for block in re.split(r"\n(?=r_)", (DATA / "isio_regions.txt").read_text()):
        head, *lines = block.strip().splitlines()
        parameters: dict[str, Any] = dict(re.findall(r"(\w+)=(\S+)", head))
        sizes = [int(n) for n in parameters["size"].split(",")]
        numbers = {key: int(parameters[key], 0) for key in parameters if key != "size"}
        rows = (line.split() for line in lines)
        offsets = {region: int(at) for region, at in rows if at != "NULL"}
        cases.append(
            pytest.param(
                {**numbers, "size": sizes[: numbers["naxis"]]},
                offsets if numbers["ret"] == 0 else None,
                id=head.split(":")[0],
            )
        )
    return cases


REGIONS = region_cases()


def test_the_table_of_regions_is_read_whole() -> None:
    assert len(REGIONS) == 13
    assert sum(case.values[1] is None for case in REGIONS) == 1


# One the library itself refuses to make; we make streams of ten semaphores.
LEGAL = [case for case in REGIONS if case.values[1] is not None]
OURS = [case for case in LEGAL if case.values[0]["NBsem"] == 10]


@pytest.mark.parametrize(("parameters", "expected"), OURS)
def test_regions_of_a_created_stream(shm_dir: Path, parameters, expected) -> None:
    writer = _core.create_stream(
        str(shm_dir),
        "made",
        parameters["size"],
        np.dtype(DTYPES[parameters["dt"] - 1]),
        parameters["imagetype"],
        parameters["NBkw"],
        parameters["CBsize"],
    )
    assert file_of(shm_dir, "made").stat().st_size == parameters["memsize"]
    found = {"md": 0, **writer.file.layout}
    assert {region: found[region] for region in expected} == expected


@pytest.mark.parametrize(("parameters", "expected"), LEGAL)
def test_regions_of_an_opened_stream(shm_dir: Path, parameters, expected) -> None:
    raw = stream_bytes(
        "opened",
        tuple(parameters["size"]),
        DTYPES[parameters["dt"] - 1],
        imagetype=parameters["imagetype"],
        keywords=parameters["NBkw"],
        semaphores=parameters["NBsem"],
        cbsize=parameters["CBsize"],
    )
    assert len(raw) == parameters["memsize"]
    file_of(shm_dir, "opened").write_bytes(raw)
    found = {"md": 0, **_core.StreamFile.open(str(shm_dir), "opened").layout}
    assert {region: found[region] for region in expected} == expected


def test_a_new_stream_is_that_of_the_library(shm_dir: Path) -> None:
    with Stream.create("fresh", (3, 4), ring=0, keyword_room=3) as stream:
        ours = bytearray(file_of(shm_dir, "fresh").read_bytes())
        theirs = stream_bytes("fresh", (4, 3), "uint16", keywords=3)
        inode = struct.unpack_from("<Q", ours, FIELDS["inode"][0])[0]
        assert inode == file_of(shm_dir, "fresh").stat().st_ino
        for raw in (ours, theirs):
            blank_what_may_differ(raw, stream._file.layout)
        assert ours == theirs
        assert file_of(shm_dir, "fresh").stat().st_mode & 0o777 == 0o666


def test_special_floats_survive(golden) -> None:
    array = golden("gold_f32").view()
    assert math.isnan(array[0, 0])
    assert math.copysign(1, array[-1, -1]) == -1
