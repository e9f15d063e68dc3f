"""Capabilities that are given up are gone for good, in a process of its own."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, subprocess, sys
from prochist.capture import privileges
kept = {privileges.Capability.SYS_NICE} & {*map(int, privileges.permitted())}
privileges.keep_only(kept)
def sets(pid="self"):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return {l.split(":")[0]: int(l.split()[1], 16) for l in lines if l.startswith("Cap")}
bits = sum(1 << c for c in kept)
assert sets()["CapEff"] == 0, sets()
assert sets()["CapPrm"] == bits, sets()
with privileges.raised():
    assert sets()["CapEff"] == bits, sets()
assert sets()["CapEff"] == 0, sets()
child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
(again,) = (l.split()[1] for l in child.stdout.splitlines() if l.startswith("CapPrm"))
assert int(again, 16) & ~bits == 0, again
assert "NoNewPrivs:\\t1" in child.stdout
print("well")
"""


@pytest.mark.parametrize("user", [None, 65534])
def test_what_is_given_up_does_not_come_back_not_even_by_execve(user: int | None) -> None:
    if user is not None and os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    if user is None:
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=False
        )
    else:
        become = f"import os; os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
        imports = "import prochist.capture.privileges, subprocess\n"
        done = subprocess.run(
            [sys.executable, "-c", imports + become + CODE],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.stdout.strip() == "well", done.stderr


def test_nothing_is_gained() -> None:
    code = (
        "from prochist.capture import privileges as p\n"
        "p.keep_only([]); p.keep_only(p.RECORDING, effective=p.RECORDING); print(p.permitted())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
