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
from prochist.errors import ProchistError
from prochist.store.database import translate

_COMMANDS = {
    "record": "record",
    "replay": "record",
    "doctor": "doctor",
    "query": "query",
    "show": "show",
    "status": "status",
    "boots": "boots",
    "gaps": "gaps",
    "sql": "sql",
    "schema": "sql",
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
        command: click.Command = getattr(module, cmd_name)
        return command

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


def run(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one for each kind of end
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
    except BrokenPipeError:
        # Whoever read us has seen enough. Python would complain once more when it
        # flushes at exit, so nothing may be left to flush to.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        return 0
    except OSError as error:
        return _complain(ProchistError(f"{error.filename or 'output'}: {error.strerror}"))
    return result if isinstance(result, int) else 0


def _complain(error: ProchistError) -> int:
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(f"Hint: {error.hint}", err=True)
    return error.exit_status


def main() -> NoReturn:
    """Be the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a locale that lacks a character shows its number
            reconfigure(errors="backslashreplace")
    sys.exit(run())
