"""The parts of the recorder that need no kernel: sink, lock, notifications."""

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from prochist.capture.connector import EXIT, FORK, Message
from prochist.capture.observation import Clock, Counters, Host, Messages
from prochist.clock import ClockReading, EpochNs, MonotonicNs
from prochist.errors import ProchistError
from prochist.history.loss import SequenceGaps
from prochist.history.tracker import Tracker
from prochist.service.host import read_host
from prochist.service.lock import DatabaseLock
from prochist.service.notify import Notifier
from prochist.service.sink import Sink
from prochist.store.database import open_writer, recorder_pid
from prochist.store.writer import Writer

T = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
CLOCK = ClockReading(MonotonicNs(0), 0, T)
HOST = Host("b00t", "example", "", "6.18", EpochNs(T))


# --- sink -----------------------------------------------------------------------------


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    db = open_writer(tmp_path / "h.db")
    yield db
    db.close()


def open_sink(db: apsw.Connection, newest: dict[int, int] | None = None) -> Sink:
    writer = Writer(db, HOST, EpochNs(T), lambda _: None)
    writer.begin(1, "0", EpochNs(T), MonotonicNs(0))
    return Sink(writer, Tracker(CLOCK, next_id=writer.next_id), SequenceGaps(newest))


def message(seq: int, what: int, at: int, *words: int, cpu: int = 0) -> Message:
    return Message(seq, 0, what, cpu, MonotonicNs(at), *words, *[0] * (6 - len(words)))


def counters(at: int, *, tasks: int = 0, probes: int = 0) -> Counters:
    return Counters(MonotonicNs(at), 0, tasks, probes, 0, 0)


def gaps(db: apsw.Connection) -> list[tuple[object, ...]]:
    return db.execute("SELECT from_at_ns, until_at_ns, kind, lost, detail FROM gaps").fetchall()


def test_what_is_fed_is_committed(db: apsw.Connection) -> None:
    sink = open_sink(db)
    sink.feed(Messages([message(1, FORK, 5, 1, 1, 10, 10), message(2, EXIT, 9, 10, 10, 0x100)]))
    assert sink.newest_ns == 9
    assert sink.commit(CLOCK, MonotonicNs(9)) == 1
    row = db.execute("SELECT pid, started_at_ns, ended_at_ns, exit_code FROM processes").fetchone()
    assert row == (10, T + 5, T + 9, 1)
    assert db.execute("SELECT events, lost, committed_at_ns FROM recording").fetchone() == (
        2,
        0,
        T + 9,
    )
    assert db.execute("SELECT cpu, seq FROM cpu_sequence").fetchall() == [(0, 2)]


def test_a_gap_in_the_numbers_is_a_gap_of_the_history(db: apsw.Connection) -> None:
    sink = open_sink(db)
    sink.feed(Messages([message(1, 0, 5 * SECOND), message(5, 0, 7 * SECOND)]))
    sink.commit(CLOCK, MonotonicNs(7 * SECOND))
    assert gaps(db) == [(T + 5 * SECOND, T + 7 * SECOND, "overrun", 3, "proc connector")]
    assert sink.lost_since_scan


def test_a_gap_over_a_clock_that_was_set_back_can_be_stored(db: apsw.Connection) -> None:
    sink = open_sink(db)
    sink.feed(Messages([message(1, 0, 5 * SECOND)]))
    sink.feed(Clock(ClockReading(MonotonicNs(6 * SECOND), 0, T - 3600 * SECOND)))
    sink.feed(Messages([message(5, 0, 7 * SECOND)]))
    sink.commit(sink.tracker.clock, MonotonicNs(7 * SECOND))
    query = "SELECT ? < from_at_ns AND from_at_ns <= until_at_ns AND until_at_ns < ? FROM gaps"
    assert db.execute(query, (T - 3600 * SECOND, T)).fetchall() == [(1,)]


def test_what_was_missed_before_the_first_event_is_not_an_overrun(db: apsw.Connection) -> None:
    sink = open_sink(db, {0: 100})
    sink.feed(Messages([message(201, 0, 5)]))
    sink.commit(CLOCK, MonotonicNs(5))
    assert sink.down_lost == 100
    assert gaps(db) == []


