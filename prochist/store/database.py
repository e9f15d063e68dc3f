"""The database file: where it is, how it is opened, how its schema grows.

Owns the file, its permissions, its pragmas and the list of migrations. Knows
nothing of lifetimes: what is in the tables is written by ``store/writer.py``
and asked for by ``ask/``.

The file itself is never opened here except by SQLite: closing any descriptor of
it would drop the locks that another connection of the same process holds.

Source: sqlite.org/wal.html (read-only databases), sqlite.org/howtocorrupt.html
(2.2 on POSIX locks), sqlite.org/pragma.html.
"""

import array
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import apsw

from prochist.errors import ProchistError

APPLICATION_ID = 0x70726F63
"""Marks a prochist database in its header: the letters "proc"."""

SYSTEM_PATH = Path("/var/lib/prochist/prochist.db")
BUSY_TIMEOUT_MS = 5_000
PAGE_BYTES = 4096
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024
"""Size to which the WAL file is cut after a checkpoint that emptied it."""

DIRECTORY_MODE = 0o2750
FILE_MODE = 0o640

_VIEWS = ("boots", "events", "execs", "failed", "gaps", "id_changes", "processes", "running")


class Migration(NamedTuple):
    """One file of ``schema/``: its number is the ``user_version`` that it leads to."""

    number: int
    name: str
    sql: str


def default_path(
    environ: Mapping[str, str], *, euid: int | None = None, system: Path = SYSTEM_PATH
) -> Path:
    """Say which database is meant when no ``--db`` is given.

    ``$PROCHIST_DB``; else the system's, as root or when it can be read; else the
    user's own under ``$XDG_STATE_HOME`` (``~/.local/state``).
    """
    if environ.get("PROCHIST_DB"):
        return Path(environ["PROCHIST_DB"])
    if (os.geteuid() if euid is None else euid) == 0 or os.access(system, os.R_OK):
        return system
    home = environ.get("HOME") or str(Path.home())
    state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    return Path(state) / "prochist" / "prochist.db"


def migrations() -> list[Migration]:
    """Read the files of ``schema/`` in order of their numbers."""
    return [
        Migration(int(path.name[:4]), path.stem, path.read_text(encoding="utf-8"))
        for path in _schema_files()
    ]


def newest_version() -> int:
    """Return the ``user_version`` of a database that this prochist writes."""
    return int(_schema_files()[-1].name[:4])


def _schema_files() -> list[Path]:
    package = Path(__file__).parent.parent
    folder = next(p for p in (package / "schema", package.parent / "schema") if p.is_dir())
    return sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def open_reader(path: Path) -> apsw.Connection:
    """Open a history for reading; the caller closes it.

    Works without write permission while a recorder runs, after it stopped and
    after it was killed, as long as its ``-wal`` and ``-shm`` files are there.
    Never with ``immutable=1``, which gives wrong answers while somebody writes.

    Raises:
        ProchistError: missing, not permitted, not a prochist database, or newer.
    """
    _refuse_unless_file(path, mode=os.R_OK)
    if path.stat().st_size == 0:
        message = f"{path} is empty, not a prochist database"
        raise ProchistError(message, hint=f"record into it: prochist record --db {path}")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise translate(error, path) from error
    try:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        version = _version(db, path)
        newest = newest_version()
        if version > newest:
            raise _newer(path, version, newest)
        if version < newest:
            _refuse_without_views(db, path, version)
        db.execute("SELECT 1 FROM processes LIMIT 0")  # the schema is read, damage found
    except apsw.Error as error:
        db.close()
        if isinstance(error, apsw.ReadOnlyError):  # -wal or -shm is missing and cannot be made
            error = apsw.CantOpenError(str(error))
        raise translate(error, path) from error
    except ProchistError:
        db.close()
        raise
    return db


def open_writer(path: Path) -> apsw.Connection:
    """Open a history for writing, created and migrated as needed; the caller closes it.

    Checkpoints are the caller's business: SQLite's own threshold is left as it is.

    Raises:
        ProchistError: the place is unsafe, not permitted, full, or holds something else.
    """
    path = _prepare_place(path)
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
    try:
        db = apsw.Connection(str(path), flags=flags)
    except apsw.Error as error:
        raise translate(error, path) from error
    try:
        _configure(db, path)
        migrate(db, path, migrations())
    except apsw.Error as error:
        db.close()
        raise translate(error, path) from error
    except ProchistError:
        db.close()
        raise
    return db


def migrate(db: apsw.Connection, path: Path, steps: Iterable[Migration]) -> None:
    """Bring the schema up to date, each version in a transaction of its own.

    Raises:
        apsw.Error: a step failed; what it did is undone, the steps before it stay.
    """
    for step in steps:
        with db:  # the version is read inside, in case somebody else migrates as well
            if step.number > _version(db, path):
                db.execute(step.sql)
                db.pragma("user_version", step.number)


def recorder_pid(path: Path) -> int | None:
    """Return the pid of the recorder that writes this database, or None if none is alive.

    A recorder holds ``flock(LOCK_EX)`` on ``PATH.lock``. Asking takes the shared
    lock for an instant, so a recorder that starts must try for a moment.

    Raises:
        ProchistError: the lock file cannot be read.
    """
    lock = Path(f"{path}.lock")
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _of_os(error, lock) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32)
        return int(text) if text.strip().isdigit() else 0
    else:
        return None
    finally:
        os.close(descriptor)


