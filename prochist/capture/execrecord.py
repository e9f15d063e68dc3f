"""Exec records: what the exec probe writes in the kernel becomes an `ExecRecord`.

Pure. This is the format between our own program (execprogram.py) and whoever reads
its ring (execprobe.py). Capture files hold such records: whoever changes it gives
`observation.MAGIC` another number.

Names are the kernel's: `tgid` is a process, `tid` a thread. Seen in experiments on
Linux 6.18 (tests/capture/test_execprobe.py repeats them), where the record is made:

* The new credentials are in force: for a set-user-id program `uid` is the caller's
  and `euid` the file's owner.
* A thread that is not the leader has taken the leader's tgid and start time; `old_tid`
  still is the one that called execve.
* `exec_path` is what execve was given, also for a `#!` script, where argv and exe are the
  interpreter's. For execveat it is /dev/fd/N, or /dev/fd/N/PATH for a path below a
  directory's descriptor.
* argv is whole and untouched: no instruction of the new program has run.

Source: exec_binprm(), begin_new_exec(), de_thread() and alloc_bprm() in fs/exec.c;
TP_PROTO of sched_process_exec in include/trace/events/sched.h, Linux 6.18.
"""

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from prochist.clock import BootNs, MonotonicNs
from prochist.errors import ProchistError


class MalformedExecRecordError(ProchistError):
    """Say that bytes are not a record of the exec probe."""


COMM_BYTES: Final = 16
FIELDS: Final = (
    ("size", "I"),  # of the whole record; while it is made, where the next piece goes
    ("flags", "I"),
    ("monotonic_ns", "Q"),
    ("start_boottime_ns", "Q"),
    ("cgroup_id", "Q"),
    ("cgroups_key", "Q"),
    ("exe_inode", "Q"),
    ("argv_size", "Q"),  # before it was cut
    ("tgid", "I"),
    ("old_tid", "I"),
    ("parent_tgid", "I"),
    ("uid", "I"),
    ("gid", "I"),
    ("euid", "I"),
    ("egid", "I"),
    ("login_uid", "I"),
    ("session", "I"),
    ("sid", "I"),
    ("ns_pid", "I"),
    ("tty", "I"),
    ("exe_device", "I"),
    ("argc", "I"),
    # Four pieces follow one another: exec_path with its NUL; the names of exe and of cwd,
    # innermost first, each with a NUL; and argv as it lies in memory, up to the end.
    ("exec_path_end", "I"),
    ("exe_end", "I"),
    ("cwd_end", "I"),
    ("comm", "16s"),
)
_HEADER: Final = struct.Struct("=" + "".join(form for _, form in FIELDS))
OFFSETS: Final = {
    name: struct.calcsize("=" + "".join(form for _, form in FIELDS[:index]))
    for index, (name, _) in enumerate(FIELDS)
}
HEADER_BYTES: Final = (_HEADER.size + 7) & ~7
_SHORT: Final = struct.Struct("=I")
_PADDING: Final = bytes(HEADER_BYTES - _HEADER.size)

ARGV_UNREADABLE, EXEC_PATH_UNREADABLE = 1, 2
EXE_UNKNOWN, CWD_UNKNOWN, EXE_DELETED, CWD_DELETED = 4, 8, 16, 32

ARGV_BYTES: Final = 16384
"""Most of argv that a record holds; the true length is always known."""
NAME_BYTES: Final = 256
EXEC_PATH_BYTES: Final = 4096 + 32
"""PATH_MAX and the `/dev/fd/N/` before it. Source: alloc_bprm() in fs/exec.c."""
TREE_PATH_BYTES: Final = 4096
RECORD_BYTES: Final = HEADER_BYTES + EXEC_PATH_BYTES + 2 * TREE_PATH_BYTES + ARGV_BYTES
"""A value of a per-CPU map is 32 KiB at most. Source: array_map_alloc_check() in kernel/bpf/."""

_UNSET_ID: Final = 0xFFFF_FFFF
_DELETED: Final = b" (deleted)"


class ExecRecord(NamedTuple):
    """What the kernel knew at one execve. Paths and argv are bytes; sizes are bytes, too."""

    monotonic_ns: MonotonicNs
    tgid: int
    old_tid: int  # the thread that called execve
    start_boottime_ns: BootNs  # of the process, not of the execve
    parent_tgid: int  # the process that is its parent now
    uid: int
    gid: int
    euid: int
    egid: int
    login_uid: int | None
    session: int | None  # audit's
    sid: int  # pid of the session's leader; 0: it is in another pid namespace or gone
    ns_pid: int  # its pid in its own pid namespace
    tty_nr: int  # as field 7 of /proc/PID/stat; 0: none
    cgroup_id: int  # of cgroup v2, also where v1 controllers are in use
    cgroups_key: int  # equal for processes that are in the same cgroup of every hierarchy
    exe_device: int  # as os.makedev; of the file system's superblock, see below
    exe_inode: int
    comm: bytes
    exec_path: bytes | None
    exe: bytes | None  # as readlink of /proc/PID/exe shows it, ` (deleted)` included
    cwd: bytes | None
    argc: int
    argv_size: int  # true size; 0 when there are no arguments
    argv: bytes | None  # NUL-terminated arguments, at most ARGV_BYTES; None: could not be read

    # btrfs and overlayfs show another st_dev to stat(2) than that of their superblock,
    # so exe_device and exe_inode are a key of the file, not always what `stat` prints.

    @property
    def argv_complete(self) -> bool:
        """Whether argv is all there is."""
        return self.argv is not None and len(self.argv) == self.argv_size


