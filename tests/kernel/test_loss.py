"""Loss on the live kernel: every event that is missing is counted, and the lives are put right."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prochist.capture.connector import (
    FORK,
    MESSAGE_SIZE,
    SlotReceiver,
    decode_messages,
    open_subscription,
)
from tests.kernel.live import PATIENCE_S, History, Recording, Row, run_prochist
from tests.kernel.test_storms import said_by, two_storms

pytestmark = pytest.mark.kernel

IDLE = 8
"""Children that live through a loss."""


def gaps(history: History, kind: str) -> list[Row]:
    return history.ask("SELECT * FROM gaps WHERE kind = ? ORDER BY from_at_ns", kind)


def wait_for_gaps(history: History, kind: str) -> list[Row]:
    until = time.monotonic() + PATIENCE_S
    while not (found := gaps(history, kind)):
        assert time.monotonic() < until, f"no gap {kind}"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def idle_children() -> Iterator[list[int]]:
    """Run processes that stay, and end them after."""
    with contextlib.ExitStack() as ends:
        pids = []
        for _ in range(IDLE):
            child = ends.enter_context(subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE))
            pids.append(child.pid)
        yield pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


def test_events_dropped_on_purpose_are_a_gap_of_exactly_that_number(database: Path) -> None:
    with Recording(database, "--simulate-loss", "300") as recording, History(database) as history:
        with two_storms("rehearsal", 200) as storms:
            said_by(storms)
        wait_for_gaps(history, "overrun")
        assert recording.stop() == 0
        assert sum(gap["lost"] for gap in gaps(history, "overrun")) == 300
        assert "300 events lost" in recording.said


def test_a_stopped_receiver_loses_what_the_kernel_says_it_lost(database: Path) -> None:
    with (
        idle_children() as before,
        Recording(database, "--receive-buffer", "64K", "--hang-timeout", "0") as recording,
        History(database) as history,
    ):
        (receiver,) = recording.receivers(history)
        with two_storms("stopped", 800) as storms:
            time.sleep(0.2)
            os.kill(receiver["pid"], signal.SIGSTOP)
            try:
                with idle_children() as meanwhile:
                    ran = said_by(storms)
                    os.kill(receiver["pid"], signal.SIGCONT)
                    lost = wait_for_gaps(history, "overrun")
                    wait_for_resync(history, meanwhile)
                    assert before_and_still(history, before)
                    wait_until_closed(history, {pid for _, _, pid, _, _ in ran})
            finally:
                os.kill(receiver["pid"], signal.SIGCONT)
        assert recording.stop() == 0
        (facts,) = history.ask("SELECT facts ->> 'connector_drops' AS drops, lost FROM recording")
        lost = gaps(history, "overrun")
        assert (
            sum(gap["lost"] for gap in lost if gap["detail"] == "proc connector") == facts["drops"]
        )
        assert facts["lost"] == facts["drops"] > 0


def before_and_still(history: History, pids: list[int]) -> bool:
    """Return whether processes from before the loss are still running in the history."""
    running = {row["pid"] for row in history.ask("SELECT pid FROM running")}
    return running.issuperset(pids)


def wait_until_closed(history: History, pids: set[int]) -> None:
    """Wait until none of these pids, whose processes have ended, is running any more."""
    until = time.monotonic() + PATIENCE_S
    while True:
        running = {row["pid"] for row in history.ask("SELECT pid FROM running")}
        if not [pid for pid in running & pids if not Path(f"/proc/{pid}").exists()]:
            return
        assert time.monotonic() < until, "lives whose end was lost stay open"
        time.sleep(0.1)


def wait_for_resync(history: History, pids: list[int]) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        running = {row["pid"] for row in history.ask("SELECT pid FROM running")}
        if running.issuperset(pids):
            return
        time.sleep(0.1)
    raise AssertionError("the processes that began unseen are not in the history")


def test_a_silenced_subscription_is_noticed_renewed_and_told(database: Path) -> None:
    with (
        contextlib.ExitStack() as ends,
        Recording(database, "--simulate-silence") as recording,
        History(database) as history,
    ):
        silent = ends.enter_context(idle_children())
        (gap,) = wait_for_gaps(history, "blind")
        assert gap["lost"] is None
        assert gap["until_at_ns"] - gap["from_at_ns"] < 15 * 10**9
        wait_for_resync(history, silent)
        with two_storms("seen-again", 20) as storms:
            said_by(storms)
        assert recording.stop() == 0
        assert "BLIND" in recording.said
    status = run_prochist("query", "--db", database, "--require-complete", "-S", "1h")
    assert status.returncode == 4


def test_what_was_missed_while_down_is_known_to_the_event(database: Path) -> None:
    # A listener of our own counts what the recorder cannot see.
    subscription = open_subscription(16 << 20)
    memory = memoryview(bytearray(MESSAGE_SIZE * 512))
    receiver = SlotReceiver(subscription.socket.fileno(), memory, MESSAGE_SIZE)
    with subscription.socket:
        with Recording(database) as first:
            assert first.stop() == 0
        with History(database) as history:
            newest = {row["cpu"]: row["seq"] for row in history.ask("SELECT * FROM cpu_sequence")}
        with two_storms("unseen", 50) as storms:
            said_by(storms)
        with Recording(database) as second:
            assert second.stop() == 0
        with History(database) as history:
            (gap,) = gaps(history, "down")
        seen: list[tuple[int, int]] = []
        forks = 0
        while count := receiver.receive():
            for message in decode_messages(memory[: count * MESSAGE_SIZE]):
                seen.append((message.cpu, message.seq))
                forks += message.what == FORK
    assert forks >= 100
    assert gap["lost"] >= 300  # a fork, an exec and an exit of each
    # Never more than what came after the first recording, over all CPUs, by the kernel's count.
    after = {cpu: max(seq for c, seq in seen if c == cpu) for cpu, _ in seen}
    assert gap["lost"] <= sum(
        (after[cpu] - newest[cpu]) & 0xFFFFFFFF for cpu in newest if cpu in after
    )


def test_two_recorders_with_probes_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    with (
        Recording(one, "--exec-source", "bpf") as first,
        Recording(two, "--exec-source", "bpf") as second,
    ):
        with two_storms("both", 100) as storms:
            ran = said_by(storms)
        assert first.stop() == 0
        assert second.stop() == 0
        assert "nothing lost" in first.said
        assert "nothing lost" in second.said
    for database in (one, two):
        with History(database) as history:
            for storm, number, pid, _, _ in ran:
                (life,) = history.lives(pid, storm.since_ns)
                assert life["exec_source"] == "bpf"
                assert str(number) in life["command_line"]
