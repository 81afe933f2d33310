"""What fitswatcher says of one file, whatever the file is; it never fails over one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fitswatch_cubes import BLOCK_BYTES, KEYWORDS, Take, make_cube, write_cube
from hypothesis import given
from hypothesis import strategies as st

from vampires.fitswatch import facts as file_facts
from vampires.fitswatch.detail import read_page
from vampires.fitswatch.facts import FileFacts, read_facts
from vampires.fitswatch.listing import FileStamp, FolderListing, order_ns
from vampires.fitswatch.snapshot import FileView
from vampires.times import DAY_NS, SECOND_NS

FIRST_NS = 1_718_236_803_628_172_287  # 2024-06-13T00:00:03.628172287
CARD = "{:<8}= {:>20}"


def facts_of(path: Path) -> FileFacts:
    """As the watcher reads them, by the listing of the folder."""
    listing = FolderListing(str(path.parent))
    listing.relist()
    facts = read_facts(listing.path, path.name, listing.files[path.name])
    read_page(FileView(str(path.parent), facts))  # whatever it holds, its page can be shown
    return facts


def fits_file(path: Path, *cards: str, data: bytes = b"") -> Path:
    header = "".join(f"{card:<80}" for card in (*cards, "END"))
    header += " " * (-len(header) % BLOCK_BYTES)
    path.write_bytes(header.encode() + data + bytes(-len(data) % BLOCK_BYTES))
    return path


def test_a_cube_tells_shape_type_object_and_times(tmp_path: Path) -> None:
    take = Take(FIRST_NS, 10, (16, 24))
    facts = facts_of(make_cube(tmp_path, "vcam1", take))
    assert (facts.shape, facts.data_type, facts.object) == ((10, 16, 24), "DARK", "scexao")
    assert facts.image_bytes == 10 * 16 * 24 * 2
    assert facts.begin_ns // 1000 == FIRST_NS // 1000
    assert facts.end_ns // 1000 == take.last_ns // 1000
    assert (facts.lost, facts.failures, facts.faults) == (0, (), ())


def test_losses_are_those_of_the_header(tmp_path: Path) -> None:
    facts = facts_of(make_cube(tmp_path, "vcam1", Take(FIRST_NS, lost={3: 4, 7: 1}, torn=2)))
    assert (facts.lost, facts.torn, facts.failures) == (5, 2, ())


def test_pixels_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS, 1000, (1104, 2228)))
    read: list[tuple[int, int]] = []
    pread = os.pread

    def noted(fd: int, count: int, offset: int) -> bytes:
        read.append((offset, count))
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", noted)
    facts_of(cube)
    begin, end = 100_000, cube.stat().st_size - 200_000
    assert read and all(at + count < begin or at > end for at, count in read)


@pytest.mark.parametrize("keyword", ["DATA-TYP", "EXPTIME", "DETECTOR", "CRPIX1B"])
def test_a_header_fault_names_its_keyword(tmp_path: Path, keyword: str) -> None:
    value = 3.5 if isinstance(KEYWORDS[keyword], str) else "text"
    facts = facts_of(make_cube(tmp_path, "vcam1", Take(FIRST_NS, keywords={keyword: value})))
    if keyword != "CRPIX1B":  # the logger itself does not write that one
        assert facts.faults[0].keyword == keyword
    assert facts.failures == ()


def test_faults_come_before_what_is_missing(tmp_path: Path) -> None:
    take = Take(FIRST_NS, keywords={"EXPTIME": None, "DATA-TYP": "DARKS"})
    facts = facts_of(make_cube(tmp_path, "vcam1", take))
    assert [fault.keyword for fault in facts.faults] == ["DATA-TYP", "EXPTIME"]


# -- the sidecar ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (lambda lines: lines[:-1], "sidecar has 9 lines for 10 frames"),
        (lambda lines: [*lines, lines[-1]], "sidecar has 11 lines for 10 frames"),
        (lambda lines: [*lines[:-1], lines[-1].rstrip("\n")], ""),
        (lambda lines: [*lines, "# a comment\n"], ""),
        (lambda lines: [], "sidecar has 0 lines for 10 frames"),
    ],
)
def test_the_sidecar_has_a_line_for_each_frame(
    tmp_path: Path, change: Callable[[list[str]], list[str]], failure: str
) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    sidecar = cube.with_suffix(".txt")
    sidecar.write_text("".join(change(sidecar.read_text().splitlines(keepends=True))))
    assert facts_of(cube).failures == ((failure,) if failure else ())


def test_lines_are_counted_across_the_pieces_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    for size in (1, 2, 7, 64):
        monkeypatch.setattr(file_facts, "_READ_BYTES", size)
        assert facts_of(cube).failures == ()


def test_a_cube_without_a_sidecar_fails_and_a_foreign_file_does_not(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS), sidecar=False)
    assert facts_of(cube).failures == ("no sidecar",)
    assert facts_of(cube.rename(tmp_path / "copy.fits")).failures == ()


# -- bad input --------------------------------------------------------------------------------


def test_a_file_cut_at_any_block_is_told(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS, 4, (40, 40)))
    content = cube.read_bytes()
    table_at = content.index(b"XTENSION= 'BINTABLE'")
    for size in range(0, len(content), BLOCK_BYTES):
        if size == table_at:
            continue  # a whole FITS file: only its table is not there
        for cut in {size, max(0, size - 1), size + 1}:
            cube.write_bytes(content[:cut])
            (failure,) = facts_of(cube).failures or ()
            assert failure.isprintable() and "\n" not in failure


@pytest.mark.parametrize("content", [b"", b"\0" * 9000, b"\x1b[2J" * 900, b"SIMPLE  =", b"{}"])
def test_a_file_that_is_not_fits_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vcam1_00:00:03.628172287.fits"
    path.write_bytes(content)
    (failure,) = facts_of(path).failures or ()
    assert failure.isprintable()


def test_a_dangling_link_is_shown_and_what_is_no_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "link.fits").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.fits").mkdir()
    os.mkfifo(tmp_path / "pipe.fits")
    listing = FolderListing(str(tmp_path))
    assert listing.relist() and not listing.relist()
    assert list(listing.files) == ["link.fits"]
    assert facts_of(tmp_path / "link.fits").failures == ("a link to a file that is not there",)


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of the superuser."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    for path in (tmp_path, *tmp_path.parents[:3]):
        if path.name.startswith("pytest") or path == tmp_path:
            path.chmod(0o755)
    cube.chmod(0)
    listing = FolderListing(str(tmp_path))
    listing.relist()
    with nobody():
        facts = read_facts(str(tmp_path), cube.name, listing.files[cube.name])
    assert facts.failures == ("cannot be read: Permission denied",)


def test_a_file_that_vanishes_while_it_is_read_is_told(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    stamp = FileStamp(cube.stat().st_size, cube.stat().st_mtime_ns, 1)
    cube.unlink()
    facts = read_facts(str(tmp_path), cube.name, stamp)
    assert facts.failures == ("cannot be read: No such file or directory",)
    assert read_page(FileView(str(tmp_path), facts))


def test_files_of_others_are_shown(tmp_path: Path) -> None:
    simple, no_end = CARD.format("SIMPLE", "T"), CARD.format("EXTEND", "T")
    image = [CARD.format("BITPIX", -32), CARD.format("NAXIS", 2)]
    axes = [CARD.format("NAXIS1", 4), CARD.format("NAXIS2", 3)]
    flat = fits_file(tmp_path / "flat.fits", simple, *image, *axes, data=bytes(48))
    assert facts_of(flat).shape == (3, 4) and facts_of(flat).failures == ()
    empty = [CARD.format("BITPIX", 8), CARD.format("NAXIS", 0)]
    nothing = fits_file(tmp_path / "nothing.fits", simple, *empty, no_end)
    assert facts_of(nothing).shape is None
    comments = [f"COMMENT {k}" for k in range(36_000)]
    huge = fits_file(tmp_path / "huge.fits", simple, *image, *axes, *comments, data=bytes(48))
    assert facts_of(huge).shape == (3, 4)
    odd = ["DATA-TYP= 12", "OBJECT  = 'It''s  ' / x", "NLOST   = 'many'", "UT-STR  = '99'"]
    strange = fits_file(tmp_path / "odd.fits", simple, *image, *axes, *odd, data=bytes(48))
    facts = facts_of(strange)
    assert (facts.data_type, facts.object, facts.lost, facts.begin_ns) == ("12", "It's", 0, 0)


@pytest.mark.parametrize(
    "take", [Take(FIRST_NS, 1), Take(FIRST_NS, 3, dtype="float32"), Take(FIRST_NS, 2, (1, 1))]
)
def test_cubes_of_one_frame_and_of_floats_are_cubes(tmp_path: Path, take: Take) -> None:
    facts = facts_of(make_cube(tmp_path, "vcam1", take))
    assert facts.shape == (take.frames, *take.shape) and facts.failures == ()


@given(content=st.binary(max_size=400), at=st.integers(0, 9000))
def test_no_bytes_at_all_make_it_fail(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "vcam1_00:00:03.628172287.fits"
    write_cube(path, "vcam1", Take(FIRST_NS, 2, (4, 4)))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
    facts_of(path)


def test_a_cube_compressed_in_place_is_still_that_cube(tmp_path: Path) -> None:
    cube = make_cube(tmp_path, "vcam1", Take(FIRST_NS, 3, (32, 40), lost={1: 2}))
    for name in (cube.name, cube.name + ".fz"):
        packed = tmp_path / "packed.fz"
        subprocess.run(["fpack", "-O", packed, cube], check=True, timeout=60)
        packed.rename(tmp_path / "other" if name == cube.name else tmp_path / name)
    facts = facts_of(tmp_path / (cube.name + ".fz"))
    assert facts.shape == (3, 32, 40) and facts.lost == 2
    assert facts.failures == () and facts.data_type == "DARK"


# -- their order ------------------------------------------------------------------------------


def test_files_are_ordered_by_their_first_frame_over_midnight_and_copies() -> None:
    midnight = FIRST_NS // DAY_NS * DAY_NS
    late, early = "vcam1_23:59:49.294402958.fits", "vcam1_00:00:03.628172287.fits"
    assert order_ns(late, midnight + 2 * SECOND_NS) < order_ns(early, midnight + 9 * SECOND_NS)
    for later in range(1, 23):  # all compressed or copied so many hours later
        written = midnight + later * 3600 * SECOND_NS
        assert order_ns(late, written) < order_ns(early, written)
    assert order_ns("foreign.fits", 17) == 17


def test_a_listing_follows_every_change(tmp_path: Path) -> None:
    listing = FolderListing(str(tmp_path))
    cubes = [make_cube(tmp_path, "vcam1", Take(FIRST_NS + k * SECOND_NS)) for k in range(4)]
    assert listing.relist_if_changed(time.time_ns())
    assert listing.newest(2) == [cubes[3].name, cubes[2].name]
    cubes[3].unlink()
    assert listing.look_at(cubes[3].name) and not listing.look_at(cubes[3].name)
    assert listing.newest(9) == [cube.name for cube in cubes[2::-1]]
    assert listing.total_bytes == sum(cube.stat().st_size for cube in cubes[:3])
    shutil.rmtree(tmp_path)
    assert not listing.relist() and listing.fault == "No such file or directory"
