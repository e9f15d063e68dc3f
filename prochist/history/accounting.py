"""Accounting: what exiting tasks cost, added up to what their process cost.

Pure. It knows no lifetime: it is shown every task record, and answers with a
:class:`Bill` when a record is of the last task of its process. Whether it can be believed is
decided here, and only here:

* The kernel adds up the CPU time of all threads that a process ever had, and tells the sum
  with the last one; what was seen may not be less. That finds a record that is still to come.
* A process that was running before recording began, or during an overrun, may have had
  threads of which nothing was seen. CPU times and switches are then the kernel's own sums;
  faults and I/O, which it does not add up, are unknown (None) unless it is proven by the
  time that the threads lived that none is missing.
* The resident set needs no adding up: it belongs to the memory that all threads share.
* The last task's exit code is the wait status, but for one case, which the kernel's source
  allows and 5000 tries did not meet: a thread that is leaving by itself (code 0) at the moment
  when another calls exit_group() can be the last. The process then has the code of the other.

A record of a thread can come *after* that of the last one, as the kernel decides who is
last before it writes either (1 to 3 of 1000 processes that call exit_group() with 8 threads). It
makes an amended bill, which replaces the first. Both come before the EXIT events of their threads.

The user's words: ``pid`` is a process here, ``tid`` a thread.

Source: do_exit() in kernel/exit.c, taskstats_exit() and fill_tgid_exit() in kernel/taskstats.c.
"""

from typing import NamedTuple

from prochist.capture.taskstats import AGROUP, TaskRecord
from prochist.clock import NS_PER_SECOND, MonotonicNs

LAG_NS = 60 * NS_PER_SECOND
"""How long after the exit of a task its record may be received, at worst. Sums that are older than
the process of a record by more are of an earlier process with that pid."""
LATE_NS = 10 * NS_PER_SECOND
"""How long after the last task's record that of another thread is still taken for a late one."""
MOST_LATE = 1024
"""Processes that are watched for late records at one time; the newest are."""
SAME_END_US = 10_000
"""How long before the last task one exits that ended the process, when the last left by itself."""
SHORTEST_THREAD_US = 10
"""An empty thread lives 55 us, one that is killed before it ran 14 us. What lives shorter than this
has neither faulted nor read."""


class Cost(NamedTuple):
    """What a process cost over its whole life, all threads. None is unknown."""

    cpu_user_us: int | None
    cpu_system_us: int | None
    max_rss_kib: int | None
    """Of the program it ran last: an execve begins with new memory."""
    read_bytes: int | None
    """Bytes asked of the storage, as /proc/PID/io names them; each thread's cut to 1 KiB."""
    write_bytes: int | None
    minor_faults: int | None
    major_faults: int | None
    voluntary_switches: int | None
    involuntary_switches: int | None


class Sums:
    """Running totals over the tasks of one process that have exited; only accounting adds."""

    __slots__ = (
        "began_ns", "closed_ns", "code", "code_age_us", "cpu_ns", "elapsed_us", "involuntary",
        "majors", "max_rss_kib", "minors", "read_bytes", "system_us", "user_us", "voluntary",
        "write_bytes",
    )  # fmt: skip

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.closed_ns = 0
        self.code = self.code_age_us = 0  # newest exit code that is not 0
        self.cpu_ns = self.elapsed_us = self.user_us = self.system_us = 0
        self.minors = self.majors = self.max_rss_kib = 0
        self.read_bytes = self.write_bytes = self.voluntary = self.involuntary = 0

    def add(self, record: TaskRecord) -> None:
        """Add a task."""
        if record.exit_code:
            self.code = record.exit_code
            self.code_age_us = record.group_age_us
        self.cpu_ns += record.cpu_ns
        self.elapsed_us += record.elapsed_us
        self.user_us += record.user_us
        self.system_us += record.system_us
        self.minors += record.minor_faults
        self.majors += record.major_faults
        self.max_rss_kib = max(self.max_rss_kib, record.max_rss_kib)
        self.read_bytes += record.read_bytes
        self.write_bytes += record.write_bytes
        self.voluntary += record.voluntary_switches
        self.involuntary += record.involuntary_switches


class Bill(NamedTuple):
    """A process has ended; :meth:`Accounting.cost` says what it cost."""

    pid: int
    last: TaskRecord
    """Record of the last task; its ``ppid`` is the reaper."""
    sums: Sums | None
    """None of a process that never had threads: ``last`` is all there is. A late record is added
    here too, so the cost is best asked for when the EXIT events of all threads are in."""
    is_amended: bool
    """Replaces the bill given before for this pid."""

    @property
    def wait_status(self) -> int:
        """Return what wait(2) says of the process.

        Source: do_group_exit() and synchronize_group_exit() in kernel/exit.c.
        """
        last, sums = self.last, self.sums
        if last.exit_code or sums is None:
            return last.exit_code
        return sums.code if last.group_age_us - sums.code_age_us < SAME_END_US else 0


