"""Each invariant of a history is checked, and a violation is named."""

from contextlib import closing
from pathlib import Path

import pytest

from prochist.errors import ProchistError
from prochist.service.verification import Finding, verify
from prochist.store.database import open_writer
from tests.history_builder import SECOND, T0, HistoryBuilder


def findings(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in verify(path)}


def broken(builder: HistoryBuilder) -> set[str]:
    builder.close()
    return {name for name, finding in findings(builder.path).items() if finding.found}


@pytest.fixture
def builder(tmp_path: Path) -> HistoryBuilder:
    return HistoryBuilder(tmp_path / "history.db")


def test_a_sound_history_has_no_findings_in_any_check(builder: HistoryBuilder) -> None:
    parent = builder.life(10, T0, T0 + SECOND, 0)
    builder.life(11, T0 + 1, T0 + SECOND, 9, parent_id=parent)
    builder.life(10, T0 + SECOND, T0 + 2 * SECOND, 0)
    builder.life(10, T0 + 3 * SECOND)
    builder.close()
    found = findings(builder.path)
    assert len(found) >= 9
    assert [finding for finding in found.values() if finding.found] == []


def test_lives_of_one_pid_that_overlap_are_found_also_when_a_long_one_lies_below(
    builder: HistoryBuilder,
) -> None:
    builder.life(10, T0, T0 + 100 * SECOND, 0)
    builder.life(10, T0 + SECOND, T0 + 2 * SECOND, 0)
    builder.life(10, T0 + 50 * SECOND, T0 + 60 * SECOND, 0)
    builder.life(11, T0, T0 + 100 * SECOND, 0)
    builder.close()
    finding = findings(builder.path)["lives of one pid do not overlap"]
    assert finding.found == 2
    assert "life 2 overlaps life 1 of pid 10" in finding.examples


def test_a_life_that_goes_on_overlaps_every_later_one_of_its_pid(builder: HistoryBuilder) -> None:
    builder.life(10, T0)
    builder.life(10, T0 + SECOND, T0 + 2 * SECOND, 0)
    assert broken(builder) == {"lives of one pid do not overlap"}


def test_an_end_that_was_not_seen_may_lie_anywhere_after_its_earliest(
    builder: HistoryBuilder,
) -> None:
    builder.life(10, T0, T0 + 9 * SECOND, end_source=2, ended_after_ns=T0 + SECOND)
    builder.life(10, T0 + 5 * SECOND, T0 + 6 * SECOND, 0)
    assert broken(builder) == set()


def test_a_parent_that_is_younger_than_its_child_is_found(builder: HistoryBuilder) -> None:
    builder.db.execute("PRAGMA defer_foreign_keys = ON")
    builder.life(10, T0, T0 + 1, 0, parent_id=2)
    builder.life(11, T0, T0 + 1, 0)
    assert broken(builder) == {"parents older than children"}


def test_an_end_before_the_start_is_found(builder: HistoryBuilder) -> None:
    builder.life(10, T0, T0 - 1, 0)
    assert broken(builder) == {"no end before the start"}


def test_a_status_without_an_end_is_found(builder: HistoryBuilder) -> None:
    builder.life(10, T0, None, 0)
    assert broken(builder) == {"one end at most, with its source"}


def test_a_row_that_names_one_that_is_not_there_is_found(builder: HistoryBuilder) -> None:
    builder.db.execute("COMMIT")
    builder.db.pragma("foreign_keys", "OFF")
    builder.db.execute("BEGIN")
    builder.life(10, T0, T0 + 1, 0, image=999)
    assert broken(builder) == {"rows that are named exist"}


def test_an_id_that_would_be_given_again_is_found(builder: HistoryBuilder) -> None:
    builder.life(10, T0, T0 + 1, 0)
    builder.close()
    with closing(open_writer(builder.path)) as db:
        db.execute("UPDATE counter SET next_lifetime = 1")
    assert findings(builder.path)["ids below the next one"].found == 1


def test_a_damaged_file_is_found(builder: HistoryBuilder) -> None:
    for number in range(2000):
        builder.life(10 + number, T0, T0 + 1, 0)
    builder.close()
    with builder.path.open("r+b") as file:
        for page in range(20, 60):
            file.seek(page * 4096 + 8)
            file.write(b"\xff" * 64)
    try:
        damage = findings(builder.path)["the file"].found
    except ProchistError as error:  # so bad that it cannot even be opened
        damage = int("damaged" in error.message)
    assert damage
