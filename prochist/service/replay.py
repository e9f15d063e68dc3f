"""Replay: a capture file through the same path as live events."""

from contextlib import suppress
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
from prochist.clock import ClockReading, MonotonicNs
from prochist.errors import ProchistError
from prochist.history.loss import SequenceGaps
from prochist.history.tracker import Tracker
from prochist.service.lock import DatabaseLock
from prochist.service.names import Names, user_names
from prochist.service.redaction import Redaction
from prochist.service.settings import Summary
from prochist.service.sink import COMMIT_ROWS, Sink
from prochist.store.database import open_writer, translate
from prochist.store.writer import Writer

READ_BYTES = 1024 * 1024


def replay_capture(path: Path, database: Path, redaction: Redaction | None = None) -> Summary:
    """Feed a capture into a database and return what it held.

    ``redaction`` overwrites what is secret in command lines before it is written.

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
                return _replay(file, path, db, redaction)
            finally:
                lock.close()
        except apsw.Error as error:
            raise translate(error, database) from error
        except OverflowError as error:  # a number that SQLite cannot hold, and no kernel sends
            message = f"the capture {path} is damaged: a number is too large"
            raise ProchistError(message) from error
        finally:
            db.close()


def _replay(
    file: BinaryIO, path: Path, db: apsw.Connection, redaction: Redaction | None
) -> Summary:
    with user_names() as names:
        replay = _Replay(db, path, names, redaction)
        notes = replay.feed_all(file)
        summary = replay.finish()
    summary.notes += notes
    return summary


class _Replay:
    """One capture on its way into a database that the caller opened."""

    def __init__(
        self, db: apsw.Connection, path: Path, names: Names, redaction: Redaction | None
    ) -> None:
        self._db = db
        self._path = path
        self._names = names
        self._redaction = redaction
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
        if self._redaction is not None:
            record = self._redaction.apply(record)
        match record:
            case Host():
                self._host = record
            case Clock(reading) if self._sink is None and self._host is not None:
                self._sink = self._begin(self._host, reading)
                self._last = reading.monotonic_ns
            case _:
                self._last = max(self._last, _instant(record))
        if self._sink is not None:
            self._sink.feed(record)
            if self._sink.writer.pending >= COMMIT_ROWS:
                self._sink.commit(self._sink.tracker.clock, self._last)

    def _begin(self, host: Host, reading: ClockReading) -> Sink:
        now = reading.epoch(reading.monotonic_ns)
        writer = Writer(self._db, host, now, self._names.name_of)
        self._refuse_second(writer.boot, reading)
        tracker = Tracker(reading, next_id=writer.next_id)
        sink = Sink(writer, tracker, SequenceGaps())
        sink.facts = {"sources": {"capture": self._path.name}}
        writer.begin(0, __version__, now, reading.monotonic_ns)
        return sink

    def _refuse_second(self, boot: int, began: ClockReading) -> None:
        """Refuse a capture of a time that the database already has.

        Raises:
            ProchistError: it has.

        """
        began_ns = began.epoch(began.monotonic_ns)
        newer = self._db.execute(
            "SELECT min(started_at_ns) FROM recording WHERE boot = ? AND committed_at_ns > ?",
            (boot, began_ns),
        ).get
        if newer is None or (newer > began_ns and newer >= began.epoch(_last_instant(self._path))):
            return
        message = f"the database already has a recording of the time of {self._path.name}"
        raise ProchistError(message, hint="replay it into a new database: --db NEW.db")

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


def _instant(record: Record) -> MonotonicNs:
    """Return the newest time that a record speaks of; 0 when it speaks of none."""
    match record:
        case Counters(at_ns=at) | Scanned(ended_ns=at):
            return at
        case Messages(messages) if messages:
            return messages[-1].timestamp_ns
    return MonotonicNs(0)


def _last_instant(path: Path) -> MonotonicNs:
    """Return the newest time that a capture speaks of, up to where it is damaged."""
    last = MonotonicNs(0)
    left_over = b""
    with path.open("rb") as file, suppress(StreamError):
        file.seek(len(MAGIC))
        while part := file.read(READ_BYTES):
            stream = left_over + part
            view = memoryview(stream)
            end = 0
            while (length := whole_record(view, end)) is not None:
                end += length
            left_over = stream[end:]
            last = max((last, *map(_instant, decode_records(view[:end]))))
    return last
