"""Errors that a user reads: what is wrong, and what to do about it.

A message is lower case and names the object; a hint is an action, best a command.
``cli/main.py`` is the only place that turns them into text and exit statuses.
"""


class ProchistError(Exception):
    """Say what is wrong with the database, the recorder or the kernel; exit status 3."""

    exit_status = 3

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ProchistError):
    """Say what is wrong with what the user wrote; exit status 2."""

    exit_status = 2
