"""Images: bytes of argv and paths become texts that lose nothing unsaid."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.history.image import Image, ImageMaker, decode_text, is_exact, quote, split_argv

ARGUMENT = st.binary(max_size=12).map(lambda b: b.replace(b"\0", b"0"))
ARGV = st.lists(ARGUMENT, max_size=6).map(lambda args: b"".join(arg + b"\0" for arg in args))


def make(argv: bytes | None, **other: bool) -> Image:
    return ImageMaker().make(b"cat", b"/bin/cat", None, argv, b"/", **other)


def shown_argv(image: Image) -> list[str]:
    """Return argv as the views derive it."""
    if image.argv is not None:
        array = json.loads(image.argv)
        assert isinstance(array, list)
        return array
    assert image.command_line is not None
    return image.command_line.split(" ") if image.command_line else []


def test_plain_arguments_need_one_text() -> None:
    image = make(b"cat\0-n\0/etc/passwd\0")
    assert image == Image(
        "cat",
        "/bin/cat",
        None,
        "cat -n /etc/passwd",
        None,
        argv_complete=True,
        cwd="/",
        argv_raw=None,
    )


@pytest.mark.parametrize(
    ("argv", "command_line", "array"),
    [
        (b"a b\0c\0", "'a b' c", ["a b", "c"]),
        (b"a\0\0b\0", "a '' b", ["a", "", "b"]),
        (b"\0", "''", [""]),
        (b"it's\0", "'it'\"'\"'s'", ["it's"]),
        (b'"\0', "'\"'", ['"']),
        (b"a\nb\0", "'a\nb'", ["a\nb"]),
        (b"$HOME\0`id`\0", "'$HOME' '`id`'", ["$HOME", "`id`"]),
        (b"\\xff\0", r"'\xff'", [r"\xff"]),
        ("grüße\0".encode(), "'grüße'", ["grüße"]),
        (b"no-end", "no-end", ["no-end"]),
        (b"", "", []),
    ],
)
def test_a_shell_would_take_the_command_line_apart_again(
    argv: bytes, command_line: str, array: list[str]
) -> None:
    image = make(argv)
    assert image.command_line == command_line
    assert shown_argv(image) == array
    assert image.argv_raw is None


def test_bytes_that_are_not_utf8_are_shown_and_kept() -> None:
    image = make(b"x\0\xff\xfe\0")
    assert image.command_line == r"x '\xff\xfe'"
    assert shown_argv(image) == ["x", r"\xff\xfe"]
    assert image.argv_raw == b"x\0\xff\xfe\0"


def test_unknown_arguments_are_not_empty_ones() -> None:
    unknown = make(None)
    assert (unknown.command_line, unknown.argv, unknown.argv_complete) == (None, None, None)
    empty = make(b"")
    assert (empty.command_line, empty.argv, empty.argv_complete) == ("", None, True)


def test_arguments_that_were_cut_say_so() -> None:
    assert make(b"x" * 100, complete=False).argv_complete is False


@given(ARGV)
def test_no_argument_is_lost(argv: bytes) -> None:
    image = make(argv)
    arguments = split_argv(argv)
    assert image.command_line is not None
    assert shlex.split(image.command_line) == [decode_text(a) for a in arguments]
    assert shown_argv(image) == [decode_text(a) for a in arguments]
    if image.argv_raw is None:
        assert [text.encode() for text in shown_argv(image)] == arguments
    else:
        assert image.argv_raw == argv


@given(st.text(max_size=20))
def test_a_quoted_argument_is_one_word_of_a_shell(argument: str) -> None:
    assert shlex.split(quote(argument)) == [argument]


@given(st.binary(max_size=30))
def test_any_bytes_become_text_that_sqlite_takes(content: bytes) -> None:
    text = decode_text(content)
    text.encode()
    assert is_exact(content) == (text.encode() == content)


def test_an_image_that_was_made_before_is_the_same_object() -> None:
    maker = ImageMaker()
    first = maker.make(b"a", None, None, b"a\0", None)
    assert maker.make(b"a", None, None, b"a\0", None) is first
    assert maker.make(b"a", None, None, b"a\0", None, complete=False) is not first


def test_what_is_remembered_is_bounded() -> None:
    maker = ImageMaker(bound=2, longest=10)
    first = maker.make(b"0", None, None, b"0\0", None)
    long = maker.make(b"0", None, None, b"0" * 11, None)
    assert maker.make(b"0", None, None, b"0" * 11, None) is not long
    for number in range(1, 4):
        maker.make(b"%d" % number, None, None, b"0\0", None)
    again = maker.make(b"0", None, None, b"0\0", None)
    assert again == first
    assert again is not first
