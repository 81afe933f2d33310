"""vampires-archive: what it makes is proven by other programs, done once, and removed last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from archive_files import (
    ARCHIVE,
    check_archived,
    check_sums,
    content,
    half_files,
    night,
    result_of,
)
from fps_terminal import terminal
from pixel_cubes import FIRST_NS, pixel_cube, some_pixels

from vampires.archive_manifest import NAME, ManifestInvalid, read_manifest
from vampires.cube_pixels import CubePixels
from vampires.times import SECOND_NS


def names(found: list[Path] | list[str]) -> list[str]:
    return sorted(Path(one).name for one in found)


def test_every_cube_is_packed_checked_and_listed_beside_itself(tmp_path, run_command):
    cubes = night(tmp_path / "data")
    before = content(tmp_path)
    result = result_of(run_command("archive", tmp_path / "data", "--json"))
    assert len(result["packed"]) == 4 and result["left"] == result["removed"] == []
    for cube in cubes:
        sidecar = cube.with_suffix(".txt").read_bytes()
        check_archived(cube.read_bytes(), cube.with_name(cube.name + ".fz"), sidecar)
    for folder in {cube.parent for cube in cubes}:
        assert check_sums(folder) == 4  # two archives, two sidecars
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    assert half_files(tmp_path) == []
    assert result["bytes_in"] == sum(cube.stat().st_size for cube in cubes)


def test_what_is_done_is_not_done_again(tmp_path, run_command):
    night(tmp_path)
    result_of(run_command("archive", tmp_path, "--json"))
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.fz")}
    result = result_of(run_command("archive", tmp_path, "--json"))
    assert result["packed"] == [] and len(result["already"]) == 4
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*.fz")} == before
    new = pixel_cube(tmp_path / "20240613/vcam1", some_pixels(), first_ns=FIRST_NS - SECOND_NS)
    result = result_of(run_command("archive", tmp_path, "--json"))
    assert names([entry["original"] for entry in result["packed"]]) == [new.name]
    assert check_sums(new.parent) == 6


def test_the_archive_elsewhere_has_the_same_folders_and_the_sidecars(tmp_path, run_command):
    cubes = night(tmp_path / "data")
    before = content(tmp_path / "data")
    result_of(run_command("archive", tmp_path / "data", "--to", tmp_path / "kept", "--json"))
    assert content(tmp_path / "data") == before
    for cube in cubes:
        place = tmp_path / "kept" / cube.parent.relative_to(tmp_path / "data")
        sidecar = cube.with_suffix(".txt").read_bytes()
        check_archived(cube.read_bytes(), place / f"{cube.name}.fz", sidecar)
        check_sums(place)
    assert half_files(tmp_path) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_originals_are_removed_only_when_told_and_when_archived(
    tmp_path, run_command, elsewhere
):
    cubes = night(tmp_path / "data")
    kept = {cube: (cube.read_bytes(), cube.with_suffix(".txt").read_bytes()) for cube in cubes}
    place = ["--to", tmp_path / "kept"] if elsewhere else []
    root = tmp_path / "kept" if elsewhere else tmp_path / "data"
    result = result_of(run_command("archive", tmp_path / "data", *place, "--delete", "--json"))
    assert names(result["removed"]) == names(cubes) and len(result["packed"]) == 4
    assert not any(cube.exists() for cube in cubes)
    assert [cube.with_suffix(".txt").exists() for cube in cubes] == [not elsewhere] * 4
    for cube, (original, sidecar) in kept.items():
        where = root / cube.parent.relative_to(tmp_path / "data")
        check_archived(original, where / f"{cube.name}.fz", sidecar)
        check_sums(where)
    again = result_of(run_command("archive", tmp_path / "data", *place, "--delete", "--json"))
    assert again["packed"] == again["removed"] == again["left"] == []


def test_originals_archived_by_an_earlier_run_are_removed_by_a_later_one(tmp_path, run_command):
    cubes = night(tmp_path)
    result_of(run_command("archive", tmp_path, "--json"))
    result = result_of(run_command("archive", tmp_path, "--delete", "--json"))
    assert names(result["removed"]) == names(cubes) and result["packed"] == []
    assert not any(cube.exists() for cube in cubes)


def test_a_sidecar_stays_with_an_archive_beside_it(tmp_path, run_command):
    (cube,) = [c for c in night(tmp_path / "data", 1) if "vcam1" in c.name]
    result_of(run_command("archive", tmp_path / "data", "--json"))
    result_of(
        run_command("archive", tmp_path / "data", "--to", tmp_path / "k", "--delete", "--json")
    )
    assert not cube.exists()
    assert check_sums(cube.parent) == 2


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint32", "float32", "float64"])
def test_every_pixel_type_that_fpack_knows_is_archived_without_loss(
    tmp_path, run_command, dtype
):
    sent = some_pixels(dtype=dtype)
    if sent.dtype.kind == "f":
        sent[1, 2, 3] = np.nan
    cube = pixel_cube(tmp_path, sent)
    result_of(run_command("archive", tmp_path, "--json"))
    check_archived(cube.read_bytes(), cube.with_name(cube.name + ".fz"), None)


def test_what_fpack_would_change_is_left_alone(tmp_path, run_command):
    sent = some_pixels(dtype="float32")
    sent[1, 2, 3], sent[1, 2, 4] = np.nan, np.inf  # fpack makes a nan of it
    infinite = pixel_cube(tmp_path, sent)
    wide = pixel_cube(tmp_path, some_pixels(dtype="int64"), first_ns=FIRST_NS + 1)
    result = result_of(run_command("archive", tmp_path, "--delete", "--json"), 1)
    faults = {Path(left["file"]).name: left["fault"] for left in result["left"]}
    assert "unpacked again differs" in faults[infinite.name]
    assert "64-bit" in faults[wide.name]
    assert infinite.exists() and wide.exists() and not list(tmp_path.glob("*.fz"))


def test_a_cube_that_is_compressed_already_is_copied(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    packed = tmp_path / "packed.part"
    subprocess.run(["fpack", "-r", "-O", str(packed), str(cube)], check=True)
    packed.rename(cube)
    result = result_of(run_command("archive", tmp_path, "--json"))
    assert [entry["method"] for entry in result["packed"]] == ["copied"]
    assert cube.with_name(cube.name + ".fz").read_bytes() == cube.read_bytes()


def test_a_cube_with_an_odd_name_is_archived_or_named(tmp_path, run_command):
    folder = tmp_path / "a [1] (b)"
    cube = pixel_cube(folder, some_pixels())
    odd = cube.rename(folder / "x[1:2].fits")
    cube.with_suffix(".txt").rename(folder / "x[1:2].txt")
    pixel_cube(folder, some_pixels()).rename(folder / "y\n\x1b[2J.fits")
    ran = run_command("archive", tmp_path)
    assert ran.returncode == 1 and "\x1b" not in ran.stdout + ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and "no place in a manifest" in ran.stderr
    assert check_sums(folder) == 2
    with CubePixels(odd) as ours, CubePixels(odd.with_name("x[1:2].fits.fz")) as theirs:
        for index in range(ours.shape[0]):
            np.testing.assert_array_equal(ours.frame(index), theirs.frame(index))


def test_a_dry_run_tells_and_writes_nothing(tmp_path, run_command):
    cubes = night(tmp_path / "data")
    before = content(tmp_path)
    ran = run_command("archive", tmp_path / "data", "--to", tmp_path / "k", "--dry-run")
    assert ran.returncode == 0 and "4 cubes to pack" in ran.stdout
    told = json.loads(
        run_command("archive", tmp_path / "data", "--delete", "--dry-run", "--json").stdout
    )
    assert names([one["file"] for one in told["to_pack"]]) == names(cubes)
    assert names(told["to_remove"]) == names(cubes)
    assert content(tmp_path) == before and not (tmp_path / "k").exists()


def test_mistakes_are_told_in_one_line(tmp_path, run_command):
    cube = night(tmp_path / "data", 1)[0]
    (tmp_path / "empty").mkdir()
    for arguments, says in (
        ((tmp_path / "none",), "is not a folder"),
        ((cube,), "is not a folder"),
        ((tmp_path / "empty",), "no cube"),
        ((tmp_path / "data", "--to", tmp_path / "no" / "where"), "is its disk mounted?"),
        ((tmp_path / "data", "--to", cube), "is not a folder"),
        ((tmp_path / "data", "--jobs", 0), "--jobs"),
        ((tmp_path / "data", "--scheduler", "tcp://x:1", "--jobs", 2), "--jobs is for"),
        ((tmp_path / "data", "--scheduler", "scexao6"), "as tcp://scexao6:8786"),
    ):
        ran = run_command("archive", *arguments)
        assert ran.returncode == 2 and ran.stdout == "", ran.stderr
        (line,) = ran.stderr.splitlines()
        assert line.startswith("vampires-archive: ") and says in line, line


def test_programs_that_are_missing_are_named(tmp_path, run_command):
    night(tmp_path, 1)
    ran = run_command("archive", tmp_path, env={**os.environ, "PATH": str(tmp_path)})
    assert ran.returncode == 2 and "fpack and funpack is missing" in ran.stderr


def test_a_manifest_that_is_none_is_not_replaced(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    for text in ("my own notes\n", "# vampires-archive manifest 1\n# {broken\n"):
        (tmp_path / NAME).write_text(text)
        with pytest.raises(ManifestInvalid):
            read_manifest(tmp_path)
        ran = run_command("archive", tmp_path, "--delete")
        assert ran.returncode == 1 and NAME in ran.stderr and cube.exists()
        assert (tmp_path / NAME).read_text() == text


def test_progress_on_a_terminal(tmp_path):
    night(tmp_path, 3, frames=20, shape=(200, 200))
    with terminal(80, 24) as screen:
        screen.start([*ARCHIVE, str(tmp_path)])
        lines = screen.wait_for("EXIT 0", "6 packed")
    text = "\n".join(lines)
    assert text.count("packed 20240613/") == 6 and "Traceback" not in text


# Over machines


def test_a_dask_cluster_does_the_same(tmp_path, run_command):
    import dask
    import distributed

    cubes = night(tmp_path / "data")
    # Workers as separate processes, without a dashboard; Dask would set variables of ours, too.
    plain = {"distributed.nanny.pre-spawn-environ": {}}
    with (
        dask.config.set(plain),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
    ):
        arguments = ("archive", tmp_path / "data", "--scheduler", cluster.scheduler_address)
        result = result_of(run_command(*arguments, "--delete", "--json", timeout=60))
    assert names(result["removed"]) == names(cubes) and len(result["packed"]) == 4
    for folder in {cube.parent for cube in cubes}:
        assert check_sums(folder) == 4
    assert half_files(tmp_path) == []


def test_a_scheduler_that_is_not_there_or_an_extra_that_is_missing(tmp_path, run_command):
    night(tmp_path / "data", 1)
    arguments = ("archive", tmp_path / "data", "--scheduler", "tcp://127.0.0.1:1")
    ran = run_command(*arguments, timeout=60)
    assert ran.returncode == 2 and "no Dask scheduler at tcp://127.0.0.1:1" in ran.stderr
    (tmp_path / "distributed.py").write_text("raise ImportError('not here')\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    ran = run_command(*arguments, env={**os.environ, "PYTHONPATH": path})
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1
    assert "pip install 'vampires-daq[archive]'" in ran.stderr
    assert sys.executable and not list(tmp_path.rglob("*.fz"))
