"""What a configuration holds, and what is allowed in it.

Imports pydantic (a tenth of a second): vampires.config does so when a file is loaded.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
)

from vampires.commands.common import parse_bytes
from vampires.config import ConfigError
from vampires.header_rules import DATA_TYPES
from vampires.instrument.cameras import CAMERAS
from vampires.instrument.file import instrument_of
from vampires.new_cube_keywords import DEFAULT_KEYWORDS, NAME_PATTERN, NAME_RULE
from vampires.table_model import Table, as_tuple

THIS_MACHINE = ("local", "localhost")
"""Addresses that mean the machine on which one is."""

GIVEN_SSH_OPTIONS = ("batchmode", "connecttimeout", "loglevel")
"""Options that every ssh gets from vampires.hosts; it heeds the first one given."""

MAX_CUBE_FRAMES = 2**31 - 1  # the column FRAME has 32 bits
MAX_BYTES = 2**63 - 1


def _folder(value: object) -> Path:
    """An absolute path, ~ expanded."""
    if not isinstance(value, (str, Path)) or "\0" in str(value):
        raise ValueError("not a path")
    path = os.path.expanduser(value)
    if not os.path.isabs(path):
        raise ValueError("not absolute")
    return Path(path)


def _without_colon(path: Path) -> Path:
    """Directories in a list are parted by colons."""
    if ":" in str(path) or not str(path).isprintable():
        raise ValueError("a colon")
    return path


def _whole(value: object) -> object:
    """TOML has 1.2e9 only as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _free_ssh_option(text: str) -> str:
    if re.split("[= ]", text)[0].lower() in GIVEN_SSH_OPTIONS:
        raise ValueError("given already")
    return text


def _day(text: str) -> str:
    try:
        instrument_of(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _memory_size(text: str) -> str:
    try:
        size = parse_bytes(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from None
    if not 0 < size <= MAX_BYTES:
        raise ValueError("not a size of memory")
    return text


def _name_matching(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=f"^{pattern}$")


_HOST_NAME = "a name of letters, digits, '.', '_' and '-', not beginning with '-'"
_CAMERA_NAME = "letters and digits only (file names are split at other characters)"
_CPUS = "[0-9]{1,4}(-[0-9]{1,4})?"
_PATH = 'an absolute path, or one that begins with ~, such as "~/vampires-data"'

HostName = Annotated[str, _name_matching("[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")]
CameraName = Annotated[str, _name_matching("[A-Za-z0-9]{1,79}")]
Address = Annotated[str, _name_matching("[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,252}")]
UserName = Annotated[str, _name_matching("[A-Za-z0-9_][A-Za-z0-9_.@$-]{0,252}")]
RemotePath = Annotated[str, _name_matching(r"/[^\p{C}]*")]
SearchedPath = Annotated[str, _name_matching(r"/[^\p{C}:]*")]
SshOption = Annotated[
    str,
    _name_matching(r"[A-Za-z]+ *[= ] *[^\p{C}\s][^\p{C}]*"),
    AfterValidator(_free_ssh_option),
]
VariableName = Annotated[str, _name_matching("[A-Za-z_][A-Za-z0-9_]*")]
VariableText = Annotated[str, _name_matching(r"[^\p{C}]*")]
LocalPath = Annotated[Path, BeforeValidator(_folder)]
ListedPath = Annotated[Path, BeforeValidator(_folder), AfterValidator(_without_colon)]
ByteCount = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_BYTES)]
CubeFrames = Annotated[int, Field(ge=1, le=MAX_CUBE_FRAMES)]
MemorySize = Annotated[str, AfterValidator(_memory_size)]
ModeName = Annotated[str, _name_matching("[A-Za-z][A-Za-z0-9_]{0,30}")]
Day = Annotated[str, _name_matching(r"\d{4}-\d\d-\d\d"), AfterValidator(_day)]
DataType = Annotated[str, _name_matching("[A-Z][A-Z0-9_-]{0,15}")]
CpuList = Annotated[str, _name_matching(f"({_CPUS}(,{_CPUS})*)?")]
SensorSide = Annotated[int, Field(ge=16, le=65536)]
SensorShape = Annotated[tuple[SensorSide, SensorSide], BeforeValidator(as_tuple)]
StreamName = Annotated[str, _name_matching("[A-Za-z0-9_]{1,79}")]
LinkName = Annotated[str, _name_matching("[A-Za-z0-9_-]{1,60}")]
CpuSetName = Annotated[str, _name_matching("[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")]
SshOptions = Annotated[tuple[SshOption, ...], BeforeValidator(as_tuple)]
LocalPaths = Annotated[tuple[ListedPath, ...], BeforeValidator(as_tuple)]
KeywordNames = Annotated[
    tuple[Annotated[str, _name_matching(NAME_PATTERN)], ...], BeforeValidator(as_tuple)
]
DataTypes = Annotated[tuple[DataType, ...], BeforeValidator(as_tuple), Field(min_length=1)]

