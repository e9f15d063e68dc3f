"""``prochist ps``: who is running or was, in the columns of ps(1)."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prochist.cli import quick
from prochist.store.database import (
    APPLICATION_ID,
    SYSTEM_PATH,
    newest_version,
)
from tests.command import environment, run
from tests.history_builder import SECOND, T0, HistoryBuilder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ps") / "history.db"
    builder = HistoryBuilder(path)
    ann = builder.origin(1000, "ann", tty="/dev/pts/0")
    builder.life(1, T0, image=builder.image(["/sbin/init"]), ppid=None)
    builder.life(
        50, T0 + SECOND, T0 + 3 * SECOND, 0, image=builder.image(["cat"]), parent_id=1, origin=ann
    )
    shell = builder.image(["bash", "\x1b[31mred"])
    builder.life(70, T0 + 2 * SECOND, image=shell, parent_id=1, origin=ann, sid=0)
    builder.life(60, T0 + 2 * SECOND, image=builder.image(["nobody"]), origin=None, parent_id=1)
    builder.life(2, T0, image=None, origin=None, ppid=None, is_kernel_thread=1)
    builder.recording(T0, T0 + 1000 * SECOND, stopped=False)
    builder.close()
    return path


@pytest.fixture
def recorder(path: Path) -> Iterator[None]:
    with Path(f"{path}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_it_looks_like_ps(path: Path) -> None:
    lines = run(path, "ps", "--at", f"@{T0 // SECOND + 63}").stdout.splitlines()
    assert lines == [
        "USER  PID  PPID  TTY    START  ELAPSED  COMMAND",
        "root    1     ?  ?      14:13    01:03  /sbin/init",
        "?      60     1  ?      14:13    01:01  nobody",
        r"ann    70     1  pts/0  14:13    01:01  bash '\x1b[31mred'",
    ]


def test_at_an_instant_the_dead_of_today_are_alive(path: Path) -> None:
    done = run(path, "ps", "--at", f"@{T0 // SECOND + 2}", "--fields", "pid,comm", "-o", "csv")
    assert done.stdout.splitlines() == ["pid,comm", "1,init", "50,cat", "60,nobody", "70,bash"]
    assert done.stderr == "4 processes · complete\n"


def test_the_largest_come_first_with_a_hyphen(path: Path) -> None:
    done = run(path, "ps", "--fields", "pid", "--sort", "-started_at_ns", "--no-header")
    assert done.stdout.split() == ["70", "60", "1"] or done.stdout.split() == ["60", "70", "1"]


def test_kernel_threads_and_users_are_as_in_query(path: Path) -> None:
    assert "2" in run(path, "ps", "--kernel-threads", "--fields", "pid").stdout.split()
    assert run(path, "ps", "--user", "ann", "--fields", "pid", "--no-header").stdout.split() == [
        "70"
    ]


def test_nobody_running_is_1(path: Path) -> None:
    assert run(path, "ps", "--at", f"@{T0 // SECOND - 9}").returncode == 1


def test_an_unknown_column_is_refused(path: Path) -> None:
    for option in (("--fields", "pid,nonsense"), ("--sort", "nonsense")):
        done = run(path, "ps", *option)
        assert done.returncode == 2
        assert done.stderr.startswith("Error: no such column: 'nonsense'\nHint: columns: id,")


@pytest.mark.parametrize("form", ["table", "csv", "tsv"])
@pytest.mark.parametrize("sort", ["pid", "-pid", "ppid", "-started_at_ns"])
@pytest.mark.usefixtures("recorder")
def test_the_fast_lane_says_what_the_slow_one_says(path: Path, form: str, sort: str) -> None:
    asked = ("--fields", "pid,ppid,id,parent_id,sid", "--sort", sort, "-o", form)
    quickly = run(path, "ps", *asked)
    slowly = run(path, "ps", *asked, "--utc")  # which the fast lane does not know
    assert (quickly.stdout, quickly.stderr) == (slowly.stdout, slowly.stderr)
    assert quickly.stderr == "3 processes · complete\n"


@pytest.mark.usefixtures("recorder")
def test_the_fast_lane_loads_neither_click_nor_typing(path: Path) -> None:
    code = (
        "import sys; sys.argv = ['prochist', 'ps', '--fields', 'pid,ppid', '--db', sys.argv[1]]\n"
        "from prochist.cli.quick import ps\n"
        "assert ps(sys.argv[2:]) == 0\n"
        "print(*{'click', 'typing', 're', 'pathlib', 'json'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", _with_path(code), path],
        capture_output=True,
        text=True,
        check=False,
        env=environment(path),
    )
    assert done.stderr == "3 processes · complete\n\n"


def _with_path(code: str) -> str:
    """Let Python find apsw without site, which loads typing and more in some environments."""
    import apsw

    import prochist

    places = [str(Path(str(module.__file__)).parent.parent) for module in (apsw, prochist)]
    return f"import sys; sys.path += {places!r}\n{code}"


def test_the_fast_lane_is_silent_where_there_is_more_to_say(path: Path, tmp_path: Path) -> None:
    assert quick.ps(["--fields", "pid", "--db", str(path)]) is None  # no recorder
    assert quick.ps(["--fields", "pid", "--db", str(tmp_path / "missing")]) is None
    assert quick.ps(["--fields", "pid,comm", "--db", str(path)]) is None
    assert quick.ps(["--fields"]) is None
    assert quick.ps(["--help"]) is None
    assert quick.ps([]) is None


def test_the_fast_lane_knows_the_newest_schema() -> None:
    assert newest_version() == quick.SCHEMA
    assert quick.APPLICATION_ID == APPLICATION_ID
    assert str(SYSTEM_PATH) == quick.SYSTEM_PATH
