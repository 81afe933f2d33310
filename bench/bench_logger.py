"""The logger on real disks, in memory, and through a disk that stands still."""

from __future__ import annotations

import mmap
import os
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from missing_rights import cannot_run
from processes import LoggerRun, camera, logger

from vampires.demo import CameraReport, Demo
from vampires.frame_stamp import read_stamps
from vampires.logger import Logger, LoggerConfig
from vampires.stream import Stream

MBI = (1096, 2236)
MBI_BYTES = 1096 * 2236 * 2
MBI_HZ = 57
CHUNK_BYTES = 8 << 20


# -- as fast as the disk takes it ----------------------------------------------------


def direct_write_seconds(
    folder: Path, files: int, file_bytes: int, keep: bool = False
) -> float:
    """The baseline: a bare loop of direct writes of the same bytes in the same files."""
    buffer = mmap.mmap(-1, CHUNK_BYTES)
    buffer.write(os.urandom(1 << 16) * (CHUNK_BYTES >> 16))
    whole = memoryview(buffer)
    begun = time.perf_counter()
    for k in range(files):
        fd = os.open(folder / f"bare{k}", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
        for offset in range(0, file_bytes, CHUNK_BYTES):
            part = min(CHUNK_BYTES, -(-(file_bytes - offset) // 4096) * 4096)
            os.pwrite(fd, whole[:part], offset)
        os.fsync(fd)
        os.close(fd)
    seconds = time.perf_counter() - begun
    for k in range(0 if keep else files):
        (folder / f"bare{k}").unlink()
    return seconds


class Feeder(threading.Thread):
    """Publishes as fast as the logger takes it: never further ahead than the ring allows."""

    def __init__(self, stream: Stream, frames: int, seen) -> None:
        super().__init__()
        self._stream = stream
        self._frames = frames
        self._seen = seen
        generator = np.random.default_rng(1)
        self.pool = generator.integers(0, 4096, (8, *stream.shape), np.uint16)

    def run(self) -> None:
        for number in range(1, self._frames + 1):
            while number - self._seen() > 32:
                time.sleep(0.0002)
            self._stream.write(self.pool[number % len(self.pool)])


def logger_seconds(folder: Path, shm_dir: Path, cubes: int, cube_size: int) -> float:
    """From the first frame to the last file complete; checks that nothing is missing."""
    frames = cubes * cube_size
    with Stream.create("feed1", MBI, "uint16", ring=64) as stream:
        config = LoggerConfig(
            "feed1", folder, shm_dir, exact_dir=True, cube_size=cube_size, frames=frames,
            ring_memory_bytes=1 << 30,
        )  # fmt: skip
        log = Logger(config, print)
        feeder = Feeder(stream, frames, lambda: log.status()["last_cnt0"])
        begun = 0.0

        def start_when_attached() -> None:
            nonlocal begun
            if not begun and log.status()["attached"]:
                begun = time.perf_counter()
                feeder.start()

        result = log.run(threading.Event(), start_when_attached)
        seconds = time.perf_counter() - begun
        feeder.join()
        stream.remove()
    assert (result.lost, result.torn, result.frames_logged) == (0, 0, frames)
    verify_feed(result.files, feeder.pool)
    for name in result.files:
        Path(name).unlink()
    return seconds


def verify_feed(files: list[str], pool: np.ndarray) -> None:
    """Every pixel of the last file, and the frame numbers of all."""
    from astropy.io import fits

    number = 0
    for name in files:
        with fits.open(name) as hdus:
            for cnt0 in hdus["FRAMES"].data["CNT0"]:
                number += 1
                assert cnt0 == number
            if name == files[-1]:
                assert hdus[0].verify_datasum() == 1
                for k, frame in enumerate(hdus[0].data):
                    cnt0 = hdus["FRAMES"].data["CNT0"][k]
                    assert np.array_equal(frame, pool[cnt0 % len(pool)])


def test_logger_is_as_fast_as_the_disk(benchmark, record, disk_dir, shm_dir):
    cubes, cube_size = 4, 250
    file_bytes = cube_size * MBI_BYTES + 2880 * 16
    bare, logged = [], []

    def baseline() -> None:
        bare.append(direct_write_seconds(disk_dir, cubes, file_bytes))

    def log() -> None:
        logged.append(logger_seconds(disk_dir, shm_dir, cubes, cube_size))

    benchmark.pedantic(log, setup=baseline, rounds=3)
    baseline()
    # Each run of the logger between two of the baseline.
    around = [(a + b) / 2 for a, b in pairwise(bare)]
    ratio = statistics.median(b / log for b, log in zip(around, logged, strict=True))
    total_gb = cubes * file_bytes / 1e9
    shown = ", ".join(
        f"{total_gb / log:.2f}/{total_gb / b:.2f}"
        for b, log in zip(around, logged, strict=True)
    )
    record(
        "one stream as fast as the disk takes it, no loss",
        ">= 0.90 x bare direct writes",
        f"{ratio:.2f} x (GB/s {shown})",
        ratio >= 0.90,
    )


# -- two loggers into memory ---------------------------------------------------------


def test_two_loggers_in_memory_at_three_times_mbi(
    benchmark, record, unreachable, memory_dir, shm_dir
):
    seconds, hz = 5, 3 * MBI_HZ
    what, asked = "two loggers to tmpfs at once", "3 x 280 MB/s each, 0 lost"
    asked_mb_s = hz * MBI_BYTES / 1e6
    used, bare_mb_s = bare_writers(memory_dir / "first", hz * seconds * MBI_BYTES)
    with MemoryInReach(used):
        used, bare_mb_s = bare_writers(memory_dir / "second", hz * seconds * MBI_BYTES)
    if bare_mb_s < asked_mb_s:
        unreachable(what, asked, f"two bare loops write {bare_mb_s:.0f} MB/s each")
        return
    arguments = ["--dir", memory_dir / "cubes", "--cube-size", 100, "--frames", hz * seconds]
    arguments += ["--ring-memory", "1GiB"]
    with MemoryInReach(used):
        runs = benchmark.pedantic(log_both, (shm_dir, ["--fps", hz], arguments), rounds=1)
    for run in runs:
        assert run.result["frames_logged"] == hz * seconds, run.errors
        verify_stamps(run.result["files"])
    lost = sum(run.result["lost"] for run in runs)
    rates = [run.result["bytes"] / run.result["seconds"] / 1e6 for run in runs]
    record(
        what,
        asked,
        f"{rates[0]:.0f} + {rates[1]:.0f} MB/s, {lost} lost (bare loops {bare_mb_s:.0f} each)",
        lost == 0,
    )


def bare_writers(folder: Path, total_bytes: int) -> tuple[list[Path], float]:
    """Two threads that each write as much to tmpfs at the same time: their files, and the MB/s
    of the slower one."""
    folders = [folder / str(k) for k in range(2)]
    for each in folders:
        each.mkdir(parents=True)
    file_bytes = 100 * MBI_BYTES
    count = -(-total_bytes // file_bytes)
    with ThreadPoolExecutor() as pool:
        times = pool.map(lambda f: direct_write_seconds(f, count, file_bytes, True), folders)
        slowest = max(times)
    return sorted(folder.glob("*/*")), count * file_bytes / slowest / 1e6


class MemoryInReach(threading.Thread):
    """Frees the files given step by step, as much as is being taken.

    A virtual machine gives freed memory back to its host within a second, and getting it again
    is far slower than writing to it. What is freed just before it is needed is still here.
    """

    LEAD_BYTES = 512 << 20
    STEP_BYTES = 64 << 20

    def __init__(self, files: list[Path]) -> None:
        super().__init__()
        self._files = list(files)
        self._done = threading.Event()
        self._used_at_start = self._used()

    def _used(self) -> int:
        status = os.statvfs("/dev/shm")
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def run(self) -> None:
        while self._files and not self._done.wait(0.005):
            while self._files and self._used() > self._used_at_start - self.LEAD_BYTES:
                size = self._files[-1].stat().st_size
                if size > self.STEP_BYTES:
                    os.truncate(self._files[-1], size - self.STEP_BYTES)
                else:
                    self._files.pop().unlink()

    def __enter__(self) -> MemoryInReach:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()
        for path in self._files:
            path.unlink()


def log_both(shm_dir: Path, source: list, arguments: list) -> tuple[LoggerRun, LoggerRun]:
    """Two cameras and two loggers at once, until the loggers end."""
    with (
        camera(shm_dir, "vcam1", *source),
        camera(shm_dir, "vcam2", *source),
        logger(shm_dir, "vcam1", *arguments) as first,
        logger(shm_dir, "vcam2", *arguments) as second,
    ):
        waiter = threading.Thread(target=first.wait)
        waiter.start()
        second.wait()
        waiter.join()
    return first, second


def verify_stamps(files: list[str]) -> None:
    """First and last 8 bytes of every frame carry its number: none torn, none mislabelled."""
    from astropy.io import fits

    for name in files:
        with fits.open(name) as hdus:
            counters = hdus["FRAMES"].data["CNT0"].astype(np.uint64)
            first, last = read_stamps(hdus[0].data)
            assert np.array_equal(first, counters), name
            assert np.array_equal(last, counters), name


# -- two cameras on a real disk ------------------------------------------------------


def test_two_cameras_for_a_minute(benchmark, record, disk_dir, shm_dir):
    seconds = 60
    names = ("vcam1", "vcam2")
    arguments = ["--dir", disk_dir, "--cube-size", 250, "--frames", MBI_HZ * seconds]
    runs = benchmark.pedantic(log_both, (shm_dir, [], arguments), rounds=1)
    demo = Demo(disk_dir, seconds, "MBI", Fraction(MBI_HZ), lambda line: None, triggered=False)
    errors = []
    for name, run in zip(names, runs, strict=True):
        report: CameraReport = demo.check(name, run.result)
        errors += report.errors
    lost = sum(run.result["lost"] for run in runs)
    torn = sum(run.result["torn"] for run in runs)
    record(
        f"two cameras at 280 MB/s for {seconds} s, real disk",
        "0 lost, 0 torn, pixels verified",
        f"{lost} lost, {torn} torn, {len(errors)} errors in "
        f"{sum(run.result['frames_logged'] for run in runs)} frames",
        lost == torn == len(errors) == 0,
    )
    cores = [run.cpu_cores for run in runs]
    record("CPU of a logger at 280 MB/s", "< 0.2 core",
           " and ".join(f"{c:.3f}" for c in cores), max(cores) < 0.2)  # fmt: skip
    ring = 4 << 30
    over = [(run.rss["VmRSS"] - ring) / 1e6 for run in runs]
    own = [(run.rss["VmRSS"] - run.rss["RssShmem"] - ring) / 1e6 for run in runs]
    record(
        "resident memory of a logger",
        "<= ring memory + 150 MB",
        f"ring {ring / 1e6:.0f} MB + {max(over):.0f} MB "
        f"({max(own):.0f} MB without the camera's shared memory)",
        max(over) <= 150,
    )


# -- a single slot at 1000 Hz --------------------------------------------------------


def test_single_slot_at_1000_hz(benchmark, record, disk_dir, shm_dir):
    seconds, hz = 10, 1000
    arguments = ["--dir", disk_dir, "--cube-size", 2000, "--frames", hz * seconds // 2]
    source = ["--shape", 536, 536, "--fps", hz, "--ring", 0]

    def log() -> LoggerRun:
        with (
            camera(shm_dir, "slot1", *source),
            logger(shm_dir, "slot1", *arguments, "--ring-memory", "1GiB") as run,
        ):
            return run.wait()

    run = benchmark.pedantic(log, rounds=1)
    verify_stamps(run.result["files"])
    first, last, listed_lost = counted(run.result["files"])
    exact = (
        last - first + 1 + lost_before_first(run.result["files"]) == run.result["frames_seen"]
    )
    exact = exact and listed_lost == run.result["lost"]
    record(
        "single slot 536 x 536 at 1000 Hz",
        "0 torn accepted, loss exact",
        f"0 torn accepted, {run.result['lost']} of {run.result['frames_seen']} lost, "
        f"{'counted exactly' if exact else 'COUNT WRONG'}, {run.cpu_cores:.2f} core",
        exact,
    )


def counted(files: list[str]) -> tuple[int, int, int]:
    from astropy.io import fits

    rows = [fits.getdata(name, "FRAMES") for name in files]
    lost = sum(int(r["LOST"].sum()) for r in rows)
    return int(rows[0]["CNT0"][0]), int(rows[-1]["CNT0"][-1]), lost


def lost_before_first(files: list[str]) -> int:
    from astropy.io import fits

    return int(fits.getdata(files[0], "FRAMES")["LOST"][0])


# -- a disk that stands still --------------------------------------------------------


@contextmanager
def loop_mount(folder: Path, size_bytes: int):
    """An ext4 file system of its own in a file, on a loop device with direct I/O."""
    image, mount = folder / "disk.img", folder / "mnt"
    mount.mkdir()
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image], check=True)
    device = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", image],
        check=True, text=True, capture_output=True,
    ).stdout.strip()  # fmt: skip
    try:
        subprocess.run(["mount", device, mount], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_frozen_disk(benchmark, record, unreachable, disk_dir, shm_dir):
    if os.geteuid() != 0:
        cannot_run("needs root, to mount a disk and freeze it")
    frozen_s, frames = 5, MBI_HZ * 15
    asked = f"0 lost while frozen {frozen_s} s"
    what = "disk frozen at 280 MB/s, default ring"
    with loop_mount(disk_dir, 6 << 30) as mount:
        bare_gb_s = 1e-9 * (1 << 30) / direct_write_seconds(mount, 1, 1 << 30)
        if bare_gb_s < 0.35:
            unreachable(what, asked, f"this loop device takes {bare_gb_s:.2f} GB/s")
            return
        run = benchmark.pedantic(log_while_frozen, (mount, shm_dir, frames, frozen_s), rounds=1)
        verify_stamps(run.result["files"])
        lost, logged = run.result["lost"], run.result["frames_logged"]
    record(what, asked, f"{lost} lost of {logged}, loop device {bare_gb_s:.2f} GB/s",
           lost == 0 and logged == frames)  # fmt: skip


def log_while_frozen(mount: Path, shm_dir: Path, frames: int, frozen_s: float) -> LoggerRun:
    """Logs an MBI camera; the disk stands still after the first cube."""
    arguments = ["--dir", mount, "--cube-size", 250, "--frames", frames]
    with camera(shm_dir, "vcam1"), logger(shm_dir, "vcam1", *arguments) as run:
        waiter = threading.Thread(target=run.wait)
        waiter.start()
        wait_for_cube(mount)
        subprocess.run(["fsfreeze", "--freeze", mount], check=True)
        try:
            time.sleep(frozen_s)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", mount], check=True)
        waiter.join()
    return run


def wait_for_cube(folder: Path) -> None:
    """Until the logger has finished its first cube."""
    deadline = time.monotonic() + 60
    while not list(folder.glob("*/*/*.fits")):
        assert time.monotonic() < deadline, "the logger made no cube"
        time.sleep(0.1)
