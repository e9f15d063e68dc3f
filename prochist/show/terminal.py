"""Text that is safe and fits: for terminals, from people who may be hostile.

Whoever starts a process chooses its argv, so it may hold anything: escape
sequences, line breaks, characters that reverse the direction of writing. Nothing
of that reaches a terminal. Knows nothing of the terminal itself: its width is a parameter.
"""

from unicodedata import category, east_asian_width

ELLIPSIS = "…"

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    r"""Return ``text`` on one line, controls spelled out: ``\n``, ``\x1b``, ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _spell(c) for c in text)


def _spell(character: str) -> str:
    short = _SHORT.get(character)
    return short or character.encode("unicode_escape").decode("ascii")


def width(text: str) -> int:
    """Return the columns that escaped ``text`` takes; wide characters take two, accents none."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if character.isascii():
        return 1
    if category(character) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(character) in ("W", "F") else 1


def clip(text: str, columns: int) -> str:
    """Return escaped ``text`` cut to at most ``columns``, the cut being marked with ``…``."""
    if len(text) * 2 <= columns or width(text) <= columns:
        return text
    if columns <= 1:
        return ELLIPSIS[:columns]
    room, kept = columns - 1, []
    for character in text:
        room -= _character_width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + ELLIPSIS


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return escaped ``text`` filled with spaces up to ``columns``."""
    space = " " * (columns - width(text))
    return space + text if right else text + space
