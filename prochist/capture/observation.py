"""The observation stream: the one format of what was seen of processes.

The receiver writes it and the recorder reads it; ``record --capture`` keeps it
in a file, ``replay`` feeds it through the same path, tests and benchmarks make
it. Pure: bytes become records and back.

A stream is records one after the other. Each starts with eight bytes,

    length u32 (whole record, with these) · kind u16 · count u16

in the byte order of the machine, and is padded with zeros to four bytes. What
describes an event stands before the message of that event, so whoever reads
in order always knows what there is to know when the event comes. A reader
passes over kinds that it does not know.

A file starts with :data:`MAGIC` and a HOST record.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from prochist.capture.connector import MESSAGE_SIZE, Message, decode_messages
from prochist.clock import ClockReading, EpochNs, MonotonicNs
from prochist.errors import ProchistError

MAGIC = b"prochist-capture-1\n\0"
"""First bytes of a capture file; the number is that of the format."""

HEADER = struct.Struct("=IHH")
LONGEST_RECORD = 16 * 1024 * 1024
"""Bytes above which a length can only be damage."""


class Kind(IntEnum):
    """What a record is."""

    MESSAGES = 1
    DESCRIPTION = 2
    CLOCK = 3
    HOST = 4
    COUNTERS = 5
    SCANNED = 6
    PROBED = 7
    TASKS = 8
    RESTARTED = 9
    CGROUP = 10


class StreamError(ProchistError):
    """Say where an observation stream is damaged."""


class Messages(NamedTuple):
    """Events of the proc connector, in the order of the queue they came from."""

    messages: list[Message]


class Reason(IntEnum):
    """Why a process was described."""

    EXEC = 0
    """It called execve, and the EXEC message with the same tgid and timestamp follows."""
    SCAN = 1
    """It was found running."""


class Fault(IntFlag):
    """What a description lacks, and why."""

    NONE = 0
    GONE = 1
    """The process ended before everything was read."""
    DENIED = 2
    """Some of it may not be read by this user."""
    ARGV_CUT = 4
    """argv is longer than the bound; it holds the first part."""
    ZOMBIE = 8
    """It has exited and waits for its parent; what a zombie keeps was read."""


@dataclass(slots=True)
class Description:
    """What /proc said of one process. None is unknown; bytes are as the kernel gave them."""

    reason: Reason
    pid: int
    at_ns: MonotonicNs
    """EXEC: timestamp of the event. SCAN: when reading began."""
    read_ns: MonotonicNs
    """When reading was finished: whether a later execve can have come in between."""
    fault: Fault = Fault.NONE
    argv: bytes | None = None
    """Arguments, each ended by NUL."""
    exe: bytes | None = None
    cwd: bytes | None = None
    stat: bytes | None = None
    """/proc/PID/stat, whole; :func:`prochist.capture.procfs.parse_stat` takes it apart."""
    status: bytes | None = None
    cgroup: bytes | None = None
    login_uid: bytes | None = None
    session: bytes | None = None
    tids: bytes | None = None
    """Thread ids, u32 each; only of processes found running with more than one."""
    io: bytes | None = None
    """/proc/PID/io, whole; only of processes found running."""


class Clock(NamedTuple):
    """The clocks as they stood; valid from ``reading.monotonic_ns`` on."""

    reading: ClockReading


class Host(NamedTuple):
    """Which machine and boot the stream is of."""

    boot_id: str
    host: str
    machine_id: str
    kernel: str
    booted_at_ns: EpochNs


class Counters(NamedTuple):
    """What was dropped so far, by the clock of the receiver."""

    at_ns: MonotonicNs
    connector_drops: int
    """The connector socket's drop counter, mod 2**32."""
    taskstats_drops: int
    probe_losses: int
    malformed: int
    """Datagrams that were no event."""
    foreign: int
    """Datagrams that did not come from the kernel."""


class Scanned(NamedTuple):
    """A scan of /proc is complete: every process alive at both times was described."""

    began_ns: MonotonicNs
    ended_ns: MonotonicNs


class Probed(NamedTuple):
    """Records of the exec probe, one after the other (:mod:`prochist.capture.execrecord`)."""

    payload: bytes


class Tasks(NamedTuple):
    """Records of exiting tasks, as :mod:`prochist.capture.taskstats` defines them."""

    received_ns: MonotonicNs
    payload: bytes


class Cgroup(NamedTuple):
    """Which cgroup a process that just called execve is in, as its /proc/PID/cgroup said."""

    key: int
    """``cgroups_key`` of its exec record: the same for all processes in the same cgroups."""
    text: bytes


