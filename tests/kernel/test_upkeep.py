"""Secrets, metrics, a database that is taken away, and the watchdog: on a recorder that runs."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.live import PATIENCE_S, History, Recording
from tests.kernel.test_takeover import Manager

pytestmark = pytest.mark.kernel


def wait_until(condition: Callable[[], object], what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what()
        time.sleep(0.05)


@pytest.mark.parametrize("source", ["auto", "proc"])
def test_a_secret_reaches_neither_the_database_nor_the_capture(
    database: Path, tmp_path: Path, source: str
) -> None:
    secret = secrets.token_hex(16)
    capture = tmp_path / "all.capture"
    options = ("--redact-defaults", "--capture", capture, "--exec-source", source)
    with (
        # One that the scan finds, and one that is seen from its beginning.
        subprocess.Popen(
            ["/bin/sh", "-c", "read line", "sh", f"--password={secret}"], stdin=subprocess.PIPE
        ) as earlier,
        Recording(database, *options) as recording,
        History(database) as history,
    ):
        (found,) = history.ask("SELECT * FROM running WHERE pid = ?", earlier.pid)
        assert "--password=[redacted]" in found["command_line"]
        earlier.communicate(b"go on\n")
        since_ns = time.time_ns()
        with subprocess.Popen(["/bin/sh", "-c", "sleep 0.3", "sh", f"--token={secret}"]) as shell:
            life = history.life(shell.pid, since_ns, comm="sh", exec_count=1)
        assert life["argv"] == '["/bin/sh","-c","sleep 0.3","sh","--token=[redacted]"]'
        assert life["argv_complete"] == 1
        assert recording.stop() == 0, recording.said
    for file in (database, Path(f"{database}-wal"), capture):
        assert secret.encode() not in file.read_bytes()


def test_metrics_are_written_while_recording(database: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "prochist.prom"
    with Recording(database, "--metrics-file", metrics) as recording:
        wait_until(metrics.exists, lambda: recording.said)
        text = metrics.read_text(encoding="utf-8")
        assert "prochist_up 1\n" in text
        assert text.endswith("# EOF\n")
        assert recording.stop() == 0, recording.said


def test_a_database_that_is_deleted_is_begun_anew_with_all_that_runs(database: Path) -> None:
    with Recording(database) as recording:
        for file in database.parent.glob(f"{database.name}*"):
            file.unlink()
        wait_until(lambda: "begins anew" in recording.said, lambda: recording.said)
        with History(database) as history:
            (own,) = history.ask("SELECT * FROM running WHERE pid = ?", recording.pid)
            assert own["parent_id"] is not None
            since_ns = time.time_ns()
            with subprocess.Popen(["/bin/true"]) as child:
                child.wait()
            assert history.ended(child.pid, since_ns)["exit_code"] == 0
        second = Recording(database)
        assert second.process.wait(PATIENCE_S) == 3  # the lock is on the new file
        second.close()
        assert recording.stop() == 0, recording.said


def test_a_database_that_is_replaced_by_another_history_ends_the_recording(
    database: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with Recording(other) as recording:
        assert recording.stop() == 0
    with Recording(database) as recording:
        for suffix in ("-wal", "-shm"):
            Path(f"{database}{suffix}").unlink()
        other.rename(database)
        assert recording.process.wait(PATIENCE_S) == 3
        assert "was replaced by another history" in recording.said


def test_the_watchdog_is_fed_only_while_the_receiver_makes_progress(database: Path) -> None:
    environment = {"WATCHDOG_USEC": "10000000"}
    with Manager(database, environment) as manager:
        manager.start("--hang-timeout", "0")
        assert manager.process is not None
        manager.wait_for(b"WATCHDOG=1")
        (receiver,) = [
            int(pid)
            for pid in Path(f"/proc/{manager.process.pid}/task/{manager.process.pid}/children")
            .read_text(encoding="ascii")
            .split()
            if b"prochist.capture.receiver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(receiver, signal.SIGSTOP)
        try:
            time.sleep(2.5)
            manager.pump()
            manager.told.clear()
            time.sleep(2.5)
            manager.pump()
            assert not any(b"WATCHDOG=1" in text for text in manager.told)
        finally:
            os.kill(receiver, signal.SIGCONT)
        manager.wait_for(b"WATCHDOG=1")
        manager.end(signal.SIGTERM)
