import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.ask.timespec import parse_duration, parse_time
from prochist.clock import EpochNs
from prochist.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")
SECOND = 1_000_000_000
NOW = EpochNs(int(datetime(2026, 11, 20, 3, 30, 15, tzinfo=BERLIN).timestamp()) * SECOND + 5)
BOOT = EpochNs(NOW - 86_400 * SECOND)


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    return parse_time(text, now_ns=NOW, zone=zone, boot_at_ns=BOOT)


def local(*parts: int, fold: int = 0) -> int:
    year, month, day, *rest = parts
    moment = datetime(year, month, day, *rest, tzinfo=BERLIN, fold=fold)  # type: ignore[misc, arg-type]
    return int(moment.timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", NOW),
        ("boot", BOOT),
        ("today", local(2026, 11, 20)),
        ("yesterday", local(2026, 11, 19)),
        ("tomorrow", local(2026, 11, 21)),
        ("2026-11-20", local(2026, 11, 20)),
        ("2026-11-20 03:00", local(2026, 11, 20, 3)),
        ("2026-11-20 03:00:07", local(2026, 11, 20, 3, 0, 7)),
        ("2026-11-20 03:00:07.123", local(2026, 11, 20, 3, 0, 7) + 123_000_000),
        ("2026-11-20 03:00:07.123456789", local(2026, 11, 20, 3, 0, 7) + 123_456_789),
        ("03:00", local(2026, 11, 20, 3)),
        ("23:59:59", local(2026, 11, 20, 23, 59, 59)),
        ("2026-11-20T03:00:00Z", local(2026, 11, 20, 4)),
        ("2026-11-20t03:00:00.5z", local(2026, 11, 20, 4) + SECOND // 2),
        ("2026-11-20 03:00 UTC", local(2026, 11, 20, 4)),
        ("2026-11-20T03:00:00-05:00", local(2026, 11, 20, 9)),
        ("2026-11-20T03:00:00+0530", local(2026, 11, 19, 22, 30)),
        ("@1.5", SECOND + SECOND // 2),
        ("@0", 0),
        ("@-1", -SECOND),
        ("-1h", NOW - 3600 * SECOND),
        ("+1h", NOW + 3600 * SECOND),
        ("1h ago", NOW - 3600 * SECOND),
        ("1h", NOW - 3600 * SECOND),
        ("3d2h", NOW - (3 * 86_400 + 7_200) * SECOND),
        ("3 days 2 hours ago", NOW - (3 * 86_400 + 7_200) * SECOND),
        ("90min", NOW - 5400 * SECOND),
        ("1.5s", NOW - SECOND * 3 // 2),
        ("250ms", NOW - 250_000_000),
        ("  now ", NOW),
    ],
)
def test_a_time_means_what_systemd_and_rfc_3339_say(text: str, meant: int) -> None:
    assert at(text) == meant


def test_a_minute_is_small_and_a_month_is_large() -> None:
    assert NOW - at("1m") == 60 * SECOND
    assert NOW - at("1M") == 2_629_800 * SECOND
    assert NOW - at("1y") == 31_557_600 * SECOND


def test_a_time_that_the_clock_jumped_over_is_as_far_after_the_jump() -> None:
    assert at("2026-03-29 02:30") == at("2026-03-29 03:30")


def test_a_time_that_the_clock_showed_twice_is_the_first() -> None:
    assert at("2026-10-25 02:30") == local(2026, 10, 25, 2, 30, fold=0)
    assert at("2026-10-25 02:30+01:00") == local(2026, 10, 25, 2, 30, fold=1)


def test_yesterday_begins_at_midnight_also_when_the_clock_changed_since() -> None:
    monday = EpochNs(local(2026, 3, 30, 12))
    found = parse_time("yesterday", now_ns=monday, zone=BERLIN, boot_at_ns=None)
    assert found == local(2026, 3, 29)


def test_the_systems_zone_is_meant_by_none() -> None:
    naive = datetime(2026, 11, 20, 3)  # noqa: DTZ001 - the system's zone is meant
    found = parse_time("2026-11-20 03:00", now_ns=NOW, zone=None, boot_at_ns=None)
    assert found == int(naive.timestamp()) * SECOND


def test_boot_is_refused_where_it_is_not_known() -> None:
    with pytest.raises(UsageError, match="booted is not known"):
        parse_time("boot", now_ns=NOW, zone=UTC, boot_at_ns=None)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "soon", "2026-02-30", "2026-13-01", "25:00", "03:60", "2026-11-2003:00", "T03:00",
        "2026-11-20T", "0000-01-01", "9999-12-31", "@", "@1e5", "@99999999999999", "1", "1x", "h",
        "-", "- 1h ago", "--1h", "1h ago ago", "2026-11-20T03:00+25:00", "٣h", "nan", "1h" * 200,
        "now now", "2026-11-20 03:00 CET", "5000000000d",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageError, match="not a time") as caught:
        at(text)
    assert "RFC" not in (caught.value.hint or "")
    assert "2026-11-20T03:00:00Z" in (caught.value.hint or "")


@given(st.datetimes(datetime(1970, 1, 2), datetime(2262, 1, 1)))  # noqa: DTZ001
def test_every_instant_written_in_rfc_3339_is_read_back(moment: datetime) -> None:
    meant = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000  # noqa: DTZ001
    assert at(f"{moment.isoformat(timespec='microseconds')}Z") == meant
    assert at(f"@{meant // SECOND}.{meant % SECOND:09d}") == meant


@given(
    st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59),
    st.integers(0, 999),
)  # fmt: skip
def test_every_sum_of_units_is_read_back(d: int, h: int, m: int, s: int, ms: int) -> None:
    length = ((d * 24 + h) * 60 + m) * 60_000 + s * 1000 + ms
    assert parse_duration(f"{d}d {h}h{m}min {s}s{ms}ms") == length * 1_000_000
    assert NOW - at(f"{d}d{h}h{m}m{s}s{ms}ms") == length * 1_000_000


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    for parse in (at, parse_duration):
        with contextlib.suppress(UsageError):
            assert isinstance(parse(text), int)


def test_a_duration_without_a_unit_is_in_seconds() -> None:
    assert parse_duration("5") == 5 * SECOND
    assert parse_duration("0.25") == SECOND // 4


@pytest.mark.parametrize("text", ["", "-1s", "1 h ago", "many", "1h x", "99999y", "1_000"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)
