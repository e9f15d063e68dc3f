"""Taskstats: what each exiting task cost, and the socket that says so.

The first half is pure: a datagram of the kernel becomes a compact record. Field
names are the kernel's: ``pid`` is a thread and ``tgid`` is a process. The kernel
sends one datagram for each exiting *task*, before the connector's EXIT event of
the same task; adding tasks up to processes is :mod:`prochist.history.accounting`.

What is kept of I/O is what /proc/PID/io calls read_bytes and write_bytes, bytes that
the storage was asked for: a write to a file counts when it dirties the page cache,
in whole pages; pipes, sockets and tmpfs do not count. The kernel cuts each to 1 KiB.

Source: include/uapi/linux/taskstats.h; taskstats_exit() in kernel/taskstats.c,
bacct_add_tsk() and xacct_add_tsk() in kernel/tsacct.c, Linux 6.18.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prochist.capture import genetlink
from prochist.capture.connector import (
    NETLINK_NO_ENOBUFS,
    SOL_NETLINK,
    missing_namespaces,
    set_receive_buffer,
)
from prochist.capture.genetlink import MessageError, Reply
from prochist.errors import ProchistError

# --- wire format ------------------------------------------------------------

FAMILY_NAME = "TASKSTATS"
CMD_GET = 1
CMD_NEW = 2
CMD_ATTR_PID = 1
CMD_ATTR_REGISTER_CPUMASK = 3
CMD_ATTR_DEREGISTER_CPUMASK = 4
TYPE_PID = 1
TYPE_TGID = 2
TYPE_STATS = 3
TYPE_AGGR_PID = 4
TYPE_AGGR_TGID = 5

AGROUP = 0x20
"""Bit of ``ac_flag``: the last task of its process."""
ACORE = 0x08
AXSIG = 0x10

DATAGRAM_SIZE = 2048
"""Bytes of a slot to receive one datagram in. On 6.18 (version 16) they have 596 bytes, 1172 for
the last task of a process with threads; the rest is for what later versions add behind."""

OLDEST_VERSION = 12
"""Version that brought ac_tgid and AGROUP. Below, a task cannot be told from a process."""
BROKEN_VERSION = 15
"""Linux 6.14 and 6.15 put new fields into the middle, 6.16 took them to the end."""
KNOWN_BYTES = 400
"""Bytes that are the same in every version accepted, seen in 13, 14, 16 and 17. A newer version
may only add behind them: the header's own rule, broken once (:data:`BROKEN_VERSION`) and restored
for being one. So a larger number is accepted when the struct is not shorter than this."""

RECORD_SIZE = 196
"""Bytes of a task record as prochist keeps it."""

# What is kept, as runs of neighbouring fields: bytes are cut out and joined, and only the
# reader of a record makes numbers of them.
_KEPT = struct.Struct(
    "=4x"
    "8s"  # ac_exitcode, ac_flag
    "60x24s"  # cpu_run_virtual_total, ac_comm
    "24x16s"  # ac_uid, ac_gid, ac_pid, ac_ppid
    "8x40s"  # ac_etime, ac_utime, ac_stime, ac_minflt, ac_majflt
    "16x8s"  # hiwater_rss
    "40x16s"  # read_bytes, write_bytes
    "8x16s"  # nvcsw, nivcsw
    "80x16s"  # ac_tgid, ac_tgetime
    "16x"
)
_KEPT_OF_GROUP = struct.Struct(
    "=72x8s64x24s104x16s112x"
)  # cpu_run_virtual_total; etime, utime, stime; nvcsw, nivcsw
_NO_GROUP = bytes(52)
# nlmsghdr and genlmsghdr; AGGR_PID, PID, STATS; then the struct, with its version.
_FAST = struct.Struct("=I12xBx2x2xH2xH4x HHH2x" + _KEPT.format[3:])
_FAST_HEAD = 36
_FAST_GROUP = struct.Struct("=2xH2xH4sHH" + _KEPT_OF_GROUP.format[1:])
_GROUP_HEAD = 16
_STATS_HEADER = 4
_VERSION = struct.Struct("=H")
_ID_SIZE = 4
_RECORD = struct.Struct("=IB3xQ16s4I5QQ2Q2QI4xQI6Q")


class NotAccountingError(ProchistError):
    """Say that the kernel does not tell what tasks cost; recording goes on without."""


class VersionError(NotAccountingError):
    """Say that this kernel's taskstats cannot be read."""


