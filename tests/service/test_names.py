"""Names of users: from the file, from a child process, and never waited for."""

import os
import pwd
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prochist.service import names
from prochist.service.names import Names, parse_names, user_names

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def passwd(tmp_path: Path) -> Path:
    path = tmp_path / "passwd"
    path.write_bytes(PASSWD)
    return path


def asked(tmp_path: Path, script: str) -> tuple[str, ...]:
    """Return a query that notes the number and runs a script with it as $1."""
    path = tmp_path / "getent"
    path.write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/asked\n{script}\n")
    path.chmod(0o755)
    return (str(path),)


def questions(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked").read_text().split()


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it did not happen within 10 s"
        time.sleep(0.005)


def test_a_name_in_the_file_is_known_at_once(passwd: Path, tmp_path: Path) -> None:
    with Names(passwd, asked(tmp_path, "exit 2")) as known:
        assert known.name_of(1000) == "ann"
        assert known.name_of(0) == "root"
        assert not known.is_pending()


def test_a_file_that_was_replaced_is_read_again(passwd: Path, tmp_path: Path) -> None:
    clock = Clock()
    with Names(passwd, asked(tmp_path, "exit 2"), clock=clock) as known:
        assert known.name_of(1000) == "ann"
        other = tmp_path / "new"
        other.write_bytes(b"bob:x:1000:1000::/:/bin/sh\n")
        other.rename(passwd)

        clock.now_s += 1.0

        assert known.name_of(1000) == "bob"


def test_a_file_that_is_not_there_does_no_harm(tmp_path: Path) -> None:
    with Names(tmp_path / "none", asked(tmp_path, "exit 2")) as known:
        assert known.name_of(0) is None


def test_a_number_that_is_not_in_the_file_is_asked_for(passwd: Path, tmp_path: Path) -> None:
    query = asked(tmp_path, "echo ldap-user:x:$1:100::/:/bin/sh")
    with Names(passwd, query) as known:
        assert known.name_of(5000) is None
        assert known.is_pending()
        wait_for(lambda: 5000 in known.pump())

        assert known.name_of(5000) == "ldap-user"
        assert not known.is_pending()
    assert questions(tmp_path) == ["5000"]


def test_a_directory_that_hangs_delays_nothing(passwd: Path, tmp_path: Path) -> None:
    clock = Clock()
    with Names(passwd, asked(tmp_path, "exec sleep 60"), timeout_s=5, clock=clock) as known:
        began = time.monotonic()
        for uid in range(5000, 5050):
            assert known.name_of(uid) is None
            known.pump()
        assert time.monotonic() - began < 2
        assert known.name_of(1000) == "ann"

        clock.now_s += 5.1

        assert len(known.pump()) == names.MOST_LOOKUPS


def test_a_child_that_was_given_up_is_reaped(passwd: Path, tmp_path: Path) -> None:
    clock = Clock()
    known = Names(
        passwd,
        asked(tmp_path, "echo $$ > " + str(tmp_path / "pid") + "; exec sleep 60"),
        clock=clock,
    )
    known.name_of(5000)
    pid_file = tmp_path / "pid"
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip())
    pid = int(pid_file.read_text())
    clock.now_s += 6

    assert known.pump() == [5000]
    wait_for(lambda: (known.pump(), not Path(f"/proc/{pid}").exists())[1])
    known.close()


def test_a_negative_answer_is_kept_until_it_expires(passwd: Path, tmp_path: Path) -> None:
    clock = Clock()
    with Names(passwd, asked(tmp_path, "exit 2"), clock=clock) as known:
        known.name_of(5000)
        wait_for(lambda: 5000 in known.pump())
        for _ in range(5):
            assert known.name_of(5000) is None
            assert not known.is_pending()

        clock.now_s += names.UNKNOWN_FOR_S
        known.name_of(5000)
        wait_for(lambda: 5000 in known.pump())
    assert questions(tmp_path) == ["5000", "5000"]


