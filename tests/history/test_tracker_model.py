"""The tracker against a plain model: random histories within the kernel's rules.

The model knows what really happened. Its kernel queues a message for each event, holds an EXIT
back now and then, drops all messages for a while, and is scanned while messages are in the queue.
What was not touched by a loss must be exact; after a loss, a scan and all that was queued, the
open lives must be the processes that really run.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prochist.capture.connector import EXEC, EXIT, FORK, Message
from prochist.capture.observation import (
    Counters,
    Description,
    Fault,
    Messages,
    Reason,
    Record,
    Scanned,
)
from prochist.clock import ClockReading, EpochNs, MonotonicNs, Ticks
from prochist.history.lifetime import EndSource, Lifetime, StartSource
from prochist.history.tracker import SETTLE_NS, Tracker

EPOCH = 1_700_000_000_000_000_000
CLOCK = ClockReading(MonotonicNs(0), 0, EPOCH)
STEP = 30_000_000  # three ticks of /proc: two lives of a pid never begin in the same one
PIDS = range(2, 8)
STATUSES = st.sampled_from([0, 0x100, 0x700, 9, 0x8B])


@dataclass(eq=False)
class Process:
    """One process as it really was."""

    pid: int
    start: int
    parent: "Process | None"
    is_parent_sure: bool = False
    tids: set[int] = field(default_factory=set)
    has_leader: bool = True
    execs: int = 0
    peak: int = 1
    end: int | None = None
    status: int | None = None
    is_exact: bool = True
    """Nothing about it, nor about an earlier owner of its pid, was lost."""
    was_scanned: bool = False


@dataclass
class Noticed:
    """Stands in the queue where the gap in the numbers shows."""

    since: int
    until: int


class TrackerMachine(RuleBasedStateMachine):
    """Kernel, model and tracker side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.now = STEP
        self.next_tid = 1000
        self.queue: list[Message | Description | Noticed] = []
        self.held: dict[int, Message] = {}
        self.alive: dict[int, Process] = {}
        self.ended: list[Process] = []
        self.lives: dict[int, Lifetime] = {}
        self.tainted: dict[int, int] = {}
        self.losing_since: int | None = None
        self.unscanned_loss = False
        self.scan_began: int | None = None
        self.tracker = Tracker(CLOCK)

    # --- the kernel -------------------------------------------------------------------

    def tick(self) -> int:
        self.now += STEP
        return self.now

    def emit(self, what: int, tgid: int, *words: int, late: bool = False) -> None:
        message = Message(0, 0, what, 0, MonotonicNs(self.now), *words, *[0] * (6 - len(words)))
        if self.losing_since is not None:
            self.tainted[tgid] = self.now
            if tgid in self.alive:
                self.alive[tgid].is_exact = False
            if tgid in self.held:  # and its EXIT cannot be told from that of the next owner
                next(p for p in reversed(self.ended) if p.pid == tgid).is_exact = False
        elif late and tgid not in self.held:
            self.held[tgid] = message
        else:
            self.queue.append(message)

    def leave(self, process: Process, tid: int, status: int, *, late: bool = False) -> None:
        self.tick()
        process.tids.discard(tid)
        if tid == process.pid:
            process.has_leader = False
        is_last = not process.tids and not process.has_leader
        if is_last:
            process.end, process.status = self.now, status
        self.emit(EXIT, process.pid, tid, process.pid, status, 17, 0, 0, late=late and is_last)
        if is_last:
            del self.alive[process.pid]
            self.ended.append(process)

    def pick(self, data: st.DataObject) -> Process:
        candidates = [process for pid, process in sorted(self.alive.items()) if pid != 1]
        return data.draw(st.sampled_from(candidates))

    # --- rules: what processes do -----------------------------------------------------

    @initialize()
    def boot(self) -> None:
        """Begin with one process that a first scan finds."""
        init = Process(1, self.now, None)
        self.alive[1] = init
        self.scan()
        self.settle()

    @precondition(lambda self: len(self.alive) <= len(PIDS))
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        pid = data.draw(st.sampled_from([pid for pid in PIDS if pid not in self.alive]))
        parent = data.draw(st.sampled_from([p for _, p in sorted(self.alive.items())]))
        child = Process(pid, self.tick(), parent)
        child.is_exact = pid not in self.tainted
        child.is_parent_sure = parent.is_exact and parent.pid not in self.tainted
        self.alive[pid] = child
        self.emit(FORK, pid, parent.pid, parent.pid, pid, pid)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data())
    def fork_thread(self, data: st.DataObject) -> None:
        process = self.pick(data)
        self.tick()
        tid = self.next_tid
        self.next_tid += 1
        process.tids.add(tid)
        process.peak = max(process.peak, len(process.tids) + process.has_leader)
        self.emit(FORK, process.pid, 1, 1, tid, process.pid)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data(), status=STATUSES, late=st.booleans())
    def leave_one(self, data: st.DataObject, status: int, *, late: bool) -> None:
        """Let one task leave: a thread, the leader before its threads, or the last."""
        process = self.pick(data)
        tasks = sorted(process.tids) + [process.pid] * process.has_leader
        self.leave(process, data.draw(st.sampled_from(tasks)), status, late=late)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data(), status=STATUSES, late=st.booleans())
    def exit_group(self, data: st.DataObject, status: int, *, late: bool) -> None:
        process = self.pick(data)
        tasks = sorted(process.tids) + [process.pid] * process.has_leader
        for tid in data.draw(st.permutations(tasks)):
            self.leave(process, tid, status, late=late)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data())
    def execve(self, data: st.DataObject) -> None:
        """Call execve in any task: the others leave first, the leader as the last of them."""
        process = self.pick(data)
        tasks = sorted(process.tids) + [process.pid] * process.has_leader
        caller = data.draw(st.sampled_from(tasks))
        others = [tid for tid in tasks if tid not in (caller, process.pid)]
        for tid in data.draw(st.permutations(others)):
            self.leave(process, tid, 0)
        if caller != process.pid:
            if process.has_leader:
                self.leave(process, process.pid, 0)
            process.tids.discard(caller)  # its own id never exits
            process.has_leader = True
        self.tick()
        process.execs += 1
        if self.losing_since is None:
            self.queue.append(describe(process, self.now, Reason.EXEC))
        self.emit(EXEC, process.pid, process.pid, process.pid)

    # --- rules: what becomes of the messages ------------------------------------------

    @precondition(lambda self: self.losing_since is None)
    @rule()
    def begin_to_lose(self) -> None:
        self.losing_since = self.now

    @precondition(lambda self: self.losing_since is not None)
    @rule()
    def end_losing(self) -> None:
        assert self.losing_since is not None
        self.queue.append(Noticed(self.losing_since, self.tick()))
        self.losing_since = None
        self.unscanned_loss = True

    @precondition(lambda self: self.queue)
    @rule(share=st.floats(0, 1))
    def deliver(self, share: float) -> None:
        count = max(1, int(len(self.queue) * share))
        for item in self.queue[:count]:
            if isinstance(item, Noticed):
                self.tracker.missed(MonotonicNs(item.since), MonotonicNs(item.until))
            else:
                self.feed(Messages([item]) if isinstance(item, Message) else item)
        del self.queue[:count]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Let an EXIT that was held back come at last."""
        pid = data.draw(st.sampled_from(sorted(self.held)))
        self.queue.append(self.held.pop(pid))

    def feed(self, record: Record) -> None:
        for life in self.tracker.feed(record).lives:
            life.reported = False
            assert self.lives.setdefault(life.id, life) is life

    @precondition(
        lambda self: (
            self.losing_since is None
            and self.scan_began is None
            and not any(isinstance(item, Noticed) for item in self.queue)
        )
    )
    @rule()
    def scan(self) -> None:
        """Describe what runs, while messages of before are still in the queue."""
        self.scan_began = self.tick()
        for process in sorted(self.alive.values(), key=lambda p: p.start):
            process.was_scanned = True
            self.feed(describe(process, self.tick()))
        self.feed(Scanned(MonotonicNs(self.scan_began), MonotonicNs(self.now)))
        self.unscanned_loss = False

    @precondition(lambda self: self.scan_began is not None and self.losing_since is None)
    @rule()
    def settle(self) -> None:
        """Deliver all that was queued, and let time pass: what the scan said is final."""
        while self.held:
            self.queue.append(self.held.pop(min(self.held)))
        while self.queue:
            self.deliver(1.0)
        self.now += SETTLE_NS + STEP
        self.feed(Counters(MonotonicNs(self.now), 0, 0, 0, 0, 0))
        assert self.scan_began is not None
        self.tainted = {pid: at for pid, at in self.tainted.items() if at > self.scan_began}
        self.scan_began = None
        self.compare()

    @precondition(lambda self: self.losing_since is None and self.scan_began is None)
    @rule()
    def restart(self) -> None:
        """Stop recording, and take the open lives up again as the store gives them back."""
        while self.held:
            self.queue.append(self.held.pop(min(self.held)))
        while self.queue:
            self.deliver(1.0)
        complete_until = EpochNs(EPOCH + self.now)
        again = [reopened(life) for _, life in sorted(self.tracker.live.items())]
        for life in again:
            self.lives[life.id] = life
        self.tracker = Tracker(CLOCK, next_id=self.tracker.next_id)
        self.tracker.resume(again, complete_until)
        for process in self.alive.values():
            process.was_scanned = True
            if process.tids or not process.has_leader:
                process.is_exact = False  # until the scan its threads are not known
        self.scan()

    # --- comparing --------------------------------------------------------------------

    @invariant()
    def no_pid_has_two_open_lives(self) -> None:
        for pid, life in self.tracker.live.items():
            assert life.pid == pid
            assert life.end_source is None

    @invariant()
    def parents_have_smaller_ids(self) -> None:
        for life in self.lives.values():
            assert life.parent_id is None or life.parent_id < life.id
            if life.end_source is not None and life.started_at_ns and life.ended_at_ns:
                assert life.started_at_ns <= life.ended_at_ns

    def life_of(self, process: Process) -> Lifetime:
        exact = EPOCH + process.start
        (life,) = [
            life
            for life in self.lives.values()
            if life.pid == process.pid
            and life.started_at_ns is not None
            and exact - 10_000_000 < life.started_at_ns <= exact
        ]
        return life

    def compare(self) -> None:
        """Compare with what really happened; all that was queued has been delivered."""
        if not self.tainted and not self.unscanned_loss:
            assert sorted(self.tracker.live) == sorted(self.alive)
            for process in self.alive.values():
                life = self.tracker.live[process.pid]
                assert life is self.life_of(process)
        for process in [*self.ended, *self.alive.values()]:
            if not process.is_exact or process.pid in self.tainted:
                continue
            life = self.life_of(process)
            assert life.exec_count == process.execs
            if not process.was_scanned:
                assert life.thread_peak == process.peak
                assert life.start_source is StartSource.FORK
                assert life.started_at_ns == EPOCH + process.start
            if process.is_parent_sure and process.parent is not None:
                assert life.ppid == process.parent.pid
                if process.parent.is_exact and not process.was_scanned:
                    assert life.parent_id == self.life_of(process.parent).id
            if process.end is None:
                assert life.end_source is None
            else:
                assert life.end_source is EndSource.EXIT
                assert life.wait_status == process.status
                assert life.ended_at_ns == EPOCH + process.end

    def teardown(self) -> None:
        """Come to rest, and compare a last time."""
        if not self.alive:
            return
        if self.losing_since is not None:
            self.end_losing()
        if self.scan_began is not None:
            self.settle()
        while self.queue:
            self.deliver(1.0)
        self.scan()
        self.settle()
        assert not self.tainted
        for life in self.lives.values():
            assert (life.end_source is None) == (self.tracker.live.get(life.pid) is life)
            if life.end_source is EndSource.RESYNC and life.ended_after_ns is not None:
                assert life.ended_at_ns is not None
                assert life.ended_after_ns <= life.ended_at_ns


def describe(process: Process, at: int, reason: Reason = Reason.SCAN) -> Description:
    """Describe a process as the scanner or, at an execve, the receiver would."""
    tasks = len(process.tids) + 1  # a leader that has left stays a zombie, and counts
    stat = b"%d (x) %s %d 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 %d 0 %d" % (
        process.pid,
        b"S" if process.has_leader else b"Z",
        process.parent.pid if process.parent else 0,
        tasks,
        process.start // 10_000_000,
    )
    tids = [process.pid, *process.tids]
    return Description(
        reason,
        process.pid,
        MonotonicNs(at),
        MonotonicNs(at),
        Fault.NONE if process.has_leader else Fault.ZOMBIE,
        stat=stat + b" 0" * 30,
        tids=b"".join(tid.to_bytes(4, "little") for tid in tids) if tasks > 1 else None,
    )


def reopened(life: Lifetime) -> Lifetime:
    """Return an open life with what the store keeps of it."""
    ticks = life.start_ticks
    return Lifetime(
        life.id,
        life.pid,
        life.parent_id,
        life.ppid,
        started_at_ns=life.started_at_ns,
        start_ticks=None if ticks is None else Ticks(ticks),
        start_source=life.start_source,
        started_ns=MonotonicNs((ticks or 0) * 10_000_000),
        exec_at_ns=life.exec_at_ns,
        exec_count=life.exec_count,
        thread_peak=life.thread_peak,
        stored=True,
    )


TrackerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTrackerAgainstAModel = TrackerMachine.TestCase
