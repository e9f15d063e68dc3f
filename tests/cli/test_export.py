"""``prochist export``: finished lives, once each, in files that real engines read."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from prochist.ask.processes import COLUMNS
from prochist.cli.main import run
from tests.history_builder import SECOND, T0, HistoryBuilder, fill

duckdb = pytest.importorskip("duckdb", reason="contrib/check has it for one Python only")
pyarrow_dataset = pytest.importorskip(
    "pyarrow.dataset", reason="contrib/check has it for one Python only"
)

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PROCHIST = (sys.executable, "-m", "prochist")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.db"
    builder = HistoryBuilder(path)
    fill(builder, 3_000)
    builder.close()
    return path


def export(history: Path, folder: Path, *more: str) -> int:
    partition = ("--format", "parquet", "--partition", str(folder))
    return run(("export", "--db", str(history), *partition, *more))


def in_duckdb(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    view = (CHECKOUT / "contrib/fleet/duckdb.sql").read_text(encoding="utf-8")
    with duckdb.connect() as db:
        db.execute(view.replace("EXPORT_DIR", str(folder)))
        found: list[tuple[Any, ...]] = db.execute(sql).fetchall()
    return found


def ids(folder: Path) -> list[int]:
    return sorted(row[0] for row in in_duckdb(folder, "SELECT id FROM processes"))


def in_sqlite(history: Path, sql: str) -> list[tuple[Any, ...]]:
    db = apsw.Connection(str(history), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(db.execute(sql))
    finally:
        db.close()


FINISHED = f"SELECT {', '.join(COLUMNS)} FROM processes WHERE end_source IS NOT NULL ORDER BY id"  # noqa: S608


def test_the_view_of_duckdb_gives_what_the_view_of_sqlite_gives(
    history: Path, tmp_path: Path
) -> None:
    assert export(history, tmp_path / "out") == 0
    expected = in_sqlite(history, FINISHED)
    assert len(expected) > 2_900
    names = ", ".join(COLUMNS)
    got = in_duckdb(tmp_path / "out", f"SELECT {names} FROM processes ORDER BY id")  # noqa: S608
    assert got == expected


def test_pyarrow_reads_the_layout_and_its_days(history: Path, tmp_path: Path) -> None:
    export(history, tmp_path / "out")
    found = pyarrow_dataset.dataset(tmp_path / "out", partitioning="hive").to_table()
    assert found.num_rows == len(in_sqlite(history, FINISHED))
    assert set(found["host"].to_pylist()) == {"builder"}
    days = set(zip(found["date"].to_pylist(), found["ended_at_ns"].to_pylist(), strict=True))
    assert all(time.strftime("%F", time.gmtime(ns // SECOND)) == day for day, ns in days)


def test_what_is_still_running_waits_until_it_has_ended(tmp_path: Path) -> None:
    history, out = tmp_path / "history.db", tmp_path / "out"
    builder = HistoryBuilder(history)
    builder.life(10, T0, None, batch=1)
    builder.life(11, T0, T0 + SECOND, 0, batch=2)
    builder.close()
    assert export(history, out) == 0
    assert ids(out) == [2]
    write(history, f"UPDATE lifetime SET ended_at_ns = {T0 + 5}, end_source = 1, wait_status = 0,"  # noqa: S608
          " batch = 3 WHERE id = 1")  # fmt: skip
    assert export(history, out, "--incremental") == 0
    assert ids(out) == [1, 2]
    assert export(history, out, "--incremental") == 1
    assert ids(out) == [1, 2]


def test_a_life_that_is_written_once_more_is_not_exported_twice(tmp_path: Path) -> None:
    history, out = tmp_path / "history.db", tmp_path / "out"
    builder = HistoryBuilder(history)
    builder.life(10, T0, T0 + SECOND, 0, batch=5)
    builder.close()
    export(history, out)
    write(history, "UPDATE lifetime SET cpu_user_us = 7, batch = 6 WHERE id = 1")
    assert export(history, out, "--incremental") == 1
    assert ids(out) == [1]


def write(history: Path, sql: str) -> None:
    db = apsw.Connection(str(history))
    db.execute(sql)
    db.close()


@pytest.fixture
def recorder(history: Path) -> Iterator[None]:
    """Hold the lock that a recorder holds."""
    with Path(f"{history}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@pytest.mark.usefixtures("recorder")
def test_while_a_recorder_runs_what_is_written_again_during_the_export_is_left_for_the_next(
    history: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("export", "--db", history, "--format", "parquet", "--partition", out)
    with subprocess.Popen([*PROCHIST, *arguments], stderr=subprocess.PIPE) as running:
        time.sleep(1.5)  # it waits for 3 s
        write(history, "UPDATE lifetime SET batch = 2, cpu_user_us = 1 WHERE id = 7")
        running.communicate()
    assert running.returncode == 0
    assert 7 not in ids(out)
    assert export(history, out, "--incremental") == 0
    assert ids(out) == [row[0] for row in in_sqlite(history, FINISHED)]


def test_a_second_export_into_the_same_directory_is_refused(
    history: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / ".prochist").mkdir(parents=True)
    with (out / ".prochist/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert export(history, out) == 3
    assert "in use by another export" in capfd.readouterr().err
    assert export(history, out) == 0
    assert export(history, out) == 3
    error = capfd.readouterr().err
    assert "holds an export already" in error
    assert "--incremental" in error


def test_another_history_does_not_go_into_the_same_directory(
    history: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(history, "UPDATE counter SET batch = 7")
    export(history, tmp_path / "out")
    other = tmp_path / "other.db"
    HistoryBuilder(other).close()
    assert export(other, tmp_path / "out", "--incremental") == 3
    assert f"holds an export of {history}" in capfd.readouterr().err
    for suffix in ("", "-wal", "-shm"):
        Path(f"{history}{suffix}").rename(tmp_path / f"away.db{suffix}")
        Path(f"{other}{suffix}").rename(f"{history}{suffix}")
    assert export(history, tmp_path / "out", "--incremental") == 3
    assert "longer history" in capfd.readouterr().err


@pytest.mark.parametrize("blocks", [40, 100])
def test_a_full_disk_is_an_error_that_leaves_nothing_and_the_next_export_is_whole(
    history: Path, tmp_path: Path, blocks: int
) -> None:
    """A limit on the size of files stands for the disk: write(2) fails in the same places."""
    out = tmp_path / "out"
    command = 'ulimit -f "$1"; shift; exec "$@"'
    arguments = ("export", "--db", history, "--format", "parquet", "--partition", out)
    done = subprocess.run(
        ["/bin/bash", "-c", command, "-", str(blocks), *PROCHIST, *arguments],
        capture_output=True,
        text=True,
        check=False,
        # The limit would hit what measures coverage as well.
        env={name: text for name, text in os.environ.items() if not name.startswith("COVERAGE")},
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") <= 2
    assert f"Error: {out}: file too large" in done.stderr
    assert list(out.rglob("*.parquet")) == []
    assert export(history, out) == 0
    assert ids(out) == [row[0] for row in in_sqlite(history, FINISHED)]


def test_an_export_that_is_killed_while_it_writes_counts_not_at_all(
    history: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    leavings = out / ".prochist/new/host=builder/date=2026-01-01/old.parquet"
    leavings.parent.mkdir(parents=True)
    leavings.write_bytes(b"half a file")
    assert export(history, out) == 0
    assert not leavings.exists()
    assert ids(out) == [row[0] for row in in_sqlite(history, FINISHED)]


@pytest.mark.parametrize("renamed", [0, 1])
def test_an_export_that_is_killed_while_it_renames_is_finished_by_the_next(
    history: Path, tmp_path: Path, renamed: int
) -> None:
    out, own = tmp_path / "out", tmp_path / "out/.prochist"
    export(history, out)
    expected = ids(out)
    # Turn the clock back to where everything was written and nothing, or one file, renamed.
    files = [str(path.relative_to(out)) for path in sorted(out.glob("host=*/*/*.parquet"))]
    assert files
    for name in files[renamed:]:
        (own / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).rename(own / "new" / name)
    state = json.loads((own / "state.json").read_text())
    (own / "state.json").unlink()
    (own / "commit.json").write_text(json.dumps({"files": files, "state": state}))
    assert export(history, out, "--incremental") == 1
    assert ids(out) == expected
    assert not (own / "commit.json").exists()


def test_a_damaged_state_is_named(
    history: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(history, tmp_path / "out")
    (tmp_path / "out/.prochist/state.json").write_text("{")
    assert export(history, tmp_path / "out", "--incremental") == 3
    assert "state.json is damaged" in capfd.readouterr().err


def test_filters_choose_what_is_exported_but_not_together_with_incremental(
    history: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert export(history, tmp_path / "out", "--user", "ann", "--failed") == 0
    rows = in_duckdb(tmp_path / "out", "SELECT DISTINCT user, exit_code = 0 FROM processes")
    assert {row[0] for row in rows} == {"ann"}
    assert (("ann", True)) not in rows
    assert export(history, tmp_path / "new", "--user", "ann", "--incremental") == 2
    assert "--incremental takes everything" in capfd.readouterr().err
    assert export(history, tmp_path / "none", "--user", "nobody-of-that-name") == 1


def test_hostile_names_and_texts_come_out_as_they_went_in(tmp_path: Path) -> None:
    history, out = tmp_path / "history.db", tmp_path / "out"
    builder = HistoryBuilder(history)
    argv = ["sh", "-c", "\x1b]0;x\x07 \\xff 'quo\"te'\n\t", "", "x" * 2_000_000]
    image = builder.image(argv)
    boot = builder.boot("0b0b0b0b-1111-4222-8333-444444444444", host="../a=b/c d%\n")
    builder.life(10, T0, T0 + SECOND, 0, image=image, boot=boot)
    builder.life(11, None, T0 + SECOND, None, image=None, origin=None, boot=boot, end_source=2)
    builder.close()
    assert export(history, out) == 0
    names = ", ".join(COLUMNS)
    got = in_duckdb(out, f"SELECT {names} FROM processes ORDER BY id")  # noqa: S608
    assert got == in_sqlite(history, FINISHED)
    assert {path.name for path in out.iterdir()} == {".prochist", "host=..%2Fa%3Db%2Fc%20d%25%0A"}


def test_what_a_fleet_copies_together_has_no_two_files_of_one_name(
    history: Path, tmp_path: Path
) -> None:
    export(history, tmp_path / "one")
    export(history, tmp_path / "two")
    files = [{path.name for path in (tmp_path / n).glob("host=*/*/*")} for n in ("one", "two")]
    assert not files[0] & files[1]
