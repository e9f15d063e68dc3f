"""Lifetimes that answer a question, streamed: the columns of the view ``processes``.

The view joins fifteen tables for each row. Here a lifetime is read as its
integers, and what many lives share (boot, image, origin) is read once and kept in
bounded caches, which is several times faster; ``rows()`` gives exactly what the
view gives, and a test holds the two together. Formats that write every column
build on ``Life`` and encode the shared parts once as well (``show/jsonl.py``).

Source: schema/, view processes.
"""

import time
from collections.abc import Iterator, Sequence
from heapq import heappush, heappushpop
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from prochist.ask.filters import Plan, Question, plan
from prochist.ask.signals import NAMES
from prochist.errors import UsageError

if TYPE_CHECKING:
    import apsw

Value = int | float | str | bytes | None
Life = tuple[Any, ...]
"""One lifetime as it is stored: the values of ``LIFE``, in that order, and when, for sorting."""

IDENTITY = ("id", "parent_id")
BOOT = ("boot_id", "host")
NUMBERS = ("pid", "ppid", "reaper_pid", "ns_pid")
IMAGE = ("comm", "exe", "exec_path", "command_line", "argv", "argv_complete", "cwd")
OWNER = ("uid", "euid", "gid", "egid", "user", "login_uid", "login_user", "session", "tty")
PLACE = ("cgroup", "unit", "container_id")
TIMES = ("started_at", "started_at_ns", "ended_at", "ended_at_ns", "duration_s")
STATUS = (
    "state",
    "exit_code",
    "term_signal",
    "term_signal_name",
    "core_dumped",
    "start_source",
    "end_source",
    "exec_source",
)
COST = (
    "ended_after_ns",
    "exec_count",
    "is_kernel_thread",
    "thread_peak",
    "cpu_user_s",
    "cpu_system_s",
    "max_rss_bytes",
    "read_bytes",
    "write_bytes",
    "minor_faults",
    "major_faults",
    "voluntary_switches",
    "involuntary_switches",
)
COLUMNS = (*IDENTITY, *BOOT, *NUMBERS, *IMAGE, *OWNER, "sid", *PLACE, *TIMES, *STATUS, *COST)
"""All columns of the view ``processes``, in its order."""

LIFE = """l.id AS id, l.parent_id, l.boot, l.pid, l.ppid,
    iif(l.reaper_pid = 0, l.ppid, l.reaper_pid), iif(l.ns_pid = 0, l.pid, l.ns_pid),
    l.image, l.origin, iif(l.sid = 0, l.pid, l.sid), l.started_at_ns, l.ended_at_ns,
    ifnull(l.wait_status, 65536) * 32 + l.start_source * 16 + ifnull(l.end_source, 0) * 4
        + l.exec_source,
    l.exec_count, l.is_kernel_thread, l.thread_peak,
    l.cpu_user_us / 1e6, l.cpu_system_us / 1e6, l.max_rss_kib * 1024,
    l.read_bytes, l.write_bytes, l.minor_faults, l.major_faults,
    l.voluntary_switches, l.involuntary_switches, l.ended_after_ns"""

_OWN = {
    **{name: at for at, name in enumerate(IDENTITY)},
    **{name: at for at, name in enumerate(NUMBERS, 3)},
    "sid": 9,
    "started_at_ns": 10,
    "ended_at_ns": 11,
    **{name: at for at, name in enumerate(COST[1:], 13)},
    "ended_after_ns": 25,
}
"""Columns that are values of ``LIFE``, and where."""

_BOOTS = "SELECT id, boot_id, host FROM boot WHERE id IN (SELECT value FROM json_each(?))"
IMAGES = """
SELECT i.id, comm.value, exe.value, exec_path.value, command_line.value,
    CASE
        WHEN argv.value IS NOT NULL THEN argv.value
        WHEN command_line.value = '' THEN '[]'
        ELSE '["' || replace(command_line.value, ' ', '","') || '"]'
    END,
    i.argv_complete, cwd.value
FROM json_each(?) AS wanted
CROSS JOIN image AS i ON i.id = wanted.value
LEFT JOIN text AS comm ON comm.id = i.comm
LEFT JOIN text AS exe ON exe.id = i.exe
LEFT JOIN text AS exec_path ON exec_path.id = i.exec_path
LEFT JOIN text AS command_line ON command_line.id = i.command_line
LEFT JOIN text AS argv ON argv.id = i.argv
LEFT JOIN text AS cwd ON cwd.id = i.cwd"""
_ORIGINS = """
SELECT o.id, o.uid, o.euid, o.gid, o.egid, user.value, o.login_uid, login_user.value, o.session,
    tty.value, cgroup.value, unit.value, container.value
FROM json_each(?) AS wanted
CROSS JOIN origin AS o ON o.id = wanted.value
LEFT JOIN text AS user ON user.id = o.user
LEFT JOIN text AS login_user ON login_user.id = o.login_user
LEFT JOIN text AS tty ON tty.id = o.tty
LEFT JOIN text AS cgroup ON cgroup.id = o.cgroup
LEFT JOIN text AS unit ON unit.id = o.unit
LEFT JOIN text AS container ON container.id = o.container_id"""

