"""Cameras of the GenICam standard through Aravis, a C library: USB3 Vision and GigE Vision.

Only what a frame source needs of it. Nothing is loaded before the first call; Camera and
ImageStream give back what they hold when they are closed, whatever happened before.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_size_t, c_uint, c_uint64
from ctypes import c_void_p as c_object
from dataclasses import dataclass
from typing import Any

import numpy as np

from vampires.closing import Closing

LIBRARY = "libaravis-0.8.so.0"
PACKAGE = "libaravis-0.8-0"
STATUS_SUCCESS = 0
"""Of a buffer that came whole; any other says what is wrong with it (STATUS_TEXTS)."""
STATUS_TEXTS = {
    -1: "unknown",
    1: "cleared",
    2: "packets came too late",
    3: "packets are missing",
    4: "packets came with a wrong number",
    5: "other size than announced",
    6: "not filled",
    7: "aborted",
}
FAKE_INTERFACE = "Fake"
_PACKET_SOCKET_DISABLED = 1
_ADJUST_PACKET_SIZE_NEVER = 0
_SOCKET_BUFFER_BYTES = 1 << 26  # the kernel gives what net.core.rmem_max allows
_AUTO_OFF = 0
_ACQUISITION_CONTINUOUS = 0

_ints = POINTER(c_int)
_doubles = POINTER(c_double)
_strings = POINTER(c_char_p)
_Signature = tuple[Any, tuple[Any, ...]]

# Result and arguments, as the headers of Aravis 0.8 and GLib have them.
_PLAIN: dict[str, _Signature] = {
    "arv_enable_interface": (None, (c_char_p,)),
    "arv_update_device_list": (None, ()),
    "arv_get_n_devices": (c_uint, ()),
    "arv_get_device_id": (c_char_p, (c_uint,)),
    "arv_get_device_address": (c_char_p, (c_uint,)),
    "arv_get_device_vendor": (c_char_p, (c_uint,)),
    "arv_get_device_model": (c_char_p, (c_uint,)),
    "arv_get_device_serial_nbr": (c_char_p, (c_uint,)),
    "arv_camera_get_device": (c_object, (c_object,)),
    "arv_camera_is_gv_device": (c_int, (c_object,)),
    "arv_gv_device_is_controller": (c_int, (c_object,)),
    "arv_camera_gv_set_stream_options": (None, (c_object, c_int)),
    "arv_camera_gv_set_packet_size_adjustment": (None, (c_object, c_int)),
    "arv_stream_push_buffer": (None, (c_object, c_object)),
    "arv_stream_timeout_pop_buffer": (c_object, (c_object, c_uint64)),
    "arv_buffer_new_allocate": (c_object, (c_size_t,)),
    "arv_buffer_get_status": (c_int, (c_object,)),
    "arv_buffer_get_timestamp": (c_uint64, (c_object,)),
    "arv_buffer_get_system_timestamp": (c_uint64, (c_object,)),
    "arv_buffer_get_frame_id": (c_uint64, (c_object,)),
    "arv_buffer_get_image_data": (c_object, (c_object, POINTER(c_size_t))),
    "arv_buffer_get_image_pixel_format": (c_uint, (c_object,)),
    "arv_buffer_get_image_width": (c_int, (c_object,)),
    "arv_buffer_get_image_height": (c_int, (c_object,)),
    "arv_buffer_get_image_padding": (None, (c_object, _ints, _ints)),
    "g_object_unref": (None, (c_object,)),
    "g_error_free": (None, (c_object,)),
    "g_free": (None, (c_object,)),
    "g_object_set": (None, (c_object, c_char_p, c_int, c_object)),  # of one property
    "g_signal_connect_data": (
        ctypes.c_ulong,
        (c_object, c_char_p, c_object, c_object, c_object, c_int),
    ),
    "g_signal_handler_disconnect": (None, (c_object, ctypes.c_ulong)),
}
# These take a GError** at the end.
_CHECKED: dict[str, _Signature] = {
    "arv_camera_new": (c_object, (c_char_p,)),
    "arv_camera_create_stream": (c_object, (c_object, c_object, c_object)),
    "arv_camera_get_vendor_name": (c_char_p, (c_object,)),
    "arv_camera_get_model_name": (c_char_p, (c_object,)),
    "arv_camera_get_device_serial_number": (c_char_p, (c_object,)),
    "arv_camera_get_sensor_size": (None, (c_object, _ints, _ints)),
    "arv_camera_is_region_offset_available": (c_int, (c_object,)),
    "arv_camera_set_region": (None, (c_object, c_int, c_int, c_int, c_int)),
    "arv_camera_get_region": (None, (c_object, _ints, _ints, _ints, _ints)),
    "arv_camera_get_x_offset_increment": (c_int, (c_object,)),
    "arv_camera_get_y_offset_increment": (c_int, (c_object,)),
    "arv_camera_get_width_bounds": (None, (c_object, _ints, _ints)),
    "arv_camera_get_width_increment": (c_int, (c_object,)),
    "arv_camera_get_height_bounds": (None, (c_object, _ints, _ints)),
    "arv_camera_get_height_increment": (c_int, (c_object,)),
    "arv_camera_set_pixel_format_from_string": (None, (c_object, c_char_p)),
    "arv_camera_get_pixel_format": (c_uint, (c_object,)),
    "arv_camera_get_pixel_format_as_string": (c_char_p, (c_object,)),
    "arv_camera_dup_available_pixel_formats_as_strings": (
        c_object,
        (c_object, POINTER(c_uint)),
    ),
    "arv_camera_set_acquisition_mode": (None, (c_object, c_int)),
    "arv_camera_start_acquisition": (None, (c_object,)),
    "arv_camera_stop_acquisition": (None, (c_object,)),
    "arv_camera_is_frame_rate_available": (c_int, (c_object,)),
    "arv_camera_set_frame_rate": (None, (c_object, c_double)),
    "arv_camera_get_frame_rate": (c_double, (c_object,)),
    "arv_camera_get_frame_rate_bounds": (None, (c_object, _doubles, _doubles)),
    "arv_camera_is_exposure_time_available": (c_int, (c_object,)),
    "arv_camera_is_exposure_auto_available": (c_int, (c_object,)),
    "arv_camera_set_exposure_time": (None, (c_object, c_double)),
    "arv_camera_get_exposure_time": (c_double, (c_object,)),
    "arv_camera_get_exposure_time_bounds": (None, (c_object, _doubles, _doubles)),
    "arv_camera_set_exposure_time_auto": (None, (c_object, c_int)),
    "arv_camera_is_gain_auto_available": (c_int, (c_object,)),
    "arv_camera_set_gain_auto": (None, (c_object, c_int)),
    "arv_camera_set_trigger": (None, (c_object, c_char_p)),
    "arv_camera_clear_triggers": (None, (c_object,)),
    "arv_camera_dup_available_trigger_sources": (c_object, (c_object, POINTER(c_uint))),
    "arv_camera_get_payload": (c_uint, (c_object,)),
    "arv_camera_is_feature_available": (c_int, (c_object, c_char_p)),
    "arv_camera_get_integer": (ctypes.c_int64, (c_object, c_char_p)),
    "arv_camera_get_float": (c_double, (c_object, c_char_p)),
    "arv_camera_get_string": (c_char_p, (c_object, c_char_p)),
    "arv_camera_gv_set_packet_size": (None, (c_object, c_int)),
}


class AravisError(Exception):
    """What Aravis answered: its own words, on one line."""


class AravisMissing(Exception):
    """The library is not on this computer. One line: which, and its Debian package."""


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", c_int), ("message", c_char_p))


class _Library:
    """The functions of the library by name, errors raised as AravisError."""

    def __init__(self, path: str) -> None:
        try:
            self._functions = ctypes.CDLL(path)
        except OSError:
            raise AravisMissing(
                f"no library {path}: cameras of the GenICam standard need it; install the "
                f"Debian package {PACKAGE}"
            ) from None
        tables = ((_PLAIN, ()), (_CHECKED, (POINTER(POINTER(_GError)),)))
        for table, error in tables:
            for name, (result, arguments) in table.items():
                function = getattr(self._functions, name)
                function.restype, function.argtypes = result, (*arguments, *error)

    def plain(self, name: str, *arguments: Any) -> Any:
        """Calls a function that has no errors."""
        return getattr(self._functions, name)(*arguments)

    def checked(self, name: str, *arguments: Any) -> Any:
        """Calls a function that may fail. Raises AravisError."""
        error = POINTER(_GError)()
        result = getattr(self._functions, name)(*arguments, byref(error))
        if error:
            text = (error.contents.message or b"").decode(errors="replace")
            self.plain("g_error_free", error)
            raise AravisError(" ".join(text.split()) or f"{name} failed")
        return result


@functools.cache
def _library() -> _Library:
    return _Library(LIBRARY)


@dataclass(frozen=True)
class FoundCamera:
    """A camera that answers. name: what Camera() opens it by; address: on network or bus."""

    name: str
    vendor: str
    model: str
    serial: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.vendor} {self.model}, serial {self.serial})"


def enable_fake_camera() -> None:
    """From now on Aravis finds a simulated camera in this process, by the name Fake_1."""
    _library().plain("arv_enable_interface", FAKE_INTERFACE.encode())


def find_cameras() -> list[FoundCamera]:
    """Those that answer now; asks on every network and USB, which takes a second."""
    library = _library()
    library.plain("arv_update_device_list")
    features = ("id", "vendor", "model", "serial_nbr", "address")
    return [
        FoundCamera(*(_text(library.plain(f"arv_get_device_{f}", number)) for f in features))
        for number in range(library.plain("arv_get_n_devices"))
    ]


def _text(given: bytes | None) -> str:
    return (given or b"").decode(errors="replace")


@dataclass(frozen=True)
class Region:
    """A window of the sensor, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Steps:
    """What the sizes and the place of a window may be: a size is least + n * size,
    a first pixel n * offset."""

    offset: int
    least: int
    size: int


