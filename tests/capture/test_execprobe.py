"""The exec probe on the live kernel: what it refuses, what it sees, what it loses.

Tests marked `kernel` look only at records of processes that they started themselves.
"""

import contextlib
import ctypes
import errno
import os
import platform
import pty
import select
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from prochist.capture import bpf
from prochist.capture.assembler import Assembler
from prochist.capture.execprobe import (
    ExecProbe,
    ExecProbeUnavailableError,
    ExecRing,
    explain_refused_program,
    open_exec_probe,
)
from prochist.capture.execrecord import ARGV_BYTES, ExecRecord, decode_exec_record
from tests.capture.tiny_elf import tiny_elf, write_tiny_elf

FIXTURE = Path(__file__).parents[1] / "data" / "btf-6.18-x86_64"

# --- Refusals --------------------------------------------------------------------------------


def test_a_kernel_without_btf_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExecProbeUnavailableError, match="does not describe its types") as caught:
        open_exec_probe(btf_path=tmp_path / "vmlinux")
    assert "CONFIG_DEBUG_INFO_BTF" in (caught.value.hint or "")


def test_a_cut_btf_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "vmlinux"
    cut.write_bytes(FIXTURE.read_bytes()[:1000])
    with pytest.raises(ExecProbeUnavailableError, match="BTF is cut"):
        open_exec_probe(btf_path=cut)


def test_a_ring_that_no_kernel_can_have_is_too_large() -> None:
    with pytest.raises(ExecProbeUnavailableError, match="too large"):
        open_exec_probe(ring_bytes=1 << 40, btf_path=FIXTURE)


def test_what_is_not_a_ring_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(ExecProbeUnavailableError, match="is not the ring"):
            ExecRing(file.fileno())
        closed = os.dup(file.fileno())
        os.close(closed)
        with pytest.raises(ExecProbeUnavailableError, match="is closed"):
            ExecRing(closed)


@pytest.mark.parametrize(("cpus", "count"), [("0\n", 1), ("0-3\n", 4), ("0,2,8-15\n", 10)])
def test_possible_cpus_are_counted(cpus: str, count: int) -> None:
    assert bpf.count_possible_cpus(cpus) == count


OPEN_AND_REPORT = """
import sys
from prochist.capture.execprobe import ExecProbeUnavailableError, open_exec_probe
{before}
try:
    open_exec_probe(ring_bytes=int(sys.argv[1])).close()
except ExecProbeUnavailableError as error:
    print(error.message, "|", error.hint)
else:
    print("opened")
"""


def open_elsewhere(before: str = "", *, ring_bytes: int = 4096, measured: bool = True) -> str:
    """Open the probe in a process of its own, after `before`, and return what it said.

    Unless `measured`, no coverage is measured there: it asks for the machine's name first.
    """
    return subprocess.run(
        [sys.executable, "-c", OPEN_AND_REPORT.format(before=before), str(ring_bytes)],
        check=True,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if measured or not k.startswith("COVERAGE")},
    ).stdout


