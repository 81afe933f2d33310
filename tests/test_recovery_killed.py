"""Whatever moment ends a recovery: the next one makes the same cube."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cube_checks import check_cubes
from partial_cube_files import FINAL, Killed, Leftover, recovered

from vampires import _core
from vampires.cube_header import KeywordChange
from vampires.partial_cubes import partial_cubes
from vampires.recovery import plan_recovery, recover, remove

STEPS = [
    (os, "ftruncate"), (os, "fsync"), (os, "pwrite"), (os, "preadv"),
    (_core, "rename_new"), (_core, "sync_directory"), (Path, "unlink"),
]  # fmt: skip


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("step_of", STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("frames", [7, 9], ids=["rows of all", "two without rows"])
def test_a_recovery_that_was_killed_is_done_again(
    tmp_path, monkeypatch, step_of, before, frames
):
    """Each call of each step in turn."""
    module, name = step_of
    real = getattr(module, name)
    for kill_at in range(20):
        leftover = Leftover(tmp_path / str(kill_at), frames=frames, rows=7)
        calls = 0

        def step(*args, **options):
            nonlocal calls
            calls += 1
            if calls == kill_at + 1 and before:  # noqa: B023
                raise Killed
            result = real(*args, **options)
            if calls == kill_at + 1:  # noqa: B023
                raise Killed
            return result

        monkeypatch.setattr(module, name, step)
        try:
            file = recover(leftover.partial)
        except Killed:
            monkeypatch.setattr(module, name, real)
            check_again(leftover)
            continue
        monkeypatch.setattr(module, name, real)
        assert check_cubes([file], leftover.pool)[0].path.name == FINAL
        assert kill_at > 0
        return
    raise AssertionError("the recovery did not end")


def check_again(leftover: Leftover) -> None:
    """The second run makes the same cube, once, and nothing else is left."""
    for partial in partial_cubes(leftover.folder):
        plan = plan_recovery(partial)
        if plan.action == "recover":
            recover(partial)
        else:
            remove(plan)
    names = sorted(path.name for path in leftover.folder.iterdir())
    assert names == [FINAL, FINAL.replace(".fits", ".txt")]
    (cube,) = check_cubes([leftover.folder / FINAL], leftover.pool)
    assert cube.rows.tobytes() == leftover.rows[:7].tobytes()
    assert cube.history.count("recovered: 7 frames") == 1


@pytest.mark.parametrize("changes", [None, 9, 13], ids=["open", "END stays", "END moves back"])
def test_a_header_written_half_is_written_again(tmp_path, monkeypatch, changes):
    """At every card, over the provisional header or over the final one of a logger that was
    killed just before the cube got its name."""
    real = os.pwrite
    for torn_at in range(0, len(Leftover(tmp_path / "first").header), 80):
        leftover = Leftover(tmp_path / str(torn_at))
        if changes is not None:
            names = [KeywordChange(n, f"KEY{n}", n) for n in range(changes)]
            leftover.write_final_header(7, changes=names)

        def torn(fd, content, offset):
            if offset:
                return real(fd, content, offset)
            real(fd, content[:torn_at], offset)  # noqa: B023
            raise Killed

        monkeypatch.setattr(os, "pwrite", torn)
        with pytest.raises(Killed):
            recover(leftover.partial)
        monkeypatch.undo()
        recovered(leftover, 7)
