"""Messages of pyMilk: what it sends arrives, what ours sends is the same, and no pickle that is
anything else does anything."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from refused_messages import refusal_of

from vampires.array_pickle import MAX_STEPS
from vampires.keywords import Keyword
from vampires.link_message import MAX_KEYWORDS, MessageInvalid, read_message
from vampires.pymilk_message import decode_pymilk, encode_pymilk
from vampires.simulated_sky import STREAM_DTYPES

GOLDEN = Path(__file__).parent / "data" / "zmq"
SENT = json.loads((GOLDEN / "pymilk_zmq_send.json").read_text())
CAPTURED = [sent for sent in SENT if (GOLDEN / sent["file"]).exists()]
PROTOCOLS = (3, 4, 5)
RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4)

PYMILK_DTYPES = [d for d in STREAM_DTYPES if d.kind != "c" and d != np.float16]
shapes = arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=12)
values = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text("azAZ09 #", max_size=16)
)


def message(*pickled: bytes) -> bytes:
    """A message of "vcam1" with a pickle made of these pieces."""
    return b"vcam1 " + b"".join(pickled)


def refusal(data: bytes, **options: Any) -> str:
    """Why a message is refused."""
    return refusal_of(decode_pymilk, data, most_bytes=16 << 20, **options)


# -- there and back ---------------------------------------------------------------------------


@pytest.mark.parametrize("sent", CAPTURED, ids=lambda sent: sent["file"])
def test_what_pymilk_sent_arrives_and_ours_sends_the_same_bytes(sent):
    data = (GOLDEN / sent["file"]).read_bytes()
    stream, frame, keywords = decode_pymilk(data)
    assert stream == sent["topic"]
    assert keywords == sent["keywords"]
    assert [type(v) for v in keywords.values()] == [type(v) for v in sent["keywords"].values()]
    assert frame.dtype == sent["dtype"] and frame.tolist() == sent["data"]
    # NumPy 1 writes the former name of its module, which is one byte shorter; the length of
    # both parts is written, too.
    core = np.zeros(0).__reduce__()[0].__module__.encode()
    shorter = len(b"numpy._core.multiarray") - len(core)
    data = data.replace(b"\x16numpy._core.multiarray", bytes([len(core)]) + core)
    data = data.replace(struct.pack("<Q", 220), struct.pack("<Q", 220 - shorter))
    assert encode_pymilk(stream, frame, keywords) == data


def test_there_are_captured_messages():
    assert len(CAPTURED) >= 2


@given(
    st.sampled_from(PYMILK_DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shapes)),
    st.dictionaries(st.text("azAZ09_-", min_size=1, max_size=16), values, max_size=9),
)
def test_what_is_sent_is_what_zmq_recv_loads(frame, keywords):
    data = encode_pymilk("vcam1", frame, keywords)
    loaded_keywords, loaded = pickle.loads(data[data.index(b" ") + 1 :])
    assert loaded_keywords == keywords
    assert loaded.dtype == frame.dtype and loaded.tobytes() == frame.tobytes()
    stream, received, received_keywords = decode_pymilk(data)
    assert (stream, received_keywords) == ("vcam1", keywords)
    assert received.dtype == frame.dtype and received.shape == frame.shape
    assert received.tobytes() == frame.tobytes()
    assert received.flags.writeable and received.flags.owndata


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", STREAM_DTYPES, ids=str)
def test_arrays_in_any_order_of_axes_and_bytes_arrive_native(protocol, order, dtype):
    cube = np.arange(60).reshape(3, 4, 5).astype(dtype.newbyteorder(order))
    for array in (
        *(cube, cube.T, np.moveaxis(cube, 0, -1), np.moveaxis(cube, -1, 0), cube[::-1, ::2]),
        *(cube[0], cube[0].T, np.asfortranarray(cube[1]), cube[0, 0], cube[:, 1, ::-1]),
        np.broadcast_to(cube[0], (2, 4, 5)),
    ):
        _, frame, _ = decode_pymilk(message(pickle.dumps(({}, array), protocol)))
        assert frame.dtype == dtype and frame.dtype.isnative
        assert frame.flags.c_contiguous and frame.flags.writeable
        assert np.array_equal(frame, array)


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_module_names_of_numpy_1_and_2_are_both_read(core, protocol):
    pickled = pickle.dumps(({"A": np.float32(1.5)}, RAMP), protocol)
    for name in (b"numpy._core.", b"numpy.core."):
        for module in (b"multiarray", b"numeric"):
            old, new = name + module, core + module
            pickled = pickled.replace(b"c" + old + b"\n", b"c" + new + b"\n")
            pickled = pickled.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
    assert core in pickled
    _, frame, keywords = decode_pymilk(message(pickled))
    assert keywords == {"A": 1.5} and np.array_equal(frame, RAMP)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_of_numpy_become_those_of_python(protocol):
    keywords = {
        "A": np.int64(-5),
        "B": np.float32(0.25),
        "C": np.bool_(True),
        "D": np.uint8(200),
        "E": np.float64("nan"),
        "F": np.array(258, ">u2")[()],
    }
    _, _, received = decode_pymilk(message(pickle.dumps((keywords, RAMP), protocol)))
    assert repr(received) == "{'A': -5, 'B': 0.25, 'C': True, 'D': 200, 'E': nan, 'F': 258}"


def test_a_message_of_pymilk_is_one_of_ours_without_counter_and_times():
    keywords = {"SIXTEEN_CHARS_AB": "sixteen chars ab", "OK": "#TRUE#", "NO": False, "Ä": 2.5}
    received = read_message(message(pickle.dumps((keywords, RAMP), 4)))
    assert received.keywords == (
        Keyword("SIXTEEN_CHARS_A", "sixteen chars a"),
        Keyword("OK", True),
        Keyword("NO", False),
        Keyword("?", 2.5),
    )
    assert (received.cnt0, received.acquired_ns, received.sent_ns) == (-1, 0, 0)
    assert (received.sequence, received.sender, received.throttled) == (0, 0, 0)


def test_a_cube_of_pymilk_has_its_planes_first_here():
    cube = np.arange(60).reshape(3, 4, 5)  # y, x, z
    frame = read_message(message(pickle.dumps(({}, cube), 4))).frame
    assert frame.shape == (5, 3, 4) and frame.flags.c_contiguous
    assert np.array_equal(frame[2], cube[:, :, 2])


def test_logicals_are_sent_as_a_stream_holds_them():
    _, _, keywords = decode_pymilk(encode_pymilk("vcam1", RAMP, {"A": True, "B": False}))
    assert keywords == {"A": "#TRUE#", "B": "#FALSE#"}


@pytest.mark.parametrize("dtype", ["float16", "complex64", "complex128", "bool", "O", "U3"])
def test_pixels_that_pymilk_cannot_read_are_not_sent(dtype):
    with pytest.raises(MessageInvalid, match="such pixels"):
        encode_pymilk("vcam1", np.zeros((2, 3), dtype))


def test_as_many_keywords_as_allowed_arrive_and_one_more_is_refused():
    keywords: dict[str, Any] = {f"K{i}": np.float64(i) for i in range(MAX_KEYWORDS)}
    assert len(decode_pymilk(message(pickle.dumps((keywords, RAMP), 4)))[2]) == MAX_KEYWORDS
    keywords["ONE_MORE"] = 1
    assert "4097 keywords" in refusal(message(pickle.dumps((keywords, RAMP), 4)))


# -- what would run code ----------------------------------------------------------------------


class Runs:
    """Pickles as a call; unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_runs_nothing(protocol, tmp_path):
    canary = tmp_path / "ran"
    trap = Runs(canary)
    for pickled in (
        *(trap, ({}, trap), (trap, RAMP), ({"A": trap}, RAMP), ({trap: 1}, RAMP), (trap,) * 2),
        ({}, np.array([trap])),
        ({}, np.ma.masked_array([1.5], fill_value=2)),
    ):
        refusal(message(pickle.dumps(pickled, protocol)))
    assert not canary.exists()
    pickle.loads(pickle.dumps(trap, protocol))
    assert canary.exists()  # so it would have


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_refusal_says_what_a_pickle_would_have_run(protocol, tmp_path):
    trap = Runs(tmp_path / "ran")
    assert "names 'posix.mkdir'" in refusal(message(pickle.dumps(({}, trap), protocol)))


