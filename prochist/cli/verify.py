"""``prochist verify``: is the history what the schema says."""

import json
import sys
from pathlib import Path

import click

from prochist.cli.options import db_option
from prochist.show.terminal import escape

_DAMAGED = 3


@click.command()
@db_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="The form of the output.",
)
def verify(path: Path, form: str) -> int:
    """Check the database: the file, what names what, and the invariants of lives.

    Reads all of it, and may run while a recorder writes. Nothing is changed.

    Exit status: 0 all is well, 3 something is wrong.
    """
    from prochist.service.verification import verify as check_all

    def tell(check: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"checking: {check}", err=True)

    findings = check_all(path, tell)
    if form == "json":
        known = [finding._asdict() for finding in findings]
        sys.stdout.write(json.dumps(known, ensure_ascii=False) + "\n")
    else:
        for finding in findings:
            verdict = f"{finding.found:,} wrong" if finding.found else "ok"
            sys.stdout.write(f"{verdict:<10} {finding.check}\n")
            for example in finding.examples:
                sys.stdout.write(f"{'':<10}   {escape(example)}\n")
            if finding.found > len(finding.examples):
                more = finding.found - len(finding.examples)
                sys.stdout.write(f"{'':<10}   and {more:,} more\n")
    return _DAMAGED if any(finding.found for finding in findings) else 0
