from collections.abc import Iterable
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.show import long, table
from prochist.show.table import Style
from prochist.show.terminal import width

S = 1_000_000_000
T0 = 1_790_000_000 * S
NOW = T0 + 3_600 * S

ROWS: list[tuple[Any, ...]] = [
    # started, ended, pid, user, uid, state, exit, signal, command_line, comm, exe
    (T0, T0 + 3_200_000, 4711, "root", 0, "exited", 0, None, "sh -c true", "sh", "/bin/sh"),
    (T0, T0 + 65 * S, 12, "ann", 1000, "killed", None, "SIGKILL", "\x1b[2J\n", "x", None),
    (T0, None, 7, None, 65534, "running", None, None, None, "kworker", None),
    (None, T0, 8, None, None, "unknown", None, None, None, None, None),
]


def shown(columns: int | None, rows: Iterable[tuple[Any, ...]] = ROWS, **more: bool) -> list[str]:
    return "".join(table.lives(rows, Style(columns, UTC, NOW, **more))).splitlines()


def test_the_table_shows_what_an_administrator_looks_for() -> None:
    assert shown(80) == [
        "START                DURATION   PID  USER   END      COMMAND",
        "2026-09-21 14:13:20     3.2ms  4711  root   0        sh -c true",
        "2026-09-21 14:13:20     1m05s    12  ann    SIGKILL  \\x1b[2J\\n",
        "2026-09-21 14:13:20     1h00m     7  65534  running  [kworker]",
        "?                           ?     8  ?      ?        ?",
    ]


@pytest.mark.parametrize("columns", [1, 2, 5, 10, 20, 39, 40, 60, 80, 200])
def test_every_line_fits_the_terminal(columns: int) -> None:
    for colour_free in shown(
        columns, [*ROWS, (T0, T0, 1, "漢" * 30, 0, "exited", 0, None, "漢" * 300, "", "")]
    ):
        assert width(colour_free) <= columns


def test_a_narrow_terminal_keeps_the_command() -> None:
    assert shown(34)[1] == "4711  0        sh -c true"
    assert shown(10)[1] == "sh -c true"


def test_a_pipe_is_not_cut() -> None:
    line = "x" * 5000
    row = (T0, T0, 1, "root", 0, "exited", 0, None, line, "x", "/x")
    assert shown(None, [row])[1].endswith(line)


def test_colours_are_only_there_when_asked_for() -> None:
    assert not any("\x1b" in line for line in shown(80))
    coloured = shown(80, colour=True)
    assert coloured[0].startswith("\x1b[1m")
    assert "\x1b[" not in coloured[1]
    assert coloured[2].startswith("\x1b[31m")
    assert coloured[3].startswith("\x1b[32m")


def test_the_header_can_be_left_out() -> None:
    assert [line.split() for line in shown(80, header=False)] == [
        line.split() for line in shown(80)[1:]
    ]


def test_widths_are_settled_by_the_first_rows_so_that_memory_does_not_grow() -> None:
    taken = 0

    def endless() -> Iterable[tuple[Any, ...]]:
        nonlocal taken
        while True:
            taken += 1
            yield ROWS[0]

    lines = table.lives(endless(), Style(80, UTC, NOW))
    for _ in range(10):
        next(lines)
    assert taken < 1_000


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True),
    st.data(), st.one_of(st.none(), st.integers(1, 60)),
)  # fmt: skip
def test_any_columns_make_one_line_a_row(
    names: list[str], data: st.DataObject, columns: int | None
) -> None:
    cell = st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary())
    rows = data.draw(st.lists(st.tuples(*[cell] * len(names)), max_size=5))
    lines = list(table.any_columns(names, rows, Style(columns, UTC, NOW)))
    assert len(lines) == len(rows) + 1
    assert all(line.endswith("\n") and line[:-1].isprintable() for line in lines)
    assert columns is None or all(width(line[:-1]) <= columns for line in lines)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"state": "exited", "exit_code": 0}, "exited successfully"),
        ({"state": "exited", "exit_code": 3}, "exited with status 3"),
        (
            {"state": "killed", "term_signal_name": "SIGSEGV", "core_dumped": 1},
            "killed by SIGSEGV, core dumped",
        ),
        ({"state": "killed", "term_signal_name": "SIGKILL", "core_dumped": 0}, "killed by SIGKILL"),
        (
            {"state": "unknown", "end_source": "boot"},
            "its end was not seen; the host was booted meanwhile",
        ),
        ({"state": "running"}, "running"),
    ],
)  # fmt: skip
def test_an_end_is_said_in_words(row: dict[str, Any], words: str) -> None:
    assert long.end_in_words(row) == words
