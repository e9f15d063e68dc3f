"""systemd's notification socket: what the service manager is told.

Source: man pages sd_notify(3), FDSTORE=1 and FDPOLL=0, and sd_watchdog_enabled(3).
"""

import array
import contextlib
import os
import socket
from collections.abc import Mapping

LONGEST_WAIT_S = 0.5
"""How long to wait for a manager that does not read."""


class Notifier:
    """Sends state to ``$NOTIFY_SOCKET``; does nothing when there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # The manager's queue is short (net.unix.max_dgram_qlen, often 10), and what is told
            # at the start must arrive; a manager that hangs may not hold us up for long.
            self._socket.settimeout(LONGEST_WAIT_S)
        self.watchdog_s: float | None = None
        """How often systemd wants to hear that we make progress, in seconds; None never."""
        usec = environ.get("WATCHDOG_USEC", "")
        if usec.isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog_s = int(usec) / 1e6

    def send(self, *lines: str) -> str | None:
        """Send lines such as ``READY=1``; return why that failed, or None.

        A manager that does not listen is not our problem; no manager is none either.
        """
        if self._socket is None:
            return None
        try:
            self._socket.sendto(os.fsencode("\n".join(lines)), self._where())
        except OSError as error:
            return error.strerror or str(error)
        return None

    @property
    def is_listening(self) -> bool:
        """Return whether there is a service manager."""
        return self._socket is not None

    def store(self, name: str, fd: int) -> None:
        """Hand a copy of a descriptor to the manager, which gives it to the next start."""
        self.forget(name)
        if self._socket is None:
            return
        text = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        with contextlib.suppress(OSError):
            self._socket.sendmsg([text], rights, 0, self._where())

    def forget(self, name: str) -> None:
        """Have the manager close what it keeps under a name."""
        self.send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _where(self) -> str:
        """Return the address of the manager's socket, an abstract one as sockets know it."""
        return "\0" + self._address[1:] if self._address.startswith("@") else self._address

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
