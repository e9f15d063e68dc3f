"""Hunting: which executions of a history match which Sigma rule.

Millions of executions are of some thousands of kinds: the same image, forked from the same
parent image, with the same origin. What a rule asks for is decided once for each kind, in
a small database in memory, and only then are the executions of a matching kind looked at.

An execution is an execve that was seen, or a life whose program was found running. A
program that goes by two names, the resolved file and the path that was given to execve, is
asked for under both. Comparison ignores case, as Sigma demands (SQLite: of ASCII letters);
regular expressions are Python's and bounded in time.

Source: sigma-specification, "case-insensitive"; sqlite.org/lang_expr.html, LIKE and REGEXP.
"""

import json
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby, product
from types import FrameType
from typing import Any, NamedTuple

import apsw

from prochist.ask.filters import Plan, Question, plan
from prochist.ask.sigma_rules import FIELDS, TABLE, Refused, Rule
from prochist.ask.timeline import PARENT_IMAGE

PATIENCE_S = 10.0
"""Longest time that one rule may take."""

EXAMPLES = 5
"""Matches of a rule that are described; of the others the ids are given."""

MOST_IDS = 1_000
"""Ids of matches that are given for a rule."""

_STEPS = 100_000
_MOST_NAMES = 999
"""Ids bound as one JSON text at a time when kinds are described."""

Kind = tuple[int | None, int | None, int | None]
"""Ids of an image, of the parent's image, and of an origin."""

# Of a life that execs seldom there is one row; the others come from earlier_exec.
_NEWEST = f"""l.image AS image, {PARENT_IMAGE} AS parent, ifnull(l.exec_origin, l.origin) AS origin,
    l.id AS life, coalesce(l.exec_at_ns, l.started_at_ns, l.ended_at_ns, 0) AS ran_ns"""
_EARLIER = f"""e.image AS image, {PARENT_IMAGE} AS parent, e.origin AS origin,
    l.id AS life, e.at_ns AS ran_ns"""
_PARENT = "LEFT JOIN lifetime AS p ON p.id = l.parent_id"
_EXECS = f"CROSS JOIN earlier_exec AS e ON e.lifetime = l.id {_PARENT}"

_NAMES = """
SELECT i.id, exe.value, path.value, line.value, cwd.value FROM json_each(?) AS wanted
CROSS JOIN image AS i ON i.id = wanted.value
LEFT JOIN text AS exe ON exe.id = i.exe LEFT JOIN text AS path ON path.id = i.exec_path
LEFT JOIN text AS line ON line.id = i.command_line LEFT JOIN text AS cwd ON cwd.id = i.cwd"""
_OWNERS = """
SELECT o.id, coalesce(user.value, o.uid), o.session FROM json_each(?) AS wanted
CROSS JOIN origin AS o ON o.id = wanted.value LEFT JOIN text AS user ON user.id = o.user"""


class Match(NamedTuple):
    """One execution that matches a rule; ``exe``, ``user`` and others may be unknown."""

    id: int  # of the life
    at_ns: int
    exe: str | None
    command_line: str | None
    cwd: str | None
    user: str | None
    session: str | None
    parent_exe: str | None
    parent_command_line: str | None


class Finding(NamedTuple):
    """What one rule found."""

    rule: Rule
    times: int
    first_ns: int
    last_ns: int
    examples: tuple[Match, ...]  # the first ones
    ids: tuple[int, ...]  # of lives, at most MOST_IDS


class _Image(NamedTuple):
    exe: str | None
    path: str | None
    line: str | None
    cwd: str | None
    names: tuple[str | None, ...]  # that the program goes by: one or two


_NOTHING = _Image(None, None, None, None, (None,))


