"""Keywords that are renewed with every frame: no reader ever sees a part of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from logger_process import PATIENCE_S
from tcp_ends import receiver, sender, wait_for_status

from vampires import _core
from vampires.keywords import decode_keywords
from vampires.stream import Stream

CUBES = 250
MANY = 200
KEYWORDS = {f"KEY{k}": (k, "the same in every frame") for k in range(MANY)}


def test_every_cube_of_a_stream_from_a_link_has_every_keyword(
    shm_dir: Path, start_logger: Any, monkeypatch: Any
) -> None:
    far, cubes = shm_dir / "far", shm_dir / "cubes"
    far.mkdir()
    camera = Stream.create(
        "cam1", (8, 9), ring=256, keywords={**KEYWORDS, "_MAQTIME": 0, "COUNT": 0}
    )
    camera.write(np.zeros((8, 9), np.uint16))
    with receiver(far) as rx, sender(shm_dir, "cam1", rx.port) as tx:
        wait_for_status(tx, state="connected")
        wait_for_status(rx, cnt0=1)
        monkeypatch.setenv("MILK_SHM_DIR", str(far))
        options = ("--exact-dir", cubes, "--cube-size", 2, "--cubes", CUBES)
        logger = start_logger("cam1", *options).attached()
        frame = np.zeros((8, 9), np.uint16)
        deadline = time.monotonic() + PATIENCE_S
        while logger.process.poll() is None:
            assert time.monotonic() < deadline
            camera.write(frame, keywords={"COUNT": camera.cnt0})
        files = logger.end().result["files"]
    camera.remove()
    assert len(files) == CUBES
    for file in files:
        header = fits.getheader(file)
        assert [name for name in KEYWORDS if name not in header] == [], file


def test_a_script_reads_all_keywords_while_they_are_renewed(
    shm_dir: Path, start_python: Any
) -> None:
    with Stream.create("cam1", (4, 4), keywords={**KEYWORDS, "COUNT": 0}) as camera:
        writer = start_python(
            "import sys\n"
            "from vampires.stream import Stream\n"
            "names, k = [f'KEY{k}' for k in range(int(sys.argv[1]))], 0\n"
            "with Stream.open('cam1') as stream:\n"
            "    print('writes', flush=True)\n"
            "    while True:\n"
            "        k += 1\n"
            "        stream.keywords = {name: k for name in [*names, 'COUNT']}\n",
            MANY,
        )
        assert writer.stdout.readline() == "writes\n"
        file = _core.StreamFile.open(str(shm_dir), "cam1")
        seen = set()
        while len(seen) < 2000:
            found = {k.name: k.value for k in decode_keywords(file.keywords_raw())}
            assert len(found) == MANY + 1
            if found["COUNT"]:
                assert set(found.values()) == {found["COUNT"]}
            seen.add(found["COUNT"])
        writer.kill()
        writer.wait()
        camera.remove()
