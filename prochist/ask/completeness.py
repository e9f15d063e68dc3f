"""Whether rows may be missing from an answer: the verdict on a window.

A window is complete when no gap overlaps it and recorders covered all of it. The
time between two recordings is a gap that the later one writes down. Known only here
is the time before the first, and that after the last while no recorder is alive.
"""

from typing import TYPE_CHECKING, NamedTuple

from prochist.ask.processes import instant

if TYPE_CHECKING:
    import apsw

    from prochist.clock import EpochNs

GAP_COLUMNS = ("from_at", "from_at_ns", "until_at", "until_at_ns", "kind", "lost", "detail")


class Gap(NamedTuple):
    """Time for which rows may be missing; ``lost`` kernel events, None where it cannot be known."""

    from_at_ns: int
    until_at_ns: int
    kind: str
    lost: int | None
    detail: str | None

    def row(self) -> tuple[int | str | None, ...]:
        """Return the values of ``GAP_COLUMNS``."""
        return (
            instant(self.from_at_ns),
            self.from_at_ns,
            instant(self.until_at_ns),
            self.until_at_ns,
            self.kind,
            self.lost,
            self.detail,
        )


class Verdict(NamedTuple):
    """What is known about a window (None: without that limit)."""

    since_ns: "EpochNs | None"
    until_ns: "EpochNs | None"
    gaps: tuple[Gap, ...]

    @property
    def complete(self) -> bool:
        """Say whether nothing can be missing."""
        return not self.gaps

    @property
    def gap_ns(self) -> int:
        """Return the time that the gaps cover within the window, overlaps counted once."""
        total, reached = 0, None
        for gap in self.gaps:
            start, end = gap.from_at_ns, gap.until_at_ns
            if self.since_ns is not None:
                start = max(start, self.since_ns)
            if self.until_ns is not None:
                end = min(end, self.until_ns)
            if reached is not None:
                start = max(start, reached)
            if end > start:
                total += end - start
            reached = end if reached is None else max(reached, end)
        return total

    @property
    def lost(self) -> int:
        """Return how many events are known to be lost: at least so many are."""
        return sum(gap.lost or 0 for gap in self.gaps)

    @property
    def lost_is_exact(self) -> bool:
        """Say whether each gap knows its number."""
        return all(gap.lost is not None for gap in self.gaps)


def judge(
    db: "apsw.Connection",
    since_ns: "EpochNs | None",
    until_ns: "EpochNs | None",
    *,
    now_ns: "EpochNs",
    recording: bool,
) -> Verdict:
    """Say what may be missing between two instants, both included; None: no limit.

    Without a lower limit the window begins with the first recording. ``recording``
    says whether a recorder is alive: if so, what happened until now counts as seen.
    """
    sql = (
        "SELECT from_at_ns, until_at_ns, kind, lost, detail FROM gaps"
        " WHERE until_at_ns >= ifnull(:since, until_at_ns)"
        " AND from_at_ns <= ifnull(:until, from_at_ns)"
        " ORDER BY from_at_ns, id"
    )
    gaps = [Gap(*row) for row in db.execute(sql, {"since": since_ns, "until": until_ns})]
    end_ns = now_ns if until_ns is None else min(until_ns, now_ns)
    first, last = db.execute("SELECT min(started_at_ns), max(committed_at_ns) FROM recording").get
    if first is None:
        start_ns = end_ns if since_ns is None else min(since_ns, end_ns)
        gaps.insert(0, Gap(start_ns, end_ns, "down", None, "nothing was ever recorded"))
        return Verdict(since_ns, until_ns, tuple(gaps))
    if since_ns is not None and since_ns < first:
        until = min(first, end_ns)
        if until >= since_ns:
            gaps.insert(0, Gap(since_ns, until, "down", None, "before the first recording"))
    if not recording and end_ns > last:
        start_ns = last if since_ns is None else max(last, since_ns)
        gaps.append(Gap(min(start_ns, end_ns), end_ns, "down", None, "no recorder is running"))
    return Verdict(since_ns, until_ns, tuple(gaps))
