"""``prochist ps``: who is running, or was at an instant, from the history alone."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import tzinfo
from pathlib import Path
from typing import Any

import click

from prochist.ask import processes
from prochist.ask.completeness import judge
from prochist.ask.filters import Question
from prochist.ask.processes import COLUMNS
from prochist.cli.options import (
    Times,
    column_names,
    db_option,
    is_recording,
    no_pager_option,
    open_history,
    output_option,
    terminal_columns,
    time_option,
    utc_option,
    wants_colour,
)
from prochist.cli.screen import say, screen, write
from prochist.errors import UsageError
from prochist.show import records
from prochist.show.table import SNAPSHOT, Style, any_columns, snapshot
from prochist.show.verdict import verdict_line

_NOTHING_MATCHED = 1


@click.command(
    epilog="PPID is the parent at the fork; whoever adopted an orphan is known when it ends. "
    "Exit status: 0 rows found, 1 nothing was running."
)
@db_option
@time_option("--at", text="Who was running at T instead of now.")
@click.option("--user", "users", multiple=True, metavar="USER", help="Of this user: name or uid.")
@click.option("--kernel-threads", is_flag=True, help="Kernel threads too.")
@click.option("--fields", metavar="A,B,...", help="Show these columns of the view `processes`.")
@click.option(
    "--sort",
    metavar="[-]FIELD",
    default="pid",
    show_default=True,
    help="Sort by this column; `-` in front: the largest first.",
)
@output_option("table", *records.DIALECTS)
@click.option("--no-header", is_flag=True, help="Leave out the line of column names.")
@utc_option
@no_pager_option
def ps(  # noqa: PLR0913, PLR0917 - one for each option
    path: Path,
    at: str | None,
    users: tuple[str, ...],
    fields: str | None,
    sort: str,
    form: str,
    zone: tzinfo | None,
    *,
    kernel_threads: bool,
    no_header: bool,
    paged: bool,
) -> int:
    """Show the processes that are running, or were at an instant, as ps does.

    Nothing of /proc is read: it costs the same on a busy host, and works for
    last night and for a copy of the database from another host. How fresh it is, the
    recorder's last commit decides: a quarter of a second, unless told otherwise.
    """
    times = Times(zone)
    at_ns = times.parse(at)
    names = column_names(fields) if fields else None
    by = sort.removeprefix("-")
    if by not in COLUMNS:
        message = f"no such column: {by!r}"
        raise UsageError(message, hint=f"columns: {', '.join(COLUMNS)}")
    question = Question(
        now_ns=times.now_ns,
        alive_at_ns=at_ns,
        running=at_ns is None,
        users=users,
        kernel_threads=kernel_threads,
    )
    with closing(open_history(path)) as db, screen(db, for_people=form == "table", paged=paged):
        recording = is_recording(path)
        instant = times.now_ns if at_ns is None else at_ns
        verdict = judge(db, instant, instant, now_ns=times.now_ns, recording=recording)
        answer = processes.select(db, question)
        shown = names or (SNAPSHOT if form == "table" else COLUMNS)
        rows = _sorted(answer.pick((*shown, by, "pid")), sort)
        if form == "table":
            style = Style(terminal_columns(), zone, instant, wants_colour(), not no_header)
            write(any_columns(names, rows, style) if names else snapshot(rows, style))
        else:
            write(_encoded(records.DIALECTS[form], shown, rows, header=not no_header))
    say(verdict_line(answer.count, verdict))
    return 0 if answer.count else _NOTHING_MATCHED


def _sorted(rows: Iterable[tuple[Any, ...]], sort: str) -> list[tuple[Any, ...]]:
    """Sort by the last two values of each row, NULLs first, and leave them away."""
    found = sorted(
        rows, key=lambda row: (row[-2] is not None, row[-2], row[-1]), reverse=sort.startswith("-")
    )
    return [row[:-2] for row in found]


def _encoded(
    dialect: records.Dialect,
    names: Sequence[str],
    rows: Iterable[tuple[Any, ...]],
    *,
    header: bool,
) -> Iterator[str]:
    if header:
        yield records.header(dialect, names)
    for row in rows:
        yield records.encode(dialect, names, row)
