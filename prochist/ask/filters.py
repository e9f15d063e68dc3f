"""Which lifetimes a question keeps, and by which index they are found.

A filter is one row of ``FILTERS``: an option and a condition with one bound value.
Options of one kind repeated are OR, of different kinds AND. Nothing from outside
becomes part of the SQL: it is put together from the constants of this file.

The index is chosen here and named with INDEXED BY, because SQLite without
statistics cannot know what only we know (most lives are short; a command line that
matches is rare), and a plan that changes with the data would surprise.

Definitions, for every option alike
    * A life reaches from its start to its end; a running one has no end; one whose
      start was not seen (``started_at_ns`` NULL) is at the instant of its end.
    * Windows include both their ends. ``alive_at`` T means start <= T < end.

Source: sqlite.org/lang_indexedby.html; sqlite.org/queryplanner.html.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from prochist.errors import UsageError

if TYPE_CHECKING:
    import apsw

    from prochist.clock import EpochNs

LONG_LIFE_NS = 60_000_000_000
"""Lives at least this long are in the index ``lifetime_long``."""

_FEW_LIVES = 20_000
"""Up to so many lives of the matching images, or failed ones, their index beats the walk
through time."""

_UNIT_SUFFIXES = (
    ".service .scope .slice .socket .mount .timer .swap .path .target .device .automount"
)


class Question(NamedTuple):
    """What a user wants to know; None and the empty tuple ask for nothing."""

    now_ns: "EpochNs"
    since_ns: "EpochNs | None" = None
    until_ns: "EpochNs | None" = None
    exited_since_ns: "EpochNs | None" = None
    exited_until_ns: "EpochNs | None" = None
    started_since_ns: "EpochNs | None" = None
    started_until_ns: "EpochNs | None" = None
    alive_at_ns: "EpochNs | None" = None
    boots: tuple[str, ...] | None = None  # values of boot.boot_id
    running: bool = False
    exited: bool = False
    failed: bool = False
    kernel_threads: bool = False
    ids: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    ppids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()  # globs
    exes: tuple[str, ...] = ()  # globs
    greps: tuple[str, ...] = ()  # regular expressions
    users: tuple[str, ...] = ()  # names or uids
    login_users: tuple[str, ...] = ()
    units: tuple[str, ...] = ()  # globs
    containers: tuple[str, ...] = ()  # beginnings of ids
    ttys: tuple[str, ...] = ()
    sessions: tuple[int, ...] = ()
    exit_codes: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    min_duration_ns: int | None = None
    max_duration_ns: int | None = None
    descendants_of: tuple[int, ...] | None = None  # ids
    ancestors_of: tuple[int, ...] | None = None  # ids

    @property
    def has_window(self) -> bool:
        """Say whether any option names a time."""
        return self.window != (None, None) or self.alive_at_ns is not None

    @property
    def window(self) -> "tuple[EpochNs | None, EpochNs | None]":
        """Return the first and last instant that an answer can depend on; None: no limit."""
        at = self.alive_at_ns
        lower = [self.since_ns, self.exited_since_ns, self.started_since_ns, at]
        upper = [self.until_ns, self.exited_until_ns, self.started_until_ns, at]
        return (
            max((t for t in lower if t is not None), default=None),
            min((t for t in upper if t is not None), default=None),
        )

    @property
    def surely_failed(self) -> bool:
        """Say whether everything that is kept has a wait status other than 0."""
        return (
            self.failed or bool(self.signals) or bool(self.exit_codes and 0 not in self.exit_codes)
        )


class Filter(NamedTuple):
    """One kind of option: what it demands of ``lifetime AS l``, and its bound value."""

    option: str
    condition: str
    value: Callable[[Question], object]  # None: not asked


def _array(values: Iterable[object] | None) -> str | None:
    """Bind many values as one: the JSON array that json_each() reads, None for none asked."""
    found = None if values is None else list(values)
    return json.dumps(found) if found else None


def _names_or_numbers(values: Iterable[str]) -> str | None:
    return _array(int(v) if v.isascii() and v.isdigit() else v for v in values)


def _unit_globs(globs: Iterable[str]) -> str | None:
    """Let ``ssh`` mean ``ssh.service``, as systemctl does."""
    suffixes = tuple(_UNIT_SUFFIXES.split())
    return _array(g if g.endswith(suffixes) else f"{g}.service" for g in globs)


def _flag(*, asked: bool) -> int | None:
    return 1 if asked else None


# Every condition mentions its value, also where it is only a flag: one kind of row.
FILTERS: tuple[Filter, ...] = (
    Filter("since", "ifnull(l.ended_at_ns, :since) >= :since", lambda q: q.since_ns),
    Filter(
        "until",
        "coalesce(l.started_at_ns, l.ended_at_ns, :until) <= :until",
        lambda q: q.until_ns,
    ),
    Filter("exited-since", "l.ended_at_ns >= :exited_since", lambda q: q.exited_since_ns),
    Filter("exited-until", "l.ended_at_ns <= :exited_until", lambda q: q.exited_until_ns),
    Filter("started-since", "l.started_at_ns >= :started_since", lambda q: q.started_since_ns),
    Filter("started-until", "l.started_at_ns <= :started_until", lambda q: q.started_until_ns),
    Filter(
        "alive-at",
        "l.started_at_ns <= :alive_at AND (l.ended_at_ns IS NULL OR l.ended_at_ns > :alive_at)",
        lambda q: q.alive_at_ns,
    ),
    Filter(
        "boot",
        "l.boot IN (SELECT id FROM boot WHERE boot_id IN (SELECT value FROM json_each(:boot)))",
        lambda q: None if q.boots is None else json.dumps(q.boots),
    ),
    Filter("running", "l.end_source IS NULL AND :running", lambda q: _flag(asked=q.running)),
    Filter("exited", "l.end_source IS NOT NULL AND :exited", lambda q: _flag(asked=q.exited)),
    Filter("failed", "l.wait_status <> 0 AND :failed", lambda q: _flag(asked=q.surely_failed)),
    Filter(
        "exit",
        "l.wait_status & 127 = 0"
        " AND l.wait_status >> 8 & 255 IN (SELECT value FROM json_each(:exit))",
        lambda q: _array(q.exit_codes),
    ),
    Filter(
        "signal",
        "l.wait_status & 127 IN (SELECT value FROM json_each(:signal))",
        lambda q: _array(q.signals),
    ),
    Filter("id", "l.id IN (SELECT value FROM json_each(:id))", lambda q: _array(q.ids)),
    Filter("pid", "l.pid IN (SELECT value FROM json_each(:pid))", lambda q: _array(q.pids)),
    Filter(
        "ppid",
        "l.id IN (SELECT child.id FROM lifetime AS parent INDEXED BY lifetime_pid"
        " CROSS JOIN lifetime AS child INDEXED BY lifetime_parent ON child.parent_id = parent.id"
        " WHERE parent.pid IN (SELECT value FROM json_each(:ppid))"
        " UNION ALL SELECT id FROM lifetime INDEXED BY lifetime_parent"
        " WHERE parent_id IS NULL AND ppid IN (SELECT value FROM json_each(:ppid)))",
        lambda q: _array(q.ppids),
    ),
    Filter(
        "user",
        "l.origin IN (SELECT o.id FROM origin AS o LEFT JOIN text AS t ON t.id = o.user"
        " WHERE o.uid IN (SELECT value FROM json_each(:user))"
        " OR t.value IN (SELECT value FROM json_each(:user)))",
        lambda q: _names_or_numbers(q.users),
    ),
    Filter(
        "login-user",
        "l.origin IN (SELECT o.id FROM origin AS o LEFT JOIN text AS t ON t.id = o.login_user"
        " WHERE o.login_uid IN (SELECT value FROM json_each(:login_user))"
        " OR t.value IN (SELECT value FROM json_each(:login_user)))",
        lambda q: _names_or_numbers(q.login_users),
    ),
    Filter(
        "unit",
        "l.origin IN (SELECT o.id FROM origin AS o JOIN text AS t ON t.id = o.unit"
        " JOIN json_each(:unit) AS wanted ON t.value GLOB wanted.value)",
        lambda q: _unit_globs(q.units),
    ),
    Filter(
        "container",
        "l.origin IN (SELECT o.id FROM origin AS o JOIN text AS t ON t.id = o.container_id"
        " JOIN json_each(:container) AS wanted"
        " ON substr(t.value, 1, length(wanted.value)) = wanted.value)",
        lambda q: _array(q.containers),
    ),
    Filter(
        "tty",
        "l.origin IN (SELECT o.id FROM origin AS o JOIN text AS t ON t.id = o.tty"
        " WHERE t.value IN (SELECT value FROM json_each(:tty)))",
        lambda q: _array(
            name
            for t in q.ttys
            for name in (t.removeprefix("/dev/"), f"/dev/{t.removeprefix('/dev/')}")
        ),
    ),
    Filter(
        "session",
        "l.origin IN (SELECT id FROM origin"
        " WHERE session IN (SELECT value FROM json_each(:session)))",
        lambda q: _array(q.sessions),
    ),
    Filter(
        "min-duration",
        "ifnull(l.ended_at_ns, :now) - l.started_at_ns >= :min_duration",
        lambda q: q.min_duration_ns,
    ),
    Filter(
        "max-duration",
        "ifnull(l.ended_at_ns, :now) - l.started_at_ns <= :max_duration",
        lambda q: q.max_duration_ns,
    ),
    Filter(
        "descendants-of",
        "l.id IN (WITH RECURSIVE kin (id) AS ("
        "SELECT child.id FROM json_each(:descendants_of) AS root"
        " JOIN lifetime AS child INDEXED BY lifetime_parent ON child.parent_id = root.value"
        " UNION SELECT child.id FROM kin"
        " JOIN lifetime AS child INDEXED BY lifetime_parent ON child.parent_id = kin.id)"
        " SELECT id FROM kin)",
        lambda q: None if q.descendants_of is None else json.dumps(q.descendants_of),
    ),
    Filter(
        "ancestors-of",
        "l.id IN (WITH RECURSIVE kin (id) AS ("
        "SELECT life.parent_id FROM json_each(:ancestors_of) AS root"
        " JOIN lifetime AS life ON life.id = root.value WHERE life.parent_id IS NOT NULL"
        " UNION SELECT life.parent_id FROM kin"
        " JOIN lifetime AS life ON life.id = kin.id WHERE life.parent_id IS NOT NULL)"
        " SELECT id FROM kin)",
        lambda q: None if q.ancestors_of is None else json.dumps(q.ancestors_of),
    ),
    Filter(
        "kernel-threads",
        "l.is_kernel_thread = :kernel_threads",
        # Who names a life by its number has asked for it, kernel thread or not.
        lambda q: None if q.kernel_threads or q.ids or q.pids else 0,
    ),
)


class Branch(NamedTuple):
    """A part of the lives to look at, and the index that finds it."""

    source: str  # constant: INDEXED BY … or NOT INDEXED
    condition: str
    at: str = "coalesce(l.started_at_ns, l.ended_at_ns, 0)"  # when, for sorting


_BY_END = ("INDEXED BY lifetime_ended", "INDEXED BY lifetime_failed")


class Plan(NamedTuple):
    """Branches that do not overlap, the conditions that all share, and the bound values."""

    branches: tuple[Branch, ...]
    condition: str
    values: Mapping[str, object]

    @property
    def is_by_end(self) -> bool:
        """Say whether the lives come from one index on their ends, none without one."""
        return len(self.branches) == 1 and self.branches[0].source in _BY_END

    def select(self, columns: str, *, key: str | None = None, join: str = "") -> str:
        """Return the SELECT over all branches; the columns ``at`` and ``id`` are for sorting."""
        return " UNION ALL ".join(
            f"SELECT {columns}, {key or branch.at} AS at FROM lifetime AS l {branch.source} {join}"  # noqa: S608 - constants
            f" WHERE {branch.condition} AND {self.condition}"
            for branch in self.branches
        )


def plan(db: "apsw.Connection", question: Question) -> Plan:
    """Decide how to find the lives that ``question`` keeps.

    Reads the texts and images that the patterns match, but no lives.

    Raises:
        UsageError: a pattern is not one, or takes too long; the window is empty.
    """
    _refuse_empty_windows(question)
    conditions: list[str] = []
    values: dict[str, object] = {"now": question.now_ns}
    for filter_ in FILTERS:
        value = filter_.value(question)
        if value is not None:
            conditions.append(f"({filter_.condition})")
            values[filter_.option.replace("-", "_")] = value
    if question.comms or question.exes or question.greps:
        from prochist.ask.patterns import matching_images

        images = matching_images(db, question.comms, question.exes, question.greps)
        conditions.append("l.image IN (SELECT value FROM json_each(:image))")
        values["image"] = json.dumps(images)
    branches = _by_number(question) or _by_image(db, values) or _by_failure(db, question)
    if not branches:
        branches, bounds = _by_time(question)
        values |= bounds
    return Plan(branches, " AND ".join(conditions) or "1", values)


def _refuse_empty_windows(question: Question) -> None:
    for name, since, until in (
        ("", question.since_ns, question.until_ns),
        ("exited-", question.exited_since_ns, question.exited_until_ns),
        ("started-", question.started_since_ns, question.started_until_ns),
    ):
        if since is not None and until is not None and since > until:
            message = f"--{name}since is later than --{name}until"
            raise UsageError(message, hint="exchange them")


def _by_number(question: Question) -> tuple[Branch, ...]:
    named = question.ids or question.ppids
    if named or question.descendants_of is not None or question.ancestors_of is not None:
        return (Branch("NOT INDEXED", "1"),)
    if question.pids:
        return (Branch("INDEXED BY lifetime_pid", "1"),)
    if question.running:
        return (Branch("INDEXED BY lifetime_running", "1"),)
    return ()


def _by_image(db: "apsw.Connection", values: Mapping[str, object]) -> tuple[Branch, ...]:
    if "image" not in values:
        return ()
    sql = (
        "SELECT count(*) FROM (SELECT 1 FROM lifetime INDEXED BY lifetime_image"
        " WHERE image IN (SELECT value FROM json_each(?)) LIMIT ?)"
    )
    lives = db.execute(sql, (values["image"], _FEW_LIVES + 1)).get
    return (Branch("INDEXED BY lifetime_image", "1"),) if lives <= _FEW_LIVES else ()


def _by_failure(db: "apsw.Connection", question: Question) -> tuple[Branch, ...]:
    """Use the index of failed lives unless there are many, and an end to the window."""
    if not question.surely_failed:
        return ()
    since_ns = max(
        (t for t in (question.since_ns, question.exited_since_ns) if t is not None), default=0
    )
    if question.until_ns is not None:
        sql = (
            "SELECT count(*) FROM (SELECT 1 FROM lifetime INDEXED BY lifetime_failed"
            " WHERE wait_status <> 0 AND ended_at_ns >= ? LIMIT ?)"
        )
        if db.execute(sql, (since_ns, _FEW_LIVES + 1)).get > _FEW_LIVES:
            return ()
    if question.since_ns is None:  # an --exited-since is among the conditions already
        return (Branch("INDEXED BY lifetime_failed", "1"),)
    return (Branch("INDEXED BY lifetime_failed", "l.ended_at_ns >= :since"),)


def _by_time(q: Question) -> tuple[tuple[Branch, ...], dict[str, object]]:
    if q.exited_since_ns is not None or q.exited_until_ns is not None:
        return (Branch("INDEXED BY lifetime_ended", "1"),), {}
    if q.started_since_ns is not None or q.started_until_ns is not None:
        return (Branch("INDEXED BY lifetime_started", "1", "l.started_at_ns"),), {}
    if q.alive_at_ns is not None:
        return _overlapping(q.alive_at_ns, q.alive_at_ns)
    return _overlapping(q.since_ns, q.until_ns)


def _overlapping(
    since_ns: "EpochNs | None", until_ns: "EpochNs | None"
) -> tuple[tuple[Branch, ...], dict[str, object]]:
    """Split the lives that can overlap a window so that each part is a short range of an index.

    A life that began more than a minute before the window and reaches into it is
    a long one or a running one. Comparing ``ended_at_ns`` alone would read
    everything since the window began.
    """
    bounds: dict[str, object] = {}
    near = ["l.started_at_ns IS NOT NULL"]
    branches = [
        Branch("INDEXED BY lifetime_started", "l.started_at_ns IS NULL"),
    ]
    if until_ns is not None:
        near.append("l.started_at_ns <= :window_until")
        bounds["window_until"] = until_ns
    if since_ns is not None:
        near.append("l.started_at_ns >= :near")
        bounds |= {"near": since_ns - LONG_LIFE_NS, "window_since": since_ns}
        branches += [
            Branch(
                "INDEXED BY lifetime_long",
                "l.ended_at_ns - l.started_at_ns >= 60000000000"
                " AND l.started_at_ns < :near AND l.ended_at_ns >= :window_since",
                "l.started_at_ns",
            ),
            Branch(
                "INDEXED BY lifetime_running",
                "l.end_source IS NULL AND l.started_at_ns < :near",
                "l.started_at_ns",
            ),
        ]
    branches.append(Branch("INDEXED BY lifetime_started", " AND ".join(near), "l.started_at_ns"))
    return tuple(branches), bounds


_REFERENCE = r"(?:(id|pid):)?([0-9]{1,18})"


def find_lives(db: "apsw.Connection", text: str) -> tuple[int, ...]:
    """Return the ids of the lives that ``text`` names, oldest first; empty if there is none.

    A plain number is a pid, and means all lives that had it; where no life had
    it, it is an id. ``id:N`` and ``pid:N`` leave no doubt.

    Raises:
        UsageError: it is no number.
    """
    match = re.fullmatch(_REFERENCE, text.strip())
    if match is None:
        message = f"not a process: {text!r}"
        raise UsageError(message, hint="accepted: a pid, id:N (the column id), pid:N")
    found: tuple[int, ...] = ()
    if match[1] != "id":
        sql = "SELECT id FROM lifetime INDEXED BY lifetime_pid WHERE pid = ? ORDER BY id"
        found = tuple(row[0] for row in db.execute(sql, (int(match[2]),)))
    if match[1] != "pid" and not found:
        sql = "SELECT id FROM lifetime WHERE id = ?"
        found = tuple(row[0] for row in db.execute(sql, (int(match[2]),)))
    return found


def find_boots(db: "apsw.Connection", text: str) -> tuple[str, ...]:
    """Return the boot_id that ``text`` names: ``0`` the newest recorded, ``-1`` the one before.

    Otherwise it is the beginning of a boot_id, with or without its hyphens.

    Raises:
        UsageError: there is no such boot, or more than one.
    """
    sql = "SELECT boot_id FROM boot GROUP BY boot_id ORDER BY max(booted_at_ns) DESC, max(id) DESC"
    boots = [row[0] for row in db.execute(sql)]
    wanted = text.strip().lower()
    if re.fullmatch(r"0|-[0-9]{1,6}", wanted, re.ASCII):
        back = -int(wanted)
        found = boots[back : back + 1]
    else:
        plain = wanted.replace("-", "")
        found = [b for b in boots if plain and b.replace("-", "").startswith(plain)]
    if len(found) != 1:
        message = f"{'no' if not found else 'more than one'} boot {text.strip()!r} in this history"
        raise UsageError(message, hint="see them with: prochist boots")
    return tuple(found)
