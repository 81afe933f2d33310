"""The whole data flow: cameras on scexao5, scexao6 for real time, the observer on sonne.

Each host is a set of namespaces with its own network, streams, sshd and tmux. All is typed on
sonne. Frames carry their number in their pixels, so every one of them is proven where it
arrives: in the far streams, and in the cubes.

A cut cable stays so for 5 s, or for $VAMPIRES_CUT_SECONDS. Where no namespaces can be made
the tests say so and run on one host, without what goes between hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cube_checks import check_cubes, check_order
from fake_genicam import ADDRESS as GENICAM_ADDRESS
from fake_genicam import PROGRAM as GENICAM_PROGRAM
from fake_genicam import SENSOR_SHAPE as GENICAM_SHAPE
from flow_on_hosts import Flow, flow_on_hosts
from missing_rights import cannot_run
from redis_server import RedisServer, redis_server

from vampires.frame_stamp import expected_frame, read_stamps
from vampires.instrument.file import instrument_on
from vampires.logger_parameters import open_logger_fps
from vampires.simulated_sky import frame_pool
from vampires.stream import FrameInfo

CUT_S = float(os.environ.get("VAMPIRES_CUT_SECONDS", "5"))
RATE_HZ = 100.0
SLOW_HZ = 20.0
CAMERAS = ("vcam1", "vcam2")

HERE = '[hosts.here]\naddress = "local"\n'

CAMERA = """
[cameras.vcam{number}]
number = {number}
host = "scexao5"
mode = "ONEARC"
fps = 100.0
sim = {{ ring = 512 }}
"""

PUPIL = """
[cameras.vpupcam]
host = "sonne"
logged = false
"""

SIMULATED = "fps = 20.0\nsim = { sensor = [64, 96] }\n"

REAL = """\
source = "genicam"
fps = 4.0
genicam = { camera_id = "127.0.0.1", packet_size = 1400, packet_socket = false }
"""

LINKS = """
[links.vcam{number}_tcp]
stream = "vcam{number}"
kind = "tcp"
sender = "scexao5"
receiver = "scexao6"
port = 3010{number}

[links.vcam{number}_zmq]
stream = "vcam{number}"
kind = "zmq"
sender = "scexao5"
receiver = "sonne"
port = 556{number}
fps = 20.0
"""

OTHER_LINKS = """
[links.vcam1_dark_zmq]
stream = "vcam1_dark"
kind = "zmq"
sender = "scexao5"
receiver = "sonne"
port = 5570

