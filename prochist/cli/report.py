"""``prochist report``: what ran most, failed most, cost most, died young, restarted, is new."""

import json
from contextlib import closing
from datetime import tzinfo
from pathlib import Path

import click

from prochist.ask.completeness import judge
from prochist.ask.processes import instant
from prochist.ask.report import as_records, make_report
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
from prochist.cli.screen import say, screen, write
from prochist.clock import EpochNs
from prochist.errors import UsageError
from prochist.show import report as show
from prochist.show.table import Style
from prochist.show.verdict import verdict_line

_NOTHING_MATCHED = 1
_DAY_NS = 86_400_000_000_000


@click.command()
@db_option
@time_option("-S", "--since", text="Lives that began at T or later. [default: 24h before --until]")
@time_option("-U", "--until", text="Lives that began at T or earlier. [default: now]")
@click.option(
    "-n", "--limit", metavar="N", default="10", show_default=True, help="Rows of each table."
)
@output_option("table", "json")
@utc_option
@no_pager_option
def report(  # noqa: PLR0913, PLR0917 - one for each option
    path: Path,
    since: str | None,
    until: str | None,
    limit: str,
    form: str,
    zone: tzinfo | None,
    *,
    paged: bool,
) -> int:
    """Say what stands out in a window: each table with the command that shows its first row.

    Most started, most failed, most CPU and memory, storms of short lives (50 or more a
    minute, of under a second each, from one parent), restart loops (a service begun at
    least 5 times, each within a minute of its end), and executables that never ran before.
    """
    times = Times(zone)
    rows = integer(limit, "a number of rows", least=1)
    until_ns = times.parse(until) or times.now_ns
    since_ns = EpochNs(until_ns - _DAY_NS) if since is None else times.parse(since)
    if since_ns is None or since_ns > until_ns:
        message = "--since is later than --until"
        raise UsageError(message, hint="exchange them")
    with (
        closing(open_history(path)) as db,
        screen(db, for_people=form == "table", paged=paged),
    ):
        recording = is_recording(path)
        verdict = judge(db, since_ns, until_ns, now_ns=times.now_ns, recording=recording)
        found = make_report(db, since_ns, until_ns, limit=rows)
        if form == "json":
            head = {"since": instant(since_ns), "until": instant(until_ns)}
            known = head | {"complete": verdict.complete} | as_records(found)
            write([json.dumps(known, ensure_ascii=False) + "\n"])
        else:
            style = Style(terminal_columns(), zone, times.now_ns, wants_colour())
            window = ["--started-since", instant(since_ns) or ""]
            window += ["--started-until", instant(until_ns) or ""] if until else []
            write(show.text(found, window, style))
    say(verdict_line(found.lives, verdict))
    return 0 if found.lives else _NOTHING_MATCHED
