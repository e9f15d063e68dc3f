"""Accounting: tasks add up to processes, and what cannot be known stays unknown."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture import taskstats
from prochist.capture.taskstats import AGROUP, TaskRecord
from prochist.clock import NS_PER_SECOND, MonotonicNs
from prochist.history.accounting import (
    LAG_NS,
    LATE_NS,
    MOST_LATE,
    Accounting,
    Bill,
    Cost,
    split_cpu,
)

BEGAN = MonotonicNs(1000 * NS_PER_SECOND)
AFTER = MonotonicNs(BEGAN + 1)
NOW = MonotonicNs(BEGAN + NS_PER_SECOND)
TICK_US = 10_000


def task(pid: int, tgid: int, *, last: bool = False, **fields: int) -> TaskRecord:
    """Return a task that cost one of everything, and lived 0.1 ms of a process of 0.2 ms."""
    record = TaskRecord._make(
        {
            "exit_code": 0x300 if last else 0,
            "flag": AGROUP if last else 0,
            "cpu_ns": 1_000_000,
            "comm": b"name".ljust(16, b"\0"),
            "ppid": 1,
            "elapsed_us": 100,
            "user_us": 0,
            "system_us": 0,
            "max_rss_kib": 1000,
            "pid": pid,
            "tgid": tgid,
            "group_age_us": 200,
        }.get(field, 0 if field.startswith("group") else 1)
        for field in TaskRecord._fields
    )
    return record._replace(**fields)  # type: ignore[arg-type]


def last_of(tasks: list[TaskRecord], pid: int, **fields: int) -> TaskRecord:
    """Return the last task of a process, with the kernel's sums over it and the others."""
    own = task(pid, tasks[0].tgid if tasks else pid, last=True)
    every = [*tasks, own]
    return own._replace(
        group_tgid=own.tgid,
        group_cpu_ns=sum(t.cpu_ns for t in every),
        group_elapsed_us=sum(t.elapsed_us for t in every),
        group_user_us=sum(t.user_us for t in every),
        group_system_us=sum(t.system_us for t in every),
        group_voluntary_switches=sum(t.voluntary_switches for t in every),
        group_involuntary_switches=sum(t.involuntary_switches for t in every),
    )._replace(**fields)  # type: ignore[arg-type]


def feed_all(accounting: Accounting, *records: TaskRecord) -> Bill:
    bill = None
    for record in records:
        bill = accounting.feed(record, NOW) or bill
    assert bill is not None
    return bill


def test_a_process_without_threads_costs_what_its_only_task_did() -> None:
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, task(7, 7, last=True, user_us=3, system_us=1))

    assert (bill.pid, bill.wait_status, bill.is_amended) == (7, 0x300, False)
    assert accounting.cost(bill, AFTER) == Cost(750, 250, 1000, 1, 1, 1, 1, 1, 1)
    assert len(accounting) == 0


def test_a_process_without_threads_that_ran_before_recording_is_known_in_full() -> None:
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, task(7, 7, last=True))

    assert None not in accounting.cost(bill, None)


def test_all_threads_add_up_and_the_resident_set_is_the_highest() -> None:
    threads = [task(tid, 7, max_rss_kib=tid) for tid in range(8, 2008)]
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, *threads, last_of(threads, 7))

    assert accounting.cost(bill, AFTER) == Cost(2_001_000, 0, 2007, *[2001] * 6)
    assert len(accounting) == 0


def test_a_leader_that_leaves_first_does_not_end_the_process() -> None:
    leader = task(7, 7)
    accounting = Accounting(BEGAN)

    assert accounting.feed(leader, NOW) is None
    bill = accounting.feed(last_of([leader], 8), NOW)

    assert bill is not None
    assert (bill.pid, bill.last.pid) == (7, 8)
    assert accounting.cost(bill, AFTER).minor_faults == 2


def test_an_exec_from_a_thread_goes_on_with_the_sums_of_the_process() -> None:
    # The old leader and the other threads end, then the thread takes over the leader's id.
    before = [task(9, 7), task(7, 7)]
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, *before, last_of(before, 7))

    assert accounting.cost(bill, AFTER).minor_faults == 3


def test_threads_that_ended_before_recording_leave_their_part_unknown() -> None:
    seen = task(9, 7)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, seen, last_of([task(8, 7), seen], 7))

    cost = accounting.cost(bill, None)

    assert cost == Cost(3000, 0, 1000, None, None, None, None, 3, 3)


