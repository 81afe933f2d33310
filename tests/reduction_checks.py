"""What the archive tools and the reduction need of each cube of a night, from the files alone.

Nothing here is the package's own: the files are read with astropy and as text, and the rules
are those of the readers. Each function returns faults, none where all is well; a fault is known
by its code. Frames against the truth of the simulator: reduction_truth.
"""

from __future__ import annotations

import re
import subprocess
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SETS = ("", "B", "C", "D")  # endings of the four sets of coordinates
DAY_US = 86_400_000_000
MJD_1970 = date(1970, 1, 1).toordinal() - date(1858, 11, 17).toordinal()
BACKGROUND_S = 0.1  # so far the exposure time of a dark may be off
LONGEST_PATH = 255
CAUGHT_UP = 64

TEXT, NUMBER, WHOLE, LOGICAL = "text", "number", "whole number", "logical"
POSITIVE = (1e-9, np.inf)
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.(\d{6})")
FIELDS = {"PRIMARY", "NA", "F610", "F670", "F720", "F760"}
SEXAGESIMAL = re.compile(r"[+-]?\d\d:\d\d:\d\d(\.\d+)?")
DATA_TYPES = {
    "ACQUISITION", "BIAS", "COMPARISON", "DARK", "DOMEFLAT", "FLAT", "FOCUSING", "OBJECT",
    "SKYFLAT", "STANDARD", "TEST",
}  # fmt: skip

