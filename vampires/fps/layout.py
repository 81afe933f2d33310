"""The bytes of a function parameter structure (FPS), the file ``<name>.fps.shm``.

Offsets, types and flags are those of milk 1.03 on x86-64, little endian, as measured from files
it wrote: a header of 62648 bytes, then NBparamMAX parameters of 4112 bytes each.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

SUFFIX = ".fps.shm"

HEADER_BYTES = 62648
PARAMETER_BYTES = 4112
DEFAULT_PARAMETERS = 200
MAX_PARAMETERS = 10_000  # far above any in use; a larger number is a broken file
MAX_FPS = 99  # milk-fpsCTRL does not check its table of 100


class HeaderText(IntEnum):
    """Offsets of the texts in the header; their sizes are in HEADER_TEXT_BYTES."""

    NAME = 0
    DESCRIPTION = 100
    KEYWORDARRAY = 300
    WORKDIR = 500
    DATADIR = 700
    CONFDIR = 900
    SOURCEFNAME = 1100
    PNAME = 1304
    CALLPROGNAME = 1404
    CALLFUNCNAME = 1484


HEADER_TEXT_BYTES = {
    HeaderText.NAME: 100,
    HeaderText.DESCRIPTION: 200,
    HeaderText.KEYWORDARRAY: 200,
    HeaderText.WORKDIR: 200,
    HeaderText.DATADIR: 200,
    HeaderText.CONFDIR: 200,
    HeaderText.SOURCEFNAME: 200,
    HeaderText.PNAME: 100,
    HeaderText.CALLPROGNAME: 80,
    HeaderText.CALLFUNCNAME: 100,
}

# The other fields of the header: offset and struct code.
SOURCELINE = (1300, "<i")
NAMEINDEX_AT, NAMEINDEX_BYTES, NAMEINDEX_SLOTS = 1584, 10, 16
NBNAMEINDEX = (1744, "<i")
CONFPID = (1748, "<i")
CONFPID_START = (1752, "<qq")  # seconds, nanoseconds
RUNPID = (1768, "<i")
RUNPID_START = (1776, "<qq")
# Process id and start as one, from the offset of the id.
CONF_RECORD, RUN_RECORD = "<iqq", "<i4xqq"
NBMODULE = (1792, "<i")
MODULES_AT, MODULE_BYTES, MODULE_SLOTS = 1796, 200, 50
SIGNAL = (11800, "<Q")
CONFWAITUS = (11808, "<Q")
STATUS = (11816, "<I")
NBPARAM_MAX = (11824, "<q")
MESSAGES_AT, MESSAGE_BYTES, MESSAGE_SLOTS = 11832, 500, 100
MESSAGE_INDICES = (61832, "<100i")
MESSAGE_CODES = (62232, "<100I")
MESSAGE_COUNT = (62632, "<q")
CONF_ERRORS = (62640, "<I")

# In a parameter.
FLAGS_AT = 0
KEYWORDFULL_AT, KEYWORDFULL_BYTES = 16, 1280
KEYWORDS_AT, KEYWORD_BYTES, KEYWORD_LEVELS = 1296, 64, 20
KEYWORDLEVEL_AT = 2576
DESCRIPTION_AT, DESCRIPTION_BYTES = 3860, 64
TYPE_AT = 3924
VALUE_AT, VALUE_BYTES = 3928, 128
STRING_BYTES = 64  # the last is a NUL: 63 characters
CNT0_AT = 4104


class ParameterType(IntEnum):
    """The type of a parameter's value."""

    UNDEF = 0x1
    INT32 = 0x2
    UINT32 = 0x4
    INT64 = 0x8
    UINT64 = 0x10
    FLOAT32 = 0x20
    FLOAT64 = 0x40
    PID = 0x80
    TIMESPEC = 0x100
    FILENAME = 0x200
    FITSFILENAME = 0x400
    EXECFILENAME = 0x800
    DIRNAME = 0x1000
    STREAMNAME = 0x2000
    STRING = 0x4000
    ONOFF = 0x8000
    PROCESS = 0x10000
    FPSNAME = 0x20000


class ParameterFlag(IntFlag):
    """Bits of a parameter's flags; ONOFF is the state of an ONOFF parameter."""

    ACTIVE = 0x1
    USED = 0x2
    VISIBLE = 0x4
    WRITE = 0x10
    WRITECONF = 0x20
    WRITERUN = 0x40
    WRITESTATUS = 0x80
    LOG = 0x100
    SAVEONCHANGE = 0x200
    SAVEONCLOSE = 0x400
    IMPORTED = 0x1000
    FEEDBACK = 0x2000
    ONOFF = 0x4000
    CHECKINIT = 0x10000
    MINLIMIT = 0x20000
    MAXLIMIT = 0x40000
    ERROR = 0x80000
    CONF_REQUIRED = 0x40000000
    RUN_REQUIRED = 0x80000000
    CHECKSTREAM = 0x40000000000000


class Status(IntFlag):
    """Bits of the header's status."""

    CONF = 0x1
    RUN = 0x2
    CMDCONF = 0x10
    CMDRUN = 0x20
    RUNLOOP = 0x100
    CHECKOK = 0x200
    TMUXCONF = 0x1000
    TMUXRUN = 0x2000
    TMUXCTRL = 0x4000


class Signal(IntFlag):
    """Bits of the header's signal. The conf process runs while CONFRUN is set."""

    CONFRUN = 0x1
    UPDATE = 0x4
    CHECKED = 0x8


class MessageCode(IntFlag):
    """What a message of the conf process is about."""

    NOTINITIALIZED = 0x1
    BELOWMIN = 0x2
    ABOVEMAX = 0x4
    ERROR = 0x8
    INFO = 0x10


# struct code of one element of the value, for the types that are numbers.
NUMBER_CODES = {
    ParameterType.INT32: "i",
    ParameterType.UINT32: "I",
    ParameterType.INT64: "q",
    ParameterType.UINT64: "Q",
    ParameterType.FLOAT32: "f",
    ParameterType.FLOAT64: "d",
    ParameterType.PID: "i",
}
# Those with four elements: value, minimum, maximum, current. A TIMESPEC has value and minimum.
FOUR_SLOT_TYPES = frozenset(NUMBER_CODES) - {ParameterType.PID}
# Of these pyMilk reads 64 bits, the value and the minimum.
HALF_TYPES = frozenset({ParameterType.INT32, ParameterType.UINT32})
FLOAT_TYPES = frozenset({ParameterType.FLOAT32, ParameterType.FLOAT64, ParameterType.TIMESPEC})

# What stands in the second string of a text parameter that was never fed back.
NULL_TEXTS = {
    ParameterType.FILENAME: "NULLFILE",
    ParameterType.FITSFILENAME: "NULLFITSFILE",
    ParameterType.EXECFILENAME: "NULLEXECFILE",
    ParameterType.DIRNAME: "NULLDIR",
    ParameterType.STREAMNAME: "NULLSTREAM",
    ParameterType.STRING: "NULLSTRING",
    ParameterType.PROCESS: "NULLPROCESS",
    ParameterType.FPSNAME: "NULLFPS",
}

DEFAULT_INPUT = ParameterFlag(0x22B7)
DEFAULT_OUTPUT = ParameterFlag(0x7)


def file_bytes(parameters: int) -> int:
    """Size of a file with room for so many parameters."""
    return HEADER_BYTES + PARAMETER_BYTES * parameters
