"""Quantities as people read them: durations, sizes, instants in local time.

Pure: the time zone is a parameter.
"""

from datetime import datetime, tzinfo

_NS = 1_000_000_000
_SIZES = "KMGTPE"


def duration(length_ns: int | None) -> str:
    """Return a length as ``480us``, ``3.2ms``, ``1.50s``, ``4m05s``, ``2h03m`` or ``3d04h``."""
    if length_ns is None:
        return "?"
    if length_ns < 0:
        return "-" + duration(-length_ns)
    for below, unit, name in ((1_000_000, 1_000, "us"), (_NS, 1_000_000, "ms")):
        if length_ns < below:
            value = length_ns / unit
            return f"{value:.1f}{name}" if value < 10 and name == "ms" else f"{int(value)}{name}"  # noqa: PLR2004
    seconds = length_ns // _NS
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{length_ns // 10_000_000 / 100:.2f}s"
    for below, unit, name, rest_unit, rest_name in (
        (3_600, 60, "m", 1, "s"),
        (86_400, 3_600, "h", 60, "m"),
    ):
        if seconds < below:
            return f"{seconds // unit}{name}{seconds % unit // rest_unit:02}{rest_name}"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3_600:02}h"


def elapsed(length_ns: int) -> str:
    """Return a length as ps has it: ``[[DD-]hh:]mm:ss``."""
    minutes, seconds = divmod(length_ns // _NS, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    return f"{hours:02}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def size(count: int | None) -> str:
    """Return bytes with a binary unit: ``812``, ``1.5K``, ``64M``."""
    if count is None:
        return "?"
    if count < 1024:  # noqa: PLR2004 - a KiB
        return str(count)
    value, unit = float(count), ""
    for unit in _SIZES:  # noqa: B007 - used below
        value /= 1024
        if value < 1023.5:  # noqa: PLR2004 - would round to 1024
            break
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"  # noqa: PLR2004


def instant(at_ns: int | None, zone: tzinfo | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return an instant in ``zone`` (None: the system's) to the second, ``?`` when unknown."""
    if at_ns is None:
        return "?"
    return datetime.fromtimestamp(at_ns // _NS, zone).strftime(form)


def instant_exact(at_ns: int | None, zone: tzinfo | None) -> str:
    """Return an instant in ``zone`` to the microsecond, with its offset."""
    if at_ns is None:
        return "?"
    at = datetime.fromtimestamp(at_ns // _NS, zone).astimezone(zone)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at_ns % _NS // 1000:06d} {at:%z}"


def plural(count: int, noun: str) -> str:
    """Return ``1 process``, ``2 processes``, ``1,204 gaps``."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def bytes_as_text(value: bytes) -> str:
    r"""Return bytes as text, with ``\xNN`` where they are not UTF-8."""
    return value.decode("utf-8", "backslashreplace")
