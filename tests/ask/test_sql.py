from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from prochist.ask.sql import Statement
from prochist.errors import UsageError
from prochist.store.database import open_reader
from tests.history_builder import T0, HistoryBuilder

ENDLESS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    builder = HistoryBuilder(tmp_path / "history.db")
    builder.life(5, T0, T0 + 1, 0)
    builder.close()
    with closing(open_reader(tmp_path / "history.db")) as reader:
        yield reader


def test_a_statement_has_names_and_rows(db: apsw.Connection) -> None:
    running = Statement(db, "SELECT pid, exit_code AS code FROM processes;", limit_s=5)
    assert running.names == ("pid", "code")
    assert list(running.rows()) == [(5, 0)]


def test_names_are_known_also_without_rows(db: apsw.Connection) -> None:
    running = Statement(db, "SELECT pid FROM processes WHERE 0", limit_s=5)
    assert running.names == ("pid",)
    assert list(running.rows()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM lifetime",
        "INSERT INTO boot DEFAULT VALUES",
        "UPDATE counter SET batch = 1 RETURNING batch",
        "CREATE TEMP TABLE t (x)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "DROP VIEW processes",
        "ATTACH '/tmp/prochist-attached.db' AS a",
        "DETACH main",
        "VACUUM INTO '/tmp/prochist-vacuumed.db'",
        "BEGIN",
        "SAVEPOINT s",
        "ANALYZE",
        "REINDEX",
        "PRAGMA user_version = 5",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = 1",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA wal_checkpoint",
        "PRAGMA trusted_schema",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT * FROM pragma_wal_checkpoint",
    ],
)
def test_whatever_is_not_reading_is_refused(db: apsw.Connection, statement: str) -> None:
    before = db.execute("SELECT count(*) FROM processes").get
    with pytest.raises(UsageError, match=r"not (permitted|authorized)|no such|prohibited"):
        list(Statement(db, statement, limit_s=5).rows())
    db.authorizer = None
    assert db.execute("SELECT count(*) FROM processes").get == before
    assert not Path("/tmp/prochist-attached.db").exists()  # noqa: S108
    assert not Path("/tmp/prochist-vacuumed.db").exists()  # noqa: S108


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA table_info(lifetime)",
        "PRAGMA user_version",
        "PRAGMA integrity_check",
        "SELECT name FROM pragma_table_list",
        "EXPLAIN QUERY PLAN SELECT * FROM processes",
        "SELECT json_extract(argv, '$[0]') FROM processes",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
    ],
)
def test_whatever_only_reads_is_run(db: apsw.Connection, statement: str) -> None:
    assert list(Statement(db, statement, limit_s=5).rows())


def test_a_statement_without_end_is_ended(db: apsw.Connection) -> None:
    with pytest.raises(UsageError, match=r"takes more than 0\.1 s") as caught:
        Statement(db, ENDLESS, limit_s=0.1)
    assert "--timeout" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT 1; SELECT 2", "more than one"),
        ("", "no statement"),
        (" -- nothing", "no statement"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM missing", "no such table"),
        ("SELECT ?", "binding"),
        ("SELECT hex(zeroblob(200000000))", "too big|too large"),
    ],
)
def test_what_is_no_single_statement_is_refused(
    db: apsw.Connection, statement: str, words: str
) -> None:
    with pytest.raises(UsageError, match=f"(?i){words}"):
        list(Statement(db, statement, limit_s=5).rows())
