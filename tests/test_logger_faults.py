"""The logger among faults: what was recorded stays whole, what is lost is counted, and the
observer reads one line that says what is wrong and what to do."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from cube_checks import check_cubes, hidden_files
from foreign_stream import MATH_DATA, ForeignStream, file_of, keyword, run, stream_bytes
from logger_process import Camera, LoggerProcess
from small_disks import memory_disks

from vampires import frame_stamp
from vampires.frame_table import FrameFlag
from vampires.stream import Stream

MAQTIME = {"_MAQTIME": 0}


def lengths(cubes):
    return [len(cube.rows) for cube in cubes]


def wait_until(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(30_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not happen")


# Streams that cannot be logged


def refused(start_logger, *arguments: object, says: tuple[str, ...]) -> None:
    ended = start_logger(*arguments).end()
    assert ended.status == 2
    for words in says:
        assert words in ended.error
    assert not (ended.root.is_dir() and list(ended.root.iterdir()))


def test_a_stream_that_is_not_there(start_logger):
    Camera("other")
    refused(start_logger, "cam1", says=("no stream 'cam1'", "other", "Start the camera"))


@pytest.mark.parametrize("name", ["../etc", "a/b", ".hidden", "x" * 80, "bad name"])
def test_a_name_that_no_stream_can_have(start_logger, name):
    refused(start_logger, name, says=("cannot be a stream name", "expected"))


def dao_variant() -> bytes:
    """The header of a build with DAO_COMPAT: 4496 bytes and the same version."""
    raw = bytes(stream_bytes("cam1", (9, 8)))
    return raw[:384] + bytes(4496 - 384) + raw[384:]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bytes(range(256)) * 100, "is not a stream"),
        (b"", "is not a stream yet"),
        (bytes(stream_bytes("cam1", (9, 8))[:-100]), "truncated"),
        (bytes(stream_bytes("cam1", (9, 8), version=b"1.23")), "expected 2.x"),
        (bytes(stream_bytes("cam1", (9, 8), version=b"")), "is not a stream yet"),
        (dao_variant(), "another layout"),
    ],
    ids=["random", "empty", "truncated", "version", "unfinished", "dao"],
)
def test_a_file_that_is_no_stream(start_logger, shm_dir, content, says):
    file_of(shm_dir, "cam1").write_bytes(content)
    refused(start_logger, "cam1", says=("cam1", says))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_pixels_are_refused(start_logger, shm_dir, dtype):
    ForeignStream.create(shm_dir, "cam1", dtype=dtype).close()
    refused(start_logger, "cam1", says=(dtype, "no complex pixels", "real and imaginary"))


def test_three_axes_without_a_ring_are_refused(start_logger, shm_dir):
    ForeignStream.create(shm_dir, "cam1", size=(9, 8, 3), imagetype=MATH_DATA).close()
    refused(start_logger, "cam1", says=("3D", "--rolling"))


def test_rolling_needs_three_axes(start_logger):
    Camera(ring=0)
    refused(start_logger, "cam1", "--rolling", says=("--rolling needs a 3D stream",))


def test_a_rolling_stream_whose_slice_is_out_of_range_is_not_logged(start_logger, shm_dir):
    with ForeignStream.create(shm_dir, "roll", size=(9, 8, 4)) as stream:
        logger = start_logger("roll", "--rolling").attached()
        frame = np.zeros((8, 9), np.uint16)
        frame_stamp.stamp(frame, 1)
        run(stream.library(frame, cnt1=1))
        logger.wait_frames(1)
        stream.set("cnt1", 7)
        stream.add("cnt0")
        logger.wait_for("cnt1 is 7")
        ended = logger.stop()
    (cube,) = ended.cubes(None, status=3)
    assert lengths([cube]) == [1]


def test_frames_too_large_for_the_memory_are_refused(start_logger):
    Camera(shape=(500, 1000), ring=2)
    refused(start_logger, "cam1", "--ring-memory", "1MiB", says=("too small", "at least"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cube-size", 10**12), "--cube-size"),
        (("--frames", 10**30), "--frames"),
        (("--cubes", 10**30), "--cubes"),
        (("--cubes", 0), "--cubes"),
        (("--rt-priority", 100), "--rt-priority"),
        (("--cpus", "3-1"), "expected CPUs"),
        (("--cpus", "0-99999999999"), "expected CPUs"),
        (("--ring-memory", "1000TiB"), "give less"),
        (("--dir", ""), "empty"),
    ],
)
def test_impossible_options_are_refused(start_logger, arguments, says):
    Camera()
    refused(start_logger, "cam1", *arguments, says=(says,))


# Streams that change while they are logged


def test_a_stream_that_vanishes_and_comes_back(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(4)
    logger.wait_frames(4)
    camera.stream.remove()
    logger.wait_for("was removed")
    known = len(logger.lines)
    again = Camera()
    logger.wait_for("is there again", after=known)
    again.send(6)
    logger.wait_frames(10)
    (cube,) = logger.stop().cubes(camera.pool)
    assert cube.rows["CNT0"].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 5, 6]
    recreated = cube.rows["FLAGS"] & FrameFlag.STREAM_RECREATED != 0
    assert recreated.tolist() == [False] * 4 + [True] + [False] * 5


def test_a_stream_that_stays_away_ends_its_cube(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(4)
    logger.wait_frames(4)
    camera.stream.remove()
    logger.wait_for("waiting for the stream cam1")
    logger.wait_for("cube 1: 0/")
    known = len(logger.lines)
    again = Camera()
    logger.wait_for("is there again", after=known)
    again.send(3)
    logger.wait_frames(7)
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [4, 3]
    assert cubes[0].reason == "stream removed"


def test_a_stream_recreated_with_the_same_shape_goes_on_in_the_cube(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(50)
    again = Camera()  # at once, in the place of the old one
    again.send(20)
    logger.wait_frames(70)
    (cube,) = logger.stop().cubes(camera.pool)
    assert cube.rows["CNT0"].tolist() == [*range(1, 51), *range(1, 21)]


def test_a_stream_recreated_with_another_shape_begins_a_cube(start_logger):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(5)
    again = Camera(shape=(11, 20), dtype="float32")
    again.send(7)
    logger.wait_frames(12)
    ended = logger.stop()
    assert ended.status == 0 and ended.result["frames_seen"] == 12
    first, second = ended.result["files"]
    (old,) = check_cubes([first], camera.pool)
    (new,) = check_cubes([second], again.pool)
    assert lengths([old, new]) == [5, 7]
    assert old.reason == "stream re-created with another shape"


def test_a_frame_that_a_recreated_stream_has_already_keeps_its_time(start_logger):
    camera = Camera(keywords={"_MAQTIME": 0})
    logger = start_logger("cam1").attached()
    first_ns = time.time_ns()
    camera.send(acquired_ns=first_ns)
    logger.wait_frames(1)
    with logger.held_up():
        again = Camera(keywords={"_MAQTIME": 0})
        again.send(acquired_ns=first_ns + 1_000_000)
    logger.wait_frames(2)
    again.send(acquired_ns=first_ns + 2_000_000)
    logger.wait_frames(3)
    cubes = logger.stop().cubes(camera.pool)
    times_ns = [int(time_ns) for cube in cubes for time_ns in cube.rows["TACQ"]]
    assert times_ns == [first_ns + n * 1_000_000 for n in range(3)]


def test_more_keywords_after_a_recreation_find_room(start_logger):
    camera = Camera(keywords={"A": 1})
    logger = start_logger("cam1", "--cube-size", 4).attached()
    camera.send(4)
    many = {f"KEY{number:03d}": number for number in range(300)}
    again = Camera(keywords=many)
    again.send(8)
    logger.wait_frames(12)
    first, *others = logger.stop().cubes(camera.pool)
    assert lengths([first, *others]) == [4, 4, 4]
    assert "KEY000" not in first.cards
    for cube in others:
        assert [int(cube.cards[name]) for name in many] == list(range(300))


def test_a_stream_that_becomes_complex_is_refused_until_it_is_good_again(start_logger, shm_dir):
    camera = Camera()
    logger = start_logger("cam1").attached()
    camera.send(3)
    logger.wait_frames(3)
    Stream.create("cam1", (8, 9), "complex64", ring=0).close()
    logger.wait_for("not logging: stream 'cam1' is complex")
    known = len(logger.lines)
    again = Camera()
    logger.wait_for("is there again", after=known)
    again.send(2)
    logger.wait_frames(5)
    assert sum(lengths(logger.stop().cubes(camera.pool))) == 5


def test_a_stream_truncated_under_the_logger(start_logger):
    camera = Camera(shape=(40, 50))
    logger = start_logger("cam1").attached()
    camera.send(20)
    logger.wait_frames(20)
    os.truncate(camera.stream.path, 1000)
    logger.wait_for("was truncated")
    logger.wait_for("not logging")
    known = len(logger.lines)
    again = Camera(shape=(40, 50))
    logger.wait_for("is there again", after=known)
    again.send(5)
    logger.wait_frames(25)
    cubes = logger.stop().cubes(camera.pool)
    assert sum(lengths(cubes)) == 25


def test_a_stream_truncated_in_the_middle_of_a_stop(start_logger):
    camera = Camera(shape=(40, 50))
    logger = start_logger("cam1").attached()
    camera.send(20)
    logger.wait_frames(20)
    os.truncate(camera.stream.path, 5000)
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 20


# Writers and readers of other kinds


def test_a_writer_that_never_posts(start_logger, shm_dir):
    with ForeignStream.create(shm_dir, "mute", size=(9, 8)) as stream:
        logger = start_logger("mute").attached()
        for number in range(1, 31):
            frame = np.zeros((8, 9), np.uint16)
            frame_stamp.stamp(frame, number)
            run(stream.library(frame, post=False))
        logger.wait_frames(30, or_lost=True)
        ended = logger.stop()
    (cube,) = ended.cubes(None, status=ended.status)
    # One slot, no post: frames may be missed, but not in silence.
    assert cube.rows["CNT0"][-1] == 30 and ended.result["frames_seen"] == 30


def test_eleven_other_readers_do_not_disturb_the_logger(start_logger):
    camera = Camera()
    readers = [Stream.open("cam1") for _ in range(11)]
    for reader in readers:
        with pytest.raises(TimeoutError):
            reader.read(0)
    logger = start_logger("cam1", "--cube-size", 100).attached()
    camera.send(500)
    logger.wait_frames(500)
    assert lengths(logger.stop().cubes(camera.pool)) == [100] * 5
    for reader in readers:
        reader.close()


def test_two_loggers_of_one_stream_share_a_folder(start_logger):
    camera = Camera(keywords=MAQTIME)
    both = [start_logger("cam1", "--cube-size", 10) for _ in range(2)]
    for logger in both:
        logger.attached()
    for frame in range(60):
        camera.send(acquired_ns=1_770_091_506_000_000_000 + frame * 10**6)
    files: list[str] = []
    for logger in both:
        logger.wait_frames(60)
        ended = logger.stop()
        assert ended.status == 0
        assert lengths(check_cubes(ended.result["files"], camera.pool)) == [10] * 6
        files += ended.result["files"]
    assert len(set(files)) == 12
    assert hidden_files(ended.root) == []


def test_a_file_that_has_the_name_already_is_never_replaced(start_logger, tmp_path):
    camera = Camera(keywords=MAQTIME)
    first_ns = 1_770_091_506_000_000_000
    folder = tmp_path / "data" / "20260203" / "cam1"
    folder.mkdir(parents=True)
    taken = folder / "cam1_04:05:06.000000000.fits"
    taken.write_text("precious")
    other = folder / "cam1_04:05:06.000000001.txt"
    other.write_text("a sidecar alone")
    logger = start_logger("cam1").attached()
    camera.send(3, acquired_ns=first_ns)
    logger.wait_frames(3)
    (cube,) = logger.stop().cubes(camera.pool)
    assert cube.path.name == "cam1_04:05:06.000000002.fits"
    assert taken.read_text() == "precious" and other.read_text() == "a sidecar alone"


# Keywords


def test_any_keywords_make_a_legal_header(start_logger, shm_dir):
    entries = [
        keyword("GOOD", b"L", 5, "a comment"),
        b"FULLNAMEOF16CHAR" + b"L" + bytes(7) + struct.pack("<q8x", 7) + bytes(8) + b"c" * 80,
        b"FULLTEXT".ljust(16, b"\0") + b"S" + bytes(7) + b"sixteen chars!!!" + bytes(8)
        + b"'" * 80,
        keyword("NANVALUE", b"D", float("nan"), "not a number"),
        keyword("INFVALUE", b"D", float("-inf")),
        keyword("lower cas", b"D", 1.5, "illegal name"),
        b"B\xc3\xa9ta".ljust(16, b"\0") + b"S" + bytes(7) + "Pâté".encode().ljust(16, b"\0")
        + bytes(8) + "é".encode() * 40,
        keyword("LONGERTHAN8", b"L", -1),
        keyword("SIMPLE", b"L", 0),
        keyword("EQUINOX", b"S", "never"),
        keyword("ODDTYPE", b"X", "?"),
        keyword("GOOD", b"L", 6, "again"),
        keyword("AND&", b"S", "it's &"),
    ]  # fmt: skip
    stale = keyword("STALE", b"L", 99, "left by a longer list")
    with ForeignStream.create(shm_dir, "odd", size=(9, 8), keywords=20) as stream:
        for index, entry in enumerate(entries):
            assert len(entry) == 128
            stream.set_keyword(index, entry)
        stream.set_keyword(len(entries) + 1, stale)
        logger = start_logger("odd", "--frames", 2, "--cube-size", 1).attached()
        for number in (1, 2):
            frame = np.zeros((8, 9), np.uint16)
            frame_stamp.stamp(frame, number)
            run(stream.library(frame))
            logger.wait_frames(number) if number == 1 else None
        first, second = logger.end().cubes(None)
    for cube in (first, second):
        assert cube.number("GOOD") == 6
        assert int(cube.cards["FULLNAMEOF16CHAR"]) == 7
        assert cube.string("FULLTEXT") == "sixteen chars!!!"
        assert cube.string("NANVALUE") == "NaN" and cube.string("INFVALUE") == "-Inf"
        assert cube.cards["LOWER_CAS"] in ("1.5",)
        assert int(cube.cards["LONGERTHAN8"]) == -1
        assert "STALE" not in cube.cards and "ODDTYPE" not in cube.cards
        assert cube.cards["SIMPLE"] == "T" and "EQUINOX" not in cube.cards
        assert fits.getheader(cube.path)["GOOD"] == 6


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (None, "no auxiliary cards: cam1.aux.fits does not exist"),
        (b"", "is not a FITS file"),
        (os.urandom(5000), "is not a FITS file"),
        (b"SIMPLE  =                    T".ljust(80) + b"\xff" * 3000, "no END card"),
        (
            b"SIMPLE  =                    T".ljust(80)
            + b"".join(b"AUX%05d=%21d".ljust(80) % (k, k) for k in range(40_000)),
            "over 288000 bytes",
        ),
    ],
    ids=["missing", "empty", "random", "no end", "huge"],
)
def test_a_bad_auxiliary_header_stops_nothing(start_logger, shm_dir, content, note):
    if content is not None:
        (shm_dir / "cam1.aux.fits").write_bytes(content)
    camera = Camera()
    logger = start_logger("cam1", "--frames", 3).attached()
    camera.send(3)
    (cube,) = logger.end().cubes(camera.pool)
    assert note in cube.history


def test_an_auxiliary_header_that_grows_is_taken_with_the_next_cube(start_logger, shm_dir):
    camera = Camera()
    logger = start_logger("cam1", "--cube-size", 2).attached()
    camera.send(2)
    logger.wait_for("cube 1: 0/")
    cards = {f"AUX{number:04d}": number for number in range(800)}
    hdu = fits.PrimaryHDU(header=fits.Header(cards))
    hdu.writeto(shm_dir / "new.fits")
    (shm_dir / "new.fits").rename(shm_dir / "cam1.aux.fits")
    for last in (4, 6, 8):
        camera.send(2)
        logger.wait_frames(last)
        logger.wait_for(f"cube {last // 2}: 0/")
    cubes = logger.stop().cubes(camera.pool)
    assert all(f"AUX{number:04d}" in cubes[-1].cards for number in range(800))


# Folders


def test_a_missing_parent_is_refused(start_logger, tmp_path):
    Camera()
    root = tmp_path / "not mounted" / "data"
    refused(start_logger, "cam1", "--dir", root, says=(f"no directory {root.parent}", "mkdir"))
    assert not root.parent.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(start_logger, tmp_path):
    Camera()
    (tmp_path / "data").write_text("a file")
    ended = start_logger("cam1").end()
    assert ended.status == 2
    assert "cannot write to" in ended.error and "choose another" in ended.error


def test_frames_wait_in_memory_while_the_folder_cannot_be_made(start_logger, tmp_path):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1").attached()
    obstacle = tmp_path / "data" / "20260203"
    obstacle.write_text("in the way")
    camera.send(30, acquired_ns=1_770_091_506_000_000_000)
    logger.wait_for("cannot open a cube")
    logger.wait_frames(30)
    obstacle.unlink()
    wait_until(obstacle.is_dir)
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 30


def test_memory_that_fills_costs_frames_and_each_is_counted(start_logger, tmp_path):
    """A disk that takes nothing for a while, and a memory too small for that while."""
    camera = Camera(shape=(100, 100), ring=8, keywords=MAQTIME)
    logger = start_logger("cam1", "--ring-memory", "1MiB").attached()
    obstacle = tmp_path / "data" / "20260203"
    obstacle.write_text("in the way")

    def send() -> int:
        return camera.send(acquired_ns=1_770_091_506_000_000_000)

    wait_until(lambda: send() and "ring memory is full" in "".join(logger.lines))
    for _ in range(100):
        send()
    obstacle.unlink()
    logger.wait_for("ring memory has room again")
    sent = send()
    logger.wait_frames(sent, or_lost=True)
    ended = logger.stop()
    cubes = ended.cubes(camera.pool, status=3)
    assert ended.result["frames_seen"] == sent
    rows = np.concatenate([cube.rows for cube in cubes])
    assert ended.result["lost"] == sent - len(rows) >= 100 - 8
    assert (rows["FLAGS"] & FrameFlag.RING_FULL != 0).any()
    assert f"{ended.result['lost']} lost" in ended.lines[-1]


def test_a_folder_that_never_opens_costs_what_it_cost_and_says_so(start_logger, tmp_path):
    camera = Camera(keywords=MAQTIME)
    logger = start_logger("cam1").attached()
    (tmp_path / "data" / "20260203").write_text("in the way")
    camera.send(30, acquired_ns=1_770_091_506_000_000_000)
    logger.wait_for("cannot open a cube")
    ended = logger.stop()
    assert ended.status == 3 and ended.result["files"] == []
    assert (ended.result["frames_seen"], ended.result["lost"]) == (30, 30)
    assert "30 frames could not be written" in ended.text
    assert hidden_files(tmp_path) == []


def test_a_folder_removed_while_logging(start_logger, tmp_path):
    camera = Camera(shape=(30, 40))
    logger = start_logger("cam1").attached()
    camera.send(20)
    folder = wait_for_cube(tmp_path)
    subprocess.run(["rm", "-r", str(folder.parent)], check=True)
    camera.send(20)
    logger.wait_frames(40)
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 40 and cube.path.parent == folder


def wait_for_cube(root: Path) -> Path:
    """The folder of the cube that is being written, once its data are on disk."""
    wait_until(lambda: any(path.stat().st_size for path in root.rglob(".*.frames")))
    return next(root.rglob(".*.cube")).parent


@pytest.mark.parametrize("level", ["stream", "day", "root"])
def test_a_folder_renamed_while_logging(start_logger, tmp_path, level):
    camera = Camera(shape=(30, 40))
    logger = start_logger("cam1", "--cube-size", 30).attached()
    camera.send(20)
    folder = wait_for_cube(tmp_path)
    renamed = {"stream": folder, "day": folder.parent, "root": folder.parent.parent}[level]
    renamed.rename(renamed.with_name("moved"))
    camera.send(20)
    logger.wait_frames(40)
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [30, 10]
    assert "moved" in cubes[0].path.parts and cubes[0].path.is_file()
    assert cubes[1].path.parent == folder
    assert hidden_files(tmp_path) == []


def test_the_hidden_files_removed_while_logging(start_logger, tmp_path):
    """A tidy observer: the data are still open, and get their name."""
    camera = Camera(shape=(30, 40))
    logger = start_logger("cam1").attached()
    camera.send(20)
    wait_for_cube(tmp_path)
    for name in hidden_files(tmp_path):
        Path(name).unlink()
    camera.send(20)
    logger.wait_frames(40)
    (cube,) = logger.stop().cubes(camera.pool)
    assert len(cube.rows) == 40


# Frames faster than anything


def test_a_camera_without_a_pause_loses_no_frame_in_silence(start_command, start_logger):
    arguments = ("sim1", "--shape", 20, 30, "--fps", 0, "--pattern", "counter", "--ring", 4)
    camera = start_command("framesim", *arguments)
    camera.stdout.readline()
    logger = start_logger("sim1", "--cube-size", 2, "--ring-memory", "512KiB").attached()
    logger.wait_frames(4000, or_lost=True)
    ended = logger.stop()
    camera.send_signal(signal.SIGINT)
    camera.wait()
    cubes = ended.cubes(None, status=3 if ended.result["lost"] else 0)
    first, last = cubes[0].rows[0], cubes[-1].rows[-1]
    spanned = int(last["CNT0"] - first["CNT0"] + first["LOST"]) + 1
    assert ended.result["frames_seen"] == spanned + cubes[-1].number("NLOSTEND")


def test_a_frame_overwritten_while_it_is_copied_is_not_kept(start_command, start_logger):
    """One slot, and a camera that writes to it all the time."""
    arguments = ("sim1", "--shape", 200, 400, "--fps", 0, "--pattern", "counter", "--ring", 0)
    camera = start_command("framesim", *arguments)
    camera.stdout.readline()
    logger = start_logger("sim1", "--cube-size", 50).attached()
    logger.wait_frames(3000, or_lost=True)
    ended = logger.stop()
    camera.send_signal(signal.SIGINT)
    camera.wait()
    cubes = ended.cubes(None, status=3)
    torn = any((cube.rows["FLAGS"] & FrameFlag.TORN_BEFORE != 0).any() for cube in cubes)
    assert torn == any(cube.number("NTORN") for cube in cubes)


# Nobody to tell


def test_a_closed_terminal_does_not_end_the_logging(start_python, shm_dir, tmp_path):
    camera = Camera()
    reading, writing = os.pipe()
    process = start_python(
        "import sys; from vampires.commands.logger import main; sys.exit(main())",
        *("cam1", "--dir", tmp_path / "data", "--ring-memory", "4MiB", "--progress", 0.02),
        *("--json", "--cube-size", 50),
        stderr=writing,
    )
    os.close(writing)
    with open(reading, encoding="utf-8") as lines:
        for line in lines:
            if "logging cam1 to" in line:
                break
    camera.send(100)
    folder = tmp_path / "data"
    wait_until(lambda: len(list(folder.rglob("*.fits"))) == 2)
    camera.send(20)
    process.send_signal(signal.SIGINT)
    printed = process.stdout.read()
    assert process.wait() == 0
    assert '"frames_logged": 120' in printed


def test_a_result_that_cannot_be_printed_is_told_on_stderr(start_command, tmp_path):
    camera = Camera()
    options = ("--dir", tmp_path / "data", "--ring-memory", "4MiB", "--json", "--timeout", 0)
    with open("/dev/full", "w", encoding="ascii") as full:
        process = start_command("logger", "cam1", *options, "--frames", 3, stdout=full)
        for line in process.stderr:
            if "logging cam1 to" in line:
                break
        camera.send(3)
        text = process.stderr.read()
    assert process.wait() == 0
    assert "cannot print the result, No space left on device" in text
    assert '"frames_logged": 3' in text and "Traceback" not in text


# A disk of one's own


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """small_disk(options) -> a new file system in memory, mounted below tmp_path."""
    with memory_disks(tmp_path / "disk") as mount:
        yield mount


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return ballast


def start_on(disk: Path, start_logger, *arguments: object) -> LoggerProcess:
    logger = start_logger("cam1", "--dir", disk / "data", *arguments).attached()
    logger.root = disk
    return logger


def test_a_disk_full_for_a_while_costs_nothing(start_logger, small_disk):
    disk = small_disk("size=8m")
    camera = Camera(shape=(100, 100))
    logger = start_on(disk, start_logger, "--cube-size", 60)
    camera.send(20)
    wait_for_cube(disk)
    ballast = fill(disk)
    camera.send(130)
    logger.wait_for("No space left on device")
    logger.wait_frames(150)
    ballast.unlink()
    logger.wait_for("the disk takes data again")
    cubes = logger.stop().cubes(camera.pool)
    assert lengths(cubes) == [60, 60, 30]


def test_a_disk_full_to_the_end_keeps_whole_frames(start_logger, small_disk):
    disk = small_disk("size=2m")
    camera = Camera(shape=(100, 100))
    logger = start_on(disk, start_logger, "--cube-size", 60)
    camera.send(200)
    logger.wait_for("No space left on device")
    logger.wait_frames(200)
    ended = logger.stop()
    assert ended.status == 3
    cubes = check_cubes(ended.result["files"], camera.pool)
    logged = sum(lengths(cubes))
    assert 60 <= logged == ended.result["frames_logged"] < 105
    assert lengths(cubes)[0] == 60
    assert ended.result["frames_seen"] == 200
    assert ended.result["lost"] == 200 - logged
    assert hidden_files(disk) == []


@pytest.mark.parametrize("frames", [10, 61])
def test_a_disk_filled_by_others_keeps_whole_frames(start_logger, small_disk, frames):
    """No room even for the table and the sidecar: frames make room for them."""
    disk = small_disk("size=4m")
    camera = Camera(shape=(100, 100))
    logger = start_on(disk, start_logger, "--cube-size", 60)
    camera.send(frames)
    wait_for_cube(disk)
    fill(disk)
    camera.send(100)
    logger.wait_for("No space left on device")
    logger.wait_frames(frames + 100)
    ended = logger.stop()
    assert ended.status == 3
    cubes = check_cubes(ended.result["files"], camera.pool)
    assert cubes, ended.text
    assert ended.result["frames_logged"] == sum(lengths(cubes)) > 0
    for cube in cubes:
        assert len(cube.rows) + cube.number("NLOSTEND") in (60, (frames + 100) % 60)
    assert ended.result["frames_seen"] == frames + 100
    assert ended.result["lost"] == frames + 100 - sum(lengths(cubes))
    # A cube of one frame has none to give up; it stays as it is, for a recovery.
    kept = [Path(name).suffix for name in hidden_files(disk)]
    assert kept in ([], [".cube", ".frames"])
    assert ("can be recovered" in ended.text) == bool(kept)


def test_a_disk_full_from_the_start(start_logger, small_disk):
    disk = small_disk("size=1m")
    camera = Camera(shape=(100, 100))
    logger = start_on(disk, start_logger, "--cube-size", 20)
    fill(disk)
    camera.send(100)
    logger.wait_for("No space left on device")
    ended = logger.stop()
    assert ended.status == 3
    assert (ended.result["frames_seen"], ended.result["files"]) == (100, [])
    assert ended.result["lost"] == 100
    assert hidden_files(disk) == []


def test_a_read_only_disk_is_refused(start_logger, small_disk):
    disk = small_disk("size=1m,ro")
    Camera()
    ended = start_logger("cam1", "--exact-dir", disk).end()
    assert ended.status == 2
    assert "Read-only file system" in ended.error and "choose another" in ended.error


def test_a_disk_that_turns_read_only_and_back(start_logger, small_disk):
    disk = small_disk("size=8m")
    camera = Camera(shape=(100, 100))
    logger = start_on(disk, start_logger, "--cube-size", 30)
    camera.send(30)
    wait_until(lambda: list(disk.rglob("*.fits")))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    camera.send(45)
    logger.wait_for("Read-only file system")
    logger.wait_frames(75)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    wait_until(lambda: len(list(disk.rglob("*.fits"))) == 2)
    assert lengths(logger.stop().cubes(camera.pool)) == [30, 30, 15]


def test_a_stop_right_after_the_stream_was_re_created_logs_what_the_new_one_published(
    start_logger,
):
    first = Camera("cam1")
    logger = start_logger("cam1").attached()
    first.send(3)
    logger.wait_frames(3)
    second = Camera("cam1")
    second.send(50)
    ended = logger.stop()
    ended.cubes(second.pool)
    assert ended.result["frames_logged"] == 53
