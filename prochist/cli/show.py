"""``prochist show``: one life in full."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import tzinfo
from pathlib import Path

import click

from prochist.ask.completeness import judge
from prochist.ask.filters import find_lives
from prochist.ask.history import Record, life_in_full
from prochist.cli.options import (
    Times,
    db_option,
    is_recording,
    open_history,
    terminal_columns,
    utc_option,
)
from prochist.cli.screen import say
from prochist.clock import EpochNs
from prochist.show import human, long
from prochist.show.verdict import verdict_line

_NOTHING_MATCHED = 1


@click.command()
@click.argument("process", metavar="ID|PID")
@db_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("long", "json", "jsonl")),
    default="long",
    show_default=True,
    help="The form of the output; json is an array, jsonl a life a line.",
)
@utc_option
def show(process: str, path: Path, form: str, zone: tzinfo | None) -> int:
    """Show everything known about a process: its execs, parents, changes, children and end.

    A number is a pid, and all lives that had it are shown, oldest first; where no
    life had it, it is an id. id:N and pid:N leave no doubt.
    """
    times = Times(zone)
    with closing(open_history(path)) as db:
        ids = find_lives(db, process)
        found = 0
        oldest: int | None = None
        newest: int | None = None
        for id_ in ids:
            life = life_in_full(db, id_)
            if life is None:
                continue
            starts = [t for t in (life["started_at_ns"], life["ended_at_ns"]) if t is not None]
            oldest = min(starts) if oldest is None else min([oldest, *starts])
            newest = max([newest or 0, life["ended_at_ns"] or times.now_ns])
            for text in _shown(life, form, times, first=found == 0):
                sys.stdout.write(text)
            found += 1
        if form == "json":
            sys.stdout.write("\n]\n" if found else "[]\n")
        sys.stdout.flush()
        alive = is_recording(path)
        verdict = judge(
            db,
            None if oldest is None else EpochNs(oldest),
            None if newest is None else EpochNs(newest),
            now_ns=times.now_ns,
            recording=alive,
        )
    say(verdict_line(found, verdict))
    return 0 if found else _NOTHING_MATCHED


def _shown(life: Record, form: str, times: Times, *, first: bool) -> Iterator[str]:
    if form == "long":
        columns = terminal_columns()
        if not first:
            yield "\n"
        yield from long.life(life, zone=times.zone, now_ns=times.now_ns, columns=columns)
        yield from long.kin(life, zone=times.zone, now_ns=times.now_ns, columns=columns)
        return
    text = json.dumps(life, ensure_ascii=False, default=human.bytes_as_text)
    yield f"{text}\n" if form == "jsonl" else f"{'[' if first else ','}\n{text}"