def decode_exec_record(payload: bytes) -> ExecRecord:
    """Decode what the probe wrote about one execve.

    Raises: MalformedExecRecordError.
    """
    if len(payload) < HEADER_BYTES:
        raise MalformedExecRecordError(
            f"exec record of {len(payload)} bytes is shorter than its header"
        )
    (
        size,
        flags,
        monotonic_ns,
        start_boottime_ns,
        cgroup_id,
        cgroups_key,
        exe_inode,
        argv_size,
        tgid,
        old_tid,
        parent_tgid,
        uid,
        gid,
        euid,
        egid,
        login_uid,
        session,
        sid,
        ns_pid,
        tty,
        exe_device,
        argc,
        exec_path_end,
        exe_end,
        cwd_end,
        comm,
    ) = _HEADER.unpack_from(payload)
    if size != len(payload) or not HEADER_BYTES <= exec_path_end <= exe_end <= cwd_end <= size:
        raise MalformedExecRecordError(
            f"exec record of {len(payload)} bytes does not hold its pieces"
        )
    if size - cwd_end > argv_size:
        raise MalformedExecRecordError(f"exec record has more argv than its {argv_size} bytes")
    return ExecRecord(
        monotonic_ns,
        tgid,
        old_tid,
        start_boottime_ns,
        parent_tgid,
        uid,
        gid,
        euid,
        egid,
        None if login_uid == _UNSET_ID else login_uid,
        None if session == _UNSET_ID else session,
        sid,
        ns_pid,
        (tty & 0xFF) | (tty >> 20) << 8 | (tty & 0xFFF00) << 12,
        cgroup_id,
        cgroups_key,
        os.makedev(exe_device >> 20, exe_device & 0xFFFFF),
        exe_inode,
        comm.partition(b"\0")[0],
        None
        if flags & EXEC_PATH_UNREADABLE
        else payload[HEADER_BYTES:exec_path_end].partition(b"\0")[0],
        None
        if flags & EXE_UNKNOWN
        else _decode_path(payload[exec_path_end:exe_end], flags & EXE_DELETED),
        None
        if flags & CWD_UNKNOWN
        else _decode_path(payload[exe_end:cwd_end], flags & CWD_DELETED),
        argc,
        argv_size,
        None if flags & ARGV_UNREADABLE else payload[cwd_end:],
    )


def _sparse(*names: str) -> struct.Struct:
    """Return what unpacks these fields alone, in the order of the record."""
    form, at = "=", 0
    for name, code in FIELDS:
        if name in names:
            form += f"{OFFSETS[name] - at}x{code}"
            at = OFFSETS[name] + struct.calcsize(code)
    return struct.Struct(form)


_BRIEF: Final = _sparse(
    "size", "monotonic_ns", "start_boottime_ns", "cgroups_key", "tgid", "parent_tgid", "sid",
    "ns_pid",
)  # fmt: skip
_WHO: Final = slice(OFFSETS["uid"], OFFSETS["sid"])
_TTY: Final = slice(OFFSETS["tty"], OFFSETS["tty"] + 4)
_FLAGS: Final = slice(OFFSETS["flags"], OFFSETS["flags"] + 4)
_ENDS: Final = OFFSETS["exec_path_end"]
_WHAT: Final = _sparse("flags", "argv_size", "cwd_end")
_NEEDS: Final = _sparse("size", "cgroups_key", "argv_size", "tgid", "cwd_end")


class ExecBrief(NamedTuple):
    """What is new in each record; the rest, which repeats, is looked up by its bytes.

    Decoding it all takes 1.8 us, this 0.5.
    """

    size: int
    monotonic_ns: MonotonicNs
    start_boottime_ns: BootNs
    cgroups_key: int
    tgid: int
    parent_tgid: int
    sid: int
    ns_pid: int


_new_brief: Final[Callable[[tuple[int, ...]], ExecBrief]] = partial(tuple.__new__, ExecBrief)
"""ExecBrief._make, in a third of the time."""


def brief_exec_record(payload: bytes) -> ExecBrief:
    """Decode what is new in a record.

    Raises: MalformedExecRecordError.
    """
    if len(payload) < HEADER_BYTES or _SHORT.unpack_from(payload)[0] != len(payload):
        raise MalformedExecRecordError(f"exec record of {len(payload)} bytes is not whole")
    return _new_brief(_BRIEF.unpack_from(payload))


