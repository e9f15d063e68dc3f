"""``prochist query``: which lives, how many, in which order and form."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from prochist.ask import processes
from prochist.ask.completeness import GAP_COLUMNS, Verdict
from prochist.ask.filters import Question
from prochist.ask.processes import COLUMNS, Answer
from prochist.cli.filters import AskingCommand, filter_options, judge_window, make_question
from prochist.cli.options import (
    Times,
    column_names,
    db_option,
    integer,
    is_recording,
    no_pager_option,
    open_history,
    terminal_columns,
    utc_option,
    wants_colour,
)
from prochist.cli.screen import say, screen, write
from prochist.errors import UsageError
from prochist.show import records
from prochist.show.verdict import verdict_line

_DEFAULT_LIMIT = 100
_FOLLOWED_LIMIT = 10
_FORMATS = ("table", "long", "json", "jsonl", "csv", "tsv")
_NOTHING_MATCHED, _MAY_BE_INCOMPLETE = 1, 4


@click.command(
    cls=AskingCommand,
    epilog="Times T: now, today, yesterday, boot, 2026-11-20, '2026-11-20 03:00:00.5', 03:00, "
    "2026-11-20T03:00:00Z, @EPOCH, -1h, '1h ago', 1h, 3d2h; a local time that the clock jumped "
    "over counts from before the jump. "
    "Durations D: 90min, 1.5s, 3d2h, or a number of seconds. "
    "Exit status: 0 rows found, 1 nothing matched, 4 with --require-complete: rows may be missing.",
)
@db_option
@filter_options
@click.option("-n", "--limit", metavar="N", help="Show only the last N in order; `all`: no limit.")
@click.option("-r", "--reverse", is_flag=True, help="Newest first; with --sort: the largest first.")
@click.option("--sort", metavar="FIELD", help="Sort by this column instead of the start.")
@click.option("--fields", metavar="A,B,...", help="Show these columns of the view `processes`.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="The form of the output.",
)
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on with what is recorded next.")
@click.option(
    "--cursor-file",
    metavar="FILE",
    help="With --follow: go on where the last one with this file stopped.",
)
@click.option("--count", "count_only", is_flag=True, help="Show only how many there are.")
@utc_option
@no_pager_option
@click.option("--no-header", is_flag=True, help="Leave out the line of column names.")
@click.option(
    "--require-complete", is_flag=True, help="Exit with status 4 when rows may be missing."
)
def query(**options: Any) -> int:  # noqa: ANN401 - one for each option
    """Show the processes that ran, oldest first.

    Options of one kind repeated are OR, of different kinds AND. Without a time or
    --limit: the newest 100. stderr says whether anything can be missing.
    """
    times = Times(options["zone"])
    fields = column_names(options["fields"]) if options["fields"] is not None else None
    if options["follows"] or options["cursor_file"] is not None:
        return _follow(times, fields, options)
    for_people = options["form"] in ("table", "long") and not options["count_only"]
    # Before the history: a recorder that commits between the two is then no gap.
    with (
        closing(open_history(options["path"])) as db,
        screen(db, for_people=for_people, paged=options["paged"]),
    ):
        question = make_question(db, times, options)
        limit = _limit(options, question)
        recording = is_recording(options["path"])
        if options["count_only"]:
            verdict = judge_window(db, question, recording=recording)
            found = processes.count(db, question)
            write([f"{found}\n"])
        else:
            answer = processes.select(
                db, question, limit=limit, newest_first=options["reverse"], sort=options["sort"]
            )
            verdict = judge_window(db, question, recording=recording, reach_ns=answer.reach_ns)
            gc.disable()  # nothing here makes cycles, and looking for them takes a twentieth
            write(_shown(answer, verdict, fields, times, options))
            found = answer.count
    line = verdict_line(found, verdict)
    if options["limit"] is None and limit is not None and found == limit:
        which = "newest" if options["sort"] is None else "last"
        line = f"the {which} {limit} only (-n all, or a time, shows others) · {line}"
    say(line)
    if options["require_complete"] and not verdict.complete:
        return _MAY_BE_INCOMPLETE
    return 0 if found else _NOTHING_MATCHED


def _follow(times: Times, fields: tuple[str, ...] | None, options: dict[str, Any]) -> int:
    """Show what there is, then what is recorded, until Ctrl-C or until nobody reads.

    Raises:
        UsageError: an option that makes no sense without an end.
    """
    from prochist.ask.follow import Changes, newest_commit
    from prochist.cli.follow import Patience, Target, follow, read_cursor, write_cursor

    if not options["follows"]:
        message = "--cursor-file needs --follow"
        raise UsageError(message, hint="add -f")
    for name in ("reverse", "sort", "count_only", "require_complete"):
        if options[name]:
            message = f"--follow goes with no --{name.removesuffix('_only').replace('_', '-')}"
            raise UsageError(message, hint="leave one of them out")
    form: str = options["form"]
    if form == "json":
        message = "--follow never comes to the end that json needs"
        raise UsageError(message, hint="use -o jsonl")
    shown = False

    def show(rows: Iterable[tuple[Any, ...]]) -> None:
        nonlocal shown
        header = not (shown or options["no_header"])
        write(_lines(rows, form, fields, Times(times.zone), header=header))
        shown = True

    file = None if options["cursor_file"] is None else Path(options["cursor_file"])
    with (
        closing(open_history(options["path"])) as db,
        screen(None, for_people=form in ("table", "long"), paged=False),
        Patience(holds=file is not None) as patience,
    ):
        cursor = None if file is None else read_cursor(file)
        question = make_question(db, times, options)
        if cursor is None:
            limit = _limit(options, question)
            if options["limit"] is None and limit is not None:
                limit = _FOLLOWED_LIMIT
            cursor = newest_commit(db)
            show(list(processes.select(db, question, limit=limit).rows()))
            if file is not None:
                write_cursor(file, cursor)
        changes = Changes(db, question, cursor)
        db.execute("COMMIT")
        target = Target(show, file, options["path"])
        follow(changes, target, lambda: Times(times.zone).now_ns, patience)
    return 0


def _limit(options: dict[str, Any], question: Question) -> int | None:
    text = options["limit"]
    if text is None:
        return None if question.has_window else _DEFAULT_LIMIT
    return None if text == "all" else integer(text, "a number of rows", least=1)


def _shown(
    answer: Answer,
    verdict: Verdict,
    fields: tuple[str, ...] | None,
    times: Times,
    options: dict[str, Any],
) -> Iterator[str]:
    """Yield the answer in the form that was asked for."""
    form: str = options["form"]
    header: bool = not options["no_header"]
    if form == "json":
        yield from _object(answer, verdict, fields)
    elif form in records.DIALECTS and fields is None:
        dialect = records.DIALECTS[form]
        if header:
            yield records.header(dialect, COLUMNS)
        yield from records.encode_all(dialect, answer)
    elif fields is not None:
        yield from _picked(answer.pick(fields), form, fields, times, header=header)
    else:
        yield from _lines(answer.rows(), form, None, times, header=header)


def _lines(
    rows: Iterable[tuple[Any, ...]],
    form: str,
    fields: tuple[str, ...] | None,
    times: Times,
    *,
    header: bool,
) -> Iterator[str]:
    """Yield whole rows of ``COLUMNS`` in any form but json."""
    if fields is not None:
        places = [COLUMNS.index(name) for name in fields]
        some = (tuple([row[at] for at in places]) for row in rows)
        yield from _picked(some, form, fields, times, header=header)
    elif form in records.DIALECTS:
        yield from _picked(rows, form, COLUMNS, times, header=header)
    elif form == "long":
        from prochist.show import long

        columns = terminal_columns()
        for row in rows:
            life = dict(zip(COLUMNS, row, strict=True))
            yield from long.life(life, zone=times.zone, now_ns=times.now_ns, columns=columns)
            yield "\n"
    else:
        from prochist.show import table

        places = [COLUMNS.index(name) for name in table.NEEDED]
        style = table.Style(terminal_columns(), times.zone, times.now_ns, wants_colour(), header)
        yield from table.lives((tuple([row[at] for at in places]) for row in rows), style)


def _picked(
    rows: Iterable[tuple[Any, ...]],
    form: str,
    names: tuple[str, ...],
    times: Times,
    *,
    header: bool,
) -> Iterator[str]:
    """Yield rows of the columns ``names`` in any form but json."""
    if form in records.DIALECTS:
        dialect = records.DIALECTS[form]
        if header:
            yield records.header(dialect, names)
        for row in rows:
            yield records.encode(dialect, names, row)
    elif form == "long":
        from prochist.show import long

        for row in rows:
            yield from long.fields(names, row, columns=terminal_columns())
            yield "\n"
    else:
        from prochist.show import table

        style = table.Style(terminal_columns(), times.zone, times.now_ns, wants_colour(), header)
        yield from table.any_columns(names, rows, style)


def _object(answer: Answer, verdict: Verdict, fields: tuple[str, ...] | None) -> Iterator[str]:
    """Yield one JSON object, a process a line."""
    since, until = processes.instant(verdict.since_ns), processes.instant(verdict.until_ns)
    gaps = ",".join(
        records.encode(records.JSONL, GAP_COLUMNS, gap.row()).rstrip("\n") for gap in verdict.gaps
    )
    yield f'{{"since":{records.json_value(since)},"until":{records.json_value(until)},'
    yield f'"complete":{"true" if verdict.complete else "false"},"gaps":[{gaps}],"processes":['
    lines = (
        records.encode_all(records.JSONL, answer)
        if fields is None
        else (records.encode(records.JSONL, fields, row) for row in answer.pick(fields))
    )
    before = "\n"
    for text in lines:
        # A line break inside a text is written \\n, so these are the ends of records.
        yield before + text.rstrip("\n").replace("}\n{", "},\n{")
        before = ",\n"
    yield "\n]}\n"