class Camera(Closing):
    """An open camera, which no other program can control meanwhile. Not for several threads.

    Every method raises AravisError. Times are in seconds, rates in frames/s.
    """

    def __init__(self, name: str = "") -> None:
        """Opens a camera by its name, serial number or address; "" is the first one found.
        Raises AravisMissing, AravisError."""
        self._library = _library()
        opened = self._library.checked("arv_camera_new", name.encode() or None)
        if not opened:
            raise AravisError("it cannot be opened")
        self._camera: int | None = opened
        self._control_lost = threading.Event()
        self._device = self._library.plain("arv_camera_get_device", opened)
        # Called by a thread of Aravis; it has to live as long as the connection.
        self._on_control_lost = ctypes.CFUNCTYPE(None, c_object, c_object)(
            lambda _device, _data: self._control_lost.set()
        )
        self._handler = self._library.plain(
            "g_signal_connect_data",
            self._device,
            b"control-lost",
            ctypes.cast(self._on_control_lost, c_object),
            None,
            None,
            0,
        )
        if self._is_on_network() and not self._library.plain(
            "arv_gv_device_is_controller", self._device
        ):
            self.close()
            raise AravisError("another program controls it")

    def _is_on_network(self) -> bool:
        return bool(self._library.plain("arv_camera_is_gv_device", self._camera))

    def close(self) -> None:
        if self._camera is not None:
            camera, self._camera = self._camera, None
            self._library.plain("g_signal_handler_disconnect", self._device, self._handler)
            self._library.plain("g_object_unref", camera)

    @property
    def control_lost(self) -> bool:
        """Whether the camera has stopped to answer, or obeys somebody else."""
        return self._control_lost.is_set()

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._camera is None:
            raise AravisError("the camera is closed")
        return self._library.checked(f"arv_camera_{name}", self._camera, *arguments)

    def _pair(self, name: str, kind: type[Any]) -> tuple[Any, Any]:
        first, second = kind(), kind()
        self._call(name, byref(first), byref(second))
        return first.value, second.value

    def _names(self, function: str) -> list[str]:
        count = c_uint()
        array = self._call(function, byref(count))
        if not array:
            return []
        strings = ctypes.cast(array, _strings)
        names = [_text(strings[number]) for number in range(count.value)]
        self._library.plain("g_free", array)
        return names

    # -- what it is ---------------------------------------------------------------------------

    def vendor(self) -> str:
        return _text(self._call("get_vendor_name"))

    def model(self) -> str:
        return _text(self._call("get_model_name"))

    def serial(self) -> str:
        return _text(self._call("get_device_serial_number"))

    def has(self, feature: str) -> bool:
        """Whether the camera has a feature, and it can be used now."""
        return bool(self._call("is_feature_available", feature.encode()))

    def get_float(self, feature: str) -> float:
        return float(self._call("get_float", feature.encode()))

    def get_integer(self, feature: str) -> int:
        return int(self._call("get_integer", feature.encode()))

    def get_string(self, feature: str) -> str:
        return _text(self._call("get_string", feature.encode()))

    # -- image --------------------------------------------------------------------------------

    def sensor_size(self) -> tuple[int, int]:
        """Width and height of the largest image, binned as the camera is."""
        if self.has("WidthMax") and self.has("HeightMax"):
            return self.get_integer("WidthMax"), self.get_integer("HeightMax")
        return self._pair("get_sensor_size", c_int)

    def x_steps(self) -> Steps:
        return self._steps("x", "width")

    def y_steps(self) -> Steps:
        return self._steps("y", "height")

    def _steps(self, axis: str, size: str) -> Steps:
        least, _ = self._pair(f"get_{size}_bounds", c_int)
        step = self._call(f"get_{size}_increment")
        offset = self._call(f"get_{axis}_offset_increment") if self.can_move_region() else 0
        return Steps(offset=offset, least=max(least, 1), size=max(step, 1))

    def can_move_region(self) -> bool:
        """Whether a window can lie elsewhere than at the first pixel."""
        return bool(self._call("is_region_offset_available"))

    def region(self) -> Region:
        x, y, width, height = (c_int() for _ in range(4))
        self._call("get_region", byref(x), byref(y), byref(width), byref(height))
        return Region(x.value, y.value, width.value, height.value)

    def set_region(self, region: Region) -> None:
        """Unchecked: cameras do not all refuse what they cannot do."""
        self._call("set_region", region.x, region.y, region.width, region.height)

    def pixel_formats(self) -> list[str]:
        """Names of those the camera has now."""
        return self._names("dup_available_pixel_formats_as_strings")

    def pixel_format(self) -> str:
        return _text(self._call("get_pixel_format_as_string"))

    def pixel_format_code(self) -> int:
        """Number of the format, as buffers have it."""
        return int(self._call("get_pixel_format"))

    def set_pixel_format(self, name: str) -> None:
        self._call("set_pixel_format_from_string", name.encode())

    # -- exposure, rate, trigger --------------------------------------------------------------

    def has_exposure_time(self) -> bool:
        return bool(self._call("is_exposure_time_available"))

    def exposure_time_s(self) -> float:
        return float(self._call("get_exposure_time")) * 1e-6

    def exposure_time_bounds_s(self) -> tuple[float, float]:
        """Least and most, with the rate as it is."""
        least, most = self._pair("get_exposure_time_bounds", c_double)
        return least * 1e-6, most * 1e-6

    def set_exposure_time_s(self, tint_s: float) -> None:
        """Unchecked."""
        self._call("set_exposure_time", tint_s * 1e6)

    def has_frame_rate(self) -> bool:
        return bool(self._call("is_frame_rate_available"))

    def frame_rate(self) -> float:
        return float(self._call("get_frame_rate"))

    def frame_rate_bounds(self) -> tuple[float, float]:
        """Least and most, with region and exposure time as they are."""
        return self._pair("get_frame_rate_bounds", c_double)

    def set_frame_rate(self, fps: float) -> None:
        """Unchecked. Ends the use of triggers with some cameras."""
        self._call("set_frame_rate", fps)

    def end_automatics(self) -> None:
        """Exposure time and gain stay what they are set to, and frames come without end."""
        if self._call("is_exposure_auto_available"):
            self._call("set_exposure_time_auto", _AUTO_OFF)
        if self._call("is_gain_auto_available"):
            self._call("set_gain_auto", _AUTO_OFF)
        if self.has("AcquisitionMode"):
            self._call("set_acquisition_mode", _ACQUISITION_CONTINUOUS)

    def trigger_sources(self) -> list[str]:
        """Names of the inputs that can trigger; none where there is no trigger."""
        if not (self.has("TriggerMode") and self.has("TriggerSource")):
            return []
        return self._names("dup_available_trigger_sources")

    def set_trigger(self, source: str) -> None:
        """A rising edge at this input takes a frame."""
        self._call("set_trigger", source.encode())

    def clear_triggers(self) -> None:
        """Free-running."""
        self._call("clear_triggers")

    # -- frames -------------------------------------------------------------------------------

    def set_network(self, packet_bytes: int | None, packet_socket: bool) -> None:
        """Of a camera on the network; nothing for others. packet_bytes: None finds it out;
        packet_socket: packets are taken past the network stack, which root may."""
        if not self._is_on_network():
            return
        options = 0 if packet_socket else _PACKET_SOCKET_DISABLED
        self._library.plain("arv_camera_gv_set_stream_options", self._camera, options)
        if packet_bytes is not None:
            never = _ADJUST_PACKET_SIZE_NEVER
            self._library.plain("arv_camera_gv_set_packet_size_adjustment", self._camera, never)
            self._call("gv_set_packet_size", packet_bytes)

    def open_stream(self, buffers: int) -> ImageStream:
        """Makes the camera's frames arrive in so many buffers, once it is started."""
        stream = self._call("create_stream", None, None)
        if not stream:
            raise AravisError("its stream cannot be opened")
        if self._is_on_network():
            buffer = b"socket-buffer-size", _SOCKET_BUFFER_BYTES
            self._library.plain("g_object_set", stream, *buffer, None)
        images = ImageStream(self._library, stream)
        try:
            images.add_buffers(buffers, self._call("get_payload"))
        except BaseException:
            images.close()
            raise
        return images

    def start(self) -> None:
        self._call("start_acquisition")

    def stop(self) -> None:
        self._call("stop_acquisition")


