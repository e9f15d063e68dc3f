"""``prochist query`` as a user types it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.history_builder import BOOT_ID, SECOND, T0, HistoryBuilder

PROCHIST = (sys.executable, "-m", "prochist")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "history.db"
    builder = HistoryBuilder(path)
    builder.boot("0b0b0b0b-1111-4222-8333-444444444444", at_ns=T0 - 86_400 * SECOND)
    boot = builder.boot(BOOT_ID)
    shell = builder.image(["bash", "-l"])
    ann = builder.origin(1000, "ann", tty="pts/0")
    builder.life(100, T0, None, None, image=shell, origin=ann, boot=boot, ppid=1)
    for number in range(150):
        builder.life(
            200 + number,
            T0 + (10 + number) * SECOND,
            T0 + (11 + number) * SECOND,
            [0, 256, 9][number % 3],
            image=builder.image(["grep", f"word{number}", "\x1b[31m.txt"]),
            parent_id=1,
            ppid=100,
            boot=boot,
        )
    builder.recording(T0, T0 + 1000 * SECOND)
    builder.gap(T0 + 300 * SECOND, T0 + 310 * SECOND, lost=812)
    builder.close()
    return path


def prochist(path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PROCHIST_DB": str(path), "TZ": "UTC"} | environ
    environment.pop("COLUMNS", None) if "COLUMNS" not in environ else None
    return subprocess.run(
        [*PROCHIST, *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_the_newest_hundred_are_shown_oldest_first_and_stderr_says_so(path: Path) -> None:
    done = prochist(path, "query")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) == 101
    assert "word50 " in lines[1]
    assert "word149" in lines[-1]
    assert "the newest 100 only" in done.stderr
    assert "\x1b" not in done.stdout


def test_a_window_shows_all_of_it(path: Path) -> None:
    done = prochist(path, "query", "-S", f"@{T0 // SECOND}", "-U", f"@{T0 // SECOND + 200}")
    assert len(done.stdout.splitlines()) == 152
    assert done.stderr == "151 processes · complete\n"


def test_stderr_says_what_is_missing(path: Path) -> None:
    window = ("-S", f"@{T0 // SECOND}", "-U", f"@{T0 // SECOND + 400}")
    done = prochist(path, "query", *window, "--require-complete")
    assert done.stderr == "151 processes · NOT complete: 1 gap, 10 s, 812 events lost\n"
    assert done.returncode == 4
    assert prochist(path, "query", *window).returncode == 0


def test_nothing_matched_is_1(path: Path) -> None:
    done = prochist(path, "query", "-c", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("0 processes")
    assert prochist(path, "query", "-c", "nobody", "-o", "jsonl").stdout == ""
    assert (
        json.loads(prochist(path, "query", "-c", "nobody", "-o", "json").stdout)["processes"] == []
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-S", "soon"], "not a time: 'soon'"),
        (["--alive-at", "2026-02-30"], "not a time"),
        (["--min-duration", "long"], "not a duration"),
        (["-g", "("], "not a regular expression"),
        (["--exit", "256"], "not an exit status"),
        (["--signal", "OUCH"], "not a signal"),
        (["-p", "sh"], "not a pid"),
        (["-p", "-1"], "not a pid"),
        (["-p", "9" * 30], "not a pid"),
        (["-n", "0"], "not a number of rows"),
        (["--sort", "size"], "no such column"),
        (["--fields", "pid,size"], "no such column"),
        (["-b", "-7"], "no boot '-7'"),
        (["-S", "now", "-U", "yesterday"], "--since is later"),
        (["--descendants-of", "me"], "not a process"),
        (["-o", "xml"], "'xml' is not one of"),
        (["--wrong"], "No such option"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_nonsense_is_a_usage_error(path: Path, arguments: list[str], words: str) -> None:
    done = prochist(path, "query", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_error_is_one_line_and_a_hint(path: Path) -> None:
    error, hint = prochist(path, "query", "-S", "soon").stderr.splitlines()
    assert error == "Error: not a time: 'soon'"
    assert hint.startswith("Hint: accepted: now, today")


def test_a_missing_database_is_3(tmp_path: Path) -> None:
    done = prochist(tmp_path / "none.db", "query")
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == f"Error: there is no database at {tmp_path / 'none.db'}"
    assert "prochist record" in done.stderr
    other = prochist(tmp_path, "query", "--db", str(tmp_path))
    assert "is a directory" in other.stderr


def test_json_carries_the_verdict(path: Path) -> None:
    window = ("-S", f"@{T0 // SECOND}", "-U", f"@{T0 // SECOND + 400}")
    found = json.loads(prochist(path, "query", *window, "-o", "json").stdout)
    assert list(found) == ["since", "until", "complete", "gaps", "processes"]
    assert found["since"] == "2026-09-21T14:13:20.000000Z"
    assert found["until"] == "2026-09-21T14:20:00.000000Z"
    assert found["complete"] is False
    assert found["gaps"][0]["kind"] == "overrun"
    assert found["gaps"][0]["lost"] == 812
    assert len(found["processes"]) == 151
    assert found["processes"][0]["argv"] == '["bash","-l"]'
    some = json.loads(prochist(path, "query", *window, "-o", "json", "--fields", "pid").stdout)
    assert some["processes"][0] == {"pid": 100}
    assert prochist(path, "query", "-o", "json", "-p", "100").stdout.count("\n{") == 1


def test_each_form_shows_the_same_processes(path: Path) -> None:
    pids = [str(pid) for pid in range(345, 350)]
    end = ("-n", "5")
    jsonl = prochist(path, "query", *end, "-o", "jsonl").stdout.splitlines()
    assert [str(json.loads(line)["pid"]) for line in jsonl] == pids
    table = csv.DictReader(io.StringIO(prochist(path, "query", *end, "-o", "csv").stdout))
    assert [row["pid"] for row in table] == pids
    tsv = prochist(path, "query", *end, "-o", "tsv", "--no-header", "--fields", "pid,comm").stdout
    assert tsv.splitlines() == [f"{pid}\tgrep" for pid in pids]
    long = prochist(path, "query", *end, "-o", "long").stdout
    assert [f"pid {pid} " in long for pid in pids] == [True] * 5
    fields = prochist(path, "query", *end, "--fields", "pid,exit_code").stdout.splitlines()
    assert fields[0].split() == ["pid", "exit_code"]
    assert [line.split()[0] for line in fields[1:]] == pids


def test_order_and_number_are_the_users(path: Path) -> None:
    def pids(*arguments: str) -> list[int]:
        text = prochist(path, "query", "-o", "tsv", "--no-header", "--fields", "pid", *arguments)
        return [int(line) for line in text.stdout.splitlines()]

    assert pids("-n", "3") == [347, 348, 349]
    assert pids("-n", "3", "-r") == [349, 348, 347]
    assert pids("-n", "2", "--sort", "pid", "-r") == [349, 348]
    assert len(pids("-n", "all")) == 151
    assert prochist(path, "query", "--count", "--failed").stdout == "100\n"


def test_filters_are_read_as_the_help_says(path: Path) -> None:
    def count(*arguments: str) -> int:
        return int(prochist(path, "query", "--count", *arguments).stdout)

    assert count("--running") == 1
    assert count("--exit", "1", "-g", "word1 ") == 1
    assert count("--signal", "KILL") == 50
    assert count("--user", "ann", "--tty", "pts/0") == 1
    assert count("-p", "200", "-p", "201") == 2
    assert count("--descendants-of", "100") == 150
    assert count("--ancestors-of", "id:5") == 1
    assert count("--min-duration", "1h") == 1
    assert count("-b") == count("-b", "0") == count("--boot", BOOT_ID) == 151
    assert count("-b", "-1") == count("--boot=-1") == count("-b-1") == 0
    assert count("-b", "-c", "bash") == 1
    assert count("--alive-at", f"@{T0 // SECOND + 10}") == 2


def test_times_are_read_in_the_local_zone_unless_utc_is_asked_for(path: Path) -> None:
    at = ("--alive-at", "2026-09-21 16:13:20")
    assert prochist(path, "query", *at, TZ="Europe/Berlin").stdout.count("\n") == 2
    assert "16:13:20" in prochist(path, "query", *at, TZ="Europe/Berlin").stdout
    found = prochist(
        path, "query", "--alive-at", "14:13:20", "-n", "1", "--utc", TZ="Europe/Berlin"
    )
    assert "14:13:20" in found.stdout


@pytest.mark.parametrize("columns", ["1", "40", "80", "200"])
def test_a_table_fits_the_terminal(path: Path, columns: str) -> None:
    done = prochist(path, "query", "-n", "20", COLUMNS=columns)
    assert max(len(line) for line in done.stdout.splitlines()) <= int(columns)


@pytest.mark.parametrize("form", ["table", "long", "json", "jsonl", "csv"])
def test_a_closed_pipe_is_quiet(path: Path, form: str) -> None:
    with subprocess.Popen(
        [*PROCHIST, "query", "-n", "all", "-o", form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PROCHIST_DB": str(path)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written: the first write fails
        stderr = process.stderr.read().decode()
    assert "Traceback" not in stderr
    assert "Broken pipe" not in stderr
    assert process.returncode in (0, 1)


def test_a_full_disk_is_said(path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROCHIST, "query", "-n", "all", "-o", "jsonl"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PROCHIST_DB": str(path)},
            check=False,
        )
    assert "Error: " in done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_any_locale_will_do(path: Path) -> None:
    for locale in ({"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = prochist(path, "query", "-n", "2", **locale)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_jsonl_imports_nothing_that_it_does_not_need(path: Path) -> None:
    script = (
        "import sys; from prochist.cli.main import run; run(['query', '-o', 'jsonl', '-n', '1'])\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PROCHIST_DB": str(path)},
        check=True,
    )
    loaded = set(done.stderr.split())
    assert "prochist.show.records" in loaded
    unwanted = {
        "tabulate", "apsw.ext", "apsw.shell", "asyncio", "ctypes", "fractions",
        "prochist.show.table", "prochist.show.long", "prochist.show.listing",
        "prochist.ask.patterns", "prochist.capture", "prochist.history", "prochist.service",
    }  # fmt: skip
    assert loaded & unwanted == set()
