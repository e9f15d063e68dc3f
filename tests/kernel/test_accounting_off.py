"""Recording without accounting: everything but what a life cost."""

from pathlib import Path

import pytest

from tests.kernel.live import Acting, History, Recording, wait_for_all, wait_status

pytestmark = pytest.mark.kernel

COST = (
    "cpu_user_s", "cpu_system_s", "max_rss_bytes", "read_bytes", "write_bytes",
    "minor_faults", "major_faults", "voluntary_switches", "involuntary_switches",
)  # fmt: skip


def test_without_accounting_every_end_is_known_and_no_cost(database: Path) -> None:
    with Recording(database, "--no-accounting") as recording:
        assert "no taskstats: switched off (--no-accounting)" in recording.said
        with Acting("storm", "uncounted", "40") as storm:
            ran = storm.said()["ran"]
        with History(database) as history:
            wait_for_all(history, [pid for _, pid, _, _ in ran], storm.since_ns)
            for _, pid, status, _ in ran:
                (life,) = history.lives(pid, storm.since_ns)
                assert wait_status(life) == status
                assert {life[column] for column in COST} == {None}
