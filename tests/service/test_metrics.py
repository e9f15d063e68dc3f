"""Metrics are OpenMetrics text, and the file is never half written."""

import re
from pathlib import Path

import pytest

from prochist.service.metrics import read_sizes, render_metrics, write_metrics

RECORDER = {
    "events": 10, "lost": 1, "lives": 5, "execs": 4, "execs_described": 3, "version": '0"1\\',
    "started_at_ns": 1_500_000_000, "committed_at_ns": 2_500_000_000,
    "facts": {
        "live": 7, "blind": False, "pending": 0, "backlog_bytes": 12,
        "sources": {"events": "proc connector", "cost": None},
    },
}  # fmt: skip
LABEL = r'[a-z]+="(?:[^"\\\n]|\\.)*"'
LINE = re.compile(rf"[a-z_]+(\{{{LABEL}(?:,{LABEL})*\}})? [0-9.e+-]+")


def test_every_sample_belongs_to_the_family_above_it_and_the_end_is_marked() -> None:
    text = render_metrics(RECORDER, {"up": 1, "gaps": 2, "database_bytes": 4096})
    assert text.endswith("# EOF\n")
    kind = family = ""
    for line in text.splitlines()[:-1]:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
        elif line.startswith("# "):
            assert line.split(" ")[2] == family
        else:
            assert LINE.fullmatch(line), line
            suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
            assert re.split(r"[ {]", line)[0] == family + suffix


def test_values_are_those_that_are_known() -> None:
    lines = render_metrics(RECORDER, {"up": 1}).splitlines()
    assert "prochist_up 1" in lines
    assert "prochist_events_total 10" in lines
    assert "prochist_blind 0" in lines
    assert "prochist_start_timestamp_seconds 1.5" in lines
    assert 'prochist_source{of="cost",source=""} 0' in lines
    assert 'prochist_build_info{version="0\\"1\\\\"} 1' in lines
    assert not any(line.startswith("prochist_gaps") for line in lines)


def test_before_the_first_recording_there_is_only_what_is_known() -> None:
    assert render_metrics(None, {"up": 0}).splitlines()[-2:] == ["prochist_up 0", "# EOF"]


def test_the_file_is_replaced_as_a_whole_and_readable_by_everybody(tmp_path: Path) -> None:
    path = tmp_path / "prochist.prom"
    path.write_text("old")
    with path.open() as reader:
        write_metrics(path, "new\n")
        assert reader.read() == "old"
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x.prom").mkdir()
    with pytest.raises(OSError, match=r"x\.prom"):
        write_metrics(tmp_path / "x.prom", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "h.db").write_bytes(b"x" * 10)
    (tmp_path / "h.db-wal").write_bytes(b"x" * 20)
    sizes = read_sizes(tmp_path / "h.db")
    assert (sizes["database_bytes"], sizes["log_bytes"]) == (10, 20)
    assert sizes["free_bytes"] > 0
    assert "database_bytes" not in read_sizes(tmp_path / "missing.db")