class Accounting:
    """Adds up task records; show it every one, in the order of the socket they came from.

    ``began_ns`` is when every record was received from on. What is held is bounded
    by the living processes of which a thread has exited.
    """

    def __init__(self, began_ns: MonotonicNs) -> None:
        self._blind_until_ns: int = began_ns
        self._open: dict[int, Sums] = {}
        self._closed: dict[int, tuple[Sums, TaskRecord]] = {}

    def __len__(self) -> int:
        """Return how many processes are held that have not ended."""
        return len(self._open)

    def feed(self, record: TaskRecord, received_ns: MonotonicNs) -> Bill | None:
        """Add one record; return a bill when its process has ended, or when it amends one.

        ``received_ns`` may be late, and the same for records received together.
        """
        pid = record.tgid
        if not record.flag & AGROUP:
            if self._closed and (closed := self._closed.get(pid)) is not None:
                sums, last = closed
                if _is_late(sums, last, record, received_ns):
                    sums.add(record)
                    return Bill(pid, last, sums, is_amended=True)
            self._sums(record, received_ns).add(record)
            return None
        if not record.group_tgid and pid not in self._open:
            return Bill(pid, record, None, is_amended=False)
        sums = self._sums(record, received_ns)
        del self._open[pid]
        sums.add(record)
        sums.closed_ns = received_ns
        self._closed.pop(pid, None)
        self._closed[pid] = sums, record
        if len(self._closed) > MOST_LATE:
            del self._closed[next(iter(self._closed))]
        return Bill(pid, record, sums, is_amended=False)

    def lost(self, until_ns: MonotonicNs) -> None:
        """Take note that records were lost before ``until_ns``: an overrun."""
        self._blind_until_ns = max(self._blind_until_ns, until_ns)

    def forget(self, pid: int) -> None:
        """Drop what is held of a process that is known to have ended without a bill."""
        self._open.pop(pid, None)

    def cost(self, bill: Bill, forked_ns: MonotonicNs | None) -> Cost:
        """Return what a process cost.

        ``forked_ns`` is when it was forked, by its FORK event; None when that
        was not seen. It tells whether records of its threads may have been missed.
        """
        last, sums = bill.last, bill.sums
        is_doubtful = forked_ns is None or forked_ns < self._blind_until_ns
        if sums is None:
            # Without threads there is nothing to add up, however late recording began.
            return _cost_of_task(last)
        if is_doubtful:
            has_rest = sums.cpu_ns >= last.group_cpu_ns and _lived_as_told(sums, last)
            # Without CONFIG_TASK_DELAY_ACCT both are 0, which proves nothing.
            has_cpu = has_rest or sums.cpu_ns == last.group_cpu_ns > 0
        else:
            has_cpu = has_rest = sums.cpu_ns >= last.group_cpu_ns
        minors = majors = read = write = None
        if has_rest:
            minors, majors = sums.minors, sums.majors
            read, write = sums.read_bytes, sums.write_bytes
        user = system = voluntary = involuntary = None
        if has_cpu:
            user, system = split_cpu(sums.cpu_ns, sums.user_us, sums.system_us)
            voluntary, involuntary = sums.voluntary, sums.involuntary
        elif last.group_elapsed_us:
            user, system = split_cpu(last.group_cpu_ns, last.group_user_us, last.group_system_us)
            voluntary = last.group_voluntary_switches
            involuntary = last.group_involuntary_switches
        return Cost(
            user, system, sums.max_rss_kib, read, write, minors, majors, voluntary, involuntary
        )

    def _sums(self, record: TaskRecord, received_ns: int) -> Sums:
        began_ns = received_ns - record.group_age_us * 1000
        sums = self._open.get(record.tgid)
        # Left over from a process whose last record was lost, and whose pid is now another's.
        if sums is None or began_ns - sums.began_ns > LAG_NS:
            sums = self._open[record.tgid] = Sums(began_ns)
        sums.began_ns = min(sums.began_ns, began_ns)
        return sums


def split_cpu(cpu_ns: int, user_us: int, system_us: int) -> tuple[int, int]:
    """Split exact CPU time into user and system time (us), in the ratio that the ticks show.

    The kernel's own rule, so that the result is what wait4(2) says: without a tick in the
    kernel all is user time. ``cpu_ns`` 0 is not measured; the ticks then stand as they are.

    Source: cputime_adjust() in kernel/sched/cputime.c.
    """
    if not cpu_ns:
        return user_us, system_us
    total_us = cpu_ns // 1000
    if not system_us:
        return total_us, 0
    if not user_us:
        return 0, total_us
    system_part_us = total_us * system_us // (user_us + system_us)
    return total_us - system_part_us, system_part_us


def _cost_of_task(record: TaskRecord) -> Cost:
    user_us, system_us = split_cpu(record.cpu_ns, record.user_us, record.system_us)
    return Cost(
        user_us,
        system_us,
        record.max_rss_kib,
        record.read_bytes,
        record.write_bytes,
        record.minor_faults,
        record.major_faults,
        record.voluntary_switches,
        record.involuntary_switches,
    )


def _lived_as_told(sums: Sums, last: TaskRecord) -> bool:
    """Tell whether the threads that were seen lived as long together as the kernel says of all.

    CPU time is no proof: a thread that ends before its first tick and switch has none.
    The kernel reads the clock for its sum and again, a little later, for the record of the
    task. So what was seen is longer, by about 1 us a thread; a thread that is missing can only
    hide where that adds up to more than it lived.
    """
    excess_us = sums.elapsed_us - last.group_elapsed_us
    return bool(last.group_elapsed_us) and 0 <= excess_us < SHORTEST_THREAD_US


def _is_late(sums: Sums, last: TaskRecord, record: TaskRecord, received_ns: int) -> bool:
    """Tell whether a record is of a process that has ended, and not of the next with that pid."""
    # Both were written within moments; a pid is only given again when all its threads are gone.
    return (
        received_ns - sums.closed_ns <= LATE_NS
        and abs(record.group_age_us - last.group_age_us) <= LATE_NS // 1000
        and received_ns - record.group_age_us * 1000 <= sums.closed_ns
        and record.pid != last.pid
    )
