"""The observation stream: records become bytes and back; damage is an error, never an accident."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.connector import EXEC, FORK, MESSAGE_SIZE, Message
from prochist.capture.observation import (
    HEADER,
    LONGEST_RECORD,
    Clock,
    Counters,
    Description,
    Fault,
    Host,
    Kind,
    Messages,
    Probed,
    Reason,
    Record,
    Restarted,
    Scanned,
    StreamError,
    Tasks,
    decode_records,
    encode,
    messages_header,
    whole_record,
)
from prochist.clock import ClockReading, EpochNs, MonotonicNs

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
NS = U64.map(MonotonicNs)
BYTES = st.none() | st.binary(max_size=40)
MESSAGE = st.builds(Message, U32, U32, U32, U32, NS, *[U32] * 6)
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(Messages, st.lists(MESSAGE, max_size=4)),
    st.builds(
        Description,
        st.sampled_from(Reason),
        U32,
        NS,
        NS,
        st.integers(0, 15).map(Fault),
        *[BYTES] * 10,
    ),
    st.builds(Clock, st.builds(ClockReading, NS, I64, I64)),
    st.builds(Host, *[st.text(max_size=20)] * 4, U64.map(EpochNs)),
    st.builds(Counters, NS, U32, U32, U64, U64, U64),
    st.builds(Scanned, NS, NS),
    st.builds(Probed, st.binary(max_size=40)),
    st.builds(Tasks, U16, st.binary(max_size=10).map(lambda b: b * 4)),
    st.builds(Restarted, NS),
)


@given(st.lists(RECORDS, max_size=6))
def test_records_survive_encoding_and_decoding(records: list[Record]) -> None:
    assert list(decode_records(b"".join(map(encode, records)))) == records


@given(RECORDS)
def test_every_record_says_its_length_and_is_aligned(record: Record) -> None:
    wire = encode(record)
    assert len(wire) % 4 == 0
    assert whole_record(memoryview(wire), 0) == len(wire)


@given(RECORDS, st.data())
def test_a_record_that_is_not_all_there_is_waited_for(record: Record, data: st.DataObject) -> None:
    wire = encode(record)
    cut = data.draw(st.integers(0, len(wire) - 1))
    assert whole_record(memoryview(wire[:cut]), 0) is None


@given(RECORDS, RECORDS, st.data())
def test_a_cut_stream_gives_what_is_whole_and_says_where_it_ends(
    first: Record, second: Record, data: st.DataObject
) -> None:
    whole, part = encode(first), encode(second)
    cut = data.draw(st.integers(1, len(part) - 1))
    records = decode_records(whole + part[:cut])
    assert next(records) == first
    with pytest.raises(StreamError, match=f"cut in a record at byte {len(whole)}"):
        next(records)


@given(st.binary(max_size=300))
def test_any_bytes_are_records_or_our_error(stream: bytes) -> None:
    with contextlib.suppress(StreamError):
        list(decode_records(stream))


@given(st.sampled_from(Kind), U16, st.binary(max_size=25).map(lambda b: b * 4))
def test_any_body_of_any_kind_is_a_record_or_our_error(kind: Kind, count: int, body: bytes) -> None:
    wire = HEADER.pack(HEADER.size + len(body), kind, count) + body
    with contextlib.suppress(StreamError):
        (record,) = decode_records(wire)
        assert encode(record)


def test_fewer_messages_than_announced_are_damage_and_not_fewer_events() -> None:
    three = messages_header(3) + bytes(3 * MESSAGE_SIZE)
    forged = HEADER.pack(len(three), Kind.MESSAGES, 5) + three[HEADER.size :]
    with pytest.raises(StreamError, match="damaged at byte 0"):
        list(decode_records(forged))


def test_an_unknown_kind_of_record_is_passed_over() -> None:
    later = HEADER.pack(16, 999, 0) + b"whatever"
    mark = Scanned(MonotonicNs(1), MonotonicNs(2))
    assert list(decode_records(later + encode(mark) + later)) == [mark]


@pytest.mark.parametrize("length", [0, 4, 7, 9, 10, LONGEST_RECORD + 4, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_damage(length: int) -> None:
    with pytest.raises(StreamError, match=f"a record of {length} bytes"):
        whole_record(memoryview(HEADER.pack(length, 1, 0) + bytes(64)), 0)


def test_unknown_and_empty_are_different_things() -> None:
    at = MonotonicNs(5)
    empty = Description(Reason.EXEC, 1, at, at, argv=b"", cwd=None)
    (decoded,) = decode_records(encode(empty))
    assert isinstance(decoded, Description)
    assert decoded.argv == b""
    assert decoded.cwd is None


def test_a_description_of_128_kib_of_argv_survives() -> None:
    at = MonotonicNs(5)
    long = Description(Reason.EXEC, 1, at, at, Fault.ARGV_CUT, argv=b"\xff" * 131072, exe=b"/x")
    assert list(decode_records(encode(long))) == [long]


def test_messages_are_kept_as_the_kernel_sent_them() -> None:
    message = Message(1, 2, EXEC, 3, MonotonicNs(4), 5, 5, 0, 0, 0, 0)
    wire = encode(Messages([message, message._replace(what=FORK)]))
    assert wire[:8] == messages_header(2)
    assert struct.unpack_from("=IHHII IIIIHH", wire, 8) == (76, 3, 0, 0, 0, 1, 1, 1, 2, 40, 0)


def test_a_host_name_that_is_not_utf8_becomes_text_that_can_be_stored() -> None:
    body = struct.pack("=Q4H", 0, 1, 3, 1, 1) + b"b" + b"h\xff\xfe" + b"m" + b"k"
    body += bytes(-len(body) % 4)
    (host,) = decode_records(HEADER.pack(HEADER.size + len(body), Kind.HOST, 0) + body)
    assert isinstance(host, Host)
    assert host.host == r"h\xff\xfe"
    host.host.encode()
