"""Rows of any statement, in the output modes of the SQLite shell.

Modes for people (box, column, line, markdown, table) never let through what a terminal
would obey; those for programs (ascii, csv, html, insert, json, jsonl, list, quote, tabs, tcl)
spell it as their format does, or escape it where the format knows no way.

Source: sqlite.org/cli.html, "Changing Output Formats".
"""

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prochist.show import records
from prochist.show.table import Style, any_columns
from prochist.show.terminal import clip, escape, pad, width

Rows = Iterable[Sequence[Any]]


class Look(NamedTuple):
    """What the user has set: `.headers`, `.nullvalue`, and how wide the terminal is."""

    style: Style
    null: str = ""


class _Frame(NamedTuple):
    """What a table is drawn with: the corners and lines of its borders."""

    top: str | None
    middle: str
    bottom: str | None
    side: str


_BOX = _Frame("┌─┬┐", "├─┼┤", "└─┴┘", "│")
_TABLE = _Frame("+-++", "+-++", "+-++", "|")
_MARKDOWN = _Frame(None, "|-||", None, "|")


def text_of(value: object, null: str) -> str:
    """Return a value as people see it: escaped, NULL as ``null``."""
    if value is None:
        return null
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return escape(str(value))


def sql_literal(value: object) -> str:
    """Return a value as it is written in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, str):
        quoted = "'" + value.replace("'", "''") + "'"
        if value.isprintable():
            return quoted
        # Not one control character raw: '…'||char(27)||'…'
        parts = "".join(c if c.isprintable() else f"'||char({ord(c)})||'" for c in quoted)
        return f"({parts})"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return "NULL" if value != value else f"{'-' if value < 0 else ''}9.0e+999"  # noqa: PLR0124
    return repr(value)


def _column(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
    shown = ([look.null if v is None else v for v in row] for row in rows)
    return any_columns(names, shown, look.style)


def _framed(frame: _Frame) -> Callable[[Sequence[str], Rows, Look], Iterator[str]]:
    def lines(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
        cells = [[text_of(v, look.null) for v in row] for row in rows]
        if frame is _MARKDOWN:
            cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        header = [escape(name) for name in names]
        widths = [max(map(width, column)) for column in zip(header, *cells, strict=True)]
        side = frame.side

        def fit(line: str) -> str:
            return line if look.style.columns is None else clip(line, look.style.columns)

        def border(parts: str) -> str:
            left, dash, between, right = tuple(parts)
            return fit(left + between.join(dash * (w + 2) for w in widths) + right) + "\n"

        def line(row: Sequence[str]) -> str:
            padded = (pad(c, w) for c, w in zip(row, widths, strict=True))
            return fit(f"{side} " + f" {side} ".join(padded) + f" {side}") + "\n"

        if frame.top is not None:
            yield border(frame.top)
        if look.style.header or frame is _MARKDOWN:
            yield line(header)
            yield border(frame.middle)
        for row in cells:
            yield line(row)
        if frame.bottom is not None:
            yield border(frame.bottom)

    return lines


def _line(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
    widest = max(map(len, names), default=0)
    between = ""
    for row in rows:
        yield between
        for name, value in zip(names, row, strict=True):
            line = f"{escape(name):>{widest}} = {text_of(value, look.null)}"
            yield (line if look.style.columns is None else clip(line, look.style.columns)) + "\n"
        between = "\n"


def _separated(between: str, end: str) -> Callable[[Sequence[str], Rows, Look], Iterator[str]]:
    def lines(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
        if look.style.header:
            yield between.join(map(escape, names)) + end
        for row in rows:
            yield between.join(text_of(v, look.null) for v in row) + end

    return lines


def _dialect(dialect: records.Dialect) -> Callable[[Sequence[str], Rows, Look], Iterator[str]]:
    def lines(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
        if look.style.header:
            yield records.header(dialect, names)
        for row in rows:
            yield records.encode(dialect, names, row)

    return lines


def _json(names: Sequence[str], rows: Rows, _look: Look) -> Iterator[str]:
    return records.array(records.encode(records.JSONL, names, row) for row in rows)


def _html(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
    def line(cells: Iterable[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(c)}</{tag}>\n" for c in cells)
        return f"<TR>{inner}</TR>\n"

    if look.style.header:
        yield line(map(escape, names), "TH")
    for row in rows:
        yield line((text_of(v, look.null) for v in row), "TD")


def _insert(_names: Sequence[str], rows: Rows, _look: Look) -> Iterator[str]:
    for row in rows:
        yield f'INSERT INTO "table" VALUES({",".join(map(sql_literal, row))});\n'


def _quote(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
    if look.style.header:
        yield ",".join(map(sql_literal, names)) + "\n"
    for row in rows:
        yield ",".join(map(sql_literal, row)) + "\n"


def _tcl(names: Sequence[str], rows: Rows, look: Look) -> Iterator[str]:
    def word(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    if look.style.header:
        yield " ".join(word(escape(name)) for name in names) + "\n"
    for row in rows:
        yield " ".join(word(text_of(v, look.null)) for v in row) + "\n"


MODES: dict[str, Callable[[Sequence[str], Rows, Look], Iterator[str]]] = {
    "ascii": _separated("\x1f", "\x1e"),
    "box": _framed(_BOX),
    "column": _column,
    "csv": _dialect(records.CSV),
    "html": _html,
    "insert": _insert,
    "json": _json,
    "jsonl": _dialect(records.JSONL),
    "line": _line,
    "list": _separated("|", "\n"),
    "markdown": _framed(_MARKDOWN),
    "quote": _quote,
    "table": _framed(_TABLE),
    "tabs": _dialect(records.TSV),
    "tcl": _tcl,
}
"""Mode to what yields its lines."""

FOR_PEOPLE = frozenset(("box", "column", "line", "list", "markdown", "table"))
