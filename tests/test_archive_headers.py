"""vampires-archive and headers: any number of cards is packed, any change of one is found."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_files import check_archived, check_sums, result_of, stand_in
from pixel_cubes import pixel_cube, some_pixels

from vampires.archive_pack import Job, pack
from vampires.cube_check import check_cube
from vampires.fits_cards import END_CARD, filler_cards, value_card
from vampires.fits_hdus import read_primary
from vampires.fits_sum import stamp_checksum

CASES = Path(__file__).parent / "data" / "cases"
REFUSED_ONCE = "archive_refused_123_cards"
REMAINDERS = range(36)


@pytest.fixture
def refused_once(tmp_path: Path) -> Path:
    """A cube of 123 cards and blank ones up to END, one block of which fpack drops."""
    for end in (".fits", ".txt"):
        shutil.copy(CASES / f"{REFUSED_ONCE}{end}", tmp_path)
    return tmp_path / f"{REFUSED_ONCE}.fits"


def test_a_cube_with_a_block_of_blank_cards_is_packed_checked_and_listed(
    refused_once, run_command
):
    result = result_of(run_command("archive", refused_once.parent, "--json"))
    assert len(result["packed"]) == 1 and result["left"] == []
    archive = refused_once.with_name(refused_once.name + ".fz")
    sidecar = refused_once.with_suffix(".txt").read_bytes()
    check_archived(refused_once.read_bytes(), archive, sidecar)
    assert check_sums(refused_once.parent) == 2
    assert check_cube(archive, keywords=False).ok


def with_cards(cube: Path, cards: int, spare_blocks: int, blank: bool) -> None:
    """Gives the header of a cube so many cards besides those that fill it up to END: blank
    ones, as earlier versions wrote, or comments. The rest of the file moves back."""
    hdu = read_primary(cube)
    rest = cube.read_bytes()[hdu.data_offset :]
    raw = hdu.cards.raw.decode("ascii")
    kept = [raw[at : at + 80] for at in range(0, len(raw), 80)]
    kept = [card for card in kept if not card.startswith("COMMENT")]
    kept += [value_card(f"X{number}", number) for number in range(cards - len(kept))]
    assert len(kept) == cards
    room = (cards // 36 + 1 + spare_blocks) * 36
    fill = room - 1 - cards if blank else max(0, room - 36 - cards)
    kept += [" " * 80] * fill if blank else filler_cards(fill)
    header = "".join([*kept, END_CARD]).ljust(room * 80).encode("ascii")
    cube.write_bytes(stamp_checksum(header, int(str(hdu.cards["DATASUM"]))) + rest)


@pytest.mark.parametrize("blank", [False, True], ids=["comments", "blank cards"])
@pytest.mark.parametrize("spare_blocks", [0, 1])
def test_a_header_of_any_number_of_cards_is_packed(tmp_path, spare_blocks, blank):
    for remainder in REMAINDERS:
        folder = tmp_path / str(remainder)
        cube = pixel_cube(folder, some_pixels(2))
        with_cards(cube, 180 + remainder, spare_blocks, blank)
        assert check_cube(cube, keywords=blank is False).ok
        outcome = pack(Job(cube, folder))
        assert (outcome.kind, outcome.fault) == ("packed", ""), remainder
        assert check_cube(cube.with_name(cube.name + ".fz"), keywords=blank is False).ok


CHANGES = {
    "a card": "at = data.index(b'X00042  ='); data[at + 29 : at + 30] = b'1'",
    "a card, with the sum of the header": (
        "at = data.index(b'X00042  ='); data[at + 29 : at + 30] = b'1'; restamp(data)"
    ),
    "a comment": "at = data.index(b'/ simple'); data[at + 2 : at + 3] = b'S'",
    "the order of cards": (
        "at = data.index(b'X00042  ='); "
        "data[at : at + 160] = data[at + 80 : at + 160] + data[at : at + 80]"
    ),
    "CHECKSUM": "at = data.index(b'CHECKSUM='); data[at + 11] ^= 1",
    "a pixel": "at = data.index(b'END     '); data[at // 2880 * 2880 + 2880 + 17] ^= 1",
    "a row of the table": "data[-2800] ^= 1",
}


@pytest.fixture
def meddling_funpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """funpack changes what it unpacks, in the way of CHANGES."""
    program = tmp_path / "bin" / "change.py"
    script = f'"$REAL" "$@" || exit $?\n{sys.executable} {program} "${{@: -2:1}}"'
    environment = stand_in(tmp_path / "bin", "funpack", script)
    program.write_text(
        "import sys\nfrom vampires.fits_sum import stamp_checksum\n"
        "from vampires.fits_hdus import read_primary\n"
        "def restamp(data):\n"
        "    hdu = read_primary(sys.argv[1])\n"
        "    header = bytes(data[: hdu.header_bytes])\n"
        "    data[: len(header)] = stamp_checksum(header, int(str(hdu.cards['DATASUM'])))\n"
        "data = bytearray(open(sys.argv[1], 'rb').read())\n"
        f"{CHANGES[request.param]}\n"
        "open(sys.argv[1], 'wb').write(data)\n"
    )
    monkeypatch.setenv("PATH", environment["PATH"])
    yield


@pytest.mark.parametrize("meddling_funpack", CHANGES, indirect=True)
def test_whatever_else_differs_keeps_a_cube_out_of_the_archive(refused_once, meddling_funpack):
    before = refused_once.read_bytes()
    outcome = pack(Job(refused_once, refused_once.parent))
    assert outcome.kind == "left" and outcome.fault
    assert refused_once.read_bytes() == before
    names = {"bin", refused_once.name, refused_once.with_suffix(".txt").name}
    assert set(os.listdir(refused_once.parent)) == names
