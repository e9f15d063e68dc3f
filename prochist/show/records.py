r"""Lives for programs: JSON Lines, CSV and TSV, one record a line, all columns or some.

Meant for millions of lives, so that what many share (boot, image, origin, status)
is encoded once and then put into each line as it is: ``encode_all`` takes 4 us a life,
encoding each value 50 us. Text is UTF-8; TSV writes tab, line break and
backslash as ``\t``, ``\n``, ``\r``, ``\\``.

Source: jsonlines.org; RFC 4180 (CSV, with a line feed alone as the end of a line).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from json.encoder import encode_basestring
from typing import NamedTuple

from prochist.ask import processes
from prochist.ask.processes import Answer, Life, Value

_CSV_SPECIAL = frozenset(',"\r\n')
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_MOST_KEPT = 50_000
_NINETEEN_DIGITS = 10**18


class Dialect(NamedTuple):
    """How a record is written: one row of the table of formats."""

    field: Callable[[str, Value], str]
    number: str  # template of a field whose value needs no encoding: %s, name in {name}
    null: str
    first: str
    between: str
    last: str
    has_header: bool


def json_value(value: Value) -> str:
    r"""Return one value as JSON; bytes as text with ``\xNN`` where they are not UTF-8."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, bytes):
        return encode_basestring(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return "null"  # JSON has neither NaN nor infinity
    return repr(value)


def _csv_value(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        if value == "" or not _CSV_SPECIAL.isdisjoint(value):
            return '"' + value.replace('"', '""') + '"'  # "" is empty, nothing at all is NULL
        return value
    return repr(value)


def _tsv_value(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value.translate(_TSV_ESCAPES) if isinstance(value, str) else repr(value)


JSONL = Dialect(
    lambda name, value: f"{encode_basestring(name)}:{json_value(value)}",
    '"{name}":%s',
    "null",
    "{",
    ",",
    "}\n",
    has_header=False,
)
CSV = Dialect(lambda _, value: _csv_value(value), "%s", "", "", ",", "\n", has_header=True)
TSV = Dialect(lambda _, value: _tsv_value(value), "%s", "", "", "\t", "\n", has_header=True)
DIALECTS = {"jsonl": JSONL, "csv": CSV, "tsv": TSV}


def header(dialect: Dialect, names: Sequence[str]) -> str:
    """Return the line of column names, empty where the format has none."""
    if not dialect.has_header:
        return ""
    return dialect.between.join(dialect.field(n, n) for n in names) + dialect.last


def encode(dialect: Dialect, names: Sequence[str], values: Sequence[Value]) -> str:
    """Return one record of any columns."""
    fields = dialect.between.join(map(dialect.field, names, values))
    if not fields and dialect is CSV:
        fields = '""'  # a line with nothing on it would be no record at all
    return f"{dialect.first}{fields}{dialect.last}"


def array(lines: Iterable[str]) -> Iterator[str]:
    """Yield one JSON array of records that were encoded as JSON Lines."""
    before = "[\n"
    for text in lines:
        yield before + text.rstrip("\n")
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


class _Fragments(dict[int | None, str]):
    """A shared part, encoded, by its id."""

    def __init__(self, dialect: Dialect, names: Sequence[str], part: slice) -> None:
        super().__init__()
        self._dialect = dialect
        self._names = names
        self._part = part
        self.source: dict[int | None, tuple[Value, ...]] = {}

    def __missing__(self, key: int | None) -> str:
        if len(self) > _MOST_KEPT:
            self.clear()
        values = self.source[key][self._part]
        text = self._dialect.between.join(map(self._dialect.field, self._names, values))
        self[key] = text
        return text


class _Statuses(dict[int, str]):
    """How a life ended, encoded, by the packed integer of a ``Life``."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._dialect = dialect

    def __missing__(self, packed: int) -> str:
        values = processes.status(packed)
        fields = map(self._dialect.field, processes.STATUS, values)
        text = self[packed] = self._dialect.between.join(fields)
        return text


def _template(dialect: Dialect) -> str:
    """Return the line of one life with a ``%s`` for each number and each shared part."""

    def numbers(names: Sequence[str]) -> list[str]:
        return [dialect.number.format(name=name) for name in names]

    def texts(names: Sequence[str]) -> list[str]:
        quote = '"' if dialect is JSONL else ""
        return [
            dialect.number.format(name=name).replace("%s", f"{quote}%s.%sZ{quote}")
            for name in names
        ]

    times = processes.TIMES
    parts = [
        *numbers(processes.IDENTITY),
        "%s",  # boot
        *numbers(processes.NUMBERS),
        "%s",  # image
        "%s",  # owner
        *numbers(("sid",)),
        "%s",  # place
        *texts(times[:1]),
        *numbers(times[1:2]),
        *texts(times[2:3]),
        *numbers(times[3:]),
        "%s",  # status
        *numbers(processes.COST),
    ]
    return dialect.first + dialect.between.join(parts) + dialect.last


def encode_all(dialect: Dialect, answer: Answer) -> Iterator[str]:  # noqa: C901 - see line()
    """Yield the lives with all their columns, some hundreds of lines at a time."""
    template, null = _template(dialect), dialect.null
    owner_width = len(processes.OWNER)
    boots = _Fragments(dialect, processes.BOOT, slice(None))
    images = _Fragments(dialect, processes.IMAGE, slice(None))
    owners = _Fragments(dialect, processes.OWNER, slice(owner_width))
    places = _Fragments(dialect, processes.PLACE, slice(owner_width, None))
    statuses = _Statuses(dialect)
    seconds = processes.seconds

    def line(life: Life) -> str:
        (
            id_, parent, boot, pid, ppid, reaper, ns_pid, image, origin, sid, started, ended,
            packed, execs, kernel, threads, user, system, memory, read, write, minor, major,
            voluntary, involuntary, after, _order,
        ) = life  # fmt: skip
        start_text, end_text = str(started), str(ended)
        # One test after the other: building anything here would cost more than all of them.
        if parent is None:
            parent = null
        if ppid is None:
            ppid = null
        if reaper is None:
            reaper = null
        if ns_pid is None:
            ns_pid = null
        if sid is None:
            sid = null
        if after is None:
            after = null
        if user is None:  # the accounting of a life is known as a whole, or not
            user, system, memory, read, write, minor, major, voluntary, involuntary = (
                null if v is None else v for v in life[16:25]
            )
        elif None in life[17:25]:
            system, memory, read, write, minor, major, voluntary, involuntary = (
                null if v is None else v for v in life[17:25]
            )
        return template % (
            id_, parent, boots[boot], pid, ppid, reaper, ns_pid, images[image], owners[origin], sid,
            places[origin], seconds[started // 1_000_000_000], start_text[10:16], start_text,
            seconds[ended // 1_000_000_000], end_text[10:16], end_text, (ended - started) / 1e9,
            statuses[packed], after, execs, kernel, threads, user, system, memory, read, write,
            minor, major, voluntary, involuntary,
        )  # fmt: skip

    for chunk in answer.chunks():
        boots.source = answer.boots.parts
        images.source = answer.images.parts
        owners.source = places.source = answer.origins.parts
        yield "".join(
            [
                encode(dialect, processes.COLUMNS, answer.row(life))
                # Running, or only its end was seen; or before 2001: 19 digits are cut above.
                if life[11] is None or life[10] is None or life[10] < _NINETEEN_DIGITS
                else line(life)
                for life in chunk
            ]
        )
