"""The doctor: what this host allows, what is missing, and the remedy, one line each.

Looks, and changes nothing: sources are opened and closed again. Each check says
ok; degraded, when recording works but knows or holds less; or broken, when it
cannot work.
"""

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from prochist.capture import connector, privileges, taskstats
from prochist.capture.connector import COMM, decode_messages
from prochist.capture.execprobe import open_exec_probe
from prochist.clock import NS_PER_SECOND, read_clock
from prochist.errors import ProchistError
from prochist.service.heartbeat import Heartbeat
from prochist.store.database import open_reader, recorder_pid
from prochist.store.retention import MOST_LOG_BYTES

EVENT_BYTES = 896
"""What one event takes of the receive buffer at most, in bytes."""

FASTEST_EVENTS = 300_000
"""Events in a second, the worst that two CPUs were seen to make."""

FEW_BYTES = 256 * 1024 * 1024
LOW_BYTES = 32 * 1024 * 1024
LEAST_HELD_S = 5.0
"""A receive buffer that holds less than this of the average rate is small: storms are faster."""

_NEWEST_RATE = """
SELECT events, (committed_at_ns - coalesce(facts ->> 'started_at_ns', started_at_ns)) / 1e9,
    coalesce(facts ->> 'receive_buffer_bytes', 0)
FROM recording WHERE events > 0 ORDER BY id DESC LIMIT 1
"""

LATE_S = 10.0
"""A recorder that has not committed for so long, though it is alive, is in trouble."""


class Health(IntEnum):
    """How well something is."""

    OK = 0
    DEGRADED = 1
    BROKEN = 2


class Line(NamedTuple):
    """One thing that was looked at."""

    what: str
    health: Health
    finding: str
    remedy: str | None = None


def examine(database: Path, *, proc: str = "/proc") -> list[Line]:
    """Look at everything and return what was found."""
    checks: tuple[Callable[[], Iterator[Line]], ...] = (
        lambda: _kernel(proc),
        lambda: _namespaces(proc),
        _events,
        _exec_probe,
        _cost,
        _capabilities,
        _scheduling,
        lambda: _proc(proc),
        _clock,
        lambda: _database(database),
        lambda: _disk(database),
        lambda: _log(database),
        lambda: _readers(database, proc),
    )
    lines: list[Line] = []
    for check in checks:
        lines += check()
    return lines


def _ok(what: str, finding: str) -> Line:
    return Line(what, Health.OK, finding)


def _degraded(what: str, finding: str, remedy: str | None) -> Line:
    return Line(what, Health.DEGRADED, finding, remedy)


def _broken(what: str, finding: str, remedy: str | None) -> Line:
    return Line(what, Health.BROKEN, finding, remedy)


# --- what the kernel allows ---------------------------------------------------


def _kernel(proc: str) -> Iterator[Line]:
    release = os.uname().release
    options = _kernel_options(release, proc)
    if options is None:
        yield _ok("kernel", f"Linux {release}; its options are not told, the sources below tell")
        return
    missing = [o for o in ("CONFIG_CONNECTOR", "CONFIG_PROC_EVENTS") if options.get(o) != "y"]
    if missing:
        yield _broken(
            "kernel",
            f"Linux {release} lacks {' and '.join(missing)}=y",
            "boot a kernel that has them",
        )
        return
    optional = ("CONFIG_TASKSTATS", "CONFIG_TASK_XACCT", "CONFIG_TASK_IO_ACCOUNTING")
    wanted = (*optional, "CONFIG_BPF_SYSCALL", "CONFIG_DEBUG_INFO_BTF")
    missing = [o for o in wanted if options.get(o) != "y"]
    if missing:
        yield _degraded(
            "kernel", f"Linux {release} lacks {', '.join(missing)}", "boot a kernel that has them"
        )
    else:
        yield _ok("kernel", f"Linux {release} has all options that prochist uses")


def _kernel_options(release: str, proc: str) -> dict[str, str] | None:
    import gzip

    with contextlib.suppress(OSError):
        return _parse_options(gzip.decompress(Path(f"{proc}/config.gz").read_bytes()).decode())
    for place in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        with contextlib.suppress(OSError):
            return _parse_options(Path(place).read_text(encoding="utf-8"))
    return None


