"""The manual and the completions are those of the program, and its messages are the real ones."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from prochist.cli.topics import TOPICS

CHECKOUT = Path(__file__).resolve().parent.parent
MAN = CHECKOUT / "contrib/man"
PAGES = tomllib.loads((MAN / "pages.toml").read_text(encoding="utf-8"))
SOURCE = "".join(p.read_text(encoding="utf-8") for p in (CHECKOUT / "prochist").rglob("*.py"))
HELP = subprocess.run(
    [sys.executable, "-m", "prochist", "--help"],
    capture_output=True, text=True, check=True, cwd=CHECKOUT,
).stdout  # fmt: skip
COMMANDS = re.findall(r"^  ([a-z-]+)  ", HELP.partition("Commands:")[2], re.MULTILINE)


def test_man_pages_and_completions_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, MAN / "generate", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_has_a_page_and_the_main_page_names_it() -> None:
    assert len(COMMANDS) > 15
    main = (MAN / "prochist.1").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert (MAN / f"prochist-{command}.1").exists()
        assert f"prochist\\-{command.replace('-', chr(92) + '-')}\\fR(1)" in main


@pytest.mark.parametrize("message", PAGES["errors"])
def test_a_message_that_the_manual_explains_is_one_of_the_program(message: str) -> None:
    flat = re.sub(r'"\s*\n\s*f?"', "", SOURCE)  # literals that go on in the next line
    for part in re.split(r"<[a-z]+>", message):
        assert part.strip() in flat


@pytest.mark.parametrize("name", sorted({*PAGES["examples"], *PAGES["bugs"]}))
def test_what_the_manual_adds_is_about_a_command_that_there_is(name: str) -> None:
    assert name in COMMANDS


def test_options_of_the_examples_are_known() -> None:
    for name, examples in PAGES["examples"].items():
        page = (MAN / f"prochist-{name}.1").read_text(encoding="utf-8").replace("\\-", "-")
        for line, _ in examples:
            command = line.partition(f"prochist {name}")[2].partition("|")[0].partition("&&")[0]
            command = re.sub(r"'[^']*'", "", command)
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", command):
                assert f"\\fB{option}\\fR" in page, (name, option)


@pytest.mark.parametrize("topic", TOPICS)
def test_help_explains_a_topic(topic: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prochist", "help", topic],
        capture_output=True, text=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    assert done.stdout == TOPICS[topic]


def test_help_of_something_unknown_names_what_there_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prochist", "help", "everything"],
        capture_output=True, text=True, check=False, cwd=CHECKOUT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "topics: times, gaps, views" in done.stderr


@pytest.mark.skipif(shutil.which("man") is None, reason="no man")
@pytest.mark.parametrize("page", sorted(MAN.glob("*.1")), ids=lambda path: path.name)
def test_man_has_no_complaint_about_a_page(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-l", page],
        capture_output=True, text=True, check=True,
        env={"LC_ALL": "C.UTF-8", "MANPAGER": "cat", "PATH": "/usr/bin:/bin", "MANWIDTH": "80"},
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "can't break line" not in line]
    assert complaints == []
    assert "NAME" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["prochist", "ver"], {"verify"}),
        (["prochist", "prune", "--dr"], {"--dry-run"}),
        (["prochist", "record", "--exec-source", ""], {"auto", "bpf", "proc"}),
        (["prochist", "record", "--keep", ""], set()),
    ],
)
def test_bash_completes_commands_options_and_values(words: list[str], expected: set[str]) -> None:
    script = (
        f"source {CHECKOUT}/contrib/completions/prochist.bash\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _prochist; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize(("shell", "name"), [("zsh", "_prochist"), ("fish", "prochist.fish")])
def test_the_other_shells_can_read_their_completions(shell: str, name: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    file = CHECKOUT / "contrib/completions" / name
    subprocess.run([shell, "-n", file], check=True)
