"""Proc connector: its wire format, and the socket that it arrives on.

The first half is pure: bytes from the kernel become messages. Field names are
the kernel's own, so it can be read next to its source: there, ``pid`` is a
thread and ``tgid`` is a process. The second half opens a subscription and
receives from it, many datagrams for one system call.

It does not know what an event means for a process, and keeps no state between
messages.

Source: include/uapi/linux/cn_proc.h, connector.h and netlink.h, Linux 6.18.
"""

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from prochist.clock import MonotonicNs
from prochist.errors import ProchistError

# --- wire format ------------------------------------------------------------

MESSAGE_SIZE = 76
"""Bytes of a message as prochist keeps it: nlmsghdr, cn_msg, proc_event with a 24-byte body."""

SHORTEST_MESSAGE = 68
"""Bytes that a datagram must have to be an event: header and 16 bytes of body."""

NLMSG_DONE = 3
CN_IDX_PROC = 1
CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1

NONE = 0x0
FORK = 0x1
EXEC = 0x2
UID = 0x4
GID = 0x40
SID = 0x80
PTRACE = 0x100
COMM = 0x200
COREDUMP = 0x40000000
EXIT = 0x80000000

_HEADER = struct.Struct("=IHHIIIIIIHH")  # nlmsghdr, cn_msg
_MESSAGE = struct.Struct("=24xII4xIIQ6I")
_COMM = struct.Struct("=4I")


class Message(NamedTuple):
    """One event as the kernel sent it; ``words`` of the body mean what :data:`BODY` says.

    A plain tuple of integers and not a class per kind of event: decoding is a
    third of what tracking a fork costs (0.25 us against 0.7 us), and it is
    done for 200,000 events a second in a storm of threads.
    """

    seq: int
    """Number of the message on its CPU, mod 2**32."""
    ack: int
    what: int
    cpu: int
    timestamp_ns: MonotonicNs
    word0: int
    word1: int
    word2: int
    word3: int
    word4: int
    word5: int


BODY = {
    NONE: ("err",),
    FORK: ("parent_pid", "parent_tgid", "child_pid", "child_tgid"),
    EXEC: ("pid", "tgid"),
    UID: ("pid", "tgid", "real", "effective"),
    GID: ("pid", "tgid", "real", "effective"),
    SID: ("pid", "tgid"),
    PTRACE: ("pid", "tgid", "tracer_pid", "tracer_tgid"),
    COMM: ("pid", "tgid", "comm0", "comm1", "comm2", "comm3"),
    COREDUMP: ("pid", "tgid", "parent_pid", "parent_tgid"),
    EXIT: ("pid", "tgid", "exit_code", "exit_signal", "parent_pid", "parent_tgid"),
}
"""What the words of a body are, by kind of event."""

WHAT_WORD = 9
"""Index of ``what`` among the 19 words of a message."""
SEQ_WORD = 6
CPU_WORD = 10
TGID_WORD = 14
"""Of an EXEC."""
WORDS = MESSAGE_SIZE // 4


_new_message: Callable[[tuple[int, ...]], Message] = partial(tuple.__new__, Message)
"""Message._make, in a third of the time."""


def decode_messages(run: bytes | memoryview) -> Iterator[Message]:
    """Decode messages that lie one after the other, each of :data:`MESSAGE_SIZE` bytes.

    Raises:
        ValueError: the run is not a whole number of messages.

    """
    if len(run) % MESSAGE_SIZE:
        msg = f"a run of {len(run)} bytes is not a whole number of messages"
        raise ValueError(msg)
    return map(_new_message, _MESSAGE.iter_unpack(run))


def decode_comm(message: Message) -> bytes:
    """Return the task name that a COMM message carries."""
    return _COMM.pack(*message[7:11]).split(b"\0", 1)[0]


def encode_message(  # noqa: PLR0913  the fields of the wire, each by its name
    what: int,
    words: tuple[int, ...],
    *,
    cpu: int = 0,
    seq: int = 0,
    timestamp_ns: int = 0,
    ack: int = 0,
) -> bytes:
    """Encode an event as the kernel would send it."""
    body = struct.pack("=6I", *(word & 0xFFFFFFFF for word in words), *[0] * (6 - len(words)))
    header = _HEADER.pack(
        MESSAGE_SIZE, NLMSG_DONE, 0, 0, 0, CN_IDX_PROC, CN_VAL_PROC, seq, ack, 40, 0
    )
    return header + struct.pack("=IIQ", what, cpu, timestamp_ns) + body


