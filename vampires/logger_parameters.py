"""The parameters of ``streamFITSlog-<stream>``: those of milk's logger, then ours.

Of milk's: same name, type, order and meaning. Some differ in flags: cubesize, dirname and the
limits may be set while the logger runs. After them ours; no name of them is part of a name
before it, since milk looks a parameter up by the first name that contains what it looks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vampires.fps import (
    FPS,
    FPSNotFound,
    FPSRefused,
    NewParameter,
    Value,
    fps_directory,
    layout,
    list_fps,
)
from vampires.fps.layout import ParameterFlag, ParameterType
from vampires.long_directories import full_form, short_form
from vampires.new_cube_keywords import DEFAULT_TEXT, parse_keywords

PREFIX = "streamFITSlog-"
FUNCTION = "streamFITSlog"
DESCRIPTION = "log stream to FITS file(s)"
CALLPROGNAME = "vampires"  # vampires-exec is what the shells of the FPS call

MAX_CUBE_FRAMES = 2**31 - 1
NO_LIMIT_FRAMES = 100_000_000
NO_LIMIT_FILES = 1_000_000

_T, _F = ParameterType, ParameterFlag
_SETTING = layout.DEFAULT_INPUT | _F.WRITERUN
_LIMITED = layout.DEFAULT_INPUT | _F.MINLIMIT | _F.MAXLIMIT
_RUN_SETTING = ParameterFlag(0x222F7)
_RUN_FIXED = ParameterFlag(0x222B7)
_OUTPUT = layout.DEFAULT_OUTPUT


def fps_name(stream: str) -> str:
    """Name of the FPS of a stream's logger."""
    return PREFIX + stream


def stream_of(name: str) -> str:
    """Name of the stream whose logger the FPS is."""
    return name.removeprefix(PREFIX)


