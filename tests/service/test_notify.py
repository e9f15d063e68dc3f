"""What the service manager is told, on a socket that stands in for it."""

import array
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prochist.capture.taskstats import Subscription
from prochist.service.fdstore import CHANNEL, EVENTS, Stored, probe_name, tasks_name
from prochist.service.notify import LONGEST_WAIT_S, Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(1)
        yield manager


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    yield notifier
    notifier.close()


def test_lines_are_one_datagram(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.is_listening
    notifier.send("READY=1", "STATUS=on \udcff")
    assert manager.recv(4096) == b"READY=1\nSTATUS=on \xff"


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"prochist-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.send("WATCHDOG=1")
        notifier.close()
        assert manager.recv(64) == b"WATCHDOG=1"


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier({})
    assert not notifier.is_listening
    assert notifier.send("READY=1") is None
    notifier.store("name", 0)
    notifier.close()


def test_a_manager_that_is_gone_is_no_problem(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert notifier.send("READY=1") == "No such file or directory"
    notifier.close()


def test_a_manager_that_does_not_read_holds_nobody_up_for_long(notifier: Notifier) -> None:
    began = time.monotonic()
    for _ in range(1000):
        notifier.send("X" * 60_000)
        if time.monotonic() - began > LONGEST_WAIT_S:
            break
    else:
        pytest.fail("its queue was never full")
    assert time.monotonic() - began < LONGEST_WAIT_S * 4


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_known_when_it_is_for_us(
    environ: dict[str, str], expected: float | None
) -> None:
    assert Notifier(environ).watchdog_s == expected


def test_a_descriptor_replaces_the_one_of_its_name(
    manager: socket.socket, notifier: Notifier
) -> None:
    with Path("/dev/null").open("rb") as file:
        notifier.store("events-1", file.fileno())
        assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=events-1"
        text, rights, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(4))
        assert text == b"FDSTORE=1\nFDNAME=events-1\nFDPOLL=0"
        (copy,) = array.array("i", rights[0][2])
        assert os.fstat(copy).st_rdev == os.fstat(file.fileno()).st_rdev
        os.close(copy)


def take(*kinds: str, environ: dict[str, str]) -> list[str]:
    """Take stored descriptors in a child that has them from 3 on; return what it says."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the end of it
        try:
            os.close(read)
            write = os.dup2(write, 100)
            for number, kind in enumerate(kinds, 3):
                made = (
                    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach()
                    if kind == "netlink"
                    else os.open("/dev/null", os.O_RDONLY)
                )
                os.dup2(made, 50 + number)
            for number in range(3, 3 + len(kinds)):
                os.dup2(50 + number, number)
            environ["LISTEN_PID"] = str(os.getpid())
            stored = Stored(environ)
            said = [
                f"events={stored.take_events() is not None}",
                f"tasks={(tasks := stored.take_tasks()) and tasks.version}",
                f"probe={(probe := stored.take_probe()) and sorted(probe.descriptors())}",
                f"channel={stored.take_channel() is not None}",
                f"left={stored.close()}",
                f"environ={sorted(environ)}",
                f"twice={bool(stored)}",
            ]
            os.write(write, "\n".join(said).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as output:
        said = output.read().split("\n")
    os.waitpid(child, 0)
    return said


def test_what_was_stored_is_taken_by_its_name() -> None:
    probe = [probe_name(part) for part in ("ring", "losses", "program", "link")]
    names = [EVENTS, "tasks-1-v16-f31", CHANNEL, *probe, "of-another-version"]
    said = take(
        "netlink", "netlink", *["null"] * 6,
        environ={"LISTEN_FDS": "8", "LISTEN_FDNAMES": ":".join(names)},
    )  # fmt: skip
    assert said == [
        "events=True",
        "tasks=16",
        "probe=['link', 'losses', 'program', 'ring']",
        "channel=True",
        "left=['of-another-version']",
        "environ=[]",
        "twice=False",
    ]


def test_what_is_not_what_its_name_says_is_not_taken() -> None:
    said = take(
        "null", "null", environ={"LISTEN_FDS": "2", "LISTEN_FDNAMES": f"{EVENTS}:tasks-1-v16-f31"}
    )
    assert said[:2] == ["events=False", "tasks=None"]


def test_descriptors_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    assert not Stored(environ)
    assert environ == {}


def test_the_name_of_a_subscription_carries_what_the_next_recorder_must_know() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        name = tasks_name(Subscription(sock, 31, 16, 1, True))
    assert name == "tasks-1-v16-f31"
