"""A recorder on the live kernel, a history that grows, and processes to look for in it.

What the tests on the real proc connector share. The history is read as a user of sqlite3 would,
not through prochist. The machine has other processes: a life is only ever looked up by the pid of
a process that a test started itself, and not before it did.
"""

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ACTOR = Path(__file__).with_name("actor.py")
PATIENCE_S = 20.0
"""How long something may take that usually takes less than a second: the machine is shared."""
SLACK_NS = 50_000_000
"""How much the time of a start may be off, against the clock that the test read before it."""

Row = dict[str, Any]

_LIVES = """
    SELECT * FROM processes AS p
    WHERE pid = ? AND started_at_ns >= ? AND ? IN (
        ppid,
        (SELECT ppid FROM processes WHERE id = p.parent_id),
        (SELECT g.ppid FROM processes AS q JOIN processes AS g ON g.id = q.parent_id
         WHERE q.id = p.parent_id)
    )
    ORDER BY id
"""


class History:
    """The history in a database, read while it grows."""

    def __init__(self, database: Path) -> None:
        self._db = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
        self._db.row_factory = sqlite3.Row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def ask(self, statement: str, *bindings: object) -> list[Row]:
        return [dict(row) for row in self._db.execute(statement, bindings)]

    def lives(self, pid: int, since_ns: int) -> list[Row]:
        """Return the lives that a pid had since then below this process, oldest first.

        Where pids are few and the machine is busy, a pid is used again by somebody else within
        seconds.
        """
        return self.ask(_LIVES, pid, since_ns - SLACK_NS, os.getpid())

    def life(self, pid: int, since_ns: int, **expected: object) -> Row:
        """Wait until a pid has one life that is as expected, and return it.

        Raises:
            AssertionError: it does not become so.

        """
        until = time.monotonic() + PATIENCE_S
        while True:
            lives = self.lives(pid, since_ns)
            if len(lives) == 1 and lives[0].items() >= expected.items():
                return lives[0]
            if time.monotonic() > until:
                raise AssertionError(f"no life of {pid} became {expected}: {lives}")
            time.sleep(0.02)

    def ended(self, pid: int, since_ns: int) -> Row:
        """Wait until the one life of a pid has ended, and return it."""
        until = time.monotonic() + PATIENCE_S
        while True:
            lives = self.lives(pid, since_ns)
            if lives and all(life["state"] != "running" for life in lives):
                assert len(lives) == 1, lives
                return lives[0]
            if time.monotonic() > until:
                raise AssertionError(f"the end of {pid} is not in the history: {lives}")
            time.sleep(0.02)

    def events(self, life: Row) -> list[tuple[str, str | None]]:
        rows = self.ask("SELECT * FROM events WHERE process_id = ? ORDER BY id", life["id"])
        return [(row["kind"], row["detail"]) for row in rows]

    def id_changes(self, life: Row) -> list[tuple[str, int, int]]:
        rows = self.ask("SELECT * FROM id_changes WHERE process_id = ? ORDER BY id", life["id"])
        return [(row["kind"], row["real"], row["effective"]) for row in rows]

    def execs(self, life: Row) -> list[Row]:
        return self.ask("SELECT * FROM execs WHERE process_id = ? ORDER BY id", life["id"])


class Recording:
    """A `prochist record` that runs."""

    def __init__(
        self,
        database: Path,
        *options: str | Path,
        prefix: Sequence[str] = (),
        terminal: int | None = None,
    ) -> None:
        self.database = database
        self._messages = database.with_name(f"{database.stem}-{secrets.token_hex(4)}.log")
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"prochist-test-{secrets.token_hex(8)}"
        self._manager.bind("\0" + address)
        with self._messages.open("wb") as messages:
            self.process = subprocess.Popen(
                [*prefix, *prochist("record", "--db", database, *options)],
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=subprocess.DEVNULL,
                stderr=messages if terminal is None else terminal,
                env={**os.environ, "NOTIFY_SOCKET": f"@{address}"},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self._messages.read_text(encoding="utf-8")

    def wait_until_ready(self) -> Self:
        """Wait until it says that those already running are recorded."""
        until = time.monotonic() + PATIENCE_S
        self._manager.settimeout(0.2)
        while True:
            try:
                told = self._manager.recv(4096)
            except TimeoutError:
                told = b""
            if b"READY=1" in told.splitlines():
                return self
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                raise AssertionError(f"the recorder is not ready: {self.said}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def receivers(self, history: History) -> list[Row]:
        """Return the lives of its receivers, as the history has them, oldest first."""
        return history.ask(
            "SELECT * FROM processes WHERE ppid = ? AND boot_id ="
            " (SELECT boot_id FROM boots ORDER BY last_seen_at_ns DESC LIMIT 1)"
            " AND command_line GLOB '*prochist.capture.receiver*' ORDER BY id",
            self.pid,
        )

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._manager.close()

    def __enter__(self) -> Self:
        try:
            return self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


class Acting:
    """An actor at work: a process that does one act, see ``actor.py``."""

    def __init__(
        self, act: str, *arguments: str | Path, cwd: Path | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.since_ns = time.time_ns()
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", ACTOR, act, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
        )
        self.pid = self.process.pid

    def said(self) -> Any:  # noqa: ANN401  JSON
        """Return the next line that it says, decoded."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the actor ended with {self.process.wait()}"
        return json.loads(line)

    def go_on(self) -> None:
        """Let it go on where it is held."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


def prochist(*arguments: str | Path) -> list[str | Path]:
    """Return the command line of a prochist that imports what the tests import."""
    return [sys.executable, "-m", "prochist", *arguments]


def run_prochist(
    *arguments: str | Path,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a prochist that ends by itself."""
    return subprocess.run(
        [*prefix, *prochist(*arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={**os.environ, **(environment or {})},
    )


def wait_status(life: Row) -> int | None:
    """Return the end of a life as wait(2) reports it; None if it is not known."""
    if life["state"] == "exited":
        return int(life["exit_code"]) << 8
    if life["state"] == "killed":
        return int(life["term_signal"]) | int(life["core_dumped"]) << 7
    return None


def wait_for_all(history: History, pids: Iterable[int], since_ns: int) -> None:
    """Wait until a child of an actor with each pid has ended, or until patience has."""
    left = set(pids)
    until = time.monotonic() + PATIENCE_S
    while left and time.monotonic() < until:
        rows = history.ask(
            "SELECT pid FROM processes WHERE started_at_ns >= ? AND ended_at_ns IS NOT NULL"
            " AND parent_id IN (SELECT id FROM processes WHERE ppid = ?)",
            since_ns - SLACK_NS,
            os.getpid(),
        )
        left -= {row["pid"] for row in rows}
        if left:
            time.sleep(0.05)
