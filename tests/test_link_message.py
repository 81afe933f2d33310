"""Messages of the slow link: what is sent arrives, what is no message is refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from refused_messages import refusal_of

from vampires.keywords import Keyword
from vampires.link_message import (
    MAX_HEADER_BYTES,
    MAX_KEYWORDS,
    Codec,
    FrameMessage,
    MessageInvalid,
    decode,
    encode,
    is_native,
    read_message,
    topic,
)
from vampires.simulated_sky import STREAM_DTYPES, sky_pool

GOLDEN = Path(__file__).parent / "data" / "zmq"
BLOSC2 = [codec for codec in Codec if codec is not Codec.NONE]

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
names = st.text("abzAZ09_-+.", min_size=1, max_size=79).filter(lambda name: name[0] != ".")
counts = st.integers(0, 2**63 - 1)
keywords = st.builds(
    Keyword,
    st.text(PRINTABLE, min_size=1, max_size=15),
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.text(PRINTABLE, max_size=15),
    st.text(PRINTABLE, max_size=79),
)
shapes = arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=12)
frames = st.sampled_from(STREAM_DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shapes))
messages = st.builds(
    FrameMessage,
    names,
    frames,
    st.integers(-1, 2**63 - 1),
    counts,
    counts,
    counts,
    st.integers(0, 2**64 - 1),
    counts,
    st.lists(keywords, max_size=9).map(tuple),
)

# Stands for lists within lists, deeper than Python could print or msgpack would pack.
DEEP = "@deep"
DEEP_BYTES = b"\x91" * 1000 + b"\x90"

RAMP = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30)


def facts(message: FrameMessage) -> dict[str, Any]:
    """All but the frame."""
    return {name: value for name, value in vars(message).items() if name != "frame"}


def parts(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a message."""
    start = message.index(b"VDL1") + 4
    (size,) = struct.unpack_from("<I", message, start)
    return msgpack.unpackb(message[start + 4 : start + 4 + size]), message[start + 4 + size :]


