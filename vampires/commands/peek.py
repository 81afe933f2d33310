"""vampires-peek: a look at a frame of a cube, or at the newest one of a stream."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires.commands.common import CommandParser, UserError, number_in, user_errors

if TYPE_CHECKING:
    from vampires.cube_pixels import CubePixels
    from vampires.frame_table import Rows

PROG = "vampires-peek"
EXIT_TRUNCATED = 1
PICTURE, FITS = (".png",), (".fits", ".fit", ".fts")

DESCRIPTION = """\
Shows one frame of a FITS cube in the terminal, or saves it: with the grey scale of zscale as
PNG, or with the header of the cube as FITS. Mean, deviation or maximum of all frames likewise.
Frames are read one at a time, so a cube of any size does; compressed ones (.fits.fz) and cubes
that are still being written, too. Row 0 is at the bottom, as in DS9.

With --follow it is the newest frame of a live stream, again and again until Ctrl-C; the stream
must be there at the start, and is waited for when it goes away later.

exit status: 0 shown or saved; 1 shown, and the file is cut off; 2 wrong usage, no such frame,
not a FITS file."""

EXAMPLE = f"""\
  {PROG} vcam1_00:00:03.628172287.fits
  {PROG} vcam1_00:00:03.628172287.fits --frame -1 -o last.png
  {PROG} vcam1_00:00:03.628172287.fits.fz --mean -o mean.fits
  {PROG} --follow vcam1 --interval 0.2"""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("file", metavar="FILE", nargs="?", type=Path, help="FITS file, plain or .fits.fz")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--frame",
        type=int,
        metavar="K",
        help="frame K, from 0; -1 is the last one (default: 0)",
    )
    for name, text in (
        ("mean", "mean"),
        ("std", "standard deviation"),
        ("max", "maximum"),
    ):
        what.add_argument(
            f"--{name}",
            dest="what",
            action="store_const",
            const=name,
            help=f"{text} of each pixel over all frames",
        )
    add("-o", "--output", type=Path, metavar="out.png|out.fits", help="save it to this file")
    add("--force", action="store_true", help="replace a file that is there")
    add("--json", action="store_true", help="print what the text says as a JSON object")
    add("--follow", metavar="STREAM", help="the newest frame of a stream, until Ctrl-C")
    add(
        "--interval",
        type=number_in(float, 0, above=True),
        default=1.0,
        metavar="SECONDS",
        help="between two looks at the stream",
    )
    add(
        "--count",
        type=number_in(int, 1),
        metavar="N",
        help="end after N frames of the stream (default: no end)",
    )
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    if (args.file is None) == (args.follow is None):
        raise UserError(f"expected either FILE or --follow STREAM (see {PROG} --help)")
    check_output(args.output, force=args.force)
    if args.follow is not None:
        if args.frame is not None or args.what is not None:
            raise UserError("--frame, --mean, --std and --max are for a FILE, not a stream")
        from vampires.commands.peek_follow import follow

        return follow(args)
    from vampires.fits_hdus import FitsInvalid

    try:
        return _look(args)
    except (FitsInvalid, OSError) as error:
        raise UserError(f"{_shown(args.file)}: {fault_text(error)}") from None


def fault_text(error: Exception) -> str:
    """The error in one line, without the path that stands before it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def _shown(path: Path) -> str:
    from vampires.terminal_text import safe_text

    return safe_text(str(path))


# -- what is looked at ------------------------------------------------------------------------


def _look(args: argparse.Namespace) -> int:
    from vampires.cube_pixels import CubePixels, summary

    with CubePixels(args.file) as pixels:
        row, index = None, None
        if args.what is None:
            index = _frame_number(pixels, 0 if args.frame is None else args.frame)
            frame, row = pixels.frame(index), pixels.row(index)
        else:
            if pixels.whole_frames < pixels.shape[0]:
                raise UserError(f"{_shown(args.file)}: {_cut_off(pixels)}")
            progress = None if args.json or not sys.stderr.isatty() else _progress(args.what)
            frame = summary(pixels, args.what, progress)
        if frame.dtype.kind not in "iuf":
            raise UserError(
                f"{_shown(args.file)}: pixels of type {frame.dtype} cannot be shown"
            )
        told = _facts(args, pixels, index, row) | frame_facts(frame)
        if args.output is not None:
            save(args.output, frame, told, pixels, row, force=args.force)
        if pixels.fault:
            print(f"{PROG}: {_shown(args.file)}: {pixels.fault}", file=sys.stderr)
        tell(told, frame, as_json=args.json, picture=args.output is None)
        return EXIT_TRUNCATED if pixels.fault else 0


