"""Writers of other programs, each in its own order of stores: frames keep their own numbers.

Whatever the order, and whenever the reader looks, a frame that read() returns holds the pixels
of the counter it carries, whole, and frames read and frames lost add up to the counter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from foreign_stream import TEMPORAL_RING, ForeignStream, file_of, keyword, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vampires import _core
from vampires.frame_table import FrameFlag
from vampires.stream import Stream

TAI_NS = 37 * 10**9
Steps = Iterator[str]


class Watcher:
    """Reads what there is to read, and checks every frame against its number."""

    def __init__(self, directory: Path, name: str = "foreign", **options) -> None:
        options.setdefault("tai_offset_ns", 0)
        self.reader = _core.StreamReader(_core.StreamFile.open(str(directory), name), **options)
        self.started_at = self.reader.last_cnt0
        self.infos: list[_core.FrameInfo] = []

    def look(self, timeout_s: float = 0.0) -> None:
        while (result := self.reader.read(timeout_s)) is not None:
            frame, info = result
            low, high = int(frame.min()), int(frame.max())
            assert low == high, f"frame {info.cnt0} is torn: pixels {low} to {high}"
            assert low == info.cnt0 & 0xFFFF, f"frame {info.cnt0} holds the pixels of {low}"
            self.infos.append(info)

    def accounted(self) -> int:
        """The counter up to which every frame was either read or counted as lost."""
        assert all(info.torn <= info.lost for info in self.infos)
        read_and_lost = len(self.infos) + sum(info.lost for info in self.infos)
        return self.started_at + read_and_lost

    def cnt0s(self) -> list[int]:
        return [info.cnt0 for info in self.infos]


def pixels(stream: ForeignStream, cnt0: int) -> np.ndarray:
    return np.array(cnt0 & 0xFFFF, stream.dtype)


def library(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.library(pixels(stream, cnt0))


def library_slices(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.library(pixels(stream, cnt0), cnt1=(cnt0 - 1) % stream.size[2])


def never_posting(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.library(pixels(stream, cnt0), post=False)


def pymilk(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.pymilk(pixels(stream, cnt0))


def pymilk_at_once(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.pymilk(pixels(stream, cnt0), at_once=True)


def magaox(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.magaox(pixels(stream, cnt0))


def magaox_uncounted(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.magaox(pixels(stream, cnt0), counts_slices=False)


RING = {"size": (4, 3, 6), "imagetype": TEMPORAL_RING}
CASES = {
    "library": (library, {}, {}),
    "never posting": (never_posting, {}, {}),
    "pyMilk": (pymilk, {}, {}),
    "ring, MagAO-X": (magaox, RING, {}),
    "ring, slices not counted": (magaox_uncounted, RING, {}),
    "ring, library": (library_slices, RING, {}),
    "3D, rolling": (library_slices, {"size": (4, 3, 6)}, {"rolling": True}),
    "CBsize, library": (library, {"cbsize": 4}, {}),
    "CBsize, pyMilk": (pymilk, {"cbsize": 4}, {}),
}
Writer = Callable[[ForeignStream, int], Steps]
each_case = pytest.mark.parametrize(
    ("writer", "kind", "options"), CASES.values(), ids=CASES.keys()
)


@each_case
def test_a_reader_that_looks_at_every_step_reads_every_frame(
    shm_dir: Path, writer: Writer, kind: dict, options: dict
) -> None:
    with ForeignStream.create(shm_dir, **kind) as stream:
        watcher = Watcher(shm_dir, **options)
        for cnt0 in range(1, 31):
            for _ in writer(stream, cnt0):
                watcher.look()
            watcher.look(0.05 if cnt0 == 1 else 0.0)  # at first it has to learn the writer
        assert watcher.cnt0s() == list(range(1, 31))
        assert watcher.accounted() == 30


@each_case
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.tuples(st.integers(0, 9), st.lists(st.integers(0, 40), max_size=30)))
def test_frames_keep_their_numbers_whenever_the_reader_looks(
    shm_dir: Path, writer: Writer, kind: dict, options: dict, plan: tuple[int, list[int]]
) -> None:
    """plan: frames before the reader came; steps of the writer between two of its looks."""
    before, looks = plan
    with ForeignStream.create(shm_dir, **kind) as stream:
        for cnt0 in range(1, before + 1):
            run(writer(stream, cnt0))
        watcher = Watcher(shm_dir, **options)
        steps = (
            (cnt0, step)
            for cnt0 in range(before + 1, before + 200)
            for step in writer(stream, cnt0)
        )
        for pause in looks:
            for _ in range(pause):
                _, step = next(steps)
            # For a nanosecond pyMilk shows new pixels under the old count, unmistakably only
            # to a reader that has seen the old frame. Nobody can tell; do not look then.
            if writer is pymilk and pause and step == "write = 0":
                next(steps)
            watcher.look()
        for _, step in steps:  # brings the frame in work to its end
            if step == "write = 1":
                break
        stream.set("write", 0)
        watcher.look(0.02)
        assert watcher.accounted() == stream.get("cnt0")[0]


FREE = {
    "library": ("library", {"size": (536, 536)}, {}),
    "pyMilk": ("pymilk_at_once", {"size": (536, 536)}, {}),
    "never posting": ("never_posting", {"size": (536, 536)}, {}),
    "ring, MagAO-X": ("magaox", {"size": (536, 536, 8), "imagetype": TEMPORAL_RING}, {}),
    "ring, slices not counted": (
        "magaox_uncounted",
        {"size": (536, 536, 8), "imagetype": TEMPORAL_RING},
        {},
    ),
    "3D, rolling": ("library_slices", {"size": (536, 536, 8)}, {"rolling": True}),
    "CBsize, library": ("library", {"size": (536, 536), "cbsize": 6}, {}),
}
FREE_WRITER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_stream_mixed_writers as writers
from pathlib import Path
with writers.ForeignStream(Path(sys.argv[2])) as stream:
    writer = getattr(writers, sys.argv[3])
    pause_s = float(sys.argv[5])
    for cnt0 in range(1, int(sys.argv[4]) + 1):
        writers.run(writer(stream, cnt0))
        if pause_s:
            time.sleep(pause_s)
"""


