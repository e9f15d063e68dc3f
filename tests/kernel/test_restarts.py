"""A recorder that starts again in the same boot: lives go on, or ended while nobody looked."""

import signal
import time
from pathlib import Path

import pytest

from tests.kernel.live import Acting, History, Recording

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
