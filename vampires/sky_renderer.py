"""Pools of the simulated sky, rendered by a process of its own, of low priority.

A camera that rendered them itself would be late with its frames: it would wait for Python's
lock. The pools are in shared memory without a name, so that nothing is left of them.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vampires import simulated_sky

_DONE = b"done"
_MESSAGE_BYTES = 4096
_LOWEST_PRIORITY = 19


class RendererGone(Exception):
    """The process that renders has ended, or could not render."""


@dataclass(frozen=True)
class SkyOptions:
    """What all pools of a renderer have in common, as simulated_sky.sky_pool takes it."""

    mode_or_shape: str | tuple[int, int]
    camera: int
    dtype: str
    seed: int
    day: str | None = None

    def empty_pool(self, memory: Any) -> np.ndarray:
        """A pool [P, ny, nx] in a buffer of pool_bytes."""
        return np.frombuffer(memory, self.dtype).reshape(self._shape)

    @property
    def pool_bytes(self) -> int:
        """Bytes of a pool."""
        pixels = self._shape[0] * self._shape[1] * self._shape[2]
        return pixels * np.dtype(self.dtype).itemsize

    @property
    def _shape(self) -> tuple[int, int, int]:
        shape = simulated_sky.frame_shape(self.mode_or_shape, self.camera, self.day)
        return (simulated_sky.pool_frames(shape), *shape)


class SkyRenderer:
    """Renders pools in its process, one after the other. A context manager."""

    def __init__(self, options: SkyOptions) -> None:
        """Starts the process. Raises OSError."""
        self.options = options
        self._memory: dict[int, int] = {}  # of each pool by its address, its descriptor
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "vampires.sky_renderer", str(other.fileno())],
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    # Ctrl-C at the terminal is the camera's; it ends this process.
                    start_new_session=True,
                )
        except BaseException:
            self._socket.close()
            raise

    def new_pool(self) -> np.ndarray:
        """Memory for a pool. Raises OSError."""
        descriptor = os.memfd_create("vampires-sky", os.MFD_CLOEXEC)
        try:
            os.truncate(descriptor, self.options.pool_bytes)
            pool = self.options.empty_pool(mmap.mmap(descriptor, self.options.pool_bytes))
        except BaseException:
            os.close(descriptor)
            raise
        self._memory[pool.ctypes.data] = descriptor
        return pool

    def render(self, pool: np.ndarray, defocus_nm: float) -> None:
        """Puts sky_pool(..., defocus_nm=...) into a pool of new_pool().

        Raises RendererGone, OSError.
        """
        request = {**asdict(self.options), "defocus_nm": defocus_nm}
        descriptor = self._memory[pool.ctypes.data]
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [descriptor])
            answer = self._socket.recv(_MESSAGE_BYTES)
        except ConnectionError:
            answer = b""
        if answer != _DONE:
            reason = answer.decode(errors="replace") or "it ended"
            raise RendererGone(f"the process that renders the sky: {reason}")
        # The camera shall not wait for the pages of its frames.
        pool.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max()

    def stop(self) -> None:
        """Ends the process; who waits in render() gets RendererGone."""
        self._process.terminate()
        self._process.wait()

    def close(self) -> None:
        """Ends the process. Pools stay valid; nobody may be in render()."""
        self.stop()
        self._socket.close()
        for descriptor in self._memory.values():
            os.close(descriptor)
        self._memory.clear()

    def __enter__(self) -> SkyRenderer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _serve(requests: socket.socket) -> None:
    """Renders what is asked for, until the camera is gone."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 1)
        if not message:
            return
        try:
            _render(json.loads(message), descriptors[0])
            answer = _DONE
        except Exception as error:  # the camera says it, once and in its words
            answer = f"{type(error).__name__}: {error}".encode()[:_MESSAGE_BYTES]
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        requests.send(answer)


def _render(request: dict[str, Any], descriptor: int) -> None:
    defocus_nm = request.pop("defocus_nm")
    where = request["mode_or_shape"]
    request["mode_or_shape"] = where if isinstance(where, str) else tuple(where)
    options = SkyOptions(**request)
    pool = options.empty_pool(mmap.mmap(descriptor, options.pool_bytes))
    simulated_sky.sky_pool(**request, defocus_nm=defocus_nm, out=pool)


def main() -> int:
    """The process: its argument is the descriptor of its end of the socket."""
    os.nice(_LOWEST_PRIORITY)
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        _serve(requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
