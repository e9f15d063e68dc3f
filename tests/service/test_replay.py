"""Replay: captures of a real kernel, captures cut anywhere, and what is no capture.

``tests/data/linux-6.18-lives-*.capture`` are recordings of one program alone, in which each case
of the kernel's rules happened once: with execs read from /proc, and told by the exec probe.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest

from prochist.capture.connector import EXIT, FORK, Message
from prochist.capture.observation import (
    MAGIC,
    Clock,
    Host,
    Messages,
    Probed,
    Record,
    Scanned,
    Tasks,
    decode_records,
    encode,
)
from prochist.clock import ClockReading, EpochNs, MonotonicNs
from prochist.errors import ProchistError
from prochist.service.redaction import Redaction
from prochist.service.replay import replay_capture
from prochist.service.settings import Summary
from prochist.store.database import open_reader

DATA = Path(__file__).parent.parent / "data"
PROC = DATA / "linux-6.18-lives-proc.capture"
BPF = DATA / "linux-6.18-lives-bpf.capture"
T = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: hundreds of databases are made in it."""
    memory = Path("/dev/shm")  # noqa: S108  the folder in it has a name that nobody can guess
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def replay(capture: Path, database: Path) -> tuple[Summary, apsw.Connection]:
    return replay_capture(capture, database), open_reader(database)


def write_capture(path: Path, *records: Record) -> Path:
    path.write_bytes(MAGIC + b"".join(map(encode, records)))
    return path


# --- a real kernel --------------------------------------------------------------------

# By command line: that of the parent, state, exit code, signal, core, execs, threads, comm, uid
LIVES = {
    "/opt/actor/actor all": [
        (None, "exited", 0, None, 0, 1, 1, "actor", 0),
        ("/opt/actor/actor all", "exited", 9, None, 0, 0, 1, "actor", 0),
    ],
    "actor threads": [("/opt/actor/actor all", "exited", 0, None, 0, 1, 4, "actor", 0)],
    "actor leader-first": [("/opt/actor/actor all", "exited", 7, None, 0, 1, 2, "actor", 0)],
    "true after exec": [("/opt/actor/actor all", "exited", 0, None, 0, 2, 3, "true", 0)],
    "actor exit 4": [("/opt/actor/actor all", "exited", 4, None, 0, 2, 1, "actor", 0)],
    "/bin/sh /opt/actor/script 'an argument'": [
        ("/opt/actor/actor all", "exited", 6, None, 0, 1, 1, "script", 0)
    ],
    "actor killed": [("/opt/actor/actor all", "killed", None, "SIGKILL", 0, 1, 1, "actor", 0)],
    "actor core": [("/opt/actor/actor all", "killed", None, "SIGSEGV", 1, 1, 1, "actor", 0)],
    "actor nocore": [("/opt/actor/actor all", "killed", None, "SIGSEGV", 0, 1, 1, "actor", 0)],
    "actor session": [("/opt/actor/actor all", "exited", 0, None, 0, 1, 1, "actor", 0)],
    "actor comm": [("/opt/actor/actor all", "exited", 0, None, 0, 1, 1, "renamed) (\n\\xff", 0)],
    "actor user": [("/opt/actor/actor all", "exited", 0, None, 0, 1, 1, "actor", 65534)],
    "actor traced": [
        ("/opt/actor/actor all", "exited", 0, None, 0, 1, 1, "actor", 0),
        ("actor traced", "exited", 0, None, 0, 0, 1, "actor", 0),
    ],
    "actor orphan": [
        ("/opt/actor/actor all", "exited", 0, None, 0, 1, 1, "actor", 0),
        ("actor orphan", "exited", 5, None, 0, 0, 1, "actor", 0),
    ],
    "actor noexec": [("/opt/actor/actor all", "exited", 12, None, 0, 1, 1, "actor", 0)],
    "actor exit 3": [("/opt/actor/actor all", "exited", 3, None, 0, 1, 1, "actor", 0)],
}


