"""Statements of the user's own: read-only, bounded in time, one at a time.

An authorizer denies whatever is not a SELECT over this database: no ATTACH, no
extension, no file, no change of a pragma, not even a temporary table.

Source: sqlite.org/c3ref/c_alter_table.html (action codes), sqlite.org/c3ref/progress_handler.html.
"""

import time
from collections.abc import Iterator
from typing import Any

import apsw

from prochist.errors import UsageError

_ALLOWED = frozenset(
    (apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE)
)
_FORBIDDEN_FUNCTIONS = frozenset(
    ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zipfile")
)
_PRAGMAS = frozenset(
    (
        "application_id",
        "collation_list",
        "compile_options",
        "database_list",
        "encoding",
        "foreign_key_list",
        "freelist_count",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "journal_mode",
        "page_count",
        "page_size",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    )
)
_PRAGMAS_WITH_ARGUMENT = frozenset(
    name for name in _PRAGMAS if name.endswith(("info", "_list", "_check"))
)
_STEPS = 20_000
"""Instructions of SQLite's machine between two looks at the clock: some 0.2 ms."""

_LONGEST_VALUE_BYTES = 100_000_000


def _authorize(
    action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
) -> int:
    allowed = action in _ALLOWED
    if action == apsw.SQLITE_FUNCTION:
        allowed = (second or "").lower() not in _FORBIDDEN_FUNCTIONS
    elif action == apsw.SQLITE_PRAGMA:
        name = (first or "").lower()
        allowed = name in _PRAGMAS and (second is None or name in _PRAGMAS_WITH_ARGUMENT)
    return apsw.SQLITE_OK if allowed else apsw.SQLITE_DENY


def forbid_all_but_reading(db: apsw.Connection) -> None:
    """Let a connection read the history and nothing else, for good.

    The authorizer decides when a statement is prepared. The limits and settings
    behind it would hold even if it had a hole: nothing can be attached, no
    extension loaded, and the schema is not trusted.
    """
    db.authorizer = None
    db.pragma("temp_store", "MEMORY")  # sorting writes no file
    db.authorizer = _authorize
    db.limit(apsw.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
    db.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    db.limit(apsw.SQLITE_LIMIT_WORKER_THREADS, 0)
    db.enable_load_extension(False)  # noqa: FBT003 - apsw's signature
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)


def is_complete(text: str) -> bool:
    """Say whether ``text`` ends with a whole statement: a semicolon that is in no string."""
    return apsw.complete(text)


def statements(text: str) -> Iterator[str]:
    """Yield the statements of a text, each with its semicolon; what is left over, too."""
    begun = ""
    for piece in text.split(";"):
        begun += piece
        if not is_complete(f"{begun};"):
            begun += ";"
            continue
        if begun.strip():
            yield f"{begun};"
        begun = ""
    if begun.strip("; \t\n"):
        yield begun


class Statement:
    """A statement that runs: its column names, then its rows. Iterate once."""

    def __init__(self, db: apsw.Connection, sql: str, *, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ends_at = time.monotonic() + limit_s
        self._expired = False
        forbid_all_but_reading(db)
        db.set_progress_handler(self._expire, _STEPS)
        self._rows = self._run(db, sql)
        self.names: tuple[str, ...] = ()
        self._first = next(self._rows, None)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows.

        Raises:
            UsageError: it takes longer than it may, or fails at a row.
        """
        if self._first is not None:
            yield self._first
            yield from self._rows

    def _expire(self) -> bool:
        self._expired = time.monotonic() >= self._ends_at
        return self._expired

    def _run(self, db: apsw.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
        seen: list[str] = []

        def only_one(cursor: apsw.Cursor, text: str, _bindings: Any) -> bool:  # noqa: ANN401
            if seen:
                message = "more than one statement"
                raise UsageError(message, hint="give one at a time")
            seen.append(text)
            self.names = tuple(column[0] for column in cursor.get_description())
            return True

        cursor = db.cursor()
        cursor.exec_trace = only_one
        try:
            yield from cursor.execute(sql)
        except apsw.InterruptError as error:
            if not self._expired:
                raise
            message = f"the statement takes more than {self._limit_s:g} s"
            raise UsageError(message, hint="ask for less, or allow more with --timeout") from error
        except apsw.AuthError as error:
            message = f"not permitted in a read-only statement: {error}"
            raise UsageError(message, hint="SELECT, and PRAGMAs that change nothing") from error
        except (apsw.SQLError, apsw.BindingsError, apsw.TooBigError, apsw.RangeError) as error:
            raise UsageError(str(error), hint="the views are listed by: prochist schema") from error
        if not self.names:  # nothing but spaces and comments; all that is permitted has columns
            message = "there is no statement"
            raise UsageError(message, hint="try: SELECT * FROM processes LIMIT 3")
