"""What happened, in order: the events of the lives that a question keeps.

Lives come in the order of their start (``ask/processes.py``). Some hundreds at a
time, what is known of them besides is read with a few statements, and whatever
cannot be preceded by a later life any more is given out. So the first events come
at once, and memory holds only the events of lives that were open at the same time.

An event carries the image and the origin that its process had *then*. What a process
was between its fork and its first execve is not kept; its first image stands for it.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from prochist.ask.completeness import Gap, Verdict
from prochist.ask.filters import Question
from prochist.ask.processes import Answer, Life, Status, Value, instant, select, status

if TYPE_CHECKING:
    import apsw

KINDS = (
    *("started", "exec", "uid", "gid", "sid", "comm", "ptrace_attach", "ptrace_detach"),
    *("coredump", "ended", "gap", "boot"),
)
"""What an event can be. The last two belong to no process."""

COLUMNS = (
    *("at", "at_ns", "event", "process_id", "parent_id", "boot_id", "host", "pid", "ppid"),
    *("comm", "exe", "command_line", "cwd", "uid", "user", "login_user", "unit", "container_id"),
    *("parent_comm", "parent_exe", "parent_command_line", "source", "state", "exit_code"),
    *("term_signal_name", "core_dumped", "duration_s", "real", "effective", "other_id"),
    *("until_at", "until_at_ns", "lost", "detail"),
)
"""The columns of an event as a record; names as in the views where there is one."""

PARENT_IMAGE = """iif(p.exec_count > 1 AND p.exec_at_ns > l.started_at_ns, ifnull(
    (SELECT e.image FROM earlier_exec AS e WHERE e.lifetime = p.id AND e.at_ns <= l.started_at_ns
    ORDER BY e.ordinal DESC LIMIT 1), p.image), p.image)"""
"""SQL: what the parent ``p`` ran when it forked ``l``."""

_MORE = f"""
SELECT l.id, l.exec_at_ns, ifnull(l.exec_origin, l.origin), {PARENT_IMAGE}
FROM json_each(?) AS wanted
CROSS JOIN lifetime AS l ON l.id = wanted.value
LEFT JOIN lifetime AS p ON p.id = l.parent_id"""  # noqa: S608 - a constant of this file
_EARLIER = """
SELECT e.lifetime, e.at_ns, e.image, e.origin, e.exec_source FROM json_each(?) AS wanted
CROSS JOIN earlier_exec AS e ON e.lifetime = wanted.value ORDER BY e.lifetime, e.ordinal"""
_ID_CHANGES = """
SELECT c.lifetime, c.at_ns, c.kind, c.real, c.effective FROM json_each(?) AS wanted
CROSS JOIN id_change AS c INDEXED BY id_change_lifetime ON c.lifetime = wanted.value
ORDER BY c.id"""
_HAPPENED = """
SELECT e.lifetime, e.at_ns, e.kind, t.value, e.other FROM json_each(?) AS wanted
CROSS JOIN event AS e INDEXED BY event_lifetime ON e.lifetime = wanted.value
LEFT JOIN text AS t ON t.id = e.detail ORDER BY e.id"""
_BOOTS = """
SELECT booted_at_ns, boot_id, host, kernel FROM boots
WHERE booted_at_ns BETWEEN ifnull(:since, booted_at_ns) AND ifnull(:until, booted_at_ns)
ORDER BY booted_at_ns, first_seen_at_ns"""

_HAPPENED_KINDS = KINDS[4:9]
_EXEC_SOURCES = ("none", "inherited", "proc", "bpf")

Shared = tuple[Value, ...]


class Subject(NamedTuple):
    """The life that events belong to, and what it shares with others."""

    life: Life
    boot: Shared  # values of processes.BOOT
    image: Shared  # values of processes.IMAGE: the newest
    origin: Shared  # values of processes.OWNER and PLACE: the newest
    parent_image: Shared  # what the parent ran when it forked this life


class Boot(NamedTuple):
    """The start of a host."""

    boot_id: str
    host: str
    kernel: str


class Event(NamedTuple):
    """One thing that happened; ``subject`` is None for a gap and for a boot."""

    at_ns: int
    kind: str
    subject: Subject | None
    image: Shared = ()  # values of processes.IMAGE, as they were then
    origin: Shared = ()  # values of processes.OWNER and PLACE, as they were then
    source: str | None = None  # how it is known: fork, scan; proc, bpf; exit, resync, boot
    ids: tuple[int, int] | None = None  # real, effective
    detail: str | None = None
    other_id: int | None = None
    note: Gap | Boot | None = None

    @property
    def status(self) -> Status | None:
        """Return how the life ended, None unless this is its end."""
        ended = self.subject if self.kind == "ended" else None
        return None if ended is None else status(ended.life[12])

    @property
    def duration_ns(self) -> int | None:
        """Return how long the life was, None unless this is its end and the start is known."""
        if self.kind != "ended" or self.subject is None or self.subject.life[10] is None:
            return None
        return int(self.subject.life[11] - self.subject.life[10])

    def row(self) -> tuple[Value, ...]:
        """Return the values of ``COLUMNS``."""
        subject, note = self.subject, self.note
        head = (instant(self.at_ns), self.at_ns, self.kind)
        if subject is None:
            if isinstance(note, Boot):
                middle = (note.boot_id, note.host)
                return (*head, None, None, *middle, *(None,) * 26, f"kernel {note.kernel}")
            gap = note or Gap(self.at_ns, self.at_ns, "", None, None)
            tail = (instant(gap.until_at_ns), gap.until_at_ns, gap.lost)
            words = f"{gap.kind}: {gap.detail}" if gap.detail else gap.kind
            return (*head, *(None,) * 27, *tail, words)
        life, image, origin, parent = subject.life, self.image, self.origin, subject.parent_image
        ended = self.status
        duration_ns = self.duration_ns
        return (
            *head, life[0], life[1], *subject.boot, life[3], life[4],
            image[0], image[1], image[3], image[6],
            origin[0], origin[4], origin[6], origin[10], origin[11],
            parent[0], parent[1], parent[3], self.source,
            *((None,) * 4 if ended is None else (ended[0], ended[1], ended[3], ended[4])),
            None if duration_ns is None else duration_ns / 1e9,
            *(self.ids or (None, None)), self.other_id, None, None, None, self.detail,
        )  # fmt: skip


class Timeline:
    """The events of lives, oldest first, with the gaps and boots between them. Iterate once."""

    def __init__(self, db: "apsw.Connection", question: Question, *, limit: int | None) -> None:
        self._db = db
        self._since_ns = question.since_ns
        self._until_ns = question.until_ns
        self.answer: Answer = select(db, question, limit=limit)
        self.events = 0
        """Events of processes given so far."""

    def between(self, verdict: Verdict) -> Iterator[Event]:
        """Yield what happened between ``--since`` and ``--until``, both included.

        Events outside of them are left out, though their lives overlap the window. Gaps
        come at their beginning; without a lower limit, those before the first event are left out.
        """
        notes = self.notes(verdict)
        happened = self._happened()
        first = next(happened, None)
        if self._since_ns is None:
            if first is None:
                return
            notes = [n for n in notes if self._reaches(n, first.at_ns)]
        waiting = iter(notes)
        note = next(waiting, None)
        for event in happened if first is None else chain((first,), happened):
            while note is not None and note.at_ns <= event.at_ns:
                yield note
                note = next(waiting, None)
            self.events += 1
            yield event
        if note is not None:
            yield note
            yield from waiting

    def lives(self) -> Iterator[tuple[Subject, list[Event]]]:
        """Yield the lives in the order of their start, each with all of its events."""
        for chunk in self.answer.chunks():
            for subject, more in self._described(chunk):
                events = [entry[3] for entry in _entries(subject, more)]
                self.events += len(events)
                yield subject, events

    def notes(self, verdict: Verdict) -> list[Event]:
        """Return the gaps and boots of a window, oldest first."""
        limits = {"since": verdict.since_ns, "until": verdict.until_ns}
        boots = [
            Event(at_ns, "boot", None, note=Boot(*which))
            for at_ns, *which in self._db.execute(_BOOTS, limits)
        ]
        gaps = [Event(gap.from_at_ns, "gap", None, note=gap) for gap in verdict.gaps]
        return sorted(boots + gaps, key=lambda event: event.at_ns)

    @staticmethod
    def _reaches(note: Event, at_ns: int) -> bool:
        gap = note.note
        return (gap.until_at_ns if isinstance(gap, Gap) else note.at_ns) >= at_ns

    def _happened(self) -> Iterator[Event]:
        lowest = self._since_ns if self._since_ns is not None else -(1 << 63)
        highest = self._until_ns if self._until_ns is not None else 1 << 63
        for event in self._ordered():
            if lowest <= event.at_ns <= highest:
                yield event

    def _ordered(self) -> Iterator[Event]:
        """Yield all events of all lives; a chunk's last start is where later ones can begin."""
        pending: list[_Entry] = []
        for chunk in self.answer.chunks():
            for subject, more in self._described(chunk):
                pending += _entries(subject, more)
            pending.sort()
            reached = _begins(chunk[-1])
            count = 0
            for entry in pending:
                if entry[0] >= reached:
                    break
                count += 1
                yield entry[3]
            del pending[:count]
        for entry in pending:
            yield entry[3]

    def _described(self, chunk: list[Life]) -> Iterator[tuple[Subject, "_More"]]:
        db, answer = self._db, self.answer
        ids = f"[{','.join(str(life[0]) for life in chunk)}]"
        several = f"[{','.join(str(life[0]) for life in chunk if life[13] > 1)}]"
        more = {row[0]: row for row in db.execute(_MORE, (ids,))}
        earlier = _grouped(db.execute(_EARLIER, (several,))) if len(several) > 2 else {}  # noqa: PLR2004 - []
        changes = _grouped(db.execute(_ID_CHANGES, (ids,)))
        happened = _grouped(db.execute(_HAPPENED, (ids,)))
        execs = [row for rows in earlier.values() for row in rows]
        answer.images.want(
            {life[7] for life in chunk} | {row[3] for row in more.values()} | {e[2] for e in execs}
        )
        answer.origins.want(
            {life[8] for life in chunk} | {row[2] for row in more.values()} | {e[3] for e in execs}
        )
        boots, images, origins = answer.boots.parts, answer.images.parts, answer.origins.parts
        for life in chunk:
            id_ = life[0]
            _, exec_at_ns, exec_origin, parent_image = more[id_]
            image, origin = images[life[7]], origins[life[8]]
            subject = Subject(life, boots[life[2]], image, origin, images[parent_image])
            known = [
                _Exec(at_ns, images[then], origins[owner], _EXEC_SOURCES[source])
                for _, at_ns, then, owner, source in earlier.get(id_, ())
            ]
            if exec_at_ns is not None:
                source = _EXEC_SOURCES[life[12] & 3]
                known.append(_Exec(exec_at_ns, image, origins[exec_origin], source))
            yield subject, _More(known, changes.get(id_, ()), happened.get(id_, ()))


