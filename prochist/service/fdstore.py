"""The service manager's descriptor store: sources that outlive the recorder.

What the recorder has opened is handed to systemd, which keeps it while the
service restarts: events queue in the kernel meanwhile, and the next recorder
takes up where the last one stopped. The names carry what the next one must know,
and differ when it could not use what it finds.

Source: man pages sd_notify(3), FDSTORE=1 and FDPOLL=0, sd_listen_fds(3), and
systemd.service(5), FileDescriptorStoreMax=.
"""

import contextlib
import os
import re
import socket
import zlib
from collections.abc import MutableMapping

from prochist.capture import execrecord
from prochist.capture.connector import SOL_NETLINK
from prochist.capture.connector import Subscription as Events
from prochist.capture.execprobe import ExecProbe
from prochist.capture.taskstats import Subscription as Tasks

_FIRST_FD = 3
_FORMAT = format(zlib.crc32(repr((1, execrecord.FIELDS)).encode()), "08x")
EVENTS = "events-1"
CHANNEL = "channel-1"
_TASKS = re.compile(r"tasks-1-v(\d{1,4})-f(\d{1,6})")
_PROBE_PARTS = ("ring", "losses", "program", "link")


def probe_name(part: str) -> str:
    """Return the name of a part of the exec probe; it changes with the format of its records."""
    return f"probe-{part}-{_FORMAT}"


def tasks_name(tasks: Tasks) -> str:
    """Return the name of a subscription to exiting tasks."""
    return f"tasks-1-v{tasks.version}-f{tasks.family}"


class Stored:
    """What a previous recorder left with the service manager. Close what is not taken."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._fds: dict[str, int] = {}
        count, names = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_FDNAMES", "")
        if environ.get("LISTEN_PID") == str(os.getpid()) and count.isdecimal():
            parts = names.split(":") if names else []
            for index in range(min(int(count), 1024)):
                fd = _FIRST_FD + index
                with contextlib.suppress(OSError):
                    os.set_inheritable(fd, False)  # noqa: FBT003  not ours to name
                    name = parts[index] if index < len(parts) else f"unnamed-{index}"
                    earlier = self._fds.pop(name, None)
                    if earlier is not None:
                        os.close(earlier)  # the newest of a name counts
                    self._fds[name] = fd
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(name, None)  # not for what we start

    def __bool__(self) -> bool:
        """Return whether anything is left to take."""
        return bool(self._fds)

    def take_events(self) -> Events | None:
        """Return the subscription to process events, or None; the caller owns it."""
        fd = self._fds.pop(EVENTS, None)
        sock = None if fd is None else _netlink_socket(fd)
        if sock is None:
            return None
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return Events(sock, size, True, b"")  # noqa: FBT003  not ours to name

    def take_tasks(self) -> Tasks | None:
        """Return the subscription to exiting tasks, or None; the caller owns it."""
        for name in list(self._fds):
            if found := _TASKS.fullmatch(name):
                sock = _netlink_socket(self._fds.pop(name))
                if sock is not None:
                    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
                    return Tasks(sock, int(found[2]), int(found[1]), size, True)  # noqa: FBT003  not ours to name
        return None

    def take_probe(self) -> ExecProbe | None:
        """Return the exec probe, or None; the caller owns it."""
        names = [probe_name(part) for part in _PROBE_PARTS]
        if any(name not in self._fds for name in names):
            return None
        ring, losses, program, link = (self._fds.pop(name) for name in names)
        return ExecProbe(ring_fd=ring, losses_fd=losses, program_fd=program, link_fd=link)

    def take_channel(self) -> int | None:
        """Return the memory that receiver and recorder shared, or None; the caller owns it."""
        return self._fds.pop(CHANNEL, None)

    def close(self) -> list[str]:
        """Close everything that was not taken; return the names, for the manager to forget."""
        names = list(self._fds)
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        return names


def _netlink_socket(fd: int) -> socket.socket | None:
    """Return the netlink socket behind a descriptor; close it and return None when it is none."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    if sock.family != socket.AF_NETLINK:
        sock.close()
        return None
    sock.setblocking(False)  # noqa: FBT003  not ours to name
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_NETLINK, 5, 1)  # NETLINK_NO_ENOBUFS, should it be another's
    return sock


__all__ = ["CHANNEL", "EVENTS", "Stored", "probe_name", "tasks_name"]