# The description of a field says what is allowed in it; messages quote it.


class HostConfig(Table):
    """A machine [hosts.NAME], and how a command is run there."""

    address: Address | None = Field(
        None,
        description='"local" (or nothing): this machine; else a name or address for ssh, '
        "not beginning with '-', the user's name apart in user",
    )
    user: UserName | None = Field(None, description="the user's name on that machine")
    port: int | None = Field(None, ge=1, le=65535, description="a whole number, 1 to 65535")
    identity_file: LocalPath | None = Field(
        None, description='the file of a private key, such as "~/.ssh/id_ed25519"'
    )
    ssh_options: SshOptions = Field(
        (),
        description='a list of options of ssh, such as ["StrictHostKeyChecking=accept-new"]; '
        "not BatchMode, ConnectTimeout, LogLevel, which are given already",
    )
    command_dir: SearchedPath | None = Field(
        None,
        description="the folder of the commands there, an absolute path without ':', such as "
        '"/opt/vampires/bin"',
    )
    shm_dir: RemotePath | None = Field(
        None, description='the folder of the streams there, such as "/milk/shm"'
    )
    environment: Mapping[VariableName, VariableText] = Field(
        {}, description='a table of variables and texts, such as LANG = "C.UTF-8"'
    )
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """NAME, as in [hosts.NAME]."""
        return self._name or self.address or THIS_MACHINE[0]

    def is_local(self) -> bool:
        """Whether that machine is the one on which this is asked."""
        if self.address is None or self.address in THIS_MACHINE:
            return True
        hostname = socket.gethostname()
        return any(_same_host(name, hostname) for name in (self.name, self.address))


def _same_host(name: str, hostname: str) -> bool:
    """Whether a name, short or full, is that of this machine."""
    name, hostname = name.casefold(), hostname.casefold()
    if name == hostname:
        return True
    if name.partition(".")[0] != hostname.partition(".")[0]:
        return False
    return "." not in name or name == socket.getfqdn(hostname).casefold()


class Placement(Table):
    """Where a process runs on its machine; all of it where that is permitted."""

    rt_priority: int = Field(
        0, ge=0, le=99, description="a whole number, 0 (none) to 99, as of SCHED_FIFO"
    )
    cpus: CpuList = Field(
        "", description='the CPUs to run on, such as "2,4-6"; "" for any of them'
    )
    cpu_set: CpuSetName = Field(
        "system", description='the name of a CPU set, such as "system" or "v_log"'
    )


class SimConfig(Table):
    """How a simulated camera is: source = "sim"."""

    sensor: SensorShape | None = Field(
        None,
        description="[rows, columns] of the sensor of a camera without a number, such as "
        "[1024, 1280]",
    )
    ring: int = Field(64, ge=2, le=65536, description="frames kept in the stream, 2 to 65536")
    flc_jitter_us: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="microseconds: with the external trigger every other frame interval is "
        "longer by twice as many; 0: no liquid crystal; without this line as the instrument",
    )
    seed: int = Field(0, ge=0, description="a whole number: other noise")
    focus: bool = Field(
        False, description="true or false: whether it has a focus (FPS framesim-NAME)"
    )
    day: Day | None = Field(
        None,
        description='a day such as "2024-06-01", whose facts of the instrument are played; '
        "without this line those of today",
    )
    light: Annotated[str, _name_matching("sky|flat|dark")] = Field(
        "sky", description='"sky" (a star), "flat" (a lamp fills the fields) or "dark"'
    )


class ReplayConfig(Table):
    """What is replayed: source = "replay"."""

    path: LocalPath = Field(description="a FITS cube, or a folder of them; an absolute path")
    fps: float | None = Field(
        None, gt=0, le=1e5, description="frames/s; without this line, as they were recorded"
    )
    loop: bool = Field(True, description="true: again and again; false: once")


class GenicamConfig(Table):
    """A real camera by GenICam, USB3 Vision or GigE Vision: source = "genicam"."""

    camera_id: Annotated[str, _name_matching(r"[^\p{C}]{0,200}")] = Field(
        "", description='name, serial number or address; "": the first camera there is'
    )
    pixel_format: Annotated[str, _name_matching("[A-Za-z0-9]{0,40}")] = Field(
        "", description='such as "Mono16"; "": as the camera has it'
    )
    packet_size: int | None = Field(
        None, ge=220, le=65000, description="bytes of a GigE Vision packet, 220 to 65000"
    )
    packet_socket: bool = Field(
        True, description="true or false: GigE Vision frames bypass the UDP sockets"
    )
    buffers: int = Field(16, ge=2, le=1024, description="frames that may wait, 2 to 1024")
    trigger_source: Annotated[str, _name_matching("[A-Za-z0-9]{0,40}")] = Field(
        "", description='the input of the external trigger, such as "Line0"; "": the first'
    )
    fake: bool = Field(False, description="true or false: also the camera Aravis simulates")


