"""systemd's notification socket: what the service manager is told.

Source: man pages sd_notify(3) and sd_watchdog_enabled(3).
"""

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state to ``$NOTIFY_SOCKET``; does nothing when there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "@")):
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
        self.watchdog_s: float | None = None
        """How often systemd wants to hear that we make progress, in seconds; None never."""
        usec = environ.get("WATCHDOG_USEC", "")
        if usec.isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog_s = int(usec) / 1e6

    def send(self, *lines: str) -> None:
        """Send lines such as ``READY=1``; a manager that does not listen is not our problem."""
        if self._socket is None:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), address)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
