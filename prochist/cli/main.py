"""The command ``prochist``: which commands there are, and how errors become text.

Commands are imported when they are called: ``record`` must not pay for the
imports of ``query``, nor the other way round. This is the only place where a
``ProchistError`` or an error of SQLite becomes a message and an exit status.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import apsw
import click

from prochist import __version__
from prochist.cli.screen import say, simplify, speaks_utf8
from prochist.errors import ProchistError
from prochist.store.database import translate

_COMMANDS = {
    "record": "record",
    "replay": "record",
    "doctor": "doctor",
    "query": "query",
    "ps": "ps",
    "tree": "tree",
    "show": "show",
    "report": "report",
    "timeline": "timeline",
    "hunt": "hunt",
    "export": "export",
    "status": "status",
    "boots": "boots",
    "gaps": "gaps",
    "sql": "sql",
    "schema": "sql",
    "prune": "prune",
    "verify": "verify",
    "snapshot": "snapshot",
    "install-service": "installation",
    "uninstall-service": "installation",
    "help": "help",
}
"""Command to the file of ``cli/`` that holds it."""

_FOLDER = Path(__file__).parent
_INTERRUPTED = 128 + signal.SIGINT


class _LazyGroup(click.Group):
    """A group whose commands are imported when one is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name in _COMMANDS if self._exists(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS or not self._exists(cmd_name):
            return None
        module = import_module(f"prochist.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Click would write an empty line, and whoever pressed Ctrl-C knows.
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has seen enough; click would make it status 1. Python would complain
            # once more when it flushes at exit, so nothing may be left to flush to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.exceptions.Exit(0) from None

    def _exists(self, name: str) -> bool:
        return _FOLDER.joinpath(f"{_COMMANDS[name]}.py").exists()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, or rows found; 1 nothing matched; 2 usage; 3 the database or the "
    "recorder is the problem; 4 with --require-complete: rows may be missing.",
)
@click.version_option(__version__, prog_name="prochist")
def prochist() -> None:
    """Record the history of every process on this host, and ask it.

    The database is --db, else $PROCHIST_DB, else /var/lib/prochist/prochist.db (as
    root, or when it can be read), else $XDG_STATE_HOME/prochist/prochist.db.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; messages go to stderr."""
    try:
        result: Any = prochist.main(
            args=None if arguments is None else list(arguments),
            prog_name="prochist",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except ProchistError as error:
        return _complain(error)
    except apsw.Error as error:
        return _complain(translate(error, "the database"))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except OSError as error:
        return _complain(ProchistError(f"{error.filename or 'output'}: {error.strerror}"))
    return result if isinstance(result, int) else 0


def _complain(error: ProchistError) -> int:
    say(f"Error: {error.message}")
    if error.hint:
        say(f"Hint: {error.hint}")
    return error.exit_status


def main() -> NoReturn:
    """Be the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a locale that lacks a character shows its number
            reconfigure(errors="backslashreplace")
    if not speaks_utf8(os.environ):
        simplify(sys.stderr)
    sys.exit(run())
