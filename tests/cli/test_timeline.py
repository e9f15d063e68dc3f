"""``prochist timeline``: its options, its forms, and what it says at the end."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prochist.ask.timeline import COLUMNS
from prochist.cli.main import run
from tests.history_builder import SECOND, T0, HistoryBuilder, fill
from tests.story import story

UNTIL = ("--until", f"@{T0 // SECOND + 1050}")  # while it was recorded
PROCHIST = (sys.executable, "-m", "prochist")


@pytest.fixture(autouse=True)
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "history.db"
    story(path)
    monkeypatch.setenv("PROCHIST_DB", str(path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return path


def typed(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run(("timeline", *arguments))
    out, err = capfd.readouterr()
    return status, out, err


def test_text_is_the_default_and_stderr_says_what_may_be_missing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, out, err = typed(capfd)
    assert status == 0
    assert "┌ started  bash -l" in out
    assert err.startswith("21 events · NOT complete: ")


def test_json_is_one_object_and_jsonl_and_csv_have_the_same_rows(
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = typed(capfd, *UNTIL, "-o", "json")
    found = json.loads(out)
    assert found["complete"] is False
    assert len(found["gaps"]) >= 2
    _, out, _ = typed(capfd, *UNTIL, "-o", "jsonl")
    assert [json.loads(line) for line in out.rstrip("\n").split("\n")] == found["events"]
    assert tuple(found["events"][0]) == COLUMNS
    _, out, _ = typed(capfd, *UNTIL, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [row["event"] for row in rows] == [event["event"] for event in found["events"]]
    assert [row["command_line"] for row in rows] == [
        event["command_line"] or "" for event in found["events"]
    ]


@pytest.mark.parametrize("form", ["timesketch", "ecs", "perfetto", "html"])
def test_every_form_for_other_programs_can_be_had(
    capfd: pytest.CaptureFixture[str], form: str
) -> None:
    status, out, _ = typed(capfd, "-o", form)
    assert status == 0
    assert "bash -l" in out


@pytest.mark.parametrize(
    "form", ["text", "json", "jsonl", "csv", "timesketch", "ecs", "perfetto", "html"]
)
def test_a_window_with_no_rows_is_said_in_every_form(
    capfd: pytest.CaptureFixture[str], form: str
) -> None:
    window = ("--since", "@1790000200", "--until", "@1790000300")
    status, out, err = typed(capfd, *window, "-o", form)
    # The page shows lives, and some were alive; the others show what happened.
    assert status == (0 if form == "html" else 1)
    assert "NOT complete: 1 gap" in err
    if form in {"json", "perfetto"}:
        json.loads(out)
    status, out, err = typed(capfd, "--comm", "no such", "-o", form)
    assert status == 1


def test_options_that_would_do_nothing_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = typed(capfd, "--flows")
    assert status == 2
    assert "--flows and --group mean nothing with -o text" in err
    assert typed(capfd, "-o", "perfetto", "--flows", "--group", "user")[0] == 0


def test_completeness_can_be_demanded(capfd: pytest.CaptureFixture[str]) -> None:
    window = ("--since", f"@{T0 // SECOND + 1}", "--until", f"@{T0 // SECOND + 20}")
    assert typed(capfd, *window, "--require-complete")[0] == 0
    assert typed(capfd, "--require-complete")[0] == 4


def test_the_text_stops_at_the_newest_hundred_lives_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.db"
    builder = HistoryBuilder(path)
    fill(builder, 300)
    builder.close()
    _, _, err = typed(capfd, "--db", str(path))
    assert err.startswith("the newest 100 lives only (-n all, or a time, shows others) · ")
    _, out, err = typed(capfd, "--db", str(path), "-o", "jsonl")
    assert len({json.loads(line)["process_id"] for line in out.splitlines()}) > 290
    _, out, _ = typed(capfd, "--db", str(path), "-o", "jsonl", "-n", "7")
    assert len({json.loads(line)["process_id"] for line in out.splitlines()} - {None}) == 7


def peak_mib(path: Path, out: Path) -> int:
    with out.open("wb") as file:
        arguments = (*PROCHIST, "timeline", "--db", path, "-o", "timesketch")
        process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss // 1024


def test_memory_does_not_grow_with_the_history(tmp_path: Path) -> None:
    peaks = []
    for lives in (3_000, 30_000):
        path = tmp_path / f"{lives}.db"
        builder = HistoryBuilder(path)
        fill(builder, lives)
        builder.close()
        peaks.append(peak_mib(path, tmp_path / "out"))
    assert peaks[1] < peaks[0] + 12


def test_the_first_events_come_before_the_last_are_read(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    builder = HistoryBuilder(path)
    fill(builder, 20_000)
    builder.close()
    arguments = (*PROCHIST, "timeline", "--db", path, "-o", "jsonl")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] in {"boot", "started", "ended"}
        process.stdout.close()
        assert process.wait(20) == 0
