"""Both links between two hosts, under load, while everything that can fail does.

Two network namespaces are the hosts, with a cable of 400 Mbit/s. A camera runs on the near one;
its stream goes to the far one over the fast link (every frame) and the slow link (the newest,
20 times a second). At random, by a seed, programs are ended, killed and held up, the crop
changes, the cable is out or slow. Every frame on the far side must be one that was sent, pixel
by pixel, and what is missing must be what the programs counted.

VAMPIRES_LINKS_SECONDS: how long (25). VAMPIRES_LINKS_SEED: of the faults (1).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from link_peers import wait_until
from missing_rights import cannot_run
from network_namespaces import CannotMakeHosts, NamespaceHost, two_hosts
from tcp_ends import FarFrame, Witness, counter_of

from vampires.simulated_sky import counter_pool

SECONDS = float(os.environ.get("VAMPIRES_LINKS_SECONDS", "25"))
SEED = int(os.environ.get("VAMPIRES_LINKS_SEED", "1"))
SHAPES = ((96, 128), (64, 80), (120, 160))
FPS = 300
RING = 512
CABLE_MBIT_PER_S = 400  # a burst from a full ring is not faster than the witness
SLOW_MBIT_PER_S = 20  # less than the camera makes
TCP_PORT, ZMQ_PORT = 30107, 5560
STREAM, SLOW_COPY = "cam1", "cam1slow"
SLOW_COUNTS = ("frames", "throttled", "dropped_by_network", "bad_messages", "errors")


class Program:
    """A command of the package on a host, started again and again; each life has its lines."""

    def __init__(self, host: NamespaceHost, folder: Path, module: str, *arguments: object):
        self.host = host
        self.name = module
        self.lives: list[Path] = []
        self._command = [sys.executable, "-m", f"vampires.commands.{module}"]
        self._arguments = arguments
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self, *more: object) -> None:
        lines = self._folder / f"{self.name}.{len(self.lives)}.json"
        said = lines.with_suffix(".txt")
        with lines.open("w") as out, said.open("w") as err:
            self._process = self.host.start(
                *self._command, *self._arguments, *more, "--json", stdout=out, stderr=err
            )
        self.lives.append(lines)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ends it, and waits for that. What was not ended by a signal it must survive."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(number)
        status = process.wait(timeout=60)
        expected = -signal.SIGKILL if number == signal.SIGKILL else 0
        assert status == expected, f"{self.name}: exit status {status}: {self.said()}"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill_if_left(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def said(self) -> str:
        """Its last lines on standard error."""
        return self.lives[-1].with_suffix(".txt").read_text()[-2000:]

    def objects(self, life: int = -1) -> list[dict[str, Any]]:
        """Its JSON objects so far; a killed program may have left half a line."""
        found = []
        for line in self.lives[life].read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found


class CameraRun(NamedTuple):
    """A camera that has ended. to_the_end: the link was undisturbed when it did."""

    frames: int
    to_the_end: bool


@dataclass
class Account:
    """What happened, for the end of the run."""

    faults: Counter[str] = field(default_factory=Counter)
    slowest_s: defaultdict[str, dict[Witness, float]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """Until the newest frame was there again, over the fast and the slow link."""
    slowest_network_s: float = 0.0
    """Until the hosts reached each other again after the cable was plugged in."""
    cameras: list[CameraRun] = field(default_factory=list)
    tcp_lives: list[int] = field(default_factory=list)
    """Frames that the witness had when each life of the fast receiver began."""
    killed_lives: set[int] = field(default_factory=set)


class Observatory:
    """The hosts with all that runs on them."""

    def __init__(self, near: NamespaceHost, far: NamespaceHost, folder: Path) -> None:
        self.near, self.far = near, far
        self.random = random.Random(SEED)
        self.account = Account()
        self.camera = Program(near, folder, "framesim", STREAM, "--pattern", "counter")
        here, there = near.address, far.address
        self.tcp_sender = Program(near, folder, "tcp_transmit", STREAM, there, TCP_PORT)
        self.tcp_receiver = Program(
            *(far, folder, "tcp_receive", "--listen", there, "--allow", here, TCP_PORT)
        )
        address = f"tcp://{here}:{ZMQ_PORT}"
        self.zmq_sender = Program(
            *(near, folder, "zmq_send", STREAM, "--bind", address, "--allow", there)
        )
        self.zmq_receiver = Program(
            *(far, folder, "zmq_recv", address, STREAM, "--as", SLOW_COPY)
        )
        self.links = [self.tcp_sender, self.tcp_receiver, self.zmq_sender, self.zmq_receiver]
        self.shape = SHAPES[0]
        pools = {shape: counter_pool(shape) for shape in SHAPES}
        self.fast = Witness(far.folder, STREAM, pools)
        self.slow = Witness(far.folder, SLOW_COPY, pools)

    def begin(self) -> None:
        self.near.limit_mbit_per_s(CABLE_MBIT_PER_S)
        self.start_camera()
        for program in self.links:
            self.start(program)

    def start(self, program: Program) -> None:
        if program is self.tcp_receiver:
            self.account.tcp_lives.append(len(self.fast.frames))
        program.start()

    def start_camera(self) -> None:
        ny, nx = self.shape
        self.camera.start("--shape", ny, nx, "--fps", FPS, "--ring", RING)

    def end_camera(self, *, to_the_end: bool = True) -> None:
        self.camera.end()
        frames = self.camera.objects()[-1]["frames"]
        self.account.cameras.append(CameraRun(frames, to_the_end))

    def stop(self) -> None:
        """All programs, the senders first; nothing that is under way is lost by that."""
        self.end_camera()
        for program in self.links:
            program.end()
        for witness in (self.fast, self.slow):
            witness.close()

    def close(self) -> None:
        for program in [self.camera, *self.links]:
            program.kill_if_left()
        for witness in (self.fast, self.slow):
            witness.close()

    # -- faults ----------------------------------------------------------------------------

    def restart(self) -> None:
        """One program, or two at once, ended or killed."""
        chosen = self.random.sample(self.links, self.random.choice([1, 1, 2]))
        for program in chosen:
            number = self.random.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGKILL])
            program.end(number)
            if program is self.tcp_receiver and number == signal.SIGKILL:
                self.account.killed_lives.add(len(program.lives) - 1)
        time.sleep(self.random.uniform(0, 1))
        if self.tcp_receiver in chosen:
            self.fast.wait_until_read()
        for program in self.random.sample(chosen, len(chosen)):
            self.start(program)

    def change_crop(self, *, to_the_end: bool = True) -> None:
        self.end_camera(to_the_end=to_the_end)
        self.shape = self.random.choice([shape for shape in SHAPES if shape != self.shape])
        self.start_camera()

    def cut_cable(self) -> None:
        host = self.random.choice([self.near, self.far])
        host.set_link(up=False)
        time.sleep(self.random.choice([0.2, 0.7, 1.5, 3.0]))
        self.plug_in(host)

    def plug_in(self, host: NamespaceHost) -> None:
        """The cable is back, and so is the network."""
        began_s = time.monotonic()
        host.set_link(up=True)
        self.near.wait_until_reaches(self.far.address)
        took_s = time.monotonic() - began_s
        self.account.slowest_network_s = max(self.account.slowest_network_s, took_s)

    def change_crop_without_cable(self) -> None:
        self.far.set_link(up=False)
        time.sleep(self.random.uniform(0, 0.5))
        self.change_crop(to_the_end=False)
        time.sleep(self.random.uniform(0, 0.5))
        self.plug_in(self.far)

    def hold_up(self) -> None:
        """A program that stands still for a while, as on a machine that is busy."""
        program = self.random.choice([*self.links, self.camera])
        program.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.1, 2.5))
        program.signal(signal.SIGCONT)

    def slow_network(self) -> None:
        self.near.limit_mbit_per_s(SLOW_MBIT_PER_S)
        time.sleep(self.random.uniform(0.5, 2.0))
        self.near.limit_mbit_per_s(CABLE_MBIT_PER_S)

    def fault(self) -> None:
        """One of them, until both links bring the newest frames again."""
        kinds: list[Callable[[], None]] = [
            *(self.restart, self.restart, self.change_crop, self.cut_cable, self.hold_up),
            *(self.slow_network, self.change_crop_without_cable),
        ]
        kind = self.random.choice(kinds)
        self.account.faults[kind.__name__] += 1
        kind()
        self.wait_for_newest(kind.__name__)

    def wait_for_newest(self, after: str) -> None:
        """Both links bring a frame that is not older than the one there is now."""
        near = self.near.folder
        wait_until(lambda: counter_of(near, STREAM) > 0, "the first frame of the camera")
        now, now_s = counter_of(near, STREAM), time.monotonic()

        def brings(witness: Witness) -> bool:
            frames = witness.frames
            return bool(frames) and frames[-1].shape == self.shape and frames[-1].cnt0 >= now

        for witness, ends in ((self.fast, self.links[:2]), (self.slow, self.links[2:])):
            try:
                wait_until(lambda: brings(witness), f"frame {now} after {after}")  # noqa: B023
            except AssertionError as error:
                said = "\n".join(program.said() for program in ends)
                raise AssertionError(f"{error}; {witness.frames[-1:]}\n{said}") from None
            witness.check()
            times = self.account.slowest_s[after]
            times[witness] = max(times.get(witness, 0.0), time.monotonic() - now_s)


@pytest.fixture
def observatory(tmp_path: Path) -> Iterator[Observatory]:
    with contextlib.ExitStack() as stack:
        try:
            near, far = stack.enter_context(two_hosts())
        except CannotMakeHosts as error:
            cannot_run(f"no network namespaces here: {error}")
        running = Observatory(near, far, tmp_path)
        stack.callback(running.close)
        running.begin()
        yield running


@pytest.mark.timeout(SECONDS * 2 + 120)
def test_every_frame_is_right_or_counted_whatever_fails(observatory: Observatory) -> None:
    end_s = time.monotonic() + SECONDS
    observatory.wait_for_newest("the start")
    while time.monotonic() < end_s:
        observatory.fault()
        time.sleep(observatory.random.uniform(0.1, 0.5))
    check_calm(observatory)
    observatory.stop()
    check_fast_link(observatory)
    check_slow_link(observatory)


# -- the account -------------------------------------------------------------------------------


def runs_of(frames: list[FarFrame]) -> list[list[FarFrame]]:
    """Frames of one camera each: until the counter goes back or the shape changes."""
    runs: list[list[FarFrame]] = []
    for frame in frames:
        before = runs[-1][-1] if runs else None
        if before is None or frame.cnt0 <= before.cnt0 or frame.shape != before.shape:
            runs.append([])
        runs[-1].append(frame)
    return runs


def missing_in(frames: list[FarFrame]) -> int:
    """Gaps in the counter, those between one camera and the next left out."""
    runs = runs_of(frames)
    return sum(run[-1].cnt0 - run[0].cnt0 + 1 - len(run) for run in runs)


def missing_at_starts(frames: list[FarFrame]) -> int:
    """Frames before the first that came of each camera but the first."""
    return sum(run[0].cnt0 - 1 for run in runs_of(frames)[1:])


def check_calm(observatory: Observatory) -> None:
    """Undisturbed, the fast link brings all, and the slow link accounts for every number."""
    slow = observatory.zmq_receiver
    fast = observatory.tcp_receiver
    seen = len(slow.objects())
    wait_until(lambda: len(slow.objects()) >= seen + 4, "four seconds in peace")
    first, last = slow.objects()[seen + 1], slow.objects()[seen + 3]
    grown = {key: last[key] - first[key] for key in ("frames", "cnt0", "throttled")}
    grown["dropped"] = last["dropped_by_network"] - first["dropped_by_network"]
    assert grown["frames"] > 0
    assert grown["cnt0"] == grown["frames"] + grown["throttled"] + grown["dropped"], grown
    first, last = fast.objects()[-3], fast.objects()[-1]
    assert last["cnt0"] - first["cnt0"] == last["frames"] - first["frames"] > 0
    assert last["lost"] == first["lost"]


def check_fast_link(observatory: Observatory) -> None:
    """Life by life of the receiver, what is missing in its stream is what it counted."""
    account, witness = observatory.account, observatory.fast
    frames = witness.frames
    lives = [*account.tcp_lives, len(frames)]
    for life, begin in enumerate(lives[:-1]):
        # With the frame before, from which the receiver goes on.
        seen = frames[max(begin - 1, 0) : lives[life + 1]]
        objects = observatory.tcp_receiver.objects(life)
        counted = objects[-1]["lost"] if objects else 0
        least, most = missing_in(seen), missing_in(seen) + missing_at_starts(seen)
        if life in account.killed_lives or witness.was_late:
            assert counted <= most, (life, counted, most)
        else:
            assert least <= counted <= most, (life, least, counted, most)
    runs = runs_of(frames)
    assert len(runs) == len(account.cameras)
    for run, camera in zip(runs, account.cameras, strict=True):
        assert run[-1].cnt0 <= camera.frames
        assert run[-1].cnt0 == camera.frames or not camera.to_the_end
    unseen = {
        "before the first": sum(run[0].cnt0 - 1 for run in runs),
        "between": missing_in(frames),
        "after the last": sum(
            camera.frames - run[-1].cnt0
            for run, camera in zip(runs, account.cameras, strict=True)
        ),
    }
    published = sum(camera.frames for camera in account.cameras)
    assert published == len(frames) + sum(unseen.values())
    print(
        f"\nfast link: {published} frames of {len(runs)} cameras, {len(frames)} of them on the "
        f"far side, each as it was sent; the others: {unseen}"
    )
    print(f"faults: {dict(account.faults)}")
    for kind, times in account.slowest_s.items():
        fast_s, slow_s = times.values()
        print(f"slowest return after {kind}: {fast_s:.2f} s fast, {slow_s:.2f} s slow")
    network_s = account.slowest_network_s
    print(f"slowest return of the network itself, with its cable: {network_s:.2f} s")


def check_slow_link(observatory: Observatory) -> None:
    """No frame is counted twice, or as something that it was not."""
    frames, cameras = observatory.slow.frames, observatory.account.cameras
    lives = range(len(observatory.zmq_receiver.lives))
    ends = [observatory.zmq_receiver.objects(life)[-1:] for life in lives]
    total: Counter[str] = Counter()
    for (status,) in filter(None, ends):
        total.update({key: status[key] for key in SLOW_COUNTS})
    published = sum(camera.frames for camera in cameras)
    print(f"slow link: {len(frames)} frames looked at, each as it was sent; {dict(total)}")
    assert len(runs_of(frames)) == len(cameras)
    assert total["frames"] > 0
    assert total["bad_messages"] == total["errors"] == 0
    assert total["frames"] + total["throttled"] + total["dropped_by_network"] <= published
