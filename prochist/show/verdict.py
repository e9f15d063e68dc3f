"""The line that ends every answer: how much it is, and whether anything may be missing."""

from prochist.ask.completeness import Verdict
from prochist.show import human

_LONGEST_IN_SECONDS_NS = 120_000_000_000


def verdict_line(count: int, verdict: Verdict, noun: str = "process") -> str:
    """Return ``12 processes · complete``, or what is known about what is missing."""
    return f"{human.plural(count, noun)} · {completeness(verdict)}"


def completeness(verdict: Verdict) -> str:
    """Return ``complete`` or ``NOT complete: 2 gaps, 41 s, at least 812 events lost``."""
    if verdict.complete:
        return "complete"
    words = [human.plural(len(verdict.gaps), "gap"), _seconds(verdict.gap_ns)]
    if verdict.lost:
        at_least = "" if verdict.lost_is_exact else "at least "
        words.append(f"{at_least}{human.plural(verdict.lost, 'event')} lost")
    return f"NOT complete: {', '.join(words)}"


def _seconds(length_ns: int) -> str:
    if length_ns < _LONGEST_IN_SECONDS_NS:
        seconds = length_ns / 1e9
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.2g} s"  # noqa: PLR2004
    return human.duration(length_ns)