@pytest.mark.kernel
def test_a_user_without_capabilities_is_told_which() -> None:
    said = open_elsewhere("import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    assert "not permitted" in said
    assert "CAP_BPF and CAP_PERFMON" in said


KEEP_ONLY = """
import ctypes, os, struct
libc = ctypes.CDLL(None)
assert libc.prctl(8, 1, 0, 0, 0) == 0
os.setgroups([]); os.setgid(65534); os.setuid(65534)
kept = sum(1 << bit for bit in {bits})
low, high = kept & 0xFFFFFFFF, kept >> 32
header = ctypes.create_string_buffer(struct.pack("=II", 0x20080522, 0))
data = ctypes.create_string_buffer(struct.pack("=IIIIII", low, low, 0, high, high, 0))
assert libc.capset(header, data) == 0
"""
"""Become nobody, with some capabilities. Source: man pages capget(2) and capabilities(7)."""

CAP_PERFMON, CAP_BPF = 38, 39


@pytest.mark.kernel
def test_two_capabilities_are_enough() -> None:
    assert open_elsewhere(KEEP_ONLY.format(bits=[CAP_BPF, CAP_PERFMON])) == "opened\n"


@pytest.mark.kernel
def test_maps_without_tracing_are_not_enough() -> None:
    said = open_elsewhere(KEEP_ONLY.format(bits=[CAP_BPF]))
    assert "loading a BPF tracing program is not permitted" in said
    assert "CAP_PERFMON" in said


FORBID_BPF = """
import atexit, ctypes, struct
from resource import RLIMIT_MEMLOCK, getrlimit, setrlimit
setrlimit(RLIMIT_MEMLOCK, (4096, 8192))
atexit.register(lambda: print(getrlimit(RLIMIT_MEMLOCK)))
load, unless_equal, back = 0x20, 0x15, 6
filters = [(load, 0, 0, 0), (unless_equal, 0, 1, {number})]
filters += [(back, 0, 0, 0x50000 | {code}), (back, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in filters))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program) == 0
"""
"""A seccomp filter lets bpf(2) fail with a code. Source: man page seccomp(2)."""


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EPERM, "bpf(2) is not permitted (a seccomp filter is in force)"),
        (errno.ENOSYS, "this kernel has no bpf(2) (a seccomp filter is in force)"),
        (errno.EINVAL, "has no BPF ring buffer | the exec probe needs Linux 5.8"),
        (errno.ENOMEM, "no memory for the exec probe's maps"),
        (errno.EBUSY, "bpf(2) failed: Device or resource busy"),
    ],
)
def test_each_refusal_has_its_own_reason_and_leaves_the_limits_alone(
    code: int, reason: str
) -> None:
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    said = open_elsewhere(FORBID_BPF.format(number=number, code=code), ring_bytes=1 << 20)
    assert reason in said
    assert said.endswith("\n(4096, 8192)\n")


@pytest.mark.kernel
def test_an_unknown_architecture_is_named() -> None:
    # Source: man page personality(2), PER_LINUX32: uname then names another machine.
    before = "import ctypes; ctypes.CDLL(None).personality(8)"
    said = open_elsewhere(before, measured=False)
    assert "does not know the architecture" in said


@pytest.mark.kernel
def test_a_program_that_the_verifier_refuses_comes_with_its_reason() -> None:
    asm = Assembler()
    asm.exit()
    with pytest.raises(bpf.ProgramRefusedError) as caught:
        bpf.load_program(asm.assemble(), "prochist_test", "Dual MIT/GPL")
    assert "R0 !read_ok" in caught.value.log


def test_the_verifiers_reason_reaches_the_user_without_its_statistics() -> None:
    log = """\
    0: R1=ctx() R10=fp0
    0: (95) exit
    R0 !read_ok
    processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0
    """
    refused = bpf.ProgramRefusedError(errno.EACCES, textwrap.dedent(log))
    explained = explain_refused_program(refused)
    assert explained.message.endswith("0: R1=ctx() R10=fp0 | 0: (95) exit | R0 !read_ok")
    assert platform.release() in (explained.hint or "")


def test_a_locked_down_kernel_is_named() -> None:
    log = "105: (85) call bpf_probe_read_kernel#113\nunknown func bpf_probe_read_kernel#113\n"
    explained = explain_refused_program(bpf.ProgramRefusedError(errno.EINVAL, log))
    assert "unknown func" in explained.message
    assert "lockdown" in (explained.hint or "")


def test_a_refusal_without_a_word_of_the_verifier_is_a_lack_of_permission() -> None:
    explained = explain_refused_program(bpf.ProgramRefusedError(errno.EPERM, ""))
    assert "not permitted" in explained.message
    assert "CAP_PERFMON" in (explained.hint or "")


# --- The live kernel -------------------------------------------------------------------------


