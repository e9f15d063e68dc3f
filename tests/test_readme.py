"""README tells the truth: its commands, programs and links exist, and its options are known.

Runs what can be run without recording; what records is run by the tests of ``service/``.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")

FENCE = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
IN_TEXT = re.compile(r"`((?:sudo )?(?:prochist|contrib/)[^`]*)`")
PROGRAM = "import sys; from prochist.cli.main import main; sys.exit(main())"


def commands(text: str) -> list[list[str]]:
    """Return the commands of the fenced blocks, split as the shell splits them.

    A line that ends in a backslash goes on; output (after ``$ `` lines) and comments are
    left out; each part of a pipe is a command.
    """
    found = []
    for block in FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            words = shlex.shlex(line, posix=True, punctuation_chars="|&;")
            words.whitespace_split = True
            found += _parts(list(words))
    return found


def _parts(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word and set(word) <= set("|&;"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part[1:] if part[0] == "sudo" else part for part in parts if part]


COMMANDS = commands(README)
PROCHIST = sorted(
    {
        tuple(command[1:])
        for command in COMMANDS + [shlex.split(text) for text in IN_TEXT.findall(README)]
        if command and command[0] in {"prochist", "contrib/run"}
    }
)


def prochist(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run prochist as the installed program does."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_first_command_records_and_the_second_tests() -> None:
    lines = [line for block in FENCE.findall(README) for line in block.splitlines()]
    assert "sudo contrib/run record" in lines
    assert "contrib/check" in lines


def test_the_ci_calls_the_test_command_as_readme_gives_it() -> None:
    script = CHECKOUT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "contrib/check" in script.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"contrib/[\w./-]*\w", README))))
def test_a_file_of_contrib_that_readme_names_exists(name: str) -> None:
    path = CHECKOUT / name
    assert path.exists()
    if path.is_file() and path.read_bytes().startswith(b"#!"):
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize("target", sorted(set(LINK.findall(README))))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (CHECKOUT / target).exists()


@pytest.mark.parametrize("arguments", PROCHIST, ids=" ".join)
def test_a_command_and_its_options_are_those_of_the_program(arguments: tuple[str, ...]) -> None:
    subcommand = [word for word in arguments[:1] if not word.startswith("-")]
    done = prochist(*subcommand, "--help")
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", done.stdout))
    used = {word.partition("=")[0] for word in arguments if re.match(r"--?[A-Za-z]", word)}
    assert used <= known


@pytest.mark.parametrize(
    "arguments",
    [a for a in PROCHIST if a[1:] and a[0] in {"query", "sql", "status"} and "--help" not in a],
    ids=" ".join,
)
def test_an_example_of_asking_is_accepted(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing was recorded: the database is missing (3), which only a valid command finds out."""
    done = prochist(*arguments, "--db", str(tmp_path / "none.db"))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


def test_commands_are_found_in_pipes_and_behind_prompts() -> None:
    text = "```sh\n$ sudo contrib/run record\nrecording\n$ a 'b | c' | d -e  # why\n```\n"
    assert commands(text) == [["contrib/run", "record"], ["a", "b | c"], ["d", "-e"]]
