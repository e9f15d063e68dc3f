"""How a process ended: what is recorded is what waitpid(2) told its parent."""

import os
import signal
from pathlib import Path

import pytest

from tests.kernel.live import Acting, History, Row, wait_status

pytestmark = pytest.mark.kernel

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def ended(history: History, pid: int, since_ns: int, status: int) -> Row:
    """Return the life of a process that is known to have ended so."""
    life = history.ended(pid, since_ns)
    assert wait_status(life) == status
    assert life["end_source"] == "exit"
    assert life["ended_at_ns"] >= life["started_at_ns"]
    return life


def test_each_exit_status_is_the_one_that_waitpid_told(history: History) -> None:
    with Acting("exit_codes") as actor:
        ends = actor.said()
    assert len(ends) == 256
    for code, (pid, status) in enumerate(ends):
        life = ended(history, pid, actor.since_ns, status)
        assert life["exit_code"] == code
        assert life["term_signal"] is None


@pytest.mark.parametrize("core_bytes", [0, 1 << 30], ids=["no core", "core"])
def test_each_fatal_signal_is_told_apart_and_so_is_a_core(
    history: History, tmp_path: Path, core_bytes: int
) -> None:
    with Acting("fatal_signals", str(core_bytes), cwd=tmp_path) as actor:
        ends = actor.said()
    assert {number for number, *_ in ends} >= {signal.SIGKILL, signal.SIGSEGV, signal.SIGSYS}
    pattern = CORE_PATTERN.read_text(encoding="utf-8")
    for number, pid, status, written in ends:
        life = ended(history, pid, actor.since_ns, status)
        assert life["term_signal"] == number
        assert life["exit_code"] is None
        assert life["term_signal_name"] == signal.Signals(number).name
        dumped = os.WCOREDUMP(status)
        assert life["core_dumped"] == dumped
        if not pattern.startswith(("|", "/", "@")):
            assert written == dumped
        dumps = number in {3, 4, 5, 6, 7, 8, 11, 24, 25, 31}
        assert history.events(life) == ([("coredump", None)] if dumps else [])


@pytest.mark.parametrize(
    "act",
    [
        "exit_group_by_a_thread",
        "leader_first_then_exit_group",
        "leader_first_worker_last",
        "leader_last",
        "exec_by_a_thread",
        "exec_by_a_thread_after_the_leader",
        "killed_while_traced",
        "reaped_by_nobody",
    ],
)
def test_the_end_is_the_one_that_waitpid_told(history: History, act: str) -> None:
    with Acting(act) as actor:
        pid, status = actor.said()
    life = ended(history, pid, actor.since_ns, status)
    assert life["parent_id"] == history.ended(actor.pid, actor.since_ns)["id"]


def test_a_process_lives_on_after_its_leader(history: History) -> None:
    with Acting("leader_first_then_killed") as actor:
        pid, _ = actor.said()
        # Events come in the order in which they were made on each CPU; the actor said more later.
        with Acting("exit_group_by_a_thread") as later:
            other, _ = later.said()
        history.ended(other, later.since_ns)
        assert history.life(pid, actor.since_ns)["state"] == "running"
        actor.go_on()
        _, status = actor.said()
    assert ended(history, pid, actor.since_ns, status)["term_signal"] == signal.SIGKILL


def test_an_orphan_keeps_its_parent_and_the_reaper_stands_apart(history: History) -> None:
    with Acting("orphan") as actor:
        people = actor.said()
        history.ended(people["pid"], actor.since_ns)
        actor.go_on()
        pid, status = actor.said()
    life = ended(history, pid, actor.since_ns, status)
    parent = history.ended(people["parent"], actor.since_ns)
    assert life["parent_id"] == parent["id"]
    assert life["ppid"] == people["parent"]
    assert life["reaper_pid"] == people["reaper"]
    assert parent["reaper_pid"] in {people["reaper"], None}
