"""Metrics: how the recorder fares, as OpenMetrics text.

``status --metrics`` makes it from the database, ``record --metrics-file`` from the
recorder itself; both have the same names. The file replaces its predecessor in
one step, so that whoever reads it never sees half of it.

Source: the OpenMetrics 1.0 specification; node_exporter's textfile collector,
which takes files that end in ``.prom``.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Family(NamedTuple):
    """One metric family and where its value is: in the recorder's row, its facts, or the rest."""

    name: str
    kind: str
    text: str
    key: str
    scale: float = 1.0


_OF_RECORDER = (
    Family("prochist_events", "counter", "Kernel events received.", "events"),
    Family("prochist_events_lost", "counter", "Kernel events known to be lost.", "lost"),
    Family("prochist_lifetimes", "counter", "Lifetimes begun.", "lives"),
    Family("prochist_execs", "counter", "Calls of execve seen.", "execs"),
    Family(
        "prochist_execs_described", "counter", "Execs with a command line.", "execs_described"
    ),
    Family(
        "prochist_start_timestamp_seconds", "gauge", "When recording began.", "started_at_ns", 1e-9
    ),
    Family(
        "prochist_commit_timestamp_seconds", "gauge", "Everything until then is in the database.",
        "committed_at_ns", 1e-9,
    ),
)  # fmt: skip
_OF_FACTS = (
    Family("prochist_live_processes", "gauge", "Processes that run.", "live"),
    Family("prochist_backlog_bytes", "gauge", "Received and not yet looked at.", "backlog_bytes"),
    Family("prochist_pending_rows", "gauge", "Looked at and not yet written.", "pending"),
    Family("prochist_receiver_restarts", "counter", "Receivers replaced.", "receiver_restarts"),
    Family("prochist_malformed", "counter", "Datagrams that were no event.", "malformed"),
    Family("prochist_foreign", "counter", "Datagrams not from the kernel.", "foreign"),
    Family("prochist_blind", "gauge", "1 while the kernel delivers no events.", "blind"),
    Family(
        "prochist_proven_timestamp_seconds", "gauge", "When the subscription was last proven.",
        "proven_at_ns", 1e-9,
    ),
    Family(
        "prochist_receive_buffer_bytes", "gauge", "Kernel memory for them.", "receive_buffer_bytes"
    ),
    Family("prochist_lifetimes_removed", "counter", "Lifetimes removed by age or size.", "removed"),
    Family("prochist_log_pauses", "counter", "Pauses because readers held the log.", "log_pauses"),
)  # fmt: skip
_OF_REST = (
    Family("prochist_up", "gauge", "1 while a recorder is alive.", "up"),
    Family("prochist_gaps", "gauge", "Gaps in the history.", "gaps"),
    Family("prochist_database_bytes", "gauge", "Size of the database file.", "database_bytes"),
    Family("prochist_log_bytes", "gauge", "Size of its write-ahead log.", "log_bytes"),
    Family("prochist_free_bytes", "gauge", "Free space on its file system.", "free_bytes"),
)


def render_metrics(recorder: Mapping[str, Any] | None, rest: Mapping[str, Any]) -> str:
    """Return OpenMetrics text of what is known; what is unknown is left out.

    ``recorder`` is a row of table ``recording`` with ``facts`` decoded, None before
    the first; ``rest`` has ``up`` and perhaps the other keys of this module's table.
    """
    lines = [line for family in _OF_REST for line in _lines(family, rest)]
    if recorder is not None:
        facts = recorder["facts"]
        lines += [line for family in _OF_RECORDER for line in _lines(family, recorder)]
        lines += [line for family in _OF_FACTS for line in _lines(family, facts)]
        lines += ["# TYPE prochist_build info", "# HELP prochist_build Which prochist records."]
        lines.append(f'prochist_build_info{{version="{_escape(recorder["version"])}"}} 1')
        sources = facts.get("sources")
        if isinstance(sources, Mapping):
            lines += [
                "# TYPE prochist_source gauge",
                "# HELP prochist_source 1 for a source in use.",
            ]
            lines += [
                f'prochist_source{{of="{_escape(of)}",source="{_escape(name or "")}"}}'
                f" {int(name is not None)}"
                for of, name in sources.items()
            ]
    return "\n".join([*lines, "# EOF", ""])


def _lines(family: Family, values: Mapping[str, Any]) -> Iterator[str]:
    value = values.get(family.key)
    if not isinstance(value, int | float):
        return
    number = value * family.scale if family.scale != 1.0 else int(value)
    yield f"# TYPE {family.name} {family.kind}"
    if family.name.endswith(("_seconds", "_bytes")):
        yield f"# UNIT {family.name} {family.name.rpartition('_')[2]}"
    yield f"# HELP {family.name} {family.text}"
    suffix = "_total" if family.kind == "counter" else ""
    yield f"{family.name}{suffix} {number}"


def _escape(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def read_sizes(database: Path) -> dict[str, int]:
    """Return the sizes that are on the file system: database, log, free space; in bytes."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        found["database_bytes"] = database.stat().st_size
        found["log_bytes"] = 0
        found["log_bytes"] = Path(f"{database}-wal").stat().st_size
    with contextlib.suppress(OSError):
        space = os.statvfs(database.parent)
        found["free_bytes"] = space.f_bavail * space.f_frsize
    return found


def write_metrics(path: Path, text: str) -> None:
    """Replace a file by this text, readable by everybody.

    Raises:
        OSError: it cannot be written; the old file is as it was.

    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


__all__ = ["read_sizes", "render_metrics", "write_metrics"]