@pytest.fixture
def start_writer(shm_dir: Path, start_python):
    """Another process that writes ``frames`` frames on the stream, as fast as it can."""

    def start(writer: str, frames: int, pause_s: float = 0, name: str = "foreign"):
        return start_python(
            FREE_WRITER, Path(__file__).parent, file_of(shm_dir, name), writer, frames, pause_s
        )

    return start


def watch_to_the_end(watcher: Watcher, process) -> None:
    while process.poll() is None:
        watcher.look(0.05)
    watcher.look(0.05)
    assert process.returncode == 0, process.stderr.read()


@pytest.mark.parametrize(("writer", "kind", "options"), FREE.values(), ids=FREE.keys())
def test_a_fast_writer_never_gets_a_torn_frame_through(
    shm_dir: Path, start_writer, writer: str, kind: dict, options: dict
) -> None:
    with ForeignStream.create(shm_dir, **kind) as stream:
        watcher = Watcher(shm_dir, **options)
        process = start_writer(writer, 1500)
        watch_to_the_end(watcher, process)
        assert stream.get("cnt0") == (1500,)
        assert watcher.accounted() == 1500
        assert watcher.infos


# One slot promises a late reader nothing.
RINGS = {
    name: case
    for name, case in FREE.items()
    if len(case[1]["size"]) == 3 or "cbsize" in case[1]
}


@pytest.mark.parametrize(("writer", "kind", "options"), RINGS.values(), ids=RINGS.keys())
def test_a_late_reader_loses_no_frame_that_the_ring_still_has(
    shm_dir: Path, start_writer, writer: str, kind: dict, options: dict
) -> None:
    small = {**kind, "size": (32, 32, 400)[: len(kind["size"])]}
    if "cbsize" in kind:
        small["cbsize"] = 400
    with ForeignStream.create(shm_dir, **small):
        watcher = Watcher(shm_dir, **options)
        watch_to_the_end(watcher, start_writer(writer, 300))
        assert watcher.cnt0s() == list(range(1, 301))


