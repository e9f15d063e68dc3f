"""What two readings of the clocks say of the time between. The host's clock is never set here."""

import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.clock import ClockReading, MonotonicNs, read_clock
from prochist.service.clockwatch import STEP_NS, SUSPEND_NS, ClockWatch, compare_clocks

HOUR_NS = 3600 * 10**9
BEFORE = ClockReading(MonotonicNs(10**12), 5 * 10**9, 1_700_000_000 * 10**9)


def later(*, stepped_ns: int = 0, suspended_ns: int = 0) -> ClockReading:
    return ClockReading(
        MonotonicNs(BEFORE.monotonic_ns + 10**9),
        BEFORE.boot_offset_ns + suspended_ns,
        BEFORE.epoch_offset_ns + suspended_ns + stepped_ns,
    )


def test_time_that_only_passes_is_no_change() -> None:
    change = compare_clocks(BEFORE, later())
    assert (change.step_ns, change.suspended_ns) == (0, 0)


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS, STEP_NS, -STEP_NS])
def test_a_clock_that_was_set_is_a_step_with_its_sign(step_ns: int) -> None:
    change = compare_clocks(BEFORE, later(stepped_ns=step_ns))
    assert (change.step_ns, change.suspended_ns) == (step_ns, 0)


def test_a_suspend_is_not_a_step_though_the_wall_clock_goes_on_in_it() -> None:
    change = compare_clocks(BEFORE, later(suspended_ns=8 * HOUR_NS))
    assert (change.step_ns, change.suspended_ns) == (0, 8 * HOUR_NS)


def test_what_is_only_the_noise_of_reading_is_neither() -> None:
    change = compare_clocks(BEFORE, later(stepped_ns=STEP_NS - 1, suspended_ns=SUSPEND_NS - 1))
    assert (change.step_ns, change.suspended_ns) == (0, 0)


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**15))
def test_step_and_suspend_are_told_apart(step_ns: int, suspended_ns: int) -> None:
    change = compare_clocks(BEFORE, later(stepped_ns=step_ns, suspended_ns=suspended_ns))
    assert change.step_ns == (step_ns if abs(step_ns) >= STEP_NS else 0)
    assert change.suspended_ns == (suspended_ns if suspended_ns >= SUSPEND_NS else 0)


def test_the_watch_sleeps_while_nobody_sets_the_clock() -> None:
    watch = ClockWatch()
    try:
        poller = select.poll()
        poller.register(watch.fd, select.POLLIN)
        assert poller.poll(50) == []
        change = watch.check(read_clock())
        assert (change.step_ns, change.suspended_ns) == (0, 0)
        assert poller.poll(0) == []
    finally:
        watch.close()
