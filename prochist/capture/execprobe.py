"""The exec probe: loaded through bpf(2), its records read from a ring through mmap.

An eBPF program of our own (execprogram.py) at the raw tracepoint `sched_process_exec`
writes one record (execrecord.py) per successful execve into a ring buffer: no process
is too short-lived for it. This file owns the two ends of that ring: `open_exec_probe`
is for who may load programs, `ExecRing` for another process that inherited the ring's
descriptor. It knows no lifetime, and never reads /proc/PID.

Source: kernel/bpf/ringbuf.c, Linux 6.18.
"""

import contextlib
import errno
import mmap
import os
import platform
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from prochist.capture import bpf
from prochist.capture.btf import Btf, MalformedBtfError
from prochist.capture.execprogram import assemble_exec_program
from prochist.capture.execrecord import RECORD_BYTES
from prochist.errors import ProchistError

KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")
RING_BYTES: Final = 4 << 20
"""Holds 20,000 execs of a short command line; what is mapped counts as the reader's memory."""
_LARGEST_RING_BYTES: Final = 1 << 31
"""The largest power of two in union bpf_attr's max_entries, u32."""


class ExecProbeUnavailableError(ProchistError):
    """Say why this host does not let the exec probe run; /proc is what is left."""


class ExecProbe:
    """The running probe: it runs until it is closed, or the process that opened it ends.

    Give `ring_fd` to the process that reads, for its `ExecRing`. Several probes, of
    several recorders, do not know of each other.
    """

    def __init__(self, *, ring_fd: int, losses_fd: int, program_fd: int, link_fd: int) -> None:
        self.ring_fd = ring_fd
        self._losses_fd = losses_fd
        self._program_fd = program_fd
        self._link_fd = link_fd

    def descriptors(self) -> dict[str, int]:
        """Return its descriptors by the names of `__init__`, to keep it beyond this process."""
        return {
            "ring": self.ring_fd,
            "losses": self._losses_fd,
            "program": self._program_fd,
            "link": self._link_fd,
        }

    def read_losses(self) -> int:
        """Return how many execs since the start found the ring full: an exact count."""
        return bpf.sum_per_cpu_counter(self._losses_fd) + bpf.read_recursion_misses(
            self._program_fd
        )

    def close(self) -> None:
        """Stop the probe and give up its descriptors; a reader keeps what is in its ring."""
        for fd in (self._link_fd, self._program_fd, self._losses_fd, self.ring_fd):
            if fd >= 0:
                os.close(fd)
        self._link_fd = self._program_fd = self._losses_fd = self.ring_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_exec_probe(
    *, ring_bytes: int = RING_BYTES, wakes_reader: bool = False, btf_path: Path = KERNEL_BTF
) -> ExecProbe:
    """Load the probe and start it; from now on every execve of the host is in its ring.

    `ring_bytes` is rounded up to a power of two. With `wakes_reader` a reader that
    polls the ring is woken by each exec. Without, it finds the records when it looks;
    who listens to the proc connector is woken by the EXEC event just after, anyway.

    Costs an exec 3 us. Waking costs more: two spawners of a program that lives 23 us
    took 4.3 instead of 1.0 s for 20,000 when each exec woke the reader.

    Raises: ExecProbeUnavailableError, with the one reason why not.
    """
    if not bpf.has_bpf():
        raise ExecProbeUnavailableError(
            f"the exec probe does not know the architecture {platform.machine()}",
            hint="it runs on x86_64 and aarch64; --exec-source proc does without it",
        )
    try:
        btf = Btf(btf_path.read_bytes())
    except FileNotFoundError as missing:
        raise ExecProbeUnavailableError(
            f"the kernel does not describe its types: there is no {btf_path}",
            hint="use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or --exec-source proc",
        ) from missing
    except OSError as error:
        raise ExecProbeUnavailableError(f"cannot read {btf_path}: {error.strerror}") from error
    except MalformedBtfError as malformed:
        raise ExecProbeUnavailableError(f"{btf_path}: {malformed}") from malformed

    with contextlib.ExitStack() as undo:

        def keep(fd: int) -> int:
            undo.callback(os.close, fd)
            return fd

        ring_fd = keep(_create_ring(ring_bytes))
        # One value per CPU is enough: where a kernel lets another exec come between on the same
        # CPU, it does not run the program for it, and counts that (read_recursion_misses).
        record_fd = keep(_create_per_cpu_array("prochist_record", RECORD_BYTES))
        losses_fd = keep(_create_per_cpu_array("prochist_losses", 8))
        try:
            code = assemble_exec_program(
                btf,
                ring_fd=ring_fd,
                record_fd=record_fd,
                losses_fd=losses_fd,
                wakes_reader=wakes_reader,
            )
            program_fd = keep(bpf.load_program(code, "prochist_exec", "Dual MIT/GPL"))
            link_fd = keep(bpf.attach_raw_tracepoint("sched_process_exec", program_fd))
        except MalformedBtfError as unknown:
            raise ExecProbeUnavailableError(
                f"this kernel is not as the exec probe knows it: {unknown}"
            ) from unknown
        except bpf.ProgramRefusedError as refused:
            raise explain_refused_program(refused) from refused
        except OSError as error:
            raise ExecProbeUnavailableError(
                f"cannot attach the exec probe to sched_process_exec: {error.strerror}"
            ) from error
        undo.pop_all()
    os.close(record_fd)  # the program holds this map
    return ExecProbe(ring_fd=ring_fd, losses_fd=losses_fd, program_fd=program_fd, link_fd=link_fd)