SOURCES = ("sim", "replay", "genicam")


class CameraConfig(Placement):
    """A camera [cameras.NAME]; NAME is that of its stream.

    rt_priority, cpus and cpu_set are those of the process that takes the frames.
    """

    number: int | None = Field(
        None,
        ge=min(CAMERAS),
        le=max(CAMERAS),
        description="1, 2, or no such line (a camera that -c 1 and -c 2 do not mean)",
    )
    host: HostName = Field(description="the NAME of one of the tables [hosts.NAME]")
    source: Annotated[str, _name_matching("|".join(SOURCES))] = Field(
        "sim",
        description='"sim" (a simulated camera), "replay" (recorded cubes) or "genicam" (a '
        "real camera)",
    )
    mode: str | None = Field(
        None,
        description="the mode at the start, such as MBI (vampires config show instrument lists "
        "them); FULL for a camera without a number",
    )
    fps: float | None = Field(None, gt=0, le=1e5, description="frames/s at the start")
    sim: SimConfig | None = Field(None, description='a table, for source = "sim"')
    replay: ReplayConfig | None = Field(
        None, description='a table with path = "...", for source = "replay"'
    )
    genicam: GenicamConfig | None = Field(None, description='a table, for source = "genicam"')
    logged: bool = Field(
        True, description="true or false: whether the observer's commands log it"
    )
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """NAME, as in [cameras.NAME]: the name of the stream."""
        return self._name

    @property
    def first_mode(self) -> str:
        """The mode at the start, unless camstart is told another."""
        return self.mode or ("MBI" if self.number else "FULL")


class LinkConfig(Placement):
    """A link [links.NAME] of a stream from one machine to another; NAME is that of its tmux
    sessions, at both ends."""

    stream: StreamName = Field(
        description="the name of a camera, or of its dark: CAMERA_dark",
    )
    kind: Annotated[str, _name_matching("tcp|zmq")] = Field(
        description='"tcp" (every frame) or "zmq" (the newest, fps times a second)'
    )
    sender: HostName = Field(description="the NAME of one of the tables [hosts.NAME]")
    receiver: HostName = Field(description="another NAME of the tables [hosts.NAME]")
    port: int = Field(
        ge=1,
        le=65535,
        description="a whole number, 1 to 65535, free on the machine of the "
        "receiver (tcp) or sender (zmq)",
    )
    sender_address: Address | None = Field(
        None, description="of the sender in the network of this link; else that of its host"
    )
    receiver_address: Address | None = Field(
        None, description="of the receiver in the network of this link; else that of its host"
    )
    fps: float = Field(20.0, gt=0, le=1e4, description="frames/s at most, for zmq")
    max_mbps: float = Field(500.0, gt=0, le=1e6, description="Mbit/s at most, for zmq")
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """NAME, as in [links.NAME]."""
        return self._name

    @property
    def camera(self) -> str:
        """The camera whose stream or dark this is."""
        return self.stream.removesuffix("_dark")


class HeaderConfig(Table):
    """[header]: what vampires-headerd puts beside the streams, for the headers of the cubes."""

    constants: LocalPath | None = Field(
        None, description='a TOML file of keywords, such as "~/.config/vampires/header.toml"'
    )
    redis_host: Address | None = Field(
        None, description="the name or address of the machine with the Redis database"
    )
    redis_port: int = Field(6379, ge=1, le=65535, description="a whole number, 1 to 65535")
    redis_db: int = Field(0, ge=0, le=1000, description="a whole number, 0 or more")
    period_s: float = Field(1.0, ge=0.1, le=3600, description="seconds, 0.1 to 3600")
    stale_s: float = Field(60.0, ge=1, le=1e6, description="seconds, 1 to 1e6")


