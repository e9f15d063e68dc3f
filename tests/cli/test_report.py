"""``prochist report``: each part names what was put into the history to stand out."""

import json
import shlex
from pathlib import Path

import pytest

from tests.command import run
from tests.history_builder import SECOND, T0, HistoryBuilder

DAY = 86_400
AT = T0 + DAY * SECOND


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "history.db"
    b = HistoryBuilder(path)
    service = b.origin(0, "root", unit="mailer.service", cgroup="/system.slice/mailer.service")
    init = b.life(1, T0, image=b.image(["/sbin/init"]), ppid=None)
    cron = b.life(2, T0, image=b.image(["cron"]), parent_id=init)
    b.life(3, T0 + SECOND, T0 + 2 * SECOND, 0, image=b.image(["true"]), parent_id=cron)
    # In the window: a loop of restarts, a storm, something heavy, something new.
    for n in range(6):
        begin = AT + n * 10 * SECOND
        b.life(
            100 + n, begin, begin + SECOND, 256 if n < 5 else 134, image=b.image(["mailer"]),
            parent_id=init, origin=service, sid=0, exec_count=1,
        )  # fmt: skip
    script = b.life(200, AT, AT + 90 * SECOND, 0, image=b.image(["script"]), parent_id=cron)
    for n in range(70):
        begin = AT + n * SECOND // 2
        b.life(
            300 + n, begin, begin + SECOND // 4, 0, image=b.image(["true"]), parent_id=script,
            ppid=200, exec_count=1,
        )  # fmt: skip
    b.life(
        500, AT, AT + 50 * SECOND, 9, image=b.image(["novel", "\x1b[2J"]), parent_id=cron,
        cpu_user_us=40_000_000, cpu_system_us=2_000_000, max_rss_kib=4_000_000,
    )  # fmt: skip
    b.recording(T0, AT + 1000 * SECOND)
    b.close()
    return path


WINDOW = ("--since", f"@{AT // SECOND}", "--until", f"@{AT // SECOND + 900}")


def test_every_part_finds_what_is_there(path: Path) -> None:
    found = json.loads(run(path, "report", *WINDOW, "-o", "json").stdout)
    assert found["complete"] is True
    assert found["lives"] == 78
    assert found["started"][0] == {"lives": 70, "failed": 0, "program": "/usr/bin/true"}
    failed = {"lives": 5, "of": 6, "exit_code": 1, "signal": None, "program": "/usr/bin/mailer"}
    assert found["failed"][0] == failed
    assert {"exit_code": None, "signal": "SIGABRT"}.items() <= found["failed"][1].items()
    heavy = {"cpu_s": 42.0, "max_rss_bytes": 4_096_000_000, "lives": 1, "program": "/usr/bin/novel"}
    assert found["costly"] == [heavy]
    assert found["greedy"] == [heavy]
    (storm,) = found["storms"]
    assert (storm["lives"], storm["parent_pid"], storm["parent"]) == (70, 200, "/usr/bin/script")
    assert (storm["median_s"], storm["program"]) == (0.25, "/usr/bin/true")
    (loop,) = found["loops"]
    assert (loop["lives"], loop["rate_per_min"], loop["median_s"]) == (6, 6.0, 1.0)
    assert (loop["ends"], loop["unit"]) == ("1 x5, SIGABRT x1", "mailer.service")
    new = [row["program"] for row in found["new"]]
    assert sorted(new) == ["/usr/bin/mailer", "/usr/bin/novel", "/usr/bin/script"]


def test_the_command_below_a_table_shows_the_rows_of_its_first_line(path: Path) -> None:
    text = run(path, "report", *WINDOW).stdout
    commands = [line.strip() for line in text.splitlines() if line.startswith("  prochist query")]
    assert len(commands) == 7
    counts = []
    for command in commands:
        arguments = shlex.split(command)[1:]
        done = run(path, *arguments, "--count")
        assert done.returncode == 0, (command, done.stderr)
        counts.append(int(done.stdout))
    # started, failed, CPU and memory (the 20 largest of all), storm, loop, new
    assert counts[:2] == [70, 5]
    assert counts[4:6] == [70, 6]


def test_people_see_tables_without_escapes(path: Path) -> None:
    done = run(path, "report", *WINDOW)
    for title in (
        "Most started", "Most failed", "Most CPU", "Most memory", "Storms of short lives",
        "Restart loops", "New executables",
    ):  # fmt: skip
        assert f"{title}\n" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == "78 processes · complete\n"


def test_what_has_nothing_before_it_is_not_called_new(path: Path) -> None:
    found = json.loads(run(path, "report", "--since", f"@{T0 // SECOND}", "-o", "json").stdout)
    assert found["new"] is None


def test_nothing_is_1_and_a_window_upside_down_2(path: Path) -> None:
    assert run(path, "report", "--since", "1s").returncode == 1
    done = run(path, "report", "--since", "now", "--until", "1h")
    assert done.returncode == 2
    assert done.stderr == "Error: --since is later than --until\nHint: exchange them\n"


def test_a_narrow_terminal_is_not_overrun(path: Path) -> None:
    for columns in (1, 20, 40):
        text = run(path, "report", *WINDOW, COLUMNS=str(columns)).stdout
        assert max(map(len, text.splitlines())) <= columns
