"""Fuzzes vampires.pymilk_message: whatever comes is a message, or is refused in one line; and
what is read is what pickle itself reads.

See fuzzing.py for the ways to run it."""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import warnings
from pathlib import Path
from random import Random
from typing import Any

import fuzzing
import numpy as np

from vampires.link_message import FrameMessage, MessageInvalid, read_message
from vampires.pymilk_message import decode_pymilk

MAX_FRAME_BYTES = 1 << 20
GOLDEN = Path(__file__).parents[1] / "data" / "zmq"
_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
_MODULES = ("numpy", "numpy.core.", "numpy._core.")


def seeds() -> list[bytes]:
    """The golden messages, and those of the other protocols and kinds of arrays."""
    ramp = np.arange(60).reshape(3, 4, 5)
    frames = [ramp[0].astype(">f4"), ramp.astype("u2").T, ramp[:, :, ::2].astype("i8")]
    values = {"A": np.float32(1.5), "B": np.bool_(True), "C": 2**62, "D": "#TRUE#", "E": -1.5}
    made = [
        b"vcam1 " + pickle.dumps((values, frame), protocol)
        for frame in frames
        for protocol in (3, 4, 5)
    ]
    return [path.read_bytes() for path in sorted(GOLDEN.glob("pymilk*.bin"))] + made


def mutate(data: bytes, random: Random) -> bytes:
    """Steps left out, doubled, exchanged, or replaced by another step with the same bytes."""
    start = data.find(b" ") + 1
    try:
        ends = [place for _, _, place in pickletools.genops(data[start:]) if place is not None]
    except Exception:  # genops raises what the mutated bytes make of it
        return fuzzing.mutate_bytes(data, random)
    steps = [
        data[start + a : start + b] for a, b in zip(ends, [*ends[1:], len(data)], strict=True)
    ]
    at, other = random.randrange(len(steps)), random.randrange(len(steps))
    choice = random.randrange(5)
    if choice == 0:
        del steps[at]
    elif choice == 1:
        steps.insert(other, steps[at])
    elif choice == 2:
        steps[at], steps[other] = steps[other], steps[at]
    elif choice == 3:
        steps[at] = random.choice(_OPCODES) + steps[at][1:]
    else:
        steps[at] = fuzzing.mutate_bytes(steps[at], random)
    return data[:start] + b"".join(steps)


class _NumpyUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Python's own reader, for pickles that ours has accepted.

    The one in Python: that in C reads on at a wrong place when a step crosses the end of its
    frame, which mutated pickles do.
    """

    def find_class(self, module: str, name: str) -> Any:
        assert module.startswith(_MODULES), f"{module}.{name} was accepted"
        return super().find_class(module, name)


def check(data: bytes) -> None:
    """Raises when a message is not refused as it should be, or is not read as pickle does."""
    try:
        _, frame, values = decode_pymilk(data, max_bytes=MAX_FRAME_BYTES)
        message = read_message(data, max_bytes=MAX_FRAME_BYTES)
    except MessageInvalid as refused:
        assert str(refused).isascii() and str(refused).isprintable(), str(refused)
        return
    assert isinstance(message, FrameMessage) and frame.nbytes <= MAX_FRAME_BYTES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = _NumpyUnpickler(io.BytesIO(data[data.find(b" ") + 1 :])).load()
    except AssertionError:
        raise
    except Exception:  # pickle and NumPy may refuse more than we do, each in its way
        return
    assert repr(expected[0]) == repr(values) or _plain(expected[0]) == repr(values)
    assert expected[1].shape == frame.shape
    assert expected[1].astype(frame.dtype, "C").tobytes() == frame.tobytes()


def _plain(values: dict[str, Any]) -> str:
    """With numbers of NumPy as those of Python."""
    return repr({k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()})


if __name__ == "__main__":
    modules = ["vampires.array_pickle", "vampires.pymilk_message"]
    sys.exit(fuzzing.main(check, seeds(), mutate, modules))
