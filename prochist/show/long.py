"""One life in words, as ``systemctl status`` describes a unit: for people.

``life`` shows the columns of a row that are known; ``kin`` what ``show`` adds to
it: parents, execs, changes, events, children.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from prochist.show import human
from prochist.show.table import command, ending
from prochist.show.terminal import clip, escape

Record = Mapping[str, Any]

_LABEL = 11
_END_SOURCES = {
    "resync": "its end was not seen; found gone later",
    "boot": "its end was not seen; the host was booted meanwhile",
}
_MOST_LINES = 20


def life(
    row: Record, *, zone: tzinfo | None, now_ns: int, columns: int | None = None
) -> Iterator[str]:
    """Yield the lines that describe one row of ``processes``."""
    name = escape(row["comm"] or row["exe"] or "?")
    yield _fit(f"{_mark(row)} {name} · pid {row['pid']} · id {row['id']}\n", columns)
    for label, text in _facts(row, zone, now_ns):
        if text:
            yield _fit(f"{label:>{_LABEL}}: {text}\n", columns)


def fields(
    names: Sequence[str], values: Sequence[Any], *, columns: int | None = None
) -> Iterator[str]:
    """Yield any columns of a row, one a line; NULL is left empty."""
    widest = max(map(len, names), default=0)
    for name, value in zip(names, values, strict=True):
        text = "" if value is None else escape(_text(value))
        yield _fit(f"{escape(name):>{widest}}: {text}".rstrip() + "\n", columns)


def _executed(row: Record) -> str:
    return escape(command(row["command_line"], row["exec_path"], row["exe"]))


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def kin(
    row: Record, *, zone: tzinfo | None, now_ns: int, columns: int | None = None
) -> Iterator[str]:
    """Yield what ``life_in_full`` knows beyond the row itself."""
    yield from _section("Parents", [_brief(p) for p in row["parents"]], columns)
    execs = [f"{human.instant(e['at_ns'], zone)}  {_executed(e)}" for e in row["execs"]]
    yield from _section("Execs", execs, columns)
    changes = [
        (c["at_ns"], f"{c['kind']} {c['real']}, effective {c['effective']}")
        for c in row["id_changes"]
    ] + [(e["at_ns"], f"{e['kind']} {escape(e['detail'] or '')}".rstrip()) for e in row["events"]]
    lines = [f"{human.instant(at, zone)}  {text}" for at, text in sorted(changes)]
    yield from _section("Changes", lines, columns)
    children = [_brief(c, zone, now_ns) for c in row["children"]]
    more = row["children_count"] - len(children)
    yield from _section("Children", children, columns, more=more)


def end_in_words(row: Record) -> str:
    """Return how it ended: ``killed by SIGSEGV, core dumped``, ``exited with status 1``."""
    match row["state"]:
        case "running":
            return "running"
        case "exited":
            code = row["exit_code"]
            return "exited successfully" if code == 0 else f"exited with status {code}"
        case "killed":
            core = ", core dumped" if row["core_dumped"] else ""
            return f"killed by {row['term_signal_name']}{core}"
        case _:
            return _END_SOURCES.get(row["end_source"], "how it ended is not known")


def _mark(row: Record) -> str:
    failed = row["state"] == "killed" or row["exit_code"]
    return "●" if row["state"] == "running" else "×" if failed else "○"  # noqa: RUF001


def _facts(row: Record, zone: tzinfo | None, now_ns: int) -> Iterator[tuple[str, str | None]]:
    started, ended = row["started_at_ns"], row["ended_at_ns"]
    length = None if started is None else (now_ns if ended is None else ended) - started
    yield "Command", escape(command(row["command_line"], row["comm"], row["exe"])) + _cut(row)
    yield "Executable", _known(row["exe"])
    if row["exec_path"] not in (None, row["exe"]):
        yield "Called as", escape(row["exec_path"])
    yield "Directory", _known(row["cwd"])
    seen = "" if row["start_source"] == "fork" else " (found running)"
    yield "Started", human.instant_exact(started, zone) + seen
    if ended is not None:
        yield "Ended", human.instant_exact(ended, zone)
    if row["ended_after_ns"] is not None:
        yield "not before", human.instant_exact(row["ended_after_ns"], zone)
    yield (
        "State",
        f"{end_in_words(row)}, after {human.duration(length)}"
        if (row["state"] != "running")
        else f"running for {human.duration(length)}",
    )
    reaper = "" if row["reaper_pid"] in (None, row["ppid"]) else f", at the end {row['reaper_pid']}"
    parent = "" if row["parent_id"] is None else f" (id {row['parent_id']})"
    yield "Parent", None if row["ppid"] is None else f"{row['ppid']}{parent}{reaper}"
    if row["ns_pid"] not in (None, row["pid"]):
        yield "Inner pid", str(row["ns_pid"])
    yield "User", _user(row)
    if row["login_uid"] is not None:
        session = "" if row["session"] is None else f", session {row['session']}"
        yield "Login", f"{escape(row['login_user'] or '?')} ({row['login_uid']}){session}"
    yield "Terminal", _known(row["tty"])
    yield "Unit", _known(row["unit"])
    yield "Cgroup", _known(row["cgroup"])
    yield "Container", _known(row["container_id"])
    yield "Cost", _cost(row)
    yield (
        "Known from",
        f"start {row['start_source']}, exec {row['exec_source']}"
        + (f", end {row['end_source']}" if row["end_source"] else ""),
    )
    yield "Host", f"{escape(row['host'] or '?')}, boot {row['boot_id']}"


def _known(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _cut(row: Record) -> str:
    return " … (cut)" if row["argv_complete"] == 0 else ""


def _user(row: Record) -> str | None:
    if row["uid"] is None:
        return None
    text = f"{escape(row['user'] or '?')} ({row['uid']})"
    if row["euid"] not in (None, row["uid"]):
        text += f", effective {row['euid']}"
    return text if row["gid"] is None else f"{text}, group {row['gid']}"


def _cost(row: Record) -> str | None:
    parts = []
    if row["cpu_user_s"] is not None:
        user, system = round(row["cpu_user_s"] * 1e9), round((row["cpu_system_s"] or 0) * 1e9)
        parts.append(f"CPU {human.duration(user)} user, {human.duration(system)} system")
    if row["max_rss_bytes"] is not None:
        parts.append(f"memory {human.size(row['max_rss_bytes'])}")
    if row["read_bytes"] is not None:
        parts.append(
            f"read {human.size(row['read_bytes'])}, written {human.size(row['write_bytes'])}"
        )
    if row["thread_peak"] and row["thread_peak"] > 1:
        parts.append(f"{row['thread_peak']} threads")
    return "; ".join(parts) or None


def _brief(row: Record, zone: tzinfo | None = None, now_ns: int | None = None) -> str:
    text = f"{row['pid']:>7}  "
    if now_ns is not None:
        end = ending(row["state"], row["exit_code"], row["term_signal_name"])
        text += f"{human.instant(row['started_at_ns'], zone)}  {end:<8} "
    return text + escape(command(row["command_line"], row["comm"], row["exe"]))


def _section(title: str, lines: list[str], columns: int | None, *, more: int = 0) -> Iterator[str]:
    if not lines:
        return
    yield _fit(f"{title:>{_LABEL}}:\n", columns)
    for line in lines[:_MOST_LINES]:
        yield _fit(f"{'':{_LABEL}}  {line}\n", columns)
    more += max(len(lines) - _MOST_LINES, 0)
    if more:
        yield _fit(f"{'':{_LABEL}}  … {more} more\n", columns)


def _fit(line: str, columns: int | None) -> str:
    return line if columns is None else clip(line[:-1], columns) + "\n"
