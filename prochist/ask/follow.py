"""What has changed since a commit: lives as a recorder writes them, each change once.

Every commit of a recorder has a number, and each life that of the commit that wrote it
last (``lifetime.batch``). The numbers go on over restarts of the recorder, so a cursor
is one number: everything up to it has been seen. A life that changed more than once since
then is given once, with its newest facts.
"""

from typing import TYPE_CHECKING, Any

from prochist.ask.completeness import Gap
from prochist.ask.filters import Branch, Question, plan
from prochist.ask.patterns import image_test
from prochist.ask.processes import COLUMNS, LIFE, Answer, Value
from prochist.errors import ProchistError

if TYPE_CHECKING:
    import apsw

    from prochist.clock import EpochNs

_CHANGED = Branch(
    "INDEXED BY lifetime_batch",
    "l.batch > :after AND l.batch <= :until",
    # When it happened: the end, else the newest execve, else the start.
    "coalesce(l.ended_at_ns, l.exec_at_ns, l.started_at_ns, 0)",
)
_MOST_COMMITS = 200
"""Commits looked at in one go, so that memory stays the same after a long pause."""

_IMAGE_PLACES = [COLUMNS.index(name) for name in ("comm", "exe", "exec_path", "command_line")]


def newest_commit(db: "apsw.Connection") -> int:
    """Return the number of the newest commit."""
    return int(db.execute("SELECT batch FROM counter").get or 0)


class Changes:
    """Follows a history from one commit on."""

    def __init__(self, db: "apsw.Connection", question: Question, after: int) -> None:
        """Begin behind the commit ``after``, of which the caller knows that it exists.

        Raises:
            UsageError: what ``plan`` refuses.
            ProchistError: the history has not come so far: it is another one.
        """
        self._db = db
        self._question = question
        self._is_wanted = image_test(question.comms, question.exes, question.greps)
        self._seen_version: int | None = None
        self.cursor = after
        self._gap: int = db.execute("SELECT ifnull(max(id), 0) FROM gap").get
        if after > newest_commit(db):
            message = f"the cursor is ahead of this history: commit {after}"
            raise ProchistError(message, hint="it is another history; remove the cursor file")

    def is_news(self) -> bool:
        """Say whether anybody has written since the last time this was asked."""
        version = self._db.pragma("data_version")
        before, self._seen_version = self._seen_version, int(version)
        return before != self._seen_version

    def take(self, now_ns: "EpochNs") -> list[tuple[Any, ...]] | None:
        """Return the lives that changed next, values of ``COLUMNS``, in order, or None for none.

        ``cursor`` is then the commit up to which that is all. An empty list says
        that what changed was not asked for, and that there is more to take.
        """
        self._db.execute("BEGIN")
        try:
            newest = newest_commit(self._db)
            if self.cursor >= newest:
                return None
            until = self._next_change(newest)
            rows = self._changed(until, now_ns)
        finally:
            self._db.execute("COMMIT")
        self.cursor = until
        return rows

    def gaps(self) -> list[Gap]:
        """Return the gaps that were written since the last time this was asked."""
        sql = (
            "SELECT id, from_at_ns, until_at_ns, kind, lost, detail FROM gaps"
            " WHERE id > ? ORDER BY id"
        )
        found = list(self._db.execute(sql, (self._gap,)))
        if found:
            self._gap = found[-1][0]
        return [Gap(*row[1:]) for row in found]

    def _next_change(self, newest: int) -> int:
        """Return up to where to look; commits that wrote no life last are skipped."""
        first = self._db.execute(
            "SELECT min(batch) FROM lifetime INDEXED BY lifetime_batch WHERE batch > ?",
            (self.cursor,),
        ).get
        return newest if first is None else min(first + _MOST_COMMITS, newest)

    def _changed(self, until: int, now_ns: "EpochNs") -> list[tuple[Any, ...]]:
        question = self._question._replace(now_ns=now_ns, comms=(), exes=(), greps=())
        planned = plan(self._db, question)
        planned = planned._replace(branches=(_CHANGED,))
        sql = planned.select(f"{LIFE}, l.batch") + " ORDER BY batch, at, id"
        values = {**planned.values, "after": self.cursor, "until": until}
        lives = (life[:-1] for life in self._db.execute(sql, values))
        wanted = self._is_wanted
        return [
            row
            for row in Answer(self._db, lives).rows()
            if wanted is None or wanted(*[_text(row[at]) for at in _IMAGE_PLACES])
        ]


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) else None
