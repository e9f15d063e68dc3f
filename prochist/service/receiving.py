"""The receiver as the recorder sees it: a child process, and the channel in which it puts events.

Starts it, tells whether it must be replaced, and ends it. What is in the channel
is the recorder's business.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from prochist.capture import privileges
from prochist.capture.channel import ChannelReader, Scheduling, Word, create_channel
from prochist.errors import ProchistError
from prochist.service import fdstore
from prochist.service.notify import Notifier
from prochist.service.settings import HANG_S, Settings
from prochist.service.sources import Sources

NOT_STARTED = "is not running"
"""What :meth:`Receiving.trouble` says of a receiver that could not be started."""

MOST_RESTARTS = 10
"""Replacements of the receiver within a minute after which recording is given up."""


class Receiving:
    """One receiver at a time. ``wake_fd`` is the eventfd by which it wakes the recorder."""

    def __init__(
        self, sources: Sources, settings: Settings, notifier: Notifier, wake_fd: int
    ) -> None:
        self._sources = sources
        self._settings = settings
        self._notifier = notifier
        self._wake_fd = wake_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        self._reader: ChannelReader | None = None
        self._replaced: list[float] = []
        self.replacements = 0
        """Receivers that were replaced because they had died or hung."""

    @property
    def reader(self) -> ChannelReader:
        """The recorder's end of the channel of the newest receiver.

        Raises:
            ProchistError: none was ever started.

        """
        if self._reader is None:
            message = "no receiver was started"
            raise ProchistError(message)
        return self._reader

    def start(self) -> None:
        """Start a receiver, with a channel of its own; what is in the one before is gone.

        Raises:
            ProchistError: not now; :meth:`trouble` says so until another try.

        """
        self._is_wanted = True
        try:
            self._start()
        except OSError as error:
            message = f"the receiver cannot be started: {error.strerror}"
            hint = "are there too many processes, or is memory short?"
            raise ProchistError(message, hint=hint) from error

    def _start(self) -> None:
        channel = create_channel(self._settings.channel_bytes)
        if self._reader is not None:
            self._reader.close()
        self._reader = ChannelReader(channel, holds=True)
        options = {
            **self._sources.receiver_options(),
            "channel_fd": channel,
            "wake_fd": self._wake_fd,
            "proc": self._settings.proc,
        }
        inherited = [
            v for name, v in options.items() if name.endswith("_fd") and isinstance(v, int)
        ]
        try:
            with privileges.raised():  # the interpreter may be where only they reach
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-m", "prochist.capture.receiver", json.dumps(options)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    pass_fds=inherited,
                )
            self._notifier.store(fdstore.CHANNEL, channel)
        finally:
            os.close(channel)
        self.reader.words[Word.HEARTBEAT_NS] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    @property
    def silent_s(self) -> float:
        """How long the receiver has given no sign of life."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return (now - self.reader.words[Word.HEARTBEAT_NS]) / 1e9

    @property
    def scheduling(self) -> str:
        """How the kernel schedules it, in words."""
        return _SCHEDULING[Scheduling(self.reader.words[Word.SCHEDULING])]

    @property
    def is_real_time(self) -> bool:
        """Whether it runs before all ordinary work."""
        return bool(self.reader.words[Word.SCHEDULING] == Scheduling.ROUND_ROBIN)

    def wait_until_scheduled(self, within_s: float) -> None:
        """Wait until it has said how the kernel schedules it."""
        deadline = time.monotonic() + within_s
        words = self.reader.words
        while words[Word.SCHEDULING] == Scheduling.UNKNOWN and time.monotonic() < deadline:
            time.sleep(0.005)

    def counts(self) -> tuple[int, int]:
        """Return how many datagrams were malformed, and how many not from the kernel."""
        if self._process is None:
            return 0, 0
        words = self.reader.words
        return int(words[Word.MALFORMED]), int(words[Word.FOREIGN])

    def facts(self) -> dict[str, object]:
        """Return what the status shows of it."""
        words = self.reader.words
        return {
            "receiver": self.scheduling,
            "receiver_restarts": self.replacements,
            "backlog_bytes": self.reader.backlog,
            "malformed": words[Word.MALFORMED] + words[Word.MALFORMED_TASKS],
            "foreign": words[Word.FOREIGN],
        }

    def trouble(self) -> str | None:
        """Return why the receiver must be replaced, or None; one that hangs is dead then.

        Raises:
            ProchistError: it was replaced again and again.

        """
        process = self._process
        if process is None:
            return NOT_STARTED if self._is_wanted else None
        if process.poll() is None:
            hang_s = self._settings.hang_s
            if not hang_s or self.silent_s < hang_s:
                return None
            time.sleep(0.05)  # it may be us who did not run
            if (silent_s := self.silent_s) < hang_s:
                return None
            pid = self.reader.words[Word.READING_PID]
            why = f"hung for {silent_s:.1f} s" + (f", reading of process {pid}" if pid else "")
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
        else:
            why = f"ended with status {process.returncode}"
        now = time.monotonic()
        self._replaced = [t for t in self._replaced if t > now - 60] + [now]
        self.replacements += 1
        if len(self._replaced) > MOST_RESTARTS:
            message = f"the receiver ended {len(self._replaced)} times within a minute, last: {why}"
            raise ProchistError(message, hint="see its messages above")
        return why

    def end(self, drain: Callable[[], None]) -> None:
        """Have the receiver take what the kernel still holds for us, and end; or kill it.

        ``drain`` empties the channel: it may wait for room.
        """
        process = self._process
        self._is_wanted = False
        if process is None:
            return
        self._process = None
        if process.stdin is not None:
            process.stdin.close()
        until = time.monotonic() + HANG_S
        while process.poll() is None and self.silent_s < HANG_S and time.monotonic() < until:
            before = self.reader.backlog
            drain()
            if self.reader.backlog < before:
                until = time.monotonic() + HANG_S
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        if process.returncode is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)


_SCHEDULING = {
    Scheduling.UNKNOWN: "not started",
    Scheduling.ROUND_ROBIN: "scheduled SCHED_RR",
    Scheduling.NICE: "niced",
    Scheduling.ORDINARY: "at ordinary priority",
}


__all__ = ["NOT_STARTED", "Receiving"]
