"""Streams from scripts: every kind reads back, losses are exact, views outlive their stream.

The promises of ``vampires.Stream``. What other programs write is in test_stream_mixed_writers.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from foreign_stream import DTYPES, ForeignStream, file_of, keyword
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vampires
from vampires import _core
from vampires.frame_table import FrameFlag
from vampires.stream import (
    SPARE_KEYWORDS,
    Stream,
    StreamError,
    StreamGone,
    StreamInvalid,
    StreamNotFound,
    StreamUnsupported,
)


def frame_of(stream: Stream, value: int) -> np.ndarray:
    return np.full(stream.shape, value).astype(stream.dtype)


def write_frames(stream: Stream, first: int, last: int) -> None:
    """Publishes the frames first to last, each filled with its cnt0."""
    for value in range(first, last + 1):
        assert stream.write(frame_of(stream, value)) == value


# -- every kind of stream ----------------------------------------------------------------------

SHAPES = {"1D": (7,), "2D": (3, 5), "3D": (2, 3, 5)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("cbsize", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_without_a_ring_reads_back(shm_dir: Path, dtype, cbsize, shape) -> None:
    random = np.random.default_rng(len(shape))
    with (
        Stream.create("kind", shape, dtype, ring=0, cbsize=cbsize) as camera,
        Stream.open("kind") as stream,
    ):
        assert (stream.shape, stream.dtype) == (shape, np.dtype(dtype))
        assert stream.latest()[1].cnt0 == 0
        for cnt0 in range(1, 8):
            raw = random.bytes(frame_of(camera, 0).nbytes)
            frame = np.frombuffer(raw, dtype).reshape(shape)
            assert camera.write(frame) == cnt0
            found, info = stream.read(1.0)
            assert (info.cnt0, info.lost, info.torn) == (cnt0, 0, 0)
            assert (found.tobytes(), found.shape, found.dtype) == (raw, shape, np.dtype(dtype))
            assert stream.view().tobytes() == raw


@pytest.mark.parametrize("ring", [1, 2, 3, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_ring_reads_back(shm_dir: Path, dtype: str, ring: int) -> None:
    with (
        Stream.create("kind", (3, 5), dtype, ring=ring) as camera,
        Stream.open("kind") as stream,
    ):
        assert stream.shape == (3, 5)
        assert stream.view().shape == (ring, 3, 5)
        stream.latest()
        for cnt0 in range(1, 2 * ring + 3):
            camera.write(frame_of(camera, cnt0))
            found, info = stream.read(1.0)
            assert (info.cnt0, info.cnt1, info.lost) == (cnt0, (cnt0 - 1) % ring, 0)
            np.testing.assert_array_equal(found, frame_of(camera, cnt0))
            np.testing.assert_array_equal(stream.view()[(cnt0 - 1) % ring], found)


def test_frames_written_in_place_are_published_whole(shm_dir: Path) -> None:
    with Stream.create("inplace", (3, 5), ring=4) as camera, Stream.open("inplace") as stream:
        stream.latest()
        for cnt0 in range(1, 10):
            slot = camera.next_slot()
            assert slot.shape == (3, 5)
            slot[:] = cnt0
            with pytest.raises(TimeoutError):
                stream.read(0)
            assert camera.publish() == cnt0
            assert stream.read(1.0)[0][0, 0] == cnt0


def test_rolling_reads_a_cube_slice_by_slice(shm_dir: Path) -> None:
    with (
        Stream.create("cube", (4, 3, 5), ring=0),
        ForeignStream(file_of(shm_dir, "cube")) as camera,
        Stream.open("cube", rolling=True) as stream,
    ):
        assert stream.shape == (3, 5)
        stream.latest()
        for cnt0 in range(1, 10):
            for _ in camera.library(np.array(cnt0), cnt1=(cnt0 - 1) % 4):
                pass
            frame, info = stream.read(1.0)
            assert (info.cnt0, info.cnt1, info.lost) == (cnt0, (cnt0 - 1) % 4, 0)
            np.testing.assert_array_equal(frame, np.full((3, 5), cnt0))


def test_rolling_of_a_ring_is_the_ring(shm_dir: Path) -> None:
    Stream.create("ring", (3, 5), ring=4)
    with Stream.open("ring", rolling=True) as stream:
        assert stream.shape == (3, 5)
        stream.latest()
        write_frames(stream, 1, 3)
        assert [stream.read(0)[1].cnt0 for _ in range(3)] == [1, 2, 3]


def test_rolling_needs_three_axes(shm_dir: Path) -> None:
    Stream.create("flat", (3, 5), ring=0)
    with pytest.raises(StreamUnsupported, match="'flat' has 2 axes: only a 3D stream"):
        Stream.open("flat", rolling=True).read(0)


def test_frames_iterates_and_pairs_infos(shm_dir: Path) -> None:
    with Stream.create("many", (3, 5)) as camera, Stream.open("many") as stream:
        stream.latest()
        write_frames(camera, 1, 10)
        seen = [
            (frame[0, 0], info.cnt0)
            for _, (frame, info) in zip(range(10), stream.frames(1), strict=False)
        ]
        assert seen == [(n, n) for n in range(1, 11)]


def test_latest_repeats_and_leaves_read_alone(shm_dir: Path) -> None:
    with Stream.create("late", (3, 5), ring=8) as camera, Stream.open("late") as stream:
        assert stream.latest()[1].cnt0 == 0
        write_frames(camera, 1, 5)
        for _ in range(3):
            frame, info = stream.latest()
            assert (frame[0, 0], info.cnt0, info.lost) == (5, 5, 0)
            assert info.acquired_ns > 0
        assert [stream.read(0)[1].cnt0 for _ in range(5)] == [1, 2, 3, 4, 5]


def test_infos_carry_the_times_given(shm_dir: Path) -> None:
    with Stream.create("timed", (3, 5)) as camera, Stream.open("timed") as stream:
        stream.latest()
        time_ns = 1_700_000_000_123_456_789
        camera.write(frame_of(camera, 1), acquired_ns=time_ns)
        info = stream.read(1)[1]
        assert info.acquired_ns == time_ns
        assert info.written_ns > time_ns
        assert info.flags == FrameFlag.TACQ_FROM_ATIME
        assert "cnt0=1" in repr(info)


def test_the_package_gives_the_class_without_a_module_name(shm_dir: Path) -> None:
    assert vampires.Stream is Stream
    with Stream.create("shown", (3, 5)) as stream:
        assert repr(stream) == "<Stream shown (3, 5) uint16 cnt0=0>"


# -- losses ------------------------------------------------------------------------------------


def test_a_lapped_reader_counts_exactly_what_it_missed(shm_dir: Path) -> None:
    with Stream.create("lapped", (3, 5), ring=8) as camera, Stream.open("lapped") as stream:
        stream.latest()
        write_frames(camera, 1, 100)
        infos = []
        while not infos or infos[-1].cnt0 < 100:
            frame, info = stream.read(0)
            assert (frame == info.cnt0).all()
            infos.append(info)
        assert infos[0].lost == infos[0].cnt0 - 1
        assert [info.lost for info in infos[1:]] == [0] * (len(infos) - 1)
        assert len(infos) + sum(info.lost for info in infos) == 100
        assert len(infos) >= 6  # a ring of 8, less the slot in work and one of margin
        late = [bool(info.flags & FrameFlag.CAUGHT_UP) for info in infos]
        assert late == [True] * (len(infos) - 1) + [False]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bursts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12),
    ring=st.sampled_from([0, 1, 2, 3, 7, 16]),
    cbsize=st.sampled_from([0, 2, 3, 6]),
)
def test_read_and_lost_add_up_whatever_the_pace(shm_dir: Path, bursts, ring, cbsize) -> None:
    """bursts: (frames written, reads tried) in turn."""
    with (
        Stream.create("paced", (2, 2), ring=ring, cbsize=0 if ring else cbsize) as camera,
        Stream.open("paced") as stream,
    ):
        assert stream.latest()[1].cnt0 == 0
        written = counted = 0
        for writes, reads in [*bursts, (1, 40)]:
            write_frames(camera, written + 1, written + writes)
            written += writes
            for _ in range(reads):
                if counted == written:
                    break
                frame, info = stream.read(0)
                assert (frame == info.cnt0).all()
                assert info.torn == 0
                counted += 1 + info.lost
                assert info.cnt0 == counted
        assert counted == written


def test_a_counter_set_back_is_flagged_and_no_loss(shm_dir: Path) -> None:
    with Stream.create("reset", (3, 5), ring=0) as camera, Stream.open("reset") as stream:
        stream.latest()
        write_frames(camera, 1, 20)
        assert stream.read(0)[1].cnt0 == 20
        with ForeignStream(file_of(shm_dir, "reset")) as foreign:
            foreign.set("cnt0", 0)
        write_frames(camera, 1, 2)
        info = stream.read(0)[1]
        assert (info.cnt0, info.lost, info.flags & FrameFlag.COUNTER_RESET) == (2, 0, 4)
        write_frames(camera, 3, 3)
        assert stream.read(0)[1].flags & FrameFlag.COUNTER_RESET == 0


# -- lifetimes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [0, 4])
def test_views_outlive_the_stream_and_its_file(shm_dir: Path, ring: int) -> None:
    camera = Stream.create("mortal", (64, 64), ring=ring)
    stream = Stream.open("mortal")
    stream.latest()
    write_frames(camera, 1, 1)
    views = [stream.view().reshape(-1, 64, 64)[0], stream.read(0, copy=False)[0]]
    views += [stream.latest(copy=False)[0]]
    slot = camera.next_slot()
    camera.remove()
    stream.close()
    del camera, stream
    gc.collect()
    other = Stream.create("mortal", (64, 64), ring=ring)  # takes the memory, were it free
    other.write(np.full((64, 64), 99, np.uint16))
    for view in views:
        assert not view.flags.writeable
        assert (view == 1).all()
    slot[:] = 5
    assert (slot == 5).all()
    assert stream_files(shm_dir) == ["mortal.im.shm"]
    other.remove()


def stream_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_view_is_read_only_shared_memory(shm_dir: Path) -> None:
    with Stream.create("shared", (3, 5), ring=0) as camera, Stream.open("shared") as stream:
        view = stream.view()
        camera.write(frame_of(camera, 7))
        assert (view == 7).all()
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 1
        copied = stream.latest()[0]
        camera.write(frame_of(camera, 8))
        assert (copied == 7).all()


def test_a_closed_stream_says_so(shm_dir: Path) -> None:
    with Stream.create("closed", (3, 5)) as stream:
        pass
    for use in (
        stream.read,
        stream.latest,
        stream.view,
        stream.next_slot,
        stream.publish,
        lambda: stream.write(np.zeros((3, 5), np.uint16)),
        lambda: next(stream.frames()),
        lambda: stream.keywords.update(A=1),
    ):
        with pytest.raises(ValueError, match="stream 'closed' is closed"):
            use()
    stream.close()


def test_remove_spares_a_stream_that_took_the_name(shm_dir: Path) -> None:
    first = Stream.create("name", (3, 5))
    second = Stream.create("name", (3, 5))
    first.remove()
    assert Stream.list() == ["name"]
    second.remove()
    second.remove()
    assert Stream.list() == []


# -- what may go wrong -------------------------------------------------------------------------


def test_texts_say_what_happened(shm_dir: Path) -> None:
    with pytest.raises(StreamNotFound, match=rf"no stream 'none' \({shm_dir}/none.im.shm\)"):
        Stream.open("none")
    with Stream.create("slow", (3, 5)) as camera:
        with pytest.raises(TimeoutError, match="no frame from stream 'slow' within 0 s"):
            camera.read(0)
        with pytest.raises(TimeoutError, match=r"no frame from stream 'slow' within 0\.01 s"):
            camera.read(0.01)
        with pytest.raises(TimeoutError, match="within -1 s"):
            camera.read(-1)
    assert issubclass(StreamNotFound, StreamError)
    assert issubclass(StreamGone, StreamError)


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (np.zeros((5, 3), np.uint16), r"\(5, 3\) uint16"),
        (np.zeros((3, 5), np.int16), r"\(3, 5\) int16"),
        (np.zeros((3, 5), ">u2"), r"\(3, 5\) >u2"),
        (np.zeros((1, 3, 5), np.uint16), r"\(1, 3, 5\) uint16"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(shm_dir: Path, frame, found: str) -> None:
    with Stream.create("fussy", (3, 5)) as camera:
        text = rf"stream 'fussy' takes frames of shape \(3, 5\) uint16, found {found}"
        with pytest.raises(ValueError, match=text):
            camera.write(frame)
        assert camera.metadata["write"] == 0


def test_a_frame_in_any_memory_order_is_taken(shm_dir: Path) -> None:
    image = np.arange(60, dtype=np.uint16).reshape(6, 10)
    with Stream.create("orders", (3, 5)) as camera:
        for frame in (image[::2, ::2], np.asfortranarray(image[:3, :5]), image[3:, 5:][::-1]):
            camera.write(frame)
            np.testing.assert_array_equal(camera.latest()[0], frame)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shape": ()}, "one to three sizes"),
        ({"shape": (1, 2, 3, 4), "ring": 0}, "one to three sizes"),
        ({"shape": (0, 5)}, "at least 1"),
        ({"shape": (3, -5)}, "at least 1"),
        ({"shape": (7,)}, "a ring holds 2D frames; use ring=0"),
        ({"shape": (2, 3, 5)}, "a ring holds 2D frames; use ring=0"),
        ({"ring": -1}, "expected 0 or more"),
        ({"cbsize": -1, "ring": 0}, "expected 0 or more"),
        ({"shape": (3, 2**32)}, "32-bit sizes"),
        ({"ring": 2**32}, "32-bit sizes"),
        ({"keyword_room": -1}, "keyword_room -1: expected 0 to 65535"),
        ({"keyword_room": 65536}, "keyword_room 65536: expected 0 to 65535"),
        ({"keywords": {"A": 1, "B": 2}, "keyword_room": 1}, "has room for 1 keywords, 2 were"),
    ],
)
def test_what_cannot_be_created_is_refused(shm_dir: Path, options: dict, text: str) -> None:
    arguments = {"shape": (3, 5), **options}
    with pytest.raises(ValueError, match=text):
        Stream.create("refused", **arguments)
    assert stream_files(shm_dir) == []


def test_a_type_that_a_stream_has_not_is_refused(shm_dir: Path) -> None:
    for dtype in ("bool", ">u2", "S4", "float128", "datetime64[ns]", [("a", "u2")]):
        with pytest.raises(TypeError, match="none of a stream's"):
            Stream.create("refused", (3, 5), dtype)
    assert stream_files(shm_dir) == []


def test_a_size_beyond_the_library_is_refused(shm_dir: Path) -> None:
    with pytest.raises(StreamInvalid, match=r"at most 10000000000 are allowed"):
        Stream.create("huge", (200_000, 200_000), ring=1)
    with pytest.raises(StreamInvalid, match="absurd size"):
        Stream.create("huge", (2**32 - 1, 2**32 - 1), ring=2**32 - 1)
    assert stream_files(shm_dir) == []


def test_shared_memory_that_runs_out_is_an_error_not_a_crash(shm_dir: Path) -> None:
    source = """