@pytest.mark.parametrize("protocol", [0, 1, 2, 6, 255])
def test_a_pickle_of_another_protocol_is_refused_as_such(protocol):
    pickled = bytes([0x80, protocol]) + b"}" + ARRAY + b"\x86."
    assert f"protocol {protocol}" in refusal(message(pickled))


MKDIR = b"cposix\nmkdir\n"
EMPTY = b"\x80\x04}"  # a dict, of protocol 4
ARRAY = pickle.dumps(RAMP, 4)[11:-1]  # the steps that leave an array, behind the frame


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04" + MKDIR + b".",  # GLOBAL
        b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x04load\x93\x8c\x02/x\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x07memmap\x93\x8c\x02/x\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0eobject.__dict__\x93.",
        b"\x80\x04\x8c\x00\x8c\x05dtype\x93.",
        b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x0cfromfile.x.y\x93.",
        b"\x80\x04K\x01K\x02\x93.",  # names that are no text
        b"\x80\x04})\x93.",
        b"(S'x'\niposix\nmkdir\n.",  # INST
        b"(" + MKDIR + b"S'x'\no.",  # OBJ
        b"\x80\x04" + MKDIR + b")\x81.",  # NEWOBJ
        b"\x80\x04cnumpy\nndarray\n)\x81.",
        b"\x80\x04cnumpy\nndarray\n)}\x92.",  # NEWOBJ_EX
        b"\x80\x04cnumpy\nndarray\nK\x09\x85R.",  # ndarray called
        b"\x80\x04cnumpy\nndarray\n}b.",  # attributes of a type of NumPy
        b"\x80\x04cnumpy\ndtype\n}b.",
        b"\x80\x04}}b.",  # BUILD on plain items
        b"\x80\x04)}b.",
        b"\x80\x04K\x01}b.",
        b"\x80\x04}\x8c\x01a)\x86b.",
        b"Pid\n.",  # PERSID
        b"\x80\x04K\x01Q.",  # BINPERSID
        b"\x80\x04\x82\x01.",  # EXT1
        b"\x80\x04\x83\x01\0.",  # EXT2
        b"\x80\x04\x84\x01\0\0\0.",  # EXT4
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x05\x97\x98.",  # READONLY_BUFFER
        b"\x80\x04].",  # lists and sets: no array of pixels has them
        b"\x80\x04]K\x01a.",
        b"\x80\x04](K\x01e.",
        b"\x80\x04(l.",
        b"\x80\x04\x8f.",
        b"\x80\x04(K\x01\x91.",
        b"\x80\x04K\x010.",  # POP, POP_MARK, DUP
        b"\x80\x04K\x01(1.",
        b"\x80\x04K\x012.",
        b"I1\n.",  # numbers and texts of protocols 0 to 2
        b"\x80\x02V" + b"x" * 40 + b"\n.",
        b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
        b"F1.5\n.",
        b"\x80\x04\x8b\xff\xff\xff\x7f.",  # LONG4
        b"\x80\x04U\x01a.",
        b"\x80\x00}.",
        b"\x80\x02}.",
        b"\x80\x06}.",
        b"\x80\xff}.",
    ],
    ids=lambda pickled: repr(pickled[:24]),
)
def test_steps_and_names_that_no_array_needs_are_refused(pickled):
    refusal(message(pickled))
    refusal(message(b"\x80\x04}", pickled.removesuffix(b"."), b"\x86."))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        *(np.array([None]), np.array(["a"]), np.array([b"a"]), np.zeros(3, "i4, f8")),
        *(np.zeros(3, "V8"), np.zeros(3, "M8[ns]"), np.zeros(3, "m8[s]"), np.zeros(3, bool)),
        *(np.zeros(3, [("a", "O")]), np.zeros(3, np.longdouble)),
        *(np.array(1.5), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((1, 1, 1, 1))),
        *(np.float64(1.5), [1, 2], 5, None, {}, "text", b"bytes", (RAMP, RAMP), np.dtype("u2")),
    ],
    ids=lambda array: repr(array)[:30],
)
def test_what_is_no_frame_is_refused(protocol, array):
    refusal(message(pickle.dumps(({}, array), protocol)))


