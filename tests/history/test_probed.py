"""Records of the exec probe find the EXEC they belong to, whatever is lost on either side."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.execrecord import encode_exec_record
from prochist.clock import MonotonicNs
from prochist.history.image import Image, ImageMaker
from prochist.history.lifetime import Origin
from prochist.history.probed import CLOSE_NS, MOST_WAITING, ProbedExec, ProbedExecs
from tests.exec_record import SAMPLE

NEVER = MonotonicNs(0)


def record(tgid: int = 10, at: int = 1000, argv: bytes | None = b"a\0b\0", **more: Any) -> bytes:  # noqa: ANN401  any field
    whole = SAMPLE._replace(
        monotonic_ns=MonotonicNs(at),
        tgid=tgid,
        old_tid=tgid,
        argv_size=len(argv or b""),
        argv=argv,
    )
    return encode_exec_record(whole._replace(**more))


def take(
    probed: ProbedExecs, pid: int, at: int, loss_until: MonotonicNs = NEVER
) -> ProbedExec | None:
    return probed.take(pid, MonotonicNs(at), loss_until)


def taken(probed: ProbedExecs, pid: int, at: int, loss_until: MonotonicNs = NEVER) -> int | None:
    found = take(probed, pid, at, loss_until)
    return None if found is None else found.brief.monotonic_ns


def test_an_event_takes_the_record_that_was_written_just_before_it() -> None:
    probed = ProbedExecs()
    probed.add(record(at=1000) + record(tgid=11, at=1500) + record(at=2000))
    assert taken(probed, 10, 1100) == 1000
    assert taken(probed, 10, 2100) == 2000
    assert taken(probed, 11, 1600) == 1500
    assert not probed


def test_a_record_that_is_younger_than_the_event_waits_for_its_own() -> None:
    probed = ProbedExecs()
    probed.add(record(at=2000))
    assert taken(probed, 10, 1500) is None  # its record was lost
    assert taken(probed, 10, 2500) == 2000


def test_records_whose_events_were_lost_are_passed_over() -> None:
    probed = ProbedExecs()
    probed.add(record(at=1000) + record(at=2000))
    assert taken(probed, 10, 2500) == 2000
    assert not probed


def test_where_events_were_lost_only_a_record_from_just_before_counts() -> None:
    after_loss = MonotonicNs(10**9)
    for age, expected in ((CLOSE_NS, 1000), (CLOSE_NS + 1, None)):
        probed = ProbedExecs()
        probed.add(record(at=1000))
        assert taken(probed, 10, 1000 + age, after_loss) == expected
    probed = ProbedExecs()
    probed.add(record(at=1000))  # a process that a tracer stopped between record and event
    assert taken(probed, 10, 10**9, NEVER) == 1000


def test_records_that_nobody_asks_for_do_not_pile_up() -> None:
    probed = ProbedExecs()
    for pid in range(MOST_WAITING + 10):
        probed.add(record(tgid=pid))
    assert take(probed, 9, 2000) is None
    assert take(probed, 10, 2000) is not None


@pytest.mark.parametrize("rest", [b"", b"\0", b"\xff" * 300, record()[:-1], record() + b"x"])
def test_what_is_whole_is_kept_before_what_is_not(rest: bytes) -> None:
    probed = ProbedExecs()
    probed.add(record(tgid=4) + rest)
    assert taken(probed, 4, 1000) == 1000


def image_of(payload: bytes, longer_argv: bytes | None = None) -> Image | None:
    probed = ProbedExecs()
    probed.add(payload)
    found = take(probed, 10, 10**9)
    assert found is not None
    once = probed.image(found, longer_argv)
    assert probed.image(found, longer_argv) == once  # and the same when it is remembered
    return once


def test_an_image_is_what_proc_would_have_said() -> None:
    made = ImageMaker().make(b"a", b"/srv/a", b"./a", b"a\0b c\0\0", b"/srv")
    assert image_of(record(argv=b"a\0b c\0\0", argv_size=7)) == made
    assert made.argv == '["a","b c",""]'


def test_a_cut_argv_is_whole_with_what_proc_says_if_it_begins_alike() -> None:
    cut = record(argv=b"a\0b", argv_size=6)
    image = image_of(cut)
    assert image is not None
    assert (image.command_line, image.argv_complete) == ("a b", False)
    image = image_of(cut, b"a\0bcd\0")
    assert image is not None
    assert (image.command_line, image.argv_complete) == ("a bcd", True)
    image = image_of(cut, b"another")
    assert image is not None
    assert (image.command_line, image.argv_complete) == ("a b", False)


def test_an_argv_that_could_not_be_read_is_unknown_and_one_without_arguments_is_not() -> None:
    image = image_of(record(argv=None))
    assert image is not None
    assert (image.command_line, image.argv_complete, image.exe) == (None, None, "/srv/a")
    image = image_of(record(argv=b""))
    assert image is not None
    assert (image.command_line, image.argv_complete) == ("", True)


def test_programs_that_differ_in_one_thing_are_told_apart() -> None:
    probed = ProbedExecs()
    alike = [
        record(),
        record(comm=b"b"),
        record(exec_path=b"./b"),
        record(exe=b"/srv/b"),
        record(exe=b"/srv/a (deleted)"),
        record(cwd=b"/srv/a"),
        record(argv=b"a\0c\0"),
        record(argv_size=9),
        record(exe=None),
    ]
    images = []
    for payload in alike * 2:
        probed.add(payload)
        found = take(probed, 10, 1000)
        assert found is not None
        images.append(probed.image(found, None))
        assert images[-1] == image_of(payload)
    assert len(set(images)) == len(alike)


def test_an_origin_is_whose_it_is_and_where() -> None:
    probed = ProbedExecs()
    probed.add(record())
    found = take(probed, 10, 1000)
    assert found is not None
    expected = Origin(1000, 0, 1000, 1000, None, 7, "pts/0", "/user.slice")
    assert probed.origin(found, "/user.slice") == expected
    assert probed.origin(found, "/user.slice") == expected
    assert probed.origin(found, None) == expected._replace(cgroup=None)


@given(st.binary(max_size=60), st.integers(0, 100))
def test_a_garbled_record_gives_an_image_or_none(noise: bytes, at: int) -> None:
    payload = bytearray(record())
    payload[8 + at : 8 + at + len(noise)] = noise
    probed = ProbedExecs()
    probed.add(bytes(payload[: len(record())]))
    for pid in list(probed._waiting):  # noqa: SLF001  whichever pid the noise made
        found = take(probed, pid, 2**64)
        if found is not None:
            probed.image(found, None)
            probed.origin(found, None)
