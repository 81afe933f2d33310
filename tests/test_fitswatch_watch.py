"""The watched folders: what comes, grows, is lost and goes, from look to look."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fitswatch_cubes import Take, make_cube, make_growing
from fitswatch_page import looked, shown

from vampires import disk_room as rooms
from vampires.disk_room import DiskRoom, RoomLevel
from vampires.fitswatch import room as growing_room
from vampires.fitswatch import watch as fits_watch
from vampires.fitswatch import watcher as fits_watcher
from vampires.fitswatch.globs import FolderGlobs
from vampires.fitswatch.snapshot import FileView, FolderView, Snapshot
from vampires.fitswatch.watch import FitsWatch
from vampires.fitswatch.watcher import Watcher
from vampires.times import SECOND_NS, day_folder

PATIENCE_S = 20.0


def ago(seconds: float) -> int:
    return time.time_ns() - round(seconds * SECOND_NS)


class Watched:
    """A watch that is looked at by hand."""

    def __init__(self, *patterns: object, newest: int = 2) -> None:
        self.watch = FitsWatch([str(pattern) for pattern in patterns], newest)
        self.bells = 0
        self.look()

    def look(self) -> Snapshot:
        self.watch.rescan()
        for path in list(self.watch.folders):
            self.watch.relist(path)
        self.watch.look_at_growing()
        while self.watch.read(1.0):
            pass
        snapshot = self.watch.snapshot()
        self.bells += snapshot.new_losses
        return snapshot

    def folder(self, at: int = 0) -> FolderView:
        return self.look().folders[at]

    def names(self, at: int = 0) -> list[str]:
        return [view.facts.name for view in self.folder(at).files]

    def view(self, cube: Path) -> FileView:
        views = [view for folder in self.look().folders for view in folder.files]
        return next(view for view in views if view.facts.name == cube.name)


# -- folders ----------------------------------------------------------------------------------


def test_patterns_give_folders_in_order_each_once(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a3").touch()
    globs = [f"{tmp_path}/b/", f"{tmp_path}/a*", f"{tmp_path}/a1", f"{tmp_path}/none*"]
    assert [Path(path).name for path in FolderGlobs(globs).folders()] == ["b", "a1", "a2"]


def test_a_folder_of_that_very_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "x[1]").mkdir()
    (tmp_path / "x1").mkdir()
    assert FolderGlobs([f"{tmp_path}/x[1]"]).folders() == [f"{tmp_path}/x[1]"]


@pytest.mark.parametrize("pattern", ["", "[", "a\0b", "*\0", "**", "\udcff*"])
def test_no_pattern_makes_it_fail(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FolderGlobs([pattern]).folders()


def test_folders_of_the_next_utc_day_appear_by_themselves(tmp_path: Path) -> None:
    for name in ("20240613/vcam1", "20240614/vcam1", "20240614/vcam2"):
        (tmp_path / name).mkdir(parents=True)
    by_shell = FolderGlobs([f"{tmp_path}/20240613/vcam1"], today="20240613")
    by_pattern = FolderGlobs([f"{tmp_path}/20240613/vcam*"], today="20240613")
    of_an_earlier_day = FolderGlobs([f"{tmp_path}/20240613/vcam1"], today="20240614")
    first, *others = (f"{tmp_path}/2024061{name}" for name in ("3/vcam1", "4/vcam1", "4/vcam2"))
    assert by_shell.folders("20240613") == [first]
    assert by_shell.folders("20240614") == [first, others[0]]
    assert by_pattern.folders("20240614") == [first, *others]
    assert of_an_earlier_day.folders("20240615") == [first]


def test_folders_come_and_go_while_it_watches(tmp_path: Path) -> None:
    watched = Watched(f"{tmp_path}/*/vcam*")
    assert watched.look().folders == ()
    make_cube(tmp_path / "day" / "vcam1", "vcam1", Take(ago(10)))
    assert watched.folder().count == 1
    shutil.rmtree(tmp_path / "day")
    assert watched.look().folders == ()


# -- files ------------------------------------------------------------------------------------


def test_the_newest_come_first_and_the_others_are_counted(tmp_path: Path) -> None:
    cubes = [make_cube(tmp_path, "vcam1", Take(ago(100 - k))) for k in range(5)]
    watched = Watched(tmp_path, newest=3)
    assert watched.names() == [cube.name for cube in cubes[:1:-1]]
    assert watched.folder().count == 5
    assert watched.folder().total_bytes == sum(cube.stat().st_size for cube in cubes)


def test_a_loss_stays_in_sight_and_rings_once(tmp_path: Path) -> None:
    make_cube(tmp_path, "vcam1", Take(ago(100), lost={2: 5}))
    watched = Watched(tmp_path, newest=1)
    assert watched.bells == 0  # it was there before
    lossy = make_cube(tmp_path, "vcam1", Take(ago(50), lost={1: 2, 4: 1}, torn=1))
    assert watched.view(lossy).is_bad and watched.bells == 1
    newer = make_cube(tmp_path, "vcam1", Take(ago(30)))
    assert watched.names()[:2] == [newer.name, lossy.name]
    assert watched.bells == 1
    folder = watched.folder()
    assert (folder.bad_files, folder.lost) == (2, 8)


def test_bad_files_that_are_not_shown_are_counted(tmp_path: Path) -> None:
    for k in range(6):
        make_cube(tmp_path, "vcam1", Take(ago(100 - k), lost={2: 5}))
    make_cube(tmp_path, "vcam1", Take(ago(10)))
    folder = Watched(tmp_path, newest=1).folder()
    assert len(folder.files) == 3 and (folder.bad_files, folder.lost) == (6, 30)
    assert any("6 bad files, 30 frames lost" in line for line in shown(Snapshot((folder,))))


def test_a_half_written_file_is_not_judged_before_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_cube(tmp_path / "elsewhere", "vcam1", Take(ago(10))).read_bytes()
    folder = tmp_path / "vcam1"
    folder.mkdir()
    watched = Watched(folder)
    copied = folder / "copied.fits"
    for size in (0, 3000, len(whole) - 2880):
        copied.write_bytes(whole[:size])
        view = watched.view(copied)
        assert view.arrives and not view.is_bad
        assert any("being written" in line for line in shown(watched.look()))
    copied.write_bytes(whole)
    view = watched.view(copied)
    assert not view.arrives and not view.is_bad and watched.bells == 0
    copied.write_bytes(whole[:-2880])
    monkeypatch.setattr(fits_watch, "SETTLE_NS", 0)  # it does not grow any more
    assert watched.view(copied).is_bad and watched.bells == 1


def test_a_sidecar_that_comes_a_moment_after_its_cube_is_no_failure(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    cube = make_cube(tmp_path, "vcam1", Take(ago(1)), sidecar=False)
    os.utime(cube)
    assert not watched.view(cube).is_bad
    made = make_cube(tmp_path / "other", "vcam1", Take(watched.view(cube).facts.begin_ns))
    made.with_suffix(".txt").rename(cube.with_suffix(".txt"))
    deadline = time.monotonic() + PATIENCE_S
    while watched.view(cube).arrives:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not watched.view(cube).is_bad and watched.bells == 0


def test_a_file_that_was_mended_is_read_again(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(ago(100), lost={2: 5}))
    watched = Watched(tmp_path)
    assert watched.view(cube).is_bad
    mended = make_cube(tmp_path / "mended", "vcam1", Take(ago(90)))
    mended.rename(cube)
    sidecar = mended.with_suffix(".txt")
    sidecar.rename(cube.with_suffix(".txt"))
    assert not watched.view(cube).is_bad and watched.folder().bad_files == 0


# -- the other camera -------------------------------------------------------------------------


def test_a_cube_without_a_partner_is_told(tmp_path: Path) -> None:
    one, two = tmp_path / "vcam1", tmp_path / "vcam2"
    cubes = {}
    for k in range(4):
        for folder in (one, two):
            if (k, folder) != (2, two):
                take = Take(ago(200 - 10 * k), 500, rate_hz=50.0)
                cubes[k, folder] = make_cube(folder, folder.name, take)
    watched = Watched(one, two, newest=4)
    assert watched.view(cubes[2, one]).partner == "vcam2"
    others = [watched.view(cube).partner for at, cube in cubes.items() if at != (2, one)]
    assert others == [""] * 6
    assert any("no vcam2 cube of this time" in line for line in shown(watched.look()))


def test_a_camera_that_is_not_watched_owes_nothing(tmp_path: Path) -> None:
    cube = make_cube(tmp_path / "vcam1", "vcam1", Take(ago(1000)))
    assert Watched(tmp_path / "vcam1").view(cube).partner == ""
    (tmp_path / "vcam2").mkdir()
    assert Watched(tmp_path / "vcam?").view(cube).partner == "vcam2"


def test_a_partner_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    take = Take(ago(100), 50, rate_hz=50.0)
    cube = make_cube(tmp_path / "vcam1", "vcam1", take)
    make_cube(tmp_path / "vcam2", "vcam2", Take(ago(200), 50, rate_hz=50.0))
    with growing(tmp_path / "vcam2", "vcam2", Take(ago(101), 5000, rate_hz=50.0), 40):
        assert Watched(tmp_path / "vcam*").view(cube).partner == ""
    assert Watched(tmp_path / "vcam*").view(cube).partner == "vcam2"


# -- what grows -------------------------------------------------------------------------------


class growing:  # noqa: N801 - used as a function
    """A cube that this process writes: locked, as a logger does."""

    def __init__(self, folder: Path, stream: str, take: Take, frames: int) -> None:
        self.take = take
        self.journal = make_growing(folder, stream, take, frames, os.getpid())
        self.cube = self.journal.with_suffix(".cube")

    def grow(self, frames: int) -> None:
        self.journal.write_bytes(self.take.rows[:frames].tobytes())

    def __enter__(self) -> growing:
        self._file = self.cube.open("rb")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self.cube.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


def test_a_cube_being_written_shows_how_far_it_is_and_how_fast(tmp_path: Path) -> None:
    take = Take(ago(4), 500, (64, 64), rate_hz=50.0)
    with growing(tmp_path, "vcam1", take, 100) as cube:
        watched = Watched(tmp_path)
        (grown,) = watched.folder().growing
        assert (grown.frames, grown.planned, grown.is_left) == (100, 500, False)
        assert 15 < grown.rate_hz < 30  # since its first frame
        cube.grow(250)
        (grown,) = watched.folder().growing
        assert grown.frames == 250
        lines = shown(watched.look())
        assert any("being written: 250 of 500 frames (50%)" in line for line in lines)
        assert watched.folder().count == 0
    assert watched.folder().growing == ()


def test_the_cube_of_a_dead_logger_is_to_be_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing_room, "STALE_S", 0.0)
    make_growing(tmp_path, "vcam1", Take(ago(1000), 500), 100, 2**22 + 1)
    (left,) = Watched(tmp_path).folder().growing
    assert left.is_left and left.frames == 100
    text = "100 frames, its logger died: vampires-recover"
    assert any(text in line for line in shown(looked(tmp_path)))


def test_a_file_that_is_overdue_is_told(tmp_path: Path) -> None:
    for k in range(4):
        make_cube(tmp_path, "vcam1", Take(ago(200 - 10 * k), 500, rate_hz=50.0))
    assert Watched(tmp_path).folder().age_s == 0  # nobody writes
    with growing(tmp_path, "vcam1", Take(ago(2), 5000, rate_hz=50.0), 10):
        assert Watched(tmp_path).folder().age_s == 0  # has just begun
    with growing(tmp_path, "vcam1", Take(ago(150), 50_000, rate_hz=50.0), 10):
        folder = Watched(tmp_path).folder()
        assert 155 < folder.age_s < 200 and folder.usual_s == pytest.approx(10, abs=0.5)
        assert any("no new file for" in line for line in shown(looked(tmp_path)))


@pytest.mark.parametrize(
    ("free_s", "level"),
    [(4000, RoomLevel.OK), (1000, RoomLevel.LOW), (100, RoomLevel.ALARM)],
)
def test_the_disk_is_told_of_when_it_will_soon_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_s: float, level: RoomLevel
) -> None:
    take = Take(ago(4), 500, (64, 64), rate_hz=50.0)
    with growing(tmp_path, "vcam1", take, 200):
        speed = 50 * 64 * 64 * 2
        room = DiskRoom(round(free_s * speed), 10**15, read_only=False)
        monkeypatch.setattr(growing_room, "disk_room", lambda path: room)
        snapshot = Watched(tmp_path).look()
        (disk,) = snapshot.disks
        assert disk.bytes_per_s == pytest.approx(speed, rel=0.2)
        assert disk.level is level
        said = [line for line in shown(snapshot) if "full in" in line]
        assert bool(said) is (level is not RoomLevel.OK)


def test_what_all_cameras_write_to_a_disk_counts_together(tmp_path: Path) -> None:
    take = Take(ago(4), 500, (64, 64), rate_hz=50.0)
    with (
        growing(tmp_path / "vcam1", "vcam1", take, 200),
        growing(tmp_path / "vcam2", "vcam2", take, 200),
    ):
        (disk,) = Watched(tmp_path / "vcam*").look().disks
        assert disk.bytes_per_s == pytest.approx(2 * 50 * 64 * 64 * 2, rel=0.2)


def test_a_disk_that_cannot_be_asked_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: object) -> DiskRoom:
        raise OSError(5, "Input/output error")

    assert rooms.disk_room(tmp_path).total_bytes > 0
    monkeypatch.setattr(growing_room, "disk_room", gone)
    assert Watched(tmp_path).look().disks == ()


# -- the thread -------------------------------------------------------------------------------


@pytest.fixture
def watcher() -> Iterator[Callable[..., Callable[[Callable[[Snapshot], Any]], Snapshot]]]:
    """watcher(pattern, ..., poll_s=None) -> wait(condition) -> a snapshot that meets it."""
    started: list[Watcher] = []

    def start(*patterns: object, poll_s: float | None = None) -> Callable[..., Snapshot]:
        seen: list[Snapshot] = []
        watch = FitsWatch([str(pattern) for pattern in patterns])
        started.append(Watcher(watch, seen.append, poll_s))
        started[-1].start()

        def wait(condition: Callable[[Snapshot], Any]) -> Snapshot:
            deadline = time.monotonic() + PATIENCE_S
            while not (seen and condition(seen[-1])):
                assert time.monotonic() < deadline and started[-1].failure is None
                time.sleep(0.01)
            return seen[-1]

        return wait

    yield start
    for one in started:
        one.close()
        assert one.failure is None


@pytest.mark.parametrize("poll_s", [None, 0.1])
def test_it_sees_what_comes_changes_and_goes(
    tmp_path: Path, watcher: Any, poll_s: float | None
) -> None:
    wait = watcher(f"{tmp_path}/*/vcam*", poll_s=poll_s)
    wait(lambda seen: seen.missing)
    folder = tmp_path / "20240613" / "vcam1"
    first = make_cube(folder, "vcam1", Take(ago(20)))
    wait(lambda seen: seen.folders and seen.folders[0].count == 1)
    second = make_cube(folder, "vcam1", Take(ago(10)))
    seen = wait(lambda seen: seen.folders[0].count == 2)
    assert [view.facts.name for view in seen.folders[0].files] == [second.name, first.name]
    second.unlink()
    wait(lambda seen: seen.folders[0].count == 1)
    with growing(folder, "vcam1", Take(ago(5), 100), 10):
        wait(lambda seen: seen.folders[0].growing)
    wait(lambda seen: not seen.folders[0].growing)
    folder.rename(tmp_path / "20240613" / "aside")
    wait(lambda seen: seen.missing)
    (tmp_path / "20240613" / "aside").rename(folder)
    make_cube(folder, "vcam1", Take(ago(1)))
    wait(lambda seen: seen.folders and seen.folders[0].count == 2)


def test_the_kernel_tells_of_changes_before_anybody_looks(
    tmp_path: Path, watcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits_watcher, "RELIST_S", 10 * PATIENCE_S)
    wait = watcher(tmp_path)
    wait(lambda seen: seen.folders)
    cube = make_cube(tmp_path, "vcam1", Take(ago(1)))
    wait(lambda seen: seen.folders[0].count == 1)
    cube.unlink()
    wait(lambda seen: seen.folders[0].count == 0)


def test_more_changes_than_the_kernel_keeps_are_all_seen(tmp_path: Path, watcher: Any) -> None:
    wait = watcher(tmp_path)
    wait(lambda seen: seen.folders)
    for _ in range(20):
        for k in range(300):
            (tmp_path / f"{k}.fits").touch()
            if k % 2:
                (tmp_path / f"{k}.fits").unlink()
    wait(lambda seen: seen.folders[0].count == 150)


def test_folders_of_today_are_todays(tmp_path: Path) -> None:
    (tmp_path / day_folder(time.time_ns())).mkdir()
    assert len(FolderGlobs([f"{tmp_path}/{day_folder(time.time_ns())}"]).folders()) == 1