@pytest.mark.parametrize(
    "pickled",
    [
        *(RAMP, {}, ({},), (RAMP, {}), ({}, RAMP, 1), ([], RAMP), (None, RAMP), (RAMP, RAMP)),
        *(({1: 2}, RAMP), ({(): 2}, RAMP), ({None: 2}, RAMP), ({"": 2}, RAMP)),
        *(({"A": None}, RAMP), ({"A": []}, RAMP), ({"A": {}}, RAMP), ({"A": (1,)}, RAMP)),
        *(({"A": b"x"}, RAMP), ({"A": 1j}, RAMP), ({"A": RAMP}, RAMP), ({"A": {1}}, RAMP)),
        *(({"A": 2**63}, RAMP), ({"A": -(2**63) - 1}, RAMP), ({"A": 1 << 2000}, RAMP)),
        *(({"A": 1 << 4000}, RAMP), ({"A": "x" * 257}, RAMP), ({"x" * 257: 1}, RAMP)),
        *(({"A": np.complex64(1)}, RAMP), ({"A": np.str_("x")}, RAMP), ({"A": "\ud800"}, RAMP)),
    ],
    ids=lambda pickled: repr(pickled)[:30],
)
def test_what_is_no_pair_of_keywords_and_frame_is_refused(pickled):
    for protocol in PROTOCOLS:
        refusal(message(pickle.dumps(pickled, protocol)))


