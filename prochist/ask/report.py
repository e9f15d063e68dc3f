"""What stands out in a window: most started, most failed, costly, dying young, restarting, new.

One pass over the lives that began in the window; what is kept of them is a few numbers
for each program, parent and service, and the lengths of the lives of services. Programs
are told apart by their executable, or by their name where that is not known.

What is meant by the words
    * a storm: 50 or more children of one parent within one minute of the clock, that lived for
      under a second each;
    * a restart loop: five or more lives of one executable in one unit, one after the other
      and never two at a time, each begun within a minute of the end of the one before
      (by the median). What is started so is a leader of its own session or a child of
      pid 1, as services are; what a shell's loop runs is neither.
    * new: no life that began before the window ran this executable.
"""

import json
from array import array
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from prochist.ask.processes import IMAGES, Shared
from prochist.ask.signals import NAMES

if TYPE_CHECKING:
    import apsw

    from prochist.clock import EpochNs

SHORT_NS = 1_000_000_000
STORM = 50
"""Children of one parent, begun in one minute, that make a storm."""

MINUTE_NS = 60_000_000_000

LOOP = 5
"""Lives one after the other that make a restart loop."""

LONGEST_PAUSE_NS = 60_000_000_000

_LIVES = """
SELECT l.image, l.origin, l.parent_id, l.pid, l.sid, l.ppid, l.started_at_ns, l.ended_at_ns,
    l.wait_status, l.cpu_user_us + l.cpu_system_us, l.max_rss_kib, l.exec_count
FROM lifetime AS l INDEXED BY lifetime_started
WHERE l.started_at_ns BETWEEN ? AND ? AND l.is_kernel_thread = 0
ORDER BY l.started_at_ns"""
_OLDER = """
SELECT 1 FROM image AS i CROSS JOIN lifetime AS l INDEXED BY lifetime_image ON l.image = i.id
WHERE i.exe = (SELECT exe FROM image WHERE id = ?) AND l.started_at_ns < ? LIMIT 1"""
_OLDER_EXECS = """
SELECT DISTINCT i.exe FROM earlier_exec AS e JOIN image AS i ON i.id = e.image
WHERE e.at_ns < ?
    AND i.exe IN (SELECT exe FROM image WHERE id IN (SELECT value FROM json_each(?)))"""
_PARENTS = """
SELECT l.id, l.pid, l.image FROM lifetime AS l WHERE l.id IN (SELECT value FROM json_each(?))"""
_UNITS = """
SELECT o.id, t.value FROM origin AS o JOIN text AS t ON t.id = o.unit
WHERE o.id IN (SELECT value FROM json_each(?))"""


class Program:
    """What the lives of one executable came to."""

    __slots__ = (
        "count",
        "cpu_us",
        "ends",
        "failed",
        "first_ns",
        "image",
        "max_rss_kib",
        "measured",
    )

    def __init__(self, image: int | None, first_ns: int) -> None:
        self.image = image
        self.first_ns = first_ns
        self.count = self.cpu_us = self.max_rss_kib = 0
        self.ends: Counter[int] = Counter()


class Brood:
    """Children of one parent that lived for under a second."""

    __slots__ = ("images", "in_minute", "lengths", "minute", "peak")

    def __init__(self) -> None:
        self.minute = self.in_minute = self.peak = 0
        self.images: Counter[int | None] = Counter()
        self.lengths = array("q")

    def add(self, image: int | None, started_ns: int, ended_ns: int) -> None:
        """Add the next child."""
        self.lengths.append(ended_ns - started_ns)
        self.images[image] += 1
        minute = started_ns // MINUTE_NS
        if minute != self.minute:
            self.minute, self.in_minute = minute, 0
        self.in_minute += 1
        self.peak = max(self.peak, self.in_minute)


class Service:
    """Lives of one executable in one unit, one after the other."""

    __slots__ = ("ends", "first_ns", "is_sequence", "last_end_ns", "last_ns", "lengths", "pauses")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = self.last_ns = first_ns
        self.last_end_ns: int | None = None
        self.is_sequence = True
        self.lengths = array("q")
        self.pauses = array("q")
        self.ends: Counter[int | None] = Counter()


class Started(NamedTuple):
    """A program and how often it was started."""

    lives: int
    failed: int
    program: str


class Failed(NamedTuple):
    """A program and how it failed; ``exit_code`` xor ``signal``."""

    lives: int
    of: int
    """All its lives that began in the window."""
    exit_code: int | None
    signal: str | None
    program: str


