"""What the benches share: a folder on a real disk, and the table of asked and measured.

Every bench compares with a baseline taken in the same run and asserts that its result is
right. Where the machine itself cannot reach the rate that a bench needs, it says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Ended like by Ctrl-C: the fixtures still take their streams, files and processes away.
signal.signal(signal.SIGTERM, signal.default_int_handler)

_HERE = Path.cwd()
_rows: list[tuple[str, str, str, str]] = []

Record = Callable[[str, str, str, bool], None]


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Not where `python -m` could take the source tree for the installed package."""
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(_HERE)


@pytest.fixture
def record() -> Record:
    """record(what, asked, measured, reached): a row of the closing table."""

    def add(what: str, asked: str, measured: str, reached: bool) -> None:
        _rows.append((what, asked, measured, "yes" if reached else "NO"))
        if not reached:
            pytest.fail(f"{what}: asked {asked}, measured {measured}", pytrace=False)

    return add


@pytest.fixture
def unreachable() -> Callable[[str, str, str], None]:
    """unreachable(what, asked, found): the machine, not the logger, falls short."""

    def add(what: str, asked: str, found: str) -> None:
        _rows.append((what, asked, found, "machine too slow"))

    return add


@pytest.fixture
def disk_dir() -> Iterator[Path]:
    """A folder on a real disk: $VAMPIRES_BENCH_DIR, else the current directory."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("VAMPIRES_BENCH_DIR", _HERE))
    try:
        yield Path(folder).absolute()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    """A folder in memory (tmpfs)."""
    folder = tempfile.mkdtemp(prefix="vampires-bench-", dir="/dev/shm")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shm_dir(memory_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty stream folder."""
    folder = memory_dir / "streams"
    folder.mkdir()
    monkeypatch.setenv("MILK_SHM_DIR", str(folder))
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table."""
    if not _rows:
        return
    widths = [max(len(row[k]) for row in _rows) for k in range(3)]
    terminalreporter.section("asked and measured")
    for row in _rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        terminalreporter.write_line(f"{cells}  {row[3]}")