# -- bombs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04C\xff.",  # bytes, and more bytes, than there are
        b"\x80\x04B\xff\xff\xff\xff.",
        b"\x80\x04\x8e" + struct.pack("<Q", 100 * 10**9) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 2**64 - 1) + b".",
        b"\x80\x04\x8c\xff.",  # text
        b"\x80\x04X\xff\xff\xff\xff.",
        b"\x80\x04\x8d" + struct.pack("<Q", 100 * 10**9) + b".",
        b"\x80\x04\x8a\xff.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**64 - 1),
        b"\x80\x04h\x05.",  # what was never noted
        b"\x80\x04j\xff\xff\xff\xff.",
        b"\x80\x04R.",
        b"\x80\x04t.",
        b"\x80\x04u.",
        b"\x80\x04}(K\x01u.",
        b"\x80\x04}(K\x01K\x02u.",
        b"\x80\x04}K\x01s.",
        b"\x80\x04\x94.",
        b"\x80\x04(((.",
        b"\x80\x04}}.",
        b"\x80\x04}..",
        b"\x80\x04cnumpy\n",
        b"\x80\x04c" + b"n" * 100_000 + b"\n\n.",
        b"\x80\x04c\xff\n\xff\n.",
        b"",
        b".",
        b"\x80",
    ],
    ids=lambda pickled: repr(pickled[:24]),
)
def test_claims_of_more_than_there_is_are_refused(pickled):
    refusal(message(pickled))


# A tuple of itself twice, and again: 2**999 items to whoever walks it.
BOMB = b")" + b"\x94h\x00\x86" + b"r\x01\0\0\0j\x01\0\0\0\x86" * 999
DEEP = b")" + b"\x85" * 5_000


@pytest.mark.parametrize("bomb", [BOMB, DEEP], ids=["doubled", "deep"])
def test_bombs_of_tuples_are_refused_wherever_they_are(bomb):
    dtype = b"\x8c\x05numpy\x8c\x05dtype\x93"
    scalar = b"\x8c\x16numpy._core.multiarray\x8c\x06scalar\x93"
    for pickled in (
        bomb + b".",
        EMPTY + bomb + b"\x86.",
        bomb + ARRAY + b"\x86.",
        EMPTY + b"\x8c\x01A" + bomb + b"s" + ARRAY + b"\x86.",
        EMPTY + bomb + b"K\x01s" + ARRAY + b"\x86.",
        bomb + bomb + b"\x93.",
        bomb + bomb + b"R.",
        bomb + bomb + b"b.",
        EMPTY + bomb + b"b.",
        dtype + bomb + b"\x89\x88\x87R.",
        dtype + b"\x8c\x02u2" + bomb + b"\x88\x87R.",
        dtype + bomb + b"R.",
        dtype + b"\x8c\x02u2\x89\x88\x87R" + bomb + b"b.",
        dtype + b"\x8c\x02u2\x89\x88\x87R(K\x03" + bomb + b"NNNK\x00K\x00K\x00tb.",
        scalar + bomb + b"R.",
        scalar + dtype + b"\x8c\x02u2\x89\x88\x87R" + bomb + b"\x86R.",
        EMPTY + ARRAY + bomb + b"b\x86.",
        EMPTY + ARRAY + b"(K\x01" + bomb + b"h\x09\x89C\x00tb\x86.",
    ):
        refusal(message(b"\x80\x04", pickled))


