"""``prochist timeline``: what happened in which order, for people and for other tools."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from prochist.ask.completeness import GAP_COLUMNS, Verdict
from prochist.ask.processes import instant
from prochist.ask.timeline import COLUMNS, Event, Timeline
from prochist.cli.filters import AskingCommand, filter_options, judge_window, make_question
from prochist.cli.options import (
    Times,
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
from prochist.show.perfetto import GROUPS
from prochist.show.verdict import completeness, verdict_line

if TYPE_CHECKING:
    from prochist.ask.filters import Question

_DEFAULT_LIMIT = 100
_FORMATS = ("text", "json", "jsonl", "csv", "timesketch", "ecs", "perfetto", "html")
_NOTHING_MATCHED, _MAY_BE_INCOMPLETE = 1, 4


@click.command(
    cls=AskingCommand,
    epilog="Times and durations are those of `prochist query`. Exit status: 0 something "
    "happened, 1 nothing matched, 4 with --require-complete: events may be missing.",
)
@db_option
@filter_options
@click.option("-n", "--limit", metavar="N", help="Only the N lives that began last; `all`.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(_FORMATS),
    default="text",
    show_default=True,
    help="The form of the output.",
)
@click.option(
    "--group",
    type=click.Choice(GROUPS),
    default=GROUPS[0],
    show_default=True,
    help="With -o perfetto: what lives are grouped by.",
)
@click.option("--flows", is_flag=True, help="With -o perfetto: arrows from parent to child.")
@utc_option
@no_pager_option
@click.option(
    "--require-complete", is_flag=True, help="Exit with status 4 when events may be missing."
)
def timeline(**options: Any) -> int:  # noqa: ANN401 - one for each option
    """Show what happened to processes, in order, with gaps and reboots where they lie.

    The filters of query choose the lives; with --since and --until, only what
    happened between them is shown. timesketch, ecs, perfetto and html are for other
    programs: JSON Lines for Timesketch and for Elasticsearch, a trace for
    ui.perfetto.dev, and one page that any browser opens, without a network.

    Without a time or --limit: text shows the newest 100 lives, the other forms all.
    """
    _refuse_what_does_nothing(options)
    times = Times(options["zone"])
    with (
        closing(open_history(options["path"])) as db,
        screen(db, for_people=options["form"] == "text", paged=options["paged"]),
    ):
        question = make_question(db, times, options)
        limit = _limit(options, question)
        recording = is_recording(options["path"])
        found = Timeline(db, question, limit=limit)
        reach_ns = found.answer.reach_ns
        verdict = judge_window(db, question, recording=recording, reach_ns=reach_ns)
        write(_shown(found, verdict, times, options))
    line = verdict_line(found.events, verdict, "event")
    if options["limit"] is None and limit is not None and found.answer.count == limit:
        line = f"the newest {limit} lives only (-n all, or a time, shows others) · {line}"
    say(line)
    if options["require_complete"] and not verdict.complete:
        return _MAY_BE_INCOMPLETE
    return 0 if found.events else _NOTHING_MATCHED


def _refuse_what_does_nothing(options: dict[str, Any]) -> None:
    if options["form"] != "perfetto" and (options["flows"] or options["group"] != GROUPS[0]):
        message = f"--flows and --group mean nothing with -o {options['form']}"
        raise UsageError(message, hint="they are for -o perfetto")


def _limit(options: dict[str, Any], question: "Question") -> int | None:
    text = options["limit"]
    if text is None:
        return None if question.has_window or options["form"] != "text" else _DEFAULT_LIMIT
    return None if text == "all" else integer(text, "a number of lives", least=1)


def _shown(
    found: Timeline, verdict: Verdict, times: Times, options: dict[str, Any]
) -> Iterable[str]:
    """Return the timeline in the form that was asked for, in parts."""
    form: str = options["form"]
    if form == "html":
        return _page(found, verdict, times)
    events = found.between(verdict)
    if form in records.DIALECTS:
        return _records(events, records.DIALECTS[form])
    if form == "json":
        return _object(events, verdict)
    return _for_others(events, form, options) or _for_people(events, times)


def _for_people(events: Iterable[Event], times: Times) -> Iterator[str]:
    from prochist.show import timeline_text
    from prochist.show.table import Style

    style = Style(terminal_columns(), times.zone, times.now_ns, wants_colour())
    return timeline_text.lines(events, style)


def _for_others(
    events: Iterable[Event], form: str, options: dict[str, Any]
) -> Iterator[str] | None:
    from prochist.show import ecs, perfetto, timesketch

    if form == "perfetto":
        return perfetto.pieces(events, group=options["group"], flows=options["flows"])
    forms = {"timesketch": timesketch.lines, "ecs": ecs.lines}
    return forms[form](events) if form in forms else None


def _records(events: Iterable[Event], dialect: records.Dialect) -> Iterator[str]:
    yield records.header(dialect, COLUMNS)
    for event in events:
        yield records.encode(dialect, COLUMNS, event.row())


def _object(events: Iterable[Event], verdict: Verdict) -> Iterator[str]:
    """Yield one JSON object, an event a line; keys as with ``query -o json``."""
    since, until = instant(verdict.since_ns), instant(verdict.until_ns)
    gaps = ",".join(
        records.encode(records.JSONL, GAP_COLUMNS, gap.row()).rstrip("\n") for gap in verdict.gaps
    )
    yield f'{{"since":{records.json_value(since)},"until":{records.json_value(until)},'
    yield f'"complete":{"true" if verdict.complete else "false"},"gaps":[{gaps}],"events":['
    between = "\n"
    for event in events:
        yield between + records.encode(records.JSONL, COLUMNS, event.row()).rstrip("\n")
        between = ",\n"
    yield "\n]}\n"


def _page(found: Timeline, verdict: Verdict, times: Times) -> Iterator[str]:
    from prochist.show import html

    page = html.Page(
        "Process timeline",
        completeness(verdict),
        verdict.complete,
        verdict.since_ns,
        verdict.until_ns,
        times.now_ns,
    )
    return html.pieces(found.lives(), found.notes(verdict), page)
