"""The tracker, one rule of the kernel a test: events in, lifetimes out."""

import struct

import pytest

from prochist.capture.connector import (
    COMM,
    COREDUMP,
    EXEC,
    EXIT,
    FORK,
    GID,
    PTRACE,
    SID,
    UID,
    Message,
)
from prochist.capture.observation import (
    Clock,
    Counters,
    Description,
    Fault,
    Messages,
    Reason,
    Record,
    Scanned,
)
from prochist.clock import ClockReading, EpochNs, MonotonicNs
from prochist.history.lifetime import (
    Changes,
    EndSource,
    EventKind,
    ExecSource,
    IdKind,
    Lifetime,
    StartSource,
)
from prochist.history.tracker import SETTLE_NS, Tracker

EPOCH = 1_700_000_000_000_000_000
CLOCK = ClockReading(MonotonicNs(0), 0, EPOCH)
SECOND = 1_000_000_000
MS = 1_000_000


def message(what: int, at: int, *words: int) -> Message:
    return Message(0, 0, what, 0, MonotonicNs(at), *words, *[0] * (6 - len(words)))


def fork(pid: int, parent: int, at: int) -> Message:
    return message(FORK, at, parent, parent, pid, pid)


def thread(tid: int, pid: int, at: int, parent: int = 1) -> Message:
    # The kernel names the process's parent here, not the thread that made the new one.
    return message(FORK, at, parent, parent, tid, pid)


def execve(pid: int, at: int) -> Message:
    return message(EXEC, at, pid, pid)


def leave(tid: int, pid: int, at: int, status: int = 0, reaper: int = 0) -> Message:
    return message(EXIT, at, tid, pid, status, 17, reaper, reaper)


def end(pid: int, at: int, status: int = 0, reaper: int = 0) -> Message:
    return leave(pid, pid, at, status, reaper)


def stat(  # noqa: PLR0913  the fields of the file
    pid: int,
    start: int,
    *,
    comm: bytes = b"cat",
    ppid: int = 1,
    state: bytes = b"S",
    threads: int = 1,
    flags: int = 0,
    status: int = 0,
    tty: int = 0,
) -> bytes:
    return b"%d (%s) %s %d 5 5 %d -1 %d 0 0 0 0 0 0 0 0 20 0 %d 0 %d" % (
        pid, comm, state, ppid, tty, flags, threads, start // 10_000_000,
    ) + b" 0" * 29 + b" %d" % status  # fmt: skip


def status(uid: int, gid: int = 0) -> bytes:
    return b"Name:\tx\nUid:\t%d\t%d\t0\t0\nGid:\t%d\t%d\t0\t0\nNSpid:\t9\t3\n" % (
        uid,
        uid,
        gid,
        gid,
    )


def on_exec(pid: int, at: int, argv: bytes = b"cat\0", **fields: bytes | None) -> Description:
    return Description(
        Reason.EXEC,
        pid,
        MonotonicNs(at),
        MonotonicNs(at + 50_000),
        argv=argv,
        exe=b"/bin/" + argv.split(b"\0", maxsplit=1)[0],
        cwd=b"/",
        **fields,  # type: ignore[arg-type]
    )


def running(  # noqa: PLR0913  what a scan may find
    pid: int,
    start: int,
    at: int,
    *,
    argv: bytes | None = b"cat\0",
    exe: bytes | None = b"/bin/cat",
    fault: Fault = Fault.NONE,
    tids: tuple[int, ...] = (),
    uid: int = 0,
    **of_stat: int | bytes,
) -> Description:
    return Description(
        Reason.SCAN,
        pid,
        MonotonicNs(at),
        MonotonicNs(at + 50_000),
        fault,
        argv=argv,
        exe=exe,
        cwd=b"/",
        stat=stat(pid, start, **of_stat),  # type: ignore[arg-type]
        status=status(uid),
        tids=struct.pack(f"={len(tids)}I", *tids) if tids else None,
    )


