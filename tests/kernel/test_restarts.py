"""A recorder that starts again in the same boot: lives go on, or ended while nobody looked."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.live import PATIENCE_S, Acting, History, Recording

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_lives_go_on_under_the_same_id_or_are_closed_with_an_interval(
    database: Path, number: int
) -> None:
    with Acting("fork_without_exec") as earlier, Acting("execute_when_told", "/bin/cat") as other:
        _, child = earlier.said()
        other.said()
        with Recording(database) as first:  # noqa: SIM117 - the actors end before the recorder
            with Acting("rename") as ending, Acting("rename") as staying:
                ending.said()
                staying.said()
                with History(database) as history:
                    same = [
                        history.life(actor.pid, actor.since_ns)["id"] for actor in (earlier, other)
                    ]
                    found = history.life(staying.pid, staying.since_ns, comm="(a)\n\\xff) R 1")
                    mortal = history.life(ending.pid, ending.since_ns, comm="(a)\n\\xff) R 1")
                    known = history.life(child, earlier.since_ns)
                first.stop(number)
                stopped_ns = time.time_ns()
                ending.process.kill()
                ending.process.wait()
                ended_ns = time.time_ns()
                with Acting("rename") as meanwhile:
                    meanwhile.said()
                    with Recording(database) as second, History(database) as history:
                        life = history.ended(ending.pid, ending.since_ns)
                        assert life["id"] == mortal["id"]
                        assert life["end_source"] == "resync"
                        assert life["state"] == "unknown"
                        assert (life["exit_code"], life["term_signal"]) == (None, None)
                        assert life["ended_after_ns"] <= ended_ns <= life["ended_at_ns"]
                        if number == signal.SIGTERM:
                            assert life["ended_after_ns"] >= stopped_ns - 2_000_000_000
                        assert history.life(staying.pid, staying.since_ns) == found
                        assert history.life(child, earlier.since_ns) == known
                        assert [
                            history.life(actor.pid, actor.since_ns)["id"]
                            for actor in (earlier, other)
                        ] == same
                        new = history.life(meanwhile.pid, meanwhile.since_ns)
                        assert new["start_source"] == "scan"
                        assert new["state"] == "running"
                        assert second.stop() == 0, second.said


def test_a_program_executed_while_nobody_looked_is_described_anew(database: Path) -> None:
    with Acting("execute_when_told", "/bin/cat", "-u") as actor:
        actor.said()
        with Recording(database) as first, History(database) as history:
            before = history.life(actor.pid, actor.since_ns)
            assert first.stop() == 0, first.said
        actor.go_on()
        until = time.monotonic() + 10
        while Path(f"/proc/{actor.pid}/exe").readlink() != Path("/bin/cat").resolve():
            assert time.monotonic() < until
            time.sleep(0.005)
        with Recording(database) as second, History(database) as history:
            after = history.life(actor.pid, actor.since_ns, command_line="/bin/cat -u")
            assert after["id"] == before["id"]
            assert after["comm"] == "cat"
            assert second.stop() == 0, second.said


@pytest.fixture
def few_processes() -> Iterator[Path]:
    """Make a cgroup in which the number of processes can be limited."""
    for place in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = place / f"prochist-test-{os.getpid()}"
        if not os.access(place / "cgroup.procs", os.W_OK):
            continue
        group.mkdir()
        try:
            if (group / "pids.max").exists():
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no cgroup that limits processes can be made here")


def wait_until_said(recording: Recording, words: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while words not in recording.said:
        assert time.monotonic() < until, recording.said
        time.sleep(0.02)


def test_a_host_without_a_free_pid_is_waited_for_and_nothing_is_lost(
    database: Path, few_processes: Path
) -> None:
    with Recording(database) as recording, History(database) as history:
        (few_processes / "cgroup.procs").write_text(str(recording.pid))
        (few_processes / "pids.max").write_text("1")  # the recorder is there, and nobody else
        (receiver,) = [life["pid"] for life in recording.receivers(history)]
        os.kill(receiver, signal.SIGKILL)
        wait_until_said(recording, "the receiver cannot be started: Resource temporarily")
        since_ns = time.time_ns()
        made = [subprocess.Popen(["/bin/true", str(number)]) for number in range(50)]
        for child in made:
            child.wait()
        time.sleep(1)
        assert recording.process.poll() is None
        (few_processes / "pids.max").write_text("max")
        wait_until_said(recording, "the receiver is started")
        for number, child in enumerate(made):
            life = history.ended(child.pid, since_ns)
            assert life["command_line"] == f"/bin/true {number}"
        assert recording.said.count("cannot be started") == 1
        assert recording.stop() == 0, recording.said
        assert "nothing lost" in recording.said
