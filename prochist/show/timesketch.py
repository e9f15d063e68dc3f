"""A timeline for Timesketch: JSON Lines, one event a line.

Each line has what the importer demands (``message``, ``datetime``, ``timestamp`` in
microseconds, ``timestamp_desc``) and ``data_type``; the rest are searchable attributes,
left out where they are not known.

Texts that many events share are encoded once.

Source: github.com/google/timesketch, docs/guides/user/import-from-json-csv.md;
importer.py of timesketch-import-client.
"""

from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring

from prochist.ask.processes import seconds
from prochist.ask.timeline import Event, Shared, Subject
from prochist.show.records import json_value
from prochist.show.table import command
from prochist.show.timeline_text import words

DESCRIPTIONS = {
    "started": "Process Started",
    "exec": "Process Executed",
    "uid": "User ID Changed",
    "gid": "Group ID Changed",
    "sid": "Session Created",
    "comm": "Process Renamed",
    "ptrace_attach": "Debugger Attached",
    "ptrace_detach": "Debugger Detached",
    "coredump": "Core Dumped",
    "ended": "Process Ended",
    "gap": "Recording Gap",
    "boot": "System Boot",
}
"""Kind of event to ``timestamp_desc``."""

_PLAIN = frozenset(("started", "exec"))
"""Two thirds of all events, about which there is nothing to say but their source."""

_MOST_KEPT = 20_000
_LONGEST_KEPT = 4_000
_LONGEST_IN_MESSAGE = 1_000
"""Characters of a command line in ``message``; ``command_line`` has it whole."""


class _Encoded(dict[Shared, str]):
    """Attributes that many events share, encoded; each known one begins with a comma."""

    def __init__(self, names: dict[str, int]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, values: Shared) -> str:
        text = "".join(
            f',"{name}":{json_value(values[at])}'
            for name, at in self._names.items()
            if values[at] is not None
        )
        _keep(self, values, text)
        return text


class _Commands(dict[Shared, str]):
    """What ran, as a part of a JSON string."""

    def __missing__(self, image: Shared) -> str:
        text = command(image[3], image[0], image[1])  # type: ignore[arg-type] # texts of IMAGE
        if len(text) > _LONGEST_IN_MESSAGE:
            text = text[:_LONGEST_IN_MESSAGE] + "…"
        text = encode_basestring(text)[1:-1]
        _keep(self, image, text)
        return text


def _keep(kept: dict[Shared, str], key: Shared, text: str) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    if len(text) <= _LONGEST_KEPT:
        kept[key] = text


def one_line(text: str) -> str:
    """Spell out, in JSON, the characters besides the line feed at which a line can end.

    The importer reads with ``codecs.open``, which ends lines as ``str.splitlines`` does.
    """
    return text if text.isascii() else text.translate(_OTHER_LINE_ENDS)


_OTHER_LINE_ENDS = str.maketrans({0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"})


def lines(events: Iterable[Event]) -> Iterator[str]:
    """Yield the lines, each with its line feed."""
    return map(one_line, _lines(events))


def _lines(events: Iterable[Event]) -> Iterator[str]:
    commands = _Commands()
    images = _Encoded({"comm": 0, "executable": 1, "exec_path": 2, "command_line": 3, "cwd": 6})
    parents = _Encoded({"parent_comm": 0, "parent_executable": 1, "parent_command_line": 3})
    origins = _Encoded(
        {"uid": 0, "euid": 1, "gid": 2, "username": 4, "login_uid": 5, "login_user": 6}
        | {"session": 7, "tty": 8, "cgroup": 9, "unit": 10, "container_id": 11}
    )
    boots = _Encoded({"boot_id": 0, "hostname": 1})
    heads = {
        kind: f'"timestamp_desc":"{text}","data_type":"linux:prochist:{kind}","event":"{kind}"'
        for kind, text in DESCRIPTIONS.items()
    }
    # Of each life that is open: what all of its events say, as long as its origin stays.
    shared: dict[int, tuple[Shared, str]] = {}
    for event in events:
        at_ns, kind, subject, image, origin, source, *_ = event
        micros = at_ns // 1000
        when = (
            f'"datetime":"{seconds[micros // 1_000_000]}.{micros % 1_000_000:06d}+00:00",'
            f'"timestamp":{micros},{heads[kind]},"timestamp_ns":{at_ns}'
        )
        if subject is None:
            yield f'{{"message":{encode_basestring(words(event))},{when}{_note(event)}}}\n'
            continue
        life = subject.life
        id_, pid = life[0], life[3]
        known = shared.get(id_)
        if known is None or known[0] is not origin:
            text = f'"process_id":{id_},"pid":{pid}{_kin(subject)}{boots[subject.boot]}'
            text += origins[origin] + parents[subject.parent_image]
            known = shared[id_] = (origin, text)
        if kind == "ended":
            del shared[id_]
        if kind in _PLAIN:
            said = "was running" if source == "scan" else kind
            more = f',"source":"{source}"'
        else:
            said, more = encode_basestring(words(event))[1:-1], _particulars(event)
        yield (
            f'{{"message":"[{pid}] {said}: {commands[image]}",{when},'
            f"{known[1]}{images[image]}{more}}}\n"
        )


def _kin(subject: Subject) -> str:
    parent_id, ppid = subject.life[1], subject.life[4]
    text = "" if parent_id is None else f',"parent_id":{parent_id}'
    return text if ppid is None else f'{text},"ppid":{ppid}'


def _particulars(event: Event) -> str:
    """Return the attributes of this kind of event, each with a comma before it."""
    text = "" if event.source is None else f',"source":"{event.source}"'
    status = event.status
    if status is not None:
        duration_ns = event.duration_ns
        text += f',"state":"{status.state}"'
        if status.exit_code is not None:
            text += f',"exit_code":{status.exit_code}'
        if status.term_signal_name is not None:
            text += f',"signal":"{status.term_signal_name}"'
        if status.core_dumped:
            text += ',"core_dumped":1'
        if duration_ns is not None:
            text += f',"duration_s":{duration_ns / 1e9!r}'
    elif event.ids is not None:
        text += f',"real_id":{event.ids[0]},"effective_id":{event.ids[1]}'
    if event.other_id is not None:
        text += f',"other_id":{event.other_id}'
    if event.detail is not None:
        text += f',"detail":{json_value(event.detail)}'
    return text


def _note(event: Event) -> str:
    """Return what is known of a gap or a boot."""
    named = {
        name: value
        for name, value in zip(("boot_id", "hostname"), event.row()[5:7], strict=True)
        if value is not None
    } | {
        name: value
        for name, value in zip(
            ("until", "until_ns", "lost", "detail"), event.row()[-4:], strict=True
        )
        if value is not None
    }
    return "".join(f',"{name}":{json_value(value)}' for name, value in named.items())
