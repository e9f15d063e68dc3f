"""What a recording is asked to be, and what came of it. Plain data."""

from dataclasses import dataclass, field
from pathlib import Path

from prochist.capture.channel import DEFAULT_CAPACITY
from prochist.service.redaction import Redaction

HANG_S = 1.0
"""Time without a heartbeat after which the receiver is replaced."""


@dataclass(frozen=True)
class Settings:
    """What the user asked for."""

    database: Path
    flush_interval_s: float = 0.25
    receive_buffer_bytes: int = 64 * 1024 * 1024
    exec_source: str = "auto"
    """``bpf`` insists on the exec probe, ``proc`` never tries it, ``auto`` takes what there is."""
    accounting: bool = True
    """Record what each life cost, if the kernel tells; False never asks it."""
    capture: Path | None = None
    hang_s: float = HANG_S
    """Replace a receiver that is silent for so long; 0 never."""
    simulate_loss: int = 0
    """Events to drop on purpose, once, to see that loss is told."""
    simulate_silence: bool = False
    """Drop all events on purpose until the subscription is renewed."""
    keep_ns: int | None = None
    """Age above which lives that ended are removed; None never."""
    max_size_bytes: int | None = None
    """Size of the database above which the oldest lives are removed; None never."""
    redaction: Redaction | None = None
    metrics_file: Path | None = None
    proc: str = "/proc"
    channel_bytes: int = DEFAULT_CAPACITY


@dataclass
class Summary:
    """What was recorded."""

    lives: int = 0
    execs: int = 0
    execs_described: int = 0
    events: int = 0
    lost: int = 0
    unwritten: int = 0
    duration_s: float = 0.0
    gaps: int = 0
    notes: list[str] = field(default_factory=list)
