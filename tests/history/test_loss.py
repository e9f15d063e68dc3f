"""Loss: gaps in the numbers of each CPU are the events that are missing, to the unit."""

from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.connector import FORK, Message
from prochist.clock import MonotonicNs
from prochist.history.loss import Missing, SequenceGaps


def message(seq: int, cpu: int = 0, at: int = 0) -> Message:
    return Message(seq & 0xFFFFFFFF, 0, FORK, cpu, MonotonicNs(at), 1, 1, 2, 2, 0, 0)


def test_messages_in_a_row_are_complete() -> None:
    gaps = SequenceGaps()
    assert gaps.feed([message(7), message(8), message(9)]) == []
    assert (gaps.received, gaps.missing) == (3, 0)
    assert gaps.newest == {0: 9}


def test_a_gap_is_counted_between_its_neighbours() -> None:
    gaps = SequenceGaps()
    gaps.feed([message(7, at=100)])
    assert gaps.feed([message(11, at=500)]) == [Missing(3, MonotonicNs(100), MonotonicNs(500), 0)]
    assert gaps.missing == 3


def test_each_cpu_is_followed_on_its_own() -> None:
    gaps = SequenceGaps()
    first = [message(1, 0), message(900, 1), message(2, 0), message(901, 1)]
    assert gaps.feed(first) == []
    assert [m.cpu for m in gaps.feed([message(3, 0), message(905, 1)])] == [1]
    assert gaps.missing == 3


def test_the_numbers_wrap() -> None:
    gaps = SequenceGaps()
    assert gaps.feed([message(0xFFFFFFFE), message(0xFFFFFFFF), message(0), message(1)]) == []
    assert gaps.feed([message(5)])[0].lost == 3


def test_a_gap_over_the_wrap_is_counted() -> None:
    gaps = SequenceGaps()
    gaps.feed([message(0xFFFFFFFE)])
    assert gaps.feed([message(2)])[0].lost == 3


def test_what_was_seen_before_is_not_a_loss_of_four_thousand_million() -> None:
    gaps = SequenceGaps()
    gaps.feed([message(5), message(6), message(7)])
    assert gaps.feed([message(6), message(7)]) == []
    assert gaps.newest == {0: 7}
    assert gaps.feed([message(8)]) == []
    assert (gaps.received, gaps.missing) == (4, 0)


def test_what_was_missed_while_nobody_recorded_is_older_than_this_recorder() -> None:
    gaps = SequenceGaps({0: 100, 1: 50})
    found = gaps.feed([message(409, 0, at=7), message(51, 1, at=8), message(3, 2, at=9)])
    assert found == [Missing(308, None, MonotonicNs(7), 0)]
    assert gaps.newest == {0: 409, 1: 51, 2: 3}


def test_the_numbers_given_at_the_start_are_not_changed() -> None:
    before = {0: 1}
    SequenceGaps(before).feed([message(2)])
    assert before == {0: 1}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_the_missing_are_those_dropped_before_one_that_came(
    sent: list[tuple[int, bool]], start: int, data: st.DataObject
) -> None:
    numbers = dict.fromkeys(range(4), start)
    arrived: list[Message] = []
    missing = 0
    pending = dict.fromkeys(range(4), 0)
    known: set[int] = set()
    for at, (cpu, dropped) in enumerate(sent):
        numbers[cpu] += 1
        if dropped:
            pending[cpu] += 1
            continue
        if cpu in known:
            missing += pending[cpu]
        pending[cpu] = 0
        known.add(cpu)
        arrived.append(message(numbers[cpu], cpu, at))
    gaps = SequenceGaps()
    cut = data.draw(st.integers(0, len(arrived)))
    found = gaps.feed(arrived[:cut]) + gaps.feed(arrived[cut:])
    assert gaps.missing == missing == sum(m.lost for m in found)
    assert gaps.received == len(arrived)
    assert all(m.after_ns is not None and m.after_ns < m.before_ns for m in found)