def assert_lives(db: apsw.Connection) -> None:
    found: dict[str, list[tuple[object, ...]]] = {}
    for command_line, *row in db.execute(
        "SELECT p.command_line, parent.command_line, p.state, p.exit_code, p.term_signal_name,"
        " p.core_dumped, p.exec_count, p.thread_peak, p.comm, p.uid FROM processes AS p"
        " LEFT JOIN processes AS parent ON parent.id = p.parent_id ORDER BY p.id"
    ):
        found.setdefault(str(command_line), []).append(tuple(row))
    assert found == LIVES
    assert db.execute("SELECT DISTINCT start_source, end_source FROM processes").fetchall() == [
        ("fork", "exit")
    ]
    assert db.execute("SELECT count(*) FROM gaps").fetchone() == (0,)


@pytest.mark.parametrize("capture", [PROC, BPF], ids=["proc", "bpf"])
def test_every_case_of_the_kernels_rules_is_the_life_that_it_was(
    capture: Path, tmp_path: Path
) -> None:
    summary, db = replay(capture, tmp_path / "h.db")
    assert (summary.lives, summary.execs, summary.execs_described) == (19, 18, 18)
    assert (summary.events, summary.lost, summary.notes) == (77, 0, [])
    assert_lives(db)
    db.close()


@pytest.mark.parametrize("capture", [PROC, BPF], ids=["proc", "bpf"])
def test_the_events_alone_tell_the_same_lives_as_the_kernels_accounting(
    capture: Path, tmp_path: Path
) -> None:
    records = decode_records(capture.read_bytes()[len(MAGIC) :])
    events = write_capture(tmp_path / "c", *(r for r in records if not isinstance(r, Tasks)))
    _, db = replay(events, tmp_path / "h.db")
    assert_lives(db)
    assert db.execute("SELECT count(cpu_user_s) FROM processes").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize("capture", [PROC, BPF], ids=["proc", "bpf"])
