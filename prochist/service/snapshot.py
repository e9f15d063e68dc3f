"""Snapshots: a consistent copy of a history while it is being written.

The copy is one file, complete as of one instant, without a log beside it. It
is made under another name and renamed when it is whole.

``--anonymise`` replaces what names people, machines and what they worked on:
users, hosts, machine and boot ids, every argument, path, cgroup and terminal.
Each distinct word becomes the same hash everywhere in the copy, by a key that is
thrown away: rows can be compared, nothing can be looked up. Times, numbers, exit
statuses, and how lives hang together stay; so do uid 0 and its name, and the
options' dashes and the slashes of paths, which keep the shape readable.

Source: sqlite.org/backup.html.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw

from prochist.errors import ProchistError
from prochist.history.image import quote
from prochist.store.database import open_reader, translate

PAGES_A_STEP = 2_000
HASH_BYTES = 6
"""Length of a hash: 12 hexadecimal digits."""

Tell = Callable[[int, int], None]


def snapshot(
    source: Path, target: Path, *, anonymise: bool, tell: Tell = lambda _a, _b: None
) -> int:
    """Copy a history and return the size of the copy in bytes.

    ``tell`` is told how many pages are done, and of how many.

    Raises:
        ProchistError: the source cannot be read, the target exists or cannot be written.

    """
    if target.exists() or target.is_symlink():
        message = f"{target} exists"
        raise ProchistError(message, hint="choose another name; nothing is overwritten")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        os.close(fd)
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise ProchistError(message, hint=f"check the permissions of {target.parent}") from error
    try:
        try:
            _copy(source, part, tell)
            if anonymise:
                _anonymise(part)
        except apsw.Error as error:
            raise translate(error, target) from error
        try:
            os.link(part, target)  # unlike a rename, this overwrites nothing
        except OSError as error:
            message = f"cannot write {target}: {error.strerror}"
            raise ProchistError(message) from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                Path(f"{part}{suffix}").unlink()
    return target.stat().st_size


def _copy(source: Path, part: Path, tell: Tell) -> None:
    with closing(open_reader(source)) as db, closing(apsw.Connection(str(part))) as copy:
        copy.pragma("synchronous", "OFF")  # it is renamed only when all of it is there
        # One transaction over all steps: a writer between two of them would start the copy again.
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM counter").fetchall()
        with copy.backup("main", db, "main") as backup:
            while not backup.done:
                backup.step(PAGES_A_STEP)
                tell(backup.page_count - backup.remaining, backup.page_count)
        copy.pragma("journal_mode", "DELETE")
        copy.pragma("synchronous", "FULL")


_WORD = re.compile(r"[^\s/=,:;@'\"\[\]{}()|&<>$]+")
_DASHES = re.compile(r"-+")
_KEPT = {"", ".", "..", "root", "-", "--"}


class _Pseudonyms:
    """Hashes words by a key of their own."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def word(self, value: str) -> str:
        if value in _KEPT:
            return value
        dashes = _DASHES.match(value)
        start = dashes[0] if dashes else ""
        digest = hashlib.blake2b(
            value[len(start) :].encode("utf-8", "surrogatepass"),
            digest_size=HASH_BYTES,
            key=self._key,
        )
        return start + digest.hexdigest()

    def text(self, value: object) -> str | None:
        """Return a text with every word hashed, its punctuation kept; None for what is none."""
        if not isinstance(value, str):
            return None
        return _WORD.sub(lambda match: self.word(match[0]), value)

    def argv(self, value: str) -> str:
        """Return argv as JSON with every argument hashed."""
        arguments = [self.text(argument) or "" for argument in json.loads(value)]
        return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def _anonymise(part: Path) -> None:
    names = _Pseudonyms()
    with closing(apsw.Connection(str(part))) as db:
        db.pragma("foreign_keys", "OFF")
        db.pragma("secure_delete", "ON")
        db.create_scalar_function(
            "hashed", lambda *values: names.text(values[0]), 1, deterministic=True
        )
        with db:
            # An argv that needs quoting has two texts: the command line follows from the other.
            quoted = db.execute(
                "SELECT DISTINCT line.id, argv.id, argv.value FROM image AS i JOIN text AS line ON"
                " line.id = i.command_line JOIN text AS argv ON argv.id = i.argv"
            ).fetchall()
            db.execute("UPDATE text SET value = hashed(value)")
            db.execute("UPDATE text SET hash = id")  # the hashes of the old values would tell them
            for line, argv, old in quoted:
                new = names.argv(str(old))
                db.execute("UPDATE text SET value = ? WHERE id = ?", (new, argv))
                words = " ".join(map(quote, json.loads(new)))
                db.execute("UPDATE text SET value = ? WHERE id = ?", (words, line))
            db.execute("UPDATE image SET argv_raw = NULL")
            db.execute("UPDATE origin SET hash = id")
            db.execute(
                "UPDATE boot SET host = hashed(host), machine_id = hashed(machine_id),"
                " boot_id = hashed(boot_id)"
            )
            db.execute("UPDATE recording SET facts = '{}'")
            db.execute(
                "UPDATE gap SET detail = NULL WHERE detail NOT IN ('proc connector', 'taskstats',"
                " 'exec probe', 'recorder not running', 'subscription silenced', 'host suspended')"
            )
        db.execute("VACUUM")  # nothing of the old texts may be left in free pages


__all__ = ["snapshot"]
