"""vampires-headerd with a real Redis: its values reach the cubes, whatever becomes of it."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from control_room import control_room
from logger_process import LoggerProcess
from redis_server import RedisServer, redis_server
from zmq_ends import LOOPBACK, wait_until

from vampires.aux_header import read_aux_header
from vampires.cube_header import CubeFacts, cube_header, reserve_bytes
from vampires.headerd.logging_state import LoggingState
from vampires.headerd.options import HeaderOptions
from vampires.headerd.redis_client import ANSWER_BYTES, RedisClient, RedisFailed
from vampires.headerd.redis_watch import RedisWatch
from vampires.headerd.report import HeaderReport
from vampires.headerd.service import HeaderService
from vampires.keywords import encode_keyword

QUICK = ("--period", "0.05")
BOTH = ("vcam1", "vcam2")
NOW_NS = 1_800_000_000_000_000_000


@pytest.fixture(autouse=True)
def packaged_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """vcam1 and vcam2 on this machine, whatever the user has configured."""
    config = tmp_path / "config.toml"
    config.write_text(
        "[hosts.here]\n"
        '[cameras.vcam1]\nnumber = 1\nhost = "here"\n'
        '[cameras.vcam2]\nnumber = 2\nhost = "here"\n'
    )
    monkeypatch.setenv("VAMPIRES_CONFIG", str(config))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


Service = Callable[..., Any]


@pytest.fixture
def service(start_command: Any, shm_dir: Path) -> Iterator[Service]:
    """service(argument, ...) -> LoggerProcess of vampires-headerd."""
    started: list[LoggerProcess] = []

    def start(*arguments: object) -> LoggerProcess:
        process = start_command("headerd", *QUICK, *arguments)
        started.append(LoggerProcess(process, "", shm_dir))
        started[-1].wait_for("keeping the aux headers of ")
        return started[-1]

    yield start
    for process in started:
        process.close()


def aux(shm_dir: Path, stream: str = "vcam1") -> fits.Header:
    """The header of the file as it is; an empty one where there is none."""
    try:
        return fits.Header.fromstring((shm_dir / f"{stream}.aux.fits").read_bytes())
    except FileNotFoundError:
        return fits.Header()


def wait_for_card(
    shm_dir: Path, name: str, value: object, stream: str = "vcam1"
) -> fits.Header:
    """The header, once the card has that value."""
    return wait_until(
        lambda: (found := aux(shm_dir, stream)).get(name) == value and found,
        lambda: f"{name} = {value!r} in:\n{aux(shm_dir, stream)!r}",
    )


def cube_of(shm_dir: Path, keywords: bytes = b"") -> fits.Header:
    """The header of a cube of vcam1, as the logger makes it."""
    facts = CubeFacts(
        "vcam1", "uint16", (4, 5), 2, NOW_NS, NOW_NS + 1, "logger", 1, 2, NOW_NS,
        keywords_raw=keywords,
    )  # fmt: skip
    aux = read_aux_header(shm_dir, "vcam1")
    assert aux.note == ""
    return fits.Header.fromstring(cube_header(facts, aux, reserve_bytes(facts, aux)))


def test_values_of_redis_reach_the_cubes_with_their_formats_and_units(redis, service, shm_dir):
    redis.set(AIRMASS="1.23456", OBJECT="HD 1's", U_FLCEN="True", X_GRDMOD="2000")
    redis.set(D_IMRANG="-12.5", **{"DATA__TYP": "OBJECT"})
    running = service("--redis", redis.address)
    running.wait_for(f"Redis at {redis.address} answers: 6 keywords")
    for stream in BOTH:
        wait_for_card(shm_dir, "U_AUXST", "current", stream)
    cube = cube_of(shm_dir)
    assert str(cube.cards["AIRMASS"]).rstrip() == "AIRMASS =                1.235"
    assert str(cube.cards["D_IMRANG"]).rstrip() == "D_IMRANG=              -12.500 / [deg]"
    assert str(cube.cards["X_GRDMOD"]).rstrip() == "X_GRDMOD=                 2000 / [Hz]"
    assert cube["OBJECT"] == "HD 1's"
    assert cube["U_FLCEN"] is True
    assert cube["DATA-TYP"] == "OBJECT"
    assert cube["U_AUXST"] == "current"
    redis.set(AIRMASS="1.5")
    wait_for_card(shm_dir, "AIRMASS", 1.5)
    redis.client.delete("OBJECT")
    wait_until(lambda: "OBJECT" not in aux(shm_dir), "a keyword that is gone")
    assert running.stop().status == 0


def test_keywords_of_the_stream_are_stronger_than_those_of_the_aux_header(
    redis, service, shm_dir, tmp_path
):
    constants = tmp_path / "constants.toml"
    constants.write_text('EXPTIME = 99.0\nTELESCOP = "Subaru"\nOBJECT = "constant"\n')
    redis.set(OBJECT="redis", RA="01:02:03.456", **{"RET__ANG1": "45"})
    service("--redis", redis.address, "--constants", constants)
    wait_for_card(shm_dir, "OBJECT", "redis")
    stream = encode_keyword("EXPTIME", 0.5) + encode_keyword("RET-ANG1", 22.5)
    cube = cube_of(shm_dir, stream)
    assert cube["EXPTIME"] == 0.5
    assert cube["RET-ANG1"] == 22.5
    assert cube["TELESCOP"] == "Subaru"
    assert cube["RA"] == "01:02:03.456"


def test_nonsense_in_redis_is_left_out_told_once_and_noted(redis, service, shm_dir, tmp_path):
    redis.set(AIRMASS="nan", OBJECT=b"caf\xc3\xa9", RA="x" * 5000, X_GRDMOD="two", ZD="45")
    redis.client.rpush("DEC", "a list")
    redis.client.hset("ALTITUDE", "another field", "1")
    status = tmp_path / "status.json"
    running = service("--redis", redis.address, "--status-file", status)
    found = wait_for_card(shm_dir, "U_AUXREF", 5)
    assert found["ZD"] == 45
    assert not {"AIRMASS", "OBJECT", "RA", "X_GRDMOD", "DEC", "ALTITUDE"} & set(found)
    history = " ".join(found["HISTORY"])
    assert 'X_GRDMOD of Redis left out: found "two", expected a whole number' in history
    assert "DEC of Redis left out: found another kind of key, expected a hash" in history
    wait_until(status.exists, "the status file")
    assert json.loads(status.read_text())["refused"] == 5
    redis.client.delete("DEC")
    redis.set(AIRMASS="1.5", OBJECT="x", RA="y", X_GRDMOD="2")
    found = wait_for_card(shm_dir, "X_GRDMOD", 2)
    assert not {"U_AUXREF", "HISTORY"} & set(found)
    lines = running.stop().lines
    assert len([line for line in lines if "left out" in line]) == 1


def test_redis_down_at_the_start_leaves_the_constants_until_it_comes(
    service, shm_dir, tmp_path
):
    constants = tmp_path / "constants.toml"
    constants.write_text('TELESCOP = "Subaru"\n')
    with redis_server(started=False) as redis:
        running = service("--redis", redis.address, "--constants", constants)
        running.wait_for("Connection refused; the aux headers have only the constants")
        found = wait_for_card(shm_dir, "U_AUXST", "no redis")
        assert found["TELESCOP"] == "Subaru"
        assert f"Redis at {redis.address} never answered" in " ".join(found["HISTORY"])
        redis.start()
        redis.set(AIRMASS="1.5")
        found = wait_for_card(shm_dir, "AIRMASS", 1.5)
        assert found["U_AUXST"] == "current"
        assert "HISTORY" not in found
        running.wait_for(f"Redis at {redis.address} answers: 1 keywords")


def test_each_change_of_state_is_one_line(shm_dir, capfd):
    report = HeaderReport("headerd", as_json=False, status_file=None)
    with redis_server(started=False) as redis:
        options = HeaderOptions(redis_host=LOOPBACK, redis_port=redis.port, period_s=0.01)
        with HeaderService(["vcam1"], shm_dir, options, report, numbers={}) as service:

            def turn_until(error: str) -> list[str]:
                def reached() -> bool:
                    service.turn()
                    return service.status()["error"] == error

                wait_until(reached, lambda: str(service.status()))
                for _ in range(5):
                    service.turn()
                return capfd.readouterr().err.splitlines()

            name = f"headerd: Redis at {redis.address}"
            wait_until(lambda: service.status()["error"], "the first attempt")
            refused = "Connection refused"
            only = "; the aux headers have only the constants"
            assert turn_until(refused) == [f"{name}: {refused}{only}"]
            redis.start()
            assert turn_until("") == [f"{name} answers: 0 keywords"]
            redis.kill()
            (line,) = turn_until(refused)
            assert line.startswith(name)
            assert line.endswith("; its last values stay")
            redis.start()
            assert turn_until("") == [f"{name} answers: 0 keywords"]


@pytest.mark.parametrize("how", ["killed", "held up"])
def test_a_redis_that_falls_silent_leaves_its_last_values_and_their_age(
    redis, service, shm_dir, how
):
    redis.set(AIRMASS="1.5")
    running = service("--redis", redis.address, "--stale", "0.5")
    wait_for_card(shm_dir, "AIRMASS", 1.5)

    def becomes_stale() -> None:
        found = wait_for_card(shm_dir, "U_AUXST", "stale")
        assert found["AIRMASS"] == 1.5
        assert found["U_AUXAGE"] >= 0.5
        assert "is silent since" in " ".join(found["HISTORY"])
        assert cube_of(shm_dir)["U_AUXST"] == "stale"
        running.wait_for("its values are stale (older than 0.5 s)")

    if how == "killed":
        redis.kill()
        becomes_stale()
        running.wait_for("Connection")
        redis.start()
        redis.set(AIRMASS="1.7")
    else:
        with redis.held_up():
            becomes_stale()
        redis.set(AIRMASS="1.7")
    found = wait_for_card(shm_dir, "AIRMASS", 1.7)
    assert found["U_AUXST"] == "current"
    assert "U_AUXAGE" not in found
    assert running.stop().status == 0


def test_files_and_status_go_on_while_redis_is_slow(redis, service, shm_dir, tmp_path):
    constants = tmp_path / "constants.toml"
    constants.write_text("MYKEY = 1\n")
    status = tmp_path / "status.json"
    running = service(
        "--redis", redis.address, "--constants", constants, "--status-file", status
    )
    wait_for_card(shm_dir, "U_AUXST", "current")
    with redis.held_up():
        running.wait_for("no answer within 1 s; its last values stay")
        constants.write_text("MYKEY = 22\n")
        wait_for_card(shm_dir, "MYKEY", 22)
        wait_until(
            lambda: json.loads(status.read_text())["error"] == "no answer within 1 s",
            status.read_text,
        )
        assert running.stop().status == 0  # and Ctrl-C does not wait for Redis


@contextmanager
def strange_server(reply: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each connection gets this reply."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        reply(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def endless(connection: socket.socket) -> None:
    connection.sendall(b"$999999999\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def dripping(connection: socket.socket) -> None:
    """Never silent for a second, and never at an end."""
    connection.settimeout(0.2)
    connection.sendall(b"$9000\r\n")
    while True:
        connection.sendall(b"x")
        try:
            if not connection.recv(65536):
                return
        except TimeoutError:
            pass


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ""),
        (lambda c: c.sendall(b"*-7\r\n$x\r\n\xff\xfe\r\n" * 1000), ""),
        (lambda c: c.sendall(b"*1\r\n" * 100_000), ""),
        (lambda c: c.close(), ""),
        (endless, f"an answer of more than {ANSWER_BYTES} bytes"),
        (dripping, "no answer within 1 s"),
    ],
    ids=["http", "noise", "nested", "closed", "endless", "dripping"],
)
def test_what_is_no_answer_of_a_redis_is_told_in_one_line(reply, why):
    with (
        strange_server(reply) as port,
        RedisClient(HeaderOptions(redis_host=LOOPBACK, redis_port=port)) as client,
    ):
        for _ in range(2):
            with pytest.raises(RedisFailed) as failed:
                client.ask(["OBJECT"] * 1000, {})
            assert why in str(failed.value)
            assert str(failed.value).isprintable()
            assert str(failed.value)


def test_an_error_of_our_own_is_told_and_redis_is_asked_again(redis, shm_dir, monkeypatch):
    state = LoggingState({}, shm_dir)
    monkeypatch.setattr(state, "due", lambda now_s: 1 / 0)
    options = HeaderOptions(redis_host=LOOPBACK, redis_port=redis.port, period_s=0.01)
    with RedisWatch(options, state) as watch:
        wait_until(lambda: "ZeroDivisionError" in watch.news().error, "the error")
        monkeypatch.setattr(state, "due", lambda now_s: {})
        wait_until(lambda: watch.news().answered_s and not watch.news().error, "an answer")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("CONFIG SET requirepass secret", "uthentication required"),
        ("ACL SETUSER default -hget", "no permission"),
    ],
)
def test_a_redis_that_does_not_let_us_ask_is_told(redis, service, shm_dir, command, why):
    redis.client.execute_command(*command.split())
    running = service("--redis", redis.address)
    line = running.wait_for("the aux headers have only the constants")
    assert why in line
    wait_for_card(shm_dir, "U_AUXST", "no redis")
    assert running.stop().status == 0


def test_redis_is_told_which_camera_is_being_logged(
    redis, service, shm_dir, start_command, monkeypatch
):
    def told() -> list[bytes | None]:
        return [redis.client.hget(name, "value") for name in ("U_VLOG1", "U_VLOG2")]

    with control_room(shm_dir, start_command, monkeypatch) as room:
        room.add_cameras()
        room.trigger()
        room.ok("preplog", "--yes", "-n", 50)
        redis.set(AIRMASS="1.5")
        service("--redis", redis.address)
        wait_until(lambda: told() == [b"#FALSE#", b"#FALSE#"], told)
        redis.client.hset("U_VLOG1", "comment", "of somebody else")
        room.ok("startlog", "-c", 1)
        wait_until(lambda: told() == [b"#TRUE#", b"#FALSE#"], told)
        room.ok("startlog", "-c", 2)
        wait_until(lambda: told() == [b"#TRUE#", b"#TRUE#"], told)
        room.ok("pauselog", "-c", 1)
        wait_until(lambda: told() == [b"#FALSE#", b"#TRUE#"], told)
        room.ok("pauselog", "-c", 2)
        assert redis.client.hget("U_VLOG1", "comment") == b"of somebody else"
        cubes = room.cubes("vcam1")
        header = fits.getheader(cubes[0].path)
    assert header["AIRMASS"] == 1.5
    assert header["U_AUXST"] == "current"


def test_the_state_of_a_logger_is_told_when_it_changes_and_every_ten_seconds(shm_dir):
    state = LoggingState({"vcam1": 1, "vcam2": 2}, shm_dir)
    both = {"U_VLOG1": False, "U_VLOG2": False}
    assert state.due(0.0) == both
    assert state.due(0.1) == both  # nobody was told
    for keyword in both:
        state.told(keyword, False, 0.1)
    assert state.due(10.0) == {}
    state.told("U_VLOG2", True, 5.0)
    assert state.due(5.1) == {"U_VLOG2": False}
    assert state.due(10.1) == both
    (shm_dir / "streamFITSlog-vcam1.fps.shm").write_bytes(b"broken")
    assert state.due(20.0) == {"U_VLOG2": False}
    assert "streamFITSlog-vcam1" in state.error


def test_a_state_that_redis_does_not_take_is_told_and_values_come_all_the_same(
    redis, service, shm_dir
):
    redis.client.rpush("U_VLOG1", "a list")
    redis.set(AIRMASS="1.5")
    running = service("--redis", redis.address)
    running.wait_for("U_VLOG1 not set: WRONGTYPE")
    wait_for_card(shm_dir, "AIRMASS", 1.5)
    wait_until(lambda: redis.client.hget("U_VLOG2", "value") == b"#FALSE#", "U_VLOG2")


# -- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_it_and_leaves_the_files(redis, service, shm_dir, number):
    running = service("--redis", redis.address)
    wait_for_card(shm_dir, "U_AUXST", "current")
    ended = running.stop(number)
    assert ended.status == 0
    assert {f"{stream}.aux.fits" for stream in BOTH} == {f.name for f in shm_dir.iterdir()}


def test_json_gives_an_object_a_second_as_the_status_file_does(
    redis, start_command, shm_dir, tmp_path
):
    redis.set(AIRMASS="1.5", ZD="nonsense")
    status = tmp_path / "status.json"
    arguments = ("--redis", redis.address, "--json", "--status-file", status)
    process = start_command("headerd", *QUICK, *arguments, "vcam2")
    first = json.loads(process.stdout.readline())
    assert json.loads(process.stdout.readline())["time"] > first["time"]
    found = json.loads(status.read_text())
    assert found.keys() == first.keys()
    assert found["state"] == "current"
    assert found["streams"] == ["vcam2"]
    assert (found["keywords"], found["refused"], found["error"]) == (1, 1, "")
    assert found["refused_keywords"] == ["ZD"]
    assert found["redis_age_s"] >= 0
    assert found["logging"] == {"U_VLOG2": False}
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_once_writes_the_files_and_its_status_says_whether_redis_answered(
    redis, run_command, shm_dir
):
    done = run_command("headerd", "--once", "--redis", redis.address, "--json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["state"] == "current"
    redis.kill()
    done = run_command("headerd", "--once", "--redis", redis.address, "--json")
    assert done.returncode == 1, done
    assert json.loads(done.stdout)["error"] == "Connection refused"
    assert aux(shm_dir)["U_AUXST"] == "no redis"
    done = run_command("headerd", "--once", "vcam9")
    assert done.returncode == 0, done
    assert aux(shm_dir, "vcam9")["U_AUXST"] == "constants"


def test_the_configuration_says_what_options_do_not(redis, run_command, shm_dir, tmp_path):
    constants = tmp_path / "constants.toml"
    constants.write_text('TELESCOP = "Subaru"\n')
    with (tmp_path / "config.toml").open("a") as config:
        config.write(
            f'[header]\nconstants = "{constants}"\nredis_host = "{LOOPBACK}"\n'
            f"redis_port = {redis.port}\nredis_db = 3\n"
        )
    redis.set(AIRMASS="1.5")
    assert run_command("headerd", "--once").returncode == 0
    assert aux(shm_dir)["TELESCOP"] == "Subaru"
    assert "AIRMASS" not in aux(shm_dir)
    assert run_command("headerd", "--once", "--db", "0").returncode == 0
    assert aux(shm_dir)["AIRMASS"] == 1.5


def test_constants_that_go_wrong_while_it_runs_are_told_and_the_old_ones_stay(
    service, shm_dir, tmp_path
):
    constants = tmp_path / "constants.toml"
    constants.write_text('OBJECT = "good"\n')
    running = service("--constants", constants)
    wait_for_card(shm_dir, "OBJECT", "good")
    constants.write_text("OBJECT = 12345\n")
    line = running.wait_for("the constants stay as they were")
    assert f'{constants}: OBJECT: found "12345", expected text' in line
    assert aux(shm_dir)["OBJECT"] == "good"
    constants.write_text('OBJECT = "better"\n')
    wait_for_card(shm_dir, "OBJECT", "better")
    running.wait_for("read again, 1 keywords")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--constants", "/nowhere.toml"], "/nowhere.toml: No such file or directory"),
        (["--redis", "a b"], "found 'a b', expected HOST or HOST:PORT"),
        (["--redis", "host:99999"], "found 'host:99999', expected HOST or HOST:PORT"),
        (["--period", "0"], "found '0', expected a number above 0"),
        (["--period", "9", "--stale", "3"], "expected stale_s above period_s"),
        (["a/b"], "found 'a/b', expected the name of a stream"),
        (["--status-file", "/nowhere/status"], "/nowhere: no such folder"),
    ],
)
def test_a_mistake_of_the_user_is_one_line(run_command, shm_dir, arguments, error):
    done = run_command("headerd", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("vampires-headerd: ")
    assert error in done.stderr
    assert list(shm_dir.iterdir()) == []


def test_help_has_an_example_and_loads_nothing_heavy(start_python):
    source = (
        "import sys, vampires.commands.headerd as c\n"
        "heavy = {'numpy', 'pydantic', 'redis', 'vampires._core'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "c.main(['--help'])\n"
    )
    process = start_python(source)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "vampires-headerd --constants" in out
