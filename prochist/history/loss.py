"""Loss: sequence numbers and drop counters become numbers of events that are missing.

Pure. It does not know what the missing events were, nor what a lifetime is.
"""

from collections.abc import Iterable
from typing import NamedTuple

from prochist.capture.connector import Message
from prochist.clock import MonotonicNs


class Missing(NamedTuple):
    """Events that the kernel sent and we never received."""

    lost: int
    after_ns: MonotonicNs | None
    """Newest event of that CPU before them; None when they are older than this recorder."""
    before_ns: MonotonicNs
    """Oldest event of that CPU after them."""
    cpu: int


class SequenceGaps:
    """Counts messages that the kernel sent and we never received.

    The connector numbers messages per CPU, mod 2**32, so each CPU is followed
    on its own. Show it every message: acknowledgements to other listeners take
    a number too. A CPU that was never seen sets its own beginning.

    Source: send_msg() in drivers/connector/cn_proc.c.
    """

    def __init__(self, newest: dict[int, int] | None = None) -> None:
        self.newest: dict[int, int] = dict(newest or {})
        """Newest sequence number of each CPU."""
        self._times: dict[int, MonotonicNs] = {}
        self.received = 0
        self.missing = 0

    def feed(self, messages: Iterable[Message]) -> list[Missing]:
        """Follow the numbers of these messages and return what is missing before them."""
        found: list[Missing] = []
        newest = self.newest
        times = self._times
        for message in messages:
            seq, _, _, cpu, timestamp = message[:5]
            last = newest.get(cpu)
            if last is not None and seq != last + 1:
                count = (seq - last - 1) & 0xFFFFFFFF
                if count >= 1 << 31:
                    continue  # seen before: salvaged twice, or a stale slot
                if count:
                    found.append(Missing(count, times.get(cpu), timestamp, cpu))
                    self.missing += count
            newest[cpu] = seq
            times[cpu] = timestamp
            self.received += 1
        return found

    def newer(self, messages: Iterable[Message]) -> list[Message]:
        """Return those messages that were not followed yet."""
        found = []
        for message in messages:
            last = self.newest.get(message.cpu)
            if last is None or 0 < (message.seq - last) & 0xFFFFFFFF < 1 << 31:
                found.append(message)
        return found
