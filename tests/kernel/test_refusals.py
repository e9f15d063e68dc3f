"""Where and as whom it records, and what it says where it cannot."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.live import Acting, History, Recording, run_prochist, wait_status

pytestmark = pytest.mark.kernel

NOBODY = 65534
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SILENCE_S = 3.0
"""One second for the acknowledgement, the rest for Python to start on a machine that is shared."""


def test_a_second_recorder_on_the_same_database_is_refused(recording: Recording) -> None:
    result = run_prochist("record", "--db", recording.database)
    assert result.returncode == 3
    error, hint = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert str(recording.pid) in error
    assert hint.startswith("Hint: ")
    assert recording.process.poll() is None


@pytest.mark.parametrize(
    ("namespaces", "lacking"),
    [
        (("--pid", "--fork", "--mount-proc"), "pid"),
        (("--user", "--map-root-user"), "user"),
        (("--net",), "network"),
    ],
    ids=["pid", "user", "net"],
)
def test_in_a_container_it_says_what_the_container_lacks(
    database: Path, namespaces: tuple[str, ...], lacking: str
) -> None:
    prefix = ("unshare", *namespaces)
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{' '.join(prefix)} is not permitted here")
    began = time.monotonic()
    result = run_prochist("record", "--db", database, prefix=prefix)
    took_s = time.monotonic() - began
    assert result.returncode == 3
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    hints = [line for line in result.stderr.splitlines() if line.startswith("Hint: ")]
    assert len(errors) == len(hints) == 1
    assert "Traceback" not in result.stderr
    assert lacking in errors[0] + hints[0]
    assert "namespace" in errors[0] + hints[0]
    assert took_s < SILENCE_S


@pytest.fixture
def place_of_nobody() -> Iterator[Path]:
    """Make a folder that belongs to an ordinary user."""
    folder = Path(tempfile.mkdtemp(prefix="prochist-nobody-"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_without_root_it_records_what_it_may_and_says_what_is_missing(
    place_of_nobody: Path,
) -> None:
    again = "import prochist, subprocess, sys; subprocess.run([sys.executable, '-V'], check=True)"
    probe = [*AS_NOBODY, sys.executable, "-c", again]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("an ordinary user can read neither this Python nor this checkout")
    database = place_of_nobody / "history.db"
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (6, 6):
        result = run_prochist("record", "--db", database, prefix=AS_NOBODY)
        assert result.returncode == 3
        assert "root" in result.stderr
        return
    with Recording(database, prefix=AS_NOBODY) as recording:
        assert database.stat().st_uid == NOBODY
        assert "not root" in recording.said
        assert "CAP_NET_ADMIN" in recording.said
        with Acting("exit_codes", prefix=AS_NOBODY) as actor, History(database) as history:
            ends = actor.said()
            for pid, status in ends:
                assert wait_status(history.ended(pid, actor.since_ns)) == status
        assert recording.stop() == 0, recording.said
    with History(database) as history:
        life = history.ended(actor.pid, actor.since_ns)
        assert "exit_codes" in life["command_line"]
        assert life["uid"] == NOBODY
