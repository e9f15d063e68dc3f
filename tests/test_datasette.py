"""The questions that ``contrib/datasette/metadata.json`` brings along."""

import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.history_builder import SECOND, T0, HistoryBuilder, fill

METADATA = Path(__file__).resolve().parent.parent / "contrib" / "datasette" / "metadata.json"
DATABASE: dict[str, Any] = json.loads(METADATA.read_text())["databases"]["prochist"]
ASKED = {"at": "2026-09-21T14:15:00Z", "pid": "301", "id": "20", "word": "n="}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> apsw.Connection:
    path = tmp_path_factory.mktemp("datasette") / "prochist.db"
    builder = HistoryBuilder(path)
    fill(builder, 2000)
    builder.insert("id_change", lifetime=5, at_ns=T0, kind=0, real=1000, effective=0)
    builder.gap(T0, T0 + SECOND)
    builder.recording(committed_at_ns=T0 + 600 * SECOND)
    builder.close()
    return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)


@pytest.mark.parametrize("name", DATABASE["queries"])
def test_a_canned_question_has_an_answer(db: apsw.Connection, name: str) -> None:
    question = DATABASE["queries"][name]
    assert question["title"]
    assert list(db.execute(question["sql"], ASKED)), name


@pytest.mark.parametrize("name", DATABASE["queries"])
def test_a_canned_question_reads_no_table_of_lives_from_end_to_end(
    db: apsw.Connection, name: str
) -> None:
    if name in ("most_failed", "failed_lately", "newest", "by_word"):
        return  # by the newest first until there are enough, or through the failed ones
    sql = DATABASE["queries"][name]["sql"]
    steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", ASKED)]
    assert not any(step == "SCAN l" for step in steps), steps


def test_every_table_and_view_is_described_or_hidden(db: apsw.Connection) -> None:
    names = {
        row[0]
        for row in db.execute(
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite_%'"
        )
    }
    assert set(DATABASE["tables"]) == names
    views = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")}
    assert {name for name, t in DATABASE["tables"].items() if "description" in t} == views
