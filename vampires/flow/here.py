"""Cameras of this machine, or the parts of cameras elsewhere: start, stop, look."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vampires import logger_control as loggers
from vampires import tmux
from vampires.config import INSTRUMENT_VARIABLE
from vampires.flow import pane
from vampires.flow.parts import HEADER_SESSION, Part, parts_here
from vampires.flow.supervisor import LOG_FILE, is_supervised, start_supervisor
from vampires.flow.wishes import Wish, is_fresh, supervisor_state, wished_cameras, withdraw
from vampires.fps import FPSError
from vampires.fps_control import ActionFailed
from vampires.instrument.file import own_file
from vampires.run_folder import RunFolder

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

Answer = dict[str, Any]
Say = Callable[[str], None]

FIRST_FRAME_S = 30.0  # a real camera may take its time
PARTS_S = 15.0
STOP_S = 40.0  # each part may take GRACE_S, one after the other
POLL_S = 0.02
FLUSH_S = 60.0
# What a part finds in its environment, whoever started the tmux server.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "XDG_CONFIG_HOME",
    "MILK_PROC_DIR",
    "TMUX_TMPDIR",
    "VAMPIRES_CONFIG",
)


class StartFailed(Exception):
    """Something does not run as it should. One line."""


# -- start ------------------------------------------------------------------------------------


def start_here(
    config: Config, camera: CameraConfig, mode: str | None, *, links: bool, say: Say
) -> Answer:
    """Starts the parts of a camera that belong on this machine, in place of those that run.
    Returns what they are: "camera", "error", "parts", and for its own machine "shape" and
    "rate_hz". Raises StartFailed."""
    run = _made_folder()
    generation = uuid.uuid4().hex[:12]
    chosen = mode or camera.first_mode
    try:
        parts = parts_here(config, camera.name, chosen, generation, links=links)
    except ValueError as error:
        raise StartFailed(str(error)) from None
    owned = config.host_of(camera).is_local()
    if owned:
        check_mode(camera, chosen)
    _check_tmux()
    with _alone(run, camera.name):
        if owned:
            flush(camera.name, say)
        logged = owned and camera.logged
        environment = _environment(config, run)
        Wish(camera.name, generation, tuple(parts), environment, logged).write(run)
        _ensure_supervisor(run)
        _await_parts(run, camera.name, generation, parts)
        answer: Answer = {"camera": camera.name, "error": ""}
        answer["parts"] = [part.session for part in parts]
        if owned:
            status = _await_frames(run, camera.name, generation)
            answer |= {"mode": chosen, "shape": status["shape"], "cnt0": status["cnt0"]}
            if logged:
                prepare_logger(config, camera, say)
        return answer


def check_mode(camera: CameraConfig, mode: str) -> None:
    """Raises StartFailed for one that the camera has not."""
    from vampires.instrument.facts import FULL
    from vampires.instrument.file import instrument_on

    modes = list(instrument_on().modes) if camera.number else [FULL]
    if mode.upper() not in modes:
        raise StartFailed(
            f"{camera.name} has no mode {mode!r}: expected one of {', '.join(modes)}"
        )


def _made_folder() -> RunFolder:
    run = RunFolder()
    try:
        return run.make()
    except OSError as error:
        raise StartFailed(
            f"{run.path}: {error.strerror}; the streams lie beside it: see MILK_SHM_DIR"
        ) from None


def _check_tmux() -> None:
    try:
        tmux.panes()
    except tmux.TmuxError as error:
        raise StartFailed(str(error)) from None


@contextlib.contextmanager
def _alone(run: RunFolder, camera: str) -> Iterator[None]:
    """Within it nobody else starts or stops the camera here. Raises StartFailed."""
    try:
        fd = run.lock(f"camstart_{camera}", 0.0)
    except TimeoutError:
        raise StartFailed(
            f"somebody else is starting or stopping {camera} now; wait for that"
        ) from None
    except OSError as error:
        raise StartFailed(f"{run.path}: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(fd)


def _environment(config: Config, run: RunFolder) -> dict[str, str]:
    passed = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    instrument = own_file()
    if instrument is not None:
        passed[INSTRUMENT_VARIABLE] = os.fspath(instrument.absolute())
    return {
        **passed,
        "MILK_SHM_DIR": os.fspath(run.shm_dir.absolute()),
        "VAMPIRES_CONFIG": os.fspath(Path(config.file).absolute()),
    }


def flush(stream: str, say: Say) -> None:
    """Ends saving, if it is under way: all that was captured is in files then."""
    try:
        state = loggers.look(stream)
        if state.running and state.saving:
            say(f"{stream} is being logged: ending that first")
            (outcome,) = loggers.pause([stream], timeout_s=FLUSH_S)
            if outcome.error:
                raise StartFailed(outcome.error)
    except FPSError as error:
        say(f"{stream}: {error}")


def _ensure_supervisor(run: RunFolder) -> None:
    if is_supervised(run):
        return
    start_supervisor(run)
    deadline = time.monotonic() + PARTS_S
    while not is_supervised(run):
        if time.monotonic() > deadline:
            raise StartFailed(f"the supervisor does not start; see {run.path / LOG_FILE}")
        time.sleep(POLL_S)


def _await_parts(run: RunFolder, camera: str, generation: str, parts: list[Part]) -> None:
    """Until all of this start run. Raises StartFailed with what keeps one from it."""
    deadline = time.monotonic() + PARTS_S
    wanted = {part.session for part in parts}
    failed: list[str] = []
    while time.monotonic() < deadline:
        _ensure_supervisor(run)  # the one that was there may just have ended
        state = supervisor_state(run)
        if state["generations"].get(camera) == generation:
            told = {part.get("session"): part for part in state["parts"]}
            theirs = [told.get(session, {}) for session in wanted]
            if all(part.get("state") in ("running", "held") for part in theirs):
                return
            failed = [
                f"{part['session']}: {part['error']}" for part in theirs if part.get("error")
            ]
            if any(part.get("state") in ("blocked", "failed") for part in theirs):
                break
        time.sleep(POLL_S)
    raise StartFailed(
        "; ".join(failed) or f"{camera} did not start within {PARTS_S:.0f} s; see camstatus"
    )


def _await_frames(run: RunFolder, camera: str, generation: str) -> dict[str, Any]:
    """Until the camera gives frames, or waits for its trigger. Raises StartFailed."""
    from vampires.camera.server import status_name

    deadline = time.monotonic() + FIRST_FRAME_S
    while time.monotonic() < deadline:
        status = run.read(status_name(camera)) or {}
        if status.get("generation") == generation:
            settings = status.get("settings") or {}
            if status.get("state") == "failed":
                raise StartFailed(f"{camera}: {status.get('error')}")
            waits = settings.get("external_trigger") and status.get("state") == "running"
            if status.get("frames", 0) > 0 or waits:
                return status
        time.sleep(POLL_S)
    raise StartFailed(
        f"{camera} gave no frame within {FIRST_FRAME_S:.0f} s; look at it: tmux attach -t "
        f"{camera}_fgrab"
    )


def prepare_logger(config: Config, camera: CameraConfig, say: Say) -> None:
    """Makes the logger ready, not saving, with the cube length of the present mode. Raises
    StartFailed."""
    from vampires.cube_length import proposed_length
    from vampires.free_memory import memory_for_one_of
    from vampires.log_directory import DirectoryRefused, ready_directory
    from vampires.stream_facts import mode_names, stream_facts

    logging = config.logging
    try:
        facts = stream_facts(camera.name)
        numbers = [camera.number] if camera.number else [1, 2]
        frames = proposed_length(
            facts.frame_bytes,
            logging.proposed_cube_bytes,
            mode_names(facts.shape, numbers),
            logging.cube_sizes,
        )
        present = loggers.look(camera.name)
        if not present.prepared:
            ready_directory(logging.directory)
        options = loggers.LoggerOptions(
            directory=None if present.prepared else logging.directory,
            daily=None if present.prepared else True,
            next_directories=logging.next_directories,
            cube_size=frames,
            cubes=0,
            frames=0,
            timeout_s=logging.timeout_s,
            rt_priority=logging.rt_priority,
            writer_rt_priority=logging.writer_rt_priority,
            cpu_set=logging.cpu_set,
            cpus=logging.cpus,
            ring_memory_bytes=None
            if present.running
            else memory_for_one_of(2, logging.ring_memory_bytes),
            new_cube_keywords=None if present.running else logging.new_cube_keywords,
        )
        loggers.prepare(camera.name, options)
        say(f"{camera.name}: logger ready, {frames} frames a cube")
    except (ActionFailed, FPSError, DirectoryRefused, OSError) as error:
        raise StartFailed(f"{camera.name} runs, but its logger is not ready: {error}") from None


# -- stop -------------------------------------------------------------------------------------


def stop_here(camera: str, say: Say) -> Answer:
    """Ends all parts of a camera on this machine, its logging flushed first. Returns "camera",
    "error", "ran". Raises StartFailed."""
    run = RunFolder()
    if camera not in wished_cameras(run):
        return {"camera": camera, "error": "", "ran": False}
    with _alone(run, camera):
        wish = Wish.read(run, camera)
        if wish is not None and wish.logged:
            flush(camera, say)
            try:
                if loggers.look(camera).prepared:
                    loggers.kill(camera)
            except (ActionFailed, FPSError) as error:
                say(f"{camera}: the logger was not ended: {error}")
        withdraw(run, camera)
        _ensure_supervisor(run)
        _await_end(run, camera, {part.session for part in wish.parts} if wish else set())
    return {"camera": camera, "error": "", "ran": True}


def _await_end(run: RunFolder, camera: str, sessions: set[str]) -> None:
    """Until no part of it is left, whatever becomes of a supervisor meanwhile."""
    deadline = time.monotonic() + STOP_S
    left: list[str] = []
    while time.monotonic() < deadline:
        state = supervisor_state(run)
        left = [str(p.get("session")) for p in state["parts"] if p.get("camera") == camera]
        done = camera not in state["generations"] and not left
        if done and is_fresh(state):
            return
        if not is_supervised(run):  # it has ended, all being away, or it was killed
            if not sessions & _sessions_of_ours():
                return
            _ensure_supervisor(run)
        time.sleep(POLL_S)
    raise StartFailed(f"{camera}: {', '.join(left) or 'its parts'} did not end; see camstatus")


def _sessions_of_ours() -> set[str]:
    try:
        return {name for name, state in pane.panes().items() if state.mark}
    except tmux.TmuxError:
        return set()


# -- look -------------------------------------------------------------------------------------


def status_here(config: Config) -> dict[str, Any]:
    """What runs on this machine: "parts", a list (session, camera, kind, state, rate_hz, lost,
    since_ns, restarts, error, ...), "supervisor": "runs", "dead" or "none", "log": its file."""
    run = RunFolder()
    wished = wished_cameras(run)
    state = supervisor_state(run)
    alive = is_supervised(run) if run.path.is_dir() else False
    parts = [_row(run, part, alive) for part in state["parts"] if part.get("camera") != ""]
    parts += [
        _row(run, part, alive)
        for part in state["parts"]
        if part.get("session") == HEADER_SESSION
    ]
    loggers_here = (_logger_row(camera, state["loggers"]) for camera in _logged(config))
    parts += [row for row in loggers_here if row is not None]
    supervisor = "runs" if alive else ("dead" if wished else "none")
    return {
        "supervisor": supervisor,
        "parts": parts,
        "log": os.fspath(run.path / LOG_FILE),
    }


def _logged(config: Config) -> list[str]:
    return [c.name for c in config.cameras.values() if config.host_of(c).is_local()]


def _row(run: RunFolder, part: Mapping[str, Any], alive: bool) -> dict[str, Any]:
    name = str(part.get("status") or "")
    status = (run.read(name) or {}) if name else {}
    row = {key: part.get(key) for key in ("session", "camera", "kind", "state", "pid")}
    row |= {key: part.get(key) for key in ("since_ns", "restarts", "error")}
    if not alive and row["state"] == "running":
        row["state"] = "unwatched"
    running = row["state"] in ("running", "unsteady", "unwatched")
    if running and status.get("pid") in (None, part.get("pid")):
        rate = status.get("rate_hz", status.get("fps"))
        row["rate_hz"] = float(rate) if isinstance(rate, (int, float)) else None
        lost = status.get("lost", status.get("dropped_by_network"))
        row["lost"] = lost if isinstance(lost, int) else None
        row["doing"] = str(status.get("state", ""))
        settings = status.get("settings")
        if isinstance(settings, dict):
            row["mode"] = settings.get("mode")
            row["shape"] = status.get("shape")
        notes = status.get("notes")
        row["notes"] = notes if isinstance(notes, list) else []
        if status.get("error"):
            row["error"] = str(status["error"])
    return row


def _logger_row(camera: str, watched: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        state = loggers.look(camera)
    except FPSError as error:
        return _logger_facts(camera, watched) | {"state": "failed", "error": str(error)}
    if not state.prepared:
        return None
    facts = _logger_facts(camera, watched)
    return facts | {
        "state": {"alive": "running", "dead": "dead"}.get(state.lights[2], "stopped"),
        "doing": state.state,
        "rate_hz": state.rate_hz,
        "lost": state.lost,
        "error": facts["error"] or "",
    }


def _logger_facts(camera: str, watched: Mapping[str, Any]) -> dict[str, Any]:
    known = watched.get(camera)
    known = known if isinstance(known, dict) else {}
    return {
        "session": f"streamFITSlog-{camera}",
        "camera": camera,
        "kind": "logger",
        "pid": 0,
        "since_ns": None,
        "restarts": known.get("restarts", 0),
        "error": known.get("error", ""),
    }
