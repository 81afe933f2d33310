"""vampires-supervisor: keeps the processes of camstart running; nobody types it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vampires.commands.common import CommandParser, UserError, setup_signals, user_errors

PROG = "vampires-supervisor"

DESCRIPTION = """\
Keeps the processes running that camstart has started on this machine. camstart starts it; it
ends by itself after camstop all. A second one waits to take its place.

exit status: 0 ended, or another one runs; 2 wrong usage, or no folder to work in."""

EXAMPLE = f"""\
  {PROG}"""


@user_errors(PROG)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = CommandParser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "--standby", action="store_true", help="wait until the one that works is gone"
    )
    args = parser.parse_args(argv)
    from vampires.flow.supervisor import LOCK, LOCK_S, STANDBY_LOCK, Supervisor
    from vampires.run_folder import RunFolder

    run = RunFolder()
    try:
        run.make()
        if args.standby:
            waiting = run.lock(STANDBY_LOCK, LOCK_S)
            lock = run.lock(LOCK)
            os.close(waiting)
        else:
            lock = run.lock(LOCK, LOCK_S)
    except TimeoutError:
        return 0
    except OSError as error:
        raise UserError(f"{run.path}: {error.strerror}") from None
    with setup_signals() as stop:
        Supervisor(run).run(stop)
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
