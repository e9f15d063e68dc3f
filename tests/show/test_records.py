import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.ask.filters import Question
from prochist.ask.processes import COLUMNS, Value, select
from prochist.clock import EpochNs
from prochist.show import records
from prochist.show.records import CSV, JSONL, TSV, encode, encode_all, header
from prochist.store.database import open_reader
from tests.history_builder import SECOND, T0, HistoryBuilder, fill

EVERYTHING = Question(now_ns=EpochNs(T0), kernel_threads=True)
TSV_MEANING = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path = tmp_path_factory.mktemp("records") / "history.db"
    builder = HistoryBuilder(path)
    fill(builder, 2_000, images=200)
    for argv in (["}\n{"], ["a,b", '"q"'], ["\ttab\\"], ["\x1b\x00\x7f"], []):
        builder.life(5, T0, T0 + SECOND, 9, image=builder.image(argv))
    builder.life(6, 5, 10**17, 0)  # 1970
    builder.close()
    with closing(open_reader(path)) as reader:
        yield reader


def rows(db: apsw.Connection) -> list[tuple[Value, ...]]:
    return list(select(db, EVERYTHING).rows())


def test_json_lines_are_the_rows(db: apsw.Connection) -> None:
    text = "".join(encode_all(JSONL, select(db, EVERYTHING)))
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [tuple(line.values()) for line in lines] == rows(db)
    assert {tuple(line) for line in lines} == {COLUMNS}


def test_csv_is_the_rows(db: apsw.Connection) -> None:
    text = header(CSV, COLUMNS) + "".join(encode_all(CSV, select(db, EVERYTHING)))
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(found[0]) == COLUMNS
    assert found[1:] == [["" if v is None else str(v) for v in row] for row in rows(db)]


def test_tsv_is_the_rows(db: apsw.Connection) -> None:
    text = "".join(encode_all(TSV, select(db, EVERYTHING)))
    found = [line.split("\t") for line in text.split("\n")[:-1]]
    wanted = [["" if v is None else str(v) for v in row] for row in rows(db)]
    for line, row in zip(found, wanted, strict=True):
        for cell, value in zip(line, row, strict=True):
            assert cell == value.replace("\\", "\\\\").replace("\t", "\\t").replace(
                "\n", "\\n"
            ).replace("\r", "\\r")


@pytest.mark.parametrize("dialect", [JSONL, CSV, TSV])
def test_the_quick_way_writes_what_the_slow_way_writes(
    db: apsw.Connection, dialect: records.Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [encode(dialect, COLUMNS, row) for row in rows(db)]
    assert "".join(encode_all(dialect, select(db, EVERYTHING))) == "".join(slow)
    monkeypatch.setattr(records, "_MOST_KEPT", 2)
    assert "".join(encode_all(dialect, select(db, EVERYTHING))) == "".join(slow)


values = st.one_of(
    st.none(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), st.text(),
)  # fmt: skip


@given(st.dictionaries(st.text(min_size=1), values, min_size=1))
def test_any_record_is_read_back(record: dict[str, Value]) -> None:
    names, row = tuple(record), tuple(record.values())
    line = encode(JSONL, names, row)
    assert line.count("\n") == 1
    finite = {k: None if v in (float("inf"), float("-inf")) else v for k, v in record.items()}
    assert json.loads(line) == finite
    (found,) = csv.reader(io.StringIO(encode(CSV, names, row), newline=""))
    assert found == ["" if v is None else str(v) for v in row]
    assert encode(TSV, names, row).count("\n") == 1
    assert encode(TSV, names, row).count("\t") == len(names) - 1


def test_bytes_are_text_with_their_numbers() -> None:
    assert encode(JSONL, ("raw",), (b"a\xff\0",)) == '{"raw":"a\\\\xff\\u0000"}\n'


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "history.db")
    images = [builder.image(["true", str(number)]) for number in range(10)]
    for number in range(12_000):
        builder.life(number, T0 + number, T0 + number + 5, 0, image=images[number % 10])
    builder.close()
    with closing(open_reader(builder.path)) as db:
        tracemalloc.start()
        written = sum(map(len, encode_all(JSONL, select(db, EVERYTHING))))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert written > 10_000_000
    assert peak < 3_000_000
