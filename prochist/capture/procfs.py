"""/proc: what it says of one process, read through one held descriptor.

Reading gives bytes as the kernel wrote them; the ``parse_`` functions are pure
and give None for what is not there or makes no sense. After the exit of a
process its descriptor answers ESRCH even when the pid is used again, so two
processes are never mixed.

Reading cmdline takes the mmap lock of the process and can block for as long as
the process is stuck: only a process that may be killed reads here.

Source: man page proc(5); fs/proc/base.c and array.c, Linux 6.18.
"""

import contextlib
import errno
import os
import struct
import time
from typing import NamedTuple

from prochist.capture.observation import Description, Fault, Reason
from prochist.clock import MonotonicNs, Ticks

ARGV_BOUND = 128 * 1024
"""Most bytes of argv that are kept: the longest single argument that execve takes.

Source: MAX_ARG_STRLEN in include/uapi/linux/binfmts.h.
"""

_FIRST_READ = 4096
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_HOLD_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DENIED = frozenset({errno.EACCES, errno.EPERM})


def describe_exec(pid: int, at_ns: MonotonicNs, *, proc: str = "/proc") -> Description:
    """Describe a process that just called execve, most fleeting facts first.

    ``at_ns`` is the timestamp of its EXEC message. Costs about 45 us.
    """
    description = Description(Reason.EXEC, pid, at_ns, at_ns)
    _describe(description, f"{proc}/{pid}")
    return description


def describe_running(
    pid: int, *, proc: str = "/proc", lock_free: bool = False
) -> Description | None:
    """Describe a process that was found running, or return None when it is gone.

    With ``lock_free``, nothing is read for which the kernel takes the mmap
    lock of the process (argv), so that a stuck process cannot hold us up.
    """
    now = MonotonicNs(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    description = Description(Reason.SCAN, pid, now, now)
    path = f"{proc}/{pid}"
    _describe(description, path, lock_free=lock_free)
    if description.stat is None:
        return None
    stat = parse_stat(description.stat)
    if stat is None:
        return None
    if stat.state in b"ZX":
        description.fault |= Fault.ZOMBIE
        description.argv = None
    if stat.num_threads > 1:
        with contextlib.suppress(OSError):
            tids = [int(name) for name in os.listdir(f"{path}/task") if name.isdecimal()]
            description.tids = struct.pack(f"={len(tids)}I", *tids)
    return description


def list_pids(*, proc: str = "/proc") -> list[int]:
    """List the processes that /proc shows, in the order of their pids.

    Raises:
        OSError: there is no /proc.

    """
    return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())


def read_stat(pid: int, *, proc: str = "/proc") -> "Stat | None":
    """Read /proc/PID/stat, or return None when the process is gone."""
    try:
        with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(_FIRST_READ) or b"")
    except OSError:
        return None


def read_cgroup(pid: int, *, proc: str = "/proc") -> bytes | None:
    """Read /proc/PID/cgroup of a living process, or return None when it is gone or a zombie."""
    try:
        held = os.open(f"{proc}/{pid}", _HOLD_FLAGS)
    except OSError:
        return None
    try:
        file = os.open("cgroup", _READ_FLAGS, dir_fd=held)
        try:
            text = os.read(file, 64 * 1024)
        finally:
            os.close(file)
        os.readlink("exe", dir_fd=held)  # fails for a zombie, which is shown in "/"
    except OSError:
        return None
    finally:
        os.close(held)
    return text