import resource, signal
from vampires.stream import Stream
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    Stream.create("big", (1024, 1024), ring=8)
except OSError as error:
    print(error.errno, error)
"""
    command = [sys.executable, "-c", source]
    out = subprocess.run(
        command, cwd=shm_dir, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "cannot create a stream of 16" in out
    assert stream_files(shm_dir) == []


# -- the folder --------------------------------------------------------------------------------


def test_the_folder_is_that_of_the_environment(shm_dir: Path, monkeypatch) -> None:
    assert _core.stream_directory() == str(shm_dir)
    for not_a_folder in (str(shm_dir / "missing"), ""):
        monkeypatch.setenv("MILK_SHM_DIR", not_a_folder)
        assert _core.stream_directory() == default_folder()
    monkeypatch.delenv("MILK_SHM_DIR")
    assert _core.stream_directory() == default_folder()


def default_folder() -> str:
    return "/milk/shm" if os.path.isdir("/milk/shm") else "/tmp"


def test_a_folder_given_is_used(shm_dir: Path) -> None:
    other = shm_dir / "other"
    other.mkdir()
    with Stream.create("there", (3, 5), directory=other) as camera:
        assert camera.path == str(other / "there.im.shm")
        assert (Stream.list(), Stream.list(other)) == ([], ["there"])
        with Stream.open("there", directory=str(other)) as stream:
            assert stream.name == "there"


def test_list_names_streams_alone_in_order(shm_dir: Path, tmp_path: Path) -> None:
    for file in ("b.im.shm", "a.im.shm", ".c.im.shm", "d.shm", "e.fps.shm", ".im.shm", "f"):
        (tmp_path / file).touch()
    assert Stream.list(tmp_path) == ["a", "b"]
    assert Stream.list(tmp_path / "missing") == Stream.list() == []


# -- semaphores --------------------------------------------------------------------------------


def read_pids(shm_dir: Path, name: str) -> list[int]:
    with ForeignStream(file_of(shm_dir, name)) as stream:
        return list(stream.read_pids())


def test_each_reader_has_a_semaphore_and_gives_it_back(shm_dir: Path) -> None:
    with Stream.create("shared", (3, 5)) as camera:
        readers = [Stream.open("shared") for _ in range(12)]
        for reader in readers:
            reader.latest()
        assert read_pids(shm_dir, "shared") == [os.getpid()] * 10
        camera.write(frame_of(camera, 1))
        for reader in readers:  # the last two poll
            assert reader.read(5)[1].cnt0 == 1
        readers[3].close()
        assert read_pids(shm_dir, "shared").count(-1) == 1
        assert read_pids(shm_dir, "shared")[3] == -1
        for reader in readers:
            reader.close()
        assert read_pids(shm_dir, "shared") == [-1] * 10


def test_every_waiting_reader_wakes(shm_dir: Path) -> None:
    with Stream.create("crowd", (3, 5)) as camera:
        readers = [Stream.open("crowd") for _ in range(12)]
        seen: list[int] = []
        for reader in readers:
            reader.latest()

        def wait(reader: Stream) -> None:
            seen.append(reader.read(10)[1].cnt0)

        threads = [threading.Thread(target=wait, args=(reader,)) for reader in readers]
        for thread in threads:
            thread.start()
        camera.write(frame_of(camera, 1))
        for thread in threads:
            thread.join()
        assert seen == [1] * 12


def test_the_slots_of_dead_readers_are_taken_over(shm_dir: Path, start_python) -> None:
    source = """
