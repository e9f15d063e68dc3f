"""What a person at a terminal meets: the pager, signs of life, Ctrl-C, narrow windows, ASCII."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from prochist.cli.screen import Ticker, pager_command, speaks_utf8
from tests.command import PROCHIST, Terminal, environment, run
from tests.history_builder import SECOND, T0, HistoryBuilder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "history.db"
    builder = HistoryBuilder(path)
    for number in range(2000):
        begin = T0 + number * SECOND
        image = builder.image(["grep", f"word{number}", "…"])
        builder.life(300 + number, begin, begin + SECOND, 0, image=image)
    builder.recording()
    builder.close()
    return path


@pytest.fixture
def pager(tmp_path: Path) -> str:
    """Write a pager that says who it is and what it was told."""
    script = tmp_path / "pager"
    script.write_text('#!/bin/sh\necho "PAGED LESS=$LESS SECURE=$LESSSECURE"\ncat\n')
    script.chmod(0o755)
    return str(script)


def test_a_terminal_gets_the_pager(path: Path, pager: str) -> None:
    seen = Terminal(path, "query", PAGER=pager).end()
    assert seen.text.startswith("PAGED LESS=FRX SECURE=\n")
    assert "word1999" in seen.text
    assert seen.status == 0
    for command in (("ps",), ("tree", "300"), ("report",)):
        assert Terminal(path, *command, PAGER=pager).end().text.startswith("PAGED")


def test_less_is_told_only_what_the_user_has_not(path: Path, pager: str) -> None:
    seen = Terminal(path, "query", "-n", "1", PAGER=pager, LESS="S", SUDO_UID="7").end()
    assert seen.text.startswith("PAGED LESS=S SECURE=1\n")


def test_no_pager_where_none_is_wanted(path: Path, pager: str) -> None:
    assert "PAGED" not in Terminal(path, "query", "--no-pager", PAGER=pager).end().text
    assert "PAGED" not in Terminal(path, "query", "-o", "jsonl", PAGER=pager).end().text
    assert "PAGED" not in run(path, "query", PAGER=pager).stdout
    for none in ("", "cat", "/does/not/exist"):
        assert "word1999" in Terminal(path, "query", "-n", "2", PAGER=none).end().text


def test_a_pager_that_is_left_early_is_no_error(path: Path) -> None:
    seen = Terminal(path, "query", "-n", "all", PAGER="head -n 3").end()
    assert seen.status == 0
    assert "Traceback" not in seen.text
    assert "Error" not in seen.text


def test_the_pager_command_is_words() -> None:
    assert pager_command({}) == ["less"]
    assert pager_command({"PAGER": "more -s"}) == ["more", "-s"]
    assert pager_command({"PAGER": "'"}) is None


@pytest.mark.parametrize(
    ("environ", "yes"),
    [
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LC_ALL": "C", "LANG": "C.UTF-8"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),  # as Python itself leaves it
        ({"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, True),
        ({}, False),
    ],
)
def test_the_locale_says_what_can_be_shown(environ: dict[str, str], *, yes: bool) -> None:
    assert speaks_utf8(environ) is yes


def test_ascii_is_all_that_the_locale_c_gets(path: Path) -> None:
    for command in (
        ("query", "-n", "1"),
        ("query", "-n", "1", "-o", "long"),
        ("ps",),
        ("tree", "300"),
    ):
        done = run(path, *command, LANG="C", COLUMNS="60")
        assert done.stdout.isascii(), command
        assert done.stderr.isascii(), command
    jsonl = run(path, "query", "-n", "1", "-o", "jsonl", LANG="C")
    assert "…" in jsonl.stdout  # JSON is UTF-8, whoever asks


COMMANDS = [
    ("query", "-n", "5"),
    ("query", "-n", "2", "-o", "long"),
    ("query", "-n", "2", "--fields", "id,exe"),
    ("ps", "--at", f"@{T0 // SECOND}"),
    ("tree", "300"),
    ("show", "300"),
    ("boots",),
    ("gaps",),
    ("report", "-S", f"@{T0 // SECOND}", "-U", f"@{T0 // SECOND + 9}"),
    ("status",),
]


@pytest.mark.parametrize("columns", [1, 2, 10, 40, 200])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_line_is_wider_than_the_terminal(
    path: Path, command: tuple[str, ...], columns: int
) -> None:
    shown = run(path, *command, COLUMNS=str(columns)).stdout
    assert shown
    assert max(map(len, shown.splitlines())) <= columns


def test_the_width_is_that_of_the_terminal(path: Path) -> None:
    seen = Terminal(path, "query", "-n", "5", columns=30, PAGER="", NO_COLOR="1").end()
    lines = seen.text.splitlines()[:6]
    assert {len(line) for line in lines[1:]} <= {28, 29, 30}


def test_progress_appears_after_a_second_and_goes_away() -> None:
    shown: list[str] = []
    clock = iter([0.0, 0.5, 1.0, 1.1, 1.3])
    ticker = Ticker(shown.append, lambda: next(clock))
    for _ in range(4):
        ticker.tick()
    assert len(shown) == 2
    assert shown[0] == "\r\x1b[Klooking for 1 s …"
    ticker.clear()
    assert shown[-1] == "\r\x1b[K"


ENDLESS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c"


def test_what_takes_long_says_so_on_a_terminal_only(path: Path) -> None:
    seen = Terminal(path, "sql", ENDLESS, "--timeout", "1.6s").end()
    assert "looking for 1 s" in seen.text
    assert "looking" not in run(path, "sql", ENDLESS, "--timeout", "1.3s").stderr


def test_ctrl_c_is_quiet(path: Path) -> None:
    process = subprocess.Popen(
        [*PROCHIST, "sql", ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(path),
    )
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


def test_a_closed_pipe_is_quiet(path: Path) -> None:
    for form in ("table", "jsonl", "csv", "json", "long"):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*PROCHIST, "query", "-n", "all", "-o", form],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(path),
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, ""), form
