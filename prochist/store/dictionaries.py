"""Dictionary rows that nobody uses any more: found and removed in small steps.

Texts, images and origins are stored once and used by many lives; when the
lives go, they stay behind. A sweep finds what is still used by reading the
history once, a few thousand rows a step, and deletes the rest. It runs on the
connection that writes, between commits: a row that comes into use again while
the sweep goes on is seen, because every life carries the number of the commit
that wrote it last, and all other tables that use a dictionary only grow.

Foreign keys are not enforced while dictionary rows are deleted: SQLite would
look through whole tables for each, as most columns that use them have no
index (sqlite.org/foreignkeys.html, 3). The newest row of each dictionary always
stays, so that no id is ever given twice.
"""

from collections.abc import Callable
from functools import partial

import apsw

USERS = {
    "image": {("lifetime", "image"), ("earlier_exec", "image")},
    "origin": {("lifetime", "origin"), ("lifetime", "exec_origin"), ("earlier_exec", "origin")},
    "text": {
        *(("image", c) for c in ("comm", "exe", "exec_path", "command_line", "argv", "cwd")),
        *(("origin", c) for c in ("user", "login_user", "tty", "cgroup", "unit", "container_id")),
        ("event", "detail"),
    },
}
"""Every column that names a row of a dictionary; a test compares it with the schema."""

_TEXT_USERS = {
    "image": "SELECT comm, exe, exec_path, command_line, argv, cwd FROM image",
    "origin": "SELECT user, login_user, tty, cgroup, unit, container_id FROM origin",
    "event": "SELECT detail FROM event",
}
_DELETE = {
    table: (
        f"SELECT id FROM {table} WHERE id > ? AND id < ? ORDER BY id LIMIT ?",  # noqa: S608  constant text
        f"DELETE FROM {table} WHERE id = ?",  # noqa: S608  constant text
    )
    for table in USERS
}


class Sweep:
    """One pass over the history. Call :meth:`step` until it returns True.

    ``forget`` is called when rows were deleted, so that nobody keeps their ids.
    Memory: one byte for each dictionary row that was ever given an id.
    """

    def __init__(self, db: apsw.Connection, forget: Callable[[], None]) -> None:
        self._db = db
        self._forget = forget
        self.deleted = 0
        """Dictionary rows deleted so far."""
        self._newest = {
            table: int(db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").get)  # noqa: S608  constant text
            for table in (*USERS, "event")
        }
        self._used = {table: bytearray(self._newest[table] + 1) for table in USERS}
        self._batch = int(db.execute("SELECT batch FROM counter").get)
        self._texts_seen = dict.fromkeys(_TEXT_USERS, 0)
        self._at = 0
        self._phases: list[Callable[[int], bool]] = [
            self._mark_lives,
            partial(self._delete, "image"),
            partial(self._delete, "origin"),
            *(partial(self._mark_texts, table) for table in _TEXT_USERS),
            partial(self._delete, "text"),
        ]

    def step(self, rows: int) -> bool:
        """Look at about ``rows`` rows; return whether the sweep is complete.

        Raises:
            apsw.Error: nothing of this step was done.

        """
        if self._phases and self._phases[0](rows):
            del self._phases[0]
            self._at = 0
        return not self._phases

    # Each phase returns whether it is through.

    def _mark_lives(self, rows: int) -> bool:
        db = self._db
        end = db.execute(
            "SELECT id FROM lifetime WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?",
            (self._at, rows - 1),
        ).get
        last = end if end is not None else 1 << 62
        self._mark_programs(
            "SELECT DISTINCT image, origin, exec_origin FROM lifetime WHERE id > ?1 AND id <= ?2"
            " UNION SELECT image, origin, NULL FROM earlier_exec WHERE lifetime > ?1"
            " AND lifetime <= ?2",
            (self._at, last),
        )
        self._at = last
        self._mark_written_since()
        return end is None

    def _mark_written_since(self) -> None:
        """Mark what was used by commits since we looked last."""
        batch = int(self._db.execute("SELECT batch FROM counter").get)
        if batch != self._batch:
            self._mark_programs(
                "SELECT DISTINCT image, origin, exec_origin FROM lifetime INDEXED BY lifetime_batch"
                " WHERE batch > ?1 UNION SELECT image, origin, NULL FROM earlier_exec WHERE"
                " lifetime IN (SELECT id FROM lifetime INDEXED BY lifetime_batch WHERE batch > ?1)",
                (self._batch,),
            )
            self._batch = batch

    def _mark_programs(self, select: str, values: tuple[int, ...]) -> None:
        images, origins = self._used["image"], self._used["origin"]
        for image, origin, exec_origin in self._db.execute(select, values):
            if image is not None and image < len(images):
                images[image] = 1
            for used in (origin, exec_origin):
                if used is not None and used < len(origins):
                    origins[used] = 1

    def _mark_texts(self, table: str, rows: int) -> bool:
        texts = self._used["text"]
        seen = self._texts_seen[table]
        select = f"{_TEXT_USERS[table]} WHERE id > ? AND id <= ?"
        last = self._db.execute(
            f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?",  # noqa: S608  constant text
            (seen, rows - 1),
        ).get
        is_last = last is None
        if is_last:
            last = int(self._db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").get)  # noqa: S608  constant text
        for row in self._db.execute(select, (seen, last)):
            for text in row:
                if text is not None and text < len(texts):
                    texts[text] = 1
        self._texts_seen[table] = max(seen, last)
        return is_last

    def _delete(self, table: str, rows: int) -> bool:
        db = self._db
        used = self._used[table]
        select, delete = _DELETE[table]
        enforced = db.pragma("foreign_keys")
        db.pragma("foreign_keys", "OFF")
        try:
            with db:
                if table == "text":
                    for user in _TEXT_USERS:
                        while not self._mark_texts(user, rows):
                            pass
                else:
                    self._mark_written_since()
                ids = [i for (i,) in db.execute(select, (self._at, self._newest[table], rows))]
                unused = [(i,) for i in ids if not used[i]]
                db.executemany(delete, unused)
        finally:
            db.pragma("foreign_keys", "ON" if enforced else "OFF")
        if unused:
            self._forget()
            self.deleted += len(unused)
        self._at = ids[-1] if ids else 0
        return len(ids) < rows


__all__ = ["USERS", "Sweep"]
