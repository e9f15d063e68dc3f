"""Which machine and boot this is."""

import contextlib
import os
import socket
from pathlib import Path

from prochist.capture.observation import Host
from prochist.clock import ClockReading, EpochNs


def read_host(clock: ClockReading, *, proc: str = "/proc") -> Host:
    """Read which machine and boot this is."""

    def read(path: str) -> str:
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        return ""

    return Host(
        boot_id=read(f"{proc}/sys/kernel/random/boot_id"),
        host=os.fsencode(socket.gethostname()).decode("utf-8", "backslashreplace"),
        machine_id=read("/etc/machine-id"),
        kernel=os.uname().release,
        booted_at_ns=EpochNs(clock.epoch_offset_ns - clock.boot_offset_ns),
    )
