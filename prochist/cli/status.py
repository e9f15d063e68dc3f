"""``prochist status``: is it recording, from what, since when, with which losses."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import tzinfo
from pathlib import Path
from typing import Any

import click

from prochist.ask.completeness import Verdict, judge
from prochist.ask.history import Record, extent, newest_recording
from prochist.ask.processes import instant
from prochist.cli.options import Times, db_option, open_history, terminal_columns, utc_option
from prochist.clock import NS_PER_SECOND
from prochist.show import human, listing
from prochist.show.verdict import completeness
from prochist.store.database import recorder_pid

_NOT_RECORDING = 3


@click.command()
@db_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("table", "json")),
    default="table",
    show_default=True,
    help="The form of the output.",
)
@click.option("--metrics", is_flag=True, help="Print OpenMetrics text instead, for Prometheus.")
@utc_option
def status(
    path: Path,
    form: str,
    metrics: bool,  # noqa: FBT001  click passes it by name
    zone: tzinfo | None,
) -> int:
    """Say whether a recorder is alive, since when, and how it fares.

    Its sources, rates, lag and losses, and the size and age of the history.

    Exit status: 0 recording, 3 not recording.
    """
    times = Times(zone)
    pid = recorder_pid(path)
    if metrics:
        return _print_metrics(path, pid)
    with closing(open_history(path)) as db:
        known = _known(path, pid, times.now_ns, _since_it_started(newest_recording(db)), extent(db))
        verdict = judge(db, None, None, now_ns=times.now_ns, recording=pid is not None)
    known |= {
        "complete": verdict.complete,
        "gaps": len(verdict.gaps),
        "gap_s": verdict.gap_ns / 1e9,
        "lost_ever": verdict.lost,
    }
    if form == "json":
        sys.stdout.write(json.dumps(known, ensure_ascii=False) + "\n")
    else:
        pairs = _lines(known, verdict, times)
        sys.stdout.write(listing.facts(pairs, columns=terminal_columns()))
    return 0 if pid is not None else _NOT_RECORDING


def _print_metrics(path: Path, pid: int | None) -> int:
    from prochist.service.metrics import read_sizes, render_metrics

    with closing(open_history(path)) as db:
        recording = _since_it_started(newest_recording(db))
        (gaps,) = db.execute("SELECT count(*) FROM gaps").fetchall()[0]
    rest = {"up": int(pid is not None), "gaps": gaps, **read_sizes(path)}
    sys.stdout.write(render_metrics(recording, rest))
    return 0 if pid is not None else _NOT_RECORDING


def _since_it_started(recording: Record | None) -> Record | None:
    """Return a recording with the time when it started, also when its oldest lives were removed."""
    if recording is None:
        return None
    facts = dict(recording["facts"])
    started_at_ns = facts.pop("started_at_ns", recording["started_at_ns"])
    return recording | {"started_at_ns": started_at_ns, "facts": facts}


def _known(
    path: Path, pid: int | None, now_ns: int, recording: Record | None, size: Record
) -> dict[str, Any]:
    """Return everything that ``-o json`` prints."""
    files = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
    known: dict[str, Any] = {
        "database": os.fspath(path),
        "recording": pid is not None,
        "pid": pid or None,
        "disk_bytes": sum(file.stat().st_size for file in files if file.exists()),
    }
    known |= size
    if recording is None:
        return known | {"recorder": None}
    seconds = (recording["committed_at_ns"] - recording["started_at_ns"]) / NS_PER_SECOND
    rates = {
        f"{name}_per_s": round(recording[name] / seconds, 3) if seconds > 0 else None
        for name in ("events", "lives", "execs")
    }
    lag_s = (now_ns - recording["committed_at_ns"]) / NS_PER_SECOND
    names = ("started_at_ns", "stopped_at_ns", "committed_at_ns")
    texts = {name.removesuffix("_ns"): instant(recording[name]) for name in names}
    return known | {"recorder": recording | texts | rates | {"lag_s": lag_s}}


def _lines(known: dict[str, Any], verdict: Verdict, times: Times) -> Iterator[tuple[str, str]]:
    recorder = known["recorder"]
    zone, now_ns = times.zone, times.now_ns
    yield "Database", f"{known['database']} ({human.size(known['disk_bytes'])})"
    if recorder is None:
        yield "Recorder", "nothing was ever recorded here"
        return
    started = human.instant(recorder["started_at_ns"], zone)
    length = human.duration(now_ns - recorder["started_at_ns"])
    if known["recording"]:
        yield (
            "Recorder",
            f"alive, pid {known['pid'] or recorder['pid']}, since {started} ({length})",
        )
    elif recorder["stopped_at_ns"] is not None:
        yield (
            "Recorder",
            f"stopped at {human.instant(recorder['stopped_at_ns'], zone)}, begun {started}",
        )
    else:
        last = human.instant(recorder["committed_at_ns"], zone)
        yield "Recorder", f"gone without a word; last heard of at {last}, begun {started}"
    yield "Version", recorder["version"]
    yield (
        "Committed",
        f"until {human.instant(recorder['committed_at_ns'], zone)}, {recorder['lag_s']:.2f} s ago",
    )
    yield "Events", _rated(recorder, "events") + f"; {recorder['lost']:,} lost"
    yield "Lives", _rated(recorder, "lives") + f"; {known['running']:,} running now"
    execs, described = recorder["execs"], recorder["execs_described"]
    share = f" ({100 * described / execs:.2f} %)" if execs else ""
    yield "Execs", _rated(recorder, "execs") + f"; {described:,} with their command line{share}"
    for name, value in recorder["facts"].items():
        yield name.replace("_", " ").capitalize(), _fact(name, value)
    oldest = known["oldest_started_at_ns"]
    age = "" if oldest is None else f", the oldest began {human.instant(oldest, zone)}"
    yield "History", f"{known['lifetimes_ever']:,} lives ever{age}"
    yield "Gaps", completeness(verdict)


def _rated(recorder: Record, name: str) -> str:
    rate = recorder[f"{name}_per_s"]
    return f"{recorder[name]:,}" + ("" if rate is None else f" ({rate:,.1f} a second)")


def _fact(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{inner} {_fact(inner, v)}" for inner, v in value.items())
    if isinstance(value, list):
        return ", ".join(_fact(name, v) for v in value)
    if isinstance(value, int) and not isinstance(value, bool) and name.endswith("_bytes"):
        return human.size(value)
    return "unknown" if value is None else str(value)
