"""The directory that an export writes into: locked, complete or not at all, exactly once.

Layout: ``host=NAME/date=YYYY-MM-DD/NAME.parquet``, the date being the UTC day of the end.
What belongs to the export itself is in ``.prochist/``, which engines skip:

* ``lock``: held by flock(2) while an export runs;
* ``state.json``: which history this is and how far it came;
* ``new/``: files being written. Without ``commit.json`` they are of no account;
* ``commit.json``: all files are written; what is left is to rename them. Whoever finds it
  does that first, so that an export that was interrupted counts whole or not at all.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from prochist.ask.export import Mark
from prochist.ask.processes import Answer, Life
from prochist.errors import ProchistError
from prochist.show import parquet

_NS_A_DAY = 86_400_000_000_000
_MOST_OPEN = 4
"""Files open at a time, each with rows in memory; what comes again later gets another file."""


class Partitions:
    """An export directory, locked as long as this is entered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = path / ".prochist"
        self._new = self._own / "new"
        self._lock = -1
        self._name = ""
        self.state: dict[str, Any] = {}
        """What the last export left: ``history``, ``batch``, ``near``, ``name``; or nothing."""
        self.files: list[str] = []
        """Files written by this export."""

    def __enter__(self) -> Self:
        with _explained(self.path):
            self._own.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                message = f"{self.path} is in use by another export"
                raise ProchistError(message, hint="wait for it, or name another") from None
            self._go_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was not committed is of no account, and a full disk wants its space back.
        shutil.rmtree(self._new, ignore_errors=True)
        os.close(self._lock)

    def _go_on(self) -> None:
        """Finish an export that was interrupted after it had written everything."""
        commit = self._own / "commit.json"
        if commit.exists():
            self._finish(_read(commit))
        shutil.rmtree(self._new, ignore_errors=True)
        state = self._own / "state.json"
        self.state = _read(state) if state.exists() else {}
        # Trees of many histories may be put together: each has names of its own.
        self._name = self.state.get("name") or secrets.token_hex(4)

    def write(self, answer: Answer) -> int:
        """Write all lives of ``answer`` aside and return how many; ``commit`` makes them count.

        Raises:
            ProchistError: the disk is full, or the like.
        """
        count = 0
        with _explained(self.path), ExitStack() as stack:
            files = _Files(self._new, f"{self._name}-{self.serial:06d}")
            stack.callback(files.abandon)
            for chunk in answer.chunks():
                for (host, day), some in _by_partition(answer, chunk).items():
                    files.add(_folder(host, day), answer, some)
                count += len(chunk)
            files.close()
            self.files = files.names
        return count

    @property
    def serial(self) -> int:
        """The number of this export into the directory, from 1."""
        return int(self.state.get("serial", 0)) + 1

    def commit(self, history: Path, mark: Mark) -> None:
        """Make what was written count, and remember how far it reaches.

        Raises:
            ProchistError: the disk is full, or the like.
        """
        state = {
            "history": str(history.resolve()),
            "batch": mark.batch,
            "near": sorted(mark.near),
            "serial": self.serial,
            "name": self._name,
        }
        with _explained(self.path):
            _write(self._own / "commit.json", {"files": self.files, "state": state})
            self._finish({"files": self.files, "state": state})
        self.state = state

    def _finish(self, commit: dict[str, Any]) -> None:
        for name in commit["files"]:
            source, target = self._new / name, self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # renamed before the interruption
                source.rename(target)
            _sync(target.parent)
        _write(self._own / "state.json", commit["state"])
        (self._own / "commit.json").unlink()
        _sync(self._own)


class _Files:
    """Files that are being written, one a partition."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._encoder = parquet.Encoder()
        self._open: dict[str, _File] = {}
        self.names: list[str] = []

    def add(self, folder: str, answer: Answer, lives: list[Life]) -> None:
        """Add lives to the file of a partition."""
        file = self._open.pop(folder, None)
        if file is None:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            name = f"{folder}/{self._name}-{len(self.names):04d}.parquet"
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _File(path, self._encoder)
            self.names.append(name)
        self._open[folder] = file  # the newest is last
        file.add(self._encoder.batch(answer, lives))

    def close(self) -> None:
        """Write what is gathered, to the disk."""
        while self._open:
            self._open.pop(next(iter(self._open))).close()

    def abandon(self) -> None:
        """Close what is open, whatever comes of it."""
        for file in self._open.values():
            file.abandon()


class _File:
    """One file, and the rows that wait for their row group."""

    def __init__(self, path: Path, encoder: parquet.Encoder) -> None:
        self._file = path.open("xb")
        self._arrow = encoder.arrow
        self._writer = encoder.writer(self._file)
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, batch: Any) -> None:  # noqa: ANN401 - pyarrow's
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= parquet.ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = self._arrow.Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=parquet.ROWS_A_GROUP)
            self._waiting, self._rows = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()


def _by_partition(answer: Answer, chunk: list[Life]) -> dict[tuple[str, int | None], list[Life]]:
    found: dict[tuple[str, int | None], list[Life]] = {}
    boots = answer.boots.parts
    for life in chunk:
        ended = life[11]
        key = (str(boots[life[2]][1]), None if ended is None else ended // _NS_A_DAY)
        found.setdefault(key, []).append(life)
    return found


def _folder(host: str, day: int | None) -> str:
    """Return the directories of a partition, as Hive spells them."""
    date = "__HIVE_DEFAULT_PARTITION__"
    if day is not None:
        date = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
    return f"host={quote(host, safe='') or '__HIVE_DEFAULT_PARTITION__'}/date={date}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        message = f"{path} is damaged"
        raise ProchistError(message, hint="export into another directory, from the beginning")
    return found


def _write(path: Path, what: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    aside = path.with_suffix(".aside")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(what, file)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says into an error for people."""
    try:
        yield
    except OSError as error:
        hint = None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space and export again: nothing was exported this time"
        words = error.strerror or str(error)
        raise ProchistError(f"{path}: {words.lower()}", hint=hint) from error