def logger_parameters(stream: str) -> list[NewParameter]:
    """All parameters, with the values they have before anyone sets them."""
    name = fps_name(stream)
    # Longer ones are cut, as milk does; the header has them whole.
    most = layout.STRING_BYTES - 1
    datadir, confdir = f"fps.{name}.datadir"[:most], f"fps.{name}.confdir"[:most]

    def milk(
        key: str, kind: ParameterType, value: Value, flags: int, text: str, *limits: Value
    ) -> NewParameter:
        low, high = limits or (0, 0)
        return NewParameter(key, kind, value, text, ParameterFlag(flags), low, high)

    def output(key: str, kind: ParameterType, value: Value, text: str) -> NewParameter:
        return NewParameter(key, kind, value, text, _OUTPUT)

    return [
        milk("conf.timestring", _T.STRING, "undef", _LIMITED, "runstart time string"),
        milk("conf.label", _T.STRING, "", _LIMITED, "custom label"),
        milk("conf.datadir", _T.DIRNAME, datadir, _LIMITED, "data directory"),
        milk("conf.confdir", _T.DIRNAME, confdir, _LIMITED, "conf directory"),
        milk("conf.archivedir", _T.DIRNAME, "NULLDIR", _LIMITED, "archive directory"),
        milk("procinfo.RTprio", _T.INT64, 20, _LIMITED, "RTprio", -1, 49),
        milk("procinfo.cset", _T.STRING, "system", _LIMITED, "CPUs set"),
        milk("procinfo.taskset", _T.STRING, "1-127", _LIMITED, "CPUs mask"),
        milk("procinfo.NBthread", _T.INT64, 1, _LIMITED, "max NB threads", 0, 50),
        milk("procinfo.enabled", _T.ONOFF, True, 0x622B7, "procinfo mode"),
        milk("procinfo.loopcntMax", _T.INT64, -1, _RUN_SETTING, "max loop cnt", -1, 5000000),
        milk("procinfo.triggermode", _T.INT64, 3, _RUN_SETTING, "trigger mode", -1, 10),
        milk("procinfo.triggersname", _T.STREAMNAME, stream, _RUN_FIXED, "trigger stream name"),
        milk(
            "procinfo.semindexrequested",
            _T.INT64,
            0,
            _RUN_FIXED,
            "trigger requested semaphore index",
            -1,
            10,
        ),
        milk("procinfo.triggerdelay", _T.TIMESPEC, 0.0, _RUN_SETTING, "trigger delay"),
        milk("procinfo.triggertimeout", _T.TIMESPEC, 10.0, _RUN_SETTING, "trigger timeout"),
        milk("sname", _T.STREAMNAME, stream, layout.DEFAULT_INPUT, "stream image"),
        milk("saveON", _T.ONOFF, False, _SETTING, "toggle save on/off"),
        milk("lastcubeON", _T.ONOFF, False, _SETTING, "toggle last cube on/off"),
        milk("nextcube", _T.ONOFF, False, _SETTING, "force jump to next cube"),
        milk("cubesize", _T.UINT32, 1000, _SETTING, "cube size, nb frame per cube"),
        milk("dirname", _T.STRING, "/mnt/datalog/", _SETTING, "log directory"),
        milk(
            "frameindex",
            _T.UINT64,
            0,
            layout.DEFAULT_INPUT,
            "frame index within cube (output)",
        ),
        milk(
            "framecnt",
            _T.UINT64,
            0,
            layout.DEFAULT_INPUT,
            "frame counter since stated logging (output)",
        ),
        milk("maxframecnt", _T.UINT64, NO_LIMIT_FRAMES, _SETTING, "max frame count"),
        milk("filecnt", _T.UINT64, 0, layout.DEFAULT_INPUT, "file counter (output)"),
        milk("maxfilecnt", _T.UINT64, NO_LIMIT_FILES, _SETTING, "max file counter (output)"),
        milk("outfname", _T.STRING, "", layout.DEFAULT_INPUT, "output file name"),
        milk("compress", _T.ONOFF, False, layout.DEFAULT_INPUT, "toggle compression on/off"),
        milk("savetime", _T.FLOAT32, 0.0, layout.DEFAULT_INPUT, "time taken to save"),
        milk("writerRTprio", _T.UINT32, 30, _SETTING, "writer real-time priority"),
        # Ours.
        milk("dailydir", _T.ONOFF, False, _SETTING, "files go to dirname/YYYYMMDD/stream"),
        milk("starttime", _T.INT64, 0, _SETTING, "saveON: first frame from then, ns UTC"),
        milk("stoptime", _T.INT64, 0, _SETTING, "saveON off: first frame not saved, ns UTC"),
        milk(
            "pretrigger",
            _T.FLOAT64,
            0.0,
            _SETTING | _F.MINLIMIT | _F.MAXLIMIT,
            "saveON: seconds before, out of the ring [s]",
            0.0,
            3600.0,
        ),
        milk(
            "ringmemory",
            _T.INT64,
            1024,
            _LIMITED,
            "memory where frames wait for the disk [MiB]",
            16,
            1 << 24,
        ),
        output("state", _T.STRING, "stopped", "what the logger does"),
        output("session", _T.UINT64, 0, "number of saveON periods so far"),
        output("firstcnt0", _T.UINT64, 0, "cnt0 of the first frame of this saveON"),
        output("endcnt0", _T.UINT64, 0, "cnt0 of its last frame so far"),
        output("firstns", _T.INT64, 0, "acquisition of its first frame, ns UTC"),
        output("lost", _T.UINT64, 0, "frames lost in this saveON"),
        output("torn", _T.UINT64, 0, "of these, caught half overwritten"),
        output("ringfill", _T.FLOAT32, 0.0, "ring memory in use [%]"),
        output("pending", _T.UINT32, 0, "cubes not yet under their final names"),
        output("rate", _T.FLOAT64, 0.0, "frame rate of the stream, measured [Hz]"),
        output("framebytes", _T.UINT64, 0, "bytes of a frame in the file"),
        output("newestcnt0", _T.UINT64, 0, "cnt0 of the newest frame"),
        output("newestns", _T.INT64, 0, "its acquisition, ns UTC"),
        output("diskfree", _T.FLOAT64, 0.0, "room on the disk [GB]"),
        output("timetofull", _T.FLOAT64, -1.0, "until the disk is full [s]; -1 unknown"),
        output("lasterror", _T.STRING, "", "what went wrong last"),
        milk(
            "nextdirs", _T.STRING, "", _SETTING, "directories after dirname, with ':' between"
        ),
        output("usedir", _T.STRING, "", "directory that cubes go to now"),
        output("roomlevel", _T.STRING, "ok", "room there: ok, low, alarm, full"),
        milk(
            "newcubekeys", _T.STRING, DEFAULT_TEXT, _LIMITED, "keywords that begin a new cube"
        ),
    ]


