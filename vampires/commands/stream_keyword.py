"""Setting or showing one keyword of the cameras' streams, for the commands of observers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vampires.commands.cameras import Answer, Job, exit_status, tell_error
from vampires.stream_facts import (
    DATA_TYPE_COMMENT,
    DATA_TYPE_KEYWORD,
    OBJECT_COMMENT,
    OBJECT_KEYWORD,
)


@dataclass(frozen=True)
class StreamKeyword:
    """A keyword with text that observers set. comment: for a stream that has none of it yet."""

    name: str
    comment: str


DATA_TYPE = StreamKeyword(DATA_TYPE_KEYWORD, DATA_TYPE_COMMENT)
OBJECT = StreamKeyword(OBJECT_KEYWORD, OBJECT_COMMENT)


def keyword_job(prog: str, keyword: StreamKeyword, value: str | None) -> Job:
    """Sets the keyword of the cameras' streams, or with value None shows it."""

    def act(stream: str) -> Answer:
        if value is None:
            return show_keyword(stream, keyword)
        return set_keyword(stream, keyword, value)

    return Job(
        prog,
        [] if value is None else [value],
        act=lambda config, cameras: [act(camera.name) for camera in cameras],
        tell=lambda answers: _tell(prog, keyword, answers),
        status=exit_status,
    )


def show_keyword(stream: str, keyword: StreamKeyword) -> Answer:
    """The keyword of one stream, as "now"; empty where the stream has none."""
    from vampires.stream import Stream, StreamError

    answer: Answer = {"camera": stream, "error": "", "now": ""}
    try:
        with Stream.open(stream) as opened:
            answer["now"] = str(opened.keywords.get(keyword.name, "")).strip()
    except (StreamError, OSError) as error:
        answer["error"] = str(error)
    return answer


def set_keyword(stream: str, keyword: StreamKeyword, value: str) -> Answer:
    """Sets the keyword of one stream; its comment stays."""
    from vampires.stream import Stream, StreamError

    answer: Answer = {"camera": stream, "error": "", "before": "", "now": value}
    try:
        with Stream.open(stream) as opened:
            before = opened.keywords.get(keyword.name)
            if before is None:
                opened.keywords[keyword.name] = (value, keyword.comment)
            else:
                answer["before"] = str(before).strip()
                opened.keywords[keyword.name] = value
    except (StreamError, OSError) as error:
        answer["error"] = str(error)
    except ValueError:
        answer["error"] = (
            f"the stream {stream} has no keyword {keyword.name} and no room for another; "
            "let the camera create its stream with it"
        )
    return answer


def _tell(prog: str, keyword: StreamKeyword, answers: Sequence[Answer]) -> None:
    for answer in answers:
        now = answer.get("now") or "(none)"
        if answer["error"]:
            tell_error(prog, answer)
        elif "before" not in answer:
            print(f"{answer['camera']}: {keyword.name} {now}")
        elif answer["before"] == answer["now"]:
            print(f"{answer['camera']}: {keyword.name} is {now} already")
        else:
            before = answer["before"] or "(none)"
            print(f"{answer['camera']}: {keyword.name} {before} -> {now}")
