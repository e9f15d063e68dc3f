"""The scanner: a process that describes all that runs, once, and ends.

A process of its own, because reading /proc can hang on a stuck process: the
recorder kills it then, and starts another that leaves that process's memory
alone. It writes an observation stream to standard output, oldest process
first, so that a parent comes before its children.

Started by the recorder as ``python -m prochist.capture.scanner OPTIONS``.
"""

import json
import os
import sys
import time
from typing import BinaryIO, NamedTuple

from prochist.capture import procfs
from prochist.capture.channel import ChannelReader, Word
from prochist.capture.observation import Scanned, encode, encode_description
from prochist.clock import MonotonicNs


class Options(NamedTuple):
    """What the recorder hands over."""

    channel_fd: int | None = None
    """Channel in which to say which process is being read; None none."""
    lock_free: tuple[int, ...] = ()
    """Processes of which nothing is read that takes their mmap lock."""
    proc: str = "/proc"


def scan(output: BinaryIO, options: Options) -> int:
    """Write a description of every process, then SCANNED; return how many there were."""
    began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    channel = None if options.channel_fd is None else ChannelReader(options.channel_fd)
    by_age = []
    for pid in procfs.list_pids(proc=options.proc):
        stat = procfs.read_stat(pid, proc=options.proc)
        if stat is not None:
            by_age.append((stat.starttime, pid))
    by_age.sort()
    count = 0
    for _, pid in by_age:
        if channel is not None:
            channel.words[Word.SCANNING_PID] = pid
        found = procfs.describe_running(pid, proc=options.proc, lock_free=pid in options.lock_free)
        if found is not None:
            output.write(encode_description(found))
            count += 1
            if count % 16 == 0:
                output.flush()
    ended = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    output.write(encode(Scanned(MonotonicNs(began), MonotonicNs(ended))))
    output.flush()
    if channel is not None:
        channel.words[Word.SCANNING_PID] = 0
        channel.close()
    return count


def main() -> None:
    """Run as the process that the recorder starts."""
    options = Options(**json.loads(sys.argv[1]))
    with os.fdopen(1, "wb", closefd=False) as output:
        scan(output, options)


if __name__ == "__main__":
    main()
