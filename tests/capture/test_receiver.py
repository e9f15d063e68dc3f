"""The receiver: a socketpair is the kernel, a folder is /proc, the process itself is real."""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from prochist.capture.channel import ChannelReader, Scheduling, Word, create_channel
from prochist.capture.connector import (
    EXEC,
    EXIT,
    FORK,
    MESSAGE_SIZE,
    Message,
    decode_messages,
    encode_message,
)
from prochist.capture.observation import (
    Description,
    Fault,
    Messages,
    Reason,
    Record,
    decode_records,
    whole_record,
)
from prochist.capture.receiver import Options, Receiver

NETLINK_USERSOCK = 2
COMMAND = [sys.executable, "-m", "prochist.capture.receiver"]


class Kernel:
    """What the recorder holds: both ends of the sockets, the channel and the lifeline."""

    def __init__(self, proc: Path, capacity: int = 1) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.proc = proc
        self.capacity = capacity
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.lifeline = -1
        self.children: list[subprocess.Popen[bytes]] = []
        self.readers: list[ChannelReader] = []
        self.channel = -1
        self.open_channel()

    def open_channel(self) -> ChannelReader:
        if self.channel >= 0:
            os.close(self.channel)
        self.channel = create_channel(self.capacity)
        self.readers.append(ChannelReader(self.channel))
        return self.reader

    @property
    def reader(self) -> ChannelReader:
        return self.readers[-1]

    def send(self, what: int, *words: int, seq: int = 0, at: int = 0) -> bytes:
        wire = encode_message(what, words, seq=seq, timestamp_ns=at)
        self.ours.send(wire)
        return wire

    def receive(self) -> list[Record]:
        """Let a receiver in this process take what was sent, and return what it passed on."""
        lifeline, end = os.pipe()
        os.close(end)
        receiver = Receiver(
            Options(self.theirs.fileno(), self.channel, self.wake, lifeline, proc=str(self.proc))
        )
        receiver.run()
        os.close(lifeline)
        return list(decode_records(self.reader.take(1 << 24)))

    def start(self) -> subprocess.Popen[bytes]:
        """Start a receiver as the recorder does."""
        options = {
            "connector_fd": self.theirs.fileno(),
            "channel_fd": self.channel,
            "wake_fd": self.wake,
            "proc": str(self.proc),
        }
        child = subprocess.Popen(
            [*COMMAND, json.dumps(options)],
            stdin=subprocess.PIPE,
            pass_fds=(self.theirs.fileno(), self.channel, self.wake),
        )
        self.children.append(child)
        words = self.reader.words
        wait_until(lambda: words[Word.SCHEDULING] != Scheduling.UNKNOWN)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.kill()
            child.communicate()
        for reader in self.readers:
            reader.close()
        os.close(self.channel)
        os.close(self.wake)
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with Kernel(tmp_path) as kernel:
        yield kernel


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.002)


def make_process(proc: Path, pid: int, argv: bytes) -> Path:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_bytes(argv)
    (folder / "exe").symlink_to("/usr/bin/cat")
    (folder / "cwd").symlink_to("/")
    for name in ("stat", "status", "cgroup", "loginuid", "sessionid"):
        (folder / name).write_bytes(name.encode())
    return folder


def messages_of(records: list[Record]) -> list[Message]:
    return [m for record in records if isinstance(record, Messages) for m in record.messages]


def test_events_are_passed_on_as_they_came(kernel: Kernel) -> None:
    sent = [kernel.send(FORK, 1, 1, pid, pid, seq=pid, at=pid << 33) for pid in range(2, 8)]
    records = kernel.receive()
    assert messages_of(records) == list(decode_messages(b"".join(sent)))
    assert kernel.reader.words[Word.RECEIVED] == 6
    assert kernel.reader.words[Word.MALFORMED] == 0


def test_nothing_received_is_nothing_passed_on(kernel: Kernel) -> None:
    assert kernel.receive() == []


def test_an_exec_is_described_before_its_event(kernel: Kernel) -> None:
    make_process(kernel.proc, 70, b"cat\0one\0")
    make_process(kernel.proc, 71, b"cat\0two\0")
    kernel.send(FORK, 1, 1, 70, 70, at=5)
    kernel.send(EXEC, 70, 70, at=(7 << 32) + 6)
    kernel.send(EXEC, 71, 71, at=8)
    first, second, events = kernel.receive()
    assert isinstance(first, Description)
    assert isinstance(second, Description)
    assert (first.reason, first.pid, first.at_ns) == (Reason.EXEC, 70, (7 << 32) + 6)
    assert (first.argv, first.exe, first.cwd, first.stat) == (
        b"cat\0one\0",
        b"/usr/bin/cat",
        b"/",
        b"stat",
    )
    assert (second.pid, second.at_ns, second.argv) == (71, 8, b"cat\0two\0")
    assert [m.what for m in messages_of([events])] == [FORK, EXEC, EXEC]
    assert kernel.reader.words[Word.READING_PID] == 0


