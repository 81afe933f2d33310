"""vampires config ... instrument: the facts of the instrument shown, checked and measured."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires.commands.common import UserError
from vampires.config import user_config
from vampires.instrument.cameras import CAMERAS, Crop
from vampires.instrument.file import (
    FILE_NAME,
    PACKAGED_FILE,
    VERSION,
    InstrumentError,
    instrument_of,
    instrument_on,
    own_file,
    read_instruments,
)

if TYPE_CHECKING:
    import numpy as np

    from vampires.instrument.hotspots import Hotspot

_FRAME_PATIENCE_S = 5.0


def show(args: argparse.Namespace) -> int:
    """The facts of a day."""
    from vampires.toml_text import toml_text

    try:
        instrument = instrument_of(args.date)
    except ValueError:
        raise UserError(f"found {args.date!r}, expected a day such as 2026-12-31") from None
    facts = {"from": instrument.since.isoformat(), **instrument.tables}
    own = own_file()
    if args.json:
        files = {"packaged": str(PACKAGED_FILE), "own": str(own) if own else None}
        print(json.dumps({"files": files, "state": facts}, indent=2))
        return 0
    print(f"# {PACKAGED_FILE}" + (f"\n# {own}" if own else ""))
    print(f"\n{toml_text({'state': facts})}", end="")
    return 0


def check(file: Path | None) -> int:
    """Whether a file of facts, by default the one in use, is valid."""
    file = file or own_file()
    states = read_instruments(file)
    since = ", ".join(f"{state.name or 'facts'} from {state.since}" for state in states)
    print(f"{file or PACKAGED_FILE}: valid; {since}")
    return 0


# -- fit --------------------------------------------------------------------------------------


def fit(args: argparse.Namespace) -> int:
    """Measures hotspots in a stream or a file, and writes them."""
    from vampires.instrument.hotspots import HotspotsNotFound, measured_hotspots

    frames = _frames(args.source, args.frames)
    camera, crop = _camera_and_crop(frames)
    day, source = frames.day, frames.source
    try:
        hotspots = measured_hotspots(frames.image, crop, camera, instrument_on(day))
    except HotspotsNotFound as error:
        raise UserError(f"{source}: {error}") from None
    file = Path(args.output) if args.output else own_file() or user_config(FILE_NAME)
    if file is None:
        raise UserError("this user has no home; name the file: --output FILE")
    if not args.dry_run:
        _append(file, _state_text(hotspots, camera, day, source))
    _tell(args, hotspots, camera, day, None if args.dry_run else file)
    return 0


@dataclass(frozen=True)
class _Frames:
    """The mean of some frames, the keywords of their camera, their day, and where from."""

    image: np.ndarray
    keywords: Mapping[str, Any]
    day: datetime.date
    source: str


def _frames(source: str, count: int) -> _Frames:
    if "/" in source or source.endswith((".fits", ".fz")):
        return _frames_of_file(Path(source), count)
    from vampires.camera.dark import mean_frame
    from vampires.stream import Stream, StreamError

    try:
        with Stream.open(source) as stream:
            image = mean_frame(stream, count, _FRAME_PATIENCE_S)
            today = datetime.datetime.now(datetime.timezone.utc).date()
            return _Frames(image, dict(stream.keywords), today, f"stream {source}")
    except TimeoutError:
        text = f"no frame of the stream {source} came within {_FRAME_PATIENCE_S:g} s"
        raise UserError(f"{text}; see camstatus") from None
    except (StreamError, OSError) as error:
        raise UserError(str(error)) from None


def _frames_of_file(file: Path, most: int) -> _Frames:
    import numpy as np

    from vampires.cube_pixels import CubePixels
    from vampires.fits_hdus import FitsInvalid

    try:
        with CubePixels(file) as cube:
            count = min(most, cube.whole_frames)
            if not count:
                raise UserError(f"{file}: {cube.fault or 'it has no frames'}")
            image = np.zeros(cube.shape[1:])
            for number in range(count):
                image += cube.frame(number) / count
            keywords: dict[str, Any] = {}
            for name in ("U_CAMERA", "PRD-MIN1", "PRD-MIN2", "DATE-OBS"):
                with suppress(KeyError):
                    keywords[name] = cube.cards[name]
    except (FitsInvalid, OSError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{file}: {text}") from None
    try:
        day = datetime.date.fromisoformat(str(keywords.get("DATE-OBS")))
    except ValueError:
        raise UserError(f"{file}: no DATE-OBS, expected a cube of vcam1 or vcam2") from None
    return _Frames(image, keywords, day, file.name)


def _camera_and_crop(frames: _Frames) -> tuple[int, Crop]:
    names = ("U_CAMERA", "PRD-MIN1", "PRD-MIN2")
    camera, x0, y0 = (frames.keywords.get(name, "nothing") for name in names)
    known = camera in CAMERAS and isinstance(x0, int) and isinstance(y0, int)
    if not known or frames.image.ndim != 2:
        raise UserError(
            f"{frames.source}: found U_CAMERA {camera}, PRD-MIN1 {x0}, PRD-MIN2 {y0}, expected "
            "frames of vcam1 or vcam2 with their keywords"
        )
    ny, nx = frames.image.shape
    return int(camera), Crop(int(x0), int(x0) + nx - 1, int(y0), int(y0) + ny - 1)


def _state_text(
    hotspots: Sequence[Hotspot], camera: int, day: datetime.date, source: str
) -> str:
    lines = [
        "",
        f"# Measured in {source}.",
        "[[state]]",
        f"from = {day}",
        f"[state.cameras.vcam{camera}.hotspots]",
        *(f"{spot.field} = [{spot.x:.2f}, {spot.y:.2f}]" for spot in hotspots),
        "",
    ]
    return "\n".join(lines)


def _append(file: Path, text: str) -> None:
    """Adds to the file, or makes it. What is not valid with that stays as it is."""
    from vampires.whole_file import hidden_name, write_durably, write_whole

    try:
        before = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = f"version = {VERSION}\n"
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from None
    content = (before + text).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = hidden_name(file.parent, "instrument")
        try:
            write_durably(draft, content)
            read_instruments(draft)
        except InstrumentError as error:
            lines = [line.replace(str(draft), str(file)) for line in error.faults]
            raise InstrumentError(lines) from None
        finally:
            draft.unlink(missing_ok=True)
        write_whole(file, content, replace=True, purpose="instrument")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None


def _tell(
    args: argparse.Namespace,
    hotspots: Sequence[Hotspot],
    camera: int,
    day: datetime.date,
    file: Path | None,
) -> None:
    if args.json:
        fields = [asdict(spot) for spot in hotspots]
        written = str(file) if file else None
        found = {"camera": camera, "from": str(day), "hotspots": fields, "file": written}
        print(json.dumps(found))
        return
    print(f"vcam{camera}   {'x':>8} {'y':>8}  moved")
    for spot in hotspots:
        print(f"  {spot.field}  {spot.x:8.2f} {spot.y:8.2f}  {spot.moved:.2f} px")
    if file is None:
        print("nothing was written; without --dry-run they hold from", day)
    else:
        print(f"written to {file}: they hold from {day}, once a camera is started again")