import os
from vampires.stream import Stream
readers = [Stream.open("grave") for _ in range(10)]
for reader in readers:
    reader.latest()
print(os.getpid(), flush=True)
os.kill(os.getpid(), 9)
"""
    with Stream.create("grave", (3, 5)) as camera:
        process = start_python(source)
        dead = int(process.stdout.readline())
        process.wait()
        assert read_pids(shm_dir, "grave") == [dead] * 10
        camera.latest()
        assert read_pids(shm_dir, "grave") == [os.getpid()] + [dead] * 9


def test_the_slots_of_living_readers_are_left_alone(shm_dir: Path, start_python) -> None:
    source = """
import sys
from vampires.stream import Stream
reader = Stream.open("living")
reader.latest()
print("ready", flush=True)
sys.stdin.read()
"""
    with Stream.create("living", (3, 5)) as camera:
        process = start_python(source, stdin=subprocess.PIPE)
        process.stdout.readline()
        camera.latest()
        assert read_pids(shm_dir, "living")[:3] == [process.pid, os.getpid(), -1]
        process.stdin.close()
        assert process.wait() == 0
        assert read_pids(shm_dir, "living")[:3] == [-1, os.getpid(), -1]


# -- signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("posts", [True, False], ids=["waiting", "polling"])
def test_ctrl_c_ends_a_read_that_waits_for_ever(
    shm_dir: Path, start_python, posts: bool
) -> None:
    source = """
