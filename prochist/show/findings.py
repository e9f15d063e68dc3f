"""What a hunt found: for people, as JSON, and for Timesketch."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prochist.ask.completeness import GAP_COLUMNS, Verdict
from prochist.ask.hunt import Finding, Match
from prochist.ask.processes import instant
from prochist.ask.sigma_rules import LEVELS, Refused, Rule
from prochist.show import human
from prochist.show.table import Style
from prochist.show.terminal import clip, escape
from prochist.show.timesketch import one_line

_COLOURS = {"high": "\x1b[31m", "critical": "\x1b[31m", "medium": "\x1b[33m"}
_RESET = "\x1b[0m"
_LONGEST_COMMAND = 2_000
_LONGEST_IN_MESSAGE = 1_000


def text(findings: Iterable[Finding], style: Style) -> Iterator[str]:
    """Yield what was found, the worst first, each rule with its first matches."""

    def line(words: str, colour: str = "") -> str:
        if style.columns is not None:
            words = clip(words, style.columns)
        return f"{colour}{words}{_RESET}\n" if colour and style.colour else f"{words}\n"

    ordered = sorted(findings, key=lambda f: (-LEVELS.index(f.rule.level), f.first_ns))
    for position, finding in enumerate(ordered):
        rule = finding.rule
        if position:
            yield "\n"
        tags = f"  [{', '.join(rule.tags)}]" if rule.tags else ""
        yield line(
            f"{rule.level}  {escape(rule.title)}{escape(tags)}", _COLOURS.get(rule.level, "")
        )
        first = human.instant(finding.first_ns, style.zone)
        last = human.instant(finding.last_ns, style.zone)
        when = first if finding.times == 1 else f"{first} to {last}"
        yield line(f"    {human.plural(finding.times, 'time')}, {when}")
        for match in finding.examples:
            at = human.instant(match.at_ns, style.zone)
            command = escape((match.command_line or match.exe or "?")[:_LONGEST_COMMAND])
            parent = escape((match.parent_command_line or match.parent_exe or "?")[:200])
            user = escape(match.user or "?")
            yield line(f"    {at}  id {match.id}  {user}  {command}  ← {parent}")
        if finding.times > len(finding.examples):
            yield line(f"    … and {finding.times - len(finding.examples):,} more")


def document(
    findings: Iterable[Finding], refused: Iterable[Refused], verdict: Verdict
) -> Iterator[str]:
    """Yield one JSON object; keys as with ``query -o json`` where there is one."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    gaps = [dict(zip(GAP_COLUMNS, gap.row(), strict=True)) for gap in verdict.gaps]
    since, until = encode(instant(verdict.since_ns)), encode(instant(verdict.until_ns))
    yield f'{{"since":{since},"until":{until},'
    yield f'"complete":{encode(verdict.complete)},"gaps":{encode(gaps)},"findings":['
    between = "\n"
    for finding in findings:
        found: dict[str, Any] = {
            **_rule(finding.rule),
            "count": finding.times,
            "first_at": instant(finding.first_ns),
            "first_at_ns": finding.first_ns,
            "last_at": instant(finding.last_ns),
            "last_at_ns": finding.last_ns,
            "examples": [{"at": instant(m.at_ns)} | m._asdict() for m in finding.examples],
            "ids": finding.ids,
        }
        yield between + encode(found)
        between = ",\n"
    yield '\n],"refused":[' + ",".join(f"\n{encode(r._asdict())}" for r in refused) + "\n]}\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "title": rule.title,
        "rule_id": rule.id,
        "level": rule.level,
        "tags": rule.tags,
        "file": rule.file,
    }


def timesketch(matches: Iterable[tuple[Rule, Match]]) -> Iterator[str]:
    """Yield one event a match and rule, as JSON Lines for Timesketch."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for rule, match in matches:
        at = instant(match.at_ns) or ""
        command = match.command_line or match.exe or "?"
        if len(command) > _LONGEST_IN_MESSAGE:
            command = command[:_LONGEST_IN_MESSAGE] + "…"
        found = {
            "message": f"Sigma {rule.level}: {rule.title}: {command}",
            "datetime": at.replace("Z", "+00:00"),
            "timestamp": match.at_ns // 1000,
            "timestamp_desc": "Process Executed",
            "data_type": "linux:prochist:sigma",
            "timestamp_ns": match.at_ns,
            "process_id": match.id,
            "executable": match.exe,
            "command_line": match.command_line,
            "cwd": match.cwd,
            "username": match.user,
            "session": match.session,
            "parent_executable": match.parent_exe,
            "parent_command_line": match.parent_command_line,
            "rule_title": rule.title,
            "rule_id": rule.id,
            "rule_level": rule.level,
            "rule_file": rule.file,
            "tag": list(rule.tags),
        }
        yield one_line(encode({k: v for k, v in found.items() if v is not None})) + "\n"


def refusals(refused: Sequence[Refused], *, named: set[str]) -> Iterator[str]:
    """Yield a line for each rule that was not asked; those of other systems are only counted.

    A rule set holds thousands for Windows; one that was given by its own name is always named.
    """
    others = 0
    for rule in refused:
        if rule.reason.startswith("is for ") and rule.file not in named:
            others += 1
            continue
        title = f" ({rule.title})" if rule.title else ""
        yield escape(f"not asked: {rule.file}{title}: {rule.reason}")
    if others:
        yield f"not asked: {human.plural(others, 'rule')} that are not for processes on linux"
