"""``prochist hunt``: Sigma rules against the history, good ones and bad ones."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from prochist.ask import hunt
from prochist.cli.main import run
from tests.history_builder import SECOND, T0, HistoryBuilder
from tests.story import story

pytest.importorskip("sigma.backends.sqlite", reason="contrib/check has it for one Python only")

HEAD = """title: {title}
id: 00000000-0000-4000-8000-000000000001
status: test
level: {level}
tags: [attack.execution, attack.t1059.004]
logsource: {{category: {category}, product: {product}}}
detection:
  selection:
{selection}
  condition: selection
"""


def rule(
    selection: str,
    title: str = "A rule",
    level: str = "high",
    category: str = "process_creation",
    product: str = "linux",
) -> str:
    lines = "\n".join(f"    {line}" for line in selection.splitlines())
    return HEAD.format(
        title=title, level=level, category=category, product=product, selection=lines
    )


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.db"
    story(path)
    return path


def hunted(
    history: Path, capfd: pytest.CaptureFixture[str], *rules: str, more: tuple[str, ...] = ()
) -> tuple[int, Any, str]:
    """Hunt with rules given as text; return the status, the JSON, and what stderr said."""
    folder = history.parent / "rules"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(rules):
        (folder / f"{number}.yml").write_text(text, encoding="utf-8")
    status = run(("hunt", str(folder), "--db", str(history), "-o", "json", *more))
    out, err = capfd.readouterr()
    return status, json.loads(out) if out else None, err


@pytest.mark.parametrize(
    ("selection", "lives"),
    [
        ("Image: /bin/bash", [2]),  # the resolved file
        ("Image: BASH", [2]),  # the path given to execve; case does not matter
        ("Image|endswith: '/WORK'", [3]),
        ("CommandLine|contains: 'A B'", [3]),
        ("CommandLine: env work", [3]),  # an execve before the newest one
        ("CommandLine|re: '^wor. ''a\\sb'''", [3]),
        ("CommandLine|re: '^WORK'", []),  # regular expressions do respect case
        ("CommandLine|re|i: '^WORK'", [3]),
        ("ParentImage|endswith: sshd", [2]),
        ("ParentCommandLine|startswith: BASH", [3, 4, 5]),
        ("User: ANN", [2, 3]),
        ("LogonId: 3", [2, 3]),
        ("CurrentDirectory: /\nImage|endswith: sshd", [1, 8]),
        ("CommandLine|contains|all: ['</script>', onerror=]", [5]),
        ('CommandLine|contains: "\\\\xff \'"', [5]),
        ("CommandLine|contains|cased: ENV", []),
        ("Image|endswith: [/nothing, /of, /that, /name]", []),
    ],
)
def test_a_field_of_a_rule_means_what_sigma_says(
    history: Path, capfd: pytest.CaptureFixture[str], selection: str, lives: list[int]
) -> None:
    status, found, err = hunted(history, capfd, rule(selection))
    assert "not asked" not in err
    assert [id_ for finding in found["findings"] for id_ in sorted(finding["ids"])] == lives
    assert status == (0 if lives else 1)


def test_what_was_found_has_its_rule_count_times_and_examples(
    history: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, found, err = hunted(history, capfd, rule("User: ann", title="Ann ran"))
    [finding] = found["findings"]
    assert finding["title"] == "Ann ran"
    assert finding["tags"] == ["attack.execution", "attack.t1059.004"]
    assert (finding["level"], finding["count"]) == ("high", 2)
    assert finding["first_at"] == "2026-09-21T14:13:23.000000Z"
    assert finding["last_at_ns"] == T0 + 11 * SECOND
    assert finding["examples"][1] == {
        "at": "2026-09-21T14:13:31.000000Z",
        "id": 3,
        "at_ns": T0 + 11 * SECOND,
        "exe": "/usr/bin/env",
        "command_line": "env work",
        "cwd": "/",
        "user": "ann",
        "session": "3",
        "parent_exe": "/bin/bash",
        "parent_command_line": "bash -l",
    }
    assert found["complete"] is False
    assert "1 of 1 rule matched, 8 executions · NOT complete" in err


def test_the_text_is_grouped_by_rule_the_worst_first_and_safe(
    history: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    folder = history.parent / "rules"
    folder.mkdir()
    (folder / "a.yml").write_text(rule("User: ann", title="Low one", level="low"))
    (folder / "b.yml").write_text(rule("CommandLine|contains: owned", title="Bad \u202e"))
    (folder / "c.yaml").write_text(rule("User: nobody", title="Nothing"))
    assert run(("hunt", str(folder), "--db", str(history), "--utc")) == 0
    out, _ = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("high  Bad \\u202e  [attack.execution")
    assert "Low one" in lines[4]
    assert "    2 times, 2026-09-21 14:13:23 to 2026-09-21 14:13:31" in lines
    assert all(line.isprintable() and len(line) <= 100 for line in lines)
    assert "Nothing" not in out


def test_timesketch_gets_an_event_for_each_match(
    history: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = history.parent / "rule.yml"
    file.write_text(rule("User: ann"))
    assert run(("hunt", str(file), "--db", str(history), "-o", "timesketch")) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["process_id"] for line in lines] == [2, 3]
    for line in lines:
        assert {"message", "datetime", "timestamp", "timestamp_desc", "data_type"} <= line.keys()
    assert lines[0]["message"] == "Sigma high: A rule: bash -l"
    assert lines[0]["timestamp"] == (T0 + 3 * SECOND) // 1000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("title: [unclosed", "not YAML: "),
        ("just a sentence", "not a Sigma rule"),
        ("\x00\x01", "not YAML: "),
        ("", "holds no rule"),
        (rule("Image: x", product="windows"), "is for windows, not for linux"),
        (rule("Image: x", category="file_event"), "is for file_event, not for process_creation"),
        (rule("OriginalFileName: x"), "asks for what is not recorded: OriginalFileName"),
        (rule("CommandLine|re: '(unclosed'"), "egular expression"),
        (rule("CommandLine|re: '" + "(?:" * 2_000 + ")" * 2_000 + "'"), "egular expression"),
        (rule("Image: x").replace("condition: selection", "condition: missing"), ""),
        (rule("Image|nosuchmodifier: x"), "not a Sigma rule: "),
    ],
)
def test_a_rule_that_cannot_be_used_is_named_and_does_not_stop_the_others(
    history: Path, capfd: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    bad = history.parent / "bad.yml"
    bad.write_text(text, encoding="utf-8")
    good = history.parent / "good.yml"
    good.write_text(rule("User: ann"))
    assert run(("hunt", str(bad), str(good), "--db", str(history))) == 0
    out, err = capfd.readouterr()
    assert "A rule" in out
    [named] = [line for line in err.splitlines() if line.startswith("not asked: ")]
    assert str(bad) in named
    assert reason in named
    assert "Traceback" not in err
    assert "1 of 1 rule matched" in err


def test_bytes_that_are_no_text_are_named(history: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = history.parent / "bad.yml"
    bad.write_bytes(b"title: \xff\xfe")
    assert run(("hunt", str(bad), "--db", str(history))) == 1
    assert "not YAML: not UTF-8" in capfd.readouterr().err


def test_rules_for_other_systems_in_a_directory_are_counted_and_not_named(
    history: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    others = [rule("Image: x", product="windows")] * 3
    status, found, err = hunted(history, capfd, rule("User: ann"), *others)
    assert status == 0
    assert "not asked: 3 rules that are not for processes on linux" in err
    assert len(found["refused"]) == 3


def test_an_expression_that_explodes_is_ended_and_does_not_stop_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hunt, "PATIENCE_S", 0.3)
    history = tmp_path / "history.db"
    builder = HistoryBuilder(history)
    builder.life(1, T0, T0 + SECOND, 0, image=builder.image(["a" * 60 + "!"]))
    builder.close()
    began = time.monotonic()
    status, found, err = hunted(
        history, capfd, rule("CommandLine|re: '(a+)+$'", title="Bomb"), rule("User: root")
    )
    assert time.monotonic() - began < 20
    assert status == 0
    assert [f["title"] for f in found["findings"]] == ["A rule"]
    assert "(Bomb): takes more than 0.3 s" in err


def test_argv_of_megabytes_is_matched(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "history.db"
    builder = HistoryBuilder(history)
    builder.life(1, T0, T0 + SECOND, 0, image=builder.image(["x", "y" * 3_000_000 + "needle"]))
    builder.close()
    status, found, _ = hunted(
        history,
        capfd,
        rule("CommandLine|contains: NEEDLE", title="Like"),
        rule("CommandLine|re: 'y+needle$'", title="Expression"),
    )
    assert status == 0
    assert {f["title"] for f in found["findings"]} == {"Like", "Expression"}


def test_filters_and_level_narrow_the_hunt(
    history: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    low = rule("User: ann", level="low", title="Low")
    status, found, _ = hunted(history, capfd, rule("User: ann"), low, more=("--level", "medium"))
    assert [f["title"] for f in found["findings"]] == ["A rule"]
    status, found, _ = hunted(history, capfd, more=("--pid", "300"))
    assert [f["ids"] for f in found["findings"]] == [[3], [3]]
    status, found, err = hunted(history, capfd, more=("--since", "2030-01-01", "--user", "bob"))
    assert (status, found["findings"]) == (1, [])
    assert "0 of 2 rules matched, 0 executions" in err


def test_a_directory_without_rules_and_a_rule_that_is_not_there_are_usage_errors(
    history: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(("hunt", str(tmp_path / "empty"), "--db", str(history))) == 2
    assert "there is no *.yml" in capfd.readouterr().err
    assert run(("hunt", str(tmp_path / "none.yml"), "--db", str(history))) == 2
    assert "there is no rule or directory" in capfd.readouterr().err


def test_a_rule_can_only_read(history: Path) -> None:
    """Whatever pySigma makes of a rule, the table is all there is."""
    from prochist.ask.filters import Question
    from prochist.ask.sigma_rules import Refused, Rule
    from prochist.clock import EpochNs
    from prochist.store.database import open_reader

    def asked(query: str) -> object:
        one = Rule("Bad", None, "high", (), "bad.yml", ("Image",), (query,))
        hunting = hunt.Hunt(open_reader(history), Question(EpochNs(T0)))
        [(_, found)] = hunting.ask([one])
        return found

    assert isinstance(asked("SELECT place FROM seen"), set)
    for query in (
        "SELECT 1 AS place) ; DROP TABLE seen; --",
        "SELECT load_extension('x') AS place",
    ):
        assert isinstance(asked(query), Refused)