@pytest.mark.parametrize("ring", [0, 8])
def test_our_own_writer_never_gets_a_torn_frame_through(
    shm_dir: Path, start_python, ring: int
) -> None:
    source = """
import sys
import numpy as np
from vampires.stream import Stream
stream = Stream.open(sys.argv[1])
frame = np.zeros((536, 536), np.uint16)
for cnt0 in range(1, 3001):
    frame[:] = cnt0
    stream.write(frame)
"""
    with Stream.create("ours", (536, 536), ring=ring):
        watcher = Watcher(shm_dir, "ours")
        watch_to_the_end(watcher, start_python(source, "ours"))
        assert watcher.accounted() == 3000


def test_a_post_without_a_count_is_no_frame(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir) as stream:
        watcher = Watcher(shm_dir)
        for _ in range(5):
            stream.post_all()
            watcher.look(0.01)
        assert watcher.infos == []
        run(library(stream, 1))
        watcher.look(0.01)
        assert watcher.cnt0s() == [1]


def test_a_repost_counts_as_a_frame_with_the_same_pixels(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir) as stream:
        reader = _core.StreamReader(_core.StreamFile.open(str(shm_dir), "foreign"))
        run(library(stream, 1))
        first, _ = reader.read(1.0)
        stream.add("cnt0")
        stream.post_all()
        again, info = reader.read(1.0)
        assert (info.cnt0, info.lost) == (2, 0)
        np.testing.assert_array_equal(again, first)


def test_posts_are_taken_from_the_c_library_and_by_it(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir) as stream:
        watcher = Watcher(shm_dir)
        assert stream.read_pids()[0] > 0
        for cnt0 in range(1, 30):
            run(library(stream, cnt0))
            if cnt0 % 3 == 0:
                watcher.look()
        assert stream.semaphore_value(1) == 10  # nobody waits there: saturated
        watcher.reader.read(0.0)
        assert watcher.accounted() == 27
    with Stream.open("foreign") as ours, ForeignStream(file_of(shm_dir, "foreign")) as stream:
        ours.write(np.full((3, 4), 30, np.uint16))
        assert stream.semaphore_value(1) == 10
        assert stream.semaphore_value(0) <= 10


def stuck_flag(stream: ForeignStream, cnt0: int) -> Steps:
    return stream.library(pixels(stream, cnt0), clears_write=False)


def test_a_writer_that_never_clears_its_flag_is_read(shm_dir: Path) -> None:
    """It is found out after two seconds; nothing tells a whole copy from a torn one then."""
    with ForeignStream.create(shm_dir) as stream:
        watcher = Watcher(shm_dir)
        cnt0 = 0
        while len(watcher.infos) < 100 and cnt0 < 500_000:
            cnt0 += 1
            run(stuck_flag(stream, cnt0))
            watcher.look()
        assert watcher.cnt0s() == list(range(cnt0 - 99, cnt0 + 1))
        assert watcher.accounted() == cnt0


def test_a_flag_left_by_a_dead_writer_shows_no_frame(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir) as stream:
        watcher = Watcher(shm_dir)
        steps = library(stream, 1)
        for step in steps:
            watcher.look()
            if step == "cnt0":
                break
        watcher.look(0.1)
        assert watcher.infos == []
        stream.set("write", 0)
        watcher.look()
        assert watcher.cnt0s() == [1]


def test_pymilk_on_a_cb_stream_after_the_library_is_seen_at_once(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir, cbsize=5) as stream:
        watcher = Watcher(shm_dir)
        for cnt0 in range(1, 41):
            writer = library if cnt0 % 7 < 4 else pymilk
            run(writer(stream, cnt0))
            if cnt0 % 3 == 0:
                watcher.look()
        watcher.look()
        assert watcher.accounted() == 40


