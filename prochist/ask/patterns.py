"""Globs and regular expressions, matched against each distinct text once.

A history holds far fewer texts than lives, so what a pattern matches is found
among the texts and images first; lives are then found by ``image``.
"""

import fnmatch
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from prochist.errors import UsageError

if TYPE_CHECKING:
    import apsw

PATIENCE_S = 10.0
"""Longest time that the matching of regular expressions may take."""

_EXE = "coalesce(exe, exec_path)"
_OPAQUE = frozenset("\\{}[]|()")
"""Characters of an expression behind which any text may or may not be meant."""


def matching_images(
    db: "apsw.Connection", comms: Sequence[str], exes: Sequence[str], greps: Sequence[str]
) -> list[int]:
    """Return the ids of the images that match one pattern of each kind that is asked for.

    ``exes`` without a slash are compared with the base name. Where the resolved
    file is unknown, the path given to execve stands for it.

    Raises:
        UsageError: not a regular expression, or one that takes more than 10 s.
    """
    wanted: list[tuple[str, list[int]]] = []
    if comms:
        matches = _glob(comms)
        found = [i for i, text in db.execute(_DISTINCT.format("comm")) if matches(text)]
        wanted.append(("comm", found))
    if exes:
        whole, base = _glob([e for e in exes if "/" in e]), _glob([e for e in exes if "/" not in e])
        found = [
            i
            for i, text in db.execute(_DISTINCT.format(_EXE))
            if whole(text) or base(text.rpartition("/")[2])
        ]
        wanted.append((_EXE, found))
    if greps:
        wanted.append(("command_line", _grep(db, greps)))
    where = " AND ".join(f"{column} {_AMONG}" for column, _ in wanted)
    rows = db.execute(
        f"SELECT id FROM image WHERE {where}",  # noqa: S608 - columns are constants of this file
        tuple(json.dumps(ids) for _, ids in wanted),
    )
    return [row[0] for row in rows]


def image_test(
    comms: Sequence[str], exes: Sequence[str], greps: Sequence[str]
) -> "Callable[[str | None, str | None, str | None, str | None], bool] | None":
    """Return the test of ``matching_images`` for one image, or None when nothing is asked for.

    It takes comm, exe, exec_path and command_line.

    Raises:
        UsageError: not a regular expression; from the test, one that takes more than 10 s.
    """
    if not (comms or exes or greps):
        return None
    comm_matches = _glob(comms)
    whole, base = _glob([e for e in exes if "/" in e]), _glob([e for e in exes if "/" not in e])
    searches = [_compile(grep).search for grep in greps]

    def test(comm: str | None, exe: str | None, path: str | None, line: str | None) -> bool:
        file = exe if exe is not None else path
        if comms and (comm is None or not comm_matches(comm)):
            return False
        if exes and (file is None or not (whole(file) or base(file.rpartition("/")[2]))):
            return False
        if not greps:
            return True
        with _bounded(greps):
            return line is not None and any(search(line) for search in searches)

    return test


# The column is a constant of this file wherever this is used.
_DISTINCT = (
    "SELECT t.id, t.value FROM (SELECT DISTINCT {} AS id FROM image) AS d"
    " CROSS JOIN text AS t ON t.id = d.id"
)

_AMONG = "IN (SELECT value FROM json_each(?))"


def _glob(globs: Sequence[str]) -> Callable[[str], object]:
    """Return a test for any of the globs, which has no backtracking that explodes."""
    if not globs:
        return lambda _: None
    return re.compile("|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs)).match


def _grep(db: "apsw.Connection", greps: Sequence[str]) -> list[int]:
    """Return the ids of the texts that match, command lines and others.

    Looking through all texts in the order in which they lie there is twice as fast as picking
    the command lines: 80 ms against 180 for 600,000.
    """
    with _bounded(greps):
        found: set[int] = set()
        for grep in greps:
            search = _compile(grep).search
            word = longest_word(grep)
            if not word:
                rows = db.execute(_DISTINCT.format("command_line"))
                found.update(i for i, text in rows if search(text))
                continue
            # What contains no word of it cannot match, and SQLite finds a word faster.
            rows = db.execute("SELECT id, value FROM text WHERE instr(value, ?) > 0", (word,))
            if word == grep:
                found.update(i for i, _ in rows)
            else:
                found.update(i for i, text in rows if search(text))
        return sorted(found)


def longest_word(grep: str) -> str:
    """Return the longest text that every match contains as it stands; empty for none known."""
    if _OPAQUE & set(grep):
        return ""
    best = ""
    for match in re.finditer(r"([^.^$*+?]+)([*+?]?)", grep):
        # A quantifier may take away the character before it.
        word = match[1][:-1] if match[2] else match[1]
        best = max(best, word, key=len)
    return best


def _compile(grep: str) -> re.Pattern[str]:
    try:
        return re.compile(grep)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        message = f"not a regular expression: {grep!r}: {error}"
        raise UsageError(
            message, hint="as Python's re knows them; \\ before a special one"
        ) from None


@contextmanager
def _bounded(greps: Sequence[str]) -> Iterator[None]:
    """End the matching after ``PATIENCE_S``: some expressions backtrack for ever.

    Python's matcher looks for signals while it works. Signals belong to the main
    thread; in another one there is no bound.

    Source: Modules/_sre/sre_lib.h of CPython, MAYBE_CHECK_SIGNALS.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        message = f"matching {' '.join(map(repr, greps))} takes more than {PATIENCE_S:g} s"
        raise UsageError(message, hint="avoid nested repetition such as (a+)+")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
