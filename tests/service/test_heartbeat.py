"""The heartbeat: what counts as proof that events are delivered."""

import os
from pathlib import Path

from prochist.capture.connector import COMM, FORK, Message, decode_messages, encode_message
from prochist.service.heartbeat import Heartbeat


def event(timestamp_ns: int, what: int = FORK) -> Message:
    return next(decode_messages(encode_message(what, (1, 1, 2, 2), timestamp_ns=timestamp_ns)))


def test_a_beat_touches_every_cpu_and_leaves_name_and_affinity_as_they_were() -> None:
    name, allowed = Path("/proc/self/comm").read_text(), os.sched_getaffinity(0)
    heartbeat = Heartbeat()
    assert heartbeat.beat() == len(allowed)
    assert Path("/proc/self/comm").read_text() == name
    assert os.sched_getaffinity(0) == allowed


def test_an_event_from_after_the_beat_is_proof() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    sent = heartbeat.sent_ns
    assert sent is not None
    heartbeat.look_for([event(sent + 5, COMM)])
    assert heartbeat.sent_ns is None
    assert heartbeat.proven_ns == sent + 5


def test_an_event_from_before_the_beat_is_none() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    sent = heartbeat.sent_ns
    assert sent is not None
    heartbeat.look_for([event(sent - 1)])
    assert heartbeat.sent_ns == sent


def test_beating_again_still_waits_for_the_first() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    sent = heartbeat.sent_ns
    heartbeat.beat()
    assert heartbeat.sent_ns == sent


def test_no_beat_is_waited_for_when_none_was_sent() -> None:
    heartbeat = Heartbeat()
    proven = heartbeat.proven_ns
    heartbeat.look_for([event(proven + 10**9)])
    assert heartbeat.sent_ns is None
