"""The channel: memory shared by the receiver and the recorder.

The receiver puts records into a ring here, and receives datagrams into a
staging area here before they are records. So whatever it took out of the
kernel is still there when it is killed, at any instruction: first the ring up
to ``head``, then what lies in the staging area and is newer than the ring
(:meth:`ChannelReader.salvage` tells by the sequence numbers of the kernel).

One writer, one reader, no locks: ``head`` is moved only by the writer after
the bytes are in place, ``tail`` only by the reader. Each is one aligned word of
eight bytes, which CPython stores by one instruction. x86-64 keeps such stores
in order; on other machines the system calls between two rounds do.

It knows records only as bytes, but for the sequence numbers that salvage needs.
"""

import mmap
import os
from enum import IntEnum

from prochist.capture.connector import (
    CPU_WORD,
    MESSAGE_SIZE,
    SEQ_WORD,
    WORDS,
    fit_message,
)

STAGED_MESSAGES = 512
"""Most datagrams taken from the kernel by one system call."""

DEFAULT_CAPACITY = 256 * 1024 * 1024
"""Bytes that the ring holds while the recorder is slow: 750,000 lives of 350 bytes, 12 s of the
fastest forks of two CPUs. Taken only while it is needed."""

_PAGE = mmap.PAGESIZE
_STAGING = _PAGE
_STAGING_SIZE = (STAGED_MESSAGES * MESSAGE_SIZE + _PAGE - 1) // _PAGE * _PAGE
_RING = _STAGING + _STAGING_SIZE
_MAGIC = 0x70726F6368697374
_RELEASE = 1024 * 1024
"""Bytes after which what was read goes back to the system, so that an idle ring takes no memory."""


class Word(IntEnum):
    """Index of a word of eight bytes in the first page."""

    MAGIC = 0
    HEAD = 1
    TAIL = 2
    WAKE_AT = 3
    """Backlog in bytes at which the reader wants to be woken; 0 never."""
    HEARTBEAT_NS = 4
    """CLOCK_MONOTONIC when the receiver last began a round."""
    READING_PID = 5
    """Process of which the receiver is reading /proc just now; 0 none."""
    SCHEDULING = 6
    MALFORMED = 7
    FOREIGN = 8
    RECEIVED = 9
    """Datagrams taken from the connector."""
    STALLED_NS = 10
    """Time for which the receiver waited for room in the ring."""
    ROUNDS = 11
    MALFORMED_TASKS = 13
    RECEIVED_TASKS = 14
    SCANNING_PID = 12
    """Process that the scanner is reading just now; 0 none."""


class Scheduling(IntEnum):
    """How the kernel schedules the receiver."""

    UNKNOWN = 0
    ROUND_ROBIN = 1
    NICE = 2
    ORDINARY = 3


