"""``prochist gaps``: when rows may be missing."""

import sys
from contextlib import closing
from datetime import tzinfo
from pathlib import Path

import click

from prochist.ask.completeness import GAP_COLUMNS, judge
from prochist.cli.options import (
    Times,
    db_option,
    is_recording,
    open_history,
    terminal_columns,
    time_option,
    utc_option,
)
from prochist.cli.screen import say
from prochist.show import listing, records
from prochist.show.verdict import completeness

_NOTHING_MATCHED = 1


@click.command()
@db_option
@time_option("-S", "--since", text="That reach to T or later.")
@time_option("-U", "--until", text="That begin at T or earlier.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("table", *records.DIALECTS)),
    default="table",
    show_default=True,
    help="The form of the output.",
)
@utc_option
def gaps(path: Path, since: str | None, until: str | None, form: str, zone: tzinfo | None) -> int:
    """List the times for which rows may be missing, and how many events were lost.

    Kinds: overrun (events came faster than they were read), down (no recorder was
    running), blind (the kernel sent nothing), suspend, clock_step. Exit status: 0
    there are some, 1 the window is complete.
    """
    times = Times(zone)
    with closing(open_history(path)) as db:
        alive = is_recording(path)
        since_ns, until_ns = times.parse(since), times.parse(until)
        verdict = judge(db, since_ns, until_ns, now_ns=times.now_ns, recording=alive)
    if form == "table":
        if verdict.gaps:
            text = listing.gaps(verdict.gaps, zone=zone, columns=terminal_columns())
            sys.stdout.write(text)
    else:
        dialect = records.DIALECTS[form]
        sys.stdout.write(records.header(dialect, GAP_COLUMNS))
        for gap in verdict.gaps:
            sys.stdout.write(records.encode(dialect, GAP_COLUMNS, gap.row()))
    sys.stdout.flush()
    say(completeness(verdict))
    return 0 if verdict.gaps else _NOTHING_MATCHED
