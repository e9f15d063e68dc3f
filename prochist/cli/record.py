"""``record`` and ``replay``: fill a history, from the kernel or from a capture."""

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prochist.store.database import default_path


def parse_size(text: str) -> int:
    """Parse a size such as ``64M`` or ``256K`` into bytes; units are powers of 1024.

    Raises:
        ValueError: not a size.

    """
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), ""
    if number and not number[-1].isdecimal():
        number, unit = number[:-1], number[-1]
    if unit not in units or not number.replace(".", "", 1).isdecimal():
        message = f"{text!r} is not a size: write a number with K, M or G behind it, as in 64M"
        raise ValueError(message)
    return int(float(number) * units[unit])


if TYPE_CHECKING:
    SizeType = click.ParamType[int]
else:
    SizeType = click.ParamType  # not subscriptable before click 8.2


class Size(SizeType):
    """A number of bytes, with K, M, G or T."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes, or fail with what is accepted."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
    help="Where command lines come from: the race-free eBPF probe, /proc, or the probe if it loads.",
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
def record(  # noqa: PLR0913  one for each option
    database: Path | None,
    flush_interval: float,
    exec_source: str,
    receive_buffer: int,
    capture: Path | None,
    hang_timeout: float,
    simulate_loss: int,
    simulate_silence: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Record every process lifetime until SIGINT or SIGTERM.

    Runs in the foreground. On a stop, everything received is committed first.
    """
    from prochist.service.notify import Notifier
    from prochist.service.recorder import Recorder, Settings

    settings = Settings(
        database=database or default_path(os.environ),
        flush_interval_s=flush_interval,
        receive_buffer_bytes=receive_buffer,
        exec_source=exec_source,
        capture=capture,
        hang_s=hang_timeout,
        simulate_loss=simulate_loss,
        simulate_silence=simulate_silence,
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
def replay(file: Path, database: Path | None) -> None:
    """Feed a capture made by `prochist record --capture` through the same path.

    FILE may be cut anywhere: what is whole is replayed, and stderr says where
    it ends.
    """
    from prochist.service.replay import replay_capture

    summary = replay_capture(file, database or default_path(os.environ))
    _say(
        f"replayed {summary.events} events: {summary.lives} lifetimes, {summary.execs} execs"
        + "".join(f"; {note}" for note in summary.notes)
    )


__all__ = ["record", "replay"]