# Keyword -> the kind of its value, and what it may be: any (None), one of these, a pattern that
# it matches, or a number from a to b.
KEYWORDS: dict[str, tuple[str, object]] = {
    # the image
    "NAXIS": (WHOLE, {3}),
    "NAXIS1": (WHOLE, POSITIVE),
    "NAXIS2": (WHOLE, POSITIVE),
    "NAXIS3": (WHOLE, POSITIVE),
    "BITPIX": (WHOLE, {16}),
    "BZERO": (WHOLE, {32768}),
    "BSCALE": (WHOLE, {1}),
    "BUNIT": (TEXT, {"adu", "ADU"}),
    # when
    "DATE": (TEXT, re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")),
    "DATE-OBS": (TEXT, re.compile(r"\d{4}-\d\d-\d\d")),
    **dict.fromkeys(("UT", "UT-STR", "UT-END", "HST", "HST-STR", "HST-END"), (TEXT, CLOCK)),
    **dict.fromkeys(("MJD", "MJD-STR", "MJD-END"), (NUMBER, (60000, 90000))),
    # sorting into folders, and the choice of calibrations
    "DATA-TYP": (TEXT, DATA_TYPES),
    "OBJECT": (TEXT, re.compile("[^/]+")),
    "FILTER01": (TEXT, re.compile(".+")),
    "FILTER02": (TEXT, re.compile(".+")),
    "U_FLDSTP": (TEXT, re.compile(".+")),
    "EXPTIME": (NUMBER, POSITIVE),
    "U_CAMERA": (WHOLE, {1, 2}),
    "U_DETMOD": (TEXT, {"FAST", "SLOW"}),
    "DETECTOR": (TEXT, {"VCAM1 - OrcaQ", "VCAM2 - OrcaQ"}),
    "OBS-MOD": (TEXT, re.compile("(IPOL|IMAG)(_(MBI|MBIR|SDI|PUP))?")),
    **dict.fromkeys(("PRD-MIN1", "PRD-MIN2"), (WHOLE, (0, 4095))),
    **dict.fromkeys(("PRD-RNG1", "PRD-RNG2"), (WHOLE, (1, 4096))),
    "CROPPED": (LOGICAL, None),
    # the liquid crystal and polarimetry
    "EXTTRIG": (LOGICAL, None),
    "U_FLCEN": (LOGICAL, None),
    "U_FLCST": (TEXT, {"IN", "OUT"}),
    "U_TRIGJT": (NUMBER, (0, 1e5)),
    "U_FLC": (TEXT, {"NA"}),
    "U_MBI": (TEXT, None),
    "RET-MOD1": (TEXT, None),
    "RET-ANG1": (NUMBER, None),
    # where
    "RA": (TEXT, SEXAGESIMAL),
    "DEC": (TEXT, SEXAGESIMAL),
    "RADESYS": (TEXT, {"FK5", "ICRS"}),
    "EQUINOX": (NUMBER, (1900, 2100)),
    "AIRMASS": (NUMBER, (0.99, 40)),
    "ALTITUDE": (NUMBER, (-90, 90)),
    "AZIMUTH": (NUMBER, (-360, 360)),
    **dict.fromkeys(("D_IMRPAP", "D_IMRPAD", "D_IMRANG", "INST-PA"), (NUMBER, (-360, 360))),
    # the detector
    **dict.fromkeys(("GAIN", "DET-TMP", "FRATE", "MFRATE", "F-RATIO"), (NUMBER, (0, 1e5))),
    **dict.fromkeys(("BIN-FCT1", "BIN-FCT2"), (WHOLE, {1})),
    # coordinates
    **{f"WCSNAME{end}": (TEXT, FIELDS) for end in SETS},
    **{f"CTYPE1{end}": (TEXT, {"RA---TAN"}) for end in SETS},
    **{f"CTYPE2{end}": (TEXT, {"DEC--TAN"}) for end in SETS},
    **{f"{name}{end}": (NUMBER, None) for name in ("CRPIX1", "CRPIX2") for end in SETS},
    **{f"{name}{end}": (NUMBER, None) for name in ("CRVAL1", "CRVAL2") for end in SETS},
}

# Each makes the reduction take the cube for one of another instrument or of a later step.
NEVER = ("ACQNCYCS", "U_EMGAIN", "U_HWPANG", "U_FLCSTT")

PATH = re.compile(r"(\d{8})/([A-Za-z0-9]+)/([A-Za-z0-9]+)_(\d\d:\d\d:\d\d\.\d{9})\.fits(\.fz)?")


@dataclass(frozen=True)
class Fault:
    """code: what is wrong; where: the file; found: the keyword, frame or value."""

    code: str
    where: str
    found: object = None


@dataclass(frozen=True)
class RawCube:
    """A cube and its sidecar. lost: frames missing before each (column LOST); late: whether it
    was read after newer frames had come (bit 64 of FLAGS); lines: the sidecar's, without
    comments, as words."""

    path: Path
    header: fits.Header
    lost: np.ndarray
    late: np.ndarray
    lines: list[list[str]]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def frames(self) -> int:
        return int(self.header["NAXIS3"])

    @property
    def cnt0(self) -> list[int]:
        """Counter of each frame."""
        return [int(line[1]) for line in self.lines]

    @property
    def acquired_us(self) -> list[int]:
        """Acquisition of each frame, microseconds since 1970."""
        return [_microseconds(line[4]) for line in self.lines]

    def pixels(self) -> np.ndarray:
        """[frames, y, x]."""
        with fits.open(self.path) as hdus:
            return np.array(hdus[_image_number(self.path)].data)


def read_cube(path: Path) -> RawCube:
    """Reads all but the pixels."""
    with fits.open(path) as hdus:
        header = hdus[_image_number(path)].header.copy()
        rows = hdus["FRAMES"].data
        lost, late = np.array(rows["LOST"], np.int64), np.array(rows["FLAGS"] & CAUGHT_UP != 0)
    text = sidecar_of(path).read_text("ascii").splitlines()
    lines = [line.split() for line in text if line[:1] != "#"]
    return RawCube(path, header, lost, late, lines)


def read_cubes(root: Path, stream: str, ending: str = ".fits") -> list[RawCube]:
    """The cubes of a stream below a folder, in the order of their first frames."""
    cubes = [read_cube(path) for path in root.rglob(f"*/{stream}/*{ending}")]
    return sorted(cubes, key=lambda cube: cube.acquired_us[:1])


def sidecar_of(path: Path) -> Path:
    """The sidecar of a cube, compressed or not."""
    return path.with_name(path.name.split(".fits")[0] + ".txt")


def cube_faults(cube: RawCube) -> list[Fault]:
    """All that can be said of one cube."""
    return [
        *path_faults(cube.path),
        *file_faults(cube.path),
        *sidecar_faults(cube),
        *header_faults(cube),
        *time_faults(cube),
    ]


def _image_number(path: Path) -> int:
    return 1 if path.suffix == ".fz" else 0


def _microseconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000 + int(fraction)


# -- the file ---------------------------------------------------------------------------------


def path_faults(path: Path) -> Iterator[Fault]:
    """Folder of the day, folder of the stream, and a name that says stream and time."""
    found = PATH.fullmatch("/".join(path.parts[-3:]))
    if not found or found[2] != found[3] or not found[2][-1:].isdigit():
        yield Fault("path", path.name, str(path))
    if len(str(path)) > LONGEST_PATH or not str(path).isascii():
        yield Fault("path", path.name, len(str(path)))


def file_faults(path: Path) -> Iterator[Fault]:
    """What fitsverify and astropy object to, warnings included."""
    command = ["fitsverify", "-q", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode or not ran.stdout.startswith("verification OK"):
        yield Fault("fitsverify", path.name, ran.stdout.strip())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            _read_with_astropy(path)
        except Exception as error:  # whatever it is, a reader would have it too
            yield Fault("astropy", path.name, repr(error))
            return
        yield from _coordinate_faults(path)


def _read_with_astropy(path: Path) -> None:
    with path.open("rb") as file, fits.open(file, checksum=True) as hdus:
        hdus.verify("exception")
        for hdu in hdus:
            assert hdu.data is None or len(hdu.data) > 0


def _coordinate_faults(path: Path) -> Iterator[Fault]:
    """Each set is complete: its reference pixel is at the reference value.

    Two axes are asked for: the frames of a cube have no coordinate, and a CD3_3 for them would
    stay behind when the reduction replaces the other elements.
    """
    header = fits.getheader(path, _image_number(path))
    for key in (end or " " for end in SETS):
        try:
            sky = WCS(header, key=key, naxis=2)
            found = sky.all_pix2world([sky.wcs.crpix], 1)[0]
        except Exception as error:
            yield Fault("coordinates", path.name, repr(error))
            continue
        if not np.allclose((found - sky.wcs.crval + 180) % 360 - 180, 0, atol=1e-9):
            yield Fault("coordinates", path.name, key)


# -- the sidecar ------------------------------------------------------------------------------


def sidecar_faults(cube: RawCube) -> Iterator[Fault]:
    """A line of seven columns for each frame, in order."""
    if len(cube.lines) != cube.frames or len(cube.lost) != cube.frames:
        yield Fault("lines", cube.name, (len(cube.lines), len(cube.lost), cube.frames))
    if any(len(line) != 7 for line in cube.lines):
        yield Fault("columns", cube.name)
        return
    if [line[0] for line in cube.lines] != [str(k) for k in range(len(cube.lines))]:
        yield Fault("index", cube.name)
    if any(line[1] != line[5] for line in cube.lines) or not _rises(cube.cnt0):
        yield Fault("counters", cube.name)
    if not _rises(cube.acquired_us) or cube.acquired_us[0] <= 0:
        yield Fault("acquired", cube.name)


def _rises(numbers: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


# -- the header -------------------------------------------------------------------------------


def header_faults(cube: RawCube) -> Iterator[Fault]:
    """The keywords of the table, and what no header may have."""
    header = cube.header
    for card in header.cards:
        if not card.keyword.strip():
            yield Fault("blank card", cube.name)
        elif isinstance(card.value, fits.card.Undefined):
            yield Fault("no value", cube.name, card.keyword)
        elif isinstance(card.value, str) and _reads_as_no_text(card.value):
            yield Fault("no text", cube.name, card.keyword)
    for keyword, (kind, allowed) in KEYWORDS.items():
        if keyword not in header:
            yield Fault("missing", cube.name, keyword)
        elif not _is_of_kind(header[keyword], kind):
            yield Fault("kind", cube.name, keyword)
        elif not _is_allowed(header[keyword], allowed):
            yield Fault("value", cube.name, keyword)
    for keyword in NEVER:
        if keyword in header:
            yield Fault("never", cube.name, keyword)
    camera = header.get("U_CAMERA")
    if cube.path.parent.name != f"vcam{camera}":
        yield Fault("value", cube.name, "U_CAMERA")
    if header.get("DETECTOR") != f"VCAM{camera} - OrcaQ":
        yield Fault("value", cube.name, "DETECTOR")


def _reads_as_no_text(text: str) -> bool:
    """The archive's program casts texts to numbers where it can; it stops on some."""
    try:
        return not np.isfinite(complex(text.strip())) or "j" in text.lower()
    except ValueError:
        return False


def _is_of_kind(value: object, kind: str) -> bool:
    if kind == TEXT:
        return isinstance(value, str)
    if isinstance(value, bool):
        return kind == LOGICAL
    return isinstance(value, int) or (kind == NUMBER and isinstance(value, float))


def _is_allowed(value: object, allowed: object) -> bool:
    if isinstance(allowed, re.Pattern):
        return allowed.fullmatch(str(value)) is not None
    if isinstance(allowed, tuple):
        low, high = allowed
        return bool(low <= value <= high)
    return allowed is None or (isinstance(allowed, Collection) and value in allowed)


def time_faults(cube: RawCube) -> Iterator[Fault]:
    """The header's times are those of the first and last frame, on one day of UTC."""
    header, times = cube.header, cube.acquired_us
    first, last = times[0], times[-1]
    day = str(np.datetime64(first, "us"))[:10]
    if last // DAY_US != first // DAY_US or not header["UT-STR"] <= header["UT-END"]:
        yield Fault("midnight", cube.name)
    if header["DATE-OBS"] != day or cube.path.parts[-3] != day.replace("-", ""):
        yield Fault("day", cube.name, header["DATE-OBS"])
    if cube.path.name.partition("_")[2][:15] != _clock(first):
        yield Fault("time in the name", cube.name)
    middle = (first + last) // 2
    for ending, time_us in (("-STR", first), ("", middle), ("-END", last)):
        yield from _instant_faults(cube, ending, time_us)


def _instant_faults(cube: RawCube, ending: str, time_us: int) -> Iterator[Fault]:
    header = cube.header
    near = {_clock(time_us + off) for off in (-1, 0, 1)}
    if header[f"UT{ending}"] not in near:
        yield Fault("time", cube.name, f"UT{ending}")
    if header[f"HST{ending}"] not in {_clock(time_us - 36_000_000_000 + k) for k in (-1, 0, 1)}:
        yield Fault("time", cube.name, f"HST{ending}")
    if abs((header[f"MJD{ending}"] - MJD_1970) * DAY_US - time_us) > 1000:
        yield Fault("time", cube.name, f"MJD{ending}")


def _clock(time_us: int) -> str:
    """HH:MM:SS.ffffff."""
    return str(np.datetime64(time_us, "us"))[11:26].ljust(15, "0")


# -- several cubes ----------------------------------------------------------------------------


def account_faults(cubes: Sequence[RawCube]) -> Iterator[Fault]:
    """Frames that are in no file are declared. cubes: of one stream and one saving, in order.

    The counter begins with 1 in a new crop. What follows a recovered cube (RECOVERD) is not
    declared: the logger was not there.
    """
    before: RawCube | None = None
    for cube in cubes:
        header, cnt0 = cube.header, cube.cnt0
        lost = int(cube.lost.sum()) + header["NLOSTEND"]
        if header["NLOST"] != lost or header["NTORN"] > lost:
            yield Fault("sum", cube.name, header["NLOST"])
        if (np.diff(cnt0) - 1 != cube.lost[1:]).any():
            yield Fault("undeclared", cube.name, cnt0)
        if before is not None and "RECOVERD" not in before.header:
            expected = 1
            if crop_of(before) == crop_of(cube):
                expected = before.cnt0[-1] + 1 + before.header["NLOSTEND"]
            if cnt0[0] - expected != cube.lost[0]:
                yield Fault("undeclared", cube.name, (expected, cnt0[0], int(cube.lost[0])))
        before = cube


def crop_of(cube: RawCube) -> tuple[object, ...]:
    """What a calibration must have in common with a cube."""
    names = ("U_CAMERA", "U_DETMOD", "PRD-MIN1", "PRD-MIN2", "PRD-RNG1", "PRD-RNG2")
    return tuple(cube.header[name] for name in names)


def calibration_faults(cubes: Iterable[RawCube]) -> Iterator[Fault]:
    """Each cube of an object has a dark of the same crop and about the same exposure time."""
    cubes = list(cubes)
    darks = [cube for cube in cubes if cube.header["DATA-TYP"] == "DARK"]
    for cube in cubes:
        fitting = (
            crop_of(dark) == crop_of(cube)
            and abs(dark.header["EXPTIME"] - cube.header["EXPTIME"]) < BACKGROUND_S
            for dark in darks
        )
        if cube.header["DATA-TYP"] == "OBJECT" and not any(fitting):
            yield Fault("no dark", cube.name, crop_of(cube))
