"""What the fuzz targets of Python share: their command line, and mutations that need no tool.

    fuzz_X.py --seconds 600      with Atheris where it is installed, else as with --plain
    fuzz_X.py --plain --runs N   mutated seeds, the same in each run; what the tests do

A finding ends the run with a traceback and the input; so do 10 seconds or 1 GiB for one input.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

MAX_INPUT_BYTES = 1 << 16
SECONDS_AN_INPUT = 10
SPARE_BYTES = 1 << 30

Check = Callable[[bytes], None]
Mutate = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1)


def main(check: Check, seeds: Sequence[bytes], mutate: Mutate, modules: Sequence[str]) -> int:
    """Runs a target. check(data) raises at a finding; mutate knows the format; modules are
    those whose branches Atheris follows. Returns the exit status."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--runs", type=int, default=0, help="stop after so many inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--plain", action="store_true", help="without Atheris")
    parser.add_argument("--under-atheris", metavar="CORPUS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seconds <= 0 and options.runs <= 0:
        parser.error("how long? give --seconds or --runs")
    if options.under_atheris:
        _fuzz_with_atheris(check, mutate, modules, options)
    if options.plain or importlib.util.find_spec("atheris") is None:
        _fuzz_plainly(check, seeds, mutate, options)
        return 0
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, f"seed{number}").write_bytes(seed)
        # Atheris ends the process it runs in.
        again = [sys.executable, *sys.argv, "--under-atheris", corpus]
        return subprocess.run(again, check=False).returncode


def _fuzz_with_atheris(
    check: Check, mutate: Mutate, modules: Sequence[str], options: argparse.Namespace
) -> None:
    import atheris

    for name in modules:
        _instrument_module(atheris, name)

    def mutate_or_not(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return mutate(data, random)[:max_size]

    flags = [
        f"-max_total_time={int(options.seconds)}",
        f"-runs={options.runs or -1}",
        f"-seed={options.seed or 1}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={SECONDS_AN_INPUT}",
        f"-rss_limit_mb={SPARE_BYTES >> 20}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    arguments = [sys.argv[0], *flags, options.under_atheris]
    atheris.Setup(arguments, check, custom_mutator=mutate_or_not)
    atheris.Fuzz()


def _instrument_module(atheris: object, name: str) -> None:
    """Has Atheris follow the functions and methods that a module defines."""
    for item in list(vars(sys.modules[name]).values()):
        owners = [item, *vars(item).values()] if isinstance(item, type) else [item]
        for function in owners:
            if getattr(function, "__module__", "") == name and hasattr(function, "__code__"):
                atheris.instrument_func(function)  # type: ignore[attr-defined]


def _fuzz_plainly(
    check: Check, seeds: Sequence[bytes], mutate: Mutate, options: argparse.Namespace
) -> None:
    _limit_memory()
    random = Random(options.seed)
    began = time.monotonic()
    runs = 0
    for seed in seeds:
        check(seed)
    while not _is_enough(runs, time.monotonic() - began, options):
        data = random.choice(seeds)
        for _ in range(random.randint(1, 4)):
            change = mutate if random.random() < 0.5 else mutate_bytes
            data = change(data, random)[:MAX_INPUT_BYTES]
        signal.alarm(SECONDS_AN_INPUT)  # ends the process, should it ring
        try:
            check(data)
        except BaseException:
            print(f"finding in run {runs}: {data!r}", file=sys.stderr)
            raise
        signal.alarm(0)
        runs += 1
    print(f"{runs} runs, no finding")


def _is_enough(runs: int, seconds: float, options: argparse.Namespace) -> bool:
    return (0 < options.runs <= runs) or (0 < options.seconds <= seconds)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """One change that knows nothing of a format: bits, bytes, numbers, pieces."""
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 2, 4, 8, 64)))
    piece = data[at:end]
    choice = random.randrange(7)
    if choice == 0:
        piece = bytes(byte ^ 1 << random.randrange(8) for byte in piece)
    elif choice == 1:
        piece = random.randbytes(len(piece))
    elif choice == 2:
        size = random.choice((1, 2, 4, 8))
        number = random.choice(_NUMBERS) % 2 ** (8 * size)
        piece = number.to_bytes(size, random.choice(("little", "big")))
        end = at + size
    elif choice == 3:
        piece = b""
    elif choice == 4:
        piece += piece
    elif choice == 5:
        end = len(data)
        piece = b""
    else:
        piece += random.randbytes(random.choice((1, 4, 32)))
    return data[:at] + piece + data[end:]