class Watch:
    """A probe with its ring, and what it said of the processes asked for."""

    def __init__(self, probe: ExecProbe) -> None:
        self.probe = probe
        self.ring = ExecRing(probe.ring_fd)
        self.seen: list[ExecRecord] = []

    def drain(self) -> None:
        while records := self.ring.receive():
            self.seen += map(decode_exec_record, records)
            self.ring.commit()

    def of(self, tgid: int) -> list[ExecRecord]:
        """Return this process's execs, oldest first."""
        self.drain()
        return [record for record in self.seen if record.tgid == tgid]

    def last(self, tgid: int) -> ExecRecord:
        """Return the newest exec of a process that has ended."""
        return self.of(tgid)[-1]

    def wait(self, tgid: int, program: bytes) -> ExecRecord:
        """Return the exec of a process that runs on, by the name it was called, waiting for it.

        subprocess.Popen is back when execve has closed its pipe, just before the record is made.
        """
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for record in self.of(tgid):
                called = (record.argv or b"").partition(b"\0")[0]
                if called.rpartition(b"/")[2] == program:
                    return record
            select.select([self.ring], [], [], 0.1)
        raise AssertionError(f"process {tgid} did not become {program!r}")


@contextlib.contextmanager
def watching(*, ring_bytes: int = 1 << 20, wakes_reader: bool = False) -> Iterator[Watch]:
    with open_exec_probe(ring_bytes=ring_bytes, wakes_reader=wakes_reader) as probe:
        watch = Watch(probe)
        try:
            yield watch
        finally:
            watch.ring.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    with watching(wakes_reader=True) as one:
        yield one


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """Make a directory that other users can reach, as pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextlib.contextmanager
def waiting(argv: Sequence[str], **options: object) -> Iterator[int]:
    """Run a program that lives until its standard input ends; yield its pid after its execve."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, **options) as child:  # type: ignore[call-overload]
        try:
            yield child.pid
        finally:
            child.communicate(timeout=10)


def run(path: str | Path, argv: list[str] | list[bytes] | None = None) -> int:
    """Run a program to its end and return the pid that it had."""
    pid = os.posix_spawn(path, [str(path)] if argv is None else argv, {})
    assert os.waitpid(pid, 0)[1] == 0
    return pid


def run_python(code: str, *arguments: str) -> int:
    """Run Python code to its end and return the pid that it had."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as child:
        assert child.wait(timeout=20) == 0
        return child.pid


def stat_fields(pid: int) -> list[str]:
    """Return /proc/PID/stat; field n of proc_pid_stat(5) is at [n - 1]."""
    head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return [*head.split("(", 1), *tail.split()]


def readlink(path: str) -> bytes:
    return os.fsencode(Path(path).readlink())


def assert_as_proc_says(record: ExecRecord) -> None:
    """Compare a record with /proc, while the process lives."""
    proc = Path(f"/proc/{record.tgid}")
    fields = stat_fields(record.tgid)
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )
    assert record.comm == os.fsencode(fields[1])
    assert record.parent_tgid == int(fields[3])
    assert record.sid == int(fields[5])
    assert record.tty_nr == int(fields[6])
    assert record.start_boottime_ns // 10_000_000 == int(fields[21])
    assert [record.uid, record.euid] == [int(word) for word in status["Uid"].split()[:2]]
    assert [record.gid, record.egid] == [int(word) for word in status["Gid"].split()[:2]]
    assert record.ns_pid == int(status["NSpid"].split()[-1])
    assert record.argv == (proc / "cmdline").read_bytes()
    assert record.exe == readlink(f"{proc}/exe")
    assert record.cwd == readlink(f"{proc}/cwd")
    with contextlib.suppress(FileNotFoundError):  # built without audit
        login_uid = int((proc / "loginuid").read_text())
        session = int((proc / "sessionid").read_text())
        assert record.login_uid == (None if login_uid == 2**32 - 1 else login_uid)
        assert record.session == (None if session == 2**32 - 1 else session)


@pytest.mark.kernel
def test_a_record_says_what_proc_says(watch: Watch, tmp_path: Path) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    cat = shutil.which("cat")
    assert cat is not None
    with waiting([cat, "-", "", "ä b"], cwd=tmp_path) as pid:
        record = watch.wait(pid, b"cat")
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        assert_as_proc_says(record)
        file = Path(f"/proc/{pid}/exe").stat()
        assert record.exe_inode == file.st_ino
    assert before < record.monotonic_ns < after
    assert record.old_tid == pid
    assert record.exec_path == os.fsencode(cat)
    assert (record.argc, record.argv_complete) == (4, True)
    assert record.argv == os.fsencode(f"{cat}\0-\0\0ä b\0")


@pytest.mark.kernel
def test_device_and_inode_are_those_of_stat_on_a_plain_file_system(watch: Watch) -> None:
    # tmpfs is one of those whose st_dev is that of the superblock.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        tiny = write_tiny_elf(Path(name) / "tiny")
        if os.statvfs(name).f_flag & os.ST_NOEXEC:
            pytest.skip("the tmpfs is mounted noexec")
        file = tiny.stat()
        record = watch.last(run(tiny))
        assert record.exe == os.fsencode(tiny)
    assert (record.exe_device, record.exe_inode) == (file.st_dev, file.st_ino)


@pytest.mark.kernel
def test_the_cgroup_id_is_the_inode_of_its_directory(watch: Watch) -> None:
    with waiting(["cat"]) as pid:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        record = watch.wait(pid, b"cat")
    path = next(line[3:] for line in lines if line.startswith("0::"))
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if not roots:
        pytest.skip("cgroup v2 is not mounted")
    assert record.cgroup_id == (roots[0] / path.lstrip("/")).stat().st_ino


@pytest.mark.kernel
def test_no_exec_of_the_shortest_lived_program_is_missed(watch: Watch, tmp_path: Path) -> None:
    tiny = str(write_tiny_elf(tmp_path / "tiny"))
    started = {}
    for number in range(1000):
        started[run(tiny, [tiny, str(number)])] = number
        if number % 100 == 0:
            watch.drain()
    assert len(started) == 1000
    for pid, number in started.items():
        record = watch.last(pid)
        assert record.argv == f"{tiny}\0{number}\0".encode()
        assert record.exe == os.fsencode(tiny)
        assert record.cwd == os.fsencode(Path.cwd())
    assert watch.probe.read_losses() == 0


@pytest.mark.kernel
def test_a_set_user_id_program_has_its_owners_effective_id(watch: Watch, open_dir: Path) -> None:
    tiny = write_tiny_elf(open_dir / "tiny")
    os.chown(tiny, 4321, 5432)
    tiny.chmod(0o6755)
    assert tiny.stat().st_mode & stat.S_ISUID
    if os.statvfs(open_dir).f_flag & os.ST_NOSUID:
        pytest.skip("the temporary directory is mounted nosuid")
    with subprocess.Popen([tiny], user=1234, group=2345, extra_groups=[]) as child:
        assert child.wait() == 0
    record = watch.last(child.pid)
    assert (record.uid, record.euid) == (1234, 4321)
    assert (record.gid, record.egid) == (2345, 5432)


@pytest.mark.kernel
def test_a_thread_that_execs_becomes_the_process(watch: Watch) -> None:
    code = """