def test_a_kernel_that_adds_up_cpu_time_alone_leaves_more_unknown() -> None:
    old = dict.fromkeys(
        [field for field in TaskRecord._fields if field.startswith("group_")][3:], 0
    )
    seen = task(9, 7)
    last = last_of([task(8, 7), seen], 7, **old)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, seen, last)

    assert accounting.cost(bill, None) == Cost(None, None, 1000, *[None] * 6)


def test_a_process_from_before_is_known_when_its_threads_lived_as_the_kernel_says() -> None:
    thread = task(8, 7, elapsed_us=105)  # the second look at the clock was 5 us later
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, thread, last_of([task(8, 7)], 7))

    assert None not in accounting.cost(bill, None)


def test_a_missing_thread_that_took_no_cpu_time_is_noticed() -> None:
    idle = task(8, 7, cpu_ns=0, voluntary_switches=0, involuntary_switches=0)
    seen = task(9, 7)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, seen, last_of([idle, seen], 7))

    cost = accounting.cost(bill, None)

    assert (cost.cpu_user_us, cost.voluntary_switches) == (2000, 2)
    assert (cost.minor_faults, cost.write_bytes) == (None, None)


def test_a_kernel_that_measures_no_cpu_time_proves_nothing_by_it() -> None:
    missing = task(8, 7, cpu_ns=0, user_us=4000)
    seen = missing._replace(pid=9)
    last = last_of([missing, seen], 7, group_cpu_ns=0, cpu_ns=0)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, seen, last)

    assert accounting.cost(bill, None) == Cost(8000, 0, 1000, None, None, None, None, 3, 3)
    old = feed_all(accounting, seen, last._replace(group_elapsed_us=0))
    assert accounting.cost(old, None) == Cost(None, None, 1000, *[None] * 6)


def test_after_an_overrun_the_sums_of_what_was_alive_are_void() -> None:
    accounting = Accounting(BEGAN)
    accounting.feed(task(9, 7), NOW)
    accounting.lost(NOW)
    bill = accounting.feed(last_of([task(8, 7), task(9, 7)], 7), NOW)
    assert bill is not None

    assert accounting.cost(bill, AFTER).write_bytes is None


def test_what_is_forked_after_an_overrun_is_known_in_full() -> None:
    accounting = Accounting(BEGAN)
    accounting.lost(NOW)
    threads = [task(tid, 7, elapsed_us=200) for tid in range(8, 100)]
    bill = feed_all(accounting, *threads, last_of([task(tid, 7) for tid in range(8, 100)], 7))

    assert None not in accounting.cost(bill, MonotonicNs(NOW + 1))
    assert accounting.cost(bill, AFTER).write_bytes is None


def test_a_tick_between_the_kernels_two_looks_does_not_make_the_sum_unknown() -> None:
    thread = task(8, 7)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, thread._replace(cpu_ns=5_000_000), last_of([thread], 7))

    assert accounting.cost(bill, AFTER).cpu_user_us == 6000


def test_a_record_after_that_of_the_last_task_amends_the_bill() -> None:
    late = task(8, 7)
    accounting = Accounting(BEGAN)
    first = accounting.feed(last_of([late], 7), NOW)
    assert first is not None
    assert accounting.cost(first, AFTER).minor_faults is None

    amended = accounting.feed(late, NOW)

    assert amended is not None
    assert (amended.pid, amended.is_amended) == (7, True)
    assert amended.last == first.last
    assert accounting.cost(amended, AFTER) == Cost(2000, 0, 1000, *[2] * 6)


def test_a_late_record_that_the_kernel_had_not_added_yet_counts_too() -> None:
    accounting = Accounting(BEGAN)
    accounting.feed(last_of([], 7), NOW)

    amended = accounting.feed(task(8, 7), NOW)

    assert amended is not None
    assert accounting.cost(amended, AFTER).minor_faults == 2


def test_a_thread_of_the_next_process_with_that_pid_is_not_late() -> None:
    accounting = Accounting(BEGAN)
    accounting.feed(last_of([], 7), NOW)
    later = MonotonicNs(NOW + LATE_NS + 1)

    assert accounting.feed(task(8, 7), later) is None
    assert len(accounting) == 1


def test_sums_of_a_process_whose_last_record_was_lost_do_not_reach_the_next() -> None:
    accounting = Accounting(BEGAN)
    accounting.feed(task(8, 7), NOW)
    later = MonotonicNs(NOW + LAG_NS + NS_PER_SECOND)

    bill = accounting.feed(last_of([], 7), later)

    assert bill is not None
    assert accounting.cost(bill, later).minor_faults == 1


def test_what_is_known_to_have_ended_is_forgotten() -> None:
    accounting = Accounting(BEGAN)
    accounting.feed(task(8, 7), NOW)

    accounting.forget(7)

    assert len(accounting) == 0


