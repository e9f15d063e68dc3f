"""The receiver as the recorder sees it: real processes, and a socket instead of the kernel."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from prochist.errors import ProchistError
from prochist.service.notify import Notifier
from prochist.service.receiving import MOST_RESTARTS, NOT_STARTED, Receiving
from prochist.service.scanning import scan_processes
from prochist.service.settings import Settings

if TYPE_CHECKING:
    from prochist.capture.observation import Record
    from prochist.service.sources import Sources


class NoSources:
    """Sources of which nothing comes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def receiver_options(self) -> dict[str, int | float | None]:
        return {
            "connector_fd": self._fd,
            "exec_ring_fd": None,
            "taskstats_fd": None,
            "gather_s": 0.0,
        }


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiving]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    wake = os.eventfd(0)
    settings = Settings(tmp_path / "h.db", channel_bytes=1 << 20, hang_s=0.5)
    sources = cast("Sources", NoSources(theirs.fileno()))
    receiving = Receiving(sources, settings, Notifier({}), wake)
    yield receiving
    receiving.end(lambda: None)
    os.close(wake)
    ours.close()
    theirs.close()


def pid_of(receiving: Receiving) -> int:
    assert receiving._process is not None  # noqa: SLF001  to end it as anybody could
    return receiving._process.pid  # noqa: SLF001


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_receiver_that_runs_is_no_trouble_and_ends_when_told(receiving: Receiving) -> None:
    receiving.start()
    receiving.wait_until_scheduled(20)
    assert receiving.trouble() is None
    assert receiving.silent_s < 20
    assert receiving.counts() == (0, 0)
    pid = pid_of(receiving)
    receiving.end(lambda: None)
    assert not Path(f"/proc/{pid}").exists()
    assert receiving.trouble() is None
    assert receiving.replacements == 0


def test_one_that_died_or_hangs_is_trouble(receiving: Receiving) -> None:
    receiving.start()
    receiving.wait_until_scheduled(20)
    os.kill(pid_of(receiving), signal.SIGKILL)
    wait_for(lambda: receiving.trouble() == "ended with status -9")
    receiving.end(lambda: None)
    receiving.start()
    receiving.wait_until_scheduled(20)
    pid = pid_of(receiving)
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: (receiving.trouble() or "").startswith("hung for"))
    receiving.end(lambda: None)
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_dies_again_and_again_is_given_up(receiving: Receiving) -> None:
    receiving.start()
    os.kill(pid_of(receiving), signal.SIGKILL)
    wait_for(receiving.trouble)
    for _ in range(MOST_RESTARTS - 1):
        assert receiving.trouble() == "ended with status -9"
    with pytest.raises(ProchistError, match="ended 11 times within a minute"):
        receiving.trouble()


def test_one_that_cannot_be_started_is_tried_again_for_ever(
    receiving: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(sys, "executable", "/nowhere/python")
        for _ in range(MOST_RESTARTS * 2):
            with pytest.raises(ProchistError, match="cannot be started: No such file") as raised:
                receiving.start()
            assert receiving.trouble() == NOT_STARTED
        assert raised.value.hint
    receiving.start()
    receiving.wait_until_scheduled(20)
    assert receiving.trouble() is None


def test_a_scan_that_cannot_be_started_is_our_error(
    receiving: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiving.start()
    found: list[Record] = []
    with monkeypatch.context() as context:
        context.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ProchistError, match="no process can be started"):
            scan_processes(receiving.reader, "/proc", found.append, print)
    assert found == []
    scan_processes(receiving.reader, "/proc", found.append, print)
    assert found