import sys
from vampires.stream import Stream
stream = Stream.open("still")
stream.latest()
try:
    print("waiting", flush=True)
    stream.read()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with Stream.create("still", (3, 5)):
        readers = [Stream.open("still") for _ in range(0 if posts else 10)]
        for reader in readers:
            reader.latest()
        process = start_python(source)
        assert process.stdout.readline() == "waiting\n"
        with ForeignStream(file_of(shm_dir, "still")) as foreign:
            while posts and foreign.waiting(0) == 0 and process.poll() is None:
                os.sched_yield()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (out, err, process.returncode) == ("interrupted\n", "", 0)
        for reader in readers:
            reader.close()
        assert read_pids(shm_dir, "still") == [-1] * 10


def test_other_threads_run_while_one_waits(shm_dir: Path) -> None:
    with Stream.create("gil", (3, 5)) as camera, Stream.open("gil") as stream:
        stream.latest()
        writer = threading.Thread(target=write_frames, args=(camera, 1, 50))
        writer.start()
        assert [stream.read(10)[1].cnt0 for _ in range(50)] == list(range(1, 51))
        writer.join()


# -- keywords ----------------------------------------------------------------------------------


def test_keywords_behave_like_a_dictionary(shm_dir: Path) -> None:
    given_at_first = {
        "EXPTIME": (0.5, "[s] exposure"),
        "GAIN": 3,
        "OBJECT": "HD 1234",
        "T": True,
    }
    with Stream.create("kw", (3, 5), keywords=given_at_first) as camera:
        keywords = Stream.open("kw").keywords
        expected = {"EXPTIME": 0.5, "GAIN": 3, "OBJECT": "HD 1234", "T": True}
        assert dict(keywords) == expected
        assert (len(keywords), "GAIN" in keywords, "NONE" in keywords) == (4, True, False)
        assert repr(keywords) == repr(expected)
        assert keywords.comment("EXPTIME") == "[s] exposure"
        camera.keywords["EXPTIME"] = 0.25  # keeps its comment
        camera.keywords["GAIN"] = (4, "e-/adu")
        camera.keywords["NEW"] = "x"
        assert keywords["EXPTIME"] == 0.25
        assert keywords.comment("EXPTIME") == "[s] exposure"
        assert (keywords["GAIN"], keywords.comment("GAIN")) == (4, "e-/adu")
        assert list(keywords) == ["EXPTIME", "GAIN", "OBJECT", "T", "NEW"]
        del camera.keywords["GAIN"]
        assert list(keywords) == ["EXPTIME", "OBJECT", "T", "NEW"]
        camera.keywords = {"ONLY": 1}
        assert dict(keywords) == {"ONLY": 1}
        camera.keywords.clear()
        assert dict(keywords) == {}
        for lookup in (keywords.__getitem__, keywords.comment, camera.keywords.__delitem__):
            with pytest.raises(KeyError, match="MISSING"):
                lookup("MISSING")