class Hunt:
    """The kinds of executions that a question keeps, ready to be asked by rules."""

    def __init__(self, db: apsw.Connection, question: Question) -> None:
        self._db = db
        newest = plan(db, question)
        self._newest = newest._replace(condition=f"{newest.condition} AND l.exec_source >= 2")
        self._earlier = newest._replace(
            condition=f"{newest.condition} AND l.exec_count > 1 AND e.exec_source >= 2"
        )
        self.kinds: list[Kind] = []
        self._totals: list[tuple[int, int, int]] = []  # count, first, last
        columns = "image, parent, origin"
        sql = f"SELECT {columns}, count(*), min(ran_ns), max(ran_ns)"
        sql += f" FROM ({self._executions()}) GROUP BY {columns}"
        for image, parent, origin, *totals in db.execute(sql, dict(newest.values)):
            self.kinds.append((image, parent, origin))
            self._totals.append((totals[0], totals[1], totals[2]))
        self._images: dict[int | None, _Image] = {None: _NOTHING}
        wanted = {k[0] for k in self.kinds} | {k[1] for k in self.kinds}
        for id_, exe, path, line, cwd in self._described(_NAMES, wanted):
            names = tuple({name: None for name in (exe, path) if name is not None}) or (None,)
            self._images[id_] = _Image(exe, path, line, cwd, names)
        self._owners: dict[int | None, tuple[str | None, str | None]] = {None: (None, None)}
        for id_, *texts in self._described(_OWNERS, {k[2] for k in self.kinds}):
            user, session = (None if text is None else str(text) for text in texts)
            self._owners[id_] = (user, session)

    @property
    def executions(self) -> int:
        """How many executions there are."""
        return sum(total[0] for total in self._totals)

    def _executions(self, *, hunted: bool = False) -> str:
        """Return the SELECT of all executions, or of those of the images ``:hunted``."""

        def select(planned: Plan, of: str, columns: str, join: str) -> str:
            among = f" AND {of}.image IN (SELECT value FROM json_each(:hunted))" if hunted else ""  # noqa: S608
            return planned._replace(condition=planned.condition + among).select(columns, join=join)

        newest = select(self._newest, "l", _NEWEST, _PARENT)
        return f"{newest} UNION ALL {select(self._earlier, 'e', _EARLIER, _EXECS)}"

    def _described(self, sql: str, ids: Iterable[int | None]) -> Iterator[tuple[Any, ...]]:
        known = [id_ for id_ in ids if id_ is not None]
        for start in range(0, len(known), _MOST_NAMES):
            yield from self._db.execute(sql, (json.dumps(known[start : start + _MOST_NAMES]),))

    def ask(self, rules: Iterable[Rule]) -> Iterator[tuple[Rule, set[int] | Refused]]:
        """Yield rules with the numbers of the kinds that match, or why that cannot be told.

        Rules that ask for the same fields are asked together, of the distinct values of these
        fields alone: there are a few thousand pairs of program and parent's program, but as
        many command lines as there are temporary files.
        """
        for fields, some in groupby(sorted(rules, key=_fields), key=_fields):
            memory, numbers = self._table(fields)
            with closing(memory):
                for rule in some:
                    yield rule, _ask(memory, rule, numbers)

    def _table(self, fields: tuple[str, ...]) -> tuple[apsw.Connection, list[list[int]]]:
        """Make the table that rules are asked of, and the numbers of the kinds in each row."""
        places: dict[tuple[str | None, ...], list[int]] = {}
        for number, kind in enumerate(self.kinds):
            for values in self._values(kind, fields):
                places.setdefault(values, []).append(number)
        memory = apsw.Connection(":memory:")
        columns = "".join(f", {name} TEXT COLLATE NOCASE" for name in fields)
        memory.execute(f"CREATE TABLE {TABLE} (place INTEGER PRIMARY KEY{columns})")
        marks = ", ?" * len(fields)
        with memory:
            rows = ((place, *values) for place, values in enumerate(places))
            memory.executemany(f"INSERT INTO {TABLE} VALUES (?{marks})", rows)  # noqa: S608
        memory.create_scalar_function("regexp", _Expressions().search, 2, deterministic=True)
        memory.authorizer = _authorize
        return memory, list(places.values())

    def _values(self, kind: Kind, fields: tuple[str, ...]) -> set[tuple[str | None, ...]]:
        """Return what a kind is for rules: once for each name of its program and its parent's."""
        image, parent = self._images[kind[0]], self._images[kind[1]]
        user, session = self._owners[kind[2]]
        known = (
            *((None,), (image.line,), (None,), (parent.line,), (user,), (image.cwd,), (session,)),
        )
        by_field: dict[str, tuple[str | None, ...]] = dict(zip(FIELDS, known, strict=True))
        by_field["Image"], by_field["ParentImage"] = image.names, parent.names
        return set(product(*[by_field[name] for name in fields]))

    def findings(self, matched: Sequence[tuple[Rule, set[int]]]) -> list[Finding]:
        """Return what rules found, with examples; rules that found nothing are left out."""
        hits = [(rule, numbers) for rule, numbers in matched if numbers]
        shown: list[list[Match]] = [[] for _ in hits]
        ids: list[dict[int, None]] = [{} for _ in hits]
        for places, match in self._matches([numbers for _, numbers in hits]):
            for at in places:
                if len(shown[at]) < EXAMPLES:
                    shown[at].append(match)
                if len(ids[at]) < MOST_IDS:
                    ids[at][match.id] = None
        found = []
        for (rule, numbers), examples, lives in zip(hits, shown, ids, strict=True):
            totals = [self._totals[number] for number in numbers]
            first, last = min(t[1] for t in totals), max(t[2] for t in totals)
            count = sum(t[0] for t in totals)
            found.append(Finding(rule, count, first, last, tuple(examples), tuple(lives)))
        found.sort(key=lambda f: f.first_ns)
        return found

    def every_match(self, matched: Sequence[tuple[Rule, set[int]]]) -> Iterator[tuple[Rule, Match]]:
        """Yield each execution that matches, oldest first, once for each of its rules."""
        for places, match in self._matches([numbers for _, numbers in matched]):
            for at in places:
                yield matched[at][0], match

    def _matches(self, sets: Sequence[set[int]]) -> Iterator[tuple[list[int], Match]]:
        """Yield the executions of the kinds in any of ``sets``, oldest first, and in which."""
        places: dict[Kind, list[int]] = {}
        for at, numbers in enumerate(sets):
            for number in numbers:
                places.setdefault(self.kinds[number], []).append(at)
        if not places:
            return
        # A kind whose image is unknown matches only rules that ask for what is not there.
        images = {kind[0] for kind in places}
        hunted = self._executions(hunted=None not in images)
        sql = f"SELECT * FROM ({hunted}) ORDER BY ran_ns, life"  # noqa: S608 - constants
        values = dict(self._newest.values)
        if None not in images:
            values["hunted"] = json.dumps(list(images))
        for image_id, parent_id, origin_id, life, ran_ns, _at in self._db.execute(sql, values):
            wanted = places.get((image_id, parent_id, origin_id))
            if wanted is None:
                continue
            image, parent = self._images[image_id], self._images[parent_id]
            user, session = self._owners[origin_id]
            name, parent_name = image.exe or image.path, parent.exe or parent.path
            match = Match(
                life, ran_ns, name, image.line, image.cwd, user, session, parent_name, parent.line
            )
            yield wanted, match