def create_channel(capacity: int = DEFAULT_CAPACITY) -> int:
    """Make the memory for a channel whose ring holds ``capacity`` bytes; return its descriptor.

    The descriptor is inheritable by the receiver alone: pass it by ``pass_fds``.
    """
    capacity = max(_RELEASE, capacity // _RELEASE * _RELEASE)
    fd = os.memfd_create("prochist-channel", os.MFD_CLOEXEC)
    os.ftruncate(fd, _RING + capacity + _RELEASE)
    with mmap.mmap(fd, _PAGE) as page, memoryview(page).cast("Q") as words:
        words[Word.MAGIC] = _MAGIC
    return fd


class _Channel:
    """What both ends have in common: the mapping and its parts."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, size)
        whole = memoryview(self._map)
        self.words = whole[:_PAGE].cast("Q")
        if self.words[Word.MAGIC] != _MAGIC:
            msg = "not a channel"
            raise ValueError(msg)
        self.fd = os.dup(fd)
        self.staging = whole[_STAGING : _STAGING + STAGED_MESSAGES * MESSAGE_SIZE]
        self._ring = whole[_RING:]
        self._size = size - _RING
        # What was read is given back in whole steps, with whatever is in them: the step in which
        # the reader stands must not be written again before. So the ring is filled up to one less.
        self.capacity = self._size - _RELEASE

    @property
    def backlog(self) -> int:
        """Bytes in the ring that the reader has not taken."""
        return self.words[Word.HEAD] - self.words[Word.TAIL]

    def close(self) -> None:
        """Give this end's mapping back; the channel lives as long as one end does."""
        self.words.release()
        self.staging.release()
        self._ring.release()
        self._map.close()
        os.close(self.fd)


class ChannelWriter(_Channel):
    """The end of the receiver."""

    def __init__(self, fd: int, wake_fd: int) -> None:
        super().__init__(fd)
        self._wake_fd = wake_fd

    def has_room(self, size: int) -> bool:
        """Return whether ``size`` bytes can be put now."""
        return size <= self.capacity - self.backlog

    def put(self, *parts: bytes | memoryview) -> None:
        """Append the parts and publish them together. The caller saw to it that there is room."""
        words = self.words
        head: int = words[Word.HEAD]
        ring = self._ring
        for part in parts:
            size = len(part)
            at = head % self._size
            first = min(size, self._size - at)
            ring[at : at + first] = part[:first]
            if first < size:
                ring[: size - first] = part[first:]
            head += size
        words[Word.HEAD] = head
        wake_at: int = words[Word.WAKE_AT]
        if wake_at and head - words[Word.TAIL] >= wake_at:
            words[Word.WAKE_AT] = 0
            os.eventfd_write(self._wake_fd, 1)


class ChannelReader(_Channel):
    """The end of the recorder.

    With ``holds``, what was taken stays in the ring until :meth:`give_back`, so that
    another reader finds it again when this one is killed.
    """

    def __init__(self, fd: int, *, holds: bool = False) -> None:
        super().__init__(fd)
        self._holds = holds
        self._position: int = self.words[Word.TAIL]
        self._released = self._position // _RELEASE * _RELEASE

    @property
    def backlog(self) -> int:
        """Bytes in the ring that were not taken."""
        return self.words[Word.HEAD] - self._position

    def take(self, bound: int) -> bytes:
        """Take up to ``bound`` bytes out of the ring; empty when there are none.

        What is taken may end in the middle of a record.
        """
        size = min(bound, self.backlog)
        if not size:
            return b""
        at = self._position % self._size
        first = min(size, self._size - at)
        taken = bytes(self._ring[at : at + first])
        if first < size:
            taken += bytes(self._ring[: size - first])
        self._position += size
        if not self._holds:
            self.give_back()
        return taken

    def give_back(self, except_newest: int = 0) -> None:
        """Let the writer have the room of what was taken, but for the newest bytes."""
        tail = self._position - except_newest
        while tail - self._released >= _RELEASE:
            self._map.madvise(mmap.MADV_REMOVE, _RING + self._released % self._size, _RELEASE)
            self._released += _RELEASE
        self.words[Word.TAIL] = tail

    def salvage(self, newest: dict[int, int]) -> bytes:
        """Return the staged messages that are newer than ``newest`` (CPU to sequence number).

        Only when the receiver is dead and the ring was read to its end. A CPU
        that is not in ``newest`` has sent nothing before.
        """
        words = self.staging.cast("B").cast("I")
        seen = dict(newest)
        kept = bytearray()
        for index in range(STAGED_MESSAGES):
            slot = bytes(self.staging[index * MESSAGE_SIZE : (index + 1) * MESSAGE_SIZE])
            message = fit_message(slot)
            if message is None:
                continue
            at = index * WORDS
            cpu, seq = words[at + CPU_WORD], words[at + SEQ_WORD]
            if cpu in seen and not 0 < (seq - seen[cpu]) & 0xFFFFFFFF < 1 << 31:
                continue
            seen[cpu] = seq
            kept += message
        return bytes(kept)
