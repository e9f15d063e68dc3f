"""The history as a whole, and one life in full: boots, recordings, kin, execs, changes."""

import json
from typing import TYPE_CHECKING, Any

from prochist.ask.processes import COLUMNS

if TYPE_CHECKING:
    import apsw

Record = dict[str, Any]

BOOT_COLUMNS = ("boot_id", "host", "kernel", "booted_at_ns", "first_seen_at_ns", "last_seen_at_ns")
MOST_KIN = 1_000
"""Ancestors and children of a life that are read at most."""


def _records(db: "apsw.Connection", sql: str, values: tuple[Any, ...] = ()) -> list[Record]:
    cursor = db.execute(sql, values)
    names: list[str] = []
    found = []
    for row in cursor:
        names = names or [column[0] for column in cursor.get_description()]
        found.append(dict(zip(names, row, strict=True)))
    return found


def boots(db: "apsw.Connection") -> list[Record]:
    """Return the rows of the view ``boots``, oldest first."""
    return _records(db, "SELECT * FROM boots ORDER BY booted_at_ns, first_seen_at_ns")


def newest_recording(db: "apsw.Connection") -> Record | None:
    """Return the newest run of a recorder, ``facts`` as a dict, or None if there was none."""
    found = _records(db, "SELECT * FROM recording ORDER BY id DESC LIMIT 1")
    if not found:
        return None
    try:
        facts = json.loads(found[0]["facts"])
    except ValueError:
        facts = None
    return found[0] | {"facts": facts if isinstance(facts, dict) else {"facts": facts}}


def extent(db: "apsw.Connection") -> Record:
    """Return how large and how old the history is: bytes, and instants in nanoseconds."""
    oldest = db.execute("SELECT min(started_at_ns) FROM lifetime INDEXED BY lifetime_started").get
    newest = db.execute("SELECT max(started_at_ns) FROM lifetime INDEXED BY lifetime_started").get
    running = db.execute(
        "SELECT count(*) FROM lifetime INDEXED BY lifetime_running WHERE end_source IS NULL"
    ).get
    last = db.execute("SELECT next_lifetime FROM counter").get
    return {
        "oldest_started_at_ns": oldest,
        "newest_started_at_ns": newest,
        "running": running,
        "lifetimes_ever": (last or 1) - 1,
        "bytes": db.pragma("page_count") * db.pragma("page_size"),
    }


def life_in_full(db: "apsw.Connection", id_: int) -> Record | None:
    """Return one life with its parents, execs, changes, events and children; None if there is none.

    Keys: the columns of ``processes``, and ``parents`` (nearest first), ``children``
    (oldest first; at most 1,000), ``children_count``, ``execs``, ``id_changes``, ``events``.
    """
    found = _records(db, "SELECT * FROM processes WHERE id = ?", (id_,))
    if not found:
        return None
    life = {name: found[0][name] for name in COLUMNS}
    parents: list[Record] = []
    parent_id = life["parent_id"]
    while parent_id is not None and len(parents) < MOST_KIN:
        parent = _records(db, "SELECT * FROM processes WHERE id = ?", (parent_id,))
        parents += parent
        parent_id = parent[0]["parent_id"] if parent else None
    children = (
        "SELECT * FROM processes WHERE id IN (SELECT id FROM lifetime INDEXED BY lifetime_parent"
        " WHERE parent_id = ?1 ORDER BY id LIMIT ?2) ORDER BY id"
    )
    how_many = "SELECT count(*) FROM lifetime INDEXED BY lifetime_parent WHERE parent_id = ?"
    return life | {
        "parents": parents,
        "children": _records(db, children, (id_, MOST_KIN)),
        "children_count": db.execute(how_many, (id_,)).get,
        # The view is a union over all lives; asked by one id it uses both primary keys.
        "execs": _records(db, "SELECT * FROM execs WHERE process_id = ? ORDER BY id", (id_,)),
        "id_changes": _records(
            db, "SELECT * FROM id_changes WHERE process_id = ? ORDER BY id", (id_,)
        ),
        "events": _records(db, "SELECT * FROM events WHERE process_id = ? ORDER BY id", (id_,)),
    }
