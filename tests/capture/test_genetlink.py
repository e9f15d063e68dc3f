"""Generic netlink's wire format: what is encoded comes back, and garbage is refused in words."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture import genetlink
from prochist.capture.genetlink import Acknowledgement, MessageError, Reply

ATTRIBUTES = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=70)), max_size=5)


@given(ATTRIBUTES, st.integers(16, 0xFFFF), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_reply_comes_back_as_it_was_encoded(
    attributes: list[tuple[int, bytes]], family: int, command: int, seq: int
) -> None:
    datagram = genetlink.encode_reply(family, command, attributes, seq=seq)

    (reply,) = genetlink.decode_messages(datagram)

    assert isinstance(reply, Reply)
    assert (reply.family, reply.command, reply.seq) == (family, command, seq)
    assert [(kind, bytes(payload)) for kind, payload in reply.attributes] == attributes


def test_several_messages_of_one_datagram_are_decoded_in_order() -> None:
    first = genetlink.encode_reply(31, 2, [(1, b"abc")], seq=1)
    second = genetlink.encode_acknowledgement(2, 1)

    messages = genetlink.decode_messages(first + second)

    assert [type(message) for message in messages] == [Reply, Acknowledgement]
    assert messages[1] == Acknowledgement(2, 1)


def test_flags_in_the_type_of_an_attribute_are_not_part_of_it() -> None:
    nested = struct.pack("=HH", 4, 0x8000 | 6)

    assert genetlink.decode_attributes(memoryview(nested))[0].kind == 6


def test_the_number_of_a_family_is_found_in_the_controllers_reply() -> None:
    attributes = [(2, b"TASKSTATS\0"), (1, struct.pack("=H", 31))]
    (reply,) = genetlink.decode_messages(genetlink.encode_reply(16, 1, attributes, seq=1))
    assert isinstance(reply, Reply)

    assert genetlink.decode_family(reply) == 31


def test_a_reply_without_the_number_of_a_family_is_an_error() -> None:
    (reply,) = genetlink.decode_messages(genetlink.encode_reply(16, 1, [(2, b"X\0")], seq=1))
    assert isinstance(reply, Reply)

    with pytest.raises(MessageError, match="number of a family"):
        genetlink.decode_family(reply)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_our_own_error(datagram: bytes) -> None:
    with contextlib.suppress(MessageError):
        genetlink.decode_messages(datagram)


@given(ATTRIBUTES, st.data())
def test_a_cut_message_is_our_own_error(
    attributes: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    datagram = genetlink.encode_reply(31, 2, attributes, seq=1)
    cut = data.draw(st.integers(1, len(datagram) - 1))

    with pytest.raises(MessageError, match="does not fit"):
        genetlink.decode_messages(datagram[:cut])
