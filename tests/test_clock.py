"""The three clocks, and their only conversions."""

import os
import time

from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.procfs import read_stat
from prochist.clock import ClockReading, EpochNs, MonotonicNs, Ticks, read_clock

# Monotonic 1000 s; suspended for 50 s; booted at the epoch second 1,700,000,000.
READING = ClockReading(MonotonicNs(1_000_000_000_000), 50_000_000_000, 1_700_000_050_000_000_000)


def test_an_event_happened_when_the_wall_clock_said_so() -> None:
    assert READING.epoch(MonotonicNs(1_000_000_000_123)) == 1_700_001_050_000_000_123


def test_a_start_time_in_ticks_counts_time_asleep() -> None:
    # Tick 105,000 is 1050 s after boot, which is 1000 s of CLOCK_MONOTONIC.
    assert READING.ticks(MonotonicNs(1_000_000_000_000)) == 105_000
    assert READING.epoch_of_ticks(Ticks(105_000)) == READING.epoch(READING.monotonic_ns)


@given(st.integers(0, 10**18).map(MonotonicNs))
def test_ticks_lose_less_than_ten_milliseconds(at: MonotonicNs) -> None:
    lost = READING.epoch(at) - READING.epoch_of_ticks(READING.ticks(at))
    assert 0 <= lost < 10_000_000


def test_the_clocks_are_read_as_one_instant() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    reading = read_clock()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert before <= reading.monotonic_ns <= after
    wall = EpochNs(time.time_ns())
    assert abs(reading.epoch(MonotonicNs(after)) - wall) < 1_000_000_000
    assert reading.boot_offset_ns >= -1_000_000


def test_two_readings_agree_to_far_less_than_a_clock_step() -> None:
    first, second = read_clock(), read_clock()
    assert abs(first.epoch_offset_ns - second.epoch_offset_ns) < 1_000_000


def test_a_child_starts_at_the_tick_of_its_fork() -> None:
    # Field 22 of /proc/PID/stat is CLOCK_BOOTTIME of the fork in ticks, rounded down.
    reading = read_clock()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    child = os.posix_spawn("/bin/sleep", ["sleep", "10"], os.environ)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    stat = read_stat(child)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert stat is not None
    assert reading.ticks(MonotonicNs(before)) <= stat.starttime
    assert stat.starttime <= reading.ticks(MonotonicNs(after))
