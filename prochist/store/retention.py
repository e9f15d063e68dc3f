"""Retention: old lives go, so that the history stays within an age and a size.

Owns every DELETE of lives and what belongs to them. What goes are lives that
have ended, the one that ended first before all others; what stays are lives
that run and all their ancestors, however old. Steps are small: whoever
records calls :meth:`Pruner.step` between two commits.

After lives that ended before an instant were removed, the history is complete
only from there on, and ``recording.started_at_ns`` says so.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import apsw

from prochist.clock import NS_PER_SECOND, EpochNs
from prochist.store.dictionaries import Sweep

SETTLE_NS = 3 * NS_PER_SECOND
"""Lives that ended later than this before now stay: something may still be said of them."""

LEAST_BYTES = 32 * 1024 * 1024
"""Smallest ``--max-size``: below it, what happened in the last seconds would not fit."""

FULL = 0.95
"""Part of the allowed size above which lives are removed."""

SPARE_PAGES = 64
"""Free pages that stay in the file for what is written next, and a hundredth of it."""

LIVES_A_CHUNK = 2_000
MOST_STEP_S = 0.3
"""Longest step, even if not as much was removed as was asked for."""

ROWS_A_CHUNK = 2_000
PAGES_A_CHUNK = 64

ANCESTORS_S = 10.0
"""How often to find out which lives are ancestors of living ones, ..."""

ANCESTORS_FULL_S = 1.0
"""... and how often while the history is too large and nothing else can go."""

SWEEP_SHARE = 4
"""A sweep of the dictionaries follows when one of so many lives was removed, ..."""

SWEEP_S = 24 * 3600.0
"""... or after this time, when any was."""


class Limits(NamedTuple):
    """How much history to keep; None: no limit."""

    keep_ns: int | None = None
    """Age, since their end, above which lives are removed."""
    most_bytes: int | None = None
    """Size of the database file with its log."""

    def __bool__(self) -> bool:
        """Return whether there is any limit."""
        return self.keep_ns is not None or self.most_bytes is not None

    @property
    def most_log_bytes(self) -> int:
        """Size of the write-ahead log above which it must be emptied."""
        if self.most_bytes is None:
            return MOST_LOG_BYTES
        return min(MOST_LOG_BYTES, self.most_bytes // 4)

    def most_pages(self, page_bytes: int) -> int | None:
        """Return how many pages the database file may have."""
        if self.most_bytes is None:
            return None
        return (max(self.most_bytes, LEAST_BYTES) - self.most_log_bytes) // page_bytes


MOST_LOG_BYTES = 48 * 1024 * 1024
"""Size of the write-ahead log at which writing pauses until it is emptied; with the transaction
that crosses it, and one sweep, the log stays below 64 MiB."""


class Forecast(NamedTuple):
    """What pruning would do now."""

    lives: int
    ended_before_ns: EpochNs | None
    """Those that ended until then; None when none would go."""
    kept_ancestors: int
    is_estimate: bool
    """By size, how many must go is only known from what a life takes on average."""


class Pruner:
    """Removes what the limits exclude, a little at each step.

    ``db`` is the connection of the writer, outside a transaction; ``forget`` is
    called when rows of the dictionaries were deleted.
    """

    def __init__(
        self,
        db: apsw.Connection,
        limits: Limits,
        forget: Callable[[], None] = lambda: None,
        *,
        sweeps: bool = True,
    ) -> None:
        self._db = db
        self._limits = limits
        self._forget = forget
        self._sweeps = sweeps
        self._page_bytes = int(db.pragma("page_size"))
        self._after = 0
        """Lives that ended until then are gone or must stay."""
        self._fresh_until = 0.0
        self._settled_at_ns = EpochNs(0)
        self._sweep: Sweep | None = None
        self._removed_since_sweep = 0
        self._swept_at = time.monotonic()
        self._swept_lives = 0
        self.removed = 0
        """Lives removed so far."""
        self.horizon_ns = EpochNs(0)
        """Lives that ended until then were removed."""

    def step(self, now_ns: EpochNs, *, seconds: float, at_least: int = 0) -> bool:
        """Work for about ``seconds``; return whether there is more to do.

        Removes ``at_least`` so many lives if there are, though not for longer than MOST_STEP_S.

        Raises:
            apsw.Error: the last chunk was not done; those before were.

        """
        deadline = time.monotonic() + seconds
        least = self.removed + at_least
        more = True
        while more:
            more = self._remove(now_ns) or self._sweep_on() or self._give_back()
            if time.monotonic() >= deadline and self.removed >= least:
                break
            if time.monotonic() >= deadline + MOST_STEP_S:
                break
        return more

    def forecast(self, now_ns: EpochNs) -> Forecast:
        """Say what pruning would remove now, and change nothing."""
        self._find_ancestors(now_ns)
        kept = int(self._db.execute("SELECT count(*) FROM temp.ancestor").get)
        cutoff = self._cutoff(now_ns)
        lives = self._count_until(cutoff) if cutoff else 0
        is_estimate = False
        excess = self._excess_pages()
        if excess > 0:
            total = int(self._db.execute("SELECT count(*) FROM lifetime").get)
            pages = max(1, int(self._db.pragma("page_count")) - self._free_pages())
            wanted = min(total, excess * total // pages + 1)
            if wanted > lives:
                is_estimate, lives = True, wanted
                cutoff = self._db.execute(
                    "SELECT ended_at_ns FROM lifetime INDEXED BY lifetime_ended WHERE ended_at_ns"
                    " <= ? ORDER BY ended_at_ns LIMIT 1 OFFSET ?",
                    (now_ns - SETTLE_NS, wanted - 1),
                ).get
                lives = self._count_until(cutoff or now_ns - SETTLE_NS)
        return Forecast(lives, EpochNs(cutoff) if lives and cutoff else None, kept, is_estimate)

    def _count_until(self, cutoff: int) -> int:
        return int(
            self._db.execute(
                "SELECT count(*) FROM lifetime INDEXED BY lifetime_ended WHERE ended_at_ns <= ?"
                " AND id NOT IN (SELECT id FROM temp.ancestor)",
                (cutoff,),
            ).get
        )

    # --- lives ----------------------------------------------------------------

    def _free_pages(self) -> int:
        return int(self._db.pragma("freelist_count"))

    def _excess_pages(self) -> int:
        """Return by how many pages the history is larger than it may be."""
        most = self._limits.most_pages(self._page_bytes)
        if most is None:
            return 0
        return int(self._db.pragma("page_count")) - self._free_pages() - int(most * FULL)

    def _cutoff(self, now_ns: EpochNs) -> int:
        """Return the instant until which lives are too old, 0 for none."""
        keep_ns = self._limits.keep_ns
        return 0 if keep_ns is None else now_ns - max(keep_ns, SETTLE_NS)

    def _remove(self, now_ns: EpochNs) -> bool:
        """Remove one chunk of lives; return whether there may be more."""
        cutoff = self._cutoff(now_ns)
        is_full = self._excess_pages() > 0
        if is_full:
            cutoff = now_ns - SETTLE_NS
        if not cutoff:
            return False
        early = is_full and self._after >= self._settled_at_ns
        if time.monotonic() >= self._fresh_until - early * (ANCESTORS_S - ANCESTORS_FULL_S):
            self._find_ancestors(now_ns)
        cutoff = min(cutoff, self._settled_at_ns)
        if cutoff <= self._after:
            return False
        bound = self._db.execute(
            "SELECT ended_at_ns FROM lifetime INDEXED BY lifetime_ended WHERE ended_at_ns > ?1 AND"
            " ended_at_ns <= ?2 ORDER BY ended_at_ns LIMIT 1 OFFSET ?3",
            (self._after, cutoff, LIVES_A_CHUNK - 1),
        ).get
        until = cutoff if bound is None else bound
        with self._db:
            self._db.execute(
                "DELETE FROM lifetime WHERE id IN"
                " (SELECT id FROM lifetime INDEXED BY lifetime_ended"
                " WHERE ended_at_ns > ?1 AND ended_at_ns <= ?2 AND id NOT IN"
                " (SELECT id FROM temp.ancestor))",
                (self._after, until),
            )
            removed = self._db.changes()
            if removed:
                self._move_horizon(until)
        self._after = until
        self.removed += removed
        self._removed_since_sweep += removed
        return bound is not None

    def _find_ancestors(self, now_ns: EpochNs) -> None:
        """Note which lives that ended must stay, as of now.

        What ended before this moment and is no ancestor of a living process will
        never become one: whatever is forked later has living parents.
        """
        db = self._db
        db.execute("CREATE TEMP TABLE IF NOT EXISTS ancestor (id INTEGER PRIMARY KEY)")
        db.execute("DELETE FROM temp.ancestor")
        db.execute(
            "WITH RECURSIVE needed (id) AS ("
            " SELECT parent_id FROM lifetime WHERE parent_id IS NOT NULL AND id IN"
            "  (SELECT id FROM lifetime INDEXED BY lifetime_running WHERE end_source IS NULL)"
            " UNION SELECT l.parent_id FROM lifetime AS l JOIN needed ON l.id = needed.id"
            "  WHERE l.parent_id IS NOT NULL)"
            " INSERT INTO temp.ancestor SELECT id FROM needed"
        )
        self._settled_at_ns = EpochNs(now_ns - SETTLE_NS)
        self._fresh_until = time.monotonic() + ANCESTORS_S
        self._after = 0  # some that had to stay may go now

    def _move_horizon(self, until: int) -> None:
        """Note that the history is complete only from here on."""
        db = self._db
        if until <= self.horizon_ns:
            return
        self.horizon_ns = EpochNs(until)
        db.execute(
            "DELETE FROM recording WHERE committed_at_ns <= ?"
            " AND id < (SELECT max(id) FROM recording)",
            (until,),
        )
        db.execute(
            "UPDATE recording SET started_at_ns = ?1 WHERE started_at_ns < ?1"
            " AND committed_at_ns > ?1",
            (until,),
        )
        db.execute("DELETE FROM gap WHERE until_at_ns <= ?", (until,))

    # --- what lives leave behind -------------------------------------------------

    def _sweep_on(self) -> bool:
        """Go on with a sweep of the dictionaries; return whether there is more of it.

        One begins when it is time.
        """
        if not self._sweeps:
            return False
        if self._sweep is None:
            if not self._is_sweep_due():
                return False
            self._drop_boots()
            self._sweep = Sweep(self._db, self._forget)
        if not self._sweep.step(ROWS_A_CHUNK):
            return True
        self._sweep = None
        self._removed_since_sweep = 0
        self._swept_at = time.monotonic()
        return False

    def _is_sweep_due(self) -> bool:
        removed = self._removed_since_sweep
        if not removed:
            return False
        if time.monotonic() - self._swept_at >= SWEEP_S:
            return True
        next_id = int(self._db.execute("SELECT next_lifetime FROM counter").get)
        first = self._db.execute(
            "SELECT id FROM lifetime INDEXED BY lifetime_ended WHERE ended_at_ns > ? ORDER BY"
            " ended_at_ns LIMIT 1",
            (self.horizon_ns,),
        ).get
        return removed * SWEEP_SHARE >= next_id - (first or 0)

    def sweep_soon(self) -> None:
        """Sweep the dictionaries with the next steps, even if little was removed."""
        self._removed_since_sweep = max(1, self._removed_since_sweep)
        self._swept_at = -SWEEP_S

    def _drop_boots(self) -> None:
        with self._db:
            self._db.execute(
                "DELETE FROM boot WHERE id NOT IN (SELECT boot FROM recording)"
                " AND id NOT IN (SELECT boot FROM gap WHERE boot IS NOT NULL)"
                " AND id NOT IN (SELECT boot FROM cpu_sequence)"
                " AND NOT EXISTS (SELECT 1 FROM lifetime WHERE boot = boot.id)"
            )

    def _give_back(self) -> bool:
        """Give one chunk of free pages back to the file system; return whether there are more."""
        pages = int(self._db.pragma("page_count"))
        spare = SPARE_PAGES + pages // 100
        free = self._free_pages()
        if free <= spare:
            return False
        self._db.execute(
            f"PRAGMA incremental_vacuum({min(PAGES_A_CHUNK, free - spare)})"
        ).fetchall()
        return True


__all__ = ["LEAST_BYTES", "Forecast", "Limits", "Pruner"]
