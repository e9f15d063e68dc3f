"""``prochist hunt``: Sigma rules against the history."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from prochist.ask.sigma_rules import LEVELS, Refused, Rule, convert
from prochist.cli.filters import AskingCommand, filter_options, judge_window, make_question
from prochist.cli.options import (
    Times,
    db_option,
    is_recording,
    no_pager_option,
    open_history,
    terminal_columns,
    utc_option,
    wants_colour,
)
from prochist.cli.screen import say, screen, write
from prochist.errors import ProchistError, UsageError
from prochist.show import findings, human
from prochist.show.table import Style
from prochist.show.verdict import completeness

_NOTHING_MATCHED, _MAY_BE_INCOMPLETE = 1, 4
_LARGEST_FILE_BYTES = 4 << 20


@click.command(
    cls=AskingCommand,
    epilog="Times and durations are those of `prochist query`. Needs pySigma: pip install "
    "'prochist[sigma]'. Exit status: 0 a rule matched, 1 none did, 4 with --require-complete: "
    "executions may be missing.",
)
@click.argument("rules", metavar="RULE_OR_DIR...", nargs=-1, required=True)
@db_option
@filter_options
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default=LEVELS[0],
    show_default=True,
    help="Ask only rules of this level or above.",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("text", "json", "timesketch")),
    default="text",
    show_default=True,
    help="The form of the output; timesketch is one event for each match.",
)
@utc_option
@no_pager_option
@click.option(
    "--require-complete", is_flag=True, help="Exit with status 4 when rows may be missing."
)
def hunt(**options: Any) -> int:  # noqa: ANN401 - one for each option
    """Look for executions that match Sigma rules, process_creation on Linux.

    RULE_OR_DIR is a rule, or a directory that is searched for *.yml and *.yaml. The
    filters of query choose the processes; every execve of theirs is looked at. A rule
    that cannot be used is named with the reason, and the others are asked. No rules
    come with prochist: https://github.com/SigmaHQ/sigma has thousands.
    """
    from prochist.ask.hunt import Hunt

    rules, refused = _load(options["rules"], LEVELS.index(options["level"]))
    times = Times(options["zone"])
    with (
        closing(open_history(options["path"])) as db,
        screen(db, for_people=options["form"] == "text", paged=options["paged"]),
    ):
        question = make_question(db, times, options)
        recording = is_recording(options["path"])
        verdict = judge_window(db, question, recording=recording)
        hunted = Hunt(db, question)
        matched: list[tuple[Rule, set[int]]] = []
        for rule, found in hunted.ask(rules):
            if isinstance(found, Refused):
                refused.append(found)
            else:
                matched.append((rule, found))
        hits = sum(bool(numbers) for _, numbers in matched)
        if options["form"] == "timesketch":
            write(findings.timesketch(hunted.every_match(matched)))
        elif options["form"] == "json":
            write(findings.document(hunted.findings(matched), refused, verdict))
        else:
            style = Style(terminal_columns(), times.zone, times.now_ns, wants_colour())
            write(findings.text(hunted.findings(matched), style))
    for line in findings.refusals(refused, named=set(options["rules"])):
        say(line)
    say(
        f"{hits} of {human.plural(len(matched), 'rule')} matched,"
        f" {human.plural(hunted.executions, 'execution')} · {completeness(verdict)}"
    )
    if options["require_complete"] and not verdict.complete:
        return _MAY_BE_INCOMPLETE
    return 0 if hits else _NOTHING_MATCHED


def _load(names: Sequence[str], level: int) -> tuple[list[Rule], list[Refused]]:
    """Read and convert rules: those of the level or above, and those that cannot be used.

    Raises:
        UsageError: there is no such file, or no rule in a directory.
        ProchistError: pySigma is not installed, or a file cannot be read.
    """
    rules: list[Rule] = []
    refused: list[Refused] = []
    for path in _files(names):
        try:
            if path.stat().st_size > _LARGEST_FILE_BYTES:
                refused.append(Refused(str(path), None, "is larger than 4 MiB"))
                continue
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            refused.append(Refused(str(path), None, "not YAML: not UTF-8"))
            continue
        except OSError as error:
            raise ProchistError(f"{path}: {(error.strerror or '').lower()}") from error
        with _silenced():
            converted = list(convert(str(path), text))
        for found in converted:
            if isinstance(found, Refused):
                refused.append(found)
            elif LEVELS.index(found.level) >= level:
                rules.append(found)
    return rules, refused


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep RE2, with which pySigma tries expressions, from logging to stderr what we say better."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _files(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        if not path.exists():
            message = f"there is no rule or directory {name!r}"
            raise UsageError(message, hint="rules are at https://github.com/SigmaHQ/sigma")
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix in (".yml", ".yaml") and p.is_file())
        if not inside:
            message = f"there is no *.yml or *.yaml in {name}"
            raise UsageError(message, hint="name a rule, or a directory that holds some")
        yield from inside