@pytest.mark.parametrize("frames", [1, 3, 9])
def test_the_latest_frame_of_a_cb_stream_that_pymilk_wrote(shm_dir: Path, frames: int) -> None:
    """The ring holds none of them: the array does."""
    with ForeignStream.create(shm_dir, cbsize=5) as stream:
        for cnt0 in range(1, frames + 1):
            run(pymilk(stream, cnt0))
        with Stream.open("foreign") as reader:
            frame, info = reader.latest()
            assert (info.cnt0, frame.tolist()) == (frames, [[frames] * 4] * 3)


def test_a_reader_that_comes_in_mid_update_keeps_the_ring_of_updates(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir, cbsize=8) as stream:
        run(library(stream, 1))
        steps = library(stream, 2)
        for step in steps:
            if step == "CBindex":
                break
        watcher = Watcher(shm_dir)
        run(steps)
        watcher.look()
        for cnt0 in range(3, 8):
            run(library(stream, cnt0))
        watcher.look()
        assert watcher.cnt0s() == [2, 3, 4, 5, 6, 7]


def test_a_slice_counted_late_keeps_its_times(shm_dir: Path) -> None:
    """A frame grabber that was held up between its two counters is still believed."""
    with ForeignStream.create(shm_dir, **RING) as stream:
        watcher = Watcher(shm_dir)
        times_ns = [time.time_ns() - 1000 * n for n in range(20, 0, -1)]
        for cnt0, acquired_ns in enumerate(times_ns, 1):
            for step in stream.magaox(pixels(stream, cnt0), acquired_ns=acquired_ns):
                if step == "cnt0" and cnt0 == 5:
                    watcher.look(0.05)
            if cnt0 % 4 == 0:
                watcher.look()
        watcher.look()
        assert [info.acquired_ns for info in watcher.infos] == times_ns


# -- times ------------------------------------------------------------------------------------


def maqtime(time_us: int | float, kind: bytes = b"L") -> bytes:
    return keyword("_MAQTIME", kind, time_us)


def infos_of(shm_dir: Path, stream: ForeignStream, frames, **options) -> list[_core.FrameInfo]:
    """Publishes a frame for each (keyword entry or None, atime or None); reads each at once."""
    watcher = Watcher(shm_dir, **options)
    for cnt0, (entry, atime_ns) in enumerate(frames, stream.get("cnt0")[0] + 1):
        if entry is not None:
            stream.set_keyword(0, entry)
        run(stream.library(pixels(stream, cnt0), atime_ns=atime_ns))
        watcher.look()
    return watcher.infos


@pytest.mark.parametrize("offset_ns", [0, TAI_NS])
def test_times_are_utc_whether_the_writer_counts_tai_or_utc(
    shm_dir: Path, offset_ns: int
) -> None:
    with ForeignStream.create(shm_dir) as stream:
        watcher = Watcher(shm_dir, tai_offset_ns=TAI_NS)
        before_ns = time.time_ns()
        for cnt0 in (1, 2, 3):
            acquired_ns = time.time_ns()
            writer = stream.library(
                pixels(stream, cnt0),
                atime_ns=acquired_ns + offset_ns,
                clock_offset_ns=offset_ns,
            )
            run(writer)
            watcher.look()
            info = watcher.infos[-1]
            assert info.acquired_ns == acquired_ns
            assert before_ns <= info.written_ns <= time.time_ns()
            assert info.flags == FrameFlag.TACQ_FROM_ATIME


def test_tai_is_known_of_frames_read_late_too(shm_dir: Path) -> None:
    with Stream.create("ring", (3, 4), ring=8) as ours:
        reader = _core.StreamReader(ours._file, tai_offset_ns=TAI_NS)
        times_ns = [time.time_ns() + n for n in range(5)]
        for time_ns in times_ns:
            ours.write(np.zeros((3, 4), np.uint16), time_ns + TAI_NS)
        assert [reader.read(0.0)[1].acquired_ns for _ in times_ns] == times_ns


