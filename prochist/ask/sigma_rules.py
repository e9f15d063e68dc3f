"""Sigma rules: YAML becomes conditions in SQL over what a process ran.

Takes rules of category ``process_creation`` for Linux; whatever cannot be used is named
with its reason and never stops the others. The conversion is pySigma's with its SQLite
backend; knows nothing of a history.

Source: sigmahq.io/sigma-specification; github.com/SigmaHQ/pySigma-backend-sqlite.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prochist.errors import ProchistError

FIELDS = (
    *("Image", "CommandLine", "ParentImage", "ParentCommandLine", "User", "CurrentDirectory"),
    "LogonId",
)
"""The fields of a rule that are recorded; any others cannot be decided."""

LEVELS = ("informational", "low", "medium", "high", "critical")

TABLE = "seen"
"""What a converted rule selects from; its columns are those of ``Rule.fields``, and ``place``."""


class Rule(NamedTuple):
    """A rule that can be asked."""

    title: str
    id: str | None
    level: str
    tags: tuple[str, ...]
    file: str
    fields: tuple[str, ...]  # that it asks for
    queries: tuple[str, ...]  # each a SELECT of rows of TABLE


class Refused(NamedTuple):
    """A rule that cannot, and why."""

    file: str
    title: str | None
    reason: str


def load() -> Any:  # noqa: ANN401 - a class of pySigma
    """Return pySigma's backend for SQLite.

    Raises:
        ProchistError: it is not installed.
    """
    try:
        from sigma.backends.sqlite import sqliteBackend
    except ImportError as error:
        message = "hunting needs pySigma and its SQLite backend, which are not installed"
        raise ProchistError(message, hint="pip install 'prochist[sigma]'") from error
    return sqliteBackend


def convert(file: str, text: str) -> Iterator[Rule | Refused]:
    """Yield the rules of one file, converted or refused.

    Raises:
        ProchistError: pySigma is not installed.
    """
    backend = load()(collect_errors=False, table=TABLE)
    import yaml
    from sigma.collection import SigmaCollection
    from sigma.exceptions import SigmaError
    from sigma.rule import SigmaRule

    try:
        rules = list(SigmaCollection.from_yaml(text, collect_errors=True))
    except yaml.YAMLError as error:
        yield Refused(file, None, f"not YAML: {_line(error)}")
        return
    except (SigmaError, TypeError, AttributeError, ValueError, RecursionError) as error:
        yield Refused(file, None, f"not a Sigma rule: {_line(error)}")
        return
    if not rules:
        yield Refused(file, None, "holds no rule")
    for rule in rules:
        title = str(rule.title) if rule.title else None
        if not isinstance(rule, SigmaRule):
            yield Refused(file, title, "is a correlation of other rules, which is not supported")
            continue
        reason = _unusable(rule)
        if reason is None:
            try:
                fields = tuple(backend.required_fields(rule))
                reason = _unknown_fields(fields) or _bad_expression(rule)
                queries = () if reason else tuple(map(str, backend.convert_rule(rule)))
            except (SigmaError, NotImplementedError, ValueError, TypeError, re.error) as error:
                reason = f"cannot be converted: {_line(error)}"
        if reason is not None:
            yield Refused(file, title, reason)
            continue
        level = rule.level.name.lower() if rule.level is not None else LEVELS[0]
        tags = tuple(str(tag) for tag in rule.tags)
        rule_id = str(rule.id) if rule.id is not None else None
        yield Rule(title or file, rule_id, level, tags, file, fields, queries)


def _unusable(rule: Any) -> str | None:  # noqa: ANN401 - pySigma's
    """Return why a rule is not one for processes on Linux, or None."""
    if rule.errors:
        return f"not a Sigma rule: {_line(rule.errors[0])}"
    source = rule.logsource
    if source.product not in (None, "linux"):
        return f"is for {source.product}, not for linux"
    if source.category != "process_creation":
        what = source.category or source.service or "something else"
        return f"is for {what}, not for process_creation"
    return None


def _unknown_fields(fields: Iterable[str]) -> str | None:
    unknown = [name for name in fields if name not in FIELDS]
    if not unknown:
        return None
    return f"asks for what is not recorded: {', '.join(unknown)}"


def _bad_expression(rule: Any) -> str | None:  # noqa: ANN401
    """Return what is wrong with a regular expression of a rule, or None.

    pySigma has tried them with Python's ``re`` when it read the rule, except for placeholders.
    """
    from sigma.types import SigmaRegularExpression

    for detection in rule.detection.detections.values():
        for item in _items(detection):
            for value in item.value:
                if isinstance(value, SigmaRegularExpression):
                    try:
                        re.compile(str(value.regexp))
                    except (re.error, OverflowError, RecursionError) as error:
                        return f"not a regular expression: {error}"
    return None


def _items(detection: Any) -> Iterator[Any]:  # noqa: ANN401 - a tree of pySigma
    for item in detection.detection_items:
        if hasattr(item, "detection_items"):
            yield from _items(item)
        else:
            yield item


def _line(error: object) -> str:
    """Return what an exception says, on one line."""
    return " ".join(str(error).split())[:300]