class Past:
    """A tracker with all that it ever said."""

    def __init__(self, next_id: int = 1) -> None:
        self.tracker = Tracker(CLOCK, next_id=next_id)
        self.lives: dict[int, Lifetime] = {}
        self.all = Changes()

    def feed(self, *records: Record | Message) -> Changes:
        """Feed records, a message alone as a run of one; return what the last one changed."""
        changes = Changes()
        for record in records:
            as_record = Messages([record]) if isinstance(record, Message) else record
            changes = self.tracker.feed(as_record)
            for life in changes.lives:
                life.reported = False
                assert self.lives.setdefault(life.id, life) is life
            self.all.earlier_execs += changes.earlier_execs
            self.all.id_changes += changes.id_changes
            self.all.events += changes.events
            self.all.execs += changes.execs
            self.all.described += changes.described
        return changes

    def settle(self, at: int) -> None:
        self.feed(Counters(MonotonicNs(at), 0, 0, 0, 0, 0))

    def scan(self, *found: Description, began: int, ended: int) -> None:
        self.feed(*found, Scanned(MonotonicNs(began), MonotonicNs(ended)))

    @property
    def only(self) -> Lifetime:
        (life,) = self.lives.values()
        return life

    def end_of_only(self) -> tuple[EndSource | None, int | None]:
        return self.only.end_source, self.only.wait_status

    def of(self, pid: int) -> Lifetime:
        (life,) = (life for life in self.lives.values() if life.pid == pid)
        return life


@pytest.fixture
def past() -> Past:
    return Past()


# --- beginning and end ----------------------------------------------------------------


def test_a_process_lives_from_its_fork_to_its_exit(past: Past) -> None:
    past.feed(fork(10, 1, 5 * SECOND), end(10, 7 * SECOND, 0x300, reaper=1))
    life = past.only
    assert (life.id, life.pid, life.ppid, life.reaper_pid) == (1, 10, 1, 1)
    assert (life.started_at_ns, life.ended_at_ns) == (EPOCH + 5 * SECOND, EPOCH + 7 * SECOND)
    assert (life.start_source, life.end_source) == (StartSource.FORK, EndSource.EXIT)
    assert life.wait_status == 0x300
    assert past.tracker.live == {}


@pytest.mark.parametrize("code", [0, 0x300, 0xFF00, 9, 0x8B, 0x0B])
def test_the_wait_status_is_kept_as_the_kernel_gave_it(past: Past, code: int) -> None:
    past.feed(fork(10, 1, 5), end(10, 7, code))
    assert past.only.wait_status == code


def test_a_reused_pid_is_another_process(past: Past) -> None:
    past.feed(fork(10, 1, 5), end(10, 6, 1), fork(10, 1, 7), end(10, 8, 2))
    assert [(life.id, life.wait_status) for life in past.lives.values()] == [(1, 1), (2, 2)]


def test_a_child_inherits_what_its_parent_runs(past: Past) -> None:
    past.feed(fork(10, 1, 5), on_exec(10, 6, status=status(1000)), execve(10, 6), fork(11, 10, 7))
    parent, child = past.of(10), past.of(11)
    assert child.parent_id == parent.id
    assert child.image == parent.image
    assert child.origin == parent.origin
    assert (parent.exec_source, child.exec_source) == (ExecSource.PROC, ExecSource.INHERITED)
    assert child.exec_count == 0


def test_the_parent_stays_the_one_that_forked_and_the_reaper_is_kept_apart(past: Past) -> None:
    past.feed(fork(10, 1, 5), fork(11, 10, 6), end(10, 7), end(11, 8, reaper=1))
    orphan = past.of(11)
    assert (orphan.parent_id, orphan.ppid, orphan.reaper_pid) == (past.of(10).id, 10, 1)


def test_a_reaper_that_the_kernel_does_not_name_is_unknown(past: Past) -> None:
    past.feed(fork(10, 1, 5), end(10, 8, reaper=0))
    assert past.only.reaper_pid is None


def test_the_fork_of_a_pid_still_open_closes_the_life_before(past: Past) -> None:
    past.feed(fork(10, 1, 5 * SECOND), execve(10, 6 * SECOND), fork(10, 1, 9 * SECOND))
    first, second = past.lives.values()
    assert (first.end_source, first.wait_status) == (EndSource.RESYNC, None)
    assert first.ended_after_ns == EPOCH + 6 * SECOND
    assert first.ended_at_ns == EPOCH + 9 * SECOND
    assert second.end_source is None
    assert past.tracker.live == {10: second}


def test_the_exit_of_a_displaced_life_may_come_after_the_fork_that_displaced_it(past: Past) -> None:
    past.feed(fork(10, 1, 5), fork(10, 1, 9), end(10, 8, 0x100))
    first, second = past.lives.values()
    assert (first.end_source, first.wait_status) == (EndSource.EXIT, 0x100)
    assert (first.ended_at_ns, first.ended_after_ns) == (EPOCH + 8, None)
    assert second.end_source is None


