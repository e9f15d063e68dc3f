"""``prochist sql`` without a statement: an interactive shell that can only read.

It is small on purpose. There is no command in it that names a file or a program, so that
nothing has to be forbidden; statements go through the same authorizer as ``prochist sql
STATEMENT``. Under sudo nothing of the caller's is read (``~/.inputrc``) and the history of
lines stays in memory.

Source: sqlite.org/cli.html for the names of commands and modes; man page readline(3).
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prochist.ask.sql import Statement, forbid_all_but_reading, is_complete, statements
from prochist.cli.options import Times, terminal_columns, wants_colour
from prochist.cli.screen import say, screen, write
from prochist.errors import ProchistError, UsageError
from prochist.show import modes
from prochist.show.table import Style
from prochist.store.database import migrations

if TYPE_CHECKING:
    import apsw

_PROMPT, _MORE = "prochist> ", "     ...> "
_MOST_LINES = 2000
_KEYWORDS = (
    "ALL", "AND", "AS", "ASC", "AVG", "BETWEEN", "BY", "CASE", "CAST", "COUNT", "DESC", "DISTINCT",
    "ELSE", "END", "EXCEPT", "EXISTS", "EXPLAIN", "FROM", "GLOB", "GROUP", "HAVING", "IN", "INNER",
    "INTERSECT", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "MAX", "MIN", "NOT", "NULL", "OFFSET",
    "ON", "OR", "ORDER", "OVER", "PARTITION", "PLAN", "PRAGMA", "QUERY", "RECURSIVE", "SELECT",
    "SUM", "THEN", "UNION", "USING", "VALUES", "WHEN", "WHERE", "WITH",
)  # fmt: skip
_HELP = """\
.exit, .quit          leave; Ctrl-D too
.headers on|off       show the names of the columns
.help                 this
.mode MODE            {modes}
.nullvalue TEXT       what NULL is shown as
.schema [NAME]        the documented schema, or one view or table of it
.tables               the views to ask
.timeout SECONDS      the longest that a statement may take
"""


class _LeaveError(Exception):
    """Say that the user wants to leave."""


class Shell:
    """Reads statements and commands, and shows what they give."""

    def __init__(self, db: "apsw.Connection", *, mode: str, limit_s: float, header: bool) -> None:
        self._db = db
        self._mode = mode
        self._limit_s = limit_s
        self._header = header
        self._null = ""
        self._begun = ""
        self._commands: dict[str, Callable[[list[str]], None]] = {
            ".exit": self._leave,
            ".headers": self._set_headers,
            ".help": self._help,
            ".mode": self._set_mode,
            ".nullvalue": self._set_null,
            ".quit": self._leave,
            ".schema": self._schema,
            ".tables": self._tables,
            ".timeout": self._set_timeout,
        }
        self._names = self._schema_names()  # with table-valued functions, which are no views
        forbid_all_but_reading(db)

    def run(self, read: Callable[[str], str], *, goes_on: bool = True) -> int:
        """Read lines with ``read(prompt)`` until the end, and return the exit status.

        ``goes_on`` says whether an error is only shown.
        """
        self._begun = ""
        while True:
            try:
                self._take(read(_MORE if self._begun else _PROMPT))
            except (EOFError, _LeaveError):
                break
            except KeyboardInterrupt:
                self._begun = ""
                say("")
            except ProchistError as error:
                say(f"Error: {error.message}")
                if error.hint:
                    say(f"Hint: {error.hint}")
                if not goes_on:
                    return error.exit_status
        if not self._begun.strip():
            return 0
        say("Error: the last statement lacks its semicolon")
        return UsageError.exit_status

    def _take(self, line: str) -> None:
        """Take a line: a command, or more of a statement, which runs when it is complete."""
        if not self._begun and line.lstrip().startswith("."):
            self._command(line.split())
            return
        text = f"{self._begun}{line}\n"
        self._begun = ""
        if is_complete(text):
            for statement in statements(text):
                self._statement(statement)
        elif text.strip():
            self._begun = text

    def complete(self, text: str) -> list[str]:
        """Return what a word may become."""
        if text.startswith("."):
            return [name for name in self._commands if name.startswith(text)]
        lower = text.lower()
        words = [
            *self._names,
            *(k if text.isupper() else k.lower() for k in _KEYWORDS),
            *modes.MODES,
        ]
        return sorted({word for word in words if word.lower().startswith(lower)})

    def _statement(self, sql: str) -> None:
        if not sql.strip(" \t\n;"):
            return
        running = Statement(self._db, sql, limit_s=self._limit_s)
        columns = terminal_columns()
        style = Style(columns, None, Times(None).now_ns, wants_colour(), self._header)
        lines = modes.MODES[self._mode](
            running.names, running.rows(), modes.Look(style, self._null)
        )
        with screen(self._db, for_people=self._mode in modes.FOR_PEOPLE):
            write(lines)

    def _command(self, words: list[str]) -> None:
        names = [name for name in self._commands if name.startswith(words[0])]
        exact = words[0] in self._commands
        if not exact and len(names) != 1:
            message = f"no such command: {words[0]!r}"
            raise UsageError(message, hint="see them with .help")
        self._commands[words[0] if exact else names[0]](words[1:])

    def _leave(self, _words: list[str]) -> None:
        raise _LeaveError

    def _set_headers(self, words: list[str]) -> None:
        self._header = _one_of(words, ("off", "on"), ".headers") == "on"

    def _help(self, _words: list[str]) -> None:
        write([_HELP.format(modes=" ".join(modes.MODES))])

    def _set_mode(self, words: list[str]) -> None:
        self._mode = _one_of(words, tuple(modes.MODES), ".mode")

    def _set_null(self, words: list[str]) -> None:
        self._null = " ".join(words)

    def _set_timeout(self, words: list[str]) -> None:
        from prochist.ask.timespec import parse_duration

        self._limit_s = parse_duration(" ".join(words)) / 1e9

    def _tables(self, _words: list[str]) -> None:
        sql = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name"
        write(f"{name}\n" for (name,) in self._db.execute(sql))

    def _schema(self, words: list[str]) -> None:
        if not words:
            write(migration.sql for migration in migrations())
            return
        sql = "SELECT sql FROM sqlite_schema WHERE name = ? AND sql IS NOT NULL"
        found = [row[0] for row in self._db.execute(sql, (words[0],))]
        if not found:
            message = f"no such view or table: {words[0]!r}"
            raise UsageError(message, hint="see the views with .tables")
        write(f"{text};\n" for text in found)

    def _schema_names(self) -> list[str]:
        sql = (
            "SELECT name FROM sqlite_schema WHERE type = 'view' UNION"
            " SELECT column.name FROM sqlite_schema AS s, pragma_table_info(s.name) AS column"
            " WHERE s.type = 'view'"
        )
        return [row[0] for row in self._db.execute(sql)]


def _one_of(words: list[str], choices: tuple[str, ...], command: str) -> str:
    if len(words) == 1 and words[0] in choices:
        return words[0]
    message = f"{command} takes one of: {' '.join(choices)}"
    raise UsageError(message)


def interact(shell: Shell, environ: Mapping[str, str]) -> int:
    """Run the shell on stdin, with line editing where that is a terminal; return the exit status.

    As with ``sqlite3 < FILE``, an error ends what does not come from a person.
    """
    if not sys.stdin.isatty():
        return shell.run(_plain_line, goes_on=False)
    with _line_editing(shell, environ):
        say("Read-only. .help lists the commands, .tables the views.")
        return shell.run(input)


def _plain_line(_prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def history_file(environ: Mapping[str, str]) -> Path | None:
    """Return where lines are kept for the next time; None under sudo: in memory only."""
    home = environ.get("HOME")
    if _is_borrowed(environ) or not home:
        return None
    state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    return Path(state) / "prochist" / "sql_history"


def _is_borrowed(environ: Mapping[str, str]) -> bool:
    """Say whether the rights in force are not those of the user who is typing."""
    return "SUDO_UID" in environ or os.getuid() != os.geteuid()


@contextlib.contextmanager
def _line_editing(shell: Shell, environ: Mapping[str, str]) -> Iterator[None]:
    if _is_borrowed(environ):
        # readline shows lines of it in its complaints, and it may be any file.
        os.environ["INPUTRC"] = os.devnull
    try:
        import readline
    except ImportError:  # a Python built without it
        yield
        return
    file = history_file(environ)
    if file is not None:
        with contextlib.suppress(OSError):
            readline.read_history_file(file)
    readline.set_history_length(_MOST_LINES)
    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        nonlocal found
        if state == 0:
            found = shell.complete(text)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n,;()=<>+-*/|'\"")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        if file is not None:
            with contextlib.suppress(OSError):
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                readline.write_history_file(file)
