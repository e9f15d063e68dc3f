"""What the parts of a running recorder may still do, as the kernel says it."""

from pathlib import Path

import pytest

from prochist.capture.privileges import READING, RECORDING, Capability
from tests.kernel.live import History, Recording

pytestmark = pytest.mark.kernel


def capabilities(pid: int) -> dict[str, int]:
    """Return the capability sets of a process as bits, by their names in /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(":\t") for line in lines if line.startswith("Cap")]
    return {name: int(value, 16) for name, value in pairs}


def bits(allowed: frozenset[Capability]) -> int:
    return sum(1 << capability for capability in allowed)


def test_what_parses_and_writes_has_no_capability_in_force(
    recording: Recording, history: History
) -> None:
    recorder = capabilities(recording.pid)
    assert recorder["CapEff"] == 0
    assert recorder["CapPrm"] & ~bits(RECORDING) == 0
    assert recorder["CapBnd"] & ~bits(RECORDING) == 0
    (receiver,) = recording.receivers(history)
    reading = capabilities(receiver["pid"])
    assert reading["CapPrm"] & ~bits(READING) == 0
    assert reading["CapBnd"] & ~bits(READING) == 0
    for pid in (recording.pid, receiver["pid"]):
        assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