[links.vpupcam_zmq]
stream = "vpupcam"
kind = "zmq"
sender = "sonne"
receiver = "scexao6"
port = 5563
"""

LOGGING = """
[logging]
directory = "~/data"
archive_directory = "~/archive"
ring_memory = "16MiB"
"""


@pytest.fixture
def flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Flow]:
    def say(why: str) -> None:
        with capsys.disabled():
            print(f"\n{Path(__file__).name}: {why}")

    with flow_on_hosts(tmp_path, say) as flow:
        yield flow


@pytest.fixture
def redis(flow: Flow) -> Iterator[RedisServer]:
    """The database of the instrument, on sonne."""

    def launch(command: list[str], **options: Any) -> Any:
        return flow.sonne.start(*command, **options)

    with redis_server(host=flow.sonne.address, launch=launch) as server:
        yield server


def configure(flow: Flow, *, pupil: str = SIMULATED, redis: RedisServer | None = None) -> None:
    """The same configuration on all hosts."""
    text = LOGGING + PUPIL + pupil + "".join(CAMERA.format(number=k) for k in (1, 2))
    if redis is not None:
        address = f'redis_host = "{flow.sonne.address}"\nredis_port = {redis.port}\n'
        text += f'\n[header]\nconstants = "~/header.toml"\nperiod_s = 0.2\n{address}'
        for host in flow.machines():
            (host.home / "header.toml").write_text('TELESCOP = "Subaru"\n')
    if not flow.far:
        for name in flow.hosts:
            text = text.replace(f'"{name}"', '"here"')
        flow.sonne.write_config(HERE + text)
        return
    text += OTHER_LINKS + "".join(LINKS.format(number=k) for k in (1, 2))
    for host in flow.machines():
        host.write_config(flow.hosts.config_tables() + text)


# -- frames -----------------------------------------------------------------------------------

Frames = list[tuple[np.ndarray, FrameInfo]]


def check_every_frame(frames: Frames, pool: np.ndarray) -> None:
    """None is missing, and each is what the camera sent."""
    numbers = [info.cnt0 for _, info in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for frame, info in frames:
        np.testing.assert_array_equal(frame, expected_frame(pool, info.cnt0))


def check_some_frames(frames: Frames, pool: np.ndarray) -> None:
    """Each is what the camera sent, and newer than the one before."""
    pixels = np.stack([frame for frame, _ in frames])
    numbers, _ = read_stamps(pixels)
    assert (np.diff(numbers.astype(np.int64)) > 0).all()
    for frame, number in zip(pixels, numbers.tolist(), strict=True):
        np.testing.assert_array_equal(frame, expected_frame(pool, number))


def check_far_streams(flow: Flow, mode: str, cameras: tuple[str, ...] = CAMERAS) -> None:
    """All frames arrive on scexao6, some on sonne, at their rates."""
    if not flow.far:
        return
    for name in cameras:
        number = int(name[-1])
        pool, shape = (
            frame_pool("sky", mode, number),
            instrument_on().modes[mode].crops[number].shape,
        )
        check_every_frame(flow.next_frames(flow.scexao6, name, 50, shape), pool)
        check_some_frames(flow.next_frames(flow.sonne, name, 10, shape), pool)
        wait_rate(flow, flow.scexao6, f"{name}_tcp", RATE_HZ)
        wait_rate(flow, flow.sonne, f"{name}_zmq", SLOW_HZ)


def wait_rate(flow: Flow, host: Any, link: str, rate_hz: float) -> None:
    def about() -> bool:
        status = flow.status(host, link)
        rate = status.get("rate_hz", status.get("fps")) or 0.0
        return 0.7 * rate_hz < rate < 1.3 * rate_hz

    flow.wait(about, f"{link} at about {rate_hz:g} Hz on {host.name}")


def check_logged(flow: Flow, name: str, modes: tuple[str, ...] = ("ONEARC",)) -> list[Any]:
    """Every frame of the cubes of a camera, from one file to the next; none is lost. modes: of
    the camera, one after the other."""
    number, files = int(name[-1]), flow.cubes(name)
    found = [_mode_of(file, number) for file in files]
    assert list(dict.fromkeys(found)) == list(modes)
    cubes = []
    for mode in modes:
        theirs = [file for file, its in zip(files, found, strict=True) if its == mode]
        cubes += check_cubes(theirs, frame_pool("sky", mode, number))
    check_order(cubes)
    assert sum(cube.number("NLOST") for cube in cubes) == 0
    return cubes


def _mode_of(file: Path, number: int) -> str:
    from astropy.io import fits

    shape = fits.getheader(file)["NAXIS2"], fits.getheader(file)["NAXIS1"]
    return next(
        mode for mode, its in instrument_on().modes.items() if its.crops[number].shape == shape
    )


# -- the night --------------------------------------------------------------------------------


@contextlib.contextmanager
def pupil_camera(flow: Flow) -> Iterator[str]:
    """The configuration of the pupil camera; GigE Vision in the network of sonne."""
    if not flow.far:  # its port is that of the whole machine
        yield SIMULATED
        return
    simulator = flow.sonne.start(GENICAM_PROGRAM, "-i", GENICAM_ADDRESS, "-s", "V1")
    yield REAL
    simulator.kill()
    simulator.wait()


def test_a_night_from_camstart_to_camstop(flow: Flow, redis: RedisServer) -> None:
    sonne, scexao5 = flow.sonne, flow.scexao5
    redis.set(OBJECT="HD 12345", AIRMASS="1.25")
    with pupil_camera(flow) as pupil:
        configure(flow, pupil=pupil, redis=redis)
        said = sonne.run("camstart", "vcam1", "vcam2", "vpupcam").stdout
        assert "vcam1 runs in ONEARC, 184 x 184" in said
        assert "vpupcam runs in FULL" in said
        check_far_streams(flow, "ONEARC")
        if flow.far:
            pictures = flow.next_frames(flow.scexao6, "vpupcam", 3, GENICAM_SHAPE)
            assert all(picture.std() > 0 for picture, _ in pictures)
        check_dark(flow)
        assert "again" in sonne.run("camstatus").stdout
        saved = log_with_a_crop(flow)
        sonne.run("vampires_stoplog", "--kill")
        flow.stop()
    for name in CAMERAS:
        cubes = check_logged(flow, name, ("ONEARC", "TWOARC"))
        assert sum(len(cube.rows) for cube in cubes) == saved[name]["frames"]
        assert cubes[0].rows["CNT0"][0] == saved[name]["first_cnt0"]
        assert cubes[-1].rows["CNT0"][-1] == saved[name]["end_cnt0"]
        for cube in cubes:
            assert cube.string("OBJECT") == "HD 12345"
            assert cube.string("TELESCOP") == "Subaru"
    scexao5.run("vampires-verify", *flow.cubes("vcam1"), *flow.cubes("vcam2"))


def check_dark(flow: Flow) -> None:
    """A dark that is taken at the prompt of the camera."""
    keys = ["tmux", "send-keys", "-t", "vcam1_ctrl", "'cam.take_dark(20)'", "Enter"]
    if flow.far:
        flow.sonne.run("ssh", "scexao5", *keys)
    else:
        flow.sonne.run("sh", "-c", " ".join(keys))
    there = flow.scexao5.shm_dir / "vcam1_dark.im.shm"
    flow.wait(there.exists, "the dark as a stream")
    if flow.far:
        far, taken = (flow.newest(host, "vcam1_dark") for host in (flow.sonne, flow.scexao5))
        np.testing.assert_array_equal(far, taken)


def log_with_a_crop(flow: Flow) -> dict[str, Any]:
    """Logs both cameras, which are given another crop meanwhile; what pauselog says of each."""
    sonne = flow.sonne
    sonne.run("vampires_preplog", "--yes", "-n", 40)
    sonne.run("vampires_startlog")
    for name in CAMERAS:
        flow.wait(lambda name=name: flow.logger(name).frames > 50, f"{name} is saved")
    sonne.run("set_crop", "TWOARC")
    for name in CAMERAS:
        flow.wait(
            lambda name=name: _mode_of(flow.cubes(name)[-1], int(name[-1])) == "TWOARC",
            f"a cube of the new crop of {name}",
        )
    check_far_streams(flow, "TWOARC")
    ended = json.loads(sonne.run("vampires_pauselog", "--wait", "--json").stdout)
    return {answer["camera"]: answer for answer in ended["cameras"]}


# -- deaths -----------------------------------------------------------------------------------


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_each_process_that_is_killed_is_replaced(flow: Flow, redis: RedisServer) -> None:
    configure(flow, redis=redis)
    flow.sonne.run("camstart", "vcam1")
    flow.sonne.run("vampires_startlog", "-c", "1")
    flow.wait_logged(20)
    for host in flow.machines():
        for session in flow.parts(host):
            if session != "vcam1_fgrab":
                kill_part(flow, host, session)
    kill_supervisors(flow)
    check_far_streams(flow, "ONEARC", ("vcam1",))
    flow.wait_logged(20)
    flow.sonne.run("vampires_pauselog", "-c", "1")
    assert len(check_logged(flow, "vcam1")) == 1  # nothing of this has touched the camera
    kill_logger_and_camera(flow)
    flow.stop()


def kill_part(flow: Flow, host: Any, session: str) -> None:
    pid = flow.parts(host)[session]["pid"]
    kill(pid)
    flow.wait(
        lambda: flow.runs(host, session, in_place_of=pid), f"{session} again on {host.name}"
    )


def supervisors(flow: Flow, host: Any) -> tuple[int, ...]:
    """Process ids: of the one that works, and of the one that waits, if they are there."""
    found = []
    for pid in host.pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"vampires.commands.supervisor" in words and b"/bin/sh" not in words:
                found.append(pid)
    works = flow.status(host, "supervisor").get("pid")
    return tuple(sorted(found, key=lambda pid: pid != works))


def kill_supervisors(flow: Flow) -> None:
    """The one that works on each host; the one that waits takes its place."""
    for host in flow.machines():
        flow.wait(lambda host=host: len(supervisors(flow, host)) == 2, "two supervisors")
        killed, waited = supervisors(flow, host)
        running = {name: part["pid"] for name, part in flow.parts(host).items()}
        kill(killed)
        flow.wait(
            lambda host=host, waited=waited: (
                supervisors(flow, host)[:1] == (waited,) and len(supervisors(flow, host)) == 2
            ),
            f"two supervisors again on {host.name}",
        )
        assert {name: part["pid"] for name, part in flow.parts(host).items()} == running


def kill_logger_and_camera(flow: Flow) -> None:
    """While frames are saved: saving goes on afterwards."""
    flow.sonne.run("vampires_startlog", "-c", "1")
    flow.wait_logged(50)
    kill_part(flow, flow.scexao5, "vcam1_fgrab")
    flow.wait_logged(30)
    check_far_streams(flow, "ONEARC", ("vcam1",))
    with open_logger_fps("vcam1", flow.scexao5.shm_dir) as fps:
        killed = fps.header().runpid
    kill(killed)
    flow.wait(lambda: "saving again" in flow.logs(), "the logger saves again")
    flow.wait_logged(20)
    flow.sonne.run("vampires_pauselog", "-c", "1", check=False)
    flow.sonne.run(*there(flow, "vampires-recover", "--apply", flow.scexao5.home / "data"))
    # Each of them, not from one to the next: in between the camera was away, or the logger.
    for file in flow.cubes("vcam1"):
        check_cubes([file], frame_pool("sky", "ONEARC", 1))


def there(flow: Flow, *command: object) -> list[str]:
    """A command on scexao5, typed on sonne."""
    return [*(["ssh", "scexao5"] if flow.far else []), *map(str, command)]


def test_all_is_back_after_the_tmux_servers_died(flow: Flow) -> None:
    configure(flow)
    flow.sonne.run("camstart", "vcam1")
    flow.sonne.run("vampires_startlog", "-c", "1")
    flow.wait_logged(50)
    for host in flow.machines():
        before = {name: part["pid"] for name, part in flow.parts(host).items()}
        host.tmux("kill-server")
        for session, pid in before.items():
            flow.wait(
                lambda host=host, session=session, pid=pid: flow.runs(
                    host, session, in_place_of=pid
                ),
                f"{session} again on {host.name}",
            )
    flow.wait(lambda: flow.logger_runs(saving=True), "the logger saves again")
    check_far_streams(flow, "ONEARC", ("vcam1",))
    flow.sonne.run("vampires_pauselog", "-c", "1", check=False)
    flow.stop()


# -- the network ------------------------------------------------------------------------------


def test_a_cut_cable_costs_the_cubes_nothing_and_the_links_come_back(flow: Flow) -> None:
    needs_a_network(flow)
    configure(flow)
    flow.sonne.run("camstart", "vcam1")
    flow.sonne.run("vampires_startlog", "-c", "1", "-n", 100)
    flow.wait_logged(20)
    check_far_streams(flow, "ONEARC", ("vcam1",))
    before = flow.status(flow.scexao6, "vcam1_tcp")
    flow.scexao5.cut()
    begun = time.monotonic()
    status = flow.sonne.run("camstatus", check=False)
    assert status.returncode == 1
    assert "scexao5" in status.stdout
    flow.wait(lambda: time.monotonic() > begun + CUT_S, "the cable was out long enough")
    flow.scexao5.mend()
    check_far_streams(flow, "ONEARC", ("vcam1",))
    flow.wait(
        lambda: accounts(before, flow.status(flow.scexao6, "vcam1_tcp")), "no frame untold"
    )
    flow.wait_logged(20)
    ended = json.loads(flow.sonne.run("vampires_pauselog", "-c", "1", "--json").stdout)
    cubes = check_logged(flow, "vcam1")
    assert sum(len(cube.rows) for cube in cubes) == ended["cameras"][0]["frames"]
    flow.stop()


def accounts(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether each frame since then was received, or is told to be lost. (Counters are read one
    after the other, while frames come.)"""
    came, lost, sent = (now[name] - before[name] for name in ("frames", "lost", "cnt0"))
    return sent > CUT_S * RATE_HZ and came + lost == sent


