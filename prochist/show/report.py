"""The report for people: a small table for each part, and the command that shows its rows."""

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prochist.ask.report import Report
from prochist.show import human
from prochist.show.table import Style, any_columns
from prochist.show.terminal import clip, escape


class Part(NamedTuple):
    """A table, and the arguments of the `query` that shows what it counts."""

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[object]]
    query: Sequence[str]


def parts(report: Report, style: Style) -> Iterator[Part]:
    """Yield the parts that have rows."""
    top = report.started[0].program if report.started else ""
    yield Part(
        "Most started",
        ("COUNT", "FAILED", "PROGRAM"),
        [(f"{s.lives:,}", f"{s.failed:,}", s.program) for s in report.started],
        _exe(top),
    )
    failed = report.failed[0] if report.failed else None
    if failed is not None:
        ended = ("--signal", failed.signal) if failed.signal else ("--exit", str(failed.exit_code))
        yield Part(
            "Most failed",
            ("COUNT", "OF", "END", "PROGRAM"),
            [
                (f"{f.lives:,}", f"{f.of:,}", f.signal or f"exit {f.exit_code}", f.program)
                for f in report.failed
            ],
            (*ended, *_exe(failed.program)),
        )
    for title, costs, column in (
        ("Most CPU", report.costly, "cpu_user_s"),
        ("Most memory", report.greedy, "max_rss_bytes"),
    ):
        yield Part(
            title,
            ("CPU", "MEMORY", "COUNT", "PROGRAM"),
            [
                (
                    human.duration(round(c.cpu_s * 1e9)),
                    human.size(c.max_rss_bytes),
                    f"{c.lives:,}",
                    c.program,
                )
                for c in costs
            ],
            ("--sort", column, "-n", "20"),
        )
    yield from _sequences(report)
    if report.new is not None:
        yield Part(
            "New executables",
            ("FIRST", "COUNT", "PROGRAM"),
            [
                (human.instant(n.first_at_ns, style.zone), f"{n.lives:,}", n.program)
                for n in report.new
            ],
            _exe(report.new[0].program if report.new else ""),
        )


def _sequences(report: Report) -> Iterator[Part]:
    storm = report.storms[0] if report.storms else None
    if storm is not None:
        yield Part(
            "Storms of short lives",
            ("COUNT", "PEAK", "MEDIAN", "PARENT", "MOSTLY"),
            [
                (
                    f"{s.lives:,}",
                    f"{s.peak_per_min:,}/min",
                    human.duration(round(s.median_s * 1e9)),
                    f"{s.parent},{'?' if s.parent_pid is None else s.parent_pid}",
                    s.program,
                )
                for s in report.storms
            ],
            ("--descendants-of", f"id:{storm.parent_id}", "--max-duration", "1s"),
        )
    loop = report.loops[0] if report.loops else None
    if loop is not None:
        yield Part(
            "Restart loops",
            ("COUNT", "RATE", "MEDIAN", "ENDS", "UNIT", "PROGRAM"),
            [
                (
                    f"{s.lives:,}",
                    f"{s.rate_per_min:.3g}/min",
                    human.duration(round(s.median_s * 1e9)),
                    s.ends,
                    s.unit or "",
                    s.program,
                )
                for s in report.loops
            ],
            (*(("--unit", loop.unit) if loop.unit else ()), *_exe(loop.program)),
        )


def _exe(program: str) -> tuple[str, ...]:
    if program.startswith("["):
        return ("--comm", _glob(program[1:-1]))
    return ("--exe", _glob(program)) if program.startswith("/") else ("--exe", f"*{_glob(program)}")


def _glob(text: str) -> str:
    """Return a glob that matches ``text``, and nothing else unless there are controls in it."""
    return "".join(f"[{c}]" if c in "*?[" else c if c.isprintable() else "?" for c in text)


def text(report: Report, window: Sequence[str], style: Style) -> Iterator[str]:
    """Yield the lines; ``window`` is what makes a `query` look at the same time."""
    first = True
    for part in parts(report, style):
        if not part.rows:
            continue
        if not first:
            yield "\n"
        first = False
        yield _bold(part.title, style) + "\n"
        escaped = [[escape(str(cell)) for cell in row] for row in part.rows]
        yield from any_columns(part.names, escaped, style, right=_RIGHT)
        command = escape(f"  prochist query {shlex.join((*part.query, *window))}")
        yield (command if style.columns is None else clip(command, style.columns)) + "\n"


_RIGHT = ("COUNT", "FAILED", "OF", "CPU", "MEMORY", "PEAK", "RATE", "MEDIAN")


def _bold(title: str, style: Style) -> str:
    if style.columns is not None:
        title = clip(title, style.columns)
    return f"\x1b[1m{title}\x1b[0m" if style.colour else title
