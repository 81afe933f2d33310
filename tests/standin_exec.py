"""<callprogname>-exec of another program, as an FPS's shells in tmux call it.

Its own conf and run processes, through a mapping of the file; the conf process of loggers is
that of vampires-exec. It leaves what it was called with in <callprogname>.<action>.json, in
the directory it was started in. stubborn-exec does not stop when asked; failing-exec says why
it does not start; silent-exec ends at once.
"""

import json
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

CONFRUN, UPDATE, CHECKED = 0x1, 0x4, 0x8
CONF, RUN, CMDCONF, CMDRUN, CHECKOK = 0x1, 0x2, 0x10, 0x20, 0x200


class Mapped:
    def __init__(self, name: str) -> None:
        path = Path(os.environ["MILK_SHM_DIR"]) / f"{name}.fps.shm"
        with path.open("r+b") as file:
            self.raw = mmap.mmap(file.fileno(), 0)

    def record(self, at_pid: int, at_time: int) -> None:
        struct.pack_into("<2q", self.raw, at_time, *divmod(time.time_ns(), 10**9))
        struct.pack_into("<i", self.raw, at_pid, os.getpid())

    def signal(self) -> int:
        return struct.unpack_from("<Q", self.raw, 11800)[0]

    def change_signal(self, on: int = 0, off: int = 0) -> None:
        struct.pack_into("<Q", self.raw, 11800, (self.signal() | on) & ~off)

    def change_status(self, on: int = 0, off: int = 0) -> None:
        (status,) = struct.unpack_from("<I", self.raw, 11816)
        struct.pack_into("<I", self.raw, 11816, (status | on) & ~off)


def conf(fps: Mapped) -> None:
    fps.record(1748, 1752)
    fps.change_signal(UPDATE | CONFRUN)
    fps.change_status(CONF)
    while fps.signal() & CONFRUN:
        if fps.signal() & UPDATE:
            fps.change_signal(off=UPDATE)
            fps.change_status(CHECKOK)
            fps.change_signal(off=CHECKED)
        time.sleep(0.002)
    fps.change_status(off=CMDCONF | CONF)


def run(fps: Mapped, program: str) -> None:
    if program == "silent":
        return
    if program == "failing":
        print("cannot run: the camera is on fire", flush=True)
        fps.change_status(off=CMDRUN)
        return
    # What asks it to stop is waited for before anybody knows its id.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    fps.record(1768, 1776)
    fps.change_status(RUN)
    while program == "stubborn":
        signal.pause()
    signal.sigwait({signal.SIGINT})
    fps.change_status(off=RUN | CMDRUN)


def main() -> None:
    program = Path(sys.argv[0]).name.removesuffix("-exec")
    name, line = sys.argv[2:4]
    # A statement of the line may hold anything; the name of the FPS is what counts.
    action = next(a for a in ("CONFSTART", "RUNSTART", "RUNSTOP") if f"_{a}_" in line)
    keys = ("MILK_FPSPROCINFO", "OMP_NUM_THREADS", "MILK_SHM_DIR")
    called = {
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "environment": {key: os.environ[key] for key in keys if key in os.environ},
    }
    Path(f"{program}.{action}.json").write_text(json.dumps(called))
    if action == "CONFSTART" and "streamFITSlog" in line:
        os.execvp("vampires-exec", ["vampires-exec", *sys.argv[1:]])
    fps = Mapped(name)
    if action == "CONFSTART":
        conf(fps)
    elif action == "RUNSTART":
        run(fps, program)


if __name__ == "__main__":
    main()