def test_a_host_that_is_absent_gets_its_streams_when_it_is_there(flow: Flow) -> None:
    needs_a_network(flow)
    configure(flow)
    flow.scexao6.cut()
    done = flow.sonne.run("camstart", "vcam1", check=False)
    assert done.returncode == 1
    assert (
        "host scexao6: no way to it" in done.stderr or "host scexao6: no answer" in done.stderr
    )
    assert "vcam1 runs in ONEARC" in done.stdout
    check_some_frames(flow.next_frames(flow.sonne, "vcam1", 10), frame_pool("sky", "ONEARC", 1))
    camera = flow.parts(flow.scexao5)["vcam1_fgrab"]["pid"]
    flow.scexao6.mend()
    flow.scexao6.run("camstart", "vcam1", "--local")
    check_far_streams(flow, "ONEARC", ("vcam1",))
    assert flow.parts(flow.scexao5)["vcam1_fgrab"]["pid"] == camera


def needs_a_network(flow: Flow) -> None:
    if not flow.far:
        cannot_run("no namespaces, so no cable to cut")


# -- Redis ------------------------------------------------------------------------------------


def test_whatever_redis_does_frames_are_logged(flow: Flow, redis: RedisServer) -> None:
    redis.set(OBJECT="before")
    configure(flow, redis=redis)
    redis.kill()
    flow.sonne.run("camstart", "vcam1")
    flow.sonne.run("vampires_startlog", "-c", "1", "-n", 50)
    wait_header(flow, lambda now: now["state"] == "no redis" and now["error"], "it is down")
    assert "no redis" in flow.sonne.run("camstatus").stdout
    flow.wait_logged(60)
    redis.start()
    redis.set(OBJECT="HD 1")
    wait_header(flow, lambda now: now["state"] == "current", "it answers")
    with redis.held_up():
        wait_header(flow, lambda now: "no answer within" in now["error"], "it is slow")
        flow.wait_logged(60)
    wait_header(flow, lambda now: not now["error"], "it answers again")
    fill_with_nonsense(redis)
    wait_header(flow, lambda now: now["refused"] > 0, "nonsense is refused")
    flow.wait_logged(110)
    flow.sonne.run("vampires_pauselog", "-c", "1")
    cubes = check_logged(flow, "vcam1")
    assert "OBJECT" not in cubes[0].cards
    assert "HD 1" in {cube.string("OBJECT") for cube in cubes[1:] if "OBJECT" in cube.cards}


