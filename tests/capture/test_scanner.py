"""The scanner: everything that runs, oldest first, then SCANNED; a folder plays /proc."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from prochist.capture.channel import ChannelReader, Word, create_channel
from prochist.capture.observation import Description, Reason, Record, Scanned, decode_records
from prochist.capture.scanner import Options, scan


def make_process(proc: Path, pid: int, starttime: int, argv: bytes = b"x\0") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_bytes(
        b"%d (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d" % (pid, starttime) + b" 0" * 30
    )
    (folder / "cmdline").write_bytes(argv)


def records_of(proc: Path, **options: object) -> list[Record]:
    output = io.BytesIO()
    scan(output, Options(proc=str(proc), **options))  # type: ignore[arg-type]
    return list(decode_records(output.getvalue()))


def pids_of(records: list[Record]) -> list[int]:
    return [record.pid for record in records if isinstance(record, Description)]


def test_processes_are_described_oldest_first_whatever_their_pids(tmp_path: Path) -> None:
    for pid, starttime in ((1, 5), (900, 10), (20, 400), (21, 90)):
        make_process(tmp_path, pid, starttime)
    records = records_of(tmp_path)
    assert pids_of(records) == [1, 900, 21, 20]
    assert all(r.reason is Reason.SCAN for r in records if isinstance(r, Description))


def test_a_scan_ends_with_when_it_began_and_ended(tmp_path: Path) -> None:
    make_process(tmp_path, 1, 5)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    *described, last = records_of(tmp_path)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert isinstance(last, Scanned)
    assert before <= last.began_ns <= last.ended_ns <= after
    (one,) = described
    assert isinstance(one, Description)
    assert last.began_ns <= one.at_ns <= last.ended_ns


def test_an_empty_proc_is_still_a_complete_scan(tmp_path: Path) -> None:
    (only,) = records_of(tmp_path)
    assert isinstance(only, Scanned)


def test_what_vanished_or_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    make_process(tmp_path, 1, 5)
    (tmp_path / "2").mkdir()  # gone between listing and reading
    make_process(tmp_path, 3, 6)
    (tmp_path / "3" / "stat").write_bytes(b"nonsense")
    assert pids_of(records_of(tmp_path)) == [1]


def test_a_stuck_process_is_named_in_the_channel_and_left_alone_when_asked_to(
    tmp_path: Path,
) -> None:
    make_process(tmp_path, 1, 5)
    make_process(tmp_path, 77, 6)
    (tmp_path / "77" / "cmdline").unlink()
    os.mkfifo(tmp_path / "77" / "cmdline")  # opening it hangs, as a stuck process does
    fd = create_channel()
    reader = ChannelReader(fd)
    options = {"channel_fd": fd, "proc": str(tmp_path)}
    command = [sys.executable, "-m", "prochist.capture.scanner"]
    try:
        with subprocess.Popen(
            [*command, json.dumps(options)], stdout=subprocess.PIPE, pass_fds=(fd,)
        ) as stuck:
            until = time.monotonic() + 10
            while reader.words[Word.SCANNING_PID] != 77 and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.05)
            assert reader.words[Word.SCANNING_PID] == 77
            assert stuck.poll() is None
            stuck.kill()
        options["lock_free"] = [77]
        done = subprocess.run(
            [*command, json.dumps(options)], capture_output=True, pass_fds=(fd,), check=True
        )
        assert pids_of(list(decode_records(done.stdout))) == [1, 77]
        assert reader.words[Word.SCANNING_PID] == 0
    finally:
        reader.close()
        os.close(fd)


def test_a_real_scan_finds_our_own_child() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, cwd="/") as child:
        records = records_of(Path("/proc"))
        child.communicate()
    mine = [r for r in records if isinstance(r, Description) and r.pid == child.pid]
    assert [one.argv for one in mine] == [b"/bin/cat\0"]
    assert isinstance(records[-1], Scanned)
    order = pids_of(records)
    assert order.index(os.getpid()) < order.index(child.pid)