import os, sys, threading
def replace():
    print(threading.get_native_id(), flush=True)
    os.execv(sys.argv[1], [sys.argv[1]])
threading.Thread(target=replace).start()
threading.Event().wait()
"""
    cat = shutil.which("cat")
    assert cat is not None
    with subprocess.Popen(
        [sys.executable, "-c", code, cat], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        tid = int(child.stdout.readline())
        watch.wait(child.pid, b"cat")
        first, second = watch.of(child.pid)
        assert_as_proc_says(second)
        child.communicate(timeout=10)
    assert tid != child.pid
    assert (first.old_tid, second.old_tid) == (child.pid, tid)
    assert first.start_boottime_ns == second.start_boottime_ns
    assert first.monotonic_ns < second.monotonic_ns


@pytest.mark.kernel
def test_a_script_has_its_own_path_and_its_interpreters_argv(watch: Watch, tmp_path: Path) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    script = tmp_path / "script"
    script.write_text(f"#!{tiny} -x y\n")
    script.chmod(0o755)
    (record,) = watch.of(run(script, ["name", "argument"]))
    assert record.exec_path == os.fsencode(script)
    assert record.exe == os.fsencode(tiny)
    assert record.argv == f"{tiny}\0-x y\0{script}\0argument\0".encode()
    assert (record.argc, record.comm) == (4, b"script")


@pytest.mark.kernel
def test_an_exec_by_descriptor_has_the_kernels_name_for_it(watch: Watch, tmp_path: Path) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.dup2(fd, 77)
os.execve(77, ["called"], {})
"""
    record = watch.last(run_python(code, str(tiny)))
    assert (record.exec_path, record.exe) == (b"/dev/fd/77", os.fsencode(tiny))
    assert record.argv == b"called\0"


