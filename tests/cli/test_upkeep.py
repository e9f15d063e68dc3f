"""The commands that keep a history in bounds and trust, as a user calls them."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest

from prochist.cli.bounds import CONFIGURATION, LEAST_SIZE, read_configuration
from prochist.cli.main import prochist as group
from prochist.errors import ProchistError
from prochist.store.database import open_reader, open_writer
from tests.history_builder import SECOND, T0, HistoryBuilder

SAMPLE = Path(__file__).resolve().parent.parent.parent / "contrib/prochist.toml"
DATA = Path(__file__).resolve().parent.parent / "data"
DAY = 86_400 * SECOND


def prochist(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prochist", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Two old lives, a running one and its old parent."""
    builder = HistoryBuilder(tmp_path / "history.db")
    parent = builder.life(9, T0, T0 + 1, 0)
    builder.life(10, T0, T0 + 1, 0)
    builder.life(11, T0, T0 + 2, 9)
    builder.life(12, T0, parent_id=parent)
    builder.recording()
    builder.close()
    return builder.path


@pytest.fixture
def options() -> set[str]:
    context = click.Context(group, info_name="prochist")
    command = group.get_command(context, "record")
    assert command is not None
    return {p.name for p in command.params if p.name is not None}


def lives(path: Path) -> int:
    with closing(open_reader(path)) as db:
        return int(db.execute("SELECT count(*) FROM lifetime").get)


def test_a_dry_run_counts_and_changes_nothing(history: Path) -> None:
    done = prochist("prune", "--db", history, "--keep", "1us", "--dry-run", "--utc")
    assert done.returncode == 0
    assert "would remove 2 lives" in done.stderr
    assert "1 ancestors" in done.stderr
    assert lives(history) == 4


def test_pruning_removes_and_says_how_much(history: Path) -> None:
    # The history of a test lies in the future of some clocks: any age above 0 keeps it there.
    done = prochist("prune", "--db", history, "--keep", "1us")
    assert done.returncode == 0, done.stderr
    assert "2 lives removed" in done.stderr
    assert lives(history) == 2
    again = prochist("prune", "--db", history, "--keep", "1us")
    assert again.returncode == 1
    assert prochist("verify", "--db", history).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "nothing says what to remove"),
        (["--max-size", "1M"], "too small"),
        (["--max-size", "many"], "is not a size"),
        (["--keep", "soon"], "soon"),
        (["--keep", "0s"], "more than nothing"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    history: Path, arguments: list[str], word: str
) -> None:
    done = prochist("prune", "--db", history, *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert lives(history) == 4


def test_pruning_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    done = prochist("prune", "--db", tmp_path / "none.db", "--keep", "1d")
    assert done.returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_limits_come_from_the_configuration_and_the_command_line_wins(
    history: Path, tmp_path: Path
) -> None:
    configuration = tmp_path / "prochist.toml"
    configuration.write_text('keep = "1us"\nredact = ["x+y"]\n')
    done = prochist("prune", "--db", history, "--config", configuration, "--dry-run")
    assert "would remove 2" in done.stderr
    done = prochist("prune", "--db", history, "--config", configuration, "--keep", "90y")
    assert "0 lives removed" in done.stderr


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("keep = ", "is not TOML"),
        ('color = "red"', "'color'"),
        ('database = "/x"', "'database'"),
        ('keep = "never"', "keep"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(
    history: Path, tmp_path: Path, text: str, word: str
) -> None:
    configuration = tmp_path / "prochist.toml"
    configuration.write_text(text)
    done = prochist("prune", "--db", history, "--config", configuration, "--dry-run")
    assert done.returncode in (2, 3)
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_named_but_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProchistError, match="cannot read"):
        read_configuration(tmp_path / "none.toml", set())
    assert Path("/etc/prochist.toml") == CONFIGURATION


def test_every_line_of_the_sample_can_be_used(tmp_path: Path, options: set[str]) -> None:
    sample = SAMPLE.read_text(encoding="utf-8")
    lines = [line[2:] for line in sample.splitlines() if line.startswith("# ") and " = " in line]
    assert len(lines) >= 8
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert set(read_configuration(file, options)) >= {"keep", "max_size", "redact"}
    untouched = tmp_path / "sample.toml"
    untouched.write_text(sample, encoding="utf-8")
    assert read_configuration(untouched, options) == {}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--redact", "("], "is not a regular expression"),
        (["--max-size", "31M"], "too small"),
        (["--keep", "-1"], "keep"),
    ],
)
def test_record_refuses_bounds_that_make_no_sense_before_it_begins(
    tmp_path: Path, arguments: list[str], word: str
) -> None:
    done = prochist("record", "--db", tmp_path / "h.db", *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert not (tmp_path / "h.db").exists()


def test_a_replay_overwrites_secrets_like_a_recording(tmp_path: Path) -> None:
    capture = DATA / "linux-6.18-lives-bpf.capture"
    database = tmp_path / "h.db"
    assert prochist("replay", capture, "--db", database, "--redact", "(").returncode == 2
    done = prochist("replay", capture, "--db", database, "--redact", r"^\S+ (.*)")
    assert done.returncode == 0
    shown = prochist(
        "sql", "--db", database, "SELECT DISTINCT argv ->> 1 AS second FROM execs", "-o", "csv"
    )
    assert set(shown.stdout.split()[1:]) <= {"[redacted]"}


def test_verify_exits_3_and_names_what_is_wrong(history: Path) -> None:
    with closing(open_writer(history)) as db:
        db.execute("UPDATE lifetime SET started_at_ns = ended_at_ns + 1 WHERE pid = 10")
    done = prochist("verify", "--db", history)
    assert done.returncode == 3
    assert "1 wrong    no end before the start" in done.stdout
    assert "life 2 ends before it starts" in done.stdout
    found = json.loads(prochist("verify", "--db", history, "-o", "json").stdout)
    assert sum(finding["found"] for finding in found) == 1


def test_a_snapshot_can_be_asked_like_the_original(history: Path, tmp_path: Path) -> None:
    done = prochist("snapshot", tmp_path / "copy.db", "--db", history)
    assert done.returncode == 0, done.stderr
    assert prochist("verify", "--db", tmp_path / "copy.db").returncode == 0
    assert prochist("snapshot", tmp_path / "copy.db", "--db", history).returncode == 3


def test_status_tells_metrics_also_of_a_recorder_that_is_gone(history: Path) -> None:
    done = prochist("status", "--db", history, "--metrics")
    assert done.returncode == 3
    assert "prochist_up 0\n" in done.stdout
    assert "prochist_events_total 5000\n" in done.stdout
    assert done.stdout.endswith("# EOF\n")


def test_the_least_size_is_what_the_help_says() -> None:
    assert LEAST_SIZE == 32 << 20
    assert "At least 32M" in prochist("record", "--help").stdout