def test_an_answer_that_expires_is_shown_until_there_is_a_newer(
    passwd: Path, tmp_path: Path
) -> None:
    clock = Clock()
    with Names(passwd, asked(tmp_path, "echo old:x:$1:1::/:"), clock=clock) as known:
        known.name_of(5000)
        wait_for(lambda: 5000 in known.pump())
        asked(tmp_path, "echo new:x:$1:1::/:")

        clock.now_s += names.KNOWN_FOR_S

        assert known.name_of(5000) == "old"
        wait_for(lambda: 5000 in known.pump())
        assert known.name_of(5000) == "new"


def test_a_name_that_was_known_outlives_a_directory_that_hangs(
    passwd: Path, tmp_path: Path
) -> None:
    clock = Clock()
    with Names(passwd, asked(tmp_path, "echo ann:x:$1:1::/:"), clock=clock) as known:
        known.name_of(5000)
        wait_for(known.pump)
        asked(tmp_path, "exec sleep 60")
        clock.now_s += names.KNOWN_FOR_S
        known.name_of(5000)
        clock.now_s += names.LOOKUP_TIMEOUT_S

        assert known.pump() == [5000]
        assert known.name_of(5000) == "ann"


def test_questions_wait_for_their_turn_and_are_all_answered(passwd: Path, tmp_path: Path) -> None:
    wanted = list(range(5000, 5020))
    with Names(passwd, asked(tmp_path, "echo u$1:x:$1:1::/:")) as known:
        for uid in wanted:
            known.name_of(uid)
        wait_for(lambda: (known.pump(), not known.is_pending())[1])

        assert [known.name_of(uid) for uid in wanted] == [f"u{uid}" for uid in wanted]


def test_an_answer_about_another_number_is_not_believed(passwd: Path, tmp_path: Path) -> None:
    with Names(passwd, asked(tmp_path, "echo root:x:0:0::/:; echo trash")) as known:
        known.name_of(5000)
        wait_for(lambda: 5000 in known.pump())

        assert known.name_of(5000) is None


def test_a_child_that_leaves_its_output_open_does_not_block(passwd: Path, tmp_path: Path) -> None:
    with Names(passwd, asked(tmp_path, "sleep 3 & exit 0")) as known:
        known.name_of(5000)
        began = time.monotonic()
        wait_for(lambda: 5000 in known.pump())

        assert time.monotonic() - began < 2


def test_a_host_without_getent_has_no_name_and_is_asked_again_later(
    passwd: Path, tmp_path: Path
) -> None:
    clock = Clock()
    with Names(passwd, (str(tmp_path / "getent"),), clock=clock) as known:
        for uid in range(5000, 5010):
            assert known.name_of(uid) is None
            assert not known.is_pending()
        asked(tmp_path, "echo new:x:$1:1::/:")
        known.name_of(5000)
        assert not known.is_pending()

        clock.now_s += names.UNKNOWN_FOR_S
        known.name_of(5000)
        wait_for(lambda: 5000 in known.pump())

        assert known.name_of(5000) == "new"


def test_the_answers_kept_are_bounded_and_the_oldest_go(passwd: Path, tmp_path: Path) -> None:
    with Names(passwd, asked(tmp_path, "echo u$1:x:$1:1::/:"), most_cached=3) as known:
        for uid in range(5000, 5008):
            known.name_of(uid)
            wait_for(known.pump)

        assert known.name_of(5007) == "u5007"
        assert known.name_of(5000) is None  # and is asked for again
        assert known.is_pending()


def test_hostile_lines_are_passed_over() -> None:
    text = (
        b"\n:\n::\nno\n+nis:x:7:1\n-x:x:8:1\n#c:x:9:1\nneg:x:-1:1\nhuge:x:" + b"9" * 5000 + b":1\n"
        b"first:x:5:1\nsecond:x:5:1\nbad\xff:x:6:1\n:x:4:1\nabc:x:\xb2:1\n"
    )

    assert parse_names(text) == {5: "first", 6: r"bad\xff"}


def test_the_systems_own_names_are_those_of_getpwuid() -> None:
    with user_names() as known:
        wait_for(lambda: (known.pump(), known.name_of(os.getuid()))[1] or not known.is_pending())

        assert known.name_of(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
