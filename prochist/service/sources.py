"""The sources: what the kernel tells, opened and held for as long as the recorder lives.

The receiver inherits them; when it is replaced, what the kernel has queued in
them is still there. A service manager may keep them over a restart of the
recorder itself (``fdstore.py``). Knows no receiver and no database.
"""

import contextlib
from typing import Self

from prochist.capture import connector, privileges, taskstats
from prochist.capture.execprobe import ExecProbe, open_exec_probe
from prochist.capture.observation import Counters
from prochist.capture.receiver import GATHER_S
from prochist.clock import MonotonicNs
from prochist.errors import ProchistError
from prochist.service import fdstore
from prochist.service.notify import Notifier
from prochist.service.settings import Settings

EXEC_RING_BYTES = 4 * 1024 * 1024
TASKS_BYTES = 64 * 1024 * 1024

FASTEST_BYTES_PER_S = 300_000 * 896
"""What the events of a storm on all CPUs take in the receive buffer."""


class Sources:
    """Use it as a context manager: it holds sockets and the exec probe."""

    def __init__(self, settings: Settings, notifier: Notifier) -> None:
        self._settings = settings
        self._notifier = notifier
        self._undo = contextlib.ExitStack()
        self._stored = fdstore.Stored()
        self._undo.callback(self._stored.close)
        self.probe: ExecProbe | None = None
        self.tasks: taskstats.Subscription | None = None
        self.missing: dict[str, str] = {}
        """Sources that are missing, and why."""
        self.is_taken_over = False
        """Whether the events are those of the recorder before: nothing was missed between."""

    def __enter__(self) -> Self:
        """Open all that there are.

        Raises:
            ProchistError: the events, or a source that was insisted on, cannot be had.

        """
        with self._undo as undo:
            # What the others say of an event comes before the event: they are opened first.
            self._open_probe(undo)
            self._open_tasks(undo)
            taken = self._stored.take_events()
            self.is_taken_over = taken is not None
            self.events = taken or connector.open_subscription(self._settings.receive_buffer_bytes)
            undo.callback(lambda: self.events.socket.close())  # noqa: PLW0108  may be renewed
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close all."""
        self._undo.close()

    def _open_probe(self, undo: contextlib.ExitStack) -> None:
        if self._settings.exec_source == "proc":
            return
        try:
            self.probe = undo.enter_context(
                self._stored.take_probe()
                or open_exec_probe(ring_bytes=EXEC_RING_BYTES, wakes_reader=False)
            )
        except ProchistError as error:
            if self._settings.exec_source == "bpf":
                raise
            self.missing["exec probe"] = error.message

    def _open_tasks(self, undo: contextlib.ExitStack) -> None:
        if not self._settings.accounting:
            self.missing["taskstats"] = "switched off (--no-accounting)"
            return
        try:
            self.tasks = self._stored.take_tasks() or taskstats.open_taskstats(TASKS_BYTES)
        except ProchistError as error:
            self.missing["taskstats"] = error.message
            return
        # Where it may be kept for the next recorder, it must not be cancelled.
        if self._notifier.is_listening:
            undo.callback(self.tasks.socket.close)
        else:
            undo.callback(taskstats.close_taskstats, self.tasks)

    def take_channel(self) -> int | None:
        """Return the memory that a recorder before shared with its receiver; the caller owns it.

        Whatever else it left and nobody took is given up.
        """
        channel = self._stored.take_channel()
        for name in self._stored.close():
            self._notifier.forget(name)
        return channel

    def hand_over(self) -> None:
        """Give the service manager a copy of every source, for the next recorder."""
        store = self._notifier.store
        store(fdstore.EVENTS, self.events.socket.fileno())
        if self.tasks is not None:
            store(fdstore.tasks_name(self.tasks), self.tasks.socket.fileno())
        if self.probe is not None:
            for part, fd in self.probe.descriptors().items():
                store(fdstore.probe_name(part), fd)

    def subscribe_again(self) -> connector.Subscription:
        """Subscribe to events on a new socket, beside the old one; :meth:`replace_events` follows.

        Raises:
            ProchistError: it cannot be had.

        """
        with privileges.raised():
            return connector.open_subscription(self._settings.receive_buffer_bytes)

    def replace_events(self, subscription: connector.Subscription) -> None:
        """Go on with another subscription; nothing must be in use of the old one any more."""
        self.events.socket.close()
        self.events = subscription
        self._notifier.store(fdstore.EVENTS, subscription.socket.fileno())

    def receiver_options(self) -> dict[str, int | float | None]:
        """Return what a receiver must be told of the sources; descriptors end in ``_fd``."""
        # It must not rest for longer than the kernel's buffer lasts.
        lasts_s = self.events.receive_buffer_bytes / FASTEST_BYTES_PER_S
        return {
            "connector_fd": self.events.socket.fileno(),
            "exec_ring_fd": None if self.probe is None else self.probe.ring_fd,
            "taskstats_fd": None if self.tasks is None else self.tasks.socket.fileno(),
            "gather_s": min(GATHER_S, lasts_s / 4),
        }

    def counters(self, at: MonotonicNs, malformed: int, foreign: int) -> Counters:
        """Read what each source has dropped so far."""
        return Counters(
            at,
            connector.read_drops(self.events.socket),
            0 if self.tasks is None else connector.read_drops(self.tasks.socket),
            0 if self.probe is None else self.probe.read_losses(),
            malformed,
            foreign,
        )

    def facts(self) -> dict[str, object]:
        """Return what the status shows of them."""
        return {
            "sources": {
                "events": "proc connector",
                "exec": "proc" if self.probe is None else "bpf",
                "cost": None if self.tasks is None else f"taskstats v{self.tasks.version}",
            },
            "missing": self.missing,
            "receive_buffer_bytes": self.events.receive_buffer_bytes,
            "connector_drops": connector.read_drops(self.events.socket),
        }

    def __str__(self) -> str:
        """Return them as a person reads them."""
        execs = "/proc" if self.probe is None else "the exec probe (eBPF)"
        cost = "" if self.tasks is None else f"; cost from taskstats v{self.tasks.version}"
        return (
            "events from the proc connector, receive buffer"
            f" {self.events.receive_buffer_bytes / 2**20:.4g} MiB; execs from {execs}{cost}"
        )


__all__ = ["Sources"]
