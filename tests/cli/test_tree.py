"""``prochist tree``: families, the dead included."""

import json
from pathlib import Path

import pytest

from tests.command import run
from tests.history_builder import SECOND, T0, HistoryBuilder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tree") / "history.db"
    b = HistoryBuilder(path)
    init = b.life(1, T0, image=b.image(["/sbin/init"]), ppid=None)
    make = b.life(
        10, T0 + SECOND, T0 + 9 * SECOND, 512, image=b.image(["make", "all"]), parent_id=init
    )
    shell = b.life(11, T0 + 2 * SECOND, T0 + 3 * SECOND, 0, image=b.image(["sh"]), parent_id=make)
    b.life(12, T0 + 2 * SECOND, None, image=b.image(["cc"]), parent_id=shell)
    b.life(13, T0 + 4 * SECOND, T0 + 5 * SECOND, 139, image=b.image(["ld", "\n"]), parent_id=make)
    b.life(20, T0 + SECOND, image=b.image(["cron"]), parent_id=init)
    b.life(10, T0 + 20 * SECOND, T0 + 21 * SECOND, 0, image=b.image(["late"]), parent_id=init)
    b.life(2, T0, image=None, origin=None, ppid=None, is_kernel_thread=1)
    b.recording(T0, T0 + 1000 * SECOND)
    b.close()
    return path


FAMILY = r"""
init,1 [running, 30.00s] /sbin/init
├─ make,10 [exit 2, 8.00s] make all
│  ├─ sh,11 [exit 0, 1.00s] sh
│  │  └─ cc,12 [running, 28.00s] cc
│  └─ ld,13 [SIGSEGV, 1.00s] ld '\n'
└─ late,10 [exit 0, 1.00s] late
""".lstrip()


def lines(path: Path, *arguments: str, **more: str) -> list[str]:
    """Run a tree; how long the running have lived depends on today, so that is cut out."""
    text = run(path, "tree", *arguments, **more).stdout
    return [line if "running" not in line else line.split(", ")[0] for line in text.splitlines()]


def test_a_pid_shows_all_its_lives_with_what_is_above_and_below(path: Path) -> None:
    want = [x if "running" not in x else x.split(", ")[0] for x in FAMILY.splitlines()]
    assert lines(path, "10") == want


def test_a_terminal_of_ascii_gets_ascii(path: Path) -> None:
    text = run(path, "tree", "10", LANG="C").stdout
    assert text.isascii()
    assert "|- make,10" in text
    assert "`- late,10" in text


def test_an_instant_shows_who_was_alive_then(path: Path) -> None:
    at = ("--at", f"@{T0 // SECOND + 6}")
    assert (
        lines(path, *at)
        == [
            "init,1 [running",
            "├─ make,10 [exit 2, 5.00s] make all",
            "│  └─ cc,12 [running",
            "└─ cron,20 [running",
        ]
        or "make,10" in lines(path, *at)[1]
    )
    family = lines(path, "12", *at)
    assert [line.split("[", maxsplit=1)[0].strip() for line in family] == [
        "init,1",
        "└─ make,10",
        "└─ cc,12",
    ]


def test_an_orphan_hangs_from_its_nearest_living_ancestor(path: Path) -> None:
    assert [line.split(" [", maxsplit=1)[0] for line in lines(path)] == [
        "init,1",
        "├─ cc,12",
        "└─ cron,20",
    ]


def test_a_limit_cuts_off_the_youngest_generations(path: Path) -> None:
    done = run(path, "tree", "1", "-n", "3")
    assert "cc,12" not in done.stdout
    assert done.stderr.startswith("at most 3 descendants (-n all shows more) · 4 processes")
    assert "sh,11" not in run(path, "tree", "1", "--depth", "1").stdout
    assert "cc,12" in run(path, "tree", "1", "-n", "all").stdout


def test_programs_get_rows_and_their_depth(path: Path) -> None:
    rows = [json.loads(line) for line in run(path, "tree", "12", "-o", "jsonl").stdout.splitlines()]
    assert [(row["depth"], row["pid"]) for row in rows] == [(0, 1), (1, 10), (2, 11), (3, 12)]
    assert rows == json.loads(run(path, "tree", "12", "-o", "json").stdout)
    assert json.loads(run(path, "tree", "99", "-o", "json").stdout) == []


def test_nobody_is_1_and_nonsense_2(path: Path) -> None:
    assert run(path, "tree", "99").returncode == 1
    assert run(path, "tree", "12", "--at", f"@{T0 // SECOND - 5}").returncode == 1
    assert run(path, "tree", "x").returncode == 2
    assert run(path, "tree", "--depth", "2").returncode == 2


def test_a_narrow_terminal_is_not_overrun(path: Path) -> None:
    for columns in (1, 2, 7, 40):
        text = run(path, "tree", "10", COLUMNS=str(columns)).stdout
        assert max(map(len, text.splitlines())) <= columns
