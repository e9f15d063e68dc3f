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
    Scanned,
    StreamError,
    decode_records,
    whole_record,
)
from prochist.clock import EpochNs, MonotonicNs
from prochist.errors import ProchistError
from prochist.history.loss import SequenceGaps
from prochist.history.tracker import Tracker
from prochist.service.names import user_names
from prochist.service.recorder import COMMIT_ROWS, DatabaseLock, Sink, Summary
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
        finally:
            db.close()


def _replay(file: BinaryIO, path: Path, db: apsw.Connection) -> Summary:
    host: Host | None = None
    sink: Sink | None = None
    writer: Writer | None = None
    summary = Summary()
    names = user_names()
    left_over = b""
    position = len(MAGIC)
    last = MonotonicNs(0)
    with names:
        while part := file.read(READ_BYTES):
            stream = left_over + part
            view = memoryview(stream)
            end = 0
            try:
                while (length := whole_record(view, end)) is not None:
                    for record in decode_records(view[end : end + length]):
                        match record:
                            case Host():
                                host = record
                            case Clock(reading) if sink is None and host is not None:
                                now = reading.epoch(reading.monotonic_ns)
                                writer = Writer(db, host, now, names.name_of)
                                _refuse_second(db, writer.boot, now, path)
                                tracker = Tracker(reading, next_id=writer.next_id)
                                sink = Sink(writer, tracker, SequenceGaps())
                                sink.facts = {"sources": {"capture": path.name}}
                                writer.begin(0, __version__, now, reading.monotonic_ns)
                            case Counters(at_ns=at) | Scanned(ended_ns=at):
                                last = max(last, at)
                            case Messages(messages) if messages:
                                last = max(last, messages[-1].timestamp_ns)
                            case _:
                                pass
                        if sink is not None:
                            sink.feed(record)
                    end += length
                    if sink is not None and writer is not None and writer.pending >= COMMIT_ROWS:
                        sink.commit(sink.tracker.clock, last)
            except StreamError as error:
                summary.notes.append(f"{error.message} ({position + end} bytes into the file)")
                left_over = b""
                break
            position += end
            left_over = stream[end:]
    if left_over:
        summary.notes.append(f"the capture ends in the middle of a record, at byte {position}")
    if sink is None or writer is None:
        message = f"{path} holds no recording"
        raise ProchistError(message, hint="it was cut before the first event")
    sink.commit(sink.tracker.clock, last)
    writer.end(EpochNs(sink.tracker.epoch(last)))
    summary.lives = writer.lives_begun
    summary.execs = writer.execs
    summary.execs_described = writer.execs_described
    summary.events = sink.losses.received
    summary.lost = sink.losses.missing
    return summary


def _refuse_second(db: apsw.Connection, boot: int, began: EpochNs, path: Path) -> None:
    """Refuse a capture of a time that the database already has.

    Raises:
        ProchistError: it has.

    """
    row = db.execute(
        "SELECT count(*) FROM recording WHERE boot = ? AND started_at_ns <= ? AND committed_at_ns > ?",
        (boot, began, began),
    ).fetchone()
    if row[0]:
        message = f"the database already has a recording of the time of {path.name}"
        raise ProchistError(message, hint="replay it into a new database: --db NEW.db")
