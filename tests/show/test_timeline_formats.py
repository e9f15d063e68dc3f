"""A timeline for people and for other tools, each checked by what will read it."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from prochist.ask.completeness import judge
from prochist.ask.filters import Question
from prochist.ask.timeline import Event, Timeline
from prochist.clock import EpochNs
from prochist.show import ecs, perfetto, timeline_text, timesketch
from prochist.show.table import Style
from prochist.store.database import open_reader
from tests.history_builder import SECOND, T0, HistoryBuilder
from tests.story import HOSTILE, SECOND_BOOT, story

NOW = EpochNs(T0 + 1100 * SECOND)


def events_of(path: Path) -> list[Event]:
    db = open_reader(path)
    found = Timeline(db, Question(NOW), limit=None)
    return list(found.between(judge(db, None, None, now_ns=NOW, recording=True)))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    path = tmp_path_factory.mktemp("story") / "history.db"
    story(path)
    return events_of(path)


@pytest.fixture(scope="module")
def megabytes(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    path = tmp_path_factory.mktemp("megabytes") / "history.db"
    builder = HistoryBuilder(path)
    builder.life(1, T0, T0 + SECOND, 0, image=builder.image(["x", "\x1b" * 2_000_000]))
    builder.close()
    return events_of(path)


# --- text ---


def text(events: list[Event], columns: int | None = None) -> list[str]:
    return list(timeline_text.lines(events, Style(columns, UTC, NOW)))


def test_the_text_reads_like_a_log_with_a_tree_in_the_margin(events: list[Event]) -> None:
    lines = [line.rstrip("\n") for line in text(events)]
    assert lines[0] == "── Monday 2026-09-21 +0000"
    assert lines[1] == ("13:13:20.000000  1     100 root     ┌ was running  /usr/sbin/sshd -D  ← 1")
    assert "══ builder booted, kernel 6.18.0" in lines[2]
    assert lines[3] == (
        "14:13:21.000000  2     200 ann      │ ┌ started  bash -l  ← 100 sshd, id 1"
    )
    assert "│ │ ├ exec  work 'a b'" in lines[10]
    assert lines[11].endswith("│ │ ├ traced by 200 (id 2)")
    assert lines[15].endswith("│ │ └ killed by SIGSEGV after 10.00s, core dumped  work 'a b'")
    assert "rows may be missing: overrun, 1.00s, 812 events lost" in "\n".join(lines)
    assert "ended unseen, at the latest" in "\n".join(lines)


def test_nothing_hostile_reaches_a_terminal_and_lines_fit(events: list[Event]) -> None:
    for line in text(events, 80):
        assert line[:-1].isprintable()
        assert len(line) <= 81
    assert "\\x1b]0;owned\\x07\\n" in "".join(text(events))


def test_a_long_fork_chain_keeps_its_text_on_the_screen(tmp_path: Path) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    for number in range(100):
        builder.life(number + 1, T0 + number, None, parent_id=number or None)
    builder.close()
    assert max(map(len, text(events_of(tmp_path / "h.db"), 120))) <= 121
    assert "started  true" in text(events_of(tmp_path / "h.db"), 120)[-2]


def test_argv_of_megabytes_does_not_make_lines_of_megabytes(megabytes: list[Event]) -> None:
    assert max(map(len, text(megabytes))) < 40_000


# --- Timesketch ---


def sketched(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in timesketch.lines(events)]


def test_timesketch_gets_what_it_demands_one_event_a_line(events: list[Event]) -> None:
    found = sketched(events)
    assert len(found) == len(events)
    for event, line in zip(events, found, strict=True):
        assert line["timestamp"] == event.at_ns // 1000
        assert line["datetime"].endswith("+00:00")
        assert {"message", "timestamp_desc", "data_type"} <= line.keys()
        assert "" not in line.values()
    exec_ = next(line for line in found if line["timestamp_desc"] == "Process Executed")
    assert exec_["message"] == "[200] exec: bash -l"
    assert (exec_["username"], exec_["parent_executable"]) == ("ann", "/usr/bin/sshd")


def test_the_real_importer_of_timesketch_takes_every_line(
    events: list[Event], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    importer = pytest.importorskip(
        "timesketch_import_client.importer", reason="contrib/check has it for one Python only"
    )
    uploaded: list[list[dict[str, Any]]] = []

    class Importer(importer.ImportStreamer):  # type: ignore[misc,name-defined] # untyped
        """The real one up to where it would talk to a server."""

        def _ready(self) -> None:
            pass

        def _upload_data_buffer(self, end_stream: bool) -> None:  # noqa: ARG002 - theirs
            uploaded.append([*self._data_lines])

        def close(self) -> None:
            self.flush()

    file = tmp_path / "timeline.jsonl"
    file.write_text("".join(timesketch.lines(events)), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        streamer = Importer()
        streamer.add_file(str(file))
        streamer.flush()
    assert caplog.records == []
    taken = [line for lines in uploaded for line in lines]
    assert len(taken) == len(events)
    for line, mine in zip(taken, sketched(events), strict=True):
        assert line["message"] == mine["message"]
        assert line["timestamp_desc"] == mine["timestamp_desc"]


def test_timesketch_keeps_hostile_argv_as_data(events: list[Event]) -> None:
    found = next(e for e in sketched(events) if e.get("comm", "").startswith("<b>"))
    assert "document.title" in found["command_line"]
    assert found["command_line"].count("\x1b") == HOSTILE.count("\x1b")


def test_timesketch_shortens_the_message_and_nothing_else(megabytes: list[Event]) -> None:
    [found] = [e for e in sketched(megabytes) if e["event"] == "started"]
    assert len(found["message"]) < 2_000
    assert len(found["command_line"]) > 2_000_000


# --- ECS ---

# Field names of the Elastic Common Schema that this format uses, each looked up in the published
# list of 9.3.0-dev; the types below are expected for their category by the documentation.
# Source: github.com/elastic/ecs, generated/csv/fields.csv at commit da93d4643355;
# elastic.co/docs/reference/ecs/ecs-allowed-values-event-category.
ECS_FIELDS = {
    *("@timestamp", "container.id", "ecs.version", "event.action", "event.category"),
    *("event.dataset", "event.duration", "event.end", "event.kind", "event.module"),
    *("event.outcome", "event.provider", "event.start", "event.type", "host.boot.id"),
    *("host.hostname", "host.name", "message", "process.args", "process.args_count"),
    *("process.command_line", "process.end", "process.entity_id", "process.executable"),
    *("process.exit_code", "process.group.id", "process.name", "process.parent.command_line"),
    *("process.parent.entity_id", "process.parent.executable", "process.parent.name"),
    *("process.parent.pid", "process.pid", "process.real_group.id", "process.real_user.id"),
    *("process.session_leader.pid", "process.start", "process.working_directory"),
    *("user.effective.id", "user.id", "user.name"),
}
ECS_TYPES = {"process": {"change", "end", "info", "start"}, "host": {"info", "start"}}


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_field_names_are_those_of_ecs_and_all_others_are_under_prochist(
    events: list[Event],
) -> None:
    names = {name for line in ecs.lines(events) for name in flat(json.loads(line))}
    assert {name for name in names if not name.startswith("prochist.")} == ECS_FIELDS


def test_ecs_events_have_values_that_ecs_allows(events: list[Event]) -> None:
    for line in ecs.lines(events):
        event = json.loads(line)["event"]
        assert event["kind"] == "event"
        assert set(event["type"]) <= ECS_TYPES[event["category"][0]]
        assert event.get("outcome") in (None, "success", "failure", "unknown")


def test_ecs_tells_starts_changes_and_ends_of_one_entity(events: list[Event]) -> None:
    mine = [ecs.document(e) for e in events if e.subject is not None and e.subject.life[0] == 3]
    assert [d["event"]["type"][0] for d in mine] == ["start", *["change"] * 6, "end"]
    assert len({d["process"]["entity_id"] for d in mine}) == 1
    assert mine[2]["process"]["args"] == ["work", "a b"]
    assert mine[-1]["prochist"]["signal"] == {"number": 11, "name": "SIGSEGV"}
    assert mine[-1]["event"]["duration"] == 10 * SECOND
    assert mine[0]["process"]["parent"]["entity_id"].endswith(":2")
    failed = next(d for d in map(ecs.document, events) if d["event"].get("outcome") == "failure")
    assert failed["process"]["pid"] == 300
    hosts = {ecs.document(e)["host"]["boot"]["id"] for e in events if e.kind != "gap"}
    assert len(hosts) == 2
    assert SECOND_BOOT in hosts


# --- Perfetto ---


def trace(events: list[Event], **how: Any) -> dict[str, Any]:  # noqa: ANN401 - options
    found: dict[str, Any] = json.loads("".join(perfetto.pieces(events, **how)))
    return found


def check_trace(found: dict[str, Any]) -> None:
    """Demand what the importer of Perfetto demands of asynchronous events.

    Source: src/trace_processor/importers/json/json_trace_parser.cc: the track of b, e and n is
    of name, pid and id; without a pid or an id an event is dropped.
    """
    opened: dict[tuple[str, int, str], int] = {}
    for record in found["traceEvents"]:
        assert record["ph"] in "benMi"
        assert isinstance(record["pid"], int)
        assert record["ts"] >= 0
        if record["ph"] not in "ben":
            continue
        track = (record["name"], record["pid"], record["id"])
        if record["ph"] == "b":
            assert track not in opened
            opened[track] = 0
        assert track in opened
        if record["ph"] == "e":
            opened[track] += 1
    assert max(opened.values()) == 1


@pytest.mark.parametrize("group", perfetto.GROUPS)
def test_a_trace_has_a_track_a_life_in_groups_that_have_names(
    events: list[Event], group: str
) -> None:
    found = trace(events, group=group)
    check_trace(found)
    begins = [r for r in found["traceEvents"] if r["ph"] == "b"]
    assert len(begins) == 7
    names = {r["args"]["name"] for r in found["traceEvents"] if r["ph"] == "M"}
    expected = {"ssh.service", "no unit", "f00d" * 16} if group == "unit" else {"root", "ann", "?"}
    assert names == expected
    assert {r["pid"] for r in begins} == set(range(1, len(names) + 1))


def test_flows_lead_from_the_parent_to_the_child_on_request(events: list[Event]) -> None:
    assert "bind_id" not in json.dumps(trace(events))
    bound = [r for r in trace(events, flows=True)["traceEvents"] if "bind_id" in r]
    out = {r["bind_id"]: r for r in bound if r.get("flow_out")}
    into = {r["bind_id"]: r for r in bound if r.get("flow_in")}
    assert out.keys() == into.keys() == {"0x2", "0x3", "0x4", "0x5"}
    assert out["0x3"]["id"] == "0x2"
    assert into["0x3"]["id"] == "0x3"
    check_trace(trace(events, flows=True))


def test_a_life_that_ends_after_the_window_has_its_end_all_the_same(events: list[Event]) -> None:
    found = trace(events[:12])
    check_trace(found)
    ends = [r for r in found["traceEvents"] if r["ph"] == "e"]
    assert {r["id"] for r in ends} == {"0x2", "0x3"}


@pytest.mark.parametrize("form", [timesketch.lines, ecs.lines, perfetto.pieces])
def test_nothing_at_all_is_still_a_valid_document(form: Any) -> None:  # noqa: ANN401
    text = "".join(form([]))
    assert text == "" or json.loads(text)["traceEvents"] == []
