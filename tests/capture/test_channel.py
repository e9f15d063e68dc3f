"""The channel: what is put in one end comes out of the other, also after the writer was killed."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prochist.capture.channel import (
    STAGED_MESSAGES,
    ChannelReader,
    ChannelWriter,
    Word,
    create_channel,
)
from prochist.capture.connector import FORK, MESSAGE_SIZE, decode_messages, encode_message

MIB = 1024 * 1024


class Ends(NamedTuple):
    writer: ChannelWriter
    reader: ChannelReader
    wake: int


def open_ends(capacity: int = MIB) -> Ends:
    fd = create_channel(capacity)
    wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    ends = Ends(ChannelWriter(fd, wake), ChannelReader(fd), wake)
    os.close(fd)
    return ends


def close_ends(ends: Ends) -> None:
    ends.writer.close()
    ends.reader.close()
    os.close(ends.wake)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = open_ends()
    yield ends
    close_ends(ends)


def is_woken(ends: Ends) -> bool:
    return bool(select.select([ends.wake], [], [], 0)[0])


def message(seq: int, *, cpu: int = 0, pid: int = 7) -> bytes:
    return encode_message(FORK, (1, 1, pid, pid), seq=seq, cpu=cpu)


def test_the_parts_of_a_record_are_taken_as_one_run(ends: Ends) -> None:
    ends.writer.put(b"one", memoryview(b"two"), b"")
    assert ends.reader.backlog == 6
    assert ends.reader.take(4) == b"onet"
    assert ends.reader.take(100) == b"wo"
    assert ends.reader.take(100) == b""


def test_the_capacity_is_whole_mebibytes_and_at_least_one(ends: Ends) -> None:
    assert ends.writer.capacity == ends.reader.capacity == MIB
    small = open_ends(5)
    assert small.writer.capacity == MIB
    close_ends(small)
    uneven = open_ends(2 * MIB + 5)
    assert uneven.writer.capacity == 2 * MIB
    close_ends(uneven)


def test_a_full_ring_has_no_room_until_something_was_taken(ends: Ends) -> None:
    assert ends.writer.has_room(MIB)
    assert not ends.writer.has_room(MIB + 1)
    ends.writer.put(bytes(MIB - 10))
    assert ends.writer.has_room(10)
    assert not ends.writer.has_room(11)
    ends.reader.take(1)
    assert ends.writer.has_room(11)


def test_what_is_written_into_a_full_ring_is_not_given_back_with_what_was_read(ends: Ends) -> None:
    half = MIB // 2
    for _ in range(5):  # the reader stands in the middle of what it gives back in one step
        ends.writer.put(b"a" * half)
        ends.writer.put(b"b" * half)
        assert ends.reader.take(half) == b"a" * half
        assert ends.writer.has_room(half)
        ends.writer.put(b"c" * half)
        assert ends.reader.take(MIB) == b"b" * half + b"c" * half


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 400_000)), max_size=30))
def test_bytes_come_out_as_they_went_in_over_many_rounds(rounds: list[tuple[int, int]]) -> None:
    ends = open_ends()
    sent = bytearray()
    taken = bytearray()
    for number, (size, bound) in enumerate(rounds):
        part = bytes([number % 251 + 1]) * size
        if ends.writer.has_room(size):
            ends.writer.put(part[: size // 3], part[size // 3 :])
            sent += part
        taken += ends.reader.take(bound)
    while part := ends.reader.take(MIB):
        taken += part
    close_ends(ends)
    assert taken == sent


def test_memory_that_was_read_goes_back_to_the_system(ends: Ends) -> None:
    part = b"x" * 65536
    for _ in range(5 * MIB // 65536):
        ends.writer.put(part)
        assert ends.reader.take(MIB) == part
    blocks = os.fstat(ends.reader.fd).st_blocks * 512
    assert blocks < MIB + 128 * 1024


def test_the_reader_is_woken_once_at_the_backlog_it_asked_for(ends: Ends) -> None:
    ends.writer.put(b"not asked")
    assert not is_woken(ends)
    ends.reader.words[Word.WAKE_AT] = 12
    ends.writer.put(b"1")
    assert not is_woken(ends)
    ends.writer.put(b"23")
    assert is_woken(ends)
    assert ends.reader.words[Word.WAKE_AT] == 0
    os.eventfd_read(ends.wake)
    ends.writer.put(b"more")
    assert not is_woken(ends)


def test_something_else_is_not_taken_for_a_channel() -> None:
    fd = os.memfd_create("other", os.MFD_CLOEXEC)
    os.ftruncate(fd, 2 * MIB)
    try:
        with pytest.raises(ValueError, match="not a channel"):
            ChannelReader(fd)
    finally:
        os.close(fd)


# --- salvage ------------------------------------------------------------------------


def stage(ends: Ends, *slots: bytes) -> None:
    for index, slot in enumerate(slots):
        ends.writer.staging[index * MESSAGE_SIZE : index * MESSAGE_SIZE + len(slot)] = slot


def salvaged(ends: Ends, newest: dict[int, int]) -> list[tuple[int, int]]:
    return [(m.cpu, m.seq) for m in decode_messages(ends.reader.salvage(newest))]


def test_a_fresh_staging_area_holds_nothing(ends: Ends) -> None:
    assert ends.reader.salvage({}) == b""


def test_only_what_is_newer_than_the_ring_is_salvaged(ends: Ends) -> None:
    stage(ends, message(5), message(6), message(9, cpu=1), message(3), message(7, cpu=2))
    assert salvaged(ends, {0: 5, 1: 9}) == [(0, 6), (2, 7)]


def test_stale_slots_behind_the_newest_are_not_salvaged(ends: Ends) -> None:
    # The last round filled two slots; behind them lie those of an earlier, fuller one.
    stage(ends, message(11), message(12), message(3), message(4))
    assert salvaged(ends, {}) == [(0, 11), (0, 12)]


def test_sequence_numbers_are_compared_across_their_wrap(ends: Ends) -> None:
    stage(ends, message(0xFFFFFFFF), message(0), message(1), message(0xFFFFFFFE))
    assert salvaged(ends, {0: 0xFFFFFFFE}) == [(0, 0xFFFFFFFF), (0, 0), (0, 1)]


def test_damaged_slots_are_not_salvaged(ends: Ends) -> None:
    stage(ends, b"\xff" * MESSAGE_SIZE, message(2), b"short")
    assert salvaged(ends, {0: 1}) == [(0, 2)]


def test_all_slots_are_salvaged(ends: Ends) -> None:
    stage(ends, *(message(seq) for seq in range(STAGED_MESSAGES)))
    assert len(salvaged(ends, {})) == STAGED_MESSAGES


WRITER = """
import os, signal, sys
from prochist.capture.channel import ChannelWriter
writer = ChannelWriter(int(sys.argv[1]), int(sys.argv[2]))
writer.put(b"published")
writer.staging[:76] = bytes.fromhex(sys.argv[3])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_had_received_is_still_there(ends: Ends) -> None:
    staged = message(42)
    arguments = [str(ends.reader.fd), str(ends.wake), staged.hex()]
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, *arguments],
        pass_fds=(ends.reader.fd, ends.wake),
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ends.reader.take(100) == b"published"
    assert ends.reader.salvage({0: 41}) == staged
    assert ends.reader.salvage({0: 42}) == b""