def _fields(rule: Rule) -> tuple[str, ...]:
    return rule.fields


def _ask(db: apsw.Connection, rule: Rule, numbers: list[list[int]]) -> set[int] | Refused:
    found: set[int] = set()
    try:
        with _bounded(db):
            for query in rule.queries:
                sql = f"SELECT place FROM ({query})"  # noqa: S608 - from pySigma
                for (place,) in db.execute(sql):
                    found.update(numbers[place])
    except (_TooSlowError, apsw.InterruptError):
        return Refused(rule.file, rule.title, f"takes more than {PATIENCE_S:g} s")
    except (apsw.Error, re.error, RecursionError, OverflowError) as error:
        return Refused(rule.file, rule.title, f"cannot be asked: {error}")
    return found


class _Expressions:
    """REGEXP for SQLite: Python's ``re``, each expression compiled once."""

    def __init__(self) -> None:
        self._compiled: dict[str, Callable[[str], object]] = {}

    def search(self, *operands: "apsw.SQLiteValue") -> bool | None:
        """Say whether the first operand, an expression, is found in the second; None for NULL."""
        expression, text = operands
        if text is None or not isinstance(expression, str):
            return None
        search = self._compiled.get(expression)
        if search is None:
            search = self._compiled[expression] = re.compile(expression).search
        return search(str(text)) is not None


def _authorize(
    action: int, _first: str | None, _second: str | None, _database: str | None, _by: str | None
) -> int:
    """Let a rule read and compute, and nothing else."""
    allowed = (apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION)
    return apsw.SQLITE_OK if action in allowed else apsw.SQLITE_DENY


class _TooSlowError(Exception):
    """A rule takes longer than it may."""


@contextmanager
def _bounded(db: apsw.Connection) -> Iterator[None]:
    """End a rule after ``PATIENCE_S``: some regular expressions backtrack for ever.

    Python's matcher looks for signals while it works, and SQLite's machine calls back. Signals
    belong to the main thread; in another one there is no bound.

    Source: Modules/_sre/sre_lib.h of CPython, MAYBE_CHECK_SIGNALS.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, expire)
    db.set_progress_handler(lambda: False, _STEPS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        db.set_progress_handler(None)
