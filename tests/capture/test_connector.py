"""The proc connector's wire format on invented bytes, and its sockets on real ones."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture import connector
from prochist.capture.connector import (
    BODY,
    COMM,
    COREDUMP,
    EXEC,
    EXIT,
    FORK,
    MESSAGE_SIZE,
    NONE,
    SHORTEST_MESSAGE,
    Message,
    SlotReceiver,
    decode_comm,
    decode_messages,
    encode_listen,
    encode_message,
    fit_message,
    missing_namespaces,
    open_subscription,
    read_drops,
    read_queued,
    set_receive_buffer,
)
from prochist.clock import MonotonicNs

NETLINK_USERSOCK = 2
U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
MESSAGES = st.builds(Message, U32, U32, U32, U32, U64.map(MonotonicNs), *[U32] * 6)


def encode_again(message: Message) -> bytes:
    return encode_message(
        message.what,
        message[5:],
        cpu=message.cpu,
        seq=message.seq,
        timestamp_ns=message.timestamp_ns,
        ack=message.ack,
    )


# --- bytes ------------------------------------------------------------------------


def test_an_event_has_the_layout_of_cn_proc_h() -> None:
    # struct nlmsghdr, cn_msg and proc_event, written out by hand: no padding before the timestamp.
    wire = struct.pack(
        "=IHHII IIIIHH IIQ IIiiII",
        *(76, 3, 0, 0, 0),
        *(1, 1, 77, 5, 40, 0),
        *(EXIT, 3, 123_456_789_012_345, 41, 40, 0x8B, 17, 1, 1),
    )
    assert list(decode_messages(wire)) == [
        Message(77, 5, EXIT, 3, MonotonicNs(123_456_789_012_345), 41, 40, 0x8B, 17, 1, 1)
    ]


@given(st.lists(MESSAGES, max_size=5))
def test_messages_survive_encoding_and_decoding(messages: list[Message]) -> None:
    run = b"".join(map(encode_again, messages))
    assert len(run) == MESSAGE_SIZE * len(messages)
    assert list(decode_messages(run)) == messages


@given(MESSAGES)
def test_an_encoded_message_fits_as_it_is(message: Message) -> None:
    wire = encode_again(message)
    assert fit_message(wire) == wire


@pytest.mark.parametrize("length", [1, 75, 77, 151])
def test_a_run_that_is_not_whole_messages_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes"):
        decode_messages(bytes(length))


def test_a_negative_exit_signal_survives() -> None:
    (message,) = decode_messages(encode_message(EXIT, (10, 10, 0, -1, 0, 0)))
    assert message.word3 == 0xFFFFFFFF


def test_every_kind_of_event_names_its_words_within_the_body() -> None:
    assert all(len(words) <= 6 for words in BODY.values())
    assert set(BODY) == {0, 1, 2, 4, 0x40, 0x80, 0x100, 0x200, 0x40000000, 0x80000000}


@pytest.mark.parametrize(
    ("raw", "comm"),
    [
        (b"bash", b"bash"),
        (b"", b""),
        (b"fifteen_letters", b"fifteen_letters"),
        (b"a) (b\n\xff", b"a) (b\n\xff"),
        (b"short\0stale bytes", b"short"),
        (b"no end here 1234", b"no end here 1234"),
    ],
)
def test_comm_ends_at_its_first_nul(raw: bytes, comm: bytes) -> None:
    words = struct.unpack("=4I", raw.ljust(16, b"\0")[:16])
    (message,) = decode_messages(encode_message(COMM, (7, 7, *words)))
    assert decode_comm(message) == comm


def test_a_body_of_16_bytes_is_filled_with_zeros() -> None:
    wire = encode_message(FORK, (1, 2, 3, 4, 5, 6), seq=9)[:SHORTEST_MESSAGE]
    fitted = fit_message(wire)
    assert fitted is not None
    assert len(fitted) == MESSAGE_SIZE
    (message,) = decode_messages(fitted)
    assert message[5:] == (1, 2, 3, 4, 0, 0)
    assert message.seq == 9


def test_what_a_later_kernel_adds_behind_the_body_is_cut_off() -> None:
    wire = encode_message(FORK, (1, 2, 3, 4))
    later = struct.pack("=I", MESSAGE_SIZE + 8) + wire[4:] + b"addition"
    assert fit_message(later) == wire


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 67), (4, 2), (16, 2), (20, 2), (32, 31)],
    ids=["nlmsg_len", "nlmsg_type", "idx", "val", "len"],
)
def test_what_is_not_of_the_connector_is_no_event(offset: int, value: int) -> None:
    wire = bytearray(encode_message(FORK, (1, 1, 2, 2)))
    struct.pack_into("=H", wire, offset, value)
    assert fit_message(bytes(wire)) is None


@pytest.mark.parametrize("length", range(SHORTEST_MESSAGE))
def test_a_datagram_cut_before_its_body_is_no_event(length: int) -> None:
    assert fit_message(encode_message(FORK, (1, 1, 2, 2))[:length]) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_of_the_right_size_or_none(datagram: bytes) -> None:
    fitted = fit_message(datagram)
    assert fitted is None or len(fitted) == MESSAGE_SIZE


def test_the_request_has_the_four_byte_form() -> None:
    # The 8-byte form is ignored by Linux before 6.6.
    request = encode_listen(0x1234)
    assert request == struct.pack("=IHHII IIIIHH I", 40, 3, 0, 0, 0, 1, 1, 0, 0x1234, 4, 0, 1)


# --- sockets ----------------------------------------------------------------------


class Pair(NamedTuple):
    kernel: socket.socket
    ours: socket.socket


@pytest.fixture
def pair() -> Iterator[Pair]:
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with kernel, ours:
        yield Pair(kernel, ours)


def receiver_on(sock: socket.socket, slots: int) -> tuple[SlotReceiver, memoryview]:
    memory = memoryview(bytearray(slots * MESSAGE_SIZE))
    return SlotReceiver(sock.fileno(), memory, MESSAGE_SIZE), memory


def test_nothing_to_receive_is_zero_and_does_not_block(pair: Pair) -> None:
    receiver, _ = receiver_on(pair.ours, 4)
    assert receiver.receive() == 0


def test_datagrams_are_received_in_order_many_at_a_time(pair: Pair) -> None:
    receiver, memory = receiver_on(pair.ours, 4)
    sent = [encode_message(FORK, (1, 1, pid, pid), seq=pid) for pid in range(6)]
    for datagram in sent:
        pair.kernel.send(datagram)
    assert receiver.receive() == 4
    assert bytes(memory) == b"".join(sent[:4])
    assert receiver.lengths(4) == [MESSAGE_SIZE] * 4
    assert receiver.senders(4) == [0] * 4
    assert receiver.receive() == 2
    assert bytes(memory[: 2 * MESSAGE_SIZE]) == b"".join(sent[4:])
    assert receiver.receive() == 0


def test_the_length_of_a_long_datagram_is_the_true_one(pair: Pair) -> None:
    receiver, memory = receiver_on(pair.ours, 2)
    pair.kernel.send(b"x" * 500)
    pair.kernel.send(b"y" * 10)
    assert receiver.receive() == 2
    assert receiver.lengths(2) == [500, 10]
    assert bytes(memory[MESSAGE_SIZE : MESSAGE_SIZE + 10]) == b"y" * 10


def test_the_sender_of_a_datagram_from_another_program_is_its_port() -> None:
    # Netlink between two programs: what cn_proc's group would carry if somebody sent to us.
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_USERSOCK) as ours,
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_USERSOCK) as other,
    ):
        ours.bind((0, 0))
        other.bind((0, 0))
        receiver, _ = receiver_on(ours, 2)
        other.sendto(encode_message(FORK, (1, 1, 2, 2)), ours.getsockname())
        assert receiver.receive() == 1
        assert receiver.senders(1) == [other.getsockname()[0]]
        assert receiver.senders(1) != [0]


def test_a_closed_socket_is_an_error_and_not_silence() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        receiver = SlotReceiver(reading, memoryview(bytearray(MESSAGE_SIZE)), MESSAGE_SIZE)
        with pytest.raises(OSError, match="socket"):
            receiver.receive()
    finally:
        os.close(reading)


def test_what_does_not_fit_into_the_socket_is_counted_to_the_unit() -> None:
    # Datagrams over the loopback: the same counter as the connector's, and senders never wait.
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours.bind(("127.0.0.1", 0))
        other.connect(ours.getsockname())
        assert read_drops(ours) == 0
        for _ in range(200):
            other.send(bytes(MESSAGE_SIZE))
        assert read_queued(ours) > MESSAGE_SIZE
        receiver, _ = receiver_on(ours, 256)
        received = receiver.receive()
        assert 0 < received < 200
        assert read_drops(ours) == 200 - received
        assert not read_queued(ours)


def test_a_receive_buffer_that_is_granted_is_said_to_be() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_USERSOCK) as sock:
        assert set_receive_buffer(sock, 64 * 1024)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 64 * 1024


def test_a_receive_buffer_beyond_what_the_kernel_can_count_is_bounded() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_USERSOCK) as sock:
        set_receive_buffer(sock, 1 << 40)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 0


def test_a_container_is_told_which_namespaces_it_lacks(tmp_path: Path) -> None:
    spaces = tmp_path / "self" / "ns"
    spaces.mkdir(parents=True)
    (spaces / "pid").symlink_to("pid:[4026532201]")
    (spaces / "user").symlink_to("user:[4026531837]")
    assert missing_namespaces(str(tmp_path)) == ["pid"]


def test_without_a_proc_nothing_is_claimed_of_namespaces() -> None:
    assert missing_namespaces("/nonexistent") == []


@pytest.mark.kernel
def test_the_kernel_acknowledges_and_its_events_are_decoded() -> None:
    subscription = open_subscription(1 << 20)
    with subscription.socket as sock:
        acknowledged = list(decode_messages(subscription.received))
        assert acknowledged[-1].what == NONE
        assert acknowledged[-1].word0 == 0
        assert subscription.receive_buffer_bytes == 2 << 20
        assert subscription.forced
        with subprocess.Popen(["/bin/true"]) as started:
            child = started.pid
        receiver, memory = receiver_on(sock, 512)
        mine: list[Message] = []
        while count := receiver.receive():
            assert receiver.lengths(count) == [MESSAGE_SIZE] * count
            assert receiver.senders(count) == [0] * count
            mine += [
                message
                for message in decode_messages(memory[: count * MESSAGE_SIZE])
                if child in (message.word1, message.word3)
            ]
        whats = [message.what for message in mine if message.what != COREDUMP]
        assert [what for what in whats if what in (FORK, EXEC, EXIT)] == [FORK, EXEC, EXIT]
        assert read_drops(sock) == 0


@pytest.mark.kernel
def test_a_kernel_that_does_not_answer_is_reported_with_the_likely_cause() -> None:
    with pytest.raises(connector.NotListeningError) as raised:
        open_subscription(1 << 20, timeout_s=0.0)
    assert "did not acknowledge" in raised.value.message
    assert raised.value.hint
