"""vampires_datatype: what the frames are from now on (OBJECT, DARK, FLAT, ...)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vampires.commands.cameras import (
    Answer,
    Job,
    chosen_cameras,
    exit_status,
    observer_command,
    observer_parser,
    run_on_machines,
    tell_error,
)
from vampires.commands.common import UserError

PROG = "vampires_datatype"

DESCRIPTION = """\
Sets the keyword DATA-TYP of the cameras' streams, which the files that begin from now on have
in their headers; a cube under way ends before the next frame (unless [logging]
new_cube_keywords is without DATA-TYP). The rest of the keywords stays as the camera writes it.

exit status: 0 set; 1 not for a camera, standard error says why; 2 wrong usage or
configuration."""

EXAMPLE = f"""\
  {PROG} DARK
  {PROG} -c 1 flat"""


def _parser() -> argparse.ArgumentParser:
    parser = observer_parser(PROG, DESCRIPTION, EXAMPLE)
    parser.add_argument("type", metavar="TYPE", help="in any case; a wrong one lists them all")
    return parser


@observer_command(PROG, "see vampires_logstatus")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    from vampires.config import load_config

    config = load_config()
    try:
        data_type = checked_type(args.type, config.logging.data_types)
    except ValueError as error:
        raise UserError(str(error)) from None
    job = Job(
        PROG,
        [data_type],
        act=lambda config, cameras: [set_data_type(c.name, data_type) for c in cameras],
        tell=_tell,
        status=exit_status,
    )
    return run_on_machines(job, args, config, chosen_cameras(config, args.camera))


def checked_type(text: str, known: Sequence[str]) -> str:
    """The data type that was meant. ValueError lists those there are."""
    data_type = text.strip().upper()
    if data_type not in known:
        raise ValueError(f"no data type {text!r}, expected one of {' '.join(known)}")
    return data_type


def set_data_type(stream: str, data_type: str) -> Answer:
    """Sets DATA-TYP of one stream."""
    from vampires.stream import Stream, StreamError
    from vampires.stream_facts import DATA_TYPE_COMMENT, DATA_TYPE_KEYWORD

    answer: Answer = {"camera": stream, "error": "", "before": "", "now": data_type}
    try:
        with Stream.open(stream) as opened:
            before = opened.keywords.get(DATA_TYPE_KEYWORD)
            if before is None:
                opened.keywords[DATA_TYPE_KEYWORD] = (data_type, DATA_TYPE_COMMENT)
            else:
                answer["before"] = str(before).strip()
                opened.keywords[DATA_TYPE_KEYWORD] = data_type
    except (StreamError, OSError) as error:
        answer["error"] = str(error)
    except ValueError:
        answer["error"] = (
            f"the stream {stream} has no keyword {DATA_TYPE_KEYWORD} and no room for another; "
            "let the camera create its stream with it"
        )
    return answer


def _tell(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer["error"]:
            tell_error(PROG, answer)
        elif answer["before"] == answer["now"]:
            print(f"{answer['camera']}: DATA-TYP is {answer['now']} already")
        else:
            before = answer["before"] or "(none)"
            print(f"{answer['camera']}: DATA-TYP {before} -> {answer['now']}")


if __name__ == "__main__":
    sys.exit(main())
