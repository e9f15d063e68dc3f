"""``prochist sql`` without a statement: comfortable, and without a way to write or to leave."""

import time
from pathlib import Path

import apsw
import pytest

from prochist.ask.sql import statements
from prochist.cli.shell import Shell, history_file
from prochist.store.database import open_reader
from tests.command import Terminal, run
from tests.history_builder import SECOND, T0, HistoryBuilder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shell") / "history.db"
    builder = HistoryBuilder(path)
    builder.life(7, T0, T0 + SECOND, 256, image=builder.image(["grep", "\x1b[31mred"]))
    builder.recording()
    builder.close()
    return path


def test_statements_over_several_lines_and_several_in_one(path: Path) -> None:
    done = run(path, "sql", stdin="select pid\nfrom processes;select ';' as x; select 3\n;\n")
    assert done.stdout == "pid\n  7\nx\n;\n3\n3\n"
    assert done.returncode == 0


def test_an_error_ends_a_script_with_its_status(path: Path) -> None:
    done = run(path, "sql", stdin="select nonsense;\nselect 1;\n")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: no such column: nonsense\nHint: ")
    assert run(path, "sql", stdin="select 1").returncode == 2  # without its semicolon


@pytest.mark.parametrize(
    "line",
    [
        "ATTACH '{new}' AS other;",
        "VACUUM INTO '{new}';",
        "VACUUM;",
        "CREATE TABLE t (a);",
        "CREATE TEMP TABLE t (a);",
        "CREATE VIRTUAL TABLE t USING fts5 (a);",
        "DELETE FROM lifetime;",
        "UPDATE counter SET batch = 0;",
        "INSERT INTO boot DEFAULT VALUES;",
        "DROP VIEW processes;",
        "REINDEX;",
        "ANALYZE;",
        "BEGIN;",
        "SAVEPOINT a;",
        "PRAGMA journal_mode = DELETE;",
        "PRAGMA user_version = 9;",
        "PRAGMA writable_schema = ON;",
        "PRAGMA temp_store_directory = '{folder}';",
        "PRAGMA wal_checkpoint;",
        "PRAGMA incremental_vacuum;",
        "PRAGMA optimize;",
        "SELECT load_extension('{new}');",
        "SELECT readfile('/etc/passwd');",
        "SELECT writefile('{new}', 'x');",
        "SELECT edit('x');",
        "SELECT fts3_tokenizer('simple');",
        "SELECT * FROM fsdir('/');",
        ".shell touch {new}",
        ".system touch {new}",
        ".read /etc/passwd",
        ".output {new}",
        ".once {new}",
        ".open {new}",
        ".backup {new}",
        ".save {new}",
        ".dump",
        ".import /etc/passwd t",
        ".load {new}",
        ".log {new}",
        ".cd /",
        ".py import os",
        ".excel",
        "!touch {new}",
        ".connection",
        ".restore {new}",
    ],
)
@pytest.mark.parametrize("more", [{}, {"SUDO_UID": "1000"}])
def test_there_is_no_way_to_write_or_to_leave(
    path: Path, tmp_path: Path, line: str, more: dict[str, str]
) -> None:
    db = open_reader(path)
    shell = Shell(db, mode="column", limit_s=5, header=True)
    before = path.read_bytes()
    lines = iter([line.format(new=tmp_path / "new", folder=tmp_path), ";"])

    def read(_prompt: str) -> str:
        for text in lines:
            return text
        raise EOFError

    assert more is not None
    assert shell.run(read, goes_on=False) == 2
    assert list(tmp_path.iterdir()) == []
    assert path.read_bytes() == before
    db.close()


def test_limits_hold_even_without_the_authorizer(path: Path, tmp_path: Path) -> None:
    db = open_reader(path)
    Shell(db, mode="column", limit_s=5, header=True)
    db.authorizer = None
    with pytest.raises(apsw.SQLError, match="too many attached"):
        db.execute(f"ATTACH '{tmp_path / 'new'}' AS other")
    with pytest.raises(apsw.SQLError, match="not authorized"):
        db.execute("SELECT load_extension('x')")
    with pytest.raises(apsw.ReadOnlyError):
        db.execute("DELETE FROM lifetime")
    db.close()


