"""Families as pstree draws them: a life a line, branches in front, each with its end."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prochist.ask.processes import COLUMNS
from prochist.ask.tree import Node
from prochist.show import human
from prochist.show.table import command, ending
from prochist.show.terminal import clip, escape

_PLACES = [
    COLUMNS.index(name)
    for name in (
        "pid", "comm", "exe", "command_line", "started_at_ns", "ended_at_ns", "state",
        "exit_code", "term_signal_name",
    )
]  # fmt: skip
_BOLD, _RED, _GREEN, _RESET = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


class Branches(NamedTuple):
    """What a tree is drawn with, each two columns wide and a space."""

    through: str
    child: str
    last: str
    nothing: str = "   "


LINES = Branches("│  ", "├─ ", "└─ ")
ASCII = Branches("|  ", "|- ", "`- ")
"""For terminals that know nothing else; as pstree's own."""


def draw(
    nodes: Iterable[Node],
    *,
    now_ns: int,
    columns: int | None,
    branches: Branches = LINES,
    colour: bool = False,
) -> Iterator[str]:
    """Yield the lines; ``now_ns`` is how far running lives have come."""
    ends: list[bool] = []  # of the ancestors of the node: whether it was the last child
    for node in nodes:
        del ends[node.depth :]
        ends.append(node.is_last)
        if node.depth:
            before = "".join(branches.nothing if last else branches.through for last in ends[1:-1])
            before += branches.last if node.is_last else branches.child
        else:
            before = ""
        text, paint = _life(node, now_ns)
        line = before + text
        if columns is not None:
            line = clip(line, columns)
        if colour and (paint or node.is_asked):
            bold = _BOLD if node.is_asked else ""
            line = f"{line[: len(before)]}{bold}{paint}{line[len(before) :]}{_RESET}"
        yield line + "\n"


def _life(node: Node, now_ns: int) -> tuple[str, str]:
    """Return what is said of a life, and in which colour."""
    values: list[Any] = [node.row[at] for at in _PLACES]
    pid, comm, exe, line, started, ended, state, code, signal = values
    name = comm or (exe or "?").rpartition("/")[2]
    length = None if started is None else max((now_ns if ended is None else ended) - started, 0)
    how = ending(state, code, signal)
    if state == "exited":
        how = f"exit {how}"
    text = f"{escape(name)},{pid} [{how}, {human.duration(length)}]"
    if line:
        text += f" {escape(command(line, comm, exe))}"
    paint = _GREEN if state == "running" else _RED if signal or code else ""
    return text, paint