def test_what_happened_in_a_life_is_told_in_order(capture: Path, tmp_path: Path) -> None:
    _, db = replay(capture, tmp_path / "h.db")
    told = db.execute(
        "SELECT p.command_line, e.kind, e.detail IS NOT NULL, o.command_line FROM events AS e"
        " JOIN processes AS p ON p.id = e.process_id LEFT JOIN processes AS o ON o.id = e.other_id"
        " ORDER BY e.at_ns"
    ).fetchall()
    assert told == [
        ("/opt/actor/actor all", "sid", 0, None),
        ("actor core", "coredump", 0, None),
        ("actor nocore", "coredump", 0, None),
        ("actor session", "sid", 0, None),
        ("actor comm", "comm", 1, None),
        ("actor traced", "ptrace_attach", 1, "actor traced"),
        ("actor traced", "ptrace_detach", 0, None),
    ]
    changes = db.execute(
        "SELECT p.command_line, kind, real, effective FROM id_changes"
        " JOIN processes AS p ON p.id = process_id ORDER BY at_ns"
    ).fetchall()
    assert changes == [
        ("actor user", "gid", 65534, 65534),
        ("actor user", "uid", 65534, 65534),
    ]
    sessions = db.execute(
        "SELECT pid = sid, count(*) FROM processes GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert sessions == [(0, 17), (1, 2)]
    db.close()


@pytest.mark.parametrize("capture", [PROC, BPF], ids=["proc", "bpf"])
def test_every_exec_is_there_and_an_orphan_names_its_reaper(capture: Path, tmp_path: Path) -> None:
    _, db = replay(capture, tmp_path / "h.db")
    twice = db.execute(
        "SELECT command_line, exe, cwd, uid FROM execs WHERE process_id IN"
        " (SELECT id FROM processes WHERE exec_count = 2) ORDER BY at_ns"
    ).fetchall()
    assert twice == [
        ("actor thread-exec", "/opt/actor/actor", "/", 0),
        ("true after exec", "/usr/bin/true", "/", 0),
        ("actor twice", "/opt/actor/actor", "/", 0),
        ("actor exit 4", "/opt/actor/actor", "/", 0),
    ]
    orphan = db.execute(
        "SELECT ppid <> reaper_pid, reaper_pid = (SELECT pid FROM processes WHERE id = 1)"
        " FROM processes WHERE exit_code = 5"
    ).fetchone()
    assert orphan == (1, 1)
    origins = db.execute("SELECT DISTINCT host, boot_id, unit, login_uid FROM processes").fetchall()
    assert origins == [("example", "0b0c0d0e-0000-4000-8000-000000000618", "actor.service", None)]
    db.close()


def test_the_exec_probe_knows_the_path_of_a_script(tmp_path: Path) -> None:
    _, db = replay(BPF, tmp_path / "h.db")
    row = db.execute(
        "SELECT exec_path, exe, exec_source FROM processes WHERE exit_code = 6"
    ).fetchone()
    assert row == ("/opt/actor/script", "/usr/bin/dash", "bpf")
    db.close()


def test_the_cost_of_a_life_is_that_of_all_its_threads(tmp_path: Path) -> None:
    _, db = replay(PROC, tmp_path / "h.db")
    query = "SELECT count(*), min(voluntary_switches) FROM processes WHERE cpu_user_s IS NOT NULL"
    count, switches = db.execute(query).fetchone() or (0, 0)
    assert count == 19
    assert switches >= 0
    (threads,) = db.execute(
        "SELECT voluntary_switches FROM processes WHERE command_line = 'actor threads'"
    ).fetchone() or (0,)
    assert threads >= 3  # each of the three slept
    db.close()


def test_the_captures_hold_what_they_are_said_to_hold() -> None:
    kinds = {
        path: {type(record) for record in decode_records(path.read_bytes()[len(MAGIC) :])}
        for path in (PROC, BPF)
    }
    assert Probed in kinds[BPF]
    assert Probed not in kinds[PROC]


# --- captures that are not whole ------------------------------------------------------

HOST = Host("b00t", "example", "", "6.18", EpochNs(T))
CLOCK = Clock(ClockReading(MonotonicNs(0), 0, T))


def message(what: int, at: int, *words: int) -> Message:
    return Message(at, 0, what, 0, MonotonicNs(at), *words, *[0] * (6 - len(words)))


SMALL = (
    HOST,
    CLOCK,
    Messages([message(FORK, 5, 1, 1, 10, 10)]),
    Scanned(MonotonicNs(5), MonotonicNs(6)),
    Messages([message(EXIT, 6, 10, 10, 0x300, 17, 1, 1), message(FORK, 7, 1, 1, 11, 11)]),
)


def test_a_capture_cut_at_any_byte_is_replayed_up_to_there(fast_path: Path) -> None:
    whole = write_capture(fast_path / "whole", *SMALL).read_bytes()
    ends = [len(MAGIC)]
    for record in SMALL:
        ends.append(ends[-1] + len(encode(record)))
    assert ends[-1] == len(whole)
    lives = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2}
    for length in range(len(whole) + 1):
        cut = fast_path / "cut"
        cut.write_bytes(whole[:length])
        database = fast_path / str(length) / "h.db"
        records = sum(end <= length for end in ends) - 1
        if records < 2:
            with pytest.raises(ProchistError) as raised:
                replay_capture(cut, database)
            expected = "is not a prochist capture" if records < 0 else "holds no recording"
            assert expected in raised.value.message
            continue
        summary, db = replay(cut, database)
        assert summary.lives == lives[records]
        assert (summary.notes == []) == (length in ends)
        assert db.execute("SELECT count(*) FROM processes").fetchone() == (lives[records],)
        began, committed = db.execute(
            "SELECT started_at_ns, committed_at_ns FROM recording"
        ).fetchone() or (0, 0)
        assert began <= committed
        db.close()


def test_a_real_capture_damaged_anywhere_is_our_error_or_fewer_rows(fast_path: Path) -> None:
    whole = BPF.read_bytes()
    damaged = fast_path / "damaged"
    for number, at in enumerate(range(len(MAGIC), len(whole), 97)):
        damaged.write_bytes(whole[:at] + b"\xff\xff\xff\xff\xff\xff\xff\xff" + whole[at + 8 :])
        database = fast_path / f"{number}.db"
        try:
            replay_capture(damaged, database)
        except ProchistError as error:
            assert error.message  # noqa: PT017  which of the two it is depends on the place
        db = open_reader(database)
        assert db.pragma("integrity_check") == "ok"
        db.close()


