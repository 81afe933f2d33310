"""DATASUM and CHECKSUM of a FITS HDU: FITS standard 4.0, section 4.4.2.7 and appendix J.

The sum is the 32 bit ones' complement sum of the big-endian words of the bytes. CHECKSUM is
its complement, written in 16 letters and digits such that the sum over the whole HDU is -0.
"""

import numpy as np

CARD_BYTES = 80
CHECKSUM_CHARS = 16
WORD_MASK = 0xFFFFFFFF
_PUNCTUATION = frozenset(range(0x3A, 0x41)) | frozenset(range(0x5B, 0x61))


def data_sum(data: bytes | bytearray | memoryview) -> int:
    """Ones' complement sum of ``data``, 0 to 2**32 - 1; a last short word is zero-filled."""
    view = memoryview(data).cast("B")
    whole_bytes = len(view) & ~3
    words = np.frombuffer(view[:whole_bytes], dtype=">u4")
    total = int(words.sum(dtype=np.uint64))
    tail = bytes(view[whole_bytes:])
    return _fold(total + int.from_bytes(tail.ljust(4, b"\0"), "big"))


def add_sums(*sums: int) -> int:
    """The sum of consecutive parts, each a multiple of 4 bytes long, from their own sums."""
    return _fold(sum(sums))


def encode_checksum(total: int) -> str:
    """The 16 characters of CHECKSUM for an HDU whose sum is ``total``.

    ``total`` is taken while CHECKSUM holds sixteen ``0``. Only letters and digits come out.
    """
    complement = ~total & WORD_MASK
    characters = [0] * CHECKSUM_CHARS
    for column, byte in enumerate(complement.to_bytes(4, "big")):
        for row, code in enumerate(_four_codes(byte)):
            characters[4 * row + column] = code
    return bytes(characters[-1:] + characters[:-1]).decode("ascii")


def stamp_checksum(header: bytes, datasum: int) -> bytes:
    """``header`` with its DATASUM and CHECKSUM cards filled in; comments stay.

    ``header`` is a whole FITS header that has both cards; ``datasum`` is ``data_sum`` of the
    data unit with its padding.

    Raises:
        ValueError: one of the two cards is missing.
    """
    stamped = bytearray(header)
    _set_string(stamped, "DATASUM", str(datasum))
    _set_string(stamped, "CHECKSUM", "0" * CHECKSUM_CHARS)
    total = add_sums(data_sum(stamped), datasum)
    _set_string(stamped, "CHECKSUM", encode_checksum(total))
    return bytes(stamped)


def _fold(total: int) -> int:
    while total > WORD_MASK:
        total = (total & WORD_MASK) + (total >> 32)
    return total


def _four_codes(byte: int) -> list[int]:
    """Four letters or digits whose distances from '0' add up to ``byte``."""
    quotient, remainder = divmod(byte, 4)
    codes = [0x30 + quotient + remainder, *[0x30 + quotient] * 3]
    while not _PUNCTUATION.isdisjoint(codes):
        for first in (0, 2):
            if codes[first] in _PUNCTUATION or codes[first + 1] in _PUNCTUATION:
                codes[first] += 1
                codes[first + 1] -= 1
    return codes


def _set_string(header: bytearray, name: str, value: str) -> None:
    start = f"{name:<8}= ".encode("ascii")
    for offset in range(0, len(header), CARD_BYTES):
        if header.startswith(start, offset):
            field = f"'{value}'".ljust(20).encode("ascii")
            header[offset + 10 : offset + 30] = field
            return
    raise ValueError(f"the header has no {name} card to fill; it needs DATASUM and CHECKSUM")