class LoggingConfig(Placement):
    """[logging]: where cubes go and how they are made, unless a command says otherwise.

    Data for the archive go to archive_directory/YYYYMMDD/STREAM, others to
    directory/YYYYMMDD/STREAM; when there is no room left, to those of next_directories in the
    same way. cube_sizes: frames a cube in each camera mode; a mode that is
    not listed gets as many as proposed_cube_bytes hold. start_lead_s: cameras that start
    together do so this far in the future.
    """

    directory: LocalPath = Field(Path("~/vampires-data"), description=_PATH)
    archive_directory: LocalPath = Field(
        Path("~/vampires-data/ARCHIVED_DATA"), description=_PATH
    )
    next_directories: LocalPaths = Field(
        (),
        description="a list of directories, in order: cubes go there when the disk before has "
        "no room; each absolute or beginning with ~, without ':'",
    )
    proposed_cube_bytes: ByteCount = Field(
        1_200_000_000, description="a whole number of bytes, such as 1.2e9"
    )
    warn_cube_bytes: ByteCount = Field(
        2_000_000_000, description="a whole number of bytes, such as 2e9"
    )
    cube_sizes: Mapping[ModeName, CubeFrames] = Field(
        {"STANDARD": 2000, "MBI": 250, "MBI_REDUCED": 500},
        description=f"frames a cube, 1 to {MAX_CUBE_FRAMES}, for some of the camera modes "
        "(vampires config show instrument lists them)",
    )
    ring_memory: MemorySize = Field("1GiB", description='a size, such as "4GiB" or "500MB"')
    rt_priority: int = Field(
        0, ge=0, le=49, description="a whole number, 0 (none) to 49, as of SCHED_FIFO"
    )
    writer_rt_priority: int = Field(
        0, ge=0, le=99, description="a whole number, 0 (none) to 99, as of SCHED_FIFO"
    )
    timeout_s: float = Field(
        10.0, ge=0, le=1e6, description="seconds, 0 (a cube waits for its next frame) to 1e6"
    )
    new_cube_keywords: KeywordNames = Field(
        DEFAULT_KEYWORDS,
        description="a list of names of keywords with whose change a cube ends, each of "
        f"{NAME_RULE}; [] for none",
    )
    start_lead_s: float = Field(0.1, ge=0, le=10, description="seconds, 0 to 10")
    data_types: DataTypes = Field(
        DATA_TYPES,
        description="a list of values of DATA-TYP, each of 1 to 16 capital letters, digits, "
        "'_' and '-'; those known to the archive are " + " ".join(DATA_TYPES),
    )

    @property
    def ring_memory_bytes(self) -> int:
        """ring_memory as a number."""
        return parse_bytes(self.ring_memory)


class Config(Table):
    """A whole configuration; tables keep the order of the file."""

    hosts: Mapping[HostName, HostConfig] = Field(
        min_length=1, description=f"tables [hosts.NAME], at least one; NAME is {_HOST_NAME}"
    )
    cameras: Mapping[CameraName, CameraConfig] = Field(
        min_length=1,
        description=f"tables [cameras.NAME], at least one; NAME is {_CAMERA_NAME}",
    )
    links: Mapping[LinkName, LinkConfig] = Field(
        {}, description="tables [links.NAME]; NAME is letters, digits, '_' and '-'"
    )
    header: HeaderConfig | None = Field(None, description="a table [header]")
    logging: LoggingConfig = Field(description="a table [logging]")
    _file: Path = PrivateAttr(Path())

    def model_post_init(self, context: Any, /) -> None:
        """Gives hosts, cameras and links the names of their tables."""
        for table in (self.hosts, self.cameras, self.links):
            for name, item in table.items():
                item._name = name

    @property
    def file(self) -> Path:
        """The file it is from."""
        return self._file

    def set_file(self, file: Path) -> None:
        """Says which file it is from."""
        self._file = file

    def camera(self, name: str) -> CameraConfig:
        """The camera of that name (of its stream). ConfigError where there is none."""
        if name not in self.cameras:
            there = ", ".join(self.cameras)
            raise ConfigError([f"{self.file}: no camera {name!r}; cameras there: {there}"])
        return self.cameras[name]

    def logged_cameras(self, numbers: Iterable[int] | None = None) -> list[CameraConfig]:
        """The cameras that the observer's commands log, in the order of the file.

        numbers: only these (each once). ConfigError where one of them is not logged.
        """
        logged = [camera for camera in self.cameras.values() if camera.logged]
        if numbers is None:
            if not logged:
                raise ConfigError([f"{self.file}: no camera has logged = true"])
            return logged
        wanted = set(numbers)
        missing = wanted - {camera.number for camera in logged}
        if missing:
            there = ", ".join(f"{camera.number or '-'} ({camera.name})" for camera in logged)
            raise ConfigError(
                [
                    f"{self.file}: no camera {number} with logged = true; "
                    f"logged there: {there or 'none'}"
                    for number in sorted(missing)
                ]
            )
        return [camera for camera in logged if camera.number in wanted]

    def links_of(self, camera: str) -> list[LinkConfig]:
        """The links of a camera's stream and of its dark, in the order of the file."""
        return [link for link in self.links.values() if link.camera == camera]

    def host_of(self, camera: CameraConfig | str) -> HostConfig:
        """The machine of a camera. ConfigError where there is no such camera."""
        if isinstance(camera, str):
            camera = self.camera(camera)
        return self.hosts[camera.host]