def test_a_dict_in_itself_is_refused():
    refusal(message(b"\x80\x04}\x94\x8c\x01Ah\x00s", ARRAY, b"\x86."))
    refusal(message(b"\x80\x04}\x94h\x00h\x00s", ARRAY, b"\x86."))


def test_a_pickle_of_too_many_steps_is_refused():
    assert "steps" in refusal(message(b"\x80\x04}", b"\x94" * MAX_STEPS, ARRAY, b"\x86."))


def pickled_array(
    *,
    shape: tuple[Any, ...] = (3, 4),
    dtype: tuple[Any, ...] = ("u2", False, True),
    dtype_state: tuple[Any, ...] = (3, "<", None, None, None, -1, -1, 0),
    pixels: Any = bytes(24),
    fortran: Any = False,
    reconstruct: tuple[bytes, ...] = (b"cnumpy\nndarray\n", b"K\x00\x85", b"C\x01b"),
) -> bytes:
    """A message with an array that is put together from such parts."""

    def steps(part: Any) -> bytes:
        return pickle.dumps(part, 3)[2:-1]

    return message(
        b"\x80\x04}cnumpy._core.multiarray\n_reconstruct\n(",
        *reconstruct,
        b"tR(K\x01",
        *(steps(shape), b"cnumpy\ndtype\n", steps(dtype), b"R", steps(dtype_state), b"b"),
        *(steps(fortran), steps(pixels), b"tb\x86."),
    )


@pytest.mark.parametrize("flags", [(False, True), (0, 1)])  # of later and of earlier NumPy
def test_an_array_put_together_rightly_is_read(flags):
    assert decode_pymilk(pickled_array(dtype=("u2", *flags)))[1].shape == (3, 4)


@pytest.mark.parametrize(
    "parts",
    [
        *(
            {"shape": shape}
            for shape in ((), (0,), (0, 12), (-1,), (-3, -4), (12, -1), (1,) * 4)
        ),
        *(
            {"shape": shape}
            for shape in ((3, 5), (2, 4), (12.0,), (True, 12), (None,), ("12",))
        ),
        *({"shape": shape} for shape in ((2**32, 2**32), (2**62, 4), (2**70,), ((3,), 4))),
        *({"shape": shape} for shape in ((100_000, 500_000), (50 * 10**9,), [3, 4], 12)),
        *({"pixels": pixels} for pixels in (b"", bytes(23), bytes(25), "x" * 24, None, 5)),
        *({"fortran": fortran} for fortran in (0, 1, None, "C")),
        *({"dtype": (name, False, True)} for name in ("O", "O8", "U6", "S2", "V2", "u3", "M8")),
        *({"dtype": (name, False, True)} for name in ("b1", ">u2", "u2,u2", "uint16", "", "u")),
        *({"dtype": (name, False, True)} for name in (None, 5, b"u2", ("u2",), 1.5)),
        *(
            {"dtype": dtype}
            for dtype in ((), ("u2",), ("u2", True, True), ("u2", False, False))
        ),
        *({"dtype": ("u2", *flags)} for flags in ((None, True), (False, "T"), (2, 1), ((), 1))),
        {"dtype_state": (3, "<", None, ("a",), {"a": 1}, 2, 1, 0)},
        {"dtype_state": (3, "|", ("u2", (2,)), None, None, -1, -1, 0)},
        {"dtype_state": (3, "<", None, None, None, -1, -1, 63)},
        {"dtype_state": (3, "<", None, None, None, 16, 1, 0)},
        {"dtype_state": (4, "<", None, None, None, -1, -1, 0, {})},
        {"dtype_state": (3, "?", None, None, None, -1, -1, 0)},
        {"dtype_state": (3, "<<", None, None, None, -1, -1, 0)},
        {"dtype_state": (3, None, None, None, None, -1, -1, 0)},
        {"dtype_state": (3, "<")},
        {"dtype_state": ()},
        {"reconstruct": ()},
        {"reconstruct": (b"cnumpy\ndtype\n", b"K\x00\x85", b"C\x01b")},
        {"reconstruct": (b"cnumpy\nndarray\n", b"K\x09\x85", b"C\x01b")},
        {"reconstruct": (b"cnumpy\nndarray\n", b"K\x00", b"C\x01b")},
        {"reconstruct": (b"cnumpy\nndarray\n", b"K\x00\x85", b"C\x01O")},
        {"reconstruct": (b"cnumpy\nndarray\n", b"K\x00\x85", b"K\x01")},
    ],
    ids=repr,
)
def test_an_array_put_together_otherwise_is_refused(parts):
    refusal(pickled_array(**parts))