_CHUNK = 1_000
"""Lives read at a time: what they share is then read with one statement each."""

_MOST_TURNED = 10_000
"""Up to so many lives are read newest first and turned in memory; more, by SQLite."""

_MOST_KEPT = 20_000
"""Shared parts kept in a cache before it starts afresh, so that memory does not grow."""

_STATES = ("running", "exited", "killed", "unknown")
_START_SOURCES = ("fork", "scan")
_END_SOURCES = (None, "exit", "resync", "boot")
_EXEC_SOURCES = ("none", "inherited", "proc", "bpf")
_NO_STATUS = 65536


class Shared:
    """Parts that many lives share, by id; each reads what it lacks with one statement."""

    def __init__(self, db: "apsw.Connection", sql: str, width: int) -> None:
        self._db = db
        self._sql = sql
        self._unknown: tuple[Value, ...] = (None,) * width
        self.parts: dict[int | None, tuple[Value, ...]] = {None: self._unknown}

    def want(self, ids: set[int | None]) -> None:
        """Make sure that the parts with these ids are in ``parts``."""
        missing = ids - self.parts.keys()
        if not missing:
            return
        if len(self.parts) > _MOST_KEPT:
            self.parts = {None: self._unknown}
            missing = ids - {None}
        wanted = f"[{','.join(map(str, missing))}]"
        self.parts |= {row[0]: row[1:] for row in self._db.execute(self._sql, (wanted,))}
        for lost in missing - self.parts.keys():
            self.parts[lost] = self._unknown  # as the view's LEFT JOIN does


class Answer:
    """Lives in order, with what they share. Iterate once."""

    def __init__(
        self, db: "apsw.Connection", lives: Iterator[Life], *, reach_ns: int | None = None
    ) -> None:
        self._lives = lives
        self.count = 0
        """Lives given so far."""
        self.reach_ns = reach_ns
        """The oldest instant looked at, where the limit cut off what is older; else None."""
        self.boots = Shared(db, _BOOTS, len(BOOT))
        self.images = Shared(db, IMAGES, len(IMAGE))
        self.origins = Shared(db, _ORIGINS, len(OWNER) + len(PLACE))

    def chunks(self) -> Iterator[list[Life]]:
        """Yield lives some hundreds at a time, what they share being at hand for each chunk."""
        size = 50  # the first rows appear at once
        while chunk := list(islice(self._lives, size)):
            self.boots.want({life[2] for life in chunk})
            self.images.want({life[7] for life in chunk})
            self.origins.want({life[8] for life in chunk})
            self.count += len(chunk)
            yield chunk
            size = _CHUNK

    def rows(self) -> Iterator[tuple[Value, ...]]:
        """Yield the values of ``COLUMNS``, exactly as the view ``processes`` has them."""
        for chunk in self.chunks():
            yield from map(self.row, chunk)

    def pick(self, names: Sequence[str]) -> Iterator[tuple[Value, ...]]:
        """Yield the values of some columns; those of the lifetime itself need nothing else read."""
        if all(name in _OWN for name in names):
            own = [_OWN[name] for name in names]
            for life in self._lives:
                self.count += 1
                yield tuple([life[at] for at in own])
            return
        places = [COLUMNS.index(name) for name in names]
        for row in self.rows():
            yield tuple([row[at] for at in places])

    def row(self, life: Life) -> tuple[Value, ...]:
        """Return the values of ``COLUMNS`` for a life of the newest chunk."""
        origin = self.origins.parts[life[8]]
        started, ended = life[10], life[11]
        return (
            life[0],
            life[1],
            *self.boots.parts[life[2]],
            *life[3:7],
            *self.images.parts[life[7]],
            *origin[:9],
            life[9],
            *origin[9:12],
            instant(started),
            started,
            instant(ended),
            ended,
            None if started is None or ended is None else (ended - started) / 1e9,
            *status(life[12]),
            life[25],
            *life[13:25],
        )


