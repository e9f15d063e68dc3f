r"""A timeline as one HTML file that needs nothing else: no network, no other file.

``timeline.html`` is the page: markup, style and script. Here it is filled with the lives.
They are data and never markup: one JSON document, in which ``<`` is written ``\u003c``, in
a block that no browser executes; the page makes text of it. A Content-Security-Policy
permits the script and the style that are in the file, by their digests, and nothing else.

Source: html.spec.whatwg.org, restrictions for contents of script elements; w3.org/TR/CSP3.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from json.encoder import encode_basestring
from typing import NamedTuple

from prochist.ask.completeness import Gap
from prochist.ask.processes import Value, status
from prochist.ask.timeline import Event, Shared, Subject
from prochist.show.records import json_value
from prochist.show.timeline_text import words


class Page(NamedTuple):
    """What a page says besides its lives; times are in nanoseconds since the epoch."""

    title: str
    verdict: str
    complete: bool
    since_ns: int | None
    until_ns: int | None
    now_ns: int


class _Table(dict[Shared, int]):
    """Distinct parts, numbered as they come."""

    def __missing__(self, part: Shared) -> int:
        number = self[part] = len(self)
        return number


def pieces(
    lives: Iterable[tuple[Subject, list[Event]]], notes: Iterable[Event], page: Page
) -> Iterator[str]:
    """Yield the file in parts; ``lives`` come in the order of their start."""
    template = files("prochist.show").joinpath("timeline.html").read_text(encoding="utf-8")
    style, script = (_block(template, name) for name in ("style", "script"))
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}';"
        " base-uri 'none'; form-action 'none'"
    )
    before, after = (
        template.replace("{{policy}}", policy)
        .replace("{{title}}", html.escape(page.title))
        .replace(f"{{{{style:{style}}}}}", style)
        .replace(f"{{{{script:{script}}}}}", script)
        .split("{{data}}")
    )
    yield before
    for text in _data(lives, notes, page):
        yield text.replace("<", "\\u003c")
    yield after


def _block(template: str, name: str) -> str:
    match = re.search(rf"<{name}>\{{\{{{name}:(.*?)\}}\}}</{name}>", template, re.DOTALL)
    assert match is not None, name  # noqa: S101 - the template is a file of ours
    return match[1]


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(
    lives: Iterable[tuple[Subject, list[Event]]], notes: Iterable[Event], page: Page
) -> Iterator[str]:
    images, origins, boots, statuses = _Table(), _Table(), _Table(), _Table()
    base_ns: int | None = None
    between = '{"lives":['
    for subject, events in lives:
        if base_ns is None:
            base_ns = next((e.at_ns for e in events), page.now_ns)
        yield between + _life(subject, events, (images, origins, boots, statuses), base_ns)
        between = ",\n"
    if base_ns is None:
        yield between
        base_ns = page.now_ns
    yield "]"
    yield ',\n"images":[' + ",\n".join(map(_image, images)) + "]"
    for name, table in (("origins", origins), ("boots", boots)):
        yield f',\n"{name}":[' + ",\n".join(map(_array, table)) + "]"
    yield ',\n"statuses":[' + ",".join(map(_array, statuses)) + "]"
    yield ',\n"notes":[' + ",".join(_note(note, base_ns) for note in notes) + "]"
    limits = [
        "null" if at_ns is None else str(at_ns - base_ns)
        for at_ns in (page.since_ns, page.until_ns, page.now_ns)
    ]
    yield (
        f',\n"meta":{{"title":{encode_basestring(page.title)},'
        f'"verdict":{encode_basestring(page.verdict)},'
        f'"complete":{"true" if page.complete else "false"},"base_ns":"{base_ns}",'
        f'"since":{limits[0]},"until":{limits[1]},"now":{limits[2]}}}}}'
    )


def _array(values: Iterable[Value]) -> str:
    return f"[{','.join(map(json_value, values))}]"


def _life(
    subject: Subject,
    events: list[Event],
    tables: tuple[_Table, _Table, _Table, _Table],
    base_ns: int,
) -> str:
    """Return a row; the order of its values is that of the constants in ``timeline.html``."""
    images, origins, boots, statuses = tables
    life = subject.life
    started, ended, after = life[10], life[11], life[25]
    from_ns = base_ns if started is None else started
    length: int | None = None
    if ended is not None:
        # Of a life whose start is not known the page gets the end itself.
        length = ended - from_ns
    cost = "0" if life[16:25] == (None,) * 9 else _array(life[16:25])
    more = ",".join(
        f"[{event.at_ns - from_ns},{images[event.image]}{_said(event)}]"
        for event in events
        if event.kind not in ("started", "ended")
    )
    numbers = (
        *(life[0], life[1] or 0, *life[3:7], images[subject.image], origins[subject.origin]),
        *(life[9], boots[subject.boot], None if started is None else started - base_ns, length),
        *(statuses[status(life[12])], *life[13:16]),
    )
    last = "null" if after is None else str(after - base_ns)
    return f"{_array(numbers)[:-1]},{cost},{last},{f'[{more}]' if more else 0}]"


def _said(event: Event) -> str:
    return "" if event.kind == "exec" else f",{encode_basestring(words(event))}"


def _image(image: Shared) -> str:
    """Return a row of images; argv is left out where it is the command line split at spaces."""
    line, argv = image[3], image[4]
    if isinstance(line, str) and isinstance(argv, str) and json.loads(argv) == line.split(" "):
        image = (*image[:4], None, *image[5:])
    return _array(image)


def _note(event: Event, base_ns: int) -> str:
    gap = event.note
    until = str(gap.until_at_ns - base_ns) if isinstance(gap, Gap) else "null"
    said = encode_basestring(words(event))
    return f'{{"from":{event.at_ns - base_ns},"until":{until},"said":{said}}}'
