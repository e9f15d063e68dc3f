"""Upkeep works only when there is something to do, and never fails the recording."""

from contextlib import closing
from pathlib import Path

import pytest

from prochist.clock import EpochNs
from prochist.service.upkeep import Upkeep
from prochist.store.database import open_writer
from prochist.store.retention import Limits
from tests.history_builder import SECOND, T0, HistoryBuilder

NOW = EpochNs(T0 + 86_400 * SECOND)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    builder = HistoryBuilder(tmp_path / "history.db")
    for number in range(100):
        builder.life(number, T0, T0 + number, 0)
    builder.close()
    return builder.path


def test_with_a_limit_old_lives_go_while_recording(history: Path) -> None:
    with closing(open_writer(history)) as db:
        said: list[str] = []
        limits = Limits(keep_ns=SECOND)
        upkeep = Upkeep(db, history, limits, lambda: None, said.append, most_pending=10)
        for _ in range(100):
            upkeep.step(NOW, 0, 0)
        assert db.execute("SELECT count(*) FROM lifetime").get == 0
        assert upkeep.facts()["removed"] == 100
        assert said == []
        assert upkeep.may_write(1)


def test_without_a_limit_nothing_goes(history: Path) -> None:
    with closing(open_writer(history)) as db:
        upkeep = Upkeep(db, history, Limits(), lambda: None, print, most_pending=10)
        upkeep.step(NOW, 0, 0)
        assert db.execute("SELECT count(*) FROM lifetime").get == 100


def test_what_a_prune_by_hand_leaves_unused_goes_without_a_limit_too(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    for number in range(10):
        builder.life(number, T0, T0 + number, 0, image=builder.image(["program", str(number)]))
    builder.close()
    with closing(open_writer(builder.path)) as db:
        upkeep = Upkeep(db, builder.path, Limits(), lambda: None, print, most_pending=10)
        texts = "SELECT count(*) FROM text"
        before = db.execute(texts).get
        assert before > 1
        with closing(open_writer(builder.path)) as other:
            other.execute("DELETE FROM lifetime")
        upkeep.step(NOW, 0, 0)
        assert db.execute(texts).get == before  # the other one may not have ended yet
        upkeep._sweep_at = 0.0  # noqa: SLF001  in the place of time
        for _ in range(10):
            upkeep.step(NOW, 0, 0)
        assert db.execute(texts).get < before
        assert not upkeep._is_sweeping  # noqa: SLF001
        assert upkeep._sweep_at is None  # noqa: SLF001  what we delete ourselves is no news


def test_a_failure_is_said_and_not_raised(history: Path) -> None:
    with closing(open_writer(history)) as db, closing(open_writer(history)) as other:
        db.set_busy_timeout(0)
        other.execute("BEGIN IMMEDIATE")
        said: list[str] = []
        limits = Limits(keep_ns=SECOND)
        upkeep = Upkeep(db, history, limits, lambda: None, said.append, most_pending=10)
        for _ in range(3):
            upkeep.step(NOW, 0, 0)
            upkeep._rest_until = 0.0  # noqa: SLF001  turns take the place of time
        assert len(said) == 1
        assert "locked by another program" in said[0]
        other.execute("ROLLBACK")
        while upkeep._has_more or upkeep.facts()["removed"] == 0:  # noqa: SLF001
            upkeep._rest_until = 0.0  # noqa: SLF001
            upkeep.step(NOW, 0, 0)
        assert upkeep.facts()["removed"] == 100