class TaskRecord(NamedTuple):
    """What one exiting task cost. ``comm`` is padded with NULs.

    ``group_*`` are sums of the kernel over all threads that the process ever had, also of
    those that ended before anybody listened. Only the record of the last task of a process
    with threads has them, else they and ``group_tgid`` are 0. Kernels without the fix
    "taskstats: retain dead thread stats in TGID queries" fill in ``group_cpu_ns`` alone;
    ``group_elapsed_us`` above 0 says that all are there.

    Source: fill_tgid_exit() in kernel/taskstats.c, delayacct_add_tsk() in kernel/delayacct.c.
    """

    exit_code: int
    """What the task ended with, as a wait status; nearly always that of the process when ``flag``
    has :data:`AGROUP`: ``Bill.wait_status`` of :mod:`prochist.history.accounting` knows."""
    flag: int
    cpu_ns: int
    """Time on a CPU, up to the last tick or switch before the exit; freeing its memory comes later.
    0 for a thread that met neither."""
    comm: bytes
    uid: int
    """Real user and group id at the end."""
    gid: int
    pid: int
    ppid: int
    """Process that will reap this one; known even where the EXIT event says 0."""
    elapsed_us: int
    user_us: int
    """User and system time by the ticks of the clock: 0 for a task that no tick met."""
    system_us: int
    minor_faults: int
    major_faults: int
    max_rss_kib: int
    """Highest resident set of the memory that the task had at its end; 0 for a kernel thread."""
    read_bytes: int
    write_bytes: int
    voluntary_switches: int
    involuntary_switches: int
    tgid: int
    group_age_us: int
    """Time since the process began, on CLOCK_MONOTONIC."""
    group_tgid: int
    group_cpu_ns: int
    group_elapsed_us: int
    group_user_us: int
    group_system_us: int
    group_voluntary_switches: int
    group_involuntary_switches: int


def reduce_record(datagram: bytes | memoryview) -> bytes | None:
    """Cut the :data:`RECORD_SIZE` bytes that prochist keeps out of one datagram, or return None.

    None: this is no record of an exiting task, or none that can be read. Made for the receiver's
    loop (0.6 us): what the kernel of a usual machine sends is taken by position, after a
    look at the headers; everything else goes through :func:`decode_exit`.
    """
    if len(datagram) >= _FAST.size:
        length, command, aggregate, kind, stats_length, stats_kind, version, *kept = (
            _FAST.unpack_from(datagram)
        )
        if (
            aggregate == TYPE_AGGR_PID
            and kind == TYPE_PID
            and stats_kind == TYPE_STATS
            and command == CMD_NEW
            and version >= OLDEST_VERSION
            and version != BROKEN_VERSION
            and stats_length >= KNOWN_BYTES + _STATS_HEADER
        ):
            size = len(datagram)
            group_at = _FAST_HEAD - _STATS_HEADER + stats_length
            if size == length == group_at:
                kept.append(_NO_GROUP)
                return b"".join(kept)
            if size == length and size >= group_at + _FAST_GROUP.size:
                group, group_kind, tgid, _, group_stats, *sums = _FAST_GROUP.unpack_from(
                    datagram, group_at
                )
                if (
                    group == TYPE_AGGR_TGID
                    and group_kind == TYPE_TGID
                    and group_stats == TYPE_STATS
                ):
                    return b"".join((*kept, tgid, *sums))
    try:
        return decode_exit(datagram)
    except (MessageError, VersionError):
        return None


