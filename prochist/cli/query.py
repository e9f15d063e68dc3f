"""``prochist query``: which lives, how many, in which order and form."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from prochist.ask import processes
from prochist.ask.completeness import GAP_COLUMNS, Verdict, judge
from prochist.ask.filters import Question, find_boots, find_lives
from prochist.ask.processes import COLUMNS, Answer
from prochist.ask.signals import parse_signal
from prochist.cli.options import (
    Times,
    db_option,
    duration_option,
    integer,
    is_recording,
    open_history,
    terminal_columns,
    time_option,
    utc_option,
    wants_colour,
)
from prochist.clock import EpochNs
from prochist.errors import UsageError
from prochist.show import records
from prochist.show.verdict import verdict_line

if TYPE_CHECKING:
    import apsw

_DEFAULT_LIMIT = 100
_FORMATS = ("table", "long", "json", "jsonl", "csv", "tsv")
_NOTHING_MATCHED, _MAY_BE_INCOMPLETE = 1, 4

_TIMES = (
    ("-S", "--since", "Alive at T or later."),
    ("-U", "--until", "Alive at T or earlier."),
    ("", "--exited-since", "Ended at T or later."),
    ("", "--exited-until", "Ended at T or earlier."),
    ("", "--started-since", "Began at T or later."),
    ("", "--started-until", "Began at T or earlier."),
    ("", "--alive-at", "Alive at that instant, exactly."),
)
_MANY = (
    ("-p", "--pid", "PID", "With this process id."),
    ("", "--ppid", "PID", "Forked by a process with this id."),
    ("", "--id", "ID", "With this id: the column id, which names one life for ever."),
    ("-c", "--comm", "GLOB", "Whose name (as in ps -o comm) matches."),
    ("-x", "--exe", "GLOB", "Whose executable matches; without a slash, its base name."),
    ("-g", "--grep", "RE", "With a match in the command line; (?i) in front ignores case."),
    ("", "--user", "USER", "Of this user: name or uid."),
    ("", "--login-user", "USER", "Begun in a login of this user: name or uid (loginuid)."),
    ("-u", "--unit", "UNIT", "Of this systemd unit, or a glob; ssh means ssh.service."),
    ("", "--container", "ID", "In the container whose id begins so."),
    ("", "--tty", "TTY", "On this controlling terminal: pts/0."),
    ("", "--session", "N", "In this audit session."),
    ("", "--exit", "N", "That exited with this status."),
    ("", "--signal", "SIGNAL", "Killed by this signal: name or number."),
    (
        "",
        "--descendants-of",
        "ID|PID",
        (
            "That descend from this process. A number is a pid (of all lives that had it), or an "
            "id where no life had that pid; id:N and pid:N leave no doubt."
        ),
    ),
    ("", "--ancestors-of", "ID|PID", "That this process descends from; numbers as above."),
)
_FLAGS = (
    ("--running", "Without an end."),
    ("--exited", "With an end."),
    ("--failed", "Ended with a status other than 0, or by a signal."),
    ("--kernel-threads", "Kernel threads too; otherwise only those named by --id or --pid."),
)


def _filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every filter to a command: one row of the tables above each."""
    options = [time_option(*filter(None, (short, long)), text=text) for short, long, text in _TIMES]
    options.append(
        click.option(
            "-b",
            "--boot",
            is_flag=False,
            flag_value="0",
            multiple=True,
            metavar="[ID|-N]",
            help="Of this boot: -1 is the one before the newest. No value: the newest.",
        )
    )
    options += [click.option(name, is_flag=True, help=text) for name, text in _FLAGS]
    options += [
        click.option(*filter(None, (short, long)), multiple=True, metavar=metavar, help=text)
        for short, long, metavar, text in _MANY
    ]
    options += [
        duration_option("--min-duration", text="That lived at least so long, or do so far."),
        duration_option("--max-duration", text="That lived at most so long, or do so far."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class _Query(click.Command):
    """Lets ``-b -1`` mean what it means to journalctl.

    Click takes what begins with a hyphen for another option wherever a value may be
    left out, ``--boot=-1`` included. A space before it prevents that, and means nothing.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        for argument in args:
            before = joined[-1] if joined else ""
            option, _, number = argument.rpartition("-")
            if before in ("-b", "--boot") and not option and number.isdigit():
                joined[-1] = f"--boot= -{number}"
            elif option in ("-b", "--boot=") and number.isdigit():
                joined.append(f"--boot= -{number}")
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


@click.command(
    cls=_Query,
    epilog="Times T: now, today, yesterday, boot, 2026-11-20, '2026-11-20 03:00:00.5', 03:00, "
    "2026-11-20T03:00:00Z, @EPOCH, -1h, '1h ago', 1h, 3d2h; a local time that the clock jumped "
    "over counts from before the jump. "
    "Durations D: 90min, 1.5s, 3d2h, or a number of seconds. "
    "Exit status: 0 rows found, 1 nothing matched, 4 with --require-complete: rows may be missing.",
)
@db_option
@_filter_options
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
@click.option("--count", "count_only", is_flag=True, help="Show only how many there are.")
@utc_option
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
    fields = _fields(options["fields"])
    # Before the history: a recorder that commits between the two is then no gap.
    with closing(open_history(options["path"])) as db:
        question = _question(db, times, options)
        limit = _limit(options, question)
        recording = is_recording(options["path"])
        if options["count_only"]:
            verdict = _judge(db, question, recording=recording)
            found = processes.count(db, question)
            _write([f"{found}\n"])
        else:
            answer = processes.select(
                db, question, limit=limit, newest_first=options["reverse"], sort=options["sort"]
            )
            verdict = _judge(db, question, recording=recording, reach_ns=answer.reach_ns)
            _write(_shown(answer, verdict, fields, times, options))
            found = answer.count
    line = verdict_line(found, verdict)
    if options["limit"] is None and limit is not None and found == limit:
        which = "newest" if options["sort"] is None else "last"
        line = f"the {which} {limit} only (-n all, or a time, shows others) · {line}"
    click.echo(line, err=True)
    if options["require_complete"] and not verdict.complete:
        return _MAY_BE_INCOMPLETE
    return 0 if found else _NOTHING_MATCHED


def _fields(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    fields = tuple(name.strip() for name in text.split(","))
    for name in fields:
        if name not in COLUMNS:
            message = f"no such column: {name!r}"
            raise UsageError(message, hint=f"columns: {', '.join(COLUMNS)}")
    return fields


def _limit(options: dict[str, Any], question: Question) -> int | None:
    text = options["limit"]
    if text is None:
        return None if question.has_window else _DEFAULT_LIMIT
    return None if text == "all" else integer(text, "a number of rows", least=1)


def _question(db: "apsw.Connection", times: Times, options: dict[str, Any]) -> Question:
    """Turn options into a question.

    Raises:
        UsageError: a value is not what its option takes.
    """

    def numbers(name: str, what: str, most: int = (1 << 63) - 1) -> tuple[int, ...]:
        return tuple(integer(text, what, most=most) for text in options[name])

    def kin(name: str) -> tuple[int, ...] | None:
        texts = options[name]
        return tuple(id_ for t in texts for id_ in find_lives(db, t)) if texts else None

    boots = options["boot"]
    return Question(
        now_ns=times.now_ns,
        since_ns=times.parse(options["since"]),
        until_ns=times.parse(options["until"]),
        exited_since_ns=times.parse(options["exited_since"]),
        exited_until_ns=times.parse(options["exited_until"]),
        started_since_ns=times.parse(options["started_since"]),
        started_until_ns=times.parse(options["started_until"]),
        alive_at_ns=times.parse(options["alive_at"]),
        boots=tuple(id_ for t in boots for id_ in find_boots(db, t)) if boots else None,
        running=options["running"],
        exited=options["exited"],
        failed=options["failed"],
        kernel_threads=options["kernel_threads"],
        ids=numbers("id", "an id"),
        pids=numbers("pid", "a pid"),
        ppids=numbers("ppid", "a pid"),
        comms=options["comm"],
        exes=options["exe"],
        greps=options["grep"],
        users=options["user"],
        login_users=options["login_user"],
        units=options["unit"],
        containers=options["container"],
        ttys=options["tty"],
        sessions=numbers("session", "an audit session"),
        exit_codes=numbers("exit", "an exit status", most=255),
        signals=tuple(map(parse_signal, options["signal"])),
        min_duration_ns=options["min_duration"],
        max_duration_ns=options["max_duration"],
        descendants_of=kin("descendants_of"),
        ancestors_of=kin("ancestors_of"),
    )


def _judge(
    db: "apsw.Connection", question: Question, *, recording: bool, reach_ns: int | None = None
) -> Verdict:
    """Judge the window that was asked for, or the part of it that the limit left."""
    since_ns, until_ns = question.window
    if reach_ns is not None and (since_ns is None or reach_ns > since_ns):
        since_ns = EpochNs(reach_ns)
    return judge(db, since_ns, until_ns, now_ns=question.now_ns, recording=recording)


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
    if form in records.DIALECTS:
        dialect = records.DIALECTS[form]
        if header:
            yield records.header(dialect, fields or COLUMNS)
        if fields is None:
            yield from records.encode_all(dialect, answer)
        else:
            for row in _picked(answer, fields):
                yield records.encode(dialect, fields, row)
    elif form == "json":
        yield from _object(answer, verdict, fields)
    else:
        yield from _for_people(answer, form, fields, times, header=header)


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
        else (records.encode(records.JSONL, fields, row) for row in _picked(answer, fields))
    )
    before = "\n"
    for text in lines:
        # A line break inside a text is written \\n, so these are the ends of records.
        yield before + text.rstrip("\n").replace("}\n{", "},\n{")
        before = ",\n"
    yield "\n]}\n"


def _for_people(
    answer: Answer, form: str, fields: tuple[str, ...] | None, times: Times, *, header: bool
) -> Iterator[str]:
    from prochist.show import long, table

    columns = terminal_columns()
    if form == "long":
        for row in _picked(answer, fields or COLUMNS):
            if fields is None:
                life = dict(zip(COLUMNS, row, strict=True))
                yield from long.life(life, zone=times.zone, now_ns=times.now_ns, columns=columns)
            else:
                yield from long.fields(fields, row, columns=columns)
            yield "\n"
        return
    style = table.Style(columns, times.zone, times.now_ns, wants_colour(), header)
    if fields is None:
        yield from table.lives(_picked(answer, table.NEEDED), style)
    else:
        yield from table.any_columns(fields, _picked(answer, fields), style)


def _picked(answer: Answer, fields: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    places = [COLUMNS.index(name) for name in fields]
    for row in answer.rows():
        yield tuple([row[at] for at in places])


def _write(texts: Iterable[str]) -> None:
    write = sys.stdout.write
    for text in texts:
        write(text)
    sys.stdout.flush()