def fit_message(datagram: bytes) -> bytes | None:
    """Return one datagram in the size that prochist keeps, or None when it is no event.

    A shorter body is filled with zeros. What a later kernel may add behind
    the 24 bytes is cut off: nobody here would know what it means.
    """
    if len(datagram) < SHORTEST_MESSAGE:
        return None
    length, kind, _, _, _, idx, val, _, _, body_length, _ = _HEADER.unpack_from(datagram)
    if kind != NLMSG_DONE or idx != CN_IDX_PROC or val != CN_VAL_PROC:
        return None
    if length < SHORTEST_MESSAGE or body_length < SHORTEST_MESSAGE - _HEADER.size:
        return None
    whole = datagram[:MESSAGE_SIZE].ljust(MESSAGE_SIZE, b"\0")
    return MESSAGE_SIZE.to_bytes(4, "little" if _LITTLE else "big") + whole[4:]


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def encode_listen(ack: int) -> bytes:
    """Encode the request to be sent events; the reply carries ``ack`` + 1.

    The 4-byte form: the 8-byte form with an event mask is ignored by kernels
    before 6.6, is never acknowledged, and makes gaps in the sequence normal.
    """
    header = _HEADER.pack(40, NLMSG_DONE, 0, 0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, ack, 4, 0)
    return header + struct.pack("=I", PROC_CN_MCAST_LISTEN)


# --- subscription -----------------------------------------------------------

NETLINK_CONNECTOR = 11
SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
SK_MEMINFO_RMEM_ALLOC = 0
SK_MEMINFO_DROPS = 8
ACK_TIMEOUT_S = 1.0


class NotListeningError(ProchistError):
    """Say that the kernel did not take the subscription."""


class Subscription(NamedTuple):
    """An open subscription; the caller owns the socket."""

    socket: socket.socket
    receive_buffer_bytes: int
    """Memory that the kernel allows for events not yet received."""
    forced: bool
    """Whether the size asked for was granted past net.core.rmem_max."""
    received: bytes
    """Messages that arrived while waiting for the acknowledgement, which comes last."""


def open_subscription(receive_buffer: int, *, timeout_s: float = ACK_TIMEOUT_S) -> Subscription:
    """Subscribe to process events and wait until the kernel says that it listens to us.

    ``receive_buffer`` is in bytes; the kernel keeps double of it. Never ends a
    subscription with PROC_CN_MCAST_IGNORE: the kernel counts listeners in one
    global number, and taking one away may silence another program.

    Raises:
        NotListeningError: refused, or not acknowledged in time.

    Source: cn_proc_mcast_ctl() in drivers/connector/cn_proc.c.

    """
    with contextlib.ExitStack() as undo:
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
        except OSError as error:
            message = f"this kernel has no netlink connector: {error.strerror}"
            raise NotListeningError(message, hint=_hint_kernel()) from error
        undo.callback(sock.close)
        try:
            sock.bind((0, CN_IDX_PROC))
        except PermissionError as error:
            message = "not permitted to receive process events"
            raise NotListeningError(message, hint="run as root, or with CAP_NET_ADMIN") from error
        forced = set_receive_buffer(sock, receive_buffer)
        sock.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
        ack = int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF
        try:
            sock.send(encode_listen(ack))
        except ConnectionRefusedError as error:
            message = "process events can only be received in the initial network namespace"
            raise NotListeningError(message, hint=_hint_place()) from error
        except OSError as error:
            message = f"the subscription to process events was refused: {error.strerror}"
            raise NotListeningError(message, hint=_hint_place()) from error
        received = _wait_for_ack(sock, ack + 1, timeout_s)
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        undo.pop_all()
        sock.setblocking(False)  # noqa: FBT003  the standard library's signature
        return Subscription(sock, size, forced, received)


def set_receive_buffer(sock: socket.socket, size: int) -> bool:
    """Ask for a receive buffer of ``size`` bytes; return whether it was granted in full."""
    size = min(size, 0x3FFFFFFF)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * size


def read_drops(sock: socket.socket) -> int:
    """Return how many datagrams the kernel could not put into this socket, mod 2**32.

    It moves at once, while a gap in the sequence shows at that CPU's next event.

    Source: sk_get_meminfo() in net/core/sock.c.
    """
    return _read_memory(sock)[SK_MEMINFO_DROPS]


def read_queued(sock: socket.socket) -> int:
    """Return the bytes of its receive buffer that wait to be received, 768 to 896 for an event."""
    return _read_memory(sock)[SK_MEMINFO_RMEM_ALLOC]


def _read_memory(sock: socket.socket) -> tuple[int, ...]:
    return struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


