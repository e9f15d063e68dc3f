"""Secrets are overwritten in argv before anything is kept; everything else stays as it is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.execrecord import (
    decode_exec_record,
    encode_exec_record,
    split_exec_records,
)
from prochist.capture.observation import Description, Probed, Reason, Restarted
from prochist.clock import MonotonicNs
from prochist.errors import UsageError
from prochist.service.redaction import MARK, Redaction
from tests.exec_record import SAMPLE

DEFAULTS = Redaction((), defaults=True)


def redact(redaction: Redaction, *arguments: str) -> list[str]:
    argv = b"".join(argument.encode() + b"\0" for argument in arguments)
    after = redaction.overwrite(argv)
    assert after.endswith(b"\0")
    return [part.decode() for part in after[:-1].split(b"\0")]


R = MARK.decode()
ARGV = b"x\0--token=y\0z\0"
RECORD = SAMPLE._replace(argv=ARGV, argv_size=len(ARGV))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["tool", "--password", "hunter2", "-v"], ["tool", "--password", R, "-v"]),
        (["tool", "--password=hunter2"], ["tool", f"--password={R}"]),
        (["tool", "--db-password", "two words"], ["tool", "--db-password", R]),
        (["env", "PGPASSWORD=x", "psql"], ["env", f"PGPASSWORD={R}", "psql"]),
        (["AWS_SECRET_ACCESS_KEY=abc"], [f"AWS_SECRET_ACCESS_KEY={R}"]),
        (["curl", "https://me:pw@host/path"], ["curl", f"https://me:{R}@host/path"]),
        (["curl", "-u", "me:pw", "http://x"], ["curl", "-u", f"me:{R}", "http://x"]),
        (["curl", "-H", "Authorization: Bearer abc"], ["curl", "-H", f"Authorization: Bearer {R}"]),
        (["mysql", "-u", "root", "-psecret"], ["mysql", "-u", "root", f"-p{R}"]),
        (["sshpass", "-p", "x", "ssh", "host"], ["sshpass", "-p", R, "ssh", "host"]),
        (["x", "ghp_" + "a" * 36], ["x", R]),
        (["x", "AKIAABCDEFGHIJKLMNOP"], ["x", R]),
    ],
)
def test_the_usual_secrets_are_overwritten(before: list[str], after: list[str]) -> None:
    assert redact(DEFAULTS, *before) == after


@pytest.mark.parametrize(
    "arguments",
    [
        ["passwd", "root"],
        ["grep", "token", "file"],
        ["kubectl", "get", "secret", "name"],
        ["git", "clone", "https://github.com/a/b"],
        ["docker", "run", "-u", "1000:1000", "image"],
        ["gcc", "-O2", "-c", "x.c"],
        ["tool", "--password", "--verbose"],
        [""],
        [],
    ],
)
def test_what_is_no_secret_stays(arguments: list[str]) -> None:
    argv = b"".join(argument.encode() + b"\0" for argument in arguments)
    assert DEFAULTS.overwrite(argv) is argv


def test_without_groups_all_of_a_match_goes_and_the_number_of_arguments_stays() -> None:
    redaction = Redaction([r"--pin \d+"])
    assert redact(redaction, "a", "--pin", "1234", "b") == ["a", R, R, "b"]


def test_of_a_match_with_groups_only_these_go() -> None:
    redaction = Redaction([r"--pin[= ](\d+)-(\d+)"])
    assert redact(redaction, "--pin=12-34", "x") == [f"--pin={R}-{R}", "x"]


def test_expressions_that_overlap_overwrite_once() -> None:
    redaction = Redaction(["secret-[a-z]+", "[a-z]+-value"])
    assert redact(redaction, "secret-value") == [R]


def test_bytes_that_are_no_text_are_no_hindrance() -> None:
    after = DEFAULTS.overwrite(b"\xff\xfe\0--token=\xff\xfe\0")
    assert after == b"\xff\xfe\0--token=" + MARK + b"\0"


@pytest.mark.parametrize("expression", ["(", "", "a*"])
def test_an_expression_that_cannot_be_meant_is_refused(expression: str) -> None:
    with pytest.raises(UsageError):
        Redaction([expression])


def test_a_description_from_proc_is_rewritten() -> None:
    before = Description(Reason.EXEC, 1, MonotonicNs(1), MonotonicNs(2), argv=b"x\0--token=y\0")
    after = DEFAULTS.apply(before)
    assert isinstance(after, Description)
    assert after.argv == b"x\0--token=" + MARK + b"\0"
    assert before.argv == b"x\0--token=y\0"
    assert after.pid == before.pid


@pytest.mark.parametrize("cut", [0, 500])
def test_a_record_of_the_exec_probe_is_rewritten_and_can_be_decoded(cut: int) -> None:
    record = RECORD._replace(argv_size=len(ARGV) + cut)
    after = DEFAULTS.apply(Probed(encode_exec_record(record)))
    assert isinstance(after, Probed)
    decoded = decode_exec_record(after.payload)
    assert decoded.argv == b"x\0--token=" + MARK + b"\0z\0"
    assert decoded.argv_complete is (cut == 0)
    assert decoded._replace(argv=record.argv, argv_size=record.argv_size) == record


def test_other_records_pass() -> None:
    record = Restarted(MonotonicNs(1))
    assert DEFAULTS.apply(record) is record
    harmless = Probed(encode_exec_record(RECORD._replace(argv=b"ls", argv_size=2)))
    assert DEFAULTS.apply(harmless) is harmless


def test_records_of_the_exec_probe_are_rewritten_each_and_what_cannot_be_read_goes() -> None:
    secret = encode_exec_record(RECORD)
    harmless = encode_exec_record(RECORD._replace(argv=b"ls", argv_size=2))
    after = DEFAULTS.apply(Probed(secret + harmless + secret[:-1]))
    assert isinstance(after, Probed)
    kept = [decode_exec_record(payload).argv for payload in split_exec_records(after.payload)]
    assert kept == [b"x\0--token=" + MARK + b"\0z\0", b"ls"]
    assert DEFAULTS.apply(Probed(b"--password x")) == Probed(b"")


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\0" not in b), max_size=8))
def test_the_number_of_arguments_never_changes(arguments: list[bytes]) -> None:
    argv = b"".join(argument + b"\0" for argument in arguments)
    assert DEFAULTS.overwrite(argv).count(b"\0") == len(arguments)


@pytest.mark.parametrize(
    "part",
    [b"mysql", b"--password ", b"a://", b"token", b"-u a:", b"mysql ", b"-", b"eyJ", b"=\0 "],
)
def test_an_argv_made_to_be_slow_takes_as_long_as_any_other(part: bytes) -> None:
    began = time.process_time()
    DEFAULTS.overwrite(part * (200_000 // len(part)))
    assert time.process_time() - began < 1
