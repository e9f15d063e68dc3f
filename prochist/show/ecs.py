"""A timeline in the Elastic Common Schema: JSON Lines, one event a line.

Field names are those of ECS 9; what it has no name for is under ``prochist``. A life's
entity id is made of its boot and its id, so that it is unique over all hosts of an
Elasticsearch.

Source: elastic.co/docs/reference/ecs: fields, and the allowed values of event.category and
event.type.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prochist.ask.completeness import Gap
from prochist.ask.processes import instant
from prochist.ask.timeline import Boot, Event
from prochist.show import timeline_text

VERSION = "9.0.0"

_TYPES = {"started": ["start"], "ended": ["end"], "gap": ["info"], "boot": ["start"]}
_ACTIONS = {
    "started": "process_started",
    "exec": "exec",
    "ended": "process_ended",
    "uid": "uid_change",
    "gid": "gid_change",
    "sid": "session_id_change",
    "comm": "name_change",
    "gap": "recording_gap",
    "boot": "system_boot",
}


def lines(events: Iterable[Event]) -> Iterator[str]:
    """Yield the lines, each with its line feed."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for event in events:
        yield encode(document(event)) + "\n"


def document(event: Event) -> dict[str, Any]:
    """Return one event; what is not known is left out."""
    kind = event.kind
    what: dict[str, Any] = {
        "kind": "event",
        "category": ["process"] if event.subject is not None else ["host"],
        "type": _TYPES.get(kind, ["change"]),
        "action": _ACTIONS.get(kind, kind),
        "module": "prochist",
        "dataset": "prochist.timeline",
        "provider": "prochist",
    }
    found: dict[str, Any] = {
        "@timestamp": instant(event.at_ns),
        "ecs": {"version": VERSION},
        "event": what,
        "prochist": {"at_ns": event.at_ns, "source": event.source, "detail": event.detail},
    }
    if event.subject is None:
        found["message"] = timeline_text.words(event)
        _note(event, found)
    else:
        _process(event, found)
    known: dict[str, Any] = _without_unknown(found)
    return known


def _process(event: Event, found: dict[str, Any]) -> None:
    subject, image, origin = event.subject, event.image, event.origin
    assert subject is not None  # noqa: S101 - the caller looked
    life, boot = subject.life, subject.boot
    command = timeline_text.command_of(event)
    shown = command if len(command) <= 1_000 else command[:1_000] + "…"  # noqa: PLR2004 - as a log line
    found["message"] = f"[{life[3]}] {timeline_text.words(event)}: {shown}"
    found["host"] = {"name": boot[1], "hostname": boot[1], "boot": {"id": boot[0]}}
    found["user"] = {
        "id": _text(origin[0]),
        "name": origin[4],
        "effective": {"id": _text(origin[1])},
    }
    found["container"] = {"id": origin[11]}
    args = json.loads(str(image[4])) if image[4] is not None else None
    ended, status, duration_ns = life[11], event.status, event.duration_ns
    signal = None if status is None else status.term_signal
    found["process"] = {
        "entity_id": entity_id(boot[0], life[0]),
        "pid": life[3],
        "name": image[0],
        "executable": image[1] if image[1] is not None else image[2],
        "command_line": image[3],
        "args": args,
        "args_count": None if args is None or image[5] == 0 else len(args),
        "working_directory": image[6],
        "start": instant(life[10]),
        "end": None if status is None else instant(ended),
        "exit_code": None if status is None else status.exit_code,
        "real_user": {"id": _text(origin[0])},
        "real_group": {"id": _text(origin[2])},
        "group": {"id": _text(origin[3])},
        "session_leader": {"pid": life[9]},
        "parent": {
            "entity_id": None if life[1] is None else entity_id(boot[0], life[1]),
            "pid": life[4],
            "name": subject.parent_image[0],
            "executable": subject.parent_image[1],
            "command_line": subject.parent_image[3],
        },
    }
    if status is not None:
        what = found["event"]
        what |= {"start": instant(life[10]), "end": instant(ended), "duration": duration_ns}
        if status.state == "unknown":
            what["outcome"] = "unknown"
        else:
            what["outcome"] = "success" if status.exit_code == 0 else "failure"
    found["prochist"] |= {
        "id": life[0],
        "parent_id": life[1],
        "unit": origin[10],
        "cgroup": origin[9],
        "tty": origin[8],
        "login": {"uid": origin[5], "user": origin[6], "session": origin[7]},
        "exec_path": image[2],
        "state": None if status is None else status.state,
        "signal": {
            "number": signal,
            "name": None if status is None else status.term_signal_name,
        },
        "core_dumped": None if status is None else status.core_dumped == 1,
        "other_id": event.other_id,
        "ids": None
        if event.ids is None
        else dict(zip(("real", "effective"), event.ids, strict=True)),
    }


def _note(event: Event, found: dict[str, Any]) -> None:
    note = event.note
    if isinstance(note, Boot):
        found["host"] = {"name": note.host, "hostname": note.host, "boot": {"id": note.boot_id}}
        found["prochist"]["kernel"] = note.kernel
    elif isinstance(note, Gap):
        found["event"] |= {
            "start": instant(note.from_at_ns),
            "end": instant(note.until_at_ns),
            "duration": note.until_at_ns - note.from_at_ns,
        }
        found["prochist"] |= {"gap": {"kind": note.kind, "lost": note.lost}, "detail": note.detail}


def entity_id(boot_id: object, id_: int) -> str:
    """Return what names a life among those of all hosts."""
    return f"{boot_id}:{id_}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _without_unknown(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        known = {name: _without_unknown(inner) for name, inner in value.items()}
        return {name: inner for name, inner in known.items() if inner is not None and inner != {}}
    return value
