"""The table of cameras and links that camstatus shows, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vampires.commands.status_table import COLUMNS, PLAIN, RED, shortened
from vampires.disk_room import duration

YELLOW, GREEN, GRAY = "\x1b[33m", "\x1b[32m", "\x1b[90m"
# Of a process that runs: states of what it does that are not as they should be.
_NOT_YET = ("connecting", "waiting", "no stream", "stale", "no redis", "released")
_GOOD = ("running", "held")
_HEAD = ("what", "session", "state", "rate", "lost", "since", "again")
_WIDTHS = (12, 19, 12, 9, 7, 8, 5)

Part = Mapping[str, Any]


def is_alarming(part: Part) -> bool:
    """Whether a part that was started is not as it should be."""
    return part.get("state") not in (*_GOOD, "stopped", "stopping") or bool(
        part.get("doing") == "failed"
    )


def table(told: Mapping[str, Mapping[str, Any]], now_ns: int, *, colour: bool) -> list[str]:
    """The lines: for each machine its parts, by camera, and below what is wrong with them."""
    lines: list[str] = []
    for host, one in told.items():
        lines += [""] if lines else []
        lines += _machine(host, one, now_ns, colour)
    return lines


def _machine(host: str, one: Mapping[str, Any], now_ns: int, colour: bool) -> list[str]:
    parts: Sequence[Part] = one.get("parts", [])
    if one.get("error"):
        return [_coloured(host, RED, colour), f"  {one['error']}"]
    title = host
    if one.get("supervisor") == "dead":
        title += ": nothing is watched, the supervisor does not run; type camstart"
        return [_coloured(title, RED, colour), *_rows(parts, now_ns, colour)]
    if not parts:
        return [f"{host}: nothing was started"]
    return [title, *_rows(parts, now_ns, colour)]


def _rows(parts: Sequence[Part], now_ns: int, colour: bool) -> list[str]:
    if not parts:
        return []
    lines = ["  " + _line(_HEAD)]
    troubles = []
    for part in sorted(parts, key=lambda part: str(part.get("camera") or "~")):
        text, tone = _state(part)
        cells = [
            str(part.get("kind", "")),
            str(part.get("session", "")),
            text,
            _rate(part),
            _count(part.get("lost")),
            _since(part, now_ns),
            _count(part.get("restarts")),
        ]
        lines.append(_coloured("  " + _line(cells), tone, colour))
        if part.get("error"):
            troubles.append(f"  {part['session']}: {part['error']}")
        troubles += [f"  {part['session']}: {note}" for note in part.get("notes") or ()]
    return lines + troubles


def _line(cells: Sequence[str]) -> str:
    padded = [
        shortened(cell, width).ljust(width) if k < 3 else shortened(cell, width).rjust(width)
        for k, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return " ".join(padded).rstrip()[: COLUMNS - 2]


def _state(part: Part) -> tuple[str, str]:
    state, doing = str(part.get("state", "")), str(part.get("doing") or "")
    if is_alarming(part):
        return state, RED
    if state == "running" and doing and doing != "running":
        return doing, YELLOW if doing in _NOT_YET else ""
    if part.get("lost"):
        return state, YELLOW
    return state, GRAY if state in ("held", "stopped", "stopping") else ""


def _rate(part: Part) -> str:
    rate = part.get("rate_hz")
    return f"{rate:.1f} Hz" if isinstance(rate, (int, float)) else "-"


def _count(value: Any) -> str:
    return str(value) if isinstance(value, int) else "-"


def _since(part: Part, now_ns: int) -> str:
    since_ns = part.get("since_ns")
    if not isinstance(since_ns, int) or since_ns <= 0:
        return "-"
    return duration(max(0.0, (now_ns - since_ns) / 1e9))


def _coloured(text: str, tone: str, colour: bool) -> str:
    return f"{tone}{text}{PLAIN}" if colour and tone else text
