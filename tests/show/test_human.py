from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from prochist.show import human

US, MS, S = 1_000, 1_000_000, 1_000_000_000


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0us"), (999, "0us"), (480 * US, "480us"), (3_260 * US, "3.3ms"), (42 * MS, "42ms"),
        (999 * MS + 999_999, "999ms"), (1_500 * MS, "1.50s"), (59_999 * MS, "59.99s"),
        (60 * S, "1m00s"), (245 * S, "4m05s"), (7_380 * S, "2h03m"), (273_600 * S, "3d04h"),
        (-S, "-1.00s"), (None, "?"),
    ],
)  # fmt: skip
def test_a_duration_is_short(length: int | None, text: str) -> None:
    assert human.duration(length) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (1023, "1023"), (1024, "1.0K"), (1536, "1.5K"), (10 * 1024, "10K"),
        (1024**2 - 1, "1.0M"), (64 * 1024**2, "64M"), (3 * 1024**3, "3.0G"), (None, "?"),
    ],
)  # fmt: skip
def test_a_size_has_a_binary_unit(count: int | None, text: str) -> None:
    assert human.size(count) == text


def test_an_instant_is_shown_in_the_zone_that_is_asked_for() -> None:
    at = 1_790_000_000 * S + 123_456_789
    assert human.instant(at, UTC) == "2026-09-21 14:13:20"
    assert human.instant(at, ZoneInfo("Asia/Kolkata")) == "2026-09-21 19:43:20"
    assert human.instant_exact(at, UTC) == "2026-09-21 14:13:20.123456 +0000"
    assert human.instant(None, UTC) == human.instant_exact(None, UTC) == "?"


def test_a_plural_has_its_ending() -> None:
    assert human.plural(1, "process") == "1 process"
    assert human.plural(2, "process") == "2 processes"
    assert human.plural(1_204, "gap") == "1,204 gaps"
