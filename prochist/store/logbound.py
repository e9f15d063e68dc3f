"""The bound of the write-ahead log: when to wait with writing until it is emptied.

SQLite starts the log again from its beginning once all of it is in the
database and nobody reads from it. Readers whose transactions overlap, one after
the other for ever, keep it from doing so, and the log grows by all that is
written. So above a size, writing pauses: what was recorded waits in memory,
readers of old states finish, new ones no longer need the log, and it is
emptied. A reader that does not finish at all cannot stop the recording: after
a time, or when too much waits, one transaction is written all the same.

Source: sqlite.org/wal.html (2.3 and 6); walTryBeginRead() and walRestartLog() in
wal.c; sqlite.org/c3ref/wal_checkpoint_v2.html.
"""

import contextlib
import time
from pathlib import Path

import apsw

from prochist.store.database import BUSY_TIMEOUT_MS

RETRY_S = 0.05
"""How often to try to empty the log."""

MOST_WAIT_S = 45.0
"""How long writing pauses at most."""


class LogBound:
    """Keeps the log of one database within ``most_bytes``, as far as readers let it."""

    def __init__(self, db: apsw.Connection, path: Path, most_bytes: int, most_pending: int) -> None:
        self._db = db
        self._log = Path(f"{path}-wal")
        self._most_bytes = most_bytes
        self._most_pending = most_pending
        self._paused_at: float | None = None
        self._next_try = 0.0
        self.pauses = 0
        """How often writing had to pause."""
        self.gave_up = 0
        """How often a reader did not finish in time."""

    @property
    def size_bytes(self) -> int:
        """Return the size of the log file."""
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def allows(self, pending: int) -> bool:
        """Return whether to write now; ``pending`` rows wait to be written."""
        if self._paused_at is None and self.size_bytes < self._most_bytes:
            return True
        now = time.monotonic()
        if now < self._next_try:
            return False
        if self._empty():
            self._paused_at = None
            return True
        self._next_try = now + RETRY_S
        if self._paused_at is None:
            self._paused_at = now
            self.pauses += 1
        if now - self._paused_at >= MOST_WAIT_S or pending >= self._most_pending:
            self._paused_at = now
            self.gave_up += 1
            return True
        return False

    def _empty(self) -> bool:
        """Try, without waiting, to empty the log into the database; return whether that went."""
        db = self._db
        db.set_busy_timeout(0)
        try:
            with contextlib.suppress(apsw.BusyError, apsw.LockedError):
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                return True
            with contextlib.suppress(apsw.BusyError, apsw.LockedError):
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
        return False


__all__ = ["LogBound"]
