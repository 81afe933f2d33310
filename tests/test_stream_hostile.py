"""Anything may stand in a stream file or happen to it: refused or bounded, never fatal.

A file is either refused with StreamInvalid, or whatever is read of it lies within it. A file
that is truncated, removed or re-created under a reader ends in StreamGone.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from foreign_stream import (
    FIELDS,
    TEMPORAL_RING,
    ForeignStream,
    file_of,
    keyword,
    region_offsets,
    run,
    set_field,
    stream_bytes,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vampires import _core
from vampires.stream import Stream, StreamGone, StreamInvalid, StreamNotFound, StreamUnsupported

GOLDEN = Path(__file__).parent / "data" / "shm"
SMALL_GOLDEN = sorted(path.name.split(".")[0] for path in GOLDEN.glob("*x3_*.im.shm"))
HOSTILE_FIELDS = (
    *("cnt0", "cnt1", "write", "CBindex", "CBcycle", "atime", "writetime", "lastaccesstime"),
    *("NBkw", "CBsize", "sem", "naxis", "size", "datatype", "imagetype"),
)
many_files = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KINDS = {
    "2D": {},
    "ring": {"size": (4, 3, 6), "imagetype": TEMPORAL_RING},
    "cbsize": {"cbsize": 5},
    "3D": {"size": (4, 3, 6)},
}


def put(shm_dir: Path, raw: bytes, name: str = "hostile") -> None:
    path = file_of(shm_dir, name)
    path.unlink(missing_ok=True)
    path.write_bytes(raw)


def use_everything(shm_dir: Path, name: str = "hostile") -> bool:
    """Reads and writes all of the stream, if it can be opened."""
    try:
        file = _core.StreamFile.open(str(shm_dir), name)
    except StreamInvalid as refusal:
        assert f"'{name}' is not a stream" in str(refusal)
        return False
    size = file_of(shm_dir, name).stat().st_size
    offsets = list(file.layout.values())
    assert offsets == sorted(offsets)
    assert offsets[-1] == size
    file.view().tobytes()
    assert isinstance(file.metadata["name"] + file.metadata["version"], str)
    stream = Stream(file)
    dict(stream.keywords)
    reader = _core.StreamReader(file, from_oldest=True)
    for _ in range(3):
        reader.newest(0.0)
        reader.read(0.0)
    if len(file.view().shape) == 3:
        rolling = _core.StreamReader(file, rolling=True, from_oldest=True)
        for read in (rolling.newest, rolling.read):
            try:
                read(0.0)
            except StreamUnsupported as refusal:
                assert "expected the newest slice" in str(refusal)
    for _ in range(2):
        stream.write(np.zeros(file.shape, file.dtype))
        reader.read(0.0)
    if file.metadata["NBkw"]:
        stream.keywords = {"A": 1}
        assert dict(stream.keywords) == {"A": 1}
    return True


# -- files that are no streams -----------------------------------------------------------------


@many_files
@given(raw=st.binary(max_size=3000))
@example(raw=b"")
@example(raw=bytes(384))
@example(raw=bytes(385))
@example(raw=bytes(4096))
def test_random_bytes_are_refused(shm_dir: Path, raw: bytes) -> None:
    put(shm_dir, raw)
    assert not use_everything(shm_dir)


@many_files
@given(
    kind=st.sampled_from([*KINDS]),
    changes=st.lists(st.tuples(st.integers(0, 383), st.integers(0, 255)), max_size=6),
)
def test_metadata_with_any_bytes_are_refused_or_within_bounds(
    shm_dir: Path, kind: str, changes: list[tuple[int, int]]
) -> None:
    raw = stream_bytes("hostile", **KINDS[kind])
    for offset, value in changes:
        raw[offset] = value
    put(shm_dir, raw)
    use_everything(shm_dir)


@many_files
@given(
    name=st.sampled_from(SMALL_GOLDEN),
    changes=st.lists(
        st.tuples(
            # Half of them in the metadata, the others anywhere.
            st.one_of(st.integers(0, 383), st.integers(0, 4000)),
            st.integers(0, 255),
        ),
        max_size=8,
    ),
)
def test_mutated_golden_files_are_refused_or_within_bounds(
    shm_dir: Path, name: str, changes: list[tuple[int, int]]
) -> None:
    raw = bytearray((GOLDEN / f"{name}.im.shm").read_bytes())
    for offset, value in changes:
        raw[offset % len(raw)] ^= value
    put(shm_dir, raw)
    use_everything(shm_dir)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_at_any_region_is_refused(shm_dir: Path, kind: str) -> None:
    raw = stream_bytes("hostile", **KINDS[kind])
    put(shm_dir, raw)
    offsets = set(_core.StreamFile.open(str(shm_dir), "hostile").layout.values())
    assert use_everything(shm_dir)
    for offset in sorted({0, 1, 383, 384} | offsets - {len(raw)}):
        for cut in {offset, offset + 1} - {len(raw)}:
            put(shm_dir, raw[:cut])
            assert not use_everything(shm_dir), f"cut at {cut} of {len(raw)} bytes"
    put(shm_dir, raw + b"\0")
    assert not use_everything(shm_dir)


@pytest.mark.parametrize(
    ("field", "values", "text"),
    [
        ("version", (b"1.00",), r"its version is '1\.00', expected 2\.x"),
        ("version", (b"\xff\n2.00",), r"its version is '\?\?2\.00'"),
        ("name", (b"",), "its name field is empty"),
        ("naxis", (0,), "naxis is 0, expected 1 to 3"),
        ("naxis", (4,), "naxis is 4, expected 1 to 3"),
        ("naxis", (255,), "naxis is 255"),
        ("size", (0, 3, 0), "axis 1 has size 0"),
        ("size", (4, 0, 0), "axis 2 has size 0"),
        ("datatype", (0,), "data type code 0, expected 1 to 13"),
        ("datatype", (14,), "data type code 14"),
        ("datatype", (20,), "data type code 20"),
        ("location", (0,), "its pixels are on GPU 0"),
        ("location", (-2,), "only streams in main memory"),
        ("size", (4, 4, 0), "the file has 1944 bytes, its header calls for 1952"),
        ("NBkw", (65535,), "its header calls for"),
        ("sem", (65535,), "its header calls for"),
        ("sem", (0,), "its header calls for"),
        ("NBproctrace", (65535,), "its header calls for"),
        ("CBsize", (2**32 - 1,), "its header calls for"),
        ("imagetype", (TEMPORAL_RING,), None),
    ],
)
def test_a_field_out_of_bounds_is_refused(shm_dir: Path, field, values, text) -> None:
    raw = stream_bytes("hostile")
    set_field(raw, field, *values)
    put(shm_dir, raw)
    if text is None:  # a ring needs three axes; this stays a plain stream
        assert use_everything(shm_dir)
        return
    with pytest.raises(StreamInvalid, match=text):
        Stream.open("hostile")


@pytest.mark.parametrize(
    "size",
    [
        (2**32 - 1, 2**32 - 1, 2**32 - 1),
        (2**31, 2**31, 4),  # 2**64 pixels: none, when the product wraps
        (2**32 - 1, 2**32 - 1, 1),
        (2**31, 2, 2**30),
        (10**5, 10**5 + 1, 1),
    ],
)
@pytest.mark.parametrize("datatype", [1, 12])
def test_a_size_that_overflows_is_refused(shm_dir: Path, size, datatype) -> None:
    pixels = size[0] * size[1] * size[2] * (16 if datatype == 12 else 1)
    at = region_offsets(pixels % 2**64 % 2**20, 3, 10, 0, 0)
    raw = bytearray(at["EOF"])
    raw[:384] = stream_bytes("hostile")[:384]
    for field, values in (("naxis", (3,)), ("size", size), ("datatype", (datatype,))):
        set_field(raw, field, *values)
    put(shm_dir, raw)
    with pytest.raises(StreamInvalid, match=r"absurd size|at most 10000000000 are allowed"):
        Stream.open("hostile")


def test_metadata_of_the_dao_build_are_refused(shm_dir: Path) -> None:
    """Its IMAGE_METADATA has 4496 bytes, under the same version."""
    raw = stream_bytes("hostile")
    put(shm_dir, raw[:384] + bytes(4496 - 384) + raw[384:])
    with pytest.raises(StreamInvalid, match="written by a build with another layout"):
        Stream.open("hostile")


@pytest.mark.parametrize("version", [b"2.01", b"2.1", b"2.00-dev"])
def test_a_later_version_of_the_same_size_is_read(shm_dir: Path, version: bytes) -> None:
    put(shm_dir, stream_bytes("hostile", version=version))
    assert use_everything(shm_dir)
    put(shm_dir, stream_bytes("hostile", version=version) + bytes(8))
    assert not use_everything(shm_dir)


def test_a_file_in_creation_is_told_from_a_bad_one(shm_dir: Path) -> None:
    raw = stream_bytes("hostile")
    for unfinished in (b"", bytes(len(raw)), bytes(32) + raw[32:]):
        put(shm_dir, unfinished)
        with pytest.raises(_core.StreamIncomplete, match="'hostile' is not a stream yet"):
            Stream.open("hostile")
    assert issubclass(_core.StreamIncomplete, StreamInvalid)
    with file_of(shm_dir, "hostile").open("r+b") as file:
        file.write(b"2.00")
    assert use_everything(shm_dir)


def test_what_is_no_regular_file_is_refused(shm_dir: Path) -> None:
    file_of(shm_dir, "folder").mkdir()
    os.mkfifo(file_of(shm_dir, "fifo"))
    file_of(shm_dir, "loop").symlink_to(file_of(shm_dir, "loop"))
    file_of(shm_dir, "null").symlink_to("/dev/null")
    with pytest.raises(StreamInvalid, match="cannot open stream 'folder'"):
        Stream.open("folder")
    with pytest.raises(StreamInvalid, match="'fifo' is not a stream: it is not a regular file"):
        Stream.open("fifo")
    with pytest.raises(StreamInvalid, match="cannot open stream 'loop'"):
        Stream.open("loop")
    with pytest.raises(StreamInvalid, match="it is not a regular file"):
        Stream.open("null")
    assert Stream.list() == ["fifo", "folder", "loop", "null"]


def test_a_symbolic_link_is_followed(shm_dir: Path) -> None:
    file_of(shm_dir, "link").symlink_to(file_of(shm_dir, "target"))
    with pytest.raises(StreamNotFound):
        Stream.open("link")
    with Stream.create("target", (3, 4)) as camera, Stream.open("link") as stream:
        stream.latest()
        camera.write(np.ones((3, 4), np.uint16))
        assert stream.read(1)[1].cnt0 == 1


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".hidden", "a/b", "../a", "a b", "a\0b", "a\nb", "a:b", "a*"),
        *("\u00e9", "a" + "\u00e9" * 60, "x" * 80),
    ],
)
def test_a_name_outside_the_rules_is_refused(shm_dir: Path, name: str) -> None:
    for use in (Stream.open, lambda n: Stream.create(n, (3, 4))):
        with pytest.raises(StreamInvalid, match="cannot be a stream name: expected 1 to 79"):
            use(name)
    assert list(shm_dir.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "x" * 79, "vcam1", "a.b", "a-b_c+d", "1", "-"])
def test_a_name_within_the_rules_is_taken(shm_dir: Path, name: str) -> None:
    with Stream.create(name, (3, 4)) as camera:
        assert Stream.list() == [camera.name] == [name]
        assert camera.metadata["name"] == name


# -- hostile values in an open stream ----------------------------------------------------------


@many_files
@given(
    kind=st.sampled_from([*KINDS]),
    changes=st.lists(
        st.tuples(
            st.sampled_from(HOSTILE_FIELDS),
            st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1), st.just(2**64 - 1)),
        ),
        max_size=12,
    ),
    slice_counters=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6),
)
def test_values_that_change_under_a_reader_lead_nowhere(
    shm_dir: Path, kind: str, changes, slice_counters
) -> None:
    with ForeignStream.create(shm_dir, "hostile", **KINDS[kind]) as foreign:
        file = _core.StreamFile.open(str(shm_dir), "hostile")
        readers = [_core.StreamReader(file, from_oldest=True)]
        if kind == "3D":
            readers.append(_core.StreamReader(file, rolling=True))
        writer = _core.StreamWriter(file)
        for field, value in changes:
            offset, form = FIELDS[field]
            raw = struct.pack("<2Q", value, value)[: struct.calcsize("<" + form)]
            foreign.raw[offset : offset + len(raw)] = raw
            if kind == "ring" and field == "cnt0":
                struct.pack_into("<6Q", foreign.raw, foreign.at["cntarray"], *slice_counters)
            for reader in readers:
                for read in (reader.read, reader.newest):
                    try:
                        result = read(0.0)
                    except StreamUnsupported:
                        continue
                    assert result is None or result[0].shape == reader.shape
                assert reader.unread >= 0
            if field in ("cnt1", "CBindex", "CBcycle"):
                writer.write(np.zeros(file.shape, file.dtype))


@pytest.mark.parametrize("count", [0, 11, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("waiters", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("private", [0, 0x80, 0x12345, -1])
def test_a_semaphore_of_any_value_neither_blocks_nor_kills(
    shm_dir: Path, count: int, waiters: int, private: int
) -> None:
    """The C library ends the process when the flags of a semaphore make no sense to it."""
    with ForeignStream.create(shm_dir, "hostile") as foreign, Stream.open("hostile") as stream:
        stream.latest()
        for index in range(10):
            at = foreign.at["semfile"] + 32 * index
            struct.pack_into("<IIi", foreign.raw, at, count, waiters, private)
        with pytest.raises(TimeoutError):
            stream.read(0.005)
        for cnt0 in (1, 2):
            Stream.open("hostile").write(np.full((3, 4), cnt0, np.uint16))
            assert stream.read(5)[1].cnt0 == cnt0


@pytest.mark.parametrize("semaphores", [0, 1, 3, 64])
def test_a_stream_of_any_number_of_semaphores_is_read(shm_dir: Path, semaphores: int) -> None:
    with ForeignStream.create(shm_dir, "hostile", semaphores=semaphores) as foreign:
        streams = [Stream.open("hostile") for _ in range(2)]
        for stream in streams:
            stream.latest()
        run(foreign.library(np.array(1)))
        assert [stream.read(5)[1].cnt0 for stream in streams] == [1, 1]


def test_a_slice_that_is_none_is_named(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir, "hostile", size=(4, 3, 6)) as foreign:
        stream = Stream.open("hostile", rolling=True)
        stream.latest()
        foreign.set("cnt1", 6)
        foreign.set("cnt0", 1)
        with pytest.raises(StreamUnsupported, match="cnt1 is 6, expected the newest slice"):
            stream.read(1)


def test_keywords_of_any_bytes_can_be_read(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir, "hostile", keywords=3) as foreign:
        foreign.raw[foreign.at["kw"] : foreign.at["semfile"]] = b"\xff" * 384
        assert dict(Stream.open("hostile").keywords) == {}
        foreign.set_keyword(0, keyword("A", b"S", "\u00e9"))
        assert dict(Stream.open("hostile").keywords) == {"A": "??"}


# -- what happens to the file ------------------------------------------------------------------


def read_in_thread(stream: Stream) -> tuple[threading.Thread, list[BaseException]]:
    """A thread in stream.read(), surely waiting, and the list its error will be put in."""
    errors: list[BaseException] = []

    def read() -> None:
        try:
            stream.read(20)
        except BaseException as error:
            errors.append(error)

    stream.latest()
    thread = threading.Thread(target=read)
    with ForeignStream(Path(stream.path)) as foreign:
        thread.start()
        while foreign.waiting(0) == 0:
            os.sched_yield()
    return thread, errors


@pytest.mark.parametrize("ring", [0, 8])
@pytest.mark.parametrize(
    ("happening", "text"),
    [
        ("removed", "stream 'fleeting' was removed; open it again"),
        ("the same again", "stream 'fleeting' was re-created; open it again"),
        ("another size", "stream 'fleeting' was re-created; open it again"),
        ("truncated", "stream 'fleeting' was truncated by another program; open it again"),
    ],
)
def test_a_waiting_reader_is_told(shm_dir: Path, happening: str, text: str, ring: int) -> None:
    Stream.create("fleeting", (64, 64), ring=ring).close()
    stream = Stream.open("fleeting")
    thread, errors = read_in_thread(stream)
    if happening == "removed":
        file_of(shm_dir, "fleeting").unlink()
    elif happening == "truncated":
        os.truncate(file_of(shm_dir, "fleeting"), 0)
    else:
        side = 64 if happening == "the same again" else 32
        Stream.create("fleeting", (side, side), ring=ring).close()
    thread.join()
    assert [type(error) for error in errors] == [StreamGone]
    assert str(errors[0]) == text
    with pytest.raises(StreamGone, match="open it again"):
        stream.read(0)


def test_a_reader_follows_by_opening_again(shm_dir: Path) -> None:
    Stream.create("fleeting", (3, 4)).close()
    stream = Stream.open("fleeting")
    stream.latest()
    camera = Stream.create("fleeting", (5, 6))
    with pytest.raises(StreamGone):
        stream.read(5)
    stream = Stream.open("fleeting")
    stream.latest()
    camera.write(np.zeros((5, 6), np.uint16))
    assert stream.read(1)[0].shape == (5, 6)


def test_frames_of_a_removed_stream_are_read_to_the_last(shm_dir: Path) -> None:
    camera = Stream.create("fleeting", (3, 4), ring=8)
    stream = Stream.open("fleeting")
    stream.latest()
    for cnt0 in range(1, 4):
        camera.write(np.full((3, 4), cnt0, np.uint16))
    camera.remove()
    assert [stream.read(1)[1].cnt0 for _ in range(3)] == [1, 2, 3]
    with pytest.raises(StreamGone, match="was removed"):
        stream.read(1)


TRUNCATION = """
import os, sys
import numpy as np
from vampires.stream import Stream, StreamGone
what, size = sys.argv[1], int(sys.argv[2])
camera = Stream.create("cut", (512, 512), ring=8)
stream = Stream.open("cut")
stream.latest()
view = stream.view()
for cnt0 in range(1, 6):
    camera.write(np.full((512, 512), cnt0, np.uint16))