def wait_header(flow: Flow, is_so: Callable[[dict[str, Any]], object], what: str) -> None:
    def look() -> bool:
        now = flow.status(flow.scexao5, "headerd")
        return bool(now) and bool(is_so(now))

    flow.wait(look, f"the header's process sees that {what}")


def fill_with_nonsense(redis: RedisServer) -> None:
    client = redis.client
    client.rpush("RA", "a", "list")
    client.set("DEC", "no hash")
    client.hset("AIRMASS", "value", b"\xff\xfe\x00" * 100)
    client.hset("D_IMRANG", "value", "x" * 100_000)
    client.hset("OBJECT", "value", "\n" * 50)


# -- two observers ----------------------------------------------------------------------------


def test_two_observers_who_start_a_camera_at_once_have_one(flow: Flow) -> None:
    configure(flow)
    both = [host.start("camstart", "vcam1") for host in (flow.sonne, flow.scexao6)]
    ended = []
    for process in both:
        _, err = process.communicate(timeout=60)
        ended.append((process.returncode, err))
    for status, err in ended:
        assert status == 0 or "somebody else is starting or stopping vcam1" in err, err
    assert min(status for status, _ in ended) == 0 or flow.far
    for host in flow.machines():
        sessions = list(flow.parts(host))
        assert sessions
        for session in sessions:
            flow.wait(
                lambda host=host, session=session: flow.runs(host, session),
                f"{session} on {host.name}",
            )
    check_far_streams(flow, "ONEARC", ("vcam1",))
    flow.wait(lambda: flow.logger_runs(saving=False), "the logger is ready")