def _frame_number(pixels: CubePixels, wanted: int) -> int:
    frames = pixels.shape[0]
    index = wanted + frames if wanted < 0 else wanted
    if index not in range(frames):
        last = f"0 to {frames - 1}" if frames > 1 else "only 0"
        raise UserError(
            f"{_shown(pixels.path)} has no frame {wanted}: it holds {frames}; expected {last}"
        )
    if index >= pixels.whole_frames:
        raise UserError(
            f"{_shown(pixels.path)}: frame {index} is not whole; {_cut_off(pixels)}"
        )
    return index


def _cut_off(pixels: CubePixels) -> str:
    whole = pixels.whole_frames
    which = f"whole are --frame 0 to {whole - 1}" if whole else "no frame of it is whole"
    return f"{pixels.fault}; of {pixels.shape[0]} frames {which}"


def _progress(what: str) -> Callable[[int, int], None]:
    """Tells on stderr, in place, from the second second on."""
    start_s = shown_s = time.monotonic()

    def progress(done: int, frames: int) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if now_s - start_s > 1 and (now_s - shown_s > 0.2 or done == frames):
            shown_s = now_s
            end = "\r\x1b[K" if done == frames else ""
            print(f"\r{what}: {done} of {frames} frames{end}", end="", file=sys.stderr)
            sys.stderr.flush()

    return progress


# -- what is told -----------------------------------------------------------------------------


def _facts(
    args: argparse.Namespace, pixels: CubePixels, index: int | None, row: Rows | None
) -> dict[str, Any]:
    from vampires.frame_fits import frame_time_ns
    from vampires.times import iso_utc

    told: dict[str, Any] = {"file": str(args.file), "frames": pixels.shape[0]}
    told |= {"what": args.what or "frame", "frame": index, "compressed": pixels.compressed}
    told |= {"time": None, "cnt0": None, "cnt1": None, "lost": None, "flags": None}
    if row is not None:
        told["time"] = iso_utc(frame_time_ns(row)) if frame_time_ns(row) else None
        names = ("CNT0", "CNT1", "LOST", "FLAGS")
        told |= {name.lower(): int(row[name][0]) for name in names}
    return told


def frame_facts(frame: Any) -> dict[str, Any]:
    """Shape, type, statistics and limits of grey of a frame."""
    from vampires.array_kernels import statistics
    from vampires.frame_image import zscale_limits

    found = statistics(frame)
    told: dict[str, Any] = {"shape": list(frame.shape), "dtype": str(frame.dtype)}
    told |= {"min": found.minimum, "max": found.maximum, "mean": found.mean, "std": found.std}
    told |= {"not_finite": frame.size - found.finite, "zscale": list(zscale_limits(frame))}
    return told | {"saved": None}


def tell(told: dict[str, Any], frame: Any, *, as_json: bool, picture: bool) -> None:
    """Prints the numbers and, on a terminal, the picture above them."""
    if as_json:
        print(json.dumps(json_ready(told)), flush=True)
        return
    print("\n".join(screen(told, frame, picture=picture and sys.stdout.isatty())), flush=True)


