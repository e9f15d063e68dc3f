"""``prochist query --follow`` beside something that writes."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ask.test_follow import Recorder
from tests.command import PROCHIST, environment, run


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    recorder = Recorder(tmp_path / "history.db")
    recorder.builder.recording(stopped=False)
    for pid in range(1, 21):
        recorder.begin(pid, ["old"], pid)
    recorder.commit()
    return recorder


class Following:
    """A follower; its lines as they come."""

    def __init__(self, recorder: Recorder, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PROCHIST, "query", "-f", "-o", "jsonl", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(recorder.builder.path),
        )

    def pids(self, count: int) -> list[int]:
        """Wait for so many lines."""
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(count)]
        return [json.loads(line)["pid"] for line in lines]

    def stop(self) -> tuple[str, str]:
        """Press Ctrl-C, and return what else came."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=30)


@pytest.fixture
def following(recorder: Recorder) -> Iterator[Following]:
    following = Following(recorder)
    yield following
    following.process.kill()
    following.process.communicate()


def test_the_newest_ten_come_first_and_then_what_is_recorded(
    recorder: Recorder, following: Following
) -> None:
    assert following.pids(10) == list(range(11, 21))
    recorder.begin(99, ["new"], 60)
    recorder.commit()
    assert following.pids(1) == [99]
    assert following.stop() == ("", "")


def test_a_shipper_goes_on_exactly_where_it_stopped(recorder: Recorder, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    arguments = ("--cursor-file", str(cursor), "-n", "all")
    first = Following(recorder, *arguments)
    assert first.pids(20) == list(range(1, 21))
    recorder.begin(30, ["new"], 60)
    recorder.commit()
    assert first.pids(1) == [30]
    wait_for(cursor, recorder.batch)
    assert first.stop() == ("", "")
    for pid in range(31, 40):  # nobody follows
        recorder.begin(pid, ["new"], pid + 60)
        recorder.commit()
    second = Following(recorder, *arguments)
    assert second.pids(9) == list(range(31, 40))
    wait_for(cursor, recorder.batch)
    assert second.stop() == ("", "")
    assert sorted(p.name for p in tmp_path.glob("cursor*")) == ["cursor"]


def wait_for(cursor: Path, batch: int) -> None:
    """Wait until a cursor has come so far: it is written after the lines."""
    import time

    until = time.monotonic() + 30
    while not cursor.exists() or cursor.read_text() != f"prochist-cursor 1 {batch}\n":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_filters_hold_and_nobody_reading_ends_it(recorder: Recorder) -> None:
    following = Following(recorder, "--grep", "ne[w]", "-n", "1")
    recorder.begin(50, ["new", "x"], 70)
    recorder.begin(51, ["other"], 71)
    recorder.commit()
    assert following.pids(1) == [50]
    assert following.process.stdout is not None
    following.process.stdout.close()  # as `| head` does; nothing more needs to be written
    assert following.process.wait(timeout=30) == 0
    assert following.process.stderr is not None
    assert following.process.stderr.read() == ""
    following.process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", "--count"), "--follow goes with no --count"),
        (("-f", "-r"), "--follow goes with no --reverse"),
        (("-f", "--sort", "pid"), "--follow goes with no --sort"),
        (("-f", "-o", "json"), "--follow never comes to the end that json needs"),
        (("--cursor-file", "x"), "--cursor-file needs --follow"),
    ],
)
def test_what_has_no_end_refuses_what_needs_one(
    recorder: Recorder, arguments: tuple[str, ...], message: str
) -> None:
    done = run(recorder.builder.path, "query", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {message}\nHint: ")


@pytest.mark.parametrize("content", ["", "42\n", "prochist-cursor 1 x\n", "prochist-cursor 2 5\n"])
def test_a_file_that_is_no_cursor_is_left_alone(
    recorder: Recorder, tmp_path: Path, content: str
) -> None:
    cursor = tmp_path / "cursor"
    cursor.write_text(content)
    done = run(recorder.builder.path, "query", "-f", "--cursor-file", str(cursor))
    assert done.returncode == 3
    assert "is not a cursor file" in done.stderr
    assert cursor.read_text() == content


def test_a_cursor_that_cannot_be_written_is_told_at_once(
    recorder: Recorder, tmp_path: Path
) -> None:
    cursor = tmp_path / "missing" / "cursor"
    done = run(recorder.builder.path, "query", "-f", "--cursor-file", str(cursor))
    assert done.returncode == 3
    assert done.stderr.startswith(f"Error: cannot write the cursor file {cursor}: No such file")


def test_a_history_that_is_removed_ends_it(recorder: Recorder, following: Following) -> None:
    assert following.pids(10) == list(range(11, 21))
    recorder.builder.path.unlink()
    assert following.process.wait(timeout=30) == 3
    assert following.process.stderr is not None
    assert "was removed or replaced\nHint: " in following.process.stderr.read()