@dataclass(frozen=True)
class Image:
    """What is in a buffer, valid until the buffer is given back.

    status: STATUS_SUCCESS, or see STATUS_TEXTS; then nothing else is known, since Aravis leaves
    the values of an earlier frame in the buffer. number: the camera's own count. camera_ns:
    time on the camera's clock, 0 if it has none. arrived_ns: time at which its first packet
    came, in ns since 1970 UTC. bytes, address: where the pixels are, rows of width pixels and
    padding bytes; see pixels().
    """

    status: int
    number: int = 0
    camera_ns: int = 0
    arrived_ns: int = 0
    pixel_format: int = 0
    width: int = 0
    height: int = 0
    padding: int = 0
    bytes: int = 0
    address: int = 0

    def pixels(self, dtype: np.dtype[Any]) -> np.ndarray | None:
        """The image [height, width] in the buffer; None when it is not that large."""
        row_bytes = self.width * dtype.itemsize + self.padding
        if not self.address or min(self.width, self.height) < 1 or self.padding < 0:
            return None
        if self.bytes < self.height * row_bytes - self.padding:
            return None
        memory = (ctypes.c_uint8 * self.bytes).from_address(self.address)
        strides = (row_bytes, dtype.itemsize)
        return np.ndarray((self.height, self.width), dtype, memoryview(memory), strides=strides)


