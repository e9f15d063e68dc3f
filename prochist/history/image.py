r"""Process images: the bytes of argv and paths become the texts that people read and search.

Pure. Bytes that are not UTF-8 show as ``\xNN``; where that or the quoting is
not exact, the bytes are kept beside the text.
"""

import json
import re
from typing import NamedTuple


class Image(NamedTuple):
    """What a process runs. None is unknown."""

    comm: str | None
    exe: str | None
    exec_path: str | None
    command_line: str | None
    """argv, quoted so that a shell would take it apart again."""
    argv: str | None
    """argv as a JSON array; None where it is ``command_line`` split at its spaces, or unknown."""
    argv_complete: bool | None
    cwd: str | None
    argv_raw: bytes | None
    """NUL-separated bytes; None where the texts are exact."""


NOTHING_KNOWN = Image(None, None, None, None, None, None, None, None)

_SAFE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+", re.ASCII)
_PLAIN = re.compile(rb"[A-Za-z0-9_@%+=:,./\0-]+")


def decode_text(content: bytes) -> str:
    r"""Return bytes as text, those that are not UTF-8 as ``\xNN``."""
    return content.decode("utf-8", "backslashreplace")


def is_exact(content: bytes) -> bool:
    """Return whether :func:`decode_text` keeps every byte."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def split_argv(argv: bytes) -> list[bytes]:
    """Take apart what /proc/PID/cmdline or the exec probe gave: arguments each ended by NUL."""
    if not argv:
        return []
    return (argv[:-1] if argv.endswith(b"\0") else argv).split(b"\0")


def quote(argument: str) -> str:
    """Quote one argument as a POSIX shell reads it."""
    if _SAFE.fullmatch(argument):
        return argument
    return "'" + argument.replace("'", "'\"'\"'") + "'"


class ImageMaker:
    """Makes images, and remembers the newest: programs are run again and again.

    Bounded in what it remembers: ``bound`` images, and texts of at most
    ``longest`` bytes.
    """

    def __init__(self, bound: int = 4096, longest: int = 4096) -> None:
        self._bound = bound
        self._longest = longest
        self._made: dict[tuple[object, ...], Image] = {}

    def make(  # noqa: PLR0913  the columns of an image
        self,
        comm: bytes | None,
        exe: bytes | None,
        exec_path: bytes | None,
        argv: bytes | None,
        cwd: bytes | None,
        *,
        complete: bool = True,
    ) -> Image:
        """Return the image for what was read; None is unknown."""
        key = (comm, exe, exec_path, argv, cwd, complete)
        image = self._made.get(key)
        if image is None:
            image = _make(comm, exe, exec_path, argv, cwd, complete=complete)
            if argv is None or len(argv) <= self._longest:
                if len(self._made) >= self._bound:
                    self._made.clear()
                self._made[key] = image
        return image


def _make(  # noqa: PLR0913
    comm: bytes | None,
    exe: bytes | None,
    exec_path: bytes | None,
    argv: bytes | None,
    cwd: bytes | None,
    *,
    complete: bool,
) -> Image:
    program = Program(*(None if p is None else decode_text(p) for p in (comm, exe, exec_path, cwd)))
    return make_image(program, argv, complete=complete)


class Program(NamedTuple):
    """What of an image is the same however it is called."""

    comm: str | None
    exe: str | None
    exec_path: str | None
    cwd: str | None


def make_image(program: Program, argv: bytes | None, *, complete: bool) -> Image:
    """Return the image of a program that was called with ``argv``."""
    comm, exe, exec_path, cwd = program
    if argv is None:
        return Image(comm, exe, exec_path, None, None, None, cwd, None)
    if not argv or (_PLAIN.fullmatch(argv) and b"\0\0" not in argv and argv[0]):
        # Nothing needs quoting in either form: one follows from the other.
        command_line = argv.removesuffix(b"\0").replace(b"\0", b" ").decode("ascii")
        return Image(comm, exe, exec_path, command_line, None, complete, cwd, None)
    texts = [decode_text(argument) for argument in split_argv(argv)]
    return Image(
        comm,
        exe,
        exec_path,
        " ".join(map(quote, texts)),
        json.dumps(texts, ensure_ascii=False, separators=(",", ":")),
        complete,
        cwd,
        None if is_exact(argv) else argv,
    )
