"""The recorder: the loop between the receiver and the database.

It opens the sources and holds them, starts the receiver and replaces it when
it dies or hangs, scans /proc once the subscription stands, feeds the tracker,
and commits what has changed at most ``flush_interval_s`` after it happened.

It owns no rule about lifetimes (``history``) and no SQL (``store``).
"""

import contextlib
import gc
import math
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Self

import apsw

from prochist import __version__
from prochist.capture import connector, privileges, procfs
from prochist.capture.channel import (
    ChannelReader,
    Word,
)
from prochist.capture.observation import (
    MAGIC,
    Clock,
    Counters,
    Messages,
    Record,
    Restarted,
    StreamError,
    decode_records,
    encode,
    whole_record,
)
from prochist.clock import NS_PER_SECOND, EpochNs, MonotonicNs, read_clock
from prochist.errors import ProchistError
from prochist.history.loss import SequenceGaps
from prochist.history.tracker import Tracker
from prochist.service.clockwatch import ClockWatch
from prochist.service.heartbeat import Heartbeat
from prochist.service.host import read_host
from prochist.service.lock import DatabaseLock
from prochist.service.metrics import read_sizes, render_metrics, write_metrics
from prochist.service.names import user_names
from prochist.service.notify import Notifier
from prochist.service.receiving import NOT_STARTED, Receiving
from prochist.service.scanning import scan_processes
from prochist.service.settings import HANG_S, Settings, Summary
from prochist.service.sink import COMMIT_ROWS, Sink
from prochist.service.sources import Sources
from prochist.service.upkeep import Upkeep
from prochist.store.database import open_writer, translate
from prochist.store.retention import Limits
from prochist.store.writer import (
    BLIND,
    CLOCK_STEP,
    DOWN,
    SUSPEND,
    Gap,
    Writer,
)

TAKE_BYTES = 256 * 1024
"""How much of the backlog is decoded at once; also the backlog at which waiting ends early."""

GATHER_SHARE = 0.35
"""Part of the flush interval in which events are gathered; the rest is for writing them."""

MOST_PENDING = 200_000
"""Rows kept in memory when they cannot be written; then events stay in the channel, and then in
the kernel, where what does not fit is counted."""

FULL_S = 0.05
"""How long to rest when no more rows may be kept in memory."""

RETRY_S = 1.0
"""How long to wait after a failed commit."""

TICK_S = 0.4
"""How often to look after the receiver and the clocks."""

METRICS_S = 15.0
"""How often metrics are written."""

GARBAGE_OBJECTS = 50_000
"""New objects after which Python looks for cycles: what is recorded makes none."""

HEARTBEAT_S = 5.0
"""How often the subscription has to prove that it delivers."""

PROOF_S = 2.5
"""Time after which heartbeats that have not come back mean that we are blind."""

MOST_QUEUED_BYTES = 1024 * 1024
"""What the connector's socket holds above which the receiver cannot keep up."""

MOST_RENEWALS = 5
"""Attempts to subscribe again, one after the other, before waiting for the next heartbeat."""

RESYNC_BACKLOG = 64 * 1024
"""After a loss, /proc is scanned when no more bytes than this wait in the channel, ..."""

RESYNC_S = 5.0
"""... or after so many seconds."""

COMPLETE_LAG_NS = 50_000_000
"""Events as old as this have been received when the channel is empty."""


Say = Callable[[str], None]