def split_exec_records(run: bytes) -> Iterator[bytes]:
    """Take apart records that lie one after the other.

    Raises: MalformedExecRecordError, after those before it.
    """
    at = 0
    while at < len(run):
        size = _SHORT.unpack_from(run, at)[0] if len(run) - at >= HEADER_BYTES else 0
        if not HEADER_BYTES <= size <= len(run) - at:
            raise MalformedExecRecordError(f"exec record at byte {at} of {len(run)} is not whole")
        yield run[at : at + size] if size < len(run) else run
        at += size


class What(NamedTuple):
    """What a record says of the program, no further decoded than needed to find it again."""

    program: bytes
    """Equal in two records of the same comm, paths and flags."""
    argv: bytes | None
    argv_complete: bool


def what_ran(payload: bytes) -> What:
    """Return what a record says was run.

    Raises: MalformedExecRecordError.
    """
    flags, argv_size, cwd_end = _WHAT.unpack_from(payload)
    argv = payload[cwd_end:]
    if not HEADER_BYTES <= cwd_end <= len(payload) or len(argv) > argv_size:
        raise MalformedExecRecordError(
            f"exec record of {len(payload)} bytes does not hold its pieces"
        )
    program = payload[_ENDS:cwd_end] + payload[_FLAGS]
    if flags & ARGV_UNREADABLE:
        return What(program, None, False)  # noqa: FBT003  a named tuple
    return What(program, argv, len(argv) == argv_size)


def who_ran(payload: bytes) -> bytes:
    """Return bytes that are equal in two records of the same ids, login and terminal."""
    return payload[_WHO] + payload[_TTY]


class Needs(NamedTuple):
    """What the receiver must know of a record: it decodes nothing else."""

    tgid: int
    cgroups_key: int
    is_argv_cut: bool


def read_needs(payload: bytes) -> Needs | None:
    """Return what /proc has to be asked for besides a record; None when it is malformed."""
    if len(payload) < HEADER_BYTES:
        return None
    size, cgroups_key, argv_size, tgid, cwd_end = _NEEDS.unpack_from(payload)
    if size != len(payload):
        return None
    return Needs(tgid, cgroups_key, size - cwd_end < argv_size)


def encode_exec_record(record: ExecRecord) -> bytes:
    """Write a record as the probe would: for rehearsals and tests."""
    flags = 0
    if record.argv is None:
        flags |= ARGV_UNREADABLE
    if record.exec_path is None:
        exec_path = b""
        flags |= EXEC_PATH_UNREADABLE
    else:
        exec_path = record.exec_path + b"\0"
    exe, exe_flags = _encode_path(record.exe, EXE_UNKNOWN, EXE_DELETED)
    cwd, cwd_flags = _encode_path(record.cwd, CWD_UNKNOWN, CWD_DELETED)
    exec_path_end = HEADER_BYTES + len(exec_path)
    exe_end = exec_path_end + len(exe)
    cwd_end = exe_end + len(cwd)
    pieces = exec_path + exe + cwd + (record.argv or b"")
    header = _HEADER.pack(
        HEADER_BYTES + len(pieces),
        flags | exe_flags | cwd_flags,
        record.monotonic_ns,
        record.start_boottime_ns,
        record.cgroup_id,
        record.cgroups_key,
        record.exe_inode,
        record.argv_size,
        record.tgid,
        record.old_tid,
        record.parent_tgid,
        record.uid,
        record.gid,
        record.euid,
        record.egid,
        _UNSET_ID if record.login_uid is None else record.login_uid,
        _UNSET_ID if record.session is None else record.session,
        record.sid,
        record.ns_pid,
        (record.tty_nr >> 8 & 0xFFF) << 20 | record.tty_nr >> 12 & 0xFFF00 | record.tty_nr & 0xFF,
        os.major(record.exe_device) << 20 | os.minor(record.exe_device),
        record.argc,
        exec_path_end,
        exe_end,
        cwd_end,
        record.comm,
    )
    return header + _PADDING + pieces


def _decode_path(names: bytes, deleted: int) -> bytes:
    """Turn names, innermost first, into a path as readlink shows it."""
    parts = names.split(b"\0")
    # Behind the last NUL is nothing: it becomes the slash before the first name.
    path = b"/".join(parts[::-1]) if len(parts) > 1 else b"/"
    return path + _DELETED if deleted else path


def _encode_path(path: bytes | None, unknown: int, deleted: int) -> tuple[bytes, int]:
    """Turn a path into names, innermost first, and its flags."""
    if path is None:
        return b"", unknown
    flags = 0
    if path.endswith(_DELETED):
        path = path[: -len(_DELETED)]
        flags = deleted
    if path == b"/":
        return b"", flags
    return b"\0".join(path.split(b"/")[:0:-1]) + b"\0", flags