def _parse_options(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return {name: value for name, _, value in pairs}


def _namespaces(proc: str) -> Iterator[Line]:
    missing = connector.missing_namespaces(proc)
    if missing:
        yield _broken(
            "namespaces",
            f"not in the host's {' and '.join(missing)} namespace",
            "run on the host, or: docker run --pid=host --network=host --userns=host",
        )
    else:
        yield _ok("namespaces", "the host's own for pids and users")


def _events() -> Iterator[Line]:
    """Look whether the kernel acknowledges a subscription, and whether events then flow."""
    wanted = 64 * 1024 * 1024
    try:
        subscription = connector.open_subscription(wanted)
    except ProchistError as error:
        yield _broken("events", error.message, error.hint)
        return
    with subscription.socket as sock:
        yield _ok("acknowledgement", "the kernel says that it sends process events")
        yield _heartbeat(sock)
        size = subscription.receive_buffer_bytes
        seconds = size / EVENT_BYTES / FASTEST_EVENTS
        finding = f"{size / 2**20:.0f} MiB hold {size // EVENT_BYTES:,} events"
        finding += f", {seconds:.2g} s of the worst storm"
        if subscription.forced:
            yield _ok("receive buffer", finding)
        else:
            yield _degraded(
                "receive buffer",
                finding + ", limited by net.core.rmem_max",
                "run as root or with CAP_NET_ADMIN, or: sysctl net.core.rmem_max=134217728",
            )


def _heartbeat(sock: Any) -> Line:  # noqa: ANN401  passed on as it is
    heartbeat = Heartbeat()
    beats = heartbeat.beat()
    own = os.getpid()
    seen = 0
    deadline = time.monotonic() + 2
    while seen < beats and time.monotonic() < deadline:
        try:
            datagram, sender = sock.recvfrom(4096)
        except BlockingIOError:
            time.sleep(0.005)
            continue
        fitted = None if sender[0] else connector.fit_message(datagram)
        if fitted is not None:
            message = next(decode_messages(fitted))
            seen += message.what == COMM and message.word1 == own
    if seen >= beats:
        return _ok("heartbeat", f"an event of our own came from each of {beats} CPUs")
    return _broken(
        "heartbeat",
        f"of {beats} events of our own, {seen} came: another program has silenced the connector",
        "a recorder subscribes again by itself; restart it, or find who sends IGNORE",
    )


def _exec_probe() -> Iterator[Line]:
    try:
        open_exec_probe(ring_bytes=1 << 16).close()
    except ProchistError as error:
        yield _degraded(
            "exec probe",
            f"{error.message}; command lines come from /proc",
            error.hint or "needs root or CAP_BPF and CAP_PERFMON, Linux 5.8 and BTF",
        )
    else:
        yield _ok("exec probe", "loads and attaches: command lines are complete, free of races")


def _cost() -> Iterator[Line]:
    try:
        subscription = taskstats.open_taskstats(1 << 20)
    except ProchistError as error:
        yield _degraded("cost", f"{error.message}; what lives cost is unknown", error.hint)
    else:
        version = subscription.version
        taskstats.close_taskstats(subscription)
        yield _ok("cost", f"taskstats version {version}")


def _capabilities() -> Iterator[Line]:
    has = privileges.permitted()
    probing = (privileges.Capability.BPF, privileges.Capability.PERFMON)
    wanted = (*sorted(privileges.RECORDING), *probing)
    missing = [f"CAP_{c.name}" for c in wanted if c not in has]
    if missing:
        yield _degraded(
            "permissions",
            f"without {', '.join(missing)}",
            "run as root, or use contrib/prochist.service",
        )
    else:
        yield _ok("permissions", "every capability that a source needs")


def _scheduling() -> Iterator[Line]:
    own = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        soft, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
        remedy = "run as root, or with CAP_SYS_NICE or LimitRTPRIO=5"
        yield _degraded("scheduling", f"no real time (RLIMIT_RTPRIO is {soft})", remedy)
        return
    os.sched_setscheduler(0, *own)
    with contextlib.suppress(OSError, ValueError):
        path = Path("/proc/sys/kernel/sched_rt_runtime_us")
        if int(path.read_text(encoding="ascii")) == 0:
            yield _degraded(
                "scheduling",
                "kernel.sched_rt_runtime_us is 0",
                "sysctl kernel.sched_rt_runtime_us=950000",
            )
            return
    yield _ok("scheduling", "SCHED_RR for the receiver")


def _proc(proc: str) -> Iterator[Line]:
    options = ""
    with contextlib.suppress(OSError):
        for line in Path(f"{proc}/self/mounts").read_text(encoding="utf-8").splitlines():
            fields = line.split(" ")
            if fields[1:3] == ["/proc", "proc"]:
                options = fields[3]
    hidden = next((o for o in options.split(",") if o.startswith("hidepid=")), "hidepid=0")
    if hidden in {"hidepid=0", "hidepid=off"}:
        yield _ok("/proc", "shows every process")
    elif privileges.Capability.SYS_PTRACE in privileges.permitted():
        yield _ok("/proc", f"is mounted with {hidden}, which CAP_SYS_PTRACE passes")
    else:
        yield _degraded(
            "/proc",
            f"is mounted with {hidden}: other users' processes are not described",
            "run as root or with CAP_SYS_PTRACE, or mount it with gid= of prochist's group",
        )


def _clock() -> Iterator[Line]:
    clock = read_clock()
    now_s = clock.epoch(clock.monotonic_ns) / NS_PER_SECOND
    built_s = Path(__file__).stat().st_mtime
    if now_s < built_s - 86_400:
        yield _degraded(
            "clock",
            "the wall clock is older than this program: times will be wrong",
            "set it: timedatectl set-ntp true",
        )
        return
    yield _ok("clock", "is later than this program was installed; steps are recorded as gaps")


# --- the database ---------------------------------------------------------------


def _database(path: Path) -> Iterator[Line]:
    try:
        pid = recorder_pid(path) if path.exists() else None
        if not path.exists():
            yield _degraded("database", f"there is none at {path}", "start: prochist record")
            return
        with contextlib.closing(open_reader(path)) as db:
            committed = db.execute("SELECT max(committed_at_ns) FROM recording").get
            gaps = db.execute("SELECT count(*), coalesce(sum(lost), 0) FROM gap").get
            newest = [
                (float(str(events)), float(str(seconds)), int(str(size)))
                for events, seconds, size in db.execute(_NEWEST_RATE)
            ]
    except (ProchistError, apsw.Error) as error:
        hint = error.hint if isinstance(error, ProchistError) else None
        yield _broken("database", str(error), hint)
        return
    clock = read_clock()
    age_s = (clock.epoch(clock.monotonic_ns) - (committed or 0)) / NS_PER_SECOND
    mode = path.stat().st_mode & 0o777
    if mode & 0o007:
        yield _degraded("permissions of it", f"{path} has mode {mode:04o}", f"chmod 0640 {path}")
    if pid is None:
        yield _degraded(
            "recorder", f"none is alive for {path}", "systemctl start prochist, or: prochist record"
        )
    elif age_s > LATE_S:
        yield _degraded(
            "recorder",
            f"alive (pid {pid}), but committed nothing for {age_s:.0f} s",
            "see its messages: journalctl -u prochist",
        )
    else:
        yield _ok("recorder", f"alive (pid {pid}), committed {age_s:.2f} s ago")
    yield _ok("history", f"{gaps[0]} gaps, {gaps[1]} events lost since it began")
    for events, seconds, buffer_bytes in newest:
        if seconds > 0 and buffer_bytes:
            yield _rate(events / seconds, buffer_bytes)


def _rate(events_per_s: float, buffer_bytes: int) -> Line:
    """Compare the receive buffer of the newest recording with what came."""
    held_s = buffer_bytes / EVENT_BYTES / events_per_s
    finding = (
        f"{events_per_s:,.0f} events/s on average; its receive buffer holds {held_s:,.0f} s of it"
    )
    if held_s < LEAST_HELD_S:
        return _degraded("rate", finding, "record with a larger --receive-buffer")
    return _ok("rate", finding)


def _disk(path: Path) -> Iterator[Line]:
    place = path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        space = os.statvfs(place)
    except OSError as error:
        yield _broken("disk", f"{place}: {error.strerror}", None)
        return
    free = space.f_bavail * space.f_frsize
    finding = f"{free / 2**20:,.0f} MiB free at {place}"
    if space.f_flag & os.ST_RDONLY:
        yield _broken("disk", f"{place} is mounted read-only", f"mount -o remount,rw {place}")
    elif free < LOW_BYTES:
        yield _broken("disk", finding, "free some, or record with --max-size")
    elif free < FEW_BYTES or not space.f_favail:
        yield _degraded("disk", finding, "free some, or record with --max-size")
    else:
        yield _ok("disk", finding)


def _log(path: Path) -> Iterator[Line]:
    with contextlib.suppress(OSError):
        size = Path(f"{path}-wal").stat().st_size
        finding = f"{size / 2**20:.1f} MiB"
        if size > MOST_LOG_BYTES * 4 // 3:
            yield _degraded(
                "write-ahead log",
                finding + ": a reader keeps a transaction open",
                "end the reader that is named below, if it is old",
            )
        else:
            yield _ok("write-ahead log", finding)


def _readers(path: Path, proc: str) -> Iterator[Line]:
    """Name the other processes that have the database open, as far as /proc lets us see them."""
    try:
        wanted = path.stat()
        recorder = recorder_pid(path)
    except (OSError, ProchistError):
        return
    found = []
    with os.scandir(proc) as entries:
        pids = [entry.name for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        if int(pid) in (os.getpid(), recorder):
            continue
        with contextlib.suppress(OSError):
            if _has_open(f"{proc}/{pid}/fd", wanted):
                comm = Path(f"{proc}/{pid}/comm").read_bytes().strip()
                found.append(f"{comm.decode('utf-8', 'backslashreplace')!r} ({pid})")
    names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")  # noqa: PLR2004  as many as fit a line
    yield _ok("other readers", names or "none")


def _has_open(folder: str, wanted: os.stat_result) -> bool:
    with os.scandir(folder) as fds:
        for fd in fds:
            with contextlib.suppress(OSError):
                if os.path.samestat(fd.stat(), wanted):
                    return True
    return False


__all__ = ["Health", "Line", "examine"]
