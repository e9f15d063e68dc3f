"""The sink: where records end up, live ones and those of a replay.

It feeds tracker, loss accounting and writer, in order; it opens nothing and
knows no socket.
"""

from typing import TYPE_CHECKING

from prochist.capture.connector import Message
from prochist.capture.observation import Counters, Messages, Record
from prochist.clock import ClockReading, MonotonicNs
from prochist.history.loss import SequenceGaps
from prochist.history.tracker import Tracker
from prochist.store.writer import OVERRUN, Gap, Progress, Writer

if TYPE_CHECKING:
    from prochist.service.heartbeat import Heartbeat

COMMIT_ROWS = 5_000
"""Rows after which a batch is committed although more waits."""


class Sink:
    """Takes records, in order: feeds tracker, loss accounting and writer, and commits.

    The one path of live events and of a replay.
    """

    def __init__(self, writer: Writer, tracker: Tracker, losses: SequenceGaps) -> None:
        self.writer = writer
        self.tracker = tracker
        self.losses = losses
        self.newest_ns = MonotonicNs(0)
        """Timestamp of the newest event."""
        self.facts: dict[str, object] = {}
        self.heartbeat: Heartbeat | None = None
        self.down_lost = 0
        """Events that the sequence numbers show as missed before the first of this recording."""
        self.lost_since_scan = False
        self.other_lost = 0
        """Records of the other sources that were lost."""
        self.gaps = 0
        self.drop_next = 0
        """Events to drop on purpose."""
        self.is_silenced = False
        self._counters: Counters | None = None

    def feed(self, record: Record) -> None:
        """Apply one record."""
        match record:
            case Messages(messages):
                if self.drop_next or self.is_silenced:
                    record = self._drop(messages)
                    messages = record.messages
                if not messages:
                    return
                self._account(messages)
                self.newest_ns = max(self.newest_ns, messages[-1].timestamp_ns)
                if self.heartbeat is not None:
                    self.heartbeat.look_for(messages)
            case Counters():
                self._count(record)
        self.writer.add(self.tracker.feed(record))

    def _drop(self, messages: list[Message]) -> Messages:
        if self.is_silenced:
            return Messages([])
        kept = messages[self.drop_next :]
        self.drop_next -= len(messages) - len(kept)
        return Messages(kept)

    def _account(self, messages: list[Message]) -> None:
        missing = self.losses.feed(messages)
        if not missing:
            return
        overrun = [m for m in missing if m.after_ns is not None]
        self.down_lost += sum(m.lost for m in missing if m.after_ns is None)
        if overrun:
            since = min(m.after_ns for m in overrun if m.after_ns is not None)
            until = max(m.before_ns for m in overrun)
            lost = sum(m.lost for m in overrun)
            self.tracker.missed(since, until)
            self.lost_since_scan = True
            self.add_gap(OVERRUN, since, until, lost, "proc connector")

    def _count(self, counters: Counters) -> None:
        """Turn what the other sources dropped since the last counters into gaps."""
        before = self._counters
        self._counters = counters
        if before is None:
            return
        tasks = (counters.taskstats_drops - before.taskstats_drops) & 0xFFFFFFFF
        if tasks:
            self.tracker.missed_tasks(counters.at_ns)
            self.add_gap(OVERRUN, before.at_ns, counters.at_ns, tasks, "taskstats")
            self.other_lost += tasks
        probes = max(0, counters.probe_losses - before.probe_losses)
        if probes:
            self.add_gap(OVERRUN, before.at_ns, counters.at_ns, probes, "exec probe")
            self.other_lost += probes

    def add_gap(
        self, kind: int, since: MonotonicNs, until: MonotonicNs, lost: int | None, detail: str
    ) -> None:
        """Record a gap between two instants of CLOCK_MONOTONIC."""
        epoch = self.tracker.epoch
        self.writer.add_gap(Gap(epoch(since), max(epoch(since), epoch(until)), kind, lost, detail))
        self.gaps += 1

    def commit(self, clock: ClockReading, at: MonotonicNs) -> int:
        """Write what was gathered; events are complete until ``at``. Return how many lives.

        Raises:
            apsw.Error: nothing was written; all is kept.

        """
        progress = Progress(
            clock.epoch(at), at, self.losses.received, self.losses.missing, self.facts,
            self.losses.newest,
        )  # fmt: skip
        return self.writer.commit(self.tracker.next_id, progress)
