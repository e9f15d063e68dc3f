"""Lives as a table that fits a terminal, for people.

The default columns are what an administrator looks for first: when, how long, who,
how it ended, what. Widths come from the first lives; later ones keep them, so that a
table of millions needs no memory. The last column takes what is left.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from itertools import chain, islice
from typing import Any, NamedTuple

from prochist.show import human
from prochist.show.terminal import clip, escape, pad, width

_SAMPLE = 500
_GAP = "  "
_WIDEST = 40
"""A column other than the last is not made wider than this."""

_RED, _GREEN, _DIM, _BOLD, _RESET = "\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[1m", "\x1b[0m"

DEFAULT = ("START", "DURATION", "PID", "USER", "END", "COMMAND")
NEEDED = (
    "started_at_ns",
    "ended_at_ns",
    "pid",
    "user",
    "uid",
    "state",
    "exit_code",
    "term_signal_name",
    "command_line",
    "comm",
    "exe",
)
"""Columns of ``processes`` that the default table is made of, in this order."""

# What goes first when the terminal is narrow; COMMAND stays.
_DISPENSABLE = ("USER", "DURATION", "START", "END", "PID")
_NARROWEST_COMMAND = 16


class Style(NamedTuple):
    """How and for whom it is shown: all that this file must not find out by itself."""

    columns: int | None  # of the terminal; None: as wide as it gets
    zone: tzinfo | None  # None: the system's
    now_ns: int
    colour: bool = False
    header: bool = True


def command(command_line: str | None, comm: str | None, exe: str | None) -> str:
    """Return what ran, as ps shows it: the command line, else the name in brackets."""
    if command_line:
        return command_line
    name = comm or exe
    return f"[{name}]" if name else "?"


def ending(state: str, exit_code: int | None, signal: str | None) -> str:
    """Return how a life ended in one word: ``0``, ``1``, ``SIGKILL``, ``running``, ``?``."""
    if state == "unknown":
        return "?"
    return signal or (str(exit_code) if exit_code is not None else state)


def lives(rows: Iterable[Sequence[Any]], style: Style) -> Iterator[str]:
    """Yield the lines of the default table for rows of ``NEEDED``."""
    form = "%Y-%m-%d %H:%M:%S"
    if style.columns is not None and style.columns < 70:  # noqa: PLR2004 - leaves room for COMMAND
        form = "%m-%d %H:%M" if style.columns >= 50 else "%H:%M:%S"  # noqa: PLR2004

    def cells() -> Iterator[tuple[str, ...]]:
        for started, ended, pid, user, uid, state, code, signal, line, comm, exe in rows:
            end = style.now_ns if ended is None else ended
            yield (
                human.instant(started, style.zone, form),
                "?" if started is None else human.duration(max(end - started, 0)),
                str(pid),
                escape(user if user is not None else "?" if uid is None else str(uid)),
                ending(state, code, signal),
                escape(command(line, comm, exe)),
            )

    return _lay_out(
        DEFAULT,
        cells(),
        style,
        right=("DURATION", "PID"),
        colour_by="END",
        dispensable=_DISPENSABLE,
    )


SNAPSHOT = ("user", "uid", "pid", "ppid", "tty", "started_at_ns", "command_line", "comm", "exe")
"""Columns of ``processes`` that the table of ps is made of, in this order."""


def snapshot(rows: Iterable[Sequence[Any]], style: Style) -> Iterator[str]:
    """Yield the lines of ps for rows of ``SNAPSHOT``, as things were at ``style.now_ns``.

    Source: man page ps(1), STANDARD FORMAT SPECIFIERS: start_time, etime, tname.
    """
    today = human.instant(style.now_ns, style.zone, "%Y-%m-%d")

    def began(at: int | None) -> str:
        day = human.instant(at, style.zone, "%Y-%m-%d")
        form = "%H:%M" if day == today else "%b%d" if day[:4] == today[:4] else "%Y"
        return human.instant(at, style.zone, form)

    def cells() -> Iterator[tuple[str, ...]]:
        for user, uid, pid, ppid, tty, started, line, comm, exe in rows:
            yield (
                escape(user if user is not None else "?" if uid is None else str(uid)),
                str(pid),
                "?" if ppid is None else str(ppid),
                escape(tty.removeprefix("/dev/")) if tty else "?",
                began(started),
                "?" if started is None else human.elapsed(max(style.now_ns - started, 0)),
                escape(command(line, comm, exe)),
            )

    names = ("USER", "PID", "PPID", "TTY", "START", "ELAPSED", "COMMAND")
    right = ("PID", "PPID", "START", "ELAPSED")
    dispensable = ("TTY", "PPID", "ELAPSED", "START", "USER", "PID")
    return _lay_out(names, cells(), style, right=right, dispensable=dispensable)


def any_columns(
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    style: Style,
    *,
    right: Sequence[str] = (),
    dispensable: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the lines of a table of any columns; NULL is an empty cell.

    ``right`` are columns to align to the right, beside those of numbers;
    ``dispensable`` those that go, in that order, when the terminal is narrow.
    """
    numeric: set[str] = set(right)
    iterator = iter(rows)
    sample = list(islice(iterator, _SAMPLE))
    for at, name in enumerate(names):
        values = [row[at] for row in sample if row[at] is not None]
        if values and all(isinstance(value, int | float) for value in values):
            numeric.add(name)
    cells = (tuple(map(_cell, row)) for row in chain(sample, iterator))
    return _lay_out(
        tuple(map(escape, names)), cells, style, right=tuple(numeric), dispensable=dispensable
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return escape(value.decode("utf-8", "backslashreplace"))
    return escape(str(value))


def _lay_out(  # noqa: PLR0913 - what all tables differ in
    names: Sequence[str],
    cells: Iterator[tuple[str, ...]],
    style: Style,
    *,
    right: Sequence[str],
    colour_by: str | None = None,
    dispensable: Sequence[str] = (),
) -> Iterator[str]:
    sample = list(islice(cells, _SAMPLE))
    widths = [
        min(max(width(cell) for cell in column), _WIDEST)
        for column in zip(*sample, [name if style.header else "" for name in names], strict=True)
    ]
    kept = _kept(names, widths, style.columns, dispensable)
    if not kept:
        return
    room = _room(widths, kept, style.columns)

    def line(row: Sequence[str]) -> str:
        parts = []
        for at in kept[:-1]:
            parts.append(pad(clip(row[at], widths[at]), widths[at], right=names[at] in right))
            parts.append(_GAP)
        last = row[kept[-1]]
        if names[kept[-1]] in right:
            last = pad(last, widths[kept[-1]], right=True)
        parts.append(last if room is None else clip(last, room))
        text = "".join(parts).rstrip(" ")
        return text if style.columns is None else clip(text, style.columns)

    if style.header:
        yield _coloured(line(names), _BOLD, style) + "\n"
    by = None if colour_by is None else list(names).index(colour_by)
    for row in chain(sample, cells):
        text = line(row)
        yield (text if by is None else _coloured(text, _colour(row[by]), style)) + "\n"


def _kept(
    names: Sequence[str], widths: Sequence[int], columns: int | None, dispensable: Sequence[str]
) -> list[int]:
    """Return the columns that fit beside a command of some use."""
    kept = list(range(len(names)))
    for name in dispensable:
        room = _room(widths, kept, columns)
        if room is None or room >= _NARROWEST_COMMAND:
            break
        kept.remove(list(names).index(name))
    return kept


def _room(widths: Sequence[int], kept: Sequence[int], columns: int | None) -> int | None:
    """Return what is left for the last column."""
    if columns is None:
        return None
    return max(columns - sum(widths[at] + len(_GAP) for at in kept[:-1]), 1)


def _colour(end: str) -> str:
    if end == "running":
        return _GREEN
    return "" if end == "0" else _DIM if end == "?" else _RED


def _coloured(text: str, colour: str, style: Style) -> str:
    return f"{colour}{text}{_RESET}" if colour and style.colour else text