def select(
    db: "apsw.Connection",
    question: Question,
    *,
    limit: int | None = None,
    newest_first: bool = False,
    sort: str | None = None,
) -> Answer:
    """Find the lives that ``question`` keeps, in order of their start or of the column ``sort``.

    With ``limit``, the last ones in that order, as ``journalctl -n`` does; they
    are still given in that order unless ``newest_first``.

    Raises:
        UsageError: no such column; or what ``plan`` refuses.
    """
    key, join = None, ""
    if sort is not None:
        if sort not in COLUMNS:
            message = f"no such column: {sort!r}"
            raise UsageError(message, hint=f"columns: {', '.join(COLUMNS)}")
        # The name is one of COLUMNS, and nothing else.
        key, join = f'p."{sort}"', "CROSS JOIN processes AS p ON p.id = l.id"
    planned = plan(db, question)
    values = dict(planned.values)
    sql = planned.select(LIFE, key=key, join=join)
    if limit is None:
        direction = " DESC" if newest_first else ""
        sql += f" ORDER BY at{direction}, id{direction}"
        return Answer(db, db.execute(sql, values))
    if planned.is_by_end and sort is None and limit <= _MOST_TURNED:
        return _newest_by_end(db, planned, limit, newest_first=newest_first)
    sql += " ORDER BY at DESC, id DESC LIMIT :limit"
    values["limit"] = limit
    if limit > _MOST_TURNED:
        if not newest_first:
            sql = f"SELECT * FROM ({sql}) ORDER BY at, id"  # noqa: S608 - constants
        return Answer(db, db.execute(sql, values))
    found = list(db.execute(sql, values))
    reach_ns = found[-1][-1] if found and len(found) == limit and sort is None else None
    if not newest_first:
        found.reverse()
    return Answer(db, iter(found), reach_ns=reach_ns)


def _newest_by_end(
    db: "apsw.Connection", planned: Plan, limit: int, *, newest_first: bool
) -> Answer:
    """Find the ``limit`` lives that began last among many, without reading the many.

    They are read from the newest end backwards. As a life begins before it ends, no
    life further back can have begun after an end that is older than ``limit`` starts.
    """
    best: list[tuple[int, int, Life]] = []  # a heap: the oldest start on top
    sql = f"{planned.select(LIFE)} ORDER BY l.ended_at_ns DESC"
    for life in db.execute(sql, dict(planned.values)):
        key = (life[-1], life[0], life)
        if len(best) < limit:
            heappush(best, key)
            continue
        if life[11] is not None and life[11] < best[0][0]:
            break
        heappushpop(best, key)
    best.sort(reverse=newest_first)
    found = [life for _, _, life in best]
    reach_ns = min(found, key=_start)[-1] if len(found) == limit else None
    return Answer(db, iter(found), reach_ns=reach_ns)


def _start(life: Life) -> int:
    return int(life[-1])


def count(db: "apsw.Connection", question: Question) -> int:
    """Count the lives that ``question`` keeps."""
    planned = plan(db, question)
    sql = f"SELECT count(*) FROM ({planned.select('l.id')})"  # noqa: S608 - constants
    return int(db.execute(sql, dict(planned.values)).get)


class _Seconds(dict[int, str]):
    """Whole seconds of the epoch as text; most lives share theirs with others."""

    def __missing__(self, second: int) -> str:
        if len(self) > _MOST_KEPT:
            self.clear()
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self[second] = text
        return text


seconds = _Seconds()


def instant(at_ns: int | None) -> str | None:
    """Return an instant as the views write it: ``2026-11-20T03:00:00.123456Z``."""
    if at_ns is None:
        return None
    second, rest = divmod(at_ns, 1_000_000_000)
    return f"{seconds[second]}.{rest // 1000:06d}Z"


class Status(NamedTuple):
    """How a life ended, and how we know."""

    state: str
    exit_code: int | None
    term_signal: int | None
    term_signal_name: str | None
    core_dumped: int | None
    start_source: str
    end_source: str | None
    exec_source: str


def status(packed: int) -> Status:
    """Return the values of ``STATUS`` for the packed integer of a ``Life``."""
    known = _statuses.get(packed)
    if known is None:
        known = _statuses[packed] = _status(packed)
    return known


_statuses: dict[int, Status] = {}


def _status(packed: int) -> Status:
    wait = packed >> 5
    start, end, execed = packed >> 4 & 1, packed >> 2 & 3, packed & 3
    code: int | None = None
    number: int | None = None
    core: int | None = None
    if wait < _NO_STATUS:
        number = wait & 127 or None
        code = wait >> 8 & 255 if number is None else None
        core = wait >> 7 & 1
    if end == 0:
        state = _STATES[0]
    elif wait >= _NO_STATUS:
        state = _STATES[3]
    else:
        state = _STATES[1 if number is None else 2]
    name = None if number is None else NAMES[number]
    sources = (_START_SOURCES[start], _END_SOURCES[end], _EXEC_SOURCES[execed])
    return Status(state, code, number, name, core, *sources)
