"""Lives that are over, each exactly once: what an export takes, and where it goes on.

``lifetime.batch`` is the number of the commit that wrote a row last. It only grows, and a
life that ends late gets a late number, so that "batch above the last one" finds every end,
however old the life. A closed life may be written once more, within about a second (its
accounting comes last): an export therefore first lets the newest batch settle, and takes
what has not been written since. ``Mark.near`` names what it took from the last batches, in
case that a recorder under load needs longer.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from prochist.ask.filters import Question
from prochist.ask.processes import LIFE, Answer, Life, select

if TYPE_CHECKING:
    import apsw

SETTLE_S = 3.0
"""How long the newest batch is left alone while a recorder is running."""

_NEAR_BATCHES = 1_000
"""Batches from the last one back in which a life may still be written again: minutes."""

_FINISHED = f"""SELECT {LIFE}, l.batch FROM lifetime AS l INDEXED BY lifetime_batch
WHERE l.batch > ? AND l.batch <= ? AND l.end_source IS NOT NULL ORDER BY l.batch, l.id"""  # noqa: S608 - constants
_AGAIN = """SELECT id FROM lifetime INDEXED BY lifetime_batch
WHERE batch > ? AND batch <= ? AND end_source IS NOT NULL"""


class Mark(NamedTuple):
    """How far an export came: the newest batch it took, and what it took shortly before that."""

    batch: int = 0
    near: frozenset[int] = frozenset()


def newest_batch(db: "apsw.Connection") -> int:
    """Return the number of the newest commit, or of the newest row should that be higher."""
    sql = "SELECT max(batch, ifnull((SELECT max(batch) FROM lifetime), 0)) FROM counter"
    return int(db.execute(sql).get)


def finished(db: "apsw.Connection", after: Mark, until: int) -> Answer:
    """Return the lives that are over and were written last after ``after``, up to ``until``."""

    def lives() -> Iterator[Life]:
        for row in db.execute(_FINISHED, (after.batch, until)):
            if row[0] not in after.near:
                yield row[:-1]

    return Answer(db, lives())


def mark(db: "apsw.Connection", after: Mark, until: int) -> Mark:
    """Return the mark that an export up to ``until`` leaves behind."""
    recent = {row[0] for row in db.execute(_AGAIN, (until - _NEAR_BATCHES, until))}
    if after.batch > until - _NEAR_BATCHES:  # some of what was near is so still
        recent |= after.near
    return Mark(until, frozenset(recent))


def selected(db: "apsw.Connection", question: Question) -> Answer:
    """Return the lives that ``question`` keeps and that are over.

    Raises:
        UsageError: what ``filters.plan`` refuses.
    """
    return select(db, question._replace(exited=True))
