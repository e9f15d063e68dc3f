"""The writer: the only INSERT and UPDATE of a history.

It takes what the tracker says has changed, gathers it, and writes it in one
transaction a batch: a life that begins and ends within a batch costs one
insert. What repeats is stored once (``interning.py``).

It decides nothing about lifetimes. When a commit fails, everything it was
given is still there and goes into the next one.
"""

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import apsw

from prochist.capture.observation import Host
from prochist.clock import EpochNs, MonotonicNs, Ticks
from prochist.history.image import Image
from prochist.history.lifetime import (
    Changes,
    EarlierExec,
    ExecSource,
    Happened,
    IdChange,
    Lifetime,
    Origin,
    StartSource,
)
from prochist.store.interning import Interning


class Gap(NamedTuple):
    """A time for which rows may be missing. ``kind`` has the values of table ``gap``."""

    from_at_ns: EpochNs
    until_at_ns: EpochNs
    kind: int
    lost: int | None
    detail: str | None = None


OVERRUN, DOWN, BLIND, SUSPEND, CLOCK_STEP = range(5)


class Previous(NamedTuple):
    """Where the newest recording stopped."""

    complete_until_ns: EpochNs
    complete_until_mono_ns: MonotonicNs
    newest_sequences: dict[int, int]
    """Newest sequence number of each CPU; empty when that was in another boot."""
    is_same_boot: bool


class Progress(NamedTuple):
    """What a commit says of the recording itself."""

    committed_at_ns: EpochNs
    committed_mono_ns: MonotonicNs
    events: int
    lost: int
    facts: dict[str, object]
    newest_sequences: dict[int, int]


_LIFETIME_COLUMNS = (
    "id", "boot", "pid", "parent_id", "ppid", "reaper_pid", "ns_pid", "sid", "image", "origin",
    "started_at_ns", "start_ticks", "start_source", "exec_at_ns", "exec_count", "exec_source",
    "exec_origin", "ended_at_ns", "ended_after_ns", "end_source", "wait_status",
    "is_kernel_thread", "thread_peak", "cpu_user_us", "cpu_system_us", "max_rss_kib", "read_bytes",
    "write_bytes", "minor_faults", "major_faults", "voluntary_switches", "involuntary_switches",
    "batch",
)  # fmt: skip
_INSERT_LIFETIME = (
    f"INSERT INTO lifetime ({', '.join(_LIFETIME_COLUMNS)})"  # noqa: S608  constant text
    f" VALUES ({', '.join('?' * len(_LIFETIME_COLUMNS))})"
)
_UPDATE_LIFETIME = (
    "UPDATE lifetime SET "  # noqa: S608  constant text
    + ", ".join(f"{name} = ?{number}" for number, name in enumerate(_LIFETIME_COLUMNS[1:], 2))
    + " WHERE id = ?1"
).replace(
    "parent_id = ?4", "parent_id = (SELECT id FROM lifetime WHERE id = ?4)"
)  # it may have been removed since
_NO_COST = (None,) * 9


