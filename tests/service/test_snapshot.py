"""A snapshot is whole, and an anonymised one tells no name."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from prochist.errors import ProchistError
from prochist.service.snapshot import snapshot
from prochist.service.verification import verify
from prochist.store.database import open_reader, open_writer
from tests.history_builder import SECOND, T0, HistoryBuilder

SECRETS = ("tresor", "anna", "it's me", "builder", "mühle", "prod-db-7", "pts/42", "grüße")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    builder = HistoryBuilder(tmp_path / "history.db")
    origin = builder.origin(
        1000, "anna", tty="pts/42", cgroup="/user.slice/prod-db-7.scope", unit="prod-db-7.scope"
    )
    argv = ["/opt/tresor/mühle", "--host=prod-db-7", "it's me", "grüße"]
    image = builder.image(argv, cwd="/home/anna")
    again = builder.image(["/opt/tresor/mühle", "--host=prod-db-7"])
    builder.life(10, T0, T0 + SECOND, 0, image=image, origin=origin)
    builder.life(11, T0, T0 + SECOND, 9, image=again, origin=builder.origin(0, "root"))
    builder.gap(T0, T0 + 1)
    builder.recording(facts={"missing": "on prod-db-7"})
    builder.close()
    return builder.path


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(open_reader(path)) as db:
        return db.execute(sql).fetchall()


def test_a_snapshot_has_everything_and_needs_no_other_file(history: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    told: list[tuple[int, int]] = []
    size = snapshot(history, target, anonymise=False, tell=lambda a, b: told.append((a, b)))
    assert size == target.stat().st_size
    assert rows(target, "SELECT * FROM processes") == rows(history, "SELECT * FROM processes")
    assert sorted(p.name for p in tmp_path.glob("*copy.db*")) == ["copy.db"] or not list(
        tmp_path.glob(".*part*")
    )
    assert told[-1][0] == told[-1][1] > 0
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_snapshot_is_of_one_instant_although_somebody_writes(
    history: Path, tmp_path: Path
) -> None:
    with closing(open_writer(history)) as db:

        def write(_done: int, _total: int) -> None:
            with db:
                db.execute("INSERT INTO text (hash, value) VALUES (0, 'later')")

        write(0, 0)
        snapshot(history, tmp_path / "copy.db", anonymise=False, tell=write)
    assert rows(tmp_path / "copy.db", "SELECT count(*) FROM text WHERE value = 'later'") == [(1,)]
    assert all(not finding.found for finding in verify(tmp_path / "copy.db"))


def test_an_anonymised_snapshot_holds_no_word_of_the_original(
    history: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db"
    snapshot(history, target, anonymise=True)
    content = target.read_bytes()
    for secret in SECRETS:
        assert secret.encode() not in content
    assert all(not finding.found for finding in verify(target))


def test_the_same_word_becomes_the_same_hash_and_the_rest_stays(
    history: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db"
    snapshot(history, target, anonymise=True)
    (first, second) = rows(
        target,
        "SELECT exe, user, state, term_signal, pid, duration_s FROM processes ORDER BY id",
    )
    assert first[0] == second[0]
    assert str(first[0]).count("/") == 3
    assert first[2:6] == ("exited", None, 10, 1.0)
    assert second[1:5] == ("root", "killed", 9, 11)
    (lines,) = zip(*rows(target, "SELECT command_line FROM processes ORDER BY id"), strict=True)
    assert str(lines[0]).startswith(str(lines[1]))
    assert "--" in str(lines[1])


def test_two_snapshots_have_different_keys(history: Path, tmp_path: Path) -> None:
    names = []
    for number in range(2):
        target = tmp_path / f"copy-{number}.db"
        snapshot(history, target, anonymise=True)
        names.append(rows(target, "SELECT exe FROM processes LIMIT 1"))
    assert names[0] != names[1]


def test_nothing_is_overwritten(history: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("mine")
    with pytest.raises(ProchistError, match="exists"):
        snapshot(history, target, anonymise=False)
    assert target.read_text() == "mine"
    assert list(tmp_path.glob(".*")) == []


def test_a_target_that_cannot_be_written_is_named(history: Path, tmp_path: Path) -> None:
    with pytest.raises(ProchistError, match="cannot write"):
        snapshot(history, tmp_path / "missing" / "copy.db", anonymise=False)


def test_a_source_that_is_no_history_leaves_nothing_behind(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "other.db")).execute("CREATE TABLE t (x)")
    with pytest.raises(ProchistError):
        snapshot(tmp_path / "other.db", tmp_path / "copy.db", anonymise=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.db"]
