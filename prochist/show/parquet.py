"""Lives as Apache Parquet, for engines that read the files of a whole fleet.

The columns are those of the view ``processes``, without what follows from others
(``started_at``, ``ended_at``, ``duration_s``, and ``argv`` where it is
the command line split at its spaces) and without ``host``, which is a directory of the
layout. ``contrib/fleet`` has the views that put them back.

Source: parquet.apache.org/docs/file-format; arrow.apache.org/docs/python, pyarrow.parquet.
"""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from prochist.ask import processes
from prochist.ask.processes import Answer, Life, status
from prochist.errors import ProchistError

ROWS_A_GROUP = 100_000
"""Rows that are gathered before a row group is written: some tens of megabytes."""

_LEVEL = 9
"""Of zstd; 3 takes the same time within noise, and 12 % more space."""


def load() -> Any:  # noqa: ANN401 - a module
    """Import pyarrow.

    Raises:
        ProchistError: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        message = "parquet needs pyarrow, which is not installed"
        raise ProchistError(message, hint="pip install 'prochist[parquet]'") from error
    return pa


_INT32 = (
    *("pid", "ppid", "reaper_pid", "ns_pid", "sid", "uid", "euid", "gid", "egid", "login_uid"),
    *("session", "exit_code", "term_signal", "exec_count", "thread_peak"),
)
_INT8 = ("argv_complete", "core_dumped", "is_kernel_thread")
_DOUBLE = ("cpu_user_s", "cpu_system_s")
_INT64 = (
    *("id", "parent_id", "started_at_ns", "ended_at_ns", "ended_after_ns", "max_rss_bytes"),
    *("read_bytes", "write_bytes", "minor_faults", "major_faults", "voluntary_switches"),
    "involuntary_switches",
)
_LEFT_OUT = ("host", "started_at", "ended_at", "duration_s")
COLUMNS = tuple(name for name in processes.COLUMNS if name not in _LEFT_OUT)
"""The columns of a file, in their order."""

# Unsigned 32-bit ids fit a signed 64-bit column only.
_WIDE = {"uid", "euid", "gid", "egid", "login_uid", "session"}


def schema(arrow: Any) -> Any:  # noqa: ANN401 - pyarrow is imported late
    """Return the schema of the files."""

    def kind(name: str) -> Any:  # noqa: ANN401 - pyarrow.DataType
        if name in _WIDE or name in _INT64:
            return arrow.int64()
        if name in _INT32:
            return arrow.int32()
        if name in _INT8:
            return arrow.int8()
        return arrow.float64() if name in _DOUBLE else arrow.string()

    return arrow.schema([(name, kind(name)) for name in COLUMNS])


class Encoder:
    """Makes record batches of lives."""

    def __init__(self) -> None:
        self.arrow = load()
        self.schema = schema(self.arrow)
        self._types = {field.name: field.type for field in self.schema}

    def batch(self, answer: Answer, lives: Sequence[Life]) -> Any:  # noqa: ANN401
        """Return lives of the newest chunk of ``answer`` as a record batch."""
        columns = list(zip(*lives, strict=True))
        made: dict[str, Any] = {}

        def own(at: int, *names: str) -> None:
            for offset, name in enumerate(names):
                made[name] = self.arrow.array(columns[at + offset], self._types[name])

        def shared(
            at: int, names: Sequence[str], values: Callable[[Any], Sequence[object]]
        ) -> None:
            """Make each distinct value once and spread it: text is most of the work."""
            places = {key: place for place, key in enumerate(dict.fromkeys(columns[at]))}
            spread = self.arrow.array([places[key] for key in columns[at]], self.arrow.int32())
            parts = [values(key) for key in places]
            for position, name in enumerate(names):
                if name in self._types:
                    distinct = self.arrow.array(
                        [part[position] for part in parts], self._types[name]
                    )
                    made[name] = distinct.take(spread)

        own(0, *processes.IDENTITY)
        shared(2, processes.BOOT, answer.boots.parts.__getitem__)
        own(3, *processes.NUMBERS)
        shared(7, processes.IMAGE, lambda key: _image(answer.images.parts[key]))
        shared(8, processes.OWNER + processes.PLACE, answer.origins.parts.__getitem__)
        own(9, "sid", "started_at_ns", "ended_at_ns")
        shared(12, processes.STATUS, status)
        own(13, *processes.COST[1:])
        own(25, processes.COST[0])
        return self.arrow.record_batch([made[name] for name in COLUMNS], schema=self.schema)

    def writer(self, sink: BinaryIO) -> Any:  # noqa: ANN401
        """Return what writes row groups of ``schema`` into an open binary file."""
        text = [field.name for field in self.schema if field.type == self.arrow.string()]
        numbers = [name for name in COLUMNS if name in _INT64 or name in _INT32 or name in _WIDE]
        return self.arrow.parquet.ParquetWriter(
            sink,
            self.schema,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=[*text, *_INT8],
            column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
            version="2.6",
            # Spark before 4 and others read these; statistics let engines skip row groups.
            data_page_version="1.0",
        )


def _derived(line: str) -> str:
    """Return the argv that the views make of a command line."""
    return '["' + line.replace(" ", '","') + '"]' if line else "[]"


def _image(image: Sequence[Any]) -> Sequence[Any]:
    """Return the values of IMAGE, without an argv that the views derive from the command line."""
    if image[3] is not None and image[4] == _derived(image[3]):
        return (*image[:4], None, *image[5:])
    return image
