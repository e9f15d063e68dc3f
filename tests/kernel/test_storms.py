"""Many short lives at once: all of them, each with what it ran, how it ended and whose it was.

And the same while recorder or receiver are killed or stopped in the middle.
"""

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.live import (
    ACTOR,
    Acting,
    History,
    Recording,
    Row,
    run_prochist,
    wait_for_all,
    wait_status,
)

pytestmark = pytest.mark.kernel

FLUSH_NS = 250_000_000
REPLACED_WITHIN_NS = 2_000_000_000
"""A receiver hangs when it was silent for 1 s, and is looked after every 0.4 s."""


@contextlib.contextmanager
def two_storms(tag: str, count: int) -> Iterator[list[Acting]]:
    one, two = (Acting("storm", f"{tag}-{spawner}", str(count)) for spawner in "ab")
    with one, two:
        yield [one, two]


def said_by(storms: list[Acting]) -> list[tuple[Acting, int, int, int, int]]:
    """Return spawner, number, pid, wait status and end of all that ran."""
    return [(storm, *ran) for storm in storms for ran in storm.said()["ran"]]


def by_pid(history: History, storms: list[Acting]) -> dict[int, dict[int, list[Row]]]:
    """Return the children of each spawner, by pid."""
    children: dict[int, dict[int, list[Row]]] = {}
    for storm in storms:
        mine = children[storm.pid] = {}
        (spawner,) = history.lives(storm.pid, storm.since_ns)
        for row in history.ask(
            "SELECT * FROM processes WHERE parent_id = ? ORDER BY id", spawner["id"]
        ):
            mine.setdefault(row["pid"], []).append(row)
    return children


def missing(
    history: History, storms: list[Acting], ran: list[tuple[Acting, int, int, int, int]]
) -> list[tuple[int, int]]:
    """Return number and pid of those whose life is not there, or not with its end."""
    children = by_pid(history, storms)
    absent = []
    for storm, number, pid, status, _ in ran:
        lives = children[storm.pid].get(pid, [])
        if [wait_status(life) for life in lives] != [status]:
            absent.append((number, pid))
    return absent


@pytest.fixture
def own(database: Path) -> Iterator[Recording]:
    with Recording(database) as recording:
        yield recording


def test_a_storm_is_recorded_to_the_last_process(history: History) -> None:
    with two_storms("storm", 2000) as storms:
        ran = said_by(storms)
    wait_for_all(history, [pid for _, _, pid, _, _ in ran], storms[0].since_ns)
    assert len(ran) == 4000
    assert missing(history, storms, ran) == []
    children = by_pid(history, storms)
    assert sum(len(mine) for mine in children.values()) == 4000
    described = 0
    for storm, number, pid, _, _ in ran:
        (life,) = children[storm.pid][pid]
        assert life["exec_count"] == 1
        assert life["ppid"] == storm.pid
        program = ("/bin/true", "/bin/false")[number % 2]
        tag = "ab"[storms.index(storm)]
        if life["exec_source"] != "none" and life["argv"] is not None:
            assert life["command_line"] == f"{program} storm-{tag}-{number}"
            described += 1
    assert described >= 0.995 * len(ran)


