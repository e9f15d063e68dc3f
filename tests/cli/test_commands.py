"""The smaller commands, and what all commands have in common."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from prochist import __version__
from prochist.cli.main import prochist as group
from prochist.cli.main import run
from prochist.store.database import migrations
from tests.history_builder import SECOND, T0, HistoryBuilder

PROCHIST = (sys.executable, "-m", "prochist")


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "history.db"
    builder = HistoryBuilder(path)
    shell = builder.image(["bash", "-l"], exe="/bin/bash")
    worker = builder.image(["work", "\x1b]0;title\x07"], exe="/opt/work")
    ann = builder.origin(1000, "ann", login_uid=1000, login_user="ann", session=3)
    first = builder.life(100, T0, T0 + 50 * SECOND, 0, image=shell, origin=ann)
    second = builder.life(
        101,
        T0 + SECOND,
        T0 + 3 * SECOND,
        139,
        image=worker,
        parent_id=first,
        ppid=100,
        exec_count=2,
        exec_at_ns=T0 + 2 * SECOND,
        cpu_user_us=1_500_000,
        cpu_system_us=20_000,
        max_rss_kib=2048,
        read_bytes=4096,
        write_bytes=0,
    )
    builder.insert(
        "earlier_exec", lifetime=second, ordinal=1, at_ns=T0 + SECOND, image=shell, exec_source=2
    )
    builder.insert("id_change", lifetime=second, at_ns=T0 + SECOND, kind=0, real=0, effective=0)
    builder.insert("event", lifetime=second, at_ns=T0 + 2 * SECOND, kind=4)
    builder.life(102, T0 + 2 * SECOND, T0 + 2 * SECOND, 0, parent_id=second, ppid=101)
    builder.life(101, T0 + 60 * SECOND, None, None, image=shell)
    builder.recording(
        T0,
        T0 + 100 * SECOND,
        facts={
            "receiver": "SCHED_RR 5",
            "sources": {"execs": "bpf"},
            "receive_buffer_bytes": 64 << 20,
        },
    )
    builder.gap(T0 + 10 * SECOND, T0 + 11 * SECOND, lost=7)
    builder.close()
    monkeypatch.setenv("PROCHIST_DB", str(path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return path


def typed(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run(arguments)
    out, err = capfd.readouterr()
    return status, out, err


def test_show_tells_a_life_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capfd, "show", "id:2")
    assert status == 0
    assert err == "1 process · complete\n"
    for words in (
        "× work · pid 101 · id 2",  # noqa: RUF001
        "Command: work '\\x1b]0;title\\x07'",
        "killed by SIGSEGV, core dumped, after 2.00s",
        "CPU 1.50s user, 20ms system; memory 2.0M; read 4.0K, written 0",
        "    100  bash -l",
        "2026-09-21 14:13:21  bash -l",
        "uid 0, effective 0",
        "coredump",
        "    102  2026-09-21 14:13:22  0        true",
    ):
        assert words in out, out
    assert "\x1b" not in out


def test_show_by_pid_shows_all_its_lives(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capfd, "show", "101", "-o", "json")
    lives = json.loads(out)
    assert status == 0
    assert [life["id"] for life in lives] == [2, 4]
    assert [e["command_line"] for e in lives[0]["execs"]] == ["bash -l", "work '\x1b]0;title\x07'"]
    assert lives[0]["parents"][0]["pid"] == 100
    assert lives[0]["children_count"] == 1
    assert err.startswith("2 processes · NOT complete")  # one runs, and no recorder watches it


def test_show_of_nobody_is_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert typed(capfd, "show", "99999")[0] == 1
    assert typed(capfd, "show", "99999", "-o", "json")[1] == "[]\n"
    status, _, err = typed(capfd, "show", "bash")
    assert status == 2
    assert err.startswith("Error: not a process: 'bash'\nHint: ")


def test_status_of_a_recorder_that_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(capfd, "status")
    assert status == 3
    assert "Recorder: stopped at 2026-09-21 14:15:00" in out
    assert "Receiver: SCHED_RR 5" in out
    assert "Sources: execs bpf" in out
    assert "Receive buffer bytes: 64M" in out
    assert "890 with their command line (98.89 %)" in out


def test_status_of_a_recorder_that_is_alive(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock = Path(f"{path}.lock")
    lock.write_text("4711")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, out, _ = typed(capfd, "status")
        assert status == 0
        assert "alive, pid 4711" in out
        known = json.loads(typed(capfd, "status", "-o", "json")[1])
    assert known["recording"] is True
    assert known["recorder"]["facts"]["receiver"] == "SCHED_RR 5"
    assert known["gaps"] == 1
    assert known["running"] == 1
    assert known["lifetimes_ever"] == 4


def test_status_of_an_empty_history(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    HistoryBuilder(tmp_path / "empty.db").close()
    status, out, _ = typed(capfd, "status", "--db", str(tmp_path / "empty.db"))
    assert status == 3
    assert "nothing was ever recorded here" in out
    status, out, _ = typed(capfd, "status", "--db", str(tmp_path / "empty.db"), "-o", "json")
    assert json.loads(out)["recorder"] is None


def test_boots_are_numbered_as_boot_counts_them(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(capfd, "boots")
    assert status == 0
    newest = out.splitlines()[1].split()
    assert newest[:3] == ["0", "0a0a0a0a-1111-4222-8333-444444444444", "2026-09-21"]
    assert json.loads(typed(capfd, "boots", "-o", "jsonl")[1])["host"] == "builder"


def test_gaps_are_listed_with_their_losses(capfd: pytest.CaptureFixture[str]) -> None:
    window = ("-S", f"@{T0 // SECOND}", "-U", f"@{T0 // SECOND + 100}")
    status, out, err = typed(capfd, "gaps", *window)
    assert status == 0
    assert out.splitlines()[1].split()[4:] == ["1.00s", "overrun", "7"]
    assert err == "NOT complete: 1 gap, 1 s, 7 events lost\n"
    status, out, err = typed(capfd, "gaps", "-S", f"@{T0 // SECOND}", "-U", f"@{T0 // SECOND + 5}")
    assert (status, out, err) == (1, "", "complete\n")
    assert json.loads(typed(capfd, "gaps", *window, "-o", "jsonl")[1])["lost"] == 7


def test_sql_answers_in_each_form(capfd: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT pid, exit_code FROM processes ORDER BY id LIMIT 2"
    assert typed(capfd, "sql", statement)[1] == "pid  exit_code\n100          0\n101\n"
    assert typed(capfd, "sql", statement, "-o", "csv")[1] == "pid,exit_code\n100,0\n101,\n"
    assert json.loads(typed(capfd, "sql", statement, "-o", "json")[1])[0] == {
        "pid": 100,
        "exit_code": 0,
    }
    assert typed(capfd, "sql", statement, "-o", "long")[1].startswith(
        "      pid: 100\nexit_code: 0\n\n"
    )
    assert typed(capfd, "sql", statement, "-o", "tsv", "--no-header")[1] == "100\t0\n101\t\n"


def test_sql_says_what_went_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capfd, "sql", "DELETE FROM lifetime")
    assert (status, out) == (2, "")
    assert err.startswith("Error: not permitted")
    assert typed(capfd, "sql", "SELECT 1 WHERE 0", "-o", "json")[:2] == (1, "[]\n")
    assert typed(capfd, "sql", "SELECT 1", "--timeout", "soon")[0] == 2


def test_schema_prints_the_documented_ddl(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(capfd, "schema")
    assert status == 0
    assert out == "".join(m.sql for m in migrations())


def test_every_command_has_help_and_so_has_each_option() -> None:
    context = click.Context(group)
    names = group.list_commands(context)
    assert {"query", "show", "status", "boots", "gaps", "sql", "schema"} <= set(names)
    for name in names:
        command = group.get_command(context, name)
        assert command is not None
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"
        shown = CliRunner().invoke(command, ["--help"])
        assert shown.exit_code == 0
        assert "Usage:" in shown.output


def test_the_version_is_the_packages(capfd: pytest.CaptureFixture[str]) -> None:
    assert typed(capfd, "--version") == (0, f"prochist, version {__version__}\n", "")


def test_an_unknown_command_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = typed(capfd, "qeury")
    assert status == 2
    assert "No such command 'qeury'" in err


def test_ctrl_c_is_quiet(path: Path) -> None:
    endless = (
        "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
    )
    with subprocess.Popen(
        [*PROCHIST, "sql", endless, "--timeout", "20", "--db", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        time.sleep(1)
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stderr.strip() == b""


def test_record_pays_for_nothing_that_only_asking_needs() -> None:
    script = (
        "import sys; from prochist.cli.main import prochist\n"
        "import click; prochist.get_command(click.Context(prochist), 'record')\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "tabulate" not in loaded
    assert not [name for name in loaded if name.startswith(("prochist.ask", "prochist.show"))]


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run([*PROCHIST, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: prochist [OPTIONS] COMMAND")
