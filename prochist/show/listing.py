"""Small lists that are known as a whole: boots, gaps, the state of the recorder."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from prochist.ask.completeness import Gap
from prochist.show import human
from prochist.show.terminal import clip, escape

_LABEL = 12


def boots(rows: Iterable[Mapping[str, Any]], *, zone: tzinfo | None, columns: int | None) -> str:
    """Return the table of boots, counted back from the newest as ``--boot`` does."""
    known = list(rows)
    cells = [
        (
            at - len(known) + 1,
            row["boot_id"],
            human.instant(row["booted_at_ns"], zone),
            human.instant(row["first_seen_at_ns"], zone),
            human.instant(row["last_seen_at_ns"], zone),
            row["kernel"],
            row["host"],
        )
        for at, row in enumerate(known)
    ]
    names = ("BOOT", "ID", "BOOTED", "FIRST SEEN", "LAST SEEN", "KERNEL", "HOST")
    return _table(names, cells, columns)


def gaps(rows: Iterable[Gap], *, zone: tzinfo | None, columns: int | None) -> str:
    """Return the table of gaps."""
    cells = [
        (
            human.instant(gap.from_at_ns, zone),
            human.instant(gap.until_at_ns, zone),
            human.duration(gap.until_at_ns - gap.from_at_ns),
            gap.kind,
            "?" if gap.lost is None else f"{gap.lost:,}",
            gap.detail or "",
        )
        for gap in rows
    ]
    return _table(("FROM", "UNTIL", "LENGTH", "KIND", "LOST", "DETAIL"), cells, columns)


def _table(names: Sequence[str], cells: Iterable[Sequence[Any]], columns: int | None) -> str:
    import tabulate

    escaped = [[escape(str(cell)) for cell in row] for row in cells]
    text = tabulate.tabulate(escaped, names, tablefmt="plain", disable_numparse=True)
    return "".join(f"{_fit(line, columns)}\n" for line in text.splitlines())


def facts(pairs: Iterable[tuple[str, str]], *, columns: int | None) -> str:
    """Return labelled lines, as ``systemctl status`` has them."""
    return "".join(
        f"{_fit(f'{escape(label):>{_LABEL}}: {escape(text)}', columns)}\n" for label, text in pairs
    )


def _fit(line: str, columns: int | None) -> str:
    return line.rstrip() if columns is None else clip(line.rstrip(), columns)
