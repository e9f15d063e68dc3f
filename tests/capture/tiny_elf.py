"""The shortest-lived program: a static ELF file of two system calls' worth of life.

It exits with status 0 and does nothing else: execve to exit is some 20 us, too short for
anybody who reads /proc. Made here byte by byte, so that the tests need no compiler.

Source: man page elf(5).
"""

import platform
import struct
from pathlib import Path

_MACHINE_AND_EXIT = {
    "x86_64": (62, bytes.fromhex("31ffb83c0000000f05")),
    "aarch64": (183, bytes.fromhex("000080d2a80b80d2010000d4")),
}
_LOADED_AT = 0x400000
_HEADER_BYTES, _SEGMENT_BYTES = 64, 56


def tiny_elf(machine: str = platform.machine()) -> bytes:
    """Return a program that exits with status 0; KeyError on an architecture not known here."""
    number, code = _MACHINE_AND_EXIT[machine]
    code_at = _HEADER_BYTES + _SEGMENT_BYTES
    size = code_at + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,
        number,
        1,
        _LOADED_AT + code_at,
        _HEADER_BYTES,
        0,
        0,
        _HEADER_BYTES,
        _SEGMENT_BYTES,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x1000)
    return header + segment + code


def write_tiny_elf(path: Path) -> Path:
    """Write the program, executable by all, and return its path."""
    path.write_bytes(tiny_elf())
    path.chmod(0o755)
    return path
