"""The page of one file: when its frames came, what is wrong with it, and its header."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from vampires.fits_hdus import FitsInvalid, read_hdus
from vampires.fitswatch.facts import read_facts
from vampires.fitswatch.lines import file_text
from vampires.fitswatch.snapshot import FileView
from vampires.fitswatch.timing import LISTED_GAPS, NoTimes, Timing, read_timing
from vampires.header_cards import CARD_BYTES
from vampires.header_rules import HeaderFault
from vampires.terminal_text import Line, Tone, safe_text

LABEL_CELLS = 10
BAR_CELLS = 30
MOST_CARDS = 20_000


def read_page(view: FileView) -> list[Line]:
    """All lines of the page. Reads the file; never raises for what it holds."""
    path = os.path.join(view.folder, view.facts.name)
    lines: list[Line] = [((file_text(view, 10_000).strip(), Tone.STRONG),)]
    facts = read_facts(view.folder, view.facts.name, view.facts.stamp)
    if facts.lost:
        lines += _labelled("lost", f"{facts.lost} frames, {facts.torn} of them torn", Tone.BAD)
    for failure in facts.failures or ():
        lines += _labelled("failed", failure, Tone.BAD)
    if view.partner:
        lines += _labelled("partner", f"no {view.partner} cube of this time", Tone.WARNING)
    lines.append(())
    try:
        lines += timing_lines(read_timing(path))
    except NoTimes as error:
        lines += _labelled("times", str(error), Tone.FAINT)
    return [*lines, (), *_fault_lines(facts.faults), *header_lines(path)]


def _fault_lines(faults: Sequence[HeaderFault]) -> list[Line]:
    """What is wrong with the header, a fault a line; keywords that are missing together."""
    missing = [f.keyword for f in faults if f.text == f"{f.keyword} is missing"]
    lines: list[Line] = []
    for fault in faults:
        if fault.keyword not in missing:
            lines += _labelled("header", fault.text, Tone.WARNING)
    if missing:
        lines += _labelled("missing", " ".join(missing), Tone.WARNING)
    return [*lines, ()] if lines else []


def timing_lines(timing: Timing) -> list[Line]:
    """Rate, intervals, jitter, gaps and histogram."""
    lines = [
        *_labelled("times", f"of {timing.clock}, from the {timing.source}"),
        *_labelled(
            "rate",
            f"{timing.rate_hz:.3f} Hz, {timing.frames} frames in "
            f"{timing.duration_ns / 1e9:.6f} s",
        ),
        *_labelled(
            "interval",
            f"median {interval(timing.median_ns)}, {interval(timing.least_ns)} to "
            f"{interval(timing.most_ns)}",
        ),
        *_labelled("jitter", f"{interval(timing.jitter_ns)} rms, without the gaps"),
    ]
    if not timing.gaps:
        lines += _labelled("gaps", "none")
    for at, gap in enumerate(timing.gaps[:LISTED_GAPS]):
        tone = Tone.BAD if gap.lost else Tone.WARNING
        lost = f", {gap.lost} lost" if gap.lost else ", none lost"
        text = f"before frame {gap.frame}: {interval(gap.interval_ns)}{lost}"
        lines += _labelled("" if at else "gaps", text, tone)
    more = len(timing.gaps) - LISTED_GAPS
    if more > 0:
        lines += _labelled("", f"and {more} more")
    return [*lines, (), *_histogram(timing)]


def _histogram(timing: Timing) -> list[Line]:
    most = max(number for _, _, number in timing.bins)
    ends = [f"{interval(low)} to {interval(high)}" for low, high, _ in timing.bins]
    width = max(map(len, ends))
    lines: list[Line] = []
    for at, (end, (_, _, number)) in enumerate(zip(ends, timing.bins, strict=True)):
        label = ("" if at else "histogram").ljust(LABEL_CELLS)
        bar = _bar(number / most)
        texts = ((label, Tone.FAINT), (f"{end:>{width}}  ", Tone.PLAIN), (bar, Tone.GOOD))
        lines.append((*texts, (f" {number}", Tone.PLAIN)))
    return lines


def _bar(share: float) -> str:
    """Eighths of a cell; something for anything."""
    eighths = max(1, round(share * BAR_CELLS * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def header_lines(path: str) -> list[Line]:
    """The cards of every HDU, as they stand in the file; blank ones at the end left out."""
    try:
        hdus, fault = read_hdus(path)
    except (FitsInvalid, OSError) as error:
        return _labelled("header", f"cannot be read: {error}", Tone.BAD)
    lines: list[Line] = []
    for hdu in hdus:
        raw = hdu.cards.raw.rstrip(b" ")
        lines.append(((f"header of HDU {hdu.number}", Tone.FAINT),))
        for at in range(0, min(len(raw), MOST_CARDS * CARD_BYTES), CARD_BYTES):
            card = raw[at : at + CARD_BYTES].decode("latin-1").rstrip()
            lines.append(((safe_text(card), Tone.PLAIN),))
        lines.append(())
    return lines + (_labelled("header", fault, Tone.BAD) if fault else [])


def interval(ns: float) -> str:
    """Such as "20.003 ms" or "1.500 s"."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(ns) >= scale:
            return f"{ns / scale:.3f} {unit}"
    return f"{ns:.0f} ns"


def _labelled(label: str, text: str, tone: Tone = Tone.PLAIN) -> list[Line]:
    """A text behind its label, on as many lines as it needs in 80 columns."""
    parts = textwrap.wrap(safe_text(text), 80 - LABEL_CELLS - 4) or [""]
    labels = [label, *[""] * (len(parts) - 1)]
    return [
        ((name.ljust(LABEL_CELLS), Tone.FAINT), (part, tone))
        for name, part in zip(labels, parts, strict=True)
    ]
