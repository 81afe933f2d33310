"""FPS for tests of screens and command lines: small ones, and loggers that seem to run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from vampires.fps import FPS, NewParameter
from vampires.fps.layout import (
    DEFAULT_INPUT,
    DEFAULT_OUTPUT,
    ParameterFlag,
    ParameterType,
    Status,
)
from vampires.logger_parameters import DESCRIPTION, FUNCTION, logger_parameters

GOLDEN = Path(__file__).parent / "data" / "fps"
RUN_SETTING = DEFAULT_INPUT | ParameterFlag.WRITERUN


def copy_golden(shm_dir: Path, name: str = "streamFITSlog-vcam1") -> Path:
    """A golden FPS in the stream folder; its path."""
    return Path(shutil.copy(GOLDEN / f"{name}.fps.shm", shm_dir))


def make_logger(shm_dir: Path, stream: str) -> FPS:
    """The FPS of a logger of ours; nothing runs."""
    return FPS.create(
        f"streamFITSlog-{stream}",
        logger_parameters(stream),
        description=DESCRIPTION,
        callfuncname=FUNCTION,
        workdir=shm_dir / "FITSlogger",
        shm_dir=shm_dir,
    )


def make_fps(shm_dir: Path, name: str, **texts: str) -> FPS:
    """A small FPS with a parameter of each sort."""
    limits = ParameterFlag.MINLIMIT | ParameterFlag.MAXLIMIT
    parameters = [
        NewParameter("group.inner", ParameterType.INT64, 1, "in a group", RUN_SETTING),
        NewParameter(
            "gain", ParameterType.FLOAT64, 0.5, "a number", RUN_SETTING | limits, 0.0, 1.0
        ),
        NewParameter("count", ParameterType.UINT32, 7, "a count", RUN_SETTING),
        NewParameter("single", ParameterType.FLOAT32, 0.1, "a short number", RUN_SETTING),
        NewParameter("wait", ParameterType.TIMESPEC, 1.5, "a time [s]", RUN_SETTING),
        NewParameter("label", ParameterType.STRING, "none", "a text", RUN_SETTING),
        NewParameter("saveON", ParameterType.ONOFF, False, "a switch", RUN_SETTING),
        NewParameter("fixed", ParameterType.INT64, 3, "not while it runs"),
        NewParameter("result", ParameterType.INT64, 42, "an output", DEFAULT_OUTPUT),
    ]
    return FPS.create(
        name,
        parameters,
        description=f"test of {name}" if name.isprintable() else "test",
        callfuncname=texts.pop("callfuncname", "testfunction"),
        workdir=shm_dir / "work",
        shm_dir=shm_dir,
        **texts,
    )


def seem_running(fps: FPS) -> None:
    """Records this process as its conf and run processes."""
    fps.record_conf_process()
    fps.record_run_process()
    fps.change_status(set=Status.CMDCONF | Status.CMDRUN | Status.CHECKOK)


def seem_dead(fps: FPS) -> int:
    """Has it record a process that has ended as its run process, as if it should run."""
    source = (
        "import sys; from vampires.fps import FPS\n"
        "FPS.open(sys.argv[1], sys.argv[2]).record_run_process()"
    )
    command = [sys.executable, "-c", source, fps.name, str(fps.path.parent)]
    subprocess.run(command, check=True, timeout=30)
    fps.change_status(set=Status.CMDRUN)
    return fps.header().runpid
