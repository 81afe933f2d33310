#!/usr/bin/env python3
"""Finds the best focus of a camera from its frames: a script to start your own from.

It looks at the frames that vampires-zmq-send sends, moves the focus by setting a parameter,
waits until frames of the new focus arrive, and fits a parabola to how sharp they are. To try it
with a simulated camera, which is in focus at -0.6 mm:

    vampires-framesim vcam1 --focus 0.5 --focus-best -0.6 &
    vampires-zmq-send vcam1 --bind tcp://127.0.0.1:5560 &
    python examples/autofocus.py tcp://127.0.0.1:5560 vcam1

It runs on the computer of the camera, where the parameter is. Ctrl-C, or a scan that finds
nothing, leaves the focus as it was.
"""

import argparse
import sys
import time

import numpy as np

from vampires import FPS, subscribe
from vampires.array_kernels import statistics
from vampires.fps import FPSError

PARAMETER = "focus"  # in the FPS: where the focus shall be, mm
KEYWORD = "U_FCSF"  # of each frame: where it was, mm
TOLERANCE_MM = 0.006  # the stage moves in steps of 0.01 mm


class AutofocusError(Exception):
    """Why there is no best focus, in one line."""


def sharpness(frame):
    """How much the light is concentrated: the variance of the pixels of a frame [y, x].

    The brightness of the star should be steady during the scan.
    """
    # The first and the last row of a simulated frame hold its number.
    return statistics(frame[1:-1]).std ** 2


def sharpness_at(focus_mm, fps, frames, arguments):
    """Moves the focus and returns the mean sharpness of the first frames taken there."""
    fps[PARAMETER] = focus_mm
    deadline = time.monotonic() + arguments.timeout
    found = []
    for frame, info in frames:
        there_mm = info.keywords.get(KEYWORD)
        if there_mm is None:
            raise AutofocusError(f"frames of {arguments.stream} have no keyword {KEYWORD}")
        if abs(there_mm - focus_mm) <= TOLERANCE_MM:
            found.append(sharpness(frame))
            if len(found) == arguments.frames:
                return np.mean(found)
        if time.monotonic() > deadline:
            raise AutofocusError(
                f"only {len(found)} frames at {focus_mm:.2f} mm within {arguments.timeout:g} "
                f"s; the last was taken at {there_mm:.2f} mm: does the focus move?"
            )
    raise AutofocusError("the frames have ended")


def best_focus(focuses_mm, sharpnesses):
    """The top of a parabola through the logarithms of the sharpest points.

    Near the focus, the logarithm of the peak of a star falls with the square of the defocus.
    """
    top = int(np.argmax(sharpnesses))
    if top in (0, len(focuses_mm) - 1):
        raise AutofocusError(
            f"stars are sharpest at {focuses_mm[top]:.2f} mm, the end of the scan; "
            "scan around another --centre, or a wider --range"
        )
    near = sharpnesses > 0.3 * sharpnesses[top]
    near[top - 1 : top + 2] = True  # a parabola has three parameters
    curvature, slope, _ = np.polyfit(focuses_mm[near], np.log(sharpnesses[near]), 2)
    best_mm = -slope / (2 * curvature) if curvature else np.inf
    if curvature >= 0 or not focuses_mm[0] < best_mm < focuses_mm[-1]:
        raise AutofocusError("the sharpness has no clear maximum: is there a star?")
    return best_mm


def autofocus(fps, frames, arguments):
    """Scans, moves to the best focus and returns it, mm."""
    centre_mm = fps[PARAMETER] if arguments.centre is None else arguments.centre
    half_mm = arguments.range / 2
    focuses_mm = np.linspace(centre_mm - half_mm, centre_mm + half_mm, arguments.points)
    focuses_mm = np.unique(focuses_mm.round(2))
    sharpnesses = np.zeros(len(focuses_mm))
    for k, focus_mm in enumerate(focuses_mm):
        sharpnesses[k] = sharpness_at(focus_mm, fps, frames, arguments)
        print(f"{focus_mm:8.2f} mm   sharpness {sharpnesses[k]:10.1f}", flush=True)
    best_mm = best_focus(focuses_mm, sharpnesses).round(2)
    reached = sharpness_at(best_mm, fps, frames, arguments)
    print(f"best focus {best_mm:.2f} mm, sharpness {reached:.1f}")
    return best_mm


def parse_arguments():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("address", help="tcp://HOST:PORT where vampires-zmq-send listens")
    add("stream", help="name of the camera's stream")
    add("--fps-name", metavar="NAME", help="FPS with the focus; framesim-STREAM if not given")
    add("--centre", type=float, metavar="MM", help="middle of the scan; now's if not given")
    add("--range", type=float, default=4.0, metavar="MM", help="length of the scan (4)")
    add("--points", type=int, default=9, metavar="N", help="points of the scan (9)")
    add("--frames", type=int, default=8, metavar="N", help="frames at each point (8)")
    add("--timeout", type=float, default=30.0, metavar="S", help="to wait for a point (30)")
    arguments = parser.parse_args()
    if arguments.points < 3 or arguments.frames < 1 or not 0 < arguments.range < np.inf:
        parser.error("expected --points of 3 or more, --frames of 1 or more, a --range above 0")
    return arguments


def main():
    arguments = parse_arguments()
    name = arguments.fps_name or f"framesim-{arguments.stream}"
    try:
        with (
            FPS.open(name) as fps,
            subscribe(arguments.address, arguments.stream, timeout=arguments.timeout) as frames,
        ):
            before_mm = fps[PARAMETER]
            try:
                autofocus(fps, frames, arguments)
            except BaseException:
                fps[PARAMETER] = before_mm
                raise
    except (AutofocusError, FPSError, TimeoutError, ValueError) as error:
        return f"autofocus: {error}"
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
