"""``prochist tree``: families, the dead included."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import tzinfo
from pathlib import Path

import click

from prochist.ask.completeness import judge
from prochist.ask.filters import Question, find_lives
from prochist.ask.processes import COLUMNS
from prochist.ask.tree import Node, Tree, family, forest
from prochist.cli.options import (
    Times,
    db_option,
    integer,
    is_recording,
    no_pager_option,
    open_history,
    output_option,
    terminal_columns,
    time_option,
    utc_option,
    wants_colour,
)
from prochist.cli.screen import say, screen, speaks_utf8, write
from prochist.clock import EpochNs
from prochist.errors import UsageError
from prochist.show import records
from prochist.show.tree import ASCII, LINES, draw
from prochist.show.verdict import verdict_line

_NOTHING_MATCHED = 1
_MANY = 1_000_000_000
_STARTED, _ENDED = COLUMNS.index("started_at_ns"), COLUMNS.index("ended_at_ns")


@click.command(
    epilog="Each line is NAME,PID [HOW IT ENDED, HOW LONG IT LIVED] COMMAND LINE. With jsonl and "
    "json, the columns of `processes` and how deep a life is in its tree: `depth`. "
    "Exit status: 0 rows found, 1 nothing matched."
)
@click.argument("process", metavar="[ID|PID]", required=False)
@db_option
@time_option("--at", text="As it was at T: only who was alive then.")
@click.option(
    "-n",
    "--limit",
    metavar="N",
    default="1000",
    show_default=True,
    help="Show at most N descendants, the nearest generations first; `all`: no limit.",
)
@click.option("--depth", metavar="N", help="Show at most N generations below.")
@click.option("--kernel-threads", is_flag=True, help="Kernel threads too, if none is named.")
@output_option("table", "json", "jsonl")
@utc_option
@no_pager_option
def tree(  # noqa: PLR0913, PLR0917 - one for each option
    process: str | None,
    path: Path,
    at: str | None,
    limit: str,
    depth: str | None,
    form: str,
    zone: tzinfo | None,
    *,
    kernel_threads: bool,
    paged: bool,
) -> int:
    """Show a process with its ancestors and descendants, the dead included, each with its end.

    A number is a pid, and means all lives that had it; where no life had it, it is an
    id. id:N and pid:N leave no doubt. Without a process: all that are running.
    """
    times = Times(zone)
    at_ns = times.parse(at)
    generations = _MANY if depth is None else integer(depth, "a number of generations")
    most = _MANY if limit == "all" else integer(limit, "a number of processes", least=1)
    if process is None and depth is not None:
        message = "--depth needs a process"
        raise UsageError(message, hint="name its pid: prochist tree 1 --depth 2")
    now_ns = times.now_ns if at_ns is None else at_ns
    with (
        closing(open_history(path)) as db,
        screen(db, for_people=form == "table", paged=paged),
    ):
        recording = is_recording(path)
        roots = None if process is None else find_lives(db, process)
        if roots is not None and at_ns is None:
            found = family(db, roots, now_ns=now_ns, limit=most, depth=generations)
        else:
            question = Question(
                now_ns=times.now_ns,
                alive_at_ns=at_ns,
                running=at_ns is None,
                kernel_threads=kernel_threads or process is not None,
            )
            found = forest(db, question, around=roots)
        write(_shown(found, form, now_ns))
        since, until = _extent(found.nodes, at_ns, times.now_ns)
        verdict = judge(db, since, until, now_ns=times.now_ns, recording=recording)
    line = verdict_line(len(found.nodes), verdict)
    if found.is_cut:
        line = f"at most {limit} descendants (-n all shows more) · {line}"
    say(line)
    return 0 if found.nodes else _NOTHING_MATCHED


def _extent(nodes: list[Node], at_ns: EpochNs | None, now_ns: EpochNs) -> tuple[EpochNs, EpochNs]:
    """Return the time in which a missing life could have belonged to the tree."""
    asked = [node.row for node in nodes if node.is_asked]
    if at_ns is not None or not asked:
        return at_ns or now_ns, at_ns or now_ns
    starts = [row[_STARTED] for row in asked]
    ends = [row[_ENDED] for row in asked]
    since = min((t for t in (*starts, *ends) if isinstance(t, int)), default=now_ns)
    until = max((t if isinstance(t, int) else now_ns for t in ends), default=now_ns)
    return EpochNs(since), EpochNs(until)


def _shown(found: Tree, form: str, now_ns: EpochNs) -> Iterator[str]:
    if form == "table":
        branches = LINES if speaks_utf8(os.environ) else ASCII
        yield from draw(
            found.nodes,
            now_ns=now_ns,
            columns=terminal_columns(),
            branches=branches,
            colour=wants_colour(),
        )
        return
    names = ("depth", *COLUMNS)
    lines = (records.encode(records.JSONL, names, (n.depth, *n.row)) for n in found.nodes)
    if form == "jsonl":
        yield from lines
    else:
        yield from records.array(lines)
