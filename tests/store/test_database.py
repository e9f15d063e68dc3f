import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from prochist.errors import ProchistError
from prochist.store import database
from prochist.store.database import (
    APPLICATION_ID,
    default_path,
    migrations,
    newest_version,
    open_reader,
    open_writer,
    recorder_pid,
    translate,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history" / "prochist.db"


def ask_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    """Count the boots as a user who may read the directory but write nothing."""
    for parent in path.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and str(parent).startswith("/tmp/"):  # noqa: S108
            parent.chmod(0o755)
    for suffix in ("", "-wal", "-shm"):
        if (file := Path(f"{path}{suffix}")).exists():
            file.chmod(0o644)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from prochist.store.database import open_reader\n"
        "from prochist.errors import ProchistError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: print(open_reader(Path(sys.argv[1])).execute('SELECT count(*) FROM boots').get)\n"
        "except ProchistError as error: print(error.message, '|', error.hint)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )


def test_a_new_database_is_small_private_and_marked(path: Path) -> None:
    db = open_writer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2750
    assert db.pragma("application_id") == APPLICATION_ID == int.from_bytes(b"proc")
    assert db.pragma("user_version") == newest_version()
    assert db.pragma("page_size") == 4096
    assert db.pragma("auto_vacuum") == 2  # incremental
    assert db.pragma("journal_mode") == "wal"
    assert db.pragma("synchronous") == 1  # normal
    assert db.pragma("foreign_keys") == 1
    assert db.transaction_mode == "IMMEDIATE"
    db.close()


def test_plain_sqlite_reads_it(path: Path) -> None:
    open_writer(path).close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM processes").fetchone() == (0,)
    db.close()


def test_migrations_are_numbered_without_a_hole() -> None:
    found = migrations()
    assert [m.number for m in found] == list(range(1, len(found) + 1))
    assert found[0].name == "0001_history"
    assert "CREATE VIEW processes" in found[0].sql


def test_opening_again_keeps_what_is_there(path: Path) -> None:
    db = open_writer(path)
    db.execute("UPDATE counter SET batch = 7")
    db.close()
    db = open_writer(path)
    assert db.execute("SELECT batch FROM counter").get == 7
    db.close()


def test_an_empty_file_is_taken_as_new_by_a_writer_and_refused_to_a_reader(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with pytest.raises(ProchistError, match="is empty"):
        open_reader(path)
    open_writer(path).close()
    open_reader(path).close()


def test_a_reader_cannot_write(path: Path) -> None:
    open_writer(path).close()
    db = open_reader(path)
    with pytest.raises(apsw.ReadOnlyError):
        db.execute("UPDATE counter SET batch = 7")
    db.close()


def test_wal_and_shm_outlive_the_writer(path: Path) -> None:
    open_writer(path).close()
    assert Path(f"{path}-wal").exists()
    assert Path(f"{path}-shm").exists()


@as_root
def test_another_user_reads_while_a_writer_is_open_and_after_it_stopped(path: Path) -> None:
    db = open_writer(path)
    assert ask_as_nobody(path).stdout == "0\n"
    db.close()
    assert ask_as_nobody(path).stdout == "0\n"


@as_root
def test_another_user_reads_after_the_writer_was_killed(path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path\n"
        "from prochist.store.database import open_writer\n"
        "db = open_writer(Path(sys.argv[1]))\n"
        "db.execute(\"INSERT INTO boot VALUES (1, 'x', 'h', NULL, 'k', 1, 1, 1)\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert ask_as_nobody(path).stdout == "1\n"


@as_root
def test_another_user_without_shm_is_told_what_to_do(path: Path) -> None:
    open_writer(path).close()
    Path(f"{path}-shm").unlink()
    Path(f"{path}-wal").unlink()
    assert "start prochist record once" in ask_as_nobody(path).stdout


@as_root
def test_a_user_who_may_not_read_is_told_so(path: Path) -> None:
    open_writer(path).close()
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from prochist.store.database import open_reader\n"
        "from prochist.errors import ProchistError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: open_reader(Path(sys.argv[1]))\n"
        "except ProchistError as error: print(error.message)\n"
    )
    path.chmod(0o600)
    for parent in (path.parent, *path.parents[1:3]):
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert "permission denied" in done.stdout


@pytest.mark.parametrize("opened", [open_reader, open_writer])
def test_what_is_no_prochist_database_is_refused_and_left_alone(
    tmp_path: Path,
    opened: object,
) -> None:
    assert callable(opened)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ProchistError, match="is a directory"):
        opened(folder)
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to be one " * 100)
    with pytest.raises(ProchistError, match="not an SQLite database"):
        opened(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    before = other.read_bytes()
    with pytest.raises(ProchistError, match="another program"):
        opened(other)
    assert other.read_bytes() == before
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ProchistError, match="not a regular file"):
        opened(fifo)
    with pytest.raises(ProchistError, match="name of a file"):
        opened(Path("a\0b"))


def test_a_missing_database_comes_with_the_way_to_make_one(path: Path) -> None:
    with pytest.raises(ProchistError, match="no database at") as caught:
        open_reader(path)
    assert "prochist record" in (caught.value.hint or "")


@pytest.mark.parametrize("opened", [open_reader, open_writer])
def test_a_newer_schema_is_refused(path: Path, opened: object) -> None:
    assert callable(opened)
    db = open_writer(path)
    db.pragma("user_version", 999)
    db.close()
    with pytest.raises(ProchistError, match="schema version 999") as caught:
        opened(path)
    assert caught.value.hint == "use a newer prochist"


def test_an_unfinished_schema_is_refused_to_readers_and_finished_by_the_writer(path: Path) -> None:
    path.parent.mkdir()
    db = apsw.Connection(str(path))
    db.pragma("application_id", APPLICATION_ID)
    db.close()
    with pytest.raises(ProchistError, match="too old"):
        open_reader(path)
    open_writer(path).close()
    open_reader(path).close()


def test_an_older_schema_with_all_views_can_be_read(path: Path) -> None:
    db = open_writer(path)
    db.pragma("user_version", newest_version() - 1)
    db.close()
    open_reader(path).close()


def test_a_writer_does_not_follow_links(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(ProchistError, match="symbolic link"):
        open_writer(path)
    assert not target.exists()
    path.unlink()
    Path(f"{path}-wal").symlink_to(target)
    with pytest.raises(ProchistError, match="symbolic link"):
        open_writer(path)
    assert not target.exists()


def test_a_directory_that_everybody_may_write_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(ProchistError, match="written by everybody"):
        open_writer(path)
    path.parent.chmod(0o1777)
    open_writer(path).close()


def test_a_damaged_database_is_named(path: Path) -> None:
    db = open_writer(path)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    with pytest.raises(ProchistError, match=r"damaged|not an SQLite"):
        open_reader(path)


def test_the_recorder_is_found_by_the_lock_it_holds(path: Path) -> None:
    path.parent.mkdir()
    assert recorder_pid(path) is None
    lock = Path(f"{path}.lock")
    lock.write_text("4711\n")
    assert recorder_pid(path) is None
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert recorder_pid(path) == 4711
    assert recorder_pid(path) is None


def test_the_default_is_the_environments_then_the_systems_then_the_users(tmp_path: Path) -> None:
    system = tmp_path / "system.db"
    user = Path("/home/ann/.local/state/prochist/prochist.db")
    assert default_path({"PROCHIST_DB": "/x.db"}, system=system) == Path("/x.db")
    assert default_path({"HOME": "/home/ann"}, euid=0, system=system) == system
    assert default_path({"HOME": "/home/ann"}, euid=1000, system=system) == user
    state = {"HOME": "/home/ann", "XDG_STATE_HOME": "/state"}
    assert default_path(state, euid=1000, system=system) == Path("/state/prochist/prochist.db")
    system.touch()
    assert default_path({"HOME": "/home/ann"}, euid=1000, system=system) == system


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (apsw.FullError, "full"),
        (apsw.BusyError, "locked"),
        (apsw.ReadOnlyError, "cannot be written"),
        (apsw.IOError, "input/output"),
        (apsw.CantOpenError, "-shm"),
        (apsw.CorruptError, "damaged"),
        (apsw.SchemaChangeError, "something else"),
    ],
)
def test_errors_of_sqlite_say_what_to_do(error: type[apsw.Error], words: str) -> None:
    found = translate(error("something else"), "/x.db")
    assert words in found.message
    assert "/x.db" in found.message
    assert found.exit_status == 3


def test_a_failing_migration_leaves_nothing_behind(path: Path) -> None:
    db = open_writer(path)
    broken = database.Migration(2, "0002_broken", "CREATE TABLE extra (x); CREATE TABLE extra (x)")
    with pytest.raises(apsw.SQLError):
        database.migrate(db, path, [*migrations(), broken])
    assert db.pragma("user_version") == 1
    assert not db.execute("SELECT name FROM sqlite_schema WHERE name = 'extra'").fetchall()
    db.close()
