"""What a dead logger left becomes a cube like any other, with every frame that reached the
disk; and whatever ends the recovery, it can be done again."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
from cube_checks import check_cubes, hidden_files, raw_header
from partial_cube_files import DEAD_PID, FINAL, FIRST_NS, PLANNED, Killed, Leftover, recovered

from vampires import recovery
from vampires.partial_cubes import CubeInUse, lock_cube, partial_cubes
from vampires.recovery import plan_recovery, recover, remove
from vampires.sidecar import sidecar_text


@pytest.mark.parametrize("frames", [1, 7, PLANNED])
@pytest.mark.parametrize("acquired", [True, False], ids=["acquisition", "logger"])
def test_every_frame_with_a_row_is_recovered(tmp_path, frames, acquired):
    cube = recovered(Leftover(tmp_path, frames, acquired=acquired), frames)
    assert cube.path.name == FINAL
    assert cube.reason == "its logger ended without finishing it"
    assert cube.number("NLOSTEND") == 0


def test_what_will_be_done_is_known_before_and_changes_nothing(tmp_path):
    leftover = Leftover(tmp_path)
    before = {path: path.read_bytes() for path in leftover.names if path.exists()}
    plan = plan_recovery(leftover.partial)
    assert (plan.action, plan.frames, plan.bytes) == ("recover", 7, 7 * leftover.frame_bytes)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_cube_cut_in_mid_frame_keeps_the_whole_ones(tmp_path):
    leftover = Leftover(tmp_path)
    leftover.cut(len(leftover.header) + 4 * leftover.frame_bytes + 5)
    cube = recovered(leftover, 4)
    assert "3 rows of the journal had no whole frame" in cube.history
    assert cube.number("NLOST") == cube.number("NLOSTEND") == 3


@pytest.mark.parametrize("torn", [1, 55])
def test_a_torn_last_row_is_no_row(tmp_path, torn):
    leftover = Leftover(tmp_path, frames=6, rows=5)
    with leftover.names.frames.open("ab") as journal:
        journal.write(leftover.rows[5:6].tobytes()[:torn])
    cube = recovered(leftover, 5)
    assert "1 whole frames had no row" in cube.history
    assert cube.number("NLOST") == cube.number("NLOSTEND") == 1


@pytest.mark.parametrize("garbage", [bytes(56 * 3), b"\xff" * 56], ids=["zeros", "ones"])
def test_rows_that_a_crash_filled_with_garbage_are_none(tmp_path, garbage):
    leftover = Leftover(tmp_path, frames=9, rows=6)
    with leftover.names.frames.open("ab") as journal:
        journal.write(garbage)
    cube = recovered(leftover, 6)
    assert "3 whole frames had no row" in cube.history


def test_a_longer_journal_counts_as_far_as_there_are_frames(tmp_path):
    cube = recovered(Leftover(tmp_path, frames=3, rows=PLANNED), 3)
    assert f"{PLANNED - 3} rows of the journal" in cube.history


def test_the_zeros_behind_the_last_frame_are_no_frames(tmp_path):
    leftover = Leftover(tmp_path)
    leftover.append(bytes(4 * leftover.frame_bytes))
    assert "no row" not in recovered(leftover, 7).history


@pytest.mark.parametrize("rows", [None, 0, 2], ids=["no journal", "no row", "few rows"])
def test_frames_without_rows_are_recovered_on_demand_without_times(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(recovery, "LARGEST_WRITE_BYTES", 100)
    leftover = Leftover(tmp_path, frames=7, rows=rows or 0)
    if rows is None:
        leftover.names.frames.unlink()
    plan = plan_recovery(leftover.partial)
    assert (plan.action, plan.frames) == ("untimed", 7)
    with pytest.raises(ValueError, match="--without-times"):
        recover(leftover.partial)
    check_untimed(leftover, recover(leftover.partial, without_times=True), rows or 0)


def test_frames_without_times_are_told_of_also_by_a_second_try(tmp_path, monkeypatch):
    def killed(*args):
        raise Killed

    leftover = Leftover(tmp_path, frames=7, rows=4)
    monkeypatch.setattr(recovery, "_finish", killed)
    with pytest.raises(Killed):
        recover(leftover.partial, without_times=True)
    monkeypatch.undo()
    check_untimed(leftover, recover(leftover.partial), 4)


def check_untimed(leftover: Leftover, file: Path, rows: int) -> None:
    """7 frames, all their pixels and counters, and the times of the first `rows` and of the
    first frame."""
    table = read_table(file)
    assert table["CNT0"].tolist() == leftover.rows["CNT0"][:7].tolist()
    assert table[:rows].tobytes() == leftover.rows[:rows].tobytes()
    assert table["TACQ"][0] == FIRST_NS
    assert not table["TACQ"][max(rows, 1) :].any()
    cards, history = raw_header(file.read_bytes())
    assert cards["NAXIS3"] == "7"
    assert f"{7 - rows} frames had no row" in history
    raw = file.read_bytes()[len(leftover.header) :]
    assert raw.startswith(leftover.pixels(7))


def read_table(file: Path) -> np.ndarray:
    from astropy.io import fits

    with fits.open(file, checksum=True) as hdus:
        assert all(hdu.verify_checksum() == 1 == hdu.verify_datasum() for hdu in hdus)
        return np.array(hdus["FRAMES"].data)


# Nothing to recover


@pytest.mark.parametrize("size", [0, 79, 2880, -1, None], ids=str)
def test_a_cube_without_a_frame_goes_only_on_demand(tmp_path, size):
    leftover = Leftover(tmp_path, frames=0)
    if size is not None:
        leftover.cut(size if size >= 0 else len(leftover.header) - 1)
    plan = plan_recovery(leftover.partial)
    assert plan.action == "empty"
    with pytest.raises(ValueError, match=r"no frame|header"):
        recover(leftover.partial)
    assert leftover.names.cube.exists()
    remove(plan)
    assert not list(tmp_path.iterdir())


def test_a_cube_with_frames_is_never_removed(tmp_path):
    leftover = Leftover(tmp_path, frames=0)
    plan = plan_recovery(leftover.partial)
    leftover.append(leftover.pixels(2))
    leftover.write_rows(2)
    with pytest.raises(CubeInUse):
        remove(plan)
    with pytest.raises(ValueError, match="holds frames"):
        remove(plan_recovery(leftover.partial))
    recovered(leftover, 2)


@pytest.mark.parametrize("raw", [b"\xff" * 9000, b"SIMPLE  =" + b"x" * (5 << 20), bytes(9000)])
def test_what_is_no_cube_is_left_alone(tmp_path, raw):
    leftover = Leftover(tmp_path)
    leftover.names.cube.write_bytes(raw)
    assert plan_recovery(leftover.partial).action == "damaged"
    with pytest.raises(ValueError, match="header"):
        recover(leftover.partial)
    assert leftover.names.cube.read_bytes() == raw


def test_what_is_not_a_file_is_not_looked_at(tmp_path):
    leftover = Leftover(tmp_path / "real")
    name = leftover.names.cube.name
    other = tmp_path / "other"
    (other / f"{name}.x").mkdir(parents=True)
    os.mkfifo(other / name)
    (other / leftover.names.frames.name).symlink_to(leftover.names.frames)
    (other / leftover.names.sidecar.name).mkdir()
    assert partial_cubes(other) == []


# Somebody is at work


def test_a_cube_under_a_lock_is_being_written_and_left_alone(tmp_path):
    leftover = Leftover(tmp_path)
    fd = lock_cube(leftover.names.cube)
    try:
        assert leftover.partial.state == "writing"
        assert plan_recovery(leftover.partial).action == "writing"
        with pytest.raises(CubeInUse):
            recover(leftover.partial)
    finally:
        os.close(fd)
    recovered(leftover, 7)


def test_a_process_with_the_id_of_a_dead_logger_is_no_logger(tmp_path):
    leftover = Leftover(tmp_path, pid=os.getpid())
    assert leftover.partial.state == "left"
    recovered(leftover, 7)


def test_a_cube_that_was_only_just_made_is_being_written(tmp_path):
    leftover = Leftover(tmp_path, pid=os.getpid())
    leftover.cut(0)
    assert leftover.partial.state == "writing"


def test_without_locks_the_process_id_decides(tmp_path, monkeypatch):
    def refused(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    leftover = Leftover(tmp_path, pid=os.getpid())
    other = Leftover(tmp_path / "other")
    monkeypatch.setattr(fcntl, "flock", refused)
    assert (leftover.partial.state, other.partial.state) == ("writing", "left")


# Names


def test_names_that_are_taken_are_never_taken_again(tmp_path):
    first, second = Leftover(tmp_path / "1"), Leftover(tmp_path / "2", frames=5)
    taken = {FINAL: b"a cube", "cam1_12:00:00.123456790.txt": b"a sidecar"}
    folder = first.folder
    for name, content in taken.items():
        (folder / name).write_bytes(content)
    for path in second.names:
        if path.exists():
            path.rename(folder / path.name.replace(str(DEAD_PID), str(DEAD_PID + 1)))
    files = [recover(partial) for partial in partial_cubes(folder)]
    cubes = [check_cubes([file], first.pool)[0] for file in files]
    assert [len(cube.rows) for cube in cubes] == [7, 5]
    assert [cube.path.name[-8:-5] for cube in cubes] == ["791", "792"]
    for name, content in taken.items():
        assert (folder / name).read_bytes() == content


def test_the_frames_of_a_compressed_cube_do_not_get_its_name(tmp_path):
    leftover = Leftover(tmp_path)
    (tmp_path / f"{FINAL}.fz").write_bytes(b"compressed")
    assert recovered(leftover, 7).path.name == "cam1_12:00:00.123456790.fits"


# The logger was near its end


@pytest.mark.parametrize("behind", [0, 100, 9000])
def test_what_the_logger_knew_at_the_end_of_a_cube_stays(tmp_path, behind):
    """It was killed while it finished the file: the table is not there, or half of it."""
    leftover = Leftover(tmp_path)
    leftover.append(b"x" * behind)
    leftover.write_final_header(7, lost_at_end=3, n_torn=2, end_reason="stop")
    cube = recovered(leftover, 7)
    assert (cube.number("NLOSTEND"), cube.number("NTORN"), cube.reason) == (3, 2, "stop")


def test_rows_of_frames_that_a_cube_gave_up_for_its_table_stay_out(tmp_path):
    leftover = Leftover(tmp_path)
    leftover.write_final_header(5, end_reason="stop")
    cube = recovered(leftover, 5)
    assert cube.reason == "stop"


def test_a_sidecar_of_other_frames_is_not_taken_over(tmp_path):
    leftover = Leftover(tmp_path)
    stray = tmp_path / FINAL.replace(".fits", ".txt")
    stray.write_bytes(sidecar_text("cam1", leftover.rows[:3]))
    cube = recovered(leftover, 7)
    assert cube.path.name == "cam1_12:00:00.123456790.fits"
    assert stray.exists()


def test_a_journal_whose_cube_got_its_name_goes(tmp_path):
    leftover = Leftover(tmp_path)
    recovered(leftover, 7)
    leftover.write_rows(7)
    plan = plan_recovery(leftover.partial)
    assert (plan.action, Path(plan.reason).name) == ("leftover", FINAL)
    remove(plan)
    assert not hidden_files(tmp_path)


def test_a_journal_whose_cube_is_nowhere_stays(tmp_path):
    leftover = Leftover(tmp_path)
    leftover.names.cube.unlink()
    assert plan_recovery(leftover.partial).action == "empty"


def test_a_disk_without_room_for_the_table_keeps_the_frames(tmp_path, monkeypatch):
    leftover = Leftover(tmp_path)
    real = os.pwrite

    def full(fd, content, offset):
        if offset == 0:
            return real(fd, content, offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        recover(leftover.partial)
    monkeypatch.undo()
    size = leftover.names.cube.stat().st_size
    assert size == len(leftover.header) + 7 * leftover.frame_bytes
    recovered(leftover, 7)


def test_a_header_without_a_blank_card_gives_up_its_commentary(tmp_path):
    leftover = Leftover(tmp_path)
    header = leftover.header.rstrip()[:-3].rstrip()
    room = len(leftover.header) - 80 - (-(-len(header) // 80) * 80)
    filled = header.ljust(-(-len(header) // 80) * 80)
    filled += b"".join(b"COMMENT %-72d" % k for k in range(room // 80)) + b"END".ljust(80)
    with leftover.names.cube.open("r+b") as file:
        file.write(filled)
    recovered(leftover, 7)


# The day of a cube


@pytest.mark.parametrize("place", ["20261122/cam1", "any"])
def test_the_day_comes_from_the_header_the_folder_or_the_file(tmp_path, place):
    leftover = Leftover(tmp_path / place)
    os.utime(leftover.names.frames, ns=(FIRST_NS, FIRST_NS + 10**9))
    if place != "any":
        os.utime(leftover.names.frames, ns=(0, 10**18))
    assert leftover.partial.first_ns == FIRST_NS
    leftover.names.cube.unlink()
    assert leftover.partial.first_ns == FIRST_NS
