"""``contrib/bench/history``: a small one, by which the large ones can be believed."""

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.command import run

MAKE = Path(__file__).resolve().parent.parent / "contrib" / "bench" / "history"
UNTIL = 1_790_000_000


def make(path: Path, lives: int, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(MAKE), str(lives), str(path), "--until", str(UNTIL), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "history.db"
    said = make(path, 1000, "--running", "50")
    assert "lifetimes in" in said
    assert "a lifetime, everything included" in said
    return path


def test_it_has_what_was_asked_for(path: Path) -> None:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    lives = db.execute("SELECT count(*) FROM processes WHERE is_kernel_thread = 0").get
    assert 1000 <= lives <= 1500
    assert db.execute("SELECT count(*) FROM boots").get == 5
    assert db.execute("SELECT count(*) FROM gaps WHERE kind = 'down'").get == 4
    assert db.execute("SELECT count(*) FROM running").get >= 50
    span = "SELECT (max(ended_at_ns) - min(started_at_ns)) / 86400e9 FROM lifetime"
    assert 25 < db.execute(span).get <= 30
    states = dict(db.execute("SELECT state, count(*) FROM processes GROUP BY state"))
    assert {"running", "exited", "unknown"} <= states.keys()
    users = {row[0] for row in db.execute("SELECT DISTINCT user FROM processes")}
    assert {"root", "ci", "www-data"} <= users
    described = "SELECT avg(exec_source = 'bpf') FROM processes WHERE is_kernel_thread = 0"
    assert db.execute(described).get > 0.7
    db.close()


def test_the_same_seed_gives_the_same_history(path: Path, tmp_path: Path) -> None:
    make(tmp_path / "again.db", 1000, "--running", "50")
    columns = "id, pid, parent_id, started_at_ns, ended_at_ns, exit_code, command_line, unit"
    found = []
    for file in (path, tmp_path / "again.db"):
        db = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        found.append(list(db.execute(f"SELECT {columns} FROM processes ORDER BY id")))  # noqa: S608
        db.close()
    assert found[0] == found[1]


def test_an_existing_file_is_left_alone(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(MAKE), "10", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is there already" in done.stderr


def test_every_question_has_an_answer_in_it(path: Path) -> None:
    for question in (
        ("query", "-n", "5"), ("ps",), ("tree",), ("boots",), ("gaps",), ("query", "--failed"),
        ("report", "-S", "@1789900000", "-U", f"@{UNTIL}"), ("query", "--alive-at", "@1789000000"),
        ("query", "-u", "cron"), ("query", "--user", "ci"),
    ):  # fmt: skip
        assert run(path, *question).returncode == 0, question