def test_keywords_travel_with_their_frame(shm_dir: Path) -> None:
    with Stream.create("kwf", (3, 5)) as camera, Stream.open("kwf") as stream:
        stream.latest()
        time_us = 1_700_000_000_000_000
        for n in (1, 2, 3):
            camera.write(frame_of(camera, n), keywords={"_MAQTIME": time_us + n})
            info = stream.read(1)[1]
            assert (info.acquired_ns, info.flags) == ((time_us + n) * 1000, 0)
        camera.next_slot()[:] = 4
        camera.publish(keywords={"_MAQTIME": time_us + 4, "N": 4})
        assert stream.read(1)[1].acquired_ns == (time_us + 4) * 1000
        assert stream.keywords["N"] == 4


@pytest.mark.parametrize("ring", [0, 8])
def test_a_frame_that_was_there_before_its_reader_keeps_its_time(
    shm_dir: Path, ring: int
) -> None:
    time_ns = 1_700_000_000_000_000_321
    with Stream.create("early", (3, 5), ring=ring, keywords={"_MAQTIME": 0}) as camera:
        camera.write(frame_of(camera, 1), time_ns, {"_MAQTIME": time_ns // 1000})
        reader = _core.StreamReader(camera._file, from_oldest=True)
        assert reader.read(1.0)[1].acquired_ns == time_ns


def test_a_full_list_refuses_and_changes_nothing(shm_dir: Path) -> None:
    with (
        Stream.create("full", (3, 5), ring=0, keywords={"A": 1}, keyword_room=2) as camera,
        Stream.open("full") as stream,
    ):
        camera.keywords["B"] = 2
        with pytest.raises(ValueError, match="'full' has room for 2 keywords, all are taken"):
            camera.keywords["C"] = 3
        with pytest.raises(ValueError, match="has room for 2 keywords, 3 were given"):
            camera.keywords = {"A": 1, "B": 2, "C": 3}
        stream.latest()
        with pytest.raises(ValueError, match="create it with more keyword_room"):
            camera.write(frame_of(camera, 9), keywords={"C": 3})
        assert dict(camera.keywords) == {"A": 1, "B": 2}
        # The stream is not left as if a frame were still being written.
        assert stream.latest()[1].cnt0 == 0
        camera.keywords["A"] = 5
        assert dict(camera.keywords) == {"A": 5, "B": 2}
        assert camera.write(frame_of(camera, 1)) == 1


def test_room_for_keywords_is_kept(shm_dir: Path) -> None:
    with Stream.create("room", (3, 5), keywords={"A": 1}) as camera:
        assert camera.metadata["NBkw"] == 1 + SPARE_KEYWORDS
    with Stream.create("none", (3, 5), keyword_room=0) as camera:
        assert dict(camera.keywords) == {}
        with pytest.raises(ValueError, match="room for 0 keywords"):
            camera.keywords["A"] = 1
        assert camera.write(frame_of(camera, 1)) == 1


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"A" * 16: 1}, ValueError),
        ({"": 1}, ValueError),
        ({"A": "x" * 16}, ValueError),
        ({"A": 2**63}, ValueError),
        ({"A": None}, TypeError),
        ({"A": [1]}, TypeError),
    ],
)
def test_a_keyword_that_does_not_fit_is_refused(shm_dir: Path, entry: dict, error) -> None:
    with Stream.create("fussy", (3, 5)) as camera:
        with pytest.raises(error):
            camera.keywords.update(entry)
        with pytest.raises(error):
            camera.write(frame_of(camera, 1), keywords=entry)
        assert (camera.cnt0, camera.metadata["write"], dict(camera.keywords)) == (0, 0, {})