def test_acquisition_time_is_the_keyword(shm_dir: Path) -> None:
    now_us = time.time_ns() // 1000
    with ForeignStream.create(shm_dir) as stream:
        for kind in (b"L", b"D"):
            frames = [(maqtime(now_us + n, kind), None) for n in range(1, 4)]
            infos = infos_of(shm_dir, stream, frames)
            assert [info.acquired_ns // 1000 - now_us for info in infos] == [1, 2, 3]
            assert [info.flags for info in infos] == [0, 0, 0]


def test_the_same_instant_in_atime_gives_nanoseconds(shm_dir: Path) -> None:
    now_us = time.time_ns() // 1000
    with ForeignStream.create(shm_dir) as stream:
        (info,) = infos_of(shm_dir, stream, [(maqtime(now_us), now_us * 1000 + 321)])
        assert info.acquired_ns == now_us * 1000 + 321
        assert info.flags == 0


def test_a_keyword_that_stands_still_is_no_time_of_a_frame(shm_dir: Path) -> None:
    now_us = time.time_ns() // 1000
    with ForeignStream.create(shm_dir) as stream:
        stream.set_keyword(0, maqtime(now_us - 10**9))
        infos = infos_of(shm_dir, stream, [(None, now_us * 1000), (None, now_us * 1000 + 7)])
        assert [info.acquired_ns for info in infos] == [now_us * 1000, now_us * 1000 + 7]
        assert [info.flags for info in infos] == [FrameFlag.TACQ_FROM_ATIME] * 2


def test_an_atime_that_stands_still_is_no_time_of_a_frame(shm_dir: Path) -> None:
    now_ns = time.time_ns()
    with ForeignStream.create(shm_dir) as stream:
        infos = infos_of(shm_dir, stream, [(None, now_ns), (None, now_ns)])
        assert [info.acquired_ns for info in infos] == [now_ns, 0]


def test_a_writer_that_sets_no_times_gives_none(shm_dir: Path) -> None:
    with ForeignStream.create(shm_dir) as stream:
        watcher = Watcher(shm_dir)
        for cnt0 in (1, 2):
            run(pymilk(stream, cnt0))
            watcher.look()
        assert [(info.acquired_ns, info.written_ns) for info in watcher.infos] == [(0, 0)] * 2


@pytest.mark.parametrize(
    "entry",
    [
        keyword("_MAQTIME", b"S", "yesterday"),
        keyword("_MAQTIME", b"N", ""),
        maqtime(float("nan"), b"D"),
        maqtime(1e300, b"D"),
        maqtime(-5),
        maqtime(2**63 - 1),
        maqtime(1700000000),  # seconds, not microseconds
        keyword("_MAQTIMES", b"L", 1700000000000000),
    ],
)
def test_a_keyword_without_a_sensible_time_is_passed_over(shm_dir: Path, entry: bytes) -> None:
    now_ns = time.time_ns()
    with ForeignStream.create(shm_dir) as stream:
        (info,) = infos_of(shm_dir, stream, [(entry, now_ns)])
        assert info.acquired_ns == now_ns
        assert info.flags == FrameFlag.TACQ_FROM_ATIME


def test_a_keyword_behind_the_end_of_the_list_is_passed_over(shm_dir: Path) -> None:
    now_ns = time.time_ns()
    with ForeignStream.create(shm_dir) as stream:
        stream.set_keyword(2, maqtime(now_ns // 1000 - 500))
        (info,) = infos_of(shm_dir, stream, [(None, now_ns)])
        assert info.acquired_ns == now_ns


def test_a_time_before_that_of_the_frame_before_is_flagged(shm_dir: Path) -> None:
    now_ns = time.time_ns()
    with ForeignStream.create(shm_dir) as stream:
        times_ns = (now_ns, now_ns - 1000, now_ns)
        infos = infos_of(shm_dir, stream, [(None, time_ns) for time_ns in times_ns])
        assert [bool(info.flags & FrameFlag.CLOCK_STEP) for info in infos] == [
            False,
            True,
            False,
        ]
