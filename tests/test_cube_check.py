"""Every way in which the files of a cube can be wrong is told; and nothing that is right."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fitswatch_cubes import Take, make_cube
from hypothesis import given
from hypothesis import strategies as st
from logger_process import Camera, LoggerThread
from pixel_cubes import pixel_cube, some_pixels

from vampires.cube_check import CubeReport, check_cube
from vampires.fits_cards import END_CARD, keyword_dictionary, literal_card
from vampires.fits_hdus import Hdu, read_hdus
from vampires.fits_sum import data_sum, stamp_checksum
from vampires.frame_table import FRAME_DTYPE, FrameFlag, frames_hdu
from vampires.sidecar import sidecar_text

FIRST_NS = 1_795_337_618_973_218_918  # 2026-11-22T08:53:38
BLOCK = 2880
MILK_CUBES = Path(__file__).parent / "data" / "fits" / "aux"


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    return make_cube(tmp_path, "vcam1", Take(FIRST_NS, lost={3: 2}, torn=1))


def the_fault(path: Path, **options: bool) -> str:
    report = check_cube(path, **options)
    assert not report.ok
    assert all("\n" not in line for line in report.faults + report.warnings)
    (fault,) = report.faults
    return fault


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def hdus_of(path: Path) -> list[Hdu]:
    return read_hdus(path)[0]


def rewrite_header(path: Path, **fields: str | None) -> None:
    """Other value fields in the primary header, summed anew; None makes a comment of a card."""
    hdu = hdus_of(path)[0]
    cards = [hdu.cards.raw[at : at + 80] for at in range(0, len(hdu.cards.raw), 80)]
    for name, field in fields.items():
        keyword = name.replace("_", "-")
        at = next(
            k for k, card in enumerate(cards) if card.startswith(f"{keyword:<8}=".encode())
        )
        cards[at] = (b"COMMENT" if field is None else f"{keyword:<8}= {field}".encode()).ljust(
            80
        )
    raw = b"".join([*cards, b"END".ljust(80)]).ljust(hdu.header_bytes)
    stated = hdu.cards["DATASUM"]
    overwrite(path, 0, stamp_checksum(raw, int(str(stated))))


def rewrite_rows(
    path: Path, edit: Callable[[np.ndarray], object], *, sidecar: bool = True
) -> None:
    """Another table of frames, summed anew, and the sidecar that goes with it."""
    rows = Take(FIRST_NS, lost={3: 2}).rows
    edit(rows)
    table = hdus_of(path)[1]
    os.truncate(path, table.header_offset)
    overwrite(path, table.header_offset, frames_hdu(rows))
    if sidecar:
        path.with_suffix(".txt").write_bytes(sidecar_text("vcam1", rows))


# -- what is right ----------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [True, False])
def test_a_whole_cube_is_good_and_accounted_for(cube, pixels):
    report = check_cube(cube, strict=True, pixels=pixels)
    assert report.ok and report.kind == "cube"
    assert (report.frames, report.lost, report.torn) == (10, 2, 1)
    assert report.bytes == cube.stat().st_size
    assert report.as_dict()["ok"] is True
    assert check_cube(cube).warnings == []


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("frames", [1, 3])
def test_cubes_of_one_frame_and_of_any_pixels_are_good(tmp_path, dtype, frames):
    path = make_cube(tmp_path, "vcam1", Take(FIRST_NS, frames=frames, dtype=dtype))
    report = check_cube(path)
    assert (report.faults, report.warnings, report.frames) == ([], [], frames)


def test_what_the_logger_records_is_good(shm_dir, tmp_path):
    camera = Camera(shape=(40, 50))
    logger = LoggerThread(camera.name, tmp_path, shm_dir, cube_size=6).attached()
    camera.send(20)
    logger.wait_status(frames=20)
    files = logger_files(logger)
    assert len(files) == 4
    for file in files:
        report = check_cube(file)
        assert report.faults == [] and report.kind == "cube", report
        damaged = file.read_bytes()
        middle = hdus_of(file)[0].data_offset + 4001
        overwrite(file, middle, bytes([damaged[middle] ^ 1]))
        assert "the data of HDU 0 are damaged" in the_fault(file)
        assert check_cube(file, pixels=False).ok


def logger_files(logger: LoggerThread) -> list[Path]:
    logger.stop()
    return [Path(file) for file in logger.logger.result.files]


def test_progress_counts_every_byte_once(cube):
    read: list[int] = []
    check_cube(cube, progress=read.append)
    assert sum(read) == cube.stat().st_size


def test_what_progress_raises_ends_the_check(cube):
    def stop(n_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_cube(cube, progress=stop)


@pytest.mark.parametrize(("number", "name"), [(0, b"RET-MOD1"), (1, b"COMMENT")])
def test_a_blank_card_in_any_header_is_told(cube, number, name):
    hdu = hdus_of(cube)[number]
    raw = hdu.cards.raw
    at = next(n for n in range(0, len(raw), 80) if raw.startswith(name, n))
    header = (raw[:at] + b" " * 80 + raw[at + 80 :] + b"END").ljust(hdu.header_bytes)
    header = stamp_checksum(header, int(str(hdu.cards["DATASUM"])))
    overwrite(cube, hdu.header_offset, header)
    assert "without a keyword" in the_fault(cube)


def as_the_archive_writes(path: Path, number: int) -> None:
    """The header of an HDU with every value in the format of the dictionary: its program leaves
    no number as the logger writes it, BZERO and BSCALE not either."""
    hdu = hdus_of(path)[number]
    cards = []
    for at in range(0, len(hdu.cards.raw), 80):
        card = hdu.cards.raw[at : at + 80].decode("ascii")
        name = card[:8].rstrip()
        entry, value = keyword_dictionary().get(name), hdu.cards.get(name)
        if card[8:10] == "= " and entry is not None and not isinstance(value, bool | None):
            text = entry.printf % value
            field = f"'{text}'" if isinstance(value, str) else text.rjust(20)
            card = literal_card(name, field, hdu.cards.comment(name))
        cards.append(card)
    header = "".join([*cards, END_CARD]).ljust(hdu.header_bytes).encode("ascii")
    stated = int(str(hdu.cards["DATASUM"]))
    overwrite(path, hdu.header_offset, stamp_checksum(header, stated))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_cube_is_good_after_the_archives_header_program(tmp_path, compressed):
    cube = pixel_cube(tmp_path, some_pixels())
    if compressed:
        subprocess.run(["fpack", "-r", "-D", "-Y", str(cube)], check=True, capture_output=True)
        cube = cube.with_name(cube.name + ".fz")
    number = int(compressed)
    as_the_archive_writes(cube, number)
    assert isinstance(hdus_of(cube)[number].cards["BZERO"], float)
    for strict in (False, True):
        report = check_cube(cube, strict=strict)
        assert report.faults == [] and report.kind != "foreign"
    assert check_cube(cube).warnings == []
    os.truncate(cube, hdus_of(cube)[number].end_offset)  # as programs that keep the image alone
    (warning,) = check_cube(cube).warnings
    assert check_cube(cube).ok and "FRAMES" in warning


# -- files that are no cubes ------------------------------------------------------------------


def test_a_cube_cut_at_any_block_is_faulty(cube):
    content = cube.read_bytes()
    for size in range(0, len(content), BLOCK):
        cube.write_bytes(content[:size])
        for pixels in (True, False):
            assert not check_cube(cube, pixels=pixels).ok, size


@given(st.data())
def test_any_byte_of_a_cube_that_changed_is_told(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "flipped"
    path = make_cube(folder, "vcam1", Take(FIRST_NS, lost={3: 2}))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    overwrite(path, at, bytes([content[at] ^ bit]))
    assert not check_cube(path).ok


@given(st.binary(max_size=3000))
def test_nothing_is_raised_for_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.fits"
    path.write_bytes(content)
    assert not check_cube(path, strict=True).ok


def test_what_is_not_a_file_is_told(tmp_path):
    (tmp_path / "folder.fits").mkdir()
    os.mkfifo(tmp_path / "pipe.fits")
    (tmp_path / "link.fits").symlink_to("nowhere.fits")
    (tmp_path / "loop.fits").symlink_to("loop.fits")
    (tmp_path / "empty.fits").touch()
    (tmp_path / "text.fits").write_text("hello\n" * 1000)
    for name, told in {
        "folder.fits": "not a file but a folder",
        "pipe.fits": "not a file but a pipe",
        "link.fits": "a dangling link, to nowhere.fits",
        "loop.fits": "cannot be read: Too many levels of symbolic links",
        "nothing.fits": "cannot be read: No such file or directory",
        "empty.fits": "an empty file: 0 bytes",
        "text.fits": "not FITS: it begins with 'hello",
        "a\0b.fits": "no such file name",
    }.items():
        assert told in the_fault(tmp_path / name), name


def test_a_file_that_may_not_be_read_is_told(cube, monkeypatch):
    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vampires.fits_hdus.os.open", refuse)  # root may read everything
    assert the_fault(cube) == "cannot be read: Permission denied"


@pytest.mark.parametrize("change", ["vanished", "replaced", "grew", "shrank"])
def test_a_file_that_changes_while_it_is_read_is_told(cube, tmp_path, change):
    def meddle(n_bytes: int) -> None:
        if n_bytes == 0 or not done:
            done.append(n_bytes)
            if change == "vanished":
                cube.unlink()
            elif change == "replaced":
                shutil.copy(cube, tmp_path / "other")
                (tmp_path / "other").replace(cube)
            elif change == "grew":
                with cube.open("ab") as file:
                    file.write(b" " * BLOCK)
            else:
                os.truncate(cube, 5 * BLOCK)

    done: list[int] = []
    report = check_cube(cube, progress=meddle)
    told = {"vanished": "vanished while it was read", "shrank": "while it was read"}
    assert told.get(change, "changed while it was read") in report.faults[-1]


def test_a_name_of_escape_sequences_is_checked_like_any_other(tmp_path):
    path = make_cube(tmp_path, "vcam1", Take(FIRST_NS))
    strange = tmp_path / "\x1b[2J\udcff\n.fits"
    path.rename(strange)
    path.with_suffix(".txt").rename(strange.with_suffix(".txt"))
    assert check_cube(strange).ok


# -- structure and sums -----------------------------------------------------------------------


def test_a_table_that_is_missing_is_told(cube):
    os.truncate(cube, hdus_of(cube)[1].header_offset)
    assert "extension FRAMES, the table of its frames, is missing" in the_fault(cube)


def test_bytes_behind_the_last_hdu_are_told(cube):
    size = cube.stat().st_size
    for rest in (b"\0", b"\0" * BLOCK, b"rubbish" * 1000):
        os.truncate(cube, size)
        overwrite(cube, size, rest)
        assert f"from byte {size} on, after HDU 1, are no extension" in the_fault(cube)


def test_a_damaged_header_is_told_from_damaged_data(cube):
    image, table = hdus_of(cube)
    at = image.cards.raw.index(b"scexao")
    overwrite(cube, at, b"scexa0")
    for pixels in (True, False):
        told = the_fault(cube, pixels=pixels)
        assert told == "the header of HDU 0 is damaged: CHECKSUM differs"
    overwrite(cube, at, b"scexao")
    overwrite(cube, table.data_offset + 30, b"\x55")
    faults = check_cube(cube, pixels=False).faults
    assert "the data of HDU 1 are damaged" in faults[0]


def test_padding_that_is_not_empty_is_told(cube):
    image, table = hdus_of(cube)
    overwrite(cube, table.header_offset - 1, b"\1")
    faults = check_cube(cube).faults
    assert "the padding behind the data of HDU 0 is not empty" in faults
    cards_end = image.header_offset + len(image.cards.raw) + 80
    if cards_end < image.data_offset:
        overwrite(cube, cards_end, b"x")
        assert "the header of HDU 0 goes on behind its END card" in check_cube(cube).faults


def test_sums_that_are_missing_are_told(cube):
    raw = bytearray(cube.read_bytes())
    for name in (b"CHECKSUM=", b"DATASUM ="):
        at = raw.index(name)
        raw[at : at + 8] = b"XXXXXXXX"
    cube.write_bytes(raw)
    assert the_fault(cube) == "HDU 0 has no CHECKSUM and no DATASUM"


def test_cards_out_of_their_order_are_told(cube):
    raw = hdus_of(cube)[0].cards.raw
    overwrite(cube, 80, raw[160:240] + raw[80:160])
    assert the_fault(cube) == "card 2 of HDU 0 is 'NAXIS'; FITS wants BITPIX there"


def test_a_broken_rule_of_the_header_is_told(cube):
    rewrite_header(cube, DATA_TYP="'SCIENCE'")
    assert "DATA-TYP is 'SCIENCE'; expected one of" in the_fault(cube)


def test_what_a_reader_stops_without_is_a_fault_in_a_cube_of_a_science_camera(cube):
    rewrite_header(cube, FILTER01=None)
    assert "FILTER01" in the_fault(cube)
    assert check_cube(cube, keywords=False).ok


def test_what_the_readers_want_is_a_fault_when_strict(cube):
    rewrite_header(cube, OBJECT=None, DATA_TYP=None)
    report = check_cube(cube)
    assert report.ok
    assert report.warnings == ["keywords that are missing: DATA-TYP, OBJECT"]
    assert the_fault(cube, strict=True) == "keywords that are missing: DATA-TYP, OBJECT"


# -- the account of the frames ----------------------------------------------------------------


def put(name: str, frame: int, value: int) -> Callable[[np.ndarray], object]:
    return lambda rows: rows[name].__setitem__(frame, value)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (put("FRAME", 4, 5), "row 4 of the table FRAMES is that of frame 5"),
        (put("LOST", 3, 0), "frame 3: cnt0 is 1005; expected 1003, after 1002 with 0 declared"),
        (put("LOST", 6, 1), "frame 6: cnt0 is 1008; expected 1009, after 1007 with 1 declared"),
        (put("CNT0", 6, 1007), "frame 6: cnt0 is 1007; expected 1008"),
        (put("CNT0", 6, 5), "frame 6: cnt0 is 5; expected 1008"),
        (put("LOST", 0, -1), "frame 0: LOST is -1, less than nothing"),
        (put("TACQ", 5, FIRST_NS), "frame 5: its acquisition time is earlier than that of a"),
        (put("FLAGS", 5, FrameFlag.RING_FULL), "frame 5: its FLAGS tell of lost frames"),
        (put("FLAGS", 5, FrameFlag.TORN_BEFORE), "frame 5: its FLAGS tell of lost frames"),
        (put("CNT0", 0, 999), "CNT0-BEG is 1000; expected 999, of FRAMES"),
        (put("CNT0", 9, 1012), "CNT0-END is 1011; expected 1012, of FRAMES"),
        (
            put("TACQ", 0, FIRST_NS - 1000),
            "UT-STR is 08:53:38.973218; expected 08:53:38.973217",
        ),
        (
            put("TACQ", 9, FIRST_NS + 10**9),
            "DATE-END is 2026-11-22T08:53:39.193218918; expected",
        ),
    ],
)
def test_a_table_that_does_not_add_up_is_told(cube, edit, told):
    rewrite_rows(cube, edit)
    faults = check_cube(cube).faults
    assert any(told in fault for fault in faults), faults


@pytest.mark.parametrize(
    "edit",
    [
        lambda rows: (put("CNT0", 9, 5)(rows), put("FLAGS", 9, FrameFlag.COUNTER_RESET)(rows)),
        lambda rows: (
            put("CNT0", 9, 9)(rows),
            put("FLAGS", 9, FrameFlag.STREAM_RECREATED)(rows),
        ),
        lambda rows: (put("TACQ", 5, 1)(rows), put("FLAGS", 5, FrameFlag.CLOCK_STEP)(rows)),
        put("TACQ", 5, 0),
    ],
)
def test_what_the_flags_declare_is_no_fault(cube, edit):
    rewrite_rows(cube, edit)
    faults = [fault for fault in check_cube(cube).faults if "CNT0-END" not in fault]
    assert faults == []


def test_a_clock_of_the_logger_that_went_back_is_worth_a_warning(cube):
    rewrite_rows(cube, put("TLOG", 5, FIRST_NS))
    report = check_cube(cube)
    assert report.ok
    assert report.warnings == ["frame 5: the clock of the logger went back before it"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"NLOST": "3"}, "NLOST is 3; the table FRAMES declares 2 lost, NLOSTEND 0 more"),
        ({"NLOST": "2.5"}, "NLOST is 2.5; expected a whole number"),
        ({"NLOST": "7", "NLOSTEND": "5"}, ""),
        ({"NTORN": "3"}, "NTORN is 3; expected 0 to NLOST"),
        ({"NTORN": None}, "NTORN is missing"),
        ({"CNT0_END": "7"}, "CNT0-END is 7; expected 1011, of FRAMES"),
        (
            {"MJD_BEG": "61366.0"},
            "MJD-BEG is 61366.00000000; expected 61366.37058997, of FRAMES",
        ),
        ({"DATE_AVG": "'2026'"}, "DATE-AVG is 2026; expected 2026-11-22T08:53:39.083218918"),
    ],
)
def test_counts_and_times_of_the_header_are_those_of_the_table(cube, fields, told):
    rewrite_header(cube, **fields)
    faults = check_cube(cube).faults
    assert faults == [] if not told else any(fault.startswith(told) for fault in faults), faults


def test_a_table_of_fewer_rows_than_frames_is_told(cube):
    rows = Take(FIRST_NS, frames=9, lost={3: 2}).rows
    table = hdus_of(cube)[1]
    overwrite(cube, table.header_offset, frames_hdu(rows))
    assert "the table FRAMES has 9 rows, the image 10 frames" in check_cube(cube).faults


def test_a_table_of_other_columns_is_told(cube):
    table = hdus_of(cube)[1]
    raw = table.cards.raw.replace(b"'CNT0    '", b"'COUNT   '")
    content = stamp_checksum(
        raw.ljust(len(raw)) + b"END".ljust(table.header_bytes - len(raw)),
        int(str(table.cards["DATASUM"])),
    )
    overwrite(cube, table.header_offset, content)
    assert "column 2 of the table FRAMES is COUNT of K; expected CNT0 of K" in the_fault(cube)


# -- the sidecar ------------------------------------------------------------------------------


def test_a_sidecar_that_is_missing_or_none_at_all_is_told(cube):
    text = cube.with_suffix(".txt")
    text.unlink()
    assert the_fault(cube) == f"the sidecar {text.name} is missing"
    text.mkdir()
    assert the_fault(cube) == "the sidecar is not a file but a folder"
    text.rmdir()
    with text.open("wb") as file:
        file.truncate(1 << 30)
    assert "the sidecar is no sidecar" in the_fault(cube)


def test_a_sidecar_of_another_length_is_told(cube):
    text = cube.with_suffix(".txt")
    lines = text.read_text().splitlines(keepends=True)
    text.write_text("".join(lines[:-1]))
    assert the_fault(cube) == "the sidecar has 9 lines of frames, the image 10 frames"
    text.write_text("".join([*lines, lines[-1]]))
    assert the_fault(cube) == "the sidecar has 11 lines of frames, the image 10 frames"
    text.write_text("".join(lines)[:-1])
    assert the_fault(cube) == "the sidecar breaks off in its last line"


def test_a_sidecar_that_differs_from_the_table_is_told(cube):
    text = cube.with_suffix(".txt")
    text.write_text(text.read_text().replace(" 1006 ", " 1066 "))
    told = the_fault(cube)
    assert (
        told.startswith("frame 4: the sidecar says '4 1066 ") and "table FRAMES '4 1006" in told
    )
    rewrite_rows(cube, put("CNT1", 7, 5), sidecar=False)
    assert "more like it" in the_fault(cube)


# -- foreign files ----------------------------------------------------------------------------


def foreign(path: Path, frames: int = 4) -> Path:
    """As milk's logger leaves it: no sums, no table."""
    cards = ["SIMPLE  =                    T", "BITPIX  = 16", "NAXIS   = 3", "NAXIS1  = 5",
             "NAXIS2  = 6", f"NAXIS3  = {frames}", "BZERO   = 32768", "BSCALE  = 1.0",
             "UT      = '08:53:39.15'", "END"]  # fmt: skip
    header = "".join(card.ljust(80) for card in cards).encode()
    data = bytes(2 * 5 * 6 * frames)
    path.write_bytes(header.ljust(-(-len(header) // BLOCK) * BLOCK) + data.ljust(BLOCK, b"\0"))
    rows = Take(FIRST_NS, frames=frames, lost={2: 3}).rows
    path.with_suffix(".txt").write_bytes(sidecar_text("x", rows))
    return path


def test_a_foreign_cube_is_called_foreign_and_its_gaps_are_counted(tmp_path):
    report = check_cube(foreign(tmp_path / "x.fits"), strict=True)
    assert (report.kind, report.faults, report.frames, report.lost) == ("foreign", [], 4, 3)
    told = "\n".join(report.warnings)
    assert "HDU 0 has no CHECKSUM and no DATASUM" in told
    assert "3 frames are missing by cnt0; the header says nothing" in told
    assert "UT is '08:53:39.15'; expected HH:MM:SS.ffffff" in told


def test_cubes_of_the_real_milk_logger_are_foreign_and_not_faulty():
    for name, frames in (("08:53:43.324746822", 8), ("08:53:43.723493539", 4)):
        report = check_cube(MILK_CUBES / f"vgold_{name}.fits", strict=True)
        assert (report.kind, report.faults, report.frames) == ("foreign", [], frames)
        assert report.lost == 0


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda lines: lines[:-1], "the sidecar has 3 lines of frames, the image 4 frames"),
        (lambda lines: [*lines[:-1], "rubbish\n"], "line 3 of the sidecar is no seven numbers"),
        (lambda lines: [lines[0], *lines[:-1]], "line 1 of the sidecar is that of frame 0"),
    ],
)
def test_the_sidecar_of_a_foreign_cube_must_fit_too(tmp_path, edit, told):
    path = foreign(tmp_path / "x.fits")
    text = path.with_suffix(".txt").read_text().splitlines(keepends=True)
    comments = [line for line in text if line.startswith("#")]
    path.with_suffix(".txt").write_text("".join(comments + edit(text[len(comments) :])))
    assert told in the_fault(path)


