"""Pruning by hand: the same steps as the recorder's, also while one runs."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import apsw

from prochist.clock import EpochNs
from prochist.store.database import open_reader, open_writer, recorder_pid, translate
from prochist.store.retention import Forecast, Limits, Pruner

STEP_S = 0.02
PAUSE_S = 0.02
"""Between two steps, so that a recorder gets to write."""


class Pruned(NamedTuple):
    """What was done."""

    lives: int
    bytes_before: int
    bytes_after: int
    swept: bool
    """Whether texts that nobody uses went, too: not while a recorder runs, which remembers them."""


def forecast(path: Path, keep_ns: int | None, most_bytes: int | None, now_ns: EpochNs) -> Forecast:
    """Say what :func:`prune` would remove.

    Raises:
        ProchistError: the database cannot be read.

    """
    try:
        with closing(open_reader(path)) as db:
            db.pragma("temp_store", "MEMORY")
            return Pruner(db, Limits(keep_ns, most_bytes)).forecast(now_ns)
    except apsw.Error as error:
        raise translate(error, path) from error


def prune(
    path: Path,
    keep_ns: int | None,
    most_bytes: int | None,
    now_ns: EpochNs,
    tell: Callable[[int], None] = lambda _: None,
) -> Pruned:
    """Remove what is older or more than that; ``tell`` is told the number of lives removed so far.

    Raises:
        ProchistError: the database cannot be written.

    """
    open_reader(path).close()  # a history must be there: none is created here
    try:
        with closing(open_writer(path)) as db:
            before = _size(db)
            is_recording = recorder_pid(path) is not None
            pruner = Pruner(db, Limits(keep_ns, most_bytes), sweeps=not is_recording)
            while pruner.step(now_ns, seconds=STEP_S):
                tell(pruner.removed)
                if is_recording:
                    time.sleep(PAUSE_S)
            if not is_recording:
                pruner.sweep_soon()
                while pruner.step(now_ns, seconds=STEP_S):
                    tell(pruner.removed)
            with suppress(apsw.BusyError):  # a reader holds it: a later checkpoint shrinks the file
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            return Pruned(pruner.removed, before, _size(db), not is_recording)
    except apsw.Error as error:
        raise translate(error, path) from error


def _size(db: apsw.Connection) -> int:
    """Return the bytes of the database, what is still only in its log included."""
    return int(db.pragma("page_count")) * int(db.pragma("page_size"))


__all__ = ["Pruned", "forecast", "prune"]