def put_together(header: Any, payload: bytes = b"", size: int | None = None) -> bytes:
    """A message with any header: of msgpack, or as it is when it is bytes."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    packed = packed.replace(msgpack.packb(DEEP), DEEP_BYTES)
    size = len(packed) if size is None else size
    return b"vcam1 VDL1" + struct.pack("<I", size) + packed + payload


def changed(codec: Codec = Codec.NONE, /, **fields: Any) -> bytes:
    """A message of RAMP with other fields in its header."""
    header, payload = parts(encode(FrameMessage("vcam1", RAMP), codec))
    return put_together(header | fields, payload)


def refusal(data: bytes, **options: Any) -> str:
    """Why a message is refused."""
    return refusal_of(read_message, data, most_bytes=64 << 20, **options)


# -- there and back ---------------------------------------------------------------------------


@pytest.mark.parametrize("codec", Codec)
@given(message=messages)
@example(message=FrameMessage("v", np.zeros((50, 40), np.float32)))
@example(message=FrameMessage("v", np.full((50, 40), np.nan)))
def test_what_is_sent_arrives(codec, message):
    received = decode(encode(message, codec))
    assert facts(received) == facts(message)
    types = [type(keyword.value) for keyword in message.keywords]
    assert [type(keyword.value) for keyword in received.keywords] == types
    assert received.frame.dtype == message.frame.dtype
    assert received.frame.shape == message.frame.shape
    assert received.frame.tobytes() == message.frame.tobytes()
    assert received.frame.flags.writeable and received.frame.flags.owndata


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("dtype", STREAM_DTYPES, ids=str)
def test_frames_of_any_order_arrive_native(codec, dtype):
    frame = np.arange(6000).reshape(60, 100).astype(dtype.newbyteorder(">"))
    for view in (frame, frame.T, frame[::-1, ::3], np.asfortranarray(frame)):
        received = decode(encode(FrameMessage("vcam1", view), codec)).frame
        assert received.dtype == dtype and received.flags.c_contiguous
        assert np.array_equal(received, view)


@pytest.mark.parametrize("codec", Codec)
def test_golden_messages_arrive_as_their_json_says(codec):
    expected = json.loads((GOLDEN / "native.json").read_text())
    data = (GOLDEN / f"native_{codec.value}.bin").read_bytes()
    message = decode(data)
    for name in ("stream", "cnt0", "acquired_ns", "sent_ns", "sequence", "sender", "throttled"):
        assert getattr(message, name) == expected[name]
    assert message.keywords == tuple(Keyword(*entry) for entry in expected["keywords"])
    pixels = np.arange(24 * 40) // 7 * 3 + 100
    assert message.frame.dtype == expected["dtype"]
    assert np.array_equal(message.frame, pixels.reshape(expected["shape"]))
    if codec is Codec.NONE:
        assert encode(message, codec) == data
    assert parts(encode(message, codec))[0] == parts(data)[0]


@pytest.mark.parametrize("codec", BLOSC2)
def test_a_frame_that_does_not_shrink_is_sent_plain(codec):
    noise = np.random.default_rng(1).integers(0, 2**16, (50, 60), np.uint16)
    header, payload = parts(encode(FrameMessage("vcam1", noise), codec))
    assert header["codec"] == "none" and payload == noise.tobytes()
    header, payload = parts(encode(FrameMessage("vcam1", noise // 256), codec))
    assert header["codec"] == codec.value and len(payload) < noise.nbytes


@pytest.mark.parametrize("codec", BLOSC2)
@pytest.mark.parametrize("camera", [1, 2])
def test_a_camera_in_multiband_imaging_at_20_frames_a_second_stays_below_500_mbit_a_second(
    codec, camera
):
    (frame,) = sky_pool("MBI", camera, frames=1)
    message = encode(FrameMessage(f"vcam{camera}", frame), codec)
    assert len(message) * 8 * 20 < 500e6
    assert np.array_equal(decode(message).frame, frame)


def test_both_cameras_stay_below_500_mbit_a_second_by_default():
    (frame,) = sky_pool("MBI", 1, frames=1)
    assert 2 * len(encode(FrameMessage("vcam1", frame))) * 8 * 20 < 500e6


def test_a_subscription_to_a_stream_is_none_to_one_whose_name_goes_on():
    data = encode(FrameMessage("vcam10", RAMP))
    assert data.startswith(topic("vcam10"))
    assert not data.startswith(topic("vcam1"))


def test_texts_are_cut_to_what_a_stream_can_be_given():
    given = (
        Keyword("SIXTEEN_CHARS_AB", "sixteen chars ab", "c" * 80),
        Keyword("Ä", "ñ\n", "ß"),
    )
    received = decode(encode(FrameMessage("vcam1", RAMP, keywords=given))).keywords
    assert received[0] == Keyword("SIXTEEN_CHARS_A", "sixteen chars a", "c" * 79)
    assert received[1] == Keyword("?", "??", "?")


def test_as_many_keywords_as_allowed_arrive_and_one_more_is_refused():
    longest = Keyword("N" * 15, "v" * 15, "c" * 79)
    message = FrameMessage("vcam1", RAMP, keywords=(longest,) * MAX_KEYWORDS)
    assert decode(encode(message)).keywords == message.keywords
    one_more = FrameMessage("vcam1", RAMP, keywords=(longest,) * (MAX_KEYWORDS + 1))
    with pytest.raises(MessageInvalid, match="4097 keywords"):
        encode(one_more)


def test_fields_of_a_later_version_are_left_out():
    assert decode(changed(exposure=[1, {"a": 2.5}])).cnt0 == -1


def test_blosc2_is_loaded_when_the_first_chunk_needs_it():
    source = (
        "import sys, numpy, vampires.link_message as m;"
        "m.decode(m.encode(m.FrameMessage('v', numpy.ones(9)), m.Codec.NONE));"
        "assert 'blosc2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (FrameMessage("", RAMP), "cannot be a stream's name"),
        (FrameMessage("../vcam1", RAMP), "cannot be a stream's name"),
        (FrameMessage("vcam 1", RAMP), "cannot be a stream's name"),
        (FrameMessage("vcäm", RAMP), "cannot be a stream's name"),
        (FrameMessage("v" * 80, RAMP), "cannot be a stream's name"),
        (FrameMessage("v", np.array(["text"])), "no stream has such pixels"),
        (FrameMessage("v", np.array([None])), "no stream has such pixels"),
        (FrameMessage("v", np.array([True])), "no stream has such pixels"),
        (FrameMessage("v", np.zeros(3, "i4, f8")), "no stream has such pixels"),
        (FrameMessage("v", np.zeros(3, "M8[ns]")), "no stream has such pixels"),
        (FrameMessage("v", np.array(1.5)), "one to 3 sizes"),
        (FrameMessage("v", np.zeros((2, 0))), "one to 3 sizes"),
        (FrameMessage("v", np.zeros((1, 1, 1, 1))), "one to 3 sizes"),
        (FrameMessage("v", RAMP, cnt0=2**63), "cnt0 is 9223372036854775808"),
        (FrameMessage("v", RAMP, sender=2**64), "sender is"),
        (FrameMessage("v", RAMP, sequence=-1), "sequence is -1"),
        (FrameMessage("v", RAMP, keywords=(Keyword("", 1),)), "a keyword named ''"),
        (FrameMessage("v", RAMP, keywords=(Keyword("A", 2**63),)), "keyword A"),
        (FrameMessage("v", RAMP, keywords=(Keyword("A", None),)), "keyword A"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is(message, reason):
    with pytest.raises(MessageInvalid, match=reason):
        encode(message)


# -- what is no message -----------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_garbage_is_refused(data):
    refusal(data)
    refusal(b"vcam1 " + data)
    refusal(b"vcam1 VDL1" + data)


@pytest.mark.parametrize("codec", Codec)
def test_a_message_that_is_cut_off_or_goes_on_is_refused(codec):
    data = (GOLDEN / f"native_{codec.value}.bin").read_bytes()
    for size in range(len(data)):
        with pytest.raises(MessageInvalid):
            decode(data[:size])
    refusal(data + b"\0")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../etc/x",
        "a/b",
        ".hidden",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "é",
        "v" * 80,
        "v" * 9999,
    ],
)
def test_a_name_that_no_stream_can_have_is_refused(name):
    _, native, rest = changed().partition(b" ")
    assert "name" in refusal(name.encode() + native + rest)


def test_a_header_larger_than_allowed_is_refused_by_its_size_alone():
    for size in (MAX_HEADER_BYTES + 1, 2**31, 2**32 - 1):
        assert "bytes at most" in refusal(put_together(b"\x80", size=size))
    assert "2 bytes are there" in refusal(put_together(b"\x80\0", size=MAX_HEADER_BYTES))


@pytest.mark.parametrize(
    "header",
    [
        *(b"\x91" * depth + b"\x90" for depth in (9, 500, 1023, 1024, 400_000)),
        *(b"\x81\xa1a" * depth + b"\x90" for depth in (9, 500, 1023, 1024, 170_000)),
        *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"),  # claims: array, map,
        *(b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),  # text, bytes,
        *(b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff\0\0\0\0"),  # extension, time
        b"\xdc\x10\x00" * 1000,
        b"\xdc\x00\x80" + (b"\xdc\x0f\xf0" + b"\x80" * 4080) * 128,
        b"\xde\x00\x41",  # 65 fields
        b"\x81\xa1a\xa1\xff",  # no UTF-8
        b"\x82\x90\x01\x91\x90\x02",  # keys that are no text
        b"\x81\x01\x02",
        b"\xc1",
        b"",
        b"\xc0",
        b"\x80\x80",
    ],
    ids=lambda header: f"{len(header)} bytes {header[:6].hex()}",
)
def test_bombs_in_place_of_a_header_are_refused(header):
    refusal(put_together(header))


NO_COUNTS = (None, True, 1.0, float("nan"), -2, 2**64 - 1, "5", [5], {}, DEEP)


@pytest.mark.parametrize("field", ["cnt0", "acquired_ns", "sent_ns", "sequence", "throttled"])
def test_a_number_that_is_none_is_refused(field):
    for value in NO_COUNTS:
        assert f"{field} is" in refusal(changed(**{field: value}))
    header, payload = parts(changed())
    del header[field]
    assert f"{field} is None" in refusal(put_together(header, payload))


@pytest.mark.parametrize(
    "dtype",
    [
        *("object", "O", "O8", "|O", "str", "U5", "<U5", "S9", "V8", "void", "bool", "M8[ns]"),
        *("i4,f8", "(2,2)u2", "{'names':['a'],'formats':['O']}", "uint16 ", "u2", ">u2", "<f4"),
        *("float128", "longdouble", "int", "é", "", None, 3, ["uint16"], {"a": "u2"}, DEEP),
    ],
    ids=lambda dtype: repr(dtype)[:20],
)
def test_pixels_that_no_stream_has_are_refused(dtype):
    assert "no stream has such pixels" in refusal(changed(dtype=dtype))


@pytest.mark.parametrize(
    "shape",
    [
        *([], [0], [0, 5], [40, 0], [-1], [-40, -30], [40, -30], [1, 1, 40, 30], [40, 31]),
        *([1200.0], [40, 30.0], [True, 1200], [None], "1200", 1200, None, {"a": 1}, [[40], 30]),
        *([2**32, 2**32], [2**63, 2], [2**62, 4, 2**62], [2**64 - 1] * 3, [1] * 4096, DEEP),
        *([100_000, 500_000], [50_000_000_000]),  # 100 GB
    ],
    ids=lambda shape: repr(shape)[:20],
)
@pytest.mark.parametrize("codec", Codec)
def test_a_shape_that_is_not_that_of_the_frame_is_refused(codec, shape):
    refusal(changed(codec, shape=shape))


@pytest.mark.parametrize("shape", [[0], [0, 5], [5, 0]])
def test_a_frame_without_pixels_is_refused(shape):
    header, _ = parts(changed(shape=shape))
    assert "at least 1" in refusal(put_together(header))


@pytest.mark.parametrize("codec", Codec)
def test_a_frame_larger_than_the_receiver_allows_is_refused(codec):
    data = changed(codec)
    decode(data, max_bytes=RAMP.nbytes)
    assert "at most 2399 are" in refusal(data, max_bytes=RAMP.nbytes - 1)


@pytest.mark.parametrize("codec", ["zstd", "NONE", "blosc2", "", None, 0, 1, [], {}, DEEP])
def test_a_codec_that_is_none_is_refused(codec):
    assert "expected one of none, blosc2-zstd" in refusal(changed(codec=codec))


@pytest.mark.parametrize("codec", BLOSC2)
@pytest.mark.parametrize("other", Codec)
def test_a_payload_of_another_codec_than_the_header_says_is_refused(codec, other):
    if other is not codec:
        refusal(changed(codec, codec=other.value))


@pytest.mark.parametrize("codec", BLOSC2)
@pytest.mark.parametrize("offset", [*range(8), *range(12, 32)])
def test_a_chunk_of_another_kind_never_reaches_blosc2(codec, offset, monkeypatch):
    header, payload = parts(changed(codec))
    monkeypatch.setattr("vampires.link_pixels._blosc2", lambda: pytest.fail("reached Blosc2"))
    for value in range(256):
        chunk = bytearray(payload)
        chunk[offset] = value
        allowed = {2: 0x10, 31: 0x10}.get(offset, 0)  # both ways are ours
        if (value ^ payload[offset]) & ~allowed:
            with pytest.raises(MessageInvalid):
                decode(put_together(header, bytes(chunk)))


@pytest.mark.parametrize("codec", BLOSC2)
@pytest.mark.parametrize("block", [0, -1, 1, 2401, 2**31 - 1, -(2**31)])
def test_a_chunk_in_impossible_blocks_is_refused(codec, block):
    header, payload = parts(changed(codec))
    refusal(put_together(header, payload[:8] + struct.pack("<i", block) + payload[12:]))


@pytest.mark.parametrize("codec", BLOSC2)
def test_a_chunk_of_a_few_bytes_that_claims_gigabytes_is_refused(codec):
    _, payload = parts(changed(codec))
    header, _ = parts(changed(codec, shape=[2**30 - 1]))
    claims = payload[:4] + struct.pack("<i", 2**31 - 2) + payload[8:]
    assert "are allowed" in refusal(put_together(header, claims))
    # What it claims may be allowed; there is still nothing in it.
    header, _ = parts(changed(codec, shape=[2**24]))
    claims = payload[:4] + struct.pack("<i", 2**25) + payload[8:]
    refusal(put_together(header, claims))


@pytest.mark.parametrize("codec", BLOSC2)
@given(at=st.integers(32, 400), data=st.binary(min_size=1, max_size=40))
def test_damage_within_a_chunk_is_refused_or_changes_pixels_alone(codec, at, data):
    header, payload = parts(changed(codec))
    damaged = (payload[:at] + data + payload[at + len(data) :])[: len(payload)]
    try:
        frame = decode(put_together(header, damaged)).frame
    except MessageInvalid:
        return
    assert frame.shape == RAMP.shape


@pytest.mark.parametrize(
    "listed",
    [
        *(None, 5, "A", {"A": 1}, [5], ["ABC"], [[]], [["A"]], [["A", 1]], [["A", 1, "", ""]]),
        *([["", 1, ""]], [[None, 1, ""]], [[5, 1, ""]], [["N" * 16, 1, ""]], [["Ä", 1, ""]]),
        *([["A\n", 1, ""]], [["A", None, ""]], [["A", [1], ""]], [["A", {}, ""]]),
        *([["A", 2**63, ""]], [["A", "v" * 16, ""]]),
        *([["A", "é", ""]], [["A", "\0", ""]], [["A", 1, None]], [["A", 1, 5]]),
        *([["A", 1, "c" * 80]], [["A", 1, "é"]], [["A", 1, "\x1b[31m"]], [["A", 1, DEEP]]),
        *([["A", 1, ""]] * 4097, DEEP),
    ],
    ids=lambda listed: repr(listed)[:30],
)
def test_keywords_that_no_stream_can_hold_are_refused(listed):
    refusal(changed(keywords=listed))


@given(messages, st.data())
def test_no_damage_to_a_message_does_more_than_change_or_refuse_it(message, data):
    sent = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 5))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    try:
        received = read_message(bytes(sent))
    except MessageInvalid as refused:
        assert str(refused).isascii() and str(refused).isprintable()
    else:
        assert received.frame.nbytes <= message.frame.nbytes


# -- either kind ------------------------------------------------------------------------------


def test_messages_of_both_kinds_are_read():
    native = (GOLDEN / "native_none.bin").read_bytes()
    pymilk = (GOLDEN / "pymilk_zmq_send_0.bin").read_bytes()
    assert is_native(native) and not is_native(pymilk)
    assert read_message(memoryview(native)).cnt0 == 41
    message = read_message(memoryview(pymilk))
    assert (message.stream, message.cnt0, message.acquired_ns) == ("zsrc", -1, 0)
    assert Keyword("EXPTIME", 0.25) in message.keywords
