"""Times and durations as people write them: a subset of systemd.time(7), and RFC 3339.

Pure: what time it is, where we are and when the host booted are parameters. Knows
nothing of windows or lifetimes.

Source: man page systemd.time(7), PARSING TIME SPANS and PARSING TIMESTAMPS. Other
than there, a bare span means "ago" (``1h`` is ``-1h``), a month is 30.44 and a
year 365.25 days as there, and no name of a weekday or zone is understood but UTC.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from prochist.clock import NS_PER_SECOND, EpochNs
from prochist.errors import UsageError

ACCEPTED_TIMES = (
    "now, today, yesterday, boot, 2026-11-20, '2026-11-20 03:00[:00[.123]]', 03:00, "
    "2026-11-20T03:00:00Z, an offset such as +01:00 behind it, @EPOCH, -1h, '1h ago', 1h, 3d2h"
)
ACCEPTED_DURATIONS = "a number of seconds, or numbers with us ms s m h d w M y: 90min, 1.5s, 3d2h"

_UNIT_NS = {
    unit: nanoseconds
    for units, nanoseconds in (
        ("us usec µs", 1_000),
        ("ms msec", 1_000_000),
        ("s sec second seconds", NS_PER_SECOND),
        ("m min minute minutes", 60 * NS_PER_SECOND),
        ("h hr hour hours", 3_600 * NS_PER_SECOND),
        ("d day days", 86_400 * NS_PER_SECOND),
        ("w week weeks", 7 * 86_400 * NS_PER_SECOND),
        ("M month months", 2_629_800 * NS_PER_SECOND),
        ("y year years", 31_557_600 * NS_PER_SECOND),
    )
    for unit in units.split()
}

# Compiled when first used: most commands need one of them, or none.
_SPAN = r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµ]+)"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_EPOCH = r"@(-?)([0-9]+(?:\.[0-9]+)?)"
_CALENDAR = r"""(?x)
    (?: (?P<year>[0-9]{4}) - (?P<month>[0-9]{2}) - (?P<day>[0-9]{2}) )?
    (?: (?P<separator>[ Tt]|) (?P<hour>[0-9]{2}) : (?P<minute>[0-9]{2})
        (?: : (?P<second>[0-9]{2}) (?: \. (?P<fraction>[0-9]{1,9}) )? )? )?
    (?: \s* (?P<zone> [Zz] | UTC | [+-][0-9]{2}:?[0-9]{2} ) )?"""
_LONGEST_TEXT = 100
_EARLIEST_NS = -62_135_596_800 * NS_PER_SECOND  # year 1
_LATEST_NS = (1 << 63) - 1  # what SQLite's integers hold: the year 2262
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str) -> int:
    """Return a length of time in nanoseconds; a bare number means seconds.

    Raises:
        UsageError: no such form, or longer than 292 years.
    """
    stripped = text.strip()
    if len(stripped) <= _LONGEST_TEXT:
        if re.fullmatch(_NUMBER, stripped):
            span: int | None = _scaled(stripped, NS_PER_SECOND)
        else:
            span = _span_ns(stripped)
        if span is not None and span <= _LATEST_NS:
            return span
    message = f"not a duration: {_quoted(text)}"
    raise UsageError(message, hint=f"accepted: {ACCEPTED_DURATIONS}")


def parse_time(
    text: str, *, now_ns: EpochNs, zone: tzinfo | None, boot_at_ns: EpochNs | None
) -> EpochNs:
    """Return the instant that ``text`` means at ``now_ns`` in ``zone`` (None: the system's).

    A local time that the clock jumped over (DST begins) means the same distance
    after the jump: with the clock going from 02:00 to 03:00, 02:30 is 03:30. One
    that the clock showed twice (DST ends) means the first. An offset settles both.

    Raises:
        UsageError: no such form, no such day, or ``boot`` where it is not known.
    """
    stripped = text.strip()
    at: int | None = None
    if len(stripped) <= _LONGEST_TEXT:
        at = _named(stripped, now_ns, zone, boot_at_ns)
        for parse in (_epoch, _ago):
            at = parse(stripped, now_ns) if at is None else at
        if at is None:
            at = _calendar(stripped, now_ns, zone)
    if at is None or not _EARLIEST_NS <= at <= _LATEST_NS:
        message = f"not a time: {_quoted(text)}"
        raise UsageError(message, hint=f"accepted: {ACCEPTED_TIMES}")
    return EpochNs(at)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")


def _span_ns(text: str) -> int | None:
    """Return the sum of ``3d 2h`` in nanoseconds, or None if it is no span."""
    at = total = 0
    span = re.compile(_SPAN)
    while at < len(text):
        match = span.match(text, at)
        if match is None or match[2] not in _UNIT_NS:
            return None
        total += _scaled(match[1], _UNIT_NS[match[2]])
        at = match.end()
    return total if text else None


def _scaled(number: str, unit_ns: int) -> int:
    """Return ``number`` (``1`` or ``1.25``) times the unit, cut to whole nanoseconds."""
    whole, _, fraction = number.partition(".")
    return int(whole) * unit_ns + int(fraction or "0") * unit_ns // int("1" + "0" * len(fraction))


def _named(
    text: str, now_ns: EpochNs, zone: tzinfo | None, boot_at_ns: EpochNs | None
) -> int | None:
    match text:
        case "now":
            return now_ns
        case "boot":
            if boot_at_ns is None:
                message = "when this host booted is not known here"
                raise UsageError(message, hint="name the time, or the boot with --boot")
            return boot_at_ns
        case "today" | "yesterday" | "tomorrow":
            days = {"today": 0, "yesterday": -1, "tomorrow": 1}[text]
            day = _local(now_ns, zone).replace(hour=0, minute=0, second=0, microsecond=0)
            return _epoch_ns(day.replace(tzinfo=None) + timedelta(days=days), 0, zone)
        case _:
            return None


def _epoch(text: str, now_ns: EpochNs) -> int | None:  # noqa: ARG001 - all forms are called alike
    match = re.fullmatch(_EPOCH, text)
    if match is None:
        return None
    at = _scaled(match[2], NS_PER_SECOND)
    return -at if match[1] else at


def _ago(text: str, now_ns: EpochNs) -> int | None:
    sign, span = -1, text
    if text.startswith(("-", "+")):
        sign, span = (1 if text[0] == "+" else -1), text[1:]
    elif text.endswith(" ago"):
        span = text.removesuffix(" ago")
    elif text.endswith(" left"):
        sign, span = 1, text.removesuffix(" left")
    length = _span_ns(span.strip())
    return None if length is None else now_ns + sign * length


def _calendar(text: str, now_ns: EpochNs, zone: tzinfo | None) -> int | None:
    match = re.fullmatch(_CALENDAR, text)
    if match is None or (match["year"] is None and match["hour"] is None):
        return None
    if match["hour"] is not None and bool(match["separator"]) != (match["year"] is not None):
        return None
    if match["zone"] is not None:
        zone = _offset(match["zone"])
        if zone is None:
            return None
    try:
        if match["year"] is None:
            day = _local(now_ns, zone).replace(tzinfo=None)
        else:
            day = datetime(int(match["year"]), int(match["month"]), int(match["day"]))  # noqa: DTZ001
        at = day.replace(
            hour=int(match["hour"] or 0),
            minute=int(match["minute"] or 0),
            second=int(match["second"] or 0),
            microsecond=0,
        )
        return _epoch_ns(at, int((match["fraction"] or "0").ljust(9, "0")), zone)
    except (ValueError, OverflowError, OSError):
        return None  # the 31st of February, 25:00, before the year 1


def _offset(text: str) -> tzinfo | None:
    if text in ("Z", "z", "UTC"):
        return UTC
    hours, minutes = int(text[1:3]), int(text[-2:])
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - hours of a day, minutes of an hour
        return None
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _local(at_ns: int, zone: tzinfo | None) -> datetime:
    return (_EPOCH_START + timedelta(seconds=at_ns // NS_PER_SECOND)).astimezone(zone)


def _epoch_ns(naive: datetime, fraction_ns: int, zone: tzinfo | None) -> int:
    """Convert local wall time to an instant; ``fold=0`` decides gaps and overlaps (PEP 495)."""
    if zone is not None:
        aware = naive.replace(tzinfo=zone).astimezone(UTC)
    else:
        aware = naive.astimezone(UTC)
        if aware.astimezone().replace(tzinfo=None) != naive:
            # The clock jumped over it. For the system's zone, CPython has fold the wrong way round.
            aware = max(aware, naive.replace(fold=1).astimezone(UTC))
    return (aware - _EPOCH_START) // timedelta(seconds=1) * NS_PER_SECOND + fraction_ns