def test_an_array_without_pixels_is_refused():
    start = (
        b"\x80\x04}cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    )
    assert "without pixels" in refusal(message(start, b"\x86."))


U2 = b"cnumpy\ndtype\n\x8c\x02u2\x89\x88\x87R"
BUFFER = b"C\x08........"  # with its dtype and shape: four pixels in a row
PIXELS = BUFFER + U2 + b"K\x04\x85"
AXES = PIXELS + b"\x8c\x01K"


@pytest.mark.parametrize(
    "arguments",
    [
        *(b"", b"K\x01", U2 + b"K\x04\x85", PIXELS, PIXELS + b"K\x00", PIXELS + b"\x8c\x01Q"),
        *(b"N" + U2 + b"K\x04\x85\x8c\x01C", BUFFER + b"NK\x04\x85\x8c\x01C"),
        *(BUFFER + U2 + b"K\x05\x85\x8c\x01C", BUFFER + U2 + b"K\x04\x8c\x01C"),
        *(AXES, AXES + b"N", AXES + b"K\x00", AXES + b")", AXES + b"K\x01\x85"),
        *(AXES + b"K\x00K\x00\x86", AXES + b"N\x85", AXES + b"\x89\x85"),
        *(AXES + b"G" + bytes(8) + b"\x85", AXES + b"K\x00\x85K\x00"),
    ],
    ids=repr,
)
def test_an_array_from_a_buffer_put_together_otherwise_is_refused(arguments):
    start = b"\x80\x05}cnumpy._core.numeric\n_frombuffer\n("
    for right in (PIXELS + b"\x8c\x01C", AXES + b"K\x00\x85"):
        assert decode_pymilk(message(start, right, b"tR\x86."))[1].size == 4
    refusal(message(start, arguments, b"tR\x86."))


def test_a_frame_or_a_message_larger_than_allowed_is_refused():
    data = encode_pymilk("vcam1", RAMP)
    decode_pymilk(data, max_bytes=RAMP.nbytes)
    assert "at most 23 are allowed" in refusal(data, max_bytes=RAMP.nbytes - 1)
    assert "at most 1000 are allowed" in refusal(message(bytes(2 << 20)), max_bytes=1000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_message_that_is_cut_off_or_goes_on_is_refused(protocol):
    data = message(pickle.dumps(({"A": 1, "B": "text", "C": np.float32(2)}, RAMP), protocol))
    for size in range(len(data)):
        with pytest.raises(MessageInvalid):
            decode_pymilk(data[:size])
    assert "before its end" in refusal(data + b"\0")


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    refusal(data)
    refusal(message(data))
    refusal(message(b"\x80\x04", data))


@given(st.sampled_from(PROTOCOLS), st.data())
def test_no_damage_to_a_message_does_more_than_change_or_refuse_it(protocol, data):
    keywords = {"A": 1, "B": "text", "C": np.float32(2)}
    sent = bytearray(message(pickle.dumps((keywords, RAMP), protocol)))
    for _ in range(data.draw(st.integers(1, 5))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, frame, _ = decode_pymilk(bytes(sent))
    except MessageInvalid as refused:
        assert str(refused).isascii() and str(refused).isprintable()
    else:
        assert frame.nbytes <= len(sent)
