"""The screen: a pager for long answers, signs of life for slow ones, text that it can show.

As git and journalctl do it: only on a terminal, ``$PAGER`` (``less`` with FRX where
nothing is said), and quiet when it is left early. Progress goes to stderr, only on a
terminal, and only once a second has passed.

Source: git-config(1), core.pager; journalctl(1), --no-pager and SYSTEMD_PAGERSECURE.
"""

import codecs
import contextlib
import io
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    import apsw

_STEPS = 200_000
"""Instructions of SQLite's machine between two looks at the clock: some 5 ms."""

_PATIENCE_S = 1.0
_AGAIN_S = 0.25
_SIMPLER = {"…": "~", "·": "-", "●": "*", "○": "o", "×": "x"}  # noqa: RUF001
"""What stands for the characters of our own where the locale has no others than ASCII."""


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Say whether the locale can show more than ASCII.

    Python itself sets LC_CTYPE to C.UTF-8 where the locale is C, so that this value
    says nothing. Source: PEP 538.
    """
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    for name in names:
        value = environ.get(name, "")
        if value and not (name == "LC_CTYPE" and value == "C.UTF-8"):
            return "utf8" in value.lower().replace("-", "")
    return False


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    spelt = (_SIMPLER.get(c) or c.encode("unicode_escape").decode() for c in wrong)
    return "".join(spelt), error.end


def simplify(stream: object) -> None:
    """Let a stream of text write ASCII: our own characters by simpler ones, others by numbers."""
    codecs.register_error("prochist", _spell)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="ascii", errors="prochist")


def write(texts: Iterable[str]) -> None:
    """Write to stdout, all of it out when this returns, or as much as a pager wants of it."""
    try:
        put = sys.stdout.write
        for text in texts:
            put(text)
        sys.stdout.flush()
    except BrokenPipeError:
        if sys.stdout is sys.__stdout__:
            raise


def say(text: str) -> None:
    """Write a line to stderr: what is no result.

    Not click.echo, which writes UTF-8 where the locale has only ASCII.
    """
    sys.stderr.write(f"{text}\n")


@contextlib.contextmanager
def screen(
    db: "apsw.Connection | None", *, for_people: bool = True, paged: bool = True
) -> Iterator[None]:
    """Write to a pager where that helps, and show that a long search goes on.

    ``for_people`` says that what is written is meant to be looked at: programs get
    UTF-8 whatever the locale is, and never a pager.
    """
    plain = for_people and not speaks_utf8(os.environ)
    with contextlib.ExitStack() as undo:
        if db is not None:
            undo.enter_context(_progress(db))
        if for_people and paged:
            undo.enter_context(_pager(os.environ))
        if plain:
            simplify(sys.stdout)
        yield


def pager_command(environ: Mapping[str, str]) -> list[str] | None:
    """Return the pager that is wanted, or None for none: $PAGER empty, or cat."""
    text = environ.get("PAGER", "less")
    try:
        command = shlex.split(text)
    except ValueError:
        return None
    return None if command in ([], ["cat"]) else command


@contextlib.contextmanager
def _pager(environ: Mapping[str, str]) -> Iterator[None]:
    command = pager_command(environ)
    # The descriptors and not sys.stdout: that may be a pager's pipe, or a test's.
    if command is None or not os.isatty(1) or environ.get("TERM") == "dumb":
        yield
        return
    import subprocess

    settings = {"LESS": "FRX", "LV": "-c", **environ}
    if "SUDO_UID" in environ:  # who may ask as root need not be root in less, with its `!`
        settings |= {"LESSSECURE": "1", "LESSHISTFILE": "-"}
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=settings)
    except OSError:  # as git: no pager is no reason for no answer
        yield
        return
    pipe = process.stdin
    if pipe is None:
        raise AssertionError
    before = sys.stdout
    sys.stdout = io.TextIOWrapper(pipe, encoding="utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        stream, sys.stdout = sys.stdout, before
        _leave(stream, process)


def _leave(stream: io.TextIOBase, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the pager is left; Ctrl-C is the pager's business meanwhile."""
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.wait()
    finally:
        signal.signal(signal.SIGINT, ours)


@contextlib.contextmanager
def _progress(db: "apsw.Connection") -> Iterator[None]:
    if not os.isatty(2):
        yield
        return
    shown = Ticker(sys.stderr.write, time.monotonic)

    def tick() -> bool:
        shown.tick()
        return False

    db.set_progress_handler(tick, _STEPS, id=_progress)
    try:
        yield
    finally:
        db.set_progress_handler(None, id=_progress)
        shown.clear()


class Ticker:
    """Says every quarter of a second for how long something has been going on, after the first."""

    def __init__(self, put: Callable[[str], object], now: Callable[[], float]) -> None:
        self._put = put
        self._now = now
        self._began = now()
        self._next = self._began + _PATIENCE_S
        self._visible = False

    def tick(self) -> None:
        """Show the seconds when it is time to."""
        now = self._now()
        if now >= self._next:
            self._next = now + _AGAIN_S
            self._visible = True
            self._put(f"\r\x1b[Klooking for {now - self._began:.0f} s …")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line as it was."""
        if self._visible:
            self._put("\r\x1b[K")
            sys.stderr.flush()
