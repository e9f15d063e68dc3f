"""The write-ahead log stays bounded under readers that never stop."""

import random
from contextlib import closing
from pathlib import Path

import apsw

from prochist.store.database import open_reader, open_writer
from prochist.store.logbound import LogBound

BOUND = 2 * 1024 * 1024


def write(db: apsw.Connection, number: int) -> None:
    """Write about 200 KiB in one transaction."""
    with db:
        for part in range(40):
            db.execute(
                "INSERT INTO text (hash, value) VALUES (?, ?)",
                (number, random.Random(number * 100 + part).randbytes(2500).hex()),  # noqa: S311  no secret
            )


def test_the_log_stays_bounded_although_some_reader_always_reads(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(open_writer(path)) as db:
        bound = LogBound(db, path, BOUND, most_pending=10**9)
        readers: list[apsw.Connection] = []
        written = largest = waited = 0
        for turn in range(2000):
            if turn % 10 == 0:  # three readers that overlap, each for thirty turns
                reader = open_reader(path)
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM text").fetchall()
                readers.append(reader)
                if len(readers) > 3:
                    readers.pop(0).close()
            if bound.allows(1):
                write(db, written)
                written += 1
            else:
                waited += 1
                bound._next_try = 0.0  # noqa: SLF001  turns take the place of time
            largest = max(largest, bound.size_bytes)
        for reader in readers:
            reader.close()
        assert waited
        assert bound.pauses > 1
        assert bound.gave_up == 0
        assert written > 200
        assert largest <= BOUND + 1024 * 1024


def test_a_reader_that_never_ends_does_not_stop_the_writing(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(open_writer(path)) as db, closing(open_reader(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM text").fetchall()
        bound = LogBound(db, path, BOUND, most_pending=100)
        number = 0
        while bound.allows(1):
            write(db, number)
            number += 1
        assert not bound.allows(99)
        bound._next_try = 0.0  # noqa: SLF001  turns take the place of time
        assert bound.allows(100)
        assert bound.gave_up == 1


def test_a_log_that_is_small_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(open_writer(path)) as db:
        write(db, 1)
        bound = LogBound(db, path, BOUND, most_pending=100)
        assert bound.allows(1)
        assert bound.size_bytes > 0
        assert bound.pauses == 0