def translate(error: apsw.Error, path: Path | str) -> ProchistError:
    """Turn an error of SQLite into one that a user can act on."""
    for kind, message, hint in _TRANSLATIONS:
        if isinstance(error, kind):
            return ProchistError(message.format(path=path), hint=hint.format(path=path) or None)
    return ProchistError(f"{path}: {error}")


_TRANSLATIONS: tuple[tuple[type[apsw.Error], str, str], ...] = (
    (
        apsw.NotADBError,
        "{path} is not an SQLite database",
        "name the history with --db or PROCHIST_DB",
    ),
    (
        apsw.CorruptError,
        "{path} is damaged",
        "see what is left: sqlite3 {path} 'PRAGMA integrity_check'; or move it away, record anew",
    ),
    (apsw.FullError, "the disk that holds {path} is full", "free some space on it"),
    (apsw.BusyError, "{path} is locked by another program", "try again when it is done"),
    (apsw.LockedError, "{path} is locked by another program", "try again when it is done"),
    (apsw.ReadOnlyError, "{path} cannot be written", "check its owner and mode, and the mount"),
    (
        apsw.CantOpenError,
        "{path}, or its -wal and -shm files, cannot be opened",
        "without write permission both are needed: start prochist record once, or ask as its owner",
    ),
    (apsw.PermissionsError, "{path} is not permitted to this user", "ask as a member of its group"),
    (apsw.AuthError, "{path} is not permitted to this user", "ask as a member of its group"),
    (apsw.IOError, "{path} cannot be read or written: input/output error", "check its disk"),
    (apsw.NoMemError, "not enough memory for {path}", ""),
    (apsw.InterruptError, "{path}: interrupted", ""),
)


def _of_os(error: OSError, path: Path) -> ProchistError:
    """Turn an error of the operating system into one that a user can act on."""
    hint = None
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "ask as root or as a member of the group that owns it, or choose another with --db"
    return ProchistError(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint)


def _newer(path: Path, version: int, newest: int) -> ProchistError:
    message = f"{path} has schema version {version}, this prochist knows versions up to {newest}"
    return ProchistError(message, hint="use a newer prochist")


def _refuse_unless_file(path: Path, *, mode: int) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ProchistError(
            f"there is no database at {path}",
            hint="start recording with `sudo prochist record`, or name a database with --db",
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):  # a NUL in the name
            message = f"{str(path)!r} cannot be the name of a file"
            raise ProchistError(message) from error
        raise _of_os(error, path) from error
    if stat.S_ISDIR(status.st_mode):
        message = f"{path} is a directory"
        raise ProchistError(message, hint=f"perhaps --db {path / 'prochist.db'}")
    if not stat.S_ISREG(status.st_mode):
        message = f"{path} is not a regular file"
        raise ProchistError(message, hint="name a database with --db")
    if not os.access(path, mode, effective_ids=True):
        raise _of_os(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)


def _version(db: apsw.Connection, path: Path) -> int:
    """Return the schema version of what is prochist's, and refuse what is not."""
    if db.pragma("application_id") != APPLICATION_ID:
        message = f"{path} is a database of another program"
        raise ProchistError(message, hint="name the history with --db or PROCHIST_DB")
    return int(db.pragma("user_version"))


def _refuse_without_views(db: apsw.Connection, path: Path, version: int) -> None:
    """Let an older schema be read as long as it has the views that are asked."""
    found = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")}
    if not found.issuperset(_VIEWS):
        message = f"{path} has schema version {version}, too old to be read"
        raise ProchistError(message, hint=f"start `prochist record --db {path}`: it is migrated")


def _prepare_place(path: Path) -> Path:
    """Make the directory and the empty file as needed, and return the path without links.

    Nothing is followed or reused that another user could have put there.
    """
    if "\0" in str(path):
        message = f"{str(path)!r} cannot be the name of a file"
        raise ProchistError(message)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            path.parent.chmod(DIRECTORY_MODE)
        path = path.parent.resolve(strict=True) / path.name
        mode = path.parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            message = f"{path.parent} may be written by everybody"
            raise ProchistError(message, hint=f"choose another, or: chmod o-w {path.parent}")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, FILE_MODE)
        except FileExistsError:
            pass
        else:
            os.fchmod(descriptor, FILE_MODE)
            os.close(descriptor)
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if name.is_symlink():
                message = f"{name} is a symbolic link, which is not followed"
                raise ProchistError(message, hint="name the file that it leads to")
    except OSError as error:
        raise _of_os(error, path) from error
    _refuse_unless_file(path, mode=os.R_OK | os.W_OK)
    return path


def _configure(db: apsw.Connection, path: Path) -> None:
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    db.transaction_mode = "IMMEDIATE"
    if db.pragma("page_count") == 0:
        # Both only take effect before the first page is written.
        db.pragma("page_size", PAGE_BYTES)
        db.pragma("auto_vacuum", "INCREMENTAL")
        db.pragma("application_id", APPLICATION_ID)
    version = _version(db, path)
    newest = newest_version()
    if version > newest:
        raise _newer(path, version, newest)
    if db.pragma("journal_mode", "WAL") != "wal":
        message = f"{path} cannot be switched to a write-ahead log"
        raise ProchistError(message, hint="put it on a local file system")
    # Without them a reader that may not write could not open it after a clean stop.
    yes = array.array("i", [1])
    db.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, yes.buffer_info()[0])
    db.pragma("synchronous", "NORMAL")
    db.pragma("journal_size_limit", JOURNAL_LIMIT_BYTES)
    db.pragma("foreign_keys", "ON")
