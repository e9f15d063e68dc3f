"""The heartbeat: events of our own that prove that the subscription delivers.

The kernel counts listeners in one global number. Another program can leave it
at zero: then nothing is delivered, no sequence number advances, no error
appears. So events are made on purpose: setting our own name to what it is
already makes a COMM event, on whichever CPU we run. Done once on each CPU it
also brings to light what was lost at the end of that CPU's sequence.

Source: proc_comm_connector(), called by prctl(PR_SET_NAME) in kernel/sys.c.
"""

import contextlib
import ctypes
import os
import time
from pathlib import Path

from prochist.capture.connector import Message
from prochist.clock import MonotonicNs

_PR_SET_NAME = 15
_libc = ctypes.CDLL(None, use_errno=True)


class Heartbeat:
    """Beats on every CPU that this process may use, and looks for the beats among events."""

    def __init__(self) -> None:
        self._name = Path("/proc/self/comm").read_bytes().rstrip(b"\n") + b"\0"
        self.sent_ns: MonotonicNs | None = None
        """When the beat that is waited for was sent; None when none is."""
        self.proven_ns = MonotonicNs(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        """Newest instant at which the subscription was shown to deliver."""

    def beat(self) -> int:
        """Make one event on each CPU that we may run on; return how many those are.

        Moves to each CPU and back: 20 us for each.
        """
        allowed = os.sched_getaffinity(0)
        sent = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for cpu in sorted(allowed):
            with contextlib.suppress(OSError):  # taken offline meanwhile
                os.sched_setaffinity(0, {cpu})
                _libc.prctl(_PR_SET_NAME, self._name, 0, 0, 0)
        os.sched_setaffinity(0, allowed)
        if self.sent_ns is None:
            self.sent_ns = MonotonicNs(sent)
        return len(allowed)

    def look_for(self, messages: list[Message]) -> None:
        """Take note of what these messages prove.

        Any event from after the beat does: when the beat itself was lost in an
        overrun, the subscription delivers all the same.
        """
        if self.sent_ns is None or not messages:
            return
        newest = messages[-1].timestamp_ns
        self.proven_ns = max(self.proven_ns, newest)
        if newest >= self.sent_ns:
            self.sent_ns = None
