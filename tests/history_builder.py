"""Fills a database with lives by plain INSERTs, so that asking is tested without a recorder.

A test seam, not a second writer: it only knows the tables of ``schema/``.
"""

import json
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from prochist.store.database import open_writer

SECOND = 1_000_000_000
T0 = 1_790_000_000 * SECOND
"""When the history of a builder begins: 2026-09-21T14:13:20Z."""

BOOT_ID = "0a0a0a0a-1111-4222-8333-444444444444"


@dataclass
class HistoryBuilder:
    """Writes what a recorder would have written. Close it before others read."""

    db: apsw.Connection

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = open_writer(path)
        self._texts: dict[str, int] = {}
        self._shared: dict[tuple[Any, ...], int] = {}
        self._next_id = 1
        self.db.execute("BEGIN")

    def close(self) -> None:
        """Commit and close."""
        self.db.execute("UPDATE counter SET next_lifetime = ?, batch = 1", (self._next_id,))
        self.db.execute("COMMIT")
        self.db.close()

    def text(self, value: str | None) -> int | None:
        """Return the id of a text, written when it is new."""
        if value is None:
            return None
        if value not in self._texts:
            self.db.execute("INSERT INTO text (hash, value) VALUES (0, ?)", (value,))
            self._texts[value] = self.db.last_insert_rowid()
        return self._texts[value]

    def boot(self, boot_id: str = BOOT_ID, *, at_ns: int = T0, host: str = "builder") -> int:
        """Write a boot and return its row id."""
        return self._insert_shared(
            "boot",
            boot_id=boot_id,
            host=host,
            machine_id=None,
            kernel="6.18.0",
            booted_at_ns=at_ns,
            first_seen_at_ns=at_ns,
            last_seen_at_ns=at_ns + 86_400 * SECOND,
        )

    def image(
        self,
        argv: Sequence[str] | None = ("true",),
        *,
        exe: str | None = None,
        comm: str | None = None,
        cwd: str | None = "/",
    ) -> int:
        """Write an image and return its id; ``exe`` and ``comm`` follow from ``argv``."""
        path = None
        line = json_argv = complete = None
        if argv is not None:
            line = shlex.join(argv)
            complete = 1
            path = argv[0] if argv else ""
            if line.split(" ") != list(argv):
                json_argv = json.dumps(list(argv), ensure_ascii=False)
            exe = exe or f"/usr/bin/{path.rpartition('/')[2]}"
            comm = comm or path.rpartition("/")[2][:15]
        return self._insert_shared(
            "image",
            comm=self.text(comm),
            exe=self.text(exe),
            exec_path=self.text(path),
            command_line=self.text(line),
            argv=self.text(json_argv),
            argv_complete=complete,
            cwd=self.text(cwd),
            argv_raw=None,
        )

    def origin(self, uid: int | None = 0, user: str | None = "root", **more: Any) -> int:  # noqa: ANN401 - any column
        """Write an origin and return its id; ``more`` are its other columns, texts as str."""
        columns: dict[str, Any] = {"uid": uid, "euid": uid, "gid": uid, "egid": uid, "user": user}
        columns |= {"login_uid": None, "login_user": None, "session": None, "tty": None}
        columns |= {"cgroup": None, "unit": None, "container_id": None} | more
        for name in ("user", "login_user", "tty", "cgroup", "unit", "container_id"):
            columns[name] = self.text(columns[name])
        return self._insert_shared("origin", hash=0, **columns)

    def life(
        self,
        pid: int,
        started_at_ns: int | None,
        ended_at_ns: int | None = None,
        wait_status: int | None = None,
        **more: Any,  # noqa: ANN401 - any column
    ) -> int:
        """Write a life and return its id; ``more`` are its other columns."""
        columns: dict[str, Any] = {
            "id": self._next_id,
            "boot": more.get("boot") or self.boot(),
            "pid": pid,
            "ppid": 1,
            "image": more["image"] if "image" in more else self.image(),
            "origin": more["origin"] if "origin" in more else self.origin(),
            "started_at_ns": started_at_ns,
            "start_source": 0,
            "exec_count": 0,
            "exec_source": 2,
            "ended_at_ns": ended_at_ns,
            "end_source": None if ended_at_ns is None else 1,
            "wait_status": wait_status,
            "is_kernel_thread": 0,
            "thread_peak": 1,
            "batch": 1,
        } | more
        self._next_id = columns["id"] + 1
        self._insert("lifetime", columns)
        return int(columns["id"])

    def gap(
        self, from_at_ns: int, until_at_ns: int, kind: int = 0, lost: int | None = None
    ) -> None:
        """Write a gap."""
        self._insert(
            "gap",
            {
                "boot": self.boot(),
                "from_at_ns": from_at_ns,
                "until_at_ns": until_at_ns,
                "kind": kind,
                "lost": lost,
            },
        )

    def recording(
        self,
        started_at_ns: int = T0,
        committed_at_ns: int = T0 + 86_400 * SECOND,
        *,
        stopped: bool = True,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Write a run of a recorder."""
        self._insert(
            "recording",
            {
                "boot": self.boot(),
                "pid": 4321,
                "version": "0.1.0",
                "started_at_ns": started_at_ns,
                "stopped_at_ns": committed_at_ns if stopped else None,
                "committed_at_ns": committed_at_ns,
                "committed_mono_ns": 0,
                "events": 5000,
                "lost": 0,
                "lives": 1000,
                "execs": 900,
                "execs_described": 890,
                "facts": json.dumps(facts or {"receiver": "SCHED_RR 5"}),
            },
        )

    def insert(self, table: str, **columns: Any) -> int:  # noqa: ANN401 - any column
        """Write any other row and return its rowid."""
        return self._insert(table, columns)

    def _insert(self, table: str, columns: dict[str, Any]) -> int:
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608
        return self.db.last_insert_rowid()

    def _insert_shared(self, table: str, **columns: Any) -> int:  # noqa: ANN401 - any column
        key = (table, *columns.values())
        if key not in self._shared:
            self._shared[key] = self._insert(table, columns)
        return self._shared[key]


def fill(builder: HistoryBuilder, lives: int, *, seed: int = 1, images: int = 3000) -> None:
    """Write random lives, about ten a second from ``T0`` on, of every kind that there is."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    programs = ["true", "sh", "git", "python3", "cc1", "grep", "sleep", "curl"]
    argvs = [
        builder.image(
            [chance.choice(programs), f"--n={number}", chance.choice(["a b", "x", "…", "it's"])]
        )
        for number in range(images)
    ]
    origins = [
        builder.origin(0, "root", unit="cron.service", cgroup="/system.slice/cron.service"),
        builder.origin(1000, "ann", login_uid=1000, login_user="ann", session=3, tty="pts/0"),
        builder.origin(1001, "bob", container_id="f00dfeed" * 8, cgroup="/docker/f00dfeed"),
        builder.origin(65534, None),
    ]
    at = T0
    for number in range(lives):
        at += chance.randrange(200_000_000)
        length = int(chance.paretovariate(0.6) * 400_000)
        ended: int | None = at + length
        wait: int | None = chance.choice([0] * 12 + [256, 512, 9, 15, 139, 127 << 8])
        source: int | None = 1
        if chance.random() < 0.002:
            ended = wait = source = None
        elif chance.random() < 0.01:
            wait, source = None, chance.choice([2, 3])
        measured = wait is not None and chance.random() < 0.9
        parent = builder._next_id - 1 - chance.randrange(20)  # noqa: SLF001 - same file
        kernel = chance.random() < 0.003
        builder.life(
            300 + number % 32_000,
            None if ended is not None and chance.random() < 0.005 else at,
            ended,
            wait,
            end_source=source,
            ended_after_ns=at if source in (2, 3) else None,
            parent_id=parent if parent > 0 else None,
            ppid=300 + (parent - 1) % 32_000 if parent > 0 else None,
            reaper_pid=chance.choice([0, 0, 0, 1, None]),
            ns_pid=chance.choice([0, 0, 5]),
            sid=chance.choice([0, 7, None]),
            image=None if kernel else chance.choice(argvs),
            origin=chance.choice([*origins, None]) if kernel else chance.choice(origins),
            start_source=chance.choice([0, 0, 0, 1]),
            exec_count=1,
            exec_at_ns=at,
            exec_source=chance.randrange(4),
            is_kernel_thread=int(kernel),
            thread_peak=chance.choice([1, 1, 8]),
            cpu_user_us=chance.randrange(10**6) if measured else None,
            cpu_system_us=chance.randrange(10**5) if measured else None,
            max_rss_kib=chance.randrange(10**6) if measured else None,
            read_bytes=chance.randrange(10**6) if measured else None,
            write_bytes=0 if measured else None,
            minor_faults=chance.randrange(10**4) if measured else None,
            major_faults=0 if measured else None,
            voluntary_switches=1 if measured else None,
            involuntary_switches=2 if measured else None,
        )
