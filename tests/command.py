"""Runs ``prochist`` as a user does: from a script, and in a terminal of a given size."""

import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

PROCHIST = (sys.executable, "-m", "prochist")
PATIENCE_S = 30.0


def environment(path: Path, **more: str) -> dict[str, str]:
    """Return what commands run with: this database, UTC, and a locale that is known."""
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LC_ALL", "PAGER", "LESS")}
    known = {"PROCHIST_DB": str(path), "TZ": "UTC", "LANG": "C.UTF-8", "TERM": "xterm"}
    return kept | known | more


def run(
    path: Path, *arguments: str, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with pipes, and return what it wrote."""
    return subprocess.run(
        [*PROCHIST, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(path, **more),
        timeout=PATIENCE_S,
        check=False,
    )


class Seen(NamedTuple):
    """What a terminal showed, and the exit status (negative: the signal)."""

    text: str
    status: int


class Terminal:
    """A command in a terminal of its own; close it."""

    def __init__(self, path: Path, *arguments: str, columns: int = 80, **more: str) -> None:
        pid, self._descriptor = pty.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                size = struct.pack("4H", 24, columns, 0, 0)
                fcntl.ioctl(0, termios.TIOCSWINSZ, size)
                os.execve(PROCHIST[0], [*PROCHIST, *arguments], environment(path, **more))  # noqa: S606
            os._exit(127)
        self._pid = pid
        self.text = ""

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown ``text``."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.text:
            if not self._read(until):
                message = f"{text!r} did not come: {self.text!r}"
                raise AssertionError(message)

    def end(self) -> Seen:
        """Wait until the command is at its end."""
        until = time.monotonic() + PATIENCE_S
        while self._read(until):
            pass
        if time.monotonic() >= until:
            os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._descriptor)
        return Seen(self.text.replace("\r\n", "\n"), os.waitstatus_to_exitcode(status))

    def _read(self, until: float) -> bool:
        left = until - time.monotonic()
        if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
            return False
        try:
            part = os.read(self._descriptor, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has the terminal open any more
                return False
            raise
        self.text += part.decode("utf-8", "replace")
        return bool(part)
