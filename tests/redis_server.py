"""A Redis server of a test's own, at a free port of this machine or of a host of the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from zmq_ends import LOOPBACK, free_port

PATIENCE_S = 20.0
SOCKET = "redis.sock"  # the client of a test speaks through it, whatever network the server has

Launch = Callable[..., "subprocess.Popen[Any]"]


class RedisServer:
    """The server, once started: down and up again at the same port, as often as wanted."""

    def __init__(self, folder: Path, host: str, launch: Launch) -> None:
        self._folder = folder
        self._host = host
        self._launch = launch
        self._process: subprocess.Popen[Any] | None = None
        self.port = 0
        self.client: Redis | None = None

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def start(self) -> None:
        """Returns when the server answers. Its memory is empty."""
        for _ in range(10):  # somebody else may take a port that was free
            port = self.port or free_port()
            socket = self._folder / SOCKET
            self._process = self._launch(
                ["redis-server", "--port", str(port), "--bind", self._host, "--save", "",
                 "--protected-mode", "no", "--unixsocket", str(socket),
                 "--appendonly", "no", "--dir", str(self._folder)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            self.client = Redis(unix_socket_path=str(socket), socket_timeout=PATIENCE_S)
            if self._answers():
                self.port = port
                return
            self.kill()
        raise AssertionError("redis-server does not start")

    def _answers(self) -> bool:
        deadline_s = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            try:
                return self.client.info("server")["process_id"] == self._process.pid
            except RedisError:
                time.sleep(0.01)
        return False

    def set(self, **values: object) -> None:
        """Sets keywords (- written as __), each in a hash of its own."""
        for name, value in values.items():
            self.client.hset(name.replace("__", "-"), "value", value)

    def kill(self) -> None:
        """The server is gone at once, and so is what it held."""
        if self.client is not None:
            self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Meanwhile the server takes connections, and says nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(
    *, started: bool = True, host: str = LOOPBACK, launch: Launch = subprocess.Popen
) -> Iterator[RedisServer]:
    """A server that runs; or, not started, one that has a port at which nobody listens yet.
    host: its address; launch: starts a process where there is that address, as Popen does."""
    folder = Path(tempfile.mkdtemp(prefix="vredis-", dir="/tmp"))
    server = RedisServer(folder, host, launch)
    try:
        if started:
            server.start()
        else:
            server.port = free_port()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
