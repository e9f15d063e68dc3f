"""What a process was started with: argv in all its forms, scripts, directory and file."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.live import Acting, History, Row

pytestmark = pytest.mark.kernel


@contextmanager
def running(
    argv: Sequence[str | bytes], executable: str | Path | None = None, cwd: Path | None = None
) -> Iterator[tuple[int, int]]:
    """Run a program that waits for the end of its standard input; yield its pid and start."""
    since_ns = time.time_ns()
    with subprocess.Popen(
        argv, executable=executable, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        yield process.pid, since_ns


def executed(history: History, pid: int, since_ns: int) -> Row:
    """Return the newest execve of a process that has made one."""
    life = history.life(pid, since_ns, exec_count=1)
    assert life["exec_source"] in {"proc", "bpf"}
    (execution,) = history.execs(life)
    for column in ("exe", "command_line", "argv", "argv_complete", "cwd"):
        assert execution[column] == life[column], column
    return execution


def test_arguments_are_kept_apart_and_quoted(history: History, tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "read line", "", "two words", "it's", "naïve ☃", "new\nline", "$(x)"]
    with running(argv, cwd=tmp_path) as (pid, since_ns):
        execution = executed(history, pid, since_ns)
    assert json.loads(execution["argv"]) == argv
    assert execution["argv_complete"] == 1
    assert execution["argv_raw"] is None
    assert execution["cwd"] == str(tmp_path)
    assert execution["exe"] == str(Path("/bin/sh").resolve())
    printed = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {execution['command_line']}"],
        capture_output=True,
        check=True,
    )
    assert printed.stdout == b"".join(argument.encode() + b"\0" for argument in argv)


def test_every_byte_of_an_argument_is_kept(history: History) -> None:
    argument = bytes(range(1, 256))
    argv = [b"/bin/sh", b"-c", b"read line", argument]
    with running(argv) as (pid, since_ns):
        execution = executed(history, pid, since_ns)
    assert execution["argv_raw"] == b"".join(part + b"\0" for part in argv)
    assert json.loads(execution["argv"])[3] == argument.decode("utf-8", "backslashreplace")


def test_empty_arguments_are_arguments(history: History) -> None:
    argv = ["/bin/sh", "-c", "read line", "", "", ""]
    with running(argv) as (pid, since_ns):
        assert json.loads(executed(history, pid, since_ns)["argv"]) == argv


def test_a_program_without_arguments_is_described(history: History) -> None:
    with Acting("execute_without_arguments") as actor:
        life = history.life(actor.pid, actor.since_ns, exec_count=2)
        raw = Path(f"/proc/{actor.pid}/cmdline").read_bytes()
        assert raw in {b"\0", b""}  # since Linux 5.18 the kernel adds an empty argument
        assert json.loads(life["argv"]) == ([""] if raw else [])
        assert life["argv_complete"] == 1
        assert life["exe"] == str(Path("/bin/cat").resolve())


def test_two_mebibytes_of_arguments_are_cut_and_said_to_be(history: History) -> None:
    argv = ["/bin/sh", "-c", "read line", *[str(number) * 100_000 for number in range(10)]]
    argv += [letter * 100_000 for letter in "abcdefghi"]
    with running(argv) as (pid, since_ns):
        execution = executed(history, pid, since_ns)
    assert execution["argv_complete"] == 0
    recorded = json.loads(execution["argv"])
    assert recorded[:4] == argv[:4]
    assert "\0".join(argv).startswith("\0".join(recorded))
    assert len("\0".join(recorded)) >= 128 * 1024 - 1


def test_as_much_argv_as_is_kept_is_whole(history: History) -> None:
    argv = ["/bin/sh", "-c", "read line", "x" * 60_000, "y" * 60_000]
    with running(argv) as (pid, since_ns):
        execution = executed(history, pid, since_ns)
    assert json.loads(execution["argv"]) == argv
    assert execution["argv_complete"] == 1


def test_a_script_is_one_execve_of_its_interpreter(history: History, tmp_path: Path) -> None:
    script = tmp_path / "a script"
    script.write_text("#!/bin/sh -u\nread line\nexit 21\n", encoding="utf-8")
    script.chmod(0o755)
    with running([str(script), "one", "two words"]) as (pid, since_ns):
        execution = executed(history, pid, since_ns)
        life = history.life(pid, since_ns)
    argv = ["/bin/sh", "-u", str(script), "one", "two words"]
    assert json.loads(execution["argv"]) == argv
    assert execution["exe"] == str(Path("/bin/sh").resolve())
    assert life["comm"] == script.name
    assert history.ended(pid, since_ns)["exit_code"] == 21
