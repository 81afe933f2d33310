"""How others talk to the process of a camera: one JSON object each way, a line, over a socket
in the run folder of that machine. Nothing listens on the network; whoever is elsewhere comes by
ssh.

A request is {"do": NAME, ...}; the answer {"ok": true, ...} or {"ok": false, "error": TEXT}.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vampires.closing import Closing
from vampires.run_folder import RunFolder, bind_socket, connect_socket

MAX_LINE_BYTES = 1 << 16
REQUEST_S = 5.0  # for a client to send its line
ANSWER_S = 20.0  # for a change to be made: a mode, on a slow camera
MAX_CLIENTS = 32

Answer = dict[str, Any]


class NoCameraProcess(Exception):
    """No process of that camera answers here. One line."""


class RequestRefused(Exception):
    """The camera did not do it; its reason, one line."""


def socket_path(camera: str, run: RunFolder) -> Path:
    """Where the process of a camera listens."""
    return run.path / f"{camera}.sock"


def request(camera: str, run: RunFolder, /, do: str, **values: Any) -> Answer:
    """Asks the process of a camera for something and waits for it. Raises NoCameraProcess,
    RequestRefused."""
    try:
        asked = json.dumps({"do": do, **values}, default=_plain).encode() + b"\n"
    except TypeError as error:
        raise RequestRefused(str(error)) from None
    try:
        with connect_socket(socket_path(camera, run), ANSWER_S + REQUEST_S) as client:
            client.sendall(asked)
            answer = _parsed(_read_line(client))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoCameraProcess(
            f"camera {camera} does not run here; start it: camstart {camera}"
        ) from None
    except OSError as error:
        raise NoCameraProcess(
            f"camera {camera} does not answer ({error}); look at tmux session {camera}_fgrab"
        ) from None
    except ValueError:
        raise NoCameraProcess(
            f"camera {camera} ended while it was asked; look at camstatus"
        ) from None
    if not answer.get("ok"):
        raise RequestRefused(str(answer.get("error", "refused without a reason")))
    return answer


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python. TypeError for what JSON does not have."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"found {type(value).__name__}, expected a number, a text or true or false")


class ControlServer(Closing):
    """Answers requests, each in a thread of its own, until closed.

    handle: given the request (a JSON object), in that thread; what it returns is the answer.
    """

    def __init__(self, path: Path, handle: Callable[[dict[str, Any]], Answer]) -> None:
        """Raises OSError."""
        self._path = path
        self._handle = handle
        self._socket = bind_socket(path)
        self._room = threading.BoundedSemaphore(MAX_CLIENTS)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answers no more."""
        if self._wake.fileno() < 0:
            return
        self._wake.close()
        self._thread.join()
        self._woken.close()
        self._socket.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._woken.fileno() in ready:
                return
            with contextlib.suppress(OSError):
                client, _ = self._socket.accept()
                if not self._room.acquire(blocking=False):
                    with client:
                        client.setblocking(False)
                        client.sendall(_line(_refusal(f"{MAX_CLIENTS} others ask it already")))
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):
                try:
                    answer = self._handle(_parsed(_read_line(client, REQUEST_S)))
                except ValueError as error:
                    answer = _refusal(str(error))
                client.settimeout(REQUEST_S)
                client.sendall(_line(answer))
        finally:
            self._room.release()


def _refusal(why: str) -> Answer:
    return {"ok": False, "error": why}


def _line(answer: Answer) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _read_line(client: socket.socket, timeout_s: float | None = None) -> bytes:
    """A line, which has come within the time (None: each part of it within that of the
    socket). ValueError for one that is too long or has no end, OSError."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        if deadline is not None:
            client.settimeout(max(1e-3, deadline - time.monotonic()))
        part = client.recv(4096)
        if not part or len(line) > MAX_LINE_BYTES:
            raise ValueError(f"found {len(line)} bytes, expected a line of JSON")
        line += part
    return line


def _parsed(line: bytes) -> dict[str, Any]:
    """The object of a line. ValueError for anything else."""
    try:
        values: Mapping[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("found no JSON, expected an object") from None
    if not isinstance(values, dict):
        raise ValueError("found JSON that is no object")
    return values