def test_the_processes_watched_for_late_records_are_bounded() -> None:
    accounting = Accounting(BEGAN)
    for pid in range(10, 10 + MOST_LATE + 5):
        accounting.feed(last_of([], pid), NOW)

    assert accounting.feed(task(9, 10), NOW) is None
    assert accounting.feed(task(9, 10 + MOST_LATE), NOW) is not None


def test_a_thread_that_left_by_itself_and_last_does_not_hide_the_status_of_the_process() -> None:
    # main() called exit_group(7) while the thread was already on its way out.
    main, thread = task(7, 7, exit_code=0x700), task(8, 7)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, main, last_of([main], 8, exit_code=0))
    assert bill.wait_status == 0x700

    accounting = Accounting(BEGAN)
    first = feed_all(accounting, thread, last_of([main, thread], 9, exit_code=0))
    amended = feed_all(accounting, main)
    assert (first.pid, amended.is_amended, amended.wait_status) == (7, True, 0x700)


def test_a_thread_that_ended_with_a_code_long_before_is_not_the_process() -> None:
    thread = task(8, 7, exit_code=0x700)
    accounting = Accounting(BEGAN)
    bill = feed_all(accounting, thread, last_of([thread], 7, exit_code=0, group_age_us=20_000))

    assert bill.wait_status == 0


def test_user_and_system_time_are_split_as_the_ticks_say() -> None:
    assert split_cpu(0, 40_000, 20_000) == (40_000, 20_000)
    assert split_cpu(123_456, 0, 0) == (123, 0)
    assert split_cpu(30_000_000, 0, 4000) == (0, 30_000)
    assert split_cpu(30_000_000, 40_000, 20_000) == (20_000, 10_000)


@given(st.integers(1, 2**60), st.integers(0, 2**50), st.integers(0, 2**50))
def test_the_parts_of_the_cpu_time_are_the_whole(cpu_ns: int, user: int, system: int) -> None:
    parts = split_cpu(cpu_ns, user, system)

    assert sum(parts) == cpu_ns // 1000
    assert min(parts) >= 0


@given(st.permutations(range(8)), st.integers(0, 7))
def test_the_order_of_the_threads_does_not_matter(order: list[int], late: int) -> None:
    threads = [task(10 + n, 7, cpu_ns=1 << n, minor_faults=1 << n, max_rss_kib=n) for n in order]
    accounting = Accounting(BEGAN)
    last = last_of(threads, 7, max_rss_kib=7)
    bill = feed_all(accounting, *threads[:late], last, *threads[late:])

    cost = accounting.cost(bill, AFTER)

    assert bill.is_amended
    assert (cost.minor_faults, cost.max_rss_kib) == (256, 7)
    assert cost.cpu_user_us == (255 + 1_000_000) // 1000


# --- against what the kernel tells the parent -------------------------------------

BURNER = Path(__file__).parent.parent / "kernel" / "burner.py"
RUNS = 25


@pytest.fixture
def subscription() -> Iterator[taskstats.Subscription]:
    opened = taskstats.open_taskstats(32 << 20)
    yield opened
    taskstats.close_taskstats(opened)


def receive_bills(opened: taskstats.Subscription, accounting: Accounting) -> dict[int, Bill]:
    """Return the bills of all that is there to receive, by pid."""
    bills: dict[int, Bill] = {}
    while True:
        try:
            datagram = opened.socket.recv(taskstats.DATAGRAM_SIZE)
        except BlockingIOError:
            return bills
        reduced = taskstats.reduce_record(datagram)
        assert reduced is not None
        record = taskstats.decode_task_record(reduced)
        bill = accounting.feed(record, MonotonicNs(time.monotonic_ns()))
        if bill is not None:
            bills[bill.pid] = bill


