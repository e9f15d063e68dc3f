"""What is one life and what are two: threads, execve in all its forms, reuse of a pid."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel.live import Acting, History, Recording, run_prochist, wait_status

pytestmark = pytest.mark.kernel


def test_threads_are_never_processes(history: History) -> None:
    with Acting("threads", "50") as actor:
        tids = actor.said()
        assert len(set(tids)) == 50
        actor.go_on()
    life = history.ended(actor.pid, actor.since_ns)
    assert life["thread_peak"] == 51
    assert [tid for tid in tids if history.lives(tid, actor.since_ns)] == []


@pytest.mark.parametrize("act", ["exec_by_a_thread", "exec_by_a_thread_after_the_leader"])
def test_execve_by_a_thread_goes_on_with_the_same_life(history: History, act: str) -> None:
    with Acting(act) as actor:
        pid, _ = actor.said()
    life = history.ended(pid, actor.since_ns)
    assert life["exec_count"] == 1
    assert life["exit_code"] == 6


def test_several_execs_are_one_life(history: History) -> None:
    with Acting("several_execs") as actor:
        pid, status = actor.said()
    life = history.ended(pid, actor.since_ns)
    assert status == 0
    assert life["exec_count"] == 3
    execs = history.execs(life)
    assert len(execs) == 3
    assert sorted(execs, key=lambda row: row["at_ns"]) == execs
    assert life["started_at_ns"] <= execs[0]["at_ns"]
    assert execs[2]["at_ns"] <= life["ended_at_ns"]


def test_a_failed_exec_is_none(history: History) -> None:
    with Acting("failed_exec") as actor:
        actor.said()
        me = history.life(actor.pid, actor.since_ns)
        until = time.monotonic() + 10
        while True:
            children = history.ask("SELECT * FROM processes WHERE parent_id = ?", me["id"])
            if (children and children[0]["ended_at_ns"]) or time.monotonic() > until:
                break
            time.sleep(0.02)
    (child,) = children
    assert child["exec_count"] == 0
    assert child["exec_source"] == "inherited"
    assert child["exit_code"] == 127


def test_a_fork_without_exec_inherits_what_its_parent_runs(history: History) -> None:
    with Acting("fork_without_exec") as actor:
        parent_pid, pid = actor.said()
        parent = history.life(parent_pid, actor.since_ns)
        child = history.life(pid, actor.since_ns)
        actor.go_on()
    assert child["exec_source"] == "inherited"
    assert child["exec_count"] == 0
    assert history.execs(child) == []
    assert child["parent_id"] == parent["id"]
    for column in ("comm", "exe", "command_line", "argv", "cwd", "uid", "cgroup"):
        assert child[column] == parent[column], column
    assert "fork_without_exec" in child["command_line"]


def test_a_reused_pid_is_another_life(history: History) -> None:
    with Acting("reuse_a_pid") as actor:
        said = actor.said()
    if said is None:
        pytest.skip("each pid asked for was taken by somebody else meanwhile")
    pid, *statuses = said
    me = history.ended(actor.pid, actor.since_ns)
    lives = [life for life in history.lives(pid, actor.since_ns) if life["parent_id"] == me["id"]]
    assert [wait_status(life) for life in lives] == statuses == [1 << 8, 2 << 8]
    assert lives[0]["ended_at_ns"] <= lives[1]["started_at_ns"]
    assert lives[0]["id"] < lives[1]["id"]


@pytest.mark.parametrize("way", ["vfork", "posix_spawn"])
def test_a_program_is_a_life_however_it_is_started(history: History, way: str) -> None:
    since_ns = time.time_ns()
    if way == "posix_spawn":
        pid = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "exit 5"], {})
        _, status = os.waitpid(pid, 0)
    else:
        child = subprocess.Popen(["/bin/sh", "-c", "exit 5"])
        pid, status = child.pid, child.wait() << 8
    life = history.ended(pid, since_ns)
    assert wait_status(life) == status == 5 << 8
    assert life["exec_count"] == 1
    assert life["ppid"] == os.getpid()


def test_kernel_threads_are_told_apart_and_left_out(recording: Recording, history: History) -> None:
    (kthreadd,) = history.ask("SELECT * FROM processes WHERE pid = 2")
    assert kthreadd["is_kernel_thread"] == 1
    (me,) = history.ask("SELECT * FROM running WHERE pid = ?", os.getpid())
    assert me["is_kernel_thread"] == 0
    query: list[str | Path] = [
        "query",
        "--db",
        recording.database,
        "--comm",
        "kthreadd",
        "-o",
        "jsonl",
    ]
    assert run_prochist(*query).returncode == 1
    shown = run_prochist(*query, "--kernel-threads")
    assert shown.returncode == 0
    assert '"pid":2,' in shown.stdout.replace(" ", "")


def test_a_process_that_was_running_before_has_its_real_start_time(history: History) -> None:
    (life,) = history.ask("SELECT * FROM running WHERE pid = ?", os.getpid())
    stat = Path("/proc/self/stat").read_text(encoding="utf-8")
    ticks = int(stat.rpartition(") ")[2].split()[19])
    booted_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    started_ns = booted_ns + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert abs(life["started_at_ns"] - started_ns) < 30_000_000
    assert life["start_source"] == "scan"
    assert life["ppid"] == os.getppid()
    assert Path(life["exe"]) == Path(sys.executable).resolve()
