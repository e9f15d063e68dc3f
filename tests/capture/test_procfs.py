"""/proc on a temporary folder that plays it, on real processes, and its texts by Hypothesis."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.observation import Description, Fault, Reason
from prochist.capture.procfs import (
    ARGV_BOUND,
    describe_exec,
    describe_running,
    list_pids,
    parse_audit_id,
    parse_stat,
    parse_status,
    parse_tty,
    read_stat,
)
from prochist.clock import MonotonicNs

STAT = (
    b"%d (%s) %s 7 8 9 34817 -1 4194304 1 2 3 4 11 12 13 14 20 0 %d 0 555 0" + b" 0" * 28 + b" %d\n"
)
STATUS = (
    b"Name:\tcat\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\n"
    b"Uid:\t1000\t0\t0\t0\nGid:\t100\t5\t5\t5\nGroups:\t100 \nNStgid:\t7\t1\nNSpid:\t7\t1\n"
)


def stat_text(
    *, pid: int = 7, comm: bytes = b"cat", state: bytes = b"S", threads: int = 1, status: int = 0
) -> bytes:
    return STAT % (pid, comm, state, threads, status)


def make_process(proc: Path, pid: int = 7, **files: bytes) -> Path:
    folder = proc / str(pid)
    folder.mkdir()
    content = {
        "cmdline": b"cat\0-n\0",
        "stat": stat_text(pid=pid),
        "status": STATUS,
        "cgroup": b"0::/user.slice\n",
        "loginuid": b"1000",
        "sessionid": b"3",
        "io": b"rchar: 1\n",
    } | files
    for name, text in content.items():
        (folder / name).write_bytes(text)
    (folder / "exe").symlink_to("/usr/bin/cat")
    (folder / "cwd").symlink_to("/")
    return folder


AT = MonotonicNs(1)


# --- reading, where a folder plays /proc ----------------------------------------------


def test_an_exec_is_described_by_everything_that_proc_says(tmp_path: Path) -> None:
    make_process(tmp_path)
    found = describe_exec(7, AT, proc=str(tmp_path))
    assert found.reason is Reason.EXEC
    assert (found.pid, found.at_ns, found.fault) == (7, 1, Fault.NONE)
    assert found.read_ns > 1
    assert (found.argv, found.exe, found.cwd) == (b"cat\0-n\0", b"/usr/bin/cat", b"/")
    assert (found.stat, found.status) == (stat_text(), STATUS)
    assert (found.cgroup, found.login_uid, found.session) == (b"0::/user.slice\n", b"1000", b"3")
    assert found.io is None
    assert found.tids is None


def test_a_process_that_is_gone_is_described_by_nothing(tmp_path: Path) -> None:
    found = describe_exec(7, AT, proc=str(tmp_path))
    assert found.fault is Fault.GONE
    assert found.read_ns > 1
    assert (found.argv, found.exe, found.stat) == (None, None, None)
    assert describe_running(7, proc=str(tmp_path)) is None


@pytest.mark.parametrize("name", ["cmdline", "cwd", "stat", "status", "cgroup"])
def test_a_file_that_vanished_is_unknown_and_the_rest_is_kept(tmp_path: Path, name: str) -> None:
    (make_process(tmp_path) / name).unlink()
    found = describe_exec(7, AT, proc=str(tmp_path))
    assert Fault.GONE in found.fault
    assert getattr(found, "argv" if name == "cmdline" else name) is None
    assert found.exe == b"/usr/bin/cat"


@pytest.mark.parametrize("name", ["loginuid", "sessionid"])
def test_a_kernel_without_audit_is_no_fault(tmp_path: Path, name: str) -> None:
    (make_process(tmp_path) / name).unlink()
    assert describe_exec(7, AT, proc=str(tmp_path)).fault is Fault.NONE


def test_an_empty_command_line_is_unknown_unless_the_program_is_still_there(tmp_path: Path) -> None:
    folder = make_process(tmp_path, cmdline=b"")
    assert describe_exec(7, AT, proc=str(tmp_path)).argv == b""
    (folder / "exe").unlink()
    assert describe_exec(7, AT, proc=str(tmp_path)).argv is None


@pytest.mark.parametrize("size", [4095, 4096, 4097, 70_000, ARGV_BOUND - 1, ARGV_BOUND])
def test_argv_up_to_the_bound_is_whole(tmp_path: Path, size: int) -> None:
    argv = os.urandom(size - 1).replace(b"\n", b"\xff") + b"\0"
    make_process(tmp_path, cmdline=argv)
    found = describe_exec(7, AT, proc=str(tmp_path))
    assert found.argv == argv
    assert found.fault is Fault.NONE


@pytest.mark.parametrize("size", [ARGV_BOUND + 1, 2 * 1024 * 1024])
def test_argv_beyond_the_bound_is_cut_and_says_so(tmp_path: Path, size: int) -> None:
    argv = b"x\0" * (size // 2 + 1)
    make_process(tmp_path, cmdline=argv[:size])
    found = describe_exec(7, AT, proc=str(tmp_path))
    assert found.argv == argv[:ARGV_BOUND]
    assert found.fault is Fault.ARGV_CUT


def test_empty_files_make_no_process(tmp_path: Path) -> None:
    make_process(tmp_path, stat=b"", status=b"", cgroup=b"", cmdline=b"")
    assert describe_running(7, proc=str(tmp_path)) is None
    assert read_stat(7, proc=str(tmp_path)) is None
    assert describe_exec(7, AT, proc=str(tmp_path)).stat == b""


def test_a_process_found_running_has_its_io_and_all_of_its_threads(tmp_path: Path) -> None:
    folder = make_process(tmp_path, stat=stat_text(threads=3))
    for tid in (7, 8, 11):
        (folder / "task" / str(tid)).mkdir(parents=True)
    found = describe_running(7, proc=str(tmp_path))
    assert found is not None
    assert found.reason is Reason.SCAN
    assert found.at_ns <= found.read_ns
    assert found.io == b"rchar: 1\n"
    assert found.tids is not None
    assert sorted(memoryview(found.tids).cast("I")) == [7, 8, 11]


def test_a_zombie_has_no_argv_and_is_marked(tmp_path: Path) -> None:
    make_process(tmp_path, stat=stat_text(state=b"Z", status=0x300), cmdline=b"")
    found = describe_running(7, proc=str(tmp_path))
    assert found is not None
    assert Fault.ZOMBIE in found.fault
    assert found.argv is None


def test_a_stuck_process_is_described_without_touching_its_memory(tmp_path: Path) -> None:
    folder = make_process(tmp_path)
    (folder / "cmdline").unlink()
    os.mkfifo(folder / "cmdline")  # to open it would block for ever
    found = describe_running(7, proc=str(tmp_path), lock_free=True)
    assert found is not None
    assert found.argv is None
    assert found.exe == b"/usr/bin/cat"


def test_what_may_not_be_read_is_said_to_be_denied() -> None:
    # The real /proc as another user: exe and cwd of pid 1 are root's.
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        found = describe_running(1)
        if found is not None and found.exe is found.cwd is None and found.stat:
            os.write(writing, bytes([found.fault]))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == bytes([Fault.DENIED])


def test_pids_are_listed_in_their_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("10", "9", "100", "self", "sys", "9a"):
        (tmp_path / name).mkdir()
    assert list_pids(proc=str(tmp_path)) == [9, 10, 100]


def test_no_proc_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_pids(proc=str(tmp_path / "none"))


# --- reading real processes ---------------------------------------------------------------


@contextmanager
def running(*argv: str | bytes, executable: str | None = None) -> Iterator[int]:
    child = subprocess.Popen(argv, executable=executable, cwd="/", stdin=subprocess.PIPE)
    try:
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def described(pid: int) -> Description:
    until = time.monotonic() + 10
    while True:
        found = describe_running(pid)
        assert found is not None
        # Popen returns in the middle of the execve, before the new argv is in place.
        if found.argv or Fault.ZOMBIE in found.fault or time.monotonic() > until:
            return found
        time.sleep(0.001)


def test_a_real_process_with_hostile_arguments_is_read_exactly() -> None:
    hostile = [b"cat", b"-", b"", b"a b", b"new\nline", b"q'\"", b"\xff\xfe", b"\xe2\x82"]
    with running(*hostile, executable="/bin/cat") as pid:
        found = described(pid)
    assert found.argv == b"\0".join(hostile) + b"\0"
    assert found.cwd == b"/"
    assert found.fault is Fault.NONE
    ids = parse_status(found.status or b"")
    assert ids is not None
    assert (ids.uid, ids.euid, ids.gid, ids.egid) == (
        os.getuid(),
        os.geteuid(),
        os.getgid(),
        os.getegid(),
    )


def test_an_argv_of_two_mebibytes_of_a_real_process_is_cut_at_the_bound() -> None:
    # 16 arguments of nearly MAX_ARG_STRLEN; the stack limit of 8 MiB allows 2 MiB.
    arguments = [b"-", *[bytes([65 + n]) * 120_000 for n in range(16)]]
    with running(b"cat", *arguments, executable="/bin/cat") as pid:
        found = described(pid)
    whole = b"\0".join([b"cat", *arguments]) + b"\0"
    assert found.argv == whole[:ARGV_BOUND]
    assert found.fault is Fault.ARGV_CUT


def test_a_real_zombie_keeps_its_wait_status() -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        found = described(child.pid)
        stat = parse_stat(found.stat or b"")
    finally:
        child.wait()
    assert Fault.ZOMBIE in found.fault
    assert (found.argv, found.exe) == (None, None)
    assert stat is not None
    assert stat.exit_code == 0x300


def test_a_held_descriptor_never_mixes_two_processes() -> None:
    # What procfs builds on: after the exit, files of the held folder are gone for ever.
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    held = os.open(f"/proc/{child.pid}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        child.send_signal(signal.SIGKILL)
        child.communicate()
        with pytest.raises(ProcessLookupError):
            os.open("stat", os.O_RDONLY, dir_fd=held)
    finally:
        os.close(held)


def test_our_own_start_time_is_that_of_the_clock() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - stat.starttime / 100
    assert 0 <= age < 24 * 3600


# --- texts ----------------------------------------------------------------------------------


def test_stat_is_taken_apart_by_the_fields_of_the_man_page() -> None:
    stat = parse_stat(stat_text(comm=b"cat", threads=4, status=0x8B))
    assert stat is not None
    assert stat == (b"cat", b"S", 7, 9, 34817, 4194304, 11, 12, 4, 555, 0x8B)


@pytest.mark.parametrize(
    "comm", [b"", b") S 1 2", b"a b", b"(((", b")))", b"new\nline", b"\xff\xfe", b"a) R (b"]
)
def test_comm_may_hold_anything(comm: bytes) -> None:
    stat = parse_stat(stat_text(comm=comm))
    assert stat is not None
    assert stat.comm == comm
    assert stat.starttime == 555


@given(st.binary(max_size=15))
def test_any_comm_is_given_back(comm: bytes) -> None:
    stat = parse_stat(stat_text(comm=comm))
    assert stat is not None
    assert stat.comm == comm
    assert stat.ppid == 7


@given(st.binary(max_size=400))
def test_any_bytes_are_a_stat_or_none(text: bytes) -> None:
    parse_stat(text)
    parse_stat(b"1 (x) " + text)


@given(st.integers(0, 400))
def test_a_cut_stat_is_none_or_lacks_only_its_end(length: int) -> None:
    whole = stat_text(status=3)
    stat = parse_stat(whole[:length])
    if length < whole.index(b"555"):
        assert stat is None
    elif stat is not None and length > whole.index(b"555") + 3:
        assert stat.starttime == 555


def test_an_old_kernel_without_the_wait_status_is_understood() -> None:
    text = b" ".join(stat_text().split()[:44])
    stat = parse_stat(text)
    assert stat is not None
    assert stat.exit_code is None


def test_status_gives_the_ids_and_the_innermost_pid() -> None:
    assert parse_status(STATUS) == (1000, 0, 100, 5, 1)


def test_a_kernel_without_pid_namespaces_gives_no_inner_pid() -> None:
    ids = parse_status(STATUS.replace(b"NSpid:\t7\t1\n", b""))
    assert ids is not None
    assert ids.ns_pid is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_status_or_none(text: bytes) -> None:
    parse_status(text)
    parse_status(b"Name:\tx\nUid:\t" + text)


def test_a_name_cannot_forge_the_ids() -> None:
    # The kernel escapes the newline, so that it stays in the first line.
    forged = STATUS.replace(b"cat", rb"x\nUid:\t0\t0\t0\t0")
    assert parse_status(forged) == (1000, 0, 100, 5, 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"1000", 1000),
        (b"0", 0),
        (b"4294967295", None),
        (b"", None),
        (None, None),
        (b"-1", None),
        (b"x", None),
        (b"99999999999", None),
    ],
)
def test_an_audit_id_that_is_not_set_is_none(text: bytes | None, number: int | None) -> None:
    assert parse_audit_id(text) == number


@pytest.mark.parametrize(
    ("tty_nr", "name"),
    [
        (0, None),
        (-1, None),
        (34816, "pts/0"),
        (34817, "pts/1"),
        (34816 | 1 << 20, "pts/256"),
        (35072, "pts/256"),
        (1025, "tty1"),
        (1088, "ttyS0"),
        (1281, "console"),
        (1280, "5:0"),
    ],
)
def test_a_terminal_has_its_name_under_dev(tty_nr: int, name: str | None) -> None:
    assert parse_tty(tty_nr) == name