def test_a_capture_replayed_gives_the_same_rows(database: Path, tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    with Recording(database, "--capture", capture) as recording:
        with two_storms("captured", 50) as storms:
            ran = said_by(storms)
        with Acting("change_ids", "all", "3") as ids:
            ids.said()
        with Acting("exec_by_a_thread_after_the_leader") as executed:
            executed.said()
        with Acting("rename") as renamed:
            renamed.said()
        assert recording.stop() == 0, recording.said
    replayed = tmp_path / "replayed.db"
    result = run_prochist("replay", capture, "--db", replayed)
    assert result.returncode == 0, result.stderr
    spawners = [storm.pid for storm in storms]
    ours = [pid for _, _, pid, _, _ in ran] + [*spawners, ids.pid, executed.pid, renamed.pid]
    with History(database) as live, History(replayed) as again:
        for pid in ours:
            lives = live.lives(pid, storms[0].since_ns)
            assert len(lives) == 1
            assert again.lives(pid, storms[0].since_ns) == lives
            for view in ("execs", "id_changes", "events"):
                statement = f"SELECT * FROM {view} WHERE process_id = ? ORDER BY id"  # noqa: S608
                recorded, repeated = (
                    [{**row, "id": 0} for row in each.ask(statement, lives[0]["id"])]
                    for each in (live, again)
                )
                assert repeated == recorded


def test_two_recorders_on_two_databases_do_not_disturb_each_other(
    history: History, own: Recording
) -> None:
    with two_storms("twice", 200) as storms:
        ran = said_by(storms)
    wait_for_all(history, [pid for _, _, pid, _, _ in ran], storms[0].since_ns)
    assert missing(history, storms, ran) == []
    assert own.stop() == 0, own.said
    with History(own.database) as other:
        assert missing(other, storms, ran) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_stop_loses_nothing(own: Recording, number: int) -> None:
    with two_storms("stop", 300) as storms:
        ran = said_by(storms)
        assert own.stop(number) == 0, own.said
    assert "nothing lost" in own.said
    with History(own.database) as history:
        assert missing(history, storms, ran) == []


@pytest.mark.parametrize("how", ["closed", "interrupted"])
def test_a_terminal_that_ends_loses_nothing(database: Path, how: str) -> None:
    terminal, ours = os.openpty()
    prefix = (sys.executable, "-I", "-S", str(ACTOR), "lead_a_session")
    recording = Recording(database, prefix=prefix, terminal=ours)
    os.close(ours)
    try:
        with recording:
            with two_storms("terminal", 200) as storms:
                ran = said_by(storms)
                if how == "closed":
                    os.close(terminal)
                else:
                    os.write(terminal, b"\x03")  # reaches the receiver as well
                assert recording.process.wait(20) == 0
            with History(database) as history:
                assert missing(history, storms, ran) == []
    finally:
        if how != "closed":
            os.close(terminal)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_receiver_that_dies_or_hangs_is_replaced_and_nothing_is_lost(
    own: Recording, number: int
) -> None:
    with History(own.database) as history:
        (receiver,) = own.receivers(history)
        with two_storms("receiver", 1500) as storms:
            time.sleep(0.5)
            at_ns = time.time_ns()
            os.kill(receiver["pid"], number)
            ran = said_by(storms)
        wait_for_all(history, [pid for _, _, pid, _, _ in ran], storms[0].since_ns)
        assert missing(history, storms, ran) == []
        assert max(over for *_, over in ran) > at_ns, "the storm was over before"
        _, second = own.receivers(history)
        assert second["started_at_ns"] - at_ns < REPLACED_WITHIN_NS
        assert wait_status(history.ended(receiver["pid"], receiver["started_at_ns"])) == 9
        gaps = history.ask("SELECT * FROM gaps WHERE until_at_ns >= ?", at_ns)
        assert [gap for gap in gaps if gap["lost"] != 0] == []
    assert own.stop() == 0
    assert "nothing lost" in own.said


def test_a_recorder_that_is_killed_lacks_the_last_flush_interval_at_most(own: Recording) -> None:
    with Acting("fork_without_exec") as lasting, two_storms("killed", 1500) as storms:
        parent, child = lasting.said()
        with History(own.database) as history:
            before = [history.life(pid, lasting.since_ns)["id"] for pid in (parent, child)]
        time.sleep(0.8)
        at_ns = time.time_ns()
        own.process.kill()
        own.process.wait()
        with contextlib.closing(sqlite3.connect(own.database)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Recording(own.database) as second:
            ready_ns = time.time_ns()
            with Acting("storm", "again", "100") as after:
                again = [(after, *each) for each in after.said()["ran"]]
            ran = said_by(storms)
            with History(own.database) as history:
                wait_for_all(history, [pid for _, _, pid, _, _ in again], ready_ns)
                lives = [
                    life for pid in (parent, child) for life in history.lives(pid, lasting.since_ns)
                ]
            assert [life["id"] for life in lives] == before
            assert {life["state"] for life in lives} == {"running"}
            assert second.stop() == 0, second.said
    old = [each for each in ran if each[4] < at_ns - FLUSH_NS]
    assert old, "the storm had not begun"
    with History(own.database) as history:
        assert missing(history, storms, old) == []
        assert missing(history, [after], again) == []