class Writer:
    """Writes one recording into a database that the caller opened and closes.

    ``user_name`` gives the name of a uid at once, or None when it has none or
    it is not known yet.
    """

    def __init__(
        self,
        db: apsw.Connection,
        host: Host,
        now_ns: EpochNs,
        user_name: Callable[[int], str | None],
    ) -> None:
        self._db = db
        self._interning = Interning(db, user_name)
        self._lives: list[Lifetime] = []
        self._earlier_execs: list[EarlierExec] = []
        self._id_changes: list[IdChange] = []
        self._events: list[Happened] = []
        self._gaps: list[Gap] = []
        self._recording: int | None = None
        self._lives_begun = 0
        self._execs = 0
        self._described = 0
        with db:
            self.boot = self._find_boot(host, now_ns)
            row = db.execute("SELECT next_lifetime, batch FROM counter").get
        self.next_id = int(row[0])
        self._batch = int(row[1])

    # --- taking up ------------------------------------------------------------

    def _find_boot(self, host: Host, now_ns: EpochNs) -> int:
        id_ = self._db.execute(
            "INSERT INTO boot (boot_id, host, machine_id, kernel, booted_at_ns, first_seen_at_ns,"
            " last_seen_at_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)"
            " ON CONFLICT (boot_id, host) DO UPDATE SET last_seen_at_ns ="
            " max(last_seen_at_ns, excluded.last_seen_at_ns) RETURNING id",
            (
                host.boot_id,
                host.host,
                host.machine_id or None,
                host.kernel,
                host.booted_at_ns,
                now_ns,
            ),
        ).get
        return int(id_)

    def close_earlier_boots(self, host: Host) -> int:
        """Close lives that a boot left open: all that was running ended with it. Return how many.

        The latest that they can have ended is the beginning of this boot.
        """
        batch = self._batch + 1
        with self._db:
            self._db.execute(
                "UPDATE lifetime SET end_source = 3, start_ticks = NULL, batch = ?1,"
                " ended_after_ns = max(coalesce(started_at_ns, 0), coalesce((SELECT"
                " max(committed_at_ns) FROM recording WHERE recording.boot = lifetime.boot), 0)),"
                " ended_at_ns = max(coalesce(started_at_ns, 0), ?2, coalesce((SELECT"
                " max(committed_at_ns) FROM recording WHERE recording.boot = lifetime.boot), 0))"
                " WHERE end_source IS NULL"
                " AND boot NOT IN (SELECT id FROM boot WHERE boot_id = ?3)",
                (batch, host.booted_at_ns, host.boot_id),
            )
            closed = self._db.changes()
            self._db.execute("UPDATE counter SET batch = ?", (batch,))
        self._batch = batch
        return closed

    def previous(self) -> Previous | None:
        """Return where the newest recording stopped, or None when this is the first."""
        row = self._db.execute(
            "SELECT committed_at_ns, committed_mono_ns, (SELECT boot_id FROM boot WHERE id ="
            " recording.boot) = (SELECT boot_id FROM boot WHERE id = ?)"
            " FROM recording ORDER BY id DESC LIMIT 1",
            (self.boot,),
        ).fetchone()
        if row is None:
            return None
        sequences = dict(
            self._db.execute(
                "SELECT cpu, seq FROM cpu_sequence WHERE boot IN (SELECT id FROM boot WHERE"
                " boot_id = (SELECT boot_id FROM boot WHERE id = ?))",
                (self.boot,),
            )
        )
        return Previous(EpochNs(row[0]), MonotonicNs(row[1]), sequences, bool(row[2]))

    def open_lives(self, boot_offset_ns: int) -> list[Lifetime]:
        """Read the lives of this boot that were open when the last recording stopped.

        ``boot_offset_ns`` is CLOCK_BOOTTIME minus CLOCK_MONOTONIC now.
        """
        rows: list[tuple[Any, ...]] = self._db.execute(
            "SELECT l.id, l.pid, l.parent_id, l.ppid, iif(l.ns_pid = 0, l.pid, l.ns_pid),"
            " iif(l.sid = 0, l.pid, l.sid), l.image, l.origin, l.started_at_ns, l.start_ticks,"
            " l.start_source, l.exec_at_ns, l.exec_count, l.exec_source, l.exec_origin,"
            " l.is_kernel_thread, l.thread_peak FROM lifetime AS l"
            " WHERE l.end_source IS NULL AND l.boot IN (SELECT id FROM boot WHERE boot_id ="
            " (SELECT boot_id FROM boot WHERE id = ?)) ORDER BY l.id",
            (self.boot,),
        ).fetchall()
        lives = []
        for row in rows:
            (id_, pid, parent_id, ppid, ns_pid, sid, image, origin, started_at_ns, ticks,
             start_source, exec_at_ns, exec_count, exec_source, exec_origin, kernel_thread,
             thread_peak) = row  # fmt: skip
            lives.append(
                Lifetime(
                    id_, pid, parent_id, ppid, None, ns_pid, sid,
                    self._read_image(image), self._read_origin(origin),
                    started_at_ns, None if ticks is None else Ticks(ticks),
                    StartSource(start_source),
                    MonotonicNs(max(0, (ticks or 0) * 10_000_000 - boot_offset_ns)),
                    exec_at_ns, exec_count, ExecSource(exec_source),
                    self._read_origin(exec_origin),
                    is_kernel_thread=bool(kernel_thread), thread_peak=thread_peak, stored=True,
                )
            )  # fmt: skip
        return lives

    def _read_image(self, id_: int | None) -> Image | None:
        if id_ is None:
            return None
        row = self._db.execute(
            "SELECT comm.value, exe.value, exec_path.value, command_line.value, argv.value,"
            " i.argv_complete, cwd.value, i.argv_raw FROM image AS i"
            " LEFT JOIN text AS comm ON comm.id = i.comm"
            " LEFT JOIN text AS exe ON exe.id = i.exe"
            " LEFT JOIN text AS exec_path ON exec_path.id = i.exec_path"
            " LEFT JOIN text AS command_line ON command_line.id = i.command_line"
            " LEFT JOIN text AS argv ON argv.id = i.argv"
            " LEFT JOIN text AS cwd ON cwd.id = i.cwd WHERE i.id = ?",
            (id_,),
        ).get
        comm, exe, exec_path, command_line, argv, whole, cwd, argv_raw = row
        complete = None if whole is None else bool(whole)
        return Image(comm, exe, exec_path, command_line, argv, complete, cwd, argv_raw)

    def _read_origin(self, id_: int | None) -> Origin | None:
        if id_ is None:
            return None
        row = self._db.execute(
            "SELECT o.uid, o.euid, o.gid, o.egid, o.login_uid, o.session, tty.value, cgroup.value"
            " FROM origin AS o LEFT JOIN text AS tty ON tty.id = o.tty"
            " LEFT JOIN text AS cgroup ON cgroup.id = o.cgroup WHERE o.id = ?",
            (id_,),
        ).get
        return Origin(*row)

    def begin(self, pid: int, version: str, started_at_ns: EpochNs, mono_ns: MonotonicNs) -> None:
        """Begin a recording; events are complete from ``started_at_ns`` on."""
        with self._db:
            id_ = self._db.execute(
                "INSERT INTO recording (boot, pid, version, started_at_ns, committed_at_ns,"
                " committed_mono_ns, events, lost, lives, execs, execs_described, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, '{}') RETURNING id",
                (self.boot, pid, version, started_at_ns, started_at_ns, mono_ns),
            ).get
            self._recording = int(id_)

    def adopt(self, other: "Writer", running: Iterable[Lifetime]) -> None:
        """Take what another writer did not write, and all running lives: the database is new."""
        lives = {life.id: life for life in (*running, *other._lives)}  # noqa: SLF001  our own class
        for life in lives.values():
            life.stored = False
            life.reported = True
            if life.parent_id not in lives:
                life.parent_id = None
        self._lives = sorted(lives.values(), key=lambda life: life.id)
        self._earlier_execs = [e for e in other._earlier_execs if e.lifetime_id in lives]  # noqa: SLF001  our own class
        self._id_changes = [c for c in other._id_changes if c.lifetime_id in lives]  # noqa: SLF001  our own class
        self._events = [
            e if e.other_id in lives else e._replace(other_id=None)
            for e in other._events  # noqa: SLF001  our own class
            if e.lifetime_id in lives
        ]
        self._gaps = other._gaps  # noqa: SLF001  our own class
        self._execs = other._execs  # noqa: SLF001  our own class
        self._described = other._described  # noqa: SLF001  our own class

    # --- gathering --------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many rows wait for the next commit."""
        return (
            len(self._lives)
            + len(self._earlier_execs)
            + len(self._id_changes)
            + len(self._events)
            + len(self._gaps)
        )

    def add(self, changes: Changes) -> None:
        """Take what has changed; it is written with the next commit."""
        self._lives += changes.lives
        self._earlier_execs += changes.earlier_execs
        self._id_changes += changes.id_changes
        self._events += changes.events
        self._execs += changes.execs
        self._described += changes.described

    def add_gap(self, gap: Gap) -> None:
        """Take a gap; it is written with the next commit."""
        self._gaps.append(gap)

    # --- writing ----------------------------------------------------------------

    def commit(self, next_id: int, progress: Progress) -> int:
        """Write everything gathered, in one transaction; return how many lives that were.

        Raises:
            apsw.Error: nothing was written, and all of it is kept for the next commit.

        """
        db = self._db
        begun = sum(not life.stored for life in self._lives)
        try:
            db.execute("BEGIN IMMEDIATE")
            self._write(next_id, progress, begun)
            db.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already; `with db` would only complain of that.
            if db.in_transaction:
                db.execute("ROLLBACK")
            # Rows of the dictionaries that this transaction made are gone again.
            self.forget_rows()
            raise
        self._interning.trim()
        self._batch += 1
        self._lives_begun += begun
        for life in self._lives:
            life.stored = True
            life.reported = False
        count = len(self._lives)
        self._lives = []
        self._earlier_execs = []
        self._id_changes = []
        self._events = []
        self._gaps = []
        return count

    def _write(self, next_id: int, progress: Progress, begun: int) -> None:
        db = self._db
        batch = self._batch + 1
        interning = self._interning
        interning.learn(
            itertools.chain(
                (life.image for life in self._lives), (e.image for e in self._earlier_execs)
            )
        )
        inserts: list[tuple[object, ...]] = []
        updates: list[tuple[object, ...]] = []
        for life in self._lives:
            (updates if life.stored else inserts).append(self._row(life, batch))
        inserts.sort()  # by id: parents before their children
        db.executemany(_INSERT_LIFETIME, inserts)
        db.executemany(_UPDATE_LIFETIME, updates)
        db.executemany(
            "INSERT INTO earlier_exec VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    e.lifetime_id,
                    e.ordinal,
                    e.at_ns,
                    interning.images[e.image],
                    interning.origin(e.origin),
                    e.source,
                )
                for e in self._earlier_execs
            ],
        )
        db.executemany(
            "INSERT INTO id_change (lifetime, at_ns, kind, real, effective) VALUES (?, ?, ?, ?, ?)",
            self._id_changes,
        )
        db.executemany(
            "INSERT INTO event (lifetime, at_ns, kind, detail, other) VALUES (?, ?, ?, ?, ?)",
            [
                (e.lifetime_id, e.at_ns, e.kind, interning.text(e.detail), e.other_id)
                for e in self._events
            ],
        )
        db.executemany(
            "INSERT INTO gap (boot, from_at_ns, until_at_ns, kind, lost, detail)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(self.boot, *gap) for gap in self._gaps],
        )
        db.executemany(
            "INSERT INTO cpu_sequence VALUES (?, ?, ?) ON CONFLICT (cpu)"
            " DO UPDATE SET boot = excluded.boot, seq = excluded.seq",
            [(cpu, self.boot, seq) for cpu, seq in progress.newest_sequences.items()],
        )
        db.execute(
            "UPDATE recording SET committed_at_ns = ?, committed_mono_ns = ?, events = ?, lost = ?,"
            " lives = ?, execs = ?, execs_described = ?, facts = ? WHERE id = ?",
            (
                progress.committed_at_ns,
                progress.committed_mono_ns,
                progress.events,
                progress.lost,
                self._lives_begun + begun,
                self._execs,
                self._described,
                json.dumps(progress.facts),
                self._recording,
            ),
        )
        db.execute(
            "UPDATE boot SET last_seen_at_ns = max(last_seen_at_ns, ?) WHERE id = ?",
            (progress.committed_at_ns, self.boot),
        )
        db.execute("UPDATE counter SET next_lifetime = ?, batch = ?", (next_id, batch))

    def end(self, stopped_at_ns: EpochNs) -> None:
        """Note that the recording stopped by itself, everything committed."""
        with self._db:
            self._db.execute(
                "UPDATE recording SET stopped_at_ns = ? WHERE id = ?",
                (stopped_at_ns, self._recording),
            )

    @property
    def lives_begun(self) -> int:
        """Lifetimes begun in this recording and committed."""
        return self._lives_begun

    @property
    def execs(self) -> int:
        """Execves seen in this recording."""
        return self._execs

    @property
    def execs_described(self) -> int:
        """Execves of which argv is known."""
        return self._described

    def _row(self, life: Lifetime, batch: int) -> tuple[object, ...]:
        running = life.end_source is None
        interning = self._interning
        return (
            life.id,
            self.boot,
            life.pid,
            life.parent_id,
            life.ppid,
            0 if life.reaper_pid == life.ppid and life.ppid else life.reaper_pid,
            0 if life.ns_pid == life.pid else life.ns_pid,
            0 if life.sid == life.pid else life.sid,
            interning.images[life.image],
            interning.origin(life.origin),
            life.started_at_ns,
            life.start_ticks if running else None,
            life.start_source,
            life.exec_at_ns,
            life.exec_count,
            life.exec_source,
            interning.origin(life.exec_origin),
            life.ended_at_ns,
            life.ended_after_ns,
            life.end_source,
            None if running else life.wait_status,
            life.is_kernel_thread,
            life.thread_peak,
            *(life.cost or _NO_COST),
            batch,
        )

    def forget_rows(self) -> None:
        """Forget which rows of the dictionaries there are: some were deleted."""
        self._interning.forget()

    def forget_names(self) -> None:
        """Ask for the names of users again; they may have changed."""
        self._interning.forget_names()


__all__ = [
    "BLIND", "CLOCK_STEP", "DOWN", "OVERRUN", "SUSPEND", "Gap", "Previous", "Progress",
    "Writer",
]  # fmt: skip