def test_an_exec_of_a_process_that_is_gone_says_so(kernel: Kernel) -> None:
    kernel.send(EXEC, 70, 70, at=6)
    description, events = kernel.receive()
    assert isinstance(description, Description)
    assert description.fault is Fault.GONE
    assert description.argv is None
    assert len(messages_of([events])) == 1


def test_datagrams_that_are_no_events_are_counted_and_passed_over(kernel: Kernel) -> None:
    whole = kernel.send(EXIT, 70, 70, 0, 17, 1, 1, seq=1)
    kernel.ours.send(b"")
    kernel.ours.send(whole[:67])
    kernel.ours.send(b"\xff" * MESSAGE_SIZE + b"!")
    kernel.ours.send(whole + b"what a later kernel may add")
    kernel.ours.send(whole[:68])
    records = kernel.receive()
    assert [m[:5] for m in messages_of(records)] == [(1, 0, EXIT, 0, 0)] * 3
    assert [m.word4 for m in messages_of(records)] == [1, 1, 0]
    assert kernel.reader.words[Word.MALFORMED] == 3
    assert kernel.reader.words[Word.FOREIGN] == 0
    assert kernel.reader.words[Word.RECEIVED] == 6


def test_an_unknown_kind_of_event_is_passed_on(kernel: Kernel) -> None:
    kernel.send(0x4000, 1, 2, 3, seq=9)
    assert [(m.what, m.seq) for m in messages_of(kernel.receive())] == [(0x4000, 9)]


def test_what_another_program_sends_is_counted_and_never_believed(kernel: Kernel) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_USERSOCK) as other:
        other.bind((0, 0))
        kernel.theirs.close()
        kernel.theirs = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_USERSOCK)
        kernel.theirs.bind((0, 0))
        for seq in range(3):
            forged = encode_message(EXIT, (1, 1, 9, 17, 0, 0), seq=seq)
            other.sendto(forged, kernel.theirs.getsockname())
    assert kernel.receive() == []
    assert kernel.reader.words[Word.FOREIGN] == 3
    # Nor by the recorder, when it looks for what a receiver left behind.
    assert kernel.reader.salvage({}) == b""


def test_malformed_datagrams_are_not_salvaged_either(kernel: Kernel) -> None:
    first = kernel.send(FORK, 1, 1, 2, 2, seq=1)
    kernel.ours.send(b"short")
    second = kernel.send(FORK, 1, 1, 3, 3, seq=2)
    assert len(messages_of(kernel.receive())) == 2
    assert kernel.reader.salvage({0: 0}) == first + second
    assert kernel.reader.salvage({0: 2}) == b""


# --- as a process -----------------------------------------------------------------------


def read_whole(reader: ChannelReader, left_over: bytes = b"") -> list[Record]:
    """Take what is there, whole records only."""
    stream = left_over + reader.take(1 << 26)
    view = memoryview(stream)
    end = 0
    while (length := whole_record(view, end)) is not None:
        end += length
    assert end == len(stream)
    return list(decode_records(view[:end]))