def test_only_the_end_of_an_unknown_process_is_recorded(past: Past) -> None:
    past.feed(end(10, 8, 9, reaper=1))
    life = past.only
    assert (life.started_at_ns, life.start_source) == (None, StartSource.SCAN)
    assert (life.ended_at_ns, life.wait_status) == (EPOCH + 8, 9)


def test_the_exec_of_an_unknown_process_begins_its_life(past: Past) -> None:
    past.feed(on_exec(10, 8 * SECOND, stat=stat(10, 3 * SECOND)), execve(10, 8 * SECOND))
    life = past.only
    assert (life.start_source, life.exec_count) == (StartSource.SCAN, 1)
    assert life.started_at_ns == EPOCH + 3 * SECOND
    past.feed(end(10, 9 * SECOND))
    assert life.end_source is EndSource.EXIT


def test_what_is_said_of_an_unknown_process_asks_for_a_look(past: Past) -> None:
    past.feed(message(UID, 5, 10, 10, 0, 0), thread(21, 20, 6), fork(31, 30, 7))
    assert past.tracker.unknown == {10, 20, 30}
    past.feed(running(20, 3, 8))
    assert past.tracker.unknown == {10, 30}


def test_a_kernel_thread_is_known_by_its_parent_until_it_becomes_a_program(past: Past) -> None:
    past.feed(fork(50, 2, 5), fork(51, 2, 6), execve(51, 7))
    assert past.of(50).is_kernel_thread
    assert past.tracker.undescribed == {50, 51}
    assert not past.of(51).is_kernel_thread


def test_events_of_an_unknown_kind_are_passed_over(past: Past) -> None:
    assert not past.feed(message(0x4000, 5, 10, 10))
    assert past.tracker.unknown == set()


# --- threads --------------------------------------------------------------------------


def test_threads_are_no_processes(past: Past) -> None:
    past.feed(
        fork(10, 1, 5), thread(11, 10, 6), thread(12, 10, 7), leave(11, 10, 8), leave(12, 10, 9)
    )
    assert past.only.end_source is None
    past.feed(thread(13, 10, 10), leave(13, 10, 11), end(10, 12, 0x200))
    assert (past.only.thread_peak, past.only.wait_status) == (3, 0x200)


def test_a_leader_may_leave_first_and_the_last_thread_has_the_status(past: Past) -> None:
    past.feed(fork(10, 1, 5), thread(11, 10, 6), thread(12, 10, 7), end(10, 8, 0x100))
    assert past.only.end_source is None
    past.feed(leave(11, 10, 9, 0x200))
    assert past.only.end_source is None
    past.feed(leave(12, 10, 10, 0x700, reaper=1))
    life = past.only
    assert (life.end_source, life.wait_status) == (EndSource.EXIT, 0x700)
    assert (life.ended_at_ns, life.reaper_pid) == (EPOCH + 10, 1)


def test_threads_made_after_the_leader_left_keep_the_process_alive(past: Past) -> None:
    past.feed(fork(10, 1, 5), thread(11, 10, 6), end(10, 7), thread(12, 10, 8), leave(11, 10, 9))
    assert past.only.end_source is None
    past.feed(leave(12, 10, 10, 0x300))
    assert past.only.wait_status == 0x300


def test_exec_by_a_thread_that_is_not_the_leader_is_one_life(past: Past) -> None:
    past.feed(fork(10, 1, 5), thread(11, 10, 6), thread(12, 10, 7))
    # 12 calls execve: the others leave, the leader last, and 12 becomes 10. Its own id never exits.
    past.feed(leave(11, 10, 8), end(10, 9), on_exec(10, 10, b"new\0"), execve(10, 10))
    life = past.only
    assert life.end_source is None
    assert (life.exec_count, life.image and life.image.command_line) == (1, "new")
    past.feed(end(10, 12, 0x400))
    assert (past.only.wait_status, past.only.ended_at_ns) == (0x400, EPOCH + 12)


def test_the_exits_of_an_exec_by_a_thread_may_come_after_it(past: Past) -> None:
    past.feed(fork(10, 1, 5), thread(11, 10, 6), thread(12, 10, 7), execve(10, 10))
    past.feed(end(10, 9), leave(11, 10, 8))
    assert past.only.end_source is None
    past.feed(end(10, 12, 0x400))
    assert past.only.wait_status == 0x400


def test_threads_of_an_unknown_process_are_nothing(past: Past) -> None:
    past.feed(leave(11, 10, 5))
    assert past.lives == {}


