from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from prochist.ask import processes
from prochist.ask.filters import Question
from prochist.ask.processes import COLUMNS, select
from prochist.ask.signals import NAMES, parse_signal
from prochist.clock import EpochNs
from prochist.errors import UsageError
from prochist.store.database import open_reader
from tests.history_builder import SECOND, T0, HistoryBuilder, fill

NOW = EpochNs(T0 + 400 * SECOND)
EVERYTHING = Question(now_ns=NOW, kernel_threads=True)
VIEW_IN_ORDER = "SELECT * FROM processes ORDER BY coalesce(started_at_ns, ended_at_ns, 0), id"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path = tmp_path_factory.mktemp("processes") / "history.db"
    builder = HistoryBuilder(path)
    fill(builder, 2_000, images=300)
    for status in range(128):  # each signal, each with and without a core
        builder.life(9, T0, T0 + 1, status)
        builder.life(9, T0, T0 + 1, status | 128)
    for argv in ([], [""], ["a b", "c"], ["\n", "\x1b[31m", "é", '"', "\\"], ["x" * 5000]):
        builder.life(10, T0 + 123_456_789, T0 + 999_999_999_999, 0, image=builder.image(argv))
    builder.life(11, T0, None, None, image=None, origin=None)
    builder.life(12, T0, T0, 0, image=builder.image(None, comm=None, exe=None, cwd=None))
    builder.close()
    with closing(open_reader(path)) as reader:
        yield reader


def test_the_columns_are_those_of_the_view(db: apsw.Connection) -> None:
    names = tuple(row[1] for row in db.execute("PRAGMA table_info(processes)"))
    assert names == COLUMNS


def test_rows_are_exactly_those_of_the_view(db: apsw.Connection) -> None:
    assert list(select(db, EVERYTHING).rows()) == list(db.execute(VIEW_IN_ORDER))


def test_rows_are_right_when_the_caches_are_too_small(
    db: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_MOST_KEPT", 3)
    assert list(select(db, EVERYTHING).rows()) == list(db.execute(VIEW_IN_ORDER))


@pytest.mark.parametrize("most_turned", [10_000, 0])
def test_a_limit_gives_the_last_in_order(
    db: apsw.Connection, monkeypatch: pytest.MonkeyPatch, most_turned: int
) -> None:
    monkeypatch.setattr(processes, "_MOST_TURNED", most_turned)
    everything = list(db.execute(VIEW_IN_ORDER))
    last = list(select(db, EVERYTHING, limit=7).rows())
    assert last == everything[-7:]
    assert list(select(db, EVERYTHING, limit=7, newest_first=True).rows()) == last[::-1]
    assert list(select(db, EVERYTHING, newest_first=True).rows()) == everything[::-1]
    assert list(select(db, EVERYTHING, limit=10**6).rows()) == everything


def test_a_limit_says_how_far_back_it_reached(db: apsw.Connection) -> None:
    answer = select(db, EVERYTHING, limit=7)
    rows = list(answer.rows())
    at = COLUMNS.index("started_at_ns")
    assert answer.reach_ns == min(row[at] for row in rows)  # type: ignore[type-var]
    assert answer.count == 7
    assert select(db, EVERYTHING, limit=9_000).reach_ns is None
    assert select(db, EVERYTHING).reach_ns is None


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_can_be_sorted_by(db: apsw.Connection, column: str) -> None:
    at = COLUMNS.index(column)
    values = [row[at] for row in select(db, EVERYTHING, sort=column).rows()]
    assert values == [
        row[0]
        for row in db.execute(f'SELECT "{column}" FROM processes ORDER BY "{column}"')  # noqa: S608
    ]


def test_no_other_column_can_be_sorted_by(db: apsw.Connection) -> None:
    with pytest.raises(UsageError, match="no such column") as caught:
        select(db, EVERYTHING, sort='id"; DROP TABLE lifetime; --')
    assert "command_line" in (caught.value.hint or "")


def test_an_empty_history_has_no_rows(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "empty.db")
    builder.close()
    with closing(open_reader(tmp_path / "empty.db")) as db:
        assert list(select(db, EVERYTHING).rows()) == []
        assert processes.count(db, EVERYTHING) == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigkill", 9), ("SIGTERM", 15), ("RTMIN+1", 35), ("SIGRTMAX", 64)],
)
def test_a_signal_has_a_name_and_a_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


def test_the_name_of_each_signal_is_read_back() -> None:
    for number in range(1, 65):
        assert parse_signal(NAMES[number]) == number


@pytest.mark.parametrize("text", ["", "0", "65", "KILLL", "-9", "SIG", "٩", "SIG-1"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a signal"):
        parse_signal(text)