def decode_exit(datagram: bytes | memoryview) -> bytes:
    """Find the record of an exiting task in one datagram, wherever the attributes are.

    Some architectures align the struct with empty attributes. The kernel
    never puts two tasks into one datagram: each is sent at its exit.

    Raises:
        MessageError: garbled, cut, or something else than an exiting task.
        VersionError: the struct is not laid out as prochist knows it.

    Source: mk_reply() and send_cpu_listeners() in kernel/taskstats.c.

    """
    match genetlink.decode_messages(datagram):
        case [Reply(command=command, attributes=attributes)] if command == CMD_NEW:
            task = _find_stats(attributes, TYPE_AGGR_PID, TYPE_PID)
            if task is not None:
                group = _find_stats(attributes, TYPE_AGGR_TGID, TYPE_TGID)
                sums = _NO_GROUP
                if group is not None:
                    sums = b"".join((group[0], *_KEPT_OF_GROUP.unpack_from(group[1])))
                return b"".join(_KEPT.unpack_from(task[1])) + sums
    error = "a taskstats message is not about an exiting task"
    raise MessageError(error)


def _find_stats(
    attributes: list[genetlink.Attribute], aggregate: int, kind: int
) -> tuple[memoryview, memoryview] | None:
    """Return id and struct out of one aggregate, or None when there is no such aggregate."""
    payload = genetlink.find_attribute(attributes, aggregate)
    if payload is None:
        return None
    nested = genetlink.decode_attributes(payload)
    number = genetlink.find_attribute(nested, kind)
    stats = genetlink.find_attribute(nested, TYPE_STATS)
    if number is None or len(number) != _ID_SIZE or stats is None or len(stats) < _VERSION.size:
        error = "a taskstats message has no struct in it"
        raise MessageError(error)
    # The sums over a group may come without a version. Both structs are laid out alike.
    version = _VERSION.unpack_from(stats)[0] if aggregate == TYPE_AGGR_PID else OLDEST_VERSION
    check_version(version, len(stats))
    return number, stats


def check_version(version: int, size: int) -> None:
    """Accept a struct of that version and of ``size`` bytes.

    Raises:
        VersionError: it is not laid out as prochist knows it.

    """
    if version == BROKEN_VERSION:
        error = (
            "this kernel has taskstats version 15 (Linux 6.14, 6.15), laid out unlike all others"
        )
        raise VersionError(
            error, hint="update the kernel to 6.16 or later; until then costs are not recorded"
        )
    if version < OLDEST_VERSION:
        error = f"this kernel has taskstats version {version}, which does not tell of processes"
        raise VersionError(error, hint="costs need Linux 6.0 or later; everything else is recorded")
    if size < KNOWN_BYTES:
        error = f"a taskstats struct of version {version} has {size} bytes, less than {KNOWN_BYTES}"
        raise VersionError(error)


def decode_task_record(record: bytes | memoryview) -> TaskRecord:
    """Decode one record of :data:`RECORD_SIZE` bytes.

    Raises:
        MessageError: it has another size.

    """
    if len(record) != RECORD_SIZE:
        error = f"a task record has {len(record)} bytes instead of {RECORD_SIZE}"
        raise MessageError(error)
    return TaskRecord._make(_RECORD.unpack(record))


_new_task_record: Callable[[tuple[object, ...]], TaskRecord] = partial(tuple.__new__, TaskRecord)
"""TaskRecord._make, in a third of the time."""


def decode_task_records(run: bytes | memoryview) -> Iterator[TaskRecord]:
    """Decode records that lie one after the other.

    Raises:
        MessageError: the run is not a whole number of records.

    """
    if len(run) % RECORD_SIZE:
        error = f"a run of {len(run)} bytes is not a whole number of task records"
        raise MessageError(error)
    return map(_new_task_record, _RECORD.iter_unpack(run))


def encode_task_record(record: TaskRecord) -> bytes:
    """Encode a record as :func:`reduce_record` returns it."""
    return _RECORD.pack(*record)


