"""The table of cameras that vampires_logstatus shows, in 80 columns: cameras side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vampires.commands.cameras import Answer
from vampires.disk_room import RoomLevel, bytes_text, duration

COLUMNS = 80
LABEL_COLUMNS = 8
CAMERAS_ABREAST = 2
RED, PLAIN = "\x1b[31m", "\x1b[0m"

Cell = tuple[str, bool]
"""Text, and whether it is alarming."""


def table(answers: Sequence[Answer], *, colour: bool) -> list[str]:
    """The lines; none is longer than 80 characters, those of faults below the table apart."""
    lines: list[str] = []
    for begin in range(0, len(answers), CAMERAS_ABREAST):
        abreast = answers[begin : begin + CAMERAS_ABREAST]
        lines += [""] if lines else []
        lines += _block(abreast, colour)
    for answer in answers:
        for text in (answer["error"], answer.get("last_error", "")):
            if text:
                camera = answer["camera"]
                lines.append(text if camera in text else f"{camera}: {text}")
    return lines


def _block(answers: Sequence[Answer], colour: bool) -> list[str]:
    width = (COLUMNS - LABEL_COLUMNS) // CAMERAS_ABREAST - 1
    columns = [_column(answer) for answer in answers]
    labels = [label for label in columns[0]]
    lines = []
    for label in labels:
        line = f"{label:{LABEL_COLUMNS}}"
        for column in columns:
            text, alarming = column[label]
            padded = " " + shortened(text, width).ljust(width)
            line += f"{RED}{padded}{PLAIN}" if colour and alarming else padded
        lines.append(line.rstrip())
    return lines


def shortened(text: str, width: int) -> str:
    """The text in so many characters; its middle goes."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return f"{text[:head]}..{text[len(text) - (width - 2 - head) :]}"


def _column(answer: Answer) -> dict[str, Cell]:
    """What is shown of a camera, by label."""
    known = answer.get("prepared", False) and not answer["error"]
    file = os.path.basename(answer.get("last_file", "")) if known else ""
    return {
        "": (answer["camera"], False),
        "state": _state(answer),
        "rate": (_rate(answer), False),
        "frames": (f"{answer['frames']} logged" if known else "-", False),
        "lost": (f"{answer['lost']}, torn {answer['torn']}", answer["lost"] > 0)
        if known
        else ("-", False),
        "cube": (_cube(answer) if known else "-", False),
        "memory": (_memory(answer), answer.get("ring_fill_percent", 0) > 50),
        "file": (file or "-", False),
        "in": (answer.get("directory_in_use") or answer.get("directory") or "-", False),
        "disk": _disk(answer),
    }


def _state(answer: Answer) -> Cell:
    if answer["error"]:
        return "unknown, see below", True
    state, lights = answer["state"], answer["lights"]
    dead = [
        name
        for name, light in zip(("tmux", "conf", "run"), lights, strict=True)
        if light == "dead"
    ]
    text = state if not dead or dead == ["run"] else f"{state} ({', '.join(dead)} dead)"
    return text, bool(dead) or state == "not prepared"


def _rate(answer: Answer) -> str:
    measured, nominal = answer.get("rate_hz", 0.0), answer.get("nominal_hz", 0.0)
    text = f"{measured:.2f} Hz" if measured else "no frames"
    if not answer.get("running"):
        text = "-"
    return f"{text} (nominal {nominal:.2f})" if nominal else text


def _cube(answer: Answer) -> str:
    files, size = answer["files"], answer["cube_size"]
    if answer["saving"] or answer["cube_frames"]:
        return f"{answer['cube_frames']} of {size}, file {files + 1}"
    return f"{files} file{'' if files == 1 else 's'}, {size} frames a cube"


def _memory(answer: Answer) -> str:
    return f"{answer['ring_fill_percent']:.0f} % in use" if answer.get("running") else "-"


def _disk(answer: Answer) -> Cell:
    if not answer.get("running") or not answer.get("disk_free_bytes"):
        return "-", False
    text = f"{bytes_text(answer['disk_free_bytes'])} free"
    full_s = answer.get("full_in_s")
    if full_s is not None:
        text += f", full in {duration(full_s)}"
    level = answer.get("room_level", RoomLevel.OK.value)
    if level == RoomLevel.OK.value:
        return text, False
    return f"{text}, {level.upper()}", level != RoomLevel.LOW.value
