"""The receiver: a process of its own that only receives, reads what vanishes, and passes on.

It is the one place where time counts in microseconds: of a process that lives
for 400 us, the command line is read in the 100 us after its EXEC message. So
nothing else computes here, it asks for real-time scheduling, never waits for
the recorder (the backlog stays in memory up to the size of the channel, then
in the kernel's buffer, where what does not fit is counted), and never ends a
subscription.

It does not parse what it reads, keeps no state of processes, and imports
neither SQLite nor click.

Started by the recorder as ``python -m prochist.capture.receiver OPTIONS``,
with the sockets and the channel as inherited descriptors; standard input is a
pipe whose end tells it to take what is left and stop.
"""

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
from typing import NamedTuple

from prochist.capture import privileges, procfs
from prochist.capture.channel import STAGED_MESSAGES, ChannelWriter, Scheduling, Word
from prochist.capture.connector import (
    CPU_WORD,
    EXEC,
    MESSAGE_SIZE,
    TGID_WORD,
    WHAT_WORD,
    WORDS,
    SlotReceiver,
    fit_message,
)
from prochist.capture.execprobe import ExecRing
from prochist.capture.execrecord import Needs, read_needs
from prochist.capture.observation import (
    Cgroup,
    encode,
    encode_description,
    encode_probed,
    encode_tasks,
    messages_header,
)
from prochist.capture.taskstats import DATAGRAM_SIZE, reduce_record
from prochist.clock import MonotonicNs

RR_PRIORITY = 5
"""SCHED_RR priority: above all ordinary work, below the kernel's own threads (50)."""

NICE = -15
"""Niceness when real-time scheduling is not permitted."""

IDLE_MS = 500
"""Longest sleep: after it the heartbeat shows that the receiver is alive."""

STALL_S = 0.005
"""How long to wait for room in the channel before looking again."""

GATHER_S = 0.02
"""Longest rest between two rounds while events keep coming and the exec probe keeps what would
vanish: the more there is in a round, the less each costs."""

BUSY_NS = 1_000_000
"""Events that follow each other within this come one after the other."""

MOST_CGROUPS = 4096
"""Cgroups that are remembered as told."""

MOST_PROBED_BYTES = 1024 * 1024
"""About how much of the exec probe's ring is passed on as one record."""

TASK_SLOTS = 128

MOST_TASKS = 1024
"""Most task records taken in one round: more than there can be EXITs in it."""

_CLOCK = time.CLOCK_MONOTONIC


class Options(NamedTuple):
    """What the recorder hands over: inherited descriptors and settings."""

    connector_fd: int
    channel_fd: int
    wake_fd: int
    lifeline_fd: int = 0
    exec_ring_fd: int | None = None
    """Ring of the exec probe; None: execs are described from /proc."""
    taskstats_fd: int | None = None
    gather_s: float = GATHER_S
    """How long to let events gather when they come one after the other; 0 never."""
    proc: str = "/proc"


def prefer_real_time() -> Scheduling:
    """Ask for the best scheduling that is permitted, not inherited by children; return which it is.

    Source: man page sched(7), SCHED_RESET_ON_FORK.
    """
    with contextlib.suppress(OSError):
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(RR_PRIORITY))
        return Scheduling.ROUND_ROBIN
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        return Scheduling.NICE
    return Scheduling.ORDINARY