def _create_ring(ring_bytes: int) -> int:
    entries = max(mmap.PAGESIZE, 1 << max(ring_bytes - 1, 0).bit_length())
    if entries > _LARGEST_RING_BYTES:
        raise ExecProbeUnavailableError(
            f"the exec probe's ring of {ring_bytes} bytes is too large",
            hint=f"{_LARGEST_RING_BYTES} bytes are the most that a ring can have",
        )
    try:
        return _with_locked_memory(
            lambda: bpf.create_map(
                bpf.MapType.RING_BUFFER, "prochist_ring", key=0, value=0, entries=entries
            )
        )
    except OSError as error:
        too_large = error.errno in (errno.ENOMEM, errno.E2BIG, errno.EINVAL)
        # The smallest of rings tells "too large" from "no rings here".
        if too_large and entries > mmap.PAGESIZE and _can_create_smallest_ring():
            raise ExecProbeUnavailableError(
                f"the exec probe's ring of {entries} bytes is too large: {error.strerror}",
                hint="ask for a smaller ring, or raise the memory limit of the recorder's cgroup",
            ) from error
        raise _explain_refused_map(error) from error


def _can_create_smallest_ring() -> bool:
    try:
        fd = bpf.create_map(
            bpf.MapType.RING_BUFFER, "prochist_ring", key=0, value=0, entries=mmap.PAGESIZE
        )
    except OSError:
        return False
    os.close(fd)
    return True


def _create_per_cpu_array(name: str, value_bytes: int) -> int:
    try:
        return _with_locked_memory(
            lambda: bpf.create_map(
                bpf.MapType.PER_CPU_ARRAY, name, key=4, value=value_bytes, entries=1
            )
        )
    except OSError as error:
        raise _explain_refused_map(error) from error


