"""What happened, in order, each with what the process was then."""

import itertools
from pathlib import Path

import apsw
import pytest

from prochist.ask.completeness import judge
from prochist.ask.filters import Question
from prochist.ask.timeline import COLUMNS, Event, Timeline
from prochist.clock import EpochNs
from prochist.store.database import open_reader
from tests.history_builder import SECOND, T0, HistoryBuilder, fill
from tests.story import story

NOW = EpochNs(T0 + 1100 * SECOND)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> apsw.Connection:
    path = tmp_path_factory.mktemp("story") / "history.db"
    story(path)
    return open_reader(path)


def events(
    db: apsw.Connection, since: int | None = None, until: int | None = None, **asked: object
) -> list[Event]:
    limits = [None if at is None else EpochNs(at) for at in (since, until)]
    question = Question(NOW, limits[0], limits[1])._replace(**asked)  # type: ignore[arg-type]
    found = Timeline(db, question, limit=None)
    verdict = judge(db, *limits, now_ns=NOW, recording=True)
    return list(found.between(verdict))


def told(found: list[Event]) -> list[tuple[int, str]]:
    """Return the life and the kind of each event; notes have life 0."""
    return [(0 if e.subject is None else e.subject.life[0], e.kind) for e in found]


def test_everything_is_told_in_the_order_in_which_it_happened(db: apsw.Connection) -> None:
    found = events(db)
    times = [event.at_ns for event in found]
    assert times == sorted(times)
    assert told(found) == [
        *((1, "started"), (0, "boot"), (2, "started"), (2, "gid"), (2, "uid"), (2, "sid")),
        *((2, "exec"), (3, "started"), (3, "exec"), (3, "exec"), (3, "ptrace_attach")),
        *((3, "ptrace_detach"), (3, "comm"), (3, "coredump"), (3, "ended"), (4, "started")),
        *((5, "started"), (5, "ended"), (0, "gap"), (6, "ended"), (4, "ended"), (2, "ended")),
        *((0, "gap"), (0, "boot"), (8, "started")),
    ]


def test_an_event_has_the_image_and_the_owner_that_its_process_had_then(
    db: apsw.Connection,
) -> None:
    mine = [e for e in events(db, ids=(3,)) if e.subject is not None]
    lines = [(e.kind, e.image[3], e.origin[4]) for e in mine]
    assert lines[:4] == [
        ("started", "env work", "ann"),
        ("exec", "env work", "ann"),
        ("exec", "work 'a b'", "root"),
        ("ptrace_attach", "work 'a b'", "root"),
    ]
    assert lines[-1] == ("ended", "work 'a b'", "ann")
    assert mine[0].subject is not None
    assert mine[0].subject.parent_image[3] == "bash -l"


def test_the_parent_is_told_as_it_was_when_it_forked(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    before, after = builder.image(["before"]), builder.image(["after"])
    builder.life(1, T0, None, image=after, exec_count=2, exec_at_ns=T0 + 9)
    builder.insert("earlier_exec", lifetime=1, ordinal=1, at_ns=T0 + 1, image=before, exec_source=2)
    builder.life(2, T0 + 5, T0 + 6, 0, parent_id=1)
    builder.life(3, T0 + 10, T0 + 11, 0, parent_id=1)
    builder.close()
    found = events(open_reader(tmp_path / "h.db"), ids=(2, 3))
    parents = {e.subject.life[0]: e.subject.parent_image[3] for e in found if e.subject}
    assert parents == {2: "before", 3: "after"}


def test_a_window_shows_only_what_happened_in_it(db: apsw.Connection) -> None:
    found = events(db, T0 + 12 * SECOND, T0 + 33 * SECOND)
    assert told(found) == [
        *((3, "exec"), (3, "ptrace_attach"), (3, "ptrace_detach"), (3, "comm"), (3, "coredump")),
        *((3, "ended"), (4, "started"), (5, "started"), (5, "ended"), (0, "gap")),
    ]


def test_a_window_without_events_still_shows_its_gap(db: apsw.Connection) -> None:
    assert told(events(db, T0 + 100 * SECOND, T0 + 200 * SECOND)) == [(0, "gap")]
    assert events(db, comms=("no such",)) == []


def test_no_event_is_put_before_what_came_first_in_its_own_life(tmp_path: Path) -> None:
    """CPUs can date an exit before the fork."""
    builder = HistoryBuilder(tmp_path / "h.db")
    builder.life(1, T0, None)
    builder.life(2, T0 + 50, T0 + 40, 0, exec_count=1, exec_at_ns=T0 + 30)
    builder.life(3, T0 + 60, T0 + 70, 0)
    builder.close()
    assert told([e for e in events(open_reader(tmp_path / "h.db")) if e.subject])[1:] == [
        *((2, "started"), (2, "exec"), (2, "ended"), (3, "started"), (3, "ended")),
    ]


def test_rows_have_a_value_for_each_column(db: apsw.Connection) -> None:
    rows = [dict(zip(COLUMNS, event.row(), strict=True)) for event in events(db)]
    ended = next(r for r in rows if r["process_id"] == 3 and r["event"] == "ended")
    assert (ended["term_signal_name"], ended["core_dumped"], ended["duration_s"]) == (
        *("SIGSEGV", 1),
        10.0,
    )
    gap = next(r for r in rows if r["event"] == "gap")
    assert (gap["lost"], gap["detail"], gap["until_at_ns"]) == (812, "overrun", T0 + 34 * SECOND)
    boot = next(r for r in rows if r["event"] == "boot")
    assert (boot["host"], boot["detail"]) == ("builder", "kernel 6.18.0")
    traced = next(r for r in rows if r["event"] == "ptrace_attach")
    assert (traced["detail"], traced["other_id"]) == ("200 2", 2)


def test_many_lives_are_told_completely_and_in_order(tmp_path: Path) -> None:
    """More than a chunk; the views say what there is."""
    builder = HistoryBuilder(tmp_path / "h.db")
    fill(builder, 3_000)
    builder.close()
    reader = open_reader(tmp_path / "h.db")
    found = [e for e in events(reader, kernel_threads=True) if e.subject]
    times = [event.at_ns for event in found]
    assert sum(b < a for a, b in itertools.pairwise(times)) == 0
    sql = (
        "SELECT count(started_at_ns) + count(ended_at_ns), (SELECT count(*) FROM execs)"
        " FROM processes"
    )
    ends, execs = next(iter(reader.execute(sql)))
    assert len(found) == ends + execs
