"""A timeline that reads like a log, with a tree in the margin; and an event in words.

The margin is as deep as the life has shown ancestors: ``┌`` begins a life, ``├`` goes
on with it, ``└`` ends it, ``│`` stands for an ancestor. The day is a line of its own. A
line that says something of a life for the first time names its id and its parent.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prochist.ask.completeness import Gap
from prochist.ask.timeline import Boot, Event, Subject
from prochist.show import human
from prochist.show.table import Style, command, ending
from prochist.show.terminal import clip, escape, pad

_NS = 1_000_000_000
_DEEPEST = 12
"""Deeper trees keep this margin, or a fork chain would push all text off the screen."""

_LONGEST_COMMAND = 4_000
"""Characters of a command line that a log shows; argv can be of megabytes."""

_RED, _YELLOW, _DIM, _RESET = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


def words(event: Event) -> str:
    """Say what happened, without who: ``exited 1 after 3.2ms``. Not escaped."""
    said = _WORDS.get(event.kind)
    return said(event) if said is not None else event.kind


def _ended(event: Event) -> str:
    status = event.status
    if status is None or event.subject is None:
        return event.kind
    after = "" if event.duration_ns is None else f" after {human.duration(event.duration_ns)}"
    if event.source == "boot":
        return "ended unseen, at the latest with its boot"
    if event.source == "resync" and status.state == "unknown":
        return f"ended unseen, at the latest{after}"
    core = ", core dumped" if status.core_dumped else ""
    if status.term_signal_name:
        return f"killed by {status.term_signal_name}{after}{core}"
    if status.exit_code is None:
        return f"ended, how is not known{after}"
    return f"exited {status.exit_code}{after}"


def _ids(event: Event) -> str:
    real, effective = event.ids or (None, None)
    return f"{event.kind} now {real}, effective {effective}"


def _attached(event: Event) -> str:
    tracer, _, _ = (event.detail or "?").partition(" ")
    other = f" (id {event.other_id})" if event.other_id is not None else ""
    return f"traced by {tracer}{other}"


def _gap(event: Event) -> str:
    gap = event.note
    if not isinstance(gap, Gap):
        return event.kind
    parts = [gap.kind, human.duration(gap.until_at_ns - gap.from_at_ns)]
    if gap.lost is not None:
        parts.append(f"{human.plural(gap.lost, 'event')} lost")
    if gap.detail:
        parts.append(gap.detail)
    return f"rows may be missing: {', '.join(parts)}"


def _boot(event: Event) -> str:
    boot = event.note
    if not isinstance(boot, Boot):
        return event.kind
    return f"{boot.host} booted, kernel {boot.kernel}, boot {boot.boot_id}"


_WORDS: dict[str, Callable[[Event], str]] = {
    "started": lambda e: "was running" if e.source == "scan" else "started",
    "exec": lambda _: "exec",
    "uid": _ids,
    "gid": _ids,
    "sid": lambda _: "leads a new session",
    "comm": lambda e: f"renamed itself {e.detail or ''}",
    "ptrace_attach": _attached,
    "ptrace_detach": lambda _: "no longer traced",
    "coredump": lambda _: "dumps core",
    "ended": _ended,
    "gap": _gap,
    "boot": _boot,
}


def command_of(event: Event) -> str:
    """Return what the process ran when the event happened, as ps shows it. Not escaped."""
    image = event.image
    return command(image[3], image[0], image[1])  # type: ignore[arg-type] # texts of IMAGE


def user_of(event: Event) -> str:
    """Return the user that the process had: a name, else a uid, else ``?``."""
    name, uid = event.origin[4], event.origin[0]
    return str(name) if name is not None else "?" if uid is None else str(uid)


def parent_of(subject: Subject) -> str:
    """Return who forked a life: ``812 sshd``; ``?`` when nothing is known."""
    ppid, comm = subject.life[4], subject.parent_image[0]
    return " ".join(str(part) for part in (ppid, comm) if part is not None) or "?"


def lines(events: Iterable[Event], style: Style) -> Iterator[str]:
    """Yield the lines of a timeline."""
    depths: dict[int, int] = {}
    clock = _Clock(style)
    widest_id = 1
    for event in events:
        yield from clock.day(event.at_ns)
        at, subject = clock.time(event.at_ns), event.subject
        if subject is None:
            blank = " " * (widest_id + 17)
            text = f"{at}  {blank}══ {escape(words(event))}"
            yield _finish(text, _YELLOW, style)
            continue
        id_, parent_id, pid = subject.life[0], subject.life[1], subject.life[3]
        is_new = id_ not in depths
        if is_new:
            depths[id_] = min(depths[parent_id] + 1, _DEEPEST) if parent_id in depths else 0
        mark = "┌" if event.kind == "started" else "└" if event.kind == "ended" else "├"
        margin = "│ " * depths[id_] + mark
        widest_id = max(widest_id, len(str(id_)))
        who = f"{id_:>{widest_id}} {pid:>7} {pad(clip(escape(user_of(event)), 8), 8)}"
        text = f"{at}  {who} {margin} {_said(event, first=is_new)}"
        if event.kind == "ended":
            del depths[id_]
        yield _finish(text, _colour(event), style)


def _said(event: Event, *, first: bool) -> str:
    said = escape(words(event)[:_LONGEST_COMMAND])
    if first or event.kind in ("exec", "ended"):
        said += f"  {escape(command_of(event)[:_LONGEST_COMMAND])}"
    if first and event.subject is not None:
        parent_id = event.subject.life[1]
        by = f", id {parent_id}" if parent_id is not None else ""
        said += f"  ← {escape(parent_of(event.subject))}{by}"
    return said


def _colour(event: Event) -> str:
    status = event.status
    if status is None:
        return _DIM if event.kind == "started" else ""
    end = ending(status.state, status.exit_code, status.term_signal_name)
    return _DIM if end in ("0", "?") else _RED


def _finish(text: str, colour: str, style: Style) -> str:
    if style.columns is not None:
        text = clip(text, style.columns)
    return f"{colour}{text}{_RESET}\n" if colour and style.colour else f"{text}\n"


class _Clock:
    """Instants in the time zone of the style; most events share their second with others."""

    def __init__(self, style: Style) -> None:
        self._zone = style.zone
        self._second = -1
        self._text = ""
        self._date = ""
        self._shown = ""

    def _turn(self, at_ns: int) -> None:
        second = at_ns // _NS
        if second != self._second:
            at = datetime.fromtimestamp(second, self._zone).astimezone(self._zone)
            self._second, self._text = second, f"{at:%H:%M:%S}"
            self._date = f"{at:%A %Y-%m-%d %z}"

    def day(self, at_ns: int) -> Iterator[str]:
        """Yield a line when the day, or the offset from UTC, is another one than before."""
        self._turn(at_ns)
        if self._date != self._shown:
            self._shown = self._date
            yield f"── {self._date}\n"

    def time(self, at_ns: int) -> str:
        self._turn(at_ns)
        return f"{self._text}.{at_ns % _NS // 1000:06d}"
