"""A capture of milk's sender arrives here as it was sent; our sender sends the same bytes.

The capture holds all bytes of one connection of imnetwtransmit; the JSON beside it says what
was in the stream that it sent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_stream import METADATA_BYTES, ForeignStream, get_field, keyword, run
from link_peers import MilkReceiver, MilkSender, frames_of, without_identity
from tcp_ends import newest, receiver, sender, wait_for_status

DATA = Path(__file__).parent / "data" / "tcp"
CAPTURE = (DATA / "tx_u16_5x3_kw3.bin").read_bytes()
FACTS = json.loads((DATA / "tx_u16_5x3_kw3.json").read_text())
FRAMES = FACTS["frames"]


def keywords_of(frame: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {entry["name"]: (entry["value"], entry["comment"]) for entry in frame["keywords"]}


def pixels_of(frame: dict[str, Any]) -> np.ndarray:
    return np.array(frame["pixels"], np.uint16).reshape(3, 5)


@pytest.fixture
def milk_stream(shm_dir: Path):
    """The stream that milk sent, as pyMilk made it, with its first frame already there."""
    with ForeignStream.create(shm_dir, "tcpsrc", size=(5, 3), dtype="uint16") as stream:
        publish(stream, FRAMES[0])
        yield stream


def publish(stream: ForeignStream, frame: dict[str, Any]) -> None:
    for index, entry in enumerate(frame["keywords"]):
        form = keyword(entry["name"], entry["type"].encode(), entry["value"], entry["comment"])
        stream.set_keyword(index, form)
    run(stream.pymilk(pixels_of(frame), at_once=True))
    # pyMilk's own counters; milk sent cnt1 as the slice, 0 for a 2D stream.
    assert stream.get("cnt0")[0] == frame["cnt0"]


def test_the_capture_is_what_its_json_says() -> None:
    assert len(CAPTURE) == METADATA_BYTES + len(FRAMES) * FACTS["layout"]["frame_bytes"]
    for sent, facts in zip(frames_of(CAPTURE), FRAMES, strict=True):
        assert (sent.cnt0, sent.cnt1) == (facts["cnt0"], facts["cnt1"])
        assert sent.pixels == pixels_of(facts).tobytes()


@pytest.mark.parametrize("piece_bytes", [len(CAPTURE), 430, 61, 1])
def test_milks_capture_arrives_frame_by_frame(shm_dir: Path, piece_bytes: int) -> None:
    """However the network cuts it into pieces."""
    ends = [frame["offset"] + FACTS["layout"]["frame_bytes"] for frame in FRAMES]
    with receiver(shm_dir) as link, MilkSender(link.port) as milk:
        at = 0
        for frame, end in zip(FRAMES, ends, strict=True):
            while at < end:
                piece = CAPTURE[at : min(at + piece_bytes, end)]
                milk.send(piece)
                at += len(piece)
            wait_for_status(link, cnt0=frame["cnt0"], frames=frame["cnt0"])
            pixels, info, keywords = newest(shm_dir, "tcpsrc")
            assert info.cnt0 == frame["cnt0"]
            assert pixels.dtype == np.uint16
            np.testing.assert_array_equal(pixels, pixels_of(frame))
            assert keywords == keywords_of(frame)
        status = wait_for_status(link, lost=0, duplicates=0, refused=0)
        assert status["bytes"] == len(CAPTURE) - METADATA_BYTES
    assert status["stream"] == "tcpsrc"


def test_our_sender_sends_milks_bytes_for_the_same_stream(milk_stream, shm_dir: Path) -> None:
    """The fields aside that name the file, the process and the moment."""
    with MilkReceiver() as milk:
        with sender(shm_dir, "tcpsrc", milk.port) as link:
            milk.wait_for(1)
            for frame in FRAMES[1:]:
                publish(milk_stream, frame)
                milk.wait_for(frame["cnt0"])
            status = wait_for_status(link, frames=len(FRAMES), lost=0)
        (sent,) = milk.captures
        assert sent[METADATA_BYTES:] == CAPTURE[METADATA_BYTES:]
        assert without_identity(sent[:METADATA_BYTES]) == without_identity(
            CAPTURE[:METADATA_BYTES]
        )
        assert get_field(sent, "creatorPID") == milk_stream.get("creatorPID")
    assert status["bytes"] == len(CAPTURE)
