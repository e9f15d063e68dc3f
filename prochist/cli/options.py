"""Options that several commands share, and what the terminal is like."""

import os
from collections.abc import Callable
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from prochist.ask.processes import COLUMNS
from prochist.ask.timespec import parse_duration, parse_time
from prochist.clock import EpochNs, read_clock
from prochist.errors import ProchistError, UsageError
from prochist.store.database import default_path, open_reader, recorder_pid

if TYPE_CHECKING:
    import apsw

_F = TypeVar("_F", bound=Callable[..., Any])


def db_option(command: _F) -> _F:
    """Add ``--db PATH``, which becomes a Path: the default where it is not given."""
    return click.option(
        "--db",
        "path",
        metavar="PATH",
        callback=lambda _ctx, _parameter, value: Path(value) if value else default_path(os.environ),
        help="The database. [default: $PROCHIST_DB, or as `prochist --help` says]",
    )(command)


def utc_option(command: _F) -> _F:
    """Add ``--utc``, which becomes the parameter ``zone``."""
    return click.option(
        "--utc",
        "zone",
        is_flag=True,
        callback=lambda _ctx, _parameter, value: UTC if value else None,
        help="Read and show times in UTC instead of the local time zone.",
    )(command)


def time_option(*names: str, text: str) -> Callable[[_F], _F]:
    """Add an option that takes a time; it stays text, which ``Times`` understands."""
    return click.option(*names, metavar="T", help=text)


def duration_option(*names: str, text: str, default: str | None = None) -> Callable[[_F], _F]:
    """Add an option that takes a duration, which becomes nanoseconds."""
    return click.option(
        *names,
        metavar="D",
        default=default,
        show_default=default is not None,
        callback=lambda _ctx, _parameter, value: None if value is None else parse_duration(value),
        help=text,
    )


class Times:
    """One reading of the clock, by which all times of a command are understood."""

    def __init__(self, zone: tzinfo | None) -> None:
        clock = read_clock()
        self.zone = zone
        self.now_ns = clock.epoch(clock.monotonic_ns)
        self.boot_at_ns = EpochNs(clock.epoch_offset_ns - clock.boot_offset_ns)

    def parse(self, text: str | None) -> EpochNs | None:
        """Return the instant that an option names, or None where it is not given."""
        if text is None:
            return None
        return parse_time(text, now_ns=self.now_ns, zone=self.zone, boot_at_ns=self.boot_at_ns)


def open_history(path: Path) -> "apsw.Connection":
    """Open the database for reading, all reads of the command seeing one state of it.

    Raises:
        ProchistError: as ``open_reader``.
    """
    db = open_reader(path)
    db.execute("BEGIN")
    return db


def is_recording(path: Path) -> bool:
    """Say whether a recorder is known to be alive; where it cannot be known, it is not."""
    try:
        return recorder_pid(path) is not None
    except ProchistError:
        return False


def output_option(*forms: str) -> Callable[[_F], _F]:
    """Add ``-o/--output``, which becomes the parameter ``form``; the first form is the default."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="The form of the output.",
    )


def no_pager_option(command: _F) -> _F:
    """Add ``--no-pager``, which becomes the parameter ``paged``."""
    return click.option(
        "--no-pager",
        "paged",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Do not show long output in $PAGER.",
    )(command)


def column_names(text: str) -> tuple[str, ...]:
    """Return the columns of the view ``processes`` that ``A,B`` names.

    Raises:
        UsageError: there is no such column.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in COLUMNS:
            message = f"no such column: {name!r}"
            raise UsageError(message, hint=f"columns: {', '.join(COLUMNS)}")
    return names


def integer(text: str, what: str, *, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """Return a whole number that a user wrote.

    Raises:
        UsageError: it is none, or out of range.
    """
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:  # noqa: PLR2004
        return int(text)
    message = f"not {what}: {text!r}"
    limit = f"from {least} to {most}" if most < (1 << 63) - 1 else f"from {least}"
    raise UsageError(message, hint=f"a whole number {limit}")


def terminal_columns() -> int | None:
    """Return the width to fit into: $COLUMNS, or the terminal's; None where there is neither."""
    text = os.environ.get("COLUMNS", "")
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    try:
        return os.get_terminal_size(1).columns or None  # sys.stdout may be the pager's pipe
    except (OSError, ValueError):
        return None


def wants_colour() -> bool:
    """Say whether colours help: on a terminal, unless NO_COLOR or a dumb one."""
    return os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
