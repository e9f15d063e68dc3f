"""Schema changes keep old history: each earlier version, with rows in it, becomes the newest.

A new file in schema/ needs no change here but for the rows that only it can hold.
"""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from prochist.service.verification import verify
from prochist.store.database import APPLICATION_ID, migrations, newest_version, open_writer

ROWS = {
    1: """
    INSERT INTO boot VALUES (1, 'b', 'host', 'machine', '6.1', 1, 1, 9000000000);
    INSERT INTO text VALUES (1, 11, 'true'), (2, 12, '/usr/bin/true'), (3, 13, 'root');
    INSERT INTO image VALUES (1, 1, 2, 2, 2, NULL, 1, NULL, NULL);
    INSERT INTO origin (id, hash, uid, euid, gid, egid, user) VALUES (1, 31, 0, 0, 0, 0, 3);
    INSERT INTO lifetime (id, boot, pid, image, origin, started_at_ns, start_source, exec_at_ns,
        exec_count, exec_source, ended_at_ns, end_source, wait_status, is_kernel_thread,
        thread_peak, batch)
    VALUES (1, 1, 10, 1, 1, 1000000000, 0, 1500000000, 2, 3, 2000000000, 1, 256, 0, 1, 1);
    INSERT INTO lifetime (id, boot, pid, parent_id, ppid, image, origin, started_at_ns,
        start_source, exec_count, exec_source, is_kernel_thread, thread_peak, batch)
    VALUES (2, 1, 11, 1, 10, 1, 1, 1200000000, 0, 0, 1, 0, 1, 1);
    INSERT INTO earlier_exec VALUES (1, 1, 1100000000, 1, 1, 2);
    INSERT INTO id_change VALUES (1, 1, 1600000000, 0, 1, 1);
    INSERT INTO event VALUES (1, 2, 1700000000, 1, 1, NULL);
    INSERT INTO gap VALUES (1, 1, 5, 6, 0, 7, 'proc connector');
    INSERT INTO recording VALUES
    (1, 1, 99, '0.1.0', 1, NULL, 9000000000, 2, 50, 7, 2, 2, 2, '{}');
    INSERT INTO cpu_sequence VALUES (0, 1, 42);
    UPDATE counter SET next_lifetime = 3, batch = 1;
    """,
}
"""Rows by the version they were written with; a version without has those of the one before."""

VIEWS = ("processes", "execs", "id_changes", "events", "gaps", "boots", "running", "failed")


def make(path: Path, version: int) -> None:
    """Make a database as a prochist of that version left it."""
    with closing(apsw.Connection(str(path))) as db:
        db.pragma("auto_vacuum", "INCREMENTAL")
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("journal_mode", "WAL")
        for step in migrations()[:version]:
            db.execute(step.sql)
            db.pragma("user_version", step.number)
        with db:
            db.execute(ROWS[max(number for number in ROWS if number <= version)])


def content(db: apsw.Connection, view: str, columns: list[str]) -> list[tuple[object, ...]]:
    return db.execute(f"SELECT {', '.join(columns)} FROM {view} ORDER BY 1, 2").fetchall()  # noqa: S608  constant text


def columns_of(db: apsw.Connection, view: str) -> list[str]:
    return [str(row[1]) for row in db.execute(f"PRAGMA table_info({view})")]


@pytest.mark.parametrize("version", range(1, newest_version() + 1))
def test_a_history_of_each_version_keeps_every_row_and_every_column(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "history.db"
    make(path, version)
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as old:
        columns = {view: columns_of(old, view) for view in VIEWS}
        before = {view: content(old, view, columns[view]) for view in VIEWS}
    assert all(before.values())
    with closing(open_writer(path)) as new:
        assert new.pragma("user_version") == newest_version()
        assert {view: content(new, view, columns[view]) for view in VIEWS} == before
        assert new.execute("SELECT next_lifetime FROM counter").get == 3
        with closing(apsw.Connection(":memory:")) as fresh:
            for step in migrations():
                fresh.execute(step.sql)
            tables = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY 2"
            assert [row[:2] for row in new.execute(tables)] == [
                row[:2] for row in fresh.execute(tables)
            ]
    assert [finding for finding in verify(path) if finding.found] == []


def test_migrations_are_numbered_without_a_hole() -> None:
    assert [step.number for step in migrations()] == list(range(1, newest_version() + 1))
