"""DATASUM and CHECKSUM: those of astropy, and an HDU that sums to -0."""

import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from vampires.fits_sum import add_sums, data_sum, encode_checksum, stamp_checksum

ALL_ONES = 0xFFFFFFFF
words = st.integers(0, ALL_ONES)


def plain_header(*cards: str) -> bytes:
    fixed = ("SIMPLE  =                    T", "BITPIX  =                    8",
             "NAXIS   =                    1", "NAXIS1  =                 2880")  # fmt: skip
    text = "".join(card.ljust(80) for card in (*fixed, *cards, "END"))
    return text.ljust(2880).encode("ascii")


@given(st.binary(max_size=6000))
def test_data_sum_is_the_folded_sum_of_big_endian_words(data):
    padded = data + bytes(-len(data) % 4)
    total = sum(int.from_bytes(padded[i : i + 4], "big") for i in range(0, len(padded), 4))
    while total > ALL_ONES:
        total = (total & ALL_ONES) + (total >> 32)
    assert data_sum(data) == total


@given(st.lists(st.binary(max_size=400).map(lambda b: b + bytes(-len(b) % 4)), max_size=5))
def test_sums_of_parts_add_up_to_the_sum_of_the_whole(parts):
    assert add_sums(*map(data_sum, parts)) == data_sum(b"".join(parts))


@given(words)
def test_checksum_letters_bring_any_hdu_to_minus_zero(total):
    letters = encode_checksum(total)
    assert len(letters) == 16 and letters.isalnum() and letters.isascii()
    # The letters stand one byte past a word boundary, hence the rotation by one.
    aligned = data_sum((letters[1:] + letters[:1]).encode("ascii"))
    zeros = data_sum(b"0" * 16)
    assert (aligned - zeros + total) % ALL_ONES == 0


def test_the_example_of_the_standard_is_encoded_as_it_prints_it():
    assert encode_checksum(868229149) == "hcHjjc9ghcEghc9g"


@given(st.binary(min_size=2880, max_size=2880))
def test_astropy_finds_both_sums_right(data):
    header = plain_header("CHECKSUM= '0000000000000000'", "DATASUM = '0'")
    file = io.BytesIO(stamp_checksum(header, data_sum(data)) + data)
    with fits.open(file, checksum=True) as hdus:
        assert hdus[0].verify_checksum() == 1
        assert hdus[0].verify_datasum() == 1


def test_stamping_keeps_the_comments_and_the_length():
    header = plain_header(
        "CHECKSUM= '0000000000000000'   / of all", "DATASUM = '0'".ljust(30) + " / x"
    )
    stamped = stamp_checksum(header, ALL_ONES)
    assert len(stamped) == len(header)
    assert b"/ of all" in stamped
    assert b"DATASUM = '4294967295'         / x" in stamped
    assert add_sums(data_sum(stamped), ALL_ONES) == ALL_ONES


@pytest.mark.parametrize("missing", ["CHECKSUM", "DATASUM"])
def test_a_header_without_the_card_is_refused(missing):
    cards = {"CHECKSUM": "CHECKSUM= '0'", "DATASUM": "DATASUM = '0'"}
    del cards[missing]
    with pytest.raises(ValueError, match=f"no {missing} card"):
        stamp_checksum(plain_header(*cards.values()), 0)


def test_views_of_arrays_are_summed_in_place():
    pixels = np.arange(9, dtype=np.uint16).reshape(3, 3)
    assert data_sum(pixels.data) == data_sum(pixels.tobytes())
