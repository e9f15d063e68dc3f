"""Every filter against a plain-Python model, and the indexes that they use."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.ask import patterns
from prochist.ask.filters import FILTERS, Question, find_boots, find_lives, plan
from prochist.ask.processes import COLUMNS, count, select
from prochist.clock import EpochNs
from prochist.errors import UsageError
from prochist.store.database import open_reader
from tests.history_builder import BOOT_ID, SECOND, T0, HistoryBuilder, fill

LIVES = 1_500
NOW = EpochNs(T0 + 400 * SECOND)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path = tmp_path_factory.mktemp("filters") / "history.db"
    builder = HistoryBuilder(path)
    builder.boot(BOOT_ID)
    fill(builder, LIVES, images=60)
    # Lives at the edges: of no length, of a minute exactly, beyond one, with no start.
    other = builder.boot("0b0b0b0b-1111-4222-8333-444444444444", at_ns=T0 + 1000 * SECOND)
    for length in (0, 60 * SECOND - 1, 60 * SECOND, 60 * SECOND + 1, 300 * SECOND):
        builder.life(77, T0 + 10 * SECOND, T0 + 10 * SECOND + length, 0, boot=other)
        builder.life(78, None, T0 + 10 * SECOND + length, 256)
    builder.life(2, T0 - 500 * SECOND, None, None, is_kernel_thread=1, image=None)
    builder.close()
    with closing(open_reader(path)) as reader:
        yield reader


@pytest.fixture(scope="module")
def rows(db: apsw.Connection) -> list[Row]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in db.execute("SELECT * FROM processes")]


def found(db: apsw.Connection, **asked: Any) -> list[int]:  # noqa: ANN401
    answer = select(db, Question(now_ns=NOW, **asked))
    return [int(row[0]) for row in answer.rows()]  # type: ignore[arg-type]


def expected(rows: list[Row], keep: Callable[[Row], object], *, kernel: bool = False) -> list[int]:
    kept = [r for r in rows if keep(r) and (kernel or not r["is_kernel_thread"])]
    kept.sort(key=lambda r: (begin(r), r["id"]))
    return [r["id"] for r in kept]


def begin(row: Row) -> int:
    return int(row["ended_at_ns"] if row["started_at_ns"] is None else row["started_at_ns"])


def end(row: Row) -> float:
    return float("inf") if row["ended_at_ns"] is None else int(row["ended_at_ns"])


instants = st.integers(T0 - 5 * SECOND, T0 + 400 * SECOND)


@st.composite
def edges(draw: st.DrawFn) -> int:
    """Draw an instant, most often one at which a life of the edge cases begins or ends."""
    lengths = (0, 60 * SECOND - 1, 60 * SECOND, 60 * SECOND + 1, 300 * SECOND)
    edge = T0 + 10 * SECOND + draw(st.sampled_from(lengths)) + draw(st.integers(-1, 1))
    return draw(st.one_of(st.just(edge), instants))


@given(edges(), st.one_of(st.none(), edges()))
def test_a_window_keeps_the_lives_that_overlap_it(
    db: apsw.Connection, rows: list[Row], since: int, until: int | None
) -> None:
    if until is not None and until < since:
        since, until = until, since
    last = float("inf") if until is None else until
    want = expected(rows, lambda r: begin(r) <= last and end(r) >= since)
    assert found(db, since_ns=since, until_ns=until) == want
    assert count(db, Question(now_ns=NOW, since_ns=since, until_ns=until)) == len(want)  # type: ignore[arg-type]


@given(edges())
def test_until_alone_keeps_what_began_before(
    db: apsw.Connection, rows: list[Row], until: int
) -> None:
    assert found(db, until_ns=until) == expected(rows, lambda r: begin(r) <= until)


@given(edges())
def test_alive_at_is_exact(db: apsw.Connection, rows: list[Row], at: int) -> None:
    want = expected(
        rows, lambda r: r["started_at_ns"] is not None and r["started_at_ns"] <= at < end(r)
    )
    assert found(db, alive_at_ns=at) == want


@given(edges(), edges())
def test_exited_and_started_windows_mean_just_that(
    db: apsw.Connection, rows: list[Row], one: int, two: int
) -> None:
    since, until = sorted((one, two))
    want = expected(rows, lambda r: since <= end(r) <= until)
    assert found(db, exited_since_ns=since, exited_until_ns=until) == want
    want = expected(
        rows, lambda r: r["started_at_ns"] is not None and since <= r["started_at_ns"] <= until
    )
    assert found(db, started_since_ns=since, started_until_ns=until) == want


def failed(row: Row) -> bool:
    return bool(row["exit_code"] or row["term_signal"] is not None)


SIMPLE: list[tuple[str, dict[str, Any], Callable[[Row], object]]] = [
    ("running", {"running": True}, lambda r: r["state"] == "running"),
    ("exited", {"exited": True}, lambda r: r["state"] != "running"),
    ("failed", {"failed": True}, failed),
    ("exit", {"exit_codes": (1, 127)}, lambda r: r["exit_code"] in (1, 127)),
    ("exit", {"exit_codes": (0,)}, lambda r: r["exit_code"] == 0),
    ("signal", {"signals": (9, 11)}, lambda r: r["term_signal"] in (9, 11)),
    ("id", {"ids": (3, 5, 10**15)}, lambda r: r["id"] in (3, 5)),
    ("pid", {"pids": (300, 77)}, lambda r: r["pid"] in (300, 77)),
    ("ppid", {"ppids": (310, 1)}, lambda r: r["ppid"] in (310, 1)),
    ("comm", {"comms": ("g*", "sh")}, lambda r: r["comm"] and re.match("g|sh$", r["comm"])),
    ("exe", {"exes": ("c?rl",)}, lambda r: r["exe"] == "/usr/bin/curl"),
    ("exe", {"exes": ("/usr/*/[cg]*",)}, lambda r: fnmatchcase(r["exe"] or "", "/usr/*/[cg]*")),
    ("grep", {"greps": ("n=7 ",)}, lambda r: "n=7 " in (r["command_line"] or "")),
    ("grep", {"greps": ("^sh", "x$")}, lambda r: re.search("^sh|x$", r["command_line"] or "")),
    ("user", {"users": ("ann", "65534")}, lambda r: r["user"] == "ann" or r["uid"] == 65534),
    ("login-user", {"login_users": ("ann",)}, lambda r: r["login_user"] == "ann"),
    ("login-user", {"login_users": ("1000",)}, lambda r: r["login_uid"] == 1000),
    ("unit", {"units": ("cron",)}, lambda r: r["unit"] == "cron.service"),
    ("unit", {"units": ("cr*.service",)}, lambda r: r["unit"] == "cron.service"),
    ("container", {"containers": ("f00d",)}, lambda r: r["container_id"] is not None),
    ("tty", {"ttys": ("/dev/pts/0",)}, lambda r: r["tty"] == "pts/0"),
    ("session", {"sessions": (3,)}, lambda r: r["session"] == 3),
    ("boot", {"boots": (BOOT_ID,)}, lambda r: r["boot_id"] == BOOT_ID),
    (
        "max-duration",
        {"max_duration_ns": 10**6, "exited": True},
        lambda r: r["duration_s"] is not None and r["duration_s"] <= 0.001,
    ),
    (
        "min-duration",
        {"min_duration_ns": 60 * SECOND},
        lambda r: (
            r["started_at_ns"] is not None and min(end(r), NOW) - r["started_at_ns"] >= 60 * SECOND
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("option", "asked", "keep"), SIMPLE)
def test_a_filter_keeps_what_its_option_says(
    db: apsw.Connection,
    rows: list[Row],
    option: str,
    asked: dict[str, Any],
    keep: Callable[[Row], object],
) -> None:
    assert option in {f.option for f in FILTERS} | {"comm", "exe", "grep"}
    want = expected(rows, keep)
    assert want or option == "container"
    assert found(db, **asked) == want
    assert count(db, Question(now_ns=NOW, **asked)) == len(want)
    # The same by another index, and with a limit: the newest of them.
    window = {"since_ns": T0 + 20 * SECOND, "until_ns": T0 + 100 * SECOND}
    inside = expected(
        rows,
        lambda r: keep(r) and begin(r) <= window["until_ns"] and end(r) >= window["since_ns"],
    )
    assert found(db, **asked, **window) == inside
    limited = select(db, Question(now_ns=NOW, **asked), limit=3)
    assert [row[0] for row in limited.rows()] == want[-3:]


@given(st.lists(st.sampled_from(SIMPLE), min_size=2, max_size=3, unique_by=lambda s: tuple(s[1])))
def test_options_of_different_kinds_are_and(
    db: apsw.Connection, rows: list[Row], some: list[Any]
) -> None:
    asked: dict[str, Any] = {}
    for _, more, _ in some:
        asked |= more
    want = expected(rows, lambda r: all(keep(r) for _, _, keep in some))
    assert found(db, **asked) == want


def test_kernel_threads_are_left_out_unless_asked_for(db: apsw.Connection, rows: list[Row]) -> None:
    assert found(db, kernel_threads=True) == expected(rows, lambda _: True, kernel=True)
    assert found(db, pids=(2,)) == expected(rows, lambda r: r["pid"] == 2, kernel=True)
    assert found(db, comms=("*",)) == expected(rows, lambda r: r["comm"])


@given(st.integers(1, LIVES))
def test_kin_follow_lifetimes(db: apsw.Connection, rows: list[Row], id_: int) -> None:
    parents = {r["id"]: r["parent_id"] for r in rows}

    def above(id_: int) -> Iterator[int]:
        while (parent := parents[id_]) is not None:
            yield parent
            id_ = parent

    want = expected(rows, lambda r: id_ in set(above(r["id"])))
    assert found(db, descendants_of=(id_,)) == want
    ancestors = set(above(id_))
    assert found(db, ancestors_of=(id_,)) == expected(rows, lambda r: r["id"] in ancestors)


def test_kin_of_nobody_are_nobody(db: apsw.Connection) -> None:
    assert found(db, descendants_of=()) == []
    assert found(db, ancestors_of=()) == []


def test_an_impossible_window_is_refused(db: apsw.Connection) -> None:
    with pytest.raises(UsageError, match="--exited-since is later"):
        found(db, exited_since_ns=2, exited_until_ns=1)


PLANS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["lifetime_started (started_at_ns=?)", "lifetime_started (started_at_ns>?)"]),
    ({"exited_since_ns": T0}, ["lifetime_ended (ended_at_ns>?)"]),
    ({"exited_since_ns": T0, "failed": True}, ["lifetime_failed (ended_at_ns>?)"]),
    ({"since_ns": T0, "failed": True}, ["lifetime_failed (ended_at_ns>?)"]),
    ({"since_ns": T0, "signals": (9,)}, ["lifetime_failed (ended_at_ns>?)"]),
    (
        {"started_since_ns": T0, "started_until_ns": T0},
        ["lifetime_started (started_at_ns>? AND started_at_ns<?)"],
    ),
    (
        {"alive_at_ns": T0},
        [
            "lifetime_started (started_at_ns=?)",
            "lifetime_long (started_at_ns<?)",
            "lifetime_running",
            "lifetime_started (started_at_ns>? AND started_at_ns<?)",
        ],
    ),
    ({"pids": (1,)}, ["lifetime_pid (pid=?)"]),
    ({"ids": (1,)}, ["INTEGER PRIMARY KEY (rowid=?)"]),
    ({"ppids": (1,)}, ["INTEGER PRIMARY KEY (rowid=?)", "lifetime_parent (parent_id=?)"]),
    ({"running": True}, ["lifetime_running"]),
    ({"greps": ("n=7 ",)}, ["lifetime_image (image=?)"]),
    ({"descendants_of": (1,)}, ["lifetime_parent (parent_id=?)", "INTEGER PRIMARY KEY (rowid=?)"]),
    ({"ancestors_of": (1,)}, ["INTEGER PRIMARY KEY (rowid=?)"]),
]


@pytest.mark.parametrize(("asked", "indexes"), PLANS)
def test_lives_are_found_by_an_index(
    db: apsw.Connection, asked: dict[str, Any], indexes: list[str]
) -> None:
    planned = plan(db, Question(now_ns=NOW, **asked))
    sql = f"EXPLAIN QUERY PLAN {planned.select('l.id AS id')} ORDER BY at DESC, id DESC LIMIT 100"
    steps = [str(row[3]) for row in db.execute(sql, dict(planned.values))]
    for index in indexes:
        assert any(index in step for step in steps), steps
    assert not any(re.match(r"SCAN l(?! USING INDEX lifetime_running)", s) for s in steps), steps


def test_the_newest_are_read_from_the_index_without_sorting(db: apsw.Connection) -> None:
    planned = plan(db, Question(now_ns=NOW))
    sql = f"EXPLAIN QUERY PLAN {planned.select('l.id AS id')} ORDER BY at DESC, id DESC LIMIT 100"
    steps = [str(row[3]) for row in db.execute(sql, dict(planned.values))]
    # Only the few lives without a start are sorted; the walk through the others ends at the limit.
    assert steps.index("USE TEMP B-TREE FOR ORDER BY") < steps.index("RIGHT")
    assert steps.count("USE TEMP B-TREE FOR ORDER BY") == 1


def test_a_number_is_a_pid_first_and_an_id_where_no_life_had_it(db: apsw.Connection) -> None:
    assert len(find_lives(db, "77")) == 5
    assert find_lives(db, "id:77") == (77,)
    assert find_lives(db, "5") == (5,)
    assert find_lives(db, "pid:5") == ()
    assert find_lives(db, "id:99999999") == ()
    for text in ("", "-1", "sh", "id:", "1 2", "٣"):
        with pytest.raises(UsageError, match="not a process"):
            find_lives(db, text)


def test_boots_are_counted_back_or_named_by_their_beginning(db: apsw.Connection) -> None:
    newest = "0b0b0b0b-1111-4222-8333-444444444444"
    assert find_boots(db, "0") == (newest,)
    assert find_boots(db, "-1") == (BOOT_ID,)
    assert find_boots(db, "0a0a") == (BOOT_ID,)
    assert find_boots(db, BOOT_ID.replace("-", "").upper()) == (BOOT_ID,)
    for text, words in (("-2", "no boot"), ("0b0b0c", "no boot"), ("", "no boot")):
        with pytest.raises(UsageError, match=words):
            find_boots(db, text)


@pytest.mark.parametrize("grep", ["(", "*", "a{2,1}", "(?P<x", "[", "(?<=a+)b"])
def test_what_is_no_regular_expression_is_refused(db: apsw.Connection, grep: str) -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        found(db, greps=(grep,))


def test_a_regular_expression_that_backtracks_for_ever_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.db"
    builder = HistoryBuilder(path)
    builder.life(5, T0, T0 + 1, 0, image=builder.image(["a" * 50 + "b"]))
    builder.close()
    monkeypatch.setattr(patterns, "PATIENCE_S", 0.2)
    started = time.monotonic()
    with (
        closing(open_reader(path)) as db,
        pytest.raises(UsageError, match=r"takes more than 0\.2 s"),
    ):
        found(db, greps=("(a+)+$",))
    assert time.monotonic() - started < 5


@given(st.text(max_size=8))
def test_any_text_is_a_pattern_or_refused(db: apsw.Connection, text: str) -> None:
    for name in ("comms", "exes", "greps", "users", "units", "containers", "ttys"):
        try:
            found(db, **{name: (text,)})
        except UsageError:
            assert name == "greps"


def test_hostile_values_stay_values(db: apsw.Connection, rows: list[Row]) -> None:
    hostile = "'); DROP TABLE lifetime; --"
    for name in ("comms", "exes", "greps", "users", "units", "containers", "ttys"):
        with pytest.raises(UsageError) if name == "greps" else closing(db.cursor()):
            assert found(db, **{name: (hostile,)}) == []
    assert len(found(db, kernel_threads=True)) == len(rows)