def encode_datagram(
    record: TaskRecord, *, version: int = 16, size: int = 560, family: int = 31
) -> bytes:
    """Encode the datagram that the kernel would send of this task, with a struct of ``size`` bytes.

    The sums over the group are sent with the last task of a process that had threads.
    """
    runs = _cut_runs(encode_task_record(record), (8, 24, 16, 40, 8, 16, 16, 16, 4, 8, 24, 16))
    stats = bytearray(_VERSION.pack(version) + _KEPT.pack(*runs[:8])[_VERSION.size :])
    parts = [(TYPE_AGGR_PID, TYPE_PID, record.pid, bytes(stats.ljust(size, b"\0")))]
    if record.group_tgid:
        group = _KEPT_OF_GROUP.pack(*runs[9:]).ljust(size, b"\0")
        parts.append((TYPE_AGGR_TGID, TYPE_TGID, record.group_tgid, group))
    attributes = [
        (
            aggregate,
            genetlink.encode_attributes([(kind, struct.pack("=I", number)), (TYPE_STATS, struct_)]),
        )
        for aggregate, kind, number, struct_ in parts
    ]
    return genetlink.encode_reply(family, CMD_NEW, attributes, seq=0)


def _cut_runs(whole: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    runs = []
    at = 0
    for size in sizes:
        runs.append(whole[at : at + size])
        at += size
    return runs


# --- subscription -----------------------------------------------------------

POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
REPLY_TIMEOUT_S = 1.0
_LONGEST_DATAGRAM = 65536


class Subscription(NamedTuple):
    """An open subscription to exiting tasks; the caller owns the socket."""

    socket: socket.socket
    family: int
    version: int
    """Version of the kernel's struct."""
    receive_buffer_bytes: int
    forced: bool
    """Whether the size asked for was granted past net.core.rmem_max."""


def open_taskstats(receive_buffer: int, *, possible: Path = POSSIBLE_CPUS) -> Subscription:
    """Subscribe to the exits of all tasks, on every CPU that this host can have.

    ``receive_buffer`` is in bytes; the kernel keeps double of it. The socket is
    connected to the kernel, so nobody else can put a datagram into it, and does not
    block. That records flow was proven when this returns. End it with :func:`close_taskstats`.

    Raises:
        NotAccountingError: not permitted, not in this kernel, not in this place.
        VersionError: this kernel's struct is not known.

    """
    with contextlib.ExitStack() as undo:
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, genetlink.NETLINK_GENERIC)
            undo.callback(sock.close)
            sock.bind((0, 0))
            # Source: netlink_getsockbyportid() in net/netlink/af_netlink.c: a connected socket
            # takes messages of its peer only.
            sock.connect((0, 0))
        except OSError as error:
            message = f"this kernel has no generic netlink: {error.strerror}"
            raise NotAccountingError(message) from error
        forced = set_receive_buffer(sock, receive_buffer)
        sock.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
        cpus = _read_possible_cpus(possible)
        family, version = register(sock, cpus)
        undo.callback(_deregister, sock, family, cpus)
        _prove_flow(sock, REPLY_TIMEOUT_S)
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sock.setblocking(False)  # noqa: FBT003  the standard library's signature
        undo.pop_all()
        return Subscription(sock, family, version, size, forced)


def register(
    sock: socket.socket, cpus: str, *, timeout_s: float = REPLY_TIMEOUT_S
) -> tuple[int, int]:
    """Have tasks that exit on ``cpus`` (``0-7``) sent to ``sock``; return family and version.

    Looks at the struct that the kernel gives of this very process first, and so
    refuses a version before the first record. Records that arrive before the
    acknowledgement are dropped: recording begins with it.

    Raises:
        NotAccountingError: refused, or not answered in time.
        VersionError: this kernel's struct is not known.

    Source: cmd_attr_register_cpumask() in kernel/taskstats.c.

    """
    family = _ask(
        sock,
        genetlink.encode_family_request(FAMILY_NAME, seq=1),
        1,
        timeout_s,
        genetlink.decode_family,
    )
    own = [(CMD_ATTR_PID, struct.pack("=I", os.getpid()))]
    request = genetlink.encode_request(family, CMD_GET, own, seq=2, ack=False)
    version = _ask(sock, request, 2, timeout_s, _read_version)
    mask = [(CMD_ATTR_REGISTER_CPUMASK, cpus.encode() + b"\0")]
    request = genetlink.encode_request(family, CMD_GET, mask, seq=3, ack=True)
    _ask(sock, request, 3, timeout_s, None)
    return family, version