class Costly(NamedTuple):
    """A program and what it cost."""

    cpu_s: float
    max_rss_bytes: int
    lives: int
    program: str


class Storm(NamedTuple):
    """A parent and its children that died young."""

    lives: int
    peak_per_min: int
    """Most that began in one minute."""
    median_s: float
    parent_id: int
    parent_pid: int | None
    parent: str
    program: str
    """What most of them ran."""


class Loop(NamedTuple):
    """A service that is started again and again."""

    lives: int
    rate_per_min: float
    median_s: float
    ends: str
    """How they ended, the most frequent first: ``1 x57, SIGABRT x3``."""
    unit: str | None
    program: str


class New(NamedTuple):
    """An executable that had never been seen."""

    first_at_ns: int
    lives: int
    program: str


class Report(NamedTuple):
    """The parts, each the most remarkable first."""

    started: list[Started]
    failed: list[Failed]
    costly: list[Costly]
    greedy: list[Costly]
    """By memory."""
    storms: list[Storm]
    loops: list[Loop]
    new: list[New] | None
    """None: the history has nothing before the window to compare with."""
    lives: int


def make_report(
    db: "apsw.Connection", since_ns: "EpochNs", until_ns: "EpochNs", *, limit: int
) -> Report:
    """Look through the lives that began in a window, both ends included; ``limit`` rows a part."""
    return _Survey(db, since_ns, until_ns).report(limit)