def test_entries_behind_the_end_of_the_list_are_not_read_nor_revived(shm_dir: Path) -> None:
    """A longer list left them behind: pyMilk clears no entry but the one at the end."""
    with Stream.create("stale", (3, 5), keywords={"A": 1}, keyword_room=5) as camera:
        with ForeignStream(file_of(shm_dir, "stale")) as foreign:
            for index, name in enumerate(("A", "", "STALE", "STALER"), 0):
                foreign.set_keyword(index, keyword(name, b"L", index))
        assert dict(camera.keywords) == {"A": 0}
        camera.keywords["B"] = 7
        assert dict(camera.keywords) == {"A": 0, "B": 7}


def test_full_and_unknown_entries_are_read_as_far_as_they_make_sense(shm_dir: Path) -> None:
    with Stream.create("odd", (3, 5), keyword_room=5) as camera:
        with ForeignStream(file_of(shm_dir, "odd")) as foreign:
            foreign.set_keyword(0, keyword("ABCDEFGHIJKLMNOP", b"S", "x" * 16, "c" * 80))
            foreign.set_keyword(1, keyword("WHAT", b"Q", "?", ""))
            foreign.set_keyword(2, keyword("LAST", b"D", -0.5, "\u00e9"))
        assert dict(camera.keywords) == {"ABCDEFGHIJKLMNOP": "x" * 16, "LAST": -0.5}
        assert camera.keywords.comment("ABCDEFGHIJKLMNOP") == "c" * 80
        assert camera.keywords.comment("LAST") == "??"


def test_a_stream_is_current_until_its_file_is_removed_or_replaced(shm_dir: Path) -> None:
    with Stream.create("one", (3, 4)) as one, Stream.open("one") as reader:
        assert one.is_current()
        assert reader.is_current()
        with Stream.create("one", (3, 4)) as other:
            assert not one.is_current()
            assert not reader.is_current()
            assert other.is_current()
            (shm_dir / "one.im.shm").unlink()
            assert not other.is_current()
            one.remove()  # not the one that is there
    with Stream.create("one", (3, 4)) as again:
        assert again.is_current()