def test_a_damaged_record_is_named_with_its_place(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "c", *SMALL[:3])
    place = capture.stat().st_size
    with capture.open("ab") as file:
        file.write(b"\xff" * 40)
    summary = replay_capture(capture, tmp_path / "h.db")
    assert summary.lives == 1
    (note,) = summary.notes
    assert "damaged" in note
    assert f"({place} bytes into the file)" in note


def test_a_host_name_that_is_not_utf8_does_not_stop_a_replay(tmp_path: Path) -> None:
    strange = HOST._replace(host=os.fsdecode(b"ho\xffst"))
    _, db = replay(write_capture(tmp_path / "c", strange, *SMALL[1:]), tmp_path / "h.db")
    assert db.execute("SELECT host FROM boots").fetchone() == (r"ho\xffst",)
    db.close()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" * 9, MAGIC[:-1], b"\xff" * 100])
def test_what_is_no_capture_is_refused(content: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    with pytest.raises(ProchistError, match="is not a prochist capture") as raised:
        replay_capture(other, tmp_path / "h.db")
    assert raised.value.hint is not None
    assert not (tmp_path / "h.db").exists()


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_read_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProchistError, match="cannot read the capture"):
        replay_capture(tmp_path / name, tmp_path / "h.db")


def test_the_same_capture_is_not_replayed_twice(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "c", *SMALL)
    replay_capture(capture, tmp_path / "h.db")
    with pytest.raises(ProchistError, match="already has a recording"):
        replay_capture(capture, tmp_path / "h.db")
    db = open_reader(tmp_path / "h.db")
    assert db.execute("SELECT count(*) FROM processes").fetchone() == (2,)
    db.close()


def test_captures_of_several_boots_share_a_database(tmp_path: Path) -> None:
    replay_capture(write_capture(tmp_path / "c", *SMALL), tmp_path / "h.db")
    other = HOST._replace(boot_id="another")
    replay_capture(write_capture(tmp_path / "d", other, *SMALL[1:]), tmp_path / "h.db")
    db = open_reader(tmp_path / "h.db")
    assert db.execute("SELECT boot_id, count(*), max(id) FROM processes GROUP BY 1").fetchall() == [
        ("another", 2, 4),
        ("b00t", 2, 2),
    ]
    db.close()


def test_a_replay_does_not_write_beside_a_recorder(tmp_path: Path) -> None:
    from prochist.service.lock import DatabaseLock

    capture = write_capture(tmp_path / "c", *SMALL)
    lock = DatabaseLock(tmp_path / "h.db")
    with pytest.raises(ProchistError, match="another recorder"):
        replay_capture(capture, tmp_path / "h.db")
    lock.close()


def test_a_capture_that_reaches_into_a_recording_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    later = Clock(ClockReading(MonotonicNs(6), 0, T))
    rest = [Messages([message(FORK, 8, 1, 1, 12, 12)])]
    replay_capture(write_capture(tmp_path / "c", HOST, later, *rest), tmp_path / "h.db")
    with pytest.raises(ProchistError, match="already has a recording"):
        replay_capture(write_capture(tmp_path / "d", *SMALL), tmp_path / "h.db")
    early = write_capture(tmp_path / "e", *SMALL[:-1], Messages([message(EXIT, 6, 10, 10, 0, 17)]))
    replay_capture(early, tmp_path / "h.db")
    db = open_reader(tmp_path / "h.db")
    assert db.execute("SELECT pid FROM processes ORDER BY started_at_ns").fetchall() == [
        (10,),
        (12,),
    ]
    db.close()


@pytest.mark.parametrize("capture", [PROC, BPF], ids=["proc", "bpf"])
def test_secrets_are_overwritten_before_a_replay_writes_them(capture: Path, tmp_path: Path) -> None:
    _, db = replay(capture, tmp_path / "plain.db")
    assert db.execute("SELECT count(*) FROM execs WHERE argv LIKE '%true%'").get
    db.close()
    replay_capture(capture, tmp_path / "h.db", Redaction(["true"]))
    db = open_reader(tmp_path / "h.db")
    assert not db.execute("SELECT count(*) FROM execs WHERE argv LIKE '%true%'").get
    assert db.execute("SELECT count(*) FROM execs WHERE argv LIKE '%[redacted]%'").get
    db.close()
