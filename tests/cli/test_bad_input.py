"""What users and hosts do to a history and to those who ask it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.command import PROCHIST, environment, run
from tests.history_builder import SECOND, T0, HistoryBuilder

MANY = 100_000
AT = f"@{T0 // SECOND}"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Make a history in which nothing was ever recorded."""
    path = tmp_path / "history.db"
    HistoryBuilder(path).close()
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "history.db"
    builder = HistoryBuilder(path)
    image = builder.image(["true", "x" * 60])
    builder.life(1, T0, T0 + SECOND, 0, image=image)
    names = [row[1] for row in builder.db.execute("PRAGMA table_info (lifetime)")]
    changed = {"id": "n", "started_at_ns": "started_at_ns + n", "ended_at_ns": "ended_at_ns + n"}
    columns = ", ".join(changed.get(name, name) for name in names)
    numbers = "WITH RECURSIVE c (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < ?)"
    copies = f"INSERT INTO lifetime SELECT {columns} FROM c, lifetime WHERE id = 1"  # noqa: S608
    builder.db.execute(f"{numbers} {copies}", (MANY,))
    builder.recording()
    builder.close()
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("query",), ("query", "-o", "json"), ("query", "-o", "csv"), ("query", "--count"),
        ("query", "-g", "x"), ("query", "--alive-at", "now"), ("ps",), ("tree",), ("tree", "1"),
        ("show", "1"), ("report",), ("boots",), ("report", "-o", "json"),
        ("sql", "SELECT * FROM processes"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_history_matches_nothing(empty: Path, command: tuple[str, ...]) -> None:
    done = run(empty, *command)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    if command == ("query", "-o", "json"):
        assert json.loads(done.stdout)["complete"] is False


@pytest.mark.parametrize(
    "window",
    [
        ("query", "--since", "1h", "--until", "2h"),
        ("query", "--exited-since", "now", "--exited-until", "-1s"),
        ("query", "--started-since", "tomorrow", "--started-until", "today"),
        ("report", "--since", "today", "--until", "yesterday"),
    ],
)
def test_an_impossible_window_is_a_usage_error(empty: Path, window: tuple[str, ...]) -> None:
    done = run(empty, *window)
    assert done.returncode == 2
    assert "since is later than --" in done.stderr
    assert done.stderr.endswith("Hint: exchange them\n")


@pytest.mark.parametrize("time", ["25:00", "2026-02-30", "1 fortnight", "", "@x", "noon", "1e9"])
def test_what_is_no_time_is_refused_with_what_is(empty: Path, time: str) -> None:
    for command in (("query", "--since"), ("ps", "--at"), ("tree", "--at"), ("report", "-S")):
        done = run(empty, *command, time)
        assert done.returncode == 2, command
        assert done.stderr.startswith("Error: not a time: ")
        assert "Hint: accepted: now, today" in done.stderr


def test_a_time_that_the_clock_jumped_over_is_as_far_behind_the_jump(empty: Path) -> None:
    found = [
        json.loads(run(empty, "query", "-S", time, "-o", "json", TZ="Europe/Berlin").stdout)
        for time in ("2026-03-29 02:30", "2026-03-29 03:30")
    ]
    assert found[0]["since"] == found[1]["since"] == "2026-03-29T01:30:00.000000Z"


def test_a_history_may_be_pruned_while_it_is_read(large: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(large.read_bytes())
    process = subprocess.Popen(
        [*PROCHIST, "query", "-n", "all", "-o", "jsonl", "--fields", "id,command_line"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(copy),
    )
    assert process.stdout is not None
    first = process.stdout.readline()  # it is under way, and cannot go on: the pipe is full
    builder = HistoryBuilder(copy)
    builder.db.execute("DELETE FROM lifetime")
    builder.close()
    lines = [first, *process.stdout]
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    process.stderr.close()
    assert len(lines) == MANY
    assert all(json.loads(line)["command_line"].startswith("true x") for line in lines[::999])
    assert errors.startswith(f"{MANY:,} processes")
    assert run(copy, "query").returncode == 1


def test_many_rows_into_a_closed_pipe_end_at_once_and_quietly(large: Path) -> None:
    for form in ("jsonl", "table", "csv", "json"):
        process = subprocess.Popen(
            [*PROCHIST, "query", "-n", "all", "-o", form],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(large),
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()


def peak_kib(path: Path, *arguments: str) -> int:
    """Return the largest resident set of a command."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        process = subprocess.Popen(
            [*PROCHIST, *arguments], stdout=nowhere, stderr=nowhere, env=environment(path)
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv", "table", "json", "long"])
def test_memory_does_not_grow_with_the_rows(large: Path, form: str) -> None:
    few = peak_kib(large, "query", "-S", AT, "-U", f"{AT}.000001", "-o", form)
    many = peak_kib(large, "query", "-S", AT, "-o", form)
    assert many < few + 12_000, (few, many)


def test_hostile_arguments_reach_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    builder = HistoryBuilder(path)
    evil = ["\x1b]0;owned\x07", "\r\n", "\u202egpj.exe", "\x9b2J", "\x7f", "a\tb"]
    image = builder.image(evil, exe="/tmp/\x1b[31m", comm="\x1b[2J", cwd="/\n")  # noqa: S108
    origin = builder.origin(1000, "\x1b[1m", unit="\x07.service", tty="\x1b[0m")
    builder.life(7, T0, T0 + SECOND, 256, image=image, origin=origin, exec_count=1, exec_at_ns=T0)
    builder.life(8, T0, None, None, image=image, origin=origin, parent_id=1)
    builder.recording()
    builder.close()
    for command in (
        ("query",), ("query", "-o", "long"), ("query", "--fields", "argv,exe,comm,unit,cwd"),
        ("ps",), ("tree", "7"), ("show", "7"), ("report", "-S", AT, "-U", f"@{T0 // SECOND + 9}"),
        ("sql", "SELECT command_line, exe FROM processes"),
    ):  # fmt: skip
        done = run(path, *command)
        assert done.returncode == 0, command
        shown = done.stdout.replace("\n", "")
        assert shown.isprintable(), (command, shown)