class Restarted(NamedTuple):
    """The receiver was replaced: events it had received are in the stream, not all it had read."""

    at_ns: MonotonicNs


Record = (
    Messages | Description | Clock | Host | Counters | Scanned | Probed | Tasks | Restarted | Cgroup
)


# --- writing ------------------------------------------------------------------


def _frame(kind: Kind, body: bytes, count: int = 0) -> bytes:
    padding = -len(body) % 4
    return HEADER.pack(HEADER.size + len(body) + padding, kind, count) + body + bytes(padding)


def messages_header(count: int) -> bytes:
    """Return what stands before ``count`` messages in a stream."""
    return HEADER.pack(HEADER.size + count * MESSAGE_SIZE, Kind.MESSAGES, count)


_DESCRIPTION = struct.Struct("=IHHQQ")
_DESCRIBED = (
    "argv", "exe", "cwd", "stat", "status", "cgroup", "login_uid", "session", "tids", "io",
)  # fmt: skip
_FIELD_LENGTH = struct.Struct(f"={len(_DESCRIBED)}I")
_UNKNOWN = 0xFFFFFFFF
_CLOCK = struct.Struct("=Qqq")
_HOST = struct.Struct("=Q4H")
_COUNTERS = struct.Struct("=QIIQQQ")
_SCANNED = struct.Struct("=QQ")
_RESTARTED = struct.Struct("=Q")
_TASKS = struct.Struct("=Q")
_CGROUP = struct.Struct("=QI")


def encode_description(description: Description) -> bytes:
    """Encode what is known of one process."""
    d = description
    fields = (
        d.argv, d.exe, d.cwd, d.stat, d.status, d.cgroup, d.login_uid, d.session, d.tids, d.io,
    )  # fmt: skip
    return _frame(
        Kind.DESCRIPTION,
        b"".join(
            (
                _DESCRIPTION.pack(d.pid, d.reason, d.fault, d.at_ns, d.read_ns),
                _FIELD_LENGTH.pack(*(_UNKNOWN if f is None else len(f) for f in fields)),
                *(f for f in fields if f),
            )
        ),
    )


def encode_probed(payload: bytes) -> bytes:
    """Encode what the exec probe wrote."""
    return _frame(Kind.PROBED, struct.pack("=I", len(payload)) + payload)


def encode_tasks(received_ns: int, records: list[bytes]) -> bytes:
    """Encode records of exiting tasks; their size is a multiple of four."""
    return _frame(Kind.TASKS, _TASKS.pack(received_ns) + b"".join(records))


def encode(record: Record) -> bytes:  # noqa: C901, PLR0911  one case a kind of record
    """Encode any record."""
    match record:
        case Description():
            return encode_description(record)
        case Messages(messages):
            return messages_header(len(messages)) + b"".join(
                struct.pack(
                    "=IHHIIIIIIHHIIQ6I", MESSAGE_SIZE, 3, 0, 0, 0, 1, 1, *m[:2], 40, 0, *m[2:]
                )
                for m in messages
            )
        case Clock(reading):
            return _frame(Kind.CLOCK, _CLOCK.pack(*reading))
        case Host():
            texts = [t.encode("utf-8", "surrogateescape")[:65535] for t in record[:4]]
            lengths = (len(t) for t in texts)
            return _frame(Kind.HOST, _HOST.pack(record.booted_at_ns, *lengths) + b"".join(texts))
        case Counters():
            return _frame(Kind.COUNTERS, _COUNTERS.pack(*record))
        case Scanned():
            return _frame(Kind.SCANNED, _SCANNED.pack(*record))
        case Probed(payload):
            return encode_probed(payload)
        case Tasks():
            return encode_tasks(record.received_ns, [record.payload])
        case Cgroup(key, text):
            return _frame(Kind.CGROUP, _CGROUP.pack(key, len(text)) + text)
        case Restarted():
            return _frame(Kind.RESTARTED, _RESTARTED.pack(*record))


# --- reading ------------------------------------------------------------------


def decode_records(stream: bytes | memoryview) -> Iterator[Record]:
    """Decode a run of whole records.

    Raises:
        StreamError: damaged, or cut in the middle of a record.

    """
    view = memoryview(stream)
    offset = 0
    end = len(view)
    while offset < end:
        length = whole_record(view, offset)
        if length is None:
            error = f"the observation stream is cut in a record at byte {offset}"
            raise StreamError(error)
        record = _decode_record(view[offset : offset + length], offset)
        if record is not None:
            yield record
        offset += length


