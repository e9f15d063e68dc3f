"""Privileges: what the parts of the recorder may do, and giving up the rest.

Opening the sources takes capabilities that recording does not. After it:

* the recorder, which parses and writes, has an effective set that is empty. Its
  permitted set holds what subscribing again, starting a receiver with real-time
  scheduling and reading /proc of others need, raised for these moments only;
* the receiver, once scheduled, and the scanner keep what reading /proc needs.

All of it is for good: what is dropped from the permitted and the bounding set
does not come back with an execve, not even to root.

Source: man pages capabilities(7), capset(2), PR_CAPBSET_DROP(2const);
include/uapi/linux/capability.h.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from enum import IntEnum


class Capability(IntEnum):
    """The capabilities that prochist knows what to do with."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    SETPCAP = 8
    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_NICE = 23
    PERFMON = 38
    BPF = 39


READING = frozenset({Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH})
"""For /proc/PID/exe, cwd and io of other users' processes, and a /proc mounted with hidepid."""

RECORDING = READING | {Capability.NET_ADMIN, Capability.SYS_NICE}
"""For what may have to be done again: a subscription with its buffer, a receiver with SCHED_RR."""

_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_PR_CAPBSET_READ = 23
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_LOWER = 3
_MOST = 64
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_Words = ctypes.c_uint32 * 6  # effective, permitted, inheritable; the low 32 bits, then the high


def _get() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable set as bits."""
    words = _Words()
    header = _Header(_VERSION_3, 0)
    if _libc.capget(ctypes.byref(header), words):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def _set(effective: int, permitted: int, inheritable: int) -> None:
    words = _Words()
    for index, bits in enumerate((effective, permitted, inheritable)):
        words[index] = bits & 0xFFFFFFFF
        words[index + 3] = bits >> 32
    header = _Header(_VERSION_3, 0)
    if _libc.capset(ctypes.byref(header), words):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _bits(capabilities: Iterable[int]) -> int:
    return sum(1 << number for number in capabilities)


def permitted() -> set[int]:
    """Return the numbers of the capabilities that this process has or could raise."""
    bits = _get()[1]
    return {number for number in range(_MOST) if bits >> number & 1}


def keep_only(capabilities: Iterable[int], *, effective: Iterable[int] = ()) -> None:
    """Give up every capability but these, for this process and all that it starts.

    Of those that are kept, ``effective`` are in force; :func:`raised` raises the
    others for a moment. What this process does not have, it does not get.

    Raises:
        OSError: the kernel refuses, as a security module may tell it to.

    """
    kept = _bits(capabilities)
    for number in range(_MOST):
        if kept >> number & 1:
            continue
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_LOWER, number, 0, 0)
        if _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            # Without CAP_SETPCAP it stays; then nothing that we start could gain it but by a
            # set-user-id program, which no_new_privs excludes.
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _, allowed, inheritable = _get()
    allowed &= kept
    _set(allowed & _bits(effective), allowed, inheritable & kept)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Put every capability that is permitted into force for the time of a ``with``."""
    effective, allowed, inheritable = _get()
    if effective == allowed:
        yield
        return
    _set(allowed, allowed, inheritable)
    try:
        yield
    finally:
        _set(effective, allowed, inheritable)


__all__ = ["READING", "RECORDING", "Capability", "keep_only", "permitted", "raised"]