class ImageStream(Closing):
    """The buffers into which a thread of Aravis puts frames."""

    def __init__(self, library: _Library, stream: int) -> None:
        self._library = library
        self._stream: int | None = stream

    def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._library.plain("g_object_unref", stream)  # and with it all its buffers

    def add_buffers(self, count: int, size_bytes: int) -> None:
        for _ in range(count):
            buffer = self._library.plain("arv_buffer_new_allocate", size_bytes)
            self._library.plain("arv_stream_push_buffer", self._stream, buffer)

    @contextlib.contextmanager
    def next_image(self, timeout_s: float) -> Iterator[Image | None]:
        """The next one, in order; None when none comes in time."""
        timeout_us = round(timeout_s * 1e6)
        buffer = self._library.plain("arv_stream_timeout_pop_buffer", self._stream, timeout_us)
        if not buffer:
            yield None
            return
        try:
            yield self._image(buffer)
        finally:
            self._library.plain("arv_stream_push_buffer", self._stream, buffer)

    def _image(self, buffer: int) -> Image:
        def get(name: str, *arguments: Any) -> Any:
            return self._library.plain(f"arv_buffer_get_{name}", buffer, *arguments)

        status = get("status")
        if status != STATUS_SUCCESS:
            return Image(status)
        size, padding, rows = c_size_t(), c_int(), c_int()
        address = get("image_data", byref(size))
        get("image_padding", byref(padding), byref(rows))
        return Image(
            status,
            number=get("frame_id"),
            camera_ns=get("timestamp"),
            arrived_ns=get("system_timestamp"),
            pixel_format=get("image_pixel_format"),
            width=get("image_width"),
            height=get("image_height"),
            padding=padding.value,
            bytes=size.value,
            address=address or 0,
        )
