"""Times: the three clocks of Linux, and the only conversions between them.

========== ================= ============================================ =========
type       clock             where it comes from                          suspended
========== ================= ============================================ =========
MonotonicNs CLOCK_MONOTONIC  connector events, the exec probe             stands
BootNs     CLOCK_BOOTTIME    /proc/PID/stat field 22 (ticks of 10 ms)     goes on
EpochNs    CLOCK_REALTIME    what people ask for and the database keeps   goes on
========== ================= ============================================ =========

Source: man page clock_gettime(2); man page proc_pid_stat(5), starttime.
"""

import time
from typing import NamedTuple, NewType

MonotonicNs = NewType("MonotonicNs", int)
BootNs = NewType("BootNs", int)
EpochNs = NewType("EpochNs", int)
Ticks = NewType("Ticks", int)

NS_PER_SECOND = 1_000_000_000
NS_PER_TICK = 10_000_000
"""Length of a tick of /proc/PID/stat. Source: USER_HZ, 100 on all architectures known here."""


class ClockReading(NamedTuple):
    """What CLOCK_MONOTONIC showed, and how far ahead of it the other two clocks were."""

    monotonic_ns: MonotonicNs
    boot_offset_ns: int
    epoch_offset_ns: int

    def epoch(self, at: MonotonicNs) -> EpochNs:
        """Convert an instant of CLOCK_MONOTONIC to wall time, as the clock stood here."""
        return EpochNs(at + self.epoch_offset_ns)

    def epoch_of_ticks(self, ticks: Ticks) -> EpochNs:
        """Convert /proc/PID/stat field 22 to wall time, to 10 ms."""
        return EpochNs(ticks * NS_PER_TICK - self.boot_offset_ns + self.epoch_offset_ns)

    def ticks(self, at: MonotonicNs) -> Ticks:
        """Convert an instant of CLOCK_MONOTONIC to what /proc/PID/stat field 22 shows for it."""
        return Ticks((at + self.boot_offset_ns) // NS_PER_TICK)


def read_clock() -> ClockReading:
    """Read the three clocks as one instant.

    The other clocks are read between two readings of CLOCK_MONOTONIC, and the
    closest of five tries counts, so that being interrupted in between does not
    look like a clock step. Typical uncertainty: under 1 us.
    """
    best_width = None
    best = ClockReading(MonotonicNs(0), 0, 0)
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        epoch = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if best_width is None or after - before < best_width:
            best_width = after - before
            middle = (before + after) // 2
            best = ClockReading(MonotonicNs(middle), boot - middle, epoch - middle)
    return best