os.truncate(stream.path, size)
try:
    if what == "view":
        assert view.sum() <= 512 * 512 * 15
        view.tobytes()
    elif what == "latest":
        while True:
            stream.latest()
    elif what == "read":
        while True:
            frame, info = stream.read(5)
            assert (frame == info.cnt0).all()
    elif what == "write":
        while True:
            camera.write(np.zeros((512, 512), np.uint16))
    elif what == "keywords":
        for n in range(3):
            dict(stream.keywords), stream.metadata, repr(stream)
except (StreamGone, TimeoutError) as error:
    print(type(error).__name__, error)
else:
    print("survived")
stream.close()
"""


@pytest.mark.parametrize("size", [0, 4096, 512 * 512 * 2 * 3 + 1])
@pytest.mark.parametrize("what", ["view", "latest", "read", "write", "keywords"])
def test_a_truncated_file_does_not_kill(
    shm_dir: Path, start_python, what: str, size: int
) -> None:
    process = start_python(TRUNCATION, what, size)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    if what in ("view", "keywords"):
        assert out == "survived\n"
    else:
        assert out.startswith("StreamGone stream 'cut' was truncated by another program")


def test_a_file_truncated_in_the_midst_of_reading_does_not_kill(
    shm_dir: Path, start_python
) -> None:
    source = """
import numpy as np
from vampires.stream import Stream, StreamGone
stream = Stream.open("cut")
view = stream.view()
print("reading", flush=True)
try:
    while True:
        frame, info = stream.latest()
        assert (frame == 7).all()
except StreamGone as error:
    print(error)
"""
    Stream.create("cut", (512, 512), ring=0).write(np.full((512, 512), 7, np.uint16))
    process = start_python(source)
    assert process.stdout.readline() == "reading\n"
    os.truncate(file_of(shm_dir, "cut"), 0)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "was truncated by another program" in out


def test_other_bus_errors_end_the_process_as_ever(shm_dir: Path, start_python) -> None:
    source = """
import mmap, os, sys
from vampires.stream import Stream
Stream.create("any", (3, 4)).view()
path = os.environ["MILK_SHM_DIR"] + "/other"
with open(path, "wb+") as file:
    file.truncate(8192)
    mapping = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
mapping[5000]
"""
    process = start_python(source)
    process.communicate(timeout=30)
    assert process.returncode == -7  # SIGBUS
