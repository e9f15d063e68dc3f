"""Exec records as bytes: there and back, garbled and cut."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.execrecord import (
    ExecRecord,
    MalformedExecRecordError,
    brief_exec_record,
    decode_exec_record,
    encode_exec_record,
    read_needs,
    split_exec_records,
    what_ran,
)
from prochist.clock import BootNs, MonotonicNs

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
known_id = st.none() | st.integers(0, 2**32 - 2)
text = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b""))
names = text.map(lambda raw: raw.replace(b"/", b"")).filter(bool)
paths = st.lists(names, max_size=5).map(lambda parts: b"/" + b"/".join(parts))


@st.composite
def records(draw: st.DrawFn) -> ExecRecord:
    argv = draw(st.none() | st.binary(max_size=200))
    cut = draw(st.sampled_from([0, 0, 5, 2**21]))
    return ExecRecord(
        monotonic_ns=MonotonicNs(draw(u64)),
        tgid=draw(u32),
        old_tid=draw(u32),
        start_boottime_ns=BootNs(draw(u64)),
        parent_tgid=draw(u32),
        uid=draw(u32),
        gid=draw(u32),
        euid=draw(u32),
        egid=draw(u32),
        login_uid=draw(known_id),
        session=draw(known_id),
        sid=draw(u32),
        ns_pid=draw(u32),
        tty_nr=draw(u32),
        cgroup_id=draw(u64),
        cgroups_key=draw(u64),
        exe_device=os.makedev(draw(st.integers(0, 0xFFF)), draw(st.integers(0, 0xFFFFF))),
        exe_inode=draw(u64),
        comm=draw(text)[:15],
        exec_path=draw(st.none() | text),
        exe=draw(st.none() | paths | paths.map(lambda path: path + b" (deleted)")),
        cwd=draw(st.none() | paths),
        argc=draw(u32),
        argv_size=len(argv or b"") + cut,
        argv=argv,
    )


@given(records())
def test_a_record_comes_back_as_it_was_written(record: ExecRecord) -> None:
    assert decode_exec_record(encode_exec_record(record)) == record


@given(st.binary(max_size=400))
def test_any_bytes_give_our_error_or_a_record(payload: bytes) -> None:
    with contextlib.suppress(MalformedExecRecordError):
        assert isinstance(decode_exec_record(payload), ExecRecord)


@given(records(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_a_garbled_record_gives_our_error_or_a_record(
    record: ExecRecord, changes: list[tuple[int, int]]
) -> None:
    payload = bytearray(encode_exec_record(record))
    for at, value in changes:
        payload[at % len(payload)] = value
    with contextlib.suppress(MalformedExecRecordError):
        assert isinstance(decode_exec_record(bytes(payload)), ExecRecord)


@given(records(), st.binary(min_size=1, max_size=20))
def test_a_record_cut_anywhere_or_with_more_behind_is_refused(
    record: ExecRecord, more: bytes
) -> None:
    payload = encode_exec_record(record)
    for cut in range(0, len(payload), 7):
        with pytest.raises(MalformedExecRecordError):
            decode_exec_record(payload[:cut])
    with pytest.raises(MalformedExecRecordError):
        decode_exec_record(payload + more)


@given(st.lists(records(), max_size=4))
def test_records_that_lie_one_after_the_other_are_taken_apart(run: list[ExecRecord]) -> None:
    whole = b"".join(map(encode_exec_record, run))
    assert list(map(decode_exec_record, split_exec_records(whole))) == run


@given(records(), records(), st.integers(1, 400))
def test_a_run_that_is_cut_gives_what_is_whole_and_our_error(
    first: ExecRecord, second: ExecRecord, cut: int
) -> None:
    whole, part = encode_exec_record(first), encode_exec_record(second)
    split = split_exec_records(whole + part[: max(1, len(part) - cut)])
    assert next(split) == whole
    with pytest.raises(MalformedExecRecordError):
        next(split)


@given(st.binary(max_size=400))
def test_any_bytes_give_our_error_or_are_told_apart(payload: bytes) -> None:
    read_needs(payload)
    with contextlib.suppress(MalformedExecRecordError):
        for record in split_exec_records(payload):
            what_ran(record)
            brief_exec_record(record)


@given(records())
def test_what_is_looked_at_alone_is_what_the_whole_record_says(record: ExecRecord) -> None:
    payload = encode_exec_record(record)
    what = what_ran(payload)
    assert (what.argv, what.argv_complete) == (record.argv, record.argv_complete)
    brief = brief_exec_record(payload)
    for name in brief._fields[1:]:
        assert getattr(brief, name) == getattr(record, name)
    needs = read_needs(payload)
    assert needs is not None
    assert (needs.tgid, needs.cgroups_key) == (record.tgid, record.cgroups_key)
    if record.argv is not None:
        assert needs.is_argv_cut is not record.argv_complete


@given(records(), records())
def test_two_records_are_of_the_same_program_when_comm_and_paths_are_equal(
    first: ExecRecord, second: ExecRecord
) -> None:
    def program(record: ExecRecord) -> tuple[bytes | None, ...]:
        return record.comm, record.exec_path, record.exe, record.cwd

    def like(record: ExecRecord) -> ExecRecord:
        return first._replace(
            comm=record.comm, exec_path=record.exec_path, exe=record.exe, cwd=record.cwd
        )

    def key(record: ExecRecord) -> bytes:
        return what_ran(encode_exec_record(record)).program

    assert key(first) != key(second) or program(first) == program(second)
    assert what_ran(encode_exec_record(like(second))).argv == first.argv
    if (first.argv is None) == (second.argv is None):
        assert key(like(second)) == key(second)
