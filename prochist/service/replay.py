"""Replay: a capture file through the same path as live events."""

from pathlib import Path
from typing import BinaryIO

import apsw

from prochist import __version__
from prochist.capture.observation import (
    MAGIC,
    Clock,
    Counters,
    Host,
    Messages,
    Record,
    Scanned,
    StreamError,
    decode_records,
    whole_record,
)
from prochist.clock import ClockReading, EpochNs, MonotonicNs
from prochist.errors import ProchistError
from prochist.history.loss import SequenceGaps
from prochist.history.tracker import Tracker
from prochist.service.lock import DatabaseLock
from prochist.service.names import Names, user_names
from prochist.service.settings import Summary
from prochist.service.sink import COMMIT_ROWS, Sink
from prochist.store.database import open_writer, translate
from prochist.store.writer import Writer

READ_BYTES = 1024 * 1024


def replay_capture(path: Path, database: Path) -> Summary:
    """Feed a capture into a database and return what it held.

    A capture that is cut or damaged is replayed up to there, and a note in the
    summary says where.

    Raises:
        ProchistError: not a capture, already in this database, or the database is unusable.

    """
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"cannot read the capture {path}: {error.strerror}"
        raise ProchistError(message) from error
    with file:
        try:
            magic = file.read(len(MAGIC))
        except OSError as error:
            message = f"cannot read the capture {path}: {error.strerror}"
            raise ProchistError(message) from error
        if magic != MAGIC:
            message = f"{path} is not a prochist capture"
            raise ProchistError(
                message, hint="captures are made by: prochist record --capture FILE"
            )
        db = open_writer(database)
        try:
            lock = DatabaseLock(database)
            try:
                return _replay(file, path, db)
            finally:
                lock.close()
        except apsw.Error as error:
            raise translate(error, database) from error
        except OverflowError as error:  # a number that SQLite cannot hold, and no kernel sends
            message = f"the capture {path} is damaged: a number is too large"
            raise ProchistError(message) from error
        finally:
            db.close()


def _replay(file: BinaryIO, path: Path, db: apsw.Connection) -> Summary:
    with user_names() as names:
        replay = _Replay(db, path, names)
        notes = replay.feed_all(file)
        summary = replay.finish()
    summary.notes += notes
    return summary


class _Replay:
    """One capture on its way into a database that the caller opened."""

    def __init__(self, db: apsw.Connection, path: Path, names: Names) -> None:
        self._db = db
        self._path = path
        self._names = names
        self._host: Host | None = None
        self._sink: Sink | None = None
        self._last = MonotonicNs(0)
        """Newest time that the capture speaks of."""

    def feed_all(self, file: BinaryIO) -> list[str]:
        """Feed what is whole; return notes on what is not."""
        left_over = b""
        position = len(MAGIC)
        while part := file.read(READ_BYTES):
            stream = left_over + part
            view = memoryview(stream)
            end = 0
            try:
                while (length := whole_record(view, end)) is not None:
                    for record in decode_records(view[end : end + length]):
                        self._feed(record)
                    end += length
            except StreamError as error:
                return [f"{error.message} ({position + end} bytes into the file)"]
            position += end
            left_over = stream[end:]
        if left_over:
            return [f"the capture ends in the middle of a record, at byte {position}"]
        return []

    def _feed(self, record: Record) -> None:
        match record:
            case Host():
                self._host = record
            case Clock(reading) if self._sink is None and self._host is not None:
                self._sink = self._begin(self._host, reading)
                self._last = reading.monotonic_ns
            case Counters(at_ns=at) | Scanned(ended_ns=at):
                self._last = max(self._last, at)
            case Messages(messages) if messages:
                self._last = max(self._last, messages[-1].timestamp_ns)
        if self._sink is not None:
            self._sink.feed(record)
            if self._sink.writer.pending >= COMMIT_ROWS:
                self._sink.commit(self._sink.tracker.clock, self._last)

    def _begin(self, host: Host, reading: ClockReading) -> Sink:
        now = reading.epoch(reading.monotonic_ns)
        writer = Writer(self._db, host, now, self._names.name_of)
        _refuse_second(self._db, writer.boot, now, self._path)
        tracker = Tracker(reading, next_id=writer.next_id)
        sink = Sink(writer, tracker, SequenceGaps())
        sink.facts = {"sources": {"capture": self._path.name}}
        writer.begin(0, __version__, now, reading.monotonic_ns)
        return sink

    def finish(self) -> Summary:
        """Commit the rest and return what there was.

        Raises:
            ProchistError: there was nothing.

        """
        sink = self._sink
        if sink is None:
            message = f"{self._path} holds no recording"
            raise ProchistError(message, hint="it was cut before the first event")
        sink.commit(sink.tracker.clock, self._last)
        writer = sink.writer
        writer.end(sink.tracker.epoch(self._last))
        return Summary(
            lives=writer.lives_begun,
            execs=writer.execs,
            execs_described=writer.execs_described,
            events=sink.losses.received,
            lost=sink.losses.missing,
        )


def _refuse_second(db: apsw.Connection, boot: int, began: EpochNs, path: Path) -> None:
    """Refuse a capture of a time that the database already has.

    Raises:
        ProchistError: it has.

    """
    row = db.execute(
        "SELECT 1 FROM recording WHERE boot = ? AND started_at_ns <= ? AND committed_at_ns > ?",
        (boot, began, began),
    ).fetchone()
    if row is not None:
        message = f"the database already has a recording of the time of {path.name}"
        raise ProchistError(message, hint="replay it into a new database: --db NEW.db")
