"""Texts, images and origins are stored once, and found again by whoever comes later."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from prochist.history.image import NOTHING_KNOWN, Image
from prochist.history.lifetime import Origin
from prochist.store import interning
from prochist.store.database import open_writer
from prochist.store.interning import LONGEST_CACHED_TEXT, MOST_ALIKE, Interning

PLAIN = Image("sh", "/bin/dash", "/bin/sh", "sh -c x", None, True, "/", None)
ALIKE = [
    PLAIN,
    PLAIN._replace(comm="dash"),
    PLAIN._replace(exe=None),
    PLAIN._replace(exec_path="sh"),
    PLAIN._replace(command_line="sh -c y"),
    PLAIN._replace(argv='["sh","-c","x"]'),
    PLAIN._replace(argv_complete=False),
    PLAIN._replace(cwd="/root"),
    PLAIN._replace(argv_raw=b"sh\0-c\0x\0"),
    PLAIN._replace(command_line=None, argv_complete=None),
    NOTHING_KNOWN,
    NOTHING_KNOWN._replace(comm="kworker/0:1"),
]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = open_writer(tmp_path / "h.db")
    yield connection
    connection.close()


def make(db: apsw.Connection) -> Interning:
    return Interning(db, {0: "root"}.get)


def count(db: apsw.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").get)  # noqa: S608  a name of ours


def test_images_that_differ_in_anything_are_told_apart_and_found_again(
    db: apsw.Connection,
) -> None:
    first = make(db)
    first.learn([None, *ALIKE, *ALIKE])
    ids = [first.images[image] for image in ALIKE]
    assert len(set(ids)) == len(ALIKE) == count(db, "image")
    assert first.images[None] is None
    first.forget()
    for later in (first, make(db)):
        later.learn(ALIKE[::-1])
        assert [later.images[image] for image in ALIKE] == ids
    assert count(db, "image") == len(ALIKE)
    assert db.execute("SELECT count(*) FROM (SELECT DISTINCT value FROM text)").get == count(
        db, "text"
    )


def test_an_image_has_the_texts_that_it_was_given(db: apsw.Connection) -> None:
    strange = Image("a\nb", "/\\xff", "", "'x\0y'", '["x\\u0000y"]', False, "/ä", b"x\xff")
    first = make(db)
    first.learn([strange])
    row = db.execute(
        "SELECT (SELECT value FROM text WHERE id = comm), (SELECT value FROM text WHERE id = exe),"
        " (SELECT value FROM text WHERE id = exec_path),"
        " (SELECT value FROM text WHERE id = command_line),"
        " (SELECT value FROM text WHERE id = argv), argv_complete,"
        " (SELECT value FROM text WHERE id = cwd), argv_raw FROM image"
    ).get
    assert Image(*row) == strange._replace(argv_complete=0)  # type: ignore[arg-type]
    later = make(db)
    later.learn([strange])
    assert count(db, "image") == 1


def test_ids_are_never_given_twice_while_the_newest_row_stays(db: apsw.Connection) -> None:
    first = make(db)
    first.learn(ALIKE)
    db.execute("DELETE FROM image WHERE id NOT IN (SELECT max(id) FROM image)")
    first.forget()
    first.learn([PLAIN])
    assert first.images[PLAIN] == len(ALIKE) + 1


def test_what_was_not_committed_is_written_again(db: apsw.Connection) -> None:
    first = make(db)
    db.execute("BEGIN")
    first.learn([PLAIN])
    first.origin(Origin(uid=0))
    db.execute("ROLLBACK")
    first.forget()
    first.learn([PLAIN])
    assert (count(db, "image"), count(db, "text")) == (1, 5)
    assert first.origin(Origin(uid=0)) == 1


def test_origins_are_stored_once_with_names_units_and_containers(db: apsw.Connection) -> None:
    first = make(db)
    service = Origin(0, 0, 0, 0, None, None, None, "/system.slice/ssh.service")
    id_ = first.origin(service)
    assert first.origin(service._replace(uid=1)) != id_
    assert first.origin(None) is None
    assert make(db).origin(service) == id_
    row = db.execute(
        "SELECT (SELECT value FROM text WHERE id = user), (SELECT value FROM text WHERE id = unit)"
        " FROM origin WHERE id = ?",
        (id_,),
    ).fetchone()
    assert row == ("root", "ssh.service")


def test_what_is_long_is_remembered_only_within_a_batch(db: apsw.Connection) -> None:
    first = make(db)
    long = PLAIN._replace(command_line="x" * (LONGEST_CACHED_TEXT + 1))
    first.learn([PLAIN, long])
    assert long in first.images
    first.trim()
    assert long not in first.images
    assert long.command_line not in first.texts
    assert PLAIN in first.images
    first.learn([long])
    assert count(db, "image") == 2


def test_what_is_remembered_is_bounded(
    db: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interning, "CACHED_ROWS", 10)
    first = make(db)
    first.learn(PLAIN._replace(command_line=str(number)) for number in range(20))
    for number in range(20):
        first.origin(Origin(uid=number))
    first.trim()
    assert len(first.images) == len(first.texts) == 1
    first.learn([PLAIN._replace(command_line="3")])
    assert (count(db, "image"), count(db, "origin")) == (20, 20)


def test_a_hostile_number_of_images_alike_costs_rows_and_not_time(db: apsw.Connection) -> None:
    alike = [PLAIN._replace(exec_path="./" * n + "sh") for n in range(MOST_ALIKE + 10)]
    make(db).learn(alike)
    assert count(db, "image") == len(alike)
    later = make(db)
    later.learn(alike[-MOST_ALIKE:])
    assert count(db, "image") == len(alike)
    later.learn(alike[:1])  # no longer among those that are looked through
    assert count(db, "image") == len(alike) + 1
    plan = db.execute("EXPLAIN QUERY PLAN " + interning._FIND_IMAGE, (None,) * 9).fetchall()  # noqa: SLF001
    assert "SEARCH image USING INDEX image_command_line" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
