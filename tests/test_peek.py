"""vampires-peek shows and saves what is in the file, with memory for a frame, and says in one
line what is wrong with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from cube_checks import verify
from fps_terminal import terminal
from PIL import Image
from pixel_cubes import pixel_cube, some_pixels

from vampires.cube_pixels import CubePixels, summary
from vampires.fits_hdus import FitsInvalid
from vampires.frame_image import Colours, terminal_colours, terminal_picture, zscale_limits

DTYPES = [
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float32", "float64",
]  # fmt: skip


def packed(cube: Path) -> Path:
    """The cube, compressed by fpack."""
    lossless = ["-g", "-q", "0"] if fits.getdata(cube).dtype.kind == "f" else ["-r"]
    target = cube.with_name(cube.name + ".fz")
    subprocess.run(["fpack", *lossless, "-O", str(target), str(cube)], check=True)
    return target


def frames_of(path: Path) -> np.ndarray:
    with CubePixels(path) as pixels:
        assert pixels.fault == ""
        return np.stack([pixels.frame(index) for index in range(pixels.shape[0])])


def one_line(ran: subprocess.CompletedProcess[str], *says: str, status: int = 2) -> None:
    lines = ran.stderr.splitlines()
    assert ran.returncode == status and len(lines) == 1, ran.stderr
    assert lines[0].startswith("vampires-peek: ")
    for words in says:
        assert words in lines[0]
    assert ran.stdout == ""


# Frames of a file


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pixel_type_reads_as_it_was_recorded(tmp_path, dtype):
    sent = some_pixels(dtype=dtype)
    read = frames_of(pixel_cube(tmp_path, sent))
    assert read.dtype == sent.dtype
    np.testing.assert_array_equal(read, sent)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_compressed_cubes_read_the_same(tmp_path, dtype):
    sent = some_pixels(dtype=dtype)
    np.testing.assert_array_equal(frames_of(packed(pixel_cube(tmp_path, sent))), sent)


def test_pixels_that_are_no_numbers_stay_so(tmp_path):
    sent = some_pixels(dtype="float32")
    sent[1, 2, 3], sent[2, 4, 5] = np.nan, np.inf
    cube = pixel_cube(tmp_path, sent)
    np.testing.assert_array_equal(frames_of(cube), sent)
    sent[2, 4, 5] = np.nan  # fpack makes one of every infinity
    np.testing.assert_array_equal(frames_of(packed(cube)), sent)


def foreign_files(folder: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Files of other programs, and what their frames are."""
    image = np.arange(12, dtype=np.int16).reshape(3, 4)
    scaled = fits.PrimaryHDU(image)
    scaled.header["BSCALE"], scaled.header["BZERO"] = 0.5, 10.0
    blank = fits.PrimaryHDU(image)
    blank.header["BLANK"] = 5
    hdus = {
        "flat": (fits.HDUList([fits.PrimaryHDU(image)]), image[None]),
        "extension": (
            fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.stack([image, image + 1]))]),
            np.stack([image, image + 1]),
        ),
        "four axes": (
            fits.HDUList([fits.PrimaryHDU(np.arange(48.0).reshape(2, 2, 3, 4))]),
            np.arange(48.0).reshape(4, 3, 4),
        ),
        "scaled": (fits.HDUList([scaled]), (image * 0.5 + 10)[None]),
        "blank": (fits.HDUList([blank]), np.where(image == 5, np.nan, image)[None]),
    }
    made = {}
    for name, (hdu_list, expected) in hdus.items():
        path = folder / f"{name}.fits"
        raw = name in ("scaled", "blank")  # the numbers as given are those that are stored
        hdu_list.writeto(path, output_verify="silentfix" if not raw else "ignore")
        if raw:
            with fits.open(path, mode="update", do_not_scale_image_data=True) as again:
                again[0].data = image
                for keyword in ("BSCALE", "BZERO", "BLANK"):
                    if keyword in hdu_list[0].header:
                        again[0].header[keyword] = hdu_list[0].header[keyword]
        made[name] = (path, expected)
    return made


def test_foreign_files_read_as_astropy_reads_them(tmp_path):
    for name, (path, expected) in foreign_files(tmp_path).items():
        np.testing.assert_array_equal(frames_of(path), expected, err_msg=name)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32"])