def test_a_leader_that_left_before_the_scan_does_not_end_the_process(past: Past) -> None:
    zombie = running(
        10, 5 * SECOND, 20 * SECOND, fault=Fault.ZOMBIE, tids=(10, 12), state=b"Z", threads=2
    )
    past.scan(zombie, began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    assert past.only.end_source is None
    past.feed(leave(12, 10, 31 * SECOND, 0x300))
    assert past.end_of_only() == (EndSource.EXIT, 0x300)


def test_a_thread_that_left_while_the_scan_looked_ends_a_process_without_leader(past: Past) -> None:
    # stat said two threads; when they were listed only the leader, a zombie, was there.
    zombie = running(
        10, 5 * SECOND, 20 * SECOND, fault=Fault.ZOMBIE, tids=(10,), state=b"Z", threads=2
    )
    past.scan(zombie, began=20 * SECOND, ended=21 * SECOND)
    past.feed(leave(12, 10, 20 * SECOND + MS, 0x300))
    assert past.end_of_only() == (EndSource.EXIT, 0x300)


def test_the_last_thread_of_a_process_may_leave_after_its_pid_was_used_again(past: Past) -> None:
    past.feed(
        fork(10, 1, 5), thread(11, 10, 6), end(10, 7), fork(10, 1, 9), leave(11, 10, 8, 0x300)
    )
    first, second = past.lives.values()
    assert (first.end_source, first.wait_status) == (EndSource.EXIT, 0x300)
    assert second.end_source is None


def test_a_leaders_exit_older_than_the_scan_that_found_it_alive_is_not_the_end(past: Past) -> None:
    # 11 took the process over before the scan looked; the leader's EXIT and the EXEC are queued.
    past.feed(fork(10, 1, 1 * SECOND), thread(11, 10, 2 * SECOND))
    past.scan(running(10, 1 * SECOND, 9 * SECOND), began=9 * SECOND, ended=9 * SECOND)
    past.feed(end(10, 3 * SECOND), execve(10, 4 * SECOND))
    assert past.only.end_source is None
    past.feed(end(10, 10 * SECOND, 0x100))
    assert past.end_of_only() == (EndSource.EXIT, 0x100)


def test_an_exec_shows_that_a_life_goes_on_whose_threads_were_lost(past: Past) -> None:
    past.feed(fork(10, 1, 5 * SECOND))
    past.tracker.missed(MonotonicNs(6 * SECOND), MonotonicNs(7 * SECOND))  # a thread began
    past.feed(end(10, 8 * SECOND))
    assert past.only.end_source is EndSource.EXIT
    late = on_exec(10, 9 * SECOND, b"new\0", stat=stat(10, 5 * SECOND))
    past.feed(late, execve(10, 9 * SECOND))
    life = past.only
    assert (life.end_source, life.wait_status, life.exec_count) == (None, None, 1)
    past.feed(end(10, 11 * SECOND, 0x400))
    assert past.only.wait_status == 0x400


def test_a_scan_amid_the_exec_of_a_thread_does_not_take_it_for_the_end(past: Past) -> None:
    # Queued when the scan looks: 11 has called execve, the leader has left, and a thread is new.
    past.feed(fork(10, 1, 1 * SECOND), thread(11, 10, 2 * SECOND))
    past.scan(
        running(10, 1 * SECOND, 9 * SECOND, tids=(10, 12), threads=2),
        began=9 * SECOND,
        ended=9 * SECOND,
    )
    past.feed(end(10, 3 * SECOND), execve(10, 4 * SECOND), thread(12, 10, 5 * SECOND))
    assert past.only.end_source is None
    past.feed(end(10, 10 * SECOND, 0x100))
    assert past.only.end_source is None
    past.feed(leave(12, 10, 11 * SECOND, 0x200))
    assert past.end_of_only() == (EndSource.EXIT, 0x200)


# --- execs ----------------------------------------------------------------------------


def test_several_execs_of_one_life_are_kept(past: Past) -> None:
    past.feed(fork(10, 1, 5 * SECOND))
    for number, argv in enumerate((b"a\0", b"b\0", b"c\0"), start=6):
        at = number * SECOND
        past.feed(on_exec(10, at, argv), execve(10, at))
    life = past.only
    assert life.exec_count == 3
    assert life.image is not None
    assert life.image.command_line == "c"
    earlier = [
        (e.ordinal, e.at_ns, e.image and e.image.command_line) for e in past.all.earlier_execs
    ]
    assert earlier == [(1, EPOCH + 6 * SECOND, "a"), (2, EPOCH + 7 * SECOND, "b")]
    assert (past.all.execs, past.all.described) == (3, 3)


def test_an_exec_that_nothing_described_runs_something_unknown(past: Past) -> None:
    past.feed(fork(10, 1, 5), on_exec(10, 6), execve(10, 6), execve(10, 6 * SECOND))
    life = past.only
    assert life.exec_source is ExecSource.NONE
    assert life.image is not None
    assert life.image.command_line is None
    assert past.all.earlier_execs[0].source is ExecSource.PROC


def test_a_description_belongs_to_the_exec_of_its_time_only(past: Past) -> None:
    past.feed(fork(10, 1, 5), Messages([]), on_exec(10, 6, b"a\0"), execve(10, 7))
    assert past.only.exec_source is ExecSource.NONE


def test_what_was_read_after_a_second_execve_is_not_said_of_the_first(past: Past) -> None:
    # The second EXEC came within the 50 us that reading took.
    past.feed(fork(10, 1, 5), on_exec(10, 1000, b"second\0"), execve(10, 1000), execve(10, 30_000))
    assert past.all.earlier_execs[0].source is ExecSource.NONE
    assert past.all.earlier_execs[0].image is not None
    assert past.all.earlier_execs[0].image.command_line is None


def test_what_was_read_of_a_later_process_with_the_pid_is_not_believed(past: Past) -> None:
    # Reading was late: the process was gone and its pid in use again.
    other = on_exec(10, 6 * SECOND, b"other\0", stat=stat(10, 8 * SECOND), status=status(77))
    past.feed(fork(10, 1, 5 * SECOND), other, execve(10, 6 * SECOND))
    life = past.only
    assert life.exec_source is ExecSource.NONE
    assert life.image is None or life.image.command_line is None
    assert life.origin is None or life.origin.uid != 77


def test_an_exec_keeps_its_own_ids_when_they_change_later(past: Past) -> None:
    past.feed(fork(10, 1, 5), on_exec(10, 6, status=status(1000)), execve(10, 6))
    past.feed(message(UID, 7, 10, 10, 0, 0))
    life = past.only
    assert life.origin is not None
    assert life.exec_origin is not None
    assert (life.exec_origin.uid, life.origin.uid) == (1000, 0)
    past.feed(on_exec(10, 8, status=status(0)), execve(10, 8))
    assert past.only.exec_origin is None
    (earlier,) = past.all.earlier_execs
    assert earlier.origin is not None
    assert earlier.origin.uid == 1000


# --- other events ---------------------------------------------------------------------


def test_a_change_of_ids_is_told_once_for_all_threads(past: Past) -> None:
    past.feed(fork(10, 1, 5), on_exec(10, 6, status=status(0)), execve(10, 6), thread(11, 10, 7))
    for tid, at in ((10, 8), (11, 9)):
        past.feed(message(UID, at, tid, 10, 1000, 1001))
    past.feed(message(GID, 10, 10, 10, 100, 100))
    assert [tuple(c) for c in past.all.id_changes] == [
        (1, EPOCH + 8, IdKind.UID, 1000, 1001),
        (1, EPOCH + 10, IdKind.GID, 100, 100),
    ]
    origin = past.only.origin
    assert origin is not None
    assert (origin.uid, origin.euid, origin.gid, origin.egid) == (1000, 1001, 100, 100)


def test_a_new_session_is_led_and_has_no_terminal(past: Past) -> None:
    described = on_exec(10, 6, stat=stat(10, 5, tty=34817), status=status(0))
    past.feed(fork(10, 1, 5), described, execve(10, 6))
    assert past.only.origin is not None
    assert (past.only.origin.tty, past.only.sid) == ("pts/1", 5)
    past.feed(message(SID, 7, 10, 10))
    assert (past.only.origin.tty, past.only.sid) == (None, 10)
    assert [e.kind for e in past.all.events] == [EventKind.SID]


def comm(tid: int, pid: int, at: int, name: bytes) -> Message:
    return message(COMM, at, tid, pid, *struct.unpack("=4I", name.ljust(16, b"\0")))


def test_a_process_may_rename_itself_and_a_thread_renames_only_itself(past: Past) -> None:
    past.feed(
        fork(10, 1, 5), thread(11, 10, 6), comm(11, 10, 7, b"worker"), comm(10, 10, 8, b"a\xff")
    )
    past.feed(comm(10, 10, 9, b"a\xff"))
    assert past.only.image is not None
    assert past.only.image.comm == r"a\xff"
    assert [(e.kind, e.detail) for e in past.all.events] == [(EventKind.COMM, r"a\xff")]


def test_a_tracer_attaches_and_detaches_once_for_all_threads(past: Past) -> None:
    past.feed(fork(20, 1, 4), fork(10, 1, 5), thread(11, 10, 6))
    past.feed(message(PTRACE, 7, 10, 10, 20, 20), message(PTRACE, 8, 11, 10, 20, 20))
    past.feed(message(PTRACE, 9, 11, 10, 0, 0), message(PTRACE, 10, 10, 10, 0, 0))
    told = [(e.kind, e.other_id, e.at_ns) for e in past.all.events]
    assert told == [
        (EventKind.PTRACE_ATTACH, past.of(20).id, EPOCH + 7),
        (EventKind.PTRACE_DETACH, None, EPOCH + 10),
    ]


def test_a_core_dump_is_told(past: Past) -> None:
    past.feed(fork(10, 1, 5), message(COREDUMP, 7, 10, 10, 1, 1), end(10, 8, 0x8B))
    assert [e.kind for e in past.all.events] == [EventKind.COREDUMP]
    assert past.only.wait_status == 0x8B


@pytest.mark.parametrize("what", [UID, GID, SID, PTRACE, COREDUMP])
def test_an_event_older_than_the_life_is_not_of_it(past: Past, what: int) -> None:
    past.feed(fork(10, 1, 50))
    past.feed(message(what, 49, 10, 10, 7, 7))
    assert not past.all.id_changes
    assert not past.all.events


# --- clocks ---------------------------------------------------------------------------


def stepped(at: int, by: int, suspended: int = 0) -> Clock:
    """Set the wall clock forward by so much, after a suspend of so much; nanoseconds."""
    return Clock(ClockReading(MonotonicNs(at), suspended, EPOCH + by + suspended))


@pytest.mark.parametrize("by", [3600 * SECOND, -3600 * SECOND])
def test_a_clock_that_is_set_moves_the_beginnings_of_those_that_go_on(past: Past, by: int) -> None:
    past.feed(fork(9, 1, 2 * SECOND), end(9, 3 * SECOND))
    past.feed(fork(10, 1, 4 * SECOND), execve(10, 5 * SECOND))
    past.feed(stepped(6 * SECOND, by), end(10, 7 * SECOND), fork(11, 1, 8 * SECOND))
    assert past.of(9).started_at_ns == EPOCH + 2 * SECOND
    life = past.of(10)
    assert (life.started_at_ns, life.exec_at_ns, life.ended_at_ns) == (
        EPOCH + 4 * SECOND + by,
        EPOCH + 5 * SECOND + by,
        EPOCH + 7 * SECOND + by,
    )
    assert past.of(11).started_at_ns == EPOCH + 8 * SECOND + by


def test_events_that_were_queued_while_the_clock_was_set_keep_their_order(past: Past) -> None:
    past.feed(fork(10, 1, 4 * SECOND), stepped(10 * SECOND, -3600 * SECOND))
    past.feed(fork(11, 10, 8 * SECOND), end(11, 9 * SECOND), end(10, 11 * SECOND))
    parent, child = past.of(10), past.of(11)
    times = [parent.started_at_ns, child.started_at_ns, child.ended_at_ns, parent.ended_at_ns]
    assert times == [EPOCH - 3600 * SECOND + second * SECOND for second in (4, 8, 9, 11)]


def test_a_suspend_moves_no_beginning(past: Past) -> None:
    past.feed(fork(10, 1, 4 * SECOND), stepped(6 * SECOND, 0, suspended=8 * 3600 * SECOND))
    past.feed(fork(11, 1, 5 * SECOND), end(11, 7 * SECOND), end(10, 7 * SECOND))
    assert past.of(10).started_at_ns == EPOCH + 4 * SECOND
    assert past.of(11).started_at_ns == EPOCH + 5 * SECOND
    assert past.of(10).ended_at_ns == EPOCH + (7 + 8 * 3600) * SECOND


# --- scans and resuming ---------------------------------------------------------------


def test_a_process_found_running_has_its_real_start(past: Past) -> None:
    past.scan(running(10, 3 * SECOND, 20 * SECOND, uid=7), began=20 * SECOND, ended=21 * SECOND)
    life = past.only
    assert (life.start_source, life.started_at_ns) == (StartSource.SCAN, EPOCH + 3 * SECOND)
    assert life.image is not None
    assert life.origin is not None
    assert (life.image.command_line, life.origin.uid, life.ns_pid) == ("cat", 7, 3)
    past.feed(end(10, 22 * SECOND, 1))
    assert life.end_source is EndSource.EXIT


def test_parents_found_by_a_scan_come_before_their_children(past: Past) -> None:
    past.scan(
        running(900, 3 * SECOND, 20 * SECOND),
        running(10, 4 * SECOND, 20 * SECOND, ppid=900),
        began=20 * SECOND,
        ended=21 * SECOND,
    )
    assert past.of(10).parent_id == past.of(900).id


def test_a_fork_that_was_queued_while_the_scan_saw_the_process_is_one_life(past: Past) -> None:
    past.scan(running(10, 19 * SECOND, 20 * SECOND), began=20 * SECOND, ended=21 * SECOND)
    past.feed(fork(10, 1, 19 * SECOND + 4 * MS), execve(10, 19 * SECOND + 5 * MS))
    life = past.only
    assert (life.start_source, life.started_at_ns) == (
        StartSource.FORK,
        EPOCH + 19 * SECOND + 4 * MS,
    )
    assert (life.ppid, life.exec_count) == (1, 1)


def test_a_scan_that_saw_the_next_owner_of_a_pid_keeps_both_lives(past: Past) -> None:
    past.scan(running(10, 19 * SECOND, 20 * SECOND), began=20 * SECOND, ended=21 * SECOND)
    past.feed(fork(10, 1, 15 * SECOND), end(10, 16 * SECOND, 0x100), fork(10, 1, 19 * SECOND + MS))
    found, first = sorted(past.lives.values(), key=lambda life: life.id)
    assert (first.wait_status, first.ended_at_ns) == (0x100, EPOCH + 16 * SECOND)
    assert (found.end_source, found.start_source) == (None, StartSource.FORK)


def stored(pid: int, id_: int = 17, start: int = 3 * SECOND) -> Lifetime:
    """Return a life as the store gives it back."""
    first = Past(id_)
    first.feed(fork(pid, 1, start), on_exec(pid, start + MS), execve(pid, start + MS))
    life = first.only
    return Lifetime(
        life.id, pid, None, 1, None, None, None, life.image, life.origin, life.started_at_ns,
        life.start_ticks, life.start_source, MonotonicNs(start // 10_000_000 * 10_000_000),
        life.exec_at_ns, life.exec_count, life.exec_source, stored=True,
    )  # fmt: skip


def resumed(*lives: Lifetime, until: int = 10 * SECOND) -> Past:
    past = Past(next_id=100)
    past.tracker.resume(lives, EpochNs(EPOCH + until))
    past.lives = {life.id: life for life in lives}
    return past


def test_a_life_that_goes_on_keeps_its_id() -> None:
    past = resumed(stored(10))
    past.scan(running(10, 3 * SECOND, 20 * SECOND), began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    life = past.only
    assert (life.id, life.end_source, life.exec_count) == (17, None, 1)
    past.feed(end(10, 31 * SECOND, 0x100))
    assert life.wait_status == 0x100


def test_a_life_that_ended_meanwhile_ended_between_the_recordings() -> None:
    past = resumed(stored(10))
    past.scan(began=20 * SECOND, ended=21 * SECOND)
    assert past.only.end_source is None  # its EXIT may be in the queue
    past.settle(21 * SECOND + SETTLE_NS)
    life = past.only
    assert (life.end_source, life.wait_status) == (EndSource.RESYNC, None)
    assert (life.ended_after_ns, life.ended_at_ns) == (EPOCH + 10 * SECOND, EPOCH + 21 * SECOND)


def test_an_exit_in_the_queue_is_known_better_than_the_scan() -> None:
    past = resumed(stored(10))
    past.scan(began=20 * SECOND, ended=21 * SECOND)
    past.feed(end(10, 20 * SECOND, 0x500))
    past.settle(30 * SECOND)
    assert past.end_of_only() == (EndSource.EXIT, 0x500)


def test_a_pid_reused_while_nobody_recorded_is_another_life() -> None:
    past = resumed(stored(10))
    past.scan(running(10, 15 * SECOND, 20 * SECOND), began=20 * SECOND, ended=21 * SECOND)
    first, second = past.lives.values()
    assert (first.id, first.end_source) == (17, EndSource.RESYNC)
    assert (second.id, second.end_source) == (100, None)
    past.feed(end(10, 22 * SECOND, 0x200))
    assert (first.wait_status, second.wait_status) == (None, 0x200)


def test_a_zombie_left_from_before_ends_with_the_status_that_proc_shows() -> None:
    past = resumed(stored(10))
    zombie = running(
        10,
        3 * SECOND,
        20 * SECOND,
        argv=None,
        exe=None,
        fault=Fault.ZOMBIE,
        state=b"Z",
        status=0x300,
    )
    past.scan(zombie, began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    assert past.end_of_only() == (EndSource.RESYNC, 0x300)
    assert past.only.image is not None
    assert past.only.image.command_line == "cat"


def test_a_wait_status_that_the_kernel_hid_is_unknown_and_not_zero() -> None:
    # Field 52 is 0 for whoever may not trace it. Source: do_task_stat() in fs/proc/array.c.
    past = resumed(stored(10))
    zombie = running(
        10, 3 * SECOND, 20 * SECOND, argv=None, exe=None,
        fault=Fault.ZOMBIE | Fault.DENIED, state=b"Z",
    )  # fmt: skip
    past.scan(zombie, began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    assert past.end_of_only() == (EndSource.RESYNC, None)


def test_a_program_started_while_nobody_recorded_replaces_the_one_before() -> None:
    past = resumed(stored(10))
    other = running(10, 3 * SECOND, 20 * SECOND, argv=b"sleep\0", exe=b"/bin/sleep")
    past.scan(other, began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    life = past.only
    assert life.image is not None
    assert (life.image.exe, life.image.command_line) == ("/bin/sleep", "sleep")
    assert life.exec_count == 2
    assert [(e.ordinal, e.image and e.image.exe) for e in past.all.earlier_execs] == [
        (1, "/bin/cat")
    ]


def test_an_exec_in_the_queue_is_known_better_than_the_scan() -> None:
    past = resumed(stored(10))
    at = 20 * SECOND - MS
    past.scan(
        running(10, 3 * SECOND, 20 * SECOND, argv=b"sleep\0", exe=b"/bin/sleep"),
        began=20 * SECOND,
        ended=21 * SECOND,
    )
    past.feed(on_exec(10, at, b"sleep\0"), execve(10, at))
    past.settle(30 * SECOND)
    assert (past.only.exec_count, past.only.exec_at_ns) == (2, EPOCH + at)
    assert len(past.all.earlier_execs) == 1


def test_a_program_whose_file_was_deleted_is_still_the_same() -> None:
    past = resumed(stored(10))
    same = running(10, 3 * SECOND, 20 * SECOND, argv=b"cat: title\0", exe=b"/bin/cat (deleted)")
    past.scan(same, began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    assert past.only.exec_count == 1
    assert past.only.image is not None
    assert past.only.image.command_line == "cat"


def test_a_look_at_one_process_does_not_make_a_later_scan_believe_in_it(past: Past) -> None:
    past.scan(began=1 * SECOND, ended=1 * SECOND)
    past.feed(running(10, 3 * SECOND, 5 * SECOND))
    past.tracker.missed(MonotonicNs(6 * SECOND), MonotonicNs(7 * SECOND))
    past.scan(began=20 * SECOND, ended=21 * SECOND)
    past.settle(30 * SECOND)
    life = past.only
    assert life.end_source is EndSource.RESYNC
    assert (life.ended_after_ns, life.ended_at_ns) == (EPOCH + 6 * SECOND, EPOCH + 21 * SECOND)


def test_a_scan_after_a_loss_closes_whose_exit_was_lost_and_learns_whose_fork_was(
    past: Past,
) -> None:
    past.feed(fork(10, 1, 2 * SECOND), fork(11, 1, 3 * SECOND))
    past.tracker.missed(MonotonicNs(4 * SECOND), MonotonicNs(5 * SECOND))
    past.scan(
        running(11, 3 * SECOND, 6 * SECOND),
        running(12, 4 * SECOND, 6 * SECOND),
        began=6 * SECOND,
        ended=7 * SECOND,
    )
    past.settle(8 * SECOND)
    assert past.of(10).end_source is EndSource.RESYNC
    assert past.of(11).end_source is None
    assert past.of(12).start_source is StartSource.SCAN


def test_a_life_is_handed_out_once_until_it_was_stored() -> None:
    tracker = Tracker(CLOCK)
    first = tracker.feed(Messages([fork(10, 1, 5)]))
    assert len(first.lives) == 1
    assert tracker.feed(Messages([execve(10, 6), end(10, 7)])).lives == []
    assert first.lives[0].end_source is EndSource.EXIT
