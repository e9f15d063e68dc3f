"""``prochist query --follow`` on live events: each end once, over restarts of both sides.

Everything that is asked for is a child of this test: ``--descendants-of`` its own life.
"""

import json
import os
import secrets
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kernel.live import Recording, prochist

pytestmark = pytest.mark.kernel

LIVES = 20


class Following:
    """A shipper: the command lines that it was given, in order."""

    def __init__(self, database: Path, word: str, cursor: Path) -> None:
        self.process = subprocess.Popen(
            prochist(
                *("query", "--db", database, "--follow", "--cursor-file", cursor, "-n", "1"),
                *(
                    "--descendants-of",
                    f"pid:{os.getpid()}",
                    "--grep",
                    f"^/bin/echo {word}",
                    "--exited",
                ),
                *("-o", "jsonl", "--fields", "command_line"),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def take(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [json.loads(self.process.stdout.readline())["command_line"] for _ in range(count)]

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]


def run(word: str, numbers: range) -> list[str]:
    """Run so many programs one after the other, and return their command lines."""
    for number in numbers:
        subprocess.run(["/bin/echo", f"{word}{number}"], stdout=subprocess.DEVNULL, check=True)
    return [f"/bin/echo {word}{number}" for number in numbers]


def test_each_end_comes_once_over_restarts_of_recorder_and_follower(
    database: Path, tmp_path: Path
) -> None:
    word, cursor = secrets.token_hex(8), tmp_path / "cursor"
    with Recording(database) as first:
        following = Following(database, word, cursor)
        try:
            # The first says that it follows; what it has shown before is not counted.
            run(word, range(1))
            assert len(following.take(1)) == 1
            expected = run(word, range(1, 1 + LIVES))
            assert following.take(LIVES) == expected
            assert first.stop() == 0, first.said
            with Recording(database) as second:
                expected = run(word, range(100, 100 + LIVES))
                assert following.take(LIVES) == expected
                assert following.stop() == ""
                missed = run(word, range(200, 200 + LIVES))
                following = Following(database, word, cursor)
                assert following.take(LIVES) == missed
                expected = run(word, range(300, 301))
                assert following.take(1) == expected
                assert following.stop() == ""
                assert second.stop() == 0, second.said
        finally:
            if following.process.poll() is None:
                following.process.kill()
                following.process.communicate()
