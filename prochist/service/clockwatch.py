"""The clock watch: wakes the recorder when somebody sets the clock, and says what changed.

Source: man page timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.
"""

import contextlib
import ctypes
import os
import time
from typing import NamedTuple

from prochist.clock import NS_PER_SECOND, ClockReading, read_clock

STEP_NS = NS_PER_SECOND // 100
"""Smallest change of the wall clock, in ns, that is a step: slewing moves CLOCK_MONOTONIC too."""

SUSPEND_NS = NS_PER_SECOND // 10
"""Shortest suspend, in ns, that is told."""

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
_libc = ctypes.CDLL(None, use_errno=True)


class ClockChange(NamedTuple):
    """How the clocks moved against each other between two readings."""

    before: ClockReading
    after: ClockReading
    step_ns: int
    """How far somebody set the wall clock forward; negative is backward; 0 when below STEP_NS."""
    suspended_ns: int
    """How long the machine was suspended; 0 when it was not."""


def compare_clocks(before: ClockReading, after: ClockReading) -> ClockChange:
    """Say what happened to the clocks between two readings."""
    suspended = after.boot_offset_ns - before.boot_offset_ns
    step = after.epoch_offset_ns - before.epoch_offset_ns - suspended
    return ClockChange(
        before,
        after,
        step if abs(step) >= STEP_NS else 0,
        suspended if suspended >= SUSPEND_NS else 0,
    )


class ClockWatch:
    """A descriptor that becomes readable when the wall clock is set. Close it."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.fd >= 0:
            self._arm()

    def _arm(self) -> None:
        far = int(time.time()) + 100 * 366 * 86400
        spec = (ctypes.c_long * 4)(0, 0, far, 0)
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        _libc.timerfd_settime(self.fd, flags, spec, None)

    def check(self, last: ClockReading) -> ClockChange:
        """Read the clocks, compare them with ``last``, and watch on."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # ECANCELED: it was set; EAGAIN: it was not
                os.read(self.fd, 8)
            self._arm()
        return compare_clocks(last, read_clock())

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
