"""``record`` and ``replay``: fill a history, from the kernel or from a capture."""

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prochist.cli.bounds import Size, recording_options, redaction_options
from prochist.store.database import default_path

if TYPE_CHECKING:
    from prochist.service.redaction import Redaction


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; the recording is not
        click.echo(f"prochist: {line}", err=True)


_database = click.option(
    "--db",
    "database",
    type=click.Path(path_type=Path),
    envvar="PROCHIST_DB",
    metavar="PATH",
    help="Database to record into.  [default: /var/lib/prochist/prochist.db as root]",
)


@click.command()
@_database
@click.option(
    "--flush-interval",
    type=click.FloatRange(0.01, 60),
    default=0.25,
    show_default=True,
    metavar="SECONDS",
    help="Commit what has happened at most so much later.",
)
@click.option(
    "--exec-source",
    type=click.Choice(["auto", "bpf", "proc"]),
    default="auto",
    show_default=True,
    help="Where command lines come from: the race-free eBPF probe, /proc, or the probe if it can.",
)
@click.option(
    "--receive-buffer",
    type=Size(),
    default="64M",
    show_default=True,
    metavar="SIZE",
    help="Kernel memory for events that are not yet received; the kernel doubles it.",
)
@click.option(
    "--no-accounting",
    is_flag=True,
    help="Do not record what each life cost (taskstats): CPU time, memory, I/O, faults, switches.",
)
@click.option(
    "--capture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write everything observed to FILE as well, for `prochist replay`.",
)
@click.option(
    "--hang-timeout",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Replace the receiver when it was silent for so long; 0 never.",
)
@click.option(
    "--simulate-loss",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Rehearsal: drop the first N events after the start, as an overrun would.",
)
@click.option(
    "--simulate-silence",
    is_flag=True,
    help="Rehearsal: drop all events until the subscription is renewed, as if it were silenced.",
)
@recording_options
def record(  # noqa: PLR0913, PLR0917  one for each option
    database: Path | None,
    flush_interval: float,
    exec_source: str,
    receive_buffer: int,
    no_accounting: bool,  # noqa: FBT001  click passes it by name
    capture: Path | None,
    hang_timeout: float,
    simulate_loss: int,
    simulate_silence: bool,  # noqa: FBT001  click passes it by name
    bounds: dict[str, Any],
) -> None:
    """Record every process lifetime until SIGINT or SIGTERM.

    Runs in the foreground. On a stop, everything received is committed first.
    """
    from prochist.service.notify import Notifier
    from prochist.service.recorder import Recorder
    from prochist.service.settings import Settings

    settings = Settings(
        database=database or default_path(os.environ),
        flush_interval_s=flush_interval,
        receive_buffer_bytes=receive_buffer,
        exec_source=exec_source,
        accounting=not no_accounting,
        capture=capture,
        hang_s=hang_timeout,
        simulate_loss=simulate_loss,
        simulate_silence=simulate_silence,
        **bounds,
    )
    with Recorder(settings, _say, Notifier()) as recorder:
        summary = recorder.run()
    share = f" ({summary.execs_described / summary.execs:.2%} with argv)" if summary.execs else ""
    lost = f"{summary.lost} events lost" if summary.lost else "nothing lost"
    gaps = f", {summary.gaps} gaps: see `prochist gaps`" if summary.gaps else ""
    _say(
        f"recorded {summary.lives} lifetimes and {summary.execs} execs{share}"
        f" in {summary.duration_s:.1f} s; {lost}{gaps}"
    )
    if summary.unwritten:
        _say(f"{summary.unwritten} changes could not be written")
        sys.exit(3)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_database
@redaction_options
def replay(file: Path, database: Path | None, redaction: "Redaction | None") -> None:
    """Feed a capture made by `prochist record --capture` through the same path.

    FILE may be cut anywhere: what is whole is replayed, and stderr says where
    it ends.
    """
    from prochist.service.replay import replay_capture

    summary = replay_capture(file, database or default_path(os.environ), redaction)
    _say(
        f"replayed {summary.events} events: {summary.lives} lifetimes, {summary.execs} execs"
        + "".join(f"; {note}" for note in summary.notes)
    )


__all__ = ["record", "replay"]
