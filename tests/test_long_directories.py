"""A directory with a long name is given as a link with a short one, and works like any."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vampires import long_directories
from vampires.logger_parameters import make_logger_fps
from vampires.long_directories import MAX_BYTES, full_form, short_file_form, short_form

LONG = "a-directory-with-a-name-of-many-characters/and-another-one-inside-of-it"


def test_a_name_that_fits_is_left_as_it_is(shm_dir):
    for text in ("/mnt/datalog", "/" + 62 * "x", "/" + 31 * "é"):
        assert short_form(Path(text), shm_dir) == text
        assert full_form(text, shm_dir) == Path(text)
    assert list(shm_dir.iterdir()) == []


@pytest.mark.parametrize(
    "text", ("/" + 63 * "x", "/" + 32 * "é", "/data/" + LONG, "/" + LONG * 3)
)
def test_a_long_name_becomes_a_short_one_and_is_told_whole(shm_dir, text):
    short = short_form(Path(text), shm_dir)
    assert len(os.fsencode(short)) <= MAX_BYTES
    assert os.readlink(short) == text
    assert full_form(short, shm_dir) == Path(text)
    assert short_form(Path(text), shm_dir) == short  # again: the same


def test_files_written_by_the_short_name_are_in_the_directory(shm_dir, tmp_path):
    directory = tmp_path / LONG
    short = Path(short_form(directory, shm_dir))
    assert not short.exists()  # the directory need not be there yet
    directory.mkdir(parents=True)
    (short / "file").write_text("text")
    assert (directory / "file").read_text() == "text"


def test_it_fits_the_parameter_and_comes_back(shm_dir, tmp_path):
    directory = tmp_path / LONG
    with make_logger_fps("vcam1") as fps:
        fps["dirname"] = short_form(directory, shm_dir)
        assert full_form(str(fps["dirname"]), shm_dir) == directory


@pytest.mark.parametrize("name", (b"\xff\xfe", b"two\nlines", b"\x1b[2J"))
def test_a_name_that_no_parameter_can_hold_becomes_a_link_too(shm_dir, tmp_path, name):
    directory = tmp_path / os.fsdecode(name)
    short = short_form(directory, shm_dir)
    assert short.isprintable()
    assert short.encode()
    assert full_form(short, shm_dir) == directory
    with make_logger_fps("vcam1") as fps:
        fps["dirname"] = short


def test_directories_with_one_digest_have_two_links(shm_dir, monkeypatch):
    monkeypatch.setattr(long_directories, "DIGEST_CHARACTERS", 1)
    directories = [Path(f"/data/{LONG}/{k}") for k in range(8)]
    shorts = [short_form(directory, shm_dir) for directory in directories]
    assert len(set(shorts)) == len(shorts)
    for directory, short in zip(directories, shorts, strict=True):
        assert full_form(short, shm_dir) == directory
        assert short_form(directory, shm_dir) == short


def test_several_at_once_get_the_same_link(shm_dir):
    found: list[str] = []
    barrier = threading.Barrier(4)

    def make() -> None:
        barrier.wait()
        found.append(short_form(Path("/data") / LONG, shm_dir))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_folder_of_streams_with_a_long_name_itself_is_told(tmp_path):
    shm_dir = tmp_path / ("x" * 60)
    shm_dir.mkdir()
    with pytest.raises(ValueError, match="choose a shorter directory, or a shorter MILK"):
        short_form(Path("/data") / LONG, shm_dir)
    assert list(shm_dir.iterdir()) == []


def test_what_is_in_the_way_of_the_links_is_told(shm_dir):
    with pytest.raises(OSError, match="absent"):
        short_form(Path("/data") / LONG, shm_dir / "absent")
    (shm_dir / "dirs").write_text("")
    with pytest.raises(OSError, match="dirs"):
        short_form(Path("/data") / LONG, shm_dir)


def test_a_link_that_somebody_removed_is_given_as_it_is(shm_dir):
    short = short_form(Path("/data") / LONG, shm_dir)
    os.unlink(short)
    assert full_form(short, shm_dir) == Path(short)
    assert full_form("", shm_dir) == Path(".")


def test_a_file_in_a_long_directory_is_told_through_the_link(tmp_path):
    """In the folder of streams that observatories have, /milk/shm, there is room for it."""
    shm_dir = Path("/tmp") / tmp_path.name[-3:]
    name = "vcam1_08:53:38.973204322.fits"
    shm_dir.mkdir()
    try:
        text = short_file_form(f"/data/{LONG}/{name}", shm_dir)
        assert len(text) <= MAX_BYTES
        assert os.path.basename(text) == name
        assert full_form(os.path.dirname(text), shm_dir) == Path("/data") / LONG
    finally:
        for link in (shm_dir / "dirs").iterdir():
            link.unlink()
        (shm_dir / "dirs").rmdir()
        shm_dir.rmdir()


def test_a_file_whose_path_never_fits_is_told_by_its_name(shm_dir):
    name = "x" * 50 + ".fits"
    assert short_file_form(f"/data/{LONG}/{name}", shm_dir) == name
    assert short_file_form(f"/data/{LONG}/{name}", shm_dir / "absent") == name
    assert short_file_form("/data/vcam1.fits", shm_dir) == "/data/vcam1.fits"
    assert short_file_form("", shm_dir) == ""


@given(name=st.text(alphabet=st.characters(exclude_characters="/\0"), min_size=1, max_size=80))
def test_any_file_is_told_in_a_text_that_a_parameter_holds(tmp_path_factory, name):
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # no name of a file
        return
    text = short_file_form(f"/data/{LONG}/{name}", tmp_path_factory.getbasetemp() / "absent")
    assert len(text.encode()) <= MAX_BYTES
    assert text.isprintable()
