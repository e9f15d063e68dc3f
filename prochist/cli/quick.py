"""The fast lane: ``prochist ps --fields pid,ppid`` for a program that asks every second.

It answers what needs neither click nor anything of the standard library that Python has not
loaded at its start: importing those costs more system calls than the answer, and ps(1) is to be
undercut a hundredfold. Everything else, everything unusual and every error is
left to ``cli/ps.py`` by answering None; where both answer, a test holds them together.

Columns are the numbers of a lifetime, in tables for pipes and files, csv or tsv.
"""

import fcntl
import os
import sys
import time

import apsw

SCHEMA = 1
"""``user_version`` of the only schema whose tables this knows."""

APPLICATION_ID = 0x70726F63
SYSTEM_PATH = "/var/lib/prochist/prochist.db"

_COLUMNS = {
    "id": "l.id",
    "parent_id": "l.parent_id",
    "pid": "l.pid",
    "ppid": "l.ppid",
    "sid": "iif(l.sid = 0, l.pid, l.sid)",
    "started_at_ns": "l.started_at_ns",
    "exec_count": "l.exec_count",
    "thread_peak": "l.thread_peak",
}
_OPTIONS = {"--db": "db", "--fields": "fields", "--sort": "sort", "-o": "form", "--output": "form"}
_SEPARATORS = {"csv": ",", "tsv": "\t", "table": None}
_SAMPLE = 500
_MMAP_BYTES = 1 << 36
_BUSY_MS = 5_000


def ps(arguments: list[str]) -> int | None:
    """Answer ``ps`` with these arguments and return the exit status, or None if it cannot."""
    asked = {"fields": "", "sort": "pid", "form": "table", "db": os.environ.get("PROCHIST_DB", "")}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name not in _OPTIONS:
            return None
        asked[_OPTIONS[name]] = value if equals else next(words, "")
    names = asked["fields"].split(",")
    by = asked["sort"].removeprefix("-")
    if not {*names, by} <= _COLUMNS.keys() or asked["form"] not in _SEPARATORS:
        return None
    if os.isatty(1) or os.isatty(2) or "COLUMNS" in os.environ:
        return None
    path = asked["db"] or (SYSTEM_PATH if os.geteuid() == 0 else "")
    try:
        rows = _running(path, names, by) if path and _is_recording(path) else None
    except (apsw.Error, OSError, ValueError):
        return None  # the slow lane meets it again and knows what to say
    if not rows:
        return None
    rows.sort(key=_order, reverse=asked["sort"].startswith("-"))
    try:
        left = memoryview(_text(names, rows, _SEPARATORS[asked["form"]]).encode())
        while left:  # not by sys.stdout, which writes 8 KiB at a time
            left = left[os.write(1, left) :]
        noun = "process" if len(rows) == 1 else "processes"
        sys.stderr.write(f"{len(rows):,} {noun} · complete\n")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except UnicodeEncodeError:  # of the line above, in a locale that lacks the dot
        sys.stderr.write(f"{len(rows):,} {noun} - complete\n")
    return 0


def _order(row: tuple[int | None, ...]) -> tuple[bool, int | None, int | None]:
    return row[-2] is not None, row[-2], row[-1]


def _is_recording(path: str) -> bool:
    """Say whether a recorder holds its lock; see ``store.database.recorder_pid``."""
    descriptor = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _running(path: str, names: list[str], by: str) -> list[tuple[int | None, ...]] | None:
    """Read the running lives, behind each its sort key and pid; None: some may be missing."""
    db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        db.set_busy_timeout(_BUSY_MS)
        if db.pragma("application_id") != APPLICATION_ID or db.pragma("user_version") != SCHEMA:
            return None
        db.pragma("mmap_size", _MMAP_BYTES)  # no system call for each page
        db.execute("BEGIN")
        now_ns = time.time_ns()
        gap = "SELECT EXISTS (SELECT 1 FROM gap WHERE until_at_ns >= ?1 AND from_at_ns <= ?1)"
        if db.execute(gap, (now_ns,)).get:
            return None
        columns = ", ".join(_COLUMNS[name] for name in (*names, by, "pid"))
        sql = (
            f"SELECT {columns} FROM lifetime AS l INDEXED BY lifetime_running"  # noqa: S608 - constants
            " WHERE l.end_source IS NULL AND l.is_kernel_thread = 0"
        )
        return list(db.execute(sql))
    finally:
        db.close()


def _text(names: list[str], rows: list[tuple[int | None, ...]], between: str | None) -> str:
    """Return all lines: numbers aligned to the right in a table, NULL empty."""
    cells = [["" if v is None else str(v) for v in row[:-2]] for row in rows]
    cells.insert(0, list(names))
    if between is not None:
        return "".join([between.join(row) + "\n" for row in cells])
    widths = [max(map(len, column)) for column in zip(*cells[: _SAMPLE + 1], strict=True)]
    template = "  ".join(f"%{width}s" for width in widths)
    return "".join([(template % tuple(row)).rstrip() + "\n" for row in cells])
