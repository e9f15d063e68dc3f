"""Probed execs: the exec probe's records find the EXEC events they belong to.

Pure. Records and events come by two ways, each in its own order, each with
losses of its own; neither may give a life what belongs to another.
"""

import struct
from contextlib import suppress
from typing import TypeVar

from prochist.capture import procfs
from prochist.capture.execrecord import (
    OFFSETS,
    ExecBrief,
    MalformedExecRecordError,
    brief_exec_record,
    decode_exec_record,
    split_exec_records,
    what_ran,
    who_ran,
)
from prochist.clock import MonotonicNs
from prochist.history.image import Image, Program, decode_text, make_image
from prochist.history.lifetime import Origin

MOST_WAITING = 65536
"""Processes whose records wait for their EXEC; a traced process may be stopped before it."""

CLOSE_NS = 200_000
"""The EXEC comes 2 to 40 us after the record; no two execves of a process follow so closely."""

MOST_REMEMBERED = 4096
"""Programs, images and origins that are remembered by the bytes that told of them."""

LONGEST_REMEMBERED = 1024
"""Longest argv, in bytes, that is remembered."""


_ARGV_SIZE = struct.Struct("=Q")

Key = TypeVar("Key")
Value = TypeVar("Value")


class ProbedExec:
    """One record of the probe, decoded no further than needed."""

    __slots__ = ("brief", "payload")

    def __init__(self, brief: ExecBrief, payload: bytes) -> None:
        self.brief = brief
        self.payload = payload


class ProbedExecs:
    """Keeps records until their EXEC event comes, and reads them."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[ProbedExec]] = {}
        self._programs: dict[bytes, Program] = {}
        self._images: dict[tuple[bytes, bytes | None, bool], Image] = {}
        self._origins: dict[tuple[bytes, str | None], Origin] = {}

    def __bool__(self) -> bool:
        """Return whether any record waits."""
        return bool(self._waiting)

    def add(self, run: bytes) -> None:
        """Keep records; from one on that is malformed they are passed over."""
        waiting = self._waiting
        with suppress(MalformedExecRecordError):
            for payload in split_exec_records(run):
                found = ProbedExec(brief_exec_record(payload), payload)
                records = waiting.setdefault(found.brief.tgid, [])
                records.append(found)
                if len(waiting) > MOST_WAITING:
                    del waiting[next(iter(waiting))]

    def take(self, pid: int, at: MonotonicNs, loss_until: MonotonicNs) -> ProbedExec | None:
        """Take the record of the execve whose EXEC event is of ``at``, or None.

        The probe writes just before the kernel sends EXEC, so the newest record
        that is not younger than the event belongs to it; older ones are of
        execves whose EXEC was lost. Where events were lost, up to
        ``loss_until``, only a record from just before counts.
        """
        records = self._waiting.get(pid)
        if records is None:
            return None
        found = None
        while records and records[0].brief.monotonic_ns <= at:
            found = records.pop(0)
        if not records:
            del self._waiting[pid]
        if found is None:
            return None
        written = found.brief.monotonic_ns
        return None if written < loss_until and at - written > CLOSE_NS else found

    def image(self, exec_: ProbedExec, longer_argv: bytes | None) -> Image | None:
        """Return what was run, or None when the record is malformed.

        ``longer_argv`` is what /proc said, for an argv that the record holds the beginning of.
        """
        try:
            key, argv, complete = what_ran(exec_.payload)
            program = self._programs.get(key)
            if program is None:
                program = _decode_program(exec_.payload)
                _remember(self._programs, key, program)
        except MalformedExecRecordError:
            return None
        if longer_argv is not None and not complete:
            begins = argv or b""
            if len(longer_argv) > len(begins) and longer_argv.startswith(begins):
                (argv_size,) = _ARGV_SIZE.unpack_from(exec_.payload, OFFSETS["argv_size"])
                argv, complete = longer_argv, len(longer_argv) == argv_size
        image = self._images.get((key, argv, complete))
        if image is None:
            image = make_image(program, argv, complete=complete)
            if argv is None or len(argv) <= LONGEST_REMEMBERED:
                _remember(self._images, (key, argv, complete), image)
        return image

    def origin(self, exec_: ProbedExec, cgroup: str | None) -> Origin | None:
        """Return for whom it runs, in that cgroup, or None when the record is malformed."""
        key = who_ran(exec_.payload), cgroup
        origin = self._origins.get(key)
        if origin is None:
            try:
                record = decode_exec_record(exec_.payload)
            except MalformedExecRecordError:
                return None
            origin = Origin(
                record.uid,
                record.euid,
                record.gid,
                record.egid,
                record.login_uid,
                record.session,
                procfs.parse_tty(record.tty_nr),
                cgroup,
            )
            _remember(self._origins, key, origin)
        return origin


def _decode_program(payload: bytes) -> Program:
    record = decode_exec_record(payload)
    parts = (record.comm, record.exe, record.exec_path, record.cwd)
    return Program(*(None if part is None else decode_text(part) for part in parts))


def _remember(rows: dict[Key, Value], key: Key, value: Value) -> None:
    if len(rows) >= MOST_REMEMBERED:
        rows.clear()
    rows[key] = value
