"""The server of a camera with a source that does as the test wants."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_process import PATIENCE_S, frames_come, keywords_of, wait_until

from vampires.camera.control_socket import NoCameraProcess, RequestRefused, request
from vampires.camera.server import (
    MIN_RING,
    CameraServer,
    ServerOptions,
    keyword_room,
    status_name,
)
from vampires.camera.settings import (
    CameraLimits,
    CameraSettings,
    SettingRefused,
    plain_camera,
)
from vampires.camera.source import FrameSink, FrameSource, Keywords, SourceError
from vampires.commands.common import StopEvent
from vampires.run_folder import RunFolder
from vampires.stop_request import Stop
from vampires.stream import Stream

SHAPE = (12, 16)


class PlannedSource(FrameSource):
    """Counts its frames. on_configure, on_acquire: called before either is done."""

    def __init__(self, dtype: str = "uint16") -> None:
        self.on_configure: Callable[[CameraSettings], None] = lambda wanted: None
        self.on_acquire: Callable[[], None] = lambda: None
        self.given: Keywords = {}
        self.closed = False
        self._dtype = np.dtype(dtype)

    @property
    def limits(self) -> CameraLimits:
        return plain_camera(SHAPE)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    def configure(self, wanted: CameraSettings) -> CameraSettings:
        self.on_configure(wanted)
        return wanted

    def keywords(self) -> Keywords:
        return self.given

    def acquire(self, sink: FrameSink, stop: Stop) -> None:
        self.on_acquire()
        while not stop.wait(0.002):
            sink.next_slot()[:] = sink.cnt0 + 1
            sink.publish()

    def close(self) -> None:
        self.closed = True


@dataclass
class RunningServer:
    """A server in a thread of the test, and what it made."""

    said: list[str] = field(default_factory=list)
    sources: list[PlannedSource] = field(default_factory=list)
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def source(self) -> PlannedSource:
        return self.sources[-1]

    def status(self) -> dict[str, Any]:
        return RunFolder().read(status_name("cam")) or {}

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        return request("cam", RunFolder(), do, **values)

    def set(self, what: str, value: object) -> dict[str, Any]:
        return self.ask("set", what=what, value=value)


@contextlib.contextmanager
def serving(
    make: Callable[[], PlannedSource] = PlannedSource, *, begins: bool = True, **options: Any
) -> Iterator[RunningServer]:
    """begins: waits for frames."""
    running = RunningServer()

    def make_one() -> PlannedSource:
        running.sources.append(make())
        return running.source

    server = CameraServer(
        ServerOptions("cam", **options), make_one, RunFolder().make(), running.said.append
    )

    def run(stop: StopEvent) -> None:
        try:
            server.run(stop)
        except BaseException as error:
            running.error = error
        running.ended.set()

    with StopEvent() as stop:
        thread = threading.Thread(target=run, args=(stop,))
        thread.start()
        try:
            if begins:
                wait_until(lambda: running.status().get("frames", 0) > 0, "frames")
            yield running
        finally:
            stop.set()
            thread.join()


pytestmark = pytest.mark.usefixtures("shm_dir")


def test_a_source_that_fails_while_it_runs_ends_the_server_with_its_words() -> None:
    with serving() as running:

        def fail() -> None:
            raise SourceError("the cable is out; put it in")

        running.source.on_acquire = fail
        running.set("tint", 0.001)
        assert running.ended.wait(PATIENCE_S)
        assert isinstance(running.error, SourceError)
        assert running.source.closed
        status = running.status()
        assert (status["state"], status["error"]) == ("failed", "the cable is out; put it in")
        with pytest.raises(NoCameraProcess, match="does not run here"):
            running.ask("status")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SourceError("no light"), "no light"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("not foreseen"), "not foreseen"),
    ],
)
def test_who_asked_for_a_change_that_ends_the_camera_is_told(
    error: Exception, said: str
) -> None:
    with serving() as running:

        def fail(wanted: CameraSettings) -> None:
            raise error

        running.source.on_configure = fail
        with pytest.raises((RequestRefused, NoCameraProcess)) as caught:
            running.set("tint", 0.001)
        assert str(caught.value) == said
        assert running.ended.wait(PATIENCE_S)
        assert running.error is error
        assert (running.status()["state"], running.status()["error"]) == ("failed", said)


def test_what_the_source_refuses_changes_nothing() -> None:
    with serving() as running:
        before = running.ask("status")["settings"]

        def refuse(wanted: CameraSettings) -> None:
            raise SettingRefused("this camera cannot")

        running.source.on_configure = refuse
        with pytest.raises(RequestRefused, match="this camera cannot"):
            running.set("tint", 0.001)
        assert running.ask("status")["settings"] == before
        frames_come("cam")


def test_a_released_camera_that_refuses_what_is_set_stays_released() -> None:
    refusing = False

    def refuse(wanted: CameraSettings) -> None:
        if refusing:
            raise SettingRefused("this camera cannot")

    def make() -> PlannedSource:
        source = PlannedSource()
        source.on_configure = refuse
        return source

    with serving(make) as running:
        before = running.ask("status")["settings"]
        running.ask("release")
        refusing = True
        with pytest.raises(RequestRefused, match="this camera cannot"):
            running.set("tint", 0.001)
        status = running.ask("status")
        assert (status["state"], status["settings"]) == ("released", before)
        assert len(running.sources) == 2
        assert all(source.closed for source in running.sources)
        refusing = False
        running.ask("acquire")
        frames_come("cam")


def test_more_keywords_of_the_source_than_the_stream_has_room_for_make_it_anew() -> None:
    with serving() as running, Stream.open("cam") as before:
        room = keyword_room(before)
        running.source.given = {f"K{k}": (k, "") for k in range(room)}
        running.set("tint", 0.001)
        assert not before.is_current()
        frames_come("cam")
        keywords = keywords_of("cam")
        assert [keywords[f"K{k}"] for k in range(room)] == list(range(room))


def test_a_keyword_for_which_others_left_no_room_does_not_stop_the_frames() -> None:
    with serving() as running:
        with Stream.open("cam") as stream:
            taken: list[str] = []
            inside = threading.Event()
            go_on = threading.Event()

            def hold() -> None:
                inside.set()
                assert go_on.wait(PATIENCE_S)

            running.source.on_acquire = hold
            running.set("tint", 0.001)
            assert inside.wait(PATIENCE_S)
            running.ask("keyword", name="LATE", value=1)  # waits for a frame
            with contextlib.suppress(ValueError):
                for k in range(1000):
                    stream.keywords[f"K{k}"] = k
                    taken.append(f"K{k}")
            running.source.on_acquire = lambda: None
            go_on.set()
        frames_come("cam")
        assert taken
        assert "LATE" not in keywords_of("cam")
        assert running.error is None


def test_a_large_ring_is_limited_by_memory_and_a_small_one_is_as_asked_for() -> None:
    with serving(ring=MIN_RING), Stream.open("cam") as stream:
        assert stream.metadata["size"][2] == MIN_RING


def test_one_that_ends_while_it_starts_ends(shm_dir: Path) -> None:
    with serving(begins=False) as running:
        pass
    assert running.error is None
    assert running.status()["state"] == "ended"
    assert not list(shm_dir.glob("*.shm"))
