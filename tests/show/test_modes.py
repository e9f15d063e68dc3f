"""The output modes of the shell, read back where their format has a reader."""

import csv
import html
import io
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.show.modes import FOR_PEOPLE, MODES, Look, sql_literal
from prochist.show.table import Style

NAMES = ("id", "text")
LOOK = Look(Style(None, None, 0), "")


def show(mode: str, rows: Sequence[Sequence[Any]], names: Sequence[str] = NAMES) -> str:
    return "".join(MODES[mode](names, rows, LOOK))


VALUES = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary())


@given(VALUES | st.floats(-1e6, 1e6, width=32))
def test_a_literal_means_the_value_to_sqlite(value: object) -> None:
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        return  # SQLite's text ends at a NUL for some of its functions
    db = sqlite3.connect(":memory:")
    (found,) = db.execute(f"SELECT {sql_literal(value)}").fetchone()
    db.close()
    assert found == value


@given(st.lists(st.tuples(st.integers(), st.text(st.characters(codec="utf-8"))), max_size=5))
def test_programs_read_back_what_was_there(rows: list[tuple[int, str]]) -> None:
    assert [tuple(r.values()) for r in json.loads(show("json", rows))] == rows
    lines = show("jsonl", rows).split("\n")[:-1]
    assert [tuple(json.loads(line).values()) for line in lines] == rows
    if all("\r" not in text and "\0" not in text for _, text in rows):
        read = list(csv.reader(io.StringIO(show("csv", rows))))
        assert read[1:] == [[str(number), text] for number, text in rows]


@pytest.mark.parametrize("mode", sorted(FOR_PEOPLE))
@given(text=st.text())
def test_nothing_reaches_a_terminal_but_what_can_be_printed(mode: str, text: str) -> None:
    shown = show(mode, [(1, text)], ("id", text))
    assert all(line.isprintable() for line in shown.split("\n"))


def test_a_box_is_drawn_around_wide_characters() -> None:
    lines = show("box", [(1, "日本"), (22, None)]).splitlines()
    assert lines == [
        "┌────┬──────┐",
        "│ id │ text │",
        "├────┼──────┤",
        "│ 1  │ 日本 │",
        "│ 22 │      │",
        "└────┴──────┘",
    ]


def test_markdown_cannot_be_broken_out_of() -> None:
    assert show("markdown", [(1, "a|b")]).splitlines()[2] == r"| 1  | a\|b |"


def test_html_cannot_be_broken_out_of() -> None:
    shown = show("html", [(1, "<script>")])
    assert "<script>" not in shown
    assert "<script>" in html.unescape(shown)


def test_the_others_as_the_sqlite_shell_has_them() -> None:
    rows = [(1, "it's"), (2, None)]
    assert show("insert", rows) == (
        "INSERT INTO \"table\" VALUES(1,'it''s');\nINSERT INTO \"table\" VALUES(2,NULL);\n"
    )
    assert show("quote", rows) == "'id','text'\n1,'it''s'\n2,NULL\n"
    assert show("list", rows) == "id|text\n1|it's\n2|\n"
    assert show("ascii", rows) == "id\x1ftext\x1e1\x1fit's\x1e2\x1f\x1e"
    assert show("tcl", [(1, '"\\')]) == '"id" "text"\n"1" "\\"\\\\"\n'
    assert show("line", [(1, "a")]) == "  id = 1\ntext = a\n"
    assert show("tabs", [(1, "a\tb")]) == "id\ttext\n1\ta\\tb\n"
