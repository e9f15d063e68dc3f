"""``prochist boots``: which boots the history covers."""

import sys
from contextlib import closing
from datetime import tzinfo
from pathlib import Path

import click

from prochist.ask.history import boots as recorded_boots
from prochist.cli.options import db_option, open_history, terminal_columns, utc_option
from prochist.show import listing, records

_NOTHING_MATCHED = 1


@click.command()
@db_option
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
def boots(path: Path, form: str, zone: tzinfo | None) -> int:
    """List the boots that were recorded, oldest first, numbered as --boot counts them."""
    with closing(open_history(path)) as db:
        found = recorded_boots(db)
    if form == "table":
        sys.stdout.write(listing.boots(found, zone=zone, columns=terminal_columns()))
    else:
        dialect = records.DIALECTS[form]
        sys.stdout.write(records.header(dialect, tuple(found[0]) if found else ()))
        for boot in found:
            sys.stdout.write(records.encode(dialect, tuple(boot), tuple(boot.values())))
    return 0 if found else _NOTHING_MATCHED