@pytest.mark.kernel
def test_a_relative_path_below_a_descriptor_is_named_so(watch: Watch, tmp_path: Path) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    number = {"x86_64": 322, "aarch64": 281}[platform.machine()]
    code = f"""
import ctypes, os, sys
os.dup2(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), 77)
argv = (ctypes.c_char_p * 2)(b"called", None)
ctypes.CDLL(None).syscall({number}, 77, b"tiny", argv, (ctypes.c_char_p * 1)(None), 0)
"""
    record = watch.last(run_python(code, str(tmp_path)))
    assert (record.exec_path, record.exe) == (b"/dev/fd/77/tiny", os.fsencode(tiny))


@pytest.mark.kernel
def test_a_program_in_memory_is_named_as_proc_names_it(watch: Watch) -> None:
    code = f"""
import os
fd = os.memfd_create("hidden", 0)
os.write(fd, {tiny_elf()!r})
os.execve(fd, ["called"], {{}})
"""
    assert watch.last(run_python(code)).exe == b"/memfd:hidden (deleted)"


@pytest.mark.kernel
def test_a_deleted_program_and_a_deleted_directory_are_marked(watch: Watch, tmp_path: Path) -> None:
    cat = shutil.copy("/bin/cat", tmp_path / "cat")
    gone = tmp_path / "gone"
    gone.mkdir()
    code = """
import os, sys
os.chdir(sys.argv[2])
fd = os.open(sys.argv[1], os.O_RDONLY)
os.unlink(sys.argv[1])
os.rmdir(sys.argv[2])
os.execve(fd, ["cat"], {})
"""
    with waiting([sys.executable, "-c", code, str(cat), str(gone)]) as pid:
        record = watch.wait(pid, b"cat")
        assert_as_proc_says(record)
    assert record.exe == os.fsencode(cat) + b" (deleted)"
    assert record.cwd == os.fsencode(gone) + b" (deleted)"