class _Survey:
    def __init__(self, db: "apsw.Connection", since_ns: int, until_ns: int) -> None:
        self._db = db
        self._since_ns = since_ns
        self._until_ns = until_ns
        self._images = Shared(db, IMAGES, 7)
        self._names: dict[int | None, str] = {}
        self.lives = 0
        # The first pass counts by image, an integer; what they run is read afterwards, once each.
        self._by_image: dict[int | None, Program] = {}
        self._broods: dict[int, Brood] = {}
        self._services: dict[tuple[int | None, int | None], Service] = {}
        self._read()

    def _read(self) -> None:
        by_image, broods, services = self._by_image, self._broods, self._services
        for row in self._db.execute(_LIVES, (self._since_ns, self._until_ns)):
            image, origin, parent, pid, sid, ppid, started, ended, wait, cpu, rss, execs = row
            self.lives += 1
            program = by_image.get(image)
            if program is None:
                program = by_image[image] = Program(image, started)
            program.count += 1
            if cpu is not None:
                program.cpu_us += cpu
                program.max_rss_kib = max(program.max_rss_kib, rss or 0)
            if wait:
                program.ends[wait] += 1
            if parent is not None and ended is not None and ended - started < SHORT_NS:
                brood = broods.get(parent)
                if brood is None:
                    brood = broods[parent] = Brood()
                brood.add(image, started, ended)
            if execs and (sid in (0, pid) or ppid == 1):
                key = image, origin
                if key not in services:
                    services[key] = Service(started)
                _follow(services[key], started, ended, wait)

    def report(self, limit: int) -> Report:
        """Return what was found."""
        self._name_all(list(self._by_image))
        programs: dict[str, Program] = {}
        for image, found in self._by_image.items():
            known = programs.get(self._names[image])
            if known is None:
                programs[self._names[image]] = found
                continue
            known.count += found.count
            known.cpu_us += found.cpu_us
            known.max_rss_kib = max(known.max_rss_kib, found.max_rss_kib)
            known.first_ns = min(known.first_ns, found.first_ns)
            known.ends += found.ends
        by_count = sorted(programs.items(), key=lambda item: (-item[1].count, item[0]))
        costs = [
            Costly(p.cpu_us / 1e6, p.max_rss_kib * 1024, p.count, name)
            for name, p in by_count
            if p.cpu_us or p.max_rss_kib
        ]
        return Report(
            [Started(p.count, p.ends.total(), name) for name, p in by_count[:limit]],
            self._failed(programs)[:limit],
            sorted(costs, key=lambda c: (-c.cpu_s, c.program))[:limit],
            sorted(costs, key=lambda c: (-c.max_rss_bytes, c.program))[:limit],
            self._storms(limit),
            self._loops()[:limit],
            self._new(programs, limit),
            self.lives,
        )

    def _name_all(self, images: list[int | None]) -> None:
        for at in range(0, len(images), 1000):
            some = set(images[at : at + 1000])
            self._images.want(some)
            for image in some:
                comm, exe, path = map(str, (v or "" for v in self._images.parts[image][:3]))
                self._names[image] = exe or path or (f"[{comm}]" if comm else "?")

    @staticmethod
    def _failed(programs: dict[str, Program]) -> list[Failed]:
        found = []
        for name, program in programs.items():
            merged: Counter[tuple[int | None, str | None]] = Counter()
            for wait, count in program.ends.items():
                merged[_end(wait)] += count
            for (code, signal), count in merged.items():
                found.append(Failed(count, program.count, code, signal, name))
        return sorted(found, key=lambda f: (-f.lives, f.program, f.exit_code or 0, f.signal or ""))

    def _storms(self, limit: int) -> list[Storm]:
        many = [(id_, b) for id_, b in self._broods.items() if b.peak >= STORM]
        many.sort(key=lambda item: (-len(item[1].lengths), item[0]))
        many = many[:limit]
        parents = {
            row[0]: row[1:]
            for row in self._db.execute(_PARENTS, (json.dumps([i for i, _ in many]),))
        }
        self._name_all([image for _, image in parents.values()])
        found = []
        for id_, brood in many:
            pid, image = parents.get(id_, (None, None))
            count = len(brood.lengths)
            self._name_all([image])
            program = self._names[brood.images.most_common(1)[0][0]]
            length_s = median(brood.lengths) / 1e9
            name = self._names[image] if id_ in parents else "?"
            found.append(Storm(count, brood.peak, length_s, id_, pid, name, program))
        return found

    def _loops(self) -> list[Loop]:
        origins = {origin for _, origin in self._services}
        units = dict(self._db.execute(_UNITS, (json.dumps(list(origins)),)))
        found = []
        for (image, origin), service in self._services.items():
            count = len(service.lengths)
            if count < LOOP or not service.is_sequence:
                continue
            if median(service.pauses) > LONGEST_PAUSE_NS:
                continue
            span_min = max((service.last_ns - service.first_ns) / 6e10, 1e-3)
            ends = ", ".join(f"{_word(end)} x{n}" for end, n in service.ends.most_common(3))
            length_s = median(service.lengths) / 1e9
            unit = units.get(origin)
            found.append(
                Loop(count, (count - 1) / span_min, length_s, ends, unit, self._names[image])
            )
        return sorted(found, key=lambda loop: (-loop.lives, loop.program))

    def _new(self, programs: dict[str, Program], limit: int) -> list[New] | None:
        db, since = self._db, self._since_ns
        if not db.execute(
            "SELECT EXISTS (SELECT 1 FROM lifetime INDEXED BY lifetime_started"
            " WHERE started_at_ns < ?)",
            (since,),
        ).get:
            return None
        found = [
            (name, p)
            for name, p in programs.items()
            if name.startswith("/") and not db.execute(_OLDER, (p.image, since)).get
        ]
        if found:
            images = json.dumps([p.image for _, p in found])
            older = {row[0] for row in db.execute(_OLDER_EXECS, (since, images))}
            exes = "SELECT exe FROM image WHERE id = ?"
            found = [i for i in found if db.execute(exes, (i[1].image,)).get not in older]
        found.sort(key=lambda item: item[1].first_ns)
        return [New(p.first_ns, p.count, name) for name, p in found[:limit]]


def _follow(service: Service, started: int, ended: int | None, wait: int | None) -> None:
    """Add the next life of a service."""
    if not service.is_sequence:
        return
    if service.lengths:
        if service.last_end_ns is None or started < service.last_end_ns:
            service.is_sequence = False  # two at a time: workers, not restarts
            return
        service.pauses.append(started - service.last_end_ns)
    service.last_ns = started
    service.last_end_ns = ended
    if ended is not None:
        service.lengths.append(ended - started)
        service.ends[wait] += 1


def _end(wait: int) -> tuple[int | None, str | None]:
    signal = wait & 127
    return (None, NAMES[signal]) if signal else (wait >> 8 & 255, None)


def _word(wait: int | None) -> str:
    if wait is None:
        return "?"
    code, signal = _end(wait)
    return signal or str(code)


def as_records(report: Report) -> dict[str, Any]:
    """Return the report as plain dicts and lists, for JSON."""
    parts = report._asdict()
    return {
        name: [row._asdict() for row in part] if isinstance(part, list) else part
        for name, part in parts.items()
    }
