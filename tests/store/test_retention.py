"""What goes and what stays when a history is pruned, and that space comes back."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from prochist.clock import EpochNs
from prochist.store.database import open_writer
from prochist.store.dictionaries import USERS, Sweep
from prochist.store.retention import LEAST_BYTES, SETTLE_NS, Limits, Pruner
from tests.history_builder import SECOND, T0, HistoryBuilder

DAY = 86_400 * SECOND
NOW = EpochNs(T0 + 30 * DAY)


@pytest.fixture
def builder(tmp_path: Path) -> HistoryBuilder:
    return HistoryBuilder(tmp_path / "history.db")


@pytest.fixture
def opened() -> Iterator[list[apsw.Connection]]:
    connections: list[apsw.Connection] = []
    yield connections
    for connection in connections:
        connection.close()


def reopen(builder: HistoryBuilder, opened: list[apsw.Connection]) -> apsw.Connection:
    builder.close()
    db = open_writer(builder.path)
    opened.append(db)
    return db


def prune(db: apsw.Connection, limits: Limits, now_ns: EpochNs = NOW) -> Pruner:
    pruner = Pruner(db, limits)
    pruner.sweep_soon()
    while pruner.step(now_ns, seconds=0.05):
        pass
    return pruner


def ids(db: apsw.Connection) -> list[int]:
    return [int(id_) for (id_,) in db.execute("SELECT id FROM lifetime ORDER BY id")]


def count(db: apsw.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").get)  # noqa: S608  constant text


def assert_sound(db: apsw.Connection) -> None:
    assert db.pragma("integrity_check") == "ok"
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_lives_that_ended_longer_ago_than_the_age_go(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    old = builder.life(10, T0, T0 + DAY, 0)
    young = builder.life(11, T0, NOW - DAY, 0)
    running = builder.life(12, T0)
    db = reopen(builder, opened)
    pruner = prune(db, Limits(keep_ns=2 * DAY))
    assert old not in ids(db)
    assert ids(db) == [young, running]
    assert pruner.removed == 1
    assert_sound(db)


def test_an_ancestor_of_a_living_process_stays_however_old_it_is(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    grandparent = builder.life(10, T0, T0 + 1, 0)
    parent = builder.life(11, T0 + 1, T0 + 2, 0, parent_id=grandparent)
    brother = builder.life(12, T0 + 1, T0 + 2, 0, parent_id=grandparent)
    running = builder.life(13, T0 + 2, parent_id=parent)
    db = reopen(builder, opened)
    prune(db, Limits(keep_ns=DAY))
    assert ids(db) == [grandparent, parent, running]
    with db:
        db.execute(
            "UPDATE lifetime SET ended_at_ns = ?, end_source = 1 WHERE id = ?", (T0 + 3, running)
        )
    prune(db, Limits(keep_ns=DAY))
    assert ids(db) == []
    assert brother not in ids(db)


def test_what_ended_a_moment_ago_stays(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    moment = builder.life(10, T0, NOW - SETTLE_NS + SECOND, 0)
    db = reopen(builder, opened)
    prune(db, Limits(keep_ns=1))
    assert ids(db) == [moment]


def test_what_belongs_to_a_life_goes_with_it(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    old = builder.life(10, T0, T0 + 1, 0, exec_count=2)
    tracer = builder.life(11, T0, T0 + 2, 0)
    running = builder.life(12, T0)
    builder.insert(
        "earlier_exec", lifetime=old, ordinal=1, at_ns=T0, image=None, origin=None, exec_source=2
    )
    builder.insert("id_change", lifetime=old, at_ns=T0, kind=0, real=1, effective=1)
    builder.insert("event", lifetime=old, at_ns=T0, kind=0)
    builder.insert(
        "event", lifetime=running, at_ns=T0, kind=2, detail=builder.text("11"), other=tracer
    )
    db = reopen(builder, opened)
    prune(db, Limits(keep_ns=DAY))
    assert [count(db, table) for table in ("earlier_exec", "id_change")] == [0, 0]
    assert db.execute("SELECT lifetime, other FROM event").fetchall() == [(running, None)]
    assert_sound(db)


def test_texts_images_and_origins_that_nobody_uses_go_and_the_others_stay(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    for number in range(50):
        builder.life(
            100 + number,
            T0,
            T0 + 1,
            0,
            image=builder.image([f"old-{number}"]),
            origin=builder.origin(number, f"gone-{number}"),
        )
    earlier = builder.image(["earlier"])
    running = builder.life(
        12,
        T0,
        image=builder.image(["kept", "an argument"]),
        origin=builder.origin(7, "kept-user"),
        exec_origin=builder.origin(8, "kept-too"),
    )
    builder.insert(
        "earlier_exec", lifetime=running, ordinal=1, at_ns=T0, image=earlier, exec_source=2
    )
    builder.insert("event", lifetime=running, at_ns=T0, kind=1, detail=builder.text("kept-name"))
    newest = [builder.text("newest"), builder.image(["newest"]), builder.origin(99, "newest")]
    db = reopen(builder, opened)
    forgotten = []
    pruner = Pruner(db, Limits(keep_ns=DAY), lambda: forgotten.append(1))
    pruner.sweep_soon()
    while pruner.step(NOW, seconds=0.001):
        pass
    texts = {text for (text,) in db.execute("SELECT value FROM text")}
    assert not {text for text in texts if text.startswith(("old-", "gone-"))}
    assert {"kept", "kept-user", "kept-too", "kept-name", "earlier"} <= texts
    assert count(db, "image") == 3  # kept, earlier, and the newest, so that no id comes twice
    assert newest[1] in {id_ for (id_,) in db.execute("SELECT id FROM image")}
    assert forgotten
    assert_sound(db)


def test_a_dictionary_row_that_comes_into_use_during_a_sweep_stays(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    unused = builder.image(["unused"])
    revived = builder.image(["revived"])
    builder.image(["newest"])
    first = builder.life(10, T0, image=None)
    for number in range(20):
        builder.life(20 + number, T0, image=None)
    db = reopen(builder, opened)
    sweep = Sweep(db, lambda: None)
    assert not sweep.step(5)
    with db:  # a commit of the recorder: the life was looked at already
        db.execute("UPDATE counter SET batch = batch + 1")
        db.execute(
            "UPDATE lifetime SET image = ?, batch = (SELECT batch FROM counter) WHERE id = ?",
            (revived, first),
        )
    while not sweep.step(5):
        pass
    left = {id_ for (id_,) in db.execute("SELECT id FROM image")}
    assert revived in left
    assert unused not in left
    assert "revived" in {text for (text,) in db.execute("SELECT value FROM text")}
    assert_sound(db)


def test_the_sweep_knows_every_column_that_names_a_dictionary_row(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    db = reopen(builder, opened)
    tables = [t for (t,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found: dict[str, set[tuple[str, str]]] = {table: set() for table in USERS}
    for table in tables:
        for row in db.execute(f"PRAGMA foreign_key_list({table})"):
            if row[2] in found:
                found[str(row[2])].add((table, str(row[3])))
    assert found == USERS


def test_a_history_that_is_too_large_loses_its_oldest_lives_and_the_file_shrinks(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    builder.db.execute("COMMIT")
    builder.db.pragma("foreign_keys", "OFF")
    builder.db.execute("BEGIN")
    filler = "x" * 6000
    for number in range(8000):
        image = builder.image([f"program-{number}", filler + str(number)])
        builder.life(number, T0 + number, T0 + number + 1, 0, image=image)
    running = builder.life(9000, T0)
    db = reopen(builder, opened)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    before = builder.path.stat().st_size
    assert before > LEAST_BYTES
    pruner = prune(db, Limits(most_bytes=LEAST_BYTES))
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert builder.path.stat().st_size <= LEAST_BYTES
    left = ids(db)
    assert left[-1] == running
    assert 0 < len(left) < 8000
    assert left[0] > 8000 - len(left)  # the oldest went
    assert pruner.removed == 8001 - len(left)
    assert_sound(db)


def test_after_pruning_the_history_says_from_where_on_it_is_complete(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    builder.life(10, T0, T0 + DAY, 0)
    builder.life(11, T0, NOW - DAY, 0)
    builder.gap(T0, T0 + 1)
    builder.gap(NOW - DAY, NOW - DAY + 1)
    builder.recording(T0, T0 + 2 * DAY // 3)
    builder.recording(T0 + DAY // 2, NOW)
    db = reopen(builder, opened)
    prune(db, Limits(keep_ns=2 * DAY))
    horizon = db.execute("SELECT min(started_at_ns) FROM recording").get
    assert T0 + DAY <= int(horizon) <= NOW - 2 * DAY
    assert count(db, "recording") == 1
    assert count(db, "gap") == 1


def test_the_forecast_is_what_then_happens(
    builder: HistoryBuilder, opened: list[apsw.Connection]
) -> None:
    parent = builder.life(10, T0, T0 + 1, 0)
    builder.life(11, T0, parent_id=parent)
    for number in range(30):
        builder.life(20 + number, T0, T0 + number * DAY, 0)
    db = reopen(builder, opened)
    before = ids(db)
    seen = Pruner(db, Limits(keep_ns=5 * DAY)).forecast(NOW)
    assert ids(db) == before
    assert seen.kept_ancestors == 1
    pruner = prune(db, Limits(keep_ns=5 * DAY))
    assert pruner.removed == seen.lives == 26