def close_taskstats(subscription: Subscription, *, possible: Path = POSSIBLE_CPUS) -> None:
    """End a subscription and close its socket.

    Closing alone would do, but the kernel notices only at the next exit on each
    CPU, and might by then send to another socket with the same port.
    """
    with subscription.socket as sock, contextlib.suppress(NotAccountingError):
        _deregister(sock, subscription.family, _read_possible_cpus(possible))


def _deregister(sock: socket.socket, family: int, cpus: str) -> None:
    mask = [(CMD_ATTR_DEREGISTER_CPUMASK, cpus.encode() + b"\0")]
    with contextlib.suppress(OSError):
        sock.send(genetlink.encode_request(family, CMD_GET, mask, seq=4, ack=False))


def _read_version(reply: Reply) -> int:
    found = _find_stats(reply.attributes, TYPE_AGGR_PID, TYPE_PID)
    if found is None:
        error = "the kernel's reply has no taskstats struct in it"
        raise MessageError(error)
    return int(_VERSION.unpack_from(found[1])[0])


def _prove_flow(sock: socket.socket, timeout_s: float) -> None:
    """Let a thread exit and wait for its record.

    In another network namespace the kernel accepts the registration, and then
    sends to the host's namespace: nothing comes, and nothing says why.

    Source: send_cpu_listeners() in kernel/taskstats.c, genlmsg_unicast(&init_net, ...).
    """
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    deadline = time.monotonic() + timeout_s
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
        record = reduce_record(sock.recv(_LONGEST_DATAGRAM))
        if record is not None and decode_task_record(record).tgid == os.getpid():
            return
    message = "the kernel took the registration for exiting tasks, but sends none"
    raise NotAccountingError(message, hint=_hint(None))


def _ask(
    sock: socket.socket,
    request: bytes,
    seq: int,
    timeout_s: float,
    read: Callable[[Reply], int] | None,
) -> int:
    """Send a request; return what ``read`` finds in the reply, or 0 when it is None."""
    try:
        sock.send(request)
    except OSError as error:
        reason = f"the kernel does not tell what tasks cost: {error.strerror}"
        raise NotAccountingError(reason, hint=_hint(error.errno)) from error
    deadline = time.monotonic() + timeout_s
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
        for message in genetlink.decode_messages(sock.recv(_LONGEST_DATAGRAM)):
            if message.seq != seq:
                continue
            if isinstance(message, Reply):
                # Records of exiting tasks have numbers too, from another counter.
                if read is not None:
                    return read(message)
            elif message.error:
                reason = f"the kernel does not tell what tasks cost: {os.strerror(message.error)}"
                raise NotAccountingError(reason, hint=_hint(message.error))
            elif read is None:
                return 0
    timeout = f"the kernel did not answer a question about taskstats within {timeout_s:g} s"
    raise NotAccountingError(timeout, hint=_hint(None))


def _hint(code: int | None) -> str:
    if code == errno.EPERM:
        return "costs need CAP_NET_ADMIN: run as root; everything else is recorded"
    if missing := missing_namespaces():
        names = " and ".join(missing)
        return (
            f"costs can only be recorded in the host's {names} namespace: run prochist on the host"
        )
    return (
        "likely causes: a network namespace that is not the host's (run on the host), or a kernel"
        " without CONFIG_TASKSTATS=y and CONFIG_TASK_XACCT=y"
    )


def _read_possible_cpus(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} does not say which CPUs there can be"
        raise NotAccountingError(message, hint="mount sysfs on /sys") from error