def _describe(description: Description, path: str, *, lock_free: bool = False) -> None:
    d = description
    try:
        held = os.open(path, _HOLD_FLAGS)
    except OSError as error:
        d.fault |= Fault.DENIED if error.errno in _DENIED else Fault.GONE
        d.read_ns = MonotonicNs(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        return
    try:
        argv = None if lock_free else _read(d, held, "cmdline", ARGV_BOUND + 1)
        d.exe = _read_link(d, held, "exe")
        d.cwd = _read_link(d, held, "cwd")
        d.read_ns = MonotonicNs(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        if argv is not None and len(argv) > ARGV_BOUND:
            argv = argv[:ARGV_BOUND]
            d.fault |= Fault.ARGV_CUT
        # A dead process has an empty cmdline too; one whose exe is still there is alive.
        d.argv = argv if argv or d.exe is not None else None
        d.stat = _read(d, held, "stat", _FIRST_READ)
        d.status = _read(d, held, "status", _FIRST_READ)
        d.cgroup = _read(d, held, "cgroup", 64 * 1024)
        d.login_uid = _read(d, held, "loginuid", 64)
        d.session = _read(d, held, "sessionid", 64)
        if d.reason is Reason.SCAN:
            d.io = _read(d, held, "io", _FIRST_READ)
    finally:
        os.close(held)


def _read(description: Description, held: int, name: str, bound: int) -> bytes | None:
    try:
        file = os.open(name, _READ_FLAGS, dir_fd=held)
    except OSError as error:
        _note(description, error, name)
        return None
    try:
        content = os.read(file, min(bound, _FIRST_READ))
        if len(content) == _FIRST_READ < bound:
            parts = [content]
            left = bound - len(content)
            while left and (part := os.read(file, left)):
                parts.append(part)
                left -= len(part)
            content = b"".join(parts)
    except OSError as error:
        _note(description, error, name)
        return None
    finally:
        os.close(file)
    return content


def _read_link(description: Description, held: int, name: str) -> bytes | None:
    try:
        return os.fsencode(os.readlink(name, dir_fd=held))
    except OSError as error:
        _note(description, error, name)
        return None


_OPTIONAL = frozenset(
    {"loginuid", "sessionid", "io", "exe"}
)  # absent without audit; exe of kernel threads


def _note(description: Description, error: OSError, name: str) -> None:
    if error.errno in _DENIED:
        description.fault |= Fault.DENIED
    elif error.errno == errno.ESRCH or name not in _OPTIONAL:
        description.fault |= Fault.GONE


# --- texts ----------------------------------------------------------------------

PF_KTHREAD = 0x00200000
"""Flag of a kernel thread in /proc/PID/stat field 9. Source: include/linux/sched.h."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that prochist uses, with the names of the man page."""

    comm: bytes
    state: bytes
    ppid: int
    session: int
    tty_nr: int
    flags: int
    utime: int
    stime: int
    num_threads: int
    starttime: Ticks
    exit_code: int | None
    """A wait status; None when the kernel does not show it to us."""


_STARTTIME = 22 - 3
_EXIT_CODE = 52 - 3


def parse_stat(text: bytes) -> Stat | None:
    """Parse /proc/PID/stat, or return None for what is not such a text.

    comm may hold anything, also blanks and parentheses: it ends at the last
    closing parenthesis.
    """
    start = text.find(b"(")
    end = text.rfind(b")")
    if start < 0 or end < start:
        return None
    rest = text[end + 2 :].split()
    try:
        return Stat(
            comm=text[start + 1 : end],
            state=rest[0],
            ppid=int(rest[1]),
            session=int(rest[3]),
            tty_nr=int(rest[4]),
            flags=int(rest[6]),
            utime=int(rest[11]),
            stime=int(rest[12]),
            num_threads=int(rest[17]),
            starttime=Ticks(int(rest[_STARTTIME])),
            exit_code=int(rest[_EXIT_CODE]) if len(rest) > _EXIT_CODE else None,
        )
    except (ValueError, IndexError):
        return None


class Ids(NamedTuple):
    """Who a process is, of /proc/PID/status."""

    uid: int
    euid: int
    gid: int
    egid: int
    ns_pid: int | None
    """Its pid in the innermost pid namespace; None where the kernel does not say."""


def parse_status(text: bytes) -> Ids | None:
    """Parse the ids of /proc/PID/status, or return None for what is not such a text."""
    try:
        uids = _line(text, b"\nUid:\t").split(b"\t", 2)
        gids = _line(text, b"\nGid:\t").split(b"\t", 2)
        ns_pids = _line(text, b"\nNSpid:\t").split()
        return Ids(
            int(uids[0]),
            int(uids[1]),
            int(gids[0]),
            int(gids[1]),
            int(ns_pids[-1]) if ns_pids else None,
        )
    except (ValueError, IndexError):
        return None


def _line(text: bytes, label: bytes) -> bytes:
    # The first line is "Name:", in which the kernel escapes newlines: no label can be forged.
    at = text.find(label)
    if at < 0:
        return b""
    at += len(label)
    end = text.find(b"\n", at)
    return text[at : end if end >= 0 else len(text)]


_UNSET = 0xFFFFFFFF


def parse_audit_id(text: bytes | None) -> int | None:
    """Parse /proc/PID/loginuid or sessionid, or return None when it is not set."""
    try:
        number = int(text) if text else _UNSET
    except ValueError:
        return None
    return number if 0 <= number < _UNSET else None


_PTS_MAJORS = range(136, 144)
_TTY_MAJOR = 4
_FIRST_SERIAL_MINOR = 64
_CONSOLE = (5, 1)


def parse_tty(tty_nr: int) -> str | None:
    """Return the name under /dev of the terminal that tty_nr means, or None when there is none.

    Source: Documentation/admin-guide/devices.txt; new_encode_dev() in include/linux/kdev_t.h.
    """
    if tty_nr <= 0:
        return None
    major = (tty_nr >> 8) & 0xFFF
    minor = (tty_nr & 0xFF) | ((tty_nr >> 12) & 0xFFF00)
    if major in _PTS_MAJORS:
        return f"pts/{(major - _PTS_MAJORS.start) * 256 + minor}"
    if major == _TTY_MAJOR:
        serial = minor >= _FIRST_SERIAL_MINOR
        return f"ttyS{minor - _FIRST_SERIAL_MINOR}" if serial else f"tty{minor}"
    if (major, minor) == _CONSOLE:
        return "console"
    return f"{major}:{minor}"
