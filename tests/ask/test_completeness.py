from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.ask.completeness import Gap, Verdict, judge
from prochist.clock import EpochNs
from prochist.show.verdict import completeness, verdict_line
from prochist.store.database import open_reader
from tests.history_builder import SECOND, T0, HistoryBuilder

START = T0 + 100 * SECOND
STOP = T0 + 1_000 * SECOND
NOW = T0 + 2_000 * SECOND


@pytest.fixture
def builder(tmp_path: Path) -> HistoryBuilder:
    return HistoryBuilder(tmp_path / "history.db")


def verdict(
    builder: HistoryBuilder,
    since: int | None = None,
    until: int | None = None,
    *,
    recording: bool = False,
) -> Verdict:
    builder.close()
    with closing(open_reader(builder.path)) as db:
        return judge(
            db,
            None if since is None else EpochNs(since),
            None if until is None else EpochNs(until),
            now_ns=EpochNs(NOW),
            recording=recording,
        )


def kinds(found: Verdict) -> list[tuple[str, int, int]]:
    return [(gap.kind, gap.from_at_ns, gap.until_at_ns) for gap in found.gaps]


def test_a_window_within_a_recording_is_complete(builder: HistoryBuilder) -> None:
    builder.recording(START, STOP)
    assert verdict(builder, START, STOP).complete


def test_the_time_before_the_first_recording_is_not_complete(builder: HistoryBuilder) -> None:
    builder.recording(START, STOP)
    assert kinds(verdict(builder, START - 1, STOP)) == [("down", START - 1, START)]


def test_the_time_after_the_last_recording_is_not_complete(builder: HistoryBuilder) -> None:
    builder.recording(START, STOP)
    assert kinds(verdict(builder, START, None)) == [("down", STOP, NOW)]


def test_while_a_recorder_is_alive_all_until_now_was_seen(builder: HistoryBuilder) -> None:
    builder.recording(START, STOP, stopped=False)
    assert verdict(builder, START, None, recording=True).complete
    # A window may end later than now: nothing of that can be missing yet.


def test_the_future_is_not_missing(builder: HistoryBuilder) -> None:
    builder.recording(START, NOW, stopped=False)
    assert verdict(builder, START, NOW + SECOND).complete


def test_a_window_without_limits_is_the_whole_history(builder: HistoryBuilder) -> None:
    builder.recording(START, STOP)
    builder.gap(START + 5, START + 6, lost=3)
    found = verdict(builder, recording=True)
    assert kinds(found) == [("overrun", START + 5, START + 6)]


def test_a_history_without_a_recording_is_not_complete(builder: HistoryBuilder) -> None:
    assert kinds(verdict(builder, START, STOP)) == [("down", START, STOP)]


def test_a_window_before_everything_is_not_complete(builder: HistoryBuilder) -> None:
    builder.recording(START, STOP)
    assert kinds(verdict(builder, T0, T0 + 1)) == [("down", T0, T0 + 1)]


@given(
    st.integers(0, 50), st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=4),
)  # fmt: skip
def test_a_window_is_complete_when_no_gap_overlaps_it(
    tmp_path_factory: pytest.TempPathFactory, one: int, two: int, gaps: list[tuple[int, int]]
) -> None:
    builder = HistoryBuilder(tmp_path_factory.mktemp("gaps") / "history.db")
    builder.recording(START, STOP)
    for at, length in gaps:
        builder.gap(START + at, START + at + length)
    since, until = sorted((one, two))
    found = verdict(builder, START + since, START + until)
    overlapping = [(a, n) for a, n in gaps if a <= until and a + n >= since]
    assert found.complete == (not overlapping)
    covered = {t for a, n in overlapping for t in range(max(a, since), min(a + n, until))}
    assert found.gap_ns == len(covered)


def test_the_verdict_is_one_line() -> None:
    gaps = (
        Gap(0, 40 * SECOND, "overrun", 812, None),
        Gap(50 * SECOND, 51 * SECOND, "down", None, None),
    )
    found = Verdict(None, None, gaps)
    line = "12 processes · NOT complete: 2 gaps, 41 s, at least 812 events lost"
    assert verdict_line(12, found) == line
    assert verdict_line(1, Verdict(None, None, ())) == "1 process · complete"
    assert (
        completeness(found._replace(gaps=gaps[:1])) == "NOT complete: 1 gap, 40 s, 812 events lost"
    )
