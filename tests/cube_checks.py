"""The proof of a recording, from its files alone.

Every pixel, row, sidecar line and header card is read again, by astropy or by hand, and must
fit the frames that were sent: frames carry their number in their pixels (vampires.frame_stamp),
so a lost, torn, doubled or misplaced frame shows.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from vampires import frame_stamp
from vampires.frame_table import FRAME_DTYPE, FrameFlag, Rows

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
HST_NS = -10 * 3600 * SECOND_NS
NEW_COUNT = FrameFlag.STREAM_RECREATED | FrameFlag.COUNTER_RESET
# numpy name of the stream's pixels -> BITPIX, text of BZERO, pixels as astropy reads them
PIXELS = {
    "uint8": ("8", None, "uint8"),
    "int8": ("8", "-128", "int8"),
    "int16": ("16", None, "int16"),
    "uint16": ("16", "32768", "uint16"),
    "int32": ("32", None, "int32"),
    "uint32": ("32", "2147483648", "uint32"),
    "int64": ("64", None, "int64"),
    "uint64": ("64", "9223372036854775808", "uint64"),
    "float16": ("-32", None, "float32"),
    "float32": ("-32", None, "float32"),
    "float64": ("-64", None, "float64"),
}


@dataclass(frozen=True)
class Cube:
    """A cube that passed: cards holds the value text of each keyword as it stands in the file,
    rows the table FRAMES, first_ns the time its name tells."""

    path: Path
    cards: dict[str, str]
    history: str
    rows: Rows
    first_ns: int
    last_ns: int

    def number(self, name: str) -> int:
        return int(self.cards[name])

    def string(self, name: str) -> str:
        return self.cards[name].strip("'").rstrip()

    @property
    def reason(self) -> str:
        found = re.search(r"end of the cube: (.*)", self.history)
        return found.group(1).strip() if found else ""


def make_pool(shape: tuple[int, int], dtype: str, frames: int = 7, seed: int = 1) -> np.ndarray:
    """[frames, ny, nx] of pixels over the whole range of the type."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, (frames, *shape)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, (frames, *shape), dtype, endpoint=True)


def check_cubes(files: Sequence[str | Path], pool: np.ndarray | None = None) -> list[Cube]:
    """The cubes, in the order given, after every check of a file and of the files together.

    pool: what the camera sent, frame cnt0 being frame_stamp.expected_frame(pool, cnt0); without
    one only the stamps of the frames are checked, as uint16.
    """
    cubes = [_checked_cube(Path(file), pool) for file in files]
    check_order(cubes)
    verify([cube.path for cube in cubes])
    return cubes


def check_order(cubes: Sequence[Cube]) -> None:
    """Over all cubes of one logger, the counter steps by the frames said to be lost and one."""
    before, lost_at_end = None, 0
    for cube in cubes:
        for row in cube.rows:
            if before is not None and not row["FLAGS"] & NEW_COUNT:
                step = int(row["CNT0"]) - int(before["CNT0"])
                assert step == int(row["LOST"]) + 1 + lost_at_end, (cube.path, before, row)
            before, lost_at_end = row, 0
        lost_at_end = cube.number("NLOSTEND")


def check_result(result: dict[str, Any], cubes: Sequence[Cube], *, untold: int = 0) -> None:
    """The numbers a logger ends with are those of its files.

    untold: frames lost when no cube was there to say so.
    """
    logged = sum(len(cube.rows) for cube in cubes)
    lost = sum(cube.number("NLOST") for cube in cubes) + untold
    assert list(result) == [
        "stream", "frames_seen", "frames_logged", "lost", "torn", "bytes", "seconds", "files"
    ]  # fmt: skip
    assert result["files"] == [str(cube.path) for cube in cubes]
    assert result["frames_logged"] == logged
    assert result["lost"] == lost
    assert result["frames_seen"] == logged + lost
    assert result["torn"] >= sum(cube.number("NTORN") for cube in cubes)
    assert result["bytes"] == sum(map(pixel_bytes, cubes))
    assert result["seconds"] > 0


