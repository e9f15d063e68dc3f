"""Verification: whether a history is what the schema says it is.

Checks the file (SQLite's own checks), what names what (foreign keys), and the
invariants of lives that are written at the top of the schema. Reads only, and
may run while a recorder writes.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apsw

from prochist.store.database import open_reader, translate

MOST_EXAMPLES = 5
"""How many rows are named of each kind of damage."""


class Finding(NamedTuple):
    """One check and what it found; nothing is as it should be."""

    check: str
    found: int
    examples: tuple[str, ...]


_OVERLAPS = """
SELECT id, 'overlaps life ' || before || ' of pid ' || pid FROM (
    SELECT id, pid, started_at_ns,
        lag(id) OVER lives AS before,
        max(coalesce(ended_after_ns, ended_at_ns, 9223372036854775807))
            OVER (lives ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended
    FROM lifetime WHERE started_at_ns IS NOT NULL
    WINDOW lives AS (PARTITION BY boot, pid ORDER BY started_at_ns, id)
) WHERE started_at_ns < ended - 20000000
"""
# 20 ms: what was found by a scan is known to the kernel's tick of 10 ms.

_INVARIANTS = (
    (
        "one end at most, with its source",
        (
            "SELECT id, 'ended_at_ns ' || coalesce(ended_at_ns, 'unknown') || ', end_source '"
            " || coalesce(end_source, 'none') FROM lifetime"
            " WHERE (end_source IS NULL) <> (ended_at_ns IS NULL)"
            " OR (end_source IS NULL AND wait_status IS NOT NULL)"
        ),
    ),
    (
        "no end before the start",
        (
            "SELECT id, 'ends before it starts' FROM lifetime WHERE ended_at_ns < started_at_ns"
            " OR ended_after_ns > ended_at_ns"
        ),
    ),
    (
        "parents older than children",
        ("SELECT id, 'has the younger parent ' || parent_id FROM lifetime WHERE parent_id >= id"),
    ),
    ("lives of one pid do not overlap", _OVERLAPS),
    (
        "execs within their life",
        (
            "SELECT e.lifetime, 'exec ' || e.ordinal || ' of ' || l.exec_count"
            " FROM earlier_exec AS e JOIN lifetime AS l ON l.id = e.lifetime"
            " WHERE e.ordinal >= l.exec_count OR e.ordinal < 1"
        ),
    ),
    (
        "ids below the next one",
        (
            "SELECT id, 'is not below ' || (SELECT next_lifetime FROM counter) FROM lifetime"
            " WHERE id >= (SELECT next_lifetime FROM counter)"
        ),
    ),
    (
        "commit numbers up to the newest",
        (
            "SELECT id, 'is of commit ' || batch FROM lifetime WHERE batch >"
            " (SELECT batch FROM counter)"
        ),
    ),
)


def verify(path: Path, tell: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Check a database and return one finding for each check, those without a fault as well.

    ``tell`` is told the name of each check before it begins.

    Raises:
        ProchistError: it cannot be opened or read at all.

    """
    findings = []
    try:
        with closing(open_reader(path)) as db:
            for name, check in _checks(db):
                tell(name)
                findings.append(_finding(name, check()))
    except apsw.Error as error:
        raise translate(error, path) from error
    return findings


def _checks(db: apsw.Connection) -> Iterator[tuple[str, Callable[[], Iterator[str]]]]:
    yield "the file", partial(_integrity, db)
    yield "rows that are named exist", partial(_foreign_keys, db)
    for name, sql in _INVARIANTS:
        yield name, partial(_lives, db, sql)
    yield "texts are stored once", partial(_duplicates, db)


def _finding(name: str, faults: Iterator[str]) -> Finding:
    count = 0
    examples: list[str] = []
    for fault in faults:
        count += 1
        if len(examples) < MOST_EXAMPLES:
            examples.append(fault)
    return Finding(name, count, tuple(examples))


def _lives(db: apsw.Connection, sql: str) -> Iterator[str]:
    for id_, fault in db.execute(sql):
        yield f"life {id_} {fault}"


def _integrity(db: apsw.Connection) -> Iterator[str]:
    """Yield what SQLite finds wrong; damage may keep it from looking any further."""
    try:
        for (said,) in db.execute("PRAGMA integrity_check"):
            if said != "ok":
                yield said
    except apsw.CorruptError as error:
        yield str(error)


def _foreign_keys(db: apsw.Connection) -> Iterator[str]:
    for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check"):
        yield f"{table} {'' if rowid is None else rowid} names a row of {parent} that is not there"


def _duplicates(db: apsw.Connection) -> Iterator[str]:
    """Yield texts that are stored twice: neither wrong nor in the way, but not as intended."""
    for value, times in db.execute(
        "SELECT substr(min(value), 1, 60), count(*) FROM text GROUP BY hash, value"
        " HAVING count(*) > 1"
    ):
        yield f"text {value!r} is stored {times} times"


__all__ = ["Finding", "verify"]
