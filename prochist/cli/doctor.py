"""``prochist doctor``: what this host allows, what is missing, and the remedy."""

import json
import sys
from pathlib import Path

import click

from prochist.cli.options import db_option
from prochist.show.terminal import escape

_BROKEN = 3


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
def doctor(path: Path, form: str) -> int:
    """Say what this host allows and what is missing, line by line, with the remedy.

    Looks at the kernel, the sources, permissions, the recorder, its database and
    its disk. Run it as the user who records.

    Exit status: 0 all ok, 1 something is degraded, 3 something is broken.
    """
    from prochist.service.doctor import examine

    lines = examine(path)
    if form == "json":
        known = [line._asdict() | {"health": line.health.name.lower()} for line in lines]
        sys.stdout.write(json.dumps(known, ensure_ascii=False) + "\n")
    else:
        width = max(len(line.what) for line in lines)
        for line in lines:
            health = line.health.name.lower()
            text = f"{health:<8}  {line.what:<{width}}  {line.finding}"
            sys.stdout.write(escape(text) + "\n")
            if line.health and line.remedy:
                sys.stdout.write(escape(f"{'':<8}  {'':<{width}}  remedy: {line.remedy}") + "\n")
    return (0, 1, _BROKEN)[max(line.health for line in lines)]
