"""Upkeep: what the recorder does to its database between two commits.

Keeps the history within its limits and the log within its bound, in steps
that are short beside the time for which the channel and the kernel hold
events. It decides when; how is known to ``store/retention.py`` and
``store/logbound.py``.
"""

import time
from collections.abc import Callable
from pathlib import Path

import apsw

from prochist.clock import EpochNs
from prochist.store.database import translate
from prochist.store.logbound import LogBound
from prochist.store.retention import Limits, Pruner

STEP_S = 0.01
"""Length of a step while recording is busy."""

IDLE_STEP_S = 0.04
"""Length of a step while little happens."""

BUSY_BYTES = 256 * 1024
"""Backlog above which recording is busy."""

REST_S = 1.0
"""How long to wait after there was nothing to do, ..."""

REST_LIVES = 1_000
"""... unless so many lives were written."""

AHEAD = 2
"""Lives removed for each that was written, as long as there are too many."""

RETRY_S = 10.0
"""How long to wait after an error."""

QUIET_S = 5.0
"""When another program has written nothing for so long, what it left unused is removed."""


class Upkeep:
    """Keeps one database in bounds. ``forget`` makes the writer forget ids of dictionary rows."""

    def __init__(  # noqa: PLR0913  what it works on, and its limits
        self,
        db: apsw.Connection,
        path: Path,
        limits: Limits,
        forget: Callable[[], None],
        say: Callable[[str], None],
        *,
        most_pending: int,
    ) -> None:
        self._db = db
        self._path = path
        self._say = say
        self._pruner = Pruner(db, limits, forget)
        self._is_limited = bool(limits)
        self.log = LogBound(db, path, limits.most_log_bytes, most_pending)
        self._lives_seen = 0
        self._rest_until = 0.0
        self._has_more = False
        self._gave_up = 0
        self._failing: str | None = None
        self._version = self._read_version()
        self._sweep_at: float | None = None
        self._is_sweeping = False

    def may_write(self, pending: int) -> bool:
        """Return whether a commit is in order now, as far as the log is concerned."""
        allowed = self.log.allows(pending)
        if self.log.gave_up > self._gave_up:
            if not self._gave_up:
                self._say(
                    "a reader has kept its transaction open for so long that the log cannot be"
                    f" emptied: {self._path}-wal grows"
                )
            self._gave_up = self.log.gave_up
        return allowed

    def step(self, now_ns: EpochNs, lives_written: int, backlog_bytes: int) -> None:
        """Do some of what is to be done; everything recorded must be committed.

        ``lives_written`` counts up from the beginning of the recording.
        """
        now = time.monotonic()
        self._follow_others(now)
        if not (self._is_limited or self._is_sweeping):
            return
        written = lives_written - self._lives_seen
        if now < self._rest_until and written < REST_LIVES:
            return
        seconds = STEP_S if backlog_bytes > BUSY_BYTES else IDLE_STEP_S
        try:
            self._has_more = self._pruner.step(now_ns, seconds=seconds, at_least=AHEAD * written)
        except apsw.Error as error:
            message = translate(error, self._path).message
            if message != self._failing:  # said once, however long it lasts
                self._failing = message
                self._say(f"cannot remove old lives now: {message}")
            self._rest_until = time.monotonic() + RETRY_S
            return
        self._failing = None
        self._is_sweeping = self._is_sweeping and self._has_more
        self._lives_seen = lives_written
        self._rest_until = 0.0 if self._has_more else now + REST_S

    def _read_version(self) -> int:
        return int(self._db.pragma("data_version"))

    def _follow_others(self, now: float) -> None:
        """Sweep after others have written, such as ``prochist prune``.

        It leaves the texts of what it removed to the one who remembers which rows there are.
        """
        try:
            version = self._read_version()
        except apsw.Error:
            return  # a disk that does not answer: commits say so
        if version != self._version:
            self._version = version
            self._sweep_at = now + QUIET_S
        elif self._sweep_at is not None and now >= self._sweep_at:
            self._sweep_at = None
            self._is_sweeping = True
            self._rest_until = 0.0
            self._pruner.sweep_soon()

    def facts(self) -> dict[str, object]:
        """Return what the status shows of it."""
        return {
            "log_bytes": self.log.size_bytes,
            "log_pauses": self.log.pauses,
            "removed": self._pruner.removed,
        }


__all__ = ["Upkeep"]
