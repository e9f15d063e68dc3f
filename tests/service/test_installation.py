"""The service is put in place below a root of the test's own, by a stand-in for systemctl."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prochist.errors import ProchistError
from prochist.service.installation import (
    Places,
    find_program,
    plan_installation,
    plan_removal,
    run_command,
    shipped,
)

CHECKOUT = Path(__file__).resolve().parent.parent.parent
UNIT = CHECKOUT / "contrib/prochist.service"


def test_installing_writes_three_files_and_starts_the_service(tmp_path: Path) -> None:
    places = Places(tmp_path)
    ran: list[list[str]] = []
    steps = plan_installation(["/opt/p/bin/prochist"], places, ran.append)
    assert not list(tmp_path.iterdir())  # a plan does nothing
    for step in steps:
        assert step.why
        step.do()
    unit = places.unit.read_text(encoding="utf-8")
    assert "ExecStart=/opt/p/bin/prochist record --db /var/lib/prochist/prochist.db" in unit
    assert "/usr/bin/prochist" not in unit
    assert places.sysusers.read_text(encoding="utf-8").endswith("/var/lib/prochist\n")
    assert places.configuration.exists()
    assert [command[0] for command in ran] == ["systemd-sysusers", "systemctl", "systemctl"]
    assert ran[-1] == ["systemctl", "enable", "--now", "prochist.service"]


def test_a_configuration_that_is_there_is_left_alone(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.configuration.parent.mkdir(parents=True)
    places.configuration.write_text("keep = '1d'\n")
    for step in plan_installation(["/x"], places, lambda _: None):
        step.do()
    assert places.configuration.read_text() == "keep = '1d'\n"


def test_removing_takes_away_what_installing_wrote_but_the_configuration(tmp_path: Path) -> None:
    places = Places(tmp_path)
    assert plan_removal(places) == []
    for step in plan_installation(["/x"], places, lambda _: None):
        step.do()
    ran: list[list[str]] = []
    for step in plan_removal(places, ran.append):
        step.do()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [places.configuration]
    assert ran[0] == ["systemctl", "disable", "--now", "prochist.service"]


def test_a_program_that_the_service_cannot_reach_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(sys.executable)
    with pytest.raises(ProchistError, match="cannot be reached") as refusal:
        find_program(str(closed / "python"))
    assert "pipx install --global" in str(refusal.value.hint)


def test_a_program_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(ProchistError, match="ended with 3") as failure:
        run_command(["/bin/sh", "-c", "echo why >&2; exit 3"])
    assert failure.value.hint == "why"
    with pytest.raises(ProchistError, match="cannot run"):
        run_command(["/nowhere/systemctl"])


def test_every_directive_of_the_unit_has_a_reason_above_its_paragraph() -> None:
    commented = False
    section = ""
    bare = []
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            commented = True
        elif line.startswith("["):
            section, commented = line, section == ""
        elif not line:
            commented = False
        elif section == "[Service]" and not commented:
            bare.append(line)
    allowed = {"Restart", "RestartSec", "User", "Group", "UMask", "StateDirectory", "NotifyAccess"}
    assert {line.partition("=")[0] for line in bare} <= allowed


def test_the_options_of_the_unit_are_those_of_the_program() -> None:
    command = re.search(r"^ExecStart=(.*)$", shipped("prochist.service"), re.MULTILINE)
    assert command is not None
    words = command[1].split()
    done = subprocess.run(
        [sys.executable, "-m", "prochist", words[1], "--help"],
        capture_output=True, text=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    for word in words[2:]:
        if word.startswith("--"):
            assert word in done.stdout


def test_systemd_finds_the_exposure_of_the_unit_at_most_2_0() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", UNIT],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_COLORS": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