def open_logger_fps(stream: str, shm_dir: Path | str | None = None) -> FPS:
    """Opens the FPS of a stream's logger. Raises FPSError."""
    return FPS.open(fps_name(stream), shm_dir)


def make_logger_fps(stream: str, shm_dir: Path | str | None = None) -> FPS:
    """Opens the FPS of a stream's logger; makes it where there is none, or one of milk's.

    Raises FPSRefused when a logger of milk's runs under that name.
    """
    directory = fps_directory() if shm_dir is None else Path(shm_dir)
    name = fps_name(stream)
    try:
        fps = FPS.open(name, directory)
    except FPSNotFound:
        try:
            return _create(stream, directory)
        except FPSRefused:
            if name not in list_fps(directory):
                raise
            return FPS.open(name, directory)  # somebody else has just made it
    if is_ours(fps):
        return fps
    with fps:
        if fps.run_running() or fps.conf_running():
            raise FPSRefused(
                f"{name} is a logger of another program, and it runs; stop it first"
            )
    return _create(stream, directory, replace=True)


def _create(stream: str, directory: Path, *, replace: bool = False) -> FPS:
    return FPS.create(
        fps_name(stream),
        logger_parameters(stream),
        description=DESCRIPTION,
        callprogname=CALLPROGNAME,
        callfuncname=FUNCTION,
        workdir=directory / "FITSlogger",
        shm_dir=directory,
        replace=replace,
    )


def is_ours(fps: FPS) -> bool:
    """Whether the FPS has the parameters that only our logger has."""
    return "starttime" in fps and "newcubekeys" in fps


# What is too long for a parameter becomes a link to it; the link of a list leads nowhere, but
# holds it.
_LINKED = ("dirname", "nextdirs", "newcubekeys")
LIST_SEPARATOR = ":"


def next_directories(fps: FPS) -> list[Path]:
    """Where files go after dirname, in this order."""
    text = str(fps["nextdirs"])
    if not text:
        return []
    parts = str(full_form(text, fps.path.parent)).split(LIST_SEPARATOR)
    return [Path(part) for part in parts if part]


def new_cube_keywords(fps: FPS) -> tuple[str, ...]:
    """The keywords with whose change a cube ends. ValueError names what is none."""
    return parse_keywords(str(full_form(str(fps["newcubekeys"]), fps.path.parent)))


def parse(fps: FPS, key: str, text: str) -> Value:
    """What a person typed, as a value of the parameter. Raises FPSError.

    A dirname that is too long for a parameter becomes a link to it.
    """
    is_linked = key.rpartition(".")[2] in _LINKED
    return _fitting(fps, key, text) if is_linked else fps.parse(key, text)


def _fitting(fps: FPS, key: str, value: Value) -> Value:
    name = key.rpartition(".")[2]
    if name not in _LINKED or not isinstance(value, str) or not value:
        return value
    try:
        return short_form(Path(value), fps.path.parent)
    except (OSError, ValueError) as error:
        raise FPSRefused(f"{fps.name}.{name}: {error}") from None


def set_values(fps: FPS, values: Mapping[str, Value]) -> None:
    """Sets several parameters; all are checked before the first is set. Raises FPSError.

    A dirname that is too long for a parameter is given as a link to it.
    """
    values = {key: _fitting(fps, key, value) for key, value in values.items()}
    changed = {key: value for key, value in values.items() if fps[key] != value}
    for key, value in changed.items():
        fps.check(key, value)
    for key, value in changed.items():
        fps[key] = value