def test_a_receiver_stops_when_its_lifeline_ends_and_leaves_nothing_behind(kernel: Kernel) -> None:
    child = kernel.start()
    sent = [kernel.send(FORK, 1, 1, pid, pid, seq=pid) for pid in range(100)]
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(20) == 0
    assert messages_of(read_whole(kernel.reader)) == list(decode_messages(b"".join(sent)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_of_the_terminal_does_not_end_a_receiver(
    kernel: Kernel, number: signal.Signals
) -> None:
    child = kernel.start()
    child.send_signal(number)
    kernel.send(FORK, 1, 1, 2, 2)
    wait_until(lambda: kernel.reader.backlog > 0)
    assert child.poll() is None


def test_a_receiver_says_how_it_is_scheduled(kernel: Kernel) -> None:
    child = kernel.start()
    said = kernel.reader.words[Word.SCHEDULING]
    policy = os.sched_getscheduler(child.pid)
    if said == Scheduling.ROUND_ROBIN:
        assert policy == os.SCHED_RR | os.SCHED_RESET_ON_FORK
    else:
        assert policy == os.SCHED_OTHER
        nice = os.getpriority(os.PRIO_PROCESS, child.pid)
        assert (nice < 0) == (said == Scheduling.NICE)


def test_an_idle_receiver_shows_that_it_is_alive(kernel: Kernel) -> None:
    kernel.start()
    words = kernel.reader.words
    before = words[Word.HEARTBEAT_NS]
    wait_until(lambda: words[Word.HEARTBEAT_NS] > before, timeout_s=5)


def test_a_receiver_that_hangs_names_the_process_that_it_was_reading(kernel: Kernel) -> None:
    folder = make_process(kernel.proc, 77, b"")
    (folder / "cmdline").unlink()
    os.mkfifo(folder / "cmdline")  # to open it blocks, as reading a stuck process does
    child = kernel.start()
    wire = kernel.send(EXEC, 77, 77, seq=5)
    words = kernel.reader.words
    wait_until(lambda: words[Word.READING_PID] == 77)
    child.kill()
    child.wait()
    assert kernel.reader.take(100) == b""
    assert kernel.reader.salvage({}) == wire


def test_a_slow_recorder_loses_nothing(kernel: Kernel) -> None:
    child = kernel.start()
    kernel.ours.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:  # until the ring, 1 MiB, is full and the socket too
            kernel.send(FORK, 1, 1, 2, 2, seq=sent)
            sent += 1
    assert kernel.reader.backlog > kernel.reader.capacity - 600 * MESSAGE_SIZE
    received: list[int] = []
    stream = b""
    while len(received) < sent:
        wait_until(lambda: kernel.reader.backlog > 0)
        stream += kernel.reader.take(100_001)
        view = memoryview(stream)
        end = 0
        while (length := whole_record(view, end)) is not None:
            end += length
        received += (m.seq for m in messages_of(list(decode_records(view[:end]))))
        stream = stream[end:]
    assert received == list(range(sent))
    assert kernel.reader.words[Word.STALLED_NS] > 0
    assert child.poll() is None


RECORDER = """
import subprocess, sys
fds = tuple(map(int, sys.argv[1].split(",")))
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, pass_fds=fds)
print(child.pid, flush=True)
child.wait()
"""


def test_a_receiver_that_waits_for_a_dead_recorder_ends(kernel: Kernel) -> None:
    fds = (kernel.theirs.fileno(), kernel.channel, kernel.wake)
    options = dict(zip(("connector_fd", "channel_fd", "wake_fd"), fds, strict=True))
    listed = ",".join(map(str, fds))
    with subprocess.Popen(
        [sys.executable, "-c", RECORDER, listed, *COMMAND, json.dumps(options)],
        stdout=subprocess.PIPE,
        pass_fds=fds,
    ) as recorder:
        assert recorder.stdout is not None
        held = os.pidfd_open(int(recorder.stdout.readline()))
        try:
            kernel.ours.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:  # until the ring is full and the socket too
                    kernel.send(FORK, 1, 1, 2, 2)
            assert not kernel.reader.words[Word.STALLED_NS]
            assert kernel.reader.backlog > kernel.reader.capacity - 600 * MESSAGE_SIZE
            recorder.kill()
            recorder.wait()
            assert select.select([held], [], [], 20)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, signal.SIGKILL)
            os.close(held)


def test_receivers_killed_in_a_storm_lose_no_event_and_repeat_none(kernel: Kernel) -> None:
    kernel.capacity = 4 << 20
    numbers = itertools.count()
    newest: dict[int, int] = {}
    received: list[int] = []

    def take_over(reader: ChannelReader) -> None:
        for message in messages_of(read_whole(reader)):
            received.append(message.seq)
            newest[0] = message.seq
        for message in decode_messages(reader.salvage(newest)):
            received.append(message.seq)
            newest[0] = message.seq

    for attempt in range(8):
        reader = kernel.open_channel()
        child = kernel.start()
        for _ in range(400 + 37 * attempt):
            kernel.send(FORK, 1, 1, 2, 2, seq=next(numbers))
        child.kill()
        child.wait()
        take_over(reader)
    reader = kernel.open_channel()
    last = kernel.start()
    assert last.stdin is not None
    last.stdin.close()
    assert last.wait(20) == 0
    take_over(reader)
    assert received == list(range(next(numbers)))