class Recorder:
    """Records until it is told to stop. Use it as a context manager: it opens much."""

    def __init__(self, settings: Settings, say: Say, notifier: Notifier | None = None) -> None:
        self._settings = settings
        self._say_line = say
        self._notifier = notifier or Notifier()
        self._undo = contextlib.ExitStack()
        self._poller = select.poll()
        self._stop_requested = False
        self._left_over = b""
        self._retry_at = 0.0
        self._failing: str | None = None
        self._start_failing: str | None = None
        self._capture: BinaryIO | None = None
        self._began = time.monotonic()
        self._complete_ns = MonotonicNs(0)
        self._next_metrics = 0.0
        self._has_metrics_failed = False
        self._committed_at_ns = EpochNs(0)
        self._resync_by: float | None = None
        self._next_beat = 0.0
        self._blind_since: MonotonicNs | None = None
        self._renewals = 0

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not end a recording
            self._say_line(line)

    # --- opening --------------------------------------------------------------

    def __enter__(self) -> Self:
        """Open database, sources and receiver, and start.

        Raises:
            ProchistError: one of them cannot be had.

        """
        with contextlib.ExitStack() as undo:
            self._open(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._undo.close()

    def _open(self, undo: contextlib.ExitStack) -> None:
        settings = self._settings
        self._clock = read_clock()
        self._host = read_host(self._clock)
        self._db = open_writer(settings.database)
        undo.callback(lambda: self._db.close())  # noqa: PLW0108  it may be another by then
        self._lock = DatabaseLock(settings.database)
        undo.callback(lambda: self._lock.close())  # noqa: PLW0108  it may be another by then
        self._file = settings.database.stat()
        undo.callback(self._notifier.close)
        self._signals = self._catch_signals(undo)
        self._clock_watch = ClockWatch()
        undo.callback(self._clock_watch.close)
        if self._clock_watch.fd >= 0:
            self._poller.register(self._clock_watch.fd, select.POLLIN)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        undo.callback(os.close, self._wake)
        self._poller.register(self._wake, select.POLLIN)
        self._poller.register(self._signals, select.POLLIN)
        if settings.capture is not None:
            self._capture = _open_capture(settings.capture)
            undo.callback(self._capture.close)
        self._names = undo.enter_context(user_names())
        self._sources = undo.enter_context(Sources(settings, self._notifier))
        self._receiving = Receiving(self._sources, settings, self._notifier, self._wake)
        self._heartbeat = Heartbeat()
        self._writer = Writer(self._db, self._host, self._now(), self._names.name_of)
        self._upkeep = self._make_upkeep()
        self._start_tracking()
        undo.callback(self._receiving.end, self._drain)
        self._inherited = self._sources.take_channel()
        self._receiving.start()
        self._sources.hand_over()
        self._drop_privileges()

    def _make_upkeep(self) -> Upkeep:
        settings = self._settings
        return Upkeep(
            self._db,
            settings.database,
            Limits(settings.keep_ns, settings.max_size_bytes),
            self._writer.forget_rows,
            self._say,
            most_pending=MOST_PENDING // 2,
        )

    def _drop_privileges(self) -> None:
        """Give up what recording does not need; what remains is raised where it is needed."""
        kept = set(privileges.RECORDING)
        in_force = set()
        places = [self._settings.database.parent]
        if self._settings.metrics_file is not None:
            places.append(self._settings.metrics_file.parent)
        with contextlib.suppress(OSError):
            if os.geteuid() == 0 and any(place.stat().st_uid for place in places):
                # Root could not write into another user's directory without it.
                in_force.add(privileges.Capability.DAC_OVERRIDE)
        if tuple(map(int, self._host.kernel.split("-")[0].split(".")[:2])) < (5, 19):
            # There, reading the probe's counters takes it when unprivileged bpf is off.
            kept.add(privileges.Capability.BPF)
        with contextlib.suppress(OSError):
            privileges.keep_only(kept | in_force, effective=in_force)

    def _take_up_channel(self) -> None:
        """Record what a recorder that was killed had received and not committed."""
        fd = self._inherited
        if fd is None:
            return
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            try:
                reader = undo.enter_context(contextlib.closing(ChannelReader(fd)))
            except (OSError, ValueError):
                return  # not a channel, or one of another version
            with contextlib.suppress(StreamError):
                while taken := reader.take(TAKE_BYTES):
                    self._record_stream(taken, only_newer=True)
            self._left_over = b""
            salvaged = reader.salvage(self._sink.losses.newest)
            if salvaged:
                self._record(Messages(list(connector.decode_messages(salvaged))))

    def _now(self) -> EpochNs:
        return self._clock.epoch(self._clock.monotonic_ns)

    def _catch_signals(self, undo: contextlib.ExitStack) -> int:
        """Turn the signals that end us into bytes on a pipe; return its reading end."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        undo.callback(os.close, reading)
        undo.callback(os.close, writing)
        undo.callback(
            signal.set_wakeup_fd, signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            undo.callback(signal.signal, number, signal.signal(number, self._request_stop))
        return reading

    def _request_stop(self, *_: object) -> None:
        self._stop_requested = True

    def _start_tracking(self) -> None:
        closed = self._writer.close_earlier_boots(self._host)
        if closed:
            self._say(f"{closed} processes of earlier boots are closed")
        previous = self._writer.previous()
        self._tracker = Tracker(self._clock, next_id=self._writer.next_id)
        if self._sources.tasks is not None:
            self._tracker.account(self._clock.monotonic_ns)
        self._sink = Sink(
            self._writer,
            self._tracker,
            SequenceGaps(previous.newest_sequences if previous else None),
        )
        self._sink.heartbeat = self._heartbeat
        self._previous = previous
        if previous is not None and previous.is_same_boot:
            lives = self._writer.open_lives(self._clock.boot_offset_ns)
            self._tracker.resume(lives, previous.complete_until_ns)
        self._started = read_clock()
        self._writer.begin(
            os.getpid(),
            __version__,
            self._started.epoch(self._started.monotonic_ns),
            self._started.monotonic_ns,
        )
        self._record(self._host)
        self._record(Clock(self._clock))
        self._record(self._counters(self._clock.monotonic_ns))
        self._queued = Messages(list(connector.decode_messages(self._sources.events.received)))
        self._beat()  # an event from every CPU: what was missed while down is known at once

    # --- the receiver -----------------------------------------------------------

    def _watch_receiver(self) -> None:
        """Replace the receiver when it is dead or hangs; what it had taken from the kernel is kept.

        Raises:
            ProchistError: it dies again and again.

        """
        why = self._receiving.trouble()
        if why is None:
            return
        if why != NOT_STARTED:
            self._say(f"the receiver {why}: replacing it")
            self._end_receiving()
        self._start_receiving()

    def _start_receiving(self) -> None:
        """Start a receiver, or leave it to the next watch: the kernel keeps the events so long."""
        try:
            self._receiving.start()
        except ProchistError as error:  # such as a host without a free pid
            if error.message != self._start_failing:
                self._start_failing = error.message
                self._say(f"{error.message}; trying again")
        else:
            if self._start_failing is not None:
                self._start_failing = None
                self._say("the receiver is started")

    def _end_receiving(self) -> None:
        """End the receiver and take all that it has received."""
        self._receiving.end(self._drain)
        self._drain()
        self._account_salvage()

    @property
    def _reader(self) -> ChannelReader:
        return self._receiving.reader

    def _account_salvage(self) -> None:
        salvaged = self._reader.salvage(self._sink.losses.newest)
        self._left_over = b""  # a record that was not published whole
        if salvaged:
            self._record(Messages(list(connector.decode_messages(salvaged))))
        self._record(Restarted(MonotonicNs(time.clock_gettime_ns(time.CLOCK_MONOTONIC))))

    # --- the loop ---------------------------------------------------------------

    def run(self) -> Summary:
        """Record until a signal says stop; then take what is left, commit, and say what was done.

        Raises:
            ProchistError: recording cannot go on, or not all could be written.

        """
        self._announce()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS)
        self._scan()
        self._take_up_channel()
        self._record(self._queued)
        self._drain()
        self._tell_down()
        self._commit()
        self._say(f"{len(self._tracker.live)} processes were already running; recording")
        failure = self._notifier.send("READY=1", f"STATUS=recording into {self._settings.database}")
        if failure is not None:
            self._say(f"cannot tell the service manager that recording began: {failure}")
        self._sink.drop_next = self._settings.simulate_loss
        self._sink.is_silenced = self._settings.simulate_silence
        next_tick = next_count = 0.0
        while not self._stop_requested:
            now = time.monotonic()
            if now >= next_tick:
                self._tick()
                next_tick = now + TICK_S
            if now >= next_count:
                self._keep_house(now)
                next_count = now + 1.0
            if self._wait(next_tick - now, backlog=1):
                self._wait(self._settings.flush_interval_s * GATHER_SHARE, backlog=TAKE_BYTES)
                self._drain(within_s=TICK_S)
            self._commit_if_due()
        return self._stop()

    def _wait(self, timeout_s: float, *, backlog: int) -> bool:
        """Wait until the channel holds ``backlog`` bytes, a signal comes or time is up.

        Returns whether there is anything in the channel.
        """
        words = self._reader.words
        words[Word.WAKE_AT] = backlog
        if self._reader.backlog < backlog and not self._stop_requested:
            self._poller.poll(max(0.0, timeout_s) * 1000)
        words[Word.WAKE_AT] = 0
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 512)
        return self._reader.backlog > 0

    def _drain(self, *, within_s: float = math.inf) -> None:
        """Take what was in the channel when we began, record it, and commit large batches.

        What is not taken ``within_s`` seconds waits for the next time.
        """
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        left = self._reader.backlog
        while left > 0:
            if self._writer.pending >= MOST_PENDING:
                self._commit_if_due()
                if self._writer.pending >= MOST_PENDING:
                    time.sleep(FULL_S)  # nothing to do but to wait for the disk
                    return
            if time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began > within_s * NS_PER_SECOND:
                return
            taken = self._reader.take(TAKE_BYTES)
            left -= len(taken)
            self._record_stream(taken)
            if self._writer.pending >= COMMIT_ROWS:
                self._complete_ns = max(self._complete_ns, self._sink.newest_ns)
                self._commit_if_due()
        self._complete_ns = MonotonicNs(max(self._complete_ns, began - COMPLETE_LAG_NS))

    def _record_stream(self, taken: bytes, *, only_newer: bool = False) -> None:
        stream = self._left_over + taken if self._left_over else taken
        view = memoryview(stream)
        end = 0
        while (length := whole_record(view, end)) is not None:
            end += length
        self._left_over = stream[end:]
        whole = view[:end]
        redaction = self._settings.redaction
        if only_newer:
            for record in decode_records(whole):
                if isinstance(record, Messages):
                    record = Messages(self._sink.losses.newer(record.messages))  # noqa: PLW2901
                self._record(record)
        elif redaction is None:
            self._keep(whole)
            for record in decode_records(whole):
                self._sink.feed(record)
        else:
            for record in decode_records(whole):
                self._record(record)

    def _record(self, record: Record) -> None:
        if self._settings.redaction is not None:
            record = self._settings.redaction.apply(record)
        if self._capture is not None:
            self._keep(encode(record))
        self._sink.feed(record)

    def _keep(self, stream: bytes | memoryview) -> None:
        """Write to the capture file; when that fails, the recording goes on without it."""
        if self._capture is None:
            return
        try:
            self._capture.write(stream)
        except OSError as error:
            self._say(f"the capture ends here, it cannot be written: {error.strerror}")
            with contextlib.suppress(OSError):
                self._capture.close()
            self._capture = None

    def _commit_if_due(self) -> None:
        pending = self._writer.pending
        if pending and time.monotonic() >= self._retry_at and self._upkeep.may_write(pending):
            self._commit()
        if not self._writer.pending:
            self._reader.give_back(len(self._left_over))
            at = MonotonicNs(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            now = self._clock.epoch(at)
            self._upkeep.step(now, self._writer.lives_begun, self._reader.backlog)

    def _commit(self) -> bool:
        self._sink.facts = self._facts()
        try:
            complete_ns = max(self._complete_ns, self._started.monotonic_ns)
            self._sink.commit(self._clock, complete_ns)
            self._committed_at_ns = self._clock.epoch(complete_ns)
        except apsw.Error as error:
            problem = translate(error, self._settings.database)
            if problem.message != self._failing:
                self._failing = problem.message
                self._say(f"cannot write: {problem.message}; {problem.hint or 'trying again'}")
                self._notifier.send(f"STATUS=cannot write: {problem.message}")
            self._retry_at = time.monotonic() + RETRY_S
            return False
        self._reader.give_back(len(self._left_over))
        if self._failing is not None:
            self._failing = None
            self._say("writing again; what was lost meanwhile, if anything, is counted as a gap")
            self._notifier.send(f"STATUS=recording into {self._settings.database}")
        return True

    def _stop(self) -> Summary:
        self._notifier.send("STOPPING=1")
        self._receiving.end(self._drain)
        self._drain()
        self._account_salvage()
        clock = read_clock()
        self._complete_ns = clock.monotonic_ns
        summary = Summary()
        if self._commit():
            self._writer.end(clock.epoch(clock.monotonic_ns))
        else:
            summary.unwritten = self._writer.pending
        summary.lives = self._writer.lives_begun
        summary.execs = self._writer.execs
        summary.execs_described = self._writer.execs_described
        summary.events = self._sink.losses.received
        summary.lost = self._sink.losses.missing - self._sink.down_lost + self._sink.other_lost
        summary.gaps = self._sink.gaps
        summary.duration_s = time.monotonic() - self._began
        return summary

    # --- loss -------------------------------------------------------------------

    def _tell_down(self) -> None:
        """Record the time since the previous recording as a gap."""
        previous = self._previous
        if previous is None:
            return
        started = self._started
        until = started.epoch(started.monotonic_ns)
        lost = self._sink.down_lost if previous.is_same_boot else None
        if self._sources.is_taken_over and lost == 0:
            self._say("taken over from the recorder before: nothing was missed")
            return
        gap = Gap(min(previous.complete_until_ns, until), until, DOWN, lost, "recorder not running")
        self._writer.add_gap(gap)
        self._sink.gaps += 1
        missed = "an unknown number of" if lost is None else str(lost)
        seconds = (gap.until_at_ns - gap.from_at_ns) / 1e9
        self._say(f"not recording for {seconds:.1f} s before: {missed} events missed")

    def _beat(self) -> None:
        self._heartbeat.beat()
        self._next_beat = time.monotonic() + HEARTBEAT_S

    def _prove(self, now: float) -> None:
        """Beat when it is time to; when a beat does not come back, subscribe again."""
        sent = self._heartbeat.sent_ns
        if sent is None:
            if self._blind_since is not None:
                self._end_blindness()
            if now >= self._next_beat:
                self._beat()
            return
        waited_s = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - sent) / 1e9
        if self._receiving.silent_s > TICK_S * 2 or self._is_behind(sent):
            return  # the beat may be on its way
        if waited_s < PROOF_S:
            self._heartbeat.beat()  # the first may have been lost in an overrun
            return
        if self._renewals >= MOST_RENEWALS and now < self._next_beat:
            return
        self._renew()

    def _is_behind(self, sent: MonotonicNs) -> bool:
        """Return whether a beat may wait, in the channel or in the socket, for us to read it.

        Subscribing again would throw away what the socket holds.
        """
        read_until = self._complete_ns
        if self._reader.backlog and read_until < sent + PROOF_S * NS_PER_SECOND:
            return True
        subscription = self._sources.events
        most = min(MOST_QUEUED_BYTES, subscription.receive_buffer_bytes // 2)
        return connector.read_queued(subscription.socket) > most

    def _renew(self) -> None:
        """Subscribe on a new socket: on the old one nothing would bring the events back."""
        if self._blind_since is None:
            self._blind_since = self._heartbeat.proven_ns
            self._renewals = 0
            self._say("BLIND: the kernel delivers no process events; subscribing again")
            self._notifier.send("STATUS=blind: the kernel delivers no process events")
        self._renewals += 1
        self._next_beat = time.monotonic() + HEARTBEAT_S
        try:
            subscription = self._sources.subscribe_again()
        except ProchistError as error:
            self._say(f"still blind: {error.message}")
            return
        self._end_receiving()
        self._sources.replace_events(subscription)
        self._sink.is_silenced = False
        self._start_receiving()
        self._record(Messages(list(connector.decode_messages(subscription.received))))
        self._heartbeat.sent_ns = None
        self._beat()

    def _end_blindness(self) -> None:
        since = self._blind_since
        if since is None:
            return
        self._blind_since = None
        until = self._heartbeat.proven_ns
        self._tracker.missed(since, until)
        self._sink.add_gap(BLIND, since, until, None, "subscription silenced")
        self._sink.lost_since_scan = True
        self._say(f"events again after {(until - since) / 1e9:.1f} s; an unknown number was missed")
        self._notifier.send(f"STATUS=recording into {self._settings.database}")

    def _resync_if_due(self, now: float) -> None:
        """After a loss, scan /proc once the storm is over, so that lives are put right."""
        if not self._sink.lost_since_scan:
            return
        if self._resync_by is None:
            self._resync_by = now + RESYNC_S
            self._say("events were lost; the lives they were of are put right from /proc")
        if self._reader.backlog > RESYNC_BACKLOG and now < self._resync_by:
            return
        self._resync_by = None
        self._sink.lost_since_scan = False
        try:
            self._scan()
        except ProchistError as error:  # an overloaded host: no reason to stop recording
            self._say(f"{error.message}; trying again")
            self._sink.lost_since_scan = True
            self._resync_by = now + RESYNC_S

    def _watch_clock(self) -> None:
        change = self._clock_watch.check(self._clock)
        after = change.after
        moved = after.epoch_offset_ns - change.before.epoch_offset_ns
        if not (change.step_ns or change.suspended_ns or abs(moved) > NS_PER_SECOND // 1000):
            return
        self._drain()  # what was sent before is of the old time
        at = after.monotonic_ns
        old_now, new_now = change.before.epoch(at), after.epoch(at)
        self._record(Clock(after))
        self._clock = after
        if change.suspended_ns:
            gap = Gap(EpochNs(new_now - change.suspended_ns), new_now, SUSPEND, 0, "host suspended")
            self._writer.add_gap(gap)
            self._sink.gaps += 1
        if change.step_ns:
            detail = f"wall clock set by {change.step_ns / 1e9:+.3f} s"
            gap = Gap(min(old_now, new_now), max(old_now, new_now), CLOCK_STEP, 0, detail)
            self._writer.add_gap(gap)
            self._sink.gaps += 1
            self._say(detail)

    # --- housekeeping -----------------------------------------------------------

    def _tick(self) -> None:
        self._watch_clock()
        self._watch_receiver()

    def _keep_house(self, now: float) -> None:
        if self._names.pump():
            self._writer.forget_names()  # names that were not known are now
        clock = read_clock()
        self._record(self._counters(clock.monotonic_ns))
        self._prove(now)
        self._resync_if_due(now)
        self._look_up_unknown()
        self._follow_file()
        self._write_metrics(now)
        if self._notifier.watchdog_s is not None and self._is_well():
            self._notifier.send("WATCHDOG=1")

    def _is_well(self) -> bool:
        """Return whether both processes make progress and the subscription delivers.

        A database that cannot be written is no reason to be killed: a restart would not help.
        """
        return self._blind_since is None and self._receiving.silent_s < max(
            HANG_S, self._settings.hang_s
        )

    def _follow_file(self) -> None:
        """Begin a new file when ours was deleted: what is written into it now, nobody would find.

        Raises:
            ProchistError: another history is in its place, or another recorder has it.

        """
        path = self._settings.database
        try:
            if os.path.samestat(path.stat(), self._file):
                return
        except FileNotFoundError:
            pass
        except OSError:
            return  # the file system does not answer; commits will say so
        try:
            db = open_writer(path)
        except ProchistError as error:
            if error.message != self._failing:
                self._failing = error.message
                self._say(f"{path} was deleted, and cannot be begun anew: {error.message}")
            return
        clock = read_clock()
        now = clock.epoch(clock.monotonic_ns)
        writer = Writer(db, self._host, now, self._names.name_of)
        if writer.next_id > 1:
            db.close()
            message = f"{path} was replaced by another history while recording"
            raise ProchistError(message, hint="start again, or put the old file back first")
        if not self._lock.is_in_place():
            self._lock.close()
            self._lock = DatabaseLock(path)
        writer.begin(os.getpid(), __version__, now, clock.monotonic_ns)
        writer.adopt(self._writer, self._tracker.live.values())
        self._db.close()
        self._db = db
        self._file = path.stat()
        self._writer = self._sink.writer = writer
        self._upkeep = self._make_upkeep()
        self._say(f"{path} was deleted while recording: the history begins anew there")
        self._commit()

    def _write_metrics(self, now: float) -> None:
        """Replace the file of metrics when it is time to; failing is said once."""
        path = self._settings.metrics_file
        if path is None or now < self._next_metrics:
            return
        self._next_metrics = now + METRICS_S
        recorder = {
            "events": self._sink.losses.received,
            "lost": self._sink.losses.missing - self._sink.down_lost + self._sink.other_lost,
            "lives": self._writer.lives_begun,
            "execs": self._writer.execs,
            "execs_described": self._writer.execs_described,
            "started_at_ns": self._started.epoch(self._started.monotonic_ns),
            "committed_at_ns": self._committed_at_ns,
            "version": __version__,
            "facts": self._facts(),
        }
        rest = {"up": 1, "gaps": self._sink.gaps, **read_sizes(self._settings.database)}
        try:
            write_metrics(path, render_metrics(recorder, rest))
        except OSError as error:
            if not self._has_metrics_failed:
                self._has_metrics_failed = True
                self._say(f"cannot write metrics to {path}: {error.strerror}; trying on")
        else:
            self._has_metrics_failed = False

    def _counters(self, at: MonotonicNs) -> Counters:
        return self._sources.counters(at, *self._receiving.counts())

    def _look_up_unknown(self) -> None:
        """Look up processes that events named and no life is known of, and new kernel threads."""
        wanted = self._tracker.unknown | self._tracker.undescribed
        self._tracker.unknown.clear()
        self._tracker.undescribed.clear()
        for pid in sorted(wanted)[:100]:
            with privileges.raised():
                found = procfs.describe_running(pid, proc=self._settings.proc, lock_free=True)
            if found is not None:
                self._record(found)

    def _facts(self) -> dict[str, object]:
        return {
            **self._sources.facts(),
            **self._receiving.facts(),
            **self._upkeep.facts(),
            "flush_interval_s": self._settings.flush_interval_s,
            "live": len(self._tracker.live),
            "pending": self._writer.pending,
            "started_at_ns": self._started.epoch(self._started.monotonic_ns),
            "blind": self._blind_since is not None,
            "proven_at_ns": self._tracker.epoch(self._heartbeat.proven_ns),
        }

    def _announce(self) -> None:
        self._receiving.wait_until_scheduled(2)
        self._say(f"recording into {self._settings.database}")
        self._say(f"{self._sources}; receiver {self._receiving.scheduling}")
        for source, why in self._sources.missing.items():
            self._say(f"no {source}: {why}")
        if os.geteuid() != 0:
            self._say(
                "not root: command lines, directories and ids of other users' processes may be"
                " missing (/proc permissions)"
            )
        if not self._sources.events.forced:
            self._say(
                "the receive buffer is limited by net.core.rmem_max (CAP_NET_ADMIN is missing):"
                " events may be lost under load, and are counted then"
            )
        if not self._receiving.is_real_time:
            self._say(
                "no real-time scheduling (CAP_SYS_NICE is missing): command lines of programs that"
                " live for less than a millisecond may be missing under load"
            )

    def _scan(self) -> None:
        scan_processes(self._reader, self._settings.proc, self._record, self._say)


def _open_capture(path: Path) -> BinaryIO:
    try:
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        message = f"cannot write the capture {path}: {error.strerror}"
        raise ProchistError(message) from error
    file = os.fdopen(fd, "wb")
    file.write(MAGIC)
    return file


__all__ = ["Recorder"]
