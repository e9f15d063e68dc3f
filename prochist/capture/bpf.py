"""bpf(2): maps, programs and raw tracepoints, as descriptors.

Thin: each function is one call of the kernel and raises OSError as it says. What a
program does, and what a refusal means to the user, others know. Descriptors are
close-on-exec; a map or program lives as long as somebody holds one.

Source: man page bpf(2); union bpf_attr in include/uapi/linux/bpf.h, Linux 6.18.
"""

import ctypes
import errno
import os
import platform
import struct
from enum import IntEnum
from pathlib import Path
from typing import Final

_SYSCALL_NUMBERS: Final = {"x86_64": 321, "aarch64": 280}
"""Source: arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h."""

_MAP_CREATE, _MAP_LOOKUP, _PROGRAM_LOAD, _OBJECT_INFO, _RAW_TRACEPOINT_OPEN = 0, 1, 5, 15, 17
_RAW_TRACEPOINT_PROGRAM: Final = 17

_NAME_BYTES: Final = 15
_LOG_BYTES: Final = 4 << 20
_MISSES: Final = struct.Struct("=208xQ")
"""struct bpf_prog_info up to recursion_misses, which 5.12 brought."""

_POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class MapType(IntEnum):
    """Kinds of maps."""

    PER_CPU_ARRAY = 6
    RING_BUFFER = 27


class ProgramRefusedError(OSError):
    """A program that the kernel did not load; `log` is what the verifier said, or empty."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(code, os.strerror(code))
        self.log = log


def has_bpf() -> bool:
    """Say whether this machine's architecture is one whose bpf(2) is known here."""
    return platform.machine() in _SYSCALL_NUMBERS


def create_map(kind: MapType, name: str, *, key: int, value: int, entries: int) -> int:
    """Create a map and return its descriptor; key and value in bytes."""
    attributes = struct.pack(
        "=IIIIIII16s", kind, key, value, entries, 0, 0, 0, name.encode()[:_NAME_BYTES]
    )
    return _bpf(_MAP_CREATE, attributes)


def load_program(code: bytes, name: str, licence: str) -> int:
    """Load a raw tracepoint program and return its descriptor.

    Raises: ProgramRefusedError, with the verifier's message.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence_text = ctypes.create_string_buffer(licence.encode())

    def attempt(log: "ctypes.Array[ctypes.c_char] | None") -> int:
        return _bpf(
            _PROGRAM_LOAD,
            struct.pack(
                "=IIQQIIQII16s",
                _RAW_TRACEPOINT_PROGRAM,
                len(code) // 8,
                ctypes.addressof(instructions),
                ctypes.addressof(licence_text),
                0 if log is None else 1,
                0 if log is None else _LOG_BYTES,
                0 if log is None else ctypes.addressof(log),
                0,
                0,
                name.encode()[:_NAME_BYTES],
            ),
        )

    try:
        return attempt(None)
    except OSError:
        # Once more, for the reason only: a log costs time, and can fail a good program (ENOSPC).
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(log)
        except OSError as again:
            text = log.value.decode(errors="replace")
            raise ProgramRefusedError(again.errno or errno.EINVAL, text) from again


def attach_raw_tracepoint(name: str, program_fd: int) -> int:
    """Run a program at a raw tracepoint for as long as the returned descriptor is open."""
    text = ctypes.create_string_buffer(name.encode())
    attributes = struct.pack("=QII", ctypes.addressof(text), program_fd, 0)
    return _bpf(_RAW_TRACEPOINT_OPEN, attributes)


def sum_per_cpu_counter(map_fd: int) -> int:
    """Return the first element of a per-CPU array of 64 bits, summed over all possible CPUs."""
    cpus = count_possible_cpus(_POSSIBLE_CPUS.read_text())
    key = ctypes.c_uint32(0)
    values = (ctypes.c_uint64 * cpus)()
    attributes = struct.pack(
        "=IIQQQ", map_fd, 0, ctypes.addressof(key), ctypes.addressof(values), 0
    )
    _bpf(_MAP_LOOKUP, attributes)
    return sum(values)


def read_recursion_misses(program_fd: int) -> int:
    """Return how often a program was not run because this CPU was running it already.

    That takes a kernel that preempts tracepoint programs. Kernels before 5.12 do
    not count it, and do not preempt them either: 0.

    Source: __bpf_trace_run() in kernel/trace/bpf_trace.c.
    """
    info = ctypes.create_string_buffer(_MISSES.size)
    attributes = struct.pack("=IIQ", program_fd, len(info), ctypes.addressof(info))
    _bpf(_OBJECT_INFO, attributes)
    misses: int = _MISSES.unpack(info.raw)[0]
    return misses


def count_possible_cpus(text: str) -> int:
    """Count the CPUs of a list such as `0-3,8`.

    A lookup in a per-CPU map fills one value for each CPU that is possible, without holes.

    Source: bpf_percpu_array_copy() in kernel/bpf/arraymap.c.
    """
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2) and return its result. Raises OSError."""
    number = _SYSCALL_NUMBERS[platform.machine()]
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _libc.syscall(
        ctypes.c_long(number), ctypes.c_long(command), buffer, ctypes.c_ulong(len(attributes))
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