def test_a_foreign_file_that_is_cut_off_is_faulty(tmp_path):
    path = foreign(tmp_path / "x.fits")
    os.truncate(path, BLOCK + 100)
    assert "truncated: the data of HDU 0" in the_fault(path)


def test_foreign_files_without_a_cube_are_foreign(tmp_path):
    from astropy.io import fits

    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    fits.PrimaryHDU(np.zeros((5, 6))).writeto(tmp_path / "flat.fits", checksum=True)
    table = np.zeros(3, FRAME_DTYPE)
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table)]).writeto(tmp_path / "table.fits")
    frames = {"empty": 0, "flat": 1, "table": 0}
    for name, expected in frames.items():
        report = check_cube(tmp_path / f"{name}.fits")
        assert (report.kind, report.faults, report.frames) == ("foreign", [], expected)


# -- compressed cubes -------------------------------------------------------------------------


@pytest.fixture
def packed(cube: Path) -> Path:
    """The cube compressed; with pixels, which compress worse than zeros."""
    image = hdus_of(cube)[0]
    noise = np.random.default_rng(1).integers(0, 50, image.data_bytes // 2)
    data = noise.astype(">i2").tobytes().ljust(image.padded_bytes, b"\0")
    header = cube.read_bytes()[: image.data_offset]
    overwrite(cube, 0, stamp_checksum(header, data_sum(data)) + data)
    assert check_cube(cube).ok
    target = cube.with_name(f"{cube.name}.fz")
    subprocess.run(["fpack", "-O", target, cube], check=True, capture_output=True)
    return target


def test_a_compressed_cube_is_good_with_its_sidecar(packed):
    report = check_cube(packed)
    assert (report.kind, report.faults, report.warnings) == ("compressed", [], [])
    assert (report.frames, report.lost, report.torn) == (10, 2, 1)


def test_a_cube_compressed_in_its_place_is_good(packed):
    place = packed.with_suffix("")
    packed.replace(place)
    report = check_cube(place)
    assert report.ok and report.kind == "compressed"


def test_a_damaged_compressed_cube_is_told(packed):
    image = hdus_of(packed)[1]
    overwrite(packed, image.data_offset + image.data_bytes - 50, b"\x12\x34\x56")
    faults = check_cube(packed).faults
    assert "the data of HDU 1 are damaged" in faults[0]
    assert "its pixels" in faults[1]
    for size in range(0, packed.stat().st_size, BLOCK):
        os.truncate(shutil.copy(packed, packed.with_name("cut.fits.fz")), size)
        assert not check_cube(packed.with_name("cut.fits.fz")).ok


def test_pixels_that_changed_before_the_file_was_compressed_are_told(packed):
    raw = packed.read_bytes()
    image = hdus_of(packed)[1]
    stated = str(image.cards["ZDATASUM"])
    wrong = stated[:-1] + str((int(stated[-1]) + 1) % 10)
    header = raw[image.header_offset : image.data_offset].replace(
        f"ZDATASUM= '{stated}'".encode(), f"ZDATASUM= '{wrong}'".encode()
    )
    overwrite(
        packed, image.header_offset, stamp_checksum(header, int(str(image.cards["DATASUM"])))
    )
    assert the_fault(packed) == f"its pixels unpack to the sum {stated}, ZDATASUM is {wrong}"
    assert check_cube(packed, pixels=False).ok


def test_without_funpack_it_is_told_that_pixels_were_not_checked(packed, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    report = check_cube(packed)
    assert report.ok and "funpack is missing; install libcfitsio-bin" in report.warnings[0]


def test_a_name_in_brackets_is_no_request_to_funpack(packed):
    strange = packed.with_name("-S x[1](2).fits.fz")
    packed.rename(strange)
    assert all("sidecar" in fault for fault in check_cube(strange).faults)


def test_a_report_says_what_it_found_as_json_wants_it(tmp_path):
    report = CubeReport(tmp_path / "x.fits", faults=["a"], warnings=["b"])
    assert report.as_dict() == {
        "path": str(tmp_path / "x.fits"), "ok": False, "kind": "foreign", "frames": 0,
        "lost": 0, "torn": 0, "bytes": 0, "faults": ["a"], "warnings": ["b"],
    }  # fmt: skip