def _wait_for_ack(sock: socket.socket, wanted: int, timeout_s: float) -> bytes:
    received = bytearray()
    deadline = time.monotonic() + timeout_s
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        datagram, sender = sock.recvfrom(4096)
        if sender[0] != 0 or (fitted := fit_message(datagram)) is None:
            continue
        received += fitted
        message = next(decode_messages(fitted))
        if message.what == NONE and message.ack == wanted:
            if message.word0:
                text = os.strerror(message.word0)
                error = f"the kernel refused the subscription to process events: {text}"
                raise NotListeningError(error, hint="run as root, or with CAP_NET_ADMIN")
            return bytes(received)
    error = (
        f"the kernel did not acknowledge the subscription to process events within {timeout_s:g} s"
    )
    raise NotListeningError(error, hint=_hint_place())


# Inode numbers of the initial namespaces. Source: include/linux/proc_ns.h.
_INITIAL_NAMESPACES = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}


def missing_namespaces(proc: str = "/proc") -> list[str]:
    """Name the initial namespaces that this process is not in, of those that matter here."""
    missing = []
    for name, inode in _INITIAL_NAMESPACES.items():
        with contextlib.suppress(OSError):
            if os.readlink(f"{proc}/self/ns/{name}") != f"{name}:[{inode}]":
                missing.append(name)
    return missing


def _hint_place() -> str:
    missing = missing_namespaces()
    if missing:
        names = " and ".join(missing)
        return (
            f"this is a container: it lacks the host's {names} namespace;"
            " run prochist on the host, or start the container with the host's"
            " namespaces (docker run --pid=host --network=host --userns=host --cap-add=NET_ADMIN)"
        )
    if os.geteuid() != 0:
        return "before Linux 6.6 only root (CAP_NET_ADMIN) may listen: run as root"
    return (
        "likely causes: a network namespace that is not the host's (run on the host, or with"
        " --network=host), or a kernel without CONFIG_PROC_EVENTS=y"
    )


def _hint_kernel() -> str:
    return "the kernel needs CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y"


# --- receiving many datagrams for one system call ------------------------------


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


_SOCKADDR_NL = 12
_LENGTH_WORD = _Mmsghdr.length.offset // 4
_MMSGHDR_WORDS = ctypes.sizeof(_Mmsghdr) // 4
_libc = ctypes.CDLL(None, use_errno=True)


class SlotReceiver:
    """Receives datagrams of a netlink socket into slots of one size, many at a time.

    The slots lie in memory that the caller gives: when it is shared with
    another process, what was received survives a receiver that is killed
    before it could pass it on.

    recvmmsg(2) by ctypes costs 2.0 us for one datagram but 0.7 us each for
    many, socket.recv() 0.9 us each (``contrib/bench/receive``).

    Source: man page recvmmsg(2); struct mmsghdr in include/linux/socket.h.
    """

    def __init__(self, fd: int, memory: memoryview, slot_size: int) -> None:
        self._fd = fd
        self.slot_size = slot_size
        self.slots = len(memory) // slot_size
        self._memory = memory
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._names = (ctypes.c_uint32 * (3 * self.slots))()
        self._iovecs = (_Iovec * self.slots)()
        self._headers = (_Mmsghdr * self.slots)()
        for index in range(self.slots):
            self._iovecs[index].base = base + index * slot_size
            self._iovecs[index].length = slot_size
            header = self._headers[index].header
            header.name = ctypes.addressof(self._names) + index * _SOCKADDR_NL
            header.namelen = _SOCKADDR_NL
            header.iov = ctypes.addressof(self._iovecs) + index * ctypes.sizeof(_Iovec)
            header.iovlen = 1
        self._name_words = memoryview(self._names).cast("B").cast("I")
        self._length_words = memoryview(self._headers).cast("B").cast("I")
        self._call = _libc.recvmmsg
        self._call.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_void_p,
        )
        self._call.restype = ctypes.c_int
        self._headers_at = ctypes.addressof(self._headers)
        self._flags = socket.MSG_DONTWAIT | socket.MSG_TRUNC

    def receive(self) -> int:
        """Receive what is there and return how many slots were filled; 0 when nothing was.

        Does not block. Slots hold the datagrams in the order of their arrival.

        Raises:
            OSError: the socket is unusable.

        """
        count: int = self._call(self._fd, self._headers_at, self.slots, self._flags, None)
        if count >= 0:
            return count
        code = ctypes.get_errno()
        # ENOBUFS cannot come with NETLINK_NO_ENOBUFS; the drop counter says what it would say.
        if code in (errno.EAGAIN, errno.EINTR, errno.ENOBUFS):
            return 0
        raise OSError(code, os.strerror(code))

    def lengths(self, count: int) -> list[int]:
        """Return the true length of each of the first ``count`` datagrams, in bytes."""
        return self._length_words[_LENGTH_WORD : _MMSGHDR_WORDS * count : _MMSGHDR_WORDS].tolist()

    def senders(self, count: int) -> list[int]:
        """Return the netlink port of the sender of each; 0 is the kernel."""
        return self._name_words[1 : 3 * count : 3].tolist()
