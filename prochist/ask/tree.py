"""Families: ancestors and descendants of lives, alive or dead, bounded in number.

A tree is a list of nodes in drawing order. Parents are the lives that forked, also
where another process has adopted the child since: a life has one parent for ever. Where a
parent is not among the lives to be shown, its nearest ancestor that is stands for it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from prochist.ask import processes
from prochist.ask.filters import Question
from prochist.ask.processes import Value

if TYPE_CHECKING:
    import apsw

    from prochist.clock import EpochNs

_CHILDREN = """
SELECT child.id FROM json_each(?) AS parent
CROSS JOIN lifetime AS child INDEXED BY lifetime_parent ON child.parent_id = parent.value
LIMIT ?"""
_ANCESTORS = """
WITH RECURSIVE kin (id) AS (
    SELECT value FROM json_each(:roots)
    UNION
    SELECT life.parent_id FROM kin JOIN lifetime AS life ON life.id = kin.id
    WHERE life.parent_id IS NOT NULL
)
SELECT life.id, life.parent_id FROM kin JOIN lifetime AS life ON life.id = kin.id"""

DEEPEST = 1_000_000


class Node(NamedTuple):
    """One life of a tree: the nodes below it follow it, one deeper."""

    depth: int
    is_last: bool
    """No sibling follows."""
    is_asked: bool
    """It is one of the lives that the tree was asked for."""
    row: tuple[Value, ...]
    """Values of ``processes.COLUMNS``."""


class Tree(NamedTuple):
    """Nodes in drawing order."""

    nodes: list[Node]
    is_cut: bool
    """There are more descendants than were asked for."""


def family(
    db: "apsw.Connection",
    roots: Iterable[int],
    *,
    now_ns: "EpochNs",
    limit: int,
    depth: int = DEEPEST,
) -> Tree:
    """Return the lives ``roots``, all their ancestors and at most ``limit`` lives below them."""
    asked = list(roots)
    if not asked:
        return Tree([], is_cut=False)
    below: set[int] = set()
    generation = asked
    # One generation after the other: what a limit cuts off is the youngest, and never a parent.
    while generation and depth > 0 and len(below) <= limit:
        bounds = (json.dumps(generation), limit + 1 - len(below))
        generation = [row[0] for row in db.execute(_CHILDREN, bounds)]
        below.update(generation)
        depth -= 1
    is_cut = len(below) > limit
    if is_cut:
        below.remove(generation[-1])
    text = json.dumps(asked)
    parents = dict(db.execute(_ANCESTORS, {"roots": text}))
    question = Question(now_ns=now_ns, ids=tuple(parents.keys() | below), kernel_threads=True)
    return Tree(_ordered(processes.select(db, question).rows(), {}, set(asked)), is_cut)


def forest(
    db: "apsw.Connection", question: Question, *, around: Iterable[int] | None = None
) -> Tree:
    """Return the lives that ``question`` keeps, each below its nearest ancestor among them.

    With ``around`` only these, their ancestors and their descendants.
    """
    rows = list(processes.select(db, question).rows())
    shown = {row[0] for row in rows}
    missing = [row[1] for row in rows if row[1] is not None and row[1] not in shown]
    parents = dict(db.execute(_ANCESTORS, {"roots": json.dumps(missing)})) if missing else {}
    asked = None if around is None else set(around)
    if asked is None:
        return Tree(_ordered(rows, parents, set()), is_cut=False)
    nodes = _ordered(rows, parents, asked)
    kept = {node.row[0] for node in _near(nodes)}
    return Tree(_ordered((r for r in rows if r[0] in kept), parents, asked), is_cut=False)


def _near(nodes: list[Node]) -> Iterator[Node]:
    """Yield the lives that were asked for, and those above and below them."""
    path: list[Node] = []
    inside: int | None = None  # depth of an asked life that we are below
    for node in nodes:
        del path[node.depth :]
        path.append(node)
        if inside is not None and node.depth <= inside:
            inside = None
        if node.is_asked and inside is None:
            inside = node.depth
            yield from path
        elif inside is not None:
            yield node


def _ordered(
    rows: Iterable[tuple[Value, ...]],
    parents: dict[int, int | None],
    asked: set[int],
) -> list[Node]:
    """Put rows in drawing order: depth first, siblings in the order of their ids."""
    known: dict[Value, tuple[Value, ...]] = {row[0]: row for row in rows}
    children: defaultdict[Value, list[tuple[Value, ...]]] = defaultdict(list)
    for id_ in sorted(known, key=lambda value: (value is None, value)):
        parent = known[id_][1]
        while parent is not None and parent not in known:
            parent = parents.get(parent)  # type: ignore[arg-type]
        children[parent].append(known[id_])
    nodes: list[Node] = []
    todo = [(row, 0, at == 0) for at, row in enumerate(reversed(children[None]))]
    while todo:
        row, depth, is_last = todo.pop()
        nodes.append(Node(depth, is_last, row[0] in asked, row))
        below = children.get(row[0], ())
        todo += [(child, depth + 1, at == 0) for at, child in enumerate(reversed(below))]
    return nodes