def _with_locked_memory(create: Callable[[], int]) -> int:
    """Create a map; if it is not permitted, try with the limit of locked memory out of the way.

    Before 5.11 maps count against RLIMIT_MEMLOCK, and exceeding it is EPERM like every
    other refusal. The limit is put back at once. Raises OSError.

    Source: bpf_charge_memlock() in kernel/bpf/syscall.c, Linux 5.10.
    """
    try:
        return create()
    except PermissionError as refused:
        before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        try:
            resource.setrlimit(
                resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
        except (OSError, ValueError):
            raise refused from None
        try:
            return create()
        finally:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def _explain_refused_map(error: OSError) -> ExecProbeUnavailableError:
    """Say why not even a map could be created."""
    match error.errno:
        case errno.EPERM:
            return ExecProbeUnavailableError(
                f"bpf(2) is not permitted{_seccomp()}",
                hint="run as root, or with CAP_BPF and CAP_PERFMON; a container needs them from "
                "its host (sysctl kernel.unprivileged_bpf_disabled does not help here)",
            )
        case errno.ENOSYS:
            return ExecProbeUnavailableError(
                f"this kernel has no bpf(2){_seccomp()}",
                hint="use a kernel built with CONFIG_BPF_SYSCALL=y, or --exec-source proc",
            )
        case errno.EINVAL:
            return ExecProbeUnavailableError(
                f"Linux {platform.release()} has no BPF ring buffer",
                hint="the exec probe needs Linux 5.8; --exec-source proc does without it",
            )
        case errno.ENOMEM:
            return ExecProbeUnavailableError(
                "no memory for the exec probe's maps",
                hint="raise the memory limit of the recorder's cgroup",
            )
        case _:
            return ExecProbeUnavailableError(f"bpf(2) failed: {error.strerror}")


def explain_refused_program(refused: bpf.ProgramRefusedError) -> ExecProbeUnavailableError:
    """Say why the program was not loaded, with the end of what the verifier said."""
    said = [line for line in refused.log.splitlines() if line.strip()]
    # Its very last lines are statistics; the reason stands before them.
    while said and said[-1].startswith(("processed ", "verification time", "stack depth")):
        said.pop()
    if not said:
        if refused.errno == errno.EPERM:
            return ExecProbeUnavailableError(
                f"loading a BPF tracing program is not permitted{_seccomp()}",
                hint="run as root, or with CAP_BPF and CAP_PERFMON",
            )
        return ExecProbeUnavailableError(f"the kernel refused the exec probe: {refused.strerror}")
    locked = any("unknown func" in line or "cannot use helper" in line for line in said[-2:])
    return ExecProbeUnavailableError(
        f"the kernel's verifier refused the exec probe: {' | '.join(said[-3:])}",
        hint="lockdown=confidentiality forbids reading kernel memory: cat /sys/kernel/security/"
        "lockdown"
        if locked
        else f"please report this with the kernel's release, {platform.release()}",
    )


def _seccomp() -> str:
    """Name a seccomp filter on this process, for it can be the one who forbids."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
            if line.startswith("Seccomp:") and line.split()[1] == "2":
                return " (a seccomp filter is in force)"
    return ""


_RECORD_HEAD_BYTES: Final = 8  # length and page offset, both u32
_BUSY, _DISCARDED, _LENGTH = 1 << 31, 1 << 30, (1 << 30) - 1


class ExecRing:
    """Reads the records of a probe whose ring's descriptor this process has.

    `receive` copies records out, `commit` gives their room back to the kernel. What
    was received and not committed is received again by the next reader, should
    this one die. The descriptor stays its giver's; poll it to wait for records.

    The kernel maps its data twice, so that a record over the end needs no care;
    here it is mapped once, as mapped pages count as this process's memory.

    Raises: ExecProbeUnavailableError when the descriptor is not a ring's.

    Source: kernel/bpf/ringbuf.c.
    """

    def __init__(self, ring_fd: int, *, fdinfo: Path = Path("/proc/self/fdinfo")) -> None:
        size = _read_ring_bytes(fdinfo / str(ring_fd))
        self._fd = ring_fd
        self._size = size
        self._consumer_page = mmap.mmap(ring_fd, mmap.PAGESIZE)
        self._pages = mmap.mmap(
            ring_fd, mmap.PAGESIZE + size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE
        )
        whole = memoryview(self._pages)
        self._consumed = memoryview(self._consumer_page).cast("Q")
        self._produced = whole[: mmap.PAGESIZE].cast("Q")
        self._data = whole[mmap.PAGESIZE :]
        self._heads = self._data.cast("I")
        whole.release()
        self._position: int = self._consumed[0]
        self._barrier = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor to poll: readable while a record is there that is not committed."""
        return self._fd

    def receive(self, limit: int = 4096) -> list[bytes]:
        """Copy out the records that came since the last call, oldest first, `limit` at most."""
        position = self._position
        produced = self._produced[0]
        if position == produced:
            return []
        self._fence()
        heads, mask = self._heads, self._size - 1
        places: list[tuple[int, int]] = []
        while position < produced and len(places) < limit:
            head = heads[(position & mask) >> 2]
            if head & _BUSY:
                break
            length = head & _LENGTH
            if not head & _DISCARDED:
                places.append(((position + _RECORD_HEAD_BYTES) & mask, length))
            position += (_RECORD_HEAD_BYTES + length + 7) & ~7
        self._fence()
        data, size = self._data, self._size
        records = [
            bytes(data[at : at + length])
            if at + length <= size
            else bytes(data[at:]) + bytes(data[: at + length - size])
            for at, length in places
        ]
        self._position = position
        return records

    def commit(self) -> None:
        """Give back the room of all that was received."""
        self._fence()
        self._consumed[0] = self._position

    def close(self) -> None:
        """Give up the mappings; the descriptor is its giver's."""
        for view in (self._heads, self._data, self._produced, self._consumed):
            view.release()
        self._pages.close()
        self._consumer_page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fence(self) -> None:
        """Keep what is before it in memory order before what is after it.

        x86 keeps loads in order by itself; on aarch64 nothing in Python promises it,
        but a lock given up and then taken is a release and an acquire, which stay in order.

        Source: Documentation/memory-barriers.txt, LOCK ACQUISITION FUNCTIONS.
        """
        with self._barrier:
            pass
        with self._barrier:
            pass


def _read_ring_bytes(fdinfo: Path) -> int:
    """Read a ring's size; bpf(2) would tell it too, but only to the privileged.

    Raises: ExecProbeUnavailableError when the descriptor is not a ring's.

    Source: bpf_map_show_fdinfo() in kernel/bpf/syscall.c.
    """
    try:
        facts = dict(line.split(":", 1) for line in fdinfo.read_text().splitlines() if ":" in line)
    except FileNotFoundError as missing:
        raise ExecProbeUnavailableError(
            "the descriptor of the exec probe's ring is closed"
        ) from missing
    if facts.get("map_type", "").strip() != str(int(bpf.MapType.RING_BUFFER)):
        raise ExecProbeUnavailableError(
            f"descriptor {fdinfo.name} is not the ring of an exec probe"
        )
    return int(facts["max_entries"])