def whole_record(view: memoryview, offset: int) -> int | None:
    """Return the length of the record at ``offset``, or None when it is not all there.

    Raises:
        StreamError: what stands there is no record.

    """
    left = len(view) - offset
    if left < HEADER.size:
        return None
    length = HEADER.unpack_from(view, offset)[0]
    if not HEADER.size <= length <= LONGEST_RECORD or length % 4:
        error = f"the observation stream is damaged at byte {offset}: a record of {length} bytes"
        raise StreamError(error)
    return int(length) if length <= left else None


def _decode_record(view: memoryview, offset: int) -> Record | None:
    _, kind, count = HEADER.unpack_from(view)
    body = view[HEADER.size :]
    try:
        decoder = _DECODERS.get(kind)
        return decoder(body, count) if decoder else None
    except (struct.error, ValueError, IndexError) as error:
        message = f"the observation stream is damaged at byte {offset}: {error}"
        raise StreamError(message) from error


def _decode_messages(body: memoryview, count: int) -> Messages:
    if count * MESSAGE_SIZE > len(body):
        msg = "a run of messages is cut"
        raise ValueError(msg)
    return Messages(list(decode_messages(body[: count * MESSAGE_SIZE])))


def _decode_description(body: memoryview, _count: int) -> Description:
    pid, reason, fault, at_ns, read_ns = _DESCRIPTION.unpack_from(body)
    lengths = _FIELD_LENGTH.unpack_from(body, _DESCRIPTION.size)
    at = _DESCRIPTION.size + _FIELD_LENGTH.size
    fields: list[bytes | None] = []
    for length in lengths:
        if length == _UNKNOWN:
            fields.append(None)
            continue
        if at + length > len(body):
            msg = "a description is cut"
            raise ValueError(msg)
        fields.append(bytes(body[at : at + length]))
        at += length
    return Description(Reason(reason), pid, at_ns, read_ns, Fault(fault), *fields)


def _decode_host(body: memoryview, _count: int) -> Host:
    booted_at_ns, *lengths = _HOST.unpack_from(body)
    if _HOST.size + sum(lengths) > len(body):
        msg = "a host record is cut"
        raise ValueError(msg)
    texts: list[str] = []
    at = _HOST.size
    for length in lengths:
        texts.append(bytes(body[at : at + length]).decode("utf-8", "backslashreplace"))
        at += length
    boot_id, host, machine_id, kernel = texts
    return Host(boot_id, host, machine_id, kernel, booted_at_ns)


def _decode_tasks(body: memoryview, _count: int) -> Tasks:
    (received_ns,) = _TASKS.unpack_from(body)
    return Tasks(received_ns, bytes(body[_TASKS.size :]))


def _decode_cgroup(body: memoryview, _count: int) -> Cgroup:
    key, length = _CGROUP.unpack_from(body)
    if _CGROUP.size + length > len(body):
        msg = "a cgroup record is cut"
        raise ValueError(msg)
    return Cgroup(key, bytes(body[_CGROUP.size : _CGROUP.size + length]))


def _decode_probed(body: memoryview, _count: int) -> Probed:
    (length,) = struct.unpack_from("=I", body)
    if 4 + length > len(body):
        msg = "a probe record is cut"
        raise ValueError(msg)
    return Probed(bytes(body[4 : 4 + length]))


_DECODERS: dict[int, Callable[[memoryview, int], Record]] = {
    Kind.MESSAGES: _decode_messages,
    Kind.DESCRIPTION: _decode_description,
    Kind.CLOCK: lambda body, _: Clock(ClockReading(*_CLOCK.unpack_from(body))),
    Kind.HOST: _decode_host,
    Kind.COUNTERS: lambda body, _: Counters(*_COUNTERS.unpack_from(body)),
    Kind.SCANNED: lambda body, _: Scanned(*_SCANNED.unpack_from(body)),
    Kind.PROBED: _decode_probed,
    Kind.TASKS: _decode_tasks,
    Kind.CGROUP: _decode_cgroup,
    Kind.RESTARTED: lambda body, _: Restarted(*_RESTARTED.unpack_from(body)),
}

__all__ = [
    "MAGIC", "Cgroup", "Clock", "Counters", "Description", "Fault", "Host", "Kind", "Messages",
    "Probed", "Reason", "Record", "Restarted", "Scanned", "StreamError", "Tasks",
    "decode_records", "encode", "encode_description", "encode_probed", "encode_tasks",
    "messages_header", "whole_record",
]  # fmt: skip
