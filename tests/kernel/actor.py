"""Be a process with a life worth recording, and say what the kernel said of it.

    python -I -S actor.py ACT [ARGUMENT...]

An act is a function of this file. It prints what it knows as one line of JSON; where it says
``held()`` it goes on when its standard input says so, or is closed. A program of its own, so that
nothing of the test runner (threads, signal handlers, coverage) is in the lives that are recorded.

System calls that Python does not have are made by number.

Source: man pages syscall(2), clone(2) and ptrace(2); include/uapi/linux/prctl.h and sched.h.
"""

# ruff: noqa: S606 - executing programs is what the acts are about

import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

SYS_EXIT = {"x86_64": 60, "aarch64": 93, "riscv64": 93, "s390x": 1, "ppc64le": 1}
SYS_CLONE3 = 435
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000

NOT_FATAL = {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long
libc.syscall.restype = ctypes.c_long


def say(what: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def held() -> None:
    """Go on when standard input says so."""
    os.read(0, 1)


def checked(result: int) -> int:
    """Raise what a C function that failed left in errno."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def leave_thread(status: int) -> None:
    """End this thread alone, as pthread_exit(3) does."""
    libc.syscall(SYS_EXIT[os.uname().machine], status)


def forked(child: Callable[[], object]) -> int:
    """Fork a child that ends with 99 if what it does returns; return its pid."""
    pid = os.fork()
    if not pid:
        child()
        os._exit(99)
    return pid


def status_of(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def wait_of(child: Callable[[], object]) -> None:
    """Fork a child and say its pid and its wait status."""
    pid = forked(child)
    say([pid, status_of(pid)])


def started(*work: Callable[[], object]) -> None:
    """Start a thread for each."""
    for each in work:
        threading.Thread(target=each, daemon=True).start()


# --- how a life can end ---------------------------------------------------------


def exit_codes() -> None:
    """Exit with each status that there is."""
    ends = []
    for code in range(256):
        pid = forked(lambda code=code: os._exit(code))  # type: ignore[misc]
        ends.append([pid, status_of(pid)])
    say(ends)


def fatal_signals(core_bytes: str) -> None:
    """Be killed by each signal that kills by default, leaving a core as large as is said."""
    most = int(core_bytes)
    numbers = [*sorted(set(range(1, 32)) - NOT_FATAL), signal.SIGRTMIN, signal.SIGRTMAX]

    def die(number: int) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    Path("/proc/self/coredump_filter").write_text("0", encoding="ascii")  # cores without memory
    ends = []
    for number in numbers:
        pid = forked(lambda number=number: die(number))  # type: ignore[misc]
        status = status_of(pid)
        names = ("core", f"core.{pid}")
        written = [name for name in names if Path(name).exists()]
        for name in written:
            Path(name).unlink()
        ends.append([number, pid, status, bool(written)])
    say(ends)


def exit_group_by_a_thread() -> None:
    def child() -> None:
        started(lambda: os._exit(3))
        signal.pause()

    wait_of(child)


def leader_first_then_exit_group() -> None:
    def end() -> None:
        time.sleep(0.1)
        os._exit(4)

    def child() -> None:
        started(end)
        leave_thread(0)

    wait_of(child)


def leader_first_worker_last() -> None:
    """Leave as the leader with 1, and as the last thread with 5."""

    def end() -> None:
        time.sleep(0.1)
        leave_thread(5)

    def child() -> None:
        started(end)
        leave_thread(1)

    wait_of(child)


def leader_last() -> None:
    def child() -> None:
        started(lambda: leave_thread(7))
        time.sleep(0.05)
        leave_thread(8)

    wait_of(child)


def leader_first_then_killed() -> None:
    """Leave as the leader, and be killed while a thread goes on."""

    def child() -> None:
        started(signal.pause, signal.pause)
        leave_thread(0)

    pid = forked(child)
    while True:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        if stat.rpartition(b") ")[2].startswith(b"Z"):
            break
        time.sleep(0.005)
    say([pid, pid])
    held()
    os.kill(pid, signal.SIGKILL)
    say([pid, status_of(pid)])


def exec_by_a_thread() -> None:
    def child() -> None:
        started(
            signal.pause,
            signal.pause,
            lambda: os.execv("/bin/sh", ["/bin/sh", "-c", "exit 6", "by-a-thread"]),
        )
        signal.pause()

    wait_of(child)


def exec_by_a_thread_after_the_leader() -> None:
    """Leave as the leader, then execve in the thread that is left."""

    def execute() -> None:
        time.sleep(0.05)
        os.execv("/bin/sh", ["/bin/sh", "-c", "exit 6", "by-a-thread"])

    def child() -> None:
        started(execute)
        leave_thread(0)

    wait_of(child)


def killed_while_traced() -> None:
    """Be traced, and killed by the tracer."""

    def child() -> None:
        signal.pause()

    pid = forked(child)
    checked(libc.ptrace(PTRACE_SEIZE, pid, None, None))
    os.kill(pid, signal.SIGKILL)
    say([pid, status_of(pid)])


def reaped_by_nobody() -> None:
    """Have children that are reaped by the kernel: nobody is told how they end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    pid = forked(lambda: os._exit(12))
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        say([pid, 12 << 8])


def orphan() -> None:
    """Be the subreaper of a grandchild that outlives its parent."""
    checked(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    reading, writing = os.pipe()
    me = os.getpid()

    def grandchild() -> None:
        while os.getppid() != me:
            time.sleep(0.002)
        os._exit(9)

    def child() -> None:
        os.write(writing, struct.pack("=I", forked(grandchild)))
        os._exit(8)

    parent = forked(child)
    (pid,) = struct.unpack("=I", os.read(reading, 4))
    os.waitpid(parent, 0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    say({"reaper": me, "parent": parent, "pid": pid})
    held()  # reaped at once, it would have no parent any more when the kernel tells
    say([pid, status_of(pid)])


# --- what can happen in a life ----------------------------------------------------


def several_execs() -> None:
    wait_of(lambda: os.execv("/bin/sh", ["/bin/sh", "-c", 'exec /bin/sh -c "exec /bin/true last"']))


def failed_exec() -> None:
    """Fail to execute, as posix_spawn(3) does in a child that shares our memory."""
    try:
        os.posix_spawn("/nonexistent/program", ["program"], os.environ)
    except FileNotFoundError:
        say([os.getpid(), 0])
    held()


def fork_without_exec() -> None:
    pid = forked(signal.pause)
    say([os.getpid(), pid])
    held()
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


def threads(count: str) -> None:
    """Have threads, and say their ids."""
    barrier = threading.Barrier(int(count) + 1)
    tids: list[int] = []

    def work() -> None:
        tids.append(threading.get_native_id())
        barrier.wait()
        barrier.wait()

    started(*[work] * int(count))
    barrier.wait()
    say(tids)
    held()
    barrier.wait()


def change_ids(how: str, thread_count: str) -> None:
    """Change ids, with threads whose ids the C library changes as well."""
    started(*[signal.pause] * int(thread_count))
    if how == "all":
        os.setgid(54321)
        os.setuid(65534)
    else:
        os.seteuid(65534)
        os.seteuid(0)
    say(os.getpid())
    held()


def set_id_program(path: str, uid: str) -> None:
    """As another user, execute a program that belongs to yet another one."""

    def child() -> None:
        os.setuid(int(uid))
        os.execv(path, [path])

    wait_of(child)


def rename() -> None:
    for name in (b"first name", b"(a)\n\xff) R 1"):
        checked(libc.prctl(PR_SET_NAME, name, 0, 0, 0))
    say(os.getpid())
    held()


def new_session() -> None:
    def child() -> None:
        os.setsid()
        os._exit(0)

    wait_of(child)


def trace_another() -> None:
    """Attach to a child, and let it go."""
    pid = forked(signal.pause)
    checked(libc.ptrace(PTRACE_SEIZE, pid, None, None))
    checked(libc.ptrace(PTRACE_INTERRUPT, pid, None, None))
    os.waitpid(pid, WALL)
    checked(libc.ptrace(PTRACE_DETACH, pid, None, None))
    os.kill(pid, signal.SIGTERM)
    say([pid, status_of(pid)])
    held()


def reuse_a_pid() -> None:
    """Have two children with the same pid, one after the other.

    clone3(2) can ask for a pid; somebody else may take it first.
    """
    for _ in range(50):
        pid = forked(lambda: os._exit(1))
        first = status_of(pid)
        wanted = (ctypes.c_int32 * 1)(pid)
        fields = (0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
        arguments = ctypes.create_string_buffer(struct.pack("=11Q", *fields), 88)
        got = libc.syscall(SYS_CLONE3, arguments, ctypes.c_size_t(88))
        if got == 0:
            os._exit(2)
        if got == pid:
            say([pid, first, status_of(pid)])
            return
    say(None)


def execute_without_arguments() -> None:
    """Execute with an argv of no arguments at all; the kernel makes it one that is empty."""
    none = (ctypes.c_char_p * 1)(None)
    libc.execve(b"/bin/cat", none, none)


def execute_when_told(path: str, *arguments: str) -> None:
    say(os.getpid())
    held()
    os.execv(path, [path, *arguments])


# --- many of them -------------------------------------------------------------------


def storm(tag: str, count: str, seconds: str = "60") -> None:
    """Run /bin/true and /bin/false in turn, as fast as can be, and say when each was over."""
    until = time.monotonic() + float(seconds)
    ran = []
    for number in range(int(count)):
        program = ("/bin/true", "/bin/false")[number % 2]
        pid = os.posix_spawn(program, [program, f"{tag}-{number}"], {})
        status = status_of(pid)
        ran.append((number, pid, status, time.time_ns()))
        if time.monotonic() > until:
            break
    say({"pid": os.getpid(), "ran": ran})


def lead_a_session(*command: str) -> None:
    """Lead a session on the terminal that is standard input, and execute a command in it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.execv(command[0], command)


def main() -> None:
    acts: dict[str, Callable[..., object]] = {
        name: value for name, value in globals().items() if callable(value)
    }
    acts[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
