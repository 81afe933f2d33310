"""vampires-camera: the prompt of a camera, a Python with the camera as `cam`."""

from __future__ import annotations

import code
import sys
import time
from collections.abc import Sequence

from vampires.commands.common import CommandParser, user_errors

PROG = "vampires-camera"
WAIT_S = 60.0
LOOK_S = 0.1

DESCRIPTION = """\
An interactive Python in which `cam` is a running camera of this machine. Tab completes;
help(cam) tells what it can do. camstart runs it in tmux session CAMERA_ctrl."""

EXAMPLE = f"""\
  {PROG} vcam1
  >>> cam.set_camera_mode("MBI")
  >>> cam.set_tint(0.01)"""


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument("camera", metavar="CAMERA", help="name of a camera")
    args = parser.parse_args(argv)
    from vampires.camera.client import Camera, CameraError

    cam = _waited_for(args.camera)
    names = {"cam": cam, "Camera": Camera, "CameraError": CameraError}
    _complete(names)
    sys.ps1, sys.ps2 = f"{args.camera}> ", "... "
    banner = f"{cam!r}\ncam.modes, cam.set_tint(seconds), help(cam); Ctrl-B D leaves tmux"
    _Prompt(names, CameraError).interact(banner=banner, exitmsg="")
    return 0


def _waited_for(name: str) -> object:
    """The camera, as soon as its process answers. UserError when it does not."""
    from vampires.camera.client import Camera, CameraError
    from vampires.commands.common import UserError

    started_s, told = time.monotonic(), False
    while True:
        try:
            return Camera(name)
        except CameraError as error:
            if time.monotonic() - started_s > WAIT_S:
                raise UserError(str(error)) from None
        if not told:
            print(f"{PROG}: waiting for camera {name}", file=sys.stderr, flush=True)
            told = True
        time.sleep(LOOK_S)


def _complete(names: dict[str, object]) -> None:
    """Tab completes names, where this Python has readline."""
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")


class _Prompt(code.InteractiveConsole):
    """A refusal of the camera is one line, not a traceback."""

    def __init__(self, names: dict[str, object], refusal: type[Exception]) -> None:
        super().__init__(names, filename="<prompt>")
        self._refusal = refusal

    def showtraceback(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, self._refusal):
            self.write(f"{error}\n")
        else:
            super().showtraceback()


if __name__ == "__main__":
    sys.exit(main())
