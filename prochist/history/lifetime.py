"""A process lifetime as far as it is known, and what can change about it.

Plain data: :mod:`prochist.history.tracker` alone decides what is set here.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from prochist.clock import EpochNs, MonotonicNs, Ticks
from prochist.history.accounting import Cost
from prochist.history.image import Image


class StartSource(IntEnum):
    """How the beginning of a life is known. Values as in table ``lifetime``."""

    FORK = 0
    SCAN = 1


class EndSource(IntEnum):
    """How the end of a life is known. Values as in table ``lifetime``."""

    EXIT = 1
    RESYNC = 2
    BOOT = 3


class ExecSource(IntEnum):
    """Where the image of a life is from. Values as in table ``lifetime``."""

    NONE = 0
    INHERITED = 1
    PROC = 2
    BPF = 3


class IdKind(IntEnum):
    """Which ids changed. Values as in table ``id_change``."""

    UID = 0
    GID = 1


class EventKind(IntEnum):
    """What else was said of a process. Values as in table ``event``."""

    SID = 0
    COMM = 1
    PTRACE_ATTACH = 2
    PTRACE_DETACH = 3
    COREDUMP = 4


class Origin(NamedTuple):
    """For whom and where a process runs. None is unknown or, where that exists, none."""

    uid: int | None = None
    euid: int | None = None
    gid: int | None = None
    egid: int | None = None
    login_uid: int | None = None
    session: int | None = None
    tty: str | None = None
    cgroup: str | None = None


NOBODY = Origin()


@dataclass(slots=True, eq=False)
class Lifetime:
    """One process lifetime, newest facts; columns of table ``lifetime`` by their names."""

    id: int
    pid: int
    parent_id: int | None = None
    ppid: int | None = None
    reaper_pid: int | None = None
    ns_pid: int | None = None
    sid: int | None = None
    image: Image | None = None
    origin: Origin | None = None

    started_at_ns: EpochNs | None = None
    start_ticks: Ticks | None = None
    start_source: StartSource = StartSource.FORK
    started_ns: MonotonicNs = MonotonicNs(0)  # noqa: RUF009  a NewType of int
    """On CLOCK_MONOTONIC, to tell events of an earlier life of the pid; after a scan to 10 ms."""

    exec_at_ns: EpochNs | None = None
    exec_count: int = 0
    exec_source: ExecSource = ExecSource.NONE
    exec_origin: Origin | None = None
    """Origin at the newest execve when it has changed since."""
    exec_ns: MonotonicNs = MonotonicNs(0)  # noqa: RUF009
    described_ns: MonotonicNs = MonotonicNs(0)  # noqa: RUF009
    """When the reading of its newest image was finished."""

    ended_at_ns: EpochNs | None = None
    ended_after_ns: EpochNs | None = None
    end_source: EndSource | None = None
    wait_status: int | None = None

    is_kernel_thread: bool = False
    thread_peak: int = 1
    cost: Cost | None = None

    tids: set[int] | None = None
    """Threads beside the leader; None when there never were any."""
    leader_gone: bool = False
    found_ns: MonotonicNs = MonotonicNs(0)  # noqa: RUF009
    """When a scan found it alive: what its tasks did before is in what was found."""
    cgroups_key: int = 0
    """Which cgroups it is in, as the exec probe tells them apart; 0 not known."""
    tracer: int = 0
    """pid of its tracer as far as reported; 0 none."""
    zombie: bool = False
    """It was found dead but not reaped."""
    stored: bool = False
    """Whether the store has a row for it."""
    reported: bool = False
    """Whether it was handed out as changed and not yet stored."""


class EarlierExec(NamedTuple):
    """An execve that is no longer the newest of its life."""

    lifetime_id: int
    ordinal: int
    at_ns: EpochNs | None
    """None: it happened while nobody looked."""
    image: Image | None
    origin: Origin | None
    source: ExecSource


class IdChange(NamedTuple):
    """A change of user or group ids."""

    lifetime_id: int
    at_ns: EpochNs
    kind: IdKind
    real: int
    effective: int


class Happened(NamedTuple):
    """Anything else that the kernel said of a process."""

    lifetime_id: int
    at_ns: EpochNs
    kind: EventKind
    detail: str | None = None
    other_id: int | None = None


@dataclass(slots=True)
class Changes:
    """What one record changed, oldest first.

    A lifetime is named once until whoever stores it sets ``reported`` back:
    what has changed since is in it.
    """

    lives: list[Lifetime] = field(default_factory=list)
    earlier_execs: list[EarlierExec] = field(default_factory=list)
    id_changes: list[IdChange] = field(default_factory=list)
    events: list[Happened] = field(default_factory=list)
    execs: int = 0
    described: int = 0

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return bool(self.lives or self.earlier_execs or self.id_changes or self.events)
