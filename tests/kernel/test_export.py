"""Exports beside a live recorder: each life that ended, once."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel.live import History, Recording, run_prochist

pytestmark = pytest.mark.kernel
dataset = pytest.importorskip("pyarrow.dataset", reason="contrib/check has it for one Python only")


def test_nothing_is_exported_twice_or_skipped_while_processes_come_and_go(tmp_path: Path) -> None:
    database, out = tmp_path / "history.db", tmp_path / "out"
    to = ("--format", "parquet", "--partition", out, "--incremental", "--db", database)
    with Recording(database) as recording:
        for _ in range(2):
            with subprocess.Popen(["/bin/sh", "-c", "for i in $(seq 300); do /bin/true; done"]):
                time.sleep(0.2)
                done = run_prochist("export", *to)
            assert done.returncode == 0, done.stderr
        assert recording.stop() == 0
    assert run_prochist("export", *to).returncode == 0
    found = dataset.dataset(out, partitioning="hive").to_table(columns=["id", "ended_at_ns"])
    got = sorted(zip(*(found[name].to_pylist() for name in ("id", "ended_at_ns")), strict=True))
    with History(database) as history:
        rows = history.ask(
            "SELECT id, ended_at_ns FROM processes WHERE end_source IS NOT NULL ORDER BY id"
        )
    assert len(got) > 600
    assert got == [(row["id"], row["ended_at_ns"]) for row in rows]