def test_losses_of_the_other_sources_are_gaps_from_count_to_count(db: apsw.Connection) -> None:
    sink = open_sink(db)
    sink.feed(counters(1 * SECOND, tasks=2**32 - 1, probes=7))
    sink.feed(counters(2 * SECOND, tasks=2, probes=7))
    sink.feed(counters(3 * SECOND, tasks=2, probes=9))
    sink.commit(CLOCK, MonotonicNs(3 * SECOND))
    assert gaps(db) == [
        (T + 1 * SECOND, T + 2 * SECOND, "overrun", 3, "taskstats"),
        (T + 2 * SECOND, T + 3 * SECOND, "overrun", 2, "exec probe"),
    ]


# --- lock -----------------------------------------------------------------------------


HOLDER = """
import sys
from pathlib import Path
from prochist.service.lock import DatabaseLock
lock = DatabaseLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_recorder_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert recorder_pid(path) == holder.pid
        with pytest.raises(
            ProchistError, match=rf"another recorder \(pid {holder.pid}\)"
        ) as raised:
            DatabaseLock(path)
        assert raised.value.hint is not None
        holder.kill()
        holder.wait()
        DatabaseLock(path).close()  # a dead one holds nothing
    assert recorder_pid(path) is None


def test_a_lock_that_was_given_back_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    for _ in range(3):
        lock = DatabaseLock(path)
        assert recorder_pid(path) == os.getpid()
        lock.close()


def test_someone_who_only_asks_does_not_keep_a_recorder_out(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    DatabaseLock(path).close()
    code = (
        "import fcntl, os, sys, time; fd = os.open(sys.argv[1], os.O_RDONLY);"
        "fcntl.flock(fd, fcntl.LOCK_SH); print(flush=True); time.sleep(0.06)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, f"{path}.lock"], stdout=subprocess.PIPE
    ) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        DatabaseLock(path).close()


def test_a_lock_is_not_followed_into_another_file(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "h.db.lock").symlink_to(precious)
    with pytest.raises(ProchistError, match="cannot lock"):
        DatabaseLock(tmp_path / "h.db")
    assert precious.read_text() == "keep"


def test_the_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    lock = DatabaseLock(path)
    with subprocess.Popen(
        ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, close_fds=False
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"x")
        assert child.stdout.read(1) == b"x"  # its execve is over
        lock.close()
        fd = os.open(f"{path}.lock", os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        child.communicate()


# --- host -----------------------------------------------------------------------------


def test_the_host_is_the_one_that_the_kernel_names(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("0a1b\n")
    clock = ClockReading(MonotonicNs(10), 5, T)
    host = read_host(clock, proc=str(tmp_path))
    assert host.boot_id == "0a1b"
    assert host.kernel == os.uname().release
    assert host.booted_at_ns == T - 5
    host.host.encode()


# --- notifications --------------------------------------------------------------------


def listen(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(5)
    return sock


def test_a_service_manager_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listen(path) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.send("READY=1", "STATUS=recording")
        assert manager.recv(1000) == b"READY=1\nSTATUS=recording"
        notifier.close()


def test_a_service_manager_may_listen_in_the_abstract_namespace() -> None:
    name = f"prochist-test-{os.getpid()}"
    with listen("\0" + name) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name})
        notifier.send("STOPPING=1")
        assert manager.recv(1000) == b"STOPPING=1"
        notifier.close()


def test_a_path_that_is_not_utf8_can_be_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listen(path) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.send("STATUS=recording into " + os.fsdecode(b"/db\xff"))
        assert manager.recv(1000) == b"STATUS=recording into /db\xff"
        notifier.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nobody/listens/here", "@nobody" * 30])
def test_a_manager_that_does_not_listen_is_not_our_problem(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.send("READY=1")
    notifier.close()


def test_a_manager_that_does_not_read_does_not_hold_us_up(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listen(path), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # until the manager's queue is full
                other.sendto(b"X=1", path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        began = time.monotonic()
        notifier.send("WATCHDOG=1")
        assert time.monotonic() - began < 5
        notifier.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_is_for_this_process_or_not_at_all(
    environ: dict[str, str], seconds: float | None
) -> None:
    notifier = Notifier(environ)
    assert notifier.watchdog_s == seconds
    notifier.close()