@pytest.mark.kernel
def test_paths_cross_mounts_also_in_another_mount_namespace(watch: Watch, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare of util-linux")
    for name in ("tree", "tree/bin", "here"):
        (tmp_path / name).mkdir()
    shutil.copy("/bin/cat", tmp_path / "tree/bin/kitty")
    script = 'mount --bind "$0/tree" "$0/here" && cd "$0/here/bin" && exec "$0/here/bin/kitty"'
    with waiting([unshare, "--mount", "sh", "-c", script, str(tmp_path)]) as pid:
        record = watch.wait(pid, b"kitty")
        assert_as_proc_says(record)
    assert record.exe == os.fsencode(tmp_path / "here/bin/kitty")
    assert record.cwd == os.fsencode(tmp_path / "here/bin")


@pytest.mark.kernel
def test_a_process_of_another_pid_namespace_has_both_pids(watch: Watch, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare of util-linux")
    tiny = write_tiny_elf(tmp_path / "tiny")
    with subprocess.Popen([unshare, "--pid", "--fork", str(tiny)]) as child:
        assert child.wait() == 0
    watch.drain()
    (record,) = [one for one in watch.seen if one.exe == os.fsencode(tiny)]
    assert record.parent_tgid == child.pid
    assert record.ns_pid == 1
    assert record.tgid != 1


@pytest.mark.kernel
def test_terminal_and_session_are_as_proc_says(watch: Watch) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.execv("/bin/cat", ["cat"])  # noqa: S606 - an execve is what is tested
        finally:
            os._exit(127)
    try:
        record = watch.wait(pid, b"cat")
        assert_as_proc_says(record)
        assert record.sid == pid
        assert os.major(record.tty_nr) in range(136, 144)  # Source: admin-guide/devices.txt
    finally:
        os.write(fd, b"\x04")
        os.waitpid(pid, 0)
        os.close(fd)


@pytest.mark.kernel
def test_of_a_long_argv_the_beginning_and_the_true_size_are_kept(
    watch: Watch, tmp_path: Path
) -> None:
    tiny = str(write_tiny_elf(tmp_path / "tiny"))
    argv = [tiny, *(f"{number:0120000}" for number in range(16))]
    whole = b"".join(word.encode() + b"\0" for word in argv)
    assert len(whole) > 1_900_000
    record = watch.last(run(tiny, argv))
    assert (record.argc, record.argv_size) == (17, len(whole))
    assert record.argv == whole[:ARGV_BYTES]
    assert not record.argv_complete


@pytest.mark.kernel
def test_an_argv_of_all_bytes_and_of_empty_arguments_is_exact(watch: Watch, tmp_path: Path) -> None:
    tiny = str(write_tiny_elf(tmp_path / "tiny"))
    argv = [bytes(range(1, 256)), b"", b"\xff\n\x1b", b"", b""]
    record = watch.last(run(tiny, argv))
    assert record.argv == b"".join(word + b"\0" for word in argv)
    assert (record.argc, record.argv_complete) == (5, True)


@pytest.mark.kernel
def test_an_argv_of_no_arguments_is_what_the_kernel_made_of_it(
    watch: Watch, tmp_path: Path
) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    code = """
import ctypes, sys
nothing = (ctypes.c_char_p * 1)(None)
ctypes.CDLL(None).execve(sys.argv[1].encode(), nothing, nothing)
"""
    record = watch.last(run_python(code, str(tiny)))
    # Since 5.18 there is one empty argument. Source: do_execveat_common() in fs/exec.c.
    assert (record.argc, record.argv) in ((0, b""), (1, b"\0"))
    assert record.argv_complete


@pytest.mark.kernel
def test_long_and_deep_paths_are_whole_or_unknown_never_wrong(watch: Watch, tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(10):
        deep /= "d" * 200
        deep.mkdir()
    tiny = write_tiny_elf(deep / ("t" * 255))
    assert len(str(tiny)) > 2000
    record = watch.last(run(tiny))
    assert record.exec_path == record.exe == os.fsencode(tiny)
    for _ in range(70):
        deep /= "d"
        deep.mkdir()
    record = watch.last(run(write_tiny_elf(deep / "tiny")))
    assert record.exec_path == os.fsencode(deep / "tiny")
    assert record.exe is None
    # The rest of the record is not touched by it.
    assert record.cwd == os.fsencode(Path.cwd())
    assert record.argv == os.fsencode(deep / "tiny") + b"\0"


@pytest.mark.kernel
def test_a_failed_execve_makes_no_record(watch: Watch, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            os.execv(tmp_path / "absent", ["absent"])  # noqa: S606 - so it is here
        os._exit(0)
    os.waitpid(pid, 0)
    assert watch.of(pid) == []


@pytest.mark.kernel
def test_the_ring_wraps_around_and_nothing_is_lost(tmp_path: Path) -> None:
    tiny = str(write_tiny_elf(tmp_path / "tiny"))
    with watching(ring_bytes=32768) as watch:  # a tenth of what follows
        started = {}
        for number in range(300):
            started[run(tiny, [tiny, "x" * (number * 5)])] = number * 5
            watch.drain()
        for pid, length in started.items():
            assert watch.last(pid).argv == f"{tiny}\0{'x' * length}\0".encode()
        assert watch.probe.read_losses() == 0


@pytest.mark.kernel
def test_losses_are_counted_to_the_unit(tmp_path: Path) -> None:
    tiny = str(write_tiny_elf(tmp_path / "tiny"))
    with watching(ring_bytes=4 << 20) as witness, watching(ring_bytes=4096) as small:
        mine = {run(tiny, [tiny, str(number)]) for number in range(200)}
        # Others exec as well: both counts are taken again until none came in between.
        kept: list[ExecRecord] = []
        for _ in range(100):
            losses = small.probe.read_losses()
            kept += map(decode_exec_record, small.ring.receive())  # and no commit: it stays full
            witness.drain()
            if small.probe.read_losses() == losses and not small.ring.receive():
                break
        else:
            pytest.fail("other processes never stop to exec")
        assert witness.probe.read_losses() == 0
    key = kept[0].tgid, kept[0].start_boottime_ns, kept[0].argv
    keys = [(one.tgid, one.start_boottime_ns, one.argv) for one in witness.seen]
    all_since = len(keys) - keys.index(key)
    assert mine <= {one.tgid for one in witness.seen}
    assert 0 < len(kept) < 200
    assert len(kept) + losses == all_since


@pytest.mark.kernel
def test_what_was_not_committed_comes_again_to_the_next_reader(
    watch: Watch, tmp_path: Path
) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    first = run(tiny)
    seen = [decode_exec_record(raw).tgid for raw in watch.ring.receive()]
    assert first in seen
    assert watch.ring.receive() == []
    second = run(tiny)
    watch.ring.close()  # as if the reader were killed
    watch.ring = ExecRing(watch.probe.ring_fd)
    watch.drain()
    assert [one.tgid for one in watch.seen if one.tgid in {first, second}] == [first, second]


@pytest.mark.kernel
def test_another_process_reads_the_ring_by_its_descriptor(tmp_path: Path) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    code = """
import os, select, sys
from prochist.capture.execprobe import ExecRing
from prochist.capture.execrecord import decode_exec_record
os.setgid(65534); os.setuid(65534)
ring = ExecRing(int(sys.argv[1]))
assert select.select([ring], [], [], 10)[0]
for payload in ring.receive():
    print(decode_exec_record(payload).tgid)
ring.commit()
"""
    with open_exec_probe(ring_bytes=1 << 20, wakes_reader=True) as probe:
        pid = run(tiny)
        fd = probe.ring_fd
        said = subprocess.run(
            [sys.executable, "-c", code, str(fd)],
            pass_fds=[fd],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    assert str(pid) in said.split()


@pytest.mark.kernel
def test_a_reader_takes_as_many_as_it_asks_for_and_then_the_rest(
    watch: Watch, tmp_path: Path
) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    mine = [run(tiny) for _ in range(5)]
    got = []
    while part := watch.ring.receive(2):
        assert len(part) <= 2
        got += [decode_exec_record(raw).tgid for raw in part]
    assert [tgid for tgid in got if tgid in mine] == mine


@pytest.mark.kernel
def test_a_poll_is_woken_by_an_exec(watch: Watch) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 0.2; exec true"]) as child:
        watch.wait(child.pid, b"sh")
        until = time.monotonic() + 10
        while watch.last(child.pid).comm != b"true" and time.monotonic() < until:
            assert select.select([watch.ring], [], [], 10)[0]
    assert watch.last(child.pid).comm == b"true"


@pytest.mark.kernel
def test_a_reader_that_is_not_woken_finds_the_records_when_it_looks(tmp_path: Path) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    with watching() as watch:
        pid = run(tiny)
        assert select.select([watch.ring], [], [], 0)[0]
        assert len(watch.of(pid)) == 1


@pytest.mark.kernel
def test_two_probes_do_not_disturb_each_other(tmp_path: Path) -> None:
    tiny = write_tiny_elf(tmp_path / "tiny")
    with watching() as one:
        with watching() as other:
            both = [run(tiny) for _ in range(50)]
            assert all(len(one.of(pid)) == 1 for pid in both)
            assert all(len(other.of(pid)) == 1 for pid in both)
        alone = run(tiny)
        assert len(one.of(alone)) == 1
        assert one.probe.read_losses() == 0


def program_is_loaded(program_id: int) -> bool:
    """Ask the kernel for a program by its number (BPF_PROG_GET_FD_BY_ID, 13)."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(struct.pack("=III", program_id, 0, 0))
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    fd = libc.syscall(number, 13, attributes, 12)
    if fd >= 0:
        os.close(fd)
        return True
    assert ctypes.get_errno() == errno.ENOENT
    return False


def open_fds() -> set[str]:
    # Without the one that looks.
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


@pytest.mark.kernel
def test_nothing_is_left_of_a_closed_probe() -> None:
    fds_before = open_fds()
    probe = open_exec_probe(ring_bytes=4096)
    ids = set()
    for fd in open_fds() - fds_before:
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
                if line.startswith("prog_id:"):
                    ids.add(int(line.split()[1]))
    assert len(ids) == 1
    assert program_is_loaded(*ids)
    probe.close()
    probe.close()  # once more does nothing
    assert open_fds() == fds_before
    until = time.monotonic() + 10  # the kernel frees programs after a grace period
    while program_is_loaded(*ids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not program_is_loaded(*ids)