class _Exec(NamedTuple):
    at_ns: int
    image: Shared
    origin: Shared
    source: str


class _More(NamedTuple):
    """What is known of a life besides its row."""

    execs: list[_Exec]
    changes: Iterable[tuple[Any, ...]]
    happened: Iterable[tuple[Any, ...]]


_Entry = tuple[int, int, int, Event]
"""When an event is due, its life's id, its place among that life's events; and the event."""


def _begins(life: Life) -> int:
    """Return the instant by which ``processes.select`` sorts a life."""
    started, ended = life[10], life[11]
    return int(started if started is not None else ended or 0)


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found


def _entries(subject: Subject, more: _More) -> list[_Entry]:
    """Return the events of one life in their order.

    CPUs can date an event before another that preceded it: none is put before what came
    first in its own life.
    """
    life = subject.life
    id_, started, ended = life[0], life[10], life[11]
    packed: int = life[12]
    execs = more.execs
    image, origin = (execs[0].image, execs[0].origin) if execs else (subject.image, subject.origin)
    due = _begins(life)
    entries: list[_Entry] = []
    source: str | None
    if started is not None:
        source = "scan" if packed & 16 else "fork"
        entries.append((due, id_, 0, Event(started, "started", subject, image, origin, source)))
    if execs or more.changes or more.happened:
        for event in _middle(subject, more, image, origin):
            due = max(due, event.at_ns)
            entries.append((due, id_, len(entries), event))
    if ended is not None:
        source = (None, "exit", "resync", "boot")[packed >> 2 & 3]
        event = Event(ended, "ended", subject, subject.image, subject.origin, source)
        entries.append((max(due, ended), id_, len(entries), event))
    return entries


def _middle(subject: Subject, more: _More, image: Shared, origin: Shared) -> Iterator[Event]:
    """Yield what happened between the start and the end, each with the image it had then."""
    steps: list[tuple[int, int, Any]] = [(row[1], 0, row) for row in more.changes]
    steps += [(row[1], 1, row) for row in more.happened]
    steps += [(step.at_ns, 2, step) for step in more.execs]
    # The kernel reports changes of ids before the execve that they belong to.
    steps.sort(key=lambda step: step[:2])
    for at_ns, which, step in steps:
        if which == 2:  # noqa: PLR2004 - an execve, as above
            image, origin = step.image, step.origin
            yield Event(at_ns, "exec", subject, image, origin, step.source)
        elif which == 1:
            _, _, kind, detail, other = step
            name = _HAPPENED_KINDS[kind]
            yield Event(at_ns, name, subject, image, origin, detail=detail, other_id=other)
        else:
            _, _, kind, real, effective = step
            name = "gid" if kind else "uid"
            yield Event(at_ns, name, subject, image, origin, ids=(real, effective))
