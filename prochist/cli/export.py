"""``prochist export``: lives that are over, as files for other engines."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from prochist.ask.export import SETTLE_S, Mark, finished, mark, newest_batch, selected
from prochist.ask.filters import Question
from prochist.cli.filters import AskingCommand, filter_options, make_question
from prochist.cli.options import Times, db_option, is_recording, open_history, utc_option
from prochist.cli.partitions import Partitions
from prochist.cli.screen import say
from prochist.errors import ProchistError, UsageError
from prochist.show import human, parquet

_NOTHING_MATCHED = 1


@click.command(
    cls=AskingCommand,
    epilog="Times and durations are those of `prochist query`. Exit status: 0 lives were "
    "exported, 1 none were; 3 DIR is full, in use, or of another history.",
)
@db_option
@filter_options
@click.option(
    "--format",
    "form",
    type=click.Choice(("parquet",)),
    required=True,
    help="The format; parquet needs pyarrow: pip install 'prochist[parquet]'.",
)
@click.option(
    "--partition",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to: DIR/host=NAME/date=DAY/*.parquet, by the UTC day of the end.",
)
@click.option(
    "--incremental",
    is_flag=True,
    help="Only what ended, or was learned to have ended, since the last export into DIR.",
)
@utc_option
def export(**options: Any) -> int:  # noqa: ANN401 - one for each option
    """Export the processes that are over, each exactly once.

    Files are written aside and renamed: an export that is interrupted counts whole or
    not at all, and can simply be run again. While a recorder is running, an export
    first waits 3 s, so that what it takes is not written again. Processes that are
    still running are exported when they have ended. contrib/fleet has views for DuckDB,
    ClickHouse and Spark with the column names of `processes`.
    """
    parquet.load()  # before anything is made
    history: Path = options["path"]
    with Partitions(options["folder"]) as partitions:
        state = partitions.state
        _refuse_another(state, history, options)
        after = Mark(int(state.get("batch", 0)), frozenset(state.get("near", ())))
        with closing(open_history(history)) as db:
            question = make_question(db, Times(options["zone"]), options)
            asks = question != Question(now_ns=question.now_ns)
            until = newest_batch(db)
        if options["incremental"] and asks:
            message = "--incremental takes everything that has ended"
            raise UsageError(message, hint="leave the filters away, or --incremental")
        if until < after.batch:
            message = f"{options['folder']} holds a longer history than {history} has"
            raise ProchistError(message, hint="export another history into another directory")
        if is_recording(history) and not asks:
            time.sleep(SETTLE_S)
        with closing(open_history(history)) as db:
            answer = selected(db, question) if asks else finished(db, after, until)
            count = partitions.write(answer)
            reached = after if asks else mark(db, after, until)
        partitions.commit(history, reached)
    what = f"{human.plural(count, 'process')} in {human.plural(len(partitions.files), 'file')}"
    say(f"exported {what}")
    return 0 if count else _NOTHING_MATCHED


def _refuse_another(state: dict[str, Any], history: Path, options: dict[str, Any]) -> None:
    """Refuse what would export something twice, or mix two histories."""
    if not state:
        return
    if not options["incremental"]:
        message = f"{options['folder']} holds an export already"
        raise ProchistError(message, hint="go on with --incremental, or name another directory")
    if state["history"] != str(history.resolve()):
        message = f"{options['folder']} holds an export of {state['history']}"
        raise ProchistError(message, hint="export each history into a directory of its own")
