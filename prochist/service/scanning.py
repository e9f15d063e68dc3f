"""Scanning /proc, in a process of its own: a read that blocks for ever must not end a recording."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable

from prochist.capture import privileges
from prochist.capture.channel import ChannelReader, Word
from prochist.capture.observation import Record, Scanned, decode_records, whole_record
from prochist.errors import ProchistError

SCAN_HANG_S = 3.0
"""Time without progress after which the scanner is replaced."""

MOST_STUCK = 100
"""Processes that may be stuck before the scan is given up."""


def scan_processes(
    reader: ChannelReader,
    proc: str,
    record: Callable[[Record], None],
    say: Callable[[str], None],
) -> None:
    """Give what runs now to ``record``, one description a process, and Scanned at the end.

    A process whose memory cannot be read without blocking is described without, in a second
    try. ``reader`` is of the channel through which the scanner says what it is reading.

    Raises:
        ProchistError: it did not come to its end.

    """
    stuck: list[int] = []
    while True:
        channel = os.dup(reader.fd)
        options = {"channel_fd": channel, "lock_free": stuck, "proc": proc}
        try:
            with privileges.raised():
                scanner = subprocess.Popen(
                    [sys.executable, "-I", "-m", "prochist.capture.scanner", json.dumps(options)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    pass_fds=(channel,),
                )
        except OSError as error:
            message = f"/proc cannot be scanned, no process can be started: {error.strerror}"
            raise ProchistError(message, hint="are there too many processes?") from error
        finally:
            os.close(channel)
        with scanner:
            if _read_scan(scanner, record):
                return
            pid = int(reader.words[Word.SCANNING_PID])
            scanner.kill()
        if pid in stuck or len(stuck) > MOST_STUCK or not pid:
            message = f"the scan of /proc did not complete (at process {pid})"
            raise ProchistError(message, hint="is /proc mounted and readable?")
        say(f"process {pid} is stuck: its command line cannot be read")
        stuck.append(pid)


def _read_scan(scanner: "subprocess.Popen[bytes]", record: Callable[[Record], None]) -> bool:
    """Pass on what the scanner writes; return whether it came to its end."""
    output = scanner.stdout
    if output is None:
        return False
    fd = output.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    buffered = b""
    complete = False
    while poller.poll(SCAN_HANG_S * 1000):
        part = os.read(fd, 65536)
        if not part:
            return complete
        buffered += part
        view = memoryview(buffered)
        end = 0
        while (length := whole_record(view, end)) is not None:
            end += length
        for found in decode_records(view[:end]):
            complete = complete or isinstance(found, Scanned)
            record(found)
        buffered = buffered[end:]
    return False


__all__ = ["scan_processes"]
