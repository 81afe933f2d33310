"""vampires-archive among faults: an original is never lost, a half file never has a name."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_files import (
    check_archived,
    check_sums,
    content,
    half_files,
    night,
    result_of,
    stand_in,
    wait_for,
    waiting_fpack,
)
from pixel_cubes import pixel_cube, some_pixels
from small_disks import memory_disks

from vampires.archive import LOCK, FolderBusy, locked, remove_leftovers
from vampires.archive_manifest import NAME, read_manifest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    with memory_disks(tmp_path / "disk") as mount:
        yield mount


def left(result: dict) -> dict[str, str]:
    return {Path(one["file"]).name: one["fault"] for one in result["left"]}


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


# Cubes that are not good


def test_cubes_that_do_not_verify_are_left_alone_and_named(tmp_path, run_command):
    good, flipped, cut, torn_off = night(tmp_path)
    raw = bytearray(flipped.read_bytes())
    raw[-20_000] ^= 1
    flipped.write_bytes(raw)
    os.truncate(cut, cut.stat().st_size // 2)
    torn_off.with_suffix(".txt").write_text("# no rows\n")
    (tmp_path / "text.fits").write_text("no FITS\n")
    (tmp_path / "nothing.fits").touch()
    (tmp_path / "link.fits").symlink_to("nowhere")
    (tmp_path / "folder.fits").mkdir()
    before = content(tmp_path)
    result = result_of(run_command("archive", tmp_path, "--delete", "--json"), 1)
    named = left(result)
    for bad in (flipped, cut, torn_off, tmp_path / "text.fits", tmp_path / "nothing.fits"):
        assert bad.name in named
        assert before[str(bad.relative_to(tmp_path))] == bad.read_bytes()
    assert "link.fits" in named and "folder.fits" not in named
    assert not good.exists() and len(list(tmp_path.rglob("*.fz"))) == 1


@pytest.mark.parametrize("program", ["fpack", "funpack"])
def test_a_packing_that_went_wrong_is_not_accepted(tmp_path, run_command, program):
    cube = pixel_cube(tmp_path / "data", some_pixels(5, (40, 50)))
    before = content(tmp_path / "data")
    # one byte of the pixels becomes another
    script = (
        '"$REAL" "$@" || exit $?\nout="${@: -2:1}"\nsize=$(stat -c %s "$out")\n'
        "printf '\\x55\\xaa\\x55' |"
        ' dd of="$out" bs=1 seek=$((size / 2)) conv=notrunc status=none'
    )
    environment = stand_in(tmp_path / "bin", program, script)
    ran = run_command("archive", tmp_path / "data", "--delete", "--json", env=environment)
    assert cube.name in left(result_of(ran, 1))
    assert content(tmp_path / "data") == before


def test_an_archive_that_reads_back_wrong_keeps_the_original(tmp_path, run_command):
    cubes = night(tmp_path, 1)
    result_of(run_command("archive", tmp_path, "--json"))
    archive = cubes[0].with_name(cubes[0].name + ".fz")
    status, raw = archive.stat(), bytearray(archive.read_bytes())
    raw[-3000] ^= 1
    archive.write_bytes(raw)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a disk does it
    result = result_of(run_command("archive", tmp_path, "--delete", "--json"), 1)
    assert "does not read back" in left(result)[cubes[0].name]
    assert cubes[0].exists() and not cubes[1].exists()


# What changed


def test_what_changed_since_is_told_and_left_alone(tmp_path, run_command):
    first, second, third, fourth = night(tmp_path)
    result_of(run_command("archive", tmp_path, "--json"))
    archives = {cube: cube.with_name(cube.name + ".fz") for cube in (first, second, third)}
    shutil.copy(second, first)  # another original
    archives[second].write_bytes(archives[third].read_bytes())  # another archive
    archives[third].unlink()  # none any more
    os.utime(fourth)  # touched only
    result = result_of(run_command("archive", tmp_path, "--delete", "--json"), 1)
    assert "changed after it was archived" in left(result)[first.name]
    assert "no longer what its manifest says" in left(result)[second.name]
    assert [entry["original"] for entry in result["packed"]] == [third.name]
    assert first.exists() and second.exists() and not third.exists() and not fourth.exists()


def test_an_archive_of_another_program_is_not_replaced(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    theirs = cube.with_name(cube.name + ".fz")
    theirs.write_text("mine")
    result = result_of(run_command("archive", tmp_path, "--delete", "--json"), 1)
    assert "is there already" in left(result)[cube.name]
    assert theirs.read_text() == "mine" and cube.exists()


def test_an_equal_archive_without_a_manifest_is_taken_as_it_is(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    result_of(run_command("archive", tmp_path, "--json"))
    (tmp_path / NAME).unlink()
    archive = cube.with_name(cube.name + ".fz")
    inode = archive.stat().st_ino
    result_of(run_command("archive", tmp_path, "--json"))
    assert archive.stat().st_ino == inode and check_sums(tmp_path) == 2


def test_a_sidecar_that_differs_is_not_replaced(tmp_path, run_command):
    cube = pixel_cube(tmp_path / "data", some_pixels())
    other = tmp_path / "kept" / cube.with_suffix(".txt").name
    other.parent.mkdir()
    other.write_text("mine")
    place = ("--to", tmp_path / "kept", "--delete", "--json")
    result = result_of(run_command("archive", tmp_path / "data", *place), 1)
    assert "differs" in left(result)[cube.name]
    assert other.read_text() == "mine" and cube.exists()


def test_a_cube_that_vanishes_or_changes_meanwhile_is_told(tmp_path, start_command):
    for change in ("vanishes", "changes"):
        root = tmp_path / change
        (cube,) = [c for c in night(root / "data", 1) if c.name.startswith("vcam1")]
        environment = waiting_fpack(root / "bin")
        process = start_command("archive", cube.parent, "--delete", "--json", env=environment)
        wait_for(root / "bin" / "packed")
        if change == "vanishes":
            cube.rename(root / "elsewhere")
        else:
            os.utime(cube, ns=(1, 1))
        (root / "bin" / "go").touch()
        named = left(result_of(finished(process), 1))[cube.name]
        assert ("vanished" if change == "vanishes" else "changed") in named
        assert not list(root.rglob("*.fz")) and half_files(root / "data") == []


# Ends


def test_ctrl_c_ends_it_cleanly_and_it_goes_on_later(tmp_path, start_command, run_command):
    cubes = night(tmp_path / "data")
    environment = waiting_fpack(tmp_path / "bin")
    process = start_command(
        "archive", tmp_path / "data", "--jobs", 2, env=environment, start_new_session=True
    )
    wait_for(tmp_path / "bin" / "packed")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: everybody
    ran = finished(process)
    assert ran.returncode == 130 and ran.stderr == "" and "start it again" in ran.stdout
    assert half_files(tmp_path / "data") == [] and not list(tmp_path.rglob("*.fz"))
    (tmp_path / "bin" / "go").touch()
    result = result_of(run_command("archive", tmp_path / "data", "--json", env=environment))
    assert len(result["packed"]) == len(cubes)


def test_killed_at_any_moment_nothing_is_lost_and_it_goes_on(
    tmp_path, start_command, run_command
):
    cubes = night(tmp_path / "data", 3)
    originals = {cube: cube.read_bytes() for cube in cubes}
    sidecars = {cube: cube.with_suffix(".txt").read_bytes() for cube in cubes}
    place = (tmp_path / "data", "--to", tmp_path / "kept", "--delete", "--json")
    moments = random.Random(5)
    for _ in range(8):
        process = start_command("archive", *place)
        time.sleep(moments.uniform(0.2, 1.2))  # the moment of the kill, not a wait
        process.kill()
        process.wait()
        for cube in cubes:
            where = tmp_path / "kept" / cube.parent.relative_to(tmp_path / "data")
            if not cube.exists():
                check_archived(originals[cube], where / f"{cube.name}.fz", sidecars[cube])
        for name in half_files(tmp_path):
            assert name == LOCK or (name.startswith(".") and ".fits" not in name)
    result_of(run_command("archive", *place))
    assert half_files(tmp_path) == []
    for cube in cubes:
        where = tmp_path / "kept" / cube.parent.relative_to(tmp_path / "data")
        check_archived(originals[cube], where / f"{cube.name}.fz", sidecars[cube])
        check_sums(where)
        assert not cube.exists()


def test_what_was_half_written_when_it_was_killed_is_cleaned_up(
    tmp_path, start_command, run_command
):
    cube = pixel_cube(tmp_path / "data", some_pixels())
    environment = waiting_fpack(tmp_path / "bin")
    process = start_command("archive", tmp_path / "data", env=environment)
    wait_for(tmp_path / "bin" / "packed")
    process.kill()
    process.wait()
    hidden = [name for name in half_files(tmp_path / "data") if name != LOCK]
    assert len(hidden) == 1 and ".fits" not in hidden[0]
    (tmp_path / "bin" / "go").touch()
    result_of(run_command("archive", tmp_path / "data", "--json"))
    assert half_files(tmp_path / "data") == []
    check_archived(cube.read_bytes(), cube.with_name(cube.name + ".fz"), None)


def test_only_hidden_files_of_its_own_are_cleaned_up(tmp_path):
    others = [
        ".vcam1_00:00:00.1.77.cube",
        ".archive-notes",
        ".new-h-1-2.part",
        "archive-h-1-2.part",
    ]
    for name in [*others, ".archive-scexao5-12-0.part", ".archive-scexao5-12-1.partTmp2"]:
        (tmp_path / name).touch()
    (tmp_path / ".archive-folder-1-2.part").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, ".archive-folder-1-2.part"])


# Two at once


def test_two_archives_of_a_folder_do_not_work_at_once(tmp_path, start_command, run_command):
    (cube,) = [c for c in night(tmp_path / "data", 1) if c.name.startswith("vcam1")]
    environment = waiting_fpack(tmp_path / "bin")
    first = start_command("archive", cube.parent, "--json", env=environment)
    wait_for(tmp_path / "bin" / "packed")
    second = result_of(run_command("archive", tmp_path / "data", "--json"), 1)
    assert "another vampires-archive" in left(second)[cube.name]
    assert len(second["packed"]) == 1  # the other camera
    (tmp_path / "bin" / "go").touch()
    assert len(result_of(finished(first))["packed"]) == 1
    assert half_files(tmp_path / "data") == []


def test_a_lock_is_one_whatever_happens_to_its_file(tmp_path):
    held, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal held, most
        for _ in range(200):
            try:
                with locked(tmp_path):
                    with guard:
                        held += 1
                        most = max(most, held)
                    with guard:
                        held -= 1
            except FolderBusy:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and os.listdir(tmp_path) == []


# Disks


def test_a_full_disk_keeps_the_originals_and_can_be_gone_on_with(
    tmp_path, run_command, small_disk
):
    disk = small_disk("size=600k")
    cubes = night(tmp_path / "data", 2, frames=10, shape=(100, 100))
    place = (tmp_path / "data", "--to", disk / "kept", "--delete", "--json")
    before = content(tmp_path / "data")
    result = result_of(run_command("archive", *place), 1)
    assert any("room" in fault or "No space" in fault for fault in left(result).values())
    assert half_files(disk) == []
    survivors = content(tmp_path / "data")
    for cube in cubes:
        if cube.name in left(result):
            name = str(cube.relative_to(tmp_path / "data"))
            assert survivors[name] == before[name]
        else:
            assert not cube.exists()
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    result = result_of(run_command("archive", *place))
    assert not any(cube.exists() for cube in cubes)
    assert {check_sums(folder) for folder in (disk / "kept" / "20240613").iterdir()} == {4}


def test_a_read_only_disk_is_told(tmp_path, run_command, small_disk):
    disk = small_disk("size=1m")
    cubes = night(tmp_path / "data", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    place = (tmp_path / "data", "--to", disk / "kept", "--delete", "--json")
    result = result_of(run_command("archive", *place), 1)
    assert {"Read-only file system" in fault for fault in left(result).values()} == {True}
    assert all(cube.exists() for cube in cubes)


def test_the_manifest_of_the_source_disk_is_read_when_that_is_read_only(
    tmp_path, run_command, small_disk
):
    disk = small_disk("size=5m")
    cubes = night(disk / "data", 1)
    result_of(run_command("archive", disk / "data", "--json"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    result = result_of(run_command("archive", disk / "data", "--json"))
    assert len(result["already"]) == len(cubes)
    ran = run_command("archive", disk / "data", "--delete", "--json")
    assert len(left(result_of(ran, 1))) == len(cubes)


def test_a_worker_that_is_killed_is_told_and_the_cube_stays(tmp_path, run_command):
    cube = pixel_cube(tmp_path / "data", some_pixels())
    environment = stand_in(tmp_path / "bin", "fpack", "kill -9 $PPID\nsleep 1")
    ran = run_command("archive", tmp_path / "data", "--delete", "--json", env=environment)
    result = json.loads(ran.stdout)
    assert ran.returncode == 1 and cube.name in left(result) and cube.exists()
    assert read_manifest(tmp_path / "data") == {}
    result_of(run_command("archive", tmp_path / "data", "--json"))
    assert half_files(tmp_path / "data") == []
