"""A timeline as a trace that ui.perfetto.dev opens: one track a life, grouped by unit or user.

A life is a pair of nestable asynchronous events, ``b`` and ``e``; what happens in between
is an instant ``n``. All of them carry the same name, because the viewer makes a track of
name and id. Times are microseconds from the first event, which ``otherData`` dates: a
double cannot hold nanoseconds since 1970. Gaps and boots are global instants.

Source: "Trace Event Format" (chromium.org/developers/how-tos/trace-event-profiling-tool);
src/trace_processor/importers/json/json_trace_parser.cc of Perfetto.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from prochist.ask.processes import instant
from prochist.ask.timeline import Event, Subject
from prochist.show.timeline_text import command_of, parent_of, user_of, words

GROUPS = ("unit", "user")
_LONGEST_ARGUMENT = 10_000


class _Groups(dict[str, int]):
    """What the viewer shows as a process: a unit or a user; numbered as they come."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self._by = by

    def name(self, subject: Subject) -> str:
        unit, container, user, uid = (subject.origin[at] for at in (10, 11, 4, 0))
        if self._by == "user":
            return str(user) if user is not None else "?" if uid is None else str(uid)
        return str(unit if unit is not None else container if container is not None else "no unit")


def pieces(events: Iterable[Event], *, group: str = "unit", flows: bool = False) -> Iterator[str]:
    """Yield the parts of one JSON object, an event a line; ``flows`` lead from parent to child."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    groups = _Groups(group)
    shown: dict[int, Subject] = {}
    base_ns: int | None = None
    yield '{"displayTimeUnit":"ms","traceEvents":['
    between = "\n"
    for event in events:
        base_ns = event.at_ns if base_ns is None else base_ns
        for record in _records(event, shown, groups, base_ns, flows=flows):
            yield between + encode(record)
            between = ",\n"
    for subject in shown.values():  # they end after what was asked for, or are still running
        if subject.life[11] is not None:
            record = _bar("e", subject, groups, max(0, subject.life[11] - (base_ns or 0)))
            yield between + encode(record)
    first = encode({"first_event_at": instant(base_ns), "group": group})
    yield f'\n],"otherData":{first}}}\n'


def _records(
    event: Event, shown: dict[int, Subject], groups: _Groups, base_ns: int, *, flows: bool
) -> Iterator[dict[str, Any]]:
    subject, after_ns = event.subject, event.at_ns - base_ns
    if subject is None:
        note = {"ph": "i", "s": "g", "cat": event.kind, "name": words(event)}
        yield note | {"ts": after_ns / 1000, "pid": 0, "tid": 0}
        return
    id_, parent_id = subject.life[0], subject.life[1]
    if id_ not in shown:
        label = groups.name(subject)
        if label not in groups:
            groups[label] = len(groups) + 1
            named = {"ph": "M", "name": "process_name", "pid": groups[label], "tid": 0, "ts": 0}
            yield named | {"args": {"name": label[:_LONGEST_ARGUMENT] or "?"}}
        begin = _bar("b", subject, groups, max(0, (subject.life[10] or event.at_ns) - base_ns))
        begin["args"] = _arguments(event, subject)
        if flows and event.kind == "started" and parent_id in shown:
            parent = _bar("n", shown[parent_id], groups, after_ns)
            forked = {"args": {"event": "forked", "child_id": id_}}
            yield parent | forked | {"bind_id": hex(id_), "flow_out": True}
            begin |= {"bind_id": hex(id_), "flow_in": True}
        yield begin
        shown[id_] = subject
    if event.kind == "ended":
        yield _bar("e", subject, groups, after_ns) | {"args": {"end": words(event)}}
        del shown[id_]
    elif event.kind != "started":
        said = {"event": words(event), "command": command_of(event)[:_LONGEST_ARGUMENT]}
        yield _bar("n", subject, groups, after_ns) | {"args": said}


def _bar(phase: str, subject: Subject, groups: _Groups, after_ns: int) -> dict[str, Any]:
    life, image = subject.life, subject.image
    name = str(image[0] or image[1] or "?")
    group = groups[groups.name(subject)]
    place = {"ts": after_ns / 1000, "pid": group, "tid": group}
    what = {"ph": phase, "cat": "process", "name": f"{name} {life[3]}", "id": hex(life[0])}
    return what | place


def _arguments(event: Event, subject: Subject) -> dict[str, Any]:
    life = subject.life
    known = {
        "id": life[0],
        "pid": life[3],
        "command": command_of(event._replace(image=subject.image))[:_LONGEST_ARGUMENT],
        "exe": subject.image[1],
        "user": user_of(event),
        "unit": subject.origin[10],
        "parent": parent_of(subject),
        "parent_id": life[1],
        "started_at": instant(life[10]),
        "ended_at": instant(life[11]),
    }
    return {name: value for name, value in known.items() if value is not None}