def pixel_bytes(cube: Cube) -> int:
    """Bytes of the image, without padding."""
    sizes = [cube.number(f"NAXIS{axis}") for axis in (1, 2, 3)]
    return abs(cube.number("BITPIX")) // 8 * int(np.prod(sizes))


def hidden_files(root: Path) -> list[str]:
    """Whatever a logger has not finished below root."""
    return sorted(str(path) for path in root.rglob(".*"))


def verify(files: Sequence[Path]) -> None:
    """fitsverify finds neither errors nor warnings."""
    if not files:
        return
    command = ["fitsverify", "-q", *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0, ran.stdout
    assert [line for line in lines if not line.startswith("verification OK")] == []
    assert len(lines) == len(files)


def _checked_cube(path: Path, pool: np.ndarray | None) -> Cube:
    with fits.open(path, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "FRAMES"]
        for hdu in hdus:
            assert all(card.keyword for card in hdu.header.cards)
            assert hdu.verify_checksum() == 1 and hdu.verify_datasum() == 1
        pixels = np.array(hdus[0].data)
        table = hdus["FRAMES"].data
        rows = np.empty(len(table), FRAME_DTYPE)
        for name in FRAME_DTYPE.names:
            rows[name] = table[name]
    cards, history = raw_header(path.read_bytes())
    cube = Cube(path, cards, history, rows, *_times(cards, rows))
    _check_layout(cube, pixels, pool)
    _check_rows(cube)
    _check_pixels(cube, pixels, pool)
    _check_times(cube)
    _check_sidecar(cube)
    return cube


def raw_header(content: bytes) -> tuple[dict[str, str], str]:
    """Value text by keyword, without comments, and all HISTORY as one text of lines."""
    cards: dict[str, str] = {}
    history = []
    for at in range(0, len(content), 80):
        card = content[at : at + 80].decode("ascii")
        name, text = card[:8].rstrip(), card[10:]
        if name == "END":
            break
        assert name, f"card {at // 80 + 1} has no keyword"
        if name == "HISTORY":
            history.append(card[8:].strip())
        elif name == "HIERARCH":
            long_name, _, text = card[9:].partition("=")
            name = long_name.strip()
        if card[8:10] == "= " or card.startswith("HIERARCH"):
            assert name not in cards, f"{name} twice"
            cards[name] = re.match(r"\s*('(?:[^']|'')*'|[^/]*)", text).group(1).strip()
    return cards, "\n".join(history)


def _times(cards: dict[str, str], rows: Rows) -> tuple[int, int]:
    """First and last time of the cube: of acquisition where its first frame has one."""
    source = rows["TACQ"] if rows["TACQ"][0] else rows["TLOG"]
    known = source[source != 0]
    return int(known[0]), int(known[-1])


def _check_layout(cube: Cube, pixels: np.ndarray, pool: np.ndarray | None) -> None:
    cards = cube.cards
    bitpix, bzero, as_read = PIXELS["uint16" if pool is None else str(pool.dtype)]
    assert cards["SIMPLE"] == "T" and cards["NAXIS"] == "3" and cards["EXTEND"] == "T"
    assert cards["BITPIX"] == bitpix
    assert (cards.get("BZERO"), cards.get("BSCALE")) == (bzero, "1" if bzero else None)
    assert pixels.ndim == 3 and pixels.dtype.newbyteorder("=") == np.dtype(as_read)
    assert cube.number("NAXIS3") == len(pixels) == len(cube.rows) > 0
    assert cube.path.stat().st_size % 2880 == 0


def _check_rows(cube: Cube) -> None:
    rows = cube.rows
    assert rows["FRAME"].tolist() == list(range(len(rows)))
    assert (rows["LOST"] >= 0).all() and (rows["TLOG"] > 0).all()
    assert cube.number("CNT0-BEG") == rows["CNT0"][0]
    assert cube.number("CNT0-END") == rows["CNT0"][-1]
    assert cube.number("NLOST") == rows["LOST"].sum() + cube.number("NLOSTEND")
    assert 0 <= cube.number("NTORN") <= cube.number("NLOST")
    torn = rows["FLAGS"] & FrameFlag.TORN_BEFORE != 0
    assert (rows["LOST"][torn] > 0).all()
    full = rows["FLAGS"] & FrameFlag.RING_FULL != 0
    assert (rows["LOST"][full] > 0).all()


def _check_pixels(cube: Cube, pixels: np.ndarray, pool: np.ndarray | None) -> None:
    dtype = "uint16" if pool is None else pool.dtype
    sent = cube.rows["CNT0"].tolist()
    first, last = frame_stamp.read_stamps(pixels, dtype)
    numbers = [frame_stamp.stamped_number(cnt0, dtype) for cnt0 in sent]
    assert first.tolist() == numbers and last.tolist() == numbers, cube.path
    if pool is not None:
        expected = np.stack([frame_stamp.expected_frame(pool, cnt0) for cnt0 in sent])
        np.testing.assert_array_equal(pixels, expected.astype(pixels.dtype))


def iso(time_ns: int, digits: int = 9) -> str:
    """YYYY-MM-DDTHH:MM:SS.nnnnnnnnn of a time, truncated to digits decimals."""
    seconds, fraction = divmod(time_ns, SECOND_NS)
    text = str(np.datetime64(seconds, "s"))
    return f"{text}.{fraction:09d}"[: 20 + digits] if digits else text


def _check_times(cube: Cube) -> None:
    first, last = cube.first_ns, cube.last_ns
    middle = first + (last - first) // 2
    assert first <= last and first // DAY_NS == last // DAY_NS
    for suffix, fits_suffix, time_ns in (
        ("-STR", "BEG", first), ("-END", "END", last), ("", "AVG", middle)
    ):  # fmt: skip
        assert cube.string(f"DATE-{fits_suffix}") == iso(time_ns)
        assert cube.string(f"UT{suffix}") == iso(time_ns, 6)[11:]
        assert cube.string(f"HST{suffix}") == iso(time_ns + HST_NS, 6)[11:]
        for name in (f"MJD{suffix}", f"MJD-{fits_suffix}"):
            text = cube.cards[name]
            assert len(text.partition(".")[2]) >= 8
            whole, fraction = divmod(time_ns, DAY_NS)
            assert abs(float(text) - 40587 - whole - fraction / DAY_NS) < 2e-11 + 1e-11 * 1e3
    assert cube.string("UT-STR") <= cube.string("UT-END")
    assert cube.string("DATE-OBS") == iso(first)[:10]
    assert re.fullmatch(r"'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d'", cube.cards["DATE"])
    assert cube.string("TIMESYS") == "UTC"
    _check_name(cube)


def _check_name(cube: Cube) -> None:
    """After the first frame; a few nanoseconds later where that name was taken."""
    found = re.fullmatch(r"[A-Za-z0-9]+_(\d\d:\d\d:\d\d)\.(\d{9})\.fits", cube.path.name)
    assert found, cube.path.name
    names = [iso(cube.first_ns + later)[11:] for later in range(4)]
    assert f"{found[1]}.{found[2]}" in names


def _check_sidecar(cube: Cube) -> None:
    lines = cube.path.with_suffix(".txt").read_text("ascii").splitlines()
    data = [line for line in lines if not line.startswith("#")]
    assert len(data) == len(cube.rows)
    origin = int(cube.rows["TLOG"][0])
    for line, row in zip(data, cube.rows, strict=True):
        seconds, micros = divmod(int(row["TACQ"]) // 1000, 10**6)
        logged = int(row["TLOG"])
        since = logged - origin
        sign, since = ("-" if since < 0 else ""), abs(since)
        assert line.split() == [
            str(row["FRAME"]),
            str(row["CNT0"]),
            f"{sign}{since // SECOND_NS}.{since % SECOND_NS:09d}",
            f"{logged // SECOND_NS}.{logged % SECOND_NS:09d}",
            f"{seconds}.{micros:06d}",
            str(row["CNT0"]),
            str(row["CNT1"]),
        ]
