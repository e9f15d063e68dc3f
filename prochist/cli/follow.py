"""``prochist query --follow``: changes as they are recorded, for eyes and for shippers.

A cursor file holds the number of the newest commit whose changes were written out. It
is replaced, never rewritten in place, and only after stdout was flushed: whatever a shipper
has read is behind the cursor, and a change is given twice only if this process is killed
between the two.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prochist.ask.completeness import Gap
from prochist.ask.follow import Changes
from prochist.cli.screen import say
from prochist.clock import EpochNs
from prochist.errors import ProchistError
from prochist.show import human

POLL_S = 0.1
_HEADING = "prochist-cursor 1 "
_LONGEST = 64


def read_cursor(file: Path) -> int | None:
    """Return the cursor, or None when the file is not there yet.

    Raises:
        ProchistError: it cannot be read, or holds something else.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LONGEST)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        message = f"cannot read the cursor file {file}: {getattr(error, 'strerror', None) or error}"
        raise ProchistError(message) from error
    number = text.removeprefix(_HEADING).strip()
    if not text.startswith(_HEADING) or not (number.isascii() and number.isdigit()):
        message = f"{file} is not a cursor file"
        raise ProchistError(message, hint="name a file that is not there yet")
    return int(number)


def write_cursor(file: Path, cursor: int) -> None:
    """Replace the cursor, so that it is there whole after whatever happens.

    Raises:
        ProchistError: it cannot be written.
    """
    beside = file.with_name(f"{file.name}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(f"{_HEADING}{cursor}\n")
            opened.flush()
            os.fsync(descriptor)
        beside.replace(file)
    except OSError as error:
        message = f"cannot write the cursor file {file}: {error.strerror}"
        raise ProchistError(message, hint="name one in a directory of your own") from error


def follow(
    changes: Changes,
    show: Callable[[Sequence[tuple[Any, ...]]], None],
    now_ns: Callable[[], EpochNs],
    cursor_file: Path | None,
) -> None:
    """Show changes until nobody reads any more; returns when stdout is closed."""
    listener = select.poll()
    listener.register(1, 0)  # errors and hang-ups only: a reader that is gone
    while True:
        if changes.is_news():
            _show_all(changes, show, now_ns, cursor_file)
        if _is_closed(listener, POLL_S):
            return


def _show_all(
    changes: Changes,
    show: Callable[[Sequence[tuple[Any, ...]]], None],
    now_ns: Callable[[], EpochNs],
    cursor_file: Path | None,
) -> None:
    before = changes.cursor
    while (rows := changes.take(now_ns())) is not None:
        if rows:
            show(rows)
            sys.stdout.flush()
            if cursor_file is not None:
                write_cursor(cursor_file, changes.cursor)
                before = changes.cursor
    if cursor_file is not None and changes.cursor != before:
        write_cursor(cursor_file, changes.cursor)
    for gap in changes.gaps():
        say(_gap_line(gap))


def _is_closed(listener: select.poll, timeout_s: float) -> bool:
    began = time.monotonic()
    closed = bool(listener.poll(timeout_s * 1000))
    left = timeout_s - (time.monotonic() - began)
    if not closed and left > 0:
        time.sleep(left)
    return closed


def _gap_line(gap: Gap) -> str:
    lost = "an unknown number of" if gap.lost is None else f"{gap.lost:,}"
    length = human.duration(gap.until_at_ns - gap.from_at_ns)
    return f"gap: {gap.kind}, {length}, {lost} events lost"