def json_ready(value: Any) -> Any:
    """The value with None for the numbers that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_ready(one) for key, one in value.items()}
    return [json_ready(one) for one in value] if isinstance(value, list) else value


def screen(told: dict[str, Any], frame: Any, *, picture: bool) -> list[str]:
    """The lines of a terminal; of the picture as many as leave room for the prompt."""
    import shutil

    from vampires.terminal_text import safe_text

    size = shutil.get_terminal_size()
    lines = [safe_text(line, size.columns if picture else None) for line in _lines(told)]
    if not picture:
        return lines
    from vampires.frame_image import terminal_colours, terminal_picture

    limits = (told["zscale"][0], told["zscale"][1])
    rows = size.lines - 1 - len(lines)
    return [*terminal_picture(frame, limits, size.columns, rows, terminal_colours()), *lines]


def _lines(told: dict[str, Any]) -> list[str]:
    ny, nx = told["shape"]
    size = f"{nx} x {ny} {told['dtype']}"
    if "stream" in told:
        lines = [f"{told['stream']}: {size}"]
    else:
        frames = told["frames"]
        which = f"{told['what']} of {frames} frames"
        if told["what"] == "frame":
            which = f"frame {told['frame']} of 0 to {frames - 1}" if frames > 1 else "1 frame"
        lines = [f"{Path(told['file']).name}: {which}, {size}"]
    if told["cnt0"] is not None:
        lost = f", {told['lost']} lost before it" if told["lost"] else ""
        when = told["time"].replace("T", " ") + " UTC" if told["time"] else "time unknown"
        lines.append(f"{when}, cnt0 {told['cnt0']}{lost}")
    numbers = "  ".join(f"{name} {told[name]:.6g}" for name in ("min", "max", "mean", "std"))
    odd = f"  {told['not_finite']} not finite" if told["not_finite"] else ""
    lines.append(f"{numbers}  zscale {told['zscale'][0]:.6g} to {told['zscale'][1]:.6g}{odd}")
    if told["saved"]:
        lines.append(f"saved {told['saved']}")
    return lines


# -- what is saved ----------------------------------------------------------------------------


def check_output(output: Path | None, *, force: bool) -> None:
    """Raises UserError for a file that cannot be made. Nothing is written yet."""
    if output is None:
        return
    if output.suffix.lower() not in PICTURE + FITS:
        raise UserError(f"{_shown(output)}: expected a name that ends in .png or .fits")
    if output.is_dir():
        raise UserError(f"{_shown(output)} is a folder; expected the name of a file")
    if not force and (output.exists() or output.is_symlink()):
        raise UserError(f"{_shown(output)} is there already; --force replaces it")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{_shown(output)}: there is no folder {_shown(output.parent)}")


def save(
    output: Path,
    frame: Any,
    told: dict[str, Any],
    pixels: CubePixels | None,
    row: Rows | None,
    *,
    force: bool,
) -> None:
    """Writes PNG or FITS and notes it in told. Raises UserError, FitsInvalid."""
    from vampires.whole_file import write_whole

    if output.suffix.lower() in PICTURE:
        from vampires.frame_image import png_bytes

        source = told.get("file") or told.get("stream")
        texts = {"Source": str(source).encode("ascii", "replace").decode(), "Software": PROG}
        texts["Description"] = "; ".join(_lines(told)).encode("ascii", "replace").decode()
        content = png_bytes(frame, (told["zscale"][0], told["zscale"][1]), texts)
    else:
        from vampires.frame_fits import frame_fits
        from vampires.header_cards import Cards

        cards = Cards(b"") if pixels is None else pixels.cards
        content = frame_fits(frame, cards, _history(told), row)
    try:
        write_whole(output, content, replace=force)
    except FileExistsError:
        raise UserError(f"{_shown(output)} is there already; --force replaces it") from None
    except OSError as error:
        raise UserError(f"cannot write {_shown(output)}: {fault_text(error)}") from None
    told["saved"] = str(output)


def _history(told: dict[str, Any]) -> list[str]:
    if "stream" in told:
        return [f"frame {told['cnt0']} (cnt0) of stream {told['stream']}, {told['time']} UTC"]
    what, frames, name = told["what"], told["frames"], Path(told["file"]).name
    if what == "frame":
        lines = [f"frame {told['frame']} (from 0) of the {frames} frames of {name}"]
        if told["cnt0"] is not None:
            lines.append("times and counters are those of the frame; NLOST is of the cube")
        return lines
    meaning = {"mean": "mean", "std": "standard deviation (population)", "max": "maximum"}[what]
    return [f"{meaning} of the {frames} frames of {name}"]


if __name__ == "__main__":
    sys.exit(main())