class Receiver:
    """The loop. ``channel`` and the sockets belong to the caller."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._channel = ChannelWriter(options.channel_fd, options.wake_fd)
        self._words = self._channel.words
        self._staging = self._channel.staging
        self._staged_words = self._staging.cast("B").cast("I")
        self._socket = SlotReceiver(options.connector_fd, self._staging, MESSAGE_SIZE)
        self._parent = os.getppid()
        self._poller = select.poll()
        self._poller.register(options.connector_fd, select.POLLIN)
        self._poller.register(options.lifeline_fd, 0)  # its end shows as POLLHUP
        self._ring: ExecRing | None = None
        if options.exec_ring_fd is not None:
            self._ring = ExecRing(options.exec_ring_fd)
        self._probed: dict[int, Needs] = {}
        self._told_cgroups: set[int] = set()
        self._tasks: SlotReceiver | None = None
        if options.taskstats_fd is not None:
            self._task_memory = memoryview(bytearray(TASK_SLOTS * DATAGRAM_SIZE))
            self._tasks = SlotReceiver(options.taskstats_fd, self._task_memory, DATAGRAM_SIZE)

    def run(self) -> None:
        """Receive until the lifeline ends, then take what is left and return.

        Raises:
            OSError: a socket is unusable.

        """
        words = self._words
        lifeline = self._options.lifeline_fd
        # Without the probe a command line vanishes with its process: no time to rest.
        gather_s = self._options.gather_s if self._ring is not None else 0.0
        stopping = False
        while True:
            now = time.clock_gettime_ns(_CLOCK)
            words[Word.HEARTBEAT_NS] = now
            count = self._socket.receive()
            if count:
                self._pass_on(count)
                if count > STAGED_MESSAGES // 2:
                    continue
            elif stopping:
                self._put(self._take_tasks())
                return
            for fd, _ in self._poller.poll(IDLE_MS):
                stopping = stopping or fd == lifeline
            if gather_s and not stopping and time.clock_gettime_ns(_CLOCK) - now < BUSY_NS:
                time.sleep(gather_s)

    def _pass_on(self, count: int) -> None:
        words = self._words
        words[Word.ROUNDS] += 1
        words[Word.RECEIVED] += count
        received = self._socket
        if received.lengths(count).count(MESSAGE_SIZE) != count or any(received.senders(count)):
            count = self._sift(count)
        # A task's record is sent before its EXIT, an exec's before its EXEC: what is read
        # now holds those of all events above.
        parts: list[bytes | memoryview] = self._take_tasks()
        if self._ring is not None:
            self._take_execs(self._ring, parts)
        whats = self._staged_words[WHAT_WORD : WORDS * count : WORDS].tolist()
        if EXEC in whats:
            tgids = self._staged_words[TGID_WORD : WORDS * count : WORDS].tolist()
            for index, what in enumerate(whats):
                if what == EXEC:
                    needs = self._probed.pop(tgids[index], None)
                    if (
                        needs is None
                        or needs.is_argv_cut
                        or needs.cgroups_key not in self._told_cgroups
                    ):
                        self._describe(index, needs, parts)
        if count:
            parts += messages_header(count), self._staging[: count * MESSAGE_SIZE]
        self._put(parts)
        if self._ring is not None:
            self._ring.commit()

    def _take_tasks(self) -> list[bytes | memoryview]:
        tasks = self._tasks
        if tasks is None:
            return []
        parts: list[bytes | memoryview] = []
        memory = self._task_memory
        for _ in range(MOST_TASKS // TASK_SLOTS):
            count = tasks.receive()
            if not count:
                break
            records = []
            for index, length in enumerate(tasks.lengths(count)):
                at = index * DATAGRAM_SIZE
                record = reduce_record(memory[at : at + length])
                if record is None:
                    self._words[Word.MALFORMED_TASKS] += 1
                else:
                    records.append(record)
            self._words[Word.RECEIVED_TASKS] += count
            parts.append(encode_tasks(time.clock_gettime_ns(_CLOCK), records))
            if count < tasks.slots:
                break
        return parts

    def _take_execs(self, ring: ExecRing, parts: list[bytes | memoryview]) -> None:
        probed = self._probed
        whole: list[bytes] = []
        size = 0
        for record in ring.receive():
            needs = read_needs(record)
            if needs is None:
                self._words[Word.MALFORMED] += 1
                continue
            probed[needs.tgid] = needs
            whole.append(record)
            size += len(record)
            if size > MOST_PROBED_BYTES:
                parts.append(encode_probed(b"".join(whole)))
                whole, size = [], 0
        if whole:
            parts.append(encode_probed(b"".join(whole)))
        if len(probed) > STAGED_MESSAGES * 8:
            probed.clear()

    def _describe(self, index: int, needs: Needs | None, parts: list[bytes | memoryview]) -> None:
        """Read from /proc what the probe did not say of an exec; all of it without a probe."""
        # words of the message: timestamp after cpu, then pid and tgid
        at = index * WORDS + CPU_WORD + 1
        low, high, _, tgid = self._staged_words[at : at + 4].tolist()
        timestamp = low | high << 32 if sys.byteorder == "little" else high | low << 32
        proc = self._options.proc
        self._words[Word.READING_PID] = tgid
        if needs is None or needs.is_argv_cut:
            parts.append(
                encode_description(procfs.describe_exec(tgid, MonotonicNs(timestamp), proc=proc))
            )
        if needs is not None and needs.cgroups_key not in self._told_cgroups:
            text = procfs.read_cgroup(tgid, proc=proc)
            if text is not None:
                parts.append(encode(Cgroup(needs.cgroups_key, text)))
                if len(self._told_cgroups) >= MOST_CGROUPS:
                    self._told_cgroups.clear()
                self._told_cgroups.add(needs.cgroups_key)
        self._words[Word.READING_PID] = 0

    def _put(self, parts: list[bytes | memoryview]) -> None:
        """Put the parts, in pieces if the ring is small, waiting while there is no room.

        What waits is safe: the datagrams stay in the staging area, all later
        ones in the kernel's buffer.
        """
        if not parts:
            return
        channel = self._channel
        words = self._words
        size = sum(map(len, parts))
        began = 0
        while not channel.has_room(size):
            began = began or time.clock_gettime_ns(_CLOCK)
            words[Word.HEARTBEAT_NS] = time.clock_gettime_ns(_CLOCK)
            if size > channel.capacity:
                # Descriptions alone fill the ring: the events matter more than their argv.
                parts = parts[-2:]
                size = sum(map(len, parts))
                continue
            words[Word.WAKE_AT] = words[Word.WAKE_AT] or 1
            os.eventfd_write(self._options.wake_fd, 1)
            time.sleep(STALL_S)
            if os.getppid() != self._parent:
                os._exit(1)  # the recorder is gone: nobody will ever make room
        if began:
            words[Word.STALLED_NS] += time.clock_gettime_ns(_CLOCK) - began
        channel.put(*parts)

    def _sift(self, count: int) -> int:
        """Move the slots that hold events of the kernel to the front; return how many there are."""
        words = self._words
        kept = 0
        lengths = self._socket.lengths(count)
        senders = self._socket.senders(count)
        for index in range(count):
            if senders[index]:
                words[Word.FOREIGN] += 1
                continue
            at = index * MESSAGE_SIZE
            length = min(lengths[index], MESSAGE_SIZE)
            message = fit_message(bytes(self._staging[at : at + length]))
            if message is None:
                words[Word.MALFORMED] += 1
                continue
            at = kept * MESSAGE_SIZE
            self._staging[at : at + MESSAGE_SIZE] = message
            kept += 1
        # What was refused must not be salvaged from here should we die.
        rest = slice(kept * MESSAGE_SIZE, count * MESSAGE_SIZE)
        self._staging[rest] = bytes(rest.stop - rest.start)
        return kept


def main() -> None:
    """Run as the process that the recorder starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # A terminal or systemd sends these to all of us; the recorder decides when to stop.
        signal.signal(number, signal.SIG_IGN)
    options = Options(**json.loads(sys.argv[1]))
    receiver = Receiver(options)
    receiver._words[Word.SCHEDULING] = prefer_real_time()  # noqa: SLF001  our own class
    with contextlib.suppress(OSError):
        privileges.keep_only(privileges.READING, effective=privileges.READING)
    gc.collect()
    gc.freeze()
    gc.disable()  # no cycles are made in the loop, and a collection would hold it up
    receiver.run()


__all__ = ["Options", "Receiver", "main", "prefer_real_time"]

if __name__ == "__main__":
    main()
