"""The tracker: everything that decides when a lifetime begins, changes or ends.

A state machine. It is fed the records of the observation stream and returns
what changed; it reads no clock, no file and no database. Here the kernel's
words (``pid`` a thread, ``tgid`` a process) become the user's (``pid`` a
process, ``tid`` a thread).

The rules, each from experiment (Linux 6.1, 6.12, 6.18):

* A FORK whose child_pid is not its child_tgid is a thread, never a process.
* A process ends with its last task, with that task's status. The leader may
  go before its threads.
* EXEC means alive: whatever tasks were said to have gone, the caller has taken
  over the process, and all other threads are dead or dying.
* Order holds per CPU only. An event older than the life it names belongs to
  the life that had the pid before.
* FORK of a pid whose life is open: that life's end was not seen. Its EXIT may
  still come and then counts.
* What a scan of /proc found is applied before the events that were queued
  meanwhile; what it did not find is closed only when those were read too.
"""

from collections.abc import Iterable
from itertools import islice

from prochist.capture import procfs
from prochist.capture.cgroups import parse_cgroup
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
    decode_comm,
)
from prochist.capture.observation import (
    Cgroup,
    Clock,
    Counters,
    Description,
    Fault,
    Messages,
    Probed,
    Reason,
    Record,
    Restarted,
    Scanned,
    Tasks,
)
from prochist.capture.taskstats import decode_task_records
from prochist.clock import NS_PER_TICK, ClockReading, EpochNs, MonotonicNs, Ticks
from prochist.history.accounting import Accounting, Bill
from prochist.history.image import NOTHING_KNOWN, ImageMaker, decode_text
from prochist.history.lifetime import (
    NOBODY,
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
from prochist.history.probed import ProbedExec, ProbedExecs

KTHREADD = 2
"""pid of the parent of all kernel threads."""

SETTLE_NS = 200_000_000
"""How much later than a scan an event must be for all events before the scan to have been read.

Timestamps of different CPUs can be inverted by milliseconds in the queue.
"""


RESUMED_STEP_NS = 100_000_000
"""Difference between a stored start and /proc's, which is 10 ms coarse, that is a clock step."""

_MOST_ENDED_LATELY = 2048
_MOST_BILLS = 65536
_MOST_CGROUPS = 16384
_DELETED = " (deleted)"  # what the kernel adds to the path of a file that was removed


class Tracker:
    """Turns observations into lifetimes.

    Ids of lifetimes are given in the order in which they begin, from
    ``next_id`` on. ``live`` holds the open lifetimes by pid.
    """

    def __init__(self, clock: ClockReading, *, next_id: int = 1) -> None:
        self.clock = clock
        self.next_id = next_id
        self.live: dict[int, Lifetime] = {}
        self.unknown: set[int] = set()
        """Processes that were named by an event though no life of theirs is known: look them up."""
        self.undescribed: set[int] = set()
        """Processes worth a look-up, as their image is not what was inherited (kernel threads)."""
        self._clocks: list[ClockReading] = [clock]
        self._displaced: dict[int, Lifetime] = {}
        self._descriptions: dict[tuple[int, int], Description] = {}
        self._images = ImageMaker()
        self._found: dict[int, MonotonicNs] = {}
        self._unfound: list[Lifetime] = []
        self._replaced: list[tuple[Lifetime, Description]] = []
        self._scanned: Scanned | None = None
        self._complete_until: EpochNs | None = None
        self._changes = Changes()
        self._probed = ProbedExecs()
        self._cgroups: dict[int, str] = {}
        self._accounting: Accounting | None = None
        self._bills: dict[int, list[Bill]] = {}
        self._ended_lately: dict[int, Lifetime] = {}
        self._loss_until = MonotonicNs(0)
        self._is_first_scan = True

    def account(self, since: MonotonicNs) -> None:
        """Expect records of exiting tasks, all of them from ``since`` on."""
        self._accounting = Accounting(since)

    def missed_tasks(self, until: MonotonicNs) -> None:
        """Note that records of exiting tasks were lost before ``until``."""
        if self._accounting is not None:
            self._accounting.lost(until)

    def resume(self, lives: Iterable[Lifetime], complete_until: EpochNs) -> None:
        """Take up lives that were open when recording stopped, earlier in this boot.

        A scan must follow: it tells which of them go on. ``complete_until`` is
        the time up to which events were seen.
        """
        for life in lives:
            self.live[life.pid] = life
            if life.start_ticks is not None and life.started_at_ns is not None:
                step_ns = self.clock.epoch_of_ticks(life.start_ticks) - life.started_at_ns
                if abs(step_ns) > RESUMED_STEP_NS:
                    self._move(life, step_ns)  # the clock was set meanwhile
        self._complete_until = complete_until

    def missed(self, since: MonotonicNs, until: MonotonicNs) -> None:
        """Note that events between were lost; a scan that follows puts the lives right."""
        self._complete_until = min(self._complete_until or self.epoch(since), self.epoch(since))
        self._loss_until = max(self._loss_until, until)

    def epoch(self, at: MonotonicNs) -> EpochNs:
        """Convert to wall time, by the clock as it stands now.

        CLOCK_MONOTONIC stands still while the host is suspended: what was suspended since is
        taken off. Where the clock was set since, the new time counts.
        """
        clock = self.clock
        if at >= clock.monotonic_ns:
            return EpochNs(at + clock.epoch_offset_ns)
        then = self._clocks[0]
        for reading in reversed(self._clocks):
            if at >= reading.monotonic_ns:
                then = reading
                break
        suspended_ns = clock.boot_offset_ns - then.boot_offset_ns
        return EpochNs(at + clock.epoch_offset_ns - suspended_ns)

    def feed(self, record: Record) -> Changes:  # noqa: C901  one case a kind of record
        """Apply one record and return what changed, oldest first."""
        self._changes = changes = Changes()
        match record:
            case Messages(messages):
                self._apply_messages(messages)
            case Description(reason=Reason.EXEC):
                self._descriptions[record.pid, record.at_ns] = record
            case Description():
                self._found_running(record)
            case Clock(reading):
                self._set_clock(reading)
            case Scanned():
                self._scan_ended(record)
            case Tasks(received_ns, payload):
                self._add_tasks(received_ns, payload)
            case Probed(payload):
                self._probed.add(payload)
            case Cgroup(key, text):
                self._learn_cgroup(key, text)
            case Counters(at_ns=at_ns):
                self._settle(at_ns)
            case Restarted(at_ns):
                # Records of tasks that the dead receiver had taken are gone.
                self.missed_tasks(at_ns)
            case _:
                pass
        return changes

    def _set_clock(self, reading: ClockReading) -> None:
        """Go on by another reading of the clocks.

        When somebody has set the wall clock, the new time is taken for the right one: the
        beginnings of lives that go on move with it, as ps(1) shows them, so that a life's
        duration and the order of its beginning and end stay true.
        """
        suspended_ns = reading.boot_offset_ns - self.clock.boot_offset_ns
        step_ns = reading.epoch_offset_ns - self.clock.epoch_offset_ns - suspended_ns
        self.clock = reading
        self._clocks = [*self._clocks[-7:], reading]
        if step_ns:
            for life in self.live.values():
                self._move(life, step_ns)
                self._touch(life)

    def _move(self, life: Lifetime, step_ns: int) -> None:
        if life.started_at_ns is not None:
            life.started_at_ns = EpochNs(life.started_at_ns + step_ns)
        if life.exec_at_ns is not None:
            life.exec_at_ns = EpochNs(life.exec_at_ns + step_ns)

    # --- events -------------------------------------------------------------

    def _apply_messages(self, messages: list[Message]) -> None:  # noqa: C901  the hot loop
        live = self.live
        for message in messages:
            _, _, what, _, at, word0, word1, word2, word3, _, word5 = message
            if what == FORK:
                if word2 == word3:
                    self._fork(word3, word1, at)
                else:
                    self._fork_thread(word3, word2, at)
            elif what == EXIT:
                self._exit(word1, word0, word2, word5, at)
            elif what == EXEC:
                self._exec(word1, at)
            else:
                life = live.get(word1)
                if life is None:
                    if what in _OTHERS:
                        self.unknown.add(word1)
                elif at >= life.started_ns and what in _OTHERS:
                    _OTHERS[what](self, life, message)
        if messages:
            self._descriptions.clear()
            if self._scanned is not None:
                self._settle(messages[-1].timestamp_ns)

    def _touch(self, life: Lifetime) -> None:
        if not life.reported:
            life.reported = True
            self._changes.lives.append(life)

    def _fork(self, pid: int, ppid: int, at: MonotonicNs) -> None:
        live = self.live
        parent = live.get(ppid)
        clock = self.clock
        ticks = Ticks((at + clock.boot_offset_ns) // NS_PER_TICK)
        old = live.get(pid)
        if old is not None and self._forked_already(old, parent, ppid, at, ticks):
            return
        life = Lifetime(self.next_id, pid)
        self.next_id += 1
        life.ppid = ppid
        life.started_ns = at
        life.started_at_ns = (
            EpochNs(at + clock.epoch_offset_ns) if at >= clock.monotonic_ns else self.epoch(at)
        )
        life.start_ticks = ticks
        if self._ended_lately:
            self._ended_lately.pop(pid, None)
        if parent is not None:
            life.parent_id = parent.id
            life.image = parent.image
            life.origin = parent.origin
            life.sid = parent.sid
            life.cgroups_key = parent.cgroups_key
            if parent.exec_source:
                life.exec_source = ExecSource.INHERITED
        else:
            self.unknown.add(ppid)
        if ppid == KTHREADD:
            life.is_kernel_thread = True
            self.undescribed.add(pid)
        if old is not None and at < old.started_ns:
            self._displace(life, old)  # the pid has been used again since, as a scan has shown
        else:
            live[pid] = life
        self._touch(life)

    def _forked_already(
        self, old: Lifetime, parent: Lifetime | None, ppid: int, at: MonotonicNs, ticks: Ticks
    ) -> bool:
        """Settle what an open life of the pid has to do with its FORK; return whether it is it."""
        if old.start_source is StartSource.SCAN and old.start_ticks in (
            ticks,
            ticks - 1,
            ticks + 1,
        ):
            # Found running by the scan while its FORK was in the queue.
            old.start_source = StartSource.FORK
            old.started_ns = at
            old.started_at_ns = self.epoch(at)
            old.ppid = ppid
            if parent is not None and parent.id < old.id:
                old.parent_id = parent.id
            self._touch(old)
            return True
        if at >= old.started_ns:
            self._displace(old, None, at)
        return False

    def _displace(self, old: Lifetime, by: Lifetime | None, at: MonotonicNs | None = None) -> None:
        """Close a life whose pid belongs to another now; its own EXIT may still come."""
        latest = self.epoch(at) if at is not None else by.started_at_ns if by else None
        self._displaced[old.pid] = old
        self._close_unseen(old, latest or self.clock.epoch(self.clock.monotonic_ns))
        if len(self._displaced) > 1024:  # noqa: PLR2004  a bound on memory, nothing else
            self._displaced.pop(next(iter(self._displaced)))

    def _close_unseen(self, life: Lifetime, latest: EpochNs) -> None:
        earliest = max(
            life.started_at_ns or 0,
            life.exec_at_ns or 0,
            self._complete_until or 0,
        )
        life.end_source = EndSource.RESYNC
        life.ended_after_ns = EpochNs(min(earliest, latest)) if earliest else None
        life.ended_at_ns = EpochNs(max(latest, life.started_at_ns or 0))
        bill = self._take_bill(life.pid)
        if bill is not None:
            self._settle_bill(life, bill)  # its EXIT was lost, but not what it cost and said
        elif self._accounting is not None:
            self._accounting.forget(life.pid)
        self._touch(life)

    def _fork_thread(self, pid: int, tid: int, at: MonotonicNs) -> None:
        life = self.live.get(pid)
        if life is None:
            self.unknown.add(pid)
            return
        if at < life.started_ns or at < life.found_ns:
            return
        if life.tids is None:
            life.tids = set()
        life.tids.add(tid)
        count = len(life.tids) + (not life.leader_gone)
        if count > life.thread_peak:
            life.thread_peak = count
            self._touch(life)

    def _exit(  # noqa: C901  the rules of an end, in their order
        self, pid: int, tid: int, status: int, reaper: int, at: MonotonicNs
    ) -> None:
        life = self.live.get(pid)
        if life is None or at < life.started_ns:
            if self._bills and self._is_last(pid, tid, self._ended_lately.get(pid)):
                self._end(self._ended_lately[pid], status, reaper, at)
            elif tid == pid:
                self._exit_displaced(pid, status, reaper, at, known=life is not None)
            else:
                self._exit_thread_displaced(pid, tid, status, reaper, at)
            return
        if at < life.found_ns:
            if life.tids:
                life.tids.discard(tid)
            return  # not its end: a scan found it alive later
        if self._bills and self._is_doubtful(life) and self._is_last(pid, tid, life):
            pass  # its threads are not all known, but the kernel said that this task is the last
        elif tid != pid:
            if life.tids:
                life.tids.discard(tid)
            if life.tids or not life.leader_gone:
                return
        elif at < life.exec_ns:
            return  # the leader that another thread's execve replaced
        elif life.tids:
            life.leader_gone = True
            return
        del self.live[pid]
        self._end(life, status, reaper, at)

    def _is_doubtful(self, life: Lifetime) -> bool:
        """Return whether threads of a life may have come or gone unseen."""
        return life.start_source is StartSource.SCAN or life.started_ns < self._loss_until

    def _is_last(self, pid: int, tid: int, life: Lifetime | None) -> bool:
        bills = self._bills.get(pid)
        return bills is not None and life is not None and bills[0].last.pid == tid

    def _take_bill(self, pid: int) -> Bill | None:
        bills = self._bills.get(pid)
        if bills is None:
            return None
        bill = bills.pop(0)
        if not bills:
            del self._bills[pid]
        return bill

    def _end(self, life: Lifetime, status: int, reaper: int, at: MonotonicNs) -> None:
        clock = self.clock
        ended = at + clock.epoch_offset_ns if at >= clock.monotonic_ns else self.epoch(at)
        life.ended_at_ns = EpochNs(max(ended, life.started_at_ns or 0))
        life.ended_after_ns = None
        life.end_source = EndSource.EXIT
        life.wait_status = status & 0xFFFF
        life.reaper_pid = reaper or None
        life.tids = None
        if self._accounting is not None:
            bill = self._take_bill(life.pid)
            if bill is not None:
                self._settle_bill(life, bill)
            else:
                self._accounting.forget(life.pid)
            self._remember_ended(life)
        elif self._complete_until is not None:
            self._remember_ended(life)
        if not life.reported:
            life.reported = True
            self._changes.lives.append(life)

    def _remember_ended(self, life: Lifetime) -> None:
        """Keep a life that ended a moment ago: late records and scans may know better."""
        lately = self._ended_lately
        if len(lately) >= _MOST_ENDED_LATELY:
            for pid in list(islice(lately, _MOST_ENDED_LATELY // 2)):  # many at once cost less
                del lately[pid]
        lately[life.pid] = life

    def _settle_bill(self, life: Lifetime, bill: Bill) -> None:
        """Set what the kernel said with the last task of a process."""
        if self._accounting is None:
            return
        seen = life.start_source is StartSource.FORK
        life.cost = self._accounting.cost(bill, life.started_ns if seen else None)
        life.wait_status = bill.wait_status & 0xFFFF
        if bill.last.ppid:
            life.reaper_pid = bill.last.ppid
        image = life.image or NOTHING_KNOWN
        if image.comm is None and bill.last.pid == life.pid:
            life.image = image._replace(comm=decode_text(bill.last.comm.split(b"\0", 1)[0]))

    def _add_tasks(self, received_ns: MonotonicNs, payload: bytes) -> None:
        accounting = self._accounting
        if accounting is None:
            accounting = self._accounting = Accounting(received_ns)
        bills = self._bills
        for record in decode_task_records(payload):
            bill = accounting.feed(record, received_ns)
            if bill is None:
                continue
            if bill.is_amended and bill.pid not in bills:
                ended = self._ended_lately.get(bill.pid)
                if ended is not None:
                    self._settle_bill(ended, bill)
                    self._touch(ended)
                continue
            if bill.is_amended and bill.pid in bills:
                bills[bill.pid][-1] = bill
            elif bill.pid in bills:
                # Its pid has been used again before we read the events of its end.
                bills[bill.pid].append(bill)
            else:
                bills[bill.pid] = [bill]
            if len(bills) > _MOST_BILLS:
                del bills[next(iter(bills))]

    def _exit_displaced(
        self, pid: int, status: int, reaper: int, at: MonotonicNs, *, known: bool
    ) -> None:
        """End a life whose pid belongs to another, or whose beginning nobody saw."""
        displaced = self._displaced.get(pid)
        if displaced is not None and at >= displaced.started_ns:
            if displaced.tids:
                displaced.leader_gone = True
                return
            del self._displaced[pid]
            self._end(displaced, status, reaper, at)
            return
        if known and self._scanned is None:
            return
        life = Lifetime(self.next_id, pid, start_source=StartSource.SCAN)
        self.next_id += 1
        self._end(life, status, reaper, at)

    def _exit_thread_displaced(
        self, pid: int, tid: int, status: int, reaper: int, at: MonotonicNs
    ) -> None:
        """End a life without leader whose last thread's EXIT came after the FORK of the next."""
        displaced = self._displaced.get(pid)
        if displaced is None or not displaced.tids or tid not in displaced.tids:
            return
        displaced.tids.remove(tid)
        if displaced.leader_gone and not displaced.tids:
            del self._displaced[pid]
            self._end(displaced, status, reaper, at)

    def _exec(self, pid: int, at: MonotonicNs) -> None:
        description = self._descriptions.pop((pid, at), None)
        record = self._probed.take(pid, at, self._loss_until) if self._probed else None
        life = self.live.get(pid)
        if life is None:
            life = self._begin_unseen(pid, description, record)
        elif at < life.started_ns or at < life.exec_ns:
            return
        self._begin_exec(life, at)
        if record is not None:
            self._describe_probed(life, record, description)
        elif description is not None:
            self._describe(life, description)
            life.described_ns = description.read_ns
        else:
            self._forget_image(life)
        if life.exec_source is not ExecSource.NONE:
            self._changes.described += 1
        self._touch(life)

    def _begin_exec(self, life: Lifetime, at: MonotonicNs) -> None:
        """Put the execve before away, and make room for what a new one brings."""
        changes = self._changes
        changes.execs += 1
        if life.exec_count:
            if life.described_ns >= at and life.exec_source is ExecSource.PROC:
                # /proc was read after this execve: what it said is of the new image.
                self._forget_image(life)
                changes.described -= 1
            changes.earlier_execs.append(
                EarlierExec(
                    life.id,
                    life.exec_count,
                    life.exec_at_ns,
                    life.image,
                    life.exec_origin or life.origin,
                    life.exec_source,
                )
            )
        life.exec_count += 1
        life.exec_ns = at
        life.exec_at_ns = self.epoch(at)
        life.exec_origin = None
        if at >= life.found_ns:
            life.tids = None
            life.leader_gone = False
        life.is_kernel_thread = False

    def _describe_probed(
        self, life: Lifetime, found: ProbedExec, description: Description | None
    ) -> None:
        """Set image and origin to what the probe saw; a description adds the end of a long argv."""
        image = self._probed.image(found, description.argv if description is not None else None)
        brief = found.brief
        before = life.origin
        cgroup = self._cgroups.get(brief.cgroups_key)
        if cgroup is None and before is not None and life.cgroups_key in (0, brief.cgroups_key):
            cgroup = before.cgroup
        origin = self._probed.origin(found, cgroup)
        if image is None or origin is None:
            self._forget_image(life)
            return
        life.image = image
        life.origin = origin
        life.exec_source = ExecSource.BPF
        life.cgroups_key = brief.cgroups_key
        life.ns_pid = brief.ns_pid or None
        life.sid = brief.sid or None

    def _learn_cgroup(self, key: int, text: bytes) -> None:
        path = parse_cgroup(text)
        if path is None:
            return
        if len(self._cgroups) > _MOST_CGROUPS:
            self._cgroups.clear()
        self._cgroups[key] = decode_text(path)

    def _forget_image(self, life: Lifetime) -> None:
        life.image = NOTHING_KNOWN
        life.exec_source = ExecSource.NONE

    def _begin_unseen(
        self, pid: int, description: Description | None, record: ProbedExec | None
    ) -> Lifetime:
        """Begin a life whose FORK was not seen, or go on with one that EXEC shows to be alive."""
        stat = procfs.parse_stat(description.stat) if description and description.stat else None
        start = None
        if record is not None:
            brief = record.brief
            start = Ticks(brief.start_boottime_ns // NS_PER_TICK), brief.parent_tgid
        elif stat is not None:
            start = stat.starttime, stat.ppid
        life = None if start is None else self._take_back(pid, start[0])
        if life is None:
            life = Lifetime(self.next_id, pid, start_source=StartSource.SCAN)
            self.next_id += 1
            self.live[pid] = life
            if start is not None:
                self._set_start(life, *start)
            else:
                self.unknown.add(pid)
        self._touch(life)
        return life

    def _set_start(self, life: Lifetime, ticks: Ticks, ppid: int) -> None:
        life.start_ticks = ticks
        life.started_ns = MonotonicNs(max(0, ticks * NS_PER_TICK - self.clock.boot_offset_ns))
        life.started_at_ns = self.clock.epoch_of_ticks(ticks)
        life.ppid = ppid or None
        parent = self.live.get(ppid)
        if parent is not None and parent.id < life.id:
            life.parent_id = parent.id

    # --- descriptions -------------------------------------------------------

    def _describe(self, life: Lifetime, description: Description) -> None:
        """Set image and origin to what was read; what could not be read is unknown or as before."""
        d = description
        stat = procfs.parse_stat(d.stat) if d.stat else None
        if stat is not None and not _is_same(life, stat):
            self._forget_image(life)  # read too late: its pid was in use again
            return
        if d.argv is not None or d.exe is not None:
            life.exec_source = ExecSource.PROC
        else:
            life.exec_source = ExecSource.NONE
        life.image = self._images.make(
            stat.comm if stat else None,
            d.exe,
            None,
            d.argv,
            d.cwd,
            complete=not d.fault & Fault.ARGV_CUT,
        )
        self._set_origin(life, d, stat)

    def _set_origin(self, life: Lifetime, d: Description, stat: procfs.Stat | None) -> None:
        before = life.origin or NOBODY
        ids = procfs.parse_status(d.status) if d.status else None
        origin = before
        if ids is not None:
            origin = origin._replace(uid=ids.uid, euid=ids.euid, gid=ids.gid, egid=ids.egid)
            if ids.ns_pid is not None:
                life.ns_pid = ids.ns_pid
        if stat is not None:
            life.sid = stat.session or None
            origin = origin._replace(tty=procfs.parse_tty(stat.tty_nr))
        if d.login_uid is not None:
            origin = origin._replace(login_uid=procfs.parse_audit_id(d.login_uid))
        if d.session is not None:
            origin = origin._replace(session=procfs.parse_audit_id(d.session))
        if d.cgroup is not None:
            path = parse_cgroup(d.cgroup, is_zombie=stat is not None and stat.state in b"ZX")
            if path is not None:
                origin = origin._replace(cgroup=decode_text(path))
        if origin != before:
            life.origin = origin

    def _found_running(self, d: Description) -> None:
        """Apply what a scan, or a look-up of one process, found."""
        stat = procfs.parse_stat(d.stat) if d.stat else None
        if stat is None:
            return
        self.unknown.discard(d.pid)
        life = self._find(d, stat)
        if life is None:
            return
        is_zombie = _is_zombie(d, stat)
        self._found[life.id] = d.at_ns
        life.is_kernel_thread = bool(stat.flags & procfs.PF_KTHREAD)
        life.zombie = is_zombie
        if is_zombie:
            # The kernel shows 0 to whoever may not trace it.
            # Source: do_task_stat() in fs/proc/array.c.
            life.wait_status = None if Fault.DENIED in d.fault else stat.exit_code
        else:
            life.found_ns = d.at_ns
        if self._complete_until is not None and _runs_another(life, d):
            self._replaced.append((life, d))  # unless its EXEC is in the queue
        elif life.exec_source is not ExecSource.BPF and (
            not life.stored or life.image is None or life.exec_source is ExecSource.NONE
        ):
            if life.exec_count == 0 or life.exec_source is ExecSource.NONE:
                self._describe(life, d)
        else:
            self._set_origin(life, d, stat)
        if stat.num_threads <= 1:
            life.tids = None
            life.leader_gone = False
        elif d.tids:
            tids = {t for t in memoryview(d.tids).cast("I").tolist() if t != d.pid}
            life.tids = tids or None
            life.leader_gone = Fault.ZOMBIE in d.fault
            life.thread_peak = max(life.thread_peak, len(tids) + (not life.leader_gone))
        self._touch(life)

    def _find(self, d: Description, stat: procfs.Stat) -> Lifetime | None:
        """Return the life of a process that was found, a new one if need be; None if it is over."""
        life = self.live.get(d.pid)
        if life is not None and not _is_same(life, stat):
            if life.started_ns > d.at_ns:
                return None  # began after this was read
            self._displace(life, None, d.at_ns)
            life = None
        if life is None:
            life = self._revive(d.pid, stat)
        if life is None and _is_zombie(d, stat) and not self._is_news(stat):
            return None  # its life was recorded, and has ended
        if life is None:
            life = Lifetime(self.next_id, d.pid, start_source=StartSource.SCAN)
            self.next_id += 1
            self.live[d.pid] = life
            self._set_start(life, stat.starttime, stat.ppid)
        elif life.start_ticks is None:
            self._set_start(life, stat.starttime, stat.ppid)
        return life

    def _exec_unseen(self, life: Lifetime, d: Description) -> None:
        """Note that a life runs another program: its EXEC was lost, or nobody recorded."""
        if life.exec_ns > d.at_ns or not _runs_another(life, d):
            return
        self._begin_exec(life, d.at_ns)
        self._describe(life, d)
        life.described_ns = d.read_ns
        self._changes.described += 1
        self._touch(life)

    def _is_news(self, stat: procfs.Stat) -> bool:
        """Return whether a process with this start cannot have been recorded before."""
        if self._complete_until is not None:
            return self.clock.epoch_of_ticks(stat.starttime) >= self._complete_until
        return self._is_first_scan

    def _revive(self, pid: int, stat: procfs.Stat) -> Lifetime | None:
        """Take back the end of a life that a scan shows to go on: FORKs of threads were lost."""
        if stat.state in b"ZX" and stat.num_threads <= 1:
            return None
        return self._take_back(pid, stat.starttime)

    def _take_back(self, pid: int, ticks: Ticks) -> Lifetime | None:
        """Reopen the life that began at that time and seemed to end; return None if none did."""
        life = self._ended_lately.get(pid)
        if life is None or life.start_ticks is None or abs(life.start_ticks - ticks) > 1:
            return None
        del self._ended_lately[pid]
        self.live[pid] = life
        life.ended_at_ns = life.ended_after_ns = life.end_source = None
        life.wait_status = life.reaper_pid = life.cost = None
        return life

    def _scan_ended(self, scanned: Scanned) -> None:
        self._unfound = [
            life
            for life in self.live.values()
            if life.started_ns < scanned.began_ns
            and (life.zombie or self._found.get(life.id, -1) < scanned.began_ns)
        ]
        self._found = {}
        self._scanned = scanned
        self._is_first_scan = False

    def _settle(self, at: MonotonicNs) -> None:
        """Close what the scan did not find, once all that was queued before it has been read."""
        scanned = self._scanned
        if scanned is None or at < scanned.ended_ns + SETTLE_NS:
            return
        self._scanned = None
        for life in self._unfound:
            if self.live.get(life.pid) is life:
                del self.live[life.pid]
                self._close_unseen(life, self.epoch(scanned.ended_ns))
        self._unfound = []
        for life, found in self._replaced:
            if self.live.get(life.pid) is life:
                self._exec_unseen(life, found)
        self._replaced = []
        self._complete_until = None
        if self._accounting is None:
            self._ended_lately.clear()

    # --- other events -----------------------------------------------------------

    def _change_ids(self, life: Lifetime, message: Message) -> None:
        real, effective = message.word2, message.word3
        before = life.origin or NOBODY
        if message.what == UID:
            kind, known = IdKind.UID, (before.uid, before.euid)
            origin = before._replace(uid=real, euid=effective)
        else:
            kind, known = IdKind.GID, (before.gid, before.egid)
            origin = before._replace(gid=real, egid=effective)
        if known == (real, effective):
            return  # another thread said it, or only the saved or file system id changed
        if life.exec_count and life.exec_origin is None:
            life.exec_origin = before
        life.origin = origin
        at = self.epoch(message.timestamp_ns)
        self._changes.id_changes.append(IdChange(life.id, at, kind, real, effective))
        self._touch(life)

    def _change_session(self, life: Lifetime, message: Message) -> None:
        life.sid = life.pid
        if life.origin is not None and life.origin.tty is not None:
            if life.exec_count and life.exec_origin is None:
                life.exec_origin = life.origin
            life.origin = life.origin._replace(tty=None)  # a new session has no terminal yet
        self._happened(life, message, EventKind.SID)
        self._touch(life)

    def _change_comm(self, life: Lifetime, message: Message) -> None:
        if message.word0 != life.pid:
            return  # the name of a thread
        comm = decode_text(decode_comm(message))
        image = life.image or NOTHING_KNOWN
        if image.comm == comm:
            return
        life.image = image._replace(comm=comm)
        self._happened(life, message, EventKind.COMM, comm)
        self._touch(life)

    def _change_tracer(self, life: Lifetime, message: Message) -> None:
        tracer = message.word3
        if tracer == life.tracer or (not tracer and message.word0 != life.pid):
            return  # each thread is attached and detached; the process once
        life.tracer = tracer
        if not tracer:
            self._happened(life, message, EventKind.PTRACE_DETACH)
            return
        by = self.live.get(tracer)
        self._happened(
            life,
            message,
            EventKind.PTRACE_ATTACH,
            f"by {tracer}",
            by.id if by is not None else None,
        )

    def _dump_core(self, life: Lifetime, message: Message) -> None:
        self._happened(life, message, EventKind.COREDUMP)

    def _happened(
        self,
        life: Lifetime,
        message: Message,
        kind: EventKind,
        detail: str | None = None,
        other_id: int | None = None,
    ) -> None:
        at = self.epoch(message.timestamp_ns)
        self._changes.events.append(Happened(life.id, at, kind, detail, other_id))


_OTHERS = {
    UID: Tracker._change_ids,  # noqa: SLF001  a table of our own methods
    GID: Tracker._change_ids,  # noqa: SLF001
    SID: Tracker._change_session,  # noqa: SLF001
    COMM: Tracker._change_comm,  # noqa: SLF001
    PTRACE: Tracker._change_tracer,  # noqa: SLF001
    COREDUMP: Tracker._dump_core,  # noqa: SLF001
}


def _is_same(life: Lifetime, stat: procfs.Stat) -> bool:
    """Return whether an open life is that of the process with this stat, within one tick."""
    return life.start_ticks is None or abs(life.start_ticks - stat.starttime) <= 1


def _is_zombie(d: Description, stat: procfs.Stat) -> bool:
    """Return whether a process was found dead: a leader that has left before its threads is not."""
    return Fault.ZOMBIE in d.fault and stat.num_threads <= 1


def _runs_another(life: Lifetime, d: Description) -> bool:
    """Return whether /proc shows another program than the one that a life is known to run."""
    if d.exe is None or life.image is None or life.image.exe is None:
        return False
    return decode_text(d.exe).removesuffix(_DELETED) != life.image.exe.removesuffix(_DELETED)


__all__ = ["Origin", "Tracker"]
