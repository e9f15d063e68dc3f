"""Changes since a commit: each once, in order, whatever happened in between."""

from pathlib import Path

import apsw
import pytest

from prochist.ask.filters import Question
from prochist.ask.follow import Changes, newest_commit
from prochist.ask.processes import COLUMNS
from prochist.clock import EpochNs
from prochist.errors import ProchistError
from prochist.store.database import open_reader
from tests.history_builder import SECOND, T0, HistoryBuilder

NOW = EpochNs(T0 + 1000 * SECOND)
ALL = Question(now_ns=NOW)
_PID, _STATE = COLUMNS.index("pid"), COLUMNS.index("state")


class Recorder:
    """Writes lives and commits, as the writer numbers them."""

    def __init__(self, path: Path) -> None:
        self.builder = HistoryBuilder(path)
        self.batch = 0
        self.boot = self.builder.boot()
        self.commit()

    def commit(self) -> None:
        self.batch += 1
        self.builder.db.execute("UPDATE counter SET batch = ?", (self.batch,))
        self.builder.db.execute("COMMIT")
        self.builder.db.execute("BEGIN IMMEDIATE")

    def begin(self, pid: int, argv: list[str], at: int = 0) -> int:
        image = self.builder.image(argv)
        started = T0 + at * SECOND
        return self.builder.life(pid, started, image=image, batch=self.batch + 1)

    def end(self, id_: int, status: int = 0, at: int = 50) -> None:
        self.builder.db.execute(
            "UPDATE lifetime SET ended_at_ns = ?, end_source = 1, wait_status = ?, batch = ?"
            " WHERE id = ?",
            (T0 + at * SECOND, status, self.batch + 1, id_),
        )


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "history.db")


@pytest.fixture
def db(recorder: Recorder) -> apsw.Connection:
    return open_reader(recorder.builder.path)


def pids(changes: Changes) -> list[tuple[object, object]]:
    """Take all there is: pid and state."""
    found = []
    while (rows := changes.take(NOW)) is not None:
        found += [(row[_PID], row[_STATE]) for row in rows]
    return found


def test_a_life_is_given_when_it_begins_and_when_it_ends(
    recorder: Recorder, db: apsw.Connection
) -> None:
    changes = Changes(db, ALL, newest_commit(db))
    assert pids(changes) == []
    life = recorder.begin(7, ["a"])
    recorder.commit()
    assert changes.is_news()
    assert pids(changes) == [(7, "running")]
    assert pids(changes) == []
    recorder.end(life)
    recorder.commit()
    assert pids(changes) == [(7, "exited")]
    assert not pids(changes)


def test_what_changed_twice_unseen_is_given_once(recorder: Recorder, db: apsw.Connection) -> None:
    changes = Changes(db, ALL, newest_commit(db))
    life = recorder.begin(7, ["a"])
    recorder.commit()
    recorder.end(life)
    recorder.commit()
    assert pids(changes) == [(7, "exited")]


def test_changes_come_in_the_order_in_which_they_happened(
    recorder: Recorder, db: apsw.Connection
) -> None:
    changes = Changes(db, ALL, newest_commit(db))
    for pid, at in ((3, 9), (1, 7), (2, 8)):
        recorder.begin(pid, ["a"], at)
    recorder.commit()
    recorder.begin(4, ["a"], 1)
    recorder.commit()
    assert [pid for pid, _ in pids(changes)] == [1, 2, 3, 4]


def test_nothing_is_lost_over_thousands_of_commits(recorder: Recorder, db: apsw.Connection) -> None:
    changes = Changes(db, ALL, newest_commit(db))
    for pid in range(1, 1500):
        if pid % 3 == 0:
            recorder.begin(pid, ["a"], pid)
        recorder.commit()
    assert [pid for pid, _ in pids(changes)] == list(range(3, 1500, 3))
    assert changes.cursor == newest_commit(db)


def test_another_one_goes_on_where_the_first_stopped(
    recorder: Recorder, db: apsw.Connection
) -> None:
    first = Changes(db, ALL, newest_commit(db))
    recorder.begin(1, ["a"])
    recorder.commit()
    assert len(pids(first)) == 1
    recorder.begin(2, ["a"])
    recorder.commit()
    assert pids(Changes(db, ALL, first.cursor)) == [(2, "running")]


def test_patterns_match_texts_that_came_later(recorder: Recorder, db: apsw.Connection) -> None:
    asked = ALL._replace(greps=("need.e",), comms=("grep",))
    changes = Changes(db, asked, newest_commit(db))
    recorder.begin(1, ["grep", "needle"])
    recorder.begin(2, ["grep", "hay"])
    recorder.begin(3, ["cat", "needle"])
    recorder.commit()
    assert pids(changes) == [(1, "running")]
    exe = Changes(db, ALL._replace(exes=("cat",)), 0)
    assert pids(exe) == [(3, "running")]


def test_a_cursor_of_another_history_is_refused(db: apsw.Connection) -> None:
    with pytest.raises(ProchistError, match="ahead of this history"):
        Changes(db, ALL, 999)


def test_new_gaps_are_told_once(recorder: Recorder, db: apsw.Connection) -> None:
    changes = Changes(db, ALL, newest_commit(db))
    recorder.builder.gap(T0, T0 + SECOND, lost=5)
    recorder.commit()
    assert [gap.lost for gap in changes.gaps()] == [5]
    assert changes.gaps() == []


def test_changes_are_found_by_their_commit(recorder: Recorder, db: apsw.Connection) -> None:
    seen: list[str] = []
    changes = Changes(db, ALL, 0)
    recorder.begin(1, ["a"])
    recorder.commit()

    def note(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        seen.append(sql)
        return True

    db.exec_trace = note
    pids(changes)
    (sql,) = [s for s in seen if "lifetime_batch" in s and "min(" not in s]
    db.exec_trace = None
    values = {"after": 0, "until": 9, "now": NOW, "kernel_threads": 0}
    steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert any("lifetime_batch (batch>? AND batch<?)" in step for step in steps), steps