@pytest.mark.kernel
@pytest.mark.parametrize("threads", [1, 8])
def test_costs_are_what_wait4_and_proc_io_say(
    subscription: taskstats.Subscription, threads: int, tmp_path: Path
) -> None:
    accounting = Accounting(MonotonicNs(time.monotonic_ns()))
    began = MonotonicNs(time.monotonic_ns())
    arguments = (RUNS, threads, 40, 24, 256, tmp_path)
    said = subprocess.run(
        [sys.executable, "-IS", BURNER, *map(str, arguments)], check=True, stdout=subprocess.PIPE
    ).stdout
    bills = receive_bills(subscription, accounting)

    rows = [json.loads(line) for line in said.splitlines()]
    assert len(rows) == RUNS
    for row in rows:
        bill = bills[row["pid"]]
        cost = accounting.cost(bill, began)
        assert cost.cpu_user_us is not None
        assert cost.cpu_system_us is not None
        assert cost.max_rss_kib is not None
        assert cost.voluntary_switches is not None
        assert cost.involuntary_switches is not None
        assert bill.wait_status == row["status"]
        cpu_us = cost.cpu_user_us + cost.cpu_system_us
        # Short by what the exit itself costs: the memory is given back after the record.
        assert abs(cpu_us - row["cpu_us"]) <= max(TICK_US, row["cpu_us"] * 0.02)
        assert abs(cost.cpu_system_us - row["system_us"]) <= max(TICK_US, row["cpu_us"] * 0.02)
        assert abs(cost.max_rss_kib - row["max_rss_kib"]) <= row["max_rss_kib"] * 0.05
        assert cost.write_bytes == row["write_bytes"] // 1024 * 1024
        assert cost.read_bytes == row["read_bytes"] // 1024 * 1024
        assert abs((cost.minor_faults or 0) - row["minor_faults"]) <= threads
        assert cost.major_faults == row["major_faults"]
        assert 0 <= row["voluntary_switches"] - cost.voluntary_switches <= 1 + threads
        assert 0 <= row["involuntary_switches"] - cost.involuntary_switches <= 8 + threads


@pytest.mark.kernel
def test_a_live_process_with_threads_that_ended_before_recording_has_the_kernels_sums() -> None:
    program = (
        "import hashlib, threading\n"
        "def burn():\n"
        "    for _ in range(200): hashlib.sha256(bytes(100_000)).digest()\n"
        "thread = threading.Thread(target=burn)\n"
        "thread.start()\nthread.join()\n"
        "print('ready', flush=True)\ninput()\n"
        "import os, resource\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(round((usage.ru_utime + usage.ru_stime) * 1e6), flush=True)\nos._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        tasks = Path(f"/proc/{child.pid}/task")
        while len(list(tasks.iterdir())) > 1:  # join() returns before the kernel's thread is gone
            time.sleep(0.001)
        opened = taskstats.open_taskstats(1 << 20)
        try:
            accounting = Accounting(MonotonicNs(time.monotonic_ns()))
            child.stdin.write(b"\n")
            child.stdin.flush()
            cpu_us = int(child.stdout.readline())
            child.wait()
            bill = receive_bills(opened, accounting)[child.pid]
        finally:
            taskstats.close_taskstats(opened)

    cost = accounting.cost(bill, None)
    if not bill.last.group_elapsed_us:
        assert cost.cpu_user_us is None  # this kernel keeps too little
        return
    assert cost.cpu_user_us is not None
    assert cost.cpu_system_us is not None
    assert abs(cost.cpu_user_us + cost.cpu_system_us - cpu_us) <= TICK_US
    assert bill.last.cpu_ns // 1000 < cpu_us - 2000  # the thread's part is in it
    assert cost.max_rss_kib is not None
    assert (cost.minor_faults, cost.write_bytes) == (None, None)


@pytest.mark.kernel
def test_a_live_process_of_two_thousand_threads_is_added_up_in_full(
    subscription: taskstats.Subscription,
) -> None:
    program = (
        "import os, threading\n"
        "thread = None\n"
        "for _ in range(2000):\n"
        "    thread = threading.Thread(target=int)\n    thread.start()\n"
        "for thread in threading.enumerate()[1:]: thread.join()\n"
        "os._exit(4)\n"
    )
    began = MonotonicNs(time.monotonic_ns())
    accounting = Accounting(began)
    with subprocess.Popen([sys.executable, "-I", "-c", program]) as child:
        child.wait()
    bill = receive_bills(subscription, accounting)[child.pid]

    cost = accounting.cost(bill, began)

    assert bill.wait_status == 4 << 8
    assert None not in cost
    assert (cost.minor_faults or 0) >= 2000


@pytest.mark.kernel
def test_the_wait_status_is_right_when_threads_leave_while_the_process_ends(
    subscription: taskstats.Subscription,
) -> None:
    program = (
        "import os, threading\n"
        "for number in range(400):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        for _ in range(4): threading.Thread(target=int).start()\n"
        "        os._exit(number % 256)\n"
        "    print(*os.waitpid(pid, 0))\n"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", program], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    bills = receive_bills(subscription, Accounting(MonotonicNs(time.monotonic_ns())))

    told = {int(pid): int(status) for pid, status in map(str.split, said.splitlines())}
    assert len(told) == 400
    assert {pid: bills[pid].wait_status for pid in told} == told
