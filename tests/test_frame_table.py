"""The table of frames: what is in the rows is in the file, and a torn journal still reads."""

import io
import subprocess

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vampires.frame_table import FRAME_DTYPE, FrameFlag, frames_hdu, read_journal

PRIMARY = "".join(
    card.ljust(80)
    for card in ("SIMPLE  =                    T", "BITPIX  =                    8",
                 "NAXIS   =                    0", "EXTEND  =                    T", "END")
).ljust(2880).encode("ascii")  # fmt: skip


def read_frames(hdu: bytes) -> tuple[np.ndarray, fits.Header]:
    with fits.open(io.BytesIO(PRIMARY + hdu), checksum=True) as hdus:
        hdus.verify("exception")
        assert hdus["FRAMES"].verify_checksum() == 1
        assert hdus["FRAMES"].verify_datasum() == 1
        return np.array(hdus["FRAMES"].data), hdus["FRAMES"].header.copy()


def test_a_row_is_56_bytes_packed():
    assert FRAME_DTYPE.itemsize == 56
    assert [FRAME_DTYPE.fields[name][1] for name in FRAME_DTYPE.names] == [
        0, 4, 12, 20, 28, 36, 44, 52
    ]  # fmt: skip


@given(hnp.arrays(FRAME_DTYPE, st.integers(0, 120)))
def test_rows_read_back_from_the_file_as_they_were(rows):
    hdu = frames_hdu(rows)
    assert len(hdu) % 2880 == 0
    data, header = read_frames(hdu)
    assert data.tobytes() == rows.tobytes()
    assert data.dtype.names == rows.dtype.names
    assert header["NAXIS2"] == len(rows)


def test_each_column_says_what_it_is_and_each_time_its_unit():
    _, header = read_frames(frames_hdu(np.zeros(1, FRAME_DTYPE)))
    for number, name in enumerate(FRAME_DTYPE.names, 1):
        assert header[f"TTYPE{number}"] == name
        assert header[f"TCOMM{number}"]
        assert header.get(f"TUNIT{number}") == ("ns" if name.startswith("T") else None)
    comments = str(header["COMMENT"])
    assert all(f"{flag.value} {flag.name}:" in comments for flag in FrameFlag)


@pytest.mark.parametrize("count", [0, 1, 250])
def test_fitsverify_finds_nothing(tmp_path, count):
    path = tmp_path / "frames.fits"
    path.write_bytes(PRIMARY + frames_hdu(np.zeros(count, FRAME_DTYPE)))
    run = subprocess.run(["fitsverify", path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("torn_bytes", [0, 1, 55])
@pytest.mark.parametrize("count", [0, 3])
def test_a_journal_reads_up_to_its_last_whole_row(tmp_path, count, torn_bytes):
    rows = np.zeros(count, FRAME_DTYPE)
    rows["CNT0"] = np.arange(count) + 7
    path = tmp_path / "journal"
    path.write_bytes(rows.tobytes() + b"\xff" * torn_bytes)
    assert read_journal(path).tolist() == rows.tolist()


def test_a_journal_of_the_disk_goes_straight_into_the_table(tmp_path):
    rows = np.arange(5 * 56, dtype=np.uint8).view(FRAME_DTYPE)
    path = tmp_path / "journal"
    path.write_bytes(rows.tobytes())
    assert frames_hdu(read_journal(path)) == frames_hdu(rows)


@pytest.mark.parametrize(
    "rows",
    [np.zeros(2), np.zeros((1, 2), FRAME_DTYPE), np.zeros(2, FRAME_DTYPE.newbyteorder())],
)
def test_rows_of_another_layout_are_refused(rows):
    with pytest.raises(ValueError, match="1-D of"):
        frames_hdu(rows)