def test_mean_deviation_and_maximum_are_those_of_all_frames(tmp_path, dtype, compressed):
    sent = some_pixels(7, dtype=dtype)
    cube = pixel_cube(tmp_path, sent)
    with CubePixels(packed(cube) if compressed else cube) as pixels:
        wide = sent.astype(float)
        np.testing.assert_allclose(summary(pixels, "mean"), wide.mean(axis=0), rtol=1e-6)
        deviation = summary(pixels, "std")
        np.testing.assert_allclose(deviation, wide.std(axis=0), rtol=1e-5, atol=1e-6)
        greatest = summary(pixels, "max")
        assert greatest.dtype == sent.dtype
        np.testing.assert_array_equal(greatest, sent.max(axis=0))


def test_what_is_not_finite_is_left_out_of_mean_deviation_and_maximum(tmp_path):
    sent = some_pixels(4, dtype="float32")
    sent[0, 1, 1], sent[1, 1, 1] = np.nan, np.inf
    sent[:, 2, 2] = np.nan
    with CubePixels(pixel_cube(tmp_path, sent)) as pixels:
        for what, numpy_does in (("mean", np.mean), ("std", np.std), ("max", np.max)):
            found = summary(pixels, what)
            np.testing.assert_allclose(found[1, 1], numpy_does(sent[2:, 1, 1]), rtol=1e-5)
            assert np.isnan(found[2, 2]) and np.isfinite(found).sum() == found.size - 1


