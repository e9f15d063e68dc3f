"""What the recorder leaves with the service manager, and what the next one makes of it.

A stand-in for systemd: a notification socket that keeps the descriptors it is given, and a start
that passes them on as sd_listen_fds(3) says.
"""

import array
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from tests.kernel.live import PATIENCE_S, Acting, History, prochist

pytestmark = pytest.mark.kernel

START = 'export LISTEN_PID=$$ LISTEN_FDS="$1" LISTEN_FDNAMES="$2"; shift 2; exec "$@"'


class Manager:
    """A service manager with one service and a store for its descriptors."""

    def __init__(self, database: Path, environment: Mapping[str, str] | None = None) -> None:
        self._database = database
        self._environment = environment or {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._address = f"prochist-test-{secrets.token_hex(8)}"
        self._socket.bind("\0" + self._address)
        self._socket.settimeout(0.2)
        self.stored: dict[str, int] = {}
        self.process: subprocess.Popen[str] | None = None
        self.told: list[bytes] = []

    def start(self, *options: str) -> None:
        """Start the recorder, with what is in the store, and wait until it is ready."""
        names = list(self.stored)
        # sd_listen_fds: from 3 on, in order. Popen keeps numbers, so the shell moves them.
        far = [fcntl.fcntl(self.stored[name], fcntl.F_DUPFD_CLOEXEC, 64) for name in names]
        moves = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(far))
        script = f"exec {moves}; {START}" if moves else START
        self.told.clear()
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script, "bash", str(len(names)), ":".join(names)]
            + [str(part) for part in prochist("record", "--db", self._database, *options)],
            env={**os.environ, **self._environment, "NOTIFY_SOCKET": f"@{self._address}"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=far,
        )
        for fd in far:
            os.close(fd)
        self.wait_for(b"READY=1")
        self.pump()

    def pump(self) -> None:
        """Take what was told until nothing more comes."""
        while True:
            try:
                text, rights, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(4 * 4))
            except TimeoutError:
                return
            lines = dict(line.partition(b"=")[::2] for line in text.splitlines())
            self.told.append(text)
            name = lines.get(b"FDNAME", b"").decode()
            if lines.get(b"FDSTOREREMOVE") == b"1" and name in self.stored:
                os.close(self.stored.pop(name))
            if lines.get(b"FDSTORE") == b"1":
                fds = array.array("i", rights[0][2])
                assert len(fds) == 1
                assert lines[b"FDPOLL"] == b"0"
                self.stored[name] = fds[0]

    def wait_for(self, word: bytes) -> None:
        until = time.monotonic() + PATIENCE_S
        while not any(word in text.splitlines() for text in self.told):
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until, self.told
            self.pump()

    def end(self, number: int) -> str:
        """End the service as systemd does: all of its processes; return what it said."""
        assert self.process is not None
        self.process.send_signal(number)
        said = self.process.communicate(timeout=PATIENCE_S)[1]
        if number == signal.SIGKILL:
            time.sleep(1)  # its receiver sees that it is alone, takes what is left, and ends
        self.pump()
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for fd in self.stored.values():
            os.close(fd)
        self._socket.close()


def spawn(count: int) -> list[int]:
    """Start short processes, one after the other, and return their pids."""
    pids = []
    for number in range(count):
        process = subprocess.Popen(["/bin/true", f"takeover-{number}"])
        process.wait()
        pids.append(process.pid)
    return pids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_happens_between_two_recorders_is_recorded_by_the_next(
    database: Path, number: int
) -> None:
    with Manager(database) as manager:
        manager.start()
        assert {name.partition("-")[0] for name in manager.stored} >= {"events", "channel"}
        since_ns = time.time_ns()
        before = spawn(50)
        with Acting("fork_without_exec") as staying:
            _, child = staying.said()
            manager.end(number)
            meanwhile = spawn(200)
            manager.start()
            after = spawn(50)
            said = manager.end(signal.SIGTERM)
        assert "nothing was missed" in said
        with History(database) as history:
            assert history.ask("SELECT * FROM gaps") == []
            for pid in (*before, *meanwhile, *after):
                life = history.ended(pid, since_ns)
                assert life["end_source"] == "exit"
                assert life["exit_code"] == 0
                assert life["command_line"].startswith("/bin/true takeover-")
            assert len(history.lives(staying.pid, since_ns)) == 1
            assert len(history.lives(child, since_ns)) == 1


def test_without_a_store_the_gap_is_exact(database: Path) -> None:
    with Manager(database) as manager:
        manager.start()
        manager.end(signal.SIGTERM)
        for fd in manager.stored.values():
            os.close(fd)
        manager.stored.clear()
        spawn(40)
        manager.start()
        manager.end(signal.SIGTERM)
        with History(database) as history:
            (gap,) = history.ask("SELECT * FROM gaps WHERE kind = 'down'")
        assert gap["lost"] >= 40 * 3  # fork, exec, exit


def test_descriptors_that_are_not_ours_are_closed_and_forgotten(database: Path) -> None:
    with Manager(database) as manager, Path("/dev/null").open("rb") as other:
        manager.stored["events-1"] = os.dup(other.fileno())
        manager.stored["of-another-version"] = os.dup(other.fileno())
        manager.start()
        assert "of-another-version" not in manager.stored
        assert os.fstat(manager.stored["events-1"]).st_mode & 0o170000 == 0o140000  # a socket
        manager.end(signal.SIGTERM)
