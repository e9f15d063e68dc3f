"""``prochist query --follow``: changes as they are recorded, for eyes and for shippers.

A cursor file holds the number of the newest commit whose changes were written out. It
is replaced, never rewritten in place, and only after stdout was flushed. SIGINT and
SIGTERM wait until both are done (a second one does not), so that whoever goes on with that file is
given each change once. Only SIGKILL or a power cut between the two gives some of them again.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

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


class Patience:
    """Lets the first SIGINT or SIGTERM wait until it is asked for; a second one ends at once.

    Only where ``holds``: without a cursor there is nothing that must be finished.
    """

    def __init__(self, *, holds: bool) -> None:
        self._numbers = (signal.SIGINT, signal.SIGTERM) if holds else ()
        self._before: dict[int, Any] = {}
        self.received: int | None = None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def is_over(self) -> bool:
        """Say whether SIGTERM came.

        Raises:
            KeyboardInterrupt: SIGINT came.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        return self.received is not None

    def __enter__(self) -> Self:
        for number in self._numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and `&` leave it
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Target(NamedTuple):
    """Where changes go, and what must not happen to where they come from."""

    show: Callable[[Sequence[tuple[Any, ...]]], None]
    cursor_file: Path | None
    database: Path


def follow(
    changes: Changes, target: Target, now_ns: Callable[[], EpochNs], patience: Patience
) -> None:
    """Show changes until nobody reads any more, or SIGTERM.

    Raises:
        KeyboardInterrupt: SIGINT.
        ProchistError: the database was removed or replaced, or the cursor cannot be written.
    """
    file = _identity(target.database)
    listener = select.poll()
    listener.register(1, 0)  # errors and hang-ups only: a reader that is gone
    while not patience.is_over():
        if changes.is_news():
            _show_all(changes, target, now_ns, patience)
        if _is_closed(listener, POLL_S):
            return
        if _identity(target.database) != file:  # nobody will ever write to what we have open
            message = f"{target.database} was removed or replaced"
            raise ProchistError(message, hint="follow again, without the old cursor file")


def _identity(database: Path) -> tuple[int, int] | None:
    try:
        status = database.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _show_all(
    changes: Changes, target: Target, now_ns: Callable[[], EpochNs], patience: Patience
) -> None:
    """Show all that has changed; the cursor follows what was shown, one step behind another."""
    written = changes.cursor
    while patience.received is None and (rows := changes.take(now_ns())) is not None:
        if rows:
            target.show(rows)
            sys.stdout.flush()
        if target.cursor_file is not None and changes.cursor != written:
            write_cursor(target.cursor_file, changes.cursor)
            written = changes.cursor
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