def test_memory_is_that_of_a_few_frames_whatever_the_cube(tmp_path):
    path = tmp_path / "long.fits"
    header = fits.Header([("SIMPLE", True), ("BITPIX", 16), ("NAXIS", 3), ("NAXIS1", 1024)])
    header["NAXIS2"], header["NAXIS3"] = 512, 400  # 1 MB a frame
    header["BZERO"], header["BSCALE"] = 32768, 1
    path.write_bytes(header.tostring().encode())
    os.truncate(path, path.stat().st_size + 400 * (1 << 20) + -(400 << 20) % 2880)
    source = (
        "import resource, sys\n"
        "from vampires.cube_pixels import CubePixels, summary\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "summary(CubePixels(sys.argv[1]), 'std')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", source, str(path)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 40 << 10  # KiB


# What is saved


def test_a_saved_frame_has_the_header_of_the_cube_and_its_own_time(tmp_path, run_command):
    sent = some_pixels()
    cube = pixel_cube(tmp_path, sent)
    for number, source in enumerate((cube, packed(cube))):
        out = tmp_path / f"out{number}.fits"
        ran = run_command("peek", source, "--frame", 3, "-o", out)
        assert (ran.returncode, ran.stderr) == (0, "")
        verify([out])
        with fits.open(out, checksum=True) as hdus:
            header, (frame,) = hdus[0].header, hdus[0].data
        np.testing.assert_array_equal(frame, sent[3])
        assert header["NAXIS"] == 3 and header["NAXIS3"] == 1
        assert header["OBJECT"] == "scexao" and header["U_CAMERA"] == 1
        assert header["UT-STR"] == header["UT"] == header["UT-END"] == "00:00:00.688172"
        assert header["DATE-BEG"] == "2024-06-13T00:00:00.688172287"
        assert header["CNT0-BEG"] == header["CNT0-END"] == 1003
        assert any(f"frame 3 (from 0) of the 5 frames of {source.name}" in line
                   for line in header["HISTORY"])  # fmt: skip
        assert not [name for name in header if name.startswith("Z")]


def test_a_saved_mean_has_the_times_of_the_cube(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    out = tmp_path / "mean.fits"
    assert run_command("peek", cube, "--mean", "-o", out).returncode == 0
    verify([out])
    saved, original = fits.getheader(out), fits.getheader(cube)
    for name in ("UT-STR", "UT-END", "MJD", "CNT0-BEG", "CNT0-END", "NLOST", "CRVAL1D"):
        assert saved[name] == original[name]
    assert any("mean of the 5 frames" in line for line in saved["HISTORY"])
    assert saved["BITPIX"] == -32 and "BZERO" not in saved


def test_a_picture_has_a_pixel_a_pixel_and_row_0_at_the_bottom(tmp_path, run_command):
    sent = np.full((1, 20, 30), 100, np.uint16)
    sent[0] += np.random.default_rng(1).integers(0, 20, (20, 30), dtype=np.uint16)
    sent[0, 0, 0] = 60_000
    sent[0, 0, 1] = 0
    out = tmp_path / "out.png"
    assert run_command("peek", pixel_cube(tmp_path, sent), "-o", out).returncode == 0
    with Image.open(out) as picture:
        assert picture.size == (30, 20) and picture.mode == "L"
        assert picture.getpixel((0, 19)) == 255 and picture.getpixel((1, 19)) == 0
        assert "vcam1_00:00:00.628172287.fits" in picture.text["Source"]


@pytest.mark.parametrize("name", ["out.png", "out.fits"])
def test_nothing_is_overwritten_unless_forced(tmp_path, run_command, name):
    cube, out = pixel_cube(tmp_path, some_pixels()), tmp_path / name
    out.write_text("mine")
    one_line(run_command("peek", cube, "-o", out), "is there already", "--force")
    assert out.read_text() == "mine"
    assert run_command("peek", cube, "-o", out, "--force").returncode == 0
    assert out.stat().st_size > 100
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


# What is told


def test_the_numbers_of_a_frame_as_json(tmp_path, run_command):
    sent = some_pixels(dtype="float32")
    sent[-1, 0, 0] = np.nan
    ran = run_command("peek", pixel_cube(tmp_path, sent), "--frame", -1, "--json")
    told = json.loads(ran.stdout)
    assert told["frame"] == 4 and told["frames"] == 5 and told["shape"] == [12, 20]
    assert told["time"] == "2024-06-13T00:00:00.708172287" and told["cnt0"] == 1004
    assert told["not_finite"] == 1 and told["dtype"] == "float32"
    assert told["mean"] == pytest.approx(np.nanmean(sent[-1]), rel=1e-6)
    assert told["saved"] is None and len(told["zscale"]) == 2


def test_a_frame_without_a_finite_pixel_has_no_numbers(tmp_path, run_command):
    cube = pixel_cube(tmp_path, np.full((1, 4, 5), np.nan, np.float32))
    told = json.loads(run_command("peek", cube, "--json").stdout)
    assert told["mean"] is None and told["not_finite"] == 20
    assert run_command("peek", cube, "-o", tmp_path / "out.png").returncode == 0


def test_a_cube_of_one_frame_of_one_pixel(tmp_path, run_command):
    cube = pixel_cube(tmp_path, np.array([[[7]]], np.uint16))
    assert "1 frame, 1 x 1 uint16" in run_command("peek", cube).stdout
    assert run_command("peek", cube, "--std", "-o", tmp_path / "o.fits").returncode == 0


def test_a_name_that_would_move_the_cursor_is_neutralised(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    odd = cube.rename(tmp_path / "a\x1b[2Jb\n.fits")
    ran = run_command("peek", odd)
    assert ran.returncode == 0 and "\x1b" not in ran.stdout
    one_line(run_command("peek", odd, "--frame", 9), "no frame 9")


# What is wrong


def test_what_cannot_be_looked_at_is_told_in_one_line(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels())
    (tmp_path / "text.fits").write_text("no FITS at all\n" * 300)
    (tmp_path / "empty.fits").touch()
    (tmp_path / "x.fits").mkdir()
    (tmp_path / "dangling.fits").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.fits")
    fits.PrimaryHDU().writeto(tmp_path / "nothing.fits")
    for arguments, says in (
        ((cube, "--frame", 5), "holds 5; expected 0 to 4"),
        ((cube, "--frame", -6), "no frame -6"),
        ((tmp_path / "text.fits",), "not FITS"),
        ((tmp_path / "empty.fits",), "empty file"),
        ((tmp_path / "x.fits",), "a folder"),
        ((tmp_path / "pipe.fits",), "a pipe"),
        ((tmp_path / "dangling.fits",), "No such file"),
        ((tmp_path / "none.fits",), "No such file"),
        ((tmp_path / "nothing.fits",), "no image"),
        ((cube, "-o", tmp_path / "x.jpg"), ".png or .fits"),
        ((cube, "-o", tmp_path / "no" / "x.png"), "there is no folder"),
        ((cube, "-o", tmp_path / "x.fits"), "is a folder"),
        ((cube, "--frame", 1, "--mean"), "not allowed with"),
        ((), "either FILE or --follow"),
        ((cube, "--follow", "vcam1"), "either FILE or --follow"),
        (("--follow", "vcam1", "--mean"), "for a FILE"),
        (("--follow", "nosuch"), "no stream 'nosuch'"),
    ):
        one_line(run_command("peek", *arguments), says)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_at_any_block_shows_what_is_whole_or_one_line(tmp_path, compressed):
    sent = some_pixels(4, (40, 50))
    cube = pixel_cube(tmp_path, sent)
    content = (packed(cube) if compressed else cube).read_bytes()
    cut = tmp_path / "cut.fits"
    for size in range(0, len(content), 2880):
        cut.write_bytes(content[:size])
        try:
            with CubePixels(cut) as pixels:
                whole = pixels.whole_frames
                for index in range(whole):
                    np.testing.assert_array_equal(pixels.frame(index), sent[index])
                # at the end of an HDU a shorter file is whole
                assert pixels.fault or whole == len(sent)
                with pytest.raises(FitsInvalid):
                    pixels.frame(whole)
        except FitsInvalid as error:
            assert "\n" not in str(error)


def test_a_frame_of_a_cut_file_is_shown_with_a_warning(tmp_path, run_command):
    cube = pixel_cube(tmp_path, some_pixels(4, (40, 50)))
    os.truncate(cube, cube.stat().st_size - 3 * 2880 - 6000)
    ran = run_command("peek", cube)
    assert ran.returncode == 1 and "frame 0 of 0 to 3" in ran.stdout
    assert "truncated" in ran.stderr and len(ran.stderr.splitlines()) == 1
    one_line(run_command("peek", cube, "--frame", 3), "frame 3 is not whole", "--frame 0 to")
    one_line(run_command("peek", cube, "--mean"), "of 4 frames whole are")


def test_broken_tiles_are_told_in_one_line(tmp_path, run_command):
    target = packed(pixel_cube(tmp_path, some_pixels(2, (40, 50))))
    with CubePixels(target) as pixels:
        offset = pixels._hdu.data_offset
    content = bytearray(target.read_bytes())
    content[offset : offset + 80 * 8] = b"\x7f" * 640
    target.write_bytes(content)
    one_line(run_command("peek", target), "cannot be unpacked")


# In a terminal


def text_of(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_the_picture_fits_into_the_terminal_in_its_proportions():
    frame = np.arange(1104 * 2228, dtype=np.float32).reshape(1104, 2228)
    for columns, rows in ((80, 20), (200, 50), (20, 2), (1, 1)):
        for colours in Colours:
            lines = text_of(terminal_picture(frame, (0, 1e6), columns, rows, colours))
            assert 1 <= len(lines) <= rows
            assert max(map(len, lines)) <= columns
    lines = text_of(terminal_picture(frame, (0, 1e6), 80, 60, Colours.TRUE))
    assert (len(lines), len(lines[0])) == (20, 80)
    small = terminal_picture(np.eye(3), (0.0, 1.0), 12, 6, Colours.NONE)
    assert [line.rstrip() for line in small] == [
        "        @@@@", "        @@@@", "    @@@@", "    @@@@", "@@@@", "@@@@"
    ]  # fmt: skip


def test_colours_are_those_the_terminal_has():
    assert terminal_colours({"TERM": "xterm-256color"}) is Colours.PALETTE
    assert terminal_colours({"TERM": "xterm", "COLORTERM": "truecolor"}) is Colours.TRUE
    assert terminal_colours({"TERM": "xterm", "NO_COLOR": "1"}) is Colours.NONE
    assert terminal_colours({}) is Colours.NONE


def test_limits_of_grey_are_finite_for_every_frame():
    for frame in (
        np.full((3, 4), np.nan),
        np.zeros((1, 1), np.uint16),
        np.array([[1e308, -1e308], [np.inf, np.nan]]),
        some_pixels(1, dtype="uint64")[0],
    ):
        low, high = zscale_limits(frame)
        assert np.isfinite([low, high]).all() and low <= high


def test_a_frame_on_an_80x24_terminal(tmp_path):
    cube = pixel_cube(tmp_path, some_pixels(3, (110, 222)))
    with terminal(80, 24) as screen:
        screen.start([sys.executable, "-m", "vampires.commands.peek", str(cube)])
        screen.wait_for("EXIT 0")
        # the line below EXIT took the first of them off the screen
        lines = screen.tmux("capture-pane", "-p", "-S", "-1", "-t", "test").splitlines()
    pictured = [line for line in lines if line.startswith("▀")]
    assert len(pictured) == 20 and {len(line) for line in pictured} == {80}
    assert lines[20] == "vcam1_00:00:00.628172287.fits: frame 0 of 0 to 2, 222 x 110 uint16"
    assert lines[21].startswith("2024-06-13 00:00:00.628172287 UTC, cnt0 1000")
    assert lines[22].startswith("min ")


def test_help_imports_nothing_heavy():
    source = (
        "import sys, vampires.commands.peek as peek, vampires.commands.archive as archive\n"
        "for one in (peek, archive):\n"
        "    one._parser().format_help()\n"
        "heavy = {'numpy', 'astropy', 'PIL', 'distributed', 'concurrent.futures.process'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", source], text=True) == "[]\n"
