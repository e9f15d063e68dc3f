"""The doctor says what it finds wherever it runs, and its exit status is that of the worst."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prochist.service.doctor import Health, examine
from tests.history_builder import T0, HistoryBuilder


def doctor(*arguments: str | Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prochist", "doctor", *arguments],
        capture_output=True, text=True, check=False, user=user,
    )  # fmt: skip


def test_every_line_has_a_finding_and_every_fault_a_remedy(tmp_path: Path) -> None:
    lines = examine(tmp_path / "none.db")
    seen = {line.what for line in lines}
    assert {"kernel", "namespaces", "exec probe", "cost", "permissions", "scheduling"} <= seen
    assert {"/proc", "clock", "database", "disk"} <= seen
    for line in lines:
        assert line.finding
        if line.health is Health.DEGRADED:
            assert line.remedy


def test_the_exit_status_is_that_of_the_worst_line(tmp_path: Path) -> None:
    done = doctor("--db", tmp_path / "none.db", "-o", "json")
    lines = json.loads(done.stdout)
    worst = max(("ok", "degraded", "broken").index(line["health"]) for line in lines)
    assert done.returncode == (0, 1, 3)[worst]
    assert worst >= 1  # there is no database
    text = doctor("--db", tmp_path / "none.db")
    assert text.returncode == done.returncode
    assert "remedy: start: prochist record" in text.stdout


def test_a_history_that_is_no_database_is_broken(tmp_path: Path) -> None:
    (tmp_path / "h.db").write_text("no database at all, but some text that is long enough")
    (line,) = [line for line in examine(tmp_path / "h.db") if line.what == "database"]
    assert line.health is Health.BROKEN
    assert line.remedy


def test_a_history_without_a_recorder_and_open_to_everybody_is_degraded(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    builder.life(1, T0)
    builder.recording()
    builder.close()
    builder.path.chmod(0o644)
    found = {line.what: line for line in examine(builder.path)}
    assert found["recorder"].health is Health.DEGRADED
    assert found["permissions of it"].health is Health.DEGRADED
    assert found["history"].health is Health.OK


@pytest.mark.parametrize(("size", "health"), [(128 << 20, Health.OK), (1 << 16, Health.DEGRADED)])
def test_the_receive_buffer_is_compared_with_what_really_came(
    tmp_path: Path, size: int, health: Health
) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    builder.recording(T0, T0 + 100_000_000_000, facts={"receive_buffer_bytes": size})
    builder.close()
    (line,) = [line for line in examine(builder.path) if line.what == "rate"]
    assert line.health is health
    assert "50 events/s" in line.finding


def test_another_reader_is_named(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    builder.close()
    with (
        builder.path.open("rb") as opened,
        subprocess.Popen(["sleep", "30"], stdin=opened) as reader,
    ):
        try:
            found = {line.what: line for line in examine(builder.path)}
        finally:
            reader.kill()
    assert f"'sleep' ({reader.pid})" in found["other readers"].finding


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_without_capabilities_the_doctor_names_them() -> None:
    code = (
        "from prochist.capture.privileges import keep_only; keep_only([])\n"
        "from prochist.service.doctor import examine; from pathlib import Path\n"
        "for line in examine(Path('/nonexistent/x.db')): print(*line[:3])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "without CAP_DAC_READ_SEARCH" in done.stdout
    assert "scheduling 1" in done.stdout
    assert "exec probe 1" in done.stdout