def test_a_statement_without_end_is_ended(path: Path) -> None:
    endless = (
        "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c;"
    )
    done = run(path, "sql", stdin=f".timeout 0.1\n{endless}\n")
    assert done.stderr.startswith("Error: the statement takes more than 0.1 s\n")


def test_a_person_is_greeted_completed_and_remembered(path: Path, tmp_path: Path) -> None:
    home, state = str(tmp_path), str(tmp_path / "state")
    terminal = Terminal(path, "sql", PAGER="", HOME=home, XDG_STATE_HOME=state)
    terminal.wait_for("prochist> ")
    assert "Read-only." in terminal.text
    terminal.type("select pid from processe\t;\n")
    terminal.wait_for("  7\r\nprochist> ")
    terminal.type(".nonsense\n")
    terminal.wait_for("see them with .help\r\nprochist> ")
    terminal.type("select\n")
    terminal.wait_for("     ...> ")
    terminal.text = ""
    time.sleep(0.3)  # a signal just before readline waits is only seen after the next key
    terminal.type("\x03")
    terminal.wait_for("prochist> ")
    terminal.type("select 41 + 1;\n")
    terminal.wait_for("42\r\nprochist> ")
    terminal.type("\x04")
    seen = terminal.end()
    assert seen.status == 0
    kept = tmp_path / "state" / "prochist" / "sql_history"
    assert "select pid from processes" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_under_sudo_nothing_is_written_down(path: Path, tmp_path: Path) -> None:
    # A readline that read this would say so: it complains about what it does not understand.
    (tmp_path / "inputrc").write_text("secret of somebody else\n")
    home, inputrc = str(tmp_path), str(tmp_path / "inputrc")
    terminal = Terminal(
        path, "sql", PAGER="", HOME=home, SUDO_UID="1000", INPUTRC=inputrc, XDG_STATE_HOME=home
    )
    terminal.wait_for("prochist> ")
    terminal.type("select 6 * 7;\n")
    terminal.wait_for("42\r\nprochist> ")
    terminal.type(".quit\n")
    seen = terminal.end()
    assert seen.status == 0
    assert "secret" not in seen.text
    assert [p.name for p in tmp_path.iterdir()] == ["inputrc"]
    assert history_file({"SUDO_UID": "0", "HOME": "/root"}) is None


def test_argv_cannot_command_the_terminal(path: Path) -> None:
    for mode in ("box", "column", "line", "list", "markdown", "table", "html", "tcl", "quote"):
        done = run(path, "sql", stdin=f".mode {mode}\nselect command_line from processes;\n")
        assert "31mred" in done.stdout
        assert "\x1b" not in done.stdout, mode


def test_commands_that_set_something(path: Path) -> None:
    script = ".headers off\n.nullvalue (none)\n.mode list\nselect pid, tty from processes;\n"
    assert run(path, "sql", stdin=script).stdout == "7|(none)\n"
    assert "processes\n" in run(path, "sql", stdin=".tables\n").stdout
    assert run(path, "sql", stdin=".schema gap\n").stdout.startswith("CREATE TABLE gap")
    assert run(path, "sql", stdin=".help\n").stdout.startswith(".exit, .quit")
    assert run(path, "sql", stdin=".mode nonsense\n").returncode == 2


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("select 1; select 2;", ["select 1;", " select 2;"]),
        ("select ';', \"a;b\" -- c;\n;", ["select ';', \"a;b\" -- c;\n;"]),
        ("\n", []),
        ("select 1", ["select 1;"]),
        (" ; ", []),
    ],
)
def test_a_text_is_taken_apart_at_its_statements(text: str, want: list[str]) -> None:
    assert list(statements(text)) == want
