"""vampires-exec: the conf and run processes of an FPS, as its shells in tmux call them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from vampires import process_id
from vampires.commands.common import CommandParser, UserError, setup_signals, user_errors
from vampires.fps import FPS, FPSError
from vampires.logger_parameters import FUNCTION

PROG = "vampires-exec"

DESCRIPTION = """\
Runs the conf or the run process of an FPS. The functions fpsconfstart, fpsrunstart and
fpsrunstop in the tmux session of an FPS call it, as those of milk's call milk-exec; nobody
types it.

exit status: 0 ended as asked; 2 could not start."""

EXAMPLE = f"""\
  {PROG} -n streamFITSlog-vcam1 "streamFITSlog _CONFSTART_ vcam1"
  {PROG} -n streamFITSlog-vcam1 "streamFITSlog _RUNSTART_ vcam1\""""


def _parser() -> CommandParser:
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("-n", dest="name", metavar="FPS", required=True, help="name of the FPS")
    add("line", metavar="LINE", help="statements separated by ';', the action in the last")
    return parser


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What stands before moves a milk program to its CPUs; ours reads them from the FPS.
    words = args.line.split(";")[-1].split()
    if len(words) < 2 or words[0] != FUNCTION:
        raise UserError(
            f"found {args.line!r}, expected '{FUNCTION} ACTION STREAM'; this program runs "
            "loggers only"
        )
    actions = {"_CONFSTART_": _conf, "_RUNSTART_": _run, "_RUNSTOP_": _stop}
    if words[1] not in actions:
        raise UserError(f"found action {words[1]!r}, expected one of {', '.join(actions)}")
    try:
        with FPS.open(args.name) as fps:
            return actions[words[1]](fps)
    except FPSError as error:
        raise UserError(str(error)) from None


def _conf(fps: FPS) -> int:
    from vampires.logger_conf import run_conf

    if fps.conf_running():
        raise UserError(f"the conf process of {fps.name} runs already")
    with setup_signals() as stop:
        print(f"checking the parameters of {fps.name}", flush=True)
        run_conf(fps, stop)
    return 0


def _run(fps: FPS) -> int:
    from vampires import _core
    from vampires.fps.layout import Status
    from vampires.logger_process import AlreadyRunning, LoggerProcess, sole_runner

    with setup_signals() as stop:
        try:
            with sole_runner(fps):
                return LoggerProcess(fps).run(stop)
        except AlreadyRunning as error:
            raise UserError(str(error)) from None
        except (_core.StreamError, OSError, ValueError) as error:
            fps.change_status(clear=Status.CMDRUN)
            raise UserError(f"cannot log: {error}") from None


def _stop(fps: FPS) -> int:
    header = fps.header()
    process_id.send_signal(header.runpid, header.run_start_ns, signal.SIGINT, fps.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
