"""``prochist sql``, a statement of one's own, and ``prochist schema``, what to write it against."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from prochist.ask.sql import Statement
from prochist.cli.options import (
    Times,
    db_option,
    duration_option,
    terminal_columns,
    wants_colour,
)
from prochist.cli.screen import screen
from prochist.show import records, table
from prochist.store.database import migrations, open_reader

_FORMATS = ("table", "long", "json", "jsonl", "csv", "tsv")
_NOTHING_MATCHED = 1


@click.command()
@click.argument("statement", required=False)
@db_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="The form of the output; json is an array of objects.",
)
@click.option("--no-header", is_flag=True, help="Leave out the line of column names.")
@duration_option(
    "--timeout", "timeout_ns", text="The longest that the statement may take.", default="60s"
)
def sql(statement: str | None, path: Path, form: str, timeout_ns: int, *, no_header: bool) -> int:
    """Run one read-only SQL STATEMENT against the views; `-` reads it from stdin.

    Without a statement: an interactive shell, with the output modes of the SQLite shell.

    The views are processes, execs, id_changes, events, gaps, boots, running and
    failed; `prochist schema` documents them. Nothing can be changed, attached or
    loaded, and no file but the database is read.
    """
    if statement is None:
        from prochist.cli.shell import Shell, interact

        with closing(open_reader(path)) as db:
            mode = {"table": "column", "long": "line", "tsv": "tabs"}.get(form, form)
            shell = Shell(db, mode=mode, limit_s=timeout_ns / 1e9, header=not no_header)
            return interact(shell, os.environ)
    text = sys.stdin.read() if statement == "-" else statement
    with closing(open_reader(path)) as db, screen(db, for_people=form in ("table", "long")):
        running = Statement(db, text, limit_s=timeout_ns / 1e9)
        found = 0
        for line, is_row in _lines(running, form, header=not no_header):
            found += is_row
            sys.stdout.write(line)
    sys.stdout.flush()
    return 0 if found else _NOTHING_MATCHED


def _lines(running: Statement, form: str, *, header: bool) -> Iterator[tuple[str, bool]]:
    """Yield the texts of the output, and of each whether it shows a row."""
    names, rows = running.names, running.rows()
    if form in records.DIALECTS:
        dialect = records.DIALECTS[form]
        if header:
            yield records.header(dialect, names), False
        for row in rows:
            yield records.encode(dialect, names, row), True
    elif form == "json":
        before = "["
        for row in rows:
            yield before + "\n" + records.encode(records.JSONL, names, row).rstrip("\n"), True
            before = ","
        yield ("\n]\n" if before == "," else "[]\n"), False
    elif form == "long":
        from prochist.show import long

        for row in rows:
            lines = long.fields(names, row, columns=terminal_columns())
            yield "".join(lines) + "\n", True
    else:
        style = table.Style(terminal_columns(), None, Times(None).now_ns, wants_colour(), header)
        lines = table.any_columns(names, rows, style)
        if header and names:
            yield next(lines, ""), False
        for line in lines:
            yield line, True


@click.command()
def schema() -> None:
    """Print the documented schema: tables, and the views to write SQL against."""
    for migration in migrations():
        click.echo(migration.sql, nl=False)
