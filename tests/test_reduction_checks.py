"""The checks of the simulated night find what they are for: a pair of cubes about midnight
passes them, and each fault that is made in it by hand is found."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reduction_checks as checks
import reduction_truth as truth
from astropy.io import fits
from logger_process import loggers
from reduction_checks import KEYWORDS, LOGICAL, NEVER, TEXT, Fault, RawCube, read_cubes
from reduction_truth import Frames
from stream_folder import stream_folder

from vampires.camera.keywords import CameraIdentity, camera_keywords
from vampires.camera.settings import science_camera
from vampires.instrument.cameras import Crop
from vampires.stream import Stream

CONSTANTS = Path(__file__).parent / "data" / "night_header.toml"
CAMERAS = ("vcam1", "vcam2")
WINDOW = Crop(1956, 1979, 1060, 1079)
FPS = Fraction(100)
HALF_WIDTH_US = 500
FRAMES = 60
# A midnight that no clock has come to.
MIDNIGHT_NS = int(datetime(2037, 1, 2, tzinfo=timezone.utc).timestamp()) * 10**9


@dataclass(frozen=True)
class Midnight:
    """cubes: of vcam1, then of vcam2, two of each; one ends before midnight, the other begins
    after it."""

    root: Path
    cubes: list[RawCube]

    @property
    def cube(self) -> RawCube:
        """The first one."""
        return self.cubes[0]

    def frames(self, number: int) -> Frames:
        """Of camera 1 or 2."""
        return truth.frames_of(self.cubes[2 * number - 2 : 2 * number])


@pytest.fixture(scope="module")
def midnight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Midnight]:
    root = tmp_path_factory.mktemp("midnight")
    with pytest.MonkeyPatch.context() as monkeypatch, stream_folder(monkeypatch, root):
        log_midnight(root)
    yield Midnight(root, [cube for stream in CAMERAS for cube in read_cubes(root, stream)])
    shutil.rmtree(root)


def log_midnight(root: Path) -> None:
    """Frames of both cameras, half of them before midnight, by vampires-logger."""
    with contextlib.ExitStack() as ended, contextlib.ExitStack() as stack:

        def launched(*command: object) -> subprocess.Popen[str]:
            return ended.enter_context(launch(*command))

        headerd = launched("headerd", *CAMERAS, "--constants", CONSTANTS, "--once")
        assert headerd.wait() == 0, headerd.communicate()
        start = stack.enter_context(loggers(launched, root))
        streams = [stack.enter_context(camera_stream(number)) for number in (1, 2)]
        running = [start(name, "--frames", FRAMES).attached() for name in CAMERAS]
        for number, stream in enumerate(streams):
            for trigger in range(first_trigger(), first_trigger() + FRAMES):
                time_ns = taken_ns(trigger) + 1000 * number
                pixels = np.full(stream.shape, trigger % 1000, np.uint16)
                us = {"_MAQTIME": (time_ns // 1000, "[us] acquisition time of the frame")}
                stream.write(pixels, acquired_ns=time_ns, keywords=us)
        for logger in running:
            assert logger.end().status == 0


def launch(command: object, *arguments: object) -> subprocess.Popen[str]:
    """A command of the package, in the stream folder."""
    return subprocess.Popen(
        [sys.executable, "-m", f"vampires.commands.{command}", *map(str, arguments)],
        cwd=os.environ["MILK_SHM_DIR"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def camera_stream(number: int) -> Stream:
    """vcam1 or vcam2, externally triggered, the liquid crystal on."""
    limits = science_camera(number)
    settings = limits.with_crop(limits.first_settings("ONEARC", float(FPS)), WINDOW)
    keywords: dict[str, Any] = {
        **camera_keywords(
            settings.with_values(external_trigger=True),
            CameraIdentity(f"vcam{number}", number, "OBJECT", "AB Aur"),
            float(FPS),
        ),
        "DET-TMP": (253.15, "[K] temperature of the detector"),
        "U_FLCEN": ("#TRUE#", "liquid crystal (FLC) enabled"),
        "U_TRIGJT": (HALF_WIDTH_US, "[us] half-width of the trigger's jitter"),
        "_MAQTIME": (0, "[us] acquisition time of the frame"),
    }
    return Stream.create(
        f"vcam{number}", settings.shape, "uint16", ring=2 * FRAMES, keywords=keywords
    )


def taken_ns(trigger: int) -> int:
    """When a trigger of the common schedule comes."""
    return int(trigger * 10**9 / FPS) + trigger // 2 * 2 * HALF_WIDTH_US * 1000


def first_trigger() -> int:
    """Half of the frames from there on come before midnight."""
    pair_ns = 2 * 10**9 / FPS + 2 * HALF_WIDTH_US * 1000
    return 2 * int(MIDNIGHT_NS / pair_ns) - FRAMES // 2


# -- midnight ---------------------------------------------------------------------------------


def test_no_cube_goes_on_past_midnight(midnight: Midnight) -> None:
    days = [cube.path.parts[-3] for cube in midnight.cubes]
    assert days == ["20370101", "20370102"] * 2
    assert [fault for cube in midnight.cubes for fault in checks.cube_faults(cube)] == []
    for number in (1, 2):
        assert list(checks.account_faults(midnight.cubes[2 * number - 2 : 2 * number])) == []
        frames = midnight.frames(number)
        assert len(frames.triggers) == FRAMES
        assert [*truth.schedule_faults(frames), *truth.state_faults(frames)] == []
    assert list(truth.pairing_faults(midnight.frames(1), midnight.frames(2))) == []


# -- faults of a header -----------------------------------------------------------------------


def with_card(cube: RawCube, keyword: str, value: object) -> RawCube:
    """The cube with another value of a keyword; None: without it."""
    header = cube.header.copy()
    if value is None:
        del header[keyword]
    else:
        header[keyword] = value
    return replace(cube, header=header)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_missing_keyword_or_another_kind_of_value_is_found(
    midnight: Midnight, keyword: str
) -> None:
    cube, name = midnight.cube, midnight.cube.name
    kind, _ = KEYWORDS[keyword]
    wrong = {TEXT: 3, LOGICAL: "#TRUE#"}.get(kind, "3")
    missing = list(checks.header_faults(with_card(cube, keyword, None)))
    assert Fault("missing", name, keyword) in missing
    assert {fault.code for fault in missing} <= {"missing", "value"}
    assert Fault("kind", name, keyword) in checks.header_faults(with_card(cube, keyword, wrong))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("NAXIS", 2),
        ("BZERO", 0),
        ("DATE", "2037-01-01T23:59:59.5"),
        ("DATE-OBS", "2037-01-01T23:59:59"),
        ("UT-END", "23:59:60.000000"),
        ("HST", "14:00:00"),
        ("MJD", 50000.0),
        ("DATA-TYP", "object"),
        ("OBJECT", "AB/Aur"),
        ("FILTER01", ""),
        ("EXPTIME", 0.0),
        ("U_CAMERA", 2),
        ("U_DETMOD", "fast"),
        ("DETECTOR", "VCAM2 - OrcaQ"),
        ("OBS-MOD", "MBI"),
        ("U_FLC", "A"),
        ("U_FLCST", "MOVING"),
        ("RADESYS", "FK6"),
        ("RA", "79.0756"),
        ("EQUINOX", -1.0),
        ("WCSNAMEB", "F770"),
        ("CTYPE1C", "RA---SIN"),
    ],
)
def test_a_wrong_value_is_found(midnight: Midnight, keyword: str, value: object) -> None:
    found = list(checks.header_faults(with_card(midnight.cube, keyword, value)))
    assert Fault("value", midnight.cube.name, keyword) in found


@pytest.mark.parametrize("text", ["inf", "NaN", "J", "3j"])
def test_a_text_that_the_archive_takes_for_a_number_is_found(
    midnight: Midnight, text: str
) -> None:
    found = list(checks.header_faults(with_card(midnight.cube, "OBJECT", text)))
    assert found == [Fault("no text", midnight.cube.name, "OBJECT")]


def test_cards_that_stop_a_reader_are_found(midnight: Midnight) -> None:
    cube = replace(midnight.cube, header=midnight.cube.header.copy())
    cube.header.insert("OBJECT", fits.Card())
    cube.header["X_EMPTY"] = fits.card.UNDEFINED
    for keyword in NEVER:
        cube.header[keyword] = 1
    assert list(checks.header_faults(cube)) == [
        Fault("blank card", cube.name),
        Fault("no value", cube.name, "X_EMPTY"),
        *(Fault("never", cube.name, keyword) for keyword in NEVER),
    ]


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("UT-STR", "00:00:00.000000", "time"),
        ("UT-END", "00:00:00.000000", "midnight"),
        ("UT", "12:00:00.000000", "time"),
        ("HST-STR", "23:00:00.000000", "time"),
        ("MJD-END", 65000.0, "time"),
        ("DATE-OBS", "2037-01-02", "day"),
    ],
)
def test_a_time_that_is_not_that_of_the_frames_is_found(
    midnight: Midnight, keyword: str, value: object, code: str
) -> None:
    found = list(checks.time_faults(with_card(midnight.cube, keyword, value)))
    assert code in {fault.code for fault in found}


def test_a_cube_over_midnight_is_found(midnight: Midnight) -> None:
    before, after = midnight.cubes[:2]
    found = list(checks.time_faults(replace(before, lines=before.lines + after.lines)))
    assert "midnight" in {fault.code for fault in found}


# -- faults of files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "20370101/vcam1/vcam2_23:59:59.000000000.fits",
        "20370101/vcam1/vcam1_23:59:59.000.000.fits",
        "20370101/vcam_1/vcam_1_23:59:59.000000000.fits",
        "vcam1/20370101/vcam1_23:59:59.000000000.fits",
        "20370101/vcam1/vcam1_23:59:59.fits",
        "20370101/vcam1/vcam1_23:59:59.000000000.cube",
    ],
)
def test_a_name_that_is_not_sorted_is_found(name: str) -> None:
    assert [fault.code for fault in checks.path_faults(Path("/data") / name)] == ["path"]


def test_a_long_path_is_found() -> None:
    name = Path("/", "d" * 250, "20370101/vcam1/vcam1_23:59:59.000000000.fits")
    assert [fault.code for fault in checks.path_faults(name)] == ["path"]


def spoil_pixel(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-2880 * 4, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def spoil_coordinates(path: Path) -> None:
    with fits.open(path, mode="update", checksum=True) as hdus:
        hdus[0].header["CTYPE1C"] = "RA---XYZ"


def spoil_date(path: Path) -> None:
    with fits.open(path, mode="update", checksum=True) as hdus:
        hdus[0].header["DATE-OBS"] = "2037-13-01"


@pytest.mark.parametrize(
    ("spoil", "codes"),
    [
        (spoil_pixel, {"fitsverify", "astropy"}),
        (spoil_coordinates, {"coordinates"}),
        (spoil_date, {"fitsverify"}),
    ],
)
def test_a_spoilt_file_is_found(
    midnight: Midnight, tmp_path: Path, spoil: Callable[[Path], None], codes: set[str]
) -> None:
    copy = Path(shutil.copy(midnight.cube.path, tmp_path))
    assert list(checks.file_faults(copy)) == []
    spoil(copy)
    assert {fault.code for fault in checks.file_faults(copy)} == codes


def edited(cube: RawCube, frame: int, column: int, word: str) -> RawCube:
    """The cube with another word in its sidecar."""
    lines = [list(line) for line in cube.lines]
    lines[frame][column] = word
    return replace(cube, lines=lines)


def test_a_sidecar_that_does_not_fit_is_found(midnight: Midnight) -> None:
    cube = midnight.cube

    def codes(cube: RawCube) -> set[str]:
        return {fault.code for fault in checks.sidecar_faults(cube)}

    assert codes(cube) == set()
    assert codes(replace(cube, lines=cube.lines[:-1])) == {"lines"}
    assert codes(replace(cube, lines=[*cube.lines[:-1], cube.lines[-1][:6]])) == {"columns"}
    assert codes(edited(cube, 3, 0, "4")) == {"index"}
    assert codes(edited(cube, 3, 1, cube.lines[2][1])) == {"counters"}
    assert codes(edited(cube, 3, 4, cube.lines[2][4])) == {"acquired"}
    assert codes(edited(cube, 0, 4, "0.000000")) == {"acquired"}


# -- faults of several cubes ------------------------------------------------------------------


def without_frame(cube: RawCube, frame: int) -> RawCube:
    """As if a frame had never come to the file, and nothing said so. frame: -1 is the last."""
    frame %= len(cube.lines)
    lines = cube.lines[:frame] + cube.lines[frame + 1 :]
    return replace(cube, lines=lines, lost=np.delete(cube.lost, frame))


def test_frames_that_nobody_declares_are_found(midnight: Midnight) -> None:
    before, after = midnight.cubes[:2]

    def codes(*cubes: RawCube) -> list[str]:
        return [fault.code for fault in checks.account_faults(cubes)]

    assert codes(before, after) == []
    assert codes(before, without_frame(after, 5)) == ["undeclared"]
    assert codes(before, without_frame(after, 0)) == ["undeclared"]
    assert codes(without_frame(before, -1), after) == ["undeclared"]
    assert codes(without_frame(before, 0), after) == []  # which begins with any frame
    assert codes(with_card(before, "NLOST", 1), after) == ["sum"]
    assert codes(with_card(before, "PRD-MIN1", 0), after) == ["undeclared"]  # begins with 1
    ended = with_card(with_card(without_frame(before, -1), "NLOST", 1), "NLOSTEND", 1)
    assert codes(ended, after) == []
    killed = with_card(without_frame(before, -1), "RECOVERD", "2037-01-02T00:00:00")
    assert codes(killed, after) == []


@pytest.mark.parametrize("keyword", ["PRD-MIN1", "PRD-MIN2", "PRD-RNG1", "PRD-RNG2"])
def test_a_dark_of_another_crop_is_found(midnight: Midnight, keyword: str) -> None:
    cube = midnight.cube
    dark = with_card(cube, "DATA-TYP", "DARK")
    assert list(checks.calibration_faults([cube, dark])) == []
    for other in (
        with_card(dark, keyword, cube.header[keyword] + 1),
        with_card(dark, "EXPTIME", cube.header["EXPTIME"] + 1),
        with_card(dark, "U_DETMOD", "SLOW"),
    ):
        found = [fault.code for fault in checks.calibration_faults([cube, other])]
        assert found == ["no dark"]


def shifted(frames: Frames, by_us: int, chosen: slice = slice(None)) -> Frames:
    """The frames with other times."""
    acquired_us = frames.acquired_us.copy()
    acquired_us[chosen] += by_us
    return replace(frames, acquired_us=acquired_us)


def some(frames: Frames, chosen: list[int]) -> Frames:
    """Some of the frames."""
    return Frames(
        frames.acquired_us[chosen],
        [frames.triggers[k] for k in chosen],
        [frames.names[k] for k in chosen],
    )


def test_frames_that_are_paired_wrongly_are_found(midnight: Midnight) -> None:
    one, two = midnight.frames(1), midnight.frames(2)

    def codes(two: Frames) -> set[str]:
        return {fault.code for fault in truth.pairing_faults(one, two)}

    assert codes(some(two, [*range(20), *range(33, FRAMES, 3)])) == set()
    assert codes(some(two, [])) == set()
    assert codes(shifted(two, 500, slice(4, 5))) == {"not paired"}
    interval_us = int(two.acquired_us[2] - two.acquired_us[0])
    assert "paired wrongly" in codes(shifted(two, interval_us))


def test_frames_that_were_not_triggered_or_are_there_twice_are_found(
    midnight: Midnight,
) -> None:
    cube = midnight.cube
    seconds = float(cube.lines[3][4])
    late = truth.frames_of([edited(cube, 3, 4, f"{seconds + 0.0001:.6f}")])
    assert [fault.code for fault in truth.schedule_faults(late)] == ["not triggered"]
    twice = truth.frames_of([cube, cube])
    assert [fault.code for fault in truth.schedule_faults(twice)] == ["twice"]


def test_states_that_times_tell_wrongly_are_found(midnight: Midnight) -> None:
    frames = midnight.frames(1)

    def codes(frames: Frames) -> set[str]:
        return {fault.code for fault in truth.state_faults(frames)}

    assert codes(some(frames, [*range(8), 9, 10, 12, *range(20, FRAMES)])) == set()
    assert codes(shifted(frames, -500, slice(0, None, 2))) == {"state"}  # no asymmetry is left
    others = replace(frames, triggers=[trigger + 1 for trigger in frames.triggers])
    assert codes(others) == {"state"}
    mixed = replace(frames, triggers=[*frames.triggers[1:], frames.triggers[0]])
    assert codes(mixed) == {"state"}


# -- stars ------------------------------------------------------------------------------------

# Where each field is in the MBI crop of a camera, x and y, by the instrument's facts.
PLACES = {
    1: {"F760": (1964, 825), "F720": (842, 824), "F670": (275, 825), "F610": (269, 272)},
    2: {"F760": (1972, 283), "F720": (851, 274), "F670": (284, 272), "F610": (270, 828)},
}


@dataclass(frozen=True)
class PaintedCube(RawCube):
    """A cube of a picture."""

    picture: np.ndarray

    def pixels(self) -> np.ndarray:
        return self.picture[None]


def painted(camera: int, places: dict[str, tuple[int, int]]) -> PaintedCube:
    """An MBI frame of a camera with a star at each place."""
    shape = (1096, 2236 if camera == 1 else 2240)
    picture = np.zeros(shape)
    header = fits.Header({"U_CAMERA": camera, "OBS-MOD": "IPOL_MBI"})
    for end, (field, (x, y)) in zip(("", "B", "C", "D"), places.items(), strict=True):
        header[f"WCSNAME{end}"], picture[y, x] = field, 1000
        header[f"CRPIX1{end}"], header[f"CRPIX2{end}"] = x + 1.3, y + 0.7
    return PaintedCube(
        Path(f"vcam{camera}.fits"), header, np.zeros(1), np.zeros(1), [], picture
    )


@pytest.mark.parametrize("camera", [1, 2])
def test_stars_in_other_windows_are_found(camera: int) -> None:
    places = PLACES[camera]
    assert list(truth.star_faults(painted(camera, places))) == []
    other = list(truth.star_faults(painted(camera, PLACES[3 - camera])))
    assert [fault.code for fault in other] == ["star"] * 4  # upside down
    exchanged = dict(zip(["F670", "F720", "F760", "F610"], places.values(), strict=True))
    found = list(truth.star_faults(painted(camera, exchanged)))
    assert {fault.found[0] for fault in found} == {"F670", "F760"}  # type: ignore[index]
    off = painted(camera, places)
    off.header["CRPIX2B"] += 3
    assert [fault.code for fault in truth.star_faults(off)] == ["star"]
    off.header["WCSNAMED"] = "NA"
    assert [fault.code for fault in truth.star_faults(off)] == ["fields"]
