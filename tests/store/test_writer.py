"""The writer on a real database file: what it was given is what the views show."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from prochist.capture.observation import Host
from prochist.clock import EpochNs, MonotonicNs, Ticks
from prochist.history.accounting import Cost
from prochist.history.image import Image, ImageMaker
from prochist.history.lifetime import (
    Changes,
    EarlierExec,
    EndSource,
    EventKind,
    ExecSource,
    Happened,
    IdChange,
    IdKind,
    Lifetime,
    Origin,
    StartSource,
)
from prochist.store.database import open_writer
from prochist.store.writer import DOWN, OVERRUN, Gap, Progress, Writer

T = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
HOST = Host("b00t", "example", "0" * 32, "6.18", EpochNs(T - 100 * SECOND))
NAMES = {0: "root", 1000: "ann"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def db(path: Path) -> Iterator[apsw.Connection]:
    db = open_writer(path)
    yield db
    db.close()


def begin(db: apsw.Connection, host: Host = HOST, at: int = T) -> Writer:
    writer = Writer(db, host, EpochNs(at), NAMES.get)
    writer.begin(77, "0.0", EpochNs(at), MonotonicNs(5))
    return writer


@pytest.fixture
def writer(db: apsw.Connection) -> Writer:
    return begin(db)


def progress(at: int = T + SECOND, **facts: object) -> Progress:
    return Progress(EpochNs(at), MonotonicNs(9), 12, 3, facts, {0: 100, 1: 2**32 - 1})


def image(argv: bytes | None = b"cat\0-n\0", *, complete: bool = True) -> Image:
    return ImageMaker().make(b"cat", b"/bin/cat", None, argv, b"/", complete=complete)


def life(id_: int, pid: int = 10, **facts: object) -> Lifetime:
    known = {"ppid": 1, "started_at_ns": EpochNs(T), "start_ticks": Ticks(500)} | facts
    return Lifetime(id_, pid, **known)  # type: ignore[arg-type]


def write(writer: Writer, *lives: Lifetime, **others: list[object]) -> None:
    writer.add(Changes(list(lives), **others))  # type: ignore[arg-type]
    writer.commit(max((one.id for one in lives), default=0) + 1, progress())


def rows(db: apsw.Connection, sql: str) -> list[dict[str, object]]:
    cursor = db.execute(sql)
    return [dict(zip((c[0] for c in cursor.description), row, strict=True)) for row in cursor]


def only(db: apsw.Connection, sql: str = "SELECT * FROM processes") -> dict[str, object]:
    (row,) = rows(db, sql)
    return row


# --- what is written is what is shown -------------------------------------------------


def test_a_whole_life_is_the_row_of_the_view(db: apsw.Connection, writer: Writer) -> None:
    origin = Origin(1000, 0, 100, 5, 1000, 3, "pts/1", "/system.slice/ssh.service")
    whole = life(
        4, reaper_pid=2, ns_pid=3, sid=8, image=image(), origin=origin,
        exec_at_ns=EpochNs(T + 1), exec_count=1, exec_source=ExecSource.PROC,
        ended_at_ns=EpochNs(T + 2 * SECOND), end_source=EndSource.EXIT, wait_status=0x8B,
        thread_peak=5, cost=Cost(1_500_000, 250_000, 64, 4096, 8192, 7, 1, 20, 2),
    )  # fmt: skip
    write(writer, whole)
    assert only(db) == {
        "id": 4, "parent_id": None, "boot_id": "b00t", "host": "example", "pid": 10, "ppid": 1,
        "reaper_pid": 2, "ns_pid": 3, "comm": "cat", "exe": "/bin/cat", "exec_path": None,
        "command_line": "cat -n", "argv": '["cat","-n"]', "argv_complete": 1, "cwd": "/",
        "uid": 1000, "euid": 0, "gid": 100, "egid": 5, "user": "ann", "login_uid": 1000,
        "login_user": "ann", "session": 3, "tty": "pts/1", "sid": 8,
        "cgroup": "/system.slice/ssh.service", "unit": "ssh.service", "container_id": None,
        "started_at": "2023-11-14T22:13:20.000000Z", "started_at_ns": T,
        "ended_at": "2023-11-14T22:13:22.000000Z", "ended_at_ns": T + 2 * SECOND,
        "duration_s": 2.0, "state": "killed", "exit_code": None, "term_signal": 11,
        "term_signal_name": "SIGSEGV", "core_dumped": 1, "start_source": "fork",
        "end_source": "exit", "exec_source": "proc", "ended_after_ns": None, "exec_count": 1,
        "is_kernel_thread": 0, "thread_peak": 5, "cpu_user_s": 1.5, "cpu_system_s": 0.25,
        "max_rss_bytes": 65536, "read_bytes": 4096, "write_bytes": 8192, "minor_faults": 7,
        "major_faults": 1, "voluntary_switches": 20, "involuntary_switches": 2,
    }  # fmt: skip


def test_what_is_not_known_is_null(db: apsw.Connection, writer: Writer) -> None:
    write(writer, Lifetime(1, 10, start_source=StartSource.SCAN))
    row = only(db)
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {
        "id": 1, "boot_id": "b00t", "host": "example", "pid": 10, "state": "running",
        "start_source": "scan", "exec_source": "none", "exec_count": 0, "is_kernel_thread": 0,
        "thread_peak": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wait_status", "shown"),
    [
        (0, ("exited", 0, None, None, 0)),
        (0x300, ("exited", 3, None, None, 0)),
        (0xFF00, ("exited", 255, None, None, 0)),
        (9, ("killed", None, 9, "SIGKILL", 0)),
        (0x8B, ("killed", None, 11, "SIGSEGV", 1)),
        (35, ("killed", None, 35, "SIGRTMIN+1", 0)),
        (None, ("unknown", None, None, None, None)),
    ],
)
def test_a_wait_status_is_an_exit_code_or_a_signal(
    db: apsw.Connection, writer: Writer, wait_status: int | None, shown: tuple[object, ...]
) -> None:
    source = EndSource.RESYNC if wait_status is None else EndSource.EXIT
    ended = life(1, ended_at_ns=EpochNs(T + 1), end_source=source, wait_status=wait_status)
    write(writer, ended)
    row = only(db)
    columns = ("state", "exit_code", "term_signal", "term_signal_name", "core_dumped")
    assert tuple(row[column] for column in columns) == shown


@pytest.mark.parametrize(
    ("field", "value"), [("reaper_pid", 1), ("ns_pid", 10), ("sid", 10), ("reaper_pid", None)]
)
def test_ids_that_are_stored_as_the_same_are_shown_whole(
    db: apsw.Connection, writer: Writer, field: str, value: int | None
) -> None:
    one = life(1)
    setattr(one, field, value)
    write(writer, one)
    assert only(db)[field] == value


@pytest.mark.parametrize(
    ("argv", "command_line", "array", "raw"),
    [
        (b"a b\0c\0", "'a b' c", ["a b", "c"], None),
        (b"a\0\0\0", "a '' ''", ["a", "", ""], None),
        (b"\0", "''", [""], None),
        (b"", "", [], None),
        (b'it\'s\0"q"\0', "'it'\"'\"'s' '\"q\"'", ["it's", '"q"'], None),
        (b"a\nb\0\x1b[31m\0", "'a\nb' '\x1b[31m'", ["a\nb", "\x1b[31m"], None),
        (b"x\0\xff\xfe\0", "x '\\xff\\xfe'", ["x", "\\xff\\xfe"], b"x\0\xff\xfe\0"),
        ("ä€😀\0".encode(), "'ä€😀'", ["ä€😀"], None),
    ],
)
def test_hostile_arguments_are_shown_exactly(  # noqa: PLR0913, PLR0917
    db: apsw.Connection,
    writer: Writer,
    argv: bytes,
    command_line: str,
    array: list[str],
    raw: bytes | None,
) -> None:
    write(
        writer,
        life(
            1, image=image(argv), exec_count=1, exec_at_ns=EpochNs(T), exec_source=ExecSource.PROC
        ),
    )
    row = only(db, "SELECT * FROM execs")
    assert row["command_line"] == command_line
    assert json.loads(str(row["argv"])) == array
    assert row["argv_raw"] == raw
    assert only(db)["command_line"] == command_line


def test_two_mebibytes_of_arguments_are_kept(db: apsw.Connection, writer: Writer) -> None:
    argv = b"x" * 2_097_150 + b"\xff\0"
    write(writer, life(1, image=image(argv, complete=False)))
    row = only(db)
    assert row["argv_complete"] == 0
    assert len(str(row["command_line"])) == 2_097_150 + len(r"\xff") + 2
    assert db.execute("SELECT argv_raw FROM image").fetchone() == (argv,)


def test_execs_id_changes_events_and_gaps_are_shown(db: apsw.Connection, writer: Writer) -> None:
    tracer = life(1, 9)
    one = life(
        2, image=image(b"b\0"), exec_count=2, exec_at_ns=EpochNs(T + 5), exec_source=ExecSource.BPF,
        origin=Origin(uid=0), exec_origin=Origin(uid=1000),
    )  # fmt: skip
    writer.add_gap(Gap(EpochNs(T), EpochNs(T + SECOND), OVERRUN, 7, "proc connector"))
    writer.add_gap(Gap(EpochNs(T), EpochNs(T), DOWN, None))
    write(
        writer,
        tracer,
        one,
        earlier_execs=[
            EarlierExec(2, 1, EpochNs(T + 3), image(b"a\0"), Origin(uid=7), ExecSource.NONE)
        ],
        id_changes=[IdChange(2, EpochNs(T + 4), IdKind.GID, 5, 6)],
        events=[
            Happened(2, EpochNs(T + 6), EventKind.COMM, "new) name"),
            Happened(2, EpochNs(T + 7), EventKind.PTRACE_ATTACH, "by 9", 1),
        ],
    )
    execs = rows(db, "SELECT at_ns, command_line, uid, source FROM execs ORDER BY at_ns")
    assert [tuple(row.values()) for row in execs] == [
        (T + 3, "a", 7, "none"),
        (T + 5, "b", 1000, "bpf"),
    ]
    change = only(db, "SELECT process_id, at_ns, kind, real, effective FROM id_changes")
    assert tuple(change.values()) == (2, T + 4, "gid", 5, 6)
    events = rows(db, "SELECT process_id, at_ns, kind, detail, other_id FROM events")
    assert [tuple(row.values()) for row in events] == [
        (2, T + 6, "comm", "new) name", None),
        (2, T + 7, "ptrace_attach", "by 9", 1),
    ]
    gaps = rows(db, "SELECT from_at_ns, until_at_ns, kind, lost, boot_id, detail FROM gaps")
    assert [tuple(row.values()) for row in gaps] == [
        (T, T + SECOND, "overrun", 7, "b00t", "proc connector"),
        (T, T, "down", None, "b00t", None),
    ]


def test_what_changes_later_updates_the_row(db: apsw.Connection, writer: Writer) -> None:
    one = life(1, image=image(b"a\0"))
    write(writer, one)
    assert only(db)["state"] == "running"
    assert one.stored
    one.image = image(b"b\0")
    one.ended_at_ns, one.end_source, one.wait_status = EpochNs(T + 5), EndSource.EXIT, 0
    write(writer, one)
    row = only(db)
    assert (row["state"], row["command_line"], row["ended_at_ns"]) == ("exited", "b", T + 5)


def test_children_given_before_their_parents_are_written_after_them(
    db: apsw.Connection, writer: Writer
) -> None:
    write(writer, life(3, 12, parent_id=2), life(2, 11, parent_id=1), life(1))
    assert [row["parent_id"] for row in rows(db, "SELECT * FROM processes ORDER BY id")] == [
        None,
        1,
        2,
    ]


def test_texts_images_and_origins_are_stored_once(db: apsw.Connection, writer: Writer) -> None:
    write(writer, *(life(n, n + 10, image=image(), origin=Origin(uid=5)) for n in range(1, 20)))
    write(writer, *(life(n, n + 10, image=image(), origin=Origin(uid=5)) for n in range(20, 40)))
    count = "SELECT (SELECT count(*) FROM text), (SELECT count(*) FROM image), count(*) FROM origin"
    assert db.execute(count).fetchone() == (4, 1, 1)


def test_a_later_writer_finds_what_an_earlier_one_stored(path: Path) -> None:
    for number in (1, 2):
        db = open_writer(path)
        write(begin(db), life(number, 9 + number, image=image(b"x\0\xff\0"), origin=Origin(uid=5)))
        count = (
            "SELECT (SELECT count(*) FROM text), (SELECT count(*) FROM image), count(*) FROM origin"
        )
        assert db.execute(count).fetchone() == (5, 1, 1)
        db.close()


def test_a_recording_says_how_far_it_is(db: apsw.Connection, writer: Writer) -> None:
    writer.add(Changes([life(1)], execs=2, described=1))
    writer.commit(2, progress(at=T + 7, receiver="niced"))
    row = only(db, "SELECT * FROM recording")
    assert (row["pid"], row["events"], row["lost"], row["lives"]) == (77, 12, 3, 1)
    assert (row["execs"], row["execs_described"], row["committed_at_ns"]) == (2, 1, T + 7)
    assert json.loads(str(row["facts"])) == {"receiver": "niced"}
    assert row["stopped_at_ns"] is None
    writer.end(EpochNs(T + 8))
    assert only(db, "SELECT stopped_at_ns FROM recording") == {"stopped_at_ns": T + 8}
    assert (writer.lives_begun, writer.execs, writer.execs_described) == (1, 2, 1)


def test_a_life_that_began_and_ended_in_one_batch_is_one_insert(
    db: apsw.Connection, writer: Writer
) -> None:
    ended = life(1, ended_at_ns=EpochNs(T + 1), end_source=EndSource.EXIT, wait_status=0)
    before = db.total_changes()
    write(writer, ended)
    # The lifetime; two CPUs, recording, boot and counter of every commit.
    assert db.total_changes() - before == 1 + 5


# --- failing --------------------------------------------------------------------------


def test_a_commit_that_fails_keeps_everything_for_the_next(
    db: apsw.Connection, writer: Writer
) -> None:
    write(writer, life(1, image=image(b"a\0")))
    full = int(db.pragma("page_count"))
    db.pragma("max_page_count", full)
    lives = [
        life(n, n + 10, image=image(b"%d\0" % n * 500), origin=Origin(uid=n)) for n in range(2, 200)
    ]
    writer.add(Changes(list(lives), id_changes=[IdChange(5, EpochNs(T), IdKind.UID, 1, 1)]))
    writer.add_gap(Gap(EpochNs(T), EpochNs(T), DOWN, 4))
    pending = writer.pending
    assert pending == 200
    for _ in range(2):
        with pytest.raises(apsw.FullError):
            writer.commit(200, progress())
        assert writer.pending == pending
        assert not any(one.stored for one in lives)
        assert db.execute("SELECT count(*) FROM lifetime").fetchone() == (1,)
    lives[3].end_source, lives[3].ended_at_ns = EndSource.EXIT, EpochNs(T + 3)
    db.pragma("max_page_count", 1_000_000)
    assert writer.commit(200, progress()) == 198
    assert writer.pending == 0
    shown = rows(db, "SELECT id, command_line, uid, ended_at_ns FROM processes ORDER BY id")
    assert len(shown) == 199
    assert shown[1] == {
        "id": 2,
        "command_line": " ".join(["2"] * 500),
        "uid": 2,
        "ended_at_ns": None,
    }
    assert shown[4]["ended_at_ns"] == T + 3
    assert db.execute("SELECT count(*) FROM gap").fetchone() == (1,)
    assert db.execute("SELECT count(*) FROM id_change").fetchone() == (1,)
    assert db.pragma("integrity_check") == "ok"
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_database_locked_by_another_keeps_everything_too(
    path: Path, db: apsw.Connection, writer: Writer
) -> None:
    other = apsw.Connection(str(path))
    db.set_busy_timeout(0)
    other.execute("BEGIN IMMEDIATE")
    writer.add(Changes([life(1)]))
    with pytest.raises(apsw.BusyError):
        writer.commit(2, progress())
    other.execute("ROLLBACK")
    other.close()
    assert writer.commit(2, progress()) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from prochist.capture.observation import Host
from prochist.history.lifetime import Changes, Lifetime
from prochist.store.database import open_writer
from prochist.store.writer import Progress, Writer
db = open_writer(Path(sys.argv[1]))
writer = Writer(db, Host("b", "h", "", "k", 1), 1, lambda uid: None)
writer.begin(1, "0", 1, 1)
for n in range(1, 500):
    writer.add(Changes([Lifetime(n, n)]))
    writer.commit(n + 1, Progress(n, n, n, 0, {}, {0: n}))
    if n == 300:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_all_that_was_committed_survives_a_kill(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert ended.returncode == -9
    db = open_writer(path)
    assert db.pragma("integrity_check") == "ok"
    assert db.execute("SELECT count(*), max(id) FROM lifetime").fetchone() == (300, 300)
    assert db.execute("SELECT seq FROM cpu_sequence").fetchone() == (300,)
    assert db.execute("SELECT next_lifetime FROM counter").fetchone() == (301,)
    db.close()


# --- taking up ------------------------------------------------------------------------


def test_open_lives_come_back_as_they_were_stored(path: Path) -> None:
    db = open_writer(path)
    origin = Origin(1000, 0, 100, 5, 1000, 3, "pts/1", "/a.slice")
    lives = [
        life(1, 10, ns_pid=10, sid=10, image=image(b"x\0\xff y\0"), origin=origin),
        life(
            2, 11, parent_id=1, ns_pid=3, sid=10, image=image(b"plain\0"), origin=origin,
            exec_at_ns=EpochNs(T + 1), exec_count=2, exec_source=ExecSource.BPF,
            exec_origin=Origin(uid=9), thread_peak=7,
        ),
        life(3, 12, image=image(None), start_source=StartSource.SCAN, is_kernel_thread=True),
        Lifetime(4, 13),
        life(5, 14, ended_at_ns=EpochNs(T), end_source=EndSource.EXIT, wait_status=0),
    ]  # fmt: skip
    write(begin(db), *lives)
    db.close()
    db = open_writer(path)
    found = begin(db, at=T + 5).open_lives(boot_offset_ns=SECOND)
    db.close()
    assert [one.id for one in found] == [1, 2, 3, 4]
    compared = (
        "pid", "parent_id", "ppid", "ns_pid", "sid", "image", "origin", "started_at_ns",
        "start_ticks", "start_source", "exec_at_ns", "exec_count", "exec_source", "exec_origin",
        "is_kernel_thread", "thread_peak", "end_source",
    )  # fmt: skip
    for before, after in zip(lives, found, strict=False):
        for name in compared:
            assert getattr(after, name) == getattr(before, name), (after.id, name)
        assert after.stored
    # 500 ticks after boot is 5 s of CLOCK_BOOTTIME, 4 s of CLOCK_MONOTONIC.
    assert found[0].started_ns == 4 * SECOND


def test_the_next_recording_of_a_boot_knows_where_the_last_one_stopped(path: Path) -> None:
    db = open_writer(path)
    first = Writer(db, HOST, EpochNs(T), NAMES.get)
    assert first.previous() is None
    first.begin(1, "0", EpochNs(T), MonotonicNs(5))
    first.commit(1, progress(at=T + 8))
    db.close()
    db = open_writer(path)
    second = Writer(db, HOST, EpochNs(T + 9), NAMES.get)
    previous = second.previous()
    db.close()
    assert previous is not None
    assert (previous.complete_until_ns, previous.complete_until_mono_ns) == (T + 8, 9)
    assert previous.newest_sequences == {0: 100, 1: 2**32 - 1}


def test_ids_go_on_where_the_last_recording_stopped(path: Path) -> None:
    db = open_writer(path)
    write(begin(db), life(41))
    db.close()
    db = open_writer(path)
    assert begin(db).next_id == 42
    db.close()


LATER = HOST._replace(boot_id="b00t2", booted_at_ns=EpochNs(T + 50 * SECOND))


def test_lives_of_an_earlier_boot_end_with_it(path: Path) -> None:
    db = open_writer(path)
    write(begin(db), life(1), life(2, 11, started_at_ns=EpochNs(T + 20 * SECOND)))
    db.close()
    db = open_writer(path)
    writer = begin(db, LATER, T + 60 * SECOND)
    assert writer.close_earlier_boots(LATER) == 2
    assert writer.open_lives(0) == []
    assert writer.previous() is not None  # the recording that just began
    first, second = rows(db, "SELECT * FROM processes ORDER BY id")
    db.close()
    assert (first["state"], first["end_source"], first["exit_code"]) == ("unknown", "boot", None)
    assert first["ended_after_ns"] == T + SECOND  # the last commit
    assert first["ended_at_ns"] == T + 50 * SECOND
    assert second["ended_after_ns"] == T + 20 * SECOND


def test_a_host_renamed_within_a_boot_keeps_its_lives(path: Path) -> None:
    db = open_writer(path)
    write(begin(db), life(1))
    db.close()
    db = open_writer(path)
    renamed = HOST._replace(host="other")
    writer = begin(db, renamed, T + 5)
    assert writer.close_earlier_boots(renamed) == 0
    assert [one.id for one in writer.open_lives(0)] == [1]
    db.close()


def test_the_sequence_numbers_of_another_boot_are_not_used(path: Path) -> None:
    db = open_writer(path)
    write(begin(db), life(1))
    db.close()
    db = open_writer(path)
    later = Writer(db, LATER, EpochNs(T + 60 * SECOND), NAMES.get)
    previous = later.previous()
    db.close()
    assert previous is not None
    assert not previous.is_same_boot
    assert previous.newest_sequences == {}
    assert previous.complete_until_ns == T + SECOND


def test_a_user_that_has_got_a_name_meanwhile_is_asked_for_again(
    db: apsw.Connection,
) -> None:
    names: dict[int, str] = {}
    writer = Writer(db, HOST, EpochNs(T), names.get)
    writer.begin(1, "0", EpochNs(T), MonotonicNs(1))
    write(writer, life(1, origin=Origin(uid=5)))
    names[5] = "eve"
    writer.forget_names()
    write(writer, life(2, 11, origin=Origin(uid=5)))
    assert [r["user"] for r in rows(db, "SELECT user FROM processes ORDER BY id")] == [None, "eve"]
