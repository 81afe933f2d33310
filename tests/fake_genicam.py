"""A camera that does not exist: the GigE Vision simulator of Aravis, on a network of its own.

with fake_camera() as camera:
    GenicamSource(camera.options())

The port of GigE Vision is fixed, so each simulator has a network namespace: within the block
this thread, and the threads and processes it starts, see an empty machine with a loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from missing_rights import cannot_run

from vampires.camera.sources.genicam import GenicamOptions

ADDRESS = "127.0.0.1"
SERIAL = "V1"
NAME = f"Aravis-Fake-{SERIAL}"
PROGRAM = "arv-fake-gv-camera-0.8"
SENSOR_SHAPE = (2048, 2048)
_CLONE_NEWNET = 0x40000000
_CONTROL_PORT = 3956
_DISCOVERY = bytes.fromhex("4211 0002 0000 0001")
_ANSWER_S = 0.05
_TRIES = 400


@dataclass(frozen=True)
class FakeCamera:
    """The running simulator; process may be stopped or killed."""

    process: subprocess.Popen[bytes]

    def options(self, **values: Any) -> GenicamOptions:
        """Of a source that reads it over the loopback."""
        loopback = {"camera_id": ADDRESS, "packet_size": 1400, "packet_socket": False}
        return GenicamOptions(**{**loopback, **values})


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Within it, this thread and what it starts have a network with nothing but a loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET):
            cannot_run(f"a network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot return to the network")
    finally:
        os.close(before)


@contextlib.contextmanager
def fake_camera(
    *, lost_per_thousand: int = 0, description: Path | None = None
) -> Iterator[FakeCamera]:
    """The simulator, ready. lost_per_thousand: packets that it does not send; description: the
    GenICam file it shows instead of its own, with the same registers."""
    program = shutil.which(PROGRAM)
    if program is None:
        cannot_run(f"no program {PROGRAM}: it is in the Debian package aravis-tools")
    arguments = [program, "-i", ADDRESS, "-s", SERIAL, "-r", str(lost_per_thousand)]
    if description is not None:
        arguments += ["-g", str(description)]
    with own_network():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(arguments, **quiet)
        try:
            _wait_until_it_answers(process)
            yield FakeCamera(process)
        finally:
            process.kill()  # also one that is stopped
            process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_ANSWER_S)
        for _ in range(_TRIES):
            asking.sendto(_DISCOVERY, (ADDRESS, _CONTROL_PORT))
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                asking.recv(1024)
                return
            if process.poll() is not None:
                break
    raise RuntimeError(f"the simulated camera does not answer (status {process.returncode})")
