import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.show.terminal import clip, escape, pad, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\x00\x7f", "\\x00\\x7f"),
    ],
)
def test_nothing_that_controls_a_terminal_passes(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text())
def test_whatever_is_shown_is_printable_and_on_one_line(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_wide_characters_take_two_columns_and_accents_none() -> None:
    assert width("漢字") == 4
    assert width("e\u0301") == 1
    assert width("é") == 1


@given(st.text(), st.integers(0, 20))
def test_what_is_clipped_fits(text: str, columns: int) -> None:
    shown = clip(escape(text), columns)
    assert width(shown) <= columns
    assert shown == escape(text) or shown.endswith("…") or columns == 0


@given(st.text(max_size=5), st.integers(0, 30))
def test_what_is_padded_fills_its_columns(text: str, columns: int) -> None:
    shown = escape(text)
    for right in (False, True):
        assert width(pad(shown, columns, right=right)) == max(columns, width(shown))
